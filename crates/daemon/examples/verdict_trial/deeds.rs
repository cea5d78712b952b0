// SPDX-License-Identifier: Apache-2.0
//! What is asked about, done: each gives the errno of the system call itself.

use std::ffi::CString;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::ptr;

use anyhow::Context;
use io_uring::{IoUring, opcode, types};
use rustix::fs::{MemfdFlags, memfd_create};

/// What a call came to: the errno, or nothing.
pub(crate) type Came = Result<(), i32>;

/// What is executed, and what is mapped executable.
pub(crate) const PROGRAM: &str = "/tried/busybox-unknown";
pub(crate) const IMAGE: &str = "/tried/image";
/// A script that the first interprets.
pub(crate) const SCRIPT: &str = "/tried/script";
/// A file that is deleted before it is used, and what one in memory is called.
pub(crate) const DELETED: &str = "/tried/deleted";
pub(crate) const MEMFD: &str = "/memfd:tried";
/// What shared memory is called.
pub(crate) const SHARED: &str = "/SYSV00000000";

/// Where files are watched, and where not. The first is named by the grants.
pub(crate) const WATCHED: &str = "/tried/watched";
pub(crate) const FREE: &str = "/tried/free";
/// What a client guards that has its opening denied while it is away.
pub(crate) const GUARDED: &str = "/tried/guarded/secret";

/// uapi/linux/kexec.h
const KEXEC_FILE_UNLOAD: libc::c_ulong = 1;
const KEXEC_FILE_NO_INITRAMFS: libc::c_ulong = 4;

/// One kind of deed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    /// execve(2)
    Execute,
    /// The same of a script, of a file in memory and of one that was deleted.
    ExecuteScript,
    ExecuteMemfd,
    ExecuteDeleted,
    /// mmap(2), executable, of a file
    Map,
    /// The same of a file in memory and of one that was deleted.
    MapMemfd,
    MapDeleted,
    /// shmat(2), executable
    Attach,
    /// finit_module(2)
    ModuleFromFile,
    /// init_module(2)
    ModuleFromMemory,
    /// bpf(2), BPF_PROG_LOAD
    Program,
    /// kexec_file_load(2)
    KernelFromFile,
    /// kexec_load(2); of nothing, which unloads what is there, and is asked about all the same.
    KernelFromMemory,
    /// open(2) for reading and for writing, of a watched file.
    Read,
    Write,
    /// The same by io_uring.
    ReadByRing,
    /// The same through a second mount of the watched directory.
    ReadElsewhere,
    /// Of a file that is not watched.
    ReadFree,
    /// Of one whose opening is denied while its client is away.
    ReadGuarded,
}

impl Deed {
    /// The door that it goes through.
    pub(crate) fn door(self) -> &'static str {
        match self {
            Self::Execute => "execve",
            Self::ExecuteScript => "execve of a script, by its name",
            Self::ExecuteMemfd => "execve of a memfd",
            Self::ExecuteDeleted => "execve of a deleted file",
            Self::Map => "mmap",
            Self::MapMemfd => "mmap of a memfd",
            Self::MapDeleted => "mmap of a deleted file",
            Self::Attach => "shmat",
            Self::ModuleFromFile => "finit_module",
            Self::ModuleFromMemory => "init_module",
            Self::Program => "bpf, BPF_PROG_LOAD",
            Self::KernelFromFile => "kexec_file_load",
            Self::KernelFromMemory => "kexec_load",
            Self::Read | Self::ReadFree | Self::ReadGuarded => "open for reading",
            Self::Write => "open for writing",
            Self::ReadByRing => "open for reading, by io_uring",
            Self::ReadElsewhere => "open through another mount of the directory",
        }
    }
}

/// The files that deeds need.
pub(crate) struct Deeds {
    pub(crate) module: String,
    pub(crate) kernel: String,
}

fn came(result: i64) -> Came {
    if result >= 0 {
        return Ok(());
    }
    Err(io::Error::last_os_error().raw_os_error().unwrap_or(0))
}

fn ended<T>(result: io::Result<T>) -> Came {
    result.map(|_| ()).map_err(|error| error.raw_os_error().unwrap_or(0))
}

