// SPDX-License-Identifier: Apache-2.0
//! What stands between images, known again by digests.
//!
//! Packs of BPF images are megabytes of filler. What is in such a stretch follows from its bytes, from
//! where it begins and from where the next image does; so as long as all of these are as they were, it
//! is what it was. What belongs to nobody is never known: it is looked at each time.

use std::collections::HashMap;
use std::ops::Range;

use kernel_memory::{KernelMemory, ReadError};

use super::filler::{self, Stretch};
use crate::digest::{Digest, Key, PAGE};
use crate::known_pages::WHOLE;

/// Where a stretch begins and ends, and the BPF image behind it begins.
type Place = (u64, u64, Option<u64>);

/// Stretches that were looked at.
#[derive(Debug, Default)]
pub(super) struct Known {
    key: Key,
    passes: u32,
    stretches: HashMap<Place, Seen>,
}

/// What a stretch was.
#[derive(Debug)]
struct Seen {
    digests: Vec<Digest>,
    strangers: Vec<Stretch>,
    /// Whether it was asked for in this pass.
    current: bool,
}

impl Known {
    /// Begins a pass, the first of all and each [`WHOLE`]th without any that is known.
    pub(super) fn begin(&mut self) {
        if self.passes.is_multiple_of(WHOLE) {
            self.key = Key::draw();
            self.stretches.clear();
        }
        self.passes = self.passes.wrapping_add(1);
        // Those that no pass asks for any more are gone.
        self.stretches.retain(|_, seen| std::mem::take(&mut seen.current));
    }

    /// What [`filler::strangers`] says of the bytes that are there now.
    pub(super) fn strangers(
        &mut self,
        memory: &dyn KernelMemory,
        range: &Range<u64>,
        next_image: Option<&Range<u64>>,
    ) -> Result<Vec<Stretch>, ReadError> {
        let place = (range.start, range.end, next_image.map(|next| next.start));
        let mut digests = Vec::new();
        if let Some(seen) = self.stretches.get_mut(&place) {
            self.key.digests_of(memory, range, &mut digests)?;
            if digests == seen.digests {
                seen.current = true;
                return Ok(seen.strangers.clone());
            }
        }
        let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let mut bytes = vec![0; length];
        memory.read(range.start, &mut bytes)?;
        let strangers = filler::strangers(&bytes, range.start, next_image);
        if strangers.iter().any(|stretch| matches!(stretch, Stretch::Foreign(_))) {
            self.stretches.remove(&place);
            return Ok(strangers);
        }
        digests.clear();
        digests.extend(bytes.chunks(PAGE).map(|chunk| self.key.digest(chunk)));
        let seen = Seen { digests, strangers: strangers.clone(), current: true };
        self.stretches.insert(place, seen);
        Ok(strangers)
    }
}

#[cfg(test)]
mod tests {
    use kernel_memory::FakeMemory;

    use super::*;

    const START: u64 = 0xffff_ffff_c000_0040;
    const INT3: u8 = 0xcc;

    /// Filler from the middle of one page to the middle of another, in pieces of a page.
    fn memory() -> (FakeMemory, Range<u64>) {
        let mut memory = FakeMemory::new();
        memory.write(START, &vec![INT3; 0x3fe0]);
        (memory, START..START + 0x3fe0)
    }

    #[test]
    fn what_changes_in_filler_that_is_known_is_seen_at_once() {
        let (mut memory, range) = memory();
        let mut known = Known::default();
        let mut look = |memory: &FakeMemory| {
            known.begin();
            known.strangers(memory, &range, None).unwrap()
        };
        for offset in [0, 1, 0xfbf, 0xfc0, 0xfff, 0x1000, 0x2345, 0x3fdf] {
            assert_eq!(look(&memory), [], "before {offset:#x}");
            memory.write(START + offset, &[0x90]);
            for _ in 0..2 {
                assert_eq!(look(&memory), [Stretch::Foreign(START + offset)]);
            }
            memory.write(START + offset, &[INT3]);
        }
        assert_eq!(look(&memory), []);
        memory.remove_page(START + 0x2000);
        known.begin();
        assert!(known.strangers(&memory, &range, None).is_err());
    }

    #[test]
    fn an_unlisted_image_is_told_each_time_and_a_header_belongs_to_the_next_image_only() {
        let (mut memory, range) = memory();
        memory.write(START + 0x40, &64_u32.to_le_bytes());
        memory.write(START + 0x48, &[0x55, 0xc3]);
        let unlisted = Stretch::Unlisted { code: START + 0x48, end: START + 0x80 };
        let mut known = Known::default();
        for _ in 0..3 {
            known.begin();
            let seen = known.strangers(&memory, &range, None).unwrap();
            assert_eq!(seen, std::slice::from_ref(&unlisted));
        }
        // The same bytes, but an image that has an owner begins within what the header covers.
        let next = START + 0x60..START + 0x70;
        let seen = known.strangers(&memory, &range, Some(&next)).unwrap();
        assert_eq!(seen, [Stretch::Foreign(START + 0x48)]);
    }

    #[test]
    fn what_is_known_lasts_as_long_as_a_key_and_as_it_is_asked_for() {
        let (memory, range) = memory();
        let mut known = Known::default();
        known.begin();
        known.strangers(&memory, &range, None).unwrap();
        assert_eq!(known.stretches.len(), 1);
        known.begin();
        known.begin();
        assert_eq!(known.stretches.len(), 0);
        for _ in 3..=WHOLE {
            known.strangers(&memory, &range, None).unwrap();
            assert_eq!(known.stretches.len(), 1);
            known.begin();
        }
        assert_eq!(known.stretches.len(), 0, "a new key");
    }
}
