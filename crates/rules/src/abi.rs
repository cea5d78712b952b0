// SPDX-License-Identifier: Apache-2.0
//! The layouts of bpf/lib/rules_abi.h, which says what the fields are. A test holds both to each
//! other by the BTF of the built object (crates/probes/src/rules/layout.rs).
#![allow(missing_docs, reason = "the fields are documented in bpf/lib/rules_abi.h")]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub const VERSION: u32 = 1;
pub const CLIENTS: usize = 64;
pub const COLLECTIONS: usize = 16;
pub const ROOTS: usize = 64;
pub const PROBES: u32 = 8;
pub const COLLECTION_PROBES: u32 = 32;
pub const CANDIDATES: usize = 4096;
pub const CONDITIONS: usize = 64;
pub const PREFIX: usize = 1024;
pub const LEVELS: usize = 64;
pub const NAME: usize = 56;

/// `RULES_KEY_...` and the conditions that nothing is found by.
pub mod kind {
    pub const ALWAYS: u8 = 0;
    pub const ACTOR: u8 = 1;
    pub const EXECUTABLE: u8 = 2;
    pub const FILE: u8 = 3;
    pub const TARGET: u8 = 4;
    pub const UID: u8 = 5;
    pub const EUID: u8 = 6;
    pub const GID: u8 = 7;
    pub const EGID: u8 = 8;
    pub const CGROUP: u8 = 9;
    pub const USER_NAMESPACE: u8 = 10;
    pub const PID_NAMESPACE: u8 = 11;
    pub const MOUNT_NAMESPACE: u8 = 12;
    pub const NET_NAMESPACE: u8 = 13;
    pub const OWN: u8 = 14;
    pub const NAME: u8 = 15;
    pub const SINGLE: u8 = 16;
    pub const LINEAGE: u8 = 16;
    pub const EXECUTABLE_PATH: u8 = 17;
    pub const FILE_PATH: u8 = 18;
    pub const EXECUTABLE_DIGEST: u8 = 19;
    pub const FILE_DIGEST: u8 = 20;
    pub const MASK: u8 = 21;
    pub const EXECUTABLE_PATH_UNKNOWN: u8 = 22;
    pub const FILE_PATH_UNKNOWN: u8 = 23;
}

/// `RULES_CONDITION_...`
pub mod flag {
    pub const OR: u8 = 1;
    pub const ALL: u8 = 2;
    pub const VERSION: u8 = 4;
}

/// 64 bytes, which all of a compiled set is made of.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Cell {
    pub words: [u64; 8],
}

macro_rules! cell {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $kind:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
        #[repr(C)]
        pub struct $name { $(pub $field: $kind),* }

        impl From<$name> for Cell {
            fn from(value: $name) -> Self {
                zerocopy::transmute!(value)
            }
        }

        impl From<Cell> for $name {
            fn from(cell: Cell) -> Self {
                zerocopy::transmute!(cell)
            }
        }
    };
}

cell! {
    /// `struct rules_set`
    Set {
        version: u32,
        cells: u32,
        rules: u32,
        index_at: u32,
        lists_at: u32,
        rules_at: u32,
        counters_at: u32,
        shards: u32,
        index_mask: u32,
        index_probes: u32,
        index_salt: u64,
        reserved: [u64; 2],
    }
}

cell! {
    /// `struct rules_type`
    Type {
        keys: u32,
        actor_collections: u16,
        file_collections: u16,
        lineage: u64,
        first: u32,
        deciding: u16,
        telling: u16,
        tells: u32,
        reserved: u32,
        reserved2: [u64; 4],
    }
}

/// `struct rules_entry`
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Entry {
    pub tag: u64,
    pub first: u32,
    pub deciding: u16,
    pub telling: u16,
}

cell! {
    /// `struct rules_rule`
    RuleCell {
        events: u64,
        id: u32,
        conditions_at: u32,
        conditions: u16,
        error: u16,
        action: u8,
        dry_run: u8,
        reserved: u16,
        reserved2: [u64; 5],
    }
}

pub const ALLOW: u8 = 1;
pub const DENY: u8 = 2;
pub const NOTIFY: u8 = 3;

cell! {
    /// `struct rules_condition`
    ConditionCell {
        kind: u8,
        flags: u8,
        count: u16,
        string_at: u32,
        values: [u64; 7],
    }
}

/// `struct rules_counter`
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Counter {
    pub matches: u64,
    pub denies: u64,
}

cell! {
    /// `struct rules_collection`
    Collection {
        version: u32,
        algorithm: u32,
        buckets: u32,
        probes: u32,
        salt: u64,
        count: u64,
        reserved: [u64; 4],
    }
}

/// `struct rules_event`
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Event {
    pub clients: u64,
    pub seed: u64,
}
