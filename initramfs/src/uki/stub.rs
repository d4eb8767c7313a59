//! systemd-stub as a PE file: what its headers say, and the same file with sections put behind it.
//!
//! Source: Microsoft PE format. Names of header fields are the format's.
//!
//! Not trusted: the file. Sections have to lie in the file and in memory in the order of the table, without overlap, so
//! that what is put behind the last of them is behind all. Never keeps a time or a checksum.

use super::{PAGE, UkiError};

/// Machine type of x86-64.
const X86_64: u16 = 0x8664;
const PE32_PLUS: u16 = 0x20b;
/// Bytes of the COFF header with its signature, before the optional header.
const COFF: usize = 24;
const SECTION: usize = 40;
/// Initialised data that can be read.
const DATA: u32 = 0x4000_0040;
/// Largest file that a bare stub may be; builds have 60 to 150 KiB.
const MAX_STUB_BYTES: usize = 16 << 20;
/// Most bytes that a section may have in memory beyond what the file holds.
const MAX_PADDING: u32 = 1 << 20;
const SBAT: [u8; 8] = *b".sbat\0\0\0";

// Offsets in the COFF header.
const NUMBER_OF_SECTIONS: usize = 6;
const TIME_DATE_STAMP: usize = 8;
const POINTER_TO_SYMBOLS: usize = 12;
const NUMBER_OF_SYMBOLS: usize = 16;
const SIZE_OF_OPTIONAL: usize = 20;
// Offsets in the optional header.
const SIZE_OF_DATA: usize = 8;
const SECTION_ALIGNMENT: usize = 32;
const FILE_ALIGNMENT: usize = 36;
const SIZE_OF_IMAGE: usize = 56;
const SIZE_OF_HEADERS: usize = 60;
const CHECKSUM: usize = 64;
const DIRECTORIES: usize = 108;
const CERTIFICATES: usize = 144;

/// Sections that a finished image has and a bare stub has not.
const PAYLOAD: [&[u8; 8]; 14] = [
    b".linux\0\0",
    b".osrel\0\0",
    b".cmdline",
    b".initrd\0",
    b".ucode\0\0",
    b".splash\0",
    b".dtb\0\0\0\0",
    b".uname\0\0",
    b".pcrsig\0",
    b".pcrpkey",
    b".profile",
    b".dtbauto",
    b".hwids\0\0",
    b".efifw\0\0",
];

/// A section to put behind.
pub(super) struct NewSection<'a> {
    /// At most eight bytes.
    pub(super) name: &'static str,
    pub(super) contents: &'a [u8],
}

/// One line of the section table.
struct Line {
    name: [u8; 8],
    virtual_size: u32,
    virtual_address: u32,
    raw_size: u32,
    raw_offset: u32,
}

/// A stub whose headers were checked.
pub(super) struct Stub<'a> {
    bytes: &'a [u8],
    pe: usize,
    table: usize,
    lines: Vec<Line>,
    section_alignment: u32,
    file_alignment: u32,
    size_of_headers: u32,
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes.get(offset..)?.first_chunk().copied().map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().copied().map(u32::from_le_bytes)
}

/// A 32-bit number as an index.
fn index(value: u32) -> Result<usize, UkiError> {
    usize::try_from(value).map_err(|_| UkiError::TooLarge)
}

/// Where the PE header of a PE32+ image is.
fn pe_header(bytes: &[u8], part: &'static str) -> Result<usize, UkiError> {
    let find = || {
        let pe = usize::try_from(bytes.starts_with(b"MZ").then(|| u32_at(bytes, 0x3c))??).ok()?;
        let sound = bytes.get(pe..)?.starts_with(b"PE\0\0") && u16_at(bytes, pe + COFF)? == PE32_PLUS;
        sound.then_some(pe)
    };
    find().ok_or(UkiError::NotPe(part))
}

