// SPDX-License-Identifier: Apache-2.0
//! Where in physical memory the kernel is, and whether it is the one of an image.

use kernel_image::KernelImage;

use super::{PhysicalMemory, Translated};
use crate::KernelMemory;
use crate::page_tables::Levels;

/// Where the kernel is mapped at most, and in which steps KASLR moves it: `__START_KERNEL_map`,
/// `KERNEL_IMAGE_SIZE` and `CONFIG_PHYSICAL_ALIGN` (arch/x86, 6.12).
const START_KERNEL_MAP: u64 = 0xffff_ffff_8000_0000;
const KERNEL_IMAGE_SIZE: u64 = 1 << 30;
const STEP: u64 = 2 << 20;

/// CR4.LA57: five levels of page tables.
const FIVE_LEVELS: u64 = 1 << 12;
/// In CR3, the address of the root, and the bit by which a root for user mode, which lacks the kernel's
/// text, differs from the one for the kernel (`PTI_PGTABLE_SWITCH_BIT`, arch/x86/mm/pti.c).
const ROOT: u64 = 0x000f_ffff_ffff_f000;
const USER_ROOT: u64 = 1 << 12;

/// Memory as a processor sees it in the kernel, by its CR3 and CR4.
///
/// Whether a kernel has two roots for each process cannot be told from CR3, so both are tried: the
/// first that maps `address`.
pub fn by_registers<'a>(
    physical: &'a dyn PhysicalMemory,
    cr3: u64,
    cr4: u64,
    address: impl Fn(&Translated<'a>) -> bool,
) -> Option<Translated<'a>> {
    let levels = if cr4 & FIVE_LEVELS == 0 { Levels::Four } else { Levels::Five };
    let root = cr3 & ROOT;
    [root, root & !USER_ROOT]
        .into_iter()
        .map(|root| Translated::new(physical, root, levels, 0))
        .find(address)
}

/// How far the kernel was moved, by its page tables alone: the first address in its range that is
/// mapped is that of `_text`, as what lies below is unmapped at boot (`cleanup_highmap`,
/// arch/x86/mm/init_64.c).
pub fn slide(memory: &Translated<'_>, image: &KernelImage) -> Option<u64> {
    let linked = image.symbols().address_of("_text")?;
    let steps = (0..KERNEL_IMAGE_SIZE / STEP).map(|step| START_KERNEL_MAP + step * STEP);
    let text = steps.into_iter().find(|at| memory.physical(*at).is_some())?;
    text.checked_sub(linked)
}

/// What speaks for memory holding the kernel of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Match {
    /// What stands where the image has its banner.
    pub banner: String,
    /// It is the image's.
    pub same_banner: bool,
    /// The notes of the linker, with the build id, are the image's.
    pub same_notes: bool,
}

impl Match {
    /// Whether it is that kernel. Either is enough: what is read-only can be changed, and is then for
    /// the checks to find.
    pub fn is_kernel(&self) -> bool {
        self.same_banner || self.same_notes
    }
}

/// Compares what names a kernel with an image moved up by `slide`.
pub fn compare(memory: &dyn KernelMemory, image: &KernelImage, slide: u64) -> Match {
    let read = |address: u64, length: usize| {
        let mut bytes = vec![0; length];
        memory.read(address.wrapping_add(slide), &mut bytes).ok().map(|()| bytes)
    };
    let expected = image.banner().as_bytes();
    let banner = image.symbols().address_of("linux_banner");
    let banner = banner.and_then(|at| read(at, expected.len())).unwrap_or_default();
    let notes = image.section(".notes").filter(|_| image.build_id().is_some());
    // Some notes hold addresses, which move with the kernel.
    let same_notes = notes.is_some_and(|section| {
        let expected = image.relocated(section.address, section.size as usize, slide);
        expected.is_some_and(|expected| read(section.address, expected.len()) == Some(expected))
    });
    Match {
        same_banner: banner == expected,
        banner: String::from_utf8_lossy(&banner).into_owned(),
        same_notes,
    }
}
