//! Intel's endorsements as an operator imports them: the first byte says which part the rest is. Nothing but their
//! reading; what they say is judged in `authority_tdx_collateral`.
#![no_main]

use inwit_authority::evidence::{TdxPart, TdxRoot};
use inwit_fuzz::simulated::TD;
use inwit_fuzz::vector;
use libfuzzer_sys::fuzz_target;

fn first() -> Vec<Vec<u8>> {
    let of = |kind: u8, bytes: &[u8]| [&[kind], bytes].concat();
    let simulated = TD.collateral().expect("collateral");
    let signed = |name: &str, text: &str| format!("{{\"{name}\":{text},\"signature\":\"{}\"}}", "5a".repeat(64));
    let der = |pem: &str| {
        use rustls_pki_types::pem::PemObject;
        rustls_pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).map(|der| der.to_vec()).unwrap_or_default()
    };
    vec![
        of(0, TD.collateral_json().expect("collateral").as_bytes()),
        of(1, signed("tcbInfo", &simulated.tcb_info).as_bytes()),
        of(2, signed("enclaveIdentity", &simulated.qe_identity).as_bytes()),
        of(3, &simulated.root_ca_crl),
        of(3, &simulated.pck_crl),
        of(4, &der(&simulated.tcb_info_issuer_chain)),
        of(5, TD.root.root_der()),
        of(0, &vector("_tdx-assembled/cf77a6e91e48-UpToDate/collateral.json")),
        of(0, &vector("Phala-Network+dcap-qvl/tdx_quote_collateral.json")),
        of(1, &vector("confidential-containers+trustee/tcbInfo.json")),
        of(2, &vector("confidential-containers+trustee/enclaveIdentity.json")),
    ]
}

fuzz_target!(init: inwit_fuzz::begin_with(first()), |input: &[u8]| {
    let Some((kind, bytes)) = input.split_first() else { return };
    let part = match kind % 6 {
        0 => TdxPart::Collateral(bytes),
        1 => TdxPart::TcbInfo(bytes),
        2 => TdxPart::QeIdentity(bytes),
        3 => TdxPart::List(bytes),
        4 => TdxPart::Certificate(bytes),
        _ => {
            assert!(TdxRoot::new(bytes, &[]).is_err() || bytes.first() == Some(&0x30));
            return;
        }
    };
    if let Ok(root) = TdxRoot::new(TD.root.root_der(), &[part]) {
        let _ = root.dated();
    }
});
