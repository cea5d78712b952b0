// SPDX-License-Identifier: Apache-2.0
use kernel_image::Symbols;
use kernel_image::btf::{Btf, Builder};
use kernel_memory::{FakeMemory, Kernel};

use super::places::Place;
use super::tables::TableType;
use super::*;
use crate::baseline::pointers::Pointer;
use crate::owners::{Image, Owner, Owners};

const TEXT: u64 = 0xffff_ffff_8100_0000;
const RODATA: u64 = 0xffff_ffff_8200_0000;
const DATA: u64 = 0xffff_ffff_8300_0000;
const MODULE: u64 = 0xffff_ffff_c020_0000;
const HEAP: u64 = 0xffff_8880_0100_0000;

/// A kernel with two functions, read-only and writable data, and a module.
fn places() -> Places {
    let owner = Owner::Module("guest".to_owned());
    let image = Image { range: MODULE..MODULE + 0x1000, owner, is_data: false };
    let owners = Owners { text: TEXT..TEXT + 0x1000, images: vec![image], ..Owners::default() };
    let modules = vec![(MODULE..MODULE + 0x3000, "guest".to_owned())];
    Places::of_parts(owners, RODATA..RODATA + 0x1000, modules)
}

fn symbols() -> Symbols {
    let symbols = [(TEXT, "right"), (TEXT + 0x100, "other"), (DATA, "some_protocol")];
    Symbols::from_iter(symbols.map(|(at, name)| (at, b't', name)))
}

/// `struct proto { int size; void (*close)(void); void (*bind)(void); }`
fn types() -> Btf {
    let mut types = Builder::new();
    let int = types.int("int", 4, true);
    let prototype = types.record("", 13, 0, false, 0);
    let function = types.pointer(prototype);
    let members = [("size", int, 0), ("close", function, 64), ("bind", function, 128)];
    types.structure("proto", 24, &members);
    Btf::parse(&types.finish()).unwrap()
}

fn with_kernel<T>(memory: &FakeMemory, look: impl FnOnce(&Kernel<'_>) -> T) -> T {
    let (symbols, types) = (symbols(), types());
    look(&Kernel { memory, symbols: &symbols, types: &types })
}

#[test]
fn a_place_belongs_to_the_image_a_module_or_nobody() {
    let places = places();
    assert_eq!(places.of(RODATA + 8), Place::Pinned);
    assert_eq!(places.of(DATA), Place::Image);
    assert_eq!(places.of(MODULE + 0x2000), Place::Module("guest".to_owned()));
    assert_eq!(places.of(HEAP), Place::Nobody);
    assert_eq!(places.of(MODULE + 0x3000), Place::Nobody);
}

#[test]
fn a_table_of_the_image_leads_to_functions_of_the_image_alone() {
    let (places, memory) = (places(), FakeMemory::new());
    with_kernel(&memory, |kernel| {
        let objects = |place: &Place, target| places.objection(kernel, place, target).is_some();
        let module = Place::Module("another".to_owned());
        assert!(!objects(&Place::Image, TEXT) && !objects(&module, TEXT + 0x100));
        assert!(objects(&Place::Image, TEXT + 4) && objects(&module, TEXT + 4));
        assert!(objects(&Place::Image, MODULE) && !objects(&module, MODULE));
        assert!(objects(&Place::Image, HEAP) && objects(&module, HEAP));
        // A module's data is no code.
        assert!(objects(&module, MODULE + 0x2000));
    });
}

/// What is wrong with a `struct proto` at `table` whose `bind` leads to `bind`.
fn wrong_with(table: u64, bind: u64) -> Vec<(u64, String)> {
    let mut memory = FakeMemory::new();
    memory.write_u64(table, 0);
    memory.write_u64(table + 8, TEXT);
    memory.write_u64(table + 16, bind);
    with_kernel(&memory, |kernel| {
        let of = TableType::of(kernel, "proto").unwrap();
        let mut found = Found::default();
        of.look(kernel, &places(), &|| "protocol TCP".to_owned(), table, &mut found);
        found.wrong.into_iter().map(|(place, wrong)| (place, wrong.what)).collect()
    })
}

#[test]
fn each_function_of_a_table_in_writable_memory_is_looked_at() {
    assert_eq!(wrong_with(DATA, TEXT + 0x100), []);
    assert_eq!(wrong_with(DATA, 0), []);
    let expected = [(DATA + 16, "bind of protocol TCP (struct proto)".to_owned())];
    assert_eq!(wrong_with(DATA, MODULE + 0x10), expected);
    assert_eq!(wrong_with(DATA, HEAP), expected);
    assert_eq!(wrong_with(MODULE + 0x2000, MODULE + 0x10), []);
    // Read-only data of the image is compared as it is.
    assert_eq!(wrong_with(RODATA, HEAP), []);
}

#[test]
fn a_pointer_of_the_image_that_leads_elsewhere_is_a_hook_or_wrong() {
    let look = |seen: u64| {
        let mut memory = FakeMemory::new();
        memory.write_u64(DATA + 8, seen);
        let pointers = vec![Pointer { address: DATA + 8, target: TEXT }];
        let expected = pointers::Expected::of(pointers);
        with_kernel(&memory, |kernel| {
            let mut found = Found::default();
            pointers::look(kernel, &places(), &expected, &mut found).unwrap();
            (found.hooks.len(), found.wrong.into_keys().collect::<Vec<_>>())
        })
    };
    assert_eq!(look(TEXT), (0, vec![]));
    assert_eq!(look(0), (0, vec![]));
    assert_eq!(look(TEXT + 0x100), (1, vec![]));
    assert_eq!(look(TEXT + 0x104), (0, vec![DATA + 8]));
    assert_eq!(look(MODULE + 0x10), (0, vec![DATA + 8]));
    assert_eq!(look(HEAP), (0, vec![DATA + 8]));
}
