// SPDX-License-Identifier: Apache-2.0
//! Takes values of the kind that is wanted out of the tree, and keeps what was wrong.

use crate::error::{Problem, Refused};
use crate::names::{self, Names};
use crate::source::{Node, Value};

/// Most alternatives of one condition.
const ALTERNATIVES: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct Reader {
    pub(crate) problems: Vec<Problem>,
}

/// A value with the way to it.
#[derive(Clone, Debug)]
pub(crate) struct Item<'a> {
    pub(crate) node: &'a Node,
    pub(crate) path: String,
}

impl<'a> Item<'a> {
    pub(crate) fn whole(node: &'a Node) -> Self {
        Self { node, path: String::new() }
    }
}

/// A table of which all names are known.
#[derive(Debug)]
pub(crate) struct Table<'a> {
    pub(crate) item: Item<'a>,
    entries: &'a [(String, Node)],
}

impl<'a> Table<'a> {
    pub(crate) fn get(&self, name: &str) -> Option<Item<'a>> {
        let (_, node) = self.entries.iter().find(|(known, _)| known == name)?;
        Some(Item { node, path: below(&self.item.path, name) })
    }
}

impl Table<'_> {
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

fn below(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

impl Reader {
    pub(crate) fn wrong(&mut self, item: &Item<'_>, message: String) {
        // A bound, because a list can have a million wrong items.
        if self.problems.len() < 4 * Refused::SHOWN {
            self.problems.push(Problem {
                place: item.node.place,
                path: item.path.clone(),
                message,
            });
        }
    }

    fn unlike(&mut self, item: &Item<'_>, wanted: &str) {
        self.wrong(item, format!("{wanted} is wanted here, not {}", item.node.value.called()));
    }

    pub(crate) fn table<'a>(&mut self, item: &Item<'a>, known: &[&str]) -> Option<Table<'a>> {
        let Value::Table(entries) = &item.node.value else {
            self.unlike(item, "a table");
            return None;
        };
        for (name, node) in entries {
            if !known.contains(&name.as_str()) {
                let here = Item { node, path: below(&item.path, name) };
                self.wrong(
                    &here,
                    format!("there is no such field; there are {}", known.join(", ")),
                );
            }
        }
        Some(Table { item: item.clone(), entries })
    }

    pub(crate) fn required<'a>(&mut self, table: &Table<'a>, name: &str) -> Option<Item<'a>> {
        let found = table.get(name);
        if found.is_none() {
            self.wrong(&table.item, format!("the field {name} is missing"));
        }
        found
    }

    pub(crate) fn list<'a>(&mut self, item: &Item<'a>) -> Option<Vec<Item<'a>>> {
        let Value::List(nodes) = &item.node.value else {
            self.unlike(item, "a list");
            return None;
        };
        let numbered = nodes.iter().enumerate();
        let path = &item.path;
        Some(numbered.map(|(at, node)| Item { node, path: format!("{path}[{at}]") }).collect())
    }

    /// A value by itself, or a list of some.
    pub(crate) fn one_or_more<'a>(&mut self, item: &Item<'a>) -> Option<Vec<Item<'a>>> {
        if !matches!(item.node.value, Value::List(_)) {
            return Some(vec![item.clone()]);
        }
        let items = self.list(item)?;
        if items.is_empty() {
            self.wrong(item, "an empty list would never match".to_owned());
            return None;
        }
        if items.len() > ALTERNATIVES {
            let message = format!("{} alternatives are more than {ALTERNATIVES}", items.len());
            self.wrong(item, message);
            return None;
        }
        Some(items)
    }

    /// All alternatives read by `read`; none if one is wrong.
    pub(crate) fn all<'a, T>(
        &mut self,
        item: &Item<'a>,
        mut read: impl FnMut(&mut Self, &Item<'a>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let items = self.one_or_more(item)?;
        items.iter().map(|item| read(self, item)).collect()
    }

    pub(crate) fn text<'a>(&mut self, item: &Item<'a>) -> Option<&'a str> {
        let Value::Text(text) = &item.node.value else {
            self.unlike(item, "a string");
            return None;
        };
        Some(text)
    }

    pub(crate) fn truth(&mut self, item: &Item<'_>) -> Option<bool> {
        let Value::Boolean(truth) = item.node.value else {
            self.unlike(item, "true or false");
            return None;
        };
        Some(truth)
    }

    /// An integer from `least` to `most`. TOML ends at 2^63 - 1, so it can be a string of digits.
    pub(crate) fn integer(&mut self, item: &Item<'_>, least: u64, most: u64) -> Option<u64> {
        let number = match &item.node.value {
            Value::Integer(number) => Some(*number),
            Value::Text(text) if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => {
                text.parse().ok()
            }
            _ => {
                self.unlike(item, "an integer");
                return None;
            }
        };
        let fits = number.and_then(|number| u64::try_from(number).ok());
        let fits = fits.filter(|number| (least..=most).contains(number));
        if fits.is_none() {
            self.wrong(item, format!("an integer from {least} to {most} is wanted here"));
        }
        fits
    }

    /// A number, or a name of one.
    pub(crate) fn named(&mut self, item: &Item<'_>, names: Names) -> Option<u32> {
        if let Value::Text(text) = &item.node.value
            && !text.bytes().all(|byte| byte.is_ascii_digit())
        {
            let number = names::number(names, text);
            if number.is_none() {
                let known = names::listed(names);
                let known = if known.is_empty() { "a number is wanted".to_owned() } else { known };
                self.wrong(item, format!("{text:?} is no known name: {known}"));
            }
            return number;
        }
        self.integer(item, 0, u32::MAX.into()).and_then(|number| u32::try_from(number).ok())
    }
}
