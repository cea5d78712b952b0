// SPDX-License-Identifier: Apache-2.0
//! Real kernels, read whole.
//!
//! They are the ground truth: a table that is decoded with a wrong layout gives "sites" that do not
//! hit the instructions they must hit. Needs `tests/kernels/fetch` to have run.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use kernel_image::kallsyms::{self, Region};
use kernel_image::{ImageSummary, KernelImage, Section, TableKind};

struct Kernel {
    name: String,
    release: String,
    version: String,
    image: KernelImage,
    time: Duration,
}

fn store() -> PathBuf {
    match std::env::var_os("RINGFENCE_KERNELS") {
        Some(path) => path.into(),
        None => concat!(env!("CARGO_MANIFEST_DIR"), "/../../.cache/kernels").into(),
    }
}

/// The kernels of versions.tsv, one after the other: together they would need half a gigabyte.
fn kernels() -> impl Iterator<Item = Kernel> {
    let store = store();
    let list = store.join("versions.tsv");
    let versions = std::fs::read_to_string(&list)
        .unwrap_or_else(|error| panic!("{}: {error}; run tests/kernels/fetch", list.display()));
    let rows: Vec<[String; 3]> = versions
        .lines()
        .filter_map(|line| {
            let [name, release, _, version, ..] = line.split('\t').collect::<Vec<_>>()[..] else {
                return None;
            };
            Some([name.to_owned(), release.to_owned(), version.to_owned()])
        })
        .collect();
    assert!(rows.len() >= 8, "8 kernels expected in {}, {} found", list.display(), rows.len());
    rows.into_iter().map(move |[name, release, version]| {
        let bytes = std::fs::read(store.join(&name).join("vmlinuz"))
            .expect("versions.tsv lists what is there");
        let start = Instant::now();
        let image = KernelImage::parse(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        Kernel { name, release, version, image, time: start.elapsed() }
    })
}

impl Kernel {
    fn is_series(&self, series: &str) -> bool {
        self.name.starts_with(&format!("{series}-"))
    }

    fn code(&self, address: u64, length: usize) -> &[u8] {
        let code = |section: &&Section| {
            section.is_executable() && section.contains(address, length as u64)
        };
        assert!(
            self.image.sections().iter().any(|section| code(&section)),
            "{}: {address:#x} is in no executable section",
            self.name
        );
        self.image.bytes_at(address, length).expect("executable sections have bytes")
    }
}

fn print(kernel: &Kernel, summary: &ImageSummary) {
    println!(
        "{} {} ({}): {:?}, {} ELF bytes, {} text, {} symbols, {} BTF bytes, relocations {}/{}/{}",
        kernel.name,
        kernel.version,
        summary.compression,
        kernel.time,
        summary.elf_bytes,
        summary.text_bytes,
        summary.symbols,
        summary.btf_bytes,
        summary.relocations_32,
        summary.relocations_32_inverse,
        summary.relocations_64,
    );
    for table in &summary.tables {
        println!(
            "  {:24} {:7} entries, {:7} in text, {:8} bytes",
            table.table.name(),
            table.entries,
            table.entries_in_text,
            table.text_bytes
        );
    }
    println!(
        "  patched {:.2} %, at run time {:.2} % ({} bytes), mcount zeroed {}",
        summary.patched_share() * 100.0,
        summary.run_time_share() * 100.0,
        summary.run_time_bytes,
        kernel.image.tables().mcount.zeroed
    );
}

#[test]
#[ignore = "kernels: run tests/kernels/fetch first"]
fn every_kernel_is_read_whole() {
    for kernel in kernels() {
        let name = &kernel.name;
        let image = &kernel.image;
        let summary = image.summary();
        print(&kernel, &summary);

        assert_eq!(image.release(), kernel.release, "{name}");
        assert_eq!(image.build_id().map(<[u8]>::len), Some(20), "{name}");
        assert_eq!(
            image.btf_bytes().and_then(|btf| btf.get(..2)),
            Some(&[0x9f, 0xeb][..]),
            "{name}"
        );
        // Up to 6.14 per-CPU data was linked at zero and needed the inverse relocations.
        let inverse = kernel.is_series("6.1") || kernel.is_series("6.12");
        assert_eq!(summary.relocations_32_inverse > 5_000, inverse, "{name}");
        assert!(summary.relocations_32 > 50_000 && summary.relocations_64 > 100_000, "{name}");
        assert!((0.02..0.15).contains(&summary.patched_share()), "{name}");
        assert!((0.01..0.02).contains(&summary.run_time_share()), "{name}");
    }
}

#[test]
#[ignore = "kernels: run tests/kernels/fetch first"]
fn symbols_are_complete_and_where_the_sections_say() {
    for kernel in kernels() {
        let name = &kernel.name;
        let symbols = kernel.image.symbols();
        assert!(symbols.len() > 80_000, "{name}: {}", symbols.len());
        assert!(symbols.iter().map(|symbol| symbol.address).is_sorted(), "{name}");
        for wanted in ["_stext", "x64_sys_call", "linux_banner", "init_task", "idt_table"] {
            assert!(symbols.address_of(wanted).is_some(), "{name} has no {wanted}");
        }
        let text = kernel.image.section(".text").unwrap();
        assert_eq!(symbols.address_of("_text"), Some(text.address), "{name}");
        let end = symbols.address_of("_etext").unwrap();
        assert!(text.contains(text.address, end - text.address), "{name}");
        assert_eq!(
            symbols.address_of("__start_BTF"),
            kernel.image.section(".BTF").map(|s| s.address)
        );
        // A table that is out of step by one entry puts names on the wrong functions. This one
        // begins with an instruction that hardly any other begins with.
        let entry = kernel.code(symbols.address_of("entry_SYSCALL_64").unwrap(), 8);
        let entry = entry.strip_prefix(&[0xf3, 0x0f, 0x1e, 0xfa]).unwrap_or(entry);
        assert!(entry.starts_with(&[0x0f, 0x01, 0xf8]), "{name}: swapgs expected, {entry:02x?}");

        let data = kernel.image.section(".rodata").unwrap();
        let bytes = kernel.image.section_bytes(".rodata").unwrap();
        let text = text.address..text.address + text.size;
        let region = Region { bytes, offset: data.offset, address: data.address, text };
        let start = Instant::now();
        let again = kallsyms::decode(&region).unwrap();
        println!("{name}: {} symbols in {:?}", again.len(), start.elapsed());
        assert_eq!(again.len(), symbols.len());
    }
}

#[test]
#[ignore = "kernels: run tests/kernels/fetch first"]
fn sites_hit_the_instructions_that_their_tables_are_for() {
    for kernel in kernels() {
        let name = &kernel.name;
        let tables = kernel.image.tables();
        let fentry = kernel.image.symbols().address_of("__fentry__").unwrap();
        let target = |address: u64, code: &[u8]| {
            let distance = i32::from_le_bytes(code[1..5].try_into().unwrap());
            address.wrapping_add(5).wrapping_add(i64::from(distance) as u64)
        };
        for site in tables.sites() {
            let code = kernel.code(site.address, usize::from(site.length));
            let right = match site.table {
                TableKind::Mcount => code[0] == 0xe8 && target(site.address, code) == fentry,
                TableKind::JumpLabels => {
                    matches!(code, [0x66, 0x90] | [0x0f, 0x1f, 0x44, 0, 0] | [0xeb, _] | [0xe9, ..])
                }
                TableKind::StaticCalls => {
                    matches!(code, [0xe8 | 0xe9, ..] | [0x0f, 0x80..=0x8f, ..])
                }
                TableKind::StaticCallTrampolines | TableKind::Returns => code[0] == 0xe9,
                TableKind::Calls => code[0] == 0xe8,
                TableKind::EndbrSeals => code == [0xf3, 0x0f, 0x1e, 0xfa],
                TableKind::SmpLocks => code == [0xf0],
                TableKind::Retpolines => {
                    matches!(
                        code,
                        [0xe8 | 0xe9, ..] | [0x0f, 0x80..=0x8f, ..] | [0x2e, 0xe8 | 0xe9, ..]
                    )
                }
                TableKind::Paravirt => {
                    matches!(code, [0xff, 0x14, 0x25, ..] | [0xff, 0x15, ..] | [0xe8, ..])
                }
                TableKind::FtraceCalls => code[0] == 0xe8,
                // Any instructions at all; runtime constants were compared with their placeholder.
                _ => true,
            };
            assert!(right, "{name}: {} at {:#x} has {code:02x?}", site.table.name(), site.address);
        }
        // A jump that is on disk already must lead to the target of its table entry.
        for label in &tables.jump_labels {
            let code = kernel.code(label.address, usize::from(label.length));
            if code[0] == 0xe9 {
                assert_eq!(target(label.address, code), label.target, "{name}");
            } else if code[0] == 0xeb {
                let jump = label.address.wrapping_add(2).wrapping_add(code[1] as i8 as u64);
                assert_eq!(jump, label.target, "{name}");
            }
        }
        // All calls through a static call go to a trampoline as long as nothing is patched.
        let trampolines: std::collections::HashSet<u64> =
            tables.static_call_trampolines.iter().map(|trampoline| trampoline.address).collect();
        for call in tables.static_calls.iter().filter(|call| call.length == 5) {
            let code = kernel.code(call.address, 5);
            assert!(
                trampolines.contains(&target(call.address, code)),
                "{name}: {:#x}",
                call.address
            );
            assert_eq!(call.tail, code[0] == 0xe9, "{name}: {:#x}", call.address);
        }
        // The 64-bit vDSO has alternatives, for rdtscp and lfence, and so does the 32-bit one.
        assert!(tables.vdso_images.len() >= 2, "{name}");
        for image in &tables.vdso_images {
            let elf = kernel.image.bytes_at(image.address, 4).unwrap();
            assert_eq!(elf, b"\x7fELF", "{name}: {}", image.name);
            assert!(!image.alternatives.is_empty(), "{name}: {}", image.name);
        }
        let named = |prefix: &str| {
            kernel.image.symbols().iter().filter(|symbol| symbol.name.starts_with(prefix)).count()
        };
        assert_eq!(tables.static_call_trampolines.len(), named("__SCT__"), "{name}");
        assert!(
            tables.bpf_dispatchers.iter().any(|at| at.name == "bpf_dispatcher_xdp_func"),
            "{name}"
        );
    }
}

#[test]
#[ignore = "kernels: run tests/kernels/fetch first"]
fn keys_are_symbols() {
    for kernel in kernels() {
        let symbols = kernel.image.symbols();
        // A key is a variable, or lies in a structure or an array of them; of static calls it is
        // always a variable of its own, with a name that says so.
        for call in &kernel.image.tables().static_calls {
            let (symbol, offset) = symbols.containing(call.key).unwrap();
            assert_eq!(offset, 0, "{}: key {:#x}", kernel.name, call.key);
            assert!(symbol.name.starts_with("__SCK__"), "{}: {}", kernel.name, symbol.name);
        }
        for label in &kernel.image.tables().jump_labels {
            assert_eq!(label.key % 8, 0, "{}: key {:#x}", kernel.name, label.key);
            assert!(symbols.containing(label.key).is_some(), "{}", kernel.name);
        }
        for keys in &kernel.image.tables().static_call_keys {
            let (symbol, offset) = symbols.containing(keys.key).unwrap();
            assert!(
                offset == 0 && symbol.name.starts_with("__SCK__"),
                "{}: {}",
                kernel.name,
                symbol.name
            );
        }
    }
}

#[test]
#[ignore = "kernels: run tests/kernels/fetch first"]
fn tables_have_the_size_that_was_measured_by_hand() {
    // facts/kernel-integrity §4.1, 6.12 cloud; within 5 % as compilers and versions differ.
    let measured = [
        (TableKind::Retpolines, 7_840),
        (TableKind::Returns, 58_151),
        (TableKind::Alternatives, 9_282),
        (TableKind::Calls, 229_791),
        (TableKind::EndbrSeals, 12_212),
        (TableKind::SmpLocks, 9_954),
        (TableKind::RuntimeConstants, 128),
        (TableKind::Mcount, 43_189 - 622),
        (TableKind::JumpLabels, 8_977),
        (TableKind::StaticCalls, 7_872),
        (TableKind::StaticCallTrampolines, 3_855),
    ];
    let kernel = kernels().find(|kernel| kernel.name == "6.12-cloud-amd64").unwrap();
    for (table, expected) in measured {
        let count = kernel.image.tables().count(table);
        assert!(
            count.abs_diff(expected) * 20 <= expected,
            "{}: {count} of {}, {expected} expected",
            kernel.version,
            table.name()
        );
    }
    let summary = kernel.image.summary();
    assert!((0.090..0.105).contains(&summary.patched_share()), "{}", summary.patched_share());
    assert!((0.0165..0.0180).contains(&summary.run_time_share()), "{}", summary.run_time_share());
}

#[test]
#[ignore = "kernels: run tests/kernels/fetch first"]
fn a_slide_moves_what_the_kernel_points_at_and_nothing_else() {
    const SLIDE: u64 = 0x1240_0000;
    for kernel in kernels() {
        let image = &kernel.image;
        let symbols = image.symbols();
        // `sys_call_table` is an array of 64-bit pointers to functions.
        let table = symbols.address_of("sys_call_table").unwrap();
        let before = image.bytes_at(table, 8 * 64).unwrap();
        let after = image.relocated(table, 8 * 64, SLIDE).unwrap();
        for (before, after) in before.chunks_exact(8).zip(after.chunks_exact(8)) {
            let [before, after] =
                [before, after].map(|b| u64::from_le_bytes(b.try_into().unwrap()));
            assert_eq!(after, before + SLIDE, "{}", kernel.name);
            assert!(symbols.containing(before).is_some_and(|(_, offset)| offset == 0));
        }
        let banner = symbols.address_of("linux_banner").unwrap();
        assert_eq!(
            image.relocated(banner, 64, SLIDE).unwrap(),
            image.bytes_at(banner, 64).unwrap()
        );
    }
}
