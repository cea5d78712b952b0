// SPDX-License-Identifier: Apache-2.0
//! What the running system says about itself: symbols, types, identity, privilege, lockdown.

use std::fs;
use std::io::{self, BufRead, BufReader};

use kernel_image::Symbols;
use kernel_image::btf::Btf;

use crate::error::ProbeError;
use crate::object::KERNEL_BTF;

const KALLSYMS: &str = "/proc/kallsyms";
const NOTES: &str = "/sys/kernel/notes";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Which kernel runs, and since which boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostIdentity {
    /// As `uname -r` gives it.
    pub release: String,
    /// The build id in hexadecimal, from /sys/kernel/notes; none where the kernel has no such note.
    pub build_id: Option<String>,
    /// A UUID that is new at each boot.
    pub boot_id: String,
}

/// How far the kernel is locked down (Documentation/ABI/testing/securityfs-… `lockdown`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lockdown {
    /// The lockdown module is there and does nothing.
    None,
    /// Nobody may modify the running kernel.
    Integrity,
    /// Nor may anybody read its memory: the reader does not work.
    Confidentiality,
}

/// Which kernel runs, and since which boot.
pub fn identity() -> Result<HostIdentity, ProbeError> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let build_id = match fs::read(NOTES) {
        Ok(notes) => build_id_in(&notes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(ProbeError::file(NOTES, &error)),
    };
    let boot_id = fs::read_to_string(BOOT_ID).map_err(|error| ProbeError::file(BOOT_ID, &error))?;
    Ok(HostIdentity { release, build_id, boot_id: boot_id.trim().to_owned() })
}

/// The symbols of the running kernel and its modules, from /proc/kallsyms.
pub fn live_symbols() -> Result<Symbols, ProbeError> {
    let file = fs::File::open(KALLSYMS).map_err(|error| ProbeError::file(KALLSYMS, &error))?;
    let mut lines = Vec::new();
    let mut text = String::new();
    let mut reader = BufReader::with_capacity(1 << 16, file);
    // All names in one string: a hundred thousand lines would be as many allocations.
    loop {
        let start = text.len();
        match reader.read_line(&mut text) {
            Ok(0) => break,
            Ok(_) => lines.push(start..text.len()),
            Err(error) => return Err(ProbeError::file(KALLSYMS, &error)),
        }
    }
    let mut all_zero = true;
    let mut parsed = Vec::with_capacity(lines.len());
    for (number, range) in lines.into_iter().enumerate() {
        let line = text.get(range).unwrap_or_default();
        let Some(symbol) = parse_symbol(line) else {
            return Err(ProbeError::Malformed {
                what: KALLSYMS.into(),
                reason: format!("line {}: {:?}", number + 1, line.trim_end()),
            });
        };
        all_zero &= symbol.0 == 0;
        parsed.push(symbol);
    }
    if parsed.is_empty() {
        return Err(ProbeError::File {
            path: KALLSYMS.into(),
            reason: "it is empty; the kernel is built without CONFIG_KALLSYMS".into(),
        });
    }
    if all_zero {
        return Err(hidden());
    }
    Ok(Symbols::from_iter(parsed))
}

/// The address of one symbol of the running kernel itself, from /proc/kallsyms; none if it has no such
/// one. Those of modules and programs, which have a name in brackets, come behind and are not looked at.
pub(crate) fn live_symbol(name: &str) -> Result<Option<u64>, ProbeError> {
    let file = fs::File::open(KALLSYMS).map_err(|error| ProbeError::file(KALLSYMS, &error))?;
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let mut line = String::new();
    loop {
        line.clear();
        let read = reader.read_line(&mut line);
        let end = read.map_err(|error| ProbeError::file(KALLSYMS, &error))? == 0;
        if end || line.ends_with("]\n") {
            return Ok(None);
        }
        match parse_symbol(&line) {
            Some((0, _, found)) if found == name => return Err(hidden()),
            Some((address, _, found)) if found == name => return Ok(Some(address)),
            _ => {}
        }
    }
}

fn hidden() -> ProbeError {
    ProbeError::File {
        path: KALLSYMS.into(),
        reason: "all addresses are hidden; run as root, or set kernel.kptr_restrict below 2".into(),
    }
}

