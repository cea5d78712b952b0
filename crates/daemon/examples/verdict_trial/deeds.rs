// SPDX-License-Identifier: Apache-2.0
//! What is asked about, done: each gives the errno of the system call itself.

use std::ffi::CString;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::ptr;

use anyhow::Context;

use crate::openings::{
    opened, opened_again, opened_as_said, opened_by_handle, opened_by_ring, opened_with,
};
use crate::programs::{
    deleted, executed, executed_at, executed_by, executed_by_hand, executed_by_the_kernel,
    executed_interpreted, linked, loader, memfd, own_path,
};

/// What a call came to: the errno, or nothing.
pub(crate) type Came = Result<(), i32>;

/// What is executed, and what is mapped executable.
pub(crate) const PROGRAM: &str = "/tried/busybox-unknown";
pub(crate) const IMAGE: &str = "/tried/image";
/// What links libraries.
pub(crate) const LINKED: &str = "/usr/bin/ringfence";
/// A script that the first interprets.
pub(crate) const SCRIPT: &str = "/tried/script";
/// A file that is deleted before it is used, and what one in memory is called.
pub(crate) const DELETED: &str = "/tried/deleted";
pub(crate) const MEMFD: &str = "/memfd:tried";
/// What shared memory is called.
pub(crate) const SHARED: &str = "/SYSV00000000";

/// What loads modules, and what it leaves behind; in the place of an errno that it was not run.
pub(crate) const LOADER: &str = "/tried/loader";
pub(crate) const LOADED: &str = "/tried/loaded";
pub(crate) const NOT_RUN: i32 = -1;
/// What binfmt_misc has the program interpret.
pub(crate) const INTERPRETED: &str = "/tried/interpreted";
/// An initramfs, which holds nothing.
pub(crate) const INITRAMFS: &str = "/tried/initramfs";

