// SPDX-License-Identifier: Apache-2.0
//! An event as one line for people.

use abi::{Event, EventType, FLAG_KERNEL_ACTOR, Outcome, ProcessKey, Record};

use super::words::{self, bits, event_type, word};
use crate::clock::Clock;
use crate::screen::{Style, Tone};

/// `12:01:33.125 process_exec       bash[100] uid 0: /usr/bin/env "-i"`
pub(super) fn line(record: &Record<'_>, clock: Clock, style: Style) -> String {
    let header = record.header();
    let time = style.paint(Tone::Faint, &clock.moment(header.time).time_of_day());
    let kind = style.paint(Tone::Heading, &format!("{:<19}", event_type(header.r#type)));
    let mut text = format!("{time} {kind}");
    if let Some(actor) = record.actor() {
        let name = shown(actor.name());
        text.push_str(&format!(" {name}[{}]", actor.process.pid));
        if header.flags & FLAG_KERNEL_ACTOR == 0 {
            text.push_str(&format!(" uid {}", actor.uid));
            if actor.euid != actor.uid {
                text.push_str(&format!(" as {}", actor.euid));
            }
        }
        text.push(':');
    }
    let details = details(record.event());
    text.push(' ');
    match record.event() {
        Event::Loss(_) | Event::DeadlineMissed(_) | Event::StageChanged(_) => {
            text.push_str(&style.paint(Tone::Unknown, &details));
        }
        Event::KernelFinding(_) => text.push_str(&style.paint(Tone::Bad, &details)),
        _ => text.push_str(&details),
    }
    if record.is_ask() {
        text.push_str(" (asked)");
    }
    if record.outcome() == Some(Outcome::Denied) {
        let denied = format!(" denied, error {}", header.error);
        text.push_str(&style.paint(Tone::Bad, &denied));
    }
    text.trim_end().to_owned()
}

/// What was lost before a record, as a line of its own.
pub(super) fn gap(missed: u64, style: Style) -> String {
    let noun = if missed == 1 { "record was" } else { "records were" };
    style.paint(Tone::Unknown, &format!("({missed} {noun} lost here)"))
}

/// Bytes of others as text that does nothing to a terminal.
fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        // Marks that turn the direction of text round are no control characters, and hide as much.
        let turns = matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if character.is_control() || turns {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// A path, or what stands for it where there is none.
fn path(bytes: &[u8]) -> String {
    if bytes.is_empty() { "(no name)".to_owned() } else { shown(bytes) }
}

fn process(key: ProcessKey, executable: &[u8]) -> String {
    format!("{} [{}]", path(executable), key.pid)
}

fn memory(file: &abi::File, name: &[u8]) -> String {
    if file.is_known() || !name.is_empty() { path(name) } else { "anonymous memory".to_owned() }
}

fn details(event: Event<'_>) -> String {
    match event {
        Event::ProcessExec(exec) => {
            let mut text = path(exec.path());
            if !exec.script().is_empty() {
                text.push_str(&format!(" for {}", shown(exec.script())));
            }
            for argument in exec.arguments().skip(1) {
                text.push_str(&format!(" {:?}", shown(argument)));
            }
            text
        }
        Event::ProcessFork(fork) => format!("child {}", fork.child.pid),
        Event::ThreadCreate(thread) => format!("thread {}", thread.thread),
        Event::ProcessExit(exit) => {
            let how = match exit.signal {
                0 => format!("code {}", exit.code),
                signal => format!("killed by signal {signal}"),
            };
            format!("{how} after {}", duration(exit.lifetime))
        }
        Event::ProcessSignal(signal) => {
            format!(
                "signal {} to {}",
                signal.signal,
                process(signal.target, signal.executable_path())
            )
        }
        Event::ProcessTrace(trace) => format!(
            "{} {}",
            word(trace.access, words::TRACE),
            process(trace.target, trace.executable_path())
        ),
        Event::ProcessCredentials(new) => format!(
            "{}: uid {} {} {} gid {} {} {}",
            word(new.by, words::CREDENTIALS),
            new.uid,
            new.euid,
            new.suid,
            new.gid,
            new.egid,
            new.sgid
        ),
        Event::ImageMap(map) => {
            format!("{} {}", path(map.path()), bits(map.protection, words::PROTECTION).join("+"))
        }
        Event::ModuleLoad(load) => format!("{} from {}", named(load.name()), path(load.path())),
        Event::ModuleUnload(unload) => shown(unload.name()),
        Event::BpfLoad(bpf) => format!(
            "{} type {} with {} instructions",
            named(bpf.name()),
            bpf.program_type,
            bpf.instructions
        ),
        Event::KexecLoad(load) | Event::FirmwareLoad(load) => {
            format!("{} from {}", named(load.name()), path(load.path()))
        }
        Event::MemoryMap(map) => format!(
            "{} {} at {:#x}, {} bytes",
            memory(&map.file, map.path()),
            bits(map.protection, words::PROTECTION).join("+"),
            map.address,
            map.length
        ),
        Event::MemoryProtect(protect) => format!(
            "{} from {} to {} at {:#x}, {} bytes",
            memory(&protect.file, protect.path()),
            bits(protect.before, words::PROTECTION).join("+"),
            bits(protect.after, words::PROTECTION).join("+"),
            protect.address,
            protect.length
        ),
        Event::MemoryAccess(access) => format!(
            "{} of {} by {}",
            word(access.access, words::ACCESS),
            process(access.target, access.executable_path()),
            word(access.by, words::ACCESS_BY)
        ),
        Event::MemoryFileless(fileless) => {
            format!("{} of {}", word(fileless.how, words::FILELESS), path(fileless.path()))
        }
        Event::FileOpen(open) => {
            let access = bits(open.access, words::PROTECTION).join("+");
            // Fanotify does not tell it.
            let access = if access.is_empty() { String::new() } else { format!(" to {access}") };
            format!("{}{access}", path(open.path()))
        }
        Event::FileModify(modify) => {
            format!("{}, {}", path(modify.path()), word(modify.how, words::MODIFY))
        }
        Event::KernelFinding(finding) => {
            let (check, technique) = (shown(finding.check()), shown(finding.technique()));
            let state = word(finding.state, words::FINDING);
            format!("{check}: {technique}{} ({state})", symbol(finding.finding()))
        }
        Event::Loss(loss) => {
            let types: Vec<_> = loss
                .types()
                .map(|(number, count)| match EventType::from_number(number) {
                    Some(event) => format!("{count} {event}"),
                    None => format!("{count} of type {number}"),
                })
                .collect();
            let why = word(loss.why, words::LOST);
            format!("{} records lost, {why}: {}", loss.records, types.join(", "))
        }
        Event::DeadlineMissed(missed) => {
            let demoted = if missed.demoted != 0 { "; no longer asked" } else { "" };
            format!("event {}, {} within a minute{demoted}", missed.missed_event_id, missed.misses)
        }
        Event::StageChanged(stage) => format!(
            "{} from {} to {}: {}",
            event_type(stage.event_type),
            word(stage.before.into(), words::STAGE),
            word(stage.after.into(), words::STAGE),
            shown(stage.reason())
        ),
        Event::ShuttingDown(end) => word(end.why, words::SHUTDOWN),
        Event::Unknown { part, .. } => {
            format!("{} bytes that this version cannot read", part.len())
        }
        // Newer than this command.
        _ => String::new(),
    }
}

/// Where a finding is, if it says so.
fn symbol(finding: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Place {
        symbol: Option<String>,
        offset: u64,
    }
    match serde_json::from_slice(finding) {
        Ok(Place { symbol: Some(symbol), offset: 0 }) => format!(", {}", shown(symbol.as_bytes())),
        Ok(Place { symbol: Some(symbol), offset }) => {
            format!(", {}+{offset:#x}", shown(symbol.as_bytes()))
        }
        _ => String::new(),
    }
}

fn named(name: &[u8]) -> String {
    if name.is_empty() { "(unnamed)".to_owned() } else { shown(name) }
}

fn duration(nanoseconds: u64) -> String {
    match nanoseconds {
        0..10_000_000 => format!("{} µs", nanoseconds / 1_000),
        10_000_000..10_000_000_000 => format!("{} ms", nanoseconds / 1_000_000),
        _ => format!("{} s", nanoseconds / 1_000_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_name_does_nothing_to_a_terminal() {
        assert_eq!(shown(b"a\x1b[2Jb\n"), "a\\u{1b}[2Jb\\n");
        assert_eq!(shown("é\u{202e}txt.exe".as_bytes()), "é\\u{202e}txt.exe");
        assert_eq!(shown(b"a\xffb"), "a\u{fffd}b");
    }
}
