// SPDX-License-Identifier: Apache-2.0
//! What each method of api/ringfence.varlink does.
//!
//! [`Control`] holds everything and waits for nothing: [`Control::call`] is a message in and an answer
//! out. The broker decides; what it wants done is done to the kernel side in `effects`. One file for
//! each group of methods; the table in [`METHODS`](Control::methods) is held to the interface's text
//! by a test.

mod cost;
mod effects;
mod error;
mod findings;
mod information;
mod inspect;
mod kept;
mod memory;
mod mutes;
mod open;
mod rules;
mod start;
mod subscriptions;
mod types;
mod waiting;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use broker::grant::Grants;
use broker::session::version::Version;
use broker::slot::Slot;
use broker::time::Time;
use serde::{Deserialize, Serialize};

pub use error::ControlError;
pub use memory::Budget;
pub use types::Version as ApiVersion;

use self::rules::Installed;
use crate::guard::Guard;
use crate::identity::Peer;
use crate::kept::Kept;
use crate::kernel::Kernel;
use crate::lifecycle::Lifecycle;
use crate::measure::Measurer;
use crate::sessions::Sessions;
use crate::varlink::{self, Call, Interface, SERVICE, ServiceError, ServiceInfo};
use crate::verdicts::{Refused, VerdictSocket};
use waiting::Waiting;

/// What names a connection, to the server and here.
pub type ConnectionId = u64;

/// The control interface.
pub const INTERFACE: Interface = Interface {
    name: "io.ringfence.Control",
    description: include_str!("../../../../api/ringfence.varlink"),
};

/// Who the service is.
pub const SERVICE_INFO: ServiceInfo = ServiceInfo {
    vendor: "Ringfence",
    product: "ringfenced",
    version: env!("CARGO_PKG_VERSION"),
    url: "https://ringfence.io",
    interface: INTERFACE,
};

/// Versions of the API that are spoken here.
pub const API: [Version; 1] = [Version { major: 1, minor: 0 }];

/// Who calls.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// By which connection.
    pub connection: ConnectionId,
    /// Who is at its other end.
    pub peer: &'a Peer,
}

/// What a call comes to.
#[derive(Debug)]
pub enum Answer {
    /// [`Control::measured`] will give it.
    Later,
    /// This.
    Now {
        /// A varlink reply, without its end.
        message: Vec<u8>,
        /// What goes along with it.
        descriptors: Vec<OwnedFd>,
        /// The daemon's end of a socket for verdicts that was made.
        verdicts: Option<VerdictSocket>,
    },
}

type Method<K> = fn(&mut Control<K>, &Caller<'_>, &Call<'_>) -> Result<Answer, ControlError>;

/// The control plane.
pub struct Control<K> {
    kernel: K,
    guard: Guard,
    broker: broker::Broker,
    lifecycle: Lifecycle,
    sessions: Sessions,
    measurer: Measurer,
    /// Calls that wait for a measurement, the first ones first.
    waiting: VecDeque<Waiting>,
    grants: PathBuf,
    granted: Grants,
    /// What is wrong in the files, for root.
    grant_errors: Vec<String>,
    /// What clients have installed, also of those that are not connected.
    installed: BTreeMap<Slot, Installed>,
    /// Where that is kept for the next one, if it is.
    kept: Option<Kept>,
    /// Why some of it may not hold beyond this one.
    kept_problems: Vec<String>,
    boot_id: String,
    /// Connections that are to be closed from this side.
    to_close: Vec<ConnectionId>,
    /// Answers that were held until their question came, and do not count.
    to_refuse: Vec<(ConnectionId, u64, Refused)>,
    started: Time,
    connections: usize,
}

impl<K> fmt::Debug for Control<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").field("sessions", &self.sessions).finish_non_exhaustive()
    }
}

impl<K: Kernel> Control<K> {
    /// Name and function of each method of the interface.
    #[must_use]
    pub fn methods() -> [(&'static str, Method<K>); 24] {
        [
            ("GetVersion", Self::get_version),
            ("GetCoverage", Self::get_coverage),
            ("OpenSession", Self::open_session),
            ("CloseSession", Self::close_session),
            ("Subscribe", Self::subscribe),
            ("Unsubscribe", Self::unsubscribe),
            ("ListSubscriptions", Self::list_subscriptions),
            ("Mute", Self::mute),
            ("Unmute", Self::unmute),
            ("ListMutes", Self::list_mutes),
            ("InvertMutes", Self::invert_mutes),
            ("GetStatistics", Self::get_statistics),
            ("InstallRules", Self::install_rules),
            ("GetRules", Self::get_rules),
            ("GetRuleText", Self::get_rule_text),
            ("ReplaceCollection", Self::replace_collection),
            ("DropCollection", Self::drop_collection),
            ("GetClients", Self::get_clients),
            ("GetStatus", Self::get_status),
            ("QueryProcess", Self::query_process),
            ("ResolveCgroup", Self::resolve_cgroup),
            ("MeasureFile", Self::measure_file),
            ("GetMemoryMap", Self::get_memory_map),
            ("ReadMemory", Self::read_memory),
        ]
    }

    /// Answers a call.
    pub fn call(&mut self, caller: &Caller<'_>, call: &Call<'_>) -> Result<Answer, ControlError> {
        if call.is_upgrade() {
            return Err(ServiceError::InvalidParameter { parameter: "upgrade".into() }.into());
        }
        let (interface, method) = call.method();
        if interface == SERVICE {
            return reply(&SERVICE_INFO.call(call)?);
        }
        if interface != INTERFACE.name {
            let interface = interface.to_owned();
            return Err(ServiceError::InterfaceNotFound { interface }.into());
        }
        match Self::methods().into_iter().find(|(name, _)| *name == method) {
            Some((_, function)) => function(self, caller, call),
            None => Err(ServiceError::MethodNotFound { method: call.name().to_owned() }.into()),
        }
    }

    /// Whether a session speaks on this connection.
    #[must_use]
    pub fn has_session(&self, connection: ConnectionId) -> bool {
        self.sessions.has(connection)
    }

    /// How many connections there are, for GetStatus.
    pub fn set_connections(&mut self, connections: usize) {
        self.connections = connections;
    }

    /// Becomes readable when [`Control::measured`] has something to give.
    #[must_use]
    pub fn measurements(&self) -> BorrowedFd<'_> {
        self.measurer.as_fd()
    }

    fn needs_session_or_root(&self, caller: &Caller<'_>) -> Result<(), ControlError> {
        let may = caller.peer.is_root() || self.sessions.has(caller.connection);
        if may { Ok(()) } else { Err(ControlError::NoSession {}) }
    }
}

/// The parameters of a call.
fn parameters<'a, T: Deserialize<'a>>(call: &Call<'a>) -> Result<T, ControlError> {
    call.parameters().map_err(|parameter| ServiceError::InvalidParameter { parameter }.into())
}

/// An answer that is a reply with these parameters.
fn reply(parameters: &impl Serialize) -> Result<Answer, ControlError> {
    let message = varlink::reply(parameters).map_err(|error| ControlError::KernelRefused {
        operation: "writing the reply",
        reason: error.to_string(),
    })?;
    Ok(Answer::Now { message, descriptors: Vec::new(), verdicts: None })
}
