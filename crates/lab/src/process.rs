// SPDX-License-Identifier: Apache-2.0
//! A command in a guest that goes on while others run.

use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::guest::{NoAnswer, Output, ending, next};
use crate::protocol::{Frame, Kind};
use crate::vm::{COMMAND, Vm};

/// A command that was started. It is killed when this is dropped before it has ended.
#[derive(Debug)]
pub struct Process<'vm> {
    vm: &'vm Vm,
    command: String,
    number: u32,
    answers: Receiver<Frame>,
    limit: Duration,
    /// What was printed and has not been handed out.
    out: Vec<u8>,
    err: Vec<u8>,
    ended: Option<i32>,
}

impl<'vm> Process<'vm> {
    pub(crate) fn new(
        vm: &'vm Vm,
        command: String,
        number: u32,
        answers: Receiver<Frame>,
        limit: Duration,
    ) -> Self {
        let (out, err) = (Vec::new(), Vec::new());
        Self { vm, command, number, answers, limit, out, err, ended: None }
    }

    /// The next line that it prints, without its end; nothing if it ended before.
    ///
    /// # Errors
    /// When none comes in time, or the command could not be started, or the guest is gone.
    pub fn line(&mut self, limit: Duration) -> Result<Option<String>> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(end) = self.out.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.out.drain(..=end).collect();
                return Ok(Some(String::from_utf8_lossy(&line).trim_end().to_owned()));
            }
            if self.ended.is_some() {
                return Ok(None);
            }
            let frame = next(&self.answers, deadline);
            let frame = frame.map_err(|why| match why {
                NoAnswer::Silent => {
                    let command = format!("a line of {}", self.command);
                    Error::Timeout { command, seconds: limit.as_secs() }
                }
                why => self.vm.error(why, &self.command, limit.as_secs()),
            })?;
            self.take(frame)?;
        }
    }

    /// Sends a signal to it and its children.
    ///
    /// # Errors
    /// When the guest is gone.
    pub fn signal(&self, signal: u32) -> Result<()> {
        let sent = self.vm.guest()?.signal(self.number, signal);
        sent.map_err(|why| self.vm.error(why, &self.command, 0))
    }

    /// Asks it to end as Ctrl-C does, and gives the rest of its output.
    ///
    /// # Errors
    /// When it does not end, or the guest is gone.
    pub fn interrupt(self) -> Result<Output> {
        const SIGINT: u32 = 2;
        self.signal(SIGINT)?;
        self.wait()
    }

    /// Waits for its end and gives the rest of its output.
    ///
    /// # Errors
    /// When it does not end in its time, or the guest is gone.
    pub fn wait(mut self) -> Result<Output> {
        let deadline = Instant::now() + self.limit + COMMAND;
        let code = loop {
            if let Some(code) = self.ended {
                break code;
            }
            let frame = next(&self.answers, deadline)
                .map_err(|why| self.vm.error(why, &self.command, self.limit.as_secs()))?;
            self.take(frame)?;
        };
        let (out, err) = (std::mem::take(&mut self.out), std::mem::take(&mut self.err));
        Ok(Output { code, out, err })
    }

    fn take(&mut self, frame: Frame) -> Result<()> {
        match ending(&frame) {
            Some(ended) => {
                // Whatever it is, no more will come.
                self.ended = Some(*ended.as_ref().unwrap_or(&-1));
                ended.map_err(|why| self.vm.error(why, &self.command, self.limit.as_secs()))?;
            }
            None if frame.kind == Kind::Errors => self.err.extend(frame.bytes),
            None => self.out.extend(frame.bytes),
        }
        Ok(())
    }
}

impl Drop for Process<'_> {
    fn drop(&mut self) {
        const SIGKILL: u32 = 9;
        if self.ended.is_none() {
            // The guest may be gone too, and then so is the command.
            let _ = self.signal(SIGKILL);
        }
    }
}
