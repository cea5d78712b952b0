// SPDX-License-Identifier: Apache-2.0
//! Requests of FUSE, out of /dev/fuse.
#![no_main]

use probes::{FuseError, FuseOperation, FuseRequest};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    match FuseRequest::parse(data) {
        Ok(FuseRequest { operation, .. }) => {
            if let FuseOperation::Lookup { name } | FuseOperation::GetExtended { name, .. } =
                operation
            {
                assert!(name.len() < data.len() && !name.contains(&0));
            }
        }
        // Whoever waits is named as soon as there is a header.
        Err(FuseError::Arguments { .. }) => assert!(data.len() >= 40),
        Err(FuseError::Length { read, said }) => assert!(read != said || said < 40),
    }
});
