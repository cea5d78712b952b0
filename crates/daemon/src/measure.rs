// SPDX-License-Identifier: Apache-2.0
//! What a client's executable is: its path, its place and the SHA-256 digest of its contents; the digest of
//! a file that a client was told of; the memory of a process ([`crate::memory`]); and collections of digests, which
//! are made ready.
//!
//! A process can live in a mount namespace of its own making, where any path leads to any file. So a
//! path counts only if it leads to the same file from here.
//!
//! Reading a file can take long: it can be large, and its file system can be one that answers when it
//! likes, or never. The thread that serves all clients must not wait for it. So each measurement has a
//! thread, one at a time for each user, and a result that is waited for like a socket. Who makes a
//! measurement hang has his own user's next ones wait.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use rules::{Algorithm, Collection};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, openat2};
use sha2::{Digest as _, Sha256};

use crate::identity::Held;
use crate::kernel::{Prepared, Preparer, RulesRefused};
use crate::{memory, process};

/// A file that is longer is not measured, in bytes.
pub const LONGEST: u64 = 512 << 20;
/// Measurements at a time, of all users.
const AT_ONCE: usize = 16;
/// Digests that are remembered; forgotten all together when there are more.
const REMEMBERED: usize = 256;

/// SHA-256 of a file's contents.
pub type Digest = [u8; 32];

/// An executable, as it was measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Executable {
    /// From which it can be reached here; `None` if it was deleted or is in another mount namespace.
    pub path: Option<Vec<u8>>,
    /// Of its contents, if it was asked for.
    pub digest: Option<Digest>,
    /// Name of the user, as /etc/passwd has it.
    pub user: Option<String>,
}

/// A file as a record names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedFile {
    /// From the root.
    pub path: PathBuf,
    /// As in a record: major << 20 | minor.
    pub device: u64,
    /// Its number there.
    pub inode: u64,
}

/// What is to be measured.
#[derive(Debug)]
pub enum Subject {
    /// What a process runs.
    Process {
        /// The process.
        process: Held,
        /// Its contents too.
        digest: bool,
    },
    /// A file that somebody may execute or everybody may read, if it is still the one that is meant.
    File(NamedFile),
    /// What is in the memory of a process, or mapped there.
    Memory {
        /// The process.
        process: Held,
        /// What of it.
        wanted: memory::Wanted,
    },
    /// Not measured but made: a collection, which is sorted and laid out as the kernel looks it up.
    Collection {
        /// What made the digests.
        algorithm: Algorithm,
        /// As they came.
        digests: Vec<Digest>,
        /// What the kernel wants to be done.
        prepare: Preparer,
    },
}

/// What came of it.
#[derive(Debug)]
pub enum Found {
    /// Of [`Subject::Process`].
    Executable(Executable),
    /// Of [`Subject::File`].
    File {
        /// Of its contents.
        digest: Digest,
        /// Of them, in bytes.
        length: u64,
    },
    /// Of [`Subject::Memory`].
    Memory(Vec<u8>),
    /// Of [`Subject::Collection`].
    Collection(Result<Prepared, RulesRefused>),
}

/// A measurement that has ended.
#[derive(Debug)]
pub struct Measured {
    /// What [`Measurer::start`] was given.
    pub ticket: u64,
    /// What came of it.
    pub result: io::Result<Found>,
    /// Whose measurement; of a collection nobody's.
    uid: Option<u32>,
}

/// What a digest is remembered by: contents do not change without the time of change.
type Version = (u64, u64, i64, i64, u64);

/// Measures executables, and remembers digests.
#[derive(Debug)]
pub struct Measurer {
    wake: Arc<OwnedFd>,
    sender: Sender<Measured>,
    results: Receiver<Measured>,
    running: Vec<u32>,
    /// Whether a collection is made ready. That ends by itself, and takes much memory: so one at a time, which no
    /// measurement that hangs holds up.
    preparing: bool,
    known: Arc<Mutex<HashMap<Version, Digest>>>,
}

