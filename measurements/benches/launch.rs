//! SNP launch digests beside the least that they can cost: hashing the firmware once.
//!
//! The firmware is the build with kernel hashes that the set-up fetches, or the image that `INWIT_OVMF` names. Timings are
//! printed, nothing is judged.
#![allow(clippy::print_stderr, reason = "this is a command line")]

use std::hint::black_box;
use std::num::NonZeroU16;
use std::path::PathBuf;

use criterion::{Criterion, Throughput};
use inwit_measurements::sha384;
use inwit_measurements::snp::{CpuSignature, FirmwareLaunch, GuestFeatures, Vmm, launch_digest};

const AMDSEV: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../target/world/firmware/ovmf-amdsev/usr/share/ovmf/OVMF.amdsev.fd");

fn main() {
    let path = std::env::var_os("INWIT_OVMF").map_or_else(|| PathBuf::from(AMDSEV), PathBuf::from);
    let Ok(image) = std::fs::read(&path) else {
        eprintln!("NOT RUN: {} is not there: run the set-up, or name an image by INWIT_OVMF", path.display());
        return;
    };
    let (cpu, features) = (CpuSignature::EPYC_V4, GuestFeatures::SNP);
    // An image that is refused would have the refusals timed.
    let usable = launch_digest(&image, None, NonZeroU16::MIN, cpu, features, Vmm::Qemu);
    assert!(usable.is_ok(), "{} gives no launch digest: {usable:?}", path.display());
    let firmware = FirmwareLaunch::measure(&image).expect("an image with a launch digest can be measured");
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("launch");
    group.throughput(Throughput::Bytes(image.len() as u64));
    group.bench_function("hash of the firmware", |bench| bench.iter(|| sha384(black_box(&image))));
    for vcpus in [1, 64].map(|vcpus| NonZeroU16::new(vcpus).unwrap_or(NonZeroU16::MIN)) {
        group.bench_function(format!("digest, {vcpus} vCPUs"), |bench| {
            bench.iter(|| launch_digest(black_box(&image), None, vcpus, cpu, features, Vmm::Qemu));
        });
    }
    group.bench_function("64 counts, firmware measured before", |bench| {
        bench.iter(|| {
            let before = black_box(&firmware).before_vcpus(None, Vmm::Qemu)?;
            Ok::<_, inwit_measurements::snp::MeasureError>(before.each_count(cpu, features).take(64).last())
        });
    });
    group.finish();
    criterion.final_summary();
}
