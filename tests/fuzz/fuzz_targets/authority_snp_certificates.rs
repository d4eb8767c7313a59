//! AMD's certificates and revocation lists as an operator imports them: the first byte says which of them the rest is.
//! What stands in a VEK certificate is read before anything is verified; a list and an intermediate are read by the side
//! of a genuine root.
#![no_main]

use inwit_authority::evidence::{Product, SnpRoot, VekCertificate};
use inwit_fuzz::simulated::CHIP;
use inwit_fuzz::vector;
use libfuzzer_sys::fuzz_target;

fn first() -> Vec<Vec<u8>> {
    let of = |kind: u8, bytes: &[u8]| [&[kind], bytes].concat();
    let vek = |path: &str| of(0, &vector(path));
    let mut all = vec![
        of(0, &CHIP.vcek.certificate),
        of(1, CHIP.root.ark_der()),
        of(2, CHIP.root.ask_der()),
        of(3, &CHIP.root.crl_der().expect("a list")),
        of(3, &CHIP.root.crl_der_revoking(1, 2, &[CHIP.root.ask_serial(), 7, u64::MAX]).expect("a list")),
        vek("virtee+sev/snp/v2-milan/vcek.der"),
        vek("confidential-dot-ai+attestation-rs/snp/v5-genoa-live2/vcek.der"),
        vek("microsoft+TEE-Attestation-Verification/snp/v5-turin-aci/vcek.der"),
        vek("confidential-containers+trustee/snp/v3-milan-VLEK-aws-vmpl1/vlek.der"),
    ];
    for product in ["milan", "genoa", "turin"] {
        all.push(of(1, &vector(&format!("_amd-roots/{product}-ark.der"))));
        all.push(of(2, &vector(&format!("_amd-roots/{product}-asvk.der"))));
    }
    all
}

fuzz_target!(init: inwit_fuzz::begin_with(first()), |input: &[u8]| {
    let Some((kind, der)) = input.split_first() else { return };
    let root = &CHIP.root;
    match kind % 4 {
        0 => drop(VekCertificate::from_der(der)),
        1 => [Product::Milan, Product::Genoa, Product::Turin]
            .into_iter()
            .for_each(|product| drop(SnpRoot::new(product, der, &[], &[]))),
        2 => {
            let made = SnpRoot::new(Product::Milan, root.ark_der(), &[der.to_vec()], &[]);
            assert!(made.is_err() || der == root.ask_der(), "an intermediate that the root did not sign");
        }
        _ => drop(SnpRoot::new(Product::Milan, root.ark_der(), &[], &[der.to_vec()])),
    }
});
