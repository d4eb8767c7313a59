//! Evidence of an Azure VM whose every unsigned part is the input's. What stands before a part is put right here: the
//! hardware signs the digest of the runtime claims, and the key that the first inputs name signs the TPM's structure over
//! the PCRs. Parts are the kind (even SNP, odd TDX), header with request data (52 bytes; any other length: the right ones),
//! PCR values, boot log, the signed structure up to the digest, runtime claims.
#![no_main]

use std::sync::LazyLock;

use inwit_authority::evidence::{AppraisalPolicy, Authentic, Endorsements, authenticate};
use inwit_fuzz::simulated::{CHIP, HCL_AK, TD, amd, intel, policy};
use inwit_fuzz::{NOW, joined, parts, vector};
use inwit_protocol::azure::{AzureQuote, TpmAttestation};
use inwit_protocol::evidence::{AgentRegister, Evidence, Platform};
use inwit_protocol::primitives::sha256;
use inwit_protocol::refusal::Refusal;
use inwit_tests::hardware::Machine;
use inwit_tests::hardware::azure::Paravisor;
use libfuzzer_sys::fuzz_target;
use ring::digest::{SHA256, SHA384, SHA512, digest};
use ring::rand::SystemRandom;
use ring::signature::RSA_PKCS1_SHA256;

/// Bytes of header, place of the hardware report, request data.
const HEADER: usize = 32;
const SLOT: usize = 1_184;
const REQUEST: usize = 20;

static JUDGED_BY: LazyLock<(Endorsements, AppraisalPolicy)> = LazyLock::new(|| {
    let (snp, tdx) = (amd().snp, intel().tdx);
    (Endorsements { snp, tdx, ..Endorsements::default() }, policy())
});

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn right_head(kind: u32, claims: &[u8]) -> Vec<u8> {
    let length = u32::try_from(claims.len()).unwrap_or(u32::MAX);
    let whole = length.saturating_add(1_236);
    [b"HCLA".to_vec(), words(&[1, whole, 2, 0, 0, 0, 0, length.saturating_add(20), 1, kind, 1, length])].concat()
}

fn first() -> Vec<Vec<u8>> {
    let attest = [
        &b"\xff\x54\x43\x47\x80\x18\0\x02ab\0\x20"[..],
        &[0x5a; 32],
        &[0; 8 + 4 + 4],
        b"\x01\0\0\0\0\0\0\0\x06\0\0\0\x01\0\x0b\x03\xff\xff\xff",
    ]
    .concat();
    let spec = b"Spec ID Event03\0\0\0\0\0\0\x02\0\x02\x01\0\0\0\x0b\0\x20\0\0";
    let log = [&[0, 0, 0, 0, 3, 0, 0, 0][..], &[0; 20], &[spec.len() as u8, 0, 0, 0], spec].concat();
    // RSAPublicKey in DER: nine bytes, the modulus, then the exponent 65,537 in five.
    let modulus: Vec<u8> = HCL_AK.public().as_ref().iter().skip(9).take(256).copied().collect();
    let of = |kind: u8, machine: Machine| {
        let report = Paravisor::on(machine).describe(&modulus).expect("a report").hcl_report;
        let claims = &report[HEADER + SLOT + REQUEST..];
        let head = right_head(if kind == 0 { 2 } else { 4 }, claims);
        [&[], &head[..]].map(|head| joined(&[&[kind], head, &[0; 32 * 24], &log, &attest, claims]))
    };
    let real = |kind: u8, path: &str| {
        let report = vector(path);
        let claims = report.get(HEADER + SLOT + REQUEST..).unwrap_or_default();
        let end = claims.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        joined(&[&[kind], &[], &[0; 32 * 24], &log, &attest, &claims[..end]])
    };
    let snp = Machine::Snp(Box::new(CHIP.clone()));
    let tdx = Machine::Tdx(Box::new(TD.clone()));
    let mut all: Vec<Vec<u8>> = [of(0, snp), of(1, tdx)].concat();
    all.push(real(0, "confidential-containers+trustee/az-snp-vtpm/hcl-report.bin"));
    all.push(real(1, "confidential-containers+trustee/az-tdx-vtpm/hcl-report.bin"));
    all
}

fn authenticated(input: &[u8]) -> Result<Authentic, Refusal> {
    let [kind, head, values, log, attest, claims] = parts(input);
    let (platform, number) = match kind.first() {
        Some(odd) if odd % 2 == 1 => (Platform::AzureTdx, 4),
        _ => (Platform::AzureSnp, 2),
    };
    let right = right_head(number, claims);
    let head = if head.len() == HEADER + REQUEST { head } else { &right };
    let algorithm = match head[44] {
        2 => &SHA384,
        3 => &SHA512,
        _ => &SHA256,
    };
    let mut report_data = [0; 64];
    report_data.iter_mut().zip(digest(algorithm, claims).as_ref()).for_each(|(to, from)| *to = *from);
    let (mut slot, certificates, td_quote) = match platform {
        Platform::AzureTdx => (TD.td_report(&report_data), vec![], Some(TD.quote(&report_data).expect("a quote"))),
        _ => (CHIP.report(&report_data, 0).expect("a report").to_vec(), CHIP.certificate_table(), None),
    };
    slot.resize(SLOT, 0);
    let (header, request) = head.split_at(HEADER);
    let mut pcrs = [[0; 32]; 24];
    pcrs.iter_mut().zip(values.as_chunks().0).for_each(|(pcr, value)| *pcr = *value);
    let attest = [attest, &[0, 32], &sha256(pcrs.as_flattened())].concat();
    let mut signature = vec![0; HCL_AK.public().modulus_len()];
    HCL_AK.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), &attest, &mut signature).expect("a signature");
    let quote = AzureQuote {
        hcl_report: [header, &slot, request, claims].concat(),
        // The lowest bit but one of the kind leaves the TPM out.
        tpm: kind.first().is_none_or(|kind| kind & 2 == 0).then_some(TpmAttestation { attest, signature, pcrs }),
        td_quote,
    };
    let evidence = Evidence {
        platform,
        quote: quote.encode(),
        endorsements: certificates,
        event_log: log.to_vec(),
        agent_register: AgentRegister::Pcr(15),
    };
    authenticate(&evidence, &JUDGED_BY.0, NOW)
}

/// One of each kind.
fn all_parts_are_reached() -> bool {
    let inputs = first();
    inputs.iter().take(4).all(|input| authenticated(input).is_ok())
}

fuzz_target!(
    init: inwit_fuzz::begin_inside(first(), |_| all_parts_are_reached()),
    |input: &[u8]| {
        let _ = authenticated(input).map(|authentic| authentic.judge(&JUDGED_BY.1));
    }
);
