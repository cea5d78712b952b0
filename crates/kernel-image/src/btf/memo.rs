// SPDX-License-Identifier: Apache-2.0
//! Answers that were given before.
//!
//! Types are asked for by names, and a check that runs each second asks for the same some hundred of
//! them each time. To find a member takes a walk over the members before it, whose names lie all over
//! the strings; an answer that is kept takes neither.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::{Place, TypeId};

/// Names of each kind that are kept: more than a program knows. Those behind are looked up anew.
const MOST: usize = 8192;

/// See the module. A copy starts empty.
#[derive(Debug, Default)]
pub(super) struct Memo(Mutex<Answers>);

#[derive(Debug, Default)]
struct Answers {
    types: HashMap<Box<str>, Option<TypeId>>,
    /// By path, as few types have members of one name.
    places: HashMap<Box<str>, Vec<(TypeId, Option<Place>)>>,
}

impl Clone for Memo {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Memo {
    /// The answer to which type has this name.
    pub(super) fn type_named(
        &self,
        name: &str,
        find: impl FnOnce() -> Option<TypeId>,
    ) -> Option<TypeId> {
        if let Some(known) = self.answers().types.get(name) {
            return *known;
        }
        let found = find();
        let types = &mut self.answers().types;
        if types.len() < MOST {
            types.insert(name.into(), found);
        }
        found
    }

    /// The answer to where a type has what this path leads to.
    pub(super) fn place(
        &self,
        of: TypeId,
        path: &str,
        find: impl FnOnce() -> Option<Place>,
    ) -> Option<Place> {
        if let Some(known) = self.answers().places.get(path)
            && let Some((_, place)) = known.iter().find(|(known, _)| *known == of)
        {
            return *place;
        }
        let found = find();
        let places = &mut self.answers().places;
        if let Some(known) = places.get_mut(path) {
            if known.len() < MOST {
                known.push((of, found));
            }
        } else if places.len() < MOST {
            places.insert(path.into(), vec![(of, found)]);
        }
        found
    }

    fn answers(&self) -> std::sync::MutexGuard<'_, Answers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_found_once_for_each_type_and_path() {
        let memo = Memo::default();
        let place =
            |of: u32, bits| Some(Place { type_id: TypeId(of), bit_offset: bits, bit_size: 0 });
        let another = || place(8, 128);
        assert_eq!(memo.place(TypeId(1), "next", || place(7, 64)), place(7, 64));
        assert_eq!(memo.place(TypeId(2), "next", || None), None);
        assert_eq!(memo.place(TypeId(1), "next", another), place(7, 64));
        assert_eq!(memo.place(TypeId(2), "next", another), None);
        assert_eq!(memo.type_named("list_head", || Some(TypeId(3))), Some(TypeId(3)));
        assert_eq!(memo.type_named("list_head", || Some(TypeId(4))), Some(TypeId(3)));
    }
}
