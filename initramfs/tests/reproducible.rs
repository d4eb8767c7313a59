//! The promise users rely on: the same manifest and the same file contents give the same bytes, wherever, whenever and
//! by whomever they are built, and refusals reach the command line with their exit codes.
//!
//! Never needs root, a network or a virtual machine.

use std::fs::{self, File, FileTimes, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

const MANIFEST: &str = "\
dir /dev 0755
node /dev/console 0600 c 5 1
dir /lib 0755
file /lib/b.ko 0644 b.ko
file /lib/a.ko 0644 sub/a.ko
file /init 0755 init
link /bin lib
";

/// Lays the same sources out in `folder` with the given order, permissions and modification time.
fn lay_out(folder: &Path, order: &[usize], mode: u32, mtime: SystemTime) {
    let files = [("init", &b"\x7fELF init"[..]), ("b.ko", b"module b"), ("sub/a.ko", b"")];
    fs::create_dir_all(folder.join("sub")).unwrap();
    for index in order {
        let (name, content) = files[*index];
        let path = folder.join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let file = File::open(&path).unwrap();
        file.set_times(FileTimes::new().set_modified(mtime).set_accessed(mtime)).unwrap();
    }
    fs::write(folder.join("manifest"), MANIFEST).unwrap();
}

fn build(folder: &Path, umask: &str, extra: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_inwit-image");
    // The shell is only there to set the umask.
    Command::new("sh")
        .args(["-c", &format!("umask {umask}; exec \"$@\""), "sh", program, "build"])
        .args([folder.join("manifest"), "-o".into(), folder.join("out.cpio")])
        .args(extra)
        .output()
        .unwrap()
}

#[test]
fn folder_time_umask_permissions_and_order_leave_no_trace() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let far = two.path().join("a folder/with a longer name");
    fs::create_dir_all(&far).unwrap();
    lay_out(one.path(), &[0, 1, 2], 0o600, SystemTime::UNIX_EPOCH + Duration::from_secs(86_400));
    lay_out(&far, &[2, 1, 0], 0o755, SystemTime::now());
    let (first, second) = (build(one.path(), "022", &[]), build(&far, "077", &["--json"]));
    assert!(first.status.success() && second.status.success(), "{first:?} {second:?}");
    let bytes = fs::read(one.path().join("out.cpio")).unwrap();
    assert_eq!(bytes, fs::read(far.join("out.cpio")).unwrap());

    let report: serde_json::Value = serde_json::from_slice(&second.stdout).unwrap();
    let text = String::from_utf8(first.stdout).unwrap();
    assert_eq!(report["bytes"].as_u64().unwrap(), bytes.len() as u64);
    for field in ["sha256", "sha384"] {
        assert!(text.contains(report[field].as_str().unwrap()), "text and JSON differ in {field}: {text}");
    }
}

#[test]
fn a_root_elsewhere_gives_the_same_image() {
    let (sources, manifest) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    lay_out(sources.path(), &[0, 1, 2], 0o644, SystemTime::now());
    fs::write(manifest.path().join("manifest"), MANIFEST).unwrap();
    let root = sources.path().to_str().unwrap();
    assert!(build(sources.path(), "022", &[]).status.success());
    assert!(build(manifest.path(), "022", &["--root", root]).status.success());
    assert_eq!(fs::read(sources.path().join("out.cpio")).unwrap(), fs::read(manifest.path().join("out.cpio")).unwrap());
}

#[test]
fn refused_sources_name_the_file_and_leave_no_output() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    fs::write(path.join("real"), "x").unwrap();
    symlink("real", path.join("link")).unwrap();
    fs::create_dir(path.join("folder")).unwrap();
    for (source, word) in
        [("link", "not a regular file"), ("folder", "not a regular file"), ("absent", "cannot be read")]
    {
        fs::write(path.join("manifest"), format!("file /x 0644 {source}\n")).unwrap();
        let output = build(path, "022", &[]);
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(3), "{message}");
        assert!(message.contains(word) && message.contains(source), "{message}");
        assert!(!path.join("out.cpio").exists());
    }
}

#[test]
fn a_file_over_32_bits_is_refused_before_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    // Sparse: takes no room on the disk.
    File::create(folder.path().join("huge")).unwrap().set_len(1 << 32).unwrap();
    fs::write(folder.path().join("manifest"), "file /x 0644 huge\n").unwrap();
    let output = build(folder.path(), "022", &[]);
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8(output.stderr).unwrap().contains("4294967296 bytes"));
}

#[test]
fn sizes_add_up_to_a_limit_before_anything_is_read() {
    let folder = tempfile::tempdir().unwrap();
    File::create(folder.path().join("half")).unwrap().set_len(u64::from(u32::MAX)).unwrap();
    fs::write(folder.path().join("manifest"), "file /a 0644 half\n").unwrap();
    let output = build(folder.path(), "022", &[]);
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8(output.stderr).unwrap().contains("more than 4294967295"));
}

