// SPDX-License-Identifier: Apache-2.0
//! Events of processes on the kernel that runs the tests, up to what a client reads from its ring.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod clients;

use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use clients::deeds::program_in_memory;
use clients::record::Record;
use clients::{
    Client, EXEC, EXIT, FORK, LARGE, Programs, SIGNAL, THREAD, boottime, door_of, ended, executed,
    process_hooks, run,
};
use probes::events::{Hooks, Mechanism};

#[test]
#[ignore = "root: loads BPF programs"]
fn a_child_is_forked_executes_and_ends_in_this_order_with_all_that_is_known_of_it() {
    let mut hooks = process_hooks();
    let mut client = Client::admit(&mut hooks, 3, LARGE, &[EXEC, FORK, EXIT, SIGNAL, THREAD]);
    let programs = Programs::new();
    let program = programs.copy("true");
    let before = boottime();
    let pid = run(&program, &["one", "two words"]);
    client.read_until(ended(pid));

    let us = u64::from(std::process::id());
    let fork = client.seen.iter().position(|r| {
        r.kind() == FORK.number() && r.body("ringfence_process_fork.child.pid") == u64::from(pid)
    });
    let fork = fork.expect("the fork was told of");
    let exec = client.seen.iter().position(|r| executed(r, &program)).expect("and the exec");
    let exit = client.seen.iter().position(ended(pid)).unwrap();
    assert!(fork < exec && exec < exit, "{:?}", client.seen);
    let [fork, exec, exit] = [fork, exec, exit].map(|index| client.seen[index].clone());

    // The same process in all three, and ours is its parent.
    let key = |record: &Record| (record.actor("process.pid"), record.actor("process.start"));
    let child = (
        fork.body("ringfence_process_fork.child.pid"),
        fork.body("ringfence_process_fork.child.start"),
    );
    assert_eq!((key(&exec), key(&exit)), (child, child));
    assert_eq!(key(&fork).0, us);
    let parent = (exec.actor("parent.pid"), exec.actor("parent.start"));
    assert_eq!(parent, key(&fork));
    assert!(before < child.1 && child.1 <= exec.header("time"), "{child:?}");
    assert!(exec.header("global_sequence") > fork.header("global_sequence"));
    assert_eq!(exec.header("flags") & 1, 1, "mandatory");

    // The file, as stat has it.
    let stat = fs::metadata(&program).unwrap();
    let file = |field: &str| exec.body(&format!("ringfence_process_exec.file.{field}"));
    assert_eq!(file("inode"), stat.ino());
    assert_eq!((file("size"), file("mode")), (stat.len(), u64::from(stat.mode())));
    assert_eq!((file("uid"), file("gid"), file("links")), (0, 0, 1));
    assert_eq!(file("version"), stat.ctime() as u64 * 1_000_000_000 + stat.ctime_nsec() as u64);
    assert_eq!(file("digest_algorithm"), 0);
    assert_eq!(exec.actor("executable.inode"), stat.ino());
    assert_eq!(exec.actor_text("executable.path"), program.to_str().unwrap());
    let flags = exec.body("ringfence_process_exec.flags");
    assert_eq!(flags, 0, "neither secure nor fileless nor interpreted");

    let program = program.to_str().unwrap();
    assert_eq!(exec.text("ringfence_process_exec.name"), program);
    assert_eq!(exec.text("ringfence_process_exec.script"), "");
    let arguments = exec.text("ringfence_process_exec.arguments");
    assert_eq!(arguments, format!("{program}\0one\0two words\0"));
    assert_eq!(exec.body("ringfence_process_exec.argument_count"), 3);
    let environment = std::env::vars_os().count() as u64;
    assert_eq!(exec.body("ringfence_process_exec.environment_count"), environment);

    assert_eq!(exit.body("ringfence_process_exit.code"), 0);
    assert_eq!(exit.body("ringfence_process_exit.signal"), 0);
    let lifetime = exit.body("ringfence_process_exit.lifetime");
    let ran = exit.body("ringfence_process_exit.user_time")
        + exit.body("ringfence_process_exit.system_time");
    // 0 if neither tick nor switch fell into so short a life.
    assert!(ran <= lifetime, "{ran} of {lifetime} ns");
    door_of("notify", EXEC, "execve");
}

