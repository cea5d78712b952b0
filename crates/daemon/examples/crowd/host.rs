// SPDX-License-Identifier: Apache-2.0
//! The daemon, the clients as processes, and the program that is executed.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

/// What is executed and asked about.
pub(crate) const PROGRAM: &str = "/tried/busybox";
const NOBODY: u32 = 65534;
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
        // Of one that was killed.
        let _ = fs::remove_file(sdk::SOCKET);
        let daemon = Self(Command::new("ringfenced").arg("--no-guard").spawn()?);
        let started = Instant::now();
        while !Path::new(sdk::SOCKET).exists() {
            ensure!(started.elapsed() < LIMIT, "ringfenced does not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(daemon)
    }

    /// Kills it with no warning.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.0.try_wait()?)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// A client, which ends with its input.
pub(crate) struct Client {
    name: String,
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Client {
    /// Starts it as the user nobody, and waits until it says that it is ready.
    pub(crate) fn start(role: &str, client: &str) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["be", role, client])
            .uid(NOBODY)
            .gid(NOBODY)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().context("it has no output")?);
        let mut this = Self { name: format!("{client}, {role}"), child, input, output };
        let line = this.line()?;
        ensure!(line == "ready", "{}: it says {line:?}", this.name);
        Ok(this)
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
