// SPDX-License-Identifier: Apache-2.0
//! Tasks that wait for verdicts, by whichever mechanism: the gate, or fanotify where there is no gate.
//!
//! Both give questions and take answers alike (`probes::Questions`). Here a question is known by the
//! number of its event, as everywhere else in the daemon, and the mechanism that it came from is not
//! seen any more.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use broker::effect::Masks;
use broker::event::{EventSet, EventType};
use broker::slot::{FileKey, ProcessKey, Slot, SlotSet};
use broker::time::Time;
use broker::verdict::{Outcome, Question};
use probes::events::Hooks;
use probes::{Exemptions, Fanotify, Gate, GateOptions, Notice, QuestionId, Questions, Reply};
use rustix::event::epoll;

use super::live::{failed, number};
use super::{Asked, Availability, KernelError};
use crate::log;

/// What a question came from, as the number of an event of epoll.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Gate,
    Fanotify,
}

/// Where one question waits, and what of it is still needed.
#[derive(Debug)]
struct Waiting {
    source: Source,
    id: QuestionId,
    /// From fanotify: nobody has written the record yet.
    unwritten: Option<probes::Question>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Asking {
    gate: Result<Gate, String>,
    /// Of the gate: also of the next one, if this comes to its end.
    exemptions: Option<Exemptions>,
    fanotify: Result<Fanotify, String>,
    /// Why nobody is asked about what is executed, where that would be through fanotify.
    no_directory: Option<&'static str>,
    /// Readable when one of them has something to say.
    ready: OwnedFd,
    waiting: BTreeMap<u64, Waiting>,
    /// Who is asked about what through fanotify, by slot.
    asked: [EventSet; broker::slot::SLOTS],
    /// Whom a type is denied for while nobody answers, by type.
    deny_when_gone: BTreeMap<EventType, SlotSet>,
    /// Processes that are clients: of which slots. One can be several.
    exempt: BTreeMap<ProcessKey, SlotSet>,
    /// Of how many tasks that could not be marked it was told.
    unmarked: u64,
}

impl Asking {
    /// Opens the gate. Where there is none, or directories are named, opens fanotify: what is executed in
    /// these is asked about, and the opening of what grants name.
    pub(super) fn open(hooks: &Hooks, directories: &[PathBuf]) -> Result<Self, KernelError> {
        let ready =
            epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed("making an epoll"))?;
        let opened = if directories.is_empty() {
            // Exempt before anybody subscribes to be asked.
            open_gate(hooks).and_then(|gate| {
                let exemptions = Exemptions::among(gate.maps());
                Ok((exemptions.map_err(|error| error.to_string())?, gate))
            })
        } else {
            Err("--ask-directory has exec and open asked about through fanotify instead".into())
        };
        let (exemptions, gate) = match opened {
            Ok((exemptions, gate)) => (Some(exemptions), Ok(gate)),
            Err(error) => (None, Err(error)),
        };
        let fanotify = match &gate {
            Ok(_) => Err("there is the gate".into()),
            Err(_) => open_fanotify(directories),
        };
        let no_directory = directories.is_empty().then_some(
            "with --ask-directory DIR, what is executed there can be asked about through fanotify",
        );
        let asking = Self {
            gate,
            exemptions,
            fanotify,
            no_directory,
            ready,
            waiting: BTreeMap::new(),
            asked: [EventSet::default(); broker::slot::SLOTS],
            deny_when_gone: BTreeMap::new(),
            exempt: BTreeMap::new(),
            unmarked: 0,
        };
        let readable = epoll::EventFlags::IN;
        let sources: [(Source, Option<BorrowedFd<'_>>); 2] = [
            (Source::Gate, asking.gate.as_ref().ok().map(Gate::descriptor)),
            (Source::Fanotify, asking.fanotify.as_ref().ok().map(Fanotify::descriptor)),
        ];
        for (source, descriptor) in sources {
            let Some(descriptor) = descriptor else { continue };
            let data = epoll::EventData::new_u64(source as u64);
            epoll::add(&asking.ready, descriptor, data, readable)
                .map_err(failed("waiting for questions"))?;
        }
        Ok(asking)
    }

