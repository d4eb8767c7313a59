//! CoRIM, the Concise Reference Integrity Manifest of the IETF (draft-ietf-rats-corim-11), unsigned: tag 501 around a
//! `corim-map` with one CoMID (tag 506) of reference triples, in deterministic CBOR.
//!
//! What is written stays inside the base schema and claims no profile, so that every reader can take it:
//!
//! | Target Environment (`vendor`, `model`) | Measurement (`mkey`) | Value |
//! |---|---|---|
//! | `AMD`, `SEV-SNP` | `MEASUREMENT` | `digests`, SHA-384: the launch digest |
//! | `Intel`, `TDX` | `MRTD` | `digests`, SHA-384 |
//! | | `RTMR` | `integrity-registers` 0, 1, 2, SHA-384 |
//! | `TCG`, `TPM 2.0` | `PCR` | `integrity-registers` by PCR number, SHA-256 |
//! | `inwit`, `inwit-guest` | `executable`, `configuration` | `digests`, SHA-256: the agent |
//!
//! The names of the first two come from the launch-measurement profile of the `igvm` crate
//! (`tag:microsoft.com,2026:launch-measurement/v1`); Trustee's reader makes its value names of them. The others are ours:
//! no document names them. An Azure guest has the environment of its paravisor and that of its TPM. The profile of AMD
//! (draft-deeglaze-amd-sev-snp-corim-profile-02) names the class by who signs the report, chip or provider, which launch
//! digests know nothing of: it is read, not written. `corim-id` is the name of the values, `tag-id` comes from a digest of
//! the triples, `rim-validity` is written when an end is given.
//!
//! Nothing here is trusted or authenticated: signed manifests (COSE) are refused, because nobody would check them.

use super::form::{Form, Stated, Validity};
use super::{AgentReference, Measured, ReferenceError};
use crate::cbor::{Item, map};
use crate::digest::{Digest, sha256};

mod fields;
mod reader;

pub(super) use reader::{is_meant, read};

const TAG_CORIM: u64 = 501;
const TAG_COMID: u64 = 506;
const TAG_TIME: u64 = 1;
/// Algorithms of the IANA Named Information registry.
const SHA256: u64 = 1;
const SHA384: u64 = 7;

const AMD: [&str; 2] = ["AMD", "SEV-SNP"];
const INTEL: [&str; 2] = ["Intel", "TDX"];
const TPM: [&str; 2] = ["TCG", "TPM 2.0"];
const AGENT: [&str; 2] = ["inwit", "inwit-guest"];

const MEASUREMENT: &str = "MEASUREMENT";
const MRTD: &str = "MRTD";
const RTMR: &str = "RTMR";
const PCR: &str = "PCR";
const EXECUTABLE: &str = "executable";
const CONFIGURATION: &str = "configuration";

/// `digests` of a measurement-values-map.
const DIGESTS: u64 = 2;
/// `integrity-registers` of a measurement-values-map.
const REGISTERS: u64 = 14;

/// Writes the manifest. Without a name the manifest is called after its contents.
///
/// # Errors
/// [`ReferenceError::Name`].
pub(super) fn write(stated: &Stated) -> Result<Vec<u8>, ReferenceError> {
    let triples = Item::Array(triples(stated));
    let tag = format!("inwit:{}", sha256(&triples.encode()));
    let name = match &stated.name {
        Some(name) if super::fits(name) => name.as_str(),
        Some(_) => return Err(ReferenceError::Name),
        None => &tag,
    };
    let comid = map([(1, map([(0, Item::text(&tag))])), (4, map([(0, triples)]))]);
    let mut corim = vec![(0, Item::text(name)), (1, Item::Array(vec![Item::bytes(&comid.encode()).tagged(TAG_COMID)]))];
    if let Some(validity) = validity(stated.validity)? {
        corim.push((4, validity));
    }
    Ok(map(corim).tagged(TAG_CORIM).encode())
}

fn validity(validity: Validity) -> Result<Option<Item<'static>>, ReferenceError> {
    let time = |moment: super::Moment| Item::Unsigned(moment.seconds()).tagged(TAG_TIME);
    match (validity.not_before, validity.not_after) {
        (None, None) => Ok(None),
        (from, Some(until)) => Ok(Some(map(from.map(|from| (0, time(from))).into_iter().chain([(1, time(until))])))),
        (Some(_), None) => Err(Form::Corim.refuse("rim-validity", "a beginning without an end cannot be written")),
    }
}

fn triples(stated: &Stated) -> Vec<Item<'static>> {
    let tpm = |pcrs: &std::collections::BTreeMap<u8, Digest<32>>| {
        let registers = pcrs.iter().map(|(index, value)| (u64::from(*index), digests(SHA256, value)));
        triple(TPM, vec![measurement(PCR, REGISTERS, map(registers))])
    };
    let amd = |launch: &Digest<48>| triple(AMD, vec![measurement(MEASUREMENT, DIGESTS, digests(SHA384, launch))]);
    let build_time = |mrtd: &Digest<48>| measurement(MRTD, DIGESTS, digests(SHA384, mrtd));
    let mut all = match &stated.measured {
        Measured::Snp { launch_digest } => vec![amd(launch_digest)],
        Measured::Tdx { mrtd, rtmr0, rtmr1, rtmr2 } => {
            let registers = (0..).zip([rtmr0, rtmr1, rtmr2]).map(|(index, value)| (index, digests(SHA384, value)));
            vec![triple(INTEL, vec![build_time(mrtd), measurement(RTMR, REGISTERS, map(registers))])]
        }
        Measured::Vtpm { pcrs } => vec![tpm(pcrs)],
        Measured::AzureSnp { launch_digest, pcrs } => vec![amd(launch_digest), tpm(pcrs)],
        Measured::AzureTdx { mrtd, pcrs } => vec![triple(INTEL, vec![build_time(mrtd)]), tpm(pcrs)],
    };
    if let Some(AgentReference { executable, configuration }) = &stated.agent {
        let file = |mkey, digest| measurement(mkey, DIGESTS, digests(SHA256, digest));
        all.push(triple(AGENT, vec![file(EXECUTABLE, executable), file(CONFIGURATION, configuration)]));
    }
    all
}

fn triple([vendor, model]: [&str; 2], measurements: Vec<Item<'static>>) -> Item<'static> {
    let class = map([(1, Item::text(vendor)), (2, Item::text(model))]);
    Item::Array(vec![map([(0, class)]), Item::Array(measurements)])
}

fn measurement(mkey: &str, kind: u64, value: Item<'static>) -> Item<'static> {
    map([(0, Item::text(mkey)), (1, map([(kind, value)]))])
}

fn digests<const N: usize>(algorithm: u64, digest: &Digest<N>) -> Item<'static> {
    Item::Array(vec![Item::Array(vec![Item::Unsigned(algorithm), Item::bytes(digest.as_bytes())])])
}
