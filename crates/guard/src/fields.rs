// SPDX-License-Identifier: Apache-2.0
//! Some fields of many objects of one type, read in one go.
//!
//! Typed access asks memory once for each field. A check that looks at a thousand tasks names the
//! fields it needs beforehand instead, and gets them with one question to the source.

use std::rc::Rc;

use kernel_memory::{AccessError, AddressMap, Kernel};

/// Which bytes of a type hold the fields asked for.
#[derive(Clone, Debug)]
pub struct Fields {
    start: u64,
    length: u32,
    /// Offset from `start` and size of each.
    members: Vec<(usize, usize)>,
}

/// The fields of one object.
#[derive(Clone, Debug)]
pub struct Record<'f> {
    fields: &'f Fields,
    /// The object's address.
    pub address: u64,
    /// What was read of all objects in one go, and where this one begins in it.
    bytes: Rc<Vec<u8>>,
    at: usize,
}

impl Fields {
    /// The fields `members` of the type `of`; records give their values by position in `members`.
    /// Bit-fields are not supported: take the byte or word that they are in.
    pub fn of(kernel: &Kernel<'_>, of: &str, members: &[&str]) -> Result<Self, AccessError> {
        let object = kernel.object(of, 0)?;
        let mut places = Vec::with_capacity(members.len());
        for member in members {
            let field = object.field(member)?;
            places.push((field.address(), field.size()?));
        }
        let start = places.iter().map(|(offset, _)| *offset).min().unwrap_or(0);
        let end = places.iter().map(|(offset, size)| offset + size).max().unwrap_or(0);
        let members =
            places.iter().map(|(offset, size)| ((offset - start) as usize, *size as usize));
        Ok(Self { start, length: (end - start) as u32, members: members.collect() })
    }

    /// Reads the fields of the objects at `addresses`; those that cannot be read are `None`.
    pub fn read(&self, kernel: &Kernel<'_>, addresses: &[u64]) -> Vec<Option<Record<'_>>> {
        let ranges: Vec<(u64, u32)> = addresses
            .iter()
            .map(|address| (address.wrapping_add(self.start), self.length))
            .collect();
        let mut all = Vec::with_capacity(addresses.len() * self.length as usize);
        let mut places = vec![None; addresses.len()];
        let read = kernel.memory.visit_many(&ranges, &mut |index, bytes| {
            if let (Ok(bytes), Some(place)) = (bytes, places.get_mut(index)) {
                *place = Some(all.len());
                all.extend_from_slice(bytes);
            }
        });
        if read.is_err() {
            places.fill(None);
        }
        let bytes = Rc::new(all);
        let record = |(address, at): (&u64, Option<usize>)| {
            Some(Record { fields: self, address: *address, bytes: Rc::clone(&bytes), at: at? })
        };
        addresses.iter().zip(places).map(record).collect()
    }

    /// Reads the fields of many objects that lie close together: all of the range that they span, if
    /// it is at most `limit` bytes long, with one read, which is much faster than one for each.
    pub fn read_dense(
        &self,
        kernel: &Kernel<'_>,
        addresses: &[u64],
        limit: u64,
    ) -> Vec<Option<Record<'_>>> {
        let (lowest, highest) = (addresses.iter().min(), addresses.iter().max());
        let (Some(lowest), Some(highest)) = (lowest, highest) else { return Vec::new() };
        let first = lowest.wrapping_add(self.start);
        let span = (highest - lowest).saturating_add(u64::from(self.length));
        if span > limit {
            return self.read(kernel, addresses);
        }
        // A hole between the objects must not lose them all.
        let Ok(all) = kernel.bytes_at(first, span as usize) else {
            return self.read(kernel, addresses);
        };
        let bytes = Rc::new(all);
        let record = |address: &u64| {
            let at = (address - lowest) as usize;
            Some(Record { fields: self, address: *address, bytes: Rc::clone(&bytes), at })
        };
        addresses.iter().map(record).collect()
    }

