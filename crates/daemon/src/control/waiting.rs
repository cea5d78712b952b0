// SPDX-License-Identifier: Apache-2.0
//! Calls that wait until a thread has measured something, one at a time for each user, or has made a collection
//! ready, one at a time for all: the others wait for it.

use super::inspect::FileRequest;
use super::memory::MemoryRequest;
use super::open::Request;
use super::rules::CollectionRequest;
use super::{Answer, Caller, ConnectionId, Control, ControlError};
use crate::kernel::{Kernel, KernelError};
use crate::measure::{Found, Measured, Subject};

/// A call that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    connection: ConnectionId,
    uid: u32,
    /// Taken when the measurement begins.
    subject: Option<Subject>,
    call: For,
}

/// Which call it is.
#[derive(Debug)]
pub(super) enum For {
    /// OpenSession.
    Session(Request),
    /// MeasureFile.
    File(FileRequest),
    /// GetMemoryMap, ReadMemory.
    Memory(MemoryRequest),
    /// ReplaceCollection.
    Collection(CollectionRequest),
}

impl Waiting {
    pub(super) fn connection(&self) -> ConnectionId {
        self.connection
    }
}

impl<K: Kernel> Control<K> {
    /// Has a call wait until the subject was measured.
    pub(super) fn wait(&mut self, caller: &Caller<'_>, subject: Subject, call: For) -> Answer {
        let (connection, uid) = (caller.connection, caller.peer.uid);
        self.waiting.push_back(Waiting { connection, uid, subject: Some(subject), call });
        self.begin_measurements();
        Answer::Later
    }

    /// Begins what can begin. A call of which that fails is answered as if its measurement had.
    fn begin_measurements(&mut self) {
        for waiting in &mut self.waiting {
            let Some(subject) = &waiting.subject else { continue };
            if !self.measurer.is_free_for(waiting.uid, subject) {
                continue;
            }
            if let Some(subject) = waiting.subject.take() {
                self.measurer.start(waiting.connection, waiting.uid, subject);
            }
        }
    }

    /// The next answer to a call that had to wait.
    pub fn measured(&mut self) -> Option<(ConnectionId, Result<Answer, ControlError>)> {
        loop {
            let Measured { ticket, result, .. } = self.measurer.take()?;
            self.begin_measurements();
            // Who has closed the connection meanwhile does not wait any more.
            let waits = |waiting: &Waiting| waiting.connection == ticket;
            let Some(place) = self.waiting.iter().position(waits) else { continue };
            let Some(Waiting { connection, call, .. }) = self.waiting.remove(place) else {
                continue;
            };
            let answer = match (call, result) {
                (For::Session(request), Ok(Found::Executable(executable))) => {
                    self.identified(&request, Ok(executable))
                }
                (For::Session(request), Err(error)) => self.identified(&request, Err(error)),
                (For::File(request), Ok(Found::File { digest, length })) => {
                    request.measured(digest, length)
                }
                (For::File(request), Err(error)) => Err(request.failed(&error)),
                (For::Memory(request), Ok(Found::Memory(read))) => request.answer(&read),
                (For::Memory(request), Err(error)) => Err(request.failed(&error)),
                (For::Collection(request), Ok(Found::Collection(prepared))) => {
                    self.collected(connection, request, prepared)
                }
                (For::Collection(_), Err(error)) => {
                    let reason = error.to_string();
                    Err(KernelError { operation: "making a collection ready", reason }.into())
                }
                // A connection waits for one call at a time, so no others meet.
                (_, Ok(_)) => continue,
            };
            return Some((connection, answer));
        }
    }
}
