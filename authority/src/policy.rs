//! The policy as its file says it: the `[policy]` part of `authority.toml`. Every key is demanded; what a platform's root
//! proves is appraised against it together with the registry's Reference Values.

use crate::evidence::{AppraisalPolicy, Permission, Product, SnpPolicy, SnpTcb, TcbStatus, TdxPolicy, VtpmPolicy};
use inwit_measurements::reference::ReferenceValues;
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
    /// Turin only: firmware of the secure module.
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
}

/// `[policy.vtpm]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VtpmFile {
    /// PCRs that every set of TPM Reference Values names; at least 0, 4, 7 and 9.
    pub demanded_pcrs: Vec<u8>,
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
                minimum_tcb: BTreeMap::new(),
            },
            tdx: TdxFile {
                accepted_status: vec!["UpToDate".to_owned()],
                accepted_advisories: Vec::new(),
                minimum_tcb_evaluation_number: 0,
                dynamic_platform: PermissionFile::Forbidden,
                cached_keys: PermissionFile::Forbidden,
                smt: PermissionFile::Allowed,
            },
            vtpm: VtpmFile { demanded_pcrs: vec![0, 4, 7, 9] },
        }
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
            minimum_tcb.insert(product, SnpTcb { boot_loader, tee, snp, microcode, fmc });
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
        };
        let tdx = TdxPolicy {
            accepted_status: self.tdx.accepted_status.iter().map(status).collect::<Result<_, _>>()?,
            accepted_advisories: self.tdx.accepted_advisories.iter().cloned().collect(),
            minimum_tcb_evaluation_number: self.tdx.minimum_tcb_evaluation_number,
            dynamic_platform: self.tdx.dynamic_platform.into(),
            cached_keys: self.tdx.cached_keys.into(),
            smt: self.tdx.smt.into(),
        };
        let vtpm = VtpmPolicy { demanded_pcrs: self.vtpm.demanded_pcrs.iter().copied().collect() };
        AppraisalPolicy::new(reference_values, snp, tdx, vtpm).map_err(|error| wrong(error.to_string()))
    }
}
