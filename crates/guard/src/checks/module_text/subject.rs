// SPDX-License-Identifier: Apache-2.0
//! Where a loaded module's parts are, by its `struct module`.

use std::collections::HashMap;
use std::ops::Range;

use kernel_image::module::{ModuleFile, Part};
use kernel_memory::{Kernel, Object};

use crate::check::Missing;
use crate::fields::Fields;

/// Sections that a module may have in memory; the loader takes no more than the ELF format allows.
const MOST_SECTIONS: u64 = 0xff00;
/// A module's memory: the area for all of them has 1.5 GiB.
const LARGEST: u64 = 256 << 20;
/// Symbols that one module exports: the largest have some thousands.
const MOST_EXPORTS: u64 = 1 << 16;

/// Names of sections are kept short by those who write them.
const LONGEST_NAME: usize = 256;

/// A module's memory as far as it must not change.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Subject {
    /// Where its `struct module` is.
    pub(super) address: u64,
    pub(super) text: Range<u64>,
    pub(super) rodata: Range<u64>,
    /// What it may write; only where it is matters here.
    data: Range<u64>,
    /// What it was given for per-CPU data; 0 for nothing.
    pub(super) per_cpu: u64,
}

impl Subject {
    /// Reads where the parts of a module are: `mem[]` since 6.4, `core_layout` before
    /// (include/linux/module.h).
    pub(super) fn read(kernel: &Kernel<'_>, address: u64) -> Result<Self, Missing> {
        let module = kernel.object("module", address)?;
        let (text, rodata, data) = if module.has("mem") {
            let part = |index: i64| -> Result<Range<u64>, Missing> {
                let base = module.u64(&format!("mem[{index}].base"))?;
                range(base, module.u64(&format!("mem[{index}].size"))?)
            };
            let kind = |name, usual| kernel.enumerator(name).unwrap_or(usual);
            let data = part(kind("MOD_DATA", 1))?;
            (part(kind("MOD_TEXT", 0))?, part(kind("MOD_RODATA", 2))?, data)
        } else {
            let base = module.u64("core_layout.base")?;
            let text = module.u64("core_layout.text_size")?;
            let rodata = module.u64("core_layout.ro_size")?;
            let start = base.wrapping_add(text);
            let data = module.u64("core_layout.ro_after_init_size")?;
            let end = module.u64("core_layout.size")?;
            let data = range(base.wrapping_add(data), end.saturating_sub(data))?;
            (range(base, text)?, range(start, rodata.saturating_sub(text))?, data)
        };
        Ok(Self { address, text, rodata, data, per_cpu: module.u64("percpu").unwrap_or(0) })
    }

    /// The part with its addresses.
    pub(super) fn part(&self, part: Part) -> &Range<u64> {
        match part {
            Part::Text => &self.text,
            Part::Rodata => &self.rodata,
        }
    }
}

fn range(start: u64, size: u64) -> Result<Range<u64>, Missing> {
    match start.checked_add(size) {
        Some(end) if size <= LARGEST => Ok(start..end),
        _ => Err(Missing(format!("{size} bytes at {start:#x} are no memory of a module"))),
    }
}

/// Where the sections are, by their numbers in the file, and what speaks against that.
pub(super) struct Sections {
    pub(super) addresses: Vec<Option<u64>>,
    pub(super) doubts: Vec<String>,
}

/// Where the kernel says that the sections are, held against where its loader puts them.
pub(super) fn sections(
    kernel: &Kernel<'_>,
    subject: &Subject,
    file: &ModuleFile,
) -> Result<Sections, Missing> {
    let told = told(kernel, subject.address);
    let mut doubts = Vec::new();
    let mut addresses = vec![None; file.sections().len()];
    match &told {
        Err(missing) => doubts.push(format!(
            "the kernel does not say where its sections are, so they are taken to be where the \
             loader puts them: {}",
            missing.0
        )),
        Ok(told) => {
            // In the order of the file, from which empty sections are left out.
            let mut told = told.iter().peekable();
            for (section, slot) in file.sections().iter().zip(&mut addresses) {
                if section.size > 0 && told.peek().is_some_and(|(name, _)| *name == section.name) {
                    *slot = told.next().map(|(_, address)| *address);
                }
            }
            if let Some((name, _)) = told.next() {
                return Err(Missing(format!(
                    "its section {name} is not in the file in that place: another file than the \
                     one it was loaded from"
                )));
            }
        }
    }
    for part in [Part::Text, Part::Rodata] {
        let range = subject.part(part);
        let (placed, size) =
            file.layout(part).ok_or_else(|| Missing::because("its sections have no room"))?;
        if size > range.end - range.start {
            return Err(Missing(format!(
                "the file asks for {size} bytes where the kernel has {}: another file than the \
                 one it was loaded from",
                range.end - range.start
            )));
        }
        for one in placed {
            let expected = range.start.wrapping_add(one.offset);
            let Some(slot) = addresses.get_mut(usize::from(one.section)) else { continue };
            let Some(section) = file.sections().get(usize::from(one.section)) else { continue };
            match *slot {
                Some(told) if told != expected => doubts.push(format!(
                    "section {} is at {told:#x} by the kernel, at {expected:#x} by the loader's rules",
                    section.name
                )),
                Some(_) => {}
                None => *slot = Some(expected),
            }
        }
    }
    place_empty(subject, file, &mut addresses);
    Ok(Sections { addresses, doubts })
}

