//! A virtual TPM: manufactured into a folder, then served to a virtual machine or to a process.
//! It plays the platform's TPM and its maker; its keys are made for tests and certify nothing else.
//! Never uses the machine's own TPM, and never the system's certificate authority for virtual ones.

use std::{
    ffi::OsString,
    fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    Result,
    command::{Call, find_program},
    error::WorldError,
    process::Service,
};

/// Whether the TPM comes with certificates of its maker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EkCertificate {
    /// None; faster.
    Absent,
    /// Certificates for the endorsement key, in NV memory, from an authority in the folder `ca` beside the state.
    Issued,
}

/// A running virtual TPM. Ended when dropped; its state stays in its folder.
#[derive(Debug)]
pub struct Swtpm {
    service: Service,
    socket: PathBuf,
    control: PathBuf,
}

impl Swtpm {
    /// Manufactures a TPM 2.0 with a SHA-256 bank into the folder, replacing one that is there.
    ///
    /// # Errors
    /// A program is missing or fails, with its last words.
    pub fn manufacture(dir: &Path, certificate: EkCertificate) -> Result<()> {
        fs::create_dir_all(dir).map_err(WorldError::file("make", dir))?;
        let log = dir.join("setup.log");
        let call = Call::to("swtpm_setup")?.arg("--tpm2").arg("--tpmstate").arg(dir);
        let call = call.args(["--overwrite", "--pcr-banks", "sha256", "--logfile"]).arg(&log);
        let call = match certificate {
            EkCertificate::Absent => call,
            EkCertificate::Issued => {
                let config = write_authority(dir)?;
                call.arg("--create-ek-cert").arg("--config").arg(config)
            }
        };
        // The program writes its words into the log alone.
        call.limit(Duration::from_secs(120)).run().map(drop).map_err(|error| match error {
            WorldError::Failed { command, how, said } => {
                let said = fs::read_to_string(&log).unwrap_or(said);
                WorldError::Failed { command, how, said }
            }
            other => other,
        })
    }

    /// Serves the TPM in the folder to one virtual machine. It starts up when the machine does and ends with it.
    ///
    /// # Errors
    /// swtpm is missing or does not open its socket, with its words.
    pub fn start(dir: &Path) -> Result<Swtpm> {
        Swtpm::serve_with(dir, &["--terminate"], "tpm.ctrl")
    }

    /// Serves the TPM in the folder to processes: raw TPM 2.0 commands and responses on [`Swtpm::socket`], started up
    /// already (TPM2_Startup CLEAR), so all PCRs are at their reset values. One connection at a time.
    ///
    /// # Errors
    /// swtpm is missing or does not open its socket, with its words.
    pub fn serve(dir: &Path) -> Result<Swtpm> {
        let server = format!("type=unixio,path={}", option_path(&dir.join("tpm.sock"))?);
        Swtpm::serve_with(dir, &["--server", &server, "--flags", "not-need-init,startup-clear"], "tpm.sock")
    }

    fn serve_with(dir: &Path, arguments: &[&str], awaited: &str) -> Result<Swtpm> {
        let program = find_program("swtpm").ok_or_else(|| WorldError::NoProgram { program: "swtpm".into() })?;
        let (socket, control) = (dir.join("tpm.sock"), dir.join("tpm.ctrl"));
        let state = format!("dir={}", option_path(dir)?);
        let ctrl = format!("type=unixio,path={}", option_path(&control)?);
        let fixed = ["socket", "--tpm2", "--tpmstate", &state, "--ctrl", &ctrl];
        let arguments: Vec<OsString> = fixed.iter().chain(arguments).map(OsString::from).collect();
        let service = Service::start(&program, &arguments, dir.join("swtpm.log"), &dir.join(awaited))?;
        Ok(Swtpm { service, socket, control })
    }

    /// For [`Boot::tpm`](super::qemu::Boot::tpm).
    pub fn control(&self) -> &Path {
        &self.control
    }