impl Measurer {
    /// With nothing remembered.
    pub fn new() -> io::Result<Self> {
        let (sender, results) = channel();
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        Ok(Self {
            wake,
            sender,
            results,
            running: Vec::new(),
            preparing: false,
            known: Arc::default(),
        })
    }

    /// Whether this user's can start now.
    #[must_use]
    pub fn is_free_for(&self, uid: u32, subject: &Subject) -> bool {
        match subject {
            Subject::Collection { .. } => !self.preparing,
            _ => self.running.len() < AT_ONCE && !self.running.contains(&uid),
        }
    }

    /// Begins to measure something for this user. The result has the ticket.
    pub fn start(&mut self, ticket: u64, uid: u32, subject: Subject) {
        let of = if let Subject::Collection { .. } = subject {
            self.preparing = true;
            None
        } else {
            self.running.push(uid);
            Some(uid)
        };
        let (wake, sender, known) =
            (Arc::clone(&self.wake), self.sender.clone(), Arc::clone(&self.known));
        let done = move |result| {
            // Both fail only when the daemon is ending.
            let _ = sender.send(Measured { ticket, result, uid: of });
            let _ = rustix::io::write(wake.as_fd(), &1_u64.to_ne_bytes());
        };
        let fail = done.clone();
        let work = move || {
            done(match subject {
                Subject::Process { process, digest } => {
                    let known = digest.then_some(&*known);
                    measure(&process, uid, known).map(Found::Executable)
                }
                Subject::File(file) => measure_file(&file, &known),
                Subject::Memory { process, wanted } => {
                    memory::read(&process, wanted).map(Found::Memory)
                }
                Subject::Collection { algorithm, digests, prepare } => {
                    let collection = Collection::new(algorithm, digests);
                    let prepared = collection.map_err(RulesRefused::Wrong).and_then(prepare);
                    Ok(Found::Collection(prepared))
                }
            });
        };
        let thread = std::thread::Builder::new().name("measure".into()).stack_size(256 << 10);
        if let Err(error) = thread.spawn(work) {
            fail(Err(error));
        }
    }

    /// The next that has ended.
    pub fn take(&mut self) -> Option<Measured> {
        let mut count = [0; 8];
        // Not ready is what it usually says.
        let _ = rustix::io::read(self.wake.as_fd(), &mut count);
        let measured = self.results.try_recv().ok()?;
        match measured.uid {
            None => self.preparing = false,
            Some(of) => {
                if let Some(place) = self.running.iter().position(|uid| *uid == of) {
                    self.running.swap_remove(place);
                }
            }
        }
        Some(measured)
    }
}

impl AsFd for Measurer {
    /// Becomes readable when a measurement has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        (*self.wake).as_fd()
    }
}

/// The contents are looked at if digests that are `known` are given.
fn measure(
    process: &Held,
    uid: u32,
    known: Option<&Mutex<HashMap<Version, Digest>>>,
) -> io::Result<Executable> {
    let (mut file, path) = process.executable()?;
    let about = file.metadata()?;
    let here = std::fs::metadata(OsStr::from_bytes(&path));
    let same = here.is_ok_and(|here| (here.dev(), here.ino()) == (about.dev(), about.ino()));
    let digest = known.map(|known| remembered(&mut file, known)).transpose()?;
    let users = std::fs::read("/etc/passwd").unwrap_or_default();
    Ok(Executable { path: same.then_some(path), digest, user: name_of(&users, uid) })
}

/// Opens the file without touching what it may be instead: a device, a pipe, another file in its place.
fn measure_file(wanted: &NamedFile, known: &Mutex<HashMap<Version, Digest>>) -> io::Result<Found> {
    let links = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let place = openat2(CWD, &wanted.path, flags, Mode::empty(), links)?;
    let (device, inode) = process::place_of(&place, c"")?;
    if (device, inode) != (wanted.device, wanted.inode) {
        return Err(io::Error::other("another file is there now"));
    }
    let about = rustix::fs::fstat(&place)?;
    let kind = FileType::from_raw_mode(about.st_mode);
    // Or it would say what is in files that the client cannot read. Libraries and modules are read by all.
    if kind != FileType::RegularFile || about.st_mode & 0o115 == 0 {
        let problem = "it is not a file that somebody may execute or everybody may read";
        return Err(io::Error::other(problem));
    }
    let mut file = File::open(format!("/proc/self/fd/{}", place.as_raw_fd()))?;
    let digest = remembered(&mut file, known)?;
    Ok(Found::File { digest, length: file.metadata()?.len() })
}

