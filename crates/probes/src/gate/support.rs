// SPDX-License-Identifier: Apache-2.0
//! Whether this host can have a gate.

use super::connection;
use super::process;
use crate::features;
use crate::kernel_types;

/// What bpf/lib/gate.h calls.
const FUNCTIONS: [&str; 5] = [
    "bpf_get_file_xattr",
    "bpf_get_task_exe_file",
    "bpf_put_file",
    "bpf_task_from_pid",
    "bpf_task_release",
];

/// Whether programs can wait for verdicts here; else why not. Nothing is left behind.
///
/// # Errors
/// The reason, for people.
pub fn gate_support() -> Result<(), String> {
    for name in FUNCTIONS {
        match kernel_types::has_function(name) {
            Ok(true) => {}
            Ok(false) => {
                return Err(format!(
                    "this kernel has no {name}; the gate needs the functions of 6.12 and later \
                     (before it exec and open are asked about through fanotify)"
                ));
            }
            Err(error) => return Err(error.to_string()),
        }
    }
    if !process::in_initial_pid_namespace() {
        return Err(
            "this process is in a pid namespace, in which it does not know threads by the \
                    numbers that the kernel's programs see"
                .into(),
        );
    }
    features::can_attach_lsm().map_err(|error| error.to_string())?;
    connection::try_out().map_err(|error| error.to_string())
}
