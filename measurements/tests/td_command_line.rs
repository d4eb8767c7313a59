//! `inwit-measure tdx` and `inwit-measure log` as their users meet them. Works on small made-up images and logs.

use std::path::PathBuf;
use std::process::{Command, Output};

use inwit_measurements::eventlog::encode_ccel;
use inwit_measurements::reference::{Measured, ReferenceValues};
use inwit_measurements::tdx::{
    Event, MachineEvents, SecureBoot, SecureBootVariables, Separators, cfv_digest, rtmr0_events, td_hob,
};
use inwit_measurements::{Digest, ovmf::Firmware, sha384};
use serde_json::Value;

/// A folder of its own for each test, removed when it ends.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("inwit-measure-td-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        let folder = Self(path);
        folder.write("OVMF.fd", &firmware());
        folder.write("kernel", &kernel());
        folder.write("ccel", &log());
        folder
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.0.join(name), bytes).unwrap();
    }

    fn run(&self, arguments: &str) -> Output {
        let program = env!("CARGO_BIN_EXE_inwit-measure");
        Command::new(program).current_dir(&self.0).args(arguments.split(' ')).output().unwrap()
    }

    fn succeed(&self, arguments: &str) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn refuse(&self, arguments: &str, code: i32) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(output.stdout.is_empty(), "nothing that could be taken for a value");
        String::from_utf8(output.stderr).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Code as builds have it: a volume with a file, whose compressed section holds a volume for each phase. The second
/// volume's text stands for drivers.
fn code(dxe: &[u8]) -> Vec<u8> {
    let section = |kind: u8, body: &[u8]| {
        let size = (body.len() as u32 + 4).to_le_bytes();
        let mut section = [&size[..3], &[kind], body].concat();
        section.resize(section.len().next_multiple_of(4), 0);
        section
    };
    let inner = [section(0x17, b"\0TdxTable\0"), section(0x17, &[&[0; 64], dxe].concat())].concat();
    let mut packed = Vec::new();
    lzma_rs::lzma_compress(&mut inner.as_slice(), &mut packed).unwrap();
    let kind = [&stored("ee4e5898391442599d6edc7bd79403cf")[..], &[24, 0, 1, 0]].concat();
    let body = section(2, &[kind, packed].concat());
    let mut file = vec![0; 24];
    file[18] = 0x0b;
    file[20..23].copy_from_slice(&(body.len() as u32 + 24).to_le_bytes()[..3]);
    file.extend(body);
    let mut volume = vec![0; 72];
    volume[16..32].copy_from_slice(&stored("8c8ce5788a3d4f1c9935896185c32dd3"));
    volume[32..40].copy_from_slice(&0x1000u64.to_le_bytes());
    volume[40..44].copy_from_slice(b"_FVH");
    volume[48] = 72;
    volume.extend(file);
    volume.resize(0x1000, 0xff);
    volume
}

/// A GUID as it is stored.
fn stored(guid: &str) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..16).map(|at| u8::from_str_radix(&guid[at * 2..at * 2 + 2], 16).unwrap()).collect();
    bytes[..4].reverse();
    bytes[4..6].reverse();
    bytes[6..8].reverse();
    bytes
}

/// What drivers of a build that measures have in them: an event, a variable, a format.
const DRIVERS: &[u8] = b"ACPI DATA\0S\0e\0c\0u\0r\0e\0B\0o\0o\0t\0E\0n\0a\0b\0l\0e\0\0";
/// How firmware adds the option for the ramdisk, of earlier and of later releases.
const EARLIER: &[u8] = b"\0 initrd=initrd\0";
const LATER: &[u8] = b"\0initrd=initrd \0etc/boot/\0";

fn firmware() -> Vec<u8> {
    firmware_of(&[DRIVERS, EARLIER].concat())
}

