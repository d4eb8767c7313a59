//! Deliberate single changes of real boots, each of which `explain` has to name: real firmware, a real kernel, an initrd as
//! `inwit-image` builds it. The table that is printed says what was named, how surely, in what time and after how many
//! tries. Nothing is booted: what a changed guest measures as is computed with the changed files.

use std::collections::BTreeMap;
use std::io::Write;
use std::num::NonZeroU16;
use std::time::Instant;

use inwit_image::{Manifest, UnifiedKernel, UnifiedParts};
use inwit_measurements::eventlog::encode_ccel;
use inwit_measurements::explain::explain;
use inwit_measurements::explain::{
    Actual, Candidate, Candidates, Certainty, Component, Explanation, Question, USUAL_BUDGET,
};
use inwit_measurements::linux::{DirectKernel, KernelHeader, RamdiskOption};
use inwit_measurements::made_from::{Hexadecimal, MachineShape, MadeFrom, Role};
use inwit_measurements::ovmf::Firmware;
use inwit_measurements::reference::{AgentReference, Measured, ReferenceValues, Stated};
use inwit_measurements::snp::{CpuSignature, DirectBoot, FirmwareLaunch, GuestFeatures, Vmm};
use inwit_measurements::tdx::{self, Event, MachineEvents, Pass, SecureBoot, SecureBootVariables, Separators};
use inwit_measurements::vtpm::{Ima, MeasuredBoot, Start, agent_event, predict};
use inwit_measurements::{Digest, sha256, sha384};
use inwit_tests::world::World;
use inwit_tests::world::firmware::{Launch, ovmf, uki_stub};
use inwit_tests::world::kernel::Kernel;
use inwit_tests::world::setup::{Step, ready_or_told};

const APPEND: &str = "console=ttyS0 panic=-1 quiet";
const AGENT: &[u8] = b"\x7fELF the agent, as it was released";
const CONFIGURATION: &[u8] = b"identifier = spiffe://demo.example/payments\n";
const OTHER_CONFIGURATION: &[u8] = b"identifier = spiffe://demo.example/billing\n";

/// Everything that is booted.
#[derive(Clone)]
struct Boot {
    firmware: Vec<u8>,
    kernel: Vec<u8>,
    initrd: Vec<u8>,
    append: String,
    vcpus: u16,
    cpu: &'static str,
    features: u64,
    vmm: Vmm,
    memory: u32,
    secure_boot: SecureBoot,
    acpi: &'static [u8],
    hashes: bool,
    /// Executable and configuration that the agent extends its register with.
    agent: (&'static [u8], &'static [u8]),
}

/// A boot option: attributes, length of the path, a name, the end of a path.
fn option() -> Vec<u8> {
    let name = "UiApp\0".encode_utf16().flat_map(u16::to_le_bytes);
    [9, 1, 0, 0, 4, 0].into_iter().chain(name).chain([0x7f, 0xff, 4, 0]).collect()
}

fn initrd(agent: &[u8], configuration: &[u8], notice: Option<&[u8]>) -> Vec<u8> {
    let manifest = Manifest::new()
        .directory("/etc", 0o755)
        .directory("/etc/inwit", 0o755)
        .directory("/sbin", 0o755)
        .file("/etc/inwit/guest.conf", 0o644, configuration)
        .file("/init", 0o755, agent)
        .file("/sbin/hello", 0o755, b"\x7fELF the workload");
    let manifest = notice.into_iter().fold(manifest, |manifest, text| manifest.file("/etc/motd", 0o644, text));
    manifest.build(std::path::Path::new("/")).unwrap().into_bytes()
}