/// That this is a PE32+ image for x86-64; gives where its PE header is.
pub(super) fn check_machine(bytes: &[u8], part: &'static str) -> Result<usize, UkiError> {
    let pe = pe_header(bytes, part)?;
    match u16_at(bytes, pe + 4) {
        Some(X86_64) => Ok(pe),
        Some(machine) => Err(UkiError::Machine { part, machine }),
        None => Err(UkiError::NotPe(part)),
    }
}

/// That this is a kernel with an EFI stub, and not a unified image: a stub would start the kernel inside of that one, with
/// the command line and ramdisk inside of it.
pub(super) fn check_kernel(bytes: &[u8]) -> Result<(), UkiError> {
    let part = "the kernel";
    // `pe` is inside the file, so small additions cannot overflow.
    let pe = check_machine(bytes, part)?;
    let table = || {
        let start = pe + COFF + usize::from(u16_at(bytes, pe + SIZE_OF_OPTIONAL)?);
        let length = usize::from(u16_at(bytes, pe + NUMBER_OF_SECTIONS)?) * SECTION;
        bytes.get(start..start + length)?.chunks_exact(SECTION).map(Line::read).collect::<Option<Vec<_>>>()
    };
    let lines = table().ok_or(UkiError::NotPe(part))?;
    match lines.iter().find(|line| line.name == *b".sdmagic" || PAYLOAD.contains(&&line.name)) {
        Some(line) => Err(UkiError::KernelIsUnified(line.shown())),
        None => Ok(()),
    }
}

impl<'a> Stub<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, UkiError> {
        if bytes.len() > MAX_STUB_BYTES {
            return Err(UkiError::Malformed("it has more than 16 MiB"));
        }
        // `pe` is inside the file, so small additions cannot overflow.
        let pe = check_machine(bytes, "the stub")?;
        let cut = UkiError::Malformed("its headers are cut short");
        let optional = pe + COFF;
        let field = |offset| u32_at(bytes, optional + offset).ok_or(cut.clone());
        let (section_alignment, file_alignment) = (field(SECTION_ALIGNMENT)?, field(FILE_ALIGNMENT)?);
        if ![section_alignment, file_alignment].iter().all(|size| size.is_power_of_two() && *size <= 1 << 20) {
            return Err(UkiError::Malformed("its alignments are no powers of two"));
        }
        if field(DIRECTORIES)? < 5 {
            return Err(UkiError::Malformed("it has no place for a signature"));
        }
        if (field(CERTIFICATES)?, field(CERTIFICATES + 4)?) != (0, 0) {
            return Err(UkiError::Signed);
        }
        let size_of_headers = field(SIZE_OF_HEADERS)?;
        let count = u16_at(bytes, pe + NUMBER_OF_SECTIONS).ok_or(cut.clone())?;
        let optional_size = u16_at(bytes, pe + SIZE_OF_OPTIONAL).ok_or(cut.clone())?;
        let table = optional + usize::from(optional_size);
        let end = table + usize::from(count) * SECTION;
        if usize::from(optional_size) < CERTIFICATES + 8 || end > index(size_of_headers)? {
            return Err(UkiError::Malformed("its section table lies outside of its headers"));
        }
        let lines = bytes.get(table..end).ok_or(cut.clone())?.chunks_exact(SECTION).map(Line::read);
        let lines = lines.collect::<Option<Vec<_>>>().ok_or(cut)?;
        let stub = Self { bytes, pe, table, lines, section_alignment, file_alignment, size_of_headers };
        stub.check_sections()?;
        Ok(stub)
    }

    /// That the sections are those of a bare stub, and lie behind each other in file and memory.
    fn check_sections(&self) -> Result<(), UkiError> {
        if let Some(line) = self.lines.iter().find(|line| PAYLOAD.contains(&&line.name)) {
            return Err(UkiError::AlreadyUnified(line.shown()));
        }
        if !self.lines.iter().any(|line| line.name == *b".sdmagic") {
            return Err(UkiError::NotStub);
        }
        if self.lines.iter().filter(|line| line.name == SBAT).count() > 1 {
            return Err(UkiError::Malformed("it has two .sbat sections"));
        }
        if self.lines.iter().any(|line| line.virtual_size.saturating_sub(line.raw_size) > MAX_PADDING) {
            return Err(UkiError::Malformed("one of its sections is much larger in memory than in the file"));
        }
        let (mut memory, mut file) = (self.size_of_headers, self.size_of_headers);
        for line in &self.lines {
            if line.virtual_address < memory || line.raw_offset < file {
                return Err(UkiError::Malformed("two of its sections overlap or are not in order"));
            }
            memory = line.memory_end()?;
            file = line.raw_offset.checked_add(line.raw_size).ok_or(UkiError::TooLarge)?;
        }
        if index(file)? > self.bytes.len() {
            return Err(UkiError::Malformed("its sections are cut short"));
        }
        Ok(())
    }

    /// The stub without what follows its sections, ready for `needed` more of them.
    pub(super) fn image(self, needed: usize) -> Result<Image, UkiError> {
        let end = self.table + self.lines.len() * SECTION;
        let free = self.bytes.get(end..index(self.size_of_headers)?).unwrap_or_default();
        let room = free.iter().take_while(|byte| **byte == 0).count() / SECTION;
        let last = self.lines.last().ok_or(UkiError::NotStub)?;
        if needed > room {
            return Err(UkiError::NoRoom { room, needed });
        }
        let stored = index(last.raw_offset.checked_add(last.raw_size).ok_or(UkiError::TooLarge)?)?;
        let bytes = self.bytes.get(..stored).ok_or(UkiError::Malformed("its sections are cut short"))?.to_vec();
        let memory_end = last.memory_end()?;
        Ok(Image {
            bytes,
            pe: self.pe,
            table: self.table,
            lines: self.lines,
            memory_end,
            data: 0,
            section_alignment: self.section_alignment,
            file_alignment: self.file_alignment,
        })
    }
}

