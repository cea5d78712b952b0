// SPDX-License-Identifier: Apache-2.0
//! A kernel boots in the lab, is the one that was meant, and has what the guard needs.

use std::fs;

use anyhow::{Context, ensure};
use kernel_image::KernelImage;

use crate::scenario::{Cell, Outcome, Scenario, expect_same};
use crate::vm::Boot;

/// By the clock, where the host has processors to spare.
const LIMIT_SECONDS: f64 = 10.0;
/// In processor time, where it has not: those that share a core slow each other down.
const BUSY_LIMIT_SECONDS: f64 = 20.0;

/// See the module.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "boots",
    about: "boots within 10 s (busy host: 20 s CPU); release, LSMs, BTF and symbols are as expected",
    core: |_| true,
    run,
};

fn run(cell: &Cell<'_>) -> anyhow::Result<Outcome> {
    let kernel = cell.kernel();
    let vm = cell.boot(&Boot::new())?;
    let (wall, used) = (vm.booted_in().as_secs_f64(), vm.processor_time()?.as_secs_f64());
    let figure = format!("{wall:.1} s, CPU {used:.1} s");
    let in_time = if host_is_busy() { used <= BUSY_LIMIT_SECONDS } else { wall <= LIMIT_SECONDS };
    ensure!(in_time, "booting took too long: {figure}");

    expect_same("the release", vm.shell("uname -r")?.as_str(), &kernel.release)?;
    let lockdown = vm.shell("cat /sys/kernel/security/lockdown")?;
    expect_same("lockdown", lockdown.as_str(), "[none] integrity confidentiality")?;
    let lsms = vm.shell("cat /sys/kernel/security/lsm")?;
    for lsm in ["capability", "landlock", "lockdown", "yama", "bpf"] {
        let there = lsms.split(',').any(|name| name == lsm);
        ensure!(there, "the security module {lsm} is not among those that are active: {lsms}");
    }
    let image = fs::read(kernel.vmlinuz()).context("the boot image")?;
    let image = KernelImage::parse(&image)?.summary();
    let btf = vm.shell("stat -c %s /sys/kernel/btf/vmlinux")?;
    expect_same("bytes of BTF", btf, image.btf_bytes.to_string())?;
    // Those of modules, of BPF programs and of ftrace's trampolines are followed by their owner.
    let symbols = vm.shell("grep -vc '\\[' /proc/kallsyms")?;
    expect_same("the kernel's own symbols", symbols, image.symbols.to_string())?;

    vm.power_off();
    Ok(Outcome::passed(figure))
}

/// Whether more wants to run than the lab's own two guests explain, for the last minute.
fn host_is_busy() -> bool {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().and_then(|load| load.parse::<f64>().ok());
    load.is_some_and(|load| load > 1.5 * processors as f64)
}
