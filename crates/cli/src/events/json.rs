// SPDX-License-Identifier: Apache-2.0
//! An event as one JSON object, as docs/events.md describes it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use abi::{Event, Record, STRING_TRUNCATED, STRING_UNREACHABLE, StringRef, View};
use serde::Serialize;
use serde_json::Value;

use super::words::{self, bits, event_type, word};
use crate::clock::{Clock, Moment};

/// One line of `ringfence events --json`.
#[derive(Serialize)]
pub(super) struct Line<'a> {
    sequence: u64,
    missed: u64,
    r#type: String,
    classes: Vec<&'static str>,
    outcome: Cow<'static, str>,
    error: Option<u16>,
    flags: Vec<String>,
    rule: Option<u32>,
    lost: u64,
    global_sequence: u64,
    time: Moment,
    time_ns: u64,
    event_id: u64,
    deadline_ns: Option<u64>,
    boot_id: String,
    actor: Option<Actor<'a>>,
    event: Part<'a>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    inexact: BTreeMap<String, Inexact>,
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<String>,
}

#[derive(Serialize)]
struct Key {
    pid: u32,
    start_ns: u64,
}

#[derive(Serialize)]
struct Actor<'a> {
    process: Key,
    parent: Key,
    thread: u32,
    name: Cow<'a, str>,
    executable: Option<File<'a>>,
    uid: u32,
    gid: u32,
    euid: u32,
    egid: u32,
    suid: u32,
    sgid: u32,
    fsuid: u32,
    fsgid: u32,
    login_uid: Option<u32>,
    session: u32,
    group: u32,
    effective: String,
    permitted: String,
    namespaces: Namespaces,
    cgroup: u64,
}

#[derive(Serialize)]
struct Namespaces {
    user: u32,
    pid: u32,
    mount: u32,
    net: u32,
}

#[derive(Serialize)]
struct File<'a> {
    path: Cow<'a, str>,
    device: String,
    inode: u64,
    version: u64,
    size: u64,
    mode: String,
    uid: u32,
    gid: u32,
    links: u32,
    flags: Vec<String>,
    digest: Option<Digest>,
}

#[derive(Serialize)]
struct Digest {
    algorithm: String,
    hex: String,
}

/// What a string really is where its text does not say it.
#[derive(Serialize)]
struct Inexact {
    #[serde(skip_serializing_if = "Option::is_none")]
    hex: Option<String>,
    truncated: bool,
    unreachable: bool,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Part<'a> {
    Exec {
        file: Option<File<'a>>,
        script: Option<Cow<'a, str>>,
        name: Cow<'a, str>,
        arguments: Vec<Cow<'a, str>>,
        argument_count: u32,
        environment_count: u32,
        flags: Vec<String>,
    },
    Fork {
        child: Key,
        thread: u32,
        inner_pid: u32,
    },
    Exit {
        code: u32,
        signal: Option<u32>,
        dumped: bool,
        lifetime_ns: u64,
        user_time_ns: u64,
        system_time_ns: u64,
    },
    Signal {
        target: Key,
        thread: Option<u32>,
        signal: u32,
        code: i32,
        executable: Option<File<'a>>,
    },
    Trace {
        target: Key,
        access: String,
        thread: u32,
        executable: Option<File<'a>>,
    },
    Credentials {
        by: String,
        uid: u32,
        gid: u32,
        euid: u32,
        egid: u32,
        suid: u32,
        sgid: u32,
        fsuid: u32,
        fsgid: u32,
        effective: String,
        permitted: String,
    },
    ImageMap {
        file: Option<File<'a>>,
        address: String,
        length: u64,
        offset: u64,
        protection: Vec<String>,
        flags: String,
    },
    /// Modules, kernels, firmware.
    Load {
        file: Option<File<'a>>,
        name: Cow<'a, str>,
        from: String,
    },
    Unload {
        name: Cow<'a, str>,
    },
    Bpf {
        name: Cow<'a, str>,
        program_type: u32,
        attach_type: u32,
        attach_btf_id: u32,
        instructions: u32,
    },
    Map {
        address: String,
        length: u64,
        protection: Vec<String>,
        flags: String,
        file: Option<File<'a>>,
    },
    Protect {
        address: String,
        length: u64,
        before: Vec<String>,
        after: Vec<String>,
        file: Option<File<'a>>,
    },
    Access {
        target: Key,
        access: String,
        by: String,
        executable: Option<File<'a>>,
    },
    Fileless {
        file: Option<File<'a>>,
        how: String,
    },
    Open {
        file: Option<File<'a>>,
        access: Vec<String>,
        flags: String,
    },
    Modify {
        file: Option<File<'a>>,
        how: String,
        flags: String,
    },
    Finding {
        check: Cow<'a, str>,
        technique: Cow<'a, str>,
        finding: Value,
        state: String,
        found_ns: u64,
    },
    Loss {
        records: u64,
        why: String,
        by_type: BTreeMap<String, u32>,
    },
    Deadline {
        missed_event_id: u64,
        took_ns: Option<u64>,
        misses: u32,
        demoted: bool,
    },
    Stage {
        event_type: String,
        before: String,
        after: String,
        reason: Cow<'a, str>,
    },
    Shutdown {
        why: String,
    },
    Unknown {
        part_hex: String,
    },
}

