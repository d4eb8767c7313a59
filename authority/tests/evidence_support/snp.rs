//! Real SNP reports with AMD's real roots, and the host's certificate table around a certificate.

use std::path::Path;

use inwit_authority::evidence::{Endorsements, Product, SnpRoot};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::read;

const DAY: u64 = 86_400;

/// A real report: its folder, product, report version and kind of key.
pub struct Vector {
    pub folder: &'static str,
    pub product: Product,
    pub version: u32,
    pub vlek: bool,
    pub vmpl: u32,
}

const fn vector(folder: &'static str, product: Product, version: u32, vmpl: u32) -> Vector {
    Vector { folder, product, version, vlek: false, vmpl }
}

pub const MILAN_2: usize = 0;
pub const DEBUG: usize = 1;
pub const MILAN_3: usize = 2;
pub const GENOA_3: usize = 3;
pub const TURIN_5: usize = 4;
pub const GENOA_5: usize = 5;
pub const VLEK: usize = 6;

pub const VECTORS: [Vector; 7] = [
    vector("virtee+sev/snp/v2-milan", Product::Milan, 2, 0),
    vector("google+go-sev-guest/snp/v2-milan-DEBUG-policy-0xb0000", Product::Milan, 2, 0),
    vector("microsoft+confidential-sidecar-containers/snp/v3-milan-aci", Product::Milan, 3, 0),
    vector("microsoft+TEE-Attestation-Verification/snp/v3-genoa-aci", Product::Genoa, 3, 0),
    vector("microsoft+TEE-Attestation-Verification/snp/v5-turin-aci", Product::Turin, 5, 0),
    vector("confidential-dot-ai+attestation-rs/snp/v5-genoa-live2", Product::Genoa, 5, 0),
    Vector {
        folder: "confidential-containers+trustee/snp/v3-milan-VLEK-aws-vmpl1",
        product: Product::Milan,
        version: 3,
        vlek: true,
        vmpl: 1,
    },
];

impl Vector {
    pub fn report(&self, vectors: &Path) -> Vec<u8> {
        read(vectors.join(self.folder).join("report.bin"))
    }

    pub fn certificate(&self, vectors: &Path) -> Vec<u8> {
        read(vectors.join(self.folder).join(if self.vlek { "vlek.der" } else { "vcek.der" }))
    }

    /// The certificate table of a host that has only the endorsement key's certificate.
    pub fn table(&self, vectors: &Path) -> Vec<u8> {
        let guid = if self.vlek { GUID_VLEK } else { GUID_VCEK };
        table(&[(guid, &self.certificate(vectors))])
    }

    /// Thirty days after the certificate began to be valid, and its last second.
    pub fn times(&self, vectors: &Path) -> (u64, u64) {
        let der = self.certificate(vectors);
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        let seconds = |time: i64| u64::try_from(time).unwrap();
        let validity = certificate.validity();
        (seconds(validity.not_before.timestamp()) + 30 * DAY, seconds(validity.not_after.timestamp()))
    }
}

/// AMD's own roots, all products, with ASK and ASVK.
pub fn amd(vectors: &Path) -> Endorsements {
    let root = |product: Product| {
        let file =
            |kind: &str| read(vectors.join("_amd-roots").join(format!("{}-{kind}.der", product.name().to_lowercase())));
        SnpRoot::new(product, &file("ark"), &[file("ask"), file("asvk")], &[]).unwrap()
    };
    Endorsements { snp: [Product::Genoa, Product::Milan, Product::Turin].map(root).to_vec(), ..Endorsements::default() }
}

pub const GUID_VCEK: u128 = 0x63da758d_e664_4564_adc5_f4b93be8accd;
pub const GUID_VLEK: u128 = 0xa8074bc2_a25a_483e_aae6_39c045a0b8a1;
pub const GUID_ASK: u128 = 0x4ab7b379_bbac_4fe4_a02f_05aef327c782;

pub fn table(certificates: &[(u128, &[u8])]) -> Vec<u8> {
    let mut offset = 24 * (certificates.len() + 1);
    let mut table = Vec::new();
    for (guid, der) in certificates {
        table.extend(guid.to_be_bytes());
        table.extend(u32::try_from(offset).unwrap().to_le_bytes());
        table.extend(u32::try_from(der.len()).unwrap().to_le_bytes());
        offset += der.len();
    }
    table.extend([0; 24]);
    certificates.iter().for_each(|(_, der)| table.extend_from_slice(der));
    table
}
