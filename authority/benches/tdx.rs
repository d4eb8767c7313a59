//! How many TDX quotes one core authenticates in a second: with nothing verified before, with PCK chain and collateral
//! verified before, and by `dcap-qvl`, whole, in the same run. Under a simulated root, so that it runs anywhere: the number
//! and kind of signatures are those of Intel's. It asserts no time; it prints a line for each.
//!
//! `cargo bench -p inwit-authority --bench tdx`
#![allow(missing_docs)] // criterion's macros

#[path = "../tests/evidence_support/mod.rs"]
mod evidence_support;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use dcap_qvl::verify::QuoteVerifier;
use dcap_qvl::{QuoteCollateralV3, QuotePolicy};
use evidence_support::evidence;
use evidence_support::intel::{Intel, NOW, Platform as Chip, Td};
use inwit_authority::evidence::{TdxPart, TdxRoot, authenticate};
use inwit_protocol::evidence::Platform;

fn quotes(criterion: &mut Criterion) {
    let intel = Intel::new(&Chip::default());
    let quote = intel.quote(&Td::default());
    let sent = evidence(Platform::Tdx, quote.clone(), vec![], vec![]);
    let warm = intel.endorsements();
    authenticate(&sent, &warm, NOW).unwrap();

    let mut group = criterion.benchmark_group("tdx quote");
    group.throughput(Throughput::Elements(1));
    group.bench_function("inwit, chain and collateral verified before", |bencher| {
        bencher.iter(|| authenticate(&sent, &warm, NOW).unwrap());
    });
    group.bench_function("inwit, nothing verified before", |bencher| {
        let fresh = || intel.endorsements();
        bencher.iter_batched(fresh, |by| authenticate(&sent, &by, NOW).unwrap(), BatchSize::SmallInput);
    });
    let collateral: QuoteCollateralV3 = serde_json::from_slice(&intel.collateral).unwrap();
    let verifier = QuoteVerifier::new(intel.root.clone());
    group.bench_function("dcap-qvl, whole", |bencher| {
        bencher.iter(|| verifier.verify_with_policy(&quote, &collateral, NOW, &QuotePolicy::claims_only(NOW)).unwrap());
    });
    group.bench_function("inwit, loading the collateral", |bencher| {
        bencher.iter(|| TdxRoot::new(&intel.root, &[TdxPart::Collateral(&intel.collateral)]).unwrap());
    });
    group.finish();
}

criterion_group!(benches, quotes);
criterion_main!(benches);
