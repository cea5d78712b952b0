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
use crate::baseline::machine::call_depth;
use crate::baseline::{Baseline, Region};

const NOP: u8 = 0x90;

/// Padding that is not in use when the kernel has booted.
#[derive(Debug, Default)]
pub struct Paddings {
    depth: CallDepth,
    functions: Vec<u64>,
}

impl Paddings {
    /// Finds the functions with padding, if calls are counted on this machine.
    pub(super) fn gather(baseline: &Baseline, text: &Region<'_>, kernel: &Kernel<'_>) -> Self {
        let find = |name: &str| kernel.symbols.address_of(name);
        let on = find("thunks_initialized").and_then(|at| kernel.u8_at(at).ok());
        if on.is_none_or(|on| on == 0) {
            return Self::default();
        }
        let Ok(depth) = call_depth(kernel, &find) else { return Self::default() };
        let size = depth.size();
        let is_free = |function: &u64| {
            let padding = baseline.bytes_at(function - size, size as usize);
            padding.is_some_and(|padding| padding.iter().all(|byte| *byte == NOP))
        };
        let symbols = kernel.symbols.iter().map(|symbol| symbol.address);
        let within = symbols.filter(|at| text.holds(*at) && text.holds(at.wrapping_sub(size)));
        let mut functions: Vec<u64> = within.filter(|at| at % 16 == 0).filter(is_free).collect();
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
