//! SNP launch digests of whole firmware images, against recorded values and against an independent calculator.
//!
//! Inputs that a machine may lack are named by environment variables; what does not run is said on standard error:
//! `INWIT_VECTORS` (collected vectors), `INWIT_OVMF` (a plain OVMF image), `INWIT_OVMF_AMDSEV` (a build with kernel
//! hashes), `INWIT_SEV_SNP_MEASURE` (a Python that has the package `sev-snp-measure` 0.0.13).

use std::io::Write;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::process::Command;

use inwit_measurements::snp::{CpuSignature, DirectBoot, GuestFeatures, MeasureError, Vmm, launch_digest};
use inwit_measurements::{Digest, sha256};

fn not_run(what: &str) {
    // Written past the harness, which would swallow it for a test that passes.
    let _ = writeln!(std::io::stderr(), "NOT RUN: {what}");
}

fn from_environment(variable: &str, default: &str) -> Option<PathBuf> {
    let path = std::env::var_os(variable).map_or_else(|| PathBuf::from(default), PathBuf::from);
    path.exists().then_some(path)
}

/// Where the set-up of the virtual machine tests puts the build with kernel hashes.
const AMDSEV: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../target/world/firmware/ovmf-amdsev/usr/share/ovmf/OVMF.amdsev.fd");

