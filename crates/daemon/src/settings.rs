// SPDX-License-Identifier: Apache-2.0
//! What the administrator chooses, and what follows from it.

use std::fs::Permissions;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Parser;

/// Serves the security API: loads the kernel side, admits clients by their grants, hands out rings
#[derive(Clone, Debug, Parser)]
#[command(name = "ringfenced", version, after_help = AFTER_HELP)]
pub struct Settings {
    /// Directory of the grants, a file *.toml for each client
    #[arg(long, value_name = "DIR", default_value = "/etc/ringfence/grants.d")]
    pub grants: PathBuf,
    /// Socket to listen on
    #[arg(long, value_name = "PATH", default_value = "/run/ringfence/control")]
    pub socket: PathBuf,
    /// Have what is executed directly in this directory asked about, through fanotify instead of the gate: for
    /// kernels without one. Can be given several times
    #[arg(long, value_name = "DIR")]
    pub ask_directory: Vec<PathBuf>,
    /// Directory where what clients install is kept for the next ringfenced; one in /run is empty again when the
    /// host is started anew
    #[arg(long, value_name = "DIR", default_value = "/run/ringfence/state")]
    pub state: PathBuf,
    /// Directory, in a file system of type bpf, by which rules go on deciding while ringfenced is not running
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf/ringfence")]
    pub pins: PathBuf,
    /// Keep nothing: rules end with this process
    #[arg(long, conflicts_with_all = ["state", "pins"])]
    pub forget: bool,
    /// Program that guards the kernel; it is called as `PROGRAM watch --json --quiet-journal` [default: the
    /// ringfence beside this program]
    #[arg(long, value_name = "PROGRAM")]
    pub guard: Option<PathBuf>,
    /// Run no guard: nobody is told of findings
    #[arg(long, conflicts_with = "guard")]
    pub no_guard: bool,
}

impl Settings {
    /// What is run as the guard, if any is.
    pub fn guard(&self) -> anyhow::Result<Option<PathBuf>> {
        if self.no_guard {
            return Ok(None);
        }
        let beside = || -> anyhow::Result<PathBuf> {
            let own =
                std::env::current_exe().context("looking for the guard beside this program")?;
            Ok(own.with_file_name("ringfence"))
        };
        self.guard.clone().map_or_else(beside, Ok).map(Some)
    }
}

const AFTER_HELP: &str = "\
SIGHUP reads the grants again; SIGTERM and SIGINT end it. Everybody may connect to the socket; who
gets a session is for the grants to say.

Rules go on when this ends, however it does, until the next one takes them over. To be rid of them while
none runs: rm -r /sys/fs/bpf/ringfence /run/ringfence/state";

/// A socket at the path that listens, does not block and is open for all: the grants decide. What a
/// daemon left there that is not running any more is replaced; of one that is running it is said.
pub fn listen(path: &Path) -> anyhow::Result<OwnedFd> {
    let at = || format!("listening at {}", path.display());
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).with_context(at)?;
    }
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|at| at.file_type().is_socket());
    match UnixStream::connect(path) {
        Ok(_) => bail!("another ringfenced listens at {}", path.display()),
        Err(error) if is_socket && error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).with_context(at)?;
        }
        Err(_) => {}
    }
    let listener = UnixListener::bind(path).with_context(at)?;
    listener.set_nonblocking(true).with_context(at)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o666)).with_context(at)?;
    Ok(listener.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_nobody_listens_on_is_replaced_and_one_in_use_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("below/control");
        let first = listen(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
        assert!(listen(&path).unwrap_err().to_string().contains("another ringfenced"));
        drop(first);
        listen(&path).unwrap();
    }

    #[test]
    fn what_is_no_socket_is_not_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control");
        std::fs::write(&path, "precious").unwrap();
        assert!(listen(&path).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }
}
