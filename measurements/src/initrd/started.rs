//! Which program of the initrd the kernel starts.
//!
//! Source: Linux `init/main.c` (`rdinit_setup`, `kernel_init`), `kernel/params.c` (`parse_args`, `next_arg`), with the
//! arguments of Documentation/admin-guide/kernel-parameters.txt: the last `rdinit=` before a `--`, otherwise `/init`.
//! What is read with care for quotes, control characters or the kernel's limit on length is not guessed at.
//!
//! Not trusted: the command line. Never seen here: what is built into the kernel, its own command line among it.

use thiserror::Error;

/// Where the kernel looks when nothing is said.
const DEFAULT: &str = "/init";
/// Longest command line whose end surely reaches the kernel: x86 takes 2048 bytes, with what firmware adds.
const MAX_BYTES: usize = 2000;

/// Why it is not known what the kernel starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum StartedError {
    /// `rdinit` beside quotes, control or other characters, or in a line so long that it may be cut off.
    #[error(
        "the command line speaks of `rdinit` in a way that is not followed here: no quotes, printable ASCII alone, at most \
         {MAX_BYTES} bytes"
    )]
    Unclear,
    /// `rdinit=` without a path: the kernel then looks for a root disk.
    #[error("the command line's last `rdinit=` names nothing: the kernel would start from a disk")]
    Nothing,
    /// The initrd that is unpacked may be none, or another one.
    #[error("the command line has `{0}`: the kernel may unpack another initrd, or none")]
    OtherInitrd(&'static str),
}

/// Path of the program that the kernel starts first, with this command line and an initrd.
///
/// # Errors
/// [`StartedError`].
pub fn started(command_line: &str) -> Result<&str, StartedError> {
    for word in ["noinitrd", "initrdmem"] {
        if command_line.contains(word) {
            return Err(StartedError::OtherInitrd(word));
        }
    }
    if !command_line.contains("rdinit") {
        return Ok(DEFAULT);
    }
    let plain = command_line.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"');
    if !plain || command_line.len() > MAX_BYTES {
        return Err(StartedError::Unclear);
    }
    let words = command_line.split(' ').take_while(|word| *word != "--");
    match words.filter_map(|word| word.strip_prefix("rdinit=")).last() {
        Some("") => Err(StartedError::Nothing),
        Some(path) => Ok(path),
        None => Ok(DEFAULT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_rdinit_before_the_dashes_is_started() {
        for (command_line, expected) in [
            ("", Ok("/init")),
            ("console=ttyS0 dyndbg=\"file x\"", Ok("/init")),
            ("rdinit=/bin/a quiet", Ok("/bin/a")),
            ("rdinit=/bin/a  rdinit=/bin/b", Ok("/bin/b")),
            ("rdinit=/bin/a -- rdinit=/bin/b", Ok("/bin/a")),
            ("-- rdinit=/bin/b", Ok("/init")),
            ("init=/bin/a xrdinit=/bin/b", Ok("/init")),
            ("rdinit=/bin/a=b", Ok("/bin/a=b")),
            ("rdinit=", Err(StartedError::Nothing)),
            ("rdinit=/a rdinit=", Err(StartedError::Nothing)),
            ("\"rdinit=/a b\"", Err(StartedError::Unclear)),
            ("x=\" rdinit=/a\"", Err(StartedError::Unclear)),
            ("quiet\trdinit=/a", Err(StartedError::Unclear)),
            ("quiet\u{a0}rdinit=/a", Err(StartedError::Unclear)),
            ("quiet\nrdinit=/a", Err(StartedError::Unclear)),
            ("quiet noinitrd", Err(StartedError::OtherInitrd("noinitrd"))),
            ("initrdmem=0x1000,0x1000", Err(StartedError::OtherInitrd("initrdmem"))),
        ] {
            assert_eq!(started(command_line), expected, "{command_line:?}");
        }
        let long = format!("rdinit=/a {}", "x".repeat(MAX_BYTES));
        assert_eq!(started(&long), Err(StartedError::Unclear), "its end may be cut off");
    }
}
