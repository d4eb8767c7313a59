//! The server: accepts guests over TLS 1.3, takes one request a connection, and answers with a grant or a refusal.
//! Every length, time and count that a guest controls is bounded. Judging happens off the I/O threads.

use crate::audit::{Event, hex};
use crate::ca::CredentialAuthority;
use crate::fault::Fault;
use crate::keystore::KeyStore;
use crate::state::{KeyRole, State};
use crate::store::Store;
use crate::vault::Vault;
use crate::verifier::{Outstanding, Verifier};
use inwit_protocol::frame;
use inwit_protocol::message::{AcquireRequest, Grant, Reply};
use inwit_protocol::primitives::{SigningKey, sha256};
use inwit_protocol::refusal::{Refusal, RefusalCode};
use inwit_protocol::tls;
use ring::rand::SystemRandom;
use rustls::ServerConfig;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Longest TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(30);
/// Longest wait for a whole request: the guest's report device may take its time in between.
const REQUEST: Duration = Duration::from_secs(120);
/// Longest wait for a guest to take its reply.
const REPLY: Duration = Duration::from_secs(30);
/// How long a connection that was answered may linger.
const LINGER: Duration = Duration::from_secs(5);

/// Every role in one process.
pub struct Authority {
    state: State,
    /// What is judged by, replaced as a whole when the operator asks for it.
    verifier: RwLock<Arc<Verifier>>,
    ca: CredentialAuthority,
    keys: KeyStore,
    store: Arc<Store>,
    /// The key that guests pin.
    channel: Arc<SigningKey>,
}

fn read_verifier(state: &State, vault: &Vault, ca: &CredentialAuthority) -> Result<Verifier, Fault> {
    let config = state.config()?;
    let key = state.key(vault, KeyRole::Verifier)?;
    let (endorsements, registry) = (state.endorsements()?, state.registry()?);
    // A policy that cannot be applied is found now and not at the first guest.
    config.policy.with(registry.reference_values()).map_err(|refusal| Fault::new(refusal.cause))?;
    Ok(Verifier::new(key, endorsements, registry, config.policy, config.result_seconds, ca.audience()))
}

/// Seconds since 1970, or a refusal to judge anything.
pub(crate) fn now() -> Result<u64, Fault> {
    let since =
        SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| Fault::new("the clock is before 1970: set it"))?;
    Ok(since.as_secs())
}

impl Authority {
    /// Opens the state folder for serving.
    pub fn open(state: &State) -> Result<Self, Fault> {
        let vault = state.vault()?;
        let ca = state.credential_authority(&vault)?;
        let channel = Arc::new(state.key(&vault, KeyRole::Channel)?);
        let store = Arc::new(state.store()?);
        let verifier = RwLock::new(Arc::new(read_verifier(state, &vault, &ca)?));
        let keys = KeyStore::new(Arc::clone(&store), vault);
        Ok(Self { state: state.clone(), verifier, ca, keys, store, channel })
    }

    /// Reads policy, registry and endorsements anew. If any of them is wrong, all stay as they were.
    pub fn reload(&self) -> Result<usize, Fault> {
        let verifier = read_verifier(&self.state, &self.state.vault()?, &self.ca)?;
        let workloads = verifier.registry().entries().len();
        *self.verifier.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(verifier);
        Ok(workloads)
    }

    fn verifier(&self) -> Arc<Verifier> {
        Arc::clone(&self.verifier.read().unwrap_or_else(PoisonError::into_inner))
    }
    /// SHA-256 of the pinned key's SubjectPublicKeyInfo.
    pub fn pin(&self) -> [u8; 32] {
        self.channel.public().pin()
    }

    /// How many workloads are registered.
    pub fn workloads(&self) -> usize {
        self.verifier().registry().entries().len()
    }

    /// Answers one request, spending the connection's nonce, and records the decision before the reply leaves.
    fn answer(&self, request: &[u8], asked: Outstanding) -> Reply {
        let time = now().unwrap_or_default();
        let outcome = if time == 0 {
            Err(Refusal::new(RefusalCode::ClockUnavailable, "the authority has no clock"))
        } else {
            self.grant(request, asked, time)
        };
        outcome.unwrap_or_else(|refusal| {
            let event = Event::Refused { code: refusal.code.text().to_owned(), cause: refusal.cause.clone() };
            if let Err(fault) = self.store.record(event, time) {
                tracing::error!(%fault, "a refusal could not be recorded");
            }
            tracing::info!(code = refusal.code.text(), cause = refusal.cause, "refused");
            Reply::Refused(refusal)
        })
    }

