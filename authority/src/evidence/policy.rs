//! The appraisal policy: what authentic Evidence must say to be accepted. Every field is demanded; there is no default
//! and no value that means "do not look". Leniency is a list that names what it lets through.

use std::collections::{BTreeMap, BTreeSet};

use inwit_measurements::reference::{Measured, ReferenceValues};
use thiserror::Error;

use super::snp::{Product, SnpTcb};
use super::tdx::TcbStatus;

/// PCRs without which a TPM's Reference Values do not say what booted: firmware, boot loader and kernel, Secure Boot
/// state, and what the kernel's EFI stub loaded (TCG PC client platform firmware profile; UAPI specification 7).
const DEMANDED_PCRS: [u8; 4] = [0, 4, 7, 9];
/// The most privileged VMPL, at which a paravisor runs.
const PARAVISOR_VMPL: u32 = 0;
/// The least privileged VMPL.
const LAST_VMPL: u32 = 3;

/// Whether something may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// It may be, or not.
    Allowed,
    /// It must not be.
    Forbidden,
}

/// What is demanded of a value that the hardware states and that has no order, such as a digest. `T` is the value's
/// bytes as the hardware writes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Demanded<T> {
    /// Whatever it is. To be written out: there is no default.
    Any,
    /// One of these. Of an empty list none is, so everything is refused.
    OneOf(BTreeSet<T>),
}

impl<T: Ord> Demanded<T> {
    /// Whether this value meets the demand.
    pub(crate) fn admits(&self, value: &T) -> bool {
        match self {
            Self::Any => true,
            Self::OneOf(values) => values.contains(value),
        }
    }
}

/// What is demanded of an SNP guest and its platform.
#[derive(Clone, Debug)]
pub struct SnpPolicy {
    /// Privilege level that the agent runs at: 0 without a paravisor. Reports of another level are refused.
    pub vmpl: u32,
    /// Lowest patch levels, for reported, committed and launch TCB alike. A product that is not named is refused.
    pub minimum_tcb: BTreeMap<Product, SnpTcb>,
    /// Lowest firmware version as major and minor, for the running and the committed firmware; for example (1, 55).
    pub minimum_abi: (u8, u8),
    /// Simultaneous multithreading, by launch policy and on the platform.
    pub smt: Permission,
    /// Bits demanded in both mitigation vectors. Where any is demanded, reports below version 5 are refused.
    pub demanded_mitigations: u64,
    /// Bits demanded in PLATFORM_INFO, for example 0x20: the firmware checked for aliased memory at start.
    pub demanded_platform_info: u64,
    /// Chains whose revocation could not be looked up, because no list of the root is imported.
    pub without_revocation_list: Permission,
    /// CSP_IDs whose VLEK is accepted in place of the chip's own key. Empty: none is.
    pub providers: BTreeSet<String>,
    /// Bits that the guest's launch POLICY must have set, for example 0x10_0000: on one socket only.
    pub demanded_policy_bits: u64,
    /// Lowest GUEST_SVN. It comes from the ID block, so above zero `id_keys` must name who may sign that.
    pub minimum_guest_svn: u32,
    /// HOST_DATA, which the host chose at launch and cannot change afterwards.
    pub host_data: Demanded<[u8; 32]>,
    /// ID_KEY_DIGEST: whose key signed the ID block. With a list, a guest that was launched without one is refused.
    pub id_keys: Demanded<[u8; 48]>,
    /// AUTHOR_KEY_DIGEST: whose key signed the ID key. With a list, a guest that was launched without one is refused.
    pub author_keys: Demanded<[u8; 48]>,
}

/// What is demanded of a TD and its platform.
#[derive(Clone, Debug)]
pub struct TdxPolicy {
    /// Platform statuses that are accepted. Empty: no TDX platform is.
    pub accepted_status: BTreeSet<TcbStatus>,
    /// Advisories that may apply to the platform, by Intel's names. One that is not named refuses.
    pub accepted_advisories: BTreeSet<String>,
    /// Lowest tcbEvaluationDataNumber of the collateral, against older collateral being put back.
    pub minimum_tcb_evaluation_number: u32,
    /// Platforms to which processor packages may be added.
    pub dynamic_platform: Permission,
    /// Platforms whose root keys Intel holds.
    pub cached_keys: Permission,
    /// Platforms with simultaneous multithreading.
    pub smt: Permission,
    /// MRCONFIGID, which the host chose at launch, usually as the digest of a configuration.
    pub mr_config_id: Demanded<[u8; 48]>,
    /// MROWNER, which the host chose at launch.
    pub mr_owner: Demanded<[u8; 48]>,
    /// MROWNERCONFIG, which the host chose at launch.
    pub mr_owner_config: Demanded<[u8; 48]>,
    /// MRSEAM: the TDX module by its measurement. The module's signer, version and status are judged in any case.
    pub mr_seam: Demanded<[u8; 48]>,
}

/// What is demanded of a TPM and its Reference Values.
#[derive(Clone, Debug)]
pub struct VtpmPolicy {
    /// PCRs that every set of TPM Reference Values has to name: 0, 4, 7, 9 and whatever else is wanted.
    pub demanded_pcrs: BTreeSet<u8>,
}

/// Whether something must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// It must be.
    Demanded,
    /// It may be, or not.
    NotDemanded,
}

/// How much of a serial console an Azure VM may have. The host holds its other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Console {
    /// None.
    Forbidden,
    /// One that the guest writes to and the host does not, as the paravisor says explicitly.
    OutputOnly,
    /// Any.
    Allowed,
}

