// SPDX-License-Identifier: Apache-2.0
//! A broker with clients, and a clock that a test turns.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::collections::BTreeSet;
use std::time::Duration;

use broker::event::{Class, ClassSet, EventType};
use broker::grant::{Grants, Peer};
use broker::session::coverage::{Availability, Coverage};
use broker::session::lifecycle::{Life, Lifecycle, Stage};
use broker::session::subscription::Subscription;
use broker::session::version::Version;
use broker::session::{Open, OpenError, Opened, SessionId, Token};
use broker::slot::{FileKey, ProcessKey, Slot, SlotSet};
use broker::time::Time;
use broker::verdict::{Answer, Outcome, Part, Question, Status, Verdict};
use broker::{Broker, Effect, Notice, Remembered, Settings};

pub const V1: Version = Version { major: 1, minor: 0 };
pub const V2: Version = Version { major: 1, minor: 1 };
pub const ALLOW: Verdict = Verdict::Allow;
pub const DENY: Verdict = Verdict::Deny { error: 13 };
pub const FILE: FileKey = FileKey { device: 8 << 20 | 1, inode: 42, version: 7 };

pub fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

pub fn event(name: &str) -> EventType {
    EventType::from_name(name).expect("a type of event")
}

pub fn exec() -> EventType {
    event("process_exec")
}

pub fn slot(index: usize) -> Slot {
    Slot::new(index).expect("a slot")
}

pub fn slots(indices: &[usize]) -> SlotSet {
    indices.iter().map(|index| slot(*index)).collect()
}

/// What a client of a test may do: two events, of which it subscribes to the first.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Its id ends so.
    pub name: String,
    pub altitude: u32,
    pub deadline_ms: u32,
    /// Of [events.process_exec.failure], as TOML.
    pub failure: String,
    pub max_pending: u32,
    pub max_cached: u32,
    pub misses: u32,
    pub draft: bool,
    /// More TOML, at the end.
    pub more: String,
}

impl Spec {
    /// The first has the highest altitude.
    pub fn new(index: usize) -> Self {
        Self {
            name: format!("c{index}"),
            altitude: 1000 - index as u32,
            deadline_ms: 100,
            failure: String::new(),
            max_pending: 64,
            max_cached: 64,
            misses: 100,
            draft: false,
            more: String::new(),
        }
    }

    pub fn failing(index: usize, failure: &str) -> Self {
        Self { failure: failure.to_owned(), ..Self::new(index) }
    }

    pub fn id(&self) -> String {
        format!("com.example.{}", self.name)
    }

    pub fn text(&self) -> String {
        let Self { name, altitude, deadline_ms, failure, max_pending, max_cached, .. } = self;
        let Self { misses, draft, more, .. } = self;
        format!(
            "client = \"com.example.{name}\"\naltitude = \"{altitude}\"\ndraft = {draft}\n\
             watched = [\"/srv\"]\n\
             [identity]\nexecutable = \"/opt/{name}\"\n\
             [limits]\nmax_pending = {max_pending}\nmax_cached = {max_cached}\nmax_muted = 2\n\
             [demotion]\nmisses = {misses}\nseconds = 10\n\
             [events.process_exec]\nclasses = [\"notify\", \"rule\", \"ask\"]\n\
             deadline_ms = {deadline_ms}\n[events.process_exec.failure]\n{failure}\n\
             [events.file_open]\nclasses = [\"notify\", \"ask\"]\n{more}"
        )
    }
}

pub fn lifecycle() -> Lifecycle {
    let stable = Life { stage: Stage::Stable, since: V1, successor: None, until: None };
    Lifecycle::new(EventType::all().map(|event| match event.name() {
        "file_open" => (event, Life { stage: Stage::Draft, ..stable }),
        "kexec_load" => (event, Life { since: V2, ..stable }),
        "firmware_load" => (event, Life { stage: Stage::Evaluated, ..stable }),
        _ => (event, stable),
    }))
}

