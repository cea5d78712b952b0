// SPDX-License-Identifier: Apache-2.0
//! What host and guest say to each other over the virtio serial port.
//!
//! Both send frames: a request's number, a kind, a length and that many bytes. Requests run side by
//! side, and each frame of an answer carries the number of its request. Numbers are little endian.
//!
//! | kind | from | bytes |
//! | --- | --- | --- |
//! | `Hello` | guest | modules that could not be loaded, as text; the number is 0 |
//! | `Run` | host | limit in milliseconds (u32), then the arguments, each closed by a zero byte |
//! | `Signal` | host | signal (u32) for the process group of the command of that number |
//! | `Put` | host | permissions (u32), path closed by a zero byte, the file's first bytes |
//! | `Append` | host | the same with further bytes |
//! | `Get` | host | path |
//! | `Output`, `Errors` | guest | what a command printed; `Output` also the bytes of a file |
//! | `Ended` | guest | exit code (i32), 128 + signal where a signal ended it; also after Put and Get |
//! | `TimedOut` | guest | nothing; the command's process group was killed |
//! | `Refused` | guest | why it cannot be done, as text |

use std::io::{self, Read, Write};

/// The name of the port, on both sides.
pub(crate) const PORT: &str = "ringfence-lab";
/// No frame is longer.
pub(crate) const LONGEST: usize = 1 << 20;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Hello = 1,
    Run,
    Signal,
    Put,
    Append,
    Get,
    Output,
    Errors,
    Ended,
    TimedOut,
    Refused,
}

impl Kind {
    const ALL: [Self; 11] = [
        Self::Hello,
        Self::Run,
        Self::Signal,
        Self::Put,
        Self::Append,
        Self::Get,
        Self::Output,
        Self::Errors,
        Self::Ended,
        Self::TimedOut,
        Self::Refused,
    ];
}

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// The request that this belongs to.
    pub(crate) number: u32,
    pub(crate) kind: Kind,
    pub(crate) bytes: Vec<u8>,
}

impl Frame {
    pub(crate) fn new(number: u32, kind: Kind, bytes: impl Into<Vec<u8>>) -> Self {
        Self { number, kind, bytes: bytes.into() }
    }

    /// Writes the frame at once, so that frames of several threads do not mix.
    pub(crate) fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let length = u32::try_from(self.bytes.len()).ok().filter(|_| self.bytes.len() <= LONGEST);
        let length = length.ok_or_else(|| invalid(format!("{} bytes", self.bytes.len())))?;
        let mut all = Vec::with_capacity(self.bytes.len() + 9);
        all.extend_from_slice(&self.number.to_le_bytes());
        all.push(self.kind as u8);
        all.extend_from_slice(&length.to_le_bytes());
        all.extend_from_slice(&self.bytes);
        to.write_all(&all)?;
        to.flush()
    }

    /// Reads a frame.
    pub(crate) fn read(from: &mut impl Read) -> io::Result<Self> {
        let (mut number, mut kind, mut length) = ([0; 4], [0; 1], [0; 4]);
        from.read_exact(&mut number)?;
        from.read_exact(&mut kind)?;
        from.read_exact(&mut length)?;
        let [kind] = kind;
        let kind = Kind::ALL.into_iter().find(|known| *known as u8 == kind);
        let kind = kind.ok_or_else(|| invalid("an unknown kind".to_owned()))?;
        let length = u32::from_le_bytes(length) as usize;
        if length > LONGEST {
            return Err(invalid(format!("{length} bytes")));
        }
        let mut bytes = vec![0; length];
        from.read_exact(&mut bytes)?;
        Ok(Self { number: u32::from_le_bytes(number), kind, bytes })
    }

    /// The number that the bytes begin with, and the bytes after it.
    pub(crate) fn leading_number(&self) -> io::Result<(u32, &[u8])> {
        let (number, rest) = self
            .bytes
            .split_first_chunk::<4>()
            .ok_or_else(|| invalid("no number where one was expected".to_owned()))?;
        Ok((u32::from_le_bytes(*number), rest))
    }
}

/// Text closed by a zero byte, and the bytes after it.
pub(crate) fn text(bytes: &[u8]) -> io::Result<(String, &[u8])> {
    let end = bytes.iter().position(|byte| *byte == 0);
    let parts = end.and_then(|end| Some((bytes.get(..end)?, bytes.get(end + 1..)?)));
    let (text, rest) = parts.ok_or_else(|| invalid("text that is not closed".to_owned()))?;
    Ok((String::from_utf8_lossy(text).into_owned(), rest))
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a frame of the agent protocol with {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_as_they_went_one_after_the_other() {
        let frames = [
            Frame::new(7, Kind::Run, b"\x10\0\0\0a\0b\0".to_vec()),
            Frame::new(u32::MAX, Kind::Ended, 3_i32.to_le_bytes()),
            Frame::new(0, Kind::TimedOut, []),
        ];
        let mut wire = Vec::new();
        for frame in &frames {
            frame.write(&mut wire).unwrap();
        }
        let mut rest = wire.as_slice();
        for frame in frames {
            assert_eq!(Frame::read(&mut rest).unwrap(), frame);
        }
        assert!(rest.is_empty());
    }

    #[test]
    fn a_length_that_is_a_lie_takes_no_memory() {
        let wire = [1, 0, 0, 0, Kind::Output as u8, 0xff, 0xff, 0xff, 0xff];
        let error = Frame::read(&mut wire.as_slice()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_frame_that_is_cut_off_or_of_no_known_kind_is_an_error() {
        let mut wire = Vec::new();
        Frame::new(1, Kind::Output, b"hello".to_vec()).write(&mut wire).unwrap();
        for length in 0..wire.len() {
            assert!(Frame::read(&mut &wire[..length]).is_err(), "{length}");
        }
        wire[4] = 200;
        assert!(Frame::read(&mut wire.as_slice()).is_err());
    }

    #[test]
    fn arguments_are_taken_apart_at_zero_bytes() {
        let frame = Frame::new(1, Kind::Run, b"\x05\0\0\0sh\0-c\0\0".to_vec());
        let (limit, mut rest) = frame.leading_number().unwrap();
        assert_eq!(limit, 5);
        let mut arguments = Vec::new();
        while !rest.is_empty() {
            let (argument, after) = text(rest).unwrap();
            arguments.push(argument);
            rest = after;
        }
        assert_eq!(arguments, ["sh", "-c", ""]);
        assert!(text(b"open").is_err());
    }
}
