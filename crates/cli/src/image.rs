// SPDX-License-Identifier: Apache-2.0
//! `ringfence image`: what kernel images hold, and how many places the kernel patches in itself.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use kernel_image::{ImageSummary, KernelImage, TableKind, When};
use memmap2::Mmap;
use serde::Serialize;

use crate::Ending;
use crate::screen::{Output, Style, Table, Tone, grouped};

/// Show what kernel images (vmlinuz or vmlinux) hold, side by side
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Kernel images
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Print a JSON array with an object for each image
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand. One bad file does not keep the others from being shown.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    let mut good = Vec::new();
    let mut bad = 0;
    for file in &arguments.files {
        match summary(file) {
            Ok(summary) => good.push((file.display().to_string(), summary)),
            Err(error) => {
                bad += 1;
                // When nobody reads standard error the exit status still tells.
                let _ = writeln!(std::io::stderr(), "ringfence: {error:#}");
            }
        }
    }
    let text = if arguments.json {
        let images: Vec<_> = good.iter().map(|(file, summary)| Json::of(file, summary)).collect();
        format!("{}\n", serde_json::to_string_pretty(&images)?)
    } else {
        table(&good, Style::of_stdout())
    };
    Output::stdout().put(&text)?;
    if bad > 0 {
        bail!("{bad} of {} images could not be read", arguments.files.len());
    }
    Ok(Ending::Clean)
}

fn summary(path: &Path) -> anyhow::Result<ImageSummary> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let metadata = file.metadata().with_context(|| path.display().to_string())?;
    if !metadata.is_file() {
        bail!("{} is not a file", path.display());
    }
    if metadata.len() == 0 {
        // An empty file cannot be mapped; the parser has the words for it.
        let image = KernelImage::parse(&[]).with_context(|| path.display().to_string())?;
        return Ok(image.summary());
    }
    // SAFETY: the mapping is only read. Should somebody cut the file off meanwhile, the process
    // ends with SIGBUS; should somebody write to it, numbers come out wrong, which the parser
    // survives as it survives any bytes.
    let bytes = unsafe { Mmap::map(&file) };
    let bytes = bytes.with_context(|| format!("cannot map {}", path.display()))?;
    let image = KernelImage::parse(&bytes).with_context(|| path.display().to_string())?;
    Ok(image.summary())
}

