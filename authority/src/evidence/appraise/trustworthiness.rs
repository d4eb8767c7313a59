//! What an appraisal found, as a trustworthiness vector (draft-ietf-rats-ar4si §2.3). A pure function of claims that were
//! authenticated and appraised, and of how far the appraisal reached. It affirms only what was compared with something; a
//! side of the Attester that nobody looked at is not asserted, and what policy let pass in spite of a finding is a warning.
//!
//! Not asserted on any platform: files after boot, storage, and where data come from. What was measured ends with the
//! boot, so executables are never affirmed beyond it; and they are affirmed as far as the Reference Values reach, which is
//! for whoever computed them to know.

use inwit_protocol::ear::{
    Configuration, Executables, Hardware, InstanceIdentity, RuntimeOpaque, TrustworthinessVector,
};

use crate::evidence::claims::{AttestationKeyTrust, AzureTee, Claims, RuntimeClaims, SnpClaims, TdxClaims};
use crate::evidence::snp::Revocation;
use crate::evidence::tdx::TcbStatus;

/// How far an appraisal reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Platform and launch: for whom the Evidence was made, and by which agent, was not asked.
    Launch,
    /// The binding as well, and the agent with its configuration, both found in what was measured.
    Agent,
}

/// The vector of claims that were appraised. To be called for no others: what it affirms, an appraisal has compared.
pub(super) fn found(claims: &Claims, reach: Reach) -> TrustworthinessVector {
    // Reached by every appraisal: all measured registers equal a registered set.
    let measured = TrustworthinessVector { executables: Executables::ApprovedAtBoot, ..TrustworthinessVector::NOTHING };
    match claims {
        Claims::Snp(claims) => snp(claims, reach, measured),
        Claims::Tdx(claims) => tdx(claims, reach, measured),
        // As the TEE that it is in: the TPM is the paravisor's, and is what the registers were compared by.
        Claims::Azure(claims) => {
            let tee = match &claims.tee {
                AzureTee::Snp(claims) => snp(claims, reach, measured),
                AzureTee::Tdx(claims) => {
                    let configuration = paravisors_configuration(claims, reach);
                    TrustworthinessVector { configuration, ..tdx(claims, reach, measured) }
                }
            };
            TrustworthinessVector { configuration: azure_configuration(&claims.runtime, tee.configuration), ..tee }
        }
        // The TPM's key is one that the operator named, so the machine is known as itself. What it is made of is not: no
        // hardware vouches, and whoever runs the TPM can read the machine's memory. AR4SI's 32 says that, and no more than
        // the operator's own trust in that host stands behind it; 96 would say that the host is distrusted.
        Claims::Vtpm(claims) => TrustworthinessVector {
            instance_identity: recognised(claims.attestation_key_trust, reach),
            configuration: agents_configuration(reach),
            runtime_opaque: RuntimeOpaque::Isolated,
            ..measured
        },
    }
}

fn snp(claims: &SnpClaims, reach: Reach, measured: TrustworthinessVector) -> TrustworthinessVector {
    TrustworthinessVector {
        configuration: agents_configuration(reach),
        hardware: snp_hardware(claims),
        runtime_opaque: snp_opaque(claims),
        ..measured
    }
}

fn tdx(claims: &TdxClaims, reach: Reach, measured: TrustworthinessVector) -> TrustworthinessVector {
    TrustworthinessVector {
        configuration: tdx_configuration(claims, reach),
        hardware: tdx_hardware(claims),
        runtime_opaque: tdx_opaque(claims),
        ..measured
    }
}

/// A console that the host may write to, its devices, or no Secure Boot: policy let it pass, and it is a way in. What is
/// worse stays.
fn azure_configuration(runtime: &RuntimeClaims, of_tee: Configuration) -> Configuration {
    let written_to = runtime.interactive_console_enabled.unwrap_or(runtime.console_enabled);
    let devices = runtime.vpci_devices_allowed == Some(true);
    match of_tee {
        Configuration::Unacceptable => Configuration::Unacceptable,
        _ if written_to || devices || !runtime.secure_boot => Configuration::KnownVulnerability,
        other => other,
    }
}

/// For Evidence of a key that the operator named. SNP and TDX have no such list: any chip that leads to the manufacturer's
/// root will do, so no instance is recognised there. Without a binding nobody knows who holds the Evidence, nor since when.
fn recognised(key: AttestationKeyTrust, reach: Reach) -> InstanceIdentity {
    match (reach, key) {
        (Reach::Agent, AttestationKeyTrust::ConfiguredKey | AttestationKeyTrust::ConfiguredName) => {
            InstanceIdentity::Recognised
        }
        (Reach::Agent, AttestationKeyTrust::Paravisor) | (Reach::Launch, _) => InstanceIdentity::NotAsserted,
    }
}