/// What is demanded of an Azure VM beside what [`SnpPolicy`] or [`TdxPolicy`] demand of its TEE. The agent's VMPL is not
/// among it: the report is the paravisor's, and always of VMPL 0.
#[derive(Clone, Debug)]
pub struct AzurePolicy {
    /// Serial console.
    pub console: Console,
    /// Secure Boot, as the paravisor was told to enforce it.
    pub secure_boot: Requirement,
    /// That the paravisor says `tpm-persisted`. It does not say whether the state outlives a boot: see
    /// [`RuntimeClaims::tpm_persisted`](super::claims::RuntimeClaims::tpm_persisted).
    pub tpm_persisted: Requirement,
    /// SEPT_VE_DISABLE of the TD, which is the paravisor's. Azure's TDs have it off: their paravisor is said to handle the
    /// exceptions, and whether it does cannot be seen. Of a TD without a paravisor it is demanded in any case.
    pub sept_ve_disable: Requirement,
    /// HCLAkPub by the SHA-256 of its SubjectPublicKeyInfo: any key that an acceptable paravisor names, or enrolled ones.
    /// Any is sound only where the registered launch digests and MRTDs are of paravisors that make that key themselves:
    /// those before August 2025 named whatever RSA key was at handle 0x81000003 (CVE-2025-49707).
    pub attestation_keys: Demanded<[u8; 32]>,
    /// Devices that the host assigns to the VM beside the paravisor (`filtered-vpci-devices-allowed`). A paravisor that
    /// does not speak of them is of a time before it could let them in.
    pub vpci_devices: Permission,
    /// PCRs that every set of Reference Values for Azure has to name: 0, 4, 7, 9 and whatever else is wanted.
    pub demanded_pcrs: BTreeSet<u8>,
}

/// A whole policy that was checked when it was made.
#[derive(Clone, Debug)]
pub struct AppraisalPolicy {
    pub(super) reference_values: Vec<ReferenceValues>,
    pub(super) snp: SnpPolicy,
    pub(super) tdx: TdxPolicy,
    pub(super) vtpm: VtpmPolicy,
    pub(super) azure: AzurePolicy,
    /// `snp` for the report of a paravisor.
    pub(super) paravisor: SnpPolicy,
}

/// Why a policy is not usable. Spoken to the operator who wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PolicyError {
    /// A VMPL above 3.
    #[error("VMPL {0} does not exist: name the agent's level, 0 to 3")]
    Vmpl(u32),
    /// A minimum TCB with a component that the product does not have, or without one that it has.
    #[error("the minimum TCB of {0}: fmc is to be given for Turin and only there")]
    Components(Product),
    /// A minimum GUEST_SVN, and anybody's ID block.
    #[error("minimum_guest_svn {0} says nothing while anybody may sign the ID block: name id_keys")]
    GuestSvn(u32),
    /// The policy leaves out a PCR that is always demanded.
    #[error("the policies for TPMs and for Azure must demand PCR {0}: without it nobody knows what booted")]
    Undemanded(u8),
    /// A set of Reference Values leaves out a PCR that the policy demands.
    #[error("reference values {name} must name PCR {pcr}, which the policy demands")]
    Unnamed {
        /// The set's name.
        name: String,
        /// The PCR that it leaves out.
        pcr: u8,
    },
}

impl AppraisalPolicy {
    /// Puts a policy together. With no Reference Values it refuses all Evidence.
    ///
    /// # Errors
    /// [`PolicyError`] names what could not be demanded as written.
    pub fn new(
        reference_values: Vec<ReferenceValues>,
        snp: SnpPolicy,
        tdx: TdxPolicy,
        vtpm: VtpmPolicy,
        azure: AzurePolicy,
    ) -> Result<Self, PolicyError> {
        if snp.vmpl > LAST_VMPL {
            return Err(PolicyError::Vmpl(snp.vmpl));
        }
        // The host brings the ID block: signed with a key of its own, it states whatever GUEST_SVN is wanted.
        if snp.minimum_guest_svn > 0 && snp.id_keys == Demanded::Any {
            return Err(PolicyError::GuestSvn(snp.minimum_guest_svn));
        }
        for (product, tcb) in &snp.minimum_tcb {
            if tcb.fmc.is_some() != (*product == Product::Turin) {
                return Err(PolicyError::Components(*product));
            }
        }
        for demanded in [&vtpm.demanded_pcrs, &azure.demanded_pcrs] {
            if let Some(pcr) = DEMANDED_PCRS.into_iter().find(|pcr| !demanded.contains(pcr)) {
                return Err(PolicyError::Undemanded(pcr));
            }
        }
        for values in &reference_values {
            let (pcrs, demanded) = match &values.measured {
                Measured::Snp { .. } | Measured::Tdx { .. } => continue,
                Measured::Vtpm { pcrs } => (pcrs, &vtpm.demanded_pcrs),
                Measured::AzureSnp { pcrs, .. } | Measured::AzureTdx { pcrs, .. } => (pcrs, &azure.demanded_pcrs),
            };
            if let Some(pcr) = demanded.iter().find(|pcr| !pcrs.contains_key(pcr)) {
                return Err(PolicyError::Unnamed { name: values.name.clone(), pcr: *pcr });
            }
        }
        let paravisor = SnpPolicy { vmpl: PARAVISOR_VMPL, ..snp.clone() };
        Ok(Self { reference_values, snp, tdx, vtpm, azure, paravisor })
    }

    /// What is demanded of TPMs.
    pub fn vtpm(&self) -> &VtpmPolicy {
        &self.vtpm
    }
}
