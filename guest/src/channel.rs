//! The channel to the authority: TLS 1.3 through the relay, authenticated with the fresh Credential Key on this side and
//! a pinned key on the other. The relay sees ciphertext. Everything here has a time limit: the host can deny service, and
//! cannot hang a boot.

use crate::config::Address;
use inwit_protocol::primitives::{PublicKey, SigningKey};
use inwit_protocol::refusal::{Refusal, RefusalCode};
use inwit_protocol::tls;
use inwit_protocol::{ALPN, frame};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, VsockAddr, connect as connect_socket, socket};
use rustls::pki_types::ServerName;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::UnixStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Longest write to the relay: vsock backends are known to hang on larger ones.
const WRITE_CAP: usize = 16_384;
/// Tries to reach the relay, one second apart: it may be started after the VM.
const CONNECT_TRIES: u32 = 30;
/// Longest TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(30);
/// Longest wait for the reply to a request.
const EXCHANGE: Duration = Duration::from_secs(60);

/// A byte stream through the host whose writes are capped.
pub struct Relayed(UnixStream);

impl AsyncRead for Relayed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Relayed {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let capped = bytes.get(..WRITE_CAP).unwrap_or(bytes);
        Pin::new(&mut self.0).poll_write(context, capped)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

/// Opens one stream to `address`, blocking.
///
/// A vsock descriptor is carried in a unix stream type: both are stream sockets, and only read, write and shutdown are
/// used, which know no address family.
pub(crate) fn connect(address: &Address) -> io::Result<std::os::unix::net::UnixStream> {
    match address {
        Address::Unix(path) => std::os::unix::net::UnixStream::connect(path),
        Address::Vsock { cid, port } => {
            let fd = socket(AddressFamily::Vsock, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
            connect_socket(std::os::fd::AsRawFd::as_raw_fd(&fd), &VsockAddr::new(*cid, *port))?;
            Ok(fd.into())
        }
    }
}

/// Opens one stream to `address`.
pub async fn dial(address: &Address) -> io::Result<Relayed> {
    let address = address.clone();
    let stream = tokio::task::spawn_blocking(move || connect(&address)).await.map_err(io::Error::other)??;
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream).map(Relayed)
}

async fn dial_patiently(address: &Address) -> Result<Relayed, Refusal> {
    let mut tries = 1;
    loop {
        match dial(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) if tries >= CONNECT_TRIES => {
                let cause = format!("no connection to the relay at {address:?} after {tries} tries: {error}");
                return Err(Refusal::new(RefusalCode::Unreachable, cause));
            }
            Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
        }
        tries = tries.saturating_add(1);
    }
}

/// The channel, open: the handshake proved the pinned authority key and our own.
pub struct Channel {
    stream: TlsStream<Relayed>,
    nonce: [u8; 32],
    authority: PublicKey,
}

impl Channel {
    /// Connects and shakes hands.
    pub async fn open(address: &Address, key: Arc<SigningKey>, pins: &[[u8; 32]]) -> Result<Self, Refusal> {
        let config = tls::guest_channel(key, pins.to_vec()).map_err(|error| tls::refusal_of(&error))?;
        // Never sent and never compared: the authority is known by its key.
        let name = ServerName::try_from("authority.invalid").map_err(|_| internal("server name"))?;
        let relayed = dial_patiently(address).await?;
        let stream = timeout(HANDSHAKE, TlsConnector::from(Arc::new(config)).connect(name, relayed))
            .await
            .map_err(|_| Refusal::new(RefusalCode::Unreachable, "the TLS handshake timed out"))?
            .map_err(|error| broken("the TLS handshake broke off", &error))?;
        let (_, connection) = stream.get_ref();
        if connection.alpn_protocol() != Some(ALPN) {
            return Err(Refusal::new(RefusalCode::Unsupported, "the authority names no version of the protocol"));
        }
        let nonce = tls::nonce(connection).map_err(|error| tls::refusal_of(&error))?;
        let authority = tls::peer_key(connection)?;
        Ok(Self { stream, nonce, authority })
    }

    /// The verifier's nonce of this connection.
    pub fn nonce(&self) -> [u8; 32] {
        self.nonce
    }

    /// The pinned key that the authority authenticated with.
    pub fn authority(&self) -> &PublicKey {
        &self.authority
    }

    /// Sends the one request and reads the one reply.
    pub async fn exchange(mut self, request: &[u8]) -> Result<Vec<u8>, Refusal> {
        timeout(EXCHANGE, self.exchange_unbounded(request))
            .await
            .map_err(|_| Refusal::new(RefusalCode::Unreachable, "no reply in time"))?
    }

    async fn exchange_unbounded(&mut self, request: &[u8]) -> Result<Vec<u8>, Refusal> {
        let frame = frame::wrap(request, frame::REQUEST_LIMIT)
            .map_err(|error| Refusal::new(RefusalCode::Oversized, format_args!("own request: {error}")))?;
        let lost = |error: io::Error| broken("the channel broke before the reply was whole", &error);
        self.stream.write_all(&frame).await.map_err(lost)?;
        self.stream.flush().await.map_err(lost)?;
        let mut prefix = [0; frame::PREFIX];
        self.stream.read_exact(&mut prefix).await.map_err(lost)?;
        let length = frame::length(prefix, frame::REPLY_LIMIT)
            .map_err(|error| Refusal::new(error.code(), format_args!("reply: {error}")))?;
        let mut reply = vec![0; length];
        self.stream.read_exact(&mut reply).await.map_err(lost)?;
        Ok(reply)
    }
}

fn internal(what: &str) -> Refusal {
    Refusal::new(RefusalCode::Internal, what)
}

/// The refusal inside an error of the stream: what TLS refused keeps its code; a stream that just ends is an unreachable
/// authority.
fn broken(what: &str, error: &io::Error) -> Refusal {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(error) => tls::refusal_of(error),
        None => Refusal::new(RefusalCode::Unreachable, format_args!("{what}: {}", error.kind())),
    }
}
