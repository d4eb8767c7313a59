//! SNP launch digests against an independent calculator: every firmware that is here, 1 to 64 vCPUs, every CPU type it
//! knows, several guest features, three hypervisors, kernels and command lines.
//!
//! The calculator runs as one process. It is believed for nothing but this comparison.

#[path = "../../measurements/tests/vectors/mod.rs"]
mod vectors;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use inwit_measurements::snp::{BeforeVcpus, CpuSignature, DirectBoot, FirmwareLaunch, GuestFeatures, SvsmImages, Vmm};
use inwit_tests::world::World;
use inwit_tests::world::calculator;
use inwit_tests::world::firmware::Launch;
use inwit_tests::world::setup::{Step, ready_or_told};
use serde_json::json;

/// Each job is answered with the digests for 1 to 64 vCPUs: the calculator's own steps, gone on from count to count. Where
/// a job asks for it, one more by its one-call function, so that the steps are held to that too.
const SCRIPT: &str = r#"
import functools, json, sys
from sevsnpmeasure import guest, vcpu_types
from sevsnpmeasure.gctx import GCTX
from sevsnpmeasure.ovmf import OVMF, SVSM
from sevsnpmeasure.sev_hashes import SevHashes
from sevsnpmeasure.sev_mode import SevMode
from sevsnpmeasure.vmm_types import VMMType
from sevsnpmeasure.vmsa import VMSA, VMSA_SVSM

print(json.dumps(vcpu_types.CPU_SIGS))
print(json.dumps([vcpu_types.cpu_sig(f, m, s) for f in (6, 15, 16, 23, 25, 26, 255) for m in range(256) for s in range(16)]))

@functools.cache
def image(path):
    return OVMF(path), guest.calc_snp_ovmf_hash(path)

@functools.cache
def with_svsm(path, svsm, variables):
    ovmf = OVMF(path)
    svsm = SVSM(svsm, end_at=ovmf.gpa() - variables)
    gctx = GCTX()
    gctx.update_normal_pages(ovmf.gpa(), ovmf.data())
    gctx.update_normal_pages(svsm.gpa(), svsm.data())
    guest.snp_update_metadata_pages(gctx, svsm, None, VMMType.QEMU)
    return gctx.ld(), svsm.sev_es_reset_eip()

@functools.cache
def hashes(kernel, initrd, append):
    return SevHashes(kernel, initrd, append) if kernel else None

for line in sys.stdin:
    job = json.loads(line)
    path, svsm = job["firmware"], job["svsm"]
    files = (job["kernel"], job["initrd"], job["append"])
    vmm, cpu, features = VMMType[job["vmm"]], job["cpu"], job["features"]
    if svsm:
        ld, eip = with_svsm(path, svsm, job["variables"])
        gctx, vmsa = GCTX(ld), VMSA_SVSM(eip, cpu)
    else:
        ovmf, seed = image(path)
        gctx = GCTX(seed)
        guest.snp_update_metadata_pages(gctx, ovmf, hashes(*files), vmm)
        vmsa = VMSA(SevMode.SEV_SNP, ovmf.sev_es_reset_eip(), cpu, features, vmm)
    answers = []
    for page in vmsa.pages(64):
        gctx.update_vmsa_page(page)
        answers.append(gctx.hex_ld())
    if job["vcpus"]:
        mode = SevMode.SEV_SNP_SVSM if svsm else SevMode.SEV_SNP
        one = guest.calc_launch_digest(mode, job["vcpus"], cpu, path, *files, features, '', vmm, False, svsm, job["variables"])
        answers.append(one.hex())
    print(" ".join(answers))
"#;

