// SPDX-License-Identifier: Apache-2.0
//! Rule files as people write them, right and wrong.

use crate::error::Place;
use crate::model::{Action, Bits, Condition, File, FileIdentity, Number, Process, ProcessKey};
use crate::model::{Prefix, RuleSet};

const FULL: &str = r#"
[[rule]]
id = 7
event = "process_exec"
action = "deny"
error = "EACCES"
actor.uid = [1000, 33, 1000]
actor.path = ["/usr/sbin/", "/usr", "/opt/x"]
file.digest_in = "known-bad"
file.is = ["memfd", "deleted"]
record = "incomplete"

[[rule]]
id = 8
event = ["process_trace", "process_signal"]
action = "notify"
dry_run = true
[rule.target]
process = { pid = 12, start = "18446744073709551615" }
executable = { device = "8:1", inode = 44, version = 5 }

[[rule]]
id = 9
event = "memory_protect"
action = "allow"
protection = { all = ["write", "exec"], any = 4 }
before.any = "write"
actor.descendant_of = { pid = 1, start = 2 }
"#;

#[test]
fn a_rule_file_is_read_as_it_is_meant() {
    let set = RuleSet::from_toml(FULL).unwrap();
    let [first, second, third] = set.rules.as_slice() else { panic!() };
    assert_eq!((first.id, first.events, first.action), (7, 1 << 1, Action::Deny(13)));
    let path = |text: &str| Prefix::new(text.as_bytes()).unwrap();
    let expected = [
        // /usr/sbin is below /usr.
        Condition::Path(File::Executable, vec![path("/opt/x"), path("/usr")]),
        Condition::Number(Number::Uid, vec![33, 1000]),
        Condition::DigestIn(File::Subject, vec!["known-bad".to_owned()]),
        Condition::Bits { of: Bits::File, mask: 3, all: false },
        Condition::Bits { of: Bits::Record, mask: 0x10, all: false },
    ];
    assert_eq!(first.conditions, expected);
    assert_eq!((second.events, second.dry_run), (1 << 5 | 1 << 4, true));
    let target = ProcessKey { pid: 12, start: u64::MAX };
    let executable = FileIdentity { device: 8 << 20 | 1, inode: 44, version: Some(5) };
    let expected = [
        Condition::Process(Process::Target, vec![target]),
        Condition::File(File::Subject, vec![executable]),
    ];
    assert_eq!(second.conditions, expected);
    let expected = [
        Condition::DescendantOf(vec![ProcessKey { pid: 1, start: 2 }]),
        Condition::Bits { of: Bits::Protection, mask: 6, all: true },
        Condition::Bits { of: Bits::Protection, mask: 4, all: false },
        Condition::Bits { of: Bits::Before, mask: 2, all: false },
    ];
    assert_eq!(third.conditions, expected);
}

#[test]
fn json_says_the_same_as_toml() {
    let json = r#"{"rule": [{"id": 7, "event": "process_exec", "action": "deny",
        "actor": {"uid": [33, 1000]}, "file": {"path": "/tmp"}}]}"#;
    let toml = "[[rule]]\nid = 7\nevent = 'process_exec'\naction = 'deny'\n\
        actor.uid = [33, 1000]\nfile.path = '/tmp'";
    assert_eq!(RuleSet::from_json(json).unwrap(), RuleSet::from_toml(toml).unwrap());
}

#[test]
fn an_empty_document_is_an_empty_set() {
    assert_eq!(RuleSet::from_toml("").unwrap(), RuleSet::default());
    assert_eq!(RuleSet::from_json("{}").unwrap(), RuleSet::default());
}

/// The only problem of a rule with `line` in it: column and message.
fn problem(lines: &str) -> (u32, u32, String) {
    let text = format!("[[rule]]\nid = 1\nevent = \"process_exec\"\naction = \"deny\"\n{lines}");
    let refused = RuleSet::from_toml(&text).unwrap_err();
    assert_eq!(refused.problems.len(), 1, "{refused}");
    let Place { line, column } = refused.problems[0].place.unwrap();
    (line, column, format!("{}: {}", refused.problems[0].path, refused.problems[0].message))
}

