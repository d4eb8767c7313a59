//! Outlets: a local plain socket in, attested mutual TLS out. The workload needs to know nothing of TLS, and the
//! Credential Key never leaves the agent. Only the workload's user may connect, and only the one configured peer is
//! ever talked to.

use crate::channel::dial;
use crate::config::{MeasuredConfig, Outlet};
use crate::credential::BoundCredential;
use inwit_protocol::refusal::{Refusal, RefusalCode};
use inwit_protocol::tls::{self, AcceptedPeers};
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::socket::{MsgFlags, recv};
use nix::unistd::{Uid, chown};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio_rustls::TlsConnector;

/// Longest mutual TLS handshake with a peer.
const HANDSHAKE: Duration = Duration::from_secs(30);
/// Most local connections of one outlet at a time.
const CONNECTIONS: usize = 64;
/// How often a connection that was broken off is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// An outlet that listens; its task ends with the runtime.
pub(crate) struct Open {
    /// The environment variable that names it to the workload.
    pub(crate) variable: String,
    /// Socket path.
    pub(crate) path: PathBuf,
}

fn failed(what: &str, error: impl std::fmt::Display) -> Refusal {
    Refusal::new(RefusalCode::Internal, format_args!("outlet, {what}: {error}"))
}

/// Makes the run directory, private to the agent but for passage.
pub(crate) fn make_run_directory(path: &Path) -> Result<(), Refusal> {
    fs::DirBuilder::new().recursive(true).mode(0o711).create(path).map_err(|error| failed("run directory", error))
}

/// Opens every configured outlet.
pub(crate) fn open_all(config: &MeasuredConfig, credential: &BoundCredential) -> Result<Vec<Open>, Refusal> {
    make_run_directory(&config.run)?;
    config.outlets.iter().map(|outlet| open(outlet, config, credential)).collect()
}

fn open(outlet: &Outlet, config: &MeasuredConfig, credential: &BoundCredential) -> Result<Open, Refusal> {
    let peers = AcceptedPeers { bundle: credential.bundle().clone(), identifiers: vec![outlet.peer.clone()] };
    let client =
        tls::workload_client(credential.chain(), credential.key(), peers, Arc::new(credential.clock().clone()))
            .map_err(|error| tls::refusal_of(&error))?;
    let path = config.run.join(format!("{}.sock", outlet.name));
    if path.exists() {
        fs::remove_file(&path).map_err(|error| failed("stale socket", error))?;
    }
    let listener = UnixListener::bind(&path).map_err(|error| failed("socket", error))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(|error| failed("permissions", error))?;
    if Uid::effective().is_root() {
        chown(&path, Some(Uid::from_raw(config.workload_user)), None).map_err(|error| failed("owner", error))?;
    }
    let allowed = if Uid::effective().is_root() { config.workload_user } else { Uid::effective().as_raw() };
    tokio::spawn(serve(listener, outlet.clone(), Arc::new(client), allowed));
    Ok(Open { variable: outlet.variable(), path })
}

async fn serve(listener: UnixListener, outlet: Outlet, client: Arc<ClientConfig>, allowed: u32) {
    let slots = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS));
    loop {
        // The semaphore is never closed; should it be, nothing more is accepted.
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let Ok((local, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        if !local.peer_cred().is_ok_and(|peer| peer.uid() == allowed || peer.uid() == 0) {
            continue;
        }
        let (outlet, client) = (outlet.clone(), Arc::clone(&client));
        tokio::spawn(async move {
            if let Err(error) = relay(local, &outlet, client).await {
                crate::console::say(&format!("inwit: outlet {} closed: {}", outlet.name, describe(&error)));
            }
            drop(slot);
        });
    }
}

/// What ended a connection, without foreign text.
fn describe(error: &io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(error) => tls::refusal_of(error).to_string(),
        None => error.kind().to_string(),
    }
}

async fn relay(mut local: UnixStream, outlet: &Outlet, client: Arc<ClientConfig>) -> io::Result<()> {
    let outcome = carry(&mut local, outlet, client).await;
    if outcome.is_err() {
        break_off(local).await;
    }
    outcome
}

async fn carry(local: &mut UnixStream, outlet: &Outlet, client: Arc<ClientConfig>) -> io::Result<()> {
    let name = ServerName::try_from("peer.invalid").map_err(io::Error::other)?;
    let handshake = async {
        let relayed = dial(&outlet.to).await?;
        TlsConnector::from(client).connect(name, relayed).await
    };
    let mut peer = tokio::time::timeout(HANDSHAKE, handshake).await.map_err(|_| io::ErrorKind::TimedOut)??;
    tokio::io::copy_bidirectional(local, &mut peer).await.map(|_| ())
}

/// Ends a local connection whose stream was cut, so that it cannot be taken for one that the peer ended. A unix socket is
/// closed with an error only if bytes that the workload wrote lie in it unread; until there are such bytes, or until the
/// workload lets go, it stays open and silent. Nothing is read any more: what is written now was not delivered.
async fn break_off(local: UnixStream) {
    let mut byte = [0];
    loop {
        match recv(local.as_raw_fd(), &mut byte, MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT) {
            Ok(0) | Err(nix::Error::EAGAIN) => {} // it ended its side, or says nothing: neither tells that it is gone
            Ok(_) | Err(_) => return,             // unread bytes: the close that follows is an error at the other end
        }
        let mut poll = [PollFd::new(local.as_fd(), PollFlags::empty())];
        let gone = PollFlags::POLLHUP | PollFlags::POLLERR;
        let polled = nix::poll::poll(&mut poll, PollTimeout::ZERO);
        if polled.is_err() || poll.first().and_then(PollFd::revents).is_some_and(|found| found.intersects(gone)) {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::timeout;

    const SOON: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn a_cut_stream_is_never_a_clean_end() {
        // It said something that nobody took: its next read is an error.
        let (local, mut workload) = UnixStream::pair().unwrap();
        workload.write_all(b"request").await.unwrap();
        timeout(SOON, break_off(local)).await.unwrap();
        let error = workload.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);

        // It ended its side and waits for the rest of an answer: it sees no end, until it lets go.
        let (local, mut workload) = UnixStream::pair().unwrap();
        workload.shutdown().await.unwrap();
        let held = tokio::spawn(break_off(local));
        assert!(timeout(LOOK * 4, workload.read(&mut [0])).await.is_err(), "an end was seen");
        drop(workload);
        timeout(SOON, held).await.unwrap().unwrap();

        // It says nothing and waits for the peer to speak first: the same.
        let (local, mut workload) = UnixStream::pair().unwrap();
        let held = tokio::spawn(break_off(local));
        assert!(timeout(LOOK * 4, workload.read(&mut [0])).await.is_err(), "an end was seen");
        drop(workload);
        timeout(SOON, held).await.unwrap().unwrap();
    }
}
