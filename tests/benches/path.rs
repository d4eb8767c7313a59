//! How long the guest takes from exec to a started workload, by phase: medians over several runs as a process, and over boots
//! in a virtual machine. Prints a table; asserts nothing.
//!
//! `cargo bench -p inwit-tests --bench path -- [--boots N] [--runs N]`
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    missing_docs,
    reason = "a bench prints and may stop"
)]

use inwit_protocol::evidence::Platform;
use inwit_tests::stage::play::{Play, Scene, Twist};
use inwit_tests::stage::programs::Programs;
use inwit_tests::world::{Progress, World};
use std::collections::BTreeMap;

fn number_after(name: &str, default: usize) -> usize {
    let arguments: Vec<String> = std::env::args().collect();
    let at = arguments.iter().position(|argument| argument == name);
    at.and_then(|at| arguments.get(at + 1)).and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// Milliseconds by phase, the total under `exec_to_workload`, and the peak memory in KiB under `peak_rss_kib`.
fn one(world: &World, programs: &'static Programs, platform: Platform, scene: Scene) -> Vec<(String, u64)> {
    let folder = tempfile::tempdir().unwrap();
    let (folder_path, tell) = (folder.path().to_path_buf(), Box::new(|_: inwit_tests::stage::play::Telling<'_>| {}));
    let play = Play { world, programs, platform, scene, twist: Twist::None, folder: folder_path, tell };
    let outcome = play.play().expect("the good path");
    let mut before = 0;
    let mut list = Vec::new();
    for phase in outcome.run.phases() {
        list.push((phase.name.clone(), phase.at_ms.saturating_sub(before)));
        before = phase.at_ms;
        if phase.name == "workload" {
            list.push(("exec_to_workload".to_owned(), phase.at_ms));
            break;
        }
    }
    list.push(("peak_rss_kib".to_owned(), outcome.run.peak_rss_bytes() / 1024));
    list
}

fn row(world: &World, programs: &'static Programs, platform: Platform, scene: Scene, runs: usize) {
    let mut order = Vec::new();
    let mut by_phase: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for _ in 0..runs {
        for (name, ms) in one(world, programs, platform, scene) {
            if !order.contains(&name) {
                order.push(name.clone());
            }
            by_phase.entry(name).or_default().push(ms);
        }
    }
    let medians = order.iter().map(|name| {
        let values = by_phase.get_mut(name).map(|values| {
            values.sort_unstable();
            values.get(values.len() / 2).copied().unwrap_or(0)
        });
        format!("{name} {}", values.unwrap_or(0))
    });
    println!("{platform:>9} {scene:?} (median of {runs}): {}", medians.collect::<Vec<_>>().join(" · "));
}

fn main() {
    // `cargo test --benches` only wants to see that it starts.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let world = World::here();
    let programs = Programs::build(&world, &Progress::on_stderr()).expect("programs");
    println!("milliseconds by phase; `evidence` is the report device, `credential` the exchange with the authority");
    for platform in [Platform::Snp, Platform::Tdx, Platform::Vtpm, Platform::AzureSnp, Platform::AzureTdx] {
        row(&world, programs, platform, Scene::Process, number_after("--runs", 9));
    }
    for platform in [Platform::Snp, Platform::Tdx, Platform::Vtpm, Platform::AzureSnp, Platform::AzureTdx] {
        row(&world, programs, platform, Scene::Machine, number_after("--boots", 3));
    }
}
