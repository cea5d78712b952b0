// SPDX-License-Identifier: Apache-2.0
//! The daemon of the trial: answers questions as its input says. Each line is a command, and is answered
//! by a line:
//!
//! ```text
//! allow | deny ERRNO        at once
//! late MILLISECONDS         allow, so much later
//! hold                      not at all
//! collect COUNT             when so many wait, the last first: threads with an even number are allowed,
//!                           others get EACCES
//! answer                    allow all that are held
//! keep | ask                answers that allow are kept in the cache, or not
//! exempt PID SLOTS          what a process and its descendants do is no question: of it to all, of them to these
//! asked PID                 the opposite
//! spawn                     run a program
//! pause MILLISECONDS        do nothing at all (answered at once, before that)
//! stats                     asked, waiting, withdrawn, anchors, the anchor's pid, askers of the last
//! ```

use std::io::{BufRead, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use probes::{
    Exemptions, Gate, GateMaps, GateOptions, Notice, ProcessKey, Question, QuestionId, Questions,
    Reply,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::programs::PINS;
use crate::tasks::PROGRAM;

/// The watchdog's time.
pub(crate) const WATCHDOG: Duration = Duration::from_millis(1500);

#[derive(Clone, Copy, Debug)]
enum Policy {
    Answer(Reply),
    Late(Duration),
    Hold,
    Collect(usize),
}

struct Daemon {
    gate: Gate,
    exemptions: Exemptions,
    policy: Policy,
    keep: bool,
    held: Vec<Question>,
    due: Vec<(Instant, Question)>,
    asked: u64,
    withdrawn: u64,
    askers: u64,
}

pub(crate) fn run() -> anyhow::Result<()> {
    let maps = GateMaps::pinned(Path::new(PINS))?;
    let exemptions = Exemptions::among(&maps)?;
    let gate = Gate::open(maps, GateOptions { watchdog: WATCHDOG, ..GateOptions::default() })?;
    let mut daemon = Daemon {
        gate,
        exemptions,
        policy: Policy::Answer(Reply::Allow),
        keep: false,
        held: Vec::new(),
        due: Vec::new(),
        asked: 0,
        withdrawn: 0,
        askers: 0,
    };
    say("ready")?;
    let mut input = std::io::BufReader::new(std::io::stdin());
    let mut beat = Instant::now();
    loop {
        if beat.elapsed() >= WATCHDOG / 4 {
            daemon.gate.beat()?;
            beat = Instant::now();
        }
        let (commands, questions) = wait(&daemon, &input)?;
        if commands {
            let mut line = String::new();
            if input.read_line(&mut line)? == 0 {
                return Ok(());
            }
            daemon.obey(line.trim())?;
        }
        if questions {
            while let Some(notice) = daemon.gate.next()? {
                daemon.take(notice)?;
            }
        }
        daemon.late()?;
    }
}

/// Whether there is a command, and whether there may be a question.
fn wait(
    daemon: &Daemon,
    input: &std::io::BufReader<std::io::Stdin>,
) -> anyhow::Result<(bool, bool)> {
    let now = Instant::now();
    let next = daemon.due.iter().map(|(due, _)| due.saturating_duration_since(now)).min();
    let limit = next.unwrap_or(WATCHDOG).min(WATCHDOG / 4);
    let limit = Timespec { tv_sec: 0, tv_nsec: i64::from(limit.subsec_nanos()) };
    let stdin = input.get_ref();
    let mut both = [
        PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN),
        PollFd::from_borrowed_fd(daemon.gate.descriptor(), PollFlags::IN),
    ];
    poll(&mut both, Some(&limit))?;
    let [commands, questions] = both;
    // What is in the buffer already is no longer there to be polled for.
    let commands = !commands.revents().is_empty() || !input.buffer().is_empty();
    Ok((commands, !questions.revents().is_empty()))
}

fn say(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

impl Daemon {
    fn take(&mut self, notice: Notice) -> anyhow::Result<()> {
        let question = match notice {
            Notice::Asked(question) => question,
            Notice::Withdrawn(id) => {
                self.withdrawn += 1;
                self.held.retain(|held| held.id != id);
                return Ok(());
            }
        };
        self.asked += 1;
        self.askers = question.askers;
        match self.policy {
            Policy::Answer(reply) => self.answer(&question, reply)?,
            Policy::Late(time) => self.due.push((Instant::now() + time, question)),
            Policy::Hold => self.held.push(question),
            Policy::Collect(count) => {
                self.held.push(question);
                if self.held.len() == count {
                    for question in std::mem::take(&mut self.held).into_iter().rev() {
                        let even = question.thread.is_multiple_of(2);
                        let reply = if even { Reply::Allow } else { Reply::Deny(13) };
                        self.answer(&question, reply)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn answer(&mut self, question: &Question, reply: Reply) -> anyhow::Result<()> {
        if self.keep && reply == Reply::Allow {
            let kept = self.gate.maps().allow(question.kind, question.file, question.askers)?;
            anyhow::ensure!(kept, "not kept: {:?}", question.file);
        }
        Ok(self.gate.answer(question.id, reply)?)
    }

    fn late(&mut self) -> anyhow::Result<()> {
        let now = Instant::now();
        let due: Vec<QuestionId> =
            self.due.iter().filter(|(due, _)| *due <= now).map(|(_, one)| one.id).collect();
        for id in due {
            self.gate.answer(id, Reply::Allow)?;
            self.due.retain(|(_, one)| one.id != id);
        }
        Ok(())
    }

    fn obey(&mut self, command: &str) -> anyhow::Result<()> {
        let mut words = command.split(' ');
        let word = words.next().unwrap_or_default();
        let mut next = || words.next().unwrap_or("0").parse().with_context(|| command.to_owned());
        let (number, second): (u64, u64) = (next()?, next()?);
        let mut pause = Duration::ZERO;
        let mut answer = "ok".to_owned();
        match word {
            "allow" => self.policy = Policy::Answer(Reply::Allow),
            "deny" => self.policy = Policy::Answer(Reply::Deny(number as u16)),
            "late" => self.policy = Policy::Late(Duration::from_millis(number)),
            "hold" => self.policy = Policy::Hold,
            "collect" => self.policy = Policy::Collect(number as usize),
            "answer" => {
                for question in std::mem::take(&mut self.held) {
                    self.answer(&question, Reply::Allow)?;
                }
            }
            "keep" => self.keep = true,
            "ask" => self.keep = false,
            "exempt" => {
                self.exemptions.set(ProcessKey::of(number as u32)?, u64::MAX, second)?;
            }
            "asked" => self.exemptions.remove(ProcessKey::of(number as u32)?)?,
            "spawn" => {
                let start = Instant::now();
                let status = Command::new(PROGRAM).status()?;
                answer = format!("{} {}", status.success(), start.elapsed().as_millis());
            }
            "pause" => pause = Duration::from_millis(number),
            "stats" => {
                let (waiting, anchors) = (self.gate.waiting(), self.gate.anchors());
                let anchor = self.gate.anchor();
                let Self { asked, withdrawn, askers, .. } = self;
                answer = format!("{asked} {waiting} {withdrawn} {anchors} {anchor} {askers}");
            }
            _ => bail!("{command}: no such command"),
        }
        say(&answer)?;
        std::thread::sleep(pause);
        Ok(())
    }
}
