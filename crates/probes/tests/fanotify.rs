// SPDX-License-Identifier: Apache-2.0
//! Verdicts through fanotify, on directories that the tests make.
//!
//! What a test itself starts is exempt, as with a daemon. So what is asked about is done by a stranger: a
//! shell that has no parent left but the first process, and takes commands through a pipe. It is there before
//! anything is opened, because all that is started later is known for a descendant.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use probes::{Fanotify, Notice, ProcessKey, Question, Questions, Reply};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tempfile::TempDir;

const FIRST: u64 = 0b1;
const SECOND: u64 = 0b10;

struct Stranger {
    launcher: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    pid: u32,
}

impl Stranger {
    fn new() -> Self {
        let mut launcher = Command::new("setsid")
            .args(["--fork", "sh"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (input, output) = (launcher.stdin.take().unwrap(), launcher.stdout.take().unwrap());
        launcher.wait().unwrap();
        let mut stranger = Self { launcher, input, output: BufReader::new(output), pid: 0 };
        stranger.start("echo $$");
        stranger.pid = stranger.line().parse().unwrap();
        stranger
    }

    fn start(&mut self, command: &str) {
        writeln!(self.input, "{command}").unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    /// Starts something of which [`Self::outcome`] tells how it came out.
    fn run(&mut self, command: &str) {
        self.start(&format!("{{ LC_ALL=C {command}; }} 2>&1 | tail -n 1; echo"));
    }

    /// The last line that it printed: the error, if it got one.
    fn outcome(&mut self) -> String {
        let mut said = self.line();
        if !said.is_empty() {
            // The empty line that ends it.
            assert_eq!(self.line(), "");
        }
        if let Some((_, error)) = said.rsplit_once(": ") {
            said = error.to_owned();
        }
        said
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        // Its input ends with this, and so does it.
        let _ = self.launcher.wait();
    }
}

/// Holds somebody up before he says hello.
struct Barrier {
    fifo: PathBuf,
    said: PathBuf,
}

impl Barrier {
    fn new(place: &Place, name: &str) -> Self {
        let at = |end: &str| place.directory.path().join(format!("{name}.{end}"));
        let barrier = Self { fifo: at("fifo"), said: at("said") };
        assert!(Command::new("mkfifo").arg(&barrier.fifo).status().unwrap().success());
        barrier
    }

    /// A command that waits here.
    fn hello(&self, place: &Place) -> String {
        let (fifo, said) = (self.fifo.display(), self.said.display());
        format!(
            "sh -c 'read line <{fifo}; {} >{said}.part && mv {said}.part {said}'",
            place.hello()
        )
    }

    fn open(&self) {
        fs::write(&self.fifo, "go\n").unwrap();
    }

    fn said(&self) -> String {
        let limit = Instant::now() + Duration::from_secs(10);
        while !self.said.exists() {
            assert!(Instant::now() < limit, "nothing was said");
            thread::sleep(Duration::from_millis(20));
        }
        fs::read_to_string(&self.said).unwrap().trim().to_owned()
    }
}

struct Place {
    directory: TempDir,
    fanotify: Fanotify,
}

impl Place {
    /// A directory with a program that says hello, marked for one client.
    fn new(opens: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("program");
        fs::copy("/bin/echo", &program).unwrap();
        fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
        let mut fanotify = Fanotify::open().unwrap();
        fanotify.set_exec_askers(FIRST);
        fanotify.mark(directory.path()).unwrap();
        if opens {
            fanotify.watch(0, &[directory.path()]).unwrap();
        }
        Self { directory, fanotify }
    }

    fn program(&self) -> PathBuf {
        self.directory.path().join("program")
    }

    fn hello(&self) -> String {
        format!("{} hello", self.program().display())
    }

    /// The next question.
    fn question(&mut self) -> Question {
        let limit = Instant::now() + Duration::from_secs(10);
        loop {
            assert!(Instant::now() < limit, "no question");
            if let Some(question) = self.question_within(Duration::from_millis(100)) {
                return question;
            }
        }
    }

    /// Has the program run, allows it, and gives who was asked.
    fn askers_of_exec(&mut self, stranger: &mut Stranger) -> u64 {
        stranger.run(&self.hello());
        let question = self.question();
        assert_eq!(question.kind, 1);
        self.fanotify.answer(question.id, Reply::Allow).unwrap();
        assert_eq!(stranger.outcome(), "hello");
        question.askers
    }

    fn question_within(&mut self, wait: Duration) -> Option<Question> {
        let wait = Timespec::try_from(wait).unwrap();
        {
            let mut one = [PollFd::from_borrowed_fd(self.fanotify.descriptor(), PollFlags::IN)];
            poll(&mut one, Some(&wait)).unwrap();
        }
        match self.fanotify.next().unwrap()? {
            Notice::Asked(question) => Some(question),
            Notice::Withdrawn(id) => panic!("{id:?} was withdrawn"),
        }
    }
}

fn is(question: &Question, path: &Path) -> bool {
    let status = fs::metadata(path).unwrap();
    let file = question.descriptor.as_ref().unwrap().try_clone().unwrap();
    let same = fs::File::from(file).metadata().unwrap();
    (same.dev(), same.ino(), question.file.inode) == (status.dev(), status.ino(), status.ino())
}

#[test]
#[ignore = "root: fanotify, in a directory of its own"]
fn an_unknown_program_is_refused_with_eperm_and_one_that_is_allowed_runs() {
    let (mut stranger, mut place) = (Stranger::new(), Place::new(false));
    let (program, hello) = (place.program(), place.hello());
    stranger.run(&hello);
    let question = place.question();
    assert_eq!((question.kind, question.askers), (1, FIRST));
    assert!(is(&question, &program));
    assert!(question.process_descriptor.is_some());
    let parent = fs::read_to_string(format!("/proc/{}/stat", question.process.pid)).unwrap();
    assert!(parent.contains("(sh)"), "asked after its exec: {parent}");
    place.fanotify.answer(question.id, Reply::Deny(libc::EPERM as u16)).unwrap();
    assert_eq!(stranger.outcome(), "Operation not permitted");

    stranger.run(&hello);
    let question = place.question();
    place.fanotify.answer(question.id, Reply::Allow).unwrap();
    assert_eq!(stranger.outcome(), "hello");
    assert!(place.question_within(Duration::from_millis(50)).is_none());
    assert_eq!(place.fanotify.overflows(), 0);
}

#[test]
#[ignore = "root: fanotify, in a directory of its own"]
fn a_verdict_that_is_late_is_waited_for() {
    let (mut stranger, mut place) = (Stranger::new(), Place::new(false));
    stranger.run(&place.hello());
    let question = place.question();
    let start = Instant::now();
    let answering = thread::spawn(move || {
        thread::sleep(Duration::from_millis(300));
        place.fanotify.answer(question.id, Reply::Allow).unwrap();
        place
    });
    assert_eq!(stranger.outcome(), "hello");
    assert!(start.elapsed() >= Duration::from_millis(300), "{:?}", start.elapsed());
    drop(answering.join().unwrap());
}

#[test]
#[ignore = "root: fanotify, in a directory of its own"]
fn another_errno_reaches_the_caller_where_the_kernel_lets_it() {
    let (mut stranger, mut place) = (Stranger::new(), Place::new(true));
    let read = format!("cat {}", place.program().display());
    let mut outcome = |error: i32| {
        stranger.run(&read);
        let question = place.question();
        assert_eq!(question.kind, 40);
        place.fanotify.answer(question.id, Reply::Deny(error as u16)).unwrap();
        stranger.outcome()
    };
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map(|number| number.parse::<u32>().unwrap_or(0));
    let kernel = (numbers.next().unwrap(), numbers.next().unwrap());
    let seen = outcome(libc::EBUSY);
    if kernel >= (6, 14) {
        assert_eq!(seen, "Device or resource busy");
    } else {
        // What is tried may also have been ported back.
        assert!(["Operation not permitted", "Device or resource busy"].contains(&seen.as_str()));
    }
    // Never taken by the kernel.
    assert_eq!(outcome(libc::ENOENT), "Operation not permitted");
}

#[test]
#[ignore = "root: fanotify, in a directory of its own"]
fn who_answers_waits_neither_for_what_he_opens_himself_nor_for_what_he_starts() {
    let mut place = Place::new(true);
    let program = place.program();
    // By the very thread that would have to answer.
    assert!(!fs::read(&program).unwrap().is_empty());
    let said = Command::new(&program).arg("hello").output().unwrap().stdout;
    assert_eq!(said, b"hello\n");
    assert!(place.question_within(Duration::from_millis(50)).is_none());
}

#[test]
#[ignore = "root: fanotify, in a directory of its own"]
fn each_client_is_asked_about_what_it_watches() {
    let (mut stranger, mut place) = (Stranger::new(), Place::new(false));
    let at = |name: &str| place.directory.path().join(name);
    let (secret, other, below) = (at("secret"), at("other"), at("below"));
    fs::create_dir(&below).unwrap();
    for path in [&secret, &other, &below.join("deep")] {
        fs::write(path, "said\n").unwrap();
    }
    place.fanotify.watch(0, &[place.directory.path()]).unwrap();
    place.fanotify.watch(1, &[&secret]).unwrap();
    let mut askers = |place: &mut Place, path: &Path| {
        stranger.run(&format!("cat {}", path.display()));
        let question = place.question_within(Duration::from_millis(300));
        let askers = question.map(|question| {
            assert_eq!(question.kind, 40);
            assert!(is(&question, path));
            place.fanotify.answer(question.id, Reply::Allow).unwrap();
            question.askers
        });
        assert_eq!(stranger.outcome(), "said");
        askers
    };
    assert_eq!(askers(&mut place, &secret), Some(FIRST | SECOND));
    assert_eq!(askers(&mut place, &other), Some(FIRST));
    assert_eq!(askers(&mut place, &below.join("deep")), None, "directly in it only");

    let error = place.fanotify.watch(0, &[Path::new("/nowhere/at/all"), &other]).unwrap_err();
    assert!(error.to_string().contains("/nowhere/at/all"), "{error}");
    assert_eq!(askers(&mut place, &other), Some(FIRST), "the others count");
    assert_eq!(askers(&mut place, &secret), Some(SECOND));

    // The mark for what is executed there stays when that for what is opened goes.
    let none: [&Path; 0] = [];
    place.fanotify.watch(0, &none).unwrap();
    place.fanotify.watch(1, &none).unwrap();
    assert_eq!(askers(&mut place, &secret), None);
    assert_eq!(place.askers_of_exec(&mut stranger), FIRST);
}

#[test]
#[ignore = "root: fanotify, in a directory of its own"]
fn a_file_that_is_opened_in_another_mount_namespace_is_asked_about() {
    let (mut stranger, mut place) = (Stranger::new(), Place::new(false));
    let secret = place.directory.path().join("secret");
    fs::write(&secret, "said\n").unwrap();
    place.fanotify.watch(1, &[place.directory.path()]).unwrap();
    let inside = tempfile::tempdir().unwrap();
    let (from, to) = (place.directory.path().display(), inside.path().display());
    stranger.run(&format!(
        "unshare --mount sh -c 'mount --bind {from} {to} && mount -t tmpfs none {from} && cat {to}/secret'"
    ));
    let question = place.question();
    assert_eq!((question.kind, question.askers), (40, SECOND));
    place.fanotify.answer(question.id, Reply::Deny(libc::EPERM as u16)).unwrap();
    assert_eq!(stranger.outcome(), "Operation not permitted");
}

#[test]
#[ignore = "root: fanotify, in a directory of its own"]
fn an_exempt_client_is_not_asked_about_its_own_and_others_are() {
    let (mut stranger, mut place) = (Stranger::new(), Place::new(false));
    let key = ProcessKey::of(stranger.pid).unwrap();
    place.fanotify.exempt(key, u64::MAX, FIRST).unwrap();
    stranger.run(&place.hello());
    assert!(place.question_within(Duration::from_millis(300)).is_none());
    assert_eq!(stranger.outcome(), "hello");
    place.fanotify.set_exec_askers(FIRST | SECOND);
    assert_eq!(place.askers_of_exec(&mut stranger), SECOND);
    place.fanotify.no_longer_exempt(key).unwrap();
    assert_eq!(place.askers_of_exec(&mut stranger), FIRST | SECOND);
}

#[test]
#[ignore = "root: fanotify, in a directory of its own"]
fn what_a_client_has_started_is_not_asked_about_when_its_parent_is_gone() {
    let (mut stranger, mut place) = (Stranger::new(), Place::new(false));
    let key = ProcessKey::of(stranger.pid).unwrap();
    let (before, later) = (Barrier::new(&place, "before"), Barrier::new(&place, "later"));
    let (hello, before_said, later_said) =
        (place.hello(), before.hello(&place), later.hello(&place));
    // One that is there when its client comes, still with its parent.
    stranger.start(&format!("{before_said} & echo $!"));
    assert_ne!(stranger.line(), "");
    place.fanotify.exempt(key, u64::MAX, FIRST).unwrap();
    stranger.start(&format!("setsid --fork {later_said}"));
    stranger.run(&format!("setsid --fork sh -c 'sleep 0.5; {hello}'"));
    assert!(place.question_within(Duration::from_millis(1500)).is_none());
    assert_eq!(stranger.outcome(), "hello");
    before.open();
    assert!(place.question_within(Duration::from_millis(500)).is_none());
    assert_eq!(before.said(), "hello");
    // The next client in its slot is asked about it.
    place.fanotify.no_longer_exempt(key).unwrap();
    later.open();
    let question = place.question();
    assert_eq!(question.askers, FIRST);
    place.fanotify.answer(question.id, Reply::Allow).unwrap();
    assert_eq!(later.said(), "hello");
}

#[test]
#[ignore = "root: fanotify, in a directory of its own"]
fn what_waits_when_it_is_closed_is_allowed() {
    let (mut stranger, mut place) = (Stranger::new(), Place::new(false));
    stranger.run(&place.hello());
    let question = place.question();
    let Place { directory, fanotify } = place;
    drop(fanotify);
    assert_eq!(stranger.outcome(), "hello");
    drop((directory, question));
}

#[test]
#[ignore = "root: fanotify, in a directory of its own"]
fn what_is_executed_can_only_be_asked_about_in_directories() {
    let mut place = Place::new(false);
    let error = place.fanotify.mark(&place.program()).unwrap_err().to_string();
    assert!(error.contains("Not a directory"), "{error}");
}

#[test]
#[ignore = "root: fanotify, in a directory of its own"]
fn a_question_of_a_task_that_was_killed_takes_its_answer_quietly() {
    let (mut stranger, mut place) = (Stranger::new(), Place::new(false));
    stranger.run(&place.hello());
    let question = place.question();
    let pidfd = question.process_descriptor.as_ref().unwrap().as_fd();
    rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::KILL).unwrap();
    let mut said = String::new();
    // Killed, so it says nothing.
    stranger.start("exit");
    stranger.output.read_to_string(&mut said).unwrap();
    assert!(!said.contains("hello"), "{said}");
    place.fanotify.answer(question.id, Reply::Allow).unwrap();
}
