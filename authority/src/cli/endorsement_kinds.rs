//! What one file of endorsements holds, told by its content and never by its name: AMD's certificates and revocation
//! lists, a host's certificate table, Intel's certificates, lists and signed documents, digests of attestation keys.
//! Recognising authenticates nothing. What looks like an endorsement and cannot be read is told apart from what is none,
//! because a file passed over in silence could be a revocation.

mod evidence;
mod intel;
mod table;

use crate::endorsement_files::parse_pin;
use crate::evidence::x509::{self, X509Error};
use crate::evidence::{Product, VekCertificate};
use inwit_protocol::evidence::Platform;
use inwit_protocol::refusal::RefusalCode;
use std::fmt;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::revocation_list::CertificateRevocationList;

pub(super) use intel::{carried_roots, family, parts};
pub(super) use table::table_pieces;

/// Blocks read of one PEM file.
const BLOCK_LIMIT: usize = 64;
/// First byte of a DER SEQUENCE.
const SEQUENCE: u8 = 0x30;

/// One endorsement. Certificates and lists in DER, documents as they were handed out.
pub(super) enum Piece {
    /// The root certificate of a product.
    Ark(Product, Vec<u8>),
    /// ASK or ASVK: what stands between a root and the keys of chips and clouds.
    Intermediate(Product, Vec<u8>),
    /// A revocation list in the name of a product's root.
    List(Product, Vec<u8>),
    /// The certificate of a VCEK or VLEK.
    Vek(Box<VekCertificate>, Vec<u8>),
    /// The certificate table that a host hands out with an extended report.
    Table(Vec<u8>),
    /// The root certificate of quotes, by its common name.
    TdxRoot(String, Vec<u8>),
    /// The certificate of a TCB signer or of a PCK CA.
    IntelCertificate(Vec<u8>),
    /// A revocation list of Intel's root or of a PCK CA.
    IntelList(Vec<u8>),
    /// TCB info with its signature, as Intel's service answers.
    TcbInfo(Vec<u8>),
    /// The quoting enclave's identity with its signature, as Intel's service answers.
    QeIdentity(Vec<u8>),
    /// QuoteCollateralV3 as JSON.
    Collateral(Vec<u8>),
    /// SHA-256 of trusted attestation keys.
    AttestationKeys(Vec<[u8; 32]>),
    /// Understood, and without effect: why.
    Unneeded(String),
    /// By its names an endorsement, and no usable one.
    Unusable(Spoilt),
}

/// What is wrong with an endorsement.
#[derive(Clone, Debug)]
pub(super) struct Spoilt {
    pub(super) code: RefusalCode,
    /// The hardware that it is for, where that can be told.
    pub(super) platform: Option<Platform>,
    pub(super) cause: String,
}

/// Why a file holds no endorsement.
#[derive(Debug)]
pub(super) enum NoEndorsement {
    /// It is evidence, or a part of it.
    Evidence(&'static str),
    /// It is longer than any.
    Oversized(String),
    /// It looks like one, and cannot be read as one.
    Spoilt(Spoilt),
    /// It is not understood: one line that says why, and what would be.
    Unknown(String),
}

impl NoEndorsement {
    /// What has the form of an endorsement and does not parse.
    fn malformed(cause: impl fmt::Display) -> Self {
        Self::Spoilt(Spoilt { code: RefusalCode::Malformed, platform: None, cause: cause.to_string() })
    }
}

impl fmt::Display for NoEndorsement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Evidence(what) => write!(f, "{what}: evidence, and no endorsement"),
            Self::Unknown(cause) | Self::Oversized(cause) | Self::Spoilt(Spoilt { cause, .. }) => f.write_str(cause),
        }
    }
}

impl From<String> for NoEndorsement {
    fn from(cause: String) -> Self {
        Self::Unknown(cause)
    }
}

