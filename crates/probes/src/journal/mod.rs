// SPDX-License-Identifier: Apache-2.0
//! Listening to what the kernel says it changes in its own text.
//!
//! The kernel tells perf about each change that it makes to its text by `text_poke`, and about each
//! executable range that it creates (BPF programs, ftrace trampolines, kprobe slots). perf has one
//! ring for each CPU, into which goes what happens on it, with the process that did it and when.

mod record;
mod ring;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use guard::journal::{Actor, Change, Entry, Journal};

pub use record::{Record, RecordError, Sample, parse_record};
use ring::{PAGE, Ring};

use crate::error::ProbeError;
use crate::privilege;

const WHAT: &str = "listening to changes of kernel text (perf text_poke)";
const ONLINE: &str = "/sys/devices/system/cpu/online";

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

/// The rings of all CPUs.
///
/// A CPU that comes online later is not heard; changes made on it are then found in memory with no
/// entry here, which is a finding rather than a silence.
#[derive(Debug)]
pub struct JournalReader {
    rings: Vec<Ring>,
    /// What was read while trying, for the next [`JournalReader::take`].
    kept: Taken,
}

impl JournalReader {
    /// Begins to listen on each CPU that is online.
    pub fn open() -> Result<Self, ProbeError> {
        let list = fs::read_to_string(ONLINE).map_err(|error| ProbeError::file(ONLINE, &error))?;
        let cpus = parse_cpus(&list).ok_or_else(|| ProbeError::Malformed {
            what: ONLINE.into(),
            reason: format!("{:?} is no list of CPUs", list.trim()),
        })?;
        let size = ring_size(cpus.len());
        let mut rings = Vec::with_capacity(cpus.len());
        for cpu in cpus {
            match Ring::open(cpu, size) {
                Ok(ring) => rings.push(ring),
                // It went offline since the list was read.
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
                Err(error) => return Err(refused(&error)),
            }
        }
        Ok(Self { rings, kept: Taken::default() })
    }

    /// Takes what the kernel said since the last time.
    pub fn take(&mut self) -> Taken {
        let mut taken = std::mem::take(&mut self.kept);
        let mut names = Names::default();
        for ring in &mut self.rings {
            let Taken { entries, lost } = &mut taken;
            let mut unread = 0;
            let gaps = ring.drain(&mut |bytes| match parse_record(bytes) {
                Ok(record) => match change(record) {
                    Ok((sample, change)) => entries.push(entry(sample, change, &mut names)),
                    Err(count) => unread += count,
                },
                Err(_) => unread += 1,
            });
            *lost += gaps + unread;
        }
        taken.entries.sort_by_key(|entry| entry.time_ns);
        taken
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
        self.rings.iter().map(AsFd::as_fd)
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

/// A list as in `0-3,7,9-10` (Documentation/admin-guide/cputopology.rst).
fn parse_cpus(list: &str) -> Option<Vec<u32>> {
    /// `CONFIG_NR_CPUS` is at most this on x86-64 (arch/x86/Kconfig, `NR_CPUS_RANGE_END`).
    const MOST: u32 = 8192;
    let mut cpus = Vec::new();
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
        if last >= MOST || first > last {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
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
    use super::*;

    #[test]
    fn lists_of_cpus_are_read_as_the_kernel_writes_them() {
        assert_eq!(parse_cpus("0\n"), Some(vec![0]));
        assert_eq!(parse_cpus("0-2,5,7-8\n"), Some(vec![0, 1, 2, 5, 7, 8]));
        for bad in ["", "a", "3-1", "0-4294967295", "1,,2"] {
            assert_eq!(parse_cpus(bad), None, "{bad}");
        }
    }

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
    fn a_refusal_says_what_to_do_about_it() {
        let message = |code| refused(&io::Error::from_raw_os_error(code)).to_string();
        assert!(message(libc::EINVAL).contains("5.8"));
        assert!(message(libc::ENOSYS).contains("CONFIG_PERF_EVENTS"));
        assert!(message(libc::EMFILE).contains("ulimit"));
    }
}
