//! ACPI tables as QEMU hands them to firmware (fw_cfg `etc/table-loader` and the files it names), whose bytes RTMR0
//! holds as given: the loader script first, then each file in the order in which the script allocates it.
//!
//! Sources: QEMU 10 `hw/acpi/bios-linker-loader.c`, `hw/i386/acpi-build.c`, `hw/acpi/aml-build.c` (RSDP revision 0); edk2
//! `OvmfPkg/Library/QemuFwCfgTablesLib`. Orders compared with event logs of real TDs. Table bytes depend on vCPUs,
//! devices and the QEMU version; take them from any guest of that shape, below
//! `/sys/firmware/qemu_fw_cfg/by_name/etc/acpi/` and `…/etc/table-loader` (as `raw`).
//!
//! Not trusted: the files. Every table's length and every command is checked. Never changes a table: firmware measures
//! before it fills in addresses and checksums.

mod script;

use thiserror::Error;

use crate::bytes::{slice_at, u32_at};
use crate::digest::{Digest, sha384};
use script::{derived, processors};

/// Names that QEMU gives to the files.
const RSDP_FILE: &str = "etc/acpi/rsdp";
const TABLES_FILE: &str = "etc/acpi/tables";
/// Bytes of one command of the script, and of a file name in it.
const COMMAND: usize = 128;
const NAME: usize = 56;
/// Most tables in one file; QEMU machines have 6 to 20.
const MAX_TABLES: usize = 256;
/// Most files that a script loads; QEMU has 2 to 6.
const MAX_FILES: usize = 64;
/// Longest input in bytes; QEMU reserves 64 or 128 KiB for tables, some machines up to 2 MiB.
pub const MAX_ACPI_BYTES: usize = 16 << 20;

const ALLOCATE: u32 = 1;
const ADD_POINTER: u32 = 2;
const ADD_CHECKSUM: u32 = 3;

/// Why ACPI files are refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AcpiError {
    /// Longer than [`MAX_ACPI_BYTES`].
    #[error("an ACPI file of {0} bytes: expected at most 16 MiB")]
    Size(usize),
    /// A table has no printable name, or a length that does not fit.
    #[error("the ACPI table at offset {0:#x} is malformed or cut short")]
    Table(usize),
    /// More than any machine has.
    #[error("more than {MAX_TABLES} ACPI tables")]
    TooMany,
    /// A table that every machine has is missing or there twice.
    #[error("the ACPI tables hold {count} tables named {name}, expected one")]
    Missing {
        /// Signature of the table.
        name: &'static str,
        /// How many were found.
        count: usize,
    },
    /// The layout is one for which the loader script is not known.
    #[error("the loader script of these tables cannot be derived ({0}): give the guest's own with --acpi-loader")]
    Underivable(&'static str),
    /// A table for which QEMU may have written other commands.
    #[error(
        "the loader script of these tables cannot be derived: table {name} of {maker} at offset {offset:#x}: {fault}. Give \
         the guest's own script with --acpi-loader and --acpi-rsdp"
    )]
    Foreign {
        /// Signature of the table.
        name: String,
        /// Where it is in the file.
        offset: u32,
        /// OEM id and OEM table id.
        maker: String,
        /// What is not known.
        fault: &'static str,
    },
    /// More files than any machine has.
    #[error("more than {MAX_FILES} ACPI files")]
    TooManyFiles,
    /// The script is no multiple of a command, or a command is unknown.
    #[error("the ACPI loader script is malformed at command {0}")]
    Script(usize),
    /// The script allocates a file that was not given.
    #[error("the ACPI loader script loads {0:?}, which is not given: give it with --acpi-file NAME=FILE")]
    NotGiven(String),
    /// A file was given that the script does not load.
    #[error("the ACPI loader script does not load {0:?}, which is given")]
    NotLoaded(String),
}

/// The script and the files it loads, in the order in which firmware measures them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcpiBlobs {
    blobs: Vec<(String, Digest<48>)>,
    vcpus: Option<usize>,
}

impl AcpiBlobs {
    /// From the files as a guest's fw_cfg gives them: the script (`etc/table-loader`) and every file that it loads,
    /// under its fw_cfg name.
    ///
    /// # Errors
    /// [`AcpiError`].
    pub fn from_files(script: &[u8], files: &[(&str, &[u8])]) -> Result<Self, AcpiError> {
        if let Some(large) = files.iter().map(|(_, bytes)| bytes.len()).chain([script.len()]).find(too_large) {
            return Err(AcpiError::Size(large));
        }
        if files.len() > MAX_FILES {
            return Err(AcpiError::TooManyFiles);
        }
        let mut blobs = vec![("etc/table-loader".to_owned(), sha384(script))];
        for name in allocated(script)? {
            let file = files.iter().find(|(given, _)| *given == name);
            let (_, bytes) = file.ok_or_else(|| AcpiError::NotGiven(name.clone()))?;
            blobs.push((name, sha384(bytes)));
        }
        match files.iter().find(|(given, _)| !blobs.iter().any(|(name, _)| name == given)) {
            Some((given, _)) => Err(AcpiError::NotLoaded((*given).to_owned())),
            None => {
                let tables = files.iter().find(|(name, _)| *name == TABLES_FILE);
                Ok(Self { blobs, vcpus: tables.and_then(|(_, tables)| processors(tables)) })
            }
        }
    }

