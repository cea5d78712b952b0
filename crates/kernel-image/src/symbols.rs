// SPDX-License-Identifier: Apache-2.0
//! A kernel's symbol table, whether decoded from an image or read from a running kernel.

use std::collections::HashMap;

use crate::elf::START_KERNEL_MAP;
use crate::name_index::NameIndex;

/// One symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symbol<'a> {
    /// Virtual address, as linked (image) or as running (live).
    pub address: u64,
    /// The letter of `nm`: `T` and `t` text, `D` and `d` data, `R` read-only data, `B` bss…
    pub kind: u8,
    /// The name. Several symbols may share one name (static functions) or one address (aliases).
    pub name: &'a str,
    /// The module, where it is not the kernel itself: a loaded module, `bpf` for a BPF program or
    /// trampoline, `__builtin__ftrace` and `__builtin__kprobes` for what these allocate.
    pub module: Option<&'a str>,
}

/// 16 bytes, of which a kernel has 120,000 to 200,000.
#[derive(Clone, Copy, Debug)]
struct Entry {
    address: u64,
    /// Where the name begins in `names`. It ends at a NUL.
    name: u32,
    /// 1 + the place in `modules`, or 0.
    module: u16,
    kind: u8,
}

/// Symbols in order of address, with an index of their names.
///
/// Names are kept in one string: a kernel has 120,000 to 200,000 symbols, and one allocation for
/// each would cost more memory than the names themselves.
#[derive(Clone, Debug, Default)]
pub struct Symbols {
    /// All names, each with a NUL behind it.
    names: String,
    modules: Vec<String>,
    entries: Vec<Entry>,
    /// Places in `entries`.
    by_name: NameIndex,
}

/// Why the text of /proc/kallsyms could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KallsymsError {
    /// A line is not `address type name [module]`.
    #[error("/proc/kallsyms line {line}: {reason}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// All addresses are zero: the kernel hides them from this reader.
    #[error(
        "/proc/kallsyms shows all addresses as zero: read it as root (CAP_SYSLOG), or as root set \
         sysctl kernel.kptr_restrict to 0 or 1"
    )]
    Hidden,
    /// There is no line at all.
    #[error("/proc/kallsyms is empty: the kernel was built without CONFIG_KALLSYMS")]
    Empty,
}

/// Collects symbols, then puts them in order.
#[derive(Default)]
struct Builder<'a> {
    table: Symbols,
    modules: HashMap<&'a str, u16>,
    /// Consecutive symbols mostly have the same module.
    last: Option<(&'a str, u16)>,
}

impl<'a> Builder<'a> {
    /// The number of a module; `None` for the 65,536th.
    fn module(&mut self, name: &'a str) -> Option<u16> {
        if let Some((_, number)) = self.last.filter(|last| last.0 == name) {
            return Some(number);
        }
        let number = match self.modules.get(name) {
            Some(number) => *number,
            None => {
                let number = u16::try_from(self.table.modules.len() + 1).ok()?;
                self.table.modules.push(name.to_owned());
                self.modules.insert(name, number);
                number
            }
        };
        self.last = Some((name, number));
        Some(number)
    }

    /// `None` where the names have come to 4 GiB.
    fn add(&mut self, address: u64, kind: u8, name: &str, module: u16) -> Option<()> {
        let start = u32::try_from(self.table.names.len()).ok()?;
        let name = name.split('\0').next().unwrap_or_default();
        self.table.names.push_str(name);
        self.table.names.push('\0');
        self.table.entries.push(Entry { address, name: start, module, kind });
        Some(())
    }

    fn finish(self) -> Symbols {
        let mut table = self.table;
        table.entries.sort_by_key(|entry| entry.address);
        let named = table.entries.iter().enumerate();
        table.by_name =
            NameIndex::build(named.map(|(at, entry)| (table.name_bytes(entry), at as u32)));
        table.names.shrink_to_fit();
        table.entries.shrink_to_fit();
        table
    }
}

impl<'a> FromIterator<(u64, u8, &'a str)> for Symbols {
    /// Builds the table from `(address, kind, name)` in any order.
    ///
    /// Symbols at one address keep the order in which they came. A name ends at its first NUL.
    /// What comes after 4 GiB of names is left out; a kernel has some megabytes.
    fn from_iter<I: IntoIterator<Item = (u64, u8, &'a str)>>(symbols: I) -> Self {
        let mut builder = Builder::default();
        for (address, kind, name) in symbols {
            if builder.add(address, kind, name, 0).is_none() {
                break;
            }
        }
        builder.finish()
    }
}

