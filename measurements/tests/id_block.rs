//! ID blocks: ours as OpenSSL sees them, a foreign one, and spoiled ones, each named after its fault.
//!
//! What does not run is said on standard error; `INWIT_VECTORS` names the collected vectors.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use inwit_measurements::Digest;
use inwit_measurements::snp::id_block::{
    ID_AUTH_BYTES, IdBlock, IdBlockError, KeyError, LaunchPolicy, SignedIdBlock, SigningKey, VerifiedIdBlock,
};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair};

fn key() -> SigningKey {
    let random = SystemRandom::new();
    let file = EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &random).unwrap();
    SigningKey::read(file.as_ref(), &random).unwrap()
}

fn block() -> IdBlock {
    IdBlock {
        launch_digest: Digest::from_bytes([0xa5; 48]),
        family_id: *b"family of images",
        image_id: *b"this very image!",
        guest_svn: 0x0102_0304,
        policy: LaunchPolicy::DEFAULT,
    }
}

#[test]
fn what_was_signed_verifies_and_is_read_back() {
    let (id_key, author_key) = (key(), key());
    for author in [None, Some(&author_key)] {
        let signed = block().sign(&id_key, author, &SystemRandom::new()).unwrap();
        let verified = VerifiedIdBlock::verify(&signed.block, signed.auth.as_slice()).unwrap();
        assert_eq!(verified.block, block());
        assert_eq!(verified.id_key, id_key.public());
        assert_eq!(verified.author_key, author.map(SigningKey::public));
    }
}

/// Each fault alone, in an otherwise good pair.
#[test]
fn spoiled_pairs_are_refused_by_name() {
    let good = block().sign(&key(), Some(&key()), &SystemRandom::new()).unwrap();
    let refused = |name: &str, spoil: &dyn Fn(&mut Vec<u8>, &mut Vec<u8>), expected: IdBlockError| {
        let (mut block, mut auth) = (good.block.to_vec(), good.auth.to_vec());
        spoil(&mut block, &mut auth);
        assert_eq!(VerifiedIdBlock::verify(&block, &auth), Err(expected), "{name}");
    };
    let over_block = IdBlockError::Signature("signature over the ID block");
    let over_key = IdBlockError::Signature("signature over the ID key");
    let reserved = IdBlockError::Reserved;
    refused("short block", &|block, _| block.truncate(95), IdBlockError::BlockLength(95));
    refused("long block", &|block, _| block.push(0), IdBlockError::BlockLength(97));
    refused("short authentication", &|_, auth| auth.truncate(4095), IdBlockError::AuthLength(4095));
    refused("long authentication", &|_, auth| auth.push(0), IdBlockError::AuthLength(4097));
    refused("version", &|block, _| block[80] = 2, IdBlockError::Version(2));
    refused("policy without bit 17", &|block, _| block[90] = 1, IdBlockError::Policy(0x1_0000));
    refused("policy with bit 26", &|block, _| block[91] = 4, IdBlockError::Policy(0x403_0000));
    for (name, at) in [("digest", 0), ("family", 48), ("image", 64), ("SVN", 84), ("policy", 88)] {
        refused(name, &|block, _| block[at] ^= 1, over_block.clone());
    }
    let algorithm = |key, algorithm| IdBlockError::Algorithm { key, algorithm };
    refused("algorithm", &|_, auth| auth[0] = 2, algorithm("ID key", 2));
    refused("author's algorithm", &|_, auth| auth[4] = 0, algorithm("author key", 0));
    for at in [0x8, 0x3f, 0x644, 0x67f, 0xc84, ID_AUTH_BYTES - 1] {
        refused("reserved", &|_, auth| auth[at] = 1, reserved("ID authentication information"));
    }
    refused("curve", &|_, auth| auth[0x240] = 1, IdBlockError::Curve { key: "ID key", curve: 1 });
    refused("author's curve", &|_, auth| auth[0x880] = 3, IdBlockError::Curve { key: "author key", curve: 3 });
    // Above the 48 bytes of a number, and after the numbers.
    for at in [0x244 + 48, 0x244 + 72 + 71, 0x643] {
        refused("long ID key", &|_, auth| auth[at] = 1, reserved("ID key"));
    }
    for at in [0x40 + 48, 0x40 + 143, 0x40 + 144, 0x23f] {
        refused("long signature", &|_, auth| auth[at] = 1, reserved("signature over the ID block"));
    }
    refused("signature", &|_, auth| auth[0x40] ^= 1, over_block.clone());
    refused("ID key", &|_, auth| auth[0x244] ^= 1, over_block.clone());
    refused("key signature", &|_, auth| auth[0x680] ^= 1, over_key.clone());
    refused("author key", &|_, auth| auth[0x884] ^= 1, over_key.clone());
    refused("zero signature", &|_, auth| auth[0x40..0x240].fill(0), over_block);
    refused("no key signature", &|_, auth| auth[0x680..0x880].fill(0), over_key);
}

