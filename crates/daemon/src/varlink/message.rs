// SPDX-License-Identifier: Apache-2.0
//! Calls and replies as JSON.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// What was received is no call. Varlink has no answer to that; the connection is closed.
#[derive(Debug, thiserror::Error)]
#[error("not a varlink call: {0}")]
pub struct Malformed(#[from] serde_json::Error);

/// A call, as it was sent; parameters are looked at by the method that they are for.
#[derive(Debug, Deserialize)]
pub struct Call<'a> {
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(borrow)]
    parameters: Option<&'a RawValue>,
    oneway: Option<bool>,
    upgrade: Option<bool>,
    // `more` allows several replies, and no method here has more than one.
}

impl<'a> Call<'a> {
    /// From a message without its end.
    pub fn parse(message: &'a [u8]) -> Result<Self, Malformed> {
        Ok(serde_json::from_slice(message)?)
    }

    /// The interface and the method's own name; the whole as interface if it has no dot.
    #[must_use]
    pub fn method(&self) -> (&str, &str) {
        self.method.rsplit_once('.').unwrap_or((&self.method, ""))
    }

    /// Its full name, as it was sent.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.method
    }

    /// Whether no reply is wanted.
    #[must_use]
    pub fn is_oneway(&self) -> bool {
        self.oneway == Some(true)
    }

    /// Whether another protocol is to be spoken after the reply.
    #[must_use]
    pub fn is_upgrade(&self) -> bool {
        self.upgrade == Some(true)
    }

    /// The parameters as `T`; none are like an empty object. The error names the parameter where it
    /// can.
    pub fn parameters<T: Deserialize<'a>>(&self) -> Result<T, String> {
        let text = self.parameters.map_or("{}", RawValue::get);
        serde_json::from_str(text).map_err(|error| named(&error.to_string()))
    }
}

/// What of serde's words stands for the parameter: the first name in backquotes, else all of them.
fn named(words: &str) -> String {
    words.split('`').nth(1).unwrap_or(words).to_owned()
}

/// A reply with these parameters, without its end.
pub fn reply(parameters: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    #[derive(Serialize)]
    struct Reply<'a, T> {
        parameters: &'a T,
    }
    serde_json::to_vec(&Reply { parameters })
}

/// An error with these parameters, without its end.
pub fn error(name: &str, parameters: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    #[derive(Serialize)]
    struct Error<'a, T> {
        error: &'a str,
        parameters: &'a T,
    }
    serde_json::to_vec(&Error { error: name, parameters })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Wanted {
        number: u32,
    }

    #[test]
    fn a_call_is_taken_apart() {
        let call = Call::parse(br#"{"method":"a.b.Get","parameters":{"number":3},"oneway":true}"#);
        let call = call.unwrap();
        assert_eq!(call.method(), ("a.b", "Get"));
        assert!(call.is_oneway() && !call.is_upgrade());
        assert_eq!(call.parameters(), Ok(Wanted { number: 3 }));
    }

    #[test]
    fn what_is_wrong_with_parameters_is_named() {
        let parameters = |text: &str| {
            let message = format!(r#"{{"method":"a.B","parameters":{text}}}"#);
            Call::parse(message.as_bytes()).unwrap().parameters::<Wanted>()
        };
        assert_eq!(parameters(r#"{"number":1,"other":2}"#), Err("other".into()));
        assert_eq!(parameters("{}"), Err("number".into()));
        assert_eq!(parameters("null"), Err("number".into()));
        assert!(parameters(r#"{"number":-1}"#).is_err());
    }

    #[test]
    fn what_is_no_call_is_refused() {
        let deep = "[".repeat(100_000);
        for text in
            ["", "{}", "[]", "null", "{\"method\":1}", "\u{fe}", "{\"method\":\"a.B\"", &deep]
        {
            assert!(Call::parse(text.as_bytes()).is_err(), "{text:.40}");
        }
        assert!(Call::parse(&[0xff, 0xfe]).is_err());
    }
}
