// SPDX-License-Identifier: Apache-2.0
//! Listening to what the kernel says it changes in its own text.
//!
//! The kernel tells perf about each change that it makes to its text by `text_poke`, and about each
//! executable range that it creates (BPF programs, ftrace trampolines, kprobe slots). perf has one
//! ring for each CPU, into which goes what happens on it, with the process that did it and when.
//! Modules are told of by programs on the kernel's tracepoints.

mod hotplug;
pub(crate) mod modules;
mod record;
mod ring;
mod sleep;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use guard::journal::{Actor, Change, Entry, Journal};

pub(crate) use hotplug::online as online_cpus;
use hotplug::{Followed, Online};
use modules::ModuleEvents;
pub use record::{Record, RecordError, Sample, parse_record};
use ring::{PAGE, Ring};

use crate::error::ProbeError;
use crate::privilege;

const WHAT: &str = "listening to changes of kernel text (perf text_poke)";

/// Bytes for one ring, where there are few CPUs: some 4,000 text pokes.
const RING: usize = 256 * 1024;
/// Bytes for all rings together.
const ALL_RINGS: usize = 16 * 1024 * 1024;
/// Bytes below which a ring is not made however many CPUs there are.
const SMALLEST_RING: usize = 16 * 1024;

/// What was read in one go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Changes in the order of their time.
    pub entries: Vec<Entry>,
    /// How many more there were that did not fit or could not be understood.
    pub lost: u64,
}

impl Taken {
    /// Takes what is in a ring.
    fn drain(&mut self, ring: &mut Ring, names: &mut Names) {
        let Self { entries, lost } = self;
        let mut unread = 0;
        *lost += ring.drain(&mut |bytes| {
            match parse_record(bytes).map(change) {
                Ok(Ok((sample, change))) => entries.push(entry(sample, change, names)),
                Ok(Err(count)) => return count,
                Err(_) => unread += 1,
            }
            0
        });
        *lost += unread;
    }
}

/// The rings of all CPUs.
///
/// A CPU that comes online later is heard from the next [`JournalReader::take`] on. What was changed
/// on it before then counts as lost, so that nobody takes the silence for an answer.
#[derive(Debug)]
pub struct JournalReader {
    online: Online,
    rings: BTreeMap<u32, Ring>,
    modules: Result<ModuleEvents, ProbeError>,
    /// What was read while trying, for the next [`JournalReader::take`].
    kept: Taken,
}

impl JournalReader {
    /// Begins to listen on each CPU that is online.
    pub fn open() -> Result<Self, ProbeError> {
        let online = Online::now()?;
        let (rings, modules) = (BTreeMap::new(), ModuleEvents::open());
        let mut reader = Self { rings, online, modules, kept: Taken::default() };
        let cpus: Vec<u32> = reader.online.cpus().collect();
        for cpu in cpus {
            if !reader.listen_to(cpu)? {
                reader.online.forget(cpu);
            }
        }
        Ok(reader)
    }

    /// Gives whether it is heard now.
    fn listen_to(&mut self, cpu: u32) -> Result<bool, ProbeError> {
        match Ring::open(cpu, ring_size(self.online.cpus().count())) {
            Ok(ring) => {
                self.rings.insert(cpu, ring);
                Ok(true)
            }
            // It went offline since one knew of it.
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(false),
            Err(error) => Err(refused(&error)),
        }
    }

    /// Takes what the kernel said since the last time.
    pub fn take(&mut self) -> Taken {
        let mut taken = std::mem::take(&mut self.kept);
        let mut names = Names::default();
        for ring in self.rings.values_mut() {
            taken.drain(ring, &mut names);
        }
        if let Ok(modules) = &mut self.modules {
            modules.take(&mut taken);
        }
        self.follow_cpus(&mut taken, &mut names);
        taken.entries.sort_by_key(|entry| entry.time_ns);
        taken
    }

    /// Listens anew to CPUs that came online; each could be silent about something.
    fn follow_cpus(&mut self, taken: &mut Taken, names: &mut Names) {
        // Without the list nobody knows whether one came.
        let Ok(Followed { came, unheard }) = self.online.follow() else {
            taken.lost += 1;
            return;
        };
        // perf has taken these events away. What they said at last is in their rings.
        let ended = |cpu: &u32| !self.online.has(*cpu) || came.contains(cpu);
        for (_, mut ring) in self.rings.extract_if(.., |cpu, _| ended(cpu)) {
            taken.drain(&mut ring, names);
        }
        taken.lost += unheard;
        for cpu in came {
            // One that cannot be heard is tried again, and counted again, in the next round.
            if !matches!(self.listen_to(cpu), Ok(true)) {
                self.online.forget(cpu);
            }
        }
    }

