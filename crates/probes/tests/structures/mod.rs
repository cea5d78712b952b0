// SPDX-License-Identifier: Apache-2.0
//! What the tests of structures share: the running kernel, and ways to lie about it.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use guard::baseline::{Baseline, Identity};
use guard::check::{Missing, System};
use guard::journal::Journal;
use guard::views::{BpfKind, BpfView, TaskView, Views};
use guard::{Guard, Report};
use kernel_image::Symbols;
use kernel_image::btf::Btf;
use kernel_memory::{Kernel, KernelMemory, Piece, ReadError};
use probes::{LiveReader, LiveViews, Path};

/// The kernel is one for all tests: what one of them does to it another would see.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The running kernel.
pub(crate) struct Live {
    _alone: MutexGuard<'static, ()>,
    pub(crate) reader: LiveReader,
    pub(crate) symbols: Symbols,
    pub(crate) types: Btf,
    pub(crate) views: LiveViews,
}

impl Live {
    pub(crate) fn open() -> Self {
        // A test that failed leaves nothing behind that would matter.
        let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        Self {
            _alone: alone,
            reader: LiveReader::open(Path::Inline).unwrap(),
            symbols: probes::live_symbols().unwrap(),
            types: probes::live_types().unwrap(),
            views: LiveViews::open(),
        }
    }

    pub(crate) fn kernel(&self) -> Kernel<'_> {
        self.kernel_through(&self.reader)
    }

    /// The same kernel, read through something that may change what is read.
    pub(crate) fn kernel_through<'a>(&'a self, memory: &'a dyn KernelMemory) -> Kernel<'a> {
        Kernel { memory, symbols: &self.symbols, types: &self.types }
    }

    pub(crate) fn baseline(&self, facts: BTreeMap<String, String>) -> Baseline {
        let host = probes::identity().unwrap();
        let identity = Identity {
            release: host.release,
            build_id: host.build_id.unwrap_or_default(),
            boot_id: host.boot_id,
        };
        Baseline::take(&self.kernel(), identity, facts).unwrap()
    }

    /// One pass of one check.
    pub(crate) fn pass(
        &self,
        guard: &mut Guard,
        memory: &dyn KernelMemory,
        views: &dyn Views,
        baseline: &Baseline,
        journal: &Journal,
    ) -> Report {
        let kernel = self.kernel_through(memory);
        let modules = &guard::NoModuleFiles;
        let registers = &guard::NoRegisters;
        guard.pass(&System {
            kernel,
            other_paths: &[],
            views,
            baseline,
            modules,
            registers,
            journal,
        })
    }
}

/// A process that waits, ended when dropped.
pub(crate) struct Waiting(pub(crate) Child);

impl Waiting {
    pub(crate) fn start() -> Self {
        let child = Command::new("sleep").arg("600").stdout(Stdio::null()).spawn().unwrap();
        Self(child)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Does something at the end of a scope, however it is left.
pub(crate) struct OnDrop<F: Fn()>(pub(crate) F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// A guard with one check.
pub(crate) fn only(check: &str) -> Guard {
    Guard::of(&[check.to_owned()]).unwrap()
}

/// Memory in which some bytes read differently: what a rootkit would have written, without
/// writing anything.
pub(crate) struct Changed<'m> {
    pub(crate) inner: &'m dyn KernelMemory,
    pub(crate) changes: Vec<(u64, Vec<u8>)>,
}

impl<'m> Changed<'m> {
    pub(crate) fn new(inner: &'m dyn KernelMemory) -> Self {
        Self { inner, changes: Vec::new() }
    }

    pub(crate) fn write(&mut self, address: u64, bytes: &[u8]) {
        self.changes.push((address, bytes.to_vec()));
    }

    pub(crate) fn write_u64(&mut self, address: u64, value: u64) {
        self.write(address, &value.to_le_bytes());
    }
}

impl KernelMemory for Changed<'_> {
    fn name(&self) -> &'static str {
        "changed for a test"
    }

    fn visit(
        &self,
        start: u64,
        length: u64,
        visitor: &mut dyn FnMut(Piece<'_>) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        self.inner.visit(start, length, &mut |piece| {
            let Piece::Bytes { address, bytes } = piece else { return visitor(piece) };
            let mut bytes = bytes.to_vec();
            self.apply(address, &mut bytes);
            visitor(Piece::Bytes { address, bytes: &bytes })
        })
    }

    fn read_many(&self, ranges: &[(u64, u32)]) -> Vec<Result<Vec<u8>, ReadError>> {
        let mut all = self.inner.read_many(ranges);
        for ((address, _), bytes) in ranges.iter().zip(&mut all) {
            if let Ok(bytes) = bytes {
                self.apply(*address, bytes);
            }
        }
        all
    }
}

impl Changed<'_> {
    fn apply(&self, address: u64, bytes: &mut [u8]) {
        for (at, change) in &self.changes {
            for (index, byte) in change.iter().enumerate() {
                let offset = at.wrapping_add(index as u64).wrapping_sub(address);
                if let Some(to) = usize::try_from(offset).ok().and_then(|o| bytes.get_mut(o)) {
                    *to = *byte;
                }
            }
        }
    }
}

/// Interfaces that leave something out, as a filtered system call does.
pub(crate) struct Lying<'v> {
    pub(crate) inner: &'v LiveViews,
    /// A thread that /proc does not list.
    pub(crate) not_in_proc: Option<u32>,
    /// A thread that iterators do not show.
    pub(crate) not_iterated: Option<u32>,
    /// A BPF object that the system call does not list.
    pub(crate) not_listed: Option<(BpfKind, u32)>,
    /// A file with another content.
    pub(crate) file: Option<(&'static str, &'static str)>,
}

impl<'v> Lying<'v> {
    pub(crate) fn about_nothing(inner: &'v LiveViews) -> Self {
        Self { inner, not_in_proc: None, not_iterated: None, not_listed: None, file: None }
    }
}

fn without(
    view: Result<Vec<TaskView>, Missing>,
    tid: Option<u32>,
) -> Result<Vec<TaskView>, Missing> {
    let mut view = view?;
    view.retain(|task| Some(task.tid) != tid);
    Ok(view)
}

impl Views for Lying<'_> {
    fn tasks_in_proc(&self) -> Result<Vec<TaskView>, Missing> {
        without(self.inner.tasks_in_proc(), self.not_in_proc)
    }
    fn tasks_iterated(&self) -> Result<Vec<TaskView>, Missing> {
        without(self.inner.tasks_iterated(), self.not_iterated)
    }
    fn task_answers(&self, tgid: u32, tid: u32) -> Result<bool, Missing> {
        self.inner.task_answers(tgid, tid)
    }
    fn bpf_listed(&self, kind: BpfKind) -> Result<Vec<BpfView>, Missing> {
        let mut view = self.inner.bpf_listed(kind)?;
        view.retain(|object| Some((kind, object.id)) != self.not_listed);
        Ok(view)
    }
    fn bpf_iterated(&self, kind: BpfKind) -> Result<Vec<BpfView>, Missing> {
        self.inner.bpf_iterated(kind)
    }
    fn current_task(&self) -> Result<u64, Missing> {
        self.inner.current_task()
    }
    fn file(&self, path: &str) -> Result<String, Missing> {
        match self.file {
            Some((of, content)) if of == path => Ok(content.to_owned()),
            _ => self.inner.file(path),
        }
    }
    fn own_bpf(&self) -> Result<Vec<(BpfKind, u32)>, Missing> {
        self.inner.own_bpf()
    }
    fn raise_event(&self) -> Result<String, Missing> {
        self.inner.raise_event()
    }
}
