// SPDX-License-Identifier: Apache-2.0
//! Which version of the API a session speaks.

use std::fmt;

/// A version of the API. Within a major version records only grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// RINGFENCE_ABI; layouts can change from one to the next.
    pub major: u16,
    /// Raised when something was added, or a draft changed.
    pub minor: u16,
}

/// A client cannot say more versions than this.
pub const VERSIONS_MAX: usize = 64;

/// No version is known to both.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client knows the versions {}, ringfenced knows {}", list(.client), list(.server))]
pub struct NoCommonVersion {
    /// As the client said.
    pub client: Vec<Version>,
    /// As it would have been taken.
    pub server: Vec<Version>,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

fn list(versions: &[Version]) -> String {
    if versions.is_empty() {
        return "none".to_owned();
    }
    versions.iter().map(Version::to_string).collect::<Vec<_>>().join(", ")
}

/// The greatest version that both know. Of the client's the first [`VERSIONS_MAX`] count.
pub(crate) fn negotiate(
    client: &[Version],
    server: &[Version],
) -> Result<Version, NoCommonVersion> {
    let client = &client[..client.len().min(VERSIONS_MAX)];
    let common = client.iter().filter(|version| server.contains(version)).max();
    common
        .copied()
        .ok_or_else(|| NoCommonVersion { client: client.to_vec(), server: server.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(list: &[(u16, u16)]) -> Vec<Version> {
        list.iter().map(|(major, minor)| Version { major: *major, minor: *minor }).collect()
    }

    #[test]
    fn the_greatest_common_version_is_taken() {
        let server = versions(&[(1, 0), (1, 1), (1, 2), (2, 0)]);
        let picked = negotiate(&versions(&[(1, 1), (1, 0), (3, 0)]), &server);
        assert_eq!(picked, Ok(Version { major: 1, minor: 1 }));
        assert_eq!(negotiate(&versions(&[(2, 0), (1, 2)]), &server).map(|v| v.major), Ok(2));
    }

    #[test]
    fn without_a_common_version_both_lists_are_said() {
        let error = negotiate(&versions(&[(0, 9)]), &versions(&[(1, 0), (1, 1)])).unwrap_err();
        let text = "the client knows the versions 0.9, ringfenced knows 1.0, 1.1";
        assert_eq!(error.to_string(), text);
        let error = negotiate(&[], &versions(&[(1, 0)])).unwrap_err();
        assert_eq!(error.to_string(), "the client knows the versions none, ringfenced knows 1.0");
    }

    #[test]
    fn an_endless_list_of_versions_is_cut() {
        let endless = vec![Version { major: 9, minor: 9 }; 100_000];
        let error = negotiate(&endless, &versions(&[(1, 0)])).unwrap_err();
        assert_eq!(error.client.len(), VERSIONS_MAX);
    }
}
