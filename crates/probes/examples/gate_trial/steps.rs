// SPDX-License-Identifier: Apache-2.0
//! What holds of the gate, one after the other.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::process::Signal;

use crate::daemon::WATCHDOG;
use crate::programs::Programs;
use crate::remote::Remote;
use crate::tasks::{End, Family, Task, make_program};

/// No task takes longer that does not wait; processors of the lab are slow.
const SOON: Duration = Duration::from_secs(10);
/// `RINGFENCE_PROCESS_EXEC`.
const EXEC: u32 = 1;
/// The made-up clients.
const FIRST: u64 = 0b01;
const SECOND: u64 = 0b10;

/// Generations: deeper than a script that starts a script goes.
const DEEP: u32 = 100;

struct Trial {
    programs: Programs,
    daemon: Remote,
}

type Step = fn(&mut Trial) -> anyhow::Result<String>;

/// All of them, by what holds.
const STEPS: [(&str, Step); 17] = [
    ("an exec that is allowed runs", allowed),
    ("an exec that is denied gets its errno in the caller", denied),
    ("a verdict that comes 300 ms late is waited for as long", late),
    ("a mapping waits as well", mapping),
    ("a hundred tasks wait at once and are answered last first", hundred),
    ("a waiter that is killed is gone within 200 ms", killed),
    ("a signal that does not kill ends no question, and a kill after it does", signalled),
    ("what the daemon starts never waits", own),
    ("an exempt client is not asked about itself and its own, others are", exempt),
    ("what a client has started is its own when no parent is left of it", orphaned),
    ("a known answer is not asked for until the file changes", known),
    ("without an anchor it is as declared, and there is a new one soon", anchor),
    ("a daemon that stops is given up by the watchdog", stopped),
    ("a daemon that is killed with 100 waiting lets all go on where so declared", dead_allow),
    ("a daemon that is killed with 100 waiting has all refused where so declared", dead_deny),
    ("without a daemon nobody waits", nobody),
    ("a new daemon is asked", restarted),
];

pub(crate) fn run() -> anyhow::Result<()> {
    make_program()?;
    let mut programs = Programs::load()?;
    programs.askers(FIRST, 0);
    let daemon = Remote::start(&mut programs)?;
    let mut trial = Trial { programs, daemon };
    for (holds, step) in STEPS {
        let outcome = step(&mut trial).with_context(|| format!("not so: {holds}"));
        if outcome.is_err() {
            println!("{:?}", trial.programs.maps.counters()?);
        }
        let figure = outcome?;
        println!("ok: {holds} ({figure})");
    }
    println!("{} things hold", STEPS.len());
    println!("{:?}", trial.programs.maps.counters()?);
    Ok(())
}

fn exec() -> anyhow::Result<End> {
    Ok(Task::exec()?.end(SOON)?.0)
}

fn expect(seen: End, expected: End) -> anyhow::Result<()> {
    ensure!(seen == expected, "{seen:?}, and not {expected:?}");
    Ok(())
}

fn milliseconds(time: Duration) -> String {
    format!("{} ms", time.as_millis())
}

impl Trial {
    /// How many questions the daemon got by what is done.
    fn asked(&mut self, act: impl FnOnce(&mut Self) -> anyhow::Result<()>) -> anyhow::Result<u64> {
        let before = self.daemon.stats()?.asked;
        act(self)?;
        Ok(self.daemon.stats()?.asked - before)
    }
}

fn allowed(trial: &mut Trial) -> anyhow::Result<String> {
    trial.daemon.tell("allow")?;
    let asked = trial.asked(|_| expect(exec()?, End::Done))?;
    ensure!(asked == 1, "{asked} questions");
    Ok("asked once".to_owned())
}

fn denied(trial: &mut Trial) -> anyhow::Result<String> {
    for error in [libc::EPERM, libc::EACCES, libc::ETXTBSY] {
        trial.daemon.tell(&format!("deny {error}"))?;
        expect(exec()?, End::Refused(error))?;
    }
    Ok("EPERM, EACCES, ETXTBSY".to_owned())
}