fn opened(path: &str, write: bool) -> Came {
    ended(File::options().read(!write).write(write).open(path))
}

/// Opens a file for reading with no call of the open family.
fn opened_by_ring(path: &str) -> anyhow::Result<Came> {
    let path = CString::new(path)?;
    let mut ring = IoUring::new(1)?;
    let entry = opcode::OpenAt::new(types::Fd(libc::AT_FDCWD), path.as_ptr()).build();
    // SAFETY: the path lives until the entry is completed, which is waited for.
    unsafe { ring.submission().push(&entry)? };
    ring.submit_and_wait(1)?;
    let done = ring.completion().next().context("nothing was completed")?.result();
    if done < 0 {
        return Ok(Err(-done));
    }
    // SAFETY: a descriptor that was just made for us.
    drop(unsafe { OwnedFd::from_raw_fd(done) });
    Ok(Ok(()))
}

/// Executes busybox, by whatever path.
fn executed(path: &str) -> Came {
    ended(Command::new(path).arg0("busybox").arg("true").status())
}

/// The same by one of our descriptors of it.
fn executed_by(file: &File) -> Came {
    executed(&format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// A copy of the program that has no name any more.
fn deleted() -> anyhow::Result<File> {
    fs::copy(PROGRAM, DELETED)?;
    let file = File::open(DELETED)?;
    fs::remove_file(DELETED)?;
    Ok(file)
}

/// A copy of the program in memory.
fn memfd() -> anyhow::Result<File> {
    let file = memfd_create("tried", MemfdFlags::CLOEXEC)?;
    let mut file = File::from(file);
    io::copy(&mut File::open(PROGRAM)?, &mut file)?;
    // What is open for writing is not executed.
    Ok(File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))?)
}

/// Attaches shared memory executable, and gives it back.
fn attach() -> Came {
    // SAFETY: what is attached, at an address of the kernel's choice, is given back at once.
    unsafe {
        let id = libc::shmget(libc::IPC_PRIVATE, 4096, 0o700 | libc::IPC_CREAT);
        let start = libc::shmat(id, ptr::null(), libc::SHM_EXEC);
        let attached = came(start as i64);
        if attached.is_ok() {
            libc::shmdt(start);
        }
        libc::shmctl(id, libc::IPC_RMID, ptr::null_mut());
        attached
    }
}

/// Maps a file executable, and gives the mapping back.
fn map(file: &File) -> Came {
    const LENGTH: usize = 4096;
    // SAFETY: a new mapping at an address of the kernel's choice replaces nothing, and goes at once.
    unsafe {
        let protection = libc::PROT_READ | libc::PROT_EXEC;
        let file = file.as_raw_fd();
        let start = libc::mmap(ptr::null_mut(), LENGTH, protection, libc::MAP_PRIVATE, file, 0);
        if start == libc::MAP_FAILED {
            return came(-1);
        }
        libc::munmap(start, LENGTH);
    }
    Ok(())
}

