// SPDX-License-Identifier: Apache-2.0
//! The same memory by each path there is.
//!
//! A rootkit that hooks `copy_from_kernel_nofault` answers readers with the bytes that used to be
//! there. It cannot answer loads that are compiled into the reader. So a difference between the
//! paths is itself the proof that somebody lies. What is compared is first the code that the
//! guard's own reading goes through, then a sample of the text that moves on with each pass.
//!
//! And nobody is to be called where that code begins, by whatever legitimate interface: such a hook
//! on a function that reads kernel memory or hands it to user space is there to change what it says.

use std::collections::BTreeSet;
use std::time::Duration;

use kernel_memory::KernelMemory;

use crate::baseline::RegionKind;
use crate::batch::Places;
use crate::check::{About, Check, Missing, Outcome, System};
use crate::code;
use crate::compare::Differences;
use crate::evidence;
use crate::finding::Finding;
use crate::kprobes;
use crate::owners::{Owner, Owners};
use crate::patience::Change;
use crate::recover::Recovered;

use super::looks;
use super::settle::{Settled, settle};

/// Functions that the guard's reading goes through, by names or beginnings of names: the bpf system
/// call and its test runs, the copying helpers, the handling of their faults, the journal, and the
/// mapping that gives the bytes to user space.
const CHAIN: [&str; 24] = [
    "__x64_sys_bpf",
    "__sys_bpf",
    "bpf_prog_test_run_syscall",
    "__bpf_prog_run",
    "__bpf_prog_enter_sleepable",
    "copy_from_kernel_nofault",
    "copy_from_kernel_nofault_allowed",
    "bpf_probe_read_kernel",
    "bpf_probe_read_kernel_common",
    "bpf_probe_read_compat",
    "fixup_exception",
    "ex_handler_",
    "search_exception_tables",
    "search_extable",
    "search_bpf_extables",
    "perf_event_text_poke",
    "perf_event_ksymbol",
    "perf_mmap",
    "array_map_mmap",
    "array_map_lookup_elem",
    "bpf_map_mmap",
    "kallsyms_lookup_name",
    "read_kcore_iter",
    "vread_iter",
];

/// A call with a distance of four bytes.
const CALL: u8 = 0xe8;

/// A text poke is over by then.
const PAUSE: Duration = Duration::from_millis(2);

/// How much of the text is read in one pass by each path.
const SAMPLE: u64 = 256 << 10;

/// A function without a next symbol nearby is read for this long.
const FUNCTION_LIMIT: u64 = 16 << 10;

/// The check.
#[derive(Debug, Default)]
pub struct ReadPaths {
    next: u64,
    chain: Vec<(u64, u64)>,
    recovered: Recovered,
}

impl Check for ReadPaths {
    fn name(&self) -> &'static str {
        "read_paths"
    }

    fn about(&self) -> About {
        About {
            needs: "a second path to kernel memory: the bpf_probe_read_kernel helper or /proc/kcore",
            reads: "the functions that reading goes through, and 256 KiB of text that move on with \
                    each pass, by each path",
            means: "somebody answers one of the paths with bytes that are not in memory, or is \
                    called where they are read",
            blind_to: "a lie that all paths share, such as a page mapped elsewhere for all of them; \
                       programs of BPF at these functions, which the check of hooks lists",
        }
    }

    fn run(&mut self, system: &System<'_>, outcome: &mut Outcome) -> Result<(), Missing> {
        if system.other_paths.is_empty() {
            return Err(Missing::because(
                "there is only one path to kernel memory here; a second one is \
                 bpf_probe_read_kernel (not under lockdown=confidentiality) or /proc/kcore \
                 (CONFIG_PROC_KCORE)",
            ));
        }
        let text = system
            .baseline
            .region(RegionKind::Text)
            .ok_or_else(|| Missing::because("the baseline does not say where the text is"))?;
        if self.chain.is_empty() {
            self.chain = chain(system, text.start, text.end());
        }
        let mut ranges = self.chain.clone();
        let length = text.end() - text.start;
        let start = text.start + self.next % length;
        ranges.push((start, SAMPLE.min(text.end() - start)));
        self.next = if start + SAMPLE < text.end() { self.next + SAMPLE } else { 0 };

        self.hooked(system, outcome)?;
        let mut refused = Vec::new();
        for other in system.other_paths {
            match compare(system, *other, &ranges) {
                Ok(findings) => outcome.findings.extend(findings),
                Err(missing) => refused.push(missing.0),
            }
        }
        if refused.len() == system.other_paths.len() {
            return Err(Missing(refused.join("; ")));
        }
        outcome.reduced.append(&mut refused);
        Ok(())
    }
}

