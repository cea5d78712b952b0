// SPDX-License-Identifier: Apache-2.0
//! What this host can do for the guard, and why not where it cannot: for `ringfence doctor`.
//!
//! Each is found out by trying it, not by asking for a version. What is tried is undone before the
//! answer is given: nothing stays loaded, attached or mounted.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use guard::journal::Change;
use guard::views::{BpfKind, Views};
use kernel_memory::KernelMemory;
use libbpf_rs::skel::{OpenSkel, SkelBuilder};

use crate::digests::Digests;
use crate::error::ProbeError;
use crate::journal::JournalReader;
use crate::journal::modules::ModuleEvents;
use crate::kcore::Kcore;
use crate::object;
use crate::peer::peer_pidfd;
use crate::privilege;
use crate::reader::{LiveReader, Path};
use crate::skeletons::features::FeaturesSkelBuilder;
use crate::views::{LiveViews, system_file};
use crate::{host, live_symbols, live_types};

/// How far something works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeatureState {
    /// It works.
    Available,
    /// It works in part; the reason says which.
    Reduced,
    /// It does not work; the reason says why and what to do.
    Unavailable,
}

/// One thing that a host can or cannot do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// What it is called.
    pub name: &'static str,
    /// What the guard has of it.
    pub purpose: &'static str,
    /// How far it works.
    pub state: FeatureState,
    /// Why not, and what to do about it; or something worth knowing about what works.
    pub reason: Option<String>,
}

/// What a try came to.
enum Tried {
    Works,
    WorksWith(String),
    Reduced(String),
}

/// Tries everything. Takes some tenths of a second.
pub fn features() -> Vec<Feature> {
    let feature = |name, purpose, tried: Result<Tried, ProbeError>| {
        let (state, reason) = match tried {
            Ok(Tried::Works) => (FeatureState::Available, None),
            Ok(Tried::WorksWith(note)) => (FeatureState::Available, Some(note)),
            Ok(Tried::Reduced(why)) => (FeatureState::Reduced, Some(why)),
            Err(error) => (FeatureState::Unavailable, Some(error.to_string())),
        };
        Feature { name, purpose, state, reason }
    };
    vec![
        feature("privilege", "everything that follows", privilege()),
        feature("lockdown", "how far the kernel protects itself", lockdown()),
        feature("kernel types (BTF)", "reading structures", types()),
        feature("kernel symbols", "naming code and data", symbols()),
        feature("kernel image", "an expected state from disk", image()),
        feature("inline reads", "memory without a function to hook", reads(Path::Inline)),
        feature("helper reads", "a second path to compare", reads(Path::Helper)),
        feature("kcore", "a third path to compare", kcore()),
        feature("text poke journal", "telling who changed code", journal()),
        feature("ksymbol journal", "telling who brought new code", ksymbols()),
        feature("module journal", "looking at once when a module is loaded", modules()),
        feature("BPF iterators", "tasks and BPF objects as iterators show them", iterators()),
        feature("tracefs", "hooks as ftrace lists them", small_file("/sys/kernel/tracing/README")),
        feature("securityfs", "lockdown and LSM state", small_file("/sys/kernel/security/lsm")),
        feature("BPF LSM programs", "denying (not used by the guard)", attach(Tryout::Lsm)),
        feature("verdict gate", "tasks that wait for a product's verdict", gate()),
        feature("fs-verity digests", "records and rules with the digest of a file", digests()),
        feature(
            "fentry programs",
            "observing calls (not used by the guard)",
            attach(Tryout::Fentry),
        ),
        feature("kprobes", "a way in to be watched", kprobes()),
        feature("fanotify permission events", "verdicts where there is no gate", fanotify()),
        feature("peer pidfds", "knowing which process connects", peers()),
    ]
}

fn peers() -> Result<Tried, ProbeError> {
    let failed = |error: io::Error| ProbeError::Failed {
        what: "asking who is at the other end of a socket",
        reason: error.to_string(),
    };
    let (socket, _other) = UnixStream::pair().map_err(failed)?;
    match peer_pidfd(socket.as_fd()) {
        Ok(_) => Ok(Tried::Works),
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Ok(Tried::Reduced(
            "before 6.5 the kernel gives its number, which can be another's by the time it is \
             looked up"
                .into(),
        )),
        Err(error) => Err(failed(error)),
    }
}

fn privilege() -> Result<Tried, ProbeError> {
    if privilege::BPF.are_met() {
        return Ok(Tried::Works);
    }
    Err(ProbeError::NotRoot {
        what: "reading the kernel",
        capabilities: privilege::BPF.capabilities,
    })
}

