// SPDX-License-Identifier: Apache-2.0
//! Programs that stay attached when this process ends, and maps that stay: their files are in a file system
//! of type bpf.
//!
//! Each process has a directory of its own below the one that is given, so that what an earlier one left can
//! be let go as a whole once this one's own programs do the same.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use libbpf_rs::{Link, MapHandle};
use rustix::fs::statfs;

use crate::error::ProbeError;
use crate::object;

const WHAT: &str = "keeping programs beyond the end of this process";

/// `BPF_FS_MAGIC` (include/uapi/linux/magic.h).
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

/// See the module.
#[derive(Debug)]
pub(crate) struct Pins {
    own: PathBuf,
    older: Vec<PathBuf>,
}

impl Pins {
    /// The maps with these names of the last process below this directory that left them.
    pub(crate) fn maps_of_older<const N: usize>(
        directory: &Path,
        names: [&str; N],
    ) -> Option<[MapHandle; N]> {
        let mut older = numbered(directory).ok()?;
        older.sort_unstable();
        older.into_iter().rev().find_map(|(_, path)| {
            let maps = names.map(|name| MapHandle::from_pinned_path(path.join(name)).ok());
            let maps: Vec<_> = maps.into_iter().collect::<Option<_>>()?;
            maps.try_into().ok()
        })
    }

    /// Below this directory, which is made if it is not there.
    pub(crate) fn below(directory: &Path) -> Result<Self, ProbeError> {
        let failed = |error: io::Error| ProbeError::Failed {
            what: WHAT,
            reason: format!("{}: {error}", directory.display()),
        };
        // Before anything is made: where none is mounted, /sys does not even let a directory be made.
        let there = directory.ancestors().find(|ancestor| ancestor.exists());
        let found = statfs(there.unwrap_or(directory)).map_err(|error| failed(error.into()))?;
        if found.f_type as u64 != BPF_FS_MAGIC {
            return Err(ProbeError::Unsupported {
                what: WHAT,
                lacking: format!(
                    "{} is not in a file system of type bpf; mount one there (mount -t bpf bpf \
                     /sys/fs/bpf)",
                    directory.display()
                ),
            });
        }
        directory.parent().map_or(Ok(()), fs::create_dir_all).map_err(failed)?;
        let mut private = fs::DirBuilder::new();
        private.mode(0o700);
        match private.create(directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed(error));
            }
            _ => {}
        }
        let numbered = numbered(directory).map_err(failed)?;
        let next = numbered.iter().map(|(number, _)| number + 1).max().unwrap_or(0);
        let own = directory.join(next.to_string());
        private.create(&own).map_err(failed)?;
        Ok(Self { own, older: numbered.into_iter().map(|(_, path)| path).collect() })
    }

    /// Has a program stay attached when this process ends.
    pub(crate) fn keep(&self, link: &mut Link, name: &str) -> Result<(), ProbeError> {
        match link.pin_path() {
            Some(_) => Ok(()),
            None => object::with_libbpf(WHAT, || link.pin(self.own.join(name))),
        }
    }

    /// Has a map stay when this process ends.
    pub(crate) fn keep_map(&self, map: &mut MapHandle, name: &str) -> Result<(), ProbeError> {
        let file = self.own.join(name);
        match file.exists() {
            true => Ok(()),
            false => object::with_libbpf(WHAT, || map.pin(file)),
        }
    }

    /// Has a map go with this process after all.
    pub(crate) fn let_map_go(&self, name: &str) -> Result<(), ProbeError> {
        match fs::remove_file(self.own.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(ProbeError::Failed {
                what: "letting go of a map",
                reason: format!("{}: {error}", self.own.join(name).display()),
            }),
            _ => Ok(()),
        }
    }

    /// Lets go of what earlier processes left attached.
    pub(crate) fn let_go_of_older(&mut self) -> Result<(), ProbeError> {
        for directory in std::mem::take(&mut self.older) {
            let failed = |error: io::Error| ProbeError::Failed {
                what: "letting go of what an earlier process left attached",
                reason: format!("{}: {error}", directory.display()),
            };
            for entry in fs::read_dir(&directory).map_err(failed)? {
                fs::remove_file(entry.map_err(failed)?.path()).map_err(failed)?;
            }
            fs::remove_dir(&directory).map_err(failed)?;
        }
        Ok(())
    }
}

/// The directories of processes below this one, with their numbers.
fn numbered(directory: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut numbered = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        // What has another name is not ours.
        if let Some(number) = name.to_str().and_then(|name| name.parse::<u64>().ok()) {
            numbered.push((number, directory.join(name)));
        }
    }
    Ok(numbered)
}

/// Has a program end with this process, or with its link, whether it was to stay or not.
pub(crate) fn let_go(link: &mut Link) -> Result<(), ProbeError> {
    match link.pin_path() {
        Some(_) => object::with_libbpf(WHAT, || link.unpin()),
        None => Ok(()),
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        // Fails if something stays, which then is somebody's to find.
        let _ = fs::remove_dir(&self.own);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_nothing_can_be_kept_it_is_said_what_to_do_and_nothing_is_made() {
        let place = tempfile::tempdir().unwrap();
        for directory in [place.path().to_owned(), place.path().join("some/where")] {
            let error = Pins::below(&directory).unwrap_err().to_string();
            assert!(error.contains("is not in a file system of type bpf"), "{error}");
            assert!(error.contains("mount -t bpf"), "{error}");
        }
        assert!(fs::read_dir(place.path()).unwrap().next().is_none());
    }
}
