// SPDX-License-Identifier: Apache-2.0
//! Records to try things on: one of each type. The corpus of the fuzz target is made of them too.
#![allow(dead_code, reason = "not every test needs every helper")]

use abi::*;

/// An exec by a shell.
pub(crate) fn exec(path: &[u8], arguments: &[&[u8]]) -> RecordBuffer {
    let mut builder = RecordBuilder::<ProcessExec>::new(EventType::ProcessExec);
    by_a_shell(&mut builder);
    builder.part.file = file(7);
    builder.part.file.path = builder.path(path);
    builder.part.arguments = builder.arguments(arguments.iter().copied());
    builder.part.argument_count = arguments.len() as u32;
    builder.finish()
}

fn by_a_shell<T: Part>(builder: &mut RecordBuilder<T>) {
    builder.header.flags = FLAG_MANDATORY;
    builder.header.classes = CLASS_NOTIFY;
    builder.header.time = 5_000_000_000;
    builder.header.boot_id = std::array::from_fn(|at| at as u8);
    builder.actor.process = ProcessKey { pid: 100, reserved: 0, start: 5_000 };
    builder.actor.parent = ProcessKey { pid: 1, reserved: 0, start: 10 };
    builder.actor.thread = 100;
    (builder.actor.uid, builder.actor.euid) = (1_000, 1_000);
    builder.actor.login_uid = u32::MAX;
    builder.actor.comm[..4].copy_from_slice(b"bash");
    builder.actor.executable = file(9);
    builder.actor.executable.path = builder.path(b"/usr/bin/bash");
}

fn file(inode: u64) -> File {
    File {
        device: 8 << 20 | 1,
        inode,
        version: 77,
        size: 1_000,
        mode: 0o100_755,
        links: 1,
        ..File::default()
    }
}

/// Overwrites bytes.
pub(crate) fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

fn built<T: Part>(
    event: EventType,
    fill: impl Fn(&mut RecordBuilder<T>),
) -> (EventType, RecordBuffer) {
    let mut builder = RecordBuilder::<T>::new(event);
    // Nobody does what the session and the guard tell of.
    if !event.is_of_session() && event != EventType::KernelFinding {
        by_a_shell(&mut builder);
    }
    fill(&mut builder);
    (event, builder.finish())
}

