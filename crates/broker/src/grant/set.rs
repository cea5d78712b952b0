// SPDX-License-Identifier: Apache-2.0
//! All grants, and how they change when files do.
//!
//! An administrator edits one file, and makes a mistake: nothing else may suffer. So a file that is
//! wrong leaves what was granted by it before, and of two files that exclude each other the one that
//! was there first, or did not change, stays.

use std::collections::BTreeMap;

use super::{Grant, GrantError};

/// Grants of which no two have the same client or altitude.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    by_file: BTreeMap<String, Grant>,
}

/// What a file wants to become.
struct Wish {
    file: String,
    grant: Grant,
    rank: Rank,
}

/// Who goes first where two exclude each other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// As it was: unchanged, or its file is wrong now, or its change was refused.
    Kept,
    Changed,
    New,
}

impl Grants {
    /// Reads files, given by name and text.
    ///
    /// The second part is all that is wrong; files without errors are granted.
    #[must_use]
    pub fn load(files: Vec<(String, String)>) -> (Self, Vec<GrantError>) {
        Self::default().reload(files)
    }

    /// Reads files again. A file that is not among them any more grants nothing; one that is
    /// wrong, or excludes another, goes on granting what it did.
    #[must_use]
    pub fn reload(&self, files: Vec<(String, String)>) -> (Self, Vec<GrantError>) {
        let mut errors = Vec::new();
        let mut wishes = Vec::new();
        for (file, text) in files {
            let old = self.by_file.get(&file);
            let (grant, rank) = match (Grant::parse(&file, &text), old) {
                (Ok(new), None) => (new, Rank::New),
                (Ok(new), Some(old)) if same(&new, old) => (new, Rank::Kept),
                (Ok(new), Some(_)) => (new, Rank::Changed),
                (Err(found), old) => {
                    errors.extend(found);
                    let Some(old) = old else { continue };
                    (old.clone(), Rank::Kept)
                }
            };
            wishes.push(Wish { file, grant, rank });
        }
        // Each turn but the last puts one more file back to what it was. What was is free of
        // conflicts, so there is a last turn.
        loop {
            wishes.sort_by(|one, other| (one.rank, &one.file).cmp(&(other.rank, &other.file)));
            let (refused, objections) = conflicts(&wishes);
            let back = refused.iter().find(|at| wishes[**at].rank == Rank::Changed).copied();
            let Some(at) = back else {
                errors.extend(objections);
                let granted =
                    wishes.into_iter().enumerate().filter(|(at, _)| !refused.contains(at));
                let by_file = granted.map(|(_, wish)| (wish.file, wish.grant)).collect();
                errors.sort_by(|one, other| one.place.cmp(&other.place));
                return (Self { by_file }, errors);
            };
            let wish = &mut wishes[at];
            errors.extend(objections.into_iter().filter(|error| error.place.file == wish.file));
            wish.rank = Rank::Kept;
            if let Some(old) = self.by_file.get(&wish.file) {
                wish.grant = old.clone();
            }
        }
    }

    /// The grants, from the highest altitude.
    #[must_use]
    pub fn by_altitude(&self) -> Vec<&Grant> {
        let mut grants: Vec<_> = self.by_file.values().collect();
        grants.sort_by(|one, other| other.altitude.cmp(&one.altitude));
        grants
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_file.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_file.is_empty()
    }
}

/// Whether they grant the same, wherever it stands in the file.
fn same(new: &Grant, old: &Grant) -> bool {
    let moved = Grant {
        place: old.place.clone(),
        altitude_place: old.altitude_place.clone(),
        ..new.clone()
    };
    moved == *old
}

/// Which wishes exclude one that goes before them, and why.
fn conflicts(wishes: &[Wish]) -> (Vec<usize>, Vec<GrantError>) {
    let mut taken: Vec<&Grant> = Vec::new();
    let mut refused = Vec::new();
    let mut errors = Vec::new();
    for (at, Wish { grant, .. }) in wishes.iter().enumerate() {
        let before = errors.len();
        if let Some(other) = taken.iter().find(|other| other.client == grant.client) {
            errors.push(GrantError {
                place: grant.place.clone(),
                message: format!("{} has a grant already, at {}", grant.client, other.place),
                help: "a client has one grant: put both into one file, or choose another id"
                    .to_owned(),
            });
        }
        if let Some(other) = taken.iter().find(|other| other.altitude == grant.altitude) {
            errors.push(GrantError {
                place: grant.altitude_place.clone(),
                message: format!(
                    "altitude {} is that of {} already, at {}",
                    grant.altitude, other.client, other.altitude_place
                ),
                help: format!(
                    "choose another; there is room: \"{}{}5\" is just above it",
                    grant.altitude,
                    if grant.altitude.to_string().contains('.') { "" } else { "." }
                ),
            });
        }
        if errors.len() == before { taken.push(grant) } else { refused.push(at) }
    }
    (refused, errors)
}
