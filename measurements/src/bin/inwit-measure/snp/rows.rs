//! What was computed for each shape of guest, and how it is printed and written.
//!
//! Not trusted: the name given by the caller, which the Reference Values check. Never computes.

use std::io::Write;
use std::path::Path;

use inwit_measurements::Digest;
use inwit_measurements::made_from::MadeFrom;
use inwit_measurements::reference::{Form, Measured};
use inwit_measurements::snp::id_block::SignedIdBlock;
use serde_json::{Value, json};

use super::shapes::Shape;
use crate::arguments::OutputArguments;
use crate::files::{Failure, write};
use crate::id_block::{fields, lines};
use crate::progress::stage;
use crate::report::{Printed, Values, document, render, stated};

/// One shape and its launch.
pub(super) struct Row {
    pub(super) shape: Shape,
    pub(super) digest: Digest<48>,
    pub(super) id_block: Option<SignedIdBlock>,
}

impl Row {
    const fn measured(&self) -> Measured {
        Measured::Snp { launch_digest: self.digest }
    }

    fn json(&self) -> Value {
        let mut json = self.shape.json();
        json["launch_digest"] = json!(self.digest);
        for (name, value) in self.id_block.iter().flat_map(fields) {
            json[name] = json!(value);
        }
        json
    }
}

/// One launch as its bare values or its Reference Values, several as a table, as JSON, or as one document of RVPS.
pub(super) fn print(rows: &[Row], record: Option<&MadeFrom>, output: &OutputArguments) -> Result<Printed, Failure> {
    match (rows, output.form()) {
        ([Row { digest, shape, id_block: Some(signed) }], None) => {
            say(shape);
            Ok((format!("launch_digest {digest}\n") + &lines(&fields(signed))).into())
        }
        ([one], Some(Form::Json)) if output.agent.is_none() => {
            let mut json = one.json();
            // As bare values of every platform have it.
            json["platform"] = json!(one.measured())["platform"].take();
            Ok(json.to_string().into())
        }
        ([one], None) if output.agent.is_none() => {
            say(&one.shape);
            render(&Values::Whole(one.measured()), None, output)
        }
        ([one], _) => render(&Values::Whole(one.measured()), record.map(|record| one.shape.of(record)), output),
        (all, None) => Ok(table(all).into()),
        (all, Some(Form::Json)) => Ok(all.iter().map(Row::json).collect::<Value>().to_string().into()),
        (all, Some(form)) => {
            let all = all.iter().map(|row| stated(row.measured(), None, output)).collect::<Result<Vec<_>, _>>()?;
            document(&all, form, output)
        }
    }
}

/// Which shape a digest is of, where scripts do not look for it.
fn say(shape: &Shape) {
    let _ = writeln!(std::io::stderr(), "inwit-measure: {}", shape.words());
}

/// A line for each shape, with a heading.
fn table(rows: &[Row]) -> String {
    let width = rows.iter().map(|row| row.shape.cpu.name.len()).max().unwrap_or(0).max(3);
    let mut text = format!("vcpus  {:width$}  signature   features  launch_digest\n", "cpu");
    for Row { shape: Shape { vcpus, cpu, features, .. }, digest, .. } in rows {
        let features = format!("{:#x}", features.raw());
        text += &format!("{vcpus:>5}  {:width$}  {}  {features:<8}  {digest}\n", cpu.name, cpu.signature);
    }
    text
}

/// Files for each shape, named after it: Reference Values where an agent is given, ID block and ID authentication information
/// where a key is. Gives the names of the files.
pub(super) fn write_all(
    folder: &Path,
    rows: &[Row],
    record: Option<&MadeFrom>,
    output: &OutputArguments,
) -> Result<Printed, Failure> {
    let (mut written, mut all) = (Vec::new(), Vec::new());
    for (number, row) in rows.iter().enumerate() {
        stage(format!("writing files, {number} of {}", rows.len()));
        let shape = &row.shape;
        let mut json = row.json();
        let mut put = |field: &str, ending: &str, contents: &[u8]| {
            let path = folder.join(format!("{shape}.{ending}"));
            write(&path, contents)?;
            let path = path.display().to_string();
            json[field] = json!(path);
            written.push(path);
            Ok::<(), Failure>(())
        };
        if let Some(name) = &output.name {
            let one = OutputArguments { name: Some(format!("{name}-{shape}")), ..output.clone() };
            let values = render(&Values::Whole(row.measured()), record.map(|record| shape.of(record)), &one)?;
            put("file", ending(output.form()), &values.into_bytes())?;
        }
        if let Some(signed) = &row.id_block {
            put("id_block_file", "id-block", &signed.block)?;
            put("id_auth_file", "id-auth", signed.auth.as_slice())?;
        }
        all.push(json);
    }
    if output.json { Ok(Value::from(all).to_string().into()) } else { Ok((written.join("\n") + "\n").into()) }
}

const fn ending(form: Option<Form>) -> &'static str {
    match form {
        None | Some(Form::Toml) => "toml",
        Some(Form::Json) => "json",
        Some(Form::Corim) => "corim",
        Some(Form::Rvps) => "rvps.json",
    }
}
