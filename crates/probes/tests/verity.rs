// SPDX-License-Identifier: Apache-2.0
//! Files that fs-verity protects: records have the digest that the kernel measures, and rules go by it.
//!
//! They need a file system with fs-verity, which the lab's guests have
//! (crates/lab/src/scenarios/verity.rs): RINGFENCE_VERITY names a directory on it.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod clients;

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clients::deeds::{Subject, changed, errno, executed, mapped};
use clients::listener::{EXEC as EXECUTABLE, Listener, Memory, READ};
use clients::record::Record;
use clients::ruler::{Ruler, SLOT, header};
use clients::{Client, EXEC, EXIT, LARGE, Loaded, SIGNAL, ended, run};
use probes::events::{EventType, Hooks};
use probes::{ReadyCollection, RulesError};
use rules::{Algorithm, Collection};
use rustix::mount::{MountFlags, UnmountFlags};

/// RINGFENCE_FLAG_INCOMPLETE
const INCOMPLETE: u64 = 0x10;
/// RINGFENCE_FILE_VERITY
const VERITY: u64 = 0x4;
/// RINGFENCE_RULE and RINGFENCE_OUTCOME_DENIED, as in a header.
const BY_RULE: u64 = 2;
const DENIED: u64 = 2;

/// FS_VERITY_HASH_ALG_, which are also RINGFENCE_DIGEST_.
const SHA256: u32 = 1;
const SHA512: u32 = 2;

type Digest = [u8; 32];

/// `struct fsverity_enable_arg`, include/uapi/linux/fsverity.h.
#[derive(Default)]
#[repr(C)]
struct Enable {
    version: u32,
    algorithm: u32,
    block_size: u32,
    salt_size: u32,
    salt: u64,
    signature_size: u32,
    reserved: u32,
    signature: u64,
    more: [u64; 11],
}

/// `struct fsverity_digest`, with place for the longest digest.
#[repr(C)]
struct Measured {
    algorithm: u16,
    size: u16,
    digest: [u8; 64],
}

/// FS_IOC_ENABLE_VERITY and FS_IOC_MEASURE_VERITY.
const ENABLE: libc::Ioctl = 0x4080_6685;
const MEASURE: libc::Ioctl = 0xc004_6686;

/// A directory for protected files, which goes with what is in it.
struct Place(tempfile::TempDir);

impl Place {
    /// None where no file system has fs-verity, which is said.
    fn new() -> Option<Self> {
        let Some(place) = std::env::var_os("RINGFENCE_VERITY") else {
            eprintln!(
                "not looked for: RINGFENCE_VERITY names no directory on a file system with it"
            );
            return None;
        };
        Some(Self(tempfile::tempdir_in(place).unwrap()))
    }

    /// A copy of a program of the system with something behind it that is of no meaning to it, so that
    /// each has a digest of its own. It keeps its name, by which programs go that are one file.
    fn program(&self, name: &str, behind: &str) -> PathBuf {
        let directory = self.0.path().join(behind);
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join(name);
        fs::copy(Path::new("/bin").join(name), &path).unwrap();
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(behind.as_bytes()).unwrap();
        path
    }

    /// The same, protected.
    fn protected(&self, name: &str, behind: &str) -> (PathBuf, Digest) {
        let path = self.program(name, behind);
        let digest = protect(&path, SHA256).unwrap();
        (path, digest)
    }
}

/// Has a file protected, and gives what the kernel measures of it, or the first half.
fn protect(path: &Path, algorithm: u32) -> io::Result<Digest> {
    let file = File::open(path)?;
    let enable = Enable { version: 1, algorithm, block_size: 4096, ..Enable::default() };
    let mut measured = Measured { algorithm: 0, size: 64, digest: [0; 64] };
    // SAFETY: each call is given the structure that it is for, and reads or writes no more.
    let failed = unsafe {
        libc::ioctl(file.as_raw_fd(), ENABLE, &raw const enable) != 0
            || libc::ioctl(file.as_raw_fd(), MEASURE, &raw mut measured) != 0
    };
    if failed {
        return Err(io::Error::last_os_error());
    }
    assert_eq!(u32::from(measured.algorithm), algorithm);
    assert_eq!(u32::from(measured.size), 32 * algorithm);
    Ok(measured.digest[..32].try_into().unwrap())
}

