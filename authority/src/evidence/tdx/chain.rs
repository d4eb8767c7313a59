//! Paths to the configured root at the time of a quote: from the PCK certificate over its CA, and from the signers of
//! collateral. webpki walks them, with ECDSA P-256 and nothing else, and with a current revocation list for every
//! certificate below the root. A path is verified once for everything that it depends on and for as long as none of the
//! dates that were looked at makes a difference; a failure is found anew each time.

use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::{CertificateDer, UnixTime};
use thiserror::Error;
use webpki::{
    CertRevocationList, EndEntityCert, Error as PathError, ExpirationPolicy, KeyUsage, RevocationCheckDepth,
    RevocationOptionsBuilder, UnknownStatusPolicy,
};

use super::issued::{Issued, List, PublicKey, public_key, steady};
use super::parts::{Held, TdxRoot, framed};
use super::pck::{self, PckError, PckFields};
use super::pem::{self, PemError};
use crate::evidence::cache::Cache;
use crate::evidence::crypto::INTEL_CHAIN;
use crate::evidence::x509::{self, Window, X509Error};

/// Why a certificate does not lead to the configured root.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum ChainError {
    #[error(transparent)]
    Pem(#[from] PemError),
    #[error("{0} of the PCK chain: {1}")]
    Certificate(&'static str, X509Error),
    #[error("the PCK chain of the quote ends in another root than the configured one")]
    Root,
    #[error("the PCK chain of the quote does not begin with a PCK certificate of a PCK CA's")]
    Names,
    #[error(transparent)]
    Pck(#[from] PckError),
    #[error("the certificate of {0} is outside of its validity dates")]
    Expired(String),
    #[error("no revocation list of {0} is at hand: import it")]
    NoList(String),
    #[error("no revocation list of {0} is current: import a fresh one")]
    ListExpired(String),
    #[error("the certificate of {0} is revoked")]
    Revoked(String),
    #[error("the certificate of {name} does not chain to the configured root: {reason}")]
    Untrusted { name: String, reason: String },
}

/// What an authentic PCK certificate says, with its key.
#[derive(Debug)]
pub(super) struct Pck {
    pub(super) key: PublicKey,
    pub(super) fields: PckFields,
    /// When the whole path and its lists are valid.
    pub(super) window: Window,
}

/// What one root has verified already. Keys cover every input but the time, values are good within their window.
#[derive(Debug, Default)]
pub(super) struct Caches {
    chains: Cache<Arc<Pck>>,
    signers: Cache<Window>,
    pub(super) enclaves: Cache<()>,
}

/// All configured roots that are one certificate: the same root may be configured several times, each with other parts.
pub(super) struct Trusted<'a> {
    held: Vec<&'a Held>,
}

impl<'a> Trusted<'a> {
    /// The roots that are this certificate.
    pub(super) fn of(roots: &'a [TdxRoot], root: &[u8]) -> Result<Self, ChainError> {
        let held: Vec<&Held> = roots.iter().map(TdxRoot::held).filter(|held| held.root.der == root).collect();
        if held.is_empty() { Err(ChainError::Root) } else { Ok(Self { held }) }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &'a Held> {
        self.held.iter().copied()
    }

    /// The first of them stands for what is the same in all.
    pub(super) fn first(&self) -> Result<&'a Held, ChainError> {
        self.held.first().copied().ok_or(ChainError::Root)
    }

    /// A key over all that is configured and these inputs.
    fn key(&self, inputs: &[&[u8]]) -> [u8; 32] {
        framed(
            self.held.iter().map(|held| held.digest.as_slice()).chain([&b"inputs"[..]]).chain(inputs.iter().copied()),
        )
    }

    /// Every list in the name of this subject that was signed with this key.
    fn lists(&self, subject: &[u8], key: &PublicKey) -> Vec<&'a List> {
        let named = self.all().flat_map(|held| &held.lists).filter(|list| list.issuer == subject);
        named.filter(|list| list.is_by(key)).collect()
    }
}

/// Where the chain in a quote ends, read before anything of it is believed: which root it asks for.
pub(super) struct Presented<'a> {
    text: &'a [u8],
    pck: Vec<u8>,
    issuer: Vec<u8>,
    pub(super) root: Vec<u8>,
}

