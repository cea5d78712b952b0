// SPDX-License-Identifier: Apache-2.0
//! The tables by which an x86-64 kernel patches itself, decoded to their sites.
//!
//! Most are in init memory and gone after boot, so the image is the only place to learn from. Where
//! a table has its own ELF section, that says where it is; the others lie in the middle of
//! `.rodata` or `.init.data`, and the symbols around them say it (`__start___jump_table`).
//!
//! A table is decoded as a whole or refused: each site must be code in the image, and where the
//! kind of instruction is known (a jump label is a nop or a jmp), it must be that. A wrong layout
//! shows at once, as its "sites" do not hit instructions.

mod alternatives;
mod boot;
mod place;
mod run;

pub use alternatives::{Alternative, VdsoImage};
pub use boot::{ParavirtSite, RuntimeConstant, RuntimeConstantKind};
pub use run::{FtraceCall, JumpLabel, Mcount, StaticCall, StaticCallKey};

pub(crate) use place::Source;

use crate::elf::Elf;
use crate::error::ImageError;
use crate::symbols::Symbols;

/// When the kernel changes the sites of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum When {
    /// Once, while booting (and, for `smp_locks`, when the second CPU comes up).
    Boot,
    /// At any time.
    Run,
}

/// Which table a site comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TableKind {
    /// `.parainstructions`, up to 6.7: calls through `pv_ops`.
    Paravirt,
    /// `.cfi_sites`: kCFI preambles, when built with clang.
    Cfi,
    /// `.retpoline_sites`: calls and jumps through an indirect thunk.
    Retpolines,
    /// `.return_sites`: jumps to the return thunk.
    Returns,
    /// `.altinstructions`: instructions with another form for some CPUs.
    Alternatives,
    /// `.call_sites`: direct calls, retargeted with call depth tracking (`retbleed=stuff`).
    Calls,
    /// `.ibt_endbr_seal`: `endbr64` of functions that are never called indirectly.
    EndbrSeals,
    /// `.smp_locks`, in 6.18 and not in 7.3: `lock` prefixes that a single CPU does without.
    SmpLocks,
    /// `runtime_ptr_*`, `runtime_shift_*`, `runtime_mask_*`, from 6.11: immediates set at boot.
    RuntimeConstants,
    /// `__mcount_loc`: the call to `__fentry__` at the start of each function that can be traced.
    Mcount,
    /// `__jump_table`: jump labels (static keys).
    JumpLabels,
    /// `.static_call_sites`: calls through a static call.
    StaticCalls,
    /// The `__SCT__*` trampolines of static calls.
    StaticCallTrampolines,
    /// `ftrace_call` and its like: the calls inside ftrace's own entry code.
    FtraceCalls,
}

impl TableKind {
    /// All kinds, in the order in which [`Tables`] has them.
    pub const ALL: [Self; 14] = [
        Self::Paravirt,
        Self::Cfi,
        Self::Retpolines,
        Self::Returns,
        Self::Alternatives,
        Self::Calls,
        Self::EndbrSeals,
        Self::SmpLocks,
        Self::RuntimeConstants,
        Self::Mcount,
        Self::JumpLabels,
        Self::StaticCalls,
        Self::StaticCallTrampolines,
        Self::FtraceCalls,
    ];

    /// The name, after the kernel's own for the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Paravirt => "parainstructions",
            Self::Cfi => "cfi_sites",
            Self::Retpolines => "retpoline_sites",
            Self::Returns => "return_sites",
            Self::Alternatives => "altinstructions",
            Self::Calls => "call_sites",
            Self::EndbrSeals => "ibt_endbr_seal",
            Self::SmpLocks => "smp_locks",
            Self::RuntimeConstants => "runtime_const",
            Self::Mcount => "mcount_loc",
            Self::JumpLabels => "jump_table",
            Self::StaticCalls => "static_call_sites",
            Self::StaticCallTrampolines => "static_call_trampolines",
            Self::FtraceCalls => "ftrace_calls",
        }
    }

    /// When its sites change.
    pub fn when(self) -> When {
        match self {
            Self::Mcount
            | Self::JumpLabels
            | Self::StaticCalls
            | Self::StaticCallTrampolines
            | Self::FtraceCalls => When::Run,
            _ => When::Boot,
        }
    }
}

