//! What a guest measured as, recognised in whatever form somebody has it.
//!
//! Reading is not authentication: offsets of reports and quotes are taken as published, no signature is looked at. A
//! forged report explains a forged measurement.
//!
//! Sources: SEV-SNP ABI (56860) table 23, Intel TDX DCAP Quoting Library (quote versions 4 and 5), Intel TDX Module ABI
//! (TDREPORT_STRUCT), openvmm `openhcl_attestation_protocol` (HCL report).
//!
//! Not trusted: every byte; the form is told by content, never by a name. Never fetches anything.

use std::collections::BTreeMap;

use serde_json::Value;
use thiserror::Error;

use crate::bytes::{array_at, u16_at, u32_at};
use crate::digest::Digest;
use crate::made_from::EventDigest;
use crate::reference::{Form, MAX_REFERENCE_BYTES, Measured, Stated, Validity};

/// Bytes of an SNP attestation report, and where MEASUREMENT lies.
const SNP_REPORT_BYTES: usize = 1184;
const SNP_MEASUREMENT: usize = 0x90;
/// Bytes of a TD report (TDREPORT_STRUCT), where TDINFO begins, and in it MRTD and RTMR0.
const TD_REPORT_BYTES: usize = 1024;
const TD_INFO: usize = 512;
const INFO_MRTD: usize = 16;
const INFO_RTMR0: usize = 208;
/// A quote's header, and in the body that follows MRTD and RTMR0.
const QUOTE_HEADER: usize = 48;
const BODY_MRTD: usize = 136;
const BODY_RTMR0: usize = 328;
/// TEE type of a TDX quote.
const TEE_TDX: u32 = 0x81;
/// An HCL report: signature, and where the hardware's report lies.
const HCL_SIGNATURE: &[u8] = b"HCLA";
const HCL_REPORT: usize = 32;

/// Registers by name: `launch_digest`, `mrtd`, `rtmr0` to `rtmr3`, `pcr0` to `pcr23`.
pub type Registers = BTreeMap<String, EventDigest>;

/// What a guest measured as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actual {
    /// The form that was recognised, in words.
    pub form: &'static str,
    /// Its registers; never empty, but for an event log, which is replayed elsewhere.
    pub registers: Registers,
    /// Reference Values that they come from, with the record of what these were made from.
    pub values: Option<Stated>,
    /// Whether the bytes are an event log.
    pub is_log: bool,
}

/// Why a file says nothing about a measurement.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ActualError {
    /// None of the forms that are read.
    #[error(
        "this is no measurement that is known: expected Reference Values, an SNP report (1184 bytes), a TDX quote (version \
         4 or 5), a TD report (1024 bytes), an Azure HCL report, an event log, lines like `pcr4 <hex>` or `rtmr1 <hex>`, \
         JSON of `inwit-authority authenticate --json`, or a digest in hexadecimal"
    )]
    Unknown,
    /// Text of a known form that is wrong in a place.
    #[error("{0}")]
    Text(String),
    /// A TDX quote of another version, or for another TEE.
    #[error("a quote of version {version} for TEE type {tee:#x}: only TDX quotes of versions 4 and 5 are read")]
    Quote {
        /// As the header says.
        version: u16,
        /// As the header says.
        tee: u32,
    },
}

impl Actual {
    /// Recognises a file.
    ///
    /// # Errors
    /// [`ActualError`].
    pub fn read(bytes: &[u8]) -> Result<Self, ActualError> {
        if let Some(found) = binary(bytes)? {
            return Ok(found);
        }
        let Ok(text) = std::str::from_utf8(bytes) else {
            return Stated::read(bytes).map(from_values).map_err(|_| ActualError::Unknown);
        };
        let text = Some(text.trim()).filter(|text| !text.is_empty() && text.len() <= MAX_REFERENCE_BYTES);
        let text = text.ok_or(ActualError::Unknown)?;
        if text.starts_with(['{', '[']) { json(text) } else { listing(text)?.map_or_else(|| toml(text), Ok) }
    }

