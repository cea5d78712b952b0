// SPDX-License-Identifier: Apache-2.0
//! `ringfence save`: text and read-only data of the running kernel, in a file to look at later or
//! elsewhere. The format is in kernel-memory/src/saved.rs.

use std::fs::OpenOptions;
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use guard::baseline::Identity;
use kernel_image::Symbols;
use kernel_memory::saved::{SavedIdentity, save};

use crate::Ending;
use crate::live;
use crate::screen::{Output, grouped};

/// Save the text and read-only data of the running kernel to a file
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// The file to write; it must not exist
    file: PathBuf,
}

/// Runs the subcommand.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    let mut notices = Vec::new();
    let reader = live::open_reader(&mut notices)?;
    let identity = live::identity()?;
    let ranges = ranges(&probes::live_symbols()?)?;
    let path = arguments.file.display();
    // Kernel memory tells where the kernel lies, which KASLR hides from everybody but root.
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&arguments.file)
        .with_context(|| format!("cannot create {path}"))?;
    let mut buffered = BufWriter::with_capacity(1 << 16, file);
    let saved = save(&reader, &saved_identity(&identity), &ranges, &mut buffered)
        .and_then(|saved| match buffered.flush() {
            Ok(()) => Ok(saved),
            Err(error) => Err(kernel_memory::saved::SaveError::Write(error)),
        })
        .with_context(|| format!("{path} is not complete"))?;
    let mut text = format!("{} bytes saved to {path}", grouped(saved.bytes));
    if saved.unreadable > 0 {
        text.push_str(&format!("; {} bytes could not be read", grouped(saved.unreadable)));
    }
    for notice in notices {
        text.push_str(&format!("\nNote: {notice}"));
    }
    Output::stdout().put(&format!("{text}\n"))?;
    Ok(Ending::Clean)
}

/// Text and read-only data by the linker's symbols. Where a kernel does not list the end of its
/// read-only data (without CONFIG_KALLSYMS_ALL), .BTF, the last thing in it, ends it
/// (include/asm-generic/vmlinux.lds.h, 6.18).
fn ranges(symbols: &Symbols) -> anyhow::Result<Vec<(u64, u64)>> {
    let bounds = [("_stext", &["_etext"][..]), ("__start_rodata", &["__end_rodata", "__stop_BTF"])];
    let mut ranges = Vec::new();
    for (start_name, end_names) in bounds {
        let start = symbols.address_of(start_name);
        let end = end_names.iter().find_map(|name| symbols.address_of(name));
        match (start, end) {
            (Some(start), Some(end)) if start < end => ranges.push((start, end - start)),
            _ => bail!(
                "the kernel lists no {start_name} or no {}, which bound what is to be saved",
                end_names.join(" or ")
            ),
        }
    }
    Ok(ranges)
}

fn saved_identity(identity: &Identity) -> SavedIdentity {
    let mut boot_id = [0; 16];
    let digits: String = identity.boot_id.chars().filter(|c| *c != '-').collect();
    for (byte, parsed) in boot_id.iter_mut().zip(bytes(&digits)) {
        *byte = parsed;
    }
    SavedIdentity { build_id: bytes(&identity.build_id), boot_id }
}

/// Bytes from hexadecimal digits, up to the first that is none.
fn bytes(digits: &str) -> Vec<u8> {
    let pairs = (0..digits.len() / 2).map_while(|pair| digits.get(pair * 2..pair * 2 + 2));
    pairs.map_while(|pair| u8::from_str_radix(pair, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identity_is_saved_as_bytes() {
        let identity = Identity {
            release: "6.12".into(),
            build_id: "00ffab".into(),
            boot_id: "89a118be-a800-49d4-a2e1-299f435a5137".into(),
        };
        let saved = saved_identity(&identity);
        assert_eq!(saved.build_id, [0, 0xff, 0xab]);
        assert_eq!((saved.boot_id[0], saved.boot_id[15]), (0x89, 0x37));
    }

    #[test]
    fn bounds_that_are_not_listed_are_named() {
        let symbols = Symbols::from_iter([(1, b'T', "_stext"), (9, b'T', "_etext")]);
        assert!(ranges(&symbols).unwrap_err().to_string().contains("__start_rodata"));
        let more = [(1, "_stext"), (9, "_etext"), (16, "__start_rodata"), (20, "__stop_BTF")];
        let symbols = Symbols::from_iter(more.map(|(at, name)| (at, b'R', name)));
        assert_eq!(ranges(&symbols).unwrap(), [(1, 8), (16, 4)]);
    }
}
