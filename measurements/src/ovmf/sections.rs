//! The launch metadata of an OVMF image: which guest memory a hypervisor prepares, and how.
//!
//! Sources: edk2 OvmfPkg/ResetVector/X64 (`OvmfSevMetadata.asm`, `IntelTdxMetadata.asm`), Intel TDX Virtual Firmware
//! Design Guide section 11. A descriptor {signature, u32 length, u32 version 1, u32 count} is followed by its sections.
//!
//! Not trusted: every number; overlapping, absurd and unknown sections are refused, because a hypervisor might read
//! them in another way than this program. Never done here: hashing.

use serde::{Deserialize, Serialize};

use super::{FOUR_GIB, Firmware, FirmwareError, MAX_FIRMWARE_BYTES, PAGE, guid};
use crate::bytes::{array_at, index, slice_at, u32_at, u64_at};

/// More sections than any build has (OVMF 5 to 7, with SVSM 8).
const MAX_SECTIONS: u32 = 64;
/// Most guest memory that metadata may name in all: bounds the page loops of the digests built on it.
const MAX_SECTION_BYTES: u64 = 1 << 30;

const SEV: &str = "SEV";

pub(super) const SEV_METADATA: [u8; 16] = guid(0xdc88_6566, 0x984a, 0x4798, 0xa75e_5585_a7bf_67cc);
pub(super) const TDX_METADATA: [u8; 16] = guid(0xe47a_6535, 0x984a, 0x4798, 0x865e_4685_a7bf_8ec2);
pub(super) const TDVF_DESCRIPTOR: [u8; 16] = guid(0xe9ea_f9f3, 0x168e, 0x44d5, 0xa8eb_7f4d_8738_f6ae);

/// What a hypervisor does with a section of the SEV metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SevSectionKind {
    /// Early memory, zero pages.
    SecMem,
    /// The page that the firmware of the security processor fills with secrets.
    Secrets,
    /// The page of CPUID values.
    Cpuid,
    /// Calling area of an SVSM, zero pages.
    SvsmCaa,
    /// The page that receives the kernel hashes.
    KernelHashes,
}

/// A section of the SEV metadata; address and size are multiples of [`PAGE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SevSection {
    /// What is put there.
    pub kind: SevSectionKind,
    /// Guest physical address.
    pub address: u32,
    /// Bytes.
    pub size: u32,
}

impl SevSection {
    /// Holds sections that were stored apart from their image of `image_bytes` to the rules for metadata in an image.
    pub(crate) fn check(image_bytes: u32, sections: &[Self]) -> Result<(), FirmwareError> {
        let bytes = index(image_bytes).unwrap_or(usize::MAX);
        if bytes == 0 || bytes > MAX_FIRMWARE_BYTES || !bytes.is_multiple_of(PAGE) {
            return Err(FirmwareError::Size(bytes));
        }
        if u32::try_from(sections.len()).map_or(true, |count| count > MAX_SECTIONS) {
            return Err(FirmwareError::Metadata(SEV));
        }
        let mut claims = Claims::below(FOUR_GIB - u64::from(image_bytes));
        for (number, section) in sections.iter().enumerate() {
            claims.sev(number, section)?;
        }
        claims.check_overlaps()
    }
}

/// A section of the TDVF metadata (Intel TDX Virtual Firmware Design Guide, section 11).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TdvfSection<'a> {
    /// Contents from the image; memory beyond them is zero.
    pub data: &'a [u8],
    /// Guest physical address, a multiple of [`PAGE`].
    pub address: u64,
    /// Bytes of guest memory, a multiple of [`PAGE`].
    pub size: u64,
    /// 0 BFV, 1 CFV, 2 TD HOB, 3 temporary memory, 4 permanent memory, 5 payload, 6 its parameters, 7 TD info, 8 TD parameters.
    pub kind: u32,
    /// Bit 0: contents are measured (MR.EXTEND). Bit 1: pages are added after launch (PAGE.AUG).
    pub attributes: u32,
}

