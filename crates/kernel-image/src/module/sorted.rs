// SPDX-License-Identifier: Apache-2.0
//! Tables that the loader sorts, because the linker leaves those of modules in the order of the
//! object files.

use crate::little_endian::{i32_at, u64_at};

/// Sorts `__mcount_loc`, addresses of eight bytes (`ftrace_process_locs`, kernel/trace/ftrace.c).
pub(super) fn addresses(table: &mut [u8]) {
    let mut list: Vec<u64> =
        table.chunks_exact(8).map(|entry| u64_at(entry, 0).unwrap_or_default()).collect();
    list.sort_unstable();
    for (entry, address) in table.chunks_exact_mut(8).zip(list) {
        entry.copy_from_slice(&address.to_le_bytes());
    }
}

/// Sorts `__ex_table` (`sort_extable`, lib/extable.c): twelve bytes, of which the first two words are
/// each the distance from itself to the instruction and to what is executed after a fault
/// (arch/x86/include/asm/extable.h).
pub(super) fn exceptions(table: &mut [u8], address: u64) {
    let places = (address..).step_by(12);
    let mut list: Vec<(u64, u64, [u8; 4])> = table
        .chunks_exact(12)
        .zip(places.clone())
        .filter_map(|(entry, at)| {
            let data = *entry.last_chunk::<4>()?;
            Some((absolute(entry, 0, at)?, absolute(entry, 4, at.wrapping_add(4))?, data))
        })
        .collect();
    list.sort_by_key(|(instruction, ..)| *instruction);
    for ((entry, at), (instruction, fixup, data)) in
        table.chunks_exact_mut(12).zip(places).zip(list)
    {
        put(entry, 0, distance(at, instruction));
        put(entry, 4, distance(at.wrapping_add(4), fixup));
        put(entry, 8, data);
    }
}

/// Sorts `.orc_unwind_ip`, distances of four bytes from themselves to code, and `.orc_unwind` along
/// with it (`unwind_module_init`, arch/x86/kernel/unwind_orc.c). Of two entries for one address the
/// one that ends a section comes first.
pub(super) fn unwinding(places: &mut [u8], address: u64, entries: &mut [u8]) {
    let count = places.len() / 4;
    let Some(size) = entries.len().checked_div(count).filter(|size| *size > 0) else { return };
    let mut list: Vec<(u64, bool, Vec<u8>)> = places
        .chunks_exact(4)
        .zip((address..).step_by(4))
        .zip(entries.chunks_exact(size))
        .filter_map(|((place, at), entry)| {
            let ends = entry.iter().all(|byte| *byte == 0);
            Some((absolute(place, 0, at)?, !ends, entry.to_vec()))
        })
        .collect();
    list.sort_by_key(|(to, goes_on, _)| (*to, *goes_on));
    let targets = places.chunks_exact_mut(4).zip((address..).step_by(4));
    for (((place, at), entry), (to, _, bytes)) in
        targets.zip(entries.chunks_exact_mut(size)).zip(list)
    {
        put(place, 0, distance(at, to));
        entry.copy_from_slice(&bytes);
    }
}

fn absolute(entry: &[u8], offset: u64, at: u64) -> Option<u64> {
    Some(at.wrapping_add_signed(i64::from(i32_at(entry, offset)?)))
}

fn distance(from: u64, to: u64) -> [u8; 4] {
    (to.wrapping_sub(from) as u32).to_le_bytes()
}

fn put(entry: &mut [u8], offset: usize, bytes: [u8; 4]) {
    if let Some(target) = entry.get_mut(offset..offset + 4) {
        target.copy_from_slice(&bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_entries_still_lead_to_the_same_places_when_they_are_sorted() {
        let at = 0x1000;
        let mut table = Vec::new();
        for (index, (instruction, fixup, data)) in
            [(0x9000, 0x9100, 7), (0x8000, 0x8100, 8_u32)].into_iter().enumerate()
        {
            let here = at + 12 * index as u64;
            table.extend(distance(here, instruction));
            table.extend(distance(here + 4, fixup));
            table.extend(data.to_le_bytes());
        }
        exceptions(&mut table, at);
        let read: Vec<_> = table
            .chunks(12)
            .zip([at, at + 12])
            .map(|(entry, here)| {
                (absolute(entry, 0, here).unwrap(), absolute(entry, 4, here + 4).unwrap(), entry[8])
            })
            .collect();
        assert_eq!(read, [(0x8000, 0x8100, 8), (0x9000, 0x9100, 7)]);
    }

    #[test]
    fn an_unwind_entry_goes_where_its_address_goes_and_the_end_of_a_section_comes_first() {
        let at = 0x1000;
        let mut places = Vec::new();
        for (index, to) in [0x9000, 0x8000, 0x8000].into_iter().enumerate() {
            places.extend(distance(at + 4 * index as u64, to));
        }
        let mut entries = [[1; 6], [2; 6], [0; 6]].concat();
        unwinding(&mut places, at, &mut entries);
        assert_eq!(entries, [[0; 6], [2; 6], [1; 6]].concat());
        assert_eq!(absolute(&places[8..], 0, at + 8), Some(0x9000));
    }
}