impl<'a> Line<'a> {
    /// A record that came with this number, so many after the one before it having been lost.
    pub(super) fn of(record: &Record<'a>, sequence: u64, missed: u64, clock: Clock) -> Self {
        let header = record.header();
        let outcome = record.outcome();
        Self {
            sequence,
            missed,
            r#type: event_type(header.r#type),
            classes: record.classes().iter().map(abi::Class::name).collect(),
            outcome: outcome.map_or_else(|| header.outcome.to_string().into(), |o| o.name().into()),
            error: (header.error != 0).then_some(header.error),
            flags: bits(header.flags, words::RECORD),
            rule: (header.rule != 0).then_some(header.rule),
            lost: header.lost,
            global_sequence: header.global_sequence,
            time: clock.moment(header.time),
            time_ns: header.time,
            event_id: header.event_id,
            deadline_ns: (header.deadline != 0).then_some(header.deadline),
            boot_id: uuid(&header.boot_id),
            actor: record.actor().map(|actor| self::actor(record, actor)),
            event: part(record.event()),
            inexact: inexact(record),
            record: None,
        }
    }

    /// With the record as it came.
    pub(super) fn with_record(self, record: &Record<'_>) -> Self {
        Self { record: Some(hex(record.bytes())), ..self }
    }
}

fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// 16 bytes in the order of a UUID's text.
fn uuid(bytes: &[u8; 16]) -> String {
    let mut text = hex(bytes);
    for at in [20, 16, 12, 8] {
        text.insert(at, '-');
    }
    text
}

fn key(key: abi::ProcessKey) -> Key {
    Key { pid: key.pid, start_ns: key.start }
}

/// `None` where there is no file.
fn file<'a>(file: &abi::File, path: &'a [u8]) -> Option<File<'a>> {
    (file.is_known() || !path.is_empty()).then(|| File {
        path: lossy(path),
        device: format!("{}:{}", file.device >> 20, file.device & 0xf_ffff),
        inode: file.inode,
        version: file.version,
        size: file.size,
        mode: format!("{:06o}", file.mode),
        uid: file.uid,
        gid: file.gid,
        links: file.links,
        flags: bits(file.flags, words::FILE),
        digest: file.verity_digest().map(|(algorithm, digest)| Digest {
            algorithm: word(algorithm, words::DIGEST),
            hex: hex(digest),
        }),
    })
}

