//! The guest on an Azure-like machine, as a process: what it sends for Evidence, judged by hand against the TPM it came from;
//! and the TPMs that it refuses by itself. The authority's judgement of such Evidence is in `azure_authority.rs`.

mod refusals_support;

use inwit_protocol::azure::AzureQuote;
use inwit_protocol::binding::qualifying_data;
use inwit_protocol::evidence::{AgentRegister, Evidence, Platform};
use inwit_protocol::primitives::sha256;
use inwit_protocol::refusal::RefusalCode::*;
use inwit_tests::hardware::azure::{ATTESTATION_KEY, Maker, QuoteFault, QuoteService, REPORT_INDEX};
use inwit_tests::hardware::{IntelTestRoot, Machine, Paravisor, SnpMachine, TdxMachine};
use inwit_tests::stage::now;
use inwit_tests::stage::trust::open_tpm;
use inwit_tests::world::swtpm::{EkCertificate, Swtpm};
use refusals_support::impostor::Rig;
use refusals_support::{Ground, process_ground};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};

fn snp(ground: &Ground) -> Machine {
    Machine::from(SnpMachine::new(&ground.amd_root(), [0xa2; 48]).unwrap())
}

fn tdx() -> TdxMachine {
    let root = Arc::new(IntelTestRoot::generate(now()).unwrap());
    TdxMachine::new(&root, [0xa2; 48], [[0; 48]; 4]).unwrap()
}

/// Azure's quoting service, where the guest's configuration looks for it.
fn quoting(rig: &Rig<'_>, machine: &TdxMachine) -> QuoteService {
    QuoteService::listen(&rig.path().join("td-quote.sock"), machine.clone()).unwrap()
}

/// A TPM in the rig's folder, as its maker left it, served to processes.
fn served(rig: &Rig<'_>, make: impl FnOnce(&Swtpm)) -> Swtpm {
    Swtpm::manufacture(rig.path(), EkCertificate::Absent).unwrap();
    make(&Swtpm::serve(rig.path()).unwrap());
    let tpm = Swtpm::serve(rig.path()).unwrap();
    drop(tpm.connect().unwrap()); // it listens
    tpm
}

/// What the guest sends, with the digest that its quote must be over.
fn sent(rig: &Rig<'_>) -> (Evidence, [u8; 32]) {
    let asked = Arc::new(Mutex::new(None));
    let kept = Arc::clone(&asked);
    let run = rig.run_against(move |asked| {
        *kept.lock().unwrap() = Some((asked.request.evidence.clone(), qualifying_data(&asked.request.binding)));
        asked.signed(&asked.grant())
    });
    assert_eq!(run.refusal(), None, "{}", run.text());
    asked.lock().unwrap().take().unwrap()
}

/// Gives the TDX quote that was sent.
#[track_caller]
fn assert_sends_what_the_tpm_says(rig: &Rig<'_>, platform: Platform, machine: Machine) -> Option<Vec<u8>> {
    let paravisor = Paravisor::on(machine);
    let mut provisioned = None;
    let tpm = served(rig, |tpm| provisioned = Some(paravisor.provision(tpm).unwrap()));
    std::fs::write(rig.path().join("event-log"), b"an event log").unwrap();
    let (evidence, qualifying) = sent(rig);
    assert_eq!((evidence.platform, evidence.agent_register), (platform, AgentRegister::Pcr(15)));
    assert_eq!((evidence.endorsements.len(), evidence.event_log.as_slice()), (0, &b"an event log"[..]));
    let quote = AzureQuote::parse(&evidence.quote).unwrap();
    assert!(quote.hcl_report.starts_with(&provisioned.unwrap().hcl_report) && quote.hcl_report.len() == 2_048);
    let quoted = quote.tpm.unwrap();
    assert_eq!(quoted.attest[44..76], qualifying, "extraData");
    assert!(quoted.attest.ends_with(&sha256(quoted.pcrs.as_flattened())), "pcrDigest");
    assert_eq!(quoted.signature.len(), 256);
    assert_eq!(quoted.pcrs, open_tpm(tpm.socket()).unwrap().pcrs().unwrap());
    let event = sha256(&rig.agent().event());
    assert_eq!(quoted.pcrs[15], sha256(&[[0; 32], event].concat()), "the agent's register");
    quote.td_quote
}

#[test]
fn evidence_on_azure_snp() {
    let Some(ground) = process_ground("a guest on azure-snp") else { return };
    let td_quote = assert_sends_what_the_tpm_says(&Rig::on_nothing(&ground), Platform::AzureSnp, snp(&ground));
    assert_eq!(td_quote, None);
}

