//! A file system that stands where a guest finds `/sys/kernel/config/tsm/report`, for tests without a VM.
//!
//! FUSE through `/dev/fuse`, no libfuse; as root no `fusermount` either. It trusts its clients with nothing: they are
//! the programs under test. It never touches the real configfs. One difference from configfs remains and cannot be
//! removed: the files have size 0, so `sendfile`, `splice` and `copy_file_range` (busybox `cat`, `std::fs::copy`) find
//! nothing in them, while `read` works as it does on the real files.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use fuser::{
    BackgroundSession, FileAttr, FileType, Filesystem, MountOption, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, TimeOrNow,
};
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

use super::{Device, HardwareError};
use tree::{Access, Node, Tree};

mod tree;

/// Nothing is cached by the kernel: directories change under its feet.
const NO_CACHE: Duration = Duration::ZERO;
/// Dead mounts may lie on top of each other, one for each killed process.
const DEAD_MOUNTS: usize = 16;

/// A report file system being served. Dropping it unmounts, also while a client hangs in it.
#[derive(Debug)]
pub struct TsmFs {
    path: PathBuf,
    device: Device,
    // Held for its drop, which ends the serving thread.
    _session: BackgroundSession,
}

impl TsmFs {
    /// Serves `device` at `dir`, which is made if missing. A dead mount that a killed process left there is removed.
    pub fn mount(dir: &Path, device: impl Into<Device>) -> Result<Self, HardwareError> {
        let io_error = |source: io::Error| HardwareError::Io { path: dir.to_owned(), source };
        clear_dead_mounts(dir).map_err(|errno| io_error(errno.into()))?;
        fs::create_dir_all(dir).map_err(io_error)?;
        let path = dir.canonicalize().map_err(io_error)?;
        let device = device.into();
        let options = [MountOption::FSName("inwit-tsm".to_owned()), MountOption::NoDev, MountOption::NoSuid];
        let session =
            fuser::spawn_mount2(Door { tree: Tree::new(device.clone()) }, &path, &options).map_err(|source| {
                HardwareError::Tool { tool: "FUSE", next: "run as root with /dev/fuse present", source }
            })?;
        Ok(Self { path, device, _session: session })
    }

    /// Where the report directories are made.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The device behind it.
    pub fn device(&self) -> &Device {
        &self.device
    }
}

impl Drop for TsmFs {
    fn drop(&mut self) {
        self.device.interrupt();
        // Detached first: an ordinary unmount fails while a client still has a file open. A user who is not root is
        // refused here and served by the session's own unmount.
        let _ = umount2(&self.path, MntFlags::MNT_DETACH);
    }
}

/// Removes FUSE mounts at `dir` whose server has died; they answer every call with ENOTCONN.
fn clear_dead_mounts(dir: &Path) -> Result<(), Errno> {
    for _ in 0..DEAD_MOUNTS {
        match fs::metadata(dir) {
            Err(error) if error.raw_os_error() == Some(Errno::ENOTCONN as i32) => {
                umount2(dir, MntFlags::MNT_DETACH)?;
            }
            _ => return Ok(()),
        }
    }
    Err(Errno::ENOTCONN)
}

/// The FUSE side: turns kernel calls into calls on the tree.
struct Door {
    tree: Tree,
}

impl Door {
    fn attributes(node: Node) -> FileAttr {
        let (kind, perm) = match node {
            Node::Root | Node::Report(_) => (FileType::Directory, 0o755),
            Node::File(_, file) => (FileType::RegularFile, file.mode()),
        };
        let epoch = SystemTime::UNIX_EPOCH;
        FileAttr {
            ino: node.inode(),
            size: 0,
            blocks: 0,
            atime: epoch,
            mtime: epoch,
            ctime: epoch,
            crtime: epoch,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }

    fn entry(outcome: Result<Node, Errno>, reply: ReplyEntry) {
        match outcome {
            Ok(node) => reply.entry(&NO_CACHE, &Self::attributes(node), 0),
            Err(errno) => reply.error(errno as i32),
        }
    }

    fn empty(outcome: Result<(), Errno>, reply: ReplyEmpty) {
        match outcome {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno as i32),
        }
    }

    fn attr(&self, inode: u64, reply: ReplyAttr) {
        match self.tree.node(inode) {
            Ok(node) => reply.attr(&NO_CACHE, &Self::attributes(node)),
            Err(errno) => reply.error(errno as i32),
        }
    }

