//! The relay beside socat, in the same run and in turns: throughput of one stream between a unix socket and TCP on
//! loopback, either way, and resident memory per idle connection. It trusts nothing it measures: every byte that went
//! in is counted where it comes out. It asserts no time; it prints a table, and with `--json` one array of objects.
//!
//! `cargo bench -p inwit-shim [-- --json] [--mebibytes N] [--rounds N] [--connections N]`

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes that the sending side writes at once; also the receiving side's buffer is this large.
const BLOCK: usize = 256 * 1024;

/// The relays compared; the last is socat told to use a buffer as large as ours.
const RELAYS: [(&str, Kind); 3] =
    [("inwit-shim", Kind::Shim), ("socat", Kind::Socat(&[])), ("socat -b 262144", Kind::Socat(&["-b", "262144"]))];

#[derive(Clone, Copy)]
enum Kind {
    Shim,
    Socat(&'static [&'static str]),
}

struct Plan {
    mebibytes: u64,
    rounds: usize,
    connections: usize,
    json: bool,
}

/// A running relay from `path` to a TCP listener held here; ended on drop, with its forked children.
struct Running {
    process: Child,
    path: PathBuf,
    sink: TcpListener,
}

#[derive(Default)]
struct Measured {
    /// Megabytes (10^6) per second.
    up: Vec<f64>,
    down: Vec<f64>,
    /// Processor seconds of the relay per gigabyte (10^9), both ways together.
    cpu: Vec<f64>,
    /// Bytes per idle connection, by VmRSS and by PSS.
    idle: Vec<f64>,
    idle_shared: Vec<f64>,
}

fn main() -> io::Result<()> {
    let plan = Plan::from_arguments();
    let folder = std::env::temp_dir().join(format!("inwit-shim-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let outcome = compare(&plan, &folder);
    std::fs::remove_dir_all(&folder)?;
    outcome
}

fn compare(plan: &Plan, folder: &Path) -> io::Result<()> {
    let mut measured: Vec<(&str, Measured)> = RELAYS.iter().map(|(name, _)| (*name, Measured::default())).collect();
    for round in 0..plan.rounds {
        for ((name, kind), (_, results)) in RELAYS.iter().zip(&mut measured) {
            say(&format!("round {} of {}: {name}", round + 1, plan.rounds));
            let path = folder.join("guest.sock");
            let Some(relay) = Running::start(*kind, &path, plan.connections + 8)? else {
                say("  not installed, left out");
                continue;
            };
            let gigabytes = 2.0 * (plan.mebibytes << 20) as f64 / 1e9;
            let before = relay.cpu_seconds()?;
            let (guest, authority) = relay.connect()?;
            results.up.push(throughput(guest, authority, plan.mebibytes)?);
            let (guest, authority) = relay.connect()?;
            results.down.push(throughput(authority, guest, plan.mebibytes)?);
            thread::sleep(Duration::from_millis(100));
            results.cpu.push((relay.cpu_seconds()? - before) / gigabytes);
            drop(relay);
            if let Some(relay) = Running::start(*kind, &path, plan.connections + 8)? {
                let (resident, proportional) = relay.idle_memory(plan.connections)?;
                results.idle.push(resident);
                results.idle_shared.push(proportional);
            }
        }
    }
    report(plan, &measured);
    Ok(())
}

impl Plan {
    fn from_arguments() -> Self {
        let arguments: Vec<String> = std::env::args().collect();
        let number = |name: &str, default: u64| {
            let at = arguments.iter().position(|argument| argument == name);
            at.and_then(|at| arguments.get(at + 1)).map_or(default, |text| text.parse().expect("a number"))
        };
        Self {
            mebibytes: number("--mebibytes", 2048),
            rounds: number("--rounds", 3) as usize,
            connections: number("--connections", 500) as usize,
            json: arguments.iter().any(|argument| argument == "--json"),
        }
    }
}

impl Running {
    fn start(kind: Kind, path: &Path, connections: usize) -> io::Result<Option<Self>> {
        let sink = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = sink.local_addr()?.port();
        let mut command = match kind {
            Kind::Shim => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_inwit-shim"));
                command.arg("--listen").arg(format!("unix:{}", path.display()));
                command.arg("--to").arg(format!("tcp:127.0.0.1:{port}"));
                command.arg("--max-connections").arg(connections.to_string());
                command
            }
            Kind::Socat(extra) => {
                let mut command = Command::new("socat");
                command.args(extra).arg(format!("UNIX-LISTEN:{},fork,unlink-early,backlog=1024", path.display()));
                command.arg(format!("TCP:127.0.0.1:{port},nodelay"));
                command
            }
        };
        let process = match command.stdin(Stdio::null()).stdout(Stdio::null()).spawn() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            started => started?,
        };
        let running = Self { process, path: path.to_owned(), sink };
        // One connection there and back: the relay is up, and what it sets up once is not counted as per connection.
        drop(running.connect_and_speak()?);
        thread::sleep(Duration::from_millis(300));
        Ok(Some(running))
    }

    fn connect(&self) -> io::Result<(UnixStream, TcpStream)> {
        let deadline = Instant::now() + Duration::from_secs(10);
        let guest = loop {
            match UnixStream::connect(&self.path) {
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => thread::sleep(Duration::from_millis(10)),
                Ok(stream) => break stream,
            }
        };
        Ok((guest, self.sink.accept()?.0))
    }

    /// A connection over which a byte went each way, so that whatever is set up lazily is.
    fn connect_and_speak(&self) -> io::Result<(UnixStream, TcpStream)> {
        let (mut guest, mut authority) = self.connect()?;
        guest.write_all(b"?")?;
        authority.read_exact(&mut [0])?;
        authority.write_all(b"!")?;
        guest.read_exact(&mut [0])?;
        Ok((guest, authority))
    }

    /// Growth of resident memory, bytes per idle connection, over all processes of the relay: VmRSS, and the
    /// proportional set size, which does not count a page again for every forked process that shares it.
    fn idle_memory(&self, connections: usize) -> io::Result<(f64, f64)> {
        let before = (self.sum_of("status", "VmRSS:")?, self.sum_of("smaps_rollup", "Pss:")?);
        let open: Vec<_> = (0..connections).map(|_| self.connect_and_speak()).collect::<io::Result<_>>()?;
        thread::sleep(Duration::from_millis(500));
        let after = (self.sum_of("status", "VmRSS:")?, self.sum_of("smaps_rollup", "Pss:")?);
        drop(open);
        let each = |after: f64, before: f64| (after - before) / connections as f64;
        Ok((each(after.0, before.0), each(after.1, before.1)))
    }

    /// Sum of a line in KiB of a file in /proc/PID over the relay and its children, in bytes (proc(5)).
    fn sum_of(&self, file: &str, label: &str) -> io::Result<f64> {
        let mut sum = 0.0;
        for process in self.processes()? {
            let text = std::fs::read_to_string(format!("/proc/{process}/{file}")).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix(label)).unwrap_or("0 kB");
            sum += line.trim().trim_end_matches(" kB").parse().unwrap_or(0.0) * 1024.0;
        }
        Ok(sum)
    }

    /// User and system time of the relay and its living children, seconds; clock ticks are 1/100 s on Linux.
    fn cpu_seconds(&self) -> io::Result<f64> {
        let mut ticks = 0.0;
        for process in self.processes()? {
            let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
            let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
            // utime, stime, cutime, cstime are fields 14 to 17; the state after the name is field 3.
            ticks += after_name.split(' ').skip(11).take(4).filter_map(|field| field.parse::<f64>().ok()).sum::<f64>();
        }
        Ok(ticks / 100.0)
    }

    fn processes(&self) -> io::Result<Vec<u32>> {
        let own = self.process.id();
        let children = std::fs::read_to_string(format!("/proc/{own}/task/{own}/children"))?;
        Ok(std::iter::once(own).chain(children.split_whitespace().filter_map(|child| child.parse().ok())).collect())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // socat's children end by themselves when their sockets close, which they did when the streams were dropped.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A stream socket of either family.
trait End: Read + Write + Send + 'static {
    fn end_writing(&self) -> io::Result<()>;
}

