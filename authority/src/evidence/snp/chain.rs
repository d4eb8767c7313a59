//! From a VEK certificate to a pinned AMD root key: ARK, ASK or ASVK, VEK. The root is the configured certificate, byte for
//! byte; nothing that a host sends can take its place. Three questions, in this order: was it issued under this root, is any
//! of it revoked, is all of it in its time. The first does not depend on the time, so a chain that nobody should trust is
//! never said to have expired, and its answer is kept; the other two are asked every time.

use std::sync::Arc;
use std::time::Duration;

use inwit_protocol::primitives::sha256;
use rustls_pki_types::{CertificateDer, UnixTime};
use thiserror::Error;
use time::OffsetDateTime;
use webpki::{EndEntityCert, Error as PathError, KeyUsage};

use super::tcb::Product;
use super::vek::{Origin, Vek};
use crate::evidence::cache::{Cache, Key};
use crate::evidence::crypto::{AMD_CHAIN, P384Key};
use crate::evidence::endorsements::{Dated, EndorsementError};
use crate::evidence::x509::{self, RevocationList, Window, X509Error};

/// Why a VEK does not lead to the configured root.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum ChainError {
    #[error("the VEK does not chain to the configured ARK-{product}: {reason}")]
    Untrusted { product: Product, reason: String },
    #[error("no {0} under the configured ARK is at hand, which issues such keys: import it")]
    NoLink(String),
    #[error("the certificate between VEK and ARK-{0}, or that ARK itself, is on a revocation list of AMD's")]
    Revoked(Product),
    #[error(
        "no revocation list of the configured ARK-{product} is current: the last of them is valid from {} to {} only",
        Day(window.from),
        Day(window.until)
    )]
    ListExpired { product: Product, window: Window },
    #[error("the {certificate} is valid from {} to {} only", Day(window.from), Day(window.until))]
    Expired { certificate: &'static str, window: Window },
}

impl ChainError {
    fn is_untrusted(&self) -> bool {
        matches!(self, Self::Untrusted { .. })
    }
}

/// Unix time as people read it.
struct Day(u64);

impl std::fmt::Display for Day {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let time = i64::try_from(self.0).ok().and_then(|time| OffsetDateTime::from_unix_timestamp(time).ok());
        match time {
            Some(time) => write!(f, "{}", time.date()),
            None => f.write_str("no time"),
        }
    }
}

/// Whether revocation was looked at. Where no list was imported it cannot be, and policy decides what that is worth.
/// AMD publishes two lists under one ARK, one beside VCEKs and one beside VLEKs, and nothing in their bytes tells which
/// one a list is: who accepts VLEKs imports both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// A current list of the ARK's is at hand, and none of its lists names the ARK or what it issued here. No more is
    /// said: not that the list is the one that AMD publishes for this kind of key.
    Checked,
    /// No list of the root is imported.
    NoList,
}

/// One trusted AMD root: the ARK of one product, with what AMD issued under it. Clones share what was verified with it.
#[derive(Clone, Debug)]
pub struct SnpRoot {
    product: Product,
    ark: Link,
    links: Vec<Link>,
    /// Subjects of intermediates that came with the root and that it did not issue.
    strangers: Vec<Vec<u8>>,
    revocations: Vec<RevocationList>,
    paths: Cache<Arc<Path>>,
}

/// A certificate that issues others: the ARK, or an ASK or ASVK under it.
#[derive(Clone, Debug)]
struct Link {
    der: Vec<u8>,
    digest: [u8; 32],
    /// Subject as it is written, for comparison with the VEK's issuer.
    subject: Vec<u8>,
    name: String,
    serial: Vec<u8>,
    window: Window,
}

impl Link {
    fn parse(der: &[u8]) -> Result<Self, X509Error> {
        let certificate = x509::certificate(der)?;
        x509::strict(der)?;
        x509::may_issue(&certificate)?;
        Ok(Self {
            der: der.to_vec(),
            digest: sha256(der),
            subject: certificate.subject().as_raw().to_vec(),
            name: x509::common_name(certificate.subject()).unwrap_or_default().to_owned(),
            serial: certificate.raw_serial().to_vec(),
            window: Window::of(certificate.validity())?,
        })
    }

    fn dated(&self, kind: &str) -> Dated {
        Dated { name: format!("{kind} ({})", self.name), from: self.window.from, until: self.window.until }
    }
}

/// A VEK that was issued under the root by way of one link: true at any time, whatever the dates say.
#[derive(Debug)]
struct Path {
    link_serial: Vec<u8>,
    link_window: Window,
    vek_window: Window,
    key: P384Key,
}

