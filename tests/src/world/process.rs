//! Long-lived programs beside a test: started so that they cannot outlive it, ended by their own pid.
//! Does not trust destructors to run: a test may be killed, and then the kernel ends its children.
//! Never signals a process that it did not start, and never one whose status was already collected.

use std::{
    ffi::OsString,
    fs::File,
    io,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, OnceLock, mpsc},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{Result, command::find_program, error::WorldError};

/// A program asked to end gets this long before it is ended.
const GRACE: Duration = Duration::from_secs(2);

/// A command wrapped so that the kernel kills it when the thread that started it ends.
/// That thread must therefore live as long as this process: see [`spawn`].
pub(crate) fn bound_command(program: &Path, arguments: &[OsString]) -> Command {
    let mut command = match find_program("setpriv") {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "KILL", "--"]).arg(program);
            command
        }
        None => Command::new(program),
    };
    command.args(arguments).stdin(Stdio::null());
    command
}

type Order = (Command, mpsc::SyncSender<io::Result<Child>>);

/// Starts a command on a thread that never ends: a death signal is bound to the starting thread, and test threads end.
pub(crate) fn spawn(command: Command) -> io::Result<Child> {
    static ORDERS: OnceLock<Mutex<mpsc::Sender<Order>>> = OnceLock::new();
    let orders = ORDERS.get_or_init(|| {
        let (sender, receiver) = mpsc::channel::<Order>();
        thread::spawn(move || {
            for (mut command, reply) in receiver {
                // The asker waits for this reply; if it is gone, the child is dropped and left to its death signal.
                let _ = reply.send(command.spawn());
            }
        });
        Mutex::new(sender)
    });
    let gone = || io::Error::other("the starting thread ended");
    let (reply, answer) = mpsc::sync_channel(1);
    orders.lock().map_err(|_| gone())?.send((command, reply)).map_err(|_| gone())?;
    answer.recv().map_err(|_| gone())?
}

/// A program that serves a socket for the length of a test. Ended when dropped.
#[derive(Debug)]
pub(crate) struct Service {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Service {
    /// Starts it, with its words going to a file, and waits until its socket is there.
    pub(crate) fn start(program: &Path, arguments: &[OsString], log: PathBuf, socket: &Path) -> Result<Service> {
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        check_socket_path(socket)?;
        if socket.exists() {
            std::fs::remove_file(socket).map_err(WorldError::file("remove the old socket", socket))?;
        }
        let words = File::create(&log).map_err(WorldError::file("make", &log))?;
        let same_words = words.try_clone().map_err(WorldError::file("write", &log))?;
        let mut command = bound_command(program, arguments);
        command.stdout(words).stderr(same_words);
        let child = spawn(command).map_err(|source| WorldError::Start { command: name.clone(), source })?;
        let mut service = Service { child, name, log };
        service.wait_for(socket, Duration::from_secs(20))?;
        Ok(service)
    }

    /// Only its appearance can be awaited: a trial connection would be taken for the one client that is served.
    fn wait_for(&mut self, socket: &Path, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        while !socket.exists() {
            let ended = self.child.try_wait().ok().flatten().map(|status| status.to_string());
            let late = (Instant::now() >= deadline).then(|| "did not open its socket in time".to_owned());
            if let Some(how) = ended.or(late) {
                let said = std::fs::read_to_string(&self.log).unwrap_or_default();
                return Err(WorldError::Failed { command: self.name.clone(), how, said: said.trim().to_owned() });
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn log(&self) -> &Path {
        &self.log
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Asks a child to end and, after a moment, ends it. Safe against reused pids: the child is still uncollected here.
pub(crate) fn end(child: &mut Child) {
    let running = |child: &mut Child| matches!(child.try_wait(), Ok(None));
    if !running(child) {
        return;
    }
    if let Ok(pid) = i32::try_from(child.id()) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
    let deadline = Instant::now() + GRACE;
    while running(child) && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(5));
    }
    if running(child) {
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// The kernel's limit for the name of a Unix socket is 107 bytes, and programs cut a longer one without a word.
pub(crate) fn check_socket_path(path: &Path) -> Result<()> {
    if path.as_os_str().len() <= 107 {
        return Ok(());
    }
    let what = format!("socket {}", path.display());
    Err(WorldError::unusable(
        what,
        "its name is over 107 bytes",
        "use a folder with a shorter name, such as a temporary one",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_alive(pid: u32) -> bool {
        kill(Pid::from_raw(pid.try_into().unwrap()), None).is_ok()
    }

    #[test]
    fn a_child_outlives_the_thread_that_asked_for_it_but_not_its_owner() {
        let child = thread::spawn(|| spawn(bound_command(Path::new("/bin/sleep"), &["60".into()]))).join();
        let child = child.unwrap().unwrap();
        thread::sleep(Duration::from_millis(50));
        let pid = child.id();
        assert!(is_alive(pid), "the death signal is bound to the starting thread, which lives on");
        drop(Service { child, name: "sleep".into(), log: PathBuf::new() });
        assert!(!is_alive(pid));
    }

    #[test]
    fn a_service_that_ends_at_once_is_reported_with_its_words() {
        let dir = tempfile::tempdir().unwrap();
        let (log, socket) = (dir.path().join("log"), dir.path().join("socket"));
        let error = Service::start(Path::new("/bin/ls"), &["/no/such/place".into()], log, &socket).unwrap_err();
        assert!(error.to_string().contains("/no/such/place"), "{error}");
    }

    #[test]
    fn a_socket_name_that_would_be_cut_is_refused() {
        assert!(check_socket_path(&Path::new("/tmp").join("x".repeat(103))).is_err());
        assert!(check_socket_path(&Path::new("/tmp").join("x".repeat(102))).is_ok());
    }
}
