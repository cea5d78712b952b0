// SPDX-License-Identifier: Apache-2.0
//! The QEMU process of a guest.
//!
//! All that QEMU shares with the lab is handed over as open descriptors: sockets of agent and monitor,
//! the guest's memory, its first file system. So there are no paths to choose, and nothing to clean up.
//!
//! TCG is what runs the guest. KVM is used only when asked for: that /dev/kvm can be opened says
//! nothing, as on hosts whose KVM runs only guests that are made for it. All virtual processors share a
//! thread: with one each, QEMU before 8.1 translates code that another processor is just patching and
//! keeps the result ("Always lock pages before translation", accel/tcg, 8.1), so a kernel that patches
//! itself dies of an int3 that is long gone.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Signal, nice, set_parent_process_death_signal};

use crate::error::{Error, Result};
use crate::protocol::PORT;
use crate::ram::anonymous;

const PROGRAM: &str = "qemu-system-x86_64";
/// How far a guest yields that does: to a ninth of what another one gets (`sched_prio_to_weight`,
/// kernel/sched/core.c, Linux 6.18).
const NICENESS: i32 = 10;

/// Parameters that each guest's kernel gets. `quiet` halves the time that booting takes; after a panic
/// QEMU ends (`-no-reboot`), which the lab notices. The kernel's test of its timer fails where the host
/// is so busy that ten ticks take QEMU too long, and it then panics (`check_timer`, 6.12).
const ALWAYS: &str = "console=ttyS0 quiet panic=-1 no_timer_check";

/// All that QEMU can emulate, but for what makes whatever is built to use it slower there. TCG makes a call
/// of each instruction of AVX: the guard needs a quarter less time without. And it moves and clears by
/// `rep movsb` and `rep stosb` one byte after the other, which kernel and C library do wherever ERMS says
/// that this is fast.
pub const PROCESSOR: &str = "max,-avx,-avx2,-erms";

/// What a machine is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The processor model, as `qemu-system-x86_64 -cpu help` lists them.
    pub cpu: String,
    /// Virtual processors.
    pub processors: u32,
    /// How many of them share a core. With one there is nothing that `nosmt` could switch off.
    pub threads: u32,
    /// Memory in MiB.
    pub memory: u32,
    /// Whether KVM runs the guest.
    pub kvm: bool,
    /// Whether the guest's clock counts instructions: a nanosecond is one. While it has nothing to do
    /// its time passes at once.
    pub counted: bool,
    /// Further kernel parameters.
    pub append: String,
    /// The file that is the guest's memory and stays; none for memory that goes with the guest.
    pub keep_ram: Option<PathBuf>,
    /// A socket where a second monitor listens.
    pub monitor: Option<PathBuf>,
    /// Whether it leaves the host's processors to other guests that want them.
    pub yields: bool,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            cpu: PROCESSOR.to_owned(),
            processors: 2,
            threads: 1,
            memory: 768,
            kvm: false,
            counted: false,
            append: String::new(),
            keep_ram: None,
            monitor: None,
            yields: false,
        }
    }
}

/// A QEMU that runs. It is killed when this is dropped, and when the thread that started it ends.
#[derive(Debug)]
pub(crate) struct Qemu {
    child: Child,
    pub(crate) agent: Option<UnixStream>,
    pub(crate) monitor: Option<UnixStream>,
    pub(crate) memory: File,
    /// What it was seen to have used, in milliseconds; when it has ended nobody can ask it any more.
    used: u64,
    account: Option<Arc<AtomicU64>>,
}

