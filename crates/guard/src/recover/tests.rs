// SPDX-License-Identifier: Apache-2.0
use kernel_image::Symbols;
use kernel_image::btf::{Btf, Builder};
use kernel_memory::FakeMemory;

use super::*;

const TEXT: u64 = 0xffff_ffff_8100_0000;
const DATA: u64 = 0xffff_ffff_8300_0000;
/// Where entries of id tables stand.
const HEAP: u64 = 0xffff_8880_0010_0000;

fn types() -> Btf {
    let mut types = Builder::new();
    let word = types.int("unsigned int", 4, false);
    let long = types.int("unsigned long", 8, false);
    let pointer = types.pointer(long);
    let lock = types.structure("spinlock", 4, &[("value", word, 0)]);
    let xarray = types.structure(
        "xarray",
        16,
        &[("xa_lock", lock, 0), ("xa_flags", word, 32), ("xa_head", pointer, 64)],
    );
    types.structure(
        "idr",
        24,
        &[("idr_rt", xarray, 0), ("idr_base", word, 128), ("idr_next", word, 160)],
    );
    types.structure("bpf_map", 64, &[("id", word, 32)]);
    Btf::parse(&types.finish()).unwrap()
}

/// A kernel with one function, whose body is `code`.
fn symbols(code: &[u8]) -> Symbols {
    Symbols::from_iter([
        (TEXT, b'T', "_stext"),
        (TEXT, b'T', "bpf_map_get_curr_or_next"),
        (TEXT + code.len() as u64, b'T', "next_function"),
        (TEXT + 0x1000, b'T', "_etext"),
    ])
}

/// An id table at `at` whose only entry, number 0, is a map that says it has number `id`.
fn table(memory: &mut FakeMemory, at: u64, id: u32) {
    let map = HEAP + (at & 0xffff) * 16;
    memory.write_u32(at + 4, 0x200_0004);
    memory.write_u64(at + 8, map);
    memory.write_u32(map + 4, id);
}

/// `mov rdi, imm32` for each address, as the kernel's code model encodes it.
fn moves(addresses: &[u64]) -> Vec<u8> {
    let mut code = Vec::new();
    for address in addresses {
        code.extend([0x48, 0xc7, 0xc7]);
        code.extend((*address as u32).to_le_bytes());
    }
    code.push(0xc3);
    code
}

fn find(memory: &mut FakeMemory, code: &[u8]) -> Result<Located, Missing> {
    memory.write(TEXT, code);
    let (symbols, types) = (symbols(code), types());
    data_symbol(&Kernel { memory, symbols: &symbols, types: &types }, "map_idr")
}

#[test]
fn the_table_is_chosen_by_what_stands_there_wherever_the_code_names_it() {
    for order in [[0x100, 0x200, 0x300], [0x300, 0x200, 0x100], [0x200, 0x300, 0x100]] {
        let mut memory = FakeMemory::new();
        // A lock, the table, and an array of something that is no table.
        memory.write_u64(DATA + 0x100, 0);
        table(&mut memory, DATA + 0x200, 0);
        memory.write_u64(DATA + 0x300, 0x1234_5678_9abc_def0);
        let found = find(&mut memory, &moves(&order.map(|offset| DATA + offset))).unwrap();
        assert_eq!(found.address, DATA + 0x200);
        let How::FromCode { function, .. } = found.how else { panic!("{found:?}") };
        assert_eq!(function, "bpf_map_get_curr_or_next");
    }
}

#[test]
fn an_address_relative_to_the_instruction_is_as_good() {
    let mut memory = FakeMemory::new();
    table(&mut memory, DATA + 0x200, 0);
    // lea rdi, [rip + distance]
    let mut code = vec![0x48, 0x8d, 0x3d];
    code.extend(((DATA + 0x200 - (TEXT + 7)) as u32).to_le_bytes());
    assert_eq!(find(&mut memory, &code).unwrap().address, DATA + 0x200);
}

