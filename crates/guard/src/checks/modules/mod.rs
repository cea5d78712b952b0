// SPDX-License-Identifier: Apache-2.0
//! Modules: everything that knows of modules must know the same ones.
//!
//! A rootkit that is a module takes itself off the list that lsmod shows, and the thorough ones off
//! the kobjects behind /sys/module and the tree of addresses as well. But the kernel has many places
//! that know a module, and to run it must stay in memory. So six kinds of view are held against each
//! other: the list, the kobjects (in memory and as /sys/module shows them), the tree of addresses,
//! kallsyms, the areas of memory for modules, and what modules gave to the kernel.
//!
//! Modules come and go while one looks, so a difference counts only if it is seen in each of several
//! looks, and only for a module that is live: one that is loading or unloading is in some views and
//! not in others. A module that calls itself unformed and has a kobject is neither.

mod areas;
pub(in crate::checks) mod loaded;
mod unfinished;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kernel_memory::Kernel;
use loaded::Loaded;
use unfinished::Unfinished;

use super::looks;
use crate::check::{About, Check, Missing, Outcome, System};
use crate::finding::Finding;
use crate::recover::Recovered;

/// Long enough for a module that comes or goes to be in all views or in none.
const PAUSE: Duration = Duration::from_millis(5);

/// In which runs all memory for modules is looked at too.
const THOROUGH: u32 = 5;

/// In which runs all of /proc/kallsyms is read, which keeps the kernel busy for a tenth of a second.
const WHOLE: u32 = 60;

/// Somewhere that modules are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum View {
    /// `modules`, kernel/module/main.c.
    List,
    /// `/proc/modules`, made from the list.
    Proc,
    /// `module_kset`, kernel/params.c.
    Kset,
    /// The directories of /sys/module.
    Sysfs,
    /// `mod_tree`, kernel/module/tree_lookup.c.
    Tree,
    /// The modules that /proc/kallsyms names.
    Kallsyms,
    /// `struct module` in memory for modules.
    Areas,
    /// What leads to a module that gave it to the kernel.
    Hooks,
}

impl View {
    /// Its name in findings.
    fn name(self) -> &'static str {
        match self {
            Self::List => "the module list",
            Self::Proc => "/proc/modules",
            Self::Kset => "the kobjects of /sys/module",
            Self::Sysfs => "/sys/module",
            Self::Tree => "the address tree",
            Self::Kallsyms => "/proc/kallsyms",
            Self::Areas => "memory for modules",
            Self::Hooks => "what modules gave to the kernel",
        }
    }
}

/// A module, or a name that some interface shows, with the views that lack it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Difference {
    name: String,
    /// Where its `struct module` is; 0 for what only an interface shows.
    address: u64,
    has: BTreeSet<View>,
    lacks: BTreeSet<View>,
}

/// What all views hold at one time. A view that cannot be had is not there.
#[derive(Debug, Default)]
struct Look {
    modules: BTreeMap<u64, Loaded>,
    addresses: BTreeMap<View, BTreeSet<u64>>,
    names: BTreeMap<View, BTreeSet<String>>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Modules {
    recovered: Recovered,
    unfinished: Unfinished,
    runs: u32,
}

impl Check for Modules {
    fn name(&self) -> &'static str {
        "modules"
    }

    fn about(&self) -> About {
        About {
            needs: "the addresses of modules, module_kset and mod_tree (CONFIG_KALLSYMS_ALL, or \
                    code that uses them)",
            reads: "the module list, the kobjects of /sys/module, the address tree, /proc/modules, \
                    /sys/module, /proc/kallsyms, memory for modules, and lists of what modules give \
                    to the kernel",
            means: "a module is loaded that some of these do not show, is shown and not loaded, or \
                    is being loaded or unloaded for more than ten minutes",
            blind_to: "code that was never a module, or cut all its ties to its struct module: the \
                       check executable_pages sees that; a module while it loads or unloads",
        }
    }

    fn run(&mut self, system: &System<'_>, outcome: &mut Outcome) -> Result<(), Missing> {
        let kernel = &system.kernel;
        if let Some(missing) = loaded::cannot_load(kernel) {
            return Err(missing);
        }
        let thorough = self.runs.is_multiple_of(THOROUGH);
        let whole = self.runs.is_multiple_of(WHOLE);
        self.runs = self.runs.wrapping_add(1);
        let mut unseen = BTreeSet::new();
        let mut count = 0;
        let lasting = looks::lasting(PAUSE, || {
            let before = self.memory(kernel, thorough, &mut unseen)?;
            let names = interfaces(system, whole, &mut unseen);
            let mut look = self.memory(kernel, thorough, &mut unseen)?;
            look.modules.retain(|address, module| before.modules.get(address) == Some(&*module));
            look.names = names;
            count = look.modules.len();
            Ok(differences(&before, &look))
        })?;
        outcome.reduced.extend(unseen);
        if count == 0 && lasting.is_empty() {
            outcome.reduced.push("no modules loaded".to_owned());
        }
        outcome.findings.extend(lasting.iter().map(finding));
        match self.unfinished.look(kernel, &mut self.recovered) {
            Ok(findings) => outcome.findings.extend(findings),
            Err(missing) => outcome.reduced.push(missing.0),
        }
        Ok(())
    }
}

