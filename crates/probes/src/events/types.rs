// SPDX-License-Identifier: Apache-2.0
//! The types of events and which program serves each, as this side knows them.
//!
//! The numbers are those of api/ringfence.h, which a test compares.

/// What an event is: its number in api/ringfence.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventType(u8);

/// All types that programs of the kernel make, with their names as in api/ringfence.h.
const NAMES: [(&str, EventType); 19] = [
    ("process_exec", EventType::PROCESS_EXEC),
    ("process_fork", EventType::PROCESS_FORK),
    ("process_exit", EventType::PROCESS_EXIT),
    ("process_signal", EventType::PROCESS_SIGNAL),
    ("process_trace", EventType::PROCESS_TRACE),
    ("process_credentials", EventType::PROCESS_CREDENTIALS),
    ("thread_create", EventType::THREAD_CREATE),
    ("image_map", EventType::IMAGE_MAP),
    ("module_load", EventType::MODULE_LOAD),
    ("module_unload", EventType::MODULE_UNLOAD),
    ("bpf_load", EventType::BPF_LOAD),
    ("kexec_load", EventType::KEXEC_LOAD),
    ("firmware_load", EventType::FIRMWARE_LOAD),
    ("memory_map", EventType::MEMORY_MAP),
    ("memory_protect", EventType::MEMORY_PROTECT),
    ("memory_access", EventType::MEMORY_ACCESS),
    ("memory_fileless", EventType::MEMORY_FILELESS),
    ("file_open", EventType::FILE_OPEN),
    ("file_modify", EventType::FILE_MODIFY),
];

impl EventType {
    /// A program was executed.
    pub const PROCESS_EXEC: Self = Self(1);
    /// A process was made.
    pub const PROCESS_FORK: Self = Self(2);
    /// A process ended.
    pub const PROCESS_EXIT: Self = Self(3);
    /// A signal was sent.
    pub const PROCESS_SIGNAL: Self = Self(4);
    /// A process wants to see into another, or to change it.
    pub const PROCESS_TRACE: Self = Self(5);
    /// Credentials change.
    pub const PROCESS_CREDENTIALS: Self = Self(6);
    /// A thread was made.
    pub const THREAD_CREATE: Self = Self(7);
    /// A file is mapped executable.
    pub const IMAGE_MAP: Self = Self(16);
    /// A module is loaded.
    pub const MODULE_LOAD: Self = Self(17);
    /// A module went.
    pub const MODULE_UNLOAD: Self = Self(18);
    /// A BPF program is loaded.
    pub const BPF_LOAD: Self = Self(19);
    /// Another kernel is loaded.
    pub const KEXEC_LOAD: Self = Self(20);
    /// Firmware is loaded.
    pub const FIRMWARE_LOAD: Self = Self(21);
    /// Memory without a file is mapped executable, or any writable and executable.
    pub const MEMORY_MAP: Self = Self(32);
    /// Memory becomes executable.
    pub const MEMORY_PROTECT: Self = Self(33);
    /// One process reads or writes the memory of another.
    pub const MEMORY_ACCESS: Self = Self(34);
    /// A file without a name is executed or mapped executable.
    pub const MEMORY_FILELESS: Self = Self(35);
    /// A file is opened.
    pub const FILE_OPEN: Self = Self(40);
    /// What is in a file may have changed.
    pub const FILE_MODIFY: Self = Self(41);

