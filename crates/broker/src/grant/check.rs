// SPDX-License-Identifier: Apache-2.0
//! From what a file says to a grant: what each key may hold.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use toml::Spanned;

use super::error::{GrantError, Place, Problems};
use super::keys::{help, nearest};
use super::limits::{self, Bounds, DemotionLimits, Limits};
use super::{
    Absent, Altitude, AltitudeError, Choice, ClientId, Contract, EventGrant, Fallback,
    GRANT_BYTES_MAX, Gone, Grant, Identity, MemoryUse, Scope, Sha256, User, file,
};
use crate::event::{Class, ClassSet, EventType};

/// Linux has no longer path (PATH_MAX, with its final zero).
const PATH_MAX: usize = 4096;
/// shadow's useradd has no longer name.
const USER_MAX: usize = 32;
/// Directories and files that one grant names.
const WATCHED_MAX: usize = 16;
/// Digests of one executable: of the versions that are around at once.
const DIGESTS_MAX: usize = 64;

pub(super) fn grant(name: &str, text: &str) -> Result<Grant, Vec<GrantError>> {
    let mut problems = Problems { file: name, text, found: Vec::new() };
    if text.len() > GRANT_BYTES_MAX {
        let message = format!("has {} bytes, and a grant at most {GRANT_BYTES_MAX}", text.len());
        problems.at(0..0, message, "is this a grant? move it elsewhere");
        return Err(problems.found);
    }
    let file: file::File = match toml::from_str(text) {
        Ok(file) => file,
        Err(error) => {
            syntax(&mut problems, &error);
            return Err(problems.found);
        }
    };
    let place = Place::of(name, text, file.client.span().start);
    let altitude_place = Place::of(name, text, file.altitude.span().start);
    let client = client(&mut problems, &file.client);
    let altitude = altitude(&mut problems, &file.altitude);
    let identity = identity(&mut problems, file.identity);
    let scope = file.scope.map_or(Some(Scope::Host), |scope| self::scope(&mut problems, scope));
    let limits = self::limits(&mut problems, &file.limits);
    let demotion = DemotionLimits {
        misses: number(&mut problems, "misses", &file.demotion.misses, limits::DEMOTION_MISSES),
        period: Duration::from_secs(u64::from(number(
            &mut problems,
            "seconds",
            &file.demotion.seconds,
            limits::DEMOTION_SECONDS,
        ))),
    };
    let events = events(&mut problems, &file.events);
    let watched = watched(&mut problems, file.watched, &file.events, &events);
    let memory = memory(&mut problems, &file.memory);
    match (client, altitude, scope) {
        (Some(client), Some(altitude), Some(scope)) if problems.found.is_empty() => Ok(Grant {
            client,
            altitude,
            draft: file.draft,
            identity,
            watched,
            memory,
            scope,
            limits,
            demotion,
            events,
            place,
            altitude_place,
        }),
        _ => {
            problems.found.sort_by(|one, other| one.place.cmp(&other.place));
            Err(problems.found)
        }
    }
}

/// What the parser or serde found, with what the key takes.
fn syntax(problems: &mut Problems<'_>, error: &toml::de::Error) {
    let span = error.span().unwrap_or(0..0);
    // In the words of an administrator.
    let message = error
        .message()
        .replace('\n', ", ")
        .replace("expected i64", "expected a whole number")
        .replace("expected a sequence", "expected a list");
    let quoted = message.split('`').nth(1).unwrap_or_default();
    let help = if message.starts_with("unknown field") {
        // serde lists the keys of this table after "expected".
        let known = message.split('`').skip(3).step_by(2);
        match nearest(quoted, known) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => help(quoted).unwrap_or("remove it; docs/grants.md has all keys").to_owned(),
        }
    } else if message == "duplicate key" {
        "a key is there once: remove one of them".to_owned()
    } else if message.starts_with("missing field") {
        help(quoted).unwrap_or("docs/grants.md has all keys").to_owned()
    } else {
        let key = key_at(problems.text, &span);
        help(key).unwrap_or("docs/grants.md has all keys with examples").to_owned()
    };
    problems.at(span, message, help);
}

/// The key on the line of the place.
fn key_at<'a>(text: &'a str, span: &Range<usize>) -> &'a str {
    let start = text.get(..span.start).and_then(|before| before.rfind('\n')).map_or(0, |at| at + 1);
    let line = text.get(start..).and_then(|rest| rest.lines().next()).unwrap_or_default();
    line.split('=').next().unwrap_or_default().trim().rsplit('.').next().unwrap_or_default()
}

