// SPDX-License-Identifier: Apache-2.0
//! What /proc says of a process.
//!
//! Only what the kernel answers by itself is read. The command line and the environment are in the
//! memory of the process, which can make a reader wait for ever; they are in the records of its exec.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, StatxFlags, major, makedev, minor, statx};
use rustix::path::Arg;
use serde::Serialize;

use crate::identity::Held;

/// Nanoseconds in one tick of the times in /proc/PID/stat: USER_HZ is 100 on each architecture that
/// is served (include/asm-generic/param.h).
pub const TICK: u64 = 10_000_000;

/// Ids of a user or group: real, effective, saved, of the file system.
pub type Ids = [u32; 4];

/// A process as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Number of its parent, 0 for none.
    pub parent: u32,
    /// When it started, in nanoseconds of CLOCK_BOOTTIME, rounded down to a [`TICK`].
    pub started: u64,
    /// Name of its first thread.
    pub name: String,
    /// What it runs; `None` for a kernel thread.
    pub executable: Option<ProcessExecutable>,
    /// Users.
    pub uids: Ids,
    /// Groups.
    pub gids: Ids,
    /// How many threads it has.
    pub threads: u32,
    /// Path of its cgroup (v2).
    pub cgroup: Option<String>,
    /// Its namespaces.
    pub namespaces: Namespaces,
}

/// What a process runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessExecutable {
    /// As the kernel has it.
    pub path: Vec<u8>,
    /// major << 20 | minor, as in a record.
    pub device: u64,
    /// Its number there.
    pub inode: u64,
}

/// Inode numbers, as in /proc/PID/ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the fields are the namespaces' names")]
pub struct Namespaces {
    pub user: u64,
    pub pid: u64,
    pub mount: u64,
    pub net: u64,
    pub cgroup: u64,
}

impl Process {
    /// Reads it. An error if it ended meanwhile, so that nothing here is of another process.
    pub fn read(process: &Held) -> io::Result<Self> {
        let pid = process.pid();
        let file = |name: &str| std::fs::read(format!("/proc/{pid}/{name}"));
        let stat = Stat::parse(&file("stat")?).ok_or_else(|| unknown("stat"))?;
        let status = file("status")?;
        let ids = |key| ids(&status, key).ok_or_else(|| unknown("status"));
        let namespace = |name: &str| namespace(pid, name);
        let read = Self {
            parent: stat.parent,
            started: stat.started.saturating_mul(TICK),
            name: stat.name,
            executable: executable(pid)?,
            uids: ids("Uid:")?,
            gids: ids("Gid:")?,
            threads: stat.threads,
            cgroup: cgroup(&file("cgroup")?),
            namespaces: Namespaces {
                user: namespace("user")?,
                pid: namespace("pid")?,
                mount: namespace("mnt")?,
                net: namespace("net")?,
                cgroup: namespace("cgroup")?,
            },
        };
        process.still_there()?;
        Ok(read)
    }
}

fn unknown(name: &str) -> io::Error {
    io::Error::other(format!("/proc/PID/{name} has a form that is not known"))
}

/// From /proc/PID/stat (fs/proc/array.c, do_task_stat).
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    name: String,
    parent: u32,
    threads: u32,
    /// In ticks.
    started: u64,
}

impl Stat {
    fn parse(text: &[u8]) -> Option<Self> {
        // A process chooses its name, brackets and all; what follows has none.
        let begin = text.iter().position(|byte| *byte == b'(')? + 1;
        let end = text.iter().rposition(|byte| *byte == b')')?;
        let name = String::from_utf8_lossy(text.get(begin..end)?).into_owned();
        let rest = std::str::from_utf8(text.get(end + 1..)?).ok()?;
        // From the third field on, which is the state.
        let fields: Vec<_> = rest.split_ascii_whitespace().collect();
        Some(Self {
            name,
            parent: fields.get(1)?.parse().ok()?,
            threads: fields.get(17)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
        })
    }
}

fn ids(status: &[u8], key: &str) -> Option<Ids> {
    let line = status.split(|byte| *byte == b'\n').find_map(|line| {
        let line = line.strip_prefix(key.as_bytes())?;
        std::str::from_utf8(line).ok()
    })?;
    let mut numbers = line.split_ascii_whitespace().map(str::parse);
    let mut next = || numbers.next()?.ok();
    Some([next()?, next()?, next()?, next()?])
}

