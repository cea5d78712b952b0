// SPDX-License-Identifier: Apache-2.0
//! Where each vector must lead.
//!
//! The boot code fills the IDT from tables in memory that it then gives back (`early_idts`,
//! `def_idts`, `ia32_idt`, `apic_idts`, arch/x86/kernel/idt.c) and from two rows of stubs for all
//! vectors that no table has. What stands in the tables is the same in 6.1, 6.12 and 7.3 but for
//! the vectors that one of them has and the others have not.

use kernel_memory::Kernel;

use super::gate::Gate;
use crate::check::Missing;

/// `__KERNEL_CS` (arch/x86/include/asm/segment.h).
const KERNEL_CODE: u16 = 0x10;

/// An interrupt gate of 64-bit code.
const INTERRUPT_GATE: u8 = 14;

/// The first vector that is not an exception (arch/x86/include/asm/irq_vectors.h).
const FIRST_EXTERNAL: u64 = 0x20;

/// `push` of a byte.
const PUSH: u8 = 0x6a;

/// A vector of the tables.
struct Vector {
    number: u64,
    /// What it leads to; of several that which this machine has.
    names: &'static [&'static str],
    /// From which ring it can be raised by an instruction.
    ring: u8,
    /// Its interrupt stack (`IST_INDEX_*` + 1, arch/x86/include/asm/page_64_types.h).
    stack: u8,
    /// Whether the boot code sets it on some machines only.
    optional: bool,
}

const fn vector(number: u64, names: &'static [&'static str]) -> Vector {
    Vector { number, names, ring: 0, stack: 0, optional: false }
}

const fn on_stack(number: u64, names: &'static [&'static str], stack: u8) -> Vector {
    Vector { number, names, ring: 0, stack, optional: false }
}

const fn for_user(number: u64, names: &'static [&'static str]) -> Vector {
    Vector { number, names, ring: 3, stack: 0, optional: false }
}

const fn at_times(number: u64, names: &'static [&'static str]) -> Vector {
    Vector { number, names, ring: 0, stack: 0, optional: true }
}

const VECTORS: &[Vector] = &[
    vector(0, &["asm_exc_divide_error"]),
    on_stack(1, &["asm_exc_debug"], 3),
    on_stack(2, &["asm_exc_nmi"], 2),
    for_user(3, &["asm_exc_int3"]),
    for_user(4, &["asm_exc_overflow"]),
    vector(5, &["asm_exc_bounds"]),
    vector(6, &["asm_exc_invalid_op"]),
    vector(7, &["asm_exc_device_not_available"]),
    on_stack(8, &["asm_exc_double_fault"], 1),
    vector(9, &["asm_exc_coproc_segment_overrun"]),
    vector(10, &["asm_exc_invalid_tss"]),
    vector(11, &["asm_exc_segment_not_present"]),
    vector(12, &["asm_exc_stack_segment"]),
    vector(13, &["asm_exc_general_protection"]),
    vector(14, &["asm_exc_page_fault"]),
    vector(15, &["asm_exc_spurious_interrupt_bug"]),
    vector(16, &["asm_exc_coprocessor_error"]),
    vector(17, &["asm_exc_alignment_check"]),
    on_stack(18, &["asm_exc_machine_check"], 4),
    vector(19, &["asm_exc_simd_coprocessor_error"]),
    vector(20, &["asm_exc_virtualization_exception"]),
    vector(21, &["asm_exc_control_protection"]),
    on_stack(29, &["asm_exc_vmm_communication"], 5),
    // Up to 6.5.
    at_times(0x20, &["asm_sysvec_irq_move_cleanup"]),
    // Not with ia32_emulation=0. The second name is that of kernels up to 6.6.
    Vector { ring: 3, ..at_times(0x80, &["asm_int80_emulation", "entry_INT80_compat"]) },
    vector(0xeb, &["asm_sysvec_posted_msi_notification"]),
    vector(0xec, &["asm_sysvec_apic_timer_interrupt"]),
    at_times(0xed, &["asm_sysvec_hyperv_stimer0"]),
    at_times(0xee, &["asm_sysvec_hyperv_reenlightenment"]),
    vector(0xf0, &["asm_sysvec_kvm_posted_intr_nested_ipi"]),
    vector(0xf1, &["asm_sysvec_kvm_posted_intr_wakeup_ipi"]),
    vector(0xf2, &["asm_sysvec_kvm_posted_intr_ipi"]),
    at_times(
        0xf3,
        &[
            "asm_sysvec_kvm_asyncpf_interrupt",
            "asm_sysvec_hyperv_callback",
            "asm_sysvec_xen_hvm_callback",
            "asm_sysvec_acrn_hv_callback",
        ],
    ),
    vector(0xf4, &["asm_sysvec_deferred_error"]),
    vector(0xf5, &["asm_sysvec_perf_guest_mediated_pmi_handler"]),
    vector(0xf6, &["asm_sysvec_irq_work"]),
    vector(0xf7, &["asm_sysvec_x86_platform_ipi"]),
    vector(0xf8, &["asm_sysvec_reboot"]),
    vector(0xf9, &["asm_sysvec_threshold"]),
    vector(0xfa, &["asm_sysvec_thermal"]),
    vector(0xfb, &["asm_sysvec_call_function_single"]),
    vector(0xfc, &["asm_sysvec_call_function"]),
    vector(0xfd, &["asm_sysvec_reschedule_ipi"]),
    vector(0xfe, &["asm_sysvec_error_interrupt"]),
    vector(0xff, &["asm_sysvec_spurious_apic_interrupt"]),
];

