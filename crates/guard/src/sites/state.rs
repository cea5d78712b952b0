// SPDX-License-Identifier: Apache-2.0
//! What the kernel's data says its text should hold now.

use std::collections::{BTreeMap, HashMap, HashSet};

use kernel_image::Symbols;
use kernel_memory::Kernel;

use super::ftrace::CALLERS;
use crate::batch::Places;
use crate::check::Missing;
use crate::journal::{Change, Journal};
use crate::owners::{Owner, Owners};

/// Functions that the kernel lets its tracing trampolines call (kernel/trace/*.c, kernel/livepatch,
/// arch/x86/kernel/kprobes/ftrace.c; 6.1 to 7.3). Of users of ftrace only those that are part of the kernel
/// are called so; for all others it is the function that goes through the list
/// (`ftrace_ops_get_list_func`, kernel/trace/ftrace.c).
const HANDLERS: [&str; 21] = [
    "fprobe_ftrace_entry",
    "ftrace_stub",
    "ftrace_stub_graph",
    "ftrace_graph_caller",
    "ftrace_graph_func",
    "ftrace_ops_list_func",
    "arch_ftrace_ops_list_func",
    "ftrace_ops_assist_func",
    "function_trace_call",
    "irqsoff_tracer_call",
    "function_args_trace_call",
    "function_no_repeats_trace_call",
    "function_stack_trace_call",
    "function_stack_no_repeats_trace_call",
    "function_profile_call",
    "function_test_events_call",
    "perf_ftrace_function_call",
    "kprobe_ftrace_handler",
    "klp_ftrace_handler",
    "stack_trace_call",
    "wakeup_tracer_call",
];

/// What is known of the kernel's data. What is not known is not held against a site.
#[derive(Clone, Debug, Default)]
pub struct State {
    functions: HashMap<u64, u64>,
    pointed_at: HashSet<u64>,
    enabled: HashMap<u64, i32>,
    padding: u64,
    tracers: BTreeMap<u64, String>,
    handlers: BTreeMap<u64, String>,
}

impl State {
    /// What follows from the symbols alone: the kernel's own tracers and handlers, and the
    /// trampolines of tracers and BPF programs as the running kernel lists them.
    pub fn of_symbols(symbols: &Symbols) -> Self {
        let mut state = Self::default();
        for name in CALLERS {
            state.tracers.extend(symbols.address_of(name).map(|at| (at, name.to_owned())));
        }
        for name in HANDLERS {
            let found = symbols.all_named(name).map(|symbol| (symbol.address, name.to_owned()));
            state.handlers.extend(found);
        }
        let running = symbols.iter().filter(|symbol| is_trampoline(symbol.name));
        state.tracers.extend(running.map(|symbol| (symbol.address, symbol.name.to_owned())));
        state
    }

    /// Where each of these keys of static calls points, and [`State::padding`].
    pub(crate) fn of_functions(
        functions: impl IntoIterator<Item = (u64, u64)>,
        padding: u64,
    ) -> Self {
        let functions: HashMap<u64, u64> = functions.into_iter().collect();
        let pointed_at = functions.values().copied().collect();
        Self { functions, pointed_at, padding, ..Self::default() }
    }

    /// Takes the trampolines that ftrace sites may call from the kernel's lists, as they are now.
    /// Where a list could not be read, what is known from symbols and journal stays.
    pub fn learn(&mut self, owners: &Owners) {
        if owners.unseen.is_empty() {
            self.tracers.retain(|address, _| owners.text.contains(address));
        }
        for image in &owners.images {
            let name = match &image.owner {
                Owner::FtraceTrampoline(_) => image.owner.to_string(),
                Owner::Bpf(name) if is_trampoline(name) => name.clone(),
                _ => continue,
            };
            self.tracers.insert(image.range.start, name);
        }
    }

    /// Takes note of the trampolines that came and went according to the journal.
    pub fn follow(&mut self, journal: &Journal) {
        for entry in journal.entries() {
            let Change::Symbol { address, registered, name, .. } = &entry.change else { continue };
            if !is_trampoline(name) {
                continue;
            }
            if *registered {
                self.tracers.insert(*address, name.clone());
            } else {
                self.tracers.remove(address);
            }
        }
    }

    /// Reads where each of these keys of static calls points (`struct static_call_key.func`).
    pub fn read_functions(
        &mut self,
        kernel: &Kernel<'_>,
        keys: impl IntoIterator<Item = u64>,
    ) -> Result<(), Missing> {
        let at = kernel.offset_of("static_call_key", "func").map_err(Missing::because)?;
        let keys: Vec<u64> = keys.into_iter().collect();
        read_values::<8>(kernel, &keys, at, |key, bytes| {
            self.functions.insert(key, u64::from_le_bytes(bytes));
        })?;
        self.pointed_at = self.functions.values().copied().collect();
        self.padding = counted_before(kernel).unwrap_or(0);
        Ok(())
    }

