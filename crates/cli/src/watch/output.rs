// SPDX-License-Identifier: Apache-2.0
//! How a watch is told: a live line on a terminal, plain lines elsewhere, or JSON.

use std::io::{self, Write};
use std::time::Duration;

use guard::baseline::{BaselineKind, Identity};
use guard::watch::News;
use guard::{CheckResult, Finding, Hook, Report, TextSummary};
use serde::Serialize;

use super::entries::EntryShown;
use crate::clock::Moment;
use crate::report_text;
use crate::screen::{Output, Style, Tone, grouped};

/// Where a watch stands after a pass.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Passes so far.
    pub(crate) passes: u64,
    /// Findings that stand.
    pub(crate) findings: usize,
    /// Journal entries so far, without our own.
    pub(crate) entries: u64,
    /// Journal entries that were dropped.
    pub(crate) lost: u64,
}

/// What is watched.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    /// Which kernel.
    pub(crate) kernel: Identity,
    /// What memory is compared with.
    pub(crate) baseline: BaselineKind,
    /// What the user should know of how it is watched.
    pub(crate) notices: Vec<String>,
}

/// Receives what a watch has to tell.
pub(crate) trait Teller {
    /// The watch begins.
    fn start(&mut self, subject: &Subject) -> io::Result<()>;
    /// The kernel changed its code and said so.
    fn journal(&mut self, entry: &EntryShown) -> io::Result<()>;
    /// Something is not as it was in the pass before.
    fn news(&mut self, news: &News) -> io::Result<()>;
    /// A pass ended.
    fn pass(&mut self, pass: &Report, counts: Counts) -> io::Result<()>;
    /// The watch ends.
    fn end(&mut self, counts: Counts) -> io::Result<()>;
    /// Whether nobody reads any more.
    fn is_closed(&self) -> bool;
}

/// One JSON object a line, as in docs/check-report.schema.json, `#/$defs/watch_event`.
pub(crate) struct JsonLines<W: Write> {
    pub(crate) output: Output<W>,
    /// Leaves out journal entries.
    pub(crate) quiet_journal: bool,
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Event<'a> {
    Start {
        time: Moment,
        kernel: &'a Identity,
        baseline: BaselineKind,
        notices: &'a [String],
    },
    Pass {
        time: Moment,
        number: u64,
        text: Option<TextSummary>,
        checks: &'a [CheckResult],
        findings: usize,
        journal_entries: u64,
        journal_lost: u64,
        #[serde(serialize_with = "crate::report::milliseconds")]
        elapsed_ms: Duration,
    },
    Journal(&'a EntryShown),
    Finding {
        time: Moment,
        finding: &'a Finding,
    },
    Cleared {
        time: Moment,
        finding: &'a Finding,
    },
    Hooked {
        time: Moment,
        hook: &'a Hook,
    },
    Unhooked {
        time: Moment,
        hook: &'a Hook,
    },
}

impl<W: Write> JsonLines<W> {
    fn event(&mut self, event: &Event<'_>) -> io::Result<()> {
        let mut line = serde_json::to_string(event)?;
        line.push('\n');
        self.output.put(&line)
    }
}

impl<W: Write> Teller for JsonLines<W> {
    fn start(&mut self, subject: &Subject) -> io::Result<()> {
        self.event(&Event::Start {
            time: Moment::now(),
            kernel: &subject.kernel,
            baseline: subject.baseline,
            notices: &subject.notices,
        })
    }

    fn journal(&mut self, entry: &EntryShown) -> io::Result<()> {
        if self.quiet_journal {
            return Ok(());
        }
        self.event(&Event::Journal(entry))
    }

    fn news(&mut self, news: &News) -> io::Result<()> {
        let time = Moment::now();
        match news {
            News::Found(finding) => self.event(&Event::Finding { time, finding }),
            News::Cleared(finding) => self.event(&Event::Cleared { time, finding }),
            News::Hooked(hook) => self.event(&Event::Hooked { time, hook }),
            News::Unhooked(hook) => self.event(&Event::Unhooked { time, hook }),
            // The checks of a pass tell their own state.
            News::Lost { .. } | News::Back { .. } => Ok(()),
        }
    }

    fn pass(&mut self, pass: &Report, counts: Counts) -> io::Result<()> {
        self.event(&Event::Pass {
            time: Moment::now(),
            number: counts.passes,
            text: pass.text,
            checks: &pass.checks,
            findings: counts.findings,
            journal_entries: counts.entries,
            journal_lost: counts.lost,
            elapsed_ms: pass.elapsed,
        })
    }

    fn end(&mut self, _: Counts) -> io::Result<()> {
        Ok(())
    }