    /// Of [`Swtpm::serve`]: connect and write one command, read one response, and so on.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// A new connection to [`Swtpm::socket`]. The socket is there a moment before swtpm listens on it.
    ///
    /// # Errors
    /// Not served to processes, or ended.
    pub fn connect(&self) -> Result<UnixStream> {
        let mut tries = 100;
        loop {
            match UnixStream::connect(&self.socket) {
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused && tries > 0 => {
                    tries -= 1;
                    std::thread::sleep(std::time::Duration::from_millis(20));
                }
                outcome => return outcome.map_err(WorldError::file("connect to", &self.socket)),
            }
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.service.pid()
    }

    /// Its words.
    pub fn log(&self) -> &Path {
        self.service.log()
    }
}

/// The certificate of the authority that issued endorsement certificates for the TPM in this folder (PEM).
pub fn authority_certificate(dir: &Path) -> PathBuf {
    dir.join("ca/issuercert.pem")
}

/// swtpm splits its options at commas and knows no escape.
fn option_path(path: &Path) -> Result<&str> {
    let text = path.to_str().filter(|text| !text.contains(','));
    text.ok_or_else(|| {
        let cause = "swtpm takes no comma and no byte outside UTF-8 in a path";
        WorldError::unusable(path.display().to_string(), cause, "use another folder")
    })
}

/// An authority of this TPM's own: works for any user, and leaves the system's alone.
fn write_authority(dir: &Path) -> Result<PathBuf> {
    let ca = dir.join("ca");
    fs::create_dir_all(&ca).map_err(WorldError::file("make", &ca))?;
    let issuer =
        find_program("swtpm_localca").ok_or_else(|| WorldError::NoProgram { program: "swtpm_localca".into() })?;
    let write = |name: &str, text: String| {
        let path = dir.join(name);
        fs::write(&path, text).map_err(WorldError::file("write", &path))?;
        Ok(path)
    };
    let at = ca.display();
    let own = write(
        "swtpm-localca.conf",
        format!(
            "statedir = {at}\nsigningkey = {at}/signkey.pem\nissuercert = {at}/issuercert.pem\ncertserial = {at}/serial\n"
        ),
    )?;
    // The maker's names in the certificates: TCG EK Credential Profile, section 3.2.9.
    let options = write(
        "swtpm-localca.options",
        "--platform-manufacturer inwit\n--platform-version 1\n--platform-model simulated\n".into(),
    )?;
    write(
        "swtpm_setup.conf",
        format!(
            "create_certs_tool = {}\ncreate_certs_tool_config = {}\ncreate_certs_tool_options = {}\n",
            issuer.display(),
            own.display(),
            options.display()
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::super::{
        World,
        setup::{Step, ready_or_told},
    };
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn a_served_tpm_is_started_up_and_answers_raw_commands() {
        if !ready_or_told(&World::here(), "virtual TPM", &[Step::Packages]).unwrap() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        Swtpm::manufacture(dir.path(), EkCertificate::Absent).unwrap();
        let tpm = Swtpm::serve(dir.path()).unwrap();
        for _ in 0..2 {
            // TPM2_GetRandom(8): tag NO_SESSIONS, size 12, code 0x17b, bytesRequested (TPM 2.0 Library, Part 3, 16.1).
            let mut connection = tpm.connect().unwrap();
            connection.write_all(&[0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x7b, 0, 8]).unwrap();
            let mut response = [0; 20];
            connection.read_exact(&mut response).unwrap();
            assert_eq!(&response[..12], &[0x80, 0x01, 0, 0, 0, 20, 0, 0, 0, 0, 0, 8], "success with 8 bytes");
        }
        let pid = tpm.pid();
        drop(tpm);
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "ended with its owner");
    }

    #[test]
    fn an_endorsement_certificate_comes_from_an_authority_in_the_folder() {
        if !ready_or_told(&World::here(), "endorsement certificate", &[Step::Packages]).unwrap() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        Swtpm::manufacture(dir.path(), EkCertificate::Issued).unwrap();
        let pem = fs::read_to_string(authority_certificate(dir.path())).unwrap();
        assert!(pem.contains("BEGIN CERTIFICATE"));
    }

    #[test]
    fn a_path_that_swtpm_would_split_is_refused() {
        assert!(option_path(Path::new("/tmp/a,mode=0777")).is_err());
    }
}
