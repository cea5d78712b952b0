// SPDX-License-Identifier: Apache-2.0
//! `ringfence-lab run`: one command under one kernel.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use lab::{Boot, Machine, kernels};

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// The kernel: a name as `ringfence-lab kernels` lists them, or the beginning of one or of a release
    kernel: String,

    /// The processor model, as `qemu-system-x86_64 -cpu help` lists them
    #[arg(long, value_name = "MODEL", default_value = lab::PROCESSOR)]
    cpu: String,

    /// Kernel parameters
    #[arg(long, value_name = "OPTIONS", default_value = "", allow_hyphen_values = true)]
    append: String,

    /// Virtual processors
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    smp: u32,

    /// How many of them share a core
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=2))]
    threads: u32,

    /// Memory in MiB
    #[arg(long, value_name = "M", default_value_t = 768, value_parser = clap::value_parser!(u32).range(256..=2047))]
    memory: u32,

    /// A file for the guest; a program brings the libraries that it links
    #[arg(long = "file", value_name = "HOST:GUEST", value_parser = pair)]
    files: Vec<(PathBuf, String)>,

    /// A kernel module to load, with what it needs
    #[arg(long = "module", value_name = "NAME")]
    modules: Vec<String>,

    /// How long the command may take, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    timeout: u64,

    /// Let KVM run the guest instead of TCG
    #[arg(long)]
    kvm: bool,

    /// Let the guest's clock count instructions, a nanosecond each
    #[arg(long)]
    counted: bool,

    /// Keep the guest's memory in this file, which stays when the guest has ended
    #[arg(long, value_name = "FILE")]
    keep_ram: Option<PathBuf>,

    /// Let a monitor of QEMU listen on this socket
    #[arg(long, value_name = "SOCKET")]
    qmp: Option<PathBuf>,

    /// Keep the logs, and say on standard error how long booting took
    #[arg(long, short)]
    verbose: bool,

    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let kernel = kernels::only(&kernels::cache(), &arguments.kernel)?;
    let machine = Machine {
        cpu: arguments.cpu.clone(),
        processors: arguments.smp,
        threads: arguments.threads,
        memory: arguments.memory,
        kvm: arguments.kvm,
        counted: arguments.counted,
        append: arguments.append.clone(),
        keep_ram: arguments.keep_ram.clone(),
        monitor: arguments.qmp.clone(),
        yields: false,
    };
    let mut boot = Boot::on(machine);
    for module in &arguments.modules {
        boot = boot.module(module);
    }
    for (host, guest) in &arguments.files {
        boot = boot.file(host, guest);
    }
    let logs = lab::logs().join(format!("run-{}", std::process::id()));
    let vm = boot.start(&kernel, &logs)?;
    if arguments.verbose {
        let seconds = vm.booted_in().as_secs_f64();
        eprintln!("ringfence-lab: {} booted in {seconds:.1} s", kernel.release);
        eprintln!("ringfence-lab: logs are in {}", logs.display());
    }
    let command: Vec<_> = arguments.command.iter().map(String::as_str).collect();
    let output = vm.try_run_within(&command, Duration::from_secs(arguments.timeout))?;
    vm.power_off();
    io::stdout().write_all(&output.out).context("standard output")?;
    io::stderr().write_all(&output.err).context("standard error")?;
    if !arguments.verbose {
        fs::remove_dir_all(&logs).with_context(|| logs.display().to_string())?;
    }
    Ok(ExitCode::from(u8::try_from(output.code).unwrap_or(u8::MAX)))
}

/// Taken apart at the last colon, as a path in the guest has none.
fn pair(text: &str) -> Result<(PathBuf, String), String> {
    match text.rsplit_once(':') {
        Some((host, guest)) if !host.is_empty() && guest.starts_with('/') => {
            Ok((host.into(), guest.to_owned()))
        }
        _ => Err("write HOST:GUEST, where GUEST is a path from the root".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser, Debug)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn parse(line: &str) -> Result<Arguments, String> {
        let line = Line::try_parse_from(std::iter::once("run").chain(line.split(' ')));
        line.map(|line| line.arguments).map_err(|error| error.to_string())
    }

    #[test]
    fn files_modules_and_options_are_taken_and_the_command_is_left_alone() {
        let line =
            "6.12 --append nokaslr --file a:b:/c --file d:/e --module fuse --smp 1 -- ls --all";
        let arguments = parse(line).unwrap();
        let files = [("a:b".into(), "/c".to_owned()), ("d".into(), "/e".to_owned())];
        assert_eq!(arguments.files, files);
        assert_eq!(arguments.modules, ["fuse"]);
        assert_eq!(arguments.command, ["ls", "--all"]);
        assert_eq!((arguments.smp, arguments.memory, arguments.kvm), (1, 768, false));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert!(parse("6.12").unwrap_err().contains("COMMAND"));
        assert!(parse("6.12 --file a:b -- ls").unwrap_err().contains("HOST:GUEST"));
        assert!(parse("6.12 --memory 4096 -- ls").is_err());
        assert!(parse("6.12 --smp 0 -- ls").is_err());
    }
}
