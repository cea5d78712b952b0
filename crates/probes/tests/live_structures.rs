// SPDX-License-Identifier: Apache-2.0
//! The guard's checks of structures on the kernel that runs the tests: hooks, BPF objects, tasks,
//! settings, executable pages, the guard itself. First that they find nothing on a busy system,
//! then that each finds what it is for, with memory or interfaces that lie.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod structures;

use std::collections::BTreeMap;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use guard::checks;
use guard::journal::Journal;
use guard::recover::{self, How, Recovered};
use guard::views::{BpfKind, Views};
use guard::{Finding, Report, Status};
use kernel_memory::page_tables::{DirectMap, PageTables};
use probes::JournalReader;
use structures::{Changed, Live, Lying, OnDrop, Waiting, only};

fn no_journal() -> Journal {
    Journal::unavailable("not part of this test")
}

fn techniques(report: &Report) -> Vec<&str> {
    report.findings.iter().map(|finding| finding.technique.as_str()).collect()
}

fn print(report: &Report) {
    for check in &report.checks {
        println!("{:16} {:?} {} us {:?}", check.name, check.status, check.elapsed_us, check.reason);
    }
    for finding in &report.findings {
        println!("{finding:#?}");
    }
}

/// The address of the `task_struct` of a process and those of its neighbours on the task list.
fn task_of(live: &Live, pid: u32) -> (u64, u64, u64) {
    let kernel = live.kernel();
    let first = Recovered::default().data_symbol(&kernel, "init_task").unwrap().address;
    let offset = kernel.offset_of("task_struct", "tasks").unwrap();
    for task in kernel.list(first + offset, "task_struct", "tasks") {
        let task = task.unwrap();
        if task.u32("tgid").unwrap() == pid {
            let node = task.field("tasks").unwrap();
            return (task.address(), node.u64("next").unwrap(), node.u64("prev").unwrap());
        }
    }
    panic!("no process {pid} on the task list");
}

#[test]
#[ignore = "root"]
fn variables_are_found_in_code_where_symbols_tell_they_are() {
    let live = Live::open();
    let kernel = live.kernel();
    let mut found = 0;
    for name in recover::names() {
        match recover::from_code(&kernel, name) {
            Ok(located) => {
                println!("{name:28} {:#x} by {}", located.address, located.how);
                assert!(matches!(located.how, How::FromCode { .. }));
                if let Some(address) = live.symbols.address_of(name) {
                    assert_eq!(located.address, address, "{name}");
                }
                found += 1;
            }
            Err(missing) => println!("{name:28} {}", missing.0),
        }
    }
    assert!(found >= 10, "only {found} variables were found");
    for needed in ["prog_idr", "map_idr", "link_idr", "bpf_kallsyms", "init_task", "init_mm"] {
        assert!(recover::data_symbol(&kernel, needed).is_ok(), "{needed}");
    }
}

#[test]
#[ignore = "root"]
fn a_system_at_work_has_no_findings() {
    let live = Live::open();
    let baseline = live.baseline(checks::facts(&live.kernel(), &live.views));
    let stop = AtomicBool::new(false);
    let zombie = Command::new("true").spawn().unwrap();
    std::thread::scope(|scope| {
        // Processes that come and go, threads that come and go, a zombie, and BPF programs.
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let children: Vec<Child> =
                    (0..4).filter_map(|_| Command::new("true").spawn().ok()).collect();
                for mut child in children {
                    let _ = child.wait();
                }
            }
        });
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let threads: Vec<_> = (0..16)
                    .map(|_| std::thread::spawn(|| std::thread::sleep(Duration::from_micros(200))))
                    .collect();
                for thread in threads {
                    let _ = thread.join();
                }
            }
        });
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                // A program whose verification a signal interrupts is as good here.
                let _ = live.views.raise_event();
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let _stop = OnDrop(|| stop.store(true, Ordering::Relaxed));
        let mut findings: Vec<Finding> = Vec::new();
        for check in ["hooks", "operations", "bpf", "tasks", "settings", "executable_pages"] {
            for round in 0..8 {
                let mut guard = only(check);
                let journal = no_journal();
                let report = live.pass(&mut guard, &live.reader, &live.views, &baseline, &journal);
                if round == 0 || !report.findings.is_empty() {
                    print(&report);
                }
                assert_ne!(report.checks[0].status, Status::Unavailable, "{report:?}");
                findings.extend(report.findings);
            }
        }
        assert!(findings.is_empty(), "{findings:#?}");
    });
    drop(zombie.wait_with_output());
}

