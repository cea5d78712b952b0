// SPDX-License-Identifier: Apache-2.0
//! Users of ftrace: `ftrace_ops_list` (kernel/trace/ftrace.c), what they filter and call.
//!
//! The kernel keeps the trampolines that it made for users in another list. A user of that list who
//! is called and is not on the first one was taken off it by hand.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use kernel_memory::{AccessError, Kernel, Object};

use super::{Gathered, Look};
use crate::check::Missing;
use crate::checks::bpf::objects::Program;
use crate::confirm::changes_ftrace;
use crate::fields::{Chain, Fields};
use crate::finding::Hook;

/// Users that are looked at.
const MOST_USERS: usize = 1 << 16;

/// Functions of one user that are named; the rest is counted.
const MOST_NAMED: usize = 4;

/// `FTRACE_OPS_FL_*` (include/linux/ftrace.h) that change what a hook can do.
const FLAGS: &[(u64, &str)] = &[
    (1 << 0, "enabled"),
    (1 << 13, "changes where functions go (IPMODIFY)"),
    (1 << 16, "permanent"),
    (1 << 17, "direct"),
];

pub(super) fn gather(look: &mut Look<'_, '_>, gathered: &mut Gathered) -> Result<(), Missing> {
    let users = users(look)?;
    let kernel = look.kernel;
    let of_hashes = Fields::of(&kernel, "ftrace_ops_hash", &["filter_hash"])?;
    let hashes: Vec<u64> = users.iter().map(|user| user.hashes).collect();
    let hashes = of_hashes.read(&kernel, &hashes);
    let mut targets = std::mem::take(look.targets);
    let mut current = HashMap::new();
    for (user, hash) in users.iter().zip(hashes) {
        // A changed filter is another hash: it is copied, changed and put in place of the old one.
        let key = (user.address, hash.map_or(0, |hash| hash.value(0)));
        let target = targets.remove(&key).unwrap_or_else(|| filtered(look, key.1));
        report(look, gathered, user, &target);
        current.insert(key, target);
    }
    let listed: HashSet<u64> = users.iter().map(|user| user.address).collect();
    // Asked in between: whoever is taken off the list by the kernel holds it until nobody is called.
    let (changing, now) = (changes_ftrace(&kernel), Instant::now());
    let before = std::mem::take(look.leaving);
    for user in with_trampolines(look)? {
        if listed.contains(&user.address) || user.flags & ENABLED == 0 {
            continue;
        }
        let since = before.get(&user.address).copied().unwrap_or(now);
        look.leaving.insert(user.address, since);
        let hash = of_hashes.read_one(&kernel, user.hashes).map_or(0, |hash| hash.value(0));
        let key = (user.address, hash);
        let target = current.remove(&key).unwrap_or_else(|| filtered(look, hash));
        report(look, gathered, &user, &target);
        if changing && now < since + LEAVING {
            gathered
                .reduced
                .push("a user of ftrace is just being removed by the kernel".to_owned());
        } else {
            hidden(look, gathered, &user, &target);
        }
        current.insert(key, target);
    }
    *look.targets = current;
    Ok(())
}

/// `FTRACE_OPS_FL_ENABLED`.
const ENABLED: u64 = 1 << 0;

/// For how long a user may be called and not be on the list while the kernel changes users of ftrace:
/// `ftrace_shutdown` takes it off and then goes through all functions that can be traced before it is
/// marked as one that is not called any more (kernel/trace/ftrace.c, 6.1 to 7.3).
const LEAVING: Duration = Duration::from_secs(10);

/// A `struct ftrace_ops`.
struct User {
    address: u64,
    function: u64,
    /// What is called instead of `function`, or 0.
    direct: u64,
    flags: u64,
    hashes: u64,
}

fn users(look: &mut Look<'_, '_>) -> Result<Vec<User>, Missing> {
    let kernel = look.kernel;
    let head = look.recovered.data_symbol(&kernel, "ftrace_ops_list")?;
    let mut members = vec!["func", "next", "flags", "func_hash"];
    let has_direct = kernel.object("ftrace_ops", 0)?.has("direct_call");
    if has_direct {
        members.push("direct_call");
    }
    let of_ops = Fields::of(&kernel, "ftrace_ops", &members)?;
    // The list ends in `ftrace_list_end`, which does nothing and leads nowhere.
    let chain = Chain { head: head.address, link: 0, next: 1, end: 0, most: MOST_USERS };
    let users = look.recovered.chains.walk(&kernel, &of_ops, chain).map_err(|at| {
        Missing(format!("the list of users of ftrace breaks off or does not end, at {at:#x}"))
    })?;
    let users = users.iter().filter(|ops| look.function_at(ops.value(0)) != "ftrace_stub");
    Ok(users
        .map(|ops| User {
            address: ops.address,
            function: ops.value(0),
            direct: if has_direct { ops.value(4) } else { 0 },
            flags: ops.value(2),
            hashes: ops.value(3),
        })
        .collect())
}

