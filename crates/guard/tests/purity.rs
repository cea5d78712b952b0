// SPDX-License-Identifier: Apache-2.0
//! The border that the workspace is cut along: pure crates do no I/O and know nothing of BPF, and
//! some have no clock.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

const PURE: [&str; 6] = ["abi", "kernel-image", "kernel-memory", "guard", "broker", "rules"];
/// Of these, who has no clock and no threads either: time is told.
const TIMELESS: [&str; 1] = ["broker"];
const FORBIDDEN_CRATES: [&str; 6] =
    ["probes", "ringfence-cli", "libbpf-rs", "libbpf-sys", "tokio", "async-std"];
const FORBIDDEN_MODULES: [&str; 5] =
    ["std::fs", "std::net", "std::process", "std::env", "std::os::unix"];
const CLOCKS: [&str; 3] = ["Instant", "SystemTime", "std::thread"];

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("crates/guard").to_owned()
}

#[test]
fn pure_crates_depend_on_nothing_that_does_io() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(workspace())
        .output()
        .expect("cargo metadata");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("metadata");
    let names: BTreeMap<&str, &str> = metadata["packages"]
        .as_array()
        .expect("packages")
        .iter()
        .filter_map(|package| Some((package["id"].as_str()?, package["name"].as_str()?)))
        .collect();
    let needs: BTreeMap<&str, Vec<&str>> = metadata["resolve"]["nodes"]
        .as_array()
        .expect("nodes")
        .iter()
        .filter_map(|node| {
            let normal = node["deps"].as_array()?.iter().filter(|dependency| {
                dependency["dep_kinds"]
                    .as_array()
                    .is_some_and(|kinds| kinds.iter().any(|kind| kind["kind"].is_null()))
            });
            Some((node["id"].as_str()?, normal.filter_map(|d| d["pkg"].as_str()).collect()))
        })
        .collect();

    for pure in PURE {
        let (id, _) = names.iter().find(|(_, name)| **name == pure).expect("a workspace crate");
        let mut reached = BTreeSet::new();
        let mut waiting = vec![*id];
        while let Some(id) = waiting.pop() {
            if reached.insert(names[id]) {
                waiting.extend(needs.get(id).into_iter().flatten());
            }
        }
        let wrong: Vec<_> = FORBIDDEN_CRATES.iter().filter(|c| reached.contains(**c)).collect();
        assert!(wrong.is_empty(), "{pure} is pure but depends on {wrong:?}");
    }
}

#[test]
fn pure_crates_do_no_io_themselves() {
    for pure in PURE {
        let mut folders = vec![workspace().join("crates").join(pure).join("src")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).expect("a folder of sources") {
                let path = entry.expect("an entry").path();
                // Modules of tests may read what they like.
                if path.file_stem().is_some_and(|name| name == "tests") {
                    continue;
                }
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let text = std::fs::read_to_string(&path).expect("a source file");
                // So may tests at the end of a file.
                let product = text.split("#[cfg(test)]").next().unwrap_or_default();
                let clocks = TIMELESS.contains(&pure).then_some(CLOCKS);
                for module in FORBIDDEN_MODULES.into_iter().chain(clocks.into_iter().flatten()) {
                    assert!(!product.contains(module), "{} uses {module}", path.display());
                }
            }
        }
    }
}