/// Where files are watched: grants name the directory above.
/// What is below, two levels deep.
pub(crate) const SECRET: &str = "/tried/watched/below/secret";
pub(crate) const WATCHED: &str = "/tried/watched/below";
pub(crate) const WATCHED_PROGRAM: &str = "/tried/watched/below/busybox";
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
    /// execveat(2) of a descriptor, also of a file in memory and of one that was deleted, and of a name.
    ExecuteDescriptor,
    ExecuteMemfdDescriptor,
    ExecuteDeletedDescriptor,
    ExecuteName,
    /// execve(2) of a script, of a file in memory and of one that was deleted.
    ExecuteScript,
    ExecuteMemfd,
    ExecuteDeleted,
    /// Of the interpreter of a script, by hand, and of what binfmt_misc has interpreted.
    ExecuteByHand,
    ExecuteInterpreted,
    /// By a thread that is not the first of its process.
    ExecuteByThread,
    /// By the kernel, to have a module loaded; the program is a script.
    ExecuteByKernel,
    /// mmap(2), executable, of a file
    Map,
    /// The same of a file in memory and of one that was deleted.
    MapMemfd,
    MapDeleted,
    /// By execve(2) of a program that links libraries, and by its loader, which is told to run it.
    MapProgram,
    MapByLoader,
    /// Of a file, readable, by who has READ_IMPLIES_EXEC.
    MapImplied,
    /// mmap(2) as above, and then remap_file_pages(2) in that mapping.
    Remap,
    /// mmap(2) of a file, not executable, and then mprotect(2) or pkey_mprotect(2).
    Protect,
    ProtectByKey,
    /// shmat(2), executable
    Attach,
    /// finit_module(2), and the same of a file that is said to be compressed and is not.
    ModuleFromFile,
    ModuleCompressed,
    /// init_module(2)
    ModuleFromMemory,
    /// bpf(2), BPF_PROG_LOAD
    Program,
    /// kexec_file_load(2)
    KernelFromFile,
    /// The same with an initramfs.
    KernelAndInitramfs,
    /// kexec_load(2); of nothing, which unloads what is there, and is asked about all the same.
    KernelFromMemory,
    /// open(2) for reading and for writing, of a watched file.
    Read,
    Write,
    /// The same by io_uring.
    ReadByRing,
    /// The same through a second mount of the watched directory.
    ReadElsewhere,
    /// openat2(2), creat(2) and open_by_handle_at(2) of a watched file.
    OpenHow,
    Create,
    OpenHandle,
    /// By a descriptor that O_PATH gave, in /proc/self/fd.
    OpenAgain,
    /// Execution of a watched program, which the kernel opens.
    ExecuteWatched,
    /// O_PATH alone, a directory, a file without a name (O_TMPFILE), and truncate(2).
    OpenPath,
    OpenDirectory,
    OpenUnnamed,
    Truncate,
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
            Self::ExecuteDescriptor => "execveat of a descriptor",
            Self::ExecuteMemfdDescriptor => "execveat of a memfd",
            Self::ExecuteDeletedDescriptor => "execveat of a deleted file",
            Self::ExecuteName => "execveat of a name",
            Self::ExecuteScript => "execve of a script, by its name",
            Self::ExecuteMemfd => "execve of a memfd",
            Self::ExecuteDeleted => "execve of a deleted file",
            Self::ExecuteByHand => "an interpreter by hand, with a script",
            Self::ExecuteInterpreted => "execve of what binfmt_misc has interpreted, by its name",
            Self::ExecuteByThread => "execve by another thread than the first",
            Self::ExecuteByKernel => "by the kernel (request_module)",
            Self::Map => "mmap",
            Self::MapMemfd => "mmap of a memfd",
            Self::MapDeleted => "mmap of a deleted file",
            Self::MapProgram => "exec: the program, its loader and libraries",
            Self::MapByLoader => "ld.so run by hand",
            Self::MapImplied => "mmap with READ_IMPLIES_EXEC",
            Self::Remap => "remap_file_pages",
            Self::Protect => "mprotect",
            Self::ProtectByKey => "pkey_mprotect",
            Self::Attach => "shmat",
            Self::ModuleFromFile => "finit_module",
            Self::ModuleCompressed => "finit_module of a compressed file",
            Self::ModuleFromMemory => "init_module",
            Self::Program => "bpf, BPF_PROG_LOAD",
            Self::KernelFromFile => "kexec_file_load",
            Self::KernelAndInitramfs => "kexec_file_load, the initramfs",
            Self::KernelFromMemory => "kexec_load",
            Self::Read | Self::ReadFree | Self::ReadGuarded => "open for reading",
            Self::Write => "open for writing",
            Self::ReadByRing => "open for reading, by io_uring",
            Self::ReadElsewhere => "open through another mount of the directory",
            Self::OpenHow => "openat2",
            Self::Create => "creat",
            Self::OpenHandle => "open_by_handle_at",
            Self::OpenAgain => "open in /proc/PID/fd",
            Self::ExecuteWatched => "execve, which opens the program",
            Self::OpenPath => "open with O_PATH",
            Self::OpenDirectory => "open of a directory",
            Self::OpenUnnamed => "open with O_TMPFILE",
            Self::Truncate => "truncate",
        }
    }
}

/// The files that deeds need.
pub(crate) struct Deeds {
    pub(crate) module: String,
    pub(crate) kernel: String,
}

pub(crate) fn came(result: i64) -> Came {
    if result >= 0 {
        return Ok(());
    }
    Err(io::Error::last_os_error().raw_os_error().unwrap_or(0))
}

pub(crate) fn ended<T>(result: io::Result<T>) -> Came {
    result.map(|_| ()).map_err(|error| error.raw_os_error().unwrap_or(0))
}

