//! Intel TDX: MRTD from a firmware image, and how run-time registers are extended.
//!
//! Sources: Intel TDX Module ABI (TDH.MEM.PAGE.ADD, TDH.MR.EXTEND), Intel TDX Virtual Firmware Design Guide section 11.
//! MRTD is one SHA-384 over a stream: a 128-byte block for each page that is added, and for each 256 bytes that are
//! measured a 128-byte block and the bytes.
//!
//! Not trusted: the firmware image. Never done here: reading a TD's registers.

mod acpi;
mod authority;
mod build;
mod disk;
mod hob;
mod machine;
mod predict;
mod recorded;
mod rtmr;
mod start;
mod store;

pub use acpi::{AcpiBlobs, AcpiError, MAX_ACPI_BYTES};
pub use build::{Build, BuildError};
pub use disk::{DiskError, gpt_event};
pub use hob::{HobError, td_hob};
pub use machine::{MachineError, MachineEvents, rtmr0_events};
pub use predict::{Machine, MachineConfigurationError};
pub use recorded::{MemoryMap, RecordedError};
pub use rtmr::{Event, Separators, cfv_digest, extend_register, rtmr1_events, rtmr2_events};

use ring::digest::Context;

use crate::digest::{Digest, finish, sha384, sha384_context};
use crate::ovmf::{Firmware, FirmwareError, PAGE, TdvfSection};

pub use start::{StartError, rtmr1_of_disk, rtmr1_of_start, rtmr2_of_start};
pub use store::{StoreError, Variable, secure_boot, variables};

pub use crate::uefi::{SecureBoot, SecureBootVariables};

const MEASURED: u32 = 1;
const ADDED_AFTER_LAUNCH: u32 = 2;
/// Bytes that one TDH.MR.EXTEND measures.
const CHUNK: usize = 256;

/// In which order a hypervisor adds and measures the pages of a section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// Each page is added and measured before the next: QEMU with the TDX support that Linux merged.
    Single,
    /// All pages of a section are added, then all are measured: the older QEMU 8 trees for TDX.
    TwoPass,
}

/// MRTD of a TD that is started from this image.
///
/// Which [`Pass`] applies is a property of the hypervisor; an authority that does not know it registers both.
///
/// # Errors
/// [`FirmwareError`]: no TDVF metadata, or metadata that cannot be measured.
pub fn mrtd(firmware: &[u8], pass: Pass) -> Result<Digest<48>, FirmwareError> {
    let firmware = Firmware::parse(firmware)?;
    let mut stream = Stream(sha384_context());
    for section in firmware.tdvf_sections()? {
        if section.attributes & ADDED_AFTER_LAUNCH != 0 {
            continue;
        }
        match pass {
            Pass::Single => pages(&section).for_each(|(offset, address)| {
                stream.add(address);
                stream.measure(&section, offset);
            }),
            Pass::TwoPass => {
                pages(&section).for_each(|(_, address)| stream.add(address));
                pages(&section).for_each(|(offset, _)| stream.measure(&section, offset));
            }
        }
    }
    Ok(finish(stream.0))
}

/// The register after one extend: SHA-384 over the old value and the event digest.
#[must_use]
pub fn extend(register: &Digest<48>, digest: &Digest<48>) -> Digest<48> {
    sha384(&[register.as_bytes().as_slice(), digest.as_bytes()].concat())
}

/// A register that starts at zero, after these digests.
#[must_use]
pub fn extend_all<'a>(digests: impl IntoIterator<Item = &'a Digest<48>>) -> Digest<48> {
    digests.into_iter().fold(Digest::from_bytes([0; 48]), |register, digest| extend(&register, digest))
}

/// Offsets inside the section and guest physical addresses of its pages. The number is bounded where sections are read.
fn pages(section: &TdvfSection<'_>) -> impl Iterator<Item = (usize, u64)> {
    let count = usize::try_from(section.size).unwrap_or(0) / PAGE;
    (0..count).map(|page| page * PAGE).zip((section.address..).step_by(PAGE))
}

/// The stream that MRTD is the hash of.
struct Stream(Context);

impl Stream {
    fn add(&mut self, address: u64) {
        self.0.update(&block(b"MEM.PAGE.ADD", address));
    }

