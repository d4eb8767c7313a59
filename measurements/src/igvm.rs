//! IGVM files (Independent Guest Virtual Machine): a whole guest as a list of directives for its loader, and the launch
//! digests that follow from them.
//!
//! Sources: the format's definition in the crate `igvm_defs` 0.5 (fixed header versions 1 and 2, variable headers), AMD
//! SEV-SNP Firmware ABI 8.17, Intel TDX Module ABI, QEMU `backends/igvm.c` and KVM `snp_launch_update_vmsa`.
//!
//! A digest stands for a launch in which the loader does what the file says, as [`Loader`] knows loaders. No digest here
//! has been compared with hardware: the judges are Microsoft's `igvm` crate and the loaders' sources.
//!
//! Not trusted: the file. Every header is understood, or marked as one that a loader may skip, or refused by name; every
//! length is bounded, no page is loaded twice. Never done here: choosing a policy, checking an ID block's signatures.

mod areas;
mod directives;
mod error;
mod headers;
#[cfg(test)]
mod sample;
mod snp;
mod tdx;

use directives::Directive;
pub use error::IgvmError;
pub use snp::SnpLaunch;

use crate::digest::Digest;
use crate::ovmf::PAGE;

/// Most bytes of a file.
pub const MAX_FILE_BYTES: usize = 1 << 30;
/// Most bytes of its variable headers: those of twice as many pages as may be loaded.
pub const MAX_HEADER_BYTES: usize = 16 << 20;
/// Most bytes of pages that one platform may have loaded, parameters among them: neither needs to cost the file anything
/// but a header.
pub const MAX_LOADED_BYTES: u64 = 1 << 30;

/// Who loads the file; loaders differ in when they add which page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loader {
    /// As the format prescribes: every directive in its place, a page without data as a normal page of zeros. OpenVMM,
    /// and what `igvmmeasure` computes unless told otherwise.
    Format,
    /// QEMU with KVM, one vCPU. A run of pages is added when the next run begins, hence after parameters between the
    /// two; the registers are measured when the launch ends, at an address of KVM's. With more vCPUs KVM measures a page
    /// for each, whose contents the file does not say.
    Qemu,
}

/// A platform that a file may be for (IgvmPlatformType).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Platform {
    /// AMD SEV-SNP.
    Snp,
    /// Intel TDX.
    Tdx,
}

impl Platform {
    const fn number(self) -> u8 {
        match self {
            Self::Snp => 2,
            Self::Tdx => 3,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Snp => "SEV-SNP",
            Self::Tdx => "TDX",
        }
    }
}

/// Which platform a bit of the compatibility masks stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SupportedPlatform {
    mask: u32,
    number: u8,
    version: u16,
}

/// A parsed file.
#[derive(Debug)]
pub struct Igvm<'a> {
    file: &'a [u8],
    data_start: usize,
    platforms: Vec<SupportedPlatform>,
    /// Headers of initialization and directives for all platforms, in the order of the file.
    directives: Vec<Directive<'a>>,
}

impl<'a> Igvm<'a> {
    /// Parses a whole file.
    ///
    /// # Errors
    /// [`IgvmError`].
    pub fn parse(file: &'a [u8]) -> Result<Self, IgvmError> {
        let regions = headers::regions(file)?;
        let mut parsed = Self { file, data_start: regions.data_start, platforms: vec![], directives: vec![] };
        let mut section = headers::Section::Platform;
        for header in headers::all(regions.headers, regions.headers_start) {
            let header = header?;
            let Some(now) = header.section()? else { continue };
            if now < section {
                return Err(IgvmError::Order { at: header.at, kind: header.kind });
            }
            section = now;
            match section {
                headers::Section::Platform => parsed.platform(directives::platform(&header)?, header.at)?,
                _ => parsed.directive(directives::read(&header, file, regions.data_start)?)?,
            }
        }
        Ok(parsed)
    }

    fn platform(&mut self, platform: SupportedPlatform, at: usize) -> Result<(), IgvmError> {
        let taken = self.platforms.iter().any(|known| known.mask & platform.mask != 0);
        if platform.mask.count_ones() != 1 || taken {
            return Err(IgvmError::Mask { at, mask: platform.mask });
        }
        self.platforms.push(platform);
        Ok(())
    }

