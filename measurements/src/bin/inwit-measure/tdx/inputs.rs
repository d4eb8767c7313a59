//! The files that `inwit-measure tdx` is given.
//!
//! Not trusted: all of them. Never computes a register.

use std::path::{Path, PathBuf};

use inwit_measurements::Digest;
use inwit_measurements::linux::DirectKernel;
use inwit_measurements::tdx::{AcpiBlobs, Build, cfv_digest, gpt_event};
use inwit_measurements::vtpm::Start;

use super::TdxArguments;
use super::source::named;
use crate::files::{Failure, FileKind, read, read_start};
use crate::progress::stage;

/// Enough of a disk for its partition table.
const DISK_START_BYTES: usize = 1 << 20;

fn partition_table(path: &Path) -> Result<Vec<u8>, Failure> {
    gpt_event(read_start(path, DISK_START_BYTES)?).map_err(Failure::refused)
}

/// What was read.
pub(super) struct Inputs<'a> {
    pub(super) arguments: &'a TdxArguments,
    pub(super) firmware: &'static [u8],
    /// What the firmware measures, and how it loads a kernel.
    pub(super) build: Build,
    /// Digest of its empty variable store.
    pub(super) cfv: Digest<48>,
    pub(super) machine_log: Option<&'static [u8]>,
    /// The partition table of the disk that is booted from, as it is measured.
    pub(super) gpt: Option<Vec<u8>>,
    started: &'static [u8],
    initrd: &'static [u8],
}

impl<'a> Inputs<'a> {
    pub(super) fn read(arguments: &'a TdxArguments) -> Result<Self, Failure> {
        let started = match (&arguments.kernel, &arguments.uki) {
            (Some(kernel), _) => Some(read(kernel, FileKind::Kernel)?),
            (None, Some(image)) => Some(read(image, FileKind::Image)?),
            (None, None) => None,
        };
        let given = |path: &Option<PathBuf>, kind| path.as_deref().map(|path| read(path, kind)).transpose();
        let firmware = read(&arguments.ovmf, FileKind::Firmware)?;
        // An image that no TD starts is told as that.
        let cfv = cfv_digest(firmware).map_err(Failure::refused)?;
        stage("looking into the firmware");
        let build = Build::inspect(firmware).map_err(Failure::refused)?;
        Ok(Self {
            arguments,
            firmware,
            build,
            cfv,
            machine_log: given(&arguments.machine_log, FileKind::Small)?,
            gpt: arguments.disk.as_deref().map(partition_table).transpose()?,
            started: started.unwrap_or_default(),
            initrd: given(&arguments.initrd, FileKind::Initrd)?.unwrap_or_default(),
        })
    }

    /// Hands on what is started.
    pub(super) fn with<T>(&self, next: impl FnOnce(&Self, &Start<'_>) -> Result<T, Failure>) -> Result<T, Failure> {
        let (kernel, initrd) = (self.started, self.initrd);
        let (append, memory_mib) = (self.arguments.append.as_str(), self.arguments.memory);
        if self.arguments.uki.is_some() {
            return next(self, &Start::Unified { image: kernel, profile: self.arguments.profile });
        }
        let loader = self.build.loader.as_ref().map_err(Failure::refused)?;
        let (ramdisk_option, header) = (loader.ramdisk_option, loader.header_in_td(self.arguments.qemu));
        next(self, &Start::Direct(DirectKernel { kernel, initrd, append, memory_mib, ramdisk_option, header }))
    }

    /// The ACPI files, if any were given.
    pub(super) fn acpi(&self) -> Result<Option<AcpiBlobs>, Failure> {
        let Some(path) = &self.arguments.acpi_tables else { return Ok(None) };
        let tables = read(path, FileKind::Small)?;
        let blobs = match (&self.arguments.acpi_loader, &self.arguments.acpi_rsdp) {
            (Some(loader), Some(rsdp)) => {
                let (script, rsdp) = (read(loader, FileKind::Small)?, read(rsdp, FileKind::Small)?);
                let more = named(&self.arguments.acpi_file)?;
                let more = more.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()));
                let files = [("etc/acpi/rsdp", rsdp), ("etc/acpi/tables", tables)];
                AcpiBlobs::from_files(script, &files.into_iter().chain(more).collect::<Vec<_>>())
            }
            _ => AcpiBlobs::from_tables(tables),
        };
        let blobs = blobs.map_err(Failure::refused)?;
        match (self.arguments.vcpus, blobs.vcpus()) {
            (Some(asked), Some(found)) if usize::from(asked.get()) != found => Err(Failure::Refused(format!(
                "the ACPI tables are those of a machine with {found} vCPUs, not of {asked}: take them from a guest of this shape"
            ))),
            _ => Ok(Some(blobs)),
        }
    }
}