fn late(trial: &mut Trial) -> anyhow::Result<String> {
    trial.daemon.tell("late 300")?;
    let before = trial.programs.maps.counters()?.waited;
    expect(exec()?, End::Done)?;
    let waited = trial.programs.maps.counters()?.waited - before;
    let (least, most) = (Duration::from_millis(300), Duration::from_millis(450));
    ensure!(waited >= least && waited <= most, "{waited:?}");
    Ok(milliseconds(waited))
}

fn mapping(trial: &mut Trial) -> anyhow::Result<String> {
    trial.programs.askers(0, FIRST);
    trial.daemon.tell("deny 13")?;
    expect(Task::map(1)?.end(SOON)?.0, End::Refused(13))?;
    trial.daemon.tell("late 200")?;
    let start = Instant::now();
    expect(Task::map(1)?.end(SOON)?.0, End::Done)?;
    let waited = start.elapsed();
    trial.programs.askers(FIRST, 0);
    ensure!(waited >= Duration::from_millis(200), "{waited:?}");
    Ok(format!("EACCES; {}", milliseconds(waited)))
}

fn hundred(trial: &mut Trial) -> anyhow::Result<String> {
    trial.daemon.tell("collect 100")?;
    let start = Instant::now();
    let tasks: Result<Vec<Task>, _> = (0..100).map(|_| Task::exec()).collect();
    let (mut allowed, mut denied) = (0, 0);
    for mut task in tasks? {
        let even = task.pid % 2 == 0;
        let expected = if even { End::Done } else { End::Refused(libc::EACCES) };
        expect(task.end(SOON)?.0, expected)?;
        *(if even { &mut allowed } else { &mut denied }) += 1;
    }
    Ok(format!("{allowed} allowed, {denied} denied, {}", milliseconds(start.elapsed())))
}

/// Kills a task that waits, which must be gone soon.
fn kill(trial: &mut Trial, task: &mut Task) -> anyhow::Result<Duration> {
    let before = trial.daemon.stats()?.withdrawn;
    task.signal(libc::SIGKILL)?;
    let (end, time) = task.end(SOON)?;
    expect(end, End::Killed(libc::SIGKILL))?;
    ensure!(time < Duration::from_millis(200), "after {time:?}");
    let stats = trial.daemon.stats()?;
    ensure!((stats.waiting, stats.withdrawn) == (0, before + 1), "{stats:?}");
    Ok(time)
}

fn killed(trial: &mut Trial) -> anyhow::Result<String> {
    trial.daemon.tell("hold")?;
    let mut task = Task::exec()?;
    trial.daemon.until_waiting(1)?;
    Ok(milliseconds(kill(trial, &mut task)?))
}

fn signalled(trial: &mut Trial) -> anyhow::Result<String> {
    trial.daemon.tell("hold")?;
    let mut task = Task::exec_with_handler()?;
    trial.daemon.until_waiting(1)?;
    task.signal(libc::SIGUSR1)?;
    std::thread::sleep(Duration::from_millis(300));
    ensure!(task.ended()?.is_none(), "the signal ended it");
    ensure!(trial.daemon.stats()?.waiting == 1, "the signal ended the question");
    let time = kill(trial, &mut task)?;
    // And one that is allowed runs, although a signal had come.
    let mut task = Task::exec_with_handler()?;
    trial.daemon.until_waiting(1)?;
    task.signal(libc::SIGUSR1)?;
    std::thread::sleep(Duration::from_millis(100));
    trial.daemon.tell("answer")?;
    // The handler goes with the exec; a signal that had not been delivered before kills.
    let (end, _) = task.end(SOON)?;
    let expected = [End::Done, End::Killed(libc::SIGUSR1)];
    ensure!(expected.contains(&end), "{end:?}");
    Ok(milliseconds(time))
}

