// SPDX-License-Identifier: Apache-2.0
//! What is built is read back; what is damaged is an error with a reason, and never a panic.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use abi::*;
use proptest::prelude::*;
use support::{exec, put, sample_of_each};

const HEADER_BODY: usize = std::mem::offset_of!(Header, body);
const HEADER_TAIL: usize = std::mem::offset_of!(Header, tail);
const HEADER_TYPE: usize = std::mem::offset_of!(Header, r#type);
const HEADER_VERSION: usize = std::mem::offset_of!(Header, version);
const BODY: usize = size_of::<Header>() + size_of::<Actor>();

#[test]
fn an_exec_is_read_back_with_all_its_strings() {
    let buffer = exec(b"/usr/bin/env", &[b"env", b"", b"-i"]);
    let record = buffer.record().unwrap();
    assert_eq!(record.event_type(), Some(EventType::ProcessExec));
    assert_eq!(record.executable_path(), b"/usr/bin/bash");
    assert_eq!(record.actor().unwrap().name(), b"bash");
    let Event::ProcessExec(exec) = record.event() else { panic!("{record:?}") };
    assert_eq!(exec.path(), b"/usr/bin/env");
    assert_eq!(exec.arguments().collect::<Vec<_>>(), [&b"env"[..], b"", b"-i"]);
    assert_eq!(exec.script(), b"");
    assert_eq!(exec.argument_count, 3);
    assert!(exec.rest().is_empty());
}

#[test]
fn every_type_that_has_a_part_is_built_and_read_back() {
    let samples = sample_of_each();
    for (event, buffer) in &samples {
        let record = buffer.record().unwrap_or_else(|error| panic!("{event}: {error}"));
        assert_eq!(record.event_type(), Some(*event));
        assert!(!matches!(record.event(), Event::Unknown { .. }), "{event}");
    }
    let without: Vec<_> =
        EventType::ALL.iter().filter(|e| !samples.iter().any(|(s, _)| s == *e)).collect();
    let unsettled = [EventType::TamperAttempt, EventType::KernelLockDenied];
    assert_eq!(without, unsettled.iter().collect::<Vec<_>>());
}

#[test]
fn the_strings_of_an_event_are_shown_by_the_names_of_their_fields() {
    let buffer = exec(b"/usr/bin/env", &[b"env"]);
    let record = buffer.record().unwrap();
    let mut seen = Vec::new();
    record.event().strings(&mut |field, string| seen.push((field, record.text(string))));
    let expected: [(&str, &[u8]); 4] =
        [("file.path", b"/usr/bin/env"), ("script", b""), ("name", b""), ("arguments", b"env\0")];
    assert_eq!(seen, expected);
}

#[test]
fn events_that_nobody_did_have_no_actor() {
    let mut builder = RecordBuilder::<ShuttingDown>::new(EventType::ShuttingDown);
    assert!(builder.clone().finish().record().unwrap().actor().is_none());
    builder.header.flags = FLAG_KERNEL_ACTOR;
    assert!(builder.finish().record().unwrap().actor().is_some());
}

#[test]
fn a_longer_part_is_read_and_what_follows_is_kept() {
    let mut bytes = exec(b"/bin/true", &[]).as_bytes().to_vec();
    let tail = BODY + size_of::<ProcessExec>();
    let later = [0xaa; 16];
    bytes.splice(tail..tail, later);
    let size = bytes.len() as u32;
    put(&mut bytes, 0, &size.to_le_bytes());
    put(&mut bytes, HEADER_TAIL, &(tail as u16 + 16).to_le_bytes());
    // The strings moved by as much.
    let path = BODY + std::mem::offset_of!(ProcessExec, file) + std::mem::offset_of!(File, path);
    let actor_path = size_of::<Header>()
        + std::mem::offset_of!(Actor, executable)
        + std::mem::offset_of!(File, path);
    for at in [path, actor_path] {
        let offset = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) + 16;
        put(&mut bytes, at, &offset.to_le_bytes());
    }
    let buffer = RecordBuffer::copy_of(&bytes);
    let record = buffer.record().unwrap();
    let Event::ProcessExec(exec) = record.event() else { panic!("{record:?}") };
    assert_eq!(exec.path(), b"/bin/true");
    assert_eq!(exec.rest(), later);
}

