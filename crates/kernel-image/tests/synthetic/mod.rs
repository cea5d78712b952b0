// SPDX-License-Identifier: Apache-2.0
//! A kernel of a few kilobytes with everything that is decoded, built by the test.
#![allow(dead_code, reason = "each test binary uses its own part of the builder")]

use std::io::Write;

pub(crate) const TEXT: u64 = 0xffff_ffff_8100_0000;
pub(crate) const RODATA: u64 = 0xffff_ffff_8200_0000;
pub(crate) const INIT: u64 = 0xffff_ffff_8300_0000;
pub(crate) const BANNER: &str =
    "Linux version 6.99.1-synthetic (builder@test) (a compiler) #1 SMP\n";
pub(crate) const BUILD_ID: [u8; 20] = [0xab; 20];
/// A name of more than 127 characters takes a length of two bytes.
pub(crate) const LONG_NAME: &str = concat!(
    "a_name_that_is_rather_long_for_a_function_of_the_kernel_but_happens_with_rust_and_its_mangling_",
    "of_generic_types_and_traits_so_that_lengths_of_two_bytes_are_needed"
);

/// The layouts of kallsyms that the decoder tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kallsyms {
    /// To 6.3: offsets before the names, negative ones from a base; numbers by name in between.
    OffsetsFirst,
    /// 6.4 to 6.14: offsets after the index, negative ones from a base.
    OffsetsLast,
    /// 6.18: all offsets from a base.
    FromBase,
    /// 7.3: distances from each entry, four-byte alignment.
    FromEntry,
}

pub(crate) const FORMATS: [Kallsyms; 4] =
    [Kallsyms::OffsetsFirst, Kallsyms::OffsetsLast, Kallsyms::FromBase, Kallsyms::FromEntry];

/// Where the builder put each site.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sites {
    pub(crate) fentry: u64,
    pub(crate) mcount: u64,
    pub(crate) jump_short: u64,
    pub(crate) jump_long: u64,
    pub(crate) static_call: u64,
    pub(crate) trampoline: u64,
    pub(crate) retpoline: u64,
    pub(crate) retpoline_jcc: u64,
    pub(crate) returns: u64,
    pub(crate) call: u64,
    pub(crate) endbr: u64,
    pub(crate) lock: u64,
    pub(crate) paravirt: u64,
    pub(crate) alternative: u64,
    pub(crate) replacement: u64,
    pub(crate) runtime_pointer: u64,
    pub(crate) runtime_shift: u64,
    pub(crate) ftrace_call: u64,
    pub(crate) key: u64,
    pub(crate) relocated_word: u64,
    pub(crate) relocated_quad: u64,
    pub(crate) lowered_word: u64,
}

struct Section {
    name: String,
    address: u64,
    flags: u64,
    bytes: Vec<u8>,
}

pub(crate) struct Builder {
    pub(crate) kallsyms: Kallsyms,
    /// 12 (to 6.2) or 14 (from 6.3).
    pub(crate) alternative_size: usize,
    pub(crate) relocations: bool,
    pub(crate) machine: u16,
    pub(crate) kind: u16,
    /// Added to the first distance of this section, so that it leads elsewhere.
    pub(crate) broken: Option<&'static str>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            kallsyms: Kallsyms::OffsetsLast,
            alternative_size: 14,
            relocations: true,
            machine: 62,
            kind: 2,
            broken: None,
        }
    }
}

fn emit(text: &mut Vec<u8>, code: &[u8]) -> u64 {
    let address = TEXT + text.len() as u64;
    text.extend_from_slice(code);
    // Something between the sites that is no site.
    text.extend_from_slice(&[0xcc; 3]);
    address
}

fn call(text: &mut Vec<u8>, opcode: &[u8], target: u64) -> u64 {
    let next = TEXT + text.len() as u64 + opcode.len() as u64 + 4;
    let mut code = opcode.to_vec();
    code.extend_from_slice(&(target.wrapping_sub(next) as u32).to_le_bytes());
    emit(text, &code)
}

fn distance(table: &mut Vec<u8>, base: u64, target: u64) {
    let from = base + table.len() as u64;
    table.extend_from_slice(&(target.wrapping_sub(from) as u32).to_le_bytes());
}

