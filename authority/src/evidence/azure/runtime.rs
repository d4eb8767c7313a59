//! The runtime claims of Azure's paravisor: which key is the virtual TPM's, how the VM was configured, and 64 bytes of
//! the guest's (openhcl_attestation_protocol, `runtime_claims`; JSON). They are read only after their bytes were found in
//! a hardware report whose signature holds, so they are the measured paravisor's word; and read strictly all the same.
//!
//! Paravisors before August 2025 name whatever RSA key is at handle 0x81000003 (CVE-2025-49707), so their word on the key
//! is the guest's. Nothing in the claims tells them apart from newer ones: the launch digest or MRTD does, which is for
//! whoever registers Reference Values to know, and policy can name the keys.
//!
//! `az-cvm-vtpm` finds the key too, and takes the first of several of one name, padded or unused base64 bits and all; so
//! the key is taken in one form only, once, and the library's reading has to agree.

use az_cvm_vtpm::hcl::HclReport;
use data_encoding::{BASE64URL_NOPAD, HEXLOWER_PERMISSIVE};
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
    filtered_vpci_devices_allowed: Option<bool>,
    hardware_sealing_policy: Option<String>,
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
        vpci_devices_allowed: configuration.filtered_vpci_devices_allowed,
        hardware_sealing_policy: text(configuration.hardware_sealing_policy, "hardware-sealing-policy")?,
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
    HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).ok()?.try_into().ok()
}

/// base64url without padding (RFC 4648 §5); bits that no byte uses are zero, so that there is one encoding.
fn base64url(text: &str) -> Option<Vec<u8>> {
    BASE64URL_NOPAD.decode(text.as_bytes()).ok()
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
               "filtered-vpci-devices-allowed":false,"hardware-sealing-policy":"hash",
               "current-time":1678652405,"root-cert-thumbprint":"","vmUniqueId":"BAEFD3E1-184B-4C4C-AB88-0BDAD260505F""#
        );
        let read_whole = read(&claims(&key(), &full, &data)).unwrap();
        assert_eq!(read_whole.user_data, Some([0xab; 64]));
        assert_eq!((read_whole.interactive_console_enabled, read_whole.tpm_persisted), (Some(false), Some(true)));
        assert_eq!(read_whole.vpci_devices_allowed, Some(false));
        assert_eq!(read_whole.hardware_sealing_policy.as_deref(), Some("hash"));
        assert_eq!((read_whole.current_time, read_whole.root_certificate_thumbprint), (Some(1_678_652_405), None));
        assert_eq!(read_whole.vm_unique_id.as_deref(), Some("BAEFD3E1-184B-4C4C-AB88-0BDAD260505F"));
        let least = read(&claims(&key(), CONFIGURATION, r#","user-data":"""#)).unwrap();
        assert!(least.console_enabled && least.secure_boot && least.tpm_enabled);
        assert_eq!((least.user_data, least.tpm_persisted, least.vm_unique_id), (None, None, None));
        assert_eq!((least.vpci_devices_allowed, least.hardware_sealing_policy), (None, None));
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
    }
}
