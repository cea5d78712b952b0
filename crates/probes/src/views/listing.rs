// SPDX-License-Identifier: Apache-2.0
//! BPF objects as the bpf system call lists them (`BPF_*_GET_NEXT_ID`).

use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use guard::views::{BpfKind, BpfView};
use libbpf_rs::libbpf_sys;

use super::records::text;
use crate::error::ProbeError;
use crate::object;
use crate::privilege;

/// All objects of a kind. One that goes while it is looked at may be missing.
pub(crate) fn listed(kind: BpfKind) -> Result<Vec<BpfView>, ProbeError> {
    let failed = |error: &io::Error| {
        ProbeError::refused(
            "listing BPF objects by the bpf system call",
            &privilege::ADMINISTRATION,
            error,
            "",
        )
    };
    let mut views = Vec::new();
    let mut id = 0;
    while let Some(next) = next_id(kind, id).map_err(|error| failed(&error))? {
        id = next;
        match by_id(kind, id).and_then(|descriptor| describe(kind, id, &descriptor)) {
            Ok(view) => views.push(view),
            // Gone meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) => return Err(failed(&error)),
        }
    }
    Ok(views)
}

/// The id after `id`, if there is one.
fn next_id(kind: BpfKind, id: u32) -> io::Result<Option<u32>> {
    let mut next = 0;
    // SAFETY: each of the three writes one u32 to where it is told.
    let result = unsafe {
        match kind {
            BpfKind::Program => libbpf_sys::bpf_prog_get_next_id(id, &raw mut next),
            BpfKind::Map => libbpf_sys::bpf_map_get_next_id(id, &raw mut next),
            BpfKind::Link => libbpf_sys::bpf_link_get_next_id(id, &raw mut next),
        }
    };
    match -result {
        0 => Ok(Some(next)),
        libc::ENOENT => Ok(None),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

fn by_id(kind: BpfKind, id: u32) -> io::Result<OwnedFd> {
    // SAFETY: plain system calls with a number.
    let descriptor = unsafe {
        match kind {
            BpfKind::Program => libbpf_sys::bpf_prog_get_fd_by_id(id),
            BpfKind::Map => libbpf_sys::bpf_map_get_fd_by_id(id),
            BpfKind::Link => libbpf_sys::bpf_link_get_fd_by_id(id),
        }
    };
    if descriptor < 0 {
        return Err(io::Error::from_raw_os_error(-descriptor));
    }
    // SAFETY: the kernel just gave this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn describe(kind: BpfKind, id: u32, descriptor: &OwnedFd) -> io::Result<BpfView> {
    let descriptor = descriptor.as_fd();
    let bytes = |name: [libc::c_char; 16]| text(&name.map(libc::c_char::cast_unsigned));
    Ok(match kind {
        BpfKind::Program => {
            let info: libbpf_sys::bpf_prog_info = object::info_of(descriptor)?;
            BpfView { id, kind: info.type_, name: bytes(info.name) }
        }
        BpfKind::Map => {
            let info: libbpf_sys::bpf_map_info = object::info_of(descriptor)?;
            BpfView { id, kind: info.type_, name: bytes(info.name) }
        }
        BpfKind::Link => {
            let info: libbpf_sys::bpf_link_info = object::info_of(descriptor)?;
            BpfView { id, kind: info.type_, name: String::new() }
        }
    })
}
