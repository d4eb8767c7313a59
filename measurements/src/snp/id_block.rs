//! ID block and ID authentication: the owner's signature over a launch, which the security processor checks before the
//! guest runs and whose keys the attestation report then names.
//!
//! Sources: AMD SEV-SNP Firmware ABI (56860) section 8.18 and its tables of ID block, ID authentication information,
//! ECDSA public key and signature. All integers are little-endian.
//!
//! Not trusted: blocks that are checked. Never done here: keeping a key, choosing randomness.

mod key;

pub use key::{KeyError, MAX_KEY_FILE, PublicKey, SigningKey};

use ring::rand::SecureRandom;
use thiserror::Error;

use crate::bytes::{array_at, slice_at, u32_at, u64_at};
use crate::digest::Digest;
use key::{KEY_BYTES, SIGNATURE_BYTES};

/// Bytes of an ID block.
pub const ID_BLOCK_BYTES: usize = 96;
/// Bytes of the ID authentication information.
pub const ID_AUTH_BYTES: usize = 4096;

/// The only version there is.
const VERSION: u32 = 1;
/// ECDSA P-384 with SHA-384: the only algorithm there is.
const ALGORITHM: u32 = 1;
// Offsets in the ID authentication information; what lies between is reserved.
const BLOCK_SIGNATURE: usize = 0x040;
const ID_KEY: usize = 0x240;
const KEY_SIGNATURE: usize = 0x680;
const AUTHOR_KEY: usize = 0x880;

/// POLICY of a launch. Bit 17 is one, bits 26 and up are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaunchPolicy(u64);

impl LaunchPolicy {
    /// Threads of a core may be shared; nothing else is allowed: what hypervisors take when nothing is said.
    pub const DEFAULT: Self = Self(0x3_0000);

    /// Takes the raw policy.
    ///
    /// # Errors
    /// [`IdBlockError::Policy`].
    pub fn from_raw(policy: u64) -> Result<Self, IdBlockError> {
        let sound = policy >> 26 == 0 && policy >> 17 & 1 == 1;
        if sound { Ok(Self(policy)) } else { Err(IdBlockError::Policy(policy)) }
    }

    /// The raw policy.
    #[must_use]
    pub const fn raw(self) -> u64 {
        self.0
    }
}

/// What the owner says of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdBlock {
    /// The launch digest that the guest must have.
    pub launch_digest: Digest<48>,
    /// The owner's number of a family of images.
    pub family_id: [u8; 16],
    /// The owner's number of the image.
    pub image_id: [u8; 16],
    /// The owner's version of the image, for sealed keys and appraisal.
    pub guest_svn: u32,
    /// The policy that the guest must be launched with.
    pub policy: LaunchPolicy,
}

/// Why an ID block is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IdBlockError {
    /// The block has another length.
    #[error("an ID block has {ID_BLOCK_BYTES} bytes, not {0}")]
    BlockLength(usize),
    /// The authentication information has another length.
    #[error("ID authentication information has {ID_AUTH_BYTES} bytes, not {0}")]
    AuthLength(usize),
    /// A version that this program does not know.
    #[error("ID block version {0}: only {VERSION} is known")]
    Version(u32),
    /// A policy that no guest can be launched with.
    #[error("guest policy {0:#x}: bit 17 must be one, bits 26 and up zero")]
    Policy(u64),
    /// Bytes that must be zero are not.
    #[error("reserved bytes of the {0} are not zero")]
    Reserved(&'static str),
    /// Another algorithm than ECDSA P-384 with SHA-384.
    #[error("the {key} has algorithm {algorithm}: only {ALGORITHM}, ECDSA P-384 with SHA-384, is known")]
    Algorithm {
        /// ID key or author key.
        key: &'static str,
        /// As stored.
        algorithm: u32,
    },
    /// A key on another curve.
    #[error("the {key} lies on curve {curve}: only 2, P-384, is known")]
    Curve {
        /// ID key or author key.
        key: &'static str,
        /// As stored.
        curve: u32,
    },
    /// A signature that does not verify.
    #[error("the {0} does not verify: block, key or signature was changed, or they do not belong together")]
    Signature(&'static str),
    /// Signing failed.
    #[error("signing failed: no randomness")]
    Signing,
}

impl IdBlock {
    /// The block as the security processor takes it.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; ID_BLOCK_BYTES] {
        let mut bytes = [0; ID_BLOCK_BYTES];
        bytes[..48].copy_from_slice(self.launch_digest.as_bytes());
        bytes[48..64].copy_from_slice(&self.family_id);
        bytes[64..80].copy_from_slice(&self.image_id);
        bytes[80..84].copy_from_slice(&VERSION.to_le_bytes());
        bytes[84..88].copy_from_slice(&self.guest_svn.to_le_bytes());
        bytes[88..].copy_from_slice(&self.policy.raw().to_le_bytes());
        bytes
    }

    /// Reads a block.
    ///
    /// # Errors
    /// [`IdBlockError::BlockLength`], [`IdBlockError::Version`], [`IdBlockError::Policy`].
    pub fn parse(bytes: &[u8]) -> Result<Self, IdBlockError> {
        let wrong_length = IdBlockError::BlockLength(bytes.len());
        let fields = || {
            let digest: [u8; 48] = array_at(bytes, 0)?;
            Some((digest, array_at(bytes, 48)?, array_at(bytes, 64)?, u32_at(bytes, 80)?, u32_at(bytes, 84)?))
        };
        let (Some((digest, family_id, image_id, version, guest_svn)), Some(policy), ID_BLOCK_BYTES) =
            (fields(), u64_at(bytes, 88), bytes.len())
        else {
            return Err(wrong_length);
        };
        if version != VERSION {
            return Err(IdBlockError::Version(version));
        }
        let policy = LaunchPolicy::from_raw(policy)?;
        Ok(Self { launch_digest: digest.into(), family_id, image_id, guest_svn, policy })
    }

    /// Signs the block with the ID key, and the ID key with the author key where there is one.
    ///
    /// # Errors
    /// [`IdBlockError::Signing`].
    pub fn sign(
        &self,
        id_key: &SigningKey,
        author_key: Option<&SigningKey>,
        random: &dyn SecureRandom,
    ) -> Result<SignedIdBlock, IdBlockError> {
        let block = self.to_bytes();
        let mut auth = Box::new([0; ID_AUTH_BYTES]);
        let mut put = |at: usize, bytes: &[u8]| auth[at..at + bytes.len()].copy_from_slice(bytes);
        let public = id_key.public();
        put(0, &ALGORITHM.to_le_bytes());
        put(BLOCK_SIGNATURE, &id_key.sign(&block, random)?);
        put(ID_KEY, public.as_bytes());
        if let Some(author) = author_key {
            put(4, &ALGORITHM.to_le_bytes());
            put(KEY_SIGNATURE, &author.sign(public.as_bytes(), random)?);
            put(AUTHOR_KEY, author.public().as_bytes());
        }
        Ok(SignedIdBlock { block, auth, id_key: public, author_key: author_key.map(SigningKey::public) })
    }
}

