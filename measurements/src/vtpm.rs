//! PCRs 0 to 9 of a vTPM, SHA-256 bank, for a direct kernel boot through OVMF on QEMU's q35 machine without other
//! boot devices; and the register that holds the agent.
//!
//! Sources: TCG PC Client Platform Firmware Profile 1.06 section 3.3.4, edk2 OvmfPkg and SecurityPkg, UAPI group PCR
//! registry; compared with PCRs read in booted guests.
//!
//! PCR 0 needs one recorded value: the PEI volume runs in memory and by the time it is measured holds a description of
//! the machine (memory size, vCPUs), so its digest is the second event of PCR 0 in the log of a trusted boot, once for
//! each machine shape. The DXE volume is computed here from the code image.
//!
//! Not trusted: all files. Never talks to a TPM.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::digest::{Digest, sha256};
use crate::eventlog::{ALG_SHA256, LogError, replay_sha256};
use crate::linux::{DirectKernel, KernelError};
use crate::pe::{PeError, authenticode_sha256};
use crate::uefi::event_type::{NO_ACTION, S_CRTM_VERSION};
use crate::uefi::{
    BOOT_0000, BOOT_ORDER, CALLING_APPLICATION, EXIT_BOOT_SERVICES, SEPARATOR, SecureBoot, secure_boot_variables,
};
use crate::volume::{VolumeError, dxe_volume_sha256};

/// CRTM version string of OVMF builds: empty, in UTF-16.
const CRTM_VERSION: [u8; 2] = [0; 2];

/// What a measured boot consists of.
#[derive(Debug, Clone, Copy)]
pub struct MeasuredBoot<'a> {
    /// The firmware code image (`OVMF_CODE*.fd`, or the whole `OVMF.fd`).
    pub firmware: &'a [u8],
    /// Recorded digest of the PEI volume in memory; differs with memory size and vCPUs.
    pub pei_volume: Digest<32>,
    /// Kernel, ramdisk, command line and memory size.
    pub boot: DirectKernel<'a>,
}

