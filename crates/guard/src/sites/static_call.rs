// SPDX-License-Identifier: Apache-2.0
//! Direct calls that the kernel can point elsewhere.
//!
//! `.static_call_sites` (include/linux/static_call_types.h): entries of 8 bytes, s32 address, s32
//! key, each relative to its own address. Bit 0 of the key: a tail call; bit 1: the code was in init
//! memory. What a site holds follows from `key->func` (__static_call_transform,
//! arch/x86/kernel/static_call.c).

use kernel_image::Symbols;

use super::{Encoding, Legal, NOP5, Returns, Site, SiteKind, State, Verdict};
use super::{branch, relative, table, target_of};
use crate::baseline::{Baseline, RegionKind};

const ENTRY: usize = 8;

/// `xor %eax, %eax` with three idle prefixes (6.2 and later), or `data16 data16 xor %rax, %rax`.
const RETURN_ZERO: [[u8; 5]; 2] = [[0x2e, 0x2e, 0x2e, 0x31, 0xc0], [0x66, 0x66, 0x48, 0x31, 0xc0]];

/// One call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StaticCall {
    /// Where it is.
    pub address: u64,
    /// The address of its `struct static_call_key`.
    pub key: u64,
    /// Whether it is a jump at the end of a function.
    pub tail: bool,
    /// For a conditional tail call, the second byte of its opcode (`0f 80` to `0f 8f`).
    pub condition: Option<u8>,
}

/// The table.
#[derive(Debug, Default)]
pub struct StaticCalls {
    entries: Vec<StaticCall>,
    return_zero: Option<u64>,
    plain_return: Option<u64>,
}

impl StaticCalls {
    /// Reads the table, without the entries of init code.
    pub(super) fn gather(
        baseline: &Baseline,
        symbols: &Symbols,
        reduced: &mut Vec<String>,
    ) -> Self {
        let bounds = ("__start_static_call_sites", "__stop_static_call_sites");
        let Some((start, bytes)) = table(baseline, symbols, bounds.0, bounds.1) else {
            reduced.push(format!("static calls are not known: {} is not in rodata", bounds.0));
            return Self::default();
        };
        let Some(text) = baseline.region(RegionKind::Text) else { return Self::default() };
        let entries = bytes
            .chunks_exact(ENTRY)
            .zip((start..).step_by(ENTRY))
            .filter_map(|(entry, at)| {
                let key = relative(at, entry, 4)?;
                let address = relative(at, entry, 0)?;
                let condition = match baseline.bytes_at(address, 2)? {
                    [0x0f, second @ 0x80..=0x8f] => Some(*second),
                    _ => None,
                };
                let tail = key & 1 != 0;
                Some(StaticCall { address, key: key & !3, tail, condition })
            })
            .filter(|call| text.holds(call.address))
            .collect();
        Self {
            entries,
            return_zero: symbols.address_of("__static_call_return0"),
            plain_return: symbols.address_of("__static_call_return"),
        }
    }

    /// A table from entries that are known otherwise, and `__static_call_return0`.
    pub fn from_entries(entries: Vec<StaticCall>, return_zero: Option<u64>) -> Self {
        Self { entries, return_zero, plain_return: None }
    }

    /// The entries, in the order of the table.
    pub fn entries(&self) -> &[StaticCall] {
        &self.entries
    }

    /// The entry of a site.
    pub fn entry(&self, site: &Site) -> Option<&StaticCall> {
        self.entries.get(site.index as usize)
    }

    pub(super) fn sites(&self) -> impl Iterator<Item = Site> {
        self.entries.iter().zip(0..).map(|(entry, index)| Site {
            address: entry.address,
            length: if entry.condition.is_some() { 6 } else { 5 },
            kind: SiteKind::StaticCall,
            index,
        })
    }

    pub(super) fn judge(
        &self,
        site: &Site,
        bytes: &[u8],
        state: &State,
        returns: &Returns,
    ) -> Verdict {
        let Some(entry) = self.entry(site) else { return Verdict::Illegal };
        let function = state.function_of(entry.key);
        let Some(encoding) = self.decode(entry, bytes, function, returns) else {
            return Verdict::Illegal;
        };
        let expected = match (function, encoding) {
            (None, _) => true,
            (Some(0), _) => matches!(encoding, Encoding::Nop | Encoding::Return),
            (Some(function), Encoding::ReturnZero) => Some(function) == self.return_zero,
            (Some(function), Encoding::Call(to)) => {
                to == function && Some(function) != self.return_zero
            }
            (Some(function), Encoding::Jump(to) | Encoding::JumpIf(to)) => to == function,
            (Some(_), Encoding::Nop | Encoding::Return) => false,
        };
        if expected { Verdict::Expected(encoding) } else { Verdict::OutOfStep(encoding) }
    }

    /// What the bytes do, if a static call may do that: a target must be where the key points.
    fn decode(
        &self,
        entry: &StaticCall,
        bytes: &[u8],
        function: Option<u64>,
        returns: &Returns,
    ) -> Option<Encoding> {
        let at = entry.address;
        if let Some(condition) = entry.condition {
            let to = target_of(at, bytes, &[0x0f, condition])?;
            if Some(to) == function {
                return Some(Encoding::JumpIf(to));
            }
            return (Some(to) == self.plain_return || returns.holds(to))
                .then_some(Encoding::Return);
        }
        if entry.tail {
            if let Some(to) = target_of(at, bytes, &[0xe9])
                && Some(to) == function
            {
                return Some(Encoding::Jump(to));
            }
            return returns.matches(at, bytes).then_some(Encoding::Return);
        }
        if bytes == NOP5 {
            return Some(Encoding::Nop);
        }
        if RETURN_ZERO.iter().any(|zero| bytes == zero) {
            return Some(Encoding::ReturnZero);
        }
        target_of(at, bytes, &[0xe8]).filter(|to| Some(*to) == function).map(Encoding::Call)
    }

    pub(super) fn legal(&self, site: &Site, state: &State, returns: &Returns) -> Vec<Legal> {
        let Some(entry) = self.entry(site) else { return Vec::new() };
        let at = entry.address;
        let function = state.function_of(entry.key).filter(|function| *function != 0);
        let mut legal = Vec::new();
        let mut put = |bytes: Option<Vec<u8>>, encoding| {
            legal.extend(bytes.map(|bytes| Legal { bytes, encoding }));
        };
        if let Some(condition) = entry.condition {
            let opcode = [0x0f, condition];
            if let Some(to) = function {
                put(branch(&opcode, at, to), Encoding::JumpIf(to));
            }
            for to in self.plain_return.iter().chain(returns.thunks()) {
                put(branch(&opcode, at, *to), Encoding::Return);
            }
        } else if entry.tail {
            if let Some(to) = function {
                put(branch(&[0xe9], at, to), Encoding::Jump(to));
            }
            for bytes in returns.legal(at) {
                put(Some(bytes), Encoding::Return);
            }
        } else {
            if let Some(to) = function {
                put(branch(&[0xe8], at, to), Encoding::Call(to));
            }
            put(Some(NOP5.to_vec()), Encoding::Nop);
            for zero in RETURN_ZERO {
                put(Some(zero.to_vec()), Encoding::ReturnZero);
            }
        }
        legal
    }
}
