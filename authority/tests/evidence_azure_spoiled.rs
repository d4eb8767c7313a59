//! One good real machine of each TEE, spoiled everywhere: each byte of the HCL report, of what the TPM attested, of its
//! signature and of each PCR; each length; and the same runtime claims written otherwise. What passes is listed here with
//! its reason, and says the same as the good one. How many were tried is printed.

mod evidence_support;

use std::io::Write;
use std::path::Path;

use evidence_support::azure::{self, SNP, TDX, collected, time_of};
use evidence_support::tpm::public_key;
use evidence_support::{refused, snp, vectors_or_say};
use inwit_authority::evidence::{Claims, Endorsements, authenticate};
use inwit_protocol::azure::AzureQuote;
use inwit_protocol::evidence::Evidence;
use inwit_protocol::refusal::{Refusal, RefusalCode};

/// Bytes of the longest report with its padding.
const LONGEST: usize = 4_096;

/// A good machine, its claims, and how to judge a spoiled one.
struct Machine {
    good: Evidence,
    quote: AzureQuote,
    by: Endorsements,
    at: u64,
    claims: Claims,
    data: Vec<u8>,
}

impl Machine {
    fn of(good: Evidence, by: Endorsements, at: u64) -> Self {
        let authentic = authenticate(&good, &by, at).unwrap();
        let (claims, data) = (authentic.claims().clone(), authentic.data().to_vec());
        Self { quote: AzureQuote::parse(&good.quote).unwrap(), good, by, at, claims, data }
    }

    fn snp(vectors: &Path) -> Self {
        let collected = collected(&vectors.join(SNP).join("evidence-v1.json"));
        let vcek = collected.vcek.unwrap();
        Self::of(azure::snp(&collected.quote, &vcek), snp::amd(vectors), time_of(&vcek))
    }

    fn tdx(vectors: &Path) -> Self {
        let (by, at) = azure::intel(vectors);
        Self::of(azure::tdx(&collected(&vectors.join(TDX).join("evidence-v1.json")).quote), by, at)
    }

    /// What is wrong with it; `None` where it passes, and then it has to say what the good one says.
    fn judged(&self, quote: &AzureQuote) -> Option<Refusal> {
        let evidence = Evidence { quote: quote.encode(), ..self.good.clone() };
        match authenticate(&evidence, &self.by, self.at) {
            Ok(authentic) => {
                assert_eq!((authentic.claims(), authentic.data()), (&self.claims, self.data.as_slice()));
                None
            }
            Err(refusal) => Some(refusal),
        }
    }

    fn spoiled(&self, change: impl FnOnce(&mut AzureQuote)) -> Option<RefusalCode> {
        let mut quote = self.quote.clone();
        change(&mut quote);
        assert_ne!(quote, self.quote, "nothing was changed");
        self.judged(&quote).map(|refusal| refusal.code)
    }

    /// Bytes of header, hardware report, request data and runtime claims.
    fn size(&self) -> usize {
        let size = self.quote.hcl_report[8..12].try_into().unwrap();
        usize::try_from(u32::from_le_bytes(size)).unwrap()
    }
}

