// SPDX-License-Identifier: Apache-2.0
//! The memory of a guest that runs, copied as it is read.

use std::cell::RefCell;
use std::fs::File;
use std::ops::ControlFlow;

use anyhow::Context;
use kernel_memory::physical::FileBytes;
use memmap2::{MmapOptions, MmapRaw};

/// Bytes that are copied at once: they stay in the processor's second-level cache until they are
/// compared.
const WINDOW: usize = 256 << 10;

/// A file that QEMU shares with its guest as memory.
///
/// The guest writes to it while it is read, so no reference to its bytes may exist: each stretch is
/// copied, and what is looked at is the copy. So nothing changes between two looks at one byte, and
/// what a finding shows is what was compared.
pub(super) struct GuestRam {
    map: MmapRaw,
    /// Windows that are free. A visitor may read further memory, which then takes another.
    windows: RefCell<Vec<Box<[u8]>>>,
}

impl GuestRam {
    /// Maps the file for reading.
    pub(super) fn map(file: &File) -> anyhow::Result<Self> {
        let map = MmapOptions::new().map_raw_read_only(file).context("cannot map it")?;
        Ok(Self { map, windows: RefCell::default() })
    }

    fn copy(&self, offset: usize, into: &mut [u8]) {
        assert!(offset.checked_add(into.len()).is_some_and(|end| end <= self.map.len()));
        // SAFETY: source and length are within the mapping (asserted above), which lives as long as
        // `self`; `into` is ours alone. The guest may write to the source meanwhile: it is no object
        // of this program and no reference to it exists, and a byte that is torn is as good as any.
        // Should somebody make the file shorter, this process ends with SIGBUS and tells no lie.
        unsafe {
            std::ptr::copy_nonoverlapping(
                self.map.as_ptr().add(offset),
                into.as_mut_ptr(),
                into.len(),
            );
        }
    }
}

impl FileBytes for GuestRam {
    fn length(&self) -> u64 {
        self.map.len() as u64
    }

    fn pieces(
        &self,
        offset: u64,
        length: u64,
        take: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let end = offset.saturating_add(length).min(self.length());
        let mut at = offset.min(end);
        // Most reads are of a few bytes, and come by the hundred thousand.
        if end - at <= 64 {
            let mut few = [0; 64];
            let few = few.get_mut(..(end - at) as usize).unwrap_or_default();
            self.copy(at as usize, few);
            return if few.is_empty() { ControlFlow::Continue(()) } else { take(few) };
        }
        let window = self.windows.borrow_mut().pop();
        let mut window = window.unwrap_or_else(|| vec![0; WINDOW].into_boxed_slice());
        let mut flow = ControlFlow::Continue(());
        while at < end && flow.is_continue() {
            let part = (end - at).min(WINDOW as u64) as usize;
            let Some(into) = window.get_mut(..part) else { break };
            self.copy(at as usize, into);
            flow = take(into);
            at += part as u64;
        }
        self.windows.borrow_mut().push(window);
        flow
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn what_is_written_meanwhile_is_seen_by_the_next_read_and_not_by_this_one() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[1; WINDOW + 100]).unwrap();
        let ram = GuestRam::map(&file).unwrap();
        let read = |length: u64| {
            let mut all = Vec::new();
            let flow = ram.pieces(50, length, &mut |bytes| {
                all.extend_from_slice(bytes);
                ControlFlow::Continue(())
            });
            assert!(flow.is_continue());
            all
        };
        // In several pieces, in one, and beyond the end.
        assert_eq!(read(u64::MAX), vec![1; WINDOW + 50]);
        assert_eq!(read(3), [1; 3]);
        let flow = ram.pieces(0, 64, &mut |bytes| {
            std::os::unix::fs::FileExt::write_all_at(&file, &[2; 64], 0).unwrap();
            assert_eq!(bytes, [1; 64]);
            ControlFlow::Break(())
        });
        assert!(flow.is_break());
        assert_eq!(read(14), [2; 14]);
    }
}