fn client(problems: &mut Problems<'_>, text: &Spanned<String>) -> Option<ClientId> {
    let client = ClientId::parse(text.get_ref());
    if client.is_none() {
        problems.at(
            text.span(),
            format!("`{}` is no client id", text.get_ref().escape_default()),
            "write two or more parts with points between them, each of lower-case letters, digits \
             and hyphens, beginning with a letter, 128 bytes at most: \"com.example.sensor\"",
        );
    }
    client
}

fn altitude(problems: &mut Problems<'_>, text: &Spanned<String>) -> Option<Altitude> {
    let error = match Altitude::parse(text.get_ref()) {
        Ok(altitude) => return Some(altitude),
        Err(error) => error,
    };
    let help = match error {
        AltitudeError::NotDecimal => {
            "write digits, and perhaps a point and more digits: \"320500.25\""
        }
        AltitudeError::TooLong => "write fewer digits",
        AltitudeError::OutOfRange => "docs/grants.md lists the ranges and what they are for",
    };
    let message = format!("altitude `{}` {error}", text.get_ref().escape_default());
    problems.at(text.span(), message, help);
    None
}

fn identity(problems: &mut Problems<'_>, table: Spanned<file::Identity>) -> Identity {
    let span = table.span();
    let table = table.into_inner();
    if table.executable.is_none() && table.sha256.is_empty() {
        let message = "nothing says which program the client is";
        problems.at(span.clone(), message, "add executable, sha256 or both");
    }
    if let Some(path) = &table.executable {
        absolute_path(problems, "executable", path);
    }
    if table.sha256.len() > DIGESTS_MAX {
        let message = format!("{} digests are more than {DIGESTS_MAX}", table.sha256.len());
        problems.at(span, message, "list the digests of the versions that are in use");
    }
    let mut sha256 = Vec::new();
    for text in table.sha256.iter().take(DIGESTS_MAX) {
        match Sha256::parse(text.get_ref()) {
            Some(digest) => sha256.push(digest),
            None => problems.at(
                text.span(),
                "this is no SHA-256 digest",
                "write the 64 hexadecimal digits that `sha256sum` prints",
            ),
        }
    }
    let user = match (&table.uid, &table.user) {
        (Some(_), Some(user)) => {
            problems.at(user.span(), "both uid and user are given", "remove one of them");
            None
        }
        (Some(uid), None) => {
            // The last number is "no uid" for the kernel.
            let number = u32::try_from(*uid.get_ref()).ok().filter(|uid| *uid != u32::MAX);
            if number.is_none() {
                let message = format!("uid {} is none", uid.get_ref());
                problems.at(uid.span(), message, "write a number from 0 to 4294967294");
            }
            number.map(User::Id)
        }
        (None, Some(user)) => {
            let name = user.get_ref();
            let good = !name.is_empty()
                && name.len() <= USER_MAX
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.$".contains(&byte));
            if !good {
                let message = format!("`{}` is no name of a user", name.escape_default());
                problems.at(
                    user.span(),
                    message,
                    "write a name as in /etc/passwd, or uid = NUMBER",
                );
            }
            good.then(|| User::Name(name.clone()))
        }
        (None, None) => None,
    };
    Identity { executable: table.executable.map(Spanned::into_inner), sha256, user }
}

fn absolute_path(problems: &mut Problems<'_>, key: &str, path: &Spanned<String>) -> bool {
    let text = path.get_ref();
    let parts_are_good = |rest: &str| {
        rest.is_empty() || rest.split('/').all(|part| !matches!(part, "" | "." | ".."))
    };
    let good = text.len() < PATH_MAX
        && !text.contains('\0')
        && text.strip_prefix('/').is_some_and(parts_are_good);
    if !good {
        problems.at(
            path.span(),
            format!("{key} `{}` is no plain absolute path", text.escape_default()),
            "write it from the root, as `realpath` prints it",
        );
    }
    good
}

/// What is below these paths is asked about as it is opened: without any, all would be, or nothing. Who is
/// told of files is told of these only, and without any of all.
fn watched(
    problems: &mut Problems<'_>,
    paths: Vec<Spanned<String>>,
    table: &Spanned<BTreeMap<Spanned<String>, file::Event>>,
    events: &BTreeMap<EventType, EventGrant>,
) -> Vec<String> {
    let open = EventType::FILE_OPEN;
    let asked = events.get(&open).is_some_and(|granted| granted.classes.contains(Class::Ask));
    if asked && paths.is_empty() {
        let names = table.get_ref().keys();
        let place = names.filter(|name| name.get_ref() == open.name()).map(Spanned::span).next();
        let message = format!("{open} is asked about, and nothing says for which files");
        let help = "add the directories before the first table: watched = [\"/srv/data\"]";
        problems.at(place.unwrap_or(0..0), message, help);
    }
    let told = EventType::WATCHED.iter().any(|event| {
        events.get(event).is_some_and(|granted| granted.classes.contains(Class::Notify))
    });
    if let Some(first) = paths.first()
        && !asked
        && !told
    {
        let message =
            "files are watched, and the client is neither told of files nor asked about them";
        problems.at(
            first.span(),
            message,
            "remove watched, or add an event file_open with \"ask\", or \"notify\" for it or file_modify",
        );
    }
    if let Some(path) = paths.get(WATCHED_MAX) {
        let message = format!("{} paths are more than {WATCHED_MAX}", paths.len());
        problems.at(path.span(), message, "name a directory above them");
    }
    for path in &paths {
        absolute_path(problems, "watched", path);
    }
    paths.into_iter().map(Spanned::into_inner).collect()
}

