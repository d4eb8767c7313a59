//! What the Reference Value Provider Service (RVPS) of Trustee takes.
//!
//! Two documents: the message for registering, `{"version", "type": "sample", "payload"}` whose payload is base64 of
//! `{name: [value, ...]}` (Trustee `rvps/src/lib.rs` and `extractors/sample`), written when no end of validity is given,
//! because such values get their end from the service; and the list that its file storage keeps, `[{"version", "name",
//! "expiration", "value"}]` (`rvps/src/reference_value.rs`), written when one is given. Both are read, and the payload
//! alone. Names are those that Trustee's default policy looks up (`ear_default_policy_cpu.rego`), or by its claims'
//! names where it looks none up: `snp_launch_measurement`; `mr_td`, `rtmr_0` to `rtmr_2`; `tpm_pcr11`; `measurement`
//! and `snp_pcr11`, `mr_td` and `tdx_pcr11` for Azure. Our name and agent travel under `inwit_` names, which Trustee
//! keeps and no policy of its asks for.
//!
//! Not trusted: the text. A name that is not one of these is refused: it demands something that would be lost here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::marker::PhantomData;

use data_encoding::BASE64;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde::{Serialize, de};

use super::form::{Form, Stated, Validity};
use super::moment::Moment;
use super::{AgentReference, LAST_PCR, Measured, ReferenceError, fits};
use crate::digest::Digest;

/// The version that Trustee demands of messages, and gives to values.
const VERSION: &str = "0.1.0";
/// Most values of one document.
const MAX_VALUES: usize = 1024;

const SNP: &str = "snp_launch_measurement";
const AZURE_SNP: &str = "measurement";
const MRTD: &str = "mr_td";
const RTMRS: [&str; 3] = ["rtmr_0", "rtmr_1", "rtmr_2"];
const NAME: &str = "inwit_name";
const EXECUTABLE: &str = "inwit_agent_executable";
const CONFIGURATION: &str = "inwit_agent_configuration";
/// Beginnings of the names of PCRs, which end in two decimal digits.
const TPM_PCR: &str = "tpm_pcr";
const SNP_PCR: &str = "snp_pcr";
const TDX_PCR: &str = "tdx_pcr";

/// Names and what they may be.
type Values = BTreeMap<String, Vec<String>>;

#[derive(serde::Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Message {
    #[serde(default = "version")]
    version: String,
    r#type: String,
    payload: String,
}

#[derive(serde::Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    #[serde(default = "version")]
    version: String,
    name: String,
    expiration: String,
    value: Vec<String>,
}

fn version() -> String {
    VERSION.to_owned()
}

/// A map in which no key is twice.
struct Unique<V>(BTreeMap<String, V>);

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Unique<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<V>(PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for Entries<V> {
            type Value = Unique<V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from names to lists of values")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unique<V>, A::Error> {
                let mut all = BTreeMap::new();
                while let Some(key) = map.next_key::<String>()? {
                    if all.contains_key(&key) {
                        return Err(A::Error::custom(format_args!("{key:?} is given twice")));
                    }
                    all.insert(key, map.next_value()?);
                }
                Ok(Unique(all))
            }
        }
        deserializer.deserialize_map(Entries(PhantomData))
    }
}

fn json<T: de::DeserializeOwned>(text: &str, field: &str) -> Result<T, ReferenceError> {
    serde_json::from_str(text).map_err(|error| Form::Rvps.refuse(field, error))
}

/// Whether a JSON text is one of these documents and not our own: a list, or a map without what ours must have.
///
/// # Errors
/// Text that is no JSON.
pub(super) fn is_meant(text: &str) -> Result<bool, ReferenceError> {
    if text.trim_start().starts_with('[') {
        return Ok(true);
    }
    let Unique(keys) = serde_json::from_str::<Unique<IgnoredAny>>(text)?;
    let known = |key: &&str| {
        let fixed = [SNP, AZURE_SNP, MRTD, NAME, EXECUTABLE, CONFIGURATION, "payload"];
        fixed.contains(key) || RTMRS.contains(key) || [TPM_PCR, SNP_PCR, TDX_PCR].iter().any(|pcr| key.starts_with(pcr))
    };
    Ok(!keys.contains_key("measured") && keys.keys().map(String::as_str).any(|key| known(&key)))
}

