//! What a firmware build measures in a TD, read out of the image: builds of different releases log different events.
//!
//! Sources: edk2 `OvmfPkg` (TdxHelperLib, QemuFwCfgLib cache, PlatformBootManagerLib, SmbiosMeasurementDxe) and its
//! releases: configuration items, SMBIOS and a second boot option came with edk2-stable202505. Layouts up to
//! edk2-stable202502 were compared with event logs of real TDs; the later one with values that others published from
//! theirs, so keep a recorded log beside it ([`super::MachineEvents::record`]).
//!
//! Not trusted: the image. A build without the code that measures is refused: in a TD its registers stay zero, whatever
//! it starts. Not told by the image: where the separator at ready-to-boot goes (RTMR1 since edk2-stable202411).

use thiserror::Error;

use crate::bytes::contains;
use crate::linux::{KernelLoader, LoaderError};
use crate::ovmf::guid;
use crate::uefi::{firmware_file_path, load_option};
use crate::volume::{NamedVolume, VolumeError, named_volumes, unpacked};

/// Volume of the drivers and applications that are loaded in a TD.
const DXE_VOLUME: [u8; 16] = guid(0x7cb8_bdc9, 0xf8eb, 0x4f34, 0xaaea_3ee4_af65_16a1);
const BOOT_MANAGER_MENU: [u8; 16] = guid(0xeec2_5bdc, 0x67f2, 0x4d95, 0xb1d5_f81b_2039_d11d);
const FRONT_PAGE: [u8; 16] = guid(0x462c_aa21, 0x7614, 0x4503, 0x836e_8ab6_f466_2331);
const SMBIOS_MEASUREMENT: [u8; 16] = guid(0xd27f_ed59, 0xabb4, 0x4fed, 0xbead_2a87_8c7e_4a7e);

/// What the code that measures writes into its events.
const TD_HOB_MARK: &[u8] = b"\0TdxTable\0";
const FW_CFG_MARK: &[u8] = b"\0QEMU FW CFG\0";
const ACPI_MARK: &[u8] = b"ACPI DATA\0";
/// A variable that only builds with Secure Boot know.
const SECURE_BOOT_MARK: &str = "SecureBootEnable";

/// LOAD_OPTION_ACTIVE and LOAD_OPTION_CATEGORY_APP; the boot menu is LOAD_OPTION_HIDDEN as well.
const APPLICATION: u32 = 0x101;
const HIDDEN_APPLICATION: u32 = 0x109;

/// Why a build's events cannot be told.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BuildError {
    /// Its volumes cannot be read.
    #[error("firmware: {0}")]
    Volume(#[from] VolumeError),
    /// The build does not measure.
    #[error(
        "this firmware measures nothing into the registers of a TD ({0} is missing): whatever it boots, RTMR0 and RTMR1 \
         stay zero. Use a build with measurement for TDX, such as an IntelTdx build of OVMF"
    )]
    MeasuresNothing(&'static str),
}

/// What a build measures beyond what all of them do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// Whether it knows Secure Boot; without, the variable SecureBoot does not exist.
    pub secure_boot: bool,
    /// Whether it measures configuration items of fw_cfg before the variables.
    pub fw_cfg: bool,
    /// Whether it measures SMBIOS tables before the boot variables.
    pub smbios: bool,
    /// EFI_LOAD_OPTION of Boot0000, Boot0001 and so on, on a machine without boot devices.
    pub boot_options: Vec<Vec<u8>>,
    /// How it loads a kernel given to QEMU; an error concerns no one who starts none.
    pub loader: Result<KernelLoader, LoaderError>,
}