/// The agent's configuration file is in the matched Reference Values.
fn agents_configuration(reach: Reach) -> Configuration {
    match reach {
        Reach::Agent => Configuration::Approved,
        Reach::Launch => Configuration::NotAsserted,
    }
}

fn snp_hardware(claims: &SnpClaims) -> Hardware {
    match claims.revocation {
        _ if claims.policy.debug_allowed() => Hardware::Contraindicated,
        Revocation::NoList => Hardware::RevocationUnknown,
        Revocation::Checked => Hardware::Genuine,
    }
}

/// Somebody outside of the guest can read it. No policy allows that; were one to, the vector would still say it.
fn snp_opaque(claims: &SnpClaims) -> RuntimeOpaque {
    let open =
        claims.policy.debug_allowed() || claims.policy.migration_agent_allowed() || claims.migration_agent.is_some();
    if open { RuntimeOpaque::Visible } else { RuntimeOpaque::Encrypted }
}

/// What Intel says of the platform as it was at launch, and as it runs now where the quote tells.
fn statuses(claims: &TdxClaims) -> impl Iterator<Item = TcbStatus> {
    [claims.tcb_status].into_iter().chain(claims.current_status)
}

/// A platform that Intel wants configured otherwise exposes what its advisories name.
fn platforms_configuration(claims: &TdxClaims, reach: Reach) -> Configuration {
    let faulty = |status| match status {
        TcbStatus::ConfigurationNeeded
        | TcbStatus::ConfigurationAndSwHardeningNeeded
        | TcbStatus::OutOfDateConfigurationNeeded
        | TcbStatus::TdRelaunchAdvisedConfigurationNeeded => true,
        TcbStatus::UpToDate | TcbStatus::SwHardeningNeeded | TcbStatus::OutOfDate | TcbStatus::TdRelaunchAdvised => {
            false
        }
    };
    if statuses(claims).any(faulty) { Configuration::KnownVulnerability } else { agents_configuration(reach) }
}

/// The same, where the host cannot have the TD handle an exception for each page that it takes away. No policy allows that
/// of a TD without a paravisor; were one to, the vector would still say it.
fn tdx_configuration(claims: &TdxClaims, reach: Reach) -> Configuration {
    match claims.td_attributes.sept_ve_disable() {
        true => platforms_configuration(claims, reach),
        false => Configuration::Unacceptable,
    }
}

/// The same of a TD with a paravisor, which is to handle those exceptions. It cannot be seen that it does.
fn paravisors_configuration(claims: &TdxClaims, reach: Reach) -> Configuration {
    match platforms_configuration(claims, reach) {
        Configuration::KnownVulnerability => Configuration::KnownVulnerability,
        _ if !claims.td_attributes.sept_ve_disable() => Configuration::NotVisible,
        other => other,
    }
}

/// Any status but the best one, and any advisory, is something that policy let pass.
fn tdx_hardware(claims: &TdxClaims) -> Hardware {
    if claims.td_attributes.under_debug() {
        Hardware::Contraindicated
    } else if statuses(claims).all(|status| status == TcbStatus::UpToDate) && claims.advisory_ids.is_empty() {
        Hardware::Genuine
    } else {
        Hardware::KnownVulnerability
    }
}

/// The same of a TD, which service TDs can enter as well.
fn tdx_opaque(claims: &TdxClaims) -> RuntimeOpaque {
    let attributes = claims.td_attributes;
    let entered = attributes.service_td_extension() || claims.service_td_bound();
    let open = attributes.under_debug() || attributes.migratable() || entered;
    if open { RuntimeOpaque::Visible } else { RuntimeOpaque::Encrypted }
}

#[cfg(test)]
mod tests {
    use inwit_protocol::ear::Tier;

    use super::*;
    use crate::evidence::claims::{
        AzureClaims, FirmwareVersion, PckFlag, QuotingEnclaveTcb, SnpSigner, TcbStanding, VtpmClaims,
    };
    use crate::evidence::snp::{GuestPolicy, PlatformInfo, Product, SnpTcb};
    use crate::evidence::tdx::TdAttributes;

    const DEBUG: u64 = 1 << 19;
    const MIGRATION: u64 = 1 << 18;
    const SEPT_VE_DISABLE: u64 = 1 << 28;

