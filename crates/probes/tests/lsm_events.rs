// SPDX-License-Identifier: Apache-2.0
//! Events of LSM hooks: each is told of by each of its doors and by nothing else.
//!
//! What is heard is only what this process and its children do. Where the kernel takes no LSM programs
//! there is nothing to be heard, and what must hold is that this is said with the reason.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod clients;

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::ptr;

use clients::deeds::{LENGTH, Subject, attached, other_kernel, own_kernel, program_in_memory};
use clients::listener::{EXEC, Listener, Memory, READ, WRITE, some_file};
use clients::record::Record;
use clients::{Client, LARGE, Loaded, Programs, door_of, run};
use probes::events::EventType;

#[test]
#[ignore = "root: loads LSM programs, which the lab's kernels take"]
fn a_file_becomes_an_image_by_mmap_by_mprotect_and_by_shmat() {
    let Some(mut listener) = Listener::to(EventType::IMAGE_MAP, "ringfence_image_map") else {
        return;
    };
    let programs = Programs::new();
    let (path, file) = some_file(&programs);
    let file = file.as_raw_fd();
    let private = libc::MAP_PRIVATE;
    let (record, _memory) = listener.hear_one(|| Memory::map(READ | EXEC, private, file));
    assert_eq!(listener.text(&record, "file.path"), path.to_str().unwrap());
    assert_eq!(listener.number(&record, "protection"), (READ | EXEC) as u64);
    assert_eq!(listener.number(&record, "flags") & 0xf, private as u64);
    assert_eq!(record.header("flags") & 1, 1, "mandatory");
    listener.door("mmap");

    let memory = listener.hear_nothing(|| Memory::map(READ | WRITE, private, file));
    let (record, ()) = listener.hear_one(|| memory.protect(READ | EXEC));
    assert_eq!(listener.text(&record, "file.path"), path.to_str().unwrap());
    assert_eq!(listener.number(&record, "address"), memory.0 as u64);
    assert_eq!(listener.number(&record, "length"), LENGTH as u64);
    listener.door("mprotect");
    listener.hear_nothing(|| memory.protect(EXEC));
    listener.hear_nothing(|| memory.protect(READ));

    let (record, ()) = listener.hear_one(|| assert_eq!(attached(), 0));
    assert!(listener.text(&record, "file.path").starts_with("/SYSV"));
    listener.door("shmat");
    listener.hear_nothing(|| Memory::anonymous(READ | EXEC));
}

#[test]
#[ignore = "root: loads LSM programs, which the lab's kernels take"]
fn a_program_and_its_loader_are_images_by_exec_and_by_ld_so_run_by_hand() {
    let Some(mut listener) = Listener::to(EventType::IMAGE_MAP, "ringfence_image_map") else {
        return;
    };
    let own = std::env::current_exe().unwrap();
    let nothing = ["--exact", "no such test"];
    let images = |listener: &mut Listener, program: &Path, arguments: &[&str]| {
        let (_, pid) = listener.hear(|| run(program, arguments));
        let of = listener.client.of(pid);
        let paths = of.into_iter().map(|r| r.text("ringfence_image_map.file.path"));
        paths.collect::<Vec<String>>()
    };
    let by_exec = images(&mut listener, &own, &nothing);
    let is_own = |path: &String| path == own.to_str().unwrap();
    let loader = by_exec.iter().find(|path| path.contains("/ld-linux")).expect("its loader");
    assert!(by_exec.iter().any(is_own), "{by_exec:?}");
    assert!(by_exec.iter().any(|path| path.contains("/libc.so")), "{by_exec:?}");
    listener.door("exec: the program, its loader and libraries");
    let arguments = [own.to_str().unwrap(), nothing[0], nothing[1]];
    let by_hand = images(&mut listener, Path::new(loader), &arguments);
    assert!(by_hand.iter().any(is_own), "{by_hand:?}");
    listener.door("ld.so run by hand");
}