fn collection(digests: &[Digest]) -> ReadyCollection {
    let collection = Collection::new(Algorithm::Sha256, digests.to_vec()).unwrap();
    ReadyCollection::new(&collection).unwrap()
}

/// Of a file in the event's own part: the algorithm and the digest.
fn digest_of(record: &Record, part: &str) -> (u64, Digest) {
    let digest = record.bytes(&format!("{part}.digest"), 32).try_into().unwrap();
    (record.body(&format!("{part}.digest_algorithm")), digest)
}

/// That of what the actor runs.
fn digest_of_actor(record: &Record) -> (u64, Digest) {
    let digest = record.actor_bytes("executable.digest", 32).try_into().unwrap();
    (record.actor("executable.digest_algorithm"), digest)
}

/// What is told of one execution.
fn told_of_exec(hooks: &mut Hooks, program: &Path) -> Record {
    let mut client = Client::admit(hooks, SLOT, LARGE, &[EXEC, EXIT]);
    let pid = run(program, &[]);
    client.read_until(ended(pid));
    let executed = client.of(pid).into_iter().find(|record| record.kind() == EXEC.number());
    let record = executed.unwrap().clone();
    hooks.remove(SLOT).unwrap();
    record
}

#[test]
#[ignore = "root: loads BPF programs"]
fn an_exec_is_told_of_with_the_digest_that_the_kernel_measures() {
    let Some(place) = Place::new() else { return };
    let (program, digest) = place.protected("true", "one");
    let plain = place.program("true", "plain");
    let mut hooks = Loaded::of(EXEC.bit() | EXIT.bit());
    assert_eq!(hooks.digests(), Ok(()));
    let record = told_of_exec(&mut hooks, &program);
    assert_eq!(digest_of(&record, "ringfence_process_exec.file"), (1, digest));
    assert_eq!(digest_of_actor(&record), (1, digest));
    assert_eq!(record.body("ringfence_process_exec.file.flags") & VERITY, VERITY);
    assert_eq!(record.header("flags") & INCOMPLETE, 0);

    let record = told_of_exec(&mut hooks, &plain);
    assert_eq!(digest_of(&record, "ringfence_process_exec.file"), (0, [0; 32]));
    assert_eq!(record.body("ringfence_process_exec.file.flags") & VERITY, 0);

    let long = place.program("true", "long");
    match protect(&long, SHA512) {
        Ok(digest) => {
            let record = told_of_exec(&mut hooks, &long);
            assert_eq!(digest_of(&record, "ringfence_process_exec.file"), (2, digest));
        }
        Err(error) => eprintln!("not looked for: a digest by SHA-512: {error}"),
    }
}

/// So many that the kernel's table grows, and shrinks as half of them go.
#[test]
#[ignore = "root: loads BPF programs"]
fn each_of_many_protected_files_is_mapped_with_its_own_digest() {
    const FILES: usize = 300;
    let Some(place) = Place::new() else { return };
    let files: Vec<(PathBuf, Digest)> = (0..FILES)
        .map(|number| {
            let path = place.0.path().join(number.to_string());
            fs::write(&path, [number.to_string().as_bytes(), &[0; 5000]].concat()).unwrap();
            let digest = protect(&path, SHA256).unwrap();
            (path, digest)
        })
        .collect();
    let part = "ringfence_image_map";
    let calls = Listener::to_calls(EventType::IMAGE_MAP, part);
    let mut listeners: Vec<Listener> =
        Listener::to(EventType::IMAGE_MAP, part).into_iter().chain([calls]).collect();
    let mut map = |(path, digest): &(PathBuf, Digest)| {
        let file = File::open(path).unwrap();
        for listener in &mut listeners {
            let (record, memory) = listener
                .hear_one(|| Memory::map(READ | EXECUTABLE, libc::MAP_PRIVATE, file.as_raw_fd()));
            assert_eq!(digest_of(&record, "ringfence_image_map.file"), (1, *digest), "{path:?}");
            assert_eq!(record.header("flags") & INCOMPLETE, 0, "{path:?}");
            drop(memory);
        }
    };
    files.iter().for_each(&mut map);
    let (gone, left) = files.split_at(FILES - 10);
    gone.iter().for_each(|(path, _)| fs::remove_file(path).unwrap());
    left.iter().for_each(&mut map);
}

