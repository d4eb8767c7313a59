//! The tables in `etc/acpi/tables`, and the loader script that QEMU writes for them.
//!
//! Sources: QEMU 10 `hw/i386/acpi-build.c` (which tables, in which order), `hw/acpi/aml-build.c`,
//! `hw/acpi/bios-linker-loader.c` (commands), `hw/acpi/core.c` (tables of the user).
//!
//! Not trusted: the file. A script is derived only where every table is one of those that QEMU makes with a checksum
//! command and no other: further files, pointers of their own and tables of the user (which come with their checksum)
//! would need other commands. Never guesses.

use super::{ADD_CHECKSUM, ADD_POINTER, ALLOCATE, AcpiError, COMMAND, MAX_TABLES, NAME, RSDP_FILE, TABLES_FILE};
use crate::bytes::{array_at, index, slice_at, u32_at};

/// QEMU pads the script to a multiple of this.
const SCRIPT_STEP: usize = 4096;
/// Bytes of a table header, and where its checksum is.
const HEADER: usize = 36;
const CHECKSUM: u32 = 9;
/// What a file of tables begins with.
const FIRST: [[u8; 4]; 3] = [*b"FACS", *b"DSDT", *b"FACP"];
/// Tables for which QEMU writes a checksum command alone. SSDT is not here: on x86 it is one of VM generation id or
/// NVDIMM, with pointers to files of their own. Nor are TPM2, TCPA, NFIT, HEST and BERT.
const CHECKSUM_ALONE: [[u8; 4]; 10] =
    [*b"APIC", *b"HPET", *b"SRAT", *b"SLIT", *b"HMAT", *b"MCFG", *b"DMAR", *b"IVRS", *b"CEDT", *b"WAET"];
/// OEM id and OEM table id of QEMU's own tables; the RSDP has the first, too.
const MAKER: [u8; 14] = *b"BOCHS BXPC    ";

/// Counts enabled local APICs (types 0 and 9) in the APIC table: entries {type, length, …} from offset 44.
pub(super) fn processors(tables: &[u8]) -> Option<usize> {
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

/// Script and RSDP that QEMU's q35 machine writes for these tables.
///
/// # Errors
/// [`AcpiError`].
pub(super) fn derived(tables: &[u8]) -> Result<(Vec<u8>, Vec<u8>), AcpiError> {
    let list = list(tables)?;
    let rsdt = one(&list, "RSDT")?;
    let rsdp = [b"RSD PTR \0BOCHS \0".as_slice(), &rsdt.offset.to_le_bytes()].concat();
    Ok((script(&list, rsdt)?, rsdp))
}

/// Where a table lies in the file, and the parts of its header that tell who made it.
#[derive(Debug, Clone, Copy)]
struct Table {
    name: [u8; 4],
    offset: u32,
    length: u32,
    checksum: u8,
    maker: [u8; 14],
}

impl Table {
    /// Why nothing is known of the commands for this table; none where QEMU writes a checksum command alone.
    fn fault(&self) -> Option<&'static str> {
        if !CHECKSUM_ALONE.contains(&self.name) && !matches!(&self.name, b"DSDT" | b"FACP" | b"RSDT") {
            return Some("it may bring commands or files of its own");
        }
        if self.maker != MAKER {
            return Some("it has other OEM names than QEMU's own, so others may stand in the RSDP");
        }
        (self.checksum != 0).then_some("it has its checksum already, so QEMU did not make it")
    }
}

