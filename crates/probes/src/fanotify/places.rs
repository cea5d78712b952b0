// SPDX-License-Identifier: Apache-2.0
//! Whose directories and files one that is opened is in.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A file or directory, as stat tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    device: u64,
    inode: u64,
}

impl Place {
    fn of(found: &fs::Metadata) -> Self {
        Self { device: found.dev(), inode: found.ino() }
    }

    /// What a path leads to, and whether it is a directory.
    pub(super) fn find(path: &Path) -> io::Result<(Self, bool)> {
        let found = fs::metadata(path)?;
        Ok((Self::of(&found), found.is_dir()))
    }
}

/// Where a file is that somebody opens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opened {
    file: Place,
    /// `None` if it cannot be told: it was opened in another mount namespace, where its path leads
    /// elsewhere than here, or has been moved or deleted just now.
    directory: Option<Place>,
}

impl Opened {
    /// Looks without opening anything: who answers must not.
    pub(super) fn find(file: &OwnedFd) -> io::Result<Self> {
        let link = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let opened = Place::of(&fs::metadata(&link)?);
        let path = fs::read_link(&link)?;
        let same = fs::symlink_metadata(&path).is_ok_and(|found| Place::of(&found) == opened);
        let parent = path.parent().filter(|_| same).and_then(|parent| fs::metadata(parent).ok());
        Ok(Self { file: opened, directory: parent.as_ref().map(Place::of) })
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

        // Where it is cannot be told, so all are asked who may have it.
        let opened = fs::File::open(&linked).unwrap();
        fs::remove_file(&linked).unwrap();
        let opened = Opened::find(&opened.into()).unwrap();
        assert_eq!(of.askers(&opened), 1 | 1 << 3 | 1 << 5);
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
