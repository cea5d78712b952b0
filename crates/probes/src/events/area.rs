// SPDX-License-Identifier: Apache-2.0
//! Loading the objects of events: one that has the maps, and areas that use them.

use std::collections::HashMap;
use std::os::fd::AsFd;

use libbpf_rs::libbpf_sys::bpf_prog_info;
use libbpf_rs::{Link, MapCore, MapFlags, MapHandle, Object, OpenObject, ProgramMut};

use super::shared::{BUFFERS_EACH, BUFFERS_MOST};
use super::types::{EventType, HOOKS, Hook, Mechanism};
use crate::error::ProbeError;
use crate::features::lsm_programs_are_called;
use crate::kernel_types;
use crate::object::{self, Kind, Own};
use crate::pins::{self, Pins};
use crate::privilege;
use crate::rules::Rules;

const WHAT: &str = "loading the programs of events";
const ATTACHING: &str = "attaching a program of events";

/// An object that build.rs made, by its name.
macro_rules! built {
    ($area:literal) => {
        ($area, include_bytes!(concat!(env!("OUT_DIR"), "/", $area, ".bpf.o")).as_slice())
    };
}

const CLIENTS: (&str, &[u8]) = built!("clients");
const AREAS: &[(&str, &[u8])] = &[
    built!("process"),
    built!("access"),
    built!("credentials"),
    built!("image"),
    built!("memory"),
    built!("file"),
    built!("verdicts"),
    built!("verdicts_kernel"),
    built!("verdicts_file"),
];
/// What tells of events that nothing else tells of.
const CALLS: (&str, &[u8]) = built!("calls");

/// Why a program cannot be used, or what it was attached with.
#[derive(Debug)]
enum State {
    /// The kernel does not take it.
    Refused(String),
    /// Loaded as a program of the object with this index.
    Loaded { object: usize, link: Option<(Link, Own)> },
}

/// A program that was tried.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) hook: &'static Hook,
    state: State,
}

impl Program {
    /// Why it cannot be used.
    pub(super) fn refused(&self) -> Result<(), &str> {
        match &self.state {
            State::Refused(why) => Err(why),
            State::Loaded { .. } => Ok(()),
        }
    }
}

/// All objects that are loaded.
#[derive(Debug)]
pub(super) struct Objects {
    /// That of the clients first.
    loaded: Vec<Object>,
    maps: HashMap<String, MapHandle>,
    pub(super) programs: Vec<Program>,
    own: Own,
    /// Whether LSM programs are to be loaded.
    lsm: bool,
}

impl Objects {
    /// Loads what this kernel takes of the programs for these types, LSM programs only with `lsm`. That some
    /// are refused is no failure; that the maps are is one.
    pub(super) fn load(types: u64, rules: &Rules, lsm: bool) -> Result<Self, ProbeError> {
        let clients = object::with_libbpf(WHAT, || {
            let mut open = open(CLIENTS)?;
            rules.share(&mut open)?;
            for mut map in open.maps_mut() {
                if map.name() == "buffers" {
                    map.set_max_entries(buffers())?;
                }
            }
            open.load()
        })?;
        let (maps, own) = (HashMap::new(), Own::default());
        let mut objects = Self { loaded: Vec::new(), maps, programs: Vec::new(), own, lsm };
        for map in clients.maps() {
            // Constants of an object are its own.
            let name = map.name().to_string_lossy().into_owned();
            if !name.contains(".rodata") {
                let handle = object::with_libbpf(WHAT, || MapHandle::try_from(&map))?;
                objects.maps.insert(name, handle);
            }
        }
        objects.keep(clients)?;
        for area in AREAS {
            for mechanism in Mechanism::USUAL {
                objects.load_area(*area, mechanism, types)?;
            }
        }
        objects.try_attaching();
        let untold = EventType::all().filter(|kind| objects.mechanism(*kind).is_err());
        let untold = EventType::set_of(untold);
        objects.load_area(CALLS, Mechanism::SystemCall, types & untold)?;
        Ok(objects)
    }

