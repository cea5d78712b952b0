// SPDX-License-Identifier: Apache-2.0
//! Writes inputs for the fuzz targets to start from: `make_corpus KERNELS CORPUS`.
//!
//! Whole kernels are too large to be changed a million times. What is written is small: slices of
//! real kernels where the place of the parts does not matter (headers, BTF, symbols), and small
//! kernels with all tables where it does.

mod corpus_of_dumps;
mod corpus_of_formats;
#[path = "../crates/abi/tests/support/mod.rs"]
mod records;
#[path = "../crates/kernel-image/tests/synthetic/mod.rs"]
mod synthetic;
#[path = "../crates/kernel-image/tests/synthetic_module/mod.rs"]
mod synthetic_module;

use std::error::Error;
use std::path::{Path, PathBuf};

use kernel_image::KernelImage;
use kernel_image::btf::Btf;
use kernel_image::module::ModuleFile;
use synthetic::{Builder, FORMATS, WRAPPINGS, boot_image};

fn main() -> Result<(), Box<dyn Error>> {
    let [_, kernels, corpus] = &std::env::args().collect::<Vec<_>>()[..] else {
        return Err("usage: make_corpus KERNELS CORPUS".into());
    };
    let corpus = PathBuf::from(corpus);
    small_kernels(&corpus)?;
    for (event, record) in records::sample_of_each() {
        write(&corpus, "record", event.name(), record.as_bytes())?;
    }
    for (target, name, bytes) in corpus_of_formats::inputs()?.into_iter().chain(corpus_of_dumps::inputs()) {
        write(&corpus, target, name, &bytes)?;
    }
    grants(&corpus)?;
    of_the_daemon(&corpus)?;
    let mut count = 0;
    for entry in std::fs::read_dir(kernels).map_err(|error| format!("{kernels}: {error}"))? {
        let file = entry?.path().join("vmlinuz");
        if file.is_file() {
            slices(&corpus, &file)?;
            count += 1;
        }
        modules(&corpus, &file.with_file_name("modules"))?;
    }
    println!("inputs from {count} kernels in {}", corpus.display());
    Ok(())
}

fn write(corpus: &Path, target: &str, name: &str, bytes: &[u8]) -> Result<(), Box<dyn Error>> {
    let directory = corpus.join(target);
    std::fs::create_dir_all(&directory)?;
    let file = directory.join(name);
    std::fs::write(&file, bytes).map_err(|error| format!("{}: {error}", file.display()).into())
}

/// Grants with all that can be wrong in one, as the tests have them.
fn grants(corpus: &Path) -> Result<(), Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/broker/tests/grants");
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            write(corpus, "grant", &name, &std::fs::read(&path)?)?;
        }
    }
    Ok(())
}

/// Lines of the guard as the tests have them, and rules as they are kept.
fn of_the_daemon(corpus: &Path) -> Result<(), Box<dyn Error>> {
    let lines = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/daemon/tests/guard-lines.jsonl");
    for (number, line) in std::fs::read_to_string(lines)?.lines().enumerate() {
        write(corpus, "guard_line", &format!("{number}"), line.as_bytes())?;
    }
    let rule = "[[rule]]\nid = 1\nevent = \"process_exec\"\naction = \"deny\"\nfile.path = \"/a\"\n";
    let kept = serde_json::json!({ "text": rule, "dry_run": true });
    write(corpus, "kept", "rules", kept.to_string().as_bytes())?;
    write(corpus, "kept", "digests", &[7; 64])
}

/// The largest module that is an input, and how many of one kernel are.
const LARGEST_MODULE: usize = 40 << 10;
const MODULES: usize = 24;

/// The made-up module, and small ones of a kernel: decompressed, as a fuzzer gets nowhere through a
/// checksum, and a few as they are.
fn modules(corpus: &Path, below: &Path) -> Result<(), Box<dyn Error>> {
    let made_up = synthetic_module::module();
    write(corpus, "module", "made-up", &made_up)?;
    write(corpus, "module", "made-up-signed", &synthetic_module::signed(&made_up))?;
    let kernel = below.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    let mut open = vec![below.join("kernel/net/netfilter"), below.join("kernel/crypto")];
    let mut written = 0;
    while let Some(directory) = open.pop() {
        let Ok(entries) = std::fs::read_dir(&directory) else { continue };
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if written == MODULES || !name.contains(".ko") {
                continue;
            }
            let bytes = std::fs::read(&path)?;
            let module = ModuleFile::parse(&bytes)
                .map_err(|error| format!("{}: {error}", path.display()))?;
            if module.elf_bytes().len() <= LARGEST_MODULE {
                write(corpus, "module", &format!("{kernel}-{name}-elf"), module.elf_bytes())?;
                if written < 4 {
                    write(corpus, "module", &format!("{kernel}-{name}"), &bytes)?;
                }
                written += 1;
            }
        }
    }
    Ok(())
}

