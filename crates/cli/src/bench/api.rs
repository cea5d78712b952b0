// SPDX-License-Identifier: Apache-2.0
//! `ringfence bench api`: how many events one client takes without loss, and what the daemon needs while
//! many clients listen; and what a system call costs more where its end is told of. What an exec costs is counted in the lab (scenario `figures`).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Args;
use probes::events::{EventType, Hooks};
use sdk::abi::Class;
use sdk::{Ring, Session, SessionOptions, Subscription};

use super::{Bench, Goal, calls};
use crate::screen::{Style, Table, grouped};

/// Of one client, in bytes.
const RING: u32 = 16 << 20;
/// Events a second that are tried, the last without pause between them.
const RATES: [u64; 6] = [25_000, 50_000, 100_000, 200_000, 400_000, u64::MAX];
/// How long each is tried.
const WHILE: Duration = Duration::from_secs(2);
/// Clients that listen to the daemon.
const CLIENTS: usize = 26;
/// Goals: of one processor, and resident, in MiB.
const DAEMON_PERCENT: f64 = 1.0;
const DAEMON_MEMORY: f64 = 30.0;

/// How many events one client takes without loss, and what the daemon needs while 26 clients listen
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// The daemon to measure [default: ringfenced beside this program]
    #[arg(long, value_name = "FILE")]
    daemon: Option<PathBuf>,
}

/// Measures.
pub(super) fn run(arguments: &Arguments, style: Style) -> anyhow::Result<Bench> {
    let mut table = Table::new(&["one client", ">events/s", ">lost"]);
    let mut most = 0.0;
    for rate in RATES {
        let Taken { a_second, lost } = take(rate)?;
        let name = match rate {
            u64::MAX => "as fast as one processor makes them".to_owned(),
            rate => format!("{} wanted", grouped(rate)),
        };
        table.row(vec![name, grouped(a_second as u64), grouped(lost)]);
        if lost == 0 && a_second > most {
            most = a_second;
        }
    }
    let beside = std::env::current_exe()?.with_file_name("ringfenced");
    let daemon = daemon(arguments.daemon.as_deref().unwrap_or(&beside))?;
    let mut text = table.render(style, 0);
    text.push_str(&format!(
        "\n{CLIENTS} clients listened to {} events a second; the daemon used {:.2} % of a processor and \
         {:.1} MiB\n",
        grouped(daemon.a_second as u64),
        daemon.percent,
        daemon.memory
    ));
    text.push_str(&format!("\n{}", calls::table(style)?));
    let goals = vec![
        Goal::at_least("events a second without loss", most, 100_000.0, ""),
        Goal::at_most("daemon while 26 clients listen", daemon.percent, DAEMON_PERCENT, " %"),
        Goal::at_most("daemon, resident", daemon.memory, DAEMON_MEMORY, " MiB"),
    ];
    Ok(Bench { text, goals })
}

struct Taken {
    a_second: f64,
    lost: u64,
}

/// Makes events at a rate, and has one client read them.
fn take(rate: u64) -> anyhow::Result<Taken> {
    let kind = EventType::PROCESS_SIGNAL;
    let mut hooks = Hooks::load_for(kind.bit())?;
    let made = hooks.create_ring(RING)?;
    let mut ring = Ring::new(std::os::fd::AsFd::as_fd(&made).try_clone_to_owned()?)?;
    hooks.admit(0, &made)?;
    hooks.subscribe(0, kind.bit())?;
    let over = AtomicBool::new(false);
    let (start, read) = thread::scope(|scope| -> anyhow::Result<_> {
        let reader = scope.spawn(|| -> anyhow::Result<u64> {
            let mut read = 0;
            loop {
                let last = over.load(Ordering::SeqCst);
                while ring.next()?.is_some() {
                    read += 1;
                }
                if last {
                    return Ok(read);
                }
                ring.wait(Some(Duration::from_millis(20)), None)?;
            }
        });
        let start = Instant::now();
        signal_while(start, rate);
        let took = start.elapsed();
        over.store(true, Ordering::SeqCst);
        let read = reader.join().map_err(|_| anyhow::anyhow!("the client panicked"))??;
        Ok((took, read))
    })?;
    let counts = hooks.statistics(0)?;
    ensure!(read >= counts.written, "{read} of {} records were read", counts.written);
    Ok(Taken { a_second: counts.written as f64 / start.as_secs_f64(), lost: counts.lost })
}

