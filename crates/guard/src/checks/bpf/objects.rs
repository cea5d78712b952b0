// SPDX-License-Identifier: Apache-2.0
//! BPF programs, maps and links from the kernel's own id tables.
//!
//! `prog_idr`, `map_idr` and `link_idr` (kernel/bpf/syscall.c) hold every object that user space
//! can have made, whether it is pinned, held by a descriptor or by an attachment.

use std::collections::{BTreeMap, HashMap, HashSet};

use kernel_memory::{Kernel, PAGE_SIZE};

use crate::check::Missing;
use crate::checks::looks;
use crate::fields::{Fields, Record};
use crate::recover::Recovered;
use crate::views::BpfKind;

/// A BPF object in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its id.
    pub id: u32,
    /// Where its structure is.
    pub address: u64,
}

/// The variable that holds the id table of a kind.
pub fn table_of(kind: BpfKind) -> &'static str {
    match kind {
        BpfKind::Program => "prog_idr",
        BpfKind::Map => "map_idr",
        BpfKind::Link => "link_idr",
    }
}

/// The kind in words.
pub fn word(kind: BpfKind) -> &'static str {
    match kind {
        BpfKind::Program => "program",
        BpfKind::Map => "map",
        BpfKind::Link => "link",
    }
}

/// What the id table of a kind holds now.
pub fn entries(
    kernel: &Kernel<'_>,
    recovered: &mut Recovered,
    kind: BpfKind,
) -> Result<Vec<Entry>, Missing> {
    let table = recovered.data_symbol(kernel, table_of(kind))?;
    let entries = looks::settled(|| kernel.idr(table.address))?;
    let entries = entries.into_iter().map(|(id, address)| Entry { id: id as u32, address });
    Ok(entries.collect())
}

/// A program, as its structures describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its id; 0 for one that never had or no longer has one.
    pub id: u32,
    /// Where its `struct bpf_prog` is.
    pub address: u64,
    /// Where its `struct bpf_prog_aux` is.
    pub aux: u64,
    /// Its name as its loader gave it, at most 15 bytes.
    pub name: String,
    /// `enum bpf_prog_type`.
    pub kind: u32,
    /// Where its code is.
    pub code: u64,
    /// Bytes of code.
    pub code_length: u32,
    /// Functions besides the main one, `struct bpf_prog **`.
    functions: u64,
    function_count: u32,
    /// The kernel function or type of tracepoint that it was made for, if it was made for one.
    pub made_for: Option<String>,
    /// `struct user_struct *` of who loaded it.
    user: u64,
    /// Whether its structures point at each other as they must.
    pub consistent: bool,
    /// Whether this kernel keeps it private to its init; see [`private_among`].
    pub private: bool,
}

/// Reads many programs. A program that is gone meanwhile is left out.
pub fn programs(kernel: &Kernel<'_>, addresses: &[u64]) -> Result<Vec<Program>, Missing> {
    let of_program = Fields::of(kernel, "bpf_prog", &["type", "jited_len", "bpf_func", "aux"])?;
    let mut members = vec!["id", "name", "prog", "user", "func", "func_cnt", "attach_func_name"];
    let has_private = kernel.object("bpf_prog_aux", 0)?.has("init_private");
    if has_private {
        members.push("init_private");
    }
    let of_aux = Fields::of(kernel, "bpf_prog_aux", &members)?;
    let heads: Vec<Record<'_>> = of_program.read(kernel, addresses).into_iter().flatten().collect();
    let auxes: Vec<u64> = heads.iter().map(|head| head.value(3)).collect();
    let auxes = of_aux.read(kernel, &auxes);
    let names: Vec<u64> =
        auxes.iter().map(|aux| aux.as_ref().map_or(0, |aux| aux.value(6))).collect();
    let made_for = names_at(kernel, &names);
    let all = heads.iter().zip(auxes).zip(made_for);
    let programs = all.filter_map(|((head, aux), made_for)| {
        let aux = aux?;
        Some(Program {
            id: aux.value(0) as u32,
            address: head.address,
            aux: aux.address,
            name: aux.text(1),
            kind: head.value(0) as u32,
            code: head.value(2),
            code_length: head.value(1) as u32,
            functions: aux.value(4),
            function_count: aux.value(5) as u32,
            made_for,
            user: aux.value(3),
            consistent: aux.value(2) == head.address,
            private: has_private && aux.value(7) != 0,
        })
    });
    Ok(programs.collect())
}

