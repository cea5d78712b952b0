// SPDX-License-Identifier: Apache-2.0
//! The kernel's own symbol table, found and decoded inside its read-only data.
//!
//! A distribution's image has no ELF symbol table, and what would say where the kallsyms tables
//! are is a symbol itself. So they are found by their structure, from the one that is hardest to
//! mistake: `kallsyms_token_index`, 256 growing offsets into the table of tokens that ends just
//! before it. What else there is follows from scripts/kallsyms.c:
//!
//! | kernel | order of the tables | addresses |
//! | --- | --- | --- |
//! | to 6.3 | offsets, base, count, names, markers, (numbers by name), tokens, index | from a base |
//! | 6.4 to 6.18 | count, names, markers, tokens, index, offsets, base, (numbers by name) | from a base |
//! | 7.3 | count, names, markers, tokens, index, offsets, (numbers by name) | from each entry |
//!
//! Offsets from a base are either all unsigned or, with per-CPU data linked at zero (to 6.14),
//! absolute where positive and `base - 1 - offset` where negative
//! (`CONFIG_KALLSYMS_ABSOLUTE_PERCPU`, kernel/kallsyms.c `kallsyms_sym_address`). Which of these
//! it is shows in the result: symbols ascend, and `_text` is where the text section is.
//! Tables are aligned to 8 bytes, in the newest format to 4.
//!
//! A name is a length and that many token numbers; from 6.1 a length above 127 takes two bytes
//! (ULEB128). The expanded name starts with its type letter. A marker is the place of each 256th
//! name.

use std::ops::Range;

use crate::error::{ImageError, ImageErrorKind, Place};
use crate::little_endian::{i32_at, slice, u8_at, u16_at, u32_at, u64_at};
use crate::symbols::Symbols;

/// More than `KSYM_NAME_LEN` (512 from 6.1, include/linux/kallsyms.h) and the type letter.
const LONGEST_NAME: usize = 1024;
/// A kernel of today has some 200,000 symbols and 7 MB of names.
const MOST_SYMBOLS: u32 = 1 << 22;
const MOST_NAME_BYTES: usize = 64 << 20;
/// Fewer symbols than that are no kernel, and would leave too little structure to find.
const FEWEST_SYMBOLS: u32 = 256;
/// What only looks like the tables is dropped early; a file full of such is refused, not searched.
const MOST_ATTEMPTS: usize = 8;

/// The bytes that hold the tables.
#[derive(Clone, Debug)]
pub struct Region<'a> {
    /// The section's bytes.
    pub bytes: &'a [u8],
    /// Where they are in the ELF, for errors.
    pub offset: u64,
    /// The virtual address of the first.
    pub address: u64,
    /// Where the kernel's text is, in which `_text` and `_stext` must lie.
    pub text: Range<u64>,
}

struct Tokens<'a> {
    start: u64,
    index: u64,
    list: Vec<&'a [u8]>,
}

#[derive(Default)]
struct Names {
    text: String,
    /// Where each name, with its type letter, ends in `text`.
    ends: Vec<usize>,
}

impl Names {
    fn get(&self, index: usize) -> Option<(u8, &str)> {
        let start = match index.checked_sub(1) {
            Some(before) => *self.ends.get(before)?,
            None => 0,
        };
        let name = self.text.get(start..*self.ends.get(index)?)?;
        Some((*name.as_bytes().first()?, name.get(1..)?))
    }
}

/// Finds and decodes the tables.
///
/// # Errors
/// When no tables are found, or their addresses make no sense in any known format.
pub fn decode(region: &Region<'_>) -> Result<Symbols, ImageError> {
    let bytes = region.bytes;
    let mut furthest = None;
    let mut attempts = 0;
    for tokens in token_tables(bytes).take(MOST_ATTEMPTS) {
        furthest = furthest.max(Some(tokens.start));
        let mut count_at = tokens.start & !3;
        while let Some(at) = count_at.checked_sub(4) {
            count_at = at;
            let Some((names_at, markers_at, count)) = plausible(bytes, at, &tokens) else {
                continue;
            };
            attempts += 1;
            if let Some(names) = names(bytes, names_at, markers_at, count, &tokens) {
                return with_addresses(region, at, &tokens, &names);
            }
            if attempts == MOST_ATTEMPTS {
                break;
            }
        }
    }
    let (at, problem) = match furthest {
        Some(at) => {
            (at, "the names that belong to this table of kallsyms tokens are not before it")
        }
        None => (0, "no table of kallsyms tokens in the section that starts here"),
    };
    Err(ImageError::new(ImageErrorKind::NoSymbols, Place::Elf, region.offset + at, problem))
}

