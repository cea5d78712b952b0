// SPDX-License-Identifier: Apache-2.0
//! What memory should hold, from the kernel's image.
//!
//! The text comes from the image alone: it is moved to where the kernel runs and patched as the
//! boot code patched it ([`kernel_image::patching`]), with what that saw read from memory
//! ([`super::machine`]). So does read-only data, with three exceptions, all of them counted and none
//! of them larger than what they are for:
//!
//! - Variables between `__start_ro_after_init` and `__end_ro_after_init` that the kernel set while
//!   it booted. Bytes that are as in the image are held to the image; those that differ are taken
//!   from memory, as in a baseline of the first check, and listed by the name of their object.
//! - The tables of jump labels and static calls, which stand among them and which the kernel sorts
//!   while it boots. Their order is taken from memory, if their entries are those of the image.
//! - Bytes between and behind the sections, for which the image has no content.
//!
//! And there is a text that the boot code cuts into pieces although it is a constant ([`CUT`]).

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::Range;
use std::time::{SystemTime, UNIX_EPOCH};

use kernel_image::patching::{Code, Placed};
use kernel_image::{KernelImage, Symbols, TableKind};
use kernel_memory::Kernel;

use super::its;
use super::machine::{observe, read_pointers, value_of};
use super::seal::{Outline, Sealer};
use super::take::{TakeError, bounds};
use super::{Baseline, BaselineKind, Identity, RegionKind, pointers};
use crate::check::Missing;

/// Texts in read-only data that the boot code cuts at their commas, with who does it. Each comma may
/// be a zero.
const CUT: [(&str, &str); 1] = [(
    // `__check_quirks_intel`, arch/x86/kernel/cpu/resctrl/core.c, on Skylake servers (6.1 to 7.3):
    // strsep() on a literal, before read-only data is protected.
    "!cmt,!mbmtotal,!mbmlocal,!l3cat",
    "text of set_rdt_options",
)];

/// Bytes that are put together at once.
const CHUNK: u64 = 64 << 10;
/// Bytes that are compared at once.
const BLOCK: usize = 256;

/// The fact that says in a sentence where the bytes of read-only data came from.
pub const FACT_SOURCES: &str = "image.rodata";
/// The fact that lists the objects whose bytes came from memory.
pub const FACT_OBJECTS: &str = "image.rodata.first-check";

/// Where the bytes of read-only data came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// Bytes from the image.
    pub image: u64,
    /// Bytes of tables whose entries are those of the image, in another order.
    pub tables: u64,
    /// Bytes between and behind sections.
    pub gaps: u64,
    /// Bytes from memory, by the name of the object that they belong to.
    pub objects: BTreeMap<String, u64>,
}

impl Sources {
    fn words(&self) -> String {
        let first_check: u64 = self.objects.values().sum();
        format!(
            "{} bytes of rodata are pinned by the image, {} more are its tables in the order in \
             which the kernel sorted them; from first check are {first_check} bytes in {} objects \
             that the kernel set while booting, and {} bytes between sections",
            self.image,
            self.tables,
            self.objects.len(),
            self.gaps
        )
    }
}

impl Baseline {
    /// What memory should hold by this image, all in memory: for saved images and tests.
    pub fn from_image(
        image: KernelImage,
        kernel: &Kernel<'_>,
        identity: Identity,
        facts: BTreeMap<String, String>,
    ) -> Result<Self, Missing> {
        let mut sealed = Vec::new();
        Self::write_from_image(image, kernel, &identity, facts, &mut sealed)
            .map_err(Missing::because)?;
        Self::open(Box::new(sealed), &identity).map_err(Missing::because)
    }

