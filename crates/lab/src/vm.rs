// SPDX-License-Identifier: Apache-2.0
//! A guest: boot it, run commands in it, look at it from outside.

use std::fs;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use qmp::Qmp;

use crate::error::{Error, Result};
use crate::guest::{Guest, NoAnswer, Output};
use crate::initramfs;
use crate::kernels::Kernel;
use crate::process::Process;
use crate::qemu::{Machine, Qemu};
use crate::ram::Ram;

/// A guest that has not come up by then does not.
const BOOT: Duration = Duration::from_secs(90);
/// Counting instructions makes it slower, and who yields may get a ninth of a processor for minutes.
const SLOW_BOOT: Duration = Duration::from_secs(400);
/// How long a command may take unless it is said otherwise.
pub(crate) const COMMAND: Duration = Duration::from_secs(120);
/// How long a guest has to power itself off before it is killed.
const POWER_OFF: Duration = Duration::from_secs(10);

/// What a guest is to be like, and what it has.
#[derive(Clone, Debug, Default)]
pub struct Boot {
    machine: Machine,
    image: Option<Arc<[u8]>>,
    modules: Vec<String>,
    files: Vec<(PathBuf, String)>,
    account: Option<Arc<AtomicU64>>,
}

impl Boot {
    /// A guest with two processors and 768 MiB, without options.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A guest on such a machine.
    #[must_use]
    pub fn on(machine: Machine) -> Self {
        Self { machine, ..Self::default() }
    }

    /// Kernel parameters, further ones if there are some already.
    #[must_use]
    pub fn append(mut self, parameters: &str) -> Self {
        self.machine.append = format!("{} {parameters}", self.machine.append).trim().to_owned();
        self
    }

    /// The processor model.
    #[must_use]
    pub fn cpu(mut self, model: &str) -> Self {
        model.clone_into(&mut self.machine.cpu);
        self
    }

    /// How many processors.
    #[must_use]
    pub fn processors(mut self, count: u32) -> Self {
        self.machine.processors = count;
        self
    }

    /// The clock counts instructions, each a nanosecond: what is measured by it is the same each time.
    #[must_use]
    pub fn counted(mut self) -> Self {
        self.machine.counted = true;
        self
    }

    /// How many processors share a core.
    #[must_use]
    pub fn threads(mut self, count: u32) -> Self {
        self.machine.threads = count;
        self
    }

    /// Memory in MiB.
    #[must_use]
    pub fn memory(mut self, megabytes: u32) -> Self {
        self.machine.memory = megabytes;
        self
    }

    /// Whether it leaves the host's processors to other guests that want them.
    pub(crate) fn yields(mut self, yields: bool) -> Self {
        self.machine.yields = yields;
        self
    }

    /// Where the milliseconds of processor time that the guest took are added when it is gone.
    pub(crate) fn account(mut self, account: Arc<AtomicU64>) -> Self {
        self.account = Some(account);
        self
    }

    /// A second monitor, which listens on a socket.
    #[must_use]
    pub fn monitor(mut self, socket: impl Into<PathBuf>) -> Self {
        self.machine.monitor = Some(socket.into());
        self
    }

    /// Other bytes for the file that is the kernel's image in the guest, which is booted as it is all
    /// the same: those of [`Kernel::vmlinux`] spare the guest to unpack it.
    #[must_use]
    pub fn image(mut self, bytes: Arc<[u8]>) -> Self {
        self.image = Some(bytes);
        self
    }

    /// A module to be loaded with all that it needs.
    #[must_use]
    pub fn module(mut self, name: impl Into<String>) -> Self {
        self.modules.push(name.into());
        self
    }

    /// A file of the host to be there, with the libraries that it links if it is a program.
    #[must_use]
    pub fn file(mut self, host: impl Into<PathBuf>, guest: impl Into<String>) -> Self {
        self.files.push((host.into(), guest.into()));
        self
    }

