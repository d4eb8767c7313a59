//! A real authority with one registered SNP workload, and a hostile guest's means: its own TLS client, bindings and
//! Evidence put together by hand from simulated hardware, frames of any bytes. What the authority answers is read as the
//! real guest would read it.

use super::{Ground, tls::whoever};
use inwit_measurements::Digest;
use inwit_measurements::reference::{AgentReference, Measured};
use inwit_protocol::binding::{Agent, Binding, EncodedBinding, Purpose, ReportData};
use inwit_protocol::evidence::{AgentRegister, Evidence, Platform};
use inwit_protocol::frame;
use inwit_protocol::identity::WorkloadIdentifier;
use inwit_protocol::message::{AcquireRequest, Grant, Reply, ReplyError};
use inwit_protocol::primitives::{PublicKey, SigningKey};
use inwit_protocol::seal::{self, DecapsulationKey, EncapsulationKey};
use inwit_protocol::signed::Verified;
use inwit_tests::hardware::SnpMachine;
use inwit_tests::stage::office::Office;
use inwit_tests::stage::service::Service;
use inwit_tests::stage::{CONFIDENTIAL, HELLO, trust};
use ring::rand::SystemRandom;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;

/// Longest wait for an authority that should answer or hang up.
const PATIENCE: Duration = Duration::from_secs(20);
/// Name of the workload's secret.
pub const SECRET: &str = "payload";

/// A serving authority.
pub struct Site {
    pub address: SocketAddr,
    /// The machine whose launch digest is registered.
    pub machine: SnpMachine,
    /// The registered agent.
    pub agent: Agent,
    office: Office,
    /// Behind a lock only because it is not `Sync`: several guests may visit at a time.
    service: Mutex<Service>,
    folder: TempDir,
}

/// What the audit log holds in the end.
#[derive(Debug, PartialEq, Eq)]
pub struct Log {
    pub granted: usize,
    pub refused: Vec<String>,
}

impl Site {
    /// Opens an authority that serves at most so many at a time, with an agent that is nobody's.
    pub fn open(ground: &Ground, connections: usize) -> Self {
        let (executable, configuration) = ([0xe1; 32], [0xc0; 32]);
        let agent = Agent { name: "inwit-guest".into(), version: "0".into(), executable, configuration };
        Self::open_for(ground, connections, |_| agent)
    }

    /// The same with the agent registered that `agent` gives for the authority's pin in hex.
    pub fn open_for(ground: &Ground, connections: usize, agent: impl FnOnce(&str) -> Agent) -> Self {
        let folder = tempfile::Builder::new().prefix("inwit-").tempdir().unwrap();
        let office = Office::open(ground.programs, folder.path()).unwrap();
        limit_connections(office.state(), connections);
        let root = trust::Root::Amd(ground.amd_root());
        let measured = Measured::Snp { launch_digest: Digest::from_bytes([0x4d; 48]) };
        let (platform, name, files) = root.endorsements(&folder.path().join("endorsements")).unwrap();
        office.endorse(platform, name, &files).unwrap();
        let agent = agent(office.pin());
        let registered = AgentReference {
            executable: Digest::from_bytes(agent.executable),
            configuration: Digest::from_bytes(agent.configuration),
        };
        office.add_secret(SECRET, CONFIDENTIAL.as_bytes()).unwrap();
        let reference = trust::reference("boot", &registered, &measured).unwrap();
        office.register("hello", HELLO, &reference, &[SECRET]).unwrap();
        let (service, address) = office.serve().unwrap();
        let machine = SnpMachine::new(&ground.amd_root(), [0x4d; 48]).unwrap();
        Self { address, machine, agent, office, service: Mutex::new(service), folder }
    }

    /// Ends the authority, has its audit chain verified, and reads it.
    pub fn close(self) -> Log {
        assert_eq!(self.service.into_inner().unwrap().stop().unwrap(), Some(0), "the authority ends in order");
        super::assert_no_secret_below(self.folder.path());
        read_log(&self.office)
    }

