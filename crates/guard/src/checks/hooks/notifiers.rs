// SPDX-License-Identifier: Apache-2.0
//! Notifier chains: who is called when a module loads, a key is pressed, a device comes, the machine
//! goes down (include/linux/notifier.h, kernel/notifier.c).
//!
//! There are some hundred chains and no list of them. But each is registered with, and called, by a
//! few functions that take the address of its head: so the heads of all static chains are found in
//! the kernel's expected text ([`callers`]), by name or without. They do not change after boot.
//!
//! What the kernel's own text has registered is told in one line; all others by chain and owner.

use std::collections::{BTreeMap, BTreeSet};

use kernel_memory::Kernel;

use super::{Gathered, Look};
use crate::baseline::RegionKind;
use crate::check::Missing;
use crate::fields::Fields;
use crate::finding::Hook;
use crate::recover::callers::{self, Call};

/// The types of heads, by how the functions begin that take one. Each has a member `head`.
const KINDS: [(&str, &str); 4] = [
    ("atomic_notifier_", "atomic_notifier_head"),
    ("blocking_notifier_", "blocking_notifier_head"),
    ("raw_notifier_", "raw_notifier_head"),
    ("srcu_notifier_", "srcu_notifier_head"),
];

/// The functions whose first argument is a head (kernel/notifier.c, 6.1 to 7.3).
const OPERATIONS: [&str; 6] = [
    "chain_register",
    "chain_register_unique_prio",
    "chain_unregister",
    "call_chain",
    "call_chain_robust",
    "call_chain_is_empty",
];

/// The chain that belongs to kernel/notifier.c itself, where a compiler may have put the functions into
/// those that use it (6.1); then only the symbol table tells of it.
const OF_THE_FILE: (&str, &str) = ("die_chain", "atomic_notifier_head");

/// Members of one chain; a walk goes no further.
const LONGEST: usize = 4096;

/// A static chain.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Chain {
    /// Where the pointer to its first member is.
    first: u64,
    name: String,
}

/// The chains that were found, once.
#[derive(Debug, Default)]
pub(super) struct Chains {
    found: Option<Vec<Chain>>,
}

pub(super) fn gather(look: &mut Look<'_, '_>, gathered: &mut Gathered) -> Result<(), Missing> {
    if look.chains.found.is_none() {
        look.chains.found = Some(find(look)?);
    }
    let mut chains = look.chains.found.take().unwrap_or_default();
    let known = chains.len();
    let outcome = members_of(look, gathered, &mut chains);
    // The chains of network namespaces come and go with these.
    chains.truncate(known);
    look.chains.found = Some(chains);
    outcome
}

/// Tells who is on these chains, and on those of network namespaces, which are added.
fn members_of(
    look: &mut Look<'_, '_>,
    gathered: &mut Gathered,
    chains: &mut Vec<Chain>,
) -> Result<(), Missing> {
    let kernel = look.kernel;
    // Devices of a network namespace have a chain of their own.
    match super::netfilter::namespaces(&kernel, look.recovered) {
        Ok(namespaces) => chains.extend(namespaces.iter().filter_map(|net| {
            let net = kernel.object("net", *net).ok()?;
            let first = net.field("netdev_chain.head").ok()?.address();
            Some(Chain { first, name: "netdev_chain of a network namespace".to_owned() })
        })),
        Err(missing) => gathered.reduced.push(missing.0),
    }
    let mut own = 0;
    for Block { chain, address, handler } in members(&kernel, chains)? {
        if look.is_kernels_own(handler) {
            own += 1;
            continue;
        }
        let name = chains.get(chain).map_or("?", |chain| chain.name.as_str());
        let owner = look.owner_of(gathered, "notifier", name, address, handler);
        gathered.hooks.push(Hook {
            mechanism: "notifier",
            target: name.to_owned(),
            handler: look.function_at(handler),
            owner,
        });
    }
    if own > 0 {
        // Without their number, which changes as devices come and go.
        gathered.hooks.push(Hook {
            mechanism: "notifier",
            target: "notifier chains".to_owned(),
            handler: "functions of the kernel".to_owned(),
            owner: "kernel".to_owned(),
        });
    }
    Ok(())
}

/// The heads that the expected text works on.
fn find(look: &Look<'_, '_>) -> Result<Vec<Chain>, Missing> {
    let kernel = &look.kernel;
    let text = look.system.baseline.region(RegionKind::Text);
    let text = text.ok_or_else(|| Missing::because("notifier chains: no text in the baseline"))?;
    let mut heads: BTreeMap<u64, u64> = BTreeMap::new();
    let mut registering = BTreeSet::new();
    for (prefix, head) in KINDS {
        let offset = kernel.offset_of(head, "head")?;
        for operation in OPERATIONS {
            for symbol in kernel.symbols.all_named(&format!("{prefix}{operation}")) {
                heads.insert(symbol.address, offset);
                if operation.starts_with("chain_register") {
                    registering.insert(symbol.address);
                }
            }
        }
    }
    let callees: BTreeSet<u64> = heads.keys().copied().collect();
    let calls = callers::first_arguments(&text, kernel.symbols, &callees);
    let mut chains: Vec<Chain> = Vec::new();
    // By head, and those that register first: their names say what for.
    let mut calls: Vec<&Call> = calls.iter().filter(|call| call.argument >= text.end()).collect();
    calls.sort_by_key(|call| (call.argument, !registering.contains(&call.callee)));
    for call in calls {
        let offset = heads.get(&call.callee).copied().unwrap_or(0);
        let first = call.argument.wrapping_add(offset);
        let known = chains.last().is_some_and(|chain| chain.first == first);
        if !known && is_chain(kernel, first) {
            chains.push(Chain { first, name: name(kernel, call) });
        }
    }
    let (own, head) = OF_THE_FILE;
    if let Ok(at) = kernel.symbol(own) {
        let first = at.wrapping_add(kernel.offset_of(head, "head")?);
        if !chains.iter().any(|chain| chain.first == first) {
            chains.push(Chain { first, name: own.to_owned() });
        }
    }
    if chains.is_empty() {
        return Err(Missing::because(
            "notifier chains: no call of the functions that work on them was found in the text",
        ));
    }
    Ok(chains)
}

