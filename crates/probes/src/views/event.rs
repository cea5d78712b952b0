// SPDX-License-Identifier: Apache-2.0
//! An event made on purpose, to see whether it arrives.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use libbpf_rs::libbpf_sys;

use crate::error::ProbeError;
use crate::object;
use crate::privilege;

/// Loads a program that does nothing and drops it. The kernel tells perf that an executable range
/// came and went; gives the name that it has there: `bpf_prog_<tag>_<name>`
/// (`bpf_get_prog_name`, kernel/bpf/core.c).
pub(crate) fn raise() -> Result<String, ProbeError> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    // 15 characters at most (BPF_OBJ_NAME_LEN).
    let name = format!("rf_{:x}_{:x}", std::process::id() & 0xff_ffff, count & 0xff_ffff);
    let what = "loading a BPF program to raise an event";
    let descriptor = load(&name, libbpf_sys::BPF_PROG_TYPE_SYSCALL, libbpf_sys::BPF_F_SLEEPABLE)
        .map_err(|error| ProbeError::refused(what, &privilege::BPF, &error, ""))?;
    let info: libbpf_sys::bpf_prog_info = object::info_of(descriptor.as_fd())
        .map_err(|error| ProbeError::refused(what, &privilege::BPF, &error, ""))?;
    if info.jited_prog_len == 0 {
        return Err(ProbeError::Unsupported {
            what: "raising an event",
            lacking: "its BPF JIT is off, so programs leave no executable range \
                      (sysctl net.core.bpf_jit_enable)"
                .into(),
        });
    }
    let tag: String = info.tag.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("bpf_prog_{tag}_{name}"))
}

/// Has the kernel change its text: hangs a program that does nothing on a tracepoint and takes it
/// off again, whereby the kernel patches the places where the tracepoint is (jump labels) and how
/// they call (static calls). The tracepoint is that of the OOM killer's choice (`oom:mark_victim`),
/// which every kernel has and which is passed next to never.
pub(crate) fn poke() -> Result<(), ProbeError> {
    const TRACEPOINT: &CStr = c"mark_victim";
    let failed = |error: io::Error| {
        let what = "hanging a BPF program on a tracepoint";
        ProbeError::refused(what, &privilege::BPF, &error, "")
    };
    let program = load("rf_poke", libbpf_sys::BPF_PROG_TYPE_RAW_TRACEPOINT, 0).map_err(failed)?;
    // SAFETY: the name is a string that ends with a zero and lives through the call.
    let link = owned(unsafe {
        libbpf_sys::bpf_raw_tracepoint_open(TRACEPOINT.as_ptr(), program.as_raw_fd())
    })
    .map_err(failed)?;
    drop(link);
    Ok(())
}

fn load(name: &str, kind: libbpf_sys::bpf_prog_type, flags: u32) -> io::Result<OwnedFd> {
    /// `BPF_ALU64 | BPF_MOV | BPF_K` and `BPF_JMP | BPF_EXIT` (include/uapi/linux/bpf.h).
    const MOVE: u8 = 0xb7;
    const EXIT: u8 = 0x95;
    let instructions = [
        libbpf_sys::bpf_insn { code: MOVE, ..Default::default() },
        libbpf_sys::bpf_insn { code: EXIT, ..Default::default() },
    ];
    let name = CString::new(name).map_err(io::Error::other)?;
    let mut options = libbpf_sys::bpf_prog_load_opts {
        sz: size_of::<libbpf_sys::bpf_prog_load_opts>() as u64,
        prog_flags: flags,
        // The verifier gives up with EAGAIN when a signal is pending (bpf_check,
        // kernel/bpf/verifier.c), and one that comes each millisecond must not end a watch.
        attempts: 100,
        ..Default::default()
    };
    // SAFETY: all pointers are to values that live through the call, and the count is that of the
    // instructions.
    let descriptor = unsafe {
        libbpf_sys::bpf_prog_load(
            kind,
            name.as_ptr(),
            c"Dual BSD/GPL".as_ptr(),
            instructions.as_ptr(),
            instructions.len() as u64,
            &raw mut options,
        )
    };
    owned(descriptor)
}

/// A descriptor that a call of libbpf gave, or the error in its place.
fn owned(descriptor: i32) -> io::Result<OwnedFd> {
    if descriptor < 0 {
        return Err(io::Error::from_raw_os_error(-descriptor));
    }
    // SAFETY: the kernel just gave this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}
