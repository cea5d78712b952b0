// SPDX-License-Identifier: Apache-2.0
//! A rule set as it is meant: what was read and checked, before it is compiled.

/// The rules of one client, in its order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleSet {
    /// The first that matches and allows or denies decides.
    pub rules: Vec<Rule>,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The client's own number; not 0, and no other rule of the set has it.
    pub id: u32,
    /// Types of event, bits by number; not empty.
    pub events: u64,
    /// What is done when all conditions hold.
    pub action: Action,
    /// Counts and tells only.
    pub dry_run: bool,
    /// All must hold.
    pub conditions: Vec<Condition>,
}

impl Rule {
    /// Whether it ends the search among its client's rules.
    #[must_use]
    pub fn decides(&self) -> bool {
        !self.dry_run && self.action != Action::Notify
    }
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// No later rule of this client is looked at.
    Allow,
    /// The caller gets this errno.
    Deny(u16),
    /// The client is told, and the search goes on.
    Notify,
}

/// A process, as in `struct ringfence_process_key`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessKey {
    /// In the initial pid namespace.
    pub pid: u32,
    /// When its first thread started: CLOCK_BOOTTIME, in nanoseconds.
    pub start: u64,
}

/// A file, as in `struct ringfence_file`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileIdentity {
    /// major << 20 | minor.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Its contents and attributes, where they matter.
    pub version: Option<u64>,
}

/// A path prefix of whole components: `/usr` has `/usr` and `/usr/bin` below it, not `/usr2`.
///
/// Begins with a slash and has none at its end; `/` itself is empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix(pub(crate) Vec<u8>);

impl Prefix {
    /// Of a path as people write it.
    ///
    /// # Errors
    /// When it is no absolute path in the form that the kernel gives paths, or is too long.
    pub fn new(path: &[u8]) -> Result<Self, &'static str> {
        let trimmed = match path {
            [b'/'] => &[],
            [rest @ .., b'/'] if rest.last() != Some(&b'/') => rest,
            other => other,
        };
        if path.first() != Some(&b'/') {
            return Err("a path begins with a slash");
        }
        if trimmed.contains(&0) {
            return Err("a path has no zero byte in it");
        }
        if trimmed.len() > crate::abi::PREFIX {
            return Err("a path prefix has at most 1024 bytes");
        }
        let mut components = trimmed.split(|byte| *byte == b'/').skip(1);
        if components.clone().any(|component| matches!(component, b"" | b"." | b"..")) {
            return Err("the kernel gives paths without //, . and .. in them");
        }
        // The level of / itself is one more.
        if components.by_ref().count() + 1 > crate::abi::LEVELS {
            return Err("a path prefix has at most 63 components");
        }
        Ok(Self(trimmed.to_owned()))
    }

    /// Whether a path is this one or below it.
    #[must_use]
    pub fn covers(&self, path: &[u8]) -> bool {
        path.strip_prefix(self.0.as_slice()).is_some_and(|rest| {
            rest.first() == Some(&b'/') || (rest.is_empty() && !path.is_empty())
        })
    }

    /// As people write it.
    #[must_use]
    pub fn text(&self) -> String {
        if self.0.is_empty() {
            "/".to_owned()
        } else {
            String::from_utf8_lossy(&self.0).into_owned()
        }
    }
}

/// Whose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Process {
    /// Who does it.
    Actor,
    /// Whom it is done to.
    Target,
}

/// Which file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    /// What the actor runs.
    Executable,
    /// What the event is about; where it is about a process, what that one runs.
    Subject,
}

/// Which number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Number {
    /// Real user id of the actor.
    Uid,
    /// Effective user id.
    Euid,
    /// Real group id.
    Gid,
    /// Effective group id.
    Egid,
    /// Its cgroup.
    Cgroup,
    /// Inode number of its user namespace.
    UserNamespace,
    /// Of its pid namespace.
    PidNamespace,
    /// Of its mount namespace.
    MountNamespace,
    /// Of its net namespace.
    NetNamespace,
    /// The one that the type of event has for itself: [`crate::events::Own`].
    Own,
}

/// Which bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bits {
    /// PROT_ of memory.
    Protection,
    /// PROT_ before it changes.
    Before,
    /// The event's own flags.
    Flags,
    /// RINGFENCE_FLAG_ of the record.
    Record,
    /// RINGFENCE_FILE_ of the executable.
    Executable,
    /// RINGFENCE_FILE_ of the file.
    File,
}

/// What must hold. Lists are alternatives: one of them must.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It is one of these.
    Process(Process, Vec<ProcessKey>),
    /// The actor descends from one of these, and is not itself the one.
    DescendantOf(Vec<ProcessKey>),
    /// It is one of these.
    File(File, Vec<FileIdentity>),
    /// Its path is known, and is or is below one of these.
    Path(File, Vec<Prefix>),
    /// Its path is truncated, not reachable from the root, or not there.
    PathUnknown(File),
    /// Its digest is in one of the collections of these names.
    DigestIn(File, Vec<String>),
    /// It is one of these.
    Number(Number, Vec<u64>),
    /// The name is one of these.
    Name(Vec<Vec<u8>>),
    /// At least one of the bits of the mask is set, or all are.
    Bits {
        /// Which.
        of: Bits,
        /// Not 0.
        mask: u32,
        /// All must be.
        all: bool,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_covers_whole_components_only() {
        let prefix = Prefix::new(b"/usr/bin/").unwrap();
        assert!(prefix.covers(b"/usr/bin"));
        assert!(prefix.covers(b"/usr/bin/ls"));
        assert!(!prefix.covers(b"/usr/bin2"));
        assert!(!prefix.covers(b"/usr"));
        let root = Prefix::new(b"/").unwrap();
        assert!(root.covers(b"/usr"));
        assert!(root.covers(b"/"));
        assert!(!root.covers(b"pipe:[1]"));
        assert!(!root.covers(b""));
    }

    #[test]
    fn paths_that_the_kernel_never_gives_are_refused() {
        for path in ["usr", "", "//", "/usr//bin", "/usr/../bin", "/./usr", "/usr//", "/a\0b"] {
            assert!(Prefix::new(path.as_bytes()).is_err(), "{path:?}");
        }
        assert!(Prefix::new("/a".repeat(63).as_bytes()).is_ok());
        assert!(Prefix::new("/a".repeat(64).as_bytes()).is_err());
        assert!(Prefix::new(&[b"/".as_slice(), &[b'a'; 1024]].concat()).is_err());
    }
}
