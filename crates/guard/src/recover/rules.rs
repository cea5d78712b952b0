// SPDX-License-Identifier: Apache-2.0
//! The variables that can be found in code: which functions use each, and what must stand there.
//!
//! Functions are given for 6.1 to 6.18; one that a kernel does not have is passed over. Their
//! names and what they use are from the kernel sources named at each rule.

use kernel_memory::{Kernel, Object};

use super::Proof;
use super::code::Use;

/// How many entries of a container are looked into before it is believed.
const SAMPLE: usize = 4;

/// `ROOT_IS_IDR` (include/linux/radix-tree.h): set in `xa_flags` of each idr.
const ROOT_IS_IDR: u32 = 4;

pub(super) struct Rule {
    pub(super) name: &'static str,
    pub(super) functions: &'static [&'static str],
    /// Which uses of an address can be this variable.
    pub(super) takes: fn(Use) -> bool,
    /// Members of it that code addresses directly.
    pub(super) members: &'static [(&'static str, &'static str)],
    pub(super) verify: fn(&Kernel<'_>, u64) -> Option<Proof>,
    /// What a kernel without any of the functions lacks.
    pub(super) configured_by: &'static str,
}

pub(super) fn named(name: &str) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.name == name)
}

pub(super) const RULES: &[Rule] = &[
    // kernel/bpf/syscall.c
    Rule {
        name: "prog_idr",
        functions: &["bpf_prog_get_curr_or_next", "bpf_prog_free_id", "bpf_prog_by_id"],
        takes: any,
        members: &[],
        verify: |kernel, at| idr(kernel, at, program_has_id),
        configured_by: "this kernel lacks CONFIG_BPF_SYSCALL",
    },
    Rule {
        name: "map_idr",
        functions: &["bpf_map_get_curr_or_next", "bpf_map_free_id", "bpf_map_put"],
        takes: any,
        members: &[],
        verify: |kernel, at| {
            idr(kernel, at, |k, id, map| field(k, "bpf_map", map, "id") == Some(id))
        },
        configured_by: "this kernel lacks CONFIG_BPF_SYSCALL",
    },
    Rule {
        name: "link_idr",
        functions: &["bpf_link_get_curr_or_next", "bpf_link_free", "bpf_link_by_id"],
        takes: any,
        members: &[],
        verify: |kernel, at| {
            idr(kernel, at, |k, id, link| field(k, "bpf_link", link, "id") == Some(id))
        },
        configured_by: "this kernel lacks CONFIG_BPF_SYSCALL",
    },
    // kernel/bpf/core.c
    Rule {
        name: "bpf_kallsyms",
        functions: &["bpf_get_kallsym", "bpf_ksym_add", "bpf_prog_kallsyms_add"],
        takes: any,
        members: &[],
        verify: list_of_bpf_symbols,
        configured_by: "this kernel lacks CONFIG_BPF_JIT",
    },
    // kernel/trace/ftrace.c
    Rule {
        name: "ftrace_pages_start",
        functions: &["ftrace_location_range", "lookup_rec", "ftrace_rec_iter_start"],
        takes: access_of_pointer,
        members: &[],
        verify: pages_of_ftrace_records,
        configured_by: "this kernel lacks CONFIG_DYNAMIC_FTRACE",
    },
    Rule {
        name: "ftrace_ops_list",
        functions: &[
            "__register_ftrace_function",
            "__unregister_ftrace_function",
            "ftrace_ops_trampoline",
            "is_ftrace_trampoline",
            "arch_ftrace_ops_list_func",
        ],
        takes: any,
        members: &[],
        verify: list_of_ftrace_ops,
        configured_by: "this kernel lacks CONFIG_FUNCTION_TRACER",
    },
    Rule {
        name: "ftrace_ops_trampoline_list",
        functions: &[
            "ftrace_mod_get_kallsym",
            "ftrace_update_trampoline",
            "ftrace_get_trampoline_kallsym",
        ],
        takes: any,
        members: &[],
        verify: list_of_ftrace_trampolines,
        configured_by: "this kernel lacks CONFIG_DYNAMIC_FTRACE",
    },
    // init/init_task.c; kernel/sched/core.c, kernel/signal.c
    Rule {
        name: "init_task",
        functions: &["show_state_filter", "kill_something_info", "normalize_rt_tasks"],
        takes: any,
        members: &[("task_struct", "tasks")],
        verify: first_task,
        configured_by: "the names of these functions have changed",
    },
    // security/lockdown/lockdown.c
    Rule {
        name: "kernel_locked_down",
        functions: &["lockdown_is_locked_down"],
        takes: |usage| usage == Use::Access(4),
        members: &[],
        verify: lockdown_level,
        configured_by: "this kernel lacks CONFIG_SECURITY_LOCKDOWN_LSM",
    },
    // kernel/module/main.c
    Rule {
        name: "modules",
        functions: &["find_module_all", "module_get_kallsym", "print_modules", "load_module"],
        takes: any,
        members: &[],
        verify: list_of_modules,
        configured_by: "this kernel lacks CONFIG_MODULES",
    },
    // kernel/kprobes.c
    Rule {
        name: "kprobe_table",
        functions: &["get_kprobe", "__get_valid_kprobe"],
        takes: any,
        members: &[],
        verify: table_of_kprobes,
        configured_by: "this kernel lacks CONFIG_KPROBES",
    },
    // kernel/livepatch/core.c
    Rule {
        name: "klp_patches",
        functions: &["klp_enable_patch", "klp_send_signals", "klp_module_coming"],
        takes: any,
        members: &[],
        verify: list_of_livepatches,
        configured_by: "this kernel lacks CONFIG_LIVEPATCH",
    },
    // arch/x86/realmode/init.c; used in arch/x86/kernel/{reboot,smpboot}.c
    Rule {
        name: "real_mode_header",
        functions: &["machine_real_restart", "native_kick_ap", "do_boot_cpu"],
        takes: access_of_pointer,
        members: &[],
        verify: real_mode_header,
        configured_by: "the names of these functions have changed",
    },
    // security/security.c, 6.12 and later; the loops over a hook's slots start at `active`
    Rule {
        name: "static_calls_table",
        functions: &["security_getprocattr", "security_setprocattr", "security_getselfattr"],
        takes: any,
        members: &[
            ("lsm_static_calls_table", "getprocattr"),
            ("lsm_static_calls_table", "setprocattr"),
            ("lsm_static_calls_table", "getselfattr"),
            ("lsm_static_calls_table", "getprocattr[0].active"),
            ("lsm_static_calls_table", "setprocattr[0].active"),
            ("lsm_static_calls_table", "getselfattr[0].active"),
        ],
        verify: table_of_lsm_calls,
        configured_by: "this kernel lacks CONFIG_SECURITY",
    },
    // net/core/net_namespace.c; walked by for_each_net() in net/core/dev.c and rtnetlink.c
    Rule {
        name: "net_namespace_list",
        functions: &[
            "register_netdevice_notifier",
            "unregister_netdevice_notifier",
            "rtnl_link_unregister",
            "unregister_pernet_operations",
        ],
        takes: any,
        members: &[],
        verify: list_of_network_namespaces,
        configured_by: "this kernel lacks CONFIG_NET",
    },
    // net/core/sock.c
    Rule {
        name: "proto_list",
        functions: &["proto_register", "proto_unregister", "proto_seq_start"],
        takes: any,
        members: &[],
        verify: list_of_protocols,
        configured_by: "this kernel lacks CONFIG_NET",
    },
    // fs/super.c
    Rule {
        name: "super_blocks",
        functions: &[
            "iterate_supers",
            "iterate_supers_type",
            "user_get_super",
            "generic_shutdown_super",
            "__iterate_supers",
        ],
        takes: any,
        members: &[],
        verify: list_of_file_systems,
        configured_by: "the names of these functions have changed",
    },
    // fs/exec.c
    Rule {
        name: "formats",
        functions: &["__register_binfmt", "bprm_execve", "search_binary_handler"],
        takes: any,
        members: &[],
        verify: list_of_executable_formats,
        configured_by: "the names of these functions have changed",
    },
    // mm/init-mm.c; used in mm/vmalloc.c
    Rule {
        name: "init_mm",
        functions: &["vmalloc_to_page", "vmap_range_noflush", "pgd_alloc"],
        takes: any,
        members: &[("mm_struct", "pgd")],
        verify: kernel_mm,
        configured_by: "the names of these functions have changed",
    },
];

