//! The authority's side, by its own command line, as its operator would: init, endorse, seal the disk, register, serve.

use super::programs::Programs;
use super::service::Service;
use super::{GREETER, Result, StageError, TRUST_DOMAIN};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A state folder with its operator.
pub struct Office {
    program: PathBuf,
    state: PathBuf,
    folder: PathBuf,
    pin: String,
}

impl Office {
    /// Makes a new authority below `folder`.
    pub fn open(programs: &Programs, folder: &Path) -> Result<Self> {
        let mut office = Self {
            program: programs.authority.clone(),
            state: folder.join("authority"),
            folder: folder.to_owned(),
            pin: String::new(),
        };
        let said = office.run(&["init", "--trust-domain", TRUST_DOMAIN])?;
        office.state_minimum_tcb()?;
        office.pin = said["authority_pin"].as_str().unwrap_or_default().to_owned();
        Ok(office)
    }

    /// A fresh authority names no AMD product; the operator states what is acceptable of Milan.
    fn state_minimum_tcb(&self) -> Result<()> {
        let path = self.state.join("authority.toml");
        let mut text = std::fs::read_to_string(&path)?;
        text.push_str("\n[policy.snp.minimum_tcb.milan]\nboot_loader = 1\ntee = 0\nsnp = 1\nmicrocode = 1\n");
        Ok(std::fs::write(&path, text)?)
    }

    /// The pin that guests are built with, hex.
    pub fn pin(&self) -> &str {
        &self.pin
    }

    /// The state folder.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// Runs one act and gives what it says.
    pub fn run(&self, arguments: &[&str]) -> Result<serde_json::Value> {
        let mut command = Command::new(&self.program);
        let output = command.arg("--state").arg(&self.state).arg("--json").args(arguments).output()?;
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            return Err(StageError::of(format!("inwit-authority {}", arguments.join(" ")), errors.trim()));
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// Imports endorsements.
    pub fn endorse(&self, platform: &str, name: &str, files: &[PathBuf]) -> Result<()> {
        let mut arguments = vec!["endorsements", "add", "--platform", platform, "--name", name];
        let files: Vec<String> = files.iter().map(|path| path.display().to_string()).collect();
        arguments.extend(files.iter().map(String::as_str));
        self.run(&arguments).map(|_| ())
    }

    /// Imports one file of endorsements, whatever it is.
    pub fn import(&self, name: &str, content: &[u8]) -> Result<()> {
        let file = self.folder.join(name);
        std::fs::write(&file, content)?;
        self.run(&["endorsements", "import", &file.display().to_string()]).map(|_| ())
    }

    /// Seals a file system image into a disk, and stores its secret as `disk`.
    pub fn seal_disk(&self, image: &Path) -> Result<PathBuf> {
        let disk = self.folder.join("workload.disk");
        let (input, output) = (image.display().to_string(), disk.display().to_string());
        self.run(&["disk", "seal", "--secret", "disk", "--input", &input, "--output", &output])?;
        Ok(disk)
    }

    /// Stores a secret.
    pub fn add_secret(&self, name: &str, content: &[u8]) -> Result<()> {
        let file = self.folder.join(format!("{name}.plain"));
        std::fs::write(&file, content)?;
        let said = self.run(&["secret", "add", name, "--file", &file.display().to_string()]);
        std::fs::remove_file(&file)?;
        said.map(|_| ())
    }

    /// Enrols the greeter; gives the folder with its credential.
    pub fn enroll_greeter(&self) -> Result<PathBuf> {
        let folder = self.folder.join("greeter");
        self.run(&["enroll", "--identifier", GREETER, "--output", &folder.display().to_string()])?;
        Ok(folder)
    }

    /// Registers a workload with a Reference Values file's text.
    pub fn register(&self, name: &str, identifier: &str, reference: &str, secrets: &[&str]) -> Result<()> {
        let file = self.folder.join(format!("{name}.reference.toml"));
        std::fs::write(&file, reference)?;
        let path = file.display().to_string();
        let mut arguments = vec!["workload", "add", name, "--identifier", identifier, "--reference", &path];
        arguments.extend(secrets.iter().flat_map(|secret| ["--secret", secret]));
        self.run(&arguments).map(|_| ())
    }

    /// Serves all roles on a free loopback port.
    pub fn serve(&self) -> Result<(Service, SocketAddr)> {
        let mut command = Command::new(&self.program);
        command.arg("--state").arg(&self.state).args(["--json", "serve", "--roles", "all", "--listen", "127.0.0.1:0"]);
        let service = Service::start("inwit-authority", &mut command, &self.folder.join("authority.log"))?;
        let ready: serde_json::Value = serde_json::from_str(&service.wait_for("\"ready\"")?)?;
        let address = ready["listen"].as_str().and_then(|text| text.parse().ok());
        Ok((service, address.ok_or_else(|| StageError::of("inwit-authority", "does not say where it listens"))?))
    }
}
