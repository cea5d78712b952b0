// SPDX-License-Identifier: Apache-2.0
//! What programs and questions need of the kernel's own BTF.

use std::collections::HashSet;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::OnceLock;

use kernel_image::btf::{Btf, Kind, TypeId};
use libbpf_rs::ObjectBuilder;
use rustix::fs::{MemfdFlags, memfd_create};

use crate::error::ProbeError;
use crate::host;

/// The names of all types that bpf/ knows (build.rs).
const NAMES: &[&str] = include!(concat!(env!("OUT_DIR"), "/type_names.rs"));

/// What is kept of the kernel's types, which are ten megabytes when they can be searched.
#[derive(Debug)]
struct Kept {
    /// A file in memory with those called as in [`NAMES`].
    few: OwnedFd,
    /// The functions whose names begin with `bpf_`: those that programs can call, and those that stand
    /// for LSM hooks.
    functions: HashSet<String>,
}

impl Kept {
    fn take() -> Result<Self, ProbeError> {
        let all = host::live_types()?;
        let ids = (1..=all.len() as u32).map(TypeId);
        let functions = ids.filter(|id| all.kind(*id) == Some(Kind::Function));
        let functions = functions.map(|id| all.name(id)).filter(|name| name.starts_with("bpf_"));
        let functions = functions.map(str::to_owned).collect();

        let what = "/memfd:ringfence_types";
        let file = memfd_create("ringfence_types", MemfdFlags::CLOEXEC);
        let mut file = File::from(file.map_err(|error| ProbeError::file(what, &error.into()))?);
        let written = file.write_all(&all.reduced(NAMES.iter().copied()));
        written.map_err(|error| ProbeError::file(what, &error))?;
        Ok(Self { few: file.into(), functions })
    }

    /// Taken once, when it is first asked for.
    fn get() -> Result<&'static Self, ProbeError> {
        static KEPT: OnceLock<Kept> = OnceLock::new();
        match KEPT.get() {
            Some(kept) => Ok(kept),
            None => Self::take().map(|kept| KEPT.get_or_init(|| kept)),
        }
    }
}

/// Whether the kernel has a function of this name, which begins with `bpf_`, in its BTF.
pub(crate) fn has_function(name: &str) -> Result<bool, ProbeError> {
    Kept::get().map(|kept| kept.functions.contains(name))
}

/// The kernel's types of those names. Not kept as such, because little is asked of them.
pub(crate) fn few() -> Result<Btf, ProbeError> {
    let file = format!("/proc/self/fd/{}", Kept::get()?.few.as_raw_fd());
    let bytes = std::fs::read(&file).map_err(|error| ProbeError::file(&file, &error))?;
    let malformed = |reason: String| ProbeError::Malformed { what: file.clone(), reason };
    Btf::from_vec(bytes).map_err(|error| malformed(error.to_string()))
}

/// Begins an object whose programs are to find the kernel's types. libbpf searches all of them for each
/// object that it is given, which is most of the time that loading one takes; here it is given those of
/// [`NAMES`] only. Not for programs that use a type's number (`bpf_core_type_id_kernel`), which is
/// another one there, nor for types of modules, which it looks for nowhere then.
pub(crate) fn builder() -> libbpf_rs::Result<ObjectBuilder> {
    let mut builder = ObjectBuilder::default();
    // Without them it takes longer, and says itself what is wrong with the kernel's.
    if let Ok(kept) = Kept::get() {
        builder.btf_custom_path(format!("/proc/self/fd/{}", kept.few.as_raw_fd()))?;
    }
    Ok(builder)
}

#[cfg(test)]
mod tests {
    use kernel_image::btf::Member;

    use super::*;

    #[test]
    fn functions_that_programs_call_and_lsm_hooks_are_found() {
        assert!(has_function("bpf_lsm_file_open").unwrap());
        assert!(has_function("bpf_rdonly_cast").unwrap());
        assert!(!has_function("bpf_lsm_no_such_hook").unwrap());
    }

    /// All that a relocation is computed from: which types there are, their sizes, members, enumerators.
    #[test]
    fn the_few_types_say_of_each_name_what_all_types_say() {
        let all = host::live_types().unwrap();
        let few = Btf::parse(&all.reduced(NAMES.iter().copied())).unwrap();
        assert!(few.len() < all.len() / 4, "{} of {} types", few.len(), all.len());
        let told = |types: &Btf, name: &str| -> Vec<String> {
            let named = types.all_named(name);
            let data = named.filter(|(kind, _)| !matches!(kind, Kind::Function | Kind::Variable));
            let describe = |(kind, id)| {
                let member = |member: Member<'_>| {
                    let what = types.resolved_kind(member.type_id);
                    (member.name.to_owned(), member.bit_offset, member.bit_size, what)
                };
                let members: Vec<_> = types.members(id).map(member).collect();
                let enumerators: Vec<_> = types.enumerators(id).collect();
                format!("{kind:?} of {:?} bytes: {members:?} {enumerators:?}", types.size(id))
            };
            data.map(describe).collect()
        };
        let mut found = 0;
        for name in NAMES {
            assert_eq!(told(&few, name), told(&all, name), "{name}");
            found += told(&all, name).len();
        }
        assert!(found > 50, "only {found} of the names are the kernel's");
    }

    /// The number of a type is another one among a few; see [`builder`].
    #[test]
    fn only_the_reader_which_searches_all_types_uses_the_number_of_one() {
        let sources = concat!(env!("CARGO_MANIFEST_DIR"), "/../../bpf");
        let mut users = Vec::new();
        for folder in [sources.to_owned(), format!("{sources}/lib")] {
            for file in std::fs::read_dir(folder).unwrap() {
                let path = file.unwrap().path();
                let text = path.is_file().then(|| std::fs::read_to_string(&path).unwrap());
                if text.is_some_and(|text| text.contains("bpf_core_type_id_kernel")) {
                    users.push(path.file_name().unwrap().to_owned());
                }
            }
        }
        assert_eq!(users, ["kernel_reader.bpf.c"]);
    }
}
