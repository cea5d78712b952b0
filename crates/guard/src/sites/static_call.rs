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

/// Functions that are not called: their code stands at the site (`warninsn` and `unlockinsn`,
/// arch/x86/kernel/static_call.c, 7.3).
const INLINE: [(&str, [u8; 5]); 2] = [
    ("__WARN_trap", [0x67, 0x48, 0x0f, 0xb9, 0x3a]),
    ("__raw_callee_save___native_queued_spin_unlock", [0x3e, 0x3e, 0xc6, 0x07, 0x00]),
];

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
    inline: Vec<(u64, [u8; 5])>,
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
            inline: INLINE
                .iter()
                .filter_map(|(name, code)| Some((symbols.address_of(name)?, *code)))
                .collect(),
        }
    }

    /// A table from entries that are known otherwise, and `__static_call_return0`.
    pub fn from_entries(entries: Vec<StaticCall>, return_zero: Option<u64>) -> Self {
        Self { entries, return_zero, ..Self::default() }
    }

    /// The calls of a module: what they may become is the same as in the kernel's own text.
    pub(super) fn of_module(entries: Vec<StaticCall>, core: &Self) -> Self {
        let Self { return_zero, plain_return, ref inline, .. } = *core;
        Self { entries, return_zero, plain_return, inline: inline.clone() }
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
        let Some(encoding) = self.decode(entry, bytes, state, returns) else {
            return Verdict::Illegal;
        };
        let expected = match (function, encoding) {
            (None, _) => true,
            (Some(0), _) => matches!(encoding, Encoding::Nop | Encoding::Return),
            (Some(function), Encoding::ReturnZero) => Some(function) == self.return_zero,
            (Some(function), Encoding::Call(to)) => {
                // Where calls are counted, the kernel compares the translated address and leaves the
                // call (__static_call_transform, 6.12 and 7.3).
                to == function && (Some(function) != self.return_zero || state.padding() != 0)
            }
            (Some(function), Encoding::Jump(to) | Encoding::JumpIf(to)) => to == function,
            (Some(_), Encoding::Nop | Encoding::Return | Encoding::Count | Encoding::Probe) => {
                false
            }
        };
        if expected { Verdict::Expected(encoding) } else { Verdict::OutOfStep(encoding) }
    }

    /// What the bytes do, if a static call may do that: a target must be where the key points.
    fn decode(
        &self,
        entry: &StaticCall,
        bytes: &[u8],
        state: &State,
        returns: &Returns,
    ) -> Option<Encoding> {
        let function = state.function_of(entry.key);
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
        let function = function?;
        let is_inline = self.inline.iter().any(|(of, code)| *of == function && bytes == code);
        let calls = target_of(at, bytes, &[0xe8]).is_some_and(|to| state.calls(to, function));
        (is_inline || calls).then_some(Encoding::Call(function))
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
                for (_, code) in self.inline.iter().filter(|(of, _)| *of == to) {
                    put(Some(code.to_vec()), Encoding::Call(to));
                }
                if state.padding() != 0 {
                    put(branch(&[0xe8], at, to - state.padding()), Encoding::Call(to));
                }
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

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: u64 = 0x9000;
    const FUNCTION: u64 = 0x5000;

    #[test]
    fn code_that_stands_for_a_function_is_legal_only_where_the_key_points_at_it() {
        let [(_, trap), (_, unlock)] = INLINE;
        let call = StaticCall { address: 0x1000, key: KEY, tail: false, condition: None };
        let calls = StaticCalls {
            entries: vec![call],
            inline: vec![(FUNCTION, trap), (FUNCTION + 16, unlock)],
            ..StaticCalls::default()
        };
        let site = calls.sites().next().unwrap();
        let judge = |function, bytes: &[u8]| {
            let mut state = State::default();
            state.set_function(KEY, function);
            calls.judge(&site, bytes, &state, &Returns::default())
        };
        assert_eq!(judge(FUNCTION, &trap), Verdict::Expected(Encoding::Call(FUNCTION)));
        assert_eq!(judge(FUNCTION, &unlock), Verdict::Illegal);
        assert_eq!(judge(FUNCTION + 32, &trap), Verdict::Illegal);
        let plain = branch(&[0xe8], 0x1000, FUNCTION).unwrap();
        assert_eq!(judge(FUNCTION, &plain), Verdict::Expected(Encoding::Call(FUNCTION)));
        // Without call depth tracking nothing leads to before a function.
        let before = branch(&[0xe8], 0x1000, FUNCTION - 9).unwrap();
        assert_eq!(judge(FUNCTION, &before), Verdict::Illegal);
    }
}