    fn snp(policy: u64, revocation: Revocation, migration_agent: Option<[u8; 32]>) -> Claims {
        let tcb = || SnpTcb { fmc: None, boot_loader: 4, tee: 0, snp: 24, microcode: 219 };
        let firmware = FirmwareVersion { major: 1, minor: 55, build: 0 };
        Claims::Snp(Box::new(SnpClaims {
            version: 3,
            product: Product::Milan,
            revocation,
            signer: SnpSigner::Vcek,
            measurement: [1; 48],
            policy: GuestPolicy::parse(0x3_0000 | policy).unwrap(),
            vmpl: 0,
            guest_svn: 0,
            family_id: [0; 16],
            image_id: [0; 16],
            host_data: [0; 32],
            id_key_digest: [0; 48],
            author_key_digest: [0; 48],
            report_id: [2; 32],
            migration_agent,
            chip_id: [3; 64],
            reported_tcb: tcb(),
            committed_tcb: tcb(),
            current_tcb: tcb(),
            launch_tcb: tcb(),
            current_firmware: firmware,
            committed_firmware: firmware,
            platform_info: PlatformInfo::of(0x25),
            mitigations: None,
        }))
    }

    fn current() -> TcbStanding {
        TcbStanding { status: TcbStatus::UpToDate, date: 0, advisory_ids: vec![] }
    }

    fn tdx(attributes: u64, tcb_status: TcbStatus, advisories: &[&str], mr_service_td: Option<[u8; 48]>) -> Claims {
        Claims::Tdx(Box::new(TdxClaims {
            version: 4,
            mrtd: [1; 48],
            rtmrs: [[2; 48]; 4],
            td_attributes: TdAttributes::of(attributes.to_le_bytes()),
            xfam: 3,
            mr_config_id: [0; 48],
            mr_owner: [0; 48],
            mr_owner_config: [0; 48],
            mr_seam: [4; 48],
            mr_service_td,
            extension: None,
            tee_tcb_svn: [5; 16],
            tee_tcb_svn2: None,
            tcb_status,
            current_status: None,
            advisory_ids: advisories.iter().map(|id| (*id).to_owned()).collect(),
            platform: current(),
            module: None,
            quoting_enclave: QuotingEnclaveTcb { isvsvn: 4, tcb: current() },
            tcb_evaluation_number: 17,
            collateral_from: 0,
            collateral_until: 1,
            fmspc: [6; 6],
            dynamic_platform: PckFlag::No,
            cached_keys: PckFlag::No,
            smt_enabled: PckFlag::Yes,
        }))
    }

    fn vtpm() -> Claims {
        Claims::Vtpm(Box::new(VtpmClaims {
            pcrs: [[1; 32]; 24],
            reset_count: 1,
            restart_count: 0,
            clock: 1,
            clock_safe: true,
            firmware_version: 1,
            attestation_key: [2; 32],
            attestation_key_trust: AttestationKeyTrust::ConfiguredKey,
            events: vec![],
        }))
    }

    /// An Azure VM on that TEE, with console (and whether the host writes to it) and Secure Boot.
    fn azure(tee: Claims, console: (bool, Option<bool>), secure_boot: bool) -> Claims {
        let tee = match tee {
            Claims::Snp(claims) => AzureTee::Snp(claims),
            Claims::Tdx(claims) => AzureTee::Tdx(claims),
            other => panic!("{other:?}"),
        };
        let runtime = RuntimeClaims {
            attestation_key: [2; 32],
            console_enabled: console.0,
            interactive_console_enabled: console.1,
            secure_boot,
            tpm_enabled: true,
            tpm_persisted: None,
            vpci_devices_allowed: None,
            hardware_sealing_policy: None,
            root_certificate_thumbprint: None,
            vm_unique_id: None,
            current_time: None,
            user_data: None,
        };
        Claims::Azure(Box::new(AzureClaims { tee, runtime, tpm: None }))
    }

    /// Values in AR4SI's order: instance, configuration, executables, files, hardware, runtime, storage, data.
    type Values = [i8; 8];

