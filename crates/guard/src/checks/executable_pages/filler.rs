// SPDX-License-Identifier: Apache-2.0
//! What may stand in executable memory between the images that have owners.

use std::ops::Range;

/// `int3`: what the kernel fills unused executable memory with (`jit_fill_hole` in
/// arch/x86/net/bpf_jit_comp.c, `text_poke_set` on freeing, arch/x86/mm/init.c for execmem).
const INT3: u8 = 0xcc;

/// `BPF_PROG_CHUNK_SIZE` (kernel/bpf/core.c): images in a pack begin at multiples of it.
const CHUNK: u64 = 64;

/// The largest image: a pack of `BPF_PROG_PACK_SIZE`, 2 MiB for each possible node.
const LARGEST_IMAGE: u64 = 64 << 20;

/// How a stretch without an owner was explained, or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stretch {
    /// An image by its header, whose program no list has: classic filters are such.
    Unlisted {
        /// Where its code starts.
        code: u64,
        /// Where the image ends, with its filler.
        end: u64,
    },
    /// Something else: where it starts.
    Foreign(u64),
}

/// Looks at `bytes`, which stand at `start` in executable memory between images with owners;
/// `next_image` is the next such image behind them. Gives each stretch that is not filler.
pub(super) fn strangers(bytes: &[u8], start: u64, next_image: Option<&Range<u64>>) -> Vec<Stretch> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(skipped) = bytes.get(at..).and_then(first_not_filler) {
        at += skipped;
        let address = start.wrapping_add(at as u64);
        let rest = bytes.get(at..).unwrap_or_default();
        match header(rest, address) {
            // The header of an image: its code has an owner and follows, or fills the stretch.
            Some(size) => {
                let end = address.saturating_add(size);
                let owned = next_image.is_some_and(|next| (address..end).contains(&next.start));
                if owned {
                    at += HEADER;
                    continue;
                }
                let code = rest
                    .get(HEADER..)
                    .and_then(first_not_filler)
                    .map(|gap| address.wrapping_add((HEADER + gap) as u64))
                    .filter(|code| *code < end);
                found.extend(code.map(|code| Stretch::Unlisted { code, end }));
                at = at.saturating_add(usize::try_from(size).unwrap_or(usize::MAX));
            }
            None => match thunk_length(rest) {
                Some(length) => at += length,
                None => {
                    found.push(Stretch::Foreign(address));
                    break;
                }
            },
        }
    }
    found
}

/// Bytes of `struct bpf_binary_header` that are not filler: `u32 size`; the image behind it is
/// aligned to 8 (include/linux/filter.h).
const HEADER: usize = 4;

/// The size in the header of a BPF image at `address`.
fn header(bytes: &[u8], address: u64) -> Option<u64> {
    let size = u64::from(u32::from_le_bytes(*bytes.first_chunk::<4>()?));
    let fits = size >= CHUNK && size.is_multiple_of(CHUNK) && size <= LARGEST_IMAGE;
    (address.is_multiple_of(CHUNK) && fits).then_some(size)
}

fn first_not_filler(bytes: &[u8]) -> Option<usize> {
    // Eight at a time: packs have megabytes of filler.
    let (words, _) = bytes.as_chunks::<8>();
    let words = words.iter().take_while(|word| **word == [INT3; 8]).count() * 8;
    let rest = bytes.get(words..)?;
    Some(words + rest.iter().position(|byte| *byte != INT3)?)
}

/// A thunk of the mitigation of indirect target selection: `jmp *reg`, alone in the upper half of
/// a cache line (`its_allocate_thunk` and `its_init_thunk`, arch/x86/kernel/alternative.c). It can
/// lead nowhere by itself, so pages that hold only thunks and filler are harmless.
fn thunk_length(bytes: &[u8]) -> Option<usize> {
    match bytes {
        [0xff, 0xe0..=0xe7, INT3, ..] => Some(2),
        [0x41, 0xff, 0xe0..=0xe7, INT3, ..] => Some(3),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 0xffff_ffff_c000_0000;

    fn filled(length: usize, parts: &[(usize, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![INT3; length];
        for (at, part) in parts {
            bytes[*at..at + part.len()].copy_from_slice(part);
        }
        bytes
    }

    #[test]
    fn filler_and_thunks_are_no_strangers() {
        let bytes = filled(512, &[(32, &[0xff, 0xe0]), (96, &[0x41, 0xff, 0xe3])]);
        assert_eq!(strangers(&bytes, START, None), []);
    }

    #[test]
    fn a_header_belongs_to_the_image_behind_it() {
        let bytes = filled(20, &[(0, &0x640_u32.to_le_bytes())]);
        let image = START + 20..START + 0x600;
        assert_eq!(strangers(&bytes, START, Some(&image)), []);
    }

    #[test]
    fn an_image_that_no_list_has_is_told_by_its_header() {
        let mut bytes =
            filled(256, &[(64, &128_u32.to_le_bytes()), (76, &[0x55, 0x48, 0x89, 0xe5])]);
        let unlisted = Stretch::Unlisted { code: START + 76, end: START + 192 };
        assert_eq!(strangers(&bytes, START, None), std::slice::from_ref(&unlisted));
        // Code behind its end is not covered by the header.
        bytes[200] = 0x90;
        assert_eq!(strangers(&bytes, START, None), [unlisted, Stretch::Foreign(START + 200)]);
    }

    #[test]
    fn code_without_a_header_is_foreign_wherever_it_stands() {
        for at in [0, 1, 63, 64, 100, 4092] {
            let bytes = filled(4096, &[(at, &[0x0f, 0x05])]);
            let expected = START + at as u64;
            assert_eq!(strangers(&bytes, START, None), [Stretch::Foreign(expected)], "at {at}");
        }
    }
}
