// SPDX-License-Identifier: Apache-2.0
//! What Rust says of the records is what `api/ringfence.h` says: clang compiles the header for the
//! kernel's machine, and its types (BTF) and its constants are compared one by one. None may be
//! missing on either side.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use abi::EventType;
use kernel_image::btf::{Btf, Kind, TypeId};
use object::{Object, ObjectSection};

#[path = "support/structures.rs"]
mod structures;

use structures::{Structure, structures};

fn header_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../api/ringfence.h")
}

/// Words that follow a prefix at the start of lines, with what follows them.
fn words_after<'a>(text: &'a str, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
    text.lines().filter_map(move |line| {
        let rest = line.strip_prefix(prefix)?;
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        Some(rest.split_at(end))
    })
}

/// Each constant of the header, but for the one that guards against including it twice.
fn constants_of_c(header: &str) -> Vec<&str> {
    words_after(header, "#define RINGFENCE_")
        .filter(|(name, value)| *name != "H" && !value.trim().is_empty())
        .map(|(name, _)| name)
        .collect()
}

/// The header, compiled: its structures as variables, its constants as one enumeration.
fn compiled() -> Btf {
    let header = std::fs::read_to_string(header_file()).unwrap();
    let mut source = "typedef unsigned char __u8; typedef unsigned short __u16;\n\
         typedef unsigned int __u32; typedef unsigned long long __u64; typedef int __s32;\n\
         #define RINGFENCE_KERNEL_TYPES_H\n#include \"ringfence.h\"\n"
        .to_owned();
    let structures: Vec<_> =
        words_after(&header, "struct ringfence_").filter(|(_, rest)| *rest == " {").collect();
    assert!(structures.len() > 20, "{structures:?}");
    for (name, _) in structures {
        source.push_str(&format!("struct ringfence_{name} variable_{name};\n"));
    }
    let constants = constants_of_c(&header);
    assert!(constants.len() > 80, "{constants:?}");
    source.push_str("enum constants {\n");
    for name in constants {
        source.push_str(&format!("VALUE_{name} = RINGFENCE_{name},\n"));
    }
    source.push_str("} variable_constants;\n");

    let directory = tempfile::tempdir().unwrap();
    let (c, o) = (directory.path().join("layout.c"), directory.path().join("layout.o"));
    std::fs::write(&c, source).unwrap();
    let built = Command::new("clang")
        .args(["-target", "bpf", "-g", "-O1", "-Wall", "-Werror", "-c"])
        .arg("-I")
        .arg(header_file().parent().unwrap())
        .arg(&c)
        .arg("-o")
        .arg(&o)
        .output()
        .expect("clang, which building needs as well (tools/install-dependencies)");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let bytes = std::fs::read(&o).unwrap();
    let object = object::File::parse(&*bytes).unwrap();
    Btf::parse(object.section_by_name(".BTF").unwrap().data().unwrap()).unwrap()
}

#[test]
fn every_structure_of_the_header_has_the_same_fields_at_the_same_places_in_rust() {
    let btf = compiled();
    let mut in_c: BTreeMap<String, _> = (1..=btf.len() as u32)
        .map(TypeId)
        .filter(|id| btf.kind(*id) == Some(Kind::Struct))
        .filter_map(|id| Some((btf.name(id).strip_prefix("ringfence_")?.to_owned(), id)))
        .collect();
    for Structure { name, size, fields } in structures() {
        let id = in_c.remove(name).unwrap_or_else(|| panic!("C has no struct ringfence_{name}"));
        let members: Vec<_> =
            btf.members(id).map(|m| (m.name, (m.bit_offset / 8) as usize)).collect();
        assert_eq!(fields, members, "{name}");
        assert_eq!(btf.size(id), Some(size as u64), "{name}");
    }
    assert!(in_c.is_empty(), "Rust has not: {:?}", in_c.keys());
}

#[test]
fn every_constant_of_the_header_has_the_same_value_in_rust() {
    let btf = compiled();
    let id = btf.find_enum("constants").unwrap();
    let in_c: BTreeMap<String, i64> = btf
        .enumerators(id)
        .map(|e| (e.name.strip_prefix("VALUE_").unwrap().to_owned(), e.value))
        .collect();
    let in_rust: BTreeMap<String, i64> =
        words_after(include_str!("../src/constants.rs"), "pub const ")
            .map(|(name, rest)| {
                let value =
                    rest.split_once(" = ").unwrap().1.trim_end_matches(';').replace('_', "");
                let number = match value.strip_prefix("0x") {
                    Some(digits) => i64::from_str_radix(digits, 16),
                    None => value.parse(),
                };
                (name.to_owned(), number.unwrap_or_else(|_| panic!("{name} is no plain number")))
            })
            .collect();
    assert_eq!(in_c, in_rust);
}

#[test]
fn every_type_of_event_is_named_as_its_constant() {
    let in_c: BTreeMap<_, _> = constants_of_rust_types().collect();
    let named: BTreeMap<_, _> =
        EventType::ALL.iter().map(|e| (e.name().to_uppercase(), e.number())).collect();
    assert_eq!(in_c, named);
}

/// The constants that stand under the heading of the types of events in the header.
fn constants_of_rust_types() -> impl Iterator<Item = (String, u16)> {
    let header = std::fs::read_to_string(header_file()).unwrap();
    let (_, types) = header.split_once("/* --- types of events").unwrap();
    let (types, _) = types.split_once("#define RINGFENCE_TYPES").unwrap();
    let types: Vec<_> = words_after(types, "#define RINGFENCE_")
        .map(|(name, value)| (name.to_owned(), value.trim().parse().unwrap()))
        .collect();
    types.into_iter()
}
