// SPDX-License-Identifier: Apache-2.0
//! Conditions of rules on the hooks: a rule with one that holds denies, and with the same one of another value
//! it does not. What the values are is learned from the records of the deeds themselves.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod clients;

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::ptr;

use clients::deeds::{
    LENGTH, LOOKERS, Program, Subject, called_in_child, changed, errno, executed, forked,
    has_itself_traced, mapped, program_in_memory,
};
use clients::listener::some_file;
use clients::record::Record;
use clients::ruler::Ruler;
use clients::senders::SENDERS;
use clients::{EXEC, Programs, SIGNAL};
use probes::events::EventType;

const READ_EXEC: i32 = libc::PROT_READ | libc::PROT_EXEC;
const READ_WRITE: i32 = libc::PROT_READ | libc::PROT_WRITE;
const ANONYMOUS: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;

/// A deed, with the errno that it gives.
type Deed<'a> = &'a mut dyn FnMut() -> i32;

/// A client whose rules are tried on one deed.
struct Trial<'a> {
    ruler: Ruler,
    kind: EventType,
    deed: Deed<'a>,
    /// What the deed gives where nothing is denied, and where it is denied with EBUSY.
    free: i32,
    denied: i32,
    tried: usize,
}

impl<'a> Trial<'a> {
    /// None where this kernel cannot deny it.
    fn of(kind: EventType, denied: i32, deed: Deed<'a>) -> Option<Self> {
        let ruler = Ruler::of(kind);
        if let Some(reason) = &ruler.cannot {
            eprintln!("not looked for: {}: {reason}", kind.name());
            return None;
        }
        let free = deed();
        assert_ne!(free, denied, "{}", kind.name());
        Some(Self { ruler, kind, deed, free, denied, tried: 0 })
    }

    fn install(&mut self, action: &str, condition: &str) {
        let kind = self.kind.name();
        let rule =
            format!("[[rule]]\nid = 1\nevent = \"{kind}\"\naction = {action}\n{condition}\n");
        self.ruler.install(&rule).unwrap();
        self.ruler.told();
    }

    /// The first record of the deed that has this program or its child for an actor.
    fn record(&mut self) -> Record {
        let program = std::env::current_exe().unwrap();
        self.install("\"notify\"", &format!("actor.path = {program:?}"));
        (self.deed)();
        self.ruler.told().remove(0)
    }

    /// The deed is denied by a rule with the first condition, and not by one with the second.
    #[track_caller]
    fn tells_apart(&mut self, holds: &str, holds_not: &str) {
        let kind = self.kind.name();
        self.install("\"deny\"\nerror = \"EBUSY\"", holds);
        assert_eq!((self.deed)(), self.denied, "{kind}: {holds}");
        let (matches, denies) = self.ruler.counts()[0];
        assert!(matches == denies && denies > 0, "{kind}: {holds}: {matches}, {denies}");
        self.install("\"deny\"\nerror = \"EBUSY\"", holds_not);
        assert_eq!((self.deed)(), self.free, "{kind}: {holds_not}");
        assert_eq!(self.ruler.counts(), [(0, 0)], "{kind}: {holds_not}");
        self.ruler.install("").unwrap();
        self.tried += 1;
    }

    /// The same for a number, which one more is not.
    #[track_caller]
    fn is_number(&mut self, field: &str, value: u64) {
        self.tells_apart(&format!("{field} = {value}"), &format!("{field} = {}", value + 1));
    }

    /// The same for the key of a process: another has its number, or started then.
    #[track_caller]
    fn is_process(&mut self, field: &str, pid: u64, start: u64) {
        let key = |pid, start| format!("{field} = {{ pid = {pid}, start = {start} }}");
        self.tells_apart(&key(pid, start), &key(pid, start + 1));
        self.tells_apart(&key(pid, start), &key(pid + 1, start));
    }

    /// The same for a file, with its version and without.
    #[track_caller]
    fn is_file(&mut self, field: &str, [device, inode, version]: [u64; 3]) {
        let any = |device, inode| format!("{field} = {{ device = {device}, inode = {inode} }}");
        let one = |version| any(device, inode).replace(" }", &format!(", version = {version} }}"));
        self.tells_apart(&any(device, inode), &any(device, inode + 1));
        self.tells_apart(&any(device, inode), &any(device + 1, inode));
        self.tells_apart(&one(version), &one(version + 1));
    }
}

