// SPDX-License-Identifier: Apache-2.0
//! A hundred thousand random changes to a text that is made up, with thousands of sites: each that
//! is outside of a legal encoding must be found. The same runs over the live text with root.
#![allow(clippy::unwrap_used, reason = "a test that cannot read what it needs has failed")]

mod oracle;

use std::collections::BTreeMap;

use guard::baseline::{Baseline, Identity, RegionKind};
use guard::mutation::{Subject, mutate, mutate_copy};
use guard::sites::{Sites, State};
use kernel_image::Symbols;
use kernel_image::btf::{Btf, Builder, TypeId};
use kernel_memory::{FakeMemory, Kernel};
use oracle::{Oracle, branch, nop};

const TEXT: u64 = 0xffff_ffff_8100_0000;
const TEXT_LENGTH: u64 = 1 << 20;
const RODATA: u64 = 0xffff_ffff_8200_0000;
const DATA: u64 = 0xffff_ffff_8300_0000;
const EACH: u64 = 1500;

/// Sites every 200 bytes: a jump label, a static call, an ftrace site, and so on in turn.
fn kernel_with_sites() -> (FakeMemory, Symbols) {
    let mut memory = FakeMemory::new();
    let filler: Vec<u8> = (0..TEXT_LENGTH).map(|at| (at * 31 + (at >> 7)) as u8 | 1).collect();
    memory.write(TEXT, &filler);
    memory.write(RODATA, &[0; 0x20000]);
    memory.write(DATA, &[0; 0x8000]);
    let (jumps, calls) = (RODATA + 0x100, RODATA + 0x10000);
    let mut names: Vec<(u64, String)> = Vec::new();
    let relative = |memory: &mut FakeMemory, at: u64, target: u64| {
        memory.write_u32(at, target.wrapping_sub(at) as u32);
    };
    for index in 0..EACH {
        let base = TEXT + 0x1000 + index * 600;
        let key = DATA + 0x100 + index * 16;
        let target = base + 40 + index % 80;
        let long = index % 3 == 0;
        let label: Vec<u8> = if long { branch(&[0xe9], base, target) } else { vec![0x66, 0x90] };
        memory.write(base, &label);
        let entry = jumps + index * 16;
        relative(&mut memory, entry, base);
        relative(&mut memory, entry + 4, target);
        memory.write_u64(entry + 8, key.wrapping_sub(entry + 8));

        let (call, tail) = (base + 200, index % 4 == 0);
        let function = TEXT + (index * 64) % TEXT_LENGTH;
        memory.write_u64(key, if tail { 0 } else { function });
        let bytes = match tail {
            true => branch(&[0xe9], call, TEXT + 0x20),
            false => branch(&[0xe8], call, function),
        };
        memory.write(call, &bytes);
        relative(&mut memory, calls + index * 8, call);
        relative(&mut memory, calls + index * 8 + 4, key | u64::from(tail));

        memory.write(base + 400, &nop());
        names.push((base + 400, format!("function_{index}")));
    }
    let fixed = [
        (TEXT, "_stext"),
        (TEXT + 0x20, "__x86_return_thunk"),
        (TEXT + 0x80, "ftrace_caller"),
        (TEXT + TEXT_LENGTH, "_etext"),
        (RODATA, "__start_rodata"),
        (jumps, "__start___jump_table"),
        (jumps + EACH * 16, "__stop___jump_table"),
        (calls, "__start_static_call_sites"),
        (calls + EACH * 8, "__stop_static_call_sites"),
        (RODATA + 0x20000, "__end_rodata"),
    ];
    let named = names.iter().map(|(at, name)| (*at, b't', name.as_str()));
    let symbols =
        Symbols::from_iter(fixed.map(|(at, name)| (at, b'T', name)).into_iter().chain(named));
    (memory, symbols)
}

fn types() -> Btf {
    let mut types = Builder::new();
    let int = types.int("int", 4, true);
    let atomic = types.structure("atomic_t", 4, &[("counter", int, 0)]);
    types.structure("static_key", 16, &[("enabled", atomic, 0)]);
    let pointer = types.pointer(TypeId(0));
    types.structure("static_call_key", 16, &[("func", pointer, 0), ("type", pointer, 64)]);
    Btf::parse(&types.finish()).unwrap()
}

