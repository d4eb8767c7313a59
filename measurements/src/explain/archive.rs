//! Changes of an initial ramdisk: one file replaced or left out, an archive appended; and what distinguishes two.
//!
//! A changed archive is written as `inwit-image` would write it: member numbers go on without a hole, zeros fill the
//! last block. What another tool would write differently is not found this way.
//!
//! Not trusted: both archives and all files. Work is bounded by the bytes that all changed archives have together.

use std::rc::Rc;

use super::words::shown;
use super::{Candidate, Candidates, Component, Finding};
use crate::initrd::{Initrd, Member, TYPE_FILE, TYPE_MASK};
use crate::made_from::{InitrdRecord, MadeFrom, Role};

/// Bytes of all changed archives together, at most: a few seconds of hashing.
const MAX_CHANGED_BYTES: usize = 4 << 30;
/// inwit-image and other writers end an archive at a multiple of this.
const BLOCK: usize = 512;
/// Places of the numbers of a member, and of the size of its contents, in its header.
const INODE: usize = 6;
const SIZE: usize = 54;

/// A changed archive and what was changed.
pub(super) struct Changed {
    pub(super) bytes: Vec<u8>,
    pub(super) finding: Finding,
}

/// Every changed form of an initrd that the files at hand allow, the plausible ones first.
///
/// Each is made when it is asked for, and nothing is kept of it: the memory is that of one.
pub(super) fn changes<'a>(
    initrd: &'a [u8],
    record: Option<&'a InitrdRecord>,
    at_hand: &'a Candidates,
) -> Box<dyn Iterator<Item = Changed> + 'a> {
    let Ok(read) = Initrd::read(initrd) else { return Box::new(std::iter::empty()) };
    let members: Rc<[Member<'a>]> = read.members.into();
    let most = MAX_CHANGED_BYTES / initrd.len().max(1);
    let likely = move |member: &Member<'_>, file: &Candidate| {
        let base = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
        let path = |path: &Option<String>| path.as_deref() == Some(member.name.trim_start_matches('/'));
        let by_role = match (file.role, record) {
            (Some(Role::Agent), Some(record)) => path(&record.agent),
            (Some(Role::Configuration), Some(record)) => path(&record.configuration),
            _ => false,
        };
        by_role || base(member.name) == base(&file.name)
    };
    let fits = |file: &&Candidate| !matches!(file.role, Some(Role::Firmware | Role::Kernel | Role::Initrd | Role::Uki));
    let places = |members: &Rc<[Member<'a>]>| {
        let members = Rc::clone(members);
        (0..members.len()).filter_map(move |at| {
            members.get(at).copied().filter(|member| member.mode & TYPE_MASK == TYPE_FILE).map(|member| (at, member))
        })
    };
    let all = Rc::clone(&members);
    let replacements = [true, false].into_iter().flat_map(move |likely_ones| {
        let pairs =
            places(&all).flat_map(move |(_, member)| at_hand.files.iter().filter(fits).map(move |file| (member, file)));
        pairs
            .filter(move |(member, file)| likely(member, file) == likely_ones && member.content != file.contents)
            .map(move |(member, file)| replaced(initrd, member, file, record))
    });
    let missing =
        places(&members).map(move |(at, member)| left_out(initrd, member, members.get(at + 1..).unwrap_or_default()));
    let readable = at_hand.of(Role::Initrd).filter(|file| Initrd::read(&file.contents).is_ok());
    let longer = readable.map(move |file| appended(initrd, file));
    Box::new(replacements.chain(missing).chain(longer).take(most))
}

