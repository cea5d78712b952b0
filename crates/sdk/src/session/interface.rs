// SPDX-License-Identifier: Apache-2.0
//! What goes over the control connection, as `api/ringfence.varlink` has it.
//!
//! Enumerations of the interface grow: a list leaves out what has no name here, and a single value
//! stays text.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use abi::{Class, EventType};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A version of the API. Within a major one records only grow.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct ApiVersion {
    /// Of `api/ringfence.h`: [`abi::ABI`].
    pub major: u16,
    /// Raised when something is added, or a draft changes.
    pub minor: u16,
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// An event and classes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventClasses {
    /// Which event.
    pub event: EventType,
    /// Which of its classes.
    pub classes: Vec<Class>,
}

impl EventClasses {
    /// An event with these classes.
    pub fn new(event: EventType, classes: impl IntoIterator<Item = Class>) -> Self {
        Self { event, classes: classes.into_iter().collect() }
    }
}

/// Classes of an event that a session is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// Which classes of which event.
    pub classes: EventClasses,
    /// How long a task is to wait for this client at most, if that is less than what the grant says;
    /// only with [`Class::Ask`].
    pub deadline: Option<Duration>,
}

impl Subscription {
    /// An event with these classes, and the deadline of the grant.
    pub fn new(event: EventType, classes: impl IntoIterator<Item = Class>) -> Self {
        Self { classes: EventClasses::new(event, classes), deadline: None }
    }
}

/// As it goes over the connection.
#[derive(Deserialize, Serialize)]
struct NamedClasses<'a> {
    event: Cow<'a, str>,
    classes: Vec<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deadline: Option<u64>,
}

impl<'a> NamedClasses<'a> {
    fn of(classes: &EventClasses, deadline: Option<Duration>) -> Self {
        Self {
            event: classes.event.name().into(),
            classes: classes.classes.iter().map(|class| class.name().into()).collect(),
            deadline: deadline.map(|deadline| deadline.as_nanos().try_into().unwrap_or(u64::MAX)),
        }
    }
}

impl Serialize for EventClasses {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        NamedClasses::of(self, None).serialize(serializer)
    }
}

impl Serialize for Subscription {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        NamedClasses::of(&self.classes, self.deadline).serialize(serializer)
    }
}

/// Those of a list that have names here.
fn known_classes<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<EventClasses>, D::Error> {
    let all = Vec::<NamedClasses<'_>>::deserialize(from)?;
    Ok(all
        .iter()
        .filter_map(|named| {
            let event = EventType::from_name(&named.event)?;
            let classes = named.classes.iter().filter_map(|class| Class::from_name(class));
            Some(EventClasses::new(event, classes))
        })
        .collect())
}

/// How long tasks wait for this client.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Deadline {
    /// For the verdict on which event, by its name.
    pub event: String,
    /// In nanoseconds.
    pub nanoseconds: u64,
}

/// What a session cannot exceed.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Of the ring, in bytes.
    pub ring_bytes: u64,
    /// Of one message to the daemon, in bytes.
    pub message_bytes: u64,
    /// Mutes of this session.
    pub mutes: u64,
}

/// What the daemon said as it opened the session.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[non_exhaustive]
pub struct Opened {
    /// The version that was taken.
    pub version: ApiVersion,
    /// Which descriptor is the ring's.
    pub(crate) ring: usize,
    /// Which is that for verdicts.
    pub(crate) verdicts: Option<usize>,
    /// For [`Session::reconnect`](crate::Session::reconnect).
    pub(crate) token: String,
    /// Whether an earlier session goes on.
    pub resumed: bool,
    /// What the session cannot exceed.
    pub limits: Limits,
    /// Of this boot, as in /proc/sys/kernel/random/boot_id.
    pub boot_id: String,
    /// A decimal number: clients with a higher one are asked first.
    pub altitude: String,
    /// Whose events it sees: `host`, `descendants` or `cgroup`.
    pub scope: String,
    /// What the client may subscribe to.
    #[serde(deserialize_with = "known_classes")]
    pub grant: Vec<EventClasses>,
    /// How long tasks wait for it.
    pub deadlines: Vec<Deadline>,
}

