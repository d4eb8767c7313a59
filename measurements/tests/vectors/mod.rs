//! Firmware images among the collected vectors (`INWIT_VECTORS`), for the tests of several packages.
//!
//! Never in the repository: where they are not there, the test that asks says so.

use std::path::PathBuf;
use std::process::Command;

/// A vector of the calculator sev-snp-measure, unpacked where it is packed; none where it is not there.
pub(crate) fn vector(name: &str) -> Option<Vec<u8>> {
    let beside = || concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/vectors").into();
    let folder = std::env::var_os("INWIT_VECTORS").map_or_else(beside, PathBuf::from);
    let path = folder.join("virtee+sev-snp-measure").join(name);
    if !path.exists() {
        return None;
    }
    if !name.ends_with(".gz") {
        return Some(std::fs::read(path).unwrap());
    }
    let output = Command::new("gzip").arg("-dc").arg(path).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    Some(output.stdout)
}