/// Empty sections are not among those that the kernel tells of, but code may refer to them: a lock's
/// class has no size without lockdep. Such a section is where the one before it ends.
fn place_empty(subject: &Subject, file: &ModuleFile, addresses: &mut [Option<u64>]) {
    let mut end = subject.data.start;
    for (section, slot) in file.sections().iter().zip(addresses) {
        if !section.is_loaded() || !section.is_writable() || section.is_init() {
            continue;
        }
        if section.size == 0 && slot.is_none() {
            *slot = end.checked_next_multiple_of(section.alignment);
        }
        // What is read-only after the module's start is writable in the file, and elsewhere.
        if let Some(address) =
            slot.filter(|address| (subject.data.start..=subject.data.end).contains(address))
        {
            end = address.saturating_add(section.size);
        }
    }
}

/// What /sys/module/NAME/sections shows, from memory: names and addresses in the file's order.
///
/// `struct module_sect_attrs` (kernel/module/sysfs.c) has the attributes one by one with their
/// addresses beside them, or, since 6.14, in the attributes themselves (`private`).
fn told(kernel: &Kernel<'_>, module: u64) -> Result<Vec<(String, u64)>, Missing> {
    let module = kernel.object("module", module)?;
    let attributes = module.u64("sect_attrs")?;
    if attributes == 0 {
        return Err(Missing::because("sect_attrs is null"));
    }
    let attributes = kernel.object("module_sect_attrs", attributes)?;
    let beside = kernel.object("module_sect_attr", 0).is_ok_and(|one| one.has("address"));
    let (of, members) = match beside {
        true => ("module_sect_attr", ["battr.attr.name", "address"]),
        false => ("bin_attribute", ["attr.name", "private"]),
    };
    let first = attributes.field("attrs")?.address();
    let size = kernel.size_of(of)?;
    let count = match attributes.u64("nsections") {
        Ok(count) => count.min(MOST_SECTIONS),
        Err(_) => pointers(kernel, &attributes)?,
    };
    let each: Vec<u64> = (0..count).map(|index| first.wrapping_add(index * size)).collect();
    let fields = Fields::of(kernel, of, &members)?;
    let records = fields.read(kernel, &each);
    let records: Vec<_> = records.iter().flatten().collect();
    // Most names are short, so one question for 32 bytes each serves them.
    let places: Vec<(u64, u32)> = records.iter().map(|one| (one.value(0), 32)).collect();
    let names = kernel.memory.read_many(&places);
    let mut told = Vec::with_capacity(records.len());
    for (record, name) in records.iter().zip(names) {
        let short = name.ok().and_then(|bytes| {
            let end = bytes.iter().position(|byte| *byte == 0)?;
            Some(String::from_utf8_lossy(bytes.get(..end)?).into_owned())
        });
        let name = match short {
            Some(name) => name,
            None => kernel.string_at(record.value(0), LONGEST_NAME)?,
        };
        told.push((name, record.value(1)));
    }
    Ok(told)
}

/// How many pointers the group of attributes has before the null pointer at its end.
fn pointers(kernel: &Kernel<'_>, attributes: &Object<'_>) -> Result<u64, Missing> {
    let list = attributes.u64("grp.bin_attrs")?;
    for index in 0..MOST_SECTIONS {
        if kernel.u64_at(list.wrapping_add(8 * index))? == 0 {
            return Ok(index);
        }
    }
    Err(Missing::because("the list of its sections does not end"))
}

/// What a module exports, by name: `struct kernel_symbol` (include/linux/export-internal.h), each
/// with its distances to value and name. They lie in the module's read-only data.
pub(super) fn exports(
    kernel: &Kernel<'_>,
    subject: &Subject,
) -> Result<HashMap<String, u64>, Missing> {
    let module = kernel.object("module", subject.address)?;
    let size = kernel.size_of("kernel_symbol")?;
    let value = kernel.offset_of("kernel_symbol", "value_offset")?;
    let name = kernel.offset_of("kernel_symbol", "name_offset")?;
    let start = subject.rodata.start;
    let rodata = kernel.bytes_at(start, (subject.rodata.end - start) as usize)?;
    let word = |at: u64| {
        let into = usize::try_from(at.checked_sub(start)?).ok()?;
        let bytes = rodata.get(into..)?.first_chunk::<4>()?;
        Some(at.wrapping_add_signed(i64::from(i32::from_le_bytes(*bytes))))
    };
    let text = |at: u64| {
        let rest = rodata.get(usize::try_from(at.checked_sub(start)?).ok()?..)?;
        let end = rest.iter().position(|byte| *byte == 0)?;
        String::from_utf8(rest.get(..end)?.to_vec()).ok()
    };
    let mut found = HashMap::new();
    for (list, count) in [("syms", "num_syms"), ("gpl_syms", "num_gpl_syms")] {
        let (Ok(list), Ok(count)) = (module.u64(list), module.u64(count)) else { continue };
        for index in 0..count.min(MOST_EXPORTS) {
            let at = list.wrapping_add(index * size);
            let named = word(at.wrapping_add(name)).and_then(text);
            if let (Some(name), Some(value)) = (named, word(at.wrapping_add(value))) {
                found.insert(name, value);
            }
        }
    }
    Ok(found)
}
