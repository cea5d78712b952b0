// SPDX-License-Identifier: Apache-2.0
//! System calls: where the processors enter the kernel for them, and where the kernel goes from
//! there.
//!
//! Since 6.9, and in stable kernels before, the kernel dispatches them by code (`x64_sys_call` and
//! its relatives, arch/x86/entry/syscall_64.c and syscall_32.c): each branch in it must lead to a
//! system call. The tables of old are for tracing now; a pointer in them that leads elsewhere harms
//! nobody but tells of somebody who tried. Both are held to what they are for, not to a baseline
//! only, so a change that was made before the first check is found as well.
//!
//! Before all that stands a register of each processor ([`registers`]).

mod dispatch;
mod registers;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::time::Duration;

use dispatch::Targets;
use kernel_memory::Kernel;

use super::looks;
use crate::check::{About, Check, Missing, Outcome, System};
use crate::code;
use crate::evidence;
use crate::finding::Finding;

const PAUSE: Duration = Duration::from_millis(2);

/// Tables of system calls by number: those of 64-bit, x32 and 32-bit programs.
const TABLES: [&str; 3] = ["sys_call_table", "x32_sys_call_table", "ia32_sys_call_table"];

/// More entries than any of them has (Linux 7.3: 472).
const MOST_ENTRIES: u64 = 1024;

/// Findings of one run: a rootkit replaces some calls, a wrong table gives hundreds.
const MOST_FINDINGS: usize = 32;

/// See the module.
#[derive(Debug, Default)]
pub struct Entry {
    targets: Option<Targets>,
}

/// A branch or a pointer that leads elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wrong {
    /// The instruction at this address branches to that one.
    Branch(u64, u64),
    /// The pointer at this address leads to that one.
    Pointer(u64, u64),
}

impl Check for Entry {
    fn name(&self) -> &'static str {
        "entry"
    }

    fn about(&self) -> About {
        About {
            needs: "the names of the system calls; for the tables CONFIG_KALLSYMS_ALL; for the entry \
                    points the processors' registers",
            reads: "the code and the tables by which system calls are dispatched, and LSTAR, CSTAR \
                    and SYSENTER_EIP of each processor",
            means: "a system call leads to code that is none",
            blind_to: "changes within a system call (the check of the text sees them); without \
                       registers, a processor that enters the kernel elsewhere",
        }
    }

    fn run(&mut self, system: &System<'_>, outcome: &mut Outcome) -> Result<(), Missing> {
        let kernel = &system.kernel;
        let text = evidence::text_of(system.baseline);
        let targets = self.targets.get_or_insert_with(|| Targets::gather(kernel, text));
        let code = dispatch::functions(kernel);
        let tables: Vec<(u64, u64)> =
            TABLES.iter().filter_map(|name| bounds(kernel, name)).collect();
        if code.is_empty() {
            outcome
                .reduced
                .push("this kernel dispatches system calls by no code that is known".into());
        }
        if tables.is_empty() {
            outcome.reduced.push(
                "there is no symbol sys_call_table (CONFIG_KALLSYMS_ALL): the tables for tracing are \
                 not looked at"
                    .to_owned(),
            );
        }
        let wrong = looks::lasting(PAUSE, || {
            let mut wrong = BTreeSet::new();
            for function in &code {
                wrong.extend(dispatch::strays(system, targets, function)?);
            }
            for table in &tables {
                wrong.extend(pointers(kernel, targets, *table)?);
            }
            Ok(wrong)
        })?;
        outcome.findings.extend(wrong.iter().take(MOST_FINDINGS).map(|one| finding(system, *one)));
        if wrong.len() > MOST_FINDINGS {
            outcome.reduced.push(format!("{} further places", wrong.len() - MOST_FINDINGS));
        }
        registers::check(system, outcome);
        Ok(())
    }
}

/// Where a table starts and how many entries it has.
fn bounds(kernel: &Kernel<'_>, name: &str) -> Option<(u64, u64)> {
    let start = kernel.symbols.address_of(name)?;
    let end = kernel.symbols.next_address(start)?;
    Some((start, ((end - start) / 8).min(MOST_ENTRIES)))
}

/// Pointers of a table that lead to no system call. What is behind its last entry is zero.
fn pointers(
    kernel: &Kernel<'_>,
    targets: &Targets,
    (start, count): (u64, u64),
) -> Result<Vec<Wrong>, Missing> {
    let bytes = kernel.bytes_at(start, (8 * count) as usize)?;
    let words = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
    let mut words: Vec<u64> = words.collect();
    while words.last() == Some(&0) {
        words.pop();
    }
    let entries = words.into_iter().zip((start..).step_by(8));
    let strays = entries.filter(|(target, _)| !targets.is_call(*target));
    Ok(strays.map(|(target, at)| Wrong::Pointer(at, target)).collect())
}

fn finding(system: &System<'_>, wrong: Wrong) -> Finding {
    let kernel = &system.kernel;
    let text = evidence::text_of(system.baseline);
    let name = |address| code::name(kernel.symbols, text, address);
    let (address, target, expected, technique) = match wrong {
        Wrong::Branch(at, target) => {
            (at, target, "a branch to a system call", "system call dispatch retargeted")
        }
        Wrong::Pointer(at, target) => {
            (at, target, "a pointer to a system call", "system call table entry replaced")
        }
    };
    let (symbol, offset) = evidence::place(kernel.symbols, address);
    let mut evidence = vec![format!("seen in each of {} looks", looks::LOOKS)];
    if let Wrong::Pointer(at, _) = wrong
        && let Some(was) = system.baseline.bytes_at(at, 8).and_then(|bytes| bytes.first_chunk())
    {
        evidence.push(format!("in the baseline it leads to {}", name(u64::from_le_bytes(*was))));
    }
    Finding {
        check: "entry",
        symbol,
        offset,
        address,
        expected: expected.to_owned(),
        seen: format!("it leads to {}", name(target)),
        technique: technique.to_owned(),
        owner: None,
        evidence,
    }
}
