// SPDX-License-Identifier: Apache-2.0
//! The registers of processors that are looked at from outside.

use std::cell::RefCell;

use guard::Registers;
use guard::check::Missing;
use guard::registers::{DescriptorTable, Processor};
use kernel_memory::physical::QemuProcessor;
use qmp::Qmp;

/// Those of a guest that runs, as QEMU tells them.
pub(super) struct OfGuest {
    qmp: RefCell<Qmp>,
    may_pause: bool,
}

impl OfGuest {
    /// The guest is only paused for what cannot be had otherwise, and if it `may_pause`.
    pub(super) fn new(qmp: Qmp, may_pause: bool) -> Self {
        Self { qmp: RefCell::new(qmp), may_pause }
    }

    fn told(&self) -> Result<Vec<qmp::registers::Processor>, Missing> {
        let answer = self.qmp.borrow_mut().human("info registers -a").map_err(Missing::because)?;
        Ok(qmp::registers::parse(&answer))
    }
}

impl Registers for OfGuest {
    fn source(&self) -> &'static str {
        "QMP"
    }

    fn processors(&self) -> Result<Vec<Processor>, Missing> {
        let processors = self.told()?;
        let processors: Vec<Processor> =
            processors.iter().map(of_guest).filter(has_started).collect();
        if processors.is_empty() {
            return Err(Missing::because("QEMU's monitor tells of no processor"));
        }
        Ok(processors)
    }

    fn with_system_calls(&self) -> Result<Vec<Processor>, Missing> {
        if !self.may_pause {
            return self.processors();
        }
        let state = self.qmp.borrow_mut().device_state().map_err(Missing::because)?;
        let processors = self.told()?.into_iter().map(|told| {
            let calls = qmp::device_state::system_calls(&state, &told);
            Processor {
                lstar: calls.map(|calls| calls.lstar),
                cstar: calls.map(|calls| calls.cstar),
                sysenter: calls.map(|calls| calls.sysenter),
                ..of_guest(&told)
            }
        });
        Ok(processors.filter(has_started).collect())
    }
}

/// Whether a processor runs anything of a kernel of 64 bits, which takes paging: one that was never
/// started (`maxcpus=1`) is as the firmware left it.
fn has_started(processor: &Processor) -> bool {
    const PAGING: u64 = 1 << 31;
    processor.cr0.is_none_or(|cr0| cr0 & PAGING != 0)
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
        Self(processors.filter(has_started).collect())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_that_was_never_started_is_left_out_and_the_others_keep_their_numbers() {
        // As QEMU writes them: left by SeaBIOS, and at work in a 6.12 guest.
        let reset = QemuProcessor { cr0: 0x11, ..QemuProcessor::default() };
        let works = QemuProcessor { cr0: 0x8005_0033, ..QemuProcessor::default() };
        let processors = OfDump::new(&[works, reset, works]).processors().unwrap();
        let numbers: Vec<u32> = processors.iter().map(|processor| processor.number).collect();
        assert_eq!(numbers, [0, 2]);
    }
}
