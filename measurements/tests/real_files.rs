//! Predictions and replays against real material: firmware and kernel of a distribution, event logs of real TDs with
//! the quotes that they belong to. None of it is in the repository; what does not run is said on standard error.
//!
//! `INWIT_VECTORS` names the collected vectors. `INWIT_OVMF`, `INWIT_OVMF_CODE`, `INWIT_OVMF_TDX`, `INWIT_KERNEL` and
//! `INWIT_OVMF_2025_02` (built with measurement for TDX) name files, which are used when they are the recorded ones.
//! Never compares times, never boots anything.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use inwit_measurements::eventlog::{EventLog, LogError, Proof, describe, replay_ccel};
use inwit_measurements::linux::{DirectKernel, KernelHeader, KernelLoader, KernelSource, RamdiskOption};
use inwit_measurements::ovmf::Firmware;
use inwit_measurements::tdx::{
    AcpiBlobs, Build, BuildError, Machine, MachineError, MachineEvents, Pass, SecureBoot, SecureBootVariables,
    Separators, cfv_digest, extend_register, gpt_event, mrtd, rtmr0_events, rtmr1_events, rtmr2_events, secure_boot,
    td_hob, variables,
};
use inwit_measurements::vtpm::{Ima, MeasuredBoot, Start, predict};
use inwit_measurements::{Digest, sha256, sha384};

fn not_run(what: &str) {
    // Written past the harness, which would swallow it for a test that passes.
    let _ = writeln!(std::io::stderr(), "NOT RUN: {what}");
}

/// A file named by a variable or found at its usual place, if it has the recorded SHA-256.
fn recorded(variable: &str, usual: &str, sha: &str) -> Option<Vec<u8>> {
    let path = std::env::var_os(variable).map_or_else(|| PathBuf::from(usual), PathBuf::from);
    let found = std::fs::read(path).ok().filter(|bytes| sha256(bytes).to_string() == sha);
    if found.is_none() {
        not_run(&format!("a comparison with the file of SHA-256 {sha}: set {variable} to it"));
    }
    found
}

/// A vector file, unpacked if it is compressed.
fn vector(path: &str) -> Option<Vec<u8>> {
    let default = || concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/vectors").into();
    let folder = std::env::var_os("INWIT_VECTORS").map_or_else(default, PathBuf::from);
    let path = folder.join(path);
    let bytes = if path.extension().is_some_and(|extension| extension == "gz") {
        let output = Command::new("gzip").arg("-dc").arg(&path).output().ok()?;
        output.status.success().then_some(output.stdout)
    } else {
        std::fs::read(&path).ok()
    };
    if bytes.is_none() {
        not_run(&format!("vector {}", path.display()));
    }
    bytes
}

/// RTMR0 to RTMR3 of a TDX quote: header of 48 bytes, in version 5 six more, then the body with RTMR0 at 328.
fn quoted_rtmrs(quote: &[u8]) -> [[u8; 48]; 4] {
    let start = if quote[0] == 5 { 54 } else { 48 } + 328;
    std::array::from_fn(|rtmr| quote[start + rtmr * 48..][..48].try_into().unwrap())
}

#[test]
fn real_logs_replay_to_the_quotes_they_belong_to() {
    for (log, quote) in [
        ("google+go-eventlog/cos-113-intel-tdx.bin.gz", "google+go-tdx-guest/cos-113/quote.bin"),
        ("google+go-tdx-guest/cos-113/ccel_data.trimmed.bin", "google+go-tdx-guest/cos-113/quote.bin"),
        (
            "confidential-dot-ai+attestation-rs/tdx-live/ccel-match.bin",
            "confidential-dot-ai+attestation-rs/tdx-live/quote.bin",
        ),
    ] {
        let (Some(log), Some(quote)) = (vector(log), vector(quote)) else { continue };
        assert_eq!(replay_ccel(&log).unwrap().rtmrs[..3], quoted_rtmrs(&quote)[..3]);
    }
}

