// SPDX-License-Identifier: Apache-2.0
//! The program that the anchor is, as the bytes of an ELF file.
//!
//! It is so small that it is written here by hand: no compiler for a second target, no file to
//! install, and each byte can be read. What it does, in C:
//!
//! ```c
//! mlockall(MCL_CURRENT | MCL_FUTURE);
//! do {
//!     if (poll(&(struct pollfd){ .fd = 3, .events = POLLIN }, 1, TIMEOUT) <= 0)
//!         break;                                    /* no beat for too long */
//! } while (read(3, buffer, 56) > 0);                /* 0: the daemon has ended */
//! write(4, "1", 1);                                 /* abort the connection */
//! exit(0);
//! ```
//!
//! Its pages come from the file system that the daemon serves, so they are locked first: a daemon that
//! hangs must not be needed to end its own waits.

use std::time::Duration;

/// Where it is loaded: as usual for a program that is not moved.
const BASE: u64 = 0x40_0000;
/// ELF header and two program headers stand before the code.
const CODE: u64 = 64 + 2 * 56;
/// The descriptor on which beats come, and the one that aborts the connection when written to.
pub(super) const BEATS: i32 = 3;
pub(super) const ABORT: i32 = 4;

/// The file.
pub(super) fn program(timeout: Duration) -> Vec<u8> {
    let timeout = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    let code = code(timeout);
    let size = CODE + code.len() as u64;
    let mut file = Vec::with_capacity(size as usize);
    // e_ident: magic, 64 bits, little-endian, version 1, System V, padding.
    file.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    // e_type ET_EXEC, e_machine EM_X86_64; e_version.
    file.extend([2_u16, 62].map(u16::to_le_bytes).as_flattened());
    file.extend(1_u32.to_le_bytes());
    // e_entry, e_phoff, e_shoff.
    file.extend([BASE + CODE, 64, 0].map(u64::to_le_bytes).as_flattened());
    // e_flags; e_ehsize, e_phentsize, e_phnum, e_shentsize, e_shnum, e_shstrndx.
    file.extend(0_u32.to_le_bytes());
    file.extend([64_u16, 56, 2, 0, 0, 0].map(u16::to_le_bytes).as_flattened());
    // PT_LOAD, readable and executable: all of the file. p_offset, p_vaddr, p_paddr, p_filesz,
    // p_memsz, p_align.
    file.extend([1_u32, 5].map(u32::to_le_bytes).as_flattened());
    file.extend([0, BASE, BASE, size, size, 0x1000].map(u64::to_le_bytes).as_flattened());
    // PT_GNU_STACK, readable and writable: no code on the stack.
    file.extend([0x6474_e551_u32, 6].map(u32::to_le_bytes).as_flattened());
    file.extend([0_u64, 0, 0, 0, 0, 16].map(u64::to_le_bytes).as_flattened());
    file.extend(code);
    file
}