/// Users for whom the kernel made a trampoline (`ftrace_ops_trampoline_list`).
fn with_trampolines(look: &mut Look<'_, '_>) -> Result<Vec<User>, Missing> {
    let kernel = look.kernel;
    // Without CONFIG_DYNAMIC_FTRACE there are none.
    let Ok(head) = look.recovered.data_symbol(&kernel, "ftrace_ops_trampoline_list") else {
        return Ok(Vec::new());
    };
    let user = |ops: Object<'_>| -> Result<User, AccessError> {
        Ok(User {
            address: ops.address(),
            function: ops.u64("func")?,
            direct: if ops.has("direct_call") { ops.u64("direct_call")? } else { 0 },
            flags: ops.u64("flags")?,
            hashes: ops.u64("func_hash")?,
        })
    };
    let users = kernel.list(head.address, "ftrace_ops", "list").map(|ops| ops.and_then(user));
    Ok(users.collect::<Result<_, _>>()?)
}

/// Notes that somebody is called who is not on the list.
fn hidden(look: &Look<'_, '_>, gathered: &mut Gathered, user: &User, target: &str) {
    let seen = format!(
        "{} by an ftrace_ops at {:#x} that is not on it",
        look.function_at(user.function),
        user.address
    );
    let mut finding = look.finding("ftrace", target, user.address, user.function, seen);
    "who is called by ftrace is on ftrace_ops_list".clone_into(&mut finding.expected);
    "ftrace hook hidden from the kernel's list".clone_into(&mut finding.technique);
    finding.owner = look.owners.of(&look.kernel, user.function).map(|owner| owner.to_string());
    gathered.found.insert((user.address, 0), finding);
}

fn report(look: &Look<'_, '_>, gathered: &mut Gathered, user: &User, target: &str) {
    let handler = if user.direct != 0 { user.direct } else { user.function };
    let mut owner = look.owner_of(gathered, "ftrace", target, user.address, handler);
    if user.direct != 0 {
        // The function beside a direct call is the kernel's own.
        look.owner_of(gathered, "ftrace", target, user.address, user.function);
        let programs: Vec<&Program> = look.programs.made_for(target).collect();
        if !programs.is_empty() {
            if programs.iter().all(|program| program.private) {
                return gathered.add_private("ftrace");
            }
            let titles = programs.iter().map(|program| program.title(&look.kernel));
            owner = titles.collect::<Vec<_>>().join(", ");
        }
    }
    let flags: Vec<&str> =
        FLAGS.iter().filter(|(bit, _)| user.flags & bit != 0).map(|(_, word)| *word).collect();
    if !flags.is_empty() {
        owner = format!("{owner} ({})", flags.join(", "));
    }
    let handler = look.function_at(handler);
    gathered.hooks.push(Hook { mechanism: "ftrace", target: target.to_owned(), handler, owner });
}

/// The functions that a filter lets through, in words.
fn filtered(look: &Look<'_, '_>, filter: u64) -> String {
    let Some((named, count)) = functions_in(&look.kernel, filter) else {
        return "functions that cannot be told".to_owned();
    };
    if count == 0 {
        return "all functions that can be traced".to_owned();
    }
    let mut words: Vec<String> = named.iter().map(|address| look.function_at(*address)).collect();
    if count > words.len() as u64 {
        words.push(format!("{} more", count - words.len() as u64));
    }
    words.join(", ")
}

/// Some functions of a `struct ftrace_hash`, and how many it has.
fn functions_in(kernel: &Kernel<'_>, hash: u64) -> Option<(Vec<u64>, u64)> {
    if hash == 0 {
        return Some((Vec::new(), 0));
    }
    let hash = kernel.object("ftrace_hash", hash).ok()?;
    let (bits, count) = (hash.u64("size_bits").ok()?, hash.u64("count").ok()?);
    let buckets = hash.u64("buckets").ok()?;
    let mut functions = Vec::new();
    // FTRACE_HASH_MAX_BITS is 12 (kernel/trace/ftrace.c).
    for bucket in 0..1u64 << bits.min(16) {
        let head = buckets.wrapping_add(8 * bucket);
        for entry in kernel.hlist(head, "ftrace_func_entry", "hlist") {
            if functions.len() >= MOST_NAMED || functions.len() as u64 >= count {
                return Some((functions, count));
            }
            functions.push(entry.ok()?.u64("ip").ok()?);
        }
    }
    Some((functions, count))
}
