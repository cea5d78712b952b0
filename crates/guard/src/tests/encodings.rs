// SPDX-License-Identifier: Apache-2.0
//! What each kind of site may hold, and what not.

use super::synthetic::*;
use crate::baseline::Baseline;
use crate::sites::{Encoding, Site, SiteKind, Sites, State, Verdict};

const NOP5: [u8; 5] = [0x0f, 0x1f, 0x44, 0, 0];

struct Bench {
    baseline: Baseline,
    synthetic: Synthetic,
    state: State,
}

impl Bench {
    fn new() -> Self {
        let synthetic = Synthetic::new();
        let baseline = synthetic.baseline();
        let mut state = State::of_symbols(&synthetic.symbols);
        state.set_function(CALL_KEY, HELPER);
        state.set_function(TAIL_KEY, 0);
        state.set_enabled(SHORT_KEY, 0);
        state.set_enabled(LONG_KEY, 0);
        Self { baseline, synthetic, state }
    }

    fn sites(&self) -> &Sites {
        self.baseline.sites(&self.synthetic.kernel())
    }

    fn site(&self, address: u64) -> Site {
        self.sites().at(address).unwrap()
    }

    fn judge(&self, address: u64, bytes: &[u8]) -> Verdict {
        self.sites().judge(&self.site(address), bytes, &self.state)
    }
}

#[test]
fn each_site_of_the_kernel_is_found_with_its_kind_and_length() {
    let bench = Bench::new();
    let found: Vec<(u64, u8, SiteKind)> =
        bench.sites().iter().map(|site| (site.address, site.length, site.kind)).collect();
    let expected = [
        (FTRACE_SITE, 5, SiteKind::Ftrace),
        (SHORT_LABEL, 2, SiteKind::JumpLabel),
        (LONG_LABEL, 5, SiteKind::JumpLabel),
        (STATIC_CALL, 5, SiteKind::StaticCall),
        (TAIL_CALL, 5, SiteKind::StaticCall),
        (TRAMPOLINE, 5, SiteKind::StaticCallTrampoline),
        (FTRACE_CALL, 5, SiteKind::FtraceCall),
    ];
    assert_eq!(found, expected);
    assert_eq!(bench.sites().mutable_bytes(), 32);
    assert_eq!(bench.sites().at(PLAIN_CALL), None);
    assert_eq!(bench.sites().at(LONG_LABEL + 4), Some(bench.site(LONG_LABEL)));
}

#[test]
fn a_short_jump_label_is_a_no_op_or_a_jump_to_its_own_target() {
    let mut bench = Bench::new();
    let jump = [0xeb, 0x39];
    assert_eq!(bench.judge(SHORT_LABEL, &[0x66, 0x90]), Verdict::Expected(Encoding::Nop));
    assert_eq!(
        bench.judge(SHORT_LABEL, &jump),
        Verdict::OutOfStep(Encoding::Jump(SHORT_TARGET)),
        "its key is off"
    );
    bench.state.set_enabled(SHORT_KEY, 2);
    assert_eq!(bench.judge(SHORT_LABEL, &jump), Verdict::Expected(Encoding::Jump(SHORT_TARGET)));
    assert_eq!(bench.judge(SHORT_LABEL, &[0x66, 0x90]), Verdict::OutOfStep(Encoding::Nop));
    for wrong in [[0xeb, 0x3a], [0x90, 0x90], [0xeb, 0xfe], [0x66, 0x91]] {
        assert_eq!(bench.judge(SHORT_LABEL, &wrong), Verdict::Illegal, "{wrong:02x?}");
    }
}

#[test]
fn a_long_jump_label_with_the_branch_bit_jumps_when_its_key_is_off() {
    let mut bench = Bench::new();
    let jump = to(&[0xe9], LONG_LABEL, LONG_TARGET);
    assert_eq!(bench.judge(LONG_LABEL, &jump), Verdict::Expected(Encoding::Jump(LONG_TARGET)));
    assert_eq!(bench.judge(LONG_LABEL, &NOP5), Verdict::OutOfStep(Encoding::Nop));
    bench.state.set_enabled(LONG_KEY, 1);
    assert_eq!(bench.judge(LONG_LABEL, &NOP5), Verdict::Expected(Encoding::Nop));
    let elsewhere = to(&[0xe9], LONG_LABEL, LONG_TARGET + 1);
    assert_eq!(bench.judge(LONG_LABEL, &elsewhere), Verdict::Illegal);
    let call = to(&[0xe8], LONG_LABEL, LONG_TARGET);
    assert_eq!(bench.judge(LONG_LABEL, &call), Verdict::Illegal);
}

