// SPDX-License-Identifier: Apache-2.0
//! A grant as TOML: which keys there are, and nothing about what they may hold.
//!
//! Places are kept for everything that `check.rs` can object to. Unknown keys are refused, so a key
//! that comes later (tables `signature`, beside `identity`, and `protect`, beside `events`) never
//! was one that an older `ringfenced` passed over in silence.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) client: Spanned<String>,
    pub(super) altitude: Spanned<String>,
    #[serde(default)]
    pub(super) draft: bool,
    pub(super) identity: Spanned<Identity>,
    #[serde(default)]
    pub(super) watched: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) memory: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) scope: Option<Spanned<Scope>>,
    #[serde(default)]
    pub(super) limits: Limits,
    #[serde(default)]
    pub(super) demotion: Demotion,
    pub(super) events: Spanned<BTreeMap<Spanned<String>, Event>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Identity {
    pub(super) executable: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) sha256: Vec<Spanned<String>>,
    pub(super) uid: Option<Spanned<i64>>,
    pub(super) user: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Scope {
    pub(super) see: Spanned<String>,
    pub(super) cgroup: Option<Spanned<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Limits {
    pub(super) ring_bytes: Option<Spanned<i64>>,
    pub(super) max_rules: Option<Spanned<i64>>,
    pub(super) max_digests: Option<Spanned<i64>>,
    pub(super) max_muted: Option<Spanned<i64>>,
    pub(super) max_pending: Option<Spanned<i64>>,
    pub(super) max_cached: Option<Spanned<i64>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Demotion {
    pub(super) misses: Option<Spanned<i64>>,
    pub(super) seconds: Option<Spanned<i64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Event {
    pub(super) classes: Spanned<Vec<Spanned<String>>>,
    pub(super) deadline_ms: Option<Spanned<i64>>,
    #[serde(default)]
    pub(super) failure: Failure,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Failure {
    pub(super) deadline_missed: Option<Spanned<String>>,
    pub(super) queue_full: Option<Spanned<String>>,
    pub(super) client_died: Option<Spanned<String>>,
    pub(super) not_connected: Option<Spanned<String>>,
    pub(super) ringfenced_gone: Option<Spanned<String>>,
}
