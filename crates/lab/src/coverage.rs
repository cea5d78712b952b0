// SPDX-License-Identifier: Apache-2.0
//! docs/coverage.md: by which doors each event was seen to be told of, and by which it was denied, out of
//! what tests in the lab's guests said last.
//!
//! A test that has opened a door and seen the event, and nothing else, prints a line
//! `door: CLASS EVENT NAME`; the scenarios keep what tests print. So a door is on the page only if its
//! test passed. Where something was opened and nothing came of it, as docs/limitations.md says too, the class is
//! `no-notify`, `no-rule` or `no-ask`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::kernels::Kernel;
use crate::lifecycle;

/// Those whose guests open doors.
const SCENARIOS: [&str; 4] = ["events", "firmware", "rules-enforced", "verdicts"];
/// The columns.
const CLASSES: [&str; 3] = ["notify", "rule", "ask"];

const HEAD: &str = "<!-- `make coverage` writes this file from what the lab saw last. -->\n\
    # Doors\n\n\
    One effect can have several doors: a file becomes code by `mmap`, by `mprotect`, by `shmat`. Each line is a door that a\n\
    test has opened in the lab, and the series of Debian kernels on which the event then came, once and with nothing beside\n\
    it: *notify*, a client was told; *rule*, a rule denied it; *ask*, a client that was asked denied it, with its errno in\n\
    the caller (before 6.12, through fanotify, EPERM). *None*: it was tried there, and is no door, as\n\
    [limitations.md](limitations.md) says. –: the event has no such class (api/lifecycle.toml). What is empty was not tried.\n\n";

/// A door of an event, and on which kernels each class was seen.
type Doors = BTreeMap<(String, String), BTreeMap<String, BTreeSet<(u32, u32)>>>;

/// The page; nothing if no door was opened.
#[must_use]
pub fn page(logs: &Path, kernels: &[Kernel]) -> Option<String> {
    let mut doors = Doors::new();
    for kernel in kernels {
        for scenario in SCENARIOS {
            let Ok(entries) = fs::read_dir(logs.join(scenario).join(&kernel.name)) else {
                continue;
            };
            for entry in entries.flatten() {
                if entry.path().extension().is_some_and(|extension| extension == "out")
                    && let Ok(text) = fs::read_to_string(entry.path())
                {
                    add(&mut doors, &text, kernel.series());
                }
            }
        }
    }
    (!doors.is_empty()).then(|| render(&doors))
}

fn add(doors: &mut Doors, text: &str, series: (u32, u32)) {
    // With one thread, what a test prints can stand behind its name.
    let lines = text.lines().filter_map(|line| line.split_once("door: ").map(|(_, door)| door));
    for line in lines {
        let mut words = line.splitn(3, ' ');
        let (Some(class), Some(event), Some(door)) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        let entry = doors.entry((event.to_owned(), door.trim().to_owned())).or_default();
        entry.entry(class.to_owned()).or_default().insert(series);
    }
}

fn render(doors: &Doors) -> String {
    let entries = lifecycle::entries();
    let mut page = HEAD.to_owned();
    page.push_str("| event | door | notify | rule | ask |\n| --- | --- | --- | --- | --- |\n");
    let mut last = "";
    for ((event, door), classes) in doors {
        let shown = if event == last { String::new() } else { format!("`{event}`") };
        last = event;
        let entry = entries.get(event);
        let cells = CLASSES.map(|class| {
            let seen = series(classes.get(class));
            let none = series(classes.get(&format!("no-{class}")));
            let exists = entry.is_none_or(|entry| entry.has(class));
            match (seen.is_empty(), none.is_empty()) {
                (true, true) if !exists => "–".to_owned(),
                (_, true) => seen,
                (true, false) => format!("none: {none}"),
                (false, false) => format!("{seen}; none: {none}"),
            }
        });
        let _ = writeln!(page, "| {shown} | {door} | {} |", cells.join(" | "));
    }
    page
}

fn series(of: Option<&BTreeSet<(u32, u32)>>) -> String {
    let all: Vec<_> =
        of.into_iter().flatten().map(|(major, minor)| format!("{major}.{minor}")).collect();
    all.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_door_is_one_line_with_the_kernels_of_each_class() {
        let mut doors = Doors::new();
        let text = "test x ... door: notify image_map mmap of a memfd\nok\nnothing\n";
        add(&mut doors, text, (7, 3));
        add(&mut doors, text, (6, 12));
        add(&mut doors, "door: ask image_map mmap of a memfd\ndoor: broken\n", (6, 12));
        add(&mut doors, "door: ask module_load finit_module\n", (6, 12));
        let page = render(&doors);
        assert!(
            page.contains("\n| `image_map` | mmap of a memfd | 6.12, 7.3 |  | 6.12 |\n"),
            "{page}"
        );
        assert!(page.contains("\n| `module_load` | finit_module |  |  | 6.12 |\n"), "{page}");
        assert_eq!(page.lines().filter(|line| line.starts_with("| ")).count(), 4);
    }

    #[test]
    fn what_an_event_never_has_is_told_from_what_was_not_tried_and_from_what_is_no_door() {
        let mut doors = Doors::new();
        add(&mut doors, "door: notify process_fork vfork\n", (6, 12));
        add(&mut doors, "door: no-ask module_load init_module\n", (6, 12));
        add(&mut doors, "door: rule process_trace environ\n", (6, 1));
        add(&mut doors, "door: no-rule process_trace environ\n", (7, 3));
        let page = render(&doors);
        for line in [
            "| `process_fork` | vfork | 6.12 | – | – |",
            "| `module_load` | init_module |  |  | none: 6.12 |",
            "| `process_trace` | environ |  | 6.1; none: 7.3 | – |",
        ] {
            assert!(page.lines().any(|one| one == line), "{line} is not in\n{page}");
        }
    }
}
