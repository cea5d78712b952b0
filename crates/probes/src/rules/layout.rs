// SPDX-License-Identifier: Apache-2.0
//! Proof that rules are laid out on both sides alike, and that records are read where they are
//! written.

use std::mem::offset_of;

use rules::abi::{Collection, ConditionCell, Counter, Entry, Event, RuleCell, Set, Type};
use rules::events::EVENTS;
use rules::record::{ACTOR, HEADER, actor, file, header};

use super::lineage::Marking;
use crate::layout::{Layout, c_layout};

macro_rules! same {
    ($rust:ident, $c:literal { $($field:ident),* $(,)? }) => {
        assert_eq!(
            Layout {
                size: size_of::<$rust>(),
                fields: vec![$((stringify!($field).to_owned(), offset_of!($rust, $field))),*],
            },
            c_layout(OBJECT, $c)
        );
    };
}

const OBJECT: &str = "rules_trial";

#[test]
fn compiled_sets_are_laid_out_alike() {
    same!(Set, "rules_set" {
        version, cells, rules, index_at, lists_at, rules_at, counters_at, shards, index_mask,
        index_probes, index_salt, reserved,
    });
    same!(Type, "rules_type" {
        keys, actor_collections, file_collections, lineage, first, deciding, telling, tells, reserved,
        reserved2,
    });
    same!(Entry, "rules_entry" { tag, first, deciding, telling });
    same!(RuleCell, "rules_rule" {
        events, id, conditions_at, conditions, error, action, dry_run, reserved, reserved2,
    });
    same!(ConditionCell, "rules_condition" { kind, flags, count, string_at, values });
    same!(Counter, "rules_counter" { matches, denies });
    same!(Collection, "rules_collection" {
        version, algorithm, buckets, probes, salt, count, reserved,
    });
    same!(Event, "rules_event" { clients, seed });
}

#[test]
fn what_roots_are_marked_with_is_laid_out_alike() {
    let layout = Layout {
        size: size_of::<Marking>(),
        fields: ["pid", "root", "start", "clear", "reserved"]
            .into_iter()
            .map(str::to_owned)
            .zip([
                offset_of!(Marking, pid),
                offset_of!(Marking, root),
                offset_of!(Marking, start),
                offset_of!(Marking, clear),
                offset_of!(Marking, reserved),
            ])
            .collect(),
    };
    assert_eq!(layout, c_layout("rules", "rules_marking"));
}

/// The offset of a field of a structure of api/ringfence.h.
fn at(name: &str, field: &str) -> usize {
    let layout = c_layout(OBJECT, name);
    let found = layout.fields.iter().find(|(known, _)| known == field);
    found.unwrap_or_else(|| panic!("{name} has no {field}")).1
}

#[test]
fn records_are_read_where_they_are_written() {
    let fields = [
        ("ringfence_header", "size", header::SIZE),
        ("ringfence_header", "type", header::TYPE),
        ("ringfence_header", "body", header::BODY),
        ("ringfence_header", "outcome", header::OUTCOME),
        ("ringfence_header", "error", header::ERROR),
        ("ringfence_header", "flags", header::FLAGS),
        ("ringfence_header", "rule", header::RULE),
        ("ringfence_actor", "process", actor::PROCESS),
        ("ringfence_actor", "uid", actor::UID),
        ("ringfence_actor", "gid", actor::GID),
        ("ringfence_actor", "euid", actor::EUID),
        ("ringfence_actor", "egid", actor::EGID),
        ("ringfence_actor", "user_namespace", actor::USER_NAMESPACE),
        ("ringfence_actor", "pid_namespace", actor::PID_NAMESPACE),
        ("ringfence_actor", "mount_namespace", actor::MOUNT_NAMESPACE),
        ("ringfence_actor", "net_namespace", actor::NET_NAMESPACE),
        ("ringfence_actor", "cgroup", actor::CGROUP),
        ("ringfence_actor", "executable", actor::EXECUTABLE),
        ("ringfence_file", "device", file::DEVICE),
        ("ringfence_file", "inode", file::INODE),
        ("ringfence_file", "version", file::VERSION),
        ("ringfence_file", "flags", file::FLAGS),
        ("ringfence_file", "digest_algorithm", file::DIGEST_ALGORITHM),
        ("ringfence_file", "digest", file::DIGEST),
        ("ringfence_file", "path", file::PATH),
    ];
    for (name, field, offset) in fields {
        assert_eq!(at(name, field), offset, "{name}.{field}");
    }
    assert_eq!(c_layout(OBJECT, "ringfence_header").size, HEADER);
    assert_eq!(c_layout(OBJECT, "ringfence_actor").size, ACTOR);
}

#[test]
fn the_parts_of_events_are_read_where_they_are_written() {
    for event in &EVENTS {
        let name = match event.name {
            "thread_create" => "process_fork",
            "kexec_load" | "firmware_load" => "kernel_load",
            other => other,
        };
        let name = format!("ringfence_{name}");
        let layout = c_layout(OBJECT, &name);
        assert_eq!(layout.size, event.size, "{name}");
        let field = |fields: &[&str]| {
            layout.fields.iter().find(|(known, _)| fields.contains(&known.as_str())).map(|f| f.1)
        };
        assert_eq!(event.file, field(&["file", "executable"]), "{name}.file");
        assert_eq!(event.target, field(&["target", "child"]), "{name}.target");
        assert_eq!(event.name_at, field(&["name"]).filter(|_| has_name(event.name)), "{name}.name");
        let bits: &[_] = if event.is_opening() { &["access"] } else { &["protection", "after"] };
        assert_eq!(event.protection, field(bits), "{name}.protection");
        assert_eq!(event.before, field(&["before"]), "{name}.before");
        assert_eq!(event.flags, field(&["flags"]), "{name}.flags");
        if let Some((own, offset)) = event.own {
            assert_eq!(Some(offset), field(&[own.name()]), "{name}.{}", own.name());
        }
    }
}

/// The name that a program is called by is no name to rules, that of a BPF program no string, and what is
/// loaded for kexec and firmware has none but its path.
fn has_name(event: &str) -> bool {
    ["module_load", "module_unload"].contains(&event)
}
