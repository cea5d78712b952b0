// SPDX-License-Identifier: Apache-2.0
//! Every module of Debian's kernels: taken apart and put together.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kernel_image::module::{Linked, ModuleFile, Part, Surroundings};
use kernel_image::{TableKind, Tables};

/// Where a module might be: in the kernel's area for them, each section on pages of its own.
const AREA: u64 = 0xffff_ffff_c000_0000;
/// Where what it uses might be.
const KERNEL: u64 = 0xffff_ffff_8100_0000;

fn kernels() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    let store = std::env::var_os("RINGFENCE_KERNELS")
        .map_or_else(|| root.join(".cache/kernels"), PathBuf::from);
    let entries = std::fs::read_dir(&store)
        .unwrap_or_else(|error| panic!("{}: {error}; run tests/kernels/fetch", store.display()));
    let mut kernels: Vec<PathBuf> =
        entries.map(|entry| entry.unwrap().path().join("modules")).filter(|m| m.is_dir()).collect();
    kernels.sort();
    assert!(!kernels.is_empty(), "no kernel in {} has modules", store.display());
    kernels
}

fn modules(below: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            modules(&path, found);
        } else if path.file_name().is_some_and(|name| name.to_string_lossy().contains(".ko")) {
            found.push(path);
        }
    }
}

fn addresses(file: &ModuleFile) -> Vec<Option<u64>> {
    let mut at = AREA;
    let place = |section: &kernel_image::module::ModuleSection| {
        let address = section.is_loaded().then_some(at)?;
        at = (at + section.size).next_multiple_of(4096);
        Some(address)
    };
    file.sections().iter().map(place).collect()
}

fn export(name: &str) -> Option<u64> {
    // Any address will do, if it is the same for the same name.
    let sum = name.bytes().fold(5381_u64, |sum, byte| sum.wrapping_mul(33) ^ u64::from(byte));
    Some(KERNEL + (sum % 0x100_0000))
}

struct Total {
    modules: usize,
    bytes: usize,
    sites: usize,
    decompressing: Duration,
    linking: Duration,
}

fn one(path: &Path, total: &mut Total) {
    let bytes = std::fs::read(path).unwrap();
    let began = Instant::now();
    let file = ModuleFile::parse(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    total.decompressing += began.elapsed();

    let name = path.file_name().unwrap().to_string_lossy();
    let name = name.split(".ko").next().unwrap().replace('-', "_");
    assert_eq!(file.name(), name, "{}", path.display());
    assert!(file.build_id().is_some_and(|id| id.len() == 20), "{}", path.display());
    assert!(file.layout(Part::Text).is_some() && file.layout(Part::Rodata).is_some());

    let began = Instant::now();
    let addresses = addresses(&file);
    let surroundings =
        Surroundings { addresses: &addresses, per_cpu: Some(0x2_0000), exports: &export };
    let linked =
        Linked::new(&file, &surroundings).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    total.linking += began.elapsed();
    let tables: &Tables = linked.tables();
    total.modules += 1;
    total.bytes += linked.sections().map(|section| section.bytes.len()).sum::<usize>();
    total.sites += TableKind::ALL.into_iter().map(|table| tables.count(table)).sum::<usize>();
}

#[test]
#[ignore = "kernels: run tests/kernels/fetch first"]
fn every_module_of_every_kernel_is_read_and_put_together() {
    for kernel in kernels() {
        let mut paths = Vec::new();
        modules(&kernel, &mut paths);
        let mut total = Total {
            modules: 0,
            bytes: 0,
            sites: 0,
            decompressing: Duration::ZERO,
            linking: Duration::ZERO,
        };
        for path in &paths {
            one(path, &mut total);
        }
        let Total { modules, bytes, sites, decompressing, linking } = total;
        assert!(modules > 500, "{}: {modules} modules", kernel.display());
        assert!(sites > 100_000, "{}: {sites} sites", kernel.display());
        println!(
            "{}: {modules} modules, {bytes} bytes, {sites} sites; reading {decompressing:?}, \
             putting together {linking:?}",
            kernel.display()
        );
    }
}
