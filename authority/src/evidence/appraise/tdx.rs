//! What policy demands of a TDX quote beside its measurements: no way in for the host or another TD, and a platform
//! whose status, advisories and flags are accepted by name.

use inwit_protocol::refusal::{Refusal, RefusalCode};

use crate::evidence::claims::{PckFlag, TdxClaims};
use crate::evidence::fields::Short;
use crate::evidence::policy::{Permission, Requirement, TdxPolicy};

/// XFAM bits that must be one, and those that may be (TDX module ABI 348551, "XFAM").
const XFAM_DEMANDED: u64 = 0x3;
const XFAM_KNOWN: u64 = 0x6_dbe7;

/// `sept_ve_disable` is demanded of every TD but a paravisor's, of which Azure's policy decides.
pub(super) fn appraise(claims: &TdxClaims, policy: &TdxPolicy, sept_ve_disable: Requirement) -> Result<(), Refusal> {
    attributes(claims)?;
    modes(claims, sept_ve_disable)?;
    extension(claims)?;
    features(claims)?;
    status(claims, policy)?;
    flags(claims, policy)?;
    registers(claims, policy)
}

/// Modes in which somebody else can read or steer the TD. No policy allows them; without SEPT_VE_DISABLE the host can take
/// pages away and have the TD handle the exception, which a paravisor may be known to do rightly.
fn modes(claims: &TdxClaims, sept_ve_disable: Requirement) -> Result<(), Refusal> {
    let attributes = claims.td_attributes;
    let pullable = sept_ve_disable == Requirement::Demanded && !attributes.sept_ve_disable();
    let forbidden = [
        (attributes.under_debug(), RefusalCode::DebugEnabled, "the TD runs in debug or profiling mode"),
        (attributes.migratable(), RefusalCode::DebugEnabled, "the TD is migratable"),
        (pullable, RefusalCode::PolicyForbids, "SEPT_VE_DISABLE is not set"),
        (
            claims.service_td_bound() || attributes.service_td_extension(),
            RefusalCode::PolicyForbids,
            "a service TD is or may be bound to the TD",
        ),
    ];
    match forbidden.into_iter().find(|(on, _, _)| *on) {
        Some((_, code, cause)) => Err(Refusal::new(code, cause)),
        None => Ok(()),
    }
}

/// A TD that is partitioned, or that took devices in: nobody has judged what else is then inside with the agent.
fn extension(claims: &TdxClaims) -> Result<(), Refusal> {
    let cause = match claims.extension {
        Some(told) if told.vm_id != 0 => "a VM inside of a partitioned TD asked for the quote",
        Some(told) if told.device_info != [0; 48] => "devices were taken into the TD",
        _ => return Ok(()),
    };
    Err(Refusal::new(RefusalCode::PolicyForbids, cause))
}

/// An attribute whose meaning is not known may open the TD in a way that nobody has judged.
fn attributes(claims: &TdxClaims) -> Result<(), Refusal> {
    match claims.td_attributes.reserved() {
        0 => Ok(()),
        reserved => {
            let cause = format!("reserved bits {reserved:#x} of TDATTRIBUTES are set");
            Err(Refusal::new(RefusalCode::PolicyForbids, cause))
        }
    }
}

/// The same for CPU features.
fn features(claims: &TdxClaims) -> Result<(), Refusal> {
    let xfam = claims.xfam;
    if xfam & XFAM_DEMANDED != XFAM_DEMANDED || xfam & !XFAM_KNOWN != 0 {
        let cause = format!("XFAM {xfam:#x} lacks a demanded CPU feature or has one that is not known here");
        return Err(Refusal::new(RefusalCode::Unsupported, cause));
    }
    Ok(())
}

fn status(claims: &TdxClaims, policy: &TdxPolicy) -> Result<(), Refusal> {
    // What the TD was launched on, and what runs now where the quote tells: either may be the older one.
    for (when, status) in [("", Some(claims.tcb_status)), (" of what runs now", claims.current_status)] {
        if let Some(status) = status.filter(|status| !policy.accepted_status.contains(status)) {
            let advisories = claims.advisory_ids.join(" ");
            let cause = format!("platform status {status}{when} is not accepted; advisories: {advisories}");
            return Err(Refusal::new(RefusalCode::TcbTooOld, cause));
        }
    }
    let unnamed = claims.advisory_ids.iter().find(|advisory| !policy.accepted_advisories.contains(*advisory));
    if let Some(advisory) = unnamed {
        let cause = format!("{advisory} applies to the platform and policy does not accept it");
        return Err(Refusal::new(RefusalCode::TcbTooOld, cause));
    }
    if claims.tcb_evaluation_number < policy.minimum_tcb_evaluation_number {
        let cause = format!(
            "the collateral's evaluation number is {}, policy demands {}",
            claims.tcb_evaluation_number, policy.minimum_tcb_evaluation_number
        );
        return Err(Refusal::new(RefusalCode::EndorsementExpired, cause));
    }
    Ok(())
}

fn flags(claims: &TdxClaims, policy: &TdxPolicy) -> Result<(), Refusal> {
    let flags = [
        ("a dynamic platform", claims.dynamic_platform, policy.dynamic_platform),
        ("cached platform keys", claims.cached_keys, policy.cached_keys),
        ("SMT", claims.smt_enabled, policy.smt),
    ];
    for (what, flag, permission) in flags {
        // Processor CA certificates state none of these: single-socket platforms, on which only SMT could be on, and
        // Intel gives no way to know it. Not stated is therefore not taken as forbidden.
        if (flag, permission) == (PckFlag::Yes, Permission::Forbidden) {
            return Err(Refusal::new(RefusalCode::PolicyForbids, format_args!("policy forbids {what}")));
        }
    }
    Ok(())
}

/// What the host chose at launch, and the module by its measurement.
fn registers(claims: &TdxClaims, policy: &TdxPolicy) -> Result<(), Refusal> {
    let registers = [
        ("MRCONFIGID", &claims.mr_config_id, &policy.mr_config_id),
        ("MROWNER", &claims.mr_owner, &policy.mr_owner),
        ("MROWNERCONFIG", &claims.mr_owner_config, &policy.mr_owner_config),
        ("MRSEAM", &claims.mr_seam, &policy.mr_seam),
    ];
    match registers.into_iter().find(|(_, value, demanded)| !demanded.admits(value)) {
        Some((name, value, _)) => {
            let cause = format!("{name} ({}) is not one that policy names", Short(value));
            Err(Refusal::new(RefusalCode::PolicyForbids, cause))
        }
        None => Ok(()),
    }
}
