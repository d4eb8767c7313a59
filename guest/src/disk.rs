//! Opens the sealed workload disk: dm-verity over the ciphertext with the released root hash, dm-crypt over that with the
//! released key, then a read-only mount. Not one parameter is taken from the disk, which the host holds.

use crate::config::MeasuredConfig;
use crate::console::{Console, hex};
use crate::sys::{Target, dm_create_read_only};
use inwit_protocol::disk::{BLOCK, DiskSecret, SECTOR, stated_id};
use inwit_protocol::refusal::{Refusal, RefusalCode};
use inwit_protocol::secret::Secret;
use nix::mount::{MsFlags, mount};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// Where the workload's file system is mounted.
pub(crate) const MOUNT_POINT: &str = "/workload";
/// Longest wait for the block device to appear.
const APPEARANCE: Duration = Duration::from_secs(10);

fn unopenable(cause: impl std::fmt::Display) -> Refusal {
    Refusal::new(RefusalCode::DiskUnopenable, cause)
}

/// Opens and mounts the configured disk, if one is configured.
pub(crate) fn open_configured(
    config: &MeasuredConfig,
    secrets: &BTreeMap<String, Secret>,
    console: &Console,
) -> Result<(), Refusal> {
    let Some((device, name)) = &config.disk else { return Ok(()) };
    let secret =
        secrets.get(name).ok_or_else(|| unopenable(format_args!("no secret {name} was released for the disk")))?;
    let secret = DiskSecret::parse(secret).map_err(|error| unopenable(format_args!("secret {name}: {error}")))?;
    wait_for(device)?;
    check_label(device, &secret)?;
    let verity = map_verity(device, &secret).map_err(|errno| unopenable(format_args!("dm-verity: {errno}")))?;
    let plain = map_crypt(&verity, &secret).map_err(|errno| unopenable(format_args!("dm-crypt: {errno}")))?;
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some(plain.as_str()), MOUNT_POINT, Some("ext4"), flags, None::<&str>)
        .map_err(|errno| unopenable(format_args!("mounting it: {errno} (altered, or of another key)")))?;
    console.phase("disk", &format!("{} opened, verified by root hash {}", device.display(), hex(&secret.id())));
    Ok(())
}

fn wait_for(device: &Path) -> Result<(), Refusal> {
    let started = Instant::now();
    while !device.exists() {
        if started.elapsed() > APPEARANCE {
            return Err(unopenable(format_args!("{} does not appear", device.display())));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// A wrong disk would fail anyway, at its first read; the label lets the message say so.
fn check_label(device: &Path, secret: &DiskSecret) -> Result<(), Refusal> {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(device)?;
        let end = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(end.saturating_sub(BLOCK)))?;
        let mut block = vec![0; usize::try_from(BLOCK).unwrap_or(4_096)];
        file.read_exact(&mut block)?;
        Ok(block)
    };
    let block = read().map_err(|error| unopenable(format_args!("{}: {error}", device.display())))?;
    match stated_id(&block) {
        Some(id) if id == secret.id() => Ok(()),
        Some(_) => Err(unopenable("the attached disk was sealed with another secret")),
        None => Err(unopenable("the attached disk is not a sealed workload disk")),
    }
}

fn map_verity(device: &Path, secret: &DiskSecret) -> nix::Result<String> {
    let device = device.to_string_lossy();
    let blocks = secret.data_blocks;
    // version data-device hash-device data-block-size hash-block-size data-blocks hash-start algorithm root salt
    let parameters = format!(
        "1 {device} {device} {BLOCK} {BLOCK} {blocks} {blocks} sha256 {} {}",
        hex(&secret.root_hash),
        hex(&secret.salt)
    );
    map("inwit-verity", "verity", &parameters, secret)
}

fn map_crypt(verity: &str, secret: &DiskSecret) -> nix::Result<String> {
    let key = Zeroizing::new(hex(secret.key.expose()));
    let parameters = Zeroizing::new(format!("aes-xts-plain64 {} 0 {verity} 0", key.as_str()));
    map("inwit-workload", "crypt", &parameters, secret)
}

fn map(name: &str, kind: &str, parameters: &str, secret: &DiskSecret) -> nix::Result<String> {
    let per_block = BLOCK.checked_div(SECTOR).unwrap_or(8);
    let sectors = secret.data_blocks.checked_mul(per_block).ok_or(nix::Error::EOVERFLOW)?;
    let minor = dm_create_read_only(name, &Target { sectors, kind, parameters })?;
    Ok(format!("/dev/dm-{minor}"))
}
