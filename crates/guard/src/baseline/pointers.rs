// SPDX-License-Identifier: Apache-2.0
//! The pointers to code in the kernel's writable data, as the image has them.
//!
//! Which words of the data lead to text is what the boot code's list of relocations says: it has to
//! add the slide to each. They are kept as a fact of the baseline, because the image itself is only
//! decoded when that is made.

use std::fmt::Write;

use kernel_image::patching::Placed;

/// The fact that lists them.
pub const FACT: &str = "image.data.pointers";

/// A word of the kernel's data that leads to its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pointer {
    /// Where it is.
    pub address: u64,
    /// Where it leads by the image.
    pub target: u64,
}

/// The pointers to text between `_sdata` and `_edata`.
pub(super) fn of_image(placed: &Placed) -> Vec<Pointer> {
    let bound = |name| placed.symbol(name).unwrap_or(0);
    let (text, data) = (bound("_stext")..bound("_etext"), bound("_sdata")..bound("_edata"));
    let quads = placed.image().relocations().quads();
    let mut pointers: Vec<Pointer> = quads
        .filter_map(|linked| {
            let address = linked.wrapping_add(placed.slide());
            let bytes = placed.image().bytes_at(linked, 8)?;
            let target = u64::from_le_bytes(bytes.try_into().ok()?);
            let both = data.contains(&address) && text.contains(&target);
            both.then_some(Pointer { address, target })
        })
        .collect();
    pointers.sort_unstable();
    pointers
}

/// Each pointer as the distance of its place from the one before, and of its target from `text`, in
/// hexadecimal. The first place counts from `text` too.
pub(super) fn in_words(pointers: &[Pointer], text: u64) -> String {
    let mut words = String::new();
    let mut last = text;
    for pointer in pointers {
        let (place, target) =
            (pointer.address.wrapping_sub(last), pointer.target.wrapping_sub(text));
        // Writing to a string cannot fail.
        let _ = write!(words, "{place:x} {target:x},");
        last = pointer.address;
    }
    words
}

/// The pointers that [`in_words`] put into words; none if these are damaged.
pub fn from_words(words: &str, text: u64) -> Option<Vec<Pointer>> {
    let mut at = text;
    words
        .split_terminator(',')
        .map(|pair| {
            let (place, target) = pair.split_once(' ')?;
            at = at.wrapping_add(u64::from_str_radix(place, 16).ok()?);
            let target = text.wrapping_add(u64::from_str_radix(target, 16).ok()?);
            Some(Pointer { address: at, target })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_come_back_out_of_words() {
        let text = 0xffff_ffff_8100_0000;
        let pointer = |place, target| Pointer { address: text + place, target: text + target };
        let pointers =
            [pointer(0x100_0000, 0x40), pointer(0x100_0008, 0xfff), pointer(0x180_0000, 0)];
        let words = in_words(&pointers, text);
        assert_eq!(from_words(&words, text), Some(pointers.to_vec()));
        assert_eq!(from_words("", text), Some(Vec::new()));
        assert_eq!(from_words("12,", text), None);
        assert_eq!(from_words("12 xyz,", text), None);
    }
}