    /// Writes what memory should hold by this image to `sink` as a sealed baseline.
    ///
    /// # Errors
    /// When the image is another kernel's, or memory does not tell what the boot code saw.
    pub fn write_from_image(
        image: KernelImage,
        kernel: &Kernel<'_>,
        identity: &Identity,
        mut facts: BTreeMap<String, String>,
        sink: &mut impl Write,
    ) -> Result<(), TakeError> {
        let missing = |missing: Missing| TakeError::Missing(missing.0);
        let regions = bounds(kernel.symbols).map_err(missing)?;
        let slide = slide(&image, kernel.symbols).map_err(missing)?;
        let placed = place(image, slide, kernel).map_err(missing)?;
        let text = regions.iter().find(|region| region.kind == RegionKind::Text);
        let linked = (placed.symbol("_stext"), placed.symbol("_etext"));
        if text.is_none_or(|text| linked != (Some(text.start), Some(text.start + text.length))) {
            let problem = "the image's text is not where the running kernel's is";
            return Err(TakeError::Missing(problem.to_owned()));
        }
        let rodata = Rodata::of(&placed, kernel);
        let mut sources = Sources::default();
        for region in regions.iter().filter(|region| region.kind == RegionKind::Rodata) {
            rodata.each(kernel, region, &mut sources, &mut |_| Ok(()))?;
        }
        facts.insert(FACT_SOURCES.to_owned(), sources.words());
        let objects: Vec<String> =
            sources.objects.iter().map(|(name, bytes)| format!("{name} {bytes}")).collect();
        facts.insert(FACT_OBJECTS.to_owned(), objects.join(", "));
        let text = text.map_or(0, |text| text.start);
        let in_data = pointers::in_words(&pointers::of_image(&placed), text);
        facts.insert(pointers::FACT.to_owned(), in_data);
        let taken_at =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |past| past.as_secs());
        let kind = BaselineKind::Image;
        let mut sealer = Sealer::begin(sink, kind, identity, taken_at, &facts, &regions)?;
        for region in &regions {
            sealer.next_region()?;
            match region.kind {
                RegionKind::Text => {
                    let bytes = placed.read(region.start, region.length as usize);
                    let Some(bytes) = bytes else {
                        // The text is one segment of the ELF.
                        let problem = "the image does not hold all of the text";
                        return Err(TakeError::Missing(problem.to_owned()));
                    };
                    sealer.put(bytes)?;
                }
                RegionKind::Rodata => {
                    let mut again = Sources::default();
                    rodata.each(kernel, region, &mut again, &mut |bytes| sealer.put(bytes))?;
                }
            }
        }
        Ok(sealer.end()?)
    }
}

/// How far the running kernel was moved.
fn slide(image: &KernelImage, symbols: &Symbols) -> Result<u64, Missing> {
    let running = symbols.address_of("_stext");
    let linked = image.symbols().address_of("_stext");
    match (running, linked) {
        (Some(running), Some(linked)) if running >= linked => Ok(running - linked),
        _ => {
            Err(Missing::because("the image's _stext and the running kernel's do not go together"))
        }
    }
}

/// The image as the boot code left it.
fn place(image: KernelImage, slide: u64, kernel: &Kernel<'_>) -> Result<Placed, Missing> {
    let mut placed = Placed::new(image, slide);
    let mut machine = observe(kernel, &|name| placed.symbol(name), placed.dialect())?;
    read_pointers(kernel, placed.pointer_slots(&machine), &mut machine)?;
    let mut pages = its::learn(kernel, &placed, placed.plan_its(&machine));
    placed.patch(&machine, &mut pages);
    its::compare(kernel, &pages)?;
    let constants: Vec<_> = placed.values().collect();
    for constant in &constants {
        if let Some(value) = value_of(kernel, &placed, constant) {
            placed.set(constant, value);
        }
    }
    Ok(placed)
}

/// Read-only data: the image, and what has to come from memory.
struct Rodata<'a> {
    placed: &'a Placed,
    written: Range<u64>,
    sorted: Vec<Range<u64>>,
    cut: BTreeMap<u64, &'static str>,
}

impl<'a> Rodata<'a> {
    fn of(placed: &'a Placed, kernel: &Kernel<'_>) -> Self {
        let bound = |name| placed.symbol(name).unwrap_or(0);
        let written = bound("__start_ro_after_init")..bound("__end_ro_after_init");
        let sorted = [TableKind::JumpLabels, TableKind::StaticCalls]
            .into_iter()
            .filter_map(|table| sorted_table(placed, kernel, table))
            .collect();
        Self { placed, written, sorted, cut: cut(placed) }
    }