#[test]
fn logs_of_another_boot_differ_in_the_known_registers() {
    for (log, quote, equal) in [
        (
            "google+go-eventlog/cos-113-intel-tdx-dupe-separator.bin.gz",
            "google+go-tdx-guest/cos-113/quote.bin",
            [false, false, true],
        ),
        (
            "confidential-dot-ai+attestation-rs/tdx-live/ccel-mismatch-rtmr2.bin",
            "confidential-dot-ai+attestation-rs/tdx-live/quote.bin",
            [true, true, false],
        ),
    ] {
        let (Some(log), Some(quote)) = (vector(log), vector(quote)) else { continue };
        let (replayed, quoted) = (replay_ccel(&log).unwrap().rtmrs, quoted_rtmrs(&quote));
        assert_eq!([0, 1, 2].map(|rtmr| replayed[rtmr] == quoted[rtmr]), equal);
    }
}

#[test]
fn every_real_log_is_read_and_a_changed_one_is_not_the_same() {
    for (log, events) in [
        ("google+go-eventlog/CCEL_unpadded.data.bin", 19),
        ("confidential-containers+trustee/eventlog/CCEL_data.gz", 5),
        ("confidential-containers+trustee/eventlog/CCEL_data_gcp.gz", 21),
        ("confidential-containers+trustee/eventlog/CCEL_data_grub", 37),
        ("confidential-containers+trustee/eventlog/CCEL_data_grub_gke.gz", 35),
        ("confidential-containers+trustee/eventlog/CCEL_data_ovmf", 20),
        ("confidential-containers+trustee/eventlog/CCEL_AAEL_alibabacloud", 87),
    ] {
        let Some(mut log) = vector(log) else { continue };
        let (registers, changed) = {
            let replay = replay_ccel(&log).unwrap();
            assert_eq!(replay.events.len(), events);
            let extended = replay.events.iter().rfind(|event| event.event_type != 3).unwrap();
            (replay.rtmrs, extended.digest::<48>(0x000c).unwrap())
        };
        let at = log.windows(48).rposition(|window| window == changed).unwrap();
        log[at] ^= 1;
        match replay_ccel(&log) {
            Ok(changed) => assert_ne!(changed.rtmrs, registers),
            Err(error) => assert!(matches!(error, LogError::Preimage(_)), "{error}"),
        }
    }
}