impl Qemu {
    /// Starts a guest, whose processor time is added to the account, in milliseconds, when it is dropped.
    pub(crate) fn start(
        machine: &Machine,
        kernel: &Path,
        initramfs: &[u8],
        logs: &Path,
        account: Option<Arc<AtomicU64>>,
    ) -> Result<Self> {
        let pair = || UnixStream::pair().map_err(Error::system("making a socket"));
        let ((agent, its_agent), (monitor, its_monitor)) = (pair()?, pair()?);
        let memory = match &machine.keep_ram {
            Some(path) => {
                let mut open = File::options();
                open.read(true).write(true).create(true).truncate(true);
                open.open(path).map_err(Error::file(path))?
            }
            None => anonymous("lab-memory")?,
        };
        let size = u64::from(machine.memory) << 20;
        memory.set_len(size).map_err(Error::system("sizing the guest's memory"))?;
        let mut first = anonymous("lab-initramfs")?;
        io::Write::write_all(&mut first, initramfs)
            .map_err(Error::system("writing the initramfs"))?;

        let stderr = logs.join("qemu.log");
        let stderr = File::create(&stderr).map_err(Error::file(stderr))?;
        let handed: [OwnedFd; 4] = [
            its_agent.into(),
            its_monitor.into(),
            memory.try_clone().map_err(Error::system("sharing memory"))?.into(),
            first.into(),
        ];
        let fds = handed.each_ref().map(AsRawFd::as_raw_fd);
        let mut command = Command::new(PROGRAM);
        command
            .args(arguments(machine, kernel, &logs.join("console.log"), fds))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr);
        let yields = machine.yields;
        // SAFETY: between fork and exec only calls that are safe there are made: fcntl, prctl and
        // setpriority; no memory is taken and no lock.
        unsafe {
            command.pre_exec(move || {
                set_parent_process_death_signal(Some(Signal::KILL))?;
                if yields {
                    nice(NICENESS)?;
                }
                for fd in fds {
                    // SAFETY: the descriptors are open: `handed` lives until after the start.
                    fcntl_setfd(BorrowedFd::borrow_raw(fd), FdFlags::empty())?;
                }
                Ok(())
            });
        }
        let start = |source| Error::Start { program: PROGRAM.to_owned(), source };
        let child = command.spawn().map_err(start)?;
        drop(handed);
        Ok(Self { child, agent: Some(agent), monitor: Some(monitor), memory, used: 0, account })
    }

    /// Whether QEMU has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.look_at_the_clock();
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// The processor time that it has used until now.
    ///
    /// # Errors
    /// When /proc does not say.
    pub(crate) fn processor_time(&self) -> Result<Duration> {
        let path = format!("/proc/{}/stat", self.pid());
        let stat = fs::read_to_string(&path).map_err(Error::file(path))?;
        // After the name in parentheses, utime and stime are the 12th and 13th field (proc(5)).
        let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
        let ticks =
            fields.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok());
        let per_second = rustix::param::clock_ticks_per_second().max(1);
        Ok(Duration::from_millis(ticks.sum::<u64>() * 1000 / per_second))
    }

    fn look_at_the_clock(&mut self) {
        if let Ok(time) = self.processor_time() {
            self.used = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        self.look_at_the_clock();
        if let Some(account) = &self.account {
            account.fetch_add(self.used, Ordering::Relaxed);
        }
        // One that has ended cannot be killed and is only waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// QEMU's arguments. Descriptors are those of agent, monitor, memory and initramfs.
fn arguments(machine: &Machine, kernel: &Path, console: &Path, fds: [RawFd; 4]) -> Vec<String> {
    let [agent, monitor, memory, initramfs] = fds;
    let accelerator = if machine.kvm { "kvm" } else { "tcg,thread=single" };
    let append = format!("{ALWAYS} {}", machine.append);
    // QEMU takes a comma for the end of a value unless it is doubled.
    let file = |path: &Path| path.display().to_string().replace(',', ",,");
    let mut all: Vec<String> = [
        ("-machine", "q35,memory-backend=ram".to_owned()),
        ("-accel", accelerator.to_owned()),
        ("-cpu", machine.cpu.clone()),
        ("-smp", format!("{},threads={}", machine.processors, machine.threads)),
        ("-m", format!("{}M", machine.memory)),
        (
            "-object",
            format!(
                "memory-backend-file,id=ram,size={}M,mem-path=/proc/self/fd/{memory},share=on",
                machine.memory
            ),
        ),
        ("-kernel", kernel.display().to_string()),
        ("-initrd", format!("/proc/self/fd/{initramfs}")),
        ("-append", append.trim_end().to_owned()),
        ("-serial", format!("file:{}", file(console))),
        ("-chardev", format!("socket,id=agent,fd={agent}")),
        ("-device", "virtio-serial-pci".to_owned()),
        ("-device", format!("virtserialport,chardev=agent,name={PORT}")),
        ("-device", "vmcoreinfo".to_owned()),
        // Attack modules refuse to load where the machine does not call itself so.
        ("-smbios", "type=1,manufacturer=Ringfence,product=ringfence-lab".to_owned()),
        ("-chardev", format!("socket,id=monitor,fd={monitor}")),
        ("-mon", "chardev=monitor,mode=control".to_owned()),
        ("-display", "none".to_owned()),
    ]
    .into_iter()
    .flat_map(|(name, value)| [name.to_owned(), value])
    .chain(["-nodefaults".to_owned(), "-no-reboot".to_owned()])
    .collect();
    if machine.counted {
        all.extend(["-icount".to_owned(), "shift=0,sleep=off".to_owned()]);
    }
    if let Some(socket) = &machine.monitor {
        all.extend(["-qmp".to_owned(), format!("unix:{},server=on,wait=off", file(socket))]);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_becomes_arguments_and_kvm_is_used_only_when_asked_for() {
        let mut machine = Machine { append: "nokaslr".to_owned(), ..Machine::default() };
        let line = |machine: &Machine| {
            arguments(machine, Path::new("/k"), Path::new("/a,b"), [3, 4, 5, 6]).join(" ")
        };
        let all = line(&machine);
        assert!(
            all.contains(
                "-accel tcg,thread=single -cpu max,-avx,-avx2,-erms -smp 2,threads=1 -m 768M"
            ),
            "{all}"
        );
        assert!(all.contains("quiet panic=-1 no_timer_check nokaslr -serial"), "{all}");
        assert!(all.contains("mem-path=/proc/self/fd/5,share=on"), "{all}");
        assert!(all.contains("file:/a,,b"), "{all}");
        assert!(!all.contains("kvm") && !all.contains("-qmp"), "{all}");
        assert!(!all.contains("-icount"), "{all}");
        machine.counted = true;
        assert!(line(&machine).contains("-icount shift=0,sleep=off"));
        machine.counted = false;
        machine.kvm = true;
        machine.monitor = Some("/tmp/q".into());
        let all = line(&machine);
        assert!(all.contains("-accel kvm"), "{all}");
        assert!(all.ends_with("-qmp unix:/tmp/q,server=on,wait=off"), "{all}");
    }
}
