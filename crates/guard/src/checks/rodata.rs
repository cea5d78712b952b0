// SPDX-License-Identifier: Apache-2.0
//! Data that the kernel made read-only, against the baseline.
//!
//! Behind `__start_rodata` lie the tables that decide where the kernel goes (file operations, the
//! system call table of old, the IDT's descriptor, static call and jump label tables) and, in
//! .data..ro_after_init, what is written once at boot. When a baseline of the first check is taken
//! all of it is final.

use crate::baseline::RegionKind;
use crate::check::{About, Check, Missing, Outcome, System};
use crate::compare::places;
use crate::confirm::confirm;
use crate::evidence;
use crate::known_pages::KnownPages;
use crate::sites::{Sites, State};

/// More findings of one pass say nothing more.
const FINDINGS: usize = 64;

/// The check.
#[derive(Debug, Default)]
pub struct Rodata {
    known: KnownPages,
}

impl Check for Rodata {
    fn name(&self) -> &'static str {
        "rodata"
    }

    fn about(&self) -> About {
        About {
            needs: "a baseline, and memory that can be read",
            reads: "all bytes from __start_rodata to the end of the kernel's read-only data",
            means: "a table or constant of the kernel was changed although it is read-only",
            blind_to: "with a baseline of the first check, what was changed before it; tables in \
                       writable memory",
        }
    }

    // Whoever can write here can as well write to the text, which each pass reads; 10 MB a second
    // would double what a pass costs.
    fn run(&mut self, system: &System<'_>, outcome: &mut Outcome) -> Result<(), Missing> {
        let System { kernel, baseline, .. } = system;
        let rodata = baseline
            .region(RegionKind::Rodata)
            .ok_or_else(|| Missing::because("the baseline holds no read-only data"))?;
        self.known.begin();
        let (differences, mut unreadable) = super::text::read(system, &rodata, &mut self.known)?;
        let none = Sites::default();
        let places = places(differences.runs(), &none);
        let mut confirmed = confirm(kernel, baseline, &none, &mut State::default(), &places, true)?;
        confirmed.unexplained.append(&mut unreadable);
        confirmed.unexplained.sort_by_key(|one| one.place.start);
        let changes = evidence::join(&confirmed.unexplained, kernel.symbols);
        for change in changes.iter().take(FINDINGS) {
            let pointer = pointer(system, change.start);
            let symbol = evidence::place(kernel.symbols, change.start).0;
            let technique = technique(symbol.as_deref(), pointer.is_some());
            let mut finding = evidence::of_data(self.name(), kernel, baseline, change, technique);
            finding.evidence.extend(pointer);
            outcome.findings.push(finding);
        }
        let hidden = changes.len().saturating_sub(FINDINGS) as u64 + differences.dropped();
        if hidden > 0 {
            outcome.reduced.push(format!("{hidden} more changes are not shown"));
        }
        Ok(())
    }
}

/// Tables by which system calls are found: since 6.9 that of 64 bits is for tracing only
/// (arch/x86/entry/syscall_64.c).
const SYSTEM_CALLS: [&str; 3] = ["sys_call_table", "ia32_sys_call_table", "x32_sys_call_table"];

/// What was done, as the field calls it.
fn technique(symbol: Option<&str>, was_pointer: bool) -> &'static str {
    match symbol {
        Some(table) if SYSTEM_CALLS.contains(&table) => "system call table entry redirected",
        _ if was_pointer => "function pointer redirected",
        _ => "read-only data changed",
    }
}

/// Where the aligned word around a change points, before and now, if it looks like a pointer to
/// code: most tables here hold such.
fn pointer(system: &System<'_>, address: u64) -> Option<String> {
    let word = address & !7;
    let was: [u8; 8] = system.baseline.bytes_at(word, 8)?.try_into().ok()?;
    let was = u64::from_le_bytes(was);
    let text = evidence::text_of(system.baseline);
    if !(text.0..text.1).contains(&was) {
        return None;
    }
    let is = system.kernel.u64_at(word).ok()?;
    let name = |address| crate::code::name(system.kernel.symbols, text, address);
    Some(format!("the pointer at {word:#x} led to {} and now leads to {}", name(was), name(is)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_system_calls_is_named_and_a_pointer_to_code_is_told_from_other_data() {
        assert_eq!(technique(Some("sys_call_table"), true), "system call table entry redirected");
        assert_eq!(technique(Some("proc_root_operations"), true), "function pointer redirected");
        assert_eq!(technique(Some("linux_banner"), false), "read-only data changed");
        assert_eq!(technique(None, false), "read-only data changed");
    }
}
