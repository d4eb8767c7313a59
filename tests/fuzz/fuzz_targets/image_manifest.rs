//! The text form of a manifest. Never built here: that would read files of this machine.
#![no_main]

use inwit_image::Manifest;
use libfuzzer_sys::fuzz_target;

const FIRST: &str =
    "# first\n\ndir /dev 0755\nnode /dev/console 0600 c 5 1\nfile /init 0755 target/init\nlink /bin init\n";

fuzz_target!(init: inwit_fuzz::begin_with([FIRST.into()]), |input: &[u8]| {
    if let Ok(text) = std::str::from_utf8(input) {
        let _ = Manifest::parse(text);
    }
});
