// SPDX-License-Identifier: Apache-2.0
use super::{BASE, World};
use crate::{AccessError, Object};

const LIST: u64 = 8;
const HASH: u64 = 24;
const TREE: u64 = 40;
const LATCH: u64 = 64;

fn item(number: u64) -> u64 {
    BASE + 0x1000 + 0x200 * number
}

/// Links nodes into a ring that begins and ends at `head`.
fn ring(world: &mut World, head: u64, nodes: &[u64]) {
    let mut at = head;
    for node in nodes.iter().chain([&head]) {
        world.memory.write_u64(at, *node);
        world.memory.write_u64(node + 8, at);
        at = *node;
    }
}

fn addresses<'a>(
    objects: impl IntoIterator<Item = Result<Object<'a>, AccessError>>,
) -> Result<Vec<u64>, AccessError> {
    objects.into_iter().map(|object| object.map(|object| object.address())).collect()
}

#[test]
fn a_list_gives_its_objects_in_order() {
    let mut world = World::new();
    ring(&mut world, BASE, &[item(3) + LIST, item(1) + LIST]);
    let found = addresses(world.kernel().list(BASE, "item", "list")).unwrap();
    assert_eq!(found, [item(3), item(1)]);
    ring(&mut world, BASE, &[]);
    assert_eq!(addresses(world.kernel().list(BASE, "item", "list")).unwrap(), []);
}

#[test]
fn a_list_that_never_comes_back_ends_with_an_error() {
    let mut world = World::new();
    let nodes: Vec<u64> = (0..100).map(|number| item(number) + LIST).collect();
    ring(&mut world, BASE, &nodes);
    // The last one leads to the tenth instead of the head.
    world.memory.write_u64(nodes[99], nodes[10]);
    let found: Vec<_> = world.kernel().list(BASE, "item", "list").collect();
    assert!(found.len() >= 100 && found.len() < 400, "{}", found.len());
    let error = found.last().unwrap().as_ref().unwrap_err().to_string();
    assert!(error.contains("circle"), "{error}");
    // Into itself.
    world.memory.write_u64(nodes[0], nodes[0]);
    assert!(world.kernel().list(BASE, "item", "list").count() < 5);
}

#[test]
fn a_list_that_leaves_the_kernel_ends_with_an_error() {
    let mut world = World::new();
    ring(&mut world, BASE, &[item(0) + LIST]);
    world.memory.write_u64(item(0) + LIST, 0x1234);
    let found: Vec<_> = world.kernel().list(BASE, "item", "list").collect();
    assert_eq!(found.len(), 2);
    assert!(matches!(found[1], Err(AccessError::Inconsistent { at, .. }) if at == item(0) + LIST));
    // An address of the kernel at which nothing is.
    world.memory.write_u64(item(0) + LIST, BASE + 0x100_0000);
    let last = world.kernel().list(BASE, "item", "list").last().unwrap();
    assert!(matches!(last, Err(AccessError::Unreadable { .. })));
}

#[test]
fn a_walk_by_an_unknown_type_or_field_is_one_error() {
    let world = World::new();
    let kernel = world.kernel();
    let no_type: Vec<_> = kernel.list(BASE, "nothing", "list").collect();
    assert_eq!(no_type, [Err(AccessError::NoType("nothing".to_owned()))]);
    let no_field: Vec<_> = kernel.hlist(BASE, "item", "nothing").collect();
    assert!(matches!(no_field[..], [Err(AccessError::NoField { .. })]));
    let no_chain: Vec<_> = kernel.chain(BASE, "item", "nothing").collect();
    assert!(matches!(no_chain[..], [Err(AccessError::NoField { .. })]));
}

#[test]
fn hash_lists_end_at_null_or_at_an_odd_value() {
    let mut world = World::new();
    for end in [0, 0x77] {
        world.memory.write_u64(BASE, item(5) + HASH);
        world.memory.write_u64(item(5) + HASH, item(2) + HASH);
        world.memory.write_u64(item(2) + HASH, end);
        let found = addresses(world.kernel().hlist(BASE, "item", "hash")).unwrap();
        assert_eq!(found, [item(5), item(2)]);
    }
}

#[test]
fn a_chain_is_followed_by_its_own_pointer() {
    let mut world = World::new();
    world.memory.write_u64(BASE, item(1));
    world.memory.write_u64(item(1) + 152, item(4));
    world.memory.write_u64(item(4) + 152, 0);
    let found = addresses(world.kernel().chain(BASE, "item", "next_item")).unwrap();
    assert_eq!(found, [item(1), item(4)]);
    world.memory.write_u64(item(4) + 152, item(1));
    let error = addresses(world.kernel().chain(BASE, "item", "next_item")).unwrap_err();
    assert!(error.to_string().contains("circle"));
}

const HEAD: u64 = BASE + 8;

fn xa_node(world: &mut World, number: u64, shift: u8, slots: &[(u64, u64)]) -> u64 {
    let node = BASE + 0x2_0000 + 0x400 * number;
    world.memory.write(node, &[0; 576]);
    world.memory.write(node, &[shift]);
    for (slot, entry) in slots {
        world.memory.write_u64(node + 64 + 8 * slot, *entry);
    }
    node + 2
}

