//! One endorsement as the store sees it: what it is in the vendor's words, from when until when it counts, and which other
//! one it would replace. Reads what is written in it; that it is true is for the signature under its root to say.

use super::super::endorsement_kinds::{Piece, parts, table_pieces};
use super::super::endorsement_sources::Place;
use crate::audit::hex;
use crate::evidence::x509::{self, Window};
use crate::evidence::{Product, TdxPart};
use inwit_protocol::evidence::Platform;
use inwit_protocol::primitives::sha256;
use std::collections::BTreeSet;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

/// hwID of a VCEK certificate (AMD publication 57230).
const HWID: &str = "1.3.6.1.4.1.3704.1.4";

/// What an endorsement is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Kind {
    /// ARK.
    AmdRoot(Product),
    /// ASK or ASVK.
    AmdIntermediate(Product),
    /// A list that the ARK signed.
    AmdList(Product),
    /// VCEK or VLEK.
    AmdKey(Product),
    /// Intel SGX Root CA.
    IntelRoot,
    /// A TCB signer or a PCK CA.
    IntelCertificate,
    /// A list of the root or of a PCK CA.
    IntelList,
    /// TCB info of one platform family.
    TcbInfo,
    /// Identity of the TD quoting enclave.
    QeIdentity,
    /// Digest of a TPM's attestation key.
    AttestationKey,
}

impl Kind {
    pub(in super::super) fn platform(self) -> Platform {
        match self {
            Self::AmdRoot(_) | Self::AmdIntermediate(_) | Self::AmdList(_) | Self::AmdKey(_) => Platform::Snp,
            Self::IntelRoot | Self::IntelCertificate | Self::IntelList | Self::TcbInfo | Self::QeIdentity => {
                Platform::Tdx
            }
            Self::AttestationKey => Platform::Vtpm,
        }
    }

    /// Its place in a list: from the root down.
    pub(super) fn depth(self) -> u8 {
        match self {
            Self::AmdRoot(_) | Self::IntelRoot | Self::AttestationKey => 0,
            Self::AmdIntermediate(_) | Self::IntelCertificate => 1,
            Self::AmdList(_) | Self::IntelList => 2,
            Self::TcbInfo | Self::QeIdentity | Self::AmdKey(_) => 3,
        }
    }

    /// Whether trust begins with it.
    pub(in super::super) fn is_root(self) -> bool {
        matches!(self, Self::AmdRoot(_) | Self::IntelRoot | Self::AttestationKey)
    }
}

/// One endorsement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Item {
    pub(in super::super) kind: Kind,
    /// In the vendor's words, with the product, chip or platform family that it is for.
    pub(in super::super) name: String,
    /// Common name of who issued it; empty for a key's digest.
    pub(in super::super) issuer: String,
    /// A key's digest has no dates.
    pub(in super::super) window: Option<Window>,
    /// Of two for the same thing the higher one is the newer: tcbEvaluationDataNumber, then the first second.
    pub(in super::super) rank: (u64, u64),
    /// What it is for: two of the same slot under one root stand for the same thing.
    pub(in super::super) slot: String,
    /// Serial numbers that a revocation list names.
    pub(in super::super) serials: BTreeSet<Vec<u8>>,
    /// DER, the document as it was handed out, or the 32 bytes of a key's digest.
    pub(in super::super) bytes: Vec<u8>,
}

/// A piece of a file as endorsements: what holds several is taken apart, and a root in it vouches for nothing.
///
/// # Errors
/// One line on the part that is not understood.
pub(in super::super) fn items(piece: Piece, place: Place) -> Result<Vec<(Item, Place)>, String> {
    let pieces = match piece {
        Piece::Unneeded(_) => return Ok(Vec::new()),
        Piece::Unusable(spoilt) => return Err(spoilt.cause),
        Piece::Collateral(document) => parts(&document)?,
        Piece::Table(table) => table_pieces(&table)?,
        Piece::AttestationKeys(keys) => return Ok(keys.iter().map(|key| (attestation_key(key), place)).collect()),
        other => return Item::of(other).map(|item| item.into_iter().map(|item| (item, place)).collect()),
    };
    let mut items = Vec::new();
    for piece in pieces {
        let Some(item) = Item::of(piece)? else { continue };
        let place = if item.kind.is_root() { Place::Carried } else { place };
        items.push((item, place));
    }
    Ok(items)
}

