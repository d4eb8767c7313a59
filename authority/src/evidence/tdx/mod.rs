//! TDX: from a quote and what is configured to authenticated claims, in the steps of Intel's algorithm (quote verification
//! library 4.1.2.4), each in its own file: outer form, PCK chain, collateral, quoting enclave, the quote's own signature,
//! then what the platform is. Trusts nothing that came with the quote; reads no network.
//!
//! Authentic says what Intel's hardware stated, agreeable or not: modes, attributes and statuses are judged by the
//! appraisal. Only what Intel has revoked, or does not know, is not authentic.
//!
//! A quote's digest is no identity. ECDSA lets anybody write a signature (r, s) as (r, n − s), for the quote and for the
//! PCK certificate in it, and nobody can tell which was the first; a chain's text may end with a zero byte or without.

mod attributes;
mod body;
mod chain;
mod collateral;
mod documents;
mod envelope;
mod issued;
mod parts;
mod pck;
mod pem;
mod quoting_enclave;
mod refusal;
mod sorted;
mod standing;
mod tcb;

use std::sync::Arc;

pub use attributes::{TcbStatus, TdAttributes};
pub use parts::{TdxPart, TdxRoot};
pub(crate) use standing::Standing as PartStanding;

use super::boot_log::explains_rtmrs;
use super::claims::{ModuleTcb, QuotingEnclaveTcb, TcbStanding, TdxClaims};
use super::crypto::ecdsa_p256;
use super::endorsements::Endorsements;
use body::Body;
use chain::{Pck, Presented, Trusted};
use collateral::{Collateral, lacking};
use documents::Standing;
use envelope::Envelope;
use quoting_enclave::Enclave;
use refusal::TdxError;
use tcb::{Evaluated, Measured};

/// What an authentic quote says, with the data that it was made over.
pub(super) struct Authenticated {
    pub(super) report_data: [u8; 64],
    pub(super) claims: TdxClaims,
}

/// Authenticates a quote of version 4 or 5. `log` is the CCEL event log, or nothing: then only the registers count.
pub(super) fn authenticate(quote: &[u8], log: &[u8], by: &Endorsements, at: u64) -> Result<Authenticated, TdxError> {
    let envelope = Envelope::parse(quote)?;
    if by.tdx.is_empty() {
        return Err(TdxError::NoRoot);
    }
    let presented = Presented::read(envelope.pck_chain)?;
    let trusted = Trusted::of(&by.tdx, &presented.root)?;
    let pck = presented.verify(&trusted, at).map_err(|error| lacking(error, &presented, &trusted))?;
    let collateral = Collateral::choose(&trusted, &pck, at)?;
    let enclave = enclave(&envelope, &trusted, &pck)?;
    let level = enclave.level(collateral.identity)?;
    let key = attestation_key(envelope.attestation_key);
    ecdsa_p256(&key, envelope.signed, envelope.signature).map_err(|_| TdxError::Signature)?;
    let body = Body::read(envelope.body)?;
    tcb::module(collateral.info, &body.tee_tcb_svn, &body.mr_signer_seam, body.seam_attributes)?;
    let measured = Measured {
        components: &pck.fields.components,
        pce_svn: pck.fields.pce_svn,
        tee_tcb_svn: &body.tee_tcb_svn,
        tee_tcb_svn2: body.later.as_ref().map(|(svn, _)| svn),
        enclave: &level.standing,
    };
    let evaluated = tcb::evaluate(collateral.info, &measured)?;
    if !log.is_empty() {
        explains_rtmrs(log, &body.rtmrs)?;
    }
    let found = Found { version: envelope.version, pck: &pck, enclave: &enclave, standing: &level.standing };
    Ok(Authenticated { report_data: body.report_data, claims: found.claims(&body, &evaluated, &collateral)? })
}

fn enclave(envelope: &Envelope<'_>, trusted: &Trusted<'_>, pck: &Pck) -> Result<Enclave, TdxError> {
    let presented = quoting_enclave::Presented {
        report: envelope.enclave_report,
        signature: envelope.enclave_signature,
        attestation_key: envelope.attestation_key,
        authentication_data: envelope.authentication_data,
    };
    Ok(presented.verify(&pck.key, &trusted.first()?.caches.enclaves)?)
}

/// x ‖ y as an uncompressed point.
fn attestation_key(coordinates: &[u8; 64]) -> [u8; 65] {
    let mut point = [4; 65];
    if let Some((_, rest)) = point.split_first_mut() {
        rest.copy_from_slice(coordinates);
    }
    point
}

/// What was found beside the body and its status.
struct Found<'a> {
    version: u16,
    pck: &'a Arc<Pck>,
    enclave: &'a Enclave,
    standing: &'a Standing,
}

impl Found<'_> {
    fn claims(
        &self,
        body: &Body,
        evaluated: &Evaluated<'_>,
        collateral: &Collateral<'_>,
    ) -> Result<TdxClaims, TdxError> {
        let module = evaluated.module.map(|(identity, level)| {
            let isvsvn = body.tee_tcb_svn[0];
            Ok::<_, TdxError>(ModuleTcb { id: identity.id.clone(), isvsvn, tcb: standing(&level.standing)? })
        });
        let module = module.transpose()?;
        let platform = standing(evaluated.platform)?;
        let enclave = QuotingEnclaveTcb { isvsvn: self.enclave.isvsvn, tcb: standing(self.standing)? };
        let parts = [Some(&platform), module.as_ref().map(|module| &module.tcb), Some(&enclave.tcb)];
        let launch = parts.into_iter().flatten().flat_map(|part| &part.advisory_ids);
        let now = evaluated.current.iter().flat_map(|current| current.advisory_ids.iter().copied().flatten());
        let mut advisory_ids: Vec<String> = launch.chain(now).cloned().collect();
        advisory_ids.sort();
        advisory_ids.dedup();
        let window =
            issued::steady([self.pck.window, collateral.window], self.pck.window.from.max(collateral.window.from));
        let fields = &self.pck.fields;
        Ok(TdxClaims {
            version: self.version,
            mrtd: body.mrtd,
            rtmrs: body.rtmrs,
            td_attributes: TdAttributes::of(body.td_attributes),
            xfam: u64::from_le_bytes(body.xfam),
            mr_config_id: body.mr_config_id,
            mr_owner: body.mr_owner,
            mr_owner_config: body.mr_owner_config,
            mr_seam: body.mr_seam,
            mr_service_td: body.later.map(|(_, service_td)| service_td),
            extension: body.extension,
            tee_tcb_svn: body.tee_tcb_svn,
            tee_tcb_svn2: body.later.map(|(svn, _)| svn),
            tcb_status: evaluated.status,
            current_status: evaluated.current.as_ref().map(|current| current.status),
            advisory_ids,
            platform,
            module,
            quoting_enclave: enclave,
            tcb_evaluation_number: collateral.info.evaluation_number.min(collateral.identity.evaluation_number),
            collateral_from: window.from,
            collateral_until: window.until,
            fmspc: fields.fmspc,
            dynamic_platform: fields.dynamic_platform,
            cached_keys: fields.cached_keys,
            smt_enabled: fields.smt_enabled,
        })
    }
}

/// One part's level as a claim. A revoked one never comes here: the whole would be.
fn standing(standing: &Standing) -> Result<TcbStanding, TdxError> {
    let status =
        TcbStatus::of(standing.status).ok_or(TdxError::Tcb(tcb::TcbError::Revoked("a part of the platform")))?;
    Ok(TcbStanding { status, date: standing.date, advisory_ids: standing.advisory_ids.clone() })
}