/// Pages with TDVF metadata at their end: a boot volume, a configuration volume and a TD HOB.
fn firmware_of(dxe: &[u8]) -> Vec<u8> {
    let mut metadata = stored("e9eaf9f3168e44d5a8eb7f4d8738f6ae");
    metadata.extend(b"TDVF");
    metadata.extend([112u32, 1, 3].map(u32::to_le_bytes).concat());
    for (raw, address, size, kind, attributes) in [
        (0x3000u32, 0xffff_d000u64, 0x3000u64, 0u32, 1u32),
        (0x10, 0xfffe_0000, 0x1000, 1, 0),
        (0, 0x80_9000, 0x1000, 2, 0),
    ] {
        metadata.extend([0, raw].map(u32::to_le_bytes).concat());
        metadata.extend([address, size].map(u64::to_le_bytes).concat());
        metadata.extend([kind, attributes].map(u32::to_le_bytes).concat());
    }
    let mut image = [vec![0; 0x1000], code(dxe), vec![0; 0x1000]].concat();
    image[0x3000 - 0x210..][..metadata.len()].copy_from_slice(&metadata);
    let offset = [&0x200u32.to_le_bytes()[..], &[22, 0], &stored("e47a6535984a4798865e4685a7bf8ec2")].concat();
    let table = [offset.as_slice(), &[40, 0], &stored("96b582de1fb245f7baeaa366c55a082d")].concat();
    image[0x3000 - 0x20 - table.len()..0x3000 - 0x20].copy_from_slice(&table);
    image
}

/// The smallest image with an Authenticode digest and a setup header that QEMU fills in.
fn kernel() -> Vec<u8> {
    let mut image = vec![0; 0x400];
    image[..2].copy_from_slice(b"MZ");
    image[0x3c] = 0x40;
    image[0x40..0x44].copy_from_slice(b"PE\0\0");
    image[0x58..0x5a].copy_from_slice(&0x20bu16.to_le_bytes());
    image[0x58 + 60..0x58 + 64].copy_from_slice(&0x200u32.to_le_bytes());
    image[0x1f1] = 1;
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&0x20fu16.to_le_bytes());
    image[0x22c..0x230].copy_from_slice(&0x7fff_ffffu32.to_le_bytes());
    image[0x20e] = 0x80;
    image[0x280..0x286].copy_from_slice(b"6.12.0");
    image
}

fn machine() -> MachineEvents {
    let image = firmware();
    MachineEvents {
        td_hob: sha384(&td_hob(&Firmware::parse(&image).unwrap(), 512).unwrap()),
        fw_cfg: Vec::new(),
        secure_boot: SecureBootVariables::without_keys(SecureBoot::Off),
        acpi: vec![sha384(b"loader")],
        authorities: Vec::new(),
        smbios: None,
        boot: vec![("BootOrder".to_owned(), vec![0, 0]), ("Boot0000".to_owned(), b"option".to_vec())],
        separators: Separators::Rtmr0AndRtmr1,
    }
}

/// RTMR0 of a trusted boot, and an action in RTMR1.
fn log() -> Vec<u8> {
    let mut events = rtmr0_events(cfv_digest(&firmware()).unwrap(), &machine());
    let data = b"Exit Boot Services Invocation".to_vec();
    let (digest, description) = (sha384(&data), String::new());
    events.push(Event { index: 2, event_type: 0x8000_0007, digest, data, description });
    encode_ccel(&events)
}

const TDX: &str = "tdx --ovmf OVMF.fd --kernel kernel --append quiet --memory 512";

fn value<'a>(text: &'a str, name: &str) -> &'a str {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap_or_else(|| panic!("{name}: {text}"))
}

#[test]
fn without_tables_or_a_log_rtmr0_is_left_out() {
    let folder = Folder::new("parts");
    let text = folder.succeed(TDX);
    assert!(!text.contains("rtmr0"), "{text}");
    let both = folder.succeed(&format!("{TDX} --pass both"));
    assert_eq!(value(&both, "mrtd_single"), value(&text, "mrtd"));
    assert_ne!(value(&both, "mrtd_two_pass"), value(&text, "mrtd"));
    assert_eq!(value(&folder.succeed(&format!("{TDX} --qemu 8.2")), "mrtd"), value(&both, "mrtd_two_pass"));
}

