//! What must not be given as a kernel or in its command line, because registers would come out otherwise than predicted.
//!
//! Sources: Linux `kernel/params.c` and `init/main.c` (how words are found), `security/integrity/ima` and
//! Documentation/admin-guide/kernel-parameters.txt (what they do), `drivers/firmware/efi/libstub`.
//!
//! Not trusted: both. Never models what such a word does.

use super::KernelError;
use crate::pe::unified_section;

/// The kernel's stub does not ask for the ramdisk, so does not measure it.
const RAMDISK: [&str; 1] = ["noinitrd"];
/// What the integrity subsystem records beside or instead of its first record. The kernel compares as far as these go.
const INTEGRITY: [&str; 5] = ["ima_policy=", "ima_tcb", "ima_template", "ima_hash=", "ima_appraise"];

/// Refuses a unified kernel image.
pub(crate) fn plain_kernel(kernel: &[u8]) -> Result<(), KernelError> {
    unified_section(kernel).map_or(Ok(()), |section| Err(KernelError::UnifiedImage(section)))
}

/// Refuses words that keep the ramdisk from being measured.
pub(crate) fn same_ramdisk(append: &str) -> Result<(), KernelError> {
    without(append, &RAMDISK)
}

/// Refuses words that change what PCR 10 holds.
pub(crate) fn same_integrity_record(append: &str) -> Result<(), KernelError> {
    without(append, &INTEGRITY)
}

/// The kernel takes `-` for `_` in names and drops quotes around words; space inside of quotes does not matter here.
fn without(append: &str, refused: &[&'static str]) -> Result<(), KernelError> {
    let plain = append.replace('-', "_").replace('"', "");
    let mut words = plain.split(|letter: char| letter.is_ascii_whitespace() || letter == '\x0b');
    match words.find_map(|word| refused.iter().find(|refused| word.starts_with(**refused))) {
        Some(word) => Err(KernelError::Word(word)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_change_registers_are_refused_as_the_kernel_finds_them() {
        for (append, word) in [
            ("quiet ima_policy=tcb", "ima_policy="),
            ("ima-policy=tcb", "ima_policy="),
            ("\"ima_policy=tcb|exec\" quiet", "ima_policy="),
            ("quiet\tima_tcb", "ima_tcb"),
            ("ima_template=ima-ng", "ima_template"),
            ("ima_template_fmt=d|n", "ima_template"),
            ("ima_hash=sha512", "ima_hash="),
            ("ima_appraise=fix", "ima_appraise"),
            ("ima_appraise_tcb", "ima_appraise"),
        ] {
            assert_eq!(same_integrity_record(append), Err(KernelError::Word(word)), "{append}");
            assert_eq!(same_ramdisk(append), Ok(()));
        }
        assert_eq!(same_ramdisk("quiet noinitrd"), Err(KernelError::Word("noinitrd")));
        for append in ["", "quiet console=ttyS0", "prima_tcb", "x=ima_tcb", "name=noinitrd"] {
            assert_eq!((same_integrity_record(append), same_ramdisk(append)), (Ok(()), Ok(())), "{append}");
        }
    }
}
