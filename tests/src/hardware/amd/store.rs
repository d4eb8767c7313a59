//! Keeps a simulated AMD root in a folder of the caller's choice, because making one takes seconds.
//!
//! It trusts the folder as it trusts the caller: whoever can write there owns the test root. It never chooses a place
//! by itself and overwrites nothing but an expired root.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::rsa::RsaKey;
use super::{AmdTestRoot, DAY, HardwareError, Product};

const ARK_KEY: &str = "ark.key.der";
const ASK_KEY: &str = "ask.key.der";
const ARK: &str = "ark.der";
const ASK: &str = "ask.der";
const CREATED_AT: &str = "created-at";
/// One year less than the certificates live.
const USABLE_FOR: u64 = 19 * 365 * DAY;

pub(super) fn load_or_generate(dir: &Path, product: Product, at: u64) -> Result<AmdTestRoot, HardwareError> {
    if let Some(root) = load(dir, product, at)? {
        return Ok(root);
    }
    let fresh = AmdTestRoot::generate_for(product, at)?;
    let staging = sibling(dir, "new");
    write(&fresh, &staging)?;
    // A folder appears whole or not at all; rename refuses to replace one that is not empty.
    if fs::rename(&staging, dir).is_ok() {
        return Ok(fresh);
    }
    if let Some(theirs) = load(dir, product, at)? {
        let _ = fs::remove_dir_all(&staging);
        return Ok(theirs);
    }
    let expired = sibling(dir, "old");
    fs::rename(dir, &expired).map_err(|source| io_error(dir, source))?;
    fs::rename(&staging, dir).map_err(|source| io_error(dir, source))?;
    let _ = fs::remove_dir_all(&expired);
    Ok(fresh)
}

/// The stored root, or nothing where there is none for this product and time.
fn load(dir: &Path, product: Product, at: u64) -> Result<Option<AmdTestRoot>, HardwareError> {
    let stamp = match fs::read_to_string(dir.join(CREATED_AT)) {
        Ok(stamp) => stamp,
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(io_error(dir, source)),
    };
    let Some((name, created_at)) = stamp.trim().split_once(' ') else { return Ok(None) };
    let Ok(created_at) = created_at.parse::<u64>() else { return Ok(None) };
    let usable = created_at.saturating_sub(DAY)..created_at.saturating_add(USABLE_FOR);
    if name != product.name() || !usable.contains(&at) {
        return Ok(None);
    }
    let read = |file: &str| fs::read(dir.join(file)).map_err(|source| io_error(&dir.join(file), source));
    Ok(Some(AmdTestRoot {
        product,
        // Chip certificates and lists made from a stored root are dated by today, not by the root's birth.
        created_at: at,
        ark: RsaKey::from_der(read(ARK_KEY)?)?,
        ask: RsaKey::from_der(read(ASK_KEY)?)?,
        ark_der: read(ARK)?,
        ask_der: read(ASK)?,
    }))
}

fn write(root: &AmdTestRoot, dir: &Path) -> Result<(), HardwareError> {
    let builder = || fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    builder().map_err(|source| io_error(dir, source))?;
    let stamp = format!("{} {}\n", root.product.name(), root.created_at);
    let files: [(&str, &[u8]); 5] = [
        (ARK_KEY, root.ark.private_der()),
        (ASK_KEY, root.ask.private_der()),
        (ARK, &root.ark_der),
        (ASK, &root.ask_der),
        (CREATED_AT, stamp.as_bytes()),
    ];
    for (file, content) in files {
        fs::write(dir.join(file), content).map_err(|source| io_error(&dir.join(file), source))?;
    }
    Ok(())
}

/// A name beside `dir` that no other thread or process uses at this moment.
fn sibling(dir: &Path, purpose: &str) -> PathBuf {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let unique = COUNTER.fetch_add(1, Ordering::Relaxed);
    let mut name = dir.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{purpose}.{}.{unique}", std::process::id()));
    dir.with_file_name(name)
}

fn io_error(path: &Path, source: io::Error) -> HardwareError {
    HardwareError::Io { path: path.to_owned(), source }
}
