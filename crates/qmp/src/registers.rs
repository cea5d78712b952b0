// SPDX-License-Identifier: Apache-2.0
//! The answer to `info registers -a` (`x86_cpu_dump_state`, target/i386/cpu-dump.c, QEMU 7.2).

/// The registers of one processor that tell where the kernel is and what protects it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Processor {
    /// Its number, as QEMU counts.
    pub number: u32,
    /// Write protection and more.
    pub cr0: Option<u64>,
    /// The root of its page tables.
    pub cr3: Option<u64>,
    /// SMEP, SMAP, five levels of page tables and more.
    pub cr4: Option<u64>,
    /// Long mode, no-execute, system calls.
    pub efer: Option<u64>,
    /// Base and limit of the global descriptor table.
    pub gdt: Option<(u64, u16)>,
    /// Base and limit of the interrupt descriptor table.
    pub idt: Option<(u64, u16)>,
}

/// Reads the answer: a block for each processor, which begins with `CPU#` and its number. What a block
/// does not have is none.
pub fn parse(answer: &str) -> Vec<Processor> {
    let blocks = answer.split("CPU#").skip(1);
    blocks.filter_map(processor).collect()
}

fn processor(block: &str) -> Option<Processor> {
    let mut lines = block.lines();
    let number = lines.next()?.trim().parse().ok()?;
    let mut found = Processor { number, ..Processor::default() };
    for line in lines {
        let table = |name: &str| {
            let mut words = line.strip_prefix(name)?.split_whitespace();
            let base = u64::from_str_radix(words.next()?, 16).ok()?;
            let limit = u32::from_str_radix(words.next()?, 16).ok()?;
            Some((base, u16::try_from(limit).ok()?))
        };
        found.gdt = found.gdt.or_else(|| table("GDT="));
        found.idt = found.idt.or_else(|| table("IDT="));
        for word in line.split_whitespace() {
            let Some((name, value)) = word.split_once('=') else { continue };
            let register = match name {
                "CR0" => &mut found.cr0,
                "CR3" => &mut found.cr3,
                "CR4" => &mut found.cr4,
                "EFER" => &mut found.efer,
                _ => continue,
            };
            *register = u64::from_str_radix(value, 16).ok();
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "\r\nCPU#0\r\nRAX=0000000000000000 RBX=0000000000000000\r\n\
        GDT=     fffffe0000001000 0000007f\r\nIDT=     fffffe0000000000 00000fff\r\n\
        CR0=80050033 CR2=00007f9c1c0 CR3=0000000004a10000 CR4=00372ef0\r\n\
        EFER=0000000000000d01\r\n\
        \r\nCPU#1\r\nCR0=80050033 CR2=0 CR3=zz CR4=00372ef0\r\n";

    #[test]
    fn each_processor_has_its_registers() {
        let processors = parse(TWO);
        assert_eq!(processors.len(), 2);
        let (first, second) = (processors[0], processors[1]);
        assert_eq!((first.number, first.cr0, first.cr3), (0, Some(0x8005_0033), Some(0x4a1_0000)));
        assert_eq!((first.cr4, first.efer), (Some(0x37_2ef0), Some(0xd01)));
        assert_eq!(first.idt, Some((0xffff_fe00_0000_0000, 0xfff)));
        assert_eq!(first.gdt, Some((0xffff_fe00_0000_1000, 0x7f)));
        assert_eq!((second.number, second.cr3, second.idt), (1, None, None));
    }

    #[test]
    fn what_is_no_answer_has_no_processors() {
        assert!(parse("").is_empty());
        assert!(parse("CPU#x\nCR0=1").is_empty());
    }
}