/// Kernels of some kilobytes in each format of kallsyms and each compression.
fn small_kernels(corpus: &Path) -> Result<(), Box<dyn Error>> {
    for kallsyms in FORMATS {
        let (elf, _) = Builder { kallsyms, ..Builder::default() }.build();
        let name = format!("small-{kallsyms:?}");
        write(corpus, "elf", &name, &elf)?;
        let image = KernelImage::parse(&elf)?;
        write(corpus, "kallsyms", &name, image.section_bytes(".rodata").unwrap_or_default())?;
        write(corpus, "tables", &name, &with_symbols(&image, &elf))?;
    }
    let (elf, _) = Builder { alternative_size: 12, ..Builder::default() }.build();
    write(
        corpus,
        "tables",
        "small-12-byte-alternatives",
        &with_symbols(&KernelImage::parse(&elf)?, &elf),
    )?;
    for wrapping in WRAPPINGS {
        write(corpus, "payload", &format!("small-{wrapping}"), &boot_image(&elf, wrapping))?;
    }
    Ok(())
}

/// What the target `tables` takes: a length, symbols as text, an ELF.
fn with_symbols(image: &KernelImage, elf: &[u8]) -> Vec<u8> {
    let named = |name: &str| !name.starts_with("function_");
    let symbols = image.symbols().iter().filter(|symbol| named(symbol.name));
    let text = as_text(symbols.map(|symbol| (symbol.address, symbol.kind, symbol.name.to_owned())));
    let mut input = (text.len() as u16).to_le_bytes().to_vec();
    input.extend_from_slice(text.as_bytes());
    input.extend_from_slice(elf);
    input
}

fn as_text(symbols: impl Iterator<Item = (u64, u8, String)>) -> String {
    symbols
        .map(|(address, kind, name)| format!("{address:016x} {} {name}\n", char::from(kind)))
        .collect()
}

/// Parts of a real kernel.
fn slices(corpus: &Path, file: &Path) -> Result<(), Box<dyn Error>> {
    let bytes = std::fs::read(file)?;
    let name = file.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    let image =
        KernelImage::parse(&bytes).map_err(|error| format!("{}: {error}", file.display()))?;
    write(corpus, "payload", &name, &bytes[..bytes.len().min(32 << 10)])?;
    write(corpus, "elf", &name, &image.elf_bytes()[..image.elf_bytes().len().min(4 << 10)])?;

    // Symbols from all over the kernel, and _text, without which none are accepted.
    let step = image.symbols().len().div_ceil(400).max(1);
    let symbols: Vec<(u64, u8, String)> = image
        .symbols()
        .iter()
        .enumerate()
        .filter(|(index, symbol)| index % step == 0 || symbol.name == "_text")
        .map(|(_, symbol)| (symbol.address, symbol.kind, symbol.name.to_owned()))
        .collect();
    for kallsyms in FORMATS {
        let mut region = vec![0; 64];
        Builder { kallsyms, ..Builder::default() }.append_kallsyms(&mut region, &symbols);
        write(corpus, "kallsyms", &format!("{name}-{kallsyms:?}"), &region)?;
    }
    let mut text = as_text(symbols.into_iter());
    text.push_str("ffffffffc0000000 t init_module\t[some_module]\n");
    write(corpus, "proc_kallsyms", &name, text.as_bytes())?;
    let btf = image.btf_bytes().and_then(small_btf);
    write(
        corpus,
        "btf",
        &name,
        &btf.ok_or_else(|| format!("{name}: no part of the BTF stands alone"))?,
    )?;
    Ok(())
}

/// As many of the first types of a kernel's BTF as refer to each other only, with the strings they
/// may need (include/uapi/linux/btf.h). A seed that is refused at once would lead nowhere.
fn small_btf(btf: &[u8]) -> Option<Vec<u8>> {
    let word = |at: usize| Some(u32::from_le_bytes(btf.get(at..at + 4)?.try_into().ok()?) as usize);
    let header = word(4)?;
    let (types, strings) = (header + word(8)?, header + word(16)?);
    let mut ends = vec![types];
    while ends.last()? - types < 8 << 10 {
        let end = *ends.last()?;
        let info = word(end + 4)?;
        let (kind, entries) = ((info >> 24) & 0x1f, info & 0xffff);
        let size = match kind {
            1 | 14 | 17 => 4,
            3 => 12,
            4 | 5 | 15 | 19 => 12 * entries,
            6 | 13 => 8 * entries,
            _ => 0,
        };
        ends.push(end + 12 + size);
    }
    let names = btf.get(strings..)?;
    let names = names.get(..names.len().min(24 << 10))?;
    ends.iter().rev().find_map(|end| {
        let mut small = btf.get(..header)?.to_vec();
        let kept = btf.get(types..*end)?;
        for (at, value) in [(8, 0), (12, kept.len()), (16, kept.len()), (20, names.len())] {
            small.get_mut(at..at + 4)?.copy_from_slice(&(value as u32).to_le_bytes());
        }
        small.extend_from_slice(kept);
        small.extend_from_slice(names);
        *small.last_mut()? = 0;
        Btf::parse(&small).is_ok().then_some(small)
    })
}
