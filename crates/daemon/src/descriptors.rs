// SPDX-License-Identifier: Apache-2.0
//! How many descriptors this process may have.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::log;

/// As many as the system allows: each client has some, and each task that waits through fanotify two. What
/// most systems give at first, 1,024, is for programs that use select.
pub fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    let all = Rlimit { current: limit.maximum, ..limit };
    if let Err(error) = setrlimit(Resource::Nofile, all) {
        log::note(&format_args!("the limit of descriptors stays as it is: {error}"));
    }
}
