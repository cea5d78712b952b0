// SPDX-License-Identifier: Apache-2.0
//! A kernel image at the addresses of the running kernel, patched in place.

use std::collections::BTreeSet;

use super::code::Code;
use super::its::{self, ItsPages, Use};
use super::machine::{Dialect, Machine, NopStyle};
use super::{Entries, Skipped, alternatives, runtime_constants};
use crate::image::KernelImage;
use crate::tables::{Alternative, RuntimeConstantKind};

/// The nop that ftrace puts in place of each call of `__fentry__`.
const FTRACE_NOP: [u8; 5] = [0x0f, 0x1f, 0x44, 0x00, 0x00];

/// What seals an `endbr64` (`gen_endbr_poison`, arch/x86/include/asm/ibt.h): `osp nopl (%rax)` up to
/// 6.17, and a nop with `udb` within since.
const SEALS: [[u8; 4]; 2] = [[0x66, 0x0f, 0x1f, 0x00], [0x0f, 0x1f, 0x40, 0xd6]];

/// A run-time constant of the image, whose value has to be found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// The variable that it comes from.
    pub variable: String,
    /// What part of the instruction it is.
    pub kind: RuntimeConstantKind,
    /// The sites in the running kernel.
    pub sites: Vec<u64>,
}

/// A kernel image that was moved to where the kernel runs. The image's own bytes are changed: no
/// second copy is made.
#[derive(Debug)]
pub struct Placed {
    image: KernelImage,
    slide: u64,
}

impl Placed {
    /// Moves an image up by `slide` bytes: applies all its relocations.
    pub fn new(mut image: KernelImage, slide: u64) -> Self {
        if slide != 0 {
            image.relocate(slide);
        }
        Self { image, slide }
    }

    /// The image. Its addresses are as linked; its bytes are as placed.
    pub fn image(&self) -> &KernelImage {
        &self.image
    }

    /// How far the kernel was moved.
    pub fn slide(&self) -> u64 {
        self.slide
    }

    /// The running address of a symbol of the image.
    pub fn symbol(&self, name: &str) -> Option<u64> {
        Some(self.image.symbols().address_of(name)?.wrapping_add(self.slide))
    }

    /// The tables, with the addresses of the running kernel.
    pub fn entries(&self) -> Entries {
        let tables = self.image.tables();
        let slid = |list: &[u64]| list.iter().map(|at| at.wrapping_add(self.slide)).collect();
        let mut paravirt = tables.paravirt.clone();
        for site in &mut paravirt {
            site.address = site.address.wrapping_add(self.slide);
        }
        Entries {
            paravirt,
            retpolines: self.retpolines().collect(),
            returns: slid(&tables.returns),
            alternatives: self.slid(&tables.alternatives),
            calls: slid(&tables.calls),
            seals: slid(&tables.endbr_seals),
            smp_locks: slid(&tables.smp_locks),
        }
    }

