//! An initramfs that somebody else packed, read record by record; what the reader takes can be joined and read again.
#![no_main]

use std::path::Path;

use inwit_image::{Archive, Manifest, concatenate};
use libfuzzer_sys::fuzz_target;

fn first() -> Option<Vec<u8>> {
    let manifest = Manifest::new().directory("/etc", 0o755).file("/etc/a", 0o644, b"abc").link("/b", "etc/a");
    Some(manifest.build(Path::new("/")).ok()?.into_bytes())
}

fuzz_target!(init: inwit_fuzz::begin_with(first()), |input: &[u8]| {
    if let Ok(entries) = Archive::entries(input) {
        let twice = concatenate(&[input, input]).expect("what is well formed can be joined");
        assert_eq!(Archive::entries(&twice).map(|all| all.len()), Ok(entries.len() * 2));
    }
});