#[test]
#[ignore = "root"]
fn a_task_that_proc_or_iterators_leave_out_is_found_with_the_view_that_lacks_it() {
    let live = Live::open();
    let baseline = live.baseline(BTreeMap::new());
    let process = Waiting::start();
    let hidden = process.0.id();
    let cases = [
        (
            Lying { not_in_proc: Some(hidden), ..Lying::about_nothing(&live.views) },
            "task hidden from /proc",
        ),
        (
            Lying { not_iterated: Some(hidden), ..Lying::about_nothing(&live.views) },
            "task hidden from iterators",
        ),
    ];
    for (views, technique) in cases {
        let report = live.pass(&mut only("tasks"), &live.reader, &views, &baseline, &no_journal());
        print(&report);
        assert_eq!(techniques(&report), [technique]);
        let finding = &report.findings[0];
        assert!(finding.seen.contains(&format!("process {hidden}, thread {hidden}")));
        assert!(finding.evidence.iter().any(|line| line.contains("answers when asked")));
    }
}

/// Looks at the tasks with `process` taken off the task list, and off the pid table too if asked.
///
/// Its neighbours on the list may end while that is so, and the links made here are then wrong:
/// only a look during which they stayed counts.
fn look_with_task_unlinked(live: &Live, process: u32, off_table: bool) -> (u64, Report) {
    let kernel = live.kernel();
    let baseline = live.baseline(BTreeMap::new());
    for _ in 0..20 {
        let (task, next, previous) = task_of(live, process);
        let mut memory = Changed::new(&live.reader);
        memory.write_u64(previous, next);
        memory.write_u64(next + 8, previous);
        if off_table {
            // The pid no longer leads to its thread.
            let pid = kernel.object("task_struct", task).unwrap().u64("thread_pid").unwrap();
            memory.write_u64(pid + kernel.offset_of("pid", "tasks").unwrap(), 0);
        }
        let report = live.pass(&mut only("tasks"), &memory, &live.views, &baseline, &no_journal());
        if task_of(live, process) == (task, next, previous) {
            print(&report);
            return (task, report);
        }
    }
    panic!("the neighbours of process {process} on the task list never stay");
}

#[test]
#[ignore = "root"]
fn a_task_unlinked_from_the_task_list_is_found() {
    let live = Live::open();
    // Neighbours that stay.
    let processes = [Waiting::start(), Waiting::start(), Waiting::start()];
    let (task, report) = look_with_task_unlinked(&live, processes[1].0.id(), false);
    assert_eq!(techniques(&report), ["task unlinked from the task list"]);
    assert_eq!(report.findings[0].address, task);
}

#[test]
#[ignore = "root"]
fn a_task_removed_from_the_pid_table_is_found() {
    let live = Live::open();
    let kernel = live.kernel();
    let baseline = live.baseline(BTreeMap::new());
    let process = Waiting::start();
    let (task, ..) = task_of(&live, process.0.id());
    // The pid no longer leads to its thread.
    let pid = kernel.object("task_struct", task).unwrap().u64("thread_pid").unwrap();
    let mut memory = Changed::new(&live.reader);
    memory.write_u64(pid + kernel.offset_of("pid", "tasks").unwrap(), 0);
    let report = live.pass(&mut only("tasks"), &memory, &live.views, &baseline, &no_journal());
    print(&report);
    assert_eq!(techniques(&report), ["task removed from the pid table"]);
    assert_eq!(report.findings[0].address, task);
}

#[test]
#[ignore = "root"]
fn a_task_on_no_list_is_found_by_its_relatives() {
    let live = Live::open();
    let processes = [Waiting::start(), Waiting::start(), Waiting::start()];
    let (task, report) = look_with_task_unlinked(&live, processes[1].0.id(), true);
    assert_eq!(techniques(&report), ["task unlinked from the task list and the pid table"]);
    assert_eq!(report.findings[0].address, task);
}

/// A program of the guard: its id, and where its `struct bpf_prog` is.
fn own_program(live: &Live) -> (u32, u64) {
    let own = live.views.own_bpf().unwrap();
    let (_, id) = own.into_iter().find(|(kind, _)| *kind == BpfKind::Program).unwrap();
    let kernel = live.kernel();
    let table = Recovered::default().data_symbol(&kernel, "prog_idr").unwrap();
    let entries = kernel.idr(table.address).unwrap();
    let (_, address) = entries.into_iter().find(|(number, _)| *number == u64::from(id)).unwrap();
    (id, address)
}

