//! The words of `authenticate` and `appraise`: evidence, what it is judged by, and when. Words that do not go together are
//! not passed over, for somebody would believe that they counted. Reads no file.

use crate::endorsement_files::parse_pin;
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use inwit_protocol::evidence::Platform;
use std::path::{Path, PathBuf};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The end of the year 9999, where the dates of certificates end.
const LAST_SECOND: u64 = 253_402_300_799;
/// Bytes of REPORT_DATA, and the most that any platform holds.
pub(super) const REPORT_DATA: usize = 64;

pub(super) const AUTHENTICATE_HELP: &str = "\
Roots are values: a root certificate (ARK-Milan, Intel SGX Root CA, …) is trusted in this act only because you hand it in
with --endorsements, and so are attestation keys. No certificate is built in, none is fetched, and the digests of those that
counted are printed. Without revocation lists for an ARK, revocation by AMD is not checked.

A root counts when you name its file, or a folder that it lies in or below. When a folder that you name also holds the
evidence or its event log, itself or deeper, or when the root stands inside of collateral, whoever made the evidence may have
put it there: then it counts only if it is AMD's or Intel's own, which are known by their digests. For any other, name the
root file, or its own folder. With --root-sha256 your word is the digest: such roots count wherever they are found, and no
others do.
Intermediates, keys of chips, revocation lists and collateral count from everywhere, for a root has signed them; what
another root signed is set aside, and said so.

TDX collateral is one document, or the loose answers of Intel's service: TCB info and QE identity with their signatures, the
revocation lists of root and PCK CA, and the TCB signing chain, which the service sends in a header. Of several the newest
that is current at --at is used. Documents for SGX have no effect.

What a file holds is told by its content, not its name; keys of TPMs in folders alone are taken from files of the name
attestation-keys. A file that you name and that is no endorsement is refused. In a folder only what looks like one has to be
one: certificates and revocation lists (DER, PEM), TDX collateral, certificate tables; all else is set aside, and said so.
What looks like one and does not parse is refused (malformed), and so is a revocation list in the name of a trusted ARK that
this ARK did not sign (chain-untrusted). Where something set aside is why an endorsement is missing, the refusal says so.

--at is demanded because the outcome depends on it: certificates, revocation lists and collateral begin and end. A verdict
by the machine's clock could not be repeated tomorrow, and whoever sets the clock would set the verdict.

Without --report-data the verdict says that such evidence exists, not that it was made for you or now: anybody may have
copied it.

  inwit-authority authenticate --platform snp --evidence report.bin --endorsements amd/ --endorsements vcek.der \\
      --at 2026-06-01T00:00:00Z --report-data 00…
  inwit-authority authenticate --platform tdx --evidence quote.bin --endorsements intel-root.der \\
      --endorsements collateral.json --at $(date +%s) --json
  inwit-authority authenticate --platform tdx --evidence received/quote.bin --endorsements received/ \\
      --root-sha256 DIGEST-OF-INTEL-SGX-ROOT-CA --at 2026-06-01T00:00:00Z

On Azure the hardware's report speaks of the paravisor, and vouches for the key of the virtual TPM; the guest's own boot and
its nonce stand in that TPM's quote. So with a TPM quote --report-data is its extraData (any length up to 64 bytes), and
without one it is REPORT_DATA of the hardware's report (64 bytes), and nothing says what booted. What the guest wrote into
the report as user-data is printed among the claims.

  inwit-authority authenticate --platform azure-snp --evidence evidence.json --endorsements amd/ --at $(date +%s) \\
      --report-data $(printf challenge | xxd -p)
  inwit-authority authenticate --platform azure-tdx --evidence hcl-report.bin --tpm-quote quote.bin --td-quote td-quote.bin \\
      --endorsements intel-root.der --endorsements collateral.json --at $(date +%s)

Exit codes: 0 authentic, 1 a file cannot be read, 2 usage, 3 refused. With --json all of them print JSON with a verdict.";

