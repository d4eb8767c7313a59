//! The one measured configuration file: `key = value` lines, `#` comments, nothing optional by accident. An unknown key,
//! a doubled key or a missing one is an error, since a typing mistake must not become a permissive default.

use inwit_protocol::identity::{IdentityError, TrustDomain, WorkloadIdentifier};
use inwit_protocol::primitives::sha256;
use std::fmt;
use std::path::PathBuf;

/// Most lines of a list (modules, outlets, secrets).
const MAX_LIST: usize = 64;

/// Where a byte stream through the host is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A vsock port of a context id; the host is 2.
    Vsock {
        /// Context id.
        cid: u32,
        /// Port.
        port: u32,
    },
    /// A unix socket, when running as a service.
    Unix(PathBuf),
}

/// A kernel module to load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Path of the decompressed module.
    pub path: PathBuf,
    /// What it means if its hardware is not there.
    pub absence: Absence,
}

/// Whether a module's hardware must be present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absence {
    /// "No such device" is an error.
    Refuse,
    /// "No such device" is expected on other platforms: one image serves all.
    Expect,
}

/// A local socket whose connections leave as attested mutual TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outlet {
    /// Name: the socket is `<run>/<name>.sock`.
    pub name: String,
    /// Through which relay.
    pub to: Address,
    /// The one peer that is accepted.
    pub peer: WorkloadIdentifier,
}

impl Outlet {
    /// The environment variable that tells the workload the socket's path.
    pub fn variable(&self) -> String {
        format!("INWIT_OUTLET_{}", self.name.to_uppercase().replace('-', "_"))
    }
}

/// The configuration, complete.
#[derive(Clone, Debug)]
pub struct MeasuredConfig {
    /// SHA-256 of the file.
    pub digest: [u8; 32],
    /// The trust domain; that of `identifier`.
    pub trust_domain: TrustDomain,
    /// The identity that this guest expects to be given.
    pub identifier: WorkloadIdentifier,
    /// SHA-256 pins of the authority's keys, one or two.
    pub authority_pins: Vec<[u8; 32]>,
    /// The relay to the authority.
    pub authority: Address,
    /// Modules in load order.
    pub modules: Vec<Module>,
    /// Where the kernel's report directory is.
    pub tsm_root: PathBuf,
    /// The TPM device, or a TPM's unix socket.
    pub tpm: PathBuf,
    /// The firmware's event log.
    pub event_log: PathBuf,
    /// Where Azure's host turns a TDREPORT into a quote (HTTP, `POST /acc/tdquote`).
    pub td_quote_service: Option<Address>,
    /// Block device of the sealed disk and the name of its secret.
    pub disk: Option<(PathBuf, String)>,
    /// Secrets handed to the workload as files under `<run>/secrets`.
    pub secret_files: Vec<String>,
    /// The workload's program and arguments.
    pub workload: Vec<String>,
    /// User and group id of the workload.
    pub workload_user: u32,
    /// Outlets.
    pub outlets: Vec<Outlet>,
    /// Directory for sockets and secret files.
    pub run: PathBuf,
}

/// What is wrong with a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// Not UTF-8.
    NotText,
    /// A line is not `key = value`.
    Line(usize),
    /// A key that is not known.
    UnknownKey(usize),
    /// A key that may stand once stands again.
    Doubled(usize),
    /// A value that does not parse.
    Value(usize, &'static str),
    /// An identifier that is not one.
    Identity(usize, IdentityError),
    /// A key that must stand does not.
    Missing(&'static str),
    /// More lines of one kind than are allowed.
    TooMany(&'static str),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotText => f.write_str("the configuration is not UTF-8"),
            Self::Line(line) => write!(f, "line {line} is not `key = value`"),
            Self::UnknownKey(line) => write!(f, "line {line}: unknown key"),
            Self::Doubled(line) => write!(f, "line {line}: this key may stand only once"),
            Self::Value(line, wanted) => write!(f, "line {line}: the value is not {wanted}"),
            Self::Identity(line, error) => write!(f, "line {line}: {error}"),
            Self::Missing(key) => write!(f, "`{key}` is missing"),
            Self::TooMany(key) => write!(f, "more than {MAX_LIST} lines of `{key}`"),
        }
    }
}

impl std::error::Error for ConfigError {}

/// What has been read so far.
#[derive(Default)]
struct Draft {
    identifier: Option<WorkloadIdentifier>,
    pins: Vec<[u8; 32]>,
    authority: Option<Address>,
    modules: Vec<Module>,
    tsm_root: Option<PathBuf>,
    tpm: Option<PathBuf>,
    event_log: Option<PathBuf>,
    td_quote_service: Option<Address>,
    disk: Option<(PathBuf, String)>,
    secret_files: Vec<String>,
    workload: Option<Vec<String>>,
    workload_user: Option<u32>,
    outlets: Vec<Outlet>,
    run: Option<PathBuf>,
}

