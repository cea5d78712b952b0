// SPDX-License-Identifier: Apache-2.0
//! Files: each way to open one and to modify one is told of, and by nothing else; rules deny what is opened;
//! and who watches directories is told of nothing beside them.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod clients;

use std::ffi::CString;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use clients::deeds::{LENGTH, RINGS, executed, failed, forked, memfd};
use clients::listener::{Listener, Memory, READ, WRITE};
use clients::record::Record;
use clients::ruler::{Door, Ruler, doors_are_denied, header};
use clients::{Client, LARGE, Loaded, Programs, door_of, no_door_of};
use io_uring::{IoUring, opcode, types};
use probes::events::{EventType, WatchedFile};
use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, ResolveFlags};
use rustix::mount::{UnmountFlags, mount_bind, unmount};

const OPEN: EventType = EventType::FILE_OPEN;
const MODIFY: EventType = EventType::FILE_MODIFY;
const EXECUTE: u64 = libc::PROT_EXEC as u64;
/// `RINGFENCE_MODIFY_`
const CLOSED: u64 = 1;
const TRUNCATED: u64 = 2;

/// A file of a test, with something in it.
fn some_file(directory: &Path) -> PathBuf {
    let path = directory.join("file");
    fs::write(&path, [0; LENGTH]).unwrap();
    path
}

fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

/// A descriptor that a system call gave, or why it gave none.
fn descriptor(of: libc::c_long) -> io::Result<File> {
    if of < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was just made for us.
    Ok(unsafe { File::from_raw_fd(of as RawFd) })
}

/// A handle of a file: `struct file_handle`, with room for the longest.
#[repr(C)]
struct Handle {
    bytes: u32,
    kind: i32,
    handle: [u8; 128],
}

impl Handle {
    fn of(path: &Path) -> Self {
        let mut handle = Self { bytes: 128, kind: 0, handle: [0; 128] };
        let (path, mut mount) = (c_path(path), 0);
        // SAFETY: a string that ends, and places of ours that are as long as they say.
        let made = unsafe {
            let (handle, mount) = (&raw mut handle, &raw mut mount);
            libc::syscall(
                libc::SYS_name_to_handle_at,
                libc::AT_FDCWD,
                path.as_ptr(),
                handle,
                mount,
                0,
            )
        };
        assert_eq!(made, 0, "{}", io::Error::last_os_error());
        handle
    }

    /// Opens it, without a name.
    fn open(&self, mount: &File) -> io::Result<File> {
        let (mount, flags) = (mount.as_raw_fd(), libc::O_RDONLY);
        // SAFETY: a handle as long as it says.
        descriptor(unsafe {
            libc::syscall(libc::SYS_open_by_handle_at, mount, &raw const *self, flags)
        })
    }
}

fn with_openat2(path: &Path) -> io::Result<OwnedFd> {
    let none = (Mode::empty(), ResolveFlags::empty());
    Ok(rustix::fs::openat2(CWD, path, OFlags::RDONLY, none.0, none.1)?)
}

fn with_creat(path: &Path) -> io::Result<File> {
    let path = c_path(path);
    // SAFETY: a string that ends.
    descriptor(unsafe { libc::syscall(libc::SYS_creat, path.as_ptr(), 0o600) })
}

/// Closes a descriptor by io_uring, without a call of close.
fn close_by_io_uring(file: File) {
    let mut ring = IoUring::new(1).unwrap();
    let entry = opcode::Close::new(types::Fd(std::os::fd::IntoRawFd::into_raw_fd(file))).build();
    // SAFETY: the entry refers to no memory, and the descriptor was given up.
    unsafe { ring.submission().push(&entry).unwrap() };
    ring.submit_and_wait(1).unwrap();
    assert_eq!(ring.completion().next().unwrap().result(), 0);
}

/// What is told of one file while something is done with it.
/// A directory that is mounted a second time, as long as this lives.
struct Elsewhere(tempfile::TempDir);

impl Elsewhere {
    fn mount(directory: &Path) -> Self {
        let place = tempfile::tempdir().unwrap();
        mount_bind(directory, place.path()).unwrap();
        Self(place)
    }

    /// A file of the directory, by its name there.
    fn file(&self, file: &Path) -> PathBuf {
        self.0.path().join(file.file_name().unwrap())
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let _ = unmount(self.0.path(), UnmountFlags::DETACH);
    }
}

struct Told {
    listener: Listener,
    path: PathBuf,
}

impl Told {
    fn to(kind: EventType, part: &'static str, path: &Path) -> Option<Self> {
        Some(Self { listener: Listener::to(kind, part)?, path: path.to_owned() })
    }

