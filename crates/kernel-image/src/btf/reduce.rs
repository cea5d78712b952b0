// SPDX-License-Identifier: Apache-2.0
//! BTF of a few types out of a kernel's, for libbpf.
//!
//! libbpf compares the name of each of the kernel's 126,000 types with that of each structure that a
//! BPF object reads, for each object anew (`bpf_core_add_cands`, tools/lib/bpf/libbpf.c, Linux 6.18).
//! Of fewer types it finds the same, sooner.

use std::collections::HashMap;

use super::types::Word;
use super::{Btf, Builder, Kind, Record, TypeId, u32_at};

/// How much of a type is kept. The order matters: more is greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    #[default]
    Nothing,
    /// That it is one of its kind, called so: a structure without members. What a pointer leads to is
    /// compared by kind and no further (`__bpf_core_types_are_compat`, tools/lib/bpf/relo_core.c).
    Outline,
    /// Its members too.
    Whole,
}

impl Btf {
    /// The types with these names, of all kinds that have members or stand for another type, and what
    /// they are made of. Types have other numbers there.
    ///
    /// Where each member is, what each enumerator is worth, and whether there is such a type comes out
    /// as it does of all types.
    pub fn reduced<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Vec<u8> {
        let mut parts = vec![Part::Nothing; self.len() + 1];
        let mut left = Vec::new();
        for name in names {
            let named = self.all_named(name);
            let data = named.filter(|(kind, _)| !matches!(kind, Kind::Function | Kind::Variable));
            left.extend(data.map(|(_, id)| (id, Part::Whole)));
        }
        while let Some((id, part)) = left.pop() {
            let Some(known) = parts.get_mut(id.0 as usize) else { continue };
            if part <= *known {
                continue;
            }
            *known = part;
            let Some(record) = self.record(id) else { continue };
            // What lies behind a pointer is not part of what has the pointer.
            let within = if record.kind == Kind::Pointer { Part::Outline } else { part };
            left.extend(self.referred(record, part).map(|id| (id, within)));
        }
        self.written(&parts)
    }

    /// The types that a record refers to, in so far as this part of it does.
    fn referred(&self, record: Record, part: Part) -> impl Iterator<Item = TypeId> {
        let target = record.kind.refers().then_some(record.value);
        let words = (0..record.kind.trailer(kept(record, part))).step_by(4);
        let types = words.filter(move |at| record.kind.word(*at) == Word::Type);
        let types = types.map(move |at| u32_at(&self.bytes, record.entries() + at).unwrap_or(0));
        target.into_iter().chain(types).map(TypeId)
    }

    fn written(&self, parts: &[Part]) -> Vec<u8> {
        let wanted = || parts.iter().enumerate().filter(|(_, part)| **part != Part::Nothing);
        // Void is number 0 there too, and has no record.
        let records =
            || wanted().filter_map(|(id, part)| Some((id, self.record(TypeId(id as u32))?, *part)));
        let numbers: HashMap<usize, u32> =
            records().zip(1..).map(|((old, ..), new)| (old, new)).collect();
        let number = |id: u32| numbers.get(&(id as usize)).copied().unwrap_or(0);
        let mut types = Builder::new();
        for (_, record, part) in records() {
            let count = kept(record, part);
            let flag = record.flag && count == record.count;
            let value = if record.kind.refers() { number(record.value) } else { record.value };
            let name = self.name_at(record.name);
            types.record(name, record.kind as u32, count as usize, flag, value);
            for at in (0..record.kind.trailer(count)).step_by(4) {
                let word = u32_at(&self.bytes, record.entries() + at).unwrap_or(0);
                let word = match record.kind.word(at) {
                    Word::Name => types.name(self.name_at(word)),
                    Word::Type => number(word),
                    Word::Other => word,
                };
                types.words(&[word]);
            }
        }
        types.finish()
    }
}

/// How many entries are kept of a record.
fn kept(record: Record, part: Part) -> u32 {
    if part == Part::Whole || !record.kind.is_composite() { record.count } else { 0 }
}
