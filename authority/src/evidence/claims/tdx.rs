//! What an authentic TDX quote says, with what its collateral says of the platform. Values, not a proof, as all claims are.

use crate::evidence::tdx::{TcbStatus, TdAttributes};

/// A flag of a PCK certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PckFlag {
    /// Stated as false.
    No,
    /// Not stated: the certificate comes from the Processor CA, which makes no such statement.
    Unstated,
    /// Stated as true.
    Yes,
}

/// How Intel's collateral stands to one part of a TDX platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcbStanding {
    /// Status of the level that the part reaches.
    pub status: TcbStatus,
    /// tcbDate of that level, unix time: how old the newest known weakness is that the part is free of.
    pub date: u64,
    /// Advisories of that level.
    pub advisory_ids: Vec<String>,
}

/// A TDX module of a version that Intel lists by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleTcb {
    /// Intel's id of the version, for example `TDX_03`.
    pub id: String,
    /// ISVSVN, the first byte of TEE_TCB_SVN.
    pub isvsvn: u8,
    /// The level that it reaches.
    pub tcb: TcbStanding,
}

/// The quoting enclave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotingEnclaveTcb {
    /// ISVSVN of its report.
    pub isvsvn: u16,
    /// The level that it reaches.
    pub tcb: TcbStanding,
}

/// The extension of a TD 1.5 report (TDX DCAP quote format 5, body type 4). What it says of the platform that the TD was
/// created on is not kept: it is judged by nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TdExtension {
    /// Number of the VM inside of a partitioned TD that asked; zero for a TD that is not partitioned, or for its own monitor.
    pub vm_id: u8,
    /// A number that the TDX module drew for this TD; drawn anew when it is launched anew.
    pub td_id: [u8; 32],
    /// Hash over the devices that were taken into the TD; zero where there are none.
    pub device_info: [u8; 48],
    /// SERVTD_HASH of the service TDs that were bound when the TD was created.
    pub initial_service_td: [u8; 48],
    /// SERVTD_HASH of those that are bound now.
    pub current_service_td: [u8; 48],
}

/// Claims of a TDX quote and of the collateral that it was verified with (TDX DCAP quote format 4 and 5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TdxClaims {
    /// Quote version: 4 or 5.
    pub version: u16,
    /// MRTD, the measurement of the TD as built.
    pub mrtd: [u8; 48],
    /// RTMR0 to RTMR3.
    pub rtmrs: [[u8; 48]; 4],
    /// TDATTRIBUTES.
    pub td_attributes: TdAttributes,
    /// XFAM, the CPU features that the TD may use.
    pub xfam: u64,
    /// MRCONFIGID, chosen by the host at launch.
    pub mr_config_id: [u8; 48],
    /// MROWNER, chosen by the host at launch.
    pub mr_owner: [u8; 48],
    /// MROWNERCONFIG, chosen by the host at launch.
    pub mr_owner_config: [u8; 48],
    /// MRSEAM, the measurement of the TDX module.
    pub mr_seam: [u8; 48],
    /// MRSERVICETD of the bound service TDs, with an extension those at the creation; absent in a TD 1.0 body, zero where
    /// none is bound.
    pub mr_service_td: Option<[u8; 48]>,
    /// What a TD 1.5 report with its extension says beside that.
    pub extension: Option<TdExtension>,
    /// TEE_TCB_SVN: what the TD was launched on.
    pub tee_tcb_svn: [u8; 16],
    /// TEE_TCB_SVN2: what runs now; absent in a TD 1.0 body.
    pub tee_tcb_svn2: Option<[u8; 16]>,
    /// Status of the platform, the worst of its parts.
    pub tcb_status: TcbStatus,
    /// The same for what runs now, where the quote states it.
    pub current_status: Option<TcbStatus>,
    /// Advisories that apply to any part, now or at launch, for example `INTEL-SA-00615`; sorted.
    pub advisory_ids: Vec<String>,
    /// The platform without its TDX module and quoting enclave.
    pub platform: TcbStanding,
    /// The TDX module that the TD was launched on; absent for one of version 0, which is judged with the platform.
    pub module: Option<ModuleTcb>,
    /// The quoting enclave.
    pub quoting_enclave: QuotingEnclaveTcb,
    /// The lower tcbEvaluationDataNumber of TCB info and QE identity: how new the collateral is.
    pub tcb_evaluation_number: u32,
    /// First second, unix time, at which every certificate, list and document that was used was valid.
    pub collateral_from: u64,
    /// The last such second.
    pub collateral_until: u64,
    /// FMSPC of the platform.
    pub fmspc: [u8; 6],
    /// Whether processor packages may be added to the platform.
    pub dynamic_platform: PckFlag,
    /// Whether Intel holds the platform's root keys.
    pub cached_keys: PckFlag,
    /// Whether simultaneous multithreading is on.
    pub smt_enabled: PckFlag,
}

impl TdxClaims {
    /// Whether any service TD was or is bound, by whatever field says so.
    pub fn service_td_bound(&self) -> bool {
        let stated = self.extension.iter().flat_map(|told| [told.initial_service_td, told.current_service_td]);
        self.mr_service_td.into_iter().chain(stated).any(|digest| digest != [0; 48])
    }
}
