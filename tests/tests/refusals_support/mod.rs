//! What the refusal tests share: whether they can run here, one play with its folder, and what every refusal has to look
//! like from outside. Believes neither console nor log alone: each is held against the other.
#![allow(dead_code, unreachable_pub)] // each test binary compiles this and uses its own part

pub mod azure;
pub mod impostor;
pub mod records;
pub mod site;
pub mod tls;

use inwit_protocol::evidence::Platform;
use inwit_protocol::refusal::RefusalCode;
use inwit_tests::hardware::AmdTestRoot;
use inwit_tests::stage::greeter::Visit;
use inwit_tests::stage::guest::{End, Run};
use inwit_tests::stage::play::{Outcome, Play, Scene, Twist};
use inwit_tests::stage::programs::Programs;
use inwit_tests::stage::{CONFIDENTIAL, HELLO, StageError, now};
use inwit_tests::world::setup::{self, Step};
use inwit_tests::world::{Progress, World};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;

/// What a test stands on.
pub struct Ground {
    pub world: World,
    pub programs: &'static Programs,
}

/// The prepared world with built programs, or a line on the terminal that says why this test did not run.
pub fn ground(test: &str, steps: &[Step]) -> Option<Ground> {
    let world = World::here();
    if !setup::ready_or_told(&world, test, steps).unwrap() {
        return None;
    }
    let programs = Programs::build(&world, &Progress::silent()).unwrap();
    Some(Ground { world, programs })
}

/// For a guest as a process.
pub fn process_ground(test: &str) -> Option<Ground> {
    if !nix::unistd::geteuid().is_root() || !Path::new("/dev/fuse").exists() {
        not_run(test, "needs root and /dev/fuse for the simulated report device");
        return None;
    }
    ground(test, &[Step::Packages, Step::RustTarget])
}

/// Says past the test runner that a test did not run; where everything is required, that is a failure.
pub fn not_run(test: &str, why: &str) {
    assert!(std::env::var_os("INWIT_WORLD").is_none_or(|value| value != "required"), "{test}: {why}");
    let _ = writeln!(std::io::stderr(), "NOT RUN: {test}: {why}");
}

/// Whether tests may run that wait out the guest's patience.
pub fn slow_tests_run() -> bool {
    ["INWIT_SLOW", "INWIT_WORLD"].iter().any(|name| std::env::var_os(name).is_some())
}

/// What another thread tells, once it has told so many things; it may be a moment behind the guest's end.
pub fn told<T: Clone>(story: &Mutex<Vec<T>>, count: usize) -> Vec<T> {
    for _ in 0..500 {
        let story = story.lock().unwrap();
        if story.len() >= count {
            return story.clone();
        }
        drop(story);
        std::thread::sleep(Duration::from_millis(10));
    }
    story.lock().unwrap().clone()
}

/// A finished play; its folder is everything that the host's disk holds of it.
pub struct Trial {
    pub outcome: Outcome,
    pub folder: TempDir,
}

impl Ground {
    /// Plays to the end.
    pub fn try_play(&self, platform: Platform, scene: Scene, twist: Twist) -> Result<Trial, StageError> {
        let folder = tempfile::Builder::new().prefix("inwit-").tempdir()?;
        let play = Play {
            world: &self.world,
            programs: self.programs,
            platform,
            scene,
            twist,
            folder: folder.path().to_path_buf(),
            tell: Box::new(|_| {}),
        };
        Ok(Trial { outcome: play.play()?, folder })
    }

    #[track_caller]
    pub fn play(&self, platform: Platform, scene: Scene, twist: Twist) -> Trial {
        self.try_play(platform, scene, twist).unwrap()
    }

    /// The AMD root of the stage.
    pub fn amd_root(&self) -> Arc<AmdTestRoot> {
        Arc::new(AmdTestRoot::load_or_generate(&self.world.root().join("amd-test-root"), now()).unwrap())
    }
}

/// Who refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The authority; the guest passes its code on.
    Authority,
    /// The guest, before anything was granted.
    Guest,
    /// The guest, after the authority had granted.
    GuestAfterGrant,
}

impl Trial {
    /// Codes of the refusals in the audit log, in order.
    pub fn refused_in_log(&self) -> Vec<String> {
        let decisions = self.outcome.audit.iter().map(|record| &record["decision"]);
        let refused = decisions.filter(|decision| decision["event"] == "refused");
        refused.map(|decision| decision["code"].as_str().unwrap().to_owned()).collect()
    }

    /// Grants in the audit log.
    pub fn granted_in_log(&self) -> usize {
        self.outcome.audit.iter().filter(|record| record["decision"]["event"] == "granted").count()
    }