    /// Loads the programs of an area that are of one mechanism: all at once, or where that is refused
    /// each by itself, so that those that this kernel takes are there and the reason for each other is
    /// known.
    fn load_area(
        &mut self,
        area: (&str, &[u8]),
        mechanism: Mechanism,
        types: u64,
    ) -> Result<(), ProbeError> {
        let here = |hook: &&Hook| {
            let asked = hook.types.iter().any(|kind| kind.bit() & types != 0);
            asked && hook.area == area.0 && hook.mechanism == mechanism
        };
        let hooks: Vec<&Hook> = HOOKS.iter().filter(here).collect();
        if hooks.is_empty() {
            return Ok(());
        }
        let refused =
            |hook, error: &ProbeError| Program { hook, state: State::Refused(error.to_string()) };
        if mechanism.is_lsm()
            && let Err(error) = self.lsm_programs_are_wanted()
        {
            self.programs.extend(hooks.into_iter().map(|hook| refused(hook, &error)));
            return Ok(());
        }
        match self.load_some(area, &hooks) {
            Ok(object) => return self.add(object, &hooks),
            // Not for what a program does, but because nobody may load such ones.
            Err(error @ ProbeError::Refused { .. }) => {
                self.programs.extend(hooks.into_iter().map(|hook| refused(hook, &error)));
                return Ok(());
            }
            Err(_) => {}
        }
        for hook in hooks {
            match self.load_some(area, &[hook]) {
                Ok(object) => self.add(object, &[hook])?,
                Err(error) => {
                    let state = State::Refused(why_refused(area, hook, &error));
                    self.programs.push(Program { hook, state });
                }
            }
        }
        Ok(())
    }

    fn lsm_programs_are_wanted(&self) -> Result<(), ProbeError> {
        if self.lsm {
            return lsm_programs_are_called();
        }
        Err(ProbeError::Unsupported { what: WHAT, lacking: "no LSM programs were wanted".into() })
    }

    fn load_some(&self, area: (&str, &[u8]), hooks: &[&Hook]) -> Result<Object, ProbeError> {
        object::with_libbpf(WHAT, || {
            let mut open = open(area)?;
            for mut map in open.maps_mut() {
                let name = map.name().to_string_lossy().into_owned();
                if let Some(shared) = self.maps.get(&name) {
                    map.reuse_fd(shared.as_fd())?;
                }
            }
            for mut program in open.progs_mut() {
                let wanted = hooks.iter().any(|hook| program.name() == hook.program);
                program.set_autoload(wanted);
            }
            open.load()
        })
    }