#[test]
#[ignore = "root: loads BPF programs"]
fn how_long_a_process_ran_is_as_the_kernel_tells_its_parent() {
    let mut hooks = process_hooks();
    let mut client = Client::admit(&mut hooks, 0, LARGE, &[EXIT]);
    let busy = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done";
    let mut child = Command::new("/bin/sh").args(["-c", busy]).spawn().unwrap();
    let pid = child.id();
    let ran = waited(&mut child);
    client.read_until(ended(pid));
    let exits = client.of(pid);
    let exit = exits.iter().find(|record| record.kind() == EXIT.number()).unwrap();
    let told = exit.body("ringfence_process_exit.user_time")
        + exit.body("ringfence_process_exit.system_time");
    assert!(told > 0 && told <= exit.body("ringfence_process_exit.lifetime"), "{told} ns");
    // A tick comes each 10 ms or more often; what the kernel does after telling of the end counts too.
    // Microseconds are what it is told in, twice. A processor of a virtual machine that is not run itself has no
    // ticks, and whoever is on it seems to run: a tenth for that.
    let told = Duration::from_nanos(told);
    let all = told <= ran + Duration::from_micros(2);
    assert!(all && ran < told + Duration::from_millis(25) + ran / 10, "{told:?} of {ran:?}");
}

/// Waits for a child; gives how long it ran.
fn waited(child: &mut Child) -> Duration {
    let pid = i32::try_from(child.id()).unwrap();
    // SAFETY: all zeroes are a rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    let mut status = 0;
    // SAFETY: both pointers are to variables of ours, of the types that it writes.
    let waited = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
    assert_eq!((waited, status), (pid, 0));
    [usage.ru_utime, usage.ru_stime].iter().fold(Duration::ZERO, |sum, time| {
        let seconds = Duration::from_secs(u64::try_from(time.tv_sec).unwrap());
        sum + seconds + Duration::from_micros(u64::try_from(time.tv_usec).unwrap())
    })
}

#[test]
#[ignore = "root: loads BPF programs"]
fn who_did_it_is_as_proc_says() {
    let mut hooks = process_hooks();
    let mut client = Client::admit(&mut hooks, 0, LARGE, &[FORK, EXIT]);
    let pid = run(Path::new("/bin/true"), &[]);
    client.read_until(ended(pid));
    let us = std::process::id();
    let forks: Vec<_> = client.of(us);
    let fork = forks.iter().find(|r| r.kind() == FORK.number()).unwrap();
    let space = |name: &str| fs::metadata(format!("/proc/self/ns/{name}")).unwrap().ino();
    assert_eq!(fork.actor("user_namespace"), space("user"));
    assert_eq!(fork.actor("pid_namespace"), space("pid"));
    assert_eq!(fork.actor("mount_namespace"), space("mnt"));
    assert_eq!(fork.actor("net_namespace"), space("net"));
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    let value = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    let hex = |name: &str| u64::from_str_radix(&value(name), 16).unwrap();
    assert_eq!(fork.actor("effective"), hex("CapEff:"));
    assert_eq!(fork.actor("permitted"), hex("CapPrm:"));
    assert_eq!(fork.actor("parent.pid").to_string(), value("PPid:"));
    assert_eq!(fork.actor("thread").to_string(), value("Pid:"));
    let login = fs::read_to_string("/proc/self/loginuid").unwrap_or("4294967295".into());
    assert_eq!(fork.actor("login_uid").to_string(), login.trim());
    let own = std::env::current_exe().unwrap();
    assert_eq!(fork.actor_text("executable.path"), own.to_str().unwrap());
    // The cgroup, by the inode of its directory.
    let line = fs::read_to_string("/proc/self/cgroup").unwrap();
    let path = line.lines().find_map(|line| line.strip_prefix("0::"));
    let mount = fs::read_to_string("/proc/mounts").unwrap();
    let mount = mount.lines().find_map(|line| {
        let fields: Vec<_> = line.split(' ').collect();
        (fields.get(2) == Some(&"cgroup2")).then(|| fields[1].to_owned())
    });
    match (path, mount) {
        (Some(path), Some(mount)) => {
            let directory = fs::metadata(format!("{mount}{path}")).unwrap();
            assert_eq!(fork.actor("cgroup"), directory.ino());
        }
        _ => eprintln!("not looked for: the cgroup, as no cgroup2 is mounted"),
    }
}