pub(crate) fn text(path: &str) -> anyhow::Result<CString> {
    Ok(CString::new(path)?)
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

/// Maps a file, does something with the mapping, and gives it back. The mapping has two pages.
fn mapped(
    file: &File,
    (protection, flags): (i32, i32),
    then: impl FnOnce(*mut libc::c_void) -> Came,
) -> Came {
    // SAFETY: a new mapping at an address of the kernel's choice replaces nothing, and goes at once.
    unsafe {
        let file = file.as_raw_fd();
        let start = libc::mmap(ptr::null_mut(), 2 * PAGE, protection, flags, file, 0);
        if start == libc::MAP_FAILED {
            return came(-1);
        }
        let done = then(start);
        libc::munmap(start, 2 * PAGE);
        done
    }
}

const PAGE: usize = 4096;
const READ: i32 = libc::PROT_READ;
const READ_EXEC: i32 = libc::PROT_READ | libc::PROT_EXEC;

/// Maps a file executable, and gives the mapping back.
fn map(file: &File) -> Came {
    mapped(file, (READ_EXEC, libc::MAP_PRIVATE), |_| Ok(()))
}

/// Maps a file readable, by which it is executable.
fn map_implied(file: &File) -> Came {
    // READ_IMPLIES_EXEC, include/uapi/linux/personality.h.
    const IMPLIES: u64 = 0x0040_0000;
    // SAFETY: of this thread, and as before when it is done.
    unsafe {
        let before = libc::personality(0xffff_ffff) as u64;
        libc::personality(before | IMPLIES);
        let done = mapped(file, (READ, libc::MAP_PRIVATE), |_| Ok(()));
        libc::personality(before);
        done
    }
}

/// Maps a file executable, and then its second page in the place of the first.
fn remap(file: &File) -> Came {
    mapped(file, (READ_EXEC, libc::MAP_SHARED), |start| {
        // SAFETY: within a mapping of ours that nobody looks into.
        came(unsafe { libc::syscall(libc::SYS_remap_file_pages, start, PAGE, 0, 1, 0) })
    })
}

/// Maps a file, and makes the mapping executable by mprotect(2) or by pkey_mprotect(2) without a key.
fn protect(file: &File, call: libc::c_long) -> Came {
    mapped(file, (READ, libc::MAP_PRIVATE), |start| {
        // SAFETY: a mapping of ours that nobody looks into.
        came(unsafe { libc::syscall(call, start, PAGE, READ_EXEC, -1) })
    })
}

impl Deeds {
    /// Does it, and undoes what was done.
    pub(crate) fn attempt(&self, deed: Deed) -> anyhow::Result<Came> {
        let parameters = CString::default();
        Ok(match deed {
            Deed::Execute => executed(PROGRAM),
            Deed::ExecuteDescriptor => executed_at(File::open(PROGRAM)?, "")?,
            Deed::ExecuteMemfdDescriptor => executed_at(memfd()?, "")?,
            Deed::ExecuteDeletedDescriptor => executed_at(deleted()?, "")?,
            Deed::ExecuteName => {
                let (directory, name) = PROGRAM.rsplit_once('/').context("no path")?;
                executed_at(File::open(directory)?, name)?
            }
            Deed::ExecuteScript => {
                fs::write(SCRIPT, format!("#!{PROGRAM} true\n"))?;
                fs::set_permissions(SCRIPT, Permissions::from_mode(0o755))?;
                ended(Command::new(SCRIPT).stderr(Stdio::null()).status())
            }
            Deed::ExecuteMemfd => executed_by(&memfd()?),
            Deed::ExecuteDeleted => executed_by(&deleted()?),
            Deed::ExecuteByHand => executed_by_hand(),
            Deed::ExecuteInterpreted => executed_interpreted()?,
            Deed::ExecuteByThread => linked(&own_path()?, &["thread"])?,
            Deed::ExecuteByKernel => executed_by_the_kernel()?,
            Deed::Map => map(&File::open(IMAGE)?),
            Deed::MapMemfd => map(&memfd()?),
            Deed::MapDeleted => map(&deleted()?),
            Deed::MapProgram => linked(LINKED, &["--version"])?,
            Deed::MapByLoader => linked(&loader()?, &[LINKED, "--version"])?,
            Deed::MapImplied => map_implied(&File::open(IMAGE)?),
            // What is not open for writing is not taken as shared.
            Deed::Remap => remap(&File::options().read(true).write(true).open(IMAGE)?),
            Deed::Protect => protect(&File::open(IMAGE)?, libc::SYS_mprotect),
            Deed::ProtectByKey => protect(&File::open(IMAGE)?, libc::SYS_pkey_mprotect),
            Deed::Attach => attach(),
            Deed::ModuleFromFile => {
                let file = File::open(&self.module)?;
                // SAFETY: an open file and a text that ends with a zero.
                let result = came(unsafe {
                    libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), parameters.as_ptr(), 0)
                });
                self.unload(result)?
            }
            Deed::ModuleCompressed => {
                // MODULE_INIT_COMPRESSED_FILE; whether this kernel unpacks any is found out later.
                let (file, flags) = (File::open(IMAGE)?, 4);
                // SAFETY: an open file, which is no module, and a text that ends with a zero.
                came(unsafe {
                    let (file, parameters) = (file.as_raw_fd(), parameters.as_ptr());
                    libc::syscall(libc::SYS_finit_module, file, parameters, flags)
                })
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
            Deed::KernelFromFile => self.load_kernel(None)?,
            Deed::KernelAndInitramfs => {
                fs::write(INITRAMFS, [0; PAGE])?;
                self.load_kernel(Some(&File::open(INITRAMFS)?))?
            }
            Deed::KernelFromMemory => {
                // SAFETY: no segments, so nothing is read.
                let result = unsafe { libc::syscall(libc::SYS_kexec_load, 0, 0, 0, 0) };
                came(result)
            }
            Deed::Read => opened(SECRET, false),
            Deed::Write => opened(SECRET, true),
            Deed::ReadByRing => opened_by_ring(SECRET)?,
            Deed::OpenHow => opened_as_said(SECRET)?,
            Deed::Create => ended(File::create(SECRET)),
            Deed::OpenHandle => opened_by_handle(SECRET)?,
            Deed::OpenAgain => opened_again(SECRET)?,
            Deed::ExecuteWatched => executed(WATCHED_PROGRAM),
            Deed::OpenPath => opened_with(SECRET, libc::O_PATH | libc::O_CLOEXEC)?,
            Deed::OpenDirectory => opened(WATCHED, false),
            Deed::OpenUnnamed => {
                let mut options = File::options();
                ended(options.write(true).custom_flags(libc::O_TMPFILE).open(WATCHED))
            }
            Deed::Truncate => {
                let path = text(SECRET)?;
                // SAFETY: a path that ends.
                came(i64::from(unsafe { libc::truncate(path.as_ptr(), 1) }))
            }
            Deed::ReadElsewhere => opened("/tried/elsewhere/secret", false),
            Deed::ReadFree => opened(&format!("{FREE}/other"), false),
            Deed::ReadGuarded => opened(GUARDED, false),
        })
    }

    /// Loads another kernel, and unloads it. It must be there if and only if it was let in.
    fn load_kernel(&self, initramfs: Option<&File>) -> anyhow::Result<Came> {
        let (kernel, line) = (File::open(&self.kernel)?, CString::default());
        let flags = if initramfs.is_none() { KEXEC_FILE_NO_INITRAMFS } else { 0 };
        let initramfs = initramfs.map_or(-1, AsRawFd::as_raw_fd);
        // SAFETY: open files; the command line is an empty text.
        let result = came(unsafe {
            let (kernel, line) = (kernel.as_raw_fd(), line.as_ptr());
            libc::syscall(libc::SYS_kexec_file_load, kernel, initramfs, 1, line, flags)
        });
        let loaded = fs::read_to_string("/sys/kernel/kexec_loaded")?;
        anyhow::ensure!((loaded.trim() == "1") == result.is_ok(), "loaded: {loaded}");
        if result.is_ok() {
            // SAFETY: unloads what was loaded; the other arguments are not looked at.
            let none = came(unsafe {
                libc::syscall(libc::SYS_kexec_file_load, -1, -1, 0, 0, KEXEC_FILE_UNLOAD)
            });
            anyhow::ensure!(none.is_ok(), "not unloaded: {none:?}");
        }
        Ok(result)
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