impl<'a> Firmware<'a> {
    /// The sections of the SEV metadata, in table order.
    ///
    /// # Errors
    /// [`FirmwareError`]: none there, malformed, absurd, overlapping, or of an unknown type.
    pub fn sev_sections(&self) -> Result<Vec<SevSection>, FirmwareError> {
        let malformed = FirmwareError::Metadata(SEV);
        let entry = self.entry(&SEV_METADATA).ok_or(FirmwareError::NoMetadata(SEV))?;
        let (start, count) = self.metadata(entry, SEV, *b"ASEV", 12)?;
        let mut sections = Vec::new();
        let mut claims = Claims::below(self.address());
        for number in 0..count {
            let at = start + 16 + number * 12;
            let (Some(address), Some(size), Some(kind)) =
                (u32_at(self.image, at), u32_at(self.image, at + 4), u32_at(self.image, at + 8))
            else {
                return Err(malformed);
            };
            let kind = match kind {
                1 => SevSectionKind::SecMem,
                2 => SevSectionKind::Secrets,
                3 => SevSectionKind::Cpuid,
                4 => SevSectionKind::SvsmCaa,
                0x10 => SevSectionKind::KernelHashes,
                kind => return Err(FirmwareError::UnknownSection { platform: SEV, kind }),
            };
            if (address, size) == (0, 0) {
                // Builds keep an unused slot so; no hypervisor puts a page there.
                continue;
            }
            let section = SevSection { kind, address, size };
            claims.sev(number, &section)?;
            sections.push(section);
        }
        claims.check_overlaps()?;
        Ok(sections)
    }

    /// The sections of the TDVF metadata, in table order.
    ///
    /// # Errors
    /// [`FirmwareError`]: none there, malformed, absurd, overlapping, of an unknown type, or reaching outside the image.
    pub fn tdvf_sections(&self) -> Result<Vec<TdvfSection<'a>>, FirmwareError> {
        const TDVF: &str = "TDVF";
        let entry = self.entry(&TDX_METADATA).ok_or(FirmwareError::NoMetadata(TDVF))?;
        let (start, count) = self.metadata(entry, TDVF, *b"TDVF", 32)?;
        let before = start.checked_sub(16).and_then(|at| array_at::<16>(self.image, at));
        if before != Some(TDVF_DESCRIPTOR) {
            return Err(FirmwareError::Metadata(TDVF));
        }
        let mut sections = Vec::new();
        let mut claims = Claims { platform: TDVF, ranges: Vec::new(), total: 0 };
        for number in 0..count {
            let section = self.tdvf_section(start + 16 + number * 32, number)?;
            claims.claim(number, section.address, section.size)?;
            sections.push(section);
        }
        claims.check_overlaps()?;
        Ok(sections)
    }

    fn tdvf_section(&self, at: usize, number: usize) -> Result<TdvfSection<'a>, FirmwareError> {
        let malformed = || FirmwareError::Metadata("TDVF");
        let word = |offset| u32_at(self.image, at + offset).ok_or_else(malformed);
        let long = |offset| u64_at(self.image, at + offset).ok_or_else(malformed);
        let (address, size, kind, attributes) = (long(8)?, long(16)?, word(24)?, word(28)?);
        if kind > 8 {
            return Err(FirmwareError::UnknownSection { platform: "TDVF", kind });
        }
        // Both bits together contradict each other: what is added after launch cannot be in a launch measurement.
        if attributes > 0b10 {
            return Err(FirmwareError::UnknownAttributes { number, attributes });
        }
        let (offset, length) = (index(word(0)?), index(word(4)?));
        let data = offset.zip(length).and_then(|(offset, length)| slice_at(self.image, offset, length));
        let data = data.filter(|data| data.len() as u64 <= size).ok_or(FirmwareError::SectionData(number))?;
        Ok(TdvfSection { data, address, size, kind, attributes })
    }

    /// Offset of a metadata header {signature, length, version 1, count} and the checked number of its sections.
    fn metadata(
        &self,
        entry: &[u8],
        platform: &'static str,
        signature: [u8; 4],
        section: usize,
    ) -> Result<(usize, usize), FirmwareError> {
        let distance = u32_at(entry, 0).and_then(index).ok_or(FirmwareError::ShortEntry(platform))?;
        let malformed = FirmwareError::Metadata(platform);
        let header = |start| -> Option<([u8; 4], usize, u32, u32)> {
            Some((
                array_at(self.image, start)?,
                index(u32_at(self.image, start + 4)?)?,
                u32_at(self.image, start + 8)?,
                u32_at(self.image, start + 12)?,
            ))
        };
        let start = self.image.len().checked_sub(distance).ok_or_else(|| malformed.clone())?;
        let (found, length, version, count) = header(start).ok_or_else(|| malformed.clone())?;
        if found != signature || version != 1 || count > MAX_SECTIONS {
            return Err(malformed);
        }
        let count = index(count).ok_or_else(|| malformed.clone())?;
        // Lengths that do not agree with the count would be read differently by different hypervisors.
        if length != 16 + count * section || slice_at(self.image, start, length).is_none() {
            return Err(malformed);
        }
        Ok((start, count))
    }
}

