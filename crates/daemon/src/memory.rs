// SPDX-License-Identifier: Apache-2.0
//! The memory of a process, on request: what is mapped where, and what is in it.
//!
//! Who reads the memory of another process waits for what is behind a page that is not there: a file system
//! that answers when it likes, or the process itself (userfaultfd), which may never answer. Nothing but the
//! end of who reads ends that. So a child reads, and is ended after [`LIMIT`].

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::AsFd;
use std::ptr::{self, NonNull};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, kill_process, pidfd_open, waitpid};

use crate::identity::Held;

/// How long reading may take.
pub const LIMIT: Duration = Duration::from_secs(2);
/// Most bytes of one reading.
pub const LONGEST: u32 = 256 << 10;
/// Longest text of /proc/PID/maps: a process has 65,530 mappings, unless the administrator allows more.
const LONGEST_MAP: usize = 16 << 20;

/// What is wanted of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// What is mapped where: the text of /proc/PID/maps.
    Map,
    /// What is in it: as much as is there without a gap.
    Bytes {
        /// Where.
        address: u64,
        /// How much, at most [`LONGEST`].
        length: u32,
    },
}

/// One mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Its first address.
    pub start: u64,
    /// The one behind its last.
    pub end: u64,
    /// `PROT_`
    pub protection: u32,
    /// What is written reaches the file and all who have it mapped.
    pub shared: bool,
    /// Where in the file it begins, in bytes.
    pub offset: u64,
    /// Device (major << 20 | minor) and inode of the file; none of anonymous memory.
    pub file: Option<(u64, u64)>,
    /// Path of the file, or what the kernel calls it, as `[stack]`; can be empty.
    pub name: Vec<u8>,
}

/// Reads it. ESRCH if the process has ended, whatever was read.
pub fn read(process: &Held, wanted: Wanted) -> io::Result<Vec<u8>> {
    let pid = process.pid();
    let read = match wanted {
        Wanted::Map => {
            let path = CString::new(format!("/proc/{pid}/maps"))?;
            in_child(LONGEST_MAP, |place| read_file(&path, place))
        }
        Wanted::Bytes { address, length } => {
            let length = length.min(LONGEST) as usize;
            in_child(length, |place| read_memory(pid.cast_signed(), address, place))
        }
    };
    process.still_there()?;
    read
}

/// What the child has to say, in front of what it has read.
#[repr(C)]
struct Outcome {
    /// 0 until it has ended as it should.
    done: u64,
    errno: u64,
    length: u64,
}

/// Memory that a child has too.
struct Shared {
    start: NonNull<u8>,
    length: usize,
}