#[test]
fn a_table_with_wrong_entries_is_not_taken() {
    let mut memory = FakeMemory::new();
    table(&mut memory, DATA + 0x200, 77);
    let missing = find(&mut memory, &moves(&[DATA + 0x200])).unwrap_err();
    assert!(missing.0.contains("no address in the code of"), "{missing:?}");
}

#[test]
fn content_wins_over_an_empty_table_and_a_tie_is_an_error() {
    let mut memory = FakeMemory::new();
    memory.write_u32(DATA + 0x100 + 4, 0x200_0004);
    memory.write_u32(DATA + 0x180 + 4, 0x200_0004);
    let empty = [DATA + 0x100, DATA + 0x180];
    let missing = find(&mut memory, &moves(&empty)).unwrap_err();
    assert!(missing.0.contains("both"), "{missing:?}");
    table(&mut memory, DATA + 0x200, 0);
    let found = find(&mut memory, &moves(&[empty[0], DATA + 0x200, empty[1]])).unwrap();
    assert_eq!(found.address, DATA + 0x200);
}

#[test]
fn the_symbol_table_comes_first() {
    let symbols = Symbols::from_iter([(DATA, b'd', "map_idr")]);
    let (memory, types) = (FakeMemory::new(), types());
    let kernel = Kernel { memory: &memory, symbols: &symbols, types: &types };
    let located = data_symbol(&kernel, "map_idr").unwrap();
    assert_eq!(located, Located { address: DATA, how: How::FromSymbols });
}

#[test]
fn of_several_with_the_name_the_one_is_taken_that_passes_for_it_wherever_it_stands() {
    for (other, ours) in [(DATA, DATA + 0x200), (DATA + 0x200, DATA)] {
        let symbols = Symbols::from_iter([(other, b'd', "map_idr"), (ours, b'd', "map_idr")]);
        let (mut memory, types) = (FakeMemory::new(), types());
        memory.write_u64(other, 0x1234_5678_9abc_def0);
        table(&mut memory, ours, 0);
        let kernel = Kernel { memory: &memory, symbols: &symbols, types: &types };
        let located = data_symbol(&kernel, "map_idr").unwrap();
        assert_eq!(located, Located { address: ours, how: How::FromSymbols });
    }
}

#[test]
fn a_kernel_without_the_functions_is_told_what_it_lacks() {
    let symbols = Symbols::from_iter([(TEXT, b'T', "_stext")]);
    let (memory, types) = (FakeMemory::new(), types());
    let kernel = Kernel { memory: &memory, symbols: &symbols, types: &types };
    let missing = data_symbol(&kernel, "kprobe_table").unwrap_err();
    assert!(missing.0.contains("CONFIG_KPROBES"), "{missing:?}");
    let missing = data_symbol(&kernel, "something_else").unwrap_err();
    assert!(missing.0.contains("CONFIG_KALLSYMS_ALL"), "{missing:?}");
}

#[test]
fn a_find_is_remembered_and_a_failure_is_not() {
    let mut memory = FakeMemory::new();
    let code = moves(&[DATA + 0x200]);
    memory.write(TEXT, &code);
    let (symbols, types) = (symbols(&code), types());
    let mut recovered = Recovered::default();
    let kernel = Kernel { memory: &memory, symbols: &symbols, types: &types };
    assert!(recovered.data_symbol(&kernel, "map_idr").is_err());
    table(&mut memory, DATA + 0x200, 0);
    let kernel = Kernel { memory: &memory, symbols: &symbols, types: &types };
    assert!(recovered.data_symbol(&kernel, "map_idr").is_ok());
    let nothing = FakeMemory::new();
    let kernel = Kernel { memory: &nothing, symbols: &symbols, types: &types };
    assert!(recovered.data_symbol(&kernel, "map_idr").is_ok());
}
