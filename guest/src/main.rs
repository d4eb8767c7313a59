//! `inwit-guest`: PID 1 of a measured initramfs when its pid is 1, an ordinary service otherwise. As PID 1 it ignores its
//! arguments, since they come from the host; everything it obeys is in the one measured configuration file.

use std::process::ExitCode;

/// Memory that is given back is wiped first: ring, rustls and the TLS buffers do not wipe theirs.
#[global_allocator]
static WIPING: inwit_guest::sys::WipingAllocator = inwit_guest::sys::WipingAllocator;

const USAGE: &str = "\
inwit-guest: the agent inside a confidential VM

usage: inwit-guest --config FILE     run as a service with this measured configuration
       inwit-guest --check FILE      parse a configuration, print its digest, and exit
       inwit-guest --version

As PID 1 it takes no arguments and reads /etc/inwit/guest.conf.
Exit codes: 0 the workload ended well, 1 own fault, 2 usage, 3 refused (the console says why in one line).";

fn main() -> ExitCode {
    if std::process::id() == 1 {
        return inwit_guest::run_as_init();
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["--config", path] => inwit_guest::run_as_service(path.as_ref()),
        ["--check", path] => inwit_guest::check(path.as_ref()),
        ["--version"] => {
            inwit_guest::console::line(concat!("inwit-guest ", env!("CARGO_PKG_VERSION")), ExitCode::SUCCESS)
        }
        ["--help" | "-h"] => inwit_guest::console::line(USAGE, ExitCode::SUCCESS),
        _ => inwit_guest::console::line(USAGE, ExitCode::from(2)),
    }
}
