// SPDX-License-Identifier: Apache-2.0
//! `ringfence explain`: what should be at a place in the kernel, what is there, and which of the
//! kernel's tables allows what.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use guard::System;
use guard::baseline::BaselineKind;
use guard::explain::{Explanation, Shown, SiteExplanation};
use guard::journal::Journal;
use kernel_image::Symbols;

use crate::Ending;
use crate::baseline::{self, Place};
use crate::live::Host;
use crate::outside::{self, Outside};
use crate::screen::{Output, Style, Tone, wrap};

/// Show what a place in the kernel should hold, what it holds, and what is allowed there
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// An address in hexadecimal, or a symbol with an offset if need be: vfs_read+0x10
    #[arg(value_name = "ADDRESS|SYMBOL[+OFFSET]")]
    place: String,

    /// Print as JSON
    #[arg(long)]
    json: bool,

    /// The image of the kernel; found below /boot and /usr/lib/modules if not given
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,

    #[command(flatten)]
    baseline: Place,

    #[command(flatten)]
    outside: outside::Arguments,
}

/// Runs the subcommand. It shows and does not judge, so it ends well whatever it shows.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    let baseline = baseline::Arguments::from(arguments.baseline.clone());
    let baseline = baseline.with_image(arguments.image.clone());
    let (explanation, notices) = if arguments.outside.are_given() {
        let outside = Outside::open(&arguments.outside, &baseline)?;
        let address = address(&arguments.place, &outside.symbols)?;
        let look = |system: &System<'_>| guard::explain::explain(system, address);
        (outside.with_system(look), outside.notices)
    } else {
        let host = Host::open(&baseline)?;
        let address = address(&arguments.place, &host.symbols)?;
        let journal = Journal::unavailable("a single look has no journal");
        let look = |system: &System<'_>| guard::explain::explain(system, address);
        (host.with_system(&journal, look), host.notices)
    };
    let explanation = explanation.map_err(|missing| anyhow::anyhow!(missing.0))?;
    let text = if arguments.json {
        format!("{}\n", serde_json::to_string_pretty(&explanation)?)
    } else {
        render(&explanation, Style::of_stdout())
    };
    for notice in &notices {
        // Not part of what was asked for, and no reason to fail when nobody reads it.
        let _ = writeln!(std::io::stderr(), "Note: {notice}");
    }
    Output::stdout().put(&text)?;
    Ok(Ending::Clean)
}

/// The address that `place` names.
fn address(place: &str, symbols: &Symbols) -> anyhow::Result<u64> {
    let number = |text: &str| match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    };
    if let Some(address) = place.strip_prefix("0x") {
        return u64::from_str_radix(address, 16)
            .with_context(|| format!("{place} is not an address in hexadecimal"));
    }
    let (name, offset) = match place.rsplit_once('+') {
        Some((name, offset)) => {
            let offset = number(offset)
                .with_context(|| format!("{offset} is not an offset; write it as 16 or 0x10"))?;
            (name, offset)
        }
        None => (place, 0),
    };
    let mut addresses: Vec<u64> = symbols.all_named(name).map(|symbol| symbol.address).collect();
    addresses.sort_unstable();
    addresses.dedup();
    match addresses.as_slice() {
        [one] => Ok(one.wrapping_add(offset)),
        [] => match u64::from_str_radix(place, 16) {
            // As /proc/kallsyms and the kernel log write addresses.
            Ok(address) if place.len() == 16 => Ok(address),
            _ => bail!("the kernel has no symbol {name}; look into /proc/kallsyms for its name"),
        },
        many => {
            let shown: Vec<_> = many.iter().map(|at| format!("{at:#x}")).collect();
            bail!(
                "{} symbols are named {name}; name one by its address: {}",
                many.len(),
                shown.join(", ")
            )
        }
    }
}

fn render(explanation: &Explanation, style: Style) -> String {
    let mut text = String::new();
    let symbol = explanation.symbol.as_ref().map(|symbol| match explanation.offset {
        0 => format!("{symbol}  "),
        offset => format!("{symbol}+{offset:#x}  "),
    });
    let place = format!("{}{:#x}", symbol.unwrap_or_default(), explanation.address);
    let baseline = match explanation.baseline {
        BaselineKind::Image => "the kernel's own image",
        BaselineKind::FirstCheck => "the state at first check",
    };
    text.push_str(&style.paint(Tone::Heading, &place));
    text.push_str(&format!("  {}, against {baseline}\n\n", explanation.region));
    if explanation.expected == explanation.seen {
        block(&mut text, "Expected and seen", &explanation.seen, Tone::Good, style);
    } else {
        block(&mut text, "Expected", &explanation.expected, Tone::Good, style);
        block(&mut text, "Seen", &explanation.seen, Tone::Bad, style);
    }
    for site in &explanation.sites {
        text.push('\n');
        self::site(&mut text, site, style);
    }
    list(&mut text, "Differences in the whole function", &explanation.differences, style);
    list(&mut text, "Announced by the kernel", &explanation.journal, style);
    text.push('\n');
    let verdict = format!("Verdict: {}.", explanation.verdict);
    for line in wrap(&verdict, style.width()) {
        text.push_str(&style.paint(Tone::Heading, &line));
        text.push('\n');
    }
    text
}