impl Modules {
    /// What memory holds.
    fn memory(
        &mut self,
        kernel: &Kernel<'_>,
        thorough: bool,
        unseen: &mut BTreeSet<String>,
    ) -> Result<Look, Missing> {
        let recovered = &mut self.recovered;
        let mut look = Look::default();
        look.addresses.insert(View::List, loaded::listed(kernel, recovered)?);
        let mut add = |view: View, found: Result<BTreeSet<u64>, Missing>| match found {
            Ok(found) => _ = look.addresses.insert(view, found),
            Err(missing) => _ = unseen.insert(format!("{}: {}", view.name(), missing.0)),
        };
        add(View::Kset, loaded::in_kset(kernel, recovered));
        add(View::Tree, loaded::in_tree(kernel, recovered));
        add(View::Hooks, Ok(loaded::of_hooks(kernel, recovered)));
        if thorough {
            add(View::Areas, areas::carved(kernel, recovered));
        }
        let all: BTreeSet<u64> = look.addresses.values().flatten().copied().collect();
        look.modules = loaded::describe(kernel, &all)?;
        Ok(look)
    }
}

/// What the system's interfaces show.
fn interfaces(
    system: &System<'_>,
    whole: bool,
    unseen: &mut BTreeSet<String>,
) -> BTreeMap<View, BTreeSet<String>> {
    let mut names = BTreeMap::new();
    let mut add = |view: View, found: Result<BTreeSet<String>, Missing>| match found {
        Ok(found) => _ = names.insert(view, found),
        Err(missing) => _ = unseen.insert(format!("{}: {}", view.name(), missing.0)),
    };
    let views = system.views;
    let listing = views.file("/proc/modules").map(|text| {
        let first = |line: &str| line.split(' ').next().map(str::to_owned);
        text.lines().filter_map(first).collect()
    });
    add(View::Proc, listing);
    add(View::Sysfs, views.modules_in_sysfs());
    if whole {
        add(View::Kallsyms, views.modules_in_kallsyms());
    }
    names
}

/// How the views differ: memory, seen before and after the interfaces, and these.
fn differences(before: &Look, look: &Look) -> BTreeSet<Difference> {
    let mut found = BTreeSet::new();
    for (address, module) in &look.modules {
        let mut has = BTreeSet::new();
        let mut lacks = BTreeSet::new();
        for (view, addresses) in &look.addresses {
            let earlier = before.addresses.get(view).is_some_and(|set| set.contains(address));
            match addresses.contains(address) {
                true => _ = has.insert(*view),
                // Nothing obliges a module to give anything to the kernel.
                false if *view == View::Hooks || earlier => {}
                false => _ = lacks.insert(*view),
            }
        }
        for (view, names) in &look.names {
            match names.contains(&module.name) {
                true => _ = has.insert(*view),
                // The kernel leaves out a module without symbols; each has some.
                false => _ = lacks.insert(*view),
            }
        }
        let contradicts = module.is_unformed() && has.contains(&View::Kset);
        if contradicts || (module.is_live() && !lacks.is_empty()) {
            found.insert(Difference { name: module.name.clone(), address: *address, has, lacks });
        }
    }
    // A name that memory has not, neither before nor after.
    let known: BTreeSet<&str> = [before, look]
        .iter()
        .flat_map(|one| one.modules.values())
        .map(|m| m.name.as_str())
        .collect();
    let mut unknown: BTreeMap<&str, BTreeSet<View>> = BTreeMap::new();
    for (view, names) in &look.names {
        for name in names.iter().filter(|name| !known.contains(name.as_str())) {
            unknown.entry(name).or_default().insert(*view);
        }
    }
    for (name, has) in unknown {
        let lacks = look.addresses.keys().copied().filter(|view| *view != View::Hooks).collect();
        found.insert(Difference { name: name.to_owned(), address: 0, has, lacks });
    }
    found
}

fn finding(difference: &Difference) -> Finding {
    let Difference { name, address, has, lacks } = difference;
    let list = |views: &BTreeSet<View>| {
        let names: Vec<&str> = views.iter().map(|view| view.name()).collect();
        names.join(", ")
    };
    let mut evidence = vec![format!("seen in each of {} looks", looks::LOOKS)];
    if *address != 0 {
        evidence.push(format!("struct module at {address:#x}"));
    }
    let (seen, technique) = if lacks.is_empty() {
        (
            format!("module {name} in {}, and in the state of one that is not loaded", list(has)),
            "module hidden by its state",
        )
    } else if *address == 0 {
        (format!("module {name} in {}, not in {}", list(has), list(lacks)), "module made up")
    } else {
        (format!("module {name} in {}, not in {}", list(has), list(lacks)), "module hidden")
    };
    Finding {
        check: "modules",
        symbol: None,
        offset: 0,
        address: *address,
        expected: "all that know of modules know the same ones".to_owned(),
        seen,
        technique: technique.to_owned(),
        owner: Some(format!("module {name}")),
        evidence,
    }
}

#[cfg(test)]
mod tests;
