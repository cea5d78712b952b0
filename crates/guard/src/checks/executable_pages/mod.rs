// SPDX-License-Identifier: Apache-2.0
//! Executable pages: the kernel's page tables against all code that has an owner.
//!
//! Code must be mapped executable to run, so whoever hides a module, loads code without one or
//! copies it into spare memory shows here, whatever lists were cleaned: the page tables are what
//! the processor goes by. Each executable page must belong to core text, a module, a BPF image, an
//! ftrace trampoline, kprobe slots or one of the few pages that the architecture needs; none may be
//! writable too; and no other executable address may lead to the memory of the text.
//!
//! BPF images lie 64 bytes apart in shared pages, so there what stands *between* images is looked
//! at as well. Classic filters (sockets, seccomp) are images that no list of the kernel has; they
//! are recognised by the program structure that leads to them, and reported as hooks.
//!
//! Not walked: page tables other than the kernel's own, such as those for EFI runtime calls.

mod carve;
mod filler;
mod freeing;
mod known;
mod regions;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::{ControlFlow, Range};
use std::time::{Duration, Instant};

use filler::Stretch;
use freeing::{FREEING, Freeing, GracePeriods, Seen};
use kernel_memory::page_tables::{DirectMap, Mapping, Only, PageTables};
use kernel_memory::{Kernel, PAGE_SIZE};
use regions::{Kind, Region};

use super::bpf::objects::{self, Program};
use super::looks;
use crate::check::{About, Check, Missing, Outcome, System};
use crate::code;
use crate::finding::{Finding, Hook};
use crate::owners::{Owner, Owners};
use crate::recover::Recovered;

/// Long enough for a BPF program or trampoline that is being made to be announced.
const PAUSE: Duration = Duration::from_millis(3);

/// Findings of one run: pages that a rootkit mapped are few, a misread table gives thousands.
const MOST_FINDINGS: usize = 32;

/// No more of one stretch is looked at.
const MOST_BYTES: u64 = 64 << 20;

/// What is wrong with executable memory somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    /// Writable and executable.
    Writable,
    /// Executable, with no owner.
    NoOwner,
    /// Leads to the memory of the kernel's text by another address.
    Alias,
    /// An address of the text leads to other memory than the rest of the text.
    Remapped,
    /// What lies behind an ftrace trampoline in its page has changed.
    ChangedTail,
}

