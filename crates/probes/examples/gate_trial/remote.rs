// SPDX-License-Identifier: Apache-2.0
//! The daemon, as the trial sees it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::programs::Programs;

/// See crate::daemon.
pub(crate) struct Remote {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

/// What it says of itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stats {
    pub(crate) asked: u64,
    pub(crate) waiting: u64,
    pub(crate) withdrawn: u64,
    pub(crate) anchors: u64,
    pub(crate) anchor: u64,
    pub(crate) askers: u64,
}

impl Remote {
    /// Starts one. Nobody is asked about meanwhile: it is a child like those that are.
    pub(crate) fn start(programs: &mut Programs) -> anyhow::Result<Self> {
        programs.scope(false);
        let mut child = Command::new("/proc/self/exe")
            .arg("daemon")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let mut remote = Self {
            child,
            input: input.context("no input")?,
            output: BufReader::new(output.context("no output")?),
        };
        let line = remote.line()?;
        ensure!(line == "ready", "the daemon says {line:?}");
        programs.scope(true);
        Ok(remote)
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            bail!("the daemon has ended: {:?}", self.child.wait()?);
        }
        Ok(line.trim().to_owned())
    }

    /// Says a command; gives the answer.
    pub(crate) fn say(&mut self, command: &str) -> anyhow::Result<String> {
        writeln!(self.input, "{command}")?;
        self.line()
    }

    /// Says a command that is answered with ok.
    pub(crate) fn tell(&mut self, command: &str) -> anyhow::Result<()> {
        let answer = self.say(command)?;
        ensure!(answer == "ok", "{command}: the daemon says {answer:?}");
        Ok(())
    }

    pub(crate) fn stats(&mut self) -> anyhow::Result<Stats> {
        let answer = self.say("stats")?;
        let numbers: Result<Vec<u64>, _> = answer.split(' ').map(str::parse).collect();
        match numbers.with_context(|| answer.clone())?.as_slice() {
            &[asked, waiting, withdrawn, anchors, anchor, askers] => {
                Ok(Stats { asked, waiting, withdrawn, anchors, anchor, askers })
            }
            _ => bail!("the daemon says {answer:?}"),
        }
    }

    /// Waits until so many questions wait.
    pub(crate) fn until_waiting(&mut self, count: u64) -> anyhow::Result<()> {
        let limit = Instant::now() + Duration::from_secs(30);
        loop {
            let waiting = self.stats()?.waiting;
            if waiting == count {
                return Ok(());
            }
            ensure!(Instant::now() < limit, "{waiting} questions wait, and not {count}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = Pid::from_raw(self.child.id().cast_signed()).context("no pid")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Waits until it has ended by itself.
    pub(crate) fn ended(&mut self) -> anyhow::Result<std::process::ExitStatus> {
        Ok(self.child.wait()?)
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
