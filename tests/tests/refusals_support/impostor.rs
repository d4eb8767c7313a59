//! A guest of one's own to be cheated: the real program as a process, with a configuration that pins the key of an
//! authority which this file plays. It answers what a test tells it to, by default a grant that is good in all respects,
//! so that what is refused is refused for the one thing that a test spoilt.

use super::{Ground, assert_no_secret_below, assert_nothing_started, assert_one_refusal};
use inwit_authority::ca::CredentialAuthority;
use inwit_protocol::binding::{Agent, Binding};
use inwit_protocol::identity::{TrustDomain, WorkloadIdentifier};
use inwit_protocol::message::{AcquireRequest, Grant, Reply, SealedSecret};
use inwit_protocol::primitives::{PublicKey, SigningKey, sha256};
use inwit_protocol::refusal::RefusalCode;
use inwit_protocol::secret::Secret;
use inwit_protocol::{frame, seal, tls};
use inwit_tests::hardware::{SnpMachine, TsmFs};
use inwit_tests::stage::guest::{End, Run, run_process};
use inwit_tests::stage::image::{self, Place, Settings};
use inwit_tests::stage::{CONFIDENTIAL, HELLO, TRUST_DOMAIN, now, trust};
use ring::rand::SystemRandom;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Name of the secret that the guest's configuration wants.
pub const SECRET: &str = "payload";

/// What the impostor knows of the one who asks.
pub struct Asked {
    /// The message as it came.
    pub bytes: Vec<u8>,
    pub request: AcquireRequest,
    pub binding: Binding,
    /// The key that the guest pins.
    pub key: Arc<SigningKey>,
    /// A Credential Authority for the guest's trust domain.
    pub ca: Arc<CredentialAuthority>,
}

/// A Credential Authority whose certificate is valid for a day before and after now.
pub fn authority_of(domain: &str) -> CredentialAuthority {
    let random = SystemRandom::new();
    let domain = TrustDomain::parse(domain).unwrap();
    let pkcs8 = SigningKey::generate_pkcs8(&random).unwrap();
    let key = || SigningKey::from_pkcs8(&pkcs8, &random).unwrap();
    let certificate = CredentialAuthority::create_certificate(&domain, key(), now() - 86_400).unwrap();
    CredentialAuthority::open(domain, key(), certificate).unwrap()
}

/// A chain for an identifier and a key, issued at this time for ten minutes.
pub fn chain(ca: &CredentialAuthority, identifier: &str, key: &PublicKey, at: u64) -> Vec<Vec<u8>> {
    let identifier = WorkloadIdentifier::parse(identifier).unwrap();
    ca.enroll(&identifier, key, 600, at, &SystemRandom::new()).unwrap().chain
}

/// The frame of a message.
pub fn framed(message: &[u8]) -> Vec<u8> {
    frame::wrap(message, usize::MAX).unwrap()
}

impl Asked {
    /// The grant that an honest authority would give.
    pub fn grant(&self) -> Grant {
        let key = &self.binding.credential_key;
        Grant {
            binding: sha256(self.request.binding.bytes()),
            chain: chain(&self.ca, HELLO, key, now()),
            anchors: vec![self.ca.certificate().to_vec()],
            secrets: vec![SealedSecret { name: SECRET.into(), sealed: self.seal(SECRET) }],
            now: now(),
        }
    }

    /// The confidential bytes, sealed to this guest under a name.
    pub fn seal(&self, name: &str) -> seal::Sealed {
        let to = self.binding.encapsulation_key.as_ref().unwrap();
        seal::seal(&Secret::new(CONFIDENTIAL.into()), name, to, self.request.binding.bytes()).unwrap()
    }

    /// A grant, signed by the pinned key, in its frame.
    pub fn signed(&self, grant: &Grant) -> Vec<u8> {
        self.signed_by(grant, &self.key)
    }

    pub fn signed_by(&self, grant: &Grant, key: &SigningKey) -> Vec<u8> {
        framed(&Reply::grant(grant, key, &SystemRandom::new()).unwrap().encode())
    }
}

/// What is written for an answer; then the impostor hangs up.
pub type Answer = Box<dyn FnMut(Asked) -> Vec<u8> + Send>;

/// The guest, its device and its impostor.
pub struct Rig<'a> {
    ground: &'a Ground,
    runtime: tokio::runtime::Runtime,
    device: Option<TsmFs>,
    /// The key that is pinned.
    pub key: Arc<SigningKey>,
    pub configuration: PathBuf,
    /// Last: what is mounted in it must be gone before it is removed.
    folder: TempDir,
}

impl<'a> Rig<'a> {
    /// A guest on simulated SNP hardware.
    pub fn on_snp(ground: &'a Ground) -> Self {
        let mut rig = Self::on_nothing(ground);
        let machine = SnpMachine::new(&ground.amd_root(), [0x4d; 48]).unwrap();
        rig.device =
            Some(TsmFs::mount(&rig.folder.path().join("tsm"), inwit_tests::hardware::Machine::from(machine)).unwrap());
        rig
    }

