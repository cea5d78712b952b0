// SPDX-License-Identifier: Apache-2.0
//! Each branch on a static key, against the state of its key.
//!
//! A jump label may be a no-op or a jump, so the check of the text accepts both. Which of them it
//! must be follows from its key: `enabled` xor the branch bit of its entry. Flipping one by hand
//! switches a feature of the kernel on or off (auditing, tracing, a hardening) without a trace in
//! any interface.

use std::time::Instant;

use kernel_memory::{Kernel, KernelMemory};

use crate::batch::Places;
use crate::check::{About, Check, Missing, Outcome, System};
use crate::code;
use crate::confirm::changes_jump_labels;
use crate::evidence;
use crate::finding::Finding;
use crate::keys::Keys;
use crate::patience::Patience;
use crate::sites::jump_label::{JumpLabel, decode_site};
use crate::sites::{Encoding, INT3, State};

use super::settle::{Settled, settle};

/// The check.
#[derive(Debug, Default)]
pub struct JumpLabels {
    plan: Plan,
    patience: Patience,
}

/// What is read in each pass, and where it goes.
#[derive(Debug, Default)]
struct Plan {
    /// The entries in order of address, each with the index of its key.
    entries: Vec<(JumpLabel, u32)>,
    sites: Places,
    keys: Keys<4>,
}

impl Plan {
    fn of(kernel: &Kernel<'_>, entries: &[JumpLabel]) -> Result<Self, Missing> {
        let enabled = kernel.offset_of("static_key", "enabled")?;
        let keys = Keys::of(entries.iter().map(|entry| entry.key), enabled);
        let index = |entry: &JumpLabel| keys.index_of(entry.key).unwrap_or(usize::MAX) as u32;
        let mut entries: Vec<(JumpLabel, u32)> =
            entries.iter().map(|entry| (*entry, index(entry))).collect();
        entries.sort_by_key(|(entry, _)| entry.code);
        let sites = Places::of(entries.iter().map(|(entry, _)| (entry.code, entry.length.into())));
        Ok(Self { entries, sites, keys })
    }

    /// The entries whose bytes are not what their keys ask for, by one look at all of them.
    fn disagreeing(&mut self, memory: &dyn KernelMemory) -> Result<Vec<JumpLabel>, Missing> {
        self.keys.read(memory)?;
        let mut left = Vec::new();
        self.sites.visit(memory, &mut |index, bytes| {
            let Some((entry, key)) = self.entries.get(index) else { return };
            // A key that cannot be read (in memory that was given back) says nothing.
            let Some(count) = self.keys.value(*key as usize).map(i32::from_le_bytes) else {
                return;
            };
            if !agrees(entry, bytes, (count >= 0).then_some(count > 0)) {
                left.push(*entry);
            }
        })?;
        Ok(left)
    }
}

/// Whether an entry's bytes are what its key asks for; while that changes, nothing is.
fn agrees(entry: &JumpLabel, bytes: &[u8], enabled: Option<bool>) -> bool {
    match (decode_site(entry, bytes), enabled) {
        (Some(Encoding::Jump(_)), Some(enabled)) => entry.jumps(enabled),
        (Some(_), Some(enabled)) => !entry.jumps(enabled),
        (_, None) | (None, _) => false,
    }
}

impl Check for JumpLabels {
    fn name(&self) -> &'static str {
        "jump_labels"
    }

    fn about(&self) -> About {
        About {
            needs: "the jump table in read-only data, and struct static_key in BTF",
            reads: "each entry's key and the two or five bytes of its branch",
            means: "a branch of the kernel goes another way than its key says",
            blind_to: "a key that was changed together with all of its branches; that is what the \
                       settings and hooks are checked for",
        }
    }

    // A site that shows what its table does not allow at all is found by the text, in each pass, and
    // one that was changed by hand by the journal.
    fn run(&mut self, system: &System<'_>, outcome: &mut Outcome) -> Result<(), Missing> {
        let sites = system.baseline.sites(&system.kernel);
        let entries = sites.jump_labels.entries();
        if entries.is_empty() {
            return Err(Missing::because(
                sites.reduced.first().map_or("the kernel has no jump labels", String::as_str),
            ));
        }
        if self.plan.entries.len() != entries.len() {
            self.plan = Plan::of(&system.kernel, entries)?;
        }
        let open = self.plan.disagreeing(system.kernel.memory)?;
        let mut state = State::default();
        let disagreed = settle(
            open,
            || changes_jump_labels(&system.kernel),
            self.patience.waits(Instant::now()),
            |open| {
                state.read_enabled(&system.kernel, open.iter().map(|entry| entry.key))?;
                disagreeing(system, &state, open)
            },
        )?;
        let mut moving = 0;
        outcome.reduced.extend(self.patience.left(Instant::now(), disagreed.left.len()));
        for Settled { item, readings } in disagreed.settled {
            if state.enabled_count(item.key).is_some_and(|count| count < 0) {
                moving += 1;
                continue;
            }
            outcome.findings.push(finding(system, &state, &item, readings));
        }
        if moving > 0 {
            outcome
                .reduced
                .push(format!("{moving} branches belong to keys that are being changed"));
        }
        Ok(())
    }
}

/// Those of the entries that are left whose bytes are not what their keys ask for.
fn disagreeing(
    system: &System<'_>,
    state: &State,
    open: &[JumpLabel],
) -> Result<Vec<JumpLabel>, Missing> {
    let places = Places::of(open.iter().map(|entry| (entry.code, u32::from(entry.length))));
    let mut left = Vec::new();
    places.visit(system.kernel.memory, &mut |index, bytes| {
        let Some(entry) = open.get(index).copied() else { return };
        if !agrees(&entry, bytes, state.is_enabled(entry.key)) {
            left.push(entry);
        }
    })?;
    left.retain(|entry| state.enabled_count(entry.key).is_some());
    Ok(left)
}

fn finding(system: &System<'_>, state: &State, entry: &JumpLabel, readings: u32) -> Finding {
    let System { kernel, baseline, .. } = system;
    let text = evidence::text_of(baseline);
    let count = state.enabled_count(entry.key).unwrap_or_default();
    let jumps = entry.jumps(count > 0);
    let seen = kernel.bytes_at(entry.code, usize::from(entry.length)).unwrap_or_default();
    let shown = code::render(&code::disassemble(&seen, entry.code, kernel.symbols, text));
    let (symbol, offset) = evidence::place(kernel.symbols, entry.code);
    let expected = match jumps {
        true => format!("a jump to {}", code::name(kernel.symbols, text, entry.target)),
        false => "a no-op".to_owned(),
    };
    let technique = match decode_site(entry, &seen) {
        Some(_) => "jump label does not follow its key",
        None if seen.first() == Some(&INT3) => "int3 without a kprobe",
        None => "jump label overwritten",
    };
    Finding {
        check: "jump_labels",
        symbol,
        offset,
        address: entry.code,
        expected,
        seen: shown,
        technique: technique.to_owned(),
        owner: None,
        evidence: vec![
            format!(
                "static key at {:#x} has count {count}; the entry {} when it is on",
                entry.key,
                if entry.branch { "falls through" } else { "jumps" }
            ),
            format!("read {readings} times by {}", kernel.memory.name()),
        ],
    }
}
