// SPDX-License-Identifier: Apache-2.0
//! A guest can be looked at from outside: its memory while it runs, its registers, and dumps of each
//! format. `ringfence check` on the host finds nothing in any of them, and leaves nothing unexplained.
//! The guest that runs is not stopped for it, by QEMU's word and by the guest's own clock.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use qmp::DumpFormat;

use crate::kernels::Kernel;
use crate::scenario::{Cell, Outcome, Scenario, expect_same};
use crate::scenarios::check::clean_from_outside;
use crate::vm::{Boot, Vm};

/// See the module.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "outside",
    about: "`ringfence check` from outside explains a running guest and dumps of it",
    // The matrix looks at all kernels from outside.
    kernels: Kernel::is_for_clouds,
    core: |kernel| kernel.name == "6.12-cloud-amd64",
    timed: false,
    run,
};

/// Where the kernel's text is mapped, without KASLR (arch/x86/include/asm/page_64_types.h, 6.12).
const START_KERNEL_MAP: u64 = 0xffff_ffff_8000_0000;

fn run(cell: &Cell<'_>) -> anyhow::Result<Outcome> {
    let socket = Socket::new();
    // Two modules, so that there are some to be compared with their files.
    let mut vm = cell.boot(&Boot::new().module("tun").module("veth").monitor(&socket.0))?;
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

    // Who stops the guest is told of: without that, hearing nothing of it would say nothing.
    expect_same("a stop", stops(&mut vm)?, (true, vec!["STOP".into(), "RESUME".into()]))?;

    let running = while_it_runs(cell, &mut vm, &socket)?;
    dumps(cell, &mut vm)?;
    expect_same("the guest after all that", vm.shell("echo alive")?.as_str(), "alive")?;
    vm.power_off();
    Ok(Outcome::passed(running))
}

/// A socket for QEMU's monitor. Its name has to be short (`sun_path`, unix(7)), so it is not among the
/// logs.
pub(super) struct Socket(pub(super) PathBuf);

impl Socket {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        let name = format!("ringfence-{}-{:p}.qmp", std::process::id(), &raw const now);
        Self(std::env::temp_dir().join(name))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // QEMU may have taken it away already.
        let _ = fs::remove_file(&self.0);
    }
}

/// Whether the guest runs, and how it was stopped since this was asked last, by QEMU's events.
fn stops(vm: &mut Vm) -> anyhow::Result<(bool, Vec<String>)> {
    let (is_running, mut events) = vm.with_monitor(qmp::Qmp::status)?;
    events.retain(|event| ["STOP", "RESUME"].contains(&event.as_str()));
    Ok((is_running, events))
}

/// Reads the guest's clock again and again until there is a file of that name; prints `ticks` when it
/// begins, and at its end the longest step of the clock and how far it went, in milliseconds.
const TICKER: &str = r#"BEGIN {
    while ((getline line <"/tmp/looked") < 0) {
        getline line <"/proc/uptime"; close("/proc/uptime")
        split(line, fields, " "); now = fields[1] * 1000
        if (!first) { first = last = now; print "ticks"; fflush() }
        if (now - last > longest) longest = now - last
        last = now
    }
    print longest, last - first
}"#;

