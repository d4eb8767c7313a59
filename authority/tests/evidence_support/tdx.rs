//! Real TDX quotes with the collateral that Intel signed for their time, and Intel's root, found in it and known by its
//! digest.

use std::path::{Path, PathBuf};

use inwit_authority::evidence::{Endorsements, TdxPart, TdxRoot};
use inwit_protocol::primitives::sha256;
use x509_parser::pem::Pem;

use super::read;

/// SHA-256 of the Intel SGX Root CA certificate.
pub const INTEL_ROOT: &str = "44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3";

pub struct Vector {
    pub folder: PathBuf,
    pub quote: Vec<u8>,
    pub collateral: Vec<u8>,
    pub at: u64,
}

/// Every assembled quote, by folder name.
pub fn all(vectors: &Path) -> Vec<Vector> {
    let mut folders: Vec<PathBuf> =
        std::fs::read_dir(vectors.join("_tdx-assembled")).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    folders.into_iter().map(load).collect()
}

/// Two quotes with collateral that their own project captured, and a time between its dates.
pub fn phala(vectors: &Path) -> [Vector; 2] {
    let of = |(name, at): (&str, u64)| {
        let folder = vectors.join("Phala-Network+dcap-qvl");
        let (quote, collateral) = (folder.join(name), folder.join(format!("{name}_collateral.json")));
        Vector { quote: read(quote), collateral: read(collateral), at, folder: folder.join(name) }
    };
    [("tdx_quote", 1_751_328_000), ("tdx_quote_outdated", 1_771_900_000)].map(of)
}

/// The quote whose folder's name begins so.
pub fn named(vectors: &Path, prefix: &str) -> Vector {
    let named = |vector: &Vector| vector.name().starts_with(prefix);
    all(vectors).into_iter().find(named).unwrap_or_else(|| panic!("no vector {prefix}"))
}

fn load(folder: PathBuf) -> Vector {
    let at = String::from_utf8(read(folder.join("verify-at.txt"))).unwrap();
    Vector {
        quote: read(folder.join("quote.bin")),
        collateral: read(folder.join("collateral.json")),
        at: at.trim().parse().unwrap(),
        folder,
    }
}

impl Vector {
    pub fn name(&self) -> String {
        self.folder.file_name().unwrap().to_string_lossy().into_owned()
    }

    /// Intel's root with this quote's collateral.
    pub fn endorsements(&self) -> Endorsements {
        let root = TdxRoot::new(&intel_root(&self.collateral), &[TdxPart::Collateral(&self.collateral)]).unwrap();
        Endorsements { tdx: vec![root], ..Endorsements::default() }
    }
}

/// Intel's root from a collateral document, after comparing its digest.
pub fn intel_root(collateral: &[u8]) -> Vec<u8> {
    let json: serde_json::Value = serde_json::from_slice(collateral).unwrap();
    let chain = json["tcb_info_issuer_chain"].as_str().unwrap();
    let root = Pem::iter_from_buffer(chain.as_bytes()).last().unwrap().unwrap().contents;
    let digest: String = sha256(&root).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(digest, INTEL_ROOT, "the collateral's root is not Intel's");
    root
}