fn vectors() -> Option<PathBuf> {
    from_environment("INWIT_VECTORS", concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/vectors"))
}

/// A firmware image with kernel hashes support: the last page of a real build, itself a complete image.
fn suffix() -> Option<PathBuf> {
    Some(vectors()?.join("virtee+sev-snp-measure/ovmf_AmdSev_suffix.bin")).filter(|path| path.exists())
}

fn measure(firmware: &[u8], boot: Option<&DirectBoot>, vcpus: u16, cpu: &str, features: u64) -> String {
    let vcpus = NonZeroU16::new(vcpus).unwrap();
    let features = GuestFeatures::from_raw(features).unwrap();
    let digest = launch_digest(firmware, boot, vcpus, cpu.parse().unwrap(), features, Vmm::Qemu).unwrap();
    Digest::from_bytes(digest).to_string()
}

/// Debian ovmf 2022.11-6+deb12u2; values recorded with an independent calculator.
#[test]
fn a_recorded_firmware_has_its_recorded_digests() {
    const KNOWN: &str = "7b456907dd0786d415999e801a1ac4637b8ed4d7cf5378cfc6edbe5e574dd773";
    let path = from_environment("INWIT_OVMF", "/usr/share/ovmf/OVMF.fd");
    let firmware = path.and_then(|path| std::fs::read(path).ok());
    let Some(firmware) = firmware.filter(|firmware| sha256(firmware).to_string() == KNOWN) else {
        return not_run("1 recorded launch digest: set INWIT_OVMF to the recorded OVMF.fd");
    };
    for (vcpus, expected) in [
        (1, "11570979c77a0adb515761a702527c8b9e11554e730552621d950988613a3a75c6ff1703f540bd22a9beede8fe7a97e3"),
        (2, "a5b54e62ae971b58274dd24cc6c47b842662617036e7bd67d7326c07ac6363f35399ef933330a5ea160cead90a00603f"),
    ] {
        assert_eq!(measure(&firmware, None, vcpus, "EPYC-v4", 1), expected);
    }
    let boot = DirectBoot::measure(b"kernel", b"", "").unwrap();
    let refused =
        launch_digest(&firmware, Some(&boot), NonZeroU16::MIN, CpuSignature::EPYC_V4, GuestFeatures::SNP, Vmm::Qemu);
    assert_eq!(refused, Err(MeasureError::NoKernelHashes));
}

/// Two other programs agree on these values.
#[test]
fn a_firmware_with_a_calling_area_has_its_published_digests() {
    let packed = vectors().map(|vectors| vectors.join("virtee+sev-snp-measure/svsm_ovmf.fd.gz"));
    let Some(packed) = packed.filter(|path| path.exists()) else {
        return not_run("1 vector: svsm_ovmf.fd");
    };
    let output = Command::new("gzip").arg("-dc").arg(packed).output().unwrap();
    assert!(output.status.success());
    for (vcpus, expected) in [
        (1, "9279821b1f5c1c980cd0eeeb19e7f6af4d4851a4f34e5190536922d1a6c02bf53d951032ccda4e9ea807beabd801bfdd"),
        (64, "1e0b69eceb94c57ba4a1505e1fa477bff37a62a8459c147bdb087f0530ebb2087264bccfc225e54852145d997f397ad6"),
    ] {
        assert_eq!(measure(&output.stdout, None, vcpus, "EPYC-v4", 1), expected);
    }
}

/// Every combination that a deployment is likely to need, against the other program in one process.
#[test]
fn an_independent_calculator_agrees() {
    let Some(python) = std::env::var_os("INWIT_SEV_SNP_MEASURE") else {
        return not_run("comparison with sev-snp-measure: set INWIT_SEV_SNP_MEASURE to a Python that has it");
    };
    let firmwares: Vec<_> = [
        suffix(),
        from_environment("INWIT_OVMF_AMDSEV", AMDSEV),
        from_environment("INWIT_OVMF", "/usr/share/ovmf/OVMF.fd"),
    ]
    .into_iter()
    .flatten()
    .collect();
    assert!(!firmwares.is_empty(), "a calculator is given, but no firmware to compare on");
    let folder = std::env::temp_dir().join(format!("inwit-snp-agreement-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (kernel, initrd) = (folder.join("kernel"), folder.join("initrd"));
    std::fs::write(&kernel, b"not quite a kernel").unwrap();
    std::fs::write(&initrd, b"not quite an initrd").unwrap();
    let mut compared = 0;
    for firmware in &firmwares {
        compared += compare(Path::new(&python), firmware, &kernel, &initrd);
    }
    std::fs::remove_dir_all(&folder).unwrap();
    let _ = writeln!(std::io::stderr(), "{compared} launch digests agree over {} firmware images", firmwares.len());
}

/// The other program's answers, one line for each combination, in the order of the loops below.
const SCRIPT: &str = "
import sys
from sevsnpmeasure import guest, vcpu_types
from sevsnpmeasure.sev_mode import SevMode
firmware, kernel, initrd, with_kernel = sys.argv[1:5]
appends = [None, '', 'console=ttyS0 loglevel=7', ' spaces at the ends '] if with_kernel == 'kernel' else [None]
for append in appends:
    for cpu in ['EPYC', 'EPYC-v4', 'EPYC-Rome', 'EPYC-Milan', 'EPYC-Genoa', 'EPYC-Turin']:
        for vcpus in [1, 2, 4, 64]:
            for features in [0x1, 0x21]:
                files = (None, None) if append is None else (kernel, initrd)
                print(guest.snp_calc_launch_digest(vcpus, vcpu_types.CPU_SIGS[cpu], firmware, *files, append, features, '').hex())
";

fn compare(python: &Path, path: &Path, kernel: &Path, initrd: &Path) -> usize {
    let firmware = std::fs::read(path).unwrap();
    let probe = DirectBoot::measure(b"", b"", "").unwrap();
    let cpu = CpuSignature::EPYC_V4;
    let probed = launch_digest(&firmware, Some(&probe), NonZeroU16::MIN, cpu, GuestFeatures::SNP, Vmm::Qemu);
    let with_kernel = probed != Err(MeasureError::NoKernelHashes);
    let output = Command::new(python)
        .args(["-c", SCRIPT])
        .args([path, kernel, initrd])
        .arg(if with_kernel { "kernel" } else { "none" })
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answers = String::from_utf8(output.stdout).unwrap();
    let mut answers = answers.lines();
    let appends = [None, Some(""), Some("console=ttyS0 loglevel=7"), Some(" spaces at the ends ")];
    let mut compared = 0;
    for append in appends.into_iter().take(if with_kernel { 4 } else { 1 }) {
        let read = |path| std::fs::read(path).unwrap();
        let boot = append.map(|append| DirectBoot::measure(&read(kernel), &read(initrd), append).unwrap());
        for cpu in ["EPYC", "EPYC-v4", "EPYC-Rome", "EPYC-Milan", "EPYC-Genoa", "EPYC-Turin"] {
            for vcpus in [1, 2, 4, 64] {
                for features in [0x1, 0x21] {
                    let ours = measure(&firmware, boot.as_ref(), vcpus, cpu, features);
                    let shape = format!("{} {append:?} {cpu} {vcpus} {features:#x}", path.display());
                    assert_eq!(Some(ours.as_str()), answers.next(), "{shape}");
                    compared += 1;
                }
            }
        }
    }
    assert_eq!(answers.next(), None);
    compared
}