/// What the files that were booted gave is not at hand: kernel, command line and ramdisk. So of RTMR1 and RTMR2 this proves
/// number, order, types and data of the events, and of RTMR1 all digests but the kernel's; of RTMR0 that what is recorded
/// is complete.
#[test]
fn events_around_the_files_equal_those_of_real_direct_boots() {
    for (log, secure_boot, separators) in [
        ("confidential-dot-ai+attestation-rs/tdx-live/ccel-match.bin", SecureBoot::Absent, Separators::Rtmr0AndRtmr1),
        ("confidential-containers+trustee/eventlog/CCEL_data_ovmf", SecureBoot::Absent, Separators::Rtmr0Twice),
        ("google+go-eventlog/CCEL_unpadded.data.bin", SecureBoot::Off, Separators::Rtmr0Twice),
    ] {
        let Some(log) = vector(log) else { continue };
        let replay = replay_ccel(&log).unwrap();
        let machine = MachineEvents::record(&log).unwrap();
        let variables = SecureBootVariables::without_keys(secure_boot);
        assert_eq!((&machine.secure_boot, machine.separators), (&variables, separators));
        // Second event: the configuration volume, an empty variable store of 0x84000 bytes in all three.
        let cfv = Digest::from_bytes(replay.events[1].digest(0x000c).unwrap());
        assert!(cfv.to_string().starts_with("344bc51c980ba621"));
        assert_eq!(extend_register(&rtmr0_events(cfv, &machine)).as_bytes(), &replay.rtmrs[0]);
        // RTMR1 without the digest of its first event, the kernel.
        let logged = EventLog::parse(&log).unwrap().events;
        let logged: Vec<_> = logged.iter().filter(|event| event.index == 2).map(|event| event.event_type).collect();
        let kernel = pe_sample();
        let boot = DirectKernel { header: KernelHeader::AsBuilt, ..earlier(&kernel, b"", "", 2048) };
        let mut predicted = rtmr1_events(&boot, separators).unwrap();
        assert_eq!(predicted.iter().map(|event| event.event_type).collect::<Vec<_>>(), logged);
        let first = replay.events.iter().find(|event| event.index == 2).unwrap().digest(0x000c).unwrap();
        predicted[0].digest = Digest::from_bytes(first);
        assert_eq!(extend_register(&predicted).as_bytes(), &replay.rtmrs[1]);
        let logged: Vec<_> = replay.events.iter().filter(|event| event.index == 3).collect();
        assert!(!logged.is_empty());
        let kernel = setup_sample();
        let predicted = rtmr2_events(&earlier(&kernel, b"ramdisk", "quiet", 2048)).unwrap();
        let shape: Vec<_> = predicted.iter().map(|event| (event.event_type, event.data.as_slice())).collect();
        if logged.iter().all(|event| event.data.starts_with(b"LOADED_IMAGE")) {
            not_run("RTMR2 of a log whose kernel logs one event without a tag, unlike Linux 6.9 and later");
            continue;
        }
        assert_eq!(logged.iter().map(|event| (event.event_type, event.data)).collect::<Vec<_>>(), shape);
    }
}

/// A boot from a disk has events for which there is no rule: it is told, not guessed.
#[test]
fn logs_of_disk_boots_are_no_records_of_a_machine() {
    for log in [
        "google+go-eventlog/cos-113-intel-tdx.bin.gz",
        "confidential-containers+trustee/eventlog/CCEL_data_grub",
        "confidential-containers+trustee/eventlog/CCEL_AAEL_alibabacloud",
        "confidential-containers+trustee/eventlog/CCEL_data.gz",
    ] {
        let Some(log) = vector(log) else { continue };
        assert!(
            matches!(MachineEvents::record(&log), Err(MachineError::Shape(_))),
            "{:?}",
            MachineEvents::record(&log)
        );
    }
}

/// First event of a log: the TD HOB.
fn logged_hob(log: &[u8]) -> String {
    Digest::from_bytes(replay_ccel(log).unwrap().events[0].digest::<48>(0x000c).unwrap()).to_string()
}

/// What real hypervisors built for TDs of these sizes, with firmware of the same sections as this one.
#[test]
fn the_memory_map_is_the_one_that_real_hypervisors_built() {
    let Some(firmware) = plain_firmware() else { return };
    let firmware = Firmware::parse(&firmware).unwrap();
    for (log, memory_mib) in [
        ("confidential-containers+trustee/eventlog/CCEL_data_ovmf", 2048),
        ("google+go-eventlog/CCEL_unpadded.data.bin", 8192),
        ("confidential-containers+trustee/eventlog/CCEL_data_grub", 10240),
    ] {
        let Some(log) = vector(log) else { continue };
        assert_eq!(sha384(&td_hob(&firmware, memory_mib).unwrap()).to_string(), logged_hob(&log), "{memory_mib} MiB");
        assert_ne!(sha384(&td_hob(&firmware, memory_mib + 1).unwrap()).to_string(), logged_hob(&log));
    }
}