impl Fault {
    fn technique(self) -> &'static str {
        match self {
            Self::Writable => "memory writable and executable",
            Self::NoOwner => "executable memory without an owner",
            Self::Alias => "executable alias of kernel text",
            Self::Remapped => "kernel text remapped to other memory",
            Self::ChangedTail => "code placed behind an ftrace trampoline",
        }
    }

    fn expected(self) -> &'static str {
        match self {
            Self::Writable => "memory is writable or executable, never both",
            Self::NoOwner => {
                "executable memory belongs to the kernel's text, a module, a BPF image, an ftrace \
                 trampoline or kprobe slots"
            }
            Self::Alias => "the memory of the text is executable at the addresses of the text only",
            Self::Remapped => "the text is one physically contiguous range",
            Self::ChangedTail => "the rest of the page of an ftrace trampoline does not change",
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct ExecutablePages {
    recovered: Recovered,
    map: Option<DirectMap>,
    /// Where the program structures of classic filters were found, by the address of their code.
    filters: BTreeMap<u64, u64>,
    /// Digests of what lies behind ftrace trampolines, by trampoline.
    tails: BTreeMap<(u64, u64), u64>,
    freeing: Freeing,
    /// What had an owner when one looked last, and the stretches in which something had none.
    seen: Seen,
    unowned: BTreeMap<u64, Range<u64>>,
    known: known::Known,
}

impl Check for ExecutablePages {
    fn name(&self) -> &'static str {
        "executable_pages"
    }

    fn about(&self) -> About {
        About {
            needs: "the root of the kernel's page tables (init_mm from symbol table or code, or \
                    the calling task) and the direct map",
            reads: "the kernel's page tables, the lists of BPF images, modules and ftrace \
                    trampolines, and executable memory between images",
            means: "there is executable memory that belongs to nobody, is writable, or leads to \
                    the text by another address: hidden code, however it was hidden",
            blind_to: "code within pages that have an owner (the checks of text see that); page \
                       tables of EFI and of the hypervisor; whether the processor uses these tables",
        }
    }

    fn run(&mut self, system: &System<'_>, outcome: &mut Outcome) -> Result<(), Missing> {
        let kernel = &system.kernel;
        let (root, map) = self.root(system)?;
        let tables = PageTables::new(kernel.memory, root, map);
        let mut hooks = BTreeMap::new();
        let mut unseen = BTreeSet::new();
        self.known.begin();
        let is_first = self.freeing.is_first();
        let mut look = || self.look(kernel, &tables, &mut hooks, &mut unseen);
        let mut faults = looks::lasting(PAUSE, &mut look)?;
        // Nothing is known of who had what before: here one has to wait.
        if is_first {
            let unowned = |(fault, _): &(Fault, u64)| *fault == Fault::NoOwner;
            faults = looks::outlasting(faults, FREEING, unowned, look)?;
        }
        let unowned = faults.iter().filter(|(fault, _)| *fault == Fault::NoOwner);
        let stretch = |(_, at): &(Fault, u64)| {
            (*at, self.unowned.get(at).cloned().unwrap_or(*at..at.saturating_add(1)))
        };
        let unowned: Vec<_> = unowned.map(stretch).collect();
        let grace = if unowned.is_empty() { None } else { self.grace_periods(kernel) };
        let seen = std::mem::take(&mut self.seen);
        let excused = self.freeing.excused(Instant::now(), grace, unowned.into_iter(), seen);
        faults.retain(|(fault, address)| *fault != Fault::NoOwner || !excused.contains(address));
        outcome.reduced.extend(unseen);
        outcome.hooks.extend(hooks.into_values());
        for (fault, address) in faults.iter().take(MOST_FINDINGS) {
            outcome.findings.push(finding(kernel, &tables, *fault, *address));
        }
        if faults.len() > MOST_FINDINGS {
            outcome.reduced.push(format!("{} further places", faults.len() - MOST_FINDINGS));
        }
        Ok(())
    }
}

impl ExecutablePages {
    /// How many grace periods of RCU there were; nothing where the kernel does not name its count.
    fn grace_periods(&mut self, kernel: &Kernel<'_>) -> Option<GracePeriods> {
        let state = self.recovered.data_symbol(kernel, "rcu_state").ok()?;
        let sequence = kernel.object("rcu_state", state.address).ok()?.u64("gp_seq").ok()?;
        Some(GracePeriods(sequence))
    }

    /// The root of the page tables and the direct map, found once.
    fn root(&mut self, system: &System<'_>) -> Result<(u64, DirectMap), Missing> {
        let kernel = &system.kernel;
        let own = || -> Result<u64, Missing> {
            let task = kernel.object("task_struct", system.views.current_task()?)?;
            Ok(task.u64("active_mm->pgd").or_else(|_| task.u64("mm->pgd"))?)
        };
        let own = own().or_else(|missing| self.any_root(kernel).ok_or(missing))?;
        let map = match self.map {
            Some(map) => map,
            None => DirectMap::find(kernel.memory, own).ok_or_else(|| {
                Missing(format!("the direct map cannot be told from the page tables at {own:#x}"))
            })?,
        };
        self.map = Some(map);
        // The tables of the kernel itself have its half alone.
        let kernels_own = self.recovered.data_symbol(kernel, "init_mm").ok();
        let kernels_own = kernels_own.and_then(|mm| {
            kernel.object("mm_struct", mm.address).and_then(|mm| mm.u64("pgd")).ok()
        });
        Ok((kernels_own.unwrap_or(own), map))
    }

