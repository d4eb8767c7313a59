//! What is measured of a unified image and which images are refused, each by its fault, on made-up images. Reads no files.

use proptest::prelude::*;

use super::sample::{NAMES_252, NAMES_262, TABLE, image, stub};
use super::*;
use crate::digest::{sha256, sha384};

fn built(version: &str, names: &[u8], payload: &[(&'static str, &[u8])]) -> Vec<u8> {
    let mut sections = stub(version, names);
    sections.extend(payload.iter().map(|(name, bytes)| (*name, bytes.to_vec())));
    image(&sections)
}

fn order(image: &[u8], profile: Option<usize>) -> Result<Vec<&'static str>, UkiError> {
    let events = UnifiedImage::parse(image)?.events(profile)?;
    Ok(events.iter().step_by(2).map(SectionEvent::section).collect())
}

const ALL: [(&str, &[u8]); 6] = [
    (".sbat", b"sbat,1"),
    (".initrd", b"ramdisk"),
    (".pcrsig", b"{}"),
    (".linux", b"kernel"),
    (".uname", b"6.12"),
    (".cmdline", b"quiet"),
];

#[test]
fn name_and_contents_are_measured_in_the_stubs_order() {
    let old = built("252.39-1~deb12u2", NAMES_252, &ALL);
    assert_eq!(order(&old, None).unwrap(), [".linux", ".cmdline", ".initrd"]);
    let new = built("262.1-1", NAMES_262, &ALL);
    assert_eq!(order(&new, None).unwrap(), [".linux", ".cmdline", ".initrd", ".uname", ".sbat"]);
    let parsed = UnifiedImage::parse(&old).unwrap();
    assert_eq!((parsed.stub_version(), parsed.stub_release()), ("252.39-1~deb12u2", 252));
    let events = parsed.events(None).unwrap();
    assert_eq!([events[0].sha256(), events[1].sha256()], [sha256(b".linux\0"), sha256(b"kernel")]);
    assert_eq!([events[2].sha384(), events[3].sha384()], [sha384(b".cmdline\0"), sha384(b"quiet")]);
}

#[test]
fn contents_are_as_long_as_in_memory() {
    let mut uki = built("252", NAMES_252, &ALL[3..4]);
    let size = TABLE + 3 * 40 + 8;
    let digest = |uki: &[u8]| UnifiedImage::parse(uki).unwrap().events(None).unwrap()[1].sha256();
    uki[size] = 9;
    assert_eq!(digest(&uki), sha256(b"kernel\0\0\0"));
    uki[size] = 3;
    assert_eq!(digest(&uki), sha256(b"ker"));
    uki[size] = 0;
    assert_eq!(UnifiedImage::parse(&uki).unwrap_err(), UkiError::NoKernel);
}

#[test]
fn a_profile_replaces_what_it_has_itself() {
    let uki = built(
        "262.1-1",
        NAMES_262,
        &[
            (".linux", b"kernel"),
            (".cmdline", b"base"),
            (".profile", b"ID=one"),
            (".profile", b"ID=two"),
            (".cmdline", b"two"),
        ],
    );
    let cmdline = |profile| {
        let taken = UnifiedImage::parse(&uki).unwrap().taken(Some(profile)).unwrap();
        taken.iter().map(|(_, contents)| contents.bytes().into_owned()).collect::<Vec<_>>()
    };
    assert_eq!(cmdline(0), [&b"kernel"[..], b"base", b"ID=one"]);
    assert_eq!(cmdline(1), [&b"kernel"[..], b"two", b"ID=two"]);
    assert!(matches!(order(&uki, None), Err(UkiError::Profile { found: 2, .. })));
    assert!(matches!(order(&uki, Some(2)), Err(UkiError::Profile { found: 2, .. })));
    let plain = built("262.1-1", NAMES_262, &ALL);
    assert!(matches!(order(&plain, Some(0)), Err(UkiError::Profile { found: 0, .. })));
    let old = built("252", NAMES_252, &[(".linux", b"kernel"), (".profile", b"ID=one")]);
    assert_eq!(order(&old, None), Err(UkiError::OldStub("252".into())));
}

#[test]
fn what_a_stub_would_find_in_another_way_is_refused() {
    let refusal = |payload: &[(&'static str, &[u8])]| order(&built("252", NAMES_252, payload), None).unwrap_err();
    let linux: (&str, &[u8]) = (".linux", b"kernel");
    assert_eq!(refusal(&[linux, linux]), UkiError::Duplicate(".linux"));
    assert_eq!(refusal(&[linux, (".linux2", b"x")]), UkiError::Ambiguous(".linux2".into(), ".linux"));
    assert_eq!(refusal(&[linux, (".hwids", b"x")]), UkiError::ByMachine(".hwids"));
    assert_eq!(refusal(&ALL[..3]), UkiError::NoKernel);
    let mut uki = built("252", NAMES_252, &[linux]);
    let line = TABLE + 3 * 40;
    uki[line + 13] = 0x30; // onto .sdmagic
    assert!(matches!(order(&uki, None), Err(UkiError::Overlap(..))));
    uki[line + 13] = 0;
    assert!(matches!(order(&uki, None), Err(UkiError::Overlap(_, headers)) if headers == "(headers)"));
    for (field, value) in [(8, u32::MAX), (20, u32::MAX), (16, 0xffff)] {
        let mut uki = built("252", NAMES_252, &[linux]);
        uki[line + 8..line + 10].copy_from_slice(&[0xff, 0xff]);
        uki[line + field..line + field + 4].copy_from_slice(&value.to_le_bytes());
        assert_eq!(order(&uki, None).unwrap_err(), UkiError::Bounds(".linux".into()), "{field}");
    }
    let mut other = built("252", NAMES_252, &[linux]);
    other[0x44..0x46].copy_from_slice(&[0x64, 0xaa]);
    assert!(matches!(order(&other, None), Err(UkiError::Pe(PeError::Machine { found: 0xaa64, .. }))));
}

#[test]
fn a_kernel_that_the_stub_starts_in_another_way_is_refused() {
    let with = |kernel: &[u8]| order(&built("252", NAMES_252, &[(".linux", kernel)]), None);
    assert!(with(b"kernel").is_ok());
    let inner = built("252", NAMES_252, &[(".linux", b"kernel")]);
    assert_eq!(with(&inner), Err(UkiError::Nested(".sdmagic")));
    assert_eq!(with(&image(&[(".linux", b"kernel".to_vec())])), Err(UkiError::Nested(".linux")));
    let mut kernel = crate::pe::sample::image(0x40);
    assert!(with(&kernel).is_ok());
    kernel[0x58 + 44..0x58 + 46].fill(0);
    assert_eq!(with(&kernel), Err(UkiError::Handover));
}

#[test]
fn relocations_of_what_is_measured_are_refused() {
    // .text, .data, .sdmagic, .reloc, .linux: pages 1 to 5.
    let with = |blocks: &[(u32, u32, &[u16])], size: u32| {
        let mut table = Vec::new();
        for (page, length, entries) in blocks {
            table.extend([*page, *length].into_iter().flat_map(u32::to_le_bytes));
            table.extend(entries.iter().flat_map(|entry| entry.to_le_bytes()));
        }
        table.resize(64, 0);
        let mut uki = built("252", NAMES_252, &[(".reloc", &table), (".linux", b"kernel")]);
        let entry = 0x58 + 112 + 40;
        uki[entry..entry + 8].copy_from_slice(&[0x4000, size].map(u32::to_le_bytes).concat());
        order(&uki, None)
    };
    let (dir64, high_low) = (10 << 12, 3 << 12);
    assert!(with(&[], 0).is_ok(), "no table");
    assert!(with(&[(0x1000, 12, &[dir64 | 8, 0])], 12).is_ok(), "of code alone");
    assert!(with(&[(0xffff_f000, 10, &[0])], 10).is_ok(), "one that changes nothing, as stubs of 252 have");
    for entry in [dir64, high_low, dir64 | 5] {
        assert_eq!(with(&[(0x5000, 10, &[entry])], 10), Err(UkiError::Relocated(".linux")), "{entry:#x}");
    }
    assert!(with(&[(0x5000, 10, &[dir64 | 6])], 10).is_ok(), "behind it");
    assert_eq!(with(&[(0x4000, 10, &[dir64 | 0xffc])], 10), Err(UkiError::Relocated(".linux")), "across its start");
    assert_eq!(with(&[(0x4000, 10, &[high_low | 8])], 10), Err(UkiError::Relocated("its relocations")));
    let second: &[(u32, u32, &[u16])] = &[(0x1000, 12, &[0, 0]), (0x5000, 10, &[dir64])];
    assert_eq!(with(second, 22), Err(UkiError::Relocated(".linux")));
    for (blocks, size) in [(&second[..1], 16), (&[(0x1000, 0, &[][..])], 8), (&[(0x1000, 9, &[0])], 10), (&[], 65)] {
        assert!(matches!(with(blocks, size), Err(UkiError::Relocations(_))), "{blocks:?}");
    }
    assert!(matches!(with(&[(0x1000, 10, &[5 << 12])], 10), Err(UkiError::Relocations(_))));
}

#[test]
fn a_stub_that_is_not_known_is_refused() {
    let with = |version: &str, names: &[u8]| order(&built(version, names, &ALL[3..]), None).unwrap_err();
    for version in ["251.4", "263", "", "next", "25299999999"] {
        assert_eq!(with(version, NAMES_252), UkiError::Version(version.into()));
    }
    let names = |cause| UkiError::Names("252".into(), cause);
    assert_eq!(with("252", b"nothing"), names("it is not there"));
    assert_eq!(with("252", &[NAMES_252, NAMES_252].concat()), names("it is there twice"));
    assert_eq!(with("252", b".linux\0.osrel\0.cmdline\0.initrd\0.new\0\0"), names("it holds an unknown name"));
    assert_eq!(with("252", b".linux\0.osrel\0.cmdline\0.initrd\0.dtb\0.splash\0\0"), names("its order is another one"));
    assert_eq!(with("252", b".linux\0.osrel\0.cmdline\0.initrd\0"), names("it is cut short"));
    let bare = image(&[(".linux", b"kernel".to_vec())]);
    assert_eq!(order(&bare, None), Err(UkiError::NoStub));
    assert_eq!(order(b"MZ", None), Err(UkiError::Pe(PeError::NotPe)));
}

proptest! {
    #[test]
    fn changed_images_never_panic(changes in proptest::collection::vec((0usize..0x400, any::<u8>()), 1..8), length in 0usize..0xa000) {
        let mut uki = built("262.1-1", NAMES_262, &ALL);
        for (at, byte) in changes {
            uki[at] = byte;
        }
        uki.truncate(length);
        if let Ok(image) = UnifiedImage::parse(&uki) {
            let _ = (image.events(None), image.events(Some(0)));
        }
    }
}
