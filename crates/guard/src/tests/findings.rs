// SPDX-License-Identifier: Apache-2.0
//! What the check of the text says about each thing that can be done to it.

use super::synthetic::*;
use crate::check::Outcome;
use crate::checks::read_paths::ReadPaths;
use crate::checks::rodata::Rodata;
use crate::checks::text::Text;
use crate::finding::Finding;

/// Changes memory and gives the only finding about it.
fn found(address: u64, bytes: &[u8]) -> Finding {
    let mut outcome = changed(&[(address, bytes)]);
    assert_eq!(outcome.findings.len(), 1, "{:#?}", outcome.findings);
    outcome.findings.remove(0)
}

fn changed(changes: &[(u64, &[u8])]) -> Outcome {
    let mut synthetic = Synthetic::new();
    let baseline = synthetic.baseline();
    for (address, bytes) in changes {
        synthetic.memory.write(*address, bytes);
    }
    synthetic.run(&mut Text::default(), &baseline, &silent()).unwrap()
}

fn technique(address: u64, bytes: &[u8]) -> String {
    found(address, bytes).technique
}

#[test]
fn an_untouched_text_is_accounted_for_to_the_last_byte() {
    let outcome = changed(&[]);
    let text = outcome.text.unwrap();
    assert!(outcome.findings.is_empty());
    assert_eq!((text.bytes, text.pinned, text.mutable), (TEXT_LENGTH, TEXT_LENGTH - 32, 32));
    assert_eq!((text.explained_changes, text.unexplained), (0, 0));
}

#[test]
fn a_legal_change_is_explained_and_counted() {
    let nop = [0x0f, 0x1f, 0x44, 0, 0];
    let call = to(&[0xe8], FTRACE_SITE, FTRACE_CALLER);
    let outcome = changed(&[(LONG_LABEL, &nop), (FTRACE_SITE, &call)]);
    assert!(outcome.findings.is_empty(), "{:#?}", outcome.findings);
    assert_eq!(outcome.text.unwrap().explained_changes, 2);
}

#[test]
fn a_finding_shows_symbol_both_codes_and_where_the_new_one_leads() {
    let finding = found(QUIET, &to(&[0xe9], QUIET, NOWHERE));
    assert_eq!(finding.check, "text");
    assert_eq!((finding.symbol.as_deref(), finding.offset), (Some("quiet"), 0));
    assert_eq!(finding.address, QUIET);
    assert!(finding.expected.starts_with("55  push rbp; 48 89 e5  mov rbp, rsp; e8 "));
    assert!(finding.expected.ends_with("call helper"), "{}", finding.expected);
    let shown = "e9 fb 09 00 3f  jmp 0xffffffffc0001000, outside any known text";
    assert_eq!(finding.seen.get(..shown.len()), Some(shown), "{}", finding.seen);
    let leads = "leads to 0xffffffffc0001000, outside any known text";
    assert!(finding.evidence.iter().any(|line| line == leads), "{:?}", finding.evidence);
    assert!(finding.evidence.iter().any(|line| line.starts_with("read 9 times by")));
}

#[test]
fn a_jump_over_the_beginning_of_a_function_is_an_inline_patch() {
    assert_eq!(technique(QUIET, &to(&[0xe9], QUIET, NOWHERE)), "inline patch at function start");
    let mut moved = vec![0x48, 0xb8];
    moved.extend(NOWHERE.to_le_bytes());
    moved.extend([0xff, 0xe0]);
    let finding = found(QUIET, &moved);
    assert_eq!(finding.technique, "inline patch at function start");
    assert!(finding.evidence.iter().any(|line| line.contains("leads to 0xffffffffc0001000")));
    let mut pushed = vec![0x68];
    pushed.extend((NOWHERE as u32).to_le_bytes());
    pushed.push(0xc3);
    assert_eq!(technique(QUIET, &pushed), "inline patch at function start");
}

#[test]
fn a_patch_of_twelve_bytes_over_an_ftrace_site_is_one_finding() {
    let mut moved = vec![0x48, 0xb8];
    moved.extend(NOWHERE.to_le_bytes());
    moved.extend([0xff, 0xe0]);
    let finding = found(WORK, &moved);
    assert_eq!(finding.technique, "inline patch at function start");
    assert_eq!(finding.symbol.as_deref(), Some("do_work"));
}

#[test]
fn a_jump_in_the_middle_of_a_function_is_an_inline_patch_within() {
    let jump = to(&[0xe9], QUIET + 9, NOWHERE);
    assert_eq!(technique(QUIET + 9, &jump), "inline patch within a function");
}

#[test]
fn only_the_target_of_a_call_changed() {
    let finding = found(PLAIN_CALL, &to(&[0xe8], PLAIN_CALL, OTHER));
    assert_eq!(finding.technique, "call retargeted");
    assert!(finding.evidence.iter().any(|line| line == "leads to other"), "{finding:#?}");
    assert!(finding.seen.ends_with("call other"));
}

#[test]
fn a_call_within_the_dispatcher_is_named_as_system_call_dispatch() {
    let bytes = to(&[0xe8], DISPATCH, NOWHERE);
    assert_eq!(technique(DISPATCH, &bytes), "system call dispatch retargeted");
}

#[test]
fn only_the_target_or_the_condition_of_a_branch_changed() {
    let bytes = to(&[0x0f, 0x84], BRANCH, SHORT_TARGET + 8);
    assert_eq!(technique(BRANCH, &bytes), "branch retargeted");
    let bytes = to(&[0x0f, 0x85], BRANCH, SHORT_TARGET);
    assert_eq!(technique(BRANCH, &bytes), "condition changed");
    assert_eq!(technique(QUIET + 11, &[0x75]), "condition changed");
    assert_eq!(technique(QUIET + 11, &[0xeb]), "condition changed");
}

