//! Intel's root with what was signed under it: TCB info, QE identities, revocation lists, and the certificates between
//! (provisioning certification service API v4), as one document or in loose parts, in any order. Every signature is verified
//! when the parts are loaded, over exactly the bytes that are stored; dates and revocation are judged with each quote.
//! Trusts nothing but the root that it is given.

use std::sync::Arc;

use inwit_protocol::primitives::sha256;
use serde::Deserialize;
use serde_json::value::RawValue;
use x509_parser::pem::Pem;

use super::chain::Caches;
use super::documents::{EnclaveDocument, TcbDocument, hexadecimal};
use super::issued::{Issued, List, issued_by};
use crate::evidence::crypto::ecdsa_p256;
use crate::evidence::endorsements::{Dated, EndorsementError};
use crate::evidence::fields::Short;
use crate::evidence::x509::{self, Window, X509Error};

/// Longest part that is read, in bytes; Intel's are about 20 KiB.
const PART_LIMIT: usize = 1 << 20;
/// Certificates of one issuer chain.
const CHAIN_LENGTH: usize = 2;

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
    /// The certificate of a TCB signer or of a PCK CA, DER. The root's own is passed over.
    Certificate(&'a [u8]),
}

/// One trusted root for TDX, with what was signed under it. Of each kind the newest that is current is used.
///
/// Clones share what was verified already.
#[derive(Clone, Debug)]
pub struct TdxRoot {
    held: Arc<Held>,
}

/// What a root holds. Never changes after it was loaded, so that one digest stands for all of it.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) root: Issued,
    pub(super) signers: Vec<Issued>,
    issuers: Vec<Issued>,
    pub(super) lists: Vec<List>,
    pub(super) infos: Vec<Signed<TcbDocument>>,
    pub(super) identities: Vec<Signed<EnclaveDocument>>,
    /// Over the root and every part.
    pub(super) digest: [u8; 32],
    pub(super) caches: Caches,
}

/// A document with those of [`Held::signers`] whose key signed it, by number; at least one.
#[derive(Debug)]
pub(super) struct Signed<T> {
    pub(super) document: T,
    pub(super) signers: Vec<usize>,
}

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
struct Sorted {
    certificates: Vec<Vec<u8>>,
    lists: Vec<Vec<u8>>,
    infos: Vec<(String, [u8; 64])>,
    identities: Vec<(String, [u8; 64])>,
}