#[test]
fn the_version_of_qemu_decides_what_becomes_of_the_kernel() {
    let folder = Folder::new("qemu");
    let rtmr1 = |options: &str| value(&folder.succeed(&format!("{TDX}{options}")), "rtmr1").to_owned();
    assert_eq!(rtmr1(""), rtmr1(" --qemu 11.0.1"), "the default that the help states");
    assert_ne!(rtmr1(" --qemu 10.1"), rtmr1(" --qemu 10.2"));
    folder.write("OVMF.fd", &firmware_of(&[DRIVERS, LATER].concat()));
    assert_eq!(rtmr1(" --qemu 10.1"), rtmr1(" --qemu 10.2"), "this firmware asks for the file as built");
    assert_ne!(rtmr1(" --qemu 9.2"), rtmr1(" --qemu 10.0"), "which earlier versions do not offer");
    assert_ne!(rtmr1(" --separator rtmr0"), rtmr1(""));
}

#[test]
fn the_firmware_decides_where_the_ramdisk_is_asked_for() {
    let folder = Folder::new("order");
    folder.write("initrd", b"ramdisk");
    let command = format!("{TDX} --initrd initrd --events");
    let line = |format: &[u8]| {
        folder.write("OVMF.fd", &firmware_of(&[DRIVERS, format].concat()));
        let text = folder.succeed(&command);
        text.lines().find(|line| line.contains(" command line [")).unwrap().to_owned()
    };
    for (format, booted, source) in [
        (EARLIER, "quiet initrd=initrd\0", "[--append before ` initrd=initrd`, by --ovmf]"),
        (LATER, "initrd=initrd quiet\0", "[--append after `initrd=initrd `, by --ovmf]"),
    ] {
        let options: Vec<u8> = booted.encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(line(format), format!("rtmr2 {} command line {source}", sha384(&options)));
    }
    for (format, found) in [(&b"\0"[..], "neither"), (&[EARLIER, LATER].concat(), "both")] {
        folder.write("OVMF.fd", &firmware_of(&[DRIVERS, format].concat()));
        assert!(folder.refuse(&command, 3).contains(found));
    }
}

#[test]
fn what_leaves_registers_at_zero_is_refused() {
    let folder = Folder::new("zero");
    for command in [TDX.to_owned(), format!("{TDX} --machine-log ccel")] {
        folder.write("OVMF.fd", &firmware_of(EARLIER));
        assert!(folder.refuse(&command, 3).contains("measures nothing"), "{command}");
        let mut damaged = firmware();
        damaged[0x1000 + 120..][..4].fill(0xff);
        folder.write("OVMF.fd", &damaged);
        assert!(folder.refuse(&command, 3).contains("cannot be unpacked"), "{command}");
    }
    folder.write("OVMF.fd", &firmware());
    let mut old = kernel();
    old[0x280..0x286].copy_from_slice(b"6.8.12");
    folder.write("kernel", &old);
    assert!(folder.refuse(TDX, 3).contains("Linux 6.8 does not measure"));
}

#[test]
fn a_log_of_another_firmware_is_refused() {
    let folder = Folder::new("another");
    let command = format!("{TDX} --machine-log ccel");
    let mut other = firmware();
    other[0] = 7;
    folder.write("OVMF.fd", &other);
    assert!(folder.refuse(&command, 3).contains("its configuration volume has the digest"));
    folder.write("OVMF.fd", &firmware_of(&[DRIVERS, EARLIER, b"\0QEMU FW CFG\0"].concat()));
    assert!(folder.refuse(&command, 3).contains("it has no configuration items"));
}

