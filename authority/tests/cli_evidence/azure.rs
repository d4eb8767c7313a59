//! Azure on the command line: every form in which people hold such evidence, real and simulated, and the words that do
//! not go together.

use std::path::Path;

use inwit_protocol::azure::AzureQuote;
use inwit_protocol::evidence::Platform;
use serde_json::{Value, json};

use super::evidence_support::amd;
use super::evidence_support::azure::{
    self, KINVOLK, Paravisor, SNP, TDX, TDX_QUOTE, base64url, certificate, collected, time_of,
};
use super::evidence_support::der::pem;
use super::evidence_support::policy::agent;
use super::evidence_support::snp::{GUID_VCEK, table};
use super::evidence_support::tdx::{INTEL_ROOT, named};
use super::evidence_support::tpm::Tpm;
use super::evidence_support::{read, vectors_or_say};
use super::simulated::{MILAN, report};
use super::{Case, hex, lenient, naming};

/// "challenge", the nonce of some of the real quotes.
const CHALLENGE: &str = "6368616c6c656e6765";

/// A simulated VM: the paravisor's report, the TPM that it vouches for, and the chip's certificate.
struct Machine {
    paravisor: Paravisor,
    tpm: Tpm,
    index: Vec<u8>,
    vcek: Vec<u8>,
}

fn machine() -> Machine {
    let paravisor = Paravisor::new();
    let claims = paravisor.claims();
    // Where REPORT_DATA lies in a report.
    let (report, vcek) = report(0x50, &paravisor.report_data(&claims));
    let (index, tpm) = (paravisor.index(&report, &claims), Tpm::booted(&agent()));
    Machine { paravisor, tpm, index, vcek }
}

impl Machine {
    fn quote(&self, extra: &[u8]) -> AzureQuote {
        AzureQuote { hcl_report: self.index.clone(), tpm: Some(self.paravisor.quote(&self.tpm, extra)), td_quote: None }
    }

    /// As az-cvm-vtpm stores it.
    fn stored(&self, extra: &[u8]) -> Vec<u8> {
        let quote = self.paravisor.quote(&self.tpm, extra);
        let count = |length: usize| u64::try_from(length).unwrap().to_le_bytes();
        let (signature, attest) = (&quote.signature, &quote.attest);
        let sized = [&count(signature.len())[..], signature, &count(attest.len()), attest];
        [&sized.concat()[..], &count(24), quote.pcrs.as_flattened()].concat()
    }

    /// As guest components write it.
    fn json(&self, version: u32, extra: &[u8]) -> Value {
        let quote = self.paravisor.quote(&self.tpm, extra);
        let pcrs: Vec<String> = quote.pcrs.iter().map(|pcr| hex(pcr)).collect();
        let tpm = json!({ "signature": hex(&quote.signature), "message": hex(&quote.attest), "pcrs": pcrs });
        let (report, vcek) = (base64url(&self.index), base64url(&self.vcek));
        json!({ "version": version, "tpm_quote": tpm, "hcl_report": report, "vcek": vcek })
    }

    fn case(&self, evidence: &[u8]) -> Case {
        Case::new("azure-snp", amd::NOW, evidence).holding("ark", &MILAN.ark_der).holding("ask", &MILAN.ask_der)
    }
}

#[test]
fn every_form_of_the_same_evidence_says_the_same() {
    let machine = machine();
    let log = machine.tpm.log();
    let quote = machine.quote(b"nonce");
    let host = table(&[(GUID_VCEK, &machine.vcek)]);
    let travelled = azure::evidence(Platform::AzureSnp, &quote, host, log.clone()).encode();
    let claims = machine.case(&travelled).claims();
    assert_eq!(claims["measured"]["platform"], "azure-snp");
    assert_eq!(claims["runtime"]["user_data"], "00".repeat(64));

    let raw = machine.case(&machine.index).holding("vcek", &machine.vcek);
    let (stored, log) = (raw.file("tpm", &machine.stored(b"nonce")), raw.file("log", &log));
    let beside = ["--tpm-quote", stored.to_str().unwrap(), "--event-log", log.to_str().unwrap()];
    let ended = raw.authenticate(&[&beside[..], &["--report-data", &hex(b"nonce")]].concat()).json(0);
    assert_eq!((&ended["claims"], &ended["report_data"]), (&claims, &hex(b"nonce").into()));
    assert_eq!(ended["report_data_is"], "extraData of the TPM quote");

    let with_log = ["--event-log", log.to_str().unwrap()];
    let own = machine.case(&quote.encode()).holding("vcek", &machine.vcek);
    assert_eq!(own.authenticate(&with_log).json(0)["claims"], claims);
    for version in [1, 2] {
        let theirs = machine.case(machine.json(version, b"nonce").to_string().as_bytes());
        assert_eq!(theirs.authenticate(&with_log).json(0)["claims"], claims, "version {version}");
    }
    let listed = collected_as_first(&quote, &machine.vcek);
    assert_eq!(machine.case(listed.to_string().as_bytes()).authenticate(&with_log).json(0)["claims"], claims);
}

