//! A tiny init for a trusted reference boot: prints all PCRs and the firmware's event log, and powers off. Test harness
//! only.
#![allow(unsafe_code)]

unsafe extern "C" {
    fn mount(source: *const u8, target: *const u8, kind: *const u8, flags: u64, data: *const u8) -> i32;
    fn reboot(how: i32) -> i32;
}

fn mount_at(kind: &[u8], target: &[u8]) {
    // SAFETY: all strings end in NUL, and no data is passed.
    unsafe { mount(kind.as_ptr(), target.as_ptr(), kind.as_ptr(), 0, std::ptr::null()) };
}

fn main() {
    mount_at(b"sysfs\0", b"/sys\0");
    mount_at(b"securityfs\0", b"/sys/kernel/security\0");
    for pcr in 0..24 {
        let value = std::fs::read_to_string(format!("/sys/class/tpm/tpm0/pcr-sha256/{pcr}"));
        println!("PCR{pcr} {}", value.unwrap_or_else(|error| error.to_string()).trim());
    }
    let log = std::fs::read("/sys/kernel/security/tpm0/binary_bios_measurements").unwrap_or_default();
    for line in log.chunks(64) {
        println!("LOG {}", line.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    }
    // SAFETY: RB_POWER_OFF has no memory to touch.
    unsafe { reboot(0x4321_fedc) };
}
