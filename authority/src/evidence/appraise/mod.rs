//! The second act: what hardware truly said, against what policy and Reference Values demand. Forbidden modes first, then
//! the platform's state, then what was launched, then whether the agent that made the binding is in what was measured.
//! Reads claims only; decides no identity.

mod agent;
mod azure;
mod judged;
mod measured;
mod snp;
mod tdx;
mod trustworthiness;

use inwit_measurements::reference::ReferenceValues;
use inwit_protocol::binding::Agent;
use inwit_protocol::ear::TrustworthinessVector;
use inwit_protocol::evidence::Platform;
use inwit_protocol::refusal::Refusal;

use super::policy::{AppraisalPolicy, Requirement};
use super::{Bound, Claims};
use trustworthiness::Reach;

pub use judged::Judged;

/// Evidence that was found acceptable, for one binding and its agent.
///
/// Cannot be made, cloned or decoded by a caller.
#[derive(Debug)]
pub struct Appraised {
    claims: Claims,
    reference_values: String,
    trustworthiness: TrustworthinessVector,
}

impl Bound {
    /// Appraises the claims under `policy`. `agent` is the one that the binding names, from parsing the same binding
    /// that this was bound to.
    ///
    /// # Errors
    /// A [`Refusal`] that names the first demand that is not met.
    pub fn appraise(self, policy: &AppraisalPolicy, agent: &Agent) -> Result<Appraised, Refusal> {
        let candidates = acceptable(&self.claims, policy)?;
        let matched = agent::among(&candidates, agent)?;
        agent::in_its_register(&self.claims, self.agent_register, agent)?;
        let trustworthiness = trustworthiness::found(&self.claims, Reach::Agent);
        Ok(Appraised { reference_values: matched.name.clone(), claims: self.claims, trustworthiness })
    }
}

/// What is demanded of the platform and of what was launched, whoever the Evidence was made for: gives every set of
/// Reference Values that matches.
fn acceptable<'p>(claims: &Claims, policy: &'p AppraisalPolicy) -> Result<Vec<&'p ReferenceValues>, Refusal> {
    match claims {
        Claims::Snp(claims) => snp::appraise(claims, &policy.snp)?,
        Claims::Tdx(claims) => tdx::appraise(claims, &policy.tdx, Requirement::Demanded)?,
        // A TPM states no mode or version that could be judged: its key and its PCRs are everything.
        Claims::Vtpm(_) => {}
        Claims::Azure(claims) => azure::appraise(claims, policy)?,
    }
    measured::matching(claims, &policy.reference_values)
}

impl Appraised {
    /// What the hardware said.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// The name of the Reference Values that matched.
    pub fn reference_values(&self) -> &str {
        &self.reference_values
    }

    /// The platform that made the Evidence.
    pub fn platform(&self) -> Platform {
        self.claims.platform()
    }

    /// What was found, as AR4SI numbers it.
    pub fn trustworthiness(&self) -> &TrustworthinessVector {
        &self.trustworthiness
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};

    use inwit_protocol::evidence::{AgentRegister, Evidence};
    use inwit_protocol::refusal::RefusalCode;

    use super::*;
    use crate::evidence::{
        AzurePolicy, Console, Demanded, Endorsements, Permission, Product, SnpPolicy, SnpRoot, SnpTcb, TcbStatus,
        TdxPart, TdxPolicy, TdxRoot, VekCertificate, VtpmPolicy, authenticate,
    };

    /// A policy that is as lenient as one can be.
    fn lenient() -> AppraisalPolicy {
        let nothing = SnpTcb { fmc: None, boot_loader: 0, tee: 0, snp: 0, microcode: 0 };
        let snp = SnpPolicy {
            vmpl: 0,
            minimum_tcb: [(Product::Milan, nothing)].into(),
            minimum_abi: (0, 0),
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
        };
        let tdx = TdxPolicy {
            accepted_status: TcbStatus::ALL.into(),
            accepted_advisories: (0..2_000).map(|number| format!("INTEL-SA-{number:05}")).collect(),
            minimum_tcb_evaluation_number: 0,
            dynamic_platform: Permission::Allowed,
            cached_keys: Permission::Allowed,
            smt: Permission::Allowed,
            mr_config_id: Demanded::Any,
            mr_owner: Demanded::Any,
            mr_owner_config: Demanded::Any,
            mr_seam: Demanded::Any,
        };
        let vtpm = VtpmPolicy { demanded_pcrs: [0, 4, 7, 9].into() };
        let azure = AzurePolicy {
            console: Console::Allowed,
            secure_boot: Requirement::NotDemanded,
            tpm_persisted: Requirement::NotDemanded,
            sept_ve_disable: Requirement::NotDemanded,
            attestation_keys: Demanded::Any,
            vpci_devices: Permission::Allowed,
            demanded_pcrs: [0, 4, 7, 9].into(),
        };
        AppraisalPolicy::new(vec![], snp, tdx, vtpm, azure).unwrap()
    }

