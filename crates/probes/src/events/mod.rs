// SPDX-License-Identifier: Apache-2.0
//! Events from the kernel to clients: loads the programs, owns the rings, and says who wants what.
//!
//! A client is a slot from 0 to 63. It is admitted with a ring, subscribes to types of events, mutes
//! what it does not want to hear of, and reads its ring itself: events do not pass through this
//! process. See bpf/lib/clients.h and send.h for what happens in the kernel.
//!
//! Programs are attached while somebody subscribes to what they tell of and no longer, so nothing
//! costs anything when nobody listens.

mod area;
mod fill;
mod initial;
mod missed;
mod mutes;
mod ruled;
pub(crate) mod shared;
mod statistics;
mod types;
mod watched;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType, libbpf_sys};

use crate::digests::Digests;
use crate::error::ProbeError;
use crate::gate::{GateMaps, gate_support};
use crate::object::{self, Kind, Own};
use crate::pins::Pins;
use crate::rules::Rules;
use crate::test_run::test_run;
use area::Objects;
use initial::initial_state;
use missed::Missed;
pub use mutes::Mute;
use mutes::Mutes;
pub use shared::CLIENTS;
use shared::{
    Asked, ClientCounters, ClientState, ExecutableKey, NoContext, PREFIX_MAX, Plain, PrefixKey,
    ProcessKey, RECORD_MAX, State, Subscribers, TYPES, WRITE_DONE, WRITE_FULL, WRITE_NO_BUFFER,
    WRITE_NO_RING, Word, WriteCall, WriteContext,
};
pub use statistics::Statistics;
pub use types::{EventType, Mechanism};
use watched::Watched;
pub use watched::WatchedFile;

const WHAT: &str = "changing what a client hears of";

/// What of process_exit is not told until 6.15 (bpf/process.bpf.c).
const EXITS_LACK: &str = "without what the process ran, which it has given up by then (until 6.15): neither rules nor \
                          mutes go by it";

/// Rings are not smaller than this, in bytes: eight of the longest records, as a power of two.
pub const SMALLEST_RING: u32 = 128 * 1024;
/// Nor larger than this.
pub const LARGEST_RING: u32 = 256 * 1024 * 1024;

/// How far an event can be had on this kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventCoverage {
    /// Which event.
    pub kind: EventType,
    /// What tells of it, or why nothing does.
    pub notify: Result<Mechanism, String>,
    /// What of it is not told here that later kernels tell.
    pub lacks: Option<&'static str>,
    /// What can deny it, or why nothing can.
    pub deny: Result<Mechanism, String>,
    /// What lets a task wait for a verdict on it, or why nothing does.
    pub ask: Result<Mechanism, String>,
}

/// What a client that is asked about an event has declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AskTerms {
    /// How long it has for its verdict.
    pub time: Duration,
    /// Whether it is a denial if the record that asks does not fit into its ring.
    pub deny_full: bool,
}

/// What a record of this process came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It is in the ring.
    Done,
    /// The ring was full; it is counted as lost.
    Lost,
}

/// A ring that a client reads. Whoever has its descriptor can map it, without any privilege.
#[derive(Debug)]
pub struct Ring {
    map: MapHandle,
    bytes: u32,
    _own: Own,
}

impl Ring {
    /// Its size in bytes, without the two pages of positions.
    #[must_use]
    pub fn bytes(&self) -> u32 {
        self.bytes
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.map.as_fd()
    }
}

/// The programs of events, and all clients that they serve.
#[derive(Debug)]
pub struct Hooks {
    objects: Objects,
    rules: Rules,
    state: State,
    subscribers: [Subscribers; TYPES],
    asked: [Asked; TYPES],
    mutes: Mutes,
    watched: Watched,
    admitted: u64,
    /// Types that rules are for.
    ruled: u64,
    /// Why nobody can be asked here, if that is so.
    no_gate: Option<String>,
    can_miss: bool,
    exits_lack_executables: bool,
    /// Why records do not have the digests that files have here, if that is so.
    no_digests: Option<String>,
    /// Where programs that decide by rules stay when this process ends, if they do.
    pins: Option<Pins>,
    /// By what would have been told of.
    missed: BTreeMap<&'static [EventType], Missed>,
}

impl Hooks {
    /// Loads all programs that this kernel takes. Nothing is attached yet.
    ///
    /// # Errors
    /// Without the privilege to load BPF programs, or where the kernel lacks ring buffers (before
    /// 5.8) or `bpf_loop` (before 5.17). That single events cannot be had is no error: see
    /// [`Hooks::coverage`].
    pub fn load() -> Result<Self, ProbeError> {
        Self::load_for(u64::MAX)
    }

