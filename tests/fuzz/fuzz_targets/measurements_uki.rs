//! A unified kernel image: its sections, the stub that carries them, and what that measures.
#![no_main]

use inwit_measurements::uki::{SectionEvent, UnifiedImage};
use libfuzzer_sys::fuzz_target;

/// The section table: after PE header and optional header with six directories.
const TABLE: usize = 0x40 + 24 + 160;

/// A stub of 262 with kernel and two profiles, each section on a page of its own.
fn image() -> Vec<u8> {
    let mut image = vec![0; 0x1000];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    let sections: [(&[u8], &[u8]); 6] = [
        (b".sdmagic", b"#### LoaderInfo: systemd-stub 262.1-1 ####\0"),
        (b".data", b"\0.linux\0.osrel\0.cmdline\0.initrd\0.uname\0.sbat\0.pcrsig\0.pcrpkey\0.profile\0\0"),
        (b".linux", b"kernel"),
        (b".sbat", b"sbat,1"),
        (b".profile", b"ID=one"),
        (b".profile", b"ID=two"),
    ];
    put(0, b"MZ");
    put(0x3c, &[0x40]);
    put(0x40, b"PE\0\0\x64\x86");
    put(0x46, &[6, 0]); // sections
    put(0x54, &[160, 0]); // optional header
    put(0x58, &[0x0b, 2]); // PE32+
    put(0x58 + 60, &[0, 0x10, 0, 0]); // headers end at 0x1000
    put(0x58 + 108, &[6]);
    for (number, (name, contents)) in sections.iter().enumerate() {
        let (at, size) = (0x1000 * (number as u32 + 1), contents.len() as u32);
        put(TABLE + number * 40, name);
        put(TABLE + number * 40 + 8, &[size, at, size, at].map(u32::to_le_bytes).concat());
    }
    for (_, contents) in sections {
        image.extend(contents);
        image.resize(image.len().next_multiple_of(0x1000), 0);
    }
    assert!(UnifiedImage::parse(&image).unwrap().events(Some(1)).is_ok(), "the first input is to be a sound one");
    image
}

fuzz_target!(init: inwit_fuzz::begin_with([image()]), |input: &[u8]| {
    let Ok(image) = UnifiedImage::parse(input) else { return };
    for profile in [None, Some(0), Some(1)] {
        let Ok(events) = image.events(profile) else { continue };
        assert!(events.len() >= 2 && events.len() % 2 == 0);
        for event in events {
            assert_ne!(event.section(), ".pcrsig");
            if let SectionEvent::Contents(_, contents) = event {
                assert!(!contents.bytes().is_empty());
            }
            let _ = (event.sha256(), event.sha384());
        }
    }
});
