//! Which firmware the prediction holds for: one whose version string is empty and that asks QEMU for the traditional items, as
//! Debian 12's build of edk2 2022.11. Later generations measure their version, other boot options and another command line.
//!
//! Sources: edk2 `OvmfPkg/OvmfPkg.dec` and `SecurityPkg/Tcg/Tcg2Pei` (PcdFirmwareVersionString, measured in UTF-16),
//! `OvmfPkg/QemuKernelLoaderFsDxe` (`etc/boot/`). Versions as distributions and QEMU write them were seen in their builds.
//!
//! Not trusted: the image. A version of a form that nobody wrote so far is not found here: the log of a boot tells.

use super::PredictError;
use crate::digest::Digest;
use crate::volume::{dxe_volume_of, unpacked};

const NAMED_FILES: &[u8] = b"etc/boot/";
/// Longest version that is shown, in characters.
const SHOWN: usize = 40;
/// How names of builds begin that are not a year and a month.
const NAME: &str = "edk2-";
/// How many bytes the beginning of a version has: `2025.02` in UTF-16.
const BEGINNING: usize = 14;

/// SHA-256 of the DXE volume of firmware of the known generation.
pub(super) fn known_dxe_volume(firmware: &[u8]) -> Result<Digest<32>, PredictError> {
    let unpacked = unpacked(firmware)?;
    if let Some(version) = version(&unpacked) {
        return Err(PredictError::FirmwareVersion(version));
    }
    if unpacked.windows(NAMED_FILES.len()).any(|bytes| bytes == NAMED_FILES) {
        return Err(PredictError::FirmwareGeneration);
    }
    Ok(dxe_volume_of(&unpacked)?)
}

/// The first text that looks like a version of firmware.
fn version(unpacked: &[u8]) -> Option<String> {
    let at = unpacked.windows(BEGINNING).position(is_beginning)?;
    let characters = unpacked.get(at..)?.chunks_exact(2).map_while(|pair| match pair {
        [byte @ b'!'..=b'~', 0] => Some(char::from(*byte)),
        _ => None,
    });
    Some(characters.take(SHOWN).collect())
}

/// Year, dot, month; or a name.
fn is_beginning(bytes: &[u8]) -> bool {
    // Most bytes of a volume end here.
    if !matches!(bytes, [b'2' | b'e', 0, ..]) || bytes.iter().skip(1).step_by(2).any(|high| *high != 0) {
        return false;
    }
    let text: Vec<u8> = bytes.iter().step_by(2).copied().collect();
    let digits =
        |range| text.get::<std::ops::Range<usize>>(range).is_some_and(|text| text.iter().all(u8::is_ascii_digit));
    text.starts_with(NAME.as_bytes())
        || (text.starts_with(b"20") && digits(2..4) && text.get(4) == Some(&b'.') && digits(5..7))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::sha256;
    use crate::volume::sample::image;

    fn wide(text: &str) -> Vec<u8> {
        [b"x", text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect::<Vec<u8>>().as_slice()].concat()
    }

    #[test]
    fn firmware_of_a_later_generation_is_refused() {
        for text in ["2025.02-8", "2026.08+ds-2", "2024.02-2ubuntu0.1", "edk2-stable202408-prebuilt.qemu.org"] {
            let refused = PredictError::FirmwareVersion(text.to_owned());
            assert_eq!(known_dxe_volume(&image(b"pei", &wide(text))), Err(refused.clone()));
            assert_eq!(known_dxe_volume(&image(&wide(text), b"dxe")), Err(refused));
        }
        assert_eq!(known_dxe_volume(&image(b"pei", b"\0etc/boot/\0")), Err(PredictError::FirmwareGeneration));
        for text in ["2025", "2025.x1", "20.25.02", "edk3-stable"] {
            let dxe = wide(text);
            assert_eq!(known_dxe_volume(&image(b"pei", &dxe)), Ok(sha256(&dxe)), "{text}");
        }
    }
}
