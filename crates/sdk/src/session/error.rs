// SPDX-License-Identifier: Apache-2.0
//! What can go wrong in a session.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::refusal::Refusal;
use crate::ring::RingError;

/// Why something of a session failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The daemon cannot be reached.
    #[error("cannot connect to Ringfence at {}: is ringfenced running?", path.display())]
    Connect {
        /// Its socket.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The system refused something.
    #[error("cannot {what}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// The daemon gave no answer in time.
    #[error("Ringfence did not answer {method} in time")]
    NoAnswer {
        /// Which method.
        method: &'static str,
    },
    /// The daemon said no, and why.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// What came is not what the interface says.
    #[error("Ringfence's answer to {method} makes no sense: {reason}")]
    Protocol {
        /// Which method.
        method: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The ring cannot be read.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// The daemon has closed the connection. What it had written to the ring was read.
    #[error("Ringfence has ended the session")]
    Ended,
    /// This session cannot be asked, so it has no verdicts to give.
    #[error("the grant of this client has no event of the class `ask`, so it gives no verdicts")]
    NoVerdicts,
}

impl SessionError {
    /// An error of the socket during a call.
    pub(crate) fn of_io(method: &'static str, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::WouldBlock => Self::NoAnswer { method },
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Self::Ended,
            _ => Self::Io { what: "talk to Ringfence", source },
        }
    }
}