    /// The root of any process: for images that no task of ours runs in.
    fn any_root(&mut self, kernel: &Kernel<'_>) -> Option<u64> {
        let first = self.recovered.data_symbol(kernel, "init_task").ok()?;
        let tasks = super::tasks::processes(kernel, first.address).ok()?;
        tasks.iter().find_map(|task| kernel.object("task_struct", *task).ok()?.u64("mm->pgd").ok())
    }

    fn look(
        &mut self,
        kernel: &Kernel<'_>,
        tables: &PageTables<'_>,
        hooks: &mut BTreeMap<u64, Hook>,
        unseen: &mut BTreeSet<String>,
    ) -> Result<BTreeSet<(Fault, u64)>, Missing> {
        let owners = Owners::gather(kernel, &mut self.recovered);
        unseen.extend(owners.unseen.iter().cloned());
        let base = tables.direct_map().base;
        let regions = regions::gather(kernel, &mut self.recovered, &owners, base);
        self.seen = Seen {
            owned: regions.iter().map(|region| region.range.clone()).collect(),
            begun: owners.begun.clone(),
        };
        self.unowned.clear();
        let mut mappings = Vec::new();
        let walked = tables
            .walk(Only::Executable, &mut |mapping| {
                mappings.push(mapping);
                ControlFlow::Continue(())
            })
            .map_err(Missing::because)?;
        if let Some(table) = walked.unreadable.first() {
            unseen.insert(format!(
                "{} page tables could not be read, the first for {:#x}",
                walked.unreadable.len(),
                table.start
            ));
        }
        let mut faults = BTreeSet::new();
        let memory_of_text = self.text_memory(tables, &owners, &mut faults)?;
        for mapping in &mappings {
            placement(mapping, &owners.text, memory_of_text, &mut faults);
            for (range, behind) in regions::uncovered(mapping.start..mapping.end(), &regions) {
                self.judge(kernel, tables, &range, behind, hooks, &mut faults);
            }
        }
        self.watch_tails(kernel, &owners, &mut faults);
        Ok(faults)
    }

    /// The physical address of the start of the text; notes each page that is not where it should
    /// be from there.
    fn text_memory(
        &self,
        tables: &PageTables<'_>,
        owners: &Owners,
        faults: &mut BTreeSet<(Fault, u64)>,
    ) -> Result<u64, Missing> {
        let start = owners.text.start;
        let first = tables.translate(start).map_err(Missing::because)?;
        let first = first.ok_or_else(|| Missing(format!("{start:#x} is not mapped")))?.physical;
        let mut at = start;
        while at < owners.text.end {
            let Some(found) = tables.translate(at).map_err(Missing::because)? else {
                // The check of the text tells of it.
                at = (at | (PAGE_SIZE - 1)) + 1;
                continue;
            };
            if found.physical != first + (at - start) {
                faults.insert((Fault::Remapped, at));
            }
            at = (at | (found.page_size - 1)) + 1;
        }
        Ok(first)
    }

    /// Explains executable memory that no region covers.
    fn judge(
        &mut self,
        kernel: &Kernel<'_>,
        tables: &PageTables<'_>,
        range: &Range<u64>,
        behind: Option<&Region>,
        hooks: &mut BTreeMap<u64, Hook>,
        faults: &mut BTreeSet<(Fault, u64)>,
    ) {
        let range = range.start..range.end.min(range.start.saturating_add(MOST_BYTES));
        let next = behind.filter(|region| region.kind == Kind::Bpf).map(|region| &region.range);
        let Ok(strangers) = self.known.strangers(kernel.memory, &range, next) else {
            self.unowned.insert(range.start, range.clone());
            faults.insert((Fault::NoOwner, range.start));
            return;
        };
        for stretch in strangers {
            let address = match stretch {
                Stretch::Foreign(address) => address,
                Stretch::Unlisted { code, end } => {
                    match self.filter_at(kernel, tables, code, end) {
                        Some(hook) => {
                            hooks.insert(code, hook);
                            continue;
                        }
                        None => code,
                    }
                }
            };
            self.unowned.insert(address, range.clone());
            faults.insert((Fault::NoOwner, address));
        }
    }

