// SPDX-License-Identifier: Apache-2.0
//! Ways to execute a program: each gives the errno that it failed with, or what is said in its place.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::ptr;

use anyhow::Context;
use rustix::fs::{MemfdFlags, memfd_create};

use crate::deeds::{
    Came, DELETED, INTERPRETED, LOADED, LOADER, NOT_RUN, PROGRAM, SCRIPT, came, ended, text,
};

/// Executes busybox by a descriptor alone, or by a name in the directory that it stands for.
pub(crate) fn executed_at(file: File, name: &str) -> anyhow::Result<Came> {
    let mut command = Command::new(PROGRAM);
    let path = text(name)?;
    let flags = if name.is_empty() { libc::AT_EMPTY_PATH } else { 0 };
    let arguments = [c"busybox".as_ptr() as usize, c"true".as_ptr() as usize, 0];
    let environment = [0_usize];
    // SAFETY: one system call, with strings that end and lists of them.
    unsafe {
        command.pre_exec(move || {
            let (file, arguments) = (file.as_raw_fd(), arguments.as_ptr());
            let (path, environment) = (path.as_ptr(), environment.as_ptr());
            libc::syscall(libc::SYS_execveat, file, path, arguments, environment, flags);
            Err(io::Error::last_os_error())
        });
    }
    Ok(ended(command.status()))
}

/// Executes busybox, by whatever path.
pub(crate) fn executed(path: &str) -> Came {
    ended(Command::new(path).arg0("busybox").arg("true").status())
}

/// The same by one of our descriptors of it.
pub(crate) fn executed_by(file: &File) -> Came {
    executed(&format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// A copy of the program that has no name any more.
pub(crate) fn deleted() -> anyhow::Result<File> {
    fs::copy(PROGRAM, DELETED)?;
    let file = File::open(DELETED)?;
    fs::remove_file(DELETED)?;
    Ok(file)
}

/// A copy of the program in memory.
pub(crate) fn memfd() -> anyhow::Result<File> {
    let file = memfd_create("tried", MemfdFlags::CLOEXEC)?;
    let mut file = File::from(file);
    io::copy(&mut File::open(PROGRAM)?, &mut file)?;
    // What is open for writing is not executed.
    Ok(File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))?)
}

/// Runs a program that links libraries. What it ends by or with is in the place of an errno: whoever started it
/// is there no more when its image is mapped.
pub(crate) fn linked(program: &str, arguments: &[&str]) -> anyhow::Result<Came> {
    let mut command = Command::new(program);
    let status = command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    let came = status.signal().or(status.code()).context("neither ended nor killed")?;
    Ok(if came == 0 { Ok(()) } else { Err(came) })
}

/// This program.
pub(crate) fn own_path() -> anyhow::Result<String> {
    Ok(std::env::current_exe()?.display().to_string())
}

/// Has another thread execute the program, in the place of this process; ends with the errno if it cannot.
pub(crate) fn execute_by_thread() -> anyhow::Result<()> {
    let failed = std::thread::spawn(|| Command::new(PROGRAM).arg0("busybox").arg("true").exec());
    let failed = failed.join().map_err(|_| anyhow::anyhow!("the thread panicked"))?;
    std::process::exit(failed.raw_os_error().unwrap_or(0))
}

/// Has the kernel look for a module that nobody has, by a script that leaves something behind. Whoever made the
/// kernel do it never gets the errno, so what is given is whether the script ran.
pub(crate) fn executed_by_the_kernel() -> anyhow::Result<Came> {
    const SETTING: &str = "/proc/sys/kernel/modprobe";
    fs::write(LOADER, format!("#!{PROGRAM} sh\n: >{LOADED}\n"))?;
    fs::set_permissions(LOADER, Permissions::from_mode(0o755))?;
    let _ = fs::remove_file(LOADED);
    let before = fs::read_to_string(SETTING)?;
    fs::write(SETTING, LOADER)?;
    // SAFETY: plain numbers; no family of protocols has this one any more (AF_DECnet until 6.1).
    let none = came(i64::from(unsafe { libc::socket(12, libc::SOCK_STREAM, 0) }));
    fs::write(SETTING, before)?;
    anyhow::ensure!(none == Err(libc::EAFNOSUPPORT), "there is such a family: {none:?}");
    Ok(if Path::new(LOADED).exists() { Ok(()) } else { Err(NOT_RUN) })
}

/// Executes the script by an interpreter that is named.
pub(crate) fn executed_by_hand() -> Came {
    ended(Command::new(PROGRAM).arg0("busybox").args(["sh", SCRIPT]).status())
}

/// Executes a file that binfmt_misc has the program interpret.
pub(crate) fn executed_interpreted() -> anyhow::Result<Came> {
    const FILES: &str = "/proc/sys/fs/binfmt_misc";
    let register = Path::new(FILES).join("register");
    if !register.exists() {
        let (kind, place) = (c"binfmt_misc".as_ptr(), text(FILES)?);
        // SAFETY: strings that end; what is mounted there stays.
        let mounted = unsafe { libc::mount(kind, place.as_ptr(), kind, 0, ptr::null()) };
        anyhow::ensure!(mounted == 0, "binfmt_misc: {}", io::Error::last_os_error());
    }
    fs::write(INTERPRETED, "RINGFENCE")?;
    fs::set_permissions(INTERPRETED, Permissions::from_mode(0o755))?;
    fs::write(register, format!(":ringfence:M::RINGFENCE::{PROGRAM}:"))?;
    let came = ended(Command::new(INTERPRETED).stderr(Stdio::null()).status());
    fs::write(Path::new(FILES).join("ringfence"), "-1")?;
    Ok(came)
}

/// The program loader that this program was started by.
pub(crate) fn loader() -> anyhow::Result<String> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    let mut paths = maps.lines().filter_map(|line| Some(&line[line.find('/')?..]));
    Ok(paths.find(|path| path.contains("/ld-linux")).context("no program loader")?.to_owned())
}