    /// Reads the fields of one object.
    pub fn read_one(&self, kernel: &Kernel<'_>, address: u64) -> Option<Record<'_>> {
        self.read(kernel, &[address]).pop().flatten()
    }
}

/// The members of lists as they were when these were walked last.
///
/// A list is followed from node to node, which costs one question to the source for each. Most of
/// its members are the same as a moment ago: so these are read in one go first, and the walk asks
/// anew only for those that came since. The links are those read now, never remembered ones.
#[derive(Debug, Default)]
pub struct Chains {
    members: AddressMap<Vec<u64>>,
}

/// How to follow a list.
#[derive(Clone, Copy, Debug)]
pub struct Chain {
    /// Where the first link is: a `list_head`, or a pointer to the first object.
    pub head: u64,
    /// The offset of what links lead to within an object.
    pub link: u64,
    /// Which field of a record leads to the next one.
    pub next: usize,
    /// The link at which the list ends.
    pub end: u64,
    /// Members at which the walk gives up.
    pub most: usize,
}

impl Chains {
    /// The members of a list in order, with their fields. The error names the link at which the list
    /// breaks off or goes in a circle.
    pub fn walk<'f>(
        &mut self,
        kernel: &Kernel<'_>,
        fields: &'f Fields,
        chain: Chain,
    ) -> Result<Vec<Record<'f>>, u64> {
        let mut members = self.members.remove(&chain.head).unwrap_or_default();
        let mut known = fields.read(kernel, &members);
        // Where those are that did not come in the order of before.
        let mut elsewhere: Option<AddressMap<usize>> = None;
        let mut records: Vec<Record<'f>> = Vec::with_capacity(members.len());
        let mut next = 0;
        let mut link = kernel.u64_at(chain.head).map_err(|_| chain.head)?;
        while link != chain.end {
            let address = link.wrapping_sub(chain.link);
            if members.get(next) != Some(&address) {
                let places =
                    elsewhere.get_or_insert_with(|| members.iter().copied().zip(0..).collect());
                // One that came since is followed by the one that would have come in its place.
                next = places.get(&address).copied().unwrap_or(next.wrapping_sub(1));
            }
            let is_next = members.get(next) == Some(&address);
            let before = known.get_mut(next).filter(|_| is_next).and_then(Option::take);
            let record = before.or_else(|| fields.read_one(kernel, address));
            let Some(record) = record.filter(|_| records.len() < chain.most) else {
                return Err(link);
            };
            link = record.value(chain.next);
            records.push(record);
            next = next.wrapping_add(1);
        }
        members.clear();
        members.extend(records.iter().map(|record| record.address));
        self.members.insert(chain.head, members);
        Ok(records)
    }
}

impl Record<'_> {
    /// The bytes of the field at `position`; empty where there is no such field.
    pub fn bytes(&self, position: usize) -> &[u8] {
        let place = self.fields.members.get(position);
        let range = place.map(|(offset, size)| self.at + offset..self.at + offset + size);
        range.and_then(|range| self.bytes.get(range)).unwrap_or_default()
    }

    /// The field at `position` as an unsigned number: its first eight bytes at most.
    pub fn value(&self, position: usize) -> u64 {
        let mut word = [0; 8];
        for (to, from) in word.iter_mut().zip(self.bytes(position)) {
            *to = *from;
        }
        u64::from_le_bytes(word)
    }

    /// The field at `position` as a string that ends at its first NUL.
    pub fn text(&self, position: usize) -> String {
        let bytes = self.bytes(position);
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use kernel_image::Symbols;
    use kernel_image::btf::{Btf, Builder};
    use kernel_memory::FakeMemory;

    use super::*;

    const HEAD: u64 = 0xffff_8880_0000_0000;

    /// Nodes of `struct node { u64 next; u32 value; }` at these addresses, in a ring with the head.
    fn ring(nodes: &[u64]) -> FakeMemory {
        let mut memory = FakeMemory::new();
        let mut at = HEAD;
        for node in nodes {
            memory.write_u64(at, *node);
            memory.write_u32(node + 8, (*node & 0xffff) as u32);
            at = *node;
        }
        memory.write_u64(at, HEAD);
        memory
    }

    fn walk(chains: &mut Chains, memory: &FakeMemory) -> Result<Vec<u64>, u64> {
        let mut types = Builder::new();
        let (long, int) = (types.int("u64", 8, false), types.int("u32", 4, false));
        types.structure("node", 16, &[("next", long, 0), ("value", int, 64)]);
        let types = Btf::parse(&types.finish()).unwrap();
        let symbols = Symbols::default();
        let kernel = Kernel { memory, symbols: &symbols, types: &types };
        let fields = Fields::of(&kernel, "node", &["value", "next"]).unwrap();
        let chain = Chain { head: HEAD, link: 0, next: 1, end: HEAD, most: 8 };
        let records = chains.walk(&kernel, &fields, chain)?;
        Ok(records.iter().map(|record| record.value(0)).collect())
    }

    #[test]
    fn a_list_is_followed_as_it_is_now_whatever_it_was_before() {
        let mut chains = Chains::default();
        for nodes in [&[0x10, 0x20, 0x30][..], &[0x30, 0x10], &[], &[0x40, 0x10, 0x50], &[0x10]] {
            let addresses: Vec<u64> = nodes.iter().map(|node| HEAD + 0x1000 + node).collect();
            let expected: Vec<u64> = nodes.iter().map(|node| 0x1000 + node).collect();
            assert_eq!(walk(&mut chains, &ring(&addresses)), Ok(expected));
        }
    }

    #[test]
    fn a_list_that_breaks_off_or_does_not_end_is_an_error() {
        let mut memory = ring(&[HEAD + 0x10, HEAD + 0x20]);
        memory.write_u64(HEAD + 0x20, HEAD + 0x10);
        assert_eq!(walk(&mut Chains::default(), &memory), Err(HEAD + 0x10));
        memory.write_u64(HEAD + 0x20, 0xdead_0000_0000_0100);
        assert_eq!(walk(&mut Chains::default(), &memory), Err(0xdead_0000_0000_0100));
    }
}
