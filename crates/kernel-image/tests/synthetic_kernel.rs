// SPDX-License-Identifier: Apache-2.0
//! Each part of an image, on a small kernel whose every byte the test knows.

mod synthetic;

use kernel_image::tables::{Instruction, RuntimeConstantKind};
use kernel_image::{Compression, ImageErrorKind, KernelImage, Place, TableKind, When};
use synthetic::{
    BANNER, BUILD_ID, Builder, FORMATS, Kallsyms, LONG_NAME, TEXT, WRAPPINGS, boot_image,
};

fn error(file: &[u8]) -> kernel_image::ImageError {
    KernelImage::parse(file).expect_err("an error was expected")
}

#[test]
fn symbols_are_the_same_in_each_format_of_kallsyms() {
    for kallsyms in FORMATS {
        let (elf, sites) = Builder { kallsyms, ..Builder::default() }.build();
        let image =
            KernelImage::parse(&elf).unwrap_or_else(|error| panic!("{kallsyms:?}: {error}"));
        let symbols = image.symbols();
        assert_eq!(symbols.address_of("_text"), Some(TEXT), "{kallsyms:?}");
        assert_eq!(symbols.address_of("function_299"), Some(sites.mcount + 299), "{kallsyms:?}");
        assert_eq!(symbols.address_of(LONG_NAME), Some(sites.endbr), "{kallsyms:?}");
        let kind = symbols.all_named("function_7").next().unwrap().kind;
        assert_eq!(kind, b't', "{kallsyms:?}");
        let per_cpu = matches!(kallsyms, Kallsyms::OffsetsFirst | Kallsyms::OffsetsLast);
        assert_eq!(
            symbols.address_of("a_per_cpu_variable"),
            per_cpu.then_some(0x1000),
            "{kallsyms:?}"
        );
    }
}

#[test]
fn every_table_gives_the_sites_that_were_put_in() {
    let (elf, sites) = Builder::default().build();
    let image = KernelImage::parse(&elf).unwrap();
    let tables = image.tables();
    assert_eq!(tables.mcount.sites, [sites.mcount]);
    assert_eq!(tables.mcount.zeroed, 1);
    assert_eq!(tables.returns, [sites.returns]);
    assert_eq!(tables.calls, [sites.call]);
    assert_eq!(tables.endbr_seals, [sites.endbr]);
    assert_eq!(tables.smp_locks, [sites.lock], "padding is no site");
    assert_eq!(
        tables.retpolines,
        [
            Instruction { address: sites.retpoline, length: 5 },
            Instruction { address: sites.retpoline_jcc, length: 6 }
        ]
    );
    let paravirt = tables.paravirt[0];
    assert_eq!((paravirt.address, paravirt.operation, paravirt.length), (sites.paravirt, 3, 7));
    let [short, long] = tables.jump_labels[..] else { panic!("two jump labels were put in") };
    assert_eq!((short.address, short.length, short.branch), (sites.jump_short, 2, true));
    assert_eq!((long.address, long.length, long.branch), (sites.jump_long, 5, false));
    assert_eq!((short.target, short.key, long.key), (sites.returns, sites.key, sites.key));
    let call = tables.static_calls[0];
    assert_eq!((call.address, call.key, call.tail), (sites.static_call, sites.key, true));
    assert_eq!(tables.static_call_trampolines[0].address, sites.trampoline);
    assert_eq!(tables.ftrace_calls[0].address, sites.ftrace_call);
    let constants: Vec<_> = tables
        .runtime_constants
        .iter()
        .map(|constant| (constant.variable.as_str(), constant.kind, constant.sites[0]))
        .collect();
    assert_eq!(
        constants,
        [
            ("table", RuntimeConstantKind::Pointer, sites.runtime_pointer),
            ("width", RuntimeConstantKind::Shift, sites.runtime_shift)
        ]
    );
    assert_eq!(
        tables.sites().count(),
        TableKind::ALL.map(|table| tables.count(table)).iter().sum()
    );
    let run: u64 = tables
        .sites()
        .filter(|site| site.table.when() == When::Run)
        .map(|site| u64::from(site.length))
        .sum();
    assert_eq!(image.summary().run_time_bytes, run, "the run-time sites do not overlap here");
}