#[test]
#[ignore = "root"]
fn a_program_that_the_bpf_system_call_does_not_list_is_found() {
    let live = Live::open();
    let baseline = live.baseline(BTreeMap::new());
    let (id, address) = own_program(&live);
    let views =
        Lying { not_listed: Some((BpfKind::Program, id)), ..Lying::about_nothing(&live.views) };
    let report = live.pass(&mut only("bpf"), &live.reader, &views, &baseline, &no_journal());
    print(&report);
    assert_eq!(techniques(&report), ["BPF program hidden from the bpf system call"]);
    assert_eq!(report.findings[0].address, address);
}

/// Where the id table holds a pointer to the program.
fn slot_of(live: &Live, id: u32) -> u64 {
    let kernel = live.kernel();
    let table = Recovered::default().data_symbol(&kernel, "prog_idr").unwrap().address;
    let (slots, shift) = ("slots", kernel.offset_of("xa_node", "shift").unwrap());
    let slots = kernel.offset_of("xa_node", slots).unwrap();
    let mut node = kernel.object("idr", table).unwrap().field("idr_rt").unwrap();
    let mut entry = node.u64("xa_head").unwrap();
    let base = kernel.object("idr", table).unwrap().u64("idr_base").unwrap();
    loop {
        node = kernel.object("xa_node", entry - 2).unwrap();
        let shift = kernel.u8_at(node.address() + shift).unwrap();
        let index = ((u64::from(id) - base) >> shift) & 63;
        let slot = node.address() + slots + 8 * index;
        if shift == 0 {
            return slot;
        }
        entry = kernel.u64_at(slot).unwrap();
    }
}

#[test]
#[ignore = "root"]
fn a_program_taken_off_the_id_table_is_found_by_its_code_and_missed_by_the_guard_itself() {
    let live = Live::open();
    let baseline = live.baseline(BTreeMap::new());
    let (id, _) = own_program(&live);
    let mut memory = Changed::new(&live.reader);
    memory.write_u64(slot_of(&live, id), 0);
    let report = live.pass(&mut only("bpf"), &memory, &live.views, &baseline, &no_journal());
    print(&report);
    assert!(
        techniques(&report).iter().all(|name| *name == "BPF program removed from the id table")
    );
    assert!(
        report
            .findings
            .iter()
            .any(|finding| finding.seen.contains("among the kernel's BPF images"))
    );
    let report = live.pass(&mut only("self"), &memory, &live.views, &baseline, &no_journal());
    print(&report);
    assert_eq!(techniques(&report), ["guard's own BPF object removed"]);
}

#[test]
#[ignore = "root"]
fn a_tracepoint_function_in_nobodys_code_is_found() {
    let live = Live::open();
    let kernel = live.kernel();
    let baseline = live.baseline(BTreeMap::new());
    // An array of one function, made up in the place of some constants.
    let array = live.symbols.address_of("__start_BTF").unwrap() + 4096;
    let table = live.symbols.address_of("__start___tracepoints_ptrs").unwrap();
    let offset = kernel.u32_at(table).unwrap() as i32;
    let tracepoint = table.wrapping_add_signed(i64::from(offset));
    let funcs = tracepoint + kernel.offset_of("tracepoint", "funcs").unwrap();
    let stext = live.symbols.address_of("_stext").unwrap();
    for handler in [array + 512, stext + 0x1_0003] {
        let mut memory = Changed::new(&live.reader);
        memory.write_u64(funcs, array);
        memory.write(array, &[0; 64]);
        memory.write_u64(array, handler);
        let report = live.pass(&mut only("hooks"), &memory, &live.views, &baseline, &no_journal());
        print(&report);
        assert_eq!(techniques(&report), ["tracepoint hook to code without an owner"]);
        assert_eq!(report.findings[0].address, array);
    }
}

