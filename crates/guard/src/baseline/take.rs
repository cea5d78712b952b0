// SPDX-License-Identifier: Apache-2.0
//! The state at first check, written straight to where it is kept.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::time::{SystemTime, UNIX_EPOCH};

use kernel_image::Symbols;
use kernel_memory::{Kernel, PAGE_SIZE, Piece, ReadError};

use super::seal::{Outline, Sealer};
use super::{Baseline, BaselineKind, Identity, RegionKind};
use crate::check::Missing;

/// Text and rodata together are 20 to 50 MB; what claims to be much larger is not a kernel.
const REGION_LIMIT: u64 = 256 << 20;

/// Why the state at first check could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// Memory could not be read, or its bounds are not known.
    #[error("{0}")]
    Missing(String),
    /// The sink failed.
    #[error("the baseline could not be written: {0}")]
    Sink(#[from] io::Error),
}

impl Baseline {
    /// Takes the state of memory now and holds it in memory: for saved images and tests. Live, use
    /// [`Baseline::write`] to a file and open that, which costs no second copy.
    pub fn take(
        kernel: &Kernel<'_>,
        identity: Identity,
        facts: BTreeMap<String, String>,
    ) -> Result<Self, Missing> {
        let mut sealed = Vec::new();
        Self::write(kernel, &identity, &facts, &mut sealed).map_err(Missing::because)?;
        Self::open(Box::new(sealed), &identity).map_err(Missing::because)
    }

    /// Writes the state of memory now to `sink` as a sealed baseline, a piece at a time.
    ///
    /// A text poke may be going on meanwhile; that is harmless, because what a site holds in the
    /// baseline is never taken as proof that it is legal.
    pub fn write(
        kernel: &Kernel<'_>,
        identity: &Identity,
        facts: &BTreeMap<String, String>,
        sink: &mut impl Write,
    ) -> Result<(), TakeError> {
        let regions = bounds(kernel.symbols).map_err(|missing| TakeError::Missing(missing.0))?;
        let taken_at =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |past| past.as_secs());
        let mut sealer =
            Sealer::begin(sink, BaselineKind::FirstCheck, identity, taken_at, facts, &regions)?;
        for region in regions {
            sealer.next_region()?;
            copy(kernel, region, &mut sealer)?;
        }
        Ok(sealer.end()?)
    }
}

fn copy<W: Write>(
    kernel: &Kernel<'_>,
    region: Outline,
    sealer: &mut Sealer<'_, W>,
) -> Result<(), TakeError> {
    let mut failed = None;
    let read = kernel.memory.visit(region.start, region.length, &mut |piece| match piece {
        Piece::Bytes { bytes, .. } => match sealer.put(bytes) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(TakeError::Sink(error));
                ControlFlow::Break(())
            }
        },
        Piece::Unreadable { address, .. } => {
            let error = ReadError::Unreadable { address, through: kernel.memory.name() };
            let name = region.kind.name();
            failed = Some(TakeError::Missing(format!("the kernel's {name} has a hole: {error}")));
            ControlFlow::Break(())
        }
    });
    read.map_err(|error| TakeError::Missing(error.to_string()))?;
    failed.map_or(Ok(()), Err)
}

/// Where text and rodata begin and end, by the linker's symbols.
pub(super) fn bounds(symbols: &Symbols) -> Result<Vec<Outline>, Missing> {
    let text = outline(RegionKind::Text, need(symbols, "_stext")?, need(symbols, "_etext")?)?;
    let rodata = outline(
        RegionKind::Rodata,
        need(symbols, "__start_rodata")?,
        end_of_rodata(symbols).ok_or_else(|| {
            Missing::because("/proc/kallsyms has neither __end_rodata nor a symbol that ends it")
        })?,
    )?;
    Ok(vec![text, rodata])
}

fn outline(kind: RegionKind, start: u64, end: u64) -> Result<Outline, Missing> {
    match end.checked_sub(start) {
        Some(length) if length > 0 && length <= REGION_LIMIT => Ok(Outline { kind, start, length }),
        _ => Err(Missing(format!(
            "the symbols that bound the kernel's {} make no sense: {start:#x} to {end:#x}",
            kind.name()
        ))),
    }
}

fn need(symbols: &Symbols, name: &str) -> Result<u64, Missing> {
    match symbols.address_of(name) {
        None => Err(Missing(format!("the symbol table has no {name}"))),
        // kptr_restrict shows every address as zero.
        Some(0) => Err(Missing(format!(
            "the address of {name} is hidden: run as root with kernel.kptr_restrict at 0 or 1"
        ))),
        Some(address) => Ok(address),
    }
}

/// `__end_rodata`, which a kernel without CONFIG_KALLSYMS_ALL may not list. There the last thing
/// that the linker puts into rodata and that has a symbol is .BTF (RO_DATA of
/// include/asm-generic/vmlinux.lds.h); the rest of its page belongs to rodata too, and what follows
/// up to .data is given back to the page allocator (mark_rodata_ro, arch/x86/mm/init_64.c).
fn end_of_rodata(symbols: &Symbols) -> Option<u64> {
    if let Some(end) = symbols.address_of("__end_rodata") {
        return Some(end);
    }
    let start = symbols.address_of("__start_rodata")?;
    let last = ["__stop_BTF", "__stop_notes", "__stop___ex_table"]
        .iter()
        .filter_map(|name| symbols.address_of(name))
        .filter(|address| *address > start)
        .max()?;
    last.checked_next_multiple_of(PAGE_SIZE)
}