impl Build {
    /// Reads a whole image (variables and code).
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn inspect(image: &[u8]) -> Result<Self, BuildError> {
        let unpacked = unpacked(image)?;
        // Builds without a PEI phase measure from code that is not compressed.
        let has = |mark: &[u8]| contains(&unpacked, mark) || contains(image, mark);
        for (mark, name) in [(TD_HOB_MARK, "the TD HOB event"), (ACPI_MARK, "the ACPI event")] {
            if !has(mark) {
                return Err(BuildError::MeasuresNothing(name));
            }
        }
        let volumes = named_volumes(&unpacked)?;
        let loaded = |file: &[u8; 16]| in_volume(&volumes, &DXE_VOLUME, file);
        let secure_boot: Vec<u8> = SECURE_BOOT_MARK.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let option = |attributes, name, file| load_option(attributes, name, &firmware_file_path(DXE_VOLUME, file));
        let menu = loaded(&BOOT_MANAGER_MENU);
        let front_page = loaded(&FRONT_PAGE);
        let boot_options = [
            menu.then(|| option(HIDDEN_APPLICATION, "BootManagerMenuApp", BOOT_MANAGER_MENU)),
            (menu && front_page).then(|| option(APPLICATION, "EFI Firmware Setup", FRONT_PAGE)),
            (!menu && front_page).then(|| option(HIDDEN_APPLICATION, "UiApp", FRONT_PAGE)),
        ];
        Ok(Self {
            secure_boot: contains(&unpacked, &secure_boot),
            fw_cfg: has(FW_CFG_MARK),
            smbios: loaded(&SMBIOS_MEASUREMENT),
            boot_options: boot_options.into_iter().flatten().collect(),
            loader: KernelLoader::of(image, &unpacked),
        })
    }
}

fn in_volume(volumes: &[NamedVolume], volume: &[u8; 16], file: &[u8; 16]) -> bool {
    volumes.iter().any(|candidate| candidate.name == *volume && candidate.files.contains(file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uefi::BOOT_0000;
    use crate::volume::sample::{image, volume_of};

    fn wide(text: &str) -> Vec<u8> {
        text.encode_utf16().flat_map(u16::to_le_bytes).collect()
    }

    #[test]
    fn the_boot_option_of_earlier_builds_is_the_recorded_one() {
        let volume = volume_of(DXE_VOLUME, &[FRONT_PAGE]);
        let build = Build::inspect(&image(b"\0TdxTable\0", &[&volume, ACPI_MARK].concat())).unwrap();
        let (boot_options, loader) = (vec![BOOT_0000.to_vec()], Err(LoaderError::Ambiguous("neither")));
        assert_eq!(build, Build { secure_boot: false, fw_cfg: false, smbios: false, boot_options, loader });
    }

    #[test]
    fn later_builds_have_a_menu_and_more_events() {
        let volume = volume_of(DXE_VOLUME, &[SMBIOS_MEASUREMENT, BOOT_MANAGER_MENU, FRONT_PAGE]);
        let marks = [ACPI_MARK, FW_CFG_MARK, b"\0initrd=initrd \0", &wide(SECURE_BOOT_MARK)].concat();
        let build = Build::inspect(&image(b"\0TdxTable\0", &[&volume, marks.as_slice()].concat())).unwrap();
        assert!(build.secure_boot && build.fw_cfg && build.smbios && build.loader.is_ok());
        assert_eq!(build.boot_options.len(), 2);
        assert!(contains(&build.boot_options[1], &wide("EFI Firmware Setup")));
        // What lies in another volume is not loaded in a TD.
        let elsewhere = volume_of([7; 16], &[SMBIOS_MEASUREMENT, BOOT_MANAGER_MENU, FRONT_PAGE]);
        let build = Build::inspect(&image(b"\0TdxTable\0", &[&elsewhere, ACPI_MARK].concat())).unwrap();
        assert_eq!((build.smbios, build.boot_options.len()), (false, 0));
    }

    #[test]
    fn a_build_that_measures_nothing_is_refused() {
        let refused = |pei: &[u8], dxe: &[u8]| Build::inspect(&image(pei, dxe)).unwrap_err();
        assert_eq!(refused(b"", ACPI_MARK), BuildError::MeasuresNothing("the TD HOB event"));
        assert_eq!(refused(b"\0TdxTable\0", b""), BuildError::MeasuresNothing("the ACPI event"));
        assert!(matches!(Build::inspect(&[]), Err(BuildError::Volume(_))));
    }
}