/// RTMR0 of three machine shapes, from another calculator that was compared with hardware.
#[test]
fn rtmr0_of_published_shapes_is_computed_from_files() {
    let firmware = recorded(
        "INWIT_OVMF_2025_02",
        "/usr/share/ovmf-2025.02/OVMF.fd",
        "9e807cb2cd4313406a3aa4becc0836671a5c64ca7bdc08a45e15260184b446bf",
    );
    for (shape, memory_mib, vcpus) in
        [("canonical-defaults", 2048, 4), ("q35-with-hpet", 4096, 8), ("runtime-capture", 16384, 8)]
    {
        let file = |name: &str| vector(&format!("fortanix+tdx-measure/{shape}/{name}"));
        let (Some(tables), Some(expected)) = (file("acpi_tables.bin.gz"), file("expected.json")) else { continue };
        let expected: serde_json::Value = serde_json::from_slice(&expected).unwrap();
        let acpi = AcpiBlobs::from_tables(&tables).unwrap();
        assert_eq!(acpi.vcpus(), Some(vcpus));
        let live = "confidential-dot-ai+attestation-rs/tdx-live/ccel-match.bin";
        if let (2048, Some(log)) = (memory_mib, vector(live)) {
            // A real TD of this size ran firmware with the same sections and the same empty variables: its memory map
            // and configuration volume stand for the file.
            let digest = |event: usize| replay_ccel(&log).unwrap().events[event].digest(0x000c).unwrap();
            let acpi = acpi.digests().iter().map(|(_, digest)| *digest).collect();
            let machine = MachineEvents { acpi, ..MachineEvents::record(&log).unwrap() };
            let events = rtmr0_events(Digest::from_bytes(digest(1)), &machine);
            assert_eq!(machine.td_hob.as_bytes(), &digest(0));
            assert_eq!(extend_register(&events).to_string(), expected["rtmr0"].as_str().unwrap());
        }
        let Some(firmware) = &firmware else { continue };
        let machine = Machine {
            firmware,
            build: &Build::inspect(firmware).unwrap(),
            memory_mib,
            acpi: &acpi,
            fw_cfg: &[],
            secure_boot: None,
            authority: None,
            smbios: None,
            boot: &[],
            separators: Separators::Rtmr0AndRtmr1,
        };
        let events = rtmr0_events(cfv_digest(firmware).unwrap(), &machine.events().unwrap());
        assert_eq!(extend_register(&events).to_string(), expected["rtmr0"].as_str().unwrap());
        assert_eq!(mrtd(firmware, Pass::Single).unwrap().to_string(), expected["mrtd"].as_str().unwrap());
    }
}

/// What builds of distributions measure, read out of them.
#[test]
fn builds_tell_what_they_measure() {
    if let Some(plain) = plain_firmware() {
        assert!(matches!(Build::inspect(&plain), Err(BuildError::MeasuresNothing(_))));
        let loader = KernelLoader { ramdisk_option: RamdiskOption::AfterCommandLine, source: KernelSource::Items };
        assert_eq!(KernelLoader::inspect(&plain), Ok(loader));
    }
    let Some(tdx) = tdx_firmware() else { return };
    let build = Build::inspect(&tdx).unwrap();
    assert!(build.secure_boot && build.fw_cfg && build.smbios);
    let loader = KernelLoader { ramdisk_option: RamdiskOption::BeforeCommandLine, source: KernelSource::NamedFile };
    assert_eq!(build.loader, Ok(loader));
    assert_eq!(build.boot_options.len(), 1, "the front page lies in a volume that no TD loads");
    let firmware = Firmware::parse(&tdx).unwrap();
    let sections = firmware.tdvf_sections().unwrap();
    let volume = sections.iter().find(|section| section.kind == 1).unwrap().data;
    let names: Vec<_> = variables(volume).unwrap().into_iter().map(|variable| variable.name).collect();
    assert_eq!(names, ["KEK", "PK", "db", "dbx"]);
    assert_eq!(secure_boot(volume).unwrap().enabled, Some(1));
}

fn plain_firmware() -> Option<Vec<u8>> {
    recorded(
        "INWIT_OVMF",
        "/usr/share/ovmf/OVMF.fd",
        "7b456907dd0786d415999e801a1ac4637b8ed4d7cf5378cfc6edbe5e574dd773",
    )
}