#[test]
fn a_key_that_is_being_enabled_is_held_against_no_site() {
    let mut bench = Bench::new();
    bench.state.set_enabled(SHORT_KEY, -1);
    assert_eq!(bench.judge(SHORT_LABEL, &[0x66, 0x90]), Verdict::Expected(Encoding::Nop));
    assert!(bench.judge(SHORT_LABEL, &[0xeb, 0x39]).is_legal());
}

#[test]
fn a_static_call_calls_where_its_key_points() {
    let mut bench = Bench::new();
    let call = to(&[0xe8], STATIC_CALL, HELPER);
    let zero = [0x2e, 0x2e, 0x2e, 0x31, 0xc0];
    assert_eq!(bench.judge(STATIC_CALL, &call), Verdict::Expected(Encoding::Call(HELPER)));
    assert_eq!(bench.judge(STATIC_CALL, &NOP5), Verdict::OutOfStep(Encoding::Nop));
    assert_eq!(bench.judge(STATIC_CALL, &zero), Verdict::OutOfStep(Encoding::ReturnZero));
    let elsewhere = to(&[0xe8], STATIC_CALL, OTHER);
    assert_eq!(bench.judge(STATIC_CALL, &elsewhere), Verdict::Illegal);
    assert_eq!(bench.judge(STATIC_CALL, &to(&[0xe9], STATIC_CALL, HELPER)), Verdict::Illegal);
    bench.state.set_function(CALL_KEY, OTHER);
    assert_eq!(bench.judge(STATIC_CALL, &elsewhere), Verdict::Expected(Encoding::Call(OTHER)));
    assert_eq!(bench.judge(STATIC_CALL, &call), Verdict::Illegal);
    bench.state.set_function(CALL_KEY, 0);
    assert_eq!(bench.judge(STATIC_CALL, &NOP5), Verdict::Expected(Encoding::Nop));
    bench.state.set_function(CALL_KEY, RETURN_ZERO);
    assert_eq!(bench.judge(STATIC_CALL, &zero), Verdict::Expected(Encoding::ReturnZero));
    let call_zero = to(&[0xe8], STATIC_CALL, RETURN_ZERO);
    assert_eq!(
        bench.judge(STATIC_CALL, &call_zero),
        Verdict::OutOfStep(Encoding::Call(RETURN_ZERO))
    );
}

#[test]
fn a_tail_call_jumps_or_returns() {
    let mut bench = Bench::new();
    let thunk = to(&[0xe9], TAIL_CALL, THUNK);
    let plain = [0xc3, 0xcc, 0xcc, 0xcc, 0xcc];
    assert_eq!(bench.judge(TAIL_CALL, &thunk), Verdict::Expected(Encoding::Return));
    assert_eq!(bench.judge(TAIL_CALL, &plain), Verdict::Expected(Encoding::Return));
    let jump = to(&[0xe9], TAIL_CALL, OTHER);
    assert_eq!(bench.judge(TAIL_CALL, &jump), Verdict::Illegal);
    bench.state.set_function(TAIL_KEY, OTHER);
    assert_eq!(bench.judge(TAIL_CALL, &jump), Verdict::Expected(Encoding::Jump(OTHER)));
    assert_eq!(bench.judge(TAIL_CALL, &plain), Verdict::OutOfStep(Encoding::Return));
    assert_eq!(bench.judge(TAIL_CALL, &NOP5), Verdict::Illegal);
    assert_eq!(bench.judge(TAIL_CALL, &[0xc3, 0xcc, 0xcc, 0xcc, 0x90]), Verdict::Illegal);
}

#[test]
fn a_conditional_tail_call_keeps_its_condition() {
    let mut synthetic = Synthetic::new();
    // The table's second call becomes a `jne other`.
    synthetic.memory.write(TAIL_CALL, &to(&[0x0f, 0x85], TAIL_CALL, OTHER));
    let baseline = synthetic.baseline();
    let sites = baseline.sites(&synthetic.kernel());
    let site = sites.at(TAIL_CALL).unwrap();
    assert_eq!(site.length, 6);
    let mut state = State::default();
    state.set_function(TAIL_KEY, HELPER);
    let judge = |bytes: &[u8]| sites.judge(&site, bytes, &state);
    let jump = to(&[0x0f, 0x85], TAIL_CALL, HELPER);
    assert_eq!(judge(&jump), Verdict::Expected(Encoding::JumpIf(HELPER)));
    let gone = to(&[0x0f, 0x85], TAIL_CALL, THUNK);
    assert_eq!(judge(&gone), Verdict::OutOfStep(Encoding::Return));
    assert_eq!(judge(&to(&[0x0f, 0x84], TAIL_CALL, HELPER)), Verdict::Illegal);
    assert_eq!(judge(&to(&[0x0f, 0x85], TAIL_CALL, OTHER)), Verdict::Illegal);
}

