//! A guest that is told to stop ends its workload in order: the whole path as a process, then SIGTERM to the agent.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    missing_docs,
    reason = "a test may stop, and tell"
)]

use inwit_protocol::evidence::Platform;
use inwit_tests::stage::guest::End;
use inwit_tests::stage::play::{Play, Scene, Telling, Twist};
use inwit_tests::stage::programs::Programs;
use inwit_tests::world::{Progress, World, setup};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The process that runs with this configuration file.
fn guest_of(configuration: &Path) -> Pid {
    let wanted = configuration.display().to_string().into_bytes();
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let runs = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.windows(wanted.len()).any(|window| window == wanted)
    };
    Pid::from_raw(pids.find(runs).expect("the guest runs"))
}

#[test]
fn a_guest_that_is_told_to_stop_ends_its_workload_and_exits_well() {
    let world = World::here();
    if !geteuid().is_root() || !setup::ready_or_told(&world, "told to stop", &[setup::Step::RustTarget]).unwrap() {
        assert!(std::env::var_os("INWIT_WORLD").is_none(), "this test must run here, as root");
        eprintln!("NOT RUN: told to stop: needs root");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // A workload that would go on for ever, and says so when it is asked to end.
    let script = folder.path().join("workload");
    std::fs::write(&script, "#!/bin/sh\ntrap 'echo asked to end; exit 0' TERM\nwhile :; do sleep 0.05; done\n")
        .unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let built = Programs::build(&world, &Progress::silent()).unwrap();
    let programs = Programs { hello: script, ..built.clone() };
    let configuration = folder.path().join("guest.conf");
    let play = Play {
        world: &world,
        programs: &programs,
        platform: Platform::Snp,
        scene: Scene::Process,
        twist: Twist::None,
        folder: folder.path().to_path_buf(),
        tell: Box::new(|telling| {
            if let Telling::Console(_, line) = telling
                && line.contains(" workload: started")
            {
                std::thread::sleep(std::time::Duration::from_millis(200));
                kill(guest_of(&configuration), Signal::SIGTERM).unwrap();
            }
        }),
    };
    let outcome = play.play().unwrap();
    assert_eq!(outcome.run.end, End::Exited(0), "{}", outcome.run.text());
    assert!(outcome.run.text().contains("asked to end"), "{}", outcome.run.text());
    assert!(outcome.run.text().contains("told to stop"), "{}", outcome.run.text());
    assert_eq!(outcome.run.refusal(), None);
    let left = std::fs::read_dir(folder.path().join("run/secrets")).unwrap().count();
    assert_eq!(left, 0, "the secret file stayed");
}
