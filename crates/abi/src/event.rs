// SPDX-License-Identifier: Apache-2.0
//! What was done: the types of events and the part that each has.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::names::EventType;
use crate::record::{Frame, RecordError};
use crate::structures::*;
use crate::view::View;

/// What was done. There will be more.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A program is executed.
    ProcessExec(View<'a, ProcessExec>),
    /// A process is made.
    ProcessFork(View<'a, ProcessFork>),
    /// A process has ended.
    ProcessExit(View<'a, ProcessExit>),
    /// A signal is sent.
    ProcessSignal(View<'a, ProcessSignal>),
    /// A process wants to see into another, or to change it.
    ProcessTrace(View<'a, ProcessTrace>),
    /// The credentials of the actor change.
    ProcessCredentials(View<'a, ProcessCredentials>),
    /// A thread is made.
    ThreadCreate(View<'a, ProcessFork>),
    /// A file is mapped executable.
    ImageMap(View<'a, ImageMap>),
    /// A module is loaded.
    ModuleLoad(View<'a, ModuleLoad>),
    /// A module is unloaded.
    ModuleUnload(View<'a, ModuleUnload>),
    /// A BPF program is loaded.
    BpfLoad(View<'a, BpfLoad>),
    /// Another kernel is loaded for kexec.
    KexecLoad(View<'a, KernelLoad>),
    /// Firmware is loaded.
    FirmwareLoad(View<'a, KernelLoad>),
    /// Memory is mapped executable.
    MemoryMap(View<'a, MemoryMap>),
    /// The protection of memory changes to executable.
    MemoryProtect(View<'a, MemoryProtect>),
    /// One process reads or writes the memory of another.
    MemoryAccess(View<'a, MemoryAccess>),
    /// A file without a name is executed or mapped executable.
    MemoryFileless(View<'a, MemoryFileless>),
    /// A file is opened.
    FileOpen(View<'a, FileOpen>),
    /// What is in a file may have changed.
    FileModify(View<'a, FileModify>),
    /// A finding of the guard.
    KernelFinding(View<'a, KernelFinding>),
    /// Records did not reach this client.
    Loss(View<'a, Loss>),
    /// A verdict of this client came too late or not at all.
    DeadlineMissed(View<'a, DeadlineMissed>),
    /// What can be had of an event changed.
    StageChanged(View<'a, StageChanged>),
    /// The session ends.
    ShuttingDown(View<'a, ShuttingDown>),
    /// A type that has no part known here: to be skipped.
    Unknown {
        /// `header.type`.
        event_type: u16,
        /// Its part, and its tail too if the record does not say where that begins.
        part: &'a [u8],
    },
}

/// The part of an event: which of its fields are strings.
///
/// Implemented for the structures of `api/ringfence.h` only.
pub trait Part: FromBytes + IntoBytes + KnownLayout + Immutable + sealed::Sealed {
    /// Each string that it refers to, with the name of the field.
    fn strings(&self) -> impl Iterator<Item = (&'static str, StringRef)>;
}

mod sealed {
    /// Nobody else can add parts: a part is what the header file says.
    pub trait Sealed {}
}

/// The strings of a part, by their fields, and nothing else.
macro_rules! parts {
    ($($part:ty: $($($field:ident).+),*;)*) => {$(
        impl sealed::Sealed for $part {}
        impl Part for $part {
            fn strings(&self) -> impl Iterator<Item = (&'static str, StringRef)> {
                [$((stringify!($($field).+), self.$($field).+)),*].into_iter()
            }
        }
    )*};
}

parts! {
    ProcessExec: file.path, script, name, arguments;
    ProcessFork: ;
    ProcessExit: ;
    ProcessSignal: executable.path;
    ProcessTrace: executable.path;
    ProcessCredentials: ;
    ImageMap: file.path;
    ModuleLoad: file.path, name;
    ModuleUnload: name;
    BpfLoad: ;
    KernelLoad: file.path, name;
    MemoryMap: file.path;
    MemoryProtect: file.path;
    MemoryAccess: executable.path;
    MemoryFileless: file.path;
    FileOpen: file.path;
    FileModify: file.path;
    Loss: ;
    DeadlineMissed: ;
    StageChanged: reason;
    ShuttingDown: ;
    KernelFinding: check, technique, finding;
}

impl<'a> Event<'a> {
    /// The event of a record, and where the record's tail begins.
    pub(crate) fn decode(number: u16, frame: Frame<'a>) -> Result<(Self, usize), RecordError> {
        use EventType as Type;

        let unknown = Self::Unknown { event_type: number, part: frame.part };
        // Where a record of an unknown type does not say where its tail begins, it can only be
        // held against the place where its part does.
        let tail = frame.tail.unwrap_or(frame.bytes.len() - frame.part.len());
        let Some(event) = EventType::from_number(number) else { return Ok((unknown, tail)) };
        match event {
            Type::ProcessExec => view(event, frame, Self::ProcessExec),
            Type::ProcessFork => view(event, frame, Self::ProcessFork),
            Type::ProcessExit => view(event, frame, Self::ProcessExit),
            Type::ProcessSignal => view(event, frame, Self::ProcessSignal),
            Type::ProcessTrace => view(event, frame, Self::ProcessTrace),
            Type::ProcessCredentials => view(event, frame, Self::ProcessCredentials),
            Type::ThreadCreate => view(event, frame, Self::ThreadCreate),
            Type::ImageMap => view(event, frame, Self::ImageMap),
            Type::ModuleLoad => view(event, frame, Self::ModuleLoad),
            Type::ModuleUnload => view(event, frame, Self::ModuleUnload),
            Type::BpfLoad => view(event, frame, Self::BpfLoad),
            Type::KexecLoad => view(event, frame, Self::KexecLoad),
            Type::FirmwareLoad => view(event, frame, Self::FirmwareLoad),
            Type::MemoryMap => view(event, frame, Self::MemoryMap),
            Type::MemoryProtect => view(event, frame, Self::MemoryProtect),
            Type::MemoryAccess => view(event, frame, Self::MemoryAccess),
            Type::MemoryFileless => view(event, frame, Self::MemoryFileless),
            Type::FileOpen => view(event, frame, Self::FileOpen),
            Type::FileModify => view(event, frame, Self::FileModify),
            Type::KernelFinding => view(event, frame, Self::KernelFinding),
            Type::Loss => view(event, frame, Self::Loss),
            Type::DeadlineMissed => view(event, frame, Self::DeadlineMissed),
            Type::StageChanged => view(event, frame, Self::StageChanged),
            Type::ShuttingDown => view(event, frame, Self::ShuttingDown),
            // Their numbers are taken; what their parts hold is not settled yet.
            Type::TamperAttempt | Type::KernelLockDenied => Ok((unknown, tail)),
        }
    }
}

impl Event<'_> {
    /// Shows each string of the event's own part with the name of its field, as in C. For whoever
    /// treats all of them alike.
    pub fn strings(&self, visit: &mut dyn FnMut(&'static str, StringRef)) {
        match self {
            Self::ProcessExec(view) => each(view.part(), visit),
            Self::ProcessFork(view) | Self::ThreadCreate(view) => each(view.part(), visit),
            Self::ProcessExit(view) => each(view.part(), visit),
            Self::ProcessSignal(view) => each(view.part(), visit),
            Self::ProcessTrace(view) => each(view.part(), visit),
            Self::ProcessCredentials(view) => each(view.part(), visit),
            Self::ImageMap(view) => each(view.part(), visit),
            Self::ModuleLoad(view) => each(view.part(), visit),
            Self::ModuleUnload(view) => each(view.part(), visit),
            Self::BpfLoad(view) => each(view.part(), visit),
            Self::KexecLoad(view) | Self::FirmwareLoad(view) => each(view.part(), visit),
            Self::MemoryMap(view) => each(view.part(), visit),
            Self::MemoryProtect(view) => each(view.part(), visit),
            Self::MemoryAccess(view) => each(view.part(), visit),
            Self::MemoryFileless(view) => each(view.part(), visit),
            Self::FileOpen(view) => each(view.part(), visit),
            Self::FileModify(view) => each(view.part(), visit),
            Self::KernelFinding(view) => each(view.part(), visit),
            Self::Loss(view) => each(view.part(), visit),
            Self::DeadlineMissed(view) => each(view.part(), visit),
            Self::StageChanged(view) => each(view.part(), visit),
            Self::ShuttingDown(view) => each(view.part(), visit),
            Self::Unknown { .. } => {}
        }
    }
}

fn each(part: &impl Part, visit: &mut dyn FnMut(&'static str, StringRef)) {
    for (field, string) in part.strings() {
        visit(field, string);
    }
}

fn view<'a, T: Part + 'a>(
    event: EventType,
    frame: Frame<'a>,
    make: impl FnOnce(View<'a, T>) -> Event<'a>,
) -> Result<(Event<'a>, usize), RecordError> {
    let (length, needed) = (frame.part.len(), size_of::<T>());
    // The frame is aligned and so is the start of the part; so this fails for its length only.
    let (part, rest) = T::ref_from_prefix(frame.part).map_err(|_| RecordError::PartTooShort {
        event,
        length,
        needed,
    })?;
    let (tail, rest) = match frame.tail {
        Some(tail) => (tail, rest),
        None => (frame.bytes.len() - rest.len(), &rest[..0]),
    };
    for (field, string) in part.strings() {
        frame.check(field, string, tail)?;
    }
    Ok((make(View::new(frame.bytes, part, rest)), tail))
}
