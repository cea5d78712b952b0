// SPDX-License-Identifier: Apache-2.0
//! Answers, as bytes to be written to /dev/fuse. Pure.

use rustix::io::Errno;

/// `FUSE_ROOT_ID`.
pub(crate) const ROOT: u64 = 1;
/// The one file.
pub(crate) const FILE: u64 = 2;

/// The one file, as it is served.
#[derive(Debug)]
pub(crate) struct Served {
    /// Its name in the root directory.
    pub(crate) name: &'static str,
    /// What is in it.
    pub(crate) bytes: Vec<u8>,
}

impl Served {
    /// `struct fuse_attr`; none if there is no such node.
    fn attributes(&self, node: u64) -> Option<Vec<u8>> {
        let (mode, size) = match node {
            ROOT => (libc::S_IFDIR | 0o500, 0),
            FILE => (libc::S_IFREG | 0o500, self.bytes.len() as u64),
            _ => return None,
        };
        let mut attributes = Vec::with_capacity(88);
        // ino, size, blocks of 512 bytes; then three times, in seconds.
        for field in [node, size, size.div_ceil(512), 0, 0, 0] {
            attributes.extend(field.to_ne_bytes());
        }
        // The times' nanoseconds; mode, nlink, uid, gid, rdev, blksize, flags.
        for field in [0, 0, 0, mode, 1, 0, 0, 0, 4096, 0] {
            attributes.extend(field.to_ne_bytes());
        }
        Some(attributes)
    }

    /// The answer to GETATTR.
    pub(crate) fn get_attributes(&self, unique: u64, node: u64) -> Vec<u8> {
        match self.attributes(node) {
            // struct fuse_attr_out: how long they hold, then they.
            Some(attributes) => answer(unique, &[&for_ever()[..], &[0; 8], &attributes].concat()),
            None => failed(unique, Errno::NOENT),
        }
    }

    /// Bytes of the file.
    pub(crate) fn part(&self, offset: u64, size: u32) -> &[u8] {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.bytes.len());
        let end = start.saturating_add(size as usize).min(self.bytes.len());
        self.bytes.get(start..end).unwrap_or_default()
    }
}

/// Attributes and names never change, and are asked for once.
fn for_ever() -> [u8; 8] {
    u64::from(u32::MAX).to_ne_bytes()
}

/// An answer with data: `struct fuse_out_header`, then the data.
pub(crate) fn answer(unique: u64, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(16 + data.len());
    bytes.extend((16 + data.len() as u32).to_ne_bytes());
    bytes.extend(0_i32.to_ne_bytes());
    bytes.extend(unique.to_ne_bytes());
    bytes.extend(data);
    bytes
}

/// An answer that is an error.
pub(crate) fn failed(unique: u64, error: Errno) -> Vec<u8> {
    let mut bytes = 16_u32.to_ne_bytes().to_vec();
    bytes.extend((-error.raw_os_error()).to_ne_bytes());
    bytes.extend(unique.to_ne_bytes());
    bytes
}

/// The answer to INIT: `struct fuse_init_out`, and none of the protocol's options.
pub(crate) fn init(unique: u64, major: u32, minor: u32) -> Vec<u8> {
    /// What is spoken here.
    const MAJOR: u32 = 7;
    const MINOR: u32 = 31;
    if major < MAJOR || (major == MAJOR && minor < MINOR) {
        return failed(unique, Errno::PROTO);
    }
    let mut data = Vec::with_capacity(64);
    // major, minor, max_readahead, flags.
    for field in [MAJOR, MINOR, 0, 0] {
        data.extend(field.to_ne_bytes());
    }
    // max_background, congestion_threshold: of requests that nobody waits for.
    for field in [16_u16, 12] {
        data.extend(field.to_ne_bytes());
    }
    // max_write: the least there is; then time_gran in nanoseconds.
    for field in [4096_u32, 1] {
        data.extend(field.to_ne_bytes());
    }
    data.resize(64, 0);
    answer(unique, &data)
}

/// The answer to LOOKUP: `struct fuse_entry_out`.
pub(crate) fn entry(unique: u64, parent: u64, name: &[u8], served: &Served) -> Vec<u8> {
    let found = parent == ROOT && name == served.name.as_bytes();
    let attributes = found.then(|| served.attributes(FILE)).flatten();
    let Some(attributes) = attributes else { return failed(unique, Errno::NOENT) };
    let mut data = Vec::with_capacity(128);
    // nodeid, generation.
    data.extend(FILE.to_ne_bytes());
    data.extend(0_u64.to_ne_bytes());
    // How long the name and the attributes hold, and their nanoseconds.
    data.extend(for_ever());
    data.extend(for_ever());
    data.extend([0; 8]);
    data.extend(attributes);
    answer(unique, &data)
}

/// The answer to OPEN: `struct fuse_open_out`.
pub(crate) fn open(unique: u64) -> Vec<u8> {
    /// `FOPEN_KEEP_CACHE`: what was read stays right. `FOPEN_NOFLUSH` (5.16): closing waits for nobody.
    const FLAGS: u32 = 1 << 1 | 1 << 5;
    let mut data = 0_u64.to_ne_bytes().to_vec();
    data.extend(FLAGS.to_ne_bytes());
    data.extend([0; 4]);
    answer(unique, &data)
}

/// The answer to GETXATTR that asks for the size alone: `struct fuse_getxattr_out`.
pub(crate) fn size_of_value(unique: u64, size: u32) -> Vec<u8> {
    let mut data = size.to_ne_bytes().to_vec();
    data.extend([0; 4]);
    answer(unique, &data)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served() -> Served {
        Served { name: "file", bytes: (0..=255).collect() }
    }

    /// Length, error and number of an answer.
    fn header(answer: &[u8]) -> (usize, i32, u64) {
        let length = u32::from_ne_bytes(answer[..4].try_into().unwrap());
        let error = i32::from_ne_bytes(answer[4..8].try_into().unwrap());
        (length as usize, error, u64::from_ne_bytes(answer[8..16].try_into().unwrap()))
    }

    #[test]
    fn answers_have_the_sizes_that_the_kernel_wants() {
        // The kernel refuses an answer that is not exactly as long as the structure (fs/fuse/dev.c).
        let served = served();
        for (answer, size) in [
            (init(9, 7, 45), 64),
            (entry(9, ROOT, b"file", &served), 128),
            (served.get_attributes(9, FILE), 104),
            (open(9), 16),
            (size_of_value(9, 32), 8),
        ] {
            assert_eq!(header(&answer), (16 + size, 0, 9));
            assert_eq!(answer.len(), 16 + size);
        }
    }

    #[test]
    fn what_is_not_there_is_said_to_be_missing() {
        let missing = (16, -libc::ENOENT, 9);
        assert_eq!(header(&entry(9, ROOT, b"fil", &served())), missing);
        assert_eq!(header(&entry(9, FILE, b"file", &served())), missing);
        assert_eq!(header(&served().get_attributes(9, 3)), missing);
    }

    #[test]
    fn a_part_ends_with_the_file() {
        let served = served();
        assert_eq!(served.part(250, 100), [250, 251, 252, 253, 254, 255]);
        assert!(served.part(256, 1).is_empty());
        assert!(served.part(u64::MAX, u32::MAX).is_empty());
    }

    #[test]
    fn a_kernel_with_an_older_protocol_is_refused() {
        assert_eq!(header(&init(9, 7, 30)), (16, -libc::EPROTO, 9));
        assert_eq!(header(&init(9, 8, 0)), (80, 0, 9));
    }
}
