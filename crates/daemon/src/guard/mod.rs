// SPDX-License-Identifier: Apache-2.0
//! Kernel patch protection beside the security API: a process of its own, kept running, and what it
//! tells of.
//!
//! The guard is `ringfence watch --json`. It is no thread of this process: what it does to read the
//! kernel, and what becomes of it, must never touch sessions and verdicts; it maps what the kernel
//! should hold, which is more than all of this process; and who replaces or restarts it loses no
//! session. It speaks in lines, which are believed no more than they can be read.
//!
//! [`Guard`] is a state machine over what the process says ([`process::Said`]), and starts the process
//! again when it ends, after a while that doubles. [`process`] has the thread that holds it, [`line`]
//! how its lines are read, [`standing`] which findings are there now.

pub mod line;
pub mod process;
pub mod standing;

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use broker::time::Time;

use crate::kernel::Availability;
use crate::log;
use line::Event;
use process::{Process, Said};
use standing::Standing;
pub use standing::{Stands, State, Told};

/// How long it is left alone after it ended, at first and at most.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];
/// One that ran for so long, and got to a pass, is started again as if it had never ended.
const LONG: Duration = Duration::from_secs(60);
/// A guard that says nothing for so long does not look: the slowest pass that was seen, on an emulated
/// processor, took a tenth of it.
const SILENCE: Duration = Duration::from_secs(300);
/// Lines that are looked at in one turn.
const AT_ONCE: usize = 32;
const MECHANISM: &str = "the guard, a process of ringfence watch";

/// Whether the guard looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It was not wanted.
    Off,
    /// Its first pass has not ended yet.
    Starting,
    /// It looks.
    Watching,
    /// It has ended, and will be started again.
    Ended,
}

impl Phase {
    /// As in api/ringfence.varlink.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Starting => "starting",
            Self::Watching => "watching",
            Self::Ended => "ended",
        }
    }
}

/// How the guard is; counts of the process that runs now, unless said otherwise.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// Of the process.
    pub pid: Option<u32>,
    /// When it was started; when it ended, if it has.
    pub since: Option<Time>,
    /// How often one was started.
    pub starts: u64,
    /// Passes that have ended.
    pub passes: u64,
    /// When the last of them ended.
    pub last_pass: Option<Time>,
    /// Checks that could not run when they looked last.
    pub unavailable: Vec<String>,
    /// Findings that were told since this daemon was started.
    pub found: u64,
    /// Lines that could not be read, since then.
    pub bad_lines: u64,
    /// What was wrong with the last of those.
    pub bad_line: Option<String>,
}

/// See the module.
pub struct Guard {
    /// What is run; nothing if it is not wanted.
    program: Option<PathBuf>,
    process: Option<Process>,
    phase: Phase,
    health: Health,
    standing: Standing,
    /// What it said on standard error, the last line.
    words: Option<String>,
    /// Why it does not run.
    reason: String,
    pause: Duration,
    /// When it is started again.
    due: Time,
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("phase", &self.phase).finish_non_exhaustive()
    }
}

impl Guard {
    /// None, as the administrator wants it.
    #[must_use]
    pub fn off() -> Self {
        Self {
            program: None,
            process: None,
            phase: Phase::Off,
            health: Health::default(),
            standing: Standing::default(),
            words: None,
            reason: "ringfenced runs no guard (--no-guard)".to_owned(),
            pause: PAUSES[0],
            due: Time::NEVER,
        }
    }

    /// This program, which is started at once.
    pub fn start(program: PathBuf, now: Time) -> io::Result<Self> {
        let mut guard = Self::off();
        guard.process = Some(Process::new()?);
        guard.program = Some(program);
        guard.phase = Phase::Starting;
        guard.launch(now);
        Ok(guard)
    }

    /// What is run.
    #[must_use]
    pub fn program(&self) -> Option<&Path> {
        self.program.as_deref()
    }

    /// Whether it looks.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// How it is.
    #[must_use]
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Findings that are there now.
    #[must_use]
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// Why not all is well with it, if it is not.
    #[must_use]
    pub fn problem(&self, now: Time) -> Option<String> {
        let silent = self.health.last_pass.or(self.health.since).map(|last| now.since(last));
        match self.phase {
            Phase::Off => None,
            Phase::Ended => Some(format!("the guard has ended: {}", self.reason)),
            Phase::Starting | Phase::Watching if silent > Some(SILENCE) => {
                let seconds = silent.unwrap_or_default().as_secs();
                Some(format!("the guard has ended no pass for {seconds} s"))
            }
            Phase::Starting | Phase::Watching => {
                let bad = self.health.bad_line.as_ref()?;
                let lines = self.health.bad_lines;
                Some(format!("{lines} lines of the guard could not be read; the last: {bad}"))
            }
        }
    }

