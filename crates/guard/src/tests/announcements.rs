// SPDX-License-Identifier: Apache-2.0
//! Changes with and without an entry in the journal.

use super::synthetic::*;
use crate::announced::Announced;
use crate::baseline::Baseline;
use crate::checks::text::Text;
use crate::compare::Place;
use crate::confirm::Explained;
use crate::journal::{Actor, Change, Entry, Journal};
use crate::sites::Verdict;

const JUMP: [u8; 2] = [0xeb, 0x39];
const NOP: [u8; 2] = [0x66, 0x90];

struct Passes {
    synthetic: Synthetic,
    baseline: Baseline,
    journal: Journal,
    text: Text,
}

impl Passes {
    fn new(journal: Journal) -> Self {
        let synthetic = Synthetic::new();
        let baseline = synthetic.baseline();
        Self { synthetic, baseline, journal, text: Text::default() }
    }

    fn pass(&mut self) -> Vec<String> {
        let outcome = self.synthetic.run(&mut self.text, &self.baseline, &self.journal).unwrap();
        outcome.findings.into_iter().map(|finding| finding.technique).collect()
    }

    fn write(&mut self, bytes: [u8; 2]) {
        self.synthetic.memory.write(SHORT_LABEL, &bytes);
    }

    fn announce(&mut self, new: [u8; 2]) {
        let change =
            Change::TextPoke { address: SHORT_LABEL, old: NOP.to_vec(), new: new.to_vec() };
        self.journal.push(Entry { time_ns: 1, actor: Actor::default(), change });
    }

    fn forget(&mut self) {
        self.journal.forget_before(u64::MAX);
    }
}

const UNANNOUNCED: &str = "change not announced by the kernel";

#[test]
fn a_legal_encoding_that_nobody_announced_is_found_in_the_second_pass_that_sees_it() {
    let mut passes = Passes::new(Journal::running(8));
    assert!(passes.pass().is_empty());
    passes.write(JUMP);
    assert!(passes.pass().is_empty(), "the announcement may be late");
    assert_eq!(passes.pass(), [UNANNOUNCED]);
    assert!(passes.pass().is_empty(), "it is told once");
}

#[test]
fn an_announced_change_is_no_finding() {
    let mut passes = Passes::new(Journal::running(8));
    passes.pass();
    passes.write(JUMP);
    passes.announce(JUMP);
    for _ in 0..3 {
        assert!(passes.pass().is_empty());
        passes.forget();
    }
}

#[test]
fn an_announcement_may_come_one_pass_late_or_early() {
    let mut passes = Passes::new(Journal::running(8));
    passes.pass();
    passes.write(JUMP);
    passes.pass();
    passes.announce(JUMP);
    assert!(passes.pass().is_empty());
    passes.forget();
    passes.announce(NOP);
    assert!(passes.pass().is_empty());
    passes.forget();
    passes.write(NOP);
    assert!(passes.pass().is_empty());
    assert!(passes.pass().is_empty());
}

#[test]
fn an_announcement_of_other_bytes_does_not_cover_a_change() {
    let mut passes = Passes::new(Journal::running(8));
    passes.pass();
    passes.write(JUMP);
    passes.announce(NOP);
    passes.pass();
    assert_eq!(passes.pass(), [UNANNOUNCED]);
}

#[test]
fn a_change_back_needs_its_announcement_too() {
    let mut passes = Passes::new(Journal::running(8));
    passes.write(JUMP);
    assert!(passes.pass().is_empty(), "what came before the first pass cannot be known");
    passes.write(NOP);
    passes.pass();
    assert_eq!(passes.pass(), [UNANNOUNCED]);
}

#[test]
fn what_is_not_legal_is_not_told_of_as_unannounced_too() {
    let mut passes = Passes::new(Journal::running(8));
    passes.pass();
    passes.write(JUMP);
    passes.announce(JUMP);
    assert!(passes.pass().is_empty());
    passes.forget();
    passes.write([0xcc, 0xcc]);
    for _ in 0..4 {
        let told = passes.pass();
        assert!(told.len() == 1 && told[0] != UNANNOUNCED, "{told:?}");
    }
    passes.write(JUMP);
    for _ in 0..4 {
        assert!(passes.pass().is_empty(), "it is as it was announced");
    }
    passes.write(NOP);
    passes.pass();
    assert_eq!(passes.pass(), [UNANNOUNCED]);
}

