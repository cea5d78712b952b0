// SPDX-License-Identifier: Apache-2.0
//! Reads the text of a varlink interface, and holds values to it.

use std::collections::BTreeMap;

use serde_json::Value;

/// What a field can be.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Type {
    Bool,
    Int,
    Text,
    Optional(Box<Type>),
    List(Box<Type>),
    Named(String),
    Enumeration(Vec<String>),
    Structure(BTreeMap<String, Type>),
}

/// An interface.
#[derive(Debug, Default)]
pub(crate) struct Interface {
    pub(crate) name: String,
    pub(crate) types: BTreeMap<String, Type>,
    /// Parameters and results.
    pub(crate) methods: BTreeMap<String, (Type, Type)>,
    pub(crate) errors: BTreeMap<String, Type>,
}

struct Reader<'a> {
    tokens: std::iter::Peekable<std::vec::IntoIter<&'a str>>,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str) -> Self {
        let mut tokens = Vec::new();
        for line in text.lines() {
            let mut rest = line.split('#').next().unwrap().trim();
            while !rest.is_empty() {
                let mark = ["->", "[]", "?", "(", ")", ":", ","];
                let token = mark.into_iter().find(|mark| rest.starts_with(mark));
                let length = token.map_or_else(
                    || rest.find(|c: char| !c.is_alphanumeric() && c != '.' && c != '_'),
                    |token| Some(token.len()),
                );
                let (token, after) = rest.split_at(length.unwrap_or(rest.len()));
                assert!(!token.is_empty(), "what is {rest:?}?");
                tokens.push(token);
                rest = after.trim_start();
            }
        }
        Self { tokens: tokens.into_iter().peekable() }
    }

    fn next(&mut self) -> &'a str {
        self.tokens.next().expect("more text")
    }

    fn is_next(&mut self, token: &str) -> bool {
        self.tokens.next_if(|next| *next == token).is_some()
    }

    fn expect(&mut self, token: &str) {
        assert_eq!(self.next(), token);
    }

    fn ty(&mut self) -> Type {
        if self.is_next("?") {
            return Type::Optional(Box::new(self.ty()));
        }
        if self.is_next("[]") {
            return Type::List(Box::new(self.ty()));
        }
        match self.next() {
            "bool" => Type::Bool,
            "int" => Type::Int,
            "string" => Type::Text,
            "(" => self.fields(),
            name => Type::Named(name.to_owned()),
        }
    }

    /// After the opening bracket.
    fn fields(&mut self) -> Type {
        let mut words = Vec::new();
        let mut fields = BTreeMap::new();
        while !self.is_next(")") {
            let name = self.next().to_owned();
            if self.is_next(":") {
                assert!(fields.insert(name, self.ty()).is_none(), "twice");
            } else {
                words.push(name);
            }
            if !self.is_next(",") {
                self.expect(")");
                break;
            }
        }
        assert!(words.is_empty() || fields.is_empty());
        if words.is_empty() { Type::Structure(fields) } else { Type::Enumeration(words) }
    }
}

impl Interface {
    pub(crate) fn parse(text: &str) -> Self {
        let mut reader = Reader::new(text);
        reader.expect("interface");
        let mut interface = Self { name: reader.next().to_owned(), ..Self::default() };
        while let Some(kind) = reader.tokens.next() {
            let name = reader.next().to_owned();
            reader.expect("(");
            let first = reader.fields();
            match kind {
                "type" => assert!(interface.types.insert(name, first).is_none()),
                "error" => assert!(interface.errors.insert(name, first).is_none()),
                "method" => {
                    reader.expect("->");
                    reader.expect("(");
                    let pair = (first, reader.fields());
                    assert!(interface.methods.insert(name, pair).is_none());
                }
                other => panic!("what is {other}?"),
            }
        }
        interface
    }

    /// Fails unless the value is of the type, with all fields and no others.
    pub(crate) fn check(&self, value: &Value, wanted: &Type, place: &str) {
        match wanted {
            Type::Bool => assert!(value.is_boolean(), "{place}: {value}"),
            Type::Int => assert!(value.is_i64(), "{place}: {value}"),
            Type::Text => assert!(value.is_string(), "{place}: {value}"),
            Type::Optional(inner) => {
                if !value.is_null() {
                    self.check(value, inner, place);
                }
            }
            Type::List(inner) => {
                let list = value.as_array().unwrap_or_else(|| panic!("{place}: {value}"));
                list.iter().for_each(|value| self.check(value, inner, place));
            }
            Type::Named(name) => {
                let found = self.types.get(name).unwrap_or_else(|| panic!("no type {name}"));
                self.check(value, found, &format!("{place} {name}"));
            }
            Type::Enumeration(words) => {
                let word = value.as_str().unwrap_or_else(|| panic!("{place}: {value}"));
                assert!(words.iter().any(|known| known == word), "{place}: {word}");
            }
            Type::Structure(fields) => {
                let object = value.as_object().unwrap_or_else(|| panic!("{place}: {value}"));
                for (name, wanted) in fields {
                    let value = object.get(name).unwrap_or(&Value::Null);
                    self.check(value, wanted, &format!("{place}.{name}"));
                }
                for name in object.keys() {
                    assert!(fields.contains_key(name), "{place} has a field {name}");
                }
            }
        }
    }
}
