//! The one file with `unsafe`: the allocator that wipes, device-mapper ioctls, for which no safe wrapper exists without a
//! C library, and two calls about children. It parses nothing that the host wrote.
#![allow(unsafe_code, reason = "GlobalAlloc, ioctl(2), pre_exec and raw waitpid(2) have no safe form")]
#![allow(clippy::as_conversions, reason = "pointer casts to and from the kernel's structures")]

use nix::libc;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use std::alloc::{GlobalAlloc, Layout, System};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use zeroize::Zeroize;

/// The system allocator, except that memory is overwritten with zeros before it is given back.
pub struct WipingAllocator;

// SAFETY: every call is passed to the system allocator with the layout it came with; `dealloc` writes only inside the
// block that the caller gives back, which nobody else may touch any more.
unsafe impl GlobalAlloc for WipingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block is `layout.size()` bytes, valid for writes, and owned by us from here on. Zeroize writes
        // volatile, so that the compiler cannot drop a write to memory that is about to be freed.
        unsafe {
            std::slice::from_raw_parts_mut(block, layout.size()).zeroize();
            System.dealloc(block, layout);
        }
    }
}

/// Neither core dumps nor ptrace by the same user.
pub(crate) fn set_not_dumpable() -> nix::Result<()> {
    prctl::set_dumpable(false)
}

/// No exec from here on can gain privileges; children inherit it.
pub(crate) fn set_no_new_privileges() -> nix::Result<()> {
    prctl::set_no_new_privs()
}

/// The child is killed when the agent's thread ends, however it ends.
pub(crate) fn die_with_the_agent(command: &mut Command) {
    // SAFETY: between fork and exec only prctl(2) is called, which allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(|| prctl::set_pdeathsig(Signal::SIGKILL).map_err(Into::into));
    }
}

/// Reaps one child that ended: its pid and raw wait status. `None` when none is left to reap. nix's waitpid cannot say how
/// a child ended that was killed by a real-time signal, and loses it.
pub(crate) fn reap_one() -> Option<(i32, i32)> {
    let mut status = 0;
    loop {
        // SAFETY: the status is a valid place for an int.
        match unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) } {
            pid if pid > 0 => return Some((pid, status)),
            0 => return None,
            _ if nix::Error::last() == nix::Error::EINTR => {}
            _ => return None, // ECHILD: no children
        }
    }
}

/// `struct dm_ioctl` of the kernel's user interface, version 4.0.0: 312 bytes.
#[repr(C)]
struct DmHeader {
    version: [u32; 3],
    data_size: u32,
    data_start: u32,
    target_count: u32,
    open_count: i32,
    flags: u32,
    event_nr: u32,
    padding: u32,
    dev: u64,
    name: [u8; 128],
    uuid: [u8; 129],
    data: [u8; 7],
}

const HEADER: usize = size_of::<DmHeader>();
const _: () = assert!(HEADER == 312);
/// Room for one target with its parameters.
const REQUEST: usize = 4_096;
const READ_ONLY: u32 = 1;
/// The kernel wipes its own copy of the request, which holds a key.
const SECURE_DATA: u32 = 1 << 15;

/// The three ioctls of `/dev/mapper/control` that are needed (linux/dm-ioctl.h).
mod ioctl {
    #![allow(missing_docs, unreachable_pub, reason = "the macro makes public functions without documentation")]
    use super::DmHeader;
    nix::ioctl_readwrite!(dev_create, 0xfd, 3, DmHeader);
    nix::ioctl_readwrite!(dev_suspend, 0xfd, 6, DmHeader);
    nix::ioctl_readwrite!(table_load, 0xfd, 9, DmHeader);
}

/// One device-mapper request: the header, then at most one target.
#[repr(C, align(8))]
struct DmRequest([u8; REQUEST]);

impl Drop for DmRequest {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// One target that covers a device.
pub(crate) struct Target<'a> {
    /// Length in 512-byte sectors.
    pub(crate) sectors: u64,
    /// Target type, for example `verity`.
    pub(crate) kind: &'a str,
    /// Parameters; may hold a key.
    pub(crate) parameters: &'a str,
}

impl DmRequest {
    fn new(name: &str, flags: u32, target: Option<&Target<'_>>) -> nix::Result<Box<Self>> {
        let mut request = Box::new(Self([0; REQUEST]));
        let mut put = |at: usize, bytes: &[u8]| match request.0.get_mut(at..at.saturating_add(bytes.len())) {
            Some(place) => {
                place.copy_from_slice(bytes);
                Ok(())
            }
            None => Err(nix::Error::E2BIG),
        };
        let u32s = [4, 0, 0, REQUEST as u32, HEADER as u32, u32::from(target.is_some()), 0, flags];
        for (index, number) in u32s.iter().enumerate() {
            put(index.saturating_mul(4), &number.to_ne_bytes())?;
        }
        if name.len() >= 128 {
            return Err(nix::Error::ENAMETOOLONG);
        }
        put(48, name.as_bytes())?;
        if let Some(target) = target {
            // struct dm_target_spec: sector_start u64, length u64, status i32, next u32, type [16]; then the text.
            put(HEADER.saturating_add(8), &target.sectors.to_ne_bytes())?;
            if target.kind.len() >= 16 {
                return Err(nix::Error::EINVAL);
            }
            put(HEADER.saturating_add(24), target.kind.as_bytes())?;
            put(HEADER.saturating_add(40), target.parameters.as_bytes())?;
            // The text ends in a NUL, which must fit as well.
            put(HEADER.saturating_add(40).saturating_add(target.parameters.len()), &[0])?;
        }
        Ok(request)
    }

    fn header(&mut self) -> *mut DmHeader {
        self.0.as_mut_ptr().cast()
    }
}

/// Creates a read-only device with one target and gives its minor number, as in `/dev/dm-<minor>`.
pub(crate) fn dm_create_read_only(name: &str, target: &Target<'_>) -> nix::Result<u32> {
    let control = File::options().read(true).write(true).open("/dev/mapper/control").map_err(|_| nix::Error::ENODEV)?;
    let fd = control.as_raw_fd();
    let mut create = DmRequest::new(name, READ_ONLY, None)?;
    // SAFETY: the request is an 8-aligned buffer of REQUEST bytes, and says so in its data_size field.
    unsafe { ioctl::dev_create(fd, create.header()) }?;
    // SAFETY: the kernel filled in the same buffer, whose header is plain integers and bytes.
    let device = unsafe { (*create.header()).dev };
    let mut load = DmRequest::new(name, READ_ONLY | SECURE_DATA, Some(target))?;
    // SAFETY: as above; the target and its NUL-terminated text lie inside the buffer.
    unsafe { ioctl::table_load(fd, load.header()) }?;
    let mut resume = DmRequest::new(name, 0, None)?;
    // SAFETY: as above.
    unsafe { ioctl::dev_suspend(fd, resume.header()) }?;
    // The kernel's 64-bit device number: minor in bits 0-7 and 20-31 (kdev_t.h, new_encode_dev).
    u32::try_from((device & 0xff) | ((device >> 12) & 0xfff00)).map_err(|_| nix::Error::EOVERFLOW)
}
