// SPDX-License-Identifier: Apache-2.0
//! The one thread that serves: waits for sockets, and gives what comes to [`Control`].
//!
//! Nothing here waits for one client. Each turn handles at most one call of each connection, so who
//! sends many waits for those who send one; who does not take a reply is not read from; and how many
//! connections there are is bounded, for all and for each user, with some kept for root.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use broker::time::Time;
use rustix::event::{Timespec, epoll};
use rustix::net::{SocketFlags, accept_with};

use crate::clock;
use crate::connection::{Closed, Connection, MESSAGE, MESSAGE_BEFORE};
use crate::control::{Answer, Caller, ConnectionId, Control, ControlError};
use crate::kernel::Kernel;
use crate::log;
use crate::signals::{Signals, Wanted};
use crate::varlink::{self, Call};
use crate::verdicts::VerdictSocket;

/// Connections at a time, of all users; the last [`FOR_ROOT`] are for root.
pub const CONNECTIONS: usize = 512;
/// Connections of one user who is not root.
pub const CONNECTIONS_OF_USER: usize = 64;
const FOR_ROOT: usize = 32;
const ACCEPTED_AT_ONCE: usize = 16;
/// How long nobody is accepted after that failed.
const DEAF: Duration = Duration::from_millis(200);

/// What an event of the kernel's is about. Connections have even numbers from 6 on; the socket for
/// verdicts of a connection has the next one.
const LISTENER: u64 = 0;
const SIGNALS: u64 = 1;
const MEASUREMENTS: u64 = 2;
const QUESTIONS: u64 = 3;
const GUARD: u64 = 4;
const FIRST: u64 = 6;

/// Serves until it is asked to end.
#[derive(Debug)]
pub struct Server<K> {
    control: Control<K>,
    epoll: OwnedFd,
    listener: OwnedFd,
    signals: Signals,
    connections: BTreeMap<ConnectionId, Served>,
    next: ConnectionId,
    /// Connections that may have another message already.
    again: Vec<ConnectionId>,
    /// Whether tasks may wait that were not asked about in the last turn.
    questions: bool,
    /// Until when nobody is accepted, where the system has nothing left to do it with.
    deaf_until: Option<Time>,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Served {
    connection: Connection,
    verdicts: Option<VerdictSocket>,
    /// Whether the call that is being worked out wants no reply.
    oneway: bool,
    /// What the kernel was asked to tell of it.
    interest: epoll::EventFlags,
}

impl<K: Kernel> Server<K> {
    /// On a socket that listens and does not block.
    pub fn new(control: Control<K>, listener: OwnedFd, signals: Signals) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let readable = epoll::EventFlags::IN;
        epoll::add(&epoll, &listener, epoll::EventData::new_u64(LISTENER), readable)?;
        epoll::add(&epoll, &signals, epoll::EventData::new_u64(SIGNALS), readable)?;
        epoll::add(
            &epoll,
            control.measurements(),
            epoll::EventData::new_u64(MEASUREMENTS),
            readable,
        )?;
        if let Some(questions) = control.questions() {
            epoll::add(&epoll, questions, epoll::EventData::new_u64(QUESTIONS), readable)?;
        }
        if let Some(guard) = control.guard() {
            epoll::add(&epoll, guard, epoll::EventData::new_u64(GUARD), readable)?;
        }
        Ok(Self {
            control,
            epoll,
            listener,
            signals,
            connections: BTreeMap::new(),
            next: FIRST,
            again: Vec::new(),
            questions: false,
            deaf_until: None,
            buffer: vec![0; 64 << 10],
        })
    }

    /// Until a signal asks it to end; all sessions are closed then.
    pub fn run(&mut self) -> io::Result<()> {
        let mut ended = false;
        while !ended {
            ended = self.turn()?;
        }
        self.control.shut_down();
        Ok(())
    }

