// SPDX-License-Identifier: Apache-2.0
//! Where a guest's memory lies, by the answer to `info mtree -f` (softmmu/memory.c, QEMU 7.2).

/// Where memory continues behind the hole of a PC.
const ABOVE: u64 = 4 << 30;

/// How many bytes of the guest's memory are below the hole for devices; all of it if there are none
/// above. Nothing if the answer does not say.
///
/// A line is `first-last (prio N, ram): name @offset`, where the offset is that in the memory that QEMU
/// has for the guest, and is left out if it is zero. Memory of devices has other names, and none of it
/// is both at 4 GiB and the continuation of what lies lower.
pub fn low_bytes(answer: &str, size: u64) -> Option<u64> {
    let view = answer.split("FlatView #").find(|view| view.contains("AS \"memory\""))?;
    let ram: Vec<Ram> = view.lines().filter_map(ram).collect();
    match ram.iter().find(|ram| ram.start == ABOVE) {
        Some(above) => Some(above.offset).filter(|low| *low > 0 && *low < size),
        None => ram.iter().any(|ram| ram.start == 0 && ram.offset == 0).then_some(size),
    }
}

/// Memory at this address, from this offset on.
struct Ram {
    start: u64,
    offset: u64,
}

fn ram(line: &str) -> Option<Ram> {
    let (range, rest) = line.trim().split_once(" (prio ")?;
    let (kind, name) = rest.split_once("): ")?;
    if !kind.ends_with(", ram") {
        return None;
    }
    let start = u64::from_str_radix(range.split('-').next()?, 16).ok()?;
    let offset = match name.split_once(" @") {
        Some((_, offset)) => u64::from_str_radix(offset.split_whitespace().next()?, 16).ok()?,
        None => 0,
    };
    Some(Ram { start, offset })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of QEMU 7.2 with `-M q35 -m 3G`.
    const SPLIT: &str = "FlatView #2\n AS \"ICH9-SMB\", root: bus master container\n\
        FlatView #3\n AS \"memory\", root: system\n AS \"cpu-memory-0\", root: system\n\
        \u{20} 0000000000000000-00000000000bffff (prio 0, ram): ram\n\
        \u{20} 00000000000c0000-00000000000dffff (prio 1, rom): pc.rom\n\
        \u{20} 0000000000100000-000000007fffffff (prio 0, ram): ram @0000000000100000\n\
        \u{20} 00000000fec00000-00000000fec00fff (prio 0, i/o): ioapic\n";
    const ABOVE_HOLE: &str =
        "  0000000100000000-000000013fffffff (prio 0, ram): ram @0000000080000000\n";

    #[test]
    fn what_lies_above_the_hole_tells_how_much_lies_below() {
        let whole = format!("{SPLIT}{ABOVE_HOLE}");
        assert_eq!(low_bytes(&whole, 3 << 30), Some(2 << 30));
        assert_eq!(low_bytes(SPLIT, 2 << 30), Some(2 << 30));
    }

    #[test]
    fn what_makes_no_sense_says_nothing() {
        assert_eq!(low_bytes("", 1 << 30), None);
        assert_eq!(low_bytes(&format!("{SPLIT}{ABOVE_HOLE}"), 1 << 30), None);
    }
}