    /// Whether questions come through the gate.
    pub(super) fn has_gate(&self) -> bool {
        self.gate.is_ok()
    }

    /// Whether anybody can be asked about anything.
    pub(super) fn is_open(&self) -> bool {
        self.gate.is_ok() || self.fanotify.is_ok()
    }

    /// After a mechanism has come to its end: all that waited in it has gone on.
    pub(super) fn open_again(&mut self, hooks: &Hooks) -> Result<(), KernelError> {
        self.waiting.retain(|_, waiting| waiting.source != Source::Gate);
        // The old one goes first, as it is the one that programs know.
        self.gate = Err("it is opened again".into());
        self.gate = open_gate(hooks);
        let gate = self.gate.as_ref().map_err(failed("opening the gate again"))?;
        let data = epoll::EventData::new_u64(Source::Gate as u64);
        epoll::add(&self.ready, gate.descriptor(), data, epoll::EventFlags::IN)
            .map_err(failed("waiting for questions"))
    }

    /// `hooks`: whether programs ask about the event, or why not; and what of it they cannot ask about.
    pub(super) fn availability(
        &self,
        event: EventType,
        hooks: Result<Option<&'static str>, String>,
    ) -> Availability {
        let gate = "LSM hook, waiting in the gate";
        match (&self.gate, hooks, &self.fanotify) {
            (Ok(_), Ok(None), _) => Availability::Available { mechanism: gate.into() },
            (Ok(_), Ok(Some(never)), _) => {
                Availability::Reduced { mechanism: gate.into(), reason: never.into() }
            }
            (Ok(_), Err(reason), _) => Availability::Unavailable { reason },
            (Err(gate), _, fanotify) => {
                let Some(reach) = Fanotify::reach(event.number().into()) else {
                    return Availability::Unavailable { reason: gate.clone() };
                };
                let unnamed = self.no_directory.filter(|_| event == EventType::PROCESS_EXEC);
                match fanotify.as_ref().err().map(String::as_str).or(unnamed) {
                    Some(lacking) => {
                        Availability::Unavailable { reason: format!("{gate}; {lacking}") }
                    }
                    None => Availability::Reduced {
                        mechanism: "fanotify".into(),
                        reason: format!("{reach}; {gate}"),
                    },
                }
            }
        }
    }

    fn source(&mut self, source: Source) -> Option<&mut dyn Questions> {
        match source {
            Source::Gate => self.gate.as_mut().ok().map(|gate| gate as &mut dyn Questions),
            Source::Fanotify => {
                self.fanotify.as_mut().ok().map(|fanotify| fanotify as &mut dyn Questions)
            }
        }
    }

    /// The next question, or one that needs no answer any more.
    pub(super) fn next(&mut self) -> Result<Option<Asked>, KernelError> {
        for source in [Source::Gate, Source::Fanotify] {
            let Some(questions) = self.source(source) else { continue };
            let next = match questions.next().map_err(failed("taking a question")) {
                Err(error) if source == Source::Fanotify => {
                    self.fanotify_failed(&error);
                    continue;
                }
                other => other?,
            };
            match next {
                Some(Notice::Asked(question)) => {
                    let kind = u16::try_from(question.kind).ok();
                    match kind.and_then(EventType::from_number) {
                        Some(event) => return Ok(Some(self.take(source, event, question))),
                        // Programs of another version: nobody here knows what it is about.
                        None => questions
                            .answer(question.id, Reply::FallBack)
                            .map_err(failed("answering a task that waits"))?,
                    }
                }
                Some(Notice::Withdrawn(id)) => {
                    let same = |(_, one): &(&u64, &Waiting)| (one.source, one.id) == (source, id);
                    let Some(event_id) = self.waiting.iter().find(same).map(|(id, _)| *id) else {
                        continue;
                    };
                    self.waiting.remove(&event_id);
                    return Ok(Some(Asked::Withdrawn(event_id)));
                }
                None => {}
            }
        }
        Ok(None)
    }