#[test]
fn a_trampoline_jumps_where_its_key_points_or_returns() {
    let mut bench = Bench::new();
    let jump = to(&[0xe9], TRAMPOLINE, HELPER);
    assert_eq!(bench.judge(TRAMPOLINE, &jump), Verdict::Expected(Encoding::Jump(HELPER)));
    assert_eq!(bench.judge(TRAMPOLINE, &to(&[0xe9], TRAMPOLINE, OTHER)), Verdict::Illegal);
    assert_eq!(bench.judge(TRAMPOLINE, &to(&[0xe8], TRAMPOLINE, HELPER)), Verdict::Illegal);
    bench.state.set_function(CALL_KEY, 0);
    assert_eq!(bench.judge(TRAMPOLINE, &jump), Verdict::Illegal);
    for bytes in [[0xc3, 0xcc, 0xcc, 0xcc, 0xcc], [0xc3, 0xcc, 0x90, 0x90, 0x90]] {
        assert_eq!(bench.judge(TRAMPOLINE, &bytes), Verdict::Expected(Encoding::Return));
    }
}

#[test]
fn an_ftrace_site_is_a_no_op_or_calls_a_tracer() {
    let mut bench = Bench::new();
    let call = to(&[0xe8], FTRACE_SITE, FTRACE_CALLER);
    assert_eq!(bench.judge(FTRACE_SITE, &NOP5), Verdict::Expected(Encoding::Nop));
    assert_eq!(bench.judge(FTRACE_SITE, &call), Verdict::Expected(Encoding::Call(FTRACE_CALLER)));
    let rootkit = to(&[0xe8], FTRACE_SITE, NOWHERE);
    assert_eq!(bench.judge(FTRACE_SITE, &rootkit), Verdict::Illegal);
    assert_eq!(bench.judge(FTRACE_SITE, &to(&[0xe8], FTRACE_SITE, HELPER)), Verdict::Illegal);
    let jump = to(&[0xe9], FTRACE_SITE, FTRACE_CALLER);
    assert_eq!(bench.judge(FTRACE_SITE, &jump), Verdict::Illegal);
    bench.state.add_tracer(NOWHERE, "bpf_trampoline_6442");
    assert!(bench.judge(FTRACE_SITE, &rootkit).is_legal());
}

#[test]
fn the_call_of_a_tracing_trampoline_leads_to_a_tracer() {
    let bench = Bench::new();
    for handler in [FTRACE_STUB, TRACE_CALL] {
        let call = to(&[0xe8], FTRACE_CALL, handler);
        assert_eq!(bench.judge(FTRACE_CALL, &call), Verdict::Expected(Encoding::Call(handler)));
    }
    assert_eq!(bench.judge(FTRACE_CALL, &to(&[0xe8], FTRACE_CALL, HELPER)), Verdict::Illegal);
}

#[test]
fn an_int3_at_a_site_is_a_text_poke_until_it_stays() {
    let bench = Bench::new();
    assert_eq!(bench.judge(FTRACE_SITE, &[0xcc, 0x1f, 0x44, 0, 0]), Verdict::Poking);
    assert_eq!(bench.judge(SHORT_LABEL, &[0xcc, 0x90]), Verdict::Poking);
}

#[test]
fn every_encoding_that_is_listed_as_legal_is_judged_legal() {
    let bench = Bench::new();
    let mut listed = 0;
    for site in bench.sites().iter() {
        let legal = bench.sites().legal(&site, &bench.state);
        assert!(!legal.is_empty(), "{site:?}");
        for one in &legal {
            let verdict = bench.sites().judge(&site, &one.bytes, &bench.state);
            assert!(verdict.is_legal(), "{site:?} {one:?} {verdict:?}");
            listed += 1;
        }
        let first = bench.sites().judge(&site, &legal[0].bytes, &bench.state);
        assert!(matches!(first, Verdict::Expected(_)), "{site:?} {first:?}");
    }
    assert!(listed > 14);
}

#[test]
fn a_jump_label_that_was_poked_while_the_baseline_was_taken_keeps_its_length() {
    let mut synthetic = Synthetic::new();
    synthetic.memory.write(LONG_LABEL, &[0xcc]);
    synthetic.memory.write(SHORT_LABEL, &[0xcc]);
    let baseline = synthetic.baseline();
    let sites = baseline.sites(&synthetic.kernel());
    assert_eq!(sites.at(LONG_LABEL).unwrap().length, 5);
    assert_eq!(sites.at(SHORT_LABEL).unwrap().length, 2);
}
