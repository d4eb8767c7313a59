//! RTMR1 and RTMR2 for what QEMU's `-kernel` gets: a kernel, or a unified kernel image.
//!
//! Sources: UEFI 2.10 section 38.4.1 (PCR 4 goes to RTMR1; PCRs 8, 9 and 11 to RTMR2), edk2 `TdTcg2Dxe`, systemd
//! `src/boot/measure.c` and its history: systemd-stub measures its sections in a TD since release 256, and loads its
//! kernel through the firmware, which measures it, up to 257. The kernel inside measures command line and ramdisk (Linux
//! 6.9 and later). Names and order of section events agree with the log of a real TD; the whole of a unified boot was
//! compared with no hardware.
//!
//! From a disk, the image is loaded after the partition table is measured; boot variables then name the disk. Shim and
//! boot loaders measure more and are not predicted. Not trusted: all files. Never guesses what another release of the
//! stub does.

use thiserror::Error;

use super::rtmr::{Event, Log, Separators, log_stub_events, rtmr1_events, rtmr1_of, rtmr2_events};
use crate::digest::sha384;
use crate::linux::{KernelError, measures_in_td};
use crate::pe::{PeError, authenticode_sha384};
use crate::uefi::event_type;
use crate::uki::{SectionEvent, UkiError, UnifiedImage};
use crate::vtpm::Start;
use crate::vtpm::start::{PLAIN, Sections, load_options, section};

/// Releases that measure nothing into a TD, and the one that does, whose way to start a kernel is known.
const SILENT: [u32; 2] = [252, 254];
const MEASURING: u32 = 256;

/// Why RTMR1 and RTMR2 cannot be predicted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StartError {
    /// The kernel or the command line.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The unified kernel image.
    #[error(transparent)]
    Unified(#[from] UkiError),
    /// A release of the stub whose events in a TD are not known.
    #[error(
        "what systemd-stub {0} measures in a TD is not known: use a stub of release 252, 254 or 256, or take RTMR1 and \
         RTMR2 from the log of a trusted boot"
    )]
    StubRelease(String),
    /// A section that changes what the kernel inside is given.
    #[error("the image has a section {0}, from which the stub makes something for the kernel that is not predicted")]
    Section(&'static str),
}

impl From<PeError> for StartError {
    fn from(error: PeError) -> Self {
        Self::Kernel(error.into())
    }
}

/// RTMR1: what the firmware loads, and the hand-over.
///
/// # Errors
/// [`StartError`].
pub fn rtmr1_of_start(start: &Start<'_>, separators: Separators) -> Result<Vec<Event>, StartError> {
    let (image, profile) = match start {
        Start::Direct(kernel) => return Ok(rtmr1_events(kernel, separators)?),
        Start::Unified { image, profile } => (*image, *profile),
    };
    let (_, sections) = known(image, profile)?;
    let mut events = rtmr1_of(authenticode_sha384(image)?, "unified kernel image, Authenticode digest", separators);
    if let Some(kernel) = section(&sections, ".linux") {
        let mut inner = Log::new(2);
        let digest = authenticode_sha384(&kernel.bytes())?;
        inner.opaque(
            event_type::BOOT_SERVICES_APPLICATION,
            digest,
            &[],
            "kernel inside the image, Authenticode digest",
        );
        // Loaded by the stub, so before boot services end.
        let end = events.len().saturating_sub(2);
        events.splice(end..end, inner.events);
    }
    Ok(events)
}

/// RTMR1 when firmware finds the unified kernel image as the boot loader of a disk, without shim or another loader before
/// it. `gpt` as from [`super::gpt_event`].
///
/// # Errors
/// [`StartError`].
pub fn rtmr1_of_disk(
    image: &[u8],
    profile: Option<usize>,
    gpt: &[u8],
    separators: Separators,
) -> Result<Vec<Event>, StartError> {
    let start = Start::Unified { image, profile };
    let mut events = rtmr1_of_start(&start, separators)?;
    let mut table = Log::new(2);
    table.hashed(event_type::GPT, gpt.to_vec(), "partition table of the disk");
    // The boot option is called first, the phase ends, then its disk and its image are looked at.
    let image = events.remove(0);
    let at = if separators == Separators::Rtmr0AndRtmr1 { 2 } else { 1 };
    events.splice(at..at, table.events.into_iter().chain([image]));
    Ok(events)
}

/// RTMR2: what stub and kernel measure of what they are given.
///
/// # Errors
/// [`StartError`].
pub fn rtmr2_of_start(start: &Start<'_>) -> Result<Vec<Event>, StartError> {
    let (image, profile) = match start {
        Start::Direct(kernel) => return Ok(rtmr2_events(kernel)?),
        Start::Unified { image, profile } => (*image, *profile),
    };
    let (unified, sections) = known(image, profile)?;
    measures_in_td(&section(&sections, ".linux").map(|kernel| kernel.bytes()).unwrap_or_default())?;
    let mut log = Log::new(3);
    if unified.stub_release() == MEASURING {
        for event in unified.events(profile)? {
            let (name, what) = match &event {
                SectionEvent::Name(name) => (name, "name"),
                SectionEvent::Contents(name, _) => (name, "contents"),
            };
            let data: Vec<u8> = name.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
            log.opaque(event_type::IPL, event.sha384(), &data, &format!("{what} of section {name}"));
        }
    }
    let options = section(&sections, ".cmdline").map(|text| load_options(&text.bytes())).transpose()?;
    let initrd = section(&sections, ".initrd").map(|contents| contents.bytes()).unwrap_or_default();
    let initrd = (!initrd.is_empty()).then(|| sha384(&initrd));
    log_stub_events(&mut log, options.as_deref().map(sha384), initrd);
    Ok(log.events)
}