#[test]
#[ignore = "root: loads BPF programs"]
fn a_signal_is_told_of_before_the_exit_that_it_causes() {
    let mut hooks = process_hooks();
    let mut client = Client::admit(&mut hooks, 1, LARGE, &[SIGNAL, EXIT]);
    let programs = Programs::new();
    let sleep = programs.copy("sleep");
    let mut child = Command::new(&sleep).arg("60").spawn().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    client.read_until(ended(child.id()));
    let pid = u64::from(child.id());
    let signal = client.seen.iter().position(|r| {
        r.kind() == SIGNAL.number() && r.body("ringfence_process_signal.target.pid") == pid
    });
    let signal = signal.expect("the signal was told of");
    let exit = client.seen.iter().position(ended(child.id())).unwrap();
    assert!(signal < exit);
    let (signal, exit) = (&client.seen[signal], &client.seen[exit]);
    assert_eq!(signal.actor("process.pid"), u64::from(std::process::id()));
    assert_eq!(signal.body("ringfence_process_signal.signal"), 9);
    assert_eq!(signal.body("ringfence_process_signal.code"), 0, "SI_USER");
    assert_eq!(signal.body("ringfence_process_signal.thread"), 0);
    let runs = signal.text("ringfence_process_signal.executable.path");
    // The child may not have come to its exec yet.
    let own = std::env::current_exe().unwrap();
    assert!(runs == sleep.to_str().unwrap() || runs == own.to_str().unwrap(), "{runs}");
    assert_eq!(exit.body("ringfence_process_exit.signal"), 9);
    door_of("notify", EXIT, "by a signal");
}

#[test]
#[ignore = "root: loads BPF programs"]
fn threads_are_threads_and_the_last_one_ends_the_process_once() {
    let mut hooks = process_hooks();
    let mut client = Client::admit(&mut hooks, 1, LARGE, &[FORK, THREAD, EXIT]);
    let own = std::env::current_exe().unwrap();
    let arguments = ["--exact", "many_threads_end_at_once", "--ignored"];
    for _ in 0..10 {
        let mut child = Command::new(&own);
        child.args(arguments).env("RINGFENCE_THREADS", "1").stdout(Stdio::null());
        let mut child = child.spawn().unwrap();
        assert!(child.wait().unwrap().success());
        client.read_until(ended(child.id()));
        client.take();
        let of = client.of(child.id());
        let threads: Vec<_> = of.iter().filter(|r| r.kind() == THREAD.number()).collect();
        assert!(threads.len() >= 16, "{of:?}");
        for thread in threads {
            let part = |field: &str| thread.body(&format!("ringfence_process_fork.{field}"));
            assert_eq!(part("child.pid"), u64::from(child.id()));
            assert_ne!(part("thread"), u64::from(child.id()));
        }
        assert_eq!(of.iter().filter(|r| r.kind() == FORK.number()).count(), 0);
        assert_eq!(of.iter().filter(|r| r.kind() == EXIT.number()).count(), 1, "{of:?}");
    }
    door_of("notify", EXIT, "exit_group of a process with threads");
}

