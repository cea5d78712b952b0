// SPDX-License-Identifier: Apache-2.0
//! How much of everything a client gets, and within which bounds a grant can say it.

use std::time::Duration;

/// From, to and what holds where a grant says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The smallest value.
    pub least: u32,
    /// The largest value.
    pub most: u32,
    /// Without the key.
    pub default: u32,
}

/// Bytes of a ring; at least eight of the longest records (RINGFENCE_RECORD_MAX).
pub const RING_BYTES: Bounds = Bounds { least: 128 << 10, most: 64 << 20, default: 1 << 20 };
/// Rules that a client can have at once.
pub const MAX_RULES: Bounds = Bounds { least: 0, most: 16_384, default: 1000 };
/// Digests in all collections of a client together.
pub const MAX_DIGESTS: Bounds = Bounds { least: 0, most: 16_000_000, default: 100_000 };
/// Mutes that a client can have at once.
pub const MAX_MUTED: Bounds = Bounds { least: 0, most: 4096, default: 256 };
/// Questions that a client can have open at once.
pub const MAX_PENDING: Bounds = Bounds { least: 1, most: 512, default: 64 };
/// Verdicts of a client that are cached at once.
pub const MAX_CACHED: Bounds = Bounds { least: 0, most: 65_536, default: 4096 };
/// Milliseconds that a client has for an answer.
pub const DEADLINE_MS: Bounds = Bounds { least: 10, most: 60_000, default: 1000 };
/// Deadlines that a client can miss within a minute before it is not asked any more.
pub const DEMOTION_MISSES: Bounds = Bounds { least: 3, most: 100, default: 5 };
/// Seconds for which it is not asked then, the first time.
pub const DEMOTION_SECONDS: Bounds = Bounds { least: 10, most: 3600, default: 60 };

/// How much a client gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// See [`RING_BYTES`]; a power of two.
    pub ring_bytes: u32,
    /// See [`MAX_RULES`].
    pub max_rules: u32,
    /// See [`MAX_DIGESTS`].
    pub max_digests: u32,
    /// See [`MAX_MUTED`].
    pub max_muted: u32,
    /// See [`MAX_PENDING`].
    pub max_pending: u32,
    /// See [`MAX_CACHED`].
    pub max_cached: u32,
}

/// When a client loses `ask`, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DemotionLimits {
    /// See [`DEMOTION_MISSES`].
    pub misses: u32,
    /// See [`DEMOTION_SECONDS`].
    pub period: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            ring_bytes: RING_BYTES.default,
            max_rules: MAX_RULES.default,
            max_digests: MAX_DIGESTS.default,
            max_muted: MAX_MUTED.default,
            max_pending: MAX_PENDING.default,
            max_cached: MAX_CACHED.default,
        }
    }
}

impl Default for DemotionLimits {
    fn default() -> Self {
        Self {
            misses: DEMOTION_MISSES.default,
            period: Duration::from_secs(u64::from(DEMOTION_SECONDS.default)),
        }
    }
}
