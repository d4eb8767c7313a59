//! A unified kernel image: systemd-stub with a kernel, a ramdisk, a command line and more as PE sections, and what the
//! stub measures of them: into PCR 11, or where there is no TPM into RTMR2 of a TD.
//!
//! Sources: UAPI group specification 5 (UKI), systemd `src/fundamental/uki.h` (the order, which is never changed),
//! `src/boot/stub.c` and `src/boot/pe.c`, edk2 `BasePeCoffLib` (loading). For each section that the stub knows and the
//! image has, two events: the name with its NUL, then the contents as they are in memory, so as long as the virtual
//! size says. `.pcrsig` signs the result and is never measured; a section of virtual size 0 counts as absent.
//!
//! Which names a stub knows differs between versions, and distributions add names to old versions. So the list is read
//! out of the stub's own bytes and has to be one in the known order. Seen: 252 (`.linux .osrel .cmdline .initrd .splash
//! .dtb .pcrsig .pcrpkey`), 254 (`.uname .sbat` more), 262 (`.ucode .profile .dtbauto .hwids .efifw` more).
//!
//! Not trusted: the image. Sections that the stub would find in another way than this reader are refused: repeated ones,
//! names that only begin like a known one, overlaps in memory. Never done here: checking a signature.

mod reloc;
mod stub;

use std::borrow::Cow;

use ring::digest::{Algorithm, Context, SHA256, SHA384};
use thiserror::Error;

use crate::bytes::{index, slice_at};
use crate::digest::{Digest, finish};
use crate::pe::{PeError, PeSection, X86_64, major_image_version, section_table, unified_section};
pub use stub::{NEWEST_STUB, OLDEST_STUB};
use stub::{ORDER, Stub};

/// Most bytes that a section may have in memory beyond what the file holds; tools pad to a page at most.
const MAX_PADDING: u32 = 1 << 20;
const PCRSIG: &str = ".pcrsig";
const PROFILE: &str = ".profile";
/// The stub picks among these, or takes none, by what machine it finds itself on.
const BY_MACHINE: [&str; 3] = [".dtbauto", ".hwids", ".efifw"];

/// Why an image's measurements cannot be predicted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UkiError {
    /// The file is no PE image for x86-64, or is malformed.
    #[error("unified kernel image: {0}")]
    Pe(#[from] PeError),
    /// An EFI image, but without systemd-stub's mark in a `.sdmagic` section.
    #[error("not a unified kernel image made with systemd-stub {OLDEST_STUB} or later: it has no .sdmagic section")]
    NoStub,
    /// Another version of the stub than those whose measurements are known.
    #[error("systemd-stub {0:?}: only versions {OLDEST_STUB} to {NEWEST_STUB} can be predicted")]
    Version(String),
    /// The stub's list of section names is not found once, or not in the known order.
    #[error("systemd-stub {0:?}: its list of section names cannot be told: {1}")]
    Names(String, &'static str),
    /// No kernel inside.
    #[error("the image has no .linux section: this is a bare stub or an addon")]
    NoKernel,
    /// The kernel inside is a unified image itself.
    #[error(
        "the .linux section holds a unified kernel image (section {0}), which loads a third one: give one with a plain kernel"
    )]
    Nested(&'static str),
    /// The kernel inside says that its EFI stub is an old one.
    #[error(
        "the kernel in .linux has MajorImageVersion 0, so systemd-stub starts it by the handover protocol, which measures \
         otherwise: use Linux 5.7 or later"
    )]
    Handover,
    /// Firmware would change a section before it is measured.
    #[error("base relocations change {0}: the stub would measure other bytes than the file's")]
    Relocated(&'static str),
    /// The table of relocations cannot be followed.
    #[error("the base relocations of the image are malformed: {0}")]
    Relocations(&'static str),
    /// A section lies outside of the file or is much larger in memory than in the file.
    #[error("section {0} of the image reaches beyond the file")]
    Bounds(String),
    /// Two sections share memory, so that one would be loaded over the other.
    #[error("sections {0} and {1} of the image overlap in memory")]
    Overlap(String, String),
    /// A section that must be there once is there twice.
    #[error("section {0} is in the image twice: stubs differ in which one they take")]
    Duplicate(&'static str),
    /// A name that begins like one that the stub knows: old stubs take it for that one.
    #[error("section {0:?} begins like {1}: some stubs would take it for that one")]
    Ambiguous(String, &'static str),
    /// A section whose use depends on the machine.
    #[error("section {0} is used or not by what machine the stub finds: this cannot be predicted")]
    ByMachine(&'static str),
    /// The image has profiles and none was chosen, or the other way around.
    #[error("the image has {found} profiles: {hint}")]
    Profile {
        /// How many `.profile` sections there are.
        found: usize,
        /// What to do.
        hint: &'static str,
    },
    /// The stub does not know profiles and would mix their sections.
    #[error("the image has profiles, which systemd-stub {0:?} does not know")]
    OldStub(String),
}

/// One section's contents as the stub finds them in memory: bytes of the file, then zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contents<'a> {
    stored: &'a [u8],
    zeros: usize,
}

impl<'a> Contents<'a> {
    /// All bytes; copied only where memory is larger than the file.
    #[must_use]
    pub fn bytes(&self) -> Cow<'a, [u8]> {
        if self.zeros == 0 {
            return Cow::Borrowed(self.stored);
        }
        let mut all = self.stored.to_vec();
        all.resize(self.stored.len() + self.zeros, 0);
        Cow::Owned(all)
    }
}

/// One extend of PCR 11.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SectionEvent<'a> {
    /// The section's name, hashed with a NUL after it.
    Name(&'static str),
    /// The contents of the section of this name.
    Contents(&'static str, Contents<'a>),
}

impl SectionEvent<'_> {
    /// The section that it is about.
    #[must_use]
    pub fn section(&self) -> &'static str {
        match self {
            Self::Name(name) | Self::Contents(name, _) => name,
        }
    }

    /// What a SHA-256 bank is extended with.
    #[must_use]
    pub fn sha256(&self) -> Digest<32> {
        finish(self.hashed(&SHA256))
    }

    /// What a SHA-384 register is extended with.
    #[must_use]
    pub fn sha384(&self) -> Digest<48> {
        finish(self.hashed(&SHA384))
    }

    fn hashed(&self, algorithm: &'static Algorithm) -> Context {
        let mut context = Context::new(algorithm);
        match self {
            Self::Name(name) => {
                context.update(name.as_bytes());
                context.update(&[0]);
            }
            Self::Contents(_, contents) => context.update(&contents.bytes()),
        }
        context
    }
}

