// SPDX-License-Identifier: Apache-2.0
//! The gate: threads wait inside a hook of the kernel until a verdict is there.
//!
//! What. bpf/lib/gate.h lets a sleepable LSM program ask, by reading an attribute of a file on a FUSE
//! file system; here is that file system, and the daemon's side of the question. A [`Gate`] gives
//! [`Question`]s as they come, takes answers in any order, and has three duties that nobody else can
//! have:
//!
//! - *Each request is answered*, whatever was in it: a thread that waits for FUSE cannot be killed once
//!   its request was read. What cannot be understood is refused, and then the kernel's side falls back.
//! - *A thread that is being killed is let go at once*, with EINTR. The kernel tells of any signal
//!   (FUSE_INTERRUPT), and of the first one only. A signal that does not kill must not end the question,
//!   or whoever wants no verdict would send himself one; so what is asked is whether the thread has
//!   SIGKILL pending, at once and then every [`LOOK_AGAIN`] for as long as it waits.
//! - *All waits end if the daemon does not do its work.* If it dies the kernel closes /dev/fuse, which
//!   aborts the connection; if it hangs and [`Gate::beat`] is not called in time, the anchor aborts it.
//!   Every thread then falls back to what its askers declared.
//!
//! Why raw FUSE, one thread, one buffer: a request that is read into a buffer which another thread
//! reads into as well is lost, and its thread waits for good. A `Gate` has one buffer, is used through
//! `&mut`, and copies out of it all that it keeps.
//!
//! Limits. Only in the initial pid namespace. What waits when the connection is aborted falls back; a
//! new `Gate` has to be opened then.

pub(crate) mod abi;
mod anchor;
mod connection;
mod exemptions;
mod fuse;
mod maps;
pub(crate) mod process;
mod program;
mod support;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

use crate::error::ProbeError;
use crate::question::{FileKey, Notice, ProcessKey, Question, QuestionId, Questions, Reply};
use abi::{ALLOW, DENY, GateQuestion, GateReply, Plain};
use anchor::{Anchor, Starting};
use connection::{Connection, Read};
pub(crate) use exemptions::Exempted;
pub use exemptions::Exemptions;
use fuse::{Limits, Served};

pub use fuse::{FuseError, FuseOperation, FuseRequest};
pub use maps::{GateCounters, GateMaps};
pub use support::gate_support;

/// How often it is looked whether a thread that had a signal is being killed.
pub const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The attribute that asks (bpf/lib/gate.h).
const ATTRIBUTE: &[u8] = b"user.verdict";

/// How patient the gate is.
#[derive(Clone, Copy, Debug)]
pub struct GateOptions {
    /// All waits end if [`Gate::beat`] is not called for so long. Call it three times as often.
    pub watchdog: Duration,
    /// A question that has no answer after this falls back: longer than any deadline, for the case that
    /// somebody forgot one.
    pub longest_wait: Duration,
}

impl Default for GateOptions {
    /// Two seconds, and a minute.
    fn default() -> Self {
        Self { watchdog: Duration::from_secs(2), longest_wait: Duration::from_secs(60) }
    }
}

/// A request that waits for its answer.
#[derive(Debug)]
struct Waiting {
    event_id: u64,
    thread: u32,
    since: Instant,
    /// It had a signal.
    interrupted: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Gate {
    maps: GateMaps,
    connection: Connection,
    served: Served,
    /// None while there is none, between the end of one and the start of the next.
    anchor: Option<Anchor>,
    anchors: u32,
    options: GateOptions,
    /// Readable when there is something to do.
    events: OwnedFd,
    /// Runs while a thread waits that had a signal.
    timer: OwnedFd,
    waiting: HashMap<QuestionId, Waiting>,
    notices: VecDeque<Notice>,
    buffer: Box<[u8]>,
}

impl Gate {
    /// Opens the gate, and lets the programs that use `maps` know. Whoever opens it must be exempt
    /// ([`Exemptions::among`] the same maps) before he asks for anything.
    ///
    /// # Errors
    /// When this host has no gate (see [`gate_support`]), or something fails.
    pub fn open(maps: GateMaps, options: GateOptions) -> Result<Self, ProbeError> {
        maps.disarm()?;
        let connection = Connection::open()?;
        let name = anchor::NAME.to_str().unwrap_or_default();
        let served = Served { name, bytes: program::program(options.watchdog) };
        let (events, timer) = events(&connection).map_err(failed)?;
        let mut gate = Self {
            maps,
            connection,
            served,
            anchor: None,
            anchors: 0,
            options,
            events,
            timer,
            waiting: HashMap::new(),
            notices: VecDeque::new(),
            buffer: vec![0; Limits::REQUEST].into(),
        };
        gate.start_anchor()?;
        Ok(gate)
    }

