// SPDX-License-Identifier: Apache-2.0
//! What was done to a piece of text, as the field calls it.

use crate::code::{Exit, boundaries, first_exit};
use crate::sites::{INT3, Site, SiteKind};

/// Functions whose calls are the dispatch of system calls since 6.9 and in stable kernels before
/// (arch/x86/entry/syscall_64.c and syscall_32.c); the table of old is only for tracing now.
const DISPATCHERS: [&str; 5] =
    ["x64_sys_call", "x32_sys_call", "ia32_sys_call", "do_syscall_64", "do_int80_emulation"];

/// How far into a function its start reaches: an ENDBR, the ftrace site and one instruction more.
const START: u64 = 9;

/// A change, with what is needed to name it.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    /// The name of the function.
    pub symbol: Option<&'a str>,
    /// From the start of the function to the first byte that differs.
    pub offset: u64,
    /// The first site that is part of the change.
    pub site: Option<Site>,
    /// The address of the first whole instruction that is concerned.
    pub address: u64,
    /// The address of the first byte that differs.
    pub start: u64,
    /// The address after the last byte that differs.
    pub end: u64,
    /// The expected bytes from `address` on, whole instructions.
    pub expected: &'a [u8],
    /// What is there instead, as many bytes or more.
    pub seen: &'a [u8],
}

/// Names the technique.
pub fn name(change: &Change<'_>) -> &'static str {
    if let Some(site) = &change.site
        && let Some(name) = at_site(site, change)
    {
        return name;
    }
    let at = (change.start - change.address) as usize;
    if change.end - change.start == 1 && change.seen.get(at) == Some(&INT3) {
        return "int3 without a kprobe";
    }
    if let Some(name) = same_instruction(change) {
        return name;
    }
    if change.expected.iter().zip(change.seen).skip(at).all(|(was, is)| was == is || *is == 0x90) {
        return "instructions removed";
    }
    at_function(change)
}

fn at_site(site: &Site, change: &Change<'_>) -> Option<&'static str> {
    let at = usize::try_from(site.address.checked_sub(change.address)?).ok()?;
    let seen = change.seen.get(at..)?;
    if change.end > site.end() || change.start < site.address {
        // More than the site: an inline patch that happens to cover it.
        return None;
    }
    let first = *seen.first()?;
    Some(match (site.kind, first) {
        (_, INT3) => "int3 without a kprobe",
        (SiteKind::Ftrace, 0xe8) => "ftrace site calls an unknown target",
        (SiteKind::Ftrace, 0xe9) => "inline patch at function start",
        (SiteKind::Ftrace, _) => return None,
        (SiteKind::FtraceCall, _) => "ftrace handler replaced",
        (SiteKind::Padding, _) => "code hidden in function padding",
        (SiteKind::StaticCall, 0xe8 | 0xe9) => "static call retargeted",
        (SiteKind::StaticCall, _) => "static call overwritten",
        (SiteKind::StaticCallTrampoline, 0xe9) => "static call trampoline retargeted",
        (SiteKind::StaticCallTrampoline, _) => "static call trampoline overwritten",
        (SiteKind::JumpLabel, 0xe9 | 0xeb) => "jump label retargeted",
        (SiteKind::JumpLabel, _) => "jump label overwritten",
    })
}

/// One instruction stayed what it is but for its target or its condition.
fn same_instruction(change: &Change<'_>) -> Option<&'static str> {
    let (_, length) = *boundaries(change.expected, change.address).first()?;
    let length = usize::from(length);
    if change.end > change.address + length as u64 {
        return None;
    }
    let was = change.expected.get(..length)?;
    let is = change.seen.get(..length)?;
    let dispatches = change.symbol.is_some_and(|symbol| DISPATCHERS.contains(&symbol));
    match (was, is) {
        ([0xe8, ..], [0xe8, ..]) if dispatches => Some("system call dispatch retargeted"),
        ([0xe8, ..], [0xe8, ..]) => Some("call retargeted"),
        ([0xe9, ..], [0xe9, ..]) if dispatches => Some("system call dispatch retargeted"),
        ([0xe9, ..], [0xe9, ..]) | ([0xeb, _], [0xeb, _]) => Some("jump retargeted"),
        ([0x0f, 0x80..=0x8f, ..], [0x0f, 0x80..=0x8f, ..]) if was.get(1) == is.get(1) => {
            Some("branch retargeted")
        }
        ([0x70..=0x7f, _], [0x70..=0x7f, _]) if was.first() == is.first() => {
            Some("branch retargeted")
        }
        ([0x0f, 0x80..=0x8f, a @ ..], [0x0f, 0x80..=0x8f, b @ ..]) if a == b => {
            Some("condition changed")
        }
        ([0x70..=0x7f, a], [0x70..=0x7f | 0xeb, b]) if a == b => Some("condition changed"),
        _ => None,
    }
}

fn at_function(change: &Change<'_>) -> &'static str {
    let at_start = change.offset < START;
    let exit = first_exit(change.seen, change.address).map(|(at, exit)| (at < change.end, exit));
    match exit {
        Some((true, Exit::Return)) => "early return",
        Some((_, exit)) if at_start && leaves(exit) => "inline patch at function start",
        Some((true, exit)) if leaves(exit) => "inline patch within a function",
        _ if at_start => "code changed at function start",
        _ => "code changed",
    }
}

fn leaves(exit: Exit) -> bool {
    matches!(exit, Exit::Jump(_) | Exit::Call(_) | Exit::Computed(_) | Exit::Indirect)
}
