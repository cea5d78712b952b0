// SPDX-License-Identifier: Apache-2.0
//! The gate's side in the kernel: the maps that bpf/lib/gate.h declares, shared by all programs that
//! ask.

use std::path::Path;
use std::time::Duration;

use libbpf_rs::{MapCore, MapFlags, MapHandle};

use super::abi::{GateAnswer, GateAnswerKey, GateFile, GateQuestion, GateSettings, Plain, TYPES};
use crate::error::ProbeError;
use crate::object;
use crate::privilege;
use crate::question::FileKey;

const WHAT: &str = "the maps of the gate";

/// Their names.
const NAMES: [&str; 6] =
    ["gate_settings", "gate_pending", EXEMPT, MARKS, "gate_cache", "gate_counters"];
pub(super) const EXEMPT: &str = "gate_exempt";
pub(super) const MARKS: &str = "gate_marks";

/// How the gate's questions came out since its maps were made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GateCounters {
    /// Nobody was asked: all who would have been are exempt of it,
    pub exempt: u64,
    /// or their answers were known.
    pub cached: u64,
    /// Allowed by an answer.
    pub allowed: u64,
    /// Denied by an answer.
    pub denied: u64,
    /// The thread was killed meanwhile.
    pub killed: u64,
    /// No answer: the kernel lacks the functions.
    pub no_function: u64,
    /// No answer: there was no anchor.
    pub no_anchor: u64,
    /// No answer: too many threads waited.
    pub no_room: u64,
    /// No answer: the connection was aborted or closed.
    pub aborted: u64,
    /// No answer: this side gave none, or a security module forbade to ask.
    pub refused: u64,
    /// No answer: what came was none, or another question's.
    pub wrong_reply: u64,
    /// How many without an answer were allowed,
    pub fell_back_allowed: u64,
    /// and denied.
    pub fell_back_denied: u64,
    /// How long threads waited, all together.
    pub waited: Duration,
}

/// The maps.
#[derive(Debug)]
pub struct GateMaps {
    settings: MapHandle,
    pending: MapHandle,
    exempt: MapHandle,
    marks: MapHandle,
    cache: MapHandle,
    counters: MapHandle,
}

impl GateMaps {
    /// Picks them, by name, out of the maps of an object. Where several objects ask they must share
    /// them (`reuse_fd` before loading).
    ///
    /// # Errors
    /// When one is missing.
    pub fn among(maps: impl IntoIterator<Item = MapHandle>) -> Result<Self, ProbeError> {
        let mut found: [Option<MapHandle>; 6] = Default::default();
        for map in maps {
            let place = NAMES.iter().position(|name| map.name() == *name);
            if let Some(slot) = place.and_then(|place| found.get_mut(place)) {
                *slot = Some(map);
            }
        }
        let [Some(settings), Some(pending), Some(exempt), Some(marks), Some(cache), Some(counters)] =
            found
        else {
            let reason = format!("not all of {} are there", NAMES.join(", "));
            return Err(ProbeError::Failed { what: WHAT, reason });
        };
        Ok(Self { settings, pending, exempt, marks, cache, counters })
    }

    /// Those that were pinned in a directory under their names.
    ///
    /// # Errors
    /// When one is not.
    pub fn pinned(directory: &Path) -> Result<Self, ProbeError> {
        let open = |name: &&str| MapHandle::from_pinned_path(directory.join(name));
        let maps = object::with_libbpf(WHAT, || NAMES.iter().map(open).collect())?;
        let maps: Vec<MapHandle> = maps;
        Self::among(maps)
    }

    /// Pins them in a directory of a BPF file system, under their names.
    ///
    /// # Errors
    /// When the kernel does not.
    pub fn pin(&mut self, directory: &Path) -> Result<(), ProbeError> {
        let maps = [
            &mut self.settings,
            &mut self.pending,
            &mut self.exempt,
            &mut self.marks,
            &mut self.cache,
            &mut self.counters,
        ];
        object::with_libbpf(WHAT, || {
            NAMES.iter().zip(maps).try_for_each(|(name, map)| map.pin(directory.join(name)))
        })
    }

    /// Those that [`Exemptions`](super::Exemptions) go by.
    pub(super) fn exempt(&self) -> [(&'static str, &MapHandle); 2] {
        [(EXEMPT, &self.exempt), (MARKS, &self.marks)]
    }

    /// The clients, a set of slots, that want events of this type denied where no answer comes.
    ///
    /// # Errors
    /// When there is no such type.
    pub fn deny_unanswered(&self, kind: u32, clients: u64) -> Result<(), ProbeError> {
        let mut settings = self.settings()?;
        let entry = settings.deny_unanswered.get_mut(kind as usize);
        *entry.ok_or_else(|| no_type(kind))? = clients;
        self.set_settings(&settings)
    }

    /// These clients allow this, and as long as the file stays as it is they are not asked again.
    /// Gives false if it was not taken down, because the file has only just changed, and a further
    /// change may not show in its version.
    ///
    /// Whether a file system keeps times of change at all is for the caller to know: on FUSE and on
    /// network file systems contents change without them.
    ///
    /// # Errors
    /// When the kernel does not take it.
    pub fn allow(&self, kind: u32, file: FileKey, clients: u64) -> Result<bool, ProbeError> {
        if !file.holds() {
            return Ok(false);
        }
        let allowed = self.known(kind, file)? | clients;
        set(&self.cache, answer_key(kind, file).bytes(), GateAnswer { allowed }.bytes())?;
        Ok(true)
    }

    /// These clients do not allow this any more, if they did.
    ///
    /// # Errors
    /// When the kernel does not take it.
    pub fn forget(&self, kind: u32, file: FileKey, clients: u64) -> Result<(), ProbeError> {
        self.take_from(answer_key(kind, file).bytes(), clients)
    }

    /// Takes clients from those that allow what this key is of.
    fn take_from(&self, key: &[u8], clients: u64) -> Result<(), ProbeError> {
        // It may have made room for another meanwhile.
        let known = get(&self.cache, key)?.as_deref().and_then(GateAnswer::parse);
        match known.map(|known| (known.allowed, known.allowed & !clients)) {
            Some((before, allowed)) if before == allowed => Ok(()),
            Some((_, 0)) => remove(&self.cache, key),
            Some((_, allowed)) => set(&self.cache, key, GateAnswer { allowed }.bytes()),
            None => Ok(()),
        }
    }

    /// The clients that are known to allow this.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn known(&self, kind: u32, file: FileKey) -> Result<u64, ProbeError> {
        let known = get(&self.cache, answer_key(kind, file).bytes())?;
        Ok(known.as_deref().and_then(GateAnswer::parse).map_or(0, |known| known.allowed))
    }

