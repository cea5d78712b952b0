// SPDX-License-Identifier: Apache-2.0
//! What rules can ask of each type of event, and where it is in the record.
//!
//! The offsets are those of api/ringfence.h; a test holds them against the BTF of the built object
//! (crates/probes/src/rules/layout.rs). bpf/lib/rules_facts.h says the same for the kernel, and both
//! are held to each other over random records.

/// A type of event that rules can be for.
#[derive(Debug, PartialEq, Eq)]
pub struct Event {
    /// As in rule files.
    pub name: &'static str,
    /// `RINGFENCE_...` of api/ringfence.h, below 64.
    pub number: u16,
    /// Whether a rule can deny it.
    pub deniable: bool,
    /// Bytes of the event's own part.
    pub size: usize,
    /// Where in the own part a `struct ringfence_file` is.
    pub file: Option<usize>,
    /// Where a `struct ringfence_process_key` of whom it is done to is.
    pub target: Option<usize>,
    /// A number that only this type has: what rules call it, and where it is (u32).
    pub own: Option<(Own, usize)>,
    /// Where the bits of protection are (u32), after the change where there is one. Those of a file that
    /// is opened are what it is opened for: see [`Event::is_opening`].
    pub protection: Option<usize>,
    /// Where the bits of protection before the change are (u32).
    pub before: Option<usize>,
    /// Where the event's flags are (u32).
    pub flags: Option<usize>,
    /// Where a `struct ringfence_string` with a name is.
    pub name_at: Option<usize>,
}

/// The number that a type of event has for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Own {
    /// `signal` of process_signal.
    Signal,
    /// `access` of process_trace.
    Trace,
    /// `access` of memory_access.
    Access,
    /// `by` of process_credentials.
    By,
    /// `from` of module_load, kexec_load and firmware_load.
    From,
    /// `program_type` of bpf_load.
    ProgramType,
    /// `how` of memory_fileless.
    How,
    /// `how` of file_modify.
    Modify,
}

impl Own {
    /// What rules call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Signal => "signal",
            Self::Trace | Self::Access => "access",
            Self::By => "by",
            Self::From => "from",
            Self::ProgramType => "program_type",
            Self::How | Self::Modify => "how",
        }
    }
}

/// Bytes of `struct ringfence_file`.
const FILE: usize = 96;

const NOTHING: Event = Event {
    name: "",
    number: 0,
    deniable: false,
    size: 0,
    file: None,
    target: None,
    own: None,
    protection: None,
    before: None,
    flags: None,
    name_at: None,
};

/// All types that rules can be for.
///
/// Those of sessions have no actor, and that of tamper protection no part of its own yet.
pub static EVENTS: [Event; 19] = [
    Event {
        name: "process_exec",
        number: 1,
        deniable: true,
        size: 136,
        file: Some(0),
        flags: Some(128),
        ..NOTHING
    },
    Event { name: "process_fork", number: 2, size: 24, target: Some(0), ..NOTHING },
    Event { name: "process_exit", number: 3, size: 40, ..NOTHING },
    Event {
        name: "process_signal",
        number: 4,
        deniable: true,
        size: 128,
        file: Some(32),
        target: Some(0),
        own: Some((Own::Signal, 20)),
        ..NOTHING
    },
    Event {
        name: "process_trace",
        number: 5,
        deniable: true,
        size: 120,
        file: Some(24),
        target: Some(0),
        own: Some((Own::Trace, 16)),
        ..NOTHING
    },
    Event { name: "process_credentials", number: 6, size: 56, own: Some((Own::By, 48)), ..NOTHING },
    Event { name: "thread_create", number: 7, size: 24, target: Some(0), ..NOTHING },
    Event {
        name: "image_map",
        number: 16,
        deniable: true,
        size: 128,
        file: Some(0),
        protection: Some(FILE + 24),
        flags: Some(FILE + 28),
        ..NOTHING
    },
    Event {
        name: "module_load",
        number: 17,
        deniable: true,
        size: 112,
        file: Some(0),
        own: Some((Own::From, FILE + 8)),
        name_at: Some(FILE),
        ..NOTHING
    },
    Event { name: "module_unload", number: 18, size: 8, name_at: Some(0), ..NOTHING },
    Event {
        name: "bpf_load",
        number: 19,
        deniable: true,
        size: 32,
        own: Some((Own::ProgramType, 0)),
        ..NOTHING
    },
    Event {
        name: "kexec_load",
        number: 20,
        deniable: true,
        size: 112,
        file: Some(0),
        own: Some((Own::From, FILE + 8)),
        ..NOTHING
    },
    Event {
        name: "firmware_load",
        number: 21,
        deniable: true,
        size: 112,
        file: Some(0),
        own: Some((Own::From, FILE + 8)),
        ..NOTHING
    },
    Event {
        name: "memory_map",
        number: 32,
        deniable: true,
        size: 120,
        file: Some(24),
        protection: Some(16),
        flags: Some(20),
        ..NOTHING
    },
    Event {
        name: "memory_protect",
        number: 33,
        deniable: true,
        size: 120,
        file: Some(24),
        before: Some(16),
        protection: Some(20),
        ..NOTHING
    },
    Event {
        name: "memory_access",
        number: 34,
        deniable: true,
        size: 120,
        file: Some(24),
        target: Some(0),
        own: Some((Own::Access, 16)),
        ..NOTHING
    },
    Event {
        name: "memory_fileless",
        number: 35,
        deniable: true,
        size: 104,
        file: Some(0),
        own: Some((Own::How, FILE)),
        ..NOTHING
    },
    Event {
        name: "file_open",
        number: FILE_OPEN,
        deniable: true,
        size: 104,
        file: Some(0),
        flags: Some(FILE),
        protection: Some(FILE + 4),
        ..NOTHING
    },
    Event {
        name: "file_modify",
        number: 41,
        size: 104,
        file: Some(0),
        own: Some((Own::Modify, FILE)),
        flags: Some(FILE + 4),
        ..NOTHING
    },
];

/// `RINGFENCE_FILE_OPEN`.
const FILE_OPEN: u16 = 40;

impl Event {
    /// Whether it has bits of what a file is opened for, which rules call `access`, and not of the
    /// protection of memory: the bits are the same.
    #[must_use]
    pub fn is_opening(&self) -> bool {
        self.number == FILE_OPEN
    }
}

/// The type with this name.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static Event> {
    EVENTS.iter().find(|event| event.name == name)
}

/// The type with this number.
#[must_use]
pub fn by_number(number: u16) -> Option<&'static Event> {
    EVENTS.iter().find(|event| event.number == number)
}

/// The types of a set, bits by number.
pub fn of_set(set: u64) -> impl Iterator<Item = &'static Event> {
    EVENTS.iter().filter(move |event| set >> event.number & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_found_by_name_and_number() {
        for event in &EVENTS {
            assert_eq!(by_name(event.name), Some(event));
            assert_eq!(by_number(event.number), Some(event));
            assert!(event.number < 64);
        }
        assert_eq!(of_set(1 << 1 | 1 << 33).map(|event| event.number).collect::<Vec<_>>(), [1, 33]);
    }
}
