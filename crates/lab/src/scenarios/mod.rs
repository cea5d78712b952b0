// SPDX-License-Identifier: Apache-2.0
//! All scenarios, a file for each.

use crate::scenario::Scenario;

mod attacks;
mod attacks_outside;
mod boots;
mod check;
mod modules;
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
        attacks::SCENARIO,
        attacks_outside::SCENARIO,
        watch_churn::SCENARIO,
    ]
}
