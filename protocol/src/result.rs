//! The Attestation Result: what the Verifier says to the Credential Authority and the Key Store, signed even between
//! neighbours in one process, so that issuing and releasing stand on the same rung. It is an EAR (draft-ietf-rats-ear) in
//! CBOR, signed as COSE_Sign1, with one submodule named after the platform. It names the mapped identity, what was found
//! as a trustworthiness vector, and the digests of what was appraised; it carries no raw measurement.
//!
//! An EAR may hold claims that its reader does not know and passes over. Not here: these results are read by roles of the
//! same making, and a claim that one of them does not know could be a condition, so it refuses.

use crate::cbor::{self, Entries, Field, Items, ParseError, SHORT, TEXT};
use crate::ear::{self, DEVELOPER, PROFILE, Tier, TrustworthinessVector, key};
use crate::evidence::Platform;
use crate::identity::WorkloadIdentifier;
use crate::primitives::PublicKey;
use crate::refusal::{Refusal, RefusalCode};
use crate::seal::{ENCAPSULATION_KEY_LEN, EncapsulationKey};
use crate::signed::{Form, Statement};
use ciborium::Value;

/// What the entries of `ear_appraisal_policy_ids` begin with, in their order.
const POLICY_ID: &str = "inwit:policy:sha256:";
const WORKLOAD_ID: &str = "inwit:workload:sha256:";
const REFERENCE_VALUES_ID: &str = "inwit:reference-values:";
const WHAT: &str = "attestation result";
const BAD: ParseError = ParseError::Shape(WHAT);

/// The id of an appraisal policy, by the SHA-256 of what it demands, in `ear_appraisal_policy_ids`.
pub fn policy_id(digest: &[u8; 32]) -> String {
    [POLICY_ID, &hex(digest)].concat()
}

/// The id of a set of Reference Values, by its name, in the same list.
pub fn reference_values_id(name: &str) -> String {
    [REFERENCE_VALUES_ID, name].concat()
}

/// What was found about one guest, for one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttestationResult {
    /// Name of the registered workload that the Evidence maps to.
    pub workload: String,
    /// Its stable Workload Identifier, from the mapping and never from the request. Claim `sub`.
    pub identifier: WorkloadIdentifier,
    /// The platform whose root vouches. Names the submodule.
    pub platform: Platform,
    /// Name of the set of Reference Values that matched.
    pub reference_values: String,
    /// What was found, side by side. Its status is `ear_status`.
    pub trustworthiness: TrustworthinessVector,
    /// The key that Evidence binds. Claim `cnf`.
    pub credential_key: PublicKey,
    /// Where secrets for this guest are sealed to.
    pub encapsulation_key: Option<EncapsulationKey>,
    /// The nonce that the binding holds: the exporter value of the guest's connection to the Verifier. Claim `eat_nonce`.
    pub nonce: [u8; 32],
    /// SHA-256 of the binding.
    pub binding: [u8; 32],
    /// SHA-256 of the Evidence.
    pub evidence: [u8; 32],
    /// SHA-256 of the registry entry that was applied.
    pub policy: [u8; 32],
    /// SHA-256 of the appraisal policy that was applied.
    pub appraisal_policy: [u8; 32],
    /// Name and version of the Verifier's program. Claim `ear_verifier_id`.
    pub verifier_build: String,
    /// Who may act on it, and nobody else.
    pub audience: String,
    /// Seconds since 1970.
    pub issued_at: u64,
    /// Seconds since 1970; minutes after `issued_at`.
    pub expires_at: u64,
}