impl Boot {
    fn direct(&self) -> DirectKernel<'_> {
        DirectKernel {
            kernel: &self.kernel,
            initrd: &self.initrd,
            append: &self.append,
            memory_mib: self.memory,
            ramdisk_option: RamdiskOption::AfterCommandLine,
            header: KernelHeader::FilledIn,
        }
    }

    fn record(&self) -> MadeFrom {
        let mut record = MadeFrom::default();
        record.add_file(Role::Firmware, "OVMF.fd", &self.firmware);
        if !self.kernel.is_empty() {
            record.add_direct_boot(("vmlinuz", &self.kernel), ("initrd.cpio", &self.initrd), &self.append);
            record.add_agent(("inwit-guest", AGENT), ("guest.conf", CONFIGURATION));
        }
        record.machine = MachineShape { memory_mib: Some(self.memory), ..MachineShape::default() };
        record
    }

    fn signature(&self) -> CpuSignature {
        self.cpu.parse().unwrap()
    }

    fn launch_digest(&self) -> Digest<48> {
        let boot = DirectBoot::measure(&self.kernel, &self.initrd, &self.append).unwrap();
        let boot = (self.hashes && !self.kernel.is_empty()).then_some(boot);
        let features = GuestFeatures::from_raw(self.features).unwrap();
        let vcpus = NonZeroU16::new(self.vcpus).unwrap();
        let firmware = FirmwareLaunch::measure(&self.firmware).unwrap();
        firmware.digest(boot.as_ref(), vcpus, self.signature(), features, self.vmm).unwrap()
    }

    fn snp(&self) -> Stated {
        let mut record = self.record();
        record.firmware = Some(FirmwareLaunch::measure(&self.firmware).unwrap());
        record.machine = MachineShape {
            vcpus: NonZeroU16::new(self.vcpus),
            cpu_type: Some(self.cpu.to_owned()),
            cpu_signature: Some(Hexadecimal(self.signature().raw().into())),
            guest_features: Some(Hexadecimal(self.features)),
            vmm: Some(self.vmm),
            ..MachineShape::default()
        };
        stated(Measured::Snp { launch_digest: self.launch_digest() }, record)
    }

    fn td_events(&self) -> Vec<Event> {
        let firmware = Firmware::parse(&self.firmware).unwrap();
        let separators = Separators::Rtmr0AndRtmr1;
        let machine = MachineEvents {
            td_hob: sha384(&tdx::td_hob(&firmware, self.memory).unwrap()),
            fw_cfg: Vec::new(),
            acpi: vec![sha384(self.acpi)],
            secure_boot: SecureBootVariables::without_keys(self.secure_boot),
            authorities: Vec::new(),
            smbios: None,
            boot: vec![("BootOrder".to_owned(), vec![0, 0]), ("Boot0000".to_owned(), option())],
            separators,
        };
        let mut events = tdx::rtmr0_events(tdx::cfv_digest(&self.firmware).unwrap(), &machine);
        events.extend(tdx::rtmr1_events(&self.direct(), separators).unwrap());
        events.extend(tdx::rtmr2_events(&self.direct()).unwrap());
        events
    }

    fn td(&self) -> Stated {
        let events = self.td_events();
        let mut record = self.record();
        record.add_td_events(&events);
        stated(self.td_of(&events), record)
    }

    fn td_of(&self, events: &[Event]) -> Measured {
        let register =
            |index| tdx::extend_all(events.iter().filter(|event| event.index == index).map(|event| &event.digest));
        let mrtd = tdx::mrtd(&self.firmware, Pass::Single).unwrap();
        Measured::Tdx { mrtd, rtmr0: register(1), rtmr1: register(2), rtmr2: register(3) }
    }

    fn vtpm(&self) -> Stated {
        // The PEI volume depends on memory size and vCPUs; what it is like is of no matter here.
        let pei_volume = sha256(format!("{} MiB, {} vCPUs", self.memory, self.vcpus).as_bytes());
        let start = Start::Direct(self.direct());
        let (executable, configuration) = (sha256(self.agent.0), sha256(self.agent.1));
        let agent = Some(agent_event(&AgentReference { executable, configuration }));
        let boot = MeasuredBoot { firmware: &self.firmware, pei_volume, start, ima: Ima::Sig, agent };
        let prediction = predict(&boot).unwrap();
        let mut record = self.record();
        record.add_pcr_events(&prediction.events);
        stated(Measured::Vtpm { pcrs: prediction.pcrs() }, record)
    }
}

fn stated(measured: Measured, record: MadeFrom) -> Stated {
    let agent = AgentReference { executable: sha256(AGENT), configuration: sha256(CONFIGURATION) };
    let values = ReferenceValues { name: "payments 1.4".into(), agent, measured, made_from: Some(record) };
    // As a file has it, so that the written form is what is explained from.
    Stated::read(values.to_toml().unwrap().as_bytes()).unwrap()
}