/// Version 0: bytes as lists of numbers.
fn collected_as_first(quote: &AzureQuote, vcek: &[u8]) -> Value {
    let tpm = quote.tpm.as_ref().unwrap();
    let vcek = String::from_utf8(pem("CERTIFICATE", vcek)).unwrap();
    let told = json!({ "signature": tpm.signature, "message": tpm.attest, "pcrs": tpm.pcrs });
    json!({ "quote": told, "report": quote.hcl_report, "vcek": vcek })
}

#[test]
fn without_a_tpm_quote_the_report_is_compared_and_nothing_says_what_booted() {
    let machine = machine();
    let case = machine.case(&machine.index).holding("vcek", &machine.vcek);
    let data = hex(&machine.paravisor.report_data(&machine.paravisor.claims()));
    let json = case.authenticate(&["--report-data", &data]).json(0);
    assert_eq!((&json["report_data_is"], &json["claims"]["measured"]), (&"REPORT_DATA".into(), &Value::Null));
    let text = case.run("authenticate", &[]);
    assert!(text.stdout.contains("nothing says what booted"), "{}", text.stdout);
    case.authenticate(&["--report-data", &"00".repeat(64)]).refused("binding-mismatch");
    case.authenticate(&["--report-data", CHALLENGE]).complained(2, "exactly 64 bytes");
    let log = case.file("log", &machine.tpm.log());
    case.authenticate(&["--event-log", log.to_str().unwrap()]).complained(2, "give it with --tpm-quote");
}

#[test]
fn a_registered_machine_is_appraised_and_another_boot_is_not() {
    let machine = machine();
    let case = |machine: &Machine, extra: &[u8]| machine.case(machine.json(1, extra).to_string().as_bytes());
    let ours = case(&machine, b"nonce");
    let policy = naming(&lenient(), &ours.claims());
    assert_eq!(ours.appraise(&policy).json(0)["verdict"], "appraised");
    let mut other = self::machine();
    other.tpm.measure(4, 6, b"another kernel");
    let json = case(&other, b"nonce").appraise(&policy).refused("measurement-unregistered");
    assert!(json["cause"].as_str().unwrap().contains("pcr4"), "{json}");
}

#[test]
fn words_that_do_not_go_together_are_told_of() {
    let machine = machine();
    let json = machine.case(machine.json(1, b"nonce").to_string().as_bytes());
    let file = json.file("quote", &machine.stored(b"nonce"));
    let file = file.to_str().unwrap();
    json.authenticate(&["--tpm-quote", file]).complained(2, "leave --tpm-quote out");
    json.authenticate(&["--td-quote", file]).complained(2, "azure-tdx alone");
    Case::new("snp", 0, b"x").authenticate(&["--tpm-quote", file]).complained(2, "for azure-snp and azure-tdx alone");
    Case::new("tdx", 0, b"x").authenticate(&["--td-quote", file]).complained(2, "for tdx it is the --evidence");
    let travelled = azure::evidence(Platform::AzureSnp, &machine.quote(b""), vec![], vec![]).encode();
    machine.case(&travelled).authenticate(&["--tpm-quote", file]).complained(2, "leave --tpm-quote and --td-quote out");
    let tdx = Case::new("azure-tdx", 0, machine.json(1, b"").to_string().as_bytes());
    tdx.authenticate(&[]).refused("unsupported");
    // Another certificate of the same chip's host, beside the one in the evidence.
    let other = table(&[(GUID_VCEK, &MILAN.ask_der)]);
    json.holding("table", &other).authenticate(&[]).complained(2, "holds a certificate table already");
}

#[test]
fn what_is_no_such_evidence_is_malformed() {
    let machine = machine();
    let bytes: [&[u8]; 6] = [b"hello", b"{", b"{}", b"HCLA", &machine.index[..1_000], b"\x84\x74inwit-azure-quote-v1"];
    for bytes in bytes {
        machine.case(bytes).authenticate(&[]).refused("malformed");
    }
    machine.case(b"").authenticate(&[]).refused("evidence-missing");
    machine.case(&[&b"HCLA"[..], &[0; 8_200]].concat()).authenticate(&[]).refused("oversized");
    let raw = machine.case(&machine.index);
    let short = raw.file("short", &machine.stored(b"")[..1_000]);
    raw.authenticate(&["--tpm-quote", short.to_str().unwrap()]).refused("malformed");
    let mut later = machine.json(3, b"");
    machine.case(later.to_string().as_bytes()).authenticate(&[]).refused("unsupported");
    (later["version"], later["more"]) = (json!(2), json!(true));
    let json = machine.case(later.to_string().as_bytes()).authenticate(&[]).refused("malformed");
    assert!(json["cause"].as_str().unwrap().contains("more"), "{json}");
}

