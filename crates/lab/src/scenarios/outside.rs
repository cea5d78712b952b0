// SPDX-License-Identifier: Apache-2.0
//! A guest can be looked at from outside: its memory while it runs, its registers, and dumps.

use std::fs;

use anyhow::{Context, ensure};
use qmp::DumpFormat;

use crate::scenario::{Cell, Outcome, Scenario, expect_same};
use crate::vm::Boot;

/// See the module.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "outside",
    about: "memory, registers and dumps of a guest can be read from outside",
    core: |kernel| kernel.name == "6.12-cloud-amd64",
    run,
};

/// Where the kernel's text is mapped, without KASLR (arch/x86/include/asm/page_64_types.h, 6.12).
const START_KERNEL_MAP: u64 = 0xffff_ffff_8000_0000;

fn run(cell: &Cell<'_>) -> anyhow::Result<Outcome> {
    let mut vm = cell.boot(&Boot::new())?;
    // A function's bytes as the guest itself sees them; physical = virtual - base + phys_base.
    let address = vm.shell("awk '$3 == \"linux_banner\" { print $1 }' /proc/kallsyms")?;
    let address = u64::from_str_radix(&address, 16).context("the address of linux_banner")?;
    let base = vm.shell("awk '/Kernel code/ { print $1 }' /proc/iomem")?;
    let base = base.split('-').next().unwrap_or_default();
    let physical_text = u64::from_str_radix(base, 16).context("/proc/iomem, Kernel code")?;
    let text = vm.shell("awk '$3 == \"_text\" { print $1 }' /proc/kallsyms")?;
    let text = u64::from_str_radix(&text, 16).context("the address of _text")?;
    ensure!(address > START_KERNEL_MAP && text > START_KERNEL_MAP, "addresses are hidden");
    let banner = vm.shell("cat /proc/version")?;
    let seen = vm.ram()?.read(address - text + physical_text, banner.len());
    let seen = String::from_utf8_lossy(&seen.unwrap_or_default()).into_owned();
    expect_same("linux_banner, read from outside", seen, banner)?;

    let registers = vm.with_monitor(|qmp| {
        qmp.stop()?;
        let registers = qmp.human("info registers -a")?;
        qmp.go_on()?;
        Ok(registers)
    })?;
    for register in ["CR0=", "CR4=", "IDT=", "EFER=", "CPU#1"] {
        ensure!(registers.contains(register), "QEMU says no {register}: {registers}");
    }

    let (elf, kdump) = (cell.logs().join("elf.dump"), cell.logs().join("kdump.dump"));
    vm.with_monitor(|qmp| {
        qmp.dump(&elf, DumpFormat::Elf)?;
        qmp.dump(&kdump, DumpFormat::KdumpZlib)
    })?;
    let begins = |path, with: &[u8]| fs::read(path).is_ok_and(|bytes| bytes.starts_with(with));
    ensure!(begins(&elf, b"\x7fELF"), "the dump in ELF is none");
    // QEMU writes kdump's format flattened, with a header of makedumpfile's around it.
    ensure!(begins(&kdump, b"makedumpfile"), "the dump in kdump's format is none");
    let size = fs::metadata(&kdump).map(|data| data.len() >> 20).unwrap_or_default();
    for dump in [elf, kdump] {
        fs::remove_file(&dump).with_context(|| dump.display().to_string())?;
    }
    expect_same("the guest after all that", vm.shell("echo alive")?.as_str(), "alive")?;
    vm.power_off();
    Ok(Outcome::passed(format!("{size} MiB")))
}