    /// Loads the programs for these types only, which takes less time: each is looked through by the
    /// kernel and compiled. The others count as unavailable.
    ///
    /// # Errors
    /// See [`Hooks::load`].
    pub fn load_for(types: u64) -> Result<Self, ProbeError> {
        Self::load_with(types, Rules::load()?, true)
    }

    /// The same without LSM programs, as on hosts that refuse them: what such a host sees can be had
    /// anywhere.
    ///
    /// # Errors
    /// See [`Hooks::load`].
    pub fn load_without_lsm(types: u64) -> Result<Self, ProbeError> {
        Self::load_with(types, Rules::load()?, false)
    }

    /// Loads the programs for these types, to go on with what an earlier process left below this directory
    /// ([`Hooks::keep_rules`]): who descends from whom, as far as its rules asked for that.
    ///
    /// # Errors
    /// See [`Hooks::load`].
    pub fn load_after(types: u64, pins: &Path) -> Result<Self, ProbeError> {
        Self::load_with(types, Rules::load_after(Some(pins))?, true)
    }

    fn load_with(types: u64, rules: Rules, lsm: bool) -> Result<Self, ProbeError> {
        let objects = Objects::load(types, &rules, lsm)?;
        let mut state = State::map(objects.map("state")?.as_fd())?;
        let checked = objects.checked();
        let digests = Digests::find();
        let verity_table = digests.as_ref().map_or(0, |found| found.table());
        let begun = ClientState { checked, verity_table, ..initial_state()? };
        state.begin(&begun);
        let made =
            objects.call("make_timer", |program| test_run(program, &mut NoContext::default()))?;
        if !matches!(made, Ok(0)) {
            state.begin(&ClientState { wake_always: 1, ..begun });
        }
        let can_miss =
            objects.call("can_miss", |program| test_run(program, &mut NoContext::default()))?;
        // If it does not say, it is looked for.
        let can_miss = !matches!(can_miss, Ok(0));
        let executables = objects.call("exits_have_executables", |program| {
            test_run(program, &mut NoContext::default())
        })?;
        let exits_lack_executables = !matches!(executables, Ok(1));
        Ok(Self {
            objects,
            rules,
            state,
            subscribers: [Subscribers::default(); TYPES],
            asked: [Asked::default(); TYPES],
            mutes: Mutes::default(),
            watched: Watched::default(),
            admitted: 0,
            ruled: 0,
            no_gate: gate_support().err(),
            can_miss,
            exits_lack_executables,
            no_digests: digests.err().map(|error| error.to_string()),
            pins: None,
            missed: BTreeMap::new(),
        })
    }

    /// The maps of the gate that the programs which ask wait in. [`crate::Gate::open`] wants them.
    ///
    /// # Errors
    /// When the kernel does not give them.
    pub fn gate_maps(&self) -> Result<GateMaps, ProbeError> {
        GateMaps::among(self.objects.maps()?)
    }

    /// How far each event can be had.
    #[must_use]
    pub fn coverage(&self) -> Vec<EventCoverage> {
        let on_hook = |kind| {
            let told = self.objects.served_by(kind, Mechanism::Lsm);
            told.or_else(|| self.objects.served_by(kind, Mechanism::Rule))
        };
        let deny = |kind| match on_hook(kind).filter(|_| ruled::can_be_denied(kind)) {
            Some(served) => served.map(|()| Mechanism::Lsm).map_err(str::to_owned),
            None => Err(ruled::why_not_denied(kind).to_owned()),
        };
        let ask = |kind| match (self.objects.served_by(kind, Mechanism::Gate), &self.no_gate) {
            (None, _) => Err("no program asks about it".to_owned()),
            // Where nobody can wait, what else is missing does not matter.
            (Some(_), Some(why)) => Err(why.clone()),
            (Some(Err(why)), None) => Err(why.to_owned()),
            (Some(Ok(())), None) => Ok(Mechanism::Gate),
        };
        let coverage = |kind| EventCoverage {
            kind,
            notify: self.objects.mechanism(kind),
            lacks: (kind == EventType::PROCESS_EXIT && self.exits_lack_executables)
                .then_some(EXITS_LACK),
            deny: deny(kind),
            ask: ask(kind),
        };
        EventType::all().map(coverage).collect()
    }

