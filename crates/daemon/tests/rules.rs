// SPDX-License-Identifier: Apache-2.0
//! Rules over the control interface: whole or not at all, within the grant, and as long as it says.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use broker::event::{Class, EventType};
use broker::slot::Slot;
use serde_json::{Value, json};
use support::million::{self, replace_a_collection};
use support::{CLIENT, Client, Daemon, Shared, grant};

fn slot() -> Slot {
    Slot::new(0).unwrap()
}

fn exec() -> EventType {
    EventType::from_name("process_exec").unwrap()
}

/// A grant with rules for exec, and some more lines.
fn ruling(more: &str) -> String {
    grant(CLIENT, 1000).replace("\"notify\", \"ask\"", "\"notify\", \"rule\"") + more
}

fn session(daemon: &Daemon) -> Client {
    daemon.session()
}

fn rule(id: u32, event: &str, action: &str) -> String {
    format!("[[rule]]\nid = {id}\nevent = \"{event}\"\naction = \"{action}\"\n")
}

fn install(rules: &str) -> Value {
    json!({ "rules": rules })
}

fn numbers(daemon: &Daemon) -> Vec<u32> {
    let kernel = daemon.kernel.get();
    let rules = kernel.rules.get(&slot()).map(|rules| rules.set.rules.clone());
    rules.unwrap_or_default().iter().map(|rule| rule.id).collect()
}

#[test]
fn rules_are_replaced_as_a_whole_and_shown_with_their_counters() {
    let daemon = Daemon::start_on_fake(&ruling(""));
    let mut client = session(&daemon);
    let text = rule(7, "process_exec", "deny") + "error = \"EACCES\"\n";
    let text = text + &rule(9, "process_fork", "notify");
    assert_eq!(client.ok("InstallRules", install(&text)), json!({ "rules": 2 }));
    assert_eq!(numbers(&daemon), [7, 9]);
    let rules = client.ok("GetRules", json!({}));
    let own = &rules["clients"][0];
    assert_eq!((&own["client"], &own["connected"]), (&json!(CLIENT), &json!(true)));
    let (first, second) = (&own["rules"][0], &own["rules"][1]);
    assert_eq!(
        (&first["id"], &first["error"], &first["action"]),
        (&json!(7), &json!(13), &json!("deny"))
    );
    assert_eq!((&second["events"], &second["matches"]), (&json!(["process_fork"]), &json!(1)));
    assert_eq!(client.ok("GetRuleText", json!({}))["rules"], text);

    // In dry run, and in two messages that are cut anywhere.
    let (one, other) = text.split_at(13);
    client.ok("InstallRules", json!({ "rules": one, "continues": true }));
    assert_eq!(client.ok("InstallRules", json!({ "rules": other, "dry_run": true }))["rules"], 2);
    let rules = client.ok("GetRules", json!({}));
    assert_eq!(rules["clients"][0]["rules"][0]["dry_run"], true);

    client.ok("InstallRules", install(""));
    assert!(numbers(&daemon).is_empty());
}

#[test]
fn a_mistake_is_told_with_line_and_column_and_changes_nothing() {
    let daemon = Daemon::start_on_fake(&ruling(""));
    let mut client = session(&daemon);
    client.ok("InstallRules", install(&rule(1, "process_exec", "deny")));
    let wrong = rule(2, "process_exec", "deny") + "actor.uid = \"root\"\n";
    let (error, parameters) = client.fails("InstallRules", install(&wrong));
    assert_eq!(error, "RulesRefused");
    let problem = &parameters["problems"][0];
    assert_eq!((&problem["line"], &problem["column"]), (&json!(5), &json!(13)), "{problem}");
    assert_eq!(problem["path"], "rule[0].actor.uid");
    assert_eq!(numbers(&daemon), [1]);
    // What was to be continued is gone with the mistake.
    client.ok("InstallRules", json!({ "rules": "nonsense", "continues": true }));
    assert_eq!(client.fails("InstallRules", install("")).0, "RulesRefused");
    client.ok("InstallRules", install(""));
}

