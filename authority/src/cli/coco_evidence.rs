//! Evidence of confidential-containers guest components on Azure (`az-snp-vtpm`, `az-tdx-vtpm`) as JSON, versions 0 to 2.
//! Version 0 has no number and writes bytes as lists of numbers; later ones write hexadecimal and URL-safe base64. A key
//! that is not known is an error: what travels is looked at. Reads and judges nothing.

use crate::evidence::x509;
use data_encoding::{BASE64URL, BASE64URL_NOPAD, HEXLOWER_PERMISSIVE};
use inwit_protocol::azure::{AzureQuote, TpmAttestation};
use inwit_protocol::evidence::Platform;
use inwit_protocol::refusal::{Refusal, RefusalCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use x509_parser::pem::Pem;

/// What such evidence holds.
pub(super) struct Told {
    pub(super) quote: AzureQuote,
    /// The chip's certificate in DER, as the cloud's service gave it to the guest.
    pub(super) vcek: Option<Vec<u8>>,
}

/// Version 0 of az-snp-vtpm.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FirstSnp {
    quote: Listed,
    report: Vec<u8>,
    vcek: String,
}

/// Version 0 of az-tdx-vtpm.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FirstTdx {
    tpm_quote: Listed,
    hcl_report: Vec<u8>,
    td_quote: Vec<u8>,
}

/// Versions 1 and 2 of both.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Numbered {
    #[serde(rename = "version")]
    _version: u32,
    tpm_quote: Written,
    hcl_report: String,
    vcek: Option<String>,
    td_quote: Option<String>,
}

/// A TPM's quote as lists of numbers.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    signature: Vec<u8>,
    message: Vec<u8>,
    pcrs: Vec<[u8; 32]>,
}

/// A TPM's quote in hexadecimal.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    signature: String,
    message: String,
    pcrs: Vec<String>,
}

/// Reads evidence that says to be from `platform`.
pub(super) fn read(bytes: &[u8], platform: Platform) -> Result<Told, Refusal> {
    let json: Value = shaped(serde_json::from_slice(bytes))?;
    let stated = if json.get("td_quote").is_some() { Platform::AzureTdx } else { Platform::AzureSnp };
    if stated != platform && (json.get("hcl_report").is_some() || json.get("report").is_some()) {
        let cause = format!("the JSON evidence is from {stated}, the command line says {platform}");
        return Err(Refusal::new(RefusalCode::Unsupported, cause));
    }
    match (json.get("version").map(Value::as_u64), stated) {
        (None, Platform::AzureTdx) => first_tdx(of(json)?),
        (None, _) => first_snp(of(json)?),
        (Some(Some(1 | 2)), _) => numbered(of(json)?),
        (Some(_), _) => {
            let cause = "versions 0 (without a number), 1 and 2 of guest components' evidence are known here";
            Err(Refusal::new(RefusalCode::Unsupported, cause))
        }
    }
}

/// Reads a TPM's quote alone.
pub(super) fn tpm_quote(bytes: &[u8]) -> Result<TpmAttestation, Refusal> {
    let json: Value = shaped(serde_json::from_slice(bytes))?;
    if json.get("message").is_some_and(Value::is_array) { listed(of(json)?) } else { written(of(json)?) }
}

fn of<T: DeserializeOwned>(json: Value) -> Result<T, Refusal> {
    shaped(serde_json::from_value(json))
}

fn shaped<T>(read: Result<T, serde_json::Error>) -> Result<T, Refusal> {
    read.map_err(|error| malformed(format_args!("not the JSON evidence of az-snp-vtpm or az-tdx-vtpm: {error}")))
}

fn malformed(cause: impl core::fmt::Display) -> Refusal {
    Refusal::new(RefusalCode::Malformed, cause)
}

fn first_snp(evidence: FirstSnp) -> Result<Told, Refusal> {
    let FirstSnp { quote, report, vcek } = evidence;
    let mut blocks = Pem::iter_from_buffer(vcek.as_bytes());
    let one = (blocks.next().filter(is_certificate), blocks.next());
    let (true, (Some(Ok(vcek)), None)) = (x509::is_paired_pem(vcek.as_bytes()), one) else {
        return Err(malformed("vcek in the JSON evidence is not one certificate in PEM"));
    };
    let quote = AzureQuote { hcl_report: report, tpm: Some(listed(quote)?), td_quote: None };
    Ok(Told { quote, vcek: Some(vcek.contents) })
}

fn is_certificate<E>(block: &Result<Pem, E>) -> bool {
    block.as_ref().is_ok_and(|block| block.label == "CERTIFICATE")
}

fn first_tdx(evidence: FirstTdx) -> Result<Told, Refusal> {
    let FirstTdx { tpm_quote, hcl_report, td_quote } = evidence;
    let quote = AzureQuote { hcl_report, tpm: Some(listed(tpm_quote)?), td_quote: Some(td_quote) };
    Ok(Told { quote, vcek: None })
}

