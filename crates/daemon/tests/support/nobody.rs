// SPDX-License-Identifier: Apache-2.0
//! Parts of tests that run as a user without any privilege.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use super::{CLIENT, Client, grant};

/// The user id of nobody.
pub(crate) const NOBODY: u32 = 65_534;

/// Where a part of a test finds the daemon.
const SOCKET: &str = "RINGFENCE_TEST_SOCKET";

/// As [`grant`] has it for [`CLIENT`], for this executable as nobody.
pub(crate) fn grant_for_nobody() -> String {
    let own = rustix::process::geteuid().as_raw();
    grant(CLIENT, 1000).replace(&format!("uid = {own}"), &format!("uid = {NOBODY}"))
}

/// Lets nobody reach what is in a directory.
pub(crate) fn open_for_all(directory: &Path) {
    std::fs::set_permissions(directory, PermissionsExt::from_mode(0o755)).unwrap();
}

/// Runs the test of this name, which is a part of the one that runs, as nobody; gives what it said.
pub(crate) fn as_nobody(part: &str, socket: &Path) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", part, "--ignored", "--nocapture"])
        .env(SOCKET, socket)
        .current_dir("/")
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("1 passed"), "{said}");
    said
}

/// In such a part: a session of [`CLIENT`], and its ring. None where somebody runs the part by itself.
pub(crate) fn session_of_part() -> Option<(Client, sdk::Ring)> {
    let socket: OsString = std::env::var_os(SOCKET)?;
    let mut client = Client::connect(Path::new(&socket));
    let reply = client.open(CLIENT);
    assert!(reply.get("error").is_none(), "{reply}");
    let ring = sdk::Ring::new(client.descriptors.remove(0)).unwrap();
    Some((client, ring))
}
