//! The policy as its file says it: the `[policy]` part of `authority.toml`. Every key is demanded; what a platform's root
//! proves is appraised against it together with the registry's Reference Values.

use crate::evidence::{
    AppraisalPolicy, AzurePolicy, Console, Demanded, Permission, Product, Requirement, SnpPolicy, SnpTcb, TcbStatus,
    TdxPolicy, VtpmPolicy,
};
use inwit_measurements::Digest;
use inwit_measurements::reference::ReferenceValues;
use inwit_protocol::primitives::sha256;
use inwit_protocol::refusal::{Refusal, RefusalCode};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `[policy]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyFile {
    /// AMD SEV-SNP.
    pub snp: SnpFile,
    /// Intel TDX.
    pub tdx: TdxFile,
    /// TPM without a TEE root.
    pub vtpm: VtpmFile,
    /// Azure confidential VMs, on top of what `snp` and `tdx` demand of their TEE.
    pub azure: AzureFile,
}

/// `[policy.snp]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnpFile {
    /// Privilege level of the agent: 0 without a paravisor.
    pub vmpl: u32,
    /// Lowest firmware version, `[major, minor]`.
    pub minimum_abi: [u8; 2],
    /// Simultaneous multithreading: `allowed` or `forbidden`.
    pub smt: PermissionFile,
    /// Bits demanded of both mitigation vectors.
    pub demanded_mitigations: u64,
    /// Bits demanded in PLATFORM_INFO, for example 32: the firmware checked for aliased memory at start.
    pub demanded_platform_info: u64,
    /// Chains whose revocation cannot be looked up because no list of the root is imported: `allowed` or `forbidden`.
    pub without_revocation_list: PermissionFile,
    /// Cloud providers whose VLEK is accepted in place of the chip's own key.
    pub providers: Vec<String>,
    /// Bits demanded in the guest's launch POLICY, for example 1048576: on one socket only.
    pub demanded_policy_bits: u64,
    /// Lowest GUEST_SVN of the ID block. Above 0, `id_keys` must be a list.
    pub minimum_guest_svn: u32,
    /// HOST_DATA: `"any"`, or a list of values in hex.
    pub host_data: DemandedFile<32>,
    /// SHA-384 of keys that may sign the ID block: `"any"`, or a list in hex. A list demands an ID block.
    pub id_keys: DemandedFile<48>,
    /// SHA-384 of keys that may sign the ID key: `"any"`, or a list in hex. A list demands an author key.
    pub author_keys: DemandedFile<48>,
    /// Lowest patch levels by product: milan, genoa, turin. A product that is not named is refused.
    pub minimum_tcb: BTreeMap<String, TcbFile>,
}

/// Patch levels of one product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TcbFile {
    /// Boot loader.
    pub boot_loader: u8,
    /// TEE (PSP operating system).
    pub tee: u8,
    /// SNP firmware.
    pub snp: u8,
    /// Microcode.
    pub microcode: u8,
    /// Turin only: first mutable code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fmc: Option<u8>,
}

/// `[policy.tdx]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TdxFile {
    /// Accepted platform statuses, by Intel's names, for example `UpToDate`.
    pub accepted_status: Vec<String>,
    /// Advisories that may apply, by Intel's names.
    pub accepted_advisories: Vec<String>,
    /// Lowest tcbEvaluationDataNumber.
    pub minimum_tcb_evaluation_number: u32,
    /// Platforms to which packages may be added.
    pub dynamic_platform: PermissionFile,
    /// Platforms whose root keys Intel holds.
    pub cached_keys: PermissionFile,
    /// Simultaneous multithreading.
    pub smt: PermissionFile,
    /// MRCONFIGID: `"any"`, or a list of values in hex.
    pub mr_config_id: DemandedFile<48>,
    /// MROWNER: `"any"`, or a list of values in hex.
    pub mr_owner: DemandedFile<48>,
    /// MROWNERCONFIG: `"any"`, or a list of values in hex.
    pub mr_owner_config: DemandedFile<48>,
    /// MRSEAM, the TDX module's measurement: `"any"`, or a list of values in hex.
    pub mr_seam: DemandedFile<48>,
}

