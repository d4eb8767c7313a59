//! Options of `inwit-measure` that do not go together are refused in either order, and never left out in silence; files are
//! read once, whatever they are.

mod made_up;

use std::process::Stdio;

use inwit_measurements::reference::{Measured, ReferenceValues};
use inwit_measurements::sha256;
use made_up::{Folder, archive, refuse, succeed};

const NAMED: &str = "--agent agent --config config --name payments";

/// The options of a run in both orders; those of all subcommands also before the subcommand.
fn orders(subcommand: &str, first: &str, then: &str) -> Vec<String> {
    let mut orders = vec![format!("{subcommand} {first} {then}"), format!("{subcommand} {then} {first}")];
    if ["--agent", "--json", "--format"].iter().any(|option| then.starts_with(option)) {
        orders.push(format!("{then} {subcommand} {first}"));
    }
    orders
}

#[test]
fn what_is_not_measured_is_refused_in_any_order() {
    let folder = Folder::new("orders");
    let igvm = "--igvm guest.igvm";
    let svsm = "--ovmf OVMF.fd --svsm OVMF.fd --vars-size 4096";
    let ovmf = "--ovmf OVMF.fd";
    for (first, then) in [
        (igvm, NAMED),
        (igvm, "--append quiet"),
        (igvm, "--initrd initrd"),
        (igvm, "--kernel kernel"),
        (igvm, "--kernel kernel --initrd initrd"),
        (igvm, "--author-key agent --policy 0x30000"),
        (igvm, "--policy 0x30000"),
        (igvm, "--vars-size 4096"),
        (igvm, "--vars-file agent"),
        (igvm, "--svsm agent"),
        (igvm, "--vcpu-model 17 --vcpu-stepping 3"),
        (svsm, "--initrd initrd"),
        (svsm, "--append x"),
        (svsm, "--kernel kernel"),
        (svsm, "--mode snp"),
        (ovmf, "--initrd initrd"),
        (ovmf, "--append x"),
        (ovmf, "--policy 0x30000"),
        (ovmf, "--vars-file agent"),
        (ovmf, "--mode snp:svsm"),
        (ovmf, "--mode seves"),
        (ovmf, "--vcpu-model 17 --vcpu-stepping 3"),
        ("--ovmf OVMF.fd --vcpu-type EPYC-Milan", "--vcpu-model 17 --vcpu-stepping 3"),
        ("--ovmf OVMF.fd --vcpu-sig 0x00a20f10", "--vcpu-model 17 --vcpu-stepping 3"),
        ("--ovmf OVMF.fd --format corim", "--json"),
        ("--ovmf OVMF.fd --json", "--format corim"),
    ] {
        for arguments in orders("snp", first, then) {
            refuse(&folder.0, &arguments, 2);
        }
    }
    let machine_log = "--ovmf OVMF.fd --memory 512 --kernel kernel --machine-log guest.igvm";
    for then in [
        "--profile 1",
        "--fw-cfg a=agent",
        "--authority agent",
        "--boot-variable a=agent",
        "--acpi-loader agent --acpi-rsdp agent",
    ] {
        for arguments in orders("tdx", machine_log, then) {
            refuse(&folder.0, &arguments, 2);
        }
    }
    let digest = sha256(b"event");
    for (first, then) in [
        ("--log guest.igvm --initrd initrd", NAMED),
        ("--log guest.igvm", "--initrd initrd"),
        ("--uki kernel", "--append x"),
        ("--uki kernel", "--initrd initrd"),
        ("--log guest.igvm", "--profile 1"),
        (&format!("--ovmf OVMF.fd --kernel kernel --memory 512 --agent-event {digest}"), NAMED),
    ] {
        for arguments in orders("vtpm", first, then) {
            refuse(&folder.0, &arguments, 2);
        }
    }
}

/// Another calculator's options that change nothing are taken.
#[test]
fn options_that_say_the_same_are_taken() {
    let folder = Folder::new("same");
    let bare = succeed(&folder.0, "snp --ovmf OVMF.fd");
    assert_eq!(bare, succeed(&folder.0, "snp --ovmf OVMF.fd --mode snp"));
    assert_eq!(bare, succeed(&folder.0, "snp --ovmf OVMF.fd --append="));
    let empty = made_up::command(&folder.0, "snp --ovmf OVMF.fd --append").arg("").output().unwrap();
    assert_eq!(String::from_utf8(empty.stdout).unwrap(), bare);
    assert!(refuse(&folder.0, "snp --ovmf OVMF.fd --mode snp:svsm", 2).contains("--svsm"));
    assert!(refuse(&folder.0, "snp --ovmf OVMF.fd --mode sev", 2).contains("only SEV-SNP"));
}

#[test]
fn an_svsm_measures_no_agent() {
    let folder = Folder::new("svsm-agent");
    let svsm = "--ovmf OVMF.fd --svsm OVMF.fd --vars-size 4096";
    for arguments in orders("snp", svsm, NAMED) {
        assert!(refuse(&folder.0, &arguments, 3).contains("holds none"));
    }
    for arguments in orders("snp", &format!("{svsm} --initrd initrd"), NAMED) {
        assert!(refuse(&folder.0, &arguments, 2).contains("--svsm"));
    }
}

/// Clouds that boot a disk of the customer's measure no kernel: a digest can be told, but nothing starts so.
#[test]
fn a_cloud_without_kernels_holds_no_agent() {
    let folder = Folder::new("cloud");
    for vmm in ["ec2", "gce"] {
        let boot = format!("snp --ovmf OVMF.fd --kernel kernel --initrd initrd --vmm-type {vmm}");
        assert!(succeed(&folder.0, &boot).starts_with("launch_digest "));
        assert!(refuse(&folder.0, &format!("{boot} {NAMED}"), 3).contains(&format!("{vmm} starts no kernel")));
    }
}

