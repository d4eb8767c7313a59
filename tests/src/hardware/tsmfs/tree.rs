//! The tree of reports behind the FUSE door: what each file of a report directory says and does.
//!
//! Follows the kernel's report core (drivers/virt/coco/tsm.c in Linux 6.12) and configfs: binary files are taken when
//! they are closed, every accepted write raises the generation, and reading regenerates evidence that is older than
//! the last write. It trusts no length, offset or name; every table is bounded. It knows nothing of FUSE.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use nix::errno::Errno;

use crate::hardware::{BLOB_MAX, Device, INBLOB_LEN, RawEvidence};

/// The root directory's inode number; every other one is `report << 8 | file`.
pub(super) const ROOT: u64 = 1;
const FILE_BITS: u32 = 8;
/// Limits that no honest client reaches.
const MAX_REPORTS: usize = 256;
const MAX_HANDLES: usize = 1024;
const MAX_NAME: usize = 255;
/// configfs gives a text attribute one page.
const TEXT_MAX: usize = 4096;

/// The files of a report directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum File {
    Auxblob,
    Generation,
    Inblob,
    Outblob,
    Privlevel,
    PrivlevelFloor,
    Provider,
}

impl File {
    pub(super) const ALL: [Self; 7] = [
        Self::Auxblob,
        Self::Generation,
        Self::Inblob,
        Self::Outblob,
        Self::Privlevel,
        Self::PrivlevelFloor,
        Self::Provider,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Auxblob => "auxblob",
            Self::Generation => "generation",
            Self::Inblob => "inblob",
            Self::Outblob => "outblob",
            Self::Privlevel => "privlevel",
            Self::PrivlevelFloor => "privlevel_floor",
            Self::Provider => "provider",
        }
    }

    /// Permission bits as configfs shows them.
    pub(super) fn mode(self) -> u16 {
        match self {
            Self::Inblob | Self::Privlevel => 0o200,
            _ => 0o444,
        }
    }

    fn number(self) -> u64 {
        Self::ALL.iter().position(|file| *file == self).map_or(0, |at| at as u64 + 1)
    }
}

/// What an inode number stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Node {
    Root,
    Report(u64),
    File(u64, File),
}

impl Node {
    pub(super) fn inode(self) -> u64 {
        match self {
            Self::Root => ROOT,
            Self::Report(report) => report << FILE_BITS,
            Self::File(report, file) => (report << FILE_BITS) | file.number(),
        }
    }
}

/// How a file was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    ReadWrite,
    Write,
}

#[derive(Debug)]
struct Report {
    name: OsString,
    inblob: Vec<u8>,
    privlevel: u32,
    /// Write generation, which the file of that name shows.
    generation: u64,
    /// Evidence and the generation it was made for.
    cached: Option<(u64, RawEvidence)>,
}

#[derive(Debug)]
struct Handle {
    report: u64,
    file: File,
    /// What the first read produced; later reads of the same handle see the same bytes.
    snapshot: Option<Vec<u8>>,
    /// Bytes written to a binary file and not yet taken.
    pending: Option<Vec<u8>>,
}

#[derive(Debug)]
pub(super) struct Tree {
    device: Device,
    reports: BTreeMap<u64, Report>,
    handles: BTreeMap<u64, Handle>,
    last: u64,
}

impl Tree {
    pub(super) fn new(device: Device) -> Self {
        Self { device, reports: BTreeMap::new(), handles: BTreeMap::new(), last: 0 }
    }

    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// The files that this provider shows; the levels and the auxblob exist only where the platform has them.
    pub(super) fn visible(&self) -> Vec<File> {
        let levels = self.device.machine().privlevel_floor().is_some();
        let always = |file: &File| !matches!(file, File::Auxblob | File::Privlevel | File::PrivlevelFloor);
        File::ALL.into_iter().filter(|file| levels || always(file)).collect()
    }

    pub(super) fn node(&self, inode: u64) -> Result<Node, Errno> {
        if inode == ROOT {
            return Ok(Node::Root);
        }
        let (report, number) = (inode >> FILE_BITS, inode & ((1 << FILE_BITS) - 1));
        if !self.reports.contains_key(&report) {
            return Err(Errno::ENOENT);
        }
        match number {
            0 => Ok(Node::Report(report)),
            _ => self
                .visible()
                .into_iter()
                .find(|file| file.number() == number)
                .map(|file| Node::File(report, file))
                .ok_or(Errno::ENOENT),
        }
    }

    pub(super) fn lookup(&self, parent: u64, name: &OsStr) -> Result<Node, Errno> {
        match self.node(parent)? {
            Node::Root => {
                self.reports().find(|(_, known)| *known == name).map(|(id, _)| Node::Report(id)).ok_or(Errno::ENOENT)
            }
            Node::Report(report) => self
                .visible()
                .into_iter()
                .find(|file| name == file.name())
                .map(|file| Node::File(report, file))
                .ok_or(Errno::ENOENT),
            Node::File(..) => Err(Errno::ENOTDIR),
        }
    }

    pub(super) fn reports(&self) -> impl Iterator<Item = (u64, &OsStr)> {
        self.reports.iter().map(|(id, report)| (*id, report.name.as_os_str()))
    }

    pub(super) fn make_report(&mut self, parent: u64, name: &OsStr) -> Result<Node, Errno> {
        if self.node(parent)? != Node::Root {
            return Err(Errno::EPERM);
        }
        if name.len() > MAX_NAME {
            return Err(Errno::ENAMETOOLONG);
        }
        if self.reports().any(|(_, known)| known == name) {
            return Err(Errno::EEXIST);
        }
        if self.reports.len() >= MAX_REPORTS {
            return Err(Errno::ENOSPC);
        }
        // The kernel starts at level 0 even where the floor is higher; a client has to read the floor.
        let privlevel = 0;
        let report = Report { name: name.to_owned(), inblob: Vec::new(), privlevel, generation: 0, cached: None };
        let id = self.next();
        self.reports.insert(id, report);
        Ok(Node::Report(id))
    }