    /// Whether records have the digests of files that fs-verity protects.
    ///
    /// # Errors
    /// Why not: rules that ask for one are refused then.
    pub fn digests(&self) -> Result<(), &str> {
        self.no_digests.as_deref().map_or(Ok(()), Err)
    }

    /// The set of types that can be told of.
    #[must_use]
    pub fn available(&self) -> u64 {
        let told = self.coverage().into_iter().filter(|coverage| coverage.notify.is_ok());
        EventType::set_of(told.map(|coverage| coverage.kind))
    }

    /// Makes a ring of at least as many bytes: a power of two between [`SMALLEST_RING`] and
    /// [`LARGEST_RING`].
    ///
    /// # Errors
    /// When the kernel has not the memory.
    pub fn create_ring(&self, bytes: u32) -> Result<Ring, ProbeError> {
        let bytes = bytes.clamp(SMALLEST_RING, LARGEST_RING).next_power_of_two();
        let options = libbpf_sys::bpf_map_create_opts {
            sz: size_of::<libbpf_sys::bpf_map_create_opts>() as libbpf_sys::size_t,
            ..Default::default()
        };
        let map = object::with_libbpf("making a ring", || {
            MapHandle::create(MapType::RingBuf, Some("client_ring"), 0, 0, bytes, &options)
        })?;
        let mut own = Own::default();
        own.add(Kind::Map, map.as_fd())?;
        Ok(Ring { map, bytes, _own: own })
    }

    /// Gives a slot to a client that reads `ring`. It hears of nothing until it subscribes.
    ///
    /// # Errors
    /// When the slot is taken, or there is no such slot.
    pub fn admit(&mut self, slot: u32, ring: &Ring) -> Result<(), ProbeError> {
        is_slot(slot)?;
        if self.admitted & (1 << slot) != 0 {
            let reason = format!("slot {slot} is taken");
            return Err(ProbeError::Failed { what: "admitting a client", reason });
        }
        let zeroes = vec![0; size_of::<ClientCounters>()];
        self.update("counters", &slot.to_ne_bytes(), &zeroes)?;
        let descriptor = std::os::fd::AsRawFd::as_raw_fd(&ring.as_fd());
        self.update("rings", &slot.to_ne_bytes(), &descriptor.to_ne_bytes())?;
        self.admitted |= 1 << slot;
        Ok(())
    }

    /// Takes a slot from its client: it is told of nothing any more, and its mutes are gone. What is
    /// in its ring stays readable as long as somebody has the ring. Its rules stay until
    /// [`Hooks::remove_rules`].
    ///
    /// # Errors
    /// When the slot is not taken.
    pub fn remove(&mut self, slot: u32) -> Result<(), ProbeError> {
        self.check(slot)?;
        self.subscribe(slot, 0)?;
        self.ask(slot, &[])?;
        self.watch(slot, None)?;
        for mute in self.mutes.of(slot) {
            self.unmute(slot, &mute)?;
        }
        self.invert(slot, false)?;
        // The kernel waits for programs that run before this comes back (kernel/bpf/syscall.c,
        // maybe_wait_bpf_programs), so the slot is free for somebody else.
        let rings = self.objects.map("rings")?;
        object::with_libbpf(WHAT, || rings.delete(&slot.to_ne_bytes()))?;
        self.state.set(Word::Pending, slot, false);
        self.admitted &= !(1 << slot);
        Ok(())
    }

    /// Has a client told of these types, and of no others.
    ///
    /// # Errors
    /// When one of them cannot be told of here (nothing changes then), or a program cannot be
    /// attached.
    pub fn subscribe(&mut self, slot: u32, types: u64) -> Result<(), ProbeError> {
        self.check(slot)?;
        if let Some(coverage) = self
            .coverage()
            .into_iter()
            .find(|coverage| coverage.kind.bit() & types != 0 && coverage.notify.is_err())
        {
            return Err(ProbeError::Unsupported {
                what: coverage.kind.name(),
                lacking: coverage.notify.err().unwrap_or_default(),
            });
        }
        self.change_subscribers(|subscribers, kind| {
            set(&mut subscribers.notify, slot, types & kind != 0);
        })
    }