    /// Hands over the bytes that are expected in a region, in order.
    fn each(
        &self,
        kernel: &Kernel<'_>,
        region: &Outline,
        sources: &mut Sources,
        put: &mut impl FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<(), TakeError> {
        let mut at = region.start;
        let end = region.start + region.length;
        while at < end {
            let length = CHUNK.min(end - at);
            let mut expected = kernel
                .bytes_at(at, length as usize)
                .map_err(|error| TakeError::Missing(error.to_string()))?;
            self.chunk(kernel.symbols, at, &mut expected, sources);
            put(&expected)?;
            at += length;
        }
        Ok(())
    }

    /// Replaces what memory holds by what it should hold.
    fn chunk(&self, symbols: &Symbols, start: u64, bytes: &mut [u8], sources: &mut Sources) {
        let whole = self.placed.read(start, bytes.len());
        for (number, block) in bytes.chunks_mut(BLOCK).enumerate() {
            let at = number * BLOCK;
            // Most of it is as in the image.
            if whole.and_then(|whole| whole.get(at..at + block.len())) == Some(&*block) {
                sources.image += block.len() as u64;
            } else {
                self.block(symbols, start + at as u64, block, sources);
            }
        }
    }

    /// The same byte by byte.
    fn block(&self, symbols: &Symbols, start: u64, bytes: &mut [u8], sources: &mut Sources) {
        let whole = self.placed.read(start, bytes.len());
        for (index, byte) in bytes.iter_mut().enumerate() {
            let at = start + index as u64;
            let image = match whole {
                Some(whole) => whole.get(index).copied(),
                None => self.placed.read(at, 1).and_then(|bytes| bytes.first().copied()),
            };
            match image {
                None => sources.gaps += 1,
                Some(image) if image == *byte => sources.image += 1,
                Some(_) if self.sorted.iter().any(|table| table.contains(&at)) => {
                    sources.tables += 1;
                }
                Some(_)
                    if self.written.contains(&at) || (self.cut.contains_key(&at) && *byte == 0) =>
                {
                    let name = symbols.containing(at).map_or("?", |(symbol, _)| symbol.name);
                    let name = self.cut.get(&at).copied().unwrap_or(name);
                    match sources.objects.get_mut(name) {
                        Some(count) => *count += 1,
                        None => drop(sources.objects.insert(name.to_owned(), 1)),
                    }
                }
                Some(image) => {
                    *byte = image;
                    sources.image += 1;
                }
            }
        }
    }
}

/// Where the commas are at which texts are cut.
fn cut(placed: &Placed) -> BTreeMap<u64, &'static str> {
    let mut commas = BTreeMap::new();
    let Some(section) = placed.image().section(".rodata") else { return commas };
    let bytes = placed.image().section_bytes(".rodata").unwrap_or_default();
    for (text, name) in CUT {
        let whole = [text.as_bytes(), &[0]].concat();
        let Some(first) = whole.first() else { continue };
        let places = bytes.iter().enumerate().filter(|(_, byte)| *byte == first);
        let found = places
            .map(|(at, _)| at)
            .find(|at| bytes.get(*at..at + whole.len()) == Some(whole.as_slice()));
        let Some(found) = found else { continue };
        let start = section.address.wrapping_add(placed.slide()).wrapping_add(found as u64);
        let within = text.bytes().zip(start..).filter(|(byte, _)| *byte == b',');
        commas.extend(within.map(|(_, at)| (at, name)));
    }
    commas
}

/// Where a table stands, if memory has the entries of the image there in any order.
///
/// The kernel sorts both tables by key and marks the entries of init code in bit 1 of the key
/// (`jump_label_init`, kernel/jump_label.c; `__static_call_init`, kernel/static_call_inline.c).
fn sorted_table(placed: &Placed, kernel: &Kernel<'_>, table: TableKind) -> Option<Range<u64>> {
    let tables = placed.image().tables();
    let bounds = tables.bounds_of(table).next()?;
    let start = bounds.address.wrapping_add(placed.slide());
    let seen = kernel.bytes_at(start, usize::try_from(bounds.size).ok()?).ok()?;
    let entries = seen.chunks_exact(usize::try_from(bounds.entry_size).ok()?);
    let entries = entries.zip((start..).step_by(bounds.entry_size as usize));
    let word = |entry: &[u8], at: u64, offset: usize| {
        let value: [u8; 4] = entry.get(offset..offset + 4)?.try_into().ok()?;
        let from = at + offset as u64;
        Some(from.wrapping_add_signed(i64::from(i32::from_le_bytes(value))))
    };
    let slid = |address: u64| address.wrapping_add(placed.slide());
    let (mut image, mut memory): (Vec<_>, Vec<_>) = match table {
        TableKind::JumpLabels => (
            tables
                .jump_labels
                .iter()
                .map(|label| {
                    (slid(label.address), slid(label.target), slid(label.key), label.branch)
                })
                .collect(),
            entries
                .map(|(entry, at)| {
                    let key: [u8; 8] = entry.get(8..16)?.try_into().ok()?;
                    let key = (at + 8).wrapping_add(u64::from_le_bytes(key));
                    // The entry is aligned, so the low bits are those of the distance.
                    Some((word(entry, at, 0)?, word(entry, at, 4)?, key & !3, key & 1 != 0))
                })
                .collect::<Option<_>>()?,
        ),
        _ => (
            tables
                .static_calls
                .iter()
                .map(|call| (slid(call.address), 0, slid(call.key), call.tail))
                .collect(),
            entries
                .map(|(entry, at)| {
                    let key = word(entry, at, 4)?;
                    Some((word(entry, at, 0)?, 0, key & !3, key & 1 != 0))
                })
                .collect::<Option<_>>()?,
        ),
    };
    image.sort_unstable();
    memory.sort_unstable();
    (image == memory).then(|| start..start + bounds.size)
}