/// Why PCRs cannot be predicted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PredictError {
    /// The firmware's volumes cannot be found.
    #[error("firmware: {0}")]
    Volume(#[from] VolumeError),
    /// Kernel or command line cannot be predicted.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

impl From<PeError> for PredictError {
    fn from(error: PeError) -> Self {
        Self::Kernel(error.into())
    }
}

/// PCRs 0 to 9.
///
/// # Errors
/// [`PredictError`].
pub fn predict(boot: &MeasuredBoot<'_>) -> Result<BTreeMap<u8, Digest<32>>, PredictError> {
    let separator = sha256(&SEPARATOR);
    let [invocation, success] = EXIT_BOOT_SERVICES.map(|action| sha256(action.as_bytes()));
    let kernel = authenticode_sha256(&boot.boot.patched()?)?;
    let mut stub = Vec::new();
    if let Some(options) = boot.boot.load_options()? {
        stub.push(sha256(&options));
    }
    if !boot.boot.initrd.is_empty() {
        stub.push(sha256(boot.boot.initrd));
    }
    let mut secure_boot: Vec<_> = secure_boot_variables(SecureBoot::Off).iter().map(|(_, data)| sha256(data)).collect();
    secure_boot.push(separator);
    let code = [sha256(&CRTM_VERSION), boot.pei_volume, dxe_volume_sha256(boot.firmware)?, separator];
    Ok(BTreeMap::from([
        (0, extend_all(&code)),
        // The platform's boot variables are hashed by their data alone.
        (1, extend_all(&[sha256(&BOOT_ORDER), sha256(&BOOT_0000), separator])),
        (2, extend_all(&[separator])),
        (3, extend_all(&[separator])),
        (4, extend_all(&[kernel, sha256(CALLING_APPLICATION.as_bytes()), separator])),
        (5, extend_all(&[separator, invocation, success])),
        (6, extend_all(&[separator])),
        (7, extend_all(&secure_boot)),
        (8, extend_all(&[])),
        (9, extend_all(&stub)),
    ]))
}

/// Why a log gives no PEI volume.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RecordError {
    /// The log itself is refused.
    #[error(transparent)]
    Log(#[from] LogError),
    /// PCR 0 does not hold what OVMF measures into it.
    #[error("PCR 0 of the log is not the one of an OVMF boot: expected the version, two firmware volumes, a separator")]
    NotOvmf,
}

/// The PEI volume's digest, out of the event log (`binary_bios_measurements`) of a trusted boot of the same machine
/// shape. Whether that boot was one to trust is the operator's word.
///
/// # Errors
/// [`RecordError`].
pub fn record_pei_volume(log: &[u8]) -> Result<Digest<32>, RecordError> {
    let events = replay_sha256(log)?.events;
    let zero: Vec<_> = events.iter().filter(|event| event.index == 0 && event.event_type != NO_ACTION).collect();
    match zero.as_slice() {
        [version, pei, _dxe, separator] if version.event_type == S_CRTM_VERSION && separator.data == SEPARATOR => {
            pei.digest(ALG_SHA256).map(Digest::from_bytes).ok_or(RecordError::NotOvmf)
        }
        _ => Err(RecordError::NotOvmf),
    }
}

/// The register after one extend: SHA-256 over the old value and the event digest.
#[must_use]
pub fn extend(register: &Digest<32>, digest: &Digest<32>) -> Digest<32> {
    sha256(&[register.as_bytes().as_slice(), digest.as_bytes()].concat())
}

/// A register that starts at zero, after these digests.
#[must_use]
pub fn extend_all(digests: &[Digest<32>]) -> Digest<32> {
    digests.iter().fold(Digest::from_bytes([0; 32]), |register, digest| extend(&register, digest))
}

/// A PCR that the agent extends once, as its first act, from zero.
#[must_use]
pub fn pcr_after_one_extend(digest: [u8; 32]) -> [u8; 32] {
    *extend_all(&[Digest::from_bytes(digest)]).as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::sample_kernel;
    use crate::volume;

    fn pcrs(initrd: &[u8], append: &str, memory_mib: u32, pei: &[u8]) -> BTreeMap<u8, Digest<32>> {
        let (kernel, firmware) = (sample_kernel(), volume::sample::image(b"pei on flash", b"dxe"));
        let boot = DirectKernel { kernel: &kernel, initrd, append, memory_mib };
        predict(&MeasuredBoot { firmware: &firmware, pei_volume: sha256(pei), boot }).unwrap()
    }

    fn changed(a: &BTreeMap<u8, Digest<32>>, b: &BTreeMap<u8, Digest<32>>) -> Vec<u8> {
        a.iter().filter(|(index, value)| b[index] != **value).map(|(index, _)| *index).collect()
    }

    #[test]
    fn each_change_moves_exactly_its_registers() {
        let base = pcrs(b"initrd", "quiet", 512, b"pei");
        assert_eq!(base.keys().copied().collect::<Vec<_>>(), (0..=9).collect::<Vec<_>>());
        assert_eq!(changed(&base, &pcrs(b"initrx", "quiet", 512, b"pei")), [9]);
        assert_eq!(changed(&base, &pcrs(b"initrd!", "quiet", 512, b"pei")), [4, 9], "another size is patched in");
        assert_eq!(changed(&base, &pcrs(b"initrd", "quiet ", 512, b"pei")), [9]);
        assert_eq!(changed(&base, &pcrs(b"initrd", "quiet", 1024, b"pei")), [4]);
        assert_eq!(changed(&base, &pcrs(b"initrd", "quiet", 512, b"PEI")), [0]);
    }

    #[test]
    fn constant_registers_have_the_values_read_in_a_guest() {
        let pcrs = pcrs(b"initrd", "quiet", 512, b"pei");
        let separator = "3d458cfe55cc03ea1f443f1562beec8df51c75e14a9fcf9a7234a13f198e7969";
        assert_eq!([2, 3, 6].map(|index| pcrs[&index].to_string()), [separator; 3]);
        assert_eq!(pcrs[&8], Digest::from_bytes([0; 32]));
    }

    #[test]
    fn the_pei_volume_is_the_second_event_of_an_ovmf_boot() {
        use crate::eventlog::{header, record};
        use crate::uefi::event_type::{PLATFORM_FIRMWARE_BLOB2, SEPARATOR as SEPARATOR_EVENT};
        let log = |events: &[(u32, &[u8])]| {
            let mut log = header(0, &[(ALG_SHA256, 32)]);
            for (kind, data) in events {
                record(&mut log, 0, *kind, &[(ALG_SHA256, sha256(data).as_bytes())], data);
            }
            log
        };
        let version = (S_CRTM_VERSION, CRTM_VERSION.as_slice());
        let blob = |name: &'static [u8]| (PLATFORM_FIRMWARE_BLOB2, name);
        let separator = (SEPARATOR_EVENT, SEPARATOR.as_slice());
        let sound = log(&[version, blob(b"pei"), blob(b"dxe"), separator]);
        assert_eq!(record_pei_volume(&sound), Ok(sha256(b"pei")));
        for other in [
            log(&[version, blob(b"pei"), separator]),
            log(&[blob(b"pei"), version, blob(b"dxe"), separator]),
            log(&[version, blob(b"pei"), blob(b"dxe"), blob(b"more")]),
        ] {
            assert_eq!(record_pei_volume(&other), Err(RecordError::NotOvmf));
        }
        assert!(matches!(record_pei_volume(b""), Err(RecordError::Log(_))));
    }

    #[test]
    fn one_extend_is_the_hash_of_zeros_and_digest() {
        let digest = *sha256(b"agent").as_bytes();
        let expected = sha256(&[[0; 32], digest].concat());
        assert_eq!(pcr_after_one_extend(digest), *expected.as_bytes());
    }

    #[test]
    fn without_ramdisk_and_command_line_the_stub_measures_nothing() {
        assert_eq!(pcrs(b"", "", 512, b"pei")[&9], Digest::from_bytes([0; 32]));
    }
}
