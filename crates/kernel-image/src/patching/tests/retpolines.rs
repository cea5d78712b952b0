// SPDX-License-Identifier: Apache-2.0

use super::{bytes, code, dialects, machine};
use crate::patching::{CallDepth, Dialect, ItsPages, Machine, Retpoline, its, retpolines};

const THUNKS: u64 = 0x8000;

/// An instruction of these bytes before its distance, to the thunk of a register.
fn through(address: u64, opcode: &[u8], register: u64) -> Vec<u8> {
    let next = address + opcode.len() as u64 + 4;
    let distance = (THUNKS + 32 * register).wrapping_sub(next) as u32;
    [opcode, &distance.to_le_bytes()].concat()
}

fn patched(address: u64, site: &[u8], machine: &Machine) -> Vec<u8> {
    let mut code = code(address, &[site, &[0xc3]].concat());
    let skipped = retpolines::apply(&mut code, [address], machine, &mut ItsPages::default());
    assert_eq!(skipped.places, 0);
    bytes(&code, address, site.len())
}

fn of(dialect: Dialect, retpoline: Retpoline) -> Machine {
    Machine { retpoline, indirect_thunks: THUNKS, ..machine(dialect) }
}

/// `patch_retpoline` and `emit_indirect`, 6.1 and 6.12 (nops), 7.3 (prefixes and int3s).
#[test]
fn calls_and_jumps_go_through_the_register() {
    let [old, middle, new] = dialects().map(|dialect| of(dialect, Retpoline::Inline));
    let call = through(0x1000, &[0xe8], 0);
    assert_eq!(patched(0x1000, &call, &old), [0xff, 0xd0, 0x0f, 0x1f, 0x00]);
    assert_eq!(patched(0x1000, &call, &middle), [0xff, 0xd0, 0x0f, 0x1f, 0x00]);
    assert_eq!(patched(0x1000, &call, &new), [0x2e, 0x2e, 0x2e, 0xff, 0xd0]);
    let jump = through(0x1000, &[0x2e, 0xe9], 11);
    assert_eq!(patched(0x1000, &jump, &middle), [0x41, 0xff, 0xe3, 0xcc, 0x66, 0x90]);
    assert_eq!(patched(0x1000, &jump, &new), [0x41, 0xff, 0xe3, 0xcc, 0xcc, 0xcc]);
    // jne to the thunk of %r11: je over the rest, jmp *%r11, int3.
    let branch = through(0x1000, &[0x0f, 0x85], 11);
    for machine in [&old, &middle, &new] {
        assert_eq!(patched(0x1000, &branch, machine), [0x74, 4, 0x41, 0xff, 0xe3, 0xcc]);
    }
}

/// spectre_v2=retpoline,lfence.
#[test]
fn lfence_comes_first_where_there_is_room() {
    for machine in dialects().map(|dialect| of(dialect, Retpoline::Lfence)) {
        let call = through(0x1000, &[0xe8], 3);
        assert_eq!(patched(0x1000, &call, &machine), [0x0f, 0xae, 0xe8, 0xff, 0xd3]);
        let long = through(0x1000, &[0x2e, 0xe8], 8);
        assert_eq!(patched(0x1000, &long, &machine), [0x0f, 0xae, 0xe8, 0x41, 0xff, 0xd0]);
    }
}

#[test]
fn a_retpoline_stays_or_goes_to_the_thunk_that_counts() {
    let call = through(0x1000, &[0xe8], 3);
    let mut machine = of(Dialect::default(), Retpoline::Thunk);
    assert_eq!(patched(0x1000, &call, &machine), call);
    let depth = CallDepth { call_thunks: THUNKS + 0x400, ..CallDepth::default() };
    machine.call_depth = Some(depth);
    let mut expected = call.clone();
    expected[2] += 4;
    assert_eq!(patched(0x1000, &call, &machine), expected);
}

/// `its_allocate_thunk`: thunks in the upper halves of cache lines, for branches in the lower.
#[test]
fn branches_in_lower_halves_get_thunks_of_their_own() {
    let mut machine = of(Dialect::default(), Retpoline::Inline);
    machine.its = true;
    let sites = [0x1000, 0x1020, 0x1040];
    let mut code = crate::patching::Pieces::new();
    for site in sites {
        code.add(site, [through(site, &[0xe8], 0), vec![0xc3; 3]].concat());
    }
    let plan = its::plan(&code, sites, &machine);
    assert_eq!(plan.len(), 2);
    assert_eq!((plan[0].site, plan[0].page, plan[0].offset), (0x1000, 0, 32));
    assert_eq!((plan[1].site, plan[1].page, plan[1].offset), (0x1040, 0, 35));
    let mut pages = ItsPages::new(vec![0x20_0000]);
    assert_eq!(retpolines::apply(&mut code, sites, &machine, &mut pages).places, 0);
    let distance = (0x20_0000_u32 + 35 - 0x1045).to_le_bytes();
    assert_eq!(bytes(&code, 0x1040, 5), [&[0xe8], &distance[..]].concat());
    assert_eq!(bytes(&code, 0x1020, 5), [0xff, 0xd0, 0x0f, 0x1f, 0x00]);
    let (address, page) = pages.pages().next().unwrap();
    assert_eq!(
        (address, &page[30..40]),
        (0x20_0000, &[0xcc, 0xcc, 0xff, 0xe0, 0xcc, 0xff, 0xe0, 0xcc, 0xcc, 0xcc][..])
    );
}
