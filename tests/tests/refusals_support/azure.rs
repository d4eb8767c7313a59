//! A real authority with one registered Azure workload, and a hostile guest's means there: a TPM as a paravisor left it, the
//! report in it, and quotes over what the guest likes. Answers are read as the real guest would read them.

use super::Ground;
use super::site::{Answer, Holder, Log, SECRET, Visit, read_log};
use super::tls::whoever;
use inwit_measurements::Digest;
use inwit_measurements::reference::{AgentReference, Measured};
use inwit_protocol::azure::{AzureQuote, TpmAttestation};
use inwit_protocol::binding::{Agent, Binding, EncodedBinding, Purpose, qualifying_data};
use inwit_protocol::evidence::{AgentRegister, Evidence, Platform};
use inwit_protocol::identity::WorkloadIdentifier;
use inwit_protocol::message::AcquireRequest;
use inwit_protocol::primitives::sha256;
use inwit_tests::hardware::azure::{ATTESTATION_KEY, Provisioned};
use inwit_tests::hardware::{Machine, Paravisor, SnpMachine};
use inwit_tests::stage::office::Office;
use inwit_tests::stage::service::Service;
use inwit_tests::stage::trust::{self, open_tpm};
use inwit_tests::stage::{CONFIDENTIAL, HELLO};
use inwit_tests::world::swtpm::{EkCertificate, Swtpm};
use ring::rand::SystemRandom;
use std::net::SocketAddr;
use std::sync::Arc;
use tempfile::TempDir;

/// Launch digest of the registered paravisor.
const PARAVISOR: [u8; 48] = [0xa2; 48];

/// A serving authority, and the machine that is registered there.
pub struct AzureSite {
    pub agent: Agent,
    /// The chip below.
    pub chip: SnpMachine,
    /// What the paravisor left in the TPM.
    pub provisioned: Provisioned,
    address: SocketAddr,
    tpm: Swtpm,
    office: Office,
    service: Service,
    folder: TempDir,
}

impl AzureSite {
    /// The same agent runs on the machine as is registered.
    pub fn open(ground: &Ground) -> Self {
        let site = Self::open_untouched(ground);
        site.extend_agent_register(&site.agent.event());
        site
    }

    /// Extends PCR 15 with the digest of an event.
    pub fn extend_agent_register(&self, event: &[u8]) {
        open_tpm(self.tpm.socket()).unwrap().pcr_extend(15, &sha256(event)).unwrap();
    }

    /// No agent was measured on the machine.
    pub fn open_untouched(ground: &Ground) -> Self {
        let folder = tempfile::Builder::new().prefix("inwit-").tempdir().unwrap();
        let office = Office::open(ground.programs, folder.path()).unwrap();
        let root = trust::Root::Amd(ground.amd_root());
        let (platform, name, files) = root.endorsements(&folder.path().join("endorsements")).unwrap();
        office.endorse(platform, name, &files).unwrap();
        let (executable, configuration) = ([0xe1; 32], [0xc0; 32]);
        let agent = Agent { name: "inwit-guest".into(), version: "0".into(), executable, configuration };
        let registered = AgentReference {
            executable: Digest::from_bytes(executable),
            configuration: Digest::from_bytes(configuration),
        };
        let pcrs = [0, 4, 7, 9].map(|pcr| (pcr, Digest::from_bytes([0; 32]))).into();
        let measured = Measured::AzureSnp { launch_digest: Digest::from_bytes(PARAVISOR), pcrs };
        office.add_secret(SECRET, CONFIDENTIAL.as_bytes()).unwrap();
        let reference = trust::reference("boot", &registered, &measured).unwrap();
        office.register("hello", HELLO, &reference, &[SECRET]).unwrap();
        let (service, address) = office.serve().unwrap();

        let state = folder.path().join("tpm");
        Swtpm::manufacture(&state, EkCertificate::Absent).unwrap();
        let chip = SnpMachine::new(&ground.amd_root(), PARAVISOR).unwrap();
        let paravisor = Paravisor::on(Machine::from(chip.clone()));
        let provisioned = paravisor.provision(&Swtpm::serve(&state).unwrap()).unwrap();
        let tpm = Swtpm::serve(&state).unwrap();
        Self { agent, chip, provisioned, address, tpm, office, service, folder }
    }

    /// A connection of a guest with this key.
    pub fn visit(&self, holder: &Holder) -> Visit {
        Visit::open(self.address, whoever(Arc::clone(&holder.key))).unwrap()
    }

    /// An honest binding for a connection.
    pub fn binding(&self, visit: &Visit, holder: &Holder) -> EncodedBinding {
        let binding = Binding {
            purpose: Purpose::CertifyKey,
            nonce: visit.nonce(),
            credential_key: holder.key.public().clone(),
            encapsulation_key: Some(holder.encapsulation.clone()),
            agent: self.agent.clone(),
        };
        binding.make(&holder.key, &SystemRandom::new()).unwrap()
    }

    /// The TPM's quote over a binding.
    pub fn quote(&self, binding: &EncodedBinding) -> TpmAttestation {
        let mut tpm = open_tpm(self.tpm.socket()).unwrap();
        let (attest, signature) = tpm.quote(ATTESTATION_KEY, &qualifying_data(binding)).unwrap();
        let signature = inwit_guest::tpm::response::rsassa(&signature).unwrap().to_vec();
        TpmAttestation { attest, signature, pcrs: tpm.pcrs().unwrap() }
    }

    /// One visit in which only the quote, or where the agent says that it measured itself, is dishonest.
    pub fn ask(&self, change: impl FnOnce(&mut AzureQuote, &mut AgentRegister)) -> Answer {
        let holder = Holder::new();
        let mut visit = self.visit(&holder);
        let binding = self.binding(&visit, &holder);
        let hcl_report = self.provisioned.hcl_report.clone();
        let mut quote = AzureQuote { hcl_report, tpm: Some(self.quote(&binding)), td_quote: None };
        let mut register = AgentRegister::Pcr(15);
        change(&mut quote, &mut register);
        visit.ask(&self.request(binding, &quote, register))
    }

    /// A request with the chip's certificate beside the quote, as a guest may send it.
    pub fn request(&self, binding: EncodedBinding, quote: &AzureQuote, register: AgentRegister) -> AcquireRequest {
        let evidence = Evidence {
            platform: Platform::AzureSnp,
            quote: quote.encode(),
            endorsements: self.chip.auxblob(),
            event_log: Vec::new(),
            agent_register: register,
        };
        AcquireRequest { binding, evidence, identifier: WorkloadIdentifier::parse(HELLO).unwrap() }
    }

    /// Ends the authority and reads its log.
    pub fn close(self) -> Log {
        assert_eq!(self.service.stop().unwrap(), Some(0), "the authority ends in order");
        super::assert_no_secret_below(&self.folder.path().join("authority"));
        read_log(&self.office)
    }
}
