// SPDX-License-Identifier: Apache-2.0
//! A client that is a process of its own: who is asked is never asked about its own children.
#![allow(dead_code, reason = "each example uses a part")]

use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

const NOBODY: u32 = 65534;

/// A client, which ends with its input.
pub(crate) struct Client {
    name: String,
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Client {
    /// Starts this program with these arguments as the user nobody, and waits until it says that it is
    /// ready.
    pub(crate) fn start(arguments: &[&str]) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(arguments)
            .uid(NOBODY)
            .gid(NOBODY)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().context("it has no output")?);
        let mut this = Self { name: arguments.join(" "), child, input, output };
        let line = this.line()?;
        ensure!(line == "ready", "{}: it says {line:?}", this.name);
        Ok(this)
    }

    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The next line that it says.
    pub(crate) fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        ensure!(line.ends_with('\n'), "{}: it ended after {line:?}", self.name);
        line.pop();
        Ok(line)
    }

    /// Has it end. Gives what else it says.
    pub(crate) fn end(mut self) -> anyhow::Result<Vec<String>> {
        drop(self.input.take());
        let lines = (&mut self.output).lines().collect::<Result<Vec<_>, _>>()?;
        let status = self.child.wait()?;
        ensure!(status.success(), "{}: {status}, after {lines:?}", self.name);
        Ok(lines)
    }

    /// Kills it.
    pub(crate) fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// In a client: a line for who started it.
pub(crate) fn say(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// In a client: whether it is to end.
pub(crate) fn is_over() -> anyhow::Result<bool> {
    let stdin = std::io::stdin();
    let mut input = [PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN)];
    Ok(poll(&mut input, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? > 0)
}