    fn is_closed(&self) -> bool {
        self.output.is_closed()
    }
}

fn in_words(hook: &Hook) -> String {
    let Hook { mechanism, target, handler, owner } = hook;
    format!("{mechanism} {target} → {handler}, of {owner}")
}

/// Lines for people. On a terminal the last line is rewritten after each pass; elsewhere only what
/// happens is printed, so that a log does not grow while nothing does.
pub(crate) struct Lines<W: Write> {
    output: Output<W>,
    style: Style,
    live: bool,
    quiet_journal: bool,
}

impl<W: Write> Lines<W> {
    /// `live` for a terminal; `quiet_journal` counts journal entries instead of showing each.
    pub(crate) fn new(output: Output<W>, style: Style, live: bool, quiet_journal: bool) -> Self {
        Self { output, style, live, quiet_journal }
    }

    /// Prints `text` in place of the live line, which the next pass draws again.
    fn put(&mut self, text: &str) -> io::Result<()> {
        let clear = if self.live { "\r\x1b[K" } else { "" };
        self.output.put(&format!("{clear}{text}"))
    }

    fn stamped(&mut self, moment: Moment, tone: Tone, word: &str, text: &str) -> io::Result<()> {
        let time = self.style.paint(Tone::Faint, &moment.time_of_day());
        let word = self.style.paint(tone, &format!("{word:<8}"));
        self.put(&format!("{time}  {word} {text}\n"))
    }

    fn status(&self, pass: &Report, counts: Counts) -> String {
        let (tone, findings) = match counts.findings {
            0 => (Tone::Good, "no findings".to_owned()),
            1 => (Tone::Bad, "1 finding".to_owned()),
            many => (Tone::Bad, format!("{many} findings")),
        };
        let lost = if counts.lost > 0 { format!(" ({} lost)", counts.lost) } else { String::new() };
        let figures = format!(
            "pass {}, {}, {} journal entries{lost}",
            grouped(counts.passes),
            report_text::duration(pass.elapsed),
            grouped(counts.entries),
        );
        format!("{}, {figures}", self.style.paint(tone, &findings))
    }
}

impl<W: Write> Teller for Lines<W> {
    fn start(&mut self, subject: &Subject) -> io::Result<()> {
        let kind = match subject.baseline {
            BaselineKind::Image => "the kernel's own image",
            BaselineKind::FirstCheck => "the state at first check",
        };
        let kernel = &subject.kernel;
        let text = format!("Watching {} against {kind}; Ctrl-C ends it.", kernel.release);
        self.put(&format!("{}\n", self.style.paint(Tone::Heading, &text)))?;
        for notice in &subject.notices {
            self.put(&format!("Note: {notice}\n"))?;
        }
        Ok(())
    }

    fn journal(&mut self, entry: &EntryShown) -> io::Result<()> {
        if self.quiet_journal {
            return Ok(());
        }
        let text = format!("{}, by {}", entry.what, entry.by());
        self.stamped(entry.time, Tone::Heading, "journal", &text)
    }

    fn news(&mut self, news: &News) -> io::Result<()> {
        let now = Moment::now();
        match news {
            News::Found(finding) => {
                self.stamped(now, Tone::Bad, "finding", &report_text::title(finding))?;
                let text = report_text::finding(finding, None, self.style);
                self.put(text.split_once('\n').map_or("", |(_, details)| details))
            }
            News::Cleared(finding) => {
                let text = format!("{}: no longer so, but it was", report_text::title(finding));
                self.stamped(now, Tone::Unknown, "cleared", &text)
            }
            News::Hooked(hook) => {
                self.stamped(now, Tone::Heading, "hook", &format!("came: {}", in_words(hook)))
            }
            News::Unhooked(hook) => {
                self.stamped(now, Tone::Heading, "hook", &format!("went: {}", in_words(hook)))
            }
            News::Lost { check, reason } => {
                let text = format!("check {check} cannot run: {reason}");
                self.stamped(now, Tone::Unknown, "note", &text)
            }
            News::Back { check } => {
                self.stamped(now, Tone::Good, "note", &format!("check {check} can run again"))
            }
        }
    }

    fn pass(&mut self, pass: &Report, counts: Counts) -> io::Result<()> {
        let status = self.status(pass, counts);
        if self.live {
            self.put(&status)
        } else if counts.passes == 1 {
            self.stamped(Moment::now(), Tone::Heading, "pass", &status)
        } else {
            Ok(())
        }
    }

    fn end(&mut self, counts: Counts) -> io::Result<()> {
        let lost = if counts.lost > 0 { format!(", {} lost", counts.lost) } else { String::new() };
        self.put(&format!(
            "{} passes, {} journal entries{lost}, {} findings stand.\n",
            grouped(counts.passes),
            grouped(counts.entries),
            counts.findings
        ))
    }

    fn is_closed(&self) -> bool {
        self.output.is_closed()
    }
}