impl Line {
    fn read(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            name: bytes.first_chunk().copied()?,
            virtual_size: u32_at(bytes, 8)?,
            virtual_address: u32_at(bytes, 12)?,
            raw_size: u32_at(bytes, 16)?,
            raw_offset: u32_at(bytes, 20)?,
        })
    }

    fn write(&self) -> Vec<u8> {
        let numbers = [self.virtual_size, self.virtual_address, self.raw_size, self.raw_offset, 0, 0, 0, DATA];
        self.name.into_iter().chain(numbers.into_iter().flat_map(u32::to_le_bytes)).collect()
    }

    fn shown(&self) -> String {
        String::from_utf8_lossy(&self.name).trim_end_matches('\0').escape_default().to_string()
    }

    /// Firmware loads a section of virtual size 0 whole.
    fn memory_end(&self) -> Result<u32, UkiError> {
        let size = if self.virtual_size == 0 { self.raw_size } else { self.virtual_size };
        self.virtual_address.checked_add(size).ok_or(UkiError::TooLarge)
    }
}

/// An image under construction: the stub, and the sections that are there so far.
pub(super) struct Image {
    bytes: Vec<u8>,
    pe: usize,
    table: usize,
    lines: Vec<Line>,
    memory_end: u32,
    /// Bytes of data that were added.
    data: u32,
    section_alignment: u32,
    file_alignment: u32,
}

