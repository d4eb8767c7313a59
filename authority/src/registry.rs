//! The registry of workloads: one text file each under `workloads/`, fit for version control. This is the mapping of
//! mechanisms.md §1: from Reference Values, which change with every release, to an identifier and attributes, which
//! do not. Several sets of Reference Values may stand at once, so that update and roll-back keep the identity.

use crate::fault::Fault;
use crate::files;
use inwit_measurements::Digest;
use inwit_measurements::reference::{Measured, ReferenceValues};
use inwit_protocol::identity::WorkloadIdentifier;
use inwit_protocol::primitives::sha256;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Longest registry file, in bytes.
const FILE_LIMIT: usize = 1_048_576;
/// Most workloads of one registry.
const MAX_WORKLOADS: usize = 4_096;
/// Shortest and longest lifetime of a credential, in seconds.
const LIFETIMES: std::ops::RangeInclusive<u64> = 60..=86_400 * 30;
/// Most secrets of one workload: as many full-size ones as a reply can hold.
const MAX_SECRETS: usize = 12;

const NAMES: &str = "names are 1 to 64 letters, digits, - and _";

/// Whether it is a name of a workload or secret: nothing that could be a path.
fn is_name(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    (1..=64).contains(&text.len()) && text.bytes().all(allowed)
}

/// One registered workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// Name: letters, digits, `-` and `_`; also the file's name.
    pub name: String,
    /// The stable Workload Identifier.
    pub identifier: String,
    /// Names of the secrets that it is entitled to.
    #[serde(default)]
    pub secrets: Vec<String>,
    /// Lifetime of its credentials, in seconds.
    pub lifetime_seconds: u64,
    /// Attributes in business words.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
    /// Accepted Reference Values.
    pub reference_values: Vec<ReferenceValues>,
}

impl Workload {
    /// Checks what serde cannot.
    pub fn validate(&self) -> Result<WorkloadIdentifier, Fault> {
        if !is_name(&self.name) || !self.secrets.iter().all(|secret| is_name(secret)) {
            return Err(Fault::of(&self.name, NAMES));
        }
        if self.secrets.len() > MAX_SECRETS {
            return Err(Fault::of(&self.name, format_args!("at most {MAX_SECRETS} secrets")));
        }
        if !LIFETIMES.contains(&self.lifetime_seconds) {
            return Err(Fault::of(&self.name, "lifetime_seconds is from 60 to 2592000"));
        }
        if self.reference_values.is_empty() {
            return Err(Fault::of(&self.name, "at least one set of reference_values is needed"));
        }
        WorkloadIdentifier::parse(&self.identifier).map_err(|error| Fault::of(&self.name, error))
    }
}

/// A workload as the Verifier uses it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The workload.
    pub workload: Workload,
    /// Its parsed identifier.
    pub identifier: WorkloadIdentifier,
    /// SHA-256 of its file: the policy that was applied, by content.
    pub digest: [u8; 32],
}

/// PCRs by number, as a set of Reference Values names them.
type Pcrs = BTreeMap<u8, Digest<32>>;

