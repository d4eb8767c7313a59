//! Intel's root with the collateral that a quote is verified against: TCB info, QE identity and revocation lists
//! (provisioning certification service API v4). Read when it is loaded, so that a refusal can say which collateral is
//! missing or too old; its signatures are verified with each quote, by the quote verification library.

use dcap_qvl::{QeIdentity, QuoteCollateralV3, TcbInfo};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use crate::evidence::endorsements::{Dated, EndorsementError};
use crate::evidence::fields::Short;
use crate::evidence::x509::{self, Window, X509Error};

/// Longest collateral document that is read, in bytes; Intel's are about 20 KiB.
const DOCUMENT_LIMIT: usize = 1 << 20;
/// Certificates read of one issuer chain; Intel's have two.
const CHAIN_LIMIT: usize = 4;

/// One part of what Intel's provisioning certification service hands out, as it is stored.
#[derive(Clone, Copy, Debug)]
pub enum TdxPart<'a> {
    /// QuoteCollateralV3: one JSON document that holds all of the others, texts as strings, bytes in hexadecimal.
    Collateral(&'a [u8]),
    /// `{"tcbInfo":{…},"signature":"…"}`, as the service answers.
    TcbInfo(&'a [u8]),
    /// `{"enclaveIdentity":{…},"signature":"…"}`, as the service answers.
    QeIdentity(&'a [u8]),
    /// A revocation list of the root or of a PCK CA, DER.
    List(&'a [u8]),
    /// The certificate of a TCB signer or of a PCK CA, DER.
    Certificate(&'a [u8]),
}

/// One trusted root for TDX, with the collateral under it. For each FMSPC the newest that is current is used.
#[derive(Clone, Debug)]
pub struct TdxRoot {
    root: Vec<u8>,
    collateral: Vec<Collateral>,
}

/// One platform family's collateral.
#[derive(Clone, Debug)]
pub(super) struct Collateral {
    pub(super) documents: QuoteCollateralV3,
    pub(super) pce_id: [u8; 2],
    fmspc: [u8; 6],
    evaluation_number: u32,
    window: Window,
}

/// Why no collateral fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoCollateral {
    Missing,
    Expired,
}

impl TdxRoot {
    /// A root certificate (DER) and the parts under it, in any order. The certificate is compared byte for byte with the
    /// one that ends a quote's chain.
    ///
    /// # Errors
    /// [`EndorsementError::Intel`] names the part that does not parse or was not signed under this root.
    pub fn new(root: &[u8], parts: &[TdxPart<'_>]) -> Result<Self, EndorsementError> {
        let read = |part: &TdxPart<'_>| {
            let TdxPart::Collateral(json) = part else {
                return Err(EndorsementError::intel("part", "only whole collateral documents are read yet"));
            };
            if json.len() > DOCUMENT_LIMIT {
                return Err(EndorsementError::intel("collateral", "the file is too long to be collateral"));
            }
            serde_json::from_slice(json).map_err(|error| EndorsementError::intel("collateral", error))
        };
        Self::from_collateral(root, parts.iter().map(read).collect::<Result<_, _>>()?)
    }

    /// The root and what is under it, with the dates of each, for a person to look at.
    pub fn dated(&self) -> Vec<Dated> {
        let of = |one: &Collateral| {
            let name = format!("TDX collateral for FMSPC {}", Short(&one.fmspc));
            Dated { name, from: one.window.from, until: one.window.until }
        };
        self.collateral.iter().map(of).collect()
    }

    fn from_collateral(root: &[u8], collateral: Vec<QuoteCollateralV3>) -> Result<Self, EndorsementError> {
        let certificate =
            x509::certificate(root).map_err(|error| EndorsementError::intel("root certificate", error))?;
        if certificate.issuer().as_raw() != certificate.subject().as_raw() || !certificate.is_ca() {
            return Err(EndorsementError::intel("root certificate", "it is not a root: its issuer is another"));
        }
        let collateral = collateral.into_iter().map(Collateral::read).collect::<Result<_, _>>()?;
        Ok(Self { root: root.to_vec(), collateral })
    }

    pub(super) fn is(&self, certificate: &[u8]) -> bool {
        self.root == certificate
    }

    pub(super) fn of(&self, fmspc: [u8; 6]) -> impl Iterator<Item = &Collateral> {
        self.collateral.iter().filter(move |collateral| collateral.fmspc == fmspc)
    }
}

/// The newest of a platform family's collateral that is current `at` this time. An older set is never tried instead: it
/// would call a platform good that Intel has since called bad.
pub(super) fn newest<'a>(
    family: impl Iterator<Item = &'a Collateral>,
    at: u64,
) -> Result<&'a Collateral, NoCollateral> {
    let mut family = family.peekable();
    if family.peek().is_none() {
        return Err(NoCollateral::Missing);
    }
    family
        .filter(|collateral| collateral.window.contains(at))
        .max_by_key(|collateral| (collateral.evaluation_number, collateral.window.from))
        .ok_or(NoCollateral::Expired)
}

impl Collateral {
    fn read(mut documents: QuoteCollateralV3) -> Result<Self, EndorsementError> {
        // The PCK chain is taken from the quote alone; what else stands here is not for this quote.
        documents.pck_certificate_chain = None;
        let info: TcbInfo =
            serde_json::from_str(&documents.tcb_info).map_err(|error| EndorsementError::intel("TCB info", error))?;
        let identity: QeIdentity = serde_json::from_str(&documents.qe_identity)
            .map_err(|error| EndorsementError::intel("QE identity", error))?;
        if info.id != "TDX" || identity.id != "TD_QE" {
            return Err(EndorsementError::intel("collateral", "it is for SGX, not for TDX"));
        }
        let mut windows = vec![
            dates(&info.issue_date, &info.next_update).ok_or_else(|| bad_date("TCB info"))?,
            dates(&identity.issue_date, &identity.next_update).ok_or_else(|| bad_date("QE identity"))?,
            list_window(&documents.root_ca_crl).map_err(|error| EndorsementError::intel("root CRL", error))?,
            list_window(&documents.pck_crl).map_err(|error| EndorsementError::intel("PCK CRL", error))?,
        ];
        for chain in [&documents.tcb_info_issuer_chain, &documents.qe_identity_issuer_chain] {
            let chain =
                certificates(chain.as_bytes()).map_err(|error| EndorsementError::intel("issuer chain", error))?;
            for der in chain {
                let read = x509::certificate(&der).and_then(|certificate| Window::of(certificate.validity()));
                windows.push(read.map_err(|error| EndorsementError::intel("issuer chain", error))?);
            }
        }
        let from = windows.iter().map(|window| window.from).max().unwrap_or(u64::MAX);
        let until = windows.iter().map(|window| window.until).min().unwrap_or(0);
        Ok(Self {
            fmspc: hexadecimal(&info.fmspc).ok_or_else(|| EndorsementError::intel("TCB info", "no FMSPC"))?,
            pce_id: hexadecimal(&info.pce_id).ok_or_else(|| EndorsementError::intel("TCB info", "no PCEID"))?,
            evaluation_number: info.tcb_evaluation_data_number.min(identity.tcb_evaluation_data_number),
            window: Window { from, until },
            documents,
        })
    }
}

/// The certificates of a PEM text, DER, in order. Zero bytes at the end are passed over: quotes have them.
pub(super) fn certificates(pem: &[u8]) -> Result<Vec<Vec<u8>>, X509Error> {
    let end = pem.iter().rposition(|byte| *byte != 0).map_or(0, |last| last.saturating_add(1));
    let text = pem.get(..end).unwrap_or_default();
    let mut chain = Vec::new();
    for block in Pem::iter_from_buffer(text) {
        let block = block.map_err(|_| X509Error::Certificate)?;
        if block.label != "CERTIFICATE" || chain.len() == CHAIN_LIMIT {
            return Err(X509Error::Certificate);
        }
        chain.push(block.contents);
    }
    Ok(chain)
}

fn bad_date(file: &'static str) -> EndorsementError {
    EndorsementError::intel(file, "its dates are not RFC 3339")
}

fn dates(from: &str, until: &str) -> Option<Window> {
    let seconds = |text| {
        let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        u64::try_from(time.unix_timestamp()).ok()
    };
    Some(Window { from: seconds(from)?, until: seconds(until)? })
}

fn list_window(der: &[u8]) -> Result<Window, X509Error> {
    let Ok(([], list)) = CertificateRevocationList::from_der(der) else { return Err(X509Error::List) };
    let until = list.next_update().ok_or(X509Error::NoNextUpdate)?;
    let seconds = |time: i64| u64::try_from(time).map_err(|_| X509Error::Date);
    Ok(Window { from: seconds(list.last_update().timestamp())?, until: seconds(until.timestamp())? })
}

/// Hexadecimal of either case and exactly this length, as Intel writes it.
fn hexadecimal<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut out = [0; N];
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    for (byte, pair) in out.iter_mut().zip(pairs) {
        let digits = core::str::from_utf8(pair).ok().filter(|digits| !digits.starts_with('+'))?;
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_has_exactly_the_length() {
        assert_eq!(hexadecimal::<6>("90c06F000000"), Some([0x90, 0xc0, 0x6f, 0, 0, 0]));
        for bad in ["90c06F0000", "90c06F00000000", "90c06F00000", "90c06F00000g", "90c06F0000+1", "90c06F0000é"] {
            assert_eq!(hexadecimal::<6>(bad), None, "{bad}");
        }
    }

    #[test]
    fn dates_are_rfc_3339() {
        let window = dates("2026-03-16T10:00:00Z", "2026-04-15T10:00:00+01:00").unwrap();
        assert_eq!((window.from, window.until), (1_773_655_200, 1_776_243_600));
        assert_eq!(dates("yesterday", "2026-04-15T10:00:00Z"), None);
    }
}
