//! Whole boots in virtual machines: the real kernel and initramfs with inwit-guest as PID 1, on each platform. The good path
//! to its end; and what only a measured boot can show: that another initramfs, another command line or another disk is not
//! the registered one, whatever the machine says of itself. Every end is a power-off.

mod refusals_support;

use inwit_measurements::Digest;
use inwit_measurements::eventlog::replay_sha256;
use inwit_measurements::linux::{DirectKernel, KernelLoader, QemuVersion};
use inwit_measurements::reference::Measured;
use inwit_measurements::vtpm::{
    Ima, LAST_PREDICTED, MeasuredBoot, PeiError, Start, check_recorded, compute_pei_volume, predict, record_pei_volume,
};
use inwit_protocol::evidence::Platform::{self, AzureSnp, AzureTdx, Snp, Tdx, Vtpm};
use inwit_protocol::refusal::RefusalCode::{self, *};
use inwit_tests::hardware::azure::REPORT_INDEX;
use inwit_tests::hardware::{Machine, Paravisor, SnpMachine};
use inwit_tests::stage::guest::{End, run_machine};
use inwit_tests::stage::image::{self, Place, Settings};
use inwit_tests::stage::play::{Scene, Twist};
use inwit_tests::stage::recorder::{Recording, forge, initrd, recording};
use inwit_tests::stage::trust::open_tpm;
use inwit_tests::stage::{CONFIDENTIAL, HELLO};
use inwit_tests::world::accel::Accelerator;
use inwit_tests::world::firmware::ovmf;
use inwit_tests::world::kernel::Kernel;
use inwit_tests::world::qemu::{Boot, DEFAULT_APPEND, DEFAULT_MEMORY_MIB};
use inwit_tests::world::setup::Step;
use inwit_tests::world::swtpm::{EkCertificate, Swtpm};
use std::collections::BTreeMap;
use std::num::NonZeroU16;

use refusals_support::By::{self, Authority, GuestAfterGrant};
use refusals_support::{Ground, assert_nothing_started, assert_one_refusal, ground};

fn stage(test: &str) -> Option<Ground> {
    let steps: Vec<Step> = Step::ALL.into_iter().filter(|step| *step != Step::Calculator).collect();
    ground(test, &steps)
}

#[track_caller]
fn boots(platform: Platform, scene: Scene) {
    let Some(ground) = stage(&format!("a boot on {platform}")) else { return };
    let trial = ground.play(platform, scene, Twist::None);
    trial.assert_good(scene);
    let outcome = &trial.outcome;
    if let Measured::Vtpm { pcrs } | Measured::AzureSnp { pcrs, .. } | Measured::AzureTdx { pcrs, .. } =
        &outcome.measured
    {
        // The grant says that the quote had them all as they were predicted.
        assert!(pcrs.keys().copied().eq(0..=LAST_PREDICTED), "{pcrs:?}");
    }
    let text = outcome.run.text();
    assert_eq!(outcome.exchanges, 1, "one request, one reply:\n{text}");
    let steps: Vec<String> = outcome.run.phases().into_iter().map(|phase| phase.name).collect();
    for step in
        ["modules", "platform", "agent", "channel", "evidence", "credential", "secrets", "disk", "workload", "end"]
    {
        assert!(steps.iter().any(|name| name == step), "no {step} in\n{text}");
    }
    assert!(outcome.host_bytes > 4_000, "the search for secrets had {} bytes to look at", outcome.host_bytes);
    assert!(!text.contains(CONFIDENTIAL), "{text}");
}

#[track_caller]
fn refused(platform: Platform, twist: Twist, code: RefusalCode, by: By) {
    let Some(ground) = stage(&format!("{code} in a machine on {platform}")) else { return };
    ground.play(platform, Scene::Machine, twist).assert_refused(Scene::Machine, code, by);
}

#[test]
fn the_whole_path_on_snp() {
    boots(Snp, Scene::Machine);
}

#[test]
fn the_whole_path_on_tdx() {
    boots(Tdx, Scene::Machine);
}

#[test]
fn the_whole_path_on_a_tpm() {
    boots(Vtpm, Scene::Machine);
}

#[test]
fn the_whole_path_on_azure_snp() {
    boots(AzureSnp, Scene::Machine);
}

#[test]
fn the_whole_path_on_azure_tdx() {
    boots(AzureTdx, Scene::Machine);
}

#[test]
fn the_whole_path_in_a_unified_image() {
    boots(Vtpm, Scene::UnifiedMachine);
}

#[test]
fn a_unified_image_with_another_command_line() {
    let Some(ground) = stage("a changed unified image") else { return };
    let trial = ground.play(Vtpm, Scene::UnifiedMachine, Twist::CommandLine);
    trial.assert_refused(Scene::UnifiedMachine, MeasurementUnregistered, Authority);
    let log = format!("{:?}", trial.outcome.audit);
    // The image, the command line, the record over both, the section.
    for register in ["pcr4 (", "pcr9 (", "pcr10 (", "pcr11 ("] {
        assert!(log.contains(register), "{register} in {log}");
    }
    assert!(!log.contains("more of vtpm differ"), "no other register moved: {log}");
}