    /// It is told once, with this number.
    #[track_caller]
    fn once<T>(&mut self, field: &str, number: u64, what: impl FnOnce() -> T) -> (Record, T) {
        let (record, done) = self.listener.hear_one(what);
        assert_eq!(self.listener.number(&record, field), number, "{field}");
        assert_eq!(self.listener.text(&record, "file.path"), self.path.to_str().unwrap());
        (record, done)
    }

    /// The same, by a door of this name.
    #[track_caller]
    fn door<T>(&mut self, door: &str, field: &str, number: u64, what: impl FnOnce() -> T) -> T {
        let (_, done) = self.once(field, number, what);
        self.listener.door(door);
        done
    }
}

#[test]
#[ignore = "root: loads LSM programs, which the lab's kernels take"]
fn what_is_opened_is_told_of_by_whatever_way() {
    let directory = tempfile::tempdir().unwrap();
    let path = some_file(directory.path());
    let (handle, mount) = (Handle::of(&path), File::open(directory.path()).unwrap());
    let Some(mut told) = Told::to(OPEN, "ringfence_file_open", &path) else { return };
    let (read, write) = (READ as u64, WRITE as u64);

    let file = told.door("open for reading", "access", read, || File::open(&path).unwrap());
    told.door("open for writing", "access", write, || {
        File::options().write(true).open(&path).unwrap()
    });
    let (record, _) = told.once("access", read | write, || {
        let mut options = File::options();
        options.read(true).append(true).custom_flags(libc::O_SYNC).open(&path).unwrap()
    });
    let flags = (libc::O_RDWR | libc::O_APPEND | libc::O_SYNC) as u64;
    assert_eq!(told.listener.number(&record, "flags") & flags, flags);
    assert_eq!(told.listener.number(&record, "file.size"), LENGTH as u64);
    assert_eq!(record.actor("process.pid"), u64::from(std::process::id()));
    told.door("openat2", "access", read, || with_openat2(&path).unwrap());
    told.door("creat", "access", write, || with_creat(&path).unwrap());
    for (how, open) in RINGS {
        let door = format!("open for reading, {how}");
        told.door(&door, "access", read, || assert_eq!(open(path.to_str().unwrap()), 0));
    }
    told.door("open_by_handle_at", "access", read, || handle.open(&mount).unwrap());
    let again = format!("/proc/self/fd/{}", file.as_raw_fd());
    told.door("open in /proc/PID/fd", "access", read, || File::open(&again).unwrap());

    // Who has it has it.
    told.listener.hear_nothing(|| file.try_clone().unwrap());
    no_door_of("notify", OPEN, "dup");
    told.listener.hear_nothing(|| {
        File::options().read(true).custom_flags(libc::O_PATH).open(&path).unwrap()
    });
    no_door_of("notify", OPEN, "open with O_PATH");
    told.listener.hear_nothing(|| truncate(&path, 1));
    no_door_of("notify", OPEN, "truncate");
    told.listener.hear_nothing(|| Memory::map(READ, libc::MAP_PRIVATE, file.as_raw_fd()));
    told.listener.hear_nothing(|| fs::metadata(&path).unwrap());
    told.listener.hear_nothing(|| rustix::fs::memfd_create("x", MemfdFlags::CLOEXEC).unwrap());
    told.listener.hear_nothing(|| rustix::pipe::pipe().unwrap());

    let elsewhere = Elsewhere::mount(directory.path());
    let other = elsewhere.file(&path);
    told.path.clone_from(&other);
    let door = "open through another mount of the directory";
    told.door(door, "access", read, || File::open(&other).unwrap());
    told.path = directory.path().to_owned();
    told.door("open of a directory", "access", read, || File::open(directory.path()).unwrap());
    let unnamed = || {
        let mut options = File::options();
        options.write(true).custom_flags(libc::O_TMPFILE).open(directory.path()).unwrap()
    };
    let (record, _file) = told.listener.hear_one(unnamed);
    assert_eq!(told.listener.number(&record, "file.links"), 0);
    told.listener.door("open with O_TMPFILE");
}

#[test]
#[ignore = "root: loads LSM programs, which the lab's kernels take"]
fn what_is_executed_is_opened_to_be_executed_and_so_are_its_interpreter_and_loader() {
    let programs = Programs::new();
    let program = programs.copy("true");
    let script = programs.path().join("script");
    fs::write(&script, format!("#!{}\n", program.display())).unwrap();
    fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
    let Some(mut listener) = Listener::to(OPEN, "ringfence_file_open") else { return };
    listener.client.take();
    listener.client.seen.clear();
    assert_eq!(executed(&script), 0);
    listener.client.take();
    let seen = &listener.client.seen;
    let times = |path: &Path| {
        let to_execute = |record: &&Record| {
            listener.number(record, "access") & EXECUTE != 0
                && listener.text(record, "file.path") == path.to_str().unwrap()
        };
        seen.iter().filter(to_execute).count()
    };
    assert_eq!((times(&script), times(&program)), (1, 1), "{seen:?}");
    listener.door("execve, which opens the program");
}

