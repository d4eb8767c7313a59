//! Reference Values (RFC 9334): what an authority compares verified Evidence with, as a file that people can read.
//!
//! One file names one image on one platform shape: the agent inside it (its executable and its measured
//! configuration), and what the hardware says when it starts. TOML for people, JSON for programs, the same fields; CoRIM
//! and RVPS for other people's verifiers.
//!
//! Not trusted: the file's bytes until an operator registers them; parsing is bounded and strict, an unknown field is
//! an error because a misspelt one would silently not be checked. Never decides whether Evidence matches.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::cbor::CborError;
use crate::digest::Digest;
use crate::made_from::{MadeFrom, RecordFault};

mod corim;
mod form;
mod moment;
mod rvps;
#[cfg(test)]
mod sample;

pub use form::{Form, Stated, Validity};
pub use moment::{Moment, MomentError};

/// Longest file that is parsed, in bytes; a real one has under 4 KiB.
pub const MAX_REFERENCE_BYTES: usize = 1 << 20;
/// Longest name in bytes: it is printed in logs and tables.
pub const MAX_NAME_BYTES: usize = 128;
/// PCRs of a PC client TPM are numbered 0 to 23 (TCG PC Client Platform TPM Profile).
const LAST_PCR: u8 = 23;

/// What is expected of one image on one platform shape.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReferenceValues {
    /// The operator's name for it, 1 to [`MAX_NAME_BYTES`] bytes without control characters.
    pub name: String,
    /// The agent inside the image.
    pub agent: AgentReference,
    /// What the hardware reports.
    pub measured: Measured,
    /// What the values were computed from: for explaining a mismatch only. Never compared with Evidence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_from: Option<MadeFrom>,
}

/// Which agent makes the binding, so that Evidence in whose measured set it is not found can be refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentReference {
    /// SHA-256 of the `inwit-guest` file.
    pub executable: Digest<32>,
    /// SHA-256 of its measured configuration file.
    pub configuration: Digest<32>,
}

/// Expected measurements, by platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "platform", rename_all = "lowercase", deny_unknown_fields)]
pub enum Measured {
    /// AMD SEV-SNP.
    Snp {
        /// MEASUREMENT of the attestation report (SEV-SNP ABI, ATTESTATION_REPORT offset 0x90).
        launch_digest: Digest<48>,
    },
    /// Intel TDX. RTMR3 belongs to user space and is appraised from its own log.
    Tdx {
        /// Build-time measurement of the firmware.
        mrtd: Digest<48>,
        /// Firmware configuration; differs with memory size, vCPUs and devices.
        rtmr0: Digest<48>,
        /// Boot loader and kernel.
        rtmr1: Digest<48>,
        /// Command line and initial ramdisk.
        rtmr2: Digest<48>,
    },
    /// A vTPM, SHA-256 bank. PCRs that are not listed are not compared.
    Vtpm {
        /// Expected values by PCR number, 0 to 23. In files the keys are decimal strings.
        #[serde(with = "pcr_keys")]
        pcrs: BTreeMap<u8, Digest<32>>,
    },
    /// An Azure confidential VM on SEV-SNP: a paravisor, and what booted above it.
    #[serde(rename = "azure-snp")]
    AzureSnp {
        /// MEASUREMENT of the attestation report: that of the paravisor and its firmware, which are Azure's.
        launch_digest: Digest<48>,
        /// Expected values by PCR number, as for [`Measured::Vtpm`]: what booted.
        #[serde(with = "pcr_keys")]
        pcrs: BTreeMap<u8, Digest<32>>,
    },
    /// An Azure confidential VM on TDX. Its RTMRs are not named: the paravisor extends none of them, and the guest
    /// above it cannot.
    #[serde(rename = "azure-tdx")]
    AzureTdx {
        /// Build-time measurement of the paravisor and its firmware, which are Azure's.
        mrtd: Digest<48>,
        /// Expected values by PCR number, as for [`Measured::Vtpm`]: what booted.
        #[serde(with = "pcr_keys")]
        pcrs: BTreeMap<u8, Digest<32>>,
    },
}

/// What no form begins with.
const NO_FORM: &str = "it is not UTF-8 text, and does not begin with the tag of a CoRIM";

