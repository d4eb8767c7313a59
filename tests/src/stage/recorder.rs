//! A trusted boot of one machine shape, recorded once: all PCRs, and the firmware's event log. Part of what the firmware
//! measures of itself depends on memory contents that no file tells. The recorder is a tiny init that prints both and
//! powers off.
//! And a hostile guest's: an init that tries what it can do to what the machine's maker left in the TPM.

use super::guest::run_machine;
use super::{Result, StageError};
use crate::world::World;
use crate::world::accel::Accelerator;
use crate::world::firmware::{ovmf, sha256_hex};
use crate::world::kernel::Kernel;
use crate::world::qemu::{Boot, DEFAULT_APPEND, DEFAULT_MEMORY_MIB, version};
use crate::world::swtpm::{EkCertificate, Swtpm};
use inwit_image::Manifest;
use std::collections::BTreeMap;
use std::path::Path;

/// PCRs of a TPM.
const PCRS: usize = 24;

/// What a boot of the recorder left behind.
pub struct Recording {
    /// All PCRs of the SHA-256 bank, as the TPM gave them.
    pub pcrs: [[u8; 32]; PCRS],
    /// `binary_bios_measurements`.
    pub log: Vec<u8>,
}

/// The recorded boot of this firmware with the prepared kernel, default command line and memory, and [`initrd`], on this
/// machine's QEMU and accelerator; boots once if there is none of exactly these.
pub fn recording(world: &World, firmware: &[u8], folder: &Path) -> Result<Recording> {
    let initrd = initrd(world, "recorder")?;
    let kernel = std::fs::read(prepared_kernel(world)?.image)?;
    let machine = format!("{} {:?} {DEFAULT_APPEND}", version()?, Accelerator::of_this_machine());
    let digests: String =
        [firmware, &initrd, &kernel, machine.as_bytes()].iter().map(|bytes| sha256_hex(bytes)).collect();
    let key = sha256_hex(digests.as_bytes());
    let file = world.root().join(format!("recording-{key}-{DEFAULT_MEMORY_MIB}MiB"));
    if !file.exists() {
        let value = record(world, &folder.join("recorder"))?;
        let temporary = folder.join("recording");
        std::fs::write(&temporary, value)?;
        std::fs::rename(&temporary, &file).or_else(|_| std::fs::copy(&temporary, &file).map(|_| ()))?;
    }
    let bytes = std::fs::read(&file)?;
    let unusable = || StageError::of(file.display(), "is no recording: delete it");
    let (pcrs, log) = bytes.split_at_checked(PCRS * 32).ok_or_else(unusable)?;
    let (pcrs, _) = pcrs.as_chunks();
    Ok(Recording { pcrs: pcrs.try_into().map_err(|_| unusable())?, log: log.to_vec() })
}

/// All PCRs one behind the other, then the log.
fn record(world: &World, folder: &Path) -> Result<Vec<u8>> {
    let state = folder.join("tpm");
    Swtpm::manufacture(&state, EkCertificate::Absent)?;
    let text = boot_measured(world, "recorder", &state, folder)?;
    let said = |mark: &str| -> Vec<u8> {
        let lines = text.lines().filter_map(|line| line.split_once(mark)).map(|(_, hex)| hex.trim());
        lines.flat_map(bytes_of).collect()
    };
    let recording: Vec<u8> = (0..PCRS).flat_map(|pcr| said(&format!("PCR{pcr} "))).chain(said("LOG ")).collect();
    // A log has a header of some tens of bytes at least.
    if recording.len() < PCRS * 32 + 64 {
        return Err(StageError::of("recorder", format!("did not print all PCRs and the log:\n{text}")));
    }
    Ok(recording)
}

/// The bytes that a line of hexadecimal stands for; none if it is something else.
fn bytes_of(hex: &str) -> Vec<u8> {
    let pairs = hex.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
    pairs.collect::<Option<_>>().unwrap_or_default()
}

/// What a hostile guest gets from a TPM whose state is in this folder, after the firmware has run: each act that it tries, with
/// the TPM's response code in hexadecimal.
pub fn forge(world: &World, state: &Path, folder: &Path) -> Result<BTreeMap<String, String>> {
    let text = boot_measured(world, "forger", state, folder)?;
    let said = text.lines().filter_map(|line| line.split_once("FORGER ")?.1.trim().split_once(' '));
    Ok(said.map(|(act, code)| (act.to_owned(), code.to_owned())).collect())
}

/// Boots a program of `tests/workload` as the only init, with measuring firmware and this TPM; gives what it printed.
fn boot_measured(world: &World, init: &str, state: &Path, folder: &Path) -> Result<String> {
    std::fs::create_dir_all(folder)?;
    let path = folder.join("initrd");
    std::fs::write(&path, initrd(world, init)?)?;
    let tpm = Swtpm::start(state)?;
    let kernel = prepared_kernel(world)?;
    let mut boot = Boot::of(&kernel.image, &path);
    boot.firmware = ovmf()?.firmware();
    boot.tpm = Some(tpm.control().to_path_buf());
    Ok(run_machine(&boot, |_, _| {})?.text())
}

fn prepared_kernel(world: &World) -> Result<Kernel> {
    Kernel::cached(world).ok_or_else(|| StageError::of("kernel", "not prepared; run inwit-setup"))
}

/// The archive with one program of `tests/workload` as its init.
pub fn initrd(world: &World, init: &str) -> Result<Vec<u8>> {
    let init = super::programs::compile(world, init)?;
    let manifest = Manifest::new().directory("/dev", 0o755).directory("/sys", 0o755).file_from("/init", 0o755, &init);
    Ok(manifest.build(Path::new("/"))?.into_bytes())
}