#[test]
#[ignore = "root: loads LSM programs, which the lab's kernels take"]
fn what_was_open_for_writing_is_told_of_as_nobody_has_it_open_any_more() {
    let directory = tempfile::tempdir().unwrap();
    let path = some_file(directory.path());
    let Some(mut told) = Told::to(MODIFY, "ringfence_file_modify", &path) else { return };
    let to_write = || File::options().read(true).write(true).open(&path).unwrap();

    let mut file = told.listener.hear_nothing(to_write);
    told.listener.hear_nothing(|| file.write_all(b"some more than there was").unwrap());
    let (record, ()) = told.once("how", CLOSED, || drop(file));
    told.listener.door("close after write");
    let before = told.listener.number(&record, "file.version");
    assert_eq!(told.listener.number(&record, "flags") & 3, libc::O_RDWR as u64);

    // It changes with what is in the file: the clock that it is told by has gone on.
    std::thread::sleep(std::time::Duration::from_millis(50));
    let file = to_write();
    let (record, ()) = told.once("how", CLOSED, || drop(file));
    assert_eq!(told.listener.number(&record, "file.version"), before, "nothing was written");
    let file = to_write();
    file.set_len(3).unwrap();
    let (record, ()) = told.once("how", CLOSED, || drop(file));
    assert_ne!(told.listener.number(&record, "file.version"), before);
    assert_eq!(told.listener.number(&record, "file.size"), 3);
    told.listener.door("close after ftruncate");

    let file = to_write();
    let other = file.try_clone().unwrap();
    told.listener.hear_nothing(|| drop(file));
    told.door("close of the last of several descriptors", "how", CLOSED, || drop(other));

    let file = to_write();
    file.set_len(LENGTH as u64).unwrap();
    let memory = Memory::map(READ | WRITE, libc::MAP_SHARED, file.as_raw_fd());
    told.listener.hear_nothing(|| drop(file));
    // SAFETY: the first byte of a mapping of ours.
    told.listener.hear_nothing(|| unsafe { memory.0.cast::<u8>().write_volatile(1) });
    told.door("munmap of what was mapped shared", "how", CLOSED, || drop(memory));

    let file = to_write();
    told.door("close by io_uring", "how", CLOSED, || close_by_io_uring(file));
    let written = || fs::write(&path, [0; LENGTH]).unwrap();
    told.door("open with O_TRUNC, write and close", "how", CLOSED, written);

    // Nothing in it changes.
    let file = File::open(&path).unwrap();
    told.listener.hear_nothing(|| drop(file));
    no_door_of("notify", MODIFY, "close of what was open for reading");
    let elsewhere = directory.path().join("elsewhere");
    told.listener.hear_nothing(|| {
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        fs::hard_link(&path, &elsewhere).unwrap();
        fs::remove_file(&elsewhere).unwrap();
        fs::rename(&path, &elsewhere).unwrap();
        fs::rename(&elsewhere, &path).unwrap();
    });
    no_door_of("notify", MODIFY, "chmod, link, unlink and rename");
    // No regular files.
    told.listener.hear_nothing(|| fs::write("/dev/null", "x").unwrap());
    told.listener.hear_nothing(|| rustix::pipe::pipe().unwrap());
    no_door_of("notify", MODIFY, "close of a device or a pipe");

    told.door("truncate", "how", TRUNCATED, || truncate(&path, 5));
    let reading = || {
        let path = c_path(&path);
        // SAFETY: a string that ends.
        descriptor(unsafe {
            libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_TRUNC) as libc::c_long
        })
    };
    let file = told.door("open for reading with O_TRUNC", "how", TRUNCATED, reading).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), 0);
    told.listener.hear_nothing(|| drop(file));

    told.path = "/memfd:x".into();
    let memory = memfd("x", b"y");
    told.door("close of a memfd", "how", CLOSED, || drop(memory));

    who_ends_closes_what_it_has(&mut told, &path);
}

fn truncate(path: &Path, length: i64) {
    let path = c_path(path);
    // SAFETY: a string that ends.
    assert_eq!(unsafe { libc::truncate(path.as_ptr(), length) }, 0);
}

