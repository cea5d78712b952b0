// SPDX-License-Identifier: Apache-2.0
//! Numbers of records that have names: types of events, classes, outcomes.
//!
//! Names are those of the constants in lower case (`process_exec`), as grants, rules and the command
//! line use them.

use std::fmt;

use crate::constants::*;

/// Type of an event. There will be more: a number that has no name here is to be skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
#[non_exhaustive]
pub enum EventType {
    /// A program is executed.
    ProcessExec = PROCESS_EXEC,
    /// A process is made.
    ProcessFork = PROCESS_FORK,
    /// A process has ended.
    ProcessExit = PROCESS_EXIT,
    /// A signal is sent.
    ProcessSignal = PROCESS_SIGNAL,
    /// A process wants to see into another, or to change it.
    ProcessTrace = PROCESS_TRACE,
    /// The credentials of a process change.
    ProcessCredentials = PROCESS_CREDENTIALS,
    /// A thread is made.
    ThreadCreate = THREAD_CREATE,
    /// A file is mapped executable.
    ImageMap = IMAGE_MAP,
    /// A module is loaded.
    ModuleLoad = MODULE_LOAD,
    /// A module is unloaded.
    ModuleUnload = MODULE_UNLOAD,
    /// A BPF program is loaded.
    BpfLoad = BPF_LOAD,
    /// Another kernel is loaded for kexec.
    KexecLoad = KEXEC_LOAD,
    /// Firmware is loaded.
    FirmwareLoad = FIRMWARE_LOAD,
    /// Memory without a file is mapped executable, or any memory writable and executable.
    MemoryMap = MEMORY_MAP,
    /// The protection of memory changes to executable.
    MemoryProtect = MEMORY_PROTECT,
    /// One process reads or writes the memory of another.
    MemoryAccess = MEMORY_ACCESS,
    /// A file without a name is executed or mapped executable.
    MemoryFileless = MEMORY_FILELESS,
    /// A file is opened.
    FileOpen = FILE_OPEN,
    /// What is in a file may have changed.
    FileModify = FILE_MODIFY,
    /// Something was attempted against a protected object.
    TamperAttempt = TAMPER_ATTEMPT,
    /// A finding of the guard.
    KernelFinding = KERNEL_FINDING,
    /// A way into the kernel that is locked was tried.
    KernelLockDenied = KERNEL_LOCK_DENIED,
    /// Records did not reach this client.
    Loss = LOSS,
    /// A verdict of this client came too late or not at all.
    DeadlineMissed = DEADLINE_MISSED,
    /// What can be had of an event changed.
    StageChanged = STAGE_CHANGED,
    /// The session ends.
    ShuttingDown = SHUTTING_DOWN,
}

impl EventType {
    /// All that have a name, in the order of their numbers.
    pub const ALL: [Self; 26] = [
        Self::ProcessExec,
        Self::ProcessFork,
        Self::ProcessExit,
        Self::ProcessSignal,
        Self::ProcessTrace,
        Self::ProcessCredentials,
        Self::ThreadCreate,
        Self::ImageMap,
        Self::ModuleLoad,
        Self::ModuleUnload,
        Self::BpfLoad,
        Self::KexecLoad,
        Self::FirmwareLoad,
        Self::MemoryMap,
        Self::MemoryProtect,
        Self::MemoryAccess,
        Self::MemoryFileless,
        Self::FileOpen,
        Self::FileModify,
        Self::TamperAttempt,
        Self::KernelFinding,
        Self::KernelLockDenied,
        Self::Loss,
        Self::DeadlineMissed,
        Self::StageChanged,
        Self::ShuttingDown,
    ];

