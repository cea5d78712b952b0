// SPDX-License-Identifier: Apache-2.0
//! What was found of the attacks of the lab: a line for each, kept by the scenarios `attacks` and
//! `attacks-outside`, and the page docs/detection.md made of them.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::kernels::Kernel;
use crate::scenarios::Closing;

/// What the scenario `attacks` keeps.
pub(crate) const INSIDE: &str = "detection.tsv";
/// What the scenario `attacks-outside` keeps: a heading, then attack, check, technique and seconds.
const OUTSIDE: &str = "attacks-outside.tsv";

/// Those that stand in the way by which the guard reads.
pub(crate) const ON_READ_PATH: [&str; 2] = ["read_path_hook", "bpf_path_hook"];

/// How an attack gets at the kernel, which decides how soon it can be noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Through an interface of the kernel, which announces it.
    Interface,
    /// By writing memory, which only a pass sees.
    Write,
}

/// The classes, in words, with the time within which 99 of 100 are told of.
const CLASSES: [(Class, &str, Duration); 2] = [
    (Class::Interface, "through kernel interfaces", Duration::from_millis(500)),
    (Class::Write, "raw writes", Duration::from_secs(2)),
];

/// Of fewer the 99th percentile is the longest, and says how busy the host was.
const ENOUGH: usize = 50;

/// How it came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Result {
    /// Told of as it should be, after so long.
    Found(Duration),
    /// Told of, but by another check or under another name.
    Misnamed,
    /// The kernel refused the attack, in its own words.
    NotPossible(String),
    /// Not carried out, because it cannot be seen from there, for this reason.
    NotSeen(String),
    /// Not told of.
    Missed,
}

/// An attack on a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) attack: String,
    pub(crate) class: Class,
    /// The check, or the kind of hook, that told.
    pub(crate) by: String,
    /// What it was called.
    pub(crate) technique: String,
    pub(crate) result: Result,
}

impl Line {
    /// As a line of [`INSIDE`].
    pub(crate) fn to_tsv(&self) -> String {
        let class = match self.class {
            Class::Interface => "interface",
            Class::Write => "write",
        };
        let (result, more) = match &self.result {
            Result::Found(after) => ("found", after.as_millis().to_string()),
            Result::Misnamed => ("misnamed", String::new()),
            Result::NotPossible(why) => ("not possible", why.replace(['\t', '\n'], " ")),
            Result::NotSeen(why) => ("not seen", why.clone()),
            Result::Missed => ("missed", String::new()),
        };
        let cells = [&self.attack, class, &self.by, &self.technique, result, &more];
        cells.join("\t") + "\n"
    }

    fn parse(line: &str) -> Option<Self> {
        let cells: Vec<&str> = line.split('\t').collect();
        let [attack, class, by, technique, result, more] = cells.try_into().ok()?;
        Some(Self {
            attack: attack.to_owned(),
            class: if class == "interface" { Class::Interface } else { Class::Write },
            by: by.to_owned(),
            technique: technique.to_owned(),
            result: match result {
                "found" => Result::Found(Duration::from_millis(more.parse().ok()?)),
                "misnamed" => Result::Misnamed,
                "not possible" => Result::NotPossible(more.to_owned()),
                "not seen" => Result::NotSeen(more.to_owned()),
                "missed" => Result::Missed,
                _ => return None,
            },
        })
    }
}

/// What is known of one kernel.
struct Known<'k> {
    kernel: &'k Kernel,
    inside: Vec<Line>,
    outside: Vec<Outside>,
}

/// A look from outside.
struct Outside {
    attack: String,
    /// By which check, as what.
    name: String,
    /// What the column says.
    said: String,
}

