// SPDX-License-Identifier: Apache-2.0
use kernel_memory::page_tables::Permissions;

use super::*;

const TEXT: Range<u64> = 0xffff_ffff_8100_0000..0xffff_ffff_8220_0000;
const MEMORY: u64 = 0x100_0000;

fn mapping(start: u64, physical: u64, writable: bool) -> Mapping {
    Mapping {
        start,
        length: 0x20_0000,
        physical: Some(physical),
        permissions: Permissions { writable, executable: true, user: false },
        page_size: 0x20_0000,
    }
}

fn faults(mapping: &Mapping) -> Vec<Fault> {
    let mut faults = BTreeSet::new();
    placement(mapping, &TEXT, MEMORY, &mut faults);
    faults.into_iter().map(|(fault, _)| fault).collect()
}

#[test]
fn the_text_itself_is_no_alias() {
    assert_eq!(faults(&mapping(TEXT.start, MEMORY, false)), []);
}

#[test]
fn another_executable_address_of_the_texts_memory_is_an_alias() {
    let direct = 0xffff_8880_0000_0000;
    assert_eq!(faults(&mapping(direct + MEMORY, MEMORY, false)), [Fault::Alias]);
    let touching = MEMORY + (TEXT.end - TEXT.start);
    assert_eq!(faults(&mapping(direct + touching, touching, false)), []);
    assert_eq!(faults(&mapping(direct, MEMORY - 0x1f_ffff, false)), [Fault::Alias]);
}

#[test]
fn writable_and_executable_is_a_fault_even_in_the_text() {
    assert_eq!(faults(&mapping(TEXT.start, MEMORY, true)), [Fault::Writable]);
}
