//! A policy that a careful operator could write, an agent, and Reference Values around measurements.

use std::collections::{BTreeMap, BTreeSet};

use inwit_authority::evidence::{
    AppraisalPolicy, AzurePolicy, Console, Demanded, Permission, Product, Requirement, SnpPolicy, SnpTcb, TcbStatus,
    TdxPolicy, VtpmPolicy,
};
use inwit_measurements::Digest;
use inwit_measurements::reference::{AgentReference, Measured, ReferenceValues};
use inwit_protocol::binding::Agent;

pub fn agent() -> Agent {
    Agent { name: "inwit-guest".into(), version: "0.1.0".into(), executable: [0xa1; 32], configuration: [0xc2; 32] }
}

pub fn snp() -> SnpPolicy {
    let tcb = |fmc| SnpTcb { fmc, boot_loader: 1, tee: 0, snp: 4, microcode: 60 };
    SnpPolicy {
        vmpl: 0,
        minimum_tcb: [(Product::Genoa, tcb(None)), (Product::Milan, tcb(None)), (Product::Turin, tcb(Some(0)))].into(),
        minimum_abi: (1, 49),
        smt: Permission::Allowed,
        demanded_mitigations: 0,
        demanded_platform_info: 0,
        without_revocation_list: Permission::Allowed,
        providers: BTreeSet::new(),
        demanded_policy_bits: 0,
        minimum_guest_svn: 0,
        host_data: Demanded::Any,
        id_keys: Demanded::Any,
        author_keys: Demanded::Any,
    }
}

pub fn tdx() -> TdxPolicy {
    TdxPolicy {
        accepted_status: [TcbStatus::UpToDate].into(),
        accepted_advisories: BTreeSet::new(),
        minimum_tcb_evaluation_number: 17,
        dynamic_platform: Permission::Allowed,
        cached_keys: Permission::Allowed,
        smt: Permission::Allowed,
        mr_config_id: Demanded::Any,
        mr_owner: Demanded::Any,
        mr_owner_config: Demanded::Any,
        mr_seam: Demanded::Any,
    }
}

pub fn vtpm() -> VtpmPolicy {
    VtpmPolicy { demanded_pcrs: [0, 4, 7, 9].into() }
}

pub fn azure() -> AzurePolicy {
    AzurePolicy {
        console: Console::Forbidden,
        secure_boot: Requirement::Demanded,
        tpm_persisted: Requirement::NotDemanded,
        sept_ve_disable: Requirement::Demanded,
        attestation_keys: Demanded::Any,
        vpci_devices: Permission::Forbidden,
        demanded_pcrs: [0, 4, 7, 9].into(),
    }
}

pub fn of(reference_values: Vec<ReferenceValues>) -> AppraisalPolicy {
    AppraisalPolicy::new(reference_values, snp(), tdx(), vtpm(), azure()).unwrap()
}

pub fn reference(name: &str, agent: &Agent, measured: Measured) -> ReferenceValues {
    let agent = AgentReference { executable: agent.executable.into(), configuration: agent.configuration.into() };
    ReferenceValues { name: name.into(), agent, measured, made_from: None }
}

pub fn measured_pcrs(pcrs: &[[u8; 32]; 24], named: &[u8]) -> Measured {
    let value = |number: &u8| (*number, Digest::from_bytes(pcrs[usize::from(*number)]));
    Measured::Vtpm { pcrs: named.iter().map(value).collect::<BTreeMap<_, _>>() }
}
