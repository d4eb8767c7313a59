//! The file tree that the kernel makes of an initrd's members.
//!
//! Source: Linux `init/initramfs.c` (`do_name`, `maybe_link`, `clean_path`, `do_symlink`): members are unpacked in
//! stored order; a file is written through links to folders, needs its folder to be there, and replaces what was at its
//! path; names of one inode within one archive share their contents, and keep sharing them. Where the kernel's ways are
//! no honest writer's, the initrd is refused by name.
//!
//! Not trusted: names and targets; all searches together are bounded. Never touches a file system.

use std::collections::BTreeMap;

use super::{Initrd, InitrdError, Member, PATH_MAX, TYPE_DIRECTORY, TYPE_FILE, TYPE_LINK, TYPE_MASK};

/// Links followed in one path at most, as in the kernel (`MAXSYMLINKS`).
const MAX_LINKS: usize = 40;
/// Parts of one path at most, with those of the links in it.
const MAX_PARTS: usize = 256;
/// Bytes of all paths that are looked up for all members, at most: a hundred times what images of distributions need,
/// and below a second.
const MAX_LOOKED_UP: usize = 1 << 28;
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
    /// A plain file: which one.
    File(usize),
    Link {
        mode: u32,
        target: &'a str,
    },
    Other {
        mode: u32,
    },
}

/// A plain file under all its names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct File<'a> {
    mode: u32,
    content: &'a [u8],
}

/// Files with several names: by archive, inode, device and type, as the kernel tells them apart.
type Linked = BTreeMap<(usize, u32, (u32, u32), u32), First>;

/// The first name of a file with several. The kernel keeps it as it is written, and looks it up again for each other.
enum First {
    /// Dropped, or reached through a link that may lead elsewhere since.
    Unclear,
    /// A plain path, and what it was made.
    At { path: String, mode: u32, file: Option<usize> },
}

/// Where a name leads.
enum Place {
    /// To this path; whether a link was followed.
    At { path: String, through_link: bool },
    /// To a folder that is not there.
    Missing,
    /// Further than is followed here.
    TooFar,
}

/// What becomes of the last part of a name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    /// What is there is replaced.
    Kept,
    /// A link there is followed.
    Followed,
}

