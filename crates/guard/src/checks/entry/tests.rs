// SPDX-License-Identifier: Apache-2.0
use kernel_image::Symbols;
use kernel_image::btf::{Btf, Builder};
use kernel_memory::FakeMemory;

use super::*;

const TEXT: u64 = 0xffff_ffff_8100_0000;
const CALL: u64 = TEXT + 0x100;
const OTHER: u64 = TEXT + 0x200;
const TABLE: u64 = 0xffff_ffff_8200_0000;

fn symbols() -> Symbols {
    Symbols::from_iter([
        (CALL, b'T', "__do_sys_getpid"),
        (CALL, b'T', "__x64_sys_getpid"),
        (OTHER, b'T', "commit_creds"),
        (TEXT + 0x300, b'T', "__x86_return_thunk"),
        (TABLE, b'D', "sys_call_table"),
        (TABLE + 32, b'D', "behind"),
    ])
}

fn with_table<T>(entries: [u64; 4], look: impl FnOnce(&Kernel<'_>, &Targets) -> T) -> T {
    let mut memory = FakeMemory::new();
    for (entry, at) in entries.iter().zip((TABLE..).step_by(8)) {
        memory.write_u64(at, *entry);
    }
    let (symbols, types) = (symbols(), Btf::parse(&Builder::new().finish()).unwrap());
    let kernel = Kernel { memory: &memory, symbols: &symbols, types: &types };
    look(&kernel, &Targets::gather(&kernel, (TEXT, TEXT + 0x1000)))
}

fn strays(entries: [u64; 4]) -> Vec<Wrong> {
    with_table(entries, |kernel, targets| {
        pointers(kernel, targets, bounds(kernel, TABLES[0]).unwrap()).unwrap()
    })
}

#[test]
fn a_pointer_of_a_table_must_lead_to_a_system_call() {
    assert_eq!(strays([CALL, CALL, 0, 0]), []);
    assert_eq!(strays([CALL, OTHER, CALL, 0]), [Wrong::Pointer(TABLE + 8, OTHER)]);
    let module = 0xffff_ffff_c020_0000;
    assert_eq!(strays([CALL, CALL, CALL, module]), [Wrong::Pointer(TABLE + 24, module)]);
    assert_eq!(strays([CALL, 0, CALL, CALL]), [Wrong::Pointer(TABLE + 8, 0)]);
}

#[test]
fn branches_of_code_are_seen_with_where_they_lead() {
    // cmp edi, 39; je +0x10; call +0x20; jmp rax; ret
    let code = [0x83, 0xff, 39, 0x74, 0x10, 0xe8, 0x20, 0, 0, 0, 0xff, 0xe0, 0xc3];
    let found = dispatch::branches(&code, TEXT);
    assert_eq!(found, [(TEXT + 3, TEXT + 0x15), (TEXT + 5, TEXT + 0x2a)]);
}

#[test]
fn only_what_is_named_so_within_the_text_is_a_system_call() {
    with_table([0; 4], |_, targets| {
        assert!(targets.is_call(CALL) && !targets.is_call(OTHER) && !targets.is_call(TABLE));
    });
}

#[test]
fn with_call_depth_tracking_a_call_may_lead_to_the_code_that_counts_it() {
    with_table([CALL; 4], |kernel, _| {
        let targets = |padding| Targets::with_padding(kernel, (TEXT, TEXT + 0x1000), padding);
        assert!(targets(9).allow(CALL) && targets(9).allow(CALL - 9));
        assert!(!targets(9).allow(CALL - 8) && !targets(0).allow(CALL - 9));
    });
}