/// Memory claimed so far, to find overlaps and sums that make no sense.
struct Claims {
    platform: &'static str,
    ranges: Vec<(u64, u64)>,
    total: u64,
}

impl Claims {
    /// Begins with the image itself at `address`, which SEV metadata must not touch.
    fn below(address: u64) -> Self {
        Self { platform: SEV, ranges: vec![(address, FOUR_GIB)], total: 0 }
    }

    fn sev(&mut self, number: usize, section: &SevSection) -> Result<(), FirmwareError> {
        let (address, size) = (section.address.into(), section.size.into());
        self.claim(number, address, size)?;
        let one_page = !matches!(section.kind, SevSectionKind::SecMem | SevSectionKind::SvsmCaa);
        if one_page && index(section.size) != Some(PAGE) {
            return Err(FirmwareError::AbsurdSection { platform: SEV, number, address, size });
        }
        Ok(())
    }

    fn claim(&mut self, number: usize, address: u64, size: u64) -> Result<(), FirmwareError> {
        let absurd = FirmwareError::AbsurdSection { platform: self.platform, number, address, size };
        self.total = self.total.saturating_add(size);
        let page = PAGE as u64;
        let aligned = address.is_multiple_of(page) && size.is_multiple_of(page);
        match address.checked_add(size) {
            Some(end) if aligned && size > 0 && end <= FOUR_GIB && self.total <= MAX_SECTION_BYTES => {
                self.ranges.push((address, end));
                Ok(())
            }
            _ => Err(absurd),
        }
    }

