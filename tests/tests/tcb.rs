//! Holds the dependency policies (`guest/deny.toml`, `deny.toml`), the arrows between the crates and the size of the
//! trusted binary's source against what is really there.
//!
//! Asks `cargo` for the graph, offline and locked, and reads sources as text; builds nothing. Does not know advisories:
//! those need a database, and `cargo deny` reads the same two files for them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Most crates that the trusted binary may link, ours included.
const MAX_CRATES: usize = 120;
/// Most lines of `guest/src`, tests left out, comments and blank lines counted.
const MAX_LINES: usize = 3_000;

/// Which crates of this repository each crate may build on. The tests may use all, nobody may use the tests.
const ARROWS: [(&str, &str, &[&str]); 7] = [
    ("inwit-protocol", "protocol", &[]),
    ("inwit-guest", "guest", &["inwit-protocol"]),
    ("inwit-shim", "host-shim", &[]),
    ("inwit-measurements", "measurements", &["inwit-protocol"]),
    ("inwit-image", "initramfs", &[]),
    ("inwit-authority", "authority", &["inwit-protocol", "inwit-measurements"]),
    ("inwit-relying-party", "relying-party", &["inwit-protocol"]),
];
const TESTS: &str = "inwit-tests";

/// What simulated hardware is called here. None of it may be named where products are made.
const SIMULATED: [&str; 9] =
    ["inwit_tests", "inwit_tsm", "AmdTestRoot", "IntelTestRoot", "SnpMachine", "TdxMachine", "TsmFs", "IWQ1", "swtpm"];

type Names = BTreeSet<String>;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// Past the test runner, which hides what passing tests print.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn cargo(folder: &Path, arguments: &[&str]) -> String {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(program).args(arguments).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn names(array: &Value) -> Names {
    let name = |entry: &Value| entry.as_str().or_else(|| entry["crate"].as_str()).unwrap().to_owned();
    array.as_array().map(|entries| entries.iter().map(name).collect()).unwrap_or_default()
}

