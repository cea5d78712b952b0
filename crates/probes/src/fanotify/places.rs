// SPDX-License-Identifier: Apache-2.0
//! Whose directories and files one that is opened is in.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Statx, StatxFlags, readlink, statx};
use rustix::io::Errno;
use rustix::path::Arg;

/// A file or directory, as stat tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    device: (u32, u32),
    inode: u64,
}

impl Place {
    fn of(found: &Statx) -> Self {
        Self { device: (found.stx_dev_major, found.stx_dev_minor), inode: found.stx_ino }
    }

    /// What a path leads to, and whether it is a directory.
    pub(super) fn find(path: &Path) -> Result<(Self, bool), Errno> {
        let found = look(CWD, path, AtFlags::empty())?;
        let kind = FileType::from_raw_mode(found.stx_mode.into());
        Ok((Self::of(&found), kind == FileType::Directory))
    }
}

/// Asks nobody else: the server of a network file system may take long, or be who waits.
fn look(at: impl AsFd, path: impl Arg, flags: AtFlags) -> Result<Statx, Errno> {
    let wanted = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
    statx(at, path, flags | AtFlags::STATX_DONT_SYNC, wanted)
}

/// The mount, if the kernel tells it (5.8).
fn mount(found: &Statx) -> Option<u64> {
    StatxFlags::from_bits_retain(found.stx_mask)
        .contains(StatxFlags::MNT_ID)
        .then_some(found.stx_mnt_id)
}

/// Where a file is that somebody opens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opened {
    file: Place,
    /// `None` if it cannot be told: the file is mounted by itself, or was opened in another mount
    /// namespace, where its path leads elsewhere than here.
    directory: Option<Place>,
}

impl Opened {
    /// Looks without opening anything, which who answers must not; and without looking for the name of
    /// the file, because who waits may have it locked (atomic_open, fs/namei.c).
    pub(super) fn find(file: &OwnedFd) -> Result<Self, Errno> {
        let found = look(file, "", AtFlags::EMPTY_PATH)?;
        let path = readlink(format!("/proc/self/fd/{}", file.as_raw_fd()), Vec::new())?;
        let path = Path::new(OsStr::from_bytes(path.as_bytes()));
        let parent = path.parent().filter(|_| path.is_absolute());
        let directory = parent.and_then(|parent| look(CWD, parent, AtFlags::empty()).ok());
        let directory = directory.filter(|directory| {
            let mount = mount(directory);
            mount.is_some() && mount == self::mount(&found)
        });
        Ok(Self { file: Place::of(&found), directory: directory.as_ref().map(Place::of) })
    }
}

/// What each client, by its slot, is asked about.
#[derive(Debug, Default)]
pub(super) struct Places(BTreeMap<u32, Vec<(Place, PathBuf)>>);

impl Places {
    /// From now on a client has these places. Gives those, of any, that nobody has any more.
    pub(super) fn change(
        &mut self,
        slot: u32,
        places: Vec<(Place, PathBuf)>,
    ) -> Vec<(Place, PathBuf)> {
        let before =
            if places.is_empty() { self.0.remove(&slot) } else { self.0.insert(slot, places) };
        let mut left = before.unwrap_or_default();
        left.retain(|(place, _)| !self.0.values().flatten().any(|(other, _)| other == place));
        left
    }

    /// Whether anybody is to be asked about anything.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Who is asked about this file, as a set of slots. Of one whose directory cannot be told that is
    /// everybody who has a place on its file system: it is in the place of one of them, or nobody would
    /// wait.
    pub(super) fn askers(&self, opened: &Opened) -> u64 {
        let is_in = |place: &Place| match &opened.directory {
            Some(directory) => place == directory || *place == opened.file,
            None => place.device == opened.file.device,
        };
        let asked =
            self.0.iter().filter(|(_, places)| places.iter().any(|(place, _)| is_in(place)));
        asked.fold(0, |askers, (slot, _)| askers | 1 << slot)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn places(paths: &[&Path]) -> Vec<(Place, PathBuf)> {
        paths.iter().map(|path| (Place::find(path).unwrap().0, path.to_path_buf())).collect()
    }

    #[test]
    fn who_has_the_directory_or_the_file_is_asked() {
        let root = tempfile::tempdir().unwrap();
        let (below, file) = (root.path().join("below"), root.path().join("below/file"));
        fs::create_dir(&below).unwrap();
        fs::write(&file, "x").unwrap();
        let other = root.path().join("other");
        fs::write(&other, "x").unwrap();
        let mut of = Places::default();
        assert!(of.is_empty());
        of.change(0, places(&[root.path()]));
        of.change(3, places(&[&below]));
        of.change(5, places(&[&file, &other]));
        let opened = |path: &Path| Opened::find(&fs::File::open(path).unwrap().into()).unwrap();
        assert_eq!(of.askers(&opened(&file)), 1 << 3 | 1 << 5, "directly in it only");
        assert_eq!(of.askers(&opened(&other)), 1 | 1 << 5);

        // By another name, which is in nobody's directory.
        let elsewhere = tempfile::tempdir_in(root.path()).unwrap();
        let linked = elsewhere.path().join("linked");
        fs::hard_link(&file, &linked).unwrap();
        assert_eq!(of.askers(&opened(&linked)), 1 << 5);

        // Where it was it still is, until its directory goes: then all are asked who may have it.
        let opened: OwnedFd = fs::File::open(&linked).unwrap().into();
        fs::remove_file(&linked).unwrap();
        assert_eq!(of.askers(&Opened::find(&opened).unwrap()), 1 << 5);
        drop(elsewhere);
        assert_eq!(of.askers(&Opened::find(&opened).unwrap()), 1 | 1 << 3 | 1 << 5);
    }

    #[test]
    fn what_another_has_too_is_not_left() {
        let mut of = Places::default();
        let [root, proc] = ["/", "/proc"].map(Path::new);
        assert_eq!(of.change(1, places(&[root, proc])), []);
        assert_eq!(of.change(2, places(&[root])), []);
        assert_eq!(of.change(1, Vec::new()), places(&[proc]));
        assert_eq!(of.change(2, places(&[proc])), places(&[root]));
        assert_eq!(of.change(2, Vec::new()), places(&[proc]));
        assert!(of.is_empty());
    }
}
