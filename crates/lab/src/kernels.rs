// SPDX-License-Identifier: Apache-2.0
//! The kernels that tests/kernels/fetch keeps.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kernel_image::payload;

use crate::error::{Error, Result};

/// A fetched kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Its name in the cache: series and flavour, as in `6.12-cloud-amd64`.
    pub name: String,
    /// What `uname -r` says.
    pub release: String,
    /// The version of the package.
    pub version: String,
    /// Where its files are.
    pub directory: PathBuf,
    /// Whether the package has the kernel with the modules and nothing in /boot, as since 7.x.
    pub beside_modules: bool,
}

impl Kernel {
    /// The boot image.
    #[must_use]
    pub fn vmlinuz(&self) -> PathBuf {
        self.directory.join("vmlinuz")
    }

    /// What is packed in the boot image: the kernel's ELF, with the list of relocations behind it.
    ///
    /// # Errors
    /// When the boot image cannot be read or unpacked.
    pub fn vmlinux(&self) -> Result<Arc<[u8]>> {
        let path = self.vmlinuz();
        let packed = fs::read(&path).map_err(Error::file(&path))?;
        match payload::unpack(&packed) {
            Ok(payload) => Ok(payload.elf.into()),
            Err(problem) => Err(Error::Binary { path, problem: problem.to_string() }),
        }
    }

    /// The kernel's configuration.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.directory.join("config")
    }

    /// What a system has below /lib/modules/RELEASE.
    #[must_use]
    pub fn modules(&self) -> PathBuf {
        self.directory.join("modules")
    }

    /// Where the boot image is on a system with this kernel.
    #[must_use]
    pub fn vmlinuz_in_guest(&self) -> String {
        if self.beside_modules {
            format!("/usr/lib/modules/{}/vmlinuz", self.release)
        } else {
            format!("/boot/vmlinuz-{}", self.release)
        }
    }

    /// Whether it is of the flavour without drivers for hardware.
    #[must_use]
    pub fn is_for_clouds(&self) -> bool {
        self.name.contains("-cloud-")
    }

    /// Major and minor version.
    #[must_use]
    pub fn series(&self) -> (u32, u32) {
        let mut numbers = self.release.split(['.', '-', '+']).map(|part| part.parse().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    }

    /// Whether the kernel is called so: by its name or its release, or the beginning of one up to
    /// where a word ends. `6.1` is not 6.12.
    #[must_use]
    pub fn is_called(&self, wanted: &str) -> bool {
        [&self.name, &self.release].into_iter().any(|name| {
            name.strip_prefix(wanted)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '-', '+']))
        })
    }
}

/// Where the kernels are: `$RINGFENCE_KERNELS`, or .cache/kernels in the repository.
#[must_use]
pub fn cache() -> PathBuf {
    env::var_os("RINGFENCE_KERNELS")
        .map_or_else(|| repository().join(".cache/kernels"), PathBuf::from)
}

/// The repository that the lab was built in.
#[must_use]
pub fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_owned()
}

/// All kernels of a cache, in the order of its list.
///
/// # Errors
/// When the list is missing or a kernel's files are.
pub fn all(cache: &Path) -> Result<Vec<Kernel>> {
    let list = cache.join("versions.tsv");
    let problem = |problem: &str| Error::Cache { path: list.clone(), problem: problem.to_owned() };
    let text = fs::read_to_string(&list).map_err(|source| problem(&source.to_string()))?;
    let kernels: Vec<_> = text
        .lines()
        .map(|line| parse(cache, line).ok_or_else(|| problem("a line that is no kernel")))
        .collect::<Result<_>>()?;
    for kernel in &kernels {
        for path in [kernel.vmlinuz(), kernel.modules().join("modules.dep")] {
            if !path.is_file() {
                return Err(Error::Cache { path, problem: "is missing".to_owned() });
            }
        }
    }
    Ok(kernels)
}

/// The kernels of a cache that are called so, at least one.
///
/// # Errors
/// When no kernel is, or the cache is not whole.
pub fn called(cache: &Path, wanted: &str) -> Result<Vec<Kernel>> {
    let all = all(cache)?;
    let found: Vec<_> = all.iter().filter(|kernel| kernel.is_called(wanted)).cloned().collect();
    if found.is_empty() {
        let there = names(&all);
        return Err(Error::Kernel(format!("no kernel is called {wanted}; there are {there}")));
    }
    Ok(found)
}

/// The one kernel of a cache that is called so.
///
/// # Errors
/// When none is, or several are, or the cache is not whole.
pub fn only(cache: &Path, wanted: &str) -> Result<Kernel> {
    let mut found = called(cache, wanted)?;
    let exact = found.iter().position(|kernel| kernel.name == wanted);
    match (exact, found.len()) {
        (Some(at), _) => Ok(found.swap_remove(at)),
        (None, 1) => Ok(found.swap_remove(0)),
        _ => Err(Error::Kernel(format!("{wanted} could be {}; name one of them", names(&found)))),
    }
}

fn names(kernels: &[Kernel]) -> String {
    kernels.iter().map(|kernel| kernel.name.as_str()).collect::<Vec<_>>().join(", ")
}

fn parse(cache: &Path, line: &str) -> Option<Kernel> {
    let mut fields = line.split('\t').map(str::to_owned);
    let (name, release) = (fields.next()?, fields.next()?);
    let (package, version) = (fields.next()?, fields.next()?);
    let beside_modules = package.starts_with("linux-binary-");
    Some(Kernel { directory: cache.join(&name), name, release, version, beside_modules })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(line: &str) -> Kernel {
        parse(Path::new("/cache"), line).unwrap()
    }

    #[test]
    fn a_line_of_the_list_is_a_kernel() {
        let seven = kernel(
            "7-amd64\t7.3.4+deb13-amd64\tlinux-binary-7.3.4+deb13-amd64\t7.3.4-1~bpo13+1\ttrixie",
        );
        assert_eq!(seven.series(), (7, 3));
        assert_eq!(seven.vmlinuz_in_guest(), "/usr/lib/modules/7.3.4+deb13-amd64/vmlinuz");
        assert_eq!(seven.modules(), Path::new("/cache/7-amd64/modules"));
        let old = kernel("6.1-amd64\t6.1.0-56-amd64\tlinux-image-6.1.0-56-amd64\t6.1.192-2\tb");
        assert_eq!(old.vmlinuz_in_guest(), "/boot/vmlinuz-6.1.0-56-amd64");
        assert!(parse(Path::new("/cache"), "6.1-amd64\t6.1.0").is_none());
    }

    #[test]
    fn a_kernel_answers_to_its_series_its_release_and_its_name_but_not_to_half_a_number() {
        let kernel = kernel("6.12-cloud-amd64\t6.12.117+deb13-cloud-amd64\tlinux-image-x\t1\ts");
        for name in ["6.12", "6.12.117", "6.12.117+deb13-cloud-amd64", "6.12-cloud", "6"] {
            assert!(kernel.is_called(name), "{name}");
        }
        for name in ["6.1", "6.12.11", "cloud", "7"] {
            assert!(!kernel.is_called(name), "{name}");
        }
    }
}