#[test]
fn alternatives_are_read_with_and_without_flags_of_their_own() {
    for (alternative_size, direct_call) in [(14, true), (12, false)] {
        let (elf, sites) = Builder { alternative_size, ..Builder::default() }.build();
        let image = KernelImage::parse(&elf).unwrap();
        assert_eq!(image.tables().alternatives.len(), 3);
        let alternative = image.tables().alternatives[2];
        assert_eq!(alternative.address, sites.alternative);
        assert_eq!((alternative.feature, alternative.unless), (0x234, true));
        assert_eq!(alternative.direct_call, direct_call);
        assert_eq!(image.replacement(&alternative), Some(&[0x0f, 0x01, 0xca][..]));
    }
}

#[test]
fn a_vdso_has_alternatives_of_its_own() {
    for alternative_size in [14, 12] {
        let (elf, _) = Builder { alternative_size, ..Builder::default() }.build();
        let image = KernelImage::parse(&elf).unwrap();
        let [vdso] = &image.tables().vdso_images[..] else { panic!("one vDSO was put in") };
        let alternative = vdso.alternatives[0];
        assert_eq!((vdso.name, vdso.size), ("vdso_image_64", 0x40));
        assert_eq!((alternative.address, alternative.length), (vdso.address + 0x10, 4));
        assert_eq!((alternative.replacement, alternative.feature), (vdso.address + 8, 0x12));
    }
}

#[test]
fn identity_is_read_from_banner_and_notes() {
    let (elf, _) = Builder::default().build();
    let image = KernelImage::parse(&elf).unwrap();
    assert_eq!(image.release(), "6.99.1-synthetic");
    assert_eq!(image.banner(), BANNER.trim_end());
    assert_eq!(image.build_id(), Some(&BUILD_ID[..]));
    assert_eq!(image.btf_bytes(), Some(&b"\x9f\xeb\x01\x00"[..]));
    assert_eq!(image.section(".text").map(|text| text.address), Some(TEXT));
}

#[test]
fn each_compression_gives_the_same_kernel() {
    let (elf, _) = Builder::default().build();
    for wrapping in WRAPPINGS {
        let image = KernelImage::parse(&boot_image(&elf, wrapping))
            .unwrap_or_else(|error| panic!("{wrapping}: {error}"));
        assert_eq!(image.compression().to_string(), wrapping);
        assert_eq!(image.elf_bytes(), elf, "{wrapping}");
    }
    assert_eq!(KernelImage::parse(&elf).unwrap().compression(), Compression::None);
    let file = boot_image(&elf, "lz4");
    assert_eq!(kernel_image::payload::boot_version(&file), Some("6.99.1 version"));
}

#[test]
fn relocation_changes_what_the_boot_code_changes() {
    let (elf, sites) = Builder::default().build();
    let image = KernelImage::parse(&elf).unwrap();
    let slide = 0x1_2340_0000;
    let word = |address| {
        let bytes = image.relocated(address, 4, slide).unwrap();
        u32::from_le_bytes(bytes.try_into().unwrap())
    };
    assert_eq!(word(sites.relocated_word), 0x8100_1000_u32.wrapping_add(0x2340_0000));
    assert_eq!(word(sites.lowered_word), 0x2000_u32.wrapping_sub(0x2340_0000));
    let quad = image.relocated(sites.relocated_quad, 8, slide).unwrap();
    assert_eq!(quad, (TEXT + 0x1234).wrapping_add(slide).to_le_bytes());
    // A range that cuts values in two has the same bytes as the whole.
    let whole = image.relocated(TEXT, 0x200, slide).unwrap();
    for start in 0..0x200 {
        let part = image.relocated(TEXT + start as u64, 0x200 - start, slide).unwrap();
        assert_eq!(part, whole[start..], "from {start:#x}");
        let part = image.relocated(TEXT, start, slide).unwrap();
        assert_eq!(part, whole[..start], "up to {start:#x}");
    }
    assert_eq!(image.relocated(TEXT, 0x200, 0).unwrap(), image.bytes_at(TEXT, 0x200).unwrap());
    assert_eq!(image.relocated(TEXT - 1, 2, slide), None);
    assert_eq!(image.bytes_at(u64::MAX, 2), None);
}

#[test]
fn a_debug_vmlinux_has_no_relocations() {
    let (elf, _) = Builder { relocations: false, ..Builder::default() }.build();
    let image = KernelImage::parse(&elf).unwrap();
    assert!(image.relocations().is_empty());
}

