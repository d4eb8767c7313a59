//! What a unified image must be and which stubs and parts are refused, on made-up stubs. Reads no files.

use proptest::prelude::*;

use super::*;

const PE: usize = 0x80;
const TABLE: usize = PE + 24 + 240;

/// Headers of 0x400 bytes with room for twelve more sections, three sections, and symbols after them.
fn stub() -> Vec<u8> {
    let mut stub = vec![0; 0xa00];
    let mut put = |at: usize, bytes: &[u8]| stub[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"MZ");
    put(0x3c, &[0x80]);
    put(PE, b"PE\0\0\x64\x86\x03\0");
    put(PE + 8, &[7; 4]); // a time
    put(PE + 12, &0xa00u32.to_le_bytes()); // symbols
    put(PE + 20, &240u16.to_le_bytes());
    let optional = PE + 24;
    put(optional, &0x20bu16.to_le_bytes());
    for (offset, value) in [(8, 0x600u32), (32, 0x200), (36, 0x200), (56, 0x3400), (60, 0x400), (64, 9), (108, 16)] {
        put(optional + offset, &value.to_le_bytes());
    }
    for (number, (name, size, address)) in
        [(&b".text"[..], 0x1ff, 0x1000u32), (b".sbat", 6, 0x3000), (b".sdmagic", 0x34, 0x3100)].into_iter().enumerate()
    {
        let offset = 0x400 + number as u32 * 0x200;
        put(TABLE + number * 40, name);
        put(TABLE + number * 40 + 8, &[size, address, 0x200, offset].map(u32::to_le_bytes).concat());
        put(offset as usize, name);
    }
    stub.extend(b"symbols symbols symbols");
    stub
}

/// The head of a kernel with an EFI stub.
fn kernel() -> Vec<u8> {
    let mut kernel = stub();
    for (number, name) in [b".setup\0\0", b".text\0\0\0", b".data\0\0\0"].into_iter().enumerate() {
        kernel[TABLE + number * 40..][..8].copy_from_slice(name);
    }
    kernel.truncate(0x321);
    kernel
}

fn parts(kernel: &[u8]) -> UnifiedParts<'_> {
    UnifiedParts {
        kernel,
        initrd: b"ramdisk",
        command_line: "quiet",
        os_release: Some(b"ID=inwit\n"),
        uname: None,
        sbat: None,
    }
}

fn u32_at(image: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(image[at..at + 4].try_into().unwrap())
}

/// Name, virtual size, virtual address, raw size, raw offset.
fn table(image: &[u8]) -> Vec<(String, [u32; 4])> {
    let count = usize::from(image[PE + 6]);
    let line = |number| {
        let at = TABLE + number * 40;
        let name = String::from_utf8(image[at..at + 8].to_vec()).unwrap();
        (name.trim_end_matches('\0').to_owned(), [8, 12, 16, 20].map(|field| u32_at(image, at + field)))
    };
    (0..count).map(line).collect()
}

#[test]
fn each_part_is_a_section_of_its_own_behind_the_stub() {
    let kernel = kernel();
    let built = UnifiedKernel::build(&stub(), &parts(&kernel)).unwrap();
    let image = built.bytes();
    let lines = table(image);
    assert_eq!(lines[..3], table(&stub())[..3], "the stub's own stay where they are");
    let expected: [(&str, &[u8], u32, u32); 4] = [
        (".osrel", b"ID=inwit\n", 0x4000, 0xa00),
        (".cmdline", b"quiet", 0x5000, 0xc00),
        (".initrd", b"ramdisk", 0x6000, 0xe00),
        (".linux", &kernel, 0x7000, 0x1000),
    ];
    for ((name, [virtual_size, address, raw_size, offset]), (expected_name, contents, at, from)) in
        lines[3..].iter().zip(expected)
    {
        assert_eq!((name.as_str(), *address, *offset), (expected_name, at, from));
        assert_eq!(*virtual_size as usize, contents.len(), "not padded: the stub measures what this says");
        assert_eq!(*raw_size as usize, contents.len().next_multiple_of(0x200));
        let stored = &image[from as usize..(from + raw_size) as usize];
        assert!(stored.starts_with(contents) && stored[contents.len()..].iter().all(|byte| *byte == 0));
    }
    assert_eq!((lines.len(), image.len()), (7, 0x1400), "symbols are left out");
    assert_eq!(u32_at(image, PE + 24 + 56), 0x7400, "SizeOfImage");
    assert_eq!(u32_at(image, PE + 24 + 8), 0x600 + 3 * 0x200 + 0x400, "SizeOfInitializedData");
    assert_eq!([8, 12, 16, 24 + 64].map(|field| u32_at(image, PE + field)), [0; 4], "time, symbols, checksum");
    assert_eq!(built.sections(), [(".osrel", 9), (".cmdline", 5), (".initrd", 7), (".linux", 0x321)]);
}

