//! What a firmware image contributes to an SNP launch, measured once; from it the digest of any shape of guest.
//!
//! It can be stored and read back: whoever has it can compute launch digests without the image.
//!
//! Not trusted: the image, and the stored form, which is checked like an image's own metadata. Never reads files.

use std::cell::LazyCell;
use std::collections::BTreeSet;
use std::num::{NonZeroU16, NonZeroU32};

use serde::{Deserialize, Serialize};

use super::launch::{Launch, PageType, VMSA_ADDRESS};
use super::{CpuSignature, DirectBoot, GuestFeatures, MeasureError, Vmm};
use crate::bytes::index;
use crate::digest::{Digest, sha384};
use crate::ovmf::{FOUR_GIB, Firmware, FirmwareError, HashTableArea, PAGE, SevSection, SevSectionKind};
use crate::vmsa;

/// Everything of a firmware image that launch digests are made of.
///
/// As TOML or JSON: `image_bytes`, `image_digest` (96 hexadecimal digits), `sections` (each `kind`, `address`, `size`),
/// and where the build has them `hash_table` (`address`, `size`) and `ap_reset_eip`; with an SVSM `svsm_eip` instead of
/// both. Unknown fields are refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Stored")]
pub struct FirmwareLaunch {
    pub(super) image_bytes: u32,
    pub(super) image_digest: Digest<48>,
    pub(super) sections: Vec<SevSection>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hash_table: Option<HashTableArea>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ap_reset_eip: Option<NonZeroU32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) svsm_eip: Option<u32>,
}

/// The stored form before it is checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    image_bytes: u32,
    image_digest: Digest<48>,
    sections: Vec<SevSection>,
    #[serde(default)]
    hash_table: Option<HashTableArea>,
    #[serde(default)]
    ap_reset_eip: Option<NonZeroU32>,
    #[serde(default)]
    svsm_eip: Option<u32>,
}

impl TryFrom<Stored> for FirmwareLaunch {
    type Error = FirmwareError;

    fn try_from(stored: Stored) -> Result<Self, FirmwareError> {
        let Stored { image_bytes, image_digest, sections, hash_table, ap_reset_eip, svsm_eip } = stored;
        SevSection::check(image_bytes, &sections)?;
        let two_starts = svsm_eip.is_some() && (hash_table.is_some() || ap_reset_eip.is_some());
        if two_starts || hash_table.is_some_and(|area| area.address == 0) {
            return Err(FirmwareError::Metadata("SEV"));
        }
        Ok(Self { image_bytes, image_digest, sections, hash_table, ap_reset_eip, svsm_eip })
    }
}

impl FirmwareLaunch {
    /// Reads the metadata of a whole image, as given to QEMU as `-bios`, and hashes it.
    ///
    /// # Errors
    /// [`FirmwareError`]: nothing is hashed of an image that is not understood.
    pub fn measure(image: &[u8]) -> Result<Self, FirmwareError> {
        let firmware = Firmware::parse(image)?;
        let sections = firmware.sev_sections()?;
        let hash_table = firmware.hash_table_area()?;
        // QEMU starts no guest from a block that says zero, and from an image without one as little.
        let ap_reset_eip = firmware.ap_reset_eip()?.and_then(NonZeroU32::new);
        let image_bytes = u32::try_from(image.len()).map_err(|_| FirmwareError::Size(image.len()))?;
        let mut launch = Launch::begin();
        launch.contents(PageType::Normal, image, firmware.address());
        Ok(Self { image_bytes, image_digest: launch.digest(), sections, hash_table, ap_reset_eip, svsm_eip: None })
    }

    /// Bytes from the first page of what is measured here up to 4 GiB: of a firmware alone those of its image.
    #[must_use]
    pub const fn image_bytes(&self) -> u32 {
        self.image_bytes
    }

    /// The running launch digest after the pages of the image, before anything else.
    #[must_use]
    pub const fn image_digest(&self) -> &Digest<48> {
        &self.image_digest
    }

