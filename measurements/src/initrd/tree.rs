//! The file tree that the kernel makes of an initrd's members.
//!
//! Source: Linux `init/initramfs.c` (`do_name`, `maybe_link`, `clean_path`, `do_symlink`): members are unpacked in
//! stored order; a file is written through links to folders, needs its folder to be there, and replaces what was at its
//! path; names of one inode within one archive share their contents, and keep sharing them.
//!
//! Not trusted: names and targets; links are followed a bounded number of times. Never touches a file system.

use std::collections::BTreeMap;

use super::{Initrd, Member, TYPE_DIRECTORY, TYPE_FILE, TYPE_LINK, TYPE_MASK};

/// Links followed in one path at most, as in the kernel (`MAXSYMLINKS`).
const MAX_LINKS: usize = 40;
/// Parts of one path at most; bounds the work on hostile names.
const MAX_PARTS: usize = 256;
/// Folders that the kernel's own, built-in archive makes before (`usr/default_cpio_list`).
const BUILT_IN: [&str; 2] = ["dev", "root"];

/// What stands at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node<'a> {
    Directory {
        mode: u32,
    },
    /// A folder that the kernel makes itself, and no member has named.
    BuiltIn,
    /// A plain file: its mode, and the position of its contents.
    File {
        mode: u32,
        contents: usize,
    },
    Link {
        mode: u32,
        target: &'a str,
    },
    Other {
        mode: u32,
    },
}

/// First path of each file with several names: by archive, inode, device and mode.
type Linked = BTreeMap<(usize, u32, (u32, u32), u32), String>;

/// The root file system after unpacking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree<'a> {
    nodes: BTreeMap<String, Node<'a>>,
    contents: Vec<&'a [u8]>,
    /// Members that the kernel drops: their folder is not there, or a folder with something in it stands in the way.
    pub dropped: Vec<&'a str>,
}

/// One entry of the tree, for a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a, 't> {
    /// Path without a leading slash.
    pub path: &'t str,
    /// File type and permission bits.
    pub mode: u32,
    /// Contents of a file, target of a link, otherwise nothing.
    pub content: &'a [u8],
}

impl<'a> Tree<'a> {
    /// Unpacks what could be read.
    #[must_use]
    pub fn unpack(initrd: &Initrd<'a>) -> Self {
        let built_in = BUILT_IN.map(|name| (name.to_owned(), Node::BuiltIn));
        let mut tree = Self { nodes: built_in.into(), contents: Vec::new(), dropped: Vec::new() };
        let mut linked = Linked::new();
        for member in &initrd.members {
            let Some(path) = tree.place(member.name).filter(|path| tree.can_replace(path, member.mode)) else {
                tree.dropped.push(member.name);
                continue;
            };
            if !path.is_empty() {
                tree.unpack_one(member, path, &mut linked);
            }
        }
        tree
    }

    fn unpack_one(&mut self, member: &Member<'a>, path: String, linked: &mut Linked) {
        let mode = member.mode;
        match mode & TYPE_MASK {
            TYPE_FILE => {
                let key = (member.archive, member.inode, member.device, mode);
                let first = (member.links >= 2).then(|| linked.entry(key).or_insert_with(|| path.clone()).clone());
                let shared = first.filter(|first| *first != path).and_then(|first| match self.nodes.get(&first) {
                    Some(Node::File { contents, .. }) => Some(*contents),
                    _ => None,
                });
                let own = match self.nodes.get(&path) {
                    Some(Node::File { contents, .. }) => Some(*contents),
                    _ => None,
                };
                // A further name without contents shows the first one's; with contents it replaces them for both.
                let kept = shared.filter(|_| member.content.is_empty());
                let contents = kept.unwrap_or_else(|| self.write(shared.or(own), member.content));
                self.nodes.insert(path, Node::File { mode, contents });
            }
            TYPE_DIRECTORY => {
                self.nodes.insert(path, Node::Directory { mode });
            }
            TYPE_LINK => {
                let node = match std::str::from_utf8(member.content) {
                    Ok(target) => Node::Link { mode, target },
                    Err(_) => Node::Other { mode },
                };
                self.nodes.insert(path, node);
            }
            _ => {
                self.nodes.insert(path, Node::Other { mode });
            }
        }
    }