    /// A guest without report device and TPM, unless one is put there.
    pub fn on_nothing(ground: &'a Ground) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::Builder::new().prefix("inwit-").tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let key = Arc::new(SigningKey::generate(&SystemRandom::new()).unwrap());
        let configuration = folder.path().join("guest.conf");
        let rig = Self { ground, folder, runtime, device: None, key, configuration };
        rig.pin(&rig.key.public().pin().iter().map(|byte| format!("{byte:02x}")).collect::<String>());
        rig
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes the configuration with this pin, in hex.
    pub fn pin(&self, pin: &str) {
        let folder = self.path();
        let place = Place::Process {
            folder,
            tsm_root: &folder.join("tsm"),
            tpm: &folder.join("tpm.sock"),
            event_log: &folder.join("event-log"),
            // Ends well if it finds its secret, and says its name alone.
            hello: Path::new("/bin/ls"),
        };
        let text = image::configuration(&Settings { pin, identifier: HELLO, modules: &[], place });
        std::fs::write(&self.configuration, text).unwrap();
    }

    /// The guest as it measures itself.
    pub fn agent(&self) -> Agent {
        let text = std::fs::read_to_string(&self.configuration).unwrap();
        let agent = trust::agent(&self.ground.programs.guest, &text).unwrap();
        Agent {
            name: "inwit-guest".into(),
            version: "0".into(),
            executable: *agent.executable.as_bytes(),
            configuration: *agent.configuration.as_bytes(),
        }
    }

    /// Listens in the authority's place; gives what was asked, in order.
    pub fn impostor(&self, key: Arc<SigningKey>, answer: Answer) -> Arc<Mutex<Vec<String>>> {
        let _context = self.runtime.enter();
        let socket = self.path().join("authority.sock");
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(socket).unwrap();
        let told = Arc::new(Mutex::new(Vec::new()));
        let story = Arc::clone(&told);
        let (ca, answer) = (Arc::new(authority_of(TRUST_DOMAIN)), Arc::new(Mutex::new(answer)));
        self.runtime.spawn(async move {
            let acceptor = TlsAcceptor::from(Arc::new(tls::authority_channel(Arc::clone(&key)).unwrap()));
            while let Ok((stream, _)) = listener.accept().await {
                let (key, ca, answer) = (Arc::clone(&key), Arc::clone(&ca), Arc::clone(&answer));
                let said = match acceptor.accept(stream).await {
                    Err(_) => "the guest does not talk to it",
                    Ok(stream) => converse(stream, key, ca, answer).await,
                };
                story.lock().unwrap().push(said.to_owned());
            }
        });
        told
    }

    /// Runs the guest to its end.
    pub fn run(&self) -> Run {
        run_process(self.ground.programs, &self.configuration, |_, _| {}).unwrap()
    }

    /// Runs the guest, and ends it after this time.
    pub fn run_within(&self, limit: Duration) -> Run {
        let mut guest = Command::new("timeout");
        guest.args(["--signal=KILL", &limit.as_secs().to_string()]).arg(&self.ground.programs.guest);
        let started = Instant::now();
        let output = guest.arg("--config").arg(&self.configuration).output().unwrap();
        let end = output.status.code().map_or_else(|| End::Other("it was killed".into()), End::Exited);
        let text = String::from_utf8(output.stdout).unwrap();
        let seconds = started.elapsed().as_secs_f64();
        Run { lines: text.lines().map(|line| (seconds, line.to_owned())).collect(), end, seconds }
    }

    /// Runs the guest against an impostor with the pinned key.
    pub fn run_against(&self, answer: impl FnMut(Asked) -> Vec<u8> + Send + 'static) -> Run {
        self.impostor(Arc::clone(&self.key), Box::new(answer));
        self.run()
    }

    /// Asserts that this run ended in this refusal and left nothing behind.
    #[track_caller]
    pub fn assert_refused(&self, run: &Run, code: RefusalCode) {
        assert_one_refusal(run, code);
        assert_eq!(run.end, End::Exited(3), "{}", run.text());
        assert_nothing_started(run);
        assert!(!run.text().contains(CONFIDENTIAL), "{}", run.text());
        let requests = std::fs::read_dir(self.path().join("tsm"));
        let requests = requests.map_or(0, |entries| entries.count());
        assert_eq!(requests, 0, "request directories stayed at the report device");
        assert_no_secret_below_without_devices(self.path());
    }
}

/// One request, one answer.
async fn converse(
    mut stream: TlsStream<UnixStream>,
    key: Arc<SigningKey>,
    ca: Arc<CredentialAuthority>,
    answer: Arc<Mutex<Answer>>,
) -> &'static str {
    let mut prefix = [0; frame::PREFIX];
    if stream.read_exact(&mut prefix).await.is_err() {
        return "the guest asks nothing";
    }
    let mut bytes = vec![0; frame::length(prefix, frame::REQUEST_LIMIT).unwrap()];
    stream.read_exact(&mut bytes).await.unwrap();
    let request = AcquireRequest::parse(&bytes).unwrap();
    let binding = Binding::parse(&request.binding).unwrap_or_else(|_| panic!("a binding"));
    let asked = Asked { bytes, request, binding, key, ca };
    // Tests may wait in their answers.
    let reply = tokio::task::spawn_blocking(move || (answer.lock().unwrap())(asked));
    let _ = stream.write_all(&reply.await.unwrap()).await;
    let _ = stream.shutdown().await;
    "answered"
}

/// The report device is no place for secrets, and reading its files asks for reports.
fn assert_no_secret_below_without_devices(folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("tsm") {
            assert_no_secret_below(&path);
        }
    }
}
