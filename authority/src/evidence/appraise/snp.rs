//! What policy demands of an SNP report beside its measurement: no way in for the host, the agent's privilege level, and
//! a platform that is new enough and cannot be rolled back (firmware ABI 56860).

use inwit_protocol::refusal::{Refusal, RefusalCode};

use crate::evidence::claims::{SnpClaims, SnpSigner};
use crate::evidence::fields::Short;
use crate::evidence::policy::{Demanded, Permission, SnpPolicy};
use crate::evidence::snp::Revocation;

pub(super) fn appraise(claims: &SnpClaims, policy: &SnpPolicy) -> Result<(), Refusal> {
    modes(claims)?;
    launch(claims, policy)?;
    owner(claims, policy)?;
    firmware(claims, policy)?;
    tcb(claims, policy)?;
    mitigations(claims, policy)
}

/// Modes in which somebody else can read the guest. No policy allows them.
fn modes(claims: &SnpClaims) -> Result<(), Refusal> {
    let forbidden = [
        (claims.policy.debug_allowed(), "the guest's policy allows debugging by the host"),
        (claims.policy.migration_agent_allowed(), "the guest's policy allows a migration agent"),
        (claims.migration_agent.is_some(), "a migration agent is bound to the guest"),
    ];
    match forbidden.into_iter().find(|(on, _)| *on) {
        Some((_, cause)) => Err(Refusal::new(RefusalCode::DebugEnabled, cause)),
        None => Ok(()),
    }
}

fn launch(claims: &SnpClaims, policy: &SnpPolicy) -> Result<(), Refusal> {
    let forbids = |cause: String| Err(Refusal::new(RefusalCode::PolicyForbids, cause));
    if claims.vmpl != policy.vmpl {
        let from = if claims.vmpl == u32::MAX { "the host".to_owned() } else { format!("VMPL {}", claims.vmpl) };
        return forbids(format!("the report was asked for by {from}, policy demands VMPL {}", policy.vmpl));
    }
    if policy.smt == Permission::Forbidden && (claims.policy.smt_allowed() || claims.platform_info.smt_enabled()) {
        return forbids("policy forbids SMT, and the launch policy or the platform allows it".to_owned());
    }
    if policy.without_revocation_list == Permission::Forbidden && claims.revocation == Revocation::NoList {
        let product = claims.product;
        let cause = format_args!("no revocation list of {product} is imported, and policy demands one");
        return Err(Refusal::new(RefusalCode::EndorsementMissing, cause));
    }
    let unset = policy.demanded_policy_bits & !claims.policy.bits();
    if unset != 0 {
        return forbids(format!("the guest's launch policy lacks demanded bits {unset:#x}"));
    }
    let missing = policy.demanded_platform_info & !claims.platform_info.bits();
    if missing != 0 {
        return forbids(format!("PLATFORM_INFO lacks demanded bits {missing:#x}"));
    }
    match &claims.signer {
        SnpSigner::Vlek { provider } if !policy.providers.contains(provider) => {
            forbids(format!("the report is signed with the VLEK of {provider}, which policy does not name"))
        }
        _ => Ok(()),
    }
}

/// What host and owner stated at launch: HOST_DATA, and the ID block with the keys that signed it. Zero stands in a report
/// for a key that did not sign, and no list admits that.
fn owner(claims: &SnpClaims, policy: &SnpPolicy) -> Result<(), Refusal> {
    let forbids = |cause: String| Err(Refusal::new(RefusalCode::PolicyForbids, cause));
    if !policy.host_data.admits(&claims.host_data) {
        return forbids(format!("HOST_DATA ({}) is none that policy names", Short(&claims.host_data)));
    }
    for (name, digest, demanded) in [
        ("ID block", &claims.id_key_digest, &policy.id_keys),
        ("ID key", &claims.author_key_digest, &policy.author_keys),
    ] {
        if *digest == [0; 48] && *demanded != Demanded::Any {
            return forbids(format!("policy names who may sign the {name}, and the guest was launched without that"));
        }
        if !demanded.admits(digest) {
            return forbids(format!("the key that signed the {name} ({}) is none that policy names", Short(digest)));
        }
    }
    if claims.guest_svn < policy.minimum_guest_svn {
        let cause = format!("GUEST_SVN is {}, policy demands {}", claims.guest_svn, policy.minimum_guest_svn);
        return Err(Refusal::new(RefusalCode::TcbTooOld, cause));
    }
    Ok(())
}

fn firmware(claims: &SnpClaims, policy: &SnpPolicy) -> Result<(), Refusal> {
    for (which, version) in [("running", claims.current_firmware), ("committed", claims.committed_firmware)] {
        if (version.major, version.minor) < policy.minimum_abi {
            let (major, minor) = policy.minimum_abi;
            let cause =
                format!("the {which} firmware is {}.{}, policy demands {major}.{minor}", version.major, version.minor);
            return Err(Refusal::new(RefusalCode::TcbTooOld, cause));
        }
    }
    Ok(())
}

fn tcb(claims: &SnpClaims, policy: &SnpPolicy) -> Result<(), Refusal> {
    let Some(minimum) = policy.minimum_tcb.get(&claims.product) else {
        let cause = format!("policy names no minimum TCB for {}, so it accepts none", claims.product);
        return Err(Refusal::new(RefusalCode::PolicyForbids, cause));
    };
    // The reported one is what the key stands for, the committed one cannot be rolled back, the launch one is what the
    // guest's first pages were measured under. The current one is at least the committed one.
    let demands = [
        ("REPORTED_TCB", &claims.reported_tcb, minimum),
        ("COMMITTED_TCB", &claims.committed_tcb, minimum),
        ("LAUNCH_TCB", &claims.launch_tcb, minimum),
        ("CURRENT_TCB", &claims.current_tcb, &claims.committed_tcb),
    ];
    for (name, have, need) in demands {
        if let Some(component) = have.older_than(need) {
            let cause = format!("{component} of {name} is older than demanded: {have}, not {need}");
            return Err(Refusal::new(RefusalCode::TcbTooOld, cause));
        }
    }
    Ok(())
}

fn mitigations(claims: &SnpClaims, policy: &SnpPolicy) -> Result<(), Refusal> {
    let demanded = policy.demanded_mitigations;
    let cause = match claims.mitigations {
        _ if demanded == 0 => return Ok(()),
        Some((launch, current)) if launch & current & demanded == demanded => return Ok(()),
        Some((launch, current)) => format!("mitigations {:#x} are missing", demanded & !(launch & current)),
        None => format!("a version {} report states no mitigations, and policy demands some", claims.version),
    };
    Err(Refusal::new(RefusalCode::TcbTooOld, cause))
}
