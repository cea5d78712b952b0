// SPDX-License-Identifier: Apache-2.0
//! All structures of records, as Rust has them: for tests that compare them with those of C.

use std::mem::offset_of;

use abi::*;

/// A structure as Rust has it.
pub(crate) struct Structure {
    /// Its name in C, without the prefix.
    pub(crate) name: &'static str,
    /// In bytes.
    pub(crate) size: usize,
    /// Name and offset, in order.
    pub(crate) fields: Vec<(&'static str, usize)>,
}

/// Lists the fields of a structure. The pattern names all of them, so that one which is left out here
/// does not compile.
macro_rules! structure {
    ($name:literal, $type:ident { $($field:ident),* }) => {{
        let _all_fields = |$type { $($field: _),* }: $type| ();
        Structure {
            name: $name,
            size: size_of::<$type>(),
            fields: vec![$((stringify!($field).trim_start_matches("r#"), offset_of!($type, $field))),*],
        }
    }};
}

/// Each of them.
pub(crate) fn structures() -> Vec<Structure> {
    vec![
        structure!("string", StringRef { offset, length, flags }),
        structure!("process_key", ProcessKey { pid, reserved, start }),
        structure!(
            "file",
            File {
                device,
                inode,
                version,
                size,
                mode,
                uid,
                gid,
                links,
                flags,
                digest_algorithm,
                digest,
                path
            }
        ),
        structure!(
            "header",
            Header {
                size,
                version,
                r#type,
                body,
                classes,
                outcome,
                error,
                tail,
                flags,
                rule,
                lost,
                global_sequence,
                time,
                event_id,
                deadline,
                boot_id
            }
        ),
        structure!(
            "actor",
            Actor {
                process,
                parent,
                thread,
                uid,
                gid,
                euid,
                egid,
                suid,
                sgid,
                fsuid,
                fsgid,
                login_uid,
                session,
                group,
                effective,
                permitted,
                user_namespace,
                pid_namespace,
                mount_namespace,
                net_namespace,
                cgroup,
                executable,
                comm
            }
        ),
        structure!(
            "process_exec",
            ProcessExec {
                file,
                script,
                name,
                arguments,
                argument_count,
                environment_count,
                flags,
                reserved
            }
        ),
        structure!("process_fork", ProcessFork { child, thread, inner_pid }),
        structure!(
            "process_exit",
            ProcessExit { code, signal, dumped, reserved, lifetime, user_time, system_time }
        ),
        structure!(
            "process_signal",
            ProcessSignal { target, thread, signal, code, reserved, executable }
        ),
        structure!("process_trace", ProcessTrace { target, access, thread, executable }),
        structure!(
            "process_credentials",
            ProcessCredentials {
                uid,
                gid,
                euid,
                egid,
                suid,
                sgid,
                fsuid,
                fsgid,
                effective,
                permitted,
                by,
                reserved
            }
        ),
        structure!("image_map", ImageMap { file, address, length, offset, protection, flags }),
        structure!("module_load", ModuleLoad { file, name, from, reserved }),
        structure!("module_unload", ModuleUnload { name }),
        structure!(
            "bpf_load",
            BpfLoad { program_type, attach_type, attach_btf_id, instructions, name }
        ),
        structure!("kernel_load", KernelLoad { file, name, from, reserved }),
        structure!("memory_map", MemoryMap { address, length, protection, flags, file }),
        structure!("memory_protect", MemoryProtect { address, length, before, after, file }),
        structure!("memory_access", MemoryAccess { target, access, by, executable }),
        structure!("memory_fileless", MemoryFileless { file, how, reserved }),
        structure!("file_open", FileOpen { file, flags, access }),
        structure!("file_modify", FileModify { file, how, flags }),
        structure!("loss", Loss { records, why, reserved, by_type }),
        structure!("deadline_missed", DeadlineMissed { missed_event_id, took, misses, demoted }),
        structure!("stage_changed", StageChanged { event_type, before, after, reserved, reason }),
        structure!("shutting_down", ShuttingDown { why, reserved }),
        structure!(
            "kernel_finding",
            KernelFinding { check, technique, finding, state, reserved, found }
        ),
        structure!("verdict", Verdict { event_id, verdict, error, flags, reserved }),
        structure!("verdict_refused", VerdictRefused { event_id, status, reserved }),
    ]
}
