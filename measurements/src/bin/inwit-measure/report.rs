//! From computed values to what is printed.
//!
//! Not trusted: the name given by the caller, which the Reference Values check. Never computes a measurement.

use std::collections::BTreeMap;

use inwit_measurements::made_from::MadeFrom;
use inwit_measurements::printable::escaped;
use inwit_measurements::reference::{AgentReference, Form, Measured, Stated, Validity};
use inwit_measurements::tdx::Event;
use inwit_measurements::vtpm::PcrEvent;
use inwit_measurements::{Digest, sha256};
use serde_json::json;

use crate::arguments::OutputArguments;
use crate::files::{Failure, FileKind, file_name, read};

/// What was computed.
pub(crate) enum Values {
    /// Everything that Reference Values of the platform hold.
    Whole(Measured),
    /// Only some registers of a TD.
    Parts(Vec<(&'static str, Digest<48>)>),
    /// The PCRs of a vTPM, and the extends that lead to them.
    Explained(Measured, Vec<PcrEvent>),
    /// PCRs of which some are missing or that say nothing of a whole boot; never Reference Values.
    SomePcrs(Box<Self>),
    /// The registers of a TD, the events that lead to them, and what is not certain about these.
    Td(Box<Self>, Vec<TdEvent>, Vec<String>),
}

/// An event of a TD's registers, and where it comes from.
pub(crate) struct TdEvent {
    pub(crate) event: Event,
    pub(crate) source: String,
}

impl Values {
    /// What Reference Values are made of; refused when a register is missing.
    fn whole(&self) -> Result<&Measured, Failure> {
        match self {
            Self::Whole(measured) | Self::Explained(measured, _) => Ok(measured),
            Self::Td(values, ..) => values.whole(),
            Self::Parts(_) => Err(Failure::MissingRtmr0),
            Self::SomePcrs(_) => Err(Failure::MissingPcrs),
        }
    }
}

/// What is to be printed.
pub(crate) enum Printed {
    /// Text; ends with a newline when it is printed.
    Text(String),
    /// Text that says that two measurements differ.
    Differ(String),
    /// Bytes as they are.
    Bytes(Vec<u8>),
}

impl From<String> for Printed {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl Printed {
    /// What goes to standard output or into a file.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        match self {
            Self::Text(text) | Self::Differ(text) => format!("{}\n", text.trim_end()).into_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }
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
    record.add_agent(
        (&file_name(agent), read(agent, FileKind::Agent)?),
        (&file_name(config), read(config, FileKind::Configuration)?),
    );
    if let (Some(initrd), Some(inside)) = (&mut record.initrd, &output.inside) {
        // The same bytes may be at several paths: what was checked is recorded.
        (initrd.agent, initrd.configuration) = (Some(inside.agent.clone()), Some(inside.configuration.clone()));
    }
    Ok(Some(record))
}

/// A Reference Values file when an agent is named, the bare values otherwise.
pub(crate) fn render(
    values: &Values,
    made_from: Option<MadeFrom>,
    output: &OutputArguments,
) -> Result<Printed, Failure> {
    let form = match (&output.agent, output.form()) {
        (None, None) => return Ok(bare_text(values).into()),
        (None, Some(Form::Json)) => return Ok(bare_json(values).to_string().into()),
        (None, Some(Form::Toml)) => {
            return Err(Failure::Usage("TOML is for Reference Values: give --agent, --config and --name".into()));
        }
        (_, form) => form.unwrap_or(Form::Toml),
    };
    let measured = values.whole()?;
    document(&[stated(measured.clone(), made_from, output)?], form, output)
}

/// Measurements with the agent and the name that the options give.
pub(crate) fn stated(
    measured: Measured,
    made_from: Option<MadeFrom>,
    output: &OutputArguments,
) -> Result<Stated, Failure> {
    let agent = match (&output.agent, &output.config) {
        (Some(agent), Some(config)) => Some(AgentReference {
            executable: sha256(read(agent, FileKind::Agent)?),
            configuration: sha256(read(config, FileKind::Configuration)?),
        }),
        _ => None,
    };
    let (form, validity) = (Form::Toml, Validity::default());
    Ok(Stated { form, name: output.name.clone(), agent, measured, validity, made_from })
}

/// One document of a form, with the end that the options give.
pub(crate) fn document(all: &[Stated], form: Form, output: &OutputArguments) -> Result<Printed, Failure> {
    let all: Vec<Stated> = all.iter().map(|stated| output.limit(stated.clone())).collect::<Result<_, _>>()?;
    let bytes = match (form, all.as_slice()) {
        (Form::Rvps, all) => Stated::write_rvps(all),
        (_, [one]) => one.write(form),
        (_, several) => {
            let cause = format!("{} sets of values do not go into one document as {form}: only RVPS", several.len());
            return Err(Failure::Usage(cause));
        }
    };
    let bytes = bytes.map_err(Failure::refused)?;
    if let [one] = all.as_slice() {
        // What is printed must be accepted when it is read again, its name included.
        let again = Stated::read(&bytes).map_err(Failure::refused)?;
        if (&again.measured, &again.agent) != (&one.measured, &one.agent) {
            return Err(Failure::Refused("what was written does not read back as it was: this is a fault here".into()));
        }
    }
    match form {
        Form::Corim => Ok(Printed::Bytes(bytes)),
        _ => String::from_utf8(bytes).map(Printed::Text).map_err(Failure::refused),
    }
}

/// What an event measures, as part of a line: names in it come from logs and files.
fn told(description: &str) -> String {
    escaped(description, &[])
}

fn registers(pcrs: &BTreeMap<u8, Digest<32>>) -> String {
    pcrs.iter().map(|(index, digest)| format!("pcr{index} {digest}\n")).collect()
}

fn bare_text(values: &Values) -> String {
    let line = |(name, digest): (&str, String)| format!("{name} {digest}\n");
    match values {
        Values::Parts(parts) => parts.iter().map(|(name, digest)| line((name, digest.to_string()))).collect(),
        Values::SomePcrs(inner) => bare_text(inner),
        Values::Explained(measured, events) => {
            let lines = events.iter().map(|event| format!("pcr{} {} {}\n", event.pcr, event.digest, told(&event.what)));
            bare_text(&Values::Whole(measured.clone())) + "\n" + &lines.collect::<String>()
        }
        Values::Td(values, events, caveats) => {
            let lines = events.iter().map(|TdEvent { event, source }| {
                let register = event.index.saturating_sub(1);
                format!("rtmr{register} {} {} [{source}]\n", event.digest, told(&event.description))
            });
            let caveats = caveats.iter().map(|caveat| format!("caveat: {caveat}\n"));
            bare_text(values) + "\n" + &lines.chain(caveats).collect::<String>()
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
        Values::SomePcrs(inner) => bare_json(inner),
        Values::Td(inner, events, caveats) => {
            let event = |TdEvent { event, source }: &TdEvent| {
                json!({
                    "register": format!("rtmr{}", event.index.saturating_sub(1)),
                    "digest": event.digest,
                    "what": told(&event.description),
                    "from": source,
                })
            };
            let mut values = bare_json(inner);
            values["events"] = events.iter().map(event).collect();
            values["caveats"] = json!(caveats);
            values
        }
        Values::Explained(measured, events) => {
            let event = |event: &PcrEvent| json!({"pcr": event.pcr, "digest": event.digest, "what": told(&event.what)});
            let mut values = json!(measured);
            values["events"] = events.iter().map(event).collect();
            values
        }
    }
}
