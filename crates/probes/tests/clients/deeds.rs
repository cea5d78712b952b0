// SPDX-License-Identifier: Apache-2.0
//! What a process does that rules can deny. Each gives the errno that it failed with, or 0.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::ptr;
use std::time::{Duration, Instant};

use io_uring::{IoUring, opcode, types};

/// How much is mapped, in bytes.
pub(crate) const LENGTH: usize = 8192;

/// The errno of a system call that failed, or 0.
pub(crate) fn errno(result: i64) -> i32 {
    if result == -1 { io::Error::last_os_error().raw_os_error().unwrap() } else { 0 }
}

/// Of a program that could not be executed.
pub(crate) fn executed(program: &Path) -> i32 {
    let child = Command::new(program).stdout(Stdio::null()).spawn();
    child.map(|mut child| child.wait().unwrap()).err().map_or(0, |e| e.raw_os_error().unwrap())
}

/// A file in memory.
pub(crate) fn memfd(name: &str, bytes: &[u8]) -> File {
    let file = rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let mut file = File::from(file);
    file.write_all(bytes).unwrap();
    file
}

/// A program in memory. What is open for writing cannot be executed, so it is not any more.
pub(crate) fn program_in_memory(name: &str) -> File {
    let memory = memfd(name, &fs::read("/bin/true").unwrap());
    File::open(format!("/proc/self/fd/{}", memory.as_raw_fd())).unwrap()
}

/// Does something in a child that ends with the errno that it gives. Gives its number and the errno.
fn forked(act: impl FnOnce() -> i32) -> (u32, i32) {
    // SAFETY: the child makes the system calls of `act`, takes no memory, and ends.
    unsafe {
        let child = libc::fork();
        if child == 0 {
            libc::_exit(act());
        }
        assert!(child > 0);
        let mut status = 0;
        assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
        assert!(libc::WIFEXITED(status), "status {status:#x}");
        (child as u32, libc::WEXITSTATUS(status))
    }
}

/// `errno` where no memory can be taken.
fn errno_in_child() -> i32 {
    // SAFETY: it is there in each thread.
    unsafe { *libc::__errno_location() }
}

/// Executes what a descriptor stands for, in a child whose number is given.
pub(crate) fn execute(file: RawFd) -> (u32, i32) {
    let (empty, none) = (CString::default(), ptr::null::<libc::c_char>());
    // busybox goes by its name.
    let arguments = [c"true".as_ptr(), none];
    let environment = [none];
    forked(|| {
        let (list, flags) = (arguments.as_ptr(), libc::AT_EMPTY_PATH);
        // SAFETY: lists of strings that end; the child is our own.
        unsafe {
            let environment = environment.as_ptr();
            libc::syscall(libc::SYS_execveat, file, empty.as_ptr(), list, environment, flags);
        }
        errno_in_child()
    })
}

/// Of a program that could not be executed.
pub(crate) fn executed_by_descriptor(file: RawFd) -> i32 {
    execute(file).1
}

/// A child has itself traced, and ends.
pub(crate) fn has_itself_traced() -> i32 {
    let trace_me = || {
        // SAFETY: a plain system call; who ends is not held up by a tracer that waits for its end.
        let traced = unsafe { libc::ptrace(libc::PTRACE_TRACEME) };
        if traced == -1 { errno_in_child() } else { 0 }
    };
    forked(trace_me).1
}

/// Opens a file for reading by io_uring, without a call of the open family.
pub(crate) fn opened_by_io_uring(path: &str) -> i32 {
    let path = CString::new(path).unwrap();
    let mut ring = IoUring::new(1).unwrap();
    let entry = opcode::OpenAt::new(types::Fd(libc::AT_FDCWD), path.as_ptr()).build();
    // SAFETY: the path lives until the entry is completed, which is waited for.
    unsafe { ring.submission().push(&entry).unwrap() };
    ring.submit_and_wait(1).unwrap();
    let done = ring.completion().next().unwrap().result();
    if done < 0 {
        return -done;
    }
    // SAFETY: a descriptor that was just made for us.
    drop(unsafe { OwnedFd::from_raw_fd(done) });
    0
}

/// Attaches shared memory executable, and gives it back.
pub(crate) fn attached() -> i32 {
    // SAFETY: plain system calls; what they map is given back.
    unsafe {
        let id = libc::shmget(libc::IPC_PRIVATE, LENGTH, 0o700 | libc::IPC_CREAT);
        assert!(id >= 0);
        let at = libc::shmat(id, ptr::null(), libc::SHM_EXEC);
        let failed = errno(at as i64);
        if failed == 0 {
            assert_eq!(libc::shmdt(at), 0);
        }
        libc::shmctl(id, libc::IPC_RMID, ptr::null_mut());
        failed
    }
}

/// A child that waits to be looked into.
pub(crate) struct Subject(pub(crate) Child);

impl Subject {
    pub(crate) fn start() -> Self {
        Self(Command::new("/bin/sleep").arg("1000").stdout(Stdio::null()).spawn().unwrap())
    }

    /// One that runs a copy of sleep already.
    pub(crate) fn start_of(program: &Path) -> Self {
        let child = Self(Command::new(program).arg("1000").stdout(Stdio::null()).spawn().unwrap());
        // What it runs counts, so until it does.
        let started = Instant::now();
        while fs::read_link(child.proc("exe")).ok().as_deref() != Some(program) {
            assert!(started.elapsed() < super::LIMIT);
            std::thread::sleep(Duration::from_millis(5));
        }
        child
    }