#[test]
#[ignore = "root: loads LSM programs, which the lab's kernels take"]
fn executable_memory_without_a_file_is_told_of_and_what_is_writable_and_executable() {
    let Some(mut listener) = Listener::to(EventType::MEMORY_MAP, "ringfence_memory_map") else {
        return;
    };
    let programs = Programs::new();
    let (path, file) = some_file(&programs);
    let file = file.as_raw_fd();
    let (record, _) = listener.hear_one(|| Memory::anonymous(READ | EXEC));
    assert_eq!(listener.number(&record, "protection"), (READ | EXEC) as u64);
    assert_eq!(listener.number(&record, "file.inode"), 0);
    let shared = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    listener.hear_one(|| Memory::map(READ | EXEC, shared, -1));
    listener.door("mmap of anonymous memory");
    listener.hear_nothing(|| Memory::anonymous(READ | WRITE));
    listener.hear_nothing(|| Memory::map(READ | EXEC, libc::MAP_PRIVATE, file));
    let (record, _) =
        listener.hear_one(|| Memory::map(READ | WRITE | EXEC, libc::MAP_PRIVATE, file));
    assert_eq!(listener.text(&record, "file.path"), path.to_str().unwrap());
    listener.door("mmap of a file writable and executable");
}

#[test]
#[ignore = "root: loads LSM programs, which the lab's kernels take"]
fn memory_that_becomes_executable_is_told_of_with_what_it_was() {
    let kind = EventType::MEMORY_PROTECT;
    let Some(mut listener) = Listener::to(kind, "ringfence_memory_protect") else { return };
    let memory = Memory::anonymous(READ | WRITE);
    let (record, ()) = listener.hear_one(|| memory.protect(READ | EXEC));
    let change = |listener: &Listener, record: &Record| {
        (listener.number(record, "before") as i32, listener.number(record, "after") as i32)
    };
    listener.door("mprotect");
    assert_eq!(change(&listener, &record), (READ | WRITE, READ | EXEC));
    assert_eq!(listener.number(&record, "address"), memory.0 as u64);
    assert_eq!(listener.number(&record, "length"), LENGTH as u64);
    assert_eq!(listener.number(&record, "file.inode"), 0);
    let (record, ()) = listener.hear_one(|| memory.protect(READ | WRITE | EXEC));
    assert_eq!(change(&listener, &record), (READ | EXEC, READ | WRITE | EXEC));
    listener.hear_nothing(|| memory.protect(READ | EXEC));
    listener.hear_nothing(|| memory.protect(READ | WRITE));
    // The other door.
    let (record, done) = listener.hear_one(|| memory.protect_by_key(READ | EXEC));
    assert_eq!(done, 0);
    assert_eq!(change(&listener, &record), (READ | WRITE, READ | EXEC));
    listener.door("pkey_mprotect");
}

#[test]
#[ignore = "root: loads LSM programs, which the lab's kernels take"]
fn files_without_a_name_are_told_of_when_they_are_executed_or_mapped() {
    let kind = EventType::MEMORY_FILELESS;
    let Some(mut listener) = Listener::to(kind, "ringfence_memory_fileless") else { return };
    let programs = Programs::new();
    let (path, file) = some_file(&programs);
    let descriptor = file.as_raw_fd();
    listener.hear_nothing(|| Memory::map(READ | EXEC, libc::MAP_PRIVATE, descriptor));
    fs::remove_file(&path).unwrap();
    let (record, _) = listener.hear_one(|| Memory::map(READ | EXEC, libc::MAP_PRIVATE, descriptor));
    assert_eq!(listener.number(&record, "how"), 2);
    assert_eq!(listener.text(&record, "file.path"), path.to_str().unwrap());
    listener.door("mmap of a deleted file");
    let memory = listener.hear_nothing(|| Memory::map(READ | WRITE, libc::MAP_PRIVATE, descriptor));
    let (record, ()) = listener.hear_one(|| memory.protect(READ | EXEC));
    assert_eq!(listener.number(&record, "how"), 2);
    listener.door("mprotect of a deleted file");

    let memory = program_in_memory("program");
    let program = format!("/proc/self/fd/{}", memory.as_raw_fd());
    let (_, pid) = listener.hear(|| run(Path::new(&program), &[]));
    let of = listener.client.of(pid);
    let exec = of.iter().find(|r| listener.number(r, "how") == 1).expect("its exec");
    assert_eq!(listener.number(exec, "file.flags") & 3, 1, "a memfd");
    assert_eq!(listener.text(exec, "file.path"), "/memfd:program");
    listener.door("exec of a memfd");
    listener.hear_nothing(|| run(&programs.copy("true"), &[]));
}