impl<'k> Known<'k> {
    fn of(kernel: &'k Kernel, logs: &Path) -> Option<Self> {
        let read = |scenario: &str, file: &str| {
            fs::read_to_string(logs.join(scenario).join(&kernel.name).join(file))
        };
        let inside = read("attacks", INSIDE).unwrap_or_default();
        let inside: Vec<Line> = inside.lines().filter_map(Line::parse).collect();
        let outside = read("attacks-outside", OUTSIDE).unwrap_or_default();
        let outside = outside.lines().skip(1).filter_map(|line| {
            let mut cells = line.split('\t');
            let (attack, check, technique) = (cells.next()?, cells.next()?, cells.next()?);
            let said = match check {
                "missed" => "**missed**".to_owned(),
                _ => format!("{} s", cells.next()?),
            };
            let name = format!("{check}: {technique}");
            Some(Outside { attack: attack.to_owned(), name, said })
        });
        let outside = outside.collect();
        (!inside.is_empty()).then_some(Self { kernel, inside, outside })
    }

    fn line(&self, attack: &str) -> Option<&Line> {
        self.inside.iter().find(|line| line.attack == attack)
    }
}

/// Times to detect: how many there are, median, 99th percentile (nearest rank) and the longest.
fn times(lines: &[&Line], class: Class) -> Option<(usize, [Duration; 3])> {
    let of_class = lines.iter().filter(|line| line.class == class);
    let mut all: Vec<Duration> = of_class
        .filter_map(|line| match line.result {
            Result::Found(after) => Some(after),
            _ => None,
        })
        .collect();
    all.sort_unstable();
    let rank = |percent: usize| all.get((all.len() * percent).div_ceil(100).saturating_sub(1));
    Some((all.len(), [*rank(50)?, *rank(99)?, *all.last()?]))
}

/// How soon attacks were told of, and how many under their name, in lines of Markdown that read as
/// text too.
fn summary(lines: &[&Line]) -> String {
    let mut text = String::new();
    for (class, words, _) in CLASSES {
        if let Some((count, [median, most, longest])) = times(lines, class) {
            let seconds = [median, most, longest].map(|time| time.as_secs_f64());
            let [median, most, longest] = seconds;
            let _ = writeln!(
                text,
                "- time to detect, {words}: p50 {median:.1} s, p99 {most:.1} s, longest {longest:.1} s ({count})"
            );
        }
    }
    let carried_out =
        |line: &&&Line| !matches!(line.result, Result::NotPossible(_) | Result::NotSeen(_));
    let named = lines.iter().filter(carried_out);
    let right = named.clone().filter(|line| matches!(line.result, Result::Found(_))).count();
    let all = named.count();
    if let Some(percent) = (100 * right).checked_div(all) {
        let _ = writeln!(text, "- technique named right: {right} of {all} ({percent} %)");
    }
    let on_path = lines.iter().filter(|line| ON_READ_PATH.contains(&line.attack.as_str()));
    let found = on_path.clone().filter(|line| matches!(line.result, Result::Found(_))).count();
    if let all @ 1.. = on_path.count() {
        let _ =
            writeln!(text, "- hooks on the guard's reading path: found in {found} of {all} runs");
    }
    text
}

/// Times and names of all kernels together, for the end of a run.
pub(crate) fn closing(logs: &Path, kernels: &[Kernel]) -> Option<Closing> {
    let logs = logs.parent()?;
    let known: Vec<_> = kernels.iter().filter_map(|kernel| Known::of(kernel, logs)).collect();
    let lines: Vec<&Line> = known.iter().flat_map(|one| &one.inside).collect();
    let text = format!("attacks\n{}", summary(&lines));
    (!lines.is_empty()).then(|| Closing { text, problems: late(&lines) })
}

/// Which class of attacks was told of later than promised: 99 of 100 within this.
fn late(lines: &[&Line]) -> Vec<String> {
    let late = CLASSES.iter().filter_map(|(class, words, limit)| {
        let (count, [_, most, _]) = times(lines, *class)?;
        let is_late = count >= ENOUGH && most > *limit;
        is_late.then(|| format!("{words} are told of after {most:?} (p99), not within {limit:?}"))
    });
    late.collect()
}

