// SPDX-License-Identifier: Apache-2.0
//! A client with rules, and doors that they deny.

use probes::RulesError;
use probes::events::EventType;
use rules::RuleSet;

use super::record::Record;
use super::{Client, LARGE, Loaded, door_of};

pub(crate) const SLOT: u32 = 7;
const DENIED: u64 = 2;

/// A client that subscribes to nothing and has rules for one type.
pub(crate) struct Ruler {
    pub(crate) hooks: Loaded,
    pub(crate) client: Client,
    kind: EventType,
    /// Why nothing can be denied here.
    pub(crate) cannot: Option<String>,
}

impl Ruler {
    pub(crate) fn of(kind: EventType) -> Self {
        let mut hooks = Loaded::of(kind.bit());
        let client = Client::admit(&mut hooks, SLOT, LARGE, &[]);
        let coverage = hooks.coverage().into_iter().find(|coverage| coverage.kind == kind);
        let cannot = coverage.unwrap().deny.err();
        Self { hooks, client, kind, cannot }
    }

    pub(crate) fn install(&mut self, text: &str) -> Result<(), RulesError> {
        self.hooks.install_rules(SLOT, &RuleSet::from_toml(text).unwrap())
    }

    /// Of each rule in order: how often it matched and denied.
    pub(crate) fn counts(&self) -> Vec<(u64, u64)> {
        let counts = self.hooks.rule_counts(SLOT).unwrap();
        counts.iter().map(|count| (count.matches, count.denies)).collect()
    }

    /// What the client was told since the last time.
    pub(crate) fn told(&mut self) -> Vec<Record> {
        self.client.seen.clear();
        self.client.take();
        let kind = self.kind.number();
        self.client.seen.iter().filter(|record| record.kind() == kind).cloned().collect()
    }
}

pub(crate) fn header(record: &Record) -> [u64; 4] {
    ["classes", "rule", "outcome", "error"].map(|field| record.header(field))
}

/// A way to do a thing, by its name in docs/coverage.md. It gives the errno that it failed with.
pub(crate) type Door<'a> = (&'a str, &'a mut dyn FnMut() -> i32);

/// Has each door denied, in turn with EACCES and with EBUSY. What denies matches by the condition, and so
/// do a rule that tells and one in dry run.
#[track_caller]
pub(crate) fn doors_are_denied(kind: EventType, condition: &str, doors: &mut [Door<'_>]) {
    doors_are_denied_with(kind, condition, None, doors);
}

/// The same, where the kernel has an errno of its own for whatever the hook says.
#[track_caller]
pub(crate) fn doors_are_denied_with(
    kind: EventType,
    condition: &str,
    own: Option<i32>,
    doors: &mut [Door<'_>],
) {
    let mut ruler = Ruler::of(kind);
    let rules = |action: &str, dry_run: bool| {
        let name = kind.name();
        let rule = |id: u32, action: &str| {
            format!("[[rule]]\nid = {id}\nevent = \"{name}\"\n{condition}\naction = {action}\n")
        };
        let dry_run = format!("dry_run = {dry_run}\n");
        rule(1, "\"notify\"") + &rule(2, action) + &dry_run + &rule(3, "\"allow\"")
    };
    if let Some(reason) = ruler.cannot.clone() {
        assert!(!reason.is_empty());
        let denies = rules("\"deny\"", false).replacen("notify", "allow", 1);
        let refused = ruler.install(&denies).unwrap_err();
        let why = matches!(
            refused,
            RulesError::CannotDeny { .. } | RulesError::CannotTell { rule: 1, .. }
        );
        assert!(why && !refused.to_string().is_empty(), "{refused}");
        eprintln!("not looked for: {}: {refused}", kind.name());
        return;
    }
    let before: Vec<i32> = doors.iter_mut().map(|(_, door)| door()).collect();
    for (name, errno) in [("EACCES", 13), ("EBUSY", 16)] {
        ruler.install(&rules(&format!("\"deny\"\nerror = \"{name}\""), false)).unwrap();
        for (door, open) in doors.iter_mut() {
            let (_, counted) = (ruler.told(), ruler.counts());
            assert_eq!(open(), own.unwrap_or(errno), "{} by {door}", kind.name());
            let told = ruler.told();
            assert!(!told.is_empty(), "{} by {door}", kind.name());
            for record in &told {
                assert_eq!(header(record), [2, 2, DENIED, errno as u64], "{record:?}");
            }
            let times = told.len() as u64;
            let more: Vec<_> = counted.iter().map(|(all, _)| all + times).collect();
            assert_eq!(ruler.counts(), [(more[0], 0), (more[1], more[1]), (0, 0)]);
        }
    }
    ruler.install(&rules("\"deny\"", true)).unwrap();
    for ((_, door), before) in doors.iter_mut().zip(&before) {
        ruler.told();
        assert_eq!(door(), *before, "in dry run {} goes on", kind.name());
        let told = ruler.told();
        assert!(told.iter().all(|record| header(record)[..3] == [2, 1, 1]), "{told:?}");
        assert!(!told.is_empty());
    }
    let counts = ruler.counts();
    assert!(counts[0].0 >= doors.len() as u64, "{counts:?}");
    assert!(counts.iter().all(|count| *count == (counts[0].0, 0)), "{counts:?}");
    ruler.install("").unwrap();
    for ((_, door), before) in doors.iter_mut().zip(&before) {
        ruler.told();
        assert_eq!(door(), *before, "without rules {} goes on", kind.name());
        assert!(ruler.told().is_empty());
    }
    for (door, _) in doors {
        door_of("rule", kind, door);
    }
}
