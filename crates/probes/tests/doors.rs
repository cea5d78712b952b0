// SPDX-License-Identifier: Apache-2.0
//! Doors that are easily forgotten: each leads to the event that it should, once, and to no other.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod clients;

use std::fs::{self, File};
use std::mem::ManuallyDrop;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use clients::births;
use clients::deeds::{
    Interpreted, LENGTH, LOOKERS, RINGS, Subject, attached, called_in_child, execute, execute_at,
    forked, memfd, program_in_memory, remapped, unnamed_program, with_read_implies_exec,
    workers_of_io_uring,
};
use clients::listener::{EXEC as PROT_EXEC, Listener, Memory, READ, WRITE, some_file};
use clients::record::Record;
use clients::senders::{
    Group, SENDERS, as_if_by_a_timer, by_a_file, by_a_message_queue, by_a_terminal, by_a_timer,
    by_the_end_of_a_parent,
};
use clients::{
    Client, EXEC, EXIT, FORK, LARGE, LIMIT, Programs, SIGNAL, THREAD, door_of, ended, executed,
    no_door_of, process_hooks, run,
};
use probes::events::EventType;

const MEMFD: u64 = 1;
const DELETED: u64 = 2;

#[test]
#[ignore = "root: loads LSM programs, which the lab's kernels take"]
fn a_memfd_and_a_deleted_file_become_images_and_a_mapping_that_moves_is_none() {
    let Some(mut listener) = Listener::to(EventType::IMAGE_MAP, "ringfence_image_map") else {
        return;
    };
    let file = memfd("image", &[0; LENGTH]);
    let map = |file: &File| Memory::map(READ | PROT_EXEC, libc::MAP_PRIVATE, file.as_raw_fd());
    let (record, _memory) = listener.hear_one(|| map(&file));
    assert_eq!(listener.text(&record, "file.path"), "/memfd:image");
    assert_eq!(listener.number(&record, "file.flags") & (MEMFD | DELETED), MEMFD);
    listener.door("mmap of a memfd");

    let programs = Programs::new();
    let (path, file) = some_file(&programs);
    fs::remove_file(&path).unwrap();
    let (record, memory) = listener.hear_one(|| map(&file));
    assert_eq!(listener.text(&record, "file.path"), path.to_str().unwrap());
    assert_eq!(listener.number(&record, "file.flags") & (MEMFD | DELETED), DELETED);
    listener.door("mmap of a deleted file");

    let memory = ManuallyDrop::new(memory);
    // SAFETY: our own mapping, which nobody looks into; it is given back at its new place.
    listener.hear_nothing(|| unsafe {
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_DONTUNMAP;
        let moved = libc::mremap(memory.0, LENGTH, LENGTH, flags);
        if moved != libc::MAP_FAILED {
            libc::munmap(moved, LENGTH);
        }
        let grown = libc::mremap(memory.0, LENGTH, 2 * LENGTH, libc::MREMAP_MAYMOVE);
        assert_ne!(grown, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        libc::munmap(grown, 2 * LENGTH);
    });
    no_door_of("notify", EventType::IMAGE_MAP, "mremap of an image, by which nothing becomes code");
}

#[test]
#[ignore = "root: loads LSM programs, which the lab's kernels take"]
fn a_file_becomes_an_image_by_calls_that_do_not_say_so() {
    let Some(mut listener) = Listener::to(EventType::IMAGE_MAP, "ringfence_image_map") else {
        return;
    };
    let programs = Programs::new();
    let (path, file) = some_file(&programs);
    let file = file.as_raw_fd();
    let image = listener.hear_one(|| Memory::map(READ | PROT_EXEC, libc::MAP_SHARED, file)).1;
    let (record, failed) = listener.hear_one(|| remapped(image.0));
    assert_eq!(failed, 0);
    assert_eq!(listener.text(&record, "file.path"), path.to_str().unwrap());
    assert_eq!(listener.number(&record, "protection") as i32 & PROT_EXEC, PROT_EXEC);
    listener.door("remap_file_pages");

    let private = libc::MAP_PRIVATE;
    let map = || with_read_implies_exec(|| Memory::map(READ, private, file));
    let (record, _memory) = listener.hear_one(map);
    assert_eq!(listener.number(&record, "protection"), (READ | PROT_EXEC) as u64);
    listener.door("mmap with READ_IMPLIES_EXEC");
    let memory = listener.hear_nothing(|| Memory::map(READ, private, file));
    listener.hear_one(|| with_read_implies_exec(|| memory.protect(READ)));
    listener.door("mprotect with READ_IMPLIES_EXEC");
    let memory = listener.hear_nothing(|| Memory::map(READ, private, file));
    listener.hear_one(|| assert_eq!(memory.protect_by_key(READ | PROT_EXEC), 0));
    listener.door("pkey_mprotect");
}

#[test]
#[ignore = "root: loads LSM programs, which the lab's kernels take"]
fn memory_is_executable_by_calls_that_do_not_say_so() {
    let kind = EventType::MEMORY_MAP;
    let Some(mut listener) = Listener::to(kind, "ringfence_memory_map") else { return };
    let (record, _memory) =
        listener.hear_one(|| with_read_implies_exec(|| Memory::anonymous(READ)));
    assert_eq!(listener.number(&record, "protection"), (READ | PROT_EXEC) as u64);
    listener.door("mmap with READ_IMPLIES_EXEC");
    let (record, failed) = listener.hear_one(attached);
    assert_eq!(failed, 0);
    assert!(listener.text(&record, "file.path").starts_with("/SYSV"));
    listener.door("shmat, writable and executable");
    // SAFETY: what is added is given back at once, and nobody looks into it.
    let grown = listener.hear_nothing(|| unsafe {
        let end = libc::sbrk(0);
        let grown = with_read_implies_exec(|| libc::brk(end.byte_add(LENGTH)));
        libc::brk(end);
        grown
    });
    assert_eq!(grown, 0);
    no_door_of("notify", kind, "brk with READ_IMPLIES_EXEC");
    let (_, memory) = listener.hear_one(|| Memory::anonymous(READ | PROT_EXEC));
    let memory = ManuallyDrop::new(memory);
    // SAFETY: our own mapping, which nobody looks into; it is given back at its new place.
    listener.hear_nothing(|| unsafe {
        let grown = libc::mremap(memory.0, LENGTH, 2 * LENGTH, libc::MREMAP_MAYMOVE);
        assert_ne!(grown, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        libc::munmap(grown, 2 * LENGTH);
    });
    no_door_of("notify", kind, "mremap of what is executable already");
    drop(listener);

    let kind = EventType::MEMORY_PROTECT;
    let Some(mut listener) = Listener::to(kind, "ringfence_memory_protect") else { return };
    let memory = Memory::anonymous(WRITE);
    let (record, ()) = listener.hear_one(|| with_read_implies_exec(|| memory.protect(READ)));
    assert_eq!(listener.number(&record, "before") as i32 & PROT_EXEC, 0);
    assert_eq!(listener.number(&record, "after"), (READ | PROT_EXEC) as u64);
    listener.door("mprotect with READ_IMPLIES_EXEC");
}

#[test]
#[ignore = "root: loads LSM programs, which the lab's kernels take"]
fn a_program_without_a_name_is_fileless_by_execveat_and_a_script_is_not() {
    let kind = EventType::MEMORY_FILELESS;
    let Some(mut listener) = Listener::to(kind, "ringfence_memory_fileless") else { return };
    let by_exec = |listener: &Listener, pid: u32| {
        let of = listener.client.of(pid);
        of.iter().filter(|record| listener.number(record, "how") == 1).count()
    };
    let program = program_in_memory("program");
    let (_, (pid, failed)) = listener.hear(|| execute(program.as_raw_fd()));
    assert_eq!(failed, 0);
    assert_eq!(by_exec(&listener, pid), 1);
    listener.door("execveat of a memfd");

    let programs = Programs::new();
    let (_, program) = programs.deleted("true");
    let (_, (pid, failed)) = listener.hear(|| execute(program.as_raw_fd()));
    assert_eq!(failed, 0);
    assert_eq!(by_exec(&listener, pid), 1);
    listener.door("execveat of a deleted file");

    let program = unnamed_program(programs.path());
    let (_, (pid, failed)) = listener.hear(|| execute(program.as_raw_fd()));
    assert_eq!(failed, 0);
    assert_eq!(by_exec(&listener, pid), 1);
    listener.door("execveat of a file that never had a name");

    let file = memfd("image", &[0; LENGTH]);
    let map = || Memory::map(READ | PROT_EXEC, libc::MAP_PRIVATE, file.as_raw_fd());
    let (record, _memory) = listener.hear_one(map);
    assert_eq!(listener.number(&record, "how"), 2);
    listener.door("mmap of a memfd");
    let (record, failed) = listener.hear_one(attached);
    assert_eq!((listener.number(&record, "how"), failed), (2, 0));
    listener.door("shmat");

    let script = programs.path().join("script");
    fs::write(&script, "#!/bin/sh\nexit 0\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let (_, pid) = listener.hear(|| run(&script, &[]));
    assert_eq!(by_exec(&listener, pid), 0);
    let (_, pid) = listener.hear(|| run(Path::new("/bin/sh"), &[script.to_str().unwrap()]));
    assert_eq!(by_exec(&listener, pid), 0);
}

#[test]
#[ignore = "root: loads LSM programs, which the lab's kernels take"]
fn memory_that_is_opened_by_io_uring_is_told_of_as_by_open() {
    let subject = Subject::start();
    let mem = subject.proc("mem");
    if let Some(mut listener) = Listener::to(EventType::MEMORY_ACCESS, "ringfence_memory_access") {
        for (how, open) in RINGS {
            let fields = [("access", 3), ("by", 2)];
            listener.hear_of(&subject, &fields, || assert_eq!(open(&mem), 0, "{how}"));
            listener.door(&format!("/proc/PID/mem {how}"));
        }
    }
    if let Some(mut listener) = Listener::to(EventType::PROCESS_TRACE, "ringfence_process_trace") {
        for (how, open) in RINGS {
            listener.hear_of(&subject, &[("access", 2)], || assert_eq!(open(&mem), 0, "{how}"));
            listener.door(&format!("/proc/PID/mem {how}"));
        }
    }
}

#[test]
#[ignore = "root: loads LSM programs, which the lab's kernels take"]
fn who_looks_into_a_process_by_calls_of_its_own_is_told_of_and_reaches_no_memory() {
    let (look, hold) = (1, 2);
    let subject = Subject::start();
    let pidfd = subject.pidfd();
    let kind = EventType::PROCESS_TRACE;
    let Some(mut listener) = Listener::to(kind, "ringfence_process_trace") else { return };
    for (door, call) in LOOKERS {
        let done = || assert_ne!(call(&subject, &pidfd), -1, "{}", std::io::Error::last_os_error());
        listener.hear_of(&subject, &[("access", look)], done);
        listener.door(door);
    }
    listener.hear_of(&subject, &[("access", look)], || {
        subject.advise(&pidfd);
    });
    listener.door("process_madvise");
    listener.hear_of(&subject, &[("access", hold)], || assert_eq!(subject.attach(), 0));
    listener.door("PTRACE_ATTACH");
    listener.hear_of(&subject, &[("access", hold)], || assert_eq!(subject.seize_by_int_80(), 0));
    listener.door("PTRACE_SEIZE by int 0x80");
    drop(listener);

    let kind = EventType::MEMORY_ACCESS;
    let Some(mut listener) = Listener::to(kind, "ringfence_memory_access") else { return };
    for (_, call) in LOOKERS {
        listener.hear_nothing(|| call(&subject, &pidfd));
    }
    listener.hear_of(&subject, &[("access", 3), ("by", 1)], || assert_eq!(subject.attach(), 0));
    listener.door("PTRACE_ATTACH");
    let by_ptrace = [("access", 3), ("by", 1)];
    listener.hear_of(&subject, &by_ptrace, || assert_eq!(subject.seize_by_int_80(), 0));
    listener.door("PTRACE_SEIZE by int 0x80");
}

/// Who is nobody.
const NOBODY: u32 = 65534;
/// As what an id is left as it is by.
const SAME: u32 = u32::MAX;

#[test]
#[ignore = "root: loads LSM programs, which the lab's kernels take"]
fn credentials_change_by_each_call_that_sets_ids() {
    let kind = EventType::PROCESS_CREDENTIALS;
    let Some(mut listener) = Listener::to(kind, "ringfence_process_credentials") else { return };
    let (by_uid, by_gid) = (1, 2);
    let calls = [
        ("setuid", libc::SYS_setuid, [NOBODY, 0, 0], by_uid, "euid"),
        ("setreuid", libc::SYS_setreuid, [NOBODY, SAME, 0], by_uid, "uid"),
        ("setresuid", libc::SYS_setresuid, [SAME, SAME, NOBODY], by_uid, "suid"),
        ("setfsuid", libc::SYS_setfsuid, [NOBODY, 0, 0], by_uid, "fsuid"),
        ("setgid", libc::SYS_setgid, [NOBODY, 0, 0], by_gid, "egid"),
        ("setregid", libc::SYS_setregid, [NOBODY, SAME, 0], by_gid, "gid"),
        ("setresgid", libc::SYS_setresgid, [SAME, SAME, NOBODY], by_gid, "sgid"),
        ("setfsgid", libc::SYS_setfsgid, [NOBODY, 0, 0], by_gid, "fsgid"),
    ];
    for (door, call, arguments, by, id) in calls {
        let (_, pid) = listener.hear(|| called_in_child(&[(call, arguments)]));
        let of = listener.client.of(pid);
        let changes: Vec<_> =
            of.iter().map(|r| (listener.number(r, "by"), listener.number(r, id))).collect();
        assert_eq!(changes, [(by, u64::from(NOBODY))], "{door}");
        assert_eq!(of[0].actor(id), 0, "{door}: what it was");
        listener.door(door);
    }
    // Supplementary groups are not in the record, and nothing of it changes.
    let (_, pid) = listener.hear(|| called_in_child(&[(libc::SYS_setgroups, [0, 0, 0])]));
    assert!(listener.client.of(pid).is_empty());
    no_door_of("notify", kind, "setgroups");
    // Who makes a user namespace has all capabilities in it; no hook is passed as it gets them.
    let namespace = libc::CLONE_NEWUSER as u32;
    let calls = [(libc::SYS_setresuid, [NOBODY; 3]), (libc::SYS_unshare, [namespace, 0, 0])];
    let (_, pid) = listener.hear(|| called_in_child(&calls));
    assert_eq!(listener.client.of(pid).len(), 1, "by setresuid");
    no_door_of("notify", kind, "unshare of a user namespace");
}

/// A call, and what makes a task by it and gives its number.
type Birth = (&'static str, fn() -> u32);

#[test]
#[ignore = "root: loads BPF programs"]
fn each_call_that_makes_a_process_or_a_thread_is_told_of_as_that_and_once() {
    let mut hooks = process_hooks();
    let mut client = Client::admit(&mut hooks, 3, LARGE, &[EXEC, FORK, EXIT, THREAD]);
    let us = std::process::id();
    let children: [Birth; 4] = [
        ("fork", births::fork),
        ("vfork", births::vfork),
        ("clone", births::clone),
        ("clone3", births::clone3),
    ];
    for (door, child) in children {
        client.seen.clear();
        let pid = child();
        client.read_until(ended(pid));
        let made = client.of(us);
        assert_eq!(made.len(), 1, "{door}: {made:?}");
        assert_eq!(made[0].kind(), FORK.number());
        for number in ["child.pid", "thread"] {
            assert_eq!(made[0].body(&format!("ringfence_process_fork.{number}")), u64::from(pid));
        }
        let of = client.of(pid);
        assert_eq!(of.len(), 1, "{door}: {of:?}");
        assert_eq!(of[0].body("ringfence_process_exit.code"), 0);
        door_of("notify", FORK, door);
    }
    // Its only thread has called exit(2) and nothing else.
    door_of("notify", EXIT, "exit of the last thread");
    let threads: [Birth; 2] = [
        ("clone with CLONE_THREAD", births::clone_thread),
        ("clone3 with CLONE_THREAD", births::clone3_thread),
    ];
    for (door, thread) in threads {
        client.take();
        client.seen.clear();
        let number = thread();
        client.read_until(|record| record.kind() == THREAD.number());
        let made = client.of(us);
        assert_eq!(made.len(), 1, "{door}: {made:?}");
        assert_eq!(made[0].body("ringfence_process_fork.child.pid"), u64::from(us));
        assert_eq!(made[0].body("ringfence_process_fork.thread"), u64::from(number));
        door_of("notify", THREAD, door);
    }
    client.take();
    client.seen.clear();
    assert!(workers_of_io_uring("/proc/self/comm") > 0);
    client.take();
    assert!(client.of(us).is_empty(), "{:?}", client.of(us));
    no_door_of("notify", THREAD, "a worker that io_uring makes");
    let (pid, code) = forked(|| 3);
    client.read_until(ended(pid));
    let of = client.of(pid);
    assert_eq!((of.len(), of[0].body("ringfence_process_exit.code")), (1, code as u64));
    door_of("notify", EXIT, "exit_group");
}

#[test]
#[ignore = "root: loads BPF programs"]
fn a_thread_that_executes_a_program_ends_all_others_and_not_the_process() {
    let mut hooks = process_hooks();
    let mut client = Client::admit(&mut hooks, 2, LARGE, &[EXEC, FORK, EXIT]);
    let own = std::env::current_exe().unwrap();
    let mut child = Command::new(&own);
    child.args(["--exact", "another_thread_executes_a_program", "--ignored"]);
    let mut child = child.env("RINGFENCE_THREADS", "1").stdout(Stdio::null()).spawn().unwrap();
    let pid = child.id();
    assert!(child.wait().unwrap().success());
    client.read_until(ended(pid));
    client.take();
    let of = client.of(pid);
    let kinds: Vec<_> = of.iter().map(|record| record.kind()).collect();
    assert_eq!(kinds, [EXEC, EXEC, EXIT].map(EventType::number), "{of:?}");
    let keys: Vec<_> = of.iter().map(|record| record.actor("process.start")).collect();
    assert!(keys.iter().all(|start| *start == keys[0]), "{keys:?}");
    assert_eq!(of[1].actor("thread"), u64::from(pid), "it is the first thread then");
    door_of("notify", EXEC, "execve by another thread than the first");
    no_door_of("notify", EXIT, "the end of the other threads as one executes a program");
}

/// What the test before runs: without it, nothing.
#[test]
#[ignore = "part of another test"]
fn another_thread_executes_a_program() {
    if std::env::var_os("RINGFENCE_THREADS").is_none() {
        return;
    }
    std::thread::spawn(|| panic!("{}", Command::new("/bin/true").exec()));
    std::thread::sleep(LIMIT);
}

#[test]
#[ignore = "root: loads BPF programs"]
fn a_program_is_executed_by_execveat_and_by_the_kernel_itself() {
    let mut hooks = process_hooks();
    let mut client = Client::admit(&mut hooks, 0, LARGE, &[EXEC, EXIT]);
    let programs = Programs::new();
    let program = programs.copy("true");
    let directory = File::open(programs.path()).unwrap();
    let file = File::open(&program).unwrap();
    let mut told = |door: &str, path: &Path, (pid, failed): (u32, i32)| {
        assert_eq!(failed, 0);
        client.read_until(ended(pid));
        let of = client.of(pid);
        let execs = of.iter().filter(|record| executed(record, path));
        assert_eq!(execs.count(), 1, "{door}: {of:?}");
        door_of("notify", EXEC, door);
    };
    told("execveat of a name", &program, execute_at(&directory, c"true"));
    told("execveat of a descriptor", &program, execute(file.as_raw_fd()));
    let memory = program_in_memory("program");
    told("execveat of a memfd", Path::new("/memfd:program"), execute(memory.as_raw_fd()));
    let others = Programs::new();
    let (gone, file) = others.deleted("true");
    told("execveat of a deleted file", &gone, execute(file.as_raw_fd()));

    // The program by which the kernel loads what nobody has: no family of protocols has this number any more
    // (AF_DECnet until 6.1).
    const SETTING: &str = "/proc/sys/kernel/modprobe";
    let Ok(before) = fs::read_to_string(SETTING) else {
        println!("this kernel is built without modules, and executes nothing to have them loaded");
        return;
    };
    let mut loader = before.trim().to_owned();
    if !Path::new(&loader).exists() {
        loader = program.to_str().unwrap().to_owned();
        fs::write(SETTING, &loader).unwrap();
    }
    let loader = fs::canonicalize(loader).unwrap();
    // SAFETY: plain numbers; there is no such family.
    assert_eq!(unsafe { libc::socket(12, libc::SOCK_STREAM, 0) }, -1);
    client.read_until(|record| executed(record, &loader));
    fs::write(SETTING, before).unwrap();
    let exec = client.seen.iter().rfind(|record| executed(record, &loader)).unwrap();
    let arguments = exec.text("ringfence_process_exec.arguments");
    assert!(arguments.ends_with("\0net-pf-12\0"), "{arguments}");
    assert_ne!(exec.actor("parent.pid"), u64::from(std::process::id()));
    door_of("notify", EXEC, "by the kernel (request_module)");
}

#[test]
#[ignore = "root: loads BPF programs"]
fn who_interprets_is_executed_and_what_is_interpreted_is_named_beside_him() {
    let mut hooks = process_hooks();
    let mut client = Client::admit(&mut hooks, 0, LARGE, &[EXEC, EXIT]);
    let programs = Programs::new();
    let interpreter = programs.copy("true");
    let mut execs_of = |pid: u32| {
        client.read_until(ended(pid));
        let of = client.of(pid).into_iter().cloned();
        of.filter(|record| record.kind() == EXEC.number()).collect::<Vec<_>>()
    };
    // By hand, an interpreter is a program as any other and a script one of its arguments.
    let script = programs.path().join("script");
    fs::write(&script, "#!/bin/sh\nexit 0\n").unwrap();
    let script = script.to_str().unwrap();
    let execs = execs_of(run(&interpreter, &[script]));
    assert_eq!(execs.len(), 1, "{execs:?}");
    assert!(executed(&execs[0], &interpreter));
    assert_eq!(execs[0].text("ringfence_process_exec.script"), "");
    let arguments = execs[0].text("ringfence_process_exec.arguments");
    assert!(arguments.ends_with(&format!("\0{script}\0")), "{arguments}");
    door_of("notify", EXEC, "an interpreter by hand, with a script");

    let Some(kind) = Interpreted::by(&interpreter) else { return };
    let program = kind.program(programs.path());
    let execs = execs_of(run(&program, &[]));
    assert_eq!(execs.len(), 1, "{execs:?}");
    assert!(executed(&execs[0], &interpreter));
    assert_eq!(execs[0].text("ringfence_process_exec.script"), program.to_str().unwrap());
    door_of("notify", EXEC, "execve of what binfmt_misc has interpreted");
}

/// The one signal of a number to a process that a client was told of.
fn signal_to(client: &Client, pid: u32, number: i32) -> Record {
    let part =
        |record: &Record, field: &str| record.body(&format!("ringfence_process_signal.{field}"));
    let to = client.seen.iter().filter(|record| {
        let same = |record: &&Record| part(record, "target.pid") == u64::from(pid);
        record.kind() == SIGNAL.number() && same(record) && part(record, "signal") == number as u64
    });
    let to: Vec<_> = to.collect();
    assert_eq!(to.len(), 1, "{:?}", client.seen);
    to[0].clone()
}

#[test]
#[ignore = "root: loads BPF programs"]
fn a_signal_is_told_of_by_whatever_way_it_is_sent() {
    const KERNEL_ACTOR: u64 = 8;
    // include/uapi/asm-generic/siginfo.h
    const SI_MESGQ: i32 = -3;
    const POLL_IN: i32 = 1;
    // It is ignored by who did not say otherwise.
    let number = libc::SIGURG;
    let mut hooks = process_hooks();
    let mut client = Client::admit(&mut hooks, 1, LARGE, &[SIGNAL, EXIT]);
    let programs = Programs::new();
    let subject = Subject::start_of(&programs.copy("sleep"));
    let (pidfd, pid, us) = (subject.pidfd(), subject.0.id(), std::process::id());
    let part =
        |record: &Record, field: &str| record.body(&format!("ringfence_process_signal.{field}"));
    let marked = |record: &Record| record.header("flags") & KERNEL_ACTOR;
    for sender in &SENDERS {
        client.take();
        client.seen.clear();
        assert_eq!(sender.send(&subject, &pidfd, number), 0, "{}", sender.door);
        client.take();
        let told = signal_to(&client, pid, number);
        assert_eq!(told.actor("process.pid"), u64::from(us), "{}", sender.door);
        assert_eq!(part(&told, "code") as i32, sender.code, "{}", sender.door);
        let thread = if sender.to_thread { u64::from(pid) } else { 0 };
        assert_eq!((part(&told, "thread"), marked(&told)), (thread, 0), "{}", sender.door);
        door_of("notify", SIGNAL, sender.door);
    }
    client.seen.clear();
    assert_eq!(as_if_by_a_timer(&subject, number), 0);
    client.take();
    assert_eq!(marked(&signal_to(&client, pid, number)), 0, "nobody passes for a timer");
    by_a_timer(number);
    client.take();
    assert_eq!(marked(&signal_to(&client, us, number)), KERNEL_ACTOR);
    door_of("notify", SIGNAL, "timer_create");

    client.take();
    client.seen.clear();
    // Nobody is asked about it, and who writes is who sends: himself.
    let told_of_us = |client: &mut Client| {
        client.take();
        let told = signal_to(client, us, number);
        client.seen.clear();
        assert_eq!(told.actor("process.pid"), u64::from(us));
        (part(&told, "code") as i32, marked(&told))
    };
    if by_a_message_queue(number).is_some() {
        assert_eq!(told_of_us(&mut client), (SI_MESGQ, 0));
        door_of("notify", SIGNAL, "mq_notify");
    }
    by_a_file(number);
    assert_eq!(told_of_us(&mut client), (POLL_IN, 0));
    door_of("notify", SIGNAL, "a file with O_ASYNC (SIGIO)");
    if let Some(child) = by_a_terminal() {
        client.take();
        assert_eq!(marked(&signal_to(&client, child, libc::SIGINT)), KERNEL_ACTOR);
        door_of("notify", SIGNAL, "a key of a terminal");
    }

    client.seen.clear();
    let parent = by_the_end_of_a_parent();
    client.read_until(|record| {
        record.kind() == SIGNAL.number()
            && record.actor("process.pid") == u64::from(parent)
            && part(record, "signal") == libc::SIGKILL as u64
    });
    door_of("notify", SIGNAL, "PR_SET_PDEATHSIG");

    let Some(group) = Group::make() else { return };
    group.kill(&subject);
    client.read_until(ended(pid));
    let told = signal_to(&client, pid, libc::SIGKILL);
    assert_eq!(told.actor("process.pid"), u64::from(us));
    door_of("notify", SIGNAL, "cgroup.kill");
    drop(subject);
}
