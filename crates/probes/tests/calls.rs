// SPDX-License-Identifier: Apache-2.0
//! Events where LSM programs are refused: the end of system calls tells of them. Each is told of by its
//! doors, as far as they are calls, once, and by nothing else.
//!
//! No LSM program is loaded here, so these run the same on all kernels.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod clients;

use std::fs;
use std::os::fd::AsRawFd;

use clients::deeds::{
    LENGTH, Program, Subject, attached, execute, has_itself_traced, int_80, memfd,
    program_in_memory,
};
use clients::listener::{EXEC, Listener, Memory, READ, WRITE, some_file};
use clients::{Client, LARGE, Programs, run};
use probes::events::{EventType, Hooks, Mechanism};

/// RINGFENCE_FLAG_INCOMPLETE
const INCOMPLETE: u64 = 0x10;

#[test]
#[ignore = "root: loads BPF programs"]
fn a_file_that_is_mapped_executable_is_told_of_with_where_it_is() {
    let mut listener = Listener::to_calls(EventType::IMAGE_MAP, "ringfence_image_map");
    let programs = Programs::new();
    let (path, file) = some_file(&programs);
    let file = file.as_raw_fd();
    let (record, memory) = listener.hear_one(|| Memory::map(READ | EXEC, libc::MAP_PRIVATE, file));
    assert_eq!(listener.text(&record, "file.path"), path.to_str().unwrap());
    assert_eq!(listener.number(&record, "protection"), (READ | EXEC) as u64);
    assert_eq!(listener.number(&record, "flags") & 0xf, libc::MAP_PRIVATE as u64);
    assert_eq!(listener.number(&record, "address"), memory.0 as u64);
    assert_eq!(listener.number(&record, "length"), LENGTH as u64);
    listener.hear_nothing(|| drop(memory));

    let memory = listener.hear_nothing(|| Memory::map(READ, libc::MAP_PRIVATE, file));
    let (record, ()) = listener.hear_one(|| memory.protect(READ | EXEC));
    assert_eq!(listener.number(&record, "address"), memory.0 as u64);
    listener.hear_nothing(|| memory.protect(READ));
    let (record, ()) = listener.hear_one(|| assert_eq!(attached(), 0));
    assert!(listener.text(&record, "file.path").starts_with("/SYSV"));
    listener.hear_nothing(|| Memory::anonymous(READ | EXEC));
    // What fails has done nothing.
    // SAFETY: there is no such descriptor.
    listener.hear_nothing(|| unsafe {
        let at = libc::mmap(std::ptr::null_mut(), LENGTH, EXEC, libc::MAP_PRIVATE, 1 << 20, 0);
        assert_eq!(at, libc::MAP_FAILED);
    });
}

#[test]
#[ignore = "root: loads BPF programs"]
fn memory_that_is_mapped_or_made_executable_is_told_of() {
    let mut listener = Listener::to_calls(EventType::MEMORY_MAP, "ringfence_memory_map");
    let programs = Programs::new();
    let (path, file) = some_file(&programs);
    let private = libc::MAP_PRIVATE;
    let (record, memory) = listener.hear_one(|| Memory::anonymous(READ | EXEC));
    assert_eq!(listener.number(&record, "address"), memory.0 as u64);
    assert_eq!(listener.number(&record, "file.inode"), 0);
    listener.hear_nothing(|| Memory::anonymous(READ | WRITE));
    listener.hear_nothing(|| Memory::map(READ | EXEC, private, file.as_raw_fd()));
    let (record, _) =
        listener.hear_one(|| Memory::map(READ | WRITE | EXEC, private, file.as_raw_fd()));
    assert_eq!(listener.text(&record, "file.path"), path.to_str().unwrap());
    drop(listener);

    let mut listener = Listener::to_calls(EventType::MEMORY_PROTECT, "ringfence_memory_protect");
    let memory = Memory::anonymous(READ | WRITE);
    let (record, ()) = listener.hear_one(|| memory.protect(READ | EXEC));
    assert_eq!(listener.number(&record, "address"), memory.0 as u64);
    assert_eq!(listener.number(&record, "length"), LENGTH as u64);
    assert_eq!(listener.number(&record, "after"), (READ | EXEC) as u64);
    assert_eq!(record.header("flags") & INCOMPLETE, INCOMPLETE, "what it was is not known");
    listener.hear_nothing(|| memory.protect(READ | WRITE));
    let (_, done) = listener.hear_one(|| memory.protect_by_key(READ | EXEC));
    assert_eq!(done, 0);
}

