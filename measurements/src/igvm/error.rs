//! Why an IGVM file gives no digest.

use thiserror::Error;

use crate::digest::Digest;

/// Why an IGVM file gives no digest. `at` is the offset of the header in the file, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IgvmError {
    /// The file does not begin with the magic number, or is shorter than a fixed header.
    #[error("this is not an IGVM file")]
    Magic,
    /// Neither version 1 nor 2.
    #[error("IGVM format version {0} is not known: versions 1 and 2 are")]
    Version(u32),
    /// Another processor than x86-64.
    #[error("the file is for architecture {0}, not for x86-64 (0): no SNP or TDX guest can be loaded from it")]
    Architecture(u32),
    /// Pages of another size.
    #[error("the file counts in pages of {0} bytes, not of 4096")]
    PageSize(u32),
    /// The file's size is not what its header says.
    #[error("the file says it has {said} bytes, but has {has}: is it cut short?")]
    FileSize {
        /// Bytes by the fixed header.
        said: u32,
        /// Bytes there are.
        has: usize,
    },
    /// The variable headers are not inside of the file, or not at multiples of eight bytes.
    #[error("the variable headers do not lie in the file: {size:#x} bytes at offset {offset:#x}")]
    Headers {
        /// Where they should begin.
        offset: u32,
        /// How many bytes.
        size: u32,
    },
    /// The checksum over the headers is wrong.
    #[error("the checksum of the headers is {computed:#010x}, not {said:#010x}: they were changed or damaged")]
    Checksum {
        /// By the fixed header.
        said: u32,
        /// Over the bytes there are.
        computed: u32,
    },
    /// A header goes over the end of the headers.
    #[error("the header at {at:#x} goes over the end of the headers")]
    Truncated {
        /// Where.
        at: usize,
    },
    /// Bytes that fill a header up to eight are not zero.
    #[error("the padding of the header at {at:#x} is not zero")]
    Padding {
        /// Where.
        at: usize,
    },
    /// A header of a type that is not known and that must not be skipped.
    #[error(
        "the header at {at:#x} is of type {kind:#x}, which is not known here: its part in the launch cannot be told"
    )]
    Kind {
        /// Where.
        at: usize,
        /// Its type.
        kind: u32,
    },
    /// A known header, marked as one that may be skipped: loaders differ in whether they do.
    #[error("the header at {at:#x} of type {kind:#x} is marked as optional: whether a loader skips it cannot be told")]
    Optional {
        /// Where.
        at: usize,
        /// Its type.
        kind: u32,
    },
    /// A header of another length than its type has.
    #[error("the header at {at:#x} of type {kind:#x} has {length} bytes, not {expected}")]
    Length {
        /// Where.
        at: usize,
        /// Its type.
        kind: u32,
        /// Bytes it has.
        length: usize,
        /// Bytes of that type.
        expected: usize,
    },
    /// Platforms come first, then initialization, then directives.
    #[error("the header at {at:#x} of type {kind:#x} comes after headers that it must precede")]
    Order {
        /// Where.
        at: usize,
        /// Its type.
        kind: u32,
    },
    /// A field that must be zero, or flags that are not known.
    #[error("the header at {at:#x} has {value:#x} in a field that is reserved")]
    Reserved {
        /// Where.
        at: usize,
        /// What the field holds.
        value: u64,
    },
    /// A compatibility mask of a platform has not exactly one bit, or one that is taken.
    #[error("the platform at {at:#x} has the mask {mask:#x}: it must be one bit that no other platform has")]
    Mask {
        /// Where.
        at: usize,
        /// The mask.
        mask: u32,
    },
    /// The file is not for the platform that is asked for.
    #[error("the file has no {wanted} platform (its platform types: {found:?})")]
    NoPlatform {
        /// The platform.
        wanted: &'static str,
        /// Types of platform that the file has.
        found: Vec<u8>,
    },
    /// Two platforms of one type: which of them a loader takes cannot be told.
    #[error("the file has more than one {0} platform")]
    TwoPlatforms(&'static str),
    /// A platform version that is not known.
    #[error("the file's {platform} platform has version {version}; only 1 is known")]
    PlatformVersion {
        /// The platform.
        platform: &'static str,
        /// Its version.
        version: u16,
    },
    /// An address or a size that is not a whole number of pages, or that leaves the address space.
    #[error("the header at {at:#x} has the address or size {value:#x}, which is not a whole number of pages that fits")]
    Unaligned {
        /// Where.
        at: usize,
        /// The value.
        value: u64,
    },
    /// Data is not where the header says.
    #[error("the data of the header at {at:#x} does not lie in the file's data: offset {offset:#x}")]
    Data {
        /// Where the header is.
        at: usize,
        /// Where its data should be.
        offset: u32,
    },
    /// A page of two megabytes: loaders and calculators disagree on those.
    #[error(
        "the page at {at:#x} has 2 MiB: calculators disagree on how such pages are measured, so none is given here"
    )]
    LargePage {
        /// Where.
        at: usize,
    },
    /// A type of page that is not known, or that the platform does not have.
    #[error("the page at {at:#x} is of type {kind}, which {platform} does not have")]
    PageType {
        /// Where.
        at: usize,
        /// Its type.
        kind: u16,
        /// The platform.
        platform: &'static str,
    },
    /// A parameter area that is not declared, declared twice, or used after it was inserted; or an offset outside.
    #[error("the header at {at:#x} uses parameter area {index} as it cannot be used: {problem}")]
    ParameterArea {
        /// Where.
        at: usize,
        /// Number of the area.
        index: u32,
        /// What is wrong.
        problem: &'static str,
    },
    /// A file longer than any guest needs.
    #[error("the file has {0} bytes; more than {max} are not read", max = super::MAX_FILE_BYTES)]
    TooLong(usize),
    /// More headers than any guest needs.
    #[error("the variable headers have {0} bytes; more than {max} are not read", max = super::MAX_HEADER_BYTES)]
    TooManyHeaders(u32),
    /// More pages, parameters among them, than any guest needs.
    #[error("pages of more than {} bytes are loaded", super::MAX_LOADED_BYTES)]
    TooMuch,
    /// A mask names a platform that the file does not declare.
    #[error("the header at {at:#x} has the mask {mask:#x}, in which a bit stands for no platform of this file")]
    Undeclared {
        /// Where.
        at: usize,
        /// The mask.
        mask: u32,
    },
    /// Nothing that a guest could start from: there is no such launch.
    #[error("the file has no {missing} for {platform}: no guest starts from it, so no digest stands for one")]
    Nothing {
        /// The platform.
        platform: &'static str,
        /// What a guest would need.
        missing: &'static str,
    },
    /// Registers without SNP: no processor runs them in an SNP guest.
    #[error("the registers at {at:#x} have no bit 0 (SNP active) in SEV_FEATURES: no SNP guest starts from them")]
    NotSnp {
        /// Where.
        at: usize,
    },
    /// Two directives load one page.
    #[error("the header at {at:#x} loads the page at address {address:#x} a second time")]
    Overlap {
        /// Where.
        at: usize,
        /// Guest physical address.
        address: u64,
    },
    /// The loader may move memory, and addresses are measured.
    #[error("the header at {at:#x} lets the loader move memory: the digest would depend on where to")]
    Relocatable {
        /// Where.
        at: usize,
    },
    /// A header that the platform cannot have.
    #[error("the header at {at:#x} of type {kind:#x} is for another platform, but its mask names {platform}")]
    Foreign {
        /// Where.
        at: usize,
        /// Its type.
        kind: u32,
        /// The platform.
        platform: &'static str,
    },
    /// The registers of one vCPU twice, or a second ID block or policy.
    #[error("the header at {at:#x} of type {kind:#x} is there for the second time")]
    Twice {
        /// Where.
        at: usize,
        /// Its type.
        kind: u32,
    },
    /// QEMU with KVM does not load such a file, or not as it says.
    #[error("QEMU with KVM cannot load this file as it is: at {at:#x}, {problem}")]
    Qemu {
        /// Where.
        at: usize,
        /// What it does not do.
        problem: &'static str,
    },
    /// The file has an ID block for another launch digest: the security processor would refuse the launch.
    #[error(
        "the file's ID block is for the launch digest {said}, but its directives give {computed}: such a launch is refused \
         (is it signed for another loader?)"
    )]
    IdBlock {
        /// By the ID block.
        said: Box<Digest<48>>,
        /// By the directives.
        computed: Box<Digest<48>>,
    },
}