/// A host that has everything but questions about modules.
pub fn coverage() -> Coverage {
    let mut coverage = Coverage::default();
    for event in EventType::all() {
        for class in event.classes().iter() {
            let lacks = event.name() == "module_load" && class == Class::Ask;
            let availability = if lacks {
                Availability::Unavailable("the kernel is older than 6.12".to_owned())
            } else {
                Availability::By("lsm".to_owned())
            };
            coverage.set(event, class, availability);
        }
    }
    coverage
}

pub struct World {
    pub broker: Broker,
    pub specs: Vec<Spec>,
    pub now: Time,
    /// Of the calls since it was last taken.
    pub effects: Vec<Effect>,
    pub sessions: Vec<SessionId>,
    /// Names of those that have no grant now.
    pub revoked: BTreeSet<String>,
    remembered: Vec<Remembered>,
    next_event: u64,
    tokens: u8,
}

impl World {
    /// Clients in slots by their place in the list, without sessions.
    pub fn absent(specs: Vec<Spec>) -> Self {
        Self::with(specs, Settings { versions: vec![V1, V2], ..Settings::default() }, 0)
    }

    /// The first client gets the slot `first`.
    pub fn with(specs: Vec<Spec>, settings: Settings, first: usize) -> Self {
        let remembered: Vec<_> = specs
            .iter()
            .enumerate()
            .map(|(index, spec)| Remembered { client: spec.id(), slot: slot(first + index) })
            .collect();
        let mut world = Self {
            broker: Broker::new(settings, lifecycle(), coverage()),
            sessions: remembered
                .iter()
                .map(|was| SessionId { slot: was.slot, number: 0 })
                .collect(),
            specs,
            now: Time(1_000_000_000),
            effects: Vec::new(),
            revoked: BTreeSet::new(),
            remembered,
            next_event: 1,
            tokens: 0,
        };
        world.set_grants();
        world
    }

    /// With sessions that want to be asked about exec.
    pub fn new(specs: Vec<Spec>) -> Self {
        let mut world = Self::absent(specs);
        for client in 0..world.specs.len() {
            world.open(client, None).expect("a session");
            world.subscribe(client).expect("a subscription");
        }
        world.effects.clear();
        world
    }

    /// So many of the usual kind.
    pub fn of(count: usize) -> Self {
        Self::new((0..count).map(Spec::new).collect())
    }

    pub fn grants(&self) -> Grants {
        let granted = self.specs.iter().filter(|spec| !self.revoked.contains(&spec.name));
        let files = granted.map(|spec| (spec.name.clone(), spec.text())).collect();
        let (grants, errors) = Grants::load(files);
        assert_eq!(errors, []);
        grants
    }

    pub fn set_grants(&mut self) -> broker::Admitted {
        let grants = self.grants();
        self.broker.set_grants(self.now, &grants, &self.remembered, &mut self.effects)
    }

    pub fn process(client: usize) -> ProcessKey {
        ProcessKey { pid: 100 + client as u32, start: 5 }
    }

    pub fn open(&mut self, client: usize, resume: Option<Token>) -> Result<Opened, OpenError> {
        self.tokens = self.tokens.wrapping_add(1);
        let spec = &self.specs[client];
        let executable = format!("/opt/{}", spec.name);
        let open = Open {
            client: &spec.id(),
            versions: &[V1, V2],
            process: Self::process(self.sessions[client].slot.index()),
            peer: Peer { executable: Some(executable.as_bytes()), ..Peer::default() },
            token: Token([self.tokens; 16]),
            resume,
        };
        let opened = self.broker.open(self.now, &open, &mut self.effects)?;
        self.sessions[client] = opened.id;
        Ok(opened)
    }

    pub fn token(&self, client: usize) -> Token {
        let session = self.broker.session(self.sessions[client].slot);
        session.map_or(Token([0; 16]), |session| session.token)
    }

