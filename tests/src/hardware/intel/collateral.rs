//! What a verifier needs beside a quote: revocation lists, TCB information and quoting enclave identity, signed.
//!
//! Source: Intel PCS API version 4 (TCB info version 3, enclave identity version 2). The statuses are the test's
//! choice; the signatures are over the exact bytes handed out. Writes only.

use dcap_qvl::{QuoteCollateralV3, TcbStatus};
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;

use super::quote::{QE_ISV_PROD_ID, QE_MISC_SELECT, TdxMachine};
use super::{DAY, IntelTestRoot, Revoked};
use crate::hardware::{HardwareError, der};

/// What the simulated Intel says about a platform. Public so that a test can make it say something bad.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endorsements {
    /// Issue date of every document and list, unix seconds.
    pub issued_at: u64,
    /// When every document and list expires, unix seconds.
    pub next_update: u64,
    /// Status of the TCB level that the platform meets.
    pub tcb_status: TcbStatus,
    /// Advisories of that level.
    pub advisory_ids: Vec<String>,
    /// Status of the TDX module's level: UpToDate, OutOfDate or Revoked.
    pub module_status: TcbStatus,
    /// Status of the quoting enclave's level.
    pub qe_status: TcbStatus,
    /// tcbEvaluationDataNumber of both documents.
    pub tcb_evaluation_data_number: u32,
    /// What the revocation lists name.
    pub revoked: Revoked,
}

impl Endorsements {
    /// Everything up to date, issued a day before `at`, good for thirty days as Intel's documents are.
    pub fn up_to_date(at: u64) -> Self {
        let issued_at = at.saturating_sub(DAY);
        Self {
            issued_at,
            next_update: issued_at.saturating_add(30 * DAY),
            tcb_status: TcbStatus::UpToDate,
            advisory_ids: Vec::new(),
            module_status: TcbStatus::UpToDate,
            qe_status: TcbStatus::UpToDate,
            tcb_evaluation_data_number: 20,
            revoked: Revoked::Nothing,
        }
    }
}

impl TdxMachine {
    /// The collateral for this machine's quotes, freshly signed.
    pub fn collateral(&self) -> Result<QuoteCollateralV3, HardwareError> {
        self.collateral_that_says(self.tcb_info()?, self.qe_identity()?)
    }

    /// The same with documents of the caller's choice, signed whatever they say.
    pub fn collateral_that_says(
        &self,
        tcb_info: String,
        qe_identity: String,
    ) -> Result<QuoteCollateralV3, HardwareError> {
        let root: &IntelTestRoot = &self.root;
        let says = &self.endorsements;
        let (root_ca_crl, pck_crl) =
            root.revocation_lists(&self.pck, says.revoked, says.issued_at, says.next_update)?;
        let signer_chain = [root.signer_pem.as_str(), &root.root_pem].concat();
        Ok(QuoteCollateralV3 {
            pck_crl_issuer_chain: [root.platform_pem.as_str(), &root.root_pem].concat(),
            root_ca_crl,
            pck_crl,
            tcb_info_issuer_chain: signer_chain.clone(),
            tcb_info_signature: root.sign_document(&tcb_info)?,
            tcb_info,
            qe_identity_issuer_chain: signer_chain,
            qe_identity_signature: root.sign_document(&qe_identity)?,
            qe_identity,
            pck_certificate_chain: None,
        })
    }

    /// The collateral as JSON in dcap-qvl's form: byte fields are hexadecimal.
    pub fn collateral_json(&self) -> Result<String, HardwareError> {
        serde_json::to_string(&self.collateral()?).map_err(|_| HardwareError::Key("write collateral as JSON"))
    }

    fn tcb_info(&self) -> Result<String, HardwareError> {
        let says = &self.endorsements;
        let fields = &self.pck.fields;
        let module = json!({
            "mrsigner": hex(&self.mr_signer_seam),
            "attributes": hex(&[0; 8]),
            "attributesMask": hex(&[0xff; 8]),
        });
        let [module_svn, module_version, ..] = self.tee_tcb_svn;
        let mut identity = module.clone();
        identity["id"] = format!("TDX_{module_version:02X}").into();
        identity["tcbLevels"] = json!([level(json!({ "isvsvn": module_svn }), says, says.module_status, &[])?]);
        // Without a module version the SVNs of the module count as ordinary components.
        let identities = if module_version == 0 { json!([]) } else { json!([identity]) };
        let met = json!({
            "sgxtcbcomponents": components(&fields.cpu_svn),
            "pcesvn": fields.pce_svn,
            "tdxtcbcomponents": components(&self.tee_tcb_svn),
        });
        let document = json!({
            "id": "TDX",
            "version": 3,
            "issueDate": date(says.issued_at)?,
            "nextUpdate": date(says.next_update)?,
            "fmspc": hex(&fields.fmspc),
            "pceId": hex(&fields.pce_id),
            "tcbType": 0,
            "tcbEvaluationDataNumber": says.tcb_evaluation_data_number,
            "tdxModule": module,
            "tdxModuleIdentities": identities,
            "tcbLevels": [level(met, says, says.tcb_status, &says.advisory_ids)?],
        });
        Ok(document.to_string())
    }

    fn qe_identity(&self) -> Result<String, HardwareError> {
        let says = &self.endorsements;
        let document = json!({
            "id": "TD_QE",
            "version": 2,
            "issueDate": date(says.issued_at)?,
            "nextUpdate": date(says.next_update)?,
            "tcbEvaluationDataNumber": says.tcb_evaluation_data_number,
            "miscselect": hex(&[0; QE_MISC_SELECT.len()]),
            "miscselectMask": hex(&[0xff; QE_MISC_SELECT.len()]),
            "attributes": "11000000000000000000000000000000",
            "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
            "mrsigner": hex(&self.qe_mr_signer),
            "isvprodid": QE_ISV_PROD_ID,
            "tcbLevels": [level(json!({ "isvsvn": self.qe_isv_svn }), says, says.qe_status, &[])?],
        });
        Ok(document.to_string())
    }
}

fn level(tcb: Value, says: &Endorsements, status: TcbStatus, advisories: &[String]) -> Result<Value, HardwareError> {
    let mut level = json!({
        "tcb": tcb,
        "tcbDate": date(says.issued_at.saturating_sub(90 * DAY))?,
        "tcbStatus": status.to_string(),
    });
    if !advisories.is_empty() {
        level["advisoryIDs"] = json!(advisories);
    }
    Ok(level)
}

fn components(svns: &[u8; 16]) -> Value {
    svns.iter().map(|svn| json!({ "svn": svn })).collect()
}

fn date(unix_seconds: u64) -> Result<String, HardwareError> {
    der::calendar(unix_seconds)?.format(&Rfc3339).map_err(|_| HardwareError::Time(unix_seconds))
}

/// Capital letters, as Intel writes them.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}
