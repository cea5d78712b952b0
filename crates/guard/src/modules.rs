// SPDX-License-Identifier: Apache-2.0
//! Where the files of modules come from.
//!
//! The guard does no I/O: whoever runs it implements [`ModuleFiles`], for a running kernel as for a
//! dump of one.

use crate::check::Missing;

/// The files that modules were loaded from.
pub trait ModuleFiles {
    /// The bytes of the `.ko` of the module with this name, compressed or not. The name is as the
    /// kernel has it: `-` in the name of a file is `_` here.
    fn file(&self, name: &str) -> Result<Vec<u8>, Missing>;
}

/// No files at all.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoModuleFiles;

impl ModuleFiles for NoModuleFiles {
    fn file(&self, _name: &str) -> Result<Vec<u8>, Missing> {
        Err(Missing::because("no files of modules were given"))
    }
}