impl MeasuredConfig {
    /// Parses the file's bytes; its digest is over exactly these.
    pub fn parse(bytes: &[u8]) -> Result<Self, ConfigError> {
        let text = std::str::from_utf8(bytes).map_err(|_| ConfigError::NotText)?;
        let mut draft = Draft::default();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (key, value) = line.split_once('=').ok_or(ConfigError::Line(number))?;
            draft.take(key.trim(), value.trim(), number)?;
        }
        draft.finish(sha256(bytes))
    }
}

impl Draft {
    fn take(&mut self, key: &str, value: &str, line: usize) -> Result<(), ConfigError> {
        match key {
            "identifier" => {
                let id = WorkloadIdentifier::parse(value).map_err(|error| ConfigError::Identity(line, error))?;
                once(&mut self.identifier, id, line)
            }
            "authority-pin" => push(&mut self.pins, pin(value, line)?, "authority-pin"),
            "authority" => once(&mut self.authority, address(value, line)?, line),
            "module" => push(&mut self.modules, module(value, Absence::Refuse), "module"),
            "module-if-present" => push(&mut self.modules, module(value, Absence::Expect), "module"),
            "tsm-root" => once(&mut self.tsm_root, path(value, line)?, line),
            "tpm" => once(&mut self.tpm, path(value, line)?, line),
            "event-log" => once(&mut self.event_log, path(value, line)?, line),
            "td-quote-service" => once(&mut self.td_quote_service, address(value, line)?, line),
            "disk" => once(&mut self.disk, disk(value, line)?, line),
            "secret-file" => push(&mut self.secret_files, name(value, line)?, "secret-file"),
            "workload" => once(&mut self.workload, command(value, line)?, line),
            "workload-user" => {
                let id = value.parse().ok().filter(|id| *id != 0);
                once(&mut self.workload_user, id.ok_or(ConfigError::Value(line, "a user id other than root's"))?, line)
            }
            "outlet" => {
                let outlet = outlet(value, line)?;
                if self.outlets.iter().any(|other| other.variable() == outlet.variable()) {
                    return Err(ConfigError::Doubled(line));
                }
                push(&mut self.outlets, outlet, "outlet")
            }
            "run" => once(&mut self.run, path(value, line)?, line),
            _ => Err(ConfigError::UnknownKey(line)),
        }
    }

    fn finish(self, digest: [u8; 32]) -> Result<MeasuredConfig, ConfigError> {
        let identifier = self.identifier.ok_or(ConfigError::Missing("identifier"))?;
        if self.pins.is_empty() || self.pins.len() > 2 {
            return Err(ConfigError::Missing("authority-pin (one or two)"));
        }
        let default = |given: Option<PathBuf>, path: &str| given.unwrap_or_else(|| PathBuf::from(path));
        Ok(MeasuredConfig {
            digest,
            trust_domain: identifier.trust_domain().clone(),
            identifier,
            authority_pins: self.pins,
            authority: self.authority.ok_or(ConfigError::Missing("authority"))?,
            modules: self.modules,
            tsm_root: default(self.tsm_root, "/sys/kernel/config/tsm/report"),
            tpm: default(self.tpm, "/dev/tpmrm0"),
            event_log: default(self.event_log, "/sys/kernel/security/tpm0/binary_bios_measurements"),
            td_quote_service: self.td_quote_service,
            disk: self.disk,
            secret_files: self.secret_files,
            workload: self.workload.ok_or(ConfigError::Missing("workload"))?,
            workload_user: self.workload_user.ok_or(ConfigError::Missing("workload-user"))?,
            outlets: self.outlets,
            run: default(self.run, "/run/inwit"),
        })
    }
}

fn once<T>(slot: &mut Option<T>, value: T, line: usize) -> Result<(), ConfigError> {
    if slot.replace(value).is_some() { Err(ConfigError::Doubled(line)) } else { Ok(()) }
}

fn push<T>(list: &mut Vec<T>, value: T, key: &'static str) -> Result<(), ConfigError> {
    if list.len() >= MAX_LIST {
        return Err(ConfigError::TooMany(key));
    }
    list.push(value);
    Ok(())
}

fn pin(value: &str, line: usize) -> Result<[u8; 32], ConfigError> {
    let wrong = ConfigError::Value(line, "the 64 hex digits of a SHA-256");
    let mut pin = [0; 32];
    if value.len() != 64 || !value.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(wrong);
    }
    for (byte, digits) in pin.iter_mut().zip(value.as_bytes().chunks(2)) {
        let digits = std::str::from_utf8(digits).map_err(|_| wrong.clone())?;
        *byte = u8::from_str_radix(digits, 16).map_err(|_| wrong.clone())?;
    }
    Ok(pin)
}

fn address(value: &str, line: usize) -> Result<Address, ConfigError> {
    let wrong = ConfigError::Value(line, "vsock:CID:PORT or unix:PATH");
    if let Some(path) = value.strip_prefix("unix:") {
        return Ok(Address::Unix(PathBuf::from(path)));
    }
    let (cid, port) = value.strip_prefix("vsock:").and_then(|rest| rest.split_once(':')).ok_or(wrong.clone())?;
    match (cid.parse(), port.parse()) {
        (Ok(cid), Ok(port)) => Ok(Address::Vsock { cid, port }),
        _ => Err(wrong),
    }
}