/// A record of each type that has a part, with its strings.
pub(crate) fn sample_of_each() -> Vec<(EventType, RecordBuffer)> {
    use EventType as E;
    let other = ProcessKey { pid: 101, reserved: 0, start: 6_000 };
    vec![
        (E::ProcessExec, exec(b"/usr/bin/env", &[b"env", b"-i"])),
        built::<ProcessFork>(E::ProcessFork, |b| {
            (b.part.child, b.part.thread, b.part.inner_pid) = (other, 101, 2);
        }),
        built::<ProcessExit>(E::ProcessExit, |b| {
            (b.part.signal, b.part.dumped, b.part.lifetime) = (11, 1, 1_500_000_000);
        }),
        built::<ProcessSignal>(E::ProcessSignal, |b| {
            (b.part.target, b.part.signal) = (other, 9);
            b.part.executable.path = b.path(b"/usr/sbin/agent");
            (b.header.outcome, b.header.error, b.header.rule) = (OUTCOME_DENIED, 1, 4);
        }),
        built::<ProcessTrace>(E::ProcessTrace, |b| {
            (b.part.target, b.part.access, b.part.thread) = (other, TRACE_ATTACH, 101);
            b.part.executable.path = b.path(b"/usr/sbin/agent");
        }),
        built::<ProcessCredentials>(E::ProcessCredentials, |b| {
            (b.part.by, b.part.effective) = (CREDENTIALS_SETUID, 0x1ff);
        }),
        built::<ProcessFork>(E::ThreadCreate, |b| (b.part.child, b.part.thread) = (other, 102)),
        built::<ImageMap>(E::ImageMap, |b| {
            b.part.file = file(11);
            b.part.file.digest_algorithm = DIGEST_SHA256;
            b.part.file.digest = [0xab; 32];
            b.part.file.flags = FILE_VERITY | FILE_NOSUID;
            b.part.file.path = b.path(b"/usr/lib/libc.so.6");
            (b.part.length, b.part.offset, b.part.protection, b.part.flags) = (8_192, 4_096, 5, 2);
        }),
        built::<ModuleLoad>(E::ModuleLoad, |b| {
            b.part.file = file(12);
            b.part.file.path = b.path(b"/lib/modules/nbd.ko");
            b.part.name = b.text(b"nbd");
            b.part.from = MODULE_FROM_FILE;
        }),
        built::<ModuleUnload>(E::ModuleUnload, |b| b.part.name = b.text(b"nbd")),
        built::<BpfLoad>(E::BpfLoad, |b| {
            b.part.name[..3].copy_from_slice(b"abc");
            (b.part.program_type, b.part.instructions) = (29, 12);
        }),
        built::<KernelLoad>(E::KexecLoad, |b| {
            b.part.file.path = b.path(b"/boot/vmlinuz");
            b.part.from = MODULE_FROM_FILE;
            b.header.classes = CLASS_ASK;
            (b.header.event_id, b.header.deadline) = (7, 6_000_000_000);
        }),
        built::<KernelLoad>(E::FirmwareLoad, |b| {
            b.part.name = b.text(b"ucode");
            b.part.from = MODULE_FROM_MEMORY;
        }),
        built::<MemoryMap>(E::MemoryMap, |b| {
            (b.part.address, b.part.length, b.part.protection) = (0x7f00_0000_0000, 4_096, 7);
        }),
        built::<MemoryProtect>(E::MemoryProtect, |b| {
            (b.part.address, b.part.length) = (0x7f00_0000_0000, 4_096);
            (b.part.before, b.part.after) = (3, 5);
            b.part.file.path = b.path(b"/opt/j\xefit\x1b[2J");
        }),
        built::<MemoryAccess>(E::MemoryAccess, |b| {
            (b.part.target, b.part.access, b.part.by) = (other, ACCESS_WRITE, ACCESS_BY_PROC_MEM);
            b.part.executable.path = b.path(b"/usr/bin/vault");
        }),
        built::<MemoryFileless>(E::MemoryFileless, |b| {
            b.part.file = File { flags: FILE_MEMFD, links: 0, ..file(13) };
            b.part.file.path = b.path(b"/memfd:x");
            b.part.how = FILELESS_EXEC;
        }),
        built::<FileOpen>(E::FileOpen, |b| {
            b.part.file = file(14);
            b.part.file.path = b.path(b"/srv/secrets");
            (b.part.flags, b.part.access) = (0x8001, 3);
            b.header.classes = CLASS_ASK;
            (b.header.event_id, b.header.deadline) = (8, 6_000_000_000);
        }),
        built::<FileModify>(E::FileModify, |b| {
            b.part.file = file(15);
            b.part.file.path = b.path(b"/srv/ledger");
            (b.part.how, b.part.flags) = (MODIFY_CLOSED, 0x8001);
        }),
        built::<KernelFinding>(E::KernelFinding, |b| {
            b.part.check = b.text(b"syscall_table");
            b.part.technique = b.text(b"hooked");
            b.part.finding = b.long_text(b"{\"address\":\"0xffffffff81000000\"}");
            (b.part.state, b.part.found) = (FINDING_NEW, 7);
        }),
        built::<Loss>(E::Loss, |b| {
            (b.part.records, b.part.why) = (5, LOST_RING_FULL);
            (b.part.by_type[1], b.part.by_type[60]) = (4, 1);
            b.header.lost = 5;
        }),
        built::<DeadlineMissed>(E::DeadlineMissed, |b| {
            (b.part.missed_event_id, b.part.misses, b.part.demoted) = (7, 3, 1);
        }),
        built::<StageChanged>(E::StageChanged, |b| {
            b.part.event_type = PROCESS_EXEC;
            (b.part.before, b.part.after) = (STAGE_ASKED, STAGE_OBSERVED);
            b.part.reason = b.text(b"the gate is gone");
        }),
        built::<ShuttingDown>(E::ShuttingDown, |b| b.part.why = SHUTDOWN_STOPPED),
    ]
}
