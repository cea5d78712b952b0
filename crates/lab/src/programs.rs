// SPDX-License-Identifier: Apache-2.0
//! The programs that are tested in guests, and where they are on the host.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use crate::kernels::repository;

/// The programs.
#[derive(Debug)]
pub struct Programs {
    ringfence: PathBuf,
    /// What cargo said when it built the others.
    built: Mutex<Option<String>>,
}

impl Programs {
    /// With the ringfence command at a path.
    ///
    /// # Errors
    /// When there is none.
    pub fn new(ringfence: &Path) -> anyhow::Result<Self> {
        ensure!(ringfence.is_file(), "{} is not there; `make build` makes it", ringfence.display());
        Ok(Self { ringfence: ringfence.to_owned(), built: Mutex::default() })
    }

    /// The ringfence command, optimised.
    #[must_use]
    pub fn ringfence(&self) -> &Path {
        &self.ringfence
    }

    /// A program of tests, an example or another program of this workspace by its name. All are
    /// built when the first one is asked for.
    ///
    /// # Errors
    /// When they cannot be built, or it is not among them.
    pub fn other(&self, name: &str) -> anyhow::Result<PathBuf> {
        // One builds, others wait for it.
        let mut built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
        let messages = match &mut *built {
            Some(messages) => messages,
            none => none.insert(build()?),
        };
        executable(messages, name)
    }
}

/// Programs of tests that are run in guests.
const TESTS: [&str; 15] = [
    "calls",
    "doors",
    "events",
    "files",
    "firmware",
    "lsm_events",
    "nothing_else",
    "rings",
    "rules_conditions",
    "rules_enforced",
    "rules_indirect",
    "rules_kernel",
    "rules_live",
    "verity",
    "watch_churn",
];

/// Lets cargo build everything, in one go and optimised as this program is: so that what is built
/// already serves, and crates are not built again for other features. Gives what it said, one JSON
/// object a line.
fn build() -> anyhow::Result<String> {
    // Set where cargo itself runs the lab.
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--workspace", "--locked", "--message-format=json-render-diagnostics"]);
    command.args(["--bins", "--examples"]);
    command.args(TESTS.iter().flat_map(|test| ["--test", test]));
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let output = command.current_dir(repository()).output().context("cannot run cargo")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("cargo cannot build what is run in guests:\n{said}");
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The program that cargo made of a target, by its messages.
fn executable(messages: &str, target: &str) -> anyhow::Result<PathBuf> {
    let made = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        let name = message.get("target")?.get("name")?.as_str()?;
        let path = message.get("executable")?.as_str()?;
        (name == target).then(|| PathBuf::from(path))
    };
    let mut made: Vec<_> = messages.lines().filter_map(made).collect();
    // Two crates can have a target of one name, and then either could be run.
    ensure!(made.len() == 1, "cargo names {} programs for {target}: {made:?}", made.len());
    Ok(made.remove(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_says_which_program_it_made_of_a_target() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"guard"},"executable":null}
            {"reason":"compiler-artifact","target":{"name":"ringfence"},"executable":"/t/ringfence"}
            {"reason":"compiler-artifact","target":{"name":"churn"},"executable":"/t/deps/churn-1"}
            {"reason":"build-finished","success":true}"#;
        assert_eq!(executable(messages, "churn").unwrap(), Path::new("/t/deps/churn-1"));
        assert_eq!(executable(messages, "ringfence").unwrap(), Path::new("/t/ringfence"));
        assert!(executable(messages, "guard").unwrap_err().to_string().contains("0 programs"));
        let twice = [messages, messages].join("\n");
        assert!(executable(&twice, "churn").unwrap_err().to_string().contains("2 programs"));
    }
}
