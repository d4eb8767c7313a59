//! PCR 0 of a firmware on one machine shape, recorded once from a trusted boot: part of it depends on memory contents that
//! no file tells. The recorder is a tiny init that prints the register and powers off.
//! And a hostile guest's: an init that tries what it can do to what the machine's maker left in the TPM.

use super::guest::run_machine;
use super::{Result, StageError};
use crate::world::World;
use crate::world::firmware::{ovmf, sha256_hex};
use crate::world::kernel::Kernel;
use crate::world::qemu::{Boot, DEFAULT_MEMORY_MIB};
use crate::world::swtpm::{EkCertificate, Swtpm};
use inwit_image::Manifest;
use std::collections::BTreeMap;
use std::path::Path;

/// The recorded value; boots once if there is none for this firmware and shape.
pub fn pcr0(world: &World, firmware: &[u8], folder: &Path) -> Result<[u8; 32]> {
    let file = world
        .root()
        .join(format!("pcr0-{}-{DEFAULT_MEMORY_MIB}MiB", sha256_hex(firmware).get(..16).unwrap_or_default()));
    if !file.exists() {
        let value = record(world, &folder.join("recorder"))?;
        let temporary = folder.join("pcr0");
        std::fs::write(&temporary, value)?;
        std::fs::rename(&temporary, &file).or_else(|_| std::fs::copy(&temporary, &file).map(|_| ()))?;
    }
    let bytes = std::fs::read(&file)?;
    bytes.try_into().map_err(|_| StageError::of(file.display(), "is not 32 bytes: delete it"))
}

fn record(world: &World, folder: &Path) -> Result<[u8; 32]> {
    let state = folder.join("tpm");
    Swtpm::manufacture(&state, EkCertificate::Absent)?;
    let text = boot_measured(world, "recorder", &state, folder)?;
    let hex = text.lines().find_map(|line| line.split_once("PCR0 ")).map(|(_, hex)| hex.trim().to_owned());
    let hex = hex.ok_or_else(|| StageError::of("recorder", format!("did not print PCR 0:\n{text}")))?;
    inwit_authority::endorsement_files::parse_pin(&hex.to_lowercase())
        .ok_or_else(|| StageError::of("recorder", format!("PCR 0 is {hex:?}")))
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
    let init = super::programs::compile(world, init)?;
    let manifest = Manifest::new().directory("/dev", 0o755).directory("/sys", 0o755).file_from("/init", 0o755, &init);
    let initrd = folder.join("initrd");
    std::fs::write(&initrd, manifest.build(Path::new("/"))?.bytes())?;
    let tpm = Swtpm::start(state)?;
    let kernel = Kernel::cached(world).ok_or_else(|| StageError::of("kernel", "not prepared; run inwit-setup"))?;
    let mut boot = Boot::of(&kernel.image, &initrd);
    boot.firmware = ovmf()?.firmware();
    boot.tpm = Some(tpm.control().to_path_buf());
    Ok(run_machine(&boot, |_, _| {})?.text())
}
