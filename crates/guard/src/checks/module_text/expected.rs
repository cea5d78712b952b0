// SPDX-License-Identifier: Apache-2.0
//! What a loaded module should hold, made from its file.

use std::collections::HashMap;

use kernel_image::Symbols;
use kernel_image::module::{Linked, ModuleFile, Surroundings, build_id};
use kernel_memory::Kernel;

use super::subject::{self, Subject};
use super::{Pass, patched};
use crate::baseline::Baseline;
use crate::check::{Missing, System};
use crate::checks::modules::loaded::Loaded;
use crate::code::hexadecimal;
use crate::confirm::all_keys;
use crate::sites::{Sites, State};

/// The sections that hold the build id have some ten bytes more than it.
const LARGEST_NOTE: usize = 4096;

/// What other modules export, read when it is first asked for.
#[derive(Default)]
pub(super) struct Exports {
    of: HashMap<String, HashMap<String, u64>>,
}

impl Exports {
    /// Reads what the modules export that `file` needs.
    fn gather(
        &mut self,
        kernel: &Kernel<'_>,
        modules: &[Loaded],
        file: &ModuleFile,
    ) -> Result<Vec<String>, Missing> {
        let mut names = Vec::new();
        for name in file.depends() {
            let name = name.replace('-', "_");
            if !self.of.contains_key(&name) {
                // What is not loaded is built into this kernel.
                let Some(one) = modules.iter().find(|one| one.name == name) else { continue };
                let subject = Subject::read(kernel, one.address)?;
                self.of.insert(name.clone(), subject::exports(kernel, &subject)?);
            }
            names.push(name);
        }
        Ok(names)
    }

    fn find(&self, among: &[String], symbol: &str) -> Option<u64> {
        among.iter().find_map(|module| self.of.get(module)?.get(symbol).copied())
    }
}

/// The address of what the kernel itself exports. Only global symbols are exported, so of several
/// with one name it is the one that is.
fn of_kernel(symbols: &Symbols, name: &str) -> Option<u64> {
    let own = || symbols.all_named(name).filter(|symbol| symbol.module.is_none());
    let global = own().find(|symbol| symbol.kind.is_ascii_uppercase());
    global.or_else(|| own().next()).map(|symbol| symbol.address)
}

/// What a module should hold, and what could not be known of it.
pub(super) struct Expected {
    pub(super) baseline: Baseline,
    pub(super) doubts: Vec<String>,
}

/// Makes what a module should hold from its file.
pub(super) fn make(
    system: &System<'_>,
    module: &Loaded,
    subject: &Subject,
    pass: &mut Pass<'_>,
) -> Result<Expected, Missing> {
    let kernel = &system.kernel;
    if pass.machine.is_none() {
        pass.machine = Some(patched::machine(kernel, pass.modules)?);
    }
    let Pass { modules, exports, machine: Some(machine), .. } = pass else {
        return Err(Missing::because("what the boot code saw is not known"));
    };
    // The compressed bytes are not kept beyond this line.
    let file = ModuleFile::parse(&system.modules.file(&module.name)?).map_err(Missing::because)?;
    let subject::Sections { addresses, mut doubts } = subject::sections(kernel, subject, &file)?;
    same_build(kernel, &file, &addresses)?;
    if file.is_livepatch() {
        doubts.push("what it changes by livepatch is not relocated here".to_owned());
    }

    let needed = exports.gather(kernel, modules, &file)?;
    let find = |name: &str| exports.find(&needed, name).or_else(|| of_kernel(kernel.symbols, name));
    let per_cpu = (subject.per_cpu != 0).then_some(subject.per_cpu);
    let surroundings = Surroundings { addresses: &addresses, per_cpu, exports: &find };
    let mut linked = Linked::new(&file, &surroundings).map_err(Missing::because)?;
    patched::apply(system, &mut linked, &subject.text, machine)?;

    let memory = |range: &std::ops::Range<u64>| {
        let mut bytes = vec![0; (range.end - range.start) as usize];
        linked.fill(range.start, &mut bytes);
        bytes
    };
    let (mut text, rodata) = (memory(&subject.text), memory(&subject.rodata));
    let start = subject.text.start;
    let (core, depth) = (system.baseline.sites(kernel), machine.call_depth.as_ref());
    let sites = Sites::of_module((start, &text), &linked, core, depth);
    let mut state = State::default();
    state.read_functions(kernel, all_keys(&sites))?;
    state.read_enabled(kernel, sites.branch_keys())?;
    sites.settle(start, &mut text, &state);
    let rodata = (subject.rodata.start, rodata);
    Ok(Expected { baseline: Baseline::of_module((start, text), rodata, sites), doubts })
}

/// Whether the file is the one that was loaded, by the build id in the module's memory.
fn same_build(
    kernel: &Kernel<'_>,
    file: &ModuleFile,
    addresses: &[Option<u64>],
) -> Result<(), Missing> {
    let Some(expected) = file.build_id() else { return Ok(()) };
    let sections = file.sections().iter().zip(addresses);
    let notes = sections.filter(|(section, _)| section.name == ".note.gnu.build-id");
    for (section, address) in notes {
        let Some(address) = address else { continue };
        let length = usize::try_from(section.size).unwrap_or(usize::MAX).min(LARGEST_NOTE);
        let bytes = kernel.bytes_at(*address, length)?;
        if build_id(&bytes) != Some(expected) {
            return Err(Missing(format!(
                "its build id in memory is {}, that of the file {}: another file than the one it \
                 was loaded from",
                build_id(&bytes).map_or("none".to_owned(), hexadecimal),
                hexadecimal(expected)
            )));
        }
    }
    Ok(())
}