impl End for UnixStream {
    fn end_writing(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

impl End for TcpStream {
    fn end_writing(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

/// Megabytes per second from the first byte written until the reader has seen the end.
fn throughput(mut from: impl End, mut to: impl End, mebibytes: u64) -> io::Result<f64> {
    let wanted = mebibytes << 20;
    let started = Instant::now();
    let writer = thread::spawn(move || -> io::Result<()> {
        let block = vec![0x5a; BLOCK];
        let mut left = wanted;
        while left > 0 {
            let part = left.min(BLOCK as u64) as usize;
            from.write_all(&block[..part])?;
            left -= part as u64;
        }
        from.end_writing()
    });
    let (mut block, mut seen) = (vec![0; BLOCK], 0);
    loop {
        match to.read(&mut block)? {
            0 => break,
            count => seen += count as u64,
        }
    }
    let took = started.elapsed();
    writer.join().expect("the writer ran to its end")?;
    assert_eq!(seen, wanted, "the relay lost or invented bytes");
    Ok(wanted as f64 / 1e6 / took.as_secs_f64())
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

fn report(plan: &Plan, measured: &[(&str, Measured)]) {
    let socat = measured.iter().find(|(name, _)| *name == "socat").map(|(_, results)| results);
    let Plan { mebibytes, connections, rounds, .. } = plan;
    say(&format!(
        "{mebibytes} MiB per stream, {connections} idle connections, median of {rounds} rounds (x: to socat's)"
    ));
    say(&format!(
        "{:<18}{:>17}{:>17}{:>18}{:>18}{:>16}",
        "", "up MB/s", "down MB/s", "CPU s/GB", "idle KiB RSS", "idle KiB PSS"
    ));
    let mut objects = Vec::new();
    for (name, results) in measured {
        let column = |pick: fn(&Measured) -> &Vec<f64>, digits: usize, unit: f64| {
            let value = median(pick(results)).unwrap_or(f64::NAN);
            let base = socat.and_then(|results| median(pick(results))).unwrap_or(f64::NAN);
            (value, format!("{:.digits$} ({:.2}x)", value / unit, value / base))
        };
        if results.up.is_empty() {
            continue;
        }
        let (up, up_text) = column(|results| &results.up, 0, 1.0);
        let (down, down_text) = column(|results| &results.down, 0, 1.0);
        let (cpu, cpu_text) = column(|results| &results.cpu, 3, 1.0);
        let (idle, idle_text) = column(|results| &results.idle, 2, 1024.0);
        let (shared, shared_text) = column(|results| &results.idle_shared, 2, 1024.0);
        say(&format!("{name:<18}{up_text:>17}{down_text:>17}{cpu_text:>18}{idle_text:>18}{shared_text:>16}"));
        objects.push(format!(
            r#"{{"relay":"{name}","up_megabytes_per_second":{up:.1},"down_megabytes_per_second":{down:.1},"cpu_seconds_per_gigabyte":{cpu:.4},"idle_resident_bytes_per_connection":{idle:.0},"idle_proportional_bytes_per_connection":{shared:.0}}}"#
        ));
    }
    if plan.json {
        let _ = writeln!(io::stdout(), "[{}]", objects.join(","));
    }
}

fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