/// Sends this process a signal that it ignores, at a rate, for as long as is measured.
fn signal_while(start: Instant, rate: u64) {
    let mut sent: u64 = 0;
    loop {
        let elapsed = start.elapsed();
        if elapsed >= WHILE {
            return;
        }
        let due = match rate {
            u64::MAX => sent + 100,
            rate => (elapsed.as_secs_f64() * rate as f64) as u64,
        };
        while sent < due {
            // SAFETY: a signal to this process, which ignores it unless somebody says otherwise.
            unsafe { libc::kill(libc::getpid(), libc::SIGURG) };
            sent += 1;
        }
    }
}

struct Daemon {
    a_second: f64,
    percent: f64,
    memory: f64,
}

/// A daemon that ends with this, and its directory.
struct Running {
    child: Child,
    directory: PathBuf,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Starts one with clients that listen, and makes processes come and go.
fn daemon(program: &Path) -> anyhow::Result<Daemon> {
    ensure!(program.is_file(), "there is no {}: name the daemon by --daemon", program.display());
    let directory = std::env::temp_dir().join(format!("ringfence-bench-{}", std::process::id()));
    let grants = directory.join("grants");
    fs::create_dir_all(&grants)?;
    let own = std::env::current_exe()?;
    for number in 0..CLIENTS {
        let grant = format!(
            "client = \"org.example.bench{number}\"\naltitude = \"{}\"\n[identity]\n\
             executable = {own:?}\nuid = 0\n[events.process_exec]\nclasses = [\"notify\"]\n\
             [events.process_fork]\nclasses = [\"notify\"]\n\
             [events.process_exit]\nclasses = [\"notify\"]\n",
            1000 + number
        );
        fs::write(grants.join(format!("{number}.toml")), grant)?;
    }
    let socket = directory.join("control");
    let child = Command::new(program)
        .arg("--grants")
        .arg(&grants)
        .arg("--socket")
        .arg(&socket)
        // Nothing of what this host's own daemon keeps is touched.
        .arg("--forget")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| program.display().to_string())?;
    let running = Running { child, directory };
    let started = Instant::now();
    while !socket.exists() {
        ensure!(started.elapsed() < Duration::from_secs(60), "the daemon did not come up");
        thread::sleep(Duration::from_millis(50));
    }
    let mut sessions = (0..CLIENTS).map(|number| listen(number, &socket));
    let mut sessions: Vec<Session> = sessions.by_ref().collect::<Result<_, _>>()?;
    let pid = running.child.id();
    let (before, start) = (processor_time(pid)?, Instant::now());
    let mut events = 0;
    while start.elapsed() < WHILE * 2 {
        ensure!(Command::new("/bin/true").status()?.success(), "/bin/true failed");
        for session in &mut sessions {
            while session.events().next(Some(Duration::ZERO))?.is_some() {
                events += 1;
            }
        }
    }
    let took = start.elapsed().as_secs_f64();
    let percent = (processor_time(pid)? - before).as_secs_f64() / took * 100.0;
    let a_second = f64::from(events) / took / CLIENTS as f64;
    Ok(Daemon { a_second, percent, memory: resident(pid)? })
}

fn listen(number: usize, socket: &Path) -> anyhow::Result<Session> {
    use sdk::abi::EventType as E;
    let client = format!("org.example.bench{number}");
    let mut session = SessionOptions::new(&client).socket(socket).open()?;
    let all = [E::ProcessExec, E::ProcessFork, E::ProcessExit];
    session.subscribe(&all.map(|event| Subscription::new(event, [Class::Notify])))?;
    Ok(session)
}

/// In user mode and in the kernel, with all its threads: /proc/PID/stat, fields 14 and 15, in hundredths.
fn processor_time(pid: u32) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let rest = stat.rsplit_once(") ").context("no stat")?.1;
    let ticks: u64 = rest.split(' ').skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 10))
}

/// In MiB. Rings are the kernel's and not among it.
fn resident(pid: u32) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let Some(kilobytes) = line.and_then(|line| line.split_whitespace().next()) else {
        bail!("the daemon is gone")
    };
    Ok(kilobytes.parse::<f64>()? / 1024.0)
}