#[test]
fn what_is_not_given_is_not_there_and_equal_parts_give_equal_bytes() {
    let kernel = kernel();
    let mut few = parts(&kernel);
    (few.os_release, few.uname) = (None, Some("6.12.1"));
    let built = UnifiedKernel::build(&stub(), &few).unwrap();
    let names: Vec<String> = table(built.bytes()).into_iter().skip(3).map(|(name, _)| name).collect();
    assert_eq!(names, [".uname", ".cmdline", ".initrd", ".linux"]);
    assert_eq!(UnifiedKernel::build(&stub(), &few).unwrap(), built);
    let mut later = stub();
    (later[PE + 8], later[PE + 24 + 64]) = (1, 2);
    later.extend(b"more symbols");
    assert_eq!(UnifiedKernel::build(&later, &few).unwrap(), built, "time, checksum and symbols do not matter");
}

#[test]
fn other_sbat_lines_take_the_place_of_the_stubs() {
    let kernel = kernel();
    let with = |sbat| UnifiedKernel::build(&stub(), &UnifiedParts { sbat: Some(sbat), ..parts(&kernel) });
    let built = with(b"ab").unwrap();
    assert_eq!(table(built.bytes())[1], (".sbat".into(), [2, 0x3000, 0x200, 0x600]));
    assert_eq!(built.bytes()[0x600..0x606], *b"ab\0\0\0\0");
    assert!(with(&[b'a'; 0x100]).is_ok());
    assert_eq!(
        with(&[b'a'; 0x101]),
        Err(UkiError::Sbat { given: 0x101, room: 0x100 }),
        "the next section begins there"
    );
}

#[test]
fn sbat_lines_in_the_last_section_of_a_stub_push_the_rest_behind_them() {
    let kernel = kernel();
    let mut stub = stub();
    let swapped = [0, 2, 1].map(|number| stub[TABLE + number * 40..][..8].to_vec()).concat();
    for (number, name) in swapped.chunks_exact(8).enumerate() {
        stub[TABLE + number * 40..][..8].copy_from_slice(name);
    }
    // .sbat of 6 bytes is the last now, on half a page of the file and more than one page long there.
    stub[TABLE + 80 + 8] = 6;
    stub[TABLE + 80 + 17] = 0x20;
    stub.resize(0x800 + 0x2000, 0);
    let lines = |sbat: Option<&[u8]>| {
        let built = UnifiedKernel::build(&stub, &UnifiedParts { sbat, ..parts(&kernel) }).unwrap();
        table(built.bytes()).into_iter().map(|(name, [size, address, ..])| (name, size, address)).collect::<Vec<_>>()
    };
    assert_eq!(lines(None)[3], (".osrel".into(), 9, 0x4000));
    let longer = lines(Some(&[b'a'; 0x1800]));
    assert_eq!(longer[2], (".sbat".into(), 0x1800, 0x3100));
    assert_eq!(longer[3], (".osrel".into(), 9, 0x5000));
}

#[test]
fn a_unified_image_is_not_taken_for_a_kernel() {
    let kernel = kernel();
    let image = UnifiedKernel::build(&stub(), &parts(&kernel)).unwrap();
    let twice = UnifiedKernel::build(&stub(), &parts(image.bytes())).unwrap_err();
    assert_eq!(twice, UkiError::KernelIsUnified(".sdmagic".into()));
    assert!(twice.to_string().contains("give the kernel inside"), "{twice}");
    let mut cut = kernel;
    cut.truncate(TABLE + 100);
    assert_eq!(UnifiedKernel::build(&stub(), &parts(&cut)), Err(UkiError::NotPe("the kernel")));
}

