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

/// Where things are in a quote of version 4 with a TD 1.0 body, or of version 5 with a TD 1.5 one.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// End of what the attestation key signed.
    pub signed: usize,
    /// Where the size of the outer and of the inner certification data stands.
    pub outer: usize,
    pub inner: usize,
    /// The PCK chain in PEM, to the end of the quote.
    pub chain: usize,
}

impl Layout {
    pub fn of(quote: &[u8]) -> Self {
        let signed = if quote[0] == 4 { 632 } else { 702 };
        let outer = signed + 4 + 128 + 2;
        let data = outer + 4 + 384 + 64;
        let inner = data + 2 + usize::from(u16::from_le_bytes([quote[data], quote[data + 1]])) + 2;
        Self { signed, outer, inner, chain: inner + 4 }
    }
}

/// The PCK chain as the quote carries it.
pub fn chain(quote: &[u8]) -> &[u8] {
    let Layout { inner, chain, .. } = Layout::of(quote);
    let size = u32::from_le_bytes(quote[inner..chain].try_into().unwrap());
    &quote[chain..chain + usize::try_from(size).unwrap()]
}

/// The same quote with another chain, every length right.
pub fn with_chain(quote: &[u8], text: &[u8]) -> Vec<u8> {
    let layout = Layout::of(quote);
    let mut made = [&quote[..layout.chain], text].concat();
    for size_at in [layout.signed, layout.outer, layout.inner] {
        let size = u32::try_from(made.len() - size_at - 4).unwrap();
        made[size_at..size_at + 4].copy_from_slice(&size.to_le_bytes());
    }
    made
}

/// A chain as Intel's quote library writes it.
pub fn written(certificates: &[Vec<u8>]) -> Vec<u8> {
    let one = |der: &Vec<u8>| {
        let pem = pem_lines(der).join("\n");
        format!("-----BEGIN CERTIFICATE-----\n{pem}\n-----END CERTIFICATE-----\n")
    };
    certificates.iter().map(one).collect::<String>().into_bytes()
}

/// The certificates of a chain, DER.
pub fn certificates(text: &[u8]) -> Vec<Vec<u8>> {
    let end = text.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    Pem::iter_from_buffer(&text[..end]).map(|block| block.unwrap().contents).collect()
}

/// Base 64 in lines of 64 characters.
fn pem_lines(der: &[u8]) -> Vec<String> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut digits = String::new();
    for bytes in der.chunks(3) {
        let bits = bytes.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - bytes.len()));
        for at in 0..4 {
            let digit = char::from(DIGITS[usize::try_from(bits >> (18 - 6 * at)).unwrap() & 63]);
            digits.push(if at <= bytes.len() { digit } else { '=' });
        }
    }
    digits.as_bytes().chunks(64).map(|line| String::from_utf8(line.to_vec()).unwrap()).collect()
}
