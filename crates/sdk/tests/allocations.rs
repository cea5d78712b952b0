// SPDX-License-Identifier: Apache-2.0
//! Reading events allocates nothing: a product reads hundreds of thousands in a second.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

#[path = "../../broker/tests/counting/mod.rs"]
mod counting;

use std::hint::black_box;
use std::time::Duration;

use abi::{Event, EventType, ProcessExec, RecordBuilder};
use counting::allocations;
use sdk::Ring;
use sdk::simulated::RingWriter;

const EVENTS: usize = 1000;

#[test]
fn a_thousand_events_are_read_with_all_their_strings_without_an_allocation() {
    let mut writer = RingWriter::new(1 << 20).unwrap();
    let mut ring = Ring::new(writer.descriptor().unwrap()).unwrap();
    for _ in 0..EVENTS {
        let mut builder = RecordBuilder::<ProcessExec>::new(EventType::ProcessExec);
        builder.part.file.path = builder.path(b"/usr/bin/true");
        builder.part.arguments = builder.arguments([b"true".as_slice(), b"--help"]);
        builder.part.argument_count = 2;
        builder.actor.executable.path = builder.path(b"/usr/bin/bash");
        assert!(writer.write(builder.finish().as_bytes()));
    }
    let before = allocations();
    let mut bytes = 0;
    for _ in 0..EVENTS {
        black_box(ring.wait(Some(Duration::ZERO), None).unwrap());
        let received = ring.next().unwrap().unwrap();
        let Event::ProcessExec(exec) = received.record.event() else { panic!("{received:?}") };
        bytes += exec.path().len() + received.record.executable_path().len();
        bytes += exec.arguments().map(<[u8]>::len).sum::<usize>();
    }
    assert_eq!(allocations() - before, 0);
    assert_eq!(bytes, EVENTS * (13 + 13 + 4 + 6));
    // The count does count.
    black_box(Box::new(bytes));
    assert_eq!(allocations() - before, 1);
}
