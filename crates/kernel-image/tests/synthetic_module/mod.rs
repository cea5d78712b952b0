// SPDX-License-Identifier: Apache-2.0
//! A small kernel module, made byte by byte.
#![allow(dead_code, unreachable_pub, reason = "each test uses a part of this")]
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

/// Flags of sections.
pub const ALLOC: u64 = 2;
pub const EXEC: u64 = 4;
pub const WRITE: u64 = 1;

const PROGBITS: u32 = 1;
const SYMTAB: u32 = 2;
const STRTAB: u32 = 3;
const RELA: u32 = 4;
const NOTE: u32 = 7;

/// Types of relocations.
pub const R_64: u32 = 1;
pub const R_PC32: u32 = 2;
pub const R_PLT32: u32 = 4;
pub const R_32: u32 = 10;
pub const R_32S: u32 = 11;

/// Where the sections are when the module is loaded, in this order from a page's start each.
pub const TEXT: u64 = 0xffff_ffff_c000_0000;
pub const RODATA: u64 = 0xffff_ffff_c000_2000;
pub const KEY: u64 = 0xffff_ffff_c000_4000;
/// What it calls.
pub const FENTRY: u64 = 0xffff_ffff_8100_0040;
pub const PRINTK: u64 = 0xffff_ffff_8100_0080;

struct Section {
    name: &'static str,
    kind: u32,
    flags: u64,
    bytes: Vec<u8>,
    align: u64,
    link: u32,
    info: u32,
}

