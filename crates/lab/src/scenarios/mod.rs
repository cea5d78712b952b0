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
mod churn;
mod crowd;
mod doctor;
mod events;
mod figures;
mod finding;
mod firmware;
mod gate;
mod grants;
mod killed;
mod matrix;
mod modules;
mod mutations;
mod outside;
mod ringfence_check;
mod rules;
mod rules_enforced;
mod tests_in_guest;
mod trial;
mod verdicts;
mod verity;
mod watch_churn;

/// The scenarios, in the order in which the closing table has them.
#[must_use]
pub fn all() -> Vec<Scenario> {
    vec![
        boots::SCENARIO,
        outside::SCENARIO,
        ringfence_check::SCENARIO,
        rules::SCENARIO,
        rules_enforced::SCENARIO,
        modules::SCENARIO,
        matrix::SCENARIO,
        attacks::SCENARIO,
        attacks_outside::SCENARIO,
        mutations::SCENARIO,
        events::SCENARIO,
        verity::SCENARIO,
        firmware::SCENARIO,
        watch_churn::SCENARIO,
        churn::SCENARIO,
        gate::SCENARIO,
        verdicts::SCENARIO,
        crowd::SCENARIO,
        killed::SCENARIO,
        finding::SCENARIO,
        doctor::SCENARIO,
        figures::SCENARIO,
    ]
}

/// How long a scenario takes on a kernel, in seconds, as measured once with two guests on two processors:
/// only for the order in which they are run. One that is not known here is taken for a long one.
#[must_use]
pub fn usual_seconds(scenario: &str) -> u32 {
    match scenario {
        attacks::NAME => 400,
        matrix::NAME => 250,
        "attacks-outside" => 110,
        "outside" => 45,
        "churn" => 600,
        "events" => 120,
        "watch-churn" => 40,
        "modules" => 35,
        "rules" => 30,
        "rules-enforced" => 160,
        "mutations" => 30,
        "ringfence-check" => 20,
        "gate" => 40,
        "verdicts" => 90,
        "crowd" => 90,
        "killed" => 250,
        "finding" => 60,
        "firmware" => 30,
        "verity" => 40,
        "doctor" => 20,
        figures::NAME => 120,
        "boots" => 10,
        _ => 300,
    }
}

/// What a scenario has to show of all kernels together.
#[derive(Debug)]
pub struct Closing {
    /// For the end of a run.
    pub text: String,
    /// What of it is not as it must be.
    pub problems: Vec<String>,
}

/// Of all kernels together, out of what a scenario kept below the directory of logs; nothing if its
/// cells in the table say all.
#[must_use]
pub fn closing(scenario: &str, logs: &Path, kernels: &[Kernel]) -> Option<Closing> {
    let logs = logs.join(scenario);
    match scenario {
        matrix::NAME => {
            matrix::closing(&logs, kernels).map(|text| Closing { text, problems: Vec::new() })
        }
        attacks::NAME => detection::closing(&logs, kernels),
        _ => None,
    }
}
