// SPDX-License-Identifier: Apache-2.0
//! Whose code stands at an address.
//!
//! The kernel keeps lists of all code that it made executable after boot: modules, BPF images
//! (`bpf_kallsyms`: programs, their functions, trampolines, dispatchers), ftrace trampolines. What
//! is neither core text nor in one of them has no owner, however it came there.

use std::collections::BTreeSet;
use std::ops::Range;

use kernel_memory::{AccessError, Kernel};

use crate::check::Missing;
use crate::checks::looks;
use crate::fields::{Chain, Fields};
use crate::recover::Recovered;

/// BPF images that one kernel can have; its list is not followed further.
const MOST_IMAGES: usize = 1 << 20;

/// More modules than any kernel has.
const MOST_MODULES: usize = 1 << 16;

/// Who owns code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The kernel's own text: symbol and offset.
    Kernel {
        /// The function.
        symbol: String,
        /// Bytes from its start.
        offset: u64,
    },
    /// A module's text.
    Module(String),
    /// A BPF image, by the name the kernel gives it.
    Bpf(String),
    /// A trampoline of ftrace, by the function that it leads to.
    FtraceTrampoline(String),
}

impl Owner {
    /// Whether this is the code of a BPF program, or of a function of one.
    pub fn is_bpf_program(&self) -> bool {
        matches!(self, Self::Bpf(name) if name.starts_with("bpf_prog_"))
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Kernel { .. } => f.write_str("kernel"),
            Self::Module(name) => write!(f, "module {name}"),
            Self::Bpf(name) => write!(f, "BPF image {name}"),
            Self::FtraceTrampoline(function) => write!(f, "ftrace trampoline to {function}"),
        }
    }
}

/// Where a range of code came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Its addresses.
    pub range: Range<u64>,
    /// Its owner.
    pub owner: Owner,
    /// Whether it is a table that only lies among code.
    pub is_data: bool,
}

/// All code with an owner, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Owners {
    /// Core text, `_stext.._etext`.
    pub text: Range<u64>,
    /// Everything else, in order of address.
    pub images: Vec<Image>,
    /// Modules and the functions that they began with, by the addresses of both. The kernel gives the memory
    /// of those back and leaves the pointers (`do_init_module`, kernel/module/main.c, 6.1 to 7.3).
    pub begun: BTreeSet<(u64, u64)>,
    /// The lists that could not be read, and why.
    pub unseen: Vec<String>,
}

impl Owners {
    /// Reads the kernel's lists.
    pub fn gather(kernel: &Kernel<'_>, recovered: &mut Recovered) -> Self {
        let bound = |name| kernel.symbols.address_of(name).unwrap_or(0);
        let mut owners = Self { text: bound("_stext")..bound("_etext"), ..Self::default() };
        owners.add_bpf(kernel, recovered);
        owners.add_modules(kernel, recovered);
        owners.add_ftrace(kernel, recovered);
        owners.images.retain(|image| !image.range.is_empty());
        owners.images.sort_by_key(|image| image.range.start);
        owners
    }

    /// Who owns the code at `address`, if anybody does.
    pub fn of(&self, kernel: &Kernel<'_>, address: u64) -> Option<Owner> {
        if self.text.contains(&address) {
            let (symbol, offset) = kernel.symbols.containing(address)?;
            return Some(Owner::Kernel { symbol: symbol.name.to_owned(), offset });
        }
        let after = self.images.partition_point(|image| image.range.start <= address);
        // Ranges of one list do not overlap, those of different lists might where one is forged.
        self.images
            .get(..after)?
            .iter()
            .rev()
            .take(4)
            .find(|image| image.range.contains(&address) && !image.is_data)
            .map(|image| image.owner.clone())
    }

    /// The code at `address` in words: symbol and offset, or whose image it is in.
    pub fn describe(&self, kernel: &Kernel<'_>, address: u64) -> String {
        match self.of(kernel, address) {
            Some(Owner::Kernel { symbol, offset: 0 }) => symbol,
            Some(Owner::Kernel { symbol, offset }) => format!("{symbol}+{offset:#x}"),
            Some(Owner::Bpf(name)) => name,
            Some(owner) => format!("{address:#x} in {owner}"),
            None => format!("{address:#x}"),
        }
    }

    fn add(&mut self, start: u64, length: u64, owner: Owner) {
        let end = start.saturating_add(length);
        self.images.push(Image { range: start..end, owner, is_data: false });
    }

    fn add_bpf(&mut self, kernel: &Kernel<'_>, recovered: &mut Recovered) {
        let walked = recovered
            .data_symbol(kernel, "bpf_kallsyms")
            .and_then(|head| self.walk_bpf(kernel, recovered, head.address));
        match walked {
            Ok(symbols) => self.add_exception_tables(kernel, &symbols),
            Err(missing) => self.unseen.push(missing.0),
        }
    }

    /// Adds each image of the list, and gives the addresses of their `struct bpf_ksym`.
    fn walk_bpf(
        &mut self,
        kernel: &Kernel<'_>,
        recovered: &mut Recovered,
        head: u64,
    ) -> Result<Vec<u64>, Missing> {
        let fields = Fields::of(kernel, "bpf_ksym", &["start", "end", "name", "lnode.next"])?;
        let link = kernel.offset_of("bpf_ksym", "lnode")?;
        let chain = Chain { head, link, next: 3, end: head, most: MOST_IMAGES };
        let walked = looks::settled(|| recovered.chains.walk(kernel, &fields, chain));
        let records = walked.map_err(|at| {
            Missing(format!("the list of BPF images breaks off or does not end, at {at:#x}"))
        })?;
        for record in &records {
            let (start, end) = (record.value(0), record.value(1));
            self.add(start, end.saturating_sub(start), Owner::Bpf(record.text(2)));
        }
        Ok(records.iter().map(|record| record.address).collect())
    }

