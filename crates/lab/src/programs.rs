// SPDX-License-Identifier: Apache-2.0
//! The programs that are tested in guests, and where they are on the host.

use std::collections::HashMap;
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
    tests: Mutex<HashMap<String, PathBuf>>,
}

impl Programs {
    /// With the ringfence command at a path.
    ///
    /// # Errors
    /// When there is none.
    pub fn new(ringfence: &Path) -> anyhow::Result<Self> {
        ensure!(ringfence.is_file(), "{} is not there; `make build` makes it", ringfence.display());
        Ok(Self { ringfence: ringfence.to_owned(), tests: Mutex::default() })
    }

    /// The ringfence command, optimised.
    #[must_use]
    pub fn ringfence(&self) -> &Path {
        &self.ringfence
    }

    /// A program of tests of this workspace by the name of its file, which is built if it is not.
    ///
    /// # Errors
    /// When it cannot be built.
    pub fn test(&self, name: &str) -> anyhow::Result<PathBuf> {
        // One builds, others wait for it.
        let mut tests = self.tests.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = tests.get(name) {
            return Ok(path.clone());
        }
        let path = build(name)?;
        tests.insert(name.to_owned(), path.clone());
        Ok(path)
    }
}

/// Lets cargo build a test as `cargo test --workspace` does, so that one that is built already serves.
fn build(test: &str) -> anyhow::Result<PathBuf> {
    // Set where cargo itself runs the lab.
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "test",
            "--workspace",
            "--locked",
            "--no-run",
            "--message-format=json",
            "--test",
            test,
        ])
        .current_dir(repository())
        .output()
        .context("cannot run cargo")?;
    if !output.status.success() {
        bail!("cargo cannot build {test}:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    executable(&messages, test).context("cargo names no program for the test")
}

/// The program that cargo made of a target, by its messages (one JSON object per line).
fn executable(messages: &str, target: &str) -> Option<PathBuf> {
    messages.lines().find_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        let name = message.get("target")?.get("name")?.as_str()?;
        let path = message.get("executable")?.as_str()?;
        (name == target).then(|| path.into())
    })
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
        assert_eq!(executable(messages, "guard"), None);
    }
}
