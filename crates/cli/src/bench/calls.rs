// SPDX-License-Identifier: Apache-2.0
//! What a system call costs more while the end of system calls is told of: on hosts that refuse LSM
//! programs, and only while somebody subscribes to what nothing else tells of.

use std::time::{Duration, Instant};

use probes::events::{EventType, Hooks};

use crate::screen::{Style, Table};

/// Calls of one try, and tries, of which the best counts.
const CALLS: u32 = 500_000;
const TRIES: usize = 5;

/// A row for nobody, one type and all of them.
pub(super) fn table(style: Style) -> anyhow::Result<String> {
    let all: Vec<EventType> =
        EventType::all().filter(|kind| kind.told_by_calls().is_some()).collect();
    let types = |kinds: &[EventType]| EventType::set_of(kinds.iter().copied());
    let mut hooks = Hooks::load_without_lsm(types(&all))?;
    let ring = hooks.create_ring(0)?;
    hooks.admit(0, &ring)?;
    let nobody = a_call();
    let mut table = Table::new(&["one system call", ">ns", ">more"]);
    table.row(vec!["nobody is told of any".into(), nobody.as_nanos().to_string(), String::new()]);
    let one = [EventType::BPF_LOAD];
    let all_told = format!("all {} types are", all.len());
    for (what, told) in [("one type is told of", &one[..]), (&*all_told, &all)] {
        hooks.subscribe(0, types(told))?;
        let took = a_call();
        let more = took.saturating_sub(nobody).as_nanos();
        table.row(vec![what.into(), took.as_nanos().to_string(), more.to_string()]);
    }
    Ok(table.render(style, 0))
}

/// The least time that a call took which does nothing.
fn a_call() -> Duration {
    let tries = (0..TRIES).map(|_| {
        let start = Instant::now();
        for _ in 0..CALLS {
            // SAFETY: it gives a number and does nothing.
            unsafe { libc::syscall(libc::SYS_getppid) };
        }
        start.elapsed() / CALLS
    });
    tries.min().unwrap_or_default()
}
