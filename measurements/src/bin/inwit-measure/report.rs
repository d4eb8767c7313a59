//! From computed values to what is printed.
//!
//! Not trusted: the name given by the caller, which the Reference Values check. Never computes a measurement.

use std::collections::BTreeMap;

use inwit_measurements::made_from::MadeFrom;
use inwit_measurements::reference::{AgentReference, Measured, ReferenceValues};
use inwit_measurements::vtpm::PcrEvent;
use inwit_measurements::{Digest, sha256};
use serde_json::json;

use crate::arguments::OutputArguments;
use crate::files::{Failure, file_name, read};

/// What was computed.
pub(crate) enum Values {
    /// Everything that Reference Values of the platform hold.
    Whole(Measured),
    /// Only some registers of a TD.
    Parts(Vec<(&'static str, Digest<48>)>),
    /// The PCRs of a vTPM, and the extends that lead to them.
    Explained(Measured, Vec<PcrEvent>),
}

/// What complete Reference Values are made from; none beside bare values.
pub(crate) fn record(
    output: &OutputArguments,
    made_from: impl FnOnce() -> Result<MadeFrom, Failure>,
) -> Result<Option<MadeFrom>, Failure> {
    let (Some(agent), Some(config), false) = (&output.agent, &output.config, output.without_record) else {
        return Ok(None);
    };
    let mut record = made_from()?;
    record.add_agent((&file_name(agent), &read(agent)?), (&file_name(config), &read(config)?));
    Ok(Some(record))
}

/// Text or JSON: a Reference Values file when an agent is named, the bare values otherwise.
pub(crate) fn render(
    values: &Values,
    made_from: Option<MadeFrom>,
    output: &OutputArguments,
) -> Result<String, Failure> {
    let (Some(agent), Some(config), Some(name)) = (&output.agent, &output.config, &output.name) else {
        return Ok(if output.json { bare_json(values).to_string() } else { bare_text(values) });
    };
    let (Values::Whole(measured) | Values::Explained(measured, _)) = values else {
        return Err(Failure::MissingRtmr0);
    };
    let agent = AgentReference { executable: sha256(&read(agent)?), configuration: sha256(&read(config)?) };
    let reference = ReferenceValues { name: name.clone(), agent, measured: measured.clone(), made_from };
    let toml = reference.to_toml().map_err(Failure::refused)?;
    // What is printed must be accepted when it is registered, its name included.
    ReferenceValues::from_toml(&toml).map_err(Failure::refused)?;
    if output.json { reference.to_json().map_err(Failure::refused) } else { Ok(toml) }
}

fn registers(pcrs: &BTreeMap<u8, Digest<32>>) -> String {
    pcrs.iter().map(|(index, digest)| format!("pcr{index} {digest}\n")).collect()
}

fn bare_text(values: &Values) -> String {
    let line = |(name, digest): (&str, String)| format!("{name} {digest}\n");
    match values {
        Values::Parts(parts) => parts.iter().map(|(name, digest)| line((name, digest.to_string()))).collect(),
        Values::Explained(measured, events) => {
            let lines = events.iter().map(|event| format!("pcr{} {} {}\n", event.pcr, event.digest, event.what));
            bare_text(&Values::Whole(measured.clone())) + "\n" + &lines.collect::<String>()
        }
        Values::Whole(Measured::Snp { launch_digest }) => line(("launch_digest", launch_digest.to_string())),
        Values::Whole(Measured::Tdx { mrtd, rtmr0, rtmr1, rtmr2 }) => {
            [("mrtd", mrtd), ("rtmr0", rtmr0), ("rtmr1", rtmr1), ("rtmr2", rtmr2)]
                .map(|(name, digest)| line((name, digest.to_string())))
                .concat()
        }
        Values::Whole(Measured::Vtpm { pcrs }) => registers(pcrs),
        Values::Whole(Measured::AzureSnp { launch_digest, pcrs }) => {
            line(("launch_digest", launch_digest.to_string())) + &registers(pcrs)
        }
        Values::Whole(Measured::AzureTdx { mrtd, pcrs }) => line(("mrtd", mrtd.to_string())) + &registers(pcrs),
    }
}

fn bare_json(values: &Values) -> serde_json::Value {
    match values {
        Values::Parts(parts) => parts.iter().map(|(name, digest)| ((*name).to_owned(), json!(digest))).collect(),
        Values::Whole(measured) => json!(measured),
        Values::Explained(measured, events) => {
            let event = |event: &PcrEvent| json!({"pcr": event.pcr, "digest": event.digest, "what": event.what});
            let mut values = json!(measured);
            values["events"] = events.iter().map(event).collect();
            values
        }
    }
}
