// SPDX-License-Identifier: Apache-2.0
//! Records of perf, as far as the journal asks for them, out of bytes that are not trusted.
//!
//! The layouts are those of include/uapi/linux/perf_event.h (the comments of
//! `enum perf_event_type`). The kernel writes the native byte order.
//!
//! The sample is read from where the body ends, filled up to eight bytes, and not from the end of
//! the record. Where several listen, the kernel counts the samples of all those before into the
//! size of the record (perf_event_ksymbol_output and perf_event_text_poke_output,
//! kernel/events/core.c, 5.8 to 6.18: the size is added to for each listener and never set back),
//! and what stands behind the sample then is left over from older records.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

const LOST: u32 = 2;
const LOST_SAMPLES: u32 = 13;
const KSYMBOL: u32 = 17;
const TEXT_POKE: u32 = 20;
/// `PERF_RECORD_KSYMBOL_FLAGS_UNREGISTER`.
const UNREGISTER: u16 = 1;

/// Bytes in front of every record: type, flags, size.
pub(crate) const HEADER: usize = 8;
/// What a body is filled up to.
const ALIGNMENT: usize = 8;

/// When and by whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Process id (thread group) in the reader's pid namespace; 0 for the idle thread and for
    /// threads of other namespaces, all ones where it has exited (perf_event_pid_type,
    /// kernel/events/core.c).
    pub pid: u32,
    /// Thread id, likewise.
    pub tid: u32,
    /// Nanoseconds of the clock that the event was opened with.
    pub time_ns: u64,
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// `PERF_RECORD_TEXT_POKE`: code was rewritten.
    TextPoke {
        /// Where.
        address: u64,
        /// The bytes before; none where the code is new.
        old: Vec<u8>,
        /// The bytes after; none where it is gone.
        new: Vec<u8>,
        /// When and by whom.
        sample: Sample,
    },
    /// `PERF_RECORD_KSYMBOL`: an executable range came or went.
    Symbol {
        /// Where it starts.
        address: u64,
        /// Its length in bytes.
        length: u32,
        /// `enum perf_record_ksymbol_type`.
        kind: u16,
        /// Whether it came (or went).
        registered: bool,
        /// Its name; what is not UTF-8 is replaced.
        name: String,
        /// When and by whom.
        sample: Sample,
    },
    /// `PERF_RECORD_LOST`, `PERF_RECORD_LOST_SAMPLES`: this many did not fit.
    Lost(u64),
    /// Any other, by its number.
    Other(u32),
}

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// It is shorter than its own size, or than its kind needs.
    #[error("perf record of type {kind} is cut off: {length} bytes")]
    Truncated {
        /// `enum perf_event_type`.
        kind: u32,
        /// How many bytes there are.
        length: usize,
    },
    /// There is not even a header, or its size is not the length of the record.
    #[error("a perf record says it has {said} bytes and has {length}")]
    Size {
        /// What the header says.
        said: usize,
        /// How many bytes there are.
        length: usize,
    },
}

/// One whole record with its header.
pub fn parse_record(bytes: &[u8]) -> Result<Record, RecordError> {
    let Some(header) = Header::parse(bytes).filter(|header| header.size == bytes.len()) else {
        let said = Header::parse(bytes).map_or(0, |header| header.size);
        return Err(RecordError::Size { said, length: bytes.len() });
    };
    let kind = header.kind;
    let truncated = RecordError::Truncated { kind, length: bytes.len() };
    let body = Fields(bytes.get(HEADER..).unwrap_or_default());
    match kind {
        TEXT_POKE => text_poke(body).ok_or(truncated),
        KSYMBOL => symbol(body).ok_or(truncated),
        LOST => lost(body).ok_or(truncated),
        LOST_SAMPLES => lost_samples(body).ok_or(truncated),
        other => Ok(Record::Other(other)),
    }
}

/// `struct perf_event_header`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) kind: u32,
    /// Of the whole record, header included.
    pub(crate) size: usize,
}

impl Header {
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let kind = fields.u32()?;
        let _flags = fields.u16()?;
        Some(Self { kind, size: usize::from(fields.u16()?) })
    }
}

fn text_poke(mut body: Fields<'_>) -> Option<Record> {
    let address = body.u64()?;
    let (old_length, new_length) = (usize::from(body.u16()?), usize::from(body.u16()?));
    let old = body.take(old_length)?.to_vec();
    let new = body.take(new_length)?.to_vec();
    // Behind an address and two lengths.
    body.skip_filling(12 + old_length + new_length)?;
    Some(Record::TextPoke { address, old, new, sample: body.sample()? })
}

fn symbol(mut body: Fields<'_>) -> Option<Record> {
    let address = body.u64()?;
    let length = body.u32()?;
    let (kind, flags) = (body.u16()?, body.u16()?);
    let ends = body.0.iter().position(|byte| *byte == 0)?;
    let name = String::from_utf8_lossy(body.take(ends)?).into_owned();
    let _zero = body.take(1)?;
    body.skip_filling(ends + 1)?;
    let registered = flags & UNREGISTER == 0;
    Some(Record::Symbol { address, length, kind, registered, name, sample: body.sample()? })
}

fn lost(mut body: Fields<'_>) -> Option<Record> {
    let _event = body.u64()?;
    body.u64().map(Record::Lost)
}

fn lost_samples(mut body: Fields<'_>) -> Option<Record> {
    body.u64().map(Record::Lost)
}

