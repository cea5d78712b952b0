// SPDX-License-Identifier: Apache-2.0
//! What is tried, step by step.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::client_process::Client;
use crate::deeds::{
    Came, DELETED, Deed, Deeds, FREE, GUARDED, IMAGE, INITRAMFS, INTERPRETED, LINKED, LOADER,
    MEMFD, NOT_RUN, PROGRAM, SCRIPT, SECRET, SHARED, WATCHED, WATCHED_PROGRAM,
};
use crate::programs::{loader, own_path};

/// What tasks get that are denied because nobody answered.
const EPERM: i32 = libc::EPERM;
/// Shorter than this nobody can have waited for a deadline of [`SHORT`].
const SHORT: Duration = Duration::from_millis(700);
/// The deadline of the grants; what is over sooner did not wait for it.
const LONG: Duration = Duration::from_secs(10);

/// An event, the deed that is asked about, and what the client is told of it.
struct Tried {
    event: &'static str,
    deed: Deed,
    about: String,
    by: By,
}

/// What lets the task wait.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Gate,
    /// Where a denial is EPERM, whatever was answered (before 6.14).
    Fanotify,
}

/// A client that decides, and says what it was asked.
fn decider(client: &str, event: &str, policy: &[&str]) -> anyhow::Result<Client> {
    let client = format!("org.example.{client}");
    Client::start(&[&["decide", &client, event], policy].concat())
}

fn expect(what: &str, seen: Came, expected: Came) -> anyhow::Result<()> {
    ensure!(seen == expected, "{what}: {seen:?}, and not {expected:?}");
    Ok(())
}

fn said(what: &str, seen: &[String], expected: &[&str]) -> anyhow::Result<()> {
    ensure!(seen == expected, "{what}: asked {seen:?}, and not {expected:?}");
    Ok(())
}

/// A deed fails with exactly the errno of a client that is asked this, and denies it as its policy says.
fn is_denied(
    deeds: &Deeds,
    event: &str,
    deed: Deed,
    policy: &str,
    error: i32,
    asked: &[&str],
) -> anyhow::Result<()> {
    is_denied_as(deeds, event, deed, (policy, error), asked, error)
}

/// The same, where the errno that is `seen` need not be that of the client.
fn is_denied_as(
    deeds: &Deeds,
    event: &str,
    deed: Deed,
    (policy, error): (&str, i32),
    asked: &[&str],
    seen: i32,
) -> anyhow::Result<()> {
    let client = decider("strict", event, &[policy, &error.to_string()])?;
    let came = deeds.attempt(deed)?;
    said(deed.door(), &client.end()?, asked)?;
    expect(deed.door(), came, Err(seen))
}

/// The default of a client: what happens to what it does not answer.
fn default_of(client: &str) -> Came {
    if client == "strict" { Err(EPERM) } else { Ok(()) }
}

pub(crate) fn run(module: &str, kernel: &str) -> anyhow::Result<()> {
    let deeds = Deeds { module: module.to_owned(), kernel: kernel.to_owned() };
    let secret = SECRET;
    let all = [
        ("process_exec", Deed::Execute, PROGRAM.to_owned()),
        ("process_exec", Deed::ExecuteDescriptor, PROGRAM.to_owned()),
        ("image_map", Deed::Map, IMAGE.to_owned()),
        ("module_load", Deed::ModuleFromFile, module.to_owned()),
        ("bpf_load", Deed::Program, "trial 2".to_owned()),
        ("kexec_load", Deed::KernelFromFile, kernel.to_owned()),
        ("file_open", Deed::Read, format!("{secret} 1")),
        ("file_open", Deed::Write, format!("{secret} 2")),
        ("file_open", Deed::ReadByRing, format!("{secret} 1")),
    ];
    let mut held = each(&deeds, By::Gate, all)?;
    for (what, step) in MORE {
        step(&deeds).with_context(|| what.to_owned())?;
        println!("ok: {what}");
        held += 1;
    }
    println!("{held} things hold");
    Ok(())
}

