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

use thiserror::Error;

use crate::bytes::{array_at, index, slice_at, u32_at};
use crate::digest::{Digest, sha384};

/// Names that QEMU gives to the files.
const RSDP_FILE: &str = "etc/acpi/rsdp";
const TABLES_FILE: &str = "etc/acpi/tables";
/// Bytes of one command of the script, and of a file name in it.
const COMMAND: usize = 128;
const NAME: usize = 56;
/// QEMU pads the script to a multiple of this.
const SCRIPT_STEP: usize = 4096;
/// Longest input in bytes; QEMU reserves 64 or 128 KiB for tables, some machines up to 2 MiB.
pub const MAX_ACPI_BYTES: usize = 16 << 20;
/// Most tables in one file; QEMU machines have 6 to 20.
const MAX_TABLES: usize = 256;
/// Bytes of a table header, and where its checksum is.
const HEADER: usize = 36;
const CHECKSUM: u32 = 9;

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
    /// file refers to; no vTPM, NVDIMM or VM generation id, whose scripts load more files).
    ///
    /// # Errors
    /// [`AcpiError`].
    pub fn from_tables(tables: &[u8]) -> Result<Self, AcpiError> {
        if too_large(&tables.len()) {
            return Err(AcpiError::Size(tables.len()));
        }
        let list = list(tables)?;
        let rsdt = one(&list, "RSDT")?;
        let rsdp = [b"RSD PTR \0BOCHS \0".as_slice(), &rsdt.offset.to_le_bytes()].concat();
        let script = script(&list, rsdt)?;
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

/// Counts enabled local APICs (types 0 and 9) in the APIC table: entries {type, length, …} from offset 44.
fn processors(tables: &[u8]) -> Option<usize> {
    let apic = one(&list(tables).ok()?, "APIC").ok()?;
    let mut entries = slice_at(tables, index(apic.offset)?, index(apic.length)?)?.get(44..)?;
    let mut enabled = 0;
    while let Some([kind, length]) = array_at::<2>(entries, 0) {
        // No entry is shorter than its own two bytes, so every turn moves on.
        let (entry, rest) = entries.split_at_checked(usize::from(length)).filter(|_| length >= 2)?;
        let flags = match kind {
            0 => u32_at(entry, 4),
            9 => u32_at(entry, 8),
            _ => None,
        };
        enabled += usize::from(flags.is_some_and(|flags| flags & 1 != 0));
        entries = rest;
    }
    Some(enabled)
}

/// Where a table lies in the file.
#[derive(Debug, Clone, Copy)]
struct Table {
    name: [u8; 4],
    offset: u32,
    length: u32,
}

/// The tables in file order. The file's end is filled with zeros.
fn list(tables: &[u8]) -> Result<Vec<Table>, AcpiError> {
    let mut list = Vec::new();
    let mut at = 0;
    // Each turn moves on by at least the eight bytes of name and length.
    while let Some(rest) = tables.get(at..).filter(|rest| rest.iter().any(|byte| *byte != 0)) {
        let malformed = AcpiError::Table(at);
        let name = array_at::<4>(rest, 0).filter(|name| name.iter().all(u8::is_ascii_graphic));
        let length = u32_at(rest, 4).and_then(index).filter(|length| (HEADER..=rest.len()).contains(length));
        let (Some(name), Some(length)) = (name, length) else { return Err(malformed) };
        let (Ok(offset), Ok(size)) = (u32::try_from(at), u32::try_from(length)) else { return Err(malformed) };
        if list.len() == MAX_TABLES {
            return Err(AcpiError::TooMany);
        }
        list.push(Table { name, offset, length: size });
        at += length;
    }
    Ok(list)
}

fn one(list: &[Table], name: &'static str) -> Result<Table, AcpiError> {
    let found: Vec<_> = list.iter().filter(|table| table.name == name.as_bytes()).collect();
    match found.as_slice() {
        [table] => Ok(**table),
        _ => Err(AcpiError::Missing { name, count: found.len() }),
    }
}

/// The script that QEMU's q35 machine writes for these tables: allocate both files; then in the order in which it builds
/// them DSDT, FACP with its three pointers, every further table, and RSDT with a pointer to each; RSDP last.
fn script(list: &[Table], rsdt: Table) -> Result<Vec<u8>, AcpiError> {
    let (dsdt, facp) = (one(list, "DSDT")?, one(list, "FACP")?);
    one(list, "FACS")?;
    if list.last().map(|table| table.offset) != Some(rsdt.offset) {
        return Err(AcpiError::Underivable("RSDT is not the last table"));
    }
    let entries = rsdt.length.checked_sub(36).filter(|bytes| bytes % 4 == 0).map(|bytes| bytes / 4);
    // Every table but FACS, DSDT and RSDT itself is named by RSDT.
    let named = list.iter().filter(|table| !matches!(&table.name, b"FACS" | b"DSDT" | b"RSDT")).count();
    if entries.and_then(index) != Some(named) {
        return Err(AcpiError::Underivable("RSDT does not name every table"));
    }
    // These come with files or pointers of their own, for which more commands are written.
    if list.iter().any(|table| matches!(&table.name, b"TPM2" | b"TCPA" | b"NFIT" | b"VIOT" | b"HEST" | b"BERT")) {
        return Err(AcpiError::Underivable("a table brings further commands"));
    }
    let mut script = Vec::new();
    script.extend(allocate(RSDP_FILE, 16, 2));
    script.extend(allocate(TABLES_FILE, 64, 1));
    script.extend(checksum(TABLES_FILE, dsdt.offset, dsdt.length));
    for (offset, size) in [(36, 4), (40, 4), (140, 8)] {
        if offset + u32::from(size) > facp.length {
            return Err(AcpiError::Underivable("FACP is shorter than revision 3"));
        }
        script.extend(pointer(TABLES_FILE, facp.offset + offset, size));
    }
    script.extend(checksum(TABLES_FILE, facp.offset, facp.length));
    for table in list.iter().filter(|table| !matches!(&table.name, b"FACS" | b"DSDT" | b"FACP" | b"RSDT")) {
        script.extend(checksum(TABLES_FILE, table.offset, table.length));
    }
    for entry in (rsdt.offset + 36..rsdt.offset + rsdt.length).step_by(4) {
        script.extend(pointer(TABLES_FILE, entry, 4));
    }
    script.extend(checksum(TABLES_FILE, rsdt.offset, rsdt.length));
    script.extend(pointer(RSDP_FILE, 16, 4));
    // The first 20 bytes of an RSDP are checked at offset 8.
    script.extend(command(ADD_CHECKSUM, &[RSDP_FILE], &[8, 0, 20].map(u32::to_le_bytes).concat()));
    script.resize(script.len().next_multiple_of(SCRIPT_STEP), 0);
    Ok(script)
}

/// Zone 1 is high memory, 2 the segment where an RSDP is searched.
fn allocate(file: &str, alignment: u32, zone: u8) -> Vec<u8> {
    command(ALLOCATE, &[file], &[alignment.to_le_bytes().as_slice(), &[zone]].concat())
}

/// A pointer of `size` bytes in a file, to the tables.
fn pointer(file: &str, offset: u32, size: u8) -> Vec<u8> {
    command(ADD_POINTER, &[file, TABLES_FILE], &[offset.to_le_bytes().as_slice(), &[size]].concat())
}

fn checksum(file: &str, table: u32, length: u32) -> Vec<u8> {
    let at = table.saturating_add(CHECKSUM);
    command(ADD_CHECKSUM, &[file], &[at, table, length].map(u32::to_le_bytes).concat())
}

fn command(kind: u32, names: &[&str], rest: &[u8]) -> Vec<u8> {
    let mut command = kind.to_le_bytes().to_vec();
    for name in names {
        let end = command.len() + NAME;
        command.extend(name.as_bytes());
        command.resize(end, 0);
    }
    command.extend(rest);
    command.resize(COMMAND, 0);
    command
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table(name: &[u8; 4], length: u32) -> Vec<u8> {
        let mut table = [name.as_slice(), &length.to_le_bytes()].concat();
        table.resize(length as usize, 7);
        table
    }

    /// FACS, DSDT, FACP, two more and RSDT, then zeros.
    fn tables() -> Vec<u8> {
        let parts: [(&[u8; 4], u32); 6] =
            [(b"FACS", 64), (b"DSDT", 100), (b"FACP", 244), (b"APIC", 50), (b"WAET", 40), (b"RSDT", 48)];
        let mut tables: Vec<u8> = parts.iter().flat_map(|(name, length)| table(name, *length)).collect();
        tables.resize(4096, 0);
        tables
    }

    fn change(at: usize, bytes: &[u8]) -> Result<AcpiBlobs, AcpiError> {
        let mut tables = tables();
        tables[at..at + bytes.len()].copy_from_slice(bytes);
        AcpiBlobs::from_tables(&tables)
    }

    #[test]
    fn the_derived_script_is_the_one_that_loads_the_files() {
        let tables = tables();
        let list = list(&tables).unwrap();
        let script = script(&list, one(&list, "RSDT").unwrap()).unwrap();
        assert_eq!(script.len(), 4096);
        assert_eq!(allocated(&script).unwrap(), [RSDP_FILE, TABLES_FILE]);
        let kinds: Vec<u8> = script.chunks(COMMAND).map(|command| command[0]).take_while(|kind| *kind != 0).collect();
        assert_eq!(kinds, [1, 1, 3, 2, 2, 2, 3, 3, 3, 2, 2, 2, 3, 2, 3]);
        let rsdt = 64 + 100 + 244 + 50 + 40u32;
        let rsdp = [b"RSD PTR \0BOCHS \0".as_slice(), &rsdt.to_le_bytes()].concat();
        let given = AcpiBlobs::from_files(&script, &[(TABLES_FILE, &tables), (RSDP_FILE, &rsdp)]).unwrap();
        assert_eq!(AcpiBlobs::from_tables(&tables), Ok(given.clone()));
        let names: Vec<_> = given.digests().iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["etc/table-loader", RSDP_FILE, TABLES_FILE], "the script's order, not the caller's");
        assert_eq!(given.digests()[2].1, sha384(&tables));
    }

    #[test]
    fn enabled_processors_are_counted() {
        let local = |flags: u8| [0, 8, 0, 0, flags, 0, 0, 0];
        let wide = [9, 16, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
        let entries = [&local(1)[..], &local(0), &[1, 12, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0], &wide].concat();
        let count = |entries: &[u8]| {
            let mut table = table(b"APIC", 44 + entries.len() as u32);
            table[44..].copy_from_slice(entries);
            processors(&table)
        };
        assert_eq!(count(&entries), Some(2));
        assert_eq!(count(&[0, 1]), None, "would never end");
        assert_eq!(count(&[0, 8, 0]), None);
        assert_eq!(processors(&table(b"DSDT", 40)), None);
    }

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
        let large = vec![0; MAX_ACPI_BYTES + 1];
        assert_eq!(AcpiBlobs::from_files(&large, &[]), Err(AcpiError::Size(large.len())));
    }

    #[test]
    fn malformed_tables_are_refused() {
        assert_eq!(change(64, b"\0"), Err(AcpiError::Table(64)));
        assert_eq!(change(68, &[0; 4]), Err(AcpiError::Table(64)), "would never end");
        assert_eq!(change(68, &[0xff; 4]), Err(AcpiError::Table(64)));
        assert_eq!(change(64, b"XXXX"), Err(AcpiError::Missing { name: "DSDT", count: 0 }));
        assert_eq!(change(64, b"FACP"), Err(AcpiError::Missing { name: "DSDT", count: 0 }));
        assert_eq!(change(408, b"FACP"), Err(AcpiError::Missing { name: "FACP", count: 2 }));
        assert_eq!(change(408, b"TPM2"), Err(AcpiError::Underivable("a table brings further commands")));
        assert_eq!(AcpiBlobs::from_tables(&[]), Err(AcpiError::Missing { name: "RSDT", count: 0 }));
        let mut longer = tables();
        longer[546..586].copy_from_slice(&table(b"LAST", 40));
        assert_eq!(AcpiBlobs::from_tables(&longer), Err(AcpiError::Underivable("RSDT is not the last table")));
        let many: Vec<u8> = (0..=MAX_TABLES).flat_map(|_| table(b"SSDT", 36)).collect();
        assert_eq!(AcpiBlobs::from_tables(&many), Err(AcpiError::TooMany));
    }

    proptest! {
        #[test]
        fn changed_tables_never_panic(changes in proptest::collection::vec((0usize..560, any::<u8>()), 1..8)) {
            let mut tables = tables();
            for (at, byte) in changes {
                tables[at] = byte;
            }
            let _ = AcpiBlobs::from_tables(&tables);
            let _ = AcpiBlobs::from_files(&tables, &[]);
        }
    }
}