/// Bytes of code that the kernel may change, as linked (without the slide of KASLR).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Site {
    /// The table that lists it.
    pub table: TableKind,
    /// Address of the first byte.
    pub address: u64,
    /// How many bytes may change.
    pub length: u8,
}

/// Where in memory a table itself is, as linked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableBounds {
    /// Which table.
    pub table: TableKind,
    /// The section's name, or the symbol at its start.
    pub name: String,
    /// Address of the first entry.
    pub address: u64,
    /// Size in bytes.
    pub size: u64,
    /// Size of an entry in bytes.
    pub entry_size: u64,
}

/// A named place: a symbol of interest that is patched or called through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedAddress {
    /// The symbol.
    pub name: String,
    /// Its address as linked.
    pub address: u64,
}

/// An instruction of one of several lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Instruction {
    /// Address of the first byte, as linked.
    pub address: u64,
    /// Length in bytes.
    pub length: u8,
}

/// Every self-patching table of an image. All addresses are as linked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// Calls through `pv_ops` (6.1 to 6.7).
    pub paravirt: Vec<ParavirtSite>,
    /// kCFI preambles: the address of the 16 bytes before a function.
    pub cfi: Vec<u64>,
    /// Calls (5 bytes), conditional jumps and calls with a `cs` prefix (6) to indirect thunks.
    pub retpolines: Vec<Instruction>,
    /// `jmp __x86_return_thunk`, 5 bytes each.
    pub returns: Vec<u64>,
    /// Alternatives, in the order in which the kernel applies them: a later one may overwrite an
    /// earlier one at the same place.
    pub alternatives: Vec<Alternative>,
    /// The vDSO images, with alternatives of their own that are in no other list: they change
    /// read-only data and not text.
    pub vdso_images: Vec<VdsoImage>,
    /// Direct calls, 5 bytes each.
    pub calls: Vec<u64>,
    /// `endbr64`, 4 bytes each.
    pub endbr_seals: Vec<u64>,
    /// `lock` prefixes, 1 byte each.
    pub smp_locks: Vec<u64>,
    /// Immediates of run-time constants.
    pub runtime_constants: Vec<RuntimeConstant>,
    /// Function entries that ftrace can patch.
    pub mcount: Mcount,
    /// Jump labels.
    pub jump_labels: Vec<JumpLabel>,
    /// Static call sites.
    pub static_calls: Vec<StaticCall>,
    /// Trampolines of static calls: `__SCT__` symbols, 5 bytes each that may change, then the
    /// signature `0f b9 cc`.
    pub static_call_trampolines: Vec<NamedAddress>,
    /// Which trampoline belongs to which key, for the keys that modules may use.
    pub static_call_keys: Vec<StaticCallKey>,
    /// The call instructions inside ftrace's entry code.
    pub ftrace_calls: Vec<FtraceCall>,
    /// BPF dispatcher functions (`bpf_dispatcher_*_func`). The call from them is a static call;
    /// they are listed to tell them by name.
    pub bpf_dispatchers: Vec<NamedAddress>,
    /// Where the tables themselves are; those made from symbols have no bounds.
    pub bounds: Vec<TableBounds>,
}

impl Tables {
    pub(crate) fn decode(source: &Source<'_>) -> Result<Self, ImageError> {
        let mut tables = Self::default();
        boot::decode(source, &mut tables)?;
        alternatives::decode(source, &mut tables)?;
        run::decode(source, &mut tables)?;
        Ok(tables)
    }

    /// The tables of a vmlinux whose symbols are known from elsewhere, such as a System.map.
    ///
    /// # Errors
    /// When the ELF is no x86-64 kernel's, or a table does not lead to the instructions it is for.
    pub fn of_elf(elf: &[u8], symbols: &Symbols) -> Result<Self, ImageError> {
        let headers = Elf::parse(elf)?;
        Self::decode(&Source { elf, headers: &headers, symbols })
    }

