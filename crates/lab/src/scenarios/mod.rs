// SPDX-License-Identifier: Apache-2.0
//! All scenarios, a file for each.

use std::path::Path;

use crate::detection;
use crate::kernels::Kernel;
use crate::scenario::Scenario;

mod attacks;
mod attacks_outside;
mod boots;
mod check;
mod matrix;
mod modules;
mod mutations;
mod outside;
mod ringfence_check;
mod watch_churn;

/// The scenarios, in the order in which they are run.
#[must_use]
pub fn all() -> Vec<Scenario> {
    vec![
        boots::SCENARIO,
        outside::SCENARIO,
        ringfence_check::SCENARIO,
        modules::SCENARIO,
        matrix::SCENARIO,
        attacks::SCENARIO,
        attacks_outside::SCENARIO,
        mutations::SCENARIO,
        watch_churn::SCENARIO,
    ]
}

/// What a scenario has to show of all kernels together, out of what it kept below the directory of
/// logs; nothing if its cells in the table say all.
#[must_use]
pub fn closing(scenario: &str, logs: &Path, kernels: &[Kernel]) -> Option<String> {
    let logs = logs.join(scenario);
    match scenario {
        matrix::NAME => matrix::closing(&logs, kernels),
        attacks::NAME => detection::closing(&logs, kernels),
        _ => None,
    }
}