    fn add(&mut self, object: Object, hooks: &[&'static Hook]) -> Result<(), ProbeError> {
        let index = self.keep(object)?;
        let state = || State::Loaded { object: index, link: None };
        self.programs.extend(hooks.iter().map(|hook| Program { hook, state: state() }));
        Ok(())
    }

    /// Keeps an object, and its programs and maps on the list of our own.
    fn keep(&mut self, object: Object) -> Result<usize, ProbeError> {
        for program in object.progs().filter(|program| program.autoload()) {
            self.own.add(Kind::Program, program.as_fd())?;
        }
        for map in object.maps() {
            self.own.add(Kind::Map, map.as_fd())?;
        }
        self.loaded.push(object);
        Ok(self.loaded.len() - 1)
    }

    /// A map of the clients.
    pub(super) fn map(&self, name: &'static str) -> Result<&MapHandle, ProbeError> {
        self.maps.get(name).ok_or_else(|| ProbeError::Malformed {
            what: "bpf/clients.bpf.c".into(),
            reason: format!("it has no map {name}"),
        })
    }

    /// Handles of all maps of the clients.
    pub(super) fn maps(&self) -> Result<Vec<MapHandle>, ProbeError> {
        let copy = |map: &MapHandle| object::with_libbpf(WHAT, || MapHandle::try_from(map));
        self.maps.values().map(copy).collect()
    }

    /// A program of the clients, to be called.
    pub(super) fn call<T>(
        &self,
        name: &'static str,
        run: impl FnOnce(std::os::fd::BorrowedFd<'_>) -> T,
    ) -> Result<T, ProbeError> {
        let clients = self.loaded.first();
        let program =
            clients.and_then(|object| object.progs().find(|program| program.name() == name));
        let program = program.ok_or_else(|| ProbeError::Malformed {
            what: "bpf/clients.bpf.c".into(),
            reason: format!("it has no program {name}"),
        })?;
        Ok(run(program.as_fd()))
    }

    /// By which mechanism a type is told of: the best whose programs are all there. Where there is
    /// none, why the last one is not.
    pub(super) fn mechanism(&self, kind: EventType) -> Result<Mechanism, String> {
        let told = |hook: &Hook| {
            hook.types.contains(&kind) && Mechanism::TELLING.contains(&hook.mechanism)
        };
        let mut reason = match HOOKS.iter().any(told) {
            true => "its programs were not to be loaded".to_owned(),
            false => "no program tells of it in this version".to_owned(),
        };
        for mechanism in Mechanism::TELLING {
            match self.served_by(kind, mechanism) {
                Some(Ok(())) => return Ok(mechanism),
                Some(Err(why)) => why.clone_into(&mut reason),
                None => {}
            }
        }
        Err(reason)
    }

    /// Whether all programs of a type and a mechanism are there; none if there are no such programs.
    pub(super) fn served_by(
        &self,
        kind: EventType,
        mechanism: Mechanism,
    ) -> Option<Result<(), &str>> {
        let serves = |program: &&Program| {
            program.hook.mechanism == mechanism && program.hook.types.contains(&kind)
        };
        let mut programs = self.programs.iter().filter(serves).peekable();
        programs.peek()?;
        Some(programs.try_for_each(Program::refused))
    }

    /// Attaches one LSM program and detaches it again: what holds for it holds for all. Each waits for
    /// all tasks of the machine, so not all are tried.
    fn try_attaching(&mut self) {
        let is_lsm = |program: &&Program| {
            matches!(program.hook.mechanism, Mechanism::Lsm | Mechanism::Rule)
                && program.refused().is_ok()
        };
        let Some(Program { hook, state: State::Loaded { object, .. } }) =
            self.programs.iter().find(is_lsm)
        else {
            return;
        };
        if let Err(error) = attach(&self.loaded, *object, hook) {
            for program in &mut self.programs {
                if program.hook.mechanism.is_lsm() {
                    program.state = State::Refused(error.to_string());
                }
            }
        }
    }

    /// How many passages of tracepoints no program was run for, by the types that are told of there.
    /// Those that missed none are left out.
    pub(super) fn missed(&self) -> Result<Vec<(&'static [EventType], u64)>, ProbeError> {
        let refused = |error: &_| {
            ProbeError::refused("asking what a program missed", &privilege::BPF, error, "")
        };
        let mut missed: Vec<(&'static [EventType], u64)> = Vec::new();
        for program in &self.programs {
            let State::Loaded { object, .. } = &program.state else { continue };
            let types = program.hook.types;
            let is_first = missed.iter().all(|(others, _)| *others != types);
            // The others make up for what the first one missed: bpf/lib/again.h.
            if program.hook.mechanism == Mechanism::Tracepoint && is_first {
                let loaded = found(&self.loaded, *object, program.hook)?;
                let info: bpf_prog_info =
                    object::info_of(loaded.as_fd()).map_err(|error| refused(&error))?;
                missed.push((types, info.recursion_misses));
            }
        }
        for (types, count) in &mut missed {
            *count = count.saturating_sub(self.made_up(types)?);
        }
        missed.retain(|(_, count)| *count != 0);
        Ok(missed)
    }

    /// How many passages were told of by another program than the first.
    fn made_up(&self, types: &[EventType]) -> Result<u64, ProbeError> {
        let Some(first) = types.first() else { return Ok(0) };
        let map = self.map("made_up")?;
        let key = u32::from(first.number()).to_ne_bytes();
        let value = object::with_libbpf(WHAT, || map.lookup(&key, MapFlags::ANY))?;
        let value = value.and_then(|value| value.try_into().ok());
        Ok(value.map_or(0, u64::from_ne_bytes))
    }

    /// Types whose rules have programs of their own on LSM hooks.
    pub(super) fn checked(&self) -> u64 {
        let checked = EventType::all()
            .filter(|kind| self.served_by(*kind, Mechanism::Rule).is_some_and(|all| all.is_ok()));
        EventType::set_of(checked)
    }

    /// Attaches the programs that tell of the types in `told`, that decide rules for the types in
    /// `ruled` and that ask about the types in `asked`; detaches all others. With `pins` those that can deny
    /// by rules stay attached when this process ends.
    ///
    /// What rules deny is not to be asked about. Of the programs on a hook the one that was attached
    /// last goes first, and none goes after one that denied (kernel/bpf/trampoline.c,
    /// `__bpf_trampoline_link_prog`; `BPF_TRAMP_MODIFY_RETURN`). So those that ask are attached before
    /// those that decide by rules, although nobody is asked yet: then they cost one look-up.
    pub(super) fn attach_for(
        &mut self,
        told: u64,
        ruled: u64,
        asked: u64,
        pins: Option<&Pins>,
    ) -> Result<(), ProbeError> {
        let by = |kind: &EventType| self.mechanism(*kind).ok();
        let wanted = |hook: &Hook| match hook.mechanism {
            Mechanism::Gate => hook.types.iter().any(|kind| {
                let told = kind.bit() & told != 0 && by(kind) == Some(Mechanism::Lsm);
                told || kind.bit() & (asked | ruled) != 0
            }),
            Mechanism::Rule => hook.types.iter().any(|kind| kind.bit() & ruled != 0),
            Mechanism::Lsm | Mechanism::Tracepoint | Mechanism::SystemCall => hook
                .types
                .iter()
                .any(|kind| kind.bit() & (told | ruled) != 0 && by(kind) == Some(hook.mechanism)),
        };
        // Who only tells has nobody to tell when this process has ended, and who asks nobody to ask.
        let stays = |hook: &Hook| {
            matches!(hook.mechanism, Mechanism::Rule | Mechanism::Lsm)
                && hook.types.iter().any(|kind| kind.bit() & ruled != 0)
        };
        let wanted: Vec<bool> = self.programs.iter().map(|program| wanted(program.hook)).collect();
        for asking in [true, false] {
            for (program, wanted) in self.programs.iter_mut().zip(&wanted) {
                let (hook, State::Loaded { object, link }) = (program.hook, &mut program.state)
                else {
                    continue;
                };
                if (hook.mechanism == Mechanism::Gate) != asking {
                    continue;
                }
                if *wanted && link.is_none() {
                    *link = Some(attach(&self.loaded, *object, hook)?);
                }
                if let Some((link, _)) = link {
                    match pins.filter(|_| stays(hook)) {
                        Some(pins) => pins.keep(link, hook.program)?,
                        None => pins::let_go(link)?,
                    }
                }
                if !wanted {
                    *link = None;
                }
            }
        }
        Ok(())
    }
}

/// The program of a hook, in the object that it was loaded with.
fn found<'a>(
    loaded: &'a [Object],
    object: usize,
    hook: &Hook,
) -> Result<ProgramMut<'a>, ProbeError> {
    let program = loaded
        .get(object)
        .and_then(|object| object.progs_mut().find(|found| found.name() == hook.program));
    program.ok_or_else(|| ProbeError::Malformed {
        what: format!("bpf/{}.bpf.c", hook.area),
        reason: format!("it has no program {}", hook.program),
    })
}

/// Attaches a program of an object. It is detached as the link goes.
fn attach(loaded: &[Object], object: usize, hook: &Hook) -> Result<(Link, Own), ProbeError> {
    let program = found(loaded, object, hook)?;
    let link = object::with_libbpf(ATTACHING, || program.attach())?;
    let mut own = Own::default();
    own.add(Kind::Link, link.as_fd())?;
    Ok((link, own))
}

/// Why the kernel does not take a program: what is known of its hook, else what it said.
fn why_refused(area: (&str, &[u8]), hook: &Hook, error: &ProbeError) -> String {
    let said = error.to_string();
    let section = open(area).ok().and_then(|object| {
        let program = object.progs().find(|program| program.name() == hook.program)?;
        Some(program.section().to_string_lossy().into_owned())
    });
    let Some((kind @ ("lsm" | "lsm.s"), name)) =
        section.as_deref().and_then(|section| section.split_once('/'))
    else {
        return said;
    };
    if let Ok(false) = kernel_types::has_function(&format!("bpf_lsm_{name}")) {
        return format!("this kernel has no LSM hook {name}");
    }
    if kind == "lsm.s" && said.contains("is not sleepable") {
        return format!(
            "{name} is not among this kernel's hooks at which programs may sleep \
             (kernel/bpf/bpf_lsm.c, sleepable_lsm_hooks)"
        );
    }
    said
}

fn open((_, bytes): (&str, &[u8])) -> libbpf_rs::Result<OpenObject> {
    kernel_types::builder()?.open_memory(bytes)
}

/// How many buffers there are on this machine.
pub(super) fn buffers() -> u32 {
    let processors = libbpf_rs::num_possible_cpus().unwrap_or(1);
    let processors = u32::try_from(processors).unwrap_or(BUFFERS_MOST);
    processors.saturating_mul(BUFFERS_EACH).clamp(BUFFERS_EACH, BUFFERS_MOST)
}