    /// The Reference Values that it comes from, or those that its registers make up; `None` where these are of no platform.
    #[must_use]
    pub fn stated(&self) -> Option<Stated> {
        if let Some(values) = &self.values {
            return Some(values.clone());
        }
        let large = |name: &str| match self.registers.get(name) {
            Some(EventDigest::Sha384(digest)) => Some(*digest),
            _ => None,
        };
        let numbered = |(name, digest): (&String, &EventDigest)| match digest {
            EventDigest::Sha256(digest) => Some((name.strip_prefix("pcr")?.parse().ok()?, *digest)),
            EventDigest::Sha384(_) => None,
        };
        let pcrs: BTreeMap<u8, Digest<32>> = self.registers.iter().filter_map(numbered).collect();
        let measured = match (large("launch_digest"), large("mrtd"), pcrs.is_empty()) {
            (Some(launch_digest), None, true) => Measured::Snp { launch_digest },
            (None, Some(mrtd), true) => {
                Measured::Tdx { mrtd, rtmr0: large("rtmr0")?, rtmr1: large("rtmr1")?, rtmr2: large("rtmr2")? }
            }
            (None, None, false) if pcrs.len() == self.registers.len() => Measured::Vtpm { pcrs },
            _ => return None,
        };
        let (form, validity) = (Form::Toml, Validity::default());
        Some(Stated { form, name: None, agent: None, measured, validity, made_from: None })
    }

    fn of(form: &'static str, registers: Registers) -> Self {
        Self { form, registers, values: None, is_log: false }
    }
}

/// The registers that Reference Values name.
#[must_use]
pub fn registers(measured: &Measured) -> Registers {
    let mut named = Registers::new();
    let mut add = |name: &str, digest: EventDigest| named.insert(name.to_owned(), digest);
    match measured {
        Measured::Snp { launch_digest } => {
            add("launch_digest", (*launch_digest).into());
        }
        Measured::Tdx { mrtd, rtmr0, rtmr1, rtmr2 } => {
            for (name, digest) in [("mrtd", mrtd), ("rtmr0", rtmr0), ("rtmr1", rtmr1), ("rtmr2", rtmr2)] {
                add(name, (*digest).into());
            }
        }
        Measured::Vtpm { pcrs } => extend_with(&mut named, pcrs),
        Measured::AzureSnp { launch_digest, pcrs } => {
            add("launch_digest", (*launch_digest).into());
            extend_with(&mut named, pcrs);
        }
        Measured::AzureTdx { mrtd, pcrs } => {
            add("mrtd", (*mrtd).into());
            extend_with(&mut named, pcrs);
        }
    }
    named
}

fn extend_with(named: &mut Registers, pcrs: &BTreeMap<u8, Digest<32>>) {
    named.extend(pcrs.iter().map(|(number, digest)| (format!("pcr{number}"), (*digest).into())));
}

fn binary(bytes: &[u8]) -> Result<Option<Actual>, ActualError> {
    if let Some(report) = bytes.strip_prefix(HCL_SIGNATURE).and_then(|_| bytes.get(HCL_REPORT..)) {
        let snp =
            report.get(..SNP_REPORT_BYTES).and_then(|report| snp(report, "an Azure HCL report with an SNP report"));
        return Ok(snp.or_else(|| td(report.get(..TD_REPORT_BYTES)?, TD_INFO, "an Azure HCL report with a TD report")));
    }
    if bytes.len() == SNP_REPORT_BYTES {
        return Ok(snp(bytes, "an SNP attestation report"));
    }
    if bytes.len() == TD_REPORT_BYTES {
        return Ok(td(bytes, TD_INFO, "a TD report"));
    }
    // The first record of a log: register 0, EV_NO_ACTION, no digest, and its signature.
    if bytes.get(32..47) == Some(b"Spec ID Event03") {
        return Ok(Some(Actual { is_log: true, ..Actual::of("an event log", Registers::new()) }));
    }
    match (u16_at(bytes, 0), u32_at(bytes, 4), bytes.len()) {
        (Some(version @ (3..=6)), Some(tee), 600..) => match (version, tee, u16_at(bytes, QUOTE_HEADER)) {
            (4, TEE_TDX, _) => Ok(quote(bytes, QUOTE_HEADER)),
            // Type u16 (2: TD 1.0, 3: TD 1.5) and size u32 of the body stand before it.
            (5, TEE_TDX, Some(2 | 3)) => Ok(quote(bytes, QUOTE_HEADER + 6)),
            _ => Err(ActualError::Quote { version, tee }),
        },
        _ => Ok(None),
    }
}

fn snp(report: &[u8], form: &'static str) -> Option<Actual> {
    let version = u32_at(report, 0).filter(|version| (2..=16).contains(version));
    let digest = Digest::from_bytes(array_at::<48>(report, SNP_MEASUREMENT)?);
    version.map(|_| Actual::of(form, [("launch_digest".to_owned(), digest.into())].into()))
}

fn quote(bytes: &[u8], body: usize) -> Option<Actual> {
    registers_at(bytes, body + BODY_MRTD, body + BODY_RTMR0).map(|registers| Actual::of("a TDX quote", registers))
}