/// What a head is called: its own name where the symbol table has it, or who uses it.
fn name(kernel: &Kernel<'_>, call: &Call) -> String {
    match kernel.symbols.containing(call.argument) {
        Some((symbol, 0)) => symbol.name.to_owned(),
        _ => match kernel.symbols.containing(call.caller) {
            Some((symbol, _)) => format!("the chain of {}", symbol.name),
            None => format!("the chain at {:#x}", call.argument),
        },
    }
}

/// Whether a chain can begin there at all.
fn is_chain(kernel: &Kernel<'_>, first: u64) -> bool {
    let pointer =
        |value: u64| value == 0 || (value >= 0xff00_0000_0000_0000 && value.is_multiple_of(8));
    first.is_multiple_of(8) && kernel.u64_at(first).is_ok_and(pointer)
}

/// A member of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Block {
    /// Which chain it is on.
    chain: usize,
    address: u64,
    handler: u64,
}

/// All members of the chains. Each step goes one member further in all of them at once.
fn members(kernel: &Kernel<'_>, chains: &[Chain]) -> Result<Vec<Block>, Missing> {
    let of_block = Fields::of(kernel, "notifier_block", &["notifier_call", "next"])?;
    let heads: Vec<(u64, u32)> = chains.iter().map(|chain| (chain.first, 8)).collect();
    let mut links: Vec<(usize, u64)> = Vec::with_capacity(heads.len());
    for (chain, bytes) in kernel.memory.read_many(&heads).into_iter().enumerate() {
        let first = bytes.map_err(Missing::because)?;
        links.extend(first.first_chunk().map(|first| (chain, u64::from_le_bytes(*first))));
    }
    let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
    for _ in 0..LONGEST {
        // What was seen before is a chain that leads in a circle.
        links.retain(|link| link.1 != 0 && seen.insert(*link));
        if links.is_empty() {
            break;
        }
        let addresses: Vec<u64> = links.iter().map(|(_, address)| *address).collect();
        let blocks = of_block.read(kernel, &addresses);
        links = links
            .iter()
            .zip(blocks)
            .map(|((chain, address), block)| {
                let block = block.ok_or_else(|| {
                    let name = chains.get(*chain).map_or("?", |chain| chain.name.as_str());
                    Missing(format!("notifier chain {name}: nothing readable at {address:#x}"))
                })?;
                found.push(Block { chain: *chain, address: *address, handler: block.value(0) });
                Ok((*chain, block.value(1)))
            })
            .collect::<Result<_, Missing>>()?;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use kernel_image::Symbols;
    use kernel_image::btf::{Btf, Builder};
    use kernel_memory::FakeMemory;

    use super::*;

    const DATA: u64 = 0xffff_ffff_8200_0000;

    fn walk(memory: &FakeMemory) -> Result<Vec<(usize, u64)>, Missing> {
        let mut types = Builder::new();
        let long = types.int("u64", 8, false);
        types.structure("notifier_block", 24, &[("notifier_call", long, 0), ("next", long, 64)]);
        let types = Btf::parse(&types.finish()).unwrap();
        let symbols = Symbols::default();
        let kernel = Kernel { memory, symbols: &symbols, types: &types };
        let chain = |first| Chain { first, name: "some_chain".to_owned() };
        let blocks = members(&kernel, &[chain(DATA), chain(DATA + 8)])?;
        Ok(blocks.iter().map(|block| (block.chain, block.handler)).collect())
    }

    fn block(memory: &mut FakeMemory, at: u64, handler: u64, next: u64) {
        memory.write_u64(at, handler);
        memory.write_u64(at + 8, next);
    }

    #[test]
    fn all_members_of_all_chains_are_seen_and_a_circle_ends() {
        let mut memory = FakeMemory::new();
        memory.write_u64(DATA, 0);
        memory.write_u64(DATA + 8, DATA + 0x100);
        block(&mut memory, DATA + 0x100, 1, DATA + 0x200);
        block(&mut memory, DATA + 0x200, 2, 0);
        assert_eq!(walk(&memory), Ok(vec![(1, 1), (1, 2)]));
        memory.write_u64(DATA, DATA + 0x200);
        assert_eq!(walk(&memory), Ok(vec![(0, 2), (1, 1), (1, 2)]));
        block(&mut memory, DATA + 0x200, 2, DATA + 0x100);
        assert_eq!(walk(&memory).map(|blocks| blocks.len()), Ok(4));
    }

    #[test]
    fn a_chain_that_breaks_off_is_named() {
        let mut memory = FakeMemory::new();
        memory.write_u64(DATA, DATA + 0x5000);
        memory.write_u64(DATA + 8, 0);
        assert!(walk(&memory).unwrap_err().0.contains("some_chain"));
    }
}
