// SPDX-License-Identifier: Apache-2.0
//! A module whose every byte is known: what is read from it, what is made of it, and what of it is
//! refused.

#[path = "synthetic_module/mod.rs"]
mod small;

use std::io::Write;

use kernel_image::module::{LinkError, Linked, ModuleFile, Part, Surroundings};
use kernel_image::patching::Code;
use kernel_image::{Compression, ImageErrorKind, Place};

fn addresses(file: &ModuleFile) -> Vec<Option<u64>> {
    small::addresses(file.sections().iter().map(|section| section.name.clone()))
}

fn link(file: &ModuleFile) -> Result<Linked<'_>, LinkError> {
    let addresses = addresses(file);
    let exports = &small::export;
    Linked::new(file, &Surroundings { addresses: &addresses, per_cpu: None, exports })
}

#[test]
fn what_a_module_says_of_itself_is_read() {
    let file = ModuleFile::parse(&small::module()).unwrap();
    assert_eq!((file.name(), file.version_magic()), ("small", "6.12.0 SMP"));
    assert_eq!(file.depends().collect::<Vec<_>>(), ["one", "two-b"]);
    assert_eq!(file.build_id(), Some(&[7; 20][..]));
    assert!(!file.is_signed() && !file.is_livepatch());
}

#[test]
fn compressed_and_signed_modules_are_the_same_module() {
    let module = small::module();
    let signed = small::signed(&module);
    let file = ModuleFile::parse(&signed).unwrap();
    assert!(file.is_signed());
    assert_eq!(file.name(), "small");

    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&signed).unwrap();
    let mut xz =
        lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::with_preset(1)).unwrap();
    xz.write_all(&signed).unwrap();
    let zstd =
        ruzstd::encoding::compress_to_vec(&signed[..], ruzstd::encoding::CompressionLevel::Fastest);
    for (bytes, compression) in [
        (gzip.finish().unwrap(), Compression::Gzip),
        (xz.finish().unwrap(), Compression::Xz),
        (zstd, Compression::Zstd),
    ] {
        let file = ModuleFile::parse(&bytes).unwrap();
        assert_eq!((file.compression(), file.name()), (compression, "small"));
        assert!(file.is_signed());
        assert_eq!(file.build_id(), Some(&[7; 20][..]));
    }
}

#[test]
fn sections_are_laid_out_as_the_loader_does_it() {
    let file = ModuleFile::parse(&small::module()).unwrap();
    let names = |part| {
        let (placed, size) = file.layout(part).unwrap();
        let name = |one: &kernel_image::module::Placed| {
            (file.sections()[usize::from(one.section)].name.clone(), one.offset)
        };
        (placed.iter().map(name).collect::<Vec<_>>(), size)
    };
    assert_eq!(names(Part::Text), (vec![(".text".to_owned(), 0)], 64));
    let rodata = [(".rodata", 0), ("__mcount_loc", 16), (".note.gnu.build-id", 24)];
    let rodata = rodata.map(|(name, at)| (name.to_owned(), at)).to_vec();
    // .modinfo asks to be loaded, and is not.
    assert_eq!(names(Part::Rodata), (rodata, 60));
}

#[test]
fn relocations_lead_where_they_should_and_the_tables_follow() {
    let file = ModuleFile::parse(&small::module()).unwrap();
    let linked = link(&file).unwrap();
    let distance = |at: u64, to: u64| (to.wrapping_sub(at + 4) as u32).to_le_bytes();
    assert_eq!(
        linked.bytes_at(small::TEXT + 1, 4).unwrap(),
        distance(small::TEXT + 1, small::FENTRY)
    );
    let printk = small::TEXT + 11;
    assert_eq!(linked.bytes_at(printk, 4).unwrap(), distance(printk, small::PRINTK));
    let constant = ((small::RODATA + 8) as u32).to_le_bytes();
    assert_eq!(linked.bytes_at(small::TEXT + 18, 4).unwrap(), constant);

    let tables = linked.tables();
    assert_eq!(tables.mcount.sites, [small::TEXT]);
    let [label] = tables.jump_labels[..] else { panic!("{:?}", tables.jump_labels) };
    assert_eq!((label.address, label.target), (small::TEXT + 5, small::TEXT + 32));
    assert_eq!((label.key, label.length), (small::KEY, 5));

    let mut rodata = vec![0; 0x1000];
    linked.fill(small::RODATA, &mut rodata);
    assert_eq!(&rodata[..10], b"a constant");
    assert_eq!(rodata[0x10..0x18], small::TEXT.to_le_bytes());
    assert!(rodata[0x3c..].iter().all(|byte| *byte == 0));
}

