// SPDX-License-Identifier: Apache-2.0
//! A kernel with more than sixty modules of its package loaded has no findings either.

use anyhow::ensure;

use crate::scenario::{Cell, Outcome, Scenario, only_core};
use crate::scenarios::check::clean_report;
use crate::vm::Boot;

/// See the module.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "modules",
    about: "`ringfence check` finds nothing with more than sixty modules loaded",
    // The matrix loads as many on all kernels.
    kernels: only_core,
    core: |kernel| kernel.name == "6.12-amd64",
    timed: false,
    run,
};

pub(crate) const AT_LEAST: usize = 60;

/// What all kernels of the cache have and what loads without its device. With what they need they are
/// about a hundred. No raid6_pq: it measures itself for seconds as it loads.
pub(crate) const MODULES: [&str; 58] = [
    "act_ct",
    "act_mirred",
    "act_police",
    "binfmt_misc",
    "bonding",
    "bridge",
    "cls_bpf",
    "cls_flower",
    "cls_u32",
    "dm_crypt",
    "dm_integrity",
    "dm_multipath",
    "dm_snapshot",
    "dm_thin_pool",
    "dm_verity",
    "dummy",
    "erofs",
    "esp4",
    "exfat",
    "geneve",
    "ifb",
    "ip6table_nat",
    "ip_gre",
    "ip_set_hash_ip",
    "ip_vs_rr",
    "ipvlan",
    "isofs",
    "loop",
    "macvlan",
    "msr",
    "nbd",
    "nf_conntrack_ftp",
    "nf_conntrack_netlink",
    "nfsd",
    "nft_ct",
    "nft_fib_inet",
    "nft_masq",
    "nlmon",
    "openvswitch",
    "overlay",
    "raid10",
    "sch_cake",
    "sch_fq",
    "sch_htb",
    "sch_netem",
    "sctp",
    "squashfs",
    "tcp_bbr",
    "tipc",
    "tls",
    "tun",
    "veth",
    "vsock_loopback",
    "vxlan",
    "wireguard",
    "xfs",
    "xt_MASQUERADE",
    "zram",
];

fn run(cell: &Cell<'_>) -> anyhow::Result<Outcome> {
    let boot = MODULES.into_iter().fold(Boot::new().memory(1024), Boot::module);
    let vm = cell.boot(&boot.file(cell.programs().ringfence(), "/usr/bin/ringfence"))?;
    let loaded = vm.shell("cat /proc/modules")?.lines().count();
    ensure!(loaded >= AT_LEAST, "only {loaded} modules are loaded, of {AT_LEAST} at least");
    clean_report(cell, &vm)?;
    vm.power_off();
    Ok(Outcome::passed(format!("{loaded} modules")))
}