/// A VEK that its root vouches for at the time in question.
#[derive(Debug)]
pub(super) struct Endorsed {
    path: Arc<Path>,
    pub(super) revocation: Revocation,
}

impl Endorsed {
    /// The chip's or provider's key.
    pub(super) fn key(&self) -> &P384Key {
        &self.path.key
    }
}

impl SnpRoot {
    /// A root from DER: the ARK, its ASK and ASVK (those that there are), and its revocation lists. Without any list
    /// revocation is not checked; with lists, a current one must be among them when Evidence is judged.
    ///
    /// # Errors
    /// [`EndorsementError`] when the ARK is not self-signed or named for another product, or when an intermediate or a
    /// list is not signed by it. Dates are not looked at here: they are judged at the time of the Evidence.
    pub fn new(
        product: Product,
        ark: &[u8],
        intermediates: &[Vec<u8>],
        revocations: &[Vec<u8>],
    ) -> Result<Self, EndorsementError> {
        let root = x509::certificate(ark).map_err(EndorsementError::amd("ARK"))?;
        if x509::common_name(root.subject()) != Some(&format!("ARK-{product}")) {
            return Err(EndorsementError::Product { certificate: "ARK", product });
        }
        x509::verify_issued(&root, &root).map_err(EndorsementError::amd("ARK"))?;
        let mut links = Vec::new();
        for der in intermediates {
            let intermediate = x509::certificate(der).map_err(EndorsementError::amd("ASK or ASVK"))?;
            let name = x509::common_name(intermediate.subject());
            if ![format!("SEV-{product}"), format!("SEV-VLEK-{product}")].iter().any(|good| name == Some(good)) {
                return Err(EndorsementError::Product { certificate: "ASK or ASVK", product });
            }
            x509::verify_issued(&intermediate, &root).map_err(EndorsementError::amd("ASK or ASVK"))?;
            links.push(Link::parse(der).map_err(EndorsementError::amd("ASK or ASVK"))?);
        }
        let lists = revocations.iter().map(|der| RevocationList::verify(der, &root));
        Ok(Self {
            product,
            ark: Link::parse(ark).map_err(EndorsementError::amd("ARK"))?,
            links,
            strangers: Vec::new(),
            revocations: lists.collect::<Result<_, _>>().map_err(EndorsementError::amd("revocation list"))?,
            paths: Cache::default(),
        })
    }