    /// What of an event nobody can be asked about on any kernel, where there is such a thing.
    #[must_use]
    pub fn never_asked(self) -> Option<&'static str> {
        match self {
            Self::MODULE_LOAD => Some(
                "not what comes from memory (init_module), whose hook kernel_load_data is not among \
                 those at which programs may sleep: that is decided as if nobody had answered",
            ),
            Self::KEXEC_LOAD => Some(
                "not what comes from memory (kexec_load), whose hook kernel_load_data is not among \
                 those at which programs may sleep: that is decided as if nobody had answered",
            ),
            Self::IMAGE_MAP => Some(
                "not what mprotect makes executable afterwards, whose hook file_mprotect is not among \
                 those at which programs may sleep: that is told of, and rules can deny it",
            ),
            Self::FILE_OPEN => Some("only of what lies below the directories that a grant names"),
            _ => None,
        }
    }

    /// What of an event is told of where only the end of system calls is seen ([`Mechanism::SystemCall`]);
    /// `None` if nothing is.
    #[must_use]
    pub fn told_by_calls(self) -> Option<&'static str> {
        match self {
            Self::PROCESS_TRACE => Some(
                "when it is done, by ptrace, process_vm_readv and writev and pidfd_getfd of 64-bit \
                 programs; not by reading /proc",
            ),
            Self::MEMORY_ACCESS => Some(
                "when it is done, by ptrace and process_vm_readv and writev of 64-bit programs; not by \
                 /proc/PID/mem",
            ),
            Self::IMAGE_MAP => Some(
                "when it is done, by mmap, mprotect and shmat of 64-bit programs; not the program and \
                 its loader, which exec maps",
            ),
            Self::MEMORY_MAP => Some("when it is done, by mmap and shmat of 64-bit programs"),
            Self::MEMORY_PROTECT => Some(
                "when it is done, by 64-bit programs, and whether or not it was executable before",
            ),
            Self::MEMORY_FILELESS => {
                Some("when it is done, by exec, and by mmap, mprotect and shmat of 64-bit programs")
            }
            Self::BPF_LOAD | Self::KEXEC_LOAD => Some("when it is done, by 64-bit programs"),
            _ => None,
        }
    }

    /// All types that programs of the kernel make, in the order of their numbers.
    pub fn all() -> impl Iterator<Item = Self> {
        NAMES.iter().map(|(_, kind)| *kind)
    }

    /// The number in api/ringfence.h, from 0 to 63.
    #[must_use]
    pub fn number(self) -> u8 {
        self.0
    }

    /// The set that has only this type.
    #[must_use]
    pub fn bit(self) -> u64 {
        1 << self.0
    }

    /// The name, as `process_exec`.
    #[must_use]
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(_, kind)| *kind == self).map_or("unknown", |(name, _)| name)
    }

    /// The set of some types.
    #[must_use]
    pub fn set_of(kinds: impl IntoIterator<Item = Self>) -> u64 {
        kinds.into_iter().fold(0, |set, kind| set | kind.bit())
    }

    /// The types of a set, those that are not known here left out.
    pub fn of_set(set: u64) -> impl Iterator<Item = Self> {
        Self::all().filter(move |kind| kind.bit() & set != 0)
    }
}

/// How a program comes to see an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mechanism {
    /// A tracepoint, passed when it is done: it tells.
    Tracepoint,
    /// An LSM hook, passed before it is done: it tells, and can deny.
    Lsm,
    /// An LSM hook, passed before it is done, for a type that tracepoints tell of: rules are decided
    /// there.
    Rule,
    /// An LSM hook at which the task waits for verdicts, in the gate.
    Gate,
    /// The tracepoint at the end of system calls (`raw_syscalls:sys_exit`): it tells of what a call has
    /// done, where nothing else does.
    SystemCall,
}

impl Mechanism {
    /// Those that programs of most areas are of.
    pub(super) const USUAL: [Self; 4] = [Self::Lsm, Self::Tracepoint, Self::Rule, Self::Gate];
    /// Those that tell, the best first.
    pub(super) const TELLING: [Self; 3] = [Self::Lsm, Self::Tracepoint, Self::SystemCall];

    /// Whether its programs are LSM programs.
    pub(super) fn is_lsm(self) -> bool {
        matches!(self, Self::Lsm | Self::Rule | Self::Gate)
    }
}