fn pad(bytes: &mut Vec<u8>, to: usize) {
    bytes.resize(bytes.len().next_multiple_of(to), 0);
}

impl Builder {
    /// The ELF with its relocation lists, and where everything is.
    pub(crate) fn build(&self) -> (Vec<u8>, Sites) {
        let mut sites = Sites::default();
        let mut text = Vec::new();
        sites.fentry = emit(&mut text, &[0xc3]);
        let thunk = emit(&mut text, &[0xff, 0xe0]);
        sites.endbr = emit(&mut text, &[0xf3, 0x0f, 0x1e, 0xfa]);
        sites.mcount = call(&mut text, &[0xe8], sites.fentry);
        sites.jump_short = emit(&mut text, &[0x66, 0x90, 0x90, 0x90, 0x90]);
        sites.jump_long = emit(&mut text, &[0x0f, 0x1f, 0x44, 0, 0]);
        sites.retpoline = call(&mut text, &[0xe8], thunk);
        sites.retpoline_jcc = call(&mut text, &[0x0f, 0x85], thunk);
        sites.returns = call(&mut text, &[0xe9], thunk);
        sites.call = call(&mut text, &[0xe8], thunk);
        sites.lock = emit(&mut text, &[0xf0, 0xff, 0x07]);
        sites.paravirt = emit(&mut text, &[0xff, 0x14, 0x25, 0, 0, 0, 0]);
        sites.alternative = emit(&mut text, &[0x90; 5]);
        sites.replacement = emit(&mut text, &[0x0f, 0x01, 0xca]);
        sites.runtime_pointer =
            2 + emit(&mut text, &[0x48, 0xb8, 0xef, 0xcd, 0xab, 0x89, 0x67, 0x45, 0x23, 0x01]);
        sites.runtime_shift = 2 + emit(&mut text, &[0xc1, 0xe8, 12]);
        sites.ftrace_call = call(&mut text, &[0xe8], thunk);
        sites.static_call = call(&mut text, &[0xe8], thunk);
        sites.trampoline = emit(&mut text, &[0xe9, 0, 0, 0, 0, 0x0f, 0xb9, 0xcc]);
        sites.relocated_word = emit(&mut text, &[0x00, 0x10, 0x00, 0x81]);
        sites.relocated_quad = emit(&mut text, &(TEXT + 0x1234).to_le_bytes());
        sites.lowered_word = emit(&mut text, &[0x00, 0x20, 0x00, 0x00]);
        pad(&mut text, 4096);
        let end = TEXT + text.len() as u64;
        sites.key = RODATA + 0x10;

        let mut symbols: Vec<(u64, u8, String)> = vec![
            (TEXT, b'T', "_text".into()),
            (TEXT, b'T', "_stext".into()),
            (sites.fentry, b'T', "__fentry__".into()),
            (sites.ftrace_call, b'T', "ftrace_call".into()),
            (sites.trampoline, b'T', "__SCT__something".into()),
            (sites.endbr, b'T', LONG_NAME.into()),
            (end, b'T', "_etext".into()),
        ];
        if matches!(self.kallsyms, Kallsyms::OffsetsFirst | Kallsyms::OffsetsLast) {
            symbols.push((0, b'A', "__per_cpu_start".into()));
            symbols.push((0x1000, b'A', "a_per_cpu_variable".into()));
        }
        symbols.extend((0..300).map(|n| (sites.mcount + n, b't', format!("function_{n}"))));

        let mut rodata = vec![0; 0x40];
        symbols.push((RODATA + 0x20, b'D', "vdso_image_64".into()));
        symbols.push((RODATA + 0x40, b'D', "linux_banner".into()));
        rodata.extend_from_slice(BANNER.as_bytes());
        rodata.push(0);
        pad(&mut rodata, 8);
        self.append_vdso(&mut rodata);
        symbols.push((RODATA + rodata.len() as u64, b'D', "__start___jump_table".into()));
        for (site, flags) in [(sites.jump_short, 1), (sites.jump_long, 2)] {
            distance(&mut rodata, RODATA, site);
            distance(&mut rodata, RODATA, sites.returns);
            let from = RODATA + rodata.len() as u64;
            rodata.extend_from_slice(&(sites.key.wrapping_sub(from) | flags).to_le_bytes());
        }
        symbols.push((RODATA + rodata.len() as u64, b'D', "__stop___jump_table".into()));
        symbols.push((RODATA + rodata.len() as u64, b'D', "__start_static_call_sites".into()));
        distance(&mut rodata, RODATA, sites.static_call);
        distance(&mut rodata, RODATA, sites.key | 1);
        symbols.push((RODATA + rodata.len() as u64, b'D', "__stop_static_call_sites".into()));
        pad(&mut rodata, 8);

        let mut init: Vec<u8> = vec![0; 8];
        symbols.push((INIT, b'D', "__start_mcount_loc".into()));
        init.extend_from_slice(&sites.mcount.to_le_bytes());
        symbols.push((INIT + init.len() as u64, b'D', "__stop_mcount_loc".into()));

        symbols.sort_by_key(|(address, ..)| *address);
        self.append_kallsyms(&mut rodata, &symbols);

        let mut sections = vec![
            Section { name: ".text".into(), address: TEXT, flags: 6, bytes: text },
            Section { name: ".rodata".into(), address: RODATA, flags: 2, bytes: rodata },
            Section { name: ".init.data".into(), address: INIT, flags: 3, bytes: init },
        ];
        self.add_tables(&mut sections, &sites);
        (self.link(&sections, &sites), sites)
    }

