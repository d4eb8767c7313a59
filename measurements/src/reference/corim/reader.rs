//! From a CoRIM to what it states. Reads what [`super::write`] writes, and the manifests of two published profiles as far
//! as they state launch digests: Microsoft's launch measurement and AMD's SEV-SNP.
//!
//! Not trusted: the bytes. Every field is either understood, known to demand nothing (`entities`, `language`), or refused
//! by name; so is a second value for anything.

use std::collections::BTreeMap;

use super::fields::{Fields, Read, array, digest, refuse, registers, shown, text};
use super::{
    AGENT, AMD, CONFIGURATION, DIGESTS, EXECUTABLE, INTEL, MEASUREMENT, MRTD, PCR, REGISTERS, RTMR, TAG_COMID,
    TAG_CORIM, TAG_TIME, TPM,
};
use crate::cbor::{self, Item};
use crate::digest::Digest;
use crate::reference::form::{Form, Stated, Validity};
use crate::reference::moment::Moment;
use crate::reference::{AgentReference, LAST_PCR, Measured};

/// Heads of documents that are CoRIMs or were, each with two bytes of tag number: 500 (any), 501, 502 (signed).
const TAGGED: [&[u8]; 3] = [&[0xd9, 0x01, 0xf4], &[0xd9, 0x01, 0xf5], &[0xd9, 0x01, 0xf6]];
/// Head of COSE_Sign1.
const SIGNED: u8 = 0xd2;
const TAG_SIGNED: u64 = 18;
const TAG_OLD_ANY: u64 = 500;
const TAG_OLD_SIGNED: u64 = 502;
const TAG_URI: u64 = 32;
const TAG_UUID: u64 = 37;
const TAG_OID: u64 = 111;

/// Profile of the `igvm` crate: a reference triple, and an endorsement that adds a version number to what matches.
const LAUNCH_MEASUREMENT: &str = "tag:microsoft.com,2026:launch-measurement/v1";
/// Profile of AMD as published in draft-deeglaze-amd-sev-snp-corim-profile-02, and as its editor's copy calls it since.
const AMD_PROFILES: [&str; 2] = ["tag:amd.com,2024:snp-corim-profile", "tag:amd.com,2025:snp-corim-profile"];
/// Its classes: reports signed by the chip's key and by the provider's. In the published draft OIDs,
/// 1.3.6.1.4.1.3704.3.1 and .3.2 (contents of the BER encoding) ...
const AMD_OIDS: [[u8; 9]; 2] = [[0x2b, 6, 1, 4, 1, 0x9c, 0x78, 3, 1], [0x2b, 6, 1, 4, 1, 0x9c, 0x78, 3, 2]];
/// ... in its editor's copy UUIDs.
const AMD_UUIDS: [u128; 2] = [0xd05e_6d1b_9f46_4ae2_a610_ce3e_6ee7_e153, 0x89a7_a1f0_e704_4faa_acbd_81c8_6df8_a961];
/// Its name for MEASUREMENT.
const AMD_MEASUREMENT: u64 = 641;

/// Whether bytes begin as a manifest does; a bare map is taken for one too, because no text begins so.
pub(in crate::reference) fn is_meant(bytes: &[u8]) -> bool {
    let bare = |first: &u8| *first == SIGNED || first >> 5 == 5;
    TAGGED.iter().any(|head| bytes.starts_with(head)) || bytes.first().is_some_and(bare)
}

