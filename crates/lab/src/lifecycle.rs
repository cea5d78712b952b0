// SPDX-License-Identifier: Apache-2.0
//! api/lifecycle.toml: which events there are, and which classes each can have.
//!
//! It is read line by line: the lab needs two of its keys, and a test of the daemon reads it as TOML.

const TEXT: &str = include_str!("../../../api/lifecycle.toml");

/// An event.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) event: &'static str,
    pub(crate) area: &'static str,
    /// `notify`, `rule`, `ask`.
    pub(crate) classes: Vec<&'static str>,
}

/// All of them, in the order of the file.
pub(crate) fn entries() -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for line in TEXT.lines() {
        if let Some(event) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            entries.push(Entry { event, area: "", classes: Vec::new() });
        } else if let (Some(entry), Some((key, value))) =
            (entries.last_mut(), line.split_once(" = "))
        {
            let mut words = value.split('"').skip(1).step_by(2);
            match key {
                "area" => entry.area = words.next().unwrap_or_default(),
                "classes" => entry.classes = words.collect(),
                _ => {}
            }
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_has_an_area_and_classes() {
        let entries = entries();
        assert!(entries.len() >= 26);
        assert!(entries.iter().all(|one| !one.area.is_empty() && one.classes.contains(&"notify")));
        let exec = entries.iter().find(|one| one.event == "process_exec").unwrap();
        assert_eq!((exec.area, &*exec.classes), ("process", &["notify", "rule", "ask"][..]));
    }
}
