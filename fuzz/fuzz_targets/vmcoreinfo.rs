// SPDX-License-Identifier: Apache-2.0
//! What a guest says of its kernel.
#![no_main]

use kernel_memory::physical::vmcoreinfo::VmCoreInfo;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Some(info) = VmCoreInfo::parse(data) {
        assert!(data.len() >= info.release.len() + info.build_id.len());
    }
});
