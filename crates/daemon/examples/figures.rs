// SPDX-License-Identifier: Apache-2.0
//! What an exec costs with those who listen and those who are asked, by the clock: in the lab, where a
//! nanosecond is an instruction.
//!
//! ```text
//! figures observers            with 0, 1, 8 and 26 clients that are told of it
//! figures ruled                with few rules, and with 10,000 and a collection of a million digests
//! figures asked                with 1 and 8 clients that are asked, and with their answers known
//! figures decide CLIENT KEEP   a client that allows all, as itself or (keep) for good
//! ```
//!
//! With RINGFENCE_VERITY, a directory on a file system that has fs-verity, the program has a digest, which rules ask
//! collections for.
//!
//! One exec is a fork, the exec of a program that ends at once, and the wait for it: what a shell does.
//! `asked` needs a `ringfenced` that runs, with grants for org.example.asker0 to 7 (see
//! crates/lab/src/scenarios/figures.rs). What a client does with its records is its own: rings of observers are
//! not read while it is measured, and of what clients do that are asked it is said how much it is.

use std::fs::{self, File, Permissions};
use std::io::{ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use probes::ReadyCollection;
use probes::events::{EventType, Hooks};
use rules::{Algorithm, Collection, RuleSet};
use sdk::abi::Class;
use sdk::{SessionOptions, Subscription, Verdict};

mod client_process;
use client_process::Client;

/// What is executed.
static PROGRAM: LazyLock<PathBuf> =
    LazyLock::new(|| verity().unwrap_or_else(std::env::temp_dir).join("program"));
/// As often as fits into a ring.
const TIMES: u32 = 200;
/// The least of so many tries is taken: what else the machine does only adds.
const TRIES: u32 = 4;
const RING: u32 = 1 << 20;

/// A program that ends at once.
#[rustfmt::skip]
const BYTES: [u8; 129] = *b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\
    \x02\0\x3e\0\x01\0\0\0\x78\0\x40\0\0\0\0\0\x40\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\
    \0\0\0\0\x40\0\x38\0\x01\0\0\0\0\0\0\0\
    \x01\0\0\0\x05\0\0\0\0\0\0\0\0\0\0\0\0\0\x40\0\0\0\0\0\0\0\x40\0\0\0\0\0\
    \x81\0\0\0\0\0\0\0\x81\0\0\0\0\0\0\0\0\x10\0\0\0\0\0\0\
    \xb8\x3c\0\0\0\x31\xff\x0f\x05"; // mov eax,60 (exit); xor edi,edi; syscall

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["observers"] => observers(),
        ["ruled"] => ruled(),
        ["asked"] => asked(),
        ["decide", client, keep] => decide(client, *keep == "keep"),
        other => bail!("{other:?} is none of observers, ruled, asked, decide CLIENT KEEP"),
    }
}