    /// The same root, which knows of intermediates (DER) that were handed in with it and that it did not issue. They count
    /// for nothing: it is only not said that one of their name is missing.
    pub(crate) fn beside<'d>(mut self, strangers: impl Iterator<Item = &'d [u8]>) -> Self {
        let subject = |der| Some(x509::certificate(der).ok()?.subject().as_raw().to_vec());
        self.strangers = strangers.filter_map(subject).collect();
        self
    }

    /// The product that this root speaks for.
    pub fn product(&self) -> Product {
        self.product
    }

    /// Everything in it that has dates: the ARK, what it issued, and its revocation lists with number and length.
    pub fn dated(&self) -> Vec<Dated> {
        let link = |link: &Link| link.dated(if link.name.starts_with("SEV-VLEK-") { "ASVK" } else { "ASK" });
        let list = |list: &RevocationList| Dated {
            name: format!("{} ({})", list.title(), self.ark.name),
            from: list.window.from,
            until: list.window.until,
        };
        let lists = self.revocations.iter().map(list);
        std::iter::once(self.ark.dated("ARK")).chain(self.links.iter().map(link)).chain(lists).collect()
    }

    /// Verifies that `vek`, read from `der`, was issued under this root, is not revoked, and is valid `at` this time.
    /// `hint` is an intermediate that the host sent along: it is used only as a link of the path, and only where none
    /// of the configured ones does.
    pub(super) fn verify(&self, vek: &Vek, der: &[u8], hint: Option<&[u8]>, at: u64) -> Result<Endorsed, ChainError> {
        let named = |subject: &Vec<u8>| *subject == vek.issuer;
        if hint.is_none() && !self.links.iter().any(|link| named(&link.subject)) && !self.strangers.iter().any(named) {
            return Err(ChainError::NoLink(match vek.origin {
                Origin::Chip(_) => format!("SEV-{} (ASK)", self.product),
                Origin::Provider(_) => format!("SEV-VLEK-{} (ASVK)", self.product),
            }));
        }
        let mut outcome = Err(self.untrusted("neither imported nor sent along is the ASK or ASVK that issued it"));
        for link in self.links.iter().filter(|link| link.subject == vek.issuer) {
            match (self.by_way_of(link, vek, der, at), &outcome) {
                (Ok(endorsed), Err(_)) => outcome = Ok(endorsed),
                (Err(revoked @ ChainError::Revoked(_)), _) => return Err(revoked),
                // An outdated certificate is nearer to a good one than one that did not issue it.
                (Err(error), Err(further)) if further.is_untrusted() => outcome = Err(error),
                _ => {}
            }
        }
        let unlisted = hint.filter(|hint| outcome.is_err() && !self.links.iter().any(|link| link.der == *hint));
        let Some(hint) = unlisted else { return outcome };
        let sent = Link::parse(hint).map_err(|error| self.untrusted(error));
        match (sent.and_then(|link| self.by_way_of(&link, vek, der, at)), &outcome) {
            (Err(error), Err(nearer)) if error != ChainError::Revoked(self.product) && !nearer.is_untrusted() => {
                outcome
            }
            (sent, _) => sent,
        }
    }

    fn untrusted(&self, reason: impl ToString) -> ChainError {
        ChainError::Untrusted { product: self.product, reason: reason.to_string() }
    }

    fn by_way_of(&self, link: &Link, vek: &Vek, der: &[u8], at: u64) -> Result<Endorsed, ChainError> {
        let key = self.key_of(link, der);
        let path = self.paths.get_or_verify(key, at, || self.path(link, vek, der))?;
        let revocation = self.not_revoked(&path, at)?;
        for (certificate, window) in
            [("VEK", path.vek_window), ("ASK or ASVK", path.link_window), ("ARK", self.ark.window)]
        {
            if !window.contains(at) {
                return Err(ChainError::Expired { certificate, window });
            }
        }
        Ok(Endorsed { path, revocation })
    }

    /// Of everything that [`SnpRoot::path`] reads: both issuers by digest, which has one length, and the VEK.
    fn key_of(&self, link: &Link, der: &[u8]) -> Key {
        let length = u64::try_from(der.len()).unwrap_or(u64::MAX);
        sha256(&[&self.ark.digest, &link.digest, &length.to_be_bytes()[..], der].concat())
    }

    /// The path with the window in which all of its certificates are valid.
    fn path(&self, link: &Link, vek: &Vek, der: &[u8]) -> Result<(Window, Arc<Path>), ChainError> {
        let window = self.ark.window.intersection(link.window).intersection(vek.window);
        let Some(within) = window.first() else {
            return Err(self.untrusted("its certificates are never valid at the same time"));
        };
        let untrusted = |reason: PathError| self.untrusted(reason);
        let (ark, vek_der) = (CertificateDer::from(self.ark.der.as_slice()), CertificateDer::from(der));
        let anchor = [webpki::anchor_from_trusted_cert(&ark).map_err(untrusted)?];
        let links = [CertificateDer::from(link.der.as_slice())];
        // Signatures, names and constraints at a time at which no date is in their way.
        let time = UnixTime::since_unix_epoch(Duration::from_secs(within));
        let end_entity = EndEntityCert::try_from(&vek_der).map_err(untrusted)?;
        let path = end_entity
            .verify_for_usage(&AMD_CHAIN, &anchor, &links, time, KeyUsage::client_auth(), None, None)
            .map_err(untrusted)?;
        if path.intermediate_certificates().count() != 1 {
            return Err(self.untrusted("there must be exactly one certificate between them"));
        }
        let path = Path {
            link_serial: link.serial.clone(),
            link_window: link.window,
            vek_window: vek.window,
            key: P384Key::new(&vek.point).map_err(|_| self.untrusted("its key is not a point of P-384"))?,
        };
        Ok((window, Arc::new(path)))
    }

    /// Being on any list, however old, revokes; but only a current list shows that nothing was added. The lists are the
    /// ARK's and name what the ARK issued. A VEK is not looked up: its serial number is one of its ASK's (AMD's are all
    /// zero), and AMD publishes no list of an ASK or ASVK (publication 57230).
    fn not_revoked(&self, path: &Path, at: u64) -> Result<Revocation, ChainError> {
        let serials = [&path.link_serial, &self.ark.serial];
        if self.revocations.iter().any(|list| serials.iter().any(|serial| list.lists(serial))) {
            return Err(ChainError::Revoked(self.product));
        }
        let windows = self.revocations.iter().map(|list| list.window);
        match windows.clone().max_by_key(|window| window.until) {
            None => Ok(Revocation::NoList),
            Some(_) if windows.clone().any(|window| window.contains(at)) => Ok(Revocation::Checked),
            Some(window) => Err(ChainError::ListExpired { product: self.product, window }),
        }
    }
}
