//! What RTMR0 is computed from: firmware metadata with memory of any size, ACPI tables, loader scripts and variables.
#![no_main]

use inwit_fuzz::{joined, parts};
use inwit_measurements::ovmf::{Firmware, PAGE};
use inwit_measurements::tdx::{AcpiBlobs, Build, secure_boot, td_hob, variables};
use libfuzzer_sys::fuzz_target;

// GUIDs as stored.
const FOOTER: [u8; 16] =
    [0xde, 0x82, 0xb5, 0x96, 0xb2, 0x1f, 0xf7, 0x45, 0xba, 0xea, 0xa3, 0x66, 0xc5, 0x5a, 0x08, 0x2d];
const TDX: [u8; 16] = [0x35, 0x65, 0x7a, 0xe4, 0x4a, 0x98, 0x98, 0x47, 0x86, 0x5e, 0x46, 0x85, 0xa7, 0xbf, 0x8e, 0xc2];
const TDVF: [u8; 16] = [0xf3, 0xf9, 0xea, 0xe9, 0x8e, 0x16, 0xd5, 0x44, 0xa8, 0xeb, 0x7f, 0x4d, 0x87, 0x38, 0xf6, 0xae];
const VOLUME: [u8; 16] =
    [0x8d, 0x2b, 0xf1, 0xff, 0x96, 0x76, 0x8b, 0x4c, 0xa9, 0x85, 0x27, 0x47, 0x07, 0x5b, 0x4f, 0x50];
const STORE: [u8; 16] =
    [0x78, 0x2c, 0xf3, 0xaa, 0x7b, 0x94, 0x9a, 0x43, 0xa1, 0x80, 0x2e, 0x14, 0x4e, 0xc3, 0x77, 0x92];

/// The end of a page with TDVF metadata: a TD HOB and temporary memory.
fn metadata() -> Vec<u8> {
    let mut tail = vec![0; 0x210];
    let mut sections = [TDVF.as_slice(), b"TDVF", &[80u32, 1, 2].map(u32::to_le_bytes).concat()].concat();
    for (address, kind) in [(0x80_9000u64, 2u32), (0x81_0000, 3)] {
        sections.extend([0; 8]);
        sections.extend([address, 0x2000].map(u64::to_le_bytes).concat());
        sections.extend([kind, 0].map(u32::to_le_bytes).concat());
    }
    tail[..sections.len()].copy_from_slice(&sections);
    let table = [&0x200u32.to_le_bytes()[..], &[22, 0], &TDX, &[40, 0], &FOOTER].concat();
    let end = tail.len() - 0x20;
    tail[end - table.len()..end].copy_from_slice(&table);
    tail
}

fn tables() -> Vec<u8> {
    let lengths = [(b"FACS", 64u32), (b"DSDT", 40), (b"FACP", 244), (b"APIC", 52), (b"RSDT", 44)];
    let table = |(name, length): (&[u8; 4], u32)| {
        // As QEMU names its own tables; the checksum is filled in later.
        let mut table = [name.as_slice(), &length.to_le_bytes(), &[1, 0], b"BOCHS BXPC    "].concat();
        table.resize(length as usize, 1);
        table
    };
    lengths.into_iter().flat_map(table).collect()
}

fn store() -> Vec<u8> {
    let mut volume = vec![0; 72];
    volume[16..32].copy_from_slice(&VOLUME);
    volume[32] = 200;
    volume[40..44].copy_from_slice(b"_FVH");
    volume[48] = 72;
    volume.extend([&STORE[..], &[128, 0, 0, 0, 0x5a, 0xfe, 0, 0, 0, 0, 0, 0]].concat());
    volume.extend([0xaa, 0x55, 0x3f, 0]);
    volume.extend([0; 32]);
    volume.extend([6, 0, 0, 0, 2, 0, 0, 0]);
    volume.extend([9; 16]);
    volume.extend(b"d\0b\0\0\0xy");
    volume.resize(200, 0xff);
    volume
}

fn first() -> Vec<Vec<u8>> {
    assert!(AcpiBlobs::from_tables(&tables()).is_ok() && variables(&store()).is_ok_and(|all| all.len() == 1));
    let mut script = vec![0; 128];
    script[0] = 1;
    script[4..19].copy_from_slice(b"etc/acpi/tables");
    vec![joined(&[&metadata(), &tables(), &script, &store()])]
}

fuzz_target!(init: inwit_fuzz::begin_with(first()), |input: &[u8]| {
    let [metadata, tables, script, volume] = parts(input);
    let mut image = vec![0; metadata.len().next_multiple_of(PAGE) - metadata.len()];
    image.extend(metadata);
    if let Ok(firmware) = Firmware::parse(&image) {
        for memory_mib in [0, 15, 2048, 2816, u32::MAX] {
            let _ = td_hob(&firmware, memory_mib);
        }
    }
    if let Ok(blobs) = AcpiBlobs::from_tables(tables) {
        assert_eq!(blobs.digests().len(), 3);
    }
    let _ = AcpiBlobs::from_files(script, &[("etc/acpi/tables", tables)]);
    // Variables without a rule are refused on top of what is malformed.
    assert!(variables(volume).is_ok() || secure_boot(volume).is_err());
    let _ = Build::inspect(volume);
});