    /// A folder is replaced by something else only when nothing is in it.
    fn can_replace(&self, path: &str, mode: u32) -> bool {
        let folder = matches!(self.nodes.get(path), Some(Node::Directory { .. } | Node::BuiltIn))
            && mode & TYPE_MASK != TYPE_DIRECTORY;
        let inside = format!("{path}/");
        !folder || self.nodes.range(inside.clone()..).next().is_none_or(|(next, _)| !next.starts_with(&inside))
    }

    /// Writes contents to an existing place, or to a new one.
    fn write(&mut self, place: Option<usize>, content: &'a [u8]) -> usize {
        match place.and_then(|place| Some((place, self.contents.get_mut(place)?))) {
            Some((place, existing)) => {
                *existing = content;
                place
            }
            None => {
                self.contents.push(content);
                self.contents.len() - 1
            }
        }
    }

    /// The path that a member's name leads to, with links to folders followed; `None` when a folder is missing. The last
    /// part is not followed: what is there is replaced.
    fn place(&self, name: &str) -> Option<String> {
        let mut todo: Vec<&str> = parts(name).rev().collect();
        let mut at = String::new();
        let (mut links, mut steps) = (0, 0);
        while let Some(part) = todo.pop() {
            steps += 1;
            if steps > MAX_PARTS {
                return None;
            }
            if part == ".." {
                at.truncate(at.rfind('/').unwrap_or(0));
                continue;
            }
            let next = if at.is_empty() { part.to_owned() } else { format!("{at}/{part}") };
            if todo.is_empty() {
                return Some(next);
            }
            match self.nodes.get(&next) {
                Some(Node::Directory { .. } | Node::BuiltIn) => at = next,
                Some(Node::Link { target, .. }) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return None;
                    }
                    if target.starts_with('/') {
                        at.clear();
                    }
                    todo.extend(parts(target).rev());
                }
                _ => return None,
            }
        }
        Some(at)
    }

    /// Path of the first plain file that has these contents; none for no contents at all.
    #[must_use]
    pub fn file_with(&self, contents: &[u8]) -> Option<&str> {
        let same = |node: &Node<'_>| matches!(node, Node::File { contents: at, .. } if self.content(*at) == contents);
        let found = self.nodes.iter().find(|(_, node)| same(node)).map(|(path, _)| path.as_str());
        found.filter(|_| !contents.is_empty())
    }

    /// Every path that a member made, in byte order.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'a, '_>> {
        self.nodes.iter().filter_map(|(path, node)| {
            let (mode, content) = match node {
                Node::BuiltIn => return None,
                Node::Directory { mode } | Node::Other { mode } => (*mode, &[][..]),
                Node::File { mode, contents } => (*mode, self.content(*contents)),
                Node::Link { mode, target } => (*mode, target.as_bytes()),
            };
            Some(Entry { path, mode, content })
        })
    }

    fn content(&self, at: usize) -> &'a [u8] {
        self.contents.get(at).copied().unwrap_or_default()
    }
}

fn parts(path: &str) -> impl DoubleEndedIterator<Item = &str> {
    path.split('/').filter(|part| !part.is_empty() && *part != ".")
}

#[cfg(test)]
mod tests {
    use super::super::sample::{Sample, archive};
    use super::*;

    const FILE: u32 = 0o100_644;
    const FOLDER: u32 = 0o040_755;
    const LINK: u32 = 0o120_777;

