//! The firmware volumes of an OVMF image: raw, and with the input as the LZMA stream inside of a sound volume.
#![no_main]

use inwit_measurements::volume::dxe_volume_sha256;
use libfuzzer_sys::fuzz_target;

/// GUID of FFS2, as stored.
const FFS2: [u8; 16] = [0x78, 0xe5, 0x8c, 0x8c, 0x3d, 0x8a, 0x1c, 0x4f, 0x99, 0x35, 0x89, 0x61, 0x85, 0xc3, 0x2d, 0xd3];
/// GUID of an LZMA section, as stored.
const LZMA: [u8; 16] = [0x98, 0x58, 0x4e, 0xee, 0x14, 0x39, 0x59, 0x42, 0x9d, 0x6e, 0xdc, 0x7b, 0xd7, 0x94, 0x03, 0xcf];
/// Two volume sections of 12 bytes, packed by another LZMA encoder.
#[rustfmt::skip]
const STREAM: [u8; 45] = [
    0x5d, 0, 0, 1, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0x08, 0, 0x2f, 0x30, 0x66, 0x90, 0x5d, 0x73,
    0x05, 0xc8, 0xd1, 0xa3, 0xb6, 0xa0, 0xb2, 0x2d, 0x43, 0xa5, 0x9b, 0x87, 0xe0, 0xa3, 0x0e, 0x99, 0x43, 0xff, 0xff,
    0xec, 0xde, 0, 0,
];

/// A volume {header, one file {one section {stream}}}, padded with ones to whole pages.
fn volume(stream: &[u8]) -> Vec<u8> {
    let u24 = |length: usize| (length as u32).to_le_bytes();
    let section = [&u24(stream.len() + 24)[..3], &[2], &LZMA, &[24, 0, 1, 0], stream].concat();
    let file = [&[0; 18][..], &[0x0b, 0], &u24(section.len() + 24)[..3], &[0], &section].concat();
    let length = (72 + file.len()).next_multiple_of(4096);
    let header =
        [&[0; 16][..], &FFS2, &(length as u64).to_le_bytes(), b"_FVH\0\0\0\0\x48\0\0\0\0\0\0\0", &[0; 16]].concat();
    let mut volume = [header, file].concat();
    volume.resize(length, 0xff);
    volume
}

fn first() -> [Vec<u8>; 2] {
    let sound = volume(&STREAM);
    assert!(dxe_volume_sha256(&sound).is_ok(), "the first input is to be a sound one");
    [STREAM.to_vec(), sound]
}

fuzz_target!(init: inwit_fuzz::begin_with(first()), |input: &[u8]| {
    let _ = dxe_volume_sha256(input);
    let _ = dxe_volume_sha256(&volume(input));
});
