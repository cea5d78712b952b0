// SPDX-License-Identifier: Apache-2.0
//! Reading events allocates nothing: a product reads hundreds of thousands in a second.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::time::Duration;

use abi::{Event, EventType, ProcessExec, RecordBuilder};
use sdk::Ring;
use sdk::simulated::RingWriter;

const EVENTS: usize = 1000;

thread_local! {
    /// What this thread allocated: the test harness has threads of its own.
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: all is left to the system's allocator; what is done beside it touches no memory but a number of the
// thread, which needs neither making nor destruction.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise is the system allocator's condition.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: as above, and all comes from the system's allocator.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

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
    let before = ALLOCATIONS.get();
    let mut bytes = 0;
    for _ in 0..EVENTS {
        black_box(ring.wait(Some(Duration::ZERO), None).unwrap());
        let received = ring.next().unwrap().unwrap();
        let Event::ProcessExec(exec) = received.record.event() else { panic!("{received:?}") };
        bytes += exec.path().len() + received.record.executable_path().len();
        bytes += exec.arguments().map(<[u8]>::len).sum::<usize>();
    }
    assert_eq!(ALLOCATIONS.get() - before, 0);
    assert_eq!(bytes, EVENTS * (13 + 13 + 4 + 6));
    // The count does count.
    black_box(Box::new(bytes));
    assert_eq!(ALLOCATIONS.get() - before, 1);
}
