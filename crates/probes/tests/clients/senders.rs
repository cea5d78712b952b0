// SPDX-License-Identifier: Apache-2.0
//! Ways to send a signal to a process that has one thread and a group of its own. Each gives the errno that it
//! failed with, or 0.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use super::deeds::{Subject, errno};

/// SI_QUEUE and SI_TIMER, include/uapi/asm-generic/siginfo.h.
const QUEUED: i32 = -1;
const OF_A_TIMER: i32 = -2;

/// A way, by its name in docs/coverage.md, and what is told of the signal then.
pub(crate) struct Sender {
    pub(crate) door: &'static str,
    /// si_code.
    pub(crate) code: i32,
    /// Whether it is for the thread.
    pub(crate) to_thread: bool,
    send: fn(&Subject, RawFd, i32) -> i64,
}

impl Sender {
    /// Sends a signal. `pidfd` is of the subject.
    pub(crate) fn send(&self, subject: &Subject, pidfd: &fs::File, signal: i32) -> i32 {
        errno((self.send)(subject, pidfd.as_raw_fd(), signal))
    }
}

/// All that ask whether they may.
pub(crate) const SENDERS: [Sender; 7] = [
    sender("kill", 0, false, kill),
    sender("kill of a group", 0, false, kill_group),
    sender("tkill", libc::SI_TKILL, true, tkill),
    sender("tgkill", libc::SI_TKILL, true, tgkill),
    sender("rt_sigqueueinfo", QUEUED, false, |to, _, signal| queue(to, signal, QUEUED)),
    sender("rt_tgsigqueueinfo", QUEUED, true, queue_to_thread),
    sender("pidfd_send_signal", 0, false, send_by_pidfd),
];

const fn sender(
    door: &'static str,
    code: i32,
    to_thread: bool,
    send: fn(&Subject, RawFd, i32) -> i64,
) -> Sender {
    Sender { door, code, to_thread, send }
}

/// The kernel's siginfo, of 128 bytes: si_signo, si_errno, si_code.
fn information(signal: i32, code: i32) -> [i32; 32] {
    let mut information = [0; 32];
    (information[0], information[2]) = (signal, code);
    information
}

fn kill(to: &Subject, _: RawFd, signal: i32) -> i64 {
    // SAFETY: a signal to a child of ours, as all here.
    unsafe { libc::syscall(libc::SYS_kill, to.pid(), signal) }
}

fn kill_group(to: &Subject, _: RawFd, signal: i32) -> i64 {
    // SAFETY: as above; nobody else is in its group.
    unsafe { libc::syscall(libc::SYS_kill, -to.pid(), signal) }
}

fn tkill(to: &Subject, _: RawFd, signal: i32) -> i64 {
    // SAFETY: as above.
    unsafe { libc::syscall(libc::SYS_tkill, to.pid(), signal) }
}

fn tgkill(to: &Subject, _: RawFd, signal: i32) -> i64 {
    // SAFETY: as above.
    unsafe { libc::syscall(libc::SYS_tgkill, to.pid(), to.pid(), signal) }
}

fn send_by_pidfd(_: &Subject, pidfd: RawFd, signal: i32) -> i64 {
    // SAFETY: as above, without a siginfo of ours.
    unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd, signal, 0, 0) }
}

fn queue_to_thread(to: &Subject, _: RawFd, signal: i32) -> i64 {
    let information = information(signal, QUEUED);
    let (pid, pointer) = (to.pid(), information.as_ptr());
    // SAFETY: a siginfo of ours, to a child of ours.
    unsafe { libc::syscall(libc::SYS_rt_tgsigqueueinfo, pid, pid, signal, pointer) }
}

fn queue(to: &Subject, signal: i32, code: i32) -> i64 {
    let information = information(signal, code);
    // SAFETY: a siginfo of ours, to a child of ours.
    unsafe { libc::syscall(libc::SYS_rt_sigqueueinfo, to.pid(), signal, information.as_ptr()) }
}

/// Says of a signal that a timer sends it, which anybody may.
pub(crate) fn as_if_by_a_timer(to: &Subject, signal: i32) -> i32 {
    errno(queue(to, signal, OF_A_TIMER))
}

/// Has a timer send a signal to this process, which ignores it, and waits until it must have.
pub(crate) fn by_a_timer(signal: i32) {
    // SAFETY: all zeroes are both structures, and both live until the timer is gone.
    unsafe {
        let mut event: libc::sigevent = std::mem::zeroed();
        (event.sigev_notify, event.sigev_signo) = (libc::SIGEV_SIGNAL, signal);
        let mut timer = std::mem::zeroed();
        let made = libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer);
        assert_eq!(made, 0, "{}", std::io::Error::last_os_error());
        let mut once: libc::itimerspec = std::mem::zeroed();
        once.it_value.tv_nsec = 1_000_000;
        assert_eq!(libc::timer_settime(timer, 0, &raw const once, std::ptr::null_mut()), 0);
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert_eq!(libc::timer_delete(timer), 0);
    }
}

