// SPDX-License-Identifier: Apache-2.0
//! The interrupt descriptor table: each of its 256 vectors leads where the kernel's boot code had it
//! lead, and the processors use this table.
//!
//! Whoever owns a vector is called by the processor itself, before any code of the kernel. The table
//! is read-only, at an address that is the same in each boot (an alias in the cpu entry area); the
//! memory behind it is also `idt_table`, so both are read and compared. Where the code that vectors
//! lead to has been changed itself, the check of the text tells.

mod gate;
#[cfg(test)]
mod tests;
mod vectors;

use std::collections::BTreeSet;
use std::time::Duration;

use gate::{Gate, SIZE};
use kernel_memory::Kernel;
use vectors::{Expected, Fault};

use super::looks;
use crate::check::{About, Check, Missing, Outcome, System};
use crate::code;
use crate::evidence;
use crate::finding::Finding;
use crate::processor::{Feature, Features, READ_ONLY_IDT};
use crate::registers::DescriptorTable;

const PAUSE: Duration = Duration::from_millis(2);

/// 256 gates.
const LENGTH: usize = 256 * SIZE;

/// See the module.
#[derive(Debug, Default)]
pub struct Idt {
    expected: Vec<Expected>,
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wrong {
    /// A gate in the table at this address.
    Gate(u64, usize, Fault),
    /// The alias is other memory than the table, from this byte on.
    Alias(usize),
}

impl Check for Idt {
    fn name(&self) -> &'static str {
        "idt"
    }

    fn about(&self) -> About {
        About {
            needs: "the symbols of the entry code; idt_table (CONFIG_KALLSYMS_ALL) to compare the \
                    alias with; the processors' registers to know that they use this table",
            reads: "the interrupt descriptor table by both addresses that it has, and the \
                    processors' IDTR where it can be read",
            means: "an interrupt, an exception or an instruction of user mode leads to other code \
                    than the kernel's, or more of user mode can raise it",
            blind_to: "changes of the code that vectors lead to (the check of the text sees them); \
                       without registers, a processor that was given another table",
        }
    }

    fn run(&mut self, system: &System<'_>, outcome: &mut Outcome) -> Result<(), Missing> {
        let kernel = &system.kernel;
        if Features::read(kernel).is_ok_and(|features| features.has(Feature::FRED)) {
            return Err(Missing::because(
                "the processors enter the kernel by FRED, which has no vectors",
            ));
        }
        if self.expected.is_empty() {
            self.expected = vectors::expected(kernel)?;
        }
        let table = kernel.symbols.address_of("idt_table");
        if table.is_none() {
            outcome.reduced.push(
                "there is no symbol idt_table (CONFIG_KALLSYMS_ALL): the alias is not compared \
                 with it"
                    .to_owned(),
            );
        }
        let wrong = looks::lasting(PAUSE, || look(kernel, table, &self.expected))?;
        for one in &wrong {
            outcome.findings.push(match *one {
                Wrong::Gate(table, vector, fault) => self.gate(system, table, vector, fault)?,
                Wrong::Alias(offset) => alias(kernel, table.unwrap_or(0), offset)?,
            });
        }
        match system.registers.processors() {
            Ok(processors) => {
                let tables = processors.iter().map(|one| (one.number, one.idt));
                judge_registers(system, tables.collect(), outcome);
            }
            Err(missing) => outcome.reduced.push(format!("IDTR is not known: {}", missing.0)),
        }
        Ok(())
    }
}

fn read(kernel: &Kernel<'_>, address: u64) -> Result<Vec<u8>, Missing> {
    Ok(kernel.bytes_at(address, LENGTH)?)
}

fn look(
    kernel: &Kernel<'_>,
    table: Option<u64>,
    expected: &[Expected],
) -> Result<BTreeSet<Wrong>, Missing> {
    let seen = read(kernel, READ_ONLY_IDT)?;
    let mut wrong = BTreeSet::new();
    judge(&seen, READ_ONLY_IDT, expected, &mut wrong);
    if let Some(table) = table {
        let behind = read(kernel, table)?;
        if let Some(offset) = seen.iter().zip(&behind).position(|(a, b)| a != b) {
            wrong.insert(Wrong::Alias(offset));
            judge(&behind, table, expected, &mut wrong);
        }
    }
    Ok(wrong)
}

