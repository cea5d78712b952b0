// SPDX-License-Identifier: Apache-2.0
//! Which processes hold BPF objects open.
//!
//! The kernel does not keep who loaded a program, only as which user. But what nobody holds goes
//! away, so a program that is not pinned and not attached for good is held through a file
//! descriptor, whose `private_data` is the object (kernel/bpf/syscall.c: `bpf_prog_new_fd`,
//! `bpf_link_new_fd`; fs/file.c and include/linux/fdtable.h for the way there).

use std::collections::{BTreeMap, HashMap, HashSet};

use kernel_memory::Kernel;

use crate::fields::Fields;

/// Descriptors of one process that are looked at.
const MOST_DESCRIPTORS: u64 = 4096;

/// A process, in words: `name (pid)`.
pub(super) type Holder = String;

/// For each of `objects`, a process among `tasks` (addresses of thread-group leaders) that has it
/// open, if there is one.
pub(super) fn holders(
    kernel: &Kernel<'_>,
    tasks: &[u64],
    objects: &HashSet<u64>,
) -> BTreeMap<u64, Holder> {
    look(kernel, tasks, objects).unwrap_or_default()
}

fn look(
    kernel: &Kernel<'_>,
    tasks: &[u64],
    objects: &HashSet<u64>,
) -> Option<BTreeMap<u64, Holder>> {
    let of_task = Fields::of(kernel, "task_struct", &["files", "comm", "tgid"]).ok()?;
    let of_table = Fields::of(kernel, "fdtable", &["max_fds", "fd"]).ok()?;
    let table_at = kernel.offset_of("files_struct", "fdt").ok()?;
    let data_at = kernel.offset_of("file", "private_data").ok()?;
    let tasks: Vec<_> = of_task.read(kernel, tasks).into_iter().flatten().collect();
    let tasks: Vec<_> = tasks.into_iter().filter(|task| task.value(0) != 0).collect();
    let files: Vec<u64> = tasks.iter().map(|task| task.value(0).wrapping_add(table_at)).collect();
    let tables = words(kernel, &files);
    let addresses: Vec<u64> = tables.iter().map(|table| table.unwrap_or(0)).collect();
    let tables = of_table.read(kernel, &addresses);
    // The arrays of `struct file *`, one for each task.
    let arrays: Vec<(u64, u32)> = tables
        .iter()
        .map(|table| {
            let table = table.as_ref();
            let count = table.map_or(0, |table| table.value(0)).min(MOST_DESCRIPTORS);
            (table.map_or(0, |table| table.value(1)), count as u32 * 8)
        })
        .collect();
    let mut held_by: HashMap<u64, usize> = HashMap::new();
    for (index, array) in kernel.memory.read_many(&arrays).into_iter().enumerate() {
        let array = array.unwrap_or_default();
        for file in array.as_chunks::<8>().0 {
            let file = u64::from_le_bytes(*file);
            if file != 0 {
                held_by.entry(file).or_insert(index);
            }
        }
    }
    let files: Vec<(u64, usize)> = held_by.into_iter().collect();
    let addresses: Vec<u64> = files.iter().map(|(file, _)| file.wrapping_add(data_at)).collect();
    let mut holders = BTreeMap::new();
    for ((_, index), data) in files.iter().zip(words(kernel, &addresses)) {
        let Some(object) = data.filter(|data| objects.contains(data)) else { continue };
        let Some(task) = tasks.get(*index) else { continue };
        holders.insert(object, format!("{} ({})", task.text(1), task.value(2)));
    }
    Some(holders)
}

fn words(kernel: &Kernel<'_>, addresses: &[u64]) -> Vec<Option<u64>> {
    let ranges: Vec<(u64, u32)> = addresses.iter().map(|address| (*address, 8)).collect();
    let words = kernel.memory.read_many(&ranges).into_iter();
    words.map(|bytes| Some(u64::from_le_bytes(bytes.ok()?.try_into().ok()?))).collect()
}