/// Why a Reference Values file is refused.
#[derive(Debug, Error)]
pub enum ReferenceError {
    /// The file is longer than [`MAX_REFERENCE_BYTES`].
    #[error("the Reference Values file has {0} bytes, more than {MAX_REFERENCE_BYTES}: this is another kind of file")]
    TooLarge(usize),
    /// Not TOML, or not of this shape; the text names line and field.
    #[error("not a Reference Values file: {0}")]
    Toml(#[from] toml::de::Error),
    /// Not JSON, or not of this shape.
    #[error("not a Reference Values file: {0}")]
    Json(#[from] serde_json::Error),
    /// Neither text nor CoRIM.
    #[error("this is neither TOML, JSON, RVPS nor CoRIM: {NO_FORM}")]
    Unknown,
    /// Not a CBOR document.
    #[error("not Reference Values as CoRIM: {0}")]
    Cbor(#[from] CborError),
    /// A field of another party's form is missing, superfluous or unfit.
    #[error("not Reference Values as {form}: {field}: {problem}")]
    Field {
        /// The form.
        form: Form,
        /// Which field, as a path.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The document does not say what whole Reference Values hold.
    #[error(
        "these Reference Values as {form} state no {missing}: add it with `inwit-measure convert` and its --agent, \
         --config and --name"
    )]
    Incomplete {
        /// The form.
        form: Form,
        /// What is missing.
        missing: &'static str,
    },
    /// The document says when it holds, and nobody would keep to that.
    #[error(
        "these Reference Values as {form} hold {validity}, which neither TOML, JSON nor the authority's registry can say: \
         to take them for good, use `inwit-measure convert --forget-validity`"
    )]
    Validity {
        /// The form.
        form: Form,
        /// When it holds.
        validity: Validity,
    },
    /// The name is empty, too long, or would disturb a terminal.
    #[error("the name must have 1 to {MAX_NAME_BYTES} bytes and no control characters")]
    Name,
    /// The record of what the values were made from is unfit.
    #[error(transparent)]
    MadeFrom(#[from] RecordFault),
    /// The values cannot be written as TOML.
    #[error("the Reference Values cannot be written as TOML: {0}")]
    Write(#[from] toml::ser::Error),
}

impl ReferenceValues {
    /// Parses TOML.
    ///
    /// # Errors
    /// [`ReferenceError`] for a file that is too long, has another shape, an unknown field or an unfit name.
    pub fn from_toml(text: &str) -> Result<Self, ReferenceError> {
        check_length(text)?;
        toml::from_str::<Self>(text)?.checked()
    }

    /// Parses JSON; otherwise as [`ReferenceValues::from_toml`].
    ///
    /// # Errors
    /// The same as for TOML.
    pub fn from_json(text: &str) -> Result<Self, ReferenceError> {
        check_length(text)?;
        serde_json::from_str::<Self>(text)?.checked()
    }

    /// Writes TOML.
    ///
    /// # Errors
    /// [`ReferenceError::Write`]; does not happen for values of this shape.
    pub fn to_toml(&self) -> Result<String, ReferenceError> {
        Ok(toml::to_string(self)?)
    }

    /// Writes JSON, indented.
    ///
    /// # Errors
    /// [`ReferenceError::Json`]; does not happen for values of this shape.
    pub fn to_json(&self) -> Result<String, ReferenceError> {
        Ok(serde_json::to_string_pretty(self)?)
    }

    fn checked(self) -> Result<Self, ReferenceError> {
        self.made_from.as_ref().map_or(Ok(()), MadeFrom::check)?;
        if fits(&self.name) { Ok(self) } else { Err(ReferenceError::Name) }
    }

    /// The same without the record of what they were made from: all that an authority registers and compares.
    #[must_use]
    pub fn without_record(self) -> Self {
        Self { made_from: None, ..self }
    }
}

/// Whether a name can be printed and is neither empty nor too long.
fn fits(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len()) && !name.chars().any(char::is_control)
}

fn check_length(text: &str) -> Result<(), ReferenceError> {
    if text.len() > MAX_REFERENCE_BYTES { Err(ReferenceError::TooLarge(text.len())) } else { Ok(()) }
}

/// PCR numbers as decimal string keys. Written by hand because serde hands the fields of a tagged enum over untyped,
/// and then no longer turns a string key into a number; and because a repeated key must not win silently.
mod pcr_keys {
    use std::collections::BTreeMap;
    use std::fmt;

    use serde::de::{Deserializer, Error, MapAccess, Visitor};
    use serde::ser::Serializer;

    use super::LAST_PCR;
    use crate::digest::Digest;

    type Pcrs = BTreeMap<u8, Digest<32>>;

