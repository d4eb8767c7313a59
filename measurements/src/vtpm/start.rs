//! What OVMF starts, and what that leaves in PCRs 4, 9 and 11: a kernel with ramdisk and command line, or a unified
//! kernel image, both given to QEMU's `-kernel`.
//!
//! Sources: edk2 `QemuKernelLoaderFsDxe` and `DxeTpm2MeasureBootLib`, Linux `efi-stub-helper.c`, systemd
//! `src/boot/stub.c`. A stub loads its kernel through the firmware, which measures it a second time, and hands over
//! command line and ramdisk, which the kernel measures. The stub has no command line but its own here: QEMU's `-append`
//! would replace it and be measured into PCR 12, and companion files (credentials, addons) need a disk.
//!
//! Not trusted: all files. Never done here: PCR 0, which the firmware itself fills.

use std::borrow::Cow;

use super::{PcrEvent, PredictError};
use crate::digest::sha256;
use crate::linux::given::{same_integrity_record, same_ramdisk};
use crate::linux::{DirectKernel, KernelError, measures_on_tpm};
use crate::made_from::Part;
use crate::pe::authenticode_sha256;
use crate::uefi::{CALLING_APPLICATION, SEPARATOR};
use crate::uki::{Contents, SectionEvent, UkiError, UnifiedImage};

/// Releases of systemd-stub whose way to start a kernel is known: 252 is compared with a booted guest by a test, 254 was
/// compared once by hand.
pub(super) const KNOWN_RELEASES: &str = "252 or 254";
const KNOWN: [u32; 2] = [252, 254];
/// Sections that change nothing but PCR 11, or that are handed to the kernel as predicted.
pub(crate) const PLAIN: [&str; 7] = [".linux", ".osrel", ".cmdline", ".initrd", ".uname", ".sbat", ".splash"];

/// What is given to `-kernel`.
#[derive(Debug, Clone, Copy)]
pub enum Start<'a> {
    /// A kernel, with ramdisk, command line and memory size.
    Direct(DirectKernel<'a>),
    /// A unified kernel image, alone.
    Unified {
        /// The whole file.
        image: &'a [u8],
        /// Which profile, for an image that has some ([`UnifiedImage::taken`]).
        profile: Option<usize>,
    },
}

impl Start<'_> {
    /// PCR 4: what the firmware loads.
    pub(super) fn loaded(&self) -> Result<Vec<PcrEvent>, PredictError> {
        let (what, image, inner) = match self {
            Self::Direct(direct) => ("kernel, Authenticode", direct.loaded()?, None),
            Self::Unified { image, profile } => {
                let sections = known_sections(image, *profile)?;
                let kernel = section(&sections, ".linux").map(|contents| contents.bytes());
                ("unified kernel image, Authenticode", Cow::Borrowed(*image), kernel)
            }
        };
        let digest = authenticode_sha256(&image)?;
        if let Self::Direct(direct) = self
            && direct.kernel.get(0x202..0x206) != Some(b"HdrS")
        {
            return Err(KernelError::NoSetupHeader.into());
        }
        let mut events = vec![
            PcrEvent::new(4, Part::Kernel, what, digest),
            PcrEvent::new(4, Part::Constant, CALLING_APPLICATION, sha256(CALLING_APPLICATION.as_bytes())),
            PcrEvent::new(4, Part::Constant, "separator", sha256(&SEPARATOR)),
        ];
        if let Some(kernel) = inner {
            events.push(PcrEvent::new(
                4,
                Part::Kernel,
                "kernel inside the image, Authenticode",
                authenticode_sha256(&kernel)?,
            ));
        }
        Ok(events)
    }

    /// PCR 9: what the kernel measures of what it is given.
    pub(super) fn given_to_kernel(&self) -> Result<Vec<PcrEvent>, PredictError> {
        let (options, initrd) = match self {
            Self::Direct(direct) => {
                measures_on_tpm(direct.kernel)?;
                same_integrity_record(direct.append)?;
                (direct.load_options()?, Cow::Borrowed(direct.initrd))
            }
            Self::Unified { image, profile } => {
                let sections = known_sections(image, *profile)?;
                measures_on_tpm(&section(&sections, ".linux").map(|kernel| kernel.bytes()).unwrap_or_default())?;
                let text = section(&sections, ".cmdline").map(|text| text.bytes());
                let options = text.as_deref().map(load_options).transpose()?;
                same_integrity_record(&String::from_utf8_lossy(text.as_deref().unwrap_or_default()))?;
                let initrd = section(&sections, ".initrd").map(|contents| contents.bytes()).unwrap_or_default();
                (options, initrd)
            }
        };
        let options = options.map(|options| PcrEvent::new(9, Part::CommandLine, "command line", sha256(&options)));
        let initrd = (!initrd.is_empty()).then(|| PcrEvent::new(9, Part::Initrd, "initial ramdisk", sha256(&initrd)));
        Ok(options.into_iter().chain(initrd).collect())
    }

    /// PCR 11: what the stub measures of itself.
    pub(super) fn sections(&self) -> Result<Vec<PcrEvent>, PredictError> {
        match self {
            Self::Direct(_) => Ok(Vec::new()),
            Self::Unified { image, profile } => Ok(image_events(image, *profile)?),
        }
    }
}

/// What a unified image's stub extends PCR 11 with, whatever starts it; `profile` as for [`UnifiedImage::taken`].
///
/// # Errors
/// [`UkiError`].
pub fn image_events(image: &[u8], profile: Option<usize>) -> Result<Vec<PcrEvent>, UkiError> {
    let events = UnifiedImage::parse(image)?.events(profile)?;
    let what = |event: &SectionEvent<'_>| match event {
        SectionEvent::Name(name) => format!("name of section {name}"),
        SectionEvent::Contents(name, _) => format!("contents of section {name}"),
    };
    Ok(events.iter().map(|event| PcrEvent::new(11, Part::Section, what(event), event.sha256())).collect())
}

pub(crate) type Sections<'a> = Vec<(&'static str, Contents<'a>)>;

fn known_sections(image: &[u8], profile: Option<usize>) -> Result<Sections<'_>, PredictError> {
    let image = UnifiedImage::parse(image)?;
    if !KNOWN.contains(&image.stub_release()) {
        return Err(PredictError::StubRelease(image.stub_version().to_owned()));
    }
    let sections = image.taken(profile)?;
    match sections.iter().find(|(name, _)| !PLAIN.contains(name)) {
        Some((name, _)) => Err(PredictError::AddsToRamdisk(name)),
        None => Ok(sections),
    }
}

pub(crate) fn section<'a>(sections: &Sections<'a>, name: &str) -> Option<Contents<'a>> {
    sections.iter().find(|(found, _)| *found == name).map(|(_, contents)| *contents)
}

/// The command line as the kernel gets it, UTF-16LE with NUL. Stubs differ in what they make of control characters and
/// of space at the ends.
pub(crate) fn load_options(text: &[u8]) -> Result<Vec<u8>, KernelError> {
    let plain = text.iter().all(|byte| matches!(byte, b' '..=b'~')) && text.trim_ascii().len() == text.len();
    if !plain {
        return Err(KernelError::UnifiedCommandLine);
    }
    same_ramdisk(&String::from_utf8_lossy(text))?;
    Ok(text.iter().chain(&[0]).flat_map(|byte| [*byte, 0]).collect())
}