#[test]
fn rules_that_come_in_parts_without_end_are_refused_and_those_before_stay() {
    let daemon = Daemon::start_on_fake(&ruling(""));
    let mut client = session(&daemon);
    client.ok("InstallRules", install(&rule(1, "process_exec", "deny")));
    // Comments, a little less than a message may be long.
    let part = "# nothing to see here, as on every other line\n".repeat(20_000);
    let parts = (4 << 20) / part.len();
    for _ in 0..parts {
        client.ok("InstallRules", json!({ "rules": part, "continues": true }));
    }
    let (error, parameters) =
        client.fails("InstallRules", json!({ "rules": part, "continues": true }));
    assert_eq!(error, "LimitExceeded");
    assert_eq!(
        (&parameters["what"], &parameters["limit"]),
        (&json!("bytes of rules"), &json!(4 << 20))
    );
    assert_eq!(numbers(&daemon), [1]);
    // What came before it is forgotten.
    client.ok("InstallRules", install(&rule(2, "process_exec", "deny")));
    assert_eq!(numbers(&daemon), [2]);
}

#[test]
fn rules_are_within_the_grant_and_what_the_host_can_do() {
    let daemon = Daemon::start_on_fake(&ruling("[limits]\nmax_rules = 2\n"));
    let mut client = session(&daemon);
    for (event, action) in [("process_signal", "deny"), ("process_exit", "notify")] {
        let (error, parameters) = client.fails("InstallRules", install(&rule(1, event, action)));
        assert_eq!((error.as_str(), &parameters["event"]), ("NotGranted", &json!(event)));
    }
    // Only told of, and so granted by notify.
    client.ok("InstallRules", install(&rule(1, "process_fork", "notify")));
    let three: String = (1..4).map(|id| rule(id, "process_exec", "notify")).collect();
    let (error, parameters) = client.fails("InstallRules", install(&three));
    assert_eq!((error.as_str(), &parameters["limit"]), ("LimitExceeded", &json!(2)));
    daemon.kernel.get().unavailable.insert((exec(), Class::Rule), "no LSM programs".into());
    let (error, parameters) =
        client.fails("InstallRules", install(&rule(3, "process_exec", "deny")));
    assert_eq!(error, "EventUnavailable");
    assert_eq!(parameters["reason"], "rule 3: no LSM programs");
    assert_eq!(numbers(&daemon), [1]);
    let mut stranger = daemon.connect();
    assert_eq!(stranger.fails("InstallRules", install("")).0, "NoSession");
}

#[test]
fn rules_stay_when_a_client_goes_and_are_lifted_if_its_grant_says_so() {
    for (failure, stays) in [("last_rules", true), ("allow", false)] {
        let failure = format!("[events.process_exec.failure]\nnot_connected = \"{failure}\"\n");
        let daemon = Daemon::start_on_fake(&ruling(&failure));
        let mut client = session(&daemon);
        let both = rule(1, "process_exec", "deny") + &rule(2, "process_fork", "notify");
        client.ok("InstallRules", install(&both));
        let allowed = |event: &str| {
            let event = EventType::from_name(event).unwrap();
            daemon.kernel.get().rules[&slot()].allowed.contains(event)
        };
        assert!(allowed("process_exec") && allowed("process_fork"));
        client.ok("CloseSession", json!({}));
        assert_eq!(numbers(&daemon), [1, 2]);
        assert_eq!((allowed("process_exec"), allowed("process_fork")), (stays, false));
        // Who comes again has them, and is looked at again.
        assert!(client.open(CLIENT).get("error").is_none());
        assert!(allowed("process_exec") && allowed("process_fork"));
        assert_eq!(client.ok("GetRules", json!({}))["clients"][0]["rules"][0]["id"], 1);
    }
}

