//! The Verifier's two acts. `authenticate` turns Evidence, which is a claim, into `Authentic`: hardware that leads to a
//! configured root said this. `appraise` turns that into `Appraised`: what it said is what policy and Reference Values
//! demand. Each rung can only be made by its own check and is consumed by the next one.
//!
//! Pure: no network, no file, no clock; the time is an argument. Trusts no byte of Evidence. Never decides an identity.

mod appraise;
mod azure;
mod boot_log;
mod cache;
mod claims;
mod crypto;
mod endorsements;
mod fields;
mod policy;
mod snp;
mod tdx;
mod vtpm;
pub(crate) mod x509;

use inwit_protocol::binding::{EncodedBinding, ReportData, qualifying_data};
use inwit_protocol::evidence::{AgentRegister, Evidence, Platform};
use inwit_protocol::refusal::{Refusal, RefusalCode};

pub use appraise::{Appraised, Judged};
pub use claims::{
    AttestationKeyTrust, AzureClaims, AzureTee, BootEvent, Claims, FirmwareVersion, ModuleTcb, PckFlag,
    QuotingEnclaveTcb, RuntimeClaims, SnpClaims, SnpSigner, TcbStanding, TdExtension, TdxClaims, VtpmClaims,
};
pub use endorsements::{Dated, EndorsementError, Endorsements};
pub use policy::{
    AppraisalPolicy, AzurePolicy, Console, Demanded, Permission, PolicyError, Requirement, SnpPolicy, TdxPolicy,
    VtpmPolicy,
};
pub use snp::{GuestPolicy, PlatformInfo, Product, Revocation, SnpRoot, SnpTcb, VekCertificate};
pub(crate) use tdx::PartStanding;
pub use tdx::{TcbStatus, TdAttributes, TdxPart, TdxRoot};

/// Evidence that was made by hardware which leads to a configured root. Says nothing yet about whether that hardware
/// measured something acceptable, nor for whom the Evidence was made: next is [`Authentic::bound_to`].
///
/// Cannot be made, cloned or decoded by a caller.
#[derive(Debug)]
pub struct Authentic {
    claims: Claims,
    data: BoundData,
    agent_register: AgentRegister,
}

/// The bytes of the caller's choice that the hardware signed.
#[derive(Debug)]
enum BoundData {
    /// REPORT_DATA of SNP and TDX.
    Report([u8; 64]),
    /// extraData of a TPM quote, of whatever length it came with.
    Qualifying(Vec<u8>),
}

/// [`Authentic`] Evidence that was made over one binding: for one connection, one key and one agent.
#[derive(Debug)]
pub struct Bound {
    claims: Claims,
    agent_register: AgentRegister,
}

/// Authenticates Evidence: its quote leads to a configured root, at the time `at` (unix seconds).
///
/// # Errors
/// A [`Refusal`] that names the first thing that is wrong, or the endorsement to import.
pub fn authenticate(evidence: &Evidence, by: &Endorsements, at: u64) -> Result<Authentic, Refusal> {
    if evidence.quote.is_empty() {
        return Err(Refusal::new(RefusalCode::EvidenceMissing, "the Evidence holds no quote"));
    }
    let agent_register = evidence.agent_register;
    match evidence.platform {
        Platform::Snp => {
            nothing(&evidence.event_log, "an event log, which SNP does not have")?;
            let authenticated = snp::authenticate(&evidence.quote, &evidence.endorsements, by, at)?;
            let claims = Claims::Snp(Box::new(authenticated.claims));
            Ok(Authentic { claims, data: BoundData::Report(authenticated.report_data), agent_register })
        }
        Platform::Tdx => {
            nothing(&evidence.endorsements, "endorsements, which a TDX quote carries itself")?;
            let authenticated = tdx::authenticate(&evidence.quote, &evidence.event_log, by, at)?;
            let claims = Claims::Tdx(Box::new(authenticated.claims));
            Ok(Authentic { claims, data: BoundData::Report(authenticated.report_data), agent_register })
        }
        Platform::Vtpm => {
            nothing(&evidence.endorsements, "endorsements, which a TPM quote does not have")?;
            let authenticated = vtpm::authenticate(&evidence.quote, &evidence.event_log, by)?;
            let claims = Claims::Vtpm(Box::new(authenticated.claims));
            Ok(Authentic { claims, data: BoundData::Qualifying(authenticated.extra_data), agent_register })
        }
        Platform::AzureSnp => {
            let (table, log) = (&evidence.endorsements, &evidence.event_log);
            let authenticated = azure::authenticate_snp(&evidence.quote, table, log, by, at)?;
            let claims = Claims::Azure(Box::new(authenticated.claims));
            Ok(Authentic { claims, data: authenticated.data, agent_register })
        }
        Platform::AzureTdx => {
            nothing(&evidence.endorsements, "endorsements, which a TDX quote carries itself")?;
            let authenticated = azure::authenticate_tdx(&evidence.quote, &evidence.event_log, by, at)?;
            let claims = Claims::Azure(Box::new(authenticated.claims));
            Ok(Authentic { claims, data: authenticated.data, agent_register })
        }
    }
}

/// A part of Evidence that its platform does not have: were it passed over, bytes could travel that nobody looks at.
fn nothing(part: &[u8], what: &str) -> Result<(), Refusal> {
    if part.is_empty() {
        return Ok(());
    }
    Err(Refusal::new(RefusalCode::Malformed, format_args!("the Evidence holds {what}")))
}

impl Authentic {
    /// What the hardware said.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// The bytes of the requester's choice that the hardware signed: REPORT_DATA (64 bytes), or extraData of a TPM quote.
    pub fn data(&self) -> &[u8] {
        match &self.data {
            BoundData::Report(data) => data,
            BoundData::Qualifying(data) => data,
        }
    }

    /// Compares those bytes with expected ones, for Evidence that was made over something else than a binding of ours.
    /// It stays `Authentic`: only a binding leads on to where credentials are issued.
    ///
    /// # Errors
    /// `binding-mismatch` when the quote was made over other bytes.
    pub fn made_over(self, expected: &[u8]) -> Result<Self, Refusal> {
        if self.data() == expected {
            return Ok(self);
        }
        let cause = format_args!("the data in the {} quote is not the expected one", self.claims.platform());
        Err(Refusal::new(RefusalCode::BindingMismatch, cause))
    }

    /// Compares the data that the hardware signed with the digest of a binding.
    ///
    /// # Errors
    /// `binding-mismatch` when the quote was made over other bytes.
    pub fn bound_to(self, binding: &EncodedBinding) -> Result<Bound, Refusal> {
        let same = match &self.data {
            BoundData::Report(data) => data == ReportData::of(binding).bytes(),
            BoundData::Qualifying(data) => data.as_slice() == qualifying_data(binding).as_slice(),
        };
        if !same {
            let platform = self.claims.platform();
            let cause = format_args!("the data in the {platform} quote is not the digest of the binding beside it");
            return Err(Refusal::new(RefusalCode::BindingMismatch, cause));
        }
        Ok(Bound { claims: self.claims, agent_register: self.agent_register })
    }
}

impl Bound {
    /// What the hardware said.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }
}
