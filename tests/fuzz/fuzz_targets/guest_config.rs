//! The guest's configuration file. It is measured, so a bad one is a bad build; it must still be refused in order.
#![no_main]

use inwit_guest::config::MeasuredConfig;
use libfuzzer_sys::fuzz_target;

const FIRST: &str = "# first\n\
    identifier = spiffe://demo.example/hello\n\
    authority-pin = 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n\
    authority = vsock:2:4050\n\
    module = /lib/modules/tsm.ko\n\
    module-if-present = /lib/modules/sev-guest.ko\n\
    tsm-root = /sys/kernel/config/tsm/report\n\
    disk = /dev/vda disk\n\
    secret-file = password\n\
    workload = /workload/hello --loud\n\
    workload-user = 65534\n\
    outlet = greeter unix:/run/greeter spiffe://demo.example/greeter\n";

fuzz_target!(init: inwit_fuzz::begin_with([FIRST.into()]), |input: &[u8]| {
    let _ = MeasuredConfig::parse(input);
});