/// Where a gate may lead, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Handler {
    address: u64,
    name: String,
    ring: u8,
    stack: u8,
}

/// What the gate of a vector must be: one of these.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Expected(Vec<Handler>);

/// What is wrong with a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// It leads elsewhere.
    Handler,
    /// User mode can raise it.
    Ring,
    /// It is of another kind, or takes another stack or segment.
    Form,
}

impl Expected {
    /// What is wrong with a gate, if anything is.
    pub(super) fn judge(&self, gate: &Gate) -> Option<Fault> {
        let Some(handler) = self.0.iter().find(|handler| handler.address == gate.handler) else {
            return Some(Fault::Handler);
        };
        if gate.ring > handler.ring {
            return Some(Fault::Ring);
        }
        let same = (gate.segment, gate.stack, gate.kind, gate.ring, gate.present)
            == (KERNEL_CODE, handler.stack, INTERRUPT_GATE, handler.ring, true);
        (!same).then_some(Fault::Form)
    }

    pub(super) fn words(&self) -> String {
        let ways = self.0.iter().map(|handler| {
            let Handler { name, ring, stack, .. } = handler;
            format!("interrupt gate to {name}, ring {ring}, interrupt stack {stack}")
        });
        ways.collect::<Vec<_>>().join("; or ")
    }
}

/// What all 256 gates must be, by vector.
pub(super) fn expected(kernel: &Kernel<'_>) -> Result<Vec<Expected>, Missing> {
    let rows = Rows::find(kernel)?;
    Ok((0..256).map(|number| of_vector(kernel, &rows, number)).collect())
}

fn of_vector(kernel: &Kernel<'_>, rows: &Rows, number: u64) -> Expected {
    let listed = VECTORS.iter().find(|vector| vector.number == number);
    let mut handlers = Vec::new();
    if let Some(vector) = listed {
        let symbols = vector.names.iter().flat_map(|name| kernel.symbols.all_named(name));
        handlers.extend(symbols.map(|symbol| Handler {
            address: symbol.address,
            name: symbol.name.to_owned(),
            ring: vector.ring,
            stack: vector.stack,
        }));
    }
    if handlers.is_empty() || listed.is_some_and(|vector| vector.optional) {
        handlers.extend(rows.stub(number));
    }
    Expected(handlers)
}

/// The rows of stubs, one for each vector (arch/x86/include/asm/idtentry.h and kernel/head_64.S).
struct Rows {
    interrupts: u64,
    spurious: u64,
    /// The first vector of the second row (`FIRST_SYSTEM_VECTOR`).
    first_system: u64,
    /// Bytes of a stub (`IDT_ALIGN`).
    size: u64,
    early: Option<u64>,
}

impl Rows {
    fn find(kernel: &Kernel<'_>) -> Result<Self, Missing> {
        let interrupts = kernel.symbol("irq_entries_start")?;
        let spurious = kernel.symbol("spurious_entries_start")?;
        // Each stub pushes its vector, behind an ENDBR in kernels with CONFIG_X86_KERNEL_IBT.
        let stub = kernel.bytes_at(spurious, 6)?;
        let (size, first_system) = match stub[..] {
            [PUSH, vector, ..] => (8, vector),
            [_, _, _, _, PUSH, vector] => (16, vector),
            _ => return Err(Missing::because("the stubs of interrupts push no vector")),
        };
        let first_system = u64::from(first_system);
        let early = kernel.symbols.address_of("early_idt_handler_array");
        Ok(Self { interrupts, spurious, first_system, size, early })
    }

    fn stub(&self, number: u64) -> Option<Handler> {
        let (address, name) = if number < FIRST_EXTERNAL {
            // What handles exceptions while the kernel boots, and is left for those that it knows
            // no other handler for: 9 bytes each, 13 with an ENDBR (`EARLY_IDT_HANDLER_SIZE`).
            let size = if self.size == 16 { 13 } else { 9 };
            (self.early? + size * number, format!("early_idt_handler_array[{number}]"))
        } else if number < self.first_system {
            let index = number - FIRST_EXTERNAL;
            (self.interrupts + self.size * index, format!("irq_entries_start[{index}]"))
        } else {
            let index = number - self.first_system;
            (self.spurious + self.size * index, format!("spurious_entries_start[{index}]"))
        };
        Some(Handler { address, name, ring: 0, stack: 0 })
    }
}
