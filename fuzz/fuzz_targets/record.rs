// SPDX-License-Identifier: Apache-2.0
//! Records of the security API, one after another.
#![no_main]

use std::hint::black_box;

use abi::{Event, Record, RecordBuffer};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let aligned = RecordBuffer::copy_of(data);
    let mut rest = aligned.as_bytes();
    while let Some(Ok((record, after))) = Record::parse_first(rest) {
        look_at(&record);
        rest = after;
    }
});

/// All that is reached by a reference.
fn look_at(record: &Record<'_>) {
    black_box((record.executable_path(), record.actor().map(|actor| actor.name())));
    match record.event() {
        Event::ProcessExec(exec) => {
            black_box((exec.path(), exec.script(), exec.name(), exec.rest()));
            black_box(exec.arguments().map(<[u8]>::len).sum::<usize>());
        }
        Event::Loss(loss) => {
            black_box(loss.types().count());
        }
        other => {
            black_box(format!("{other:?}"));
        }
    }
}
