// SPDX-License-Identifier: Apache-2.0
//! Which CPUs came online since one last asked.
//!
//! perf takes the events of a CPU away when it goes offline and does not bring them back
//! (`perf_event_exit_cpu`, kernel/events/core.c), so whoever listens has to begin anew when it
//! returns. The list of online CPUs tells of most; one that was off and on again in between looks
//! the same there, so the kernel's uevents are heard too (Documentation/core-api/kobject.rst).
//!
//! The uevent of going offline is sent before anybody can bring the CPU back (`device_offline`,
//! drivers/base/core.c, under the lock of hotplug), so whoever finds none has an event that lives. That of
//! coming online is sent some time after the CPU has begun to work, and before it can go again; it tells
//! of those that came and went while nobody listened.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::OwnedFd;

use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{self, AddressFamily, RecvFlags, SocketFlags, SocketType};

use super::sleep::Sleep;
use crate::error::ProbeError;

const ONLINE: &str = "/sys/devices/system/cpu/online";

/// The group of netlink that the kernel itself sends uevents to (lib/kobject_uevent.c).
const FROM_KERNEL: u32 = 1;

/// Uevents that are read in one go. A storm of other devices must not hold up a pass.
const MOST_EVENTS: usize = 1024;

/// The CPUs that are online, as far as is known.
#[derive(Debug)]
pub(super) struct Online {
    cpus: BTreeSet<u32>,
    /// None where the kernel gives no such socket; then the list alone tells.
    events: Option<OwnedFd>,
    sleep: Sleep,
}

impl Online {
    /// Those that are online now.
    pub(super) fn now() -> Result<Self, ProbeError> {
        // Listening begins before the list is read: what changes meanwhile is told twice.
        let (sleep, events) = (Sleep::now(), listen().ok());
        Ok(Self { cpus: online()?, events, sleep })
    }

    pub(super) fn cpus(&self) -> impl Iterator<Item = u32> {
        self.cpus.iter().copied()
    }

    /// What became of the CPUs since the last time.
    pub(super) fn follow(&mut self) -> Result<Followed, ProbeError> {
        let mut unheard = BTreeSet::new();
        if !self.hear(&mut unheard) || self.sleep.slept() {
            // Any may have gone and come.
            self.cpus.clear();
        }
        // What was told is not told again: without the list all of them come anew next time.
        let now = online().inspect_err(|_| self.cpus.clear())?;
        let came: BTreeSet<u32> = now.difference(&self.cpus).copied().collect();
        unheard.extend(self.cpus.difference(&now));
        self.cpus = now;
        unheard.extend(&came);
        Ok(Followed { came, unheard: unheard.len() as u64 })
    }

    pub(super) fn has(&self, cpu: u32) -> bool {
        self.cpus.contains(&cpu)
    }

    /// Has a CPU come anew.
    pub(super) fn forget(&mut self, cpu: u32) {
        self.cpus.remove(&cpu);
    }

    /// Takes what the uevents say; gives whether they said all.
    fn hear(&mut self, unheard: &mut BTreeSet<u32>) -> bool {
        let mut message = [0; 4096];
        for _ in 0..MOST_EVENTS {
            let Some(events) = &self.events else { return true };
            match net::recv(events, message.as_mut_slice(), RecvFlags::DONTWAIT) {
                Ok((_, length)) => {
                    if let Some(change) = message.get(..length).and_then(change) {
                        self.note(change, unheard);
                    }
                }
                // Some did not fit.
                Err(rustix::io::Errno::NOBUFS) => return false,
                Err(_) => return true,
            }
        }
        // There are more.
        false
    }

    /// A CPU that goes offline is not heard at its last: perf takes its events away as it begins to go
    /// (`CPUHP_AP_PERF_ONLINE`, include/linux/cpuhotplug.h). One that came online and is not heard either
    /// still is, or has gone again.
    fn note(&mut self, change: Change, unheard: &mut BTreeSet<u32>) {
        match change {
            Change::Offline(cpu) => {
                self.cpus.remove(&cpu);
                unheard.insert(cpu);
            }
            Change::Online(cpu) => {
                if !self.cpus.contains(&cpu) {
                    unheard.insert(cpu);
                }
            }
        }
    }
}

/// What became of the CPUs.
#[derive(Debug)]
pub(super) struct Followed {
    /// Those that have to be listened to anew.
    pub(super) came: BTreeSet<u32>,
    /// How many were online for some time, or may have been, while nobody listened: those that came, and
    /// those that went.
    pub(super) unheard: u64,
}

/// What a uevent says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Online(u32),
    Offline(u32),
}