    /// The name that people and files use: `process_exec`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ProcessExec => "process_exec",
            Self::ProcessFork => "process_fork",
            Self::ProcessExit => "process_exit",
            Self::ProcessSignal => "process_signal",
            Self::ProcessTrace => "process_trace",
            Self::ProcessCredentials => "process_credentials",
            Self::ThreadCreate => "thread_create",
            Self::ImageMap => "image_map",
            Self::ModuleLoad => "module_load",
            Self::ModuleUnload => "module_unload",
            Self::BpfLoad => "bpf_load",
            Self::KexecLoad => "kexec_load",
            Self::FirmwareLoad => "firmware_load",
            Self::MemoryMap => "memory_map",
            Self::MemoryProtect => "memory_protect",
            Self::MemoryAccess => "memory_access",
            Self::MemoryFileless => "memory_fileless",
            Self::FileOpen => "file_open",
            Self::FileModify => "file_modify",
            Self::TamperAttempt => "tamper_attempt",
            Self::KernelFinding => "kernel_finding",
            Self::KernelLockDenied => "kernel_lock_denied",
            Self::Loss => "loss",
            Self::DeadlineMissed => "deadline_missed",
            Self::StageChanged => "stage_changed",
            Self::ShuttingDown => "shutting_down",
        }
    }

    /// The type of this name, if there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|event| event.name() == name)
    }

    /// The number in a record, below [`TYPES`].
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// The type of this number, if it has a name here.
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|event| event.number() == number)
    }

    /// Its bit in a set of types, which is one 64-bit word.
    pub const fn bit(self) -> u64 {
        1 << self.number()
    }

    /// Whether it belongs to the session itself, so that a client gets it without asking for it.
    pub const fn is_of_session(self) -> bool {
        self.number() >= LOSS && self.number() <= SHUTTING_DOWN
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Why a record was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum Class {
    /// The client is told.
    Notify = CLASS_NOTIFY,
    /// A rule of the client matched.
    Rule = CLASS_RULE,
    /// The task waits for the client's verdict.
    Ask = CLASS_ASK,
}

impl Class {
    /// All that have a name.
    pub const ALL: [Self; 3] = [Self::Notify, Self::Rule, Self::Ask];

    /// The name that people and files use: `ask`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Notify => "notify",
            Self::Rule => "rule",
            Self::Ask => "ask",
        }
    }

    /// The class of this name, if there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.name() == name)
    }
}

/// The classes of a record: bits as in [`Header::classes`](crate::Header::classes).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Classes(pub u8);

impl Classes {
    /// Whether the record was sent for this reason.
    pub const fn contains(self, class: Class) -> bool {
        self.0 & class as u8 != 0
    }

    /// Those that have a name here.
    pub fn iter(self) -> impl Iterator<Item = Class> {
        Class::ALL.into_iter().filter(move |class| self.contains(*class))
    }
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum Outcome {
    /// Nothing was decided: the event cannot be denied, or not by anybody yet.
    None = OUTCOME_NONE,
    /// It was allowed.
    Allowed = OUTCOME_ALLOWED,
    /// It was denied.
    Denied = OUTCOME_DENIED,
}

impl Outcome {
    /// All that have a name.
    pub const ALL: [Self; 3] = [Self::None, Self::Allowed, Self::Denied];

    /// The name that people and files use: `denied`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Allowed => "allowed",
            Self::Denied => "denied",
        }
    }

    /// The outcome of this number, if it has a name here.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| *outcome as u8 == number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_found_by_its_number_and_by_its_name() {
        for event in EventType::ALL {
            assert_eq!(EventType::from_number(event.number()), Some(event));
            assert_eq!(EventType::from_name(event.name()), Some(event));
            assert!(usize::from(event.number()) < TYPES);
        }
        assert_eq!(EventType::from_number(0), None);
        assert_eq!(EventType::from_name("process"), None);
    }

    #[test]
    fn only_the_events_of_a_session_come_without_asking() {
        let of_session: Vec<_> = EventType::ALL.iter().filter(|e| e.is_of_session()).collect();
        assert_eq!(
            of_session,
            [
                &EventType::Loss,
                &EventType::DeadlineMissed,
                &EventType::StageChanged,
                &EventType::ShuttingDown
            ]
        );
    }

    #[test]
    fn classes_that_have_no_name_yet_are_skipped() {
        let classes = Classes(CLASS_ASK | CLASS_NOTIFY | 0x80);
        assert_eq!(classes.iter().collect::<Vec<_>>(), [Class::Notify, Class::Ask]);
    }
}
