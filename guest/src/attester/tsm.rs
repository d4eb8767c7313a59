//! configfs-tsm (Linux 6.7+, `Documentation/ABI/testing/configfs-tsm-report`): one path for SNP and TDX. Each request
//! has a directory of its own; the generation counter shows whether anybody else wrote in between; the report must
//! echo the data that was asked for before it is sent anywhere.

use super::super::agent::read_bounded;
use inwit_protocol::binding::{EncodedBinding, ReportData};
use inwit_protocol::evidence::{AgentRegister, BLOB_LIMIT, Evidence, Platform};
use inwit_protocol::refusal::{Refusal, RefusalCode};
use ring::rand::{SecureRandom, SystemRandom};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Tries of one report: the kernel answers "busy" while another request is under way.
const TRIES: u32 = 5;
/// Pause before the second try; doubled for each further one.
const PAUSE: Duration = Duration::from_millis(50);
/// Offset of REPORT_DATA in an SNP report (SEV-SNP ABI, table "ATTESTATION_REPORT").
const SNP_REPORT_DATA: usize = 0x50;
/// Length of an SNP report.
const SNP_REPORT: usize = 1_184;
/// Offset of REPORTDATA in a TDX quote: header 48, in version 5 a descriptor of 6, body offset 520.
pub(super) const TDX_REPORT_DATA_V4: usize = 568;
pub(super) const TDX_REPORT_DATA_V5: usize = 574;

/// The kernel's report directory with a provider that is known here.
pub struct Tsm {
    root: PathBuf,
    platform: Platform,
}

/// A request directory, removed when dropped.
struct Request(PathBuf);

impl Request {
    fn new(root: &Path) -> io::Result<Self> {
        let mut name = [0; 8];
        SystemRandom::new().fill(&mut name).map_err(|_| io::Error::other("no randomness"))?;
        let path = root.join(format!("inwit-{:016x}", u64::from_be_bytes(name)));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }

    fn text(&self, file: &str) -> io::Result<String> {
        let bytes = read_bounded(&self.0.join(file), 64)?;
        String::from_utf8(bytes).map(|text| text.trim().to_owned()).map_err(|_| io::Error::other("not text"))
    }

    fn generation(&self) -> io::Result<u64> {
        self.text("generation")?.parse().map_err(|_| io::Error::other("generation is no number"))
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        // Nothing can be done about a directory that stays, and it holds no secret.
        let _ = fs::remove_dir(&self.0);
    }
}

fn failed(what: &str, error: impl std::fmt::Display) -> Refusal {
    Refusal::new(RefusalCode::AttesterFailed, format_args!("report device, {what}: {error}"))
}

impl Tsm {
    /// Looks for a provider: none registered (or no such directory) is `None`, an unknown one is a refusal.
    pub(super) fn find(root: &Path) -> Result<Option<Self>, Refusal> {
        let request = match Request::new(root) {
            Ok(request) => request,
            Err(error) if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(6) => {
                return Ok(None);
            }
            Err(error) => return Err(failed("making a request directory", error)),
        };
        let provider = request.text("provider").map_err(|error| failed("provider", error))?;
        let platform = match provider.as_str() {
            "sev_guest" => Platform::Snp,
            "tdx_guest" => Platform::Tdx,
            other => return Err(Refusal::new(RefusalCode::Unsupported, format_args!("report provider {other}"))),
        };
        Ok(Some(Self { root: root.to_owned(), platform }))
    }

    pub(super) fn platform(&self) -> Platform {
        self.platform
    }

    pub(super) fn evidence(
        &self,
        binding: &EncodedBinding,
        agent_register: AgentRegister,
    ) -> Result<Evidence, Refusal> {
        let data = ReportData::of(binding);
        let mut pause = PAUSE;
        let mut tries = 1;
        let (quote, endorsements) = loop {
            match self.report(&data) {
                Ok(blobs) => break blobs,
                Err(error) if tries < TRIES && worth_retrying(&error) => {
                    std::thread::sleep(pause);
                    pause = pause.saturating_mul(2);
                    tries = tries.saturating_add(1);
                }
                Err(error) => return Err(failed(&format!("after {tries} tries"), error)),
            }
        };
        self.check_echo(&quote, &data)?;
        Ok(Evidence { platform: self.platform, quote, endorsements, event_log: Vec::new(), agent_register })
    }

    fn report(&self, data: &ReportData) -> io::Result<(Vec<u8>, Vec<u8>)> {
        let request = Request::new(&self.root)?;
        let before = request.generation()?;
        fs::OpenOptions::new().write(true).open(request.0.join("inblob")).and_then(|mut file| {
            use io::Write;
            // One write: the kernel takes each write as a whole value.
            if file.write(data.bytes())? == data.bytes().len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
        })?;
        let quote = read_bounded(&request.0.join("outblob"), BLOB_LIMIT)?;
        let endorsements = match self.platform {
            Platform::Snp => read_bounded(&request.0.join("auxblob"), BLOB_LIMIT)?,
            _ => Vec::new(),
        };
        if request.generation()? != before.saturating_add(1) {
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, "somebody else wrote to this request"));
        }
        Ok((quote, endorsements))
    }

    /// An empty, short or foreign report taken for success would be refused far away; it is refused here.
    fn check_echo(&self, quote: &[u8], data: &ReportData) -> Result<(), Refusal> {
        let offset = match (self.platform, quote.first()) {
            (_, None) => {
                return Err(Refusal::new(RefusalCode::EvidenceMissing, "the report device gave an empty report"));
            }
            (Platform::Snp, _) if quote.len() == SNP_REPORT => SNP_REPORT_DATA,
            (Platform::Tdx, Some(4)) => TDX_REPORT_DATA_V4,
            (Platform::Tdx, Some(5)) => TDX_REPORT_DATA_V5,
            _ => return Err(failed("format", format_args!("{} bytes are no {} report", quote.len(), self.platform))),
        };
        let echoed = quote.get(offset..).and_then(|rest| rest.get(..data.bytes().len()));
        if echoed == Some(data.bytes()) {
            return Ok(());
        }
        Err(failed("echo", "the report does not hold the data that was asked for"))
    }
}

/// Busy, timed out, interrupted, or stale: the kernel's words for "ask again" (configfs-tsm, semantics).
fn worth_retrying(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, ResourceBusy, TimedOut, WouldBlock};
    matches!(error.kind(), Interrupted | ResourceBusy | TimedOut | WouldBlock)
}