/// What was measured, without a record.
fn bare(values: &Stated) -> Actual {
    let registers = inwit_measurements::explain::registers(&values.measured);
    let lines: String = registers.iter().map(|(name, digest)| format!("{name} {digest}\n")).collect();
    Actual::read(lines.as_bytes()).unwrap()
}

/// One row of the table.
struct Row<'a> {
    change: &'static str,
    expected: &'a Stated,
    actual: Actual,
    log: Option<Vec<u8>>,
    at_hand: Vec<Candidate>,
    component: Component,
    certainty: Certainty,
    words: &'static [&'static str],
}

fn asked(row: &Row<'_>) -> Explanation {
    let candidates = Candidates { files: row.at_hand.clone(), append: Vec::new() };
    let log = row.log.as_deref();
    let question =
        Question { expected: row.expected, actual: &row.actual, log, candidates: &candidates, budget: USUAL_BUDGET };
    explain(&question, &mut |_| {})
}

/// A line of the table, past the test runner.
fn say(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Asks each row, prints the table, and fails with all that was not named.
fn table(rows: &[Row<'_>]) {
    let mut wrong = Vec::new();
    say(format_args!("{:44} {:15} {:12} {:>8} {:>9}  answer", "change", "component", "certainty", "ms", "tries"));
    for row in rows {
        let begun = Instant::now();
        let explanation = asked(row);
        let milliseconds = begun.elapsed().as_millis();
        let (component, certainty) = (format!("{:?}", explanation.component), format!("{:?}", explanation.certainty));
        let (change, tried) = (row.change, explanation.tried);
        say(format_args!(
            "{change:44} {component:15} {certainty:12} {milliseconds:>8} {tried:>9}  {}",
            explanation.answer
        ));
        let said = format!("{}\n{}", explanation.answer, explanation.detail.join("\n"));
        let named = (explanation.component, explanation.certainty) == (row.component, row.certainty);
        if explanation.same || !named || row.words.iter().any(|words| !said.contains(words)) {
            wrong.push(format!("{change}: {explanation:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn file(role: Role, name: &str, contents: &[u8]) -> Candidate {
    Candidate::new(Some(role), name, contents.to_vec())
}

fn any(name: &str, contents: &[u8]) -> Candidate {
    Candidate::new(None, name, contents.to_vec())
}

/// A boot of the launch build, with its kernel and initrd; nothing where the world is not prepared.
fn boot(test: &str, launch: Launch) -> Option<Boot> {
    let world = World::here();
    if !ready_or_told(&world, test, &[Step::Packages, Step::Kernel, Step::LaunchFirmware]).unwrap() {
        return None;
    }
    let firmware = std::fs::read(launch.cached(&world).unwrap().unwrap().path).unwrap();
    let kernel = std::fs::read(Kernel::cached(&world).unwrap().image).unwrap();
    Some(Boot {
        firmware,
        kernel,
        initrd: initrd(AGENT, CONFIGURATION, Some(b"welcome\n")),
        append: APPEND.to_owned(),
        vcpus: 2,
        cpu: "EPYC-v4",
        features: 1,
        vmm: Vmm::Qemu,
        memory: 1024,
        secure_boot: SecureBoot::Off,
        acpi: b"tables of a machine",
        hashes: true,
        agent: (AGENT, CONFIGURATION),
    })
}

fn changed(boot: &Boot, change: impl FnOnce(&mut Boot)) -> Boot {
    let mut other = boot.clone();
    change(&mut other);
    other
}

fn with_byte(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 1;
    bytes
}

#[test]
fn every_change_of_an_snp_launch_is_named() {
    let Some(boot) = boot("changes of SNP launches", Launch::AmdSev) else { return };
    let base = boot.snp();
    let firmware = with_byte(&boot.firmware, 0x10_0000);
    let kernel = with_byte(&boot.kernel, 0x10_0000);
    let appendix = Manifest::new().file("/late", 0o755, b"late").build(std::path::Path::new("/")).unwrap().into_bytes();
    let appended = [boot.initrd.as_slice(), &appendix].concat();
    let inside = |notice| initrd(AGENT, CONFIGURATION, notice);
    let row = |change, to: &dyn Fn(&mut Boot), at_hand, component, words| {
        let actual = changed(&boot, |boot| to(boot)).launch_digest().to_string();
        let actual = Actual::read(actual.as_bytes()).unwrap();
        let certainty = Certainty::Recomputed;
        Row { change, expected: &base, actual, log: None, at_hand, component, certainty, words }
    };
    let original = || file(Role::Initrd, "initrd.cpio", &boot.initrd);
    let mut rows = vec![
        row(
            "a byte of the firmware",
            &|boot| boot.firmware.clone_from(&firmware),
            vec![file(Role::Firmware, "OVMF.fd", &firmware)],
            Component::Firmware,
            &["`OVMF.fd` is another build"],
        ),
        row(
            "another kernel",
            &|boot| boot.kernel.clone_from(&kernel),
            vec![any("notes", b"x"), any("vmlinuz-6.13", &kernel)],
            Component::Kernel,
            &["`vmlinuz-6.13` was used instead of `vmlinuz`"],
        ),
        row(
            "the agent in the initrd",
            &|boot| boot.initrd = initrd(b"\x7fELF another agent", CONFIGURATION, Some(b"welcome\n")),
            vec![original(), file(Role::Agent, "inwit-guest-1.5", b"\x7fELF another agent")],
            Component::Agent,
            &["`/init` was replaced by `inwit-guest-1.5`"],
        ),
        row(
            "the configuration in the initrd",
            &|boot| boot.initrd = initrd(AGENT, OTHER_CONFIGURATION, Some(b"welcome\n")),
            vec![original(), any("guest.conf", OTHER_CONFIGURATION)],
            Component::Configuration,
            &["`/etc/inwit/guest.conf` was replaced by `guest.conf`"],
        ),
        row(
            "another file of the initrd",
            &|boot| boot.initrd = inside(Some(b"good bye\n")),
            vec![original(), any("motd.new", b"good bye\n")],
            Component::InitrdFile,
            &["`/etc/motd` was replaced by `motd.new`"],
        ),
        row(
            "another initrd, its file named",
            &|boot| boot.initrd = inside(Some(b"good bye\n")),
            vec![any("new.cpio", &inside(Some(b"good bye\n")))],
            Component::InitrdFile,
            &["`/etc/motd` has other contents", "`new.cpio`"],
        ),
        row(
            "a file missing in the initrd",
            &|boot| boot.initrd = inside(None),
            vec![original()],
            Component::InitrdFile,
            &["`/etc/motd` is missing"],
        ),
        row(
            "an archive appended to the initrd",
            &|boot| boot.initrd.clone_from(&appended),
            vec![original(), any("late.cpio", &appendix)],
            Component::Initrd,
            &["`late.cpio` was appended"],
        ),
        row("no initrd", &|boot| boot.initrd.clear(), vec![], Component::Initrd, &["missing"]),
        row("no kernel hashes", &|boot| boot.hashes = false, vec![], Component::Kernel, &["without kernel hashes"]),
        row(
            "two changes: a word and vCPUs",
            &|boot| (boot.append, boot.vcpus) = ("console=ttyS0 panic=-1".to_owned(), 4),
            vec![],
            Component::CommandLine,
            &["`quiet` is missing", "4 vCPUs instead of 2"],
        ),
    ];
    for (change, append, words) in [
        (
            "a word of the command line",
            "console=hvc0 panic=-1 quiet",
            &["`console=ttyS0` has become `console=hvc0`"][..],
        ),
        ("a number in the command line", "console=ttyS0 panic=5 quiet", &["`panic=-1` has become `panic=5`"]),
        ("a word missing", "console=ttyS0 panic=-1", &["the word `quiet` is missing"]),
        ("a word more", "console=ttyS0 panic=-1 debug quiet", &["the word `debug` was added"]),
        ("a slip of the finger", "console=ttyS0 panic=-1 quiwt", &["`quiet` has become `quiwt`"]),
        ("a space at the end", "console=ttyS0 panic=-1 quiet ", &["a space at its end is too much"]),
        ("a line end at the end", "console=ttyS0 panic=-1 quiet\n", &["a line end at its end is too much"]),
        ("words in another order", "quiet panic=-1 console=ttyS0", &["another order"]),
        ("quotes of a shell", "\"console=ttyS0 panic=-1 quiet\"", &["quotes are part of it"]),
    ] {
        rows.push(row(change, &|boot| boot.append = append.to_owned(), vec![], Component::CommandLine, words));
    }
    rows.extend([
        row("the number of vCPUs", &|boot| boot.vcpus = 64, vec![], Component::VcpuCount, &["64 vCPUs instead of 2"]),
        row(
            "the vCPU type",
            &|boot| boot.cpu = "EPYC-Genoa",
            vec![],
            Component::VcpuType,
            &["EPYC-Genoa", "instead of EPYC"],
        ),
        row(
            "the guest features",
            &|boot| boot.features = 0x21,
            vec![],
            Component::GuestFeatures,
            &["debug swap is on"],
        ),
        row("the hypervisor", &|boot| boot.vmm = Vmm::Ec2, vec![], Component::Vmm, &["as on ec2, not qemu"]),
        row(
            "vCPUs and their type",
            &|boot| (boot.vcpus, boot.cpu) = (8, "EPYC-Milan"),
            vec![],
            Component::VcpuCount,
            &["EPYC-Milan"],
        ),
    ]);
    let other = std::fs::read("/usr/share/ovmf/OVMF.fd").unwrap();
    let without_kernel = changed(&boot, |boot| boot.kernel.clear());
    let expected = without_kernel.snp();
    let actual = changed(&without_kernel, |boot| boot.firmware.clone_from(&other)).launch_digest().to_string();
    rows.push(Row {
        change: "another build of the firmware",
        expected: &expected,
        actual: Actual::read(actual.as_bytes()).unwrap(),
        log: None,
        at_hand: vec![any("OVMF-2022.11.fd", &other)],
        component: Component::Firmware,
        certainty: Certainty::Recomputed,
        words: &["`OVMF-2022.11.fd` was used instead of `OVMF.fd`"],
    });
    table(&rows);
}

#[test]
fn every_change_of_a_td_is_named() {
    let Some(boot) = boot("changes of TDs", Launch::IntelTdx) else { return };
    let base = boot.td();
    let at_hand = || {
        vec![
            file(Role::Firmware, "OVMF.fd", &boot.firmware),
            file(Role::Kernel, "vmlinuz", &boot.kernel),
            file(Role::Initrd, "initrd.cpio", &boot.initrd),
        ]
    };
    let row = |change, other: &Boot, files: Vec<Candidate>, component, words| {
        let (actual, certainty) = (bare(&other.td()), Certainty::Recomputed);
        Row { change, expected: &base, actual, log: None, at_hand: files, component, certainty, words }
    };
    let quiet = changed(&boot, |boot| boot.append = "console=ttyS0 panic=-1".to_owned());
    let firmware = with_byte(&boot.firmware, boot.firmware.len() / 2);
    let other_initrd = initrd(AGENT, OTHER_CONFIGURATION, Some(b"welcome\n"));
    let longer = initrd(AGENT, &[CONFIGURATION, &[b'#'; 8192]].concat(), Some(b"welcome\n"));
    let mut rows = vec![
        row("TD: a word missing", &quiet, vec![], Component::CommandLine, &["the word `quiet` is missing"]),
        row(
            "TD: the memory size",
            &changed(&boot, |boot| boot.memory = 2048),
            at_hand(),
            Component::Memory,
            &["2048 MiB instead of 1024"],
        ),
        row(
            "TD: a large memory",
            &changed(&boot, |boot| boot.memory = 16384),
            at_hand(),
            Component::Memory,
            &["MiB instead of 1024"],
        ),
        row(
            "TD: Secure Boot gone",
            &changed(&boot, |boot| boot.secure_boot = SecureBoot::Absent),
            vec![],
            Component::SecureBoot,
            &["`SecureBoot`", "without Secure Boot"],
        ),
        row(
            "TD: a byte of the firmware",
            &changed(&boot, |boot| boot.firmware.clone_from(&firmware)),
            [at_hand(), vec![any("OVMF.new.fd", &firmware)]].concat(),
            Component::Firmware,
            &["`OVMF.new.fd` was used instead of `OVMF.fd`"],
        ),
        row(
            "TD: the configuration in the initrd",
            &changed(&boot, |boot| boot.initrd.clone_from(&other_initrd)),
            [at_hand(), vec![any("other.conf", OTHER_CONFIGURATION)]].concat(),
            Component::Configuration,
            &["`/etc/inwit/guest.conf` was replaced by `other.conf`"],
        ),
        row(
            "TD: a longer initrd, which moves the kernel",
            &changed(&boot, |boot| boot.initrd.clone_from(&longer)),
            [at_hand(), vec![any("longer.cpio", &longer)]].concat(),
            Component::Configuration,
            &["`/etc/inwit/guest.conf` has other contents"],
        ),
        Row {
            certainty: Certainty::Narrowed,
            ..row(
                "TD: nothing at hand",
                &changed(&boot, |boot| boot.acpi = b"other tables"),
                vec![],
                Component::Machine,
                &["rtmr0 differs; it holds: TD HOB"],
            )
        },
    ];
    // With the log of the boot.
    let logged = |change, to: &dyn Fn(&mut Vec<Event>), component, certainty, words| {
        let mut events = boot.td_events();
        to(&mut events);
        let log = Some(encode_ccel(&events));
        let actual = bare(&stated(boot.td_of(&events), MadeFrom::default()));
        Row { change, expected: &base, actual, log, at_hand: vec![], component, certainty, words }
    };
    let order = |events: &mut Vec<Event>| {
        let event = events.iter_mut().find(|event| event.description.contains("BootOrder")).unwrap();
        let (end, order) = (event.data.len(), [1, 0, 0, 0]);
        // UEFI_VARIABLE_DATA: the length of the data, u64, stands behind GUID and length of the name.
        event.data[24] = 4;
        event.data.splice(end - 2.., order);
        event.digest = sha384(&order);
    };
    let secure = |events: &mut Vec<Event>| {
        let event = events.iter_mut().find(|event| event.description.contains("SecureBoot")).unwrap();
        *event.data.last_mut().unwrap() = 1;
        event.digest = sha384(&event.data);
    };
    let missing = |events: &mut Vec<Event>| *events = quiet.td_events();
    let acpi = |events: &mut Vec<Event>| {
        events.iter_mut().find(|event| event.description.contains("ACPI")).unwrap().digest = sha384(b"other");
    };
    let doubled = |events: &mut Vec<Event>| {
        let event = events.iter().position(|event| event.description.contains("Boot0000")).unwrap();
        events.insert(event, events[event].clone());
    };
    rows.extend([
        logged(
            "log: the boot order",
            &order,
            Component::BootVariable,
            Certainty::Log,
            &["The boot order differs: it is 0001 0000."],
        ),
        logged(
            "log: a Secure Boot variable",
            &secure,
            Component::SecureBoot,
            Certainty::Log,
            &["`SecureBoot` differs: it is on"],
        ),
        logged(
            "log: a word missing",
            &missing,
            Component::CommandLine,
            Certainty::Recomputed,
            &["the word `quiet` is missing"],
        ),
        logged("log: the ACPI tables", &acpi, Component::Machine, Certainty::Log, &["ACPI loader script"]),
        logged(
            "log: a boot option more",
            &doubled,
            Component::BootVariable,
            Certainty::Log,
            &["Boot0000: \"UiApp\"", "was not expected"],
        ),
    ]);
    table(&rows);
}

#[test]
fn every_change_of_a_measured_boot_is_named() {
    let Some(mut boot) = boot("changes of measured boots", Launch::AmdSev) else { return };
    boot.firmware = std::fs::read(ovmf().unwrap().code).unwrap();
    let base = boot.vtpm();
    let files = || vec![file(Role::Kernel, "vmlinuz", &boot.kernel), file(Role::Initrd, "initrd.cpio", &boot.initrd)];
    let row = |change, other: &Boot, at_hand: Vec<Candidate>, component, certainty, words| Row {
        change,
        expected: &base,
        actual: bare(&other.vtpm()),
        log: None,
        at_hand,
        component,
        certainty,
        words,
    };
    let proved = Certainty::Recomputed;
    let agent = b"\x7fELF another agent of another length".as_slice();
    let rows = [
        row(
            "TPM: the memory size",
            &changed(&boot, |boot| boot.memory = 512),
            files(),
            Component::Memory,
            proved,
            &["512 MiB instead of 1024", "With it differs pcr0"],
        ),
        row(
            "TPM: the memory size, nothing at hand",
            &changed(&boot, |boot| boot.memory = 512),
            vec![],
            Component::Machine,
            Certainty::Narrowed,
            &["most likely its memory size"],
        ),
        row(
            "TPM: the number of vCPUs",
            &changed(&boot, |boot| boot.vcpus = 4),
            files(),
            Component::Firmware,
            Certainty::Narrowed,
            &["number of vCPUs"],
        ),
        row(
            "TPM: a space at the end",
            &changed(&boot, |boot| boot.append.push(' ')),
            vec![],
            Component::CommandLine,
            proved,
            &["a space at its end is too much"],
        ),
        row(
            "TPM: the agent in the initrd",
            &changed(&boot, |boot| boot.initrd = initrd(agent, CONFIGURATION, Some(b"welcome\n"))),
            [files(), vec![file(Role::Agent, "inwit-guest", agent)]].concat(),
            Component::Agent,
            proved,
            &["`/init` was replaced by `inwit-guest`"],
        ),
        row(
            "TPM: another agent, in its register alone",
            &changed(&boot, |boot| boot.agent = (b"\x7fELF the agent of tomorrow", CONFIGURATION)),
            vec![file(Role::Agent, "inwit-guest-2", b"\x7fELF the agent of tomorrow")],
            Component::Agent,
            proved,
            &["`inwit-guest-2`"],
        ),
        row(
            "TPM: another kernel",
            &changed(&boot, |boot| boot.kernel = with_byte(&boot.kernel, 0x10_0000)),
            [files(), vec![any("vmlinuz-6.13", &with_byte(&boot.kernel, 0x10_0000))]].concat(),
            Component::Kernel,
            proved,
            &["`vmlinuz-6.13` was used instead"],
        ),
    ];
    table(&rows);
}

/// A boot as a unified kernel image, and the image.
fn unified(boot: &Boot, stub: &[u8]) -> (Stated, Vec<u8>) {
    let parts = UnifiedParts {
        kernel: &boot.kernel,
        initrd: &boot.initrd,
        command_line: &boot.append,
        os_release: None,
        uname: None,
        sbat: None,
    };
    let image = UnifiedKernel::build(stub, &parts).unwrap();
    let start = Start::Unified { image: image.bytes(), profile: None };
    let pei_volume = sha256(b"PEI volume");
    let prediction =
        predict(&MeasuredBoot { firmware: &boot.firmware, pei_volume, start, ima: Ima::Sig, agent: None }).unwrap();
    let mut record = MadeFrom::default();
    record.add_file(Role::Firmware, "OVMF.fd", &boot.firmware);
    record.add_file(Role::Uki, "linux.efi", image.bytes());
    record.add_direct_boot((".linux", &boot.kernel), (".initrd", &boot.initrd), &boot.append);
    record.add_agent(("inwit-guest", AGENT), ("guest.conf", CONFIGURATION));
    record.add_pcr_events(&prediction.events);
    (stated(Measured::Vtpm { pcrs: prediction.pcrs() }, record), image.bytes().to_vec())
}

#[test]
fn every_change_of_a_unified_image_is_named() {
    let Some(mut boot) = boot("changes of unified kernel images", Launch::AmdSev) else { return };
    boot.firmware = std::fs::read(ovmf().unwrap().code).unwrap();
    let stub = std::fs::read(uki_stub().unwrap()).unwrap();
    let (base, _) = unified(&boot, &stub);
    let row = |change, other: &Boot, at_hand: &dyn Fn(Vec<u8>) -> Vec<Candidate>, component, words| {
        let (values, image) = unified(other, &stub);
        let (actual, certainty, at_hand) = (bare(&values), Certainty::Recomputed, at_hand(image));
        Row { change, expected: &base, actual, log: None, at_hand, component, certainty, words }
    };
    let quiet = changed(&boot, |boot| boot.append = "console=ttyS0 panic=-1".to_owned());
    let configured = changed(&boot, |boot| boot.initrd = initrd(AGENT, OTHER_CONFIGURATION, Some(b"welcome\n")));
    let kernel = changed(&boot, |boot| boot.kernel = with_byte(&boot.kernel, 0x10_0000));
    let nothing = |_| vec![];
    let itself = |image: Vec<u8>| vec![any("new.efi", &image)];
    table(&[
        row("UKI: a word missing", &quiet, &nothing, Component::CommandLine, &["the word `quiet` is missing", "pcr4"]),
        row(
            "UKI: a word missing, the image at hand",
            &quiet,
            &itself,
            Component::CommandLine,
            &["`quiet` is missing", "`new.efi`"],
        ),
        row(
            "UKI: the configuration",
            &configured,
            &itself,
            Component::Configuration,
            &["`/etc/inwit/guest.conf`", "`new.efi`"],
        ),
        row("UKI: another kernel", &kernel, &itself, Component::Kernel, &["`.linux`", "`new.efi`"]),
    ]);
}

#[test]
fn two_records_are_compared_part_by_part() {
    let Some(boot) = boot("records of two launches", Launch::AmdSev) else { return };
    let base = boot.snp();
    let told = |to: &dyn Fn(&mut Boot)| {
        let other = changed(&boot, |boot| to(boot)).snp();
        let actual = Actual { values: Some(other.clone()), ..bare(&other) };
        let candidates = Candidates::default();
        let question = Question { expected: &base, actual: &actual, log: None, candidates: &candidates, budget: 0 };
        explain(&question, &mut |_| {})
    };
    let all = told(&|boot| {
        boot.append = "console=ttyS0 panic=-1".to_owned();
        boot.vcpus = 4;
        boot.initrd = initrd(b"\x7fELF another agent", CONFIGURATION, Some(b"good bye\n"));
    });
    assert_eq!((all.component, all.certainty), (Component::Agent, Certainty::Record), "{all:#?}");
    let said = all.detail.join("\n");
    for words in ["`/etc/motd` has other contents", "`quiet` is missing", "4 vCPUs instead of 2"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let same = told(&|_| {});
    assert!(same.same && same.component == Component::Nothing, "{same:#?}");
}

/// Reference Values without a record: the files of then lead from one to the other.
#[test]
fn files_stand_in_for_a_record() {
    let Some(boot) = boot("launches without a record", Launch::AmdSev) else { return };
    let bare_base = Stated { made_from: None, ..boot.snp() };
    let files = vec![
        file(Role::Firmware, "OVMF.fd", &boot.firmware),
        file(Role::Kernel, "vmlinuz", &boot.kernel),
        file(Role::Initrd, "initrd.cpio", &boot.initrd),
    ];
    let ask = |expected: &Stated, actual: &Boot, files: &[Candidate]| {
        let candidates = Candidates { files: files.to_vec(), append: vec![APPEND.to_owned()] };
        let actual = bare(&actual.snp());
        let question = Question { expected, actual: &actual, log: None, candidates: &candidates, budget: USUAL_BUDGET };
        explain(&question, &mut |_| {})
    };
    let eight = changed(&boot, |boot| boot.vcpus = 8);
    let found = ask(&bare_base, &eight, &files);
    assert_eq!((found.component, found.certainty), (Component::VcpuCount, Certainty::Recomputed), "{found:#?}");
    let nothing = ask(&bare_base, &eight, &[]);
    assert_eq!((nothing.component, nothing.certainty), (Component::Unknown, Certainty::Narrowed), "{nothing:#?}");
    let other = Stated { measured: Measured::Snp { launch_digest: sha384(b"something") }, ..bare_base };
    let exactly = ask(&other, &eight, &files);
    assert!(exactly.answer.contains("exactly the files given"), "{exactly:#?}");
    let foreign = Stated { measured: Measured::Vtpm { pcrs: BTreeMap::from([(4, sha256(b""))]) }, ..other };
    assert_eq!(ask(&foreign, &eight, &files).component, Component::Platform);
}