fn path(value: &str, line: usize) -> Result<PathBuf, ConfigError> {
    if value.starts_with('/') { Ok(PathBuf::from(value)) } else { Err(ConfigError::Value(line, "an absolute path")) }
}

fn module(value: &str, absence: Absence) -> Module {
    Module { path: PathBuf::from(value), absence }
}

fn name(value: &str, line: usize) -> Result<String, ConfigError> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    let good = (1..=64).contains(&value.len()) && value.bytes().all(allowed);
    if good { Ok(value.to_owned()) } else { Err(ConfigError::Value(line, "a name of letters, digits, - and _")) }
}

fn words(value: &str) -> Vec<String> {
    value.split_ascii_whitespace().map(str::to_owned).collect()
}

fn disk(value: &str, line: usize) -> Result<(PathBuf, String), ConfigError> {
    match words(value).as_slice() {
        [device, secret] => Ok((path(device, line)?, name(secret, line)?)),
        _ => Err(ConfigError::Value(line, "DEVICE SECRET")),
    }
}

fn command(value: &str, line: usize) -> Result<Vec<String>, ConfigError> {
    let words = words(value);
    match words.first() {
        Some(program) if program.starts_with('/') => Ok(words),
        _ => Err(ConfigError::Value(line, "an absolute program path with its arguments")),
    }
}

fn outlet(value: &str, line: usize) -> Result<Outlet, ConfigError> {
    match words(value).as_slice() {
        [outlet, to, peer] => Ok(Outlet {
            name: name(outlet, line)?,
            to: address(to, line)?,
            peer: WorkloadIdentifier::parse(peer).map_err(|error| ConfigError::Identity(line, error))?,
        }),
        _ => Err(ConfigError::Value(line, "NAME ADDRESS PEER-IDENTIFIER")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = "# demo\nidentifier = spiffe://demo.example/hello\nauthority-pin = 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\nauthority = vsock:2:4050\nmodule = /lib/modules/tsm.ko\nmodule-if-present = /lib/modules/sev-guest.ko\ndisk = /dev/vda disk\nworkload = /workload/hello --loud\nworkload-user = 65534\noutlet = greeter vsock:2:4051 spiffe://demo.example/greeter\n";

    #[test]
    fn a_good_file() {
        let config = MeasuredConfig::parse(GOOD.as_bytes()).unwrap();
        assert_eq!(config.digest, sha256(GOOD.as_bytes()));
        assert_eq!(config.authority, Address::Vsock { cid: 2, port: 4050 });
        assert_eq!(config.modules[1].absence, Absence::Expect);
        assert_eq!(config.td_quote_service, None);
        let with = format!("{GOOD}td-quote-service = unix:/run/quotes.sock\n");
        let with = MeasuredConfig::parse(with.as_bytes()).unwrap();
        assert_eq!(with.td_quote_service, Some(Address::Unix("/run/quotes.sock".into())));
        assert_eq!(config.workload, ["/workload/hello", "--loud"]);
        assert_eq!(config.outlets[0].peer.uri(), "spiffe://demo.example/greeter");
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        let with = |line: &str| MeasuredConfig::parse(format!("{GOOD}{line}\n").as_bytes()).unwrap_err();
        assert_eq!(with("identifer = spiffe://demo.example/x"), ConfigError::UnknownKey(11));
        assert_eq!(with("authority = unix:/x"), ConfigError::Doubled(11));
        assert_eq!(with("nonsense"), ConfigError::Line(11));
        assert_eq!(with("tpm = relative"), ConfigError::Value(11, "an absolute path"));
        assert!(matches!(with("authority-pin = 00"), ConfigError::Value(11, _)));
        assert_eq!(with("outlet = GREETER unix:/x spiffe://demo.example/x"), ConfigError::Doubled(11));
        let plus = format!("authority-pin = {}", "+1".repeat(32));
        assert!(matches!(with(&plus), ConfigError::Value(11, _)));
        let as_root = GOOD.replace("workload-user = 65534", "workload-user = 0");
        assert!(matches!(MeasuredConfig::parse(as_root.as_bytes()), Err(ConfigError::Value(9, _))));
        for key in ["identifier", "authority-pin", "authority ", "workload ", "workload-user"] {
            let without: String = GOOD.lines().filter(|l| !l.starts_with(key)).map(|l| format!("{l}\n")).collect();
            assert!(matches!(MeasuredConfig::parse(without.as_bytes()), Err(ConfigError::Missing(_))), "{key}");
        }
    }

    #[test]
    fn a_third_pin_is_refused() {
        let pin = "authority-pin = 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n";
        assert!(MeasuredConfig::parse(format!("{GOOD}{pin}").as_bytes()).is_ok());
        assert!(MeasuredConfig::parse(format!("{GOOD}{pin}{pin}").as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = MeasuredConfig::parse(&bytes);
        }
    }
}
