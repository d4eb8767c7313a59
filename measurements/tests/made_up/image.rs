//! A made-up firmware image and initial ramdisk, as small as they can be. Nothing foreign is read.

/// An uncompressed newc archive of plain files.
pub(crate) fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, content) in files.iter().chain([&("TRAILER!!!", &b""[..])]) {
        out.extend(b"070701");
        for field in [0, 0o100_755, 0, 0, 1, 0, content.len(), 0, 0, 0, 0, name.len() + 1, 0] {
            out.extend(format!("{field:08x}").bytes());
        }
        for bytes in [[name.as_bytes(), b"\0"].concat().as_slice(), content] {
            out.extend_from_slice(bytes);
            out.resize(out.len().next_multiple_of(4), 0);
        }
    }
    out
}

/// One page with a footer table that leads to SEV metadata with kernel hashes.
pub(crate) fn firmware() -> Vec<u8> {
    let hash_table = "7255371f3a3b4b04927b1da6efa8d454";
    let metadata = "dc886566984a4798a75e5585a7bf67cc";
    let reset = "00f771de1a7e4fcb890e68c77e2fb44e";
    let footer = "96b582de1fb245f7baeaa366c55a082d";
    let mut image = vec![0; 4096];
    let mut sections = b"ASEV".to_vec();
    for word in [16 + 24, 1, 2, 0x80_0000, 0x1000, 1, 0x81_0000, 0x1000, 0x10u32] {
        sections.extend(word.to_le_bytes());
    }
    image[4096 - 0x400..][..sections.len()].copy_from_slice(&sections);
    let mut table = Vec::new();
    entry(&mut table, metadata, &[0x400]);
    entry(&mut table, hash_table, &[0x81_0c00, 0x400]);
    entry(&mut table, reset, &[0x80_b004]);
    let length = table.len() as u16 + 18;
    table.extend(length.to_le_bytes());
    table.extend(stored(footer));
    image[4096 - 0x20 - table.len()..4096 - 0x20].copy_from_slice(&table);
    image
}

fn entry(table: &mut Vec<u8>, guid: &str, words: &[u32]) {
    table.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    table.extend((words.len() as u16 * 4 + 18).to_le_bytes());
    table.extend(stored(guid));
}

/// The stored, mixed-endian form of a GUID.
fn stored(guid: &str) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..16).map(|at| u8::from_str_radix(&guid[at * 2..at * 2 + 2], 16).unwrap()).collect();
    bytes[..4].reverse();
    bytes[4..6].reverse();
    bytes[6..8].reverse();
    bytes
}