    /// A page of user code with one alternative, and the `struct vdso_image` at 0x20 for it.
    fn append_vdso(&self, rodata: &mut Vec<u8>) {
        let address = RODATA + rodata.len() as u64;
        let mut page = vec![0x90; 0x20];
        distance(&mut page, address, address + 0x10);
        distance(&mut page, address, address + 0x08);
        if self.alternative_size == 14 {
            page.extend_from_slice(&[0x12, 0, 0, 0, 4, 4]);
        } else {
            page.extend_from_slice(&[0x12, 0, 4, 4]);
        }
        let fields = [address, 0x40, 0x20, self.alternative_size as u64];
        for (index, field) in fields.iter().enumerate() {
            rodata[0x20 + 8 * index..][..8].copy_from_slice(&field.to_le_bytes());
        }
        pad(&mut page, 0x40);
        rodata.extend_from_slice(&page);
    }

    fn add_tables(&self, sections: &mut Vec<Section>, sites: &Sites) {
        let mut address = INIT + 0x10_0000;
        let mut add = |name: &str, fill: &dyn Fn(&mut Vec<u8>, u64)| {
            let mut bytes = Vec::new();
            fill(&mut bytes, address);
            if self.broken == Some(name) {
                bytes[0] = bytes[0].wrapping_add(1);
            }
            sections.push(Section { name: name.into(), address, flags: 2, bytes });
            address += 0x1000;
        };
        add(".retpoline_sites", &|table, at| {
            distance(table, at, sites.retpoline);
            distance(table, at, sites.retpoline_jcc);
        });
        add(".return_sites", &|table, at| distance(table, at, sites.returns));
        add(".call_sites", &|table, at| distance(table, at, sites.call));
        add(".ibt_endbr_seal", &|table, at| distance(table, at, sites.endbr));
        add(".smp_locks", &|table, at| {
            distance(table, at, sites.lock);
            table.resize(16, 0);
        });
        add(".parainstructions", &|table, _| {
            table.extend_from_slice(&sites.paravirt.to_le_bytes());
            table.extend_from_slice(&[3, 7, 0, 0, 0, 0, 0, 0]);
        });
        add(".altinstructions", &|table, at| {
            for _ in 0..3 {
                distance(table, at, sites.alternative);
                distance(table, at, sites.replacement);
                if self.alternative_size == 14 {
                    table.extend_from_slice(&[0x34, 0x02, 3, 0, 5, 3]);
                } else {
                    table.extend_from_slice(&[0x34, 0x82, 5, 3]);
                }
            }
        });
        add("runtime_ptr_table", &|table, at| distance(table, at, sites.runtime_pointer));
        add("runtime_shift_width", &|table, at| distance(table, at, sites.runtime_shift));
        add(".notes", &|table, _| {
            for word in [4_u32, 3, 6] {
                table.extend_from_slice(&word.to_le_bytes());
            }
            table.extend_from_slice(b"Xen\0abc\0");
            for word in [4_u32, 20, 3] {
                table.extend_from_slice(&word.to_le_bytes());
            }
            table.extend_from_slice(b"GNU\0");
            table.extend_from_slice(&BUILD_ID);
        });
        add(".BTF", &|table, _| table.extend_from_slice(b"\x9f\xeb\x01\x00"));
    }

