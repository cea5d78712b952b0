// SPDX-License-Identifier: Apache-2.0
//! Which CPUs came online since one last asked.
//!
//! perf takes the events of a CPU away when it goes offline and does not bring them back
//! (`perf_event_exit_cpu`, kernel/events/core.c), so whoever listens has to begin anew when it
//! returns. The list of online CPUs tells of most; one that was off and on again in between looks
//! the same there, so the kernel's uevents are heard too (Documentation/core-api/kobject.rst).

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::OwnedFd;

use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{self, AddressFamily, RecvFlags, SocketFlags, SocketType};

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
}

impl Online {
    /// Those that are online now.
    pub(super) fn now() -> Result<Self, ProbeError> {
        // Listening begins before the list is read: what changes meanwhile is told twice.
        let events = listen().ok();
        Ok(Self { cpus: online()?, events })
    }

    pub(super) fn cpus(&self) -> impl Iterator<Item = u32> {
        self.cpus.iter().copied()
    }

    /// Those that came online since the last time, or may have.
    pub(super) fn came(&mut self) -> Result<BTreeSet<u32>, ProbeError> {
        let mut came = self.told();
        let now = online()?;
        came.extend(now.difference(&self.cpus));
        came.retain(|cpu| now.contains(cpu));
        self.cpus = now;
        Ok(came)
    }

    pub(super) fn has(&self, cpu: u32) -> bool {
        self.cpus.contains(&cpu)
    }

    /// Has a CPU come anew.
    pub(super) fn forget(&mut self, cpu: u32) {
        self.cpus.remove(&cpu);
    }

    fn told(&self) -> BTreeSet<u32> {
        let mut came = BTreeSet::new();
        let Some(events) = &self.events else { return came };
        let mut message = [0; 4096];
        for _ in 0..MOST_EVENTS {
            match net::recv(events, message.as_mut_slice(), RecvFlags::DONTWAIT) {
                Ok((_, length)) => came.extend(message.get(..length).and_then(came_online)),
                // Some did not fit: any CPU may have gone and come.
                Err(rustix::io::Errno::NOBUFS) => came.extend(&self.cpus),
                Err(_) => break,
            }
        }
        came
    }
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

/// The CPU that a uevent says came online: `online@/devices/system/cpu/cpu3`, then a zero.
fn came_online(message: &[u8]) -> Option<u32> {
    let end = message.iter().position(|byte| *byte == 0)?;
    let first = std::str::from_utf8(message.get(..end)?).ok()?;
    first.strip_prefix("online@/devices/system/cpu/cpu")?.parse().ok()
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
    fn only_a_cpu_that_comes_online_is_news() {
        let message = |first: &str| format!("{first}\0ACTION=x\0SEQNUM=1\0").into_bytes();
        assert_eq!(came_online(&message("online@/devices/system/cpu/cpu12")), Some(12));
        for other in
            ["offline@/devices/system/cpu/cpu1", "add@/devices/system/cpu/cpu1", "online@/devices"]
        {
            assert_eq!(came_online(&message(other)), None, "{other}");
        }
        assert_eq!(came_online(b"online@/devices/system/cpu/cpu1"), None);
    }

    #[test]
    fn a_cpu_that_was_not_there_before_came() {
        let mut online = Online::now().unwrap();
        let all = online.cpus.clone();
        assert!(!all.is_empty());
        online.cpus.pop_first();
        let came = online.came().unwrap();
        assert_eq!(came.first(), all.first());
        assert!(online.came().unwrap().is_empty());
    }
}
