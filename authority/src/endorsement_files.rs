//! Endorsements as files: a folder for each platform, read whole and checked, one bad file refusing all.
//!
//! ```text
//! endorsements/snp/<milan|genoa|turin>/ark.der, ask.der, [asvk.der], [*.crl]
//! endorsements/tdx/<any name>/root.der, collateral.json     (QuoteCollateralV3)
//! endorsements/vtpm/attestation-keys                        (a SHA-256 of a SubjectPublicKeyInfo in hex, a line each)
//! ```

use crate::evidence::{EndorsementError, Endorsements, Product, SnpRoot, TdxPart, TdxRoot};
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
    for path in folders(&folder.join("snp"))? {
        endorsements.snp.push(snp_root(&path)?);
    }
    for path in folders(&folder.join("tdx"))? {
        let root = files::read(&path.join("root.der"), FILE_LIMIT)?;
        let collateral = files::read(&path.join("collateral.json"), FILE_LIMIT)?;
        let parts = [TdxPart::Collateral(&collateral)];
        endorsements.tdx.push(TdxRoot::new(&root, &parts).map_err(fault(&path))?);
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

fn folders(folder: &Path) -> Result<Vec<PathBuf>, Fault> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let listing = std::fs::read_dir(folder).map_err(|error| Fault::of(folder.display(), error))?;
    let mut folders = Vec::new();
    for entry in listing {
        folders.push(entry.map_err(|error| Fault::of(folder.display(), error))?.path());
    }
    folders.sort();
    Ok(folders)
}

fn snp_root(path: &Path) -> Result<SnpRoot, Fault> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let product = Product::from_name(name)
        .ok_or_else(|| Fault::of(path.display(), "the folder is named milan, genoa or turin, for the product"))?;
    let ark = files::read(&path.join("ark.der"), FILE_LIMIT)?;
    let mut intermediates = Vec::new();
    for file in ["ask.der", "asvk.der"] {
        if path.join(file).exists() {
            intermediates.push(files::read(&path.join(file), FILE_LIMIT)?);
        }
    }
    let mut crls = Vec::new();
    for file in folders(path)?.iter().filter(|file| file.extension().is_some_and(|extension| extension == "crl")) {
        crls.push(files::read(file, FILE_LIMIT)?);
    }
    SnpRoot::new(product, &ark, &intermediates, &crls).map_err(fault(path))
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