#[test]
fn parts_that_would_not_arrive_are_refused() {
    let kernel = kernel();
    let good = parts(&kernel);
    let refusal = |parts: &UnifiedParts<'_>| UnifiedKernel::build(&stub(), parts).unwrap_err();
    assert_eq!(refusal(&UnifiedParts { initrd: b"", ..good }), UkiError::Empty(".initrd"));
    let without = refusal(&UnifiedParts { command_line: "", ..good });
    assert!(without == UkiError::NoCommandLine && without.to_string().contains("the host's"), "{without}");
    assert_eq!(refusal(&UnifiedParts { sbat: Some(b""), ..good }), UkiError::Empty(".sbat"));
    for text in ["quiet\n", " quiet", "quiet ", "a\0b", "ä"] {
        assert_eq!(refusal(&UnifiedParts { command_line: text, ..good }), UkiError::Text("the command line"));
        assert_eq!(refusal(&UnifiedParts { uname: Some(text), ..good }), UkiError::Text("the kernel's release"));
    }
    assert_eq!(refusal(&UnifiedParts { kernel: b"\x7fELF", ..good }), UkiError::NotPe("the kernel"));
    let mut arm = kernel.clone();
    arm[PE + 5] = 0xaa;
    assert_eq!(
        refusal(&UnifiedParts { kernel: &arm, ..good }),
        UkiError::Machine { part: "the kernel", machine: 0xaa64 }
    );
}

#[test]
fn another_file_than_a_bare_stub_is_refused() {
    let kernel = kernel();
    let build = |stub: &[u8]| UnifiedKernel::build(stub, &parts(&kernel)).map(|built| built.bytes().len());
    let put = |at: usize, bytes: &[u8]| {
        let mut stub = stub();
        stub[at..at + bytes.len()].copy_from_slice(bytes);
        build(&stub).unwrap_err()
    };
    let optional = PE + 24;
    let malformed = |error| matches!(error, UkiError::Malformed(_));
    assert_eq!(put(0, b"ZM"), UkiError::NotPe("the stub"));
    assert_eq!(put(0x3c, &[0xff; 4]), UkiError::NotPe("the stub"));
    assert_eq!(put(optional, &[0x0b, 1]), UkiError::NotPe("the stub"), "PE32");
    assert_eq!(put(PE + 4, &[0x4c, 1]), UkiError::Machine { part: "the stub", machine: 0x14c });
    assert_eq!(put(TABLE + 80, b".magic\0\0"), UkiError::NotStub);
    let unified = UnifiedKernel::build(&stub(), &parts(&kernel)).unwrap();
    assert_eq!(build(unified.bytes()), Err(UkiError::AlreadyUnified(".osrel".into())));
    assert_eq!(put(optional + 144, &[1]), UkiError::Signed);
    assert_eq!(put(TABLE + 120 + 3 * 40, b"\x01"), UkiError::NoRoom { room: 3, needed: 4 });
    assert_eq!(put(optional + 60, &[0x80, 2]), UkiError::NoRoom { room: 3, needed: 4 });
    for (at, bytes) in [
        (optional + 32, &[3u8, 0, 0, 0][..]), // SectionAlignment
        (optional + 36, &[0, 0, 0, 0]),       // FileAlignment
        (optional + 60, &[1, 0]),             // SizeOfHeaders
        (PE + 6, &[200]),                     // sections
        (PE + 20, &[8, 0]),                   // optional header
        (TABLE + 12, &[0, 0, 1]),             // .text behind .sbat in memory
        (TABLE + 16, &[0, 3]),                // .text over .sbat in the file
        (TABLE + 80 + 17, &[9]),              // .sdmagic beyond the end
        (TABLE, b".sbat\0"),                  // two of this name
        (TABLE + 80 + 10, &[0x20]),           // 2 MiB of zeros behind .sdmagic
    ] {
        assert!(malformed(put(at, bytes)), "{at:#x}");
    }
    assert_eq!(put(TABLE + 80 + 12, &[0xff; 4]), UkiError::TooLarge);
    assert!(malformed(build(&stub()[..0x9ff]).unwrap_err()));
}

proptest! {
    #[test]
    fn changed_stubs_never_panic(changes in proptest::collection::vec((0usize..0x400, any::<u8>()), 1..8), length in 0usize..0xa20) {
        let (mut stub, kernel) = (stub(), kernel());
        for (at, byte) in changes {
            stub[at] = byte;
        }
        stub.truncate(length);
        let _ = UnifiedKernel::build(&stub, &parts(&kernel));
    }
}