    /// Has a client asked about these events on these terms, and about no others. Who answers is
    /// [`crate::Gate`]'s to say; here the client gets the records that ask. A slot without a ring has none.
    ///
    /// # Errors
    /// When nobody can be asked about one of them here (nothing changes then), or a program cannot be
    /// attached.
    pub fn ask(&mut self, slot: u32, events: &[(EventType, AskTerms)]) -> Result<(), ProbeError> {
        is_slot(slot)?;
        let coverage = self.coverage();
        let asked = |kind| events.iter().find(|(event, _)| *event == kind).map(|(_, terms)| terms);
        let lacking = coverage.iter().find_map(|event| {
            let reason = event.ask.as_ref().err()?;
            asked(event.kind).map(|_| (event.kind.name(), reason.clone()))
        });
        if let Some((what, lacking)) = lacking {
            return Err(ProbeError::Unsupported { what, lacking });
        }
        for kind in EventType::all() {
            let (number, terms) = (u32::from(kind.number()), asked(kind));
            let Some(all) = self.asked.get_mut(number as usize) else { continue };
            let before = (all.time, all.deny_full);
            if let Some(time) = all.time.get_mut(slot as usize) {
                *time = terms.map_or(0, |terms| terms.time.as_nanos() as u64);
            }
            set(&mut all.deny_full, slot, terms.is_some_and(|terms| terms.deny_full));
            let now = *all;
            // The terms are there before the first question.
            if (now.time, now.deny_full) != before {
                self.update("asked_of", &number.to_ne_bytes(), now.bytes())?;
            }
        }
        let types = EventType::set_of(events.iter().map(|(kind, _)| *kind));
        self.change_subscribers(|subscribers, kind| {
            set(&mut subscribers.ask, slot, types & kind != 0);
        })
    }

    fn change_subscribers(
        &mut self,
        change: impl Fn(&mut Subscribers, u64),
    ) -> Result<(), ProbeError> {
        for number in 0..TYPES as u32 {
            let Some(subscribers) = self.subscribers.get_mut(number as usize) else { continue };
            let before = *subscribers;
            change(subscribers, 1 << number);
            let now = *subscribers;
            if now != before {
                self.update("subscriptions", &number.to_ne_bytes(), now.bytes())?;
            }
        }
        self.attach()
    }

    fn attach(&mut self) -> Result<(), ProbeError> {
        let types = |wants: fn(&Subscribers) -> u64| {
            let all = self.subscribers.iter().enumerate();
            all.fold(0, |types, (number, one)| types | u64::from(wants(one) != 0) << number)
        };
        let (told, asked) = (types(|one| one.notify), types(|one| one.ask));
        self.objects.attach_for(told, self.ruled, asked, self.pins.as_ref())?;
        self.pins.as_ref().map_or(Ok(()), |pins| self.rules.pin(pins))
    }

    /// Has a client not told of what somebody does (or, if its mutes are inverted, told of it).
    ///
    /// # Errors
    /// When there are too many mutes (16,384 of a kind, for all clients), or a path is empty or has
    /// more than 256 bytes.
    pub fn mute(&mut self, slot: u32, mute: &Mute) -> Result<(), ProbeError> {
        self.change_mute(slot, mute, true)
    }

    /// Takes a mute back; what was never muted is no error.
    ///
    /// # Errors
    /// When the kernel fails.
    pub fn unmute(&mut self, slot: u32, mute: &Mute) -> Result<(), ProbeError> {
        self.change_mute(slot, mute, false)
    }

    /// Has the mutes of a client select what it is told of, instead of suppressing it: it is told of
    /// what any of them matches, and of nothing else.
    ///
    /// # Errors
    /// When the slot is not taken.
    pub fn invert(&mut self, slot: u32, inverted: bool) -> Result<(), ProbeError> {
        self.check(slot)?;
        self.state.set(Word::Inverted, slot, inverted);
        Ok(())
    }

    fn change_mute(&mut self, slot: u32, mute: &Mute, on: bool) -> Result<(), ProbeError> {
        self.check(slot)?;
        if let Mute::Path(path) = mute
            && !(1..=PREFIX_MAX).contains(&path.len())
        {
            let reason = format!("a prefix has 1 to {PREFIX_MAX} bytes, this one {}", path.len());
            return Err(ProbeError::Failed { what: "muting a path", reason });
        }
        let clients = self.mutes.change(slot, mute, on);
        let changed = self.put_mute(mute, clients);
        if changed.is_err() && on {
            self.mutes.change(slot, mute, false);
        }
        let kinds = [Word::MuteProcess, Word::MuteExecutable, Word::MuteCgroup, Word::MutePath];
        for (word, clients) in kinds.into_iter().zip(self.mutes.words()) {
            self.state.word(word).store(clients, Ordering::SeqCst);
        }
        changed
    }

