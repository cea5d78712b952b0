// SPDX-License-Identifier: Apache-2.0
//! The places in the text that the kernel itself patches, and what each may hold.
//!
//! A site is an address, a length and a kind; its table knows the rest. Which bytes are legal at a
//! site depends on its table (a jump label is a no-op or a jump to its one target) and on what the
//! kernel's data says now ([`State`]: a static call goes where its key points). The writers of
//! kernel text in 6.12 to 7.3 are known completely: jump_label.c, static_call.c, ftrace.c, kprobes,
//! alternative.c, kgdb.c, bpf_jit_comp.c of arch/x86.
//!
//! There are 40,000 run-time sites in a small kernel and 400,000 with those of boot time, so an
//! entry is 12 bytes and lookup is a binary search.

pub mod ftrace;
pub mod jump_label;
mod module;
pub mod padding;
pub mod returns;
pub mod state;
pub mod static_call;
pub mod trampoline;

use kernel_memory::Kernel;
use serde::Serialize;

use crate::baseline::{Baseline, RegionKind};
use ftrace::{FtraceCalls, FtraceSites};
use jump_label::JumpLabels;
use padding::Paddings;
use returns::Returns;
pub use state::State;
use static_call::StaticCalls;
use trampoline::Trampolines;

/// The no-op of five bytes that all of the tables use (`x86_nops[5]`, arch/x86/include/asm/nops.h).
pub const NOP5: [u8; 5] = [0x0f, 0x1f, 0x44, 0x00, 0x00];

/// The first byte of any site while a text poke is under way, and of a kprobe.
pub const INT3: u8 = 0xcc;

/// The longest site: the code that counts a call.
pub const LONGEST: usize = 16;

/// Which table a site belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SiteKind {
    /// A branch on a static key (`__jump_table`).
    JumpLabel,
    /// A direct call that the kernel can point elsewhere (`.static_call_sites`).
    StaticCall,
    /// The jump behind a static call's name (`__SCT__*`, .static_call.text).
    StaticCallTrampoline,
    /// The call at the start of a function that the function tracer may switch on.
    Ftrace,
    /// The call within `ftrace_caller` or `ftrace_regs_caller` to whoever traces.
    FtraceCall,
    /// The bytes before a function, in which calls are counted (`retbleed=stuff`).
    Padding,
}

impl SiteKind {
    /// What it is called in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::JumpLabel => "jump label",
            Self::StaticCall => "static call",
            Self::StaticCallTrampoline => "static call trampoline",
            Self::Ftrace => "ftrace site",
            Self::FtraceCall => "ftrace call",
            Self::Padding => "function padding",
        }
    }

    /// The table in the kernel that allows a change there.
    pub fn table(self) -> &'static str {
        match self {
            Self::JumpLabel => "__jump_table",
            Self::StaticCall => ".static_call_sites",
            Self::StaticCallTrampoline => ".static_call.text",
            Self::Ftrace => "__mcount_loc",
            Self::FtraceCall => "ftrace_caller",
            Self::Padding => "skl_call_thunk_template",
        }
    }
}

/// One place that the kernel may patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Site {
    /// The address of its first byte.
    pub address: u64,
    /// How many bytes the kernel may change there.
    pub length: u8,
    /// Which table it belongs to.
    pub kind: SiteKind,
    /// Its place in that table.
    pub index: u32,
}

impl Site {
    /// The address after its last byte.
    pub fn end(&self) -> u64 {
        self.address + u64::from(self.length)
    }
}

/// What an instruction at a site does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Nothing.
    Nop,
    /// Jumps to an address.
    Jump(u64),
    /// Jumps there on the site's own condition.
    JumpIf(u64),
    /// Calls an address.
    Call(u64),
    /// Sets the result to zero, in place of a call of `__static_call_return0`.
    ReturnZero,
    /// Returns.
    Return,
    /// Counts a call and goes on into the function behind it.
    Count,
    /// Stops for a kprobe.
    Probe,
}

/// What a site's table says of the bytes at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// What the kernel's data asks for now, as far as that is known.
    Expected(Encoding),
    /// Legal there, but the kernel's data asks for something else now.
    OutOfStep(Encoding),
    /// An int3: a text poke under way. It has to be read again.
    Poking,
    /// Nothing that the kernel would put there.
    Illegal,
}