    pub fn subscribe(
        &mut self,
        client: usize,
    ) -> Result<(), broker::session::subscription::SubscribeError> {
        self.subscribe_to(client, "process_exec", &[Class::Notify, Class::Ask], None)
    }

    pub fn subscribe_to(
        &mut self,
        client: usize,
        name: &str,
        classes: &[Class],
        deadline: Option<Duration>,
    ) -> Result<(), broker::session::subscription::SubscribeError> {
        let classes: ClassSet = classes.iter().copied().collect();
        let subscription = Subscription { event: event(name).number(), classes, deadline };
        let session = self.sessions[client];
        self.broker.subscribe(self.now, session, &[subscription], &mut self.effects)
    }

    pub fn question(&self, event_id: u64, file: FileKey, askers: SlotSet) -> Question {
        let process = ProcessKey { pid: 7000, start: 1 };
        let time = self.now;
        Question { event_id, time, event: exec(), file, process, askers, cacheable: true }
    }

    /// All clients are asked about a file; the id of the event.
    pub fn ask(&mut self, file: FileKey) -> u64 {
        let askers = self.sessions.iter().map(|session| session.slot).collect();
        let event_id = self.next_event;
        self.next_event += 1;
        let question = self.question(event_id, file, askers);
        self.broker.ask(self.now, question, &mut self.effects).expect("a new question");
        event_id
    }

    pub fn answer(&mut self, client: usize, event_id: u64, verdict: Verdict) -> Status {
        self.answer_with(client, Answer { event_id, verdict, cache: false })
    }

    pub fn answer_to_keep(&mut self, client: usize, event_id: u64, verdict: Verdict) -> Status {
        self.answer_with(client, Answer { event_id, verdict, cache: true })
    }

    pub fn answer_with(&mut self, client: usize, answer: Answer) -> Status {
        self.broker.answer(self.now, self.sessions[client], answer, &mut self.effects)
    }

    /// Time passes, and timers fire when they are due.
    pub fn wait(&mut self, span: Duration) {
        let until = self.now.after(span);
        while let Some(due) = self.broker.next_deadline().filter(|due| *due <= until) {
            assert!(due > self.now, "a timer that is due does not go away");
            self.now = due;
            self.broker.pass(due, &mut self.effects);
        }
        self.now = until;
    }

    pub fn take(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// What the task was told, if it was; the effects are taken.
    pub fn outcome(&mut self, event_id: u64) -> Option<Outcome> {
        settled(&self.take(), event_id)
    }

    /// Who was asked since the effects were taken, in order.
    pub fn asked(&self) -> Vec<usize> {
        let asked = |effect: &Effect| match effect {
            Effect::Ask { slot, .. } => Some(slot.index()),
            _ => None,
        };
        self.effects.iter().filter_map(asked).collect()
    }

    pub fn parts(&self) -> Vec<Part> {
        let part = |effect: &Effect| match effect {
            Effect::Concluded(part) => Some(*part),
            _ => None,
        };
        self.effects.iter().filter_map(part).collect()
    }

    pub fn notices(&self) -> Vec<(usize, Notice)> {
        let notice = |effect: &Effect| match effect {
            Effect::Tell { slot, notice } => Some((slot.index(), *notice)),
            _ => None,
        };
        self.effects.iter().filter_map(notice).collect()
    }

    pub fn pending(&self) -> u32 {
        self.broker.status().map(|status| status.pending).sum()
    }
}

/// What the task was told; it is told once.
pub fn settled(effects: &[Effect], of: u64) -> Option<Outcome> {
    let outcome = |effect: &Effect| match effect {
        Effect::Settle { event_id, outcome, .. } if *event_id == of => Some(*outcome),
        _ => None,
    };
    let told: Vec<_> = effects.iter().filter_map(outcome).collect();
    assert!(told.len() <= 1, "{told:?}");
    told.first().copied()
}
