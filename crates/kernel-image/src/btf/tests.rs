// SPDX-License-Identifier: Apache-2.0
use super::*;

const INT: TypeId = TypeId(1);

/// A BTF with each kind of type.
fn every_kind() -> Builder {
    let mut types = Builder::new();
    let int = types.int("int", 4, true);
    let byte = types.int("unsigned char", 1, false);
    let long = types.int("long unsigned int", 8, false);
    let pointer = types.pointer(int);
    let array = types.array(byte, 16);
    let constant = types.constant(array);
    let name = types.typedef("name_t", constant);
    let inner = types.union("", 8, &[("whole", long), ("low", int)]);
    let flexible = types.array(long, 0);
    types.structure(
        "thing",
        40,
        &[("first", int, 0), ("", inner, 64), ("name", name, 128), ("list", flexible, 320)],
    );
    types.bit_structure("flags", 4, &[("a", int, 0, 3), ("b", int, 3, 7), ("c", byte, 16, 0)]);
    types.enumeration("colour", &[("RED", -1), ("GREEN", 7)]);
    types.enumeration_64("wide", &[("HUGE", 1 << 40), ("TOP", u64::MAX)]);
    types.record("declared", 7, 0, false, 0);
    types.record("", 9, 0, false, pointer.0);
    types.record("", 11, 0, false, pointer.0);
    types.function("do_it", long, &[("what", pointer), ("count", int)]);
    types.section(".data..percpu", &[("current_one", pointer, 64, 8)]);
    types.record("double", 16, 0, false, 8);
    types.record("tag", 17, 0, false, int.0);
    types.words(&[u32::MAX]);
    types.record("rcu", 18, 0, false, int.0);
    types
}

fn parsed() -> Btf {
    Btf::parse(&every_kind().finish()).unwrap()
}

#[test]
fn every_kind_of_type_is_read() {
    let types = parsed();
    let kinds: std::collections::HashSet<Kind> =
        (0..=types.len() as u32).filter_map(|id| types.kind(TypeId(id))).collect();
    assert_eq!(kinds.len(), 20);
    assert_eq!(types.kind(TypeId(types.len() as u32 + 1)), None);
}

#[test]
fn a_member_is_found_by_name_and_through_anonymous_ones() {
    let types = parsed();
    assert_eq!(types.offset_of("thing", "first"), Some(0));
    assert_eq!(types.offset_of("thing", "low"), Some(8));
    assert_eq!(types.offset_of("struct thing", "name"), Some(16));
    assert_eq!(types.offset_of("thing", "name[3]"), Some(19));
    assert_eq!(types.offset_of("thing", "name[16]"), None);
    // A flexible array has no end.
    assert_eq!(types.offset_of("thing", "list[4]"), Some(72));
    for absent in ["", "nothing", "firs", "first.x", "first[0]", "name[x]", "name[1", "."] {
        assert_eq!(types.offset_of("thing", absent), None, "{absent:?}");
    }
    assert_eq!(types.offset_of("union thing", "first"), None);
}

#[test]
fn bit_fields_have_offset_and_width() {
    let types = parsed();
    let flags = types.find_type("flags").unwrap();
    let b = types.member(flags, "b").unwrap();
    assert_eq!((b.bit_offset, b.bit_size), (3, 7));
    let c = types.member(flags, "c").unwrap();
    assert_eq!((c.bit_offset, c.bit_size), (16, 0));
    assert_eq!(types.offset_of("flags", "b"), None);
}

#[test]
fn sizes_follow_typedefs_qualifiers_and_arrays() {
    let types = parsed();
    assert_eq!(types.size(types.find_type("name_t").unwrap()), Some(16));
    assert_eq!(types.size(types.find_type("thing").unwrap()), Some(40));
    assert_eq!(types.size(types.find(Kind::Variable, "current_one").unwrap()), Some(8));
    assert_eq!(types.size(TypeId::VOID), None);
    assert_eq!(types.size(types.find_function("do_it").unwrap()), None);
    let name = types.array(types.find_type("name_t").unwrap()).unwrap();
    assert_eq!(name.count, 16);
    assert_eq!(types.name(name.element), "unsigned char");
}

#[test]
fn enumerators_are_found_whichever_enumeration_has_them() {
    let types = parsed();
    assert_eq!(types.enumerator("RED"), Some(-1));
    assert_eq!(types.enumerator("GREEN"), Some(7));
    assert_eq!(types.enumerator("HUGE"), Some(1 << 40));
    assert_eq!(types.enumerator("TOP"), Some(-1));
    assert_eq!(types.enumerator("GREE"), None);
    let names: Vec<&str> =
        types.enumerators(types.find_enum("wide").unwrap()).map(|value| value.name).collect();
    assert_eq!(names, ["HUGE", "TOP"]);
}

