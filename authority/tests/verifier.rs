//! The Verifier's result and those who act on it: what it says about a request that arrived over one connection, what it
//! keeps to itself, and that neither Credential Authority nor Key Store takes it for anything else.

mod evidence_support;

use std::sync::{Arc, LazyLock};

use evidence_support::amd::{Amd, NOW};
use evidence_support::policy::{agent, measured_pcrs, reference};
use evidence_support::snp::{GUID_VCEK, table};
use evidence_support::tpm::Tpm;
use evidence_support::{evidence, refused_as};
use inwit_authority::ca::CredentialAuthority;
use inwit_authority::evidence::{Endorsements, Product};
use inwit_authority::policy::{PermissionFile, PolicyFile, TcbFile};
use inwit_authority::registry::{Registry, Workload};
use inwit_authority::verifier::{Outstanding, Verifier};
use inwit_measurements::Digest;
use inwit_measurements::reference::Measured;
use inwit_protocol::binding::{Binding, EncodedBinding, Purpose, ReportData};
use inwit_protocol::ear::{Hardware, InstanceIdentity, Tier};
use inwit_protocol::evidence::{Evidence, Platform};
use inwit_protocol::identity::{TrustDomain, WorkloadIdentifier};
use inwit_protocol::message::AcquireRequest;
use inwit_protocol::primitives::{SigningKey, sha256};
use inwit_protocol::refusal::{Refusal, RefusalCode};
use inwit_protocol::result::AttestationResult;
use inwit_protocol::seal;
use inwit_protocol::signed::{Signed, Statement, Verified};
use ring::rand::SystemRandom;

static MILAN: LazyLock<Amd> = LazyLock::new(|| Amd::new(Product::Milan));
const LAUNCH: [u8; 48] = [0x4d; 48];
const NONCE: [u8; 32] = [0x9c; 32];
const IDENTIFIER: &str = "spiffe://demo.example/payments";
const AUDIENCE: &str = "spiffe://demo.example";

fn key() -> SigningKey {
    SigningKey::generate(&SystemRandom::new()).unwrap()
}

/// One connection: what the guest sends over it, and the key that it opened it with.
struct Connection {
    credential: SigningKey,
    encapsulation: seal::EncapsulationKey,
    binding: EncodedBinding,
}

impl Connection {
    fn open() -> Self {
        let (credential, encapsulation) = (key(), seal::generate().1);
        let binding = Binding {
            purpose: Purpose::CertifyKey,
            nonce: NONCE,
            credential_key: credential.public().clone(),
            encapsulation_key: Some(encapsulation.clone()),
            agent: agent(),
        };
        let binding = binding.make(&credential, &SystemRandom::new()).unwrap();
        Self { credential, encapsulation, binding }
    }

    fn request(&self, evidence: Evidence) -> AcquireRequest {
        let identifier = WorkloadIdentifier::parse(IDENTIFIER).unwrap();
        AcquireRequest { binding: self.binding.clone(), evidence, identifier }
    }

    fn asked(&self) -> Outstanding {
        Outstanding::of_connection(NONCE, self.credential.public().clone())
    }
}

fn policy() -> PolicyFile {
    let mut policy = PolicyFile::strict();
    let zero = TcbFile { boot_loader: 0, tee: 0, snp: 0, microcode: 0, fmc: None };
    policy.snp.minimum_tcb = [("milan".to_owned(), zero)].into();
    policy.snp.minimum_abi = [1, 49];
    policy.snp.without_revocation_list = PermissionFile::Allowed;
    policy
}

fn verifier(measured: Measured, endorsements: Endorsements) -> Verifier {
    let folder = tempfile::tempdir().unwrap();
    let workload = Workload {
        name: "payments".into(),
        identifier: IDENTIFIER.into(),
        secrets: vec![],
        lifetime_seconds: 600,
        attributes: [].into(),
        reference_values: vec![reference("1.4", &agent(), measured)],
    };
    Registry::write(folder.path(), &workload).unwrap();
    let registry = Registry::load(folder.path()).unwrap();
    Verifier::new(Arc::new(key()), endorsements, registry, policy(), 300, AUDIENCE.into())
}

fn snp_evidence(connection: &Connection) -> Evidence {
    let vek = MILAN.issue(&MILAN.vcek_fields());
    let report = vek.report(&MILAN.body(ReportData::of(&connection.binding).bytes(), &LAUNCH));
    evidence(Platform::Snp, report, table(&[(GUID_VCEK, &vek.der)]), vec![])
}

fn snp_verifier() -> Verifier {
    verifier(Measured::Snp { launch_digest: Digest::from_bytes(LAUNCH) }, MILAN.endorsements(&[]))
}

fn signed(
    verifier: &Verifier,
    connection: &Connection,
    evidence: Evidence,
) -> Result<Signed<AttestationResult>, Refusal> {
    let verdict = verifier.verify(&connection.request(evidence), connection.asked(), NOW, &SystemRandom::new())?;
    Ok(verdict.result)
}

fn verified(verifier: &Verifier, signed: Signed<AttestationResult>) -> Verified<AttestationResult> {
    signed.verify(&[key().public().clone(), verifier.public_key().clone()]).unwrap()
}