impl<'a> Presented<'a> {
    pub(super) fn read(text: &'a [u8]) -> Result<Self, ChainError> {
        let [pck, issuer, root] = pem::chain(text)?;
        Ok(Self { text, pck, issuer, root })
    }

    /// The platform family that the chain claims, for a person to be told of.
    pub(super) fn fmspc(&self) -> Option<[u8; 6]> {
        pck::fields(&self.pck).ok().map(|fields| fields.fmspc)
    }

    /// Verifies the path from the PCK certificate to the root.
    ///
    /// # Errors
    /// [`ChainError`] names the certificate or list.
    pub(super) fn verify(&self, trusted: &Trusted<'_>, at: u64) -> Result<Arc<Pck>, ChainError> {
        let key = trusted.key(&[self.text]);
        trusted.first()?.caches.chains.get_or_verify(key, at, || self.verify_anew(trusted, at))
    }

    fn verify_anew(&self, trusted: &Trusted<'_>, at: u64) -> Result<(Window, Arc<Pck>), ChainError> {
        let of = |what: &'static str| move |error| ChainError::Certificate(what, error);
        let root = &trusted.first()?.root;
        let leaf = x509::certificate(&self.pck).map_err(of("the PCK certificate"))?;
        let issuer = Issued::read(&self.issuer).map_err(of("the PCK CA's certificate"))?;
        let name = x509::common_name(leaf.subject()).unwrap_or_default();
        let ca = ["SGX PCK Platform CA", "SGX PCK Processor CA"].iter().any(|ca| issuer.name.contains(ca));
        if !name.contains("SGX PCK Certificate") || !ca {
            return Err(ChainError::Names);
        }
        let dated = [
            (name.to_owned(), Window::of(leaf.validity()).map_err(of("the PCK certificate"))?),
            (issuer.name.clone(), issuer.window),
            (root.name.clone(), root.window),
        ];
        let (of_root, of_issuer) =
            (trusted.lists(&root.subject, &root.key), trusted.lists(&issuer.subject, &issuer.key));
        let path = Path { leaf: &self.pck, name, issuer: Some(&issuer), root, dated: &dated };
        let window = path.verify(&of_root, &of_issuer, at)?;
        let windows = dated.iter().map(|(_, window)| *window);
        let steady = steady(windows.chain(of_root.iter().chain(&of_issuer).map(|list| list.window)), at);
        let key = public_key(&leaf).map_err(of("the PCK certificate"))?;
        Ok((steady, Arc::new(Pck { key, fields: pck::fields(&self.pck)?, window })))
    }
}

/// Verifies the path from a signer of collateral to the root, and gives the time in which it and its list are valid.
///
/// # Errors
/// [`ChainError`] names the certificate or list.
pub(super) fn verify_signer(signer: &Issued, trusted: &Trusted<'_>, at: u64) -> Result<Window, ChainError> {
    let first = trusted.first()?;
    let root = &first.root;
    first.caches.signers.get_or_verify(trusted.key(&[&signer.der]), at, || {
        let dated = [(signer.name.clone(), signer.window), (root.name.clone(), root.window)];
        let of_root = trusted.lists(&root.subject, &root.key);
        let path = Path { leaf: &signer.der, name: &signer.name, issuer: None, root, dated: &dated };
        let window = path.verify(&of_root, &[], at)?;
        let windows = dated.iter().map(|(_, window)| *window);
        Ok((steady(windows.chain(of_root.iter().map(|list| list.window)), at), window))
    })
}

/// One path: the certificate, at most one between, the root.
struct Path<'a> {
    leaf: &'a [u8],
    name: &'a str,
    issuer: Option<&'a Issued>,
    root: &'a Issued,
    dated: &'a [(String, Window)],
}

