//! What policy demands of an Azure VM: of its TEE what is demanded of any, with the paravisor at VMPL 0; of the VM what
//! the paravisor says of its console, devices, Secure Boot, TPM and attestation key; and that a TPM quote says what booted.

use inwit_protocol::refusal::{Refusal, RefusalCode};

use super::{snp, tdx};
use crate::evidence::claims::{AzureClaims, AzureTee, RuntimeClaims};
use crate::evidence::policy::{AppraisalPolicy, AzurePolicy, Console, Permission, Requirement};

pub(super) fn appraise(claims: &AzureClaims, policy: &AppraisalPolicy) -> Result<(), Refusal> {
    match &claims.tee {
        AzureTee::Snp(claims) => snp::appraise(claims, &policy.paravisor)?,
        AzureTee::Tdx(claims) => tdx::appraise(claims, &policy.tdx, policy.azure.sept_ve_disable)?,
    }
    runtime(&claims.runtime, &policy.azure)?;
    if claims.tpm.is_none() {
        let cause = "the report of Azure's paravisor does not say what booted: send the TPM quote of HCLAkPub too";
        return Err(Refusal::new(RefusalCode::EvidenceMissing, cause));
    }
    Ok(())
}

/// What is not stated does not meet a demand.
fn runtime(claims: &RuntimeClaims, policy: &AzurePolicy) -> Result<(), Refusal> {
    let output_only = claims.interactive_console_enabled == Some(false);
    let interactive = claims.interactive_console_enabled == Some(true);
    let console = match policy.console {
        Console::Allowed => false,
        Console::OutputOnly => interactive || claims.console_enabled && !output_only,
        Console::Forbidden => interactive || claims.console_enabled,
    };
    let devices = policy.vpci_devices == Permission::Forbidden && claims.vpci_devices_allowed == Some(true);
    let demanded = |requirement, met: bool| requirement == Requirement::Demanded && !met;
    let unmet = [
        (console, "the VM has a serial console that policy forbids"),
        (demanded(policy.secure_boot, claims.secure_boot), "Secure Boot is off, and policy demands it"),
        (
            demanded(policy.tpm_persisted, claims.tpm_persisted == Some(true)),
            "the paravisor does not state tpm-persisted (attestation is not suppressed), and policy demands it",
        ),
        (devices, "the paravisor lets devices in that the host assigns, and policy forbids it"),
        (
            !policy.attestation_keys.admits(&claims.attestation_key),
            "HCLAkPub is none of the attestation keys that policy names",
        ),
        // A quote of a TPM that the VM is said not to have.
        (!claims.tpm_enabled, "the paravisor says that the VM has no TPM"),
    ];
    match unmet.into_iter().find(|(unmet, _)| *unmet) {
        Some((_, cause)) => Err(Refusal::new(RefusalCode::PolicyForbids, cause)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::policy::Demanded;

    fn claims(console: bool, interactive: Option<bool>) -> RuntimeClaims {
        RuntimeClaims {
            attestation_key: [0; 32],
            console_enabled: console,
            interactive_console_enabled: interactive,
            secure_boot: true,
            tpm_enabled: true,
            tpm_persisted: None,
            vpci_devices_allowed: None,
            hardware_sealing_policy: None,
            root_certificate_thumbprint: None,
            vm_unique_id: None,
            current_time: None,
            user_data: None,
        }
    }

    fn policy(console: Console) -> AzurePolicy {
        AzurePolicy {
            console,
            secure_boot: Requirement::Demanded,
            tpm_persisted: Requirement::NotDemanded,
            sept_ve_disable: Requirement::Demanded,
            attestation_keys: Demanded::Any,
            vpci_devices: Permission::Forbidden,
            demanded_pcrs: [0, 4, 7, 9].into(),
        }
    }

    #[test]
    fn a_console_is_judged_by_what_the_host_can_do_with_it() {
        for (console, interactive, none, output, any) in [
            (false, None, true, true, true),
            (false, Some(false), true, true, true),
            (true, Some(false), false, true, true),
            (true, None, false, false, true),
            (true, Some(true), false, false, true),
            (false, Some(true), false, false, true),
        ] {
            for (demand, accepted) in
                [(Console::Forbidden, none), (Console::OutputOnly, output), (Console::Allowed, any)]
            {
                let judged = runtime(&claims(console, interactive), &policy(demand));
                assert_eq!(judged.is_ok(), accepted, "{console} {interactive:?} under {demand:?}");
            }
        }
    }

    #[test]
    fn what_is_demanded_must_be_stated() {
        let lenient = AzurePolicy { secure_boot: Requirement::NotDemanded, ..policy(Console::Allowed) };
        let kept = AzurePolicy { tpm_persisted: Requirement::Demanded, ..policy(Console::Allowed) };
        let without = RuntimeClaims { secure_boot: false, ..claims(false, None) };
        assert!(runtime(&without, &lenient).is_ok());
        assert_eq!(runtime(&without, &kept).unwrap_err().code, RefusalCode::PolicyForbids);
        for (stated, accepted) in [(None, false), (Some(false), false), (Some(true), true)] {
            let claims = RuntimeClaims { tpm_persisted: stated, ..claims(false, None) };
            assert_eq!(runtime(&claims, &kept).is_ok(), accepted, "{stated:?}");
        }
        for (stated, forbidden, allowed) in [(None, true, true), (Some(false), true, true), (Some(true), false, true)] {
            let claims = RuntimeClaims { vpci_devices_allowed: stated, ..claims(false, None) };
            let open = AzurePolicy { vpci_devices: Permission::Allowed, ..policy(Console::Forbidden) };
            assert_eq!(runtime(&claims, &policy(Console::Forbidden)).is_ok(), forbidden, "{stated:?}");
            assert_eq!(runtime(&claims, &open).is_ok(), allowed, "{stated:?}");
        }
        let no_tpm = RuntimeClaims { tpm_enabled: false, ..claims(false, None) };
        assert_eq!(runtime(&no_tpm, &lenient).unwrap_err().code, RefusalCode::PolicyForbids);
    }

    #[test]
    fn an_attestation_key_is_any_or_an_enrolled_one() {
        for (keys, accepted) in [
            (Demanded::Any, true),
            (Demanded::OneOf([[0; 32], [1; 32]].into()), true),
            (Demanded::OneOf([[1; 32]].into()), false),
            (Demanded::OneOf([].into()), false),
        ] {
            let policy = AzurePolicy { attestation_keys: keys.clone(), ..policy(Console::Forbidden) };
            match runtime(&claims(false, None), &policy) {
                Ok(()) => assert!(accepted, "{keys:?}"),
                Err(refusal) => {
                    assert_eq!((refusal.code, accepted), (RefusalCode::PolicyForbids, false), "{keys:?}");
                    assert!(refusal.cause.contains("HCLAkPub"), "{refusal}");
                }
            }
        }
    }
}
