// SPDX-License-Identifier: Apache-2.0
//! Types of events and classes, by the numbers of `api/ringfence.h` and the names of the lifecycle.

use std::fmt;

/// A type of event that the API knows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventType(u16);

/// One way in which a client can have an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// It is told.
    Notify,
    /// Its rules decide in the kernel.
    Rule,
    /// The task waits for its verdict.
    Ask,
}

/// A set of classes; bits as RINGFENCE_CLASS_ in `api/ringfence.h`.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct ClassSet(u8);

/// A set of types of events: bit by number.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct EventSet(pub u64);

const NOTIFY: ClassSet = ClassSet(1);
const RULE: ClassSet = ClassSet(1 | 2);
const ASK: ClassSet = ClassSet(1 | 2 | 4);
/// What a session gets without asking for it.
const SESSION: ClassSet = ClassSet(0);

/// Number, name, and the classes that are possible on any host: a hook that cannot refuse has no
/// rules, and one that cannot sleep cannot ask.
const EVENTS: [(u16, &str, ClassSet); 26] = [
    (1, "process_exec", ASK),
    (2, "process_fork", NOTIFY),
    (3, "process_exit", NOTIFY),
    (4, "process_signal", RULE),
    (5, "process_trace", RULE),
    (6, "process_credentials", NOTIFY),
    (7, "thread_create", NOTIFY),
    (16, "image_map", ASK),
    (17, "module_load", ASK),
    (18, "module_unload", NOTIFY),
    (19, "bpf_load", ASK),
    (20, "kexec_load", ASK),
    (21, "firmware_load", RULE),
    (32, "memory_map", RULE),
    (33, "memory_protect", RULE),
    (34, "memory_access", RULE),
    (35, "memory_fileless", RULE),
    (40, "file_open", ASK),
    (41, "file_modify", NOTIFY),
    (48, "tamper_attempt", NOTIFY),
    (52, "kernel_finding", NOTIFY),
    (53, "kernel_lock_denied", NOTIFY),
    (56, "loss", SESSION),
    (57, "deadline_missed", SESSION),
    (58, "stage_changed", SESSION),
    (59, "shutting_down", SESSION),
];

impl EventType {
    /// A program is executed: the one event that fanotify can ask about as well.
    pub const PROCESS_EXEC: Self = Self(1);
    /// A finding of the guard: the one event that no hook makes.
    pub const KERNEL_FINDING: Self = Self(52);
    /// A file is opened: the one event that is asked about below named directories only.
    pub const FILE_OPEN: Self = Self(40);
    /// What is in a file may have changed.
    pub const FILE_MODIFY: Self = Self(41);
    /// Those of files, which a grant can have for named directories only.
    pub const WATCHED: [Self; 2] = [Self::FILE_OPEN, Self::FILE_MODIFY];

    /// All that a grant can name, by number.
    pub fn all() -> impl Iterator<Item = Self> {
        EVENTS
            .iter()
            .filter(|(_, _, classes)| !classes.is_empty())
            .map(|(number, ..)| Self(*number))
    }

    /// By its number in `api/ringfence.h`.
    #[must_use]
    pub fn from_number(number: u16) -> Option<Self> {
        EVENTS.iter().any(|(known, ..)| *known == number).then_some(Self(number))
    }

    /// By its name, as in a grant and the lifecycle.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let (number, ..) = EVENTS.iter().find(|(_, known, _)| *known == name)?;
        Some(Self(*number))
    }

    fn entry(self) -> Option<&'static (u16, &'static str, ClassSet)> {
        EVENTS.iter().find(|(number, ..)| *number == self.0)
    }

    /// Its number in `api/ringfence.h`; below 64.
    #[must_use]
    pub fn number(self) -> u16 {
        self.0
    }

    /// Its name in grants and in the lifecycle.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.entry().map_or("", |(_, name, _)| name)
    }

    /// What is possible for it on a host that has everything; empty for what every session gets.
    #[must_use]
    pub fn classes(self) -> ClassSet {
        self.entry().map_or(SESSION, |(.., classes)| *classes)
    }

    /// Its place in a table by type.
    pub(crate) fn index(self) -> usize {
        usize::from(self.0) % EventSet::SIZE
    }
}

impl fmt::Debug for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Class {
    /// All, from the one with the least power.
    pub const ALL: [Self; 3] = [Self::Notify, Self::Rule, Self::Ask];

