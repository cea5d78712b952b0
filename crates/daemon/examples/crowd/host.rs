// SPDX-License-Identifier: Apache-2.0
//! The daemon, and the program that is executed.
#![allow(dead_code, reason = "each example uses a part")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::ensure;
use rustix::process::{Pid, Signal, kill_process};

/// What is executed and asked about.
pub(crate) const PROGRAM: &str = "/tried/busybox";
/// Long enough on any machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

/// Makes the program.
pub(crate) fn make_program() -> anyhow::Result<()> {
    let _ = fs::create_dir("/tried");
    fs::copy("/usr/bin/busybox", PROGRAM)?;
    fs::set_permissions(PROGRAM, Permissions::from_mode(0o755))?;
    Ok(())
}

/// The program, to be run once: it ends at once.
pub(crate) fn program() -> Command {
    let mut command = Command::new(PROGRAM);
    command.arg0("busybox").arg("true").stdin(Stdio::null());
    command
}

/// `ringfenced`, which ends with this.
pub(crate) struct Daemon(Child);

impl Daemon {
    /// Starts it, and waits until it listens.
    pub(crate) fn start() -> anyhow::Result<Self> {
        let daemon = Self(Command::new("ringfenced").arg("--no-guard").spawn()?);
        let started = Instant::now();
        // The socket of one that was killed is still there.
        while UnixStream::connect(sdk::SOCKET).is_err() {
            ensure!(started.elapsed() < LIMIT, "ringfenced does not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(daemon)
    }

    /// Kills it, or asks it to end, and waits until it has ended.
    pub(crate) fn end(&mut self, kills: bool) -> anyhow::Result<()> {
        let pid = Pid::from_child(&self.0);
        kill_process(pid, if kills { Signal::KILL } else { Signal::TERM })?;
        self.0.wait()?;
        Ok(())
    }

    /// Has it do nothing any more.
    pub(crate) fn stop(&self) -> anyhow::Result<()> {
        Ok(kill_process(Pid::from_child(&self.0), Signal::STOP)?)
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.0.try_wait()?)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
