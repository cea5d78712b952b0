// SPDX-License-Identifier: Apache-2.0
//! Rules where whoever does it does not get their errno: the kernel does it for somebody, a program has been
//! replaced by the one that is denied, or nobody is asked at all. And what holds where a client cannot even
//! be asked.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod clients;

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use clients::deeds::{LENGTH, changed, executed, other_kernel, own_kernel, with_read_implies_exec};
use clients::listener::some_file;
use clients::ruler::{Ruler, SLOT, doors_are_denied, doors_are_denied_with, header};
use clients::senders::{
    by_a_file, by_a_message_queue, by_a_terminal, by_a_timer, by_the_end_of_a_parent,
};
use clients::{Client, EXEC, LARGE, Loaded, Programs, SIGNAL, door_of, no_door_of};
use probes::events::{AskTerms, EventType, SMALLEST_RING};
use rules::RuleSet;

fn own_path() -> PathBuf {
    std::env::current_exe().unwrap()
}

/// Runs a copy of this program, which links libraries, with nothing to do; what it came to.
fn came_of(program: &Path, arguments: &[&Path]) -> std::process::ExitStatus {
    let mut command = Command::new(program);
    command.args(arguments).args(["--exact", "no such test"]);
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap()
}

/// The program loader that this program was started by.
fn loader() -> PathBuf {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let path = maps
        .lines()
        .find_map(|line| Some(&line[line.find('/')?..]).filter(|path| path.contains("/ld-linux")));
    PathBuf::from(path.expect("a program loader"))
}

#[test]
#[ignore = "root: loads BPF programs"]
fn a_program_whose_image_is_denied_is_ended_and_one_that_ld_so_is_to_run_is_not_run() {
    let programs = Programs::new();
    let program = programs.path().join("linked");
    fs::copy(own_path(), &program).unwrap();
    let condition = format!("file.path = {program:?}");
    // The kernel has given up the old program by then: bprm_execve, fs/exec.c.
    let mut execute = || came_of(&program, &[]).signal().unwrap_or(0);
    let own = Some(libc::SIGSEGV);
    let kind = EventType::IMAGE_MAP;
    let door = "exec: the program, its loader and libraries";
    doors_are_denied_with(kind, &condition, own, &mut [(door, &mut execute)]);
    let loader = loader();
    let mut run = || came_of(&loader, &[&program]).code().unwrap();
    // What ld.so ends with when it cannot load something.
    let own = Some(127);
    doors_are_denied_with(kind, &condition, own, &mut [("ld.so run by hand", &mut run)]);
}

#[test]
#[ignore = "root: loads BPF programs"]
fn what_another_thread_executes_is_denied_with_the_errno_of_the_rule() {
    let programs = Programs::new();
    let program = programs.copy("true");
    let mut execute = || {
        let mut own = Command::new(own_path());
        own.args(["--exact", "part_of_a_test_whose_thread_executes_a_program", "--ignored"]);
        let ended = own.env("RINGFENCE_EXECUTES", &program).stdout(Stdio::null()).status();
        ended.unwrap().code().unwrap()
    };
    let condition = format!("file.path = {program:?}");
    let door = "execve by another thread than the first";
    doors_are_denied(EXEC, &condition, &mut [(door, &mut execute)]);
}

#[test]
#[ignore = "part of another test"]
fn part_of_a_test_whose_thread_executes_a_program() {
    let Some(program) = std::env::var_os("RINGFENCE_EXECUTES") else { return };
    let failed = std::thread::spawn(|| Command::new(program).exec()).join().unwrap();
    std::process::exit(failed.raw_os_error().unwrap());
}

#[test]
#[ignore = "root: loads BPF programs"]
fn the_initramfs_of_another_kernel_is_denied_with_the_errno_of_the_rule() {
    let kind = EventType::KEXEC_LOAD;
    if let Some(reason) = &Ruler::of(kind).cannot {
        eprintln!("not looked for: {reason}");
        return;
    }
    let Some(kernel) = own_kernel() else { return };
    let programs = Programs::new();
    let (path, file) = some_file(&programs);
    drop(file);
    let condition = format!("file.path = {path:?}");
    let mut load = || other_kernel(&kernel, &path);
    doors_are_denied(kind, &condition, &mut [("kexec_file_load, the initramfs", &mut load)]);
}