    /// Looks whether the kernel still writes each ring, for whoever misses something. With the next
    /// [`JournalReader::take`] those begin anew that it does not, and what they missed counts as lost.
    ///
    /// perf takes the events of a CPU away as it begins to go offline (`CPUHP_AP_PERF_ONLINE`,
    /// include/linux/cpuhotplug.h), and tells nobody. What is announced there until it is off, which takes
    /// seconds on a machine with much to do, reaches nobody.
    ///
    /// To be asked for how long its event is on, a CPU is interrupted, so this is for a doubt and not for
    /// each pass.
    pub fn renew_silent(&mut self) {
        let times: Vec<(u32, u64)> = self
            .rings
            .iter()
            .map(|(cpu, ring)| (*cpu, ring.time_on().unwrap_or_default()))
            .collect();
        // The clock of perf goes on in steps of one tick where the processor's is not steady.
        std::thread::sleep(Duration::from_millis(20));
        let mut names = Names::default();
        for (cpu, time) in times {
            let goes_on = |ring: &Ring| ring.time_on().is_ok_and(|now| now > time);
            if let Some(mut ring) = self.rings.remove(&cpu) {
                if goes_on(&ring) {
                    self.rings.insert(cpu, ring);
                    continue;
                }
                self.kept.drain(&mut ring, &mut names);
                self.kept.lost += 1;
                self.online.forget(cpu);
            }
        }
    }

    /// Whether the kernel tells of modules that are loaded, and if not, why not.
    pub fn modules(&self) -> Result<(), &ProbeError> {
        self.modules.as_ref().map(|_| ())
    }

    /// Whether the kernel tells of changes of its text, found out by having it make one (a program
    /// that does nothing goes on a tracepoint and off again; what is told of it stays for the next
    /// [`JournalReader::take`]).
    ///
    /// Some kernels take the request and then keep text pokes to themselves while they tell of
    /// executable ranges; a change without an entry means nothing there, and the guard has to know.
    pub fn try_text_pokes(&mut self) -> Result<(), ProbeError> {
        let ours = std::process::id();
        let told = |taken: &Taken| {
            taken.entries.iter().any(|entry| {
                entry.actor.pid == ours && matches!(entry.change, Change::TextPoke { .. })
            })
        };
        crate::views::event::poke()?;
        // The kernel tells before the call returns.
        self.kept = self.take();
        if told(&self.kept) {
            return Ok(());
        }
        Err(ProbeError::Unsupported {
            what: WHAT,
            lacking: "it takes the request and then does not tell (a tracepoint was switched on \
                      and off, and no record of it came); changes of text cannot be attributed"
                .into(),
        })
    }

    /// Moves what the kernel said since the last time into `journal`; gives how many entries.
    pub fn drain(&mut self, journal: &mut Journal) -> usize {
        let Taken { entries, lost } = self.take();
        let count = entries.len();
        journal.add_lost(lost);
        for entry in entries {
            journal.push(entry);
        }
        count
    }

    /// What becomes readable when the kernel has said something: to be polled. It stays readable
    /// until [`JournalReader::take`] is called.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let of_modules = self.modules.as_ref().ok().map(AsFd::as_fd);
        self.rings.values().map(AsFd::as_fd).chain(of_modules)
    }
}

/// The change that a record tells of, or how many it says were lost.
fn change(record: Record) -> Result<(Sample, Change), u64> {
    match record {
        Record::TextPoke { address, old, new, sample } => {
            Ok((sample, Change::TextPoke { address, old, new }))
        }
        Record::Symbol { address, length, kind, registered, name, sample } => {
            Ok((sample, Change::Symbol { address, length, registered, kind, name }))
        }
        Record::Lost(count) => Err(count),
        Record::Other(_) => Err(0),
    }
}

fn entry(sample: Sample, change: Change, names: &mut Names) -> Entry {
    // All ones: the thread was about to exit.
    let known = |number: u32| if number == u32::MAX { 0 } else { number };
    let (pid, tid) = (known(sample.pid), known(sample.tid));
    let comm = names.of(sample.tid);
    Entry { time_ns: sample.time_ns, actor: Actor { pid, tid, comm }, change }
}

/// Names of threads, asked for once in each go.
#[derive(Default)]
struct Names(HashMap<u32, String>);

