//! `inwit-shim`: the command line around the relay library. It reads arguments, turns signals into phases and events
//! into lines; it trusts its operator and nobody else, and never looks at a relayed byte.

mod lines;

use std::num::{NonZeroU32, NonZeroU64};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use inwit_shim::{BindError, Event, Limits, Listen, Phase, Relay, Route, Totals, Upstream, Watcher, allow_descriptors};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::lines::{Form, Lines};

/// Relays a guest's connections to one address of the authority side.
///
/// It copies bytes and understands none of them: security lies in the TLS session that passes through. Everything that
/// arrives at --listen goes to --to and nowhere else.
#[derive(Debug, Parser)]
#[command(name = "inwit-shim", version, after_help = AFTER_HELP)]
struct Arguments {
    /// Where guests arrive: vsock:PORT, unix:PATH or virtio:PATH.
    ///
    /// vsock:PORT takes guests of any CID on this host. unix:PATH makes a socket of mode 0600; a vhost-user vsock
    /// backend lands guests that dial host port P on <uds>_P. virtio:PATH dials the unix socket of a virtio-serial
    /// port (QEMU: -chardev socket,path=PATH,server=on,wait=off), again and again, for one stream at a time.
    #[arg(long, value_name = "ADDRESS")]
    listen: Listen,
    /// Where their bytes go: tcp:HOST:PORT or unix:PATH.
    #[arg(long, value_name = "ADDRESS")]
    to: Upstream,
    /// Most connections at a time; one more is closed at once.
    #[arg(long, value_name = "N", default_value = "1024")]
    max_connections: NonZeroU32,
    /// Close a connection in which no byte moved for N seconds; 0 for never.
    #[arg(long, value_name = "N", default_value_t = 300)]
    idle_seconds: u64,
    /// Bytes per second of one connection, both directions together [default: no limit].
    #[arg(long, value_name = "BYTES_PER_SECOND")]
    bandwidth: Option<NonZeroU64>,
    /// Give up reaching the authority side after N seconds.
    #[arg(long, value_name = "N", default_value = "5")]
    connect_seconds: NonZeroU32,
    /// After the first SIGTERM or SIGINT let open connections end by themselves for N seconds.
    #[arg(long, value_name = "N", default_value_t = 10)]
    drain_seconds: u64,
    /// Most pipes, and most buffers, of 256 KiB each for bytes in flight; beyond them 16 KiB are used.
    #[arg(long, value_name = "N", default_value_t = 64)]
    lanes: u16,
    /// Print one JSON object per event on standard output: ready, opened, closed, refused, trouble, lost, stopped.
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
A first SIGTERM or SIGINT stops taking guests and drains, a second one closes everything at once.

Exit codes: 0 stopped as asked, 1 own fault (the cause is printed), 2 wrong usage,
3 refused (the path is in use or is not a socket).

Examples:
  inwit-shim --listen vsock:7443 --to tcp:authority.example:7443
  inwit-shim --listen unix:/run/vm1.vsock_7443 --to tcp:[2001:db8::7]:7443 --max-connections 64
  inwit-shim --listen virtio:/run/vm1.port --to unix:/run/authority.sock --json";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let form = if arguments.json { Form::Json } else { Form::Text };
    let (lines, written) = Lines::start(form);
    let watcher: Watcher = Arc::new(move |event| lines.tell(event));
    let outcome = serve(&arguments, watcher);
    // The watcher is gone with the relay, so the writing thread ends when its queue is empty.
    written.wait();
    match outcome {
        Ok(_totals) => ExitCode::SUCCESS,
        Err(fault) => {
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "inwit-shim: {fault}");
            fault.exit_code()
        }
    }
}

/// What keeps the program from running.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error("cannot start the runtime or watch signals: {0}")]
    Runtime(#[from] std::io::Error),
}

impl Fault {
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Bind(BindError::InUse(_) | BindError::NotASocket(_)) => ExitCode::from(3),
            Self::Bind(_) | Self::Runtime(_) => ExitCode::from(1),
        }
    }
}

fn serve(arguments: &Arguments, watcher: Watcher) -> Result<Totals, Fault> {
    let limits = arguments.limits();
    warn_of_scarcity(arguments, &limits, &watcher);
    // Other threads only resolve names; a slow resolver cannot grow more of them than this.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(8).build()?;
    let totals = runtime.block_on(async {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let route = Route { listen: arguments.listen.clone(), to: arguments.to.clone() };
        let relay = Relay::bind(route, limits, watcher)?;
        let (stop, seen) = watch::channel(Phase::Relaying);
        let mut running = std::pin::pin!(relay.run(seen));
        loop {
            tokio::select! {
                totals = &mut running => return Ok::<_, Fault>(totals),
                _ = terminate.recv() => advance(&stop),
                _ = interrupt.recv() => advance(&stop),
            }
        }
    });
    // A resolver thread may hang in getaddrinfo; nobody waits for its answer any more.
    runtime.shutdown_background();
    totals
}

fn advance(stop: &watch::Sender<Phase>) {
    stop.send_modify(|phase| {
        *phase = match phase {
            Phase::Relaying => Phase::Draining,
            Phase::Draining | Phase::Closing => Phase::Closing,
        }
    });
}

/// Says at the start what would otherwise be found out late and elsewhere.
fn warn_of_scarcity(arguments: &Arguments, limits: &Limits, watcher: &Watcher) {
    let needed = limits.descriptors();
    match allow_descriptors(needed) {
        Ok(allowed) if allowed < needed => {
            let what =
                "fewer open files are allowed than --max-connections may need, raise the hard limit (ulimit -Hn)";
            watcher(&Event::Trouble { what, cause: format_args!("{allowed} of {needed}") });
        }
        Ok(_) => {}
        Err(error) => {
            let what = "cannot learn or raise the limit of open files";
            watcher(&Event::Trouble { what, cause: format_args!("{error}") });
        }
    }
    if matches!(arguments.listen, Listen::Vsock(_)) && !Path::new("/dev/vhost-vsock").exists() {
        let what = "guests on KVM cannot arrive (with a vhost-user backend: --listen unix:<uds>_PORT)";
        watcher(&Event::Trouble { what, cause: format_args!("there is no /dev/vhost-vsock") });
    }
}

impl Arguments {
    fn limits(&self) -> Limits {
        Limits {
            connections: usize::try_from(self.max_connections.get()).unwrap_or(usize::MAX),
            idle: (self.idle_seconds > 0).then(|| Duration::from_secs(self.idle_seconds)),
            bandwidth: self.bandwidth,
            connect: Duration::from_secs(u64::from(self.connect_seconds.get())),
            drain: Duration::from_secs(self.drain_seconds),
            lanes: usize::from(self.lanes),
        }
    }
}
