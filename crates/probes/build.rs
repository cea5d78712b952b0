// SPDX-License-Identifier: Apache-2.0
//! Builds the objects of bpf/ and their skeletons into OUT_DIR.

use std::env;
use std::path::{Path, PathBuf};

use libbpf_cargo::SkeletonBuilder;

/// One skeleton per area: `<area>.bpf.c` becomes `<area>.skel.rs`.
const AREAS: [&str; 5] = ["features", "gate_trial", "kernel_reader", "module_events", "views"];

/// Objects without a skeleton: which of their programs are loaded is decided at run time.
const EVENTS: [&str; 9] = [
    "clients",
    "process",
    "access",
    "credentials",
    "image",
    "memory",
    "verdicts",
    "verdicts_kernel",
    "verdicts_file",
];

/// Objects without a skeleton: a program and a map, found as they come.
const PLAIN: [&str; 1] = ["process_keys"];

/// Objects without a skeleton, because what is in their maps is made at run time.
const RULES: [&str; 2] = ["rules", "rules_trial"];

/// The names of the clang flags that matter to the verifier: v3 (5.1 and later) has 32-bit
/// comparisons, without which bounds are lost in shifts.
const FLAGS: [&str; 5] = ["-mcpu=v3", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter"];

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
