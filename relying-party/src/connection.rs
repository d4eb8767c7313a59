//! Mutual TLS with workload identity certificates, as a server or as a client. Application data is out of reach until the
//! peer was verified: there is no stream before there is an [`AcceptedConnection`].

use inwit_protocol::certificate::{self, Role, WorkloadCertificate};
use inwit_protocol::primitives::SigningKey;
use inwit_protocol::refusal::{Refusal, RefusalCode};
use inwit_protocol::tls::{self, AcceptedPeers};
use rustls::pki_types::{ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

/// Longest handshake.
const HANDSHAKE: Duration = Duration::from_secs(30);

/// The Relying Party's own credential.
pub struct Own {
    /// Certificates, DER, leaf first.
    pub chain: Vec<Vec<u8>>,
    /// Its key.
    pub key: SigningKey,
}

/// The system's clock.
#[derive(Clone, Copy, Debug)]
pub struct WallClock;

impl TimeProvider for WallClock {
    fn current_time(&self) -> Option<UnixTime> {
        // No clock is a refusal; the library's own constructor would panic before 1970.
        SystemTime::now().duration_since(UNIX_EPOCH).ok().map(UnixTime::since_unix_epoch)
    }
}

/// Who we are, and whom we accept.
#[derive(Clone)]
pub struct RelyingParty {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
    peers: AcceptedPeers,
    clock: Arc<dyn TimeProvider>,
}

impl RelyingParty {
    /// A Relying Party that accepts exactly `peers`, judged at the time that `clock` tells.
    ///
    /// # Errors
    /// `certificate-invalid` when the own credential is no use for TLS.
    pub fn new(own: Own, peers: AcceptedPeers, clock: Arc<dyn TimeProvider>) -> Result<Self, Refusal> {
        let key = Arc::new(own.key);
        let bad = |error: rustls::Error| {
            Refusal::new(RefusalCode::CertificateInvalid, format_args!("own credential: {error}"))
        };
        let server =
            tls::workload_server(&own.chain, Arc::clone(&key), peers.clone(), Arc::clone(&clock)).map_err(bad)?;
        let client = tls::workload_client(&own.chain, key, peers.clone(), Arc::clone(&clock)).map_err(bad)?;
        Ok(Self { acceptor: Arc::new(server).into(), connector: Arc::new(client).into(), peers, clock })
    }

    /// Accepts a peer that connected.
    ///
    /// # Errors
    /// A refusal that names the rule that the peer broke; no application data was exchanged.
    pub async fn accept<S>(&self, stream: S) -> Result<AcceptedConnection<S>, Refusal>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let handshake = tokio::time::timeout(HANDSHAKE, self.acceptor.accept(stream));
        let stream = handshake.await.map_err(|_| timed_out())?.map_err(|error| handshake_refusal(&error))?;
        self.admit(TlsStream::Server(stream), Role::Client)
    }

    /// Connects to a peer over an open byte stream.
    ///
    /// # Errors
    /// As for [`RelyingParty::accept`].
    pub async fn connect<S>(&self, stream: S) -> Result<AcceptedConnection<S>, Refusal>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        // The identifier is expected by configuration; no host name is sent or compared (MT-8, MT-9).
        let name = ServerName::try_from("peer.invalid").map_err(|error| Refusal::new(RefusalCode::Internal, error))?;
        let handshake = tokio::time::timeout(HANDSHAKE, self.connector.connect(name, stream));
        let stream = handshake.await.map_err(|_| timed_out())?.map_err(|error| handshake_refusal(&error))?;
        self.admit(TlsStream::Client(stream), Role::Server)
    }

    /// The one way to an accepted connection: what the handshake verified is verified again into a value that says so.
    fn admit<S>(&self, stream: TlsStream<S>, role: Role) -> Result<AcceptedConnection<S>, Refusal> {
        let (_, connection) = stream.get_ref();
        let chain: Vec<&[u8]> =
            connection.peer_certificates().unwrap_or_default().iter().map(|der| der.as_ref()).collect();
        let now = self
            .clock
            .current_time()
            .ok_or_else(|| Refusal::new(RefusalCode::ClockUnavailable, "no clock to judge by"))?;
        let peer = certificate::verify(&chain, &self.peers.bundle, role, now.as_secs())?;
        if !self.peers.identifiers.contains(peer.identifier()) {
            let cause = format!("{} is authentic and not among the accepted identifiers", peer.identifier());
            return Err(Refusal::new(RefusalCode::IdentityMismatch, cause));
        }
        Ok(AcceptedConnection { peer, stream })
    }
}

fn timed_out() -> Refusal {
    Refusal::new(RefusalCode::Unreachable, "the TLS handshake timed out")
}

fn handshake_refusal(error: &io::Error) -> Refusal {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(error) => tls::refusal_of(error),
        None => Refusal::new(RefusalCode::Unreachable, format_args!("the TLS handshake broke off: {error}")),
    }
}

/// A connection whose peer was verified. Reading and writing go through it.
pub struct AcceptedConnection<S> {
    peer: WorkloadCertificate,
    stream: TlsStream<S>,
}

impl<S> AcceptedConnection<S> {
    /// The verified peer.
    pub fn peer(&self) -> &WorkloadCertificate {
        &self.peer
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for AcceptedConnection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for AcceptedConnection<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