    /// The definition has a platform declared before anything refers to its bit: what another bit would mean is not said.
    fn directive(&mut self, directive: Directive<'a>) -> Result<(), IgvmError> {
        let declared = self.platforms.iter().fold(0, |all, known| all | known.mask);
        match directive.mask {
            Some(mask) if mask & !declared != 0 => Err(IgvmError::Undeclared { at: directive.at, mask }),
            _ => {
                self.directives.push(directive);
                Ok(())
            }
        }
    }

    /// The launch digest of an SEV-SNP guest, and what else the file says of it.
    ///
    /// # Errors
    /// [`IgvmError`]: no such platform in the file, a directive that the platform or the loader does not know, or an ID
    /// block for another launch digest.
    pub fn snp_launch(&self, loader: Loader) -> Result<SnpLaunch, IgvmError> {
        snp::launch(self, loader)
    }

    /// MRTD of a TD that is loaded as the format prescribes.
    ///
    /// # Errors
    /// As for [`Igvm::snp_launch`].
    pub fn mrtd(&self) -> Result<Digest<48>, IgvmError> {
        tdx::mrtd(self)
    }

    /// The bit of the compatibility masks that stands for a platform.
    fn mask(&self, platform: Platform) -> Result<u32, IgvmError> {
        let mut found = self.platforms.iter().filter(|known| known.number == platform.number());
        match (found.next(), found.next()) {
            (Some(SupportedPlatform { mask, version: 1, .. }), None) => Ok(*mask),
            (Some(SupportedPlatform { version: 1, .. }), Some(_)) => Err(IgvmError::TwoPlatforms(platform.name())),
            (Some(other), _) => Err(IgvmError::PlatformVersion { platform: platform.name(), version: other.version }),
            (None, _) => Err(IgvmError::NoPlatform {
                wanted: platform.name(),
                found: self.platforms.iter().map(|known| known.number).collect(),
            }),
        }
    }

    /// The page at a file offset, which is checked when the directive is read, or here for register pages.
    fn page_at(&self, at: usize, offset: u32) -> Result<&'a [u8; PAGE], IgvmError> {
        directives::data(self.file, self.data_start, offset)
            .and_then(<[u8]>::first_chunk)
            .ok_or(IgvmError::Data { at, offset })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::sample::{AARCH64, SNP, Sample, TDX, directive, page, platform};
    use super::*;

    fn fails(sample: Sample) -> String {
        let file = sample.build();
        let error = Igvm::parse(&file).and_then(|file| file.snp_launch(Loader::Format)).unwrap_err();
        error.to_string()
    }

    #[test]
    fn both_versions_of_the_fixed_header_give_one_digest() {
        let digest = |sample: Sample| {
            let file = sample.build();
            Igvm::parse(&file).unwrap().snp_launch(Loader::Format).unwrap().digest
        };
        let base = digest(Sample::snp());
        assert_eq!(digest(Sample { version: 2, ..Sample::snp() }), base);
        let mut later = Sample::snp();
        later.gap = 64;
        assert_eq!(digest(later), base, "headers that do not begin right behind the fixed one");
    }