/// Bytes not yet read.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2)?.try_into().ok().map(u16::from_ne_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_ne_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_ne_bytes)
    }

    /// Leaves out what fills `length` bytes up.
    fn skip_filling(&mut self, length: usize) -> Option<()> {
        self.take(length.next_multiple_of(ALIGNMENT) - length).map(|_| ())
    }

    /// `PERF_SAMPLE_TID` and `PERF_SAMPLE_TIME`, by `sample_id_all`.
    fn sample(&mut self) -> Option<Sample> {
        Some(Sample { pid: self.u32()?, tid: self.u32()?, time_ns: self.u64()? })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A record as the kernel writes it: filled up to eight bytes, then the sample.
    pub(crate) fn encode(kind: u32, body: &[u8], sample: Option<Sample>) -> Vec<u8> {
        let mut record = vec![0; HEADER];
        record.extend(body);
        record.resize(record.len().next_multiple_of(8), 0);
        if let Some(sample) = sample {
            record.extend(sample.pid.to_ne_bytes());
            record.extend(sample.tid.to_ne_bytes());
            record.extend(sample.time_ns.to_ne_bytes());
        }
        record[..4].copy_from_slice(&kind.to_ne_bytes());
        let size = record.len() as u16;
        record[6..8].copy_from_slice(&size.to_ne_bytes());
        record
    }

    pub(crate) const SOMEBODY: Sample = Sample { pid: 7, tid: 8, time_ns: 9 };

    pub(crate) fn a_poke(address: u64, old: &[u8], new: &[u8]) -> Vec<u8> {
        let mut body = address.to_ne_bytes().to_vec();
        body.extend((old.len() as u16).to_ne_bytes());
        body.extend((new.len() as u16).to_ne_bytes());
        body.extend(old);
        body.extend(new);
        encode(TEXT_POKE, &body, Some(SOMEBODY))
    }

    fn a_symbol() -> Vec<u8> {
        let mut body = 0x1000_u64.to_ne_bytes().to_vec();
        body.extend(64_u32.to_ne_bytes());
        body.extend(1_u16.to_ne_bytes());
        body.extend(UNREGISTER.to_ne_bytes());
        body.extend(b"bpf_prog_0123\0");
        encode(KSYMBOL, &body, Some(SOMEBODY))
    }

    #[test]
    fn a_text_poke_has_its_bytes_before_and_after() {
        assert_eq!(
            parse_record(&a_poke(0x42, &[1, 2, 3], &[4, 5])),
            Ok(Record::TextPoke {
                address: 0x42,
                old: vec![1, 2, 3],
                new: vec![4, 5],
                sample: SOMEBODY
            })
        );
    }

    #[test]
    fn a_symbol_that_goes_is_told_from_one_that_comes() {
        let mut bytes = a_symbol();
        let expected = |registered| Record::Symbol {
            address: 0x1000,
            length: 64,
            kind: 1,
            registered,
            name: "bpf_prog_0123".into(),
            sample: SOMEBODY,
        };
        assert_eq!(parse_record(&bytes), Ok(expected(false)));
        bytes[HEADER + 14] = 0;
        assert_eq!(parse_record(&bytes), Ok(expected(true)));
    }

    #[test]
    fn what_the_kernel_reserves_for_other_listeners_is_left_alone() {
        for record in [a_poke(1, &[1; 5], &[2; 5]), a_symbol()] {
            let expected = parse_record(&record).unwrap();
            let mut longer = record.clone();
            longer.extend([0xee; 2 * 16]);
            let size = longer.len() as u16;
            longer[6..8].copy_from_slice(&size.to_ne_bytes());
            assert_eq!(parse_record(&longer), Ok(expected));
        }
    }

    #[test]
    fn lost_records_are_counted_and_unknown_ones_named() {
        let mut body = 1_u64.to_ne_bytes().to_vec();
        body.extend(33_u64.to_ne_bytes());
        assert_eq!(parse_record(&encode(LOST, &body, Some(SOMEBODY))), Ok(Record::Lost(33)));
        assert_eq!(parse_record(&encode(99, &[], None)), Ok(Record::Other(99)));
    }

    #[test]
    fn every_cut_is_noticed() {
        for whole in [a_poke(1, &[1; 5], &[2; 5]), a_symbol()] {
            for length in 0..whole.len() {
                let cut = &whole[..length];
                assert!(parse_record(cut).is_err());
                let mut agreed = cut.to_vec();
                if length >= HEADER {
                    agreed[6..8].copy_from_slice(&(length as u16).to_ne_bytes());
                    assert!(matches!(parse_record(&agreed), Err(RecordError::Truncated { .. })));
                }
            }
        }
        let no_sample = encode(TEXT_POKE, &[0; 8], None);
        assert_eq!(
            parse_record(&no_sample),
            Err(RecordError::Truncated { kind: TEXT_POKE, length: 16 })
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0_u32..24) {
            let size = (bytes.len() as u16).to_ne_bytes();
            if let Some(header) = bytes.first_chunk_mut::<HEADER>() {
                header[..4].copy_from_slice(&kind.to_ne_bytes());
                header[6..].copy_from_slice(&size);
            }
            let _ = parse_record(&bytes);
        }

        #[test]
        fn a_mutated_poke_is_an_error_or_keeps_within_its_bytes(at in 0_usize..64, value: u8) {
            let mut bytes = a_poke(1, &[1; 9], &[2; 9]);
            let index = at % bytes.len();
            bytes[index] = value;
            if let Ok(Record::TextPoke { old, new, .. }) = parse_record(&bytes) {
                prop_assert!(old.len() + new.len() <= bytes.len());
            }
        }
    }
}
