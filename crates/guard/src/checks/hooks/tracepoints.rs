// SPDX-License-Identifier: Apache-2.0
//! Functions that tracepoints call.
//!
//! `__start___tracepoints_ptrs` holds an offset, relative to itself, to each `struct tracepoint`
//! (include/linux/tracepoint.h, CONFIG_HAVE_ARCH_PREL32_RELOCATIONS); `funcs` leads to an array of
//! `struct tracepoint_func` that ends with a null function.

use kernel_memory::Kernel;

use super::{Gathered, Look};
use crate::check::Missing;
use crate::checks::bpf::objects::Program;
use crate::fields::Fields;
use crate::finding::Hook;

/// Functions of one tracepoint that are looked at.
const MOST_FUNCTIONS: u32 = 128;

/// All tracepoints of a kernel are closer together than this: `__tracepoints` is a section.
const LARGEST_SECTION: u64 = 4 << 20;

pub(super) fn gather(look: &mut Look<'_, '_>, gathered: &mut Gathered) -> Result<(), Missing> {
    let kernel = look.kernel;
    for (name, functions) in attached(&kernel)? {
        let name = kernel.string_at(name, 256).unwrap_or_default();
        let of_function = Fields::of(&kernel, "tracepoint_func", &["func", "data"])?;
        let size = kernel.size_of("tracepoint_func")?;
        for index in 0..u64::from(MOST_FUNCTIONS) {
            let place = functions.wrapping_add(index * size);
            let Some(function) = of_function.read_one(&kernel, place) else { break };
            let (handler, data) = (function.value(0), function.value(1));
            if handler == 0 {
                break;
            }
            report(look, gathered, &name, place, handler, data);
        }
    }
    Ok(())
}

fn report(
    look: &Look<'_, '_>,
    gathered: &mut Gathered,
    name: &str,
    place: u64,
    handler: u64,
    data: u64,
) {
    let function = look.function_at(handler);
    // A place that was emptied while others remained (kernel/tracepoint.c, `tp_stub_func`).
    if function == "tp_stub_func" {
        return;
    }
    let owner = look.owner_of(gathered, "tracepoint", name, place, handler);
    let mut hook =
        Hook { mechanism: "tracepoint", target: name.to_owned(), handler: function.clone(), owner };
    if function.starts_with("__bpf_trace_") {
        match raw_program(look, data) {
            Some(program) if program.private => return gathered.add_private("tracepoint"),
            Some(program) => hook.owner = program.title(&look.kernel),
            None => hook.owner = "BPF program that is in no id table".to_owned(),
        }
        gathered.hooks.push(hook);
        return;
    }
    let programs = match function.starts_with("perf_trace_") {
        true => perf_programs(look, data),
        false => Vec::new(),
    };
    gathered.hooks.push(hook.clone());
    for owner in programs {
        gathered.hooks.push(Hook { owner, ..hook.clone() });
    }
}

/// The program behind `data` of a `__bpf_trace_*` function: a `bpf_raw_tp_link` from 6.10 on, the
/// program itself before (`bpf_probe_register`, kernel/trace/bpf_trace.c).
fn raw_program<'l>(look: &'l Look<'_, '_>, data: u64) -> Option<&'l Program> {
    if let Some(program) = look.programs.at(data) {
        return Some(program);
    }
    let link = look.kernel.object("bpf_raw_tp_link", data).ok()?;
    let program = link.u64("link.prog").ok()?;
    look.programs.at(program)
}

/// Programs that run on a perf event of this `trace_event_call` (include/linux/trace_events.h).
fn perf_programs(look: &Look<'_, '_>, call: u64) -> Vec<String> {
    let kernel = &look.kernel;
    let array = kernel.object("trace_event_call", call).and_then(|call| call.u64("prog_array"));
    let (Ok(array), Ok(items), Ok(size)) =
        (array, kernel.offset_of("bpf_prog_array", "items"), kernel.size_of("bpf_prog_array_item"))
    else {
        return Vec::new();
    };
    if array == 0 {
        return Vec::new();
    }
    // BPF_TRACE_MAX_PROGS (kernel/trace/bpf_trace.c).
    (0..64)
        .map_while(|index| {
            let item = array.wrapping_add(items + index * size);
            kernel.u64_at(item).ok().filter(|program| *program != 0)
        })
        .filter_map(|program| Some(look.programs.at(program)?.title(kernel)))
        .collect()
}

/// Address of the name, and of the functions, of each tracepoint that has functions.
fn attached(kernel: &Kernel<'_>) -> Result<Vec<(u64, u64)>, Missing> {
    let start = kernel.symbol("__start___tracepoints_ptrs")?;
    let end = kernel.symbol("__stop___tracepoints_ptrs")?;
    let length = end.checked_sub(start).filter(|length| *length < LARGEST_SECTION);
    let length =
        length.ok_or_else(|| Missing("the table of tracepoints is reversed".to_owned()))?;
    let offsets = kernel.bytes_at(start, length as usize)?;
    let addresses: Vec<u64> = offsets
        .as_chunks::<4>()
        .0
        .iter()
        .zip((start..).step_by(4))
        .map(|(offset, at)| at.wrapping_add_signed(i64::from(i32::from_le_bytes(*offset))))
        .collect();
    let of_tracepoint = Fields::of(kernel, "tracepoint", &["name", "funcs"])?;
    let records = of_tracepoint.read_dense(kernel, &addresses, LARGEST_SECTION);
    let attached = records.into_iter().flatten().map(|record| (record.value(0), record.value(1)));
    Ok(attached.filter(|(_, functions)| *functions != 0).collect())
}