/// The code. Numbers of system calls are in eax, arguments in rdi, rsi, rdx.
#[rustfmt::skip]
fn code(timeout: i32) -> Vec<u8> {
    let [t0, t1, t2, t3] = timeout.to_le_bytes();
    let parts: [&[u8]; 29] = [
        &[0xb8, 0x97, 0x00, 0x00, 0x00],       // mov eax,97h      mlockall
        &[0xbf, 0x03, 0x00, 0x00, 0x00],       // mov edi,3h       MCL_CURRENT | MCL_FUTURE
        &[0x0f, 0x05],                         // syscall
        &[0x48, 0x83, 0xec, 0x40],             // sub rsp,40h      a pollfd, and a buffer behind it
        // again:
        &[0xc7, 0x04, 0x24, 0x03, 0, 0, 0],    // mov dword ptr [rsp],3h     fd
        &[0xc7, 0x44, 0x24, 4, 1, 0, 0, 0],    // mov dword ptr [rsp+4h],1h   events: POLLIN
        &[0xb8, 0x07, 0x00, 0x00, 0x00],       // mov eax,7h       poll
        &[0x48, 0x89, 0xe7],                   // mov rdi,rsp
        &[0xbe, 0x01, 0x00, 0x00, 0x00],       // mov esi,1h       one descriptor
        &[0xba, t0, t1, t2, t3],               // mov edx,TIMEOUT  in milliseconds
        &[0x0f, 0x05],                         // syscall
        &[0x85, 0xc0],                         // test eax,eax
        &[0x7e, 0x17],                         // jle abort
        &[0x31, 0xc0],                         // xor eax,eax      read
        &[0xbf, 0x03, 0x00, 0x00, 0x00],       // mov edi,3h
        &[0x48, 0x8d, 0x74, 0x24, 0x08],       // lea rsi,[rsp+8h]
        &[0xba, 0x38, 0x00, 0x00, 0x00],       // mov edx,38h
        &[0x0f, 0x05],                         // syscall
        &[0x85, 0xc0],                         // test eax,eax
        &[0x7f, 0xc2],                         // jg again
        // abort:
        &[0xc6, 0x04, 0x24, 0x31],             // mov byte ptr [rsp],31h     '1'
        &[0xb8, 0x01, 0x00, 0x00, 0x00],       // mov eax,1h       write
        &[0xbf, 0x04, 0x00, 0x00, 0x00],       // mov edi,4h
        &[0x48, 0x89, 0xe6],                   // mov rsi,rsp
        &[0xba, 0x01, 0x00, 0x00, 0x00],       // mov edx,1h
        &[0x0f, 0x05],                         // syscall
        &[0xb8, 0x3c, 0x00, 0x00, 0x00],       // mov eax,3Ch      exit
        &[0x31, 0xff],                         // xor edi,edi
        &[0x0f, 0x05],                         // syscall
    ];
    parts.concat()
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File, Permissions};
    use std::io::{Read, Write};
    use std::os::fd::OwnedFd;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command};
    use std::time::Instant;

    use iced_x86::{Decoder, DecoderOptions, FastFormatter};

    use super::*;

    #[test]
    fn the_bytes_are_the_instructions_that_stand_beside_them() {
        let code = code(2000);
        let mut formatter = FastFormatter::new();
        formatter.options_mut().set_space_after_operand_separator(false);
        let start = BASE + CODE;
        let text: Vec<String> = Decoder::with_ip(64, &code, start, DecoderOptions::NONE)
            .iter()
            .map(|instruction| {
                let mut line = String::new();
                formatter.format(&instruction, &mut line);
                line
            })
            .collect();
        let source = include_str!("program.rs");
        let beside = source.lines().filter_map(|line| {
            let (bytes, comment) = line.split_once(" // ")?;
            let instruction = comment.split("  ").next()?.to_owned();
            bytes.trim_start().starts_with("&[0x").then_some(instruction)
        });
        let labels = [("again", start + 0x10), ("abort", start + 0x4e), ("TIMEOUT", 2000)];
        let beside: Vec<String> = beside
            .map(|line| {
                labels
                    .iter()
                    .fold(line, |line, (label, value)| line.replace(label, &format!("{value:X}h")))
            })
            .collect();
        let plain = |lines: Vec<String>| -> Vec<String> {
            let plain = |line: String| line.replace("short ", "").replace("0000000000", "");
            lines.into_iter().map(plain).collect()
        };
        assert_eq!(plain(text), plain(beside));
    }

    /// Runs the program with a socket for beats, and one in the place of what aborts.
    fn started(timeout: Duration) -> (Child, UnixStream, UnixStream) {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("anchor");
        File::create(&path).unwrap().write_all(&program(timeout)).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        let (beats, its_beats) = UnixStream::pair().unwrap();
        let (abort, its_abort) = UnixStream::pair().unwrap();
        let ends: [OwnedFd; 2] = [its_beats.into(), its_abort.into()];
        // Above those that they become, so that one does not take the other's place.
        let ends = ends.map(|end| rustix::io::fcntl_dupfd_cloexec(end, 10).unwrap());
        let mut command = Command::new(&path);
        let [beats_end, abort_end] = ends.each_ref().map(std::os::fd::AsRawFd::as_raw_fd);
        // SAFETY: only dup2 is called between fork and exec.
        let command = unsafe {
            command.pre_exec(move || {
                if libc::dup2(beats_end, BEATS) < 0 || libc::dup2(abort_end, ABORT) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            })
        };
        (command.spawn().unwrap(), beats, abort)
    }

    #[test]
    fn as_long_as_beats_come_nothing_is_aborted_and_then_it_is() {
        let (mut child, mut beats, mut abort) = started(Duration::from_millis(400));
        for _ in 0..8 {
            beats.write_all(b".").unwrap();
            std::thread::sleep(Duration::from_millis(100));
        }
        assert!(child.try_wait().unwrap().is_none());
        let stopped = Instant::now();
        let mut said = String::new();
        abort.read_to_string(&mut said).unwrap();
        assert_eq!(said, "1");
        let waited = stopped.elapsed();
        assert!(
            waited > Duration::from_millis(200) && waited < Duration::from_secs(2),
            "{waited:?}"
        );
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }

    #[test]
    fn the_end_of_the_daemon_aborts_at_once() {
        let (mut child, beats, mut abort) = started(Duration::from_secs(60));
        drop(beats);
        let mut said = String::new();
        abort.read_to_string(&mut said).unwrap();
        assert_eq!((said.as_str(), child.wait().unwrap().code()), ("1", Some(0)));
    }
}