    /// Guest physical address of the first byte: the image ends at 4 GiB.
    #[must_use]
    pub fn address(&self) -> u64 {
        FOUR_GIB - u64::from(self.image_bytes)
    }

    /// The sections of the SEV metadata, in table order.
    #[must_use]
    pub fn sections(&self) -> &[SevSection] {
        &self.sections
    }

    /// Where this build looks for kernel hashes; none when it checks none.
    #[must_use]
    pub const fn hash_table_area(&self) -> Option<HashTableArea> {
        self.hash_table
    }

    /// Where all vCPUs but the first start; none when this build does not say, so that nothing starts from it, and with an
    /// SVSM.
    #[must_use]
    pub const fn ap_reset_eip(&self) -> Option<NonZeroU32> {
        self.ap_reset_eip
    }

    /// Where all vCPUs start in an SVSM; none without one.
    #[must_use]
    pub const fn svsm_eip(&self) -> Option<u32> {
        self.svsm_eip
    }

    /// MEASUREMENT of a guest: `boot` the directly loaded kernel, or none; `vcpus` all vCPUs present at launch; `cpu`
    /// the signature of the CPU model; `features` SEV_FEATURES as the hypervisor sets them.
    ///
    /// # Errors
    /// Those of [`FirmwareLaunch::before_vcpus`].
    pub fn digest(
        &self,
        boot: Option<&DirectBoot>,
        vcpus: NonZeroU16,
        cpu: CpuSignature,
        features: GuestFeatures,
        vmm: Vmm,
    ) -> Result<Digest<48>, MeasureError> {
        Ok(self.before_vcpus(boot, vmm)?.digest(vcpus, cpu, features))
    }

    /// The launch up to its vCPUs: what guests share that differ in nothing else.
    ///
    /// # Errors
    /// [`MeasureError::NoKernelHashes`], [`MeasureError::MisplacedHashTable`], [`MeasureError::NoApReset`],
    /// [`MeasureError::SvsmVmm`].
    pub fn before_vcpus(&self, boot: Option<&DirectBoot>, vmm: Vmm) -> Result<BeforeVcpus, MeasureError> {
        if self.svsm_eip.is_some() && vmm != Vmm::Qemu {
            return Err(MeasureError::SvsmVmm(vmm));
        }
        let start = match (self.svsm_eip, self.ap_reset_eip) {
            (Some(eip), _) => Start::Svsm(eip),
            (None, Some(eip)) => Start::Firmware(eip),
            (None, None) => return Err(MeasureError::NoApReset),
        };
        let hashes = boot.map(|boot| boot.page(self)).transpose()?;
        let mut launch = Launch::after(*self.image_digest.as_bytes());
        for section in self.sections.iter().filter(|section| !vmm.adds_last(section.kind)) {
            match (section.kind, &hashes) {
                (SevSectionKind::KernelHashes, Some(page)) => {
                    launch.contents(PageType::Normal, page.as_ref(), section.address.into());
                }
                _ => launch.unmeasured(vmm.page_type(section.kind), section.address.into(), pages_of(section)),
            }
        }
        for section in self.sections.iter().filter(|section| vmm.adds_last(section.kind)) {
            launch.unmeasured(vmm.page_type(section.kind), section.address.into(), pages_of(section));
        }
        Ok(BeforeVcpus { launch, start, vmm })
    }
}

fn pages_of(section: &SevSection) -> usize {
    index(section.size).unwrap_or(0) / PAGE
}

impl Vmm {
    /// EC2 adds its CPUID page after all other sections.
    const fn adds_last(self, kind: SevSectionKind) -> bool {
        matches!((self, kind), (Self::Ec2, SevSectionKind::Cpuid))
    }

    /// How a section is added that no contents are given for.
    const fn page_type(self, kind: SevSectionKind) -> PageType {
        match (self, kind) {
            (Self::Gce, SevSectionKind::SecMem) => PageType::Unmeasured,
            (_, SevSectionKind::SecMem | SevSectionKind::SvsmCaa | SevSectionKind::KernelHashes) => PageType::Zero,
            (_, SevSectionKind::Secrets) => PageType::Secrets,
            (_, SevSectionKind::Cpuid) => PageType::Cpuid,
        }
    }
}

