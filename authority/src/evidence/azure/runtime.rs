//! The runtime claims of Azure's paravisor: which key is the virtual TPM's, how the VM was configured, and 64 bytes of
//! the guest's (openhcl_attestation_protocol, `runtime_claims`; JSON). They are read only after their bytes were found in
//! a hardware report whose signature holds, so they are the measured paravisor's word; and read strictly all the same.
//!
//! `az-cvm-vtpm` finds the key too, and takes the first of several of one name, padded or unused base64 bits and all; so
//! the key is taken in one form only, once, and the library's reading has to agree.

use az_cvm_vtpm::hcl::HclReport;
use serde::Deserialize;
use thiserror::Error;

use crate::evidence::claims::RuntimeClaims;
use crate::evidence::vtpm::{RsaError, RsaKey};

/// Name of the virtual TPM's attestation key among the keys.
const ATTESTATION_KEY: &str = "HCLAkPub";
/// Longest text that is kept, in bytes.
const TEXT_LIMIT: usize = 128;

/// Why runtime claims cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(in crate::evidence) enum RuntimeError {
    #[error("the runtime claims are not the JSON that they should be, at line {0} column {1}")]
    Json(usize, usize),
    #[error("{0} in the runtime claims is not of its form")]
    Form(&'static str),
    #[error("the runtime claims name {0} HCLAkPub keys, where there is one")]
    Keys(usize),
    #[error("HCLAkPub in the runtime claims is no RSA key in base64url")]
    Encoding,
    #[error("HCLAkPub in the runtime claims: {0}")]
    Key(#[from] RsaError),
    #[error("az-cvm-vtpm reads another HCLAkPub in the runtime claims")]
    Library,
}

/// Only what is read; newer paravisors say more. A member that is read and stands twice is an error.
#[derive(Deserialize)]
struct Runtime {
    keys: Vec<Key>,
    #[serde(rename = "vm-configuration")]
    configuration: Configuration,
    #[serde(rename = "user-data")]
    user_data: Option<String>,
}

/// A key in JSON Web Key form. What it may be used for is not looked at: an older paravisor wrote "encrypt" beside the
/// attestation key.
#[derive(Deserialize)]
struct Key {
    kid: String,
    kty: String,
    n: Option<String>,
    e: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Configuration {
    console_enabled: bool,
    interactive_console_enabled: Option<bool>,
    secure_boot: bool,
    tpm_enabled: bool,
    tpm_persisted: Option<bool>,
    root_cert_thumbprint: Option<String>,
    current_time: Option<i64>,
    #[serde(rename = "vmUniqueId")]
    vm_unique_id: Option<String>,
}

/// Reads runtime claims that are known to be authentic; `read` is the library's reading of the same report.
pub(super) fn parse(claims: &[u8], read: &HclReport) -> Result<(RuntimeClaims, RsaKey), RuntimeError> {
    let Runtime { keys, configuration, user_data } =
        serde_json::from_slice(claims).map_err(|error| RuntimeError::Json(error.line(), error.column()))?;
    let named: Vec<&Key> = keys.iter().filter(|key| key.kid == ATTESTATION_KEY).collect();
    let [named] = named.as_slice() else { return Err(RuntimeError::Keys(named.len())) };
    let number = |text: &Option<String>| text.as_deref().and_then(base64url).ok_or(RuntimeError::Encoding);
    if named.kty != "RSA" {
        return Err(RuntimeError::Encoding);
    }
    let key = RsaKey::new(&number(&named.n)?, &number(&named.e)?)?;
    if key_of_library(read).as_deref() != Some(key.modulus()) {
        return Err(RuntimeError::Library);
    }
    let user_data = user_data.filter(|hex| !hex.is_empty());
    let user_data = user_data.map(|hex| bytes(&hex).ok_or(RuntimeError::Form("user-data"))).transpose()?;
    let claims = RuntimeClaims {
        attestation_key: key.digest(),
        console_enabled: configuration.console_enabled,
        interactive_console_enabled: configuration.interactive_console_enabled,
        secure_boot: configuration.secure_boot,
        tpm_enabled: configuration.tpm_enabled,
        tpm_persisted: configuration.tpm_persisted,
        root_certificate_thumbprint: text(configuration.root_cert_thumbprint, "root-cert-thumbprint")?,
        vm_unique_id: text(configuration.vm_unique_id, "vmUniqueId")?,
        current_time: configuration.current_time,
        user_data,
    };
    Ok((claims, key))
}

/// The modulus as `az-cvm-vtpm` reads it.
fn key_of_library(read: &HclReport) -> Option<Vec<u8>> {
    let key = serde_json::to_value(read.ak_pub().ok()?).ok()?;
    base64url(key.get("n")?.as_str()?)
}

/// A text that can be printed. An empty one says nothing.
fn text(text: Option<String>, name: &'static str) -> Result<Option<String>, RuntimeError> {
    match text {
        Some(text) if text.len() > TEXT_LIMIT || !text.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Err(RuntimeError::Form(name))
        }
        other => Ok(other.filter(|text| !text.is_empty())),
    }
}

/// 64 bytes in hexadecimal.
fn bytes(hex: &str) -> Option<[u8; 64]> {
    let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
    if !rest.is_empty() || pairs.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut out = [0; 64];
    for (byte, pair) in out.iter_mut().zip(pairs) {
        *byte = u8::from_str_radix(core::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(out)
}

/// base64url without padding (RFC 4648 §5); bits that no byte uses are zero, so that there is one encoding.
fn base64url(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    for four in text.as_bytes().chunks(4) {
        let mut bits: u32 = 0;
        for digit in four {
            let value = match digit {
                b'A'..=b'Z' => digit.checked_sub(b'A')?,
                b'a'..=b'z' => digit.checked_sub(b'a')?.checked_add(26)?,
                b'0'..=b'9' => digit.checked_sub(b'0')?.checked_add(52)?,
                b'-' => 62,
                b'_' => 63,
                _ => return None,
            };
            bits = bits << 6 | u32::from(value);
        }
        // Two digits hold one byte and four bits, three hold two bytes and two bits.
        let (bits, spare, length) = match four.len() {
            4 => (bits, 0, 3),
            3 => (bits >> 2, bits & 0x3, 2),
            2 => (bits >> 4, bits & 0xf, 1),
            _ => return None,
        };
        if spare != 0 {
            return None;
        }
        out.extend(bits.to_be_bytes().get(4_usize.checked_sub(length)?..)?);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 2,048 bits, odd.
    fn modulus() -> String {
        format!("{}_w", "_".repeat(340))
    }

    fn claims(keys: &str, configuration: &str, more: &str) -> String {
        format!(r#"{{"keys":[{keys}],"vm-configuration":{{{configuration}}}{more}}}"#)
    }

    fn key() -> String {
        format!(r#"{{"kid":"HCLAkPub","key_ops":["sign"],"kty":"RSA","e":"AQAB","n":"{}"}}"#, modulus())
    }

    const CONFIGURATION: &str = r#""console-enabled":true,"secure-boot":true,"tpm-enabled":true"#;

    /// Around the claims the library wants a report.
    fn library(claims: &str) -> HclReport {
        let length = u32::try_from(claims.len()).unwrap();
        let mut report = vec![0; 1_236];
        report[1_224] = 2;
        report[1_232..].copy_from_slice(&length.to_le_bytes());
        report.extend(claims.as_bytes());
        HclReport::new(report).unwrap()
    }

    fn read(claims: &str) -> Result<RuntimeClaims, RuntimeError> {
        parse(claims.as_bytes(), &library(claims)).map(|(claims, _)| claims)
    }

    #[test]
    fn what_the_paravisor_says_is_read() {
        let data = format!(r#","user-data":"{}""#, "Ab".repeat(64));
        let full = format!(
            r#"{CONFIGURATION},"interactive-console-enabled":false,"tpm-persisted":true,"ipmi-enabled":true,
               "current-time":1678652405,"root-cert-thumbprint":"","vmUniqueId":"BAEFD3E1-184B-4C4C-AB88-0BDAD260505F""#
        );
        let read_whole = read(&claims(&key(), &full, &data)).unwrap();
        assert_eq!(read_whole.user_data, Some([0xab; 64]));
        assert_eq!((read_whole.interactive_console_enabled, read_whole.tpm_persisted), (Some(false), Some(true)));
        assert_eq!((read_whole.current_time, read_whole.root_certificate_thumbprint), (Some(1_678_652_405), None));
        assert_eq!(read_whole.vm_unique_id.as_deref(), Some("BAEFD3E1-184B-4C4C-AB88-0BDAD260505F"));
        let least = read(&claims(&key(), CONFIGURATION, r#","user-data":"""#)).unwrap();
        assert!(least.console_enabled && least.secure_boot && least.tpm_enabled);
        assert_eq!((least.user_data, least.tpm_persisted, least.vm_unique_id), (None, None, None));
        assert_eq!(least.attestation_key, read_whole.attestation_key);
    }

    #[test]
    fn a_member_that_is_read_stands_once() {
        let once = claims(&key(), CONFIGURATION, "");
        assert!(read(&once).is_ok());
        for (member, again) in [
            (r#""kid":"HCLAkPub""#, r#""kid":"HCLAkPub","kid":"HCLAkPub""#),
            (r#""e":"AQAB""#, r#""e":"AQAB","e":"AQAB""#),
            (r#""kty":"RSA""#, r#""kty":"RSA","\u006bty":"RSA""#),
            (r#""secure-boot":true"#, r#""secure-boot":true,"secure-boot":false"#),
            (r#""keys":["#, r#""keys":[],"keys":["#),
        ] {
            let twice = once.replacen(member, again, 1);
            assert_ne!(twice, once);
            assert!(matches!(read(&twice), Err(RuntimeError::Json(..))), "{again}");
        }
        assert_eq!(read(&claims(&format!("{},{}", key(), key()), CONFIGURATION, "")), Err(RuntimeError::Keys(2)));
        assert_eq!(read(&claims(&key().replace("AkPub", "EkPub"), CONFIGURATION, "")), Err(RuntimeError::Keys(0)));
    }

    #[test]
    fn a_key_has_one_encoding_and_texts_can_be_printed() {
        let spoilt = |from: &str, to: &str| read(&claims(&key(), CONFIGURATION, "").replacen(from, to, 1)).err();
        let last = format!("{}_w", "_".repeat(10));
        assert_eq!(spoilt(&last, &format!("{}_x", "_".repeat(10))), Some(RuntimeError::Encoding), "spare bits");
        assert_eq!(spoilt(&last, &format!("{last}==")), Some(RuntimeError::Encoding));
        assert_eq!(spoilt("AQAB", "AAEAAQ"), Some(RuntimeError::Key(RsaError::Exponent)));
        assert_eq!(spoilt("AQAB", "Aw"), Some(RuntimeError::Key(RsaError::Exponent)));
        assert_eq!(spoilt("RSA", "oct"), Some(RuntimeError::Encoding));
        assert_eq!(spoilt("____", ""), Some(RuntimeError::Key(RsaError::Modulus)));
        for name in ["console-enabled", "secure-boot", "tpm-enabled"] {
            assert!(matches!(spoilt(name, "another"), Some(RuntimeError::Json(..))), "without {name}");
        }
        let escape = format!(r#"{CONFIGURATION},"vmUniqueId":"\u001b[2J""#);
        assert_eq!(read(&claims(&key(), &escape, "")), Err(RuntimeError::Form("vmUniqueId")));
        let short = r#","user-data":"00""#;
        assert_eq!(read(&claims(&key(), CONFIGURATION, short)), Err(RuntimeError::Form("user-data")));
    }

    #[test]
    fn base64url_is_the_one_of_the_standard() {
        for (text, bytes) in
            [("", &b""[..]), ("Zg", b"f"), ("Zm8", b"fo"), ("Zm9v", b"foo"), ("-_-_", &[251, 255, 191])]
        {
            assert_eq!(base64url(text).as_deref(), Some(bytes), "{text}");
        }
        for text in ["Z", "Zh", "Zm9", "Zg==", "Zm 9", "+/+/", "Zm9vZ"] {
            assert_eq!(base64url(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn damaged_claims_never_panic(position in 0usize..500, value in 0x20u8..0x7f, cut in 0usize..600) {
            let mut text = claims(&key(), CONFIGURATION, r#","user-data":"00""#).into_bytes();
            if let Some(byte) = text.get_mut(position) {
                *byte = value;
            }
            text.truncate(cut);
            let text = String::from_utf8(text).unwrap();
            let _ = read(&text);
        }

        #[test]
        fn any_bytes_survive_base64url(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
            let mut text = String::new();
            for three in bytes.chunks(3) {
                let word = three.iter().chain(&[0, 0]).take(3).fold(0usize, |word, byte| word << 8 | usize::from(*byte));
                (0..=three.len()).for_each(|digit| text.push(DIGITS[word >> (18 - 6 * digit) & 63].into()));
            }
            prop_assert_eq!(base64url(&text), Some(bytes));
        }
    }
}