#[test]
#[ignore = "root: loads LSM programs, which the lab's kernels take"]
fn who_looks_into_a_process_or_takes_hold_of_it_is_told_of() {
    let (look, hold, me) = (1, 2, 3);
    let kind = EventType::PROCESS_TRACE;
    let Some(mut listener) = Listener::to(kind, "ringfence_process_trace") else { return };
    let subject = Subject::start();
    listener.hear_of(&subject, &[("access", hold)], || assert_eq!(subject.seize(), 0));
    listener.door("PTRACE_SEIZE");
    listener.hear_of(&subject, &[("access", look)], || {
        fs::read(subject.proc("environ")).unwrap();
    });
    listener.door("/proc/PID/environ and its like");
    listener.hear_of(&subject, &[("access", look)], || {
        fs::read_link(subject.proc("exe")).unwrap();
    });
    listener.door("/proc/PID/exe and its like");
    listener.hear_of(&subject, &[("access", hold)], || {
        File::open(subject.proc("mem")).unwrap();
    });
    listener.door("/proc/PID/mem");
    for (door, call) in [
        ("process_vm_readv", libc::SYS_process_vm_readv),
        ("process_vm_writev", libc::SYS_process_vm_writev),
    ] {
        listener.hear_of(&subject, &[("access", hold)], || {
            subject.vm(call);
        });
        listener.door(door);
    }
    let pidfd = subject.pidfd();
    listener.hear_of(&subject, &[("access", hold)], || assert!(subject.get_fd(&pidfd) >= 0));
    listener.door("pidfd_getfd");
    listener.hear_nothing(|| fs::read("/proc/self/environ").unwrap());
    listener.hear_nothing(|| fs::read(subject.proc("comm")).unwrap());

    // A child that has itself traced: it is the actor, and we are the target.
    let mut child = Command::new("/bin/true");
    // SAFETY: one system call, between fork and exec.
    unsafe {
        child.pre_exec(|| {
            libc::ptrace(libc::PTRACE_TRACEME);
            Ok(())
        })
    };
    let (_, pid) = listener.hear(|| {
        let mut child = child.spawn().unwrap();
        // SAFETY: our child stops at its exec, and is let go.
        unsafe {
            let (pid, none) = (child.id() as i32, ptr::null_mut::<libc::c_void>());
            libc::waitpid(pid, ptr::null_mut(), 0);
            libc::ptrace(libc::PTRACE_DETACH, pid, none, none);
        }
        child.wait().unwrap();
        child.id()
    });
    let of = listener.client.of(pid);
    let record = of.iter().find(|r| listener.number(r, "access") == me).expect("told of");
    assert_eq!(listener.number(record, "target.pid"), u64::from(std::process::id()));
    listener.door("PTRACE_TRACEME");
}

#[test]
#[ignore = "root: loads LSM programs, which the lab's kernels take"]
fn the_memory_of_another_process_is_reached_by_four_ways_that_are_told_apart() {
    let kind = EventType::MEMORY_ACCESS;
    let Some(mut listener) = Listener::to(kind, "ringfence_memory_access") else { return };
    let subject = Subject::start();
    let (read, write, either) = (1, 2, 3);
    let [by_ptrace, by_mem, by_vm, by_madvise] = [1, 2, 3, 4];
    listener.hear_of(&subject, &[("access", either), ("by", by_ptrace)], || {
        assert_eq!(subject.seize(), 0)
    });
    listener.door("PTRACE_SEIZE");
    listener.hear_of(&subject, &[("access", either), ("by", by_mem)], || {
        File::open(subject.proc("mem")).unwrap();
    });
    listener.door("/proc/PID/mem");
    listener.hear_of(&subject, &[("access", read), ("by", by_vm)], || {
        subject.vm(libc::SYS_process_vm_readv);
    });
    listener.door("process_vm_readv");
    listener.hear_of(&subject, &[("access", write), ("by", by_vm)], || {
        subject.vm(libc::SYS_process_vm_writev);
    });
    listener.door("process_vm_writev");
    let pidfd = subject.pidfd();
    listener.hear_of(&subject, &[("access", write), ("by", by_madvise)], || {
        subject.advise(&pidfd);
    });
    listener.door("process_madvise");
    listener.hear_nothing(|| subject.get_fd(&pidfd));
    listener.hear_nothing(|| fs::read(subject.proc("environ")).unwrap());
    // Asks for as much as /proc/PID/mem, and reaches no memory.
    let _ = listener.hear_nothing(|| fs::read(subject.proc("syscall")));
}

/// Of a child's records of credentials: by what, and the effective user id then.
fn changes(listener: &Listener, pid: u32) -> Vec<(u64, u64)> {
    let of = listener.client.of(pid);
    of.iter().map(|r| (listener.number(r, "by"), listener.number(r, "euid"))).collect()
}