/// A parsed image.
#[derive(Debug, Clone)]
pub struct UnifiedImage<'a> {
    stub: Stub,
    /// Sections with a name of [`ORDER`] and of more than no bytes, in the order of the table.
    sections: Vec<(&'static str, Contents<'a>)>,
}

impl<'a> UnifiedImage<'a> {
    /// Reads an image that was made with systemd-stub for x86-64.
    ///
    /// # Errors
    /// [`UkiError`].
    pub fn parse(image: &'a [u8]) -> Result<Self, UkiError> {
        let (headers, table) = section_table(image, X86_64)?;
        check_memory(headers, &table)?;
        reloc::check(image, &table)?;
        let (mut sections, mut own) = (Vec::new(), Vec::new());
        for line in &table {
            let contents = contents(image, line)?;
            match ORDER.iter().find(|known| padded(known) == line.name) {
                Some(known) if line.virtual_size > 0 => sections.push((*known, contents)),
                Some(_) => {}
                None => {
                    check_name(line)?;
                    own.push((line.name, contents.stored));
                }
            }
        }
        let stub = Stub::find(&own)?;
        if !sections.iter().any(|(name, _)| *name == ".linux") {
            return Err(UkiError::NoKernel);
        }
        for (_, kernel) in sections.iter().filter(|(name, _)| *name == ".linux") {
            check_kernel(kernel.stored)?;
        }
        if let Some(name) = BY_MACHINE.iter().find(|name| sections.iter().any(|(found, _)| found == *name)) {
            return Err(UkiError::ByMachine(name));
        }
        if sections.iter().any(|(name, _)| *name == PROFILE) && !stub.names.contains(&PROFILE) {
            return Err(UkiError::OldStub(stub.version));
        }
        Ok(Self { stub, sections })
    }

    /// The stub's version as it calls itself, for example `252.39-1~deb12u2`.
    #[must_use]
    pub fn stub_version(&self) -> &str {
        &self.stub.version
    }

    /// The number that the version begins with.
    #[must_use]
    pub fn stub_release(&self) -> u32 {
        self.stub.release
    }

