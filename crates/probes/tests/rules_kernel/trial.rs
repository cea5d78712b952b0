// SPDX-License-Identifier: Apache-2.0
//! Has the kernel decide about a record: bpf/rules_trial.bpf.c, called directly.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use libbpf_rs::btf::types::{MemberAttr, Struct};
use libbpf_rs::{Btf, MapCore, MapFlags, MapHandle, Object, ObjectBuilder, ProgramInput};
use probes::Rules;
use rules::Outcome;
use rules::model::ProcessKey;
use rules::record::RECORD_MAX;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `struct trial_call` of the object.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Call {
    times: u32,
    error: u32,
    pid: u32,
    reserved: u32,
    start: u64,
    parent_pid: u32,
    reserved2: u32,
    parent_start: u64,
}

/// `struct rules_outcome`.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct OutcomeInKernel {
    error: u32,
    client: u32,
    rule: u32,
    reserved: u32,
    told: u64,
    denied: u64,
    allowed: u64,
    rules: [u32; 64],
}

/// Where in the value of the buffer things are, by the BTF of the object.
#[derive(Clone, Copy, Debug)]
struct Places {
    lineage: usize,
    observed: usize,
    outcome: usize,
    record: usize,
}

/// What the kernel said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) outcome: Outcome,
    /// `header.rule` for each client.
    pub(crate) rules: [u32; 64],
    /// `header.outcome` and `header.error`.
    pub(crate) header: (u8, u16),
}

pub(crate) struct Trial {
    object: Object,
    buffers: MapHandle,
    places: Places,
    value: Vec<u8>,
}

/// What earlier tests loaded and have done with.
static LOADED: Mutex<Vec<(Rules, Trial)>> = Mutex::new(Vec::new());

/// Rules of which none is installed, and what tries them. To look through the programs takes the kernel seconds
/// on an emulated processor, so the next test has those of an earlier one.
pub(crate) fn loaded() -> (Rules, Trial) {
    let loaded = LOADED.lock().unwrap().pop();
    loaded.unwrap_or_else(|| {
        let rules = Rules::load().unwrap();
        let trial = Trial::load(&rules);
        (rules, trial)
    })
}

/// For the next test. Of one that fails nobody knows what it has left, and it does not come here.
pub(crate) fn done_with(mut rules: Rules, trial: Trial) {
    for slot in 0..64 {
        // Most have none.
        let _ = rules.remove(slot);
    }
    LOADED.lock().unwrap().push((rules, trial));
}

/// In the binary, because it also runs in guests, where no such file is.
const OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/rules_trial.bpf.o"));

fn offset(btf: &Btf<'_>, name: &str, field: &str) -> usize {
    let found = btf.type_by_name::<Struct<'_>>(name).unwrap();
    let member = found.iter().find(|member| member.name.is_some_and(|name| name == field));
    let MemberAttr::Normal { offset } = member.unwrap().attr else { panic!("a bit field") };
    offset as usize / 8
}

fn places() -> Places {
    let path = std::env::temp_dir().join(format!("rules_trial.{}.o", std::process::id()));
    std::fs::write(&path, OBJECT).unwrap();
    let btf = Btf::from_path(&path).unwrap();
    let places = Places {
        lineage: offset(&btf, "rules_work", "lineage"),
        observed: offset(&btf, "rules_work", "observed"),
        outcome: offset(&btf, "rules_work", "outcome"),
        record: offset(&btf, "trial_buffer", "record"),
    };
    let _ = std::fs::remove_file(path);
    places
}

impl Trial {
    pub(crate) fn load(rules: &Rules) -> Self {
        let mut open = ObjectBuilder::default().open_memory(OBJECT).unwrap();
        rules.share(&mut open).unwrap();
        let object = open.load().unwrap();
        let map = object.maps().find(|map| map.name() == "trial_buffers").unwrap();
        let buffers = MapHandle::try_from(&map).unwrap();
        let value = vec![0xa5; buffers.value_size() as usize];
        Self { object, buffers, places: places(), value }
    }

    fn call(&self, name: &str, times: u32) -> (Call, Duration) {
        let program = self.object.progs_mut().find(|program| program.name() == name).unwrap();
        let mut call = Call { times, ..Call::default() };
        let input =
            ProgramInput { context_in: Some(call.as_mut_bytes()), ..ProgramInput::default() };
        let begun = Instant::now();
        let output = program.test_run(input).unwrap();
        let took = begun.elapsed();
        assert_eq!(output.return_value, 0);
        (call, took)
    }

    /// Writes what is to be decided into the buffer. The rest of it keeps what was there before.
    pub(crate) fn put(&mut self, record: &[u8], lineage: u64, observed: bool) {
        assert!(record.len() <= RECORD_MAX);
        let Places { lineage: at, observed: observed_at, record: record_at, .. } = self.places;
        self.value[at..at + 8].copy_from_slice(&lineage.to_ne_bytes());
        self.value[observed_at..observed_at + 4]
            .copy_from_slice(&u32::from(observed).to_ne_bytes());
        self.value[record_at..record_at + record.len()].copy_from_slice(record);
        self.buffers.update(&0u32.to_ne_bytes(), &self.value, MapFlags::ANY).unwrap();
    }

    /// Decides about what was put.
    pub(crate) fn decide(&mut self) -> Said {
        let (call, _) = self.call("rules_trial", 1);
        self.value = self.buffers.lookup(&0u32.to_ne_bytes(), MapFlags::ANY).unwrap().unwrap();
        let bytes = &self.value[self.places.outcome..];
        let (seen, _) = OutcomeInKernel::read_from_prefix(bytes).unwrap();
        assert_eq!(call.error, seen.error);
        let record = &self.value[self.places.record..];
        let flagged = seen.told | seen.denied | seen.allowed;
        let mut rules = seen.rules;
        for (slot, rule) in rules.iter_mut().enumerate() {
            *rule *= u32::from(flagged >> slot & 1 == 1);
        }
        Said {
            outcome: Outcome {
                error: seen.error as u16,
                client: seen.client,
                rule: seen.rule,
                told: seen.told,
                denied: seen.denied,
                allowed: seen.allowed,
            },
            rules,
            header: (record[11], u16::from_le_bytes([record[12], record[13]])),
        }
    }

    /// How long a decision about what was put takes, in nanoseconds.
    pub(crate) fn time(&self) -> f64 {
        let times = 200_000;
        let runs = (0..5).map(|_| self.call("rules_trial", times).1.as_secs_f64());
        runs.fold(f64::MAX, f64::min) / f64::from(times) * 1e9
    }

    /// What the calling task descends from, and which process it is of, and of which parent.
    pub(crate) fn descent(&self) -> (u64, ProcessKey, ProcessKey) {
        let (call, _) = self.call("rules_descent_trial", 0);
        let value = self.buffers.lookup(&0u32.to_ne_bytes(), MapFlags::ANY).unwrap().unwrap();
        let at = self.places.lineage;
        let lineage = u64::from_ne_bytes(value[at..at + 8].try_into().unwrap());
        (
            lineage,
            ProcessKey { pid: call.pid, start: call.start },
            ProcessKey { pid: call.parent_pid, start: call.parent_start },
        )
    }
}
