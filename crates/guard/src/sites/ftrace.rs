// SPDX-License-Identifier: Apache-2.0
//! The calls at the start of functions that the function tracer may switch on, and the calls from
//! its trampolines to whoever traces.
//!
//! The list of sites (`__mcount_loc`) is in init memory and gone after boot; the kernel keeps the
//! addresses in `dyn_ftrace` records (kernel/trace/ftrace.c). Where these can be read, they are the
//! list; otherwise a site is what looks like one: the no-op of five bytes, or a call of a tracer's
//! trampoline, where a function begins.

use kernel_image::Symbols;
use kernel_memory::Kernel;

use super::{Encoding, Legal, NOP5, Site, SiteKind, Sites, State, Verdict, branch, target_of};
use crate::baseline::Region;
use crate::check::Missing;
use crate::recover;

const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];

/// The trampolines of the kernel itself (arch/x86/kernel/ftrace_64.S).
pub const CALLERS: [&str; 2] = ["ftrace_caller", "ftrace_regs_caller"];

/// The calls in them that are pointed at whoever traces (update_ftrace_func, arch/x86/kernel/
/// ftrace.c), with their opcodes.
const CALLS: [(&str, u8); 3] =
    [("ftrace_call", 0xe8), ("ftrace_regs_call", 0xe8), ("ftrace_graph_call", 0xe9)];

/// How many records a kernel may have: 40,000 to 60,000 are usual.
const RECORDS_LIMIT: usize = 1 << 20;

/// How the sites were found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// From the kernel's own records.
    Records,
    /// By their looks, because of what is missing.
    Looks(String),
}

impl Default for Source {
    fn default() -> Self {
        Self::Looks(String::new())
    }
}

/// The sites at the start of functions.
#[derive(Debug, Default)]
pub struct FtraceSites {
    addresses: Vec<u64>,
    calling: Vec<u32>,
    source: Source,
}

impl FtraceSites {
    /// Finds the sites. `others` are the sites of tables that are known for certain.
    pub(super) fn gather(text: &Region<'_>, kernel: &Kernel<'_>, others: &Sites) -> Self {
        let pages = recover::data_symbol(kernel, "ftrace_pages_start");
        let recorded = pages.and_then(|pages| from_records(kernel, pages.address));
        let (mut addresses, source) = match recorded {
            Ok(recorded) => (recorded, Source::Records),
            Err(missing) => (by_looks(text, kernel.symbols, others), Source::Looks(missing.0)),
        };
        addresses.retain(|address| {
            bytes_at(text, *address, 5)
                .is_some_and(|bytes| bytes == NOP5 || bytes.first() == Some(&0xe8))
        });
        addresses.sort_unstable();
        addresses.dedup();
        Self::of(text, addresses, source)
    }

    /// Sites that are known otherwise.
    pub fn of(text: &Region<'_>, addresses: Vec<u64>, source: Source) -> Self {
        let calling = addresses
            .iter()
            .zip(0..)
            .filter(|(address, _)| bytes_at(text, **address, 5) != Some(&NOP5))
            .map(|(_, index)| index)
            .collect();
        Self { addresses, calling, source }
    }

    /// How they were found.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Their addresses in order.
    pub fn addresses(&self) -> &[u64] {
        &self.addresses
    }

    /// Those that held a call when the baseline was taken: these have to be judged even when
    /// nothing changed since.
    pub fn calling(&self) -> impl Iterator<Item = Site> {
        self.calling.iter().filter_map(|index| self.site(*index))
    }

    pub(super) fn sites(&self) -> impl Iterator<Item = Site> {
        (0..self.addresses.len() as u32).filter_map(|index| self.site(index))
    }

    fn site(&self, index: u32) -> Option<Site> {
        let address = *self.addresses.get(index as usize)?;
        Some(Site { address, length: 5, kind: SiteKind::Ftrace, index })
    }

    pub(super) fn reduced(&self) -> Option<String> {
        match &self.source {
            Source::Looks(missing) if !self.addresses.is_empty() => Some(format!(
                "{} ftrace sites were recognised by the no-op where a function begins, because the \
                 kernel's ftrace records are not known: {missing}",
                self.addresses.len()
            )),
            _ => None,
        }
    }

    pub(super) fn judge(&self, site: &Site, bytes: &[u8], state: &State) -> Verdict {
        if bytes == NOP5 {
            return Verdict::Expected(Encoding::Nop);
        }
        match target_of(site.address, bytes, &[0xe8]) {
            Some(to) if state.is_tracer(to) => Verdict::Expected(Encoding::Call(to)),
            _ => Verdict::Illegal,
        }
    }

    pub(super) fn legal(&self, site: &Site, state: &State) -> Vec<Legal> {
        let nop = Legal { bytes: NOP5.to_vec(), encoding: Encoding::Nop };
        let calls = state.tracers().filter_map(|to| {
            let bytes = branch(&[0xe8], site.address, to)?;
            Some(Legal { bytes, encoding: Encoding::Call(to) })
        });
        std::iter::once(nop).chain(calls).collect()
    }
}