    pub(super) fn remove_report(&mut self, parent: u64, name: &OsStr) -> Result<(), Errno> {
        match self.lookup(parent, name)? {
            Node::Report(report) => {
                self.reports.remove(&report);
                Ok(())
            }
            Node::Root | Node::File(..) => Err(Errno::ENOTDIR),
        }
    }

    /// A handle to a file; configfs refuses a direction that the mode does not show, even to root.
    pub(super) fn open(&mut self, inode: u64, access: Access) -> Result<u64, Errno> {
        let Node::File(report, file) = self.node(inode)? else { return Err(Errno::EISDIR) };
        let writable = file.mode() & 0o200 != 0;
        let fits = match access {
            Access::Read => !writable,
            Access::Write => writable,
            Access::ReadWrite => false,
        };
        if !fits {
            return Err(Errno::EACCES);
        }
        if self.handles.len() >= MAX_HANDLES {
            return Err(Errno::ENFILE);
        }
        let id = self.next();
        self.handles.insert(id, Handle { report, file, snapshot: None, pending: None });
        Ok(id)
    }

    /// Takes what was written to a binary file, once. Called when a descriptor is closed.
    pub(super) fn flush(&mut self, handle: u64) -> Result<(), Errno> {
        let handle = self.handles.get_mut(&handle).ok_or(Errno::EBADF)?;
        let Some(pending) = handle.pending.take() else { return Ok(()) };
        let report = self.reports.get_mut(&handle.report).ok_or(Errno::ENOENT)?;
        report.inblob = pending;
        report.generation += 1;
        Ok(())
    }

    pub(super) fn release(&mut self, handle: u64) {
        self.handles.remove(&handle);
    }

    pub(super) fn write(&mut self, handle: u64, offset: usize, bytes: &[u8]) -> Result<(), Errno> {
        let handle = self.handles.get_mut(&handle).ok_or(Errno::EBADF)?;
        let report = self.reports.get_mut(&handle.report).ok_or(Errno::ENOENT)?;
        match handle.file {
            File::Inblob => {
                // As in configfs a refused write still counts as one, of what came before it.
                let pending = handle.pending.get_or_insert_default();
                let end = offset.checked_add(bytes.len()).ok_or(Errno::EFBIG)?;
                if end > INBLOB_LEN {
                    return Err(Errno::EFBIG);
                }
                pending.resize(pending.len().max(end), 0);
                pending.get_mut(offset..end).ok_or(Errno::EFBIG)?.copy_from_slice(bytes);
                Ok(())
            }
            File::Privlevel => {
                let text = std::str::from_utf8(bytes).map_err(|_| Errno::EINVAL)?;
                let level = text.strip_suffix('\n').unwrap_or(text).parse::<u32>().map_err(|_| Errno::EINVAL)?;
                let floor = self.device.machine().privlevel_floor().ok_or(Errno::EINVAL)?;
                if !(floor..=3).contains(&level) {
                    return Err(Errno::EINVAL);
                }
                report.privlevel = level;
                report.generation += 1;
                Ok(())
            }
            _ => Err(Errno::EACCES),
        }
    }

    pub(super) fn read(&mut self, handle: u64, offset: usize, length: usize) -> Result<Vec<u8>, Errno> {
        let entry = self.handles.get(&handle).ok_or(Errno::EBADF)?;
        let (report, file) = (entry.report, entry.file);
        if entry.snapshot.is_none() {
            let content = self.content(report, file)?;
            self.handles.get_mut(&handle).ok_or(Errno::EBADF)?.snapshot = Some(content);
        }
        let snapshot = self.handles.get(&handle).and_then(|entry| entry.snapshot.as_deref()).unwrap_or_default();
        Ok(snapshot.iter().skip(offset).take(length).copied().collect())
    }

    fn content(&mut self, report: u64, file: File) -> Result<Vec<u8>, Errno> {
        let machine = self.device.machine();
        let entry = self.reports.get(&report).ok_or(Errno::ENOENT)?;
        let content = match file {
            File::Auxblob => self.evidence(report)?.auxblob,
            File::Generation => format!("{}\n", entry.generation).into_bytes(),
            File::Inblob | File::Privlevel => return Err(Errno::EACCES),
            File::Outblob => self.evidence(report)?.outblob,
            File::PrivlevelFloor => format!("{}\n", machine.privlevel_floor().unwrap_or(0)).into_bytes(),
            File::Provider => format!("{}\n", machine.provider_name()).into_bytes(),
        };
        let limit = if matches!(file, File::Auxblob | File::Outblob) { BLOB_MAX } else { TEXT_MAX };
        if content.len() > limit { Err(Errno::EFBIG) } else { Ok(content) }
    }

    /// Evidence of the current generation: both blobs always come from the same request to the device.
    fn evidence(&mut self, report: u64) -> Result<RawEvidence, Errno> {
        let entry = self.reports.get_mut(&report).ok_or(Errno::ENOENT)?;
        if let Some((generation, evidence)) = &entry.cached
            && *generation == entry.generation
        {
            return Ok(evidence.clone());
        }
        if entry.inblob.is_empty() {
            return Err(Errno::EINVAL);
        }
        let evidence = self.device.answer(&entry.inblob, entry.privlevel)?;
        entry.cached = Some((entry.generation, evidence.clone()));
        Ok(evidence)
    }
}
