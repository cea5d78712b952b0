// SPDX-License-Identifier: Apache-2.0
//! What each key of a grant takes, for the help of errors that the TOML parser finds.

/// Key, and what it takes. A test holds this list and docs/grants.md to the tables of `file.rs`.
pub(super) const KEYS: [(&str, &str); 34] = [
    (
        "client",
        "write the name of the client in reverse-DNS style: client = \"com.example.sensor\"",
    ),
    ("altitude", "write a decimal number in quotes: altitude = \"320500.25\""),
    ("draft", "write draft = true or draft = false"),
    ("identity", "write a table [identity] with executable, sha256 or both"),
    ("executable", "write an absolute path: executable = \"/opt/example/sensor\""),
    ("sha256", "write a list of digests: sha256 = [\"64 hexadecimal digits\"]"),
    ("uid", "write a number: uid = 990"),
    ("user", "write the name of a user: user = \"sensor\""),
    ("watched", "write a list of absolute paths: watched = [\"/srv/data\"]"),
    ("memory", "write a list of \"map\" and \"read\": memory = [\"map\"]"),
    ("scope", "write a table [scope] with see, and cgroup where see = \"cgroup\""),
    ("see", "write one of \"host\", \"descendants\", \"cgroup\""),
    ("cgroup", "write the path of a cgroup as in /proc/PID/cgroup: cgroup = \"/ci.slice\""),
    ("limits", "write a table [limits]"),
    ("ring_bytes", "write a power of two, in bytes: ring_bytes = 4194304"),
    ("max_rules", "write how many rules there may be: max_rules = 1000"),
    ("max_digests", "write how many digests there may be: max_digests = 100000"),
    ("max_muted", "write how many mutes there may be: max_muted = 256"),
    ("max_pending", "write how many questions may be open at once: max_pending = 64"),
    ("max_cached", "write how many verdicts may be cached: max_cached = 4096"),
    ("demotion", "write a table [demotion]"),
    ("misses", "write how many deadlines may be missed within a minute: misses = 5"),
    ("seconds", "write how long it is not asked then: seconds = 60"),
    ("events", "write a table for each type of event: [events.process_exec]"),
    ("classes", "write a list: classes = [\"notify\", \"ask\"]"),
    ("deadline_ms", "write a number of milliseconds: deadline_ms = 500"),
    ("failure", "write a table such as [events.process_exec.failure]"),
    ("deadline_missed", "write \"allow\" or \"deny\""),
    ("queue_full", "write \"allow\" or \"deny\""),
    ("client_died", "write \"allow\" or \"deny\""),
    ("not_connected", "write \"allow\", \"deny\" or \"last_rules\""),
    ("ringfenced_gone", "write \"as_not_connected\", \"allow\" or \"deny\""),
    // Not keys yet.
    ("signature", "a grant is not signed yet; remove it"),
    ("protect", "protection is not granted yet; remove it"),
];

/// What the key takes.
pub(super) fn help(key: &str) -> Option<&'static str> {
    KEYS.iter().find(|(known, _)| *known == key).map(|(_, help)| *help)
}

/// The word of the list that was probably meant: one or two letters away.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 2 && *distance < candidate.len() / 2)
        .min()
        .map(|(_, candidate)| candidate)
}

/// How many bytes must be put in, taken out or replaced. Of long words nothing is near.
fn distance(from: &str, to: &str) -> usize {
    const LONGEST: usize = 40;
    if from.len() > LONGEST || to.len() > LONGEST {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.bytes().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_help_for_each_key_and_the_document_has_it() {
        let document = include_str!("../../../../docs/grants.md");
        let fields = include_str!("file.rs").lines().filter_map(|line| {
            line.trim().strip_prefix("pub(super) ")?.split_once(": ").map(|(field, _)| field)
        });
        let mut count = 0;
        for key in fields {
            count += 1;
            assert!(help(key).is_some(), "no help for {key}");
            let headings = [format!("| `{key}` |"), format!("`[{key}]`"), format!("`[{key}.NAME")];
            let nested = format!("`[events.NAME.{key}]`");
            let found = headings.iter().chain([&nested]).any(|text| document.contains(text));
            assert!(found, "docs/grants.md has no {key}");
        }
        assert_eq!(count + 2, KEYS.len(), "help for what is no key");
    }

    #[test]
    fn a_slip_of_the_pen_is_understood() {
        let keys = || KEYS.iter().map(|(key, _)| *key);
        assert_eq!(nearest("altitud", keys()), Some("altitude"));
        assert_eq!(nearest("dealine_ms", keys()), Some("deadline_ms"));
        assert_eq!(nearest("nonsense", keys()), None);
        assert_eq!(nearest("x", keys()), None);
    }

    #[test]
    fn distances_are_those_of_levenshtein() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", "abc"), 0);
    }
}