/// Since 7.0 tracepoints can be preempted, and then the kernel does not run a program that runs on
/// the same processor already.
#[test]
#[ignore = "root: loads BPF programs"]
fn hardly_anything_is_missed_of_processes_that_preempt_each_other_and_never_silently() {
    const EACH: usize = 60;
    let mut hooks = process_hooks();
    let mut client = Client::admit(&mut hooks, 1, LARGE, &[EXEC, FORK, THREAD, EXIT]);
    let programs = Programs::new();
    let program = programs.copy("true");
    let one = || (0..EACH).map(|_| run(&program, &[])).collect::<Vec<_>>();
    let pids: Vec<u32> = std::thread::scope(|scope| {
        let many: Vec<_> = (0..6).map(|_| scope.spawn(one)).collect();
        many.into_iter().flat_map(|one| one.join().unwrap()).collect()
    });
    std::thread::sleep(Duration::from_millis(500));
    client.take();
    let count = |pid: &&u32, kind: probes::events::EventType| {
        client.of(**pid).iter().filter(|r| r.kind() == kind.number()).count()
    };
    // All three programs of a tracepoint can be missed by one process: rarely, and that is known.
    for kind in [EXEC, EXIT] {
        let of = pids.iter().map(|pid| (pid, count(&pid, kind)));
        let wrong: Vec<_> = of.filter(|(_, count)| *count != 1).collect();
        let missed = hooks.missed().unwrap();
        let missed =
            missed.iter().find(|(types, _)| types.contains(&kind)).map(|(_, count)| *count);
        assert!(wrong.iter().all(|(_, count)| *count == 0), "told of twice: {wrong:?}");
        assert_eq!(missed.unwrap_or(0), wrong.len() as u64, "{kind:?} of {wrong:?}");
        assert!(wrong.len() <= pids.len() / 50, "{kind:?} of {wrong:?}");
    }
}

/// What the test before the last runs: without it, nothing.
#[test]
#[ignore = "part of another test"]
fn many_threads_end_at_once() {
    if std::env::var_os("RINGFENCE_THREADS").is_none() {
        return;
    }
    for _ in 0..16 {
        std::thread::spawn(|| std::thread::sleep(Duration::from_millis(20)));
    }
    std::thread::sleep(Duration::from_millis(20));
    std::process::exit(0);
}

#[test]
#[ignore = "root: loads BPF programs"]
fn a_script_is_named_beside_its_interpreter() {
    let mut hooks = process_hooks();
    let mut client = Client::admit(&mut hooks, 0, LARGE, &[EXEC, EXIT]);
    let programs = Programs::new();
    let shell = fs::canonicalize("/bin/sh").unwrap();
    let script = programs.path().join("script");
    fs::write(&script, "#!/bin/sh\nexit 7\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let pid = run(&script, &["argument"]);
    client.read_until(ended(pid));
    let of = client.of(pid);
    let exec = of.iter().find(|r| r.kind() == EXEC.number()).unwrap();
    let script = script.to_str().unwrap();
    assert_eq!(exec.text("ringfence_process_exec.file.path"), shell.to_str().unwrap());
    assert_eq!(exec.text("ringfence_process_exec.script"), script);
    assert_eq!(exec.text("ringfence_process_exec.name"), script);
    assert_eq!(exec.body("ringfence_process_exec.flags"), 4, "interpreted");
    let arguments = exec.text("ringfence_process_exec.arguments");
    assert_eq!(arguments, format!("/bin/sh\0{script}\0argument\0"));
    let exit = of.iter().find(|r| r.kind() == EXIT.number()).unwrap();
    assert_eq!(exit.body("ringfence_process_exit.code"), 7);
    door_of("notify", EXEC, "execve of a script");
}

/// Runs what is behind a descriptor; gives its id.
fn run_descriptor(file: BorrowedFd<'_>) -> u32 {
    run(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd())), &[])
}

