// SPDX-License-Identifier: Apache-2.0
//! The host's end of the agent: requests and their answers.

use std::collections::HashMap;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::protocol::{Frame, Kind};

/// A guest that does not answer this long after a command's time is over hangs.
const GRACE: Duration = Duration::from_secs(15);
/// File bytes in one frame.
const PIECE: usize = 512 << 10;

/// What a command in the guest gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Exit code; 128 + signal where a signal ended it.
    pub code: i32,
    /// Standard output.
    pub out: Vec<u8>,
    /// Standard error.
    pub err: Vec<u8>,
}

impl Output {
    /// Standard output as text, without the last line's end.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).trim_end().to_owned()
    }

    /// Standard error as text, without the last line's end.
    #[must_use]
    pub fn errors(&self) -> String {
        String::from_utf8_lossy(&self.err).trim_end().to_owned()
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum NoAnswer {
    /// The connection is closed: the guest ended.
    Closed,
    /// Nothing came in time.
    Silent,
    /// The command's time was over.
    TimedOut,
    /// The agent says why not.
    Refused(String),
}

type Waiting = Arc<Mutex<HashMap<u32, Sender<Frame>>>>;

/// The connection to a guest's agent.
#[derive(Debug)]
pub(crate) struct Guest {
    wire: Mutex<UnixStream>,
    waiting: Waiting,
    next: AtomicU32,
}

impl Guest {
    /// Waits for the agent to say hello; gives what it could not load.
    pub(crate) fn connect(wire: UnixStream, limit: Duration) -> Result<(Self, String), NoAnswer> {
        let waiting = Waiting::default();
        let hello = wait_for(&waiting, 0);
        let mut from = wire.try_clone().map_err(|_| NoAnswer::Closed)?;
        let answers = Arc::clone(&waiting);
        thread::spawn(move || {
            while let Ok(frame) = Frame::read(&mut from) {
                let all = answers.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(waiting) = all.get(&frame.number) {
                    // Nobody waits any more for one that was given up.
                    let _ = waiting.send(frame);
                }
            }
            // All that wait hear of the end when their senders go.
            answers.lock().unwrap_or_else(PoisonError::into_inner).clear();
        });
        let guest = Self { wire: Mutex::new(wire), waiting, next: AtomicU32::new(1) };
        let frame = next(&hello, Instant::now() + limit)?;
        guest.forget(0);
        Ok((guest, shortened(&String::from_utf8_lossy(&frame.bytes))))
    }

    /// Starts a command.
    pub(crate) fn start(
        &self,
        arguments: &[&str],
        limit: Duration,
    ) -> Result<(u32, Receiver<Frame>), NoAnswer> {
        let milliseconds = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX);
        let mut bytes = milliseconds.to_le_bytes().to_vec();
        for argument in arguments {
            bytes.extend_from_slice(argument.as_bytes());
            bytes.push(0);
        }
        self.ask(Kind::Run, bytes)
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str], limit: Duration) -> Result<Output, NoAnswer> {
        let (number, answers) = self.start(arguments, limit)?;
        self.collect(number, &answers, limit)
    }

    /// Waits for the rest of an answer.
    pub(crate) fn collect(
        &self,
        number: u32,
        answers: &Receiver<Frame>,
        limit: Duration,
    ) -> Result<Output, NoAnswer> {
        let deadline = Instant::now() + limit + GRACE;
        let mut output = Output { code: 0, out: Vec::new(), err: Vec::new() };
        let ended = loop {
            match next(answers, deadline) {
                Ok(frame) => match ending(&frame) {
                    Some(Ok(code)) => break Ok(code),
                    Some(Err(why)) => break Err(why),
                    None if frame.kind == Kind::Errors => output.err.extend(frame.bytes),
                    None => output.out.extend(frame.bytes),
                },
                Err(why) => break Err(why),
            }
        };
        self.forget(number);
        output.code = ended?;
        Ok(output)
    }

    /// Sends a signal to the process group of a command that was started.
    pub(crate) fn signal(&self, number: u32, signal: u32) -> Result<(), NoAnswer> {
        self.send(&Frame::new(number, Kind::Signal, signal.to_le_bytes()))
    }

    /// Writes a file in the guest.
    pub(crate) fn put(&self, path: &str, permissions: u32, bytes: &[u8]) -> Result<(), NoAnswer> {
        let mut kind = Kind::Put;
        let empty: &[u8] = &[];
        for piece in if bytes.is_empty() { vec![empty] } else { bytes.chunks(PIECE).collect() } {
            let mut all = permissions.to_le_bytes().to_vec();
            all.extend_from_slice(path.as_bytes());
            all.push(0);
            all.extend_from_slice(piece);
            let (number, answers) = self.ask(kind, all)?;
            self.collect(number, &answers, GRACE)?;
            kind = Kind::Append;
        }
        Ok(())
    }

    /// Reads a file of the guest.
    pub(crate) fn get(&self, path: &str, limit: Duration) -> Result<Vec<u8>, NoAnswer> {
        let (number, answers) = self.ask(Kind::Get, path.as_bytes().to_vec())?;
        Ok(self.collect(number, &answers, limit)?.out)
    }

    fn ask(&self, kind: Kind, bytes: Vec<u8>) -> Result<(u32, Receiver<Frame>), NoAnswer> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let answers = wait_for(&self.waiting, number);
        self.send(&Frame::new(number, kind, bytes))?;
        Ok((number, answers))
    }

    fn send(&self, frame: &Frame) -> Result<(), NoAnswer> {
        let wire = self.wire.lock().unwrap_or_else(PoisonError::into_inner);
        let mut wire: &UnixStream = &wire;
        let sent = frame.write(&mut wire).and_then(|()| wire.flush());
        sent.map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => NoAnswer::Refused(error.to_string()),
            _ => NoAnswer::Closed,
        })
    }

    fn forget(&self, number: u32) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
    }
}