#[test]
fn a_recorded_machine_says_what_it_is_explained_by() {
    let folder = Folder::new("recorded");
    let with_log = format!("{TDX} --machine-log ccel --events");
    let text = folder.succeed(&with_log);
    let expected =
        inwit_measurements::tdx::extend_register(&rtmr0_events(cfv_digest(&firmware()).unwrap(), &machine()));
    assert_eq!(value(&text, "rtmr0"), expected.to_string());
    assert!(text.contains("TD HOB: the memory map [--machine-log, equal to --memory and --ovmf]"), "{text}");
    assert!(text.contains("ACPI loader script [--machine-log]"), "{text}");
    assert!(text.contains("variable Boot0000 [--machine-log, whose data give this digest]"), "{text}");
    assert!(text.contains("command line [--append]"), "{text}");
    let other = folder.refuse(&with_log.replace("512", "1024"), 3);
    assert!(other.contains("its TD HOB is not the one of 1024 MiB"), "{other}");
    let json: Value = serde_json::from_str(&folder.succeed(&format!("{with_log} --json"))).unwrap();
    assert_eq!(json["rtmr0"].as_str(), Some(value(&text, "rtmr0")));
    let events = json["events"].as_array().unwrap();
    assert_eq!(events.len(), text.lines().filter(|line| line.ends_with(']')).count());
    assert_eq!(events[0]["register"].as_str(), Some("rtmr0"));
    assert_eq!(events[0]["digest"].as_str(), Some(machine().td_hob.to_string().as_str()));
}

#[test]
fn a_recorded_machine_makes_reference_values() {
    let folder = Folder::new("values");
    folder.write("agent", b"agent");
    folder.write("config", b"config");
    let mut archive = Vec::new();
    for (name, contents) in [("init", &b"agent"[..]), ("conf", b"config"), ("TRAILER!!!", b"")] {
        let numbers = [1, 0o100_755, 0, 0, 1, 0, contents.len(), 0, 0, 0, 0, name.len() + 1, 0];
        archive.extend(b"070701");
        archive.extend(numbers.iter().flat_map(|number| format!("{number:08x}").into_bytes()));
        archive.extend([name.as_bytes(), b"\0"].concat());
        archive.resize(archive.len().next_multiple_of(4), 0);
        archive.extend(contents);
        archive.resize(archive.len().next_multiple_of(4), 0);
    }
    folder.write("initrd", &archive);
    let named = "--initrd initrd --agent agent --config config --name payments";
    let toml = folder.succeed(&format!("{TDX} {named} --machine-log ccel --vcpus 99 --qemu 10.1"));
    let values = ReferenceValues::from_toml(&toml).unwrap();
    let Measured::Tdx { rtmr0, .. } = values.measured else { panic!("{toml}") };
    assert_ne!(rtmr0, Digest::from_bytes([0; 48]));
    let record = values.made_from.unwrap();
    assert_eq!((record.machine.memory_mib, record.machine.vcpus), (Some(512), None), "no log tells the vCPUs");
    assert!(toml.contains("qemu = \"10.1\"") && toml.contains("kernel_header = \"filled-in\""), "{toml}");
    assert!(toml.contains("ramdisk_option = \"after-command-line\""), "{toml}");
    assert!(record.events.iter().any(|event| event.register == "rtmr0" && event.measures.starts_with("TD HOB")));
    assert!(folder.refuse(&format!("{TDX} {named}"), 3).contains("--acpi-tables"));
    assert!(folder.refuse(&format!("{TDX} {named} --machine-log ccel --pass both"), 3).contains("--pass both"));
}

#[test]
fn unfit_inputs_are_named() {
    let folder = Folder::new("refused");
    folder.write("noise", &[7; 4096]);
    assert!(folder.refuse(&format!("{TDX} --machine-log noise"), 3).contains("not a crypto-agile event log"));
    assert!(folder.refuse(&format!("{TDX} --acpi-tables noise"), 3).contains("ACPI table at offset 0x0"));
    assert!(folder.refuse("tdx --ovmf OVMF.fd --uki kernel --memory 512", 3).contains("unified kernel image"));
    assert!(
        folder.refuse("tdx --ovmf OVMF.fd --uki kernel --disk noise --memory 512", 3).contains("no GUID partition")
    );
    for usage in [
        "tdx --ovmf OVMF.fd --memory 512",
        "tdx --ovmf OVMF.fd --kernel kernel --uki kernel --memory 512",
        "tdx --ovmf OVMF.fd --kernel kernel",
        "tdx --ovmf OVMF.fd --uki kernel --append quiet --memory 512",
        "tdx --ovmf OVMF.fd --kernel kernel --memory 512 --qemu ten",
        "tdx --ovmf OVMF.fd --kernel kernel --memory 512 --acpi-rsdp noise",
        "tdx --ovmf OVMF.fd --kernel kernel --memory 512 --machine-log ccel --acpi-tables noise",
        "tdx --ovmf OVMF.fd --kernel kernel --memory 512 --machine-log ccel --separator rtmr0",
        "tdx --ovmf OVMF.fd --kernel kernel --disk kernel --memory 512",
    ] {
        folder.refuse(usage, 2);
    }
}