/// Strings at many addresses, null for none. Each is read with one read of as much as its page has.
fn names_at(kernel: &Kernel<'_>, addresses: &[u64]) -> Vec<Option<String>> {
    let ranges: Vec<(u64, u32)> = addresses
        .iter()
        .map(|address| match address {
            0 => (0, 0),
            address => (*address, (PAGE_SIZE - address % PAGE_SIZE).min(128) as u32),
        })
        .collect();
    let read = kernel.memory.read_many(&ranges).into_iter().zip(addresses);
    read.map(|(bytes, address)| {
        let bytes = bytes.ok().filter(|bytes| !bytes.is_empty())?;
        match bytes.iter().position(|byte| *byte == 0) {
            Some(0) => None,
            Some(end) => Some(String::from_utf8_lossy(bytes.get(..end)?).into_owned()),
            None => kernel.string_at(*address, 512).ok(),
        }
    })
    .collect()
}

impl Program {
    /// `program NAME (id N, type)`.
    pub fn title(&self, kernel: &Kernel<'_>) -> String {
        let kind = enumerator(kernel, "bpf_prog_type", self.kind, "BPF_PROG_TYPE_");
        format!("BPF program {} (id {}, {kind})", self.name, self.id)
    }

    /// The user who loaded it.
    pub fn uid(&self, kernel: &Kernel<'_>) -> Option<u32> {
        kernel.object("user_struct", self.user).ok()?.u32("uid").ok()
    }

    /// Where its code is, with that of its further functions.
    pub fn code_ranges(&self, kernel: &Kernel<'_>) -> Vec<(u64, u32)> {
        let mut ranges = vec![(self.code, self.code_length)];
        // A program may have BPF_MAX_SUBPROGS functions, 256 (include/linux/bpf_verifier.h).
        for index in 0..u64::from(self.function_count.min(256)) {
            let range = || {
                let function = kernel.u64_at(self.functions.wrapping_add(8 * index)).ok()?;
                let function = kernel.object("bpf_prog", function).ok()?;
                Some((function.u64("bpf_func").ok()?, function.u32("jited_len").ok()?))
            };
            ranges.extend(range());
        }
        ranges
    }
}

/// Which of these objects this kernel marks as private to its init.
///
/// Some kernels of hosting providers have a field `init_private` in BPF objects: the kernel itself
/// leaves such objects out of everything it tells other processes. Mainline has no such field, and
/// nothing is read then.
pub fn private_among(
    kernel: &Kernel<'_>,
    kind: BpfKind,
    addresses: &[u64],
) -> Result<HashSet<u64>, Missing> {
    let of = match kind {
        BpfKind::Program => "bpf_prog_aux",
        BpfKind::Map => "bpf_map",
        BpfKind::Link => "bpf_link",
    };
    if addresses.is_empty() || !kernel.object(of, 0)?.has("init_private") {
        return Ok(HashSet::new());
    }
    if kind == BpfKind::Program {
        let programs = programs(kernel, addresses)?;
        let private = programs.iter().filter(|program| program.private);
        return Ok(private.map(|program| program.address).collect());
    }
    let of_object = Fields::of(kernel, of, &["init_private"])?;
    // A record's address is that of the object, so the offset of the field does not matter.
    let records = of_object.read(kernel, addresses).into_iter().flatten();
    Ok(records.filter(|record| record.value(0) != 0).map(|record| record.address).collect())
}

