//! An initial ramdisk: any bytes are read or refused by name, and what is read can be unpacked and recorded.
#![no_main]

use std::path::Path;

use inwit_image::{Manifest, concatenate};
use inwit_measurements::initrd::{Initrd, Tree};
use inwit_measurements::made_from::InitrdRecord;
use libfuzzer_sys::fuzz_target;

fn first() -> Vec<Vec<u8>> {
    let folders = Manifest::new().directory("/usr", 0o755).directory("/usr/bin", 0o755).link("/bin", "usr/bin");
    let files = folders.file("/usr/bin/a", 0o755, b"abc").file("/init", 0o755, b"init");
    let Ok(archive) = files.build(Path::new("/")) else { return Vec::new() };
    let second = Manifest::new().file("/bin", 0o644, b"in the way").build(Path::new("/"));
    let joined = second.ok().and_then(|second| concatenate(&[archive.bytes(), second.bytes()]).ok());
    let compressed = [archive.bytes(), &[0x28, 0xb5, 0x2f, 0xfd]].concat();
    [Some(archive.into_bytes()), joined, Some(compressed)].into_iter().flatten().collect()
}

fuzz_target!(init: inwit_fuzz::begin_with(first()), |input: &[u8]| {
    let Ok(initrd) = Initrd::read(input) else { return };
    assert!(initrd.members.is_sorted_by(|before, after| before.end <= after.start), "nothing is read twice");
    let Ok(tree) = Tree::unpack(&initrd) else { return };
    for entry in tree.entries() {
        assert!(entry.path.split('/').all(|part| !matches!(part, "" | "." | "..")), "{:?}", entry.path);
    }
    let _ = InitrdRecord::of(input);
});
