// SPDX-License-Identifier: Apache-2.0
//! `ringfence bench guard`: what a pass costs, how soon the first verdict is there, how much of a
//! core a watch takes, and how much memory.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use guard::Report;
use guard::watch::News;

use super::checks::Samples;
use super::{Bench, Goal, median};
use crate::baseline::Place;
use crate::clock::cpu_ns;
use crate::live::{self, LiveWatch};
use crate::report_text::duration;
use crate::screen::Style;
use crate::watch::{Counts, EntryShown, Pacing, SHARE_PERCENT, Subject, Teller, follow};

/// Most for the check of the text, median, in milliseconds.
const TEXT_MS: f64 = 10.0;
/// Most of a core that a watch at one second may take.
const CPU_PERCENT: f64 = 1.0;
/// Most from one look of a check to its next in a watch, so that what is written in between is found
/// within two seconds, in seconds.
const LOOKS_S: f64 = 1.9;
/// Most memory at any time.
const MEMORY_MIB: f64 = 64.0;
/// Most from the start of the command to its verdict, in seconds.
const VERDICT_S: f64 = 2.0;

/// How often the time to the first verdict is measured.
const STARTS: usize = 3;

/// What a pass costs, time to the first verdict, share of a core of a watch, peak memory
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Passes of each check; the median counts
    #[arg(long, value_name = "N", default_value = "25", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    passes: u32,

    /// Milliseconds between these passes: after a pause the caches hold what others left in them
    #[arg(long, value_name = "MILLISECONDS", default_value = "0", value_parser = clap::value_parser!(u32).range(..=10_000))]
    pause: u32,

    /// Seconds for which a watch at one second is measured
    #[arg(long, value_name = "SECONDS", default_value = "15", value_parser = clap::value_parser!(u32).range(2..=3600))]
    seconds: u32,
}

/// Measures. What runs as a process of its own comes first, while this one is small: what the
/// kernel notes as the peak of a process begins with that of its parent.
pub(super) fn run(arguments: &Arguments, style: Style) -> anyhow::Result<Bench> {
    let state = StateDirectory::new()?;
    let first = started(state.path())?;
    let later = (0..STARTS).map(|_| started(state.path())).collect::<anyhow::Result<Vec<_>>>()?;
    let sealed = median(&mut later.iter().map(|run| run.elapsed).collect::<Vec<_>>());
    let check_peak = later.iter().chain([&first]).map(|run| run.peak_kib).max().unwrap_or(0);

    let all_checks = live::Arguments::all_checks(state.place());
    let mut watch = LiveWatch::open(&all_checks)?;
    let mut meter = Meter::default();
    let passes = u64::from(arguments.seconds) + 1;
    let pacing = Pacing { period: Duration::from_secs(1), share: Some(SHARE_PERCENT / 100.0) };
    follow(&mut watch, pacing, Some(passes), &mut meter)?;
    let watch_peak = peak_kib()?;
    let pause = Duration::from_millis(arguments.pause.into());
    let samples = Samples::take(&all_checks, arguments.passes, pause)?;

    let mut text = format!("{} passes\n\n{}\n", arguments.passes, samples.table(&watch, style));
    for (what, figure) in [
        ("first verdict, with a baseline to take", duration(first.elapsed)),
        ("first verdict, with a sealed baseline", duration(sealed)),
        ("processor time of a pass of watch", duration(meter.per_pass())),
        ("longest from one look of a check to its next", duration(meter.longest())),
        ("peak memory of check", format!("{:.1} MiB", mebibytes(check_peak))),
        ("peak memory of watch", format!("{:.1} MiB", mebibytes(watch_peak))),
    ] {
        text.push_str(&format!("{what:<40}  {figure:>9}\n"));
    }
    let slowest = first.elapsed.max(sealed).as_secs_f64();
    let memory = mebibytes(check_peak.max(watch_peak));
    let mut goals = vec![
        Goal::at_most("first verdict", slowest, VERDICT_S, " s"),
        Goal::at_most("watch at one second, of a core", meter.percent(), CPU_PERCENT, " %"),
        Goal::at_most("from one look to the next", meter.longest().as_secs_f64(), LOOKS_S, " s"),
        Goal::at_most("peak memory", memory, MEMORY_MIB, " MiB"),
    ];
    if let Some(text) = samples.median_of("text") {
        let milliseconds = text.as_secs_f64() * 1e3;
        goals.insert(0, Goal::at_most("check of the text, median", milliseconds, TEXT_MS, " ms"));
    }
    Ok(Bench { text, goals })
}

/// A directory for baselines of this bench alone.
pub(super) struct StateDirectory(PathBuf);

