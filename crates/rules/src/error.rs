// SPDX-License-Identifier: Apache-2.0
//! What is wrong with a rule set, for people.

use std::fmt;

/// A place in a text, both counted from 1; columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Line.
    pub line: u32,
    /// Column.
    pub column: u32,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where in the text; JSON over the control interface has none.
    pub place: Option<Place>,
    /// Where in the document, such as `rule[3].actor.uid`; empty for all of it.
    pub path: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Place { line, column }) = self.place {
            write!(f, "line {line}, column {column}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// Why a rule set was refused: all of it, and nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", listed(.problems))]
pub struct Refused {
    /// What is wrong, in the order of the text; at least one, and no more than
    /// [`Refused::SHOWN`].
    pub problems: Vec<Problem>,
}

impl Refused {
    /// How many problems are told of at once.
    pub const SHOWN: usize = 20;

    /// One problem with the set as a whole.
    pub(crate) fn whole(message: String) -> Self {
        Self { problems: vec![Problem { place: None, path: String::new(), message }] }
    }
}

fn listed(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}