#[test]
fn each_mistake_is_told_with_its_place_and_what_would_be_right() {
    let cases = [
        ("actor.uid = 4294967296", 13, "rule[0].actor.uid: an integer from 0 to 4294967295"),
        ("actor.uid = []", 13, "rule[0].actor.uid: an empty list would never match"),
        ("actor.uid = \"root\"", 13, "rule[0].actor.uid: an integer is wanted here, not a string"),
        ("actor.name = 1", 14, "rule[0].actor.name: there is no such field; there are process,"),
        ("file.path = \"tmp\"", 13, "rule[0].file.path: a path begins with a slash"),
        ("file.path_unknown = false", 21, "rule[0].file.path_unknown: only true can be asked for"),
        ("file.digest_in = \"A b\"", 18, "rule[0].file.digest_in: \"A b\" is no name"),
        ("signal = 9", 10, "rule[0].signal: process_exec has no signal"),
        ("target.process = {pid = 1, start = 1}", 8, "rule[0].target.process: process_exec has no"),
        ("error = \"EFUN\"", 9, "rule[0].error: \"EFUN\" is none of EPERM, ENOENT"),
        ("record = [\"odd\"]", 11, "rule[0].record[0]: \"odd\" is no known name: mandatory, trun"),
        ("flags.some = 1", 14, "rule[0].flags.some: there is no such field"),
        (
            "file.identity = {device = \"8\", inode = 0}",
            40,
            "rule[0].file.identity.inode: an integ",
        ),
        ("dry_run = 1", 11, "rule[0].dry_run: true or false is wanted here, not an integer"),
    ];
    for (line, column, message) in cases {
        // The two that have a second problem with the same cause are told apart by their first.
        let text = format!("[[rule]]\nid = 1\nevent = \"process_exec\"\naction = \"deny\"\n{line}");
        let refused = RuleSet::from_toml(&text).unwrap_err();
        let first = &refused.problems[0];
        assert_eq!(first.place, Some(Place { line: 5, column }), "{line}: {refused}");
        let said = format!("{}: {}", first.path, first.message);
        assert!(said.starts_with(message), "{line}: {said}");
    }
    assert_eq!(problem("file.is = 0").2, "rule[0].file.is: no bit is asked for");
}

#[test]
fn what_a_set_lacks_or_has_twice_is_told() {
    let refused = RuleSet::from_toml("[[rule]]\nid = 0\n").unwrap_err();
    let said = refused.to_string();
    for part in ["event is missing", "action is missing", "line 2, column 6: rule[0].id"] {
        assert!(said.contains(part), "{said}");
    }
    let twice = "[[rule]]\nid = 1\nevent = 'process_exit'\naction = 'notify'\n".repeat(2);
    let refused = RuleSet::from_toml(&twice).unwrap_err();
    assert!(refused.to_string().contains("rule[0] has the number 1 already"), "{refused}");
    let exit = "[[rule]]\nid = 1\nevent = 'process_exit'\naction = 'deny'\n";
    let refused = RuleSet::from_toml(exit).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "line 4, column 10: rule[0].action: process_exit cannot be denied, it can only be told of"
    );
}

#[test]
fn a_name_that_means_another_number_in_each_type_is_refused() {
    let text = "[[rule]]\nid = 1\nevent = ['process_trace', 'memory_access']\naction = 'deny'\n";
    assert!(RuleSet::from_toml(&format!("{text}access = 'read'\n")).is_ok());
    assert!(RuleSet::from_toml(&format!("{text}access = 'write'\n")).is_err());
}

#[test]
fn what_a_file_is_opened_for_are_bits_that_no_other_access_is() {
    let rule = |events: &str, more: &str| {
        RuleSet::from_toml(&format!(
            "[[rule]]\nid = 1\nevent = {events}\naction = 'notify'\n{more}\n"
        ))
    };
    let opened = rule("'file_open'", "access = ['write', 'exec']").unwrap();
    let wanted = Condition::Bits { of: Bits::Protection, mask: 6, all: false };
    assert_eq!(opened.rules[0].conditions, [wanted]);
    let mixed = rule("['file_open', 'memory_access']", "access = 'write'").unwrap_err();
    let said = mixed.to_string();
    assert!(said.contains("memory_access has no access that is the same"), "{said}");
    assert!(rule("'file_open'", "access = 'attach'").is_err());
    let memory = rule("'file_open'", "protection.any = ['write']").unwrap_err();
    assert!(memory.to_string().contains("file_open has no protection"), "{memory}");
    let how = rule("'file_modify'", "how = ['closed', 'truncated']").unwrap();
    assert_eq!(how.rules[0].conditions, [Condition::Number(Number::Own, vec![1, 2])]);
    assert!(rule("['file_modify', 'memory_fileless']", "how = 'exec'").is_err());
}

#[test]
fn no_more_than_twenty_problems_are_told_of() {
    let text = "[[rule]]\nid = 0\n".repeat(100);
    assert_eq!(RuleSet::from_toml(&text).unwrap_err().problems.len(), 20);
}
