// SPDX-License-Identifier: Apache-2.0
//! What the programs of the kernel write into records is what Rust reads: the objects that are loaded say in
//! their own types (BTF) where each field is, and so does the crate `abi`, which products read records with.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use libbpf_rs::Btf;
use libbpf_rs::HasSize;
use libbpf_rs::btf::types::{MemberAttr, Struct};

#[path = "../../abi/tests/support/structures.rs"]
mod structures;

/// What goes from a product to `ringfenced`, or back, and through no program.
const IN_NO_OBJECT: [&str; 2] = ["verdict", "verdict_refused"];

#[test]
fn each_structure_of_each_object_is_laid_out_as_products_read_it() {
    let mut seen = BTreeSet::new();
    let mut objects = 0;
    for entry in fs::read_dir(Path::new(env!("OUT_DIR"))).unwrap() {
        let path = entry.unwrap().path();
        if !path.to_str().unwrap().ends_with(".bpf.o") {
            continue;
        }
        objects += 1;
        let btf = Btf::from_path(&path).unwrap();
        for found in btf.type_by_kind::<Struct<'_>>() {
            let Some(name) = found.name().and_then(|name| name.to_str()) else { continue };
            let Some(name) = name.strip_prefix("ringfence_") else { continue };
            let known = structures::structures().into_iter().find(|known| known.name == name);
            let known = known.unwrap_or_else(|| panic!("{}: {name} is not known", path.display()));
            let fields: Vec<_> = found
                .iter()
                .map(|member| {
                    let MemberAttr::Normal { offset } = member.attr else { panic!("a bit field") };
                    (member.name.unwrap().to_str().unwrap().to_owned(), offset as usize / 8)
                })
                .collect();
            let wanted: Vec<_> =
                known.fields.iter().map(|(field, offset)| ((*field).to_owned(), *offset)).collect();
            assert_eq!((found.size(), fields), (known.size, wanted), "{}: {name}", path.display());
            seen.insert(known.name);
        }
    }
    assert!(objects > 15, "{objects} objects");
    let all: BTreeSet<_> = structures::structures().iter().map(|known| known.name).collect();
    let others: Vec<_> = all.difference(&seen).copied().collect();
    assert_eq!(others, IN_NO_OBJECT);
}
