// SPDX-License-Identifier: Apache-2.0
//! The reader of a ring against a producer that does as the kernel does, and against one that does
//! anything.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use abi::{EventType, ProcessExit, RecordBuffer, RecordBuilder};
use proptest::prelude::*;
use sdk::simulated::{Reserved, RingWriter};
use sdk::{Ring, RingError, Waited};

const SIZE: usize = 16 << 10;

fn ring(size: usize) -> (RingWriter, Ring) {
    let writer = RingWriter::new(size).unwrap();
    let ring = Ring::new(writer.descriptor().unwrap()).unwrap();
    assert_eq!(ring.size(), size as u64);
    (writer, ring)
}

/// A record whose event id is its number in the stream.
fn record(number: u64, lost: u64, extra: usize) -> RecordBuffer {
    let mut builder = RecordBuilder::<ProcessExit>::new(EventType::ProcessExit);
    builder.header.event_id = number;
    builder.header.lost = lost;
    let _ = builder.long_text(&vec![b'x'; extra]);
    builder.finish()
}

#[test]
fn an_empty_ring_has_nothing_and_says_so_in_time() {
    let (_writer, mut ring) = ring(SIZE);
    assert!(ring.next().unwrap().is_none());
    let began = Instant::now();
    let waited = ring.wait(Some(Duration::from_millis(30)), None).unwrap();
    assert_eq!(waited, Waited::TimedOut);
    assert!(began.elapsed() >= Duration::from_millis(30));
}

#[test]
fn a_record_is_read_where_it_lies_and_given_back_when_the_next_is_asked_for() {
    let (mut writer, mut ring) = ring(SIZE);
    let sent = record(0, 0, 0);
    assert!(writer.write(sent.as_bytes()));
    assert_eq!(ring.wait(None, None).unwrap(), Waited::Ready);
    let received = ring.next().unwrap().unwrap();
    assert_eq!(received.record.bytes(), sent.as_bytes());
    assert_eq!((received.sequence, received.missed), (0, 0));
    assert_eq!(writer.consumer(), 0);
    assert!(ring.next().unwrap().is_none());
    assert_eq!(writer.consumer(), sent.as_bytes().len() as u64 + 8);
}

#[test]
fn an_unfinished_entry_stops_the_reader_and_a_discarded_one_does_not_count() {
    let (mut writer, mut ring) = ring(SIZE);
    let first = writer.reserve(400).unwrap();
    let sent = record(0, 0, 0);
    let second = writer.reserve(sent.as_bytes().len()).unwrap();
    writer.submit(second, sent.as_bytes());
    assert!(ring.next().unwrap().is_none());
    assert_eq!(ring.wait(Some(Duration::from_millis(5)), None).unwrap(), Waited::TimedOut);
    writer.discard(first);
    assert_eq!(ring.next().unwrap().unwrap().sequence, 0);
}

#[test]
fn losses_are_seen_where_they_were_and_a_count_that_falls_is_not_believed() {
    let (mut writer, mut ring) = ring(SIZE);
    // On two processors a record with a smaller count can come later.
    for (number, lost) in [(0, 0), (4, 3), (5, 2), (6, 3), (12, 8)] {
        assert!(writer.write(record(number, lost, 0).as_bytes()));
    }
    for missed in [0, 3, 0, 0, 5] {
        let received = ring.next().unwrap().unwrap();
        assert_eq!(received.sequence, received.record.header().event_id);
        assert_eq!(received.missed, missed);
    }
    assert_eq!(ring.counts(), (5, 8));
}

#[test]
fn a_record_that_cannot_be_decoded_counts_and_the_next_one_is_read() {
    let (mut writer, mut ring) = ring(SIZE);
    writer.write(&[1; 400]);
    writer.write(record(1, 0, 0).as_bytes());
    let error = ring.next().unwrap_err();
    assert!(matches!(error, RingError::Record { sequence: 0, .. }), "{error}");
    assert_eq!(ring.next().unwrap().unwrap().sequence, 1);
}