    #[test]
    fn each_platform_and_mode_has_its_vector_and_status() {
        use Tier::{Affirming, Contraindicated, Warning};
        let (checked, unlisted) = (Revocation::Checked, Revocation::NoList);
        let td = |attributes| tdx(attributes, TcbStatus::UpToDate, &[], Some([0; 48]));
        let advised = tdx(SEPT_VE_DISABLE, TcbStatus::UpToDate, &["INTEL-SA-01079"], None);
        let entered = tdx(SEPT_VE_DISABLE, TcbStatus::UpToDate, &[], Some([7; 48]));
        let table: [(&str, Claims, Values, Tier); 22] = [
            ("SNP", snp(0, checked, None), [0, 2, 3, 0, 2, 2, 0, 0], Affirming),
            ("SNP, no list", snp(0, unlisted, None), [0, 2, 3, 0, -33, 2, 0, 0], Warning),
            ("SNP, debug", snp(DEBUG, unlisted, None), [0, 2, 3, 0, 96, 96, 0, 0], Contraindicated),
            ("SNP, migration", snp(MIGRATION, checked, None), [0, 2, 3, 0, 2, 96, 0, 0], Contraindicated),
            ("SNP, migrating", snp(0, checked, Some([9; 32])), [0, 2, 3, 0, 2, 96, 0, 0], Contraindicated),
            ("TDX", td(SEPT_VE_DISABLE), [0, 2, 3, 0, 2, 2, 0, 0], Affirming),
            ("TDX, an advisory", advised, [0, 2, 3, 0, 32, 2, 0, 0], Warning),
            ("TDX, debug", td(SEPT_VE_DISABLE | 1), [0, 2, 3, 0, 96, 96, 0, 0], Contraindicated),
            ("TDX, profiled", td(SEPT_VE_DISABLE | 0x10), [0, 2, 3, 0, 96, 96, 0, 0], Contraindicated),
            ("TDX, migratable", td(SEPT_VE_DISABLE | 1 << 29), [0, 2, 3, 0, 2, 96, 0, 0], Contraindicated),
            ("TDX, open to service TDs", td(SEPT_VE_DISABLE | 1 << 17), [0, 2, 3, 0, 2, 96, 0, 0], Contraindicated),
            ("TDX, a service TD", entered, [0, 2, 3, 0, 2, 96, 0, 0], Contraindicated),
            ("TDX, SEPT_VE_DISABLE off", td(0), [0, 96, 3, 0, 2, 2, 0, 0], Contraindicated),
            ("Azure SNP", azure(snp(0, checked, None), (false, None), true), [0, 2, 3, 0, 2, 2, 0, 0], Affirming),
            ("Azure TDX", azure(td(SEPT_VE_DISABLE), (false, None), true), [0, 2, 3, 0, 2, 2, 0, 0], Affirming),
            (
                "Azure, output",
                azure(snp(0, checked, None), (true, Some(false)), true),
                [0, 2, 3, 0, 2, 2, 0, 0],
                Affirming,
            ),
            ("Azure, console", azure(snp(0, checked, None), (true, None), true), [0, 32, 3, 0, 2, 2, 0, 0], Warning),
            (
                "Azure, no Secure Boot",
                azure(snp(0, checked, None), (false, None), false),
                [0, 32, 3, 0, 2, 2, 0, 0],
                Warning,
            ),
            ("Azure, no list", azure(snp(0, unlisted, None), (false, None), true), [0, 2, 3, 0, -33, 2, 0, 0], Warning),
            ("Azure TDX, pullable", azure(td(0), (false, None), true), [0, 36, 3, 0, 2, 2, 0, 0], Warning),
            ("Azure TDX, open", azure(td(0), (true, None), false), [0, 32, 3, 0, 2, 2, 0, 0], Warning),
            ("TPM", vtpm(), [2, 2, 3, 0, 0, 32, 0, 0], Warning),
        ];
        for (name, claims, expected, tier) in table {
            for (reach, expected) in [(Reach::Agent, expected), (Reach::Launch, without_binding(expected))] {
                let vector = found(&claims, reach);
                assert_eq!(vector.values().map(|(_, value)| value), expected, "{name}, {reach:?}");
                assert_eq!(vector.status(), tier, "{name}, {reach:?}");
            }
        }
    }

    /// What only a binding shows: the instance, and an approved configuration. A fault of the configuration stays.
    fn without_binding(mut values: Values) -> Values {
        values[0] = 0;
        if values[1] == 2 {
            values[1] = 0;
        }
        values
    }

    #[test]
    fn of_the_statuses_of_tdx_only_the_best_is_affirmed() {
        let at_launch = |status| tdx(SEPT_VE_DISABLE, status, &[], None);
        let now = |status| match at_launch(TcbStatus::UpToDate) {
            Claims::Tdx(claims) => Claims::Tdx(Box::new(TdxClaims { current_status: Some(status), ..*claims })),
            other => other,
        };
        let both = TcbStatus::ALL.map(|status| [(status, at_launch(status)), (status, now(status))]);
        for (status, claims) in both.into_iter().flatten() {
            let vector = found(&claims, Reach::Agent);
            let best = status == TcbStatus::UpToDate;
            assert_eq!(vector.hardware == Hardware::Genuine, best, "{status}");
            assert_eq!(vector.status(), if best { Tier::Affirming } else { Tier::Warning }, "{status}");
            let configuration = match status.text().contains("Configuration") {
                true => Configuration::KnownVulnerability,
                false => Configuration::Approved,
            };
            assert_eq!(vector.configuration, configuration, "{status}");
        }
    }
}