#[test]
fn nothing_is_held_against_a_journal_with_losses() {
    let mut passes = Passes::new(Journal::running(8));
    passes.pass();
    passes.write(JUMP);
    passes.pass();
    passes.journal.add_lost(1);
    assert!(passes.pass().is_empty());
    passes.forget();
    assert!(passes.pass().is_empty());
}

#[test]
fn nothing_is_held_against_a_journal_that_hears_no_text_pokes() {
    let mut passes = Passes::new(Journal::running(8).without_text_pokes("the kernel is silent"));
    passes.pass();
    passes.write(JUMP);
    for _ in 0..3 {
        assert!(passes.pass().is_empty());
    }
}

#[test]
fn without_a_journal_the_check_says_so_from_the_second_pass_on() {
    let mut passes = Passes::new(silent());
    let mut reasons = Vec::new();
    for _ in 0..2 {
        let outcome =
            passes.synthetic.run(&mut passes.text, &passes.baseline, &passes.journal).unwrap();
        reasons.push(outcome.reduced.iter().any(|line| line.contains("not held against")));
    }
    assert_eq!(reasons, [false, true]);
}

#[test]
fn what_a_pass_heard_that_came_to_no_end_counts_in_the_next() {
    let baseline = Synthetic::new().baseline();
    let place = Place { start: SHORT_LABEL, end: SHORT_LABEL + 2, site: None };
    let jumps = [Explained { place, seen: JUMP.to_vec(), verdict: Verdict::Illegal }];
    let quiet = Journal::running(8);
    let found = |announced: &mut Announced, journal: &Journal| {
        announced.hear(journal);
        announced.pass(journal, &baseline, jumps.to_vec(), Vec::new())
    };

    let mut announced = Announced::default();
    announced.hear(&quiet);
    for _ in 0..3 {
        assert!(found(&mut announced, &quiet).findings.is_empty(), "none came to its end before");
    }

    let watched = || {
        let mut announced = Announced::default();
        announced.hear(&quiet);
        announced.pass(&quiet, &baseline, Vec::new(), Vec::new());
        announced
    };
    let mut announced = watched();
    let mut poked = Passes::new(Journal::running(8));
    poked.announce(JUMP);
    announced.hear(&poked.journal);
    for _ in 0..3 {
        assert!(found(&mut announced, &quiet).findings.is_empty(), "it was announced");
    }

    let mut announced = watched();
    let mut lossy = Journal::running(8);
    lossy.add_lost(1);
    announced.hear(&lossy);
    assert!(found(&mut announced, &quiet).reduced.is_some_and(|reason| reason.contains("lost")));
    assert!(found(&mut announced, &quiet).findings.is_empty());
}

#[test]
fn what_is_announced_of_a_site_is_remembered_as_long_as_the_kernel_is_changing_it() {
    let baseline = Synthetic::new().baseline();
    let place = Place { start: SHORT_LABEL, end: SHORT_LABEL + 2, site: None };
    let jumps = || vec![Explained { place, seen: JUMP.to_vec(), verdict: Verdict::Illegal }];
    let quiet = Journal::running(8);
    let found = |poked: bool| {
        let mut announced = Announced::default();
        let mut pass = |journal: &Journal, explained, left| {
            announced.hear(journal);
            announced.pass(journal, &baseline, explained, left).findings.len()
        };
        assert_eq!(pass(&quiet, Vec::new(), Vec::new()), 0);
        let mut passes = Passes::new(Journal::running(8));
        if poked {
            passes.announce(JUMP);
        }
        assert_eq!(pass(&passes.journal, Vec::new(), vec![place]), 0);
        for _ in 0..5 {
            assert_eq!(pass(&quiet, Vec::new(), vec![place]), 0);
        }
        (0..4).map(|_| pass(&quiet, jumps(), Vec::new())).sum::<usize>()
    };
    assert_eq!(found(true), 0);
    assert_eq!(found(false), 1);
}

#[test]
fn a_site_that_is_left_counts_as_it_was() {
    let baseline = Synthetic::new().baseline();
    let place = Place { start: SHORT_LABEL, end: SHORT_LABEL + 2, site: None };
    let jumps = || vec![Explained { place, seen: JUMP.to_vec(), verdict: Verdict::Illegal }];
    let quiet = Journal::running(8);
    let mut announced = Announced::default();
    let mut pass = |explained, left| {
        announced.hear(&quiet);
        announced.pass(&quiet, &baseline, explained, left).findings.len()
    };
    pass(jumps(), Vec::new());
    for _ in 0..3 {
        assert_eq!(pass(Vec::new(), vec![place]), 0);
        assert_eq!(pass(jumps(), Vec::new()), 0, "it is as it was before");
    }
}