/// The page; nothing if no attack was carried out.
#[must_use]
pub fn page(logs: &Path, kernels: &[Kernel]) -> Option<String> {
    let known: Vec<_> = kernels.iter().filter_map(|kernel| Known::of(kernel, logs)).collect();
    let lines: Vec<&Line> = known.iter().flat_map(|one| &one.inside).collect();
    let mut attacks: Vec<&Line> = Vec::new();
    for line in &lines {
        if !attacks.iter().any(|one| one.attack == line.attack) {
            attacks.push(line);
        }
    }
    if attacks.is_empty() {
        return None;
    }
    let mut text = String::from(HEAD);
    for one in &known {
        let _ = writeln!(text, "- {}: {}", one.kernel.name, one.kernel.version);
    }
    text.push('\n');
    text.push_str(&summary(&lines));
    text.push_str("\n| attack | told by | as |");
    for one in &known {
        let _ = write!(text, " {0}, inside | {0}, outside |", one.kernel.name);
    }
    text.push_str("\n| --- | --- | --- |");
    text.push_str(&" --- | --- |".repeat(known.len()));
    text.push('\n');
    let mut notes: Vec<String> = Vec::new();
    for attack in attacks {
        let name = &attack.attack;
        // What told of it on the first kernel where something did.
        let told = known.iter().filter_map(|one| one.line(name));
        let told = told.clone().find(|line| !line.by.is_empty()).unwrap_or(attack);
        let _ = write!(text, "| {name} | {} | {} |", told.by, told.technique);
        for one in &known {
            let inside = inside(one.line(name), told, &mut notes);
            let outside = one.outside.iter().find(|one| one.attack == *name);
            let _ = write!(text, " {inside} | {} |", from_outside(outside, told));
        }
        text.push('\n');
    }
    for (number, note) in (1..).zip(&notes) {
        let _ = write!(text, "\n[{number}] {note}\n");
    }
    Some(text)
}

/// What the column for the inside says.
fn inside(line: Option<&Line>, told: &Line, notes: &mut Vec<String>) -> String {
    let Some(line) = line else { return "–".to_owned() };
    let other = if (&line.by, &line.technique) == (&told.by, &told.technique) {
        String::new()
    } else {
        format!(" ({}: {})", line.by, line.technique)
    };
    match &line.result {
        Result::Found(after) => format!("{:.1} s{other}", after.as_secs_f64()),
        Result::Misnamed => format!("**misnamed**{other}"),
        Result::Missed => "**missed**".to_owned(),
        Result::NotPossible(why) | Result::NotSeen(why) => {
            let at = notes.iter().position(|note| note == why).unwrap_or(notes.len());
            if at == notes.len() {
                notes.push(why.clone());
            }
            let words =
                if matches!(line.result, Result::NotSeen(_)) { "not seen" } else { "not possible" };
            format!("{words} [{}]", at + 1)
        }
    }
}

/// What the column for the outside says: also as what, where that is another name than from inside.
fn from_outside(outside: Option<&Outside>, told: &Line) -> String {
    let Some(Outside { name, said, .. }) = outside else { return "–".to_owned() };
    let same = told.by.starts_with("hook: ") && name.starts_with("hooks: ")
        || *name == format!("{}: {}", told.by, told.technique);
    if same || said.starts_with("**") { said.clone() } else { format!("{said} ({name})") }
}

const HEAD: &str = "<!-- SPDX-License-Identifier: Apache-2.0 -->
# What is detected

Made by `make detection` from what `make lab` last carried out; not written by hand. Each row is an
attack of tests/attacks, which really changes a kernel in a virtual machine. *Inside* is the time until
`ringfence watch` in the guest tells of it, by the check and under the name in the row; *outside* is
how long one look at the guest's memory from the host takes, with nothing of ours in the guest. A hook
is told of with its owner and is no finding by itself. What goes through an interface of the kernel is
done as its module is loaded; what writes memory is done three to four seconds after that, when the
guard has long looked at the module and nothing announces the write. Guests are emulated, several times
slower than hardware, so the watch has a share of a whole processor there (`--share=100`), and the host
that made this table had other work too. `–` is not carried out.

";

#[cfg(test)]
mod tests {
    use super::*;

    fn line(attack: &str, class: Class, result: Result) -> Line {
        let (by, technique) = ("text".to_owned(), "early return".to_owned());
        Line { attack: attack.to_owned(), class, by, technique, result }
    }

