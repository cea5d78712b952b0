// SPDX-License-Identifier: Apache-2.0
//! One tree for TOML and JSON, with places, so that one reader serves both.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::{Place, Problem, Refused};

/// Longest document, in bytes.
pub(crate) const DOCUMENT: usize = 16 * 1024 * 1024;

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) place: Option<Place>,
    pub(crate) value: Value,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    Text(String),
    Integer(i128),
    Boolean(bool),
    List(Vec<Node>),
    /// Names in order, each once in TOML; JSON can have one twice.
    Table(Vec<(String, Node)>),
    /// What no rule has: what it is called.
    Other(&'static str),
}

impl Value {
    /// For people.
    pub(crate) fn called(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Boolean(_) => "a boolean",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Other(name) => name,
        }
    }
}

fn too_long(text: &str) -> Result<(), Refused> {
    if text.len() > DOCUMENT {
        return Err(Refused::whole(format!(
            "{} bytes are more than the 16 MiB that a rule set can have",
            text.len()
        )));
    }
    Ok(())
}

pub(crate) fn from_toml(text: &str) -> Result<Node, Refused> {
    too_long(text)?;
    let lines = Lines::new(text);
    match DeTable::parse(text) {
        Ok(table) => Ok(of_table(table.get_ref(), lines.place(table.span().start), &lines)),
        Err(error) => Err(Refused {
            problems: vec![Problem {
                place: error.span().map(|span| lines.place(span.start)),
                path: String::new(),
                message: error.message().to_owned(),
            }],
        }),
    }
}

fn of_table(table: &DeTable<'_>, place: Place, lines: &Lines<'_>) -> Node {
    let entries = table.iter().map(|(name, value)| {
        let mut node = of_value(value, lines);
        // A table is where its name is; libraries say so of some kinds of tables only.
        if matches!(node.value, Value::Table(_)) {
            node.place = Some(lines.place(name.span().start));
        }
        (name.get_ref().to_string(), node)
    });
    let mut entries: Vec<_> = entries.collect();
    // The parser sorts by name.
    entries.sort_by_key(|(_, node)| node.place);
    Node { place: Some(place), value: Value::Table(entries) }
}

fn of_value(value: &Spanned<DeValue<'_>>, lines: &Lines<'_>) -> Node {
    let place = lines.place(value.span().start);
    let value = match value.get_ref() {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(integer) => i128::from_str_radix(integer.as_str(), integer.radix())
            .map_or(Value::Other("an integer that is too large"), Value::Integer),
        DeValue::Float(_) => Value::Other("a floating-point number"),
        DeValue::Boolean(truth) => Value::Boolean(*truth),
        DeValue::Datetime(_) => Value::Other("a date"),
        DeValue::Array(list) => {
            Value::List(list.iter().map(|value| of_value(value, lines)).collect())
        }
        DeValue::Table(table) => return of_table(table, place, lines),
    };
    Node { place: Some(place), value }
}

/// Where lines begin.
struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn new(text: &'a str) -> Self {
        let after =
            text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Self { text, starts: std::iter::once(0).chain(after).collect() }
    }

    fn place(&self, at: usize) -> Place {
        let line = self.starts.partition_point(|start| *start <= at).max(1);
        let start = self.starts.get(line - 1).copied().unwrap_or_default();
        let before = self.text.get(start..at).unwrap_or_default();
        let counted = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Place { line: counted(line), column: counted(before.chars().count() + 1) }
    }
}

pub(crate) fn from_json(text: &str) -> Result<Node, Refused> {
    too_long(text)?;
    serde_json::from_str(text).map_err(|error| {
        let counted = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let place = Place { line: counted(error.line()), column: counted(error.column()) };
        let message = error.to_string();
        // What it says ends with the place.
        let message = message.split(" at line ").next().unwrap_or(&message).to_owned();
        Refused { problems: vec![Problem { place: Some(place), path: String::new(), message }] }
    })
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = deserializer.deserialize_any(ValueVisitor)?;
        Ok(Self { place: None, value })
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Value, E> {
        Ok(Value::Boolean(truth))
    }

    fn visit_i64<E>(self, integer: i64) -> Result<Value, E> {
        Ok(Value::Integer(integer.into()))
    }

    fn visit_u64<E>(self, integer: u64) -> Result<Value, E> {
        Ok(Value::Integer(integer.into()))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
        Ok(Value::Other("a floating-point number"))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Other("null"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = list.next_element()? {
            nodes.push(node);
        }
        Ok(Value::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        let mut seen = std::collections::HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if !seen.insert(name.clone()) {
                return Err(de::Error::custom(format!("{name:?} is there twice")));
            }
            entries.push((name, map.next_value()?));
        }
        Ok(Value::Table(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_lines_and_columns_of_characters() {
        let node = from_toml("a = 1\n[b]\n\"ä\" = [1, 0x10]\n").unwrap();
        let Value::Table(entries) = node.value else { panic!() };
        assert_eq!(entries[0].1.place, Some(Place { line: 1, column: 5 }));
        assert_eq!(entries[1].1.place, Some(Place { line: 2, column: 2 }));
        let Value::Table(inner) = &entries[1].1.value else { panic!() };
        let Value::List(list) = &inner[0].1.value else { panic!() };
        assert_eq!(list[1].place, Some(Place { line: 3, column: 11 }));
        assert!(matches!(list[1].value, Value::Integer(16)));
    }

    #[test]
    fn what_is_no_document_is_refused_with_its_place() {
        let error = from_toml("a = 1\nb = = 2\n").unwrap_err();
        assert_eq!(error.problems[0].place.unwrap().line, 2);
        let error = from_json("{\"a\": 1,\n \"a\": 2}").unwrap_err();
        assert_eq!(error.to_string(), "line 2, column 4: \"a\" is there twice");
    }

    #[test]
    fn nothing_nests_so_deep_that_the_stack_ends() {
        let deep = "[".repeat(100_000);
        assert!(from_json(&deep).is_err());
        assert!(from_toml(&format!("a = {deep}")).is_err());
    }
}