impl Image {
    /// Puts other SBAT lines in the place of the stub's.
    pub(super) fn replace_sbat(&mut self, sbat: &[u8]) -> Result<(), UkiError> {
        let too_long = |room| UkiError::Sbat { given: sbat.len(), room };
        let at = self.lines.iter().position(|line| line.name == SBAT).ok_or(too_long(0))?;
        let next = self.lines.get(at + 1).map(|line| line.virtual_address);
        let line = self.lines.get_mut(at).ok_or(too_long(0))?;
        let in_memory = next.map_or(line.raw_size, |next| next.saturating_sub(line.virtual_address));
        let room = index(line.raw_size.min(in_memory))?;
        let start = index(line.raw_offset)?;
        let place = self.bytes.get_mut(start..start.saturating_add(room)).ok_or(too_long(room))?;
        let (head, rest) = place.split_at_mut_checked(sbat.len()).ok_or(too_long(room))?;
        head.copy_from_slice(sbat);
        rest.fill(0);
        line.virtual_size = u32::try_from(sbat.len()).map_err(|_| UkiError::TooLarge)?;
        let (size, entry) = (line.virtual_size, self.table + at * SECTION);
        // Where it is the last section, what follows begins behind its new end.
        self.memory_end = self.memory_end.max(line.memory_end()?);
        self.put(entry + 8, &size.to_le_bytes())
    }

    /// Puts a section behind all others, in the file and in memory.
    pub(super) fn append(&mut self, section: &NewSection<'_>) -> Result<(), UkiError> {
        let too_large = || UkiError::TooLarge;
        let alignment = self.section_alignment.max(PAGE);
        let mut name = [0; 8];
        name.iter_mut().zip(section.name.bytes()).for_each(|(to, from)| *to = from);
        let virtual_size = u32::try_from(section.contents.len()).map_err(|_| too_large())?;
        let raw_size = virtual_size.checked_next_multiple_of(self.file_alignment).ok_or_else(too_large)?;
        self.pad()?;
        let raw_offset = u32::try_from(self.bytes.len()).map_err(|_| too_large())?;
        let virtual_address = self.memory_end.checked_next_multiple_of(alignment).ok_or_else(too_large)?;
        let line = Line { name, virtual_size, virtual_address, raw_size, raw_offset };
        self.memory_end = line.memory_end()?;
        self.data = self.data.checked_add(raw_size).ok_or_else(too_large)?;
        let entry = self.table + self.lines.len() * SECTION;
        self.put(entry, &line.write())?;
        self.lines.push(line);
        self.bytes.extend_from_slice(section.contents);
        self.pad()
    }

    /// Completes the headers.
    pub(super) fn finish(mut self) -> Result<Vec<u8>, UkiError> {
        let (pe, optional) = (self.pe, self.pe + COFF);
        let count = u16::try_from(self.lines.len()).map_err(|_| UkiError::TooLarge)?;
        let size = self.memory_end.checked_next_multiple_of(self.section_alignment).ok_or(UkiError::TooLarge)?;
        let data = u32_at(&self.bytes, optional + SIZE_OF_DATA).and_then(|data| data.checked_add(self.data));
        self.put(pe + NUMBER_OF_SECTIONS, &count.to_le_bytes())?;
        for offset in [pe + TIME_DATE_STAMP, pe + POINTER_TO_SYMBOLS, pe + NUMBER_OF_SYMBOLS, optional + CHECKSUM] {
            self.put(offset, &[0; 4])?;
        }
        self.put(optional + SIZE_OF_DATA, &data.ok_or(UkiError::TooLarge)?.to_le_bytes())?;
        self.put(optional + SIZE_OF_IMAGE, &size.to_le_bytes())?;
        Ok(self.bytes)
    }

    fn pad(&mut self) -> Result<(), UkiError> {
        let length =
            self.bytes.len().checked_next_multiple_of(index(self.file_alignment)?).ok_or(UkiError::TooLarge)?;
        self.bytes.resize(length, 0);
        Ok(())
    }

    fn put(&mut self, offset: usize, bytes: &[u8]) -> Result<(), UkiError> {
        let place = self.bytes.get_mut(offset..).and_then(|rest| rest.get_mut(..bytes.len()));
        place.ok_or(UkiError::Malformed("its headers are cut short"))?.copy_from_slice(bytes);
        Ok(())
    }
}