impl Names {
    fn of(&mut self, tid: u32) -> String {
        if tid == u32::MAX {
            return String::new();
        }
        // /proc/TID answers for every thread, though it lists only processes.
        let read = || fs::read_to_string(format!("/proc/{tid}/comm")).unwrap_or_default();
        self.0.entry(tid).or_insert_with(|| read().trim_end_matches('\n').to_owned()).clone()
    }
}

/// The bytes of each ring, a power of two of pages.
fn ring_size(cpus: usize) -> usize {
    let share = (ALL_RINGS / cpus.max(1)).clamp(SMALLEST_RING, RING);
    // The greatest power of two that is not above it.
    let pages = share / PAGE;
    (PAGE << pages.ilog2()).min(RING)
}

fn refused(error: &io::Error) -> ProbeError {
    let unsupported =
        |lacking: &str| ProbeError::Unsupported { what: WHAT, lacking: lacking.into() };
    match error.raw_os_error() {
        Some(libc::ENOSYS | libc::ENOENT | libc::EOPNOTSUPP) => {
            unsupported("it has no perf events; boot one built with CONFIG_PERF_EVENTS=y")
        }
        Some(libc::EINVAL | libc::E2BIG) => {
            unsupported("its perf does not know text_poke records; 5.8 and later do")
        }
        Some(libc::EMFILE) => ProbeError::Failed {
            what: WHAT,
            reason:
                "too many open files, as it takes one for each CPU; raise the limit (ulimit -n)"
                    .into(),
        },
        Some(libc::EACCES | libc::EPERM) if !privilege::PERF.are_met() => {
            ProbeError::NotRoot { what: WHAT, capabilities: privilege::PERF.capabilities }
        }
        Some(libc::EACCES | libc::EPERM) => ProbeError::Refused {
            what: WHAT,
            hint: if privilege::under_seccomp() {
                "a seccomp filter is in force, and container engines forbid perf_event_open; run \
                 ringfence outside the container"
                    .into()
            } else {
                let level = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid");
                format!(
                    "a security module forbids perf events (kernel.perf_event_paranoid is {}; for \
                     root with CAP_PERFMON it does not matter)",
                    level.as_deref().unwrap_or("unknown").trim()
                )
            },
        },
        _ => ProbeError::Failed { what: WHAT, reason: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn rings_are_powers_of_two_and_keep_to_the_budget() {
        for cpus in [1, 2, 3, 48, 64, 65, 100, 512] {
            let size = ring_size(cpus);
            assert!(size.is_power_of_two() && size >= SMALLEST_RING, "{cpus}: {size}");
            assert!(size * cpus <= ALL_RINGS, "{cpus}: {size}");
        }
        assert_eq!(ring_size(2), RING);
    }

    #[test]
    #[ignore = "root"]
    fn a_ring_that_the_kernel_left_without_a_word_is_found_and_begun_anew() {
        /// As perf does with a CPU that goes offline (`_IO('$', 1)`, include/uapi/linux/perf_event.h).
        const PERF_EVENT_IOC_DISABLE: libc::Ioctl = 0x2401;
        let mut reader = JournalReader::open().unwrap();
        reader.renew_silent();
        assert_eq!(reader.take().lost, 0, "all of them are written");
        for ring in reader.rings.values() {
            // SAFETY: the request takes no argument that it would read or write.
            let off = unsafe { libc::ioctl(ring.as_fd().as_raw_fd(), PERF_EVENT_IOC_DISABLE, 0) };
            assert_eq!(off, 0);
        }
        let arrives = |reader: &mut JournalReader| {
            let name = crate::views::event::raise().unwrap();
            let taken = reader.take();
            let is_it = |change: &Change| matches!(change, Change::Symbol { name: told, .. } if *told == name);
            (taken.entries.iter().any(|entry| is_it(&entry.change)), taken.lost)
        };
        assert_eq!(arrives(&mut reader), (false, 0), "nobody hears and nobody knows");
        reader.renew_silent();
        assert!(reader.take().lost > 0);
        assert_eq!(arrives(&mut reader), (true, 0));
    }

    #[test]
    fn a_refusal_says_what_to_do_about_it() {
        let message = |code| refused(&io::Error::from_raw_os_error(code)).to_string();
        assert!(message(libc::EINVAL).contains("5.8"));
        assert!(message(libc::ENOSYS).contains("CONFIG_PERF_EVENTS"));
        assert!(message(libc::EMFILE).contains("ulimit"));
    }
}
