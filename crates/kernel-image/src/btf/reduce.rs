// SPDX-License-Identifier: Apache-2.0
//! BTF of a few types out of a kernel's, for libbpf.
//!
//! libbpf compares the name of each of the kernel's 126,000 types with that of each structure that a
//! BPF object reads, for each object anew (`bpf_core_add_cands`, tools/lib/bpf/libbpf.c, Linux 6.18).
//! Of fewer types it finds the same, sooner.

use std::collections::HashMap;

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
        let word = move |at| u32_at(&self.bytes, at).unwrap_or(0);
        let target = record.kind.refers().then_some(record.value);
        // The element and the index.
        let array = (record.kind == Kind::Array).then(|| [0, 4].map(|at| record.entries() + at));
        let has_entries = part == Part::Whole || !record.kind.is_composite();
        let entries = record.kind.entry().filter(|_| has_entries);
        let entries = entries.into_iter().flat_map(move |entry| {
            let at = (0..record.count as usize).map(move |n| record.entries() + entry.width * n);
            at.filter_map(move |at| Some(at + entry.reference?))
        });
        let words = array.into_iter().flatten().chain(entries).map(word);
        target.into_iter().chain(words).map(TypeId)
    }

    fn written(&self, parts: &[Part]) -> Vec<u8> {
        let kept = || parts.iter().enumerate().filter(|(_, part)| **part != Part::Nothing);
        let kept = || kept().map(|(id, part)| (TypeId(id as u32), *part));
        // Void is number 0 there too, and has no record.
        let records = || kept().filter_map(|(id, part)| Some((id, self.record(id)?, part)));
        let numbers: HashMap<u32, u32> =
            (1..).zip(records()).map(|(new, (old, ..))| (old.0, new)).collect();
        let number = |id: u32| numbers.get(&id).copied().unwrap_or(0);
        let word = |at| u32_at(&self.bytes, at).unwrap_or(0);
        let mut types = Builder::new();
        for (_, record, part) in records() {
            let whole = part == Part::Whole || !record.kind.is_composite();
            let count = if whole { record.count } else { 0 };
            let value = if record.kind.refers() { number(record.value) } else { record.value };
            let name = self.name_at(record.name);
            types.record(name, record.kind as u32, count as usize, record.flag && whole, value);
            let from = record.entries();
            let Some(entry) = record.kind.entry() else {
                let words = (0..record.kind.trailer(count)).step_by(4).map(|at| from + at);
                let array = record.kind == Kind::Array;
                // The third word of an array is its length.
                let words = words.enumerate().map(|(n, at)| match word(at) {
                    id if array && n < 2 => number(id),
                    other => other,
                });
                types.words(&words.collect::<Vec<_>>());
                continue;
            };
            for at in (0..count as usize).map(|n| from + entry.width * n) {
                let mut words: Vec<u32> = (at..at + entry.width).step_by(4).map(word).collect();
                for (place, new) in [
                    (
                        entry.name,
                        entry.name.map(|place| types.name(self.name_at(word(at + place)))),
                    ),
                    (entry.reference, entry.reference.map(|place| number(word(at + place)))),
                ] {
                    if let (Some(place), Some(new)) = (place, new)
                        && let Some(word) = words.get_mut(place / 4)
                    {
                        *word = new;
                    }
                }
                types.words(&words);
            }
        }
        types.finish()
    }
}
