//! What is measured comes out the same wherever and whenever it is built, and says nothing of where that was: the
//! production initramfs, and the trusted binary in it.

mod refusals_support;

use inwit_image::{UnifiedKernel, UnifiedParts};
use inwit_measurements::uki::UnifiedImage;
use inwit_tests::stage::HELLO;
use inwit_tests::stage::image::{self, Place, Settings};
use inwit_tests::world::World;
use inwit_tests::world::firmware::uki_stub;
use inwit_tests::world::kernel::Kernel;
use inwit_tests::world::modules::Module;
use inwit_tests::world::setup::{self, Step};
use refusals_support::{Ground, ground};
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

fn stage(test: &str) -> Option<Ground> {
    ground(test, &[Step::Packages, Step::RustTarget])
}

fn configuration(modules: &[Module]) -> String {
    let pin = "ab".repeat(32);
    image::configuration(&Settings { pin: &pin, identifier: HELLO, modules, place: Place::Machine })
}

/// The trusted binary as it would lie on another machine: another folder, another time, other permissions.
fn elsewhere(guest: &Path, folder: &Path, age: Duration, mode: u32) -> PathBuf {
    fs::create_dir_all(folder).unwrap();
    let copy = folder.join("renamed-guest");
    fs::copy(guest, &copy).unwrap();
    fs::set_permissions(&copy, Permissions::from_mode(mode)).unwrap();
    File::options().append(true).open(&copy).unwrap().set_modified(SystemTime::now() - age).unwrap();
    copy
}

#[test]
fn the_initramfs_is_the_same_wherever_and_whenever_it_is_built() {
    let Some(ground) = stage("an initramfs built twice") else { return };
    // With the kernel's modules where the kernel is at hand, as production has them.
    let modules =
        || Kernel::cached(&ground.world).map_or_else(Vec::new, |kernel| kernel.modules(&image::MODULES).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let build = |place: &str, age, mode| {
        let modules = modules();
        let guest = elsewhere(&ground.programs.guest, &folder.path().join(place), age, mode);
        image::production(&guest, &configuration(&modules), &modules).unwrap()
    };
    let first = build("here", Duration::ZERO, 0o755);
    // A second later, by the clock that an archive would show.
    std::thread::sleep(Duration::from_millis(1_100));
    let second = build("a/quite/different/place", Duration::from_secs(400 * 86_400), 0o700);
    assert!(first == second, "{} and {} bytes", first.len(), second.len());
    // It is not the same for being empty or for looking at nothing.
    let modules = modules();
    let other = configuration(&modules).replace("ab", "ac");
    let other = image::production(&ground.programs.guest, &other, &modules).unwrap();
    assert!(first != other && first.len() > fs::metadata(&ground.programs.guest).unwrap().len().try_into().unwrap());
}

/// binutils is the independent reader: it knows PE, and nothing of us.
#[test]
fn a_unified_image_is_read_back_by_objcopy() {
    if !setup::ready_or_told(&World::here(), "a unified image read back", &[Step::Packages]).unwrap() {
        return;
    }
    let stub = fs::read(uki_stub().unwrap()).unwrap();
    let noise: Vec<u8> = (0..70_001u32).map(|number| (number.wrapping_mul(number) >> 5) as u8).collect();
    // The stub is a PE image, as a kernel is, but for the section that says what it is and the version in its header.
    let mut kernel = stub.clone();
    let mark = kernel.windows(8).position(|name| name == b".sdmagic").unwrap();
    kernel[mark..mark + 8].copy_from_slice(b".another");
    let header = u32::from_le_bytes(kernel[0x3c..0x40].try_into().unwrap()) as usize;
    kernel[header + 24 + 44] = 1;
    let (initrd, kernel) = (noise.as_slice(), kernel.as_slice());
    let (command_line, os_release, uname) = ("console=ttyS0 quiet", &b"ID=inwit\n"[..], "6.12.1-inwit");
    let sbat = b"sbat,1,SBAT Version,sbat,1,https://example.com\n";
    let parts = UnifiedParts {
        kernel,
        initrd,
        command_line,
        os_release: Some(os_release),
        uname: Some(uname),
        sbat: Some(sbat),
    };
    let image = UnifiedKernel::build(&stub, &parts).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("image"), image.bytes()).unwrap();
    let sections: [(&str, &[u8]); 6] = [
        ("linux", kernel),
        ("initrd", initrd),
        ("cmdline", command_line.as_bytes()),
        ("osrel", os_release),
        ("uname", uname.as_bytes()),
        ("sbat", sbat),
    ];
    let mut objcopy = Command::new("objcopy");
    for (name, _) in sections {
        objcopy.arg("--dump-section").arg(format!(".{name}={}", path(name).display()));
    }
    let output = objcopy.arg(path("image")).arg(path("copy")).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    for (name, contents) in sections {
        assert!(fs::read(path(name)).unwrap() == contents, ".{name} is another one");
    }
    // And by the reader that predicts what it measures.
    let taken = UnifiedImage::parse(image.bytes()).unwrap().taken(None).unwrap();
    for (name, contents) in sections {
        let found = taken.iter().find(|(found, _)| found.strip_prefix('.') == Some(name));
        let same = found.map(|(_, found)| found.bytes() == contents);
        // Stubs of 252 know neither .uname nor .sbat.
        assert!(same.unwrap_or(matches!(name, "uname" | "sbat")), ".{name}");
    }
}

