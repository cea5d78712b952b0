// SPDX-License-Identifier: Apache-2.0

use super::{bytes, code, dialects, machine};
use crate::patching::instruction::branch;
use crate::patching::{
    Dialect, Machine, Return, paravirt, returns, runtime_constants, seals, smp_locks,
};
use crate::tables::{ParavirtSite, RuntimeConstantKind};

/// `patch_return` and `cpu_wants_rethunk_at`.
#[test]
fn returns_are_plain_or_go_to_the_thunk_of_the_machine() {
    let (thunk, own) = (0x8000, 0x9000);
    let plain = [0xc3, 0xcc, 0xcc, 0xcc, 0xcc];
    let cases = [
        (0x1000, Return::Plain, plain),
        (0x1000, Return::Thunk(own), branch(0xe9, 0x1000, own)),
        (0x1000, Return::LowerHalf(own), branch(0xe9, 0x1000, own)),
        (0x101f, Return::LowerHalf(own), branch(0xe9, 0x101f, own)),
        (0x1020, Return::LowerHalf(own), plain),
    ];
    for (address, returns, expected) in cases {
        let machine = Machine { returns, return_thunk: thunk, ..Machine::default() };
        let mut code = code(address, &branch(0xe9, address, thunk));
        assert_eq!(returns::apply(&mut code, [address], &machine).places, 0);
        assert_eq!(bytes(&code, address, 5), expected, "{returns:?}");
        // What is no jump to the compiler's thunk is left.
        assert_eq!(returns::apply(&mut code, [address], &machine).places, 1);
        assert_eq!(bytes(&code, address, 5), expected);
    }
}

#[test]
fn an_endbr_is_sealed_as_the_kernel_seals() {
    for dialect in dialects() {
        let machine = machine(dialect);
        let mut code = code(0x1000, &[0xf3, 0x0f, 0x1e, 0xfa]);
        assert_eq!(seals::apply(&mut code, [0x1000], &machine).places, 0);
        assert_eq!(bytes(&code, 0x1000, 4), dialect.seal);
        assert_eq!(seals::apply(&mut code, [0x1000], &machine).places, 1);
    }
}

#[test]
fn locks_go_on_a_single_cpu_only() {
    let mut machine = Machine::default();
    let mut code = code(0x1000, &[0xf0, 0x0f, 0xb1]);
    let _ = smp_locks::apply(&mut code, [0x1000], &machine);
    assert_eq!(bytes(&code, 0x1000, 1), [0xf0]);
    machine.one_cpu = true;
    let _ = smp_locks::apply(&mut code, [0x1000], &machine);
    assert_eq!(bytes(&code, 0x1000, 3), [0x3e, 0x0f, 0xb1]);
}

/// `paravirt_patch` and `apply_paravirt`, 6.1.
#[test]
fn a_paravirt_call_becomes_direct_or_nothing() {
    let site = ParavirtSite { address: 0x1000, operation: 3, length: 7 };
    let patched = |target: u64| {
        let mut machine = machine(Dialect::default());
        (machine.pv_ops, machine.bug_function, machine.nop_function) = (0x7000, 0xb000, 0xc000);
        machine.pointers.insert(0x7000 + 24, target);
        let mut code = code(0x1000, &[0xff, 0x14, 0x25, 0, 0, 0, 0]);
        assert_eq!(paravirt::apply(&mut code, &[site], &machine).places, 0);
        bytes(&code, 0x1000, 7)
    };
    let call = |to| [&branch(0xe8, 0x1000, to)[..], &[0x66, 0x90]].concat();
    assert_eq!(patched(0xa000), call(0xa000));
    assert_eq!(patched(0), call(0xb000));
    assert_eq!(patched(0xc000), [0x0f, 0x1f, 0x80, 0, 0, 0, 0]);
}

#[test]
fn a_run_time_constant_has_the_width_of_its_kind() {
    let cases = [
        (RuntimeConstantKind::Pointer, &[8, 7, 6, 5, 4, 3, 2, 1][..]),
        (RuntimeConstantKind::Mask, &[8, 7, 6, 5, 0, 0, 0, 0]),
        (RuntimeConstantKind::Shift, &[8, 0, 0, 0, 0, 0, 0, 0]),
    ];
    for (kind, expected) in cases {
        let mut code = code(0x1000, &[0; 8]);
        let value = 0x0102_0304_0506_0708;
        assert_eq!(runtime_constants::apply(&mut code, &[0x1000], kind, value).places, 0);
        assert_eq!(bytes(&code, 0x1000, 8), expected);
    }
}