fn own(trial: &mut Trial) -> anyhow::Result<String> {
    trial.daemon.tell("hold")?;
    let before = trial.programs.maps.counters()?.exempt;
    let asked = trial.asked(|trial| {
        let answer = trial.daemon.say("spawn")?;
        ensure!(answer.starts_with("true "), "{answer}");
        Ok(())
    })?;
    let exempt = trial.programs.maps.counters()?.exempt - before;
    ensure!((asked, exempt) == (0, 1), "{asked} questions, {exempt} exempt");
    Ok("exempt once".to_owned())
}

fn exempt(trial: &mut Trial) -> anyhow::Result<String> {
    let this = std::process::id();
    trial.daemon.tell("allow")?;
    trial.daemon.tell(&format!("exempt {this} {FIRST}"))?;
    let asked = trial.asked(|_| expect(exec()?, End::Done))?;
    ensure!(asked == 0, "{asked} questions about its own child");
    let asked = trial.asked(|_| {
        let (end, _) = Task::exec_below(DEEP)?.end(Duration::from_secs(20))?;
        expect(end, End::Done)
    })?;
    ensure!(asked == 0, "{asked} questions {DEEP} generations below");
    trial.programs.askers(FIRST | SECOND, 0);
    let asked = trial.asked(|_| expect(exec()?, End::Done))?;
    let askers = trial.daemon.stats()?.askers;
    ensure!((asked, askers) == (1, SECOND), "{asked} questions, to {askers:b}");
    trial.programs.askers(FIRST, 0);
    trial.daemon.tell(&format!("asked {this}"))?;
    let asked = trial.asked(|_| expect(exec()?, End::Done))?;
    ensure!(asked == 1, "{asked} questions after it");
    Ok("the other was asked".to_owned())
}

fn orphaned(trial: &mut Trial) -> anyhow::Result<String> {
    let mut family = Family::start()?;
    let client = family.client.pid;
    trial.daemon.tell("allow")?;
    trial.daemon.tell(&format!("exempt {client} {FIRST}"))?;
    family.orphan()?;
    let asked = trial.asked(|_| expect(family.exec()?, End::Done))?;
    ensure!(asked == 0, "{asked} questions about the orphan");
    let asked = trial.asked(|_| expect(exec()?, End::Done))?;
    ensure!(asked == 1, "{asked} questions about somebody else");
    // Whoever has the slot next is no ancestor of it.
    trial.daemon.tell(&format!("asked {client}"))?;
    let asked = trial.asked(|_| expect(family.exec()?, End::Done))?;
    ensure!(asked == 1, "{asked} questions about the orphan of one that has gone");
    Ok("asked when its client had gone".to_owned())
}

fn known(trial: &mut Trial) -> anyhow::Result<String> {
    trial.daemon.tell("allow")?;
    trial.daemon.tell("keep")?;
    let asked = trial.asked(|_| {
        expect(exec()?, End::Done)?;
        expect(exec()?, End::Done)
    })?;
    ensure!(asked == 1, "{asked} questions about two");
    // Another client has to be asked all the same, and the first one not again.
    trial.programs.askers(FIRST | SECOND, 0);
    let asked = trial.asked(|_| expect(exec()?, End::Done))?;
    let askers = trial.daemon.stats()?.askers;
    ensure!((asked, askers) == (1, SECOND), "{asked} questions, to {askers:b}");
    trial.programs.askers(FIRST, 0);
    make_program()?;
    trial.daemon.tell("ask")?;
    let asked = trial.asked(|_| expect(exec()?, End::Done))?;
    ensure!(asked == 1, "{asked} questions about a new file");
    Ok("asked once for two".to_owned())
}