impl Shared {
    fn new(length: usize) -> io::Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
        let start =
            unsafe { mmap_anonymous(ptr::null_mut(), length, protection, MapFlags::SHARED)? };
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, length })
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` made, to which nobody has a reference any more.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.length) };
    }
}

/// Has a child read into a place of `room` bytes. `read` gives how much it read, or an errno; it makes system
/// calls only, since other threads may have held locks as the child was made.
fn in_child(
    room: usize,
    read: impl FnOnce(&mut [u8]) -> Result<usize, i32>,
) -> io::Result<Vec<u8>> {
    let shared = Shared::new(size_of::<Outcome>() + room)?;
    let outcome: *mut Outcome = shared.start.as_ptr().cast();
    // SAFETY: behind the outcome, within the mapping.
    let place = unsafe { shared.start.as_ptr().add(size_of::<Outcome>()) };
    // SAFETY: the child makes system calls and writes to the shared mapping, takes no memory, and ends by _exit.
    let child = unsafe { libc::fork() };
    match child {
        -1 => return Err(io::Error::last_os_error()),
        0 => {
            // SAFETY: as above; the mapping begins with a page, so the outcome is aligned, and only this child
            // writes to it while it lives.
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                let (errno, length) = match read(std::slice::from_raw_parts_mut(place, room)) {
                    Ok(length) => (0, length as u64),
                    Err(errno) => (u64::from(errno.unsigned_abs()), 0),
                };
                outcome.write(Outcome { done: 1, errno, length });
                libc::_exit(0);
            }
        }
        _ => {}
    }
    wait(child)?;
    // SAFETY: the child has ended, so nobody writes any more; the mapping is as long and filled with zeroes.
    let (outcome, read) = unsafe { (outcome.read(), std::slice::from_raw_parts(place, room)) };
    match outcome {
        Outcome { done: 0, .. } => {
            let reason = format!("it took longer than {} s", LIMIT.as_secs());
            Err(io::Error::new(io::ErrorKind::TimedOut, reason))
        }
        Outcome { errno: 0, length, .. } => {
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            Ok(read.get(..length).unwrap_or_default().to_vec())
        }
        Outcome { errno, .. } => Err(io::Error::from_raw_os_error(errno as i32)),
    }
}

/// Until the child has ended, which it has at the latest when its time is over.
fn wait(child: libc::pid_t) -> io::Result<()> {
    let child = Pid::from_raw(child).ok_or(io::ErrorKind::InvalidInput)?;
    // Until it is waited for its number is its own.
    let ended = pidfd_open(child, PidfdFlags::empty()).and_then(|pidfd| {
        let time = rustix::time::Timespec { tv_sec: LIMIT.as_secs().cast_signed(), tv_nsec: 0 };
        rustix::io::retry_on_intr(|| {
            poll(&mut [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)], Some(&time))
        })
    });
    if !matches!(ended, Ok(1)) {
        kill_process(child, Signal::KILL)?;
    }
    rustix::io::retry_on_intr(|| waitpid(Some(child), WaitOptions::empty()))?;
    ended?;
    Ok(())
}

/// The errno of the call that failed last. In the child: no other place is touched.
fn errno() -> i32 {
    // SAFETY: it is there in each thread.
    unsafe { *libc::__errno_location() }
}

fn read_file(path: &CStr, place: &mut [u8]) -> Result<usize, i32> {
    // SAFETY: a string that ends.
    let file = unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
    if file < 0 {
        return Err(errno());
    }
    let mut length = 0;
    loop {
        let rest = &mut place[length..];
        if rest.is_empty() {
            return Err(libc::EFBIG);
        }
        // SAFETY: a place of ours that is as long.
        match unsafe { libc::read(file, rest.as_mut_ptr().cast(), rest.len()) } {
            0 => return Ok(length),
            read if read > 0 => length += read.unsigned_abs(),
            _ => return Err(errno()),
        }
    }
}

fn read_memory(pid: i32, address: u64, place: &mut [u8]) -> Result<usize, i32> {
    const PAGE: u64 = 4096;
    // The kernel gives up at the first part that is not all there, so each part is of one page.
    let mut parts =
        [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; LONGEST as usize / 4096 + 1];
    let (mut at, mut rest, mut count) = (address, place.len() as u64, 0);
    while rest > 0 && count < parts.len() {
        let length = rest.min(PAGE - at % PAGE);
        parts[count] = libc::iovec { iov_base: at as *mut libc::c_void, iov_len: length as usize };
        (at, rest, count) = (at.wrapping_add(length), rest - length, count + 1);
    }
    let local = libc::iovec { iov_base: place.as_mut_ptr().cast(), iov_len: place.len() };
    // SAFETY: writes into a place of ours that is as long; what it reads is another process's, or checked.
    let read = unsafe {
        libc::process_vm_readv(pid, &raw const local, 1, parts.as_ptr(), count as libc::c_ulong, 0)
    };
    if read < 0 { Err(errno()) } else { Ok(read.unsigned_abs()) }
}

/// The mappings that a text of /proc/PID/maps has, in the order of their addresses; of a line that is none,
/// nothing.
pub fn mappings(text: &[u8]) -> impl Iterator<Item = Mapping> + '_ {
    text.split(|byte| *byte == b'\n').filter_map(mapping)
}

/// `start-end perms offset major:minor inode      name` (fs/proc/task_mmu.c, show_map_vma).
fn mapping(line: &[u8]) -> Option<Mapping> {
    let mut fields = line.splitn(6, |byte| *byte == b' ');
    let mut next = || std::str::from_utf8(fields.next()?).ok();
    let (start, end) = next()?.split_once('-')?;
    let [read, write, execute, shared] = *next()?.as_bytes() else { return None };
    let offset = next()?;
    let (major, minor) = next()?.split_once(':')?;
    let inode = next()?.parse().ok()?;
    let hex = |digits: &str| u64::from_str_radix(digits, 16).ok();
    let device = hex(major)?.checked_shl(20)? | hex(minor)?;
    let bit = |byte, letter, bit| if byte == letter { bit } else { 0 };
    let name = fields.next().unwrap_or_default().trim_ascii_start();
    Some(Mapping {
        start: hex(start)?,
        end: hex(end)?,
        protection: bit(read, b'r', 1) | bit(write, b'w', 2) | bit(execute, b'x', 4),
        shared: shared == b's',
        offset: hex(offset)?,
        file: (inode != 0).then_some((device, inode)),
        name: unescaped(name),
    })
}

/// The kernel writes line feeds in names as `\012`, and nothing else so (seq_path).
fn unescaped(name: &[u8]) -> Vec<u8> {
    let mut rest = name;
    let mut out = Vec::with_capacity(name.len());
    while let Some((first, after)) = rest.split_first() {
        match rest.strip_prefix(b"\\012") {
            Some(after) => (rest, _) = (after, out.push(b'\n')),
            None => (rest, _) = (after, out.push(*first)),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ourselves() -> Held {
        Held::open(std::process::id()).unwrap()
    }

    #[test]
    fn what_is_in_memory_is_read_up_to_the_first_gap() {
        let there: Vec<u8> = (0..100_000_u32).map(|at| at as u8).collect();
        let bytes = |address, length| Wanted::Bytes { address, length };
        let address = there.as_ptr() as u64;
        assert_eq!(read(&ourselves(), bytes(address, 100_000)).unwrap(), there);
        assert_eq!(read(&ourselves(), bytes(address + 5, 3)).unwrap(), [5, 6, 7]);
        let error = read(&ourselves(), bytes(0, 8)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EFAULT));

        // Two pages, of which the second may not be read.
        let memory = Shared::new(2 * 4096).unwrap();
        let start = memory.start.as_ptr();
        // SAFETY: our own mapping, of which nobody looks into the second page.
        unsafe {
            start.write(7);
            let second = start.add(4096).cast();
            rustix::mm::mprotect(second, 4096, rustix::mm::MprotectFlags::empty()).unwrap();
        }
        let read = read(&ourselves(), bytes(start as u64 + 4000, 500)).unwrap();
        assert_eq!(read, [0; 96]);
    }

    #[test]
    fn who_ended_has_no_memory() {
        let mut child = std::process::Command::new("/bin/sleep").arg("1000").spawn().unwrap();
        let held = Held::open(child.id()).unwrap();
        assert!(mappings(&read(&held, Wanted::Map).unwrap()).count() > 5);
        child.kill().unwrap();
        child.wait().unwrap();
        let error = read(&held, Wanted::Map).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ESRCH));
    }

    #[test]
    fn a_process_that_does_not_give_its_memory_holds_nobody_up() {
        let (start, ours) = (std::time::Instant::now(), std::process::id());
        let error = in_child(8, |_| {
            loop {
                // SAFETY: waits for ever for a signal.
                unsafe { libc::pause() };
            }
        });
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(start.elapsed() >= LIMIT && start.elapsed() < 10 * LIMIT);
        let children = format!("/proc/{ours}/task/{ours}/children");
        assert!(std::fs::read_to_string(children).is_ok());
    }

    #[test]
    fn our_own_map_has_our_code_where_it_is() {
        let text = read(&ourselves(), Wanted::Map).unwrap();
        let code = our_own_map_has_our_code_where_it_is as fn() as usize as u64;
        let found = mappings(&text).find(|m| (m.start..m.end).contains(&code)).unwrap();
        let own = std::env::current_exe().unwrap();
        assert_eq!(found.name, own.as_os_str().as_encoded_bytes());
        assert_eq!((found.protection, found.shared), (5, false));
        let inode = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(own).unwrap());
        assert_eq!(found.file.unwrap().1, inode);
        assert_eq!(mappings(&text).count(), text.iter().filter(|byte| **byte == b'\n').count());
    }

    #[test]
    fn a_line_is_one_mapping_whatever_its_name_has_in_it() {
        let text =
            b"7f00-7f10 rw-s 0000a000 08:11 77                       /a b\\012c \\x (deleted)\n\
                     7ffc-7ffd ---p 00000000 00:00 0 \n\
                     nonsense\n7f00-7f10 rw 0 0:0 0\n";
        let all: Vec<_> = mappings(text).collect();
        assert_eq!(
            all,
            [
                Mapping {
                    start: 0x7f00,
                    end: 0x7f10,
                    protection: 3,
                    shared: true,
                    offset: 0xa000,
                    file: Some((8 << 20 | 0x11, 77)),
                    name: b"/a b\nc \\x (deleted)".to_vec(),
                },
                Mapping {
                    start: 0x7ffc,
                    end: 0x7ffd,
                    protection: 0,
                    shared: false,
                    offset: 0,
                    file: None,
                    name: Vec::new(),
                },
            ]
        );
    }
}