/// A direct boot: kernel, initial ramdisk and command line.
type Boot = (&'static str, Option<&'static str>, &'static str);

const BOOTS: [Boot; 7] = [
    ("kernel", Some("initrd"), ""),
    ("kernel", Some("initrd"), "console=ttyS0 loglevel=7"),
    ("kernel", Some("initrd"), " spaces at the ends "),
    ("kernel", Some("initrd"), "a\ttab  two spaces \"quotes\" ä"),
    ("kernel", Some("empty"), "quiet"),
    ("kernel", None, "quiet"),
    ("empty", None, ""),
];

struct Case {
    ours: BeforeVcpus,
    cpu: CpuSignature,
    features: u64,
    job: serde_json::Value,
}

struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn make() -> Files {
        let folder = tempfile::tempdir().unwrap();
        for (name, contents) in [("kernel", "not quite a kernel"), ("initrd", "not quite an initrd"), ("empty", "")] {
            std::fs::write(folder.path().join(name), contents).unwrap();
        }
        Files { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    /// A vector, unpacked where it is packed.
    fn vector(&self, name: &str) -> Option<PathBuf> {
        let Some(bytes) = vectors::vector(name) else {
            let _ = writeln!(std::io::stderr(), "NOT RUN: comparison on the vector {name}");
            return None;
        };
        let path = self.path(name.trim_end_matches(".gz"));
        std::fs::write(&path, bytes).unwrap();
        Some(path)
    }
}

/// Everything that starts from an OVMF image alone.
fn ovmf_cases(files: &Files, path: &Path, cases: &mut Vec<Case>) {
    let firmware = FirmwareLaunch::measure(&std::fs::read(path).unwrap()).unwrap();
    // What is stored must give the same digests as what was measured.
    let firmware: FirmwareLaunch = serde_json::from_str(&serde_json::to_string(&firmware).unwrap()).unwrap();
    let boots = if firmware.hash_table_area().is_some() { &BOOTS[..] } else { &[] };
    for boot in [None].into_iter().chain(boots.iter().map(Some)) {
        let direct = boot.map(|(kernel, initrd, append)| {
            DirectBoot::measure(&files.bytes(kernel), &initrd.map(|name| files.bytes(name)).unwrap_or_default(), append)
        });
        let direct = direct.transpose().unwrap();
        for vmm in Vmm::ALL {
            let ours = firmware.before_vcpus(direct.as_ref(), vmm).unwrap();
            for cpu in cpus(vmm) {
                for features in [0x1, 0x21, 0x3, 0x3ff] {
                    let vmm = if vmm == Vmm::Qemu { "QEMU" } else { vmm.name() };
                    let job = json!({
                        "firmware": path, "svsm": "", "variables": 0, "vmm": vmm, "cpu": cpu.raw(), "features": features,
                        "kernel": boot.map(|(kernel, ..)| files.path(kernel)),
                        "initrd": boot.and_then(|(_, initrd, _)| *initrd).map(|initrd| files.path(initrd)),
                        "append": boot.map(|(.., append)| *append),
                    });
                    cases.push(Case { ours, cpu, features, job });
                }
            }
        }
    }
}

/// All signatures that have a name, and two that have none; EC2 and GCE hand over none of them.
fn cpus(vmm: Vmm) -> Vec<CpuSignature> {
    let unnamed = [0x00a2_0f12, u32::MAX].map(CpuSignature::from_raw);
    let all = CpuSignature::named().map(|(_, signature)| signature).chain(unnamed);
    all.take(if vmm == Vmm::Qemu { 7 } else { 2 }).collect()
}

/// The calculator starts SVSMs with SEV_FEATURES 1, whatever it is told.
fn svsm_cases(path: &Path, svsm: &Path, cases: &mut Vec<Case>) {
    let bytes = |path| std::fs::read(path).unwrap();
    for variables_bytes in [0x8_4000, 0x1000, 0] {
        let images = SvsmImages { firmware: &bytes(path), variables_bytes, svsm: &bytes(svsm) };
        let ours = images.measure().unwrap().before_vcpus(None, Vmm::Qemu).unwrap();
        for cpu in cpus(Vmm::Qemu) {
            let job = json!({
                "firmware": path, "svsm": svsm, "variables": variables_bytes, "vmm": "QEMU", "cpu": cpu.raw(),
                "features": 1, "kernel": null, "initrd": null, "append": null,
            });
            cases.push(Case { ours, cpu, features: 1, job });
        }
    }
}

fn firmwares(world: &World, files: &Files) -> Vec<PathBuf> {
    let launch = Launch::ALL.map(|launch| launch.cached(world).unwrap().unwrap().path);
    // Plain builds with variables and without; the 4 MiB ones of the distribution carry no SEV metadata.
    let plain = ["/usr/share/ovmf/OVMF.fd", "/usr/share/OVMF/OVMF_CODE.fd"];
    let plain = plain.map(PathBuf::from).into_iter().filter(|path| path.exists());
    let vectors = ["ovmf_AmdSev_suffix.bin", "ovmf_OvmfX64_suffix.bin", "svsm_ovmf.fd.gz"];
    launch.into_iter().chain(plain).chain(vectors.iter().filter_map(|name| files.vector(name))).collect()
}

#[test]
fn an_independent_calculator_agrees_on_every_launch_digest() {
    let world = World::here();
    if !ready_or_told(&world, "launch digest comparison", &[Step::LaunchFirmware, Step::Calculator]).unwrap() {
        return;
    }
    let begun = Instant::now();
    let files = Files::make();
    let firmwares = firmwares(&world, &files);
    let mut cases = Vec::new();
    for path in &firmwares {
        ovmf_cases(&files, path, &mut cases);
    }
    if let (Some(path), Some(svsm)) = (files.vector("svsm_ovmf.fd.gz"), files.vector("svsm.bin.gz")) {
        svsm_cases(&path, &svsm, &mut cases);
    }
    assert!(cases.len() > 500, "the firmware builds that every set-up has give more than {}", cases.len());
    let compared = compare(&world, &mut cases);
    let (images, seconds) = (firmwares.len(), begun.elapsed().as_secs_f64());
    let _ =
        writeln!(std::io::stderr(), "{compared} launch digests agree over {images} firmware images in {seconds:.1} s");
}

/// Asks the calculator for everything and gives how many digests agreed.
fn compare(world: &World, cases: &mut [Case]) -> usize {
    let mut command = calculator::python(world, SCRIPT).unwrap();
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut questions = String::new();
    for (number, case) in cases.iter_mut().enumerate() {
        // The one-call function reads and hashes the whole image: asked now and then, of changing counts.
        case.job["vcpus"] = if number % 41 == 0 { (number % 64 + 1).into() } else { 0.into() };
        questions += &format!("{}\n", case.job);
    }
    let mut input = child.stdin.take().unwrap();
    let asking = std::thread::spawn(move || input.write_all(questions.as_bytes()));
    let mut answers = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut answer = || answers.next().expect("an answer for each question").unwrap();
    check_signatures(&answer(), &answer());
    let mut compared = 0;
    for case in cases.iter() {
        let features = GuestFeatures::from_raw(case.features).unwrap();
        let mut ours: Vec<String> =
            case.ours.each_count(case.cpu, features).take(64).map(|digest| digest.to_string()).collect();
        if let Some(asked) = case.job["vcpus"].as_u64().filter(|count| *count > 0) {
            ours.push(ours[asked as usize - 1].clone());
        }
        let answer = answer();
        let theirs: Vec<&str> = answer.split(' ').collect();
        assert_eq!(ours, theirs, "{}", case.job);
        compared += ours.len();
    }
    assert!(answers.next().is_none());
    asking.join().unwrap().unwrap();
    assert!(child.wait().unwrap().success());
    compared
}

/// Names and encoding of CPU signatures.
fn check_signatures(named: &str, encoded: &str) {
    let named: BTreeMap<String, u32> = serde_json::from_str(named).unwrap();
    assert!(named.len() >= 16);
    for (name, signature) in named {
        assert_eq!(name.parse(), Ok(CpuSignature::from_raw(signature)), "{name}");
    }
    let encoded: Vec<u32> = serde_json::from_str(encoded).unwrap();
    let mut theirs = encoded.into_iter();
    for family in [6, 15, 16, 23, 25, 26, 255] {
        for (model, stepping) in (0..=255).flat_map(|model| (0..16).map(move |stepping| (model, stepping))) {
            let ours = CpuSignature::encode(family, model, stepping).raw();
            assert_eq!(Some(ours), theirs.next(), "{family} {model} {stepping}");
        }
    }
}