    /// It goes on with the next question, or cannot go on: then all that waited in it is allowed, as the
    /// kernel knows no other way.
    fn fanotify_failed(&mut self, error: &KernelError) {
        log::error(error);
        if self.fanotify.as_ref().is_ok_and(Fanotify::has_ended) {
            self.waiting.retain(|_, waiting| waiting.source != Source::Fanotify);
            self.fanotify = Err(format!("fanotify came to its end: {error}"));
        }
    }

    fn take(&mut self, source: Source, event: EventType, question: probes::Question) -> Asked {
        let probes::Question { event_id, time, askers, process, file, .. } = question;
        let asked = Question {
            event_id,
            time: Time(time),
            event,
            file: FileKey { device: file.device, inode: file.inode, version: file.version },
            process: ProcessKey { pid: process.pid, start: process.start },
            askers: SlotSet(askers),
            cacheable: file.holds(),
        };
        let id = question.id;
        let unwritten = (source == Source::Fanotify).then_some(question);
        self.waiting.insert(event_id, Waiting { source, id, unwritten });
        Asked::Question(asked)
    }

    /// The question of an event that came without a record.
    pub(super) fn unwritten(&self, event_id: u64) -> Option<&probes::Question> {
        self.waiting.get(&event_id)?.unwritten.as_ref()
    }

    /// The task of an event goes on.
    pub(super) fn settle(&mut self, event_id: u64, outcome: Outcome) -> Result<(), KernelError> {
        let Some(Waiting { source, id, .. }) = self.waiting.remove(&event_id) else {
            return Ok(());
        };
        let reply = match outcome {
            Outcome::Allow => Reply::Allow,
            Outcome::Deny { error } => Reply::Deny(error),
            Outcome::Cancelled => Reply::FallBack,
        };
        let Some(questions) = self.source(source) else { return Ok(()) };
        questions.answer(id, reply).map_err(failed("answering a task that waits"))
    }

    /// A client is asked about these events from now on, and what holds when nobody answers.
    pub(super) fn subscribe(&mut self, slot: Slot, masks: &Masks) -> Result<(), KernelError> {
        self.ask_through_fanotify(slot, masks.ask);
        let Ok(gate) = &self.gate else { return Ok(()) };
        for event in EventType::all() {
            let denied = self.deny_when_gone.entry(event).or_default();
            let before = *denied;
            if masks.deny_when_gone.contains(event) {
                denied.insert(slot);
            } else {
                denied.remove(slot);
            }
            if *denied != before {
                let changed = gate.maps().deny_unanswered(event.number().into(), denied.0);
                changed.map_err(failed("declaring what holds when nobody answers"))?;
            }
        }
        Ok(())
    }

    /// The client of a slot is asked about the opening of what these paths lead to, through fanotify: the
    /// gate's programs know it by themselves.
    pub(super) fn watch(&mut self, slot: Slot, paths: &[String]) -> Result<(), KernelError> {
        let Ok(fanotify) = &mut self.fanotify else { return Ok(()) };
        fanotify.watch(number(slot), paths).map_err(failed("watching a directory"))
    }

    fn ask_through_fanotify(&mut self, slot: Slot, events: EventSet) {
        if let Some(asked) = self.asked.get_mut(slot.index()) {
            *asked = events;
        }
        let Ok(fanotify) = &mut self.fanotify else { return };
        let exec = Slot::all()
            .zip(self.asked)
            .filter(|(_, asked)| asked.contains(EventType::PROCESS_EXEC));
        fanotify.set_exec_askers(exec.fold(0, |askers, (slot, _)| askers | 1 << slot.index()));
    }

    /// Nobody in the slot is asked through fanotify any more.
    pub(super) fn remove(&mut self, slot: Slot) -> Result<(), KernelError> {
        self.ask_through_fanotify(slot, EventSet::default());
        self.watch(slot, &[])
    }

    /// What a client does itself is no question to anybody, and what it starts is none to it: who has
    /// to answer must not have to wait for an answer.
    pub(super) fn exempt(&mut self, slot: Slot, process: ProcessKey) -> Result<(), KernelError> {
        self.exempt.entry(process).or_default().insert(slot);
        self.tell_exempt(process)
    }

