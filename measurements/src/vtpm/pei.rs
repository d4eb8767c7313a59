//! The PEI volume as it is in memory when OVMF measures it, for builds whose description of the machine is known.
//!
//! Source: edk2 `OvmfPkg/PlatformPei` and `PlatformInitLib` (EFI_HOB_PLATFORM_INFO, a variable inside the volume, which runs
//! in place and is writable); where it lies and what it holds was read out of the memory of running machines. It is the same
//! only for one build, so builds are named by digest: Debian 12's `OVMF_CODE_4M.fd` of ovmf 2022.11-6+deb12u2.
//!
//! Compared with logs of QEMU 10.0 on q35 with smm=off and CPUs of 40 physical address bits (the default under emulation), and
//! computed for these shapes alone: 512, 1024, 2048, 2816, 3072 and 8192 MiB; one, two, four and eight vCPUs. Nothing here
//! can see another machine type, smm=on or another address width (KVM with `-cpu host`), which change the volume: whoever
//! asks has to know that the machine is such a one, or record it.
//!
//! Not trusted: the image, beyond what its digest says. Never guesses for another build.

use std::num::NonZeroU16;

use thiserror::Error;

use crate::digest::{Digest, sha256};
use crate::volume::{VolumeError, pei_volume};

/// SHA-256 of the build that is known.
const DEBIAN_12: &str = "b157d97b1f69729514feb7f201d2cbe4957f23ab77920e361fe9f822ba49ca4c";
/// Memory sizes, in MiB, and numbers of vCPUs that were compared.
const MEMORY_MIB: [u32; 6] = [512, 1024, 2048, 2816, 3072, 8192];
const VCPU_COUNTS: [u16; 4] = [1, 2, 4, 8];
/// The q35 machine keeps memory below 4 GiB whole up to the first, and gives it the second from there on.
const WHOLE_LIMIT_MIB: u32 = 0xb00;
const SPLIT_MIB: u32 = 0x800;

/// What this build writes on every such machine, zero in the file: host bridge q35, address widths, PCI windows, flags.
const SAME: [(usize, &[u8]); 9] = [
    (0xe0d8, &[0xc0, 0x29]),
    (0xe0e7, &[1]),
    (0xe0f0, &[0x10, 0, 0, 0, 0x28, 0, 0, 0, 0x80]),
    (0xe10a, &[0xe0]),
    (0xe112, &[0x20]),
    (0xe119, &[0xc0, 0, 0, 0, 0x3c, 0, 0x60]),
    (0xe127, &[0xa0]),
    (0xe13e, &[0x40]),
    (0xe14a, &[1, 1]),
];
/// vCPUs at boot and at most, each u32; then base and size of what is kept for waking from sleep, each u32.
const VCPUS: [usize; 2] = [0xe136, 0xe13a];
const KEPT: usize = 0xe142;

/// Why the volume cannot be computed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PeiError {
    /// A build that nobody looked into.
    #[error("firmware {0}: what it keeps in memory is not known")]
    Build(Digest<32>),
    /// A machine beyond those that were compared.
    #[error(
        "{memory_mib} MiB and {vcpus} vCPUs: compared were 512, 1024, 2048, 2816, 3072 and 8192 MiB with 1, 2, 4 or 8 vCPUs"
    )]
    Machine {
        /// Guest memory in MiB.
        memory_mib: u32,
        /// vCPUs.
        vcpus: u16,
    },
    /// The image is not what its digest says.
    #[error("firmware: {0}")]
    Volume(#[from] VolumeError),
}

/// Digest of the PEI volume on a q35 machine with smm=off, 40 physical address bits, this memory and these vCPUs, none of them
/// to be added later. That the machine is one of this kind is the caller's word.
///
/// # Errors
/// [`PeiError`].
pub fn compute_pei_volume(firmware: &[u8], memory_mib: u32, vcpus: NonZeroU16) -> Result<Digest<32>, PeiError> {
    let build = sha256(firmware);
    if build.to_string() != DEBIAN_12 {
        return Err(PeiError::Build(build));
    }
    if !MEMORY_MIB.contains(&memory_mib) || !VCPU_COUNTS.contains(&vcpus.get()) {
        return Err(PeiError::Machine { memory_mib, vcpus: vcpus.get() });
    }
    let mut volume = pei_volume(firmware)?;
    for (offset, bytes) in description(memory_mib, vcpus) {
        let place = volume.get_mut(offset..).and_then(|rest| rest.get_mut(..bytes.len()));
        place.ok_or(VolumeError::Malformed("the platform's description"))?.copy_from_slice(&bytes);
    }
    Ok(sha256(&volume))
}

/// The bytes of the description that are not zero, and where they lie.
fn description(memory_mib: u32, vcpus: NonZeroU16) -> Vec<(usize, Vec<u8>)> {
    let low_mib = if memory_mib < WHOLE_LIMIT_MIB { memory_mib } else { SPLIT_MIB };
    let vcpus = u32::from(vcpus.get());
    // 512 KiB, and a stack of 32 KiB for each vCPU; both factors are bounded above.
    let kept = 0x8_0000 + vcpus * 0x8000;
    let base = low_mib * 0x10_0000 - kept;
    let mut bytes: Vec<(usize, Vec<u8>)> = SAME.iter().map(|(at, bytes)| (*at, bytes.to_vec())).collect();
    bytes.extend(VCPUS.map(|at| (at, vcpus.to_le_bytes().to_vec())));
    bytes.push((KEPT, [base, kept].map(u32::to_le_bytes).concat()));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_follows_low_memory_and_vcpus() {
        let of = |memory_mib, vcpus| {
            let mut image = vec![0; 0xe14c];
            for (at, bytes) in description(memory_mib, NonZeroU16::new(vcpus).unwrap()) {
                image[at..at + bytes.len()].copy_from_slice(&bytes);
            }
            image[0xe136..].to_vec()
        };
        let shown = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        // As they lay in the memory of machines of these shapes.
        assert_eq!(shown(of(512, 1)), "01000000010000004000000000".to_owned() + "80f71f008008000101");
        assert_eq!(shown(of(1024, 2)), "02000000020000004000000000".to_owned() + "00f73f000009000101");
        assert_eq!(of(8192, 1), of(3072, 1), "what is above 4 GiB does not show");
    }

    #[test]
    fn another_build_is_refused() {
        let image = crate::volume::sample::image(b"pei", b"dxe");
        assert_eq!(compute_pei_volume(&image, 512, NonZeroU16::MIN), Err(PeiError::Build(sha256(&image))));
    }
}