fn numbered(evidence: Numbered) -> Result<Told, Refusal> {
    let Numbered { tpm_quote, hcl_report, vcek, td_quote, .. } = evidence;
    let optional = |text: Option<String>, name| text.map(|text| base64(&text, name)).transpose();
    let quote = AzureQuote {
        hcl_report: base64(&hcl_report, "hcl_report")?,
        tpm: Some(written(tpm_quote)?),
        td_quote: optional(td_quote, "td_quote")?,
    };
    Ok(Told { quote, vcek: optional(vcek, "vcek")? })
}

fn listed(quote: Listed) -> Result<TpmAttestation, Refusal> {
    let Listed { signature, message: attest, pcrs } = quote;
    Ok(TpmAttestation { attest, signature, pcrs: pcrs.try_into().map_err(|_| malformed(PCRS))? })
}

const PCRS: &str = "the TPM quote in JSON does not have 24 PCR values of 32 bytes";

fn written(quote: Written) -> Result<TpmAttestation, Refusal> {
    let pcr = |text: &String| <[u8; 32]>::try_from(hexadecimal(text, "pcrs").ok()?).ok();
    let pcrs: Option<Vec<[u8; 32]>> = quote.pcrs.iter().map(pcr).collect();
    Ok(TpmAttestation {
        attest: hexadecimal(&quote.message, "message")?,
        signature: hexadecimal(&quote.signature, "signature")?,
        pcrs: pcrs.and_then(|pcrs| pcrs.try_into().ok()).ok_or_else(|| malformed(PCRS))?,
    })
}

fn hexadecimal(text: &str, name: &str) -> Result<Vec<u8>, Refusal> {
    HEXLOWER_PERMISSIVE
        .decode(text.as_bytes())
        .map_err(|_| malformed(format_args!("{name} in the JSON evidence is not hexadecimal")))
}

fn base64(text: &str, name: &str) -> Result<Vec<u8>, Refusal> {
    let alphabet = if text.ends_with('=') { BASE64URL } else { BASE64URL_NOPAD };
    alphabet
        .decode(text.as_bytes())
        .map_err(|_| malformed(format_args!("{name} in the JSON evidence is not URL-safe base64")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(json: &Value, platform: Platform) -> Result<Told, Refusal> {
        read(json.to_string().as_bytes(), platform)
    }

    fn numbered_snp() -> Value {
        let quote = json!({"signature": "0A0b", "message": "ff", "pcrs": vec!["07".repeat(32); 24]});
        json!({"version": 1, "tpm_quote": quote, "hcl_report": "SENMQQ==", "vcek": "MAA="})
    }

    #[test]
    fn each_version_becomes_the_same() {
        let listed = json!({"signature": [10, 11], "message": [255], "pcrs": vec![vec![7; 32]; 24]});
        let pem = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
        let first = json!({"quote": listed, "report": [72, 67, 76, 65], "vcek": pem});
        let mut second = numbered_snp();
        (second["version"], second["hcl_report"]) = (json!(2), json!("SENMQQ"));
        let all = [first, numbered_snp(), second].map(|json| told(&json, Platform::AzureSnp).unwrap());
        for one in &all {
            assert_eq!((&one.quote.hcl_report[..], one.vcek.as_deref()), (&b"HCLA"[..], Some(&[0x30, 0][..])));
            assert_eq!(one.quote, all[0].quote);
        }
        let tdx = json!({"tpm_quote": listed, "hcl_report": [72, 67, 76, 65], "td_quote": [4]});
        let tdx = told(&tdx, Platform::AzureTdx).unwrap();
        assert_eq!((tdx.quote.td_quote, tdx.quote.tpm), (Some(vec![4]), all[0].quote.tpm.clone()));
    }

    #[test]
    fn what_is_not_as_it_should_be_is_refused() {
        let changed = |name: &str, value: Value| {
            let mut json = numbered_snp();
            json[name] = value;
            told(&json, Platform::AzureSnp).err().unwrap().code
        };
        assert_eq!(changed("version", json!(3)), RefusalCode::Unsupported);
        assert_eq!(changed("version", json!("1")), RefusalCode::Unsupported);
        assert_eq!(changed("td_quote", json!("BA==")), RefusalCode::Unsupported, "another platform's");
        for (name, value) in [
            ("init_data", json!("")),
            ("hcl_report", json!("SENMQR==")),
            ("hcl_report", json!("+/==")),
            ("tpm_quote", json!({})),
            ("vcek", json!(7)),
        ] {
            assert_eq!(changed(name, value.clone()), RefusalCode::Malformed, "{name}: {value}");
        }
        let mut short = numbered_snp();
        short["tpm_quote"]["pcrs"].as_array_mut().unwrap().pop();
        assert_eq!(told(&short, Platform::AzureSnp).err().unwrap().cause, PCRS);
        for bytes in [&b"{"[..], b"{}", b"[]", b"{\"report\":[300]}"] {
            assert_eq!(read(bytes, Platform::AzureSnp).err().unwrap().code, RefusalCode::Malformed);
        }
    }
}
