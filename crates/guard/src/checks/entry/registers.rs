// SPDX-License-Identifier: Apache-2.0
//! The registers that say where `syscall` and `sysenter` lead.
//!
//! What the kernel writes there (`syscall_init`, arch/x86/kernel/cpu/common.c) is the same in 6.1,
//! 6.12 and 7.3, with and without page table isolation: the entry code itself, in the kernel's text.

use kernel_memory::Kernel;

use crate::check::{Outcome, System};
use crate::code;
use crate::evidence;
use crate::finding::Finding;
use crate::processor::{Feature, Features};
use crate::registers::Processor;

/// A register with what it may hold.
struct Register {
    name: &'static str,
    of: fn(&Processor) -> Option<u64>,
    /// Symbols that it may hold the address of.
    entries: &'static [&'static str],
    /// Whether it may hold nothing.
    may_be_empty: bool,
    /// Whether some processors keep its lower half only.
    may_be_cut: bool,
}

const REGISTERS: [Register; 3] = [
    Register {
        name: "LSTAR",
        of: |processor| processor.lstar,
        entries: &["entry_SYSCALL_64"],
        may_be_empty: false,
        may_be_cut: false,
    },
    Register {
        name: "CSTAR",
        of: |processor| processor.cstar,
        // The last two where 32-bit programs are not run, in 6.12 and before 6.7. On Intel's
        // processors, which have no use for it, the kernel leaves it alone (`wrmsrl_cstar`).
        entries: &["entry_SYSCALL_compat", "entry_SYSCALL32_ignore", "ignore_sysret"],
        may_be_empty: true,
        may_be_cut: false,
    },
    Register {
        name: "SYSENTER_EIP",
        of: |processor| processor.sysenter,
        entries: &["entry_SYSENTER_compat"],
        may_be_empty: true,
        // AMD's, which take no `sysenter` in long mode.
        may_be_cut: true,
    },
];

impl Register {
    fn is_sound(&self, kernel: &Kernel<'_>, value: u64) -> bool {
        let symbols = self.entries.iter().flat_map(|name| kernel.symbols.all_named(name));
        let mut symbols = symbols.map(|symbol| symbol.address);
        (value == 0 && self.may_be_empty)
            || symbols.any(|at| at == value || (self.may_be_cut && at & 0xffff_ffff == value))
    }
}

/// Looks at all processors; what cannot be known is noted.
pub(super) fn check(system: &System<'_>, outcome: &mut Outcome) {
    let kernel = &system.kernel;
    if Features::read(kernel).is_ok_and(|features| features.has(Feature::FRED)) {
        outcome.reduced.push(
            "the processors enter the kernel by FRED, whose registers nothing here tells"
                .to_owned(),
        );
        return;
    }
    let look = || system.registers.with_system_calls();
    let processors = match look() {
        Ok(processors) => processors,
        Err(missing) => {
            outcome.reduced.push(format!("LSTAR and its like are not known: {}", missing.0));
            return;
        }
    };
    let source = system.registers.source();
    if processors.iter().any(|processor| processor.lstar.is_none()) {
        outcome.reduced.push(format!("{source} does not tell each processor's LSTAR"));
    }
    let strays = strays(kernel, &processors);
    if strays.is_empty() {
        return;
    }
    // They are written once while booting; what is wrong is read again all the same.
    let again = look().unwrap_or_default();
    for (processor, register, value) in strays {
        let lasts = again
            .iter()
            .any(|one| one.number == processor.number && (register.of)(one) == Some(value));
        if lasts {
            outcome.findings.push(finding(system, processor.number, register, value));
        }
    }
}

fn strays<'p>(
    kernel: &Kernel<'_>,
    processors: &'p [Processor],
) -> Vec<(&'p Processor, &'static Register, u64)> {
    let each = processors
        .iter()
        .flat_map(|processor| REGISTERS.iter().map(move |register| (processor, register)));
    each.filter_map(|(processor, register)| Some((processor, register, (register.of)(processor)?)))
        .filter(|(_, register, value)| !register.is_sound(kernel, *value))
        .collect()
}

fn finding(system: &System<'_>, processor: u32, register: &Register, value: u64) -> Finding {
    let text = evidence::text_of(system.baseline);
    let name = register.name;
    Finding {
        check: "entry",
        symbol: None,
        offset: 0,
        address: value,
        expected: format!("{name} leads to {}", register.entries.join(" or ")),
        seen: format!("{name} leads to {}", code::name(system.kernel.symbols, text, value)),
        technique: format!("system call entry redirected ({name})"),
        owner: None,
        evidence: vec![format!(
            "processor {processor}, read twice from {}",
            system.registers.source()
        )],
    }
}