impl TdxRoot {
    /// A root certificate (DER) and the parts under it, in any order. The certificate is compared byte for byte with the
    /// one that ends a quote's chain.
    ///
    /// The list of a PCK CA whose certificate is not among the parts is kept: quotes bring that certificate, and the list
    /// is verified with it.
    ///
    /// # Errors
    /// [`EndorsementError::Intel`] names the part that does not parse, is not for TDX, or whose signer is missing;
    /// [`EndorsementError::Foreign`] one that was not signed under this root.
    pub fn new(root: &[u8], parts: &[TdxPart<'_>]) -> Result<Self, EndorsementError> {
        let root = trusted(root)?;
        let mut sorted = Sorted::default();
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
        let digest = sorted.digest(&root);
        let (signers, issuers) = certificates(&sorted.certificates, &root)?;
        let lists = sorted.lists.iter().map(|der| list(der, &root, &issuers)).collect::<Result<_, _>>()?;
        let info = |(json, signature): &(String, [u8; 64])| {
            let document = TcbDocument::parse(json).map_err(wrong("TCB info"))?;
            signed(document, json, signature, &signers).ok_or_else(|| unsigned("TCB info", &signers))
        };
        let infos = sorted.infos.iter().map(info).collect::<Result<_, _>>()?;
        let identity = |(json, signature): &(String, [u8; 64])| {
            let document = EnclaveDocument::parse(json).map_err(wrong("QE identity"))?;
            signed(document, json, signature, &signers).ok_or_else(|| unsigned("QE identity", &signers))
        };
        let identities = sorted.identities.iter().map(identity).collect::<Result<_, _>>()?;
        let caches = Caches::default();
        Ok(Self { held: Arc::new(Held { root, signers, issuers, lists, infos, identities, digest, caches }) })
    }

    /// The root and what is under it, with the dates of each, for a person to look at. A revocation list lasts until the
    /// second before the next one is due.
    pub fn dated(&self) -> Vec<Dated> {
        let held = &self.held;
        let certificates = [&held.root].into_iter().chain(&held.signers).chain(&held.issuers);
        let certificates = certificates.map(|one| (one.name.clone(), one.window));
        let lists = held.lists.iter().map(|list| (format!("revocation list of {}", list.name), list.window));
        let infos = held.infos.iter().map(|info| {
            let (fmspc, number) = (Short(&info.document.fmspc), info.document.evaluation_number);
            (format!("TCB info for FMSPC {fmspc} (evaluation {number})"), info.document.window)
        });
        let identities = held.identities.iter().map(|identity| {
            let number = identity.document.evaluation_number;
            (format!("TD QE identity (evaluation {number})"), identity.document.window)
        });
        let all = certificates.chain(lists).chain(infos).chain(identities);
        all.map(|(name, Window { from, until })| Dated { name, from, until }).collect()
    }

    pub(super) fn held(&self) -> &Held {
        &self.held
    }
}

impl Sorted {
    fn take(&mut self, part: &TdxPart<'_>) -> Result<(), EndorsementError> {
        let (TdxPart::Collateral(bytes)
        | TdxPart::TcbInfo(bytes)
        | TdxPart::QeIdentity(bytes)
        | TdxPart::List(bytes)
        | TdxPart::Certificate(bytes)) = part;
        if bytes.len() > PART_LIMIT {
            return Err(EndorsementError::intel("collateral", "a part is too long to be Intel's"));
        }
        match part {
            TdxPart::Collateral(json) => {
                self.collateral(serde_json::from_slice(json).map_err(wrong("collateral"))?)?;
            }
            TdxPart::TcbInfo(json) => {
                let json: TcbInfoJson<'_> = serde_json::from_slice(json).map_err(wrong("TCB info"))?;
                let signature = hexadecimal(json.signature, "signature").map_err(wrong("TCB info"))?;
                self.infos.push((json.document.get().to_owned(), signature));
            }
            TdxPart::QeIdentity(json) => {
                let json: QeIdentityJson<'_> = serde_json::from_slice(json).map_err(wrong("QE identity"))?;
                let signature = hexadecimal(json.signature, "signature").map_err(wrong("QE identity"))?;
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
        self.lists.push(octets(&json.root_ca_crl).ok_or_else(|| wrong("root CRL")("not in hexadecimal"))?);
        self.lists.push(octets(&json.pck_crl).ok_or_else(|| wrong("PCK CRL")("not in hexadecimal"))?);
        let signature = hexadecimal(&json.tcb_info_signature, "signature").map_err(wrong("TCB info"))?;
        self.infos.push((json.tcb_info, signature));
        let signature = hexadecimal(&json.qe_identity_signature, "signature").map_err(wrong("QE identity"))?;
        self.identities.push((json.qe_identity, signature));
        Ok(())
    }

    /// One digest for everything, each part preceded by its length.
    fn digest(&self, root: &Issued) -> [u8; 32] {
        let documents = self.infos.iter().chain(&self.identities).map(|(json, _)| json.as_bytes());
        let ders = [&root.der].into_iter().chain(&self.certificates).chain(&self.lists).map(Vec::as_slice);
        framed(ders.chain(documents))
    }
}

/// SHA-256 over parts, each preceded by its length.
pub(super) fn framed<'a>(parts: impl Iterator<Item = &'a [u8]>) -> [u8; 32] {
    let mut all = Vec::new();
    for part in parts {
        all.extend_from_slice(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        all.extend_from_slice(part);
    }
    sha256(&all)
}

fn wrong<E: ToString>(file: &'static str) -> impl Fn(E) -> EndorsementError {
    move |reason| EndorsementError::intel(file, reason)
}

/// The root: self-signed, a CA, P-256.
fn trusted(der: &[u8]) -> Result<Issued, EndorsementError> {
    let wrong = |reason: X509Error| EndorsementError::intel("root certificate", reason);
    let certificate = x509::certificate(der).map_err(wrong)?;
    let root = Issued::read(der).map_err(wrong)?;
    if certificate.issuer().as_raw() != root.subject || !certificate.is_ca() {
        return Err(EndorsementError::intel("root certificate", "it is not a root: its issuer is another"));
    }
    if !issued_by(&certificate, &root) {
        return Err(wrong(X509Error::Signature));
    }
    Ok(root)
}

/// TCB signers and PCK CAs, each issued by the root.
fn certificates(ders: &[Vec<u8>], root: &Issued) -> Result<(Vec<Issued>, Vec<Issued>), EndorsementError> {
    let (mut signers, mut issuers) = (Vec::new(), Vec::new());
    for der in ders {
        let wrong = wrong::<X509Error>("certificate");
        let certificate = x509::certificate(der).map_err(&wrong)?;
        let read = Issued::read(der).map_err(&wrong)?;
        let of_its_kind = match read.name.as_str() {
            signer if signer.contains("SGX TCB Signing") && !certificate.is_ca() => &mut signers,
            issuer if issuer.contains("SGX PCK") && certificate.is_ca() => &mut issuers,
            other => {
                if certificate.issuer().as_raw() == read.subject {
                    return Err(foreign("certificate", format!("{other:?} is another root than the given one")));
                }
                let reason = format!("{other:?} is neither a TCB signer nor a PCK CA");
                return Err(EndorsementError::intel("certificate", reason));
            }
        };
        if !issued_by(&certificate, root) {
            return Err(foreign("certificate", format!("{:?} was not issued by the root {:?}", read.name, root.name)));
        }
        of_its_kind.push(read);
    }
    Ok((signers, issuers))
}

fn list(der: &[u8], root: &Issued, issuers: &[Issued]) -> Result<List, EndorsementError> {
    let list = List::read(der).map_err(|error| EndorsementError::intel("revocation list", error))?;
    let mut named = [root].into_iter().chain(issuers).filter(|one| one.subject == list.issuer).peekable();
    if named.peek().is_some() && !named.any(|issuer| list.signed_with(&issuer.key)) {
        let reason = format!("that of {:?} was not signed under the root {:?}", list.name, root.name);
        return Err(foreign("revocation list", reason));
    }
    Ok(list)
}

/// The document with those who signed it; `None` when nobody of them did.
fn signed<T>(document: T, json: &str, signature: &[u8; 64], signers: &[Issued]) -> Option<Signed<T>> {
    let by = |signer: &Issued| ecdsa_p256(&signer.key, json.as_bytes(), signature).is_ok();
    let signers: Vec<usize> = signers.iter().enumerate().filter(|(_, one)| by(one)).map(|(number, _)| number).collect();
    (!signers.is_empty()).then_some(Signed { document, signers })
}

fn unsigned(file: &'static str, signers: &[Issued]) -> EndorsementError {
    if signers.is_empty() {
        return EndorsementError::intel(file, "the certificate of its signer (SGX TCB Signing) is not among the parts");
    }
    foreign(file, "none of the TCB signers under this root signed it".to_owned())
}

fn foreign(file: &'static str, reason: String) -> EndorsementError {
    EndorsementError::Foreign { file, reason }
}

/// The certificates of an issuer chain in PEM, DER: the issuer and the root.
fn pem(text: &str) -> Result<Vec<Vec<u8>>, X509Error> {
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

/// Hexadecimal of any length.
fn octets(text: &str) -> Option<Vec<u8>> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    let digit = |digit: &u8| char::from(*digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    pairs.iter().map(|[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect()
}