/// Device, inode and version of what the actor runs.
fn executable(record: &Record) -> [u64; 3] {
    ["device", "inode", "version"].map(|part| record.actor(&format!("executable.{part}")))
}

/// The same of a file in the event's own part.
fn file(record: &Record, field: &str) -> [u64; 3] {
    ["device", "inode", "version"].map(|part| record.body(&format!("{field}.{part}")))
}

fn process(record: &Record, field: &str) -> (u64, u64) {
    (record.body(&format!("{field}.pid")), record.body(&format!("{field}.start")))
}

/// This thread with other ids than those of the process, each of another number; it stays powerful.
struct Ids;

impl Ids {
    fn take() -> Self {
        // SAFETY: of this thread alone, as no wrapper of the C library is called.
        unsafe {
            assert_eq!(libc::syscall(libc::SYS_setresgid, 11, 12, 0), 0);
            assert_eq!(libc::syscall(libc::SYS_setresuid, 13, 0, 0), 0);
        }
        Self
    }
}

impl Drop for Ids {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe {
            assert_eq!(libc::syscall(libc::SYS_setresuid, 0, 0, 0), 0);
            assert_eq!(libc::syscall(libc::SYS_setresgid, 0, 0, 0), 0);
        }
    }
}

#[test]
#[ignore = "root: loads BPF programs"]
fn each_condition_on_who_does_it_holds_for_him_and_not_for_another() {
    let programs = Programs::new();
    let (_, image) = some_file(&programs);
    let _ids = Ids::take();
    let mut map = || mapped(READ_EXEC, libc::MAP_PRIVATE, image.as_raw_fd());
    let Some(mut trial) = Trial::of(EventType::IMAGE_MAP, 16, &mut map) else { return };
    let record = trial.record();
    assert_eq!(["uid", "euid", "gid", "egid"].map(|id| record.actor(id)), [13, 0, 11, 12]);
    trial.is_process("actor.process", record.actor("process.pid"), record.actor("process.start"));
    trial.is_file("actor.executable", executable(&record));
    let numbers = [
        "uid",
        "euid",
        "gid",
        "egid",
        "cgroup",
        "user_namespace",
        "pid_namespace",
        "mount_namespace",
        "net_namespace",
    ];
    for name in numbers {
        assert!(record.actor(name) > 0 || name == "euid", "{name}");
        trial.is_number(&format!("actor.{name}"), record.actor(name));
    }
    let program = record.actor_text("executable.path");
    trial.tells_apart(&format!("actor.path = {program:?}"), "actor.path = \"/nowhere\"");
    assert_eq!(trial.tried, 2 + 3 + numbers.len() + 1);
}

#[test]
#[ignore = "root: loads BPF programs"]
fn who_descends_from_a_process_is_denied_and_the_process_itself_is_not() {
    let programs = Programs::new();
    let (_, image) = some_file(&programs);
    let map = || mapped(READ_EXEC, libc::MAP_PRIVATE, image.as_raw_fd());
    let mut by_child = || forked(map).1;
    let Some(mut trial) = Trial::of(EventType::IMAGE_MAP, 16, &mut by_child) else { return };
    let record = trial.record();
    // Who does it is the child; this process is its parent.
    let key = ["parent.pid", "parent.start"].map(|part| record.actor(part));
    assert_eq!(key[0], u64::from(std::process::id()));
    let of = |start| format!("actor.descendant_of = {{ pid = {}, start = {start} }}", key[0]);
    trial.tells_apart(&of(key[1]), &of(key[1] + 1));
    trial.install("\"deny\"\nerror = \"EBUSY\"", &of(key[1]));
    assert_eq!((trial.deed)(), 16);
    assert_eq!(map(), 0);
}

