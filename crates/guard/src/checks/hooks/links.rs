// SPDX-License-Identifier: Apache-2.0
//! BPF links: what ties a program to the place where it runs (include/linux/bpf.h and the files
//! named at each kind).

use kernel_memory::{AccessError, Object};

use super::{Gathered, Look};
use crate::check::Missing;
use crate::checks::bpf::objects;
use crate::fields::Fields;
use crate::finding::Hook;
use crate::views::BpfKind;

pub(super) fn gather(look: &mut Look<'_, '_>, gathered: &mut Gathered) -> Result<(), Missing> {
    let kernel = look.kernel;
    let entries = objects::entries(&kernel, look.recovered, BpfKind::Link)?;
    let own = look.system.views.own_bpf().unwrap_or_default();
    let of_link = Fields::of(&kernel, "bpf_link", &["type", "prog", "id"])?;
    let addresses: Vec<u64> = entries.iter().map(|entry| entry.address).collect();
    for link in of_link.read(&kernel, &addresses).into_iter().flatten() {
        let (kind, program, id) = (link.value(0) as u32, link.value(1), link.value(2) as u32);
        let found = look.programs.at(program);
        if found.is_some_and(|program| program.private) {
            gathered.add_private("bpf link");
            continue;
        }
        let kind = objects::enumerator(&kernel, "bpf_link_type", kind, "BPF_LINK_TYPE_");
        let target = target(look, &kind, link.address, program);
        let handler = match found {
            Some(program) => look.knowledge.title(look.system, program),
            None if program == 0 => "no program".to_owned(),
            None => format!("BPF program at {program:#x} that is in no id table"),
        };
        let owner = match (own.contains(&(BpfKind::Link, id)), found) {
            (true, _) => "ringfence itself".to_owned(),
            (false, Some(program)) => format!("link {id}, {}", look.knowledge.owner(program)),
            (false, None) => format!("link {id}"),
        };
        let target = target.unwrap_or_else(|_| format!("what a link of kind {kind} is for"));
        gathered.hooks.push(Hook { mechanism: "bpf link", target, handler, owner });
    }
    Ok(())
}

/// What a link attaches its program to. Structures of links are around `struct bpf_link`.
fn target(look: &Look<'_, '_>, kind: &str, link: u64, program: u64) -> Result<String, AccessError> {
    let kernel = &look.kernel;
    let around = |of: &str, member: &str| -> Result<Object<'_>, AccessError> {
        kernel.object(of, link.wrapping_sub(kernel.offset_of(of, member)?))
    };
    let device = |of: &str| around(of, "link")?.string("dev->name");
    match kind {
        // kernel/trace/bpf_trace.c
        "raw_tracepoint" => Ok(format!(
            "tracepoint {}",
            around("bpf_raw_tp_link", "link")?.string("btp->tp->name")?
        )),
        // kernel/bpf/syscall.c
        "tracing" => {
            let name = look.programs.at(program).and_then(|program| program.made_for.clone());
            Ok(name.map_or_else(|| "a function".to_owned(), |name| format!("function {name}")))
        }
        "iter" => {
            let reg = around("bpf_iter_link", "link")?.string("tinfo->reg_info->target")?;
            Ok(format!("iterator {reg}"))
        }
        "perf_event" => perf_event(&around("bpf_perf_link", "link")?),
        // kernel/bpf/cgroup.c
        "cgroup" => {
            let name = around("bpf_cgroup_link", "link")?.string("cgroup->kn->name")?;
            Ok(match name.as_str() {
                "" => "root cgroup".to_owned(),
                name => format!("cgroup {name}"),
            })
        }
        // net/core/dev.c, kernel/bpf/tcx.c, drivers/net/netkit.c
        "xdp" => Ok(format!("device {}", device("bpf_xdp_link")?)),
        "tcx" => Ok(format!("device {}", device("tcx_link")?)),
        "netkit" => Ok(format!("device {}", device("netkit_link")?)),
        // kernel/bpf/bpf_struct_ops.c
        "struct_ops" => {
            let map = around("bpf_struct_ops_link", "link")?.string("map->name")?;
            Ok(format!("operations {map}"))
        }
        // net/netfilter/nf_bpf_link.c
        "netfilter" => {
            let hook = around("bpf_nf_link", "link")?;
            let (family, number) = (hook.u64("hook_ops.pf")?, hook.u64("hook_ops.hooknum")?);
            Ok(format!("netfilter family {family}, hook {number}"))
        }
        // kernel/trace/bpf_trace.c
        "kprobe_multi" => {
            let count = around("bpf_kprobe_multi_link", "link")?.u64("cnt")?;
            Ok(format!("{count} kernel functions"))
        }
        "uprobe_multi" => {
            let link = around("bpf_uprobe_multi_link", "link")?;
            let file = link.string("path.dentry->d_name.name")?;
            Ok(format!("{} places in {file}", link.u64("cnt")?))
        }
        _ => Ok(format!("what a link of kind {kind} is for")),
    }
}

/// A perf event behind a link: its tracepoint or probe by name, or its type
/// (`enum perf_type_id`, include/uapi/linux/perf_event.h).
fn perf_event(link: &Object<'_>) -> Result<String, AccessError> {
    let event = link.u64("perf_file->private_data")?;
    let event = link.kernel().object("perf_event", event)?;
    if event.u64("tp_event")? == 0 {
        let (kind, config) = (event.u64("attr.type")?, event.u64("attr.config")?);
        return Ok(format!("perf event of type {kind}, {config:#x}"));
    }
    // TRACE_EVENT_FL_TRACEPOINT (include/linux/trace_events.h): the name is that of a tracepoint.
    let flags = event.u64("tp_event->flags")?;
    let by_tracepoint = link.kernel().enumerator("TRACE_EVENT_FL_TRACEPOINT")? as u64;
    let name = match flags & by_tracepoint {
        0 => event.string("tp_event->name")?,
        _ => event.string("tp_event->tp->name")?,
    };
    Ok(format!("perf event of {name}"))
}
