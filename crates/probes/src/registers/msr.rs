// SPDX-License-Identifier: Apache-2.0
//! Model-specific registers through the kernel's device (msr(4), arch/x86/kernel/msr.c).

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use guard::registers::Processor;

use crate::error::ProbeError;

/// Their numbers (arch/x86/include/asm/msr-index.h), which are offsets in the device.
const SYSENTER_EIP: u64 = 0x176;
const EFER: u64 = 0xc000_0080;
const LSTAR: u64 = 0xc000_0082;
const CSTAR: u64 = 0xc000_0083;

/// Whether the driver is there.
pub(super) fn is_there() -> bool {
    Path::new("/dev/cpu/0/msr").exists()
}

/// Reads those of a processor. One that it does not have is left out.
pub(super) fn read(processor: &mut Processor) -> Result<(), ProbeError> {
    let path = format!("/dev/cpu/{}/msr", processor.number);
    let device = File::open(&path).map_err(|error| ProbeError::file(&path, &error))?;
    let value = |number: u64| {
        let mut bytes = [0; 8];
        device.read_exact_at(&mut bytes, number).ok()?;
        Some(u64::from_le_bytes(bytes))
    };
    processor.efer = value(EFER);
    processor.lstar = value(LSTAR);
    processor.cstar = value(CSTAR);
    processor.sysenter = value(SYSENTER_EIP);
    Ok(())
}