    /// Appends the tables in this builder's format to read-only data at [`RODATA`].
    pub(crate) fn append_kallsyms(&self, rodata: &mut Vec<u8>, symbols: &[(u64, u8, String)]) {
        let align = if self.kallsyms == Kallsyms::FromEntry { 4 } else { 8 };
        let offsets: Vec<u32> = symbols
            .iter()
            .map(|(address, kind, _)| match self.kallsyms {
                Kallsyms::OffsetsFirst | Kallsyms::OffsetsLast if *kind != b'A' => {
                    (TEXT.wrapping_sub(*address).wrapping_sub(1)) as u32
                }
                Kallsyms::OffsetsFirst | Kallsyms::OffsetsLast => *address as u32,
                _ => address.wrapping_sub(TEXT) as u32,
            })
            .collect();
        pad(rodata, 8);
        if self.kallsyms == Kallsyms::OffsetsFirst {
            append(rodata, &offsets, 8);
            rodata.extend_from_slice(&TEXT.to_le_bytes());
        } else if self.kallsyms == Kallsyms::FromEntry {
            // Off the eight-byte alignment on purpose.
            rodata.extend_from_slice(&[0xff; 4]);
        }
        append(rodata, &[symbols.len() as u32], align);
        let start = rodata.len();
        let mut markers = Vec::new();
        for (index, (_, kind, name)) in symbols.iter().enumerate() {
            if index % 256 == 0 {
                markers.push((rodata.len() - start) as u32);
            }
            let length = name.len() + 1;
            if length > 127 {
                rodata.extend_from_slice(&[(length & 0x7f) as u8 | 0x80, (length >> 7) as u8]);
            } else {
                rodata.push(length as u8);
            }
            rodata.push(*kind);
            rodata.extend_from_slice(name.as_bytes());
        }
        pad(rodata, align);
        append(rodata, &markers, align);
        if self.kallsyms == Kallsyms::OffsetsFirst {
            rodata.resize(rodata.len() + 3 * symbols.len(), 0x11);
            pad(rodata, align);
        }
        // Each printable character stands for itself, as in real tables; the rest for pairs.
        let mut index = Vec::new();
        let tokens = rodata.len();
        for number in 0..=255_u8 {
            index.extend_from_slice(&((rodata.len() - tokens) as u16).to_le_bytes());
            if number.is_ascii_graphic() {
                rodata.push(number);
            } else {
                rodata.extend_from_slice(b"pair");
            }
            rodata.push(0);
        }
        pad(rodata, align);
        rodata.extend_from_slice(&index);
        match self.kallsyms {
            Kallsyms::OffsetsFirst => {}
            Kallsyms::OffsetsLast | Kallsyms::FromBase => {
                append(rodata, &offsets, 8);
                rodata.extend_from_slice(&TEXT.to_le_bytes());
            }
            Kallsyms::FromEntry => {
                for (address, ..) in symbols {
                    distance(rodata, RODATA, *address);
                }
            }
        }
        rodata.extend_from_slice(&[0x22; 64]);
    }

