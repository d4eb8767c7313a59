//! One SNP launch digest: ours beside the `sev` crate, in one run, after making sure that both say the same.
//!
//! The firmware is the build with kernel hashes that the set-up fetches, or the image that `INWIT_OVMF` names. The `sev`
//! crate takes the name of a file, so both read it each time. Timings are printed, nothing is judged.

use std::hint::black_box;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};

use criterion::Criterion;
use inwit_measurements::sha384;
use inwit_measurements::snp::{CpuSignature, GuestFeatures, Vmm, launch_digest};
use sev::measurement::snp::{SnpMeasurementArgs, snp_calc_launch_digest};
use sev::measurement::vcpu_types::CpuType;
use sev::measurement::vmsa::{GuestFeatures as TheirFeatures, VMMType};
use sev::parser::Decoder as _;

const AMDSEV: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/world/firmware/ovmf-amdsev/usr/share/ovmf/OVMF.amdsev.fd");

fn ours(path: &Path, vcpus: u16) -> String {
    let image = std::fs::read(path).unwrap();
    let vcpus = NonZeroU16::new(vcpus).unwrap();
    let digest = launch_digest(&image, None, vcpus, CpuSignature::EPYC_V4, GuestFeatures::SNP, Vmm::Qemu);
    inwit_measurements::Digest::from_bytes(digest.unwrap()).to_string()
}

fn theirs(path: &Path, vcpus: u16) -> String {
    let digest = snp_calc_launch_digest(SnpMeasurementArgs {
        vcpus: vcpus.into(),
        vcpu_type: CpuType::EpycV4,
        ovmf_file: path.to_owned(),
        guest_features: TheirFeatures::decode(&mut 1u64.to_le_bytes().as_slice(), ()).unwrap(),
        kernel_file: None,
        initrd_file: None,
        append: None,
        ovmf_hash_str: None,
        vmm_type: Some(VMMType::QEMU),
    });
    digest.unwrap().get_hex_ld()
}

fn main() {
    let path = std::env::var_os("INWIT_OVMF").map_or_else(|| PathBuf::from(AMDSEV), PathBuf::from);
    if !path.exists() {
        println!("NOT RUN: {} is not there: run the set-up, or name an image by INWIT_OVMF", path.display());
        return;
    }
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("launch");
    group.bench_function("hash of the firmware", |bench| bench.iter(|| sha384(&std::fs::read(&path).unwrap())));
    for vcpus in [1, 64] {
        assert_eq!(ours(&path, vcpus), theirs(&path, vcpus));
        group.bench_function(format!("ours, {vcpus} vCPUs"), |bench| bench.iter(|| ours(black_box(&path), vcpus)));
        group.bench_function(format!("sev, {vcpus} vCPUs"), |bench| bench.iter(|| theirs(black_box(&path), vcpus)));
    }
    group.finish();
    criterion.final_summary();
}