impl Item {
    fn of(piece: Piece) -> Result<Option<Self>, String> {
        let item = match piece {
            Piece::Ark(product, der) => certificate(Kind::AmdRoot(product), der),
            Piece::Intermediate(product, der) => certificate(Kind::AmdIntermediate(product), der),
            Piece::List(product, der) => list(Kind::AmdList(product), der),
            Piece::Vek(_, der) => certificate_of_chip(der),
            Piece::TdxRoot(_, der) => certificate(Kind::IntelRoot, der),
            Piece::IntelCertificate(der) => certificate(Kind::IntelCertificate, der),
            Piece::IntelList(der) => list(Kind::IntelList, der),
            Piece::TcbInfo(json) => document(Kind::TcbInfo, "tcbInfo", json),
            Piece::QeIdentity(json) => document(Kind::QeIdentity, "enclaveIdentity", json),
            Piece::Collateral(_) | Piece::Table(_) | Piece::AttestationKeys(_) | Piece::Unneeded(_) => return Ok(None),
            Piece::Unusable(spoilt) => return Err(spoilt.cause),
        };
        item.map(Some)
    }

    /// SHA-256 of the bytes, for a key the digest that it is.
    pub(in super::super) fn digest(&self) -> [u8; 32] {
        match <[u8; 32]>::try_from(self.bytes.as_slice()) {
            Ok(digest) if self.kind == Kind::AttestationKey => digest,
            _ => sha256(&self.bytes),
        }
    }

    /// What it is to a TDX root.
    pub(in super::super) fn tdx_part(&self) -> Option<TdxPart<'_>> {
        match self.kind {
            Kind::IntelCertificate => Some(TdxPart::Certificate(&self.bytes)),
            Kind::IntelList => Some(TdxPart::List(&self.bytes)),
            Kind::TcbInfo => Some(TdxPart::TcbInfo(&self.bytes)),
            Kind::QeIdentity => Some(TdxPart::QeIdentity(&self.bytes)),
            _ => None,
        }
    }

    /// The name of its own file within the folder of its root.
    pub(in super::super) fn file(&self) -> String {
        let digest = hex(&self.digest());
        let short = digest.get(..16).unwrap_or_default();
        match self.kind {
            Kind::AmdRoot(_) => "ark.der".to_owned(),
            Kind::IntelRoot => "root.der".to_owned(),
            Kind::AmdIntermediate(_) if self.name.starts_with("ASVK") => format!("asvk-{short}.der"),
            Kind::AmdIntermediate(_) => format!("ask-{short}.der"),
            Kind::AmdKey(_) => format!("veks/{short}.der"),
            Kind::IntelCertificate => format!("certificate-{short}.der"),
            Kind::AmdList(_) | Kind::IntelList => format!("{short}.crl"),
            Kind::TcbInfo => format!("tcb-info-{short}.json"),
            Kind::QeIdentity => format!("qe-identity-{short}.json"),
            Kind::AttestationKey => "attestation-keys".to_owned(),
        }
    }
}

fn attestation_key(digest: &[u8; 32]) -> Item {
    Item {
        kind: Kind::AttestationKey,
        name: "TPM attestation key".to_owned(),
        issuer: String::new(),
        window: None,
        rank: (0, 0),
        slot: hex(digest),
        serials: BTreeSet::new(),
        bytes: digest.to_vec(),
    }
}

fn certificate(kind: Kind, der: Vec<u8>) -> Result<Item, String> {
    let read = x509::certificate(&der).map_err(|error| error.to_string())?;
    let subject = x509::common_name(read.subject()).unwrap_or_default();
    let name = match kind {
        Kind::AmdIntermediate(_) if subject.contains("VLEK") => format!("ASVK ({subject})"),
        Kind::AmdIntermediate(_) => format!("ASK ({subject})"),
        _ => subject.to_owned(),
    };
    named(kind, name, &read, der.clone())
}

fn named(kind: Kind, name: String, read: &X509Certificate<'_>, bytes: Vec<u8>) -> Result<Item, String> {
    let window = Window::of(read.validity()).map_err(|error| error.to_string())?;
    let subject = x509::common_name(read.subject()).unwrap_or_default();
    Ok(Item {
        kind,
        issuer: x509::common_name(read.issuer()).unwrap_or_default().to_owned(),
        window: Some(window),
        rank: (0, window.from),
        slot: format!("{subject} {}", hex(&sha256(read.public_key().raw))),
        serials: BTreeSet::new(),
        name,
        bytes,
    })
}

