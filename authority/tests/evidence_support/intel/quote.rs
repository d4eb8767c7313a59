//! Quotes of the simulated Intel: version 4 with a TD 1.0 body, or version 5 with a TD 1.5 one, extended or not. Truly
//! signed.

use inwit_protocol::primitives::sha256;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};

use super::{ATTRIBUTES, Intel, XFAM, sign};

/// What a quote says.
#[derive(Clone, Debug)]
pub struct Td {
    pub attributes: u64,
    pub xfam: u64,
    pub seam_attributes: u64,
    pub seam_signer: u8,
    pub mrtd: [u8; 48],
    /// MRCONFIGID, MROWNER, MROWNERCONFIG: each filled with its byte.
    pub owners: [u8; 3],
    pub rtmrs: [[u8; 48]; 4],
    pub report_data: [u8; 64],
    pub tee_tcb_svn: [u8; 16],
    /// TEE_TCB_SVN2 and MRSERVICETD, filled with its byte. With them the quote is of version 5.
    pub later: Option<([u8; 16], u8)>,
    /// With `later`: number of the VM, and what the hashes over devices, service TDs at the creation and those that are
    /// bound now are filled with.
    pub extension: Option<[u8; 4]>,
    /// Last byte of the quoting enclave's report data, zero on real ones.
    pub qe_tail: u8,
    pub enclave: Enclave,
}

/// What the quoting enclave's report says.
#[derive(Clone, Debug)]
pub struct Enclave {
    pub vendor: u8,
    pub misc_select: u8,
    pub attributes: u8,
    pub signer: u8,
    pub product: u8,
    pub isvsvn: u8,
    /// A bit that is changed in the digest of the attestation key.
    pub key_digest: u8,
}

impl Default for Td {
    fn default() -> Self {
        Self {
            attributes: ATTRIBUTES,
            xfam: XFAM,
            seam_attributes: 0,
            seam_signer: 0,
            mrtd: [0xd0; 48],
            owners: [0; 3],
            rtmrs: [[0xd1; 48], [0xd2; 48], [0xd3; 48], [0; 48]],
            report_data: [0xda; 64],
            tee_tcb_svn: [0; 16],
            later: None,
            extension: None,
            qe_tail: 0,
            enclave: Enclave {
                vendor: 0x93,
                misc_select: 0,
                attributes: 0,
                signer: 0xaa,
                product: 2,
                isvsvn: 4,
                key_digest: 0,
            },
        }
    }
}

impl Intel {
    pub fn quote(&self, td: &Td) -> Vec<u8> {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap();
        let signed = [header(td), body(td)].concat();
        let attestation_key = &key.public_key().as_ref()[1..];
        let data = [0x42; 32];
        let mut enclave = vec![0; 384];
        enclave[16] = td.enclave.misc_select;
        enclave[48] = td.enclave.attributes;
        enclave[128..160].fill(td.enclave.signer);
        enclave[256..260].copy_from_slice(&[td.enclave.product, 0, td.enclave.isvsvn, 0]);
        enclave[320..352].copy_from_slice(&sha256(&[attestation_key, &data[..]].concat()));
        enclave[320] ^= td.enclave.key_digest;
        enclave[383] = td.qe_tail;
        let chain = self.chain.as_bytes();
        let inner =
            [&enclave, &sign(&self.pck, &enclave)[..], &[32, 0], &data, &[5, 0], &length(chain), chain].concat();
        let signature = sign(&key, &signed);
        let data = [&signature[..], attestation_key, &[6, 0], &length(&inner), &inner].concat();
        [&signed[..], &length(&data), &data].concat()
    }
}

fn header(td: &Td) -> Vec<u8> {
    let mut vendor = [0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07];
    vendor[0] = td.enclave.vendor;
    let version = if td.later.is_some() { 5 } else { 4 };
    [&[version, 0, 2, 0, 0x81, 0, 0, 0, 0, 0, 0, 0][..], &vendor, &[0; 20]].concat()
}

/// TD report body, in version 5 after its type and size.
fn body(td: &Td) -> Vec<u8> {
    let owners = td.owners.map(|byte| [byte; 48]);
    let first = [
        &td.tee_tcb_svn[..],
        &[0; 48],
        &[td.seam_signer; 48],
        &td.seam_attributes.to_le_bytes(),
        &td.attributes.to_le_bytes(),
        &td.xfam.to_le_bytes(),
        &td.mrtd,
        owners.as_flattened(),
        td.rtmrs.as_flattened(),
        &td.report_data,
    ]
    .concat();
    match td.later {
        None => first,
        Some((svn2, service_td)) => {
            let later = [&first[..], &svn2, &[service_td; 48]].concat();
            let (kind, body) = match td.extension {
                None => (3, later),
                Some([vm, devices, initial, current]) => {
                    let told =
                        [&[vm][..], &[0x1d; 32], &[devices; 48], &[initial; 48], &[7; 8 + 16 + 16 + 12]].concat();
                    (4, [&later[..], &told, &[current; 48], &[7; 8]].concat())
                }
            };
            [&[kind, 0][..], &length(&body), &body].concat()
        }
    }
}

fn length(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len()).unwrap().to_le_bytes()
}
