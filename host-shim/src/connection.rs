//! One guest connection: reach the authority side, then copy bytes both ways until both sides ended or a bound is hit.
//!
//! Neither side is trusted. A side may stall, flood, half-close or reset: what follows is felt by its own connection
//! only. No byte is looked at, and none is read before the bytes read earlier have been delivered.

use std::future::pending;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::address::Upstream;
use crate::event::{Event, Reason, Tally, Watcher, add};
use crate::lane::{FILL_MOST, Lane, Lanes, Manner};
use crate::limits::Limits;
use crate::pace::Pace;
use crate::stream::Stream;

/// Bytes that one direction moves before it lets the other connections have a turn.
const TURN: usize = 1024 * 1024;

/// What a smaller move counts in a turn: single bytes must not buy a million system calls.
const MOVE_LEAST: usize = 4096;

/// What all connections of a route share.
pub(crate) struct Shared {
    pub(crate) upstream: Upstream,
    pub(crate) limits: Limits,
    pub(crate) lanes: Lanes,
    pub(crate) tally: Tally,
    pub(crate) watcher: Watcher,
}

/// Bytes delivered, and when the last of them were.
struct Progress {
    up: AtomicU64,
    down: AtomicU64,
    started: Instant,
    /// Milliseconds after `started`.
    last: AtomicU64,
}

/// How a direction that did not break ended.
#[derive(Debug)]
enum Ending {
    /// The source ended and the destination was told.
    Delivered,
    /// The destination took no more; the source's rest was dropped.
    Undeliverable(io::Error),
}

/// Why a connection is over.
struct Outcome(Reason, Option<io::Error>);

/// Carries one guest connection from acceptance to its `Closed` event. `cut` turns true when it has to end at once.
pub(crate) async fn carry(shared: &Shared, number: u64, guest: Stream, mut cut: watch::Receiver<bool>) {
    let progress = Progress::new();
    let Outcome(reason, cause) = tokio::select! {
        outcome = connect_and_relay(shared, guest, &progress) => outcome,
        // An error means that the relay itself is gone, which is a cut as well.
        _ = cut.wait_for(|cut| *cut) => Outcome(Reason::Drained, None),
    };
    let (bytes_up, bytes_down) = (progress.up.load(Ordering::Relaxed), progress.down.load(Ordering::Relaxed));
    add(&shared.tally.bytes_up, bytes_up);
    add(&shared.tally.bytes_down, bytes_down);
    if reason == Reason::Unreachable {
        add(&shared.tally.unreachable, 1);
    }
    (shared.watcher)(&Event::Closed { connection: number, bytes_up, bytes_down, reason, cause: cause.as_ref() });
}

async fn connect_and_relay(shared: &Shared, guest: Stream, progress: &Progress) -> Outcome {
    let authority = match Stream::dial(&shared.upstream, shared.limits.connect).await {
        Ok(stream) => stream,
        // Dropping the guest's socket tells it at once; it need not wait for a timeout of its own.
        Err(error) => return Outcome(Reason::Unreachable, Some(error)),
    };
    let pace = Pace::new(shared.limits.bandwidth, Instant::now().into_std());
    let (up, down) = (Direction(&guest, &authority, &progress.up), Direction(&authority, &guest, &progress.down));
    tokio::select! {
        both = async { tokio::try_join!(up.run(shared, &pace, progress), down.run(shared, &pace, progress)) } => {
            match both {
                Ok((Ending::Delivered, Ending::Delivered)) => Outcome(Reason::Ended, None),
                Ok((Ending::Undeliverable(error), _) | (_, Ending::Undeliverable(error))) | Err(error) => {
                    Outcome(Reason::Broken, Some(error))
                }
            }
        }
        () = progress.stays_quiet_for(shared.limits.idle) => Outcome(Reason::Idle, None),
    }
}

/// One direction: from, to, and where delivered bytes are counted.
struct Direction<'a>(&'a Stream, &'a Stream, &'a AtomicU64);

impl Direction<'_> {
    /// Copies until the source ends or the destination refuses.
    ///
    /// An error is one of reading: that side is dead in both directions, so the caller ends the connection. An error of
    /// writing is an [`Ending`]: the other direction may still have an answer to deliver.
    async fn run(&self, shared: &Shared, pace: &Pace, progress: &Progress) -> io::Result<Ending> {
        let Self(from, to, _) = self;
        let mut manner = to.manner();
        let mut turn = 0;
        loop {
            // No lane is borrowed while there is nothing to carry: this is what keeps an idle connection small.
            from.readable().await?;
            let room = match pace.allowance(FILL_MOST, Instant::now().into_std()) {
                Ok(room) => room,
                Err(wait) => {
                    sleep(wait).await;
                    continue;
                }
            };
            let mut lane = shared.lanes.lend(manner);
            let taken = match from.fill(&mut lane, room) {
                Ok(0) => {
                    to.end_writing();
                    return Ok(Ending::Delivered);
                }
                Ok(taken) => taken,
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => continue,
                    io::ErrorKind::InvalidInput if manner == Manner::Splice => {
                        manner = Manner::Copy;
                        continue;
                    }
                    _ => {
                        to.reset_on_close();
                        return Err(error);
                    }
                },
            };
            pace.spend(taken);
            if let Err(error) = self.deliver(&mut lane, &mut manner, progress).await {
                from.end_reading();
                return Ok(Ending::Undeliverable(error));
            }
            turn += taken.max(MOVE_LEAST);
            if turn >= TURN {
                turn = 0;
                tokio::task::yield_now().await;
            }
        }
    }

    /// Writes everything that the lane holds, waiting for the destination as long as it takes.
    async fn deliver(&self, lane: &mut Lane<'_>, manner: &mut Manner, progress: &Progress) -> io::Result<()> {
        let Self(_, to, delivered) = self;
        while !lane.is_empty() {
            match to.drain(lane) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(gone) => progress.note(delivered, gone),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => to.writable().await?,
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::InvalidInput if *manner == Manner::Splice => {
                        *manner = Manner::Copy;
                        lane.salvage()?;
                    }
                    _ => return Err(error),
                },
            }
        }
        Ok(())
    }
}

impl Progress {
    fn new() -> Self {
        Self { up: AtomicU64::new(0), down: AtomicU64::new(0), started: Instant::now(), last: AtomicU64::new(0) }
    }

    fn note(&self, delivered: &AtomicU64, bytes: usize) {
        add(delivered, u64::try_from(bytes).unwrap_or(u64::MAX));
        self.last.store(self.elapsed_millis(), Ordering::Relaxed);
    }

    fn elapsed_millis(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Waits until nothing has been delivered for `limit`.
    ///
    /// It wakes when the time would be up and looks back, rather than being pushed forward by each byte.
    async fn stays_quiet_for(&self, limit: Option<Duration>) {
        let Some(limit) = limit else { return pending().await };
        loop {
            let quiet = Duration::from_millis(self.elapsed_millis().saturating_sub(self.last.load(Ordering::Relaxed)));
            match limit.checked_sub(quiet) {
                None | Some(Duration::ZERO) => return,
                Some(rest) => sleep(rest).await,
            }
        }
    }
}
