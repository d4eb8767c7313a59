//! `inwit-measure` as its users meet it: values in text and JSON, files that can be registered, exit codes.
//!
//! Works on small made-up images; never needs firmware of a distribution.

mod made_up;

use inwit_measurements::reference::{Form, Measured, ReferenceValues, Stated};
use inwit_measurements::sha256;
use made_up::{Folder, archive, igvm, refuse, run, succeed};

#[test]
fn text_json_and_reference_values_agree() {
    let folder = Folder::new("agree");
    let snp = "snp --ovmf OVMF.fd --kernel kernel --initrd initrd --append quiet --vcpus 4 --vcpu-type EPYC-Milan";
    let text = succeed(&folder.0, snp);
    let digest = text.trim().strip_prefix("launch_digest ").unwrap();
    let json: serde_json::Value = serde_json::from_str(&succeed(&folder.0, &format!("{snp} --json"))).unwrap();
    assert_eq!((json["platform"].as_str(), json["launch_digest"].as_str()), (Some("snp"), Some(digest)));

    let named = format!("{snp} --agent agent --config config --name payments");
    let values = ReferenceValues::from_toml(&succeed(&folder.0, &named)).unwrap();
    assert_eq!(values, ReferenceValues::from_json(&succeed(&folder.0, &format!("{named} --json"))).unwrap());
    assert_eq!((values.name.as_str(), values.agent.executable), ("payments", sha256(b"agent")));
    assert_eq!(values.agent.configuration, sha256(b"config"));
    assert_eq!(values.measured, Measured::Snp { launch_digest: digest.parse().unwrap() });
    let record = values.made_from.as_ref().unwrap();
    assert_eq!((record.command_line.as_deref(), record.machine.vcpus.unwrap().get()), (Some("quiet"), 4));
    let initrd = record.initrd.as_ref().unwrap();
    assert_eq!((initrd.agent.as_deref(), initrd.configuration.as_deref()), (Some("init"), Some("conf")));
    let bare = ReferenceValues::from_toml(&succeed(&folder.0, &format!("{named} --without-record"))).unwrap();
    assert_eq!(bare, values.without_record());
}

#[test]
fn a_signature_replaces_the_model_of_the_same_signature() {
    let folder = Folder::new("signature");
    let with = |cpu: &str| succeed(&folder.0, &format!("snp --ovmf OVMF.fd {cpu}"));
    assert_eq!(with("--vcpu-type EPYC-Genoa"), with("--vcpu-sig 0x00a10f10"));
    assert_ne!(with("--vcpu-type EPYC-Genoa"), with("--vcpu-type EPYC-v4"));
    assert_eq!(with("--vcpu-type EPYC-v4"), with("--guest-features 0x1"), "the defaults that the help states");
    assert_eq!(with("--vcpu-family 25 --vcpu-model 17 --vcpu-stepping 0"), with("--vcpu-sig 0x00a10f10"));
    assert_ne!(with("--guest-features 0x21"), with("--guest-features 1"));
    assert_ne!(with("--vmm-type ec2"), with("--vmm-type gce"));
    assert_eq!(with("--vmm-type QEMU"), with("--vmm-type qemu"), "other tools write it so");
}

/// What is computed together is what is computed one by one.
#[test]
fn a_matrix_holds_every_combination() {
    let folder = Folder::new("matrix");
    let files = "snp --ovmf OVMF.fd --kernel kernel --initrd initrd";
    let all = "--vcpus 1,3-4 --vcpu-type EPYC-Milan,EPYC-Genoa --guest-features 0x1,0x21";
    let text = succeed(&folder.0, &format!("{files} {all}"));
    assert_eq!(text.lines().count(), 1 + 12, "{text}");
    let json: serde_json::Value = serde_json::from_str(&succeed(&folder.0, &format!("{files} {all} --json"))).unwrap();
    let rows = json.as_array().unwrap();
    assert_eq!(rows.len(), 12);
    for (row, line) in rows.iter().zip(text.lines().skip(1)) {
        let get = |field: &str| row[field].to_string().trim_matches('"').to_owned();
        let [vcpus, cpu, features] = ["vcpus", "cpu", "guest_features"].map(get);
        let one = format!("{files} --vcpus {vcpus} --vcpu-type {cpu} --guest-features {features}");
        let digest = get("launch_digest");
        assert_eq!(succeed(&folder.0, &one), format!("launch_digest {digest}\n"));
        let words: Vec<_> = line.split_whitespace().collect();
        assert_eq!(words, [vcpus, cpu, get("signature"), features, digest], "{line}");
    }
}

