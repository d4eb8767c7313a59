//! The server: accepts guests over TLS 1.3, takes one request a connection, and answers with a grant or a refusal.
//! Every length, time and count that a guest controls is bounded. Judging happens off the I/O threads, and only so many
//! requests are judged at a time, so that a flood waits instead of taking all memory.

use crate::decide::Authority;
use crate::fault::Fault;
use crate::verifier::Outstanding;
use inwit_protocol::frame;
use inwit_protocol::message::Reply;
use inwit_protocol::refusal::{Refusal, RefusalCode};
use inwit_protocol::{ALPN, tls};
use rustls::ServerConfig;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Longest TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Longest wait for a whole request: the guest's report device may take its time in between.
const REQUEST: Duration = Duration::from_secs(120);
/// Longest wait for a guest to take its reply.
const REPLY: Duration = Duration::from_secs(30);
/// How long a connection that was answered may linger.
const LINGER: Duration = Duration::from_secs(5);

/// Serves until `stop` completes, then lets what is under way finish for a moment.
pub async fn serve(
    authority: Arc<Authority>,
    listener: TcpListener,
    connections: usize,
    stop: impl Future<Output = ()>,
) -> Result<(), Fault> {
    let config = tls::authority_channel(authority.channel_key()).map_err(|error| Fault::of("TLS", error))?;
    let config: Arc<ServerConfig> = Arc::new(config);
    let slots = Arc::new(Semaphore::new(connections));
    let judges = Arc::new(Semaphore::new(judges()));
    let all = u32::try_from(connections).unwrap_or(u32::MAX);
    tokio::pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = accept(&listener, &slots) => accepted,
        };
        let Some((stream, peer, slot)) = accepted else { continue };
        let (authority, config, judges) = (Arc::clone(&authority), Arc::clone(&config), Arc::clone(&judges));
        tokio::spawn(async move {
            if let Err(error) = converse(authority, config, &judges, stream).await {
                tracing::info!(%peer, %error, "connection ended");
            }
            drop(slot);
        });
    }
    // Whoever is being served holds a slot; all slots free means all are done.
    let _ = timeout(LINGER, slots.acquire_many(all)).await;
    tokio::task::spawn_blocking(move || authority.record_counted()).await.map_err(|error| Fault::of("stopping", error))
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

/// How many requests are judged at a time: judging is computing, so a few for each processor.
fn judges() -> usize {
    std::thread::available_parallelism().map_or(4, |count| count.get().saturating_mul(2))
}

async fn converse(
    authority: Arc<Authority>,
    config: Arc<ServerConfig>,
    judges: &Semaphore,
    stream: TcpStream,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let handshake = timeout(HANDSHAKE, TlsAcceptor::from(config).accept(stream));
    let mut stream = handshake.await.map_err(|_| io::ErrorKind::TimedOut)??;
    if stream.get_ref().1.alpn_protocol() != Some(ALPN) {
        return Err(io::Error::other("the peer names no version of the protocol"));
    }
    let asked = outstanding(&stream)?;
    let reply = match timeout(REQUEST, read_frame(&mut stream)).await.map_err(|_| io::ErrorKind::TimedOut)? {
        Ok(Some(request)) => {
            let judging = judges.acquire().await.map_err(io::Error::other)?;
            let authority = Arc::clone(&authority);
            let judged = tokio::task::spawn_blocking(move || authority.answer(&request, asked)).await;
            drop(judging);
            judged.map_err(io::Error::other)?
        }
        Ok(None) => return Ok(()),
        Err(ReadFault::Io(error)) => return Err(error),
        Err(ReadFault::Frame(error)) => refuse(&authority, Refusal::new(error.code(), error)).await?,
    };
    send(&mut stream, &reply).await?;
    // The nonce is spent: whatever else comes over this connection is refused by name, once, and the connection ends.
    if let Ok(Ok(Some(_))) = timeout(LINGER, read_frame(&mut stream)).await {
        let refusal = Refusal::new(RefusalCode::NonceReused, "this connection's nonce was spent by an earlier request");
        let reply = refuse(&authority, refusal).await?;
        send(&mut stream, &reply).await?;
    }
    timeout(LINGER, stream.shutdown()).await.map_err(|_| io::ErrorKind::TimedOut)?
}

/// A refusal that needs no judging is recorded like any other.
async fn refuse(authority: &Arc<Authority>, refusal: Refusal) -> io::Result<Reply> {
    let authority = Arc::clone(authority);
    tokio::task::spawn_blocking(move || authority.refuse(refusal)).await.map_err(io::Error::other)
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
