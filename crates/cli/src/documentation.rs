// SPDX-License-Identifier: Apache-2.0
//! `ringfence documentation`: man pages and shell completions, written from the definitions of the
//! arguments. For packagers; hidden in the help.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use clap_complete::Shell;

use crate::Ending;

/// Write man pages and shell completions into a directory
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Where to write them; it is made if it does not exist
    directory: PathBuf,
}

/// Runs the subcommand. `command` is the whole command with all its subcommands.
pub(crate) fn run(arguments: &Arguments, command: clap::Command) -> anyhow::Result<Ending> {
    write(&arguments.directory, command)
        .with_context(|| format!("cannot write to {}", arguments.directory.display()))?;
    Ok(Ending::Clean)
}

fn write(directory: &Path, mut command: clap::Command) -> std::io::Result<()> {
    let (man, completions) = (directory.join("man"), directory.join("completions"));
    fs::create_dir_all(&man)?;
    fs::create_dir_all(&completions)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command, "ringfence", &completions)?;
    }
    clap_mangen::generate_to(command, &man)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_subcommand_has_a_man_page_and_every_shell_its_completions() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), crate::Command::command()).unwrap();
        let text = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
        assert!(text("man/ringfence.1").contains("Kernel patch protection"));
        for subcommand in crate::Command::command().get_subcommands().filter(|c| !c.is_hide_set()) {
            let name = subcommand.get_name();
            let page = text(&format!("man/ringfence-{name}.1"));
            assert!(page.contains(name), "{name}");
        }
        for name in ["ringfence.bash", "_ringfence", "ringfence.fish"] {
            assert!(text(&format!("completions/{name}")).contains("state-dir"), "{name}");
        }
    }
}
