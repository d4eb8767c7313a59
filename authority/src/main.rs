//! `inwit-authority`: the command line of the authority. Everything it does is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    inwit_authority::cli::main()
}