/// Everything that a file holds; at least one piece.
///
/// # Errors
/// [`NoEndorsement`] says what the file is instead.
pub(super) fn recognise(bytes: &[u8]) -> Result<Vec<Piece>, NoEndorsement> {
    // Some editors put a mark of byte order before text.
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let text = core::str::from_utf8(bytes).ok();
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err("empty".to_owned().into());
    }
    if bytes.trim_ascii_start().starts_with(b"{") {
        return document(bytes);
    }
    // Before lines of digests: a list may be wrapped into lines as long as those are.
    if let Some(bytes) = text.and_then(intel::hexadecimal) {
        return Ok(vec![der(&bytes)?]);
    }
    if let Some(keys) = text.and_then(attestation_keys) {
        return Ok(vec![Piece::AttestationKeys(keys)]);
    }
    if bytes.first() == Some(&SEQUENCE) {
        return Ok(vec![der(bytes)?]);
    }
    // Before PEM: a quote holds a chain in PEM. Evidence is not text, so that no words before a list hide it.
    if let (None, Some(what)) = (text, evidence::name(bytes)) {
        return Err(NoEndorsement::Evidence(what));
    }
    let begins = bytes.windows(PEM_BEGIN.len()).filter(|window| *window == PEM_BEGIN).count();
    if begins > 0 {
        return pem(bytes, begins);
    }
    if let Some(what) = evidence::name(bytes) {
        return Err(NoEndorsement::Evidence(what));
    }
    if table::is_table(bytes) {
        return Ok(vec![Piece::Table(bytes.to_vec())]);
    }
    Err("no endorsement known here".to_owned().into())
}

/// What is known here.
pub(super) const KNOWN: &str = "certificates and revocation lists (DER, PEM, hexadecimal), a host's certificate table, TDX \
                                collateral or Intel's answers as JSON, attestation keys as 64 hex digits a line";

const PEM_BEGIN: &[u8] = b"-----BEGIN ";

fn pem_text(text: &str) -> Result<Vec<Piece>, NoEndorsement> {
    pem(text.as_bytes(), text.matches("-----BEGIN ").count())
}

fn pem(bytes: &[u8], begins: usize) -> Result<Vec<Piece>, NoEndorsement> {
    let holds = |begin: &[u8]| bytes.windows(begin.len()).any(|window| window == begin);
    // Keys in PEM, and bytes that hold PEM without being text, are no endorsement.
    let ours = (holds(b"-----BEGIN CERTIFICATE-----") || holds(b"-----BEGIN X509 CRL-----")) && !bytes.contains(&0);
    let failed = |cause: String| if ours { NoEndorsement::malformed(cause) } else { NoEndorsement::Unknown(cause) };
    if !x509::is_paired_pem(bytes) {
        return Err(failed("not well-formed PEM: a block does not end with the label that it begins with".to_owned()));
    }
    let mut pieces = Vec::new();
    for block in Pem::iter_from_buffer(bytes).take(BLOCK_LIMIT) {
        let block = block.map_err(|error| failed(format!("not well-formed PEM: {error}")))?;
        pieces.push(match block.label.as_str() {
            "CERTIFICATE" => certificate(&block.contents)?,
            "X509 CRL" => list(&block.contents)?,
            label => return Err(failed(format!("holds a {label:?}, where certificates and revocation lists belong"))),
        });
    }
    // The reader passes over a block whose first line it does not find at the beginning of a line.
    if pieces.len() != begins {
        let cause = "not well-formed PEM: a block does not begin on a line of its own, or there are too many";
        return Err(failed(cause.to_owned()));
    }
    Ok(pieces)
}

fn der(bytes: &[u8]) -> Result<Piece, NoEndorsement> {
    match certificate(bytes) {
        Err(_) if CertificateRevocationList::from_der(bytes).is_ok() => list(bytes),
        Err(error) if !looks_signed(bytes) => Err(NoEndorsement::Unknown(error.to_string())),
        outcome => outcome,
    }
}

