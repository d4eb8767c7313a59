//! SNP launch digests of whole firmware images, against recorded values. (An independent calculator is asked in the tests
//! of the world outside.)
//!
//! Inputs that a machine may lack are named by environment variables; what does not run is said on standard error:
//! `INWIT_VECTORS` (collected vectors), `INWIT_OVMF` (a plain OVMF image).

mod vectors;

use std::io::Write;
use std::num::NonZeroU16;
use std::path::PathBuf;

use inwit_measurements::snp::{
    CpuSignature, DirectBoot, FirmwareLaunch, GuestFeatures, MeasureError, SvsmImages, Vmm, launch_digest,
};
use inwit_measurements::{Digest, sha256};

fn not_run(what: &str) {
    // Written past the harness, which would swallow it for a test that passes.
    let _ = writeln!(std::io::stderr(), "NOT RUN: {what}");
}

fn from_environment(variable: &str, default: &str) -> Option<PathBuf> {
    let path = std::env::var_os(variable).map_or_else(|| PathBuf::from(default), PathBuf::from);
    path.exists().then_some(path)
}

/// A vector; `what` is told when it is not there.
fn vector(name: &str, what: &str) -> Option<Vec<u8>> {
    let found = vectors::vector(name);
    if found.is_none() {
        not_run(what);
    }
    found
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
    let Some(firmware) = vector("svsm_ovmf.fd.gz", "2 digests of the vector svsm_ovmf.fd") else { return };
    for (vcpus, expected) in [
        (1, "9279821b1f5c1c980cd0eeeb19e7f6af4d4851a4f34e5190536922d1a6c02bf53d951032ccda4e9ea807beabd801bfdd"),
        (64, "1e0b69eceb94c57ba4a1505e1fa477bff37a62a8459c147bdb087f0530ebb2087264bccfc225e54852145d997f397ad6"),
    ] {
        assert_eq!(measure(&firmware, None, vcpus, "EPYC-v4", 1), expected);
    }
}

/// With an SVSM, as its own project's test tool records them.
#[test]
fn an_svsm_launch_has_its_published_digests() {
    const NOT_RUN: &str = "2 digests of the vector svsm.bin";
    let (Some(firmware), Some(svsm)) = (vector("svsm_ovmf.fd.gz", NOT_RUN), vector("svsm.bin.gz", NOT_RUN)) else {
        return;
    };
    let launch = SvsmImages { firmware: &firmware, variables_bytes: 540_672, svsm: &svsm }.measure().unwrap();
    for (vcpus, expected) in [
        (2, "9b94745036aafddf4f7f8b00c7513abb5b7703178cb95aaa57928bd963d68d3bfcb715d6019b9167ee2517b11b0d9be7"),
        (4, "27d154c27b7b359c935e250ec6fee72aa0ae8c1225e3b0e1cf46a9567e938066d7d6f94bbdc4a857818bdb79277a44b2"),
    ] {
        let vcpus = NonZeroU16::new(vcpus).unwrap();
        let digest = launch.digest(None, vcpus, CpuSignature::EPYC_V4, GuestFeatures::SNP, Vmm::Qemu).unwrap();
        assert_eq!(digest.to_string(), expected);
    }
}

/// Every recorded value of the collection that is of SNP and not empty: digests of the firmware's pages alone.
#[test]
fn recorded_firmware_digests_agree() {
    const NOT_RUN: &str = "the recorded digests of expected-digests.json";
    let (Some(recorded), Some(image)) =
        (vector("expected-digests.json", NOT_RUN), vector("ovmf_AmdSev_suffix.bin", NOT_RUN))
    else {
        return;
    };
    let launch = FirmwareLaunch::measure(&image).unwrap();
    let recorded: serde_json::Value = serde_json::from_slice(&recorded).unwrap();
    let mut compared = 0;
    for entry in recorded.as_array().unwrap() {
        let arguments = entry["args"].as_str().unwrap();
        let expected = entry["expected"].as_array().unwrap();
        if !arguments.contains("SevMode.SEV_SNP,") || expected.is_empty() {
            continue;
        }
        // The calls that are recorded with a value begin from the digest of the firmware, and that is the value.
        assert!(arguments.contains("ovmf_AmdSev_suffix.bin") && arguments.contains("snp_ovmf_hash_str=ovmf_hash"));
        assert_eq!(expected.as_slice(), [launch.image_digest().to_string()]);
        compared += 1;
    }
    assert_eq!(compared, 2);
}
