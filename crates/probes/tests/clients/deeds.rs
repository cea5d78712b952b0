// SPDX-License-Identifier: Apache-2.0
//! What a process does that rules can deny. Each gives the errno that it failed with, or 0.

use std::ffi::CString;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::ptr;
use std::time::{Duration, Instant};

use io_uring::{IoUring, opcode, squeue, types};

/// How much is mapped, in bytes.
pub(crate) const LENGTH: usize = 8192;

/// The errno of a system call that failed, or 0.
pub(crate) fn errno(result: i64) -> i32 {
    if result == -1 { io::Error::last_os_error().raw_os_error().unwrap() } else { 0 }
}

/// The errno of what failed, or 0.
pub(crate) fn failed<T>(done: io::Result<T>) -> i32 {
    done.err().map_or(0, |error| error.raw_os_error().unwrap())
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
pub(crate) fn forked(act: impl FnOnce() -> i32) -> (u32, i32) {
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

/// A kind of programs that another interprets, by what they begin with; as long as it lives.
pub(crate) struct Interpreted;

impl Interpreted {
    const FILES: &str = "/proc/sys/fs/binfmt_misc";
    const BEGINS: &str = "RINGFENCE";

    /// Nothing where the kernel has no binfmt_misc.
    pub(crate) fn by(interpreter: &Path) -> Option<Self> {
        let register = Path::new(Self::FILES).join("register");
        if !register.exists() {
            let (kind, place) = (c"binfmt_misc", CString::new(Self::FILES).unwrap());
            // SAFETY: strings that end; what is mounted there stays.
            let mounted = unsafe {
                libc::mount(kind.as_ptr(), place.as_ptr(), kind.as_ptr(), 0, ptr::null())
            };
            if mounted == -1 {
                let error = io::Error::last_os_error();
                println!("not looked for: binfmt_misc, which cannot be mounted: {error}");
                return None;
            }
        }
        let rule = format!(":ringfence:M::{}::{}:", Self::BEGINS, interpreter.display());
        fs::write(register, rule).unwrap();
        Some(Self)
    }

    /// A program of the kind.
    pub(crate) fn program(&self, directory: &Path) -> PathBuf {
        let program = directory.join("interpreted");
        fs::write(&program, Self::BEGINS).unwrap();
        fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
        program
    }
}

impl Drop for Interpreted {
    fn drop(&mut self) {
        let _ = fs::write(Path::new(Self::FILES).join("ringfence"), "-1");
    }
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

/// What opens a file for reading and gives the errno.
pub(crate) type Opener = fn(&str) -> i32;

/// Ways to open a file by io_uring, without a call of the open family; what is said of each behind the door.
pub(crate) const RINGS: [(&str, Opener); 3] = [
    ("by io_uring", |path| by_io_uring(path, Ring::AtOnce).0),
    ("by a worker of io_uring", |path| by_io_uring(path, Ring::ByWorker).0),
    ("by io_uring that polls", |path| by_io_uring(path, Ring::Polled).0),
];

/// Who does what a ring is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ring {
    /// The thread that asks, within its system call.
    AtOnce,
    /// A worker, which the kernel makes as a thread of the process.
    ByWorker,
    /// A thread of the process that the kernel makes to look for what is asked (IORING_SETUP_SQPOLL).
    Polled,
}

/// Opens a file by a worker. Gives how many workers there are then.
pub(crate) fn workers_of_io_uring(path: &str) -> usize {
    let (failed, ring) = by_io_uring(path, Ring::ByWorker);
    assert_eq!(failed, 0);
    let threads = fs::read_dir("/proc/self/task").unwrap();
    let names = threads.map(|thread| fs::read_to_string(thread.unwrap().path().join("comm")));
    let workers = names.filter(|name| name.as_ref().is_ok_and(|name| name.starts_with("iou-wrk")));
    let workers = workers.count();
    drop(ring);
    workers
}

fn by_io_uring(path: &str, ring: Ring) -> (i32, IoUring) {
    let path = CString::new(path).unwrap();
    let flags = if ring == Ring::ByWorker { squeue::Flags::ASYNC } else { squeue::Flags::empty() };
    let mut builder: io_uring::Builder = IoUring::builder();
    if ring == Ring::Polled {
        // It looks for so many milliseconds before it has to be woken.
        builder.setup_sqpoll(1000);
    }
    let mut ring = builder.build(1).unwrap();
    let entry = opcode::OpenAt::new(types::Fd(libc::AT_FDCWD), path.as_ptr()).build().flags(flags);
    // SAFETY: the path lives until the entry is completed, which is waited for.
    unsafe { ring.submission().push(&entry).unwrap() };
    ring.submit_and_wait(1).unwrap();
    let done = ring.completion().next().unwrap().result();
    if done < 0 {
        return (-done, ring);
    }
    // SAFETY: a descriptor that was just made for us.
    drop(unsafe { OwnedFd::from_raw_fd(done) });
    (0, ring)
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

/// What looks into a subject, of which it has a pidfd.
pub(crate) type Looker = fn(&Subject, &File) -> libc::c_long;

/// Calls that look into a process and reach no memory, by their names in docs/coverage.md. If they are denied the
/// caller has EPERM.
pub(crate) const LOOKERS: [(&str, Looker); 4] = [
    // KCMP_VM
    ("kcmp", |subject, _| {
        let own = std::process::id();
        // SAFETY: plain numbers.
        unsafe { libc::syscall(libc::SYS_kcmp, own, subject.pid(), 1, 0, 0) }
    }),
    ("move_pages", |subject, _| {
        let (pid, none) = (subject.pid(), ptr::null::<u8>());
        // SAFETY: of no pages nothing is read or written.
        unsafe { libc::syscall(libc::SYS_move_pages, pid, 0_usize, none, none, none, 0_usize) }
    }),
    ("get_robust_list", |subject, _| {
        let (mut head, mut length) = (0_usize, 0_usize);
        let (pid, head, length) = (subject.pid(), &raw mut head, &raw mut length);
        // SAFETY: two words of ours.
        unsafe { libc::syscall(libc::SYS_get_robust_list, pid, head, length) }
    }),
    ("setns by a pidfd", |_, pidfd| {
        // SAFETY: it has the same.
        i64::from(unsafe { libc::setns(pidfd.as_raw_fd(), libc::CLONE_NEWUTS) })
    }),
];

/// A system call as 32-bit programs make it and others can. Gives what it comes to: a negative errno, or not.
pub(crate) fn int_80(call: u32, arguments: [usize; 4]) -> i32 {
    let [first, second, third, fourth] = arguments;
    let done: i64;
    // SAFETY: LLVM has rbx for itself, so it is put back; the kernel gives back the others that it is
    // called with, but for those that are named.
    unsafe {
        std::arch::asm!(
            "xchg {first}, rbx",
            "int 0x80",
            "xchg {first}, rbx",
            first = inout(reg) first => _,
            inlateout("rax") u64::from(call) => done,
            in("rcx") second,
            in("rdx") third,
            in("rsi") fourth,
            lateout("r8") _,
            lateout("r9") _,
            lateout("r10") _,
            lateout("r11") _,
        );
    }
    done as i32
}

/// Maps what is mapped executable, whatever is asked for, as long as something is readable.
pub(crate) fn with_read_implies_exec<T>(act: impl FnOnce() -> T) -> T {
    // READ_IMPLIES_EXEC, include/uapi/linux/personality.h.
    const IMPLIES: u64 = 0x0040_0000;
    // SAFETY: of this thread, and as before when it is done.
    unsafe {
        let before = libc::personality(0xffff_ffff);
        assert!(libc::personality(before as u64 | IMPLIES) >= 0);
        let done = act();
        libc::personality(before as u64);
        done
    }
}

/// Puts the second page of a shared mapping of a file in the place of the first.
pub(crate) fn remapped(start: *mut libc::c_void) -> i32 {
    // SAFETY: a mapping of ours of two pages, which nobody looks into.
    errno(unsafe { libc::syscall(libc::SYS_remap_file_pages, start, 4096, 0, 1, 0) })
}

/// A file that never had a name, of a program, and is open for reading only.
pub(crate) fn unnamed_program(directory: &Path) -> File {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = File::options();
    let mut file =
        options.write(true).mode(0o755).custom_flags(libc::O_TMPFILE).open(directory).unwrap();
    file.write_all(&fs::read("/bin/true").unwrap()).unwrap();
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap()
}

/// Executes a program by its name in a directory, in a child whose number is given.
pub(crate) fn execute_at(directory: &File, name: &std::ffi::CStr) -> (u32, i32) {
    let none = ptr::null::<libc::c_char>();
    let (arguments, environment) = ([name.as_ptr(), none], [none]);
    forked(|| {
        let (list, environment) = (arguments.as_ptr(), environment.as_ptr());
        let directory = directory.as_raw_fd();
        // SAFETY: strings and lists of strings that end; the child is our own.
        unsafe {
            libc::syscall(libc::SYS_execveat, directory, name.as_ptr(), list, environment, 0);
        }
        errno_in_child()
    })
}

/// Makes system calls in a child, one after the other: the number of each, and its arguments. Gives the child's
/// number.
pub(crate) fn called_in_child(calls: &[(libc::c_long, [u32; 3])]) -> u32 {
    let (pid, failed) = forked(|| {
        let failed = calls.iter().find_map(|(call, [first, second, third])| {
            // SAFETY: the callers' calls take numbers only.
            let done = unsafe { libc::syscall(*call, *first, *second, *third) };
            (done == -1).then(errno_in_child)
        });
        failed.unwrap_or(0)
    });
    assert_eq!(failed, 0, "{calls:?}");
    pid
}

/// A child that waits to be looked into.
pub(crate) struct Subject(pub(crate) Child);

impl Subject {
    pub(crate) fn start() -> Self {
        Self::run(Path::new("/bin/sleep"))
    }

    /// In a group of its own, so that the group can be sent signals.
    fn run(program: &Path) -> Self {
        let mut command = Command::new(program);
        Self(command.arg("1000").stdout(Stdio::null()).process_group(0).spawn().unwrap())
    }

    /// One that runs a copy of sleep already.
    pub(crate) fn start_of(program: &Path) -> Self {
        let child = Self::run(program);
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
        let seized = unsafe {
            let none = ptr::null_mut::<libc::c_void>();
            libc::ptrace(libc::PTRACE_SEIZE, self.pid(), none, none)
        };
        if seized == -1 {
            return errno(seized);
        }
        self.let_go();
        0
    }

    /// By PTRACE_ATTACH, which also stops it.
    pub(crate) fn attach(&self) -> i32 {
        let (pid, none) = (self.pid(), ptr::null_mut::<libc::c_void>());
        // SAFETY: a child of ours, which is let go again.
        unsafe {
            let attached = libc::ptrace(libc::PTRACE_ATTACH, pid, none, none);
            if attached == -1 {
                return errno(attached);
            }
            assert_eq!(libc::waitpid(pid, ptr::null_mut(), 0), pid);
            assert_eq!(libc::ptrace(libc::PTRACE_DETACH, pid, none, none), 0);
        }
        0
    }

    /// By PTRACE_SEIZE as a 32-bit call.
    pub(crate) fn seize_by_int_80(&self) -> i32 {
        // ptrace in arch/x86/entry/syscalls/syscall_32.tbl, PTRACE_SEIZE.
        let done = int_80(26, [0x4206, self.pid() as usize, 0, 0]);
        if done == 0 {
            self.let_go();
        }
        -done
    }

    /// After it was seized.
    fn let_go(&self) {
        let (pid, none) = (self.pid(), ptr::null_mut::<libc::c_void>());
        // SAFETY: our tracee stops, and is let go.
        unsafe {
            libc::ptrace(libc::PTRACE_INTERRUPT, pid, none, none);
            assert_eq!(libc::waitpid(pid, ptr::null_mut(), 0), pid);
            assert_eq!(libc::ptrace(libc::PTRACE_DETACH, pid, none, none), 0);
        }
    }

    /// process_madvise, MADV_COLD, where nothing is; that is found out after it was asked for.
    pub(crate) fn advise(&self, pidfd: &File) -> libc::c_long {
        let nothing = libc::iovec { iov_base: ptr::null_mut(), iov_len: LENGTH };
        let (pidfd, cold) = (pidfd.as_raw_fd(), 20);
        // SAFETY: advice about memory of a child of ours.
        unsafe { libc::syscall(libc::SYS_process_madvise, pidfd, &raw const nothing, 1, cold, 0) }
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

/// The file that this kernel was booted from, where packages have it.
pub(crate) fn own_kernel() -> Option<PathBuf> {
    probes::kernel_image_path().inspect_err(|error| eprintln!("not looked for: {error}")).ok()
}

/// Loads another kernel with an initramfs, and unloads it. Gives the errno.
pub(crate) fn other_kernel(kernel: &Path, initramfs: &Path) -> i32 {
    let (kernel, initramfs) = (File::open(kernel).unwrap(), File::open(initramfs).unwrap());
    let (kernel, initramfs, line) = (kernel.as_raw_fd(), initramfs.as_raw_fd(), c"".as_ptr());
    // SAFETY: descriptors of ours and a string that ends; nobody boots what is loaded.
    unsafe {
        let loaded = libc::syscall(libc::SYS_kexec_file_load, kernel, initramfs, 1, line, 0);
        let failed = errno(loaded);
        // KEXEC_FILE_UNLOAD, include/uapi/linux/kexec.h
        assert_eq!(libc::syscall(libc::SYS_kexec_file_load, -1, -1, 0, 0, 1), 0);
        failed
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
