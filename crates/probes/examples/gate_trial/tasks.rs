// SPDX-License-Identifier: Apache-2.0
//! Tasks that do what is asked about: execute a program, or map a file.

use std::ffi::CString;
use std::fs::{self, File, Permissions};
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// What is executed, made by [`make_program`].
pub(crate) const PROGRAM: &str = "/tmp/program";

/// A program that ends at once, so that a hundred of them take no time that could be taken for waiting.
#[rustfmt::skip]
const BYTES: [u8; 129] = *b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\
    \x02\0\x3e\0\x01\0\0\0\x78\0\x40\0\0\0\0\0\x40\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\
    \0\0\0\0\x40\0\x38\0\x01\0\0\0\0\0\0\0\
    \x01\0\0\0\x05\0\0\0\0\0\0\0\0\0\0\0\0\0\x40\0\0\0\0\0\0\0\x40\0\0\0\0\0\
    \x81\0\0\0\0\0\0\0\x81\0\0\0\0\0\0\0\0\x10\0\0\0\0\0\0\
    \xb8\x3c\0\0\0\x31\xff\x0f\x05"; // mov eax,60 (exit); xor edi,edi; syscall

/// Makes the program, or makes it anew: as another file, with another time of change.
pub(crate) fn make_program() -> anyhow::Result<()> {
    let _ = fs::remove_file(PROGRAM);
    fs::write(PROGRAM, BYTES)?;
    fs::set_permissions(PROGRAM, Permissions::from_mode(0o755))?;
    // Or it would be too fresh for its verdict to be kept.
    std::thread::sleep(Duration::from_millis(250));
    Ok(())
}

/// How a task came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It could do what it was made for.
    Done,
    /// It got this errno.
    Refused(i32),
    /// A signal ended it.
    Killed(i32),
}

/// A child.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) pid: i32,
    ended: bool,
}