    /// The maps of the kernel's side.
    #[must_use]
    pub fn maps(&self) -> &GateMaps {
        &self.maps
    }

    /// The process id of the anchor; 0 if there is none now.
    #[must_use]
    pub fn anchor(&self) -> u32 {
        self.anchor.as_ref().map_or(0, |anchor| anchor.pid)
    }

    /// How often an anchor was started: more than once if somebody ended one.
    #[must_use]
    pub fn anchors(&self) -> u32 {
        self.anchors
    }

    /// How many questions wait for an answer.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Says that this process works. See [`GateOptions::watchdog`].
    ///
    /// # Errors
    /// When a question that waited for too long cannot be answered.
    pub fn beat(&mut self) -> Result<(), ProbeError> {
        if let Some(anchor) = &self.anchor {
            anchor.beat();
        }
        let limit = self.options.longest_wait;
        let overdue = self.waiting.iter().filter(|(_, one)| one.since.elapsed() >= limit);
        let overdue: Vec<QuestionId> = overdue.map(|(id, _)| *id).collect();
        for id in overdue {
            self.withdraw(id, Reply::FallBack)?;
        }
        Ok(())
    }

    fn start_anchor(&mut self) -> Result<(), ProbeError> {
        let starting = Starting::fork(&self.connection)?;
        let limit = Instant::now() + anchor::START;
        while !self.serve_until(starting.outcome.as_fd())? {
            if Instant::now() >= limit {
                return Err(ProbeError::Failed {
                    what: connection::WHAT,
                    reason: "the anchor is not executed in time".into(),
                });
            }
        }
        let anchor = starting.finish()?;
        self.watch(&anchor.process).map_err(failed)?;
        anchor.beat();
        self.maps.arm(anchor.pid, self.connection.device, fuse::FILE)?;
        self.anchor = Some(anchor);
        self.anchors += 1;
        Ok(())
    }

    /// Serves what is there, and waits a little for more. True when `outcome` can be read.
    fn serve_until(&mut self, outcome: BorrowedFd<'_>) -> Result<bool, ProbeError> {
        let soon = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        let (requests, ended) = {
            let requests = self.connection.requests.as_fd();
            let mut both = [
                PollFd::from_borrowed_fd(requests, PollFlags::IN),
                PollFd::from_borrowed_fd(outcome, PollFlags::IN),
            ];
            match poll(&mut both, Some(&soon)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(failed(error)),
            }
            let [requests, outcome] = both;
            (!requests.revents().is_empty(), !outcome.revents().is_empty())
        };
        if requests {
            self.take_request()?;
        }
        Ok(ended)
    }

    /// Adds what has an end to what is waited for.
    fn watch(&self, process: &OwnedFd) -> Result<(), Errno> {
        epoll::add(&self.events, process, epoll::EventData::new_u64(0), epoll::EventFlags::IN)
    }

    /// Reads a request and does what it asks. False if there is none.
    fn take_request(&mut self) -> Result<bool, ProbeError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let read = self.connection.read(&mut buffer);
        let outcome = match read {
            Ok(Read::Request(length)) => {
                self.serve(buffer.get(..length).unwrap_or_default()).map(|()| true)
            }
            Ok(Read::Nothing) => Ok(false),
            Ok(Read::Aborted) => Err(ProbeError::Closed {
                what: "the gate",
                reason: "its connection was aborted; all that waited fell back",
            }),
            Err(error) => Err(error),
        };
        self.buffer = buffer;
        outcome
    }