fn lockdown() -> Result<Tried, ProbeError> {
    let text = system_file("/sys/kernel/security/lockdown")?;
    match host::parse_lockdown(&text) {
        Some(host::Lockdown::None) => Ok(Tried::Reduced(
            "none: root may modify the kernel; boot with lockdown=integrity".into(),
        )),
        Some(host::Lockdown::Integrity) => Ok(Tried::WorksWith("integrity".into())),
        Some(host::Lockdown::Confidentiality) => {
            Err(ProbeError::LockedDown { what: "reading kernel memory" })
        }
        None => Err(ProbeError::Malformed {
            what: "/sys/kernel/security/lockdown".into(),
            reason: format!("{:?} names no level", text.trim()),
        }),
    }
}

fn types() -> Result<Tried, ProbeError> {
    live_types().map(|_| Tried::Works)
}

fn symbols() -> Result<Tried, ProbeError> {
    let symbols = live_symbols()?;
    // A variable that every kernel has.
    if symbols.address_of("init_task").is_some() {
        return Ok(Tried::WorksWith(format!("{} symbols", symbols.len())));
    }
    Ok(Tried::Reduced(format!(
        "{} symbols, none of data: it is built without CONFIG_KALLSYMS_ALL; addresses of data are \
         found by following code",
        symbols.len()
    )))
}

fn image() -> Result<Tried, ProbeError> {
    kernel_image_path().map(|path| Tried::WorksWith(path.display().to_string()))
}

/// The image of the running kernel by its release, where distributions put it. Whether it is the
/// one that runs, its build id must tell.
pub fn kernel_image_path() -> Result<PathBuf, ProbeError> {
    let release = host::identity()?.release;
    let places = [
        format!("/boot/vmlinuz-{release}"),
        format!("/usr/lib/modules/{release}/vmlinuz"),
        format!("/lib/modules/{release}/vmlinuz"),
    ];
    for place in &places {
        match File::open(place) {
            Ok(_) => return Ok(PathBuf::from(place)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(ProbeError::file(place, &error)),
        }
    }
    let [boot, modules, _] = places;
    Err(ProbeError::File {
        path: boot,
        reason: format!(
            "neither it nor {modules} is there; the state at first check serves as the expected \
             one, or name the image if it is elsewhere"
        ),
    })
}

fn reads(path: Path) -> Result<Tried, ProbeError> {
    let reader = LiveReader::open(path)?;
    let failed = |reason: String| ProbeError::Failed { what: "reading kernel text", reason };
    let symbols = live_symbols()?;
    let start = symbols.address_of("_stext");
    let start = start.ok_or_else(|| failed("kallsyms has no _stext".into()))?;
    let mut word = [0; 8];
    reader.read(start, &mut word).map_err(|error| failed(error.to_string()))?;
    Ok(Tried::Works)
}

fn kcore() -> Result<Tried, ProbeError> {
    Kcore::open().map(|_| Tried::Works)
}

fn journal() -> Result<Tried, ProbeError> {
    JournalReader::open()?.try_text_pokes().map(|()| Tried::Works)
}

fn ksymbols() -> Result<Tried, ProbeError> {
    let mut reader = JournalReader::open()?;
    let name = crate::views::event::raise()?;
    let came = reader.take().entries.into_iter().any(|entry| match entry.change {
        Change::Symbol { name: seen, .. } => seen == name,
        Change::TextPoke { .. } | Change::Module { .. } => false,
    });
    if came {
        return Ok(Tried::Works);
    }
    Err(ProbeError::Unsupported {
        what: "listening to executable ranges (perf ksymbol)",
        lacking: "it takes the request and then does not tell of a BPF program that was loaded"
            .into(),
    })
}

fn modules() -> Result<Tried, ProbeError> {
    ModuleEvents::open().map(|_| Tried::Works)
}

fn iterators() -> Result<Tried, ProbeError> {
    let views = LiveViews::open();
    let failed =
        |missing: guard::Missing| ProbeError::Failed { what: "BPF iterators", reason: missing.0 };
    views.tasks_iterated().map_err(failed)?;
    for kind in [BpfKind::Program, BpfKind::Map, BpfKind::Link] {
        views.bpf_iterated(kind).map_err(failed)?;
    }
    Ok(Tried::Works)
}

fn small_file(path: &str) -> Result<Tried, ProbeError> {
    system_file(path)?;
    if std::path::Path::new(path).exists() {
        return Ok(Tried::Works);
    }
    Ok(Tried::WorksWith("not mounted; opened where nobody else sees it".into()))
}

/// A program of bpf/features.bpf.c.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tryout {
    Lsm,
    Fentry,
}

