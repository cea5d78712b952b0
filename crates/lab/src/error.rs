// SPDX-License-Identifier: Apache-2.0
//! What can go wrong in the lab, in words for whoever runs it.

use std::io;
use std::path::PathBuf;

/// An error of the lab.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the host could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernels were not fetched, or only in part.
    #[error("{}: {problem}; run tests/kernels/fetch", path.display())]
    Cache {
        /// What was looked at.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// No kernel, or more than one, is called so.
    #[error("{0}")]
    Kernel(String),
    /// A kernel module is not in the kernel's package, or cannot be unpacked.
    #[error("module {module} of {kernel}: {problem}")]
    Module {
        /// The module's name.
        module: String,
        /// The kernel's name.
        kernel: String,
        /// What is wrong.
        problem: String,
    },
    /// A binary cannot be brought into the guest.
    #[error("{}: {problem}", path.display())]
    Binary {
        /// The binary.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// QEMU did not start.
    #[error("cannot start {program}: {source}; install the packages of `make deps-lab`")]
    Start {
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// A system call that the lab needs failed.
    #[error("{what}: {source}")]
    System {
        /// What was being done.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The guest came up, but not as it was asked to.
    #[error("the guest could not load {modules}; its console is in {}", console.display())]
    NotLoaded {
        /// The modules, with the reasons.
        modules: String,
        /// The console's log.
        console: PathBuf,
    },
    /// The guest ended, hangs, or never came up.
    #[error("{what}; its console is in {}{}", console.display(), last_words(tail))]
    Gone {
        /// What happened.
        what: String,
        /// Whether it ended by itself before any command could be run in it.
        booting: bool,
        /// The console's log.
        console: PathBuf,
        /// The last lines of the console.
        tail: String,
    },
    /// A command in the guest took longer than it may.
    #[error("`{command}` in the guest was ended after {seconds} s")]
    Timeout {
        /// The command.
        command: String,
        /// The limit.
        seconds: u64,
    },
    /// The agent in the guest could not do what it was asked to.
    #[error("in the guest: {0}")]
    Agent(String),
    /// A command in the guest ended with another exit code than 0.
    #[error("`{command}` in the guest ended with {code}: {output}")]
    Failed {
        /// The command.
        command: String,
        /// Its exit code.
        code: i32,
        /// The end of what it printed.
        output: String,
    },
    /// QEMU's monitor refused a command, or says something that is no answer.
    #[error(transparent)]
    Monitor(#[from] qmp::Error),
}

impl Error {
    /// For `map_err` on what is done with a file.
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        |source| Self::File { path, source }
    }

    /// For `map_err` on system calls.
    pub(crate) fn system<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::System { what, source: source.into() }
    }
}

fn last_words(tail: &str) -> String {
    if tail.is_empty() { String::new() } else { format!(", which ends with:\n{tail}") }
}

/// A result of the lab.
pub type Result<T, E = Error> = std::result::Result<T, E>;
