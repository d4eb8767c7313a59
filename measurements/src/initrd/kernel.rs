//! Archives of which Linux 6.12 was seen to unpack something else than a reader expects.
//!
//! Each was booted with a program that prints `/cN/agent`: the kernel had put other contents there, or nothing. None may
//! be read as holding the agent where the kernel did not put it.

use super::sample::{Sample, archive};
use super::*;

const FILE: u32 = 0o100_644;
const PROGRAM: u32 = 0o100_755;
const FOLDER: u32 = 0o040_755;
const LINK: u32 = 0o120_777;
const GOOD: &[u8] = b"GOOD";
const EVIL: &[u8] = b"EVIL";

/// What refuses the archive: words of the error.
fn refusal(bytes: &[u8]) -> String {
    match Initrd::read(bytes).and_then(|initrd| Tree::unpack(&initrd).map(|_| ())) {
        Err(error @ InitrdError::Ambiguous { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

fn without_trailer(members: &[Sample<'_>]) -> Vec<u8> {
    let whole = archive(members);
    whole[..whole.len() - archive(&[]).len()].to_vec()
}

#[test]
fn what_the_kernel_unpacks_in_its_own_way_is_refused_by_name() {
    let long = "n".repeat(300);
    let agent = |content| (2, FILE, 1, "agent", content);
    let table: [(&str, &[Sample<'_>], &str); 14] = [
        ("a name with a slash behind it", &[agent(EVIL), (3, FILE, 1, "agent/", GOOD)], "named as one"),
        ("a name with a dot behind it", &[agent(EVIL), (3, FILE, 1, "agent/.", GOOD)], "named as one"),
        ("other permissions", &[(7, FILE, 2, "agent", GOOD), (7, PROGRAM, 2, "z", EVIL)], "other permissions"),
        ("one path twice", &[(7, FILE, 2, "agent", GOOD), (7, FILE, 2, "agent", GOOD)], "its own further name"),
        (
            "a NUL in a target",
            &[agent(GOOD), (3, LINK, 1, "d", b"/\0zz"), (4, FILE, 1, "d/agent", EVIL)],
            "a NUL in its target",
        ),
        (
            "a first name that is a link now",
            &[agent(GOOD), (7, FILE, 2, "a", b""), (3, LINK, 1, "a", b"agent"), (7, FILE, 2, "z", EVIL)],
            "another file's since",
        ),
        ("a first name without folder", &[(7, FILE, 2, "no/x", b""), (7, FILE, 2, "agent", GOOD)], "dropped"),
        (
            "a folder with a slash, over a link",
            &[agent(GOOD), (3, LINK, 1, "u", b"/"), (4, FOLDER, 2, "u/", b""), (5, FILE, 1, "u/agent", EVIL)],
            "a slash behind it",
        ),
        ("a long name", &[(2, FILE, 1, &long, GOOD)], "255 bytes"),
        (
            "a first name through a link that leads elsewhere now",
            &[
                (2, FOLDER, 2, "A", b""),
                (3, LINK, 1, "d", b"/A"),
                (7, FILE, 2, "d/agent", b"junk"),
                agent(GOOD),
                (4, LINK, 1, "d", b"/"),
                (7, FILE, 2, "z", EVIL),
            ],
            "led through a link",
        ),
        ("a file in the place of /dev", &[(2, FILE, 1, "dev", GOOD)], "makes itself"),
        ("a folder in the place of /dev/console", &[(2, FOLDER, 2, "dev/console/", b"")], "makes itself"),
        ("a folder that does not make itself", &[(2, FOLDER, 2, "a/.", b"")], "what is inside it"),
        (
            "a pipe whose first name is a file now",
            &[(7, 0o010_644, 2, "p", b""), (2, FILE, 1, "p", EVIL), (7, 0o010_644, 2, "agent", b"")],
            "another file's since",
        ),
    ];
    for (what, members, expected) in table {
        let refused = refusal(&archive(members));
        assert!(refused.contains(expected), "{what}: {refused}");
    }
}

#[test]
fn a_trailer_that_is_a_link_ends_no_archive() {
    let before = without_trailer(&[(7, FILE, 2, "agent", GOOD), (0, LINK, 1, TRAILER, b"")]);
    let refused = refusal(&[before, archive(&[(7, FILE, 2, "z", EVIL)])].concat());
    assert!(refused.contains("a trailer that is a symbolic link"), "{refused}");
}

#[test]
fn a_path_that_is_too_deep_is_no_dropped_one() {
    let folders: Vec<String> = (1..=258).map(|depth| format!("c{}", "/a".repeat(depth))).collect();
    let through = format!("c{}/r", "/a".repeat(258));
    let replaced = format!("{through}/agent");
    let mut members: Vec<Sample<'_>> = vec![(1, FOLDER, 2, "c", b""), (2, FILE, 1, "c/agent", GOOD)];
    members.extend(folders.iter().map(|folder| (3, FOLDER, 2, folder.as_str(), &b""[..])));
    members.extend([(4, LINK, 1, through.as_str(), &b"/c"[..]), (5, FILE, 1, replaced.as_str(), EVIL)]);
    assert!(refusal(&archive(&members)).contains("too deep"));
    let loops: &[Sample<'_>] = &[(1, LINK, 1, "a", b"b"), (2, LINK, 1, "b", b"a"), (3, FILE, 1, "a/x", b"lost")];
    assert!(refusal(&archive(loops)).contains("too many links"));
}

#[test]
fn links_that_lead_through_thousands_of_parts_cost_no_time() {
    let tail = "/x".repeat(2000);
    let links: Vec<(String, String)> = (0..39).map(|at| (format!("l{at}"), format!("l{}{tail}", at + 1))).collect();
    let mut members: Vec<Sample<'_>> =
        links.iter().map(|(name, target)| (1, LINK, 1, name.as_str(), target.as_bytes())).collect();
    members.push((9, FILE, 1, "l0/f", b""));
    assert!(refusal(&archive(&members)).contains("too many links, or too deep"));
}

#[test]
fn paths_are_too_long_together_at_some_point() {
    let folders: Vec<String> = (1..=250).map(|depth| vec!["abcdefghijklmn"; depth].join("/")).collect();
    let deep = format!("{}/file", folders[249]);
    let mut members: Vec<Sample<'_>> = folders.iter().map(|path| (1, FOLDER, 2, path.as_str(), &b""[..])).collect();
    members.extend((0..600).map(|_| (2, FILE, 1, deep.as_str(), &b""[..])));
    let bytes = archive(&members);
    assert_eq!(Tree::unpack(&Initrd::read(&bytes).unwrap()), Err(InitrdError::TooMuch));
}

#[test]
fn permissions_belong_to_a_file_under_all_its_names() {
    let first = archive(&[(7, PROGRAM, 2, "init", GOOD), (7, PROGRAM, 2, "other", b"")]);
    let bytes = [first, archive(&[(1, FILE, 1, "other", GOOD)])].concat();
    let initrd = Initrd::read(&bytes).unwrap();
    let tree = Tree::unpack(&initrd).unwrap();
    assert_eq!(tree.file_at("/init").map(|entry| (entry.mode, entry.content)), Some((FILE, GOOD)));
}

#[test]
fn a_path_leads_to_a_file_through_links() {
    let bytes = archive(&[
        (1, FOLDER, 2, "bin", b""),
        (2, PROGRAM, 1, "bin/agent", GOOD),
        (3, LINK, 1, "sbin", b"bin"),
        (4, LINK, 1, "init", b"../sbin/./agent"),
        (5, LINK, 1, "slash", b"bin/agent/"),
        (6, LINK, 1, "loop", b"loop"),
    ]);
    let initrd = Initrd::read(&bytes).unwrap();
    let tree = Tree::unpack(&initrd).unwrap();
    for path in ["/init", "init", "//bin/agent", "/sbin/agent"] {
        assert_eq!(tree.file_at(path).map(|entry| (entry.path, entry.content)), Some(("bin/agent", GOOD)), "{path}");
    }
    for path in ["", "/", "/bin", "/bin/agent/", "/init/.", "/slash", "/loop", "/none", "/bin/agent/x"] {
        assert_eq!(tree.file_at(path), None, "{path}");
    }
}