#[test]
#[ignore = "root: loads LSM programs, which the lab's kernels take"]
fn credentials_that_change_are_told_of_with_what_they_were_and_will_be() {
    let [setuid, setgid, capset, exec] = [1, 2, 3, 4];
    let kind = EventType::PROCESS_CREDENTIALS;
    let Some(mut listener) = Listener::to(kind, "ringfence_process_credentials") else { return };
    let programs = Programs::new();
    fs::set_permissions(programs.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = programs.copy("true");
    let as_nobody = |program: &Path| {
        let mut child = Command::new(program);
        let mut child = child.uid(65534).gid(65534).spawn().unwrap();
        child.wait().unwrap();
        child.id()
    };
    let (_, pid) = listener.hear(|| as_nobody(&program));
    assert_eq!(changes(&listener, pid), [(setgid, 0), (setuid, 65534)]);
    let of = listener.client.of(pid);
    assert_eq!((of[1].actor("euid"), listener.number(of[1], "egid")), (0, 65534));
    assert_ne!(of[1].actor("effective"), 0);
    assert_eq!(listener.number(of[1], "effective"), 0);

    // A program that is many gives back at once what it does not need.
    let told = |listener: &Listener, pid: u32, euid: u64| {
        let changes = changes(listener, pid);
        let expected = [(setgid, 0), (setuid, 65534), (exec, euid)];
        assert!(changes.starts_with(&expected), "{changes:?}");
        listener.client.of(pid)[2].clone()
    };
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).unwrap();
    let (_, pid) = listener.hear(|| as_nobody(&program));
    told(&listener, pid, 0);
    listener.door("exec of a set-user-id program");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o2755)).unwrap();
    let (_, pid) = listener.hear(|| as_nobody(&program));
    let record = told(&listener, pid, 65534);
    assert_eq!((record.actor("egid"), listener.number(&record, "egid")), (65534, 0));
    listener.door("exec of a set-group-id program");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    // struct vfs_cap_data, include/uapi/linux/capability.h: revision 2 and effective, then the lower words of
    // permitted (CAP_SYS_TIME) and inheritable, and the upper ones.
    let data = [0x0200_0001, 1 << 25, 0, 0, 0].map(u32::to_le_bytes);
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(&program, "security.capability", data.as_flattened(), flags).unwrap();
    let (_, pid) = listener.hear(|| as_nobody(&program));
    let record = told(&listener, pid, 65534);
    assert_eq!((record.actor("effective"), listener.number(&record, "effective")), (0, 1 << 25));
    listener.door("exec of a program with capabilities");

    // Who is what he asks to be changes nothing.
    // SAFETY: plain system calls.
    listener.hear_nothing(|| unsafe { libc::setresuid(0, 0, 0) });
    // SAFETY: the structures of capget(2), version 3: two words, and three times two words.
    let (record, ()) = listener.hear_one(|| unsafe {
        let mut header = [0x2008_0522_u32, 0];
        let mut sets = [0_u32; 6];
        assert_eq!(libc::syscall(libc::SYS_capget, header.as_mut_ptr(), sets.as_mut_ptr()), 0);
        // CAP_SYS_TIME, of the effective ones of this thread.
        sets[0] &= !(1 << 25);
        assert_eq!(libc::syscall(libc::SYS_capset, header.as_mut_ptr(), sets.as_mut_ptr()), 0);
    });
    assert_eq!(listener.number(&record, "by"), capset);
    let gone = record.actor("effective") & !listener.number(&record, "effective");
    assert_eq!(gone, 1 << 25);
    listener.door("capset");
}

#[test]
#[ignore = "root: loads LSM programs, which the lab's kernels take"]
fn a_bpf_program_that_is_loaded_is_told_of_with_its_name_and_a_map_is_not() {
    let Some(mut listener) = Listener::to(EventType::BPF_LOAD, "ringfence_bpf_load") else {
        return;
    };
    listener.hear_of_programs_and_not_of_maps();
    listener.door("bpf, BPF_PROG_LOAD");
}

