//! The files that `inwit-measure tdx` is given.
//!
//! Not trusted: all of them. Never computes a register.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use inwit_measurements::linux::DirectKernel;
use inwit_measurements::ovmf::Firmware;
use inwit_measurements::tdx::{AcpiBlobs, gpt_event, td_hob};
use inwit_measurements::vtpm::Start;
use inwit_measurements::{Digest, sha384};

use super::TdxArguments;
use super::source::named;
use crate::files::{Failure, read};

/// Enough of a disk for its partition table.
const DISK_START_BYTES: u64 = 1 << 20;

fn partition_table(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut start = Vec::new();
    File::open(path)
        .and_then(|disk| disk.take(DISK_START_BYTES).read_to_end(&mut start))
        .map_err(|cause| Failure::Unreadable { path: path.to_owned(), cause })?;
    gpt_event(&start).map_err(Failure::refused)
}

/// What was read.
pub(super) struct Inputs<'a> {
    pub(super) arguments: &'a TdxArguments,
    pub(super) firmware: Vec<u8>,
    pub(super) machine_log: Option<Vec<u8>>,
    /// The partition table of the disk that is booted from, as it is measured.
    pub(super) gpt: Option<Vec<u8>>,
    started: Vec<u8>,
    initrd: Vec<u8>,
}

impl<'a> Inputs<'a> {
    pub(super) fn read(arguments: &'a TdxArguments) -> Result<Self, Failure> {
        let started = arguments.kernel.as_ref().or(arguments.uki.as_ref());
        Ok(Self {
            arguments,
            firmware: read(&arguments.ovmf)?,
            machine_log: arguments.machine_log.as_deref().map(read).transpose()?,
            gpt: arguments.disk.as_deref().map(partition_table).transpose()?,
            started: started.map(read).transpose()?.unwrap_or_default(),
            initrd: arguments.initrd.as_deref().map(read).transpose()?.unwrap_or_default(),
        })
    }

    /// Hands on what is started.
    pub(super) fn with<T>(&self, next: impl FnOnce(&Self, &Start<'_>) -> Result<T, Failure>) -> Result<T, Failure> {
        let (kernel, initrd) = (self.started.as_slice(), self.initrd.as_slice());
        let (append, memory_mib) = (self.arguments.append.as_str(), self.arguments.memory);
        if self.arguments.uki.is_some() {
            return next(self, &Start::Unified { image: kernel, profile: self.arguments.profile });
        }
        next(self, &Start::Direct(DirectKernel { kernel, initrd, append, memory_mib }))
    }

    /// The ACPI files, if any were given.
    pub(super) fn acpi(&self) -> Result<Option<AcpiBlobs>, Failure> {
        let Some(path) = &self.arguments.acpi_tables else { return Ok(None) };
        let tables = read(path)?;
        let blobs = match (&self.arguments.acpi_loader, &self.arguments.acpi_rsdp) {
            (Some(loader), Some(rsdp)) => {
                let (script, rsdp) = (read(loader)?, read(rsdp)?);
                let more = named(&self.arguments.acpi_file)?;
                let more = more.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()));
                let files = [("etc/acpi/rsdp", rsdp.as_slice()), ("etc/acpi/tables", &tables)];
                AcpiBlobs::from_files(&script, &files.into_iter().chain(more).collect::<Vec<_>>())
            }
            _ => AcpiBlobs::from_tables(&tables),
        };
        let blobs = blobs.map_err(Failure::refused)?;
        match (self.arguments.vcpus, blobs.vcpus()) {
            (Some(asked), Some(found)) if usize::from(asked.get()) != found => Err(Failure::Refused(format!(
                "the ACPI tables are those of a machine with {found} vCPUs, not of {asked}: take them from a guest of this shape"
            ))),
            _ => Ok(Some(blobs)),
        }
    }

    /// Digests that a recorded event may be explained by: memory map and configuration volume.
    pub(super) fn computable(&self, cfv: Digest<48>) -> Vec<Digest<48>> {
        let hob = Firmware::parse(&self.firmware).ok().and_then(|image| td_hob(&image, self.arguments.memory).ok());
        hob.map(|hob| sha384(&hob)).into_iter().chain([cfv]).collect()
    }
}