/// Has a message queue send a signal to this process, which ignores it. Nothing where there are none.
pub(crate) fn by_a_message_queue(signal: i32) -> Option<()> {
    let name = CString::new(format!("/ringfence-{}", std::process::id())).unwrap();
    let flags = libc::O_CREAT | libc::O_RDWR | libc::O_CLOEXEC;
    let none = std::ptr::null::<libc::mq_attr>();
    // SAFETY: a name that ends, a queue of our own, and a message of one byte.
    unsafe {
        let queue = libc::mq_open(name.as_ptr(), flags, 0o600, none);
        if queue == -1 {
            eprintln!("not looked for: mq_notify: {}", io::Error::last_os_error());
            return None;
        }
        libc::mq_unlink(name.as_ptr());
        let mut event: libc::sigevent = std::mem::zeroed();
        (event.sigev_notify, event.sigev_signo) = (libc::SIGEV_SIGNAL, signal);
        assert_eq!(libc::mq_notify(queue, &raw const event), 0);
        assert_eq!(libc::mq_send(queue, c"m".as_ptr(), 1, 0), 0);
        assert_eq!(libc::mq_close(queue), 0);
    }
    Some(())
}

/// Has a pipe that something comes into send a signal to this process, which ignores it.
pub(crate) fn by_a_file(signal: i32) {
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let file = reader.as_raw_fd();
    // SAFETY: plain system calls on a descriptor of ours.
    unsafe {
        assert_eq!(libc::fcntl(file, libc::F_SETOWN, std::process::id()), 0);
        // F_SETSIG, include/uapi/asm-generic/fcntl.h: without it SIGIO would end this process.
        assert_eq!(libc::fcntl(file, 10, signal), 0);
        assert_eq!(libc::fcntl(file, libc::F_SETFL, libc::O_ASYNC), 0);
    }
    rustix::io::write(&writer, b"m").unwrap();
    // That nobody writes any more is told of as well.
    // SAFETY: as above.
    assert_eq!(unsafe { libc::fcntl(file, libc::F_SETFL, 0) }, 0);
}

/// Has a terminal send SIGINT to a child that it belongs to, which ends by it. Gives the child's number; nothing
/// where there are no terminals.
pub(crate) fn by_a_terminal() -> Option<u32> {
    // SAFETY: plain system calls, and room for a name.
    let (master, name) = unsafe {
        let master = libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC);
        if master == -1 {
            eprintln!("not looked for: a key of a terminal: {}", io::Error::last_os_error());
            return None;
        }
        let master = OwnedFd::from_raw_fd(master);
        let mut name = [0; 64];
        let terminal = master.as_raw_fd();
        assert_eq!(libc::unlockpt(terminal), 0);
        assert_eq!(libc::ptsname_r(terminal, name.as_mut_ptr(), name.len()), 0);
        (master, name)
    };
    let (ready, says) = rustix::pipe::pipe().unwrap();
    let (ready, says) = (ready.as_raw_fd(), says.as_raw_fd());
    // SAFETY: the child makes system calls on what was there before it, takes no memory, and ends.
    unsafe {
        let child = libc::fork();
        if child == 0 {
            libc::setsid();
            // What a shell starts in the background ignores it.
            libc::signal(libc::SIGINT, libc::SIG_DFL);
            // Who leads a session and has no terminal gets the first that it opens.
            let opened = libc::open(name.as_ptr(), libc::O_RDWR);
            let byte = u8::from(opened != -1);
            libc::write(says, (&raw const byte).cast(), 1);
            libc::pause();
            libc::_exit(0);
        }
        let mut byte = 0_u8;
        assert_eq!(libc::read(ready, (&raw mut byte).cast(), 1), 1);
        assert_eq!(byte, 1, "the child has no terminal");
        // Control-C
        rustix::io::write(&master, b"\x03").unwrap();
        let mut status = 0;
        assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
        assert_eq!(libc::WTERMSIG(status), libc::SIGINT);
        Some(child as u32)
    }
}

/// A child of a child wants to be killed when its parent ends, which it does. Gives the parent's number; who is
/// killed is nobody's child any more.
pub(crate) fn by_the_end_of_a_parent() -> u32 {
    let (ready, says) = rustix::pipe::pipe().unwrap();
    let (ready, says) = (ready.as_raw_fd(), says.as_raw_fd());
    // SAFETY: the children make system calls on variables of their own, and take no memory.
    let (parent, _) = super::deeds::forked(|| unsafe {
        let mut byte = 0_u8;
        let child = libc::fork();
        if child == 0 {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            libc::write(says, (&raw const byte).cast(), 1);
            loop {
                libc::pause();
            }
        }
        libc::read(ready, (&raw mut byte).cast(), 1);
        0
    });
    parent
}

/// A cgroup below the one of this process.
pub(crate) struct Group(PathBuf);

impl Group {
    /// None where none can be made, which is said.
    pub(crate) fn make() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        let mount = mounts.lines().find_map(|line| {
            let fields: Vec<_> = line.split(' ').collect();
            (fields.get(2) == Some(&"cgroup2")).then(|| fields[1].to_owned())
        });
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
        let name = format!("ringfence-{}", std::process::id());
        let group = mount.map(|mount| Path::new(&mount).join(own).join(name));
        let made = group.filter(|group| fs::create_dir(group).is_ok());
        if made.is_none() {
            eprintln!("not looked for: cgroup.kill, as no cgroup can be made");
        }
        made.map(Self)
    }

    /// Kills a process that it moves here first.
    pub(crate) fn kill(&self, subject: &Subject) {
        fs::write(self.0.join("cgroup.procs"), subject.pid().to_string()).unwrap();
        fs::write(self.0.join("cgroup.kill"), "1").unwrap();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Who was killed may not have left it yet.
        let _ = fs::remove_dir(&self.0);
    }
}
