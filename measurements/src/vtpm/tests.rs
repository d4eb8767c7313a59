//! Which change moves which PCR, and what is refused rather than predicted, on made-up firmware and kernels. Asks no TPM.

use super::*;
use crate::eventlog::{header, record};
use crate::linux::{DirectKernel, KernelHeader, RamdiskOption, sample_boot, sample_kernel};
use crate::uefi::event_type::{PLATFORM_FIRMWARE_BLOB2, S_CRTM_VERSION, SEPARATOR as SEPARATOR_EVENT};
use crate::uki::sample::{NAMES_252, NAMES_262, image, stub};
use crate::volume;

type Pcrs = BTreeMap<u8, Digest<32>>;

fn predicted(start: Start<'_>, pei: &[u8]) -> Result<Prediction, PredictError> {
    let firmware = volume::sample::image(b"pei on flash", b"dxe");
    predict(&MeasuredBoot { firmware: &firmware, pei_volume: sha256(pei), start, ima: Ima::Absent, agent: None })
}

fn direct(initrd: &[u8], append: &str, memory_mib: u32, pei: &[u8]) -> Pcrs {
    let kernel = sample_kernel();
    predicted(Start::Direct(sample_boot(&kernel, initrd, append, memory_mib)), pei).unwrap().pcrs()
}