fn say(line: &str) {
    std::io::stderr().write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// Each byte of the HCL report with three changes, and header and request data with all 255: gives what passed, as offset
/// and the changes that did.
fn every_byte_of_the_report(machine: &Machine) -> (usize, Vec<(usize, u8)>) {
    let (mut tried, mut passed) = (0, Vec::new());
    let size = machine.size();
    for offset in 0..machine.quote.hcl_report.len() {
        let free = offset < 32 || (1_216..1_236).contains(&offset);
        let changes: Vec<u8> = if free { (1..=255).collect() } else { vec![0x01, 0x80, 0xff] };
        for change in changes {
            tried += 1;
            match machine.spoiled(|quote| quote.hcl_report[offset] ^= change) {
                None => passed.push((offset, change)),
                // What the hardware report holds by its hash.
                Some(code) if (1_236..size).contains(&offset) => {
                    assert_eq!(code, RefusalCode::QuoteSignature, "{offset}")
                }
                Some(code) if offset >= size => assert_eq!(code, RefusalCode::Malformed, "{offset}"),
                Some(_) => {}
            }
        }
    }
    (tried, passed)
}

/// Each byte of what the TPM said.
fn every_byte_of_the_tpm(machine: &Machine) -> usize {
    let good = machine.quote.tpm.as_ref().unwrap();
    let mut tried = 0;
    for change in [0x01, 0x80, 0xff] {
        for offset in 0..good.attest.len() {
            tried += 1;
            let code = machine.spoiled(|quote| quote.tpm.as_mut().unwrap().attest[offset] ^= change);
            assert_eq!(code, Some(RefusalCode::QuoteSignature), "attest {offset}");
        }
        for offset in 0..good.signature.len() {
            tried += 1;
            let code = machine.spoiled(|quote| quote.tpm.as_mut().unwrap().signature[offset] ^= change);
            assert_eq!(code, Some(RefusalCode::QuoteSignature), "signature {offset}");
        }
        for offset in 0..24 * 32 {
            tried += 1;
            let code = machine.spoiled(|quote| quote.tpm.as_mut().unwrap().pcrs.as_flattened_mut()[offset] ^= change);
            assert_eq!(code, Some(RefusalCode::EventLogMismatch), "PCR byte {offset}");
        }
    }
    // The same values in another order.
    for pcr in 0..23 {
        if good.pcrs[pcr] != good.pcrs[pcr + 1] {
            tried += 1;
            let code = machine.spoiled(|quote| quote.tpm.as_mut().unwrap().pcrs.swap(pcr, pcr + 1));
            assert_eq!(code, Some(RefusalCode::EventLogMismatch), "PCRs {pcr} and the next");
        }
    }
    tried
}

/// Lengths of a report that is whole, with any number of zeros after it.
fn paddings(machine: &Machine) -> Vec<usize> {
    (machine.size()..=LONGEST).filter(|length| *length != machine.quote.hcl_report.len()).collect()
}

/// Each length of each part.
fn every_length(machine: &Machine) -> (usize, Vec<usize>) {
    let (mut tried, mut passed) = (0, Vec::new());
    let longest = LONGEST + 64;
    for length in (0..=longest).filter(|length| *length != machine.quote.hcl_report.len()) {
        tried += 1;
        if machine.spoiled(|quote| quote.hcl_report.resize(length, 0)).is_none() {
            passed.push(length);
        }
    }
    let good = machine.quote.tpm.as_ref().unwrap();
    for length in (0..good.attest.len() + 8).filter(|length| *length != good.attest.len()) {
        tried += 1;
        assert!(machine.spoiled(|quote| quote.tpm.as_mut().unwrap().attest.resize(length, 0)).is_some());
    }
    for length in (0..300).filter(|length| *length != good.signature.len()) {
        tried += 1;
        assert!(machine.spoiled(|quote| quote.tpm.as_mut().unwrap().signature.resize(length, 0)).is_some());
        tried += 1;
        let zeros = |quote: &mut AzureQuote| {
            let signature = &mut quote.tpm.as_mut().unwrap().signature;
            signature.splice(0..0, vec![0; length % 8 + 1]);
        };
        assert!(machine.spoiled(zeros).is_some(), "leading zeros");
    }
    (tried, passed)
}

/// The signature as a number that is larger by the modulus, which an exponentiation would take.
fn the_other_signature(machine: &Machine) {
    let claims = &machine.quote.hcl_report[1_236..machine.size()];
    let claims: serde_json::Value = serde_json::from_slice(claims).unwrap();
    let modulus = azure::base64(claims["keys"][0]["n"].as_str().unwrap());
    let Claims::Azure(said) = &machine.claims else { panic!() };
    assert_eq!(inwit_protocol::primitives::sha256(&public_key(&modulus)), said.runtime.attestation_key);
    let good = &machine.quote.tpm.as_ref().unwrap().signature;
    let (mut larger, mut carry) = (vec![0; 256], 0_u16);
    for at in (0..256).rev() {
        let sum = u16::from(good[at]) + u16::from(modulus[at]) + carry;
        (larger[at], carry) = (sum.to_le_bytes()[0], sum >> 8);
    }
    if carry == 1 {
        larger.insert(0, 1);
    }
    let code = machine.spoiled(|quote| quote.tpm.as_mut().unwrap().signature = larger);
    assert_eq!(code, Some(RefusalCode::QuoteSignature));
}

/// The same runtime claims in other writings, with sizes that go with them.
fn other_writings(machine: &Machine) -> usize {
    let claims = std::str::from_utf8(&machine.quote.hcl_report[1_236..machine.size()]).unwrap();
    let value: serde_json::Value = serde_json::from_str(claims).unwrap();
    let writings = [
        format!("{claims} "),
        format!("{claims}\n"),
        format!("{claims}\0"),
        format!("\t{claims}"),
        claims.replacen("\":", "\" :", 1),
        claims.replacen("HCLAkPub", "HCLAkPu\\u0062", 1),
        claims.replacen(
            "\"kid\":\"HCLAkPub\",\"key_ops\":[\"sign\"]",
            "\"key_ops\":[\"sign\"],\"kid\":\"HCLAkPub\"",
            1,
        ),
        claims.replacen("\"user-data\":\"0", "\"user-data\":\"\\u0030", 1),
        claims.replacen("{\"keys\"", "{\"note\":1,\"keys\"", 1),
        claims.replacen("true", "false", 1),
        serde_json::to_string(&value).unwrap(),
        serde_json::to_string_pretty(&value).unwrap(),
    ];
    let mut tried = 0;
    for writing in writings.iter().filter(|writing| *writing != claims) {
        tried += 1;
        let length = u32::try_from(writing.len()).unwrap();
        let code = machine.spoiled(|quote| {
            let report = &mut quote.hcl_report;
            report.truncate(1_236);
            report.extend(writing.as_bytes());
            report.resize(report.len().max(2_600), 0);
            report[8..12].copy_from_slice(&(1_236 + length).to_le_bytes());
            report[1_216..1_220].copy_from_slice(&(20 + length).to_le_bytes());
            report[1_232..1_236].copy_from_slice(&length.to_le_bytes());
        });
        assert_eq!(code, Some(RefusalCode::QuoteSignature), "{writing}");
    }
    assert!(tried >= 11);
    tried
}

#[test]
fn nothing_of_a_real_snp_machine_can_be_changed() {
    let Some(vectors) = vectors_or_say(1, "Azure SNP machine to spoil") else { return };
    let machine = Machine::snp(&vectors);
    let (bytes, passed) = every_byte_of_the_report(&machine);
    // The header's version, 1 as 2: there are two, they differ in nothing that the guest gets, and nothing is concluded
    // from it.
    assert_eq!(passed, [(4, 1 ^ 2)]);
    let (lengths, passed) = every_length(&machine);
    // The report with more of the zeros that fill the NV index, or fewer.
    assert_eq!(passed, paddings(&machine));
    let padded = passed.len();
    let (tpm, writings) = (every_byte_of_the_tpm(&machine), other_writings(&machine));
    the_other_signature(&machine);
    say(&format!(
        "spoiled azure-snp: {bytes} bytes of the HCL report (1 passed, saying the same), {tpm} of the TPM quote, \
         {lengths} lengths ({padded} passed, by padding alone), {writings} writings of the runtime claims"
    ));
}

#[test]
fn nothing_of_a_real_tdx_machine_can_be_changed_that_says_anything() {
    let Some(vectors) = vectors_or_say(1, "Azure TDX machine to spoil") else { return };
    let machine = Machine::tdx(&vectors);
    let (bytes, passed) = every_byte_of_the_report(&machine);
    // The header's version; CPUSVN and MAC of the TDREPORT, which no quote states and nothing is concluded from; and
    // REPORTTYPE's version, which is 0 or 1 by whether service TDs are bound, which SERVTD_HASH says.
    let free = |offset: &usize| *offset == 4 || (48..64).contains(offset) || (256..288).contains(offset);
    let version = passed.iter().filter(|(offset, _)| *offset == 34).count();
    assert!(passed.iter().all(|(offset, _)| free(offset) || *offset == 34), "{passed:?}");
    assert_eq!((passed.len() - version, version), (1 + 3 * 48, 1));
    let (lengths, whole) = every_length(&machine);
    assert_eq!(whole, paddings(&machine));
    let padded = whole.len();
    let (tpm, writings) = (every_byte_of_the_tpm(&machine), other_writings(&machine));
    the_other_signature(&machine);
    let passed = passed.len();
    say(&format!(
        "spoiled azure-tdx: {bytes} bytes of the HCL report ({passed} passed, saying the same), {tpm} of the TPM quote, \
         {lengths} lengths ({padded} passed, by padding alone), {writings} writings of the runtime claims"
    ));
}

#[test]
fn parts_of_two_real_machines_do_not_go_together() {
    let Some(vectors) = vectors_or_say(5, "mixed parts of Azure machines") else { return };
    let machine = Machine::snp(&vectors);
    let other = collected(&vectors.join(SNP).join("evidence-v2.json")).quote;
    let (report, tpm) = (other.hcl_report.clone(), other.tpm.clone());
    // Another chip's report, and another TPM's quote under this report's key.
    let refusal =
        refused(machine.judged(&AzureQuote { hcl_report: report, ..machine.quote.clone() }).map_or(Ok(()), Err));
    assert_eq!(refusal.code, RefusalCode::EndorsementMissing, "{refusal}");
    let refusal = refused(machine.judged(&AzureQuote { tpm, ..machine.quote.clone() }).map_or(Ok(()), Err));
    assert_eq!(refusal.code, RefusalCode::QuoteSignature, "{refusal}");
    // The claims of one machine beside the report of another.
    let mut mixed = machine.quote.clone();
    mixed.hcl_report[1_216..].copy_from_slice(&other.hcl_report[1_216..]);
    let refusal = refused(machine.judged(&mixed).map_or(Ok(()), Err));
    assert_eq!(refusal.code, RefusalCode::QuoteSignature, "{refusal}");
    // The signature of an earlier quote of the same TPM.
    let earlier = collected(&vectors.join(SNP).join("evidence-v0.json")).quote;
    let mut newer = machine.quote.clone();
    newer.tpm.as_mut().unwrap().signature.clone_from(&earlier.tpm.as_ref().unwrap().signature);
    assert_eq!(machine.judged(&newer).map(|refusal| refusal.code), Some(RefusalCode::QuoteSignature));
    // Its report was made for the same claims, so the two are of one machine: each goes with either quote.
    let mut both = machine.quote.clone();
    both.tpm.clone_from(&earlier.tpm);
    let evidence = Evidence { quote: both.encode(), ..machine.good.clone() };
    let authentic = authenticate(&evidence, &machine.by, machine.at).unwrap();
    assert!(*authentic.claims() != machine.claims, "another moment of its clock");
}
