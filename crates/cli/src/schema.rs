// SPDX-License-Identifier: Apache-2.0
//! The published schema, for tests: what is written must follow it. The tests of the command
//! include this file too.

use jsonschema::Validator;
use serde_json::{Value, json};

const SCHEMA: &str = include_str!("../../../docs/check-report.schema.json");

/// The schema as it is published.
pub(crate) fn document() -> Value {
    serde_json::from_str(SCHEMA).unwrap()
}

/// The schema of `check --json`.
pub(crate) fn report() -> Validator {
    jsonschema::draft202012::new(&document()).unwrap()
}

/// The schema of a line of `watch --json`.
pub(crate) fn watch_event() -> Validator {
    let mut document = document();
    let definitions = document["$defs"].take();
    let schema = json!({ "$ref": "#/$defs/watch_event", "$defs": definitions });
    jsonschema::draft202012::new(&schema).unwrap()
}

/// Fails with all that is wrong with `value`.
pub(crate) fn assert_follows(schema: &Validator, value: &Value) {
    let errors: Vec<_> = schema
        .iter_errors(value)
        .map(|error| format!("{} at {}", error, error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{}\n{value:#}", errors.join("\n"));
}