#[test]
fn a_site_that_is_not_the_expected_instruction_is_refused_with_its_offset() {
    for broken in [
        ".retpoline_sites",
        ".return_sites",
        ".call_sites",
        ".ibt_endbr_seal",
        ".smp_locks",
        "runtime_ptr_table",
        "runtime_shift_width",
    ] {
        let (elf, _) = Builder { broken: Some(broken), ..Builder::default() }.build();
        let error = error(&elf);
        assert_eq!(error.kind(), ImageErrorKind::Malformed, "{broken}");
        assert!(error.to_string().contains(broken), "{error}");
        let (whole, _) = Builder::default().build();
        let image = KernelImage::parse(&whole).unwrap();
        assert_eq!(error.offset(), image.section(broken).unwrap().offset, "{broken}");
    }
}

#[test]
fn kernels_of_other_architectures_are_named() {
    let mut messages = Vec::new();
    for machine in [3, 40, 183, 21, 22, 243, 258, 8] {
        let (elf, _) = Builder { machine, ..Builder::default() }.build();
        let error = error(&elf);
        assert_eq!((error.kind(), error.offset()), (ImageErrorKind::WrongArchitecture, 18));
        messages.push(error.to_string());
    }
    for (offset, magic) in
        [(0x38, &b"ARM\x64"[..]), (0x38, b"RSC\x05"), (0x24, b"\x18\x28\x6f\x01")]
    {
        let mut file = vec![0; 4096];
        file[offset..offset + magic.len()].copy_from_slice(magic);
        let error = error(&file);
        assert_eq!(
            (error.kind(), error.offset()),
            (ImageErrorKind::WrongArchitecture, offset as u64)
        );
        messages.push(error.to_string());
    }
    let mut file = boot_image(&Builder::default().build().0, "gzip");
    file[0x236] = 0;
    let error = error(&file);
    assert_eq!(error.kind(), ImageErrorKind::WrongArchitecture);
    messages.push(error.to_string());
    let count = messages.len();
    messages.sort();
    messages.dedup();
    assert_eq!(messages.len(), count, "each has a message of its own");
}

#[test]
fn files_that_are_no_kernel_are_named() {
    for (file, expected) in [
        (&b""[..], "empty"),
        (b"#!/bin/sh\n", "HdrS"),
        (b"\x1f\x8b\x08\x00", "gzip"),
        (b"!<arch>\ndebian-binary", "Debian package"),
        (&[0; 4096], "HdrS"),
    ] {
        let error = error(file);
        assert_eq!(error.kind(), ImageErrorKind::NotAKernel, "{error}");
        assert!(error.to_string().contains(expected), "{error}");
        assert!(error.to_string().contains("/boot/vmlinuz"), "{error}");
    }
    for (kind, expected) in [(1, "module"), (3, "program"), (4, "dump")] {
        let (elf, _) = Builder { kind, ..Builder::default() }.build();
        let error = error(&elf);
        assert_eq!(error.kind(), ImageErrorKind::NotAKernel);
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn compressions_that_are_not_read_are_named() {
    for (start, expected) in
        [(&b"BZh9"[..], "bzip2"), (b"\x5d\0\0\x80", "lzma"), (b"\x89LZO\0", "lzo")]
    {
        let mut payload = start.to_vec();
        payload.resize(64, 0);
        let error = error(&synthetic::boot_image_with(&payload));
        assert_eq!((error.kind(), error.place()), (ImageErrorKind::Unsupported, Place::File));
        assert!(error.to_string().contains(expected), "{error}");
        assert!(error.to_string().contains("extract-vmlinux"), "{error}");
    }
}

#[test]
fn a_kernel_without_kallsyms_is_told_what_it_lacks() {
    let (mut elf, _) = Builder::default().build();
    let image = KernelImage::parse(&elf).unwrap();
    let data = image.section(".rodata").unwrap();
    let (start, size) = (data.offset as usize, data.size as usize);
    elf[start..start + size].fill(0);
    let error = error(&elf);
    assert_eq!((error.kind(), error.offset()), (ImageErrorKind::NoSymbols, start as u64));
    assert!(error.to_string().contains("CONFIG_KALLSYMS"), "{error}");
}
