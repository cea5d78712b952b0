// SPDX-License-Identifier: Apache-2.0
//! What memory should hold.
//!
//! A baseline is made in one of two ways. From the kernel's image on disk
//! ([`BaselineKind::Image`]): the bytes are those that the boot code would have left. Or, where no
//! image of the running kernel exists, from the state at first check
//! ([`BaselineKind::FirstCheck`]): then it vouches only for what came later, and whoever had
//! changed the kernel before is in it. Both are held against the same tables of places that the
//! kernel itself patches, so neither ever needs to be taken anew after a legitimate change.
//!
//! A baseline of the first check lives in a file ([`seal`]); its bytes are used in place, so the
//! caller may map the file and pay for no second copy of 30 MB.

pub mod image;
pub(crate) mod its;
pub mod machine;
mod parts;
pub mod pointers;
pub mod seal;
pub mod take;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::OnceLock;

use kernel_memory::Kernel;
use serde::Serialize;

pub use seal::SealError;
pub use take::TakeError;

use crate::sites::Sites;

/// Where the expected bytes came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BaselineKind {
    /// The image on disk, as the boot code changes it.
    Image,
    /// Memory, when the guard first looked.
    FirstCheck,
}

impl fmt::Display for BaselineKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Image => "image",
            Self::FirstCheck => "first-check",
        })
    }
}

/// Which run of which kernel a baseline is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Identity {
    /// The release, as `uname -r` says.
    pub release: String,
    /// The build id of vmlinux, in hexadecimal (note `NT_GNU_BUILD_ID` of /sys/kernel/notes).
    pub build_id: String,
    /// The id of this boot (/proc/sys/kernel/random/boot_id).
    pub boot_id: String,
}

/// Parts of a kernel that hold expected bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RegionKind {
    /// `_stext` to `_etext`.
    Text,
    /// `__start_rodata` to `__end_rodata`, or to the end of what the linker put before it.
    Rodata,
}

impl RegionKind {
    /// Its name in reports and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Rodata => "rodata",
        }
    }
}

/// A range of addresses and what it should hold.
#[derive(Clone, Copy, Debug)]
pub struct Region<'a> {
    /// Which part of the kernel it is.
    pub kind: RegionKind,
    /// The virtual address of the first byte.
    pub start: u64,
    /// The bytes as they should be.
    pub bytes: &'a [u8],
}

impl Region<'_> {
    /// The address after the last byte.
    pub fn end(&self) -> u64 {
        self.start.saturating_add(self.bytes.len() as u64)
    }

    /// Whether `address` lies within.
    pub fn holds(&self, address: u64) -> bool {
        (self.start..self.end()).contains(&address)
    }
}

/// Where a region's bytes lie in what the baseline was opened from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Placed {
    kind: RegionKind,
    start: u64,
    offset: usize,
    length: usize,
}

/// What memory should hold, and facts noted when that was first seen.
pub struct Baseline {
    kind: BaselineKind,
    identity: Identity,
    taken_at: u64,
    facts: BTreeMap<String, String>,
    digest: [u8; 32],
    regions: Vec<Placed>,
    bytes: Box<dyn AsRef<[u8]> + Send + Sync>,
    sites: OnceLock<Sites>,
}

impl fmt::Debug for Baseline {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Baseline")
            .field("kind", &self.kind)
            .field("identity", &self.identity)
            .field("taken_at", &self.taken_at)
            .field("regions", &self.regions)
            .finish_non_exhaustive()
    }
}

impl Baseline {
    /// Where the expected bytes came from.
    pub fn kind(&self) -> BaselineKind {
        self.kind
    }

    /// Which run of which kernel it is about.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// When it was taken, in seconds since 1970.
    pub fn taken_at(&self) -> u64 {
        self.taken_at
    }

    /// The SHA-256 of everything in it, in hexadecimal.
    pub fn digest(&self) -> String {
        self.digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// A value that was noted under this name when the baseline was taken.
    pub fn fact(&self, name: &str) -> Option<&str> {
        self.facts.get(name).map(String::as_str)
    }

    /// All noted values by name.
    pub fn facts(&self) -> &BTreeMap<String, String> {
        &self.facts
    }

    /// A region, if the baseline has it.
    pub fn region(&self, kind: RegionKind) -> Option<Region<'_>> {
        self.regions().find(|region| region.kind == kind)
    }

    /// All regions in order of address.
    pub fn regions(&self) -> impl Iterator<Item = Region<'_>> {
        let bytes: &[u8] = (*self.bytes).as_ref();
        self.regions.iter().filter_map(move |placed| {
            let bytes = bytes.get(placed.offset..placed.offset.checked_add(placed.length)?)?;
            Some(Region { kind: placed.kind, start: placed.start, bytes })
        })
    }

    /// The region that holds `address`.
    pub fn region_of(&self, address: u64) -> Option<Region<'_>> {
        self.regions().find(|region| region.holds(address))
    }

    /// The expected bytes of `[address, address + length)`, where one region holds all of them.
    pub fn bytes_at(&self, address: u64, length: usize) -> Option<&[u8]> {
        let region = self.region_of(address)?;
        let offset = usize::try_from(address.checked_sub(region.start)?).ok()?;
        region.bytes.get(offset..offset.checked_add(length)?)
    }

    /// The places in the text that the kernel itself patches, from the tables in this baseline.
    /// They are gathered at the first call and kept.
    pub fn sites(&self, kernel: &Kernel<'_>) -> &Sites {
        self.sites.get_or_init(|| Sites::gather(self, kernel))
    }
}