    fn check_overlaps(mut self) -> Result<(), FirmwareError> {
        self.ranges.sort_unstable();
        match self.ranges.array_windows().find(|[(_, end), (start, _)]| start < end) {
            Some([_, (address, _)]) => Err(FirmwareError::Overlap { platform: self.platform, address: *address }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::Sample;
    use super::*;

    fn sev(sections: &[[u32; 3]]) -> Result<Vec<SevSection>, FirmwareError> {
        let image = Sample { sev: sections.to_vec(), ..Sample::default() }.build();
        Firmware::parse(&image).unwrap().sev_sections()
    }

    fn tdvf(section: [u64; 6]) -> Result<(), FirmwareError> {
        let image = Sample { tdvf: vec![section], ..Sample::default() }.build();
        Firmware::parse(&image).unwrap().tdvf_sections().map(|_| ())
    }

    fn absurd<T>(result: &Result<T, FirmwareError>) -> bool {
        matches!(result, Err(FirmwareError::AbsurdSection { .. }))
    }

    #[test]
    fn sound_sections_are_read_in_order_and_unused_slots_left_out() {
        let image = Sample::default().build();
        let sections = Firmware::parse(&image).unwrap().sev_sections().unwrap();
        let kinds: Vec<_> = sections.iter().map(|section| section.kind).collect();
        use SevSectionKind::{Cpuid, KernelHashes, SecMem, Secrets, SvsmCaa};
        assert_eq!(kinds, [SecMem, Secrets, Cpuid, SvsmCaa, KernelHashes]);
        assert_eq!((sections[0].address, sections[0].size), (0x80_0000, 0x9000));
        let tdvf = Firmware::parse(&image).unwrap().tdvf_sections().unwrap();
        assert_eq!((tdvf[0].data, tdvf[0].address, tdvf[0].attributes), (&image[..0x1800], 0xffff_e000, 1));
    }

    #[test]
    fn absurd_sev_sections_are_refused() {
        assert!(absurd(&sev(&[[0x80_0000, 0, 1]])), "empty");
        assert!(absurd(&sev(&[[0x80_0001, 0x1000, 1]])), "unaligned address");
        assert!(absurd(&sev(&[[0x80_0000, 0xfff, 1]])), "unaligned size");
        assert!(absurd(&sev(&[[0xffff_f000, 0x2000, 1]])), "beyond 4 GiB");
        assert!(absurd(&sev(&[[0, 0x4000_1000, 1]])), "more memory than any metadata names");
        assert!(absurd(&sev(&[[0x80_0000, 0x2000, 2]])), "two pages of secrets");
        assert!(absurd(&sev(&[[0x80_0000, 0x2000, 0x10]])), "two pages of kernel hashes");
        let overlap = FirmwareError::Overlap { platform: "SEV", address: 0x80_1000 };
        assert_eq!(sev(&[[0x80_1000, 0x1000, 2], [0x80_0000, 0x2000, 1]]), Err(overlap));
        let image = FirmwareError::Overlap { platform: "SEV", address: 0xffff_e000 };
        assert_eq!(sev(&[[0xffff_d000, 0x2000, 1]]), Err(image), "over the image itself");
        let unknown = FirmwareError::UnknownSection { platform: "SEV", kind: 5 };
        assert_eq!(sev(&[[0x80_0000, 0x1000, 5]]), Err(unknown));
    }

    #[test]
    fn absurd_tdvf_sections_are_refused() {
        assert_eq!(tdvf([0, 0x1000, 0x80_0000, 0x1000, 0, 1]), Ok(()));
        assert_eq!(tdvf([0x1001, 0x1000, 0x80_0000, 0x1000, 0, 1]), Err(FirmwareError::SectionData(0)), "outside");
        assert_eq!(tdvf([0, 0x1001, 0x80_0000, 0x1000, 0, 1]), Err(FirmwareError::SectionData(0)), "raw over memory");
        assert!(absurd(&tdvf([0, 0, 0x80_0800, 0x1000, 0, 1])));
        assert!(absurd(&tdvf([0, 0, u64::MAX - 0xfff, 0x1000, 0, 1])), "address overflow");
        assert!(absurd(&tdvf([0, 0, 0, u64::MAX - 0xfff, 3, 0])));
        let kind = FirmwareError::UnknownSection { platform: "TDVF", kind: 9 };
        assert_eq!(tdvf([0, 0, 0x80_0000, 0x1000, 9, 0]), Err(kind));
        for attributes in [3, 4] {
            let refused = FirmwareError::UnknownAttributes { number: 0, attributes };
            assert_eq!(tdvf([0, 0, 0x80_0000, 0x1000, 3, attributes.into()]), Err(refused));
        }
    }

    #[test]
    fn a_spoiled_descriptor_is_refused() {
        let good = Sample::default().build();
        let end = good.len();
        // Signature, length, version and count of each descriptor, each at its distance from the end.
        for (platform, distance) in [("SEV", 0x400), ("TDVF", 0x800)] {
            for field in [0, 4, 8, 12] {
                let mut image = good.clone();
                image[end - distance + field] ^= 0x80;
                let firmware = Firmware::parse(&image).unwrap();
                let (sev, tdvf) = (firmware.sev_sections().map(|_| ()), firmware.tdvf_sections().map(|_| ()));
                let (spoiled, other) = if platform == "SEV" { (sev, tdvf) } else { (tdvf, sev) };
                assert_eq!(spoiled, Err(FirmwareError::Metadata(platform)), "{field}");
                assert_eq!(other, Ok(()));
            }
        }
        let mut image = good.clone();
        image[end - 0x801] ^= 1;
        assert_eq!(
            Firmware::parse(&image).unwrap().tdvf_sections().unwrap_err(),
            FirmwareError::Metadata("TDVF"),
            "the GUID before the descriptor"
        );
    }
}