impl Verdict {
    /// Whether the table allows it, in step with the kernel's data or not.
    pub fn is_legal(self) -> bool {
        matches!(self, Self::Expected(_) | Self::OutOfStep(_))
    }
}

/// Bytes that a site may hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Legal {
    /// The bytes, as many as the site is long.
    pub bytes: Vec<u8>,
    /// What they do.
    pub encoding: Encoding,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    offset: u32,
    index: u32,
    kind: SiteKind,
    length: u8,
}

/// All sites of a kernel, in order of address.
#[derive(Debug, Default)]
pub struct Sites {
    text_start: u64,
    entries: Vec<Entry>,
    /// Branches on static keys.
    pub jump_labels: JumpLabels,
    /// Static calls in the text.
    pub static_calls: StaticCalls,
    /// Trampolines of static calls.
    pub trampolines: Trampolines,
    /// Calls at the start of functions.
    pub ftrace: FtraceSites,
    /// Calls to whoever traces.
    pub ftrace_calls: FtraceCalls,
    /// Bytes before functions that have no code yet.
    pub paddings: Paddings,
    /// What a return looks like on this machine.
    pub returns: Returns,
    /// What could not be known about the sites, one line each.
    pub reduced: Vec<String>,
}

impl Sites {
    /// Gathers the sites from the tables in the baseline: those stand in read-only data, so the
    /// baseline's copy of them is as trusted as the rest of it.
    pub fn gather(baseline: &Baseline, kernel: &Kernel<'_>) -> Self {
        let Some(text) = baseline.region(RegionKind::Text) else { return Self::default() };
        let symbols = kernel.symbols;
        let mut reduced = Vec::new();
        let jump_labels = JumpLabels::gather(baseline, symbols, &mut reduced);
        let static_calls = StaticCalls::gather(baseline, symbols, &mut reduced);
        let trampolines = Trampolines::gather(baseline, kernel);
        let mut sites = Self {
            text_start: text.start,
            jump_labels,
            static_calls,
            trampolines,
            ftrace_calls: FtraceCalls::gather(&text, symbols),
            paddings: Paddings::gather(&text, kernel),
            reduced,
            ..Self::default()
        };
        let tails = sites.static_calls.entries().iter().filter(|call| call.tail);
        let tails = tails.map(|call| call.address);
        let trampolines = sites.trampolines.entries().iter().map(|entry| entry.address);
        sites.returns = Returns::of(baseline, symbols, tails.chain(trampolines));
        sites.index();
        sites.ftrace = FtraceSites::gather(&text, kernel, &sites);
        sites.reduced.extend(sites.ftrace.reduced());
        sites.index();
        sites
    }

    /// Puts the entries of all tables in order.
    fn index(&mut self) {
        self.entries.clear();
        let start = self.text_start;
        let all = self
            .jump_labels
            .sites()
            .chain(self.static_calls.sites())
            .chain(self.trampolines.sites())
            .chain(self.ftrace_calls.sites())
            .chain(self.ftrace.sites())
            .chain(self.paddings.sites());
        self.entries = all
            .filter_map(|site| {
                let offset = u32::try_from(site.address.checked_sub(start)?).ok()?;
                Some(Entry { offset, index: site.index, kind: site.kind, length: site.length })
            })
            .collect();
        self.entries.sort_by_key(|entry| (entry.offset, entry.kind));
        // Two tables may name one place (a static call within its own trampoline's list): the
        // first decides, as either of them would allow what it allows.
        self.entries.dedup_by_key(|entry| entry.offset);
        self.entries.shrink_to_fit();
    }

    /// How many sites there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All sites in order of address.
    pub fn iter(&self) -> impl Iterator<Item = Site> {
        self.entries.iter().map(|entry| self.site(entry))
    }

    /// The site that holds `address`.
    pub fn at(&self, address: u64) -> Option<Site> {
        self.first_after(address).filter(|site| site.address <= address)
    }

