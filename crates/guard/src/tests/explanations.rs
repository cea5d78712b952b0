// SPDX-License-Identifier: Apache-2.0
//! What `explain` says about an address.

use super::synthetic::*;
use crate::explain::explain;
use crate::journal::{Actor, Change, Entry, Journal};
use crate::sites::SiteKind;

#[test]
fn an_untouched_address_is_as_expected() {
    let synthetic = Synthetic::new();
    let baseline = synthetic.baseline();
    let journal = silent();
    let said = explain(&synthetic.system(&baseline, &journal, &[]), QUIET).unwrap();
    assert_eq!((said.symbol.as_deref(), said.offset, said.region), (Some("quiet"), 0, "text"));
    assert_eq!(said.verdict, "all bytes shown are as expected");
    assert_eq!(said.expected, said.seen);
    assert_eq!(said.expected[0].text, "push rbp");
    assert!(said.sites.is_empty() && said.differences.is_empty());
}

#[test]
fn a_site_is_explained_with_its_table_its_key_and_all_it_may_hold() {
    let mut synthetic = Synthetic::new();
    let baseline = synthetic.baseline();
    synthetic.memory.write_u32(SHORT_KEY, 1);
    synthetic.memory.write(SHORT_LABEL, &[0xeb, 0x39]);
    let mut journal = Journal::running(4);
    let change =
        Change::TextPoke { address: SHORT_LABEL, old: vec![0x66, 0x90], new: vec![0xeb, 0x39] };
    journal.push(Entry { time_ns: 1, actor: Actor::default(), change });
    let said = explain(&synthetic.system(&baseline, &journal, &[]), WORK).unwrap();
    let label = said.sites.iter().find(|site| site.address == SHORT_LABEL).unwrap();
    assert_eq!((label.kind, label.table), (SiteKind::JumpLabel, "__jump_table"));
    assert_eq!(label.verdict, "as the kernel's data asks for");
    let legal: Vec<(&str, bool)> =
        label.legal.iter().map(|legal| (legal.bytes.as_str(), legal.now)).collect();
    assert_eq!(legal, [("eb 39", true), ("66 90", false)]);
    let decided = label.decided_by.as_deref().unwrap();
    assert!(decided.ends_with("enabled 1 times; jumps when it is on"), "{decided}");
    let differs: Vec<bool> = said.seen.iter().map(|line| line.differs).collect();
    assert_eq!(differs.get(..3), Some(&[false, true, false][..]));
    assert_eq!(said.differences, ["do_work+0x5, jump label: 66 90 became eb 39, explained"]);
    assert_eq!(said.journal.len(), 1);
}

#[test]
fn what_no_table_allows_is_said_to_be_so() {
    let mut synthetic = Synthetic::new();
    let baseline = synthetic.baseline();
    let journal = silent();
    synthetic.memory.write(QUIET, &[0xc3]);
    let said = explain(&synthetic.system(&baseline, &journal, &[]), QUIET).unwrap();
    assert_eq!(said.verdict, "bytes differ and no table of the kernel allows it");
    assert_eq!(said.differences, ["quiet+0x0, no site: 55 became c3, not explained"]);
    synthetic.memory.write(SHORT_LABEL, &[0x90, 0x90]);
    let said = explain(&synthetic.system(&baseline, &journal, &[]), WORK).unwrap();
    assert!(said.verdict.contains("holds what its table does not allow"), "{}", said.verdict);
}

#[test]
fn read_only_data_is_shown_in_rows_and_other_addresses_are_refused() {
    let synthetic = Synthetic::new();
    let baseline = synthetic.baseline();
    let journal = silent();
    let system = synthetic.system(&baseline, &journal, &[]);
    let said = explain(&system, RODATA + 0x100).unwrap();
    assert_eq!((said.region, said.expected.len()), ("rodata", 2));
    let refused = explain(&system, DATA).unwrap_err();
    assert!(refused.0.contains("neither the kernel's text nor its read-only data"));
}