#[test]
#[ignore = "root: loads BPF programs"]
fn a_mapping_that_becomes_an_image_by_read_implies_exec_is_denied() {
    let programs = Programs::new();
    let (path, file) = some_file(&programs);
    let mut change = || {
        with_read_implies_exec(|| {
            changed(libc::PROT_WRITE, libc::PROT_READ, libc::MAP_PRIVATE, file.as_raw_fd())
        })
    };
    let condition = format!("file.path = {path:?}");
    let door = "mprotect with READ_IMPLIES_EXEC";
    doors_are_denied(EventType::IMAGE_MAP, &condition, &mut [(door, &mut change)]);
}

#[test]
#[ignore = "root: loads BPF programs"]
fn the_program_by_which_the_kernel_loads_modules_is_denied_and_nothing_is_executed() {
    const SETTING: &str = "/proc/sys/kernel/modprobe";
    let Ok(before) = fs::read_to_string(SETTING) else {
        println!("this kernel is built without modules, and executes nothing to have them loaded");
        return;
    };
    if Ruler::of(EXEC).cannot.is_some() {
        eprintln!("not looked for: nothing can be denied here, and the setting is the host's");
        return;
    }
    let programs = Programs::new();
    let program = programs.copy("true");
    fs::write(SETTING, program.to_str().unwrap()).unwrap();
    // SAFETY: plain numbers; no family of protocols has this one any more (AF_DECnet until 6.1).
    let mut ask =
        || clients::deeds::errno(i64::from(unsafe { libc::socket(12, libc::SOCK_STREAM, 0) }));
    let condition = format!("file.path = {program:?}");
    let own = Some(libc::EAFNOSUPPORT);
    let door = "by the kernel (request_module)";
    doors_are_denied_with(EXEC, &condition, own, &mut [(door, &mut ask)]);
    fs::write(SETTING, before).unwrap();
}

#[test]
#[ignore = "root: loads BPF programs"]
fn signals_that_nobody_is_asked_about_are_told_of_and_that_of_the_end_of_a_parent_is_denied() {
    let mut ruler = Ruler::of(SIGNAL);
    if let Some(reason) = &ruler.cannot {
        eprintln!("not looked for: {reason}");
        return;
    }
    let rules = |signal: &str| {
        let rule = |id, action| {
            format!(
                "[[rule]]\nid = {id}\nevent = \"process_signal\"\naction = {action:?}\n\
                 signal = {signal:?}\ntarget.path = {:?}\n",
                own_path()
            )
        };
        rule(4, "notify") + &rule(5, "deny")
    };
    ruler.install(&rules("SIGURG")).unwrap();
    ruler.told();
    let told_only = |ruler: &mut Ruler, door: &str| {
        assert_eq!(ruler.told().iter().map(header).collect::<Vec<_>>(), [[2, 4, 0, 0]], "{door}");
        no_door_of("rule", SIGNAL, door);
    };
    by_a_timer(libc::SIGURG);
    told_only(&mut ruler, "timer_create");
    if by_a_message_queue(libc::SIGURG).is_some() {
        told_only(&mut ruler, "mq_notify");
    }
    by_a_file(libc::SIGURG);
    told_only(&mut ruler, "a file with O_ASYNC (SIGIO)");
    ruler.install(&rules("SIGINT")).unwrap();
    ruler.told();
    if by_a_terminal().is_some() {
        told_only(&mut ruler, "a key of a terminal");
    }
    ruler.install(&rules("SIGKILL")).unwrap();
    ruler.told();
    by_the_end_of_a_parent();
    // The parent is asked about as it ends, and the child lives on.
    let told: Vec<_> = ruler.told().iter().map(header).collect();
    assert_eq!(told, [[2, 5, 2, 1]]);
    door_of("rule", SIGNAL, "PR_SET_PDEATHSIG");
}

