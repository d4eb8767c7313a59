//! Firmware images that are cut, changed, or something else altogether: a named error, never a digest that could be taken
//! for that of the whole image.
//!
//! Works on a made-up image; where distributions' builds are on this machine, on those as well.

use std::io::Write;
use std::num::NonZeroU16;

use inwit_measurements::Digest;
use inwit_measurements::ovmf::FirmwareError;
use inwit_measurements::snp::{
    CpuSignature, DirectBoot, FirmwareLaunch, GuestFeatures, MeasureError, SvsmImages, Vmm, launch_digest,
};

const PAGE: usize = 4096;
/// Distances of the made-up tables from the end of the image.
const METADATA: usize = 0x400;
const SECTIONS: usize = METADATA - 16;

fn stored(guid: &str) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..16).map(|at| u8::from_str_radix(&guid[at * 2..at * 2 + 2], 16).unwrap()).collect();
    bytes[..4].reverse();
    bytes[4..6].reverse();
    bytes[6..8].reverse();
    bytes
}

fn entry(guid: &str, words: &[u32]) -> Vec<u8> {
    let data: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    [data.as_slice(), &(data.len() as u16 + 18).to_le_bytes(), &stored(guid)].concat()
}

/// Three pages with these sections {address, size, type}.
fn image_with(sections: &[[u32; 3]]) -> Vec<u8> {
    let mut image: Vec<u8> = (0..3 * PAGE).map(|at| (at / 16 % 251) as u8).collect();
    let end = image.len();
    let header = [16 + sections.len() as u32 * 12, 1, sections.len() as u32];
    let words = header.into_iter().chain(sections.iter().flatten().copied());
    let metadata: Vec<u8> = b"ASEV".iter().copied().chain(words.flat_map(u32::to_le_bytes)).collect();
    image[end - METADATA..][..metadata.len()].copy_from_slice(&metadata);
    let entries = [
        entry("dc886566984a4798a75e5585a7bf67cc", &[METADATA as u32]),
        entry("7255371f3a3b4b04927b1da6efa8d454", &[0x81_0c00, 0x400]),
        entry("00f771de1a7e4fcb890e68c77e2fb44e", &[0x80_b004]),
    ]
    .concat();
    let length = (entries.len() as u16 + 18).to_le_bytes();
    let table = [entries.as_slice(), &length, &stored("96b582de1fb245f7baeaa366c55a082d")].concat();
    image[end - 0x20 - table.len()..end - 0x20].copy_from_slice(&table);
    image
}

fn image() -> Vec<u8> {
    image_with(&[[0x80_0000, 0x9000, 1], [0x80_d000, 0x1000, 2], [0x80_e000, 0x1000, 3], [0x81_0000, 0x1000, 0x10]])
}

fn digest(image: &[u8]) -> Result<Digest<48>, MeasureError> {
    let boot = DirectBoot::measure(b"kernel", b"initrd", "quiet")?;
    let boot = FirmwareLaunch::measure(image)?.hash_table_area().map(|_| boot);
    let two = NonZeroU16::new(2).unwrap();
    let (cpu, features) = (CpuSignature::EPYC_V4, GuestFeatures::SNP);
    launch_digest(image, boot.as_ref(), two, cpu, features, Vmm::Qemu).map(Digest::from_bytes)
}

/// The made-up image, and whatever builds are here.
fn images() -> Vec<(String, Vec<u8>)> {
    let world = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/world/firmware");
    let builds = [
        format!("{world}/ovmf-amdsev/usr/share/ovmf/OVMF.amdsev.fd"),
        format!("{world}/ovmf-inteltdx/usr/share/ovmf/OVMF.inteltdx.ms.fd"),
        "/usr/share/ovmf/OVMF.fd".to_owned(),
    ];
    let builds = builds.into_iter().filter_map(|path| match std::fs::read(&path) {
        Ok(image) => Some((path, image)),
        Err(_) => {
            let _ = writeln!(std::io::stderr(), "NOT RUN: spoiled forms of {path}");
            None
        }
    });
    [("made up".to_owned(), image())].into_iter().chain(builds).collect()
}

#[test]
fn an_image_that_was_cut_is_refused_wherever_it_was_cut() {
    for (name, image) in images() {
        assert!(digest(&image).is_ok(), "{name}");
        for bytes in (0..image.len()).step_by(PAGE) {
            let refused = digest(&image[..bytes]).unwrap_err();
            assert!(matches!(refused, MeasureError::Firmware(_)), "{name} {bytes:#x}: {refused}");
        }
        for bytes in image.len() - PAGE..image.len() {
            assert!(matches!(digest(&image[..bytes]), Err(MeasureError::Firmware(_))), "{name} {bytes:#x}");
        }
        // A download that was filled up with zeros.
        for missing in [1, 0x20, 0x30, 0x100, PAGE] {
            let mut filled = image.clone();
            filled[image.len() - missing..].fill(0);
            // Up to 20h bytes are the reset vector's alone: what is left is an image, with another digest.
            assert!(digest(&filled).is_err() || missing <= 0x20, "{name} {missing:#x}");
            assert_ne!(digest(&filled), digest(&image), "{name} {missing:#x}");
        }
    }
}

/// A changed byte is an error or another digest; the tables are not outside of what is measured.
#[test]
fn a_changed_byte_near_the_tables_never_goes_unnoticed() {
    for (name, image) in images() {
        // One page stands for the whole: the rest of the image would only cost time here.
        let image = &image[image.len() - PAGE..];
        let Ok(good) = digest(image) else { continue };
        for at in 0..image.len() {
            let mut changed = image.to_vec();
            changed[at] ^= 1 << (at % 8);
            assert_ne!(digest(&changed), Ok(good), "{name} {at:#x}");
        }
    }
}