/// `[policy.vtpm]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VtpmFile {
    /// PCRs that every set of TPM Reference Values names; at least 0, 4, 7 and 9.
    pub demanded_pcrs: Vec<u8>,
}

/// `[policy.azure]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AzureFile {
    /// Serial console: `forbidden`, `output-only` (the host cannot write to it), or `allowed`.
    pub console: ConsoleFile,
    /// Secure Boot: `demanded` or `not-demanded`.
    pub secure_boot: RequirementFile,
    /// That the paravisor says `tpm-persisted`: `demanded` or `not-demanded`. It is no statement on whether the TPM's state
    /// outlives a boot.
    pub tpm_persisted: RequirementFile,
    /// SEPT_VE_DISABLE of the paravisor's TD: `demanded` or `not-demanded`. Azure's TDs have it off.
    pub sept_ve_disable: RequirementFile,
    /// HCLAkPub: `"any"`, or a list of enrolled keys as SHA-256 of SubjectPublicKeyInfo in hex. With `"any"`, register launch
    /// digests and MRTDs of paravisors since August 2025 only: earlier ones may name a key that the guest put there
    /// (CVE-2025-49707).
    pub attestation_keys: DemandedFile<32>,
    /// Devices that the host assigns to the VM: `allowed` or `forbidden`.
    pub vpci_devices: PermissionFile,
    /// PCRs that every set of Reference Values for Azure names; at least 0, 4, 7 and 9.
    pub demanded_pcrs: Vec<u8>,
}

/// A console as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConsoleFile {
    /// None may be.
    Forbidden,
    /// The host may read, not write.
    OutputOnly,
    /// Any may be.
    Allowed,
}

impl From<ConsoleFile> for Console {
    fn from(file: ConsoleFile) -> Self {
        match file {
            ConsoleFile::Forbidden => Self::Forbidden,
            ConsoleFile::OutputOnly => Self::OutputOnly,
            ConsoleFile::Allowed => Self::Allowed,
        }
    }
}

/// A requirement as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RequirementFile {
    /// It must be.
    Demanded,
    /// It may be.
    NotDemanded,
}

impl From<RequirementFile> for Requirement {
    fn from(file: RequirementFile) -> Self {
        match file {
            RequirementFile::Demanded => Self::Demanded,
            RequirementFile::NotDemanded => Self::NotDemanded,
        }
    }
}

/// A permission as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PermissionFile {
    /// It may be.
    Allowed,
    /// It must not be.
    Forbidden,
}

impl From<PermissionFile> for Permission {
    fn from(file: PermissionFile) -> Self {
        match file {
            PermissionFile::Allowed => Self::Allowed,
            PermissionFile::Forbidden => Self::Forbidden,
        }
    }
}

/// A [`Demanded`] value of `N` bytes as it is written: the word `"any"`, or a list of values in hex.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected \"any\", or a list of values in hex of the right length")]
pub enum DemandedFile<const N: usize> {
    /// `"any"`.
    Any(AnyFile),
    /// `["…", …]`.
    OneOf(Vec<Digest<N>>),
}

/// The word `"any"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AnyFile {
    /// Whatever it is.
    Any,
}

impl<const N: usize> DemandedFile<N> {
    /// Whatever it is, written out.
    pub const ANY: Self = Self::Any(AnyFile::Any);
}

impl<const N: usize> From<&DemandedFile<N>> for Demanded<[u8; N]> {
    fn from(file: &DemandedFile<N>) -> Self {
        match file {
            DemandedFile::Any(AnyFile::Any) => Self::Any,
            DemandedFile::OneOf(values) => Self::OneOf(values.iter().map(|value| *value.as_bytes()).collect()),
        }
    }
}

