// SPDX-License-Identifier: Apache-2.0
//! Lets only programs run that are on a list: `allow-list LIST [SOCKET]`. All others fail with EPERM.
//! Its grant (examples/grants/allow-list.toml) has process_exec with the class ask.
//!
//! A line of the list is a path, as the kernel has it, or `verity:` and the fs-verity digest of a file
//! in hexadecimal. Lines that are empty or begin with # are left out.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::Context;
use sdk::abi::{Class, Event, EventType, ProcessExec, View};
use sdk::{RingError, SOCKET, SessionError, SessionOptions, Subscription, Verdict};

const EPERM: u32 = 1;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let list = arguments.next().context("usage: allow-list LIST [SOCKET]")?;
    let socket = arguments.next().map_or_else(|| PathBuf::from(SOCKET), PathBuf::from);
    let allowed = Allowed::read(Path::new(&list))?;
    let mut session = SessionOptions::new("org.example.allow-list").socket(&socket).open()?;
    session.subscribe(&[Subscription::new(EventType::ProcessExec, [Class::Ask])])?;
    let mut events = session.events();
    loop {
        let event = match events.next(None) {
            Ok(Some(event)) => event,
            Ok(None) | Err(SessionError::Ended) => return Ok(()),
            // Whoever waits for an answer to it gets what the grant says for a missed deadline.
            Err(SessionError::Ring(error @ RingError::Record { .. })) => {
                eprintln!("allow-list: {error}");
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if !event.record.is_ask() {
            continue;
        }
        let Event::ProcessExec(exec) = event.record.event() else { continue };
        // Answer first: somebody waits.
        let verdict = allowed.verdict(&exec);
        event.answer(verdict)?;
        if verdict == Verdict::deny(EPERM) {
            println!("denied {}", exec.path().escape_ascii());
        }
    }
}

struct Allowed {
    paths: HashSet<Vec<u8>>,
    digests: HashSet<String>,
}

impl Allowed {
    fn read(list: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(list)
            .with_context(|| format!("cannot read {}", list.display()))?;
        let mut allowed = Self { paths: HashSet::new(), digests: HashSet::new() };
        for (line, number) in text.lines().map(str::trim).zip(1..) {
            if let Some(digest) = line.strip_prefix("verity:") {
                allowed.digests.insert(digest.to_lowercase());
            } else if line.starts_with('/') {
                allowed.paths.insert(line.as_bytes().to_vec());
            } else if !line.is_empty() && !line.starts_with('#') {
                anyhow::bail!("{}:{number}: neither a path nor a digest", list.display());
            }
        }
        Ok(allowed)
    }

    /// What was decided by the digest holds for the file, whoever runs it by which name. What was
    /// decided by a path holds for this time only: the same file can have another.
    fn verdict(&self, exec: &View<'_, ProcessExec>) -> Verdict {
        let digest = exec.file.verity_digest().map(|(_, digest)| hexadecimal(digest));
        if digest.is_some_and(|digest| self.digests.contains(&digest)) {
            Verdict::allow().cacheable()
        } else if self.paths.contains(exec.path()) {
            Verdict::allow()
        } else {
            Verdict::deny(EPERM)
        }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