/// Reads one of the documents.
///
/// # Errors
/// [`ReferenceError::Field`].
pub(super) fn read(text: &str) -> Result<Stated, ReferenceError> {
    let (values, validity) = if text.trim_start().starts_with('[') {
        stored(json(text, "the list")?)?
    } else if json::<Unique<IgnoredAny>>(text, "the document")?.0.contains_key("payload") {
        (payload(json(text, "the message")?)?, Validity::default())
    } else {
        (json::<Unique<Vec<String>>>(text, "the payload")?.0, Validity::default())
    };
    if values.len() > MAX_VALUES {
        return Err(Form::Rvps.refuse("the document", format_args!("more than {MAX_VALUES} names")));
    }
    state(values, validity)
}

fn payload(message: Message) -> Result<Values, ReferenceError> {
    if message.version != VERSION {
        return Err(Form::Rvps.refuse("version", format_args!("{:?} is not {VERSION}", message.version)));
    }
    if message.r#type != "sample" {
        let problem = format_args!("{:?} is another kind of provenance than sample", message.r#type).to_string();
        return Err(Form::Rvps.refuse("type", problem));
    }
    let payload = BASE64.decode(message.payload.as_bytes()).map_err(|error| Form::Rvps.refuse("payload", error))?;
    let payload = std::str::from_utf8(&payload).map_err(|error| Form::Rvps.refuse("payload", error))?;
    Ok(json::<Unique<Vec<String>>>(payload, "payload")?.0)
}

fn stored(list: Vec<Stored>) -> Result<(Values, Validity), ReferenceError> {
    let (mut values, mut end) = (Values::new(), None);
    for Stored { version, name, expiration, value } in list {
        if version != VERSION {
            return Err(Form::Rvps.refuse(
                format_args!("{}.version", name.escape_default()),
                format_args!("{version:?} is not {VERSION}"),
            ));
        }
        let unfit = |error| Form::Rvps.refuse(format_args!("{}.expiration", name.escape_default()), error);
        let expiration: Moment = expiration.parse().map_err(unfit)?;
        // One set of values holds as long as the first of them.
        end = Some(end.map_or(expiration, |end: Moment| end.min(expiration)));
        if values.insert(name.clone(), value).is_some() {
            return Err(Form::Rvps.refuse(name.escape_default(), "it is given twice"));
        }
    }
    Ok((values, Validity { not_before: None, not_after: end }))
}

fn state(mut values: Values, validity: Validity) -> Result<Stated, ReferenceError> {
    let name = values.remove(NAME).map(|value| single(NAME, value)).transpose()?;
    if name.as_ref().is_some_and(|name| !fits(name)) {
        return Err(ReferenceError::Name);
    }
    let agent = match (digest::<32>(&mut values, EXECUTABLE)?, digest::<32>(&mut values, CONFIGURATION)?) {
        (None, None) => None,
        (Some(executable), Some(configuration)) => Some(AgentReference { executable, configuration }),
        (Some(_), None) => return Err(Form::Rvps.refuse(CONFIGURATION, "it is missing beside the executable")),
        (None, Some(_)) => return Err(Form::Rvps.refuse(EXECUTABLE, "it is missing beside the configuration")),
    };
    let measured = measured(&mut values)?;
    if let Some(unknown) = values.keys().next() {
        let problem = "it is no measurement that is kept here: demand it in the policy, or leave it out";
        return Err(Form::Rvps.refuse(format_args!("{unknown:?}"), problem));
    }
    Ok(Stated { form: Form::Rvps, name, agent, measured, validity, made_from: None })
}

