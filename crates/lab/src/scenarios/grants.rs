// SPDX-License-Identifier: Apache-2.0
//! A guest that admits products: the user nobody, and their grants.

use crate::vm::Vm;

/// That of `ringfence events`, for one type of events and run by this user.
pub(super) fn of_events(user: &str, event: &str) -> String {
    format!(
        "client = \"io.ringfence.events\"\naltitude = \"1001\"\n[identity]\n\
         executable = \"/usr/bin/ringfence\"\nuser = \"{user}\"\n[events.{event}]\n\
         classes = [\"notify\"]\n"
    )
}

/// Makes the guest know root and nobody, and puts each grant, a name and its text, where the daemon reads
/// it.
pub(super) fn install<N: AsRef<str>, T: AsRef<str>>(
    vm: &Vm,
    grants: impl IntoIterator<Item = (N, T)>,
) -> anyhow::Result<()> {
    vm.shell(
        "mkdir -p /etc/ringfence/grants.d && echo 'root:x:0:0::/:/usr/bin/sh' >/etc/passwd && \
         echo 'nobody:x:65534:65534::/:/usr/bin/sh' >>/etc/passwd",
    )?;
    for (name, text) in grants {
        let path = format!("/etc/ringfence/grants.d/{}.toml", name.as_ref());
        vm.put(&path, 0o644, text.as_ref().as_bytes())?;
    }
    Ok(())
}
