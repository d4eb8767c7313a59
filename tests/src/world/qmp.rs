//! Listens to QEMU's machine protocol for one thing: why the machine stopped.
//! QEMU's exit status cannot tell a power-off from a crashed guest, and a test must.
//! Does not trust the stream to be short or well formed; never sends a command that changes the machine.
//! Source: QEMU Machine Protocol specification, event SHUTDOWN with `data.reason`.

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    thread::{self, JoinHandle},
};

use super::{Result, error::WorldError};

const STREAM_LIMIT: u64 = 4 << 20;

/// A socket that QEMU connects to, and the thread behind it.
pub(crate) struct Reasons {
    thread: JoinHandle<Option<String>>,
}

impl Reasons {
    /// Must be listening before QEMU starts.
    pub(crate) fn listen(socket: &Path) -> Result<Reasons> {
        let listener = UnixListener::bind(socket).map_err(WorldError::file("listen on", socket))?;
        Ok(Reasons { thread: thread::spawn(move || read_reason(&listener.accept().ok()?.0)) })
    }

    /// The reason of the last stop, for example `guest-shutdown`. To be called once QEMU has ended.
    pub(crate) fn last(self, socket: &Path) -> Option<String> {
        // If QEMU ended before it connected, this wakes the thread up; otherwise nobody takes the connection.
        drop(UnixStream::connect(socket));
        self.thread.join().ok().flatten()
    }
}

fn read_reason(mut stream: &UnixStream) -> Option<String> {
    // Events come only after this word.
    stream.write_all(b"{\"execute\":\"qmp_capabilities\"}\n").ok()?;
    last_reason(BufReader::new(stream.take(STREAM_LIMIT)))
}

fn last_reason(mut lines: impl BufRead) -> Option<String> {
    let mut reason = None;
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
        if let Ok(message) = serde_json::from_slice::<serde_json::Value>(&line)
            && message.get("event").is_some_and(|event| event == "SHUTDOWN")
        {
            reason = message.pointer("/data/reason").and_then(|reason| reason.as_str()).map(str::to_owned);
        }
        line.clear();
    }
    reason
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_reason_counts_and_noise_does_not() {
        let stream = b"{\"QMP\": {}}\r\n{\"return\": {}}\r\nnot json\n{\"event\": \"RESUME\"}\n\
            {\"timestamp\": {\"seconds\": 1}, \"event\": \"SHUTDOWN\", \"data\": {\"guest\": true, \"reason\": \"guest-reset\"}}\n\
            {\"event\": \"SHUTDOWN\", \"data\": {\"guest\": true, \"reason\": \"guest-shutdown\"}}\n{\"event\": \"SHU";
        assert_eq!(last_reason(&stream[..]).as_deref(), Some("guest-shutdown"));
        assert_eq!(last_reason(&b"{\"event\":\"SHUTDOWN\"}\n"[..]), None);
    }

    #[test]
    fn a_machine_that_never_connected_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("qmp");
        assert_eq!(Reasons::listen(&socket).unwrap().last(&socket), None);
    }
}
