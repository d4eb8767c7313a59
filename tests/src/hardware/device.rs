//! One simulated machine as a guest's driver meets it: it answers, it misbehaves when told to, it remembers requests.
//!
//! Shared by handle between the file system or mailbox that serves it and the test that steers it. It trusts neither
//! length nor level of a request; it never judges evidence.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;

use super::{INBLOB_LEN, Machine, RawEvidence};

/// Requests remembered; older ones are forgotten, the count goes on.
const REMEMBERED: usize = 1024;
/// No fault holds a request longer than this.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// Highest privilege level that the kernel knows (TSM_PRIVLEVEL_MAX).
const PRIVLEVEL_MAX: u32 = 3;

/// How a device misbehaves.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Fault {
    /// It does not.
    #[default]
    None,
    /// The outblob has no bytes, as with a quote service that is not there.
    EmptyQuote,
    /// Every request ends in this error.
    Errno(i32),
    /// The first signature byte is inverted.
    FlipSignature,
    /// The same evidence for every request: a host that replays.
    Replay(RawEvidence),
    /// The outblob ends half-way.
    ShortQuote,
    /// A right answer after this time.
    Slow(Duration),
    /// No answer for this time, then ETIMEDOUT.
    Stuck(Duration),
    /// The outblob is followed by 16 bytes that belong to nothing.
    TrailingBytes,
    /// Truly signed, over report data whose first byte is inverted.
    WrongReportData,
}

/// A request that reached the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Report data as it came, of whatever length.
    pub inblob: Vec<u8>,
    /// Requested privilege level.
    pub privlevel: u32,
}

/// Handle to a simulated machine. Clones are the same device.
#[derive(Debug, Clone)]
pub struct Device {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    machine: Machine,
    fault: Fault,
    /// Goes up with every change of fault, so that a waiting request notices.
    epoch: u64,
    seen: VecDeque<Request>,
    count: u64,
}

impl<M: Into<Machine>> From<M> for Device {
    fn from(machine: M) -> Self {
        Self::new(machine.into())
    }
}

impl Device {
    /// A device that works.
    pub fn new(machine: Machine) -> Self {
        let state = State { machine, fault: Fault::None, epoch: 0, seen: VecDeque::new(), count: 0 };
        Self { shared: Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() }) }
    }

    /// A copy of the machine as it is now.
    pub fn machine(&self) -> Machine {
        self.state().machine.clone()
    }

    /// Puts another machine, or the same one changed, in the place of this one.
    pub fn replace_machine(&self, machine: impl Into<Machine>) {
        self.state().machine = machine.into();
    }

    /// From now on the device misbehaves like this. Ends the wait of a request that is [`Fault::Stuck`].
    pub fn set_fault(&self, fault: Fault) {
        let mut state = self.state();
        state.fault = fault;
        state.epoch += 1;
        self.shared.changed.notify_all();
    }

    /// Ends waits without changing the fault; called when the device is taken away.
    pub(super) fn interrupt(&self) {
        self.state().epoch += 1;
        self.shared.changed.notify_all();
    }

    /// How many requests arrived in all.
    pub fn request_count(&self) -> u64 {
        self.state().count
    }

    /// The last requests, oldest first, at most 1024.
    pub fn requests(&self) -> Vec<Request> {
        self.state().seen.iter().cloned().collect()
    }

    /// Answers one request, with the kernel's error numbers where the real drivers give them.
    pub fn answer(&self, inblob: &[u8], privlevel: u32) -> Result<RawEvidence, Errno> {
        let mut state = self.state();
        state.remember(inblob, privlevel);
        let mut report_data: [u8; INBLOB_LEN] = inblob.try_into().map_err(|_| Errno::EINVAL)?;
        if state.machine.privlevel_floor().is_some_and(|floor| !(floor..=PRIVLEVEL_MAX).contains(&privlevel)) {
            return Err(Errno::EINVAL);
        }
        let fault = state.fault.clone();
        let machine = state.machine.clone();
        if let Fault::Slow(time) | Fault::Stuck(time) = &fault {
            let epoch = state.epoch;
            let waited =
                self.shared.changed.wait_timeout_while(state, (*time).min(LONGEST_WAIT), |state| state.epoch == epoch);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(state);
        match &fault {
            Fault::Errno(number) => return Err(Errno::from_raw(*number)),
            Fault::Replay(evidence) => return Ok(evidence.clone()),
            Fault::Stuck(_) => return Err(Errno::ETIMEDOUT),
            Fault::WrongReportData => report_data.iter_mut().take(1).for_each(|byte| *byte ^= 0xff),
            _ => {}
        }
        let mut evidence = machine.evidence(&report_data, privlevel).map_err(|_| Errno::EIO)?;
        match &fault {
            Fault::EmptyQuote => evidence.outblob.clear(),
            Fault::FlipSignature => {
                let signature = evidence.outblob.iter_mut().skip(machine.signature_offset());
                signature.take(1).for_each(|byte| *byte ^= 0xff);
            }
            Fault::ShortQuote => evidence.outblob.truncate(evidence.outblob.len() / 2),
            Fault::TrailingBytes => evidence.outblob.extend([0xa5; 16]),
            _ => {}
        }
        Ok(evidence)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A test that panicked while steering must not take the serving thread with it.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn remember(&mut self, inblob: &[u8], privlevel: u32) {
        self.count += 1;
        self.seen.push_back(Request { inblob: inblob.to_vec(), privlevel });
        if self.seen.len() > REMEMBERED {
            self.seen.pop_front();
        }
    }
}
