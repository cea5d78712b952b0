// SPDX-License-Identifier: Apache-2.0
//! Each patcher on sites made by hand, held against what the kernel's source says.

mod alternatives;
mod calls;
mod nops;
mod retpolines;
mod simple;

use super::*;

/// Code of which nothing but `bytes` at `address` is known.
fn code(address: u64, bytes: &[u8]) -> Pieces {
    let mut code = Pieces::new();
    code.add(address, bytes.to_vec());
    code
}

fn bytes(code: &Pieces, address: u64, length: usize) -> Vec<u8> {
    code.read(address, length).unwrap().to_vec()
}

/// How the kernels write that were looked at: 6.1, 6.12 and 7.3.
fn dialects() -> [Dialect; 3] {
    let middle = Dialect::default();
    let old = Dialect { nops: NopStyle::Short, ..middle };
    let new = Dialect {
        wide_nops: true,
        prefixed_calls: true,
        seal: [0x0f, 0x1f, 0x40, 0xd6],
        calls_before_alternatives: true,
        ..middle
    };
    [old, middle, new]
}

fn machine(dialect: Dialect) -> Machine {
    Machine { dialect, ..Machine::default() }
}

/// With a feature.
fn with(mut machine: Machine, feature: u16) -> Machine {
    machine.capability.resize(24, 0);
    machine.capability[usize::from(feature / 32)] |= 1 << (feature % 32);
    machine
}
