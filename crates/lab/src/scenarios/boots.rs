// SPDX-License-Identifier: Apache-2.0
//! A kernel boots in the lab, is the one that was meant, and has what the guard needs.

use std::fs;

use anyhow::{Context, ensure};
use kernel_image::KernelImage;

use crate::scenario::{Cell, Outcome, Scenario, everywhere, expect_same};
use crate::vm::Boot;

/// In processor time: by the clock one would measure what else the host has to do. On a quiet one both
/// are the same, and the table has both.
const LIMIT_SECONDS: f64 = 10.0;

/// See the module.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "boots",
    about: "boots within 10 s of processor time; release, LSMs, BTF and symbols are as expected",
    kernels: everywhere,
    core: |_| true,
    timed: true,
    run,
};

fn run(cell: &Cell<'_>) -> anyhow::Result<Outcome> {
    let kernel = cell.kernel();
    let vm = cell.boot(&Boot::new())?;
    let (wall, used) = (vm.booted_in().as_secs_f64(), vm.processor_time()?.as_secs_f64());
    let figure = format!("{wall:.1} s, CPU {used:.1} s");
    ensure!(used <= LIMIT_SECONDS, "booting took too long: {figure}");

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