/// A file for each shape, each as it would be written alone but for its name.
#[test]
fn a_matrix_becomes_reference_values_that_can_be_registered() {
    let folder = Folder::new("matrix-files");
    let snp = "snp --ovmf OVMF.fd --kernel kernel --initrd initrd";
    let named = "--agent agent --config config --name payments";
    assert!(refuse(&folder.0, &format!("{snp} --vcpus 1-2 {named}"), 2).contains("--output-dir"));
    assert!(refuse(&folder.0, &format!("{snp} --vcpus 1-2 --output-dir out"), 2).contains("--agent"));
    let written = succeed(&folder.0, &format!("{snp} --vcpus 1-2 {named} --output-dir out"));
    assert_eq!(written, "out/EPYC-v4-1-0x1.toml\nout/EPYC-v4-2-0x1.toml\n");
    for (vcpus, path) in [1, 2].into_iter().zip(written.lines()) {
        let values = ReferenceValues::from_toml(&std::fs::read_to_string(folder.0.join(path)).unwrap()).unwrap();
        let alone = succeed(&folder.0, &format!("{snp} --vcpus {vcpus} {named}"));
        let alone = ReferenceValues::from_toml(&alone).unwrap();
        assert_eq!((&values.measured, &values.agent), (&alone.measured, &alone.agent));
        assert_eq!(values.name, format!("payments-EPYC-v4-{vcpus}-0x1"));
    }
}

#[test]
fn unfit_inputs_are_refused_with_their_cause() {
    let folder = Folder::new("refused");
    folder.write("noise", &[7; 4096]);
    assert!(refuse(&folder.0, "snp --ovmf noise", 3).contains("no OVMF footer table"));
    assert!(refuse(&folder.0, "snp --ovmf absent", 3).contains("absent"));
    assert!(refuse(&folder.0, "tdx --ovmf OVMF.fd --kernel kernel --memory 512", 3).contains("TDVF"));
    let digest = sha256(b"pei");
    let vtpm = format!("vtpm --ovmf OVMF.fd --kernel kernel --memory 512 --pei-digest {digest}");
    assert!(refuse(&folder.0, &vtpm, 3).contains("no LZMA-compressed firmware volume"));
    let uki = format!("vtpm --ovmf OVMF.fd --uki noise --pei-digest {digest}");
    assert!(refuse(&folder.0, &uki, 3).contains("not a PE image"));
    // What PCR 0 is computed for is a kind of machine that nobody can see from here, so it is named.
    let unnamed = refuse(&folder.0, "vtpm --ovmf OVMF.fd --uki noise --memory 512", 2);
    assert!(unnamed.contains("--pei computed-q35-nosmm-40bit"), "{unnamed}");
    let computed = "vtpm --ovmf OVMF.fd --uki noise --memory 512 --pei computed-q35-nosmm-40bit";
    let computed = refuse(&folder.0, computed, 3);
    assert!(computed.contains("--machine-log"), "{computed}");
    assert!(refuse(&folder.0, "vtpm --log noise --events", 3).contains("not a crypto-agile event log"));
    let control = "snp --ovmf OVMF.fd --kernel kernel --initrd initrd --agent agent --config config --name a\u{7}b";
    assert!(refuse(&folder.0, control, 3).contains("no control characters"));
}