#[test]
#[ignore = "root: loads LSM programs, which the lab's kernels take"]
fn a_module_or_another_kernel_is_told_of_from_a_file_and_from_memory() {
    let programs = Programs::new();
    let (path, file) = some_file(&programs);
    // What is open for writing cannot be loaded.
    drop(file);
    let file = File::open(&path).unwrap();
    let (file, bytes) = (file.as_raw_fd(), [0_u8; LENGTH]);
    let none = c"";
    // None of these is loaded: what the file holds is no module and no kernel. The hook is passed before
    // that is found out.
    for (kind, part, from_file, from_memory) in [
        (
            EventType::MODULE_LOAD,
            "ringfence_module_load",
            libc::SYS_finit_module,
            libc::SYS_init_module,
        ),
        (
            EventType::KEXEC_LOAD,
            "ringfence_kernel_load",
            libc::SYS_kexec_file_load,
            libc::SYS_kexec_load,
        ),
    ] {
        let Some(mut listener) = Listener::to(kind, part) else { continue };
        // SAFETY: descriptors and bytes of ours; kexec without an initramfs and a command line.
        let (record, done) = listener.hear_one(|| unsafe {
            if kind == EventType::MODULE_LOAD {
                libc::syscall(from_file, file, none.as_ptr(), 0)
            } else {
                libc::syscall(from_file, file, -1, 1, none.as_ptr(), 4)
            }
        });
        assert_eq!(done, -1);
        assert_eq!(listener.number(&record, "from"), 1, "{}", kind.name());
        assert_eq!(listener.text(&record, "file.path"), path.to_str().unwrap());
        let module = kind == EventType::MODULE_LOAD;
        let name = if module { "library" } else { "" };
        assert_eq!(listener.text(&record, "name"), name, "{}", kind.name());
        listener.door(if module { "finit_module" } else { "kexec_file_load" });
        if module {
            // MODULE_INIT_COMPRESSED_FILE; whether this kernel unpacks any is found out later.
            // SAFETY: as above.
            let (record, done) =
                listener.hear_one(|| unsafe { libc::syscall(from_file, file, none.as_ptr(), 4) });
            assert_eq!((done, listener.number(&record, "from")), (-1, 1));
            listener.door("finit_module of a compressed file");
        }
        // SAFETY: as above; kexec of no segments unloads what is not there.
        let (record, _) = listener.hear_one(|| unsafe {
            if kind == EventType::MODULE_LOAD {
                libc::syscall(from_memory, bytes.as_ptr(), LENGTH, none.as_ptr())
            } else {
                libc::syscall(from_memory, 0, 0, ptr::null::<u8>(), 0)
            }
        });
        assert_eq!(listener.number(&record, "from"), 2, "{}", kind.name());
        assert_eq!(listener.number(&record, "file.inode"), 0);
        listener.door(if module { "init_module" } else { "kexec_load" });
        listener.hear_nothing(|| fs::read(&path).unwrap());
    }
}

#[test]
#[ignore = "root: loads LSM programs, which the lab's kernels take"]
fn the_initramfs_of_another_kernel_is_told_of_beside_it() {
    let kind = EventType::KEXEC_LOAD;
    let Some(mut listener) = Listener::to(kind, "ringfence_kernel_load") else { return };
    let Some(kernel) = own_kernel() else { return };
    let programs = Programs::new();
    let (initramfs, file) = some_file(&programs);
    drop(file);
    let (heard, failed) = listener.hear(|| other_kernel(&kernel, &initramfs));
    assert_eq!(failed, 0);
    let told = heard
        .iter()
        .map(|record| (listener.text(record, "file.path"), listener.number(record, "from")));
    let wanted = [&kernel, &initramfs].map(|path| (path.to_str().unwrap().to_owned(), 1));
    assert_eq!(told.collect::<Vec<_>>(), wanted);
    listener.door("kexec_file_load, the initramfs");
}

#[test]
#[ignore = "root: unloads the module that RINGFENCE_MODULE names"]
fn a_module_that_goes_is_told_of_with_its_name() {
    let Ok(module) = std::env::var("RINGFENCE_MODULE") else {
        eprintln!("not looked for: RINGFENCE_MODULE names no module");
        return;
    };
    let kind = EventType::MODULE_UNLOAD;
    let mut hooks = Loaded::of(kind.bit());
    let mut client = Client::admit(&mut hooks, 0, LARGE, &[kind]);
    let name = std::ffi::CString::new(module.clone()).unwrap();
    // SAFETY: a plain system call with a string.
    assert_eq!(unsafe { libc::syscall(libc::SYS_delete_module, name.as_ptr(), 0) }, 0);
    client.read_until(|r| r.text("ringfence_module_unload.name") == module);
    door_of("notify", EventType::MODULE_UNLOAD, "delete_module");
}
