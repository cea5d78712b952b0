// SPDX-License-Identifier: Apache-2.0
//! What people are told of a decision.

use crate::record::{ACTOR, HEADER, actor, file, header};
use crate::{Context, Record, RuleSet, explain};

/// `/tmp/x`, executed by user 1000.
fn record() -> Vec<u8> {
    let body = HEADER + ACTOR;
    let mut bytes = vec![0; body + 136];
    let mut put = |at: usize, value: u32| bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    put(HEADER + actor::UID, 1000);
    // Its type and, behind it, where its own part begins.
    put(header::TYPE, 1 | (body as u32) << 16);
    put(header::SIZE, (body + 136 + 8) as u32);
    put(body + file::FLAGS, 0x9);
    put(body + file::PATH, (body + 136) as u32);
    put(body + file::PATH + 4, 6);
    bytes.extend(b"/tmp/x\0\0");
    bytes
}

fn explained(rules: &str) -> String {
    let bytes = record();
    let record = Record::new(&bytes).unwrap();
    explain(&RuleSet::from_toml(rules).unwrap(), &record, &Context::default()).to_string()
}

#[test]
fn what_a_file_is_opened_for_is_called_so() {
    let body = HEADER + ACTOR;
    let mut bytes = vec![0; body + 104];
    let mut put = |at: usize, value: u32| bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    put(header::TYPE, 40 | (body as u32) << 16);
    put(header::SIZE, (body + 104) as u32);
    put(body + 100, 1);
    let record = Record::new(&bytes).unwrap();
    let rule = "[[rule]]\nid = 1\nevent = \"file_open\"\naction = \"deny\"\naccess = \"write\"\n";
    let rules = RuleSet::from_toml(rule).unwrap();
    let said = explain(&rules, &record, &Context::default()).to_string();
    assert_eq!(
        said,
        "rule 1: does not match: access is to have any of write, but it is read\nno rule decided\n"
    );
}

#[test]
fn each_rule_up_to_the_one_that_decided_is_explained() {
    let rules = r#"
        [[rule]]
        id = 1
        event = "process_exit"
        action = "notify"
        [[rule]]
        id = 2
        event = "process_exec"
        action = "allow"
        actor.uid = [0, 33]
        [[rule]]
        id = 3
        event = "process_exec"
        action = "notify"
        file.is = "memfd"
        [[rule]]
        id = 4
        event = "process_exec"
        action = "deny"
        dry_run = true
        [[rule]]
        id = 5
        event = "process_exec"
        action = "allow"
        file.path = ["/usr", "/opt"]
        [[rule]]
        id = 6
        event = "process_exec"
        action = "deny"
        error = "EACCES"
        file.path = "/tmp"
        [[rule]]
        id = 7
        event = "process_exec"
        action = "allow"
    "#;
    let expected = "\
rule 1: is for other types of event
rule 2: does not match: actor.uid is to be 0 or 33, but it is 1000
rule 3: matches: told, and went on
rule 4: matches, dry run: told, and went on
rule 5: does not match: file.path is to be /opt or /usr or below, but it is /tmp/x
rule 6: matches: denied with EACCES
";
    assert_eq!(explained(rules), expected);
}

#[test]
fn it_says_so_when_no_rule_decided() {
    let rules = r#"
        [[rule]]
        id = 9
        event = "process_exec"
        action = "deny"
        file.digest_in = "bad"
        [[rule]]
        id = 10
        event = "process_exec"
        action = "deny"
        record = ["truncated", "incomplete"]
        [[rule]]
        id = 11
        event = "process_exec"
        action = "deny"
        actor.descendant_of = { pid = 7, start = 8 }
    "#;
    let expected = "\
rule 9: does not match: the digest of file is to be in bad, but it is a file without a digest
rule 10: does not match: record is to have any of truncated+incomplete, but it is none
rule 11: does not match: the actor is to descend from pid 7 started at 8, but it is of none known
no rule decided
";
    assert_eq!(explained(rules), expected);
}