/// A `deny.toml` as JSON. Cargo's own TOML parser reads it, as metadata of an empty workspace: its tables stand at the
/// start of a line, so each can be moved below `workspace.metadata`.
fn policy(file: &str) -> Value {
    let text = std::fs::read_to_string(root().join(file)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let moved = text.replace("\n[", "\n[workspace.metadata.");
    std::fs::write(folder.path().join("Cargo.toml"), format!("[workspace]\n{moved}")).unwrap();
    let read = cargo(folder.path(), &["metadata", "--format-version=1", "--no-deps", "--offline"]);
    let policy = serde_json::from_str::<Value>(&read).unwrap()["metadata"].take();
    for table in ["graph", "bans", "licenses", "sources", "advisories"] {
        assert!(policy[table].is_object(), "{file} has no [{table}]");
    }
    policy
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Package {
    name: String,
    version: String,
    licence: String,
    /// Nothing for a crate of this repository.
    source: Option<String>,
    manifest: PathBuf,
}

/// Every package of the workspace on the targets of a policy, for building, running and testing.
fn workspace(policy: &Value) -> Vec<Package> {
    let targets = names(&policy["graph"]["targets"]);
    assert!(!targets.is_empty());
    let mut arguments = vec!["metadata", "--format-version=1", "--offline", "--locked"];
    targets.iter().for_each(|target| arguments.extend(["--filter-platform", target]));
    let metadata: Value = serde_json::from_str(&cargo(&root(), &arguments)).unwrap();
    let nodes = metadata["resolve"]["nodes"].as_array().unwrap();
    let used: BTreeSet<&str> = nodes.iter().map(|node| node["id"].as_str().unwrap()).collect();
    let packages = metadata["packages"].as_array().unwrap().iter();
    let packages = packages.filter(|package| used.contains(package["id"].as_str().unwrap()));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    packages
        .map(|package| Package {
            name: text(&package["name"]),
            version: text(&package["version"]),
            licence: text(&package["license"]),
            source: package["source"].as_str().map(str::to_owned),
            manifest: PathBuf::from(text(&package["manifest_path"])),
        })
        .collect()
}

/// Packages of the guest as it is built, alone and for its one target. `edges` as `cargo tree` names them.
fn guest(edges: &str) -> Vec<Package> {
    let policy = policy("guest/deny.toml");
    let targets = names(&policy["graph"]["targets"]);
    let [target] = targets.iter().collect::<Vec<_>>()[..] else { panic!("the guest has one target") };
    let arguments = ["tree", "--offline", "--locked", "-p", "inwit-guest", "--prefix", "none", "-e", edges, "--target"];
    let tree = cargo(&root(), &[&arguments[..], &[target]].concat());
    let listed: BTreeSet<(&str, &str)> = tree
        .lines()
        .filter_map(|line| {
            let (name, rest) = line.split_once(" v")?;
            Some((name, rest.split(' ').next()?))
        })
        .collect();
    let all = workspace(&policy);
    let packages: Vec<_> =
        all.into_iter().filter(|package| listed.contains(&(package.name.as_str(), package.version.as_str()))).collect();
    assert_eq!(packages.len(), listed.len(), "cargo tree and cargo metadata disagree");
    packages
}

/// Who names a crate as a dependency of any kind.
fn users(name: &str) -> Names {
    let metadata = cargo(&root(), &["metadata", "--format-version=1", "--offline", "--locked"]);
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    let called: BTreeMap<&str, &str> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| (package["id"].as_str().unwrap(), package["name"].as_str().unwrap()))
        .collect();
    let uses = |node: &&Value| {
        node["dependencies"].as_array().unwrap().iter().any(|id| called.get(id.as_str().unwrap()) == Some(&name))
    };
    let nodes = metadata["resolve"]["nodes"].as_array().unwrap().iter();
    nodes.filter(uses).map(|node| called[node["id"].as_str().unwrap()].to_owned()).collect()
}

/// Each policy with what it is about.
fn judged() -> [(&'static str, Vec<Package>); 2] {
    [("guest/deny.toml", guest("normal,build")), ("deny.toml", workspace(&policy("deny.toml")))]
}

#[test]
fn the_guest_links_what_its_policy_lists_and_the_policy_lists_nothing_else() {
    let allowed = names(&policy("guest/deny.toml")["bans"]["allow"]);
    let linked = guest("normal");
    let built: Names = guest("normal,build").into_iter().map(|package| package.name).collect();
    let unlisted: Vec<_> = built.difference(&allowed).collect();
    assert!(unlisted.is_empty(), "not in guest/deny.toml: {unlisted:?}; say there why the trusted binary needs them");
    let dead: Vec<_> = allowed.difference(&built).collect();
    assert!(dead.is_empty(), "in guest/deny.toml but not in the guest: {dead:?}; delete them");
    let foreign_code: Vec<_> = built.iter().filter(|name| name.ends_with("-sys")).collect();
    assert!(foreign_code.is_empty(), "the guest binds C libraries: {foreign_code:?}");
    assert!(linked.len() <= MAX_CRATES, "the guest links {} crates, more than {MAX_CRATES}", linked.len());
    let build_only = built.len() - linked.iter().map(|package| &package.name).collect::<BTreeSet<_>>().len();
    say(&format!("guest: {} crates linked or expanded, {build_only} more for build scripts", linked.len()));
}

#[test]
fn banned_crates_are_nowhere_and_every_duplicate_has_its_reason() {
    for (file, packages) in judged() {
        let bans = &policy(file)["bans"];
        for entry in bans["deny"].as_array().unwrap() {
            let name = entry["crate"].as_str().unwrap();
            let held = packages.iter().any(|package| package.name == name);
            let wrappers = names(&entry["wrappers"]);
            if wrappers.is_empty() {
                assert!(!held, "{file} bans {name}");
                continue;
            }
            assert!(held, "{file} says who may use {name}, and nobody does");
            assert_eq!(users(name), wrappers, "{file} says who may use {name}");
        }
        let skipped = names(&bans["skip"]);
        let mut versions: BTreeMap<&str, Names> = BTreeMap::new();
        for package in &packages {
            versions.entry(&package.name).or_default().insert(format!("{}@{}", package.name, package.version));
        }
        for (name, found) in &versions {
            let unexplained: Vec<_> = found.difference(&skipped).collect();
            assert!(unexplained.len() <= 1, "{file}: {name} comes in several versions: {unexplained:?}");
        }
        let several: Names = versions.into_values().filter(|found| found.len() > 1).flatten().collect();
        let dead: Vec<_> = skipped.difference(&several).collect();
        assert!(dead.is_empty(), "{file} skips {dead:?}, which are no duplicates any more");
    }
}

#[test]
fn every_licence_is_allowed_and_every_allowed_one_is_needed() {
    for (file, packages) in judged() {
        let licenses = &policy(file)["licenses"];
        let allowed = names(&licenses["allow"]);
        let mut needed = Names::new();
        let mut excepted = Names::new();
        for package in &packages {
            assert!(package.source.is_some() || package.licence == "Apache-2.0", "{} is ours", package.name);
            if satisfied(&package.licence, &allowed) {
                let without = |licence: &&String| {
                    let rest = allowed.iter().filter(|other| other != licence).cloned().collect();
                    !satisfied(&package.licence, &rest)
                };
                needed.extend(allowed.iter().filter(without).cloned());
                continue;
            }
            let entries = licenses["exceptions"].as_array().map(Vec::as_slice).unwrap_or_default();
            let exception = entries.iter().find(|entry| entry["crate"] == package.name.as_str());
            let extra = exception.map(|entry| names(&entry["allow"])).unwrap_or_default();
            let both = allowed.union(&extra).cloned().collect();
            assert!(satisfied(&package.licence, &both), "{file} does not allow {} ({})", package.name, package.licence);
            excepted.insert(package.name.clone());
        }
        assert_eq!(allowed, needed, "{file} allows licences that no crate needs");
        assert_eq!(names(&licenses["exceptions"]), excepted, "{file} has exceptions that no crate needs");
    }
}

/// Whether an SPDX expression can be met with these licences. The old form with `/` means OR.
fn satisfied(expression: &str, allowed: &Names) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ").replace(" WITH ", "+WITH+");
    let mut words = spaced.split_whitespace().peekable();
    let met = any_of(&mut words, allowed);
    met && words.next().is_none()
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn any_of(words: &mut Words<'_>, allowed: &Names) -> bool {
    let mut met = all_of(words, allowed);
    while words.next_if_eq(&"OR").is_some() {
        met |= all_of(words, allowed);
    }
    met
}

fn all_of(words: &mut Words<'_>, allowed: &Names) -> bool {
    let mut met = one(words, allowed);
    while words.next_if_eq(&"AND").is_some() {
        met &= one(words, allowed);
    }
    met
}

fn one(words: &mut Words<'_>, allowed: &Names) -> bool {
    match words.next() {
        Some("(") => any_of(words, allowed) & (words.next() == Some(")")),
        Some(licence) => allowed.contains(&licence.replace("+WITH+", " WITH ")),
        None => false,
    }
}

#[test]
fn licence_expressions_mean_what_they_say() {
    let allowed: Names = ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned).into();
    for good in ["MIT", "GPL-3.0/MIT", "(GPL-3.0 OR MIT) AND ISC", "Apache-2.0 WITH LLVM-exception OR GPL-3.0"] {
        assert!(satisfied(good, &allowed), "{good}");
    }
    for bad in ["", "GPL-3.0", "MIT AND GPL-3.0", "Apache-2.0", "MIT ISC", "GPL-3.0 OR MIT AND GPL-3.0", "(MIT"] {
        assert!(!satisfied(bad, &allowed), "{bad}");
    }
}

#[test]
fn crates_come_from_one_registry_or_from_this_repository() {
    let mut registries = Names::new();
    for package in workspace(&policy("deny.toml")).into_iter().chain(guest("normal,build")) {
        match package.source {
            Some(source) if source.starts_with("registry+") => drop(registries.insert(source)),
            Some(source) => panic!("{} comes from {source}", package.name),
            None => assert!(package.manifest.starts_with(root()), "{} lies outside", package.manifest.display()),
        }
    }
    assert_eq!(registries.len(), 1, "{registries:?}");
}

#[test]
fn arrows_between_the_crates_hold() {
    let metadata = cargo(&root(), &["metadata", "--format-version=1", "--no-deps", "--offline", "--locked"]);
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    let members = metadata["packages"].as_array().unwrap();
    let ours: Names = members.iter().map(|member| member["name"].as_str().unwrap().to_owned()).collect();
    let known: Names = ARROWS.iter().map(|(name, ..)| *name).chain([TESTS]).map(str::to_owned).collect();
    assert_eq!(ours, known, "a crate without arrows: decide what it may build on");
    for (name, _, allowed) in ARROWS {
        let member = members.iter().find(|member| member["name"] == name).unwrap();
        for dependency in member["dependencies"].as_array().unwrap() {
            let on = dependency["name"].as_str().unwrap();
            assert_ne!(on, TESTS, "{name} must not know the tests");
            let for_tests = dependency["kind"] == "dev";
            assert!(for_tests || !ours.contains(on) || allowed.contains(&on), "{name} must not build on {on}");
        }
        if name == "inwit-guest" {
            assert_eq!(member["features"], serde_json::json!({}), "the guest has one form: no features");
        }
    }
}

fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if let Ok(text) = std::fs::read_to_string(&path) {
            files.push((path, text));
        }
    }
    files
}