/// The line of the hierarchy without controllers in /proc/PID/cgroup is that of v2.
fn cgroup(text: &[u8]) -> Option<String> {
    let line = text.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"0::"))?;
    Some(String::from_utf8_lossy(line).into_owned())
}

fn namespace(pid: u32, name: &str) -> io::Result<u64> {
    let link = rustix::fs::readlink(format!("/proc/{pid}/ns/{name}"), Vec::new())?;
    // "mnt:[4026531841]"
    let number = link
        .to_str()
        .ok()
        .and_then(|link| link.rsplit_once('[')?.1.strip_suffix(']')?.parse().ok());
    number.ok_or_else(|| unknown("ns"))
}

fn executable(pid: u32) -> io::Result<Option<ProcessExecutable>> {
    let link = format!("/proc/{pid}/exe");
    let path = match rustix::fs::readlink(&link, Vec::new()) {
        // Kernel threads, and processes that have given up their memory on their way out.
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        path => path?.into_bytes(),
    };
    let (device, inode) = place_of(rustix::fs::CWD, &link)?;
    Ok(Some(ProcessExecutable { path, device, inode }))
}

/// Device, as records have it, and inode number of what is at a path below a directory, or of what is
/// open if the path is empty. Without asking a file system that may not answer: what is known of the file
/// will do.
pub(crate) fn place_of(directory: impl AsFd, path: impl Arg) -> io::Result<(u64, u64)> {
    let flags = AtFlags::from_bits_retain(libc::AT_STATX_DONT_SYNC.cast_unsigned());
    let about = statx(directory, path, flags | AtFlags::EMPTY_PATH, StatxFlags::INO)?;
    let device = makedev(about.stx_dev_major, about.stx_dev_minor);
    Ok((u64::from(major(device)) << 20 | u64::from(minor(device)), about.stx_ino))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn this_process_is_as_it_knows_itself() {
        let held = Held::open(std::process::id()).unwrap();
        let process = Process::read(&held).unwrap();
        assert_eq!(process.parent, std::os::unix::process::parent_id());
        assert_eq!(process.uids[1], rustix::process::geteuid().as_raw());
        assert_eq!(process.gids[1], rustix::process::getegid().as_raw());
        let own = std::env::current_exe().unwrap();
        let executable = process.executable.unwrap();
        assert_eq!(executable.path, own.as_os_str().as_encoded_bytes());
        assert_eq!(executable.inode, std::fs::metadata(own).unwrap().ino());
        let mount = std::fs::metadata("/proc/self/ns/mnt").unwrap().ino();
        assert_eq!(process.namespaces.mount, mount);
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let now = u64::try_from(now.tv_sec).unwrap() * 1_000_000_000;
        assert!(process.started <= now + 1_000_000_000 && process.started > 0);
    }

    #[test]
    fn a_kernel_thread_has_no_executable() {
        // 2 is kthreadd in the initial pid namespace, and something else or nothing elsewhere.
        let Ok(held) = Held::open(2) else { return };
        let process = Process::read(&held).unwrap();
        if process.name == "kthreadd" {
            assert_eq!(process.executable, None);
        }
    }

    #[test]
    fn a_name_that_looks_like_the_end_of_a_name_changes_nothing() {
        let text = b"7 (a) R 1 (b) S 3 7 7 0 -1 4 0 0 0 0 0 0 0 0 20 0 5 0 1234 9 9 9";
        let stat = Stat::parse(text).unwrap();
        assert_eq!(stat, Stat { name: "a) R 1 (b".into(), parent: 3, threads: 5, started: 1234 });
        for broken in [&b""[..], b"7 a", b"7 (a", b"7 )a(", b"7 (a) S 3 7"] {
            assert_eq!(Stat::parse(broken), None);
        }
    }

    #[test]
    fn the_cgroup_is_that_of_version_2() {
        assert_eq!(cgroup(b"12:cpu:/a\n0::/b c\n").as_deref(), Some("/b c"));
        assert_eq!(cgroup(b"12:cpu:/a\n"), None);
    }
}
