// SPDX-License-Identifier: Apache-2.0
//! The global descriptor tables: each processor's has the kernel's segments, its task state segment
//! and what user mode may ask for, and nothing else.
//!
//! A call gate or a code segment that user mode can load is a way into ring 0 that no table of the
//! kernel knows of. A processor's table is `gdt_page`, and what the processor uses is a read-only
//! alias of that memory in its cpu entry area (arch/x86/mm/cpu_entry_area.c, 6.1 to 7.3).

mod descriptor;

use std::collections::BTreeSet;
use std::time::Duration;

use descriptor::{ENTRIES, Fault};
use kernel_memory::Kernel;

use super::looks;
use crate::check::{About, Check, Missing, Outcome, System};
use crate::finding::Finding;
use crate::processor::{ENTRY_AREA_SIZE, READ_ONLY_IDT, online, per_cpu_variable};

const PAUSE: Duration = Duration::from_millis(2);

/// See the module.
#[derive(Debug, Default)]
pub struct Gdt;

/// An entry that is not as it must be: of which processor, in the table at which address.
type Wrong = (u32, u64, usize, Fault);

impl Check for Gdt {
    fn name(&self) -> &'static str {
        "gdt"
    }

    fn about(&self) -> About {
        About {
            needs: "gdt_page and cea_exception_stacks (CONFIG_KALLSYMS_ALL and BTF), or the processors' \
                    registers",
            reads: "the global descriptor table of each processor by both addresses that it has, \
                    and GDTR where it can be read",
            means: "there is a gate or a segment that the kernel does not make: a way into ring 0",
            blind_to: "without registers, a processor that was given another table; local \
                       descriptor tables",
        }
    }

    fn run(&mut self, system: &System<'_>, outcome: &mut Outcome) -> Result<(), Missing> {
        let kernel = &system.kernel;
        let registers = match system.registers.processors() {
            Ok(processors) => processors,
            Err(missing) => {
                outcome.reduced.push(format!("GDTR is not known: {}", missing.0));
                Vec::new()
            }
        };
        let area = READ_ONLY_IDT..READ_ONLY_IDT + ENTRY_AREA_SIZE;
        let mut tables = tables(kernel);
        for (number, table) in registers.iter().filter_map(|one| Some((one.number, one.gdt?))) {
            let sound = area.contains(&table.base) && usize::from(table.limit) == 8 * ENTRIES - 1;
            if !sound {
                outcome.findings.push(redirected(system, number, table.base, table.limit));
            }
            match &mut tables {
                Ok(known) if known.contains(&(number, table.base)) => {}
                Ok(known) => known.push((number, table.base)),
                Err(_) => tables = Ok(vec![(number, table.base)]),
            }
        }
        let tables = tables?;
        let wrong = looks::lasting(PAUSE, || look(kernel, &tables))?;
        outcome.findings.extend(wrong.iter().map(|wrong| finding(kernel, *wrong)));
        Ok(())
    }
}

/// Each processor's table, by both of its addresses.
fn tables(kernel: &Kernel<'_>) -> Result<Vec<(u32, u64)>, Missing> {
    let page = per_cpu_variable(kernel, "gdt_page")?;
    let stacks = per_cpu_variable(kernel, "cea_exception_stacks")?;
    let within = kernel.offset_of("cpu_entry_area", "estacks")?;
    let mut tables = Vec::new();
    for number in online(kernel)? {
        tables.push((number, kernel.per_cpu(page, number)?));
        // The alias is the first page of the area that has the processor's exception stacks.
        let stacks = kernel.u64_at(kernel.per_cpu(stacks, number)?)?;
        tables.push((number, stacks.wrapping_sub(within)));
    }
    Ok(tables)
}

fn look(kernel: &Kernel<'_>, tables: &[(u32, u64)]) -> Result<BTreeSet<Wrong>, Missing> {
    let ranges: Vec<(u64, u32)> =
        tables.iter().map(|(_, table)| (*table, 8 * ENTRIES as u32)).collect();
    let read = kernel.memory.read_many(&ranges);
    let mut wrong = BTreeSet::new();
    for ((number, table), bytes) in tables.iter().zip(read) {
        let bytes = bytes?;
        let entries: Vec<u64> =
            bytes.as_chunks::<8>().0.iter().map(|entry| u64::from_le_bytes(*entry)).collect();
        let faults = descriptor::judge(&entries).into_iter();
        wrong.extend(faults.map(|(entry, fault)| (*number, *table, entry, fault)));
    }
    Ok(wrong)
}

fn finding(kernel: &Kernel<'_>, (number, table, entry, fault): Wrong) -> Finding {
    let address = table + 8 * entry as u64;
    let seen = kernel.u64_at(address).unwrap_or(0);
    let technique = match fault {
        Fault::Gate => "gate placed in the GDT",
        Fault::Other => "GDT entry changed",
    };
    Finding {
        check: "gdt",
        symbol: Some("gdt_page".to_owned()),
        offset: 8 * entry as u64,
        address,
        expected: descriptor::words(entry).to_owned(),
        seen: format!("{seen:#018x}"),
        technique: technique.to_owned(),
        owner: None,
        evidence: vec![
            format!("entry {entry} of processor {number}"),
            format!("seen in each of {} looks", looks::LOOKS),
        ],
    }
}

fn redirected(system: &System<'_>, number: u32, base: u64, limit: u16) -> Finding {
    Finding {
        check: "gdt",
        symbol: None,
        offset: 0,
        address: base,
        expected: format!("GDTR in the cpu entry area, limit {:#x}", 8 * ENTRIES - 1),
        seen: format!("GDTR of {base:#x}, limit {limit:#x}"),
        technique: "GDTR leads to another table".to_owned(),
        owner: None,
        evidence: vec![format!("processor {number}, from {}", system.registers.source())],
    }
}
