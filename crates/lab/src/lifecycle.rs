// SPDX-License-Identifier: Apache-2.0
//! api/lifecycle.toml: which events there are, and which classes each can have.

use std::collections::BTreeMap;

use serde::Deserialize;

const TEXT: &str = include_str!("../../../api/lifecycle.toml");

/// What is said of an event, as far as the lab asks.
#[derive(Debug, Deserialize)]
pub(crate) struct Entry {
    #[cfg(test)]
    pub(crate) area: String,
    /// `notify`, `rule`, `ask`.
    classes: Vec<String>,
}

impl Entry {
    pub(crate) fn has(&self, class: &str) -> bool {
        self.classes.iter().any(|one| one == class)
    }
}

/// All events, by name.
pub(crate) fn entries() -> BTreeMap<String, Entry> {
    toml::from_str(TEXT).expect("a file of this repository, which a test reads")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_has_an_area_and_classes() {
        let entries = entries();
        assert!(entries.len() >= 26);
        assert!(entries.values().all(|one| !one.area.is_empty() && one.has("notify")));
        let exec = &entries["process_exec"];
        assert_eq!((&*exec.area, &*exec.classes.join(" ")), ("process", "notify rule ask"));
    }
}
