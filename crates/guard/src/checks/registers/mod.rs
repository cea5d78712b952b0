// SPDX-License-Identifier: Apache-2.0
//! The control registers that protect the kernel: write protection, SMEP, SMAP, UMIP, no-execute.
//!
//! An attacker switches them off for a moment to write where he must not, or for good. The kernel
//! pins what it can (`cr4_pinned_bits`, arch/x86/kernel/cpu/common.c), which binds its own functions
//! and not him. True values come from where the registers can be read; otherwise only what memory
//! remembers of CR4 (`cpu_tlbstate.cr4`) is looked at, and the report says so.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::time::Duration;

use kernel_memory::Kernel;

use super::looks;
use crate::check::{About, Check, Missing, Outcome, System};
use crate::finding::Finding;
use crate::processor::{Feature, Features, online, per_cpu_variable};
use crate::registers::{Processor, Registers};

const PAUSE: Duration = Duration::from_millis(2);

/// Bits of CR0, CR4 and EFER (arch/x86/include/uapi/asm/processor-flags.h and asm/msr-index.h).
const PROTECTED_MODE: (u64, &str) = (1 << 0, "PE");
const WRITE_PROTECTION: (u64, &str) = (1 << 16, "WP");
const PAGING: (u64, &str) = (1 << 31, "PG");
const UMIP: (u64, &str) = (1 << 11, "UMIP");
const FSGSBASE: (u64, &str) = (1 << 16, "FSGSBASE");
const SMEP: (u64, &str) = (1 << 20, "SMEP");
const SMAP: (u64, &str) = (1 << 21, "SMAP");
const CET: (u64, &str) = (1 << 23, "CET");
const FRED: (u64, &str) = (1 << 32, "FRED");
const SYSTEM_CALLS: (u64, &str) = (1 << 0, "SCE");
const LONG_MODE: (u64, &str) = (1 << 8, "LME");
const NO_EXECUTE: (u64, &str) = (1 << 11, "NXE");

/// `cr4_pinned_mask`; CET and FRED are pinned where they are on.
const PINNED: [(u64, &str); 6] = [UMIP, FSGSBASE, SMEP, SMAP, CET, FRED];

/// See the module.
#[derive(Debug, Default)]
pub struct ControlRegisters;

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Of {
    Cr0,
    Cr4,
    Efer,
    /// What memory remembers of CR4.
    Shadow,
    /// `cr4_pinned_bits`.
    Pins,
}

/// A register that lacks bits: of which processor, which register, what it holds, what it lacks.
type Lack = (u32, Of, u64, u64);

/// What must be set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Must {
    cr0: u64,
    cr4: u64,
    efer: u64,
}

impl Check for ControlRegisters {
    fn name(&self) -> &'static str {
        "registers"
    }

    fn about(&self) -> About {
        About {
            needs: "a source of the processors' registers (from outside, or the msr driver and a \
                    processor without UMIP); for what memory remembers CONFIG_KALLSYMS_ALL",
            reads: "CR0, CR4 and EFER of each processor, cr4_pinned_bits, cpu_tlbstate.cr4",
            means: "write protection, SMEP, SMAP, UMIP or no-execute is off although the kernel \
                    uses it",
            blind_to: "what is off for a moment only; without a source, all but what memory \
                       remembers, which those who write to registers leave alone",
        }
    }

    fn run(&mut self, system: &System<'_>, outcome: &mut Outcome) -> Result<(), Missing> {
        let kernel = &system.kernel;
        let must = must(kernel, outcome);
        let mut told = Told::default();
        let lacks = looks::lasting(PAUSE, || {
            told = Told::default();
            let mut lacks = BTreeSet::new();
            of_processors(system.registers, &must, &mut lacks, &mut told);
            of_memory(kernel, &must, &mut lacks, &mut told);
            Ok(lacks)
        })?;
        if told.values == 0 {
            return Err(Missing(told.missing.join("; ")));
        }
        outcome.reduced.append(&mut told.missing);
        outcome.findings.extend(lacks.iter().map(|lack| finding(system, *lack)));
        Ok(())
    }
}

/// How much could be looked at.
#[derive(Debug, Default)]
struct Told {
    values: u32,
    missing: Vec<String>,
}

/// What follows from what the kernel uses, or, where that cannot be read, what each has.
fn must(kernel: &Kernel<'_>, outcome: &mut Outcome) -> Must {
    let mut must = Must {
        cr0: PROTECTED_MODE.0 | WRITE_PROTECTION.0 | PAGING.0,
        cr4: 0,
        efer: SYSTEM_CALLS.0 | LONG_MODE.0,
    };
    match Features::read(kernel) {
        Ok(features) => {
            let used = [
                (Feature::SMEP, SMEP),
                (Feature::SMAP, SMAP),
                (Feature::UMIP, UMIP),
                (Feature::FSGSBASE, FSGSBASE),
            ];
            let used = used.iter().filter(|(feature, _)| features.has(*feature));
            must.cr4 = used.fold(0, |bits, (_, (bit, _))| bits | bit);
            if features.has(Feature::NX) {
                must.efer |= NO_EXECUTE.0;
            }
        }
        Err(missing) => outcome
            .reduced
            .push(format!("which features the kernel uses is not known: {}", missing.0)),
    }
    must
}

