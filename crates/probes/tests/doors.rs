// SPDX-License-Identifier: Apache-2.0
//! Doors that are easily forgotten: each leads to the event that it should, once, and to no other.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod clients;

use std::fs::{self, File};
use std::mem::ManuallyDrop;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use clients::deeds::{LENGTH, Subject, execute, memfd, opened_by_io_uring, program_in_memory};
use clients::listener::{EXEC, Listener, Memory, READ, some_file};
use clients::{Programs, run};
use probes::events::EventType;

const MEMFD: u64 = 1;
const DELETED: u64 = 2;

#[test]
#[ignore = "root: loads LSM programs, which the lab's kernels take"]
fn a_memfd_and_a_deleted_file_become_images_and_a_mapping_that_moves_is_none() {
    let Some(mut listener) = Listener::to(EventType::IMAGE_MAP, "ringfence_image_map") else {
        return;
    };
    let file = memfd("image", &[0; LENGTH]);
    let map = |file: &File| Memory::map(READ | EXEC, libc::MAP_PRIVATE, file.as_raw_fd());
    let (record, _memory) = listener.hear_one(|| map(&file));
    assert_eq!(listener.text(&record, "file.path"), "/memfd:image");
    assert_eq!(listener.number(&record, "file.flags") & (MEMFD | DELETED), MEMFD);
    listener.door("mmap of a memfd");

    let programs = Programs::new();
    let (path, file) = some_file(&programs);
    fs::remove_file(&path).unwrap();
    let (record, memory) = listener.hear_one(|| map(&file));
    assert_eq!(listener.text(&record, "file.path"), path.to_str().unwrap());
    assert_eq!(listener.number(&record, "file.flags") & (MEMFD | DELETED), DELETED);
    listener.door("mmap of a deleted file");

    let memory = ManuallyDrop::new(memory);
    // SAFETY: our own mapping, which nobody looks into; it is given back at its new place.
    listener.hear_nothing(|| unsafe {
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_DONTUNMAP;
        let moved = libc::mremap(memory.0, LENGTH, LENGTH, flags);
        if moved != libc::MAP_FAILED {
            libc::munmap(moved, LENGTH);
        }
        let grown = libc::mremap(memory.0, LENGTH, 2 * LENGTH, libc::MREMAP_MAYMOVE);
        assert_ne!(grown, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        libc::munmap(grown, 2 * LENGTH);
    });
    println!(
        "door: notify image_map mremap of an image: nothing new becomes code, nothing is told"
    );
}

#[test]
#[ignore = "root: loads LSM programs, which the lab's kernels take"]
fn a_program_without_a_name_is_fileless_by_execveat_and_a_script_is_not() {
    let kind = EventType::MEMORY_FILELESS;
    let Some(mut listener) = Listener::to(kind, "ringfence_memory_fileless") else { return };
    let by_exec = |listener: &Listener, pid: u32| {
        let of = listener.client.of(pid);
        of.iter().filter(|record| listener.number(record, "how") == 1).count()
    };
    let program = program_in_memory("program");
    let (_, (pid, failed)) = listener.hear(|| execute(program.as_raw_fd()));
    assert_eq!(failed, 0);
    assert_eq!(by_exec(&listener, pid), 1);
    listener.door("execveat of a memfd");

    let programs = Programs::new();
    let (_, program) = programs.deleted("true");
    let (_, (pid, failed)) = listener.hear(|| execute(program.as_raw_fd()));
    assert_eq!(failed, 0);
    assert_eq!(by_exec(&listener, pid), 1);
    listener.door("execveat of a deleted file");

    let script = programs.path().join("script");
    fs::write(&script, "#!/bin/sh\nexit 0\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let (_, pid) = listener.hear(|| run(&script, &[]));
    assert_eq!(by_exec(&listener, pid), 0);
    let (_, pid) = listener.hear(|| run(Path::new("/bin/sh"), &[script.to_str().unwrap()]));
    assert_eq!(by_exec(&listener, pid), 0);
}

#[test]
#[ignore = "root: loads LSM programs, which the lab's kernels take"]
fn memory_that_is_opened_by_io_uring_is_told_of_as_by_open() {
    let subject = Subject::start();
    let mem = subject.proc("mem");
    let open = || assert_eq!(opened_by_io_uring(&mem), 0);
    if let Some(mut listener) = Listener::to(EventType::MEMORY_ACCESS, "ringfence_memory_access") {
        listener.hear_of(&subject, &[("access", 3), ("by", 2)], open);
        listener.door("/proc/PID/mem by io_uring");
    }
    if let Some(mut listener) = Listener::to(EventType::PROCESS_TRACE, "ringfence_process_trace") {
        listener.hear_of(&subject, &[("access", 2)], open);
        listener.door("/proc/PID/mem by io_uring");
    }
}