    /// The process is not this client any more, and what the client had allowed is forgotten.
    pub(super) fn forget(&mut self, slot: Slot, process: ProcessKey) -> Result<(), KernelError> {
        if let Some(slots) = self.exempt.get_mut(&process) {
            slots.remove(slot);
        }
        let told = self.tell_exempt(process);
        told.and(self.forget_verdicts(slot))
    }

    fn tell_exempt(&mut self, process: ProcessKey) -> Result<(), KernelError> {
        let key = probes::ProcessKey { pid: process.pid, start: process.start };
        let slots = self.exempt.get(&process).copied().unwrap_or_default();
        if slots.is_empty() {
            self.exempt.remove(&process);
        }
        let told = if let Ok(fanotify) = &mut self.fanotify {
            match slots.is_empty() {
                true => fanotify.no_longer_exempt(key),
                false => fanotify.exempt(key, u64::MAX, slots.0),
            }
        } else if let Some(exemptions) = &mut self.exemptions {
            match slots.is_empty() {
                true => exemptions.remove(key),
                false => exemptions.set(key, u64::MAX, slots.0),
            }
        } else {
            Ok(())
        };
        told.map_err(failed("exempting a client"))
    }

    /// Nothing that a client said of a file holds any more.
    pub(super) fn forget_verdicts(&mut self, slot: Slot) -> Result<(), KernelError> {
        let Ok(gate) = &self.gate else { return Ok(()) };
        gate.maps().forget_clients(1 << slot.index()).map_err(failed("forgetting verdicts"))
    }

    /// A client allows this file, and need not be asked again while it stays as it is.
    pub(super) fn remember(
        &mut self,
        slot: Slot,
        event: EventType,
        file: FileKey,
    ) -> Result<(), KernelError> {
        let Ok(gate) = &self.gate else { return Ok(()) };
        let known = gate.maps().allow(event.number().into(), key_of(file), 1 << slot.index());
        known.map(|_| ()).map_err(failed("remembering a verdict"))
    }

    /// A client does not allow this file any more, if it did.
    pub(super) fn forget_file(
        &mut self,
        slot: Slot,
        event: EventType,
        file: FileKey,
    ) -> Result<(), KernelError> {
        let Ok(gate) = &self.gate else { return Ok(()) };
        let forgotten = gate.maps().forget(event.number().into(), key_of(file), 1 << slot.index());
        forgotten.map_err(failed("forgetting a verdict"))
    }

    fn tell_unmarked(&mut self) {
        let of_gate = self.exemptions.as_ref().map_or(0, Exemptions::failed);
        let unmarked = of_gate + self.fanotify.as_ref().map_or(0, Fanotify::unmarked);
        if unmarked > self.unmarked {
            self.unmarked = unmarked;
            log::caused(&format_args!(
                "{unmarked} tasks could not be marked as started by clients, for want of memory: what they do is \
                 asked about"
            ));
        }
    }

    /// The daemon works: see `GateOptions::watchdog`.
    pub(super) fn beat(&mut self) -> Result<(), KernelError> {
        self.tell_unmarked();
        let Ok(gate) = &mut self.gate else { return Ok(()) };
        gate.beat().map_err(failed("keeping the gate open"))
    }
}

impl AsFd for Asking {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ready.as_fd()
    }
}

/// The file in the words of `probes`.
fn key_of(FileKey { device, inode, version }: FileKey) -> probes::FileKey {
    probes::FileKey { device, inode, version }
}

fn open_gate(hooks: &Hooks) -> Result<Gate, String> {
    probes::gate_support()?;
    let maps = hooks.gate_maps().map_err(|error| error.to_string())?;
    Gate::open(maps, GateOptions::default()).map_err(|error| error.to_string())
}

fn open_fanotify(directories: &[PathBuf]) -> Result<Fanotify, String> {
    let mut fanotify = Fanotify::open().map_err(|error| error.to_string())?;
    for directory in directories {
        let marked = fanotify.mark(directory);
        marked.map_err(|error| format!("{}: {error}", directory.display()))?;
    }
    Ok(fanotify)
}
