// SPDX-License-Identifier: Apache-2.0
//! Reads what differs again until it is explained or certain.
//!
//! The kernel patches itself while the guard looks: a site shows an int3 for the length of a text
//! poke, a static call follows its key some microseconds later. So a difference is read again after
//! a pause, several times, each time with the kernel's data read anew, and counts only if nothing
//! explained it in any of the readings.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use kernel_memory::Kernel;

use crate::baseline::Baseline;
use crate::check::Missing;
use crate::compare::{Account, Place, account};
use crate::patience::{Change, IN_VAIN, Waiting};
use crate::sites::{SiteKind, Sites, State, Verdict};

/// Longer than a text poke of one site takes on a busy machine.
const PAUSE: Duration = Duration::from_millis(1);

/// How often a place is read before what it holds counts as unexplained.
const READINGS: u32 = 8;

/// How often a place may show an int3. A program that switches tracepoints on and off without end
/// keeps sites in that state for a good part of the time.
const READINGS_OF_INT3: u32 = 64;

/// A place that differs and is explained.
#[derive(Clone, Debug)]
pub struct Explained {
    /// The site.
    pub place: Place,
    /// What it holds.
    pub seen: Vec<u8>,
    /// What its table says of that.
    pub verdict: Verdict,
}

/// A place that nothing explains.
#[derive(Clone, Debug)]
pub struct Unexplained {
    /// Where.
    pub place: Place,
    /// What it held when it was read last; nothing where it could not be read.
    pub seen: Vec<u8>,
    /// How often it was read.
    pub readings: u32,
}

/// What became of the places.
#[derive(Clone, Debug, Default)]
pub struct Confirmed {
    /// Those that differ as their tables allow.
    pub explained: Vec<Explained>,
    /// Those that do not.
    pub unexplained: Vec<Unexplained>,
    /// Those that the kernel is just changing, in order of address.
    pub left: Vec<Place>,
}

struct Open {
    place: Place,
    seen: Vec<u8>,
    illegal: u32,
    poking: u32,
    /// How often it was read while the kernel was changing such sites.
    changing: u32,
}

/// Reads `places` until each is explained or certain, or what the kernel is just changing; `waits` is for
/// no such to be left, for some time.
pub fn confirm(
    kernel: &Kernel<'_>,
    baseline: &Baseline,
    sites: &Sites,
    state: &mut State,
    places: &[Place],
    waits: bool,
) -> Result<Confirmed, Missing> {
    let mut confirmed = Confirmed::default();
    let fresh = |place: &Place| Open {
        place: *place,
        seen: Vec::new(),
        illegal: 0,
        poking: 0,
        changing: 0,
    };
    let mut open: Vec<Open> = places.iter().map(fresh).collect();
    let mut waiting = Waiting::new(Instant::now());
    let mut first = true;
    while !open.is_empty() {
        if !std::mem::take(&mut first) {
            std::thread::sleep(PAUSE);
        }
        let calls = open.iter().filter(|open| is_static_call(&open.place)).count();
        let change = changes_static_calls(kernel);
        let updating = change != Change::None && !waiting.is_over(Instant::now(), calls, change);
        state.read_functions(kernel, keys_of(&open, sites))?;
        let ranges: Vec<(u64, u32)> =
            open.iter().map(|open| (open.place.start, open.place.length() as u32)).collect();
        let read = kernel.memory.read_many(&ranges);
        let mut left = Vec::new();
        for (mut place, bytes) in open.into_iter().zip(read) {
            place.seen = bytes.unwrap_or_default();
            let Open { place: at, seen, .. } = &place;
            let expected = baseline.bytes_at(at.start, at.length()).unwrap_or_default();
            match account(at, seen, expected, sites, state) {
                Account::Same => continue,
                Account::Explained(verdict) => {
                    let (place, seen) = (place.place, place.seen);
                    confirmed.explained.push(Explained { place, seen, verdict });
                    continue;
                }
                _ if updating && is_static_call(&place.place) => place.changing += 1,
                Account::Poking => place.poking += 1,
                Account::Unexplained => place.illegal += 1,
            }
            if !waits && place.changing >= IN_VAIN {
                confirmed.left.push(place.place);
                continue;
            }
            if place.illegal < READINGS && place.poking < READINGS_OF_INT3 {
                left.push(place);
                continue;
            }
            let readings = place.illegal + place.poking;
            let (place, seen) = (place.place, place.seen);
            confirmed.unexplained.push(Unexplained { place, seen, readings });
        }
        open = left;
    }
    confirmed.explained.sort_by_key(|explained| explained.place.start);
    confirmed.unexplained.sort_by_key(|unexplained| unexplained.place.start);
    confirmed.left.sort_by_key(|place| place.start);
    Ok(confirmed)
}

