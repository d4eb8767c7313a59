//! The Owner's side of the sealed workload disk: encrypts a file system image, builds the hash tree over the ciphertext,
//! and gives the secret that opens it. The layout is `inwit_protocol::disk`'s.

use crate::fault::Fault;
use aes::Aes256;
use aes::cipher::KeyInit;
use inwit_protocol::disk::{BLOCK, DiskSecret, SECTOR, label_block};
use inwit_protocol::secret::Secret;
use ring::digest::{Context, SHA256};
use ring::rand::SecureRandom;
use xts_mode::{Xts128, get_tweak_default};
use zeroize::Zeroizing;

/// Bytes of a block.
const BLOCK_LEN: usize = 4_096;
/// Bytes of a sector.
const SECTOR_LEN: usize = 512;
/// Digests in a block of the tree.
const FAN_OUT: usize = 128;
/// Longest image, in bytes.
const IMAGE_LIMIT: usize = 1 << 33;

const _: () = assert!(BLOCK == 4_096 && SECTOR == 512);

/// An ext4 image must have blocks of 4,096 bytes: the verified device has no smaller ones, and the guest mounts ext4.
fn check_file_system(image: &[u8]) -> Result<(), Fault> {
    // struct ext4_super_block at 1,024: s_log_block_size at +24 (u32), s_magic at +56 (u16), little-endian.
    let at = |offset: usize, length: usize| image.get(offset..offset.saturating_add(length));
    if at(1_080, 2) != Some(&[0x53, 0xef]) {
        return Err(Fault::new(
            "the image is not ext4; make it with `mkfs.ext4 -b 4096 -O ^has_journal -d FOLDER IMAGE SIZE`",
        ));
    }
    if at(1_048, 4) != Some(&[2, 0, 0, 0]) {
        return Err(Fault::new(
            "the ext4 image has blocks of another size than 4096; make it with `mkfs.ext4 -b 4096`",
        ));
    }
    Ok(())
}

/// Seals `image`, an ext4 file system: gives the disk's bytes and the secret that opens it. The last block is filled up with zeros.
pub fn seal(mut image: Vec<u8>, random: &dyn SecureRandom) -> Result<(Vec<u8>, DiskSecret), Fault> {
    if image.len() > IMAGE_LIMIT {
        return Err(Fault::new("a workload image is at most 8 GiB"));
    }
    check_file_system(&image)?;
    image.resize(image.len().div_ceil(BLOCK_LEN).saturating_mul(BLOCK_LEN), 0);
    let data_blocks = u64::try_from(image.len().div_ceil(BLOCK_LEN)).map_err(|error| Fault::of("image", error))?;
    let no_randomness = |_| Fault::new("no randomness for the disk key");
    let mut key = Zeroizing::new([0; 64]);
    random.fill(key.as_mut_slice()).map_err(no_randomness)?;
    let mut salt = [0; 32];
    random.fill(&mut salt).map_err(no_randomness)?;
    encrypt(&mut image, &key)?;
    let (tree, root_hash) = hash_tree(&image, &salt);
    image.extend_from_slice(&tree);
    let secret = DiskSecret { key: Secret::new(key.to_vec()), root_hash, salt, data_blocks };
    image.extend_from_slice(&label_block(&secret.id()));
    Ok((image, secret))
}

/// AES-256-XTS, one tweak for each 512-byte sector: dm-crypt's `aes-xts-plain64`.
fn encrypt(image: &mut [u8], key: &[u8; 64]) -> Result<(), Fault> {
    let (data, tweak) = key.split_at(32);
    if data == tweak {
        return Err(Fault::new("the two halves of an XTS key must differ"));
    }
    let wrong = |_| Fault::new("AES key length");
    let xts = Xts128::<Aes256>::new(
        Aes256::new_from_slice(data).map_err(wrong)?,
        Aes256::new_from_slice(tweak).map_err(wrong)?,
    );
    xts.encrypt_area(image, SECTOR_LEN, 0, get_tweak_default);
    Ok(())
}

