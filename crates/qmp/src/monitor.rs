// SPDX-License-Identifier: Apache-2.0
//! The connection: commands and their answers.
//!
//! The protocol is a JSON object per line (docs/interop/qmp-spec.txt of QEMU 7.2). QEMU greets, is
//! told `qmp_capabilities`, and then answers each command with `return` or `error`; events may come
//! in between and are passed over.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::{Error, Result};

/// A dump of memory takes seconds; nothing takes longer.
const PATIENCE: Duration = Duration::from_secs(120);

/// The format of a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DumpFormat {
    /// An ELF core with a note for each processor.
    Elf,
    /// kdump's format with pages compressed by zlib.
    KdumpZlib,
}

impl DumpFormat {
    fn name(self) -> &'static str {
        match self {
            Self::Elf => "elf",
            Self::KdumpZlib => "kdump-zlib",
        }
    }
}

/// A connection to a QEMU's monitor.
#[derive(Debug)]
pub struct Qmp {
    lines: BufReader<UnixStream>,
}

impl Qmp {
    /// Takes part in the greeting.
    ///
    /// # Errors
    /// When QEMU is gone or speaks something else.
    pub fn connect(socket: UnixStream) -> Result<Self> {
        let limited = socket.set_read_timeout(Some(PATIENCE));
        limited.map_err(|error| monitor("greeting", error.to_string()))?;
        let mut qmp = Self { lines: BufReader::new(socket) };
        let greeting = qmp.line("greeting")?;
        if greeting.get("QMP").is_none() {
            return Err(monitor("greeting", format!("it says {greeting}")));
        }
        qmp.execute("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// Connects to a monitor that listens on a socket of this name.
    ///
    /// # Errors
    /// When nobody listens there, and those of [`connect`](Self::connect).
    pub fn open(path: &Path) -> Result<Self> {
        let socket = UnixStream::connect(path);
        let problem = |error| monitor("greeting", format!("{}: {error}", path.display()));
        Self::connect(socket.map_err(problem)?)
    }

    /// Runs a command and gives what it returns.
    ///
    /// # Errors
    /// When QEMU refuses, or is gone.
    pub fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        let line = json!({ "execute": command, "arguments": arguments }).to_string() + "\n";
        let sent = self.lines.get_mut().write_all(line.as_bytes());
        sent.map_err(|error| monitor(command, error.to_string()))?;
        loop {
            if let Some(answer) = answer(command, self.line(command)?) {
                return answer;
            }
        }
    }

    /// Halts all processors of the guest.
    ///
    /// # Errors
    /// See [`execute`](Self::execute).
    pub fn stop(&mut self) -> Result<()> {
        self.execute("stop", &json!({})).map(drop)
    }

    /// Lets the guest go on.
    ///
    /// # Errors
    /// See [`execute`](Self::execute).
    pub fn go_on(&mut self) -> Result<()> {
        self.execute("cont", &json!({})).map(drop)
    }

    /// A command of the monitor for people, and its answer, as in `info registers -a`.
    ///
    /// # Errors
    /// See [`execute`](Self::execute).
    pub fn human(&mut self, line: &str) -> Result<String> {
        let command = "human-monitor-command";
        let answer = self.execute(command, &json!({ "command-line": line }))?;
        answer.as_str().map(str::to_owned).ok_or_else(|| monitor(command, "no text".to_owned()))
    }

    /// Writes the guest's memory to a file. The guest stands still meanwhile.
    ///
    /// # Errors
    /// See [`execute`](Self::execute).
    pub fn dump(&mut self, file: &Path, format: DumpFormat) -> Result<()> {
        let file = format!("file:{}", file.display());
        let arguments = json!({ "paging": false, "protocol": file, "format": format.name() });
        self.execute("dump-guest-memory", &arguments).map(drop)
    }

    /// Asks the guest to shut down, as the power button does.
    ///
    /// # Errors
    /// See [`execute`](Self::execute).
    pub fn power_down(&mut self) -> Result<()> {
        self.execute("system_powerdown", &json!({})).map(drop)
    }

    /// Ends QEMU.
    ///
    /// # Errors
    /// See [`execute`](Self::execute).
    pub fn quit(&mut self) -> Result<()> {
        self.execute("quit", &json!({})).map(drop)
    }

    fn line(&mut self, command: &str) -> Result<Value> {
        let mut line = String::new();
        let length = self.lines.read_line(&mut line);
        if length.map_err(|error| monitor(command, error.to_string()))? == 0 {
            return Err(monitor(command, "QEMU hung up".to_owned()));
        }
        serde_json::from_str(&line).map_err(|error| monitor(command, format!("{error}: {line}")))
    }
}

/// What a line answers; nothing if it is an event.
fn answer(command: &str, mut line: Value) -> Option<Result<Value>> {
    if let Some(value) = line.get_mut("return") {
        return Some(Ok(value.take()));
    }
    let error = line.get("error")?;
    let words = error.get("desc").and_then(Value::as_str).unwrap_or("it refuses and says no more");
    Some(Err(monitor(command, words.to_owned())))
}

fn monitor(command: &str, problem: String) -> Error {
    Error { command: command.to_owned(), problem }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const GREETING: &str = r#"{"QMP": {"version": {"qemu": {"micro": 18, "minor": 2, "major": 7}}, "capabilities": []}}"#;

    /// A monitor that says these lines, whatever it is asked.
    fn monitor_saying(lines: &'static [&'static str]) -> Result<Qmp> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        thread::spawn(move || {
            for line in lines {
                theirs.write_all(line.as_bytes()).unwrap();
                theirs.write_all(b"\r\n").unwrap();
            }
            // What was asked is read, so that asking never fails.
            let _ = std::io::copy(&mut theirs, &mut std::io::sink());
        });
        Qmp::connect(ours)
    }

    #[test]
    fn answers_are_found_between_events() {
        let mut qmp = monitor_saying(&[
            GREETING,
            r#"{"return": {}}"#,
            r#"{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "STOP"}"#,
            r#"{"return": "RAX=0000000000000000\r\nCR0=80050033\r\n"}"#,
        ])
        .unwrap();
        let registers = qmp.human("info registers -a").unwrap();
        assert!(registers.contains("CR0=80050033"), "{registers}");
    }

    #[test]
    fn what_qemu_refuses_is_told_in_its_words() {
        let mut qmp = monitor_saying(&[
            GREETING,
            r#"{"return": {}}"#,
            r#"{"error": {"class": "GenericError", "desc": "Could not open '/no/where'"}}"#,
        ])
        .unwrap();
        let error = qmp.dump(Path::new("/no/where"), DumpFormat::KdumpZlib).unwrap_err();
        let words = "QEMU's monitor, dump-guest-memory: Could not open '/no/where'";
        assert_eq!(error.to_string(), words);
    }

    #[test]
    fn something_else_that_speaks_is_not_taken_for_qemu() {
        assert!(monitor_saying(&[r#"{"hello": 1}"#]).is_err());
        assert!(monitor_saying(&["SSH-2.0"]).is_err());
    }
}