    /// The first site that ends after `address`.
    pub fn first_after(&self, address: u64) -> Option<Site> {
        let offset = address.saturating_sub(self.text_start);
        let after = self
            .entries
            .partition_point(|entry| u64::from(entry.offset) + u64::from(entry.length) <= offset);
        self.entries.get(after).map(|entry| self.site(entry))
    }

    /// How many bytes of text the sites cover.
    pub fn mutable_bytes(&self) -> u64 {
        let mut end = 0;
        self.iter()
            .map(|site| {
                let new = site.end().saturating_sub(site.address.max(end));
                end = end.max(site.end());
                new
            })
            .sum()
    }

    /// What the site's table says of `bytes` there.
    pub fn judge(&self, site: &Site, bytes: &[u8], state: &State) -> Verdict {
        if bytes.len() != usize::from(site.length) {
            return Verdict::Illegal;
        }
        if bytes.first() == Some(&INT3) {
            return Verdict::Poking;
        }
        match site.kind {
            SiteKind::JumpLabel => self.jump_labels.judge(site, bytes, state),
            SiteKind::StaticCall => self.static_calls.judge(site, bytes, state, &self.returns),
            SiteKind::StaticCallTrampoline => {
                self.trampolines.judge(site, bytes, state, &self.returns)
            }
            SiteKind::Ftrace => self.ftrace.judge(site, bytes, state),
            SiteKind::FtraceCall => self.ftrace_calls.judge(site, bytes, state),
            SiteKind::Padding => self.paddings.judge(site, bytes),
        }
    }

    /// All that the site may hold, with what the kernel's data asks for now first.
    pub fn legal(&self, site: &Site, state: &State) -> Vec<Legal> {
        match site.kind {
            SiteKind::JumpLabel => self.jump_labels.legal(site, state),
            SiteKind::StaticCall => self.static_calls.legal(site, state, &self.returns),
            SiteKind::StaticCallTrampoline => self.trampolines.legal(site, state, &self.returns),
            SiteKind::Ftrace => self.ftrace.legal(site, state),
            SiteKind::FtraceCall => self.ftrace_calls.legal(site, state),
            SiteKind::Padding => self.paddings.legal(site),
        }
    }

    fn site(&self, entry: &Entry) -> Site {
        Site {
            address: self.text_start + u64::from(entry.offset),
            length: entry.length,
            kind: entry.kind,
            index: entry.index,
        }
    }
}

/// Where a branch at `address` leads, if `bytes` are `opcode` and a 32-bit displacement.
pub(crate) fn target_of(address: u64, bytes: &[u8], opcode: &[u8]) -> Option<u64> {
    let displacement: [u8; 4] = bytes.strip_prefix(opcode)?.try_into().ok()?;
    let next = address.wrapping_add(bytes.len() as u64);
    Some(next.wrapping_add_signed(i64::from(i32::from_le_bytes(displacement))))
}

/// The bytes of a branch from `address` to `target` with a 32-bit displacement, if it reaches.
pub(crate) fn branch(opcode: &[u8], address: u64, target: u64) -> Option<Vec<u8>> {
    let next = address.wrapping_add(opcode.len() as u64 + 4);
    let displacement = i32::try_from(target.wrapping_sub(next).cast_signed()).ok()?;
    let mut bytes = opcode.to_vec();
    bytes.extend(displacement.to_le_bytes());
    Some(bytes)
}

/// The value of a relative pointer of 32 bits that stands at `address` within the baseline.
pub(crate) fn relative(address: u64, bytes: &[u8], at: usize) -> Option<u64> {
    let value: [u8; 4] = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
    let from = address.wrapping_add(at as u64);
    Some(from.wrapping_add_signed(i64::from(i32::from_le_bytes(value))))
}

/// The bytes between two symbols of the baseline's read-only data, and where they begin.
pub(crate) fn table<'b>(
    baseline: &'b Baseline,
    symbols: &kernel_image::Symbols,
    start: &str,
    stop: &str,
) -> Option<(u64, &'b [u8])> {
    let first = symbols.address_of(start)?;
    let length = symbols.address_of(stop)?.checked_sub(first)?;
    Some((first, baseline.bytes_at(first, usize::try_from(length).ok()?)?))
}