    #[test]
    fn each_fault_of_the_fixed_header_is_named() {
        let whole = Sample::snp().build();
        let changed = |offset: usize, value: u32| {
            let mut file = whole.clone();
            file[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
            Igvm::parse(&file).unwrap_err().to_string()
        };
        for (error, named) in [
            (changed(0, 0), "not an IGVM file"),
            (changed(4, 3), "version 3"),
            (changed(8, 20), "variable headers"),
            (changed(8, 28), "variable headers"),
            (changed(12, u32::MAX - 7), "more than 16777216"),
            (changed(12, 0x100_0000), "do not lie in the file"),
            (changed(12, 12), "variable headers"),
            (changed(12, 0x100_0008), "more than 16777216"),
            (changed(16, 1), "says it has 1 bytes"),
            (changed(20, 0), "checksum"),
            (fails(Sample { version: 2, architecture: AARCH64, ..Sample::snp() }), "architecture 1"),
            (fails(Sample { version: 2, page_size: 65_536, ..Sample::snp() }), "65536"),
        ] {
            assert!(error.contains(named), "{named}: {error}");
        }
        assert!(Igvm::parse(b"").unwrap_err().to_string().contains("not an IGVM file"));
        for foreign in [&b"MZ\x90\0"[..], b"\x7fELF", &[0; 4096]] {
            assert!(Igvm::parse(foreign).unwrap_err().to_string().contains("not an IGVM file"));
        }
        for length in 0..whole.len() {
            assert!(Igvm::parse(&whole[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn each_fault_of_the_headers_is_named() {
        let with = |headers: Vec<Vec<u8>>| fails(Sample { headers, ..Sample::snp() });
        let snp = || platform(1, 2, 1);
        for (error, named) in [
            (with(vec![]), "no SEV-SNP platform"),
            (with(vec![platform(1, TDX, 1)]), "no SEV-SNP platform"),
            (with(vec![platform(3, SNP, 1)]), "0x3"),
            (with(vec![platform(0, SNP, 1)]), "0x0"),
            (with(vec![platform(1, SNP, 1), platform(1, TDX, 1)]), "0x1"),
            (with(vec![platform(1, SNP, 1), platform(2, SNP, 1)]), "more than one SEV-SNP"),
            (with(vec![platform(1, SNP, 2)]), "version 2"),
            (with(vec![snp()]), "no registers of a vCPU for SEV-SNP"),
            (with(vec![snp(), page(0x1000, 1, 0, 0, 0)]), "no registers of a vCPU for SEV-SNP"),
            (with(vec![snp(), page(0x1000, 2, 0, 0, 0)]), "mask 0x2, in which a bit stands for no platform"),
            (with(vec![snp(), page(0x1000, 3, 0, 0, 0)]), "mask 0x3, in which a bit stands for no platform"),
            (with(vec![snp(), page(0x1000, 1, 0, 0, 0), platform(2, TDX, 1)]), "type 0x1"),
            (with(vec![snp(), page(0x1000, 1, 0, 0, 0), directive(0x101, &[0; 16])]), "type 0x101"),
            (with(vec![snp(), directive(0x200, &[])]), "type 0x200"),
            (with(vec![snp(), directive(0x306, &[0; 16])]), "type 0x306"),
            (with(vec![snp(), directive(0x401, &[])]), "type 0x401"),
            (with(vec![snp(), directive(0x8000_0302, &[0; 24])]), "type 0x302"),
            (with(vec![snp(), directive(0x302, &[0; 16])]), "16 bytes"),
            (with(vec![snp(), [0x302u32, 0x1000].map(u32::to_le_bytes).concat()]), "end of the headers"),
            (with(vec![snp(), vec![2, 3, 0, 0]]), "variable headers"),
        ] {
            assert!(error.contains(named), "{named}: {error}");
        }
        let mut padded = directive(0x304, &[0; 20]);
        padded[28] = 1;
        assert!(with(vec![snp(), padded]).contains("padding"));
    }

    #[test]
    fn an_unknown_header_that_may_be_skipped_is_skipped() {
        let base = Sample::snp();
        let mut with = Sample::snp();
        with.headers.insert(1, directive(0x8000_0155, &[1, 2, 3]));
        let digest = |sample: Sample| {
            let file = sample.build();
            Igvm::parse(&file).unwrap().snp_launch(Loader::Format).unwrap().digest
        };
        assert_eq!(digest(with), digest(base));
    }

    proptest! {
        #[test]
        fn a_changed_file_never_panics(changes in proptest::collection::vec((0usize..0x300, any::<u8>()), 1..5)) {
            let mut sample = Sample::snp();
            sample.changes = changes;
            let file = sample.build();
            if let Ok(file) = Igvm::parse(&file) {
                let _ = (file.snp_launch(Loader::Format), file.snp_launch(Loader::Qemu), file.mrtd());
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = Igvm::parse(&bytes);
        }
    }
}
