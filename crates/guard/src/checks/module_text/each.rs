// SPDX-License-Identifier: Apache-2.0
//! What all loaded modules should hold, for whoever wants to know more of it than a pass does.

use super::expected::{self, Exports};
use super::{Pass, Subject};
use crate::baseline::Baseline;
use crate::check::{Missing, System};
use crate::checks::modules::loaded::{self, Loaded};
use crate::recover::Recovered;

/// A loaded module by its name, with what it should hold or why that is not known.
pub type Module = (String, Result<Baseline, Missing>);

/// Makes what each module that is loaded should hold, as the check does.
pub fn each(system: &System<'_>) -> Result<Vec<Module>, Missing> {
    let modules = loaded::on_list(&system.kernel, &mut Recovered::default())?;
    let live: Vec<Loaded> = modules.into_iter().filter(Loaded::is_live).collect();
    let exports = Exports::default();
    let mut pass = Pass { modules: &live, exports, machine: None, waits: true, left: 0 };
    let made = live.iter().map(|module| {
        let subject = Subject::read(&system.kernel, module.address);
        let expected =
            subject.and_then(|subject| expected::make(system, module, &subject, &mut pass));
        (module.name.clone(), expected.map(|expected| expected.baseline))
    });
    Ok(made.collect())
}