#[test]
fn functions_pointers_and_sections_are_read() {
    let types = parsed();
    let function = types.find_function("do_it").unwrap();
    assert_eq!(types.name(types.return_type(function).unwrap()), "long unsigned int");
    let parameters: Vec<_> = types.parameters(function).collect();
    assert_eq!(parameters[0].name, "what");
    assert_eq!(types.pointee(parameters[0].type_id), Some(INT));
    assert_eq!(types.describe(parameters[0].type_id), "int *");
    let variables: Vec<_> = types.variables(".data..percpu").collect();
    assert_eq!((variables[0].name, variables[0].offset), ("current_one", 64));
    assert_eq!(types.variables(".data").count(), 0);
}

#[test]
fn truncation_at_each_length_is_an_error_within_the_input() {
    let bytes = every_kind().finish();
    for length in 0..bytes.len() {
        let error = Btf::parse(&bytes[..length]).unwrap_err();
        if let BtfError::Truncated { offset, .. } = error {
            assert!(offset <= bytes.len(), "{length}: {error}");
        }
    }
}

#[test]
fn errors_name_what_is_wrong_and_where() {
    let good = every_kind().finish();
    let with = |at: usize, value: u32| {
        let mut bytes = good.clone();
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        Btf::parse(&bytes).unwrap_err()
    };
    assert_eq!(with(0, 0x0001_9feb), BtfError::Magic { found: 0x9feb });
    assert_eq!(with(0, 0x0007_eb9f), BtfError::Version { found: 7 });
    assert_eq!(with(4, 8), BtfError::HeaderLength { length: 8 });
    assert_eq!(with(24, 0xffff), BtfError::Name { id: 1, offset: 24, name: 0xffff });
    assert_eq!(with(28, 21 << 24), BtfError::UnknownKind { id: 1, offset: 24, kind: 21 });
    // Type 4, the pointer, follows three integers of 16 bytes.
    let offset = 24 + 3 * 16;
    assert_eq!(with(offset + 8, 999), BtfError::Reference { id: 4, offset, target: 999 });
    // The section ends within the last record (12 bytes) and the one before it (12 and 4).
    let end = u32_at(&good, 12).unwrap();
    for (shorter, begins) in [(4, 12), (14, 28)] {
        let offset = (24 + end - begins) as usize;
        let expected = BtfError::Truncated { what: "a type record", offset };
        assert_eq!(with(12, end - shorter), expected);
    }
    let mut strings = good.clone();
    *strings.last_mut().unwrap() = b'x';
    assert!(matches!(Btf::parse(&strings), Err(BtfError::Strings { .. })));
}

#[test]
fn types_that_refer_to_themselves_do_not_hang() {
    let mut types = Builder::new();
    types.typedef("a", TypeId(2));
    types.typedef("b", TypeId(1));
    // Each holds two of the next, anonymous: a search without bounds would take 2^40 steps.
    for next in 4..44 {
        types.structure("wide", 8, &[("", TypeId(next), 0), ("", TypeId(next), 0)]);
    }
    types.structure("self", 8, &[("", TypeId(43), 0)]);
    types.array(TypeId(44), u32::MAX);
    let types = Btf::parse(&types.finish()).unwrap();
    assert_eq!(types.resolve(TypeId(1)), None);
    assert_eq!(types.size(TypeId(1)), None);
    assert_eq!(types.member(TypeId(3), "absent"), None);
    assert_eq!(types.member(TypeId(43), "absent"), None);
    assert_eq!(types.size(TypeId(44)), None);
    types.describe(TypeId(1));
}

#[test]
fn mutated_input_never_panics() {
    let good = every_kind().finish();
    let ask = |bytes: &[u8]| {
        let Ok(types) = Btf::parse(bytes) else { return };
        for id in 0..=types.len() as u32 + 1 {
            let id = TypeId(id);
            types.size(id);
            types.describe(id);
            types.members(id).for_each(drop);
            types.enumerators(id).for_each(drop);
            types.parameters(id).for_each(drop);
            types.place(id, "low[2].name");
            types.pointee(id);
        }
        types.enumerator("RED");
        types.variables(".data..percpu").for_each(drop);
    };
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << bit;
            ask(&bytes);
        }
        for value in [0, 0xff, 0x7f] {
            let mut bytes = good.clone();
            bytes[at] = value;
            ask(&bytes);
        }
    }
}