/// A program, where it is and what it tells of.
#[derive(Debug)]
pub(super) struct Hook {
    /// The object.
    pub(super) area: &'static str,
    /// The name of the function.
    pub(super) program: &'static str,
    pub(super) mechanism: Mechanism,
    /// Events that this program tells of.
    pub(super) types: &'static [EventType],
}

const fn hook(
    mechanism: Mechanism,
    area: &'static str,
    program: &'static str,
    types: &'static [EventType],
) -> Hook {
    Hook { area, program, mechanism, types }
}

/// What is told of modules, other kernels and firmware by the same hooks.
const LOADED: &[EventType] =
    &[EventType::MODULE_LOAD, EventType::KEXEC_LOAD, EventType::FIRMWARE_LOAD];

/// All programs. A type is told of by those of one mechanism, all of them together: of LSM if this
/// kernel takes them, else of tracepoints of its own, else by the end of system calls.
pub(super) const HOOKS: &[Hook] = {
    use EventType as E;
    use Mechanism::{Gate, Lsm, Rule, SystemCall, Tracepoint};
    &[
        hook(Tracepoint, "process", "process_exec", &[E::PROCESS_EXEC]),
        hook(Tracepoint, "process", "process_exec_again", &[E::PROCESS_EXEC]),
        hook(Tracepoint, "process", "process_exec_last", &[E::PROCESS_EXEC]),
        hook(Tracepoint, "process", "process_fork", &[E::PROCESS_FORK, E::THREAD_CREATE]),
        hook(Tracepoint, "process", "process_fork_again", &[E::PROCESS_FORK, E::THREAD_CREATE]),
        hook(Tracepoint, "process", "process_fork_last", &[E::PROCESS_FORK, E::THREAD_CREATE]),
        hook(Tracepoint, "process", "process_exit", &[E::PROCESS_EXIT]),
        hook(Tracepoint, "process", "process_exit_again", &[E::PROCESS_EXIT]),
        hook(Tracepoint, "process", "process_exit_last", &[E::PROCESS_EXIT]),
        hook(Tracepoint, "process", "process_signal", &[E::PROCESS_SIGNAL]),
        hook(Rule, "process", "process_exec_checked", &[E::PROCESS_EXEC]),
        hook(Rule, "process", "process_signal_checked", &[E::PROCESS_SIGNAL]),
        hook(Lsm, "access", "trace_other", &[E::PROCESS_TRACE]),
        hook(Lsm, "access", "trace_me", &[E::PROCESS_TRACE]),
        hook(Lsm, "access", "memory_access", &[E::MEMORY_ACCESS]),
        hook(Lsm, "credentials", "change_uid", &[E::PROCESS_CREDENTIALS]),
        hook(Lsm, "credentials", "change_gid", &[E::PROCESS_CREDENTIALS]),
        hook(Lsm, "credentials", "change_capabilities", &[E::PROCESS_CREDENTIALS]),
        hook(Lsm, "credentials", "change_by_exec", &[E::PROCESS_CREDENTIALS]),
        hook(Lsm, "image", "image_map", &[E::IMAGE_MAP]),
        hook(Lsm, "image", "image_protect", &[E::IMAGE_MAP]),
        hook(Lsm, "image", "load_file", LOADED),
        hook(Lsm, "image", "load_memory", LOADED),
        hook(Lsm, "image", "bpf_load", &[E::BPF_LOAD]),
        hook(Tracepoint, "image", "module_loaded", &[E::MODULE_LOAD]),
        hook(Tracepoint, "image", "module_loaded_again", &[E::MODULE_LOAD]),
        hook(Tracepoint, "image", "module_loaded_last", &[E::MODULE_LOAD]),
        hook(Tracepoint, "image", "module_unloaded", &[E::MODULE_UNLOAD]),
        hook(Tracepoint, "image", "module_unloaded_again", &[E::MODULE_UNLOAD]),
        hook(Tracepoint, "image", "module_unloaded_last", &[E::MODULE_UNLOAD]),
        hook(Lsm, "memory", "memory_map", &[E::MEMORY_MAP]),
        hook(Lsm, "memory", "memory_protect", &[E::MEMORY_PROTECT]),
        hook(Lsm, "memory", "fileless_map", &[E::MEMORY_FILELESS]),
        hook(Lsm, "memory", "fileless_protect", &[E::MEMORY_FILELESS]),
        hook(Lsm, "memory", "fileless_exec", &[E::MEMORY_FILELESS]),
        hook(Lsm, "file", "file_open", &[E::FILE_OPEN]),
        hook(Lsm, "file", "file_closed", &[E::FILE_MODIFY]),
        hook(Lsm, "file", "file_truncated", &[E::FILE_MODIFY]),
        hook(Lsm, "file", "file_open_truncated", &[E::FILE_MODIFY]),
        hook(Gate, "verdicts", "process_exec_asked", &[E::PROCESS_EXEC]),
        hook(Gate, "verdicts", "image_map_asked", &[E::IMAGE_MAP]),
        hook(Gate, "verdicts_kernel", "load_file_asked", &[E::MODULE_LOAD, E::KEXEC_LOAD]),
        hook(Gate, "verdicts_kernel", "load_memory_unasked", &[E::MODULE_LOAD, E::KEXEC_LOAD]),
        hook(Gate, "verdicts_kernel", "bpf_load_asked", &[E::BPF_LOAD]),
        hook(Gate, "verdicts_file", "file_open_asked", &[E::FILE_OPEN]),
        hook(SystemCall, "calls", "trace_called", &[E::PROCESS_TRACE]),
        hook(SystemCall, "calls", "memory_access_called", &[E::MEMORY_ACCESS]),
        hook(SystemCall, "calls", "image_called", &[E::IMAGE_MAP]),
        hook(SystemCall, "calls", "memory_map_called", &[E::MEMORY_MAP]),
        hook(SystemCall, "calls", "memory_protect_called", &[E::MEMORY_PROTECT]),
        hook(SystemCall, "calls", "fileless_called", &[E::MEMORY_FILELESS]),
        hook(SystemCall, "calls", "fileless_executed", &[E::MEMORY_FILELESS]),
        hook(SystemCall, "calls", "bpf_load_called", &[E::BPF_LOAD]),
        hook(SystemCall, "calls", "kexec_load_called", &[E::KEXEC_LOAD]),
    ]
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_those_of_the_published_header() {
        let header = include_str!("../../../../api/ringfence.h");
        for (name, kind) in NAMES {
            let wanted = format!("RINGFENCE_{}", name.to_uppercase());
            let mut lines = header.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
            let line = lines.find(|words| words.get(1) == Some(&wanted.as_str()));
            let number = line.as_ref().and_then(|words| words.get(2)?.parse::<u8>().ok());
            assert_eq!(number, Some(kind.number()), "{wanted}");
            assert_eq!(kind.name(), name);
        }
    }

    #[test]
    fn each_type_has_a_program() {
        for kind in EventType::all() {
            assert!(HOOKS.iter().any(|hook| hook.types.contains(&kind)), "{}", kind.name());
        }
    }

    #[test]
    fn what_system_calls_tell_of_is_said_of_each_type_that_they_tell_of() {
        for kind in EventType::all() {
            let by_calls = |hook: &Hook| hook.mechanism == Mechanism::SystemCall;
            let told = HOOKS.iter().filter(|hook| by_calls(hook)).any(|h| h.types.contains(&kind));
            assert_eq!(kind.told_by_calls().is_some(), told, "{}", kind.name());
        }
    }

    #[test]
    fn a_set_gives_its_types_and_leaves_out_what_nobody_knows() {
        let set = EventType::PROCESS_EXIT.bit() | EventType::MEMORY_MAP.bit() | 1 << 63;
        let types: Vec<_> = EventType::of_set(set).collect();
        assert_eq!(types, [EventType::PROCESS_EXIT, EventType::MEMORY_MAP]);
    }
}