/// All places that have the structure of a token table followed by its index.
fn token_tables(bytes: &[u8]) -> impl Iterator<Item = Tokens<'_>> {
    (0..bytes.len() as u64 / 4).filter_map(|word| {
        let index = word * 4;
        // The cheap part first: the index starts with 0 and a small number.
        if u16_at(bytes, index)? != 0 || !(1..=1024).contains(&u16_at(bytes, index + 2)?) {
            return None;
        }
        tokens_before(bytes, index)
    })
}

fn tokens_before(bytes: &[u8], index: u64) -> Option<Tokens<'_>> {
    let mut offsets = [0; 256];
    let mut previous = None;
    for (number, offset) in (0..).zip(&mut offsets) {
        *offset = u64::from(u16_at(bytes, index + 2 * number)?);
        if previous.is_some_and(|previous| *offset <= previous) {
            return None;
        }
        previous = Some(*offset);
    }
    let last = previous?;
    // How long the last token is, and how much padding follows it, is not known.
    (last + 1..last + 1 + LONGEST_NAME as u64).find_map(|distance| {
        let start = index.checked_sub(distance).filter(|start| start.is_multiple_of(4))?;
        let ends_well = |offset: &u64| *offset == 0 || u8_at(bytes, start + offset - 1) == Some(0);
        if !offsets.iter().all(ends_well) {
            return None;
        }
        let list: Vec<&[u8]> = offsets
            .iter()
            .map(|offset| token(bytes, start + offset, index))
            .collect::<Option<_>>()?;
        let end = start + last + list.last()?.len() as u64 + 1;
        let padding = slice(bytes, end, index.checked_sub(end)?)?;
        let filled = list.iter().filter(|token| !token.is_empty()).count();
        (padding.len() < 8 && padding.iter().all(|byte| *byte == 0) && filled >= 26)
            .then_some(Tokens { start, index, list })
    })
}

fn token(bytes: &[u8], at: u64, limit: u64) -> Option<&[u8]> {
    let rest = slice(bytes, at, limit.checked_sub(at)?.min(LONGEST_NAME as u64))?;
    let token = rest.split(|byte| *byte == 0).next()?;
    (token.len() < rest.len() && token.iter().all(u8::is_ascii_graphic)).then_some(token)
}

/// Whether `kallsyms_num_syms` can be at `at`: then the places of names and markers, and the count.
/// Looks only at a few values of each, as it is asked for every word of the section.
fn plausible(bytes: &[u8], at: u64, tokens: &Tokens<'_>) -> Option<(u64, u64, u32)> {
    let count = u32_at(bytes, at)?;
    if !(FEWEST_SYMBOLS..=MOST_SYMBOLS).contains(&count) {
        return None;
    }
    let markers = u64::from(count.div_ceil(256));
    let numbers = 3 * u64::from(count);
    // Aligned to 8 the names start after four bytes of padding, aligned to 4 at once.
    let aligned = (at.is_multiple_of(8) && u32_at(bytes, at + 4) == Some(0)).then_some(at + 8);
    // In 6.1.192, and wherever the offsets come first and it exists, a table of three bytes for each symbol is in between.
    let followers = [
        Some(tokens.start),
        tokens.start.checked_sub(numbers).map(|start| start & !7),
        tokens.start.checked_sub(numbers).map(|start| start & !3),
    ];
    for names_at in aligned.into_iter().chain([at + 4]) {
        for follower in followers.into_iter().flatten() {
            for padding in [0, 4] {
                let Some(markers_at) = follower.checked_sub(padding + 4 * markers) else {
                    continue;
                };
                if u32_at(bytes, markers_at) != Some(0) {
                    continue;
                }
                let last = u64::from(u32_at(bytes, markers_at + 4 * (markers - 1))?);
                // The last marker is followed by at most 256 names, and padding.
                let room = markers_at.checked_sub(names_at + last);
                if room
                    .is_some_and(|room| (1..=256 * (LONGEST_NAME as u64 + 2) + 8).contains(&room))
                {
                    return Some((names_at, markers_at, count));
                }
            }
        }
    }
    None
}

