// SPDX-License-Identifier: Apache-2.0
//! Of all that there is to be told, each deed is told of by its own events and by nothing else.
//!
//! Other tests listen to one type each and open all of its doors. Here a client hears everything, so that what
//! they could not hear would be heard: a second event of the same deed, or one of another type.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod clients;

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::ptr;
use std::time::Duration;

use clients::births;
use clients::deeds::{
    LENGTH, LOOKERS, Program, RINGS, Subject, attached, called_in_child, execute, forked, memfd,
    program_in_memory,
};
use clients::listener::{EXEC as PROT_EXEC, Memory, READ, WRITE, some_file};
use clients::record::Record;
use clients::senders::SENDERS;
use clients::{Client, EXEC, EXIT, FORK, LARGE, Loaded, Programs, SIGNAL, THREAD};
use probes::events::{EventType, Mechanism};

const TRACE: EventType = EventType::PROCESS_TRACE;
const CREDENTIALS: EventType = EventType::PROCESS_CREDENTIALS;
const IMAGE: EventType = EventType::IMAGE_MAP;
const MODULE: EventType = EventType::MODULE_LOAD;
const BPF: EventType = EventType::BPF_LOAD;
const KEXEC: EventType = EventType::KEXEC_LOAD;
const MAP: EventType = EventType::MEMORY_MAP;
const PROTECT: EventType = EventType::MEMORY_PROTECT;
const ACCESS: EventType = EventType::MEMORY_ACCESS;
const FILELESS: EventType = EventType::MEMORY_FILELESS;
const OPEN: EventType = EventType::FILE_OPEN;
const MODIFY: EventType = EventType::FILE_MODIFY;

/// A client that is told of everything.
struct All {
    client: Client,
    /// What it can be told of.
    told: u64,
    /// What was told of a deed that should not have been, or was not.
    wrong: Vec<String>,
    hooks: Loaded,
}

impl All {
    /// None where LSM programs are refused: what tells of calls there is tried in calls.rs.
    fn admit() -> Option<Self> {
        let mut hooks = Loaded::of(EventType::set_of(EventType::all()));
        let coverage = hooks.coverage();
        let lsm = coverage.iter().find(|one| one.kind == IMAGE).unwrap();
        if lsm.notify != Ok(Mechanism::Lsm) {
            eprintln!("not looked for: {:?}", lsm.deny);
            return None;
        }
        let told = coverage.iter().filter(|one| one.notify.is_ok()).map(|one| one.kind);
        let told: Vec<_> = told.collect();
        let client = Client::admit(&mut hooks, 5, LARGE, &told);
        Some(Self { client, told: EventType::set_of(told), wrong: Vec::new(), hooks })
    }

    /// Does something, and takes what is told of meanwhile.
    fn told_of<T>(&mut self, act: impl FnOnce() -> T) -> T {
        self.client.take();
        self.client.seen.clear();
        let done = act();
        self.client.take();
        let _ = &self.hooks;
        done
    }

    /// Compares what was told of a process.
    fn compare(&mut self, what: &str, pid: u32, wanted: &[EventType]) {
        let kinds = |client: &Client| -> Vec<_> {
            let mut kinds: Vec<_> = client.of(pid).into_iter().map(Record::kind).collect();
            kinds.sort_unstable();
            kinds
        };
        let wanted = wanted.iter().filter(|kind| self.told & kind.bit() != 0);
        let mut wanted: Vec<_> = wanted.map(|kind| kind.number()).collect();
        wanted.sort_unstable();
        if kinds(&self.client) != wanted {
            // What another processor has a place for and has not written yet ends what can be read.
            std::thread::sleep(Duration::from_millis(20));
            self.client.take();
        }
        let told = kinds(&self.client);
        if told != wanted {
            self.wrong.push(format!("{what}: told {told:?} of {pid}, wanted {wanted:?}"));
        }
    }

    /// This process does something, and is told of by these events.
    fn deed<T>(&mut self, what: &str, wanted: &[EventType], act: impl FnOnce() -> T) -> T {
        let done = self.told_of(act);
        self.compare(what, std::process::id(), wanted);
        done
    }

    /// A child that this process makes, and whose end it waits for, does something; each is told of by its events.
    fn child(&mut self, what: &str, wanted: &[EventType], act: impl FnOnce() -> u32) {
        let child = self.told_of(act);
        self.compare(&format!("{what}, who made it"), std::process::id(), &[FORK]);
        // SIGCHLD is a signal too.
        self.compare(what, child, &[wanted, &[EXIT, SIGNAL]].concat());
    }
}

