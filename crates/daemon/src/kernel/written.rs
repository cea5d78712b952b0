// SPDX-License-Identifier: Apache-2.0
//! The record of a question that the kernel asked without one: through fanotify.
//!
//! It has what fanotify and /proc tell, which is less than what a program in the kernel sees: the
//! process is looked at while it waits, so nothing of it can have ended, but its capabilities, its
//! session and the thread that asks are not known. The record says that it is incomplete.

use std::os::fd::AsRawFd;

use abi::{Actor, EventType, File, FileOpen, Part, ProcessExec, RecordBuffer, RecordBuilder};
use abi::{CLASS_ASK, FLAG_INCOMPLETE};
use broker::slot::ProcessKey;
use broker::time::Time;
use probes::Question;
use rustix::fs::{AtFlags, StatxFlags, statx};

use crate::identity::Held;
use crate::process::Process;

/// The record that asks. `key` is the process as the kernel's records have it.
pub(super) fn asked(question: &Question, key: Option<ProcessKey>, deadline: Time) -> RecordBuffer {
    let kind = u16::try_from(question.kind).ok().and_then(EventType::from_number);
    if kind == Some(EventType::FileOpen) {
        // How it is to be opened is not known: no flags, no access.
        let mut record = RecordBuilder::<FileOpen>::new(EventType::FileOpen);
        put_asking(&mut record, question, key, deadline);
        record.part.file = file(&mut record, question);
        return record.finish();
    }
    let mut record = RecordBuilder::<ProcessExec>::new(EventType::ProcessExec);
    put_asking(&mut record, question, key, deadline);
    record.part.file = file(&mut record, question);
    record.part.name = record.part.file.path;
    record.finish()
}

/// All that comes before the event's own part.
fn put_asking<T: Part>(
    record: &mut RecordBuilder<T>,
    question: &Question,
    key: Option<ProcessKey>,
    deadline: Time,
) {
    record.header.event_id = question.event_id;
    record.header.time = question.time;
    record.header.deadline = deadline.0;
    record.header.classes = CLASS_ASK;
    record.header.flags |= FLAG_INCOMPLETE;
    record.actor.process.pid = question.process.pid;
    record.actor.process.start = key.map_or(question.process.start, |key| key.start);
    if let Ok(process) = Held::open(question.process.pid).and_then(|held| Process::read(&held)) {
        put_actor(record, &process);
    }
}

fn put_actor<T: Part>(record: &mut RecordBuilder<T>, process: &Process) {
    let ([uid, euid, suid, fsuid], [gid, egid, sgid, fsgid]) = (process.uids, process.gids);
    let number = |inode: u64| u32::try_from(inode).unwrap_or_default();
    let parent = abi::ProcessKey { pid: process.parent, ..Default::default() };
    let executable = process.executable.as_ref().map_or_else(File::default, |executable| File {
        device: executable.device,
        inode: executable.inode,
        path: record.path(&executable.path),
        ..File::default()
    });
    let mut comm = [0; 16];
    for (place, byte) in comm.iter_mut().take(15).zip(process.name.bytes()) {
        *place = byte;
    }
    record.actor = Actor {
        parent,
        uid,
        euid,
        suid,
        fsuid,
        gid,
        egid,
        sgid,
        fsgid,
        login_uid: u32::MAX,
        user_namespace: number(process.namespaces.user),
        pid_namespace: number(process.namespaces.pid),
        mount_namespace: number(process.namespaces.mount),
        net_namespace: number(process.namespaces.net),
        executable,
        comm,
        ..record.actor
    };
}

/// What is about to be executed or opened, of the descriptor that came with the question.
fn file<T: Part>(record: &mut RecordBuilder<T>, question: &Question) -> File {
    let Some(descriptor) = &question.descriptor else { return File::default() };
    let link = format!("/proc/self/fd/{}", descriptor.as_raw_fd());
    let path = rustix::fs::readlink(link, Vec::new()).unwrap_or_default().into_bytes();
    let probes::FileKey { device, inode, version } = question.file;
    let mut file = File { device, inode, version, path: record.path(&path), ..File::default() };
    if let Ok(found) = statx(descriptor, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS) {
        (file.size, file.mode) = (found.stx_size, found.stx_mode.into());
        (file.uid, file.gid, file.links) = (found.stx_uid, found.stx_gid, found.stx_nlink);
    }
    file
}
