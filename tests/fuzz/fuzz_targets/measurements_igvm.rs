//! An IGVM file: its headers, and the digests of both platforms. The checksum over the headers is made anew for every
//! input, so that what lies behind it is reached.
#![no_main]

use inwit_measurements::igvm::{Igvm, Loader};
use libfuzzer_sys::fuzz_target;

const PAGE: usize = 4096;

fn header(kind: u32, contents: &[&[u8]]) -> Vec<u8> {
    let contents = contents.concat();
    let mut header = [kind, contents.len() as u32].map(u32::to_le_bytes).concat();
    header.extend(contents);
    header.resize(header.len().next_multiple_of(8), 0);
    header
}

/// The variable headers of a guest for SNP and TDX whose data is one page; its offset depends on their length.
fn headers(data: u32) -> Vec<u8> {
    let (word, long) = (u32::to_le_bytes, u64::to_le_bytes);
    let page = |address: u64, mask: u32, data: u32, kind: u32| {
        header(0x302, &[&long(address), &word(mask), &word(data), &word(0), &word(kind)])
    };
    [
        header(1, &[&word(1), &[0, 2, 1, 0], &[0; 8]]),
        header(1, &[&word(2), &[0, 3, 1, 0], &[0; 8]]),
        header(0x101, &[&long(0x30000), &word(1), &word(0)]),
        header(0x301, &[&long(0x2000), &word(7), &word(0)]),
        header(0x307, &[&word(7), &word(8)]),
        page(0x10_0000, 3, data, 0),
        header(0x303, &[&long(0x20_0000), &word(3), &word(7)]),
        page(0x10_1000, 3, 0, 0),
        page(0x10_2000, 1, 0, 1),
        page(0x10_3000, 1, 0, 2),
        header(0x304, &[&long(0xffff_ffff_f000), &word(1), &word(data), &word(0)]),
    ]
    .concat()
}

/// The file around these headers. Its page serves as data and as registers, with control registers as KVM makes them.
fn file(headers: &[u8]) -> Vec<u8> {
    let length = headers.len().next_multiple_of(8);
    let total = 24 + length + PAGE;
    let mut file = b"IGVM".to_vec();
    file.extend([1, 24, length as u32, total as u32, 0].map(u32::to_le_bytes).concat());
    file.extend(headers);
    file.resize(24 + length, 0);
    let checksum = !file.iter().fold(u32::MAX, |crc, byte| {
        let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        (0..8).fold(crc ^ u32::from(*byte), step)
    });
    file[20..24].copy_from_slice(&checksum.to_le_bytes());
    let mut page = [0x33; PAGE];
    for (offset, value) in [(0x0d0, 0x1000u64), (0x148, 0x40), (0x158, 0x31), (0x160, 0x400), (0x3b0, 1)] {
        page[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
    }
    file.extend(page);
    file
}

fn first() -> [Vec<u8>; 1] {
    let length = headers(0).len() as u32;
    let sound = headers(24 + length);
    let file = file(&sound);
    let parsed = Igvm::parse(&file).expect("the first input is to be a sound one");
    assert!(
        parsed.snp_launch(Loader::Format).is_ok() && parsed.snp_launch(Loader::Qemu).is_ok() && parsed.mrtd().is_ok()
    );
    [sound]
}

fuzz_target!(init: inwit_fuzz::begin_with(first()), |input: &[u8]| {
    let _ = Igvm::parse(input);
    let file = file(input);
    let Ok(parsed) = Igvm::parse(&file) else { return };
    let _ = (parsed.snp_launch(Loader::Format), parsed.snp_launch(Loader::Qemu), parsed.mrtd());
});