fn tdx_firmware() -> Option<Vec<u8>> {
    recorded(
        "INWIT_OVMF_TDX",
        concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../target/world/firmware/ovmf-inteltdx/usr/share/ovmf/OVMF.inteltdx.ms.fd"
        ),
        "a265075b4147a096109e501e76196df1ec8a18659c26f7401492c597ec88f312",
    )
}

/// A boot through the firmware of Debian 12.
fn earlier<'a>(kernel: &'a [u8], initrd: &'a [u8], append: &'a str, memory_mib: u32) -> DirectKernel<'a> {
    let (ramdisk_option, header) = (RamdiskOption::AfterCommandLine, KernelHeader::FilledIn);
    DirectKernel { kernel, initrd, append, memory_mib, ramdisk_option, header }
}

/// As much of a kernel as tells its release.
fn setup_sample() -> Vec<u8> {
    let mut kernel = vec![0; 0x400];
    kernel[0x1f1] = 1;
    kernel[0x202..0x206].copy_from_slice(b"HdrS");
    kernel[0x20e] = 0x80;
    kernel[0x280..0x285].copy_from_slice(b"6.9.0");
    kernel
}

/// The smallest image with an Authenticode digest.
fn pe_sample() -> Vec<u8> {
    let mut image = vec![0; 0x200];
    image[..2].copy_from_slice(b"MZ");
    image[0x3c] = 0x40;
    image[0x40..0x44].copy_from_slice(b"PE\0\0");
    image[0x58..0x5a].copy_from_slice(&0x20bu16.to_le_bytes());
    image[0x58 + 60..0x58 + 64].copy_from_slice(&0x200u32.to_le_bytes());
    image
}

/// Recorded with independent calculators.
#[test]
fn mrtd_of_recorded_firmware() {
    let plain = plain_firmware();
    if let Some(firmware) = plain {
        assert_eq!(
            mrtd(&firmware, Pass::Single).unwrap().to_string(),
            "4c7206f0f483c524f12c366c711e9049030a8d47c471ee5aa9c4999a08de4057fb887fed0744d5631a212967fb231c47"
        );
        assert_eq!(
            mrtd(&firmware, Pass::TwoPass).unwrap().to_string(),
            "acccbcc870a381adab0d3919d90a7f268ac3b0364771f202ed4bb4e892d045b33db3b32e6924cba830a724eed443f7e1"
        );
    }
    let tdx = tdx_firmware();
    if let Some(firmware) = tdx {
        assert_eq!(
            mrtd(&firmware, Pass::Single).unwrap().to_string(),
            "a7a1f751abc454f9cbab198ca8d2edb2821935df525c74182b5e776cb0929e8c59aefecce725b0d08a5e9d3d3183bd08"
        );
        assert!(cfv_digest(&firmware).is_ok());
    }
}