#[test]
fn a_collection_comes_in_parts_and_is_replaced_when_it_is_whole() {
    let daemon = Daemon::start_on_fake(&ruling("[limits]\nmax_digests = 3\n"));
    let mut client = session(&daemon);
    let digest = |number: u32| format!("{number:064x}");
    let part = |digests: &[u32], continues: bool| {
        let digests: Vec<_> = digests.iter().map(|number| digest(*number)).collect();
        json!({ "name": "bad", "digests": digests, "continues": continues })
    };
    let count = |daemon: &Daemon| {
        let kernel = daemon.kernel.get();
        kernel.rules.get(&slot()).and_then(|rules| rules.collections.get("bad").copied())
    };
    assert_eq!(client.ok("ReplaceCollection", part(&[1, 2], true))["digests"], 2);
    assert_eq!(count(&daemon), None);
    // The same one twice is there once.
    assert_eq!(client.ok("ReplaceCollection", part(&[2], false))["digests"], 2);
    assert_eq!(count(&daemon), Some(2));
    let (error, parameters) = client.fails("ReplaceCollection", part(&[1, 2, 3, 4], false));
    assert_eq!((error.as_str(), &parameters["limit"]), ("LimitExceeded", &json!(3)));
    let wrong = json!({ "name": "bad", "digests": [digest(1), "12"] });
    assert_eq!(client.fails("ReplaceCollection", wrong).0, "InvalidArgument");
    let wrong = json!({ "name": "Bad", "digests": [] });
    assert_eq!(client.fails("ReplaceCollection", wrong).0, "InvalidArgument");
    assert_eq!(count(&daemon), Some(2));
    let rules = client.ok("GetRules", json!({}));
    let expected = json!([{ "name": "bad", "digests": 2 }]);
    assert_eq!(rules["clients"][0]["collections"], expected);
    client.ok("DropCollection", json!({ "name": "bad" }));
    assert_eq!(count(&daemon), None);
    assert_eq!(client.fails("DropCollection", json!({ "name": "bad" })).0, "InvalidArgument");
}

#[test]
fn others_are_answered_while_a_million_digests_are_made_ready() {
    let daemon = Daemon::start_on_fake(&ruling("[limits]\nmax_digests = 1000000\n"));
    let answered = replace_a_collection(&daemon);
    // One or two could have come before them.
    assert!(answered > 5, "{answered}");
}

#[test]
fn a_collection_is_not_set_for_who_has_no_grant_any_more_when_it_is_ready() {
    let daemon = Daemon::start_with(Shared::default(), &[("other.toml", &ruling_other())]);
    let mut client = daemon.connect();
    assert!(client.open("org.example.other").get("error").is_none());
    million::send(&mut client);
    std::fs::remove_file(daemon.grants.join("other.toml")).unwrap();
    daemon.signal(libc::SIGHUP);
    assert!(client.receive().is_none_or(|reply| reply.get("error").is_some()));
    // Its thread is done with it by the time that another one's is.
    let mut next = daemon.session();
    next.ok("ReplaceCollection", json!({ "name": "good", "digests": [] }));
    let kernel = daemon.kernel.get();
    assert!(kernel.rules.values().all(|rules| !rules.collections.contains_key("bad")));
}

/// A grant for another client, with rules and as many digests as there can be.
fn ruling_other() -> String {
    grant("org.example.other", 7).replace("\"notify\", \"ask\"", "\"notify\", \"rule\"")
        + "[limits]\nmax_digests = 1000000\n"
}

#[test]
fn another_client_sees_no_rules_but_its_own() {
    let other = grant("org.example.other", 7);
    let daemon = Daemon::start_with(Shared::default(), &[("other.toml", &other)]);
    let mut client = session(&daemon);
    client.ok("InstallRules", install(&rule(5, "process_fork", "notify")));
    let mut other = daemon.connect();
    assert!(other.open("org.example.other").get("error").is_none());
    let is_root = rustix::process::geteuid().is_root();
    let seen = other.ok("GetRules", json!({}))["clients"].as_array().unwrap().len();
    assert_eq!(seen, usize::from(is_root));
    let whose = json!({ "client": CLIENT });
    if is_root {
        assert!(other.ok("GetRuleText", whose)["rules"].as_str().unwrap().contains("id = 5"));
    } else {
        assert_eq!(other.fails("GetRuleText", whose).0, "NotAdministrator");
    }
    assert_eq!(other.ok("GetRuleText", json!({}))["rules"], "");
    assert_eq!(daemon.connect().call("GetRules", json!({})).get("error").is_none(), is_root);
}

/// A daemon that keeps rules in this directory, on tables where those of an earlier one still decide.
fn keeping(directory: &std::path::Path, grant: &str) -> Daemon {
    let kernel = Shared::default();
    kernel.get().older_rules = true;
    Daemon::start_keeping(kernel, grant, directory)
}