/// Lines of a file without the items that are marked for tests at its outermost level; rustfmt puts the end of such an
/// item on a line of its own. Second: those that are neither blank nor comment.
fn product_lines(text: &str) -> (usize, usize) {
    let (mut all, mut code) = (0, 0);
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line == "#[cfg(test)]" {
            let _ = lines.by_ref().find(|line| *line == "}" || line.ends_with(';') && !line.starts_with(' '));
            continue;
        }
        all += 1;
        let line = line.trim_start();
        code += usize::from(!line.is_empty() && !line.starts_with("//"));
    }
    (all, code)
}

#[test]
fn the_trusted_source_stays_small_enough_to_read() {
    assert_eq!(
        product_lines("//! a\n\nfn b() {}\n#[cfg(test)]\nmod c;\n#[cfg(test)]\nmod d {\n    x;\n}\nfn e() {}\n"),
        (4, 2)
    );
    let mut of_guest = 0;
    for folder in ["guest", "protocol"] {
        let counts = sources(&root().join(folder).join("src")).into_iter().map(|(_, text)| product_lines(&text));
        let (all, code) = counts.fold((0, 0), |(all, code), (a, c)| (all + a, code + c));
        say(&format!("{folder}/src: {all} lines without tests, {code} of them code"));
        of_guest = if folder == "guest" { all } else { of_guest };
    }
    assert!((1..=MAX_LINES).contains(&of_guest), "guest/src has {of_guest} lines, at most {MAX_LINES} are to be read");
}

#[test]
fn products_do_not_name_simulated_hardware() {
    let tests = root().join("tests");
    let world = [sources(&tests.join("src")), sources(&tests.join("module")), sources(&tests.join("tests"))].concat();
    for name in SIMULATED {
        let own = Path::new(file!()).file_name();
        let used = world.iter().any(|(path, text)| path.file_name() != own && text.contains(name));
        assert!(used, "{name} is no longer what simulated hardware is called: correct the list");
    }
    for (_, folder, _) in ARROWS {
        for (path, text) in sources(&root().join(folder).join("src")) {
            let found = SIMULATED.iter().find(|name| text.contains(**name));
            assert_eq!(found, None, "{} names simulated hardware", path.display());
        }
    }
}