    fn retpolines(&self) -> impl Iterator<Item = u64> + '_ {
        self.image.tables().retpolines.iter().map(|site| site.address.wrapping_add(self.slide))
    }

    fn slid(&self, list: &[Alternative]) -> Vec<Alternative> {
        let mut list = list.to_vec();
        for entry in &mut list {
            entry.address = entry.address.wrapping_add(self.slide);
            entry.replacement = entry.replacement.wrapping_add(self.slide);
        }
        list
    }

    /// Where the pointers stand that direct calls are made from.
    pub fn pointer_slots(&self, machine: &Machine) -> BTreeSet<u64> {
        let tables = self.image.tables();
        let direct = tables.alternatives.iter().filter(|entry| entry.direct_call);
        let direct = direct.filter_map(|entry| {
            let [0xff, 0x15, distance @ ..] = self.image.bytes_at(entry.address, 6)? else {
                return None;
            };
            let distance = i32::from_le_bytes(distance.try_into().ok()?);
            let next = entry.address.wrapping_add(6).wrapping_add(self.slide);
            Some(next.wrapping_add_signed(i64::from(distance)))
        });
        let operations = tables.paravirt.iter().map(|site| u64::from(site.operation));
        direct.chain(operations.map(|operation| machine.pv_ops + 8 * operation)).collect()
    }

    /// Where the thunks of an ITS machine will be; nothing is changed.
    pub fn plan_its(&self, machine: &Machine) -> Vec<Use> {
        its::plan(self, self.retpolines(), machine)
    }

    /// Does all that the boot code does to the text, but for run-time constants.
    pub fn patch(&mut self, machine: &Machine, its: &mut ItsPages) -> Skipped {
        let entries = self.entries();
        let own = self.symbol("_text").unwrap_or(0)..self.symbol("_etext").unwrap_or(0);
        let mut skipped = super::apply(self, &entries, machine, its, own);
        drop(entries);
        let images = self.image.tables().vdso_images.clone();
        for vdso in &images {
            // `init_vdso_image`, arch/x86/entry/vdso/vma.c.
            let list = self.slid(&vdso.alternatives);
            skipped.places += alternatives::apply(self, &list, machine).places;
        }
        let calls = std::mem::take(&mut self.image.tables_mut().mcount);
        for site in &calls.sites {
            let done = self.write(site.wrapping_add(self.slide), &FTRACE_NOP);
            skipped.places += usize::from(!done);
        }
        self.image.tables_mut().mcount = calls;
        skipped
    }

    /// The run-time constants.
    pub fn values(&self) -> impl Iterator<Item = Value> + '_ {
        self.image.tables().runtime_constants.iter().map(|constant| Value {
            variable: constant.variable.clone(),
            kind: constant.kind,
            sites: constant.sites.iter().map(|at| at.wrapping_add(self.slide)).collect(),
        })
    }

    /// Writes the value of a run-time constant.
    pub fn set(&mut self, constant: &Value, value: u64) -> Skipped {
        runtime_constants::apply(self, &constant.sites, constant.kind, value)
    }

    /// How this kernel's patchers write, from what the image holds.
    pub fn dialect(&self) -> Dialect {
        let symbols = self.image.symbols();
        let bytes = |name: &str, length| {
            let address = symbols.address_of(name)?;
            self.image.bytes_at(address, length)
        };
        // The ninth nop, 2e first, follows 36 bytes of the first eight.
        let long = bytes("x86nops", 37).map(|nops| nops.last() == Some(&0x2e));
        // Where that is not named: entries had no flags of their own before.
        let short = || self.image.tables().alternative_size() == Some(12);
        let nops = match long.unwrap_or_else(|| !short()) {
            true => NopStyle::Long,
            false => NopStyle::Short,
        };
        let [old, new] = SEALS;
        let seal = if self.holds_seal(new) { new } else { old };
        let replacements = self.image.section(".altinstr_replacement");
        let within = |at: &u64| replacements.is_some_and(|section| section.contains(*at, 5));
        Dialect {
            nops,
            // It was static before 7.3, when it learned more nops.
            wide_nops: symbols.all_named("insn_is_nop").any(|symbol| symbol.kind == b'T'),
            // Came with the seal ("x86,retpoline: Optimize patch_retpoline()", 6.18).
            prefixed_calls: seal == new,
            seal,
            // Where replacements hold call sites, they are patched before they are copied.
            calls_before_alternatives: self.image.tables().calls.iter().any(within),
        }
    }

    /// Whether the functions that know the seal have it as a constant.
    fn holds_seal(&self, seal: [u8; 4]) -> bool {
        let names = ["poison_endbr", "apply_seal_endbr", "apply_ibt_endbr", "is_endbr"];
        let symbols = self.image.symbols();
        names.iter().filter_map(|name| symbols.address_of(name)).any(|start| {
            let end = symbols.next_address(start).unwrap_or(start).min(start + 4096);
            let code = self.image.bytes_at(start, (end - start) as usize);
            code.is_some_and(|code| code.windows(4).any(|window| window == seal))
        })
    }
}

impl Code for Placed {
    fn read(&self, address: u64, length: usize) -> Option<&[u8]> {
        self.image.bytes_at(address.wrapping_sub(self.slide), length)
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> bool {
        let linked = address.wrapping_sub(self.slide);
        match self.image.bytes_at_mut(linked, bytes.len()) {
            Some(into) => {
                into.copy_from_slice(bytes);
                true
            }
            None => false,
        }
    }
}
