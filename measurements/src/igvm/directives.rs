//! What each variable header says, with its fields checked as far as they can be without knowing the platform.
//!
//! Not trusted: the headers. Never measures.

use super::SupportedPlatform;
use super::error::IgvmError;
use super::headers::Header;
use crate::bytes::{array_at, index, u16_at, u32_at, u64_at};
use crate::digest::Digest;
use crate::ovmf::{PAGE, PAGE_BYTES};

/// Flags of page data: two megabytes, unmeasured, shared with the host.
const LARGE: u32 = 1;
const UNMEASURED: u32 = 2;
const SHARED: u32 = 4;

/// A header of initialization or a directive.
#[derive(Debug, Clone)]
pub(super) struct Directive<'a> {
    /// Offset in the file.
    pub(super) at: usize,
    /// Its type.
    pub(super) kind: u32,
    /// The platforms it is for; all of them when it names none.
    pub(super) mask: Option<u32>,
    pub(super) act: Act<'a>,
}

/// What a directive has the loader do.
#[derive(Debug, Clone)]
pub(super) enum Act<'a> {
    Policy(u64),
    /// Memory that the loader may move.
    Relocatable,
    /// Nothing for the launch: manifests, a version, memory and error ranges.
    Nothing,
    /// Something of another platform.
    Foreign,
    Page(Page<'a>),
    /// Declares a parameter area.
    Area {
        index: u32,
        bytes: u64,
    },
    /// Writes a parameter into an area.
    Parameter {
        index: u32,
        offset: u32,
    },
    /// Loads an area as unmeasured pages.
    Insert {
        address: u64,
        index: u32,
    },
    /// Registers of a vCPU.
    Registers {
        address: u64,
        vcpu: u16,
        offset: u32,
    },
    IdBlock(Box<Digest<48>>),
}

/// Page data.
#[derive(Debug, Clone, Copy)]
pub(super) struct Page<'a> {
    pub(super) address: u64,
    /// IgvmPageDataType.
    pub(super) kind: u16,
    pub(super) unmeasured: bool,
    pub(super) shared: bool,
    /// Contents; without them the page is zero.
    pub(super) data: Option<&'a [u8; PAGE]>,
}

/// A supported platform: mask u32, highest VTL u8, type u8, version u16, shared boundary u64.
pub(super) fn platform(header: &Header<'_>) -> Result<SupportedPlatform, IgvmError> {
    let fields = header.exactly::<16>()?;
    let [number, ..] = array_at::<1>(fields, 5).unwrap_or_default();
    let (mask, version) = (u32_at(fields, 0).unwrap_or_default(), u16_at(fields, 6).unwrap_or_default());
    Ok(SupportedPlatform { mask, number, version })
}

/// The file's data from an offset on.
pub(super) fn data(file: &[u8], data_start: usize, offset: u32) -> Option<&[u8]> {
    index(offset).filter(|offset| *offset >= data_start).and_then(|offset| file.get(offset..))
}

/// Fields of a header whose length has been checked: what is not there cannot be asked for.
struct Fields<'a> {
    at: usize,
    bytes: &'a [u8],
}

impl Fields<'_> {
    fn u16(&self, offset: usize) -> u16 {
        u16_at(self.bytes, offset).unwrap_or_default()
    }

    fn u32(&self, offset: usize) -> u32 {
        u32_at(self.bytes, offset).unwrap_or_default()
    }

    fn u64(&self, offset: usize) -> u64 {
        u64_at(self.bytes, offset).unwrap_or_default()
    }

    /// A number of bytes or an address that must be whole pages.
    fn pages(&self, value: u64) -> Result<u64, IgvmError> {
        let whole = value.is_multiple_of(PAGE_BYTES) && value.checked_add(PAGE_BYTES).is_some();
        if whole { Ok(value) } else { Err(IgvmError::Unaligned { at: self.at, value }) }
    }

    fn zero(&self, value: impl Into<u64>) -> Result<(), IgvmError> {
        let value = value.into();
        if value == 0 { Ok(()) } else { Err(IgvmError::Reserved { at: self.at, value }) }
    }
}

