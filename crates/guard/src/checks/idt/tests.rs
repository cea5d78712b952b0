// SPDX-License-Identifier: Apache-2.0
use kernel_image::Symbols;
use kernel_image::btf::{Btf, Builder};
use kernel_memory::FakeMemory;

use super::*;

const TEXT: u64 = 0xffff_ffff_8100_0000;
const INTERRUPTS: u64 = TEXT + 0x1000;
const SPURIOUS: u64 = INTERRUPTS + 16 * (0xeb - 0x20);
const EARLY: u64 = TEXT + 0x10_0000;
const DEBUG: u64 = TEXT + 0x3000;
const PAGE_FAULT: u64 = TEXT + 0x3040;
const INT80: u64 = TEXT + 0x3080;
const TABLE: u64 = 0xffff_ffff_8300_0000;

fn gate(handler: u64, ring: u64, stack: u64) -> [u8; SIZE] {
    let low = (handler & 0xffff)
        | 0x10 << 16
        | stack << 32
        | (0x8e00 | ring << 13) << 32
        | (handler >> 16 & 0xffff) << 48;
    let mut bytes = [0; SIZE];
    bytes[..8].copy_from_slice(&low.to_le_bytes());
    bytes[8..].copy_from_slice(&(handler >> 32).to_le_bytes());
    bytes
}

/// A table as the boot code makes it on a kernel that has three handlers by name.
fn sound() -> Vec<[u8; SIZE]> {
    let handler = |vector: u64| match vector {
        1 => gate(DEBUG, 0, 3),
        14 => gate(PAGE_FAULT, 0, 0),
        0x80 => gate(INT80, 3, 0),
        0..0x20 => gate(EARLY + 13 * vector, 0, 0),
        0x20..0xeb => gate(INTERRUPTS + 16 * (vector - 0x20), 0, 0),
        _ => gate(SPURIOUS + 16 * (vector - 0xeb), 0, 0),
    };
    (0..256).map(handler).collect()
}

fn wrong(alias: &[[u8; SIZE]], table: &[[u8; SIZE]]) -> Vec<Wrong> {
    let mut memory = FakeMemory::new();
    memory.write(READ_ONLY_IDT, &alias.concat());
    memory.write(TABLE, &table.concat());
    // endbr64; push 0xeb
    memory.write(SPURIOUS, &[0xf3, 0x0f, 0x1e, 0xfa, 0x6a, 0xeb]);
    let symbols = Symbols::from_iter([
        (INTERRUPTS, b'T', "irq_entries_start"),
        (SPURIOUS, b'T', "spurious_entries_start"),
        (DEBUG, b'T', "asm_exc_debug"),
        (PAGE_FAULT, b'T', "asm_exc_page_fault"),
        (INT80, b'T', "asm_int80_emulation"),
        (EARLY, b'T', "early_idt_handler_array"),
    ]);
    let types = Btf::parse(&Builder::new().finish()).unwrap();
    let kernel = Kernel { memory: &memory, symbols: &symbols, types: &types };
    let expected = vectors::expected(&kernel).unwrap();
    look(&kernel, Some(TABLE), &expected).unwrap().into_iter().collect()
}

fn changed(vector: usize, to: [u8; SIZE]) -> Vec<Wrong> {
    let mut table = sound();
    table[vector] = to;
    wrong(&table, &table)
}

#[test]
fn a_gate_is_taken_apart_as_the_processor_does() {
    // From a 6.12 guest: vector 14 to 0xffffffff918011d0.
    let bytes = [0xd0, 0x11, 0x10, 0, 0, 0x8e, 0x80, 0x91, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
    let expected = Gate {
        handler: 0xffff_ffff_9180_11d0,
        segment: 0x10,
        stack: 0,
        kind: 14,
        ring: 0,
        present: true,
    };
    assert_eq!(Gate::decode(bytes), expected);
}

#[test]
fn the_table_that_the_boot_code_makes_is_as_it_must_be() {
    assert_eq!(wrong(&sound(), &sound()), []);
}

#[test]
fn a_vector_that_leads_elsewhere_is_found_even_within_the_entry_code() {
    let elsewhere = Wrong::Gate(READ_ONLY_IDT, 14, Fault::Handler);
    assert_eq!(changed(14, gate(0xffff_ffff_c020_0000, 0, 0)), [elsewhere]);
    assert_eq!(changed(14, gate(DEBUG, 0, 0)), [elsewhere]);
    let stub = Wrong::Gate(READ_ONLY_IDT, 0x30, Fault::Handler);
    assert_eq!(changed(0x30, gate(INTERRUPTS, 0, 0)), [stub]);
}

#[test]
fn a_gate_that_user_mode_may_raise_or_that_takes_another_stack_is_found() {
    let opened = Wrong::Gate(READ_ONLY_IDT, 14, Fault::Ring);
    assert_eq!(changed(14, gate(PAGE_FAULT, 3, 0)), [opened]);
    assert_eq!(changed(1, gate(DEBUG, 0, 0)), [Wrong::Gate(READ_ONLY_IDT, 1, Fault::Form)]);
    assert_eq!(changed(14, [0; SIZE]), [Wrong::Gate(READ_ONLY_IDT, 14, Fault::Handler)]);
}

#[test]
fn int_80_may_be_switched_off_but_not_lead_elsewhere() {
    let stub = gate(INTERRUPTS + 16 * (0x80 - 0x20), 0, 0);
    assert_eq!(changed(0x80, stub), []);
    assert_eq!(
        changed(0x80, gate(PAGE_FAULT, 3, 0)),
        [Wrong::Gate(READ_ONLY_IDT, 0x80, Fault::Handler)]
    );
}

#[test]
fn an_alias_that_is_other_memory_is_found() {
    let mut table = sound();
    table[9] = gate(0xffff_ffff_c020_0000, 0, 0);
    let found = wrong(&table, &sound());
    assert!(found.contains(&Wrong::Alias(9 * SIZE)), "{found:?}");
    assert!(found.contains(&Wrong::Gate(READ_ONLY_IDT, 9, Fault::Handler)), "{found:?}");
}
