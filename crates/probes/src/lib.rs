// SPDX-License-Identifier: Apache-2.0
//! Everything that touches the live kernel: loads bpf/, reads memory, gathers what the system
//! admits to, and listens to what the kernel says it changes.

mod bench;
mod digests;
mod error;
pub mod events;
mod fanotify;
mod features;
mod gate;
mod host;
mod journal;
mod kcore;
mod kernel_types;
#[cfg(test)]
mod layout;
mod mapping;
mod modules;
mod object;
mod peer;
mod pins;
mod privilege;
mod process_keys;
mod question;
mod reader;
mod registers;
mod rules;
mod skeletons;
mod test_run;
mod views;
mod window;

pub use bench::{PathSpeed, ReaderBench, Speed, bench_readers};
pub use error::ProbeError;
pub use fanotify::{ERRORS, Fanotify, FanotifyError, FanotifyEvent, FanotifyEvents};
pub use features::{Feature, FeatureState, features, kernel_image_path};
pub use gate::{
    Exemptions, FuseError, FuseOperation, FuseRequest, Gate, GateCounters, GateMaps, GateOptions,
    LOOK_AGAIN, gate_support,
};
pub use host::{HostIdentity, Lockdown, identity, live_symbols, live_types, lockdown};
pub use journal::{JournalReader, Record, RecordError, Sample, Taken, parse_record};
pub use kcore::{CoreError, CoreHeader, Kcore, Segment};
pub use modules::ModuleDirectory;
pub use peer::peer_pidfd;
pub use process_keys::{Keys, ProcessKeys};
pub use question::{FileKey, Notice, ProcessKey, Question, QuestionId, Questions, Reply};
pub use reader::{LiveReader, Path};
pub use registers::LiveRegisters;
pub use rules::{ReadyCollection, RuleCount, Rules, RulesError};
pub use views::{LiveViews, TaskRecord};
