// SPDX-License-Identifier: Apache-2.0
//! The process of the guard, and the thread that holds it.
//!
//! The thread that serves all clients must not wait for the guard: not for its lines, and not for its
//! start either, which waits for an exec that this very daemon may be asked about. So a thread starts it,
//! reads what it says and passes it on; what is not taken is not read, and then the guard waits. The
//! thread lives as long as the process does, because the kernel kills the process
//! (PR_SET_PDEATHSIG) when the thread that started it is gone, however that came.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

/// A line is not longer, in bytes: a finding of the whole system call table has some thousand.
pub const LINE_MAX: usize = 256 << 10;
/// Words on standard error are cut there, in bytes.
const WORDS_MAX: usize = 400;
/// From the last that it says to its end.
const GRACE: Duration = Duration::from_millis(200);
/// What is passed on and not taken yet.
const QUEUE: usize = 64;
/// How it is called.
const ARGUMENTS: [&str; 3] = ["watch", "--json", "--quiet-journal"];

/// What comes of the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// It was started.
    Runs {
        /// Its number.
        pid: u32,
    },
    /// A line, without its end.
    Line(Vec<u8>),
    /// A line that was longer than [`LINE_MAX`], and was skipped.
    TooLong,
    /// A line on standard error.
    Words(String),
    /// It is not there any more, or never was.
    Ended(String),
}

/// Holds one process at a time.
#[derive(Debug)]
pub struct Process {
    wake: Arc<OwnedFd>,
    /// To the thread of the process that runs.
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    said: Receiver<Said>,
    /// Readable when the process is to end.
    end: Arc<OwnedFd>,
}

impl Process {
    /// With nothing running.
    pub fn new() -> io::Result<Self> {
        Ok(Self { wake: signal()?, running: None })
    }

    /// Starts it; what becomes of that is said like all else.
    pub fn start(&mut self, program: &Path) -> io::Result<()> {
        self.stop();
        let (sender, said) = sync_channel(QUEUE);
        let end = signal()?;
        let teller = Teller { sender, wake: Arc::clone(&self.wake) };
        let (program, ends) = (program.to_owned(), Arc::clone(&end));
        std::thread::Builder::new()
            .name("guard".into())
            .stack_size(256 << 10)
            .spawn(move || hold(&program, &teller, &ends))?;
        self.running = Some(Running { said, end });
        Ok(())
    }

    /// The next that was said. After the end nothing comes.
    pub fn take(&mut self) -> Option<Said> {
        let running = self.running.as_ref()?;
        if let Ok(said) = running.said.try_recv() {
            return Some(said);
        }
        let mut count = [0; 8];
        // Not ready is what it usually says. What was said since is looked for after that, or a
        // wake-up would be lost.
        let _ = rustix::io::read(&*self.wake, &mut count);
        running.said.try_recv().ok()
    }

    /// Has it be looked for more in the next turn: who takes some of it leaves the others their turn.
    pub fn again(&self) {
        // Fails only when it is signalled already.
        let _ = rustix::io::write(&*self.wake, &1_u64.to_ne_bytes());
    }

    /// Ends it, if it runs.
    pub fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            // Fails only when it is signalled already.
            let _ = rustix::io::write(&*running.end, &1_u64.to_ne_bytes());
        }
    }
}

