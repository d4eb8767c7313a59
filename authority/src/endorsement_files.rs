//! Endorsements as files: a folder for each root, read whole and checked, one bad file refusing all. `endorsements import`
//! writes this layout; files put there by hand under these names count as well.
//!
//! ```text
//! endorsements/snp/<milan|genoa|turin>[.<any>]/ark.der       one product's root
//!                                             ask*.der, asvk*.der   what it signed
//!                                             *.crl          its revocation lists
//!                                             veks/*.der     VCEK and VLEK certificates, for hosts that send none
//! endorsements/tdx/<any name>/root.der                       Intel's root
//!                             certificate*.der, *.crl        certificates and revocation lists under it
//!                             tcb-info*.json                 TCB info as Intel's service answers, signature included
//!                             qe-identity*.json              the quoting enclave's identity in the same form
//!                             collateral*.json               QuoteCollateralV3, all of it in one document
//! endorsements/vtpm/attestation-keys                         SHA-256 of a SubjectPublicKeyInfo, or of a TPMT_PUBLIC as a
//!                                                            TPM Name has it: 64 hex digits a line
//! ```
//!
//! Certificates and lists are DER. Another *.json under a TDX root is an error; files with other names have no effect.

use crate::evidence::{EndorsementError, Endorsements, Product, SnpRoot, TdxPart, TdxRoot, VekCertificate};
use crate::fault::Fault;
use crate::files;
use std::path::{Path, PathBuf};

/// Longest endorsement file, in bytes.
const FILE_LIMIT: usize = 4_194_304;

fn fault(path: &Path) -> impl Fn(EndorsementError) -> Fault {
    move |error| Fault::of(path.display(), error)
}

/// Loads every endorsement below `folder`. What is not there is not trusted.
pub fn load(folder: &Path) -> Result<Endorsements, Fault> {
    if !folder.is_dir() {
        let cause = "the endorsement folder is gone; if a `.last` lies beside it, an import was cut off: import again";
        return Err(Fault::of(folder.display(), cause));
    }
    let mut endorsements = Endorsements::default();
    for path in entries(&folder.join("snp"))? {
        endorsements.snp.push(snp_root(&path)?);
        for file in with_ending(&path.join("veks"), "der")? {
            let vek = VekCertificate::from_der(&files::read(&file, FILE_LIMIT)?).map_err(fault(&file))?;
            endorsements.veks.push(vek);
        }
    }
    for path in entries(&folder.join("tdx"))? {
        endorsements.tdx.push(tdx_root(&path)?);
    }
    let keys = folder.join("vtpm/attestation-keys");
    if keys.exists() {
        for line in
            files::read_text(&keys, FILE_LIMIT)?.lines().filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            endorsements
                .vtpm
                .push(parse_pin(line).ok_or_else(|| Fault::of(keys.display(), "a line is not 64 hex digits"))?);
        }
    }
    Ok(endorsements)
}

/// What is in a folder, in the order of names; nothing where there is none.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, Fault> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let listing = std::fs::read_dir(folder).map_err(|error| Fault::of(folder.display(), error))?;
    let mut entries = Vec::new();
    for entry in listing {
        entries.push(entry.map_err(|error| Fault::of(folder.display(), error))?.path());
    }
    entries.sort();
    Ok(entries)
}

fn with_ending(folder: &Path, ending: &str) -> Result<Vec<PathBuf>, Fault> {
    let mut files = entries(folder)?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == ending));
    Ok(files)
}

fn begins(file: &Path, with: &str) -> bool {
    file.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(with))
}

fn read_all(files: &[PathBuf]) -> Result<Vec<Vec<u8>>, Fault> {
    files.iter().map(|file| files::read(file, FILE_LIMIT)).collect()
}

fn snp_root(path: &Path) -> Result<SnpRoot, Fault> {
    let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
    let product = Product::from_name(name)
        .ok_or_else(|| Fault::of(path.display(), "the folder is named milan, genoa or turin, for the product"))?;
    let ark = files::read(&path.join("ark.der"), FILE_LIMIT)?;
    let mut intermediates = with_ending(path, "der")?;
    intermediates.retain(|file| begins(file, "ask") || begins(file, "asvk"));
    let (intermediates, lists) = (read_all(&intermediates)?, read_all(&with_ending(path, "crl")?)?);
    SnpRoot::new(product, &ark, &intermediates, &lists).map_err(fault(path))
}

fn tdx_root(path: &Path) -> Result<TdxRoot, Fault> {
    let root = files::read(&path.join("root.der"), FILE_LIMIT)?;
    let mut certificates = with_ending(path, "der")?;
    certificates.retain(|file| begins(file, "certificate"));
    let (certificates, lists) = (read_all(&certificates)?, read_all(&with_ending(path, "crl")?)?);
    let documents = with_ending(path, "json")?;
    let texts = read_all(&documents)?;
    let mut parts: Vec<TdxPart<'_>> = certificates.iter().map(|der| TdxPart::Certificate(der)).collect();
    parts.extend(lists.iter().map(|der| TdxPart::List(der)));
    for (file, text) in documents.iter().zip(&texts) {
        parts.push(match file {
            file if begins(file, "collateral") => TdxPart::Collateral(text),
            file if begins(file, "tcb-info") => TdxPart::TcbInfo(text),
            file if begins(file, "qe-identity") => TdxPart::QeIdentity(text),
            _ => {
                let cause =
                    "a document is named collateral*.json, tcb-info*.json or qe-identity*.json, for what it holds";
                return Err(Fault::of(file.display(), cause));
            }
        });
    }
    TdxRoot::new(&root, &parts).map_err(fault(path))
}

/// 64 hex digits.
pub fn parse_pin(text: &str) -> Option<[u8; 32]> {
    let mut pin = [0; 32];
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, digits) in pin.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(pin)
}
