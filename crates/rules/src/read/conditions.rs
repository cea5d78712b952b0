// SPDX-License-Identifier: Apache-2.0
//! The conditions of a rule, and whether its types of event have what they ask for.

use crate::events::Event;
use crate::model::{Bits, Condition, File, FileIdentity, Number, Prefix, Process, ProcessKey};
use crate::names;

use super::reader::{Item, Reader, Table};

/// The fields of a rule that are conditions.
pub(super) const KNOWN: [&str; 14] = [
    "actor",
    "file",
    "target",
    "name",
    "protection",
    "before",
    "flags",
    "record",
    "signal",
    "access",
    "by",
    "from",
    "program_type",
    "how",
];

/// The fields of one process or file.
const OF_ACTOR: [&str; 16] = [
    "process",
    "descendant_of",
    "executable",
    "path",
    "path_unknown",
    "digest_in",
    "is",
    "uid",
    "euid",
    "gid",
    "egid",
    "cgroup",
    "user_namespace",
    "pid_namespace",
    "mount_namespace",
    "net_namespace",
];
const OF_FILE: [&str; 5] = ["identity", "path", "path_unknown", "digest_in", "is"];
const OF_TARGET: [&str; 6] = ["process", "executable", "path", "path_unknown", "digest_in", "is"];

const NUMBERS: [(&str, Number, u64); 9] = [
    ("uid", Number::Uid, u32::MAX as u64),
    ("euid", Number::Euid, u32::MAX as u64),
    ("gid", Number::Gid, u32::MAX as u64),
    ("egid", Number::Egid, u32::MAX as u64),
    ("cgroup", Number::Cgroup, u64::MAX),
    ("user_namespace", Number::UserNamespace, u32::MAX as u64),
    ("pid_namespace", Number::PidNamespace, u32::MAX as u64),
    ("mount_namespace", Number::MountNamespace, u32::MAX as u64),
    ("net_namespace", Number::NetNamespace, u32::MAX as u64),
];

/// All conditions of a rule for these types of event.
pub(super) fn read(
    reader: &mut Reader,
    rule: &Table<'_>,
    types: &[&'static Event],
) -> Vec<Condition> {
    let mut reading = Reading { reader, types, conditions: Vec::new() };
    if let Some(item) = rule.get("actor") {
        reading.actor(&item);
    }
    if let Some(item) = rule.get("file") {
        reading.subject(&item, &OF_FILE);
    }
    if let Some(item) = rule.get("target") {
        reading.subject(&item, &OF_TARGET);
    }
    if let Some(item) = rule.get("name") {
        reading.name(&item);
    }
    reading.bits(rule);
    for name in ["signal", "access", "by", "from", "program_type", "how"] {
        let Some(item) = rule.get(name) else { continue };
        if name == "access" && types.iter().any(|event| event.is_opening()) {
            reading.opening(&item);
        } else {
            reading.own(name, &item);
        }
    }
    reading.conditions
}

struct Reading<'r> {
    reader: &'r mut Reader,
    types: &'r [&'static Event],
    conditions: Vec<Condition>,
}