impl StateDirectory {
    fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn place(&self) -> Place {
        Place { state_dir: Some(self.0.clone()) }
    }

    pub(super) fn new() -> anyhow::Result<Self> {
        let name = format!("ringfence-bench-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for StateDirectory {
    fn drop(&mut self) {
        // What could not be removed is in the directory for temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A run of `ringfence check`.
struct Run {
    elapsed: Duration,
    peak_kib: u64,
}

fn started(state: &Path) -> anyhow::Result<Run> {
    let itself = std::env::current_exe().context("cannot find this program itself")?;
    let start = Instant::now();
    let child = Command::new(itself)
        .args(["check", "--json", "--state-dir"])
        .arg(state)
        .stdout(Stdio::null())
        .spawn()
        .context("cannot start `ringfence check`")?;
    let pid = libc::pid_t::try_from(child.id()).context("a process id out of range")?;
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the process is a child of ours that nobody else waits for, and both pointers lead to
    // memory of the right type.
    let waited = unsafe { libc::wait4(pid, &raw mut status, 0, usage.as_mut_ptr()) };
    let elapsed = start.elapsed();
    if waited != pid {
        return Err(io::Error::last_os_error()).context("waiting for `ringfence check`");
    }
    if !(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) <= 1) {
        bail!("`ringfence check` came to no verdict");
    }
    // SAFETY: all zeroes are a valid value of it, and wait4 has filled it.
    let usage = unsafe { usage.assume_init() };
    Ok(Run { elapsed, peak_kib: u64::try_from(usage.ru_maxrss).unwrap_or(0) })
}

/// Measures the processor time of a watch, from the end of its first pass, which gathers what the
/// others only look up.
#[derive(Default)]
struct Meter {
    began: Option<(Instant, u64)>,
    ended: Option<(Instant, u64)>,
    passes: u32,
    /// When each check looked last, and the longest that one did not look.
    looked: BTreeMap<&'static str, Instant>,
    longest: Duration,
}

impl Meter {
    fn used(&self) -> (Duration, Duration) {
        let (Some(began), Some(ended)) = (self.began, self.ended) else {
            return Default::default();
        };
        (ended.0 - began.0, Duration::from_nanos(ended.1.saturating_sub(began.1)))
    }

    /// Of one core.
    fn percent(&self) -> f64 {
        let (wall, cpu) = self.used();
        100.0 * cpu.as_secs_f64() / wall.as_secs_f64().max(f64::EPSILON)
    }

    fn per_pass(&self) -> Duration {
        self.used().1 / self.passes.max(1)
    }

    /// From one look of a check to its next; those that still wait count as well.
    fn longest(&self) -> Duration {
        let Some((ended, _)) = self.ended else { return Duration::ZERO };
        let waiting = self.looked.values().map(|looked| ended - *looked);
        waiting.chain([self.longest]).max().unwrap_or_default()
    }
}

impl Teller for Meter {
    fn start(&mut self, _: &Subject) -> io::Result<()> {
        Ok(())
    }
    fn journal(&mut self, _: &EntryShown) -> io::Result<()> {
        Ok(())
    }
    fn news(&mut self, _: &News) -> io::Result<()> {
        Ok(())
    }
    fn pass(&mut self, pass: &Report, counts: Counts) -> io::Result<()> {
        let now = (Instant::now(), cpu_ns());
        for check in &pass.checks {
            if let Some(before) = self.looked.insert(check.name, now.0) {
                self.longest = self.longest.max(now.0 - before);
            }
        }
        if self.began.is_none() {
            self.began = Some(now);
        }
        // The first is not measured.
        self.passes = u32::try_from(counts.passes.saturating_sub(1)).unwrap_or(u32::MAX);
        self.ended = Some(now);
        Ok(())
    }
    fn end(&mut self, _: Counts) -> io::Result<()> {
        Ok(())
    }
    fn is_closed(&self) -> bool {
        false
    }
}

/// The most memory that this process ever had, from /proc/self/status.
fn peak_kib() -> anyhow::Result<u64> {
    let status = fs::read_to_string("/proc/self/status").context("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse().ok());
    number.context("/proc/self/status tells no VmHWM")
}

fn mebibytes(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_of_a_core_leaves_the_first_pass_out() {
        let start = Instant::now();
        let later = start + Duration::from_secs(10);
        let (began, ended) = (Some((start, 500_000_000)), Some((later, 550_000_000)));
        let meter = Meter { began, ended, passes: 10, ..Meter::default() };
        assert!((meter.percent() - 0.5).abs() < 1e-9);
        assert_eq!(meter.per_pass(), Duration::from_millis(5));
    }

    #[test]
    fn this_process_has_a_peak() {
        assert!(peak_kib().unwrap() > 500);
    }
}
