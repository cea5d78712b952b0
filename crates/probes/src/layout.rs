// SPDX-License-Identifier: Apache-2.0
//! Proof that the Rust side of bpf/lib/*.h is laid out as the C side is.
//!
//! The compiler of the C side wrote down its layouts as BTF in each object; nothing here is kept
//! equal by hand and hope.

use std::mem::offset_of;
use std::path::PathBuf;

use libbpf_rs::btf::types::{MemberAttr, Struct};
use libbpf_rs::{Btf, HasSize, ObjectBuilder};

use crate::events::shared::{
    Asked, ClientCounters, ClientState, ExecutableKey, MissedCall, PrefixKey, ProcessKey,
    Subscribers, WriteCall, WriteContext,
};
use crate::gate::abi::{
    GateAnswer, GateAnswerKey, GateExemption, GateFile, GateMark, GateMarking, GateProcess,
    GateQuestion, GateReply, GateSettings, TYPES,
};
use crate::journal::modules::ModuleRecord;
use crate::process_keys::Keys;
use crate::views::records::{BpfRecord, CallerRecord, TaskRecord};
use crate::window::{Call, REQUESTS, Request, WINDOW};

/// A structure as one side has it: its size, and the offset of each field in order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) size: usize,
    pub(crate) fields: Vec<(String, usize)>,
}

macro_rules! rust_layout {
    ($name:ident { $($field:ident),* }) => {
        Layout {
            size: size_of::<$name>(),
            fields: vec![$((stringify!($field).to_owned(), offset_of!($name, $field))),*],
        }
    };
}

impl Layout {
    /// A field that is called as a word of Rust is written `r#type` there.
    fn without_raw_names(mut self) -> Self {
        for (name, _) in &mut self.fields {
            *name = name.trim_start_matches("r#").to_owned();
        }
        self
    }
}

fn object(area: &str) -> PathBuf {
    PathBuf::from(env!("OUT_DIR")).join(format!("{area}.bpf.o"))
}

pub(crate) fn c_layout(area: &str, name: &str) -> Layout {
    let btf = Btf::from_path(object(area)).unwrap();
    let found = btf.type_by_name::<Struct<'_>>(name).unwrap();
    let fields = found.iter().map(|member| {
        let MemberAttr::Normal { offset } = member.attr else { panic!("{name} has a bit field") };
        (member.name.unwrap().to_string_lossy().into_owned(), offset as usize / 8)
    });
    Layout { size: found.size(), fields: fields.collect() }
}

#[test]
fn the_requests_of_the_reader_are_laid_out_alike() {
    assert_eq!(
        rust_layout!(Request { address, position, length, status }),
        c_layout("kernel_reader", "reader_request")
    );
    assert_eq!(rust_layout!(Call { count, reserved }), c_layout("kernel_reader", "reader_call"));
}

#[test]
fn the_keys_of_processes_are_laid_out_alike() {
    assert_eq!(
        rust_layout!(Keys { start, parent_start, pid, parent_pid }),
        c_layout("process_keys", "process_keys")
    );
}

#[test]
fn the_records_of_the_views_are_laid_out_alike() {
    assert_eq!(
        rust_layout!(TaskRecord { address, tgid, tid, own_tgid, own_tid, comm }),
        c_layout("views", "task_record")
    );
    assert_eq!(rust_layout!(BpfRecord { id, kind, name }), c_layout("views", "bpf_record"));
    assert_eq!(rust_layout!(CallerRecord { task }), c_layout("views", "caller_record"));
}

#[test]
fn the_records_of_modules_are_laid_out_alike() {
    assert_eq!(
        rust_layout!(ModuleRecord { time, address, tgid, tid, loaded, reserved, comm, name }),
        c_layout("module_events", "module_record")
    );
}

