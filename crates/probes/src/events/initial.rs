// SPDX-License-Identifier: Apache-2.0
//! What programs find in the state before the first event.

use std::fs;
use std::os::unix::fs::MetadataExt;

use rustix::time::{ClockId, clock_gettime};

use super::area::buffers;
use super::shared::ClientState;
use crate::error::ProbeError;

/// The state before the first event.
pub(super) fn initial_state() -> Result<ClientState, ProbeError> {
    let now = clock_gettime(ClockId::Boottime);
    let mounts = fs::metadata("/proc/1/ns/mnt").map(|file| file.ino());
    let boot_id = crate::views::system_file("/proc/sys/kernel/random/boot_id")?;
    Ok(ClientState {
        // Greater than what any earlier daemon of this boot got to, at less than an event each
        // nanosecond.
        sequence: now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64,
        boot_id: parse_boot_id(&boot_id).ok_or_else(|| ProbeError::Malformed {
            what: "/proc/sys/kernel/random/boot_id".into(),
            reason: format!("{:?} is no UUID", boot_id.trim()),
        })?,
        initial_mounts: mounts.ok().and_then(|number| u32::try_from(number).ok()).unwrap_or(0),
        buffers: buffers(),
        ..ClientState::default()
    })
}

/// The 16 bytes of a UUID in the order of its text.
fn parse_boot_id(text: &str) -> Option<[u8; 16]> {
    let digits: Vec<u32> =
        text.trim().chars().filter(|c| *c != '-').map(|c| c.to_digit(16)).collect::<Option<_>>()?;
    let mut bytes = [0; 16];
    if digits.len() != 2 * bytes.len() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        *byte = pair.iter().fold(0, |byte, digit| byte << 4 | *digit as u8);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_id_is_read_in_the_order_of_its_text() {
        let id = parse_boot_id("01234567-89ab-cdef-0011-223344556677\n").unwrap();
        assert_eq!(id[..8], [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef]);
        assert_eq!(id[15], 0x77);
        assert_eq!(parse_boot_id("01234567-89ab-cdef-0011-22334455667"), None);
        assert_eq!(parse_boot_id("0123456789abcdef001122334455667z"), None);
    }
}