/// What a file is opened for fanotify does not tell: the access is 0.
pub(crate) fn run_through_fanotify() -> anyhow::Result<()> {
    let deeds = Deeds { module: String::new(), kernel: String::new() };
    let secret = format!("{SECRET} 0");
    let all = [
        ("process_exec", Deed::Execute, PROGRAM.to_owned()),
        ("file_open", Deed::Read, secret.clone()),
        ("file_open", Deed::Write, secret.clone()),
        ("file_open", Deed::ReadByRing, secret),
        ("file_open", Deed::ReadElsewhere, "/tried/elsewhere/secret 0".to_owned()),
    ];
    let mut held = each(&deeds, By::Fanotify, all)?;
    let outside = "files outside the watched directory are not asked about";
    let opens = opened_by_fanotify as More;
    let watched = (WATCHES, watches as More);
    let resumed = (RESUMED, resumed as More);
    for (what, step) in [(outside, free as More), (AWAY, away), (OPENS, opens), watched, resumed] {
        step(&deeds).with_context(|| what.to_owned())?;
        println!("ok: {what}");
        held += 1;
    }
    println!("{held} things hold");
    Ok(())
}

/// Tries each deed in each way. Gives how many things hold.
fn each(
    deeds: &Deeds,
    by: By,
    all: impl IntoIterator<Item = (&'static str, Deed, String)>,
) -> anyhow::Result<usize> {
    let mut held = 0;
    for (event, deed, about) in all {
        let tried = Tried { event, deed, about, by };
        for (what, step) in STEPS {
            step(deeds, &tried).with_context(|| format!("{deed:?}: {what}"))?;
            println!("ok: {deed:?}: {what}");
            held += 1;
        }
        println!("door: ask {event} {}", deed.door());
    }
    Ok(held)
}

type Step = fn(&Deeds, &Tried) -> anyhow::Result<()>;

const STEPS: [(&str, Step); 5] = [
    ("works when nobody is asked", unasked),
    ("gets the errno of a denial", denied),
    ("works when it is allowed", allowed),
    ("is decided by the declared default when the client is late", late),
    ("is decided by the declared default when the client dies", dead),
];

fn unasked(deeds: &Deeds, tried: &Tried) -> anyhow::Result<()> {
    expect("without a client", deeds.attempt(tried.deed)?, Ok(()))
}

fn denied(deeds: &Deeds, tried: &Tried) -> anyhow::Result<()> {
    for error in [libc::EPERM, libc::EACCES, libc::ETXTBSY, libc::EXDEV] {
        let seen = if tried.by == By::Fanotify { EPERM } else { error };
        is_denied_as(deeds, tried.event, tried.deed, ("deny", error), &[&tried.about], seen)?;
    }
    Ok(())
}

fn allowed(deeds: &Deeds, tried: &Tried) -> anyhow::Result<()> {
    let client = decider("strict", tried.event, &["allow", "0"])?;
    let came = deeds.attempt(tried.deed)?;
    said("allowed", &client.end()?, &[&tried.about])?;
    expect("allowed", came, Ok(()))
}

fn late(deeds: &Deeds, tried: &Tried) -> anyhow::Result<()> {
    for client in ["strict", "lax"] {
        let deadline = SHORT.as_millis().to_string();
        let asked = decider(client, tried.event, &["never", "0", &deadline])?;
        let start = Instant::now();
        let came = deeds.attempt(tried.deed)?;
        let took = start.elapsed();
        said(client, &asked.end()?, &[&tried.about])?;
        expect(client, came, default_of(client))?;
        ensure!(took >= SHORT, "{client} was not waited for: {took:?}");
        ensure!(took < LONG, "{client} was waited for longer than its session wants: {took:?}");
    }
    Ok(())
}

fn dead(deeds: &Deeds, tried: &Tried) -> anyhow::Result<()> {
    for client in ["strict", "lax"] {
        let mut asked = decider(client, tried.event, &["never", "0"])?;
        let start = Instant::now();
        let came = std::thread::scope(|scope| {
            let doer = scope.spawn(|| deeds.attempt(tried.deed));
            // The kernel writes the record before it asks the daemon, who may hear of the death first.
            asked.line()?;
            asked.kill()?;
            doer.join().map_err(|_| anyhow::anyhow!("the doer panicked"))?
        })?;
        let took = start.elapsed();
        expect(client, came, default_of(client))?;
        ensure!(took < LONG, "{client}: its death freed nobody for {took:?}");
    }
    Ok(())
}

type More = fn(&Deeds) -> anyhow::Result<()>;

const AWAY: &str =
    "what is denied while its client is away is denied before it came and after it has gone";

const OPENS: &str = "a file is opened by no other way than those that are asked about";

const MORE: [(&str, More); 16] = [
    (WATCHES, watches),
    (RESUMED, resumed),
    (AWAY, away),
    (OPENS, opened_by_gate),
    ("a file becomes an image by calls that do not say so, and by mprotect unasked", images),
    ("a program is asked about as an image, by exec and by a loader that is run by hand", programs),
    ("a module in a file that is said to be compressed gets the errno of a denial too", compressed),
    ("an initramfs is asked about beside its kernel", initramfs),
    ("a program that the kernel executes is asked about, and one that a thread does", executed),
    ("files without a name and shared memory get exactly the errno of a denial too", nameless),
    ("a script is asked about by its name, and then its interpreter", script),
    ("so is what binfmt_misc has interpreted", interpreted),
    ("what comes from memory is not asked about, and decided by the declared default", memory),
    ("files outside the watched directory are not asked about", free),
    ("a second mount of the watched directory is no way round", elsewhere),
    ("a file that is allowed is not asked about again for reading, and for writing it is", kept),
];

const WATCHES: &str = "a client that is asked about nothing is asked about as all others are";

fn watches(_: &Deeds) -> anyhow::Result<()> {
    // Or it could not be started: that is an exec too.
    let watching = Client::start(&["watch", "org.example.watching"])?;
    let strict = decider("strict", "process_exec", &["deny", &EPERM.to_string()])?;
    let watching = watching.end()?;
    said("its own exec", &strict.end()?, &[PROGRAM])?;
    ensure!(watching == [EPERM.to_string()], "its exec came to {watching:?}");
    Ok(())
}

const RESUMED: &str =
    "a session that is taken up again is asked, and not about what its client does itself";

fn resumed(deeds: &Deeds) -> anyhow::Result<()> {
    let client = Client::start(&["resume", "org.example.strict"])?;
    let came = deeds.attempt(Deed::Execute)?;
    let said = client.end()?;
    expect("of others", came, Err(EPERM))?;
    ensure!(said == [PROGRAM, "0"], "it was asked, and its own came to {said:?}");
    Ok(())
}

fn nameless(deeds: &Deeds) -> anyhow::Result<()> {
    let all = [
        ("process_exec", Deed::ExecuteMemfd, MEMFD),
        ("process_exec", Deed::ExecuteDeleted, DELETED),
        ("process_exec", Deed::ExecuteMemfdDescriptor, MEMFD),
        ("process_exec", Deed::ExecuteDeletedDescriptor, DELETED),
        ("process_exec", Deed::ExecuteName, PROGRAM),
        ("image_map", Deed::MapMemfd, MEMFD),
        ("image_map", Deed::MapDeleted, DELETED),
        ("image_map", Deed::Attach, SHARED),
    ];
    for (event, deed, about) in all {
        expect("without a client", deeds.attempt(deed)?, Ok(()))?;
        is_denied(deeds, event, deed, "deny", libc::EXDEV, &[about])?;
        println!("door: ask {event} {}", deed.door());
    }
    Ok(())
}

fn script(deeds: &Deeds) -> anyhow::Result<()> {
    expect("without a client", deeds.attempt(Deed::ExecuteScript)?, Ok(()))?;
    let by_interpreter = "execve of a script, by its interpreter";
    for (policy, door, asked) in [
        ("deny", Deed::ExecuteScript.door(), &[SCRIPT][..]),
        ("deny-second", by_interpreter, &[SCRIPT, PROGRAM]),
    ] {
        is_denied(deeds, "process_exec", Deed::ExecuteScript, policy, libc::EXDEV, asked)?;
        println!("door: ask process_exec {door}");
    }
    let deed = Deed::ExecuteByHand;
    expect("without a client", deeds.attempt(deed)?, Ok(()))?;
    is_denied(deeds, "process_exec", deed, "deny", libc::EXDEV, &[PROGRAM])?;
    println!("door: ask process_exec {}", deed.door());
    Ok(())
}

fn interpreted(deeds: &Deeds) -> anyhow::Result<()> {
    let deed = Deed::ExecuteInterpreted;
    expect("without a client", deeds.attempt(deed)?, Ok(()))?;
    let by_interpreter = "execve of what binfmt_misc has interpreted, by its interpreter";
    for (policy, door, asked) in [
        ("deny", deed.door(), &[INTERPRETED][..]),
        ("deny-second", by_interpreter, &[INTERPRETED, PROGRAM]),
    ] {
        is_denied(deeds, "process_exec", deed, policy, libc::EXDEV, asked)?;
        println!("door: ask process_exec {door}");
    }
    Ok(())
}

fn memory(deeds: &Deeds) -> anyhow::Result<()> {
    let all = [("module_load", Deed::ModuleFromMemory), ("kexec_load", Deed::KernelFromMemory)];
    for (event, deed) in all {
        expect("without a client", deeds.attempt(deed)?, Ok(()))?;
        for client in ["strict", "lax"] {
            let asked = decider(client, event, &["deny", "13"])?;
            let came = deeds.attempt(deed)?;
            said(client, &asked.end()?, &[])?;
            expect(client, came, default_of(client))?;
        }
        println!("door: no-ask {event} {}", deed.door());
    }
    Ok(())
}

fn images(deeds: &Deeds) -> anyhow::Result<()> {
    for (deed, policy, asked) in [
        (Deed::MapImplied, "deny", &[IMAGE][..]),
        // The mapping itself is asked about first.
        (Deed::Remap, "deny-second", &[IMAGE, IMAGE]),
    ] {
        expect("without a client", deeds.attempt(deed)?, Ok(()))?;
        is_denied(deeds, "image_map", deed, policy, libc::EXDEV, asked)?;
        println!("door: ask image_map {}", deed.door());
    }
    is_unasked(deeds, "image_map", Deed::Protect)?;
    is_unasked(deeds, "image_map", Deed::ProtectByKey)
}

fn programs(deeds: &Deeds) -> anyhow::Result<()> {
    let loader = loader()?;
    for (deed, policy, asked, seen) in [
        // The old program is gone by then, and the kernel ends the new one.
        (Deed::MapProgram, "deny", &[LINKED][..], libc::SIGSEGV),
        // What the loader ends with when it cannot load something.
        (Deed::MapByLoader, "deny-second", &[&*loader, LINKED], 127),
    ] {
        expect("without a client", deeds.attempt(deed)?, Ok(()))?;
        is_denied_as(deeds, "image_map", deed, (policy, libc::EXDEV), asked, seen)?;
        println!("door: ask image_map {}", deed.door());
    }
    Ok(())
}

fn initramfs(deeds: &Deeds) -> anyhow::Result<()> {
    let deed = Deed::KernelAndInitramfs;
    expect("without a client", deeds.attempt(deed)?, Ok(()))?;
    let asked = [&*deeds.kernel, INITRAMFS];
    is_denied(deeds, "kexec_load", deed, "deny-second", libc::EXDEV, &asked)?;
    println!("door: ask kexec_load {}", deed.door());
    Ok(())
}

fn executed(deeds: &Deeds) -> anyhow::Result<()> {
    let own = own_path()?;
    for (deed, policy, asked, seen) in [
        (Deed::ExecuteByThread, "deny-second", &[&*own, PROGRAM][..], libc::EXDEV),
        (Deed::ExecuteByKernel, "deny", &[LOADER], NOT_RUN),
    ] {
        expect("without a client", deeds.attempt(deed)?, Ok(()))?;
        is_denied_as(deeds, "process_exec", deed, (policy, libc::EXDEV), asked, seen)?;
        println!("door: ask process_exec {}", deed.door());
    }
    Ok(())
}

fn compressed(deeds: &Deeds) -> anyhow::Result<()> {
    let deed = Deed::ModuleCompressed;
    let unasked = deeds.attempt(deed)?;
    ensure!(unasked != Err(libc::EXDEV) && unasked.is_err(), "without a client: {unasked:?}");
    is_denied(deeds, "module_load", deed, "deny", libc::EXDEV, &[IMAGE])?;
    println!("door: ask module_load {}", deed.door());
    Ok(())
}

/// Nobody is asked about it.
fn is_unasked(deeds: &Deeds, event: &str, deed: Deed) -> anyhow::Result<()> {
    let client = decider("strict", event, &["deny", "13"])?;
    let came = deeds.attempt(deed)?;
    said(deed.door(), &client.end()?, &[])?;
    expect(deed.door(), came, Ok(()))?;
    println!("door: no-ask {event} {}", deed.door());
    Ok(())
}

fn opened_by_gate(deeds: &Deeds) -> anyhow::Result<()> {
    opened(deeds, By::Gate)
}

fn opened_by_fanotify(deeds: &Deeds) -> anyhow::Result<()> {
    opened(deeds, By::Fanotify)
}

fn opened(deeds: &Deeds, by: By) -> anyhow::Result<()> {
    // Read, written and executed.
    for (deed, path, access) in [
        (Deed::OpenHow, SECRET, 1),
        (Deed::Create, SECRET, 2),
        (Deed::OpenHandle, SECRET, 1),
        (Deed::OpenAgain, SECRET, 1),
        (Deed::ExecuteWatched, WATCHED_PROGRAM, 5),
    ] {
        let (access, seen) = match by {
            By::Gate => (access, libc::EXDEV),
            By::Fanotify => (0, EPERM),
        };
        expect("without a client", deeds.attempt(deed)?, Ok(()))?;
        let asked = format!("{path} {access}");
        is_denied_as(deeds, "file_open", deed, ("deny", libc::EXDEV), &[&asked], seen)?;
        println!("door: ask file_open {}", deed.door());
    }
    is_unasked(deeds, "file_open", Deed::OpenPath)?;
    match by {
        By::Gate => {
            let (deed, asked) = (Deed::OpenDirectory, format!("{WATCHED} 1"));
            is_denied(deeds, "file_open", deed, "deny", libc::EXDEV, &[&asked])?;
            println!("door: ask file_open {}", deed.door());
            unnamed(deeds)?;
        }
        By::Fanotify => is_unasked(deeds, "file_open", Deed::OpenDirectory)?,
    }
    is_unasked(deeds, "file_open", Deed::Truncate)
}

/// Until it gets a name such a file is called by the number of its inode.
fn unnamed(deeds: &Deeds) -> anyhow::Result<()> {
    let deed = Deed::OpenUnnamed;
    expect("without a client", deeds.attempt(deed)?, Ok(()))?;
    let client = decider("strict", "file_open", &["deny", &libc::EXDEV.to_string()])?;
    let came = deeds.attempt(deed)?;
    let asked = client.end()?;
    let name = format!("{WATCHED}/#");
    ensure!(asked.len() == 1 && asked[0].starts_with(&name), "asked {asked:?}");
    expect(deed.door(), came, Err(libc::EXDEV))?;
    println!("door: ask file_open {}", deed.door());
    Ok(())
}

fn free(deeds: &Deeds) -> anyhow::Result<()> {
    let client = decider("strict", "file_open", &["deny", "13"])?;
    let came = deeds.attempt(Deed::ReadFree)?;
    said(FREE, &client.end()?, &[])?;
    expect(FREE, came, Ok(()))
}

fn away(deeds: &Deeds) -> anyhow::Result<()> {
    for _ in 0..2 {
        expect("away", deeds.attempt(Deed::ReadGuarded)?, Err(EPERM))?;
        let client = decider("guarding", "file_open", &["allow", "0"])?;
        let came = deeds.attempt(Deed::ReadGuarded)?;
        expect("there", came, Ok(()))?;
        let asked = client.end()?;
        ensure!(asked.len() == 1 && asked[0].starts_with(GUARDED), "asked {asked:?}");
    }
    expect("gone", deeds.attempt(Deed::ReadGuarded)?, Err(EPERM))
}

fn elsewhere(deeds: &Deeds) -> anyhow::Result<()> {
    let asked = ["/tried/elsewhere/secret 1"];
    is_denied(deeds, "file_open", Deed::ReadElsewhere, "deny", libc::EACCES, &asked)?;
    println!("door: ask file_open {}", Deed::ReadElsewhere.door());
    Ok(())
}

fn kept(deeds: &Deeds) -> anyhow::Result<()> {
    let client = decider("strict", "file_open", &["allow", "0"])?;
    for deed in [Deed::Read, Deed::Read, Deed::Write, Deed::Write] {
        expect("allowed", deeds.attempt(deed)?, Ok(()))?;
    }
    let (read, write) = (format!("{SECRET} 1"), format!("{SECRET} 2"));
    said("allowed", &client.end()?, &[&read, &write, &write])
}
