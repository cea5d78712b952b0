// SPDX-License-Identifier: Apache-2.0
//! Rules outlive this process: what clients install is kept, and installed again by the next one.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use broker::slot::Slot;

use super::Control;
use super::rules::{Installed, may_have};
use crate::kept::{Kept, Saved};
use crate::kernel::Kernel;
use crate::log;

impl<K: Kernel> Control<K> {
    /// Has rules hold beyond the end of this process, by what is kept and by programs that stay attached
    /// through files in `pins`. What an earlier one left goes on until its rules are installed here.
    pub fn keep_rules(&mut self, kept: Kept, pins: &Path) {
        if let Err(error) = self.kernel.keep_rules(pins) {
            self.not_kept(format!("rules do not hold while ringfenced is not running: {error}"));
        }
        let slots: Vec<(Slot, String)> = Slot::all()
            .filter_map(|slot| Some((slot, self.broker.grant(slot)?.client.to_string())))
            .collect();
        for (slot, client) in slots {
            let read = kept.read(&client);
            let installed = read.and_then(|saved| {
                saved.map_or(Ok(0), |saved| self.install_saved(slot, &client, saved))
            });
            match installed {
                Ok(0) => {}
                Ok(rules) => {
                    log::note(&format_args!("{client}: {rules} rules are installed again"))
                }
                Err(error) => {
                    self.not_kept(format!(
                        "{client}: its rules are not installed again: {error:#}"
                    ));
                }
            }
        }
        if let Err(error) = self.kernel.let_go_of_older() {
            self.not_kept(format!("what an earlier ringfenced left still decides: {error}"));
        }
        self.kept = Some(kept);
    }

    /// Gives how many rules there are.
    fn install_saved(&mut self, slot: Slot, client: &str, saved: Saved) -> anyhow::Result<usize> {
        let Saved { text, set, collections } = saved;
        if let Some(grant) = self.broker.grant(slot) {
            may_have(grant, &set)?;
        }
        // Types first, so that rules are not looked at for more than the grant says even for a moment.
        if let Some(masks) = self.broker.masks(slot).copied() {
            self.allow_rules(slot, &masks)?;
        }
        let prepare = self.kernel.preparer();
        let mut counts = BTreeMap::new();
        for (name, collection) in collections {
            let set = prepare(collection)
                .and_then(|prepared| self.kernel.set_collection(slot, &name, prepared));
            counts.insert(name, set.map_err(super::rules::refused)?.count());
        }
        self.kernel.install_rules(slot, &set).map_err(super::rules::refused)?;
        let rules = set.rules.len();
        self.installed.insert(slot, Installed::again(client, text, set, counts));
        Ok(rules)
    }

    /// Has what is kept, if anything is, follow what the client of the slot has installed. That it fails is no
    /// failure of the client's call: its rules are installed.
    pub(super) fn save(
        &mut self,
        slot: Slot,
        save: impl FnOnce(&Kept, &Installed) -> io::Result<()>,
    ) {
        let (Some(kept), Some(of)) = (&self.kept, self.installed.get(&slot)) else { return };
        if let Err(error) = save(kept, of) {
            let client = of.client();
            self.not_kept(format!("{client}: its rules will not outlive ringfenced: {error}"));
        }
    }

    fn not_kept(&mut self, problem: String) {
        log::note(&problem);
        // Each is told once, and never more than somebody reads.
        if !self.kept_problems.contains(&problem) && self.kept_problems.len() < 64 {
            self.kept_problems.push(problem);
        }
    }
}
