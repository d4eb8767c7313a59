//! Simulated signing hardware: an AMD and an Intel of our own, their machines, and the ways a guest reaches them.
//!
//! The binary formats are the real ones, the signatures are real, and the roots are made at run time and passed as
//! values, so that a verifier under test runs its production path with another root. Nothing here is a constant key,
//! nothing here is part of a product binary, and nothing here proves anything about a machine.
//!
//! A [`Device`] is one machine with a [`Fault`] and a record of requests. [`tsmfs`] offers it where the kernel's
//! `/sys/kernel/config/tsm/report` would stand, for processes on this machine; [`mailbox`] offers it to the kernel
//! module in `tests/module`, for guests under QEMU.

use std::io;
use std::path::PathBuf;

use ring::rand::{SecureRandom, SystemRandom};

pub mod amd;
pub mod azure;
mod der;
pub mod device;
pub mod intel;
pub mod mailbox;
pub mod module;
pub mod tsmfs;

pub use amd::{AmdTestRoot, SnpMachine};
pub use azure::Paravisor;
pub use device::{Device, Fault, Request};
pub use intel::{IntelTestRoot, TdxMachine};
pub use mailbox::Mailbox;
pub use module::{StandsInFor, build_module};
pub use tsmfs::TsmFs;

/// Bytes of report data in a request, for SNP and TDX alike.
pub const INBLOB_LEN: usize = 64;

/// Largest outblob or auxblob that the kernel's report core of Linux 6.12 lets through.
pub const BLOB_MAX: usize = 32 * 1024;

/// What a platform returns for one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawEvidence {
    /// ATTESTATION_REPORT or TD quote.
    pub outblob: Vec<u8>,
    /// Certificate table of the host; always empty on TDX.
    pub auxblob: Vec<u8>,
}

/// A simulated confidential machine.
#[derive(Debug, Clone)]
pub enum Machine {
    /// AMD SEV-SNP.
    Snp(Box<SnpMachine>),
    /// Intel TDX.
    Tdx(Box<TdxMachine>),
}

impl Machine {
    /// The name that the kernel's driver for this platform registers.
    pub fn provider_name(&self) -> &'static str {
        match self {
            Self::Snp(_) => "sev_guest",
            Self::Tdx(_) => "tdx_guest",
        }
    }

    /// Lowest privilege level that may be asked for; nothing where the platform has no such levels.
    pub fn privlevel_floor(&self) -> Option<u32> {
        match self {
            Self::Snp(machine) => Some(machine.privlevel_floor),
            Self::Tdx(_) => None,
        }
    }

    /// Evidence over `inblob`. `privlevel` is the VMPL on SNP and without meaning on TDX.
    pub fn evidence(&self, inblob: &[u8; INBLOB_LEN], privlevel: u32) -> Result<RawEvidence, HardwareError> {
        match self {
            Self::Snp(machine) => {
                Ok(RawEvidence { outblob: machine.report(inblob, privlevel)?.to_vec(), auxblob: machine.auxblob() })
            }
            Self::Tdx(machine) => Ok(RawEvidence { outblob: machine.quote(inblob)?, auxblob: Vec::new() }),
        }
    }

    /// Where the signature of this platform's evidence begins, in bytes.
    fn signature_offset(&self) -> usize {
        match self {
            Self::Snp(_) => 0x2a0,
            Self::Tdx(machine) => machine.version.signed_len() + 4,
        }
    }
}

impl From<TdxMachine> for Machine {
    fn from(machine: TdxMachine) -> Self {
        Self::Tdx(Box::new(machine))
    }
}

impl From<SnpMachine> for Machine {
    fn from(machine: SnpMachine) -> Self {
        Self::Snp(Box::new(machine))
    }
}

fn random<const N: usize>() -> Result<[u8; N], HardwareError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| HardwareError::Key("draw random bytes"))?;
    Ok(bytes)
}

/// Why the simulated hardware could not be made or reached. A fault of the test bench, never a finding.
#[derive(Debug, thiserror::Error)]
pub enum HardwareError {
    /// A key operation failed.
    #[error("cannot {0}: the random source or the key is unusable")]
    Key(&'static str),
    /// A date outside what certificates can express.
    #[error("unix time {0} is beyond what a certificate can state: pass seconds, not milliseconds")]
    Time(u64),
    /// A program could not be run.
    #[error("cannot run {tool}: {source}; {next}")]
    Tool {
        /// Name of the program.
        tool: &'static str,
        /// What to do about it.
        next: &'static str,
        /// Cause.
        source: io::Error,
    },
    /// A program ran and failed.
    #[error("{tool} failed: {output}")]
    Failed {
        /// Name of the program with its action.
        tool: &'static str,
        /// What it said.
        output: String,
    },
    /// No kernel headers where they should be.
    #[error("{}: no kernel Makefile there or in its `build`: unpack the linux-headers packages of the guest's kernel", .0.display())]
    Headers(PathBuf),
    /// A TPM refused what its maker asks.
    #[error("the TPM refused {0}: {1}")]
    Tpm(&'static str, String),
    /// A file or folder could not be used.
    #[error("{}: {source}; remove it, or choose another path", path.display())]
    Io {
        /// Which one.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
}

#[cfg(test)]
pub(crate) mod fixture {
    //! What several tests of this folder share; the RSA keys are made once for each test run.
    use std::io::Write;
    use std::path::PathBuf;
    use std::sync::{Arc, LazyLock};

    use super::amd::{AmdTestRoot, Product, SnpMachine};
    use super::intel::{IntelTestRoot, TdxMachine};

    /// 2026-11-22 12:00:00 UTC.
    pub(crate) const NOW: u64 = 1_795_348_800;
    pub(crate) const DAY: u64 = 86_400;

    static ROOT: LazyLock<Arc<AmdTestRoot>> =
        LazyLock::new(|| Arc::new(AmdTestRoot::generate_for(Product::Milan, NOW).unwrap()));

    pub(crate) fn amd_root() -> Arc<AmdTestRoot> {
        Arc::clone(&ROOT)
    }

    pub(crate) fn snp_machine() -> SnpMachine {
        SnpMachine::new(&amd_root(), [0x4d; 48]).unwrap()
    }

    static INTEL: LazyLock<Arc<IntelTestRoot>> = LazyLock::new(|| Arc::new(IntelTestRoot::generate(NOW).unwrap()));

    pub(crate) fn intel_root() -> Arc<IntelTestRoot> {
        Arc::clone(&INTEL)
    }

    pub(crate) fn tdx_machine() -> TdxMachine {
        TdxMachine::new(&intel_root(), [0x4d; 48], [[0; 48]; 4]).unwrap()
    }

    /// Real evidence, which is not part of the repository. Says so where it is missing.
    pub(crate) fn vectors(for_what: &str) -> Option<PathBuf> {
        let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/vectors");
        let path = std::env::var_os("INWIT_VECTORS").map_or_else(|| PathBuf::from(beside), PathBuf::from);
        if path.is_dir() {
            return Some(path);
        }
        not_run(for_what, &format!("no vectors at {}; set INWIT_VECTORS", path.display()));
        None
    }

    /// Says on the terminal that a test did nothing; past the test runner, which hides what passing tests print.
    pub(crate) fn not_run(what: &str, why: &str) {
        let _ = writeln!(std::io::stderr(), "NOT RUN: {what}: {why}");
    }
}