/// Nanoseconds of one exec. `prepare` is called before each try.
fn one(prepare: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<u128> {
    Ok(one_beside(&[], prepare)?.0)
}

/// The same, and of these the nanoseconds in which processes ran.
fn one_beside(
    processes: &[Client],
    mut prepare: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<(u128, u128)> {
    let all_ran = || -> anyhow::Result<u128> { processes.iter().map(|one| ran(one.id())).sum() };
    let mut least = (u128::MAX, 0);
    for _ in 0..TRIES {
        prepare()?;
        let before = all_ran()?;
        let start = Instant::now();
        for _ in 0..TIMES {
            ensure!(Command::new(&*PROGRAM).status()?.success(), "the program failed");
        }
        let each = |nanoseconds: u128| nanoseconds / u128::from(TIMES);
        let took = each(start.elapsed().as_nanos());
        least = least.min((took, each(all_ran()?.saturating_sub(before))));
    }
    Ok(least)
}

/// Nanoseconds in which the first thread of a process ran: the first number of /proc/PID/schedstat
/// (Documentation/scheduler/sched-stats.rst).
fn ran(process: u32) -> anyhow::Result<u128> {
    let path = format!("/proc/{process}/schedstat");
    let text = fs::read_to_string(&path)?;
    let first = text.split(' ').next().and_then(|number| number.parse().ok());
    first.with_context(|| format!("{path}: {text:?}"))
}

/// The program, and this process and all that it starts on one processor: on which one a task wakes must
/// not count.
fn begin() -> anyhow::Result<()> {
    let mut first = rustix::thread::CpuSet::new();
    first.set(0);
    rustix::thread::sched_setaffinity(None, &first)?;
    let _ = fs::remove_file(&*PROGRAM);
    fs::write(&*PROGRAM, BYTES)?;
    fs::set_permissions(&*PROGRAM, Permissions::from_mode(0o755))?;
    if verity().is_some() {
        protect()?;
    }
    // Or it would be too fresh for its verdict to be kept.
    std::thread::sleep(Duration::from_millis(250));
    one(|| Ok(()))?;
    Ok(())
}

fn verity() -> Option<PathBuf> {
    std::env::var_os("RINGFENCE_VERITY").map(PathBuf::from)
}

/// Has fs-verity protect the program.
fn protect() -> anyhow::Result<()> {
    // FS_IOC_ENABLE_VERITY of struct fsverity_enable_arg: version 1, SHA-256, blocks of 4096 bytes
    // (include/uapi/linux/fsverity.h).
    const ENABLE: libc::Ioctl = 0x4080_6685;
    let mut enable = [0_u32; 32];
    enable[..3].copy_from_slice(&[1, 1, 4096]);
    let file = File::open(&*PROGRAM)?;
    // SAFETY: the structure has as many bytes, and is only read.
    let failed = unsafe { libc::ioctl(file.as_raw_fd(), ENABLE, enable.as_ptr()) } != 0;
    ensure!(!failed, "fs-verity: {}", std::io::Error::last_os_error());
    Ok(())
}

/// What the kernel measures of the program.
fn measured() -> anyhow::Result<[u8; 32]> {
    // FS_IOC_MEASURE_VERITY of struct fsverity_digest: two numbers of two bytes, the algorithm and the place that
    // there is for the digest, which follows.
    const MEASURE: libc::Ioctl = 0xc004_6686;
    let mut measured = [0_u8; 36];
    measured[2] = 32;
    let file = File::open(&*PROGRAM)?;
    // SAFETY: there is as much place as is said.
    let failed = unsafe { libc::ioctl(file.as_raw_fd(), MEASURE, measured.as_mut_ptr()) } != 0;
    ensure!(!failed, "fs-verity: {}", std::io::Error::last_os_error());
    Ok(measured[4..].try_into()?)
}

fn say(what: &str, cost: u128, base: u128) {
    println!("{what}: {cost} (+{})", cost.saturating_sub(base));
}

fn observers() -> anyhow::Result<()> {
    begin()?;
    let kind = EventType::PROCESS_EXEC.bit();
    let mut hooks = Hooks::load_for(kind)?;
    let mut base = 0;
    for count in [0, 1, 8, 26] {
        let cost = one(|| {
            for slot in 0..count {
                // There from the try before, except in the first one.
                let _ = hooks.remove(slot);
                let ring = hooks.create_ring(RING)?;
                hooks.admit(slot, &ring)?;
                hooks.subscribe(slot, kind)?;
            }
            Ok(())
        })?;
        for slot in 0..count {
            let counts = hooks.statistics(slot)?;
            ensure!(counts.lost == 0, "{count} observers: {} lost", counts.lost);
            ensure!(counts.written == u64::from(TIMES), "{} written", counts.written);
        }
        if count == 0 {
            base = cost;
        }
        say(&format!("{count} observers"), cost, base);
    }
    Ok(())
}

/// Rules that let the program pass, each for another path but for one, which asks for a collection.
fn rules(count: u32) -> anyhow::Result<RuleSet> {
    let mut text = format!(
        "[[rule]]\nid = {count}\nevent = \"process_exec\"\naction = \"deny\"\n\
         file.digest_in = \"bad\"\n"
    );
    for id in 1..count {
        text.push_str(&format!(
            "[[rule]]\nid = {id}\nevent = \"process_exec\"\naction = \"deny\"\n\
             file.path = \"/nowhere/{id}\"\n"
        ));
    }
    Ok(RuleSet::from_toml(&text)?)
}

/// So many digests that are those of no file, and these.
fn digests(count: u64, others: &[[u8; 32]]) -> anyhow::Result<ReadyCollection> {
    let digest = |number: u64| {
        let mut digest = [0; 32];
        for (word, factor) in digest.chunks_exact_mut(8).zip([3, 5, 7, 11_u64]) {
            let spread = number.wrapping_add(factor).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            word.copy_from_slice(&spread.to_le_bytes());
        }
        digest
    };
    let digests = (0..count).map(digest).chain(others.iter().copied());
    Ok(ReadyCollection::new(&Collection::new(Algorithm::Sha256, digests.collect())?)?)
}

fn ruled() -> anyhow::Result<()> {
    begin()?;
    let mut hooks = Hooks::load_for(EventType::PROCESS_EXEC.bit())?;
    let base = one(|| Ok(()))?;
    say("no rules", base, base);
    for (count, collected, what) in
        [(10, 10, "10 rules, 10 digests"), (10_000, 1_000_000, "10,000 rules, a million digests")]
    {
        let (set, collection) = (rules(count)?, digests(collected, &[])?);
        hooks.set_collection(0, "bad", collection)?;
        hooks.install_rules(0, &set)?;
        say(what, one(|| Ok(()))?, base);
        let matched: u64 = hooks.rule_counts(0)?.iter().map(|of| of.matches).sum();
        ensure!(matched == 0, "{what}: {matched} rules matched");
    }
    if verity().is_some() {
        // So it was asked for the program's digest.
        hooks.set_collection(0, "bad", digests(999_999, &[measured()?])?)?;
        let denied = Command::new(&*PROGRAM).status().map_err(|error| error.kind());
        ensure!(matches!(denied, Err(ErrorKind::PermissionDenied)), "{denied:?}");
        println!("a million digests and the program's own deny it");
    }
    Ok(())
}

fn asked() -> anyhow::Result<()> {
    begin()?;
    let base = one(|| Ok(()))?;
    say("nobody asks", base, base);
    for (count, keep, what) in [
        (1, true, "1 asker, answer known"),
        (8, true, "8 askers, answers known"),
        (1, false, "1 asker"),
        (8, false, "8 askers"),
    ] {
        let keep = if keep { "keep" } else { "once" };
        let start =
            |number| Client::start(&["decide", &format!("org.example.asker{number}"), keep]);
        let deciders = (0..count).map(start).collect::<anyhow::Result<Vec<_>>>()?;
        let (cost, clients) = one_beside(&deciders, || Ok(()))?;
        println!("{what}: {cost} (+{}), of which clients {clients}", cost.saturating_sub(base));
        drop(deciders);
    }
    Ok(())
}

fn decide(client: &str, keep: bool) -> anyhow::Result<()> {
    let mut session = SessionOptions::new(client).open()?;
    let exec = sdk::abi::EventType::ProcessExec;
    session.subscribe(&[Subscription::new(exec, [Class::Ask])])?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "ready")?;
    out.flush()?;
    let verdict = if keep { Verdict::allow().cacheable() } else { Verdict::allow() };
    let mut events = session.events();
    while let Some(event) = events.next(None)? {
        if event.record.is_ask() {
            event.answer(verdict)?;
        }
    }
    Ok(())
}
