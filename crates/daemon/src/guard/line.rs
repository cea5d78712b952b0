// SPDX-License-Identifier: Apache-2.0
//! A line of the guard: what `ringfence watch --json` prints (docs/check-report.schema.json,
//! `#/$defs/watch_event`). Of a finding only what tells it from others is read; all of it goes to
//! clients as it came. Events and fields that are not known here are skipped.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

/// What a line tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It begins to look.
    Start,
    /// A pass, or more of one, has ended.
    Pass {
        /// Counted from 1.
        number: u64,
        /// Checks that could not run, as "name: why".
        unavailable: Vec<String>,
        /// All that were due.
        ran: Vec<String>,
    },
    /// Something is not as it must be.
    Finding(Box<Finding>),
    /// It is so no more.
    Cleared(Box<Finding>),
    /// What is of no concern here.
    Other,
}

/// A finding as the guard tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What tells it from all others.
    pub key: Key,
    /// All of it, as JSON.
    pub json: String,
}

/// Findings with the same key are one; as `guard::watch` has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Key {
    /// Name of the check.
    pub check: String,
    /// Name of the technique.
    pub technique: String,
    symbol: Option<String>,
    address: String,
    expected: String,
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    number: Option<u64>,
    #[serde(default)]
    checks: Vec<Check>,
    #[serde(borrow)]
    finding: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Check {
    name: String,
    status: String,
    reason: Option<String>,
}

/// Reads a line; the error says what is wrong with it.
pub fn parse(line: &[u8]) -> Result<Event, String> {
    let line: Line<'_> = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let finding = || -> Result<Box<Finding>, String> {
        let json = line.finding.ok_or("a finding is missing")?.get();
        let key = serde_json::from_str(json).map_err(|error| error.to_string())?;
        Ok(Box::new(Finding { key, json: json.to_owned() }))
    };
    Ok(match &*line.event {
        "start" => Event::Start,
        "pass" => {
            let number = line.number.ok_or("a pass without a number")?;
            let lacking = line.checks.iter().filter(|check| check.status == "unavailable");
            let unavailable = lacking
                .map(|check| {
                    format!("{}: {}", check.name, check.reason.as_deref().unwrap_or("no reason"))
                })
                .collect();
            let ran = line.checks.into_iter().map(|check| check.name).collect();
            Event::Pass { number, unavailable, ran }
        }
        "finding" => Event::Finding(finding()?),
        "cleared" => Event::Cleared(finding()?),
        _ => Event::Other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_passed_on_as_it_came() {
        let json = r#"{"check":"text","symbol":"f","offset":5,"address":"0xff","expected":"90",
            "seen":"cc","technique":"early return","owner":null,"evidence":[], "new": {"a": 1}}"#;
        let line =
            format!(r#"{{"event":"finding","time":"2026-11-26T12:13:28.758Z","finding":{json}}}"#);
        let Event::Finding(finding) = parse(line.as_bytes()).unwrap() else { panic!("no finding") };
        assert_eq!(finding.json, json);
        assert_eq!((&*finding.key.check, &*finding.key.technique), ("text", "early return"));
        let cleared = line.replace("\"event\":\"finding\"", "\"event\":\"cleared\"");
        assert_eq!(parse(cleared.as_bytes()), Ok(Event::Cleared(finding)));
    }

    #[test]
    fn a_pass_says_which_checks_cannot_run() {
        let line = br#"{"event":"pass","number":7,"checks":[
            {"name":"text","status":"ok","reason":null,"elapsed_us":1},
            {"name":"idt","status":"unavailable","reason":"no symbol","elapsed_us":1}]}"#;
        let expected = Event::Pass {
            number: 7,
            unavailable: vec!["idt: no symbol".into()],
            ran: vec!["text".into(), "idt".into()],
        };
        assert_eq!(parse(line), Ok(expected));
    }

    #[test]
    fn what_is_not_known_is_skipped_and_what_is_no_event_is_refused() {
        assert_eq!(parse(br#"{"event":"journal","what":"x"}"#), Ok(Event::Other));
        assert_eq!(parse(br#"{"event":"in \u0061 later version"}"#), Ok(Event::Other));
        for wrong in [
            &b""[..],
            b"ringfence: no privilege",
            b"{}",
            b"[1]",
            b"\xff\xfe",
            br#"{"event":"pass"}"#,
            br#"{"event":"pass","number":-1}"#,
            br#"{"event":"finding"}"#,
            br#"{"event":"finding","finding":null}"#,
            br#"{"event":"finding","finding":{"check":"text"}}"#,
        ] {
            assert!(parse(wrong).is_err(), "{}", String::from_utf8_lossy(wrong));
        }
    }
}