fn listen() -> rustix::io::Result<OwnedFd> {
    let socket = net::socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        Some(netlink::KOBJECT_UEVENT),
    )?;
    net::bind(&socket, &SocketAddrNetlink::new(0, FROM_KERNEL))?;
    Ok(socket)
}

/// What a uevent says of a CPU: `offline@/devices/system/cpu/cpu3`, then a zero.
fn change(message: &[u8]) -> Option<Change> {
    let end = message.iter().position(|byte| *byte == 0)?;
    let first = std::str::from_utf8(message.get(..end)?).ok()?;
    let (action, cpu) = first.split_once("@/devices/system/cpu/cpu")?;
    match action {
        "online" => cpu.parse().ok().map(Change::Online),
        "offline" => cpu.parse().ok().map(Change::Offline),
        _ => None,
    }
}

/// The CPUs that are online, by the kernel's list.
pub(crate) fn online() -> Result<BTreeSet<u32>, ProbeError> {
    let list = fs::read_to_string(ONLINE).map_err(|error| ProbeError::file(ONLINE, &error))?;
    parse_cpus(&list).ok_or_else(|| ProbeError::Malformed {
        what: ONLINE.into(),
        reason: format!("{:?} is no list of CPUs", list.trim()),
    })
}

/// A list as in `0-3,7,9-10` (Documentation/admin-guide/cputopology.rst).
fn parse_cpus(list: &str) -> Option<BTreeSet<u32>> {
    /// `CONFIG_NR_CPUS` is at most this on x86-64 (arch/x86/Kconfig, `NR_CPUS_RANGE_END`).
    const MOST: u32 = 8192;
    let mut cpus = BTreeSet::new();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus_are_read_as_the_kernel_writes_them() {
        let cpus = |list| parse_cpus(list).map(|cpus| cpus.into_iter().collect::<Vec<_>>());
        assert_eq!(cpus("0\n"), Some(vec![0]));
        assert_eq!(cpus("0-2,5,7-8\n"), Some(vec![0, 1, 2, 5, 7, 8]));
        for bad in ["", "a", "3-1", "0-4294967295", "1,,2"] {
            assert_eq!(cpus(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_cpus_that_come_and_go_are_news() {
        let message = |first: &str| format!("{first}\0ACTION=x\0SEQNUM=1\0").into_bytes();
        let of = |first: &str| change(&message(first));
        assert_eq!(of("offline@/devices/system/cpu/cpu12"), Some(Change::Offline(12)));
        assert_eq!(of("online@/devices/system/cpu/cpu1"), Some(Change::Online(1)));
        for other in ["add@/devices/system/cpu/cpu1", "offline@/devices", "online@/devices/x/cpu1"]
        {
            assert_eq!(of(other), None, "{other}");
        }
        assert_eq!(change(b"offline@/devices/system/cpu/cpu1"), None);
    }

    #[test]
    fn what_was_online_while_nobody_listened_is_told_although_it_is_gone_again() {
        use Change::{Offline, Online as Came};
        let unheard = |heard: &[u32], changes: &[Change]| {
            let mut online = Online::now().unwrap();
            online.cpus = heard.iter().copied().collect();
            let mut unheard = BTreeSet::new();
            for change in changes {
                online.note(*change, &mut unheard);
            }
            (online.cpus.contains(&1), unheard.contains(&1))
        };
        assert_eq!(unheard(&[0, 1], &[Offline(1)]), (false, true), "its end is not heard");
        assert_eq!(unheard(&[0, 1], &[Offline(1), Came(1)]), (false, true));
        assert_eq!(unheard(&[0, 1], &[Offline(1), Came(1), Offline(1)]), (false, true));
        assert_eq!(unheard(&[0], &[Came(1)]), (false, true));
        // The list had it before the kernel told, and it has been heard since.
        assert_eq!(unheard(&[0, 1], &[Came(1)]), (true, false));
    }

    #[test]
    fn a_cpu_that_was_not_there_before_came_and_one_that_is_not_there_now_went() {
        let mut online = Online::now().unwrap();
        let all = online.cpus.clone();
        assert!(!all.is_empty());
        online.cpus.pop_first();
        let Followed { came, unheard } = online.follow().unwrap();
        assert_eq!((came.first(), unheard), (all.first(), came.len() as u64));
        // The kernel's list alone tells of this one.
        online.cpus.insert(8191);
        let Followed { came, unheard } = online.follow().unwrap();
        assert_eq!((came.len(), unheard), (0, 1));
        let Followed { came, unheard } = online.follow().unwrap();
        assert_eq!((came.len(), unheard), (0, 0));
    }
}