fn memory(problems: &mut Problems<'_>, words: &[Spanned<String>]) -> Vec<MemoryUse> {
    let mut uses = Vec::new();
    for word in words {
        let text = word.get_ref().escape_default();
        match MemoryUse::ALL.into_iter().find(|known| known.name() == word.get_ref()) {
            None => {
                let message = format!("`{text}` is nothing that is given of memory");
                problems.at(word.span(), message, "write \"map\", \"read\" or both");
            }
            Some(known) if uses.contains(&known) => {
                problems.at(word.span(), format!("`{text}` is there twice"), "remove one of them");
            }
            Some(known) => uses.push(known),
        }
    }
    uses
}

fn scope(problems: &mut Problems<'_>, table: Spanned<file::Scope>) -> Option<Scope> {
    let table = table.into_inner();
    let see = table.see.get_ref().as_str();
    if let Some(cgroup) = &table.cgroup
        && see != "cgroup"
    {
        let message = format!("cgroup is given, and see = \"{}\"", see.escape_default());
        problems.at(cgroup.span(), message, "write see = \"cgroup\", or remove cgroup");
    }
    match (see, table.cgroup) {
        ("host", _) => Some(Scope::Host),
        ("descendants", _) => Some(Scope::Descendants),
        ("cgroup", Some(path)) => {
            absolute_path(problems, "cgroup", &path).then(|| Scope::Cgroup(path.into_inner()))
        }
        ("cgroup", None) => {
            problems.at(table.see.span(), "no cgroup is named", help("cgroup").unwrap_or_default());
            None
        }
        _ => {
            let message = format!("see takes no `{}`", see.escape_default());
            problems.at(table.see.span(), message, help("see").unwrap_or_default());
            None
        }
    }
}

/// The number if it is within its bounds, or what holds without the key.
fn number(
    problems: &mut Problems<'_>,
    key: &str,
    given: &Option<Spanned<i64>>,
    bounds: Bounds,
) -> u32 {
    let Some(given) = given else { return bounds.default };
    let value = u32::try_from(*given.get_ref()).ok();
    let Some(value) = value.filter(|value| (bounds.least..=bounds.most).contains(value)) else {
        problems.at(
            given.span(),
            format!("{key} = {} is out of bounds", given.get_ref()),
            format!("write a number from {} to {}", bounds.least, bounds.most),
        );
        return bounds.default;
    };
    value
}

fn limits(problems: &mut Problems<'_>, table: &file::Limits) -> Limits {
    let ring_bytes = number(problems, "ring_bytes", &table.ring_bytes, limits::RING_BYTES);
    if let Some(given) = &table.ring_bytes
        && !ring_bytes.is_power_of_two()
    {
        let larger = ring_bytes.next_power_of_two();
        problems.at(
            given.span(),
            format!("ring_bytes = {ring_bytes} is no power of two"),
            format!("the next ones are {} and {larger}", larger / 2),
        );
    }
    Limits {
        ring_bytes,
        max_rules: number(problems, "max_rules", &table.max_rules, limits::MAX_RULES),
        max_digests: number(problems, "max_digests", &table.max_digests, limits::MAX_DIGESTS),
        max_muted: number(problems, "max_muted", &table.max_muted, limits::MAX_MUTED),
        max_pending: number(problems, "max_pending", &table.max_pending, limits::MAX_PENDING),
        max_cached: number(problems, "max_cached", &table.max_cached, limits::MAX_CACHED),
    }
}