#[test]
#[ignore = "root: loads BPF programs"]
fn each_condition_on_an_image_holds_for_it_and_not_for_another() {
    let programs = Programs::new();
    let (path, image) = some_file(&programs);
    let mut map = || mapped(READ_EXEC, libc::MAP_PRIVATE, image.as_raw_fd());
    let Some(mut trial) = Trial::of(EventType::IMAGE_MAP, 16, &mut map) else { return };
    let record = trial.record();
    trial.is_file("file.identity", file(&record, "ringfence_image_map.file"));
    trial.tells_apart(&format!("file.path = {path:?}"), "file.path = \"/nowhere\"");
    trial.tells_apart("protection.all = [\"read\", \"exec\"]", "protection.all = [\"write\"]");
    trial.tells_apart("protection.any = [\"write\", \"exec\"]", "protection.any = [\"write\"]");
    // MAP_PRIVATE and MAP_SHARED.
    trial.tells_apart("flags.all = [2]", "flags.all = [3]");
    trial.tells_apart("flags.any = [3]", "flags.any = [1]");
    trial.tells_apart("record = \"mandatory\"", "record = \"kernel_actor\"");
    // All must hold, of alternatives one.
    trial.tells_apart(
        "flags.all = [2]\nprotection.all = [\"exec\"]",
        "flags.all = [2]\nprotection.all = [\"write\"]",
    );
    let paths = format!("file.path = [\"/nowhere\", {path:?}]");
    trial.tells_apart(&paths, "file.path = [\"/nowhere\", \"/else\"]");
}

#[test]
#[ignore = "root: loads BPF programs"]
fn a_change_of_memory_is_told_apart_by_what_it_was_and_what_it_becomes() {
    let mut change = || changed(READ_WRITE, READ_EXEC, ANONYMOUS, -1);
    let kind = EventType::MEMORY_PROTECT;
    let Some(mut trial) = Trial::of(kind, 16, &mut change) else { return };
    trial.tells_apart("before.all = [\"read\", \"write\"]", "before.all = [\"exec\"]");
    trial.tells_apart("before.any = [\"write\", \"exec\"]", "before.any = [\"exec\"]");
    trial.tells_apart("protection.all = [\"exec\"]", "protection.all = [\"write\"]");
}

#[test]
#[ignore = "root: loads BPF programs"]
fn each_condition_on_a_target_holds_for_it_and_not_for_another() {
    let programs = Programs::new();
    let program = programs.copy("sleep");
    let subject = Subject::start_of(&program);
    let pidfd = subject.pidfd();
    let mut seize = || subject.seize();
    let Some(mut trial) = Trial::of(EventType::PROCESS_TRACE, 16, &mut seize) else { return };
    let record = trial.record();
    let (pid, start) = process(&record, "ringfence_process_trace.target");
    assert_eq!(pid, u64::from(subject.0.id()));
    trial.is_process("target.process", pid, start);
    trial.is_file("target.executable", file(&record, "ringfence_process_trace.executable"));
    trial.tells_apart(&format!("target.path = {program:?}"), "target.path = \"/nowhere\"");
    trial.tells_apart("access = \"attach\"", "access = \"read\"");
    // These want to look only, and give EPERM for whatever the hook says.
    let (_, look) = LOOKERS[0];
    let mut compare = || errno(look(&subject, &pidfd));
    let Some(mut trial) = Trial::of(EventType::PROCESS_TRACE, 1, &mut compare) else { return };
    trial.tells_apart("access = \"read\"", "access = \"attach\"");
    let mut trace_me = has_itself_traced;
    let Some(mut trial) = Trial::of(EventType::PROCESS_TRACE, 16, &mut trace_me) else { return };
    trial.tells_apart("access = \"me\"", "access = \"attach\"");

    // And so do these.
    for (call, access, other) in [
        (libc::SYS_process_vm_readv, "read", "write"),
        (libc::SYS_process_vm_writev, "write", "read"),
    ] {
        let mut reach = || errno(subject.vm(call));
        let Some(mut trial) = Trial::of(EventType::MEMORY_ACCESS, 1, &mut reach) else { return };
        trial.tells_apart(&format!("access = {access:?}"), &format!("access = {other:?}"));
        trial.is_process("target.process", pid, start);
    }

    // Which is ignored.
    let sender = &SENDERS[0];
    let mut send = || sender.send(&subject, &pidfd, libc::SIGURG);
    let Some(mut trial) = Trial::of(SIGNAL, 16, &mut send) else { return };
    trial.is_process("target.process", pid, start);
    trial.tells_apart("signal = [\"SIGURG\", \"SIGHUP\"]", "signal = \"SIGHUP\"");
    trial.is_number("signal", 23);
}

