// SPDX-License-Identifier: Apache-2.0
//! Loading BPF objects: what libbpf says goes into the error, and every object of ours is known.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::{Mutex, Once, PoisonError};

use libbpf_rs::{Link, MapCore, MapHandle, Object, PrintLevel, libbpf_sys};

use crate::error::ProbeError;
use crate::privilege;

/// Where the kernel keeps its own types.
pub(crate) const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

thread_local! {
    /// What libbpf said on this thread since [`said_by_libbpf`] began to listen.
    static SAID: RefCell<Option<String>> = const { RefCell::new(None) };
}

fn keep(_level: PrintLevel, message: String) {
    SAID.with_borrow_mut(|said| {
        if let Some(said) = said {
            said.push_str(&message);
        }
    });
}

/// Runs `action` and gives what libbpf had to say about it. libbpf prints to stderr otherwise,
/// where it would stand between the lines of a report.
pub(crate) fn said_by_libbpf<T>(action: impl FnOnce() -> T) -> (T, String) {
    static SILENCE: Once = Once::new();
    SILENCE.call_once(|| {
        libbpf_rs::set_print(Some((PrintLevel::Warn, keep)));
    });
    let outer = SAID.replace(Some(String::new()));
    let outcome = action();
    let said = SAID.replace(outer).unwrap_or_default();
    (outcome, said)
}

/// Runs an action of libbpf-rs, and turns its failure into one of the reasons there are.
pub(crate) fn with_libbpf<T>(
    what: &'static str,
    action: impl FnOnce() -> libbpf_rs::Result<T>,
) -> Result<T, ProbeError> {
    if !Path::new(KERNEL_BTF).exists() {
        return Err(ProbeError::NoBtf);
    }
    let (outcome, said) = said_by_libbpf(action);
    outcome
        .map_err(|error| ProbeError::refused(what, &privilege::BPF, &system_error(&error), &said))
}

/// The system's error inside one of libbpf-rs, which wraps it in layers of context.
pub(crate) fn system_error(error: &libbpf_rs::Error) -> io::Error {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = source {
        if let Some(code) = current.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return io::Error::from_raw_os_error(code);
        }
        source = current.source();
    }
    match error.kind() {
        libbpf_rs::ErrorKind::PermissionDenied => io::Error::from_raw_os_error(libc::EPERM),
        _ => io::Error::other(format!("{error:#}")),
    }
}

/// Kinds of BPF object that have ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    Program,
    Map,
    Link,
}

/// Everything of ours that is loaded in this process, so that the guard can tell it from the rest.
static OWN: Mutex<Vec<(Kind, u32)>> = Mutex::new(Vec::new());

/// The ids of what this process has loaded.
pub(crate) fn own() -> Vec<(Kind, u32)> {
    OWN.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Keeps ids on the list of our own for as long as it lives.
#[derive(Debug, Default)]
pub(crate) struct Own(Vec<(Kind, u32)>);

impl Own {
    /// Puts the object behind `descriptor` on the list.
    pub(crate) fn add(
        &mut self,
        kind: Kind,
        descriptor: BorrowedFd<'_>,
    ) -> Result<u32, ProbeError> {
        let id = id_of(kind, descriptor).map_err(|error| {
            ProbeError::refused("asking for a BPF id", &privilege::BPF, &error, "")
        })?;
        self.0.push((kind, id));
        OWN.lock().unwrap_or_else(PoisonError::into_inner).push((kind, id));
        Ok(id)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let mut own = OWN.lock().unwrap_or_else(PoisonError::into_inner);
        for gone in &self.0 {
            if let Some(index) = own.iter().position(|entry| entry == gone) {
                own.swap_remove(index);
            }
        }
    }
}

/// A handle of a map of a loaded object.
pub(crate) fn map(
    object: &Object,
    name: &str,
    what: &'static str,
) -> Result<MapHandle, ProbeError> {
    let missing = || ProbeError::Failed { what, reason: format!("the object has no map {name}") };
    let map = object.maps().find(|map| map.name() == name).ok_or_else(missing)?;
    with_libbpf(what, || MapHandle::try_from(&map))
}

/// Attaches a program of a loaded object. It is detached as the link goes.
pub(crate) fn link(
    object: &Object,
    name: &str,
    what: &'static str,
    own: &mut Own,
) -> Result<Link, ProbeError> {
    let missing = || ProbeError::Failed { what, reason: format!("the object has no {name}") };
    let program = object.progs_mut().find(|program| program.name() == name).ok_or_else(missing)?;
    let link = with_libbpf(what, || program.attach())?;
    own.add(Kind::Link, link.as_fd())?;
    Ok(link)
}

fn id_of(kind: Kind, descriptor: BorrowedFd<'_>) -> io::Result<u32> {
    // The id is at another offset in each of the three.
    match kind {
        Kind::Program => info_of::<libbpf_sys::bpf_prog_info>(descriptor).map(|info| info.id),
        Kind::Map => info_of::<libbpf_sys::bpf_map_info>(descriptor).map(|info| info.id),
        Kind::Link => info_of::<libbpf_sys::bpf_link_info>(descriptor).map(|info| info.id),
    }
}

/// A structure that `BPF_OBJ_GET_INFO_BY_FD` fills.
///
/// # Safety
/// Every bit pattern, all zeroes among them, must be a value of the type.
pub(crate) unsafe trait Info: Default {}
// SAFETY: plain integers and arrays and unions of them, from include/uapi/linux/bpf.h.
unsafe impl Info for libbpf_sys::bpf_prog_info {}
// SAFETY: as above.
unsafe impl Info for libbpf_sys::bpf_map_info {}
// SAFETY: as above.
unsafe impl Info for libbpf_sys::bpf_link_info {}

/// What the kernel says about the object behind a descriptor.
pub(crate) fn info_of<T: Info>(descriptor: BorrowedFd<'_>) -> io::Result<T> {
    use std::os::fd::AsRawFd;

    let mut info = T::default();
    let mut size = size_of::<T>() as u32;
    // SAFETY: `info` is writable for `size` bytes, and whatever the kernel puts there is a value.
    let result = unsafe {
        libbpf_sys::bpf_obj_get_info_by_fd(
            descriptor.as_raw_fd(),
            (&raw mut info).cast(),
            &raw mut size,
        )
    };
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(info) }
}