/// What is checked, recorded and hashed are the same bytes, although a pipe gives them once.
#[cfg(unix)]
#[test]
fn a_pipe_is_read_once() {
    let folder = Folder::new("pipe");
    let boot = "snp --ovmf OVMF.fd --kernel kernel";
    let whole = succeed(&folder.0, &format!("{boot} --initrd initrd {NAMED}"));
    let through = |file: &str, arguments: &str| {
        let mut command = made_up::command(&folder.0, arguments);
        // A pipe, not the file itself, which could be read twice.
        let mut cat =
            std::process::Command::new("cat").arg(folder.0.join(file)).stdout(Stdio::piped()).spawn().unwrap();
        let output = command.stdin(cat.stdout.take().unwrap()).output().unwrap();
        cat.wait().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        ReferenceValues::from_toml(&String::from_utf8(output.stdout).unwrap()).unwrap()
    };
    let expected = ReferenceValues::from_toml(&whole).unwrap();
    assert!(matches!(expected.measured, Measured::Snp { .. }));
    let pipe = "/dev/stdin";
    for (file, arguments) in [
        ("initrd", format!("{boot} --initrd {pipe} {NAMED}")),
        ("agent", format!("{boot} --initrd initrd --agent {pipe} --config config --name payments")),
        ("config", format!("{boot} --initrd initrd --agent agent --config {pipe} --name payments")),
        ("kernel", format!("snp --ovmf OVMF.fd --kernel {pipe} --initrd initrd {NAMED}")),
    ] {
        let values = through(file, &arguments);
        assert_eq!((&values.measured, &values.agent), (&expected.measured, &expected.agent), "{file}");
        let of = |values: &ReferenceValues| {
            let record = values.made_from.clone().unwrap();
            record.files.iter().map(|file| (file.bytes, file.sha256)).collect::<Vec<_>>()
        };
        assert_eq!(of(&values), of(&expected), "{file}");
    }
}

#[test]
fn empty_and_endless_files_are_refused_by_name() {
    let folder = Folder::new("empty");
    folder.write("nothing", b"");
    folder.write("holds-nothing", &archive(&[("init", b"agent"), ("conf", b"config"), ("empty", b"")]));
    let boot = "snp --ovmf OVMF.fd --kernel kernel";
    for arguments in [
        format!("{boot} --initrd nothing"),
        format!("{boot} --initrd holds-nothing --agent nothing --config config --name payments"),
        format!("{boot} --initrd holds-nothing --agent agent --config nothing --name payments"),
        "snp --ovmf OVMF.fd --kernel nothing".to_owned(),
    ] {
        assert!(refuse(&folder.0, &arguments, 3).contains("\"nothing\" is empty"), "{arguments}");
    }
    if cfg!(unix) {
        assert!(refuse(&folder.0, "snp --ovmf /dev/zero", 3).contains("more than 67108864 bytes"));
        assert!(
            refuse(&folder.0, &format!("{boot} --initrd initrd --agent agent --config /dev/zero --name a"), 3)
                .contains("/dev/zero\" has more than")
        );
    }
}

/// A digest alone does not say that it is of one vCPU: whoever forgot --vcpus is told.
#[test]
fn a_digest_says_its_shape() {
    let folder = Folder::new("shape");
    let output = made_up::command(&folder.0, "snp --ovmf OVMF.fd").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("for 1 vCPU, CPU EPYC-v4 (0x00800f12), guest features 0x1, qemu"), "{said}");
    let text = String::from_utf8(output.stdout).unwrap();
    let shape = "--vcpus 3 --vcpu-type EPYC-Milan --guest-features 0x21";
    let json = succeed(&folder.0, &format!("snp --ovmf OVMF.fd {shape} --json"));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((json["vcpus"].as_u64(), json["cpu"].as_str()), (Some(3), Some("EPYC-Milan")));
    assert_eq!((json["guest_features"].as_str(), json["vmm"].as_str()), (Some("0x21"), Some("qemu")));
    assert_eq!(json["platform"].as_str(), Some("snp"));
    let again = succeed(&folder.0, &format!("snp --ovmf OVMF.fd {shape}"));
    assert_eq!(again, format!("launch_digest {}\n", json["launch_digest"].as_str().unwrap()));
    assert_ne!(again, text);
}

/// One folder for several clouds keeps the files of each.
#[test]
fn names_of_files_tell_the_vmm() {
    let folder = Folder::new("vmm-names");
    let random = ring::rand::SystemRandom::new();
    let algorithm = &ring::signature::ECDSA_P384_SHA384_FIXED_SIGNING;
    folder.write("id.der", ring::signature::EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap().as_ref());
    let snp = "snp --ovmf OVMF.fd --id-key id.der --output-dir out";
    let names = ["qemu", "ec2", "gce"].map(|vmm| succeed(&folder.0, &format!("{snp} --vmm-type {vmm}")));
    assert_eq!(names[0], "out/EPYC-v4-1-0x1.id-block\nout/EPYC-v4-1-0x1.id-auth\n");
    assert_eq!(names[1], "out/EPYC-v4-1-0x1-ec2.id-block\nout/EPYC-v4-1-0x1-ec2.id-auth\n");
    assert!(names[2].contains("-gce."));
}

#[test]
fn what_is_no_archive_is_told_as_such() {
    let folder = Folder::new("no-archive");
    folder.write("short", b"no archive");
    let boot = format!("snp --ovmf OVMF.fd --kernel kernel --initrd short {NAMED}");
    assert!(refuse(&folder.0, &boot, 3).contains("no newc archive"));
}
