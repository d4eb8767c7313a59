//! The real binary: its lines, its exit codes, its signals, and what it does when descriptors or readers are missing.

mod world;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use inwit_shim::Upstream;
use world::{Authority, PATIENCE, Place, echoes, guest};

/// A started `inwit-shim`, killed when the test forgets it.
struct Program {
    process: Child,
    output: BufReader<ChildStdout>,
    path: PathBuf,
}

impl Program {
    /// Starts the binary through `shell`, a line of sh in which `"$@"` stands for the program and its arguments, and
    /// waits until it is ready; a trouble that it foresees may be told before.
    fn start_through(shell: &str, place: &Place, to: &Upstream, extra: &[&str]) -> (Self, String) {
        let path = place.path("guest.sock");
        let mut command = Command::new("sh");
        command.args(["-c", shell, "sh", env!("CARGO_BIN_EXE_inwit-shim")]);
        command.arg("--listen").arg(format!("unix:{}", path.display())).arg("--to").arg(to.to_string()).args(extra);
        let mut process =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
        let output = BufReader::new(process.stdout.take().unwrap());
        let mut program = Self { process, output, path };
        let ready = loop {
            match program.line() {
                line if line.contains(r#""event":"trouble""#) => {}
                line => break line,
            }
        };
        (program, ready)
    }

    fn start(place: &Place, to: &Upstream, extra: &[&str]) -> (Self, String) {
        Self::start_through("exec \"$@\"", place, to, extra)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("the output is text");
        line.trim_end().to_owned()
    }

    fn guest(&self) -> UnixStream {
        guest(&self.path)
    }

    fn signal(&self, name: &str) {
        assert!(Command::new("kill").args(["-s", name, &self.process.id().to_string()]).status().unwrap().success());
    }

    /// Waits for the exit and returns the status and the rest of both outputs.
    fn exit(mut self) -> (ExitStatus, String, String) {
        let deadline = Instant::now() + PATIENCE;
        while self.process.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "the program does not end");
            thread::sleep(Duration::from_millis(10));
        }
        let (mut said, mut complained) = (String::new(), String::new());
        self.output.read_to_string(&mut said).unwrap();
        self.process.stderr.take().unwrap().read_to_string(&mut complained).unwrap();
        (self.process.wait().unwrap(), said, complained)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_inwit-shim")).args(arguments).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_term_signal_drains_and_ends_well() {
    let (place, to) = (Place::new(), Authority::echoing());
    let (program, ready) = Program::start(&place, &to, &["--drain-seconds", "600"]);
    assert_eq!(ready, format!("inwit-shim: relaying unix:{} → {to}", program.path.display()));
    let guest = program.guest();
    assert!(echoes(&guest, 1));
    program.signal("TERM");
    while program.path.exists() {
        thread::sleep(Duration::from_millis(5));
    }
    assert!(UnixStream::connect(&program.path).is_err());
    assert!(echoes(&guest, 2), "an open connection may finish");
    drop(guest);
    let (status, said, _) = program.exit();
    assert!(status.success());
    assert_eq!(said, "inwit-shim: stopped: 1 connections, 0 refused, 0 unreachable, 2000 bytes up, 2000 down\n");
}

