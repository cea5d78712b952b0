// SPDX-License-Identifier: Apache-2.0
//! Builds the objects of bpf/ and their skeletons into OUT_DIR.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{env, fs};

use libbpf_cargo::SkeletonBuilder;
use libbpf_rs::btf::{Btf, BtfKind, BtfType, TypeId};

/// One skeleton per area: `<area>.bpf.c` becomes `<area>.skel.rs`.
const AREAS: [&str; 5] = ["features", "gate_trial", "kernel_reader", "module_events", "views"];

/// Objects without a skeleton: which of their programs are loaded is decided at run time.
const EVENTS: [&str; 11] = [
    "clients",
    "calls",
    "process",
    "access",
    "credentials",
    "image",
    "memory",
    "file",
    "verdicts",
    "verdicts_kernel",
    "verdicts_file",
];

/// Objects without a skeleton: programs and maps, found as they come.
const PLAIN: [&str; 2] = ["exemptions", "process_keys"];

/// Objects without a skeleton, because what is in their maps is made at run time.
const RULES: [&str; 2] = ["rules", "rules_trial"];

/// The names of the clang flags that matter to the verifier: v3 (5.1 and later) has 32-bit
/// comparisons, without which bounds are lost in shifts.
const FLAGS: [&str; 5] = ["-mcpu=v3", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter"];

/// An attack of the lab, which is built with the others and is part of no product.
const ATTACK: &str = "bpf_hides";

fn main() {
    let output = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets this"));
    let sources = root.join("../../bpf");
    for area in AREAS {
        let skeleton = output.join(format!("{area}.skel.rs"));
        build(&sources, area, &output, |builder| builder.build_and_generate(skeleton));
    }
    for area in EVENTS.into_iter().chain(PLAIN).chain(RULES) {
        build(&sources, area, &output, |builder| builder.build());
    }
    let attack = root.join("../../tests/attacks").join(ATTACK);
    build(&attack, ATTACK, &output, |builder| builder.build());
    println!("cargo:rerun-if-changed={}", attack.display());
    let objects = AREAS.into_iter().chain(EVENTS).chain(PLAIN).chain(RULES);
    let names: BTreeSet<String> = objects.flat_map(|area| type_names(&output, area)).collect();
    let names: Vec<String> = names.into_iter().collect();
    fs::write(output.join("type_names.rs"), format!("&{names:?}")).expect("OUT_DIR is writable");
    // The folder as a whole: headers in lib/ are part of every object.
    println!("cargo:rerun-if-changed={}", sources.display());
    println!("cargo:rerun-if-changed={}", root.join("../../api/ringfence.h").display());
}

fn build<E: std::fmt::Display>(
    sources: &Path,
    area: &str,
    output: &Path,
    make: impl FnOnce(&mut SkeletonBuilder) -> Result<(), E>,
) {
    let source = sources.join(format!("{area}.bpf.c"));
    let mut builder = SkeletonBuilder::new();
    builder.source(&source).obj(output.join(format!("{area}.bpf.o"))).clang_args(FLAGS);
    if let Err(error) = make(&mut builder) {
        panic!("{} does not build (is clang installed?): {error:#}", source.display());
    }
}

/// The names of the types that an object knows, as the kernel has them: what follows three underscores
/// tells variants of one type apart.
fn type_names(output: &Path, area: &str) -> BTreeSet<String> {
    let object = output.join(format!("{area}.bpf.o"));
    let types = Btf::from_path(&object).expect("clang writes BTF");
    let names = (1..types.len() as u32).filter_map(|id| {
        let one = types.type_by_id::<BtfType<'_>>(TypeId::from(id))?;
        let of_code = [BtfKind::Func, BtfKind::Var, BtfKind::DataSec].contains(&one.kind());
        let name = one.name()?.to_str()?;
        (!of_code && !name.is_empty()).then(|| name.split("___").next().unwrap_or(name).to_owned())
    });
    names.collect()
}