/// A signed ID block, as hypervisors take it (QEMU: both in base64, as `id-block` and `id-auth` of `sev-snp-guest`, with
/// `author-key-enabled` where there is an author key).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedIdBlock {
    /// The ID block.
    pub block: [u8; ID_BLOCK_BYTES],
    /// The ID authentication information.
    pub auth: Box<[u8; ID_AUTH_BYTES]>,
    /// The key that signed the block; the report carries its digest.
    pub id_key: PublicKey,
    /// The key that signed the ID key; the report carries its digest.
    pub author_key: Option<PublicKey>,
}

/// What a foreign ID block says, after its signatures were verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedIdBlock {
    /// The block.
    pub block: IdBlock,
    /// The key that signed it.
    pub id_key: PublicKey,
    /// The key that signed the ID key; none when the author's fields are empty.
    pub author_key: Option<PublicKey>,
}

impl VerifiedIdBlock {
    /// Reads ID block and ID authentication information and verifies their signatures. Whose keys they are is not judged.
    ///
    /// # Errors
    /// [`IdBlockError`].
    pub fn verify(block: &[u8], auth: &[u8]) -> Result<Self, IdBlockError> {
        let parsed = IdBlock::parse(block)?;
        let fields = AuthFields::split(auth).ok_or(IdBlockError::AuthLength(auth.len()))?;
        fields.check_reserved()?;
        check_algorithm("ID key", fields.id_algorithm)?;
        let id_key = PublicKey::parse("ID key", fields.id_key)?;
        id_key.verify("signature over the ID block", block, fields.block_signature)?;
        let author_key = if fields.has_author() {
            check_algorithm("author key", fields.author_algorithm)?;
            let author_key = PublicKey::parse("author key", fields.author_key)?;
            author_key.verify("signature over the ID key", fields.id_key, fields.key_signature)?;
            Some(author_key)
        } else {
            None
        };
        Ok(Self { block: parsed, id_key, author_key })
    }
}

fn check_algorithm(key: &'static str, algorithm: u32) -> Result<(), IdBlockError> {
    if algorithm == ALGORITHM { Ok(()) } else { Err(IdBlockError::Algorithm { key, algorithm }) }
}

/// The fields of the ID authentication information, none of them checked.
struct AuthFields<'a> {
    id_algorithm: u32,
    author_algorithm: u32,
    block_signature: &'a [u8],
    id_key: &'a [u8],
    key_signature: &'a [u8],
    author_key: &'a [u8],
    reserved: [&'a [u8]; 3],
}

impl<'a> AuthFields<'a> {
    /// Nothing when the length is another.
    fn split(auth: &'a [u8]) -> Option<Self> {
        if auth.len() != ID_AUTH_BYTES {
            return None;
        }
        let after = |at: usize, end: usize| auth.get(at..end);
        Some(Self {
            id_algorithm: u32_at(auth, 0)?,
            author_algorithm: u32_at(auth, 4)?,
            block_signature: slice_at(auth, BLOCK_SIGNATURE, SIGNATURE_BYTES)?,
            id_key: slice_at(auth, ID_KEY, KEY_BYTES)?,
            key_signature: slice_at(auth, KEY_SIGNATURE, SIGNATURE_BYTES)?,
            author_key: slice_at(auth, AUTHOR_KEY, KEY_BYTES)?,
            reserved: [
                after(8, BLOCK_SIGNATURE)?,
                after(ID_KEY + KEY_BYTES, KEY_SIGNATURE)?,
                after(AUTHOR_KEY + KEY_BYTES, ID_AUTH_BYTES)?,
            ],
        })
    }

    fn check_reserved(&self) -> Result<(), IdBlockError> {
        let zero = self.reserved.iter().all(|part| is_zero(part));
        if zero { Ok(()) } else { Err(IdBlockError::Reserved("ID authentication information")) }
    }

    /// Without an author both of its fields are zero; tools write its algorithm all the same.
    fn has_author(&self) -> bool {
        !(is_zero(self.key_signature) && is_zero(self.author_key) && self.author_algorithm <= ALGORITHM)
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}