/// A quote of version 4, or 5 whose body begins six bytes later, with these registers.
fn quote(version: u8, rtmrs: [Digest<48>; 2]) -> Vec<u8> {
    let start = if version == 5 { 54 } else { 48 };
    let mut quote = vec![0; 1200];
    quote[0] = version;
    quote[2] = 2;
    quote[4] = 0x81;
    if version == 5 {
        quote[48] = 2;
    }
    for (number, rtmr) in rtmrs.iter().enumerate() {
        quote[start + 328 + number * 48..][..48].copy_from_slice(rtmr.as_bytes());
    }
    quote
}

#[test]
fn a_log_is_told_and_compared_with_what_was_reported() {
    let folder = Folder::new("log");
    let text = folder.succeed("log ccel");
    assert!(text.contains("rtmr0  claimed  EV_EFI_HANDOFF_TABLES2 without data"), "{text}");
    assert!(text.contains("rtmr1  proved   action: Exit Boot Services Invocation"), "{text}");
    let [rtmr0, rtmr1] = ["rtmr0", "rtmr1"].map(|name| value(&text, name).parse::<Digest<48>>().unwrap());
    for version in [4, 5] {
        folder.write("quote", &quote(version, [rtmr0, rtmr1]));
        let same = folder.succeed("log ccel --quote quote");
        assert_eq!(same.lines().filter(|line| line.ends_with(" matches")).count(), 2);
    }
    folder.write("quote", &quote(4, [rtmr0, rtmr0]));
    let differs = folder.run("log ccel --quote quote");
    assert_eq!(differs.status.code(), Some(3));
    let differs = String::from_utf8(differs.stdout).unwrap();
    assert!(
        value(&differs, "rtmr0").ends_with(" matches") && value(&differs, "rtmr1").contains("DIFFERS"),
        "{differs}"
    );
    folder.write("registers", format!("rtmr0 {rtmr0}\nrtmr1 {rtmr0}\n").as_bytes());
    let json = folder.run("log ccel --registers registers --json");
    assert_eq!(json.status.code(), Some(3));
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["registers"]["rtmr0"]["matches"].as_bool(), Some(true));
    assert_eq!(json["registers"]["rtmr1"]["matches"].as_bool(), Some(false));
    assert_eq!(json["events"][0]["type"].as_str(), Some("EV_EFI_HANDOFF_TABLES2"));
    assert_eq!(json["events"].as_array().unwrap().len(), rtmr0_events(rtmr0, &machine()).len() + 1);
}

#[test]
fn a_log_that_lies_or_is_none_is_refused() {
    let folder = Folder::new("lies");
    let mut changed = log();
    let last = changed.len() - 1;
    changed[last] ^= 1;
    folder.write("changed", &changed);
    assert!(folder.refuse("log changed", 3).contains("other data than what was measured"));
    folder.write("short", &log()[..last]);
    assert!(folder.refuse("log short", 3).contains("cut short"));
    assert!(folder.refuse("log kernel", 3).contains("not a crypto-agile event log"));
    folder.write("pcrs", format!("pcr4 {}\n", "0".repeat(64)).as_bytes());
    assert!(folder.refuse("log ccel --quote pcrs", 3).contains("no register in common"));
    folder.refuse("log", 2);
}

