// SPDX-License-Identifier: Apache-2.0
//! Hooks: everyone who asked to be called by the kernel, through the interfaces made for it.
//!
//! Tracepoints, ftrace, kprobes, BPF links, security modules, livepatches, netfilter, notifier chains,
//! formats of executables: each handler is a pointer in the kernel's own structures, and must lead to
//! code with an owner. Each hook is reported with
//! that owner; a handler in no known text, module or image is a finding, as is one in the middle of
//! a function of the kernel, which no compiler makes.
//!
//! The structures are read from memory, not from tracefs: what a rootkit filters there is seen here.
//! How the code of the kernel was changed for a hook is for the checks of text.

mod formats;
mod ftrace;
mod kprobes;
mod links;
mod lsm;
pub(super) mod netfilter;
mod notifiers;
mod static_calls;
mod tracepoints;

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use kernel_memory::{AddressSet, Kernel};

use super::bpf::knowledge::Knowledge;
use super::bpf::objects::Inventory;
use super::looks;
use crate::check::{About, Check, Missing, Outcome, Pace, System};
use crate::finding::{Finding, Hook};
use crate::keys::Keys;
use crate::owners::{Owner, Owners};
use crate::recover::Recovered;

/// See the module.
#[derive(Debug, Default)]
pub struct Hooks {
    recovered: Recovered,
    knowledge: Knowledge,
    targets: Targets,
    /// Users of ftrace that were called and not on its list, and since when.
    leaving: HashMap<u64, Instant>,
    chains: notifiers::Chains,
    /// Where static calls lead to.
    static_calls: Option<Keys<8>>,
    /// Handlers that were found to be functions of the kernel, which they then always are.
    functions: AddressSet,
}

/// What each user of ftrace filters, by its address and that of its filter.
type Targets = HashMap<(u64, u64), String>;

impl Check for Hooks {
    fn name(&self) -> &'static str {
        "hooks"
    }

    fn about(&self) -> About {
        About {
            needs: "symbols of the tracepoints; addresses of ftrace_ops_list, kprobe_table, \
                    link_idr, the LSM call table, klp_patches, net_namespace_list and formats \
                    (symbol table or code)",
            reads: "functions of all tracepoints, users of ftrace and what they filter, kprobes, \
                    BPF links, functions of security modules, livepatches, static calls that lead \
                    to modules, netfilter hooks of all network namespaces and devices, static \
                    notifier chains, formats of executables",
            means: "the kernel calls code that belongs to nobody",
            blind_to: "notifier chains within objects (a clock, a regulator) and of modules; \
                       hooks made by writing to code, which the checks of text see",
        }
    }

    fn pace(&self) -> Pace {
        Pace::EachPass
    }

    fn run(&mut self, system: &System<'_>, outcome: &mut Outcome) -> Result<(), Missing> {
        let first = self.gather(system);
        let mut found = first.found;
        // What could not be named is looked for again: a module or BPF image may be on its way in.
        if !found.is_empty() {
            let again = self.gather(system).found;
            found.retain(|place, _| again.contains_key(place));
        }
        outcome.hooks.extend(first.hooks);
        outcome.findings.extend(found.into_values());
        if first.seen == 0 {
            return Err(Missing(first.reduced.join("; ")));
        }
        outcome.reduced.extend(first.reduced);
        Ok(())
    }
}

impl Hooks {
    fn gather(&mut self, system: &System<'_>) -> Gathered {
        let kernel = system.kernel;
        let owners = Owners::gather(&kernel, &mut self.recovered);
        let programs = Inventory::gather(&kernel, &mut self.recovered).unwrap_or_default();
        let mut gathered = Gathered { reduced: owners.unseen.clone(), ..Gathered::default() };
        self.knowledge.update(system, &mut self.recovered, &programs);
        let knowledge = &self.knowledge;
        let mut look = Look {
            kernel,
            system,
            owners,
            programs,
            knowledge,
            recovered: &mut self.recovered,
            targets: &mut self.targets,
            leaving: &mut self.leaving,
            chains: &mut self.chains,
            static_calls: &mut self.static_calls,
            functions: &mut self.functions,
        };
        let kinds: [Gather; 10] = [
            tracepoints::gather,
            ftrace::gather,
            kprobes::gather,
            links::gather,
            lsm::gather,
            kprobes::livepatches,
            netfilter::gather,
            notifiers::gather,
            formats::gather,
            static_calls::gather,
        ];
        for gather in kinds {
            // A list that changed meanwhile is walked again from its start.
            let walked = looks::settled(|| {
                let mut part = Gathered::default();
                gather(&mut look, &mut part).map(|()| part)
            });
            match walked {
                Ok(part) => gathered.add(part),
                Err(missing) => gathered.reduced.push(missing.0),
            }
        }
        gathered.report_private();
        gathered
    }
}