/// Reads a manifest.
///
/// # Errors
/// [`crate::reference::ReferenceError::Cbor`], [`crate::reference::ReferenceError::Field`].
pub(in crate::reference) fn read(bytes: &[u8]) -> Read<Stated> {
    let corim = match cbor::decode(bytes)? {
        Item::Tag(TAG_CORIM, corim) => *corim,
        Item::Tag(TAG_SIGNED | TAG_OLD_SIGNED, _) => {
            let problem = "it is signed, and no signature is checked here: check it, and give its payload";
            return Err(refuse("the document", problem));
        }
        Item::Tag(TAG_OLD_ANY, _) => {
            return Err(refuse("the document", "its tag 500 is of an older draft: the unsigned CoRIM has 501"));
        }
        _ => return Err(refuse("the document", "it is not tagged as an unsigned CoRIM (501)")),
    };
    let mut corim = Fields::of(corim, "corim-map")?;
    let name = name(corim.need(0, "id")?)?;
    let tags = array(corim.need(1, "tags")?, "tags")?;
    let profile = corim.take(3).map(profile).transpose()?;
    let validity = corim.take(4).map(validity).transpose()?.unwrap_or_default();
    corim.take(5); // entities
    corim.end()?;
    let Ok([Item::Tag(TAG_COMID, comid)]) = <[_; 1]>::try_from(tags) else {
        return Err(refuse("tags", "expected exactly one, a CoMID (tag 506)"));
    };
    let Item::Bytes(comid) = *comid else { return Err(refuse("tags", "a CoMID is wrapped in a byte string")) };
    let (measured, agent) = comid_triples(&comid, profile)?.together()?;
    Ok(Stated { form: Form::Corim, name: Some(name), agent, measured, validity, made_from: None })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Profile {
    LaunchMeasurement,
    Amd,
}

fn profile(item: Item<'_>) -> Read<Profile> {
    let uri = match item {
        Item::Tag(TAG_URI, uri) => text(*uri, "profile")?,
        // Without its tag, as earlier writers have it.
        Item::Text(uri) => uri.into_owned(),
        _ => return Err(refuse("profile", "only profiles named by a URI are known")),
    };
    match uri.as_str() {
        LAUNCH_MEASUREMENT => Ok(Profile::LaunchMeasurement),
        known if AMD_PROFILES.contains(&known) => Ok(Profile::Amd),
        _ => Err(refuse("profile", &format!("{uri:?} is not known, nor what it demands"))),
    }
}

fn name(item: Item<'_>) -> Read<String> {
    match item {
        Item::Text(text) => Ok(text.into_owned()),
        Item::Tag(TAG_UUID, uuid) => match *uuid {
            Item::Bytes(uuid) if uuid.len() == 16 => Ok(uuid.iter().map(|byte| format!("{byte:02x}")).collect()),
            _ => Err(refuse("id", "a UUID has 16 bytes")),
        },
        other => Err(refuse("id", &format!("expected a text or a UUID, found {}", shown(&other)))),
    }
}

fn validity(item: Item<'_>) -> Read<Validity> {
    const AT: &str = "rim-validity";
    let mut fields = Fields::of(item, AT)?;
    let time = |item: Item<'_>| {
        let Item::Tag(TAG_TIME, seconds) = item else { return Err(refuse(AT, "expected a time (tag 1)")) };
        let Item::Unsigned(seconds) = *seconds else { return Err(refuse(AT, "expected whole seconds since 1970")) };
        Moment::from_seconds(seconds).map_err(|error| Form::Corim.refuse(AT, error))
    };
    let not_before = fields.take(0).map(time).transpose()?;
    let not_after = Some(time(fields.need(1, "not-after")?)?);
    fields.end()?;
    Ok(Validity { not_before, not_after })
}

fn comid_triples(comid: &[u8], profile: Option<Profile>) -> Read<Found> {
    let mut comid = Fields::of(cbor::decode(comid)?, "CoMID")?;
    comid.take(0); // language
    let mut identity = Fields::of(comid.need(1, "tag-identity")?, "tag-identity")?;
    identity.need(0, "tag-id")?;
    identity.take(1); // tag-version
    identity.end()?;
    comid.take(2); // entities
    let mut triples = Fields::of(comid.need(4, "triples")?, "triples")?;
    comid.end()?;
    let reference = array(triples.need(0, "reference-triples")?, "reference-triples")?;
    if profile == Some(Profile::LaunchMeasurement) {
        // Its endorsement gives what matches a version number: a claim more, nothing demanded.
        triples.take(8);
    }
    triples.end()?;
    let mut found = Found::default();
    for (index, triple) in reference.into_iter().enumerate() {
        let at = format!("reference-triples[{index}]");
        let Ok([environment, measurements]) = <[_; 2]>::try_from(array(triple, &at)?) else {
            return Err(refuse(&at, "expected an environment and its measurements"));
        };
        let target = target(environment, &at, profile)?;
        for measurement in array(measurements, &at)? {
            found.measurement(target, measurement, &at)?;
        }
    }
    Ok(found)
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Snp,
    Tdx,
    Tpm,
    Agent,
}

fn target(item: Item<'_>, at: &str, profile: Option<Profile>) -> Read<Target> {
    let at = &format!("{at}.environment");
    let mut environment = Fields::of(item, at)?;
    let mut class = Fields::of(environment.need(0, "class")?, &format!("{at}.class"))?;
    // An instance or a group narrows what the values are for, which would be lost here.
    environment.end()?;
    if let Some(id) = class.take(0) {
        class.end()?;
        let known = profile == Some(Profile::Amd) && is_amd(&id);
        return if known { Ok(Target::Snp) } else { Err(refuse(&format!("{at}.class.class-id"), "it is not known")) };
    }
    let (vendor, model) = (class.need(1, "vendor")?, class.need(2, "model")?);
    class.end()?;
    let (vendor, model) = (text(vendor, at)?, text(model, at)?);
    match [vendor.as_str(), model.as_str()] {
        AMD => Ok(Target::Snp),
        INTEL => Ok(Target::Tdx),
        TPM => Ok(Target::Tpm),
        AGENT => Ok(Target::Agent),
        _ => {
            let known = [AMD, INTEL, TPM, AGENT].map(|known| known.join("/")).join(", ");
            Err(refuse(at, &format!("vendor {vendor:?} with model {model:?} is none of {known}")))
        }
    }
}

fn is_amd(id: &Item<'_>) -> bool {
    let Item::Tag(tag, id) = id else { return false };
    let Item::Bytes(id) = &**id else { return false };
    match *tag {
        TAG_OID => AMD_OIDS.iter().any(|known| known[..] == **id),
        TAG_UUID => AMD_UUIDS.iter().any(|known| known.to_be_bytes()[..] == **id),
        _ => false,
    }
}