impl Task {
    /// One that executes [`PROGRAM`].
    pub(crate) fn exec() -> anyhow::Result<Self> {
        let path = CString::new(PROGRAM)?;
        let arguments = [path.as_ptr(), std::ptr::null()];
        let environment: [*const libc::c_char; 1] = [std::ptr::null()];
        Self::fork(|| {
            // SAFETY: lists that end with a null, of text that lives until the exec.
            unsafe { libc::execve(path.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
        })
    }

    /// The same so many generations below the child, each of which waits for the next.
    pub(crate) fn exec_below(generations: u32) -> anyhow::Result<Self> {
        Self::fork(|| {
            let task = match generations {
                0 => Self::exec(),
                _ => Self::exec_below(generations - 1),
            };
            let end = task.and_then(|mut task| Ok(task.end(Duration::from_secs(10))?.0));
            let code = match end {
                Ok(End::Done) => 0,
                Ok(End::Refused(code)) => code,
                _ => 255,
            };
            // SAFETY: the end of a child.
            unsafe { libc::_exit(code) };
        })
    }

    /// The same with a handler for SIGUSR1.
    pub(crate) fn exec_with_handler() -> anyhow::Result<Self> {
        extern "C" fn nothing(_signal: libc::c_int) {}
        // SAFETY: a handler that does nothing; the trial itself gets no such signal.
        unsafe { libc::signal(libc::SIGUSR1, nothing as *const () as libc::sighandler_t) };
        Self::exec()
    }

    /// One that maps [`PROGRAM`] executable so often, and undoes it.
    pub(crate) fn map(times: u32) -> anyhow::Result<Self> {
        let file = File::open(PROGRAM)?;
        Self::fork(|| {
            for _ in 0..times {
                if !map_once(&file) {
                    return;
                }
            }
            // SAFETY: the end of a child.
            unsafe { libc::_exit(0) };
        })
    }

    /// A child that does something, and if it comes back gives the errno as its code.
    fn fork(act: impl FnOnce()) -> anyhow::Result<Self> {
        // SAFETY: the trial has one thread, so the child may do whatever it could do.
        let pid = unsafe { libc::fork() };
        ensure!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
        if pid == 0 {
            act();
            let code = std::io::Error::last_os_error().raw_os_error().unwrap_or(255);
            // SAFETY: as above.
            unsafe { libc::_exit(code) };
        }
        Ok(Self { pid, ended: false })
    }

    /// How it came out, if it has.
    pub(crate) fn ended(&mut self) -> anyhow::Result<Option<End>> {
        let mut status = 0;
        // SAFETY: the status is writable.
        let waited = unsafe { libc::waitpid(self.pid, &raw mut status, libc::WNOHANG) };
        ensure!(waited >= 0, "waitpid: {}", std::io::Error::last_os_error());
        if waited == 0 {
            return Ok(None);
        }
        self.ended = true;
        Ok(Some(if libc::WIFSIGNALED(status) {
            End::Killed(libc::WTERMSIG(status))
        } else {
            match libc::WEXITSTATUS(status) {
                0 => End::Done,
                code => End::Refused(code),
            }
        }))
    }

    /// How it comes out, and after which time.
    pub(crate) fn end(&mut self, limit: Duration) -> anyhow::Result<(End, Duration)> {
        let start = Instant::now();
        loop {
            if let Some(end) = self.ended()? {
                return Ok((end, start.elapsed()));
            }
            if start.elapsed() > limit {
                bail!("a task has not ended within {limit:?}");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub(crate) fn signal(&self, signal: i32) -> anyhow::Result<()> {
        // SAFETY: a child of this process that was not waited for.
        let sent = unsafe { libc::kill(self.pid, signal) };
        ensure!(sent == 0, "kill: {}", std::io::Error::last_os_error());
        Ok(())
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.signal(libc::SIGKILL);
        }
    }
}

/// A client with a descendant that loses its parent: the child of a child of the client, whose parent
/// ends. It becomes a child of the trial, in whose scope it so stays.
pub(crate) struct Family {
    pub(crate) client: Task,
    orphan: Option<Task>,
    /// A byte to the client and it begins, each further one to the orphan and that has a child execute
    /// [`PROGRAM`].
    go: OwnedFd,
    /// The orphan's process id, and then the codes of its children: four bytes each.
    told: OwnedFd,
}

impl Family {
    /// The client, which waits.
    pub(crate) fn start() -> anyhow::Result<Self> {
        // SAFETY: makes this process the parent of those below it that lose theirs.
        ensure!(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) } == 0);
        let (wait, go) = rustix::pipe::pipe()?;
        let (told, tell) = rustix::pipe::pipe()?;
        let trial = std::process::id();
        let client = Task::fork(|| {
            // What fails here is a family that tells nothing, which its trial does not wait for long.
            let _ = be_client(trial, &wait, &tell);
        })?;
        Ok(Self { client, orphan: None, go, told })
    }

    /// Has the client make the orphan.
    pub(crate) fn orphan(&mut self) -> anyhow::Result<()> {
        let pid = self.say_go()?;
        self.orphan = Some(Task { pid, ended: false });
        Ok(())
    }

    /// Has the orphan execute the program.
    pub(crate) fn exec(&mut self) -> anyhow::Result<End> {
        Ok(match self.say_go()? {
            0 => End::Done,
            code => End::Refused(code),
        })
    }

    fn say_go(&self) -> anyhow::Result<i32> {
        rustix::io::write(&self.go, b".")?;
        let mut ready = [PollFd::new(&self.told, PollFlags::IN)];
        let limit = Timespec { tv_sec: 10, tv_nsec: 0 };
        ensure!(poll(&mut ready, Some(&limit))? == 1, "nobody has done it");
        let mut said = [0; 4];
        ensure!(rustix::io::read(&self.told, &mut said)? == 4, "somebody has ended");
        Ok(i32::from_ne_bytes(said))
    }
}

fn be_client(trial: u32, wait: &OwnedFd, tell: &OwnedFd) -> anyhow::Result<()> {
    rustix::io::read(wait, &mut [0])?;
    let mut between = Task::fork(|| {
        // It must not end with this.
        let _orphan = ManuallyDrop::new(Task::fork(|| {
            let _ = be_orphan(trial, wait, tell);
        }));
        // SAFETY: the end of a child.
        unsafe { libc::_exit(0) };
    })?;
    between.end(Duration::from_secs(10))?;
    loop {
        std::thread::park();
    }
}

fn be_orphan(trial: u32, wait: &OwnedFd, tell: &OwnedFd) -> anyhow::Result<()> {
    // Until its parent has ended.
    while std::os::unix::process::parent_id() != trial {
        std::thread::sleep(Duration::from_millis(2));
    }
    rustix::io::write(tell, &std::process::id().to_ne_bytes())?;
    loop {
        ensure!(rustix::io::read(wait, &mut [0])? == 1, "the trial has ended");
        let code = match Task::exec()?.end(Duration::from_secs(10))?.0 {
            End::Done => 0,
            End::Refused(code) | End::Killed(code) => code,
        };
        rustix::io::write(tell, &code.to_ne_bytes())?;
    }
}

/// Maps a page of a file executable, and unmaps it.
fn map_once(file: &File) -> bool {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_EXEC, libc::MAP_PRIVATE);
    // SAFETY: a new mapping, which replaces nothing, and is gone before anybody uses it.
    unsafe {
        let null = std::ptr::null_mut();
        let place = libc::mmap(null, 4096, protection, flags, file.as_raw_fd(), 0);
        place != libc::MAP_FAILED && libc::munmap(place, 4096) == 0
    }
}