    /// As a grant writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Notify => "notify",
            Self::Rule => "rule",
            Self::Ask => "ask",
        }
    }

    /// By that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.name() == name)
    }

    fn bit(self) -> u8 {
        match self {
            Self::Notify => 1,
            Self::Rule => 2,
            Self::Ask => 4,
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl ClassSet {
    /// No class.
    pub const EMPTY: Self = Self(0);

    /// From RINGFENCE_CLASS_ bits; `None` if there is one that is not known.
    #[must_use]
    pub fn from_bits(bits: u8) -> Option<Self> {
        (bits & !ASK.0 == 0).then_some(Self(bits))
    }

    /// RINGFENCE_CLASS_ bits.
    #[must_use]
    pub fn bits(self) -> u8 {
        self.0
    }

    /// Whether it has the class.
    #[must_use]
    pub fn contains(self, class: Class) -> bool {
        self.0 & class.bit() != 0
    }

    /// With the class.
    #[must_use]
    pub fn with(self, class: Class) -> Self {
        Self(self.0 | class.bit())
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Its classes, from the one with the least power.
    pub fn iter(self) -> impl Iterator<Item = Class> {
        Class::ALL.into_iter().filter(move |class| self.contains(*class))
    }
}

impl FromIterator<Class> for ClassSet {
    fn from_iter<I: IntoIterator<Item = Class>>(classes: I) -> Self {
        classes.into_iter().fold(Self::EMPTY, Self::with)
    }
}

impl fmt::Debug for ClassSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl EventSet {
    /// RINGFENCE_TYPES: all numbers are below.
    pub const SIZE: usize = 64;
    /// No type.
    pub const EMPTY: Self = Self(0);

    /// Whether the type is in it.
    #[must_use]
    pub fn contains(self, event: EventType) -> bool {
        self.0 >> event.index() & 1 == 1
    }

    /// Puts the type in or takes it out.
    pub fn set(&mut self, event: EventType, present: bool) {
        let bit = 1 << event.index();
        self.0 = if present { self.0 | bit } else { self.0 & !bit };
    }

    /// Its types, by number.
    pub fn iter(self) -> impl Iterator<Item = EventType> {
        (0..64).filter(move |bit| self.0 >> bit & 1 == 1).filter_map(EventType::from_number)
    }
}

impl FromIterator<EventType> for EventSet {
    fn from_iter<I: IntoIterator<Item = EventType>>(events: I) -> Self {
        let mut set = Self::EMPTY;
        events.into_iter().for_each(|event| set.set(event, true));
        set
    }
}

impl fmt::Debug for EventSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_those_of_the_header() {
        let header = include_str!("../../../api/ringfence.h");
        let known: Vec<_> = EVENTS
            .iter()
            .map(|(number, name, _)| (format!("RINGFENCE_{}", name.to_uppercase()), *number))
            .collect();
        for (name, number) in &known {
            let line = header.lines().find_map(|line| {
                line.strip_prefix("#define ")?.strip_prefix(name)?.trim().parse::<u16>().ok()
            });
            assert_eq!(line, Some(*number), "{name}");
        }
        // And there are no more: all types stand between the first and RINGFENCE_TYPES.
        let first = header.find("#define RINGFENCE_PROCESS_EXEC").expect("the first type");
        let last = header.find("#define RINGFENCE_TYPES").expect("the end of the types");
        let defined = header[first..last].matches("#define ").count();
        assert_eq!(defined, known.len());
    }

    #[test]
    fn classes_have_the_bits_of_the_header() {
        let header = include_str!("../../../api/ringfence.h");
        for class in Class::ALL {
            let name = format!("#define RINGFENCE_CLASS_{} ", class.name().to_uppercase());
            let line = header.lines().find_map(|line| line.strip_prefix(&name));
            assert_eq!(line, Some(class.bit().to_string().as_str()));
        }
    }

    #[test]
    fn a_type_is_found_by_what_it_says_of_itself() {
        for event in EventType::all() {
            assert_eq!(EventType::from_name(event.name()), Some(event));
            assert_eq!(EventType::from_number(event.number()), Some(event));
        }
        assert_eq!(EventType::from_number(0), None);
        assert_eq!(EventType::from_name(""), None);
        assert_eq!(EventType::from_number(8), None);
    }
}
