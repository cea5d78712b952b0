// SPDX-License-Identifier: Apache-2.0
//! Records to try things on: one of each type. The corpus of the fuzz target is made of them too.
#![allow(dead_code, reason = "not every test needs every helper")]

use abi::*;

/// An exec by a shell.
pub(crate) fn exec(path: &[u8], arguments: &[&[u8]]) -> RecordBuffer {
    let mut builder = RecordBuilder::<ProcessExec>::new(EventType::ProcessExec);
    by_a_shell(&mut builder);
    builder.part.file.path = builder.path(path);
    builder.part.file.inode = 7;
    builder.part.arguments = builder.arguments(arguments.iter().copied());
    builder.part.argument_count = arguments.len() as u32;
    builder.finish()
}

fn by_a_shell<T: Part>(builder: &mut RecordBuilder<T>) {
    builder.actor.process = ProcessKey { pid: 100, reserved: 0, start: 5_000 };
    builder.actor.comm[..4].copy_from_slice(b"bash");
    builder.actor.executable.path = builder.path(b"/usr/bin/bash");
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
    if !event.is_of_session() {
        by_a_shell(&mut builder);
    }
    fill(&mut builder);
    (event, builder.finish())
}

/// A record of each type that has a part, with its strings.
pub(crate) fn sample_of_each() -> Vec<(EventType, RecordBuffer)> {
    use EventType as E;
    vec![
        (E::ProcessExec, exec(b"/usr/bin/env", &[b"env", b"-i"])),
        built::<ProcessFork>(E::ProcessFork, |b| b.part.child.pid = 101),
        built::<ProcessExit>(E::ProcessExit, |b| b.part.code = 3),
        built::<ProcessSignal>(E::ProcessSignal, |b| {
            b.part.executable.path = b.path(b"/usr/sbin/agent");
        }),
        built::<ProcessTrace>(E::ProcessTrace, |b| {
            b.part.executable.path = b.path(b"/usr/sbin/agent");
        }),
        built::<ProcessCredentials>(E::ProcessCredentials, |b| b.part.by = CREDENTIALS_SETUID),
        built::<ProcessFork>(E::ThreadCreate, |b| b.part.thread = 102),
        built::<ImageMap>(E::ImageMap, |b| b.part.file.path = b.path(b"/usr/lib/libc.so.6")),
        built::<ModuleLoad>(E::ModuleLoad, |b| {
            b.part.file.path = b.path(b"/lib/modules/nbd.ko");
            b.part.name = b.text(b"nbd");
        }),
        built::<ModuleUnload>(E::ModuleUnload, |b| b.part.name = b.text(b"nbd")),
        built::<BpfLoad>(E::BpfLoad, |b| b.part.name[..3].copy_from_slice(b"abc")),
        built::<KernelLoad>(E::KexecLoad, |b| b.part.file.path = b.path(b"/boot/vmlinuz")),
        built::<KernelLoad>(E::FirmwareLoad, |b| b.part.name = b.text(b"ucode")),
        built::<MemoryMap>(E::MemoryMap, |b| b.part.length = 4_096),
        built::<MemoryProtect>(E::MemoryProtect, |b| b.part.file.path = b.path(b"/bin/jit")),
        built::<MemoryAccess>(E::MemoryAccess, |b| {
            b.part.executable.path = b.path(b"/usr/bin/vault");
        }),
        built::<MemoryFileless>(E::MemoryFileless, |b| b.part.file.path = b.path(b"/memfd:x")),
        built::<KernelFinding>(E::KernelFinding, |b| {
            b.part.check = b.text(b"syscall_table");
            b.part.technique = b.text(b"hooked");
            b.part.finding = b.long_text(b"{}");
        }),
        built::<Loss>(E::Loss, |b| b.part.by_type[1] = 4),
        built::<DeadlineMissed>(E::DeadlineMissed, |b| b.part.misses = 1),
        built::<StageChanged>(E::StageChanged, |b| b.part.reason = b.text(b"the gate is gone")),
        built::<ShuttingDown>(E::ShuttingDown, |b| b.part.why = SHUTDOWN_STOPPED),
    ]
}