/// Reference Values whose measurement does not hold the agent would let a host's own image name it.
#[test]
fn an_agent_that_is_not_measured_is_not_named() {
    let folder = Folder::new("unmeasured");
    let named = "--agent agent --config config --name payments";
    for without in
        ["snp --ovmf OVMF.fd", "snp --ovmf OVMF.fd --kernel kernel", "tdx --ovmf OVMF.fd --kernel kernel --memory 512"]
    {
        assert!(refuse(&folder.0, &format!("{without} {named}"), 3).contains("--initrd"), "{without}");
    }
    let good = archive(&[("init", b"agent"), ("conf", b"config")]);
    let later = [good.as_slice(), &archive(&[("conf", b"another")])].concat();
    folder.write("replaced", &later);
    folder.write("compressed", &[&[0x1f, 0x8b], good.as_slice()].concat());
    folder.write("inside", &archive(&[("init", b"agent"), ("conf", b"....config....")]));
    folder.write("cut", &good[..good.len() - 1]);
    folder.write("compressed-after", &[good.as_slice(), &[0x1f, 0x8b]].concat());
    folder.write("decoy", &archive(&[("init", b"evil"), ("decoy", b"agent"), ("conf", b"config")]));
    folder.write(
        "not-executable",
        &String::from_utf8(good.clone()).unwrap().replace("000081ed", "000081a4").into_bytes(),
    );
    folder.write("no-init", &archive(&[("sbin", b"agent"), ("conf", b"config")]));
    for (initrd, cause) in [
        ("foreign", "\"config\" is not inside"),
        ("replaced", "\"config\" is not inside"),
        ("inside", "\"config\" is not inside"),
        ("compressed", "compressed with gzip"),
        ("compressed-after", "compressed with gzip"),
        ("decoy", "the kernel starts \"/init\" of this initrd, and that is not \"agent\": there is another file"),
        ("not-executable", "it is not executable there"),
        ("no-init", "no plain file"),
        ("cut", "cut short"),
    ] {
        let refusal = refuse(&folder.0, &format!("snp --ovmf OVMF.fd --kernel kernel --initrd {initrd} {named}"), 3);
        assert!(refusal.contains(cause), "{initrd}: {refusal}");
    }
}

/// The command line decides what the kernel starts; an agent elsewhere is named only when that is asked for.
#[test]
fn an_agent_that_the_kernel_does_not_start_is_named_on_demand_alone() {
    let folder = Folder::new("service");
    folder.write("initrd", &archive(&[("a", b"agent"), ("init", b"other"), ("z", b"agent"), ("conf", b"config")]));
    let named = "snp --ovmf OVMF.fd --kernel kernel --initrd initrd --agent agent --config config --name payments";
    let recorded = |output: &std::process::Output| {
        let values = ReferenceValues::from_toml(std::str::from_utf8(&output.stdout).unwrap()).unwrap();
        values.made_from.unwrap().initrd.unwrap().agent
    };
    assert!(refuse(&folder.0, named, 3).contains("--agent-path"));
    let started = run(&folder.0, &format!("{named} --append rdinit=/z"));
    assert_eq!((recorded(&started).as_deref(), started.stderr.as_slice()), (Some("z"), &b""[..]));
    assert!(refuse(&folder.0, &format!("{named} --append rdinit=/init"), 3).contains("another file"));
    assert!(refuse(&folder.0, &format!("{named} --append noinitrd"), 3).contains("noinitrd"));
    let service = run(&folder.0, &format!("{named} --agent-path /z"));
    assert_eq!(recorded(&service).as_deref(), Some("z"));
    let said = String::from_utf8(service.stderr).unwrap();
    assert!(said.contains("nothing makes the kernel start the agent at /z: it starts /init"), "{said}");
    assert!(refuse(&folder.0, &format!("{named} --agent-path /init"), 3).contains("another file"));
    assert!(refuse(&folder.0, "snp --ovmf OVMF.fd --agent-path /z", 2).contains("--agent"));
}

#[test]
fn incomplete_command_lines_are_usage_errors() {
    let folder = Folder::new("usage");
    for arguments in [
        "snp",
        "snp --ovmf OVMF.fd --initrd kernel",
        "snp --ovmf OVMF.fd --append quiet",
        "snp --ovmf OVMF.fd --vcpus 0",
        "snp --ovmf OVMF.fd --vcpu-type Skylake",
        "snp --ovmf OVMF.fd --vcpu-type EPYC --vcpu-sig 1",
        "snp --ovmf OVMF.fd --guest-features 0x20",
        "snp --ovmf OVMF.fd --guest-features 33",
        "snp --ovmf OVMF.fd --vcpus 4-1",
        "snp --ovmf OVMF.fd --vcpus 1-4096 --vcpu-type EPYC,EPYC-v4",
        "snp --ovmf OVMF.fd --vcpu-family 25",
        "snp --ovmf OVMF.fd --vcpu-type EPYC --vcpu-family 25 --vcpu-model 1 --vcpu-stepping 1",
        "snp --ovmf OVMF.fd --vcpu-family 25 --vcpu-model 1 --vcpu-stepping 16",
        "snp --ovmf OVMF.fd --vmm-type xen",
        "snp --ovmf OVMF.fd --svsm OVMF.fd",
        "snp --ovmf OVMF.fd --vars-size 4096",
        "snp --ovmf OVMF.fd --agent agent",
        "snp --ovmf OVMF.fd --name payments",
        "vtpm --ovmf OVMF.fd --memory 512 --machine-log log",
        "vtpm --ovmf OVMF.fd --kernel kernel --machine-log log",
        "vtpm --ovmf OVMF.fd --uki kernel --initrd initrd --machine-log log",
        "vtpm --ovmf OVMF.fd --uki kernel --append quiet --machine-log log",
        "vtpm --log log --uki kernel",
        "vtpm --ovmf OVMF.fd --uki kernel",
    ] {
        refuse(&folder.0, arguments, 2);
    }
}