/// Which of these links have no id of their own yet.
///
/// A link is in the id table before it is attached, and takes its id only when that has succeeded
/// (`bpf_link_prime` and `bpf_link_settle`, kernel/bpf/syscall.c). Attaching may wait for a text
/// poke, and meanwhile the bpf system call does not know the link and the iterator shows it as 0.
pub fn unsettled_links(kernel: &Kernel<'_>, addresses: &[u64]) -> Result<HashSet<u64>, Missing> {
    let fields = Fields::of(kernel, "bpf_link", &["id"])?;
    let records = fields.read(kernel, addresses);
    let unsettled = records.into_iter().flatten().filter(|record| record.value(0) as u32 == 0);
    Ok(unsettled.map(|record| record.address).collect())
}

/// The value of an enumeration in words: the enumerator without its prefix, in lower case.
pub fn enumerator(kernel: &Kernel<'_>, of: &str, value: u32, prefix: &str) -> String {
    kernel
        .types
        .find_enum(of)
        .and_then(|id| {
            let mut all = kernel.types.enumerators(id);
            let found = all.find(|enumerator| enumerator.value == i64::from(value))?;
            let name = found.name;
            Some(name.strip_prefix(prefix).unwrap_or(name).to_ascii_lowercase())
        })
        .unwrap_or_else(|| format!("type {value}"))
}

/// Programs by address, kept while others are looked at.
#[derive(Debug, Default)]
pub struct Inventory {
    by_address: BTreeMap<u64, Program>,
    by_code: HashMap<u64, u64>,
    by_target: HashMap<String, Vec<u64>>,
}

impl Inventory {
    /// All programs of the id table.
    pub fn gather(kernel: &Kernel<'_>, recovered: &mut Recovered) -> Result<Self, Missing> {
        let entries = entries(kernel, recovered, BpfKind::Program)?;
        let addresses: Vec<u64> = entries.iter().map(|entry| entry.address).collect();
        Ok(Self::of(programs(kernel, &addresses)?))
    }

    /// These programs.
    pub fn of(programs: Vec<Program>) -> Self {
        let mut by_target: HashMap<String, Vec<u64>> = HashMap::new();
        for program in &programs {
            if let Some(target) = &program.made_for {
                by_target.entry(target.clone()).or_default().push(program.address);
            }
        }
        let by_code = programs.iter().map(|program| (program.code, program.address)).collect();
        let by_address = programs.into_iter().map(|program| (program.address, program)).collect();
        Self { by_address, by_code, by_target }
    }

    /// The program whose `struct bpf_prog` is at `address`.
    pub fn at(&self, address: u64) -> Option<&Program> {
        self.by_address.get(&address)
    }

    /// The program whose main function is at `code`.
    pub fn with_code(&self, code: u64) -> Option<&Program> {
        self.at(*self.by_code.get(&code)?)
    }

    /// The programs that were made for a kernel function of this name.
    pub fn made_for(&self, function: &str) -> impl Iterator<Item = &Program> {
        let addresses = self.by_target.get(function).map(Vec::as_slice).unwrap_or_default();
        addresses.iter().filter_map(|address| self.at(*address))
    }

    /// All of them, in order of address.
    pub fn all(&self) -> impl Iterator<Item = &Program> {
        self.by_address.values()
    }
}
/// Each link with the program that it ties to a place.
pub(super) fn linked(
    kernel: &Kernel<'_>,
    recovered: &mut Recovered,
) -> Result<Vec<(u64, u64)>, Missing> {
    let links = entries(kernel, recovered, BpfKind::Link)?;
    let links: Vec<u64> = links.iter().map(|link| link.address).collect();
    let of_link = Fields::of(kernel, "bpf_link", &["prog"])?;
    let links = of_link.read(kernel, &links);
    Ok(links.iter().flatten().map(|link| (link.address, link.value(0))).collect())
}