/// The root file system after unpacking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree<'a> {
    nodes: BTreeMap<String, Node<'a>>,
    files: Vec<File<'a>>,
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
    ///
    /// # Errors
    /// [`InitrdError::Ambiguous`], [`InitrdError::TooMuch`].
    pub fn unpack(initrd: &Initrd<'a>) -> Result<Self, InitrdError> {
        let built_in = BUILT_IN.map(|name| (name.to_owned(), Node::BuiltIn));
        let mut tree = Self { nodes: built_in.into(), files: Vec::new(), dropped: Vec::new() };
        let mut linked = Linked::new();
        let mut looked_up = 0;
        for member in &initrd.members {
            let refused = |what| InitrdError::Ambiguous { offset: member.start, what };
            let (path, through_link) = match tree.place(member.name, Last::Kept, &mut looked_up) {
                Place::At { path, through_link } => (Some(path), through_link),
                Place::Missing => (None, false),
                Place::TooFar if looked_up > MAX_LOOKED_UP => return Err(InitrdError::TooMuch),
                Place::TooFar => return Err(refused("behind too many links, or too deep")),
            };
            if let Some(path) = &path {
                tree.check_folder(member, path).map_err(refused)?;
            }
            let path = path.filter(|path| tree.can_replace(path, member.mode));
            let first = tree.first(member, path.as_deref(), &linked).map_err(refused)?;
            let made = match &path {
                Some(path) if !path.is_empty() => tree.make(member, path, first),
                Some(_) => None,
                None => {
                    tree.dropped.push(member.name);
                    None
                }
            };
            if has_several_names(member) {
                linked.entry(key(member)).or_insert_with(|| match path {
                    Some(path) if !through_link => First::At { path, mode: member.mode, file: made },
                    _ => First::Unclear,
                });
            }
        }
        Ok(tree)
    }

    /// Refuses what stands in another's way as only the kernel knows.
    fn check_folder(&self, member: &Member<'_>, path: &str) -> Result<(), &'static str> {
        let folder = member.mode & TYPE_MASK == TYPE_DIRECTORY;
        match self.nodes.get(path) {
            // A slash behind it makes the kernel follow a link, and leave a file.
            Some(Node::Link { .. } | Node::File(_) | Node::Other { .. }) if folder && member.name.ends_with('/') => {
                Err("a folder named with a slash behind it, where something else stands")
            }
            // The built-in archive makes /dev/console, too.
            _ if (!folder && path == "dev") || (folder && path == "dev/console") => {
                Err("in the place of what the kernel makes itself")
            }
            _ => Ok(()),
        }
    }

    /// The file whose further name this member is; none for a first name.
    fn first(&self, member: &Member<'_>, path: Option<&str>, linked: &Linked) -> Result<Option<usize>, &'static str> {
        match linked.get(&key(member)).filter(|_| has_several_names(member)) {
            None => Ok(None),
            Some(First::Unclear) => Err("a further name of a file whose first name was dropped or led through a link"),
            Some(First::At { path: first, .. }) if path == Some(first) => Err("a file that is its own further name"),
            Some(First::At { mode, .. }) if *mode != member.mode => {
                Err("a further name of a file with other permissions")
            }
            Some(First::At { path: first, file, mode }) => match (self.nodes.get(first), file) {
                (Some(Node::File(now)), Some(then)) if now == then => Ok(Some(*now)),
                (Some(Node::Other { mode: now }), None) if now == mode => Ok(None),
                _ => Err("a further name of a file whose first name is another file's since"),
            },
        }
    }

    /// Puts a member at its path; gives the file, if it is one. `shared` is the file whose further name it is.
    fn make(&mut self, member: &Member<'a>, path: &str, shared: Option<usize>) -> Option<usize> {
        let mode = member.mode;
        let node = match mode & TYPE_MASK {
            TYPE_FILE => {
                let own = match self.nodes.get(path) {
                    Some(Node::File(file)) => Some(*file),
                    _ => None,
                };
                // A further name without contents shows the first one's; with contents it replaces them for both.
                let kept = shared.filter(|_| member.content.is_empty());
                Node::File(kept.unwrap_or_else(|| self.write(shared.or(own), File { mode, content: member.content })))
            }
            TYPE_DIRECTORY => Node::Directory { mode },
            TYPE_LINK => match std::str::from_utf8(member.content) {
                Ok(target) => Node::Link { mode, target },
                Err(_) => Node::Other { mode },
            },
            _ => Node::Other { mode },
        };
        self.nodes.insert(path.to_owned(), node);
        if let Node::File(file) = node { Some(file) } else { None }
    }

    /// A folder is replaced by something else only when nothing is in it.
    fn can_replace(&self, path: &str, mode: u32) -> bool {
        let folder = matches!(self.nodes.get(path), Some(Node::Directory { .. } | Node::BuiltIn))
            && mode & TYPE_MASK != TYPE_DIRECTORY;
        let inside = format!("{path}/");
        !folder || self.nodes.range(inside.clone()..).next().is_none_or(|(next, _)| !next.starts_with(&inside))
    }

    /// Writes an existing file, or a new one.
    fn write(&mut self, place: Option<usize>, file: File<'a>) -> usize {
        match place.and_then(|place| Some((place, self.files.get_mut(place)?))) {
            Some((place, existing)) => {
                *existing = file;
                place
            }
            None => {
                self.files.push(file);
                self.files.len() - 1
            }
        }
    }

    /// Where a name leads, with links to folders followed. Adds the bytes of all paths on the way to `looked_up`.
    fn place(&self, name: &str, last: Last, looked_up: &mut usize) -> Place {
        let mut todo: Vec<&str> = parts(name).rev().take(MAX_PARTS + 1).collect();
        let mut at = String::new();
        let (mut links, mut steps) = (0, todo.len());
        while let Some(part) = todo.pop() {
            if steps > MAX_PARTS {
                return Place::TooFar;
            }
            if part == ".." {
                at.truncate(at.rfind('/').unwrap_or(0));
                continue;
            }
            let next = if at.is_empty() { part.to_owned() } else { format!("{at}/{part}") };
            *looked_up = looked_up.saturating_add(next.len());
            if next.len() >= PATH_MAX || *looked_up > MAX_LOOKED_UP {
                return Place::TooFar;
            }
            if todo.is_empty() && last == Last::Kept {
                return Place::At { path: next, through_link: links > 0 };
            }
            match self.nodes.get(&next) {
                Some(Node::Directory { .. } | Node::BuiltIn) => at = next,
                // A slash at the end wants a folder.
                Some(Node::Link { target, .. }) if todo.is_empty() && wants_folder(target) => return Place::Missing,
                Some(Node::Link { target, .. }) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Place::TooFar;
                    }
                    if target.starts_with('/') {
                        at.clear();
                    }
                    let before = todo.len();
                    todo.extend(parts(target).rev().take(MAX_PARTS + 1));
                    steps += todo.len() - before;
                }
                Some(_) if todo.is_empty() => at = next,
                _ => return Place::Missing,
            }
        }
        Place::At { path: at, through_link: links > 0 }
    }

    /// The plain file that a path leads to, links followed as the kernel does when it opens one.
    #[must_use]
    pub fn file_at(&self, path: &str) -> Option<Entry<'a, '_>> {
        if wants_folder(path) {
            return None;
        }
        let Place::At { path, .. } = self.place(path, Last::Followed, &mut 0) else { return None };
        let (path, Node::File(file)) = self.nodes.get_key_value(&path)? else { return None };
        let File { mode, content } = *self.files.get(*file)?;
        Some(Entry { path, mode, content })
    }

    /// Path of the first plain file that has these contents; none for no contents at all.
    #[must_use]
    pub fn file_with(&self, contents: &[u8]) -> Option<&str> {
        // Each file is compared once, whatever number of names it has.
        let same: Vec<bool> = self.files.iter().map(|file| file.content == contents).collect();
        let is = |node: &Node<'_>| matches!(node, Node::File(file) if same.get(*file) == Some(&true));
        let found = self.nodes.iter().find(|(_, node)| is(node)).map(|(path, _)| path.as_str());
        found.filter(|_| !contents.is_empty())
    }

    /// Every path that a member made, in byte order.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'a, '_>> {
        self.nodes.iter().filter_map(|(path, node)| {
            let (mode, content) = match node {
                Node::BuiltIn => return None,
                Node::Directory { mode } | Node::Other { mode } => (*mode, &[][..]),
                Node::File(file) => self.files.get(*file).map(|file| (file.mode, file.content))?,
                Node::Link { mode, target } => (*mode, target.as_bytes()),
            };
            Some(Entry { path, mode, content })
        })
    }
}

/// Whether the kernel looks for other names of this member.
fn has_several_names(member: &Member<'_>) -> bool {
    member.links >= 2 && !matches!(member.mode & TYPE_MASK, TYPE_DIRECTORY | TYPE_LINK)
}

/// What the kernel tells the files of several names apart by.
fn key(member: &Member<'_>) -> (usize, u32, (u32, u32), u32) {
    (member.archive, member.inode, member.device, member.mode & TYPE_MASK)
}

fn wants_folder(path: &str) -> bool {
    path.ends_with('/') || path.ends_with("/.")
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
        let tree = Tree::unpack(&initrd).unwrap();
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
    }

    #[test]
    fn what_has_no_folder_is_dropped() {
        let bytes = archive(&[(1, FILE, 1, "etc/conf", b"x"), (2, FOLDER, 2, "etc", b""), (3, FILE, 1, "dev/x", b"y")]);
        let initrd = Initrd::read(&bytes).unwrap();
        let tree = Tree::unpack(&initrd).unwrap();
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
