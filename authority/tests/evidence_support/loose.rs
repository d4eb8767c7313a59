//! One collateral document taken apart into the loose files that people fetch: the service's answers, lists and chains.

use serde_json::Value;

/// A collateral document's parts, bytes each as the service hands them out.
pub struct Loose {
    pub tcb_info: Vec<u8>,
    pub qe_identity: Vec<u8>,
    pub root_list: Vec<u8>,
    pub pck_list: Vec<u8>,
    /// Signer and root, PEM.
    pub signing_chain: Vec<u8>,
    /// PCK CA and root, PEM.
    pub pck_chain: Vec<u8>,
}

pub fn loose(collateral: &[u8]) -> Loose {
    let json: Value = serde_json::from_slice(collateral).unwrap();
    let text = |name: &str| json[name].as_str().unwrap().to_owned();
    let answer = |outer: &str, name: &str| {
        let (document, signature) = (text(name), text(&format!("{name}_signature")));
        format!("{{\"{outer}\":{document},\"signature\":\"{signature}\"}}").into_bytes()
    };
    let bytes = |hex: String| -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    };
    Loose {
        tcb_info: answer("tcbInfo", "tcb_info"),
        qe_identity: answer("enclaveIdentity", "qe_identity"),
        root_list: bytes(text("root_ca_crl")),
        pck_list: bytes(text("pck_crl")),
        signing_chain: text("tcb_info_issuer_chain").into_bytes(),
        pck_chain: text("pck_crl_issuer_chain").into_bytes(),
    }
}

impl Loose {
    /// Everything, with a name for each file.
    pub fn files(&self) -> [(&'static str, &[u8]); 6] {
        [
            ("tcb-info", &self.tcb_info),
            ("qe-identity", &self.qe_identity),
            ("root.crl", &self.root_list),
            ("pck.crl", &self.pck_list),
            ("signing-chain.pem", &self.signing_chain),
            ("pck-chain.pem", &self.pck_chain),
        ]
    }
}