impl PolicyFile {
    /// What `init` writes: current firmware interfaces, no debug (never configurable), no advisories, revocation lists
    /// demanded. It names no AMD product, so none is accepted: the lowest acceptable patch levels differ by product and
    /// month, and the operator states them.
    pub fn strict() -> Self {
        Self {
            snp: SnpFile {
                vmpl: 0,
                minimum_abi: [1, 55],
                smt: PermissionFile::Allowed,
                demanded_mitigations: 0,
                demanded_platform_info: 0,
                without_revocation_list: PermissionFile::Forbidden,
                providers: Vec::new(),
                demanded_policy_bits: 0,
                minimum_guest_svn: 0,
                host_data: DemandedFile::ANY,
                id_keys: DemandedFile::ANY,
                author_keys: DemandedFile::ANY,
                minimum_tcb: BTreeMap::new(),
            },
            tdx: TdxFile {
                accepted_status: vec!["UpToDate".to_owned()],
                accepted_advisories: Vec::new(),
                minimum_tcb_evaluation_number: 0,
                dynamic_platform: PermissionFile::Forbidden,
                cached_keys: PermissionFile::Forbidden,
                smt: PermissionFile::Allowed,
                mr_config_id: DemandedFile::ANY,
                mr_owner: DemandedFile::ANY,
                mr_owner_config: DemandedFile::ANY,
                mr_seam: DemandedFile::ANY,
            },
            vtpm: VtpmFile { demanded_pcrs: vec![0, 4, 7, 9] },
            azure: AzureFile {
                console: ConsoleFile::Forbidden,
                secure_boot: RequirementFile::Demanded,
                // Nothing that is accepted here rests on a state that is kept: the agent's key lives in memory.
                tpm_persisted: RequirementFile::NotDemanded,
                sept_ve_disable: RequirementFile::Demanded,
                attestation_keys: DemandedFile::ANY,
                vpci_devices: PermissionFile::Forbidden,
                demanded_pcrs: vec![0, 4, 7, 9],
            },
        }
    }

    /// SHA-256 of every key and value as the file has them, whatever the layout and the comments: the name by which
    /// Attestation Results refer to it. Of two files with one digest both demand the same; a list in another order or a
    /// product in another spelling makes another digest of the same demand.
    pub fn digest(&self) -> [u8; 32] {
        // Numbers, strings and ordered maps always serialise; the digest of nothing would name no policy.
        sha256(&serde_json::to_vec(self).unwrap_or_default())
    }

