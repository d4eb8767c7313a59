//! A route at work: takes guests within the limits, starts one task for each, and winds down when told to.
//!
//! Nothing that a guest or the authority side does ends it. It never queues a guest: one beyond the limit is closed at
//! once, and an accept error is answered by a short pause.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinSet, yield_now};
use tokio::time::{Instant, sleep, sleep_until};

use crate::address::{Listen, Route};
use crate::connection::{Shared, carry};
use crate::event::{Event, Tally, Totals, Watcher, add};
use crate::lane::Lanes;
use crate::limits::Limits;
use crate::listener::{BindError, Listener};
use crate::stream::{Peeked, Stream};

/// Guests taken in a row before the open connections have a turn.
const ACCEPTS_A_TURN: usize = 16;

/// First and longest pause after an accept error or a failed dial of a virtio port; it doubles in between.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// How far a stop has come; the sender moves it forward only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Guests are taken.
    Relaying,
    /// No guest is taken, open connections have until [`Limits::drain`] is over.
    Draining,
    /// Everything closes now.
    Closing,
}

/// A route whose guest side is open.
pub struct Relay {
    door: Door,
    route: Route,
    shared: Arc<Shared>,
}

enum Door {
    Listening(Listener),
    /// Somebody else listens on `route.listen`; the relay dials it.
    Dialling,
}

/// Doubling pauses between attempts.
struct Backoff(Duration);

impl Relay {
    /// Opens the guest side of `route`. Must be called inside a tokio runtime with I/O and time enabled.
    ///
    /// # Errors
    /// [`BindError`]; a `virtio:` route opens nothing here and so cannot fail.
    pub fn bind(route: Route, limits: Limits, watcher: Watcher) -> Result<Self, BindError> {
        let door = match &route.listen {
            Listen::Unix(path) => Door::Listening(Listener::unix(path)?),
            Listen::Vsock(port) => Door::Listening(Listener::vsock(*port)?),
            Listen::Virtio(_) => Door::Dialling,
        };
        let lanes = Lanes::new(limits.lanes);
        let shared = Shared { upstream: route.to.clone(), limits, lanes, tally: Tally::default(), watcher };
        Ok(Self { door, route, shared: Arc::new(shared) })
    }

    /// Relays until `stop` leaves [`Phase::Relaying`] and the open connections have ended or were closed. A dropped
    /// sender counts as [`Phase::Closing`].
    pub async fn run(self, mut stop: watch::Receiver<Phase>) -> Totals {
        let Self { door, route, shared } = self;
        (shared.watcher)(&Event::Ready(&route));
        let (cut, cut_seen) = watch::channel(false);
        let mut connections = JoinSet::new();
        match (door, &route.listen) {
            (Door::Listening(listener), _) => {
                take_guests(&listener, &shared, &mut connections, &cut_seen, &mut stop).await;
                // Dropped here, so that a guest that comes during the drain is refused by the kernel at once.
                drop(listener);
            }
            (Door::Dialling, listen) => serve_port(listen, &shared, &mut connections, &cut_seen, &mut stop).await,
        }
        drain(&mut connections, shared.limits.drain, &mut stop).await;
        // Nobody listens any more when all connections have ended.
        let _ = cut.send(true);
        while connections.join_next().await.is_some() {}
        let totals = shared.tally.totals();
        (shared.watcher)(&Event::Stopped(totals));
        totals
    }
}

/// Accepts until a stop is asked for.
async fn take_guests(
    listener: &Listener,
    shared: &Arc<Shared>,
    connections: &mut JoinSet<()>,
    cut: &watch::Receiver<bool>,
    stop: &mut watch::Receiver<Phase>,
) {
    let mut backoff = Backoff::new();
    let mut not_before = Instant::now();
    let mut turn = 0;
    loop {
        let accepted = tokio::select! {
            biased;
            () = asked_to(Phase::Draining, stop) => return,
            Some(done) = connections.join_next() => {
                report_panic(done, shared);
                continue;
            }
            accepted = async { sleep_until(not_before).await; listener.accept().await } => accepted,
        };
        match accepted {
            Ok((guest, peer)) => {
                backoff = Backoff::new();
                admit(guest, peer, shared, connections, cut);
                turn += 1;
                if turn >= ACCEPTS_A_TURN {
                    turn = 0;
                    yield_now().await;
                }
            }
            Err(error) if is_of_one_guest(&error) => {}
            Err(error) => {
                // EMFILE, ENFILE, ENOMEM, ENOBUFS: the guest waits in the kernel's bounded backlog meanwhile.
                let what = "cannot take a guest, trying again (if descriptors ran out: ulimit -n, --max-connections)";
                (shared.watcher)(&Event::Trouble { what, cause: format_args!("{error}") });
                not_before = Instant::now() + backoff.next();
            }
        }
    }
}