    /// Handles what there is to do now, or waits for it. Whether it is to end.
    fn turn(&mut self) -> io::Result<bool> {
        let mut space = Vec::with_capacity(64);
        let wait = self.wait()?;
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut space), wait.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let again = std::mem::take(&mut self.again);
        let mut end = false;
        // First, so that no answer comes before its question.
        if self.questions || space.iter().any(|event| event.data.u64() == QUESTIONS) {
            self.questions = self.control.take_questions();
        }
        for event in space {
            let flags = event.flags;
            match event.data.u64() {
                LISTENER => self.accept(),
                SIGNALS => match self.signals.take()? {
                    Some(Wanted::End) => end = true,
                    Some(Wanted::Reload) => self.control.reload(),
                    None => {}
                },
                MEASUREMENTS => self.measured(),
                QUESTIONS => {}
                GUARD => self.control.take_guard(),
                id if id % 2 == 0 => self.progress(id, flags),
                id => self.verdicts(id - 1),
            }
        }
        for id in again {
            self.progress(id, epoll::EventFlags::empty());
        }
        if self.deaf_until.is_some_and(|until| until <= clock::now()) {
            self.listen(true);
        }
        self.control.pass();
        self.expire();
        for (id, event_id, refused) in self.control.take_refused() {
            let served = self.connections.get(&id);
            if let Some(socket) = served.and_then(|served| served.verdicts.as_ref()) {
                socket.refuse(event_id, refused);
            }
        }
        for id in self.control.take_closed() {
            self.close(id, &Closed::Refused("its grant was withdrawn".into()));
        }
        self.control.set_connections(self.connections.len());
        Ok(end)
    }

    fn wait(&self) -> io::Result<Option<Timespec>> {
        let next = self
            .connections
            .iter()
            .map(|(id, served)| served.connection.expires(self.control.has_session(*id)))
            .min()
            .unwrap_or(Time::NEVER)
            .min(self.control.next_deadline())
            .min(self.deaf_until.unwrap_or(Time::NEVER));
        let span = match (self.again.is_empty(), next) {
            (false, _) => Duration::ZERO,
            _ if self.questions => Duration::ZERO,
            (true, Time::NEVER) => return Ok(None),
            // Rounded up, so that it does not wake just before.
            (true, next) => next.since(clock::now()) + Duration::from_millis(1),
        };
        Ok(Some(Timespec::try_from(span).map_err(io::Error::other)?))
    }

    fn accept(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // Who connects without end does not keep the others from being served.
        for _ in 0..ACCEPTED_AT_ONCE {
            let socket = match accept_with(&self.listener, flags) {
                Ok(socket) => socket,
                Err(rustix::io::Errno::AGAIN) => return,
                // It is gone already.
                Err(rustix::io::Errno::CONNABORTED) => continue,
                Err(error) => {
                    log::caused(&format_args!("a connection: {error}"));
                    return self.listen(false);
                }
            };
            // Who has ended already needs no answer.
            let Ok(connection) = Connection::new(socket, clock::now()) else { continue };
            if let Err(reason) = self.room_for(connection.peer.uid) {
                log::caused(&format_args!("uid {}: {reason}", connection.peer.uid));
                continue;
            }
            let id = self.next;
            self.next += 2;
            let interest = epoll::EventFlags::IN;
            let data = epoll::EventData::new_u64(id);
            if let Err(error) = epoll::add(&self.epoll, &connection, data, interest) {
                log::caused(&format_args!("a connection: {error}"));
                continue;
            }
            self.connections
                .insert(id, Served { connection, verdicts: None, oneway: false, interest });
        }
    }

    /// Whether the kernel tells of who connects. Where there are no descriptors left it would do so
    /// without end.
    fn listen(&mut self, on: bool) {
        let flags = if on { epoll::EventFlags::IN } else { epoll::EventFlags::empty() };
        self.deaf_until = (!on).then(|| clock::now().after(DEAF));
        let data = epoll::EventData::new_u64(LISTENER);
        if let Err(error) = epoll::modify(&self.epoll, &self.listener, data, flags) {
            log::caused(&format_args!("listening: {error}"));
        }
    }

    fn room_for(&self, uid: u32) -> Result<(), &'static str> {
        if self.connections.len() >= CONNECTIONS {
            return Err("too many connections");
        }
        if uid == 0 {
            return Ok(());
        }
        let own = self.connections.values().filter(|served| served.connection.peer.uid == uid);
        if own.count() >= CONNECTIONS_OF_USER {
            return Err("too many connections of this user");
        }
        let full = self.connections.len() >= CONNECTIONS - FOR_ROOT;
        if full { Err("too many connections; the rest is for root") } else { Ok(()) }
    }

    /// Goes on with a connection: reads, answers one call, sends.
    fn progress(&mut self, id: ConnectionId, flags: epoll::EventFlags) {
        if let Err(closed) = self.try_progress(id, flags) {
            self.close(id, &closed);
        }
    }

    fn try_progress(&mut self, id: ConnectionId, flags: epoll::EventFlags) -> Result<(), Closed> {
        let now = clock::now();
        let Some(served) = self.connections.get_mut(&id) else { return Ok(()) };
        let connection = &mut served.connection;
        if connection.wants_output() {
            connection.send(now)?;
        } else if flags.contains(epoll::EventFlags::IN) && connection.wants_input() {
            connection.receive(&mut self.buffer, now)?;
        } else if flags.intersects(epoll::EventFlags::HUP | epoll::EventFlags::ERR) {
            return Err(Closed::ByPeer);
        }
        let limit = if self.control.has_session(id) { MESSAGE } else { MESSAGE_BEFORE };
        if let Some(message) = served.connection.message(limit, now)? {
            self.call(id, &message, now)?;
            self.again.push(id);
        }
        Ok(self.set_interest(id)?)
    }

    fn call(&mut self, id: ConnectionId, message: &[u8], now: Time) -> Result<(), Closed> {
        let Some(served) = self.connections.get_mut(&id) else { return Ok(()) };
        let call = Call::parse(message).map_err(|error| Closed::Refused(error.to_string()))?;
        let caller = Caller { connection: id, peer: &served.connection.peer };
        let answer = self.control.call(&caller, &call);
        served.oneway = call.is_oneway();
        served.answer(answer, &self.epoll, id, now)
    }

    /// Gives the measurements that have ended to the calls that wait for them.
    fn measured(&mut self) {
        while let Some((id, answer)) = self.control.measured() {
            let Some(served) = self.connections.get_mut(&id) else { continue };
            served.connection.waiting = false;
            let sent = served.answer(answer, &self.epoll, id, clock::now());
            match sent.and_then(|()| Ok(self.set_interest(id)?)) {
                Ok(()) => self.again.push(id),
                Err(closed) => self.close(id, &closed),
            }
        }
    }

    fn verdicts(&mut self, id: ConnectionId) {
        let Some(served) = self.connections.get_mut(&id) else { return };
        let Some(socket) = &served.verdicts else { return };
        let control = &mut self.control;
        if socket.serve(|verdict| control.verdict(id, verdict)).is_err() {
            // The client does not want to answer any more; the kernel forgets a closed descriptor.
            served.verdicts = None;
        }
    }

    fn set_interest(&mut self, id: ConnectionId) -> io::Result<()> {
        let Some(served) = self.connections.get_mut(&id) else { return Ok(()) };
        let wanted = if served.connection.wants_output() {
            epoll::EventFlags::OUT
        } else if served.connection.wants_input() {
            epoll::EventFlags::IN
        } else {
            epoll::EventFlags::empty()
        };
        if wanted != served.interest {
            let data = epoll::EventData::new_u64(id);
            epoll::modify(&self.epoll, &served.connection, data, wanted)?;
            served.interest = wanted;
        }
        Ok(())
    }

    fn expire(&mut self) {
        let now = clock::now();
        let over: Vec<_> = self
            .connections
            .iter()
            .filter(|(id, at)| at.connection.expires(self.control.has_session(**id)) <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in over {
            self.close(id, &Closed::Refused("it took too long".into()));
        }
    }

    fn close(&mut self, id: ConnectionId, why: &Closed) {
        let Some(served) = self.connections.remove(&id) else { return };
        let peer = &served.connection.peer;
        if !matches!(why, Closed::ByPeer) {
            log::caused(&format_args!("connection of pid {} uid {}: {why}", peer.pid, peer.uid));
        }
        self.control.closed(id);
    }
}

impl Served {
    fn answer(
        &mut self,
        answer: Result<Answer, ControlError>,
        epoll: &OwnedFd,
        id: ConnectionId,
        now: Time,
    ) -> Result<(), Closed> {
        let (message, descriptors) = match answer {
            Ok(Answer::Later) => {
                self.connection.waiting = true;
                return Ok(());
            }
            Ok(Answer::Now { message, descriptors, verdicts }) => {
                if let Some(socket) = verdicts {
                    let data = epoll::EventData::new_u64(id + 1);
                    epoll::add(epoll, socket.as_fd(), data, epoll::EventFlags::IN)
                        .map_err(io::Error::from)?;
                    self.verdicts = Some(socket);
                }
                (message, descriptors)
            }
            Err(error) => {
                let message = varlink::error(&error.name(), &error).map_err(io::Error::from)?;
                (message, Vec::new())
            }
        };
        if self.oneway { Ok(()) } else { self.connection.reply(message, descriptors, now) }
    }
}