/// Checks a guest that is at work. Gives where the kernel is, how long the pass over its text took, and
/// what the guest felt of the look.
fn while_it_runs(cell: &Cell<'_>, vm: &mut Vm, socket: &Socket) -> anyhow::Result<String> {
    // A page that says of a kernel that it is elsewhere, as any program can make.
    let forged = format!(
        "OSRELEASE={}\nKERNELOFFSET=0\nNUMBER(phys_base)=0\nSYMBOL(init_top_pgt)=ffffffff81000000\n",
        cell.kernel().release
    );
    vm.put("/tmp/forged", 0o600, forged.as_bytes())?;
    let busy = "while :; do cat /proc/*/stat >/dev/null; done";
    let limit = Duration::from_secs(600);
    let work = vm.start(&["/bin/sh", "-c", busy], limit)?;
    let mut ticker = vm.start(&["/bin/busybox", "awk", TICKER], limit)?;
    expect_same("the first line of the ticker", ticker.line(limit)?.as_deref(), Some("ticks"))?;
    let (ram, socket) = (vm.ram_path(), socket.0.display().to_string());
    let arguments = ["--guest-ram", &ram.display().to_string(), "--qmp", &socket];
    let began = Instant::now();
    let report = clean_from_outside(cell, "guest-ram", &arguments)?;
    let looked = began.elapsed();
    vm.put("/tmp/looked", 0o600, b"")?;
    let ticked = ticker.line(limit)?.context("the ticker ended early")?;
    // A guest that is stopped has a clock that stands still, so it would have fallen behind.
    let behind = |gone: u64| began.elapsed().saturating_sub(Duration::from_millis(gone));
    let (longest, gone) = ticked.split_once(' ').context("the ticker's figures")?;
    let behind = behind(gone.parse().with_context(|| ticked.clone())?);
    drop((work, ticker));

    expect_same("stops while it was looked at", stops(vm)?, (true, Vec::new()))?;
    ensure!(behind < looked, "the guest's clock fell {} ms behind", behind.as_millis());
    let slide = report["subject"]["slide"].as_str().unwrap_or_default();
    ensure!(slide.starts_with("0x"), "no slide in {}", report["subject"]);
    let compared = &report["module_text"]["compared"];
    ensure!(compared.as_u64() >= Some(2), "{compared} modules were compared, 2 are loaded");
    let reader = report["subject"]["reader"].as_str().unwrap_or_default();
    ensure!(reader.contains("registers of 2 by QMP"), "no registers: {reader}");
    let checks = report["checks"].as_array().into_iter().flatten();
    let text =
        checks.filter(|check| check["name"] == "text").find_map(|c| c["elapsed_us"].as_u64());
    let text = text.context("no check of the text")?;
    Ok(format!(
        "slide {slide}, all of the text in {} ms, whole look {} ms, guest not stopped (its clock: \
         {longest} ms at most from tick to tick, {} ms behind at the end)",
        text / 1000,
        looked.as_millis(),
        behind.as_millis()
    ))
}

/// Dumps of the guest, each checked and taken away.
fn dumps(cell: &Cell<'_>, vm: &mut Vm) -> anyhow::Result<()> {
    let logs = fs::canonicalize(cell.logs()).context("the directory of logs")?;
    let check = |name: &str, file: &Path, begins: &[u8]| -> anyhow::Result<()> {
        let mut first = vec![0; begins.len()];
        std::io::Read::read_exact(&mut File::open(file)?, &mut first)?;
        ensure!(first == begins, "the dump {name} begins with {first:?}");
        clean_from_outside(cell, name, &["--core", &file.display().to_string()])?;
        fs::remove_file(file).with_context(|| file.display().to_string())
    };
    let (elf, kdump) = (logs.join("elf.dump"), logs.join("kdump.dump"));
    vm.with_monitor(|qmp| qmp.dump(&elf, DumpFormat::Elf))?;
    check("elf", &elf, b"\x7fELF")?;
    // QEMU writes kdump's format flattened, with a header of makedumpfile's around it.
    vm.with_monitor(|qmp| qmp.dump(&kdump, DumpFormat::KdumpZlib))?;
    check("kdump", &kdump, b"makedumpfile")?;
    // What is copied while the guest changes it may contradict itself.
    let (lime, raw) = (logs.join("lime.dump"), logs.join("raw.dump"));
    vm.with_monitor(|qmp| qmp.stop())?;
    let size = vm.ram()?.size();
    copy(vm, &raw, &[(0, size)], |_, _| Vec::new())?;
    // Without the hole of the first megabyte, as LiME writes it.
    copy(vm, &lime, &[(0, 0x9_f000), (0x10_0000, size)], |start, end| {
        let numbers = [start, end - 1, 0].map(u64::to_le_bytes).concat();
        [b"EMiL\x01\0\0\0".as_slice(), &numbers].concat()
    })?;
    vm.with_monitor(|qmp| qmp.go_on())?;
    check("lime", &lime, b"EMiL")?;
    check("raw", &raw, b"")
}

/// Copies ranges of the guest's memory into a file, each behind its header.
fn copy(
    vm: &Vm,
    file: &Path,
    ranges: &[(u64, u64)],
    header: impl Fn(u64, u64) -> Vec<u8>,
) -> anyhow::Result<()> {
    const CHUNK: u64 = 1 << 20;
    let ram = vm.ram()?;
    let mut out = BufWriter::new(File::create(file).with_context(|| file.display().to_string())?);
    for (start, end) in ranges {
        out.write_all(&header(*start, *end))?;
        let mut at = *start;
        while at < *end {
            let length = CHUNK.min(end - at);
            out.write_all(&ram.read(at, length as usize).context("memory of the guest")?)?;
            at += length;
        }
    }
    Ok(out.flush()?)
}
