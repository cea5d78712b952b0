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
    built: Mutex<HashMap<String, PathBuf>>,
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

    /// A program of tests of this workspace by the name of its file, which is built if it is not.
    ///
    /// # Errors
    /// When it cannot be built.
    pub fn test(&self, name: &str) -> anyhow::Result<PathBuf> {
        self.built(&["test", "--no-run", "--test"], name)
    }

    /// An example of this workspace, which is built if it is not.
    ///
    /// # Errors
    /// When it cannot be built.
    pub fn example(&self, name: &str) -> anyhow::Result<PathBuf> {
        self.built(&["build", "--example"], name)
    }

    /// A program of this workspace, which is built if it is not; not optimised.
    ///
    /// # Errors
    /// When it cannot be built.
    pub fn binary(&self, name: &str) -> anyhow::Result<PathBuf> {
        self.built(&["build", "--bin"], name)
    }

    fn built(&self, kind: &[&str], name: &str) -> anyhow::Result<PathBuf> {
        // One builds, others wait for it.
        let mut built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = built.get(name) {
            return Ok(path.clone());
        }
        let path = build(kind, name)?;
        built.insert(name.to_owned(), path.clone());
        Ok(path)
    }
}

/// Lets cargo build a test or an example as `cargo test --workspace` does, so that one that is built
/// already serves.
fn build(kind: &[&str], target: &str) -> anyhow::Result<PathBuf> {
    // Set where cargo itself runs the lab.
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(kind)
        .arg(target)
        .args(["--workspace", "--locked", "--message-format=json"])
        .current_dir(repository())
        .output()
        .context("cannot run cargo")?;
    if !output.status.success() {
        bail!("cargo cannot build {target}:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    executable(&messages, target).with_context(|| format!("cargo names no program for {target}"))
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