    /// Has the kernel know what the entry of a mute is now.
    fn put_mute(&self, mute: &Mute, clients: u64) -> Result<(), ProbeError> {
        match mute {
            Mute::Process { pid, start } => {
                let key = ProcessKey { pid: *pid, reserved: 0, start: *start };
                self.put_clients("muted_processes", key.bytes(), clients)
            }
            Mute::Executable { device, inode } => {
                let key = ExecutableKey { device: *device, inode: *inode };
                self.put_clients("muted_executables", key.bytes(), clients)
            }
            Mute::Cgroup(id) => self.put_clients("muted_cgroups", &id.to_ne_bytes(), clients),
            Mute::Path(prefix) => {
                for (prefix, clients) in self.mutes.path_entries(prefix) {
                    let mut path = [0; PREFIX_MAX];
                    if let Some(place) = path.get_mut(..prefix.len()) {
                        place.copy_from_slice(&prefix);
                    }
                    let key = PrefixKey { length: 8 * prefix.len() as u32, path };
                    self.put_clients("muted_paths", key.bytes(), clients)?;
                }
                Ok(())
            }
        }
    }

    fn put_clients(&self, map: &'static str, key: &[u8], clients: u64) -> Result<(), ProbeError> {
        if clients != 0 {
            return self.update(map, key, &clients.to_ne_bytes());
        }
        let map = self.objects.map(map)?;
        match map.delete(key) {
            // It was not there.
            Err(error) if error.kind() == libbpf_rs::ErrorKind::NotFound => Ok(()),
            other => object::with_libbpf(WHAT, || other),
        }
    }

    /// Puts a record into a client's ring: header, actor and part as api/ringfence.h has them. The
    /// kernel fills in `size`, `lost`, `global_sequence`, `boot_id` and, if it is 0, `event_id`. With
    /// `wake` the client is woken at once.
    ///
    /// # Errors
    /// When the slot is not taken, or the record is shorter than a header or too long.
    pub fn write(&self, slot: u32, record: &[u8], wake: bool) -> Result<Written, ProbeError> {
        const WHAT: &str = "writing a record into a ring";
        self.check(slot)?;
        let failed = |reason: String| ProbeError::Failed { what: WHAT, reason };
        if record.len() > RECORD_MAX {
            return Err(failed(format!("{} bytes are too many for one", record.len())));
        }
        let mut bytes = [0; RECORD_MAX];
        if let Some(place) = bytes.get_mut(..record.len()) {
            place.copy_from_slice(record);
        }
        let (wake, length) = (u32::from(wake), record.len() as u32);
        let call = WriteCall { slot, wake, length, reserved: 0 };
        let mut context = Box::new(WriteContext { call, record: bytes });
        let result =
            self.objects.call("write_record", |program| test_run(program, &mut *context))?;
        match result.map_err(|error| failed(error.to_string()))? {
            WRITE_DONE => Ok(Written::Done),
            WRITE_FULL => Ok(Written::Lost),
            WRITE_NO_RING => Err(failed(format!("slot {slot} has no ring"))),
            WRITE_NO_BUFFER => Err(failed("all buffers are in use; try again".into())),
            _ => Err(failed(format!("{length} bytes are not one"))),
        }
    }

    /// The number of the last event.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.state.word(Word::Sequence).load(Ordering::SeqCst)
    }

    /// Whether a timer is set that wakes observers: never for long while nothing happens.
    #[must_use]
    pub fn is_wake_due(&self) -> bool {
        self.state.word(Word::Armed).load(Ordering::SeqCst) != 0
    }

    fn check(&self, slot: u32) -> Result<(), ProbeError> {
        is_slot(slot)?;
        if self.admitted & (1 << slot) != 0 { Ok(()) } else { Err(no_slot(slot)) }
    }

    fn update(&self, map: &'static str, key: &[u8], value: &[u8]) -> Result<(), ProbeError> {
        let map = self.objects.map(map)?;
        object::with_libbpf(WHAT, || map.update(key, value, MapFlags::ANY))
    }
}

fn set(clients: &mut u64, slot: u32, on: bool) {
    if on {
        *clients |= 1 << slot;
    } else {
        *clients &= !(1 << slot);
    }
}

fn is_slot(slot: u32) -> Result<(), ProbeError> {
    if slot < CLIENTS { Ok(()) } else { Err(no_slot(slot)) }
}

fn no_slot(slot: u32) -> ProbeError {
    ProbeError::Failed { what: WHAT, reason: format!("slot {slot} has no client") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hooks_can_be_kept_by_any_thread() {
        fn is_send<T: Send>() {}
        is_send::<Hooks>();
    }
}