#[test]
fn the_next_daemon_installs_what_the_last_one_was_given_before_it_lets_go_of_the_old() {
    let directory = tempfile::tempdir().unwrap();
    let text = rule(7, "process_exec", "deny") + "file.digest_in = \"known\"\n";
    let daemon = keeping(directory.path(), &ruling(""));
    let mut client = session(&daemon);
    let digests = json!({ "name": "known", "digests": ["ab".repeat(32)] });
    client.ok("ReplaceCollection", digests.clone());
    client.ok("ReplaceCollection", json!({ "name": "other", "digests": [] }));
    client.ok("DropCollection", json!({ "name": "other" }));
    client.ok("InstallRules", install(&text));
    // As one that is killed: nobody says good-bye to the client.
    drop(daemon);

    let daemon = keeping(directory.path(), &ruling(""));
    assert_eq!(numbers(&daemon), [7]);
    assert!(!daemon.kernel.get().older_rules, "the old ones were not let go");
    assert!(daemon.kernel.get().rules[&slot()].allowed.contains(exec()), "they are not looked at");
    let mut root = daemon.connect();
    let shown = root.ok("GetRules", json!({}))["clients"][0].clone();
    assert_eq!((&shown["client"], &shown["connected"]), (&json!(CLIENT), &json!(false)));
    assert_eq!(shown["collections"], json!([{ "name": "known", "digests": 1 }]));
    let mut client = session(&daemon);
    assert_eq!(client.ok("GetRuleText", json!({}))["rules"], text);
    client.ok("InstallRules", install(""));
    drop((client, root, daemon));

    assert!(numbers(&keeping(directory.path(), &ruling(""))).is_empty());
}

#[test]
fn what_cannot_be_kept_or_installed_again_is_a_problem_that_root_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let text = rule(7, "process_exec", "deny");
    let daemon = keeping(directory.path(), &ruling(""));
    session(&daemon).ok("InstallRules", install(&text));
    drop(daemon);
    let problems = |daemon: &Daemon| {
        let status = daemon.connect().ok("GetStatus", json!({}));
        let all = status["problems"].as_array().unwrap().clone();
        let of_rules = all.into_iter().filter(|problem| problem["area"] == "rules");
        of_rules.map(|problem| problem["reason"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };

    // A grant that does not give it any more.
    let daemon = keeping(directory.path(), &grant(CLIENT, 1000));
    let told = problems(&daemon);
    assert!(told.len() == 1 && told[0].contains("rule 7"), "{told:?}");
    assert!(numbers(&daemon).is_empty());
    drop(daemon);

    // A kernel that keeps nothing.
    let kernel = Shared::default();
    kernel.get().failing = ["keep_rules", "let_go_of_older"].into();
    let daemon = Daemon::start_keeping(kernel, &ruling(""), directory.path());
    let told = problems(&daemon);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].contains("while ringfenced is not running"), "{told:?}");
    assert_eq!(numbers(&daemon), [7]);
    drop(daemon);

    // A file that somebody wrote to.
    std::fs::write(directory.path().join(CLIENT).join("rules.json"), "{").unwrap();
    let daemon = keeping(directory.path(), &ruling(""));
    let told = problems(&daemon);
    assert!(told.len() == 1 && told[0].contains("rules.json"), "{told:?}");
}

#[test]
fn rules_that_a_grant_does_not_give_any_more_are_not_kept_either() {
    let directory = tempfile::tempdir().unwrap();
    let daemon = keeping(directory.path(), &ruling(""));
    let mut client = session(&daemon);
    client.ok("InstallRules", install(&rule(7, "process_exec", "deny")));
    assert!(directory.path().join(CLIENT).exists());
    std::fs::remove_file(daemon.grants.join("test.toml")).unwrap();
    daemon.signal(libc::SIGHUP);
    let mut root = daemon.connect();
    let began = std::time::Instant::now();
    while root.ok("GetStatus", json!({}))["grants"] != 0 {
        assert!(began.elapsed().as_secs() < 30, "the grants are not read");
    }
    assert!(!directory.path().join(CLIENT).exists());
}