/// Tables of the kernel, and the address of the entry of the lowest level for an address.
fn leaf_entry(live: &Live, address: u64) -> u64 {
    let kernel = live.kernel();
    let task = kernel.object("task_struct", live.views.current_task().unwrap()).unwrap();
    let map = DirectMap::find(&live.reader, task.u64("active_mm->pgd").unwrap()).unwrap();
    let mm = Recovered::default().data_symbol(&kernel, "init_mm").unwrap().address;
    let root = kernel.object("mm_struct", mm).unwrap().u64("pgd").unwrap();
    let leaf = PageTables::new(&live.reader, root, map).translate(address).unwrap().unwrap();
    assert_eq!(leaf.page_size, 4096, "{address:#x} is in a large page");
    let levels: u32 = match map.levels {
        kernel_memory::page_tables::Levels::Four => 4,
        kernel_memory::page_tables::Levels::Five => 5,
    };
    let mut table = root;
    for level in (1..=levels).rev() {
        let slot = table + 8 * ((address >> (12 + 9 * (level - 1))) & 511);
        if level == 1 {
            return slot;
        }
        table = map.base + (kernel.u64_at(slot).unwrap() & 0x000f_ffff_ffff_f000);
    }
    unreachable!("the lowest level is level 1")
}

#[test]
#[ignore = "root"]
fn memory_made_executable_is_found() {
    let live = Live::open();
    let kernel = live.kernel();
    let baseline = live.baseline(BTreeMap::new());
    // A program's own structure is in a page of its own, which is data.
    let (_, program) = own_program(&live);
    let entry_at = leaf_entry(&live, program);
    let entry = kernel.u64_at(entry_at).unwrap();
    let mut memory = Changed::new(&live.reader);
    memory.write_u64(entry_at, (entry & !(1 << 63)) & !2);
    let mut guard = only("executable_pages");
    let report = live.pass(&mut guard, &memory, &live.views, &baseline, &no_journal());
    print(&report);
    assert_eq!(techniques(&report), ["executable memory without an owner"]);
    assert_eq!(report.findings[0].address & !4095, program & !4095);
    // And writable with it.
    memory.write_u64(entry_at, (entry & !(1 << 63)) | 2);
    let report =
        live.pass(&mut only("executable_pages"), &memory, &live.views, &baseline, &no_journal());
    let mut found = techniques(&report);
    found.sort_unstable();
    assert_eq!(found, ["executable memory without an owner", "memory writable and executable"]);
    // And leading to the memory of the text.
    let text = live.symbols.address_of("_stext").unwrap();
    let map = DirectMap::find(
        &live.reader,
        kernel
            .object("task_struct", live.views.current_task().unwrap())
            .unwrap()
            .u64("active_mm->pgd")
            .unwrap(),
    )
    .unwrap();
    let mm = Recovered::default().data_symbol(&kernel, "init_mm").unwrap().address;
    let root = kernel.object("mm_struct", mm).unwrap().u64("pgd").unwrap();
    let tables = PageTables::new(&live.reader, root, map);
    let physical = tables.translate(text).unwrap().unwrap().physical;
    memory.write_u64(entry_at, (physical & !4095) | 0x61);
    let report =
        live.pass(&mut only("executable_pages"), &memory, &live.views, &baseline, &no_journal());
    assert!(techniques(&report).contains(&"executable alias of kernel text"), "{report:?}");
}

#[test]
#[ignore = "root"]
fn code_between_bpf_images_is_found() {
    let live = Live::open();
    let kernel = live.kernel();
    let baseline = live.baseline(BTreeMap::new());
    let (_, program) = own_program(&live);
    let code = kernel.object("bpf_prog", program).unwrap().u64("bpf_func").unwrap();
    // The filler behind the last image of the pack; before it, in which others may be loaded
    // meanwhile, nothing is assumed.
    let pack = code & !0x1f_ffff;
    let bytes = kernel.bytes_at(pack, 0x20_0000).unwrap();
    assert_eq!(bytes[0x1f_ff00..], [0xcc; 256], "the pack is full");
    let mut memory = Changed::new(&live.reader);
    memory.write(pack + 0x1f_ff40, &[0x0f, 0x05, 0xc3]);
    let mut guard = only("executable_pages");
    let report = live.pass(&mut guard, &memory, &live.views, &baseline, &no_journal());
    print(&report);
    assert_eq!(techniques(&report), ["executable memory without an owner"]);
    assert_eq!(report.findings[0].address, pack + 0x1f_ff40);
    assert!(report.findings[0].seen.contains("syscall"), "{:?}", report.findings[0]);
}