#[test]
#[ignore = "root: loads LSM programs, which the lab's kernels take"]
fn each_deed_is_told_of_by_its_own_events_and_by_nothing_else() {
    let programs = Programs::new();
    let (path, file) = some_file(&programs);
    let subject = Subject::start_of(&programs.copy("sleep"));
    let Some(mut all) = All::admit() else { return };
    memory(&mut all, &file);
    files(&mut all, &path);
    others(&mut all, &subject);
    processes(&mut all, &programs);
    let nothing: [(&str, &dyn Fn()); 5] = [
        ("stat", &|| assert!(fs::metadata(&path).is_ok())),
        ("pipe", &|| drop(rustix::pipe::pipe().unwrap())),
        ("dup", &|| drop(file.try_clone().unwrap())),
        ("a socket", &|| drop(std::os::unix::net::UnixDatagram::unbound().unwrap())),
        ("sleep", &|| std::thread::sleep(Duration::from_millis(1))),
    ];
    for (what, act) in nothing {
        all.deed(what, &[], act);
    }
    // What is open for writing cannot be loaded.
    drop(file);
    kernel(&mut all, &path);
    assert!(all.wrong.is_empty(), "{:#?}", all.wrong);
}

fn memory(all: &mut All, file: &File) {
    let (private, file) = (libc::MAP_PRIVATE, file.as_raw_fd());
    let map = |protection| move || Memory::map(protection, private, file);
    drop(all.deed("mmap of a file, readable", &[], map(READ)));
    drop(all.deed("mmap of a file, executable", &[IMAGE], map(READ | PROT_EXEC)));
    let both = READ | WRITE | PROT_EXEC;
    drop(all.deed("mmap of a file, writable and executable", &[IMAGE, MAP], map(both)));
    let anonymous = || Memory::anonymous(READ | PROT_EXEC);
    drop(all.deed("mmap of executable memory", &[MAP], anonymous));
    let memory = all.deed("mmap of memory", &[], || Memory::anonymous(READ | WRITE));
    all.deed("mprotect of memory", &[PROTECT], || memory.protect(READ | PROT_EXEC));
    all.deed("mprotect of executable memory", &[], || memory.protect(READ));
    all.deed("munmap", &[], || drop(memory));
    let image = Memory::map(READ, private, file);
    all.deed("mprotect of a file", &[IMAGE, PROTECT], || image.protect(READ | PROT_EXEC));
    let nameless = memfd("image", &[0; LENGTH]);
    let file = nameless.as_raw_fd();
    let map = || Memory::map(READ | PROT_EXEC, private, file);
    drop(all.deed("mmap of a memfd", &[IMAGE, FILELESS], map));
    let image = Memory::map(READ, private, file);
    let wanted = [IMAGE, PROTECT, FILELESS];
    all.deed("mprotect of a memfd", &wanted, || image.protect(READ | PROT_EXEC));
    drop(image);
    all.deed("the end of a memfd", &[MODIFY], || drop(nameless));
    // Shared memory is a file for the kernel: of the mapping, and of what is shared.
    let wanted = [IMAGE, MAP, FILELESS, MODIFY, MODIFY];
    all.deed("shmat", &wanted, || assert_eq!(attached(), 0));
}

fn files(all: &mut All, path: &std::path::Path) {
    let text = path.to_str().unwrap();
    let file = all.deed("open for reading", &[OPEN], || File::open(path).unwrap());
    all.deed("close after reading", &[], || drop(file));
    for (how, open) in RINGS {
        all.deed(how, &[OPEN], || assert_eq!(open(text), 0));
    }
    let mut options = File::options();
    let file = all.deed("open for writing", &[OPEN], || options.write(true).open(path).unwrap());
    all.deed("ftruncate", &[], || file.set_len(LENGTH as u64).unwrap());
    all.deed("close after writing", &[MODIFY], || drop(file));
    let name = std::ffi::CString::new(text).unwrap();
    // SAFETY: a path that ends.
    let truncate = || assert_eq!(unsafe { libc::truncate(name.as_ptr(), 100) }, 0);
    all.deed("truncate", &[MODIFY], truncate);
}