#[test]
fn what_is_patched_is_patched_within_sections_only() {
    let file = ModuleFile::parse(&small::module()).unwrap();
    let mut linked = link(&file).unwrap();
    assert!(linked.write(small::TEXT + 62, &[1, 2]));
    assert_eq!(linked.read(small::TEXT + 62, 2), Some(&[1, 2][..]));
    assert!(!linked.write(small::TEXT + 63, &[1, 2]));
    assert!(!linked.write(small::TEXT - 1, &[1]));
}

#[test]
fn a_symbol_that_nobody_exports_is_named() {
    let file = ModuleFile::parse(&small::module()).unwrap();
    let addresses = addresses(&file);
    let exports = &|name: &str| small::export(name).filter(|_| name != "printk");
    let error = Linked::new(&file, &Surroundings { addresses: &addresses, per_cpu: None, exports });
    assert_eq!(error.unwrap_err(), LinkError::Symbol("printk".to_owned()));
}

#[test]
fn relocations_that_the_loader_would_refuse_are_refused_with_their_place() {
    type Change = fn(&mut Vec<(u64, u32, u64, i64)>);
    let cases: [(Change, &str); 5] = [
        (|list| list[0].1 = 99, "unknown type 99"),
        (|list| list[0].0 = 61, "not in its section"),
        (|list| list[0].0 = u64::MAX, "not in its section"),
        (|list| list.push((0, small::R_PC32, 1, 0)), "would overwrite"),
        (|list| list[2].1 = small::R_32, "does not fit"),
    ];
    for (change, expected) in cases {
        let bytes = small::module_with(change);
        let file = ModuleFile::parse(&bytes).unwrap();
        let Err(LinkError::File(error)) = link(&file) else { panic!("{expected}") };
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!((error.kind(), error.place()), (ImageErrorKind::Malformed, Place::Module));
    }
    let bytes = small::module_with(|list| list[0].2 = 1000);
    let file = ModuleFile::parse(&bytes).unwrap();
    assert!(link(&file).unwrap_err().to_string().contains("no symbol 1000"));
}

#[test]
fn a_module_that_is_cut_short_is_refused_wherever_it_is_cut() {
    let module = small::module();
    for length in 0..module.len() {
        let error = ModuleFile::parse(&module[..length]).unwrap_err();
        assert_eq!(error.place(), Place::Module, "{length}: {error}");
    }
}

#[test]
fn no_change_of_a_byte_makes_it_panic_or_take_much_memory() {
    let module = small::module();
    let mut linked = 0;
    for at in 0..module.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut bytes = module.clone();
            bytes[at] = value;
            if let Ok(file) = ModuleFile::parse(&bytes) {
                for part in [Part::Text, Part::Rodata] {
                    let _ = file.layout(part);
                }
                let _ = (file.name(), file.build_id(), file.is_livepatch());
                linked += u32::from(link(&file).is_ok());
            }
        }
    }
    assert!(linked > 1000, "{linked}");
}

#[test]
fn counts_beyond_reason_and_other_files_are_named() {
    let module = small::module();
    let parse = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = module.clone();
        change(&mut bytes);
        ModuleFile::parse(&bytes).unwrap_err()
    };
    let many = parse(&|bytes| bytes[60..62].copy_from_slice(&u16::MAX.to_le_bytes()));
    assert!(many.to_string().contains("65535 found"), "{many}");
    assert_eq!(many.offset(), 60);
    let kernel = parse(&|bytes| bytes[16] = 2);
    assert_eq!(kernel.kind(), ImageErrorKind::NotAKernel);
    assert!(kernel.to_string().contains(".ko"), "{kernel}");
    let arm = parse(&|bytes| bytes[18] = 183);
    assert_eq!(arm.kind(), ImageErrorKind::WrongArchitecture);
    let text = ModuleFile::parse(b"#!/bin/sh\n").unwrap_err();
    assert_eq!(text.kind(), ImageErrorKind::NotAKernel);
    let mut forged = small::signed(&module);
    let length = forged.len();
    forged[length - 32..length - 28].copy_from_slice(&u32::MAX.to_be_bytes());
    let error = ModuleFile::parse(&forged).unwrap_err();
    assert!(error.to_string().contains("longer than the file"), "{error}");
}