#[test]
fn what_events_share_is_laid_out_alike() {
    let c = |name| c_layout("clients", name);
    assert_eq!(rust_layout!(Subscribers { notify, ask }), c("subscribers"));
    assert_eq!(rust_layout!(Asked { time, deny_full }), c("asked"));
    let state = rust_layout!(ClientState {
        sequence,
        pending,
        armed,
        mute_process,
        mute_executable,
        mute_cgroup,
        mute_path,
        inverted,
        boot_id,
        initial_mounts,
        buffers,
        wake_always,
        reserved,
        checked,
        verity_table,
        watching
    });
    assert_eq!(state, c("client_state"));
    let counters =
        rust_layout!(ClientCounters { written, lost, told, telling, woken, lost_by, told_by });
    assert_eq!(counters, c("client_counters"));
    assert_eq!(rust_layout!(ProcessKey { pid, reserved, start }), c("ringfence_process_key"));
    assert_eq!(rust_layout!(ExecutableKey { device, inode }), c("executable_key"));
    assert_eq!(rust_layout!(PrefixKey { length, path }), c("prefix_key"));
    assert_eq!(rust_layout!(WriteCall { slot, wake, length, reserved }), c("write_call"));
    assert_eq!(rust_layout!(WriteContext { call, record }), c("write_context"));
    let missed = rust_layout!(MissedCall { clients, r#type, count });
    assert_eq!(missed.without_raw_names(), c("missed_call"));
}

#[test]
fn what_the_gate_and_its_programs_say_to_each_other_is_laid_out_alike() {
    let c = |name: &str| c_layout("gate_trial", name);
    assert_eq!(rust_layout!(GateProcess { pid, reserved, start }), c("gate_process"));
    assert_eq!(rust_layout!(GateExemption { own, descendants, everybody }), c("gate_exemption"));
    assert_eq!(rust_layout!(GateMark { clients, everybody }), c("gate_mark"));
    let marking = rust_layout!(GateMarking { gone, process, mark, failed });
    assert_eq!(marking, c_layout("exemptions", "gate_marking"));
    assert_eq!(rust_layout!(GateFile { device, inode, version }), c("gate_file"));
    assert_eq!(rust_layout!(GateReply { event_id, verdict, error, reserved }), c("gate_reply"));
    let question = rust_layout!(GateQuestion {
        event_id,
        askers,
        time,
        pid,
        thread,
        start,
        file,
        r#type,
        reserved,
        reply
    });
    assert_eq!(question.without_raw_names(), c("gate_question"));
    let key = rust_layout!(GateAnswerKey { file, r#type, reserved });
    assert_eq!(key.without_raw_names(), c("gate_answer_key"));
    assert_eq!(rust_layout!(GateAnswer { allowed }), c("gate_answer"));
    let settings = rust_layout!(GateSettings { anchor, reserved, device, inode, deny_unanswered });
    assert_eq!(settings, c("gate_settings"));
    assert_eq!(settings.size, 24 + 8 * TYPES);
}

/// Or libbpf takes the functions that have it as an argument for missing, and says nothing.
#[test]
fn each_object_that_asks_knows_more_of_a_file_than_its_name() {
    for object in ["gate_trial", "verdicts"] {
        assert!(c_layout(object, "file").size > 0, "{object}");
    }
}

#[test]
fn a_field_that_moved_or_changed_its_name_is_noticed() {
    #[repr(C)]
    struct Moved {
        position: u32,
        address: u64,
        length: u16,
        status: u16,
    }
    #[repr(C)]
    struct Renamed {
        address: u64,
        offset: u32,
        length: u16,
        status: u16,
    }
    let c = c_layout("kernel_reader", "reader_request");
    assert_ne!(rust_layout!(Moved { position, address, length, status }), c);
    assert_ne!(rust_layout!(Renamed { address, offset, length, status }), c);
}

#[test]
fn the_arrays_of_the_reader_are_as_long_as_this_side_maps_them() {
    let object = ObjectBuilder::default().open_file(object("kernel_reader")).unwrap();
    let size = |name: &str| {
        let map = object.maps().find(|map| map.name() == name).unwrap();
        (map.value_size() as usize, map.max_entries() as usize)
    };
    assert_eq!(size("requests"), (size_of::<Request>(), REQUESTS));
    assert_eq!(size("window"), (WINDOW, 1));
}
