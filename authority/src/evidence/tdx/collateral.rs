//! Which of Intel's documents a quote is judged by: the newest TCB info of the platform's family and the newest QE identity
//! that are current, signed by somebody whose path to the root is good now. Their own signatures were verified when they
//! were loaded.

use super::chain::{ChainError, Pck, Presented, Trusted, verify_signer};
use super::documents::{EnclaveDocument, TcbDocument};
use super::issued::steady;
use super::parts::{Held, Signed};
use super::refusal::TdxError;
use super::tcb::TcbError;
use crate::evidence::fields::Short;
use crate::evidence::x509::Window;

/// The documents that a quote is judged by, of signers that lead to the root.
pub(super) struct Collateral<'a> {
    pub(super) info: &'a TcbDocument,
    pub(super) identity: &'a EnclaveDocument,
    /// When documents, signers and their lists are valid.
    pub(super) window: Window,
}

impl<'a> Collateral<'a> {
    /// The newest of the platform family's TCB infos, and the newest QE identity, by Intel's evaluation number. Where those
    /// of the newest number have all ended `at` this time, an older number is never tried instead: it would call a platform
    /// good that Intel has since called bad.
    pub(super) fn choose(trusted: &Trusted<'a>, pck: &Pck, at: u64) -> Result<Self, TdxError> {
        let fmspc = pck.fields.fmspc;
        let key = |document: &TcbDocument| (document.window, document.evaluation_number);
        let (info, first) = newest(family(trusted, fmspc), || family_name(fmspc), key, trusted, at)?;
        if info.pce_id != pck.fields.pce_id {
            return Err(TcbError::PceId.into());
        }
        let identities = trusted.all().flat_map(|held| held.identities.iter().map(move |one| (held, one)));
        let key = |document: &EnclaveDocument| (document.window, document.evaluation_number);
        let (identity, second) = newest(identities, || "TD QE identity".to_owned(), key, trusted, at)?;
        Ok(Self { info, identity, window: steady([first, second], at) })
    }
}

/// The newest current document of those given, and when it and its signers are valid. Documents know their dates and their
/// number by `key`.
fn newest<'a, T>(
    documents: impl Iterator<Item = (&'a Held, &'a Signed<T>)>,
    name: impl Fn() -> String,
    key: impl Fn(&T) -> (Window, u32),
    trusted: &Trusted<'_>,
    at: u64,
) -> Result<(&'a T, Window), TdxError> {
    let mut documents = documents.peekable();
    if documents.peek().is_none() {
        return Err(TdxError::NoDocument(name()));
    }
    let issued = documents.filter(|(_, one)| key(&one.document).0.from <= at);
    let newest = issued.max_by_key(|(_, one)| {
        let (window, number) = key(&one.document);
        (number, window.contains(at), window.from, window.until)
    });
    let newest = newest.filter(|(_, one)| key(&one.document).0.contains(at));
    let (held, chosen) = newest.ok_or_else(|| TdxError::DocumentExpired(name()))?;
    let mut signers = chosen.signers.iter().filter_map(|number| held.signers.get(*number)).peekable();
    // The same key may have been certified anew: what is out of its dates is passed over while another is not.
    let mut windows = vec![key(&chosen.document).0];
    let last = signers.peek().map(|signer| signer.name.clone()).unwrap_or_default();
    for signer in signers.filter(|signer| signer.window.contains(at)) {
        windows.push(verify_signer(signer, trusted, at)?);
    }
    if windows.len() < 2 {
        return Err(TdxError::Chain(ChainError::Expired(last)));
    }
    Ok((&chosen.document, steady(windows, at)))
}

/// Where a list is all that is wrong and nothing is at hand for the platform's family at all, that is what to import.
pub(super) fn lacking(error: ChainError, presented: &Presented<'_>, trusted: &Trusted<'_>) -> TdxError {
    if !matches!(error, ChainError::NoList(_) | ChainError::ListExpired(_)) {
        return error.into();
    }
    match presented.fmspc() {
        Some(fmspc) if family(trusted, fmspc).next().is_none() => TdxError::NoDocument(family_name(fmspc)),
        _ => error.into(),
    }
}

/// Every TCB info of a platform family.
fn family<'a>(trusted: &Trusted<'a>, fmspc: [u8; 6]) -> impl Iterator<Item = (&'a Held, &'a Signed<TcbDocument>)> {
    let infos = trusted.all().flat_map(|held| held.infos.iter().map(move |info| (held, info)));
    infos.filter(move |(_, info)| info.document.fmspc == fmspc)
}

fn family_name(fmspc: [u8; 6]) -> String {
    format!("TDX collateral for FMSPC {} (TCB info)", Short(&fmspc))
}
