// SPDX-License-Identifier: Apache-2.0
//! The modules that the kernel's own file systems name.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use crate::error::ProbeError;

const SYSFS: &str = "/sys/module";
const KALLSYMS: &str = "/proc/kallsyms";

/// The directories of /sys/module that are modules: what is built in has no `initstate`.
pub(super) fn in_sysfs() -> Result<BTreeSet<String>, ProbeError> {
    let wrong = |error: io::Error| ProbeError::file(SYSFS, &error);
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(SYSFS).map_err(wrong)? {
        let entry = entry.map_err(wrong)?;
        if Path::new(&entry.path()).join("initstate").exists() {
            names.insert(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(names)
}

/// The modules that /proc/kallsyms names: `address type symbol\t[module]`.
pub(super) fn in_kallsyms() -> Result<BTreeSet<String>, ProbeError> {
    let wrong = |error: io::Error| ProbeError::file(KALLSYMS, &error);
    let mut reader = BufReader::with_capacity(1 << 16, File::open(KALLSYMS).map_err(wrong)?);
    let mut names = BTreeSet::new();
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).map_err(wrong)? > 0 {
        // Neighbours are of the same module, so most lines are told by one comparison.
        if let Some(name) = module_of(&line)
            && !names.contains(name)
        {
            names.insert(name.to_owned());
        }
        line.clear();
    }
    Ok(names)
}

/// The module in a line of /proc/kallsyms; not what the kernel writes there for code that is no
/// module's (get_ksymbol_bpf, get_ksymbol_ftrace_mod and get_ksymbol_kprobe, kernel/kallsyms.c).
fn module_of(line: &[u8]) -> Option<&str> {
    let line = line.strip_suffix(b"\n").unwrap_or(line).strip_suffix(b"]")?;
    let start = line.iter().rposition(|byte| *byte == b'[')? + 1;
    let name = std::str::from_utf8(line.get(start..)?).ok()?;
    (name != "bpf" && !name.starts_with("__builtin__")).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_modules_are_taken_for_modules() {
        let module = |line: &str| module_of(line.as_bytes()).map(str::to_owned);
        assert_eq!(module("ffffffffc0000000 t e1000_open\t[e1000]\n").as_deref(), Some("e1000"));
        assert_eq!(module("ffffffffc0000000 t bpf_prog_1234\t[bpf]\n"), None);
        assert_eq!(module("ffffffffc0000000 t kprobe_insn_page\t[__builtin__kprobes]\n"), None);
        assert_eq!(module("ffffffff81000000 T _stext\n"), None);
    }

    #[test]
    fn the_running_kernel_names_its_modules_or_none() {
        let built_in = |name: &String| !Path::new(SYSFS).join(name).join("initstate").exists();
        assert!(!in_sysfs().unwrap().iter().any(built_in));
    }
}