/// Reference Values as each form, and from each form back.
#[test]
fn every_form_is_written_and_converted() {
    let folder = Folder::new("forms");
    let named = "snp --ovmf OVMF.fd --kernel kernel --initrd initrd --agent agent --config config --name payments";
    let toml = succeed(&folder.0, &format!("{named} --without-record"));
    let values = ReferenceValues::from_toml(&toml).unwrap();
    for form in ["toml", "json", "corim", "rvps"] {
        let output = run(&folder.0, &format!("{named} --format {form}"));
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert_eq!(ReferenceValues::read(&output.stdout).unwrap().without_record(), values, "{form}");
        folder.write(form, &output.stdout);
    }
    assert_eq!(succeed(&folder.0, &format!("{named} --format json")), succeed(&folder.0, &format!("{named} --json")));
    for from in ["toml", "json", "corim", "rvps"] {
        for to in ["toml", "json", "corim", "rvps"] {
            let output = run(&folder.0, &format!("convert {from} --to {to}"));
            assert_eq!(output.status.code(), Some(0), "{output:?}");
            assert_eq!(ReferenceValues::read(&output.stdout).unwrap().without_record(), values, "{from} to {to}");
        }
    }
}

/// What an event log leads to is no Reference Value in any form, with or without an agent.
#[test]
fn a_replayed_log_is_no_reference_value() {
    let folder = Folder::new("replayed");
    let (mut log, mut header) =
        (vec![0, 0, 0, 0, 3, 0, 0, 0], b"Spec ID Event03\0\0\0\0\0\0\x02\0\x02\x01\0\0\0".to_vec());
    header.extend([0x0b, 0, 32, 0, 0]);
    log.resize(28, 0);
    log.extend((header.len() as u32).to_le_bytes());
    log.extend(header);
    folder.write("log", &log);
    for events in ["", " --events"] {
        assert!(run(&folder.0, &format!("vtpm --log log{events} --json")).status.success());
        for form in ["rvps", "corim"] {
            let refused = refuse(&folder.0, &format!("vtpm --log log{events} --format {form}"), 3);
            assert!(refused.contains("event log says"), "{refused}");
        }
    }
}

/// What other people's verifiers take needs no agent of ours; what ours takes does.
#[test]
fn bare_values_go_to_others_and_come_back_with_an_agent() {
    let folder = Folder::new("bare-forms");
    let snp = "snp --ovmf OVMF.fd --kernel kernel --initrd initrd";
    for form in ["corim", "rvps"] {
        let output = run(&folder.0, &format!("{snp} --format {form}"));
        folder.write("bare", &output.stdout);
        let stated = Stated::read(&output.stdout).unwrap();
        assert_eq!((stated.agent, stated.validity.is_unbounded()), (None, true), "{form}");
        assert!(refuse(&folder.0, "convert bare --to toml", 3).contains("state no agent"), "{form}");
        let completed = succeed(&folder.0, "convert bare --to toml --agent agent --config config --name payments");
        let values = ReferenceValues::from_toml(&completed).unwrap();
        assert_eq!((values.measured, values.agent.executable), (stated.measured, sha256(b"agent")));
    }
    let matrix = run(&folder.0, &format!("{snp} --vcpus 1-3 --format rvps"));
    folder.write("matrix", &matrix.stdout);
    assert!(refuse(&folder.0, "convert matrix --to corim", 3).contains("it has 3 values"));
    assert!(refuse(&folder.0, &format!("{snp} --vcpus 1-3 --format corim"), 2).contains("3 sets of values"));
    assert!(refuse(&folder.0, &format!("{snp} --format toml"), 2).contains("--agent"));
}

