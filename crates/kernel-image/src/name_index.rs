// SPDX-License-Identifier: Apache-2.0
//! Names to numbers, for tables of 100,000 names and more.
//!
//! An order by hash instead of by name: it is built in a fifth of the time, since sorting compares
//! numbers that lie side by side instead of strings that lie far apart, half of which begin with
//! `__pfx_`. Eight bytes per name; the names themselves stay where they are.

/// Items in order of the hash of their names. An item is a number of the owner's.
#[derive(Clone, Debug, Default)]
pub(crate) struct NameIndex {
    /// The hash in the upper 32 bits, the item in the lower ones. Ascending, so that items of one
    /// name are in order.
    entries: Vec<u64>,
}

impl NameIndex {
    pub(crate) fn build<'a>(items: impl Iterator<Item = (&'a [u8], u32)>) -> Self {
        let mut entries: Vec<u64> =
            items.map(|(name, item)| (u64::from(hash(name)) << 32) | u64::from(item)).collect();
        entries.sort_unstable();
        entries.shrink_to_fit();
        Self { entries }
    }

    /// Items whose names have the hash of this name, ascending: those with the name itself, and
    /// rarely others, so the caller compares.
    pub(crate) fn candidates(&self, name: &[u8]) -> impl Iterator<Item = u32> + use<'_> {
        let wanted = u64::from(hash(name));
        let first = self.entries.partition_point(|entry| entry >> 32 < wanted);
        let rest = self.entries.get(first..).unwrap_or_default().iter();
        rest.take_while(move |entry| *entry >> 32 == wanted).map(|entry| *entry as u32)
    }
}

/// Multiplies and folds eight bytes at a time. Whoever writes the names can make them collide,
/// which makes look-ups slow and not wrong.
fn hash(name: &[u8]) -> u32 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let (words, rest) = name.as_chunks::<8>();
    let mut last = [0; 8];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    let mix = |state: u64, word: [u8; 8]| {
        let product = u128::from(state ^ u64::from_le_bytes(word)) * u128::from(FACTOR);
        (product as u64) ^ ((product >> 64) as u64)
    };
    let state = words.iter().fold(name.len() as u64 ^ FACTOR, |state, word| mix(state, *word));
    let state = mix(state, last).wrapping_mul(FACTOR);
    (state >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_among_its_candidates_in_order() {
        let names: Vec<String> =
            (0..10_000).map(|number| format!("name_{}", number % 5000)).collect();
        let items = names.iter().enumerate().map(|(at, name)| (name.as_bytes(), at as u32));
        let index = NameIndex::build(items);
        let mut others = 0;
        for (at, name) in names.iter().enumerate() {
            let found: Vec<u32> = index.candidates(name.as_bytes()).collect();
            assert!(found.contains(&(at as u32)));
            assert!(found.is_sorted());
            others += found.len() - 2;
        }
        // Of 32 bits, 5,000 names should hardly share any.
        assert!(others < 20, "{others} names collide");
    }
}