/// Values of an independent calculator whose predictions were read back in booted guests.
#[test]
fn pcrs_of_a_recorded_boot() {
    let code = recorded(
        "INWIT_OVMF_CODE",
        "/usr/share/OVMF/OVMF_CODE_4M.fd",
        "b157d97b1f69729514feb7f201d2cbe4957f23ab77920e361fe9f822ba49ca4c",
    );
    let kernel = recorded(
        "INWIT_KERNEL",
        concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../target/world/kernel/6.12.117+deb12-cloud-amd64/boot/vmlinuz-6.12.117+deb12-cloud-amd64"
        ),
        "b9ea6660d2abac0b2d65aaf11d07cb9d9012b4beb1287d6eb539fccecd1aebd2",
    );
    let (Some(firmware), Some(kernel)) = (code, kernel) else { return };
    let initrd: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let constant = "3d458cfe55cc03ea1f443f1562beec8df51c75e14a9fcf9a7234a13f198e7969";
    for (append, memory_mib, pei_volume, zero, four, nine) in [
        (
            "console=ttyS0 panic=-1",
            512,
            "f4f0c52697278027731926901650c9eccd0e4181d6b63339c07552c2c969915d",
            "177e29c417b6b61c7cf46ed30b4468931f58642527a268b556254e39b941ec6a",
            "c3f142de2c29af4e32d7d930ef05b98694adaa85ae69fa308e6ba3b960bec5d5",
            "d658ed98ce03aa5d6667102ba888ccbc78dda1d055db5546e4b80f691ebddad3",
        ),
        (
            "",
            1024,
            "1b5f687967cdecbff633092cc7a5987755197401d8978a9300802fa2bd36b2c3",
            "3e695b1035f9b7fa5ade7430fc93730efab93bcb6c0a843cdab260323f7734c4",
            "847ceb946adabb1b130c51e4178e96740f072e1409707f5981285e5950ecc344",
            "a47d383a89956103505d7b5635e3405f54a75a4f6d20f7089f026e9f7d62e39a",
        ),
    ] {
        let boot = earlier(&kernel, &initrd, append, memory_mib);
        let pei_volume = pei_volume.parse().unwrap();
        let (start, ima) = (Start::Direct(boot), Ima::Sig);
        let boot = MeasuredBoot { firmware: &firmware, pei_volume, start, ima, agent: None };
        let pcrs = predict(&boot).unwrap().pcrs();
        let expected = [
            zero,
            "8e9d1fe23131f12d6a523e9c32eb3223d4dc25e14eb5fd60163e7ba8de0f248c",
            constant,
            constant,
            four,
            "a5ceb755d043f32431d63e39f5161464620a3437280494b5850dc1b47cc074e0",
            constant,
            "65caf8dd1e0ea7a6347b635d2b379c93b9a1351edc2afc3ecda700e534eb3068",
            "0000000000000000000000000000000000000000000000000000000000000000",
            nine,
        ];
        assert_eq!(pcrs.values().take(10).map(Digest::to_string).collect::<Vec<_>>(), expected);
    }
}

/// Every event of every log has words; and of so many the log itself proves the digest. The rest are hashes of firmware
/// volumes, ACPI and memory tables, images, files and sections, which no log holds.
#[test]
fn real_logs_are_told_in_words_and_prove_what_they_can() {
    let mut counted = (0, 0);
    for (log, proved) in [
        ("google+go-eventlog/CCEL_unpadded.data.bin", 12),
        ("google+go-eventlog/cos-113-intel-tdx.bin.gz", 31),
        ("google+go-tdx-guest/cos-113/ccel_data.trimmed.bin", 31),
        ("confidential-dot-ai+attestation-rs/tdx-live/ccel-match.bin", 12),
        ("confidential-dot-ai+attestation-rs/tdx-live/ccel-mismatch-rtmr2.bin", 12),
        ("confidential-containers+trustee/eventlog/CCEL_data.gz", 2),
        ("confidential-containers+trustee/eventlog/CCEL_data_gcp.gz", 14),
        ("confidential-containers+trustee/eventlog/CCEL_data_grub", 19),
        ("confidential-containers+trustee/eventlog/CCEL_data_grub_gke.gz", 20),
        ("confidential-containers+trustee/eventlog/CCEL_data_ovmf", 12),
        ("confidential-containers+trustee/eventlog/CCEL_AAEL_alibabacloud", 74),
    ] {
        let Some(bytes) = vector(log) else { continue };
        let events = EventLog::parse(&bytes).unwrap().events;
        let described: Vec<_> = events.iter().map(describe).collect();
        assert!(described.iter().all(|event| !event.words.is_empty() && !event.words.chars().any(char::is_control)));
        let data = described.iter().filter(|event| event.proof == Proof::Data).count();
        assert_eq!(data, proved, "{log}");
        counted = (counted.0 + data, counted.1 + described.len());
    }
    let _ = writeln!(
        std::io::stderr(),
        "event logs: {} of {} digests are proved by the data beside them",
        counted.0,
        counted.1
    );
}