#[test]
fn evidence_on_azure_tdx() {
    let Some(ground) = process_ground("a guest on azure-tdx") else { return };
    let (rig, machine) = (Rig::on_nothing(&ground), tdx());
    let service = quoting(&rig, &machine);
    let td_quote = assert_sends_what_the_tpm_says(&rig, Platform::AzureTdx, Machine::from(machine.clone())).unwrap();
    assert_eq!((&td_quote[..2], &td_quote[184..232]), (&[4, 0][..], &machine.mrtd[..]));
    assert_eq!(service.answered(), 1);
}

/// Where the configuration names no service, the Evidence goes without the quote, for the Verifier to say so.
#[test]
fn evidence_on_azure_tdx_without_a_service() {
    let Some(ground) = process_ground("azure-tdx without a quote") else { return };
    let rig = Rig::on_nothing(&ground);
    let text = std::fs::read_to_string(&rig.configuration).unwrap();
    let without: Vec<&str> = text.lines().filter(|line| !line.starts_with("td-quote-service")).collect();
    std::fs::write(&rig.configuration, without.join("\n")).unwrap();
    assert_eq!(assert_sends_what_the_tpm_says(&rig, Platform::AzureTdx, Machine::from(tdx())), None);
}

#[test]
fn a_quoting_service_that_is_gone_or_lies() {
    let Some(ground) = process_ground("a lying quoting service") else { return };
    let (rig, machine) = (Rig::on_nothing(&ground), tdx());
    let paravisor = Paravisor::on(Machine::from(machine.clone()));
    let _tpm = served(&rig, |tpm| drop(paravisor.provision(tpm).unwrap()));
    rig.impostor(Arc::clone(&rig.key), Box::new(|asked| asked.signed(&asked.grant())));
    rig.assert_refused(&rig.run(), AttesterFailed);
    let service = quoting(&rig, &machine);
    for (fault, cause) in [
        (QuoteFault::Error, "does not say 200"),
        (QuoteFault::OtherReport, "not one over the report"),
        (QuoteFault::Cut, "not as long as it says"),
    ] {
        service.set_fault(fault);
        let run = rig.run();
        rig.assert_refused(&run, AttesterFailed);
        assert!(run.text().contains(cause), "{}", run.text());
    }
}

/// Trusted Launch has such a TPM and no TEE: it is a plain one, and nothing calls it confidential.
#[test]
fn a_report_of_a_machine_without_a_tee() {
    let Some(ground) = process_ground("a report of another kind") else { return };
    let rig = Rig::on_nothing(&ground);
    let mut paravisor = Paravisor::on(snp(&ground));
    paravisor.report_type = 1; // virtualization-based security, no hardware
    let _tpm = served(&rig, |tpm| drop(paravisor.provision(tpm).unwrap()));
    assert_eq!(sent(&rig).0.platform, Platform::Vtpm);
}

#[test]
fn an_index_without_a_report_and_a_report_without_a_key() {
    let Some(ground) = process_ground("an index without a report") else { return };
    let rig = Rig::on_nothing(&ground);
    let tpm = served(&rig, |tpm| {
        Maker::connect(tpm).unwrap().define_for_the_platform(REPORT_INDEX, &[0; 2_000]).unwrap();
    });
    // Whoever uses that index: the TPM is a plain one.
    assert_eq!(sent(&rig).0.platform, Platform::Vtpm);
    drop(tpm);
    let rig = Rig::on_nothing(&ground);
    let paravisor = Paravisor::on(snp(&ground));
    let _tpm = served(&rig, |tpm| {
        let report = paravisor.describe(&[0xd5; 256]).unwrap().hcl_report;
        Maker::connect(tpm).unwrap().define_for_the_platform(REPORT_INDEX, &report).unwrap();
    });
    rig.impostor(Arc::clone(&rig.key), Box::new(|asked| asked.signed(&asked.grant())));
    rig.assert_refused(&rig.run(), AttesterFailed);
}

#[test]
fn a_tpm_that_belongs_to_another_agent_of_this_boot() {
    let Some(ground) = process_ground("PCR 15 in use on Azure") else { return };
    let rig = Rig::on_nothing(&ground);
    let tpm = served(&rig, |tpm| drop(Paravisor::on(snp(&ground)).provision(tpm).unwrap()));
    open_tpm(tpm.socket()).unwrap().pcr_extend(15, &sha256(b"another agent")).unwrap();
    rig.assert_refused(&rig.run(), AgentNotMeasured);
}

