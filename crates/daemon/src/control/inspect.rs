// SPDX-License-Identifier: Apache-2.0
//! Methods that say more of what a record names: QueryProcess, ResolveCgroup, MeasureFile.

use std::io;

use broker::grant::Sha256;
use serde::{Deserialize, Serialize};

use super::types::{FileId, Key};
use super::waiting::For;
use super::{Answer, Caller, Control, ControlError, reply};
use crate::cgroup;
use crate::identity::Held;
use crate::kernel::{Kernel, KernelError};
use crate::measure::{Digest, NamedFile, Subject};
use crate::process::{Namespaces, Process, TICK};
use crate::varlink::Call;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    pid: u32,
    start: Option<u64>,
}

#[derive(Serialize)]
struct Queried {
    process: About,
}

#[derive(Serialize)]
struct About {
    key: Key,
    parent: Key,
    name: String,
    executable: Option<Executable>,
    uid: u32,
    euid: u32,
    suid: u32,
    fsuid: u32,
    gid: u32,
    egid: u32,
    sgid: u32,
    fsgid: u32,
    threads: u32,
    cgroup: Option<String>,
    namespaces: Namespaces,
}

#[derive(Serialize)]
struct Executable {
    path: String,
    exact: bool,
    file: FileId,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Resolve {
    cgroup: u64,
}

#[derive(Serialize)]
struct Resolved {
    path: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Measure {
    path: String,
    file: FileId,
}

/// A call of MeasureFile that waits.
#[derive(Debug)]
pub(super) struct FileRequest {
    path: String,
}

#[derive(Serialize)]
struct MeasuredFile {
    sha256: String,
    size: u64,
}

impl FileRequest {
    pub(super) fn measured(&self, digest: Digest, size: u64) -> Result<Answer, ControlError> {
        reply(&MeasuredFile { sha256: Sha256(digest).to_string(), size })
    }

    pub(super) fn failed(self, error: &io::Error) -> ControlError {
        ControlError::FileUnavailable { path: self.path, reason: error.to_string() }
    }
}

impl<K: Kernel> Control<K> {
    pub(super) fn query_process(
        &mut self,
        caller: &Caller<'_>,
        call: &Call<'_>,
    ) -> Result<Answer, ControlError> {
        let Query { pid, start } = super::parameters(call)?;
        self.needs_session_or_root(caller)?;
        let gone = ControlError::ProcessNotFound { pid };
        let Some((process, key, parent)) = self.look_at(pid)? else { return Err(gone) };
        if start.is_some_and(|start| start != key.start) {
            return Err(gone);
        }
        let executable = process.executable.map(|executable| {
            let path = String::from_utf8_lossy(&executable.path);
            let exact = matches!(path, std::borrow::Cow::Borrowed(_));
            let file = FileId { device: executable.device, inode: executable.inode };
            Executable { path: path.into_owned(), exact, file }
        });
        let ([uid, euid, suid, fsuid], [gid, egid, sgid, fsgid]) = (process.uids, process.gids);
        let about = About {
            key,
            parent,
            name: process.name,
            executable,
            uid,
            euid,
            suid,
            fsuid,
            gid,
            egid,
            sgid,
            fsgid,
            threads: process.threads,
            cgroup: process.cgroup,
            namespaces: process.namespaces,
        };
        reply(&Queried { process: about })
    }

    /// What /proc says of a process and the keys that the kernel has for it, while it is held.
    /// `None` if there is none, or it ended meanwhile.
    fn look_at(&mut self, pid: u32) -> Result<Option<(Process, Key, Key)>, ControlError> {
        let read = Held::open(pid).and_then(|held| Ok((Process::read(&held)?, held)));
        let Some((process, held)) = unless_gone(read)? else { return Ok(None) };
        let Some((key, parent)) = self.kernel.keys(pid)? else { return Ok(None) };
        // Both speak of the same process: it was there all the time, and started when it did.
        let same = held.still_there().is_ok() && key.start / TICK == process.started / TICK;
        Ok(same.then(|| (process, key.into(), parent.into())))
    }

    pub(super) fn measure_file(
        &mut self,
        caller: &Caller<'_>,
        call: &Call<'_>,
    ) -> Result<Answer, ControlError> {
        let Measure { path, file } = super::parameters(call)?;
        self.needs_session_or_root(caller)?;
        if !path.starts_with('/') {
            return Err(ControlError::invalid("path", "a path is absolute"));
        }
        let FileId { device, inode } = file;
        let subject = Subject::File(NamedFile { path: path.clone().into(), device, inode });
        Ok(self.wait(caller, subject, For::File(FileRequest { path })))
    }

    pub(super) fn resolve_cgroup(
        &mut self,
        caller: &Caller<'_>,
        call: &Call<'_>,
    ) -> Result<Answer, ControlError> {
        let Resolve { cgroup } = super::parameters(call)?;
        self.needs_session_or_root(caller)?;
        match cgroup::path(cgroup) {
            Ok(Some(path)) => reply(&Resolved { path }),
            Ok(None) => Err(ControlError::CgroupNotFound { cgroup }),
            Err(error) => {
                let reason = error.to_string();
                Err(KernelError { operation: "opening a cgroup by its id", reason }.into())
            }
        }
    }
}

/// What opening and reading a process gave; `None` if it has ended, or is none: ESRCH and ENOENT of those
/// that are gone, EINVAL for what is the number of a thread only (kernel/pid.c, pidfd_open).
pub(super) fn unless_gone<T>(read: io::Result<T>) -> Result<Option<T>, ControlError> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error)
            if matches!(error.raw_os_error(), Some(libc::ESRCH | libc::ENOENT | libc::EINVAL)) =>
        {
            Ok(None)
        }
        Err(error) => {
            let reason = error.to_string();
            Err(KernelError { operation: "reading /proc", reason }.into())
        }
    }
}