/// Reads a header of initialization or a directive.
pub(super) fn read<'a>(header: &Header<'a>, file: &'a [u8], data_start: usize) -> Result<Directive<'a>, IgvmError> {
    let (at, kind) = (header.at, header.kind);
    let fields = fields(header)?;
    let (mask, act) = match kind {
        0x101 => {
            fields.zero(fields.u32(12))?;
            (Some(fields.u32(8)), Act::Policy(fields.u64(0)))
        }
        0x102 | 0x103 => (Some(fields.u32(0)), Act::Relocatable),
        0x104 | 0x105 => {
            fields.zero(fields.u32(12))?;
            let length = index(fields.u32(8)).filter(|length| *length > 0);
            let whole =
                data(file, data_start, fields.u32(4)).zip(length).is_some_and(|(data, length)| length <= data.len());
            if !whole {
                return Err(IgvmError::Data { at, offset: fields.u32(4) });
            }
            (Some(fields.u32(0)), Act::Nothing)
        }
        0x106 | 0x311 => (Some(fields.u32(0)), Act::Foreign),
        0x107 => (None, Act::Nothing),
        0x301 => (None, Act::Area { index: fields.u32(8), bytes: fields.pages(fields.u64(0))? }),
        0x302 => (Some(fields.u32(8)), Act::Page(page(&fields, file, data_start)?)),
        0x303 => (Some(fields.u32(8)), Act::Insert { address: fields.pages(fields.u64(0))?, index: fields.u32(12) }),
        0x304 => {
            fields.zero(fields.u16(18))?;
            let (address, vcpu, offset) = (fields.pages(fields.u64(0))?, fields.u16(16), fields.u32(12));
            (Some(fields.u32(8)), Act::Registers { address, vcpu, offset })
        }
        0x305 => {
            fields.pages(fields.u64(0))?;
            fields.pages(fields.u32(12).into())?;
            fields.zero(fields.u32(16) & !1)?;
            fields.zero(fields.u32(20))?;
            (Some(fields.u32(8)), Act::Nothing)
        }
        0x30b => {
            let digest = array_at(fields.bytes, 8).unwrap_or([0; 48]);
            (Some(fields.u32(0)), Act::IdBlock(Box::new(digest.into())))
        }
        0x30d => {
            fields.pages(fields.u64(0))?;
            fields.pages(fields.u32(12).into())?;
            (Some(fields.u32(8)), Act::Nothing)
        }
        _ => (None, Act::Parameter { index: fields.u32(0), offset: fields.u32(4) }),
    };
    Ok(Directive { at, kind, mask, act })
}

/// The fields of a header, which must have the length of its type.
fn fields<'a>(header: &Header<'a>) -> Result<Fields<'a>, IgvmError> {
    match header.kind {
        0x101 | 0x104 | 0x105 | 0x301 | 0x303 | 0x30d => header.exactly::<16>().map(|_| ()),
        0x102 => header.exactly::<48>().map(|_| ()),
        0x103 | 0x106 => header.exactly::<32>().map(|_| ()),
        0x107 => Ok(()),
        0x302 | 0x305 => header.exactly::<24>().map(|_| ()),
        0x304 => header.exactly::<20>().map(|_| ()),
        0x30b => header.exactly::<696>().map(|_| ()),
        0x311 => header.exactly::<864>().map(|_| ()),
        _ => header.exactly::<8>().map(|_| ()),
    }?;
    Ok(Fields { at: header.at, bytes: header.contents })
}

/// Address u64, mask u32, file offset u32, flags u32, type u16, reserved u16.
fn page<'a>(fields: &Fields<'_>, file: &'a [u8], data_start: usize) -> Result<Page<'a>, IgvmError> {
    let (at, address, offset, flags) = (fields.at, fields.pages(fields.u64(0))?, fields.u32(12), fields.u32(16));
    fields.zero(flags & !(LARGE | UNMEASURED | SHARED))?;
    fields.zero(fields.u16(22))?;
    if flags & LARGE != 0 {
        return Err(IgvmError::LargePage { at });
    }
    let data = match offset {
        0 => None,
        offset => {
            let page = data(file, data_start, offset).and_then(<[u8]>::first_chunk);
            Some(page.ok_or(IgvmError::Data { at, offset })?)
        }
    };
    let (unmeasured, shared) = (flags & UNMEASURED != 0, flags & SHARED != 0);
    Ok(Page { address, kind: fields.u16(20), unmeasured, shared, data })
}
