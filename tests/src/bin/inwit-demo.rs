//! `cargo demo`: one command from a checkout to a real VM that does the main job. Everything it does is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    inwit_tests::demo::main()
}
