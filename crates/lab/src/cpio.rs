// SPDX-License-Identifier: Apache-2.0
//! Writes the archive that the kernel unpacks as its first file system.
//!
//! The format is "newc" (Documentation/driver-api/early-userspace/buffer-format.rst): for each entry a
//! header of 13 hexadecimal numbers, a name and the bytes, each padded to four bytes.
//!
//! Directories above an entry are added by themselves. The four old places of `/usr` are symbolic
//! links, as on every Debian since 12, so `lib/x` is written as `usr/lib/x`: the kernel would take an
//! entry for the directory `lib` as an order to remove the link of that name (`clean_path`,
//! init/initramfs.c).

use std::collections::BTreeSet;

/// Places that are links into `usr`.
const MERGED: [&str; 4] = ["bin", "lib", "lib64", "sbin"];

const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_777;

/// An archive that is being written. Paths may begin with a slash.
#[derive(Debug)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    directories: BTreeSet<String>,
    inode: u32,
}

impl Archive {
    /// An archive with the links of a merged `/usr` and nothing else.
    #[must_use]
    pub(crate) fn new() -> Self {
        let mut archive = Self { bytes: Vec::new(), directories: BTreeSet::new(), inode: 0 };
        for name in MERGED {
            archive.directory(&format!("usr/{name}"));
            archive.entry(name, LINK, format!("usr/{name}").as_bytes());
        }
        archive
    }

    /// Adds a directory and those above it; one that is there already is left as it is.
    pub(crate) fn directory(&mut self, path: &str) {
        let path = place(path);
        for end in path.match_indices('/').map(|(at, _)| at).chain([path.len()]) {
            let above = path.get(..end).unwrap_or_default();
            if !above.is_empty() && self.directories.insert(above.to_owned()) {
                self.entry(above, DIRECTORY, &[]);
            }
        }
    }

    /// Adds a file with its permissions. A later file of the same path replaces an earlier one.
    pub(crate) fn file(&mut self, path: &str, permissions: u32, bytes: &[u8]) {
        let path = place(path);
        self.above(&path);
        self.entry(&path, FILE | permissions & 0o7777, bytes);
    }

    /// Closes the archive.
    #[must_use]
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.inode = 0;
        self.write("TRAILER!!!", 0, 0, &[]);
        self.bytes
    }

    fn above(&mut self, path: &str) {
        if let Some((above, _)) = path.rsplit_once('/') {
            self.directory(above);
        }
    }

    fn entry(&mut self, path: &str, mode: u32, bytes: &[u8]) {
        self.inode += 1;
        self.write(path, self.inode, mode, bytes);
    }

    fn write(&mut self, path: &str, inode: u32, mode: u32, bytes: &[u8]) {
        let links = 1;
        let (owner, group, time, device) = (0, 0, 0, 0);
        let (name, check) = (path.len() + 1, 0);
        self.bytes.extend_from_slice(
            format!(
                "070701{inode:08x}{mode:08x}{owner:08x}{group:08x}{links:08x}{time:08x}{:08x}\
                 {device:08x}{device:08x}{device:08x}{device:08x}{name:08x}{check:08x}{path}\0",
                bytes.len(),
            )
            .as_bytes(),
        );
        self.pad();
        self.bytes.extend_from_slice(bytes);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// A path as the archive has it: relative, and below `usr` where the first component is a link.
fn place(path: &str) -> String {
    let path = path.trim_matches('/');
    let first = path.split('/').next().unwrap_or_default();
    if MERGED.contains(&first) { format!("usr/{path}") } else { path.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads an archive back: name, mode and bytes of each entry.
    fn entries(archive: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let number = |at: usize| {
            let text = std::str::from_utf8(&archive[at..at + 8]).unwrap();
            u32::from_str_radix(text, 16).unwrap()
        };
        let (mut at, mut entries) = (0, Vec::new());
        while at < archive.len() {
            assert_eq!(&archive[at..at + 6], b"070701");
            let (mode, size, name) = (number(at + 14), number(at + 54), number(at + 94));
            let start = at + 110;
            let end = start + name as usize;
            assert_eq!(archive[end - 1], 0);
            let data = end.next_multiple_of(4);
            let name = String::from_utf8(archive[start..end - 1].to_vec()).unwrap();
            entries.push((name, mode, archive[data..data + size as usize].to_vec()));
            at = (data + size as usize).next_multiple_of(4);
        }
        entries
    }

    #[test]
    fn what_is_written_can_be_read_back() {
        let mut archive = Archive::new();
        archive.file("/etc/name", 0o640, b"hello");
        let entries = entries(&archive.finish());
        let find = |name: &str| entries.iter().find(|entry| entry.0 == name).unwrap();
        assert_eq!(find("etc").1, 0o040_755);
        assert_eq!(find("etc/name"), &("etc/name".to_owned(), 0o100_640, b"hello".to_vec()));
        assert_eq!(find("lib"), &("lib".to_owned(), 0o120_777, b"usr/lib".to_vec()));
        assert_eq!(entries.last().unwrap().0, "TRAILER!!!");
    }

    #[test]
    fn a_directory_comes_once_and_before_what_is_in_it() {
        let mut archive = Archive::new();
        archive.file("a/b/c", 0o644, b"1");
        archive.file("a/b/d", 0o644, b"2");
        let names: Vec<_> = entries(&archive.finish()).into_iter().map(|entry| entry.0).collect();
        let after: Vec<_> = names.iter().skip_while(|name| *name != "a").collect();
        assert_eq!(after, ["a", "a/b", "a/b/c", "a/b/d", "TRAILER!!!"]);
    }

    #[test]
    fn the_links_of_a_merged_usr_are_never_replaced_by_directories() {
        let mut archive = Archive::new();
        archive.file("/lib/modules/x/y.ko", 0o644, b"");
        archive.file("/lib64/ld.so", 0o755, b"");
        let entries = entries(&archive.finish());
        let lib: Vec<_> = entries.iter().filter(|entry| entry.0 == "lib").collect();
        assert_eq!(lib.len(), 1);
        assert_eq!(lib[0].1, 0o120_777);
        assert!(entries.iter().any(|entry| entry.0 == "usr/lib/modules/x/y.ko"));
        assert!(entries.iter().any(|entry| entry.0 == "usr/lib64/ld.so"));
    }
}