/// The types of the running kernel, from its BTF.
pub fn live_types() -> Result<Btf, ProbeError> {
    let bytes = fs::read(KERNEL_BTF).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => ProbeError::NoBtf,
        _ => ProbeError::file(KERNEL_BTF, &error),
    })?;
    Btf::from_vec(bytes).map_err(|error| ProbeError::Malformed {
        what: KERNEL_BTF.into(),
        reason: error.to_string(),
    })
}

/// One line of /proc/kallsyms: address, letter, name, and for modules the module in brackets.
fn parse_symbol(line: &str) -> Option<(u64, u8, &str)> {
    let mut fields = line.split_ascii_whitespace();
    let address = u64::from_str_radix(fields.next()?, 16).ok()?;
    let &[kind] = fields.next()?.as_bytes() else { return None };
    Some((address, kind, fields.next()?))
}

/// The GNU build id among ELF notes: words of name size, descriptor size and type, then both,
/// each filled up to four bytes (include/uapi/linux/elf.h; type 3, `NT_GNU_BUILD_ID`).
fn build_id_in(mut notes: &[u8]) -> Option<String> {
    loop {
        let (header, rest) = notes.split_at_checked(12)?;
        let word = |at: usize| {
            header
                .get(at..at + 4)?
                .try_into()
                .ok()
                .map(u32::from_ne_bytes)
                .map(|word| word as usize)
        };
        let (name_size, size, kind) = (word(0)?, word(4)?, word(8)?);
        let (name, rest) = rest.split_at_checked(name_size.checked_next_multiple_of(4)?)?;
        let (descriptor, rest) = rest.split_at_checked(size.checked_next_multiple_of(4)?)?;
        if kind == 3 && name.starts_with(b"GNU\0") {
            let id = descriptor.get(..size)?;
            return Some(id.iter().map(|byte| format!("{byte:02x}")).collect());
        }
        notes = rest;
    }
}

/// How far the kernel is locked down; none where it cannot be told.
pub fn lockdown() -> Option<Lockdown> {
    parse_lockdown(&crate::views::system_file("/sys/kernel/security/lockdown").ok()?)
}

/// The level in brackets: `none [integrity] confidentiality`.
pub(crate) fn parse_lockdown(text: &str) -> Option<Lockdown> {
    match text.split_once('[')?.1.split_once(']')?.0 {
        "none" => Some(Lockdown::None),
        "integrity" => Some(Lockdown::Integrity),
        "confidentiality" => Some(Lockdown::Confidentiality),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_kallsyms_gives_address_letter_and_name() {
        let line = "ffffffffc0001000 t do_it\t[module]\n";
        assert_eq!(parse_symbol(line), Some((0xffff_ffff_c000_1000, b't', "do_it")));
        assert_eq!(parse_symbol("ffffffff81000000 T"), None);
        assert_eq!(parse_symbol("zz T name"), None);
    }

    #[test]
    fn the_build_id_is_found_behind_other_notes() {
        let mut notes = Vec::new();
        for (name, kind, descriptor) in
            [(&b"Linux\0"[..], 257_u32, &[1_u8, 2, 3, 4, 5][..]), (b"GNU\0", 3, &[0xab, 0xcd])]
        {
            notes.extend((name.len() as u32).to_ne_bytes());
            notes.extend((descriptor.len() as u32).to_ne_bytes());
            notes.extend(kind.to_ne_bytes());
            for part in [name, descriptor] {
                notes.extend(part);
                notes.resize(notes.len().next_multiple_of(4), 0);
            }
        }
        assert_eq!(build_id_in(&notes).as_deref(), Some("abcd"));
        for length in 0..notes.len() {
            assert_eq!(build_id_in(notes.get(..length).unwrap()), None);
        }
    }

    #[test]
    fn the_lockdown_level_is_the_one_in_brackets() {
        assert_eq!(parse_lockdown("none [integrity] confidentiality\n"), Some(Lockdown::Integrity));
        assert_eq!(parse_lockdown("none integrity"), None);
    }

    #[test]
    fn what_the_kernel_has_no_symbol_for_is_not_there() {
        assert_eq!(live_symbol("no symbol has spaces").unwrap(), None);
    }

    #[test]
    fn this_process_knows_its_own_kernel() {
        let identity = identity().unwrap();
        assert!(!identity.release.is_empty());
        assert_eq!(identity.boot_id.len(), 36);
    }
}