#[test]
#[ignore = "root: loads BPF programs"]
fn files_without_a_name_are_told_of_when_they_are_executed_or_mapped() {
    let mut listener = Listener::to_calls(EventType::MEMORY_FILELESS, "ringfence_memory_fileless");
    let programs = Programs::new();
    let (_, file) = some_file(&programs);
    let map = |file: i32| Memory::map(READ | EXEC, libc::MAP_PRIVATE, file);
    listener.hear_nothing(|| map(file.as_raw_fd()));
    let memory = memfd("image", &[0; LENGTH]);
    let (record, _) = listener.hear_one(|| map(memory.as_raw_fd()));
    assert_eq!(listener.number(&record, "how"), 2);
    assert_eq!(listener.text(&record, "file.path"), "/memfd:image");

    for program in [program_in_memory("program"), programs.deleted("true").1] {
        let (_, (pid, failed)) = listener.hear(|| execute(program.as_raw_fd()));
        assert_eq!(failed, 0);
        let of = listener.client.of(pid);
        let by_exec = of.iter().filter(|record| listener.number(record, "how") == 1).count();
        assert_eq!(by_exec, 1, "{of:?}");
    }
    let (_, pid) = listener.hear(|| run(&programs.copy("true"), &[]));
    assert!(listener.client.of(pid).is_empty());
}

#[test]
#[ignore = "root: loads BPF programs"]
fn who_takes_hold_of_a_process_is_told_of() {
    let mut listener = Listener::to_calls(EventType::PROCESS_TRACE, "ringfence_process_trace");
    let (hold, me) = (2, 3);
    let subject = Subject::start();
    listener.hear_of(&subject, &[("access", hold)], || assert_eq!(subject.seize(), 0));
    let pidfd = subject.pidfd();
    listener.hear_of(&subject, &[("access", hold)], || assert!(subject.get_fd(&pidfd) >= 0));
    listener.hear_nothing(|| fs::read(subject.proc("comm")).unwrap());
    // unshare of nothing as a 32-bit call, whose number is that of process_vm_readv among the others.
    listener.hear_nothing(|| assert_eq!(int_80(310, [0; 4]), 0));
    listener.hear(|| assert_eq!(has_itself_traced(), 0));
    let seen = &listener.client.seen;
    let traced = seen.iter().filter(|record| listener.number(record, "access") == me);
    let targets: Vec<u64> = traced.map(|record| listener.number(record, "target.pid")).collect();
    assert_eq!(targets, [u64::from(std::process::id())]);
}

#[test]
#[ignore = "root: loads BPF programs"]
fn the_memory_of_another_process_is_reached_by_three_ways_that_are_told_apart() {
    let mut listener = Listener::to_calls(EventType::MEMORY_ACCESS, "ringfence_memory_access");
    let (by_ptrace, by_vm) = (1, 3);
    let subject = Subject::start();
    listener.hear_of(&subject, &[("access", 3), ("by", by_ptrace)], || {
        assert_eq!(subject.seize(), 0);
    });
    for (call, access) in [(libc::SYS_process_vm_readv, 1), (libc::SYS_process_vm_writev, 2)] {
        // Nothing is there, so nothing is reached.
        listener.hear_nothing(|| assert_eq!(subject.vm(call), -1));
        let (record, done) = listener.hear_one(|| subject.vm_at(call, subject.stack()));
        assert_eq!(done, 1);
        assert_eq!(listener.number(&record, "access"), access);
        assert_eq!(listener.number(&record, "by"), by_vm);
        // Before 6.14 it may not be found whom a number stands for, and the record says so.
        if record.header("flags") & INCOMPLETE == 0 {
            assert_eq!(listener.number(&record, "target.pid"), u64::from(subject.0.id()));
        } else {
            assert_eq!(listener.number(&record, "target.pid"), 0);
        }
    }
}

#[test]
#[ignore = "root: loads BPF programs"]
fn a_bpf_program_that_is_loaded_is_told_of_with_its_name_and_a_map_is_not() {
    let mut listener = Listener::to_calls(EventType::BPF_LOAD, "ringfence_bpf_load");
    listener.hear_of_programs_and_not_of_maps();
}

#[test]
#[ignore = "root: loads BPF programs"]
fn nothing_is_attached_to_system_calls_while_nobody_listens() {
    let kind = EventType::BPF_LOAD;
    let mut hooks = Hooks::load_without_lsm(kind.bit() | EventType::PROCESS_EXEC.bit()).unwrap();
    let mut client = Client::admit(&mut hooks, 0, LARGE, &[EventType::PROCESS_EXEC]);
    let program = Program::new(b"of_tests");
    assert_eq!(program.load(), 0);
    client.take();
    assert!(client.seen.iter().all(|record| record.kind() != kind.number()));
    let told = |hooks: &Hooks, kind: EventType| {
        hooks.coverage().into_iter().find(|coverage| coverage.kind == kind).unwrap().notify
    };
    assert_eq!(told(&hooks, EventType::PROCESS_EXEC), Ok(Mechanism::Tracepoint), "the better");
    hooks.subscribe(0, kind.bit()).unwrap();
    assert_eq!(program.load(), 0);
    client.read_until(|record| record.kind() == kind.number());
}
