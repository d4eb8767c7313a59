//! Boots the prepared kernel in a real virtual machine, with the smallest PID 1 there can be: what every larger test
//! stands on. Trusts nothing that the guest prints beyond comparing it. Never fetches or installs: that is inwit-setup's.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use inwit_image::Manifest;
use inwit_tests::world::{
    ExitReport, How, World, firmware,
    kernel::Kernel,
    qemu::Boot,
    setup::{self, Step},
    swtpm::{EkCertificate, Swtpm},
    vsock::Vsock,
};

const NEEDED: &[Step] = &[Step::Packages, Step::Kernel, Step::Vsock];
/// A loaded machine takes a multiple of the usual 7 (direct) and 19 seconds (measured).
const PATIENCE: Duration = Duration::from_secs(300);

fn ready(test: &str) -> Option<World> {
    let world = World::here();
    setup::ready_or_told(&world, test, NEEDED).unwrap().then_some(world)
}

/// The PID 1 beside this file, static.
fn build_init(dir: &Path) -> Vec<u8> {
    let (source, program) = (Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vm_smoke/init.c"), dir.join("init"));
    let mut build = Command::new("musl-gcc");
    build.args(["-static", "-Os", "-s", "-Wall", "-Werror", "-o"]).arg(&program).arg(source);
    assert!(build.status().unwrap().success());
    fs::read(program).unwrap()
}

fn write_initrd(dir: &Path, manifest: Manifest) -> PathBuf {
    let path = dir.join("initrd");
    fs::write(&path, manifest.build(dir).unwrap().bytes()).unwrap();
    path
}

fn assert_clean(report: &ExitReport) {
    assert_eq!(report.how, How::PoweredOff, "after {:.1} s:\n{}", report.seconds, report.text());
}

#[test]
fn a_direct_boot_reaches_pid_1_and_powers_off() {
    let Some(world) = ready("direct boot") else { return };
    let dir = tempfile::tempdir().unwrap();
    let initrd = write_initrd(dir.path(), Manifest::new().file("/init", 0o755, build_init(dir.path())));
    let machine = world.boot(initrd).unwrap().start().unwrap();
    machine.wait_for("SMOKE hello from PID 1", PATIENCE).unwrap();
    let report = machine.wait_exit(PATIENCE);
    assert_clean(&report);
    assert!(!report.text().contains("SMOKE pcr9"), "a machine without a TPM has no PCRs:\n{}", report.text());
}

#[test]
fn a_measured_boot_has_the_initrd_in_the_tpm() {
    let Some(world) = ready("measured boot") else { return };
    let dir = tempfile::tempdir().unwrap();
    let initrd = write_initrd(dir.path(), Manifest::new().file("/init", 0o755, build_init(dir.path())));
    Swtpm::manufacture(dir.path(), EkCertificate::Absent).unwrap();
    let tpm = Swtpm::start(dir.path()).unwrap();
    let firmware = firmware::ovmf().unwrap().firmware();
    let boot = Boot { firmware, tpm: Some(tpm.control().into()), ..world.boot(initrd).unwrap() };
    let machine = boot.start().unwrap();
    let line = machine.wait_for("SMOKE pcr9 ", PATIENCE).unwrap();
    let digest = line.text.rsplit(' ').next().unwrap();
    assert!(digest.len() == 64 && digest.bytes().any(|digit| digit != b'0'), "PCR 9 was extended: {digest}");
    assert_clean(&machine.wait_exit(PATIENCE));
}

#[test]
fn a_guest_reaches_the_host_by_vsock_disk_and_mailbox() {
    let Some(world) = ready("devices") else { return };
    let dir = tempfile::tempdir().unwrap();
    let names = ["vmw_vsock_virtio_transport", "virtio_blk"];
    let modules = Kernel::cached(&world).unwrap().modules(&names).unwrap();
    let manifest = Manifest::new().directory("/mod", 0o755).file("/init", 0o755, build_init(dir.path()));
    let manifest = modules.into_iter().enumerate().fold(manifest, |manifest, (number, module)| {
        manifest.file(&format!("/mod/{number:02}.ko"), 0o644, module.bytes)
    });
    let disk = dir.path().join("disk");
    fs::write(&disk, format!("{:512}", "first line of the disk\n")).unwrap();
    let vsock = Vsock::start(&world, dir.path(), 3).unwrap();
    let mailbox_path = dir.path().join("mailbox");
    let (mailbox, port) = (UnixListener::bind(&mailbox_path), UnixListener::bind(vsock.listener_path(1234)));
    // Each gives what the guest sent; the vsock's answers as well.
    let from_mailbox = thread::spawn(move || {
        let mut bytes = [0; 7];
        mailbox.unwrap().accept().unwrap().0.read_exact(&mut bytes).unwrap();
        bytes
    });
    let from_port = thread::spawn(move || {
        let mut stream = port.unwrap().accept().unwrap().0;
        let mut line = String::new();
        BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
        stream.write_all(b"from the host").unwrap();
        line
    });
    let boot = Boot {
        vsock: Some(vsock.backend().into()),
        mailbox_socket: Some(mailbox_path),
        disk: Some(disk),
        ..world.boot(write_initrd(dir.path(), manifest)).unwrap()
    };
    let report = boot.start().unwrap().wait_exit(PATIENCE);
    assert_clean(&report);
    for line in ["SMOKE disk first line of the disk", "SMOKE vsock from the host"] {
        assert!(report.text().contains(line), "{line}:\n{}", report.text());
    }
    assert_eq!(from_port.join().unwrap(), "from the guest\n");
    assert_eq!(&from_mailbox.join().unwrap(), b"mailbox");
}

#[test]
fn a_panic_is_told_apart_from_a_power_off_and_a_limit_holds() {
    let Some(world) = ready("bad ends") else { return };
    let dir = tempfile::tempdir().unwrap();
    let manifest = Manifest::new().file("/init", 0o755, build_init(dir.path())).file("/panic", 0o644, *b"");
    let boot = world.boot(write_initrd(dir.path(), manifest)).unwrap();
    let report = boot.start().unwrap().wait_exit(PATIENCE);
    assert_eq!(report.how, How::Reset, "PID 1 ended:\n{}", report.text());
    assert!(report.text().contains("Attempted to kill init"), "{}", report.text());

    let hurried = Boot { limit: Some(Duration::from_millis(500)), ..boot };
    let machine = hurried.start().unwrap();
    let pid = machine.pid();
    assert!(machine.wait_for("SMOKE", PATIENCE).is_err(), "the limit ends the wait, too");
    assert_eq!(machine.wait_exit(PATIENCE).how, How::LimitReached);
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}
