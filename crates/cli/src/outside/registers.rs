// SPDX-License-Identifier: Apache-2.0
//! The registers of processors that are looked at from outside.

use std::cell::RefCell;

use guard::Registers;
use guard::check::Missing;
use guard::registers::{DescriptorTable, Processor};
use kernel_memory::physical::QemuProcessor;
use qmp::Qmp;

/// Those of a guest that runs, as QEMU tells them.
pub(super) struct OfGuest(RefCell<Qmp>);

impl OfGuest {
    pub(super) fn new(qmp: Qmp) -> Self {
        Self(RefCell::new(qmp))
    }
}

impl Registers for OfGuest {
    fn source(&self) -> &'static str {
        "QMP"
    }

    fn processors(&self) -> Result<Vec<Processor>, Missing> {
        let answer = self.0.borrow_mut().human("info registers -a").map_err(Missing::because)?;
        let processors: Vec<Processor> =
            qmp::registers::parse(&answer).iter().map(of_guest).collect();
        if processors.is_empty() {
            return Err(Missing::because("QEMU's monitor tells of no processor"));
        }
        Ok(processors)
    }
}

fn of_guest(seen: &qmp::registers::Processor) -> Processor {
    Processor {
        number: seen.number,
        cr0: seen.cr0,
        cr3: seen.cr3,
        cr4: seen.cr4,
        efer: seen.efer,
        gdt: seen.gdt.map(table),
        idt: seen.idt.map(table),
        ..Processor::default()
    }
}

fn table((base, limit): (u64, u16)) -> DescriptorTable {
    DescriptorTable { base, limit }
}

/// Those that QEMU wrote into a dump.
pub(super) struct OfDump(Vec<Processor>);

impl OfDump {
    pub(super) fn new(processors: &[QemuProcessor]) -> Self {
        let numbered = (0..).zip(processors);
        let processors = numbered.map(|(number, seen)| Processor {
            number,
            cr0: Some(seen.cr0),
            cr3: Some(seen.cr3),
            cr4: Some(seen.cr4),
            gdt: Some(table(seen.gdt)),
            idt: Some(table(seen.idt)),
            ..Processor::default()
        });
        Self(processors.collect())
    }
}

impl Registers for OfDump {
    fn source(&self) -> &'static str {
        "notes of the dump"
    }

    fn processors(&self) -> Result<Vec<Processor>, Missing> {
        match self.0.as_slice() {
            [] => Err(Missing::because(
                "the dump has no notes with the control registers of the processors; those of \
                 QEMU's dump-guest-memory have",
            )),
            processors => Ok(processors.to_vec()),
        }
    }
}
