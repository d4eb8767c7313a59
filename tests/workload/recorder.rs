//! A tiny init for a trusted reference boot: prints PCR 0 and powers off. Test harness only.
#![allow(unsafe_code)]

unsafe extern "C" {
    fn mount(source: *const u8, target: *const u8, kind: *const u8, flags: u64, data: *const u8) -> i32;
    fn reboot(how: i32) -> i32;
}

fn main() {
    // SAFETY: all strings end in NUL, and no data is passed.
    unsafe { mount(b"sysfs\0".as_ptr(), b"/sys\0".as_ptr(), b"sysfs\0".as_ptr(), 0, std::ptr::null()) };
    let value = std::fs::read_to_string("/sys/class/tpm/tpm0/pcr-sha256/0");
    println!("PCR0 {}", value.unwrap_or_else(|error| error.to_string()).trim());
    // SAFETY: RB_POWER_OFF has no memory to touch.
    unsafe { reboot(0x4321_fedc) };
}