/// Whether bytes begin as a certificate or a revocation list does, however they go on: a SEQUENCE of more than 127 bytes,
/// and in it another one (RFC 5280 §4.1 and §5.1). Keys, signatures and parameters in DER begin otherwise.
fn looks_signed(bytes: &[u8]) -> bool {
    let inside = match bytes {
        [SEQUENCE, 0x81, _, inside @ ..] => inside,
        [SEQUENCE, 0x82, _, _, inside @ ..] => inside,
        [SEQUENCE, 0x83, _, _, _, inside @ ..] => inside,
        _ => return false,
    };
    matches!(inside, [SEQUENCE, 0x81..=0x83, ..])
}

fn certificate(der: &[u8]) -> Result<Piece, NoEndorsement> {
    let certificate = x509::certificate(der).map_err(NoEndorsement::malformed)?;
    let names = (x509::common_name(certificate.subject()), x509::common_name(certificate.issuer()));
    let (Some(subject), Some(issuer)) = names else {
        let cause = "a certificate without one common name each for subject and issuer".to_owned();
        return Ok(unknown(RefusalCode::Malformed, &certificate, cause));
    };
    if matches!(subject, "SEV-VCEK" | "SEV-VLEK") {
        return Ok(match VekCertificate::from_der(der) {
            Ok(vek) => Piece::Vek(Box::new(vek), der.to_vec()),
            Err(error) => {
                let (code, platform) = (RefusalCode::Malformed, Some(Platform::Snp));
                Piece::Unusable(Spoilt { code, platform, cause: error.to_string() })
            }
        });
    }
    let self_issued = certificate.subject().as_raw() == certificate.issuer().as_raw();
    let known = intel::certificate(subject, self_issued, der).or_else(|| amd(subject, issuer, der));
    let cause = || format!("a certificate of {subject:?} issued by {issuer:?}, which is none known here");
    Ok(known.unwrap_or_else(|| unknown(RefusalCode::ChainUntrusted, &certificate, cause())))
}

/// A certificate that is none known here: another's, unless its names speak of a vendor. Then it may be one that is needed.
fn unknown(code: RefusalCode, certificate: &X509Certificate<'_>, cause: String) -> Piece {
    let names = [certificate.subject().as_raw(), certificate.issuer().as_raw()];
    match names.into_iter().find_map(vendor) {
        None => Piece::Unneeded(cause),
        platform => Piece::Unusable(Spoilt { code, platform, cause }),
    }
}

/// The platform of whose vendor a name speaks.
fn vendor(name: &[u8]) -> Option<Platform> {
    let held =
        |words: &[&str]| words.iter().any(|word| name.windows(word.len()).any(|window| window == word.as_bytes()));
    if held(&["ARK-", "SEV-", "Advanced Micro Devices"]) {
        return Some(Platform::Snp);
    }
    held(&["Intel SGX ", "Intel Corporation"]).then_some(Platform::Tdx)
}

/// AMD's own certificates, by their names. Whether the names are deserved is found out when the root is made.
fn amd(subject: &str, issuer: &str, der: &[u8]) -> Option<Piece> {
    let root = product(issuer.strip_prefix("ARK-")?)?;
    let ours = |name: &str| product(name) == Some(root);
    if subject.strip_prefix("ARK-").is_some_and(ours) {
        return Some(Piece::Ark(root, der.to_vec()));
    }
    let issued = subject.strip_prefix("SEV-VLEK-").or_else(|| subject.strip_prefix("SEV-"))?;
    ours(issued).then(|| Piece::Intermediate(root, der.to_vec()))
}

/// The product in AMD's own spelling.
fn product(name: &str) -> Option<Product> {
    Product::from_name(name).filter(|product| product.name() == name)
}

