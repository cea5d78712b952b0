// SPDX-License-Identifier: Apache-2.0
//! Events, as the kernel writes them into a buffer of ours (include/uapi/linux/fanotify.h). Pure:
//! descriptors are numbers here, which belong to nobody yet.

/// `struct fanotify_event_metadata`, and the version that it has since 2.6.37.
const METADATA: usize = 24;
const VERSION: u8 = 3;
/// `struct fanotify_event_info_header`, and the kind that carries a pidfd.
const INFO: usize = 4;
const INFO_PIDFD: u8 = 4;

/// What is wrong with a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FanotifyError {
    /// An event does not end where the buffer does, or is shorter than its own parts.
    #[error("an event at byte {at} has a length of {length}")]
    Length {
        /// Where it begins.
        at: usize,
        /// Its length, 0 if there is none.
        length: usize,
    },
    /// Another version of the structure.
    #[error("events of version {0} are not known")]
    Version(u8),
}

/// An event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FanotifyEvent {
    /// `FAN_OPEN_PERM` and so on.
    pub mask: u64,
    /// Of the file; negative if there is none.
    pub descriptor: i32,
    /// Of the process, in the pid namespace of whoever opened the group; 0 if it is not in it.
    pub pid: i32,
    /// A pidfd of it; none if it was not asked for, or the process is gone.
    pub pidfd: Option<i32>,
}

/// The events in what a read gave, one after the other. After an error there is nothing more.
#[derive(Clone, Debug)]
pub struct FanotifyEvents<'bytes> {
    bytes: &'bytes [u8],
    at: usize,
}

impl<'bytes> FanotifyEvents<'bytes> {
    /// Those in `bytes`.
    #[must_use]
    pub fn new(bytes: &'bytes [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn parse(&mut self) -> Result<FanotifyEvent, FanotifyError> {
        let at = self.at;
        let rest = self.bytes.get(at..).unwrap_or_default();
        // Whatever happens, what follows an event that is not understood is not one.
        self.at = self.bytes.len();
        let length = u32_at(rest, 0).map_or(0, |length| length as usize);
        let fault = FanotifyError::Length { at, length };
        let event = rest.get(..length).filter(|event| event.len() >= METADATA).ok_or(fault)?;
        let version = event.get(4).copied().unwrap_or_default();
        if version != VERSION {
            return Err(FanotifyError::Version(version));
        }
        let parts = (u16_at(event, 6), u64_at(event, 8), u32_at(event, 16), u32_at(event, 20));
        let (Some(metadata), Some(mask), Some(descriptor), Some(pid)) = parts else {
            return Err(fault);
        };
        let metadata = usize::from(metadata);
        let information = event.get(metadata..).filter(|_| metadata >= METADATA).ok_or(fault)?;
        let pidfd = pidfd(information).ok_or(fault)?;
        self.at = at + length;
        let (descriptor, pid) = (descriptor.cast_signed(), pid.cast_signed());
        Ok(FanotifyEvent { mask, descriptor, pid, pidfd: pidfd.filter(|pidfd| *pidfd >= 0) })
    }
}

impl Iterator for FanotifyEvents<'_> {
    type Item = Result<FanotifyEvent, FanotifyError>;

    fn next(&mut self) -> Option<Self::Item> {
        (self.at < self.bytes.len()).then(|| self.parse())
    }
}

/// The pidfd in the records that follow the metadata, if one has it; none if one is not whole.
#[allow(clippy::option_option, reason = "whether the records are whole, and what they say")]
fn pidfd(mut records: &[u8]) -> Option<Option<i32>> {
    let mut pidfd = None;
    while !records.is_empty() {
        let length = usize::from(u16_at(records, 2)?);
        let record = records.get(..length).filter(|record| record.len() >= INFO)?;
        if record.first() == Some(&INFO_PIDFD) {
            pidfd = Some(u32_at(record, INFO)?.cast_signed());
        }
        records = records.get(length..)?;
    }
    Some(pidfd)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().copied().map(u64::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(mask: u64, descriptor: i32, pid: i32, records: &[u8]) -> Vec<u8> {
        let mut bytes = (24 + records.len() as u32).to_ne_bytes().to_vec();
        bytes.extend([3, 0]);
        bytes.extend(24_u16.to_ne_bytes());
        bytes.extend(mask.to_ne_bytes());
        bytes.extend(descriptor.to_ne_bytes());
        bytes.extend(pid.to_ne_bytes());
        bytes.extend(records);
        bytes
    }

    fn pidfd_record(pidfd: i32) -> Vec<u8> {
        let mut bytes = vec![4, 0, 8, 0];
        bytes.extend(pidfd.to_ne_bytes());
        bytes
    }

    #[test]
    fn events_follow_each_other_each_with_its_process() {
        let bytes = [
            event(1, 5, 70, &pidfd_record(6)),
            event(2, -1, 0, &[]),
            event(4, 7, 71, &pidfd_record(-1)),
        ];
        let events: Result<Vec<_>, _> = FanotifyEvents::new(&bytes.concat()).collect();
        let one = |mask, descriptor, pid, pidfd| FanotifyEvent { mask, descriptor, pid, pidfd };
        assert_eq!(
            events.unwrap(),
            [one(1, 5, 70, Some(6)), one(2, -1, 0, None), one(4, 7, 71, None)]
        );
    }

    #[test]
    fn an_event_that_is_cut_off_is_an_error_and_the_end() {
        let whole = event(1, 5, 70, &pidfd_record(6));
        for length in 1..whole.len() {
            let events: Vec<_> = FanotifyEvents::new(&whole[..length]).collect();
            assert!(matches!(events[..], [Err(FanotifyError::Length { at: 0, .. })]), "{length}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_come_to_an_end_and_nothing_follows_an_error(
            bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200),
            length in 0_u8..64,
            records in proptest::collection::vec(0_u8..12, 0..40),
        ) {
            // Once behind an event that may be whole, once as it is, once with lengths that may be right.
            let whole = event(1, 5, 70, &records);
            let mut near = event(1, 5, 70, &records);
            near[0] = length;
            for bytes in [[whole, bytes.clone()].concat(), bytes, near] {
                let events: Vec<_> = FanotifyEvents::new(&bytes).collect();
                assert!(events.iter().filter(|event| event.is_ok()).count() * 24 <= bytes.len());
                assert!(events.iter().rev().skip(1).all(Result::is_ok));
            }
        }
    }

    #[test]
    fn lengths_that_would_not_end_are_refused() {
        // A record of no length, one longer than its event, metadata longer than the event.
        for records in [&[4, 0, 0, 0][..], &[4, 0, 9, 0, 1, 1, 1, 1], &[4, 0, 4, 0]] {
            let bytes = event(1, 5, 70, records);
            assert!(FanotifyEvents::new(&bytes).next().unwrap().is_err(), "{records:?}");
        }
        let mut bytes = event(1, 5, 70, &[]);
        bytes[6] = 25;
        assert!(FanotifyEvents::new(&bytes).next().unwrap().is_err());
        bytes[6] = 24;
        bytes[4] = 4;
        assert_eq!(FanotifyEvents::new(&bytes).next(), Some(Err(FanotifyError::Version(4))));
    }
}