pub(super) const APPRAISE_HELP: &str = "\
The policy file is TOML: [policy] with every key that `inwit-authority init` writes into authority.toml, and at least one
set of Reference Values, as inwit-measure writes them or without an agent:

  [[reference_values]]
  name = \"release 1\"
  measured = { platform = \"snp\", launch_digest = \"…96 hex digits…\" }

The measured part of authenticate's JSON has this shape; what makes it trustworthy is that you computed it yourself.
Debugging and migration are refused whatever the policy says. Binding and agent are not judged here: evidence from
elsewhere has none. So this verdict issues no credential and releases no secret; `serve` demands both.

With --json the member `ear` is the opinion as an EAR claims set (draft-ietf-rats-ear, profile
tag:ietf.org,2026:rats/ear#03): status, trustworthiness vector, and the ids of policy and Reference Values; no measurement.
0 in the vector says that nobody looked; -33 for hardware says that no revocation list was looked at. The set is never
signed: an opinion about a file was made for nobody's connection, and signed it could be presented as if it were.

Endorsements, roots, --at and --report-data are as in `authenticate --help`. Exit codes: 0 appraised, 1 a file cannot be read
or the policy not understood, 2 usage, 3 refused.";

/// Evidence and what it is judged by.
#[derive(Args)]
pub(super) struct Submission {
    /// Platform that the evidence is from.
    #[arg(long, value_parser = platforms())]
    pub(super) platform: Platform,
    /// The raw SNP report, TDX quote or Azure HCL report, inwit Evidence or an inwit quote (CBOR), or for Azure the JSON
    /// evidence of confidential-containers guest components (az-snp-vtpm, az-tdx-vtpm).
    #[arg(long, value_name = "FILE")]
    pub(super) evidence: PathBuf,
    /// azure-snp and azure-tdx: the TPM's quote beside a raw HCL report, as az-cvm-vtpm stores it (bincode or JSON).
    #[arg(long, value_name = "FILE")]
    pub(super) tpm_quote: Option<PathBuf>,
    /// azure-tdx: the raw TDX quote beside a raw HCL report.
    #[arg(long, value_name = "FILE")]
    pub(super) td_quote: Option<PathBuf>,
    /// File or folder of certificates, revocation lists (DER, PEM, hexadecimal), certificate table, TDX collateral (answers
    /// of Intel's service, or QuoteCollateralV3 JSON), or attestation keys (SHA-256 of a key's SubjectPublicKeyInfo or of
    /// its TPMT_PUBLIC, 64 hex digits a line); may be given several times.
    #[arg(long, value_name = "PATH")]
    pub(super) endorsements: Vec<PathBuf>,
    /// SHA-256 of a root certificate in DER, or of an attestation key: only such roots count, wherever they are found; may
    /// be given several times.
    #[arg(long, value_name = "HEX", value_parser = digest)]
    pub(super) root_sha256: Vec<Digest>,
    /// TCG event log beside the evidence (CCEL, TPM), which has to explain its registers. Not for snp.
    #[arg(long, value_name = "FILE")]
    pub(super) event_log: Option<PathBuf>,
    /// Moment to judge at: RFC 3339 (2026-06-01T00:00:00Z) or seconds since 1970.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(super) at: u64,
    /// Data that the evidence must have been made over, in hex: the 64 bytes of REPORT_DATA, or a TPM quote's extraData.
    /// For Azure the extraData of the TPM's quote; only where there is none, the REPORT_DATA of the hardware's report.
    #[arg(long, value_name = "HEX", value_parser = Expected::parse)]
    pub(super) report_data: Option<Expected>,
}

/// Data that evidence is expected to be made over.
#[derive(Clone)]
pub(super) struct Expected(pub(super) Vec<u8>);

impl Expected {
    fn parse(text: &str) -> Result<Self, String> {
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        if !rest.is_empty() || pairs.len() > REPORT_DATA || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(format!("up to {REPORT_DATA} bytes are written as pairs of hex digits, without spaces"));
        }
        let byte = |pair: &[u8; 2]| u8::from_str_radix(core::str::from_utf8(pair).ok()?, 16).ok();
        pairs.iter().map(byte).collect::<Option<_>>().map(Self).ok_or_else(|| "not hexadecimal".to_owned())
    }
}

/// SHA-256.
type Digest = [u8; 32];

/// 64 hex digits.
pub(super) fn digest(text: &str) -> Result<Digest, String> {
    parse_pin(text).ok_or_else(|| "a SHA-256 is written as 64 hex digits, without spaces".to_owned())
}

/// The platforms by their stable names.
fn platforms() -> impl TypedValueParser<Value = Platform> {
    let all = [Platform::Snp, Platform::Tdx, Platform::AzureSnp, Platform::AzureTdx, Platform::Vtpm];
    let names = PossibleValuesParser::new(all.map(Platform::text));
    names.try_map(|name| Platform::from_text(&name).ok_or("no platform"))
}

/// Seconds since 1970 of a moment.
pub(super) fn moment(text: &str) -> Result<u64, String> {
    let seconds = if text.bytes().all(|byte| byte.is_ascii_digit()) {
        text.parse().ok()
    } else {
        OffsetDateTime::parse(text, &Rfc3339).ok().and_then(|time| u64::try_from(time.unix_timestamp()).ok())
    };
    seconds
        .filter(|seconds| *seconds <= LAST_SECOND)
        .ok_or_else(|| "a moment since 1970 is RFC 3339 with a time zone (2026-06-01T00:00:00Z), or seconds".to_owned())
}

impl Submission {
    /// The files of the other side: a folder that holds one of them vouches for no root.
    pub(super) fn sent(&self) -> Vec<&Path> {
        let beside = [&self.event_log, &self.tpm_quote, &self.td_quote];
        std::iter::once(&self.evidence).chain(beside.into_iter().flatten()).map(PathBuf::as_path).collect()
    }

    /// Words that a platform does not have.
    pub(super) fn incoherence(&self) -> Option<String> {
        let platform = self.platform;
        if platform == Platform::Snp && self.event_log.is_some() {
            return Some("--event-log: SNP has no event log".to_owned());
        }
        let azure = matches!(platform, Platform::AzureSnp | Platform::AzureTdx);
        if self.tpm_quote.is_some() && !azure {
            let words = "--tpm-quote: the quote beside an Azure HCL report, for azure-snp and azure-tdx alone";
            return Some(words.to_owned());
        }
        if self.td_quote.is_some() && platform != Platform::AzureTdx {
            let words =
                "--td-quote: the quote beside an Azure HCL report, for azure-tdx alone; for tdx it is the --evidence";
            return Some(words.to_owned());
        }
        let other_length = self.report_data.as_ref().is_some_and(|expected| expected.0.len() != REPORT_DATA);
        let fixed = matches!(platform, Platform::Snp | Platform::Tdx);
        (fixed && other_length)
            .then(|| format!("--report-data: {platform} holds exactly {REPORT_DATA} bytes, two hex digits each"))
    }
}