impl Reading<'_> {
    /// Whether all types have what is asked for; says which has not.
    fn have(&mut self, item: &Item<'_>, what: &str, has: impl Fn(&Event) -> bool) -> bool {
        let lacks = self.types.iter().find(|event| !has(event));
        if let Some(event) = lacks {
            self.reader.wrong(item, format!("{} has no {what}", event.name));
        }
        lacks.is_none()
    }

    fn actor(&mut self, item: &Item<'_>) {
        let Some(table) = self.reader.table(item, &OF_ACTOR) else { return };
        if let Some(item) = table.get("process")
            && let Some(keys) = self.reader.all(&item, process)
        {
            self.conditions.push(Condition::Process(Process::Actor, keys));
        }
        if let Some(item) = table.get("descendant_of")
            && let Some(keys) = self.reader.all(&item, process)
        {
            self.conditions.push(Condition::DescendantOf(keys));
        }
        self.file(File::Executable, &table, "executable");
        for (name, number, most) in NUMBERS {
            if let Some(item) = table.get(name)
                && let Some(values) =
                    self.reader.all(&item, |reader, item| reader.integer(item, 0, most))
            {
                self.conditions.push(Condition::Number(number, sorted(values)));
            }
        }
    }

    /// `file` or `target`: what the event is about.
    fn subject(&mut self, item: &Item<'_>, known: &[&str]) {
        let Some(table) = self.reader.table(item, known) else { return };
        let of_process = known.contains(&"process");
        if let Some(item) = table.get("process")
            && self.have(&item, "target", |event| event.target.is_some())
            && let Some(keys) = self.reader.all(&item, process)
        {
            self.conditions.push(Condition::Process(Process::Target, keys));
        }
        let asks = known.iter().filter(|name| **name != "process").find_map(|name| table.get(name));
        let Some(asked) = asks else { return };
        let (what, has): (_, fn(&Event) -> bool) = if of_process {
            ("executable of a target", |event| event.file.is_some() && event.target.is_some())
        } else {
            ("file (what a target runs is under target)", |event| {
                event.file.is_some() && event.target.is_none()
            })
        };
        if self.have(&asked, what, has) {
            let identity = if of_process { "executable" } else { "identity" };
            self.file(File::Subject, &table, identity);
        }
    }

    fn file(&mut self, file: File, table: &Table<'_>, identity_name: &str) {
        if let Some(item) = table.get(identity_name)
            && let Some(files) = self.reader.all(&item, identity)
        {
            self.conditions.push(Condition::File(file, files));
        }
        if let Some(item) = table.get("path")
            && let Some(paths) = self.reader.all(&item, prefix)
        {
            self.conditions.push(Condition::Path(file, outermost(paths)));
        }
        if let Some(item) = table.get("path_unknown") {
            match self.reader.truth(&item) {
                Some(true) => self.conditions.push(Condition::PathUnknown(file)),
                Some(false) => {
                    self.reader.wrong(&item, "only true can be asked for; leave it out".to_owned());
                }
                None => {}
            }
        }
        if let Some(item) = table.get("digest_in")
            && let Some(names) = self.reader.all(&item, collection)
        {
            self.conditions.push(Condition::DigestIn(file, names));
        }
        if let Some(item) = table.get("is") {
            let of = if file == File::Executable { Bits::Executable } else { Bits::File };
            self.mask(&item, of, false);
        }
    }

    fn name(&mut self, item: &Item<'_>) {
        if self.have(item, "name", |event| event.name_at.is_some())
            && let Some(names) = self.reader.all(item, |reader, item| {
                let name = reader.text(item)?;
                if !(1..=crate::abi::NAME).contains(&name.len()) {
                    reader.wrong(item, "a name has from 1 to 56 bytes".to_owned());
                    return None;
                }
                Some(name.as_bytes().to_owned())
            })
        {
            self.conditions.push(Condition::Name(names));
        }
    }

    fn bits(&mut self, rule: &Table<'_>) {
        type Has = fn(&Event) -> bool;
        let all: [(&str, Bits, Has); 3] = [
            ("protection", Bits::Protection, |event| {
                event.protection.is_some() && !event.is_opening()
            }),
            ("before", Bits::Before, |event| event.before.is_some()),
            ("flags", Bits::Flags, |event| event.flags.is_some()),
        ];
        for (name, of, has) in all {
            let Some(item) = rule.get(name) else { continue };
            if !self.have(&item, name, has) {
                continue;
            }
            let Some(table) = self.reader.table(&item, &["all", "any"]) else { continue };
            if table.is_empty() {
                self.reader.wrong(&item, "all = [...] or any = [...] is wanted".to_owned());
            }
            for (name, all) in [("all", true), ("any", false)] {
                if let Some(item) = table.get(name) {
                    self.mask(&item, of, all);
                }
            }
        }
        if let Some(item) = rule.get("record") {
            self.mask(&item, Bits::Record, false);
        }
    }

    fn mask(&mut self, item: &Item<'_>, of: Bits, all: bool) {
        let names = names::of_bits(of);
        let Some(bits) = self.reader.all(item, |reader, item| reader.named(item, names)) else {
            return;
        };
        let mask = bits.into_iter().fold(0, |mask, bits| mask | bits);
        if mask == 0 {
            self.reader.wrong(item, "no bit is asked for".to_owned());
            return;
        }
        self.conditions.push(Condition::Bits { of, mask, all });
    }

    /// What a file is opened for: one of these, whatever else.
    fn opening(&mut self, item: &Item<'_>) {
        let what = "access that is the same as that of file_open: write a rule for each";
        if self.have(item, what, Event::is_opening) {
            self.mask(item, Bits::Protection, false);
        }
    }

    fn own(&mut self, name: &str, item: &Item<'_>) {
        let has = |event: &Event| event.own.is_some_and(|(own, _)| own.name() == name);
        if !self.have(item, name, has) {
            return;
        }
        let mut agreed: Option<Vec<u64>> = None;
        for (own, _) in self.types.iter().filter_map(|event| event.own) {
            let names = names::of_own(own);
            let Some(values) = self.reader.all(item, |reader, item| reader.named(item, names))
            else {
                return;
            };
            let values = sorted(values.into_iter().map(u64::from).collect());
            if agreed.replace(values.clone()).is_some_and(|before| before != values) {
                let message = "the types of event have other numbers for this name".to_owned();
                self.reader.wrong(item, message);
                return;
            }
        }
        self.conditions.push(Condition::Number(Number::Own, agreed.unwrap_or_default()));
    }
}