/// Made by another program's tests, with the digests of its keys that it expects.
#[test]
fn a_foreign_pair_verifies() {
    let vectors = std::env::var_os("INWIT_VECTORS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors"), PathBuf::from);
    let Ok(auth) = std::fs::read(vectors.join("virtee+sev/id-block/test_auth_block.bin")) else {
        let _ = writeln!(std::io::stderr(), "NOT RUN: 1 vector: test_auth_block.bin");
        return;
    };
    let digest = "a14d638341e5674628fe1e02fbedebe5e5ab4faf1dd72d8966068e615bb99efd13d214b35c231715b38e263dc6059745";
    let expected = IdBlock {
        launch_digest: digest.parse().unwrap(),
        family_id: [0; 16],
        image_id: [0; 16],
        guest_svn: 0,
        policy: LaunchPolicy::DEFAULT,
    };
    let verified = VerifiedIdBlock::verify(&expected.to_bytes(), &auth).unwrap();
    assert_eq!(verified.block, expected);
    assert_eq!(
        verified.id_key.digest().to_string(),
        "59fb2c686dfa4fef49f38339aa775c90051c28d57383ddc3baf3b5eb4b1496df3b0dbbdcbae5fe27677a644820773fe2"
    );
    assert_eq!(
        verified.author_key.unwrap().digest().to_string(),
        "eed81169fb0cb5e0ec34794f128fd4e0c4a46f67c65a1adfa81fcb24bcc088c272369b7ffc3eb2b6af6a4284a1b36c5f"
    );
    let mut other = expected;
    other.guest_svn = 1;
    let refused = IdBlockError::Signature("signature over the ID block");
    assert_eq!(VerifiedIdBlock::verify(&other.to_bytes(), &auth), Err(refused));
}

struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("inwit-id-block-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Runs OpenSSL here; nothing when there is none, which is told.
    fn openssl(&self, arguments: &str) -> Option<String> {
        match Command::new("openssl").args(arguments.split(' ')).current_dir(&self.0).output() {
            Ok(output) => {
                assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
                Some(String::from_utf8_lossy(&output.stdout).into_owned())
            }
            Err(_) => {
                assert!(std::env::var_os("INWIT_WORLD").is_none_or(|value| value != "required"), "install openssl");
                let _ = writeln!(std::io::stderr(), "NOT RUN: ID blocks beside OpenSSL: there is none");
                None
            }
        }
    }

    fn key(&self, name: &str) -> Result<SigningKey, KeyError> {
        SigningKey::read(&std::fs::read(self.0.join(name)).unwrap(), &SystemRandom::new())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// {r, s} in DER, from a stored signature.
fn signature_in_der(stored: &[u8]) -> Vec<u8> {
    let integer = |stored: &[u8]| {
        let number: Vec<u8> = stored[..48].iter().rev().copied().skip_while(|byte| *byte == 0).collect();
        let sign = if number[0] >= 0x80 { vec![0] } else { vec![] };
        [vec![2, (number.len() + sign.len()) as u8], sign, number].concat()
    };
    let body = [integer(stored), integer(&stored[72..])].concat();
    [vec![0x30, body.len() as u8], body].concat()
}

/// Keys of every form that OpenSSL writes; its verdict on what they signed.
#[test]
fn openssl_verifies_our_signatures() {
    let folder = Folder::new();
    if folder.openssl("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out id.pem").is_none() {
        return;
    }
    let run = |arguments: &str| folder.openssl(arguments).unwrap();
    run("ecparam -name secp384r1 -genkey -out author.pem");
    run("ec -in id.pem -outform DER -out id-ec.der");
    run("pkcs8 -topk8 -nocrypt -in id.pem -outform DER -out id.der");
    run("pkcs8 -topk8 -passout pass:x -in id.pem -out encrypted.pem");
    run("ec -aes256 -passout pass:x -in id.pem -out encrypted-ec.pem");
    run("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out p256.pem");
    run("genpkey -algorithm RSA -out rsa.pem");
    let (id, author) = (folder.key("id.pem").unwrap(), folder.key("author.pem").unwrap());
    for name in ["id-ec.der", "id.der"] {
        assert_eq!(folder.key(name).unwrap().public(), id.public(), "{name}");
    }
    for (name, refused) in [
        ("encrypted.pem", KeyError::Encrypted),
        ("encrypted-ec.pem", KeyError::Encrypted),
        ("p256.pem", KeyError::Unfit),
        ("rsa.pem", KeyError::Unfit),
    ] {
        assert_eq!(folder.key(name).unwrap_err(), refused, "{name}");
    }
    let SignedIdBlock { block, auth, .. } = block().sign(&id, Some(&author), &SystemRandom::new()).unwrap();
    for (key, message, signature) in
        [("id.pem", block.as_slice(), &auth[0x40..0x240]), ("author.pem", &auth[0x240..0x644], &auth[0x680..0x880])]
    {
        std::fs::write(folder.0.join("message"), message).unwrap();
        std::fs::write(folder.0.join("signature"), signature_in_der(signature)).unwrap();
        run(&format!("pkey -in {key} -pubout -out public.pem"));
        assert!(run("dgst -sha384 -verify public.pem -signature signature message").contains("Verified OK"));
    }
}

#[test]
fn what_is_no_key_is_refused() {
    let read = |file: &[u8]| SigningKey::read(file, &SystemRandom::new()).unwrap_err();
    assert_eq!(read(b""), KeyError::NotAKey);
    assert_eq!(read(b"text"), KeyError::NotAKey);
    assert_eq!(read(&[0x30, 3, 2, 1, 7]), KeyError::NotAKey);
    assert_eq!(read(&[0x30, 3, 2, 1, 0]), KeyError::Unfit);
    assert_eq!(read(&vec![0x30; 1 << 15]), KeyError::NotAKey);
    assert_eq!(read(b"-----BEGIN PRIVATE KEY-----\nAAAA"), KeyError::NotAKey);
    assert_eq!(read(b"-----BEGIN PRIVATE KEY-----\n!\n-----END PRIVATE KEY-----"), KeyError::NotAKey);
    assert_eq!(read(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"), KeyError::Unfit);
    assert_eq!(read(b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"), KeyError::NotAKey);
}