#[test]
fn a_record_that_does_not_say_where_its_tail_begins_has_parts_as_they_are_known() {
    let mut buffer = exec(b"/bin/true", &[b"true"]);
    put(buffer.as_mut_bytes(), HEADER_TAIL, &[0, 0]);
    let record = buffer.record().unwrap();
    let Event::ProcessExec(exec) = record.event() else { panic!("{record:?}") };
    assert_eq!(exec.path(), b"/bin/true");
    assert!(exec.rest().is_empty());
}

#[test]
fn a_shorter_part_is_an_error_that_names_both_sizes() {
    let mut buffer = exec(b"/bin/true", &[]);
    put(buffer.as_mut_bytes(), HEADER_TAIL, &(BODY as u16 + 8).to_le_bytes());
    let error = buffer.record().unwrap_err();
    let needed = size_of::<ProcessExec>();
    assert_eq!(
        error,
        RecordError::PartTooShort { event: EventType::ProcessExec, length: 8, needed }
    );
    assert_eq!(
        error.to_string(),
        "the part of process_exec has 8 bytes here, and 136 in every version of it"
    );
}

#[test]
fn an_unknown_type_is_no_error_but_its_actor_is_checked_all_the_same() {
    let mut buffer = exec(b"/bin/true", &[]);
    put(buffer.as_mut_bytes(), HEADER_TYPE, &60_u16.to_le_bytes());
    let record = buffer.record().unwrap();
    assert!(matches!(record.event(), Event::Unknown { event_type: 60, part } if part.len() == 136));
    assert_eq!(record.executable_path(), b"/usr/bin/bash");
    let actor_path = size_of::<Header>()
        + std::mem::offset_of!(Actor, executable)
        + std::mem::offset_of!(File, path);
    put(buffer.as_mut_bytes(), actor_path, &u32::MAX.to_le_bytes());
    assert!(matches!(
        buffer.record(),
        Err(RecordError::String { field: "actor.executable.path", .. })
    ));
}

#[test]
fn each_damage_has_its_own_error() {
    let good = exec(b"/bin/true", &[]);
    let size = good.as_bytes().len() as u32;
    let after = |at: usize, bytes: &[u8]| {
        let mut buffer = good.clone();
        put(buffer.as_mut_bytes(), at, bytes);
        buffer.record().unwrap_err()
    };
    assert_eq!(
        after(0, &(size + 8).to_le_bytes()),
        RecordError::SizeDiffers { says: size + 8, length: size as usize }
    );
    assert_eq!(after(HEADER_VERSION, &[9, 0]), RecordError::Version { version: 9 });
    for body in [0, 80, BODY as u16 - 8, BODY as u16 + 4, size as u16 + 8] {
        let error = after(HEADER_BODY, &body.to_le_bytes());
        assert_eq!(error, RecordError::Body { body, size }, "{error}");
    }
    for tail in [8, BODY as u16 - 1, size as u16 + 1] {
        let error = after(HEADER_TAIL, &tail.to_le_bytes());
        assert_eq!(error, RecordError::Tail { tail, body: BODY as u16, size }, "{error}");
    }
    let short = Record::parse(&good.as_bytes()[..BODY - 8]).unwrap_err();
    assert_eq!(short, RecordError::TooShort { length: BODY - 8 });
    let mut shifted = RecordBuffer::copy_of(&[&[0; 4], good.as_bytes()].concat());
    let bytes = &shifted.as_mut_bytes()[4..4 + size as usize];
    assert_eq!(Record::parse(bytes).unwrap_err(), RecordError::Unaligned);
    let mut long = RecordBuffer::copy_of(&vec![0; RECORD_MAX + 8]);
    put(long.as_mut_bytes(), 0, &(RECORD_MAX as u32 + 8).to_le_bytes());
    let says = RECORD_MAX as u32 + 8;
    assert_eq!(long.record().unwrap_err(), RecordError::ImpossibleSize { says });
}

#[test]
fn a_string_that_leads_out_of_the_tail_is_refused_by_its_name() {
    let at = BODY + std::mem::offset_of!(ProcessExec, script);
    for (offset, length) in [(1, 0), (16, 8), (0, 4), (u32::MAX, u16::MAX), (448, 60_000)] {
        let mut buffer = exec(b"/bin/true", &[]);
        put(buffer.as_mut_bytes(), at, &u32::to_le_bytes(offset));
        put(buffer.as_mut_bytes(), at + 4, &u16::to_le_bytes(length));
        let error = buffer.record().unwrap_err();
        assert!(matches!(error, RecordError::String { field: "script", .. }), "{error}");
    }
}

