// SPDX-License-Identifier: Apache-2.0
//! Where the kernel keeps fs-verity's digests, for the programs that read them: bpf/lib/verity.h.

use std::sync::OnceLock;

use kernel_image::btf::Btf;

use crate::error::ProbeError;
use crate::{host, kernel_types};

/// The kernel's table of files with fs-verity (fs/verity/open.c, since 7.0).
const TABLE: &str = "fsverity_info_hash";

/// Where a kernel keeps them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Digests {
    /// Nowhere, and no file has one: it is built without fs-verity.
    None,
    /// Where the inode leads to.
    AtInode,
    /// In a table at this address.
    InTable(u64),
}

impl Digests {
    /// Asks the kernel.
    ///
    /// # Errors
    /// When files can have one and programs cannot read it, with what is lacking.
    pub(crate) fn find() -> Result<Self, ProbeError> {
        static FOUND: OnceLock<Digests> = OnceLock::new();
        if let Some(found) = FOUND.get() {
            return Ok(*found);
        }
        let found = Self::by_types(&kernel_types::few()?, || host::live_symbol(TABLE))?;
        Ok(*FOUND.get_or_init(|| found))
    }

    fn by_types(
        types: &Btf,
        table: impl FnOnce() -> Result<Option<u64>, ProbeError>,
    ) -> Result<Self, ProbeError> {
        let has = |of, member| types.offset_of(of, member).is_some();
        if !has("fsverity_info", "file_digest") {
            return Ok(Self::None);
        }
        if has("inode", "i_verity_info") || has("fsverity_operations", "inode_info_offs") {
            return Ok(Self::AtInode);
        }
        let what = "reading the digests of fs-verity";
        let lacking = |lacking: String| ProbeError::Unsupported { what, lacking };
        if !has("fsverity_info", "rhash_head") {
            return Err(lacking("it keeps them where this version does not look".into()));
        }
        table()?.map(Self::InTable).ok_or_else(|| {
            lacking(format!(
                "/proc/kallsyms does not name the table that has them ({TABLE}); it is built without \
                 CONFIG_KALLSYMS_ALL"
            ))
        })
    }

    /// The address of the table that programs look into; 0 where they need none.
    pub(crate) fn table(self) -> u64 {
        match self {
            Self::None | Self::AtInode => 0,
            Self::InTable(address) => address,
        }
    }
}

#[cfg(test)]
mod tests {
    use kernel_image::btf::Builder;

    use super::*;

    /// What is found on a kernel with these structures, that has a symbol for the table or not.
    fn found(structures: &[(&str, &[&str])], table: Option<u64>) -> Result<Digests, String> {
        let mut builder = Builder::new();
        let number = builder.int("unsigned long", 8, false);
        for (name, members) in structures {
            let places = (0..).step_by(64);
            let members: Vec<_> =
                members.iter().zip(places).map(|(member, at)| (*member, number, at)).collect();
            builder.structure(name, 8 * members.len() as u32, &members);
        }
        let types = Btf::from_vec(builder.finish()).unwrap();
        Digests::by_types(&types, || Ok(table)).map_err(|error| error.to_string())
    }

    #[test]
    fn where_digests_are_is_told_by_the_types_and_what_is_not_known_is_said() {
        const DIGEST: (&str, &[&str]) = ("fsverity_info", &["file_digest"]);
        assert_eq!(found(&[("inode", &["i_size"])], Some(8)), Ok(Digests::None));
        let early = [DIGEST, ("inode", &["i_size", "i_verity_info"])];
        assert_eq!(found(&early, Some(8)), Ok(Digests::AtInode));
        let middle = [DIGEST, ("fsverity_operations", &["inode_info_offs"])];
        assert_eq!(found(&middle, Some(8)), Ok(Digests::AtInode));
        let late: (&str, &[&str]) = ("fsverity_info", &["rhash_head", "file_digest"]);
        assert_eq!(found(&[late], Some(8)), Ok(Digests::InTable(8)));
        assert!(found(&[late], None).unwrap_err().contains("CONFIG_KALLSYMS_ALL"));
        assert!(found(&[DIGEST], Some(8)).unwrap_err().contains("does not look"));
    }
}