#[test]
#[ignore = "root: loads BPF programs"]
fn what_becomes_part_of_the_kernel_is_told_apart_by_its_name_its_way_and_its_type() {
    let programs = Programs::new();
    let path = programs.path().join("of-the_tests.ko.xz");
    fs::write(&path, [0; LENGTH]).unwrap();
    let file = File::open(&path).unwrap();
    let (descriptor, bytes, none) = (file.as_raw_fd(), [0_u8; LENGTH], c"");
    let mut load = || {
        // SAFETY: bytes of ours that are no module: nothing is ever loaded.
        errno(unsafe { libc::syscall(libc::SYS_finit_module, descriptor, none.as_ptr(), 0) })
    };
    let Some(mut trial) = Trial::of(EventType::MODULE_LOAD, 16, &mut load) else { return };
    trial.tells_apart("name = \"of_the_tests\"", "name = \"of-the_tests\"");
    trial.tells_apart("name = [\"other\", \"of_the_tests\"]", "name = \"of_the_tests.ko\"");
    trial.tells_apart("from = \"file\"", "from = \"memory\"");
    trial.tells_apart(&format!("file.path = {path:?}"), "name = \"of_the_test\"");
    let mut load = || {
        // SAFETY: as above.
        errno(unsafe {
            libc::syscall(libc::SYS_init_module, bytes.as_ptr(), LENGTH, none.as_ptr())
        })
    };
    let Some(mut trial) = Trial::of(EventType::MODULE_LOAD, 16, &mut load) else { return };
    trial.tells_apart("from = \"memory\"", "from = \"file\"");
    let mut load = || {
        // SAFETY: no segments unload what is not there.
        errno(unsafe { libc::syscall(libc::SYS_kexec_load, 0, 0, ptr::null::<u8>(), 0) })
    };
    let Some(mut trial) = Trial::of(EventType::KEXEC_LOAD, 16, &mut load) else { return };
    trial.tells_apart("from = \"memory\"", "from = \"file\"");
    let program = Program::new(b"of_tests");
    let mut load = || program.load();
    let Some(mut trial) = Trial::of(EventType::BPF_LOAD, 16, &mut load) else { return };
    trial.tells_apart("program_type = \"socket_filter\"", "program_type = \"kprobe\"");
    trial.is_number("program_type", 1);
}

#[test]
#[ignore = "root: loads BPF programs"]
fn what_has_no_file_is_told_apart_by_its_flags_and_by_what_is_done_with_it() {
    let memory = program_in_memory("program");
    let program = PathBuf::from(format!("/proc/self/fd/{}", memory.as_raw_fd()));
    let mut execute = || executed(&program);
    let Some(mut trial) = Trial::of(EXEC, 16, &mut execute) else { return };
    // RINGFENCE_EXEC_FILELESS and RINGFENCE_EXEC_INTERPRETED.
    let ours = format!("actor.path = {:?}\n", std::env::current_exe().unwrap());
    trial.tells_apart(&format!("{ours}flags.all = [2]"), &format!("{ours}flags.any = [4]"));
    trial.tells_apart("file.is = \"memfd\"", "file.is = \"deleted\"\nfile.path = \"/usr\"");
    let Some(mut trial) = Trial::of(EventType::MEMORY_FILELESS, 16, &mut execute) else { return };
    // What is executed is mapped as well.
    trial.tells_apart("how = \"exec\"", "how = \"exec\"\nactor.path = \"/nowhere\"");
    let mut map = || mapped(READ_EXEC, libc::MAP_PRIVATE, memory.as_raw_fd());
    let Some(mut trial) = Trial::of(EventType::MEMORY_FILELESS, 16, &mut map) else { return };
    trial.tells_apart("how = \"map\"", "how = \"exec\"");
}

#[test]
#[ignore = "root: loads BPF programs"]
fn a_change_of_credentials_is_told_of_by_rules_for_the_way_that_it_came_by() {
    let mut ruler = Ruler::of(EventType::PROCESS_CREDENTIALS);
    for (by, times) in [("setuid", 1), ("setgid", 0), ("capset", 0)] {
        let rule = format!(
            "[[rule]]\nid = 1\nevent = \"process_credentials\"\naction = \"notify\"\n\
             by = \"{by}\"\nactor.path = {:?}\n",
            std::env::current_exe().unwrap()
        );
        match ruler.install(&rule) {
            Err(probes::RulesError::CannotTell { reason, .. }) => {
                return eprintln!("not looked for: {reason}");
            }
            installed => installed.unwrap(),
        }
        ruler.told();
        called_in_child(&[(libc::SYS_setresuid, [65534; 3])]);
        assert_eq!(ruler.told().len(), times, "{by}");
    }
}
