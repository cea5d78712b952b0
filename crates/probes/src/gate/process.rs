// SPDX-License-Identifier: Apache-2.0
//! What /proc says of a process.

use std::fs;

use super::abi::TICK;
use crate::error::ProbeError;
use crate::question::ProcessKey;

/// `PROC_PID_INIT_INO` (include/linux/proc_ns.h).
const INITIAL_PID_NAMESPACE: u64 = 0xefff_fffc;

/// The key of a process. Its start is rounded down to ten milliseconds.
pub(crate) fn key(pid: u32) -> Result<ProcessKey, ProbeError> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).map_err(|error| ProbeError::file(&path, &error))?;
    let start = start(&text).ok_or_else(|| ProbeError::Malformed {
        what: path,
        reason: "it has no time of start (field 22)".into(),
    })?;
    Ok(ProcessKey { pid, start })
}

/// The time of start, in nanoseconds, in a line of /proc/PID/stat. The name before it may have spaces and
/// parentheses.
fn start(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let ticks: u64 = fields.split(' ').nth(19)?.parse().ok()?;
    ticks.checked_mul(TICK)
}

/// Whether a thread is being killed, or is gone. A signal that has a handler, or that is to stop it,
/// does not kill.
pub(crate) fn is_being_killed(thread: u32) -> bool {
    match fs::read_to_string(format!("/proc/{thread}/status")) {
        Ok(status) => has_fatal_signal(&status),
        Err(_) => true,
    }
}

/// The kernel ends a process by SIGKILL in each of its threads, whatever the signal was
/// (complete_signal, kernel/signal.c).
fn has_fatal_signal(status: &str) -> bool {
    const KILL: u64 = 1 << (libc::SIGKILL - 1);
    let pending = status.lines().find_map(|line| line.strip_prefix("SigPnd:"));
    let pending = pending.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    pending.is_some_and(|pending| pending & KILL != 0)
}

/// Whether this process sees the numbers that the kernel's programs see.
pub(crate) fn in_initial_pid_namespace() -> bool {
    use std::os::unix::fs::MetadataExt;

    fs::metadata("/proc/self/ns/pid").is_ok_and(|space| space.ino() == INITIAL_PID_NAMESPACE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_of_a_process_is_found_behind_any_name() {
        let fields = (3..=52).map(|field| if field == 22 { 1234 } else { field });
        let fields: Vec<String> = fields.map(|field| field.to_string()).collect();
        let stat = format!("7 (a ) (b) {}", fields.join(" "));
        assert_eq!(start(&stat), Some(12_340_000_000));
        assert_eq!(start("7 (a) S 1"), None);
    }

    #[test]
    fn this_process_has_a_start_and_is_not_being_killed() {
        let own = key(std::process::id()).unwrap();
        assert!(own.start > 0 && own.start.is_multiple_of(TICK), "{own:?}");
        assert!(!is_being_killed(std::process::id()));
    }

    #[test]
    fn only_a_pending_kill_is_fatal() {
        let status = |pending: &str| format!("Name:\tx\nSigQ:\t0/1\nSigPnd:\t{pending}\n");
        assert!(has_fatal_signal(&status("0000000000000100")));
        assert!(has_fatal_signal(&status("0000000000014100")));
        // SIGUSR1, SIGTERM, SIGSTOP.
        assert!(!has_fatal_signal(&status("0000000000044200")));
        assert!(!has_fatal_signal("SigPnd:\tx\n"));
    }
}
