// SPDX-License-Identifier: Apache-2.0
//! The control registers that protect the kernel: write protection, SMEP, SMAP, UMIP, no-execute.
//!
//! An attacker switches them off for a moment to write where he must not, or for good. CR4 does not
//! stay as he writes it: the kernel writes it anew from its copy (`cpu_tlbstate.cr4`) when it changes
//! a bit and, where there is no INVPCID, with each global flush of translations, and
//! `native_write_cr4` puts in what is pinned (`cr4_pinned_bits`, while the key `cr_pinning` is on;
//! arch/x86/kernel/cpu/common.c and arch/x86/mm/tlb.c, 6.1 to 7.3). Whoever wants it off for good
//! changes these as well, and they are memory. So each is held against what the kernel uses, and the
//! true values, where registers can be read, against both; where they cannot, the report says so.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
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
    /// Whether they are pinned at all: the count of the key `cr_pinning`.
    Pinning,
}

/// A register that lacks bits: of which processor, which register, which bits. What else it holds may
/// change from look to look: a task switch sets and clears CR4.TSD.
type Lack = (u32, Of, u64);

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
            reads: "CR0, CR4 and EFER of each processor, cr4_pinned_bits, cr_pinning, \
                    cpu_tlbstate.cr4",
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
            let pinned = pinned(kernel, &must, &mut lacks, &mut told);
            let must = Must { cr4: must.cr4 | pinned, ..must };
            of_processors(system.registers, &must, &mut lacks, &mut told);
            if let Ok(online) = online(kernel) {
                told.all_of(online.len(), system.registers.source());
            }
            of_memory(kernel, &must, &mut lacks, &mut told);
            Ok(lacks)
        })?;
        if told.values == 0 {
            return Err(Missing(told.missing.join("; ")));
        }
        outcome.reduced.append(&mut told.missing);
        let held = |&(number, of, _): &Lack| told.held.get(&(number, of)).copied().unwrap_or(0);
        outcome.findings.extend(lacks.iter().map(|lack| finding(system, *lack, held(lack))));
        Ok(())
    }
}

/// How much could be looked at.
#[derive(Debug, Default)]
struct Told {
    values: u32,
    /// What those that lack bits hold.
    held: BTreeMap<(u32, Of), u64>,
    processors: usize,
    missing: Vec<String>,
}

impl Told {
    /// Says it where a source tells of fewer processors than are online: the others were not looked at.
    fn all_of(&mut self, online: usize, source: &str) {
        if (1..online).contains(&self.processors) {
            self.missing
                .push(format!("{source} tells of {} of {online} processors", self.processors));
        }
    }
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
    told.processors = processors.len();
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
            lacking(number, of, value, bits, lacks, told);
        }
    }
}

/// What is pinned, which each processor must have; nothing where it cannot be read.
fn pinned(kernel: &Kernel<'_>, must: &Must, lacks: &mut BTreeSet<Lack>, told: &mut Told) -> u64 {
    let read = || -> Result<(u64, u64), Missing> {
        let pins = kernel.u64_at(kernel.symbol("cr4_pinned_bits")?)?;
        let count =
            kernel.symbol("cr_pinning")?.wrapping_add(kernel.offset_of("static_key", "enabled")?);
        Ok((pins, u64::from(kernel.u32_at(count)?)))
    };
    match read() {
        Ok((pins, count)) => {
            lacking(0, Of::Pins, pins, must.cr4, lacks, told);
            // Once set while booting, together with the bits, and never again.
            lacking(0, Of::Pinning, u64::from(count > 0), 1, lacks, told);
            pins & PINNED.iter().fold(0, |bits, (bit, _)| bits | bit)
        }
        Err(missing) => {
            told.missing.push(format!("pinned bits of CR4: {}", missing.0));
            0
        }
    }
}

/// What memory remembers.
fn of_memory(kernel: &Kernel<'_>, must: &Must, lacks: &mut BTreeSet<Lack>, told: &mut Told) {
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
                lacking(number, Of::Shadow, value, must.cr4, lacks, told);
            }
        }
        Err(missing) => told.missing.push(format!("what memory remembers of CR4: {}", missing.0)),
    }
}

fn lacking(
    number: u32,
    of: Of,
    value: u64,
    must: u64,
    lacks: &mut BTreeSet<Lack>,
    told: &mut Told,
) {
    told.values += 1;
    let lack = must & !value;
    if lack != 0 {
        told.held.insert((number, of), value);
        lacks.insert((number, of, lack));
    }
}

fn finding(system: &System<'_>, (number, of, lack): Lack, value: u64) -> Finding {
    let names: &[(u64, &str)] = match of {
        Of::Cr0 => &[PROTECTED_MODE, WRITE_PROTECTION, PAGING],
        Of::Efer => &[SYSTEM_CALLS, LONG_MODE, NO_EXECUTE],
        Of::Cr4 | Of::Shadow | Of::Pins => &PINNED,
        Of::Pinning => &[(1, "bits pinned")],
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
        Of::Pinning => ("cr_pinning", "pinning of CR4 switched off", memory),
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
            match of {
                Of::Pins | Of::Pinning => format!("for all processors, read by {place}"),
                _ => format!("processor {number}, read by {place}"),
            },
            format!("seen in each of {} looks", looks::LOOKS),
        ],
    }
}