/// A log of one bank; events as register, digest.
fn log_of(bank: (u16, u16), events: &[(u32, &[u8])]) -> Vec<u8> {
    let spec = [b"Spec ID Event03\0".as_slice(), &[0, 0, 0, 0, 0, 2, 0, 2, 1, 0, 0, 0]].concat();
    let spec = [spec, [bank.0.to_le_bytes(), bank.1.to_le_bytes()].concat(), vec![0]].concat();
    let mut log = [&[0, 0, 0, 0, 3, 0, 0, 0][..], &[0; 20], &u32::try_from(spec.len()).unwrap().to_le_bytes()].concat();
    log.extend(spec);
    for (register, digest) in events {
        log.extend([*register, 6, 1].map(u32::to_le_bytes).concat());
        log.extend([&bank.0.to_le_bytes()[..], digest, &[0; 4]].concat());
    }
    log
}

#[test]
fn a_register_without_events_is_not_explained() {
    let folder = Folder::new("unexplained");
    let text = folder.succeed("log ccel");
    let [rtmr0, rtmr1] = ["rtmr0", "rtmr1"].map(|name| value(&text, name).to_owned());
    let reported = |rtmr2: &str, rtmr3: &str| {
        let (two, three) = (rtmr2.repeat(48), rtmr3.repeat(48));
        folder.write("regs", format!("rtmr0 {rtmr0}\nrtmr1 {rtmr1}\nrtmr2 {two}\nrtmr3 {three}\n").as_bytes());
    };
    reported("00", "ab");
    let apart = folder.succeed("log ccel --quote regs");
    assert!(value(&apart, "rtmr3").contains("not compared: the running system"), "{apart}");
    assert!(!apart.contains("rtmr2"), "nothing extended it: {apart}");
    reported("cd", "00");
    let missing = folder.run("log ccel --quote regs");
    assert_eq!(missing.status.code(), Some(3));
    let missing = String::from_utf8(missing.stdout).unwrap();
    assert!(value(&missing, "rtmr2").contains("NOT EXPLAINED by this log") && !missing.contains("rtmr3"), "{missing}");
    let json: Value = serde_json::from_slice(&folder.run("log ccel --quote regs --json").stdout).unwrap();
    assert_eq!(json["registers"]["rtmr2"]["matches"].as_bool(), Some(false));
    assert_eq!(json["registers"]["rtmr0"]["matches"].as_bool(), Some(true));
}

#[test]
fn pcrs_without_events_are_not_explained() {
    let folder = Folder::new("pcrs");
    folder.write("tpm", &log_of((0x0b, 32), &[(7, &[7; 32])]));
    let seven = value(&folder.succeed("log tpm"), "pcr7").to_owned();
    let reported = |others: &[(u8, &str)]| {
        let others = others.iter().map(|(pcr, byte)| format!("pcr{pcr} {}\n", byte.repeat(32)));
        folder.write("regs", format!("pcr7 {seven}\n{}", others.collect::<String>()).as_bytes());
        folder.run("log tpm --quote regs")
    };
    let good = reported(&[(4, "00"), (10, "aa"), (15, "bb"), (16, "cc"), (17, "ff"), (23, "dd")]);
    assert_eq!(good.status.code(), Some(0));
    assert_eq!(String::from_utf8(good.stdout).unwrap().matches("not compared: the running system").count(), 4);
    for (pcr, byte) in [(0, "01"), (4, "ab"), (9, "ff"), (11, "ab"), (14, "ab"), (17, "00")] {
        let output = reported(&[(pcr, byte)]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(3), "pcr{pcr}: {text}");
        assert!(value(&text, &format!("pcr{pcr}")).contains("NOT EXPLAINED"), "{text}");
    }
}

#[test]
fn a_log_without_sha_256_may_be_of_either_kind() {
    let folder = Folder::new("banks");
    folder.write("sha384", &log_of((0x0c, 48), &[(7, &[7; 48])]));
    let cause = folder.refuse("log sha384", 3);
    for words in ["no SHA-256 bank. If it is a TPM's", "CC event log of a TD: event 0 extends register 7"] {
        assert!(cause.contains(words), "{cause}");
    }
}
