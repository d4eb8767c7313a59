//! Calls to short-lived programs: found first, given a time limit, their words kept for the error.
//! Does not trust that a program ends or that its output is small. Never goes through a shell.

use std::{
    ffi::{OsStr, OsString},
    io::{self, BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::{Result, error::WorldError};

/// More output than this from one call is a fault, not data: the largest honest one is a decompressed kernel module.
const OUTPUT_LIMIT: u64 = 128 << 20;
/// How many of a failing program's last lines go into the error.
const TOLD_LINES: usize = 6;
const DEFAULT_LIMIT: Duration = Duration::from_secs(60);

/// Where a program is: PATH first, then the folders that a user who is not root often lacks on PATH.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(system).map(|dir| dir.join(name)).find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// One call, built up and then run; it can be run several times, which is what retries do.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    program: PathBuf,
    arguments: Vec<OsString>,
    set: Vec<(OsString, OsString)>,
    unset: Vec<OsString>,
    folder: Option<PathBuf>,
    input: Vec<u8>,
    limit: Duration,
}

impl Call {
    /// A call to a program on this machine, or the error that it is missing.
    pub(crate) fn to(program: &str) -> Result<Call> {
        let found = find_program(program).ok_or_else(|| WorldError::NoProgram { program: program.into() })?;
        Ok(Call::at(found))
    }

    /// A call to a program file.
    pub(crate) fn at(program: PathBuf) -> Call {
        let (arguments, set, unset) = (Vec::new(), Vec::new(), Vec::new());
        Call { program, arguments, set, unset, folder: None, input: Vec::new(), limit: DEFAULT_LIMIT }
    }

    pub(crate) fn arg(mut self, argument: impl AsRef<OsStr>) -> Call {
        self.arguments.push(argument.as_ref().into());
        self
    }

    pub(crate) fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Call {
        self.arguments.extend(arguments.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    pub(crate) fn set(mut self, name: &str, value: impl AsRef<OsStr>) -> Call {
        self.set.push((name.into(), value.as_ref().into()));
        self
    }

    pub(crate) fn unset(mut self, name: &str) -> Call {
        self.unset.push(name.into());
        self
    }

    pub(crate) fn within(mut self, folder: impl Into<PathBuf>) -> Call {
        self.folder = Some(folder.into());
        self
    }

    /// A few bytes for standard input; without them it is empty.
    pub(crate) fn input(mut self, bytes: &[u8]) -> Call {
        self.input = bytes.to_vec();
        self
    }

    pub(crate) fn limit(mut self, limit: Duration) -> Call {
        self.limit = limit;
        self
    }

    /// As people would type it, without the environment.
    pub(crate) fn shown(&self) -> String {
        let name = self.program.file_name().unwrap_or(self.program.as_os_str());
        let words = std::iter::once(name).chain(self.arguments.iter().map(OsString::as_os_str));
        words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
    }

    /// Runs to the end and gives standard output; any bad ending is an error.
    pub(crate) fn run(&self) -> Result<Vec<u8>> {
        self.run_telling(|_| ())
    }

    /// The same, and standard output as text.
    pub(crate) fn text(&self) -> Result<String> {
        self.run().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The same, telling each line of standard error as it comes (progress of long programs).
    pub(crate) fn run_telling(&self, mut tell: impl FnMut(&str) + Send) -> Result<Vec<u8>> {
        let mut child = self.start()?;
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let deadline = Instant::now() + self.limit;
        thread::scope(|scope| {
            let out = scope.spawn(move || read_bounded(out));
            let err = scope.spawn(move || tell_lines(err, &mut tell));
            let status = wait_until(&mut child, deadline).map_err(|source| self.cannot_start(source))?;
            let said = err.join().unwrap_or_default();
            let Some(status) = status else {
                return Err(WorldError::Overran { command: self.shown(), limit: self.limit });
            };
            let output = out.join().unwrap_or_default();
            if !status.success() {
                let from_output = String::from_utf8_lossy(&output).into_owned();
                let said = last_lines(if said.trim().is_empty() { &from_output } else { &said });
                return Err(WorldError::Failed { command: self.shown(), how: status.to_string(), said });
            }
            Ok(output)
        })
    }

    /// Runs up to `attempts` times with a growing pause: for calls that depend on the network.
    pub(crate) fn run_retrying(&self, attempts: u32, mut tell: impl FnMut(&str) + Send) -> Result<Vec<u8>> {
        let mut attempt = 1;
        loop {
            match self.run_telling(&mut tell) {
                Err(error) if attempt < attempts => tell(&format!("try {attempt} of {attempts} failed: {error}")),
                last => return last,
            }
            thread::sleep(Duration::from_secs(u64::from(2 * attempt)));
            attempt += 1;
        }
    }

    fn start(&self) -> Result<Child> {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Programs' words are read by us: one language.
        command.env("LC_ALL", "C.UTF-8");
        command.envs(self.set.iter().map(|(name, value)| (name, value)));
        for name in &self.unset {
            command.env_remove(name);
        }
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        let mut child = command.spawn().map_err(|source| self.cannot_start(source))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that does not read its input has ended or will end: its status tells.
            let _ = stdin.write_all(&self.input);
        }
        Ok(child)
    }

    fn cannot_start(&self, source: io::Error) -> WorldError {
        WorldError::Start { command: self.shown(), source }
    }
}

/// Waits for the end, or ends the child itself at the deadline and gives `None`.
fn wait_until(child: &mut Child, deadline: Instant) -> io::Result<Option<ExitStatus>> {
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

fn read_bounded(stream: Option<impl Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        // A broken pipe leaves what came so far; the exit status tells the rest.
        let _ = stream.take(OUTPUT_LIMIT).read_to_end(&mut bytes);
    }
    bytes
}

fn tell_lines(stream: Option<impl Read>, tell: &mut impl FnMut(&str)) -> String {
    let mut said = String::new();
    let Some(stream) = stream else { return said };
    let mut reader = BufReader::new(stream.take(OUTPUT_LIMIT));
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
        let text = String::from_utf8_lossy(&line);
        tell(text.trim_end());
        said.push_str(&text);
        line.clear();
    }
    said
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let skip = lines.len().saturating_sub(TOLD_LINES);
    if lines.is_empty() { "nothing".into() } else { lines.into_iter().skip(skip).collect::<Vec<_>>().join(" | ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_comes_back_and_failure_keeps_the_last_words() {
        assert_eq!(Call::to("printf").unwrap().arg("%s").arg("two words").run().unwrap(), b"two words");
        let error = Call::to("ls").unwrap().arg("/no/such/folder").run().unwrap_err();
        assert!(error.to_string().contains("/no/such/folder"), "{error}");
    }

    #[test]
    fn a_program_that_does_not_end_is_ended() {
        let call = Call::to("sleep").unwrap().arg("600").limit(Duration::from_millis(50));
        assert!(matches!(call.run(), Err(WorldError::Overran { .. })));
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = Call::to("inwit-no-such-program").unwrap_err();
        assert!(error.to_string().contains("inwit-no-such-program"));
    }

    #[test]
    fn retries_tell_each_failure_and_keep_the_last() {
        let mut told = 0;
        assert!(Call::to("false").unwrap().run_retrying(2, |_| told += 1).is_err());
        assert_eq!(told, 1);
    }
}