/// The BTF of the kernel that the tests run on, if it has one that may be read: no root needed.
fn live() -> Option<Vec<u8>> {
    let bytes = std::fs::read("/sys/kernel/btf/vmlinux").ok();
    if bytes.is_none() {
        eprintln!("skipped: this kernel has no readable /sys/kernel/btf/vmlinux");
    }
    bytes
}

#[test]
fn the_running_kernels_types_are_read() {
    let Some(bytes) = live() else { return };
    let types = Btf::from_vec(bytes).unwrap();
    let task = types.find_type("task_struct").unwrap();
    assert!(types.size(task).unwrap() > 1000);
    let comm = types.member(task, "comm").unwrap();
    assert_eq!(types.array(comm.type_id).unwrap().count, 16);
    assert_eq!(types.offset_of("list_head", "prev"), Some(8));
    assert_eq!(types.size(types.find_type("list_head").unwrap()), Some(16));
    let mm = types.pointee(types.member(task, "mm").unwrap().type_id).unwrap();
    assert_eq!(types.describe(mm), "struct mm_struct");
    assert_eq!(types.enumerator("BPF_PROG_TYPE_KPROBE"), Some(2));
    assert_eq!(types.enumerator("BPF_LINK_TYPE_TRACING"), Some(2));
    assert_eq!(types.enumerator("PIDTYPE_PID"), Some(0));
    assert!(types.find_function("vfs_read").is_some());
    // Every name in the index is found again by it.
    for id in 1..=types.len() as u32 {
        let id = TypeId(id);
        if types.kind(id) == Some(Kind::Struct) && !types.name(id).is_empty() {
            assert!(types.all_named(types.name(id)).any(|found| found.1 == id));
        }
    }
}

#[test]
fn the_running_kernels_types_survive_damage() {
    let Some(good) = live() else { return };
    for step in 1..40_usize {
        let mut bytes = good.clone();
        for place in 0..step {
            let at = (place * 7_919_003 + step * 104_729) % bytes.len();
            bytes[at] = bytes[at].wrapping_add(step as u8);
        }
        if let Ok(types) = Btf::from_vec(bytes) {
            let _ = types.offset_of("task_struct", "se.vruntime");
        }
    }
}

#[test]
fn reduced_types_say_the_same_of_what_was_asked_for() {
    let mut types = every_kind();
    let thing = parsed().find_type("thing").unwrap();
    let pointer = types.pointer(thing);
    let prototype = types.record("", 13, 1, false, 0);
    let what = types.name("what");
    types.words(&[what, pointer.0]);
    let function = types.pointer(prototype);
    types.typedef("call_t", function);
    types.structure("holder", 24, &[("thing", pointer, 0), ("call", function, 64)]);
    let all = Btf::parse(&types.finish()).unwrap();

    let names = ["holder", "flags", "colour", "wide", "name_t", "call_t", "absent", "do_it"];
    let few = Btf::parse(&all.reduced(names)).unwrap();
    assert!(few.len() < all.len());
    for (name, path) in [("holder", "thing"), ("holder", "call"), ("flags", "b"), ("flags", "c")] {
        let place = |types: &Btf| {
            let place = types.place(types.find_type(name)?, path)?;
            let kind = types.resolved_kind(place.type_id);
            Some((place.bit_offset, place.bit_size, types.size(place.type_id), kind))
        };
        assert!(place(&all).is_some(), "{name}.{path}");
        assert_eq!(place(&few), place(&all), "{name}.{path}");
    }
    for name in ["RED", "GREEN", "HUGE", "TOP"] {
        assert_eq!(few.enumerator(name), all.enumerator(name), "{name}");
    }
    let described = |types: &Btf, name| types.describe(types.find_type(name).unwrap());
    for name in ["name_t", "call_t"] {
        assert_eq!(described(&few, name), described(&all, name));
    }
    assert_eq!(few.size(few.find_type("name_t").unwrap()), Some(16));
    // Behind a pointer there is an outline, and nobody asked for the function.
    assert_eq!(few.members(few.find_type("thing").unwrap()).count(), 0);
    assert_eq!((few.find_type("absent"), few.find_function("do_it")), (None, None));
    // What is asked for as well is whole, whichever comes first.
    for names in [["holder", "thing"], ["thing", "holder"]] {
        let few = Btf::parse(&all.reduced(names)).unwrap();
        assert_eq!(few.offset_of("thing", "low"), Some(8));
        assert_eq!(few.offset_of("thing", "name[3]"), Some(19));
    }
}