impl Deeds {
    /// Does it, and undoes what was done.
    pub(crate) fn attempt(&self, deed: Deed) -> anyhow::Result<Came> {
        let parameters = CString::default();
        Ok(match deed {
            Deed::Execute => executed(PROGRAM),
            Deed::ExecuteScript => {
                fs::write(SCRIPT, format!("#!{PROGRAM} true\n"))?;
                fs::set_permissions(SCRIPT, Permissions::from_mode(0o755))?;
                ended(Command::new(SCRIPT).stderr(Stdio::null()).status())
            }
            Deed::ExecuteMemfd => executed_by(&memfd()?),
            Deed::ExecuteDeleted => executed_by(&deleted()?),
            Deed::Map => map(&File::open(IMAGE)?),
            Deed::MapMemfd => map(&memfd()?),
            Deed::MapDeleted => map(&deleted()?),
            Deed::Attach => attach(),
            Deed::ModuleFromFile => {
                let file = File::open(&self.module)?;
                // SAFETY: an open file and a text that ends with a zero.
                let result = came(unsafe {
                    libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), parameters.as_ptr(), 0)
                });
                self.unload(result)?
            }
            Deed::ModuleFromMemory => {
                let image = fs::read(&self.module)?;
                // SAFETY: memory of that length, and a text that ends with a zero.
                let result = came(unsafe {
                    libc::syscall(
                        libc::SYS_init_module,
                        image.as_ptr(),
                        image.len(),
                        parameters.as_ptr(),
                    )
                });
                self.unload(result)?
            }
            Deed::Program => load_program(),
            Deed::KernelFromFile => {
                let file = File::open(&self.kernel)?;
                let flags = KEXEC_FILE_NO_INITRAMFS;
                // SAFETY: an open file; the command line is an empty text.
                let result = came(unsafe {
                    let (file, none, line) = (file.as_raw_fd(), -1, parameters.as_ptr());
                    libc::syscall(libc::SYS_kexec_file_load, file, none, 1, line, flags)
                });
                let loaded = fs::read_to_string("/sys/kernel/kexec_loaded")?;
                anyhow::ensure!((loaded.trim() == "1") == result.is_ok(), "loaded: {loaded}");
                if result.is_ok() {
                    // SAFETY: unloads what was loaded; the other arguments are not looked at.
                    let none = came(unsafe {
                        let flags = KEXEC_FILE_UNLOAD;
                        libc::syscall(libc::SYS_kexec_file_load, -1, -1, 0, 0, flags)
                    });
                    anyhow::ensure!(none.is_ok(), "not unloaded: {none:?}");
                }
                result
            }
            Deed::KernelFromMemory => {
                // SAFETY: no segments, so nothing is read.
                let result = unsafe { libc::syscall(libc::SYS_kexec_load, 0, 0, 0, 0) };
                came(result)
            }
            Deed::Read => opened(&format!("{WATCHED}/below/secret"), false),
            Deed::Write => opened(&format!("{WATCHED}/below/secret"), true),
            Deed::ReadByRing => opened_by_ring(&format!("{WATCHED}/below/secret"))?,
            Deed::ReadElsewhere => opened("/tried/elsewhere/secret", false),
            Deed::ReadFree => opened(&format!("{FREE}/other"), false),
            Deed::ReadGuarded => opened(GUARDED, false),
        })
    }

    /// Takes the module out again, which must be there if and only if it was let in.
    fn unload(&self, result: Came) -> anyhow::Result<Came> {
        let name = Path::new(&self.module).file_stem().unwrap_or_default().to_string_lossy();
        let name = name.replace('-', "_");
        let modules = fs::read_to_string("/proc/modules")?;
        let there = modules.lines().any(|line| line.split(' ').next() == Some(&*name));
        anyhow::ensure!(there == result.is_ok(), "{name} is there: {there}; {result:?}");
        if there {
            let name = CString::new(name)?;
            // SAFETY: a text that ends with a zero.
            let gone = came(unsafe { libc::syscall(libc::SYS_delete_module, name.as_ptr(), 0) });
            anyhow::ensure!(gone.is_ok(), "not unloaded: {gone:?}");
        }
        Ok(result)
    }
}

/// `r0 = 0; exit`, as a socket filter.
fn load_program() -> Came {
    let instructions: [u64; 2] = [0xb7, 0x95];
    let license = c"GPL";
    // union bpf_attr for BPF_PROG_LOAD (5), as far as it is used: uapi/linux/bpf.h.
    let attributes: [u64; 16] = {
        let mut all = [0; 16];
        // prog_type BPF_PROG_TYPE_SOCKET_FILTER and insn_cnt, then insns and license.
        all[0] = 1 | 2 << 32;
        all[1] = instructions.as_ptr() as u64;
        all[2] = license.as_ptr() as u64;
        all[6] = u64::from_ne_bytes(*b"trial\0\0\0");
        all
    };
    // SAFETY: what it points to lives until the call is over.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, 5, attributes.as_ptr(), size_of_val(&attributes)) };
    if result >= 0 {
        // SAFETY: a descriptor that nobody else has.
        unsafe { libc::close(result as i32) };
    }
    came(result)
}