impl AttestationResult {
    /// Whether `audience` may act on it at `now` (seconds since 1970). To be asked by everyone who issues or releases.
    ///
    /// # Errors
    /// A [`Refusal`]: it is for somebody else, its time has not come or is over, or it does not speak for the guest.
    pub fn usable(&self, audience: &str, now: u64) -> Result<(), Refusal> {
        let refuse = |code, cause| Err(Refusal::new(code, cause));
        if self.audience != audience {
            return refuse(RefusalCode::ResultUnusable, "the attestation result is for another audience");
        }
        if now < self.issued_at {
            return refuse(RefusalCode::ResultUnusable, "the attestation result is not valid yet");
        }
        if now >= self.expires_at {
            return refuse(RefusalCode::ResultUnusable, "the attestation result has expired");
        }
        match self.trustworthiness.status() {
            Tier::Affirming | Tier::Warning => Ok(()),
            Tier::None => refuse(RefusalCode::PolicyForbids, "the attestation result asserts nothing"),
            Tier::Contraindicated => refuse(RefusalCode::PolicyForbids, "the attestation result is contraindicated"),
        }
    }

    /// The submodule: what was found about the one Attester.
    fn appraisal(&self) -> Value {
        let ids = [
            policy_id(&self.appraisal_policy),
            [WORKLOAD_ID, &hex(&self.policy)].concat(),
            reference_values_id(&self.reference_values),
        ];
        let mut claims = vec![
            (key::CNF, ear::confirmation(&self.credential_key)),
            (key::STATUS, Value::from(self.trustworthiness.status().number())),
            (key::VECTOR, self.trustworthiness.to_value()),
            (key::POLICY_IDS, Value::Array(ids.into_iter().map(Value::Text).collect())),
            (key::WORKLOAD, Value::Text(self.workload.clone())),
            (key::BINDING, Value::Bytes(self.binding.into())),
            (key::EVIDENCE, Value::Bytes(self.evidence.into())),
        ];
        if let Some(encapsulation) = &self.encapsulation_key {
            claims.push((key::ENCAPSULATION_KEY, Value::Bytes(encapsulation.bytes().to_vec())));
        }
        cbor::map(claims)
    }
}

impl Statement for AttestationResult {
    /// The media type of an EAT as CWT (RFC 9782).
    const LABEL: &'static str = "application/eat+cwt";
    const FORM: Form = Form::CoseSign1;
    const LIMIT: usize = 16_384;

    fn encode(&self) -> Vec<u8> {
        let verifier = cbor::map(vec![
            (key::DEVELOPER, Value::Text(DEVELOPER.into())),
            (key::BUILD, Value::Text(self.verifier_build.clone())),
        ]);
        let submods = Value::Map(vec![(Value::Text(self.platform.text().into()), self.appraisal())]);
        cbor::encode(&cbor::map(vec![
            (key::SUB, Value::Text(self.identifier.uri().into())),
            (key::AUD, Value::Text(self.audience.clone())),
            (key::EXP, Value::from(self.expires_at)),
            (key::IAT, Value::from(self.issued_at)),
            (key::EAT_NONCE, Value::Bytes(self.nonce.into())),
            (key::EAT_PROFILE, Value::Text(PROFILE.into())),
            (key::SUBMODS, submods),
            (key::VERIFIER_ID, verifier),
        ]))
    }

    fn parse(payload: &[u8]) -> Result<Self, ParseError> {
        let mut claims = Entries::of(cbor::decode_claims(payload, WHAT)?, WHAT)?;
        let identifier = WorkloadIdentifier::parse(&claims.at(key::SUB)?.text(TEXT)?).map_err(|_| BAD)?;
        let audience = claims.at(key::AUD)?.text(TEXT)?;
        let (expires_at, issued_at) = (claims.at(key::EXP)?.unsigned()?, claims.at(key::IAT)?.unsigned()?);
        let nonce = claims.at(key::EAT_NONCE)?.array()?;
        if claims.at(key::EAT_PROFILE)?.text(SHORT)? != PROFILE {
            return Err(ParseError::Label(WHAT));
        }
        let mut submods = claims.at(key::SUBMODS)?.entries()?;
        let (name, appraisal) = submods.named(SHORT)?;
        submods.end()?;
        let verifier_build = verifier_build(claims.at(key::VERIFIER_ID)?)?;
        claims.end()?;
        let Appraisal { credential_key, trustworthiness, ids, workload, encapsulation_key, binding, evidence } =
            Appraisal::parse(appraisal.entries()?)?;
        let (appraisal_policy, policy, reference_values) = ids;
        Ok(Self {
            workload,
            identifier,
            platform: Platform::from_text(&name).ok_or(BAD)?,
            reference_values,
            trustworthiness,
            credential_key,
            encapsulation_key,
            nonce,
            binding,
            evidence,
            policy,
            appraisal_policy,
            verifier_build,
            audience,
            issued_at,
            expires_at,
        })
    }
}