#[test]
#[ignore = "root: loads BPF programs"]
fn programs_without_a_name_are_marked() {
    const FILELESS: u64 = 2;
    let mut hooks = process_hooks();
    let mut client = Client::admit(&mut hooks, 0, LARGE, &[EXEC, EXIT]);
    let programs = Programs::new();

    let (path, file) = programs.deleted("true");
    let deleted = run_descriptor(file.as_fd());
    client.read_until(ended(deleted));
    let of = client.of(deleted);
    let exec = of.iter().find(|r| r.kind() == EXEC.number()).unwrap();
    let part =
        |record: &Record, field: &str| record.body(&format!("ringfence_process_exec.{field}"));
    assert_eq!(part(exec, "flags"), FILELESS);
    assert_eq!(part(exec, "file.flags") & 0x3, 0x2, "deleted, no memfd");
    assert_eq!(part(exec, "file.links"), 0);
    assert_eq!(exec.text("ringfence_process_exec.file.path"), path.to_str().unwrap());

    let memory = program_in_memory("of the test");
    let pid = run_descriptor(memory.as_fd());
    client.read_until(ended(pid));
    let of = client.of(pid);
    let exec = of.iter().find(|r| r.kind() == EXEC.number()).unwrap();
    assert_eq!(part(exec, "flags"), FILELESS);
    assert_eq!(part(exec, "file.flags") & 0xb, 0x9, "a memfd, in memory");
    assert_eq!(exec.text("ringfence_process_exec.file.path"), "/memfd:of the test");
    for door in ["execve of a deleted file", "execve of a memfd"] {
        door_of("notify", EXEC, door);
    }
}

#[test]
#[ignore = "root: loads BPF programs"]
fn long_paths_and_arguments_are_cut_where_it_is_said() {
    let mut hooks = process_hooks();
    let mut client = Client::admit(&mut hooks, 0, LARGE, &[EXEC, EXIT]);
    let programs = Programs::new();
    let mut directory = programs.path().to_owned();
    for _ in 0..14 {
        directory.push("d".repeat(255));
    }
    fs::create_dir_all(&directory).unwrap();
    let program = directory.join("true");
    fs::copy("/bin/true", &program).unwrap();
    let long = "x".repeat(10_000);
    let pid = run(&program, &[&long]);
    client.read_until(ended(pid));
    let of = client.of(pid);
    let exec = of.iter().find(|r| r.kind() == EXEC.number()).unwrap();
    assert_eq!(exec.text("ringfence_process_exec.file.path"), program.to_str().unwrap());
    let arguments = exec.text("ringfence_process_exec.arguments");
    let whole = format!("{}\0{long}\0", program.to_str().unwrap());
    assert!(whole.starts_with(&arguments), "the end is cut");
    assert!(arguments.len() > program.as_os_str().len() && arguments.len() <= 4096);
    assert_eq!(exec.body("ringfence_process_exec.arguments.flags"), 1);
    assert_eq!(exec.header("flags") & 2, 2, "truncated");
    assert_eq!(exec.body("ringfence_process_exec.argument_count"), 2);
    assert!(exec.header("size") <= 12288);
    assert_eq!(exec.header("size") as usize, exec.0.len());
}

#[test]
#[ignore = "root: loads BPF programs"]
fn processes_are_told_of_by_tracepoints_wherever_tests_run() {
    let hooks = Hooks::load().unwrap();
    for coverage in hooks.coverage() {
        println!("{}: {:?} {:?}", coverage.kind.name(), coverage.notify, coverage.deny);
        if [EXEC, FORK, EXIT, SIGNAL, THREAD].contains(&coverage.kind) {
            assert_eq!(coverage.notify, Ok(Mechanism::Tracepoint), "{:?}", coverage.kind);
        }
        if let Err(reason) = &coverage.notify {
            assert!(!reason.is_empty());
        }
    }
}