    /// Boots the kernel and waits until commands can be run. Logs are written into a directory, which
    /// is made if it is missing.
    ///
    /// # Errors
    /// When something is missing, the guest does not come up, or a module is not loaded.
    pub fn start(&self, kernel: &Kernel, logs: &Path) -> Result<Vm> {
        fs::create_dir_all(logs).map_err(Error::file(logs))?;
        let initramfs = initramfs::make(kernel, self.image.as_deref(), &self.modules, &self.files)?;
        let started = Instant::now();
        let account = self.account.clone();
        let mut qemu = Qemu::start(&self.machine, &kernel.vmlinuz(), &initramfs, logs, account)?;
        let agent = qemu.agent.take();
        let mut vm = Vm {
            guest: None,
            monitor: Mutex::new(None),
            qemu,
            logs: logs.to_owned(),
            booted: Duration::ZERO,
        };
        let is_slow = self.machine.counted || self.machine.yields;
        let limit = if is_slow { SLOW_BOOT } else { BOOT };
        let connected =
            agent.ok_or(NoAnswer::Closed).and_then(|agent| Guest::connect(agent, limit));
        let (guest, not_loaded) =
            connected.map_err(|why| vm.error(why, "the boot", limit.as_secs()))?;
        vm.booted = started.elapsed();
        vm.guest = Some(guest);
        if !not_loaded.is_empty() {
            return Err(Error::NotLoaded { modules: not_loaded, console: vm.console() });
        }
        Ok(vm)
    }
}

/// A guest that runs. It is killed when this is dropped, and when the thread that booted it ends.
#[derive(Debug)]
pub struct Vm {
    guest: Option<Guest>,
    monitor: Mutex<Option<Qmp>>,
    qemu: Qemu,
    logs: PathBuf,
    booted: Duration,
}

impl Vm {
    /// How long it took from the start of QEMU until commands could be run.
    #[must_use]
    pub fn booted_in(&self) -> Duration {
        self.booted
    }

    /// The log of the guest's console.
    #[must_use]
    pub fn console(&self) -> PathBuf {
        self.logs.join("console.log")
    }

    /// The processor time that QEMU has used until now.
    ///
    /// # Errors
    /// When /proc does not say.
    pub fn processor_time(&self) -> Result<Duration> {
        self.qemu.processor_time()
    }

