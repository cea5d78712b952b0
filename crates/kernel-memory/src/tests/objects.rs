// SPDX-License-Identifier: Apache-2.0
use super::{BASE, World};
use crate::AccessError;

/// An item at `BASE` with something in each field, and one at `BASE + 0x400` that it points to.
fn world() -> World {
    let mut world = World::new();
    let memory = &mut world.memory;
    memory.write_u32(BASE, 0xffff_fff0);
    memory.write_u32(BASE + 4, -5_i32 as u32);
    memory.write(BASE + 112, b"sixteen letters!");
    memory.write_u64(BASE + 128, BASE + 0x1ffd);
    memory.write_u32(BASE + 136, 3);
    memory.write_u32(BASE + 140, -1_i32 as u32);
    // low 0b101, middle -2 in 30 bits, rest 0x7fff_fffe.
    let bits = 0b101 | (0x3fff_fffe << 3) | (0x7fff_fffe << 33);
    memory.write_u64(BASE + 144, bits);
    memory.write_u64(BASE + 152, BASE + 0x400);
    for number in 0..4 {
        memory.write_u32(BASE + 160 + 4 * u64::from(number), 10 * number);
    }
    memory.write_u32(BASE + 0x400, 77);
    // A string that ends at the end of the last readable page.
    memory.write(BASE + 0x1ffd, b"ab\0");
    world
}

#[test]
fn integers_of_each_width_and_sign_are_read() {
    let world = world();
    let item = world.object("item", BASE);
    assert_eq!(item.u64("id").unwrap(), 0xffff_fff0);
    assert_eq!(item.i64("id").unwrap(), 0xffff_fff0);
    assert_eq!(item.u32("value").unwrap(), 0xffff_fffb);
    assert_eq!(item.i64("value").unwrap(), -5);
    assert_eq!(item.i64("colour").unwrap(), -1);
    assert_eq!(item.u64("whole").unwrap(), BASE + 0x400);
    assert_eq!(item.u64("next_item").unwrap(), BASE + 0x400);
    assert_eq!(item.u32("numbers[3]").unwrap(), 30);
    assert_eq!(item.element("numbers", 2).unwrap().u32("").unwrap(), 20);
    assert_eq!(item.count("numbers").unwrap(), 4);
    assert!(item.bool("id").unwrap());
}

#[test]
fn bit_fields_are_read_with_their_sign() {
    let world = world();
    let item = world.object("item", BASE);
    assert_eq!(item.u64("bits.low").unwrap(), 5);
    assert_eq!(item.i64("bits.middle").unwrap(), -2);
    assert_eq!(item.u64("bits.middle").unwrap(), 0x3fff_fffe);
    assert_eq!(item.u64("bits.rest").unwrap(), 0x7fff_fffe);
}

#[test]
fn a_structure_around_one_value_counts_as_the_value() {
    let world = world();
    let item = world.object("item", BASE);
    assert_eq!(item.u32("usage").unwrap(), 3);
    assert_eq!(item.u32("usage.refs.counter").unwrap(), 3);
}

#[test]
fn pointers_lead_to_objects_of_the_declared_type() {
    let world = world();
    let item = world.object("item", BASE);
    let next = item.pointer("next_item").unwrap().unwrap();
    assert_eq!((next.address(), next.type_name()), (BASE + 0x400, "struct item".to_owned()));
    assert_eq!(item.u32("next_item->id").unwrap(), 77);
    assert_eq!(next.pointer("next_item").unwrap(), None);
    let error = item.u32("next_item->next_item->id").unwrap_err();
    assert!(matches!(error, AccessError::Null { .. }), "{error}");
    assert_eq!(item.field("list").unwrap().container_of("item", "list").unwrap(), item);
}

#[test]
fn strings_end_at_their_nul_or_at_the_end_of_their_array() {
    let world = world();
    let item = world.object("item", BASE);
    assert_eq!(item.string("name").unwrap(), "sixteen letters!");
    // Nothing is readable behind it: a read past the NUL would fail.
    assert_eq!(item.string("text").unwrap(), "ab");
    let next = item.pointer("next_item").unwrap().unwrap();
    assert_eq!(next.string("text").unwrap(), "");
    assert!(matches!(item.string("id"), Err(AccessError::NotA { .. })));
}

#[test]
fn errors_name_type_field_and_address() {
    let world = world();
    let item = world.object("item", BASE);
    let text = |error: AccessError| error.to_string();
    assert_eq!(
        text(item.u64("nothing").unwrap_err()),
        "struct item has no field nothing in this kernel's BTF"
    );
    assert_eq!(
        text(item.u64("list").unwrap_err()),
        "struct item.list at 0xffff888000100008 is not an integer of at most 64 bits"
    );
    assert_eq!(
        text(item.u16("id").unwrap_err()),
        "struct item.id at 0xffff888000100000 is 0xfffffff0, which does not fit 16 bits"
    );
    assert_eq!(
        text(world.object("item", BASE + 0x10_0000).u64("id").unwrap_err()),
        "cannot read struct item.id at 0xffff888000200000: kernel address 0xffff888000200000 is \
         not readable through made-up memory"
    );
    let error = text(world.object("item", BASE + 0x10_0000).string("name").unwrap_err());
    assert!(error.starts_with("cannot read struct item.name at 0xffff888000200070"), "{error}");
    assert_eq!(
        text(world.kernel().symbol("init_task").unwrap_err()),
        "the kernel's symbol table has no init_task"
    );
    assert_eq!(
        text(world.kernel().object("task_struct", 0).unwrap_err()),
        "the kernel's BTF has no type task_struct"
    );
    assert_eq!(
        text(world.kernel().enumerator("BLUE").unwrap_err()),
        "the kernel's BTF has no enumerator BLUE"
    );
}

#[test]
fn fields_are_known_without_reading() {
    let world = world();
    let item = world.object("item", 0);
    assert!(item.has("list.prev") && !item.has("list.last"));
    assert_eq!(item.offset_of("list.prev").unwrap(), 16);
    assert_eq!(item.size().unwrap(), 256);
    assert_eq!(world.kernel().size_of("xa_node").unwrap(), 576);
    assert_eq!(world.kernel().enumerator("GREEN").unwrap(), 7);
}

#[test]
fn a_per_cpu_variable_is_found_by_its_cpus_offset() {
    let mut world = World::new();
    world.memory.write_u64(BASE + 0x800 + 8, 0x5000);
    assert_eq!(world.kernel().per_cpu(0x100, 1).unwrap(), 0x5100);
}