/// The calls to whoever traces.
#[derive(Debug, Default)]
pub struct FtraceCalls {
    entries: Vec<(u64, u8)>,
}

impl FtraceCalls {
    pub(super) fn gather(text: &Region<'_>, symbols: &Symbols) -> Self {
        let entries = CALLS
            .iter()
            .filter_map(|(name, opcode)| Some((symbols.address_of(name)?, *opcode)))
            .filter(|(address, _)| text.holds(*address))
            .collect();
        Self { entries }
    }

    pub(super) fn sites(&self) -> impl Iterator<Item = Site> {
        self.entries.iter().zip(0..).map(|((address, _), index)| Site {
            address: *address,
            length: 5,
            kind: SiteKind::FtraceCall,
            index,
        })
    }

    pub(super) fn judge(&self, site: &Site, bytes: &[u8], state: &State) -> Verdict {
        let Some((address, opcode)) = self.entries.get(site.index as usize) else {
            return Verdict::Illegal;
        };
        match target_of(*address, bytes, &[*opcode]) {
            Some(to) if state.is_handler(to) && *opcode == 0xe8 => {
                Verdict::Expected(Encoding::Call(to))
            }
            Some(to) if state.is_handler(to) => Verdict::Expected(Encoding::Jump(to)),
            _ => Verdict::Illegal,
        }
    }

    pub(super) fn legal(&self, site: &Site, state: &State) -> Vec<Legal> {
        let Some((address, opcode)) = self.entries.get(site.index as usize) else {
            return Vec::new();
        };
        let handlers = state.handlers().filter_map(|to| {
            let bytes = branch(&[*opcode], *address, to)?;
            let encoding = match *opcode {
                0xe8 => Encoding::Call(to),
                _ => Encoding::Jump(to),
            };
            Some(Legal { bytes, encoding })
        });
        handlers.collect()
    }
}

/// The addresses in the kernel's records: a list of `struct ftrace_page`, each with an array of
/// `struct dyn_ftrace` (include/linux/ftrace.h and kernel/trace/ftrace.c).
///
/// The records are writable data. A record too many makes five bytes of text a site that may hold
/// nothing but a no-op or a call of a tracer, so it allows little; `by_looks` is not asked then.
fn from_records(kernel: &Kernel<'_>, start: u64) -> Result<Vec<u64>, Missing> {
    let size = kernel.size_of("dyn_ftrace")?;
    let ip_at = kernel.offset_of("dyn_ftrace", "ip")? as usize;
    let mut addresses = Vec::new();
    let mut page = kernel.u64_at(start)?;
    while page != 0 && addresses.len() < RECORDS_LIMIT {
        let object = kernel.object("ftrace_page", page)?;
        let count = object.u64("index")?.min(RECORDS_LIMIT as u64);
        let bytes = kernel.bytes_at(object.u64("records")?, (count * size) as usize)?;
        addresses.extend(bytes.chunks_exact(size.max(8) as usize).filter_map(|record| {
            let ip: [u8; 8] = record.get(ip_at..ip_at.checked_add(8)?)?.try_into().ok()?;
            Some(u64::from_le_bytes(ip))
        }));
        page = object.u64("next")?;
    }
    if addresses.is_empty() {
        return Err(Missing::because("the list of ftrace records is empty"));
    }
    Ok(addresses)
}

fn by_looks(text: &Region<'_>, symbols: &Symbols, others: &Sites) -> Vec<u64> {
    let callers: Vec<u64> = CALLERS.iter().filter_map(|name| symbols.address_of(name)).collect();
    let looks = |address: u64| match bytes_at(text, address, 5) {
        Some(bytes) if bytes == NOP5 => true,
        // A tracer's own trampoline, or that of a BPF program, lies outside the text.
        Some(bytes) => target_of(address, bytes, &[0xe8])
            .is_some_and(|to| callers.contains(&to) || !text.holds(to)),
        None => false,
    };
    symbols
        .iter()
        .filter(|symbol| text.holds(symbol.address))
        .filter(|symbol| matches!(symbol.kind, b't' | b'T' | b'w' | b'W'))
        .map(|symbol| match bytes_at(text, symbol.address, 4) {
            Some(bytes) if bytes == ENDBR64 => symbol.address + 4,
            _ => symbol.address,
        })
        .filter(|address| looks(*address) && others.at(*address).is_none())
        .collect()
}

fn bytes_at<'a>(text: &Region<'a>, address: u64, length: usize) -> Option<&'a [u8]> {
    let offset = usize::try_from(address.checked_sub(text.start)?).ok()?;
    text.bytes.get(offset..offset.checked_add(length)?)
}