fn list(der: &[u8]) -> Result<Piece, NoEndorsement> {
    let Ok(([], list)) = CertificateRevocationList::from_der(der) else {
        return Err(NoEndorsement::malformed(X509Error::List));
    };
    let issuer = x509::common_name(list.issuer()).unwrap_or_default();
    if let Some(piece) = intel::list(issuer, der) {
        return Ok(piece);
    }
    if let Some(product) = issuer.strip_prefix("ARK-").and_then(product) {
        return Ok(Piece::List(product, der.to_vec()));
    }
    let cause = format!("a revocation list by {issuer:?}, which is no root known here");
    match vendor(list.issuer().as_raw()) {
        None => Ok(Piece::Unneeded(cause)),
        // It may be the one that matters, with its name spoilt.
        platform => Err(NoEndorsement::Spoilt(Spoilt { code: RefusalCode::ChainUntrusted, platform, cause })),
    }
}

/// Signed documents, alone or several in one.
fn document(bytes: &[u8]) -> Result<Vec<Piece>, NoEndorsement> {
    let json: serde_json::Value = serde_json::from_slice(bytes).map_err(|error| {
        let unknown = || NoEndorsement::Unknown(format!("not JSON: {error}"));
        intel::broken_document(bytes).map_or_else(unknown, NoEndorsement::Spoilt)
    })?;
    if let Some(what) = evidence::of_json(&json) {
        return Err(NoEndorsement::Evidence(what));
    }
    if let Some(pieces) = intel::thim(&json) {
        return pieces;
    }
    let missing =
        "JSON, but no TDX collateral: tcb_info and qe_identity are missing, and so are tcbInfo and enclaveIdentity";
    Ok(vec![intel::document(&json, bytes).ok_or_else(|| missing.to_owned())??])
}

/// Lines of digests, with empty lines and lines that begin with # between them; `None` when it is another text.
fn attestation_keys(text: &str) -> Option<Vec<[u8; 32]>> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let keys: Vec<[u8; 32]> = lines.map(parse_pin).collect::<Option<_>>()?;
    (!keys.is_empty()).then_some(keys)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn complaint(bytes: &[u8]) -> String {
        match recognise(bytes) {
            Ok(pieces) => panic!("{} pieces", pieces.len()),
            Err(complaint) => complaint.to_string(),
        }
    }

    #[test]
    fn what_is_not_understood_is_told_with_what_would_be() {
        for (bytes, said) in [
            (&b""[..], "empty"),
            (b" \n", "empty"),
            (b"\x30\x03\x02\x01\x01", "not a DER certificate"),
            (b"hello", "no endorsement known here"),
            (b"{\"tcbInfo\":{\"id\":\"TDX\"}}", "without its signature"),
            (b"{\"hcl_report\":\"\"}", "evidence, and no endorsement"),
            (b"HCLA", "evidence, and no endorsement"),
            (b"{\"tcb_info\":\"\"}", "no TDX collateral"),
            (b"{", "not JSON"),
            (b"-----BEGIN CERTIFICATE-----\nAAAA", "not well-formed PEM"),
            (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "PRIVATE KEY"),
            (b"  -----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "line of its own"),
        ] {
            assert!(complaint(bytes).contains(said), "{}", complaint(bytes));
        }
    }

    #[test]
    fn digests_of_keys_are_lines_that_may_begin_as_der_does() {
        let lines = format!("# the TPM in rack 7\n{}\n\n{}\n", "30".repeat(32), "aB".repeat(32));
        let keys = match recognise(lines.as_bytes()).unwrap().pop() {
            Some(Piece::AttestationKeys(keys)) => keys,
            _ => panic!("another piece"),
        };
        assert_eq!(keys, [[0x30; 32], [0xab; 32]]);
        let one_digit_short = lines.trim_end().strip_suffix('B').unwrap();
        assert!(complaint(one_digit_short.as_bytes()).contains("no endorsement"));
        assert!(complaint(b"# nothing\n").contains("no endorsement"));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), first in 0usize..4) {
            let start = [&b""[..], b"\x30\x82", b"-----BEGIN CERTIFICATE-----\n", b"{"][first];
            let bytes = [start, &bytes].concat();
            let _ = (recognise(&bytes), parts(&bytes));
        }
    }
}