fn block(text: &mut String, heading: &str, lines: &[Shown], tone: Tone, style: Style) {
    text.push_str(&style.paint(Tone::Heading, heading));
    text.push('\n');
    let width = lines.iter().map(|line| line.bytes.len()).max().unwrap_or(0);
    for line in lines {
        let mark = if line.differs { "!" } else { " " };
        let shown = format!("  {mark} {:x}  {:<width$}  {}", line.address, line.bytes, line.text);
        let shown = shown.trim_end();
        text.push_str(&if line.differs { style.paint(tone, shown) } else { shown.to_owned() });
        text.push('\n');
    }
}

fn site(text: &mut String, site: &SiteExplanation, style: Style) {
    let name = format!("{} at {:#x}", site.kind.name(), site.address);
    text.push_str(&style.paint(Tone::Heading, &name));
    text.push_str(&format!(", {} bytes, allowed by {}\n", site.length, site.table));
    if let Some(decided_by) = &site.decided_by {
        for line in wrap(decided_by, style.width().saturating_sub(4)) {
            text.push_str(&format!("    {line}\n"));
        }
    }
    let width = site.legal.iter().map(|legal| legal.bytes.len()).max().unwrap_or(0);
    for legal in &site.legal {
        let mark = if legal.now { "now  " } else { "or   " };
        text.push_str(&format!("    {mark}{:<width$}  {}\n", legal.bytes, legal.text));
    }
    text.push_str(&format!("    It holds what is {}.\n", site.verdict));
}

fn list(text: &mut String, heading: &str, lines: &[String], style: Style) {
    if lines.is_empty() {
        return;
    }
    text.push_str(&format!("\n{}\n", style.paint(Tone::Heading, heading)));
    for line in lines {
        for part in wrap(line, style.width().saturating_sub(4)) {
            text.push_str(&format!("    {part}\n"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbols() -> Symbols {
        let twice = [(0x3000, b't', "twice"), (0x4000, b't', "twice")];
        Symbols::from_iter(
            [(0x1000, b'T', "vfs_read"), (0x2000, b't', "f00d")].into_iter().chain(twice),
        )
    }

    #[test]
    fn a_place_is_an_address_or_a_symbol_with_an_offset() {
        let at = |place| address(place, &symbols()).unwrap();
        assert_eq!(at("vfs_read"), 0x1000);
        assert_eq!(at("vfs_read+0x10"), 0x1010);
        assert_eq!(at("vfs_read+16"), 0x1010);
        assert_eq!(at("0xffffffff81000000"), 0xffff_ffff_8100_0000);
        assert_eq!(at("ffffffff81000000"), 0xffff_ffff_8100_0000);
        assert_eq!(at("f00d"), 0x2000, "a symbol goes before a number");
    }

    #[test]
    fn what_names_no_place_is_told_with_what_to_do() {
        let error = |place| address(place, &symbols()).unwrap_err().to_string();
        assert!(error("twice").contains("0x3000, 0x4000"));
        assert!(error("missing").contains("no symbol missing"));
        assert!(error("vfs_read+x").contains("x is not an offset"));
        assert!(error("0xzz").contains("not an address"));
    }

    fn explanation() -> Explanation {
        let line = |bytes: &str, text: &str, differs| Shown {
            address: 0x1010,
            bytes: bytes.into(),
            text: text.into(),
            differs,
        };
        Explanation {
            address: 0x1010,
            symbol: Some("vfs_read".into()),
            offset: 0x10,
            region: "text",
            baseline: BaselineKind::FirstCheck,
            expected: vec![line("66 90", "nop", true)],
            seen: vec![line("eb 10", "jmp vfs_read+0x22", true)],
            sites: vec![SiteExplanation {
                address: 0x1010,
                length: 2,
                kind: guard::sites::SiteKind::JumpLabel,
                table: "__jump_table",
                decided_by: Some("static key at 0x9000, enabled 1 times".into()),
                legal: vec![guard::explain::LegalShown {
                    bytes: "eb 10".into(),
                    text: "jmp vfs_read+0x22".into(),
                    now: true,
                }],
                verdict: "as the kernel's data asks for",
            }],
            differences: vec!["vfs_read+0x10, jump label: 66 90 became eb 10, explained".into()],
            journal: vec![],
            verdict: "fine".into(),
        }
    }

    #[test]
    fn both_sides_are_shown_with_what_is_allowed() {
        let text = render(&explanation(), Style::plain());
        for part in [
            "vfs_read+0x10  0x1010  text, against the state at first check\n",
            "Expected\n  ! 1010  66 90  nop\n",
            "Seen\n  ! 1010  eb 10  jmp vfs_read+0x22\n",
            "at 0x1010, 2 bytes, allowed by __jump_table\n",
            "static key at 0x9000",
            "    now  eb 10  jmp vfs_read+0x22\n",
            "66 90 became eb 10",
            "Verdict: fine.\n",
        ] {
            assert!(text.contains(part), "{part:?} is missing in\n{text}");
        }
    }

    #[test]
    fn what_is_as_expected_is_shown_once() {
        let mut same = explanation();
        same.expected = same.seen.clone();
        let text = render(&same, Style::plain());
        assert!(text.contains("Expected and seen\n"));
        assert_eq!(
            text.matches("  eb 10  jmp").count(),
            2,
            "once as code, once as allowed: {text}"
        );
    }
}
