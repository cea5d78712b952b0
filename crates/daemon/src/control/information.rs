// SPDX-License-Identifier: Apache-2.0
//! Methods that say how things are: GetVersion, GetCoverage, GetStatus, GetClients, GetStatistics.

use broker::demotion::Standing;
use broker::event::Class;
use serde::Serialize;

use super::cost::{Questions, VerdictTimes, times};
use super::types::{ClassState, EventClasses, Key, Nothing, RecordCounts, Version, event_names};
use super::{API, Answer, Caller, Control, ControlError, parameters, reply};
use crate::clock;
use crate::guard::Guard;
use crate::kernel::{Availability, Kernel};
use crate::lifecycle::{Area, Entry, Stage};
use crate::sessions::Session;
use crate::varlink::Call;

#[derive(Serialize)]
struct About<'a> {
    product: &'static str,
    version: &'static str,
    versions: Vec<Version>,
    boot_id: &'a str,
    kernel: String,
}

#[derive(Serialize)]
struct Matrix {
    coverage: Vec<Coverage>,
}

#[derive(Serialize)]
struct Coverage {
    event: &'static str,
    number: u16,
    area: Area,
    stage: Stage,
    since: String,
    notify: ClassState,
    rule: ClassState,
    ask: ClassState,
}

#[derive(Serialize)]
struct Status {
    uptime: u64,
    sessions: usize,
    connections: usize,
    grants: usize,
    unavailable: usize,
    guard: Guarding,
    problems: Vec<Problem>,
}

#[derive(Serialize)]
struct Guarding {
    state: &'static str,
    program: Option<String>,
    pid: Option<u32>,
    since: Option<u64>,
    starts: u64,
    passes: u64,
    last_pass: Option<u64>,
    found: u64,
    standing: usize,
    bad_lines: u64,
}

#[derive(Serialize)]
struct Problem {
    area: &'static str,
    reason: String,
}

#[derive(Serialize)]
struct Clients {
    clients: Vec<Client>,
}

#[derive(Serialize)]
struct Client {
    client: String,
    process: Key,
    uid: u32,
    executable: Option<String>,
    digest: Option<String>,
    altitude: String,
    connected: bool,
    since: u64,
    ring_bytes: u32,
    ring_waiting: u32,
    questions: Questions,
    verdicts: Vec<VerdictTimes>,
    subscriptions: Vec<EventClasses>,
    demoted: Vec<&'static str>,
    mutes: usize,
    inverted: bool,
    counts: RecordCounts,
}

#[derive(Serialize)]
struct Statistics {
    counts: RecordCounts,
}

impl<K: Kernel> Control<K> {
    fn client(&self, session: &Session) -> Result<Client, ControlError> {
        let mut all = self.broker.status();
        let status = all.find(|status| status.slot == session.slot);
        let held = self.held(session.slot);
        let with_ask = held.iter().filter(|(_, classes, _)| classes.contains(Class::Ask));
        let standing = status.as_ref().map(|status| status.standing);
        let demoted = if matches!(standing, Some(Standing::Demoted { .. })) {
            event_names(with_ask.map(|(event, ..)| *event).collect())
        } else {
            Vec::new()
        };
        let counts = status.as_ref().map(|status| status.counts).unwrap_or_default();
        let costs = status.as_ref().map(|status| status.costs).unwrap_or_default();
        let verdicts = costs.iter().map(|(event, cost)| times(*event, cost)).collect();
        let altitude = status.map(|status| status.grant.altitude.to_string());
        Ok(Client {
            client: session.client.clone(),
            process: session.process.into(),
            uid: session.uid,
            executable: session.executable.clone(),
            digest: session.digest.clone(),
            altitude: altitude.unwrap_or_default(),
            connected: session.connection.is_some(),
            since: self.broker.session(session.slot).map_or(0, |session| session.since.0),
            ring_bytes: session.ring_bytes,
            ring_waiting: self.kernel.waiting(session.slot)?,
            questions: counts.into(),
            verdicts,
            subscriptions: held
                .iter()
                .map(|(event, classes, _)| EventClasses::new(*event, *classes))
                .collect(),
            demoted,
            mutes: session.mutes.len(),
            inverted: session.inverted,
            counts: self.kernel.counts(session.slot)?.into(),
        })
    }