    fn grant(&self, request: &[u8], asked: Outstanding, time: u64) -> Result<Reply, Refusal> {
        let random = SystemRandom::new();
        let request = AcquireRequest::parse(request).map_err(|error| Refusal::new(RefusalCode::Malformed, error))?;
        // One request is judged by one reading of the files, whatever is reloaded meanwhile.
        let verifier = self.verifier();
        let result = verifier.verify(&request, asked, time, &random)?;
        // Between neighbours too: issuing and releasing stand on a verified signature, as they do in separate processes.
        let internal = |what: &dyn std::fmt::Display| Refusal::new(RefusalCode::Internal, what);
        let result = result
            .verify(std::slice::from_ref(verifier.public_key()))
            .map_err(|error| internal(&format_args!("own attestation result: {error:?}")))?;
        let entry = verifier.registry().entries().iter().find(|entry| entry.workload.name == result.workload);
        let workload = &entry.ok_or_else(|| internal(&"the workload left the registry"))?.workload;
        let secrets = self.keys.release(&workload.secrets, &result, &request.binding, time)?;
        let issued = self.ca.issue(&result, workload.lifetime_seconds, time, &random)?;
        let grant = Grant {
            binding: sha256(request.binding.bytes()),
            chain: issued.chain,
            anchors: vec![self.ca.certificate().to_vec()],
            secrets,
            now: time,
        };
        let reply = Reply::grant(&grant, &self.channel, &random).map_err(|error| internal(&error))?;
        let event = Event::Granted {
            workload: result.workload.clone(),
            identifier: result.identifier.uri().to_owned(),
            platform: result.platform.text().to_owned(),
            reference_values: result.reference_values.clone(),
            evidence: hex(&result.evidence),
            binding: hex(&result.binding),
            policy: hex(&result.policy),
            serial: hex(&issued.serial),
            secrets: workload.secrets.clone(),
        };
        // No grant without its record: if the log cannot be written, nothing is granted.
        self.store.record(event, time).map_err(|fault| internal(&fault))?;
        tracing::info!(identifier = result.identifier.uri(), reference_values = result.reference_values, "granted");
        Ok(reply)
    }
}

/// Serves until `stop` completes, then lets what is under way finish for a moment.
pub async fn serve(
    authority: Arc<Authority>,
    listener: TcpListener,
    connections: usize,
    stop: impl Future<Output = ()>,
) -> Result<(), Fault> {
    let config = tls::authority_channel(Arc::clone(&authority.channel)).map_err(|error| Fault::of("TLS", error))?;
    let config: Arc<ServerConfig> = Arc::new(config);
    let slots = Arc::new(Semaphore::new(connections));
    let all = u32::try_from(connections).unwrap_or(u32::MAX);
    tokio::pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = accept(&listener, &slots) => accepted,
        };
        let Some((stream, peer, slot)) = accepted else { continue };
        let (authority, config) = (Arc::clone(&authority), Arc::clone(&config));
        tokio::spawn(async move {
            if let Err(error) = converse(authority, config, stream).await {
                tracing::info!(%peer, %error, "connection ended");
            }
            drop(slot);
        });
    }
    // Whoever is being served holds a slot; all slots free means all are done.
    let _ = timeout(LINGER, slots.acquire_many(all)).await;
    Ok(())
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => Some((stream, peer, slot)),
        Err(error) => {
            // Out of descriptors, most likely: wait for some to come back instead of spinning.
            tracing::warn!(%error, "accept");
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

async fn converse(authority: Arc<Authority>, config: Arc<ServerConfig>, stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream =
        timeout(HANDSHAKE, TlsAcceptor::from(config).accept(stream)).await.map_err(|_| io::ErrorKind::TimedOut)??;
    let asked = outstanding(&stream)?;
    let reply = match timeout(REQUEST, read_frame(&mut stream)).await.map_err(|_| io::ErrorKind::TimedOut)? {
        Ok(Some(request)) => {
            let judged = tokio::task::spawn_blocking(move || authority.answer(&request, asked));
            judged.await.map_err(io::Error::other)?
        }
        Ok(None) => return Ok(()),
        Err(ReadFault::Io(error)) => return Err(error),
        Err(ReadFault::Frame(error)) => Reply::Refused(Refusal::new(RefusalCode::Oversized, error)),
    };
    send(&mut stream, &reply).await?;
    // The nonce is spent: whatever else comes over this connection is refused by name, once, and the connection ends.
    if let Ok(Ok(Some(_))) = timeout(LINGER, read_frame(&mut stream)).await {
        let refusal = Refusal::new(RefusalCode::NonceReused, "this connection's nonce was spent by an earlier request");
        send(&mut stream, &Reply::Refused(refusal)).await?;
    }
    timeout(LINGER, stream.shutdown()).await.map_err(|_| io::ErrorKind::TimedOut)?
}

fn outstanding(stream: &TlsStream<TcpStream>) -> io::Result<Outstanding> {
    let (_, connection) = stream.get_ref();
    let nonce = tls::nonce(connection).map_err(io::Error::other)?;
    let peer = tls::peer_key(connection).map_err(io::Error::other)?;
    Ok(Outstanding::of_connection(nonce, peer))
}

enum ReadFault {
    Io(io::Error),
    Frame(frame::FrameError),
}

/// One frame; `None` when the peer has ended instead.
async fn read_frame(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<Vec<u8>>, ReadFault> {
    let mut prefix = [0; frame::PREFIX];
    match stream.read_exact(&mut prefix).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(ReadFault::Io(error)),
    }
    let length = frame::length(prefix, frame::REQUEST_LIMIT).map_err(ReadFault::Frame)?;
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await.map_err(ReadFault::Io)?;
    Ok(Some(message))
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), reply: &Reply) -> io::Result<()> {
    let frame = frame::wrap(&reply.encode(), frame::REPLY_LIMIT).map_err(io::Error::other)?;
    let sending = async {
        stream.write_all(&frame).await?;
        stream.flush().await
    };
    timeout(REPLY, sending).await.map_err(|_| io::ErrorKind::TimedOut)?
}
