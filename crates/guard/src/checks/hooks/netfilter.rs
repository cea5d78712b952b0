// SPDX-License-Identifier: Apache-2.0
//! Netfilter hooks: of each network namespace for each family (`struct netns_nf`,
//! include/net/netns/netfilter.h), and of each device on its way in and out
//! (`nf_hooks_ingress`, `nf_hooks_egress` in include/linux/netdevice.h).
//!
//! Each pointer leads to a `struct nf_hook_entries` (include/linux/netfilter.h), an array of function
//! and argument behind its length.

use kernel_memory::{Kernel, Object};

use super::{Gathered, Look};
use crate::check::Missing;
use crate::finding::Hook;
use crate::recover::Recovered;

/// Hooks at one place; the kernel has no more (`MAX_HOOK_COUNT`, net/netfilter/core.c).
const MOST_HOOKS: u64 = 1024;

/// Devices of one namespace that are looked at.
const MOST_DEVICES: usize = 1 << 16;

/// Hooks of IPv4, IPv6 and bridges, in order of their number (include/uapi/linux/netfilter.h,
/// netfilter_bridge.h).
const PLACES: &[&str] = &["prerouting", "input", "forward", "output", "postrouting"];

/// Hooks of ARP (include/uapi/linux/netfilter_arp.h).
const PLACES_OF_ARP: &[&str] = &["input", "output", "forward"];

/// The arrays of pointers in `net.nf`, with the family and what their hooks are called.
const FAMILIES: [(&str, &str, &[&str]); 4] = [
    ("nf.hooks_ipv4", "ipv4", PLACES),
    ("nf.hooks_ipv6", "ipv6", PLACES),
    ("nf.hooks_arp", "arp", PLACES_OF_ARP),
    ("nf.hooks_bridge", "bridge", PLACES),
];

/// The pointers in a device.
const OF_DEVICE: [(&str, &str); 2] =
    [("nf_hooks_ingress", "ingress"), ("nf_hooks_egress", "egress")];

pub(super) fn gather(look: &mut Look<'_, '_>, gathered: &mut Gathered) -> Result<(), Missing> {
    let kernel = look.kernel;
    if !kernel.object("net", 0)?.has("nf") {
        return Err(Missing::because("netfilter hooks: this kernel lacks CONFIG_NETFILTER"));
    }
    let layout = Layout::of(&kernel)?;
    let namespaces = namespaces(&kernel, look.recovered)?;
    for (index, address) in namespaces.iter().enumerate() {
        let net = kernel.object("net", *address)?;
        // The first is the one that the kernel starts with.
        let within = match index {
            0 => String::new(),
            _ => format!(" in network namespace {}", net.u64("ns.inum")?),
        };
        for (array, family, names) in FAMILIES {
            if !net.has(array) {
                continue;
            }
            for number in 0..net.count(array)? {
                let entries = net.element(array, u64::from(number))?.u64("")?;
                let place = names
                    .get(number as usize)
                    .map_or_else(|| format!("hook {number}"), |name| (*name).to_owned());
                report(look, gathered, &layout, entries, &format!("{family} {place}{within}"));
            }
        }
        of_devices(look, gathered, &layout, &net, &within)?;
    }
    Ok(())
}

/// The network namespaces, the initial one first.
pub(in crate::checks) fn namespaces(
    kernel: &Kernel<'_>,
    recovered: &mut Recovered,
) -> Result<Vec<u64>, Missing> {
    let head = recovered.data_symbol(kernel, "net_namespace_list")?.address;
    let namespaces = kernel.list(head, "net", "list").map(|net| net.map(|net| net.address()));
    Ok(namespaces.collect::<Result<_, _>>()?)
}

fn of_devices(
    look: &Look<'_, '_>,
    gathered: &mut Gathered,
    layout: &Layout,
    net: &Object<'_>,
    within: &str,
) -> Result<(), Missing> {
    let kernel = look.kernel;
    let head = net.field("dev_base_head")?.address();
    for device in kernel.list(head, "net_device", "dev_list").take(MOST_DEVICES) {
        let device = device?;
        for (pointer, direction) in OF_DEVICE {
            if !device.has(pointer) {
                continue;
            }
            let entries = device.u64(pointer)?;
            if entries != 0 {
                let name = device.string("name").unwrap_or_default();
                let target = format!("{direction} of {name}{within}");
                report(look, gathered, layout, entries, &target);
            }
        }
    }
    Ok(())
}

/// Where the parts of a `struct nf_hook_entries` are.
struct Layout {
    entries: u64,
    size: u64,
    hook: u64,
}

impl Layout {
    fn of(kernel: &Kernel<'_>) -> Result<Self, Missing> {
        Ok(Self {
            entries: kernel.offset_of("nf_hook_entries", "hooks")?,
            size: kernel.size_of("nf_hook_entry")?,
            hook: kernel.offset_of("nf_hook_entry", "hook")?,
        })
    }
}

fn report(
    look: &Look<'_, '_>,
    gathered: &mut Gathered,
    layout: &Layout,
    entries: u64,
    target: &str,
) {
    let kernel = &look.kernel;
    if entries == 0 {
        return;
    }
    // `u16 num_hook_entries` is the first member.
    let count = kernel.u16_at(entries).map(u64::from);
    for index in 0..count.unwrap_or(0).min(MOST_HOOKS) {
        let place = entries.wrapping_add(layout.entries + index * layout.size + layout.hook);
        let Ok(handler) = kernel.u64_at(place) else { break };
        let function = look.function_at(handler);
        // A hook that was taken out while others remained (net/netfilter/core.c).
        if handler == 0 || function == "accept_all" {
            continue;
        }
        let owner = look.owner_of(gathered, "netfilter", target, place, handler);
        gathered.hooks.push(Hook {
            mechanism: "netfilter",
            target: target.to_owned(),
            handler: function,
            owner,
        });
    }
}
