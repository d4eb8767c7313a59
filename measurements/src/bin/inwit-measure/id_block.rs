//! ID blocks: the options that sign one for each launch digest, and `inwit-measure id-block check`.
//!
//! Not trusted: the words given, key files, foreign blocks. Never writes a private key.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use data_encoding::{BASE64, HEXLOWER, HEXLOWER_PERMISSIVE};
use inwit_measurements::Digest;
use inwit_measurements::snp::id_block::{
    ID_AUTH_BYTES, ID_BLOCK_BYTES, IdBlock, LaunchPolicy, PublicKey, SignedIdBlock, SigningKey, VerifiedIdBlock,
};
use ring::rand::SystemRandom;
use serde_json::{Value, json};

use crate::arguments::OutputArguments;
use crate::files::{Failure, FileKind, read, read_key};
use crate::report::Printed;

/// Options for signing.
#[derive(Args)]
pub(crate) struct IdBlockArguments {
    /// Private key (ECDSA P-384, PEM or DER) that signs an ID block over each launch digest.
    #[arg(long, value_name = "FILE", help_heading = "ID block")]
    id_key: Option<PathBuf>,
    /// Private key that signs the ID key; QEMU then needs author-key-enabled=on.
    #[arg(long, value_name = "FILE", requires = "id_key", help_heading = "ID block")]
    author_key: Option<PathBuf>,
    /// Your number of the family of images: 32 hexadecimal digits [default: zero].
    #[arg(long, value_name = "HEX", requires = "id_key", value_parser = parse_id, help_heading = "ID block")]
    family_id: Option<[u8; 16]>,
    /// Your number of the image: 32 hexadecimal digits [default: zero].
    #[arg(long, value_name = "HEX", requires = "id_key", value_parser = parse_id, help_heading = "ID block")]
    image_id: Option<[u8; 16]>,
    /// Your version of the image [default: 0].
    #[arg(long, value_name = "NUMBER", requires = "id_key", help_heading = "ID block")]
    guest_svn: Option<u32>,
    /// Policy that the guest is launched with, as given to QEMU [default: 0x30000].
    #[arg(long, value_name = "HEX", requires = "id_key", value_parser = parse_policy, help_heading = "ID block")]
    policy: Option<LaunchPolicy>,
}

/// What signs ID blocks.
pub(crate) struct Signer<'a> {
    arguments: &'a IdBlockArguments,
    id_key: SigningKey,
    author_key: Option<SigningKey>,
}

impl IdBlockArguments {
    /// Whether ID blocks are asked for.
    pub(crate) const fn is_given(&self) -> bool {
        self.id_key.is_some()
    }

    /// Whether it is said what an ID block holds, and none is asked for.
    pub(crate) const fn lacks_key(&self) -> bool {
        let Self { id_key, author_key, family_id, image_id, guest_svn, policy } = self;
        let said = author_key.is_some() || family_id.is_some() || image_id.is_some();
        id_key.is_none() && (said || guest_svn.is_some() || policy.is_some())
    }

    /// The keys; none when no ID block is asked for.
    pub(crate) fn signer(&self) -> Result<Option<Signer<'_>>, Failure> {
        let key = |path: &PathBuf| {
            let key = SigningKey::read(&read_key(path)?, &SystemRandom::new());
            key.map_err(|error| Failure::Refused(format!("{}: {error}", path.display())))
        };
        let Some(id_key) = &self.id_key else { return Ok(None) };
        let author_key = self.author_key.as_ref().map(key).transpose()?;
        Ok(Some(Signer { arguments: self, id_key: key(id_key)?, author_key }))
    }
}

impl Signer<'_> {
    /// An ID block over a launch digest.
    pub(crate) fn sign(&self, launch_digest: Digest<48>) -> Result<SignedIdBlock, Failure> {
        let IdBlockArguments { family_id, image_id, guest_svn, policy, .. } = self.arguments;
        let block = IdBlock {
            launch_digest,
            family_id: family_id.unwrap_or_default(),
            image_id: image_id.unwrap_or_default(),
            guest_svn: guest_svn.unwrap_or_default(),
            policy: policy.unwrap_or(LaunchPolicy::DEFAULT),
        };
        block.sign(&self.id_key, self.author_key.as_ref(), &SystemRandom::new()).map_err(Failure::refused)
    }
}