/// The dm-verity tree (version 1: salt first) over `data`, levels from the top down, and the salted digest of its top.
fn hash_tree(data: &[u8], salt: &[u8; 32]) -> (Vec<u8>, [u8; 32]) {
    let digest = |block: &[u8]| {
        let mut context = Context::new(&SHA256);
        context.update(salt);
        context.update(block);
        let mut out = [0; 32];
        out.copy_from_slice(context.finish().as_ref());
        out
    };
    let mut levels: Vec<Vec<u8>> = Vec::new();
    let mut digests: Vec<[u8; 32]> = data.chunks(BLOCK_LEN).map(digest).collect();
    while digests.len() > 1 {
        let mut level = Vec::new();
        for group in digests.chunks(FAN_OUT) {
            let mut block = group.concat();
            block.resize(BLOCK_LEN, 0);
            level.extend_from_slice(&block);
        }
        digests = level.chunks(BLOCK_LEN).map(digest).collect();
        levels.push(level);
    }
    levels.reverse();
    // One data block has no level above it: its own digest is the root.
    (levels.concat(), digests.first().copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::rand::SystemRandom;

    /// 200 blocks and a byte of sevens that look like ext4 with this logarithmic block size.
    fn ext4(log_block_size: u8) -> Vec<u8> {
        let mut image = vec![7; BLOCK_LEN * 200 + 1];
        image[1_080..1_082].copy_from_slice(&[0x53, 0xef]);
        image[1_048..1_052].copy_from_slice(&[log_block_size, 0, 0, 0]);
        image
    }

    #[test]
    fn an_image_that_would_not_mount_is_refused_before_it_is_sealed() {
        assert!(seal(ext4(0), &SystemRandom::new()).is_err_and(|fault| fault.to_string().contains("-b 4096")));
        assert!(seal(vec![0; 8_192], &SystemRandom::new()).is_err_and(|fault| fault.to_string().contains("not ext4")));
        assert!(seal(vec![], &SystemRandom::new()).is_err());
    }

    #[test]
    fn layout_and_sizes() {
        let (disk, secret) = seal(ext4(2), &SystemRandom::new()).unwrap();
        // 201 data blocks, 2 + 1 blocks of tree, 1 label
        assert_eq!(secret.data_blocks, 201);
        assert_eq!(disk.len(), BLOCK_LEN * (201 + 3 + 1));
        assert!(!disk.windows(32).any(|w| w == [7; 32]), "plain text on the disk");
        assert_eq!(inwit_protocol::disk::stated_id(&disk[disk.len() - BLOCK_LEN..]), Some(secret.root_hash));
    }

    /// A tree of two data blocks, recomputed by the definition in the kernel's dm-verity documentation.
    #[test]
    fn a_small_tree_by_hand() {
        let (salt, data) = ([3; 32], [vec![1; BLOCK_LEN], vec![2; BLOCK_LEN]].concat());
        let h = |block: &[u8]| inwit_protocol::primitives::sha256(&[salt.as_slice(), block].concat());
        let mut top = [h(&data[..BLOCK_LEN]), h(&data[BLOCK_LEN..])].concat();
        top.resize(BLOCK_LEN, 0);
        assert_eq!(hash_tree(&data, &salt), (top.clone(), h(&top)));
    }

    /// IEEE 1619 vector 10 (AES-256-XTS, 512-byte unit), first 32 bytes, data unit number 0xff.
    #[test]
    fn xts_vector() {
        let data: Vec<u8> = "2718281828459045235360287471352662497757247093699959574966967627"
            .as_bytes()
            .chunks(2)
            .map(|d| u8::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap())
            .collect();
        let tweak: Vec<u8> = "3141592653589793238462643383279502884197169399375105820974944592"
            .as_bytes()
            .chunks(2)
            .map(|d| u8::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap())
            .collect();
        let mut unit: Vec<u8> = (0..=255).chain(0..=255).collect();
        let xts =
            Xts128::<Aes256>::new(Aes256::new_from_slice(&data).unwrap(), Aes256::new_from_slice(&tweak).unwrap());
        xts.encrypt_sector(&mut unit, get_tweak_default(0xff));
        assert_eq!(crate::audit::hex(&unit[..16]), "1c3b3a102f770386e4836c99e370cf9b");
    }
}