/// The first lines of a text as one, and how many there are more.
fn shortened(text: &str) -> String {
    const LINES: usize = 3;
    let lines: Vec<_> = text.lines().collect();
    let first = lines.iter().take(LINES).copied().collect::<Vec<_>>().join(", ");
    match lines.len().saturating_sub(LINES) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

fn wait_for(waiting: &Waiting, number: u32) -> Receiver<Frame> {
    let (sender, receiver) = channel();
    waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(number, sender);
    receiver
}

/// The next frame of an answer.
pub(crate) fn next(answers: &Receiver<Frame>, deadline: Instant) -> Result<Frame, NoAnswer> {
    let left = deadline.saturating_duration_since(Instant::now());
    answers.recv_timeout(left).map_err(|error| match error {
        RecvTimeoutError::Timeout => NoAnswer::Silent,
        RecvTimeoutError::Disconnected => NoAnswer::Closed,
    })
}

/// How an answer ends, if this frame ends it.
pub(crate) fn ending(frame: &Frame) -> Option<Result<i32, NoAnswer>> {
    match frame.kind {
        Kind::Ended => {
            let code = frame.leading_number().map(|(code, _)| code.cast_signed());
            Some(code.map_err(|error| NoAnswer::Refused(error.to_string())))
        }
        Kind::TimedOut => Some(Err(NoAnswer::TimedOut)),
        Kind::Refused => {
            let why = String::from_utf8_lossy(&frame.bytes).into_owned();
            Some(Err(NoAnswer::Refused(why)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An agent that answers each request with what `answer` gives.
    fn agent(answer: impl Fn(&Frame) -> Vec<Frame> + Send + 'static) -> Guest {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        thread::spawn(move || {
            Frame::new(0, Kind::Hello, b"a.ko (why)\nb.ko\n".to_vec()).write(&mut theirs).unwrap();
            while let Ok(frame) = Frame::read(&mut theirs) {
                for frame in answer(&frame) {
                    frame.write(&mut theirs).unwrap();
                }
            }
        });
        let (guest, not_loaded) = Guest::connect(ours, GRACE).unwrap();
        assert_eq!(not_loaded, "a.ko (why), b.ko");
        guest
    }

    #[test]
    fn a_command_gives_its_output_its_errors_and_its_code() {
        let guest = agent(|request| {
            assert_eq!(request.bytes, b"\xe8\x03\0\0echo\0x\0");
            let number = request.number;
            vec![
                Frame::new(number + 50, Kind::Output, b"of another".to_vec()),
                Frame::new(number, Kind::Output, b"one ".to_vec()),
                Frame::new(number, Kind::Errors, b"bad\n".to_vec()),
                Frame::new(number, Kind::Output, b"two\n".to_vec()),
                Frame::new(number, Kind::Ended, (-1_i32).to_le_bytes()),
            ]
        });
        let output = guest.run(&["echo", "x"], Duration::from_secs(1)).unwrap();
        assert_eq!(
            (output.code, output.text(), output.errors()),
            (-1, "one two".into(), "bad".into())
        );
    }

    #[test]
    fn a_command_that_took_too_long_and_one_that_cannot_start_are_told_apart() {
        let guest = agent(|request| {
            let late = request.bytes.ends_with(b"sleep\0");
            let kind = if late { Kind::TimedOut } else { Kind::Refused };
            vec![Frame::new(request.number, kind, b"no such file".to_vec())]
        });
        let late = guest.run(&["sleep"], Duration::ZERO);
        assert!(matches!(late, Err(NoAnswer::TimedOut)), "{late:?}");
        let refused = guest.run(&["none"], Duration::ZERO);
        assert!(matches!(&refused, Err(NoAnswer::Refused(why)) if why == "no such file"));
    }

    #[test]
    fn a_guest_that_goes_away_is_noticed_at_once() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        let gone = Guest::connect(ours, GRACE);
        assert!(matches!(gone, Err(NoAnswer::Closed)));
    }

    #[test]
    fn large_files_go_in_pieces() {
        let guest = agent(|request| {
            assert!(request.bytes.len() < PIECE + 100);
            let length = request.bytes.len() - 4 - "/f\0".len();
            assert_eq!(request.kind == Kind::Put, length == PIECE);
            vec![Frame::new(request.number, Kind::Ended, [0; 4])]
        });
        guest.put("/f", 0o644, &vec![7; PIECE + 10]).unwrap();
    }
}
