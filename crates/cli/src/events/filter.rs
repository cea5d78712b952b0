// SPDX-License-Identifier: Apache-2.0
//! Which events are shown: those for which conditions hold that are written as those of rules.

use abi::EventType;
use anyhow::{Context as _, bail, ensure};
use rules::evaluate::matches;
use rules::model::Condition;
use rules::{Context, Problem, Record, Rule, RuleSet};

/// Conditions, all of which must hold.
#[derive(Debug)]
pub(super) struct Filter {
    /// The types for which they can, each with a rule that has them.
    rules: Vec<(EventType, Rule)>,
}

impl Filter {
    /// Each is such as `file.path = "/tmp"`; `types` are those that are wanted, or none for all. None of it
    /// if there are no conditions.
    ///
    /// # Errors
    /// When they cannot hold for any of the types, with the reason for one.
    pub(super) fn of(conditions: &[String], types: &[EventType]) -> anyhow::Result<Option<Self>> {
        if conditions.is_empty() {
            return Ok(None);
        }
        let types: &[EventType] = if types.is_empty() { &EventType::ALL } else { types };
        let (mut rules, mut refused) = (Vec::new(), None);
        for event in types.iter().copied().filter(|event| !event.is_of_session()) {
            match rule(event, conditions) {
                Ok(rule) => rules.push((event, rule)),
                Err(error) => refused = refused.or(Some((event, error))),
            }
        }
        if rules.is_empty()
            && let Some((event, error)) = refused
        {
            return Err(
                error.context(format!("no event can be selected so; of {}, for one", event.name()))
            );
        }
        Ok(Some(Self { rules }))
    }

    /// Whether any of a type can be shown.
    pub(super) fn is_of(&self, event: EventType) -> bool {
        self.rules.iter().any(|(of, _)| *of == event)
    }

    /// Whether a record is shown. What concerns the session itself always is.
    pub(super) fn shows(&self, record: &abi::Record<'_>) -> bool {
        let of_session = record.event_type().is_none_or(EventType::is_of_session);
        of_session
            || Record::new(record.bytes()).is_some_and(|record| {
                let context = Context::default();
                self.rules.iter().any(|(_, rule)| matches(rule, &record, &context))
            })
    }
}

/// A rule for a type with these conditions.
fn rule(event: EventType, conditions: &[String]) -> anyhow::Result<Rule> {
    let name = event.name();
    let mut text = format!("[[rule]]\nid = 1\nevent = \"{name}\"\naction = \"notify\"\n");
    for condition in conditions {
        ensure!(!condition.contains('\n'), "a condition is one line");
        text.push_str(condition);
        text.push('\n');
    }
    let set = RuleSet::from_toml(&text).map_err(|refused| {
        // Places are those of a text that nobody has written.
        let first = refused.problems.into_iter().next();
        let first = first.map(|Problem { path, message, .. }| (path, message));
        let (path, message) = first.unwrap_or_default();
        match path.strip_prefix("rule[0].") {
            Some(field) => anyhow::anyhow!("{field}: {message}"),
            None => anyhow::anyhow!(message),
        }
    })?;
    let rule = set.rules.into_iter().next().context("no rule")?;
    let each_is_one = rule.conditions.len() >= conditions.len() && !rule.dry_run;
    ensure!(each_is_one, "{} is not a condition each", conditions.join(", "));
    for condition in &rule.conditions {
        match condition {
            Condition::DescendantOf(_) => {
                bail!("a record does not say what its actor descends from")
            }
            Condition::DigestIn(..) => bail!("what is in a collection is not known here"),
            _ => {}
        }
    }
    Ok(rule)
}

#[cfg(test)]
mod tests {
    use abi::{ProcessExec, RecordBuffer, RecordBuilder};

    use super::*;

    fn filter(conditions: &[&str], types: &[EventType]) -> anyhow::Result<Filter> {
        let conditions: Vec<_> = conditions.iter().map(|text| (*text).to_owned()).collect();
        Ok(Filter::of(&conditions, types)?.expect("conditions"))
    }

    fn exec(path: &[u8]) -> RecordBuffer {
        let mut record = RecordBuilder::<ProcessExec>::new(EventType::ProcessExec);
        record.part.file.path = record.path(path);
        record.finish()
    }

    #[test]
    fn events_are_shown_for_which_all_conditions_hold() {
        let of = ["file.path = \"/tmp\"", "actor.uid = 0"];
        let (both, other) = (filter(&of, &[]).unwrap(), "actor.uid = 5");
        let shows = |filter: &Filter, path| filter.shows(&exec(path).record().unwrap());
        assert!(shows(&both, b"/tmp/program") && !shows(&both, b"/bin/program"));
        assert!(!shows(&filter(&[of[0], other], &[]).unwrap(), b"/tmp/program"));
    }

    #[test]
    fn only_types_that_have_what_the_conditions_ask_for_are_listened_to() {
        let all = filter(&["signal = \"SIGKILL\""], &[]).unwrap();
        let of = |filter: &Filter| -> Vec<_> {
            EventType::ALL.iter().copied().filter(|event| filter.is_of(*event)).collect()
        };
        assert_eq!(of(&all), [EventType::ProcessSignal]);
        let types = [EventType::ProcessExec, EventType::ProcessFork];
        assert_eq!(of(&filter(&["file.path = \"/tmp\""], &types).unwrap()), [types[0]]);
        assert!(Filter::of(&[], &[]).unwrap().is_none());
    }

    #[test]
    fn what_no_event_can_be_selected_by_is_an_error_with_the_reason() {
        let refused = |condition: &str| format!("{:#}", filter(&[condition], &[]).unwrap_err());
        for (condition, why) in [
            ("colour = 3", "colour"),
            ("file.path", "process_exec"),
            ("dry_run = true", "not a condition"),
            ("# nothing", "not a condition"),
            ("actor.descendant_of = { pid = 1, start = 2 }", "descends"),
            ("action = \"deny\"", "process_exec"),
            ("actor.uid = 5\n[[rule]]", "one line"),
        ] {
            let said = refused(condition);
            assert!(said.contains(why), "{condition}: {said}");
        }
    }
}