fn events(
    problems: &mut Problems<'_>,
    table: &Spanned<BTreeMap<Spanned<String>, file::Event>>,
) -> BTreeMap<EventType, EventGrant> {
    if table.get_ref().is_empty() {
        let help = help("events").unwrap_or_default();
        problems.at(table.span(), "no event is granted", help);
    }
    let mut events = BTreeMap::new();
    for (name, granted) in table.get_ref() {
        let known = EventType::from_name(name.get_ref());
        let Some(event) = known.filter(|event| !event.classes().is_empty()) else {
            let names = || EventType::all().map(EventType::name);
            let help = match (known, nearest(name.get_ref(), names())) {
                (Some(_), _) => "remove it: every session gets it without a grant".to_owned(),
                (None, Some(meant)) => format!("did you mean `{meant}`?"),
                (None, None) => "docs/grants.md has all types of events".to_owned(),
            };
            let message =
                format!("`{}` is no event that can be granted", name.get_ref().escape_default());
            problems.at(name.span(), message, help);
            continue;
        };
        events.insert(event, self::event(problems, event, granted));
    }
    events
}

fn event(problems: &mut Problems<'_>, event: EventType, table: &file::Event) -> EventGrant {
    let classes = classes(problems, event, &table.classes);
    let asked = classes.contains(Class::Ask);
    let deadline_ms = number(problems, "deadline_ms", &table.deadline_ms, limits::DEADLINE_MS);
    if let Some(given) = &table.deadline_ms
        && !asked
    {
        let message = format!("{event} has a deadline, and the client is not asked");
        problems.at(given.span(), message, "add \"ask\" to classes, or remove deadline_ms");
    }
    let deadline =
        if asked { Duration::from_millis(u64::from(deadline_ms)) } else { Duration::ZERO };
    EventGrant { classes, deadline, failure: failure(problems, event, classes, &table.failure) }
}

fn classes(
    problems: &mut Problems<'_>,
    event: EventType,
    list: &Spanned<Vec<Spanned<String>>>,
) -> ClassSet {
    if list.get_ref().is_empty() {
        problems.at(
            list.span(),
            format!("{event} has no class"),
            help("classes").unwrap_or_default(),
        );
    }
    let possible: Vec<_> = event.classes().iter().map(|class| format!("\"{class}\"")).collect();
    let possible = possible.join(", ");
    let mut classes = ClassSet::EMPTY;
    for word in list.get_ref() {
        let text = word.get_ref().escape_default();
        let help = format!("for {event} there are {possible}");
        match Class::from_name(word.get_ref()) {
            None => problems.at(word.span(), format!("`{text}` is no class"), help),
            Some(class) if !event.classes().contains(class) => {
                problems.at(
                    word.span(),
                    format!("{event} has no class `{text}` on any host"),
                    help,
                );
            }
            Some(class) if classes.contains(class) => {
                problems.at(word.span(), format!("`{text}` is there twice"), "remove one");
            }
            Some(class) => classes = classes.with(class),
        }
    }
    classes
}

fn failure(
    problems: &mut Problems<'_>,
    event: EventType,
    classes: ClassSet,
    table: &file::Failure,
) -> Contract {
    let asked = classes.contains(Class::Ask);
    let for_asked =
        [&table.deadline_missed, &table.queue_full, &table.client_died, &table.ringfenced_gone];
    for given in for_asked.into_iter().flatten().filter(|_| !asked) {
        let message =
            format!("{event} says what holds without an answer, and the client is not asked");
        problems.at(given.span(), message, "add \"ask\" to classes, or remove this key");
    }
    let not_connected: Absent = word(problems, "not_connected", &table.not_connected);
    if let Some(given) = &table.not_connected {
        if !asked && !classes.contains(Class::Rule) {
            let message =
                format!("{event} says what holds without the client, which decides nothing");
            problems.at(given.span(), message, "remove this key");
        } else if !asked && not_connected == Absent::Deny {
            let message = format!("{event} is to be denied by a client that is not asked");
            let help =
                "add \"ask\" to classes, or write \"last_rules\" and have a rule that denies";
            problems.at(given.span(), message, help);
        }
    }
    Contract {
        deadline_missed: word::<Fallback>(problems, "deadline_missed", &table.deadline_missed),
        queue_full: word::<Fallback>(problems, "queue_full", &table.queue_full),
        client_died: word::<Fallback>(problems, "client_died", &table.client_died),
        not_connected,
        ringfenced_gone: word::<Gone>(problems, "ringfenced_gone", &table.ringfenced_gone),
    }
}

/// The meaning of the word, or what holds without the key.
fn word<T: Choice + Default>(
    problems: &mut Problems<'_>,
    key: &str,
    given: &Option<Spanned<String>>,
) -> T {
    let Some(given) = given else { return T::default() };
    T::from_word(given.get_ref()).unwrap_or_else(|| {
        let message = format!("{key} takes no `{}`", given.get_ref().escape_default());
        problems.at(given.span(), message, format!("write one of {}", T::words()));
        T::default()
    })
}