fn actor<'a>(record: &Record<'a>, actor: &'a abi::Actor) -> Actor<'a> {
    Actor {
        process: key(actor.process),
        parent: key(actor.parent),
        thread: actor.thread,
        name: lossy(actor.name()),
        executable: file(&actor.executable, record.executable_path()),
        uid: actor.uid,
        gid: actor.gid,
        euid: actor.euid,
        egid: actor.egid,
        suid: actor.suid,
        sgid: actor.sgid,
        fsuid: actor.fsuid,
        fsgid: actor.fsgid,
        login_uid: (actor.login_uid != u32::MAX).then_some(actor.login_uid),
        session: actor.session,
        group: actor.group,
        effective: format!("{:#x}", actor.effective),
        permitted: format!("{:#x}", actor.permitted),
        namespaces: Namespaces {
            user: actor.user_namespace,
            pid: actor.pid_namespace,
            mount: actor.mount_namespace,
            net: actor.net_namespace,
        },
        cgroup: actor.cgroup,
    }
}

fn load<'a>(view: View<'a, abi::KernelLoad>) -> Part<'a> {
    Part::Load {
        file: file(&view.file, view.path()),
        name: lossy(view.name()),
        from: word(view.from, words::FROM),
    }
}

fn fork(view: View<'_, abi::ProcessFork>) -> Part<'static> {
    Part::Fork { child: key(view.child), thread: view.thread, inner_pid: view.inner_pid }
}

fn part(event: Event<'_>) -> Part<'_> {
    match event {
        Event::ProcessExec(exec) => Part::Exec {
            file: file(&exec.file, exec.path()),
            script: Some(lossy(exec.script())).filter(|script| !script.is_empty()),
            name: lossy(exec.name()),
            arguments: exec.arguments().map(lossy).collect(),
            argument_count: exec.argument_count,
            environment_count: exec.environment_count,
            flags: bits(exec.flags, words::EXEC),
        },
        Event::ProcessFork(view) | Event::ThreadCreate(view) => fork(view),
        Event::ProcessExit(exit) => Part::Exit {
            code: exit.code,
            signal: (exit.signal != 0).then_some(exit.signal),
            dumped: exit.dumped != 0,
            lifetime_ns: exit.lifetime,
            user_time_ns: exit.user_time,
            system_time_ns: exit.system_time,
        },
        Event::ProcessSignal(signal) => Part::Signal {
            target: key(signal.target),
            thread: (signal.thread != 0).then_some(signal.thread),
            signal: signal.signal,
            code: signal.code,
            executable: file(&signal.executable, signal.executable_path()),
        },
        Event::ProcessTrace(trace) => Part::Trace {
            target: key(trace.target),
            access: word(trace.access, words::TRACE),
            thread: trace.thread,
            executable: file(&trace.executable, trace.executable_path()),
        },
        Event::ProcessCredentials(new) => Part::Credentials {
            by: word(new.by, words::CREDENTIALS),
            uid: new.uid,
            gid: new.gid,
            euid: new.euid,
            egid: new.egid,
            suid: new.suid,
            sgid: new.sgid,
            fsuid: new.fsuid,
            fsgid: new.fsgid,
            effective: format!("{:#x}", new.effective),
            permitted: format!("{:#x}", new.permitted),
        },
        Event::ImageMap(map) => Part::ImageMap {
            file: file(&map.file, map.path()),
            address: format!("{:#x}", map.address),
            length: map.length,
            offset: map.offset,
            protection: bits(map.protection, words::PROTECTION),
            flags: format!("{:#x}", map.flags),
        },
        Event::ModuleLoad(view) => Part::Load {
            file: file(&view.file, view.path()),
            name: lossy(view.name()),
            from: word(view.from, words::FROM),
        },
        Event::ModuleUnload(view) => Part::Unload { name: lossy(view.name()) },
        Event::BpfLoad(bpf) => Part::Bpf {
            name: lossy(bpf.name()),
            program_type: bpf.program_type,
            attach_type: bpf.attach_type,
            attach_btf_id: bpf.attach_btf_id,
            instructions: bpf.instructions,
        },
        Event::KexecLoad(view) | Event::FirmwareLoad(view) => load(view),
        Event::MemoryMap(map) => Part::Map {
            address: format!("{:#x}", map.address),
            length: map.length,
            protection: bits(map.protection, words::PROTECTION),
            flags: format!("{:#x}", map.flags),
            file: file(&map.file, map.path()),
        },
        Event::MemoryProtect(protect) => Part::Protect {
            address: format!("{:#x}", protect.address),
            length: protect.length,
            before: bits(protect.before, words::PROTECTION),
            after: bits(protect.after, words::PROTECTION),
            file: file(&protect.file, protect.path()),
        },
        Event::MemoryAccess(access) => Part::Access {
            target: key(access.target),
            access: word(access.access, words::ACCESS),
            by: word(access.by, words::ACCESS_BY),
            executable: file(&access.executable, access.executable_path()),
        },
        Event::MemoryFileless(fileless) => Part::Fileless {
            file: file(&fileless.file, fileless.path()),
            how: word(fileless.how, words::FILELESS),
        },
        Event::FileOpen(open) => Part::Open {
            file: file(&open.file, open.path()),
            access: bits(open.access, words::PROTECTION),
            flags: format!("{:#x}", open.flags),
        },
        Event::FileModify(modify) => Part::Modify {
            file: file(&modify.file, modify.path()),
            how: word(modify.how, words::MODIFY),
            flags: format!("{:#x}", modify.flags),
        },
        Event::KernelFinding(finding) => Part::Finding {
            check: lossy(finding.check()),
            technique: lossy(finding.technique()),
            // Truncated, it is no JSON; then its text is what there is.
            finding: serde_json::from_slice(finding.finding())
                .unwrap_or_else(|_| lossy(finding.finding()).into()),
            state: word(finding.state, words::FINDING),
            found_ns: finding.found,
        },
        Event::Loss(loss) => Part::Loss {
            records: loss.records,
            why: word(loss.why, words::LOST),
            by_type: loss.types().map(|(number, count)| (event_type(number), count)).collect(),
        },
        Event::DeadlineMissed(missed) => Part::Deadline {
            missed_event_id: missed.missed_event_id,
            took_ns: (missed.took != 0).then_some(missed.took),
            misses: missed.misses,
            demoted: missed.demoted != 0,
        },
        Event::StageChanged(stage) => Part::Stage {
            event_type: event_type(stage.event_type),
            before: word(stage.before.into(), words::STAGE),
            after: word(stage.after.into(), words::STAGE),
            reason: lossy(stage.reason()),
        },
        Event::ShuttingDown(end) => Part::Shutdown { why: word(end.why, words::SHUTDOWN) },
        Event::Unknown { part, .. } => Part::Unknown { part_hex: hex(part) },
        // Newer than this command.
        _ => Part::Unknown { part_hex: String::new() },
    }
}

/// The strings whose text is not all there is to know of them, by their fields in this object.
fn inexact(record: &Record<'_>) -> BTreeMap<String, Inexact> {
    let mut found = BTreeMap::new();
    let mut look = |field: String, string: StringRef| {
        let bytes = record.text(string);
        let not_text = std::str::from_utf8(bytes).is_err();
        if not_text || string.flags != 0 {
            found.insert(
                field,
                Inexact {
                    hex: not_text.then(|| hex(bytes)),
                    truncated: string.flags & STRING_TRUNCATED != 0,
                    unreachable: string.flags & STRING_UNREACHABLE != 0,
                },
            );
        }
    };
    if let Some(actor) = record.actor() {
        look("actor.executable.path".to_owned(), actor.executable.path);
    }
    record.event().strings(&mut |field, string| look(format!("event.{field}"), string));
    found
}