fn replaced(initrd: &[u8], member: Member<'_>, file: &Candidate, record: Option<&InitrdRecord>) -> Changed {
    let (before, rest) = initrd.split_at_checked(member.start).unwrap_or_default();
    let after = initrd.get(member.end..).unwrap_or_default();
    let head = member.end - member.start - member.content.len().next_multiple_of(4);
    let mut record_bytes = rest.get(..head).unwrap_or_default().to_vec();
    number(&mut record_bytes, SIZE, u32::try_from(file.contents.len()).unwrap_or(u32::MAX));
    record_bytes.extend_from_slice(&file.contents);
    record_bytes.resize(record_bytes.len().next_multiple_of(4), 0);
    let bytes = ended([before, &record_bytes, after].concat(), initrd);
    let component = component(member.name, record);
    let answer =
        format!("The initrd differs: its file {} was replaced by {}.", shown(&rooted(member.name)), shown(&file.name));
    let sizes = format!("{} bytes were expected, {} are there.", member.content.len(), file.contents.len());
    Changed { bytes, finding: Finding::new(component, answer).with(sizes) }
}

fn left_out(initrd: &[u8], member: Member<'_>, later: &[Member<'_>]) -> Changed {
    let mut bytes = initrd.get(..member.start).unwrap_or_default().to_vec();
    let gone = member.end - member.start;
    bytes.extend_from_slice(initrd.get(member.end..).unwrap_or_default());
    // Members of a canonical archive are numbered by their place.
    let canonical = later.first().is_none_or(|next| next.inode == member.inode.wrapping_add(1));
    for next in later.iter().filter(|next| canonical && next.archive == member.archive) {
        if let Some(header) = bytes.get_mut(next.start - gone..) {
            number(header, INODE, next.inode.wrapping_sub(1));
        }
    }
    let answer = format!("The initrd differs: its file {} is missing.", shown(&rooted(member.name)));
    Changed { bytes: ended(bytes, initrd), finding: Finding::new(Component::InitrdFile, answer) }
}

fn appended(initrd: &[u8], file: &Candidate) -> Changed {
    let mut bytes = initrd.to_vec();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes.extend_from_slice(&file.contents);
    let answer = format!("The initrd differs: the archive {} was appended to it.", shown(&file.name));
    Changed { bytes, finding: Finding::new(Component::Initrd, answer) }
}

/// Zeros at the end as the original has them: up to a block, or none.
fn ended(mut bytes: Vec<u8>, original: &[u8]) -> Vec<u8> {
    if original.len().is_multiple_of(BLOCK) {
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        bytes.truncate(used);
        // A trailer's name ends with a NUL, and is filled up to four bytes.
        bytes.resize((used + 1).next_multiple_of(BLOCK), 0);
    }
    bytes
}

/// Writes a header's number in the digits that its writer uses.
fn number(header: &mut [u8], at: usize, value: u32) {
    let capital = header.iter().take(110).any(|byte| matches!(byte, b'A'..=b'F'));
    let digits = if capital { format!("{value:08X}") } else { format!("{value:08x}") };
    if let Some(field) = header.get_mut(at..at + 8) {
        field.copy_from_slice(digits.as_bytes());
    }
}

fn rooted(path: &str) -> String {
    format!("/{}", path.trim_start_matches('/'))
}

fn component(path: &str, record: Option<&InitrdRecord>) -> Component {
    let is = |known: &Option<String>| known.as_deref() == Some(path.trim_start_matches('/'));
    match record {
        Some(record) if is(&record.agent) => Component::Agent,
        Some(record) if is(&record.configuration) => Component::Configuration,
        _ => Component::InitrdFile,
    }
}