/// A number that describes an image, under its heading.
type Row = (&'static str, fn(&ImageSummary) -> String);

const ROWS: [Row; 9] = [
    ("compression", |image| image.compression.to_string()),
    ("vmlinux bytes", |image| grouped(image.elf_bytes)),
    ("text bytes", |image| grouped(image.text_bytes)),
    ("symbols", |image| grouped(image.symbols as u64)),
    ("BTF bytes", |image| grouped(image.btf_bytes)),
    ("relocations", |image| {
        let all = image.relocations_32 + image.relocations_32_inverse + image.relocations_64;
        grouped(all as u64)
    }),
    ("text bytes patched", |image| grouped(image.patched_bytes)),
    ("  of text", |image| format!("{:.2} %", image.patched_share() * 100.0)),
    ("  at run time", |image| format!("{:.2} %", image.run_time_share() * 100.0)),
];

/// One or more tables with a column for each kernel, as many as the width allows.
fn table(images: &[(String, ImageSummary)], style: Style) -> String {
    let mut text = String::new();
    for (file, image) in images {
        let build_id = image.build_id.as_deref().map_or("no build id".into(), hexadecimal);
        let release = style.paint(Tone::Heading, &image.release);
        text.push_str(&format!("{release}  {build_id}  {file}\n"));
    }
    let heading = ROWS.iter().map(|row| row.0.len()).chain([34]).max().unwrap_or(0);
    let mut rest = images;
    while !rest.is_empty() {
        let mut width = heading;
        let fits = |(_, image): &&(String, ImageSummary)| {
            width += image.release.len().max(10) + 2;
            width <= style.width()
        };
        let count = rest.iter().take_while(fits).count().max(1);
        let (now, later) = rest.split_at(count);
        text.push('\n');
        text.push_str(&columns(now, style));
        rest = later;
    }
    text
}

fn columns(images: &[(String, ImageSummary)], style: Style) -> String {
    let releases: Vec<_> = images.iter().map(|(_, image)| format!(">{}", image.release)).collect();
    let headings: Vec<&str> =
        std::iter::once("").chain(releases.iter().map(String::as_str)).collect();
    let mut table = Table::new(&headings);
    let mut row = |heading: String, cell: &dyn Fn(&ImageSummary) -> String| {
        let cells = images.iter().map(|(_, image)| cell(image));
        table.row(std::iter::once(heading).chain(cells).collect());
    };
    for (heading, cell) in ROWS {
        row(heading.into(), &cell);
    }
    for when in [When::Boot, When::Run] {
        let kinds: Vec<_> = TableKind::ALL.into_iter().filter(|kind| kind.when() == when).collect();
        row(format!("places patched {}", words(when)), &|_| String::new());
        for kind in kinds {
            let entries = |image: &ImageSummary| {
                let table = image.tables.iter().find(|table| table.table == kind);
                table.map_or_else(|| "–".into(), |table| grouped(table.entries as u64))
            };
            row(format!("  {}", kind.name()), &entries);
        }
    }
    table.render(style, 0)
}

fn words(when: When) -> &'static str {
    match when {
        When::Boot => "at boot",
        When::Run => "at run time",
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[derive(Serialize)]
struct Json<'a> {
    file: &'a str,
    release: &'a str,
    build_id: Option<String>,
    compression: String,
    vmlinux_bytes: u64,
    text_bytes: u64,
    symbols: usize,
    btf_bytes: u64,
    relocations_32: usize,
    relocations_32_inverse: usize,
    relocations_64: usize,
    patched_bytes: u64,
    run_time_bytes: u64,
    tables: Vec<TableJson>,
}

#[derive(Serialize)]
struct TableJson {
    name: &'static str,
    patched: &'static str,
    entries: usize,
    entries_in_text: usize,
    text_bytes: u64,
}

impl<'a> Json<'a> {
    fn of(file: &'a str, image: &'a ImageSummary) -> Self {
        let tables = image.tables.iter().map(|table| TableJson {
            name: table.table.name(),
            patched: words(table.table.when()),
            entries: table.entries,
            entries_in_text: table.entries_in_text,
            text_bytes: table.text_bytes,
        });
        Self {
            file,
            release: &image.release,
            build_id: image.build_id.as_deref().map(hexadecimal),
            compression: image.compression.to_string(),
            vmlinux_bytes: image.elf_bytes,
            text_bytes: image.text_bytes,
            symbols: image.symbols,
            btf_bytes: image.btf_bytes,
            relocations_32: image.relocations_32,
            relocations_32_inverse: image.relocations_32_inverse,
            relocations_64: image.relocations_64,
            patched_bytes: image.patched_bytes,
            run_time_bytes: image.run_time_bytes,
            tables: tables.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use kernel_image::{Compression, TableSummary};

    use super::*;

    fn image(release: &str) -> ImageSummary {
        ImageSummary {
            release: release.into(),
            build_id: Some(vec![0xab, 0xcd]),
            compression: Compression::Zstd,
            elf_bytes: 40_000_000,
            text_bytes: 16_000_000,
            symbols: 150_000,
            btf_bytes: 5_000_000,
            relocations_32: 1,
            relocations_32_inverse: 2,
            relocations_64: 3,
            tables: vec![TableSummary {
                table: TableKind::JumpLabels,
                entries: 8_977,
                entries_in_text: 8_000,
                text_bytes: 30_000,
            }],
            patched_bytes: 1_600_000,
            run_time_bytes: 275_200,
        }
    }

    #[test]
    fn each_kernel_has_a_column_and_each_table_a_row() {
        let images = [("one".to_owned(), image("6.1.0-a")), ("two".to_owned(), image("6.12.0-b"))];
        let text = table(&images, Style::plain());
        assert!(text.contains("6.1.0-a  abcd  one\n"), "{text}");
        let row = |name: &str| {
            let line = text.lines().find(|line| line.trim_start().starts_with(name)).unwrap();
            line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(row("jump_table"), ["jump_table", "8,977", "8,977"]);
        assert_eq!(row("return_sites"), ["return_sites", "–", "–"]);
        assert_eq!(row("at run time")[3..], ["1.72", "%", "1.72", "%"]);
    }

    #[test]
    fn more_kernels_than_fit_go_into_tables_below_each_other() {
        let images: Vec<_> =
            (0..9).map(|n| (n.to_string(), image(&format!("6.1{n}.0-cloud-amd64")))).collect();
        let text = table(&images, Style::plain());
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        assert_eq!(text.matches("jump_table").count(), 3, "{text}");
    }
}