#[test]
fn a_wrong_command_line_is_a_usage_error() {
    let output = Command::new(env!("CARGO_BIN_EXE_inwit-image")).arg("build").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

/// An independent reader, where this machine has one.
#[test]
fn the_cpio_tool_agrees() {
    let folder = tempfile::tempdir().unwrap();
    lay_out(folder.path(), &[0, 1, 2], 0o644, SystemTime::now());
    assert!(build(folder.path(), "022", &[]).status.success());
    let archive = File::open(folder.path().join("out.cpio")).unwrap();
    let Ok(output) = Command::new("cpio").arg("-tv").stdin(archive).output() else {
        let _ = std::io::Write::write_all(
            &mut std::io::stderr(),
            b"NOT RUN: 1 comparison with the cpio tool (cpio is not installed)\n",
        );
        return;
    };
    assert!(output.status.success(), "{output:?}");
    let listing = String::from_utf8(output.stdout).unwrap();
    let names: Vec<_> = listing.lines().filter_map(|line| line.split_whitespace().last()).collect();
    assert_eq!(names, ["lib", "dev", "dev/console", "init", "lib", "lib/a.ko", "lib/b.ko"], "{listing}");
    assert!(listing.lines().nth(2).unwrap().starts_with("crw-------"), "{listing}");
}

/// Headers of a PE32+ image for x86-64 with one section, `.sdmagic`, of 0x200 bytes at 0x400.
fn stub() -> Vec<u8> {
    let mut stub = vec![0; 0x600];
    for (at, bytes) in [
        (0, &b"MZ"[..]),
        (0x3c, &[0x40]),
        (0x40, b"PE\0\0\x64\x86\x01\0"),
        (0x54, &[0xf0, 0]),   // optional header
        (0x58, &[0x0b, 2]),   // PE32+
        (0x58 + 32, &[0, 2]), // SectionAlignment
        (0x58 + 36, &[0, 2]), // FileAlignment
        (0x58 + 60, &[0, 4]), // SizeOfHeaders
        (0x58 + 108, &[16]),  // directories
        (0x148, b".sdmagic"), // then virtual size and address, raw size and offset
        (0x150, &[4, 0, 0, 0, 0, 0x10, 0, 0, 0, 2, 0, 0, 0, 4]),
    ] {
        stub[at..at + bytes.len()].copy_from_slice(bytes);
    }
    stub
}

fn unify(folder: &Path, cmdline: &str, extra: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_inwit-image"))
        .current_dir(folder)
        .args([
            "uki",
            "--stub",
            "stub",
            "--linux",
            "kernel",
            "--initrd",
            "initrd",
            "-o",
            "out.efi",
            "--cmdline",
            cmdline,
        ])
        .args(extra)
        .output()
        .unwrap()
}

#[test]
fn a_unified_image_depends_on_its_parts_alone() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for folder in [&one, &two] {
        fs::write(folder.path().join("stub"), stub()).unwrap();
        let mut kernel = stub();
        kernel[0x148..0x150].copy_from_slice(b".text\0\0\0");
        fs::write(folder.path().join("kernel"), kernel).unwrap();
        fs::write(folder.path().join("initrd"), b"ramdisk").unwrap();
        fs::write(folder.path().join("words"), "console=ttyS0 quiet\n").unwrap();
    }
    let first = unify(one.path(), "console=ttyS0 quiet", &[]);
    let second = unify(two.path(), "@words", &["--json"]);
    assert!(first.status.success() && second.status.success(), "{first:?} {second:?}");
    let bytes = fs::read(one.path().join("out.efi")).unwrap();
    assert_eq!(bytes, fs::read(two.path().join("out.efi")).unwrap());
    let report: serde_json::Value = serde_json::from_slice(&second.stdout).unwrap();
    assert_eq!((report["bytes"].as_u64(), report["sections"][0]["name"].as_str()), (Some(0x1000), Some(".cmdline")));
    let text = String::from_utf8(first.stdout).unwrap();
    assert!(text.contains(&format!("sha256 {}", report["sha256"].as_str().unwrap())), "{text}");

    for (cmdline, extra, code, cause) in [
        ("a\nb", &[][..], 3, "printable ASCII"),
        ("@absent", &[], 3, "absent"),
        ("quiet", &["--stub", "initrd"], 2, "--stub"),
        ("quiet", &["--sbat", "words"], 3, "room for 0"),
    ] {
        let output = unify(one.path(), cmdline, extra);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(cause), "{said}");
    }
    assert_eq!(fs::read(one.path().join("out.efi")).unwrap(), bytes, "a refusal leaves the old image");
}