#[test]
#[ignore = "root: loads BPF programs"]
fn what_a_rule_allows_no_later_rule_of_its_client_denies_and_those_of_others_do() {
    let mut ruler = Ruler::of(EXEC);
    if let Some(reason) = &ruler.cannot {
        eprintln!("not looked for: {reason}");
        return;
    }
    let programs = Programs::new();
    let (allowed, denied) = (programs.copy("true"), programs.copy("false"));
    let rule = |id, action, condition: String| {
        format!("[[rule]]\nid = {id}\nevent = \"process_exec\"\naction = {action:?}\n{condition}\n")
    };
    let this = |path: &Path| format!("file.path = {path:?}");
    // With all that is below.
    let all = this(programs.path());
    let own = rule(1, "allow", this(&allowed)) + &rule(2, "deny", all.clone());
    ruler.install(&own).unwrap();
    ruler.told();
    assert_eq!((executed(&allowed), executed(&denied)), (0, libc::EPERM));
    assert!(ruler.told().is_empty(), "none of them tells");
    assert_eq!(ruler.counts(), [(1, 0), (1, 1)]);
    // The other way round nothing is left to be allowed.
    let own = rule(2, "deny", all.clone()) + &rule(1, "allow", this(&allowed));
    ruler.install(&own).unwrap();
    assert_eq!(executed(&allowed), libc::EPERM);
    assert_eq!(ruler.counts(), [(1, 1), (0, 0)]);

    ruler.install(&rule(1, "allow", all)).unwrap();
    assert_eq!(executed(&denied), 0);
    let other = Client::admit(&mut ruler.hooks, SLOT + 1, LARGE, &[]);
    let others = rule(9, "deny", this(&denied) + "\nerror = \"EACCES\"");
    ruler.hooks.install_rules(other.slot, &RuleSet::from_toml(&others).unwrap()).unwrap();
    assert_eq!((executed(&denied), executed(&allowed)), (libc::EACCES, 0));
    assert_eq!(ruler.counts(), [(3, 0)]);
}

#[test]
#[ignore = "root: loads BPF programs"]
fn memory_that_brk_makes_executable_is_not_denied() {
    let kind = EventType::MEMORY_MAP;
    let mut ruler = Ruler::of(kind);
    if let Some(reason) = &ruler.cannot {
        eprintln!("not looked for: {reason}");
        return;
    }
    let rule = format!(
        "[[rule]]\nid = 1\nevent = \"memory_map\"\naction = \"deny\"\nactor.path = {:?}\n",
        own_path()
    );
    ruler.install(&rule).unwrap();
    ruler.told();
    // SAFETY: what is added is given back at once, and nobody looks into it.
    let grown = unsafe {
        let end = libc::sbrk(0);
        let grown = with_read_implies_exec(|| libc::brk(end.byte_add(LENGTH)));
        libc::brk(end);
        grown
    };
    assert_eq!(grown, 0);
    assert!(ruler.told().is_empty());
    no_door_of("rule", kind, "brk with READ_IMPLIES_EXEC");
}

#[test]
#[ignore = "root: loads BPF programs"]
fn a_question_that_a_full_ring_has_no_place_for_is_decided_as_its_client_declared() {
    let mut hooks = Loaded::of(EXEC.bit());
    let coverage = hooks.coverage();
    if let Err(reason) = &coverage.iter().find(|coverage| coverage.kind == EXEC).unwrap().ask {
        eprintln!("not looked for: {reason}");
        return;
    }
    let programs = Programs::new();
    let program = programs.copy("true");
    for deny_full in [true, false] {
        let mut client = Client::admit(&mut hooks, SLOT, SMALLEST_RING, &[]);
        let terms = AskTerms { time: Duration::from_secs(1), deny_full };
        hooks.ask(SLOT, &[(EXEC, terms)]).unwrap();
        // No gate is open, so nobody waits as long as there is a place.
        let came: Vec<i32> = (0..400).map(|_| executed(&program)).collect();
        let fitted = came.iter().take_while(|error| **error == 0).count();
        client.take();
        if deny_full {
            assert!((50..400).contains(&fitted), "{fitted}");
            assert!(came[fitted..].iter().all(|error| *error == libc::EPERM), "{came:?}");
            assert_eq!(client.seen.len(), fitted);
        } else {
            assert_eq!(fitted, 400);
            assert!(client.seen.len() < 400, "all of them fit");
        }
        assert_eq!(executed(&program), 0, "there is place again");
        hooks.remove(SLOT).unwrap();
    }
}
