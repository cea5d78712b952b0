// SPDX-License-Identifier: Apache-2.0
//! Questions to the kernel's own BTF about what it has.

use crate::error::ProbeError;
use crate::object;

/// Whether the kernel has a function of this name in its BTF: kfuncs always are, other functions
/// where they can be traced.
pub(crate) fn has_function(name: &str) -> Result<bool, ProbeError> {
    use libbpf_rs::btf::types::Func;

    let btf = object::with_libbpf("reading the kernel's BTF", libbpf_rs::btf::Btf::from_vmlinux)?;
    Ok(btf.type_by_name::<Func<'_>>(name).is_some())
}