    /// Name, inode and kind of everything in a directory, after the two dots.
    fn listing(&self, inode: u64) -> Result<Vec<(u64, FileType, String)>, Errno> {
        let mut list =
            vec![(inode, FileType::Directory, ".".to_owned()), (tree::ROOT, FileType::Directory, "..".to_owned())];
        match self.tree.node(inode)? {
            Node::Root => list.extend(self.tree.reports().map(|(report, name)| {
                (Node::Report(report).inode(), FileType::Directory, name.to_string_lossy().into_owned())
            })),
            Node::Report(report) => list.extend(
                self.tree
                    .visible()
                    .into_iter()
                    .map(|file| (Node::File(report, file).inode(), FileType::RegularFile, file.name().to_owned())),
            ),
            Node::File(..) => return Err(Errno::ENOTDIR),
        }
        Ok(list)
    }
}

/// Offsets arrive signed; a negative one reads as beyond every limit.
fn unsigned(offset: i64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

impl Filesystem for Door {
    fn lookup(&mut self, _: &Request<'_>, parent: u64, name: &OsStr, reply: ReplyEntry) {
        Self::entry(self.tree.lookup(parent, name), reply);
    }

    fn getattr(&mut self, _: &Request<'_>, inode: u64, _: Option<u64>, reply: ReplyAttr) {
        self.attr(inode, reply);
    }

    /// Accepted without effect, because opening for writing truncates first.
    fn setattr(
        &mut self,
        _: &Request<'_>,
        inode: u64,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        _size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<u64>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<u32>,
        reply: ReplyAttr,
    ) {
        self.attr(inode, reply);
    }

    fn mkdir(&mut self, _: &Request<'_>, parent: u64, name: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        Self::entry(self.tree.make_report(parent, name), reply);
    }

    fn rmdir(&mut self, _: &Request<'_>, parent: u64, name: &OsStr, reply: ReplyEmpty) {
        Self::empty(self.tree.remove_report(parent, name), reply);
    }

    /// configfs has no way to make a file.
    fn create(&mut self, _: &Request<'_>, _: u64, _: &OsStr, _: u32, _: u32, _: i32, reply: ReplyCreate) {
        reply.error(Errno::EACCES as i32);
    }

    fn mknod(&mut self, _: &Request<'_>, _: u64, _: &OsStr, _: u32, _: u32, _: u32, reply: ReplyEntry) {
        reply.error(Errno::EACCES as i32);
    }

    fn unlink(&mut self, _: &Request<'_>, _: u64, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EPERM as i32);
    }

    fn open(&mut self, _: &Request<'_>, inode: u64, flags: i32, reply: ReplyOpen) {
        let access = match flags & nix::libc::O_ACCMODE {
            nix::libc::O_RDONLY => Access::Read,
            nix::libc::O_WRONLY => Access::Write,
            _ => Access::ReadWrite,
        };
        match self.tree.open(inode, access) {
            Ok(handle) => reply.opened(handle, fuser::consts::FOPEN_DIRECT_IO),
            Err(errno) => reply.error(errno as i32),
        }
    }

    fn read(
        &mut self,
        _: &Request<'_>,
        _: u64,
        handle: u64,
        offset: i64,
        size: u32,
        _: i32,
        _: Option<u64>,
        reply: ReplyData,
    ) {
        match self.tree.read(handle, unsigned(offset), usize::try_from(size).unwrap_or(usize::MAX)) {
            Ok(bytes) => reply.data(&bytes),
            Err(errno) => reply.error(errno as i32),
        }
    }

    fn write(
        &mut self,
        _: &Request<'_>,
        _: u64,
        handle: u64,
        offset: i64,
        data: &[u8],
        _: u32,
        _: i32,
        _: Option<u64>,
        reply: ReplyWrite,
    ) {
        match self.tree.write(handle, unsigned(offset), data) {
            Ok(()) => reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX)),
            Err(errno) => reply.error(errno as i32),
        }
    }

    fn flush(&mut self, _: &Request<'_>, _: u64, handle: u64, _: u64, reply: ReplyEmpty) {
        Self::empty(self.tree.flush(handle), reply);
    }

    fn release(&mut self, _: &Request<'_>, _: u64, handle: u64, _: i32, _: Option<u64>, _: bool, reply: ReplyEmpty) {
        self.tree.release(handle);
        reply.ok();
    }

    fn readdir(&mut self, _: &Request<'_>, inode: u64, _: u64, offset: i64, mut reply: ReplyDirectory) {
        match self.listing(inode) {
            Ok(list) => {
                for ((inode, kind, name), next) in list.into_iter().zip(1_i64..).skip(unsigned(offset)) {
                    if reply.add(inode, next, kind, name) {
                        break;
                    }
                }
                reply.ok();
            }
            Err(errno) => reply.error(errno as i32),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::mpsc;
    use std::thread;

    use nix::mount::{MsFlags, mount};

    use super::*;
    use crate::hardware::fixture::{not_run, snp_machine, tdx_machine};
    use crate::hardware::{BLOB_MAX, Fault};

    /// A served machine, or nothing, visibly, where this computer has no FUSE.
    fn served(test: &str) -> Option<(tempfile::TempDir, TsmFs)> {
        if !Path::new("/dev/fuse").exists() {
            not_run(test, "no /dev/fuse");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let files = TsmFs::mount(&dir.path().join("report"), snp_machine()).unwrap();
        Some((dir, files))
    }

    fn text(path: &Path, file: &str) -> String {
        fs::read_to_string(path.join(file)).unwrap()
    }

    fn errno(outcome: io::Result<impl Sized>) -> Option<Errno> {
        outcome.err().and_then(|error| error.raw_os_error()).map(Errno::from_raw)
    }

    #[test]
    fn a_client_gets_signed_evidence_over_its_bytes() {
        let Some((_dir, files)) = served("evidence through FUSE") else { return };
        let report = files.path().join("one");
        fs::create_dir(&report).unwrap();
        assert_eq!(text(&report, "provider"), "sev_guest\n");
        assert_eq!(text(&report, "privlevel_floor"), "0\n");
        assert_eq!(text(&report, "generation"), "0\n");
        fs::write(report.join("inblob"), [0x5a; 64]).unwrap();
        fs::write(report.join("privlevel"), "1").unwrap();
        assert_eq!(text(&report, "generation"), "2\n");
        let outblob = fs::read(report.join("outblob")).unwrap();
        let auxblob = fs::read(report.join("auxblob")).unwrap();
        assert_eq!((outblob.len(), &outblob[0x50..0x90], outblob[0x30]), (1184, &[0x5a; 64][..], 1));
        assert_eq!(auxblob, files.device().machine().evidence(&[0; 64], 0).unwrap().auxblob);
        assert_eq!(files.device().request_count(), 1, "both blobs must come from one request");
        assert_eq!(fs::read(report.join("outblob")).unwrap(), outblob, "unchanged generation, unchanged report");
        fs::write(report.join("inblob"), [0xa5; 64]).unwrap();
        assert_eq!(fs::read(report.join("outblob")).unwrap()[0x50..0x90], [0xa5; 64]);
        assert_eq!(files.device().requests()[1].inblob, [0xa5; 64]);
        fs::remove_dir(&report).unwrap();
        assert_eq!(fs::read_dir(files.path()).unwrap().count(), 0);
    }

    #[test]
    fn refusals_carry_the_kernels_numbers() {
        let Some((_dir, files)) = served("refusals through FUSE") else { return };
        let report = files.path().join("one");
        fs::create_dir(&report).unwrap();
        assert_eq!(errno(fs::read(report.join("outblob"))), Some(Errno::EINVAL), "nothing written yet");
        fs::write(report.join("inblob"), [1; 63]).unwrap();
        assert_eq!(errno(fs::read(report.join("outblob"))), Some(Errno::EINVAL), "63 bytes");
        assert_eq!(errno(fs::write(report.join("inblob"), [1; 65])), Some(Errno::EFBIG));
        assert_eq!(errno(fs::write(report.join("privlevel"), "4")), Some(Errno::EINVAL));
        assert_eq!(errno(fs::read(report.join("inblob"))), Some(Errno::EACCES));
        assert_eq!(errno(fs::write(report.join("outblob"), [1])), Some(Errno::EACCES));
        assert_eq!(errno(fs::write(report.join("other"), [1])), Some(Errno::EACCES));
        assert_eq!(errno(fs::create_dir(report.join("deeper"))), Some(Errno::EPERM));
        assert_eq!(errno(fs::create_dir(&report)), Some(Errno::EEXIST));
        assert_eq!(text(&report, "generation"), "2\n", "63 bytes, and the 65 that left nothing");
        assert_eq!(files.device().request_count(), 1, "an empty inblob never reaches the device");
    }

    #[test]
    fn names_and_modes_are_those_of_the_sev_driver() {
        let Some((_dir, files)) = served("directory listing through FUSE") else { return };
        let report = files.path().join("one");
        fs::create_dir(&report).unwrap();
        let mut list: Vec<(String, u32)> = fs::read_dir(&report)
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
                (entry.file_name().into_string().unwrap(), mode)
            })
            .collect();
        list.sort();
        let expected = [
            ("auxblob", 0o444),
            ("generation", 0o444),
            ("inblob", 0o200),
            ("outblob", 0o444),
            ("privlevel", 0o200),
            ("privlevel_floor", 0o444),
            ("provider", 0o444),
        ];
        assert_eq!(list, expected.map(|(name, mode)| (name.to_owned(), mode)));
    }

    #[test]
    fn a_trust_domain_has_no_levels_and_no_certificates() {
        let Some((_dir, files)) = served("TDX through FUSE") else { return };
        files.device().replace_machine(tdx_machine());
        let report = files.path().join("one");
        fs::create_dir(&report).unwrap();
        let mut names: Vec<_> = fs::read_dir(&report).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["generation", "inblob", "outblob", "provider"]);
        assert_eq!(errno(fs::metadata(report.join("auxblob"))), Some(Errno::ENOENT));
        assert_eq!(text(&report, "provider"), "tdx_guest\n");
        fs::write(report.join("inblob"), [0x5a; 64]).unwrap();
        let quote = fs::read(report.join("outblob")).unwrap();
        assert_eq!((quote[0], &quote[568..632]), (4, &[0x5a; 64][..]));
    }

    #[test]
    fn a_raised_floor_has_to_be_asked_for() {
        let Some((_dir, files)) = served("privilege floor through FUSE") else { return };
        let mut machine = snp_machine();
        machine.privlevel_floor = 2;
        files.device().replace_machine(machine);
        let report = files.path().join("one");
        fs::create_dir(&report).unwrap();
        assert_eq!(text(&report, "privlevel_floor"), "2\n");
        fs::write(report.join("inblob"), [0x5a; 64]).unwrap();
        assert_eq!(errno(fs::read(report.join("outblob"))), Some(Errno::EINVAL));
        assert_eq!(errno(fs::write(report.join("privlevel"), "1")), Some(Errno::EINVAL));
        fs::write(report.join("privlevel"), "2\n").unwrap();
        assert_eq!(fs::read(report.join("outblob")).unwrap()[0x30], 2);
    }

    #[test]
    fn faults_reach_the_client() {
        let Some((_dir, files)) = served("faults through FUSE") else { return };
        let report = files.path().join("one");
        fs::create_dir(&report).unwrap();
        let read = |fault: Fault| {
            files.device().set_fault(fault);
            fs::write(report.join("inblob"), [0x5a; 64]).unwrap();
            fs::read(report.join("outblob"))
        };
        let good = read(Fault::None).unwrap();
        assert!(read(Fault::EmptyQuote).unwrap().is_empty());
        assert_eq!(read(Fault::ShortQuote).unwrap().len(), 592);
        assert_eq!(read(Fault::TrailingBytes).unwrap().len(), 1200);
        assert_eq!(read(Fault::WrongReportData).unwrap()[0x50..0x52], [0xa5, 0x5a]);
        assert_eq!(read(Fault::FlipSignature).unwrap()[..0x2a0], good[..0x2a0]);
        assert_eq!(errno(read(Fault::Errno(Errno::EBUSY as i32))), Some(Errno::EBUSY));
        let replayed = Fault::Replay(crate::hardware::RawEvidence { outblob: good.clone(), auxblob: Vec::new() });
        assert_eq!(read(replayed).unwrap(), good);
        let wide = crate::hardware::RawEvidence { outblob: vec![0; BLOB_MAX + 1], auxblob: Vec::new() };
        assert_eq!(errno(read(Fault::Replay(wide))), Some(Errno::EFBIG));
    }

    #[test]
    fn a_stuck_device_neither_blocks_the_unmount_nor_the_client_for_ever() {
        let Some((_dir, files)) = served("stuck device through FUSE") else { return };
        let report = files.path().join("one");
        fs::create_dir(&report).unwrap();
        fs::write(report.join("inblob"), [0x5a; 64]).unwrap();
        let device = files.device().clone();
        device.set_fault(Fault::Stuck(Duration::from_secs(600)));
        let (done, wait) = mpsc::channel();
        let client = thread::spawn(move || done.send(errno(fs::read(report.join("outblob")))));
        while device.request_count() == 0 {
            thread::yield_now();
        }
        drop(files);
        let outcome = wait.recv_timeout(Duration::from_secs(60)).expect("the client must be let go");
        assert!(outcome.is_some(), "no evidence may come of it");
        client.join().unwrap().unwrap();
    }

    #[test]
    fn unmounting_leaves_the_folder_usable_and_a_dead_mount_is_cleared() {
        let Some((_dir, files)) = served("dead mount") else { return };
        let path = files.path().to_owned();
        drop(files);
        fs::write(path.join("plain"), "file").unwrap();
        fs::remove_file(path.join("plain")).unwrap();
        // What a killed process leaves: a mount whose device descriptor is closed.
        let fuse = fs::OpenOptions::new().read(true).write(true).open("/dev/fuse").unwrap();
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", fuse.as_raw_fd());
        mount(Some("dead"), &path, Some("fuse"), MsFlags::empty(), Some(options.as_str())).unwrap();
        drop(fuse);
        assert_eq!(errno(fs::metadata(&path)), Some(Errno::ENOTCONN));
        let files = TsmFs::mount(&path, snp_machine()).unwrap();
        fs::create_dir(files.path().join("one")).unwrap();
        drop(files);
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
    }
}