    /// A connection of a guest with this key, its handshake done on this side.
    pub fn visit(&self, key: &Arc<SigningKey>) -> Visit {
        self.visit_with(whoever(Arc::clone(key))).unwrap()
    }

    /// A connection of a client with any credentials.
    pub fn visit_with(&self, config: ClientConfig) -> std::io::Result<Visit> {
        Visit::open(self.address, config)
    }

    /// What an honest guest would ask over this connection.
    pub fn honest(&self, visit: &Visit, holder: &Holder) -> Draft {
        Draft {
            binding: Binding {
                purpose: Purpose::CertifyKey,
                nonce: visit.nonce(),
                credential_key: holder.key.public().clone(),
                encapsulation_key: Some(holder.encapsulation.clone()),
                agent: self.agent.clone(),
            },
            prover: Arc::clone(&holder.key),
            machine: self.machine.clone(),
            level: 0,
            identifier: HELLO.to_owned(),
        }
    }

    /// One visit in which only the draft is dishonest.
    pub fn ask(&self, holder: &Holder, change: impl FnOnce(&mut Draft)) -> Answer {
        let mut visit = self.visit(&holder.key);
        let mut draft = self.honest(&visit, holder);
        change(&mut draft);
        visit.ask(&draft.request())
    }

    /// One visit in which only the finished request is dishonest.
    pub fn ask_changed(&self, holder: &Holder, change: impl FnOnce(&mut AcquireRequest)) -> Answer {
        let mut visit = self.visit(&holder.key);
        let mut request = self.honest(&visit, holder).request();
        change(&mut request);
        visit.ask(&request)
    }

    /// Asserts that an honest guest is served.
    #[track_caller]
    pub fn assert_serves(&self) {
        let answer = self.ask(&Holder::new(), |_| {});
        assert!(matches!(answer, Answer::Granted(_)), "an honest guest got {answer:?}");
    }
}

/// Has the audit chain of an authority verified, and reads it.
pub fn read_log(office: &Office) -> Log {
    office.run(&["audit", "verify"]).unwrap();
    let shown = office.run(&["audit", "show"]).unwrap();
    let decisions = shown["records"].as_array().unwrap().iter().map(|record| record["decision"].clone());
    let decisions: Vec<serde_json::Value> = decisions.collect();
    let of = |event: &str| decisions.iter().filter(|decision| decision["event"] == event).collect::<Vec<_>>();
    let refused = of("refused").iter().map(|decision| decision["code"].as_str().unwrap().to_owned()).collect();
    Log { granted: of("granted").len(), refused }
}

