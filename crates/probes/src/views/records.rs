// SPDX-License-Identifier: Apache-2.0
//! The records of bpf/lib/view_records.h.

/// `VIEW_NAME`.
pub(crate) const NAME: usize = 16;

/// `struct task_record`: a thread, as the BPF task iterator shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct TaskRecord {
    /// Kernel address of its task_struct.
    pub address: u64,
    /// Process id (thread group) in the initial pid namespace.
    pub tgid: u32,
    /// Thread id in the initial pid namespace.
    pub tid: u32,
    /// Process id in the pid namespace of this process; 0 if it is not in it.
    pub own_tgid: u32,
    /// Thread id in the pid namespace of this process; 0 if it is not in it.
    pub own_tid: u32,
    /// Its name, filled up with zeroes.
    pub comm: [u8; NAME],
}

/// `struct bpf_record`: a BPF program, map or link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct BpfRecord {
    pub(crate) id: u32,
    /// `enum bpf_prog_type`, `bpf_map_type` or `bpf_link_type`.
    pub(crate) kind: u32,
    pub(crate) name: [u8; NAME],
}

/// `struct caller_record`: the context of the program that tells about its caller.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct CallerRecord {
    /// Kernel address of the caller's task_struct.
    pub(crate) task: u64,
}

/// A record that may be made from any bytes.
///
/// # Safety
/// Every bit pattern must be a value of the type, and the type must have no padding.
pub(crate) unsafe trait Plain: Copy {}
// SAFETY: integers and bytes; 8 + 4 * 4 + 16 bytes without a gap.
unsafe impl Plain for TaskRecord {}
// SAFETY: integers and bytes; 4 + 4 + 16 bytes without a gap.
unsafe impl Plain for BpfRecord {}

/// The whole records in `bytes`. What is left behind the last one is no record and is left out.
pub(crate) fn records<T: Plain>(bytes: &[u8]) -> Vec<T> {
    bytes
        .chunks_exact(size_of::<T>())
        // SAFETY: a chunk has as many bytes as the type, and any bytes are a value of it.
        .map(|chunk| unsafe { chunk.as_ptr().cast::<T>().read_unaligned() })
        .collect()
}

/// A name up to its first zero; what is not UTF-8 is replaced.
pub(crate) fn text(name: &[u8]) -> String {
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(name).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_out_of_bytes_at_any_alignment() {
        let mut bytes = vec![0xff];
        for id in [7_u32, 9] {
            bytes.extend(id.to_ne_bytes());
            bytes.extend(1_u32.to_ne_bytes());
            bytes.extend(b"name\0\0\0\0\0\0\0\0\0\0\0\0");
        }
        let seen: Vec<BpfRecord> = records(&bytes[1..]);
        assert_eq!(seen.iter().map(|record| record.id).collect::<Vec<_>>(), [7, 9]);
        assert_eq!(text(&seen[0].name), "name");
        assert_eq!(records::<BpfRecord>(&bytes[1..bytes.len() - 1]).len(), 1);
    }
}