/// Reads the text of /proc/kallsyms: lines of `address type name`, with a tab and `[module]` behind
/// symbols that are not the kernel's own (`s_show`, kernel/kallsyms.c, Linux 6.18).
pub fn parse_proc_kallsyms(text: &str) -> Result<Symbols, KallsymsError> {
    let mut builder = Builder::default();
    // Measured: 44 bytes per line, 28 of them the name.
    builder.table.entries.reserve(text.len() / 44);
    builder.table.names.reserve(text.len() / 44 * 28);
    let mut all_zero = true;
    for (number, line) in text.lines().enumerate() {
        let wrong = |reason| KallsymsError::Line { line: number + 1, reason };
        let (address, rest) = hexadecimal(line).map_err(wrong)?;
        let kind = match *rest.as_bytes() {
            [b' ', kind, b' ', ..] if kind.is_ascii_graphic() => kind,
            _ => return Err(wrong("the address is not followed by a type of one letter")),
        };
        let rest = rest.get(3..).unwrap_or_default();
        let (name, module) = match rest.split_once('\t') {
            None => (rest, None),
            Some((name, module)) => {
                let module = module.strip_prefix('[').and_then(|m| m.strip_suffix(']'));
                (name, Some(module.ok_or(wrong("the module is not in brackets"))?))
            }
        };
        if name.is_empty() || name.contains('\0') {
            return Err(wrong("there is no name"));
        }
        let module = match module {
            None => 0,
            Some(module) => builder.module(module).ok_or(wrong("there are over 65,535 modules"))?,
        };
        all_zero &= address == 0;
        builder
            .add(address, kind, name, module)
            .ok_or(wrong("the names so far are longer than 4 GiB"))?;
    }
    match (builder.table.entries.is_empty(), all_zero) {
        (true, _) => Err(KallsymsError::Empty),
        (false, true) => Err(KallsymsError::Hidden),
        (false, false) => Ok(builder.finish()),
    }
}

/// The hexadecimal number at the start of a line, and the rest.
fn hexadecimal(line: &str) -> Result<(u64, &str), &'static str> {
    let length = line.bytes().take_while(u8::is_ascii_hexdigit).count();
    if length == 0 {
        return Err("it does not begin with an address");
    }
    if length > 16 {
        return Err("the address is longer than 64 bits");
    }
    let (digits, rest) = line.split_at(length);
    let value = digits.bytes().fold(0, |value, digit| {
        // '0' to '9' are 0x30 to 0x39; letters, of either case, end in 1 to 6.
        let digit = if digit.is_ascii_digit() { digit & 0xf } else { (digit & 0xf) + 9 };
        (value << 4) | u64::from(digit)
    });
    Ok((value, rest))
}

impl Symbols {
    /// How many symbols there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The symbols of a kernel that was moved up by `slide` bytes. What is below the kernel's own
    /// range stays: offsets of per-CPU variables, which kernels up to 6.14 count from zero.
    #[must_use]
    pub fn moved(&self, slide: u64) -> Self {
        let mut moved = self.clone();
        let kernel = moved.entries.partition_point(|entry| entry.address < START_KERNEL_MAP);
        for entry in moved.entries.iter_mut().skip(kernel) {
            entry.address = entry.address.saturating_add(slide);
        }
        moved
    }

    /// The lowest address of a symbol with this name.
    pub fn address_of(&self, name: &str) -> Option<u64> {
        self.all_named(name).next().map(|symbol| symbol.address)
    }

    /// All symbols with this name, in order of address.
    pub fn all_named(&self, name: &str) -> impl Iterator<Item = Symbol<'_>> + use<'_> {
        let name = name.to_owned();
        self.by_name
            .candidates(name.as_bytes())
            .filter_map(|index| self.get(index as usize))
            .filter(move |symbol| symbol.name == name)
    }

    /// The symbol with the greatest address that is not above `address`, and the distance to it.
    ///
    /// Where several symbols share that address the first one is given, as the kernel does.
    pub fn containing(&self, address: u64) -> Option<(Symbol<'_>, u64)> {
        let after = self.entries.partition_point(|entry| entry.address <= address);
        let found = self.entries.get(after.checked_sub(1)?)?.address;
        // Few have the same address, but for the offsets of per-CPU variables.
        let before = self.entries.get(..after).unwrap_or_default().iter().rev();
        let same = before.take_while(|entry| entry.address == found).count();
        Some((self.get(after - same)?, address - found))
    }

    /// The address of the first symbol above `address`: an upper bound of what stands there.
    pub fn next_address(&self, address: u64) -> Option<u64> {
        let after = self.entries.partition_point(|entry| entry.address <= address);
        self.entries.get(after).map(|entry| entry.address)
    }