fn attach(tryout: Tryout) -> Result<Tried, ProbeError> {
    let lsm = tryout == Tryout::Lsm;
    let what = if lsm { "attaching a BPF LSM program" } else { "attaching an fentry program" };
    if lsm {
        lsm_programs_are_called()?;
    }
    let mut storage = MaybeUninit::uninit();
    object::with_libbpf(what, || {
        let mut open = FeaturesSkelBuilder::default().open(&mut storage)?;
        open.progs.try_lsm.set_autoload(lsm);
        open.progs.try_fentry.set_autoload(!lsm);
        let skeleton = open.load()?;
        let program = if lsm { &skeleton.progs.try_lsm } else { &skeleton.progs.try_fentry };
        // Detached as the link goes, before the program does.
        let _link = program.attach()?;
        Ok(Tried::Works)
    })
}

/// Whether LSM programs can be attached; what is tried is undone.
pub(crate) fn can_attach_lsm() -> Result<(), ProbeError> {
    attach(Tryout::Lsm).map(|_| ())
}

/// Whether this kernel calls LSM programs at all. One that does not lets them be loaded and attached
/// all the same.
pub(crate) fn lsm_programs_are_called() -> Result<(), ProbeError> {
    if system_file("/sys/kernel/security/lsm").is_ok_and(|list| has_bpf(&list)) {
        return Ok(());
    }
    Err(ProbeError::Unsupported {
        what: "attaching a BPF LSM program",
        lacking:
            "bpf is not in its list of security modules; boot with lsm=…,bpf (the present list is \
             in /sys/kernel/security/lsm)"
                .into(),
    })
}

fn has_bpf(list: &str) -> bool {
    list.trim().split(',').any(|name| name == "bpf")
}

fn kprobes() -> Result<Tried, ProbeError> {
    // Looked for and not tried: setting one changes code that runs.
    if std::path::Path::new("/sys/bus/event_source/devices/kprobe").exists() {
        return Ok(Tried::WorksWith("present; not tried".into()));
    }
    Err(ProbeError::Unsupported {
        what: "setting kprobes",
        lacking: "it is built without CONFIG_KPROBE_EVENTS; that is one way in less".into(),
    })
}

fn gate() -> Result<Tried, ProbeError> {
    let lacking = |lacking| ProbeError::Unsupported { what: "waiting for verdicts", lacking };
    crate::gate_support().map(|()| Tried::Works).map_err(lacking)
}

fn digests() -> Result<Tried, ProbeError> {
    match Digests::find()? {
        Digests::AtInode => Ok(Tried::Works),
        Digests::InTable(_) => Ok(Tried::WorksWith("found through /proc/kallsyms".into())),
        Digests::None => Err(ProbeError::Unsupported {
            what: "having digests of files",
            lacking: "it is built without CONFIG_FS_VERITY; rules by digest match no file".into(),
        }),
    }
}

fn fanotify() -> Result<Tried, ProbeError> {
    use std::os::fd::{FromRawFd, OwnedFd};

    let what = "opening fanotify for permission events";
    let flags = libc::FAN_CLASS_CONTENT | libc::FAN_CLOEXEC;
    // SAFETY: a plain system call. Nothing is marked, so nobody ever waits on this group.
    let descriptor = unsafe { libc::fanotify_init(flags, libc::O_RDONLY as libc::c_uint) };
    if descriptor >= 0 {
        // SAFETY: the kernel just gave this descriptor to us alone; dropping it closes it.
        drop(unsafe { OwnedFd::from_raw_fd(descriptor) });
        return Ok(Tried::Works);
    }
    let error = io::Error::last_os_error();
    Err(match error.raw_os_error() {
        Some(libc::ENOSYS | libc::EINVAL) => ProbeError::Unsupported {
            what,
            lacking: "it is built without CONFIG_FANOTIFY_ACCESS_PERMISSIONS".into(),
        },
        _ => ProbeError::refused(what, &privilege::ADMINISTRATION, &error, ""),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bpf_is_looked_for_as_a_whole_name() {
        assert!(has_bpf("lockdown,capability,bpf\n"));
        assert!(!has_bpf("lockdown,bpfilter\n"));
    }
}