/// Another initrd, and which of its files make the difference when both can be looked into. What the expected one holds
/// is read from its bytes where they are at hand; a record's list is told as such, for nothing measured vouches for it.
pub(super) fn other(record: &MadeFrom, file: &Candidate, at_hand: &Candidates) -> Finding {
    let expected = record.file(Role::Initrd);
    let Some(expected) = expected else {
        return Finding::new(Component::Initrd, format!("An initrd was given: {}.", shown(&file.name)));
    };
    let after = InitrdRecord::of(&file.contents);
    let original = at_hand.with(&expected.sha256).filter(|_| !after.members.is_empty());
    let read = original.map(|original| {
        let before = InitrdRecord::of(&original.contents);
        let path = |role| before.members.path_of(&record.file(role)?.sha256).map(ToOwned::to_owned);
        InitrdRecord { agent: path(Role::Agent), configuration: path(Role::Configuration), ..before }
    });
    let before = read.as_ref().or(record.initrd.as_ref());
    let mut inside = before.map(|before| differences(before, &after)).unwrap_or_default().into_iter();
    let Some(mut first) = inside.next() else {
        let digest = file.sha256().to_string();
        let named = (file.name.as_str(), file.contents.len() as u64, digest.as_str());
        return super::record::other_file(Component::Initrd, "initrd", expected, named);
    };
    first.detail.extend(inside.take(20).map(|finding| format!("Also: {}", finding.answer)));
    first.detail.push(format!("It is the initrd {}.", shown(&file.name)));
    if read.is_none() {
        let name = shown(&expected.name);
        first.detail.push(format!("What {name} holds is told by the record alone: give it, too, to have it proved."));
    }
    first
}

/// What distinguishes the members of two initrds: the agent first, its configuration, then the others by path.
pub(super) fn differences(expected: &InitrdRecord, actual: &InitrdRecord) -> Vec<Finding> {
    let mut found: Vec<Finding> = Vec::new();
    let complete =
        expected.left_out == 0 && actual.left_out == 0 && expected.opaque.is_none() && actual.opaque.is_none();
    for (path, before) in expected.members.iter() {
        let (name, component) = (shown(&rooted(path)), component(path, Some(expected)));
        match actual.members.get(path) {
            Some(after) if after.sha256 != before.sha256 => found.push(
                Finding::new(component, format!("The initrd differs: its file {name} has other contents."))
                    .with(format!("Expected {} bytes, SHA-256 {}", before.bytes, before.sha256))
                    .with(format!("Actual   {} bytes, SHA-256 {}", after.bytes, after.sha256)),
            ),
            Some(after) if after.mode != before.mode => found.push(Finding::new(
                component,
                format!("The initrd differs: {name} has mode {:o} instead of {:o}.", after.mode, before.mode),
            )),
            None if complete => found.push(Finding::new(component, format!("The initrd differs: {name} is missing."))),
            _ => {}
        }
    }
    for (path, _) in actual.members.iter().filter(|(path, _)| complete && expected.members.get(path).is_none()) {
        let answer = format!("The initrd differs: {} is new in it.", shown(&rooted(path)));
        found.push(Finding::new(Component::InitrdFile, answer));
    }
    found.sort_by_key(|finding| match finding.component {
        Component::Agent => 0,
        Component::Configuration => 1,
        _ => 2,
    });
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A list of what follows each file would take gigabytes here.
    #[test]
    fn many_members_cost_little_memory() {
        let mut archive = Vec::new();
        for (name, inode) in (1..15_000).map(|number| (format!("f{number}"), number)).chain([("TRAILER!!!".into(), 0)])
        {
            archive.extend(b"070701");
            for field in [inode, 0o100_644, 0, 0, 1, 0, 0, 0, 0, 0, 0, name.len() + 1, 0] {
                archive.extend(format!("{field:08x}").bytes());
            }
            archive.extend(name.bytes());
            archive.resize((archive.len() + 1).next_multiple_of(4), 0);
        }
        let files = (0..200).map(|number: u8| Candidate::new(None, &number.to_string(), vec![number])).collect();
        let at_hand = Candidates { files, append: Vec::new() };
        let first = changes(&archive, None, &at_hand).next().unwrap();
        assert_eq!(first.finding.answer, "The initrd differs: its file `/f1` was replaced by `0`.");
        let without = changes(&archive, None, &Candidates::default()).nth(1).unwrap();
        assert_eq!(without.finding.answer, "The initrd differs: its file `/f2` is missing.");
        assert!(Initrd::read(&without.bytes).unwrap().members.len() < 14_999, "one is gone");
    }
}
