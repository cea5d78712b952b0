// SPDX-License-Identifier: Apache-2.0
//! The checks: one file each, registered here.

pub mod bpf;
pub mod credentials;
pub mod entry;
pub mod executable_pages;
pub mod gdt;
pub mod hooks;
pub mod idt;
pub mod jump_labels;
pub mod looks;
pub mod module_text;
pub mod modules;
pub mod operations;
pub mod own;
pub mod read_paths;
pub mod registers;
pub mod rodata;
pub mod settings;
mod settle;
pub mod static_calls;
pub mod tasks;
pub mod text;

use std::collections::BTreeMap;

use kernel_memory::Kernel;

use crate::check::Check;
use crate::views::Views;

/// What checks hold later looks to, as facts for a baseline that is taken now.
pub fn facts(kernel: &Kernel<'_>, views: &dyn Views) -> BTreeMap<String, String> {
    let mut facts = settings::collect(views);
    facts.extend(operations::collect(kernel));
    facts
}

/// All checks, in the order in which they run: first what the guard's own reading relies on, then hooks,
/// which the kernel announces and which are quickly looked at, then what takes longer.
pub fn all() -> Vec<Box<dyn Check>> {
    vec![
        Box::<read_paths::ReadPaths>::default(),
        Box::<hooks::Hooks>::default(),
        Box::<text::Text>::default(),
        Box::<rodata::Rodata>::default(),
        Box::<module_text::ModuleText>::default(),
        Box::<jump_labels::JumpLabels>::default(),
        Box::<static_calls::StaticCalls>::default(),
        Box::<entry::Entry>::default(),
        Box::<idt::Idt>::default(),
        Box::<gdt::Gdt>::default(),
        Box::<registers::ControlRegisters>::default(),
        Box::<operations::Operations>::default(),
        Box::<bpf::Bpf>::default(),
        Box::<tasks::Tasks>::default(),
        Box::<credentials::Credentials>::default(),
        Box::<settings::Settings>::default(),
        Box::<modules::Modules>::default(),
        Box::<executable_pages::ExecutablePages>::default(),
        Box::<own::Own>::default(),
    ]
}