fn verifier_build(claim: Field) -> Result<String, ParseError> {
    let mut members = claim.entries()?;
    if members.at(key::DEVELOPER)?.text(SHORT)? != DEVELOPER {
        return Err(ParseError::Label(WHAT));
    }
    let build = members.at(key::BUILD)?.text(SHORT)?;
    members.end()?;
    Ok(build)
}

/// The submodule's claims.
struct Appraisal {
    credential_key: PublicKey,
    trustworthiness: TrustworthinessVector,
    /// Digest of the appraisal policy, digest of the registry entry, name of the Reference Values.
    ids: ([u8; 32], [u8; 32], String),
    workload: String,
    encapsulation_key: Option<EncapsulationKey>,
    binding: [u8; 32],
    evidence: [u8; 32],
}

impl Appraisal {
    fn parse(mut claims: Entries) -> Result<Self, ParseError> {
        let credential_key = ear::confirmed(claims.at(key::CNF)?)?;
        let status = claims.at(key::STATUS)?.small()?;
        let trustworthiness = TrustworthinessVector::parse(claims.at(key::VECTOR)?.entries()?)?;
        // A status that says something else than the vector would be believed by who reads only the one or the other.
        if status != trustworthiness.status().number() {
            return Err(BAD);
        }
        let appraisal = Self {
            credential_key,
            trustworthiness,
            ids: policy_ids(claims.at(key::POLICY_IDS)?.items()?)?,
            workload: claims.at(key::WORKLOAD)?.text(SHORT)?,
            encapsulation_key: match claims.at_optional(key::ENCAPSULATION_KEY)? {
                Some(claim) => Some(EncapsulationKey::parse(&claim.bytes(ENCAPSULATION_KEY_LEN)?).map_err(|_| BAD)?),
                None => None,
            },
            binding: claims.at(key::BINDING)?.array()?,
            evidence: claims.at(key::EVIDENCE)?.array()?,
        };
        claims.end()?;
        Ok(appraisal)
    }
}

fn policy_ids(mut ids: Items) -> Result<([u8; 32], [u8; 32], String), ParseError> {
    let mut digest = |prefix| {
        let id = ids.text(TEXT)?;
        id.strip_prefix(prefix).and_then(from_hex).ok_or(BAD)
    };
    let (appraisal_policy, policy) = (digest(POLICY_ID)?, digest(WORKLOAD_ID)?);
    let names = ids.text(TEXT)?;
    let reference_values = names.strip_prefix(REFERENCE_VALUES_ID).ok_or(BAD)?.to_owned();
    ids.end()?;
    Ok((appraisal_policy, policy, reference_values))
}

/// Lower-case hexadecimal.
fn hex(digest: &[u8; 32]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads what [`hex`] wrote, and no other spelling of it.
fn from_hex(text: &str) -> Option<[u8; 32]> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => digit.checked_sub(b'0'),
        b'a'..=b'f' => digit.checked_sub(b'a')?.checked_add(10),
        _ => None,
    };
    let byte = |[high, low]: &[u8; 2]| Some(digit(*high)? << 4 | digit(*low)?);
    let bytes: Vec<u8> = pairs.iter().map(byte).collect::<Option<_>>()?;
    bytes.try_into().ok().filter(|_| rest.is_empty())
}
