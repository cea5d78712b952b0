// SPDX-License-Identifier: Apache-2.0
//! A kernel of three pages, with one site of each kind.

use std::collections::BTreeMap;

use kernel_image::Symbols;
use kernel_image::btf::{Btf, Builder};
use kernel_memory::{FakeMemory, Kernel, KernelMemory};

use crate::baseline::{Baseline, Identity};
use crate::check::{Check, Missing, Outcome, System};
use crate::journal::Journal;
use crate::modules::NoModuleFiles;
use crate::registers::NoRegisters;
use crate::views::NoViews;

pub(super) const TEXT: u64 = 0xffff_ffff_8100_0000;
pub(super) const TEXT_LENGTH: u64 = 0x3000;
pub(super) const RODATA: u64 = 0xffff_ffff_8120_0000;
pub(super) const DATA: u64 = 0xffff_ffff_8140_0000;
/// Executable memory that no list knows.
pub(super) const NOWHERE: u64 = 0xffff_ffff_c000_1000;

pub(super) const WORK: u64 = TEXT + 0x100;
pub(super) const FTRACE_SITE: u64 = WORK;
pub(super) const SHORT_LABEL: u64 = WORK + 5;
pub(super) const SHORT_TARGET: u64 = WORK + 0x40;
pub(super) const LONG_LABEL: u64 = WORK + 7;
pub(super) const LONG_TARGET: u64 = WORK + 0x400;
pub(super) const PLAIN_CALL: u64 = WORK + 12;
pub(super) const STATIC_CALL: u64 = WORK + 17;
pub(super) const BRANCH: u64 = WORK + 22;
pub(super) const TAIL_CALL: u64 = WORK + 28;
pub(super) const QUIET: u64 = TEXT + 0x600;
pub(super) const DISPATCH: u64 = TEXT + 0x800;
pub(super) const HELPER: u64 = TEXT + 0x900;
pub(super) const OTHER: u64 = TEXT + 0xa00;
pub(super) const TRAMPOLINE: u64 = TEXT + 0xc00;
pub(super) const RETURN_ZERO: u64 = TEXT + 0xd00;
pub(super) const THUNK: u64 = TEXT + 0xd40;
pub(super) const FTRACE_CALLER: u64 = TEXT + 0xe00;
pub(super) const FTRACE_CALL: u64 = FTRACE_CALLER + 0x20;
pub(super) const FTRACE_STUB: u64 = TEXT + 0xf00;
pub(super) const TRACE_CALL: u64 = TEXT + 0xf40;

pub(super) const SHORT_KEY: u64 = DATA;
pub(super) const LONG_KEY: u64 = DATA + 0x10;
pub(super) const CALL_KEY: u64 = DATA + 0x20;
pub(super) const TAIL_KEY: u64 = DATA + 0x40;
pub(super) const CALL_MUTEX: u64 = DATA + 0x80;
pub(super) const LABEL_MUTEX: u64 = DATA + 0xa0;

const JUMP_TABLE: u64 = RODATA + 0x100;
const CALL_TABLE: u64 = RODATA + 0x200;
const TRAMPOLINE_TABLE: u64 = RODATA + 0x300;

const SYMBOLS: [(u64, u8, &str); 28] = [
    (TEXT, b'T', "_stext"),
    (WORK, b'T', "do_work"),
    (QUIET, b't', "quiet"),
    (DISPATCH, b'T', "x64_sys_call"),
    (HELPER, b'T', "helper"),
    (OTHER, b'T', "other"),
    (TEXT + 0xb00, b'T', "__x64_sys_kill"),
    (TRAMPOLINE, b'T', "__SCT__work"),
    (RETURN_ZERO, b'T', "__static_call_return0"),
    (THUNK, b'T', "__x86_return_thunk"),
    (FTRACE_CALLER, b'T', "ftrace_caller"),
    (FTRACE_CALL, b'T', "ftrace_call"),
    (FTRACE_STUB, b'T', "ftrace_stub"),
    (TRACE_CALL, b't', "function_trace_call"),
    (TEXT + 0x1000, b'T', "copy_from_kernel_nofault"),
    (TEXT + 0x1100, b'T', "last"),
    (TEXT + TEXT_LENGTH, b'T', "_etext"),
    (RODATA, b'R', "__start_rodata"),
    (JUMP_TABLE, b'R', "__start___jump_table"),
    (JUMP_TABLE + 32, b'R', "__stop___jump_table"),
    (CALL_TABLE, b'R', "__start_static_call_sites"),
    (CALL_TABLE + 16, b'R', "__stop_static_call_sites"),
    (TRAMPOLINE_TABLE, b'R', "__start_static_call_tramp_key"),
    (TRAMPOLINE_TABLE + 8, b'R', "__stop_static_call_tramp_key"),
    (RODATA + 0x1000, b'R', "__end_rodata"),
    (DATA, b'D', "_sdata"),
    (CALL_MUTEX, b'd', "static_call_mutex"),
    (LABEL_MUTEX, b'd', "jump_label_mutex"),
];

/// The kernel, its memory open to changes.
pub(super) struct Synthetic {
    pub(super) memory: FakeMemory,
    pub(super) symbols: Symbols,
    pub(super) types: Btf,
}

/// The bytes of `opcode` and the 32-bit distance from `address` to `target`.
pub(super) fn to(opcode: &[u8], address: u64, target: u64) -> Vec<u8> {
    let next = address + opcode.len() as u64 + 4;
    let distance = target.wrapping_sub(next) as u32;
    [opcode, &distance.to_le_bytes()].concat()
}