/// What the TPM itself says after a boot, and what the log of that boot leads to.
#[test]
fn every_register_is_as_predicted_and_as_logged() {
    let Some(ground) = stage("a recorded boot") else { return };
    let (kernel, firmware) = (Kernel::cached(&ground.world).unwrap(), std::fs::read(ovmf().unwrap().code).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let Recording { pcrs, log } = recording(&ground.world, &firmware, folder.path()).unwrap();
    let (kernel, initrd) = (std::fs::read(kernel.image).unwrap(), initrd(&ground.world, "recorder").unwrap());
    let (append, memory_mib) = (DEFAULT_APPEND, DEFAULT_MEMORY_MIB);
    let loader = KernelLoader::inspect(&firmware).unwrap();
    let (ramdisk_option, header) = (loader.ramdisk_option, loader.header(QemuVersion::new(7, 2)));
    let (kernel, initrd) = (kernel.as_slice(), initrd.as_slice());
    let start = Start::Direct(DirectKernel { kernel, initrd, append, memory_mib, ramdisk_option, header });
    let pei_volume = record_pei_volume(&log).unwrap();
    // Of the build that is known it is computed, which is as good where the processor has 40 address bits, as under emulation.
    match compute_pei_volume(&firmware, memory_mib, NonZeroU16::MIN) {
        Ok(computed) if Accelerator::of_this_machine() == Accelerator::Tcg => assert_eq!(computed, pei_volume),
        Ok(_) => {}
        Err(error) => assert!(matches!(error, PeiError::Build(_)), "{error}"),
    }
    let boot = MeasuredBoot { firmware: &firmware, pei_volume, start, ima: Ima::Sig, agent: None };
    let predicted = predict(&boot).unwrap();
    check_recorded(&log, &predicted).unwrap();
    let predicted = predicted.pcrs();
    let held: BTreeMap<u8, Digest<32>> = (0..=LAST_PREDICTED).zip(pcrs.map(Digest::from_bytes)).collect();
    assert_eq!(predicted, held);
    let replayed = replay_sha256(&log).unwrap().pcrs;
    // Linux extends PCR 10 when the log is closed already.
    assert_eq!(replayed.keys().copied().collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 6, 7, 9]);
    assert!(replayed.iter().all(|(pcr, value)| pcrs[*pcr as usize] == *value), "{replayed:?}");
}

#[test]
fn an_initramfs_with_one_byte_changed_on_snp() {
    refused(Snp, Twist::InitrdByte, MeasurementUnregistered, Authority);
}

#[test]
fn an_initramfs_with_one_byte_changed_on_tdx() {
    refused(Tdx, Twist::InitrdByte, MeasurementUnregistered, Authority);
}

/// Here the firmware of the machine itself measures what it boots.
#[test]
fn an_initramfs_with_one_byte_changed_on_a_tpm() {
    refused(Vtpm, Twist::InitrdByte, MeasurementUnregistered, Authority);
}

/// The hardware measures the paravisor alone: what booted is in its TPM.
#[test]
fn an_initramfs_with_one_byte_changed_on_azure_snp() {
    refused(AzureSnp, Twist::InitrdByte, MeasurementUnregistered, Authority);
}

#[test]
fn another_command_line_on_snp() {
    refused(Snp, Twist::CommandLine, MeasurementUnregistered, Authority);
}

#[test]
fn another_command_line_on_a_tpm() {
    refused(Vtpm, Twist::CommandLine, MeasurementUnregistered, Authority);
}

#[test]
fn a_launch_policy_with_debug() {
    let debug = Twist::Machine(|machine| {
        if let Machine::Snp(machine) = machine {
            machine.policy |= 1 << 19;
        }
    });
    refused(Snp, debug, DebugEnabled, Authority);
}

#[test]
fn a_disk_with_one_byte_changed() {
    refused(Snp, Twist::DiskByte, DiskUnopenable, GuestAfterGrant);
}

/// The firmware has locked the platform's hierarchy when a guest starts: it reads the report and cannot write another.
#[test]
fn a_guest_that_would_forge_the_paravisors_report() {
    let Some(ground) = stage("a forged report") else { return };
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("tpm");
    Swtpm::manufacture(&state, EkCertificate::Absent).unwrap();
    let machine = Machine::from(SnpMachine::new(&ground.amd_root(), [0xa2; 48]).unwrap());
    let provisioned = Paravisor::on(machine).provision(&Swtpm::serve(&state).unwrap()).unwrap();
    let tried = forge(&ground.world, &state, &folder.path().join("forger")).unwrap();
    let expected = [
        ("index-write", "12f"), // TPM_RC_AUTH_UNAVAILABLE
        ("owner-read", "0"),
        ("owner-undefine", "149"), // TPM_RC_NV_AUTHORIZATION
        ("owner-write", "149"),
        ("platform-undefine", "9a2"), // TPM_RC_BAD_AUTH: the empty password is no longer the platform's
        ("platform-write", "9a2"),
    ];
    assert_eq!(tried, expected.map(|(act, code)| (act.to_owned(), code.to_owned())).into());
    let tpm = Swtpm::serve(&state).unwrap();
    let report = open_tpm(tpm.socket()).unwrap().nv_read(REPORT_INDEX, 2_048).unwrap();
    assert!(report.starts_with(&provisioned.hcl_report));
}

#[test]
fn a_machine_that_is_no_platform() {
    let Some(ground) = stage("a machine without platform") else { return };
    let kernel = Kernel::cached(&ground.world).unwrap();
    let modules = kernel.modules(&image::MODULES).unwrap();
    let pin = "ab".repeat(32);
    let settings = Settings { pin: &pin, identifier: HELLO, modules: &modules, place: Place::Machine };
    let text = image::configuration(&settings);
    let folder = tempfile::tempdir().unwrap();
    let initrd = folder.path().join("initrd");
    std::fs::write(&initrd, image::production(&ground.programs.guest, &text, &modules).unwrap()).unwrap();
    let run = run_machine(&Boot::of(&kernel.image, &initrd), |_, _| {}).unwrap();
    assert_one_refusal(&run, NoPlatform);
    assert_nothing_started(&run);
    assert_eq!(run.end, End::PoweredOff, "{}", run.text());
}