    /// Whether clients can be told of findings.
    #[must_use]
    pub fn availability(&self) -> Availability {
        let mechanism = MECHANISM.to_owned();
        match self.phase {
            Phase::Off => Availability::Unavailable { reason: self.reason.clone() },
            Phase::Starting => Availability::Reduced {
                mechanism,
                reason: "the guard's first pass has not ended yet".to_owned(),
            },
            Phase::Watching if self.health.unavailable.is_empty() => {
                Availability::Available { mechanism }
            }
            Phase::Watching => Availability::Reduced {
                mechanism,
                reason: format!("checks that cannot run: {}", self.health.unavailable.join("; ")),
            },
            Phase::Ended => Availability::Unavailable {
                reason: format!("the guard has ended and is started again: {}", self.reason),
            },
        }
    }

    /// Becomes readable when [`Guard::take`] may have something.
    #[must_use]
    pub fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.process.as_ref().map(Process::as_fd)
    }

    /// Some of what the process said, to be given to [`Guard::hear`]. What is left makes the
    /// descriptor readable again: however much it says, all others have their turns.
    pub fn take(&mut self) -> Vec<Said> {
        let Some(process) = &mut self.process else { return Vec::new() };
        let said: Vec<_> = std::iter::from_fn(|| process.take()).take(AT_ONCE).collect();
        if said.len() == AT_ONCE {
            process.again();
        }
        said
    }

    /// When [`Guard::pass`] is to be called.
    #[must_use]
    pub fn next_deadline(&self) -> Time {
        self.due
    }

    /// Starts it again when that is due.
    pub fn pass(&mut self, now: Time) {
        if now >= self.due {
            self.launch(now);
        }
    }

    fn launch(&mut self, now: Time) {
        let (Some(program), Some(process)) = (&self.program, &mut self.process) else { return };
        self.due = Time::NEVER;
        self.words = None;
        let before = &self.health;
        self.health = Health {
            since: Some(now),
            starts: before.starts + 1,
            found: before.found,
            bad_lines: before.bad_lines,
            bad_line: before.bad_line.clone(),
            ..Health::default()
        };
        self.standing.begin();
        if let Err(error) = process.start(program) {
            self.ended(&format!("it cannot be started: {error}"), now);
        }
    }

    /// Takes what the process said; gives what clients are to be told.
    pub fn hear(&mut self, said: Said, now: Time) -> Vec<Told> {
        match said {
            Said::Runs { pid } => {
                self.health.pid = Some(pid);
                log::note(&format_args!("the guard runs as pid {pid}"));
                Vec::new()
            }
            Said::Words(words) => {
                log::caused(&format_args!("guard: {words}"));
                self.words = Some(words);
                Vec::new()
            }
            Said::Line(line) => match line::parse(&line) {
                Ok(event) => self.event(event, now),
                Err(reason) => self.bad(reason),
            },
            Said::TooLong => self.bad(format!("more than {} bytes", process::LINE_MAX)),
            Said::Ended(how) => {
                let how = match self.words.take() {
                    Some(words) => format!("{how}: {words}"),
                    None => how,
                };
                self.ended(&how, now);
                Vec::new()
            }
        }
    }

    fn event(&mut self, event: Event, now: Time) -> Vec<Told> {
        match event {
            Event::Start => {
                // Not available before: it may have ended again and again without looking.
                self.phase = Phase::Starting;
                Vec::new()
            }
            Event::Pass { number, unavailable, ran } => {
                self.phase = Phase::Watching;
                self.health.passes = number;
                self.health.last_pass = Some(now);
                self.health.unavailable.retain(|had| {
                    !ran.iter().any(|name| had.split(':').next() == Some(name.as_str()))
                });
                self.health.unavailable.extend(unavailable);
                // What a first pass has no time for comes before the second one.
                if number > 1 { self.standing.looked() } else { Vec::new() }
            }
            Event::Finding(finding) => {
                let told = self.standing.found(*finding, now);
                self.health.found += told.len() as u64;
                told
            }
            Event::Cleared(finding) => self.standing.cleared(&finding),
            Event::Other => Vec::new(),
        }
    }

    fn bad(&mut self, reason: String) -> Vec<Told> {
        log::error(&format_args!("a line of the guard cannot be read: {reason}"));
        self.health.bad_lines += 1;
        self.health.bad_line = Some(reason);
        Vec::new()
    }

    fn ended(&mut self, how: &str, now: Time) {
        let began = self.health.since.unwrap_or(now);
        if self.health.passes > 0 && now.since(began) >= LONG {
            self.pause = PAUSES[0];
        }
        log::note(&format_args!("the guard has ended ({how}); again in {:?}", self.pause));
        self.phase = Phase::Ended;
        self.reason = how.to_owned();
        self.due = now.after(self.pause);
        self.pause = (self.pause * 2).min(PAUSES[1]);
        (self.health.pid, self.health.since) = (None, Some(now));
    }
}

#[cfg(test)]
mod tests;
