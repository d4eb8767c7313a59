//! A guest whose own ground is broken: no platform, a TPM that lies or already belongs to another agent, no configuration,
//! no relay. It refuses by itself, before anybody is asked for anything.

mod refusals_support;

use inwit_protocol::primitives::sha256;
use inwit_protocol::refusal::RefusalCode::*;
use inwit_tests::hardware::{Fault, Machine, SnpMachine, TsmFs};
use inwit_tests::stage::guest::{End, run_process};
use inwit_tests::stage::trust::open_tpm;
use inwit_tests::world::swtpm::{EkCertificate, Swtpm};
use refusals_support::impostor::Rig;
use refusals_support::{
    assert_nothing_started, assert_one_refusal, not_run, process_ground, refusal_lines, slow_tests_run,
};
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

#[test]
fn no_platform_at_all() {
    let Some(ground) = process_ground("no platform") else { return };
    let rig = Rig::on_nothing(&ground);
    rig.assert_refused(&rig.run(), NoPlatform);
}

#[test]
fn a_tpm_that_belongs_to_another_agent_of_this_boot() {
    let Some(ground) = process_ground("PCR 15 in use") else { return };
    let rig = Rig::on_nothing(&ground);
    Swtpm::manufacture(rig.path(), EkCertificate::Absent).unwrap();
    let tpm = Swtpm::serve(rig.path()).unwrap();
    open_tpm(tpm.socket()).unwrap().pcr_extend(15, &sha256(b"another agent")).unwrap();
    rig.assert_refused(&rig.run(), AgentNotMeasured);
}

/// Poison: once something is extended behind the agent's event, no restart of the agent gets the boot back.
#[test]
fn a_tpm_whose_boot_was_poisoned() {
    let Some(ground) = process_ground("PCR 15 poisoned") else { return };
    let rig = Rig::on_nothing(&ground);
    Swtpm::manufacture(rig.path(), EkCertificate::Absent).unwrap();
    let tpm = Swtpm::serve(rig.path()).unwrap();
    drop(open_tpm(tpm.socket()).unwrap()); // it listens
    let good = rig.run_against(|asked| asked.signed(&asked.grant()));
    assert_eq!(good.refusal(), None, "{}", good.text());
    let again = rig.run_against(|asked| asked.signed(&asked.grant()));
    assert_eq!(again.refusal(), None, "a restarted agent finds its own event: {}", again.text());
    open_tpm(tpm.socket()).unwrap().pcr_extend(15, &sha256(b"poison")).unwrap();
    rig.assert_refused(&rig.run(), AgentNotMeasured);
}

#[test]
fn a_tpm_that_answers_with_garbage() {
    let Some(ground) = process_ground("a garbage TPM") else { return };
    let answers: [&[u8]; 4] = [
        b"",
        &[0xff; 4_096],
        // TPM_ST_NO_SESSIONS, success, a length of more than there is; and one that is right and says nothing.
        &[0x80, 0x01, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0],
        &[0x80, 0x01, 0, 0, 0, 10, 0, 0, 0, 0],
    ];
    for answer in answers {
        let rig = Rig::on_nothing(&ground);
        let listener = UnixListener::bind(rig.path().join("tpm.sock")).unwrap();
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let _ = stream.read(&mut [0; 4_096]);
                let _ = stream.write_all(answer);
            }
        });
        rig.assert_refused(&rig.run(), AttesterFailed);
    }
}

#[test]
fn no_configuration_or_a_wrong_one() {
    let Some(ground) = process_ground("configuration") else { return };
    let rig = Rig::on_nothing(&ground);
    let good = std::fs::read_to_string(&rig.configuration).unwrap();
    for (what, text) in [
        ("an unknown key", format!("{good}insecure = true\n")),
        ("a doubled key", format!("{good}run = /tmp/elsewhere\n")),
        ("no pin", good.replace("authority-pin", "# authority-pin")),
        ("not text", format!("{good}\u{0}\n")),
        ("nothing", String::new()),
    ] {
        std::fs::write(&rig.configuration, text).unwrap();
        let run = rig.run();
        assert_eq!(run.refusal().as_deref(), Some("configuration-invalid"), "{what}: {}", run.text());
        rig.assert_refused(&run, ConfigurationInvalid);
    }
    let run = run_process(ground.programs, &rig.path().join("no-such-file"), |_, _| {}).unwrap();
    rig.assert_refused(&run, ConfigurationInvalid);
}

#[test]
fn no_relay() {
    if !slow_tests_run() {
        return not_run("no relay", "takes the guest's patience, half a minute; set INWIT_SLOW=1");
    }
    let Some(ground) = process_ground("no relay") else { return };
    let rig = Rig::on_snp(&ground);
    rig.assert_refused(&rig.run(), Unreachable);
}

/// The guest says why and ends although the device still holds one of its threads. Its console tells when.
#[test]
fn a_report_device_that_hangs() {
    if !slow_tests_run() {
        return not_run(
            "a hanging report device",
            "takes the guest's patience, one minute and a half; set INWIT_SLOW=1",
        );
    }
    let Some(ground) = process_ground("a hanging report device") else { return };
    let rig = Rig::on_nothing(&ground);
    let machine = SnpMachine::new(&ground.amd_root(), [0x4d; 48]).unwrap();
    let device = TsmFs::mount(&rig.path().join("tsm"), Machine::from(machine)).unwrap();
    // A process, unlike a machine that powers off, is not gone before its stuck thread is; so the device answers in the end.
    let hangs = Duration::from_secs(100);
    device.device().set_fault(Fault::Stuck(hangs));
    rig.impostor(Arc::clone(&rig.key), Box::new(|asked| asked.signed(&asked.grant())));
    let run = rig.run_within(Duration::from_secs(180));
    // The request directory stays: what is stuck in it is what the guest no longer waits for.
    assert_one_refusal(&run, AttesterFailed);
    assert_eq!(run.end, End::Exited(3), "{}", run.text());
    assert_nothing_started(&run);
    let told = refusal_lines(&run)[0].split(['+', 'm']).nth(1).unwrap().parse().map(Duration::from_millis);
    assert!(told.unwrap() < hangs, "it waited for the device: {}", run.text());
}