#[test]
fn what_is_too_long_is_truncated_where_it_says_least_and_says_so() {
    let mut builder = RecordBuilder::<ProcessExec>::new(EventType::ProcessExec);
    let long: Vec<u8> = (0..5_000).map(|i| b'a' + (i % 26) as u8).collect();
    builder.part.file.path = builder.path(&long);
    builder.part.arguments = builder.arguments([&long[..]]);
    builder.part.name = builder.text(&long);
    let buffer = builder.finish();
    let record = buffer.record().unwrap();
    let Event::ProcessExec(exec) = record.event() else { panic!("{record:?}") };
    assert_eq!(exec.path(), &long[5_000 - PATH_MAX..]);
    assert_eq!(exec.arguments().collect::<Vec<_>>(), [&long[..ARGUMENTS_MAX]]);
    assert_eq!(exec.name(), &long[..RECORD_MAX - BODY - 136 - PATH_MAX - ARGUMENTS_MAX]);
    assert_eq!(exec.file.path.flags & STRING_TRUNCATED, STRING_TRUNCATED);
    assert_eq!(record.header().flags & FLAG_TRUNCATED, FLAG_TRUNCATED);
}

#[test]
fn records_that_follow_each_other_are_read_one_after_another() {
    let two = [exec(b"/bin/a", &[]), exec(b"/bin/b", &[b"b"])];
    let all = RecordBuffer::copy_of(&[two[0].as_bytes(), two[1].as_bytes()].concat());
    let (first, rest) = Record::parse_first(all.as_bytes()).unwrap().unwrap();
    assert_eq!(first.bytes(), two[0].as_bytes());
    let (second, rest) = Record::parse_first(rest).unwrap().unwrap();
    assert_eq!(second.bytes(), two[1].as_bytes());
    assert!(Record::parse_first(rest).is_none());
    assert!(Record::parse_first(&all.as_bytes()[..40]).unwrap().is_err());
}

/// Looks at all that a record has.
fn touch(record: &Record<'_>) -> usize {
    let text = format!("{record:?}");
    text.len() + record.executable_path().len()
}

proptest! {
    #[test]
    fn any_strings_are_read_back(
        path in prop::collection::vec(any::<u8>(), 0..200),
        name in prop::collection::vec(any::<u8>(), 0..200),
        arguments in prop::collection::vec(prop::collection::vec(1..=u8::MAX, 0..20), 0..20),
        time: u64,
        pid in 1..u32::MAX,
    ) {
        let mut builder = RecordBuilder::<ProcessExec>::new(EventType::ProcessExec);
        builder.part.file.path = builder.path(&path);
        builder.part.name = builder.text(&name);
        builder.part.arguments = builder.arguments(arguments.iter().map(Vec::as_slice));
        builder.header.time = time;
        builder.actor.process.pid = pid;
        let buffer = builder.finish();
        let record = buffer.record().unwrap();
        prop_assert_eq!(record.header().time, time);
        prop_assert_eq!(record.actor().unwrap().process.pid, pid);
        let Event::ProcessExec(exec) = record.event() else { panic!("{record:?}") };
        prop_assert_eq!(exec.path(), &path);
        prop_assert_eq!(exec.name(), &name);
        prop_assert_eq!(exec.arguments().map(<[u8]>::to_vec).collect::<Vec<_>>(), arguments);
    }

    #[test]
    fn a_damaged_record_is_read_or_refused(
        which in 0..22_usize,
        damage in prop::collection::vec((0..600_usize, any::<u8>()), 1..8),
        cut in 0..64_usize,
    ) {
        let (_, mut buffer) = sample_of_each().swap_remove(which);
        let bytes = buffer.as_mut_bytes();
        for (at, value) in damage {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        if let Ok(record) = buffer.record() {
            touch(&record);
        }
        let kept = buffer.as_bytes().len().saturating_sub(cut);
        if let Ok(record) = Record::parse(&buffer.as_bytes()[..kept]) {
            touch(&record);
        }
    }
}