/// Symbols: name, info (binding << 4 | type), section, value.
type Symbol = (&'static str, u8, u16, u64);

/// The numbers of the sections that tests ask for.
pub const TEXT_SECTION: u16 = 1;

/// Builds it. `change` may alter the relocations of `.text`: offset, type, symbol, addend.
pub fn module() -> Vec<u8> {
    module_with(|_| {})
}

/// As [`module`], with other relocations of `.text`.
pub fn module_with(change: impl FnOnce(&mut Vec<(u64, u32, u64, i64)>)) -> Vec<u8> {
    // call __fentry__; nop of five bytes (a jump label); call printk; mov $.rodata, %rdi; ret
    let mut text = vec![0xe8, 0, 0, 0, 0];
    text.extend([0x0f, 0x1f, 0x44, 0, 0]);
    text.extend([0xe8, 0, 0, 0, 0]);
    text.extend([0x48, 0xc7, 0xc7, 0, 0, 0, 0]);
    text.extend([0xc3, 0x90]);
    text.resize(64, 0x90);
    // Symbols: 0 null, 1 .text, 2 .rodata, 3 .data, 4 __fentry__, 5 printk, 6 init.
    let symbols: [Symbol; 7] = [
        ("", 0, 0, 0),
        ("", 3, 1, 0),
        ("", 3, 3, 0),
        ("", 3, 9, 0),
        ("__fentry__", 0x10, 0, 0),
        ("printk", 0x10, 0, 0),
        ("work", 0x12, 1, 0),
    ];
    let mut of_text = vec![(1, R_PLT32, 4, -4), (11, R_PLT32, 5, -4), (18, R_32S, 2, 8)];
    change(&mut of_text);
    let jump = [(0, R_PC32, 1, 5), (4, R_PC32, 1, 32), (8, 24, 3, 0)];
    let mut sections = vec![
        section("", 0, 0, vec![], 0),
        section(".text", PROGBITS, ALLOC | EXEC, text, 64),
        rela(".rela.text", 1, &of_text),
        section(".rodata", PROGBITS, ALLOC, b"a constant\0\0\0\0\0\0".to_vec(), 32),
        section("__mcount_loc", PROGBITS, ALLOC, vec![0; 8], 8),
        rela(".rela__mcount_loc", 4, &[(0, R_64, 1, 0)]),
        section("__jump_table", PROGBITS, ALLOC | WRITE, vec![0; 16], 8),
        rela(".rela__jump_table", 6, &jump),
        section(".note.gnu.build-id", NOTE, ALLOC, build_id_note(), 4),
        section(".data", PROGBITS, ALLOC | WRITE, vec![0; 32], 32),
        section(
            ".modinfo",
            PROGBITS,
            ALLOC,
            b"name=small\0depends=one,two-b\0vermagic=6.12.0 SMP\0".to_vec(),
            1,
        ),
    ];
    let mut names = vec![0];
    let mut table = Vec::new();
    for (name, info, index, value) in symbols {
        let at = if name.is_empty() { 0 } else { names.len() as u32 };
        if !name.is_empty() {
            names.extend(name.as_bytes());
            names.push(0);
        }
        table.extend(at.to_le_bytes());
        table.extend([info, 0]);
        table.extend(index.to_le_bytes());
        table.extend(value.to_le_bytes());
        table.extend(0_u64.to_le_bytes());
    }
    let index = sections.len() as u32;
    for section in sections.iter_mut().filter(|section| section.kind == RELA) {
        section.link = index;
    }
    let mut symtab = section(".symtab", SYMTAB, 0, table, 8);
    symtab.link = index + 1;
    sections.push(symtab);
    sections.push(section(".strtab", STRTAB, 0, names, 1));
    elf(sections)
}

/// The addresses of its sections as a kernel might have them.
pub fn addresses(names: impl Iterator<Item = String>) -> Vec<Option<u64>> {
    names
        .map(|name| match name.as_str() {
            ".text" => Some(TEXT),
            ".rodata" => Some(RODATA),
            "__mcount_loc" => Some(RODATA + 0x10),
            ".note.gnu.build-id" => Some(RODATA + 0x18),
            "__jump_table" => Some(KEY - 0x100),
            ".data" => Some(KEY),
            _ => None,
        })
        .collect()
}

/// What the kernel exports to it.
pub fn export(name: &str) -> Option<u64> {
    match name {
        "__fentry__" => Some(FENTRY),
        "printk" => Some(PRINTK),
        _ => None,
    }
}

/// A signature as the kernel's build appends it, of 100 bytes.
pub fn signed(module: &[u8]) -> Vec<u8> {
    let mut file = module.to_vec();
    file.extend([0x30; 100]);
    file.extend([0, 0, 2, 0, 0, 0, 0, 0]);
    file.extend(100_u32.to_be_bytes());
    file.extend(b"~Module signature appended~\n");
    file
}

fn build_id_note() -> Vec<u8> {
    let mut note = [4_u32, 20, 3].map(u32::to_le_bytes).concat();
    note.extend(b"GNU\0");
    note.extend([7; 20]);
    note
}

fn section(name: &'static str, kind: u32, flags: u64, bytes: Vec<u8>, align: u64) -> Section {
    Section { name, kind, flags, bytes, align, link: 0, info: 0 }
}

fn rela(name: &'static str, target: u32, entries: &[(u64, u32, u64, i64)]) -> Section {
    let mut bytes = Vec::new();
    for (offset, kind, symbol, addend) in entries {
        bytes.extend(offset.to_le_bytes());
        bytes.extend((symbol << 32 | u64::from(*kind)).to_le_bytes());
        bytes.extend(addend.to_le_bytes());
    }
    Section { info: target, ..section(name, RELA, 0x40, bytes, 8) }
}

fn elf(mut sections: Vec<Section>) -> Vec<u8> {
    sections.push(section(".shstrtab", STRTAB, 0, vec![], 1));
    let mut names = vec![0];
    let mut at = Vec::new();
    for section in &sections {
        at.push(if section.name.is_empty() { 0 } else { names.len() as u32 });
        if !section.name.is_empty() {
            names.extend(section.name.as_bytes());
            names.push(0);
        }
    }
    sections.last_mut().unwrap().bytes = names;
    let mut file = vec![0; 64];
    let mut headers = Vec::new();
    for (section, name) in sections.iter().zip(at) {
        while section.align > 1 && !(file.len() as u64).is_multiple_of(section.align) {
            file.push(0);
        }
        let offset = if section.kind == 0 { 0 } else { file.len() as u64 };
        headers.extend(name.to_le_bytes());
        headers.extend(section.kind.to_le_bytes());
        for value in [section.flags, 0, offset, section.bytes.len() as u64] {
            headers.extend(value.to_le_bytes());
        }
        headers.extend(section.link.to_le_bytes());
        headers.extend(section.info.to_le_bytes());
        headers.extend(section.align.to_le_bytes());
        headers.extend(0_u64.to_le_bytes());
        file.extend(&section.bytes);
    }
    file.resize(file.len().next_multiple_of(8), 0);
    let table = file.len() as u64;
    file.extend(headers);
    file[..8].copy_from_slice(b"\x7fELF\x02\x01\x01\0");
    file[16..18].copy_from_slice(&1_u16.to_le_bytes());
    file[18..20].copy_from_slice(&62_u16.to_le_bytes());
    file[20..24].copy_from_slice(&1_u32.to_le_bytes());
    file[40..48].copy_from_slice(&table.to_le_bytes());
    file[52..54].copy_from_slice(&64_u16.to_le_bytes());
    file[58..60].copy_from_slice(&64_u16.to_le_bytes());
    file[60..62].copy_from_slice(&(sections.len() as u16).to_le_bytes());
    file[62..64].copy_from_slice(&(sections.len() as u16 - 1).to_le_bytes());
    file
}
