// SPDX-License-Identifier: Apache-2.0
//! What the kernel's memory says of its modules.

use std::collections::{BTreeMap, BTreeSet};

use kernel_memory::Kernel;

use crate::check::Missing;
use crate::checks::looks;
use crate::fields::{Chain, Fields, Record};
use crate::recover::Recovered;

/// `MODULE_STATE_LIVE` and so on (include/linux/module.h).
pub(super) const LIVE: u64 = 0;
pub(super) const COMING: u64 = 1;
pub(super) const GOING: u64 = 2;
const UNFORMED: u64 = 3;

/// More modules than any kernel has, and more of what they give to it.
const MOST: usize = 1 << 16;

/// A module as its `struct module` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::checks) struct Loaded {
    /// Where its `struct module` is.
    pub(in crate::checks) address: u64,
    pub(in crate::checks) name: String,
    state: u64,
}

impl Loaded {
    /// Whether it is loaded and started.
    pub(in crate::checks) fn is_live(&self) -> bool {
        self.state == LIVE
    }

    /// Whether it is about to come or all but gone.
    pub(super) fn is_unformed(&self) -> bool {
        self.state == UNFORMED
    }
}

#[cfg(test)]
impl Loaded {
    pub(super) fn live(address: u64, name: &str) -> Self {
        Self::in_state(address, name, LIVE)
    }

    pub(super) fn in_state(address: u64, name: &str, state: u64) -> Self {
        Self { address, name: name.to_owned(), state }
    }
}

/// Reads some modules; those that cannot be read are left out.
pub(super) fn describe(
    kernel: &Kernel<'_>,
    addresses: &BTreeSet<u64>,
) -> Result<BTreeMap<u64, Loaded>, Missing> {
    let fields = Fields::of(kernel, "module", &["state", "name"])?;
    let addresses: Vec<u64> = addresses.iter().copied().collect();
    let records = fields.read(kernel, &addresses);
    let modules = records.iter().flatten().map(|record| {
        let (address, state) = (record.address, record.value(0));
        (address, Loaded { address, name: record.text(1), state })
    });
    Ok(modules.collect())
}

/// Why a kernel has no modules, if it can have none.
pub(in crate::checks) fn cannot_load(kernel: &Kernel<'_>) -> Option<Missing> {
    let has = |name| kernel.symbols.address_of(name).is_some();
    let can = has("modules") || has("__do_sys_init_module") || has("load_module");
    (!can).then(|| Missing::because("this kernel is built without modules (CONFIG_MODULES)"))
}

/// The modules on the kernel's list.
pub(super) fn listed(
    kernel: &Kernel<'_>,
    recovered: &mut Recovered,
) -> Result<BTreeSet<u64>, Missing> {
    let listed = on_list(kernel, recovered)?;
    Ok(listed.iter().map(|module| module.address).collect())
}

/// These fields of each module on the kernel's list, in its order; the first must be `list.next`.
pub(in crate::checks) fn walk_list<'f>(
    kernel: &Kernel<'_>,
    recovered: &mut Recovered,
    fields: &'f Fields,
) -> Result<Vec<Record<'f>>, Missing> {
    let head = recovered.data_symbol(kernel, "modules")?.address;
    let link = kernel.offset_of("module", "list")?;
    let chain = Chain { head, link, next: 0, end: head, most: MOST };
    looks::settled(|| recovered.chains.walk(kernel, fields, chain)).map_err(|at| {
        Missing(format!("the list of modules breaks off or does not end, at {at:#x}"))
    })
}

/// The modules on the kernel's list, read, in order of address.
pub(in crate::checks) fn on_list(
    kernel: &Kernel<'_>,
    recovered: &mut Recovered,
) -> Result<Vec<Loaded>, Missing> {
    let fields = Fields::of(kernel, "module", &["list.next", "state", "name"])?;
    let mut modules: Vec<Loaded> = walk_list(kernel, recovered, &fields)?
        .iter()
        .map(|record| Loaded {
            address: record.address,
            name: record.text(2),
            state: record.value(1),
        })
        .collect();
    modules.sort_by_key(|module| module.address);
    Ok(modules)
}