impl AsFd for Process {
    /// Becomes readable when there may be something to take.
    fn as_fd(&self) -> BorrowedFd<'_> {
        (*self.wake).as_fd()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

fn signal() -> io::Result<Arc<OwnedFd>> {
    Ok(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
}

struct Teller {
    sender: SyncSender<Said>,
    wake: Arc<OwnedFd>,
}

impl Teller {
    /// False when nobody listens any more.
    fn tell(&self, said: Said) -> bool {
        // Before it may have to wait for place, and after.
        let wake = || rustix::io::write(&*self.wake, &1_u64.to_ne_bytes());
        let _ = wake();
        let told = self.sender.send(said).is_ok();
        let _ = wake();
        told
    }
}

/// What the thread does.
fn hold(program: &Path, teller: &Teller, end: &OwnedFd) {
    let mut child = match spawn(program) {
        Ok(child) => child,
        Err(error) => {
            let reason = format!("{} cannot be run: {error}", program.display());
            teller.tell(Said::Ended(reason));
            return;
        }
    };
    let mut told = teller.tell(Said::Runs { pid: child.id() });
    if told {
        told = listen(&mut child, teller, end).unwrap_or_else(|error| {
            teller.tell(Said::Words(format!("it cannot be listened to: {error}")))
        });
    }
    // It ends right after it has closed what it says things by. Otherwise, or if nobody listens any
    // more, it is of no use; and it holds nothing that its end does not give back.
    if told {
        std::thread::sleep(GRACE);
    }
    let closed = matches!(child.try_wait(), Ok(None));
    let _ = child.kill();
    let how = match child.wait() {
        Ok(_) if closed => "it said nothing any more".to_owned(),
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    };
    teller.tell(Said::Ended(how));
}

fn spawn(program: &Path) -> io::Result<Child> {
    let daemon = rustix::process::getpid();
    let mut command = Command::new(program);
    command.args(ARGUMENTS).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // Ctrl-C on the daemon's terminal is for the daemon, which then ends it.
    command.process_group(0);
    // SAFETY: between fork and exec only async-signal-safe calls are made: prctl, getppid and
    // sigprocmask, on memory of the stack. Nothing is allocated and no lock is taken.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(io::Error::last_os_error());
            }
            // Whoever was orphaned before that gets no signal.
            if rustix::process::getppid() != Some(daemon) {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            // The daemon's thread takes its signals through a descriptor; this one takes them.
            let mut none = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
            libc::sigemptyset(none.as_mut_ptr());
            if libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
    command.spawn()
}

/// Passes on what it says until it says nothing any more (true) or nobody listens (false).
fn listen(child: &mut Child, teller: &Teller, end: &OwnedFd) -> io::Result<bool> {
    let missing = || io::Error::other("it has no pipe");
    let mut lines = Lines::new(OwnedFd::from(child.stdout.take().ok_or_else(missing)?));
    let mut words = Lines::new(OwnedFd::from(child.stderr.take().ok_or_else(missing)?));
    while lines.is_open || words.is_open {
        let wanted = |pipe: &Lines| if pipe.is_open { PollFlags::IN } else { PollFlags::empty() };
        let mut fds = vec![PollFd::new(end, PollFlags::IN)];
        for pipe in [&lines, &words].into_iter().filter(|pipe| pipe.is_open) {
            fds.push(PollFd::new(&pipe.pipe, wanted(pipe)));
        }
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
        if ready.next() == Some(true) {
            return Ok(false);
        }
        let of_lines = lines.is_open && ready.next() == Some(true);
        let of_words = words.is_open && ready.next() == Some(true);
        if of_words {
            words.fill()?;
            while let Some(said) = words.next() {
                if !teller.tell(Said::Words(in_words(&said))) {
                    return Ok(false);
                }
            }
        }
        if of_lines {
            lines.fill()?;
            while let Some(said) = lines.next() {
                let said = said.map_or(Said::TooLong, Said::Line);
                if !teller.tell(said) {
                    return Ok(false);
                }
            }
        }
    }
    Ok(true)
}

fn in_words(line: &Option<Vec<u8>>) -> String {
    let Some(line) = line else { return "(a line that is too long)".to_owned() };
    String::from_utf8_lossy(line.get(..WORDS_MAX).unwrap_or(line)).into_owned()
}

/// Cuts what comes out of a pipe into lines.
struct Lines {
    pipe: OwnedFd,
    is_open: bool,
    bytes: Vec<u8>,
    /// Whether the rest of a line is skipped that was too long.
    skips: bool,
}

impl Lines {
    fn new(pipe: OwnedFd) -> Self {
        Self { pipe, is_open: true, bytes: Vec::new(), skips: false }
    }

    /// Takes what is in the pipe; waits if there is nothing.
    fn fill(&mut self) -> io::Result<()> {
        let mut buffer = [0; 16 << 10];
        let count = match rustix::io::read(&self.pipe, &mut buffer) {
            Err(rustix::io::Errno::INTR) => return Ok(()),
            read => read?,
        };
        self.is_open = count > 0;
        self.bytes.extend_from_slice(buffer.get(..count).unwrap_or_default());
        Ok(())
    }

    /// The next line that is complete; `Some(None)` for one that is too long. What has no end is no
    /// line: its writer was cut short.
    fn next(&mut self) -> Option<Option<Vec<u8>>> {
        loop {
            let Some(end) = self.bytes.iter().position(|byte| *byte == b'\n') else {
                if self.bytes.len() <= LINE_MAX {
                    return None;
                }
                self.bytes.clear();
                return if std::mem::replace(&mut self.skips, true) { None } else { Some(None) };
            };
            let mut line: Vec<u8> = self.bytes.drain(..=end).collect();
            line.pop();
            if std::mem::take(&mut self.skips) {
                continue;
            }
            return Some((line.len() <= LINE_MAX).then_some(line));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn lines(parts: &[&[u8]]) -> Vec<Option<Vec<u8>>> {
        let (read, mut write) = std::io::pipe().unwrap();
        let mut lines = Lines::new(read.into());
        let mut all = Vec::new();
        for part in parts {
            for piece in part.chunks(8 << 10) {
                write.write_all(piece).unwrap();
                lines.fill().unwrap();
                all.extend(std::iter::from_fn(|| lines.next()));
            }
        }
        drop(write);
        lines.fill().unwrap();
        assert!(!lines.is_open);
        all.extend(std::iter::from_fn(|| lines.next()));
        all
    }

    #[test]
    fn lines_are_cut_wherever_the_pipe_cuts_them() {
        let expected = [Some(b"one".to_vec()), Some(Vec::new()), Some(b"three".to_vec())];
        assert_eq!(lines(&[b"one\n\nthr", b"ee\nunfinished"]), expected);
    }

    #[test]
    fn a_line_that_is_too_long_is_told_of_once_and_skipped() {
        let long = vec![b'x'; 3 * LINE_MAX];
        assert_eq!(lines(&[&long, b"\nnext\n"]), [None, Some(b"next".to_vec())]);
    }
}
