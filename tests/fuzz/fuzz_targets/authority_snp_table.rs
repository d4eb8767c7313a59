//! The certificate table beside a genuine report. Whatever it looks like, the report is authentic only when the chip's
//! one certificate stands in it.
#![no_main]

use std::sync::LazyLock;

use inwit_authority::evidence::{Endorsements, authenticate};
use inwit_fuzz::simulated::{CHIP, amd};
use inwit_fuzz::{NOW, vector};
use inwit_protocol::evidence::{AgentRegister, Evidence, Platform};
use libfuzzer_sys::fuzz_target;

static REPORT: LazyLock<Vec<u8>> = LazyLock::new(|| CHIP.report(&[0x5a; 64], 0).expect("a report").to_vec());
static AMD: LazyLock<Endorsements> = LazyLock::new(amd);

const VCEK: [u8; 16] = 0x63da758d_e664_4564_adc5_f4b93be8accd_u128.to_be_bytes();
const VLEK: [u8; 16] = 0xa8074bc2_a25a_483e_aae6_39c045a0b8a1_u128.to_be_bytes();

fn first() -> Vec<Vec<u8>> {
    let one = |guid: [u8; 16], certificate: &[u8]| {
        let length = u32::try_from(certificate.len()).unwrap_or(u32::MAX);
        [&guid[..], &48u32.to_le_bytes(), &length.to_le_bytes(), &[0; 24], certificate].concat()
    };
    let many = [[[9; 16].as_slice(), &[0; 8]].concat().repeat(15), CHIP.certificate_table()].concat();
    vec![
        CHIP.certificate_table(),
        many,
        one(VCEK, &vector("virtee+sev/snp/v2-milan/vcek.der")),
        one(VCEK, &vector("microsoft+TEE-Attestation-Verification/snp/v5-turin-aci/vcek.der")),
        one(VLEK, &vector("confidential-containers+trustee/snp/v3-milan-VLEK-aws-vmpl1/vlek.der")),
    ]
}

fn is_authentic(input: &[u8]) -> bool {
    let evidence = Evidence {
        platform: Platform::Snp,
        quote: REPORT.clone(),
        endorsements: input.to_vec(),
        event_log: vec![],
        agent_register: AgentRegister::Absent,
    };
    authenticate(&evidence, &AMD, NOW).is_ok()
}

fuzz_target!(init: inwit_fuzz::begin_inside(first(), is_authentic), |input: &[u8]| {
    if is_authentic(input) {
        let genuine = &CHIP.vcek.certificate;
        assert!(input.windows(genuine.len()).any(|window| window == genuine), "another certificate of the same chip");
    }
});