/// The names of a unified kernel image's sections, as a real TD measured them.
#[test]
fn section_names_are_measured_as_predicted() {
    let Some(bytes) = vector("confidential-containers+trustee/eventlog/CCEL_data_grub_gke.gz") else { return };
    let events = EventLog::parse(&bytes).unwrap().events;
    let sections: Vec<_> = events.iter().filter(|event| event.event_type == 0xd && event.index == 3).collect();
    let names = [".linux", ".osrel", ".cmdline", ".initrd", ".uname", ".sbat"];
    assert_eq!(sections.len(), names.len() * 2, "each section: its name, then its contents");
    for (pair, name) in sections.chunks(2).zip(names) {
        let data: Vec<u8> = name.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
        assert_eq!((pair[0].data, pair[1].data), (data.as_slice(), data.as_slice()));
        let digest = Digest::from_bytes(pair[0].digest::<48>(0x000c).unwrap());
        assert_eq!(digest, sha384(&[name.as_bytes(), &[0]].concat()));
    }
}

/// The partition tables that real TDs measured, from a disk that has them.
#[test]
fn partition_tables_are_measured_as_real_firmware_does() {
    for log in [
        "google+go-eventlog/cos-113-intel-tdx.bin.gz",
        "confidential-containers+trustee/eventlog/CCEL_data_gcp.gz",
        "confidential-containers+trustee/eventlog/CCEL_data_grub",
        "confidential-containers+trustee/eventlog/CCEL_AAEL_alibabacloud",
    ] {
        let Some(bytes) = vector(log) else { continue };
        let events = EventLog::parse(&bytes).unwrap().events;
        let table = events.iter().find(|event| event.event_type == 0x8000_0006).unwrap();
        // The header's sector, then the entries where it says, with unused ones between them.
        let mut disk = vec![0; 512];
        disk.extend(&table.data[..92]);
        let place = u64::from_le_bytes(table.data[72..80].try_into().unwrap()) as usize * 512;
        disk.resize(place, 0);
        for entry in table.data[100..].chunks(128) {
            disk.extend([entry, &[0; 128]].concat());
        }
        disk.resize(1 << 20, 0);
        let measured = gpt_event(&disk).unwrap();
        assert_eq!(measured, table.data, "{log}");
        assert_eq!(sha384(&measured).as_bytes(), &table.digest::<48>(0x000c).unwrap());
    }
}

/// Unified kernel images that real TDs started from a disk: RTMR0 is recorded with its boot variables and keys, and RTMR1
/// has the events that are predicted.
#[test]
fn real_boots_of_unified_images_have_the_predicted_shape() {
    for log in [
        "confidential-containers+trustee/eventlog/CCEL_data_gcp.gz",
        "confidential-containers+trustee/eventlog/CCEL_data_grub_gke.gz",
    ] {
        let Some(bytes) = vector(log) else { continue };
        let (replay, machine) = (replay_ccel(&bytes).unwrap(), MachineEvents::record(&bytes).unwrap());
        let cfv = replay.events.iter().find(|event| event.event_type == 0x8000_000a).unwrap().digest(0x000c).unwrap();
        let events = rtmr0_events(Digest::from_bytes(cfv), &machine);
        assert_eq!(extend_register(&events).as_bytes(), &replay.rtmrs[0]);
        let boot: Vec<_> = machine.boot.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(boot, ["BootOrder", "Boot0001", "Boot0000"]);
        assert!(!machine.secure_boot.pk.is_empty() && machine.secure_boot.enabled == Some(0));
        // Action, separator, partition table, the image, the kernel inside it, two actions.
        let types: Vec<_> =
            replay.events.iter().filter(|event| event.index == 2).map(|event| event.event_type).collect();
        let [action, image] = [0x8000_0007, 0x8000_0003];
        assert_eq!(types, [action, 4, 0x8000_0006, image, image, action, action]);
    }
}