#[test]
fn an_int3_that_stays_belongs_to_nobody() {
    assert_eq!(technique(QUIET, &[0xcc]), "int3 without a kprobe");
    assert_eq!(technique(FTRACE_SITE, &[0xcc]), "int3 without a kprobe");
}

#[test]
fn a_return_put_in_early_is_named_so() {
    assert_eq!(technique(QUIET, &[0x31, 0xc0, 0xc3]), "early return");
    assert_eq!(technique(QUIET, &[0xc3]), "early return");
    assert_eq!(technique(QUIET, &[0xb8, 1, 0, 0, 0, 0xc3]), "early return");
}

#[test]
fn instructions_overwritten_with_no_ops_are_removed() {
    assert_eq!(technique(QUIET + 4, &[0x90; 5]), "instructions removed");
    assert_eq!(technique(QUIET + 11, &[0x90, 0x90]), "instructions removed");
}

#[test]
fn an_ftrace_site_must_not_call_just_anything() {
    let bytes = to(&[0xe8], FTRACE_SITE, NOWHERE);
    assert_eq!(technique(FTRACE_SITE, &bytes), "ftrace site calls an unknown target");
    let bytes = to(&[0xe9], FTRACE_SITE, NOWHERE);
    assert_eq!(technique(FTRACE_SITE, &bytes), "inline patch at function start");
    let bytes = to(&[0xe8], FTRACE_CALL, NOWHERE);
    assert_eq!(technique(FTRACE_CALL, &bytes), "ftrace handler replaced");
}

#[test]
fn a_hook_that_was_there_before_the_baseline_is_found_all_the_same() {
    let mut synthetic = Synthetic::new();
    synthetic.memory.write(FTRACE_SITE, &to(&[0xe8], FTRACE_SITE, NOWHERE));
    let baseline = synthetic.baseline();
    let outcome = synthetic.run(&mut Text::default(), &baseline, &silent()).unwrap();
    assert_eq!(outcome.findings.len(), 1);
    assert_eq!(outcome.findings[0].technique, "ftrace site calls an unknown target");
}

#[test]
fn static_calls_and_jump_labels_that_lead_elsewhere_are_named() {
    let bytes = to(&[0xe8], STATIC_CALL, OTHER);
    assert_eq!(technique(STATIC_CALL, &bytes), "static call retargeted");
    let bytes = to(&[0xe9], TRAMPOLINE, OTHER);
    assert_eq!(technique(TRAMPOLINE, &bytes), "static call trampoline retargeted");
    assert_eq!(technique(TAIL_CALL, &[0x90; 5]), "static call overwritten");
    assert_eq!(technique(SHORT_LABEL, &[0xeb, 0x10]), "jump label retargeted");
    assert_eq!(technique(SHORT_LABEL, &[0x90, 0x90]), "jump label overwritten");
}

#[test]
fn two_changes_far_apart_are_two_findings() {
    let outcome = changed(&[(QUIET, &[0xc3]), (HELPER, &[0xc3])]);
    assert_eq!(outcome.findings.len(), 2);
    assert_eq!(outcome.text.unwrap().unexplained, 2);
}

#[test]
fn a_page_of_text_that_is_gone_is_a_finding() {
    let mut synthetic = Synthetic::new();
    let baseline = synthetic.baseline();
    synthetic.memory.remove_page(TEXT + 0x2000);
    let outcome = synthetic.run(&mut Text::default(), &baseline, &silent()).unwrap();
    assert_eq!(outcome.findings.len(), 1);
    assert_eq!(outcome.findings[0].technique, "text taken away");
    assert_eq!(outcome.findings[0].address, TEXT + 0x2000);
}

#[test]
fn a_change_of_read_only_data_tells_what_the_pointer_led_to() {
    let mut synthetic = Synthetic::new();
    synthetic.memory.write_u64(RODATA + 0x800, HELPER);
    let baseline = synthetic.baseline();
    synthetic.memory.write_u64(RODATA + 0x800, NOWHERE);
    let outcome = synthetic.run(&mut Rodata::default(), &baseline, &silent()).unwrap();
    assert_eq!(outcome.findings.len(), 1, "{:#?}", outcome.findings);
    let finding = &outcome.findings[0];
    assert_eq!(finding.technique, "function pointer redirected");
    let pointer = finding.evidence.iter().find(|line| line.starts_with("the pointer at"));
    assert!(pointer.unwrap().contains("led to helper and now leads to 0xffffffffc0001000"));
}

#[test]
fn a_path_that_answers_with_the_bytes_of_before_is_found() {
    let honest = Synthetic::new();
    let mut lying = Synthetic::new();
    let baseline = honest.baseline();
    let run = |lying: &Synthetic| {
        let paths: [&dyn kernel_memory::KernelMemory; 1] = [&lying.memory];
        honest.run_with(&mut ReadPaths::default(), &baseline, &silent(), &paths).unwrap()
    };
    assert!(run(&lying).findings.is_empty());
    lying.memory.write(TEXT + 0x1004, &[0xc3]);
    let outcome = run(&lying);
    let lies: Vec<&str> = outcome.findings.iter().map(|one| one.technique.as_str()).collect();
    assert_eq!(lies.first(), Some(&"a read path lies"));
    assert_eq!(outcome.findings[0].symbol.as_deref(), Some("copy_from_kernel_nofault"));
}

#[test]
fn with_one_path_only_nothing_can_be_compared() {
    let synthetic = Synthetic::new();
    let baseline = synthetic.baseline();
    let missing = synthetic.run(&mut ReadPaths::default(), &baseline, &silent()).unwrap_err();
    assert!(missing.0.contains("only one path"));
}