/// Starts a task for the guest, or closes it when there are enough.
fn admit(
    guest: Stream,
    peer: Option<(u32, u32)>,
    shared: &Arc<Shared>,
    connections: &mut JoinSet<()>,
    cut: &watch::Receiver<bool>,
) {
    if connections.len() >= shared.limits.connections.max(1) {
        drop(guest);
        let refused = add(&shared.tally.refused, 1);
        (shared.watcher)(&Event::Refused { refused });
        return;
    }
    let connection = add(&shared.tally.opened, 1);
    (shared.watcher)(&Event::Opened { connection, peer });
    let (shared, cut) = (Arc::clone(shared), cut.clone());
    connections.spawn(async move { carry(&shared, connection, guest, cut).await });
}

/// Dials a virtio-serial port's socket for ever, one stream at a time, until a stop is asked for.
///
/// The port has no connections of its own: a stream begins with the guest's first byte (only then is the authority side
/// dialled) and ends when either socket does; then the port is dialled again. It has no half-close either: QEMU takes
/// the relay's end of writing for the end of the stream.
async fn serve_port(
    listen: &Listen,
    shared: &Arc<Shared>,
    connections: &mut JoinSet<()>,
    cut: &watch::Receiver<bool>,
    stop: &mut watch::Receiver<Phase>,
) {
    let Listen::Virtio(path) = listen else { return };
    let mut backoff = Backoff::new();
    let mut reported = None;
    loop {
        let awaited = async {
            let port = Stream::dial_unix(path).await?;
            match port.peek().await? {
                Peeked::Byte => Ok(port),
                Peeked::End => Err(io::ErrorKind::UnexpectedEof.into()),
            }
        };
        let reached: io::Result<Stream> = tokio::select! {
            biased;
            () = asked_to(Phase::Draining, stop) => return,
            reached = awaited => reached,
        };
        match reached {
            Ok(port) => {
                (backoff, reported) = (Backoff::new(), None);
                admit(port, None, shared, connections, cut);
                tokio::select! {
                    biased;
                    () = asked_to(Phase::Draining, stop) => return,
                    Some(done) = connections.join_next() => report_panic(done, shared),
                }
            }
            // A VM that is not running is no news the second time.
            Err(error) if reported == Some(error.kind()) => {}
            Err(error) => {
                let what = "the virtio port's socket is not there or was closed, dialling again and again";
                (shared.watcher)(&Event::Trouble { what, cause: format_args!("{error}") });
                reported = Some(error.kind());
            }
        }
        tokio::select! {
            biased;
            () = asked_to(Phase::Draining, stop) => return,
            () = sleep(backoff.next()) => {}
        }
    }
}

/// Lets connections end by themselves until `limit` has passed or the stop becomes urgent.
async fn drain(connections: &mut JoinSet<()>, limit: Duration, stop: &mut watch::Receiver<Phase>) {
    tokio::select! {
        biased;
        () = async { while connections.join_next().await.is_some() {} } => {}
        () = asked_to(Phase::Closing, stop) => {}
        () = sleep(limit) => {}
    }
}

/// Waits until the stop has come at least as far as `phase`.
async fn asked_to(phase: Phase, stop: &mut watch::Receiver<Phase>) {
    // An error means that nobody can ask any more; going on without a way to stop would be worse than stopping.
    let _ = stop.wait_for(|reached| *reached >= phase).await;
}

/// Whether an accept error speaks of the guest that was to be taken and not of this process (accept(2)).
fn is_of_one_guest(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted)
}

fn report_panic(done: Result<(), tokio::task::JoinError>, shared: &Shared) {
    if let Err(error) = done {
        let what = "a connection ended by a fault of the relay, please report it";
        (shared.watcher)(&Event::Trouble { what, cause: format_args!("{error}") });
    }
}

impl Backoff {
    fn new() -> Self {
        Self(PAUSES.0)
    }

    fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(PAUSES.1);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_their_bound() {
        let mut backoff = Backoff::new();
        let millis: Vec<_> = (0..8).map(|_| backoff.next().as_millis()).collect();
        assert_eq!(millis, [50, 100, 200, 400, 800, 1600, 2000, 2000]);
    }
}