    /// The classic filter whose code is at `code`, from what was found before or by a search.
    fn filter_at(
        &mut self,
        kernel: &Kernel<'_>,
        tables: &PageTables<'_>,
        code: u64,
        end: u64,
    ) -> Option<Hook> {
        let at = |filters: &BTreeMap<u64, u64>| -> Option<Program> {
            let programs = objects::programs(kernel, &[*filters.get(&code)?]).ok()?;
            programs.into_iter().find(|program| carve::is_filter(program) && program.code == code)
        };
        let program = at(&self.filters).or_else(|| {
            self.filters = carve::filters(kernel, &mut self.recovered, tables);
            at(&self.filters)
        })?;
        if code + u64::from(program.code_length) > end {
            return None;
        }
        Some(Hook {
            mechanism: "bpf",
            target: "packets of a socket or system calls of a process".to_owned(),
            handler: format!("classic filter at {code:#x}, {} bytes", program.code_length),
            owner: "its socket or process; the kernel keeps no list".to_owned(),
        })
    }

    fn watch_tails(
        &mut self,
        kernel: &Kernel<'_>,
        owners: &Owners,
        faults: &mut BTreeSet<(Fault, u64)>,
    ) {
        let mut tails = BTreeMap::new();
        for image in &owners.images {
            if !matches!(image.owner, Owner::FtraceTrampoline(_)) {
                continue;
            }
            let (start, end) = (image.range.end, regions::page_after(image.range.end));
            let Ok(bytes) = kernel.bytes_at(start, (end - start) as usize) else { continue };
            let mut hasher = DefaultHasher::new();
            bytes.hash(&mut hasher);
            let key = (image.range.start, image.range.end);
            let digest = self.tails.get(&key).copied().unwrap_or_else(|| hasher.finish());
            if digest != hasher.finish() {
                faults.insert((Fault::ChangedTail, start));
            }
            tails.insert(key, digest);
        }
        self.tails = tails;
    }
}

/// Notes what is wrong with where and how a mapping is.
fn placement(
    mapping: &Mapping,
    text: &Range<u64>,
    memory_of_text: u64,
    faults: &mut BTreeSet<(Fault, u64)>,
) {
    if mapping.permissions.writable {
        faults.insert((Fault::Writable, mapping.start));
    }
    let in_text = text.contains(&mapping.start);
    let memory = memory_of_text..memory_of_text + (text.end - text.start);
    let overlaps = mapping.physical.is_some_and(|physical| {
        physical < memory.end && memory.start < physical.saturating_add(mapping.length)
    });
    if overlaps && !in_text {
        faults.insert((Fault::Alias, mapping.start));
    }
}

fn finding(kernel: &Kernel<'_>, tables: &PageTables<'_>, fault: Fault, address: u64) -> Finding {
    let text = ["_stext", "_etext"].map(|name| kernel.symbols.address_of(name).unwrap_or(0));
    let text = (text[0], text[1]);
    let in_page = (PAGE_SIZE - address % PAGE_SIZE) as usize;
    let bytes = kernel.bytes_at(address, in_page.min(32)).unwrap_or_default();
    let lines = code::disassemble(&bytes, address, kernel.symbols, text);
    let mut evidence = vec![format!("seen in each of {} looks", looks::LOOKS)];
    if let Ok(Some(page)) = tables.translate(address) {
        evidence.push(format!(
            "physical address {:#x}, page of {} KiB, {}{}",
            page.physical,
            page.page_size >> 10,
            if page.permissions.writable { "writable" } else { "read-only" },
            if page.permissions.user { ", open to user mode" } else { "" },
        ));
    }
    let symbol = kernel.symbols.containing(address).filter(|_| (text.0..text.1).contains(&address));
    Finding {
        check: "executable_pages",
        symbol: symbol.map(|(symbol, _)| symbol.name.to_owned()),
        offset: symbol.map_or(0, |(_, offset)| offset),
        address,
        expected: fault.expected().to_owned(),
        seen: code::render(&lines),
        technique: fault.technique().to_owned(),
        owner: None,
        evidence,
    }
}

#[cfg(test)]
mod tests;