    pub(crate) fn pid(&self) -> i32 {
        self.0.id() as i32
    }

    pub(crate) fn seize(&self) -> i32 {
        // SAFETY: a child of ours, which is let go again.
        unsafe {
            let none = ptr::null_mut::<libc::c_void>();
            let seized = libc::ptrace(libc::PTRACE_SEIZE, self.pid(), none, none);
            if seized == -1 {
                return errno(seized);
            }
            libc::ptrace(libc::PTRACE_INTERRUPT, self.pid(), none, none);
            assert_eq!(libc::waitpid(self.pid(), ptr::null_mut(), 0), self.pid());
            assert_eq!(libc::ptrace(libc::PTRACE_DETACH, self.pid(), none, none), 0);
        }
        0
    }

    /// Where its stack is.
    pub(crate) fn stack(&self) -> usize {
        let maps = fs::read_to_string(self.proc("maps")).unwrap();
        let stack = maps.lines().find(|line| line.ends_with("[stack]")).unwrap();
        usize::from_str_radix(stack.split('-').next().unwrap(), 16).unwrap()
    }

    /// process_vm_readv or writev of a byte where nothing is; that is found out after it was asked for.
    pub(crate) fn vm(&self, call: libc::c_long) -> libc::c_long {
        self.vm_at(call, 0)
    }

    /// The same of a byte at an address, which writing makes 0.
    pub(crate) fn vm_at(&self, call: libc::c_long, address: usize) -> libc::c_long {
        let mut byte = 0_u8;
        let local = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
        let remote = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: 1 };
        let (pid, count, flags) =
            (libc::c_long::from(self.pid()), 1 as libc::c_ulong, 0 as libc::c_ulong);
        // The last one is passed on the stack, where half of an int's place is whatever was there, and the
        // kernel refuses flags that it does not know.
        // SAFETY: reads or writes one byte of ours at most.
        unsafe {
            libc::syscall(call, pid, &raw const local, count, &raw const remote, count, flags)
        }
    }

    pub(crate) fn pidfd(&self) -> File {
        // SAFETY: a plain system call; the descriptor is ours alone.
        unsafe { File::from_raw_fd(libc::syscall(libc::SYS_pidfd_open, self.pid(), 0) as RawFd) }
    }

    pub(crate) fn get_fd(&self, pidfd: &File) -> libc::c_long {
        // SAFETY: a plain system call; what it gives is closed as this process ends.
        unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), 1, 0) }
    }

    pub(crate) fn proc(&self, file: &str) -> String {
        format!("/proc/{}/{file}", self.pid())
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// What bpf(2) is called with to load a program that does nothing, of the type SOCKET_FILTER and with this
/// name, and what it refers to.
pub(crate) struct Program {
    _code: Box<[u64; 2]>,
    attributes: [u64; 18],
}

impl Program {
    pub(crate) fn new(name: &[u8; 8]) -> Self {
        // r0 = 0; exit
        let code = Box::new([0xb7, 0x95]);
        let mut attributes = [0; 18];
        // BPF_PROG_TYPE_SOCKET_FILTER, two instructions.
        attributes[0] = 1 | 2 << 32;
        attributes[1] = code.as_ptr() as u64;
        attributes[2] = c"GPL".as_ptr() as u64;
        attributes[6] = u64::from_le_bytes(*name);
        Self { _code: code, attributes }
    }

    /// Loads it, and lets go of it. Gives the errno.
    pub(crate) fn load(&self) -> i32 {
        bpf(5, &self.attributes)
    }
}

/// bpf(2); what it gives is closed. Gives the errno.
pub(crate) fn bpf(command: i32, attributes: &[u64; 18]) -> i32 {
    let length = size_of_val(attributes);
    // SAFETY: as many bytes as are said to be there, and a descriptor of our own.
    unsafe {
        let made = libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), length);
        let failed = errno(made);
        if made >= 0 {
            libc::close(made as i32);
        }
        failed
    }
}

/// Maps memory and gives it back.
pub(crate) fn mapped(protection: i32, flags: i32, file: i32) -> i32 {
    // SAFETY: a new mapping at an address of the kernel's choice replaces nothing, and goes at once.
    unsafe {
        let start = libc::mmap(ptr::null_mut(), LENGTH, protection, flags, file, 0);
        if start == libc::MAP_FAILED {
            return errno(-1);
        }
        libc::munmap(start, LENGTH);
    }
    0
}

/// Maps memory with one protection, changes it to another, and gives it back.
pub(crate) fn changed(before: i32, after: i32, flags: i32, file: i32) -> i32 {
    changed_by(libc::SYS_mprotect, before, after, flags, file)
}

/// The same by another call.
pub(crate) fn changed_by(
    call: libc::c_long,
    before: i32,
    after: i32,
    flags: i32,
    file: i32,
) -> i32 {
    // SAFETY: as above; nobody looks into it.
    unsafe {
        let start = libc::mmap(ptr::null_mut(), LENGTH, before, flags, file, 0);
        assert_ne!(start, libc::MAP_FAILED);
        // With no key.
        let changed = errno(libc::syscall(call, start, LENGTH, after, -1));
        libc::munmap(start, LENGTH);
        changed
    }
}