fn measured(values: &mut Values) -> Result<Measured, ReferenceError> {
    let launch = (digest::<48>(values, SNP)?, digest::<48>(values, AZURE_SNP)?, digest::<48>(values, MRTD)?);
    let pcrs = (pcrs(values, TPM_PCR)?, pcrs(values, SNP_PCR)?, pcrs(values, TDX_PCR)?);
    let [rtmr0, rtmr1, rtmr2] = RTMRS.map(|name| digest::<48>(values, name));
    let rtmrs = [rtmr0?, rtmr1?, rtmr2?];
    let no_rtmrs = rtmrs == [None; 3];
    match (launch, pcrs) {
        ((Some(launch_digest), None, None), (None, None, None)) if no_rtmrs => Ok(Measured::Snp { launch_digest }),
        ((None, None, Some(mrtd)), (None, None, None)) => {
            let need = |rtmr: Option<_>, name: &str| rtmr.ok_or_else(|| Form::Rvps.refuse(name, "it is missing"));
            let ([zero, one, two], [rtmr0, rtmr1, rtmr2]) = (RTMRS, rtmrs);
            Ok(Measured::Tdx { mrtd, rtmr0: need(rtmr0, zero)?, rtmr1: need(rtmr1, one)?, rtmr2: need(rtmr2, two)? })
        }
        ((None, None, None), (Some(pcrs), None, None)) if no_rtmrs => Ok(Measured::Vtpm { pcrs }),
        ((None, Some(launch_digest), None), (None, Some(pcrs), None)) if no_rtmrs => {
            Ok(Measured::AzureSnp { launch_digest, pcrs })
        }
        ((None, None, Some(mrtd)), (None, None, Some(pcrs))) if no_rtmrs => Ok(Measured::AzureTdx { mrtd, pcrs }),
        _ => Err(Form::Rvps.refuse("the names", "together they are the measurements of no single platform")),
    }
}

/// The only value of a name. Several would have to become several sets of Reference Values.
fn single(name: &str, mut value: Vec<String>) -> Result<String, ReferenceError> {
    match (value.pop(), value.len()) {
        (Some(value), 0) => Ok(value),
        (None, _) => Err(Form::Rvps.refuse(name, "it has no value")),
        (Some(_), more) => {
            let problem = format!("it has {} values: register a document with one value for each shape", more + 1);
            Err(Form::Rvps.refuse(name, problem))
        }
    }
}

fn digest<const N: usize>(values: &mut Values, name: &str) -> Result<Option<Digest<N>>, ReferenceError> {
    let Some(value) = values.remove(name) else { return Ok(None) };
    single(name, value)?.parse().map(Some).map_err(|error| Form::Rvps.refuse(name, error))
}

fn pcrs(values: &mut Values, prefix: &str) -> Result<Option<BTreeMap<u8, Digest<32>>>, ReferenceError> {
    let mut pcrs = BTreeMap::new();
    for index in 0..=LAST_PCR {
        if let Some(value) = digest(values, &pcr(prefix, index))? {
            pcrs.insert(index, value);
        }
    }
    Ok(Some(pcrs).filter(|pcrs| !pcrs.is_empty()))
}

fn pcr(prefix: &str, index: u8) -> String {
    format!("{prefix}{index:02}")
}