/// An end of validity is given, kept, and never dropped unasked.
#[test]
fn an_end_is_kept_until_it_is_dropped_on_demand() {
    let folder = Folder::new("ends");
    let snp = "snp --ovmf OVMF.fd --kernel kernel --initrd initrd --agent agent --config config --name payments";
    let end = "2027-01-31T12:00:00Z";
    for form in ["corim", "rvps"] {
        let output = run(&folder.0, &format!("{snp} --format {form} --expires {end}"));
        let stated = Stated::read(&output.stdout).unwrap();
        assert_eq!(stated.validity.not_after.map(|end| end.to_string()).as_deref(), Some(end), "{form}");
        folder.write("limited", &output.stdout);
        assert!(refuse(&folder.0, "convert limited --to toml", 3).contains(end), "{form}");
        assert!(ReferenceValues::from_toml(&succeed(&folder.0, "convert limited --to toml --forget-validity")).is_ok());
        let other = run(&folder.0, "convert limited --to rvps");
        assert_eq!(Stated::read(&other.stdout).unwrap(), Stated { form: Form::Rvps, ..stated }, "{form}");
        // Somebody else's end is shortened, never prolonged unasked.
        let (sooner, later) = ("2026-12-31T00:00:00Z", "2099-01-01T00:00:00Z");
        let until = |arguments: &str| {
            let output = run(&folder.0, &format!("convert limited --to rvps --expires {arguments}"));
            Stated::read(&output.stdout).unwrap().validity.not_after.unwrap().to_string()
        };
        assert_eq!(until(sooner), sooner, "{form}");
        let refused = refuse(&folder.0, &format!("convert limited --to rvps --expires {later}"), 3);
        assert!(refused.contains(end) && refused.contains("--forget-validity"), "{refused}");
        assert_eq!(until(&format!("{later} --forget-validity")), later, "{form}");
    }
    assert!(refuse(&folder.0, &format!("{snp} --expires {end}"), 2).contains("--expires"));
    assert!(refuse(&folder.0, &format!("{snp} --format rvps --expires soon"), 2).contains("RFC 3339"));
    assert!(refuse(&folder.0, &format!("{snp} --format rvps --json"), 2).contains("cannot be used with"));
}

/// What is signed here is what `id-block check` verifies, as printed and as files.
#[test]
fn id_blocks_are_signed_and_checked() {
    let folder = Folder::new("id-block");
    let random = ring::rand::SystemRandom::new();
    for name in ["id.der", "author.der"] {
        let algorithm = &ring::signature::ECDSA_P384_SHA384_FIXED_SIGNING;
        folder.write(name, ring::signature::EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap().as_ref());
    }
    let numbers = "--family-id 000102030405060708090a0b0c0d0e0f --guest-svn 7 --policy 0xb0000";
    let snp = format!("snp --ovmf OVMF.fd --id-key id.der --author-key author.der {numbers}");
    let text = succeed(&folder.0, &snp);
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(&format!("{name} "))).unwrap().to_owned();
    folder.write("block", field("id_block").as_bytes());
    folder.write("auth", field("id_auth").as_bytes());
    let check = "id-block check --id-block block --id-auth auth";
    let said = succeed(&folder.0, check);
    for line in ["family_id 000102030405060708090a0b0c0d0e0f", "guest_svn 7", "policy 0xb0000"] {
        assert!(said.lines().any(|said| said == line), "{said}");
    }
    for name in ["launch_digest", "id_key_digest", "author_key_digest"] {
        assert!(said.contains(&field(name)), "{said}");
    }
    let digest = field("launch_digest");
    assert_eq!(format!("launch_digest {digest}\n"), succeed(&folder.0, "snp --ovmf OVMF.fd"));
    succeed(&folder.0, &format!("{check} --launch-digest {digest}"));
    let other = digest.replace(&digest[..1], if digest.starts_with('0') { "1" } else { "0" });
    assert!(refuse(&folder.0, &format!("{check} --launch-digest {other}"), 3).contains(&digest));
    folder.write("auth", field("id_auth").replace(&field("id_auth")[100..104], "AAAA").as_bytes());
    assert!(refuse(&folder.0, check, 3).contains("does not verify"));

    let written = succeed(&folder.0, &format!("{snp} --vcpus 1,2 --output-dir out"));
    assert_eq!(written.lines().count(), 4, "{written}");
    let of = "--id-block out/EPYC-v4-2-0x1.id-block --id-auth out/EPYC-v4-2-0x1.id-auth";
    let said: serde_json::Value =
        serde_json::from_str(&succeed(&folder.0, &format!("id-block check {of} --json"))).unwrap();
    let two = succeed(&folder.0, "snp --ovmf OVMF.fd --vcpus 2");
    assert_eq!(two, format!("launch_digest {}\n", said["launch_digest"].as_str().unwrap()));
    for usage in ["--vcpus 1,2", "--policy 0x1", "--family-id 00", "--format corim"] {
        refuse(&folder.0, &format!("{snp} {usage}"), 2);
    }
    refuse(&folder.0, "snp --ovmf OVMF.fd --author-key author.der", 2);
    assert!(refuse(&folder.0, "snp --ovmf OVMF.fd --id-key OVMF.fd", 3).contains("OVMF.fd: no private key"));
}

