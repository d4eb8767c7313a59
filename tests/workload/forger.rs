//! A tiny init of a hostile guest: tries to overwrite and to remove an NV index that the machine's maker left in the TPM, with
//! the empty password of each hierarchy, prints the TPM's response codes and powers off. Test harness only.
#![allow(unsafe_code)]

use std::io::{Read, Write};

unsafe extern "C" {
    fn mount(source: *const u8, target: *const u8, kind: *const u8, flags: u64, data: *const u8) -> i32;
    fn reboot(how: i32) -> i32;
}

const INDEX: u32 = 0x0140_0001;
const OWNER: u32 = 0x4000_0001;
const PLATFORM: u32 = 0x4000_000c;
const NV_UNDEFINE: u32 = 0x0122;
const NV_WRITE: u32 = 0x0137;
const NV_READ: u32 = 0x014e;

/// One command with an empty password (TPM 2.0 Library, part 3); the response code.
fn command(code: u32, by: u32, parameters: &[u8]) -> std::io::Result<u32> {
    let session = [0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0];
    let body = [&by.to_be_bytes()[..], &INDEX.to_be_bytes(), &session, parameters].concat();
    let size = (body.len() + 10) as u32;
    let command = [&[0x80, 2][..], &size.to_be_bytes(), &code.to_be_bytes(), &body].concat();
    let mut tpm = std::fs::OpenOptions::new().read(true).write(true).open("/dev/tpm0")?;
    loop {
        tpm.write_all(&command)?;
        let mut response = [0; 4096];
        let length = tpm.read(&mut response)?;
        match response[..length].get(6..10).map(|code| u32::from_be_bytes([code[0], code[1], code[2], code[3]])) {
            Some(0x922) => std::thread::sleep(std::time::Duration::from_millis(20)), // TPM_RC_RETRY
            code => return code.ok_or(std::io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

fn main() {
    // SAFETY: all strings end in NUL, and no data is passed.
    unsafe { mount(b"dev\0".as_ptr(), b"/dev\0".as_ptr(), b"devtmpfs\0".as_ptr(), 0, std::ptr::null()) };
    let six_bytes = [0, 6, b'f', b'o', b'r', b'g', b'e', b'd', 0, 0]; // and offset 0
    for (act, code, by, parameters) in [
        ("owner-write", NV_WRITE, OWNER, &six_bytes[..]),
        ("owner-undefine", NV_UNDEFINE, OWNER, &[]),
        ("platform-write", NV_WRITE, PLATFORM, &six_bytes),
        ("platform-undefine", NV_UNDEFINE, PLATFORM, &[]),
        ("index-write", NV_WRITE, INDEX, &six_bytes),
        ("owner-read", NV_READ, OWNER, &[0, 6, 0, 0]),
    ] {
        match command(code, by, parameters) {
            Ok(code) => println!("FORGER {act} {code:x}"),
            Err(error) => println!("FORGER {act} failed: {error}"),
        }
    }
    // SAFETY: RB_POWER_OFF has no memory to touch.
    unsafe { reboot(0x4321_fedc) };
}