    /// The policy together with Reference Values.
    ///
    /// # Errors
    /// `internal` with the cause, when the file demands what cannot be.
    pub fn with(&self, reference_values: Vec<ReferenceValues>) -> Result<AppraisalPolicy, Refusal> {
        let wrong =
            |cause: String| Refusal::new(RefusalCode::Internal, format_args!("policy in authority.toml: {cause}"));
        let mut minimum_tcb = BTreeMap::new();
        for (name, tcb) in &self.snp.minimum_tcb {
            let product = Product::from_name(name).ok_or_else(|| wrong(format!("{name} is no product")))?;
            let TcbFile { boot_loader, tee, snp, microcode, fmc } = *tcb;
            // Milan and milan are two keys and one product.
            if minimum_tcb.insert(product, SnpTcb { boot_loader, tee, snp, microcode, fmc }).is_some() {
                return Err(wrong(format!("minimum_tcb names {product} twice")));
            }
        }
        let status =
            |name: &String| TcbStatus::from_text(name).ok_or_else(|| wrong(format!("{name} is no TCB status")));
        let snp = SnpPolicy {
            vmpl: self.snp.vmpl,
            minimum_tcb,
            minimum_abi: (self.snp.minimum_abi[0], self.snp.minimum_abi[1]),
            smt: self.snp.smt.into(),
            demanded_mitigations: self.snp.demanded_mitigations,
            demanded_platform_info: self.snp.demanded_platform_info,
            without_revocation_list: self.snp.without_revocation_list.into(),
            providers: self.snp.providers.iter().cloned().collect(),
            demanded_policy_bits: self.snp.demanded_policy_bits,
            minimum_guest_svn: self.snp.minimum_guest_svn,
            host_data: (&self.snp.host_data).into(),
            id_keys: (&self.snp.id_keys).into(),
            author_keys: (&self.snp.author_keys).into(),
        };
        let tdx = TdxPolicy {
            accepted_status: self.tdx.accepted_status.iter().map(status).collect::<Result<_, _>>()?,
            accepted_advisories: self.tdx.accepted_advisories.iter().cloned().collect(),
            minimum_tcb_evaluation_number: self.tdx.minimum_tcb_evaluation_number,
            dynamic_platform: self.tdx.dynamic_platform.into(),
            cached_keys: self.tdx.cached_keys.into(),
            smt: self.tdx.smt.into(),
            mr_config_id: (&self.tdx.mr_config_id).into(),
            mr_owner: (&self.tdx.mr_owner).into(),
            mr_owner_config: (&self.tdx.mr_owner_config).into(),
            mr_seam: (&self.tdx.mr_seam).into(),
        };
        let vtpm = VtpmPolicy { demanded_pcrs: self.vtpm.demanded_pcrs.iter().copied().collect() };
        let azure = AzurePolicy {
            console: self.azure.console.into(),
            secure_boot: self.azure.secure_boot.into(),
            tpm_persisted: self.azure.tpm_persisted.into(),
            sept_ve_disable: self.azure.sept_ve_disable.into(),
            attestation_keys: (&self.azure.attestation_keys).into(),
            vpci_devices: self.azure.vpci_devices.into(),
            demanded_pcrs: self.azure.demanded_pcrs.iter().copied().collect(),
        };
        AppraisalPolicy::new(reference_values, snp, tdx, vtpm, azure).map_err(|error| wrong(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(line: &str, replacement: &str) -> Result<PolicyFile, String> {
        let text = toml::to_string(&PolicyFile::strict()).unwrap();
        assert!(text.contains(line), "{text}");
        toml::from_str(&text.replace(line, replacement)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_demand_is_the_word_any_or_a_list_and_is_never_left_out() {
        assert_eq!(with("", ""), Ok(PolicyFile::strict()));
        let digest = "0a".repeat(32);
        let one = with("host_data = \"any\"", &format!("host_data = [\"{digest}\"]")).unwrap();
        assert_eq!(Demanded::from(&one.snp.host_data), Demanded::OneOf([[0x0a; 32]].into()));
        let none = with("host_data = \"any\"", "host_data = []").unwrap();
        assert!(!Demanded::from(&none.snp.host_data).admits(&[0; 32]));
        for bad in ["", "host_data = \"Any\"", "host_data = \"\"", "host_data = [\"0a\"]", "host_data = [\"any\"]"] {
            let error = with("host_data = \"any\"", bad).unwrap_err();
            assert!(error.contains("host_data") || error.contains("any"), "{error}");
        }
    }

    #[test]
    fn a_product_named_twice_is_refused_whatever_its_spelling() {
        let tcb = |snp| TcbFile { boot_loader: 4, tee: 0, snp, microcode: 219, fmc: None };
        let named = |names: &[(&str, u8)]| {
            let mut policy = PolicyFile::strict();
            policy.snp.minimum_tcb = names.iter().map(|(name, snp)| ((*name).to_owned(), tcb(*snp))).collect();
            policy.with(vec![]).map(|_| ()).map_err(|refusal| refusal.cause)
        };
        assert_eq!(named(&[("milan", 24)]), Ok(()));
        assert_eq!(named(&[("Milan", 24), ("genoa", 24)]), Ok(()));
        assert!(named(&[("Milan", 24), ("milan", 0)]).unwrap_err().contains("names Milan twice"));
    }

    #[test]
    fn a_guest_svn_that_anybody_may_state_is_no_demand() {
        let mut policy = PolicyFile::strict();
        policy.snp.minimum_guest_svn = 1;
        assert!(policy.with(vec![]).unwrap_err().cause.contains("id_keys"));
        policy.snp.id_keys = DemandedFile::OneOf(vec![Digest::from_bytes([7; 48])]);
        assert!(policy.with(vec![]).is_ok());
    }
}
