// SPDX-License-Identifier: Apache-2.0
//! What the processors can do, as the kernel noted it, and where it keeps what each of them needs.

use kernel_memory::Kernel;

use crate::check::Missing;

/// `CPU_ENTRY_AREA_RO_IDT` (arch/x86/include/asm/pgtable_areas.h, 6.1 to 7.3): the read-only alias
/// of the IDT, which all processors use, at the same address in each boot.
pub const READ_ONLY_IDT: u64 = 0xffff_fe00_0000_0000;

/// The top-level entry of the page tables that the cpu entry area has for itself (`P4D_SIZE`,
/// arch/x86/include/asm/pgtable_64_types.h).
pub const ENTRY_AREA_SIZE: u64 = 1 << 39;

/// What a processor can do: word and bit (arch/x86/include/asm/cpufeatures.h, the same in 6.1, 6.12
/// and 7.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature(usize, u32);

impl Feature {
    /// Pages that cannot be executed.
    pub const NX: Self = Self(1, 20);
    /// FS and GS bases written from user mode.
    pub const FSGSBASE: Self = Self(9, 0);
    /// User memory that the kernel cannot execute.
    pub const SMEP: Self = Self(9, 7);
    /// User memory that the kernel cannot touch by mistake.
    pub const SMAP: Self = Self(9, 20);
    /// Instructions that tell of the descriptor tables kept from user mode.
    pub const UMIP: Self = Self(16, 2);
    /// Entry by events instead of the IDT and the model-specific registers of system calls.
    pub const FRED: Self = Self(12, 17);
}

/// What the kernel uses of the processors: `boot_cpu_data.x86_capability`, from which the boot code
/// has taken what was switched off.
#[derive(Clone, Debug, Default)]
pub struct Features(Vec<u32>);

impl Features {
    /// Reads them.
    pub fn read(kernel: &Kernel<'_>) -> Result<Self, Missing> {
        let data = kernel.object("cpuinfo_x86", kernel.symbol("boot_cpu_data")?)?;
        let words = data.bytes("x86_capability")?;
        let words = words.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word));
        Ok(Self(words.collect()))
    }

    /// Whether the kernel uses this one.
    pub fn has(&self, Feature(word, bit): Feature) -> bool {
        self.0.get(word).is_some_and(|word| word >> bit & 1 == 1)
    }
}

/// The address of a per-CPU variable, for [`Kernel::per_cpu`]: by its symbol, or, because the symbol
/// table leaves some of them out, by its place in the section that BTF describes.
pub fn per_cpu_variable(kernel: &Kernel<'_>, name: &str) -> Result<u64, Missing> {
    let missing = match kernel.symbol(name) {
        Ok(address) => return Ok(address),
        Err(missing) => missing,
    };
    let mut variables = kernel.types.variables(".data..percpu");
    let variable = variables.find(|variable| variable.name == name).ok_or(missing)?;
    // 0 up to 6.14, where the section is linked at that address.
    Ok(kernel.symbol("__per_cpu_start")?.wrapping_add(u64::from(variable.offset)))
}

/// The numbers of the processors that are online (`__cpu_online_mask`, kernel/cpu.c).
pub fn online(kernel: &Kernel<'_>) -> Result<Vec<u32>, Missing> {
    let mask = kernel.symbol("__cpu_online_mask")?;
    // NR_CPUS is 8192 at most on x86-64.
    let length = kernel.size_of("cpumask")?.min(1024) as usize;
    let bytes = kernel.bytes_at(mask, length)?;
    let bits = bytes.iter().zip((0..).step_by(8)).flat_map(|(byte, first)| {
        (0..8).filter(move |bit| byte >> bit & 1 == 1).map(move |bit| first + bit)
    });
    Ok(bits.collect())
}