/// Expands all names; nothing if a marker or the end is not where it should be.
fn names(bytes: &[u8], at: u64, markers_at: u64, count: u32, tokens: &Tokens<'_>) -> Option<Names> {
    let mut names = Names::default();
    // A name has at least a length and one token.
    names.ends.reserve((count as usize).min(bytes.len() / 2));
    let mut cursor = at;
    let mut name = Vec::with_capacity(LONGEST_NAME);
    for number in 0..count {
        if number % 256 == 0 {
            let marker = u32_at(bytes, markers_at + 4 * u64::from(number / 256))?;
            if cursor.checked_sub(at) != Some(u64::from(marker)) {
                return None;
            }
        }
        let mut length = u64::from(u8_at(bytes, cursor)?);
        cursor += 1;
        if length & 0x80 != 0 {
            length = (length & 0x7f) | (u64::from(u8_at(bytes, cursor)?) << 7);
            cursor += 1;
        }
        name.clear();
        for number in slice(bytes, cursor, length)? {
            name.extend_from_slice(tokens.list.get(usize::from(*number))?);
            if name.len() > LONGEST_NAME {
                return None;
            }
        }
        cursor += length;
        // Tokens are printable ASCII, and a name is a letter and at least one character more.
        if name.len() < 2 || cursor > markers_at {
            return None;
        }
        names.text.push_str(std::str::from_utf8(&name).ok()?);
        names.ends.push(names.text.len());
        if names.text.len() > MOST_NAME_BYTES {
            return None;
        }
    }
    (markers_at - cursor < 8).then_some(names)
}

/// How an entry of `kallsyms_offsets` becomes an address.
#[derive(Clone, Copy)]
enum Rule {
    FromBase(u64),
    AbsoluteOrFromBase(u64),
    FromEntry,
}

fn with_addresses(
    region: &Region<'_>,
    count_at: u64,
    tokens: &Tokens<'_>,
    names: &Names,
) -> Result<Symbols, ImageError> {
    let bytes = region.bytes;
    let size = 4 * names.ends.len() as u64;
    let after = tokens.index + 512;
    let late = after.next_multiple_of(8);
    let base_late = u64_at(bytes, (late + size).next_multiple_of(8));
    let base_early = count_at.checked_sub(8);
    let early = base_early.and_then(|base| base.checked_sub(size)).map(|at| at & !7);
    let base_early = base_early.and_then(|at| u64_at(bytes, at));

    let mut candidates = Vec::with_capacity(5);
    for (at, base) in [(Some(late), base_late), (early, base_early)] {
        if let (Some(at), Some(base)) = (at, base) {
            candidates.push((at, Rule::FromBase(base)));
            candidates.push((at, Rule::AbsoluteOrFromBase(base)));
        }
    }
    candidates.push((after, Rule::FromEntry));
    let start = (0..names.ends.len()).find(|index| {
        names.get(*index).is_some_and(|(_, name)| matches!(name, "_text" | "_stext"))
    });
    let wrong = |problem| {
        let at = region.offset + after;
        Err(ImageError::new(ImageErrorKind::NoSymbols, Place::Elf, at, problem))
    };
    let Some(start) = start else {
        return wrong("kallsyms that know _text or _stext expected; these know neither");
    };
    for (at, rule) in candidates {
        let address = |index: usize| address(region, at + 4 * index as u64, rule);
        if !address(start).is_some_and(|address| region.text.contains(&address)) {
            continue;
        }
        let addresses: Option<Vec<u64>> = (0..names.ends.len()).map(address).collect();
        let Some(addresses) = addresses.filter(|list| list.is_sorted()) else { continue };
        let symbols = addresses.iter().enumerate().filter_map(|(index, address)| {
            let (kind, name) = names.get(index)?;
            Some((*address, kind, name))
        });
        return Ok(Symbols::from_iter(symbols));
    }
    wrong(
        "kallsyms offsets before the names or here expected, from which _text is in the text section",
    )
}

fn address(region: &Region<'_>, at: u64, rule: Rule) -> Option<u64> {
    let offset = i32_at(region.bytes, at)?;
    let signed = i64::from(offset) as u64;
    Some(match rule {
        Rule::FromBase(base) => base.wrapping_add(u64::from(offset as u32)),
        Rule::AbsoluteOrFromBase(_) if offset >= 0 => signed,
        Rule::AbsoluteOrFromBase(base) => base.wrapping_sub(1).wrapping_sub(signed),
        Rule::FromEntry => region.address.wrapping_add(at).wrapping_add(signed),
    })
}