fn any(_: Use) -> bool {
    true
}

fn access_of_pointer(usage: Use) -> bool {
    usage == Use::Access(8)
}

/// Bytes from the start of a `of` to its `member`; `None` where this kernel's type has none.
pub(super) fn offset(kernel: &Kernel<'_>, of: &str, member: &str) -> Option<u64> {
    kernel.offset_of(of, member).ok()
}

fn field(kernel: &Kernel<'_>, of: &str, address: u64, member: &str) -> Option<u64> {
    kernel.object(of, address).ok()?.u64(member).ok()
}

/// The kernel's half of the address space; 8-aligned, as all that these rules follow is.
fn is_pointer(value: u64) -> bool {
    value >= 0xff00_0000_0000_0000 && value.is_multiple_of(8)
}

fn in_text(kernel: &Kernel<'_>, address: u64) -> bool {
    let (start, end) = (kernel.symbols.address_of("_stext"), kernel.symbols.address_of("_etext"));
    start.zip(end).is_some_and(|(start, end)| (start..end).contains(&address))
}

fn idr(
    kernel: &Kernel<'_>,
    at: u64,
    is_entry: impl Fn(&Kernel<'_>, u64, u64) -> bool,
) -> Option<Proof> {
    let object = kernel.object("idr", at).ok()?;
    let flags = object.field("idr_rt").ok()?.u32("xa_flags").ok()?;
    if flags & ROOT_IS_IDR == 0 || object.u32("idr_base").ok()? > 1 {
        return None;
    }
    let entries = kernel.idr(at).ok()?;
    // An entry may go while it is looked at, so most of a sample is enough, and one is not asked
    // for more than it can give.
    let sample: Vec<_> =
        entries.iter().filter(|(_, entry)| is_pointer(*entry)).take(SAMPLE).collect();
    let good = sample.iter().filter(|(id, entry)| is_entry(kernel, *id, *entry)).count();
    match (entries.len(), good) {
        (0, _) => Some(Proof::Shape),
        (_, good) if good > 0 && good * 2 > sample.len() => Some(Proof::Content),
        _ => None,
    }
}

fn program_has_id(kernel: &Kernel<'_>, id: u64, program: u64) -> bool {
    let Some(aux) = field(kernel, "bpf_prog", program, "aux").filter(|aux| is_pointer(*aux)) else {
        return false;
    };
    field(kernel, "bpf_prog_aux", aux, "id") == Some(id)
        && field(kernel, "bpf_prog_aux", aux, "prog") == Some(program)
}

/// Walks a list from its head at `at`: all links must agree with their neighbours, and most of the
/// members looked into must satisfy `is_member`.
fn list(
    kernel: &Kernel<'_>,
    at: u64,
    of: &str,
    member: &str,
    is_member: impl Fn(&Object<'_>) -> bool,
) -> Option<Proof> {
    let (next, previous) = (kernel.u64_at(at).ok()?, kernel.u64_at(at.wrapping_add(8)).ok()?);
    if next == at && previous == at {
        return Some(Proof::Shape);
    }
    if !is_pointer(next) || !is_pointer(previous) || kernel.u64_at(previous).ok()? != at {
        return None;
    }
    let link = offset(kernel, of, member)?;
    let (mut node, mut before) = (next, at);
    for _ in 0..SAMPLE {
        if node == at {
            break;
        }
        if !is_pointer(node) || kernel.u64_at(node.wrapping_add(8)).ok()? != before {
            return None;
        }
        if !is_member(&kernel.object(of, node.wrapping_sub(link)).ok()?) {
            return None;
        }
        before = node;
        node = kernel.u64_at(node).ok()?;
    }
    Some(Proof::Content)
}

fn list_of_bpf_symbols(kernel: &Kernel<'_>, at: u64) -> Option<Proof> {
    list(kernel, at, "bpf_ksym", "lnode", |symbol| {
        let (Ok(start), Ok(end)) = (symbol.u64("start"), symbol.u64("end")) else { return false };
        let named = symbol.string("name").is_ok_and(|name| name.starts_with("bpf"));
        named && start < end && end - start < 1 << 24 && start >= 0xff00_0000_0000_0000
    })
}

fn pages_of_ftrace_records(kernel: &Kernel<'_>, at: u64) -> Option<Proof> {
    let first = kernel.u64_at(at).ok().filter(|first| is_pointer(*first))?;
    let page = kernel.object("ftrace_page", first).ok()?;
    let (records, count) = (page.u64("records").ok()?, page.u64("index").ok()?);
    let size = kernel.size_of("dyn_ftrace").ok()?;
    if !is_pointer(records) || count == 0 || count > 1 << 20 {
        return None;
    }
    let ip = |index: u64| kernel.u64_at(records.wrapping_add(index * size)).ok();
    let (lowest, highest) = (ip(0)?, ip(count - 1)?);
    let sorted = lowest <= highest && in_text(kernel, lowest) && in_text(kernel, highest);
    sorted.then_some(Proof::Content)
}

/// The list ends in `ftrace_list_end`, whose function does nothing (`ftrace_stub`).
fn list_of_ftrace_ops(kernel: &Kernel<'_>, at: u64) -> Option<Proof> {
    let stubs: Vec<u64> = kernel.symbols.all_named("ftrace_stub").map(|s| s.address).collect();
    let mut next = kernel.u64_at(at).ok()?;
    // BPF trampolines have one each, so there may be thousands.
    for _ in 0..1 << 16 {
        if !is_pointer(next) {
            return None;
        }
        let ops = kernel.object("ftrace_ops", next).ok()?;
        let (function, following) = (ops.u64("func").ok()?, ops.u64("next").ok()?);
        if stubs.contains(&function) && following == 0 {
            return Some(Proof::Content);
        }
        if function < 0xff00_0000_0000_0000 {
            return None;
        }
        next = following;
    }
    None
}

fn list_of_ftrace_trampolines(kernel: &Kernel<'_>, at: u64) -> Option<Proof> {
    list(kernel, at, "ftrace_ops", "list", |ops| {
        let trampoline = ops.u64("trampoline").is_ok_and(|at| at >= 0xff00_0000_0000_0000);
        trampoline && ops.u64("trampoline_size").is_ok_and(|size| (1..1 << 16).contains(&size))
    })
}

fn first_task(kernel: &Kernel<'_>, at: u64) -> Option<Proof> {
    let task = kernel.object("task_struct", at).ok()?;
    let head = at.wrapping_add(offset(kernel, "task_struct", "tasks")?);
    let next = task.field("tasks").ok()?.u64("next").ok().filter(|next| is_pointer(*next))?;
    let idle = task.u64("pid").ok()? == 0 && task.string("comm").ok()?.starts_with("swapper");
    (idle && kernel.u64_at(next.wrapping_add(8)).ok()? == head).then_some(Proof::Content)
}

fn lockdown_level(kernel: &Kernel<'_>, at: u64) -> Option<Proof> {
    // enum lockdown_reason has less than 64 values (include/linux/security.h). The variable is
    // written after boot, so it is not among the constants.
    let constant = kernel.symbols.address_of("__start_rodata").is_some_and(|start| {
        let end = kernel.symbols.address_of("__start_ro_after_init").unwrap_or(start);
        (start..end).contains(&at)
    });
    (!constant && kernel.u32_at(at).ok()? < 64).then_some(Proof::Shape)
}

fn list_of_modules(kernel: &Kernel<'_>, at: u64) -> Option<Proof> {
    list(kernel, at, "module", "list", |module| {
        let own = module.field("mkobj").and_then(|kobject| kobject.u64("mod"));
        let named = module
            .string("name")
            .is_ok_and(|name| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic()));
        named && own == Ok(module.address())
    })
}

fn table_of_kprobes(kernel: &Kernel<'_>, at: u64) -> Option<Proof> {
    let mut proof = Proof::Shape;
    for bucket in 0..KPROBE_BUCKETS {
        let head = at.wrapping_add(bucket * 8);
        let first = kernel.u64_at(head).ok()?;
        if first == 0 {
            continue;
        }
        if !is_pointer(first) || kernel.u64_at(first.wrapping_add(8)).ok()? != head {
            return None;
        }
        field(kernel, "kprobe", first, "addr").filter(|addr| *addr >= 0xff00_0000_0000_0000)?;
        proof = Proof::Content;
    }
    Some(proof)
}

/// `KPROBE_TABLE_SIZE`, 1 << `KPROBE_HASH_BITS` (kernel/kprobes.c).
pub(crate) const KPROBE_BUCKETS: u64 = 64;

fn list_of_livepatches(kernel: &Kernel<'_>, at: u64) -> Option<Proof> {
    list(kernel, at, "klp_patch", "list", |patch| patch.u64("objs").is_ok_and(is_pointer))
}

/// `include/net/net_namespace.h`; the number of a namespace is above those of processes' ids
/// (`PROC_DYNAMIC_FIRST`, fs/proc/generic.c), or one of the reserved ones just below (`PROC_*_INIT_INO`,
/// include/linux/proc_ns.h).
fn list_of_network_namespaces(kernel: &Kernel<'_>, at: u64) -> Option<Proof> {
    list(kernel, at, "net", "list", |net| {
        net.u64("ns.inum").is_ok_and(|number| number >= 0xefff_fff0)
            && net.u64("loopback_dev").is_ok_and(is_pointer)
    })
}

/// `include/net/sock.h`: what sockets are made of.
fn list_of_protocols(kernel: &Kernel<'_>, at: u64) -> Option<Proof> {
    list(kernel, at, "proto", "node", |protocol| {
        let name = protocol.string("name").unwrap_or_default();
        let named = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic());
        named && protocol.u64("obj_size").is_ok_and(|size| (1..1 << 16).contains(&size))
    })
}