    /// From `etc/acpi/tables` alone: script and RSDP are what QEMU makes of these tables (q35, tables that no other
    /// file refers to; no vTPM, NVDIMM, VM generation id or table of the user, whose scripts are others).
    ///
    /// # Errors
    /// [`AcpiError`].
    pub fn from_tables(tables: &[u8]) -> Result<Self, AcpiError> {
        if too_large(&tables.len()) {
            return Err(AcpiError::Size(tables.len()));
        }
        let (script, rsdp) = derived(tables)?;
        Self::from_files(&script, &[(RSDP_FILE, &rsdp), (TABLES_FILE, tables)])
    }

    /// Enabled processors in the APIC table; none when there is no such table.
    #[must_use]
    pub fn vcpus(&self) -> Option<usize> {
        self.vcpus
    }

    /// Names and digests in the order in which they are measured, the script first.
    #[must_use]
    pub fn digests(&self) -> &[(String, Digest<48>)] {
        &self.blobs
    }
}

fn too_large(length: &usize) -> bool {
    *length > MAX_ACPI_BYTES
}

/// Names of the files that a script allocates, in its order.
fn allocated(script: &[u8]) -> Result<Vec<String>, AcpiError> {
    let mut names: Vec<String> = Vec::new();
    let commands = script.chunks_exact(COMMAND);
    if !commands.remainder().is_empty() || script.is_empty() {
        return Err(AcpiError::Script(script.len() / COMMAND));
    }
    for (number, command) in commands.enumerate() {
        match u32_at(command, 0) {
            // Zero is padding; 4 writes a pointer back to the hypervisor. Neither loads a file.
            Some(0 | ADD_POINTER | ADD_CHECKSUM | 4) => {}
            Some(ALLOCATE) => {
                let name = slice_at(command, 4, NAME).and_then(text).ok_or(AcpiError::Script(number))?;
                if names.contains(&name) {
                    return Err(AcpiError::Script(number));
                }
                if names.len() == MAX_FILES {
                    return Err(AcpiError::TooManyFiles);
                }
                names.push(name);
            }
            _ => return Err(AcpiError::Script(number)),
        }
    }
    Ok(names)
}

/// Printable characters up to a NUL, which must be there.
fn text(field: &[u8]) -> Option<String> {
    let end = field.iter().position(|byte| *byte == 0)?;
    let name = field.get(..end)?;
    let printable = !name.is_empty() && name.iter().all(u8::is_ascii_graphic);
    printable.then(|| String::from_utf8_lossy(name).into_owned())
}

#[cfg(test)]
mod tests {
    use super::script::allocate;
    use super::*;

    #[test]
    fn files_and_script_must_fit_each_other() {
        let load = |names: &[&str]| names.iter().flat_map(|name| allocate(name, 1, 1)).collect::<Vec<_>>();
        let script = load(&[RSDP_FILE]);
        assert_eq!(AcpiBlobs::from_files(&script, &[]), Err(AcpiError::NotGiven(RSDP_FILE.to_owned())));
        let extra: [(&str, &[u8]); 2] = [(RSDP_FILE, b"r"), (TABLES_FILE, b"t")];
        assert_eq!(AcpiBlobs::from_files(&script, &extra), Err(AcpiError::NotLoaded(TABLES_FILE.to_owned())));
        let twice = load(&[RSDP_FILE, RSDP_FILE]);
        assert_eq!(AcpiBlobs::from_files(&twice, &[(RSDP_FILE, b"")]), Err(AcpiError::Script(1)));
        assert_eq!(AcpiBlobs::from_files(b"", &[]), Err(AcpiError::Script(0)));
        assert_eq!(AcpiBlobs::from_files(&script[..127], &[]), Err(AcpiError::Script(0)));
        assert_eq!(AcpiBlobs::from_files(&[9; 128], &[]), Err(AcpiError::Script(0)));
        assert_eq!(AcpiBlobs::from_files(&load(&["a\u{1b}b"]), &[]), Err(AcpiError::Script(0)));
        assert_eq!(AcpiBlobs::from_files(&[1; 128], &[]), Err(AcpiError::Script(0)), "a name without end");
        let names: Vec<String> = (0..=MAX_FILES).map(|number| format!("file{number}")).collect();
        let many: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b"x"[..])).collect();
        let all = load(&many.iter().map(|(name, _)| *name).collect::<Vec<_>>());
        assert_eq!(AcpiBlobs::from_files(&all, &[]), Err(AcpiError::TooManyFiles));
        assert_eq!(AcpiBlobs::from_files(&script, &many), Err(AcpiError::TooManyFiles));
        assert!(AcpiBlobs::from_files(&all[COMMAND..], &many[1..]).is_ok());
        let large = vec![0; MAX_ACPI_BYTES + 1];
        assert_eq!(AcpiBlobs::from_files(&large, &[]), Err(AcpiError::Size(large.len())));
    }
}
