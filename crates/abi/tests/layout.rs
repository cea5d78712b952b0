// SPDX-License-Identifier: Apache-2.0
//! What Rust says of the records is what `api/ringfence.h` says: clang compiles the header for the
//! kernel's machine, and its types (BTF) and its constants are compared one by one. None may be
//! missing on either side.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::collections::BTreeMap;
use std::mem::offset_of;
use std::path::{Path, PathBuf};
use std::process::Command;

use abi::*;
use kernel_image::btf::{Btf, Kind, TypeId};
use object::{Object, ObjectSection};

/// A structure as Rust has it.
struct Structure {
    /// Its name in C, without the prefix.
    name: &'static str,
    size: usize,
    /// Name and offset, in order.
    fields: Vec<(&'static str, usize)>,
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

fn structures() -> Vec<Structure> {
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

fn header_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../api/ringfence.h")
}

/// Words that follow a prefix at the start of lines, with what follows them.
fn words_after<'a>(text: &'a str, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
    text.lines().filter_map(move |line| {
        let rest = line.strip_prefix(prefix)?;
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        Some(rest.split_at(end))
    })
}

/// Each constant of the header, but for the one that guards against including it twice.
fn constants_of_c(header: &str) -> Vec<&str> {
    words_after(header, "#define RINGFENCE_")
        .filter(|(name, value)| *name != "H" && !value.trim().is_empty())
        .map(|(name, _)| name)
        .collect()
}

/// The header, compiled: its structures as variables, its constants as one enumeration.
fn compiled() -> Btf {
    let header = std::fs::read_to_string(header_file()).unwrap();
    let mut source = "typedef unsigned char __u8; typedef unsigned short __u16;\n\
         typedef unsigned int __u32; typedef unsigned long long __u64; typedef int __s32;\n\
         #define RINGFENCE_KERNEL_TYPES_H\n#include \"ringfence.h\"\n"
        .to_owned();
    let structures: Vec<_> =
        words_after(&header, "struct ringfence_").filter(|(_, rest)| *rest == " {").collect();
    assert!(structures.len() > 20, "{structures:?}");
    for (name, _) in structures {
        source.push_str(&format!("struct ringfence_{name} variable_{name};\n"));
    }
    let constants = constants_of_c(&header);
    assert!(constants.len() > 80, "{constants:?}");
    source.push_str("enum constants {\n");
    for name in constants {
        source.push_str(&format!("VALUE_{name} = RINGFENCE_{name},\n"));
    }
    source.push_str("} variable_constants;\n");

    let directory = tempfile::tempdir().unwrap();
    let (c, o) = (directory.path().join("layout.c"), directory.path().join("layout.o"));
    std::fs::write(&c, source).unwrap();
    let built = Command::new("clang")
        .args(["-target", "bpf", "-g", "-O1", "-Wall", "-Werror", "-c"])
        .arg("-I")
        .arg(header_file().parent().unwrap())
        .arg(&c)
        .arg("-o")
        .arg(&o)
        .output()
        .expect("clang, which building needs as well (tools/install-dependencies)");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let bytes = std::fs::read(&o).unwrap();
    let object = object::File::parse(&*bytes).unwrap();
    Btf::parse(object.section_by_name(".BTF").unwrap().data().unwrap()).unwrap()
}

#[test]
fn every_structure_of_the_header_has_the_same_fields_at_the_same_places_in_rust() {
    let btf = compiled();
    let mut in_c: BTreeMap<String, _> = (1..=btf.len() as u32)
        .map(TypeId)
        .filter(|id| btf.kind(*id) == Some(Kind::Struct))
        .filter_map(|id| Some((btf.name(id).strip_prefix("ringfence_")?.to_owned(), id)))
        .collect();
    for Structure { name, size, fields } in structures() {
        let id = in_c.remove(name).unwrap_or_else(|| panic!("C has no struct ringfence_{name}"));
        let members: Vec<_> =
            btf.members(id).map(|m| (m.name, (m.bit_offset / 8) as usize)).collect();
        assert_eq!(fields, members, "{name}");
        assert_eq!(btf.size(id), Some(size as u64), "{name}");
    }
    assert!(in_c.is_empty(), "Rust has not: {:?}", in_c.keys());
}

#[test]
fn every_constant_of_the_header_has_the_same_value_in_rust() {
    let btf = compiled();
    let id = btf.find_enum("constants").unwrap();
    let in_c: BTreeMap<String, i64> = btf
        .enumerators(id)
        .map(|e| (e.name.strip_prefix("VALUE_").unwrap().to_owned(), e.value))
        .collect();
    let in_rust: BTreeMap<String, i64> =
        words_after(include_str!("../src/constants.rs"), "pub const ")
            .map(|(name, rest)| {
                let value =
                    rest.split_once(" = ").unwrap().1.trim_end_matches(';').replace('_', "");
                let number = match value.strip_prefix("0x") {
                    Some(digits) => i64::from_str_radix(digits, 16),
                    None => value.parse(),
                };
                (name.to_owned(), number.unwrap_or_else(|_| panic!("{name} is no plain number")))
            })
            .collect();
    assert_eq!(in_c, in_rust);
}

#[test]
fn every_type_of_event_is_named_as_its_constant() {
    let in_c: BTreeMap<_, _> = constants_of_rust_types().collect();
    let named: BTreeMap<_, _> =
        EventType::ALL.iter().map(|e| (e.name().to_uppercase(), e.number())).collect();
    assert_eq!(in_c, named);
}

/// The constants that stand under the heading of the types of events in the header.
fn constants_of_rust_types() -> impl Iterator<Item = (String, u16)> {
    let header = std::fs::read_to_string(header_file()).unwrap();
    let (_, types) = header.split_once("/* --- types of events").unwrap();
    let (types, _) = types.split_once("#define RINGFENCE_TYPES").unwrap();
    let types: Vec<_> = words_after(types, "#define RINGFENCE_")
        .map(|(name, value)| (name.to_owned(), value.trim().parse().unwrap()))
        .collect();
    types.into_iter()
}
