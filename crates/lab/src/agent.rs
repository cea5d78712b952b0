// SPDX-License-Identifier: Apache-2.0
//! The lab's end in the guest: runs commands and moves files as the host says.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use crate::protocol::{Frame, Kind, PORT, text};

/// Output that comes this long after a command's end is nobody's: it left something running.
const LINGER: Duration = Duration::from_secs(2);

/// The host's end of the wire, shared by all threads, and the commands that run.
#[derive(Clone)]
struct Host {
    port: Arc<Mutex<File>>,
    running: Arc<Mutex<HashMap<u32, Pid>>>,
}

/// Serves the host until it hangs up.
///
/// # Errors
/// When there is no port, or what comes over it is no request.
pub fn serve() -> io::Result<()> {
    let port = find_port()?;
    let mut requests = OpenOptions::new().read(true).write(true).open(port)?;
    let host = Host { port: Arc::new(Mutex::new(requests.try_clone()?)), running: Arc::default() };
    let not_loaded = fs::read("/lab/not-loaded").unwrap_or_default();
    host.send(&Frame::new(0, Kind::Hello, not_loaded));
    loop {
        let frame = Frame::read(&mut requests)?;
        if let Err(error) = host.serve(&frame) {
            host.send(&Frame::new(frame.number, Kind::Refused, error.to_string()));
        }
    }
}

/// The virtio serial port of the lab's name.
fn find_port() -> io::Result<PathBuf> {
    for entry in fs::read_dir("/sys/class/virtio-ports")? {
        let entry = entry?;
        // Ports without a name have no such file.
        let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        if name.trim() == PORT {
            return Ok(PathBuf::from("/dev").join(entry.file_name()));
        }
    }
    Err(io::Error::other(format!("no virtio serial port is called {PORT}")))
}

impl Host {
    fn send(&self, frame: &Frame) {
        let mut port = self.port.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = frame.write(&mut *port) {
            // Nobody is there to tell but the console.
            eprintln!("lab agent: cannot answer: {error}");
        }
    }

    fn end(&self, number: u32, code: i32) {
        self.send(&Frame::new(number, Kind::Ended, code.to_le_bytes()));
    }

    fn serve(&self, frame: &Frame) -> io::Result<()> {
        let number = frame.number;
        match frame.kind {
            Kind::Run => self.run(frame),
            Kind::Signal => {
                let (signal, _) = frame.leading_number()?;
                let signal = i32::try_from(signal).ok().and_then(Signal::from_named_raw);
                let signal = signal.ok_or_else(|| io::Error::other("no such signal"))?;
                let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
                // One that has ended meanwhile needs no signal.
                running.get(&number).map_or(Ok(()), |pid| Ok(kill_process_group(*pid, signal)?))
            }
            Kind::Put | Kind::Append => {
                let (permissions, rest) = frame.leading_number()?;
                let (path, bytes) = text(rest)?;
                let named =
                    |error: io::Error| io::Error::new(error.kind(), format!("{path}: {error}"));
                put(&path, permissions, bytes, frame.kind == Kind::Append).map_err(named)?;
                self.end(number, 0);
                Ok(())
            }
            Kind::Get => {
                let path = String::from_utf8_lossy(&frame.bytes).into_owned();
                let named =
                    |error: io::Error| io::Error::new(error.kind(), format!("{path}: {error}"));
                let file = File::open(&path).map_err(named)?;
                self.pass_on(number, Kind::Output, file).map_err(named)?;
                self.end(number, 0);
                Ok(())
            }
            _ => Err(io::Error::other("not a request")),
        }
    }

    /// Starts a command; a thread of its own answers.
    fn run(&self, frame: &Frame) -> io::Result<()> {
        let (milliseconds, mut rest) = frame.leading_number()?;
        let mut arguments = Vec::new();
        while !rest.is_empty() {
            let (argument, after) = text(rest)?;
            arguments.push(argument);
            rest = after;
        }
        let (program, arguments) =
            arguments.split_first().ok_or_else(|| io::Error::other("no command"))?;
        let child = Command::new(program)
            .args(arguments)
            .current_dir("/root")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|error| io::Error::new(error.kind(), format!("{program}: {error}")))?;
        let limit = Duration::from_millis(u64::from(milliseconds));
        let (host, number) = (self.clone(), frame.number);
        let pid = Pid::from_child(&child);
        self.running.lock().unwrap_or_else(PoisonError::into_inner).insert(number, pid);
        thread::spawn(move || host.attend(number, child, limit));
        Ok(())
    }

    /// Passes on what a command prints, and says how it ended.
    fn attend(&self, number: u32, mut child: Child, limit: Duration) {
        let output = child.stdout.take().map(|from| self.pump(number, Kind::Output, from));
        let errors = child.stderr.take().map(|from| self.pump(number, Kind::Errors, from));
        let pid = Pid::from_child(&child);
        let in_time = ends_within(pid, limit).unwrap_or(false);
        if !in_time {
            // It may end just now.
            let _ = kill_process_group(pid, Signal::KILL);
        }
        let status = child.wait();
        self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
        for done in [output, errors].into_iter().flatten() {
            let _ = done.recv_timeout(LINGER);
        }
        match status {
            _ if !in_time => self.send(&Frame::new(number, Kind::TimedOut, [])),
            Ok(status) => {
                let code = status.code().or_else(|| Some(128 + status.signal()?));
                self.end(number, code.unwrap_or(-1));
            }
            Err(error) => self.send(&Frame::new(number, Kind::Refused, error.to_string())),
        }
    }

    /// Passes a stream on in a thread; the receiver hears of its end.
    fn pump(&self, number: u32, kind: Kind, from: impl Read + Send + 'static) -> Receiver<()> {
        let (done, end) = channel();
        let host = self.clone();
        thread::spawn(move || {
            let _ = host.pass_on(number, kind, from);
            let _ = done.send(());
        });
        end
    }

    fn pass_on(&self, number: u32, kind: Kind, mut from: impl Read) -> io::Result<()> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let length = from.read(&mut buffer)?;
            match buffer.get(..length) {
                Some([]) | None => return Ok(()),
                Some(bytes) => self.send(&Frame::new(number, kind, bytes)),
            }
        }
    }
}

fn put(path: &str, permissions: u32, bytes: &[u8], append: bool) -> io::Result<()> {
    if let Some((above, _)) = path.rsplit_once('/') {
        fs::create_dir_all(format!("{above}/"))?;
    }
    let mut open = OpenOptions::new();
    let mut file = if append {
        open.append(true).open(path)?
    } else {
        open.write(true).create(true).truncate(true).open(path)?
    };
    file.write_all(bytes)?;
    fs::set_permissions(path, fs::Permissions::from_mode(permissions))
}

/// Waits for a child's end without taking its status.
fn ends_within(pid: Pid, limit: Duration) -> io::Result<bool> {
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    let mut files = [PollFd::new(&pidfd, PollFlags::IN)];
    let limit = Timespec::try_from(limit).map_err(io::Error::other)?;
    Ok(poll(&mut files, Some(&limit))? > 0)
}