/// Whether the kernel is about to change static calls. `__static_call_update` sets the key and then
/// changes one site after the other, all of it under this mutex (kernel/static_call_inline.c, 6.1 to
/// 7.3), so until it is released sites and key may disagree. Whoever holds it for ever gains what sites are
/// left and waited for ([`crate::patience`]).
pub(crate) fn changes_static_calls(kernel: &Kernel<'_>) -> Change {
    change(kernel, "static_call_mutex")
}

/// Whether the kernel is about to change jump labels. `static_key_slow_dec` takes the key to 0 and then
/// changes its sites under this mutex (kernel/jump_label.c, 6.1 to 7.3), for which it waits until nobody else
/// changes text: a function tracer that goes on or off everywhere takes a slow machine many seconds.
pub(crate) fn changes_jump_labels(kernel: &Kernel<'_>) -> Change {
    change(kernel, "jump_label_mutex")
}

/// Whether the kernel is about to change who is called by ftrace (`ftrace_lock`, kernel/trace/ftrace.c).
pub(crate) fn changes_ftrace(kernel: &Kernel<'_>) -> bool {
    owner(kernel, "ftrace_lock").is_some()
}

/// Who changes sites under `mutex` needs `text_mutex` for each (kernel/extable.c), which a function tracer
/// that goes on everywhere keeps for as long as that takes.
fn change(kernel: &Kernel<'_>, mutex: &str) -> Change {
    match owner(kernel, mutex) {
        None => Change::None,
        own => match owner(kernel, "text_mutex") {
            other @ Some(_) if other != own => Change::Behind,
            _ => Change::Own,
        },
    }
}

/// The task that holds a mutex.
fn owner(kernel: &Kernel<'_>, mutex: &str) -> Option<u64> {
    /// What is not the owner's address in `mutex.owner` (MUTEX_FLAGS, kernel/locking/mutex.h).
    const FLAGS: u64 = 7;
    let mutex = kernel.object("mutex", kernel.symbols.address_of(mutex)?).ok()?;
    let owner = mutex.u64("owner.counter").ok()? & !FLAGS;
    (owner != 0).then_some(owner)
}

fn is_static_call(place: &Place) -> bool {
    let of_calls = |kind| matches!(kind, SiteKind::StaticCall | SiteKind::StaticCallTrampoline);
    place.site.is_some_and(|site| of_calls(site.kind))
}

/// The keys of static calls that decide about these places. A trampoline whose key is not known may
/// lead wherever any key points, so it asks for all of them.
fn keys_of(open: &[Open], sites: &Sites) -> BTreeSet<u64> {
    let mut keys = BTreeSet::new();
    for site in open.iter().filter_map(|open| open.place.site) {
        match site.kind {
            SiteKind::StaticCall => keys.extend(sites.static_calls.entry(&site).map(|e| e.key)),
            SiteKind::StaticCallTrampoline => {
                match sites.trampolines.entry(&site).and_then(|entry| entry.key) {
                    Some(key) => drop(keys.insert(key)),
                    None => keys.extend(all_keys(sites)),
                }
            }
            SiteKind::JumpLabel | SiteKind::Ftrace | SiteKind::FtraceCall | SiteKind::Padding => {}
        }
    }
    keys
}

/// All keys of static calls that are known.
pub fn all_keys(sites: &Sites) -> impl Iterator<Item = u64> {
    let of_calls = sites.static_calls.entries().iter().map(|entry| entry.key);
    of_calls.chain(sites.trampolines.entries().iter().filter_map(|entry| entry.key))
}