fn td(report: &[u8], info: usize, form: &'static str) -> Option<Actual> {
    // REPORTMACSTRUCT begins with the TEE type: 0x81 is TDX.
    report.first().filter(|kind| **kind == 0x81)?;
    registers_at(report, info + INFO_MRTD, info + INFO_RTMR0).map(|registers| Actual::of(form, registers))
}

fn registers_at(bytes: &[u8], mrtd: usize, rtmr0: usize) -> Option<Registers> {
    let at = |offset| array_at::<48>(bytes, offset).map(|bytes| EventDigest::Sha384(Digest::from_bytes(bytes)));
    let mut registers = Registers::from([("mrtd".to_owned(), at(mrtd)?)]);
    for number in 0..4 {
        registers.insert(format!("rtmr{number}"), at(rtmr0 + number * 48)?);
    }
    Some(registers)
}

fn json(text: &str) -> Result<Actual, ActualError> {
    let value: Value = serde_json::from_str(text).map_err(|error| ActualError::Text(error.to_string()))?;
    if value.get("agent").is_some() && value.get("measured").is_some() {
        let values = Stated::read(text.as_bytes()).map_err(|error| ActualError::Text(error.to_string()))?;
        return Ok(from_values(values));
    }
    if let Ok(values) = Stated::read(text.as_bytes()) {
        return Ok(from_values(values));
    }
    let mut registers = Registers::new();
    collect(&value, &mut registers, 0);
    if registers.is_empty() { Err(ActualError::Unknown) } else { Ok(Actual::of("JSON with registers", registers)) }
}

/// Every register by name, wherever the document has it; the first of a name counts.
fn collect(value: &Value, registers: &mut Registers, depth: usize) {
    let Value::Object(fields) = value else { return };
    for (name, field) in fields {
        match field {
            Value::String(text) => {
                registers.extend(register(name, text).filter(|(name, _)| !registers.contains_key(name)))
            }
            Value::Object(pcrs) if name == "pcrs" => {
                for (number, digest) in pcrs {
                    let found = digest.as_str().and_then(|text| register(&format!("pcr{number}"), text));
                    registers.extend(found.filter(|(name, _)| !registers.contains_key(name)));
                }
            }
            Value::Object(_) if depth < 8 => collect(field, registers, depth + 1),
            _ => {}
        }
    }
}

fn toml(text: &str) -> Result<Actual, ActualError> {
    let values = Stated::read(text.as_bytes());
    // What has no sign of a table is no Reference Values file, and a parser's complaint would only lead astray.
    values.map(from_values).map_err(|error| match text.contains("[measured]") {
        true => ActualError::Text(error.to_string()),
        false => ActualError::Unknown,
    })
}

fn from_values(values: Stated) -> Actual {
    let registers = registers(&values.measured);
    Actual { values: Some(values), ..Actual::of("Reference Values", registers) }
}

/// Lines of a name and a digest, or one digest alone. `None` when a line is something else.
///
/// # Errors
/// A register that is given twice: nothing says which of the two was measured.
fn listing(text: &str) -> Result<Option<Actual>, ActualError> {
    let mut registers = Registers::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (name, digest) = match line.rsplit_once([' ', '\t', ':', '=']) {
            Some((name, digest)) => (name, digest),
            None => ("launch_digest", line),
        };
        let Some((name, digest)) = register(name, digest) else { return Ok(None) };
        if registers.contains_key(&name) {
            return Err(ActualError::Text(format!("{name} is given twice: leave one of the two lines out")));
        }
        registers.insert(name, digest);
    }
    let form = if text.contains(char::is_whitespace) { "registers by name" } else { "a digest" };
    Ok((!registers.is_empty()).then(|| Actual::of(form, registers)))
}