fn anchor(trial: &mut Trial) -> anyhow::Result<String> {
    let before = trial.daemon.stats()?;
    trial.daemon.tell("deny 13")?;
    let anchor = i32::try_from(before.anchor)?;
    trial.daemon.tell("pause 700")?;
    let start = Instant::now();
    // SAFETY: a process of the daemon, which it made for this.
    ensure!(unsafe { libc::kill(anchor, libc::SIGKILL) } == 0, "no anchor {anchor}");
    // It takes its turn to die, and stays a zombie until the daemon's pause is over.
    while !std::fs::read_to_string(format!("/proc/{anchor}/stat"))?.contains(") Z ") {
        std::thread::sleep(Duration::from_millis(1));
    }
    expect(exec()?, End::Done)?;
    trial.programs.maps.deny_unanswered(EXEC, FIRST)?;
    expect(exec()?, End::Refused(libc::EPERM))?;
    trial.programs.maps.deny_unanswered(EXEC, 0)?;
    let time = start.elapsed();
    ensure!(time < Duration::from_millis(650), "it may have waited: {time:?}");
    // The daemon answers when its pause is over, and has made a new one then.
    let limit = Instant::now() + SOON;
    while trial.daemon.stats()?.anchors == before.anchors {
        ensure!(Instant::now() < limit, "no new anchor");
        std::thread::sleep(Duration::from_millis(20));
    }
    expect(exec()?, End::Refused(13))?;
    Ok(format!("both ways in {}", milliseconds(time)))
}

fn stopped(trial: &mut Trial) -> anyhow::Result<String> {
    trial.daemon.tell("hold")?;
    let tasks: Result<Vec<Task>, _> = (0..10).map(|_| Task::exec()).collect();
    let mut tasks = tasks?;
    trial.daemon.until_waiting(10)?;
    let start = Instant::now();
    trial.daemon.signal(Signal::STOP)?;
    for task in &mut tasks {
        expect(task.end(SOON)?.0, End::Done)?;
    }
    let time = start.elapsed();
    ensure!(time > WATCHDOG / 2, "nobody waited: {time:?}");
    ensure!(time < WATCHDOG + Duration::from_millis(700), "{time:?}");
    trial.daemon.signal(Signal::CONT)?;
    let status = trial.daemon.ended()?;
    ensure!(!status.success(), "it has not noticed: {status}");
    trial.daemon = Remote::start(&mut trial.programs)?;
    Ok(format!("{} of {}", milliseconds(time), milliseconds(WATCHDOG)))
}

/// Kills the daemon with 100 waiting. Gives the time until nobody waited.
fn dead(trial: &mut Trial, expected: End) -> anyhow::Result<String> {
    trial.daemon.tell("hold")?;
    let tasks: Result<Vec<Task>, _> = (0..100).map(|_| Task::exec()).collect();
    let mut tasks = tasks?;
    trial.daemon.until_waiting(100)?;
    let before = trial.programs.maps.counters()?.aborted;
    let start = Instant::now();
    trial.daemon.signal(Signal::KILL)?;
    let limit = Duration::from_secs(1);
    while trial.programs.maps.counters()?.aborted < before + 100 {
        ensure!(start.elapsed() < limit, "some wait after {limit:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
    let time = start.elapsed();
    for task in &mut tasks {
        expect(task.end(SOON)?.0, expected)?;
    }
    trial.daemon.ended()?;
    Ok(format!("after {}", milliseconds(time)))
}

fn dead_allow(trial: &mut Trial) -> anyhow::Result<String> {
    dead(trial, End::Done)
}

fn dead_deny(trial: &mut Trial) -> anyhow::Result<String> {
    trial.daemon = Remote::start(&mut trial.programs)?;
    trial.programs.maps.deny_unanswered(EXEC, FIRST)?;
    dead(trial, End::Refused(libc::EPERM))
}

fn nobody(trial: &mut Trial) -> anyhow::Result<String> {
    let start = Instant::now();
    expect(exec()?, End::Refused(libc::EPERM))?;
    trial.programs.maps.deny_unanswered(EXEC, 0)?;
    expect(exec()?, End::Done)?;
    Ok(format!("refused and allowed in {}", milliseconds(start.elapsed())))
}

fn restarted(trial: &mut Trial) -> anyhow::Result<String> {
    trial.daemon = Remote::start(&mut trial.programs)?;
    trial.daemon.tell("deny 13")?;
    expect(exec()?, End::Refused(13))?;
    Ok("EACCES".to_owned())
}
