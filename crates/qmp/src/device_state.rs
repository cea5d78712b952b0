// SPDX-License-Identifier: Apache-2.0
//! The state of a guest's devices as QEMU would send it to another machine, of which the registers of
//! system calls are taken: its monitor tells these nowhere else.
//!
//! The stream is made of sections (`vmstate_save`, migration/savevm.c, QEMU 7.2), each with a name and no
//! length, so it cannot be walked without knowing every device. The section of a processor is looked for
//! by its head; that what follows is one is borne out by the registers that the monitor tells as well.
//! Devices have buffers that the guest fills, so a second section of the same processor that is borne out
//! too means that somebody made it up, and nothing is believed of either.

use crate::registers::Processor;

/// The registers that say where `syscall` and `sysenter` lead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SystemCalls {
    /// Where `syscall` of 64-bit code leads.
    pub lstar: u64,
    /// Where `syscall` of 32-bit code leads.
    pub cstar: u64,
    /// Where `sysenter` leads.
    pub sysenter: u64,
}

/// `QEMU_VM_FILE_MAGIC` and `QEMU_VM_FILE_VERSION`.
const HEAD: [u8; 8] = *b"QEVM\0\0\0\x03";

/// `vmstate_x86_cpu.version_id` (target/i386/machine.c); it has never been another since 2009.
const VERSION: u32 = 12;

/// Offsets in the section of a processor behind its head (`vmstate_x86_cpu`, target/i386/machine.c, QEMU
/// 7.2): registers, the FPU, ten segments of 20 bytes, of which the last two are the tables.
const GDT: usize = 396;
const IDT: usize = 416;
const SYSENTER_EIP: usize = 448;
const EFER: usize = 816;
const LSTAR: usize = 832;
const CSTAR: usize = 840;

/// The registers of system calls of a processor, of which the monitor tells `told`. None where the stream
/// has no section of it that bears out what the monitor tells, or more than one.
pub fn system_calls(stream: &[u8], told: &Processor) -> Option<SystemCalls> {
    stream.strip_prefix(&HEAD)?;
    let mut head = b"\x03cpu".to_vec();
    head.extend(told.number.to_be_bytes());
    head.extend(VERSION.to_be_bytes());
    let starts = stream.windows(head.len()).enumerate().filter(|(_, window)| *window == head);
    let sections =
        starts.filter_map(|(at, _)| Section(stream.get(at..)?.get(head.len()..)?).of(told));
    let sections: Vec<SystemCalls> = sections.collect();
    match sections.as_slice() {
        [one] => Some(*one),
        _ => None,
    }
}

/// What follows the head of a section; numbers are big-endian.
struct Section<'a>(&'a [u8]);

impl Section<'_> {
    fn of(&self, told: &Processor) -> Option<SystemCalls> {
        let is_borne_out = self.table(GDT)? == told.gdt?
            && self.table(IDT)? == told.idt?
            && self.u64(EFER)? == told.efer?;
        is_borne_out.then_some(SystemCalls {
            lstar: self.u64(LSTAR)?,
            cstar: self.u64(CSTAR)?,
            sysenter: self.u64(SYSENTER_EIP)?,
        })
    }

    fn u64(&self, at: usize) -> Option<u64> {
        Some(u64::from_be_bytes(*self.0.get(at..)?.first_chunk()?))
    }

    /// Base and limit of a segment: a selector of 32 bits, the base, the limit of 32 bits, flags.
    fn table(&self, at: usize) -> Option<(u64, u16)> {
        let limit = u32::from_be_bytes(*self.0.get(at.checked_add(12)?..)?.first_chunk()?);
        Some((self.u64(at.checked_add(4)?)?, u16::try_from(limit).ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOLD: Processor = Processor {
        number: 1,
        cr0: None,
        cr3: None,
        cr4: None,
        efer: Some(0xd01),
        gdt: Some((0xffff_fe00_0000_1000, 0x7f)),
        idt: Some((0xffff_fe00_0000_0000, 0xfff)),
    };
    const LEADS_TO: u64 = 0xffff_ffff_8240_0080;

    fn section(number: u32, efer: u64) -> Vec<u8> {
        let mut data = vec![0; 2000];
        let mut put = |at: usize, bytes: &[u8]| data[at..at + bytes.len()].copy_from_slice(bytes);
        put(GDT + 4, &0xffff_fe00_0000_1000_u64.to_be_bytes());
        put(GDT + 12, &0x7f_u32.to_be_bytes());
        put(IDT + 4, &0xffff_fe00_0000_0000_u64.to_be_bytes());
        put(IDT + 12, &0xfff_u32.to_be_bytes());
        put(EFER, &efer.to_be_bytes());
        put(LSTAR, &LEADS_TO.to_be_bytes());
        put(SYSENTER_EIP, &7_u64.to_be_bytes());
        // QEMU_VM_SECTION_FULL and the number of the section come before the name.
        let head = [b"\x04\0\0\0\x05\x03cpu".as_slice(), &number.to_be_bytes(), &[0, 0, 0, 12]];
        [head.concat(), data].concat()
    }

    #[test]
    fn the_registers_are_those_of_the_section_that_bears_out_what_the_monitor_tells() {
        let stream = [HEAD.to_vec(), section(0, 0xd01), section(1, 0xd01)].concat();
        let found = system_calls(&stream, &TOLD).unwrap();
        assert_eq!(found, SystemCalls { lstar: LEADS_TO, cstar: 0, sysenter: 7 });
        // What only looks like one is passed over.
        let stream = [HEAD.to_vec(), section(1, 0xd01), section(1, 0x500)].concat();
        assert_eq!(system_calls(&stream, &TOLD), Some(found));
    }

    #[test]
    fn nothing_is_believed_of_what_is_not_borne_out_or_there_twice_or_cut_off() {
        let one = section(1, 0xd01);
        for sections in [section(1, 0x500), section(0, 0xd01), [one.clone(), one.clone()].concat()]
        {
            assert_eq!(system_calls(&[HEAD.to_vec(), sections].concat(), &TOLD), None);
        }
        let whole = [HEAD.to_vec(), one].concat();
        assert_eq!(system_calls(&whole[1..], &TOLD), None);
        for length in [0, 7, 8, 20, 500, 820] {
            assert_eq!(system_calls(&whole[..length], &TOLD), None, "{length}");
        }
    }
}
