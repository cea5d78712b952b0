// SPDX-License-Identifier: Apache-2.0
//! Small files of the kernel's own file systems, mounted or not.
//!
//! Where securityfs or tracefs is not mounted, it is opened by the new mount system calls (5.2 and
//! later): they give a descriptor of a mount that stands nowhere in the tree, so nothing that other
//! processes can see changes, and it is gone with the descriptor.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;

use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use crate::error::ProbeError;

/// Files are read up to this many bytes; none that a check reads comes near.
const MOST: u64 = 8 * 1024 * 1024;

/// A file system that may not be mounted.
#[derive(Debug)]
struct Place {
    /// Where it is by convention.
    prefix: &'static str,
    /// What it is called when it is mounted.
    name: &'static str,
    own: OnceLock<Result<OwnedFd, i32>>,
}

impl Place {
    const fn new(prefix: &'static str, name: &'static str) -> Self {
        Self { prefix, name, own: OnceLock::new() }
    }

    fn mounted_for_us(&self) -> io::Result<&OwnedFd> {
        let own = self.own.get_or_init(|| {
            private_mount(self.name).map_err(|error| error.raw_os_error().unwrap_or(libc::EIO))
        });
        own.as_ref().map_err(|code| io::Error::from_raw_os_error(*code))
    }
}

static PLACES: [Place; 3] = [
    Place::new("/sys/kernel/security/", "securityfs"),
    Place::new("/sys/kernel/tracing/", "tracefs"),
    Place::new("/sys/kernel/debug/", "debugfs"),
];

/// Mounts a file system where nobody else sees it: `securityfs`, `tracefs`, `proc`…
pub(crate) fn private_mount(name: &str) -> io::Result<OwnedFd> {
    let context = fsopen(name, FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(context.as_fd())?;
    let flags = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    Ok(fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, flags)?)
}

/// The content of a small file, wherever its file system is mounted, or not. What is not UTF-8 is
/// replaced.
pub(crate) fn content(path: &str) -> Result<String, ProbeError> {
    let mut bytes = Vec::new();
    let file = open(path).map_err(|error| reason(path, &error))?;
    let read = file.take(MOST + 1).read_to_end(&mut bytes);
    read.map_err(|error| reason(path, &error))?;
    if bytes.len() as u64 > MOST {
        return Err(ProbeError::File {
            path: path.into(),
            reason: format!("it is longer than {} MiB", MOST >> 20),
        });
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn open(path: &str) -> io::Result<File> {
    let missing = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => error,
        other => return other,
    };
    for place in &PLACES {
        let Some(inside) = path.strip_prefix(place.prefix) else { continue };
        let root = match place.mounted_for_us() {
            Ok(root) => root,
            // The kernel has no such file system: then the file is just not there.
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return Err(missing),
            Err(error) => return Err(error),
        };
        let file =
            rustix::fs::openat(root, inside, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        return Ok(File::from(file?));
    }
    Err(missing)
}

fn reason(path: &str, error: &io::Error) -> ProbeError {
    let reason = match error.raw_os_error() {
        Some(libc::ENOENT) => "this kernel has no such file".to_owned(),
        Some(libc::EACCES | libc::EPERM) if !rustix::process::geteuid().is_root() => {
            "only root may; run ringfence with sudo".to_owned()
        }
        _ => error.to_string(),
    };
    ProbeError::File { path: path.into(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_proc_is_read_and_a_missing_one_named() {
        assert!(content("/proc/version").unwrap().starts_with("Linux version"));
        let error = content("/proc/no/such/file").unwrap_err().to_string();
        assert!(error.contains("/proc/no/such/file"), "{error}");
    }

    #[test]
    fn a_file_without_end_is_refused() {
        let error = content("/dev/zero").unwrap_err().to_string();
        assert!(error.contains("longer than 8 MiB"), "{error}");
    }
}