/// A register by its usual names: `pcr04`, `PCR4`, `4`, `RTMR[0]`, `rtmr0:sha384`, `mr_td`.
fn register(name: &str, digest: &str) -> Option<(String, EventDigest)> {
    let digest = digest.trim().trim_start_matches("0x").to_ascii_lowercase().parse::<EventDigest>().ok()?;
    let plain: String = name.split(':').next()?.chars().filter(char::is_ascii_alphanumeric).collect();
    let plain = plain.to_ascii_lowercase();
    let numbered = |prefix: &str, last: u8| {
        let number = plain.strip_prefix(prefix)?.parse::<u8>().ok().filter(|number| *number <= last)?;
        Some(format!("{prefix}{number}"))
    };
    let name = match digest {
        EventDigest::Sha256(_) => numbered("pcr", 23).or_else(|| Some(format!("pcr{}", numbered("", 23)?))),
        EventDigest::Sha384(_) => match plain.as_str() {
            "launchdigest" | "measurement" | "launchmeasurement" => Some("launch_digest".to_owned()),
            "mrtd" => Some("mrtd".to_owned()),
            _ => numbered("rtmr", 3),
        },
    };
    name.map(|name| (name, digest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::digest::{sha256, sha384};

    fn names(bytes: &[u8]) -> (&'static str, Vec<String>) {
        let actual = Actual::read(bytes).unwrap();
        (actual.form, actual.registers.into_keys().collect())
    }

    #[test]
    fn binary_forms_are_told_apart_and_read_at_their_offsets() {
        let mut report = vec![0; SNP_REPORT_BYTES];
        report[0] = 3;
        report[0x90..0xc0].copy_from_slice(sha384(b"launch").as_bytes());
        let expected = EventDigest::from(sha384(b"launch"));
        assert_eq!(Actual::read(&report).unwrap().registers["launch_digest"], expected);
        let hcl = [&b"HCLA"[..], &[0; 28], &report, &[0; 400]].concat();
        assert_eq!(Actual::read(&hcl).unwrap().registers["launch_digest"], expected);

        let fill = |at: usize, mrtd: usize, rtmr0: usize, length: usize| {
            let mut bytes = vec![0; length];
            bytes[at + mrtd..][..48].copy_from_slice(sha384(b"mrtd").as_bytes());
            for number in 0..4u8 {
                bytes[at + rtmr0 + usize::from(number) * 48..][..48].copy_from_slice(sha384(&[number]).as_bytes());
            }
            bytes
        };
        let mut four = fill(48, 136, 328, 700);
        (four[0], four[4]) = (4, 0x81);
        let mut five = fill(54, 136, 328, 800);
        (five[0], five[4], five[48]) = (5, 0x81, 3);
        let mut td = fill(512, 16, 208, 1024);
        td[0] = 0x81;
        for bytes in [&four, &five, &td] {
            let registers = Actual::read(bytes).unwrap().registers;
            assert_eq!((registers["mrtd"], registers["rtmr3"]), (sha384(b"mrtd").into(), sha384(&[3]).into()));
        }
        four[4] = 0;
        assert_eq!(Actual::read(&four), Err(ActualError::Quote { version: 4, tee: 0 }));
    }

    #[test]
    fn texts_of_many_tools_are_read() {
        let (small, large) = (sha256(b"x"), sha384(b"x"));
        let upper = large.to_string().to_uppercase();
        for (text, expected) in [
            (format!("{large}\n"), vec!["launch_digest"]),
            (upper, vec!["launch_digest"]),
            (format!("pcr4 {small}\nPCR09: {small}\n"), vec!["pcr4", "pcr9"]),
            (format!("  4 : 0x{small}\n  15: 0x{small}\n"), vec!["pcr15", "pcr4"]),
            (format!("mrtd {large}\nRTMR[0]={large}\nrtmr1:sha384 {large}"), vec!["mrtd", "rtmr0", "rtmr1"]),
            (format!("{{\"claims\":{{\"measured\":{{\"platform\":\"tdx\",\"mrtd\":\"{large}\"}}}}}}"), vec!["mrtd"]),
            (format!("{{\"measured\":{{\"pcrs\":{{\"4\":\"{small}\"}}}}}}"), vec!["pcr4"]),
        ] {
            assert_eq!(names(text.as_bytes()).1, expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_measurement_is_refused() {
        for bytes in [&b""[..], b"hello", b"pcr24 00", b"{}", b"{\"mrtd\": 1}", &[0xff; 1184], &[7; 1024], &[1; 700]] {
            assert_eq!(Actual::read(bytes), Err(ActualError::Unknown), "{:?}", bytes.get(..8));
        }
        assert!(matches!(Actual::read(b"{"), Err(ActualError::Text(_))));
        let (one, two) = (sha256(b"one"), sha256(b"two"));
        let twice = format!("pcr7 {one}\nPCR07: {two}\n");
        let error = Actual::read(twice.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("pcr7 is given twice"), "{error}");
        let broken = b"name = 1\n[measured]\n";
        assert!(matches!(Actual::read(broken), Err(ActualError::Text(_))));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..1300)) {
            let _ = Actual::read(&bytes);
        }

        #[test]
        fn arbitrary_text_never_panics(text in any::<String>()) {
            let _ = Actual::read(text.as_bytes());
        }
    }
}
