//! Intel's root with what was signed under it: TCB info, QE identities, revocation lists, and the certificates between
//! (provisioning certification service API v4), as one document or in loose parts, in any order. Every signature is verified
//! when the parts are loaded, over exactly the bytes that are stored; dates and revocation are judged with each quote.
//! Trusts nothing but the root that it is given.

use std::sync::Arc;

use inwit_protocol::primitives::sha256;

use super::chain::Caches;
use super::documents::{EnclaveDocument, TcbDocument};
use super::issued::{Issued, List, issued_by};
use super::sorted::Sorted;
use crate::evidence::crypto::ecdsa_p256;
use crate::evidence::endorsements::{Dated, EndorsementError};
use crate::evidence::fields::Short;
use crate::evidence::x509::{self, Window, X509Error};

/// What the name of every PCK CA has in it.
const PCK_CA: &str = "SGX PCK";

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

impl<'a> TdxPart<'a> {
    /// As it is stored.
    pub(super) fn bytes(&self) -> &'a [u8] {
        let (Self::Collateral(bytes)
        | Self::TcbInfo(bytes)
        | Self::QeIdentity(bytes)
        | Self::List(bytes)
        | Self::Certificate(bytes)) = self;
        bytes
    }
}

impl TdxRoot {
    /// A root certificate (DER) and the parts under it, in any order. The certificate is compared byte for byte with the
    /// one that ends a quote's chain.
    ///
    /// The list of a PCK CA whose certificate is not among the parts is kept: quotes bring that certificate, and the list
    /// is verified with it. The store tells such a list from one that was verified.
    ///
    /// # Errors
    /// [`EndorsementError::Intel`] names the part that does not parse, is not for TDX, or whose signer is missing;
    /// [`EndorsementError::Foreign`] one that was not signed under this root.
    pub fn new(root: &[u8], parts: &[TdxPart<'_>]) -> Result<Self, EndorsementError> {
        let root = trusted(root)?;
        let sorted = Sorted::of(parts, &root)?;
        let digest = sorted.digest(&root);
        let mut issuing = Issuing { root, signers: Vec::new(), issuers: Vec::new() };
        sorted.certificates.iter().try_for_each(|der| issuing.take(der))?;
        let lists = sorted.lists.iter().map(|der| issuing.list(der)).collect::<Result<_, _>>()?;
        let infos = sorted.infos.iter().map(|info| issuing.info(info)).collect::<Result<_, _>>()?;
        let identities =
            sorted.identities.iter().map(|identity| issuing.identity(identity)).collect::<Result<_, _>>()?;
        let Issuing { root, signers, issuers } = issuing;
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

/// SHA-256 over parts, each preceded by its length.
pub(super) fn framed<'a>(parts: impl Iterator<Item = &'a [u8]>) -> [u8; 32] {
    let mut all = Vec::new();
    for part in parts {
        all.extend_from_slice(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        all.extend_from_slice(part);
    }
    sha256(&all)
}

pub(super) fn wrong<E: ToString>(file: &'static str) -> impl Fn(E) -> EndorsementError {
    move |reason| EndorsementError::intel(file, reason)
}

/// The root with the certificates that it issued: by them everything else is known.
pub(super) struct Issuing {
    pub(super) root: Issued,
    /// TCB signers.
    pub(super) signers: Vec<Issued>,
    /// PCK CAs.
    pub(super) issuers: Vec<Issued>,
}

impl Issuing {
    /// Takes in the certificate of a TCB signer or of a PCK CA, issued by the root.
    pub(super) fn take(&mut self, der: &[u8]) -> Result<(), EndorsementError> {
        let wrong = wrong::<X509Error>("certificate");
        let certificate = x509::certificate(der).map_err(&wrong)?;
        let read = Issued::read(der).map_err(&wrong)?;
        let of_its_kind = match read.name.as_str() {
            signer if signer.contains("SGX TCB Signing") && !certificate.is_ca() => &mut self.signers,
            issuer if issuer.contains(PCK_CA) && certificate.is_ca() => &mut self.issuers,
            other => {
                if certificate.issuer().as_raw() == read.subject {
                    return Err(foreign("certificate", format!("{other:?} is another root than the given one")));
                }
                let reason = format!("{other:?} is neither a TCB signer nor a PCK CA");
                return Err(EndorsementError::intel("certificate", reason));
            }
        };
        if !issued_by(&certificate, &self.root) {
            let reason = format!("{:?} was not issued by the root {:?}", read.name, self.root.name);
            return Err(foreign("certificate", reason));
        }
        of_its_kind.push(read);
        Ok(())
    }

    /// A revocation list, and whose key signed it. That of a PCK CA whose certificate is not here stays unverified.
    pub(super) fn list(&self, der: &[u8]) -> Result<List, EndorsementError> {
        let mut list = List::read(der).map_err(|error| EndorsementError::intel("revocation list", error))?;
        // By the common name, for that is what people and the store tell lists apart by: one that is written in an
        // authority's name in another way would stand for the same thing.
        let mut named = [&self.root].into_iter().chain(&self.issuers).filter(|one| one.name == list.name).peekable();
        let known = named.peek().is_some();
        list.signer = named.find(|one| one.subject == list.issuer && list.signed_with(&one.key)).map(|one| one.key);
        if list.signer.is_none() && (known || !list.name.contains(PCK_CA)) {
            let reason = format!("that of {:?} was not signed under the root {:?}", list.name, self.root.name);
            return Err(foreign("revocation list", reason));
        }
        Ok(list)
    }

    /// TCB info, with those who signed it.
    pub(super) fn info(&self, (json, signature): &(String, [u8; 64])) -> Result<Signed<TcbDocument>, EndorsementError> {
        let document = TcbDocument::parse(json).map_err(wrong("TCB info"))?;
        signed(document, json, signature, &self.signers).ok_or_else(|| unsigned("TCB info", &self.signers))
    }

    /// The quoting enclave's identity, with those who signed it.
    pub(super) fn identity(
        &self,
        (json, signature): &(String, [u8; 64]),
    ) -> Result<Signed<EnclaveDocument>, EndorsementError> {
        let document = EnclaveDocument::parse(json).map_err(wrong("QE identity"))?;
        signed(document, json, signature, &self.signers).ok_or_else(|| unsigned("QE identity", &self.signers))
    }
}

/// The root: self-signed, a CA, P-256.
pub(super) fn trusted(der: &[u8]) -> Result<Issued, EndorsementError> {
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