/// A client with a rule that tells and one that denies with EACCES, and a collection `bad` for them.
fn denying(kind: EventType, condition: &str, digests: &[Digest]) -> Option<Ruler> {
    let mut ruler = Ruler::of(kind);
    if let Some(reason) = &ruler.cannot {
        eprintln!("not looked for: {}: {reason}", kind.name());
        return None;
    }
    ruler.hooks.set_collection(SLOT, "bad", collection(digests)).unwrap();
    let name = kind.name();
    let set = format!(
        "[[rule]]\nid = 2\nevent = \"{name}\"\naction = \"notify\"\n{condition}\n\
         [[rule]]\nid = 3\nevent = \"{name}\"\naction = \"deny\"\nerror = \"EACCES\"\n\
         {condition}\n"
    );
    ruler.install(&set).unwrap();
    Some(ruler)
}

#[test]
#[ignore = "root: loads BPF programs"]
fn an_exec_is_denied_by_the_digest_of_the_program_and_no_other_is() {
    let Some(place) = Place::new() else { return };
    let [(bad, digest), (other, another)] = ["bad", "other"].map(|of| place.protected("true", of));
    let copy = place.0.path().join("true");
    fs::copy(&bad, &copy).unwrap();
    let Some(mut ruler) = denying(EXEC, "file.digest_in = \"bad\"", &[digest]) else { return };
    let executed = || [&bad, &other, &copy].map(|program| executed(program));
    let names = |ruler: &mut Ruler, digests: &[Digest]| {
        ruler.hooks.set_collection(SLOT, "bad", collection(digests)).unwrap();
    };
    ruler.told();
    assert_eq!(executed(), [libc::EACCES, 0, 0], "the same contents without fs-verity have none");
    let told = ruler.told();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(header(&told[0]), [BY_RULE, 3, DENIED, libc::EACCES as u64]);
    assert_eq!(digest_of(&told[0], "ringfence_process_exec.file"), (1, digest));
    // The rule stays, and what is in the collection decides.
    names(&mut ruler, &[another]);
    assert_eq!(executed(), [0, libc::EACCES, 0]);
    names(&mut ruler, &[another, digest]);
    assert_eq!(executed(), [libc::EACCES, libc::EACCES, 0]);
    names(&mut ruler, &[]);
    assert_eq!(executed(), [0, 0, 0]);
    assert_eq!(ruler.counts(), [(4, 0), (4, 4)]);
}

#[test]
#[ignore = "root: loads BPF programs"]
fn a_file_is_kept_from_becoming_an_image_by_its_digest() {
    let Some(place) = Place::new() else { return };
    let [(bad, digest), (other, _)] = ["bad", "other"].map(|of| place.protected("true", of));
    let Some(_ruler) = denying(EventType::IMAGE_MAP, "file.digest_in = \"bad\"", &[digest]) else {
        return;
    };
    let done = |path: &Path| {
        let file = File::open(path).unwrap();
        let (file, private) = (file.as_raw_fd(), libc::MAP_PRIVATE);
        let mapped = mapped(READ | EXECUTABLE, private, file);
        [mapped, changed(READ, READ | EXECUTABLE, private, file)]
    };
    assert_eq!(done(&bad), [libc::EACCES; 2]);
    assert_eq!(done(&other), [0; 2]);
}