    fn serve(&mut self, bytes: &[u8]) -> Result<(), ProbeError> {
        let request = match FuseRequest::parse(bytes) {
            Ok(request) => request,
            Err(FuseError::Arguments { unique, .. }) => return self.refuse(unique, Errno::IO),
            // Whoever waits for this can only be let go with all others.
            Err(FuseError::Length { .. }) => {
                let _ = rustix::io::write(&self.connection.abort, b"1");
                return Ok(());
            }
        };
        let unique = request.unique;
        let answer = match request.operation {
            FuseOperation::Init { major, minor } => fuse::init(unique, major, minor),
            FuseOperation::Lookup { name } => fuse::entry(unique, request.node, name, &self.served),
            FuseOperation::GetAttributes => self.served.get_attributes(unique, request.node),
            FuseOperation::Open => fuse::open(unique),
            FuseOperation::Read { offset, size } => {
                fuse::answer(unique, self.served.part(offset, size))
            }
            FuseOperation::GetExtended { size, name } => {
                return self.asked(&request, size, name);
            }
            FuseOperation::Interrupt { request } => return self.interrupted(QuestionId(request)),
            FuseOperation::Release => fuse::answer(unique, &[]),
            FuseOperation::Forget => return Ok(()),
            FuseOperation::Other => fuse::failed(unique, Errno::NOSYS),
        };
        self.connection.write(&answer)
    }

    fn refuse(&self, unique: u64, error: Errno) -> Result<(), ProbeError> {
        self.connection.write(&fuse::failed(unique, error))
    }

    /// An attribute is read: a question, if it is ours and the thread has one. Never ENOSYS, after which
    /// the kernel would not ask for attributes any more.
    fn asked(
        &mut self,
        request: &FuseRequest<'_>,
        size: u32,
        name: &[u8],
    ) -> Result<(), ProbeError> {
        let unique = request.unique;
        let needed = size_of::<GateReply>() as u32;
        if name != ATTRIBUTE || request.node != fuse::FILE {
            return self.refuse(unique, Errno::NODATA);
        }
        if size == 0 {
            return self.connection.write(&fuse::size_of_value(unique, needed));
        }
        if size < needed {
            return self.refuse(unique, Errno::RANGE);
        }
        // Nothing pending: root reads the attribute by /proc/PID/exe of the anchor.
        let found = match self.maps.question(request.thread) {
            Ok(found) => found,
            Err(error) => {
                self.refuse(unique, Errno::IO)?;
                return Err(error);
            }
        };
        let Some(found) = found else { return self.refuse(unique, Errno::NODATA) };
        let id = QuestionId(unique);
        let (event_id, thread) = (found.event_id, request.thread);
        let waiting = Waiting { event_id, thread, since: Instant::now(), interrupted: false };
        self.waiting.insert(id, waiting);
        self.notices.push_back(Notice::Asked(question(id, &found)));
        Ok(())
    }

    /// A thread that waits had a signal.
    fn interrupted(&mut self, id: QuestionId) -> Result<(), ProbeError> {
        let Some(waiting) = self.waiting.get_mut(&id) else { return Ok(()) };
        if process::is_being_killed(waiting.thread) {
            return self.withdraw(id, Reply::Deny(libc::EINTR as u16));
        }
        waiting.interrupted = true;
        self.set_timer(LOOK_AGAIN)
    }

    /// Looks at all threads that had a signal.
    fn look_again(&mut self) -> Result<(), ProbeError> {
        let interrupted = self.waiting.iter().filter(|(_, waiting)| waiting.interrupted);
        let interrupted: Vec<_> = interrupted.map(|(id, one)| (*id, one.thread)).collect();
        let mut left = interrupted.len();
        for (id, thread) in interrupted {
            if process::is_being_killed(thread) {
                self.withdraw(id, Reply::Deny(libc::EINTR as u16))?;
                left -= 1;
            }
        }
        self.set_timer(if left == 0 { Duration::ZERO } else { LOOK_AGAIN })
    }