    /// Where a table itself is; several for [`TableKind::RuntimeConstants`].
    pub fn bounds_of(&self, table: TableKind) -> impl Iterator<Item = &TableBounds> {
        self.bounds.iter().filter(move |bounds| bounds.table == table)
    }

    /// The size of an entry of the table of alternatives, in bytes.
    pub(crate) fn alternative_size(&self) -> Option<u64> {
        self.bounds_of(TableKind::Alternatives).next().map(|bounds| bounds.entry_size)
    }

    /// How many sites a table has. Padding and the entries of discarded functions are not counted.
    pub fn count(&self, table: TableKind) -> usize {
        match table {
            TableKind::Paravirt => self.paravirt.len(),
            TableKind::Cfi => self.cfi.len(),
            TableKind::Retpolines => self.retpolines.len(),
            TableKind::Returns => self.returns.len(),
            TableKind::Alternatives => self.alternatives.len(),
            TableKind::Calls => self.calls.len(),
            TableKind::EndbrSeals => self.endbr_seals.len(),
            TableKind::SmpLocks => self.smp_locks.len(),
            TableKind::RuntimeConstants => {
                self.runtime_constants.iter().map(|constant| constant.sites.len()).sum()
            }
            TableKind::Mcount => self.mcount.sites.len(),
            TableKind::JumpLabels => self.jump_labels.len(),
            TableKind::StaticCalls => self.static_calls.len(),
            TableKind::StaticCallTrampolines => self.static_call_trampolines.len(),
            TableKind::FtraceCalls => self.ftrace_calls.len(),
        }
    }

    /// The sites of one table, in its order.
    pub fn sites_of(&self, table: TableKind) -> Box<dyn Iterator<Item = Site> + '_> {
        let site = move |address, length| Site { table, address, length };
        match table {
            TableKind::Paravirt => {
                Box::new(self.paravirt.iter().map(move |entry| site(entry.address, entry.length)))
            }
            TableKind::Cfi => Box::new(self.cfi.iter().map(move |at| site(*at, 16))),
            TableKind::Retpolines => {
                Box::new(self.retpolines.iter().map(move |entry| site(entry.address, entry.length)))
            }
            TableKind::Returns => Box::new(self.returns.iter().map(move |at| site(*at, 5))),
            TableKind::Alternatives => Box::new(
                self.alternatives.iter().map(move |entry| site(entry.address, entry.length)),
            ),
            TableKind::Calls => Box::new(self.calls.iter().map(move |at| site(*at, 5))),
            TableKind::EndbrSeals => Box::new(self.endbr_seals.iter().map(move |at| site(*at, 4))),
            TableKind::SmpLocks => Box::new(self.smp_locks.iter().map(move |at| site(*at, 1))),
            TableKind::RuntimeConstants => {
                Box::new(self.runtime_constants.iter().flat_map(move |constant| {
                    let length = constant.kind.length();
                    constant.sites.iter().map(move |at| site(*at, length))
                }))
            }
            TableKind::Mcount => Box::new(self.mcount.sites.iter().map(move |at| site(*at, 5))),
            TableKind::JumpLabels => Box::new(
                self.jump_labels.iter().map(move |entry| site(entry.address, entry.length)),
            ),
            TableKind::StaticCalls => Box::new(
                self.static_calls.iter().map(move |entry| site(entry.address, entry.length)),
            ),
            TableKind::StaticCallTrampolines => Box::new(
                self.static_call_trampolines.iter().map(move |entry| site(entry.address, 5)),
            ),
            TableKind::FtraceCalls => {
                Box::new(self.ftrace_calls.iter().map(move |entry| site(entry.address, 5)))
            }
        }
    }

    /// All sites of all tables. Sites of different tables overlap: an alternative may hold a call
    /// that is a call site, and a static call trampoline may be a return site.
    pub fn sites(&self) -> impl Iterator<Item = Site> + '_ {
        TableKind::ALL.into_iter().flat_map(|table| self.sites_of(table))
    }
}