/// Names of this machine that a compiler is likely to write into what it builds.
fn places_of_this_machine(world: &World) -> Vec<Vec<u8>> {
    let of = |name: &str| std::env::var(name).ok().filter(|value| value.len() > 4);
    let mut places: Vec<String> =
        ["CARGO_HOME", "RUSTUP_HOME", "CARGO_TARGET_DIR"].into_iter().filter_map(of).collect();
    let home = std::env::home_dir().map(|home| home.display().to_string()).unwrap_or_default();
    places.extend([".cargo", ".rustup"].map(|folder| format!("{home}/{folder}")));
    places.push(world.repository().display().to_string());
    places.push(world.root().parent().unwrap().display().to_string());
    // In whatever place it is: the registry's folder is named for the host that the packages came from.
    places.extend(["registry/src/", "/home/", "/root/"].map(str::to_owned));
    places.into_iter().map(String::into_bytes).collect()
}

#[test]
fn the_trusted_binary_names_no_place_of_this_machine() {
    let Some(ground) = stage("places in the trusted binary") else { return };
    let binary = fs::read(&ground.programs.guest).unwrap();
    assert!(binary.len() > 1_000_000, "{} bytes", binary.len());
    // What is searched for would be found: panics name their source files, in remapped folders.
    assert!(binary.windows(8).any(|window| window == b"guest/sr" || window == b"channel."), "no source file is named");
    for place in places_of_this_machine(&ground.world) {
        let found = binary.windows(place.len()).position(|window| window == place);
        let around = |at: usize| {
            String::from_utf8_lossy(&binary[at.saturating_sub(40)..(at + 120).min(binary.len())]).into_owned()
        };
        assert!(found.is_none(), "{} is named: {:?}", String::from_utf8_lossy(&place), found.map(around));
    }
}

#[test]
fn the_trusted_binary_is_the_same_from_another_checkout() {
    let what = "the trusted binary built from another checkout";
    if std::env::var_os("INWIT_REPRO").is_none() {
        return not_run_here(what);
    }
    let Some(ground) = stage(what) else { return };
    let folder = tempfile::Builder::new().prefix("another-checkout-").tempdir().unwrap();
    let copy = folder.path().join("somewhere/else");
    copy_sources(ground.world.repository(), &copy);
    let mut cargo = Command::new("cargo");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CARGO")) {
        cargo.env_remove(name);
    }
    let target = folder.path().join("another-target");
    cargo.args(["guest", "--quiet", "--locked", "--offline"]).current_dir(&copy).env("CARGO_TARGET_DIR", &target);
    let output = cargo.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let there = fs::read(target.join("x86_64-unknown-linux-musl/guest/inwit-guest")).unwrap();
    let here = fs::read(&ground.programs.guest).unwrap();
    assert_eq!(here.len(), there.len());
    let different = here.iter().zip(&there).position(|(here, there)| here != there);
    assert_eq!(different, None, "the first byte that differs");
}

/// A heavy build, done where it is asked for; `INWIT_WORLD=required` asks for what needs a prepared world, not for this.
fn not_run_here(what: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "NOT RUN: {what}: builds for more than a minute; set INWIT_REPRO=1");
}

/// The files that version control knows, as they lie here.
fn copy_sources(from: &Path, to: &Path) {
    let listed = Command::new("git").args(["ls-files", "-z"]).current_dir(from).output().unwrap();
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let files = String::from_utf8(listed.stdout).unwrap();
    for file in files.split_terminator('\0').filter(|file| from.join(file).is_file()) {
        let copy = to.join(file);
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::copy(from.join(file), copy).unwrap();
    }
}