fn unified(payload: &[(&'static str, &[u8])]) -> Result<Prediction, PredictError> {
    let mut sections = stub("252.39", NAMES_252);
    sections.extend(payload.iter().map(|(name, bytes)| (*name, bytes.to_vec())));
    predicted(Start::Unified { image: &image(&sections), profile: None }, b"pei")
}

fn changed(a: &Pcrs, b: &Pcrs) -> Vec<u8> {
    a.iter().filter(|(index, value)| b[index] != **value).map(|(index, _)| *index).collect()
}

#[test]
fn each_change_moves_exactly_its_registers() {
    let base = direct(b"initrd", "quiet", 512, b"pei");
    assert_eq!(base.keys().copied().collect::<Vec<_>>(), (0..=15).collect::<Vec<_>>());
    assert_eq!(changed(&base, &direct(b"initrx", "quiet", 512, b"pei")), [9]);
    assert_eq!(changed(&base, &direct(b"initrd!", "quiet", 512, b"pei")), [4, 9], "another size is patched in");
    assert_eq!(changed(&base, &direct(b"initrd", "quiet ", 512, b"pei")), [9]);
    assert_eq!(changed(&base, &direct(b"initrd", "quiet", 1024, b"pei")), [4]);
    assert_eq!(changed(&base, &direct(b"initrd", "quiet", 512, b"PEI")), [0]);
}

#[test]
fn the_firmware_and_qemu_move_the_registers_of_kernel_and_command_line() {
    let kernel = sample_kernel();
    let earlier = sample_boot(&kernel, b"initrd", "quiet", 512);
    let pcrs = |boot| predicted(Start::Direct(boot), b"pei").unwrap().pcrs();
    let base = pcrs(earlier);
    let before = DirectKernel { ramdisk_option: RamdiskOption::BeforeCommandLine, ..earlier };
    let built = DirectKernel { header: KernelHeader::AsBuilt, ..earlier };
    assert_eq!((changed(&base, &pcrs(before)), changed(&base, &pcrs(built))), (vec![9], vec![4]));
    assert_eq!(pcrs(built)[&4], pcrs(DirectKernel { memory_mib: 1024, ..built })[&4]);
}

#[test]
fn constant_registers_have_the_values_read_in_a_guest() {
    let pcrs = direct(b"initrd", "quiet", 512, b"pei");
    let separator = "3d458cfe55cc03ea1f443f1562beec8df51c75e14a9fcf9a7234a13f198e7969";
    assert_eq!([2, 3, 6].map(|index| pcrs[&index].to_string()), [separator; 3]);
    assert_eq!([8, 10, 11, 12, 13, 14, 15].map(|index| pcrs[&index]), [Digest::from_bytes([0; 32]); 7]);
}

#[test]
fn without_ramdisk_and_command_line_the_stub_measures_nothing() {
    assert_eq!(direct(b"", "", 512, b"pei")[&9], Digest::from_bytes([0; 32]));
}

#[test]
fn a_unified_image_moves_the_register_of_each_use() {
    let (kernel, mut other) = (sample_kernel(), sample_kernel());
    other[0x3f0] = 1; // behind the sections, where it is measured and means nothing
    let pcrs = |kernel: &[u8], initrd: &[u8], cmdline: &[u8], osrel: &[u8]| {
        let parts = [(".osrel", osrel), (".cmdline", cmdline), (".initrd", initrd), (".linux", kernel)];
        unified(&parts).unwrap().pcrs()
    };
    let base = pcrs(&kernel, b"initrd", b"quiet", b"ID=x");
    assert_eq!(changed(&base, &pcrs(&other, b"initrd", b"quiet", b"ID=x")), [4, 11]);
    assert_eq!(changed(&base, &pcrs(&kernel, b"initrx", b"quiet", b"ID=x")), [4, 9, 11]);
    assert_eq!(changed(&base, &pcrs(&kernel, b"initrd", b"quieT", b"ID=x")), [4, 9, 11]);
    assert_eq!(changed(&base, &pcrs(&kernel, b"initrd", b"quiet", b"ID=y")), [4, 11]);
    // No name is handed on by OVMF here, so nothing is added to the command line.
    let options: Vec<u8> = "quiet\0".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(base[&9], extend_all(&[sha256(&options), sha256(b"initrd")]));
}

#[test]
fn the_events_name_what_each_extend_is() {
    let kernel = sample_kernel();
    let prediction = unified(&[(".linux", &kernel), (".cmdline", b"quiet")]).unwrap();
    let of = |pcr| prediction.events.iter().filter(move |event| event.pcr == pcr).map(|event| event.what.as_str());
    assert_eq!(
        of(4).collect::<Vec<_>>(),
        [
            "unified kernel image, Authenticode",
            "Calling EFI Application from Boot Option",
            "separator",
            "kernel inside the image, Authenticode"
        ]
    );
    assert_eq!(of(9).collect::<Vec<_>>(), ["command line"]);
    assert_eq!(
        of(11).collect::<Vec<_>>(),
        [
            "name of section .linux",
            "contents of section .linux",
            "name of section .cmdline",
            "contents of section .cmdline"
        ]
    );
}

#[test]
fn a_unified_image_that_is_started_in_another_way_is_refused() {
    let kernel = sample_kernel();
    let linux: (&str, &[u8]) = (".linux", &kernel);
    assert_eq!(unified(&[linux, (".pcrpkey", b"key")]), Err(PredictError::AddsToRamdisk(".pcrpkey")));
    for text in [&b"quiet\n"[..], b" quiet", b"quiet\0", b"a=\xc3\xa4"] {
        assert_eq!(
            unified(&[linux, (".cmdline", text)]),
            Err(PredictError::Kernel(KernelError::UnifiedCommandLine)),
            "{text:?}"
        );
    }
    assert!(matches!(unified(&[(".linux", b"kernel")]), Err(PredictError::Kernel(KernelError::Pe(PeError::NotPe)))));
    let mut sections = stub("262.1-1", NAMES_262);
    sections.push((".linux", kernel.clone()));
    let newer = predicted(Start::Unified { image: &image(&sections), profile: None }, b"pei");
    assert_eq!(newer, Err(PredictError::StubRelease("262.1-1".into())));
}

#[test]
fn what_is_no_plain_kernel_or_changes_registers_is_refused() {
    let kernel = sample_kernel();
    let refused = |kernel: &[u8], append: &str| {
        predicted(Start::Direct(sample_boot(kernel, b"initrd", append, 512)), b"pei").unwrap_err()
    };
    let mut sections = stub("252.39", NAMES_252);
    sections.push((".linux", kernel.clone()));
    let unified_image = PredictError::Kernel(KernelError::UnifiedImage(".sdmagic"));
    assert!(unified_image.to_string().contains("give it as --uki"), "{unified_image}");
    assert_eq!(refused(&image(&sections), ""), unified_image);
    let other = crate::pe::sample::image(0x40);
    assert_eq!(refused(&other, ""), PredictError::Kernel(KernelError::NoSetupHeader));
    for word in ["ima_policy=", "noinitrd"] {
        let append = format!("quiet {word}");
        let word = PredictError::Kernel(KernelError::Word(word));
        assert_eq!(refused(&kernel, &append), word);
        assert_eq!(unified(&[(".linux", &kernel), (".cmdline", append.as_bytes())]), Err(word));
    }
}

#[test]
fn the_agent_and_the_integrity_record_have_their_registers() {
    let (kernel, firmware) = (sample_kernel(), volume::sample::image(b"pei on flash", b"dxe"));
    let boot = sample_boot(&kernel, b"initrd", "quiet", 512);
    let with = |ima, agent| {
        let start = Start::Direct(boot);
        predict(&MeasuredBoot { firmware: &firmware, pei_volume: sha256(b"pei"), start, ima, agent }).unwrap().pcrs()
    };
    let base = with(Ima::Absent, None);
    assert_eq!(changed(&base, &with(Ima::Absent, Some(sha256(b"agent")))), [AGENT_PCR]);
    assert_eq!(with(Ima::Absent, Some(sha256(b"agent")))[&15], extend_all(&[sha256(b"agent")]));
    let (sig, ng) = (with(Ima::Sig, None), with(Ima::Ng, None));
    assert_eq!((changed(&base, &sig), changed(&base, &ng)), (vec![10], vec![10]));
    let registers: Vec<u8> = (0..=9).flat_map(|pcr| *base[&pcr].as_bytes()).collect();
    let head =
        [[40, 0, 0, 0].as_slice(), b"sha256:\0", sha256(&registers).as_bytes().as_slice(), &[15, 0, 0, 0]].concat();
    let record = [&head, b"boot_aggregate\0".as_slice()].concat();
    assert_eq!(ng[&10], extend_all(&[sha256(&record)]));
    assert_eq!(sig[&10], extend_all(&[sha256(&[record, vec![0; 4]].concat())]));
}

#[test]
fn the_pei_volume_is_the_second_event_of_an_ovmf_boot() {
    let log = |events: &[(u32, &[u8])]| {
        let mut log = header(0, &[(ALG_SHA256, 32)]);
        for (kind, data) in events {
            record(&mut log, 0, *kind, &[(ALG_SHA256, sha256(data).as_bytes())], data);
        }
        log
    };
    let version = (S_CRTM_VERSION, CRTM_VERSION.as_slice());
    let blob = |name: &'static [u8]| (PLATFORM_FIRMWARE_BLOB2, name);
    let separator = (SEPARATOR_EVENT, SEPARATOR.as_slice());
    let sound = log(&[version, blob(b"pei"), blob(b"dxe"), separator]);
    assert_eq!(record_pei_volume(&sound), Ok(sha256(b"pei")));
    for other in [
        log(&[version, blob(b"pei"), separator]),
        log(&[blob(b"pei"), version, blob(b"dxe"), separator]),
        log(&[version, blob(b"pei"), blob(b"dxe"), blob(b"more")]),
    ] {
        assert_eq!(record_pei_volume(&other), Err(RecordError::NotOvmf));
    }
    assert!(matches!(record_pei_volume(b""), Err(RecordError::Log(_))));
}

#[test]
fn a_log_that_contradicts_the_prediction_is_refused() {
    let kernel = sample_kernel();
    let start = Start::Direct(sample_boot(&kernel, b"initrd", "quiet", 512));
    let prediction = predicted(start, b"pei").unwrap();
    // All that is predicted, with what `change` makes of it; every event of a type whose data is not looked at.
    let log = |locality: Option<u8>, change: &dyn Fn(&mut Vec<PcrEvent>)| {
        let mut events = prediction.events.clone();
        change(&mut events);
        let mut log = header(0, &[(ALG_SHA256, 32)]);
        if let Some(locality) = locality {
            record(
                &mut log,
                0,
                NO_ACTION,
                &[(ALG_SHA256, &[0; 32])],
                &[b"StartupLocality\0".as_slice(), &[locality]].concat(),
            );
        }
        for event in events {
            record(
                &mut log,
                u32::from(event.pcr),
                PLATFORM_FIRMWARE_BLOB2,
                &[(ALG_SHA256, event.digest.as_bytes())],
                b"",
            );
        }
        log
    };
    assert_eq!(check_recorded(&log(None, &|_| {}), &prediction), Ok(()));
    assert_eq!(check_recorded(&log(Some(0), &|_| {}), &prediction), Ok(()));
    let another_boot = log(None, &|events| events.retain(|event| ![4, 5, 9].contains(&event.pcr)));
    assert_eq!(check_recorded(&another_boot, &prediction), Ok(()), "what is booted may be another system");
    let register = |log: Vec<u8>| match check_recorded(&log, &prediction) {
        Err(RecordError::Contradicts { pcr, what }) => (pcr, what),
        other => panic!("{other:?}"),
    };
    assert_eq!(register(log(Some(3), &|_| {})).0, 0, "StartupLocality 3");
    for number in 0..prediction.events.len() {
        let pcr = prediction.events[number].pcr;
        if [4, 5, 9].contains(&pcr) {
            continue;
        }
        let (named, what) = register(log(None, &|events| events[number].digest = sha256(b"another")));
        assert_eq!((named, what), (pcr, format!("another value for the {}", prediction.events[number].what)));
        assert_eq!(register(log(None, &|events| drop(events.remove(number)))).0, pcr);
        assert_eq!(register(log(None, &|events| events.push(events[number].clone()))).0, pcr);
    }
}

#[test]
fn one_extend_is_the_hash_of_zeros_and_digest() {
    let digest = *sha256(b"agent").as_bytes();
    let expected = sha256(&[[0; 32], digest].concat());
    assert_eq!(pcr_after_one_extend(digest), *expected.as_bytes());
}