    fn unpacked(archives: &[&[Sample<'_>]]) -> Vec<(String, Vec<u8>)> {
        let bytes: Vec<u8> = archives.iter().flat_map(|members| archive(members)).collect();
        let initrd = Initrd::read(&bytes).unwrap();
        let tree = Tree::unpack(&initrd);
        let files = tree.entries().filter(|entry| entry.mode & TYPE_MASK == TYPE_FILE);
        files.map(|entry| (entry.path.to_owned(), entry.content.to_vec())).collect()
    }

    fn is(path: &str, content: &[u8]) -> (String, Vec<u8>) {
        (path.to_owned(), content.to_vec())
    }

    #[test]
    fn a_later_member_replaces_an_earlier_one() {
        let first: &[Sample<'_>] = &[(1, FILE, 1, "init", b"good"), (2, FILE, 1, "other", b"same")];
        assert_eq!(unpacked(&[first, &[(1, FILE, 1, "./init", b"evil")]]), [is("init", b"evil"), is("other", b"same")]);
        assert_eq!(unpacked(&[first, &[(1, FILE, 1, "/init", b"")]]), [is("init", b""), is("other", b"same")]);
        assert_eq!(unpacked(&[first, &[(1, LINK, 1, "init", b"other")]]), [is("other", b"same")], "no plain file now");
    }

    #[test]
    fn links_to_folders_are_written_through() {
        let members: &[Sample<'_>] = &[
            (1, FOLDER, 2, "usr", b""),
            (2, FOLDER, 2, "usr/bin", b""),
            (3, LINK, 1, "bin", b"/usr/bin"),
            (4, FILE, 1, "usr/bin/agent", b"good"),
            (5, FILE, 1, "bin/agent", b"evil"),
        ];
        assert_eq!(unpacked(&[members]), [is("usr/bin/agent", b"evil")]);
        let loops: &[Sample<'_>] = &[(1, LINK, 1, "a", b"b"), (2, LINK, 1, "b", b"a"), (3, FILE, 1, "a/x", b"lost")];
        assert_eq!(unpacked(&[loops]), []);
    }

    #[test]
    fn what_has_no_folder_is_dropped() {
        let bytes = archive(&[(1, FILE, 1, "etc/conf", b"x"), (2, FOLDER, 2, "etc", b""), (3, FILE, 1, "dev/x", b"y")]);
        let initrd = Initrd::read(&bytes).unwrap();
        let tree = Tree::unpack(&initrd);
        assert_eq!((tree.file_with(b"x"), tree.dropped.as_slice()), (None, &["etc/conf"][..]));
        assert_eq!(tree.file_with(b"y"), Some("dev/x"), "the kernel makes /dev itself");
        assert_eq!(tree.file_with(b""), None);
        let full: &[Sample<'_>] = &[(1, FOLDER, 2, "a", b""), (2, FILE, 1, "a/b", b"x"), (3, FILE, 1, "a", b"lost")];
        assert_eq!(unpacked(&[full]), [is("a/b", b"x")]);
    }

    #[test]
    fn names_of_one_file_share_its_contents() {
        let late: &[Sample<'_>] = &[(7, FILE, 2, "a", b""), (7, FILE, 2, "b", b"contents")];
        assert_eq!(unpacked(&[late]), [is("a", b"contents"), is("b", b"contents")]);
        let early: &[Sample<'_>] = &[(7, FILE, 2, "a", b"contents"), (7, FILE, 2, "b", b"")];
        assert_eq!(unpacked(&[early]), [is("a", b"contents"), is("b", b"contents")]);
        let then: &[Sample<'_>] = &[(1, FILE, 1, "b", b"evil")];
        assert_eq!(unpacked(&[early, then]), [is("a", b"evil"), is("b", b"evil")], "both names see the new contents");
        assert_eq!(unpacked(&[&[(7, FILE, 2, "a", b"x")], &[(7, FILE, 2, "b", b"")]]), [is("a", b"x"), is("b", b"")]);
    }
}