    /// What these clients allowed is forgotten, of all files: of one that wants it so, or of a slot
    /// that is another's now. Goes through the whole cache, up to 65,536 entries.
    ///
    /// # Errors
    /// When the kernel does not take it.
    pub fn forget_clients(&self, clients: u64) -> Result<(), ProbeError> {
        // Listed first: what is changed while it is walked starts anew.
        let keys: Vec<Vec<u8>> = self.cache.keys().collect();
        keys.iter().try_for_each(|key| self.take_from(key, clients))
    }

    /// How questions came out.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn counters(&self) -> Result<GateCounters, ProbeError> {
        let mut all = [0_u64; 14];
        for (index, sum) in (0_u32..).zip(&mut all) {
            let index = index.to_ne_bytes();
            let counts = self.counters.lookup_percpu(&index, MapFlags::ANY);
            let counts = counts.map_err(|error| failed(&error))?.unwrap_or_default();
            let counts = counts.iter().filter_map(|count| count.first_chunk::<8>().copied());
            *sum = counts.map(u64::from_ne_bytes).sum();
        }
        let [exempt, cached, allowed, denied, killed, rest @ ..] = all;
        let [no_function, no_anchor, no_room, aborted, refused, wrong_reply, rest @ ..] = rest;
        let [fell_back_allowed, fell_back_denied, waited] = rest;
        Ok(GateCounters {
            exempt,
            cached,
            allowed,
            denied,
            killed,
            no_function,
            no_anchor,
            no_room,
            aborted,
            refused,
            wrong_reply,
            fell_back_allowed,
            fell_back_denied,
            waited: Duration::from_nanos(waited),
        })
    }

    /// What a thread asks.
    pub(super) fn question(&self, thread: u32) -> Result<Option<GateQuestion>, ProbeError> {
        let entry = get(&self.pending, &thread.to_ne_bytes())?;
        Ok(entry.as_deref().and_then(GateQuestion::parse))
    }

    /// There is an anchor. Its number is written last: programs may read in between, and compare the
    /// file.
    pub(super) fn arm(&self, anchor: u32, device: u64, inode: u64) -> Result<(), ProbeError> {
        self.disarm()?;
        let mut settings = GateSettings { device, inode, ..self.settings()? };
        self.set_settings(&settings)?;
        settings.anchor = anchor;
        self.set_settings(&settings)
    }

    /// There is no anchor: nobody is asked, and what was declared for that case holds.
    pub(super) fn disarm(&self) -> Result<(), ProbeError> {
        let settings = self.settings()?;
        self.set_settings(&GateSettings { anchor: 0, ..settings })
    }

    fn settings(&self) -> Result<GateSettings, ProbeError> {
        let bytes = get(&self.settings, &0_u32.to_ne_bytes())?;
        bytes.as_deref().and_then(GateSettings::parse).ok_or_else(|| ProbeError::Malformed {
            what: "gate_settings".into(),
            reason: "it is of another version of this program".into(),
        })
    }

    fn set_settings(&self, settings: &GateSettings) -> Result<(), ProbeError> {
        set(&self.settings, &0_u32.to_ne_bytes(), settings.bytes())
    }
}

fn no_type(kind: u32) -> ProbeError {
    let reason = format!("{kind} is no type of event; all are below {TYPES}");
    ProbeError::Failed { what: "declaring what holds without an answer", reason }
}

fn answer_key(kind: u32, file: FileKey) -> GateAnswerKey {
    let FileKey { device, inode, version } = file;
    GateAnswerKey { file: GateFile { device, inode, version }, r#type: kind, reserved: 0 }
}

pub(super) fn get(map: &MapHandle, key: &[u8]) -> Result<Option<Vec<u8>>, ProbeError> {
    map.lookup(key, MapFlags::ANY).map_err(|error| failed(&error))
}

pub(super) fn set(map: &MapHandle, key: &[u8], value: &[u8]) -> Result<(), ProbeError> {
    map.update(key, value, MapFlags::ANY).map_err(|error| failed(&error))
}

pub(super) fn remove(map: &MapHandle, key: &[u8]) -> Result<(), ProbeError> {
    match map.delete(key) {
        Err(error) if error.kind() == libbpf_rs::ErrorKind::NotFound => Ok(()),
        other => other.map_err(|error| failed(&error)),
    }
}

/// libbpf has nothing to say about maps beyond the error.
fn failed(error: &libbpf_rs::Error) -> ProbeError {
    ProbeError::refused(WHAT, &privilege::BPF, &object::system_error(error), "")
}