    /// The sections that the stub takes, in the order in which it measures them; `.pcrsig` among them. `profile` counts
    /// from 0 and is given when the image has `.profile` sections, and only then: what stands before the first of them
    /// belongs to every profile, except for what a profile has itself.
    ///
    /// # Errors
    /// [`UkiError::Profile`], [`UkiError::Duplicate`].
    pub fn taken(&self, profile: Option<usize>) -> Result<Vec<(&'static str, Contents<'a>)>, UkiError> {
        let mut groups = self.sections.chunk_by(|_, (next, _)| *next != PROFILE).peekable();
        let base = groups.next_if(|group| group.first().is_some_and(|(name, _)| *name != PROFILE)).unwrap_or_default();
        let profiles: Vec<_> = groups.collect();
        let found = profiles.len();
        let own = match (profile, found) {
            (None, 0) => &[],
            (None, _) => return Err(UkiError::Profile { found, hint: "choose one" }),
            (Some(_), 0) => return Err(UkiError::Profile { found, hint: "do not choose one" }),
            (Some(number), _) => {
                *profiles.get(number).ok_or(UkiError::Profile { found, hint: "choose a lower number, from 0" })?
            }
        };
        for group in [base, own] {
            for (position, (name, _)) in group.iter().enumerate() {
                if group.iter().take(position).any(|(earlier, _)| earlier == name) {
                    return Err(UkiError::Duplicate(name));
                }
            }
        }
        let take = |name: &&'static str| own.iter().chain(base).find(|(found, _)| found == name).copied();
        Ok(self.stub.names.iter().filter_map(take).collect())
    }

    /// What the stub extends PCR 11 with, in order; `profile` as for [`UnifiedImage::taken`].
    ///
    /// # Errors
    /// [`UkiError::Profile`], [`UkiError::Duplicate`].
    pub fn events(&self, profile: Option<usize>) -> Result<Vec<SectionEvent<'a>>, UkiError> {
        let taken = self.taken(profile)?.into_iter().filter(|(name, _)| *name != PCRSIG);
        Ok(taken.flat_map(|(name, all)| [SectionEvent::Name(name), SectionEvent::Contents(name, all)]).collect())
    }
}

/// A kernel that the stub loads as one more image, which then reads its own command line and ramdisk. What is no PE image is
/// refused by whoever needs its digest.
fn check_kernel(kernel: &[u8]) -> Result<(), UkiError> {
    if let Some(section) = unified_section(kernel) {
        return Err(UkiError::Nested(section));
    }
    // `pe_kernel_info` of the stub asks for 1 or more.
    if major_image_version(kernel) == Ok(0) { Err(UkiError::Handover) } else { Ok(()) }
}

/// A name as it stands in a section table.
fn padded(name: &str) -> [u8; 8] {
    let mut padded = [0; 8];
    padded.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
    padded
}

fn shown(line: &PeSection) -> String {
    crate::printable::escaped(String::from_utf8_lossy(&line.name).trim_end_matches('\0'), &['"', '`'])
}

/// Stubs before 253 compare no further than the known name is long.
fn check_name(line: &PeSection) -> Result<(), UkiError> {
    match ORDER.iter().find(|known| line.name.starts_with(known.as_bytes())) {
        Some(known) => Err(UkiError::Ambiguous(shown(line), known)),
        None => Ok(()),
    }
}

/// What is loaded: as much of the file as fits into the virtual size, then zeros.
fn contents<'a>(image: &'a [u8], line: &PeSection) -> Result<Contents<'a>, UkiError> {
    let read = || {
        let (stored, zeros) = (line.virtual_size.min(line.raw_size), line.virtual_size.saturating_sub(line.raw_size));
        let stored = if stored == 0 { &[][..] } else { slice_at(image, index(line.raw_offset)?, index(stored)?)? };
        (zeros <= MAX_PADDING).then_some(Contents { stored, zeros: index(zeros)? })
    };
    read().ok_or_else(|| UkiError::Bounds(shown(line)))
}

/// No two of the headers and the sections share memory. Firmware loads a section of virtual size 0 whole.
fn check_memory(headers: usize, table: &[PeSection]) -> Result<(), UkiError> {
    let extent = |line: &PeSection| {
        let size = if line.virtual_size == 0 { line.raw_size } else { line.virtual_size };
        let start = u64::from(line.virtual_address);
        (start, start + u64::from(size), shown(line))
    };
    let mut sorted: Vec<_> = table.iter().map(extent).filter(|(start, end, _)| start < end).collect();
    sorted.push((0, headers as u64, "(headers)".to_owned()));
    sorted.sort();
    for pair in sorted.windows(2) {
        if let [(_, end, low), (start, _, high)] = pair
            && end > start
        {
            return Err(UkiError::Overlap(low.clone(), high.clone()));
        }
    }
    Ok(())
}

/// A small image for tests; never part of the product.
#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;