impl Path<'_> {
    /// Verifies everything `at` this time and gives the time in which all of it is valid.
    fn verify(&self, of_root: &[&List], of_issuer: &[&List], at: u64) -> Result<Window, ChainError> {
        let first = newest(of_root, &self.root.name, at);
        let second = self.issuer.map(|issuer| newest(of_issuer, &issuer.name, at)).transpose();
        // What is wrong with a certificate is said before what is wrong with a list, so that a chain that somebody made
        // up is not asked a list for.
        let (lists, missing) = match (first, second) {
            (Ok(root), Ok(issuer)) => ([Some(root), issuer].into_iter().flatten().collect(), None),
            (Err(error), _) | (_, Err(error)) => (Vec::new(), Some(error)),
        };
        match self.walk(&lists, at) {
            Ok(()) => {}
            Err(PathError::CertRevoked) => {
                self.named_by_none(of_root, of_issuer)?;
                return Err(ChainError::Revoked(self.name.to_owned()));
            }
            Err(PathError::CertExpired { .. } | PathError::CertNotValidYet { .. }) => {
                self.in_time(at)?;
                return Err(ChainError::Expired(self.name.to_owned()));
            }
            Err(other) => return Err(ChainError::Untrusted { name: self.name.to_owned(), reason: other.to_string() }),
        }
        // webpki does not look at the dates of a trust anchor, nor for it in a list.
        self.in_time(at)?;
        if let Some(error) = missing {
            return Err(error);
        }
        self.named_by_none(of_root, of_issuer)?;
        let windows = self.dated.iter().map(|(_, window)| *window).chain(lists.iter().map(|list| list.window));
        Ok(steady(windows, at))
    }

    /// webpki's part. Without lists it looks at signatures, dates and constraints only; the caller then has its reason to
    /// refuse already.
    fn walk(&self, lists: &[&List], at: u64) -> Result<(), PathError> {
        let leaf = CertificateDer::from(self.leaf);
        let root = CertificateDer::from(self.root.der.as_slice());
        let anchor = [webpki::anchor_from_trusted_cert(&root)?];
        let between: Vec<CertificateDer<'_>> =
            self.issuer.iter().map(|issuer| CertificateDer::from(issuer.der.as_slice())).collect();
        let read: Vec<&CertRevocationList<'_>> = lists.iter().map(|list| &list.read).collect();
        let revocation = RevocationOptionsBuilder::new(&read).ok().map(|options| {
            options
                .with_depth(RevocationCheckDepth::Chain)
                .with_status_policy(UnknownStatusPolicy::Deny)
                .with_expiration_policy(ExpirationPolicy::Enforce)
                .build()
        });
        let time = UnixTime::since_unix_epoch(Duration::from_secs(at));
        let end_entity = EndEntityCert::try_from(&leaf)?;
        // Intel's certificates name no extended key usage, so that webpki's question for one has no effect.
        let usage = KeyUsage::server_auth();
        let path = end_entity.verify_for_usage(&INTEL_CHAIN, &anchor, &between, time, usage, revocation, None)?;
        // A PCK certificate that the root itself had issued would be looked up in the wrong list.
        let straight = path.intermediate_certificates().count() == between.len();
        if straight { Ok(()) } else { Err(PathError::UnknownIssuer) }
    }

    fn in_time(&self, at: u64) -> Result<(), ChainError> {
        match self.dated.iter().find(|(_, window)| !window.contains(at)) {
            Some((name, _)) => Err(ChainError::Expired(name.clone())),
            None => Ok(()),
        }
    }

    /// Being on any list of its issuer's, however old, revokes. The root is looked up in its own.
    fn named_by_none(&self, of_root: &[&List], of_issuer: &[&List]) -> Result<(), ChainError> {
        let between = self.issuer.map(|issuer| (issuer.der.as_slice(), issuer.name.as_str(), of_root));
        let leaf = (self.leaf, self.name, if between.is_some() { of_issuer } else { of_root });
        let root = (self.root.der.as_slice(), self.root.name.as_str(), of_root);
        for (der, name, lists) in [Some(leaf), between, Some(root)].into_iter().flatten() {
            let certificate =
                x509::certificate(der).map_err(|error| ChainError::Certificate("a certificate", error))?;
            if lists.iter().any(|list| list.names(certificate.raw_serial())) {
                return Err(ChainError::Revoked(name.to_owned()));
            }
        }
        Ok(())
    }
}

/// The newest current list.
fn newest<'l>(lists: &[&'l List], issuer: &str, at: u64) -> Result<&'l List, ChainError> {
    if lists.is_empty() {
        return Err(ChainError::NoList(issuer.to_owned()));
    }
    let current = lists.iter().copied().filter(|list| list.window.contains(at));
    current
        .max_by_key(|list| (list.window.from, list.window.until))
        .ok_or_else(|| ChainError::ListExpired(issuer.to_owned()))
}
