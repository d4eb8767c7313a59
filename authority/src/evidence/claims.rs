//! What authentic Evidence says, typed per platform. These are values, not a proof: only an `Authentic`, which no caller
//! can make, says that they are true. Arrays hold register bytes in the order of the hardware's own structures.

mod tdx;

use inwit_protocol::evidence::Platform;

use super::snp::{GuestPolicy, PlatformInfo, Product, Revocation, SnpTcb};

pub use tdx::{ModuleTcb, PckFlag, QuotingEnclaveTcb, TcbStanding, TdExtension, TdxClaims};

/// Claims of one platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claims {
    /// AMD SEV-SNP.
    Snp(Box<SnpClaims>),
    /// Intel TDX.
    Tdx(Box<TdxClaims>),
    /// A TPM 2.0 whose attestation key is configured as trusted; nothing roots it in TEE hardware.
    Vtpm(Box<VtpmClaims>),
    /// An Azure confidential VM: a paravisor in the TEE, and the TPM that it emulates.
    Azure(Box<AzureClaims>),
}

impl Claims {
    /// The platform that made the Evidence.
    pub fn platform(&self) -> Platform {
        match self {
            Self::Snp(_) => Platform::Snp,
            Self::Tdx(_) => Platform::Tdx,
            Self::Vtpm(_) => Platform::Vtpm,
            Self::Azure(claims) => match claims.tee {
                AzureTee::Snp(_) => Platform::AzureSnp,
                AzureTee::Tdx(_) => Platform::AzureTdx,
            },
        }
    }
}

/// A firmware version as `major.minor` build `build`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FirmwareVersion {
    /// Major version of the firmware and of the ABI that it speaks.
    pub major: u8,
    /// Minor version.
    pub minor: u8,
    /// Build number.
    pub build: u8,
}

/// Which key signed an SNP report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnpSigner {
    /// The chip's own key.
    Vcek,
    /// A key that AMD gave to a cloud provider for its chips.
    Vlek {
        /// CSP_ID of the certificate.
        provider: String,
    },
}

/// Claims of an SNP attestation report (firmware ABI 56860, ATTESTATION_REPORT).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnpClaims {
    /// Layout version: 2 to 5.
    pub version: u32,
    /// EPYC generation, as its root key proves.
    pub product: Product,
    /// Whether the ARK and what it issued here were looked up in the ARK's revocation lists, one of them current.
    pub revocation: Revocation,
    /// Whose key signed.
    pub signer: SnpSigner,
    /// MEASUREMENT, the launch digest.
    pub measurement: [u8; 48],
    /// POLICY of the launch.
    pub policy: GuestPolicy,
    /// Privilege level that asked for the report: 0 to 3, or `u32::MAX` for the host.
    pub vmpl: u32,
    /// GUEST_SVN of the ID block.
    pub guest_svn: u32,
    /// FAMILY_ID of the ID block.
    pub family_id: [u8; 16],
    /// IMAGE_ID of the ID block.
    pub image_id: [u8; 16],
    /// HOST_DATA, chosen by the host at launch.
    pub host_data: [u8; 32],
    /// SHA-384 of the key that signed the ID block, zero where there is none.
    pub id_key_digest: [u8; 48],
    /// SHA-384 of the key that signed the ID key, zero where there is none.
    pub author_key_digest: [u8; 48],
    /// REPORT_ID of this guest instance.
    pub report_id: [u8; 32],
    /// REPORT_ID of the bound migration agent, if one is bound.
    pub migration_agent: Option<[u8; 32]>,
    /// CHIP_ID; zero under a VLEK whose provider masks it.
    pub chip_id: [u8; 64],
    /// REPORTED_TCB, which the signing key is derived from.
    pub reported_tcb: SnpTcb,
    /// COMMITTED_TCB, below which the platform cannot be rolled back.
    pub committed_tcb: SnpTcb,
    /// CURRENT_TCB.
    pub current_tcb: SnpTcb,
    /// LAUNCH_TCB, the platform's when the guest was launched or came.
    pub launch_tcb: SnpTcb,
    /// Version of the firmware that runs.
    pub current_firmware: FirmwareVersion,
    /// Version of the firmware below which the platform cannot be rolled back.
    pub committed_firmware: FirmwareVersion,
    /// PLATFORM_INFO.
    pub platform_info: PlatformInfo,
    /// LAUNCH_MIT_VECTOR and CURRENT_MIT_VECTOR; absent before version 5.
    pub mitigations: Option<(u64, u64)>,
}

