//! The parts of Intel's collateral, sorted by kind and decoded from the JSON, PEM and hexadecimal that they are handed out in,
//! each once. Verifies nothing and trusts nothing: signatures are looked at when a root is made of the parts.

use serde::Deserialize;
use serde_json::value::RawValue;
use x509_parser::pem::Pem;

use super::issued::Issued;
use super::parts::{TdxPart, framed, wrong};
use crate::evidence::endorsements::EndorsementError;
use crate::evidence::x509::{X509Error, is_paired_pem};

/// Longest part that is read, in bytes; Intel's are about 20 KiB.
const PART_LIMIT: usize = 1 << 20;
/// Certificates of one issuer chain.
const CHAIN_LENGTH: usize = 2;

/// QuoteCollateralV3, as much of it as counts. A PCK chain in it is for one quote, and quotes bring their own.
#[derive(Deserialize)]
struct CollateralJson {
    pck_crl_issuer_chain: String,
    root_ca_crl: String,
    pck_crl: String,
    tcb_info_issuer_chain: String,
    tcb_info: String,
    tcb_info_signature: String,
    qe_identity_issuer_chain: String,
    qe_identity: String,
    qe_identity_signature: String,
}

#[derive(Deserialize)]
struct TcbInfoJson<'a> {
    #[serde(rename = "tcbInfo", borrow)]
    document: &'a RawValue,
    signature: &'a str,
}

#[derive(Deserialize)]
struct QeIdentityJson<'a> {
    #[serde(rename = "enclaveIdentity", borrow)]
    document: &'a RawValue,
    signature: &'a str,
}

/// The parts, sorted and decoded; nothing is verified yet.
#[derive(Default)]
pub(super) struct Sorted {
    pub(super) certificates: Vec<Vec<u8>>,
    pub(super) lists: Vec<Vec<u8>>,
    pub(super) infos: Vec<(String, [u8; 64])>,
    pub(super) identities: Vec<(String, [u8; 64])>,
}

impl Sorted {
    /// The parts in one order, each once, without the root's own certificate.
    ///
    /// # Errors
    /// The part that does not have the form that its kind has.
    pub(super) fn of(parts: &[TdxPart<'_>], root: &Issued) -> Result<Self, EndorsementError> {
        let mut sorted = Self::default();
        parts.iter().try_for_each(|part| sorted.take(part))?;
        sorted.certificates.retain(|der| *der != root.der);
        for of_a_kind in [&mut sorted.certificates, &mut sorted.lists] {
            of_a_kind.sort();
            of_a_kind.dedup();
        }
        for of_a_kind in [&mut sorted.infos, &mut sorted.identities] {
            of_a_kind.sort();
            of_a_kind.dedup();
        }
        Ok(sorted)
    }

    fn take(&mut self, part: &TdxPart<'_>) -> Result<(), EndorsementError> {
        if part.bytes().len() > PART_LIMIT {
            return Err(EndorsementError::intel("collateral", "a part is too long to be Intel's"));
        }
        match part {
            TdxPart::Collateral(json) => {
                self.collateral(serde_json::from_slice(json).map_err(wrong("collateral"))?)?;
            }
            TdxPart::TcbInfo(json) => {
                let json: TcbInfoJson<'_> = serde_json::from_slice(json).map_err(wrong("TCB info"))?;
                let signature = octets_of_signature(json.signature).map_err(wrong("TCB info"))?;
                self.infos.push((json.document.get().to_owned(), signature));
            }
            TdxPart::QeIdentity(json) => {
                let json: QeIdentityJson<'_> = serde_json::from_slice(json).map_err(wrong("QE identity"))?;
                let signature = octets_of_signature(json.signature).map_err(wrong("QE identity"))?;
                self.identities.push((json.document.get().to_owned(), signature));
            }
            TdxPart::List(der) => self.lists.push(der.to_vec()),
            TdxPart::Certificate(der) => self.certificates.push(der.to_vec()),
        }
        Ok(())
    }

    fn collateral(&mut self, json: CollateralJson) -> Result<(), EndorsementError> {
        for chain in [&json.pck_crl_issuer_chain, &json.tcb_info_issuer_chain, &json.qe_identity_issuer_chain] {
            self.certificates.extend(pem(chain).map_err(wrong("issuer chain"))?);
        }
        self.lists.push(octets(&json.root_ca_crl).ok_or_else(|| wrong("root CRL")("not in lower-case hexadecimal"))?);
        self.lists.push(octets(&json.pck_crl).ok_or_else(|| wrong("PCK CRL")("not in lower-case hexadecimal"))?);
        let signature = octets_of_signature(&json.tcb_info_signature).map_err(wrong("TCB info"))?;
        self.infos.push((json.tcb_info, signature));
        let signature = octets_of_signature(&json.qe_identity_signature).map_err(wrong("QE identity"))?;
        self.identities.push((json.qe_identity, signature));
        Ok(())
    }

    /// One digest for everything, each part preceded by its length.
    pub(super) fn digest(&self, root: &Issued) -> [u8; 32] {
        let documents = self.infos.iter().chain(&self.identities).map(|(json, _)| json.as_bytes());
        let ders = [&root.der].into_iter().chain(&self.certificates).chain(&self.lists).map(Vec::as_slice);
        framed(ders.chain(documents))
    }
}

/// The certificates of an issuer chain in PEM, DER: the issuer and the root.
fn pem(text: &str) -> Result<Vec<Vec<u8>>, X509Error> {
    if !is_paired_pem(text.as_bytes()) {
        return Err(X509Error::Certificate);
    }
    let mut chain = Vec::new();
    for block in Pem::iter_from_buffer(text.as_bytes()) {
        let block = block.map_err(|_| X509Error::Certificate)?;
        if block.label != "CERTIFICATE" || chain.len() == CHAIN_LENGTH {
            return Err(X509Error::Certificate);
        }
        chain.push(block.contents);
    }
    if chain.len() == CHAIN_LENGTH { Ok(chain) } else { Err(X509Error::Certificate) }
}

/// Hexadecimal of any length, in lower case as Intel's service writes it: nobody signs this text, so that another case would
/// be a second form of the same list.
fn octets(text: &str) -> Option<Vec<u8>> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    let digit = |digit: &u8| match digit {
        b'A'..=b'F' => None,
        digit => char::from(*digit).to_digit(16).and_then(|value| u8::try_from(value).ok()),
    };
    pairs.iter().map(|[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect()
}

/// The signature of a document, in the same form.
fn octets_of_signature(text: &str) -> Result<[u8; 64], &'static str> {
    octets(text).and_then(|bytes| bytes.try_into().ok()).ok_or("signature is not 64 bytes in lower-case hexadecimal")
}