#[test]
#[ignore = "root"]
fn a_setting_weaker_than_sealed_is_found_with_both_values() {
    let live = Live::open();
    let baseline = live.baseline(checks::facts(&live.kernel(), &live.views));
    let views = Lying {
        file: Some(("/proc/sys/kernel/core_pattern", "|/tmp/handler %p\n")),
        ..Lying::about_nothing(&live.views)
    };
    let report = live.pass(&mut only("settings"), &live.reader, &views, &baseline, &no_journal());
    print(&report);
    assert_eq!(techniques(&report), ["kernel starts a program from /tmp/"]);
    let views = Lying {
        file: Some(("/proc/sys/kernel/randomize_va_space", "0\n")),
        ..Lying::about_nothing(&live.views)
    };
    let report = live.pass(&mut only("settings"), &live.reader, &views, &baseline, &no_journal());
    assert_eq!(techniques(&report), ["setting weakened"]);
    let finding = &report.findings[0];
    assert!(finding.seen.ends_with("= 0") && finding.expected.contains("randomize_va_space"));
}

#[test]
#[ignore = "root"]
fn an_entry_of_proc_is_held_to_the_baseline_by_a_guard_that_never_saw_it() {
    let live = Live::open();
    let facts = checks::facts(&live.kernel(), &live.views);
    let tables_of = |path: &str| {
        let line = facts["proc.entries"].lines().find(|line| line.ends_with(&format!(" {path}")));
        let words: Vec<&str> = line.unwrap().split(' ').collect();
        [0, 2].map(|word: usize| u64::from_str_radix(words[word], 16).unwrap())
    };
    let ([entry, _], [_, others]) = (tables_of("/proc/loadavg"), tables_of("/proc/kmsg"));
    let place = entry + live.kernel().offset_of("proc_dir_entry", "proc_ops").unwrap();
    let mut memory = Changed::new(&live.reader);
    memory.write_u64(place, others);
    let look = |baseline: &guard::baseline::Baseline| {
        let mut guard = only("operations");
        let report = live.pass(&mut guard, &memory, &live.views, baseline, &no_journal());
        print(&report);
        report
    };
    let report = look(&live.baseline(facts.clone()));
    assert_eq!(techniques(&report), ["operations of an object replaced"]);
    assert_eq!(report.findings[0].address, place);
    assert!(report.findings[0].expected.contains("proc_ops of /proc/loadavg"));
    // Without that knowledge nothing is wrong with it, and the check says what it lacks.
    let report = look(&live.baseline(BTreeMap::new()));
    assert!(report.findings.is_empty());
    let reason = report.checks[0].reason.as_deref().unwrap_or_default();
    assert!(reason.contains("entries of /proc"), "{reason}");
}

#[test]
#[ignore = "root"]
fn an_event_raised_on_purpose_arrives_and_its_absence_is_found() {
    let live = Live::open();
    let baseline = live.baseline(BTreeMap::new());
    let mut source = JournalReader::open().unwrap();
    let mut journal = Journal::running(65_536);
    let mut guard = only("self");
    for _ in 0..4 {
        let report = live.pass(&mut guard, &live.reader, &live.views, &baseline, &journal);
        print(&report);
        assert!(report.findings.is_empty());
        source.drain(&mut journal);
    }
    assert!(!journal.is_doubted());
    // A journal that nothing is moved into.
    let silent = Journal::running(16);
    let mut guard = only("self");
    let (mut found, mut doubted) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let report = live.pass(&mut guard, &live.reader, &live.views, &baseline, &silent);
        found.extend(report.findings);
        doubted.push(silent.is_doubted());
    }
    // Before it is held against the kernel, whoever listens is asked whether he still can.
    assert_eq!(doubted, [false, true, false]);
    let found: Vec<&str> = found.iter().map(|finding| finding.technique.as_str()).collect();
    assert_eq!(found, ["announcements of the kernel suppressed"]);
}

#[test]
#[ignore = "root"]
fn a_pass_is_quick() {
    let live = Live::open();
    let baseline = live.baseline(checks::facts(&live.kernel(), &live.views));
    let mut source = JournalReader::open().unwrap();
    let mut journal = Journal::running(65_536);
    let checks = ["hooks", "bpf", "tasks", "settings", "executable_pages", "self"];
    let mut per_second = 0.0;
    for check in checks {
        let mut guard = only(check);
        let mut times = Vec::new();
        for _ in 0..15 {
            let report = live.pass(&mut guard, &live.reader, &live.views, &baseline, &journal);
            times.extend(report.checks.iter().map(|check| check.elapsed_us));
            source.drain(&mut journal);
        }
        let first = times.remove(0);
        times.sort_unstable();
        let median = times[times.len() / 2];
        per_second += median as f64;
        println!("{check:16} first {first:6} us, then {median:6} us");
    }
    println!("together {per_second:.0} us in each pass");
    // Ten times what was measured: a bound against something quadratic, not a benchmark.
    assert!(per_second < 50_000.0);
}