    /// Lets the timer run once; zero stops it.
    fn set_timer(&self, after: Duration) -> Result<(), ProbeError> {
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        let after = Timespec {
            tv_sec: after.as_secs().cast_signed(),
            tv_nsec: after.subsec_nanos().into(),
        };
        let once = Itimerspec { it_interval: never, it_value: after };
        let set = timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once);
        set.map(drop).map_err(failed)
    }

    /// Answers a question by itself, and says so.
    fn withdraw(&mut self, id: QuestionId, reply: Reply) -> Result<(), ProbeError> {
        self.send(id, reply)?;
        // It may not even have been told of.
        let told = self.notices.len();
        self.notices.retain(|notice| !matches!(notice, Notice::Asked(asked) if asked.id == id));
        if self.notices.len() == told {
            self.notices.push_back(Notice::Withdrawn(id));
        }
        Ok(())
    }

    fn send(&mut self, id: QuestionId, reply: Reply) -> Result<(), ProbeError> {
        let Some(Waiting { event_id, .. }) = self.waiting.remove(&id) else { return Ok(()) };
        let (verdict, error) = match reply {
            Reply::Allow => (ALLOW, 0),
            // 0 would be no denial.
            Reply::Deny(error) => (DENY, u32::from(error).clamp(1, 4095)),
            Reply::FallBack => return self.refuse(id.0, Errno::TIMEDOUT),
        };
        let reply = GateReply { event_id, verdict, error, reserved: 0 };
        self.connection.write(&fuse::answer(id.0, reply.bytes()))
    }

    /// Sees to what is no request: the timer, the end of the anchor.
    fn see_to_the_rest(&mut self) -> Result<(), ProbeError> {
        let is_ready = |descriptor: &OwnedFd| {
            let mut one = [PollFd::new(descriptor, PollFlags::IN)];
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            poll(&mut one, Some(&now)).is_ok_and(|ready| ready > 0)
        };
        if is_ready(&self.timer) {
            self.look_again()?;
        }
        if let Some(anchor) = self.anchor.take_if(|anchor| is_ready(&anchor.process)) {
            self.maps.disarm()?;
            epoll::delete(&self.events, &anchor.process).map_err(failed)?;
        }
        if self.anchor.is_none() {
            self.start_anchor()?;
        }
        Ok(())
    }
}

impl Questions for Gate {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    fn next(&mut self) -> Result<Option<Notice>, ProbeError> {
        while self.notices.is_empty() {
            if !self.take_request()? {
                self.see_to_the_rest()?;
                break;
            }
        }
        Ok(self.notices.pop_front())
    }

    fn answer(&mut self, id: QuestionId, reply: Reply) -> Result<(), ProbeError> {
        self.send(id, reply)
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        // Nobody is to begin to wait for an anchor that is about to go. What fails here is made up for by
        // the end of the anchor itself.
        let _ = self.maps.disarm();
    }
}

/// What is waited for, and the timer among it.
fn events(connection: &Connection) -> Result<(OwnedFd, OwnedFd), Errno> {
    let events = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
    let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
    for descriptor in [&connection.requests, &timer] {
        epoll::add(&events, descriptor, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
    }
    Ok((events, timer))
}

fn failed(error: Errno) -> ProbeError {
    ProbeError::Failed { what: connection::WHAT, reason: error.to_string() }
}

fn question(id: QuestionId, found: &GateQuestion) -> Question {
    Question {
        id,
        event_id: found.event_id,
        kind: found.r#type,
        askers: found.askers,
        time: found.time,
        process: ProcessKey { pid: found.pid, start: found.start },
        thread: found.thread,
        file: FileKey {
            device: found.file.device,
            inode: found.file.inode,
            version: found.file.version,
        },
        descriptor: None,
        process_descriptor: None,
    }
}
