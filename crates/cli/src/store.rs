// SPDX-License-Identifier: Apache-2.0
//! The state directory: one sealed baseline for each build of a kernel.
//!
//! A file there decides what counts as clean, so it is only used when none but root could have
//! written it, and it is only ever replaced as a whole.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use memmap2::Mmap;

/// Where the baselines of the first check are kept.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    directory: PathBuf,
    file: PathBuf,
}

impl Store {
    /// The store in `directory`, for the kernel with this build id. A kernel that was linked
    /// without one is told by its release.
    pub(crate) fn new(directory: &Path, build_id: &str, release: &str) -> Self {
        let name = if build_id.is_empty() {
            let safe =
                |c: char| if c.is_ascii_alphanumeric() || "._-+".contains(c) { c } else { '_' };
            format!("release-{}.baseline", release.chars().map(safe).collect::<String>())
        } else {
            format!("{build_id}.baseline")
        };
        Self { directory: directory.to_owned(), file: directory.join(name) }
    }

    /// The store for what was made from the image of that kernel.
    pub(crate) fn of_image(directory: &Path, build_id: &str, release: &str) -> Self {
        let Self { directory, file } = Self::new(directory, build_id, release);
        Self { directory, file: file.with_extension("image") }
    }

    /// The file that holds, or will hold, the baseline.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// Maps the baseline; none if there is no such file.
    pub(crate) fn open(&self) -> anyhow::Result<Option<Mmap>> {
        let options = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).clone();
        let file = match options.open(&self.file) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot open {}", self.file.display()));
            }
        };
        let metadata = file.metadata().with_context(|| self.file.display().to_string())?;
        if !metadata.is_file() {
            bail!("{} is not a regular file; look who put it there", self.file.display());
        }
        self.belongs_to_us(&self.file, &metadata)?;
        let directory =
            fs::metadata(&self.directory).with_context(|| self.directory.display().to_string())?;
        self.belongs_to_us(&self.directory, &directory)?;
        if metadata.len() == 0 {
            bail!("{} is empty; look why, then use --new-baseline", self.file.display());
        }
        // SAFETY: the mapping is private to reading, and the file belongs to this user alone
        // (checked above) and is only ever replaced by renaming another over it, never written in
        // place, so the bytes do not change while they are borrowed. Root could still cut it off
        // behind our back; that ends this process with SIGBUS and tells nobody a lie.
        let map = unsafe { Mmap::map(&file) };
        map.map(Some).with_context(|| format!("cannot map {}", self.file.display()))
    }

    fn belongs_to_us(&self, path: &Path, metadata: &fs::Metadata) -> anyhow::Result<()> {
        let us = rustix::process::geteuid().as_raw();
        if metadata.uid() != us {
            bail!(
                "{} belongs to user {} and not to user {us}: whoever can write it decides what \
                 counts as clean; look who put it there",
                path.display(),
                metadata.uid()
            );
        }
        if metadata.mode() & 0o022 != 0 {
            bail!(
                "{} can be written by others (mode {:03o}): whoever can write it decides what \
                 counts as clean; look at it, then chmod go-w",
                path.display(),
                metadata.mode() & 0o777
            );
        }
        Ok(())
    }

    /// Replaces the baseline by what `write` writes, or leaves it as it was.
    pub(crate) fn replace<E>(
        &self,
        write: impl FnOnce(&mut BufWriter<File>) -> Result<(), E>,
    ) -> anyhow::Result<()>
    where
        E: Into<anyhow::Error>,
    {
        let unwritable = || {
            format!(
                "cannot write to the state directory {}: the baseline could not be kept; name a \
                 directory on a writable file system with --state-dir",
                self.directory.display()
            )
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.directory)
            .with_context(unwritable)?;
        let directory = fs::metadata(&self.directory).with_context(unwritable)?;
        self.belongs_to_us(&self.directory, &directory)?;
        let unfinished = self.file.with_extension(format!("new-{}", std::process::id()));
        let done = (|| {
            let file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW)
                .open(&unfinished)
                .with_context(unwritable)?;
            let mut buffered = BufWriter::with_capacity(1 << 16, file);
            write(&mut buffered).map_err(Into::into)?;
            buffered.flush().with_context(unwritable)?;
            buffered.get_ref().sync_all().with_context(unwritable)?;
            fs::rename(&unfinished, &self.file).with_context(unwritable)?;
            File::open(&self.directory).and_then(|d| d.sync_all()).with_context(unwritable)
        })();
        if done.is_err() {
            // Whatever failed is what the user needs to hear, not that there was nothing to remove.
            let _ = fs::remove_file(&unfinished);
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(&directory.path().join("state"), "abcd", "6.12");
        (directory, store)
    }

    fn put(store: &Store, text: &[u8]) {
        store.replace(|file| file.write_all(text)).unwrap();
    }

    #[test]
    fn what_was_stored_comes_back_and_is_for_the_owner_only() {
        let (_directory, store) = store();
        assert!(store.open().unwrap().is_none());
        put(&store, b"one");
        put(&store, b"two");
        assert_eq!(&*store.open().unwrap().unwrap(), b"two");
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(store.file()), mode(&store.directory)), (0o600, 0o700));
        assert_eq!(fs::read_dir(&store.directory).unwrap().count(), 1);
    }

    #[test]
    fn a_baseline_that_others_can_write_is_not_used() {
        let (_directory, store) = store();
        put(&store, b"one");
        fs::set_permissions(store.file(), fs::Permissions::from_mode(0o620)).unwrap();
        assert!(store.open().unwrap_err().to_string().contains("can be written by others"));
        fs::set_permissions(store.file(), fs::Permissions::from_mode(0o600)).unwrap();
        fs::set_permissions(&store.directory, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(store.open().is_err());
    }

    #[test]
    fn a_link_in_place_of_the_baseline_is_not_followed() {
        let (_directory, store) = store();
        put(&store, b"one");
        let other = store.directory.join("other");
        fs::rename(store.file(), &other).unwrap();
        std::os::unix::fs::symlink(&other, store.file()).unwrap();
        assert!(store.open().is_err());
    }

    #[test]
    fn what_could_not_be_written_leaves_the_old_baseline() {
        let (_directory, store) = store();
        put(&store, b"one");
        let failed = store.replace(|_| Err::<(), _>(io::Error::other("no space")));
        assert!(failed.is_err());
        assert_eq!(&*store.open().unwrap().unwrap(), b"one");
        assert_eq!(fs::read_dir(&store.directory).unwrap().count(), 1);
    }

    #[test]
    fn a_kernel_without_a_build_id_is_told_by_its_release() {
        let store = Store::new(Path::new("dir"), "", "6.1/x y");
        assert_eq!(store.file(), Path::new("dir/release-6.1_x_y.baseline"));
    }
}