fn remembered(file: &mut File, known: &Mutex<HashMap<Version, Digest>>) -> io::Result<Digest> {
    let version = self::version(file)?;
    let before = known.lock().unwrap_or_else(PoisonError::into_inner).get(&version).copied();
    if let Some(digest) = before {
        return Ok(digest);
    }
    let digest = digest(file, version.4)?;
    if self::version(file)? != version {
        return Err(io::Error::other("it changed while it was measured"));
    }
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    if known.len() >= REMEMBERED {
        known.clear();
    }
    known.insert(version, digest);
    Ok(digest)
}

/// The first name of a uid in a text that is laid out as /etc/passwd. What other sources of names
/// there may be is not asked: they can be far away.
fn name_of(passwd: &[u8], uid: u32) -> Option<String> {
    let mut lines = passwd.split(|byte| *byte == b'\n').filter_map(|l| std::str::from_utf8(l).ok());
    lines.find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

fn version(file: &File) -> io::Result<Version> {
    let about = file.metadata()?;
    Ok((about.dev(), about.ino(), about.ctime(), about.ctime_nsec(), about.len()))
}

fn digest(file: &mut File, length: u64) -> io::Result<Digest> {
    if length > LONGEST {
        return Err(io::Error::other(format!("it is longer than {LONGEST} bytes")));
    }
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    // A file that grows meanwhile is not followed.
    let mut rest = file.take(length);
    loop {
        let read = rest.read(&mut buffer)?;
        if read == 0 {
            return Ok(hasher.finalize().into());
        }
        hasher.update(buffer.get(..read).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use rustix::event::{PollFd, PollFlags, poll};

    use super::*;

    fn wait(measurer: &mut Measurer) -> Measured {
        loop {
            if let Some(measured) = measurer.take() {
                return measured;
            }
            let limit = rustix::time::Timespec::try_from(Duration::from_secs(60)).unwrap();
            let ready = poll(&mut [PollFd::new(&*measurer, PollFlags::IN)], Some(&limit)).unwrap();
            assert_eq!(ready, 1, "a measurement ends");
        }
    }

    #[test]
    fn an_executable_is_measured_once_and_then_remembered() {
        let mut measurer = Measurer::new().unwrap();
        let own = std::env::current_exe().unwrap();
        let expected: Digest = Sha256::digest(std::fs::read(&own).unwrap()).into();
        let of_this =
            |digest| Subject::Process { process: Held::open(std::process::id()).unwrap(), digest };
        let next = of_this(false);
        for (ticket, digest) in [(7, true), (8, true), (9, false)] {
            measurer.start(ticket, 0, of_this(digest));
            assert!(!measurer.is_free_for(0, &next) && measurer.is_free_for(1, &next));
            let measured = wait(&mut measurer);
            assert!(measurer.is_free_for(0, &next));
            assert_eq!(measured.ticket, ticket);
            let Found::Executable(executable) = measured.result.unwrap() else { panic!() };
            assert_eq!(executable.digest, digest.then_some(expected));
            assert_eq!(executable.path.unwrap(), own.as_os_str().as_bytes());
            assert_eq!(executable.user.as_deref(), Some("root"));
        }
        assert_eq!(measurer.known.lock().unwrap().len(), 1);
    }

    #[test]
    fn collections_are_made_ready_one_at_a_time_and_beside_measurements() {
        let mut measurer = Measurer::new().unwrap();
        let kernel = crate::kernel::FakeKernel::default();
        let collection = |digests: &[Digest]| Subject::Collection {
            algorithm: Algorithm::Sha256,
            digests: digests.to_vec(),
            prepare: crate::kernel::Kernel::preparer(&kernel),
        };
        let process = Held::open(std::process::id()).unwrap();
        let process = Subject::Process { process, digest: false };
        measurer.start(1, 0, collection(&[[7; 32], [1; 32], [7; 32]]));
        assert!(!measurer.is_free_for(1, &collection(&[])), "not for another user either");
        assert!(measurer.is_free_for(0, &process));
        let Found::Collection(prepared) = wait(&mut measurer).result.unwrap() else { panic!() };
        assert_eq!(prepared.unwrap().count(), 2);
        measurer.start(2, 0, process);
        assert!(measurer.is_free_for(0, &collection(&[])));
        wait(&mut measurer);
    }

    #[test]
    fn a_deleted_executable_has_no_path() {
        let directory = tempfile::tempdir().unwrap();
        let copy = directory.path().join("sleeper");
        std::fs::copy("/bin/sleep", &copy).unwrap();
        let mut child = std::process::Command::new(&copy).arg("1000").spawn().unwrap();
        std::fs::remove_file(&copy).unwrap();
        let process = Held::open(child.id()).unwrap();
        let known = Mutex::default();
        let measured = measure(&process, 0, Some(&known));
        // Nor does another file in its place lend it one.
        std::fs::write(directory.path().join("sleeper (deleted)"), "other").unwrap();
        let again = measure(&process, 0, None);
        child.kill().unwrap();
        child.wait().unwrap();
        let measured = measured.unwrap();
        let expected: Digest = Sha256::digest(std::fs::read("/bin/sleep").unwrap()).into();
        assert_eq!((measured.path, measured.digest), (None, Some(expected)));
        assert_eq!(again.unwrap().path, None);
    }

    #[test]
    fn a_user_has_the_first_name_of_its_number() {
        let passwd = b"root:x:0:0::/:/bin/sh\n\xff:x:7:7::\n:x:7:\nbroken\na:x:7:\nb:x:7:\n";
        assert_eq!(name_of(passwd, 7).as_deref(), Some("a"));
        assert_eq!(name_of(passwd, 0).as_deref(), Some("root"));
        assert_eq!(name_of(passwd, 8), None);
    }

    #[test]
    fn a_file_that_is_too_long_is_not_read() {
        let mut file = tempfile::tempfile().unwrap();
        file.set_len(LONGEST + 1).unwrap();
        assert!(digest(&mut file, LONGEST + 1).is_err());
    }

    #[test]
    fn a_file_is_measured_if_it_is_the_one_and_somebody_may_execute_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = std::fs::canonicalize(directory.path()).unwrap().join("program");
        std::fs::write(&path, "contents").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o711)).unwrap();
        let known = Mutex::default();
        let (device, inode) = process::place_of(File::open(&path).unwrap(), c"").unwrap();
        let file = NamedFile { path: path.clone(), device, inode };
        let Found::File { digest, length } = measure_file(&file, &known).unwrap() else { panic!() };
        assert_eq!((digest, length), (Sha256::digest("contents").into(), 8));
        let fails = |file: &NamedFile| measure_file(file, &known).unwrap_err().to_string();

        let other = NamedFile { inode: inode + 1, ..file.clone() };
        assert_eq!(fails(&other), "another file is there now");
        let missing = NamedFile { path: path.with_file_name("none"), ..file.clone() };
        assert!(fails(&missing).contains("No such file"));
        let link = path.with_file_name("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(fails(&NamedFile { path: link, ..file.clone() }).contains("symbolic links"));
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        assert!(
            fails(&file).contains("not a file that somebody may execute or everybody may read")
        );
        let pipe = path.with_file_name("pipe");
        rustix::fs::mknodat(CWD, &pipe, FileType::Fifo, Mode::from(0o777), 0).unwrap();
        let place =
            openat2(CWD, &pipe, OFlags::PATH, Mode::empty(), ResolveFlags::empty()).unwrap();
        let (device, inode) = process::place_of(place, c"").unwrap();
        // It would wait for somebody who writes.
        assert!(fails(&NamedFile { path: pipe, device, inode }).contains("not a file"));
    }
}
