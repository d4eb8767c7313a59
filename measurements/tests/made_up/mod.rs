//! Small made-up inputs for `inwit-measure`, in a folder of their own, and how it is run on them.
//!
//! Nothing foreign is read. Never needs firmware of a distribution.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A folder of its own for each test, removed when it ends.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("inwit-measure-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        let folder = Self(path);
        folder.write("OVMF.fd", &firmware());
        folder.write("guest.igvm", &igvm(None));
        folder.write("kernel", b"kernel");
        folder.write("agent", b"agent");
        folder.write("config", b"config");
        folder.write("initrd", &archive(&[("init", b"agent"), ("conf", b"config")]));
        folder.write("foreign", &archive(&[("init", b"agent"), ("conf", b"another")]));
        folder
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.0.join(name), bytes).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

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
fn firmware() -> Vec<u8> {
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

/// The program with these words, in this folder.
pub(crate) fn command(folder: &Path, arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_inwit-measure"));
    command.current_dir(folder).args(arguments.split(' '));
    command
}

pub(crate) fn run(folder: &Path, arguments: &str) -> Output {
    command(folder, arguments).output().unwrap()
}

pub(crate) fn succeed(folder: &Path, arguments: &str) -> String {
    let output = run(folder, arguments);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn refuse(folder: &Path, arguments: &str, code: i32) -> String {
    let output = run(folder, arguments);
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    assert!(output.stdout.is_empty(), "nothing that could be taken for a value");
    String::from_utf8(output.stderr).unwrap()
}

/// A guest of one page with data and the registers of one vCPU, parameters between the two; with a policy if one is given.
pub(crate) fn igvm(policy: Option<u64>) -> Vec<u8> {
    let header = |kind: u32, fields: &[&[u8]]| {
        let fields = fields.concat();
        let mut header = [kind, fields.len() as u32].map(u32::to_le_bytes).concat();
        header.extend(fields);
        header.resize(header.len().next_multiple_of(8), 0);
        header
    };
    let (word, long) = (u32::to_le_bytes, u64::to_le_bytes);
    let headers = |data: u32| {
        [
            header(1, &[&word(1), &[0, 2, 1, 0], &[0; 8]]),
            policy.map(|policy| header(0x101, &[&long(policy), &word(1), &word(0)])).unwrap_or_default(),
            header(0x301, &[&long(0x1000), &word(7), &word(0)]),
            header(0x302, &[&long(0x10_0000), &word(1), &word(data), &[0; 8]]),
            header(0x303, &[&long(0x20_0000), &word(1), &word(7)]),
            header(0x304, &[&long(0xffff_ffff_f000), &word(1), &word(data), &[0; 4]]),
        ]
        .concat()
    };
    let length = headers(0).len();
    let mut file = b"IGVM".to_vec();
    file.extend([1, 24, length as u32, (24 + length + 4096) as u32, 0].map(u32::to_le_bytes).concat());
    file.extend(headers(24 + length as u32));
    let checksum = !file.iter().fold(u32::MAX, |crc, byte| {
        let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        (0..8).fold(crc ^ u32::from(*byte), step)
    });
    file[20..24].copy_from_slice(&checksum.to_le_bytes());
    let mut page = [0; 4096];
    // SEV_FEATURES, and what KVM sets in EFER, CR4, CR0, DR7, RFLAGS and XCR0.
    for (offset, value) in [(0x3b0, 1), (0xd1, 0x10), (0x148, 0x40), (0x158, 0x31), (0x161, 4), (0x170, 2), (0x3e8, 1)]
    {
        page[offset] = value;
    }
    [file, page.to_vec()].concat()
}
