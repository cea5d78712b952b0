// SPDX-License-Identifier: Apache-2.0
//! Children and threads by each system call that makes them: the C library has one way only.

use std::arch::asm;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// What makes a task of it: the number of a call and its first four arguments.
type Call = (libc::c_long, [usize; 4]);

/// struct clone_args, include/uapi/linux/sched.h, in its first version: flags, pidfd, where the kernel
/// puts the child's number in the child and in the parent, signal at its end, stack and its size, tls.
type Arguments = [u64; 8];
const SIZE: usize = size_of::<Arguments>();

/// Makes a task that does nothing but exit(2). Gives its number.
///
/// # Safety
/// The arguments are those of a call that makes a task, and what they point to lives until it is there.
unsafe fn born((call, [first, second, third, fourth]): Call) -> i32 {
    let made: libc::c_long;
    // SAFETY: the child comes out of the call with the registers and the stack of its parent. It touches
    // no memory before it has ended, so it does not matter whose that is.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor edi, edi",
            "mov eax, {exit}",
            "syscall",
            "2:",
            exit = const libc::SYS_exit,
            inlateout("rax") call => made,
            inlateout("rdi") first => _,
            in("rsi") second,
            in("rdx") third,
            in("r10") fourth,
            in("r8") 0,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    assert!(made > 0, "{}", std::io::Error::from_raw_os_error(-made as i32));
    made as i32
}

/// Makes a child and waits for its end. Gives its number.
unsafe fn child(call: Call) -> u32 {
    let mut status = -1;
    // SAFETY: as the caller says; the status is a variable of ours.
    let pid = unsafe {
        let pid = born(call);
        assert_eq!(libc::waitpid(pid, &raw mut status, 0), pid);
        pid
    };
    assert_eq!(status, 0);
    pid as u32
}

/// fork(2)
pub(crate) fn fork() -> u32 {
    // SAFETY: it takes no arguments.
    unsafe { child((libc::SYS_fork, [0; 4])) }
}

/// vfork(2)
pub(crate) fn vfork() -> u32 {
    // SAFETY: as above; it waits until the child has ended.
    unsafe { child((libc::SYS_vfork, [0; 4])) }
}

/// clone(2) of a process.
pub(crate) fn clone() -> u32 {
    // SAFETY: no stack and nothing to write to.
    unsafe { child((libc::SYS_clone, [libc::SIGCHLD as usize, 0, 0, 0])) }
}

/// clone3(2) of a process.
pub(crate) fn clone3() -> u32 {
    let mut arguments = Arguments::default();
    arguments[4] = libc::SIGCHLD as u64;
    // SAFETY: as many bytes as are said to be there.
    unsafe { child((libc::SYS_clone3, [arguments.as_ptr() as usize, SIZE, 0, 0])) }
}

const THREAD: i32 =
    libc::CLONE_VM | libc::CLONE_SIGHAND | libc::CLONE_THREAD | libc::CLONE_CHILD_CLEARTID;

/// Makes a thread by a call that gets where the kernel is to write 0 at its end, and waits for that.
/// Gives its number.
fn thread(make: impl FnOnce(usize) -> i32) -> u32 {
    let there = AtomicU32::new(1);
    let mut all = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // It has the stack of this thread, so it must not be the one that handles a signal.
    // SAFETY: both are filled before they are read.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
    }
    let made = make(there.as_ptr() as usize);
    let started = Instant::now();
    while there.load(Ordering::Acquire) != 0 {
        assert!(started.elapsed() < super::LIMIT, "it does not end");
        std::thread::sleep(Duration::from_millis(1));
    }
    // SAFETY: it was filled above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut()) };
    made as u32
}

/// clone(2) of a thread.
pub(crate) fn clone_thread() -> u32 {
    // SAFETY: what the kernel writes to lives until it has.
    thread(|cleared| unsafe { born((libc::SYS_clone, [THREAD as usize, 0, 0, cleared])) })
}

/// clone3(2) of a thread.
pub(crate) fn clone3_thread() -> u32 {
    thread(|cleared| {
        let mut arguments = Arguments::default();
        (arguments[0], arguments[2]) = (THREAD as u64, cleared as u64);
        // SAFETY: as many bytes as are said to be there, and as above.
        unsafe { born((libc::SYS_clone3, [arguments.as_ptr() as usize, SIZE, 0, 0])) }
    })
}
