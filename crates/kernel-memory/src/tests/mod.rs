// SPDX-License-Identifier: Apache-2.0
//! Walks over made-up kernels: types, memory and symbols written by hand.

mod objects;
mod page_tables;
mod physical;
mod saved;
mod walks;

use kernel_image::Symbols;
use kernel_image::btf::{Btf, Builder, TypeId};

use crate::{FakeMemory, Kernel, Object};

/// Where the tests put their things.
const BASE: u64 = 0xffff_8880_0010_0000;

/// A kernel that a test makes up.
struct World {
    memory: FakeMemory,
    symbols: Symbols,
    types: Btf,
}

impl World {
    fn new() -> Self {
        let symbols = [(BASE, b'D', "head"), (BASE + 0x800, b'D', "__per_cpu_offset")];
        Self {
            memory: FakeMemory::new(),
            symbols: symbols.into_iter().collect(),
            types: Btf::parse(&types()).unwrap(),
        }
    }

    fn kernel(&self) -> Kernel<'_> {
        Kernel { memory: &self.memory, symbols: &self.symbols, types: &self.types }
    }

    fn object(&self, type_name: &str, address: u64) -> Object<'_> {
        self.kernel().object(type_name, address).unwrap()
    }
}

/// Structures as the kernel has them, and `struct item`, which is on every kind of list.
fn types() -> Vec<u8> {
    let mut types = Builder::new();
    let int = types.int("int", 4, true);
    let unsigned = types.int("unsigned int", 4, false);
    let char = types.int("char", 1, true);
    let long = types.int("long unsigned int", 8, false);
    let byte = types.int("unsigned char", 1, false);
    let void = types.pointer(TypeId::VOID);

    types.structure("list_head", 16, &[("next", void, 0), ("prev", void, 64)]);
    let list = TypeId(types.next_id().0 - 1);
    let hlist = types.structure("hlist_node", 16, &[("next", void, 0), ("pprev", void, 64)]);

    let slots = types.array(void, 64);
    types.structure(
        "xa_node",
        576,
        &[("shift", byte, 0), ("offset", byte, 8), ("slots", slots, 512)],
    );
    let xarray = types.structure(
        "xarray",
        16,
        &[("xa_lock", unsigned, 0), ("xa_flags", unsigned, 32), ("xa_head", void, 64)],
    );
    types.structure(
        "idr",
        24,
        &[("idr_rt", xarray, 0), ("idr_base", unsigned, 128), ("idr_next", unsigned, 160)],
    );

    let node = types.structure(
        "rb_node",
        24,
        &[("__rb_parent_color", long, 0), ("rb_right", void, 64), ("rb_left", void, 128)],
    );
    let root = types.structure("rb_root", 8, &[("rb_node", void, 0)]);
    let roots = types.array(root, 2);
    let sequence = types.structure("seqcount", 4, &[("sequence", unsigned, 0)]);
    types.structure("latch_tree_root", 24, &[("seq", sequence, 0), ("tree", roots, 64)]);
    let nodes = types.array(node, 2);
    let latch = types.structure("latch_tree_node", 48, &[("node", nodes, 0)]);

    let name = types.array(char, 16);
    let text = types.pointer(char);
    let counter = types.structure("atomic_t", 4, &[("counter", int, 0)]);
    let references = types.structure("refcount_t", 4, &[("refs", counter, 0)]);
    let colour = types.enumeration("colour", &[("RED", -1), ("GREEN", 7)]);
    let bits = types.bit_structure(
        "bits",
        8,
        &[("low", unsigned, 0, 3), ("middle", int, 3, 30), ("rest", unsigned, 33, 31)],
    );
    let item = types.next_id();
    let to_item = types.pointer(TypeId(item.0 + 3));
    let within = types.union("", 8, &[("next_item", to_item), ("whole", long)]);
    let numbers = types.array(unsigned, 4);
    let made = types.structure(
        "item",
        256,
        &[
            ("id", unsigned, 0),
            ("value", int, 32),
            ("list", list, 64),
            ("hash", hlist, 192),
            ("tree", node, 320),
            ("latch", latch, 512),
            ("name", name, 896),
            ("text", text, 1024),
            ("usage", references, 1088),
            ("colour", colour, 1120),
            ("bits", bits, 1152),
            ("", within, 1216),
            ("numbers", numbers, 1280),
        ],
    );
    assert_eq!(made.0, item.0 + 3);
    types.finish()
}
