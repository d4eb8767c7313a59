//! Small made-up inputs for `inwit-measure`, in a folder of their own, and how it is run on them.
//!
//! Nothing foreign is read. Never needs firmware of a distribution.

mod image;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

pub(crate) use image::archive;
use image::firmware;

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