    /// Measures one page, if the section is measured; memory past the section's data is zero.
    fn measure(&mut self, section: &TdvfSection<'_>, offset: usize) {
        if section.attributes & MEASURED == 0 {
            return;
        }
        for (at, address) in
            (offset..offset + PAGE).step_by(CHUNK).zip((section.address + offset as u64..).step_by(CHUNK))
        {
            let rest = section.data.get(at..).unwrap_or_default();
            let mut chunk = [0; CHUNK];
            let data = rest.get(..CHUNK).unwrap_or(rest);
            chunk[..data.len()].copy_from_slice(data);
            self.0.update(&block(b"MR.EXTEND", address));
            self.0.update(&chunk);
        }
    }
}

pub(crate) fn block(operation: &[u8], address: u64) -> [u8; 128] {
    let mut block = [0; 128];
    block[..operation.len()].copy_from_slice(operation);
    block[16..24].copy_from_slice(&address.to_le_bytes());
    block
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ovmf::sample::Sample;

    fn after(steps: impl FnOnce(&mut Stream)) -> String {
        let mut stream = Stream(sha384_context());
        steps(&mut stream);
        finish::<48>(stream.0).to_string()
    }

    fn section(data: &[u8]) -> TdvfSection<'_> {
        TdvfSection { data, address: 0xffc8_4000, size: 0x1000, kind: 0, attributes: MEASURED }
    }

    #[test]
    fn each_step_gives_the_published_value() {
        let add = |stream: &mut Stream| stream.add(0xffc8_4000);
        assert_eq!(
            after(add),
            "a022b7afb5c9b58429f61fb0cfee92c7a52d93d502de2c8ceb2cff8b7b0be6803923cf1e919de6b3d54bc92d14bf0b55"
        );
        let measure = |stream: &mut Stream| {
            stream.add(0xffc8_4000);
            stream.measure(&section(&[]), 0);
        };
        assert_eq!(
            after(measure),
            "f01ab4fba4dcfe2a0680dc33bc53941a7f16cf64c302d612e1fa361d59410367ee8ec14b9417a9aa106426d3753c9f77"
        );
        let second = |stream: &mut Stream| {
            measure(stream);
            stream.add(0x81_0000);
        };
        assert_eq!(
            after(second),
            "3189041be76d1426b506a29a101f57caf7ab82823d9b7f36658f4ad8c5c21561f2c1f1ec467d0d4c2b274a75f4ad1d54"
        );
    }

    #[test]
    fn memory_past_the_data_is_zero() {
        let mut zeros = vec![7; 0x180];
        let short = after(|stream| stream.measure(&section(&zeros), 0));
        zeros.resize(0x1000, 0);
        assert_eq!(after(|stream| stream.measure(&section(&zeros), 0)), short);
    }

    #[test]
    fn order_and_attributes_matter() {
        let sample = |tdvf: Vec<[u64; 6]>| Sample { tdvf, ..Sample::default() }.build();
        let measured = vec![[0, 0x1800, 0xffff_e000, 0x2000, 0, 1], [0, 0, 0x80_0000, 0x2000, 3, 0]];
        let image = sample(measured.clone());
        let base = mrtd(&image, Pass::Single).unwrap();
        assert_ne!(mrtd(&image, Pass::TwoPass).unwrap(), base);
        let unmeasured = sample(vec![[0, 0x1800, 0xffff_e000, 0x2000, 0, 0], measured[1]]);
        assert_eq!(mrtd(&unmeasured, Pass::Single), mrtd(&unmeasured, Pass::TwoPass), "nothing to order");
        let late = sample(vec![measured[0], [0, 0, 0x80_0000, 0x2000, 4, 2]]);
        let absent = sample(vec![measured[0]]);
        let data = |image: &[u8]| -> Vec<u8> { image[..0x1800].to_vec() };
        assert_eq!(data(&late), data(&absent), "the measured bytes are equal");
        assert_eq!(mrtd(&late, Pass::Single), mrtd(&absent, Pass::Single), "added after launch: not in MRTD");
    }

    #[test]
    fn an_extend_gives_the_published_value() {
        assert_eq!(
            extend_all([&sha384(b"hello")]).to_string(),
            "1d9b87caf048435fc39a4a0a8e4e864af9c9a584b3a3b436193bb8b60125698089f57479f370637f16fcce8a1852d1bc"
        );
    }
}