#[test]
fn lengths_and_positions_that_cannot_be_are_damage_and_stay_so() {
    let length = |word| (Some(word), None);
    let producer = |position| (None, Some(position));
    for (word, position) in
        [length(0x3fff_ffff), length(SIZE as u32), producer(SIZE as u64 + 8), producer(u64::MAX)]
    {
        let (mut writer, mut ring) = ring(SIZE);
        writer.write(record(0, 0, 0).as_bytes());
        // SAFETY: no record is looked at, and nothing more is written.
        unsafe {
            if let Some(word) = word {
                writer.spoil_length(0, word);
            }
            if let Some(position) = position {
                writer.spoil_producer(position);
            }
        }
        for _ in 0..2 {
            let error = ring.next().unwrap_err();
            assert!(matches!(error, RingError::Damaged { position: 0, .. }), "{error}");
        }
    }
}

#[test]
fn what_is_no_ring_is_refused_with_what_it_is() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(1 << 20).unwrap();
    let error = Ring::new(file.into()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the descriptor is not that of a ring: it is neither a BPF map nor a sealed memory file"
    );
    assert!(RingWriter::new(12_000).is_err());
}

#[test]
fn a_position_that_the_client_itself_spoilt_is_an_error_at_once() {
    let mut writer = RingWriter::new(SIZE).unwrap();
    // SAFETY: no record is looked at.
    unsafe { writer.spoil_consumer(12) };
    let error = Ring::new(writer.descriptor().unwrap()).unwrap_err();
    assert!(matches!(error, RingError::Damaged { position: 12, .. }), "{error}");
}

#[test]
fn a_reader_in_another_thread_gets_every_record_in_order_and_each_gap() {
    let (mut writer, mut ring) = ring(SIZE);
    const RECORDS: u64 = 200_000;
    let producer = std::thread::spawn(move || {
        let mut lost = 0;
        for number in 0..RECORDS {
            let bytes = record(number, lost, number as usize % 90);
            if !writer.write(bytes.as_bytes()) {
                lost += 1;
            }
        }
        // The last one must arrive, so that the end is seen.
        while !writer.write(record(RECORDS, lost, 0).as_bytes()) {
            std::thread::yield_now();
        }
        lost
    });
    let mut expected = 0;
    let mut missed = 0;
    loop {
        assert_eq!(ring.wait(Some(Duration::from_secs(20)), None).unwrap(), Waited::Ready);
        let received = ring.next().unwrap().unwrap();
        expected += received.missed;
        missed += received.missed;
        assert_eq!(received.sequence, expected);
        assert_eq!(received.record.header().event_id, expected);
        expected += 1;
        if received.sequence == RECORDS {
            break;
        }
    }
    assert_eq!(missed, producer.join().unwrap());
}

/// Prints what one reader can take: cargo test -p sdk --test ring -- --ignored --nocapture speed
#[test]
#[ignore = "speed: prints a number, and wants a quiet machine"]
fn speed_of_the_reader() {
    let (mut writer, mut ring) = ring(1 << 20);
    let sent = record(0, 0, 200);
    let (mut records, mut spent) = (0_u64, Duration::ZERO);
    while spent < Duration::from_secs(1) {
        while writer.write(sent.as_bytes()) {}
        let began = Instant::now();
        while let Some(received) = ring.next().unwrap() {
            std::hint::black_box(received.record.event());
            records += 1;
        }
        spent += began.elapsed();
    }
    let rate = records as f64 / spent.as_secs_f64();
    println!("{:.1} million records of {} bytes a second", rate / 1e6, sent.as_bytes().len());
    assert!(rate > 100_000.0, "{rate}");
}