/// `connections` in `authority.toml`, which has no command of its own.
fn limit_connections(state: &Path, connections: usize) {
    let path = state.join("authority.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains("connections = 256"), "{text}");
    std::fs::write(&path, text.replace("connections = 256", &format!("connections = {connections}"))).unwrap();
}

/// The keys of a guest.
pub struct Holder {
    pub key: Arc<SigningKey>,
    pub decapsulation: DecapsulationKey,
    pub encapsulation: EncapsulationKey,
}

impl Holder {
    pub fn new() -> Self {
        let key = Arc::new(SigningKey::generate(&SystemRandom::new()).unwrap());
        let (decapsulation, encapsulation) = seal::generate();
        Self { key, decapsulation, encapsulation }
    }
}

/// A request before it is put together.
pub struct Draft {
    pub binding: Binding,
    /// Who makes the proof of possession.
    pub prover: Arc<SigningKey>,
    pub machine: SnpMachine,
    /// VMPL of the report.
    pub level: u32,
    pub identifier: String,
}

impl Draft {
    pub fn encoded_binding(&self) -> EncodedBinding {
        self.binding.make(&self.prover, &SystemRandom::new()).unwrap()
    }

    pub fn request(&self) -> AcquireRequest {
        let binding = self.encoded_binding();
        let evidence = snp_evidence(&self.machine, &binding, self.level);
        AcquireRequest { binding, evidence, identifier: WorkloadIdentifier::parse(&self.identifier).unwrap() }
    }
}

/// SNP Evidence over a binding.
pub fn snp_evidence(machine: &SnpMachine, binding: &EncodedBinding, level: u32) -> Evidence {
    Evidence {
        platform: Platform::Snp,
        quote: machine.report(ReportData::of(binding).bytes(), level).unwrap().to_vec(),
        endorsements: machine.auxblob(),
        event_log: Vec::new(),
        agent_register: AgentRegister::Absent,
    }
}

/// A connection to the authority.
pub struct Visit {
    pub stream: StreamOwned<ClientConnection, TcpStream>,
}

/// What came back.
#[derive(Debug)]
pub enum Answer {
    /// A grant, signed by the key at the other end for the binding that was sent.
    Granted(Box<Verified<Grant>>),
    /// A refusal with this code.
    Refused(&'static str),
    /// No answer: how the connection ended.
    Ended(String),
}

impl Answer {
    #[track_caller]
    pub fn assert_refused(&self, code: &str) {
        assert!(matches!(self, Self::Refused(refused) if *refused == code), "not {code} but {self:?}");
    }

    #[track_caller]
    pub fn assert_ended(&self) {
        assert!(matches!(self, Self::Ended(_)), "not ended but {self:?}");
    }
}

impl Visit {
    /// A connection of a client with any credentials, its handshake done on this side.
    pub fn open(address: SocketAddr, config: ClientConfig) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let connection = ClientConnection::new(Arc::new(config), "authority.invalid".try_into().unwrap());
        let mut visit = Self { stream: StreamOwned::new(connection.map_err(std::io::Error::other)?, stream) };
        while visit.stream.conn.is_handshaking() {
            visit.stream.conn.complete_io(&mut visit.stream.sock)?;
        }
        Ok(visit)
    }

    pub fn nonce(&self) -> [u8; 32] {
        inwit_protocol::tls::nonce(&self.stream.conn).unwrap()
    }

    pub fn authority(&self) -> PublicKey {
        inwit_protocol::tls::peer_key(&self.stream.conn).unwrap()
    }

    /// Sends a request and reads the reply to it.
    pub fn ask(&mut self, request: &AcquireRequest) -> Answer {
        self.send(&frame::wrap(&request.encode(), usize::MAX).unwrap());
        self.answer(&request.binding)
    }

    /// Sends any bytes; an authority that has hung up already is found out when reading.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).and_then(|()| self.stream.flush());
    }

    /// Says that nothing more comes: close_notify, then the end of the stream.
    pub fn send_end(&mut self) {
        self.stream.conn.send_close_notify();
        let _ = self.stream.flush();
        let _ = self.stream.sock.shutdown(std::net::Shutdown::Write);
    }

    /// Reads one reply's frame as it is.
    pub fn frame(&mut self) -> Vec<u8> {
        let mut frame = vec![0; frame::PREFIX];
        self.stream.read_exact(&mut frame).unwrap();
        let length = frame::length(frame[..].try_into().unwrap(), frame::REPLY_LIMIT).unwrap();
        frame.resize(frame::PREFIX + length, 0);
        self.stream.read_exact(&mut frame[frame::PREFIX..]).unwrap();
        frame
    }

    /// Reads one reply.
    pub fn answer(&mut self, binding: &EncodedBinding) -> Answer {
        let mut prefix = [0; frame::PREFIX];
        if let Err(error) = self.stream.read_exact(&mut prefix) {
            return Answer::Ended(error.to_string());
        }
        let mut reply = vec![0; frame::length(prefix, frame::REPLY_LIMIT).unwrap()];
        self.stream.read_exact(&mut reply).unwrap();
        match Reply::parse(&reply).unwrap().accept(&[self.authority()], binding) {
            Ok(grant) => Answer::Granted(Box::new(grant)),
            Err(ReplyError::Refused(refusal)) => Answer::Refused(refusal.code.text()),
            Err(error) => panic!("a grant that is no use: {error:?}"),
        }
    }

    /// Asserts that the authority ends the connection without another word.
    #[track_caller]
    pub fn assert_over(&mut self) {
        let mut more = Vec::new();
        let _ = self.stream.read_to_end(&mut more);
        assert!(more.is_empty(), "{} bytes more", more.len());
    }
}