#[test]
fn every_change_outside_a_legal_encoding_is_found() {
    let (memory, symbols) = kernel_with_sites();
    let types = types();
    let kernel = Kernel { memory: &memory, symbols: &symbols, types: &types };
    let baseline = Baseline::take(&kernel, Identity::default(), BTreeMap::new()).unwrap();
    let sites = baseline.sites(&kernel);
    assert_eq!(sites.len() as u64, 3 * EACH);
    let mut state = State::of_symbols(&symbols);
    let keys: Vec<u64> = sites.static_calls.entries().iter().map(|call| call.key).collect();
    state.read_functions(&kernel, keys).unwrap();
    let oracle = Oracle::of(&baseline, &kernel);
    let tally =
        mutate(&baseline, sites, &state, (100_000, 0x5eed), &mut |mutation, start, seen| {
            oracle.is_legal(mutation, start, seen)
        })
        .unwrap();
    println!(
        "{} changes, {} legal, {} found; {:.2} % of the text is mutable, {:.2} encodings a site",
        tally.changes,
        tally.legal,
        tally.found,
        tally.mutable_percent(),
        tally.mean_encodings()
    );
    assert_eq!(tally.missed, []);
    assert_eq!(tally.false_alarms, []);
    assert_eq!(tally.found + tally.legal, tally.changes);
    assert!(tally.legal > 1000, "chance must meet legal encodings too: {}", tally.legal);
}

#[test]
fn an_oracle_that_allows_less_shows_what_the_guard_lets_pass() {
    let (memory, symbols) = kernel_with_sites();
    let types = types();
    let kernel = Kernel { memory: &memory, symbols: &symbols, types: &types };
    let baseline = Baseline::take(&kernel, Identity::default(), BTreeMap::new()).unwrap();
    let sites = baseline.sites(&kernel);
    let state = State::of_symbols(&symbols);
    let nothing = &mut |_: &_, _: u64, _: &[u8]| false;
    let tally = mutate(&baseline, sites, &state, (5_000, 0x5eed), nothing).unwrap();
    assert!(!tally.missed.is_empty());
}

/// As the kernel of a dump may be: a branch was switched since the baseline, which a table allows.
#[test]
fn changes_to_a_copy_of_memory_are_told_from_what_was_different_before() {
    let (memory, symbols) = kernel_with_sites();
    let types = types();
    let kernel = Kernel { memory: &memory, symbols: &symbols, types: &types };
    let baseline = Baseline::take(&kernel, Identity::default(), BTreeMap::new()).unwrap();
    let sites = baseline.sites(&kernel);
    let mut state = State::of_symbols(&symbols);
    let keys: Vec<u64> = sites.static_calls.entries().iter().map(|call| call.key).collect();
    state.read_functions(&kernel, keys).unwrap();
    let text = baseline.region(RegionKind::Text).unwrap();
    let mut seen = text.bytes.to_vec();
    // The first site is a jump of five bytes.
    seen[0x1000..0x1005].copy_from_slice(&nop());
    let subject = Subject { start: TEXT, seen: &seen, expected: text.bytes, sites, state: &state };
    let (explained, unexplained) = subject.differing();
    assert_eq!((explained.len(), unexplained.len()), (1, 0));
    assert!(explained.iter().all(|place| subject.is_listed(&place.site.unwrap())));
    let oracle = Oracle::of(&baseline, &kernel);
    let tally = mutate_copy(&subject, (20_000, 7), &mut |mutation, start, seen| {
        oracle.is_legal(mutation, start, seen)
    });
    assert_eq!((tally.missed.len(), tally.false_alarms.len()), (0, 0));
    assert_eq!((tally.changes, tally.illegal_found()), (20_000, tally.illegal()));

    let mut changed = seen.clone();
    changed[0x1003] = 0x90;
    let changed = Subject { seen: &changed, ..subject };
    let (explained, unexplained) = changed.differing();
    assert_eq!(explained, []);
    let starts: Vec<u64> = unexplained.iter().map(|place| place.start).collect();
    assert_eq!(starts, [TEXT + 0x1000]);
    assert!(!changed.is_listed(&unexplained[0].site.unwrap()));
}

#[test]
fn each_change_to_data_without_sites_is_found() {
    let bytes: Vec<u8> = (0..0x3000_u32).map(|at| (at * 7) as u8).collect();
    let (sites, state) = (Sites::default(), State::default());
    let (seen, expected) = (&*bytes, &*bytes);
    let subject = Subject { start: RODATA, seen, expected, sites: &sites, state: &state };
    let tally = mutate_copy(&subject, (10_000, 3), &mut |_, _, _| false);
    assert_eq!((tally.changes, tally.found, tally.missed.len()), (10_000, 10_000, 0));
}