/// Gathers the hooks of one kind.
type Gather = fn(&mut Look<'_, '_>, &mut Gathered) -> Result<(), Missing>;

/// What the parts of this check share while they look.
struct Look<'s, 'r> {
    kernel: Kernel<'s>,
    system: &'s System<'s>,
    owners: Owners,
    programs: Inventory,
    knowledge: &'r Knowledge,
    recovered: &'r mut Recovered,
    targets: &'r mut Targets,
    leaving: &'r mut HashMap<u64, Instant>,
    chains: &'r mut notifiers::Chains,
    static_calls: &'r mut Option<Keys<8>>,
    functions: &'r mut AddressSet,
}

/// What they found.
#[derive(Default)]
struct Gathered {
    hooks: Vec<Hook>,
    /// By hook place and handler, so that two looks can be compared.
    found: BTreeMap<(u64, u64), Finding>,
    reduced: Vec<String>,
    /// How many kinds of hook could be looked at.
    seen: usize,
    /// Hooks of programs that the kernel keeps private to its init, by mechanism.
    private: BTreeMap<&'static str, usize>,
}

impl Gathered {
    /// Adds what one kind of hook gave.
    fn add(&mut self, part: Self) {
        self.seen += 1;
        self.hooks.extend(part.hooks);
        self.found.extend(part.found);
        self.reduced.extend(part.reduced);
        for (mechanism, count) in part.private {
            *self.private.entry(mechanism).or_default() += count;
        }
    }

    fn add_private(&mut self, mechanism: &'static str) {
        *self.private.entry(mechanism).or_default() += 1;
    }

    /// One line for each mechanism: who they are for is the kernel's own business.
    fn report_private(&mut self) {
        for (mechanism, count) in std::mem::take(&mut self.private) {
            self.hooks.push(Hook {
                mechanism,
                target: format!("{count} places"),
                handler: "BPF programs that this kernel marks init_private".to_owned(),
                owner: "init (process 1)".to_owned(),
            });
        }
    }
}

impl Look<'_, '_> {
    /// Whether a handler is a function of the kernel's own text.
    fn is_kernels_own(&mut self, handler: u64) -> bool {
        if self.functions.contains(&handler) {
            return true;
        }
        let own =
            matches!(self.owners.of(&self.kernel, handler), Some(Owner::Kernel { offset: 0, .. }));
        if own {
            self.functions.insert(handler);
        }
        own
    }

    /// Whose code a handler is, in words; where it belongs to nobody, a finding is noted.
    ///
    /// `place` is the address of the pointer to the handler.
    fn owner_of(
        &self,
        gathered: &mut Gathered,
        mechanism: &'static str,
        target: &str,
        place: u64,
        handler: u64,
    ) -> String {
        match self.owners.of(&self.kernel, handler) {
            Some(Owner::Kernel { symbol, offset }) if offset != 0 => {
                let seen =
                    format!("{handler:#x}, in the middle of {symbol} ({offset:#x} bytes in)");
                let finding = self.finding(mechanism, target, place, handler, seen);
                gathered.found.insert((place, handler), finding);
                "nobody: no function starts there".to_owned()
            }
            Some(owner) => owner.to_string(),
            None => {
                let seen =
                    format!("{handler:#x}, in no text, module or image that the kernel knows");
                let finding = self.finding(mechanism, target, place, handler, seen);
                gathered.found.insert((place, handler), finding);
                "nobody".to_owned()
            }
        }
    }

    fn finding(
        &self,
        mechanism: &'static str,
        target: &str,
        place: u64,
        handler: u64,
        seen: String,
    ) -> Finding {
        let text = (self.owners.text.start, self.owners.text.end);
        let bytes = self.kernel.bytes_at(handler, 24).unwrap_or_default();
        let lines = crate::code::disassemble(&bytes, handler, self.kernel.symbols, text);
        Finding {
            check: "hooks",
            symbol: None,
            offset: 0,
            address: place,
            expected: format!(
                "the handler of a {mechanism} hook is a function of the kernel, a module or BPF"
            ),
            seen: format!("{target} calls {seen}"),
            technique: format!("{mechanism} hook to code without an owner"),
            owner: None,
            evidence: vec![
                "seen in each of 2 looks".to_owned(),
                format!("the handler begins with {}", crate::code::render(&lines)),
            ],
        }
    }

    /// The name of a kernel function, without an offset of up to a patchable prologue.
    fn function_at(&self, address: u64) -> String {
        self.owners.describe(&self.kernel, address)
    }
}