#[test]
fn an_igvm_file_says_its_whole_launch() {
    let folder = Folder::new("igvm");
    let file = igvm(None);
    folder.write("guest.igvm", &file);
    let told = |loader| {
        let launch = inwit_measurements::igvm::Igvm::parse(&file).unwrap().snp_launch(loader).unwrap();
        let none = "none in the file: whoever loads it chooses, debugging included";
        let digest = launch.digest;
        format!("launch_digest {digest}\n# policy {none}\n# ID block none\n# vCPUs whose registers are set: 1\n")
    };
    let qemu = told(inwit_measurements::igvm::Loader::Qemu);
    assert_eq!(succeed(&folder.0, "snp --igvm guest.igvm"), qemu);
    assert_eq!(succeed(&folder.0, "snp --igvm guest.igvm --loader qemu"), qemu);
    let format = told(inwit_measurements::igvm::Loader::Format);
    assert_eq!(succeed(&folder.0, "snp --igvm guest.igvm --loader format"), format);
    assert_ne!(format, qemu, "the parameters stand between the pages");
    assert!(Stated::read(&run(&folder.0, "snp --igvm guest.igvm --format rvps").stdout).is_ok());
    folder.write("cut.igvm", &file[..file.len() - 1]);
    assert!(refuse(&folder.0, "snp --igvm cut.igvm", 3).contains("cut short"));
    assert!(refuse(&folder.0, "snp --igvm OVMF.fd", 3).contains("not an IGVM file"));
    for more in [
        "--ovmf OVMF.fd",
        "--kernel kernel",
        "--vcpus 2",
        "--vcpu-type EPYC",
        "--guest-features 0x21",
        "--agent agent --config config --name payments",
    ] {
        refuse(&folder.0, &format!("snp --igvm guest.igvm {more}"), 2);
    }
    refuse(&folder.0, "snp --ovmf OVMF.fd --loader qemu", 2);
}

/// A digest does not tell whether the host may debug the guest.
#[test]
fn an_igvm_file_s_policy_is_told_beside_its_digest() {
    let folder = Folder::new("igvm-policy");
    for (policy, text, debug) in
        [(0x3_0000, "0x30000: the host may not debug", false), (0xb_0000, "0xb0000: the host MAY DEBUG", true)]
    {
        folder.write("guest.igvm", &igvm(Some(policy)));
        let told = succeed(&folder.0, "snp --igvm guest.igvm");
        assert!(told.contains(text), "{told}");
        let json: serde_json::Value =
            serde_json::from_str(&succeed(&folder.0, "snp --igvm guest.igvm --json")).unwrap();
        let said = serde_json::json!({
            "policy": format!("{policy:#x}"), "debug_allowed": debug, "id_block": false, "vcpus": 1,
        });
        assert_eq!(json["igvm"], said);
        assert!(told.starts_with(&format!("launch_digest {}\n", json["launch_digest"].as_str().unwrap())));
        // Both forms are still a measurement for those who read one.
        for actual in [told, json.to_string()] {
            let actual = inwit_measurements::explain::Actual::read(actual.as_bytes()).unwrap();
            assert!(actual.registers.contains_key("launch_digest"));
        }
    }
}
