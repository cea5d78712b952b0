// SPDX-License-Identifier: Apache-2.0
//! An event's own part together with the strings that it refers to.

use std::ops::Deref;

use crate::event::Part;
use crate::structures::*;

/// An event's own part: its fields by `Deref`, its strings by methods.
#[derive(Clone, Copy, Debug)]
pub struct View<'a, T> {
    bytes: &'a [u8],
    part: &'a T,
    rest: &'a [u8],
}

/// The bytes of a reference, or none.
pub(crate) fn text(bytes: &[u8], string: StringRef) -> &[u8] {
    let begin = string.offset as usize;
    let end = begin.saturating_add(usize::from(string.length));
    bytes.get(begin..end).unwrap_or_default()
}

/// Bytes up to the first zero, as the kernel keeps names in arrays.
fn up_to_zero(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

impl<T> Deref for View<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.part
    }
}

impl<'a, T: Part> View<'a, T> {
    /// `bytes` is the whole record; its strings were checked.
    pub(crate) fn new(bytes: &'a [u8], part: &'a T, rest: &'a [u8]) -> Self {
        Self { bytes, part, rest }
    }

    /// The fields, for as long as the record.
    pub fn part(&self) -> &'a T {
        self.part
    }

    /// What follows the fields that are known here: fields of a newer version, or nothing.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The bytes that a reference of the part stands for; empty where there is nothing.
    pub fn text(&self, string: StringRef) -> &'a [u8] {
        text(self.bytes, string)
    }
}

impl<'a> View<'a, ProcessExec> {
    /// Path of what runs.
    pub fn path(&self) -> &'a [u8] {
        self.text(self.part.file.path)
    }

    /// The script whose interpreter runs, or nothing.
    pub fn script(&self) -> &'a [u8] {
        self.text(self.part.script)
    }

    /// As the caller named the program.
    pub fn name(&self) -> &'a [u8] {
        self.text(self.part.name)
    }

    /// The arguments, the program's own name first.
    pub fn arguments(&self) -> Arguments<'a> {
        Arguments(self.text(self.part.arguments))
    }
}

impl<'a> View<'a, ProcessSignal> {
    /// Path of what the target runs.
    pub fn executable_path(&self) -> &'a [u8] {
        self.text(self.part.executable.path)
    }
}

impl<'a> View<'a, ProcessTrace> {
    /// Path of what the other process runs.
    pub fn executable_path(&self) -> &'a [u8] {
        self.text(self.part.executable.path)
    }
}

impl<'a> View<'a, ImageMap> {
    /// Path of what is mapped.
    pub fn path(&self) -> &'a [u8] {
        self.text(self.part.file.path)
    }
}

impl<'a> View<'a, ModuleLoad> {
    /// Path of the module, or nothing if it came from memory.
    pub fn path(&self) -> &'a [u8] {
        self.text(self.part.file.path)
    }

    /// Its name, or nothing if it is not known yet.
    pub fn name(&self) -> &'a [u8] {
        self.text(self.part.name)
    }
}

impl<'a> View<'a, ModuleUnload> {
    /// The module's name.
    pub fn name(&self) -> &'a [u8] {
        self.text(self.part.name)
    }
}

impl<'a> View<'a, BpfLoad> {
    /// The program's name, without zeroes.
    pub fn name(&self) -> &'a [u8] {
        up_to_zero(&self.part.name)
    }
}

impl<'a> View<'a, KernelLoad> {
    /// Path of the kernel or firmware, or nothing if it came from memory.
    pub fn path(&self) -> &'a [u8] {
        self.text(self.part.file.path)
    }

    /// Its name, or nothing.
    pub fn name(&self) -> &'a [u8] {
        self.text(self.part.name)
    }
}

impl<'a> View<'a, MemoryMap> {
    /// Path of what is mapped, or nothing for anonymous memory.
    pub fn path(&self) -> &'a [u8] {
        self.text(self.part.file.path)
    }
}

impl<'a> View<'a, MemoryProtect> {
    /// Path of what is mapped there, or nothing for anonymous memory.
    pub fn path(&self) -> &'a [u8] {
        self.text(self.part.file.path)
    }
}

impl<'a> View<'a, MemoryAccess> {
    /// Path of what the other process runs.
    pub fn executable_path(&self) -> &'a [u8] {
        self.text(self.part.executable.path)
    }
}

impl<'a> View<'a, MemoryFileless> {
    /// The path that the file had, as the kernel still has it.
    pub fn path(&self) -> &'a [u8] {
        self.text(self.part.file.path)
    }
}

impl<'a> View<'a, FileOpen> {
    /// Path of what is opened.
    pub fn path(&self) -> &'a [u8] {
        self.text(self.part.file.path)
    }
}

impl<'a> View<'a, FileModify> {
    /// Path of what may have changed.
    pub fn path(&self) -> &'a [u8] {
        self.text(self.part.file.path)
    }
}

impl View<'_, Loss> {
    /// Types of which records were lost, by number, and how many.
    pub fn types(&self) -> impl Iterator<Item = (u16, u32)> {
        (0..).zip(self.part.by_type).filter(|(_, records)| *records > 0)
    }
}

impl<'a> View<'a, StageChanged> {
    /// Why, for people.
    pub fn reason(&self) -> &'a [u8] {
        self.text(self.part.reason)
    }
}

impl<'a> View<'a, KernelFinding> {
    /// Name of the check.
    pub fn check(&self) -> &'a [u8] {
        self.text(self.part.check)
    }

    /// Name of the technique.
    pub fn technique(&self) -> &'a [u8] {
        self.text(self.part.technique)
    }

    /// The finding as JSON (docs/check-report.md).
    pub fn finding(&self) -> &'a [u8] {
        self.text(self.part.finding)
    }
}

impl Actor {
    /// Its name (`comm`), without zeroes.
    pub fn name(&self) -> &[u8] {
        up_to_zero(&self.comm)
    }
}

impl File {
    /// Whether it is a file at all: where there is none, all fields are zero.
    pub fn is_known(&self) -> bool {
        self.inode != 0
    }

    /// Its digest by fs-verity, with its `DIGEST_…` algorithm.
    pub fn verity_digest(&self) -> Option<(u32, &[u8; 32])> {
        (self.digest_algorithm != 0).then_some((self.digest_algorithm, &self.digest))
    }
}

/// Strings that follow each other, each ended by a zero.
#[derive(Clone, Copy, Debug)]
pub struct Arguments<'a>(&'a [u8]);

impl<'a> Iterator for Arguments<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.0.is_empty() {
            return None;
        }
        // The last one has no zero where the list is truncated.
        let end = self.0.iter().position(|byte| *byte == 0).unwrap_or(self.0.len());
        let (argument, rest) = self.0.split_at(end);
        self.0 = rest.get(1..).unwrap_or_default();
        Some(argument)
    }
}