/// The process that ends last has closed it, whoever has written; what it ran is not known any more.
fn who_ends_closes_what_it_has(told: &mut Told, path: &Path) {
    const INCOMPLETE: u64 = 0x10;
    let name = c_path(path);
    let (heard, (pid, failed)) = told.listener.hear(|| {
        forked(|| {
            // SAFETY: a string that ends.
            let file = unsafe { libc::open(name.as_ptr(), libc::O_WRONLY) };
            // SAFETY: one byte of ours.
            let written = unsafe { libc::write(file, b"x".as_ptr().cast(), 1) };
            i32::from(written != 1)
        })
    });
    assert_eq!((heard.len(), failed), (0, 0));
    let of: Vec<_> = told.listener.client.of(pid).into_iter().cloned().collect();
    assert_eq!(of.len(), 1, "{of:?}");
    assert_eq!(told.listener.number(&of[0], "how"), CLOSED);
    assert_eq!(told.listener.text(&of[0], "file.path"), path.to_str().unwrap());
    assert_eq!(of[0].header("flags") & INCOMPLETE, INCOMPLETE);
    door_of("notify", MODIFY, "the end of a process that has it open");
}

#[test]
#[ignore = "root: loads LSM programs, which the lab's kernels take"]
fn who_watches_directories_is_told_of_what_is_below_them_and_all_others_of_everything() {
    let (watched, beside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let below = watched.path().join("some/where");
    fs::create_dir_all(&below).unwrap();
    let (inside, outside) = (some_file(&below), some_file(beside.path()));
    let mut hooks = Loaded::of(OPEN.bit() | MODIFY.bit());
    if let Err(reason) = &hooks.coverage().iter().find(|event| event.kind == OPEN).unwrap().notify {
        eprintln!("not looked for: {}: {reason}", OPEN.name());
        return;
    }
    let can_modify = hooks.available() & MODIFY.bit() != 0;
    let kinds: &[EventType] = if can_modify { &[OPEN, MODIFY] } else { &[OPEN] };
    let mut limited = Client::admit(&mut hooks, 4, LARGE, &[]);
    let found = vec![WatchedFile::find(watched.path()).unwrap()];
    // Before it subscribes: it is told of nothing else at any time.
    hooks.watch(limited.slot, Some(found)).unwrap();
    hooks.subscribe(limited.slot, clients::set(kinds)).unwrap();
    let mut other = Client::admit(&mut hooks, 5, LARGE, kinds);
    let us = std::process::id();
    let mut heard = |limited: &mut Client| {
        for client in [&mut *limited, &mut other] {
            client.take();
            client.seen.clear();
        }
        for path in [&inside, &outside] {
            drop(File::options().write(true).open(path).unwrap());
            if can_modify {
                truncate(path, 1);
            }
        }
        [limited, &mut other].map(|client| {
            client.take();
            client.of(us).into_iter().map(Record::kind).collect::<Vec<_>>()
        })
    };
    let once: Vec<u8> = match can_modify {
        true => [OPEN, MODIFY, MODIFY].map(EventType::number).to_vec(),
        false => vec![OPEN.number()],
    };
    let twice = [once.clone(), once.clone()].concat();
    assert_eq!(heard(&mut limited), [once.clone(), twice.clone()]);
    // Nothing that is there is nothing, and not everything.
    hooks.watch(limited.slot, Some(Vec::new())).unwrap();
    assert_eq!(heard(&mut limited), [vec![], twice.clone()]);
    hooks.watch(limited.slot, None).unwrap();
    assert_eq!(heard(&mut limited), [twice.clone(), twice]);
}

#[test]
#[ignore = "root: loads LSM programs, which the lab's kernels take"]
fn opening_is_denied_by_rules() {
    let programs = Programs::new();
    let (program, path) = (programs.copy("true"), some_file(programs.path()));
    let (handle, mount) = (Handle::of(&path), File::open("/tmp").unwrap());
    let file = File::open(&path).unwrap();
    let again = format!("/proc/self/fd/{}", file.as_raw_fd());
    let condition = format!("file.path = \"{}\"", programs.path().display());
    let unnamed = || {
        let mut options = File::options();
        options.write(true).custom_flags(libc::O_TMPFILE).open(programs.path())
    };
    let [(by_ring, at_once), (by_worker, working), (by_polling, polling)] =
        RINGS.map(|(how, open)| (format!("open for reading, {how}"), open));
    let named = path.to_str().unwrap();
    let mut doors: [Door<'_>; 12] = [
        ("open with O_TMPFILE", &mut || failed(unnamed())),
        ("open for reading", &mut || failed(File::open(&path))),
        ("open for writing", &mut || failed(File::options().write(true).open(&path))),
        ("openat2", &mut || failed(with_openat2(&path))),
        ("creat", &mut || failed(with_creat(&path))),
        (&by_ring, &mut || at_once(named)),
        (&by_worker, &mut || working(named)),
        (&by_polling, &mut || polling(named)),
        ("open_by_handle_at", &mut || failed(handle.open(&mount))),
        ("open in /proc/PID/fd", &mut || failed(File::open(&again))),
        ("open of a directory", &mut || failed(File::open(programs.path()))),
        ("execve, which opens the program", &mut || executed(&program)),
    ];
    doors_are_denied(OPEN, &condition, &mut doors);
    if Ruler::of(OPEN).cannot.is_some() {
        return;
    }
    // By another name, and so not by its path; it is the same file.
    let elsewhere = Elsewhere::mount(programs.path());
    let other = elsewhere.file(&path);
    let about = fs::metadata(&path).unwrap();
    let (device, inode) = (about.dev(), about.ino());
    let device = format!("{}:{}", libc::major(device), libc::minor(device));
    let identity = format!("file.identity = {{ device = \"{device}\", inode = {inode} }}");
    let mut open = || failed(File::open(&other));
    let door = "open through another mount of the directory";
    doors_are_denied(OPEN, &identity, &mut [(door, &mut open)]);
    let mut ruler = Ruler::of(OPEN);
    let rule = format!("[[rule]]\nid = 1\nevent = \"file_open\"\naction = \"deny\"\n{condition}\n");
    ruler.install(&rule).unwrap();
    assert_eq!(failed(File::open(&path)), libc::EPERM);
    ruler.told();
    // Who has it can go on, and to name it is not to open it.
    assert!(file.metadata().is_ok() && file.as_fd().try_clone_to_owned().is_ok());
    no_door_of("rule", OPEN, "dup");
    let mut options = File::options();
    assert_eq!(failed(options.read(true).custom_flags(libc::O_PATH).open(&path)), 0);
    no_door_of("rule", OPEN, "open with O_PATH");
    truncate(&path, 1);
    no_door_of("rule", OPEN, "truncate");
    assert!(ruler.told().is_empty());
}

#[test]
#[ignore = "root: loads LSM programs, which the lab's kernels take"]
fn a_rule_denies_what_is_opened_for_some_access_and_not_for_another() {
    let programs = Programs::new();
    let (program, path) = (programs.copy("true"), some_file(programs.path()));
    let mut ruler = Ruler::of(OPEN);
    if ruler.cannot.is_some() {
        return;
    }
    let rule = |access: &str| {
        format!(
            "[[rule]]\nid = 1\nevent = \"file_open\"\naction = \"deny\"\nerror = \"EROFS\"\n\
             access = {access}\nfile.path = \"{}\"\n",
            programs.path().display()
        )
    };
    let mut denied = |access: &str| {
        ruler.install(&rule(access)).unwrap();
        [
            failed(File::open(&path)),
            failed(File::options().read(true).write(true).open(&path)),
            executed(&program),
        ]
    };
    let no = libc::EROFS;
    assert_eq!(denied("\"write\""), [0, no, 0]);
    assert_eq!(denied("\"exec\""), [0, 0, no]);
    assert_eq!(denied("[\"write\", \"exec\"]"), [0, no, no]);
    ruler.install("").unwrap();
}

#[test]
#[ignore = "root: loads LSM programs, which the lab's kernels take"]
fn a_rule_tells_of_what_is_modified_below_a_path_to_who_subscribes_to_nothing() {
    let (watched, beside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (inside, outside) = (some_file(watched.path()), some_file(beside.path()));
    let mut ruler = Ruler::of(MODIFY);
    let rule = |how: &str| {
        format!(
            "[[rule]]\nid = 9\nevent = \"file_modify\"\naction = \"notify\"\nhow = \"{how}\"\n\
             file.path = \"{}\"\n",
            watched.path().display()
        )
    };
    if let Err(refused) = ruler.install(&rule("closed")) {
        eprintln!("not looked for: {refused}");
        return;
    }
    let mut told = |how: &str| {
        ruler.install(&rule(how)).unwrap();
        ruler.told();
        for path in [&inside, &outside] {
            drop(File::options().write(true).open(path).unwrap());
            truncate(path, 7);
        }
        ruler.told().iter().map(header).collect::<Vec<_>>()
    };
    // By a rule, which did not decide anything.
    assert_eq!(told("closed"), [[2, 9, 0, 0]]);
    assert_eq!(told("truncated"), [[2, 9, 0, 0]]);
}
