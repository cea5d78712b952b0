// SPDX-License-Identifier: Apache-2.0
//! The programs that are tested in guests, and where they are on the host.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use crate::kernels::repository;

/// The programs.
#[derive(Debug)]
pub struct Programs {
    ringfence: PathBuf,
    churn: OnceLock<Result<PathBuf, String>>,
    rules: OnceLock<Result<PathBuf, String>>,
}

impl Programs {
    /// With the ringfence command at a path.
    ///
    /// # Errors
    /// When there is none.
    pub fn new(ringfence: &Path) -> anyhow::Result<Self> {
        ensure!(ringfence.is_file(), "{} is not there; `make build` makes it", ringfence.display());
        Ok(Self { ringfence: ringfence.to_owned(), churn: OnceLock::new(), rules: OnceLock::new() })
    }

    /// The ringfence command, optimised.
    #[must_use]
    pub fn ringfence(&self) -> &Path {
        &self.ringfence
    }

    /// The test watch_churn of the command, which is built if it is not.
    ///
    /// # Errors
    /// When it cannot be built.
    pub fn watch_churn(&self) -> anyhow::Result<&Path> {
        built_once(&self.churn, "watch_churn")
    }

    /// The test rules_kernel of the probes, which is built if it is not.
    ///
    /// # Errors
    /// When it cannot be built.
    pub fn rules_kernel(&self) -> anyhow::Result<&Path> {
        built_once(&self.rules, "rules_kernel")
    }
}

fn built_once<'a>(
    kept: &'a OnceLock<Result<PathBuf, String>>,
    test: &str,
) -> anyhow::Result<&'a Path> {
    let built = kept.get_or_init(|| build(test).map_err(|error| format!("{error:#}")));
    built.as_deref().map_err(|error: &String| anyhow::anyhow!("{error}"))
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