    fn vectors() -> Option<PathBuf> {
        let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors");
        let folder = std::env::var_os("INWIT_VECTORS").map_or_else(beside, PathBuf::from);
        if folder.is_dir() {
            return Some(folder);
        }
        let line = b"NOT RUN: 1 appraisal of real Evidence (set INWIT_VECTORS)\n";
        let _ = std::io::Write::write_all(&mut std::io::stderr(), line);
        None
    }

    /// Authenticates real Evidence and appraises it without the binding, whose preimage nobody has.
    fn code(platform: Platform, quote: Vec<u8>, by: &Endorsements, at: u64) -> RefusalCode {
        let (endorsements, event_log) = (vec![], vec![]);
        let evidence = Evidence { platform, quote, endorsements, event_log, agent_register: AgentRegister::Absent };
        let authentic = authenticate(&evidence, by, at).unwrap();
        let bound = Bound { claims: authentic.claims, agent_register: authentic.agent_register };
        let agent = Agent { name: String::new(), version: String::new(), executable: [0; 32], configuration: [0; 32] };
        bound.appraise(&lenient(), &agent).unwrap_err().code
    }

    #[test]
    fn a_real_report_of_a_debuggable_guest_is_authentic_and_refused() {
        let Some(vectors) = vectors() else { return };
        let read = |file: &str| std::fs::read(vectors.join(file)).unwrap();
        let (ark, ask) = (read("_amd-roots/milan-ark.der"), read("_amd-roots/milan-ask.der"));
        let snp = vec![SnpRoot::new(Product::Milan, &ark, &[ask], &[]).unwrap()];
        for (folder, at, expected) in [
            ("google+go-sev-guest/snp/v2-milan-DEBUG-policy-0xb0000", 1_700_000_000, RefusalCode::DebugEnabled),
            ("virtee+sev/snp/v2-milan", 1_700_000_000, RefusalCode::MeasurementUnregistered),
        ] {
            let vek = VekCertificate::from_der(&read(&format!("{folder}/vcek.der"))).unwrap();
            let by = Endorsements { snp: snp.clone(), veks: vec![vek], ..Endorsements::default() };
            assert_eq!(code(Platform::Snp, read(&format!("{folder}/report.bin")), &by, at), expected, "{folder}");
        }
    }

    #[test]
    fn real_quotes_of_tds_that_others_can_enter_are_authentic_and_refused() {
        let Some(vectors) = vectors() else { return };
        let read = |file: &str| std::fs::read(vectors.join("_tdx-assembled").join(file)).unwrap();
        for (folder, at, expected) in [
            ("12b401a88a51-REJECT-Debug-mode-is-enabled", 1_774_995_904, RefusalCode::DebugEnabled),
            ("d0010db6f7b8-REJECT-Invalid-MR-service-TD", 1_783_993_735, RefusalCode::PolicyForbids),
            ("b789d779386f-OutOfDate", 1_769_530_199, RefusalCode::MeasurementUnregistered),
        ] {
            let collateral = read(&format!("{folder}/collateral.json"));
            let json: serde_json::Value = serde_json::from_slice(&collateral).unwrap();
            let chain = json["tcb_info_issuer_chain"].as_str().unwrap().as_bytes().to_vec();
            let root = x509_parser::pem::Pem::iter_from_buffer(&chain).last().unwrap().unwrap().contents;
            let root = TdxRoot::new(&root, &[TdxPart::Collateral(&collateral)]).unwrap();
            let by = Endorsements { tdx: vec![root], ..Endorsements::default() };
            assert_eq!(code(Platform::Tdx, read(&format!("{folder}/quote.bin")), &by, at), expected, "{folder}");
        }
    }
}
