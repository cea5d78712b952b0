// SPDX-License-Identifier: Apache-2.0
//! A sealed baseline. Its digest is made right for each input, as somebody who wants to be read
//! would make it.
#![no_main]

use guard::baseline::Baseline;
use sha2::{Digest, Sha256};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = Baseline::read(Box::new(data.to_vec()));
    let mut sealed = data.to_vec();
    sealed.extend(Sha256::digest(data));
    let Ok(baseline) = Baseline::read(Box::new(sealed)) else { return };
    for region in baseline.regions() {
        assert!(region.bytes.len() <= data.len());
        assert_eq!(baseline.bytes_at(region.start, 0).map(<[u8]>::len), Some(0));
    }
});