fn real(vectors: &Path, name: &str) -> Case {
    let path = vectors.join(SNP).join(name);
    let at = time_of(&collected(&path).vcek.unwrap());
    Case::new("azure-snp", at, &read(path)).with(vectors.join("_amd-roots"))
}

#[test]
fn every_real_snp_machine_is_authentic_as_its_json_lies_there() {
    let Some(vectors) = vectors_or_say(4, "Azure SNP machines on the command line") else { return };
    for (name, extra) in
        [("evidence-v0.json", 9), ("evidence-v1.json", 9), ("evidence-v2.json", 48), ("evidence-genoa.json", 48)]
    {
        let case = real(&vectors, name);
        let json = case.authenticate(&[]).json(0);
        assert_eq!(json["report_data"].as_str().unwrap().len(), 2 * extra, "{name}");
        let claims = &json["claims"];
        assert_eq!(
            (&claims["tee"]["vmpl"], &claims["tpm"]["attestation_key_trusted_by"]),
            (&0.into(), &"paravisor".into())
        );
        assert_eq!(case.appraise(&naming(&lenient(), claims)).json(0)["verdict"], "appraised", "{name}");
        let mut strict = lenient();
        strict.azure = inwit_authority::policy::PolicyFile::strict().azure;
        case.appraise(&naming(&strict, claims)).refused("policy-forbids");
        let compared = case.authenticate(&["--report-data", CHALLENGE]);
        if extra == 9 { drop(compared.json(0)) } else { drop(compared.refused("binding-mismatch")) }
    }
}

#[test]
fn the_raw_files_of_real_machines_go_together_as_they_lie_there() {
    let Some(vectors) = vectors_or_say(3, "raw files of Azure machines on the command line") else { return };
    let folder = vectors.join(SNP);
    let file = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let at = time_of(&certificate(&read(folder.join("vcek.pem"))));
    let case = || Case::new("azure-snp", at, &read(folder.join("hcl-report.bin"))).with(vectors.join("_amd-roots"));
    let (stored, as_json) = (file("quote.bin"), file("tpm-quote-v1.json"));
    for quote in [&stored, &as_json] {
        let json = case().with(&folder).authenticate(&["--tpm-quote", quote]).json(0);
        assert!(json["set_aside"].to_string().contains("evidence, and no endorsement"), "{json}");
    }
    case().authenticate(&["--tpm-quote", &stored]).refused("endorsement-missing");
    // A report beside the certificates of another chip.
    let mixed = vectors.join(KINVOLK);
    let other = Case::new("azure-snp", at, &read(mixed.join("hcl-report-snp.bin"))).with(mixed.join("certs.pem"));
    other.authenticate(&[]).refused("endorsement-missing");
}

#[test]
fn every_real_tdx_machine_is_authentic_and_then_refused_for_what_it_lacks() {
    let Some(vectors) = vectors_or_say(3, "Azure TDX machines on the command line") else { return };
    let (folder, collateral) = (vectors.join(TDX), named(&vectors, TDX_QUOTE));
    let file = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let case = |name: &str| Case::new("azure-tdx", collateral.at, &read(file(name))).with(&collateral.folder);
    let (tpm, td) = (file("quote.bin"), file("td-quote.bin"));
    let beside = ["--tpm-quote", &tpm, "--td-quote", &td];
    for (name, more) in [("evidence-v0.json", &[][..]), ("evidence-v1.json", &[]), ("hcl-report.bin", &beside)] {
        let with_root = ["--root-sha256", INTEL_ROOT, "--report-data", CHALLENGE];
        let json = case(name).authenticate(&[&with_root[..], more].concat()).json(0);
        let claims = &json["claims"];
        assert_eq!(
            (&claims["tee"]["tcb_status"], &claims["tee"]["fmspc"]),
            (&"OutOfDate".into(), &"00806f050000".into())
        );
        assert_eq!(json["trusted_roots"][0]["sha256"], INTEL_ROOT, "{name}");
        let mut policy = lenient();
        let advisories = claims["tee"]["advisory_ids"].as_array().unwrap();
        policy.tdx.accepted_advisories = advisories.iter().map(|id| id.as_str().unwrap().to_owned()).collect();
        let case = case(name);
        let policy = case.file("policy.toml", naming(&policy, claims).as_bytes());
        let judged = ["--json", "--policy", policy.to_str().unwrap()];
        let json = case.run("appraise", &[&judged[..], &with_root, more].concat()).refused("policy-forbids");
        assert!(json["cause"].as_str().unwrap().contains("SEPT_VE_DISABLE"), "{json}");
        // Intel's own root counts where collateral carries it.
        assert_eq!(case.authenticate(more).json(0)["trusted_roots"][0]["sha256"], INTEL_ROOT, "{name}");
    }
    // A TDREPORT is nothing outside of its machine.
    let alone = case("hcl-report.bin").authenticate(&["--root-sha256", INTEL_ROOT, "--tpm-quote", &tpm]);
    alone.refused("evidence-missing");
}