    #[test]
    fn a_line_that_was_kept_is_read_as_it_was() {
        for result in [
            Result::Found(Duration::from_millis(812)),
            Result::Misnamed,
            Result::NotPossible("Operation not permitted".to_owned()),
            Result::Missed,
        ] {
            let line = line("inline_start", Class::Write, result);
            let kept = line.to_tsv();
            assert_eq!(kept.lines().next().and_then(Line::parse), Some(line));
        }
        assert_eq!(Line::parse("inline_start\t812 ms"), None);
    }

    #[test]
    fn times_are_told_by_class_and_what_could_not_be_carried_out_is_not_counted() {
        let found = |milliseconds| Result::Found(Duration::from_millis(milliseconds));
        let lines = [
            line("a", Class::Interface, found(100)),
            line("b", Class::Write, found(1000)),
            line("c", Class::Write, found(3000)),
            line("d", Class::Write, Result::Missed),
            line("e", Class::Write, Result::NotPossible("no".to_owned())),
            line(ON_READ_PATH[0], Class::Write, found(900)),
            line(ON_READ_PATH[1], Class::Write, Result::Missed),
        ];
        let lines: Vec<&Line> = lines.iter().collect();
        let text = summary(&lines);
        let raw = "raw writes: p50 1.0 s, p99 3.0 s, longest 3.0 s (3)";
        assert!(text.contains(raw) && text.contains("interfaces: p50 0.1 s"), "{text}");
        assert!(text.contains("named right: 4 of 6 (66 %)"), "{text}");
        assert!(text.contains("reading path: found in 1 of 2 runs"), "{text}");
    }

    #[test]
    fn a_class_that_is_told_of_late_is_a_problem_when_there_are_enough_to_tell() {
        let of = |milliseconds| {
            line("a", Class::Interface, Result::Found(Duration::from_millis(milliseconds)))
        };
        let (quick, slow) = (of(400), of(600));
        let mut lines = vec![&quick; ENOUGH - 1];
        lines.push(&slow);
        assert_eq!(late(&lines).len(), 1);
        assert_eq!(late(&lines[1..]), Vec::<String>::new());
        assert_eq!(late(&vec![&quick; ENOUGH]), Vec::<String>::new());
    }

    #[test]
    fn the_page_has_a_row_for_each_attack_and_says_what_was_missed_or_not_possible() {
        let logs = tempfile::tempdir().unwrap();
        let kernel = |name: &str| Kernel {
            name: name.to_owned(),
            release: "6.12.0".to_owned(),
            version: "6.12.0-1".to_owned(),
            directory: "/nowhere".into(),
            beside_modules: false,
        };
        let kernels = [kernel("6.1-amd64"), kernel("6.12-amd64"), kernel("7-amd64")];
        assert_eq!(page(logs.path(), &kernels), None);
        let keep = |scenario: &str, kernel: &str, file: &str, text: &str| {
            let directory = logs.path().join(scenario).join(kernel);
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join(file), text).unwrap();
        };
        let found = line("a", Class::Write, Result::Found(Duration::from_millis(812)));
        let refused = line("a", Class::Write, Result::NotPossible("no such symbol".to_owned()));
        let missed = line("b", Class::Write, Result::Missed);
        keep("attacks", "6.1-amd64", INSIDE, &(refused.to_tsv() + &missed.to_tsv()));
        keep("attacks", "6.12-amd64", INSIDE, &found.to_tsv());
        let outside = "attack\tcheck\ttechnique\tseconds\na\ttext\tearly return\t1.25\n";
        keep("attacks-outside", "6.12-amd64", OUTSIDE, outside);
        let page = page(logs.path(), &kernels).unwrap();
        let rows = "\n| a | text | early return | not possible [1] | – | 0.8 s | 1.25 s |\n\
            | b | text | early return | **missed** | – | – | – |\n\n[1] no such symbol\n";
        assert!(page.contains(rows), "{page}");
        assert!(!page.contains("7-amd64"), "{page}");
    }
}
