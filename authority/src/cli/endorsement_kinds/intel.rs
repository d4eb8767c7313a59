//! Intel's endorsements: what the provisioning certification service answers with (API v3 and v4), and documents that hold
//! several of its answers. Told apart by names and members only; signatures are looked at when a root is made of them.

use super::{Piece, recognise};
use data_encoding::HEXLOWER_PERMISSIVE;
use serde_json::Value;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

/// Chains of a collateral document.
const CHAINS: [&str; 3] = ["tcb_info_issuer_chain", "qe_identity_issuer_chain", "pck_crl_issuer_chain"];

/// A certificate of Intel's, by its common name, of which `self_issued` says whether it names itself as issuer.
pub(super) fn certificate(subject: &str, self_issued: bool, der: &[u8]) -> Option<Result<Piece, String>> {
    if subject.contains("SGX Root CA") {
        let refused = || format!("named {subject:?} and issued by another: it is no root");
        let root = self_issued.then(|| Piece::TdxRoot(subject.to_owned(), der.to_vec()));
        return Some(root.ok_or_else(refused));
    }
    if subject.contains("SGX PCK Certificate") {
        return Some(Ok(Piece::Unneeded("a quote brings the certificate of its platform itself")));
    }
    let carried = subject.contains("SGX PCK") || subject.contains("SGX TCB Signing");
    carried.then(|| Ok(Piece::IntelCertificate(der.to_vec())))
}

/// A revocation list in the name of one of Intel's authorities.
pub(super) fn list(issuer: &str, der: &[u8]) -> Option<Piece> {
    let ours = ["SGX Root CA", "SGX PCK Platform CA", "SGX PCK Processor CA"].iter().any(|name| issuer.contains(name));
    ours.then(|| Piece::IntelList(der.to_vec()))
}

/// A revocation list as hexadecimal text of its DER, in which API v3 hands it out.
pub(super) fn hexadecimal_list(text: &str) -> Option<Vec<u8>> {
    let digits: String = text.split_ascii_whitespace().collect();
    let der = digits.starts_with("30").then(|| HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).ok()).flatten()?;
    matches!(CertificateRevocationList::from_der(&der), Ok(([], _))).then_some(der)
}

/// A document of Intel's. `None` when it is another's.
pub(super) fn document(json: &Value, bytes: &[u8]) -> Option<Result<Piece, String>> {
    let has = |name: &str| json.get(name).is_some();
    if has("tcb_info") && has("qe_identity") {
        let sgx = inner(json, "tcb_info").is_some_and(|info| for_sgx(&info));
        return Some(Ok(if sgx { Piece::Unneeded(FOR_SGX) } else { Piece::Collateral(bytes.to_vec()) }));
    }
    let part = ["tcbInfo", "enclaveIdentity"].into_iter().find(|name| has(name))?;
    if json.get(part).is_some_and(for_sgx) {
        return Some(Ok(Piece::Unneeded(FOR_SGX)));
    }
    if json.get("signature").is_none_or(|signature| !signature.is_string()) {
        return Some(Err(format!("{part} without its signature: keep the whole answer of Intel's service")));
    }
    let bytes = bytes.to_vec();
    Some(Ok(if part == "tcbInfo" { Piece::TcbInfo(bytes) } else { Piece::QeIdentity(bytes) }))
}

const FOR_SGX: &str = "for SGX, not for TDX";

/// TCB info of version 2 and identities without an id are for SGX.
fn for_sgx(part: &Value) -> bool {
    !matches!(part.get("id").and_then(Value::as_str), Some("TDX" | "TD_QE"))
}

/// A document that stands as text in another one.
fn inner(json: &Value, name: &str) -> Option<Value> {
    serde_json::from_str(json.get(name)?.as_str()?).ok()
}

/// What says that it is Intel's root, in the chains that collateral brings along: no more trusted than the collateral is.
pub(in super::super) fn carried_roots(document: &[u8]) -> Vec<(String, Vec<u8>)> {
    let json: Value = serde_json::from_slice(document).unwrap_or_default();
    let chain = json.get("tcb_info_issuer_chain").and_then(Value::as_str).unwrap_or_default().as_bytes();
    let root = |piece| match piece {
        Piece::TdxRoot(name, der) => Some((name, der)),
        _ => None,
    };
    recognise(chain).unwrap_or_default().into_iter().filter_map(root).collect()
}

/// A collateral document (QuoteCollateralV3) taken apart into the service's answers, each signed text exactly as it was.
///
/// # Errors
/// The member that is missing or is not what its name says.
pub(in super::super) fn parts(document: &[u8]) -> Result<Vec<Piece>, String> {
    let json: Value = serde_json::from_slice(document).map_err(|error| format!("not JSON: {error}"))?;
    let text = |name: &str| json.get(name).and_then(Value::as_str).ok_or_else(|| format!("collateral without {name}"));
    let answer = |outer: &str, name: &str| -> Result<Vec<u8>, String> {
        // The text that was signed goes in as it is, between what the service puts around it.
        let (signed, signature) = (text(name)?, text(&format!("{name}_signature"))?);
        Ok(format!("{{\"{outer}\":{signed},\"signature\":\"{signature}\"}}").into_bytes())
    };
    let mut pieces = Vec::new();
    for bytes in [answer("tcbInfo", "tcb_info")?, answer("enclaveIdentity", "qe_identity")?] {
        pieces.extend(recognise(&bytes).map_err(|error| error.to_string())?);
    }
    for name in ["root_ca_crl", "pck_crl"] {
        let der =
            hexadecimal_list(text(name)?).ok_or_else(|| format!("{name} is no revocation list in hexadecimal"))?;
        pieces.extend(recognise(&der).map_err(|error| format!("{name}: {error}"))?);
    }
    for chain in CHAINS {
        // Of the three only this one is left out by some who assemble collateral.
        let Ok(chain) = text(chain) else { continue };
        pieces.extend(recognise(chain.as_bytes()).map_err(|error| error.to_string())?);
    }
    Ok(pieces)
}