    /// All symbols in order of address.
    pub fn iter(&self) -> impl Iterator<Item = Symbol<'_>> {
        (0..self.entries.len()).filter_map(|index| self.get(index))
    }

    fn get(&self, index: usize) -> Option<Symbol<'_>> {
        let entry = self.entries.get(index)?;
        let module = usize::from(entry.module).checked_sub(1);
        Some(Symbol {
            address: entry.address,
            kind: entry.kind,
            name: std::str::from_utf8(self.name_bytes(entry)).unwrap_or_default(),
            module: module.and_then(|module| self.modules.get(module)).map(String::as_str),
        })
    }

    fn name_bytes(&self, entry: &Entry) -> &[u8] {
        let rest = self.names.as_bytes().get(entry.name as usize..).unwrap_or_default();
        rest.split(|byte| *byte == 0).next().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Symbols {
        Symbols::from_iter([
            (0x30, b't', "c"),
            (0x10, b'T', "a"),
            (0x10, b'T', "alias"),
            (0x20, b't', "c"),
        ])
    }

    #[test]
    fn an_address_is_named_by_the_symbol_at_or_below_it() {
        let symbols = three();
        assert_eq!(symbols.containing(0x0f), None);
        let (symbol, offset) = symbols.containing(0x1f).unwrap();
        assert_eq!((symbol.name, offset), ("a", 0xf));
        assert_eq!(symbols.next_address(0x10), Some(0x20));
    }

    #[test]
    fn what_the_kernel_counts_from_zero_does_not_move_with_it() {
        let text = START_KERNEL_MAP + 0x100_0000;
        let linked =
            [(text, b'T', "_text"), (0x1_f000, b'A', "cpu_number"), (text, b'T', "_stext")];
        let moved = Symbols::from_iter(linked).moved(0x20_0000);
        assert_eq!(moved.address_of("_stext"), Some(text + 0x20_0000));
        assert_eq!(moved.address_of("cpu_number"), Some(0x1_f000));
        assert_eq!(moved.containing(text + 0x20_0000).unwrap().0.name, "_text");
    }

    #[test]
    fn a_name_that_occurs_twice_gives_both() {
        let symbols = three();
        let mut addresses: Vec<u64> = symbols.all_named("c").map(|s| s.address).collect();
        addresses.sort_unstable();
        assert_eq!(addresses, [0x20, 0x30]);
        assert_eq!(symbols.address_of("c"), Some(0x20));
        assert_eq!(symbols.address_of("missing"), None);
    }

    const KALLSYMS: &str = "\
ffffffff81000000 T _stext
ffffffff81000000 T _text
ffffffff81000040 t helper.isra.0
FFFFFFFFc0201000 t ftrace_trampoline\t[__builtin__ftrace]
ffffffffc0300000 t init\t[e1000]
ffffffffc0400000 t bpf_prog_6deef7357e7b4530_watch\t[bpf]
ffffffffc0300080 T probe\t[e1000]
";

    #[test]
    fn the_text_of_kallsyms_is_read_with_modules() {
        let symbols = parse_proc_kallsyms(KALLSYMS).unwrap();
        assert_eq!(symbols.len(), 7);
        assert_eq!(symbols.address_of("helper.isra.0"), Some(0xffff_ffff_8100_0040));
        let module = |name| symbols.all_named(name).next().unwrap().module;
        assert_eq!(module("_stext"), None);
        assert_eq!(module("ftrace_trampoline"), Some("__builtin__ftrace"));
        assert_eq!(module("bpf_prog_6deef7357e7b4530_watch"), Some("bpf"));
        assert_eq!((module("init"), module("probe")), (Some("e1000"), Some("e1000")));
        let (symbol, offset) = symbols.containing(0xffff_ffff_c030_0090).unwrap();
        assert_eq!((symbol.name, symbol.kind, offset), ("probe", b'T', 0x10));
        // The last line needs no end of line.
        assert_eq!(parse_proc_kallsyms(KALLSYMS.trim_end()).unwrap().len(), 7);
    }

    #[test]
    fn hidden_addresses_and_an_empty_file_say_what_to_do() {
        let hidden = "0000000000000000 T _stext\n0000000000000000 T _text\n";
        let error = parse_proc_kallsyms(hidden).unwrap_err();
        assert_eq!(error, KallsymsError::Hidden);
        assert!(error.to_string().contains("kernel.kptr_restrict"));
        assert_eq!(parse_proc_kallsyms("").unwrap_err(), KallsymsError::Empty);
        // Zero-based per-CPU symbols are at 0 in kernels up to 6.14.
        let percpu = "0000000000000000 A fixed_percpu_data\nffffffff81000000 T _stext\n";
        assert_eq!(
            parse_proc_kallsyms(percpu).unwrap().address_of("_stext"),
            Some(0xffff_ffff_8100_0000)
        );
    }

    #[test]
    fn a_wrong_line_is_named_by_its_number() {
        for wrong in [
            "",
            " T name",
            "xyz T name",
            "ffffffff81000000",
            "ffffffff81000000 T",
            "ffffffff81000000 T ",
            "ffffffff81000000 TT name",
            "ffffffff81000000 \u{e9} name",
            "ffffffff810000000 T name",
            "ffffffff81000000 T name\te1000",
            "ffffffff81000000 T \t[e1000]",
        ] {
            let text = format!("ffffffff81000000 T _stext\n{wrong}\nffffffff81000000 T _text\n");
            let outcome = parse_proc_kallsyms(&text);
            assert!(matches!(outcome, Err(KallsymsError::Line { line: 2, .. })), "{wrong:?}");
        }
    }

    #[test]
    fn names_of_all_lengths_are_found_again() {
        let names: Vec<String> = (0..600).map(|length| "n".repeat(length + 1)).collect();
        let symbols: Symbols = names
            .iter()
            .enumerate()
            .map(|(at, name)| (at as u64 + 1, b't', name.as_str()))
            .collect();
        for (at, name) in names.iter().enumerate() {
            assert_eq!(symbols.address_of(name), Some(at as u64 + 1));
        }
        assert_eq!(symbols.address_of(""), None);
    }
}