fn sorted(mut values: Vec<u64>) -> Vec<u64> {
    values.sort_unstable();
    values.dedup();
    values
}

/// Without those that are below another one, so that one path is found by one of them only.
fn outermost(mut prefixes: Vec<Prefix>) -> Vec<Prefix> {
    prefixes.sort_unstable();
    let mut kept: Vec<Prefix> = Vec::new();
    for prefix in prefixes {
        let is_below = kept.iter().any(|outer| outer.covers(&prefix.0) || *outer == prefix);
        if !is_below {
            kept.push(prefix);
        }
    }
    kept
}

fn process(reader: &mut Reader, item: &Item<'_>) -> Option<ProcessKey> {
    let table = reader.table(item, &["pid", "start"])?;
    let pid = reader.required(&table, "pid")?;
    let start = reader.required(&table, "start")?;
    let pid = reader.integer(&pid, 1, u32::MAX.into())?;
    let start = reader.integer(&start, 0, u64::MAX)?;
    Some(ProcessKey { pid: u32::try_from(pid).ok()?, start })
}

fn identity(reader: &mut Reader, item: &Item<'_>) -> Option<FileIdentity> {
    let table = reader.table(item, &["device", "inode", "version"])?;
    let device = reader.required(&table, "device")?;
    let inode = reader.required(&table, "inode")?;
    let device = device_number(reader, &device)?;
    let inode = reader.integer(&inode, 1, u64::MAX)?;
    let version = match table.get("version") {
        Some(version) => Some(reader.integer(&version, 0, u64::MAX)?),
        None => None,
    };
    Some(FileIdentity { device, inode, version })
}

/// A number, or `"major:minor"` as in /proc/self/mountinfo.
fn device_number(reader: &mut Reader, item: &Item<'_>) -> Option<u64> {
    if let crate::source::Value::Text(text) = &item.node.value
        && let Some((major, minor)) = text.split_once(':')
    {
        // 12 and 20 bits: include/linux/kdev_t.h.
        let part = |text: &str, bits: u32| text.parse::<u64>().ok().filter(|n| n >> bits == 0);
        if let (Some(major), Some(minor)) = (part(major, 12), part(minor, 20)) {
            return Some(major << 20 | minor);
        }
        reader.wrong(item, format!("{text:?} is no \"major:minor\" of a device"));
        return None;
    }
    reader.integer(item, 0, u64::MAX)
}

fn prefix(reader: &mut Reader, item: &Item<'_>) -> Option<Prefix> {
    let text = reader.text(item)?;
    match Prefix::new(text.as_bytes()) {
        Ok(prefix) => Some(prefix),
        Err(why) => {
            reader.wrong(item, why.to_owned());
            None
        }
    }
}

fn collection(reader: &mut Reader, item: &Item<'_>) -> Option<String> {
    let name = reader.text(item)?;
    if !crate::collection::is_name(name) {
        reader.wrong(
            item,
            format!("{name:?} is no name of a collection: {}", crate::collection::NAME_RULE),
        );
        return None;
    }
    Some(name.to_owned())
}
