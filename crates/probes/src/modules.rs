// SPDX-License-Identifier: Apache-2.0
//! The files of modules below /lib/modules.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use guard::ModuleFiles;
use guard::check::Missing;

/// Larger than any module; what is read is bounded by it.
const MOST: u64 = 256 << 20;

/// How files of modules end.
const ENDS: [&str; 4] = [".ko", ".ko.xz", ".ko.zst", ".ko.gz"];

/// Directories below one another; /lib/modules has some ten.
const DEEPEST: u32 = 32;

/// A directory with the modules of one kernel, such as `/lib/modules/6.12.0`.
///
/// Which file a module is in is looked up once: in `modules.dep`, where depmod wrote that list, and
/// for what it does not have by their names in the directories.
#[derive(Debug)]
pub struct ModuleDirectory {
    root: PathBuf,
    listed: OnceLock<HashMap<String, PathBuf>>,
    walked: OnceLock<HashMap<String, PathBuf>>,
}

impl ModuleDirectory {
    /// The modules below `root`. Nothing is read yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), listed: OnceLock::new(), walked: OnceLock::new() }
    }

    /// Where modprobe looks for the modules of a release.
    pub fn of_release(release: &str) -> Self {
        Self::new(Path::new("/lib/modules").join(release))
    }

    fn path(&self, name: &str) -> Option<&PathBuf> {
        let listed = self.listed.get_or_init(|| self.list().unwrap_or_default());
        listed.get(name).or_else(|| {
            let walked = self.walked.get_or_init(|| {
                let mut found = HashMap::new();
                walk(&self.root, DEEPEST, &mut found);
                found
            });
            walked.get(name)
        })
    }

    /// The paths in `modules.dep`: `path of a module: paths of those it needs`, relative to the
    /// directory or absolute.
    fn list(&self) -> Option<HashMap<String, PathBuf>> {
        let text = fs::read_to_string(self.root.join("modules.dep")).ok()?;
        let paths = text.lines().filter_map(|line| line.split(':').next());
        let files = paths.map(|path| self.root.join(path));
        // A list may outlive its files.
        Some(
            files
                .filter_map(|path| Some((name_of(&path)?, path)))
                .filter(|(_, p)| p.exists())
                .collect(),
        )
    }
}

impl ModuleFiles for ModuleDirectory {
    fn file(&self, name: &str) -> Result<Vec<u8>, Missing> {
        let root = self.root.display();
        let path = self.path(&name.replace('-', "_")).ok_or_else(|| {
            Missing(format!("no file of it below {root}; --modules DIR names another directory"))
        })?;
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|file| file.take(MOST + 1).read_to_end(&mut bytes));
        read.map_err(|error| Missing(format!("{}: {error}", path.display())))?;
        Ok(bytes)
    }
}

/// The name that the kernel gives to the module in this file.
fn name_of(path: &Path) -> Option<String> {
    let file = path.file_name()?.to_str()?;
    let name = ENDS.iter().find_map(|end| file.strip_suffix(end))?;
    Some(name.replace('-', "_"))
}

/// Adds the modules below a directory. Links to directories are not followed: `build` and `source`
/// lead to other trees.
fn walk(directory: &Path, depth: u32, found: &mut HashMap<String, PathBuf>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && depth > 0 => walk(&path, depth - 1, found),
            Ok(kind) if !kind.is_dir() => {
                if let Some(name) = name_of(&path) {
                    found.entry(name).or_insert(path);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_found_with_and_without_a_list_whatever_its_dashes_and_compression() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("kernel/drivers/net");
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("snd-hda-intel.ko.xz"), b"one").unwrap();
        fs::write(deep.join("listed.ko"), b"two").unwrap();
        fs::write(deep.join("listed.ko.sig"), b"not a module").unwrap();
        let dep = "kernel/drivers/net/listed.ko: kernel/other.ko\nkernel/gone.ko.zst:\n";
        fs::write(root.path().join("modules.dep"), dep).unwrap();
        let modules = ModuleDirectory::new(root.path());
        assert_eq!(modules.file("listed").unwrap(), b"two");
        assert_eq!(modules.file("snd_hda_intel").unwrap(), b"one");
        for absent in ["gone", "other", "listed.ko"] {
            let missing = modules.file(absent).unwrap_err();
            assert!(missing.0.contains("--modules"), "{missing:?}");
        }
    }
}