    pub(super) fn serialize<S: Serializer>(pcrs: &Pcrs, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(pcrs.iter().map(|(index, value)| (index.to_string(), value)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Pcrs, D::Error> {
        deserializer.deserialize_map(Keys)
    }

    struct Keys;

    impl<'de> Visitor<'de> for Keys {
        type Value = Pcrs;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a map from PCR numbers, 0 to {LAST_PCR} as decimal strings, to SHA-256 digests")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pcrs, A::Error> {
            let mut pcrs = Pcrs::new();
            while let Some((key, value)) = map.next_entry::<String, Digest<32>>()? {
                let index = key.parse::<u8>().ok().filter(|index| *index <= LAST_PCR && index.to_string() == key);
                let index = index.ok_or_else(|| A::Error::custom(format_args!("{key:?} is not a PCR number")))?;
                if pcrs.insert(index, value).is_some() {
                    return Err(A::Error::custom(format_args!("PCR {index} is given twice")));
                }
            }
            if pcrs.is_empty() {
                // A set without a single PCR would match every machine.
                return Err(A::Error::custom("no PCR is given"));
            }
            Ok(pcrs)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::sample::{samples, values};
    use super::*;
    use crate::digest::{sha256, sha384};

    #[test]
    fn every_platform_survives_both_formats() {
        for values in samples() {
            assert_eq!(ReferenceValues::from_toml(&values.to_toml().unwrap()).unwrap(), values);
            assert_eq!(ReferenceValues::from_json(&values.to_json().unwrap()).unwrap(), values);
        }
    }

    #[test]
    fn the_written_shape_is_the_documented_one() {
        let [snp, _, vtpm, azure_snp, azure_tdx] = samples();
        let toml = vtpm.to_toml().unwrap();
        let kernel = sha256(b"kernel");
        assert!(toml.contains(&format!("[measured.pcrs]\n4 = \"{kernel}\"\n15 = ")), "{toml}");
        assert!(toml.contains("[measured]\nplatform = \"vtpm\""), "{toml}");
        let shown = [azure_snp, azure_tdx].map(|values| values.to_toml().unwrap());
        for (toml, platform, register) in [(&shown[0], "azure-snp", "launch_digest"), (&shown[1], "azure-tdx", "mrtd")]
        {
            let paravisor = sha384(b"paravisor");
            let head = format!("[measured]\nplatform = \"{platform}\"\n{register} = \"{paravisor}\"\n");
            assert!(toml.contains(&head) && toml.contains(&format!("[measured.pcrs]\n4 = \"{kernel}\"\n")), "{toml}");
        }
        let json: serde_json::Value = serde_json::from_str(&snp.to_json().unwrap()).unwrap();
        assert_eq!(json["measured"]["platform"], "snp");
        assert_eq!(json["measured"]["launch_digest"], sha384(b"launch").to_string());
        assert_eq!(json["agent"]["executable"], sha256(b"agent").to_string());
    }

    #[test]
    fn a_misspelt_or_missing_field_is_refused_at_every_level() {
        for good in samples().map(|values| values.to_json().unwrap()) {
            let json: serde_json::Value = serde_json::from_str(&good).unwrap();
            for level in ["", "/agent", "/measured"] {
                let mut extra = json.clone();
                extra.pointer_mut(level).unwrap()["rtmr4"] = "00".into();
                let error = ReferenceValues::from_json(&extra.to_string()).unwrap_err();
                assert!(error.to_string().contains("rtmr4"), "{level}: {error}");
                for key in json.pointer(level).unwrap().as_object().unwrap().keys() {
                    let mut short = json.clone();
                    short.pointer_mut(level).unwrap().as_object_mut().unwrap().remove(key);
                    let error = ReferenceValues::from_json(&short.to_string()).unwrap_err();
                    assert!(error.to_string().contains(key), "without {key}: {error}");
                }
            }
        }
    }

    #[test]
    fn pcr_keys_are_numbers_given_once() {
        for good in &samples()[2..] {
            let good = good.to_json().unwrap();
            for (spoilt, message) in [
                (good.replace("\"15\"", "\"24\""), "\"24\" is not a PCR number"),
                (good.replace("\"15\"", "\"015\""), "\"015\" is not a PCR number"),
                (good.replace("\"15\"", "\"+5\""), "\"+5\" is not a PCR number"),
                (good.replace("\"15\"", "\"4\""), "PCR 4 is given twice"),
            ] {
                let error = ReferenceValues::from_json(&spoilt).unwrap_err();
                assert!(error.to_string().contains(message), "{error}");
            }
        }
        let none = values(Measured::Vtpm { pcrs: BTreeMap::new() }).to_toml().unwrap();
        assert!(ReferenceValues::from_toml(&none).unwrap_err().to_string().contains("no PCR is given"));
    }

    #[test]
    fn sizes_and_names_are_bounded() {
        let good = samples()[0].to_toml().unwrap();
        let long = format!("{good}{}", "#".repeat(MAX_REFERENCE_BYTES));
        assert!(matches!(ReferenceValues::from_toml(&long), Err(ReferenceError::TooLarge(_))));
        assert!(matches!(ReferenceValues::from_json(&long), Err(ReferenceError::TooLarge(_))));
        for name in ["", "\\u001b[2J", &"n".repeat(129)] {
            let spoilt = good.replace("payments 1.4", name);
            assert!(matches!(ReferenceValues::from_toml(&spoilt), Err(ReferenceError::Name)), "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in any::<String>()) {
            let _ = ReferenceValues::from_toml(&text);
            let _ = ReferenceValues::from_json(&text);
            let _ = ReferenceValues::read(text.as_bytes());
        }
    }
}
