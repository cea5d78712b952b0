// SPDX-License-Identifier: Apache-2.0
//! The registers of the processors that decide where the kernel goes and what protects it.
//!
//! Memory does not hold them. Within the system the model-specific ones can be read where the kernel
//! has a device for them; from outside a virtual machine its monitor tells the control registers and
//! the descriptor tables as the processor has them. A source gives what it has and leaves the rest
//! out.

use crate::check::Missing;

/// Where a processor finds a descriptor table, as `lidt` and `lgdt` take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DescriptorTable {
    /// The virtual address of its first entry.
    pub base: u64,
    /// Its length in bytes, less one.
    pub limit: u16,
}

/// One processor. What the source cannot tell is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Processor {
    /// Its number, as the kernel counts.
    pub number: u32,
    /// CR0: write protection (bit 16) and more.
    pub cr0: Option<u64>,
    /// CR3: the physical address of the page tables, and flags.
    pub cr3: Option<u64>,
    /// CR4: SMEP (bit 20), SMAP (bit 21), UMIP, FSGSBASE and more.
    pub cr4: Option<u64>,
    /// EFER: long mode, no-execute, system calls.
    pub efer: Option<u64>,
    /// LSTAR: where `syscall` of 64-bit code leads.
    pub lstar: Option<u64>,
    /// CSTAR: where `syscall` of 32-bit code leads (AMD).
    pub cstar: Option<u64>,
    /// IA32_SYSENTER_EIP: where `sysenter` leads (Intel).
    pub sysenter: Option<u64>,
    /// The interrupt descriptor table.
    pub idt: Option<DescriptorTable>,
    /// The global descriptor table.
    pub gdt: Option<DescriptorTable>,
}

/// A source of registers. Each call looks anew.
pub trait Registers {
    /// Where they come from, in words: `/dev/cpu/*/msr`, `QMP`.
    fn source(&self) -> &'static str;
    /// All processors that are online, in order of their number.
    fn processors(&self) -> Result<Vec<Processor>, Missing>;
    /// The same, with where system calls lead even if that is dearer to be had than all the others.
    fn with_system_calls(&self) -> Result<Vec<Processor>, Missing> {
        self.processors()
    }
}

/// No registers at all: a dump that has none, or a system without the device.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoRegisters;

impl Registers for NoRegisters {
    fn source(&self) -> &'static str {
        "none"
    }

    fn processors(&self) -> Result<Vec<Processor>, Missing> {
        Err(Missing::because("nothing here tells the registers of the processors"))
    }
}
