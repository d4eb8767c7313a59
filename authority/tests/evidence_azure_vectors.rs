//! Real Evidence of Azure VMs under AMD's and Intel's roots: authentic at its time with its claims, refused without its
//! TPM quote or TDX quote, under another chip's certificate, and by a policy that looks at what it says.

mod evidence_support;

use std::path::Path;
use std::process::{Command, Stdio};

use evidence_support::azure::{self, KINVOLK, SNP, TDX, attestation, certificate, collected, stored_quote, time_of};
use evidence_support::policy::{self, agent, reference};
use evidence_support::{read, refused, refused_as, snp, vectors_or_say};
use inwit_authority::evidence::{
    AppraisalPolicy, AttestationKeyTrust, Authentic, AzureClaims, AzurePolicy, AzureTee, Claims, Console, Demanded,
    Endorsements, Product, Requirement, SnpPolicy, TdxPolicy, authenticate,
};
use inwit_measurements::Digest;
use inwit_measurements::reference::Measured;
use inwit_protocol::azure::AzureQuote;
use inwit_protocol::ear::Tier;
use inwit_protocol::evidence::{Evidence, Platform};
use inwit_protocol::refusal::{Refusal, RefusalCode};

/// SNP, by name: product, whether its console is on, what it says of persistence, boots of its TPM, length of extraData.
type Said = (&'static str, Product, Option<bool>, u32, usize);
const SAID: [Said; 4] = [
    ("evidence-v0.json", Product::Milan, None, 2, 9),
    ("evidence-v1.json", Product::Milan, None, 2, 9),
    ("evidence-v2.json", Product::Milan, None, 2, 48),
    ("evidence-genoa.json", Product::Genoa, Some(true), 53, 48),
];

fn claims(authentic: &Authentic) -> &AzureClaims {
    match authentic.claims() {
        Claims::Azure(claims) => claims,
        other => panic!("{other:?}"),
    }
}

/// Evidence of one JSON file, with what authenticates it.
fn genuine(vectors: &Path, name: &str) -> (Evidence, Endorsements, u64) {
    let collected = collected(&vectors.join(SNP).join(name));
    let vcek = collected.vcek.unwrap();
    (azure::snp(&collected.quote, &vcek), snp::amd(vectors), time_of(&vcek))
}

/// The report that lies there alone, and its certificate.
fn lone(vectors: &Path) -> (AzureQuote, Vec<u8>) {
    let file = |name: &str| read(vectors.join(SNP).join(name));
    (AzureQuote { hcl_report: file("hcl-report.bin"), tpm: None, td_quote: None }, certificate(&file("vcek.pem")))
}

#[test]
fn real_snp_machines_are_authentic_and_say_how_they_are_configured() {
    let Some(vectors) = vectors_or_say(4, "Azure SNP machines") else { return };
    for (name, product, persisted, boots, extra) in SAID {
        let (evidence, by, at) = genuine(&vectors, name);
        let authentic = authenticate(&evidence, &by, at).unwrap_or_else(|refusal| panic!("{name}: {refusal}"));
        assert_eq!((authentic.claims().platform(), authentic.data().len()), (Platform::AzureSnp, extra), "{name}");
        let AzureClaims { tee, runtime, tpm } = claims(&authentic);
        let AzureTee::Snp(report) = tee else { panic!("{tee:?}") };
        assert_eq!((report.version, report.product, report.vmpl), (3, product, 0), "{name}");
        assert!(runtime.console_enabled && runtime.secure_boot && runtime.tpm_enabled, "{name}");
        assert_eq!((runtime.tpm_persisted, runtime.interactive_console_enabled), (persisted, None), "{name}");
        assert_eq!(runtime.vm_unique_id.as_ref().map(String::len), Some(36), "{name}");
        let tpm = tpm.as_ref().unwrap();
        assert_eq!((tpm.reset_count, tpm.attestation_key_trust), (boots, AttestationKeyTrust::Paravisor), "{name}");
        assert_eq!(tpm.attestation_key, runtime.attestation_key, "{name}");
        assert_eq!(tpm.pcrs[17], [0xff; 32], "{name}");
        // At another time the certificate is not valid.
        refused_as(authenticate(&evidence, &by, at - 31 * 86_400), RefusalCode::EndorsementExpired);
        refused_as(authenticate(&evidence, &Endorsements::default(), at), RefusalCode::EndorsementMissing);
    }
    // The guest wrote the nonce of the TPM quote into its 64 bytes as well.
    let (evidence, by, at) = genuine(&vectors, "evidence-v2.json");
    let authentic = authenticate(&evidence, &by, at).unwrap();
    assert_eq!(claims(&authentic).runtime.user_data.unwrap()[..48], *authentic.data());
}

#[test]
fn a_real_report_without_a_tpm_quote_is_authentic_and_does_not_say_what_booted() {
    let Some(vectors) = vectors_or_say(1, "Azure SNP report alone") else { return };
    let (report, vcek) = lone(&vectors);
    let (by, at) = (snp::amd(&vectors), time_of(&vcek));
    let authentic = authenticate(&azure::snp(&report, &vcek), &by, at).unwrap();
    let AzureTee::Snp(claims_of_report) = &claims(&authentic).tee else { panic!() };
    assert_eq!((claims_of_report.version, claims(&authentic).tpm.is_none()), (2, true));
    assert_eq!(authentic.data().len(), 64);
    refused_as(authentic.judge(&accepting(vec![])), RefusalCode::EvidenceMissing);
    // Its TPM's quotes, in both of the forms that they lie there in.
    let json: serde_json::Value = serde_json::from_slice(&read(vectors.join(SNP).join("tpm-quote-v1.json"))).unwrap();
    for tpm in [stored_quote(&vectors.join(SNP).join("quote.bin")), attestation(&json)] {
        let quote = AzureQuote { tpm: Some(tpm), ..report.clone() };
        let authentic = authenticate(&azure::snp(&quote, &vcek), &by, at).unwrap();
        assert_eq!(authentic.data(), b"challenge");
    }
    // Another machine's quote, and one that leaves PCRs out.
    let foreign = collected(&vectors.join(SNP).join("evidence-v0.json")).quote.tpm;
    let quote = AzureQuote { tpm: foreign, ..report.clone() };
    refused_as(authenticate(&azure::snp(&quote, &vcek), &by, at), RefusalCode::QuoteSignature);
    // A boot log that nothing can be compared with.
    let with_log = Evidence { event_log: vec![1], ..azure::snp(&report, &vcek) };
    refused_as(authenticate(&with_log, &by, at), RefusalCode::Malformed);
}

/// Intel's side is as lenient as it can be; Azure's accepts what the real machines say.
fn accepting(values: Vec<inwit_measurements::reference::ReferenceValues>) -> AppraisalPolicy {
    let azure = AzurePolicy { console: Console::Allowed, ..policy::azure() };
    // The agent's level, which is not the paravisor's.
    let snp = SnpPolicy { vmpl: 2, ..policy::snp() };
    AppraisalPolicy::new(values, snp, policy::tdx(), policy::vtpm(), azure).unwrap()
}

#[test]
fn real_machines_are_judged_by_paravisor_registers_and_configuration() {
    let Some(vectors) = vectors_or_say(4, "appraisals of Azure SNP machines") else { return };
    for (name, ..) in SAID {
        let (evidence, by, at) = genuine(&vectors, name);
        let judge = |policy: &AppraisalPolicy| authenticate(&evidence, &by, at).unwrap().judge(policy);
        let authentic = authenticate(&evidence, &by, at).unwrap();
        let AzureClaims { tee: AzureTee::Snp(report), tpm: Some(tpm), .. } = claims(&authentic) else { panic!() };
        let measured = |launch: [u8; 48], pcrs: &[[u8; 32]; 24]| Measured::AzureSnp {
            launch_digest: launch.into(),
            pcrs: [0, 4, 7, 9].map(|pcr: u8| (pcr, Digest::from_bytes(pcrs[usize::from(pcr)]))).into(),
        };
        let values = |measured| vec![reference("image", &agent(), measured)];
        let good = values(measured(report.measurement, &tpm.pcrs));
        assert_eq!(judge(&accepting(good.clone())).unwrap().reference_values(), ["image"], "{name}");
        let refusal = refused(judge(&policy::of(good)));
        assert_eq!((refusal.code, refusal.cause.contains("console")), (RefusalCode::PolicyForbids, true), "{refusal}");
        for (launch, pcrs, named) in [
            ([0; 48], tpm.pcrs, "launch digest"),
            (
                report.measurement,
                {
                    let mut pcrs = tpm.pcrs;
                    pcrs[9] = [0; 32];
                    pcrs
                },
                "pcr9",
            ),
        ] {
            let refusal = refused(judge(&accepting(values(measured(launch, &pcrs)))));
            assert_eq!(refusal.code, RefusalCode::MeasurementUnregistered);
            assert!(refusal.cause.contains(named), "{refusal}");
        }
        // Values of the same registers that were registered for other platforms say nothing about this one.
        let plain = values(Measured::Snp { launch_digest: report.measurement.into() });
        refused_as(judge(&accepting(plain)), RefusalCode::MeasurementUnregistered);
        refused_as(
            judge(&accepting(values(policy::measured_pcrs(&tpm.pcrs, &[0, 4, 7, 9])))),
            RefusalCode::MeasurementUnregistered,
        );
    }
}

#[test]
fn another_chips_certificate_is_refused_by_name() {
    let Some(vectors) = vectors_or_say(2, "Azure reports with another chip's certificate") else { return };
    let by = snp::amd(&vectors);
    let report = |path: String| AzureQuote { hcl_report: read(vectors.join(path)), tpm: None, td_quote: None };
    let file = |name: &str| certificate(&read(vectors.join(name)));
    for (report, vcek) in [
        (report(format!("{KINVOLK}/hcl-report-snp.bin")), file(&format!("{KINVOLK}/certs.pem"))),
        (report(format!("{SNP}/hcl-report.bin")), collected(&vectors.join(SNP).join("evidence-v0.json")).vcek.unwrap()),
    ] {
        let refusal = refused(authenticate(&azure::snp(&report, &vcek), &by, time_of(&vcek)));
        assert_eq!(refusal.code, RefusalCode::EndorsementMissing, "{refusal}");
        assert!(refusal.cause.contains("VCEK at hand is another chip's"), "{refusal}");
    }
}

fn tdx_quotes(vectors: &Path) -> [AzureQuote; 3] {
    let file = |name: &str| read(vectors.join(TDX).join(name));
    let stored = AzureQuote {
        hcl_report: file("hcl-report.bin"),
        tpm: Some(stored_quote(&vectors.join(TDX).join("quote.bin"))),
        td_quote: Some(file("td-quote.bin")),
    };
    let json = |name: &str| collected(&vectors.join(TDX).join(name)).quote;
    [json("evidence-v0.json"), json("evidence-v1.json"), stored]
}

#[test]
fn a_real_tdx_machine_is_authentic_and_appraised_where_policy_waives_sept_ve_disable() {
    let Some(vectors) = vectors_or_say(3, "forms of an Azure TDX machine") else { return };
    let (by, at) = azure::intel(&vectors);
    for quote in tdx_quotes(&vectors) {
        let authentic = authenticate(&azure::tdx(&quote), &by, at).unwrap();
        assert_eq!((authentic.claims().platform(), authentic.data()), (Platform::AzureTdx, &b"challenge"[..]));
        let AzureClaims { tee, runtime, tpm } = claims(&authentic);
        let AzureTee::Tdx(td) = tee else { panic!("{tee:?}") };
        assert_eq!((td.version, td.rtmrs), (4, [[0; 48]; 4]), "the paravisor extends no register");
        assert!(!td.td_attributes.sept_ve_disable() && !td.td_attributes.under_debug());
        assert!(runtime.console_enabled && runtime.secure_boot && runtime.tpm_persisted == Some(false));
        assert!(runtime.root_certificate_thumbprint.is_some());
        assert_eq!(tpm.as_ref().map(|tpm| tpm.reset_count), Some(1));
        let refusal = refused(authenticate(&azure::tdx(&quote), &by, at).unwrap().judge(&accepting(vec![])));
        assert_eq!(refusal.code, RefusalCode::PolicyForbids, "{refusal}");
        assert!(refusal.cause.contains("SEPT_VE_DISABLE"), "{refusal}");
        let pcrs = tpm.as_ref().unwrap().pcrs;
        let pcrs = [0, 4, 7, 9].map(|pcr: u8| (pcr, Digest::from_bytes(pcrs[usize::from(pcr)])));
        let measured = Measured::AzureTdx { mrtd: td.mrtd.into(), pcrs: pcrs.into() };
        let values = vec![reference("image", &agent(), measured)];
        // Intel's status, advisories and evaluation number as they were on that day; the rest as it is demanded of all.
        let intel = TdxPolicy {
            accepted_status: [td.tcb_status].into(),
            accepted_advisories: td.advisory_ids.iter().cloned().collect(),
            minimum_tcb_evaluation_number: td.tcb_evaluation_number,
            ..policy::tdx()
        };
        let under = |azure| {
            let policy = AppraisalPolicy::new(values.clone(), policy::snp(), intel.clone(), policy::vtpm(), azure);
            authenticate(&azure::tdx(&quote), &by, at).unwrap().judge(&policy.unwrap())
        };
        let waived = AzurePolicy {
            console: Console::Allowed,
            sept_ve_disable: Requirement::NotDemanded,
            attestation_keys: Demanded::OneOf([runtime.attestation_key].into()),
            ..policy::azure()
        };
        let judged = under(waived.clone()).unwrap_or_else(|refusal| panic!("{refusal}"));
        assert_eq!(judged.reference_values(), ["image"]);
        assert_eq!(judged.trustworthiness().status(), Tier::Warning);
        let other_key = AzurePolicy { attestation_keys: Demanded::OneOf([[7; 32]].into()), ..waived.clone() };
        let demanded = AzurePolicy { sept_ve_disable: Requirement::Demanded, ..waived };
        for (policy, named) in [(other_key, "HCLAkPub"), (demanded, "SEPT_VE_DISABLE")] {
            let refusal = refused(under(policy));
            assert_eq!((refusal.code, refusal.cause.contains(named)), (RefusalCode::PolicyForbids, true), "{refusal}");
        }
    }
}

#[test]
fn a_td_report_counts_with_its_own_quote_only() {
    let Some(vectors) = vectors_or_say(4, "TDREPORTs without their quotes") else { return };
    let (by, at) = azure::intel(&vectors);
    let [good, ..] = tdx_quotes(&vectors);
    let judged = |quote: &AzureQuote| authenticate(&azure::tdx(quote), &by, at);
    let alone = AzureQuote { td_quote: None, ..good.clone() };
    let refusal = refused(judged(&alone));
    assert_eq!((refusal.code, refusal.cause.contains("/acc/tdquote")), (RefusalCode::EvidenceMissing, true));
    let kinvolk = read(vectors.join(KINVOLK).join("hcl-report-tdx.bin"));
    let other = AzureQuote { hcl_report: kinvolk, tpm: None, td_quote: None };
    refused_as(judged(&other), RefusalCode::EvidenceMissing);
    // The same with somebody else's quote, and with none of the collateral at hand.
    refused_as(judged(&AzureQuote { td_quote: good.td_quote.clone(), ..other }), RefusalCode::QuoteSignature);
    refused_as(authenticate(&azure::tdx(&good), &Endorsements::default(), at), RefusalCode::EndorsementMissing);
    // A quote of the other TEE's, and a report that is called the other TEE's.
    let report = read(vectors.join(SNP).join("hcl-report.bin"));
    let swapped = AzureQuote { hcl_report: report, ..good.clone() };
    refused_as(judged(&swapped), RefusalCode::Malformed);
    let evidence = Evidence { platform: Platform::AzureSnp, ..azure::tdx(&alone) };
    refused_as(authenticate(&evidence, &by, at), RefusalCode::Malformed);
}

#[test]
fn two_other_readings_of_the_same_reports_agree() {
    let Some(vectors) = vectors_or_say(8, "HCL reports read by az-cvm-vtpm") else { return };
    let mut reports: Vec<(Vec<u8>, Option<[u8; 32]>)> = Vec::new();
    for (name, ..) in SAID {
        let (evidence, by, at) = genuine(&vectors, name);
        let authentic = authenticate(&evidence, &by, at).unwrap();
        let report = collected(&vectors.join(SNP).join(name)).quote.hcl_report;
        reports.push((report, Some(claims(&authentic).runtime.attestation_key)));
    }
    for path in [
        format!("{SNP}/hcl-report.bin"),
        format!("{TDX}/hcl-report.bin"),
        format!("{KINVOLK}/hcl-report-tdx.bin"),
        format!("{KINVOLK}/hcl-report-snp.bin"),
    ] {
        reports.push((read(vectors.join(path)), None));
    }
    let mut verified = 0;
    for (report, key) in reports {
        let library = az_cvm_vtpm::hcl::HclReport::new(report.clone()).unwrap();
        let offset = match library.report_type() {
            az_cvm_vtpm::hcl::ReportType::Snp => 32 + 0x50,
            az_cvm_vtpm::hcl::ReportType::Tdx => 32 + 128,
        };
        assert_eq!(report[offset..offset + 32], library.var_data_sha256());
        let modulus = serde_json::to_value(library.ak_pub().unwrap()).unwrap()["n"].as_str().unwrap().to_owned();
        let der = evidence_support::tpm::public_key(&azure::base64(&modulus));
        if let Some(key) = key {
            assert_eq!(inwit_protocol::primitives::sha256(&der), key);
            verified += 1;
        }
    }
    assert_eq!(verified, 4);
}

#[test]
fn openssl_finds_the_same_signatures_good() {
    let Some(vectors) = vectors_or_say(6, "TPM signatures verified by openssl") else { return };
    let Ok(version) = Command::new("openssl").arg("version").stdin(Stdio::null()).output() else {
        let line = b"NOT RUN: 6 TPM signatures verified by openssl (no openssl program)\n";
        return std::io::Write::write_all(&mut std::io::stderr(), line).unwrap();
    };
    assert!(version.status.success());
    let folder = tempfile::tempdir().unwrap();
    let judged = |quote: &AzureQuote, spoilt: bool| {
        let tpm = quote.tpm.as_ref().unwrap();
        let library = az_cvm_vtpm::hcl::HclReport::new(quote.hcl_report.clone()).unwrap();
        let modulus = serde_json::to_value(library.ak_pub().unwrap()).unwrap()["n"].as_str().unwrap().to_owned();
        let mut message = tpm.attest.clone();
        message[30] ^= u8::from(spoilt);
        let file = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        };
        let key = file("key.der", &evidence_support::tpm::public_key(&azure::base64(&modulus)));
        let (signature, message) = (file("signature", &tpm.signature), file("message", &message));
        let output = Command::new("openssl")
            .args(["dgst", "-sha256", "-keyform", "DER", "-verify"])
            .args([key.as_os_str(), "-signature".as_ref(), signature.as_os_str(), message.as_os_str()])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        output.status.success()
    };
    let snp = SAID.map(|(name, ..)| collected(&vectors.join(SNP).join(name)).quote);
    let [first, second, _] = tdx_quotes(&vectors);
    for quote in snp.iter().chain([&first, &second]) {
        assert!(judged(quote, false));
        assert!(!judged(quote, true));
    }
}

#[test]
fn what_azure_does_not_have_is_refused() {
    let Some(vectors) = vectors_or_say(3, "Azure Evidence with more in it") else { return };
    let (evidence, by, at) = genuine(&vectors, "evidence-v1.json");
    let code = |evidence: &Evidence| -> Result<_, Refusal> { authenticate(evidence, &by, at) };
    let quote = AzureQuote::parse(&evidence.quote).unwrap();
    for td_quote in [vec![], vec![4; 700]] {
        let with_td = AzureQuote { td_quote: Some(td_quote), ..quote.clone() };
        refused_as(code(&Evidence { quote: with_td.encode(), ..evidence.clone() }), RefusalCode::Malformed);
    }
    refused_as(code(&Evidence { quote: quote.hcl_report.clone(), ..evidence.clone() }), RefusalCode::Malformed);
    let td = Evidence { endorsements: vec![1], ..azure::tdx(&quote) };
    refused_as(code(&td), RefusalCode::Malformed);
    // A log that is not this machine's: it does not lead to the registers.
    let other_log = Evidence { event_log: vec![1; 64], ..evidence };
    refused_as(code(&other_log), RefusalCode::EventLogMismatch);
}