    /// Asserts everything that a refusal has to be.
    #[track_caller]
    pub fn assert_refused(&self, scene: Scene, code: RefusalCode, by: By) {
        let run = &self.outcome.run;
        assert_one_refusal(run, code);
        let end = if scene.is_machine() { End::PoweredOff } else { End::Exited(3) };
        assert_eq!(run.end, end, "{}", run.text());
        assert_nothing_started(run);
        assert!(self.outcome.visits.is_empty(), "the greeter had {:?}", self.outcome.visits);
        self.assert_no_secret();
        let (granted, refused) = match by {
            By::Authority => (0, vec![code.text().to_owned()]),
            By::Guest => (0, vec![]),
            By::GuestAfterGrant => (1, vec![]),
        };
        assert_eq!(self.granted_in_log(), granted, "grants in {:#?}", self.outcome.audit);
        assert_eq!(self.refused_in_log(), refused, "refusals in {:#?}", self.outcome.audit);
    }

    /// Asserts that the whole path was walked.
    #[track_caller]
    pub fn assert_good(&self, scene: Scene) {
        let run = &self.outcome.run;
        assert_eq!(run.refusal(), None, "{}", run.text());
        let end = if scene.is_machine() { End::PoweredOff } else { End::Exited(0) };
        assert_eq!(run.end, end, "{}", run.text());
        assert!(run.lines.iter().any(|(_, line)| line.contains("hello: the greeter answered: welcome")));
        // The workload was welcomed; where an impostor of another trust domain came as well, it was not.
        match self.outcome.visits.as_slice() {
            [Visit::Welcomed(peer)] => assert_eq!(peer, HELLO),
            [Visit::Welcomed(peer), Visit::Refused(refusal)] => {
                assert_eq!((peer.as_str(), refusal.code), (HELLO, RefusalCode::TrustDomainMismatch));
            }
            other => panic!("the greeter had {other:?}"),
        }
        assert_eq!((self.granted_in_log(), self.refused_in_log()), (1, vec![]), "{:#?}", self.outcome.audit);
        self.assert_no_secret();
    }

    /// Asserts that the confidential bytes are nowhere that the host can read.
    #[track_caller]
    pub fn assert_no_secret(&self) {
        assert!(self.outcome.secrets_found.is_empty(), "the host saw {:?}", self.outcome.secrets_found);
        assert_no_secret_below(self.folder.path());
    }
}

/// Asserts the form of the one refusal line: code, case, cause, next step.
#[track_caller]
pub fn assert_one_refusal(run: &Run, code: RefusalCode) {
    let refusals: Vec<&str> = refusal_lines(run);
    let [line] = refusals.as_slice() else { panic!("not one refusal but {refusals:?} in\n{}", run.text()) };
    let told = line.split_once("ms REFUSED ").map_or("", |(_, told)| told);
    assert!(told.starts_with(&format!("{} ({}): ", code.text(), code.case())), "not {code}: {line}");
    assert!(told.ends_with(&format!("; next: {}", code.next_step())), "{line}");
    assert!(line.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' '), "{line:?}");
}

/// All lines that speak of a refusal.
pub fn refusal_lines(run: &Run) -> Vec<&str> {
    run.lines.iter().map(|(_, line)| line.as_str()).filter(|line| line.contains("REFUSED")).collect()
}

/// Asserts that no workload ran.
#[track_caller]
pub fn assert_nothing_started(run: &Run) {
    assert!(!run.phases().iter().any(|phase| phase.name == "workload"), "{}", run.text());
    assert!(!run.lines.iter().any(|(_, line)| line.starts_with("hello:")), "{}", run.text());
}

/// Asserts that no file below a folder holds the confidential bytes, raw or in hex, and that no secret file stayed.
#[track_caller]
pub fn assert_no_secret_below(folder: &Path) {
    let hex: String = CONFIDENTIAL.bytes().map(|byte| format!("{byte:02x}")).collect();
    for file in files_below(folder) {
        let bytes = std::fs::read(&file).unwrap();
        let holds = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
        let secret = holds(CONFIDENTIAL.as_bytes()) || holds(hex.as_bytes());
        assert!(!secret, "{} holds what is confidential", file.display());
        let handed_over = file.parent().is_some_and(|parent| parent.ends_with("run/secrets"));
        assert!(!handed_over, "{} was left behind", file.display());
    }
}

/// Regular files of a folder and all below it.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            match entry.file_type().unwrap() {
                kind if kind.is_dir() => folders.push(entry.path()),
                kind if kind.is_file() => files.push(entry.path()),
                _ => {}
            }
        }
    }
    files
}