/// The tables in file order. The file's end is filled with zeros.
fn list(tables: &[u8]) -> Result<Vec<Table>, AcpiError> {
    let mut list = Vec::new();
    let mut at = 0;
    // Each turn moves on by at least a table's header.
    while let Some(rest) = tables.get(at..).filter(|rest| rest.iter().any(|byte| *byte != 0)) {
        let malformed = AcpiError::Table(at);
        let name = array_at::<4>(rest, 0).filter(|name| name.iter().all(u8::is_ascii_graphic));
        let size = u32_at(rest, 4).and_then(index).filter(|length| (HEADER..=rest.len()).contains(length));
        let (Some(name), Some(size)) = (name, size) else { return Err(malformed) };
        let (Ok(offset), Ok(length)) = (u32::try_from(at), u32::try_from(size)) else { return Err(malformed) };
        let (Some([checksum]), Some(maker)) = (array_at(rest, 9), array_at(rest, 10)) else { return Err(malformed) };
        if list.len() == MAX_TABLES {
            return Err(AcpiError::TooMany);
        }
        list.push(Table { name, offset, length, checksum, maker });
        at += size;
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

/// That these are tables whose script is known.
fn check(list: &[Table], rsdt: Table) -> Result<(), AcpiError> {
    one(list, "FACS")?;
    if list.last().map(|table| table.offset) != Some(rsdt.offset) {
        return Err(AcpiError::Underivable("RSDT is not the last table"));
    }
    // FACS has another header: neither checksum nor names.
    for table in list.iter().filter(|table| table.name != *b"FACS") {
        if let Some(fault) = table.fault() {
            let name = table.name.escape_ascii().to_string();
            let maker = table.maker.escape_ascii().to_string();
            return Err(AcpiError::Foreign { name, offset: table.offset, maker, fault });
        }
    }
    if !list.iter().map(|table| table.name).take(FIRST.len()).eq(FIRST) {
        return Err(AcpiError::Underivable("the first tables are not FACS, DSDT and FACP"));
    }
    let entries = rsdt.length.checked_sub(36).filter(|bytes| bytes % 4 == 0).map(|bytes| bytes / 4);
    // Every table but FACS, DSDT and RSDT itself is named by RSDT.
    let named = list.iter().filter(|table| !matches!(&table.name, b"FACS" | b"DSDT" | b"RSDT")).count();
    if entries.and_then(index) != Some(named) {
        return Err(AcpiError::Underivable("RSDT does not name every table"));
    }
    Ok(())
}

/// The script that QEMU's q35 machine writes for these tables: allocate both files; then in the order in which it builds
/// them DSDT, FACP with its three pointers, every further table, and RSDT with a pointer to each; RSDP last.
fn script(list: &[Table], rsdt: Table) -> Result<Vec<u8>, AcpiError> {
    let (dsdt, facp) = (one(list, "DSDT")?, one(list, "FACP")?);
    check(list, rsdt)?;
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
    for table in list.iter().filter(|table| CHECKSUM_ALONE.contains(&table.name)) {
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
pub(super) fn allocate(file: &str, alignment: u32, zone: u8) -> Vec<u8> {
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

    use super::super::{AcpiBlobs, allocated};
    use super::*;
    use crate::digest::sha384;

    /// A table as QEMU makes it: the loader fills in the checksum.
    fn table(name: &[u8; 4], length: u32) -> Vec<u8> {
        let mut table = [name.as_slice(), &length.to_le_bytes(), &[1, 0], &MAKER].concat();
        table.resize(length as usize, 7);
        table
    }

    /// FACS, DSDT, FACP, two more and RSDT, then zeros.
    fn tables() -> Vec<u8> {
        file(&[(b"FACS", 64), (b"DSDT", 100), (b"FACP", 244), (b"APIC", 50), (b"WAET", 40), (b"RSDT", 48)])
    }

    fn file(parts: &[(&[u8; 4], u32)]) -> Vec<u8> {
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
        let (script, rsdp) = derived(&tables).unwrap();
        assert_eq!(script.len(), 4096);
        assert_eq!(allocated(&script).unwrap(), [RSDP_FILE, TABLES_FILE]);
        let kinds: Vec<u8> = script.chunks(COMMAND).map(|command| command[0]).take_while(|kind| *kind != 0).collect();
        assert_eq!(kinds, [1, 1, 3, 2, 2, 2, 3, 3, 3, 2, 2, 2, 3, 2, 3]);
        let rsdt = 64 + 100 + 244 + 50 + 40u32;
        assert_eq!(rsdp, [b"RSD PTR \0BOCHS \0".as_slice(), &rsdt.to_le_bytes()].concat());
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

    /// A VM generation id or a vTPM has commands and files beyond these, and a table of the user has no command at all:
    /// the derived script would be none that a guest sees.
    #[test]
    fn tables_with_other_commands_are_refused_by_name() {
        let (facs, dsdt, facp) = ((b"FACS", 64), (b"DSDT", 100), (b"FACP", 244));
        for name in [b"SSDT", b"TPM2", b"TCPA", b"NFIT", b"VIOT", b"HEST", b"BERT", b"SLIC", b"XXXX"] {
            let refused = AcpiBlobs::from_tables(&file(&[facs, dsdt, facp, (name, 202), (b"RSDT", 44)])).unwrap_err();
            assert!(matches!(refused, AcpiError::Foreign { offset: 408, .. }), "{refused:?}");
            assert!(refused.to_string().contains(std::str::from_utf8(name).unwrap()), "{refused}");
        }
        let identity = change(408, &[b"SSDT2\0\0\0\x01\0".as_slice(), b"BOCHS VMGENID "].concat()).unwrap_err();
        assert!(identity.to_string().contains("SSDT") && identity.to_string().contains("VMGENID"), "{identity}");
        for at in [64, 164, 408, 498] {
            for (field, fault) in [(9, "checksum"), (10, "OEM"), (16, "OEM")] {
                let refused = change(at + field, b"z").unwrap_err().to_string();
                assert!(refused.contains(fault), "{refused}");
            }
        }
        let order = AcpiBlobs::from_tables(&file(&[dsdt, facs, facp, (b"RSDT", 40)]));
        assert_eq!(order, Err(AcpiError::Underivable("the first tables are not FACS, DSDT and FACP")));
        for name in CHECKSUM_ALONE {
            assert!(AcpiBlobs::from_tables(&file(&[facs, dsdt, facp, (&name, 60), (b"RSDT", 44)])).is_ok());
        }
    }

    #[test]
    fn malformed_tables_are_refused() {
        assert_eq!(change(64, b"\0"), Err(AcpiError::Table(64)));
        assert_eq!(change(68, &[0; 4]), Err(AcpiError::Table(64)), "would never end");
        assert_eq!(change(68, &[0xff; 4]), Err(AcpiError::Table(64)));
        assert_eq!(change(64, b"XXXX"), Err(AcpiError::Missing { name: "DSDT", count: 0 }));
        assert_eq!(change(64, b"FACP"), Err(AcpiError::Missing { name: "DSDT", count: 0 }));
        assert_eq!(change(408, b"FACP"), Err(AcpiError::Missing { name: "FACP", count: 2 }));
        assert_eq!(AcpiBlobs::from_tables(&[]), Err(AcpiError::Missing { name: "RSDT", count: 0 }));
        let mut longer = tables();
        longer[546..586].copy_from_slice(&table(b"WAET", 40));
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