/// The image and its sections, of a release whose events are known.
fn known(image: &[u8], profile: Option<usize>) -> Result<(UnifiedImage<'_>, Sections<'_>), StartError> {
    let unified = UnifiedImage::parse(image)?;
    if !SILENT.contains(&unified.stub_release()) && unified.stub_release() != MEASURING {
        return Err(StartError::StubRelease(unified.stub_version().to_owned()));
    }
    let sections = unified.taken(profile)?;
    match sections.iter().find(|(name, _)| !PLAIN.contains(name)) {
        Some((name, _)) => Err(StartError::Section(name)),
        None => Ok((unified, sections)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::sample_kernel;
    use crate::uki::sample::{NAMES_252, image, stub};

    fn unified(version: &str, more: &[(&'static str, Vec<u8>)]) -> Vec<u8> {
        let mut sections = stub(version, NAMES_252);
        sections.extend([
            (".linux", sample_kernel()),
            (".cmdline", b"quiet".to_vec()),
            (".initrd", b"ramdisk".to_vec()),
        ]);
        sections.extend_from_slice(more);
        image(&sections)
    }

    fn registers(image: &[u8]) -> Result<(Vec<Event>, Vec<Event>), StartError> {
        let start = Start::Unified { image, profile: None };
        Ok((rtmr1_of_start(&start, Separators::Rtmr0AndRtmr1)?, rtmr2_of_start(&start)?))
    }

    #[test]
    fn a_measuring_stub_logs_its_sections_before_its_kernel_logs() {
        let image = unified("256.4", &[]);
        let (first, second) = registers(&image).unwrap();
        let inner = authenticode_sha384(&sample_kernel()).unwrap();
        let types: Vec<u32> = first.iter().map(|event| event.event_type).collect();
        assert_eq!(types, [0x8000_0003, 0x8000_0007, 4, 0x8000_0003, 0x8000_0007, 0x8000_0007]);
        assert_eq!((first[0].digest, first[3].digest), (authenticode_sha384(&image).unwrap(), inner));
        let digests: Vec<_> = second.iter().map(|event| event.digest).collect();
        let options: Vec<u8> = "quiet\0".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let expected = [
            sha384(b".linux\0"),
            sha384(&sample_kernel()),
            sha384(b".cmdline\0"),
            sha384(b"quiet"),
            sha384(b".initrd\0"),
            sha384(b"ramdisk"),
            sha384(&options),
            sha384(b"ramdisk"),
        ];
        assert_eq!(digests, expected);
        assert_eq!(second[0].data, b".\0l\0i\0n\0u\0x\0\0\0");
    }

    #[test]
    fn a_disk_is_measured_before_its_boot_loader() {
        let image = unified("252.39", &[]);
        let types = |separators| -> Vec<u32> {
            let events = rtmr1_of_disk(&image, None, b"table", separators).unwrap();
            assert!(events.iter().any(|event| event.digest == sha384(b"table")));
            events.iter().map(|event| event.event_type).collect()
        };
        let end = [0x8000_0006, 0x8000_0003, 0x8000_0003, 0x8000_0007, 0x8000_0007];
        assert_eq!(types(Separators::Rtmr0AndRtmr1), [&[0x8000_0007, 4][..], &end].concat());
        assert_eq!(types(Separators::Rtmr0Twice), [&[0x8000_0007][..], &end].concat());
    }

    #[test]
    fn an_earlier_stub_leaves_the_sections_to_the_digest_of_the_image() {
        let (first, second) = registers(&unified("252.39", &[])).unwrap();
        assert_eq!((first.len(), second.len()), (6, 2));
        let (changed, _) = registers(&unified("252.39", &[(".osrel", b"other".to_vec())])).unwrap();
        assert_ne!(changed[0].digest, first[0].digest);
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let mut old = sample_kernel();
        old[0x3a2] = b'8';
        let mut sections = stub("252.39", NAMES_252);
        sections.push((".linux", old));
        let unmeasured = KernelError::Unmeasured { major: 6, minor: 8 };
        assert_eq!(registers(&image(&sections)), Err(StartError::Kernel(unmeasured)));
        assert_eq!(registers(&unified("255.1", &[])), Err(StartError::StubRelease("255.1".to_owned())));
        assert_eq!(registers(&unified("256", &[(".pcrpkey", b"key".to_vec())])), Err(StartError::Section(".pcrpkey")));
        assert!(matches!(registers(&sample_kernel()), Err(StartError::Unified(_))));
    }
}