fn others(all: &mut All, subject: &Subject) {
    let pidfd = subject.pidfd();
    all.deed("PTRACE_SEIZE", &[TRACE, ACCESS], || assert_eq!(subject.seize(), 0));
    // Which stops it by a signal.
    let attach = || assert_eq!(subject.attach(), 0);
    all.deed("PTRACE_ATTACH", &[TRACE, ACCESS, SIGNAL], attach);
    let mem = || drop(File::open(subject.proc("mem")).unwrap());
    all.deed("/proc/PID/mem", &[OPEN, TRACE, ACCESS], mem);
    let environ = || drop(fs::read(subject.proc("environ")).unwrap());
    all.deed("/proc/PID/environ", &[OPEN, TRACE], environ);
    let comm = || drop(fs::read(subject.proc("comm")).unwrap());
    all.deed("/proc/PID/comm", &[OPEN], comm);
    for call in [libc::SYS_process_vm_readv, libc::SYS_process_vm_writev] {
        all.deed("process_vm_readv or writev", &[TRACE, ACCESS], || subject.vm(call));
    }
    all.deed("process_madvise", &[TRACE, ACCESS], || subject.advise(&pidfd));
    all.deed("pidfd_open", &[], || drop(subject.pidfd()));
    all.deed("pidfd_getfd", &[TRACE], || assert!(subject.get_fd(&pidfd) >= 0));
    for (door, call) in LOOKERS {
        all.deed(door, &[TRACE], || assert_ne!(call(subject, &pidfd), -1, "{door}"));
    }
    for sender in &SENDERS {
        let send = || assert_eq!(sender.send(subject, &pidfd, libc::SIGURG), 0);
        all.deed(sender.door, &[SIGNAL], send);
    }
}

fn processes(all: &mut All, programs: &Programs) {
    all.child("fork", &[], births::fork);
    all.child("vfork", &[], births::vfork);
    all.child("clone", &[], births::clone);
    all.child("clone3", &[], births::clone3);
    all.deed("clone with CLONE_THREAD", &[THREAD], births::clone_thread);
    all.deed("clone3 with CLONE_THREAD", &[THREAD], births::clone3_thread);
    let nobody = [65534, 0, 0];
    all.child("setuid", &[CREDENTIALS], || called_in_child(&[(libc::SYS_setuid, nobody)]));
    let namespace = libc::CLONE_NEWUSER as u32;
    all.child("unshare", &[], || called_in_child(&[(libc::SYS_unshare, [namespace, 0, 0])]));
    // A program that links nothing: what the loader would open and map is of its own doing.
    let program = File::open(programs.copy("busybox")).unwrap();
    let run = |file: &File| {
        let (pid, failed) = execute(file.as_raw_fd());
        assert_eq!(failed, 0);
        pid
    };
    all.child("execveat", &[EXEC, OPEN, IMAGE], || run(&program));
    let program = program_in_memory("program");
    let wanted = [EXEC, OPEN, IMAGE, FILELESS, FILELESS];
    all.child("execveat of a memfd", &wanted, || run(&program));
    all.child("exit_group", &[], || forked(|| 3).0);
}

fn kernel(all: &mut All, path: &std::path::Path) {
    let program = Program::new(b"of_tests");
    all.deed("bpf, BPF_PROG_LOAD", &[BPF], || assert_eq!(program.load(), 0));
    let file = File::open(path).unwrap();
    let (file, bytes, none) = (file.as_raw_fd(), [0_u8; LENGTH], c"");
    // None of these is loaded: what the file holds is no module and no kernel.
    // SAFETY: descriptors and bytes of ours, and strings that end.
    all.deed("finit_module", &[MODULE], || unsafe {
        assert_eq!(libc::syscall(libc::SYS_finit_module, file, none.as_ptr(), 0), -1);
    });
    // SAFETY: as above.
    all.deed("init_module", &[MODULE], || unsafe {
        let (bytes, none) = (bytes.as_ptr(), none.as_ptr());
        assert_eq!(libc::syscall(libc::SYS_init_module, bytes, LENGTH, none), -1);
    });
    // SAFETY: as above; without an initramfs and a command line.
    all.deed("kexec_file_load", &[KEXEC], || unsafe {
        assert_eq!(libc::syscall(libc::SYS_kexec_file_load, file, -1, 1, none.as_ptr(), 4), -1);
    });
    // SAFETY: of no segments, which unloads what is not there.
    all.deed("kexec_load", &[KEXEC], || unsafe {
        libc::syscall(libc::SYS_kexec_load, 0, 0, ptr::null::<u8>(), 0)
    });
}