fn judge(bytes: &[u8], table: u64, expected: &[Expected], wrong: &mut BTreeSet<Wrong>) {
    let gates = bytes.as_chunks::<SIZE>().0.iter().map(|gate| Gate::decode(*gate));
    for (vector, (gate, expected)) in gates.zip(expected).enumerate() {
        if let Some(fault) = expected.judge(&gate) {
            wrong.insert(Wrong::Gate(table, vector, fault));
        }
    }
}

impl Idt {
    fn gate(
        &self,
        system: &System<'_>,
        table: u64,
        vector: usize,
        fault: Fault,
    ) -> Result<Finding, Missing> {
        let kernel = &system.kernel;
        let address = table + (vector * SIZE) as u64;
        let bytes = kernel.bytes_at(address, SIZE)?;
        let gate = Gate::decode(*bytes.first_chunk().unwrap_or(&[0; SIZE]));
        let text = evidence::text_of(system.baseline);
        let technique = match fault {
            Fault::Handler => "IDT vector redirected",
            Fault::Ring => "IDT gate opened to user mode",
            Fault::Form => "IDT gate changed",
        };
        Ok(Finding {
            check: "idt",
            symbol: Some("idt_table".to_owned()),
            offset: (vector * SIZE) as u64,
            address,
            expected: self.expected.get(vector).map(Expected::words).unwrap_or_default(),
            seen: format!(
                "gate of type {} to {}, ring {}, interrupt stack {}, segment {:#x}",
                gate.kind,
                code::name(kernel.symbols, text, gate.handler),
                gate.ring,
                gate.stack,
                gate.segment
            ),
            technique: technique.to_owned(),
            owner: None,
            evidence: vec![
                format!("vector {vector} ({vector:#x})"),
                format!("seen in each of {} looks", looks::LOOKS),
            ],
        })
    }
}

fn alias(kernel: &Kernel<'_>, table: u64, offset: usize) -> Result<Finding, Missing> {
    let at = offset / SIZE * SIZE;
    let show =
        |from: u64| Ok::<_, Missing>(code::hexadecimal(&kernel.bytes_at(from + at as u64, SIZE)?));
    Ok(Finding {
        check: "idt",
        symbol: Some("idt_table".to_owned()),
        offset: at as u64,
        address: READ_ONLY_IDT + at as u64,
        expected: format!("{} as in idt_table", show(table)?),
        seen: show(READ_ONLY_IDT)?,
        technique: "IDT mapped to other memory".to_owned(),
        owner: None,
        evidence: vec![format!("seen in each of {} looks", looks::LOOKS)],
    })
}

/// What the processors say of where their table is.
fn judge_registers(
    system: &System<'_>,
    tables: Vec<(u32, Option<DescriptorTable>)>,
    outcome: &mut Outcome,
) {
    let expected = DescriptorTable { base: READ_ONLY_IDT, limit: (LENGTH - 1) as u16 };
    let source = system.registers.source();
    if tables.iter().any(|(_, table)| table.is_none()) {
        outcome.reduced.push(format!("{source} does not tell each processor's IDTR"));
    }
    let others: Vec<_> =
        tables.iter().filter(|(_, table)| table.is_some_and(|table| table != expected)).collect();
    if others.is_empty() {
        return;
    }
    // The register is loaded once while booting; what is wrong is read again all the same.
    let again = system.registers.processors().unwrap_or_default();
    for (number, table) in others {
        let lasts = again.iter().any(|one| one.number == *number && one.idt == *table);
        let Some(table) = table.filter(|_| lasts) else { continue };
        outcome.findings.push(Finding {
            check: "idt",
            symbol: None,
            offset: 0,
            address: table.base,
            expected: format!("IDTR of {:#x}, limit {:#x}", expected.base, expected.limit),
            seen: format!("IDTR of {:#x}, limit {:#x}", table.base, table.limit),
            technique: "IDTR leads to another table".to_owned(),
            owner: None,
            evidence: vec![format!("processor {number}, read twice from {source}")],
        });
    }
}
