//! The sealed workload disk: its layout, and the secret that opens it.
//!
//! ```text
//! block 0 … n-1      ciphertext, AES-256-XTS, tweak = 512-byte sector number (dm-crypt `aes-xts-plain64`)
//! block n … n+t-1    dm-verity hash tree over the ciphertext, top level first (4,096-byte blocks, SHA-256)
//! last block         label: magic, version, disk id; not trusted, there for a clear message when the wrong disk is attached
//! ```
//!
//! Why not LUKS2: a LUKS header is written by whoever holds the disk, which is the host, and brings a parser, a key
//! derivation and a C library for a key that is already uniform. Every parameter that matters (key, root hash, salt,
//! size) travels in the sealed secret instead. XTS alone does not notice alteration or roll-back; the verity tree under
//! it does, since its root hash comes with the key.

use crate::cbor::{self, Items, ParseError};
use crate::secret::Secret;
use ciborium::Value;
use zeroize::Zeroize;

const LABEL: &str = "inwit-disk-v1";
/// Bytes of a block of data, tree and label.
pub const BLOCK: u64 = 4_096;
/// Bytes of a sector, the unit of the tweak.
pub const SECTOR: u64 = 512;
const MAGIC: &[u8; 8] = b"INWITDSK";
const VERSION: u32 = 1;

/// What a released disk secret holds.
pub struct DiskSecret {
    /// Two AES-256 keys, data then tweak: 64 bytes.
    pub key: Secret,
    /// Root of the hash tree.
    pub root_hash: [u8; 32],
    /// Salt of the hash tree.
    pub salt: [u8; 32],
    /// Number of data blocks of 4,096 bytes, at least 1.
    pub data_blocks: u64,
}

impl DiskSecret {
    /// Deterministic CBOR, itself a secret.
    pub fn encode(&self) -> Secret {
        let mut value = Value::Array(vec![
            Value::Text(LABEL.into()),
            Value::Bytes(self.key.expose().to_vec()),
            Value::Bytes(self.root_hash.into()),
            Value::Bytes(self.salt.into()),
            Value::Integer(self.data_blocks.into()),
        ]);
        let secret = Secret::new(cbor::encode(&value));
        wipe(&mut value);
        secret
    }

    /// Reads what [`DiskSecret::encode`] wrote.
    pub fn parse(secret: &Secret) -> Result<Self, ParseError> {
        let mut items = Items::labelled(secret.expose(), LABEL)?;
        let key = Secret::new(items.bytes(64)?);
        let disk = Self { key, root_hash: items.array()?, salt: items.array()?, data_blocks: items.unsigned()? };
        items.end()?;
        let sized = disk.key.expose().len() == 64 && (1..1 << 40).contains(&disk.data_blocks);
        if sized { Ok(disk) } else { Err(ParseError::Length(LABEL)) }
    }

    /// Public name of the disk: its root hash commits to every byte of the ciphertext and tells nothing about the key.
    pub fn id(&self) -> [u8; 32] {
        self.root_hash
    }
}

fn wipe(value: &mut Value) {
    match value {
        Value::Bytes(bytes) => bytes.zeroize(),
        Value::Array(items) => items.iter_mut().for_each(wipe),
        _ => {}
    }
}

/// The last block of a disk with this id.
pub fn label_block(id: &[u8; 32]) -> Vec<u8> {
    let mut block = [MAGIC.as_slice(), &VERSION.to_be_bytes(), id].concat();
    block.resize(usize::try_from(BLOCK).unwrap_or(4_096), 0);
    block
}

/// The disk id that a last block states, if it is one of ours. A hint for a person, never a fact.
pub fn stated_id(block: &[u8]) -> Option<[u8; 32]> {
    let rest = block.strip_prefix(MAGIC)?.strip_prefix(&VERSION.to_be_bytes())?;
    rest.get(..32)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_and_label_round_trip() {
        let disk = DiskSecret { key: Secret::new(vec![5; 64]), root_hash: [1; 32], salt: [2; 32], data_blocks: 3 };
        let back = DiskSecret::parse(&disk.encode()).unwrap();
        assert_eq!(back.key.expose(), disk.key.expose());
        assert_eq!((back.root_hash, back.salt, back.data_blocks), ([1; 32], [2; 32], 3));
        assert_eq!(stated_id(&label_block(&disk.id())), Some([1; 32]));
        assert_eq!(stated_id(&[0; 4096]), None);
        assert_eq!(stated_id(b"INWITDSK"), None);
    }

    #[test]
    fn absurd_sizes_are_refused() {
        for (key, blocks) in [(63, 3), (64, 0), (64, 1 << 40)] {
            let disk =
                DiskSecret { key: Secret::new(vec![5; key]), root_hash: [1; 32], salt: [2; 32], data_blocks: blocks };
            assert!(DiskSecret::parse(&disk.encode()).is_err(), "{key} {blocks}");
        }
    }
}
