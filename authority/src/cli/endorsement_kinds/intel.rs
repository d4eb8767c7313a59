//! Intel's endorsements: what the provisioning certification service answers with (API v3 and v4), and documents that hold
//! several of its answers. Told apart by names and members only; signatures are looked at when a root is made of them.

use super::{NoEndorsement, Piece, Spoilt, list as any_list, pem_text, recognise};
use crate::evidence::TdxPart;
use data_encoding::HEXLOWER_PERMISSIVE;
use inwit_protocol::evidence::Platform;
use inwit_protocol::refusal::RefusalCode;
use serde_json::Value;

/// Chains of a collateral document.
const CHAINS: [&str; 3] = ["tcb_info_issuer_chain", "qe_identity_issuer_chain", "pck_crl_issuer_chain"];

/// A certificate of Intel's, by its common name, of which `self_issued` says whether it names itself as issuer.
pub(super) fn certificate(subject: &str, self_issued: bool, der: &[u8]) -> Option<Piece> {
    if subject.contains("SGX Root CA") {
        let cause = || format!("named {subject:?} and issued by another: it is no root");
        let spoilt = || Piece::Unusable(spoilt(RefusalCode::ChainUntrusted, cause()));
        return Some(if self_issued { Piece::TdxRoot(subject.to_owned(), der.to_vec()) } else { spoilt() });
    }
    if subject.contains("SGX PCK Certificate") {
        return Some(Piece::Unneeded("a quote brings the certificate of its platform itself".to_owned()));
    }
    let carried = subject.contains("SGX PCK") || subject.contains("SGX TCB Signing");
    carried.then(|| Piece::IntelCertificate(der.to_vec()))
}

/// Something of Intel's that cannot be used.
fn spoilt(code: RefusalCode, cause: String) -> Spoilt {
    Spoilt { code, platform: Some(Platform::Tdx), cause }
}

/// A revocation list in the name of one of Intel's authorities.
pub(super) fn list(issuer: &str, der: &[u8]) -> Option<Piece> {
    let ours = ["SGX Root CA", "SGX PCK Platform CA", "SGX PCK Processor CA"].iter().any(|name| issuer.contains(name));
    ours.then(|| Piece::IntelList(der.to_vec()))
}

/// DER as hexadecimal text, in which API v3 hands out revocation lists.
pub(super) fn hexadecimal(text: &str) -> Option<Vec<u8>> {
    let digits: String = text.split_ascii_whitespace().collect();
    let der = digits.starts_with("30").then(|| HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).ok()).flatten()?;
    super::looks_signed(&der).then_some(der)
}

/// A document of Intel's. `None` when it is another's.
pub(super) fn document(json: &Value, bytes: &[u8]) -> Option<Result<Piece, NoEndorsement>> {
    let has = |name: &str| json.get(name).is_some();
    if has("tcb_info") && has("qe_identity") {
        let sgx = inner(json, "tcb_info").is_some_and(|info| for_sgx(&info));
        return Some(Ok(if sgx { Piece::Unneeded(FOR_SGX.to_owned()) } else { Piece::Collateral(bytes.to_vec()) }));
    }
    if has("tcb_info") || has("qe_identity") {
        let missing = if has("tcb_info") { "qe_identity" } else { "tcb_info" };
        let cause = format!("no TDX collateral: {missing} is missing");
        return Some(Err(NoEndorsement::Spoilt(spoilt(RefusalCode::Malformed, cause))));
    }
    let part = ["tcbInfo", "enclaveIdentity"].into_iter().find(|name| has(name))?;
    if json.get(part).is_some_and(for_sgx) {
        return Some(Ok(Piece::Unneeded(FOR_SGX.to_owned())));
    }
    if json.get("signature").is_none_or(|signature| !signature.is_string()) {
        let cause = format!("{part} without its signature: keep the whole answer of Intel's service");
        return Some(Err(NoEndorsement::Spoilt(spoilt(RefusalCode::Malformed, cause))));
    }
    let bytes = bytes.to_vec();
    Some(Ok(if part == "tcbInfo" { Piece::TcbInfo(bytes) } else { Piece::QeIdentity(bytes) }))
}

/// Text that is not JSON and speaks of what only Intel's documents hold.
pub(super) fn broken_document(text: &[u8]) -> Option<Spoilt> {
    let held = |name: &&str| text.windows(name.len()).any(|window| window == name.as_bytes());
    let names = ["\"tcb_info\"", "\"qe_identity\"", "\"tcbInfo\"", "\"enclaveIdentity\""];
    names.iter().any(held).then(|| spoilt(RefusalCode::Malformed, "TDX collateral, but not JSON".to_owned()))
}

/// The platform family (FMSPC) that a part is for, as causes spell it; empty where it is for any or does not say.
pub(in super::super) fn family(part: &TdxPart<'_>) -> String {
    let (TdxPart::Collateral(bytes) | TdxPart::TcbInfo(bytes)) = part else { return String::new() };
    let json: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let info = inner(&json, "tcb_info").or_else(|| json.get("tcbInfo").cloned()).unwrap_or_default();
    let family = info.get("fmspc").and_then(Value::as_str).unwrap_or_default().to_ascii_lowercase();
    // What does not look like one was spoilt itself.
    if family.len() == 12 && family.bytes().all(|byte| byte.is_ascii_hexdigit()) { family } else { String::new() }
}

/// The certificates of an AMD platform as Azure's metadata service hands them to its guests.
pub(super) fn thim(json: &Value) -> Option<Result<Vec<Piece>, NoEndorsement>> {
    let text = |name: &str| json.get(name).and_then(Value::as_str);
    let (vek, chain) = (text("vcekCert")?, text("certificateChain").unwrap_or_default());
    Some(pem_text(&[vek, chain].join("\n")))
}

const FOR_SGX: &str = "for SGX, not for TDX";

/// TCB info of version 2 and identities without an id are for SGX. An id that nobody knows is for whoever judges it.
fn for_sgx(part: &Value) -> bool {
    matches!(part.get("id").and_then(Value::as_str), None | Some("SGX" | "QE" | "QVE"))
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
        let der = hexadecimal(text(name)?).ok_or_else(|| format!("{name} is no revocation list in hexadecimal"))?;
        pieces.push(any_list(&der).map_err(|error| format!("{name}: {error}"))?);
    }
    for chain in CHAINS {
        // Of the three only this one is left out by some who assemble collateral.
        let Ok(chain) = text(chain) else { continue };
        pieces.extend(recognise(chain.as_bytes()).map_err(|error| error.to_string())?);
    }
    Ok(pieces)
}
