// SPDX-License-Identifier: Apache-2.0
//! Addresses of the kernel's static data, where the symbol table does not give them.
//!
//! Without CONFIG_KALLSYMS_ALL a kernel keeps the names of its functions only. But a function that
//! is known by name holds the addresses of the variables it works on: so the code of a few
//! functions is disassembled, every data address in it becomes a candidate, and the candidate that
//! *is* the variable is told by what stands there: an id table whose entries carry their own
//! ids and point back at themselves, a list that closes and whose members look like what they must
//! be. The choice never rests on the order of instructions, so another compiler or version gives
//! the same answer or none.
//!
//! Where several candidates pass, the one with content wins over the one that is merely empty and
//! well-formed, then the one that more of the functions refer to; a tie is an error, not a guess.
//!
//! Rejected: signatures of instruction bytes (break with each compiler), and scanning all data for
//! look-alikes (slow, and an attacker may plant one; code is compared with its image elsewhere).

pub mod callers;
mod code;
mod rules;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use kernel_memory::Kernel;

pub use code::{Reference, Use, references_in};
pub(crate) use rules::KPROBE_BUCKETS;
use rules::Rule;

use crate::check::Missing;
use crate::fields::Chains;

/// Where a variable stands and how that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located {
    /// Its address.
    pub address: u64,
    /// How that is known.
    pub how: How,
}

/// How the address of a variable is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// The symbol table has it.
    FromSymbols,
    /// The code of a function refers to it, and what stands there passes for it.
    FromCode {
        /// The function.
        function: &'static str,
        /// The instruction in it.
        instruction: u64,
    },
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FromSymbols => f.write_str("symbol table"),
            Self::FromCode { function, instruction } => {
                write!(f, "code of {function} at {instruction:#x}")
            }
        }
    }
}

/// How well what stands at an address passes for a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Proof {
    /// Well-formed but empty: anything zeroed may look like it.
    Shape,
    /// It holds what only this variable holds.
    Content,
}

/// Variables found so far. A check keeps one, so that each is looked for once.
#[derive(Debug, Default)]
pub struct Recovered {
    known: HashMap<&'static str, Located>,
    /// What lists held that start at such variables.
    pub(crate) chains: Chains,
}

impl Recovered {
    /// The address of the variable `name`, from the symbol table or from code.
    ///
    /// A success is remembered. A failure is not: an id table that is empty now may have entries
    /// that prove it later.
    pub fn data_symbol(&mut self, kernel: &Kernel<'_>, name: &str) -> Result<Located, Missing> {
        if let Some(located) = self.known.get(name) {
            return Ok(*located);
        }
        let located = data_symbol(kernel, name)?;
        if let Some(rule) = rules::named(name) {
            self.known.insert(rule.name, located);
        }
        Ok(located)
    }
}

/// The address of the variable `name`, looked for anew.
pub fn data_symbol(kernel: &Kernel<'_>, name: &str) -> Result<Located, Missing> {
    let named: Vec<u64> = kernel.symbols.all_named(name).map(|symbol| symbol.address).collect();
    let by_symbol = |address: u64| Ok(Located { address, how: How::FromSymbols });
    match (named.as_slice(), rules::named(name)) {
        ([], Some(rule)) => by_rule(kernel, rule),
        ([], None) => Err(Missing(format!(
            "the kernel's symbol table has no {name} (a kernel with CONFIG_KALLSYMS_ALL has)"
        ))),
        ([address], _) | ([address, ..], None) => by_symbol(*address),
        // Other files may have static variables of the same name: `formats` of fs/exec.c is also in
        // drivers/firmware/sysfb_simplefb.c.
        (several, Some(rule)) => {
            let proof = |at: &u64| (rule.verify)(kernel, *at).map(|proof| (proof, *at));
            let mut passed: Vec<(Proof, u64)> = several.iter().filter_map(proof).collect();
            passed.sort_unstable();
            passed.reverse();
            match passed.as_slice() {
                [(best, at), rest @ ..] if rest.first().is_none_or(|(next, _)| next < best) => {
                    by_symbol(*at)
                }
                _ => by_rule(kernel, rule),
            }
        }
    }
}

/// The address of the variable `name` from code alone, even where the symbol table has it: for
/// holding one against the other.
pub fn from_code(kernel: &Kernel<'_>, name: &str) -> Result<Located, Missing> {
    match rules::named(name) {
        Some(rule) => by_rule(kernel, rule),
        None => Err(Missing(format!("{name} is not among the variables that code is known for"))),
    }
}

/// The variables that can be looked for in code.
pub fn names() -> impl Iterator<Item = &'static str> {
    rules::RULES.iter().map(|rule| rule.name)
}

/// A candidate that passed, and what speaks for it.
struct Passed {
    proof: Proof,
    votes: usize,
    how: How,
}

fn by_rule(kernel: &Kernel<'_>, rule: &Rule) -> Result<Located, Missing> {
    let mut passed: BTreeMap<u64, Passed> = BTreeMap::new();
    let mut failed: Vec<u64> = Vec::new();
    let mut present = 0;
    for function in rule.functions {
        let references = code::references(kernel, function);
        present += usize::from(!references.is_empty());
        let mut voted: Vec<u64> = Vec::new();
        for reference in references.iter().filter(|reference| (rule.takes)(reference.usage)) {
            for address in candidates(kernel, rule, reference.address) {
                if failed.contains(&address) || voted.contains(&address) {
                    continue;
                }
                voted.push(address);
                if let Some(known) = passed.get_mut(&address) {
                    known.votes += 1;
                } else if let Some(proof) = (rule.verify)(kernel, address) {
                    let how = How::FromCode { function, instruction: reference.instruction };
                    passed.insert(address, Passed { proof, votes: 1, how });
                } else {
                    failed.push(address);
                }
            }
        }
    }
    choose(rule, present, &passed)
}

/// The addresses at which the variable would start if `address` referred to it or to one of its
/// members that code is known to address directly.
fn candidates(kernel: &Kernel<'_>, rule: &Rule, address: u64) -> Vec<u64> {
    let mut starts = vec![address];
    for (of, member) in rule.members {
        if let Some(offset) = rules::offset(kernel, of, member) {
            starts.push(address.wrapping_sub(offset));
        }
    }
    starts
}

fn choose(rule: &Rule, present: usize, passed: &BTreeMap<u64, Passed>) -> Result<Located, Missing> {
    let name = rule.name;
    let functions = rule.functions.join(", ");
    if present == 0 {
        return Err(Missing(format!(
            "the kernel's symbol table has no {name}, and none of the functions that use it \
             ({functions}): {}",
            rule.configured_by
        )));
    }
    let mut ranked: Vec<(&u64, &Passed)> = passed.iter().collect();
    ranked.sort_by_key(|(_, passed)| std::cmp::Reverse((passed.proof, passed.votes)));
    match ranked.as_slice() {
        [] => Err(Missing(format!(
            "the kernel's symbol table has no {name}, and no address in the code of {functions} \
             passes for it"
        ))),
        [(address, best), rest @ ..] => match rest.first() {
            Some((other, next)) if (next.proof, next.votes) == (best.proof, best.votes) => {
                Err(Missing(format!(
                    "the kernel's symbol table has no {name}, and in the code of {functions} both \
                     {address:#x} and {other:#x} pass for it"
                )))
            }
            _ => Ok(Located { address: **address, how: best.how }),
        },
    }
}
