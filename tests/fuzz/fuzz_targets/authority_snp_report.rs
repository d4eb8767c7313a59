//! An SNP report of which everything but the signature is the input's: the chip signs it, so that every field is read,
//! claimed and appraised. What is acceptable in the end has no debugging, no migration and the agent's VMPL.
#![no_main]

use std::sync::LazyLock;

use inwit_authority::evidence::{AppraisalPolicy, Endorsements, Judged, authenticate};
use inwit_fuzz::simulated::{CHIP, amd, policy};
use inwit_fuzz::{NOW, vector};
use inwit_protocol::evidence::{AgentRegister, Evidence, Platform};
use inwit_protocol::refusal::Refusal;
use libfuzzer_sys::fuzz_target;

/// Bytes before the signature.
const SIGNED: usize = 0x2a0;

static JUDGED_BY: LazyLock<(Endorsements, AppraisalPolicy)> = LazyLock::new(|| (amd(), policy()));

fn first() -> Vec<Vec<u8>> {
    let body = |report: &[u8]| report.iter().copied().take(SIGNED).collect();
    let simulated = [2, 3, 5].map(|version| {
        let mut machine = CHIP.clone();
        machine.version = version;
        body(&machine.report(&[0x5a; 64], 0).expect("a report"))
    });
    let real = [
        "virtee+sev/snp/v2-milan/report.bin",
        "microsoft+confidential-sidecar-containers/snp/v3-milan-aci/report.bin",
        "confidential-dot-ai+attestation-rs/snp/v5-genoa-live2/report.bin",
        "microsoft+TEE-Attestation-Verification/snp/v5-turin-aci/report.bin",
        "confidential-containers+trustee/snp/v3-milan-VLEK-aws-vmpl1/report.bin",
    ];
    simulated.into_iter().chain(real.map(|path| body(&vector(path)))).collect()
}

fn judge(input: &[u8]) -> Result<Judged, Refusal> {
    let evidence = Evidence {
        platform: Platform::Snp,
        quote: CHIP.sign(input.to_vec()).expect("a signature").to_vec(),
        endorsements: CHIP.certificate_table(),
        event_log: vec![],
        agent_register: AgentRegister::Absent,
    };
    let (by, policy) = &*JUDGED_BY;
    authenticate(&evidence, by, NOW)?.judge(policy)
}

fuzz_target!(init: inwit_fuzz::begin_inside(first(), |input| judge(input).is_ok()), |input: &[u8]| {
    if input.len() > SIGNED {
        return;
    }
    let number = |at: usize| input.get(at..at + 4).map_or([0; 4], |bytes| bytes.try_into().expect("four bytes"));
    if judge(input).is_ok() {
        assert_eq!(u32::from_le_bytes(number(8)) & (1 << 18 | 1 << 19), 0, "a debuggable or migratable guest");
        assert_eq!(number(0x30), [0; 4], "another VMPL");
    }
});