#[test]
fn an_xarray_gives_index_and_entry() {
    let mut world = World::new();
    world.memory.write_u64(HEAD, 0);
    assert_eq!(world.kernel().xarray(BASE).unwrap(), []);
    // One entry at index 0 is in the head itself.
    world.memory.write_u64(HEAD, item(0));
    assert_eq!(world.kernel().xarray(BASE).unwrap(), [(0, item(0))]);
    // Zero (0x406) and retry (0x402) entries and siblings are no entries; numbers are.
    let low = xa_node(
        &mut world,
        0,
        0,
        &[(0, item(1)), (1, 0x406), (2, 0x402), (3, 0x0e), (63, (9 << 1) | 1)],
    );
    let high = xa_node(&mut world, 1, 0, &[(5, item(2))]);
    let top = xa_node(&mut world, 2, 6, &[(0, low), (2, item(7)), (40, high)]);
    world.memory.write_u64(HEAD, top);
    let expected = [(0, item(1)), (63, 19), (128, item(7)), (40 * 64 + 5, item(2))];
    assert_eq!(world.kernel().xarray(BASE).unwrap(), expected);
}

#[test]
fn an_idr_counts_from_its_base() {
    let mut world = World::new();
    let node = xa_node(&mut world, 0, 0, &[(0, item(1)), (4, item(2))]);
    world.memory.write_u64(HEAD, node);
    world.memory.write_u32(BASE + 16, 1);
    assert_eq!(world.kernel().idr(BASE).unwrap(), [(1, item(1)), (5, item(2))]);
}

#[test]
fn an_xarray_that_refers_to_itself_ends_with_an_error() {
    let mut world = World::new();
    let node = xa_node(&mut world, 0, 6, &[]);
    xa_node(&mut world, 0, 6, &[(0, node)]);
    world.memory.write_u64(HEAD, node);
    let error = world.kernel().xarray(BASE).unwrap_err().to_string();
    assert!(error.contains("shift"), "{error}");
    xa_node(&mut world, 0, 0, &[(0, node)]);
    assert!(matches!(world.kernel().xarray(BASE), Err(AccessError::Inconsistent { .. })));
    world.memory.write_u64(HEAD, 0x10_0002);
    assert!(matches!(world.kernel().xarray(BASE), Err(AccessError::Inconsistent { .. })));
    // Each node of eleven levels refers 64 times to the next: 64^11 paths.
    for level in 0..11 {
        let below = BASE + 0x2_0000 + 0x400 * (level + 1) + 2;
        let slots: Vec<(u64, u64)> = (0..64).map(|slot| (slot, below)).collect();
        xa_node(&mut world, level, 60 - 6 * level as u8, &slots);
    }
    world.memory.write_u64(HEAD, node);
    let error = world.kernel().xarray(BASE).unwrap_err();
    assert!(matches!(error, AccessError::Inconsistent { .. }), "{error}");
}

/// Writes the children of a node of a red-black tree.
fn tree_node(world: &mut World, node: u64, left: u64, right: u64) {
    world.memory.write_u64(node, 1);
    world.memory.write_u64(node + 8, right);
    world.memory.write_u64(node + 16, left);
}

#[test]
fn a_red_black_tree_is_walked_in_order() {
    let mut world = World::new();
    world.memory.write_u64(BASE, item(3) + TREE);
    tree_node(&mut world, item(3) + TREE, item(1) + TREE, item(4) + TREE);
    tree_node(&mut world, item(1) + TREE, 0, item(2) + TREE);
    tree_node(&mut world, item(2) + TREE, 0, 0);
    tree_node(&mut world, item(4) + TREE, 0, 0);
    let found = world.kernel().rbtree(BASE, "item", "tree").unwrap();
    let found: Vec<u64> = found.iter().map(Object::address).collect();
    assert_eq!(found, [item(1), item(2), item(3), item(4)]);
    // Its left child is its parent: no tree is that high.
    tree_node(&mut world, item(1) + TREE, item(3) + TREE, 0);
    assert!(matches!(
        world.kernel().rbtree(BASE, "item", "tree"),
        Err(AccessError::Inconsistent { .. })
    ));
}

#[test]
fn a_tree_of_which_both_sides_are_one_node_ends_with_an_error() {
    let mut world = World::new();
    world.memory.write_u64(BASE, item(0) + TREE);
    for level in 0..100 {
        let below = item(level + 1) + TREE;
        tree_node(&mut world, item(level) + TREE, below, below);
    }
    tree_node(&mut world, item(100) + TREE, 0, 0);
    let error = world.kernel().rbtree(BASE, "item", "tree").unwrap_err();
    assert!(error.to_string().contains("4,194,304"), "{error}");
}

#[test]
fn of_a_latched_tree_the_side_for_readers_is_read() {
    let mut world = World::new();
    for side in 0..2 {
        let node = item(side) + LATCH + 24 * side;
        world.memory.write_u64(BASE + 8 + 8 * side, node);
        tree_node(&mut world, node, 0, 0);
    }
    for (sequence, expected) in [(4, item(0)), (5, item(1))] {
        world.memory.write_u32(BASE, sequence);
        let found = world.kernel().latch_tree(BASE, "item", "latch").unwrap();
        assert_eq!(found.iter().map(Object::address).collect::<Vec<_>>(), [expected]);
    }
}