/// Where vCPUs begin to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    /// The first at the reset vector, all others here.
    Firmware(NonZeroU32),
    /// All of them here, in an SVSM.
    Svsm(u32),
}

/// A launch to which everything but the vCPUs has been added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BeforeVcpus {
    launch: Launch,
    start: Start,
    vmm: Vmm,
}

impl BeforeVcpus {
    /// MEASUREMENT with this many vCPUs of this kind.
    #[must_use]
    pub fn digest(&self, vcpus: NonZeroU16, cpu: CpuSignature, features: GuestFeatures) -> Digest<48> {
        let (mut launch, others) = self.first(cpu, features);
        (1..vcpus.get()).for_each(|_| launch.measured(PageType::Vmsa, &others, VMSA_ADDRESS));
        launch.digest()
    }

    /// MEASUREMENT for each of these counts, in one run over them.
    pub fn digests<'a>(
        &self,
        counts: &'a BTreeSet<NonZeroU16>,
        cpu: CpuSignature,
        features: GuestFeatures,
    ) -> impl Iterator<Item = (NonZeroU16, Digest<48>)> + use<'a> {
        let all = (1..=u16::MAX).filter_map(NonZeroU16::new).zip(self.each_count(cpu, features));
        let last = counts.last().copied();
        all.take_while(move |(count, _)| Some(*count) <= last).filter(|(count, _)| counts.contains(count))
    }

    /// MEASUREMENT with 1, 2, 3 … vCPUs, each one hash more than the one before: endless.
    pub fn each_count(&self, cpu: CpuSignature, features: GuestFeatures) -> impl Iterator<Item = Digest<48>> + use<> {
        let (launch, others) = self.first(cpu, features);
        std::iter::successors(Some(launch), move |launch| {
            let mut next = *launch;
            next.measured(PageType::Vmsa, &others, VMSA_ADDRESS);
            Some(next)
        })
        .map(|launch| launch.digest())
    }

    /// The launch after the first vCPU, and the digest of the registers of each other one: they start from equal pages,
    /// hashed once, and only if there are any.
    fn first(
        &self,
        cpu: CpuSignature,
        features: GuestFeatures,
    ) -> (Launch, LazyCell<Digest<48>, impl FnOnce() -> Digest<48> + use<>>) {
        let (cpu, features) = (cpu.raw(), features.raw());
        let (first, others) = match self.start {
            Start::Firmware(eip) => {
                let first = vmsa::page(self.vmm, vmsa::RESET_EIP, cpu, features);
                (first, vmsa::page(self.vmm, eip.get(), cpu, features))
            }
            Start::Svsm(eip) => {
                let page = vmsa::svsm_page(eip, cpu, features);
                (page.clone(), page)
            }
        };
        let mut launch = self.launch;
        launch.contents(PageType::Vmsa, first.as_ref(), VMSA_ADDRESS);
        (launch, LazyCell::new(move || sha384(others.as_ref())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ovmf::sample::Sample;

    fn sample() -> FirmwareLaunch {
        FirmwareLaunch::measure(&Sample::default().build()).unwrap()
    }

    #[test]
    fn what_is_stored_gives_the_same_digests() {
        let firmware = sample();
        let json = serde_json::to_string(&firmware).unwrap();
        assert_eq!(serde_json::from_str::<FirmwareLaunch>(&json).unwrap(), firmware);
        let toml = toml::to_string(&firmware).unwrap();
        assert_eq!(toml::from_str::<FirmwareLaunch>(&toml).unwrap(), firmware);
        assert!(toml.contains("kind = \"kernel-hashes\""), "{toml}");
        let bare = Sample { hash_table: [0, 0], ap_reset: Some(0), ..Sample::default() }.build();
        let bare = FirmwareLaunch::measure(&bare).unwrap();
        assert_eq!((bare.hash_table_area(), bare.ap_reset_eip()), (None, None), "zero is none");
        let json = serde_json::to_string(&bare).unwrap();
        assert_eq!(serde_json::from_str::<FirmwareLaunch>(&json).unwrap(), bare);
    }

    /// What is stored is held to the rules for images.
    #[test]
    fn a_spoiled_stored_form_is_refused() {
        let good = serde_json::to_value(sample()).unwrap();
        let spoil = |pointer: &str, value: serde_json::Value| {
            let mut json = good.clone();
            match json.pointer_mut(pointer) {
                Some(found) => *found = value,
                None => json[&pointer[1..]] = value,
            }
            serde_json::from_value::<FirmwareLaunch>(json).unwrap_err().to_string()
        };
        let hash_table = serde_json::json!({"address": 0, "size": 0x400});
        let other = serde_json::json!({"kind": "secrets", "address": 0x80_d000, "size": 0x1000, "note": "x"});
        let many = serde_json::json!(vec![good["sections"][1].clone(); 65]);
        for (pointer, value, expected) in [
            ("/image_bytes", 0.into(), "0 bytes"),
            ("/image_bytes", 4097.into(), "4097 bytes"),
            ("/image_bytes", u32::MAX.into(), "4294967295 bytes"),
            ("/image_bytes", (1u64 << 32).into(), "u32"),
            ("/image_digest", "00".into(), "96 hexadecimal"),
            ("/sections/0/kind", "sec_mem".into(), "unknown variant"),
            ("/sections/0/address", 1.into(), "absurd"),
            ("/sections/0/size", 0x4000_1000.into(), "absurd"),
            ("/sections/1/size", 0x2000.into(), "absurd"),
            ("/sections/1/address", 0x80_0000.into(), "overlap"),
            ("/sections/1/address", 0xffff_f000u32.into(), "overlap"),
            ("/sections/1", other, "unknown field"),
            ("/sections", many, "malformed"),
            ("/hash_table", hash_table, "malformed"),
            ("/ap_reset_eip", 0.into(), "nonzero"),
            ("/svsm_eip", 1.into(), "malformed"),
        ] {
            let error = spoil(pointer, value);
            assert!(error.contains(expected), "{pointer}: {error}");
        }
        let mut json = good.clone();
        json["note"] = "x".into();
        assert!(serde_json::from_value::<FirmwareLaunch>(json).unwrap_err().to_string().contains("unknown field"));
    }

    #[test]
    fn counts_go_on_from_each_other() {
        let before = sample().before_vcpus(None, Vmm::Qemu).unwrap();
        let (cpu, features) = (CpuSignature::EPYC_V4, GuestFeatures::SNP);
        for (vcpus, digest) in (1..=64).zip(before.each_count(cpu, features)) {
            assert_eq!(before.digest(NonZeroU16::new(vcpus).unwrap(), cpu, features), digest, "{vcpus}");
        }
        let alone = Sample { ap_reset: None, ..Sample::default() }.build();
        let alone = FirmwareLaunch::measure(&alone).unwrap();
        assert_eq!(alone.before_vcpus(None, Vmm::Qemu), Err(MeasureError::NoApReset));
        let json = serde_json::to_string(&alone).unwrap();
        let alone: FirmwareLaunch = serde_json::from_str(&json).unwrap();
        assert_eq!(alone.before_vcpus(None, Vmm::Qemu), Err(MeasureError::NoApReset), "nor from what is stored");
    }

    #[test]
    fn hypervisors_differ() {
        let firmware = sample();
        let digest = |vmm, cpu: &str| {
            firmware.digest(None, NonZeroU16::MIN, cpu.parse().unwrap(), GuestFeatures::SNP, vmm).unwrap()
        };
        let all = [Vmm::Qemu, Vmm::Ec2, Vmm::Gce].map(|vmm| digest(vmm, "EPYC-Milan"));
        assert!(all[0] != all[1] && all[1] != all[2] && all[0] != all[2]);
        assert_eq!(all[1], digest(Vmm::Ec2, "EPYC-Genoa"), "EC2 does not hand over a signature");
        assert_eq!(all[2], digest(Vmm::Gce, "EPYC-Genoa"), "nor does GCE");
    }
}
