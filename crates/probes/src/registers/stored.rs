// SPDX-License-Identifier: Apache-2.0
//! What `smsw`, `sidt` and `sgdt` store, on each processor in turn.
//!
//! In 64-bit mode `smsw` stores all of CR0 (Intel SDM volume 2, SMSW). A hypervisor may give its
//! own values; then they are what the guest's kernel gets as well.

use std::arch::asm;
use std::thread;

use guard::registers::DescriptorTable;
use rustix::thread::{CpuSet, sched_setaffinity};

/// Bases that the kernel makes up under UMIP are in the last megabyte (`UMIP_DUMMY_*_BASE`,
/// arch/x86/kernel/umip.c).
const MADE_UP: u64 = 0xffff_ffff_fff0_0000;

/// What one processor stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) cr0: u64,
    pub(super) idt: DescriptorTable,
    pub(super) gdt: DescriptorTable,
}

/// What each of these processors stores; none where the thread could not be moved to it.
pub(super) fn on_each(numbers: &[u32]) -> Vec<Option<Stored>> {
    let visit = |number: &u32| {
        let mut only = CpuSet::new();
        let number = usize::try_from(*number).ok().filter(|one| *one < CpuSet::MAX_CPU)?;
        only.set(number);
        sched_setaffinity(None, &only).ok()?;
        let stored = store();
        // UMIP may be on although nobody said so.
        (stored.idt.base < MADE_UP && stored.gdt.base < MADE_UP).then_some(stored)
    };
    // A thread of its own, so that this one stays where it may run.
    let visited = thread::scope(|scope| {
        let visitor = scope.spawn(|| numbers.iter().map(visit).collect());
        visitor.join()
    });
    visited.unwrap_or_else(|_| vec![None; numbers.len()])
}

/// As `sidt` and `sgdt` store it.
#[repr(C, packed)]
#[derive(Clone, Copy, Default)]
struct Pointer {
    limit: u16,
    base: u64,
}

impl From<Pointer> for DescriptorTable {
    fn from(Pointer { limit, base }: Pointer) -> Self {
        Self { base, limit }
    }
}

fn store() -> Stored {
    let cr0: u64;
    let (mut idt, mut gdt) = (Pointer::default(), Pointer::default());
    // SAFETY: smsw only writes the register that it is given. Where it is not allowed the kernel
    // answers in its place, since 5.5 in 64-bit mode too (fixup_umip_exception).
    unsafe { asm!("smsw {0:r}", out(reg) cr0, options(nomem, nostack, preserves_flags)) };
    // SAFETY: both store ten bytes where they are told to, and a `Pointer` has ten bytes.
    unsafe {
        asm!(
            "sidt [{0}]",
            "sgdt [{1}]",
            in(reg) &raw mut idt,
            in(reg) &raw mut gdt,
            options(nostack, preserves_flags)
        );
    };
    Stored { cr0, idt: idt.into(), gdt: gdt.into() }
}