/// Writes the message for registering, or the stored list when an end of validity is given.
///
/// # Errors
/// Sets of different platforms, agents or validity, sets that differ in more than one register, none at all, a beginning
/// of validity; [`ReferenceError::Name`].
pub(super) fn write(all: &[Stated]) -> Result<String, ReferenceError> {
    let first = all.first().ok_or_else(|| Form::Rvps.refuse("the document", "no values are given"))?;
    let mut values: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for stated in all {
        if std::mem::discriminant(&stated.measured) != std::mem::discriminant(&first.measured) {
            return Err(Form::Rvps.refuse("the document", "sets of different platforms do not go into one"));
        }
        if stated.validity != first.validity || stated.validity.not_before.is_some() {
            let problem = "all sets must have one end of validity and no beginning";
            return Err(Form::Rvps.refuse("expiration", problem));
        }
        if stated.name.as_ref().is_some_and(|name| !fits(name)) {
            return Err(ReferenceError::Name);
        }
        for (name, value) in named(stated) {
            values.entry(name).or_default().insert(value);
        }
    }
    no_mixture(all, &values)?;
    let Some(end) = first.validity.not_after else {
        let payload = BASE64.encode(serde_json::to_string(&values)?.as_bytes());
        let message = Message { version: version(), r#type: "sample".to_owned(), payload };
        return Ok(serde_json::to_string_pretty(&message)? + "\n");
    };
    let stored = |(name, value): (String, BTreeSet<String>)| Stored {
        version: version(),
        name,
        expiration: end.to_string(),
        value: value.into_iter().collect(),
    };
    Ok(serde_json::to_string_pretty(&values.into_iter().map(stored).collect::<Vec<_>>())? + "\n")
}

/// Trustee takes any of a name's values together with any of another's: of sets that differ in two registers it would
/// accept a mixture, which nobody vouches for.
fn no_mixture(all: &[Stated], values: &BTreeMap<String, BTreeSet<String>>) -> Result<(), ReferenceError> {
    let apart = "write one document for each set";
    if all.windows(2).any(|two| matches!(two, [one, other] if one.agent != other.agent)) {
        let problem =
            format!("sets of different agents do not go into one, which would not say whose values are whose: {apart}");
        return Err(Form::Rvps.refuse("the document", problem));
    }
    let several: Vec<&str> = values
        .iter()
        .filter(|(name, values)| *name != NAME && values.len() > 1)
        .map(|(name, _)| name.as_str())
        .collect();
    if several.len() > 1 {
        let names = several.join(", ");
        let problem = format!("the sets differ in {names}, and a mixture of them would be accepted, too: {apart}");
        return Err(Form::Rvps.refuse("the document", problem));
    }
    let mut registers = all.iter().map(|stated| {
        named(stated).into_iter().map(|(name, _)| name).filter(|name| name != NAME).collect::<BTreeSet<String>>()
    });
    let first = registers.next();
    if registers.any(|names| Some(&names) != first.as_ref()) {
        return Err(Form::Rvps.refuse("the document", format!("the sets do not name the same PCRs: {apart}")));
    }
    Ok(())
}

fn named(stated: &Stated) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    let mut put = |name: &str, value: &dyn fmt::Display| all.push((name.to_owned(), value.to_string()));
    if let Some(name) = &stated.name {
        put(NAME, name);
    }
    if let Some(AgentReference { executable, configuration }) = &stated.agent {
        put(EXECUTABLE, executable);
        put(CONFIGURATION, configuration);
    }
    let pcrs = match &stated.measured {
        Measured::Snp { launch_digest } => {
            put(SNP, launch_digest);
            None
        }
        Measured::Tdx { mrtd, rtmr0, rtmr1, rtmr2 } => {
            put(MRTD, mrtd);
            RTMRS.iter().zip([rtmr0, rtmr1, rtmr2]).for_each(|(name, rtmr)| put(name, rtmr));
            None
        }
        Measured::Vtpm { pcrs } => Some((TPM_PCR, pcrs)),
        Measured::AzureSnp { launch_digest, pcrs } => {
            put(AZURE_SNP, launch_digest);
            Some((SNP_PCR, pcrs))
        }
        Measured::AzureTdx { mrtd, pcrs } => {
            put(MRTD, mrtd);
            Some((TDX_PCR, pcrs))
        }
    };
    for (prefix, (index, value)) in
        pcrs.into_iter().flat_map(|(prefix, pcrs)| pcrs.iter().map(move |one| (prefix, one)))
    {
        put(&pcr(prefix, *index), value);
    }
    all
}

#[cfg(test)]
mod tests;
