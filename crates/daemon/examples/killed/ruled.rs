// SPDX-License-Identifier: Apache-2.0
//! A program that rules deny is executed again and again, as daemons end and others begin.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::client_process::Client;
use crate::host::{Daemon, LIMIT};

/// What [`crate::roles::RULES`] are for.
const DENIED: &str = "/tried/denied";
const PINS: &str = "/sys/fs/bpf/ringfence";
const STATE: &str = "/run/ringfence/state";
/// How long it is tried with no daemon.
const WITHOUT: Duration = Duration::from_secs(2);

const BETWEEN: Duration = Duration::from_millis(10);

/// Executes it. Gives why it could not be.
fn tried() -> Option<io::Error> {
    let ran = Command::new(DENIED).arg("true").stdin(Stdio::null()).stderr(Stdio::null()).status();
    ran.err()
}

fn is_denied() -> bool {
    tried().and_then(|error| error.raw_os_error()) == Some(libc::EACCES)
}

/// Whether each try was denied.
#[derive(Default)]
struct Tries {
    denied: AtomicU64,
    others: AtomicU64,
    over: AtomicBool,
}

impl Tries {
    fn go_on(&self) {
        while !self.over.load(Ordering::Relaxed) {
            let count = if is_denied() { &self.denied } else { &self.others };
            count.fetch_add(1, Ordering::Relaxed);
            // The others need the processor too.
            std::thread::sleep(BETWEEN);
        }
    }

    /// Waits for so many more.
    fn more(&self, tries: u64) -> anyhow::Result<()> {
        let wanted = self.denied.load(Ordering::Relaxed) + tries;
        let began = Instant::now();
        while self.denied.load(Ordering::Relaxed) < wanted {
            let others = self.others.load(Ordering::Relaxed);
            ensure!(others == 0, "{others} tries were not denied");
            ensure!(began.elapsed() < LIMIT, "there are no tries");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

pub(crate) fn run() -> anyhow::Result<()> {
    let _ = fs::create_dir("/tried");
    fs::copy("/usr/bin/busybox", DENIED)?;
    ensure!(tried().is_none(), "it is denied before there are rules");
    let mut daemon = Daemon::start()?;
    let mut client = Client::start(&["be", "ruling", "org.example.ruling"])?;
    ensure!(is_denied(), "the rules do not deny: {:?}", tried());
    println!("ok: rules deny a program");

    let tries = &Tries::default();
    std::thread::scope(|scope| -> anyhow::Result<()> {
        let trying = scope.spawn(move || tries.go_on());
        let mut through = || -> anyhow::Result<()> {
            for kills in [true, false] {
                let how = if kills { "is killed" } else { "ends" };
                daemon.end(kills)?;
                tries.more(20).context("without a daemon")?;
                std::thread::sleep(WITHOUT);
                daemon = Daemon::start()?;
                expect_line(&mut client, "rules 1")?;
                tries.more(20).context("with the next daemon")?;
                ensure!(pinned()?.len() == 1, "what the last one left is still there");
                println!("ok: and so they do as the daemon {how}, without one, and with the next");
            }
            Ok(())
        };
        let through = through();
        tries.over.store(true, Ordering::Relaxed);
        ensure!(trying.join().is_ok(), "the thread panicked");
        let (denied, others) =
            (tries.denied.load(Ordering::Relaxed), tries.others.load(Ordering::Relaxed));
        ensure!(others == 0, "{others} of {} tries were not denied", denied + others);
        println!("ok: {denied} tries, all denied");
        through
    })?;

    client.end()?;
    ensure!(tried().is_none(), "rules that were taken away deny");
    let left = fs::read_dir(&pinned()?[0])?.count();
    ensure!(left == 0, "{left} programs stay for nothing");
    println!("ok: rules that are taken away leave nothing behind");

    let mut client = Client::start(&["be", "ruling", "org.example.ruling"])?;
    ensure!(is_denied(), "the rules do not deny: {:?}", tried());
    daemon.end(true)?;
    ensure!(is_denied(), "the rules do not deny without a daemon: {:?}", tried());
    fs::remove_dir_all(PINS)?;
    fs::remove_dir_all(STATE)?;
    // The kernel frees a link when nobody uses it any more, which is soon and not at once.
    let began = Instant::now();
    while is_denied() {
        ensure!(began.elapsed() < LIMIT, "what the administrator took away denies");
    }
    let _daemon = Daemon::start()?;
    expect_line(&mut client, "rules 0")?;
    ensure!(tried().is_none(), "what the administrator took away came back");
    println!("ok: who removes the files is rid of the rules");
    Ok(())
}

fn expect_line(client: &mut Client, wanted: &str) -> anyhow::Result<()> {
    let line = client.line()?;
    ensure!(line == wanted, "the client says {line:?} and not {wanted:?}");
    Ok(())
}

/// The directories of daemons that left programs attached, or may.
fn pinned() -> io::Result<Vec<PathBuf>> {
    fs::read_dir(PINS)?.map(|entry| Ok(entry?.path())).collect()
}
