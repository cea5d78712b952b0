// SPDX-License-Identifier: Apache-2.0
//! Builds the objects of bpf/ and their skeletons into OUT_DIR.

use std::env;
use std::path::{Path, PathBuf};

use libbpf_cargo::SkeletonBuilder;

/// One skeleton per area: `<area>.bpf.c` becomes `<area>.skel.rs`.
const AREAS: [&str; 4] = ["features", "kernel_reader", "module_events", "views"];

/// Objects without a skeleton, because what is in their maps is made at run time.
const RULES: [&str; 2] = ["rules", "rules_trial"];

fn main() {
    let output = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets this"));
    let sources = root.join("../../bpf");
    for area in AREAS {
        build(&sources, area, &output);
    }
    for area in RULES {
        build(&sources, area, &output);
    }
    // The folder as a whole: headers in lib/ are part of every object.
    println!("cargo:rerun-if-changed={}", sources.display());
    println!("cargo:rerun-if-changed={}", root.join("../../api/ringfence.h").display());
}

fn build(sources: &Path, area: &str, output: &Path) {
    let source = sources.join(format!("{area}.bpf.c"));
    // The names of the clang flags that matter to the verifier: v3 (5.1 and later) has 32-bit
    // comparisons, without which bounds are lost in shifts.
    let flags = ["-mcpu=v3", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter"];
    let built = SkeletonBuilder::new()
        .source(&source)
        .obj(output.join(format!("{area}.bpf.o")))
        .clang_args(flags)
        .build_and_generate(output.join(format!("{area}.skel.rs")));
    if let Err(error) = built {
        panic!("{} does not build (is clang installed?): {error:#}", source.display());
    }
}
