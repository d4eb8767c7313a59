//! Why a firmware image cannot be used, each with its cause and the next step.
//!
//! Not trusted: the numbers quoted here come from the image. Never holds image bytes.

use thiserror::Error;

/// Why a firmware image cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FirmwareError {
    /// Empty, longer than [`super::MAX_FIRMWARE_BYTES`], or no whole number of pages.
    #[error("firmware of {0} bytes: expected whole 4096-byte pages, at most 64 MiB")]
    Size(usize),
    /// The footer GUID is not where OVMF puts it.
    #[error("no OVMF footer table: give the whole image (OVMF.fd, not a VARS file or another firmware)")]
    NoFooter,
    /// Another kind of file, told by how it begins.
    #[error("this is {0}, no whole OVMF image for x86: give the image that QEMU gets as -bios")]
    OtherFile(&'static str),
    /// The footer table or one of its entries has an impossible length.
    #[error("the OVMF footer table is malformed: an entry has a length that does not fit")]
    Footer,
    /// Two footer entries carry one GUID; which of them a hypervisor takes is not defined.
    #[error("the OVMF footer table names the same entry twice")]
    RepeatedEntry,
    /// A footer entry is too short for what it must hold.
    #[error("the footer entry `{0}` is too short")]
    ShortEntry(&'static str),
    /// The image carries no metadata for the wanted platform.
    #[error("the firmware carries no {0} metadata: use a build for this platform")]
    NoMetadata(&'static str),
    /// Metadata lies outside the image, or has another signature, version, length or count.
    #[error("the {0} metadata is malformed: wrong place, signature, version, length or count")]
    Metadata(&'static str),
    /// A section is empty, not page aligned, beyond the address space, or together too large.
    #[error("the {platform} metadata section {number} is absurd: {address:#x}+{size:#x}")]
    AbsurdSection {
        /// `SEV` or `TDVF`.
        platform: &'static str,
        /// Position in the table, from 0.
        number: usize,
        /// Guest physical address.
        address: u64,
        /// Bytes.
        size: u64,
    },
    /// Two sections, or a section and the image itself, claim the same memory.
    #[error("{platform} metadata sections overlap at {address:#x}")]
    Overlap {
        /// `SEV` or `TDVF`.
        platform: &'static str,
        /// Guest physical address of the later one.
        address: u64,
    },
    /// A section type that this version does not know, so its measurement cannot be told.
    #[error("unknown {platform} metadata section type {kind:#x}: this firmware is newer than this program")]
    UnknownSection {
        /// `SEV` or `TDVF`.
        platform: &'static str,
        /// The type as stored.
        kind: u32,
    },
    /// Attribute bits of a TDVF section that this version does not know, or that exclude each other.
    #[error("TDVF section {number} has attributes {attributes:#x}, which are unknown or exclude each other")]
    UnknownAttributes {
        /// Position in the table, from 0.
        number: usize,
        /// The attributes as stored.
        attributes: u32,
    },
    /// An image that is to be started as an SVSM does not say where.
    #[error("no SVSM: the image's footer table does not say where it starts")]
    NoSvsm,
    /// The variable store between firmware and SVSM is no whole number of pages.
    #[error("a variable store of {0} bytes: expected whole 4096-byte pages")]
    Variables(u32),
    /// Bytes that a TDVF section refers to are not in the image.
    #[error("TDVF section {0} refers to bytes outside the image: give the combined image, not a split CODE file")]
    SectionData(usize),
}