/// A process, as in a record's [`abi::ProcessKey`].
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct ProcessKey {
    /// Of its thread group.
    pub pid: u32,
    /// When it started: CLOCK_BOOTTIME, in nanoseconds.
    pub start: u64,
}

impl From<abi::ProcessKey> for ProcessKey {
    fn from(key: abi::ProcessKey) -> Self {
        Self { pid: key.pid, start: key.start }
    }
}

/// A file by what the kernel knows it by.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct FileKey {
    /// `major << 20 | minor` of its file system.
    pub device: u64,
    /// Its number there.
    pub inode: u64,
}

impl From<&abi::File> for FileKey {
    fn from(file: &abi::File) -> Self {
        Self { device: file.device, inode: file.inode }
    }
}

/// The contents of a file.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[non_exhaustive]
pub struct Measured {
    /// Their SHA-256, in hexadecimal.
    pub sha256: String,
    /// How many bytes.
    pub size: u64,
}

/// What there is to know about a process.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[non_exhaustive]
pub struct Process {
    /// Which.
    pub key: ProcessKey,
    /// What it is a child of now; pid 0 for nobody.
    pub parent: ProcessKey,
    /// Name of its first thread (comm).
    pub name: String,
    /// What it runs; nothing for a kernel thread.
    pub executable: Option<ProcessExecutable>,
    /// Real user id.
    pub uid: u32,
    /// Effective.
    pub euid: u32,
    /// Saved.
    pub suid: u32,
    /// Of the file system.
    pub fsuid: u32,
    /// Real group id.
    pub gid: u32,
    /// Effective.
    pub egid: u32,
    /// Saved.
    pub sgid: u32,
    /// Of the file system.
    pub fsgid: u32,
    /// How many threads it has.
    pub threads: u32,
    /// Path of its cgroup (v2) from the root of the hierarchy, if it has one.
    pub cgroup: Option<String>,
    /// Inode numbers of its namespaces.
    pub namespaces: Namespaces,
}

/// What a process runs.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessExecutable {
    /// As the kernel has it; ends with ` (deleted)` if it has no name any more.
    pub path: String,
    /// False if the path has bytes that are not UTF-8, which were replaced.
    pub exact: bool,
    /// Which file.
    pub file: FileKey,
}

/// Inode numbers of a process's namespaces, as in /proc/PID/ns.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[non_exhaustive]
pub struct Namespaces {
    /// Of users.
    pub user: u64,
    /// Of process numbers.
    pub pid: u64,
    /// Of mounts.
    pub mount: u64,
    /// Of the network.
    pub net: u64,
    /// Of cgroups.
    pub cgroup: u64,
}

/// Whose events are not to be written to the ring. Rules and verdicts are not affected: who is asked is
/// asked.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Mute {
    /// This process.
    Process(ProcessKey),
    /// Processes that run this file.
    Executable(FileKey),
    /// Processes whose executable's path begins with this; at most 256 bytes.
    PathPrefix(String),
    /// Processes in this cgroup, not those in cgroups below it.
    Cgroup(u64),
}

/// How many records of a session.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Written to its ring.
    pub written: u64,
    /// Lost.
    pub lost: u64,
}

/// What answers.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[non_exhaustive]
pub struct Version {
    /// `ringfence`.
    pub product: String,
    /// Of the daemon.
    pub version: String,
    /// Versions of the API that it can speak.
    pub versions: Vec<ApiVersion>,
    /// Of this boot.
    pub boot_id: String,
    /// Release of the kernel.
    pub kernel: String,
}

/// Whether this host gives one class of one event.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[non_exhaustive]
pub struct Availability {
    /// `available`, `reduced`, `unavailable` or `undefined`.
    pub state: String,
    /// What serves it.
    pub mechanism: Option<String>,
    /// Why it is reduced or unavailable, and what would help.
    pub reason: Option<String>,
}

/// What can be had of an event on this host.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[non_exhaustive]
pub struct Coverage {
    /// Its name.
    pub event: String,
    /// Its number in a record.
    pub number: u16,
    /// `process`, `image` and so on.
    pub area: String,
    /// How settled it is: `draft`, `candidate`, `stable`.
    pub stage: String,
    /// The version of the API that had it first.
    pub since: String,
    /// Being told.
    pub notify: Availability,
    /// Deciding by rules.
    pub rule: Availability,
    /// Being asked.
    pub ask: Availability,
}