    fn link(&self, sections: &[Section], sites: &Sites) -> Vec<u8> {
        let mut names = vec![0];
        let mut elf = vec![0; 64 + 56 * sections.len()];
        let mut headers = vec![0; 64];
        for (index, section) in sections.iter().enumerate() {
            pad(&mut elf, 16);
            let (offset, size) = (elf.len() as u64, section.bytes.len() as u64);
            elf.extend_from_slice(&section.bytes);
            let physical = section.address - 0xffff_ffff_8000_0000;
            let mut segment = Vec::new();
            segment.extend_from_slice(&[1, 0, 0, 0, 5, 0, 0, 0]);
            for field in [offset, section.address, physical, size, size, 0x20_0000] {
                segment.extend_from_slice(&field.to_le_bytes());
            }
            elf[64 + 56 * index..][..56].copy_from_slice(&segment);
            header(
                &mut headers,
                names.len() as u32,
                1,
                section.flags,
                section.address,
                offset,
                size,
            );
            names.extend_from_slice(section.name.as_bytes());
            names.push(0);
        }
        let at = elf.len() as u64;
        header(&mut headers, names.len() as u32, 3, 0, 0, at, (names.len() + 10) as u64);
        names.extend_from_slice(b".shstrtab\0");
        elf.extend_from_slice(&names);
        pad(&mut elf, 8);
        let sections_at = elf.len() as u64;
        elf.extend_from_slice(&headers);

        elf[..16].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
        elf[16..18].copy_from_slice(&self.kind.to_le_bytes());
        elf[18..20].copy_from_slice(&self.machine.to_le_bytes());
        elf[32..40].copy_from_slice(&64_u64.to_le_bytes());
        elf[40..48].copy_from_slice(&sections_at.to_le_bytes());
        let count = sections.len() as u16;
        for (at, value) in
            [(52, 64), (54, 56), (56, count), (58, 64), (60, count + 2), (62, count + 1)]
        {
            elf[at..at + 2].copy_from_slice(&value.to_le_bytes());
        }
        if self.relocations {
            for word in [0, sites.relocated_quad, 0, sites.lowered_word, 0, sites.relocated_word]
                .map(|a| a as u32)
            {
                elf.extend_from_slice(&word.to_le_bytes());
            }
        }
        elf
    }
}

fn append(bytes: &mut Vec<u8>, words: &[u32], align: usize) {
    words.iter().for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
    pad(bytes, align);
}

fn header(
    to: &mut Vec<u8>,
    name: u32,
    kind: u32,
    flags: u64,
    address: u64,
    offset: u64,
    size: u64,
) {
    to.extend_from_slice(&name.to_le_bytes());
    to.extend_from_slice(&kind.to_le_bytes());
    for field in [flags, address, offset, size, 0, 1, 0] {
        to.extend_from_slice(&field.to_le_bytes());
    }
}

/// How [`boot_image`] compresses.
pub(crate) const WRAPPINGS: [&str; 4] = ["gzip", "xz", "zstd", "lz4"];

/// A bzImage around an ELF.
pub(crate) fn boot_image(elf: &[u8], wrapping: &str) -> Vec<u8> {
    let mut payload = compress(elf, wrapping);
    if wrapping != "gzip" {
        payload.extend_from_slice(&(elf.len() as u32).to_le_bytes());
    }
    boot_image_with(&payload)
}

/// A bzImage around a payload, taken as it is.
pub(crate) fn boot_image_with(payload: &[u8]) -> Vec<u8> {
    let mut file = vec![0; 1024 + 16];
    file[..2].copy_from_slice(b"MZ");
    file[0x1f1] = 1;
    file[0x202..0x206].copy_from_slice(b"HdrS");
    file[0x206..0x208].copy_from_slice(&0x020f_u16.to_le_bytes());
    file[0x20e..0x210].copy_from_slice(&0x0100_u16.to_le_bytes());
    file[0x236] = 1;
    file[0x248..0x24c].copy_from_slice(&16_u32.to_le_bytes());
    file[0x24c..0x250].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    file[0x300..0x30e].copy_from_slice(b"6.99.1 version");
    file.extend_from_slice(payload);
    file.extend_from_slice(b"a signature may follow");
    file
}

pub(crate) fn compress(elf: &[u8], wrapping: &str) -> Vec<u8> {
    match wrapping {
        "gzip" => {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(elf).expect("memory takes all");
            encoder.finish().expect("memory takes all")
        }
        "xz" => {
            let mut options = lzma_rust2::XzOptions::with_preset(1);
            options.prepend_pre_filter(lzma_rust2::FilterType::BcjX86, 0);
            let mut encoder =
                lzma_rust2::XzWriter::new(Vec::new(), options).expect("a preset is valid");
            encoder.write_all(elf).expect("memory takes all");
            encoder.finish().expect("memory takes all")
        }
        "zstd" => {
            ruzstd::encoding::compress_to_vec(elf, ruzstd::encoding::CompressionLevel::Fastest)
        }
        "lz4" => {
            let block = lz4_flex::block::compress(elf);
            let mut stream = vec![0x02, 0x21, 0x4c, 0x18];
            stream.extend_from_slice(&(block.len() as u32).to_le_bytes());
            stream.extend_from_slice(&block);
            stream
        }
        other => panic!("no compression {other}"),
    }
}