    /// The process id of QEMU.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.qemu.pid()
    }

    /// Runs a command, whatever its exit code is, for two minutes at most.
    ///
    /// # Errors
    /// When it cannot be started or does not end in time, or the guest is gone.
    pub fn try_run(&self, command: &[&str]) -> Result<Output> {
        self.try_run_within(command, COMMAND)
    }

    /// Runs a command, whatever its exit code is.
    ///
    /// # Errors
    /// See [`try_run`](Self::try_run).
    pub fn try_run_within(&self, command: &[&str], limit: Duration) -> Result<Output> {
        let output = self.guest()?.run(command, limit);
        output.map_err(|why| self.error(why, &command.join(" "), limit.as_secs()))
    }

    /// Runs a command that must end with 0, for two minutes at most.
    ///
    /// # Errors
    /// When it does not, and those of [`try_run`](Self::try_run).
    pub fn run(&self, command: &[&str]) -> Result<Output> {
        self.run_within(command, COMMAND)
    }

    /// Runs a command that must end with 0.
    ///
    /// # Errors
    /// When it does not, and those of [`try_run`](Self::try_run).
    pub fn run_within(&self, command: &[&str], limit: Duration) -> Result<Output> {
        let output = self.try_run_within(command, limit)?;
        if output.code == 0 {
            return Ok(output);
        }
        let both = format!("{}\n{}", output.text(), output.errors());
        let output_end = tail(both.trim(), 20);
        let (command, code) = (command.join(" "), output.code);
        Err(Error::Failed { command, code, output: output_end })
    }

    /// Runs a line of shell, which must end with 0, and gives what it prints.
    ///
    /// # Errors
    /// See [`run`](Self::run).
    pub fn shell(&self, line: &str) -> Result<String> {
        Ok(self.run(&["/bin/sh", "-c", line])?.text())
    }

    /// Starts a command that goes on while others run.
    ///
    /// # Errors
    /// When the guest is gone; that it cannot be started is told by what is done with it next.
    pub fn start(&self, command: &[&str], limit: Duration) -> Result<Process<'_>> {
        let (number, answers) = self
            .guest()?
            .start(command, limit)
            .map_err(|why| self.error(why, &command.join(" "), limit.as_secs()))?;
        Ok(Process::new(self, command.join(" "), number, answers, limit))
    }

    /// Writes a file in the guest.
    ///
    /// # Errors
    /// When the guest cannot, or is gone.
    pub fn put(&self, path: &str, permissions: u32, bytes: &[u8]) -> Result<()> {
        let put = self.guest()?.put(path, permissions, bytes);
        put.map_err(|why| self.error(why, path, COMMAND.as_secs()))
    }

    /// Reads a file of the guest.
    ///
    /// # Errors
    /// When the guest cannot, or is gone.
    pub fn get(&self, path: &str) -> Result<Vec<u8>> {
        let get = self.guest()?.get(path, COMMAND);
        get.map_err(|why| self.error(why, path, COMMAND.as_secs()))
    }

    /// Does something with QEMU's monitor.
    ///
    /// # Errors
    /// When QEMU is gone, and those of what is done.
    pub fn with_monitor<T>(&mut self, what: impl FnOnce(&mut Qmp) -> qmp::Result<T>) -> Result<T> {
        let mut monitor = self.monitor.lock().unwrap_or_else(PoisonError::into_inner);
        if monitor.is_none() {
            let socket = self.qemu.monitor.take().ok_or_else(|| qmp::Error {
                command: "greeting".to_owned(),
                problem: "it did not answer before".to_owned(),
            })?;
            *monitor = Some(Qmp::connect(socket)?);
        }
        match monitor.as_mut() {
            Some(qmp) => Ok(what(qmp)?),
            None => Err(Error::Agent("no monitor".to_owned())),
        }
    }

    /// The guest's memory, seen from outside.
    ///
    /// # Errors
    /// When it cannot be mapped.
    pub fn ram(&self) -> Result<Ram> {
        Ram::map(&self.qemu.memory)
    }

    /// A path by which other programs can open the guest's memory as long as this runs.
    #[must_use]
    pub fn ram_path(&self) -> PathBuf {
        let descriptor = self.qemu.memory.as_raw_fd();
        format!("/proc/{}/fd/{descriptor}", std::process::id()).into()
    }

    /// Powers the guest off, and kills it if it does not come to an end.
    pub fn power_off(mut self) {
        if let Some(guest) = &self.guest {
            // The guest ends before it can answer.
            let _ = guest.start(&["/bin/busybox", "poweroff", "-f"], POWER_OFF);
        }
        let deadline = Instant::now() + POWER_OFF;
        while !self.qemu.has_ended() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn guest(&self) -> Result<&Guest> {
        self.guest.as_ref().ok_or_else(|| self.error(NoAnswer::Closed, "the boot", 0))
    }

    /// Why there is no answer, in words, with what the console says.
    pub(crate) fn error(&self, why: NoAnswer, what: &str, seconds: u64) -> Error {
        let booting = self.guest.is_none() && matches!(why, NoAnswer::Closed);
        let happened = match why {
            NoAnswer::TimedOut => return Error::Timeout { command: what.to_owned(), seconds },
            NoAnswer::Refused(why) => return Error::Agent(why),
            NoAnswer::Closed => format!("the guest ended during {what}"),
            NoAnswer::Silent => format!("the guest did not answer during {what}"),
        };
        let read = |name: &str| {
            let bytes = fs::read(self.logs.join(name)).unwrap_or_default();
            tail(String::from_utf8_lossy(&bytes).trim(), 25)
        };
        // Where the kernel did not even begin to speak, QEMU itself may have.
        let tail = Some(read("console.log")).filter(|text| !text.is_empty());
        let tail = tail.unwrap_or_else(|| read("qemu.log"));
        Error::Gone { what: happened, booting, console: self.console(), tail }
    }
}

/// The last lines of a text.
fn tail(text: &str, lines: usize) -> String {
    let all: Vec<_> = text.lines().collect();
    all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n")
}
