//! An SNP report with everything beside it hostile too: parts are product, ARK, ASK, revocation list, stored VEK,
//! certificate table, report. The first inputs are real ones, so that changes reach past the chain.
#![no_main]

use inwit_authority::evidence::{Endorsements, Product, SnpRoot, VekCertificate, authenticate};
use inwit_fuzz::{NOW, joined, parts, vector};
use inwit_protocol::evidence::{AgentRegister, Evidence, Platform};
use libfuzzer_sys::fuzz_target;

const VCEK: [u8; 16] = [0x63, 0xda, 0x75, 0x8d, 0xe6, 0x64, 0x45, 0x64, 0xad, 0xc5, 0xf4, 0xb9, 0x3b, 0xe8, 0xac, 0xcd];

/// A table with one certificate.
fn table(certificate: &[u8]) -> Vec<u8> {
    let place = [48, certificate.len() as u32].map(u32::to_le_bytes).concat();
    [VCEK.as_slice(), &place, &[0; 24], certificate].concat()
}

fn first() -> Vec<Vec<u8>> {
    let of = |product: &str, folder: &str| {
        let file = |name: &str| vector(&format!("{folder}/{name}"));
        let root = |name: &str| vector(&format!("_amd-roots/{product}-{name}.der"));
        let vcek = file("vcek.der");
        let (ark, ask, report) = (root("ark"), root("ask"), file("report.bin"));
        let hinted = joined(&[product.as_bytes(), &ark, &ask, &[], &[], &table(&vcek), &report]);
        [hinted, joined(&[product.as_bytes(), &ark, &ask, &[], &vcek, &[], &report])]
    };
    [
        of("milan", "virtee+sev/snp/v2-milan"),
        of("milan", "microsoft+confidential-sidecar-containers/snp/v3-milan-aci"),
        of("genoa", "confidential-dot-ai+attestation-rs/snp/v5-genoa-live2"),
        of("turin", "microsoft+TEE-Attestation-Verification/snp/v5-turin-aci"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fuzz_target!(init: inwit_fuzz::begin_with(first()), |input: &[u8]| {
    let [product, ark, ask, list, vek, table, report] = parts(input);
    let product = match product.first() {
        Some(b'm') => Product::Milan,
        Some(b'g') => Product::Genoa,
        _ => Product::Turin,
    };
    let given = |part: &[u8]| if part.is_empty() { vec![] } else { vec![part.to_vec()] };
    let by = Endorsements {
        snp: SnpRoot::new(product, ark, &given(ask), &given(list)).into_iter().collect(),
        veks: VekCertificate::from_der(vek).into_iter().collect(),
        ..Endorsements::default()
    };
    let evidence = Evidence {
        platform: Platform::Snp,
        quote: report.to_vec(),
        endorsements: table.to_vec(),
        event_log: vec![],
        agent_register: AgentRegister::Absent,
    };
    let _ = authenticate(&evidence, &by, NOW);
});