    /// A program that reads kernel memory directly has a table of its loads that may fault, in
    /// executable memory behind its code (`bpf_int_jit_compile`, arch/x86/net/bpf_jit_comp.c). It
    /// is taken for one only if each entry is about an instruction of the program.
    fn add_exception_tables(&mut self, kernel: &Kernel<'_>, symbols: &[u64]) {
        let members = ["extable", "num_exentries", "ksym.start", "ksym.end", "ksym.name"];
        let layout = || -> Result<(Fields, u64, u64), AccessError> {
            let fields = Fields::of(kernel, "bpf_prog_aux", &members)?;
            let symbol = kernel.offset_of("bpf_prog_aux", "ksym")?;
            Ok((fields, symbol, kernel.size_of("exception_table_entry")?))
        };
        let Ok((fields, symbol, entry)) = layout() else { return };
        // Trampolines and dispatchers are in the list too, but not within a `bpf_prog_aux`.
        let programs: Vec<u64> = self
            .images
            .iter()
            .zip(symbols)
            .filter(|(image, _)| image.owner.is_bpf_program())
            .map(|(_, at)| at.wrapping_sub(symbol))
            .collect();
        let records = fields.read(kernel, &programs);
        let with_table = records.iter().flatten().filter(|record| record.value(1) != 0);
        for program in with_table {
            let (start, length) = (program.value(0), program.value(1).min(1 << 16) * entry);
            let Ok(table) = kernel.bytes_at(start, length as usize) else { continue };
            let code = program.value(2)..program.value(3);
            // `int insn`, relative to itself, is the first field.
            let entries = table.chunks_exact(entry.max(4) as usize).zip(0..);
            let mut targets = entries.filter_map(|(bytes, index): (&[u8], u64)| {
                let offset = i32::from_le_bytes(*bytes.first_chunk::<4>()?);
                Some(start.wrapping_add(index * entry).wrapping_add_signed(i64::from(offset)))
            });
            if targets.all(|target| code.contains(&target)) {
                let (range, owner) = (start..start + length, Owner::Bpf(program.text(4)));
                self.images.push(Image { range, owner, is_data: true });
            }
        }
    }

    /// Module text: `mem[MOD_TEXT]` from 6.4 on, `core_layout` before (include/linux/module.h).
    fn add_modules(&mut self, kernel: &Kernel<'_>, recovered: &mut Recovered) {
        if !kernel.object("module", 0).is_ok_and(|module| module.has("mkobj")) {
            return;
        }
        let head = match recovered.data_symbol(kernel, "modules") {
            Ok(head) => head.address,
            Err(missing) => return self.note_modules(kernel, missing.0),
        };
        if self.walk_modules(kernel, recovered, head).is_none() {
            self.unseen.push("the list of modules changed while it was read".to_owned());
        }
    }

    fn walk_modules(
        &mut self,
        kernel: &Kernel<'_>,
        recovered: &mut Recovered,
        head: u64,
    ) -> Option<()> {
        const LAYOUTS: [(&str, &str); 4] = [
            ("mem[0].base", "mem[0].size"),
            ("mem[4].base", "mem[4].size"),
            ("core_layout.base", "core_layout.text_size"),
            ("init_layout.base", "init_layout.text_size"),
        ];
        let module = kernel.object("module", 0).ok()?;
        let mut members = vec!["list.next", "name", "init"];
        for (base, size) in LAYOUTS {
            if module.has(base) && module.has(size) {
                members.extend([base, size]);
            }
        }
        let fields = Fields::of(kernel, "module", &members).ok()?;
        let link = kernel.offset_of("module", "list").ok()?;
        let chain = Chain { head, link, next: 0, end: head, most: MOST_MODULES };
        let walked = looks::settled(|| recovered.chains.walk(kernel, &fields, chain)).ok()?;
        for record in &walked {
            self.begun.insert((record.address, record.value(2)));
            for base in (3..members.len()).step_by(2) {
                let owner = Owner::Module(record.text(1));
                self.add(record.value(base), record.value(base + 1), owner);
            }
        }
        Some(())
    }

    /// A kernel without modules has nothing to be missed.
    fn note_modules(&mut self, kernel: &Kernel<'_>, reason: String) {
        if kernel.symbols.address_of("__do_sys_init_module").is_some()
            || kernel.symbols.address_of("load_module").is_some()
        {
            self.unseen.push(reason);
        }
    }

    /// Trampolines made for one user of ftrace each; they stay while it is idle. The kernel's own
    /// trampolines are core text and have no size.
    fn add_ftrace(&mut self, kernel: &Kernel<'_>, recovered: &mut Recovered) {
        // Without CONFIG_DYNAMIC_FTRACE there are none; the check of hooks says so.
        let Ok(head) = recovered.data_symbol(kernel, "ftrace_ops_trampoline_list") else { return };
        for ops in kernel.list(head.address, "ftrace_ops", "list") {
            let fields = ops.and_then(|ops| {
                Ok((ops.u64("trampoline")?, ops.u64("trampoline_size")?, ops.u64("func")?))
            });
            let Ok((start, length, function)) = fields else {
                self.unseen.push("the list of ftrace trampolines changed while read".to_owned());
                return;
            };
            let name = match kernel.symbols.containing(function) {
                Some((symbol, _)) if self.text.contains(&function) => symbol.name.to_owned(),
                _ => format!("{function:#x}"),
            };
            self.add(start, length, Owner::FtraceTrampoline(name));
        }
    }
}