#[test]
fn files_of_another_kind_are_named() {
    let kinds: [(&[u8], &str); 5] = [
        (b"\x7fELF\x02\x01\x01", "an ELF file"),
        (b"MZ\x00\x00", "a PE image"),
        (b"IGVM\x01\x00", "an IGVM file"),
        (b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x8d\x2b\xf1\xff\x96\x76\x8b\x4c\xa9\x85\x27\x47\x07\x5b\x4f\x50\0\0\x08\0\0\0\0\0_FVH", "another architecture"),
        (b"\x00\x04\x00\x14 an AArch64 branch", "no OVMF footer table"),
    ];
    for (start, expected) in kinds {
        for bytes in [PAGE, 64 * PAGE, 64 << 20] {
            let mut file = vec![0; bytes];
            file[..start.len()].copy_from_slice(start);
            let refused = digest(&file).unwrap_err().to_string();
            assert!(refused.contains(expected), "{refused}");
        }
    }
    // Of a size that no image has, the kind still says more.
    let refused = digest(b"\x7fELF of any size").unwrap_err();
    assert_eq!(refused, MeasureError::Firmware(FirmwareError::OtherFile("an ELF file")));
    assert_eq!(digest(&vec![0; (64 << 20) + PAGE]), Err(FirmwareError::Size((64 << 20) + PAGE).into()));
}

/// Each fault alone.
#[test]
fn spoiled_tables_are_refused_by_name() {
    let good = image();
    let end = good.len();
    let spoiled = |distance: usize, bytes: &[u8]| {
        let mut image = good.clone();
        image[end - distance..][..bytes.len()].copy_from_slice(bytes);
        digest(&image)
    };
    let word = |distance: usize, value: u32| spoiled(distance, &value.to_le_bytes());
    let metadata = || Err(FirmwareError::Metadata("SEV").into());
    assert_eq!(spoiled(0x30, &[0; 16]), Err(FirmwareError::NoFooter.into()), "footer GUID");
    assert_eq!(spoiled(0x32, &[0xff, 0xff]), Err(FirmwareError::NoFooter.into()), "table longer than the image");
    assert_eq!(spoiled(0x44, &[0, 0]), Err(FirmwareError::Footer.into()), "an entry that leads to itself");
    assert_eq!(spoiled(0x44, &[17, 0]), Err(FirmwareError::Footer.into()), "an entry shorter than its own end");
    assert_eq!(spoiled(0x44, &[0xff, 0xff]), Err(FirmwareError::Footer.into()), "an entry longer than the table");
    // The entry that leads to the metadata is the first: 22 bytes before 26 and 22 more and the footer's 18.
    let pointer = 0x20 + 18 + 22 + 26 + 22;
    assert_eq!(word(pointer, 0), metadata(), "metadata after the image");
    assert_eq!(word(pointer, 1), metadata(), "metadata over the end");
    assert_eq!(word(pointer, u32::MAX), metadata(), "metadata before the image");
    assert_eq!(word(pointer, pointer as u32), metadata(), "metadata that is the entry itself");
    assert_eq!(word(pointer, METADATA as u32 - 12), metadata(), "metadata that is its own section");
    assert_eq!(spoiled(METADATA, b"ASEW"), metadata(), "signature");
    assert_eq!(word(METADATA - 4, 16), metadata(), "length without sections");
    assert_eq!(word(METADATA - 4, u32::MAX), metadata(), "absurd length");
    assert_eq!(word(METADATA - 8, 2), metadata(), "version");
    for count in [0, 3, 5, 65, 0x1555_5556, u32::MAX] {
        assert_eq!(word(METADATA - 12, count), metadata(), "count {count}");
    }
    let section = |number: usize, field: usize, value| word(SECTIONS - number * 12 - field * 4, value);
    let absurd = |result| matches!(result, Err(MeasureError::Firmware(FirmwareError::AbsurdSection { .. })));
    for (size, what) in [(0, "empty"), (0xfff, "no page"), (0xffff_f000, "beyond 4 GiB"), (0x5000_0000, "over a GiB")] {
        assert!(absurd(section(0, 1, size)), "{what}");
    }
    assert!(absurd(section(0, 0, 0x80_0001)), "unaligned");
    assert!(absurd(section(1, 1, 0x2000)), "two pages of secrets");
    let overlap = |address| Err(FirmwareError::Overlap { platform: "SEV", address }.into());
    assert_eq!(section(1, 0, 0x80_8000), overlap(0x80_8000), "over the section before");
    assert_eq!(section(1, 0, 0x80_e000), overlap(0x80_e000), "the same as the section after");
    assert_eq!(section(0, 0, 0xffff_7000), overlap(0xffff_d000), "over the image");
    let unknown = FirmwareError::UnknownSection { platform: "SEV", kind: 0x11 };
    assert_eq!(section(3, 2, 0x11), Err(unknown.into()));
    assert_eq!(section(3, 2, 1), Err(MeasureError::NoKernelHashes), "no page for the kernel's hashes");
}

#[test]
fn spoiled_svsm_images_are_refused() {
    let good = image();
    let measure = |svsm: &[u8], variables_bytes| SvsmImages { firmware: &good, variables_bytes, svsm }.measure();
    assert_eq!(measure(&good, 0), Err(FirmwareError::NoSvsm));
    assert_eq!(measure(&good[..PAGE], 0), Err(FirmwareError::NoFooter));
    assert_eq!(measure(&good, 0x1001), Err(FirmwareError::Variables(0x1001)));
    assert_eq!(measure(&[0x7f, b'E', b'L', b'F'], 0), Err(FirmwareError::OtherFile("an ELF file")));
}
