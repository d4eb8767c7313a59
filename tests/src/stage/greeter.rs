//! The greeter: a host-side Relying Party with a mutual TLS server that accepts exactly the workload's identity, and the
//! impostor who comes with a certificate of another trust domain and is refused.

use super::{CONFIDENTIAL, HELLO, Result, StageError, TRUST_DOMAIN};
use inwit_protocol::primitives::SigningKey;
use inwit_relying_party::{
    AcceptedPeers, Own, Refusal, RelyingParty, TrustBundle, TrustDomain, WallClock, WorkloadIdentifier,
};
use ring::rand::SystemRandom;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

/// What came of one connection.
#[derive(Clone, Debug)]
pub enum Visit {
    /// The peer was accepted, and said what only the workload can know.
    Welcomed(String),
    /// The peer was accepted, and did not know it.
    Stranger(String),
    /// The peer was refused before any data.
    Refused(Refusal),
}

/// The serving greeter.
pub struct Greeter {
    address: SocketAddr,
    visits: Arc<Mutex<Vec<Visit>>>,
    /// Connections that were accepted, their visits told or not yet.
    arrived: Arc<AtomicUsize>,
    bundle: TrustBundle,
    _runtime: Runtime,
}

fn refused(refusal: Refusal) -> StageError {
    StageError::of("greeter", refusal)
}

/// Reads what `inwit-authority enroll` wrote.
fn own(folder: &Path) -> Result<(Own, TrustBundle)> {
    let key = SigningKey::from_pkcs8(&std::fs::read(folder.join("key.pk8"))?, &SystemRandom::new());
    let key = key.map_err(|error| StageError::of("greeter's key", error))?;
    let domain = TrustDomain::parse(TRUST_DOMAIN).map_err(|error| StageError::of(TRUST_DOMAIN, error))?;
    let bundle = TrustBundle::new(domain, vec![std::fs::read(folder.join("anchor.der"))?]).map_err(refused)?;
    Ok((Own { chain: vec![std::fs::read(folder.join("certificate.der"))?], key }, bundle))
}

impl Greeter {
    /// Serves on a free loopback port with the credential in `folder`.
    pub fn start(folder: &Path) -> Result<Self> {
        let (own, bundle) = own(folder)?;
        let hello = WorkloadIdentifier::parse(HELLO).map_err(|error| StageError::of(HELLO, error))?;
        let peers = AcceptedPeers { bundle: bundle.clone(), identifiers: vec![hello] };
        let party = RelyingParty::new(own, peers, Arc::new(WallClock)).map_err(refused)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0)))?;
        let address = listener.local_addr()?;
        let (visits, arrived) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
        let (record, count) = (Arc::clone(&visits), Arc::clone(&arrived));
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::AcqRel);
                let visit = receive(&party, stream).await;
                record.lock().unwrap_or_else(PoisonError::into_inner).push(visit);
            }
        });
        Ok(Self { address, visits, arrived, bundle, _runtime: runtime })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What came of every connection so far. A visitor may be gone a moment before its visit is told: that is waited for.
    pub fn visits(&self) -> Vec<Visit> {
        let told = || self.visits.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for _ in 0..500 {
            let visits = told();
            if visits.len() >= self.arrived.load(Ordering::Acquire) {
                return visits;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        told()
    }

    /// An impostor of another trust domain knocks, with a certificate that names a workload there.
    pub fn send_impostor(&self) -> Result<Visit> {
        let before = self.visits().len();
        let impostor = self.impostor()?;
        let address = self.address;
        self._runtime.block_on(async move {
            if let Ok(stream) = TcpStream::connect(address).await
                && let Ok(mut connection) = impostor.connect(stream).await
            {
                let _ = connection.write_all(b"let me in").await;
                let _ = connection.read(&mut [0; 16]).await;
            }
        });
        for _ in 0..500 {
            if let Some(visit) = self.visits().get(before) {
                return Ok(visit.clone());
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        Err(StageError::of("greeter", "does not say what came of the impostor"))
    }

    fn impostor(&self) -> Result<RelyingParty> {
        use inwit_authority::ca::CredentialAuthority;
        let random = SystemRandom::new();
        let failed = |error: &dyn std::fmt::Display| StageError::of("impostor", error);
        let domain = TrustDomain::parse("other.example").map_err(|error| failed(&error))?;
        let pkcs8 = SigningKey::generate_pkcs8(&random).map_err(|error| failed(&error))?;
        let ca_key = || SigningKey::from_pkcs8(&pkcs8, &random).map_err(|error| failed(&error));
        let certificate = CredentialAuthority::create_certificate(&domain, ca_key()?, super::now())
            .map_err(|error| failed(&error))?;
        let ca = CredentialAuthority::open(domain, ca_key()?, certificate).map_err(|error| failed(&error))?;
        let key = SigningKey::generate(&random).map_err(|error| failed(&error))?;
        let name = WorkloadIdentifier::parse("spiffe://other.example/hello").map_err(|error| failed(&error))?;
        let issued = ca.enroll(&name, key.public(), 600, super::now(), &random).map_err(|error| failed(&error))?;
        let greeter = WorkloadIdentifier::parse(super::GREETER).map_err(|error| failed(&error))?;
        let peers = AcceptedPeers { bundle: self.bundle.clone(), identifiers: vec![greeter] };
        RelyingParty::new(Own { chain: issued.chain, key }, peers, Arc::new(WallClock)).map_err(refused)
    }
}

async fn receive(party: &RelyingParty, stream: TcpStream) -> Visit {
    let mut connection = match party.accept(stream).await {
        Ok(connection) => connection,
        Err(refusal) => return Visit::Refused(refusal),
    };
    let peer = connection.peer().identifier().to_string();
    let mut said = Vec::new();
    let _ = (&mut connection).take(4096).read_to_end(&mut said).await;
    if !String::from_utf8_lossy(&said).contains(CONFIDENTIAL) {
        return Visit::Stranger(peer);
    }
    let _ = connection.write_all(format!("welcome, {peer}\n").as_bytes()).await;
    let _ = connection.shutdown().await;
    Visit::Welcomed(peer)
}
