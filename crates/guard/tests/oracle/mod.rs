// SPDX-License-Identifier: Apache-2.0
//! Says which bytes the kernel may put where, without any of the guard's code for it.
//!
//! It writes out each encoding that is legal at each site as bytes, from the tables in the
//! baseline, and then only compares. What it takes from the guard are the places of the ftrace
//! sites and which key belongs to which trampoline, not what may stand there.

use std::collections::BTreeMap;

use guard::baseline::Baseline;
use guard::mutation::Mutation;
use kernel_memory::Kernel;

pub(crate) struct Oracle {
    sites: BTreeMap<u64, Vec<Vec<u8>>>,
}

impl Oracle {
    /// Reads the tables of a baseline, and the keys as they are now.
    pub(crate) fn of(baseline: &Baseline, kernel: &Kernel<'_>) -> Self {
        let mut oracle = Self { sites: BTreeMap::new() };
        let symbol = |name: &str| kernel.symbols.address_of(name);
        let text = symbol("_stext").unwrap()..symbol("_etext").unwrap();
        let table = |start: &str, stop: &str| {
            let (start, stop) = (symbol(start).unwrap(), symbol(stop).unwrap());
            (start, baseline.bytes_at(start, (stop - start) as usize).unwrap())
        };
        let near = |at: u64, bytes: &[u8]| {
            at.wrapping_add_signed(i64::from(i32::from_le_bytes(bytes.try_into().unwrap())))
        };

        let (start, jumps) = table("__start___jump_table", "__stop___jump_table");
        for (entry, at) in jumps.chunks(16).zip((start..).step_by(16)) {
            let (code, target) = (near(at, &entry[..4]), near(at + 4, &entry[4..8]));
            if !text.contains(&code) {
                continue;
            }
            let short = matches!(baseline.bytes_at(code, 1).unwrap()[0], 0x66 | 0xeb);
            let distance = target.wrapping_sub(code + if short { 2 } else { 5 });
            let legal = if short {
                vec![vec![0x66, 0x90], vec![0xeb, distance as u8]]
            } else {
                vec![nop(), branch(&[0xe9], code, target)]
            };
            oracle.sites.insert(code, legal);
        }

        // One return thunk is in use: the one that the static calls jump to which return.
        let thunks = [
            "__x86_return_thunk",
            "srso_return_thunk",
            "srso_alias_return_thunk",
            "retbleed_return_thunk",
            "its_return_thunk",
            "call_depth_return_thunk",
        ];
        let thunks: Vec<u64> = thunks.iter().filter_map(|name| symbol(name)).collect();
        let (start, calls) = table("__start_static_call_sites", "__stop_static_call_sites");
        let calls: Vec<(u64, u64)> = calls
            .chunks(8)
            .zip((start..).step_by(8))
            .map(|(entry, at)| (near(at, &entry[..4]), near(at + 4, &entry[4..])))
            .filter(|(code, _)| text.contains(code))
            .collect();
        let jumped_to = |thunk: &u64| {
            let count = |(code, _): &&(u64, u64)| {
                baseline.bytes_at(*code, 5) == Some(&branch(&[0xe9], *code, *thunk))
            };
            calls.iter().filter(count).count()
        };
        let thunk = thunks.iter().copied().max_by_key(jumped_to).filter(|t| jumped_to(t) > 0);
        let thunks = thunk.map_or(thunks, |thunk| vec![thunk]);
        let returns = |code: u64| {
            let jumps = thunks.iter().map(|thunk| branch(&[0xe9], code, *thunk));
            jumps.chain([vec![0xc3, 0xcc, 0xcc, 0xcc, 0xcc]]).collect::<Vec<_>>()
        };
        let mut functions = Vec::new();
        for (code, key) in calls {
            let function = kernel.u64_at(key & !3).unwrap();
            functions.push(function);
            let mut legal = Vec::new();
            if key & 1 != 0 {
                legal.extend(returns(code));
                legal.extend((function != 0).then(|| branch(&[0xe9], code, function)));
            } else {
                legal.push(nop());
                legal.push(vec![0x2e, 0x2e, 0x2e, 0x31, 0xc0]);
                legal.push(vec![0x66, 0x66, 0x48, 0x31, 0xc0]);
                legal.extend((function != 0).then(|| branch(&[0xe8], code, function)));
            }
            oracle.sites.insert(code, legal);
        }

        let sites = baseline.sites(kernel);
        let keys = sites.trampolines.entries().iter().filter_map(|one| one.key);
        functions.extend(keys.map(|key| kernel.u64_at(key).unwrap()));
        functions.sort_unstable();
        functions.dedup();
        for trampoline in sites.trampolines.entries() {
            let code = trampoline.address;
            let mut legal = returns(code);
            legal.push(vec![0xc3, 0xcc, 0x90, 0x90, 0x90]);
            let targets = match trampoline.key {
                Some(key) => vec![kernel.u64_at(key).unwrap()],
                None => functions.clone(),
            };
            let targets = targets.iter().filter(|function| **function != 0);
            legal.extend(targets.map(|function| branch(&[0xe9], code, *function)));
            oracle.sites.insert(code, legal);
        }

        let callers = ["ftrace_caller", "ftrace_regs_caller"];
        let callers: Vec<u64> = callers.iter().filter_map(|name| symbol(name)).collect();
        for code in sites.ftrace.addresses() {
            let mut legal = vec![nop()];
            legal.extend(callers.iter().map(|caller| branch(&[0xe8], *code, *caller)));
            oracle.sites.entry(*code).or_insert(legal);
        }
        oracle
    }

    /// Whether every byte of the change is in a site, and each site it touches holds one of its
    /// encodings.
    pub(crate) fn is_legal(&self, mutation: &Mutation, start: u64, seen: &[u8]) -> bool {
        let end = mutation.address + mutation.bytes.len() as u64;
        let touched = |at: u64| {
            self.sites.range(at.saturating_sub(8)..=at).rev().find(|(site, legal)| {
                legal.first().is_some_and(|bytes| at < *site + bytes.len() as u64)
            })
        };
        (mutation.address..end).all(|at| match touched(at) {
            Some((site, legal)) => legal.iter().any(|bytes| {
                let from = (site - start) as usize;
                seen.get(from..from + bytes.len()) == Some(bytes)
            }),
            None => false,
        })
    }
}

pub(crate) fn nop() -> Vec<u8> {
    vec![0x0f, 0x1f, 0x44, 0x00, 0x00]
}

pub(crate) fn branch(opcode: &[u8], from: u64, to: u64) -> Vec<u8> {
    let next = from + opcode.len() as u64 + 4;
    let mut bytes = opcode.to_vec();
    bytes.extend((to.wrapping_sub(next) as u32).to_le_bytes());
    bytes
}
