// SPDX-License-Identifier: Apache-2.0
//! The registers of the processors, as far as they can be had within the system.
//!
//! The model-specific ones are in /dev/cpu/N/msr where the msr driver is loaded, which is left to
//! whoever runs the machine: it lets root write them as well. CR0 and where the descriptor tables
//! are can be read by instructions of user mode on processors without UMIP. Where UMIP is on, the
//! kernel answers those with constants (arch/x86/kernel/umip.c, 5.10 to 7.3) and a line in its log,
//! so they are not tried. CR3 and CR4 cannot be had at all.

mod msr;
mod stored;

use std::fs;

use guard::Missing;
use guard::registers::{Processor, Registers};

use crate::journal::online_cpus;
use stored::Stored;

/// See the module.
#[derive(Debug)]
pub struct LiveRegisters {
    has_umip: bool,
}

impl LiveRegisters {
    /// Finds out what can be had here.
    pub fn open() -> Self {
        // Without the file nobody knows, and what the instructions give might be made up.
        let has_umip = fs::read_to_string("/proc/cpuinfo").map_or(true, |text| has_umip(&text));
        Self { has_umip }
    }
}

impl Registers for LiveRegisters {
    fn source(&self) -> &'static str {
        match (msr::is_there(), self.has_umip) {
            (true, true) => "/dev/cpu/*/msr",
            (true, false) => "/dev/cpu/*/msr and smsw, sidt, sgdt",
            (false, false) => "smsw, sidt, sgdt (modprobe msr for more)",
            (false, true) => "none",
        }
    }

    fn processors(&self) -> Result<Vec<Processor>, Missing> {
        let has_msr = msr::is_there();
        if !has_msr && self.has_umip {
            return Err(Missing::because(
                "there is no /dev/cpu/0/msr (modprobe msr), and UMIP keeps the other registers from \
                 user mode",
            ));
        }
        let cpus = online_cpus().map_err(Missing::because)?;
        let mut processors: Vec<Processor> =
            cpus.into_iter().map(|number| Processor { number, ..Processor::default() }).collect();
        if has_msr {
            for processor in &mut processors {
                msr::read(processor).map_err(Missing::because)?;
            }
        }
        if !self.has_umip {
            let numbers: Vec<u32> = processors.iter().map(|processor| processor.number).collect();
            for (processor, stored) in processors.iter_mut().zip(stored::on_each(&numbers)) {
                let Some(Stored { cr0, idt, gdt }) = stored else { continue };
                (processor.cr0, processor.idt, processor.gdt) = (Some(cr0), Some(idt), Some(gdt));
            }
        }
        Ok(processors)
    }
}

/// Whether the kernel has switched UMIP on: it does where the processor has it, and takes it off
/// the list where it was told not to.
fn has_umip(cpuinfo: &str) -> bool {
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags"));
    flags.is_none_or(|flags| flags.split_ascii_whitespace().any(|flag| flag == "umip"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn umip_is_a_word_of_the_flags() {
        assert!(has_umip("processor\t: 0\nflags\t\t: fpu smep umip pku\n"));
        assert!(!has_umip("processor\t: 0\nflags\t\t: fpu smep pku\nbugs\t\t: umip\n"));
        assert!(has_umip("processor : 0\n"), "what is not known counts as UMIP");
    }

    #[test]
    fn what_cannot_be_had_is_said_with_the_reason() {
        let registers = LiveRegisters { has_umip: true };
        match registers.processors() {
            Err(Missing(reason)) => assert!(reason.contains("modprobe msr"), "{reason}"),
            Ok(processors) => assert!(processors.iter().all(|one| one.cr0.is_none())),
        }
    }
}