impl Synthetic {
    pub(super) fn new() -> Self {
        let mut memory = FakeMemory::new();
        memory.write(TEXT, &vec![0x90; TEXT_LENGTH as usize]);
        memory.write(RODATA, &[0; 0x1000]);
        memory.write(DATA, &[0; 0x1000]);
        memory.write(FTRACE_SITE, &[0x0f, 0x1f, 0x44, 0, 0]);
        memory.write(SHORT_LABEL, &[0x66, 0x90]);
        memory.write(LONG_LABEL, &to(&[0xe9], LONG_LABEL, LONG_TARGET));
        memory.write(PLAIN_CALL, &to(&[0xe8], PLAIN_CALL, HELPER));
        memory.write(STATIC_CALL, &to(&[0xe8], STATIC_CALL, HELPER));
        memory.write(BRANCH, &to(&[0x0f, 0x84], BRANCH, SHORT_TARGET));
        memory.write(TAIL_CALL, &to(&[0xe9], TAIL_CALL, THUNK));
        // push rbp; mov rbp, rsp; call helper; test eax, eax; je +2; nop; nop; pop rbp; ret
        memory.write(QUIET, &[0x55, 0x48, 0x89, 0xe5]);
        memory.write(QUIET + 4, &to(&[0xe8], QUIET + 4, HELPER));
        memory.write(QUIET + 9, &[0x85, 0xc0, 0x74, 0x02, 0x90, 0x90, 0x5d, 0xc3]);
        memory.write(DISPATCH, &to(&[0xe8], DISPATCH, TEXT + 0xb00));
        memory.write(DISPATCH + 5, &[0xc3]);
        memory.write(TRAMPOLINE, &to(&[0xe9], TRAMPOLINE, HELPER));
        memory.write(TRAMPOLINE + 5, &[0x0f, 0xb9, 0xcc]);
        memory.write(FTRACE_CALL, &to(&[0xe8], FTRACE_CALL, FTRACE_STUB));

        jump_entry(&mut memory, JUMP_TABLE, (SHORT_LABEL, SHORT_TARGET, SHORT_KEY));
        // Bit 0: it jumps when its key is off.
        jump_entry(&mut memory, JUMP_TABLE + 16, (LONG_LABEL, LONG_TARGET, LONG_KEY | 1));
        relative(&mut memory, CALL_TABLE, STATIC_CALL);
        relative(&mut memory, CALL_TABLE + 4, CALL_KEY);
        relative(&mut memory, CALL_TABLE + 8, TAIL_CALL);
        relative(&mut memory, CALL_TABLE + 12, TAIL_KEY | 1);
        relative(&mut memory, TRAMPOLINE_TABLE, TRAMPOLINE);
        relative(&mut memory, TRAMPOLINE_TABLE + 4, CALL_KEY);
        memory.write_u64(CALL_KEY, HELPER);
        Self { memory, symbols: Symbols::from_iter(SYMBOLS), types: Btf::parse(&types()).unwrap() }
    }

    pub(super) fn kernel(&self) -> Kernel<'_> {
        Kernel { memory: &self.memory, symbols: &self.symbols, types: &self.types }
    }

    pub(super) fn baseline(&self) -> Baseline {
        Baseline::take(&self.kernel(), identity(), BTreeMap::new()).unwrap()
    }

    /// Runs a check over memory as it is now.
    pub(super) fn run(
        &self,
        check: &mut dyn Check,
        baseline: &Baseline,
        journal: &Journal,
    ) -> Result<Outcome, Missing> {
        self.run_with(check, baseline, journal, &[])
    }

    pub(super) fn run_with(
        &self,
        check: &mut dyn Check,
        baseline: &Baseline,
        journal: &Journal,
        other_paths: &[&dyn KernelMemory],
    ) -> Result<Outcome, Missing> {
        let mut outcome = Outcome::default();
        check.run(&self.system(baseline, journal, other_paths), &mut outcome)?;
        Ok(outcome)
    }

    pub(super) fn system<'a>(
        &'a self,
        baseline: &'a Baseline,
        journal: &'a Journal,
        other_paths: &'a [&'a dyn KernelMemory],
    ) -> System<'a> {
        let modules = &NoModuleFiles;
        let registers = &NoRegisters;
        System {
            kernel: self.kernel(),
            other_paths,
            views: &NoViews,
            baseline,
            modules,
            registers,
            journal,
        }
    }
}

pub(super) fn identity() -> Identity {
    Identity {
        release: "6.18.0-synthetic".to_owned(),
        build_id: "00112233".to_owned(),
        boot_id: "a-boot".to_owned(),
    }
}

/// No journal.
pub(super) fn silent() -> Journal {
    Journal::unavailable("not part of this test")
}

fn jump_entry(memory: &mut FakeMemory, at: u64, (code, target, key): (u64, u64, u64)) {
    relative(memory, at, code);
    relative(memory, at + 4, target);
    memory.write_u64(at + 8, key.wrapping_sub(at + 8));
}

fn relative(memory: &mut FakeMemory, at: u64, target: u64) {
    memory.write_u32(at, target.wrapping_sub(at) as u32);
}

fn types() -> Vec<u8> {
    let mut types = Builder::new();
    let int = types.int("int", 4, true);
    let pointer = types.pointer(kernel_image::btf::TypeId(0));
    let atomic = types.structure("atomic_t", 4, &[("counter", int, 0)]);
    let long = types.structure("atomic_long_t", 8, &[("counter", pointer, 0)]);
    types.structure("mutex", 32, &[("owner", long, 0)]);
    types.structure("static_key", 16, &[("enabled", atomic, 0)]);
    types.structure("static_call_key", 16, &[("func", pointer, 0), ("type", pointer, 64)]);
    types.finish()
}
