// SPDX-License-Identifier: Apache-2.0
//! A million random changes to a copy of what a dump holds: text and read-only data of the kernel and of
//! more than sixty modules. Each that is outside of what a table allows at its place is found.

use std::fs;
use std::process::Command;

use anyhow::{Context, ensure};
use qmp::DumpFormat;

use crate::scenario::{Cell, Outcome, Scenario};
use crate::scenarios::modules::{AT_LEAST, MODULES};
use crate::vm::Boot;

/// See the module.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "mutations",
    about: "each of a million random changes to a dump is found unless a table allows it",
    kernels: |kernel| kernel.name == "6.12-cloud-amd64",
    core: |kernel| kernel.name == "6.12-cloud-amd64",
    timed: false,
    run,
};

fn run(cell: &Cell<'_>) -> anyhow::Result<Outcome> {
    let mut vm = cell.boot(&MODULES.into_iter().fold(Boot::new(), Boot::module))?;
    let loaded = vm.shell("cat /proc/modules")?.lines().count();
    ensure!(loaded >= AT_LEAST, "only {loaded} modules are loaded, of {AT_LEAST} at least");
    let logs = fs::canonicalize(cell.logs()).context("the directory of logs")?;
    let dump = logs.join("elf.dump");
    vm.with_monitor(|qmp| qmp.dump(&dump, DumpFormat::Elf))?;
    vm.power_off();

    let kernel = cell.kernel();
    let changes = if cell.is_core() { "100000" } else { "1000000" };
    let bench = Command::new(cell.programs().ringfence())
        .args(["bench", "mutations", "--changes", changes])
        .arg("--core")
        .arg(&dump)
        .arg("--image")
        .arg(kernel.vmlinuz())
        .arg("--modules")
        .arg(kernel.modules())
        .output()
        .context("cannot run ringfence")?;
    fs::remove_file(&dump).with_context(|| dump.display().to_string())?;
    cell.keep("mutations.txt", &bench.stdout)?;
    cell.keep("mutations.err", &bench.stderr)?;
    let text = String::from_utf8_lossy(&bench.stdout);
    let errors = String::from_utf8_lossy(&bench.stderr);
    ensure!(bench.status.success(), "{}: {text}{errors}", bench.status);
    ensure!(!text.contains("left out"), "not all modules took part: {text}");
    Ok(Outcome::passed(figures(&text).with_context(|| format!("no figures in {text}"))?))
}

/// What was found, from the last row of the table, and in which time.
fn figures(text: &str) -> Option<String> {
    let first = text.lines().next()?;
    let row = text.lines().find_map(|line| line.strip_prefix("all "))?;
    let cells: Vec<&str> = row.split_whitespace().collect();
    let [.., legal, outside, found] = cells.as_slice() else { return None };
    Some(format!("{found} of {outside} found, {legal} legal; {first}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_are_those_of_the_last_row() {
        let text =
            "10 changes in 1 ms\n\nmemory  bytes\ntext  1\nall  1  2 %  3  1.5  10  4  6  6\n";
        assert_eq!(figures(text).unwrap(), "6 of 6 found, 4 legal; 10 changes in 1 ms");
        assert_eq!(figures("nothing"), None);
    }
}
