// SPDX-License-Identifier: Apache-2.0
//! Files of grants, from the administrator's directory.
//!
//! Whoever can write such a file decides what products may do, so a file that others than root can
//! write is not taken.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use broker::grant::GRANT_BYTES_MAX;

/// Files that are looked at; more is a mistake.
const FILES_MAX: usize = 256;

/// Something about the files that keeps them from being read; what is wrong in one is said by
/// [`broker::grant::GrantError`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {reason}")]
pub struct FileError {
    /// The file or directory.
    pub file: String,
    /// Why it was not taken.
    pub reason: String,
}

/// Names and texts of the files `*.toml` in the directory, by name; and what could not be taken. No
/// directory is an empty one. `owner` is who else than root may own them: who runs the daemon.
pub fn read(directory: &Path, owner: u32) -> (Vec<(String, String)>, Vec<FileError>) {
    let mut errors = Vec::new();
    let mut fail = |file: &Path, error: &dyn std::fmt::Display| {
        let file = file.display().to_string();
        errors.push(FileError { file, reason: error.to_string() });
    };
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return (Vec::new(), errors),
        Err(error) => {
            fail(directory, &error);
            return (Vec::new(), errors);
        }
    };
    let mut paths: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    paths.sort_unstable();
    if paths.len() > FILES_MAX {
        fail(directory, &format_args!("more than {FILES_MAX} files; the rest is not looked at"));
        paths.truncate(FILES_MAX);
    }
    let mut files = Vec::new();
    for path in paths {
        match read_one(&path, owner) {
            Ok(text) => files.push((path.display().to_string(), text)),
            Err(error) => fail(&path, &error),
        }
    }
    (files, errors)
}

fn read_one(path: &Path, owner: u32) -> io::Result<String> {
    let file = File::open(path)?;
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(io::Error::other("is no file"));
    }
    if about.uid() != 0 && about.uid() != owner {
        return Err(io::Error::other("must belong to root: chown root it"));
    }
    if about.mode() & 0o022 != 0 {
        return Err(io::Error::other("others can write it: chmod go-w it"));
    }
    let mut text = String::new();
    let most = GRANT_BYTES_MAX as u64 + 1;
    file.take(most).read_to_string(&mut text)?;
    if text.len() > GRANT_BYTES_MAX {
        return Err(io::Error::other(format!("is longer than {GRANT_BYTES_MAX} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn only_what_nobody_else_can_write_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        let own = rustix::process::geteuid().as_raw();
        for (name, mode) in [("b.toml", 0o644), ("a.toml", 0o600), ("open.toml", 0o666)] {
            let path = directory.path().join(name);
            std::fs::write(&path, name).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        std::fs::write(directory.path().join("README"), "no grant").unwrap();
        std::fs::create_dir(directory.path().join("c.toml")).unwrap();
        let (files, errors) = read(directory.path(), own);
        let texts: Vec<_> = files.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(texts, ["a.toml", "b.toml"]);
        let reasons: Vec<_> = errors.iter().map(|error| error.reason.as_str()).collect();
        assert_eq!(reasons, ["is no file", "others can write it: chmod go-w it"]);
    }

    #[test]
    fn the_grants_of_the_examples_are_valid() {
        let directory = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/grants"));
        let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        let text = |path: &std::path::PathBuf| std::fs::read_to_string(path).unwrap();
        let files: Vec<_> = entries.map(|path| (path.display().to_string(), text(&path))).collect();
        assert!(files.len() > 1);
        let (grants, errors) = broker::grant::Grants::load(files.clone());
        assert_eq!(errors, []);
        assert_eq!(grants.len(), files.len());
    }

    #[test]
    fn no_directory_grants_nothing() {
        assert_eq!(read(Path::new("/nowhere/at/all"), 0), (Vec::new(), Vec::new()));
    }

    #[test]
    fn a_file_without_end_is_not_read() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("a.toml"), vec![b'#'; GRANT_BYTES_MAX + 1]).unwrap();
        let (files, errors) = read(directory.path(), rustix::process::geteuid().as_raw());
        assert_eq!((files.len(), errors.len()), (0, 1));
    }
}