/// The PCRs of a set that names any, and what stands beside them: the platform and what its TEE measured.
fn pcrs(measured: &Measured) -> Option<((&'static str, Option<&Digest<48>>), &Pcrs)> {
    match measured {
        Measured::Vtpm { pcrs } => Some((("vtpm", None), pcrs)),
        Measured::AzureSnp { launch_digest, pcrs } => Some((("azure-snp", Some(launch_digest)), pcrs)),
        Measured::AzureTdx { mrtd, pcrs } => Some((("azure-tdx", Some(mrtd)), pcrs)),
        Measured::Snp { .. } | Measured::Tdx { .. } => None,
    }
}

/// Whether one machine can have the PCRs of both: those that both name are equal.
fn may_both_match(one: &Pcrs, other: &Pcrs) -> bool {
    one.iter().all(|(number, digest)| other.get(number).is_none_or(|same| same == digest))
}

/// All registered workloads, read at one moment.
#[derive(Clone, Debug, Default)]
pub struct Registry(Vec<Entry>);

impl Registry {
    /// Reads every `*.toml` of a folder. One bad file refuses the whole: a registry with a hole is not what was reviewed.
    pub fn load(folder: &Path) -> Result<Self, Fault> {
        let mut entries = Vec::new();
        let listing = std::fs::read_dir(folder).map_err(|error| Fault::of(folder.display(), error))?;
        for file in listing {
            let path = file.map_err(|error| Fault::of(folder.display(), error))?.path();
            if path.extension().is_some_and(|extension| extension == "toml") {
                entries.push(Self::read(&path)?);
            }
        }
        entries.sort_by(|a, b| a.workload.name.cmp(&b.workload.name));
        let registry = Self(entries);
        registry.check_unambiguous()?;
        Ok(registry)
    }

    fn read(path: &Path) -> Result<Entry, Fault> {
        let text = files::read_text(path, FILE_LIMIT)?;
        let workload: Workload = toml::from_str(&text).map_err(|error| Fault::of(path.display(), error))?;
        let identifier = workload.validate()?;
        if path.file_stem().is_none_or(|stem| stem != workload.name.as_str()) {
            return Err(Fault::of(path.display(), "the file's name is not the workload's"));
        }
        Ok(Entry { workload, identifier, digest: sha256(text.as_bytes()) })
    }

    /// One measurement with one agent maps to one workload, or to none. Sets of PCRs need not be equal for that: what one
    /// names beyond the other does not keep a measurement from matching both.
    fn check_unambiguous(&self) -> Result<(), Fault> {
        if self.0.len() > MAX_WORKLOADS {
            return Err(Fault::new(format!("more than {MAX_WORKLOADS} workloads")));
        }
        let mut seen = BTreeSet::new();
        let mut alike: BTreeMap<String, Vec<(&str, &Pcrs)>> = BTreeMap::new();
        for entry in &self.0 {
            for values in &entry.workload.reference_values {
                let key = serde_json::to_string(&(&values.agent, &values.measured))
                    .map_err(|error| Fault::of(&values.name, error))?;
                if !seen.insert(key) {
                    return Err(Fault::of(&entry.workload.name, "its reference values stand in the registry twice"));
                }
                let Some((beside, pcrs)) = pcrs(&values.measured) else { continue };
                let key =
                    serde_json::to_string(&(&values.agent, beside)).map_err(|error| Fault::of(&values.name, error))?;
                let others = alike.entry(key).or_default();
                if let Some((other, _)) = others.iter().find(|(_, others)| may_both_match(others, pcrs)) {
                    let cause = format_args!(
                        "reference values {} match wherever those of {other} with the same agent do: no PCR that both \
                         name differs",
                        values.name
                    );
                    return Err(Fault::of(&entry.workload.name, cause));
                }
                others.push((&entry.workload.name, pcrs));
            }
        }
        Ok(())
    }

    /// Every set of Reference Values, named `workload/name`, for appraisal.
    pub fn reference_values(&self) -> Vec<ReferenceValues> {
        let sets = |entry: &Entry| {
            let name = entry.workload.name.clone();
            let rename = move |values: &ReferenceValues| ReferenceValues {
                name: format!("{name}/{}", values.name),
                agent: values.agent.clone(),
                measured: values.measured.clone(),
                // What the values were made from says nothing about Evidence.
                made_from: None,
            };
            entry.workload.reference_values.iter().map(rename).collect::<Vec<_>>()
        };
        self.0.iter().flat_map(sets).collect()
    }

    /// The entry that a matched set's name belongs to.
    pub fn entry_of(&self, matched: &str) -> Option<&Entry> {
        let (workload, _) = matched.split_once('/')?;
        self.0.iter().find(|entry| entry.workload.name == workload)
    }

    /// The same registry without the workloads whose file is gone from `folder`.
    pub(crate) fn without_removed(&self, folder: &Path) -> Self {
        let there = |entry: &&Entry| folder.join(format!("{}.toml", entry.workload.name)).exists();
        Self(self.0.iter().filter(there).cloned().collect())
    }

    /// Withdraws a workload: its file is removed.
    pub fn remove(folder: &Path, name: &str) -> Result<(), Fault> {
        if !is_name(name) {
            return Err(Fault::of(name, NAMES));
        }
        let path = folder.join(format!("{name}.toml"));
        // Whatever the other files are like: a withdrawal waits for nothing.
        std::fs::remove_file(&path).map_err(|error| Fault::of(format_args!("workload {name}"), error))
    }

    /// The entries, by name.
    pub fn entries(&self) -> &[Entry] {
        &self.0
    }

    /// Adds or replaces a workload's file; the registry as it would then be must load.
    pub fn write(folder: &Path, workload: &Workload) -> Result<(), Fault> {
        workload.validate()?;
        let mut others = Self::load(folder)?;
        others.0.retain(|entry| entry.workload.name != workload.name);
        let text = toml::to_string_pretty(workload).map_err(|error| Fault::of(&workload.name, error))?;
        others.0.push(Entry {
            identifier: workload.validate()?,
            digest: sha256(text.as_bytes()),
            workload: workload.clone(),
        });
        others.check_unambiguous()?;
        files::replace(&folder.join(format!("{}.toml", workload.name)), text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use inwit_measurements::reference::AgentReference;

    fn workload(name: &str, agent: u8, measured: Measured) -> Workload {
        let digest = |byte| Digest::from([byte; 32]);
        let agent = AgentReference { executable: digest(agent), configuration: digest(2) };
        Workload {
            name: name.to_owned(),
            identifier: format!("spiffe://demo.example/{name}"),
            secrets: vec![],
            lifetime_seconds: 600,
            attributes: BTreeMap::new(),
            reference_values: vec![ReferenceValues { name: "1".to_owned(), agent, measured, made_from: None }],
        }
    }

    fn pcrs(values: &[(u8, u8)]) -> Pcrs {
        values.iter().map(|(number, byte)| (*number, Digest::from([*byte; 32]))).collect()
    }

    /// Why a second workload beside a first one is not taken.
    fn refused(first: &Measured, agent: u8, second: Measured) -> Option<String> {
        let folder = tempfile::tempdir().unwrap();
        Registry::write(folder.path(), &workload("a", 1, first.clone())).unwrap();
        let outcome = Registry::write(folder.path(), &workload("b", agent, second));
        assert_eq!(Registry::load(folder.path()).unwrap().entries().len(), 1 + usize::from(outcome.is_ok()));
        outcome.err().map(|fault| fault.to_string())
    }

    #[test]
    fn of_two_workloads_no_machine_can_match_both() {
        let boot = [(0, 1), (4, 2), (7, 3), (9, 4)];
        let more = [&boot[..], &[(11, 5)]].concat();
        let tpm = |values: &[(u8, u8)]| Measured::Vtpm { pcrs: pcrs(values) };
        let snp = |launch, values: &[(u8, u8)]| Measured::AzureSnp {
            launch_digest: Digest::from([launch; 48]),
            pcrs: pcrs(values),
        };
        let tdx = |mrtd, values: &[(u8, u8)]| Measured::AzureTdx { mrtd: Digest::from([mrtd; 48]), pcrs: pcrs(values) };
        for (first, second) in [
            (tpm(&boot), tpm(&more)),
            (tpm(&more), tpm(&boot)),
            (tpm(&[&boot[..], &[(12, 5)]].concat()), tpm(&more)),
            (snp(1, &boot), snp(1, &more)),
            (tdx(1, &boot), tdx(1, &more)),
        ] {
            let cause = refused(&first, 1, second.clone()).unwrap();
            assert!(cause.contains("match wherever those of a "), "{cause}");
            assert_eq!(refused(&first, 9, second), None, "another agent");
        }
        let other = [(0, 1), (4, 2), (7, 3), (9, 9), (11, 5)];
        for (first, second) in [
            (tpm(&boot), tpm(&other)),
            (snp(1, &boot), snp(1, &other)),
            (snp(1, &boot), snp(2, &more)),
            (tdx(1, &boot), tdx(2, &more)),
            (snp(1, &boot), tdx(1, &more)),
            (tpm(&boot), snp(1, &more)),
        ] {
            assert_eq!(refused(&first, 1, second), None);
        }
    }
}