/// A host between guest and TPM hands out a quote that was made before, for another connection.
#[test]
fn a_quote_of_another_connection() {
    let Some(ground) = process_ground("a replayed TPM quote") else { return };
    let rig = Rig::on_nothing(&ground);
    let folder = tempfile::tempdir().unwrap();
    Swtpm::manufacture(folder.path(), EkCertificate::Absent).unwrap();
    drop(Paravisor::on(snp(&ground)).provision(&Swtpm::serve(folder.path()).unwrap()).unwrap());
    let tpm = Swtpm::serve(folder.path()).unwrap();
    let stale = exchange(&mut tpm.connect().unwrap(), &quote_command([0x77; 32]));
    assert_eq!(stale[6..10], [0; 4], "a good quote");
    between(&rig, tpm, move |command, answer| if is_quote(command) { stale.clone() } else { answer });
    rig.impostor(Arc::clone(&rig.key), Box::new(|asked| asked.signed(&asked.grant())));
    let run = rig.run();
    rig.assert_refused(&run, AttesterFailed);
    assert!(run.text().contains("the quote does not hold the data"), "{}", run.text());
}

/// A paravisor that renews its report while it is read: half of one and half of another is no report.
#[test]
fn a_report_that_is_renewed_while_it_is_read() {
    let Some(ground) = process_ground("a renewed report") else { return };
    let rig = Rig::on_nothing(&ground);
    let folder = tempfile::tempdir().unwrap();
    Swtpm::manufacture(folder.path(), EkCertificate::Absent).unwrap();
    let provisioned = Paravisor::on(snp(&ground)).provision(&Swtpm::serve(folder.path()).unwrap()).unwrap();
    let tpm = Swtpm::serve(folder.path()).unwrap();
    // A report is four parts. Each time it is read, the last part of the first reading is of another one.
    let mut readings = 0;
    between(&rig, tpm, move |command, mut answer| {
        if command[6..10] == [0, 0, 1, 0x4e] {
            readings += 1;
            if readings % 12 == 4 {
                answer[16] ^= 1;
            }
        }
        answer
    });
    let (evidence, _) = sent(&rig);
    let report = AzureQuote::parse(&evidence.quote).unwrap().hcl_report;
    let (said, padding) = report.split_at(provisioned.hcl_report.len());
    assert_eq!(said, provisioned.hcl_report);
    assert!(padding.iter().all(|byte| *byte == 0), "a part of another report");
}

/// Listens in the TPM's place and passes on what is asked; `change` says what comes back.
fn between(rig: &Rig<'_>, tpm: Swtpm, mut change: impl FnMut(&[u8], Vec<u8>) -> Vec<u8> + Send + 'static) {
    let listener = UnixListener::bind(rig.path().join("tpm.sock")).unwrap();
    std::thread::spawn(move || {
        while let Ok((mut near, _)) = listener.accept() {
            let mut far = tpm.connect().unwrap();
            let mut command = vec![0; 4_096];
            while let Some(length) = near.read(&mut command).ok().filter(|length| *length > 0) {
                let answer = exchange(&mut far, &command[..length]);
                if near.write_all(&change(&command[..length], answer)).is_err() {
                    break;
                }
            }
        }
    });
}

fn exchange(tpm: &mut UnixStream, command: &[u8]) -> Vec<u8> {
    loop {
        tpm.write_all(command).unwrap();
        let mut answer = vec![0; 10];
        tpm.read_exact(&mut answer).unwrap();
        answer.resize(usize::from(u16::from_be_bytes([answer[4], answer[5]])), 0);
        tpm.read_exact(&mut answer[10..]).unwrap();
        if answer[6..10] != [0, 0, 9, 0x22] {
            return answer;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

fn is_quote(command: &[u8]) -> bool {
    command[6..10] == [0, 0, 1, 0x58]
}

/// TPM2_Quote by the attestation key over PCRs 0 to 23 of the SHA-256 bank.
fn quote_command(qualifying: [u8; 32]) -> Vec<u8> {
    let session = [0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0];
    let selection = [0, 0, 0, 1, 0, 0x0b, 3, 0xff, 0xff, 0xff];
    let body = [&ATTESTATION_KEY.to_be_bytes()[..], &session, &[0, 32], &qualifying, &[0, 0x10], &selection].concat();
    let size = u32::try_from(body.len() + 10).unwrap();
    [&[0x80, 2][..], &size.to_be_bytes(), &[0, 0, 1, 0x58], &body].concat()
}
