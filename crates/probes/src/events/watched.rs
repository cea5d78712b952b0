// SPDX-License-Identifier: Apache-2.0
//! Files and directories that clients are told of and asked about: see bpf/lib/watched.h.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, open};

use super::shared::{ExecutableKey, Plain, Word};
use super::{Hooks, is_slot};
use crate::error::ProbeError;

const WHAT: &str = "finding a file to watch";

/// A file or directory as the kernel knows it. It is held, so that no other gets its number.
#[derive(Debug)]
pub struct WatchedFile {
    key: ExecutableKey,
    _held: OwnedFd,
}

impl WatchedFile {
    /// What a path leads to now.
    ///
    /// Device and inode are those that programs see (`super_block.s_dev`, `inode.i_ino`), which stat
    /// does not tell on file systems such as btrfs and overlayfs; /proc does.
    ///
    /// # Errors
    /// When it leads nowhere, or the kernel does not tell the inode (before 5.14).
    pub fn find(path: &Path) -> Result<Self, ProbeError> {
        let failed = |reason: String| ProbeError::Failed {
            what: WHAT,
            reason: format!("{}: {reason}", path.display()),
        };
        let held = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| failed(error.to_string()))?;
        let info = format!("/proc/self/fdinfo/{}", held.as_raw_fd());
        let info = fs::read_to_string(info).map_err(|error| failed(error.to_string()))?;
        let mounts = fs::read_to_string("/proc/self/mountinfo");
        let mounts = mounts.map_err(|error| failed(error.to_string()))?;
        let key =
            key(&info, &mounts).ok_or_else(|| failed("/proc does not tell what it is".into()));
        Ok(Self { key: key?, _held: held })
    }
}

/// Out of the two files of /proc (Documentation/filesystems/proc.rst).
fn key(info: &str, mounts: &str) -> Option<ExecutableKey> {
    let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let (mount, inode) = (field("mnt_id:")?, field("ino:")?.parse().ok()?);
    let device = mounts.lines().find_map(|line| {
        let mut words = line.split(' ');
        (words.next() == Some(mount)).then(|| words.nth(1))?
    })?;
    let (major, minor) = device.split_once(':')?;
    let (major, minor): (u64, u64) = (major.parse().ok()?, minor.parse().ok()?);
    Some(ExecutableKey { device: major << 20 | minor, inode })
}

/// What each client watches.
#[derive(Debug, Default)]
pub(super) struct Watched(BTreeMap<u32, Vec<WatchedFile>>);

impl Watched {
    /// A client watches these and no others. Gives the entries of the map that change, with the set of
    /// clients that each is to have.
    pub(super) fn change(
        &mut self,
        slot: u32,
        files: Vec<WatchedFile>,
    ) -> Vec<(ExecutableKey, u64)> {
        let mut touched: BTreeSet<ExecutableKey> = files.iter().map(|file| file.key).collect();
        let before = self.0.insert(slot, files).unwrap_or_default();
        touched.extend(before.iter().map(|file| file.key));
        let watchers = |key: ExecutableKey| {
            let all = self.0.iter().filter(|(_, files)| files.iter().any(|file| file.key == key));
            all.fold(0, |clients, (slot, _)| clients | 1 << slot)
        };
        touched.into_iter().map(|key| (key, watchers(key))).collect()
    }
}

impl Hooks {
    /// Has a client asked about `file_open`, and told of it and of `file_modify`, for what lies below these
    /// directories and for these files, and for no others. With `None` it is told of all files, and asked
    /// about none.
    ///
    /// # Errors
    /// When there is no such slot, or there are too many (1,024 for all clients).
    pub fn watch(&mut self, slot: u32, files: Option<Vec<WatchedFile>>) -> Result<(), ProbeError> {
        is_slot(slot)?;
        // Who watches something is never told of everything in between.
        let is_limited = files.is_some();
        if is_limited {
            self.state.set(Word::Watching, slot, true);
        }
        for (key, clients) in self.watched.change(slot, files.unwrap_or_default()) {
            self.put_clients("watched", key.bytes(), clients)?;
        }
        self.state.set(Word::Watching, slot, is_limited);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_as_the_kernel_has_it() {
        let info = "pos:\t0\nflags:\t012000000\nmnt_id:\t31\nino:\t2883585\n";
        let mounts = "3 1 0:5 / /dev rw - devtmpfs udev rw\n\
                      31 1 259:2 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p2 rw\n";
        let expected = ExecutableKey { device: 259 << 20 | 2, inode: 2_883_585 };
        assert_eq!(key(info, mounts), Some(expected));
        assert_eq!(key("pos:\t0\nmnt_id:\t31\n", mounts), None);
        assert_eq!(key(info, "3 1 0:5 / /dev rw - devtmpfs udev rw\n"), None);
    }

    #[test]
    fn what_two_watch_stays_watched_when_one_leaves() {
        let file = |path: &str| WatchedFile::find(Path::new(path)).expect("it is there");
        let (root, proc) = (file("/").key, file("/proc").key);
        let mut watched = Watched::default();
        assert_eq!(watched.change(3, vec![file("/")]), [(root, 8)]);
        let mut both = watched.change(1, vec![file("/"), file("/proc")]);
        both.sort_unstable();
        let mut expected = [(root, 8 | 2), (proc, 2)];
        expected.sort_unstable();
        assert_eq!(both, expected);
        assert_eq!(watched.change(3, Vec::new()), [(root, 2)]);
        assert!(WatchedFile::find(Path::new("/nowhere/at/all")).is_err());
    }
}