/// Why the key that signed a TPM quote is taken for a TPM's attestation key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttestationKeyTrust {
    /// The digest of its SubjectPublicKeyInfo is configured. Its attributes, which make it an attestation key, are what
    /// the guest says that they are.
    ConfiguredKey,
    /// The digest in its TPM Name is configured, which covers its attributes too.
    ConfiguredName,
    /// The paravisor of an Azure confidential VM names it in a report that the TEE hardware signed. That is worth what
    /// the paravisor is worth: one from before August 2025 names whatever RSA key is at handle 0x81000003, which the guest
    /// may have put there (CVE-2025-49707). So the launch digest or MRTD that is registered has to be that of a paravisor
    /// that makes the key anew, or policy names the keys (`attestation_keys`).
    Paravisor,
}

/// Claims of a TPM quote (TPM 2.0 library part 2, TPMS_ATTEST).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VtpmClaims {
    /// PCRs 0 to 23 of the SHA-256 bank.
    pub pcrs: [[u8; 32]; 24],
    /// Times the TPM was reset.
    pub reset_count: u32,
    /// Times the TPM was restarted or resumed since the last reset.
    pub restart_count: u32,
    /// Milliseconds that the TPM has been powered.
    pub clock: u64,
    /// False where `clock` may have gone back since an unorderly shutdown. Informative.
    pub clock_safe: bool,
    /// Vendor's firmware version number.
    pub firmware_version: u64,
    /// SHA-256 of the attestation key's SubjectPublicKeyInfo in DER.
    pub attestation_key: [u8; 32],
    /// Why that key is trusted.
    pub attestation_key_trust: AttestationKeyTrust,
    /// Events of the boot log. Those of PCRs 0 to 9 are all there, and replay to the quote. Those of PCRs 10 to 23 are there
    /// for each PCR whose records replay to the quote as well, and left out for each that was extended after the boot or
    /// whose records are invented; software that ran after the boot may have extended those PCRs itself, and written the
    /// records. Empty where an Azure VM sent no log.
    pub events: Vec<BootEvent>,
}

/// One event of a boot log, after its replay matched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootEvent {
    /// PCR that was extended.
    pub pcr: u32,
    /// Event type of the TCG PC client profile.
    pub kind: u32,
    /// Digest that the PCR was extended with.
    pub digest: [u8; 32],
    /// What the firmware wrote beside the digest. Only the digest is measured.
    pub data: Vec<u8>,
}

/// Claims of an Azure confidential VM. Launch digest and MRTD are those of the paravisor; what booted is in `tpm`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AzureClaims {
    /// What the hardware says of the VM and the paravisor in it.
    pub tee: AzureTee,
    /// What the paravisor says.
    pub runtime: RuntimeClaims,
    /// What its TPM says. Absent where no TPM quote was sent: then nothing says what booted.
    pub tpm: Option<VtpmClaims>,
}

/// The hardware's part of [`AzureClaims`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AzureTee {
    /// The paravisor's SNP report.
    Snp(Box<SnpClaims>),
    /// The TDX quote made from the paravisor's TDREPORT.
    Tdx(Box<TdxClaims>),
}

/// Runtime claims of Azure's paravisor, whose hash is in REPORT_DATA (openhcl_attestation_protocol, `runtime_claims`).
/// What a paravisor of some age does not say is absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeClaims {
    /// SHA-256 of HCLAkPub as SubjectPublicKeyInfo in DER.
    pub attestation_key: [u8; 32],
    /// Whether the VM has a serial console, which the host sees.
    pub console_enabled: bool,
    /// Whether the host can also write to it.
    pub interactive_console_enabled: Option<bool>,
    /// Whether Secure Boot is on.
    pub secure_boot: bool,
    /// Whether the VM has the TPM.
    pub tpm_enabled: bool,
    /// `tpm-persisted`: that the paravisor does not suppress attestation, which is what OpenHCL writes there. Whether the
    /// TPM's state outlives a boot it does not say.
    pub tpm_persisted: Option<bool>,
    /// `filtered-vpci-devices-allowed`: whether the paravisor lets devices in that the host assigns.
    pub vpci_devices_allowed: Option<bool>,
    /// `hardware-sealing-policy`: by what the paravisor derives the key that seals the VM's state, as it writes it.
    pub hardware_sealing_policy: Option<String>,
    /// Hash of the certificate that the VM's state was provisioned with, in base64url as the paravisor writes it.
    pub root_certificate_thumbprint: Option<String>,
    /// Identifier of the VM, as the paravisor writes it.
    pub vm_unique_id: Option<String>,
    /// The paravisor's time when it made the report, unix seconds; the host sets its clock.
    pub current_time: Option<i64>,
    /// What the guest wrote into NV index 0x01400002 before the report was made.
    pub user_data: Option<[u8; 64]>,
}
