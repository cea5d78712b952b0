// SPDX-License-Identifier: Apache-2.0
//! A flattened dump: records that overwrite each other in any way.
#![no_main]

use std::ops::ControlFlow;

use kernel_memory::physical::FileBytes;
use kernel_memory::physical::flattened::Flattened;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(dump) = Flattened::open(data) else { return };
    let all = dump.length();
    for (offset, length) in [(0, 8192), (all / 2, 8192), (all.saturating_sub(9), u64::MAX)] {
        let mut seen = 0;
        let flow = dump.pieces(offset, length, &mut |bytes| {
            assert!(!bytes.is_empty());
            seen += bytes.len() as u64;
            ControlFlow::Continue(())
        });
        assert!(flow.is_continue());
        assert_eq!(seen, length.min(all - offset));
    }
});