#[derive(Clone, Debug)]
enum Step {
    Write(usize),
    Reserve(usize),
    Submit,
    Discard,
    Read,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..3_000_usize).prop_map(Step::Write),
        2 => (0..3_000_usize).prop_map(Step::Reserve),
        2 => Just(Step::Submit),
        1 => Just(Step::Discard),
        5 => Just(Step::Read),
    ];
    prop::collection::vec(step, 1..300)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_record_is_read_once_in_order_whatever_the_producer_and_the_reader_do(steps in steps()) {
        let (mut writer, mut ring) = ring(SIZE);
        // Places in the order in which they were taken; what is to come is known once they are
        // finished: None is a discarded one.
        let mut places: VecDeque<(u64, Option<Option<RecordBuffer>>)> = VecDeque::new();
        let mut open: VecDeque<(u64, Reserved, RecordBuffer)> = VecDeque::new();
        let (mut taken, mut lost, mut read) = (0_u64, 0_u64, 0_u64);
        let finish = |places: &mut VecDeque<(u64, Option<Option<RecordBuffer>>)>, at, what| {
            places.iter_mut().find(|(place, _)| *place == at).unwrap().1 = Some(what);
        };
        for step in steps {
            match step {
                Step::Write(extra) | Step::Reserve(extra) => {
                    let buffer = record(taken, lost, extra);
                    match writer.reserve(buffer.as_bytes().len()) {
                        None => lost += 1,
                        Some(reserved) => {
                            places.push_back((taken, None));
                            open.push_back((taken, reserved, buffer));
                            taken += 1;
                        }
                    }
                    if matches!(step, Step::Write(_)) && let Some((at, reserved, buffer)) = open.pop_back() {
                        writer.submit(reserved, buffer.as_bytes());
                        finish(&mut places, at, Some(buffer));
                    }
                }
                Step::Submit => if let Some((at, reserved, buffer)) = open.pop_front() {
                    writer.submit(reserved, buffer.as_bytes());
                    finish(&mut places, at, Some(buffer));
                },
                Step::Discard => if let Some((at, reserved, _)) = open.pop_front() {
                    writer.discard(reserved);
                    finish(&mut places, at, None);
                },
                Step::Read => {
                    while matches!(places.front(), Some((_, Some(None)))) {
                        places.pop_front();
                    }
                    let expected = match places.front() {
                        Some((_, Some(Some(_)))) => places.pop_front().unwrap().1.unwrap(),
                        _ => None,
                    };
                    match (ring.next().unwrap(), expected) {
                        (None, None) => {}
                        (Some(received), Some(expected)) => {
                            prop_assert_eq!(received.record.bytes(), expected.as_bytes());
                            let so_far = received.record.header().lost;
                            prop_assert_eq!(received.sequence, read + so_far);
                            read += 1;
                        }
                        (received, expected) => panic!("{received:?} instead of {expected:?}"),
                    }
                }
            }
        }
    }

    #[test]
    fn a_producer_that_writes_anything_is_read_to_an_end_without_harm(
        words in prop::collection::vec((0..2_048_u64, any::<u32>()), 1..40),
        small in prop::collection::vec((0..2_048_u64, 0..600_u32), 0..40),
        producer in prop_oneof![any::<u64>(), 0..=SIZE as u64],
        consumer in prop_oneof![Just(0), any::<u64>(), (0..4_096_u64).prop_map(|at| at * 8),
            (0..4_096_u64).prop_map(|at| 0_u64.wrapping_sub(at * 8))],
    ) {
        let mut writer = RingWriter::new(SIZE).unwrap();
        for (at, word) in words.into_iter().chain(small) {
            // SAFETY: no record is looked at yet, and nothing more is written.
            unsafe { writer.spoil_length(at * 8, word) };
        }
        // SAFETY: as above.
        unsafe {
            writer.spoil_producer(producer.wrapping_add(consumer));
            writer.spoil_consumer(consumer);
        }
        let Ok(mut ring) = Ring::new(writer.descriptor().unwrap()) else { return Ok(()) };
        // Each step gets past eight bytes at least.
        let mut ended = false;
        for _ in 0..=SIZE / 8 {
            match ring.next() {
                Ok(None) | Err(RingError::Damaged { .. }) => ended = true,
                Ok(Some(received)) => assert!(received.record.bytes().len() < SIZE),
                Err(RingError::Record { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        prop_assert!(ended);
    }
}
