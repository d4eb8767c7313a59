//! vsock without kernel support on the host: a user-space backend that joins a guest's vsock to Unix sockets.
//! One backend process per virtual machine, so that one guest's end or fault does not reach another.
//! Never assumes the backend installed: it is built once from its crate, which takes minutes, into `target/tools`.
//! Guest writes over 32,000 bytes hang in this backend; whoever sends keeps to 16 KiB.

use std::{
    ffi::OsString,
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    Progress, Result, World,
    cache::Cache,
    command::Call,
    error::WorldError,
    process::{self, Service},
};

/// The backend's crate and program.
pub const CRATE: &str = "vhost-device-vsock";
/// The version that was tested; its traps are written above.
pub const VERSION: &str = "0.3.0";

const BUILD_LIMIT: Duration = Duration::from_secs(1800);
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// The installed backend, if it is there.
pub fn installed(world: &World) -> Option<PathBuf> {
    Some(world.tools().join("bin").join(CRATE)).filter(|program| program.is_file())
}

/// Builds and installs the backend if it is not there.
///
/// # Errors
/// No network, or it does not build; with cargo's last words.
pub fn prepare(world: &World, progress: &Progress) -> Result<PathBuf> {
    if let Some(program) = installed(world) {
        return Ok(program);
    }
    let cache = Cache::at(world.root().join("vsock"));
    let _alone = cache.lock(progress)?;
    if let Some(program) = installed(world) {
        return Ok(program);
    }
    progress.line(&format!("building {CRATE} {VERSION}: two to four minutes, once"));
    let build = world.root().join("vsock").join("build");
    let cargo = std::env::var_os("CARGO").map(PathBuf::from).filter(|cargo| cargo.is_file());
    let call = cargo.map_or_else(|| Call::to("cargo"), |cargo| Ok(Call::at(cargo)))?;
    let call = call.args(["install", "--locked", "--version", VERSION, "--root"]).arg(world.tools()).arg(CRATE);
    // A folder of its own, so that an interrupted build goes on where it was and this workspace's builds do not wait.
    let call = call.set("CARGO_TARGET_DIR", &build).unset("RUSTFLAGS").unset("CARGO_BUILD_TARGET");
    call.within(world.repository()).limit(BUILD_LIMIT).run_retrying(2, |line| progress.note(line.trim()))?;
    let program = installed(world).ok_or_else(|| {
        let next = format!("look into {}", world.tools().display());
        WorldError::unusable(CRATE, "cargo installed it, but the program is not there", next)
    })?;
    fs::remove_dir_all(&build).map_err(WorldError::file("remove", &build))?;
    Ok(program)
}

/// A backend at work for one virtual machine. Ended when dropped.
#[derive(Debug)]
pub struct Vsock {
    service: Service,
    cid: u32,
    backend: PathBuf,
    host: PathBuf,
}

impl Vsock {
    /// Starts a backend with its sockets in the folder. `cid` is the guest's address, 3 or higher.
    ///
    /// # Errors
    /// Not prepared yet, a reserved CID, a folder whose name is too long, or the backend's words.
    pub fn start(world: &World, dir: &Path, cid: u32) -> Result<Vsock> {
        if cid < 3 {
            return Err(WorldError::unusable(format!("CID {cid}"), "0 to 2 are reserved", "choose 3 or higher"));
        }
        let program =
            installed(world).ok_or_else(|| WorldError::unusable(CRATE, "not installed", "run inwit-setup"))?;
        let (backend, host) = (dir.join("vhost.sock"), dir.join("vm.vsock"));
        // Guest connections go to sockets with the port's number appended.
        process::check_socket_path(&dir.join("vm.vsock_4294967295"))?;
        let mut machine = OsString::from(format!("guest-cid={cid},socket="));
        machine.push(&backend);
        machine.push(",uds-path=");
        machine.push(&host);
        let arguments = ["--vm".into(), machine];
        let service = Service::start(&program, &arguments, dir.join("vsock.log"), &backend)?;
        Ok(Vsock { service, cid, backend, host })
    }

    /// The guest's address.
    pub fn cid(&self) -> u32 {
        self.cid
    }

    /// For [`Boot::vsock`](super::qemu::Boot::vsock).
    pub fn backend(&self) -> &Path {
        &self.backend
    }

    /// Where to listen for the guest's connections to CID 2, this port.
    pub fn listener_path(&self, port: u32) -> PathBuf {
        let mut path = self.host.clone().into_os_string();
        path.push(format!("_{port}"));
        path.into()
    }

    /// Connects to a port that the guest listens on.
    ///
    /// # Errors
    /// The guest is not up, does not listen, or does not answer within ten seconds.
    pub fn connect(&self, port: u32) -> Result<UnixStream> {
        let failed =
            |cause: String| WorldError::unusable(format!("guest port {port}"), cause, "see the guest's console");
        let io = |error: std::io::Error| failed(error.to_string());
        let mut stream = UnixStream::connect(&self.host).map_err(io)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT)).map_err(io)?;
        stream.write_all(format!("CONNECT {port}\n").as_bytes()).map_err(io)?;
        // Byte by byte, so that nothing of the stream behind the answer is taken.
        let mut answer = String::new();
        let one_byte = BufReader::with_capacity(1, stream.try_clone().map_err(io)?);
        std::io::Read::take(one_byte, 64).read_line(&mut answer).map_err(io)?;
        if !answer.starts_with("OK ") {
            return Err(failed(format!("answered {answer:?} instead of OK")));
        }
        stream.set_read_timeout(None).map_err(io)?;
        Ok(stream)
    }

    /// The backend's process id.
    pub fn pid(&self) -> u32 {
        self.service.pid()
    }

    /// The backend's words.
    pub fn log(&self) -> &Path {
        self.service.log()
    }
}

#[cfg(test)]
mod tests {
    use super::super::setup::{Step, ready_or_told};
    use super::*;

    #[test]
    fn a_backend_opens_its_socket_and_ends_with_its_owner() {
        let world = World::here();
        if !ready_or_told(&world, "vsock backend", &[Step::Vsock]).unwrap() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let vsock = Vsock::start(&world, dir.path(), 7).unwrap();
        assert!(vsock.backend().exists() && vsock.connect(1).is_err(), "no guest, no connection");
        assert!(vsock.listener_path(1234).to_str().unwrap().ends_with("vm.vsock_1234"));
        let pid = vsock.pid();
        drop(vsock);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn reserved_addresses_are_refused() {
        assert!(Vsock::start(&World::here(), Path::new("/tmp"), 2).is_err());
    }
}