/// VCEK or VLEK, with the chip that it is for.
fn certificate_of_chip(der: Vec<u8>) -> Result<Item, String> {
    let read = x509::certificate(&der).map_err(|error| error.to_string())?;
    let (subject, issuer) = (x509::common_name(read.subject()), x509::common_name(read.issuer()));
    let issuer = issuer.and_then(|issuer| issuer.strip_prefix("SEV-")).unwrap_or_default();
    let named_for = issuer.strip_prefix("VLEK-").unwrap_or(issuer);
    let product = Product::from_name(named_for).ok_or("a VEK certificate of a product that is not known here")?;
    let hwid = read.extensions().iter().find(|extension| extension.oid.to_id_string() == HWID);
    // The value, with or without an OCTET STRING's two bytes around it, as AMD has written both; it is for people only.
    let chip = hwid.map(|extension| extension.value.strip_prefix(&[4, 64]).unwrap_or(extension.value));
    let key = subject.unwrap_or_default().trim_start_matches("SEV-");
    let name = match chip.and_then(|chip| chip.get(..8)) {
        Some(chip) => format!("{key} of {product} chip {}", hex(chip)),
        None => format!("{key} of {product}"),
    };
    named(Kind::AmdKey(product), name, &read, der.clone())
}

fn list(kind: Kind, der: Vec<u8>) -> Result<Item, String> {
    let Ok(([], read)) = CertificateRevocationList::from_der(&der) else {
        return Err("not a DER certificate revocation list".to_owned());
    };
    let issuer = x509::common_name(read.issuer()).unwrap_or_default().to_owned();
    let seconds = |time: i64| u64::try_from(time).map_err(|_| "a date in it cannot be represented".to_owned());
    let until = read.next_update().ok_or("the revocation list does not say when the next one is due")?;
    let window = Window { from: seconds(read.last_update().timestamp())?, until: seconds(until.timestamp())? };
    Ok(Item {
        kind,
        name: format!("revocation list of {issuer}"),
        window: Some(window),
        rank: (0, window.from),
        slot: issuer.clone(),
        serials: read.iter_revoked_certificates().map(|entry| entry.raw_serial().to_vec()).collect(),
        issuer,
        bytes: der,
    })
}

fn document(kind: Kind, member: &str, bytes: Vec<u8>) -> Result<Item, String> {
    let json: serde_json::Value = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    let text = |name: &str| json.pointer(&format!("/{member}/{name}")).and_then(serde_json::Value::as_str);
    let moment = |name: &str| {
        let time = text(name).and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
        let seconds = time.and_then(|time| u64::try_from(time.unix_timestamp()).ok());
        seconds.ok_or_else(|| format!("{member} without a date in {name}"))
    };
    let window = Window { from: moment("issueDate")?, until: moment("nextUpdate")? };
    let number = json.pointer(&format!("/{member}/tcbEvaluationDataNumber")).and_then(serde_json::Value::as_u64);
    let name = match kind {
        Kind::TcbInfo => format!("TCB info for FMSPC {}", text("fmspc").ok_or("tcbInfo without fmspc")?.to_lowercase()),
        _ => "identity of the TD quoting enclave".to_owned(),
    };
    Ok(Item {
        kind,
        issuer: "Intel SGX TCB Signing".to_owned(),
        window: Some(window),
        rank: (number.ok_or_else(|| format!("{member} without tcbEvaluationDataNumber"))?, window.from),
        slot: name.clone(),
        serials: BTreeSet::new(),
        name,
        bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_document_is_ranked_by_its_number_and_then_its_date() {
        let info = |number: u32, from: &str| {
            let inner = format!(
                r#"{{"id":"TDX","fmspc":"90C06F000000","issueDate":"{from}","nextUpdate":"2026-07-01T00:00:00Z","tcbEvaluationDataNumber":{number}}}"#
            );
            document(Kind::TcbInfo, "tcbInfo", format!(r#"{{"tcbInfo":{inner},"signature":""}}"#).into_bytes()).unwrap()
        };
        let (early, late) = (info(19, "2026-06-01T00:00:00Z"), info(18, "2026-06-02T00:00:00Z"));
        assert!(early.rank > late.rank && info(19, "2026-06-02T00:00:00Z").rank > early.rank);
        assert_eq!((early.slot.as_str(), &early.slot), ("TCB info for FMSPC 90c06f000000", &late.slot));
        assert!(document(Kind::TcbInfo, "tcbInfo", b"{\"tcbInfo\":{}}".to_vec()).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (document(Kind::QeIdentity, "enclaveIdentity", bytes.clone()), list(Kind::IntelList, bytes.clone()));
            let _ = (certificate(Kind::IntelRoot, bytes.clone()), certificate_of_chip(bytes));
        }
    }
}
