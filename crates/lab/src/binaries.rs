// SPDX-License-Identifier: Apache-2.0
//! Programs of the host with all that they need to run in a guest.
//!
//! Which libraries a program gets is decided by its dynamic loader, so that is asked: `ld.so --list`
//! prints the libraries with their paths. Debugging information is left behind: it lies after the
//! last byte that is loaded, and would make of a few megabytes a hundred.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use object::LittleEndian;
use object::elf::{ET_DYN, ET_EXEC, FileHeader64, PT_LOAD};
use object::read::elf::{FileHeader, ProgramHeader};

use crate::error::{Error, Result};

/// A file for the guest.
#[derive(Debug)]
pub(crate) struct Brought {
    /// Where it goes.
    pub(crate) path: String,
    /// Its permissions.
    pub(crate) permissions: u32,
    /// Its bytes.
    pub(crate) bytes: Vec<u8>,
}

/// Reads a file and, if it is a program with a dynamic loader, that and the libraries that it links.
/// The file itself comes first.
///
/// # Errors
/// When a file cannot be read or a library is missing on the host.
pub(crate) fn bring(host: &Path, guest: &str) -> Result<Vec<Brought>> {
    let mut files = vec![read(host, guest)?];
    if let Some(loader) = files.first().and_then(|file| loader(&file.bytes)) {
        files.push(read(Path::new(&loader), &loader)?);
        for library in libraries(&loader, host)? {
            files.push(read(Path::new(&library), &library)?);
        }
    }
    Ok(files)
}

fn read(host: &Path, guest: &str) -> Result<Brought> {
    use std::os::unix::fs::PermissionsExt;
    let metadata = fs::metadata(host).map_err(Error::file(host))?;
    let mut bytes = fs::read(host).map_err(Error::file(host))?;
    if let Some(end) = end_of_what_is_loaded(&bytes) {
        without_sections(&mut bytes, end);
    }
    let permissions = metadata.permissions().mode() & 0o7777;
    Ok(Brought { path: guest.to_owned(), permissions, bytes })
}

/// The path of the dynamic loader that a program names.
fn loader(bytes: &[u8]) -> Option<String> {
    let header = FileHeader64::<LittleEndian>::parse(bytes).ok()?;
    let endian = header.endian().ok()?;
    let segments = header.program_headers(endian, bytes).ok()?;
    let path = segments.iter().find_map(|segment| segment.interpreter(endian, bytes).ok()?)?;
    String::from_utf8(path.to_vec()).ok()
}

/// Where the last loaded segment ends, in a program or a library; objects such as kernel modules have
/// none.
fn end_of_what_is_loaded(bytes: &[u8]) -> Option<usize> {
    let header = FileHeader64::<LittleEndian>::parse(bytes).ok()?;
    let endian = header.endian().ok()?;
    if ![ET_EXEC, ET_DYN].contains(&header.e_type(endian)) {
        return None;
    }
    let segments = header.program_headers(endian, bytes).ok()?;
    let loaded = segments.iter().filter(|segment| segment.p_type(endian) == PT_LOAD);
    let end = loaded.map(|segment| segment.p_offset(endian) + segment.p_filesz(endian)).max()?;
    usize::try_from(end).ok().filter(|end| *end <= bytes.len())
}

/// Cuts off what is not loaded, and lets the header say that there are no sections.
fn without_sections(bytes: &mut Vec<u8>, end: usize) {
    bytes.truncate(end);
    // e_shoff, then e_shentsize, e_shnum and e_shstrndx, of Elf64_Ehdr (elf(5)).
    for field in [0x28..0x30, 0x3a..0x40] {
        if let Some(field) = bytes.get_mut(field) {
            field.fill(0);
        }
    }
}

/// The paths of the libraries that a program gets on this host.
fn libraries(loader: &str, program: &Path) -> Result<Vec<String>> {
    let problem = |problem: String| Error::Binary { path: program.to_owned(), problem };
    // The loader looks for a name without a slash in its own path.
    let program = fs::canonicalize(program).map_err(Error::file(program))?;
    let output = Command::new(loader).args([OsStr::new("--list"), program.as_os_str()]).output();
    let output = output.map_err(Error::file(loader))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(problem(format!("its libraries cannot be listed: {said}")));
    }
    parse_list(&String::from_utf8_lossy(&output.stdout)).map_err(problem)
}

/// Lines are `name => path (address)`, or `path (address)`, which is the loader, or the name of the
/// kernel's own.
fn parse_list(text: &str) -> Result<Vec<String>, String> {
    let mut paths = Vec::new();
    for line in text.lines() {
        let Some((name, place)) = line.split_once("=>") else { continue };
        let path = place.rsplit_once(" (").map_or(place, |(path, _)| path).trim();
        if !path.starts_with('/') {
            return Err(format!("the library {} is {path}", name.trim()));
        }
        paths.push(path.to_owned());
    }
    Ok(paths)
}

/// The program that runs now.
///
/// # Errors
/// When the system does not say.
pub(crate) fn this_program() -> Result<PathBuf> {
    std::env::current_exe().map_err(Error::system("finding the lab's own program"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_those_with_a_path() {
        let list = "\tlinux-vdso.so.1 (0x00007ffd)\n\
            \tlibelf.so.1 => /lib/x86_64-linux-gnu/libelf.so.1 (0x00007f1)\n\
            \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f2)\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x00007f3)\n";
        let expected = ["/lib/x86_64-linux-gnu/libelf.so.1", "/lib/x86_64-linux-gnu/libc.so.6"];
        assert_eq!(parse_list(list).unwrap(), expected);
        let error = parse_list("\tlibx.so.1 => not found\n").unwrap_err();
        assert_eq!(error, "the library libx.so.1 is not found");
    }

    #[test]
    fn a_program_brings_its_loader_and_its_libraries_and_still_runs_without_debugging_information()
    {
        let own = this_program().unwrap();
        let files = bring(&own, "/bin/test").unwrap();
        assert_eq!(files[0].path, "/bin/test");
        assert!(files.iter().any(|file| file.path.ends_with("/libc.so.6")), "{files:#?}");
        assert!(files[1].path.contains("/ld-linux"), "{}", files[1].path);
        let whole = fs::metadata(&own).unwrap().len();
        assert!((files[0].bytes.len() as u64) < whole);
        let place = tempfile::tempdir().unwrap();
        let cut = place.path().join("cut");
        fs::write(&cut, &files[0].bytes).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&cut, mode).unwrap();
        let output = Command::new(&cut).arg("--list").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("libraries_are_those"));
    }

    #[test]
    fn what_is_no_program_comes_as_it_is() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("text");
        fs::write(&path, "#!/bin/sh\n").unwrap();
        let files = bring(&path, "/text").unwrap();
        assert_eq!(files.len(), 1);
        assert_eq!(files[0].bytes, b"#!/bin/sh\n");
    }
}
