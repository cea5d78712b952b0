// SPDX-License-Identifier: Apache-2.0
//! Rules on the hooks: what a client's rules deny fails in the caller with their errno, what they
//! tell of reaches a client that subscribes to nothing, and both are counted.
//!
//! Where the kernel takes no LSM programs nothing can be denied; what must hold then is that such
//! rules are refused with the reason.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod clients;

use std::fs::{self, File, Permissions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::ptr;
use std::time::{Duration, Instant};

use clients::deeds::{
    Interpreted, LENGTH, LOOKERS, Program, RINGS, Subject, attached, changed, changed_by, errno,
    execute_at, executed, executed_by_descriptor, failed, has_itself_traced, mapped, memfd,
    program_in_memory, remapped, unnamed_program, with_read_implies_exec,
};
use clients::listener::Memory;
use clients::ruler::{Door, Ruler, SLOT, doors_are_denied, doors_are_denied_with, header};
use clients::senders::{Group, SENDERS, as_if_by_a_timer};
use clients::{Client, EXEC, EXIT, LARGE, Loaded, Programs, SIGNAL, ended, no_door_of, run};
use probes::RulesError;
use probes::events::{AskTerms, EventType, Hooks};
use rules::RuleSet;

const ASKED: u64 = 4;
const DENIED: u64 = 2;

const READ_EXEC: i32 = libc::PROT_READ | libc::PROT_EXEC;
const READ_WRITE: i32 = libc::PROT_READ | libc::PROT_WRITE;
const PRIVATE: i32 = libc::MAP_PRIVATE;
const ANONYMOUS: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;

fn own_path() -> PathBuf {
    std::env::current_exe().unwrap()
}

/// A condition for what this program does.
fn by_ourselves() -> String {
    format!("actor.path = {:?}", own_path())
}

/// One that nobody has open for writing: else no module can be loaded from it.
fn some_file(programs: &Programs) -> (PathBuf, File) {
    let path = programs.path().join("file");
    fs::write(&path, [0; LENGTH]).unwrap();
    let file = File::open(&path).unwrap();
    (path, file)
}

#[test]
#[ignore = "root: loads BPF programs"]
fn an_exec_is_denied_with_the_errno_of_the_rule() {
    let programs = Programs::new();
    let program = programs.copy("true");
    let condition = format!("file.path = {program:?}");
    doors_are_denied(EXEC, &condition, &mut [("execve", &mut || executed(&program))]);
    let script = programs.path().join("script");
    fs::write(&script, format!("#!{}\n", program.display())).unwrap();
    fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
    let condition = format!("file.path = {script:?}");
    let mut run = || executed(&script);
    doors_are_denied(EXEC, &condition, &mut [("execve of a script, by its name", &mut run)]);
    let condition = format!("file.path = {program:?}");
    let mut run = || executed(&script);
    doors_are_denied(EXEC, &condition, &mut [("execve of a script, by its interpreter", &mut run)]);

    if let Some(kind) = Interpreted::by(&program) {
        let interpreted = kind.program(programs.path());
        let mut run = || executed(&interpreted);
        for (of, how) in [(&interpreted, "by its name"), (&program, "by its interpreter")] {
            let door = format!("execve of what binfmt_misc has interpreted, {how}");
            let condition = format!("file.path = {of:?}");
            doors_are_denied(EXEC, &condition, &mut [(&door, &mut run)]);
        }
    }
    let by_hand = || {
        let child = Command::new(&program).arg(&script).spawn();
        failed(child.map(|mut child| child.wait()))
    };
    let condition = format!("file.path = {program:?}");
    let mut run = by_hand;
    let door = "an interpreter by hand, with a script";
    doors_are_denied(EXEC, &condition, &mut [(door, &mut run)]);

    let nameless = program_in_memory("denied");
    // It has no path that a rule could name.
    let condition = by_ourselves() + "\nfile.is = \"memfd\"";
    let by_name = PathBuf::from(format!("/proc/self/fd/{}", nameless.as_raw_fd()));
    let mut execute = || executed(&by_name);
    doors_are_denied(EXEC, &condition, &mut [("execve of a memfd", &mut execute)]);
    let mut execute = || executed_by_descriptor(nameless.as_raw_fd());
    doors_are_denied(EXEC, &condition, &mut [("execveat of a memfd", &mut execute)]);
    let (gone, deleted) = programs.deleted("false");
    let condition = format!("file.path = {gone:?}");
    let by_name = PathBuf::from(format!("/proc/self/fd/{}", deleted.as_raw_fd()));
    let mut execute = || executed(&by_name);
    doors_are_denied(EXEC, &condition, &mut [("execve of a deleted file", &mut execute)]);
    let mut execute = || executed_by_descriptor(deleted.as_raw_fd());
    doors_are_denied(EXEC, &condition, &mut [("execveat of a deleted file", &mut execute)]);

    let (directory, file) = (File::open(programs.path()).unwrap(), File::open(&program).unwrap());
    let condition = format!("file.path = {program:?}");
    let mut doors: [Door<'_>; 2] = [
        ("execveat of a name", &mut || execute_at(&directory, c"true").1),
        ("execveat of a descriptor", &mut || executed_by_descriptor(file.as_raw_fd())),
    ];
    doors_are_denied(EXEC, &condition, &mut doors);
}

#[test]
#[ignore = "root: loads BPF programs"]
fn a_signal_is_denied_with_the_errno_of_the_rule() {
    let programs = Programs::new();
    let program = programs.copy("sleep");
    let subject = Subject::start_of(&program);
    let pidfd = subject.pidfd();
    // Which is ignored.
    let condition = format!("target.path = {program:?}\nsignal = \"SIGURG\"");
    for sender in &SENDERS {
        let mut send = || sender.send(&subject, &pidfd, libc::SIGURG);
        doors_are_denied(SIGNAL, &condition, &mut [(sender.door, &mut send)]);
    }
}

#[test]
#[ignore = "root: loads BPF programs"]
fn a_signal_that_no_hook_is_asked_about_is_told_of_by_rules_and_not_denied() {
    let programs = Programs::new();
    let program = programs.copy("sleep");
    let Some(group) = Group::make() else { return };
    let mut ruler = Ruler::of(SIGNAL);
    let rule = |action: &str| {
        format!(
            "[[rule]]\nid = 4\nevent = \"process_signal\"\naction = \"{action}\"\n\
             target.path = {program:?}\nsignal = \"SIGKILL\"\n"
        )
    };
    ruler.install(&rule("notify")).unwrap();
    let mut subject = Subject::start_of(&program);
    ruler.told();
    group.kill(&subject);
    assert!(!subject.0.wait().unwrap().success());
    let told: Vec<_> = ruler.told().iter().map(header).collect();
    assert_eq!(told, [[2, 4, 0, 0]]);
    // What says of itself that a timer sent it was asked about, and is told of once.
    let rule = rule("notify").replace("SIGKILL", "SIGURG");
    ruler.install(&rule).unwrap();
    let subject = Subject::start_of(&program);
    ruler.told();
    assert_eq!(as_if_by_a_timer(&subject, libc::SIGURG), 0);
    assert_eq!(ruler.told().len(), 1);
    drop(subject);
    no_door_of("rule", SIGNAL, "cgroup.kill");
}

#[test]
#[ignore = "root: loads BPF programs"]
fn who_wants_hold_of_a_process_or_its_memory_is_denied_with_the_errno_of_the_rule() {
    let programs = Programs::new();
    let program = programs.copy("sleep");
    let subject = Subject::start_of(&program);
    let condition = format!("target.path = {program:?}");
    // mm_access, kernel/fork.c
    let own = Some(libc::EACCES);
    let mem = subject.proc("mem");
    for kind in [EventType::PROCESS_TRACE, EventType::MEMORY_ACCESS] {
        let mut doors: [Door<'_>; 3] = [
            ("PTRACE_SEIZE", &mut || subject.seize()),
            ("PTRACE_SEIZE by int 0x80", &mut || subject.seize_by_int_80()),
            ("PTRACE_ATTACH", &mut || subject.attach()),
        ];
        doors_are_denied(kind, &condition, &mut doors);
        for (how, open) in RINGS {
            let (door, mut open) = (format!("/proc/PID/mem {how}"), || open(&mem));
            doors_are_denied_with(kind, &condition, own, &mut [(&door, &mut open)]);
        }
    }
    let mut doors: [Door<'_>; 1] =
        [("/proc/PID/exe and its like", &mut || failed(fs::read_link(subject.proc("exe"))))];
    doors_are_denied_with(EventType::PROCESS_TRACE, &condition, own, &mut doors);
    let mut doors: [Door<'_>; 1] = [("PTRACE_TRACEME", &mut has_itself_traced)];
    doors_are_denied(EventType::PROCESS_TRACE, &by_ourselves(), &mut doors);
    let mut doors: [Door<'_>; 2] = [
        ("process_vm_readv", &mut || errno(subject.vm(libc::SYS_process_vm_readv))),
        ("process_vm_writev", &mut || errno(subject.vm(libc::SYS_process_vm_writev))),
    ];
    // process_vm_rw_core, mm/process_vm_access.c
    let own = Some(libc::EPERM);
    for kind in [EventType::MEMORY_ACCESS, EventType::PROCESS_TRACE] {
        doors_are_denied_with(kind, &condition, own, &mut doors);
    }
    let mut open = || failed(File::open(&mem));
    let own = Some(libc::EACCES);
    let mut doors: [Door<'_>; 1] = [("/proc/PID/mem", &mut open)];
    for kind in [EventType::MEMORY_ACCESS, EventType::PROCESS_TRACE] {
        doors_are_denied_with(kind, &condition, own, &mut doors);
    }
    let pidfd = subject.pidfd();
    let mut take = || errno(subject.get_fd(&pidfd));
    // __pidfd_fget, kernel/pid.c
    let own = Some(libc::EPERM);
    let mut doors: [Door<'_>; 1] = [("pidfd_getfd", &mut take)];
    doors_are_denied_with(EventType::PROCESS_TRACE, &condition, own, &mut doors);
    for (door, look) in LOOKERS {
        let mut look = || errno(look(&subject, &pidfd));
        let mut doors: [Door<'_>; 1] = [(door, &mut look)];
        doors_are_denied_with(EventType::PROCESS_TRACE, &condition, own, &mut doors);
    }
}

/// The series of the kernel that runs.
fn series() -> (u32, u32) {
    let name = rustix::system::uname();
    let release = name.release().to_str().unwrap();
    let mut numbers = release.split(['.', '-', '+']).map(|number| number.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

#[test]
#[ignore = "root: loads BPF programs"]
fn what_shows_memory_is_denied_until_6_15_and_then_open_to_who_may_watch_performance() {
    let programs = Programs::new();
    let program = programs.copy("sleep");
    let subject = Subject::start_of(&program);
    let pidfd = subject.pidfd();
    let condition = format!("target.path = {program:?}");
    let mut advise = || errno(subject.advise(&pidfd));
    let mut advise_too = || errno(subject.advise(&pidfd));
    let mut read = || failed(fs::read(subject.proc("environ")));
    let all: [(EventType, &str, &mut dyn FnMut() -> i32); 3] = [
        (EventType::PROCESS_TRACE, "process_madvise", &mut advise_too),
        (EventType::MEMORY_ACCESS, "process_madvise", &mut advise),
        (EventType::PROCESS_TRACE, "/proc/PID/environ and its like", &mut read),
    ];
    for (kind, door, open) in all {
        // may_access_mm, kernel/fork.c: with CAP_PERFMON it does not matter what hooks say.
        if series() < (6, 15) {
            doors_are_denied_with(kind, &condition, Some(libc::EACCES), &mut [(door, open)]);
            continue;
        }
        let mut ruler = Ruler::of(kind);
        if let Some(reason) = &ruler.cannot {
            eprintln!("not looked for: {}: {reason}", kind.name());
            continue;
        }
        let before = open();
        let rules = [(1, "notify"), (2, "deny")].map(|(id, action)| {
            let name = kind.name();
            format!("[[rule]]\nid = {id}\nevent = {name:?}\naction = {action:?}\n{condition}\n")
        });
        ruler.install(&rules.concat()).unwrap();
        ruler.told();
        assert_eq!(open(), before, "{door}");
        let told = ruler.told();
        assert!(told.iter().all(|record| header(record)[2] == DENIED), "{told:?}");
        assert!(!told.is_empty(), "{door}");
        no_door_of("rule", kind, door);
    }
}

#[test]
#[ignore = "root: loads BPF programs"]
fn a_file_that_is_to_become_an_image_is_denied_with_the_errno_of_the_rule() {
    let programs = Programs::new();
    let (path, file) = some_file(&programs);
    let file = file.as_raw_fd();
    let condition = format!("file.path = {path:?}\n{}", by_ourselves());
    doors_are_denied(
        EventType::IMAGE_MAP,
        &condition,
        &mut [
            ("mmap", &mut || mapped(READ_EXEC, PRIVATE, file)),
            ("mprotect", &mut || changed(READ_WRITE, READ_EXEC, PRIVATE, file)),
            ("pkey_mprotect", &mut || {
                changed_by(libc::SYS_pkey_mprotect, READ_WRITE, READ_EXEC, PRIVATE, file)
            }),
            ("mmap with READ_IMPLIES_EXEC", &mut || {
                with_read_implies_exec(|| mapped(libc::PROT_READ, PRIVATE, file))
            }),
        ],
    );
    // Mapped before there is a rule, and of a file that is open for writing: else the kernel does not take it
    // as shared.
    let writable = File::options().read(true).write(true).open(&path).unwrap();
    let image = Memory::map(READ_EXEC, libc::MAP_SHARED, writable.as_raw_fd());
    let mut remap = || remapped(image.0);
    doors_are_denied(EventType::IMAGE_MAP, &condition, &mut [("remap_file_pages", &mut remap)]);
    fs::remove_file(&path).unwrap();
    let mut map = || mapped(READ_EXEC, PRIVATE, file);
    let mut doors: [Door<'_>; 1] = [("mmap of a deleted file", &mut map)];
    doors_are_denied(EventType::IMAGE_MAP, &condition, &mut doors);
    let nameless = memfd("denied", &[0; LENGTH]);
    let condition = by_ourselves() + "\nfile.is = \"memfd\"";
    let mut map = || mapped(READ_EXEC, PRIVATE, nameless.as_raw_fd());
    doors_are_denied(EventType::IMAGE_MAP, &condition, &mut [("mmap of a memfd", &mut map)]);
    let condition = by_ourselves() + "\nfile.is = \"in_memory\"\nfile.path_unknown = true";
    doors_are_denied(EventType::IMAGE_MAP, &condition, &mut [("shmat", &mut attached)]);
}

#[test]
#[ignore = "root: loads BPF programs"]
fn memory_that_is_to_be_executable_is_denied_with_the_errno_of_the_rule() {
    let condition = by_ourselves() + "\nprotection.all = [\"exec\"]";
    doors_are_denied(
        EventType::MEMORY_MAP,
        &condition,
        &mut [
            ("mmap of anonymous memory", &mut || mapped(READ_EXEC, ANONYMOUS, -1)),
            ("mmap with READ_IMPLIES_EXEC", &mut || {
                with_read_implies_exec(|| mapped(libc::PROT_READ, ANONYMOUS, -1))
            }),
            ("shmat, writable and executable", &mut attached),
        ],
    );
    let programs = Programs::new();
    let (path, file) = some_file(&programs);
    let of_file = format!("file.path = {path:?}\n{condition}");
    let all = READ_WRITE | READ_EXEC;
    let mut map = || mapped(all, PRIVATE, file.as_raw_fd());
    let mut doors: [Door<'_>; 1] = [("mmap of a file writable and executable", &mut map)];
    doors_are_denied(EventType::MEMORY_MAP, &of_file, &mut doors);
    let condition = condition + "\nbefore.any = [\"write\"]";
    doors_are_denied(
        EventType::MEMORY_PROTECT,
        &condition,
        &mut [
            ("mprotect", &mut || changed(READ_WRITE, READ_EXEC, ANONYMOUS, -1)),
            ("pkey_mprotect", &mut || {
                changed_by(libc::SYS_pkey_mprotect, READ_WRITE, READ_EXEC, ANONYMOUS, -1)
            }),
            ("mprotect with READ_IMPLIES_EXEC", &mut || {
                with_read_implies_exec(|| changed(libc::PROT_WRITE, libc::PROT_READ, ANONYMOUS, -1))
            }),
        ],
    );
}

#[test]
#[ignore = "root: loads BPF programs"]
fn a_file_without_a_name_is_denied_with_the_errno_of_the_rule() {
    let programs = Programs::new();
    let (path, file) = some_file(&programs);
    fs::remove_file(path).unwrap();
    let file = file.as_raw_fd();
    let memory = program_in_memory("program");
    let program = PathBuf::from(format!("/proc/self/fd/{}", memory.as_raw_fd()));
    let (_, deleted) = programs.deleted("true");
    let (unnamed, image) = (unnamed_program(programs.path()), memfd("image", &[0; LENGTH]));
    doors_are_denied(
        EventType::MEMORY_FILELESS,
        &by_ourselves(),
        &mut [
            ("mmap of a deleted file", &mut || mapped(READ_EXEC, PRIVATE, file)),
            ("mprotect of a deleted file", &mut || changed(READ_WRITE, READ_EXEC, PRIVATE, file)),
            ("exec of a memfd", &mut || executed(&program)),
            ("execveat of a memfd", &mut || executed_by_descriptor(memory.as_raw_fd())),
            ("execveat of a deleted file", &mut || executed_by_descriptor(deleted.as_raw_fd())),
            ("execveat of a file that never had a name", &mut || {
                executed_by_descriptor(unnamed.as_raw_fd())
            }),
            ("mmap of a memfd", &mut || mapped(READ_EXEC, PRIVATE, image.as_raw_fd())),
            ("shmat", &mut attached),
        ],
    );
}

#[test]
#[ignore = "root: loads BPF programs"]
fn a_bpf_program_is_denied_with_the_errno_of_the_rule() {
    let program = Program::new(b"of_tests");
    let condition = by_ourselves() + "\nprogram_type = \"socket_filter\"";
    doors_are_denied(
        EventType::BPF_LOAD,
        &condition,
        &mut [("bpf, BPF_PROG_LOAD", &mut || program.load())],
    );
}

#[test]
#[ignore = "root: loads BPF programs"]
fn modules_and_other_kernels_are_denied_with_the_errno_of_the_rule() {
    let programs = Programs::new();
    let (_path, file) = some_file(&programs);
    let (file, bytes, none) = (file.as_raw_fd(), [0_u8; LENGTH], c"");
    // SAFETY: bytes of ours that are no module: nothing is ever loaded.
    let from_file =
        |flags: i32| unsafe { libc::syscall(libc::SYS_finit_module, file, none.as_ptr(), flags) };
    // SAFETY: as above.
    let from_memory =
        || unsafe { libc::syscall(libc::SYS_init_module, bytes.as_ptr(), LENGTH, none.as_ptr()) };
    let doors: &mut [Door<'_>] = &mut [
        ("finit_module", &mut || errno(from_file(0))),
        // MODULE_INIT_COMPRESSED_FILE
        ("finit_module of a compressed file", &mut || errno(from_file(4))),
        ("init_module", &mut || errno(from_memory())),
    ];
    doors_are_denied(EventType::MODULE_LOAD, &by_ourselves(), doors);
    // SAFETY: no kernel either.
    let from_file =
        || unsafe { libc::syscall(libc::SYS_kexec_file_load, file, -1, 1, none.as_ptr(), 4) };
    // SAFETY: no segments unload what is not there.
    let from_memory = || unsafe { libc::syscall(libc::SYS_kexec_load, 0, 0, ptr::null::<u8>(), 0) };
    let doors: &mut [Door<'_>] = &mut [
        ("kexec_file_load", &mut || errno(from_file())),
        ("kexec_load", &mut || errno(from_memory())),
    ];
    doors_are_denied(EventType::KEXEC_LOAD, &by_ourselves(), doors);
}

#[test]
#[ignore = "root: loads BPF programs"]
fn a_rule_that_notifies_tells_of_an_exec_and_an_exit_whoever_subscribes_to_nothing() {
    let programs = Programs::new();
    let [wanted, other] = ["true", "false"].map(|name| programs.copy(name));
    let mut hooks = Loaded::of(EXEC.bit() | EXIT.bit());
    let mut silent = Client::admit(&mut hooks, SLOT, LARGE, &[]);
    let mut listener = Client::admit(&mut hooks, SLOT + 1, LARGE, &[EXEC, EXIT]);
    let set = format!(
        "[[rule]]\nid = 41\nevent = \"process_exec\"\naction = \"notify\"\nfile.path = {wanted:?}\n\
         [[rule]]\nid = 42\nevent = \"process_exit\"\naction = \"notify\"\nactor.path = {wanted:?}\n"
    );
    let mut set = RuleSet::from_toml(&set).unwrap();
    // Until 6.15 a process has no executable any more as it ends, and no rule can go by it.
    let lacks = hooks.coverage().into_iter().find(|c| c.kind == EXIT).unwrap().lacks;
    if let Some(lacks) = lacks {
        let refused = hooks.install_rules(SLOT, &set);
        assert!(
            matches!(&refused, Err(RulesError::CannotTell { rule: 42, reason, .. }) if reason == lacks),
            "{refused:?}"
        );
        set.rules.pop();
    }
    hooks.install_rules(SLOT, &set).unwrap();
    let pid = run(&wanted, &[]);
    let unwanted = run(&other, &[]);
    listener.read_until(ended(unwanted));
    silent.take();
    let seen: Vec<_> = silent.seen.iter().map(|r| (r.kind(), header(r))).collect();
    let expected = |rule| [2, rule, 0, 0];
    let all = [(EXEC.number(), expected(41)), (EXIT.number(), expected(42))];
    assert_eq!(seen, all[..set.rules.len()]);
    assert_eq!(silent.seen[0].actor("process.pid"), u64::from(pid));
    // Who subscribes gets the same event for his own reason, and nobody else's rule.
    let of = listener.of(pid);
    let heard = of.iter().find(|r| r.kind() == EXEC.number()).unwrap();
    assert_eq!(header(heard)[..2], [1, 0]);
    let counts = hooks.rule_counts(SLOT).unwrap();
    assert_eq!((counts[0].id, counts[0].matches, counts[0].denies), (41, 1, 0));

    // Both: one record with both reasons.
    hooks.subscribe(SLOT, EXEC.bit()).unwrap();
    silent.seen.clear();
    let pid = run(&wanted, &[]);
    silent.read_until(|r| r.kind() == EXEC.number() && r.actor("process.pid") == u64::from(pid));
    listener.read_until(ended(pid));
    silent.take();
    let reasons: Vec<_> = silent.of(pid).iter().map(|r| header(r)[0]).take(2).collect();
    let checked = hooks.coverage().iter().any(|c| c.kind == EXEC && c.deny.is_ok());
    // Where a hook decides, the rule tells before it is done, and the subscription when it is.
    assert_eq!(reasons[0], if checked { 2 } else { 3 }, "{reasons:?}");

    hooks.remove_rules(SLOT).unwrap();
    hooks.subscribe(SLOT, 0).unwrap();
    silent.take();
    silent.seen.clear();
    let pid = run(&wanted, &[]);
    listener.read_until(ended(pid));
    silent.take();
    assert!(silent.seen.is_empty(), "{:?}", silent.seen);
}

#[test]
#[ignore = "root: loads BPF programs"]
fn who_mutes_has_his_rules_all_the_same() {
    let programs = Programs::new();
    let program = programs.copy("true");
    let mut hooks = Loaded::of(EXEC.bit());
    let mut client = Client::admit(&mut hooks, SLOT, LARGE, &[EXEC]);
    // Nothing is muted, and inverted: nothing is wanted.
    hooks.invert(SLOT, true).unwrap();
    let set = format!(
        "[[rule]]\nid = 5\nevent = \"process_exec\"\naction = \"notify\"\nfile.path = {program:?}\n"
    );
    hooks.install_rules(SLOT, &RuleSet::from_toml(&set).unwrap()).unwrap();
    let pid = run(&program, &[]);
    client.read_until(|r| r.actor("process.pid") == u64::from(pid));
    assert_eq!(client.seen.iter().map(header).collect::<Vec<_>>(), [[2, 5, 0, 0]]);
}

#[test]
#[ignore = "root: loads BPF programs"]
fn rules_for_what_this_host_cannot_do_are_refused_and_the_old_ones_stay() {
    let mut hooks = Loaded::of(EXEC.bit());
    let _client = Client::admit(&mut hooks, SLOT, LARGE, &[]);
    let good = "[[rule]]\nid = 1\nevent = \"process_exec\"\naction = \"notify\"\n";
    hooks.install_rules(SLOT, &RuleSet::from_toml(good).unwrap()).unwrap();
    // Its programs were not loaded.
    let unseen = "[[rule]]\nid = 9\nevent = \"bpf_load\"\naction = \"notify\"\n";
    let refused = hooks.install_rules(SLOT, &RuleSet::from_toml(unseen).unwrap());
    assert!(matches!(refused, Err(RulesError::CannotTell { rule: 9, .. })), "{refused:?}");
    let denies = unseen.replace("notify", "deny");
    let refused = hooks.install_rules(SLOT, &RuleSet::from_toml(&denies).unwrap());
    assert!(matches!(refused, Err(RulesError::CannotDeny { rule: 9, .. })), "{refused:?}");
    run(Path::new("/bin/true"), &[]);
    let counts = hooks.rule_counts(SLOT).unwrap();
    assert!(counts.len() == 1 && counts[0].matches > 0, "{counts:?}");
    assert!(hooks.install_rules(64, &RuleSet::default()).is_err(), "there is no such slot");
    // They stay whoever is there, and are lifted and put back type by type.
    hooks.remove(SLOT).unwrap();
    let matches = |hooks: &mut Hooks| {
        run(Path::new("/bin/true"), &[]);
        hooks.rule_counts(SLOT).unwrap()[0].matches
    };
    let stayed = matches(&mut hooks);
    assert!(stayed > counts[0].matches);
    hooks.allow_rules(SLOT, EXIT.bit()).unwrap();
    assert_eq!((matches(&mut hooks), hooks.rules().types()), (stayed, 0));
    hooks.allow_rules(SLOT, EXEC.bit()).unwrap();
    assert!(matches(&mut hooks) > stayed);
}

#[test]
#[ignore = "root: loads BPF programs"]
fn what_a_rule_denies_is_not_asked_about() {
    let programs = Programs::new();
    let [known, other] = ["true", "false"].map(|name| programs.copy(name));
    for rules_first in [true, false] {
        let mut ruler = Ruler::of(EXEC);
        let ask = ruler.hooks.coverage().into_iter().find(|c| c.kind == EXEC).unwrap().ask;
        if let Err(reason) = ask {
            eprintln!("not looked for: {reason}");
            return;
        }
        let terms = AskTerms { time: Duration::from_secs(1), deny_full: false };
        let rule = format!(
            "[[rule]]\nid = 3\nevent = \"process_exec\"\naction = \"deny\"\nfile.path = {known:?}"
        );
        if rules_first {
            ruler.install(&rule).unwrap();
        }
        ruler.hooks.ask(SLOT, &[(EXEC, terms)]).unwrap();
        if !rules_first {
            ruler.install(&rule).unwrap();
        }
        ruler.told();
        assert_eq!(executed(&known), 1);
        assert!(ruler.told().is_empty(), "rules first: {rules_first}");
        // No gate is open, so nobody waits.
        assert_eq!(executed(&other), 0);
        let asked = ruler.told();
        assert!(asked.iter().all(|record| header(record)[0] == ASKED), "{asked:?}");
        assert_eq!(asked.len(), 1);
    }
}

#[test]
#[ignore = "root: loads BPF programs"]
fn ten_thousand_rules_are_not_felt() {
    let programs = Programs::new();
    let program = programs.copy("true");
    let mut ruler = Ruler::of(EXEC);
    let mut set = String::new();
    for id in 1..10_000 {
        set += &format!(
            "[[rule]]\nid = {id}\nevent = \"process_exec\"\naction = \"allow\"\n\
             file.path = \"/nowhere/{id}\"\n"
        );
    }
    let action = if ruler.cannot.is_some() { "notify" } else { "deny" };
    set += &format!(
        "[[rule]]\nid = 10000\nevent = \"process_exec\"\naction = \"{action}\"\nfile.path = {program:?}\n"
    );
    let time = |times: u32| {
        let started = Instant::now();
        (0..times).for_each(|_| assert_eq!(executed(Path::new("/bin/true")), 0));
        started.elapsed() / times
    };
    time(20);
    let before = time(100);
    ruler.install(&set).unwrap();
    let after = time(100);
    println!("an exec: {before:?} without rules, {after:?} with ten thousand");
    if std::env::var_os("RINGFENCE_SLOW").is_none() {
        assert!(after < before * 2, "{before:?}, {after:?}");
    }
    assert_eq!(executed(&program), i32::from(ruler.cannot.is_none()));
    let counts = ruler.counts();
    assert_eq!(counts.iter().filter(|count| count.0 > 0).count(), 1);
    assert_eq!(counts[9_999].0, 1);
}