#[test]
fn the_result_names_the_connection_its_keys_and_what_was_applied() {
    let (verifier, connection) = (snp_verifier(), Connection::open());
    let evidence = snp_evidence(&connection);
    let result = verified(&verifier, signed(&verifier, &connection, evidence.clone()).unwrap());
    assert_eq!((result.nonce, result.binding), (NONCE, sha256(connection.binding.bytes())));
    assert_eq!(result.credential_key, *connection.credential.public());
    assert_eq!(result.encapsulation_key.as_ref(), Some(&connection.encapsulation));
    assert_eq!((result.evidence, result.platform), (sha256(&evidence.encode()), Platform::Snp));
    assert_eq!((result.workload.as_str(), result.identifier.uri()), ("payments", IDENTIFIER));
    assert_eq!(result.reference_values, "payments/1.4");
    assert_eq!(result.policy, verifier.registry().entries()[0].digest);
    assert_eq!(result.appraisal_policy, policy().digest());
    assert_eq!((result.issued_at, result.expires_at, result.audience.as_str()), (NOW, NOW + 300, AUDIENCE));
    assert!(result.verifier_build.starts_with("inwit-authority "));
    // No revocation list was imported, and policy let that pass: not affirmed.
    assert_eq!(result.trustworthiness.hardware, Hardware::RevocationUnknown);
    assert_eq!(result.trustworthiness.status(), Tier::Warning);
}

#[test]
fn nothing_that_was_measured_and_no_chip_is_in_it() {
    let (verifier, connection) = (snp_verifier(), Connection::open());
    let evidence = snp_evidence(&connection);
    let body = MILAN.body(ReportData::of(&connection.binding).bytes(), &LAUNCH);
    let token = signed(&verifier, &connection, evidence).unwrap().encode();
    let holds = |part: &[u8]| token.windows(part.len()).any(|window| window == part);
    assert!(holds(&NONCE), "the search finds what is there");
    for (name, part) in
        [("launch digest", &body[0x90..0xc0]), ("chip", &body[0x1a0..0x1e0]), ("data", &body[0x50..0x90])]
    {
        // Any quarter of it would do to recognise a guest or a machine by.
        for quarter in part.chunks(part.len() / 4) {
            assert!(!holds(quarter), "{name}");
        }
    }
}

#[test]
fn a_tpm_is_recognised_and_never_affirmed_as_hardware() {
    let (tpm, connection) = (Tpm::booted(&agent()), Connection::open());
    let by = Endorsements { vtpm: vec![tpm.pin()], ..Endorsements::default() };
    let verifier = verifier(measured_pcrs(&tpm.pcrs, &[0, 4, 7, 9]), by);
    let result = verified(&verifier, signed(&verifier, &connection, tpm.evidence(&connection.binding)).unwrap());
    assert_eq!(result.trustworthiness.instance_identity, InstanceIdentity::Recognised);
    assert_eq!(result.trustworthiness.values().map(|(_, value)| value), [2, 2, 3, 0, 0, 32, 0, 0]);
}

#[test]
fn a_credential_is_issued_on_it_for_its_key_its_audience_and_its_time() {
    let (verifier, connection) = (snp_verifier(), Connection::open());
    let result = verified(&verifier, signed(&verifier, &connection, snp_evidence(&connection)).unwrap());
    let authority = |domain: &str| {
        let (domain, pkcs8) =
            (TrustDomain::parse(domain).unwrap(), SigningKey::generate_pkcs8(&SystemRandom::new()).unwrap());
        let opened = || SigningKey::from_pkcs8(&pkcs8, &SystemRandom::new()).unwrap();
        let certificate = CredentialAuthority::create_certificate(&domain, opened(), NOW).unwrap();
        CredentialAuthority::open(domain, opened(), certificate).unwrap()
    };
    let ours = authority("demo.example");
    let issue = |by: &CredentialAuthority, at| by.issue(&result, 600, at, &SystemRandom::new());
    let chain = issue(&ours, NOW).unwrap().chain;
    let point = connection.credential.public().point();
    assert!(chain[0].windows(point.len()).any(|window| window == point), "the bound key is certified");
    refused_as(issue(&authority("other.example"), NOW), RefusalCode::ResultUnusable);
    refused_as(issue(&ours, NOW + 300), RefusalCode::ResultUnusable);
    refused_as(issue(&ours, NOW - 1), RefusalCode::ResultUnusable);
}

#[test]
fn another_connection_or_key_gets_no_result() {
    let (verifier, connection, other) = (snp_verifier(), Connection::open(), Connection::open());
    let ask = |asked| verifier.verify(&connection.request(snp_evidence(&connection)), asked, NOW, &SystemRandom::new());
    refused_as(
        ask(Outstanding::of_connection([1; 32], connection.credential.public().clone())),
        RefusalCode::NonceMismatch,
    );
    refused_as(ask(Outstanding::of_connection(NONCE, other.credential.public().clone())), RefusalCode::KeyMismatch);
    refused_as(signed(&verifier, &connection, snp_evidence(&other)), RefusalCode::BindingMismatch);
}

#[test]
fn an_altered_result_is_not_verified_whoever_altered_it() {
    let (verifier, connection) = (snp_verifier(), Connection::open());
    let good = signed(&verifier, &connection, snp_evidence(&connection)).unwrap();
    let mut result = verified(&verifier, good).clone();
    result.identifier = WorkloadIdentifier::parse("spiffe://demo.example/admin").unwrap();
    assert!(AttestationResult::parse(&result.encode()).is_ok(), "well formed");
    let forged = Signed::sign(&result, &key(), &SystemRandom::new()).unwrap();
    assert!(forged.verify(&[verifier.public_key().clone()]).is_err());
}
