// SPDX-License-Identifier: Apache-2.0
//! The bytes before functions, in which calls are counted (`retbleed=stuff`).
//!
//! With call depth tracking a static call leads to the padding before its function, and the kernel
//! writes the code that counts there when it first points the static call at it
//! (`callthunks_translate_call_dest`, arch/x86/kernel/callthunks.c), without announcing it. The
//! padding holds nops before and that code after; there is nothing else that it may hold.

use kernel_image::patching::CallDepth;
use kernel_memory::Kernel;

use super::{Encoding, Legal, Site, SiteKind, Verdict};
use crate::baseline::Region;
use crate::baseline::machine::call_depth;

const NOP: u8 = 0x90;

/// Padding that is not in use when the kernel has booted.
#[derive(Debug, Default)]
pub struct Paddings {
    depth: CallDepth,
    functions: Vec<u64>,
}

impl Paddings {
    /// Finds the functions with padding, if calls are counted on this machine.
    pub(super) fn gather(text: &Region<'_>, kernel: &Kernel<'_>) -> Self {
        let find = |name: &str| kernel.symbols.address_of(name);
        let on = find("thunks_initialized").and_then(|at| kernel.u8_at(at).ok());
        if on.is_none_or(|on| on == 0) {
            return Self::default();
        }
        let Ok(depth) = call_depth(kernel, &find) else { return Self::default() };
        Self::of(depth, text, kernel.symbols.iter().map(|symbol| symbol.address))
    }

    /// Those of these functions that have padding which holds nops in `text`.
    pub(super) fn of(
        depth: CallDepth,
        text: &Region<'_>,
        functions: impl Iterator<Item = u64>,
    ) -> Self {
        let size = depth.size();
        let is_free = |function: &u64| {
            let into = function.wrapping_sub(size).checked_sub(text.start);
            let into = into.and_then(|into| usize::try_from(into).ok());
            let padding = into.and_then(|into| text.bytes.get(into..into + size as usize));
            padding.is_some_and(|padding| padding.iter().all(|byte| *byte == NOP))
        };
        let mut functions: Vec<u64> =
            functions.filter(|at| at % 16 == 0 && text.holds(*at)).filter(is_free).collect();
        functions.sort_unstable();
        functions.dedup();
        Self { depth, functions }
    }

    /// The function that a site belongs to.
    pub fn function(&self, site: &Site) -> Option<u64> {
        self.functions.get(site.index as usize).copied()
    }

    pub(super) fn sites(&self) -> impl Iterator<Item = Site> {
        let size = self.depth.size();
        self.functions.iter().zip(0..).map(move |(function, index)| Site {
            address: function - size,
            length: size as u8,
            kind: SiteKind::Padding,
            index,
        })
    }

    pub(super) fn judge(&self, site: &Site, bytes: &[u8]) -> Verdict {
        let legal = self.legal(site).into_iter().find(|legal| legal.bytes == bytes);
        legal.map_or(Verdict::Illegal, |legal| Verdict::Expected(legal.encoding))
    }

    pub(super) fn legal(&self, site: &Site) -> Vec<Legal> {
        let Some(function) = self.function(site) else { return Vec::new() };
        let counting = self.depth.padding_of(function);
        vec![
            Legal { bytes: vec![NOP; usize::from(site.length)], encoding: Encoding::Nop },
            Legal { bytes: counting, encoding: Encoding::Count },
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::baseline::RegionKind;

    #[test]
    fn padding_that_is_free_may_hold_nops_or_the_code_that_counts_and_nothing_else() {
        const START: u64 = 0xffff_ffff_c000_0000;
        let mut bytes = vec![NOP; 0x40];
        // What stands before the third function is no padding.
        bytes[0x2f] = 0xc3;
        let text = Region { kind: RegionKind::Text, start: START, bytes: &bytes };
        let depth = CallDepth {
            template: vec![0x65, 0x48, 0xc1, 0x3d, 0, 0, 0x70, 0, 5],
            template_address: START,
            ..CallDepth::default()
        };
        let functions = [0, 0x10, 0x18, 0x20, 0x20, 0x30, 0x1000].map(|offset| START + offset);
        let paddings = Paddings::of(depth.clone(), &text, functions.into_iter());
        let sites: Vec<_> = paddings.sites().collect();
        let places: Vec<_> = sites.iter().map(|site| site.address - START).collect();
        assert_eq!(places, [0x10 - 9, 0x20 - 9]);
        let counting = depth.padding_of(START + 0x10);
        let [site, other] = &sites[..] else { panic!("{sites:?}") };
        assert_eq!(paddings.judge(site, &[NOP; 9]), Verdict::Expected(Encoding::Nop));
        assert_eq!(paddings.judge(site, &counting), Verdict::Expected(Encoding::Count));
        assert_eq!(paddings.judge(other, &counting), Verdict::Illegal);
        assert_eq!(paddings.judge(site, &[0xc3; 9]), Verdict::Illegal);
    }
}