    /// Reads how often each of these static keys is enabled (`struct static_key.enabled`).
    pub fn read_enabled(
        &mut self,
        kernel: &Kernel<'_>,
        keys: impl IntoIterator<Item = u64>,
    ) -> Result<(), Missing> {
        let at = kernel.offset_of("static_key", "enabled").map_err(Missing::because)?;
        let keys: Vec<u64> = keys.into_iter().collect();
        read_values::<4>(kernel, &keys, at, |key, bytes| {
            self.enabled.insert(key, i32::from_le_bytes(bytes));
        })?;
        Ok(())
    }

    /// Sets where a key points.
    pub fn set_function(&mut self, key: u64, function: u64) {
        self.functions.insert(key, function);
        self.pointed_at.insert(function);
    }

    /// Sets how often a key is enabled.
    pub fn set_enabled(&mut self, key: u64, count: i32) {
        self.enabled.insert(key, count);
    }

    /// Adds an address that ftrace sites may call.
    pub fn add_tracer(&mut self, address: u64, name: &str) {
        self.tracers.insert(address, name.to_owned());
    }

    /// Where a key points, 0 for nowhere.
    pub fn function_of(&self, key: u64) -> Option<u64> {
        self.functions.get(&key).copied()
    }

    /// Whether a call to `target` calls `function`: with call depth tracking, it leads to the code
    /// before the function.
    pub fn calls(&self, target: u64, function: u64) -> bool {
        target == function || (self.padding != 0 && target.wrapping_add(self.padding) == function)
    }

    /// How many bytes before a function calls of it are counted; 0 without call depth tracking.
    pub fn padding(&self) -> u64 {
        self.padding
    }

    /// Whether any known key points there.
    pub fn some_key_points_at(&self, function: u64) -> bool {
        function != 0 && self.pointed_at.contains(&function)
    }

    /// The count of a static key, -1 while it is being enabled.
    pub fn enabled_count(&self, key: u64) -> Option<i32> {
        self.enabled.get(&key).copied()
    }

    /// Whether a key is enabled; not known either while that changes (static_key_count,
    /// include/linux/jump_label.h).
    pub fn is_enabled(&self, key: u64) -> Option<bool> {
        let count = *self.enabled.get(&key)?;
        (count >= 0).then_some(count > 0)
    }

    /// Whether an ftrace site may call this.
    pub fn is_tracer(&self, address: u64) -> bool {
        self.tracers.contains_key(&address)
    }

    /// All that ftrace sites may call.
    pub fn tracers(&self) -> impl Iterator<Item = u64> {
        self.tracers.keys().copied()
    }

    /// Whether the kernel's tracing trampolines may call this.
    pub fn is_handler(&self, address: u64) -> bool {
        self.handlers.contains_key(&address)
    }

    /// All that the kernel's tracing trampolines may call.
    pub fn handlers(&self) -> impl Iterator<Item = u64> {
        self.handlers.keys().copied()
    }
}

/// The length of the code that counts a call, if calls are counted (`retbleed=stuff`,
/// arch/x86/kernel/callthunks.c).
pub(crate) fn counted_before(kernel: &Kernel<'_>) -> Option<u64> {
    let symbols = kernel.symbols;
    let on = kernel.u8_at(symbols.address_of("thunks_initialized")?).ok()?;
    let start = symbols.address_of("skl_call_thunk_template")?;
    let length = symbols.address_of("skl_call_thunk_tail")?.checked_sub(start)?;
    (on != 0 && length <= 16).then_some(length)
}

/// Whether a name of /proc/kallsyms or of the journal is that of a trampoline which ftrace sites
/// may call: `ftrace_trampoline` (FTRACE_TRAMPOLINE_SYM, kernel/trace/ftrace.c) or
/// `bpf_trampoline_` and a number (kernel/bpf/trampoline.c). The kernel's own functions have names
/// like these, such as bpf_trampoline_get, and nobody may be made to call them.
fn is_trampoline(name: &str) -> bool {
    let number = name.strip_prefix("bpf_trampoline_");
    name == "ftrace_trampoline"
        || number.is_some_and(|n| !n.is_empty() && n.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Reads `N` bytes at `offset` behind each address. Addresses that cannot be read are left out.
fn read_values<const N: usize>(
    kernel: &Kernel<'_>,
    addresses: &[u64],
    offset: u64,
    mut found: impl FnMut(u64, [u8; N]),
) -> Result<(), Missing> {
    let mut sorted: Vec<u64> = addresses.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let places = sorted.iter().map(|address| (address.wrapping_add(offset), N as u32));
    Places::of(places).visit(kernel.memory, &mut |index, bytes| {
        if let (Some(address), Ok(value)) = (sorted.get(index), bytes.try_into()) {
            found(*address, value);
        }
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_that_are_called_like_trampolines_are_none() {
        for trampoline in ["ftrace_trampoline", "bpf_trampoline_6442500809"] {
            assert!(is_trampoline(trampoline), "{trampoline}");
        }
        for function in ["bpf_trampoline_get", "ftrace_trampoline_free", "bpf_trampoline_"] {
            assert!(!is_trampoline(function), "{function}");
        }
    }
}
