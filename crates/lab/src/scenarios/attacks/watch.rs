// SPDX-License-Identifier: Apache-2.0
//! The guard at work in a guest.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use super::subjects::{Told, tells};
use super::{OPENING, PATIENCE, SETTLING, SHARE};
use crate::process::Process;
use crate::vm::Vm;

/// `ringfence watch --json` in the guest.
pub(super) struct Watch<'vm> {
    process: Process<'vm>,
    pub(super) seen: String,
    /// Findings and hooks that were told while an attack was waited for.
    pub(super) told: Vec<Value>,
}

impl<'vm> Watch<'vm> {
    pub(super) fn start(vm: &'vm Vm) -> anyhow::Result<Self> {
        let process =
            vm.start(&["ringfence", "watch", "--json", SHARE], Duration::from_secs(1800))?;
        let mut watch = Self { process, seen: String::new(), told: Vec::new() };
        // All is well before the first attack, or nothing after it says anything.
        while watch.event(OPENING)?["event"] != "pass" {}
        ensure!(!watch.seen.contains("\"event\":\"finding\""), "findings before the first attack");
        Ok(watch)
    }

    fn event(&mut self, limit: Duration) -> anyhow::Result<Value> {
        let Some(line) = self.process.line(limit)? else { bail!("the watch has ended") };
        self.seen.push_str(&line);
        self.seen.push('\n');
        serde_json::from_str(&line).with_context(|| format!("no event: {line}"))
    }

    /// Waits until no finding stands, so that the next one is news.
    pub(super) fn until_quiet(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let event = self.event(PATIENCE.saturating_sub(began.elapsed()))?;
            // What began before the attack was taken back may end after it.
            if event["event"] == "pass" && event["findings"] == 0 && began.elapsed() > SETTLING {
                return Ok(());
            }
            ensure!(began.elapsed() < PATIENCE, "a finding still stands: {event}");
        }
    }

    /// Waits for the event that tells of it.
    pub(super) fn until(
        &mut self,
        name: &str,
        told: Told,
        began: Instant,
    ) -> anyhow::Result<Value> {
        let mut others = Vec::new();
        loop {
            let left = PATIENCE.saturating_sub(began.elapsed());
            let event = if left.is_zero() { None } else { self.event(left).ok() };
            let Some(event) = event else {
                bail!("not told of in {} s; told was: {}", PATIENCE.as_secs(), others.join(", "))
            };
            if event["event"] == "finding" || event["event"] == "hooked" {
                self.told.push(event.clone());
            }
            if tells(&event, name, told) {
                return Ok(event);
            }
            match event["event"].as_str() {
                Some("finding") => {
                    let finding = &event["finding"];
                    others.push(format!("{}: {}", finding["check"], finding["technique"]));
                }
                Some("hooked") => others.push(format!("a hook of {}", event["hook"]["mechanism"])),
                _ => {}
            }
        }
    }
}
