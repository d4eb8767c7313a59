//! systemd-stub as somebody else built it; what the builder takes is read back by the measuring reader.
#![no_main]

use inwit_image::{UnifiedKernel, UnifiedParts};
use inwit_measurements::uki::{UkiError, UnifiedImage};
use libfuzzer_sys::fuzz_target;

/// Headers of 0x400 bytes with room for more sections, and three of a stub's own.
fn stub() -> Vec<u8> {
    let mut stub = vec![0; 0xa00];
    let mut put = |at: usize, bytes: &[u8]| stub[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"MZ");
    put(0x3c, &[0x40]);
    put(0x40, b"PE\0\0\x64\x86\x03\0");
    put(0x54, &[0xf0, 0]); // optional header
    put(0x58, &[0x0b, 2]); // PE32+
    for (offset, value) in [(32, 0x1000u32), (36, 0x200), (60, 0x400), (108, 16)] {
        put(0x58 + offset, &value.to_le_bytes());
    }
    let sections: [(&[u8], &[u8]); 3] = [
        (b".sbat", b"sbat,1"),
        (b".data", b"\0.linux\0.osrel\0.cmdline\0.initrd\0.uname\0.sbat\0.pcrsig\0.pcrpkey\0\0"),
        (b".sdmagic", b"#### LoaderInfo: systemd-stub 254 ####\0"),
    ];
    for (number, (name, contents)) in sections.into_iter().enumerate() {
        let (address, offset) = (0x1000 * (number as u32 + 1), 0x400 + 0x200 * number as u32);
        put(0x148 + number * 40, name);
        put(0x150 + number * 40, &[contents.len() as u32, address, 0x200, offset].map(u32::to_le_bytes).concat());
        put(offset as usize, contents);
    }
    assert!(read_back(&stub, b"words"), "the first input is to be a sound one");
    stub
}

/// Whether the stub is taken; then each part is found again as it was given, unless the stub is one that cannot be predicted.
fn read_back(stub: &[u8], sbat: &[u8]) -> bool {
    let mut kernel = b"MZ".to_vec();
    kernel.resize(0x3c, 0);
    kernel.extend(b"\x40\0\0\0PE\0\0\x64\x86\0\0");
    kernel.resize(0x58, 0);
    kernel.extend([0x0b, 2]);
    let parts = UnifiedParts {
        kernel: &kernel,
        initrd: b"ramdisk",
        command_line: "quiet",
        os_release: Some(b"ID=x\n"),
        uname: Some("6.12"),
        sbat: Some(sbat).filter(|sbat| !sbat.is_empty()),
    };
    let Ok(built) = UnifiedKernel::build(stub, &parts) else { return false };
    assert_eq!(UnifiedKernel::build(stub, &parts).as_ref(), Ok(&built));
    let taken = match UnifiedImage::parse(built.bytes()).and_then(|image| image.taken(None)) {
        Ok(taken) => taken,
        // These would be the builder's own fault.
        Err(fault @ (UkiError::Overlap(..) | UkiError::Bounds(_) | UkiError::Duplicate(_))) => panic!("{fault}"),
        Err(_) => return false,
    };
    for (name, contents) in taken {
        let given: &[u8] = match name {
            ".linux" => &kernel,
            ".initrd" => b"ramdisk",
            ".cmdline" => b"quiet",
            ".osrel" => b"ID=x\n",
            ".uname" => b"6.12",
            _ => continue,
        };
        assert_eq!(contents.bytes(), given, "{name}");
    }
    true
}

fuzz_target!(init: inwit_fuzz::begin_with([stub()]), |input: &[u8]| {
    let _ = read_back(input, b"");
    let _ = read_back(input, b"words");
});
