// SPDX-License-Identifier: Apache-2.0
//! Who a client is, and whether a process is it.

use std::fmt;

/// The name of a product's client, in reverse-DNS style: `com.example.sensor`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(String);

/// The longest client id, in bytes.
pub const CLIENT_ID_MAX: usize = 128;

impl ClientId {
    /// Two or more parts of lower-case letters, digits and hyphens with points between them, each
    /// beginning with a letter (so no part is a number) and ending with a letter or a digit;
    /// `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let part_is_good = |part: &str| {
            let bytes = part.as_bytes();
            bytes.first().is_some_and(u8::is_ascii_lowercase)
                && bytes.last().is_some_and(|last| *last != b'-')
                && bytes
                    .iter()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-')
        };
        let good = text.len() <= CLIENT_ID_MAX
            && text.split('.').count() >= 2
            && text.split('.').all(part_is_good);
        good.then(|| Self(text.to_owned()))
    }

    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A SHA-256 digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256(pub [u8; 32]);

impl Sha256 {
    /// From 64 hexadecimal digits of either case; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return None;
        }
        let mut digest = [0; 32];
        for (byte, pair) in digest.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |digit: u8| char::from(digit).to_digit(16);
            *byte = u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok()?;
        }
        Some(Self(digest))
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// As whom the client runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum User {
    /// By number, in the initial user namespace.
    Id(u32),
    /// By name; whoever looks at the peer says which names its uid has.
    Name(String),
}

/// What is asked of a process before it gets a session. All that is given must hold; the
/// executable, its digest or both are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Absolute path of its executable, as the kernel has it.
    pub executable: Option<String>,
    /// Its executable has one of these.
    pub sha256: Vec<Sha256>,
    /// Its effective uid.
    pub user: Option<User>,
}

/// What is known of the process at the other end of a connection, by its pidfd.
#[derive(Clone, Copy, Debug, Default)]
pub struct Peer<'a> {
    /// Absolute path of its executable; `None` if it has none any more.
    pub executable: Option<&'a [u8]>,
    /// Of the bytes that it runs; `None` if they were not looked at.
    pub sha256: Option<Sha256>,
    /// Effective, in the initial user namespace.
    pub uid: u32,
    /// Name of that uid.
    pub user: Option<&'a str>,
}

/// Why a process is not the client that it says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// See the text.
    #[error("the grant is for the executable {expected}, this process runs {seen}")]
    Executable {
        /// Of the grant.
        expected: String,
        /// Of the process.
        seen: String,
    },
    /// See the text.
    #[error("the executable has the SHA-256 digest {seen}, which the grant does not list")]
    Digest {
        /// Of the process; `unknown` if it could not be told.
        seen: String,
    },
    /// See the text.
    #[error("the grant is for {expected}, this process runs as uid {seen}")]
    User {
        /// Of the grant.
        expected: String,
        /// Of the process.
        seen: u32,
    },
}

impl Identity {
    /// Whether the process is this client.
    ///
    /// # Errors
    ///
    /// The first thing that does not hold.
    pub fn check(&self, peer: &Peer<'_>) -> Result<(), Mismatch> {
        if let Some(expected) = &self.executable
            && peer.executable != Some(expected.as_bytes())
        {
            let seen = peer.executable.map(String::from_utf8_lossy);
            return Err(Mismatch::Executable {
                expected: expected.clone(),
                seen: seen.map_or_else(|| "one without a name".to_owned(), Into::into),
            });
        }
        let listed = |digest: Sha256| self.sha256.contains(&digest);
        if !self.sha256.is_empty() && !peer.sha256.is_some_and(listed) {
            let seen = peer.sha256.map_or_else(|| "unknown".to_owned(), |seen| seen.to_string());
            return Err(Mismatch::Digest { seen });
        }
        let expected = match &self.user {
            Some(User::Id(uid)) if *uid != peer.uid => format!("uid {uid}"),
            Some(User::Name(name)) if Some(name.as_str()) != peer.user => format!("user {name}"),
            _ => return Ok(()),
        };
        Err(Mismatch::User { expected, seen: peer.uid })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_ids_are_reverse_dns() {
        for text in ["com.example", "org.x-y.sensor2", "io.a.b.c.d"] {
            assert!(ClientId::parse(text).is_some(), "{text}");
        }
        let long = format!("com.{}", "a".repeat(CLIENT_ID_MAX));
        for text in [
            "",
            "sensor",
            "com.",
            ".com",
            "com..a",
            "com.Example",
            "com.1a",
            "com.a-",
            "com.a b",
            "../x",
            &long,
        ] {
            assert!(ClientId::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn all_that_the_grant_gives_must_hold() {
        let digest = Sha256([7; 32]);
        let identity = Identity {
            executable: Some("/opt/sensor".to_owned()),
            sha256: vec![Sha256([1; 32]), digest],
            user: Some(User::Id(990)),
        };
        let peer = Peer {
            executable: Some(b"/opt/sensor"),
            sha256: Some(digest),
            uid: 990,
            user: Some("sensor"),
        };
        assert_eq!(identity.check(&peer), Ok(()));
        let elsewhere = Peer { executable: Some(b"/opt/sensor2"), ..peer };
        assert!(matches!(identity.check(&elsewhere), Err(Mismatch::Executable { .. })));
        assert!(matches!(
            identity.check(&Peer { executable: None, ..peer }),
            Err(Mismatch::Executable { .. })
        ));
        for sha256 in [None, Some(Sha256([8; 32]))] {
            let other = Peer { sha256, ..peer };
            assert!(matches!(identity.check(&other), Err(Mismatch::Digest { .. })));
        }
        assert!(matches!(identity.check(&Peer { uid: 0, ..peer }), Err(Mismatch::User { .. })));
        let named = Identity { user: Some(User::Name("other".to_owned())), ..identity };
        assert!(matches!(named.check(&peer), Err(Mismatch::User { .. })));
        assert!(matches!(named.check(&Peer { user: None, ..peer }), Err(Mismatch::User { .. })));
    }

    #[test]
    fn digests_are_64_hexadecimal_digits() {
        let text = "00ff".repeat(16);
        assert_eq!(
            Sha256::parse(&text.to_uppercase()).map(|digest| digest.to_string()),
            Some(text)
        );
        assert_eq!(Sha256::parse(&"0".repeat(63)), None);
        assert_eq!(Sha256::parse(&"g".repeat(64)), None);
        assert_eq!(Sha256::parse(&"é".repeat(32)), None);
    }
}
