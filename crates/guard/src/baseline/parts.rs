// SPDX-License-Identifier: Apache-2.0
//! A baseline for code that is not the kernel's own text.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use super::{Baseline, BaselineKind, Identity, Placed, RegionKind};
use crate::sites::Sites;

impl Baseline {
    /// What a module's text and read-only data should hold, made from its file, with the places in
    /// the text that the kernel patches. Everything that compares with a baseline then works on the
    /// module as it does on the kernel.
    pub(crate) fn of_module(text: (u64, Vec<u8>), rodata: (u64, Vec<u8>), sites: Sites) -> Self {
        let placed = |kind, start, offset, length| Placed { kind, start, offset, length };
        let (mut bytes, length) = (text.1, rodata.1.len());
        let regions = vec![
            placed(RegionKind::Text, text.0, 0, bytes.len()),
            placed(RegionKind::Rodata, rodata.0, bytes.len(), length),
        ];
        bytes.extend(rodata.1);
        Self {
            kind: BaselineKind::Image,
            identity: Identity::default(),
            taken_at: 0,
            facts: BTreeMap::new(),
            digest: [0; 32],
            regions,
            bytes: Box::new(bytes),
            sites: OnceLock::from(sites),
        }
    }
}