/// The keys of a block and the block itself, by name, in the order in which they are printed.
pub(crate) fn fields(signed: &SignedIdBlock) -> Vec<(&'static str, String)> {
    let mut fields = keys(&signed.id_key, signed.author_key.as_ref());
    fields.push(("id_block", BASE64.encode(&signed.block)));
    fields.push(("id_auth", BASE64.encode(signed.auth.as_slice())));
    fields
}

fn keys(id_key: &PublicKey, author_key: Option<&PublicKey>) -> Vec<(&'static str, String)> {
    let author = author_key.map(|key| ("author_key_digest", key.digest().to_string()));
    [("id_key_digest", id_key.digest().to_string())].into_iter().chain(author).collect()
}

/// A line for each field.
pub(crate) fn lines(fields: &[(&'static str, String)]) -> String {
    fields.iter().map(|(name, value)| format!("{name} {value}\n")).collect()
}

/// What can be done with an ID block that is there.
#[derive(Subcommand)]
pub(crate) enum IdBlockCommand {
    /// Says what an ID block holds, after its signatures were verified.
    ///
    /// Whose keys they are is yours to judge: compare the key digests, which the attestation report carries as well.
    Check(CheckArguments),
}

#[derive(Args)]
pub(crate) struct CheckArguments {
    /// The ID block: 96 bytes, or the same in base64.
    #[arg(long, value_name = "FILE")]
    id_block: PathBuf,
    /// The ID authentication information: 4096 bytes, or the same in base64.
    #[arg(long, value_name = "FILE")]
    id_auth: PathBuf,
    /// Launch digest that the block must be for.
    #[arg(long, value_name = "SHA384")]
    launch_digest: Option<Digest<48>>,
}

/// Verifies a foreign ID block and gives what it says.
pub(crate) fn check(arguments: &CheckArguments, output: &OutputArguments) -> Result<Printed, Failure> {
    let (block, auth) = (unpacked(&arguments.id_block, ID_BLOCK_BYTES)?, unpacked(&arguments.id_auth, ID_AUTH_BYTES)?);
    let verified = VerifiedIdBlock::verify(&block, &auth).map_err(Failure::refused)?;
    let IdBlock { launch_digest, family_id, image_id, guest_svn, policy } = verified.block;
    if let Some(expected) = arguments.launch_digest
        && expected != launch_digest
    {
        return Err(Failure::Refused(format!("the ID block is for launch digest {launch_digest}, not for {expected}")));
    }
    let mut fields = vec![
        ("launch_digest", launch_digest.to_string()),
        ("family_id", HEXLOWER.encode(&family_id)),
        ("image_id", HEXLOWER.encode(&image_id)),
        ("guest_svn", guest_svn.to_string()),
        ("policy", format!("{:#x}", policy.raw())),
    ];
    fields.extend(keys(&verified.id_key, verified.author_key.as_ref()));
    match output.json {
        false => Ok(lines(&fields).into()),
        true => {
            let mut json: Value = fields.into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect();
            json["guest_svn"] = json!(guest_svn);
            Ok(json.to_string().into())
        }
    }
}

/// The bytes of a file that holds them as they are, or in base64.
fn unpacked(path: &PathBuf, bytes: usize) -> Result<Vec<u8>, Failure> {
    let file = read(path, FileKind::Small)?;
    if file.len() == bytes {
        return Ok(file.to_vec());
    }
    let text: Vec<u8> = file.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    // What is neither is told by its length.
    Ok(BASE64.decode(&text).unwrap_or_else(|_| file.to_vec()))
}

fn parse_id(text: &str) -> Result<[u8; 16], String> {
    let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok();
    bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| "expected 32 hexadecimal digits".to_owned())
}

fn parse_policy(text: &str) -> Result<LaunchPolicy, String> {
    let digits = text
        .strip_prefix("0x")
        .or_else(|| text.strip_prefix("0X"))
        .ok_or("expected a hexadecimal number such as 0x30000")?;
    let raw = u64::from_str_radix(digits, 16).map_err(|_| "expected up to 16 hexadecimal digits")?;
    LaunchPolicy::from_raw(raw).map_err(|error| error.to_string())
}