/// What has been found so far.
#[derive(Default)]
struct Found {
    launch_digest: Option<Digest<48>>,
    mrtd: Option<Digest<48>>,
    rtmrs: Option<BTreeMap<u64, Digest<48>>>,
    pcrs: Option<BTreeMap<u64, Digest<32>>>,
    executable: Option<Digest<32>>,
    configuration: Option<Digest<32>>,
}

fn put<T>(place: &mut Option<T>, value: T, at: &str) -> Read<()> {
    if place.replace(value).is_some() { Err(refuse(at, "it is given twice")) } else { Ok(()) }
}

impl Found {
    fn measurement(&mut self, target: Target, item: Item<'_>, at: &str) -> Read<()> {
        let mut fields = Fields::of(item, at)?;
        let (mkey, mval) = (fields.need(0, "mkey")?, fields.need(1, "mval")?);
        fields.end()?;
        let mkey = match mkey {
            Item::Text(mkey) => mkey.into_owned(),
            Item::Unsigned(AMD_MEASUREMENT) if target == Target::Snp => MEASUREMENT.to_owned(),
            other => return Err(refuse(&format!("{at}.mkey"), &format!("{} is not known", shown(&other)))),
        };
        let at = &format!("{at}.{mkey}");
        let mut mval = Fields::of(mval, at)?;
        match (target, mkey.as_str()) {
            (Target::Snp, MEASUREMENT) => put(&mut self.launch_digest, digest(mval.need(DIGESTS, "digests")?, at)?, at),
            (Target::Tdx, MRTD) => put(&mut self.mrtd, digest(mval.need(DIGESTS, "digests")?, at)?, at),
            (Target::Tdx, RTMR) => put(&mut self.rtmrs, registers(mval.need(REGISTERS, "registers")?, at)?, at),
            (Target::Tpm, PCR) => put(&mut self.pcrs, registers(mval.need(REGISTERS, "registers")?, at)?, at),
            (Target::Agent, EXECUTABLE) => put(&mut self.executable, digest(mval.need(DIGESTS, "digests")?, at)?, at),
            (Target::Agent, CONFIGURATION) => {
                put(&mut self.configuration, digest(mval.need(DIGESTS, "digests")?, at)?, at)
            }
            _ => Err(refuse(at, "no such measurement is known of this environment")),
        }?;
        mval.end()
    }

    fn together(self) -> Read<(Measured, Option<AgentReference>)> {
        let agent = match (self.executable, self.configuration) {
            (None, None) => None,
            (Some(executable), Some(configuration)) => Some(AgentReference { executable, configuration }),
            _ => {
                return Err(refuse("inwit-guest", "the agent is its executable and its configuration: one is missing"));
            }
        };
        let measured = match (self.launch_digest, self.mrtd, self.rtmrs, self.pcrs.map(numbered).transpose()?) {
            (Some(launch_digest), None, None, None) => Measured::Snp { launch_digest },
            (Some(launch_digest), None, None, Some(pcrs)) => Measured::AzureSnp { launch_digest, pcrs },
            (None, Some(mrtd), None, Some(pcrs)) => Measured::AzureTdx { mrtd, pcrs },
            (None, None, None, Some(pcrs)) => Measured::Vtpm { pcrs },
            (None, Some(mrtd), Some(rtmrs), None) => tdx(mrtd, &rtmrs)?,
            (None, Some(_), None, None) => {
                return Err(refuse(RTMR, "they are missing: MRTD alone says nothing of the kernel and what it starts"));
            }
            _ => return Err(refuse("reference-triples", "together they are the measurements of no single platform")),
        };
        Ok((measured, agent))
    }
}

fn tdx(mrtd: Digest<48>, rtmrs: &BTreeMap<u64, Digest<48>>) -> Read<Measured> {
    if rtmrs.keys().any(|index| *index > 2) {
        return Err(refuse(RTMR, "only 0, 1 and 2 are compared: RTMR3 is appraised from its log"));
    }
    let rtmr = |index| rtmrs.get(&index).copied().ok_or_else(|| refuse(RTMR, &format!("{index} is missing")));
    Ok(Measured::Tdx { mrtd, rtmr0: rtmr(0)?, rtmr1: rtmr(1)?, rtmr2: rtmr(2)? })
}

fn numbered(registers: BTreeMap<u64, Digest<32>>) -> Read<BTreeMap<u8, Digest<32>>> {
    if registers.is_empty() {
        // A set without a single PCR would match every machine.
        return Err(refuse(PCR, "no PCR is given"));
    }
    let number = |(index, value)| match u8::try_from(index) {
        Ok(index) if index <= LAST_PCR => Ok((index, value)),
        _ => Err(refuse(PCR, &format!("{index} is not a PCR number"))),
    };
    registers.into_iter().map(number).collect()
}

#[cfg(test)]
mod tests;