impl ReadPaths {
    /// Looks for tracers and kprobes in the functions that reading goes through.
    fn hooked(&mut self, system: &System<'_>, outcome: &mut Outcome) -> Result<(), Missing> {
        let kernel = &system.kernel;
        let look = |recovered: &mut Recovered| -> Result<BTreeSet<Hooked>, Missing> {
            let mut hooked = calls(system, &self.chain)?;
            let probes = kprobes::probes(kernel, recovered).unwrap_or_default();
            let within = |address: u64| {
                self.chain.iter().any(|(start, length)| (*start..start + length).contains(&address))
            };
            let probes = probes.into_iter().filter(|probe| within(probe.address));
            hooked.extend(probes.map(|probe| (probe.address, None)));
            Ok(hooked)
        };
        let recovered = &mut self.recovered;
        let hooked = looks::lasting(PAUSE, || look(recovered))?;
        if hooked.is_empty() {
            return Ok(());
        }
        let owners = Owners::gather(kernel, &mut self.recovered);
        for (address, target) in hooked {
            // A BPF trampoline leads to programs that cannot change what the function does; the
            // check of hooks tells whose they are.
            let owner = target.and_then(|target| owners.of(kernel, target));
            if matches!(owner, Some(Owner::Bpf(_))) {
                continue;
            }
            let (symbol, offset) = evidence::place(kernel.symbols, address);
            outcome.findings.push(Finding {
                check: "read_paths",
                symbol,
                offset,
                address,
                expected: "nobody is called where kernel memory is read and handed out".to_owned(),
                seen: match target {
                    Some(target) => format!("a call to {}", owners.describe(kernel, target)),
                    None => "a kprobe".to_owned(),
                },
                technique: "read path hooked".to_owned(),
                owner: None,
                evidence: vec!["who asked for it is among the hooks of the check hooks".to_owned()],
            });
        }
        Ok(())
    }
}

/// Where somebody is called, and the code that the call leads to; none for a kprobe.
type Hooked = (u64, Option<u64>);

/// The places of the function tracer in these ranges that hold a call.
fn calls(system: &System<'_>, ranges: &[(u64, u64)]) -> Result<BTreeSet<Hooked>, Missing> {
    let places = system.baseline.sites(&system.kernel).ftrace.addresses();
    let mut within: Vec<(u64, u32)> = Vec::new();
    for (start, length) in ranges {
        let from = places.partition_point(|place| place < start);
        let inner = places.iter().skip(from).take_while(|place| **place < start + length);
        within.extend(inner.map(|place| (*place, 5)));
    }
    within.sort_unstable();
    within.dedup();
    let mut calls = BTreeSet::new();
    let batch = Places::of(within.iter().copied());
    batch.visit(system.kernel.memory, &mut |index, bytes| {
        let Some((place, _)) = within.get(index) else { return };
        if let [CALL, distance @ ..] = bytes
            && let Some(distance) = distance.first_chunk()
        {
            let distance = i64::from(i32::from_le_bytes(*distance));
            calls.insert((*place, Some((place + 5).wrapping_add_signed(distance))));
        }
    })?;
    Ok(calls)
}

/// Where the functions are that reading goes through.
fn chain(system: &System<'_>, start: u64, end: u64) -> Vec<(u64, u64)> {
    let symbols = system.kernel.symbols;
    let wanted = |name: &str| {
        CHAIN.iter().any(|wanted| match wanted.strip_suffix('_') {
            Some(_) => name.starts_with(wanted),
            None => name == *wanted,
        })
    };
    let mut ranges: Vec<(u64, u64)> = symbols
        .iter()
        .filter(|symbol| (start..end).contains(&symbol.address) && wanted(symbol.name))
        .map(|symbol| {
            let next = symbols.next_address(symbol.address).unwrap_or(end).min(end);
            (symbol.address, (next - symbol.address).min(FUNCTION_LIMIT))
        })
        .collect();
    ranges.dedup();
    ranges
}

/// Bytes that two paths give differently.
#[derive(Clone, Copy)]
struct Disagreement {
    start: u64,
    end: u64,
}

fn compare(
    system: &System<'_>,
    other: &dyn KernelMemory,
    ranges: &[(u64, u64)],
) -> Result<Vec<Finding>, Missing> {
    let memory = system.kernel.memory;
    let ranges: Vec<Disagreement> = ranges
        .iter()
        .map(|(start, length)| Disagreement { start: *start, end: start + length })
        .collect();
    // A text poke may come between the two readings: what disagrees is read again by both.
    let left = settle(
        ranges,
        || Change::None,
        true,
        |ranges| {
            let mut left = Vec::new();
            for range in ranges {
                let length = (range.end - range.start) as usize;
                let (mut ours, mut theirs) = (vec![0; length], vec![0; length]);
                memory.read(range.start, &mut ours)?;
                other.read(range.start, &mut theirs)?;
                let mut differences = Differences::default();
                differences.compare(range.start, &theirs, &ours);
                left.extend(
                    differences
                        .runs()
                        .iter()
                        .map(|run| Disagreement { start: run.start, end: run.end }),
                );
            }
            Ok(left)
        },
    )?;
    Ok(left.settled.iter().map(|settled| finding(system, other, settled)).collect())
}

fn finding(
    system: &System<'_>,
    other: &dyn KernelMemory,
    settled: &Settled<Disagreement>,
) -> Finding {
    let Disagreement { start, end } = settled.item;
    let memory = system.kernel.memory;
    let length = (end - start).min(64) as usize;
    let (mut ours, mut theirs) = (vec![0; length], vec![0; length]);
    let ours = memory.read(start, &mut ours).map(|()| ours).unwrap_or_default();
    let theirs = other.read(start, &mut theirs).map(|()| theirs).unwrap_or_default();
    let (symbol, offset) = evidence::place(system.kernel.symbols, start);
    Finding {
        check: "read_paths",
        symbol,
        offset,
        address: start,
        expected: format!("{} by {}", code::hexadecimal(&ours), memory.name()),
        seen: format!("{} by {}", code::hexadecimal(&theirs), other.name()),
        technique: "a read path lies".to_owned(),
        owner: None,
        evidence: vec![format!(
            "{} bytes read {} times by each of the two paths",
            end - start,
            settled.readings
        )],
    }
}
