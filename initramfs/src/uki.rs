//! Unified kernel images: systemd-stub with kernel, initial ramdisk, command line and more behind it as PE sections.
//!
//! Sources: UAPI group specification 5 (UKI), Microsoft PE format, systemd `src/boot/pe.c` (how the stub finds sections).
//! The image depends on the given bytes and on nothing else: no time, no checksum, no padding of chance, sections always
//! in the same order, the kernel last. What follows the stub's last section (symbols) is left out.
//!
//! Not trusted: the stub; every number of its headers is checked before it is used. Never done here: signing, and adding
//! to an image that is signed or unified already. What the image measures as is for `inwit-measure`.

mod stub;

use ring::digest::{SHA256, digest};
use thiserror::Error;

use stub::{NewSection, Stub};

/// Sections begin at multiples of this in memory, or of the stub's own alignment where that is larger.
const PAGE: u32 = 4096;

/// What goes into an image beside the stub.
#[derive(Debug, Clone, Copy)]
pub struct UnifiedParts<'a> {
    /// The kernel, a PE image for x86-64 with an EFI stub (`.linux`).
    pub kernel: &'a [u8],
    /// The initial ramdisk (`.initrd`).
    pub initrd: &'a [u8],
    /// The kernel command line, printable ASCII without space at its ends (`.cmdline`).
    pub command_line: &'a str,
    /// An os-release file (`.osrel`).
    pub os_release: Option<&'a [u8]>,
    /// The kernel's release as `uname -r` says it (`.uname`).
    pub uname: Option<&'a str>,
    /// SBAT lines in the place of the stub's own (`.sbat`).
    pub sbat: Option<&'a [u8]>,
}

/// Why no unified image was made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UkiError {
    /// The stub or the kernel is no PE32+ image.
    #[error("{0} is not a PE image with an EFI entry")]
    NotPe(&'static str),
    /// The stub or the kernel is for other processors.
    #[error("{part} is for machine type {machine:#06x}: give one for x86-64")]
    Machine {
        /// Stub or kernel.
        part: &'static str,
        /// Machine type in its header (PE format, "Machine Types").
        machine: u16,
    },
    /// A PE image for x86-64, but not systemd-stub.
    #[error("the stub has no .sdmagic section: give systemd's linuxx64.efi.stub")]
    NotStub,
    /// The stub holds a section that only a finished image has.
    #[error("the stub has a section {0} already: give the bare stub, not an image made with it")]
    AlreadyUnified(String),
    /// The stub is signed, and the signature would not hold.
    #[error("the stub is signed: give an unsigned one, and sign the finished image")]
    Signed,
    /// A number of the stub's headers does not fit the file, or two sections share bytes or memory.
    #[error("the stub is malformed: {0}")]
    Malformed(&'static str),
    /// The stub's headers end before all section headers are in.
    #[error("the stub's headers have room for {room} more sections, and {needed} are needed: leave something out")]
    NoRoom {
        /// Section headers that fit.
        room: usize,
        /// Section headers that are wanted.
        needed: usize,
    },
    /// The kernel holds a section that a stub has or that only a finished image has.
    #[error("the kernel has a section {0}: it is a unified image itself, give the kernel inside it")]
    KernelIsUnified(String),
    /// No command line; the stub would count its section as absent.
    #[error("the command line is empty: an image without one would take the host's, so give at least one word")]
    NoCommandLine,
    /// A part has no bytes, so that the stub would count its section as absent.
    #[error("{0} is empty: leave it out or give the right file")]
    Empty(&'static str),
    /// The command line or release would not arrive as given.
    #[error("{0} must be printable ASCII without line end and without space at its ends")]
    Text(&'static str),
    /// The SBAT lines do not fit in the place of the stub's own.
    #[error("SBAT of {given} bytes: the stub has room for {room}")]
    Sbat {
        /// Bytes given.
        given: usize,
        /// Bytes of the stub's section.
        room: usize,
    },
    /// Offsets of a PE image have 32 bits.
    #[error("the image would have more than 4294967295 bytes")]
    TooLarge,
}

/// A finished image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnifiedKernel {
    bytes: Vec<u8>,
    sections: Vec<(&'static str, usize)>,
}

impl UnifiedKernel {
    /// Puts the parts behind a stub.
    ///
    /// # Errors
    /// [`UkiError`].
    pub fn build(stub: &[u8], parts: &UnifiedParts<'_>) -> Result<Self, UkiError> {
        let stub = Stub::parse(stub)?;
        stub::check_kernel(parts.kernel)?;
        let sections = parts.sections()?;
        let mut image = stub.image(sections.len())?;
        if let Some(sbat) = parts.sbat {
            image.replace_sbat(sbat)?;
        }
        for section in &sections {
            image.append(section)?;
        }
        let sections = sections.iter().map(|section| (section.name, section.contents.len())).collect();
        Ok(Self { bytes: image.finish()?, sections })
    }

    /// The image.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The sections that were added: name and length in bytes, in the order of the file.
    #[must_use]
    pub fn sections(&self) -> &[(&'static str, usize)] {
        &self.sections
    }

    /// SHA-256 over the file. Firmware measures another digest of it (Authenticode).
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        let mut out = [0; 32];
        out.copy_from_slice(digest(&SHA256, &self.bytes).as_ref());
        out
    }
}

impl<'a> UnifiedParts<'a> {
    fn sections(&self) -> Result<Vec<NewSection<'a>>, UkiError> {
        let optional = [(".osrel", self.os_release), (".uname", self.uname.map(str::as_bytes))];
        let mut sections: Vec<NewSection<'a>> = optional
            .into_iter()
            .filter_map(|(name, contents)| contents.map(|contents| NewSection { name, contents }))
            .collect();
        sections.push(NewSection { name: ".cmdline", contents: self.command_line.as_bytes() });
        sections.push(NewSection { name: ".initrd", contents: self.initrd });
        sections.push(NewSection { name: ".linux", contents: self.kernel });
        for (what, text) in [("the command line", Some(self.command_line)), ("the kernel's release", self.uname)] {
            let plain = |text: &str| text.bytes().all(|byte| matches!(byte, b' '..=b'~')) && text.trim() == text;
            if text.is_some_and(|text| !plain(text)) {
                return Err(UkiError::Text(what));
            }
        }
        if self.sbat.is_some_and(<[u8]>::is_empty) {
            return Err(UkiError::Empty(".sbat"));
        }
        if self.command_line.is_empty() {
            return Err(UkiError::NoCommandLine);
        }
        match sections.iter().find(|section| section.contents.is_empty()) {
            Some(section) => Err(UkiError::Empty(section.name)),
            None => Ok(sections),
        }
    }
}

#[cfg(test)]
mod tests;
