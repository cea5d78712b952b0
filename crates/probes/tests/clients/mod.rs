// SPDX-License-Identifier: Apache-2.0
//! Clients for tests: hooks with rings that the test reads itself, and programs to be run.
#![allow(dead_code, reason = "each test program uses a part of it")]

pub(crate) mod births;
pub(crate) mod deeds;
pub(crate) mod listener;
pub(crate) mod record;
pub(crate) mod ring;
pub(crate) mod ruler;
pub(crate) mod senders;

use std::fs::{self, File};
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use probes::events::{CLIENTS, EventType, Hooks, Ring};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use record::Record;
use ring::Reader;

pub(crate) const EXEC: EventType = EventType::PROCESS_EXEC;
pub(crate) const FORK: EventType = EventType::PROCESS_FORK;
pub(crate) const EXIT: EventType = EventType::PROCESS_EXIT;
pub(crate) const SIGNAL: EventType = EventType::PROCESS_SIGNAL;
pub(crate) const THREAD: EventType = EventType::THREAD_CREATE;
/// Enough for what a test and its neighbours do.
pub(crate) const LARGE: u32 = 8 << 20;
/// Long enough on any machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(100);

/// The programs of processes: others would take time in each test.
pub(crate) fn process_hooks() -> Loaded {
    Loaded::of(set(&[EXEC, FORK, EXIT, SIGNAL, THREAD]))
}

/// What an earlier test loaded and has left as if nobody had used it: by the types, and whether with LSM
/// programs.
static LOADED: Mutex<Vec<(u64, bool, Hooks)>> = Mutex::new(Vec::new());

/// The programs for some types, without clients. The next test that wants the same has these: for the kernel to
/// look through a program takes an emulated processor a second.
pub(crate) struct Loaded {
    types: u64,
    lsm: bool,
    hooks: Option<Hooks>,
}

impl Loaded {
    pub(crate) fn of(types: u64) -> Self {
        Self::take(types, true)
    }

    pub(crate) fn without_lsm(types: u64) -> Self {
        Self::take(types, false)
    }

    fn take(types: u64, lsm: bool) -> Self {
        let mut all = LOADED.lock().unwrap();
        let at = all.iter().position(|loaded| (loaded.0, loaded.1) == (types, lsm));
        let hooks = at.map(|at| all.swap_remove(at).2);
        drop(all);
        // Each has a hundred descriptors.
        let limits = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: limits.maximum, ..limits }).unwrap();
        let load = if lsm { Hooks::load_for } else { Hooks::load_without_lsm };
        let hooks = hooks.unwrap_or_else(|| load(types).unwrap());
        Self { types, lsm, hooks: Some(hooks) }
    }
}

impl Deref for Loaded {
    type Target = Hooks;

    fn deref(&self) -> &Hooks {
        self.hooks.as_ref().unwrap()
    }
}

impl DerefMut for Loaded {
    fn deref_mut(&mut self) -> &mut Hooks {
        self.hooks.as_mut().unwrap()
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        let Some(mut hooks) = self.hooks.take() else { return };
        // Of a test that failed nobody knows what it left.
        if std::thread::panicking() {
            return;
        }
        for slot in 0..CLIENTS {
            // Nobody need have it.
            let _ = hooks.remove(slot);
            hooks.ask(slot, &[]).unwrap();
            hooks.remove_rules(slot).unwrap();
            hooks.allow_rules(slot, u64::MAX).unwrap();
        }
        LOADED.lock().unwrap().push((self.types, self.lsm, hooks));
    }
}

/// Says that a door of an event was opened, and what was wanted came of it and nothing else: what the lab's
/// coverage is made of.
pub(crate) fn door_of(class: &str, kind: EventType, door: &str) {
    println!("door: {class} {} {door}", kind.name());
}

/// Says that what looks like a door of an event is none, as docs/limitations.md says too: it was opened, and
/// nothing came of it.
pub(crate) fn no_door_of(class: &str, kind: EventType, door: &str) {
    door_of(&format!("no-{class}"), kind, door);
}

/// A client, and how it reads.
pub(crate) struct Client {
    pub(crate) slot: u32,
    pub(crate) ring: Ring,
    pub(crate) reader: Reader,
    pub(crate) seen: Vec<Record>,
}

impl Client {
    /// Admits a client that is told of some types.
    pub(crate) fn admit(hooks: &mut Hooks, slot: u32, bytes: u32, types: &[EventType]) -> Self {
        let ring = hooks.create_ring(bytes).unwrap();
        let reader = Reader::map(&ring, ring.bytes() as usize).unwrap();
        hooks.admit(slot, &ring).unwrap();
        hooks.subscribe(slot, set(types)).unwrap();
        Self { slot, ring, reader, seen: Vec::new() }
    }

    /// Takes what is in the ring.
    pub(crate) fn take(&mut self) {
        self.seen.extend(self.reader.take().into_iter().map(Record));
    }

    /// Reads until a record is one that is waited for.
    pub(crate) fn read_until(&mut self, done: impl Fn(&Record) -> bool) {
        let started = Instant::now();
        loop {
            let from = self.seen.len();
            self.take();
            if self.seen[from..].iter().any(&done) {
                return;
            }
            assert!(started.elapsed() < LIMIT, "it did not come; seen: {:?}", self.seen);
            ring::wait(&[&self.ring], Duration::from_millis(100));
        }
    }

    /// The records that a process caused, in their order.
    pub(crate) fn of(&self, pid: u32) -> Vec<&Record> {
        self.seen.iter().filter(|r| r.actor("process.pid") == u64::from(pid)).collect()
    }
}

/// The set of some types.
pub(crate) fn set(types: &[EventType]) -> u64 {
    EventType::set_of(types.iter().copied())
}

/// A directory with programs that nobody else runs.
pub(crate) struct Programs {
    directory: tempfile::TempDir,
}

impl Programs {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A copy of a program of the system, under a name by which it also works where all programs are
    /// one that goes by its name.
    pub(crate) fn copy(&self, name: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        if !path.exists() {
            fs::copy(Path::new("/bin").join(name), &path).unwrap();
        }
        path
    }

    /// A copy of a program that has been deleted, and the path that it had.
    pub(crate) fn deleted(&self, name: &str) -> (PathBuf, File) {
        let path = self.copy(name);
        let file = File::open(&path).unwrap();
        fs::remove_file(&path).unwrap();
        (path, file)
    }
}

/// Runs a program to its end; gives its id.
pub(crate) fn run(program: &Path, arguments: &[&str]) -> u32 {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.wait().unwrap();
    child.id()
}

/// Whether a record tells that a process ended.
pub(crate) fn ended(pid: u32) -> impl Fn(&Record) -> bool {
    move |record| record.kind() == EXIT.number() && record.actor("process.pid") == u64::from(pid)
}

/// CLOCK_BOOTTIME, in nanoseconds.
pub(crate) fn boottime() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Whether a record tells that a program was executed.
pub(crate) fn executed(record: &Record, program: &Path) -> bool {
    record.kind() == EXEC.number()
        && record.text("ringfence_process_exec.file.path") == program.to_str().unwrap()
}