/// `include/linux/fs.h`: file systems that are mounted, each with its type.
fn list_of_file_systems(kernel: &Kernel<'_>, at: u64) -> Option<Proof> {
    list(kernel, at, "super_block", "s_list", |mounted| {
        let of_type = mounted.u64("s_type").ok().filter(|of_type| is_pointer(*of_type));
        let named = of_type.and_then(|of_type| field(kernel, "file_system_type", of_type, "name"));
        named.is_some_and(|name| name >= 0xff00_0000_0000_0000)
            && mounted.u64("s_blocksize").is_ok_and(u64::is_power_of_two)
    })
}

/// `include/linux/binfmts.h`: who loads programs.
fn list_of_executable_formats(kernel: &Kernel<'_>, at: u64) -> Option<Proof> {
    list(kernel, at, "linux_binfmt", "lh", |format| {
        format.u64("load_binary").is_ok_and(|handler| handler >= 0xff00_0000_0000_0000)
    })
}

fn real_mode_header(kernel: &Kernel<'_>, at: u64) -> Option<Proof> {
    // The trampoline lies below 1 MiB (reserve_real_mode), all offsets in it are physical.
    let address = kernel.u64_at(at).ok().filter(|address| address.is_multiple_of(4096))?;
    let header = kernel.object("real_mode_header", address).ok()?;
    let (text, end) = (header.u64("text_start").ok()?, header.u64("ro_end").ok()?);
    let start = header.u64("trampoline_start").ok()?;
    (text < end && end < 1 << 20 && (text..end).contains(&start) && text > 0)
        .then_some(Proof::Content)
}

fn kernel_mm(kernel: &Kernel<'_>, at: u64) -> Option<Proof> {
    let mm = kernel.object("mm_struct", at).ok()?;
    let pgd = mm.u64("pgd").ok()?;
    let text = kernel.symbols.address_of("_stext")?;
    // init_mm owns the image's own top table and knows where the text is (setup_initial_init_mm).
    let own_table = pgd.is_multiple_of(4096) && pgd > text && pgd >> 30 == text >> 30;
    let code = mm.u64("start_code").ok()?;
    (own_table && code == text).then_some(Proof::Content)
}

/// Each slot of a hook is called through a static call whose trampoline carries the hook's name.
fn table_of_lsm_calls(kernel: &Kernel<'_>, at: u64) -> Option<Proof> {
    let table = kernel.object("lsm_static_calls_table", at).ok()?;
    for hook in ["getprocattr", "file_open", "bpf"] {
        let Ok(slot) = table.field(&format!("{hook}[0]")) else { continue };
        let (symbol, offset) = kernel.symbols.containing(slot.u64("trampoline").ok()?)?;
        if offset != 0 || symbol.name != format!("__SCT__lsm_static_call_{hook}_0") {
            return None;
        }
    }
    Some(Proof::Content)
}