#[test]
#[ignore = "root: loads BPF programs"]
fn rules_go_by_the_digest_of_what_the_actor_and_the_target_run() {
    let Some(place) = Place::new() else { return };
    let [(bad, digest), (other, _)] = ["bad", "other"].map(|of| place.protected("env", of));
    if let Some(ruler) = denying(EXEC, "actor.digest_in = \"bad\"", &[digest]) {
        let target = place.program("true", "target");
        let status = |program: &Path| {
            let mut command = Command::new(program);
            command.arg(&target).stderr(Stdio::null()).status().unwrap().code()
        };
        // env(1): found and not executed.
        assert_eq!([&bad, &other].map(|program| status(program)), [Some(126), Some(0)]);
        drop(ruler);
    }
    let [(bad, digest), (other, _)] = ["bad", "other"].map(|of| place.protected("sleep", of));
    // Not all signals: it is ended by one.
    let condition = "target.digest_in = \"bad\"\nsignal = \"SIGURG\"";
    let Some(_ruler) = denying(SIGNAL, condition, &[digest]) else { return };
    let sent = |program: &Path| {
        let subject = Subject::start_of(program);
        // SAFETY: a signal to a child of ours, which ignores it.
        errno(i64::from(unsafe { libc::kill(subject.pid(), libc::SIGURG) }))
    };
    assert_eq!(sent(&other), 0);
    assert_eq!(sent(&bad), libc::EACCES);
}

/// A directory seen through overlayfs, until this is dropped.
struct Overlay(tempfile::TempDir);

impl Overlay {
    fn of(directory: &Path) -> Self {
        let mount = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        let below = format!("lowerdir={}:{}", directory.display(), other.path().display());
        let below = CString::new(below).unwrap();
        let flags = MountFlags::RDONLY;
        rustix::mount::mount("overlay", mount.path(), "overlay", flags, below.as_c_str()).unwrap();
        Self(mount)
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        rustix::mount::unmount(self.0.path(), UnmountFlags::DETACH).unwrap();
    }
}

#[test]
#[ignore = "root: loads BPF programs"]
fn what_is_reached_through_overlayfs_has_no_digest_there() {
    let Some(place) = Place::new() else { return };
    let (program, _) = place.protected("true", "one");
    let overlay = Overlay::of(program.parent().unwrap());
    let mut hooks = Loaded::of(EXEC.bit() | EXIT.bit());
    let record = told_of_exec(&mut hooks, &overlay.0.path().join("true"));
    assert_eq!(digest_of(&record, "ringfence_process_exec.file"), (0, [0; 32]));
    assert_eq!(record.body("ringfence_process_exec.file.flags") & VERITY, 0);
    assert_eq!(record.header("flags") & INCOMPLETE, 0);
}

/// The lab hides addresses before it runs this one, where the kernel keeps digests in a table.
#[test]
#[ignore = "root: loads BPF programs"]
fn where_digests_cannot_be_found_records_say_so_and_rules_by_them_are_refused() {
    if std::env::var_os("RINGFENCE_HIDDEN").is_none() {
        return;
    }
    let Some(place) = Place::new() else { return };
    let (program, digest) = place.protected("true", "one");
    let mut hooks = Loaded::of(EXEC.bit() | EXIT.bit());
    let reason = hooks.digests().unwrap_err().to_owned();
    assert!(reason.contains("kptr_restrict"), "{reason}");
    let record = told_of_exec(&mut hooks, &program);
    assert_eq!(record.body("ringfence_process_exec.file.flags") & VERITY, VERITY);
    assert_eq!(record.header("flags") & INCOMPLETE, INCOMPLETE);
    assert_eq!(digest_of(&record, "ringfence_process_exec.file"), (0, [0; 32]));
    drop(hooks);

    let mut ruler = Ruler::of(EXEC);
    ruler.hooks.set_collection(SLOT, "bad", collection(&[digest])).unwrap();
    let rule = "[[rule]]\nid = 9\nevent = \"process_exec\"\naction = \"notify\"\n";
    let refused = ruler.install(&format!("{rule}actor.digest_in = \"bad\"\n")).unwrap_err();
    assert!(matches!(refused, RulesError::NoDigest { rule: 9, .. }), "{refused}");
    assert!(refused.to_string().contains(&reason), "{refused}");
    ruler.install(rule).unwrap();
}