/// The modules whose kobjects are in the set of modules' kobjects; what is built in has kobjects
/// there too, for its parameters, and no `struct module`.
pub(super) fn in_kset(
    kernel: &Kernel<'_>,
    recovered: &mut Recovered,
) -> Result<BTreeSet<u64>, Missing> {
    let set = kernel.u64_at(recovered.data_symbol(kernel, "module_kset")?.address)?;
    let head = kernel.object("kset", set)?.field("list")?.address();
    let fields = Fields::of(kernel, "module_kobject", &["mod"])?;
    let to_kobject = kernel.offset_of("module_kobject", "kobj")?;
    let kobjects: Vec<u64> = settled(|| {
        let kobjects = kernel.list(head, "kobject", "entry");
        kobjects.map(|kobject| Ok(kobject?.address().wrapping_sub(to_kobject))).collect()
    })?;
    let records = fields.read(kernel, &kobjects);
    Ok(records.iter().flatten().map(|record| record.value(0)).filter(|at| *at != 0).collect())
}

/// The modules in the tree by which the kernel finds whose code an address is in: each part of a
/// module's memory is a node of it, since 6.4 (`module_memory.mtn`) as before (`module_layout.mtn`).
pub(super) fn in_tree(
    kernel: &Kernel<'_>,
    recovered: &mut Recovered,
) -> Result<BTreeSet<u64>, Missing> {
    let root = recovered.data_symbol(kernel, "mod_tree")?.address;
    let root = root.wrapping_add(kernel.offset_of("mod_tree_root", "root")?);
    let nodes: Vec<u64> = settled(|| {
        let nodes = kernel.latch_tree(root, "mod_tree_node", "node")?;
        Ok(nodes.iter().map(kernel_memory::Object::address).collect())
    })?;
    let fields = Fields::of(kernel, "mod_tree_node", &["mod"])?;
    let records = fields.read(kernel, &nodes);
    Ok(records.iter().flatten().map(|record| record.value(0)).collect())
}

/// Lists of what modules gave to the kernel, each with the pointer to its module: the list's head,
/// type, link and pointer.
const GIVEN: [(&str, &str, &str, &str); 4] = [
    // lib/bug.c: modules with code for BUG and WARN.
    ("module_bug_list", "module", "bug_list", ""),
    // net/core/sock.c: protocols.
    ("proto_list", "proto", "node", "owner"),
    // crypto/api.c: algorithms.
    ("crypto_alg_list", "crypto_alg", "cra_list", "cra_module"),
    // net/ipv4/tcp_cong.c: congestion control.
    ("tcp_cong_list", "tcp_congestion_ops", "list", "owner"),
];

/// The modules that something they gave to the kernel leads to. Most give nothing of the kind.
pub(super) fn of_hooks(kernel: &Kernel<'_>, recovered: &mut Recovered) -> BTreeSet<u64> {
    let mut modules = BTreeSet::new();
    for (head, of, link, owner) in GIVEN {
        let Ok(head) = recovered.data_symbol(kernel, head) else { continue };
        if let Some(given) = walk_given(kernel, recovered, head.address, (of, link, owner)) {
            modules.extend(given);
            continue;
        }
        // It breaks off: what stands before that counts all the same.
        for object in kernel.list(head.address, of, link).map_while(Result::ok) {
            let module = match owner {
                "" => Ok(object.address()),
                owner => object.u64(owner),
            };
            modules.extend(module.ok().filter(|at| *at != 0));
        }
    }
    // fs/filesystems.c: a chain without list nodes.
    if let Ok(head) = recovered.data_symbol(kernel, "file_systems") {
        let systems = kernel.chain(head.address, "file_system_type", "next");
        let owners = systems.map_while(Result::ok).map_while(|system| system.u64("owner").ok());
        modules.extend(owners.filter(|at| *at != 0));
    }
    modules
}

/// The modules that the objects of a list belong to.
fn walk_given(
    kernel: &Kernel<'_>,
    recovered: &mut Recovered,
    head: u64,
    (of, link, owner): (&str, &str, &str),
) -> Option<Vec<u64>> {
    let next = format!("{link}.next");
    let members = [next.as_str(), owner];
    let members = members.get(..if owner.is_empty() { 1 } else { 2 })?;
    let fields = Fields::of(kernel, of, members).ok()?;
    let link = kernel.offset_of(of, link).ok()?;
    let chain = Chain { head, link, next: 0, end: head, most: MOST };
    let records = looks::settled(|| recovered.chains.walk(kernel, &fields, chain)).ok()?;
    let modules = records.iter().map(|record| match owner {
        "" => record.address,
        _ => record.value(1),
    });
    Some(modules.filter(|at| *at != 0).collect())
}

fn settled<T>(walk: impl FnMut() -> Result<T, kernel_memory::AccessError>) -> Result<T, Missing> {
    Ok(looks::settled(walk)?)
}