/// A register of a processor.
type Value = fn(&Processor) -> Option<u64>;

/// What the source tells.
fn of_processors(
    registers: &dyn Registers,
    must: &Must,
    lacks: &mut BTreeSet<Lack>,
    told: &mut Told,
) {
    let processors = match registers.processors() {
        Ok(processors) => processors,
        Err(missing) => {
            told.missing.push(format!("no true values: {}", missing.0));
            return;
        }
    };
    let registers_of: [(Of, Value, u64, &str); 3] = [
        (Of::Cr0, |one| one.cr0, must.cr0, "CR0"),
        (Of::Cr4, |one| one.cr4, must.cr4, "CR4"),
        (Of::Efer, |one| one.efer, must.efer, "EFER"),
    ];
    for (of, value, bits, name) in registers_of {
        let values = processors.iter().map(|one| Some((one.number, value(one)?)));
        let values: Vec<Option<(u32, u64)>> = values.collect();
        if values.iter().any(Option::is_none) {
            told.missing.push(format!("{} does not tell {name}", registers.source()));
        }
        for (number, value) in values.into_iter().flatten() {
            told.values += 1;
            lacking(number, of, value, bits, lacks);
        }
    }
}

/// What memory remembers.
fn of_memory(kernel: &Kernel<'_>, must: &Must, lacks: &mut BTreeSet<Lack>, told: &mut Told) {
    let mut wanted = must.cr4;
    let pins = kernel.symbol("cr4_pinned_bits").and_then(|at| kernel.u64_at(at));
    match pins {
        Ok(pins) => {
            told.values += 1;
            let pinnable = PINNED.iter().fold(0, |bits, (bit, _)| bits | bit);
            lacking(0, Of::Pins, pins, wanted, lacks);
            wanted |= pins & pinnable;
        }
        Err(error) => told.missing.push(format!("pinned bits of CR4: {error}")),
    }
    let shadows = || -> Result<Vec<(u32, u64)>, Missing> {
        let variable = per_cpu_variable(kernel, "cpu_tlbstate")?;
        let at = kernel.offset_of("tlb_state", "cr4")?;
        let each = online(kernel)?.into_iter().map(|number| {
            let state = kernel.per_cpu(variable, number)?;
            Ok((number, kernel.u64_at(state.wrapping_add(at))?))
        });
        each.collect()
    };
    match shadows() {
        Ok(shadows) => {
            for (number, value) in shadows {
                told.values += 1;
                lacking(number, Of::Shadow, value, wanted, lacks);
            }
        }
        Err(missing) => told.missing.push(format!("what memory remembers of CR4: {}", missing.0)),
    }
}

fn lacking(number: u32, of: Of, value: u64, must: u64, lacks: &mut BTreeSet<Lack>) {
    let lack = must & !value;
    if lack != 0 {
        lacks.insert((number, of, value, lack));
    }
}

fn finding(system: &System<'_>, (number, of, value, lack): Lack) -> Finding {
    let names: &[(u64, &str)] = match of {
        Of::Cr0 => &[PROTECTED_MODE, WRITE_PROTECTION, PAGING],
        Of::Efer => &[SYSTEM_CALLS, LONG_MODE, NO_EXECUTE],
        Of::Cr4 | Of::Shadow | Of::Pins => &PINNED,
    };
    let names: Vec<&str> =
        names.iter().filter(|(bit, _)| lack & bit != 0).map(|(_, name)| *name).collect();
    let names = names.join(", ");
    let source = system.registers.source();
    let memory = system.kernel.memory.name();
    let (register, technique, place) = match of {
        Of::Cr0 => ("CR0", "protection switched off in CR0", source),
        Of::Cr4 => ("CR4", "protection switched off in CR4", source),
        Of::Efer => ("EFER", "protection switched off in EFER", source),
        Of::Shadow => ("cpu_tlbstate.cr4", "protection switched off in CR4", memory),
        Of::Pins => ("cr4_pinned_bits", "pinned bits of CR4 changed", memory),
    };
    Finding {
        check: "registers",
        symbol: None,
        offset: 0,
        address: 0,
        expected: format!("{register} with {names}"),
        seen: format!("{register} = {value:#x}, without {names}"),
        technique: format!("{technique} ({names})"),
        owner: None,
        evidence: vec![
            format!("processor {number}, read by {place}"),
            format!("seen in each of {} looks", looks::LOOKS),
        ],
    }
}
