// SPDX-License-Identifier: Apache-2.0
//! The connection: commands and their answers.
//!
//! The protocol is a JSON object per line (docs/interop/qmp-spec.txt of QEMU 7.2). QEMU greets, is
//! told `qmp_capabilities`, and then answers each command with `return` or `error`; events may come
//! in between and are kept by their names.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IoSlice, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::{Value, json};

use crate::{Error, Result};

/// A dump of memory takes seconds; nothing takes longer.
const PATIENCE: Duration = Duration::from_secs(120);

/// Events that are kept: those of a machine that does something again and again say nothing more.
const EVENTS: usize = 1024;

/// The state of devices that is read: some ten thousand bytes, and megabytes where a device has memory
/// of its own.
const STATE: u64 = 256 << 20;

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
    events: Vec<String>,
}

impl Qmp {
    /// Takes part in the greeting.
    ///
    /// # Errors
    /// When QEMU is gone or speaks something else.
    pub fn connect(socket: UnixStream) -> Result<Self> {
        let limited = socket.set_read_timeout(Some(PATIENCE));
        limited.map_err(|error| monitor("greeting", error.to_string()))?;
        let mut qmp = Self { lines: BufReader::new(socket), events: Vec::new() };
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
        self.execute_with(command, arguments, None)
    }

    /// The same with an open file that is handed over.
    fn execute_with(
        &mut self,
        command: &str,
        arguments: &Value,
        file: Option<BorrowedFd<'_>>,
    ) -> Result<Value> {
        let line = json!({ "execute": command, "arguments": arguments }).to_string() + "\n";
        let sent = match file {
            None => self.lines.get_mut().write_all(line.as_bytes()),
            Some(file) => hand_over(self.lines.get_mut(), line.as_bytes(), file),
        };
        sent.map_err(|error| monitor(command, error.to_string()))?;
        loop {
            let line = self.line(command)?;
            if let Some(event) = line.get("event").and_then(Value::as_str)
                && self.events.len() < EVENTS
            {
                self.events.push(event.to_owned());
            }
            if let Some(answer) = answer(command, line) {
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

    /// Whether the guest's processors run now, and the events of the machine since this was asked last
    /// (`STOP`, `RESUME`): QEMU tells each monitor of them, whoever was the cause.
    ///
    /// # Errors
    /// See [`execute`](Self::execute).
    pub fn status(&mut self) -> Result<(bool, Vec<String>)> {
        let status = self.execute("query-status", &json!({}))?;
        let running = status.get("running").and_then(Value::as_bool);
        let running =
            running.ok_or_else(|| monitor("query-status", format!("it says {status}")))?;
        Ok((running, std::mem::take(&mut self.events)))
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

    /// The state of all devices and processors (`crate::device_state`), as QEMU would send it to another
    /// machine. QEMU halts the guest for it, for about a millisecond, and lets it go on by itself.
    ///
    /// # Errors
    /// See [`execute`](Self::execute).
    pub fn device_state(&mut self) -> Result<Vec<u8>> {
        let of_file = |error: io::Error| monitor("xen-save-devices-state", error.to_string());
        let memory = memfd_create("device-state", MemfdFlags::CLOEXEC).map_err(io::Error::from);
        let mut memory = File::from(memory.map_err(of_file)?);
        // QEMU takes a descriptor for writing only if it is for nothing else (`monitor_fdset_dup_fd_add`,
        // monitor/misc.c).
        let path = format!("/proc/self/fd/{}", memory.as_raw_fd());
        let writable = File::options().write(true).open(path).map_err(of_file)?;
        let handed = self.execute_with("add-fd", &json!({}), Some(writable.as_fd()))?;
        let set = handed.get("fdset-id").and_then(Value::as_u64);
        let set = set.ok_or_else(|| monitor("add-fd", format!("it says {handed}")))?;
        // The command is not of Xen but for its name (qmp_xen_save_devices_state, migration/savevm.c).
        // Nobody takes the guest over: a live one that stands still already would lose its disks by it
        // (`bdrv_inactivate_all`).
        let arguments = json!({ "filename": format!("/dev/fdset/{set}"), "live": false });
        let saved = self.execute("xen-save-devices-state", &arguments);
        let removed = self.execute("remove-fd", &json!({ "fdset-id": set }));
        saved.and(removed)?;
        let mut state = Vec::new();
        memory.rewind().map_err(of_file)?;
        memory.take(STATE).read_to_end(&mut state).map_err(of_file)?;
        Ok(state)
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

/// Sends a line, and an open file beside it.
fn hand_over(socket: &mut UnixStream, line: &[u8], file: BorrowedFd<'_>) -> io::Result<()> {
    let files = [file];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&files)) {
        return Err(io::Error::other("no room for a descriptor"));
    }
    let sent = sendmsg(&*socket, &[IoSlice::new(line)], &mut control, SendFlags::NOSIGNAL)?;
    // The file goes with the first byte.
    socket.write_all(line.get(sent..).unwrap_or_default())
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
    fn events_are_told_with_the_status_and_told_once() {
        let mut qmp = monitor_saying(&[
            GREETING,
            r#"{"return": {}}"#,
            r#"{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "STOP"}"#,
            r#"{"timestamp": {"seconds": 1, "microseconds": 3}, "event": "RESUME"}"#,
            r#"{"return": {"status": "running", "singlestep": false, "running": true}}"#,
            r#"{"return": {"status": "paused", "singlestep": false, "running": false}}"#,
        ])
        .unwrap();
        assert_eq!(qmp.status().unwrap(), (true, vec!["STOP".to_owned(), "RESUME".to_owned()]));
        assert_eq!(qmp.status().unwrap(), (false, Vec::new()));
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
