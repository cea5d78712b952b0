// SPDX-License-Identifier: Apache-2.0
//! The notifier chains of Debian's kernels, found in their text. Needs `tests/kernels/fetch`.
#![allow(clippy::unwrap_used, reason = "a test that cannot read what it needs has failed")]

use std::collections::BTreeSet;
use std::path::PathBuf;

use guard::baseline::{Region, RegionKind};
use guard::recover::callers::first_arguments;
use kernel_image::KernelImage;

/// Chains that rootkits and guards like; each is in every kernel. `die_chain` is not among them: the
/// functions that work on it are in its own file, and 6.1 has them inlined.
const WELL_KNOWN: [&str; 7] = [
    "crypto_chain",
    "inetaddr_chain",
    "keyboard_notifier_list",
    "module_notify_list",
    "netdev_chain",
    "panic_notifier_list",
    "reboot_notifier_list",
];

const FUNCTIONS: [&str; 10] = [
    "atomic_notifier_chain_register",
    "atomic_notifier_chain_unregister",
    "atomic_notifier_call_chain",
    "blocking_notifier_chain_register",
    "blocking_notifier_chain_unregister",
    "blocking_notifier_call_chain",
    "raw_notifier_chain_register",
    "raw_notifier_chain_unregister",
    "raw_notifier_call_chain",
    "srcu_notifier_call_chain",
];

fn store() -> PathBuf {
    match std::env::var_os("RINGFENCE_KERNELS") {
        Some(path) => path.into(),
        None => concat!(env!("CARGO_MANIFEST_DIR"), "/../../.cache/kernels").into(),
    }
}

#[test]
#[ignore = "kernels: run tests/kernels/fetch first"]
fn the_heads_of_all_static_chains_are_found_and_nothing_else() {
    let versions = std::fs::read_to_string(store().join("versions.tsv")).unwrap();
    let names: Vec<&str> = versions.lines().filter_map(|line| line.split('\t').next()).collect();
    assert!(!names.is_empty());
    for name in names {
        let image = std::fs::read(store().join(name).join("vmlinuz")).unwrap();
        let image = KernelImage::parse(&image).unwrap();
        let symbols = image.symbols();
        let bound = |name| symbols.address_of(name).unwrap();
        let (start, end) = (bound("_stext"), bound("_etext"));
        let bytes = image.bytes_at(start, (end - start) as usize).unwrap();
        let text = Region { kind: RegionKind::Text, start, bytes };
        let callees: BTreeSet<u64> =
            FUNCTIONS.iter().filter_map(|name| symbols.address_of(name)).collect();
        let heads: BTreeSet<u64> = first_arguments(&text, symbols, &callees)
            .into_iter()
            .map(|call| call.argument)
            .collect();
        let mut found = BTreeSet::new();
        for head in &heads {
            let (symbol, offset) = symbols.containing(*head).unwrap();
            // Chains of the initial network namespace and the like are within an object.
            assert!(*head >= end && offset < 4096, "{name}: {head:#x} in {}", symbol.name);
            found.insert(symbol.name);
        }
        let missing: Vec<&&str> = WELL_KNOWN.iter().filter(|one| !found.contains(**one)).collect();
        assert!(missing.is_empty(), "{name}: {missing:?} of {found:?}");
        println!("{name}: {} chains: {found:?}", heads.len());
    }
}