#[test]
fn the_drain_ends_and_a_second_signal_ends_it_sooner() {
    for (drain, signals) in [("1", &["INT"][..]), ("600", &["TERM", "INT"]), ("0", &["TERM"])] {
        let place = Place::new();
        let (program, _) = Program::start(&place, &Authority::echoing(), &["--drain-seconds", drain]);
        let mut guest = program.guest();
        assert!(echoes(&guest, 1));
        for signal in signals {
            program.signal(signal);
            // Two different signals that arrive together have no order; the relay counts them all the same.
            thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(guest.read(&mut [0]).unwrap(), 0);
        assert!(program.exit().0.success());
    }
}

#[test]
fn json_tells_the_life_of_a_connection() {
    let (place, to) = (Place::new(), Authority::echoing());
    let (mut program, ready) = Program::start(&place, &to, &["--json", "--max-connections", "1"]);
    let path = program.path.display().to_string();
    assert_eq!(ready, format!(r#"{{"event":"ready","listen":"unix:{path}","to":"{to}"}}"#));
    let first = program.guest();
    assert!(echoes(&first, 1));
    assert_eq!(program.line(), r#"{"event":"opened","connection":1}"#);
    let _second = program.guest();
    assert_eq!(program.line(), r#"{"event":"refused","refused":1}"#);
    drop(first);
    assert_eq!(
        program.line(),
        r#"{"event":"closed","connection":1,"bytes_up":1000,"bytes_down":1000,"reason":"ended"}"#
    );
    program.signal("TERM");
    let (status, said, complained) = program.exit();
    assert!(status.success());
    let totals = r#"{"opened":1,"refused":1,"unreachable":0,"bytes_up":1000,"bytes_down":1000}"#;
    assert_eq!(said, format!("{{\"event\":\"stopped\",\"totals\":{totals}}}\n"));
    assert_eq!(complained, "");
}

#[test]
fn wrong_usage_refusal_and_fault_have_codes_of_their_own() {
    let place = Place::new();
    fs::write(place.path("file"), "").unwrap();
    let occupied = format!("unix:{}", place.path("file").display());
    let missing = format!("unix:{}", place.path("no/such/folder").display());
    for (arguments, code, hint) in [
        (&["--listen", "tcp:1.2.3.4:5", "--to", "tcp:h:1"][..], 2, "vsock:, unix:, virtio:"),
        (&["--listen", "vsock:7", "--to", "tcp:h:0"], 2, "1 to 65535"),
        (&["--listen", "vsock:7"], 2, "--to"),
        (&["--listen", "vsock:7", "--to", "tcp:h:1", "--max-connections", "0"], 2, "--max-connections"),
        (&["--listen", &occupied, "--to", "tcp:h:1"], 3, "not a socket"),
        (&["--listen", &missing, "--to", "tcp:h:1"], 1, "no/such/folder"),
    ] {
        let (status, complaint) = run(arguments);
        assert_eq!(status, Some(code), "{arguments:?}: {complaint}");
        assert!(complaint.contains(hint), "{arguments:?}: {complaint}");
    }
}

#[test]
fn without_descriptors_it_waits_and_goes_on() {
    let place = Place::new();
    let (program, _) = Program::start_through("ulimit -n 40; exec \"$@\"", &place, &Authority::echoing(), &["--json"]);
    let crowd: Vec<_> = (0..60).map(|_| program.guest()).collect();
    thread::sleep(Duration::from_secs(2));
    drop(crowd);
    let survivor = program.guest();
    assert!(echoes(&survivor, 1));
    drop(survivor);
    program.signal("TERM");
    let (status, said, _) = program.exit();
    assert!(status.success());
    let hindered = said.lines().filter(|line| line.contains("trouble") && line.contains("Too many open")).count();
    assert!(hindered > 0, "the cause was told: {said}");
    assert!(hindered < 40, "it tried {hindered} times in two seconds: that is spinning");
}

#[test]
fn a_reader_that_stops_reading_does_not_stop_the_relay() {
    let place = Place::new();
    let (program, _) = Program::start(&place, &Authority::echoing(), &["--json"]);
    // More lines than the pipe and the queue hold together.
    for _ in 0..3000 {
        drop(program.guest());
    }
    // On a busy machine the last of them may still hold all places, and then a guest is turned away.
    let served = (0..300).any(|_| {
        let served = echoes(&program.guest(), 1);
        thread::sleep(Duration::from_millis(if served { 0 } else { 100 }));
        served
    });
    assert!(served, "nobody was served in half a minute");
    program.signal("TERM");
    let (status, said, _) = program.exit();
    assert!(status.success());
    assert!(said.lines().count() > 500, "what fitted was written");
}

#[test]
fn a_closed_output_does_not_end_the_relay() {
    let place = Place::new();
    let (mut program, _) = Program::start(&place, &Authority::echoing(), &["--json"]);
    program.output = {
        // Replaces the only reader by one of another process that has ended.
        let mut ended = Command::new("true").stdout(Stdio::piped()).spawn().unwrap();
        ended.wait().unwrap();
        BufReader::new(ended.stdout.take().unwrap())
    };
    for seed in 0..5 {
        assert!(echoes(&program.guest(), seed));
    }
    program.guest().write_all(b"still there").unwrap();
    program.signal("TERM");
    assert!(program.exit().0.success());
}