    pub(super) fn get_version(
        &mut self,
        _caller: &Caller<'_>,
        call: &Call<'_>,
    ) -> Result<Answer, ControlError> {
        let Nothing {} = parameters(call)?;
        let system = rustix::system::uname();
        reply(&About {
            product: "ringfence",
            version: env!("CARGO_PKG_VERSION"),
            versions: API.iter().map(|version| Version::from(*version)).collect(),
            boot_id: &self.boot_id,
            kernel: system.release().to_string_lossy().into_owned(),
        })
    }

    pub(super) fn get_coverage(
        &mut self,
        _caller: &Caller<'_>,
        call: &Call<'_>,
    ) -> Result<Answer, ControlError> {
        let Nothing {} = parameters(call)?;
        let coverage = self.lifecycle.entries().iter().map(|entry| {
            let class = |class| self.availability(entry, class).into();
            Coverage {
                event: entry.event.name(),
                number: entry.event.number(),
                area: entry.area,
                stage: entry.stage,
                since: entry.since.to_string(),
                notify: class(Class::Notify),
                rule: class(Class::Rule),
                ask: class(Class::Ask),
            }
        });
        reply(&Matrix { coverage: coverage.collect() })
    }

    /// Of one class of an event; `None` if it has no such class anywhere.
    fn availability(&self, entry: &Entry, class: Class) -> Option<Availability> {
        let possible = entry.classes.contains(&class);
        possible.then(|| match entry.area {
            // These the daemon itself writes, or the kernel side wherever it writes anything.
            Area::Session => Availability::Available { mechanism: "each session".into() },
            _ => self.given(entry.event, class),
        })
    }

    pub(super) fn get_status(
        &mut self,
        caller: &Caller<'_>,
        call: &Call<'_>,
    ) -> Result<Answer, ControlError> {
        let Nothing {} = parameters(call)?;
        let missing = |entry: &&Entry| {
            let mut classes = entry.classes.iter();
            !classes.any(|class| self.availability(entry, *class).is_some_and(|a| a.is_there()))
        };
        let missing: Vec<_> = self.lifecycle.entries().iter().filter(missing).collect();
        let mut problems = Vec::new();
        if !missing.is_empty() {
            let names: Vec<_> = missing.iter().map(|entry| entry.event.name()).collect();
            let reason = format!("not on this host: {}", names.join(", "));
            problems.push(Problem { area: "coverage", reason });
        }
        let guard = self.guard.problem(clock::now());
        problems.extend(guard.map(|reason| Problem { area: "guard", reason }));
        if caller.peer.is_root() {
            let wrong = self.grant_errors.iter().map(ToString::to_string);
            problems.extend(wrong.map(|reason| Problem { area: "grants", reason }));
            let kept = self.kept_problems.iter().cloned();
            problems.extend(kept.map(|reason| Problem { area: "rules", reason }));
        } else if !self.grant_errors.is_empty() {
            let reason = format!("{} errors; root is told which", self.grant_errors.len());
            problems.push(Problem { area: "grants", reason });
        }
        reply(&Status {
            uptime: super::types::nanoseconds(clock::now().since(self.started)),
            sessions: self.sessions.len(),
            connections: self.connections,
            grants: self.granted.len(),
            unavailable: missing.len(),
            guard: guarding(&self.guard),
            problems,
        })
    }

    pub(super) fn get_clients(
        &mut self,
        caller: &Caller<'_>,
        call: &Call<'_>,
    ) -> Result<Answer, ControlError> {
        let Nothing {} = parameters(call)?;
        if !caller.peer.is_root() {
            return Err(ControlError::NotAdministrator { method: "GetClients" });
        }
        let clients = self.sessions.iter().map(|session| self.client(session));
        reply(&Clients { clients: clients.collect::<Result<_, _>>()? })
    }

    pub(super) fn get_statistics(
        &mut self,
        caller: &Caller<'_>,
        call: &Call<'_>,
    ) -> Result<Answer, ControlError> {
        let Nothing {} = parameters(call)?;
        let slot = self.sessions.of(caller.connection)?.slot;
        reply(&Statistics { counts: self.kernel.counts(slot)?.into() })
    }
}

fn guarding(guard: &Guard) -> Guarding {
    let health = guard.health();
    Guarding {
        state: guard.phase().name(),
        program: guard.program().map(|program| program.to_string_lossy().into_owned()),
        pid: health.pid,
        since: health.since.map(|since| since.0),
        starts: health.starts,
        passes: health.passes,
        last_pass: health.last_pass.map(|last| last.0),
        found: health.found,
        standing: guard.standing().len(),
        bad_lines: health.bad_lines,
    }
}
