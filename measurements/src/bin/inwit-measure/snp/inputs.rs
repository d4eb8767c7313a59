//! The files that the options of `inwit-measure snp` name, each read once.
//!
//! Not trusted: the files. Never computes a launch digest.

use std::path::PathBuf;

use inwit_measurements::made_from::{MadeFrom, Role};
use inwit_measurements::snp::{DirectBoot, FirmwareLaunch, SvsmImages};

use super::SnpArguments;
use crate::files::{Failure, FileKind, file_name, read};
use crate::progress::stage;

/// The contents of the files.
pub(super) struct Inputs {
    ovmf: &'static [u8],
    /// The SVSM with the bytes of the variable store above it.
    svsm: Option<(&'static [u8], u32)>,
    /// Kernel and initial ramdisk, which is empty when there is none.
    boot: Option<(&'static [u8], &'static [u8])>,
}

impl Inputs {
    pub(super) fn read(arguments: &SnpArguments) -> Result<Self, Failure> {
        let svsm = match &arguments.svsm {
            Some(svsm) => Some((read(svsm, FileKind::Firmware)?, arguments.variables_bytes()?)),
            None => None,
        };
        let boot = match &arguments.kernel {
            Some(kernel) => {
                let initrd = arguments.initrd.as_deref().map(|path| read(path, FileKind::Initrd)).transpose()?;
                Some((read(kernel, FileKind::Kernel)?, initrd.unwrap_or_default()))
            }
            None => None,
        };
        let ovmf = arguments.ovmf.as_deref().map(|path| read(path, FileKind::Firmware)).transpose()?;
        Ok(Self { ovmf: ovmf.unwrap_or_default(), svsm, boot })
    }

    pub(super) fn firmware(&self) -> Result<FirmwareLaunch, Failure> {
        stage("hashing the firmware");
        let firmware = match &self.svsm {
            None => FirmwareLaunch::measure(self.ovmf),
            Some((svsm, variables_bytes)) => {
                SvsmImages { firmware: self.ovmf, variables_bytes: *variables_bytes, svsm }.measure()
            }
        };
        firmware.map_err(Failure::refused)
    }

    pub(super) fn direct_boot(&self, append: &str) -> Result<Option<DirectBoot>, Failure> {
        let Some((kernel, initrd)) = &self.boot else { return Ok(None) };
        stage("hashing kernel and initrd");
        DirectBoot::measure(kernel, initrd, append).map(Some).map_err(Failure::refused)
    }

    /// What the digests are computed from but for the shape, for explaining a mismatch later.
    pub(super) fn made_from(&self, arguments: &SnpArguments, firmware: FirmwareLaunch) -> MadeFrom {
        stage("looking into the initrd");
        let mut record = MadeFrom::default();
        let name = |path: &Option<PathBuf>| path.as_deref().map(file_name).unwrap_or_default();
        record.add_file(Role::Firmware, &name(&arguments.ovmf), self.ovmf);
        record.firmware = Some(firmware);
        if let Some((svsm, _)) = &self.svsm {
            record.add_file(Role::Svsm, &name(&arguments.svsm), svsm);
        }
        if let Some((kernel, initrd)) = &self.boot {
            let names = (name(&arguments.kernel), name(&arguments.initrd));
            record.add_direct_boot((&names.0, kernel), (&names.1, initrd), &arguments.append);
        }
        record
    }
}

impl SnpArguments {
    fn variables_bytes(&self) -> Result<u32, Failure> {
        match (self.vars_size, &self.vars_file) {
            (Some(bytes), _) => Ok(bytes),
            (None, Some(path)) => u32::try_from(read(path, FileKind::Firmware)?.len()).map_err(Failure::refused),
            (None, None) => {
                Err(Failure::Usage("an SVSM lies below the variable store: give --vars-size or --vars-file".into()))
            }
        }
    }
}
