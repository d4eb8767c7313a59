//! A kernel or boot loader: Authenticode digests, and what QEMU's changes to a kernel's header do to it.
#![no_main]

use inwit_measurements::linux::{DirectKernel, KernelHeader, RamdiskOption};
use inwit_measurements::pe::{authenticode_sha256, authenticode_sha384};
use inwit_measurements::tdx::rtmr2_events;
use libfuzzer_sys::fuzz_target;

/// Headers at 0x40, one section, six data directories; with the setup header of a Linux kernel if asked for.
fn image(setup: &[u8]) -> Vec<u8> {
    let mut image = vec![0; 0xc00];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"MZ");
    put(0x3c, &[0x40]);
    put(0x40, b"PE\0\0");
    put(0x46, &[1, 0]); // sections
    put(0x54, &[160, 0]); // optional header
    put(0x58, &[0x0b, 2]); // PE32+
    put(0x58 + 60, &[0, 8, 0, 0]); // headers end at 0x800
    put(0x58 + 108, &[6]);
    put(0x58 + 160 + 16, &[0, 4, 0, 0, 0, 8, 0, 0]); // 0x400 bytes at 0x800
    put(0x1f1, setup.get(..1).unwrap_or_default());
    put(0x202, setup.get(1..).unwrap_or_default());
    image
}

fuzz_target!(init: inwit_fuzz::begin_with([image(b""), image(b"\x01HdrS\x0f\x02")]), |input: &[u8]| {
    let both = (authenticode_sha256(input), authenticode_sha384(input));
    assert_eq!(both.0.is_ok(), both.1.is_ok());
    for memory_mib in [1, 512, 4096] {
        let kernel = DirectKernel {
            kernel: input,
            initrd: b"initrd",
            append: "console=ttyS0",
            memory_mib,
            ramdisk_option: RamdiskOption::BeforeCommandLine,
            header: KernelHeader::FilledIn,
        };
        let _ = rtmr2_events(&kernel);
        if let Ok(patched) = kernel.patched() {
            assert_eq!(patched.len(), input.len());
        }
    }
});
