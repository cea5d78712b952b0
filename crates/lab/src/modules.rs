// SPDX-License-Identifier: Apache-2.0
//! Which files a kernel module needs, and their bytes.
//!
//! modules.dep has a line for each module, `path: paths`, all of them relative to
//! /lib/modules/RELEASE. What a module needs is listed completely, the one to be loaded first at the
//! end (modules.dep(5), kmod). modules.builtin lists what is part of the kernel itself.
//!
//! Some find what they need by a name that several modules serve, as libcrc32c does with `crc32c`.
//! modules.softdep says so (`softdep libcrc32c pre: crc32c`), and modules.alias has the names. Of several
//! the generic one is taken, which every processor can run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;

use crate::error::{Error, Result};
use crate::kernels::Kernel;

/// A module that is larger after decompression is refused. Debian's largest of 2026, amdgpu, has
/// 30 MB.
const LARGEST: u64 = 256 << 20;

/// The modules that a kernel's package has.
#[derive(Debug)]
pub struct Modules {
    kernel: Kernel,
    /// The path of each, and those of what it needs, in the order of modules.dep.
    files: BTreeMap<String, (String, Vec<String>)>,
    builtin: BTreeSet<String>,
    /// What is to be loaded before, by the name of a module.
    before: BTreeMap<String, Vec<String>>,
    /// Modules by other names.
    aliases: BTreeMap<String, Vec<String>>,
}

/// The texts of the lists.
#[derive(Clone, Copy)]
struct Lists<'text> {
    dep: &'text str,
    builtin: &'text str,
    softdep: &'text str,
    alias: &'text str,
}

/// A module out of its wrapping.
#[derive(Debug)]
pub struct Module {
    /// Its path below /lib/modules/RELEASE, as in the package.
    pub path: String,
    /// The file as the package has it.
    pub packed: Vec<u8>,
    /// The ELF object.
    pub object: Vec<u8>,
}

impl Modules {
    /// Reads the lists of a kernel.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn of(kernel: &Kernel) -> Result<Self> {
        let read = |name: &str| {
            let path = kernel.modules().join(name);
            fs::read_to_string(&path).map_err(Error::file(path))
        };
        let lists = Lists {
            dep: &read("modules.dep")?,
            builtin: &read("modules.builtin")?,
            softdep: &read("modules.softdep")?,
            alias: &read("modules.alias")?,
        };
        Ok(Self::parse(kernel.clone(), &lists))
    }

    fn parse(kernel: Kernel, lists: &Lists<'_>) -> Self {
        let Lists { dep, builtin, softdep, alias } = *lists;
        let files = dep.lines().filter_map(|line| {
            let (path, needs) = line.split_once(':')?;
            let needs = needs.split_whitespace().map(str::to_owned).collect();
            Some((name_of(path), (path.to_owned(), needs)))
        });
        let builtin = builtin.lines().map(name_of).collect();
        let mut before: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in softdep.lines() {
            let soft = line.strip_prefix("softdep ").and_then(|line| line.split_once(" pre: "));
            if let Some((name, rest)) = soft {
                let names = rest.split(" post:").next().unwrap_or(rest).split_whitespace();
                let names = names.map(|name| name.replace('-', "_"));
                before.entry(name.replace('-', "_")).or_default().extend(names);
            }
        }
        let mut aliases: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in alias.lines() {
            let mut words = line.split_whitespace().skip(1);
            if let (Some(name), Some(module)) = (words.next(), words.next()) {
                let modules = aliases.entry(name.replace('-', "_")).or_default();
                modules.push(module.replace('-', "_"));
            }
        }
        Self { kernel, files: files.collect(), builtin, before, aliases }
    }

    /// The files to load for these modules, in an order in which each finds what it needs. Those
    /// that are part of the kernel need none.
    ///
    /// # Errors
    /// When a module is neither in the package nor part of the kernel.
    pub fn order<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Result<Vec<String>> {
        let mut order: Vec<String> = Vec::new();
        for name in names {
            let name = name.replace('-', "_");
            if self.files.contains_key(&name) {
                self.add(&name, &mut order, &mut BTreeSet::new());
            } else if !self.builtin.contains(&name) {
                return Err(self.error(&name, "is not in the package"));
            }
        }
        Ok(order)
    }

    /// Adds a module of the package after all that it needs. Names that are being added already are
    /// passed over, so that modules that want each other come to an end.
    fn add(&self, name: &str, order: &mut Vec<String>, begun: &mut BTreeSet<String>) {
        let Some((path, needs)) = self.files.get(name) else { return };
        if !begun.insert(name.to_owned()) {
            return;
        }
        for file in needs.iter().rev().chain([path]) {
            let before = self.before.get(&name_of(file));
            for wanted in before.into_iter().flatten().filter_map(|wanted| self.serves(wanted)) {
                self.add(wanted, order, begun);
            }
            if !order.contains(file) {
                order.push(file.clone());
            }
        }
    }

    /// The module of the package that is called so, or serves that name.
    fn serves<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        if self.files.contains_key(name) {
            return Some(name);
        }
        let modules = self.aliases.get(name)?;
        let generic = modules.iter().find(|module| module.ends_with("_generic"));
        generic.or(modules.first()).map(String::as_str)
    }

    /// Whether the package has the module, or the kernel has it built in.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        let name = name.replace('-', "_");
        self.files.contains_key(&name) || self.builtin.contains(&name)
    }

    /// Reads a module by the path that [`order`](Self::order) gave.
    ///
    /// # Errors
    /// When it cannot be read or decompressed.
    pub fn read(&self, path: &str) -> Result<Module> {
        let file = self.kernel.modules().join(path);
        let packed = fs::read(&file).map_err(Error::file(file))?;
        let object = unpack(path, &packed).map_err(|problem| self.error(path, &problem))?;
        Ok(Module { path: path.to_owned(), packed, object })
    }

    fn error(&self, module: &str, problem: &str) -> Error {
        let (module, kernel) = (module.to_owned(), self.kernel.name.clone());
        Error::Module { module, kernel, problem: problem.to_owned() }
    }
}

/// The name that a module has in the kernel, from its path: `kernel/fs/9p/9p-x.ko.xz` is `9p_x`.
#[must_use]
pub fn name_of(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file).replace('-', "_")
}

fn unpack(path: &str, packed: &[u8]) -> Result<Vec<u8>, String> {
    let mut object = Vec::new();
    let mut read = |from: &mut dyn Read| {
        let read = from.take(LARGEST).read_to_end(&mut object);
        read.map_err(|error| format!("does not decompress: {error}"))
    };
    if path.ends_with(".xz") {
        read(&mut lzma_rust2::XzReader::new(packed, true))?;
    } else if path.ends_with(".zst") {
        let stream = ruzstd::decoding::StreamingDecoder::new(packed);
        read(&mut stream.map_err(|error| format!("does not decompress: {error}"))?)?;
    } else {
        return Ok(packed.to_vec());
    }
    Ok(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "kernel/drivers/virtio/virtio_ring.ko:\n\
        kernel/drivers/virtio/virtio.ko: kernel/drivers/virtio/virtio_ring.ko\n\
        kernel/drivers/virtio/virtio_pci.ko: kernel/drivers/virtio/virtio.ko \
        kernel/drivers/virtio/virtio_ring.ko\n\
        kernel/net/sched/sch-x.ko.xz: kernel/drivers/virtio/virtio_ring.ko\n\
        kernel/lib/libcrc32c.ko:\n\
        kernel/net/nf_conntrack.ko: kernel/lib/libcrc32c.ko\n\
        kernel/arch/crc32c-intel.ko:\n\
        kernel/net/sched/sch-y.ko:\n\
        kernel/crypto/crc32c_generic.ko:\n";

    fn modules() -> Modules {
        let kernel = Kernel {
            name: "6.1-amd64".to_owned(),
            release: "6.1.0".to_owned(),
            version: "1".to_owned(),
            directory: "/nowhere".into(),
            beside_modules: false,
        };
        Modules::parse(
            kernel,
            &Lists {
                dep: DEP,
                builtin: "kernel/drivers/char/hw_random/rng-core.ko\n",
                softdep: "# Soft dependencies\nsoftdep libcrc32c pre: crc32c post: other\n\
                    softdep crc32c_intel pre: sch-y\n\
                    softdep sch_y pre: crc32c_intel\n",
                alias: "alias crc32c crc32c_intel\nalias crc32c crc32c_generic\n",
            },
        )
    }

    #[test]
    fn what_a_module_needs_is_loaded_before_it_and_once() {
        let order = modules().order(["virtio_pci", "virtio", "sch-x"]).unwrap();
        let names: Vec<_> = order.iter().map(|path| name_of(path)).collect();
        assert_eq!(names, ["virtio_ring", "virtio", "virtio_pci", "sch_x"]);
    }

    #[test]
    fn what_a_module_finds_by_another_name_is_loaded_before_it() {
        let order = modules().order(["nf_conntrack"]).unwrap();
        let names: Vec<_> = order.iter().map(|path| name_of(path)).collect();
        assert_eq!(names, ["crc32c_generic", "libcrc32c", "nf_conntrack"]);
    }

    #[test]
    fn modules_that_want_each_other_are_loaded_once_each() {
        let order = modules().order(["sch_y"]).unwrap();
        let names: Vec<_> = order.iter().map(|path| name_of(path)).collect();
        assert_eq!(names, ["crc32c_intel", "sch_y"]);
    }

    #[test]
    fn what_is_built_in_needs_no_file_and_what_is_nowhere_is_an_error() {
        let modules = modules();
        assert!(modules.order(["rng_core"]).unwrap().is_empty());
        assert!(modules.has("rng-core") && modules.has("sch_x") && !modules.has("none"));
        let error = modules.order(["none"]).unwrap_err().to_string();
        assert_eq!(error, "module none of 6.1-amd64: is not in the package");
    }

    #[test]
    fn a_module_that_is_cut_off_does_not_decompress() {
        assert!(unpack("a.ko.xz", b"\xfd7zXZ\0\0").is_err());
        assert!(unpack("a.ko.zst", b"\x28\xb5\x2f\xfd").is_err());
        assert_eq!(unpack("a.ko", b"\x7fELF").unwrap(), b"\x7fELF");
    }
}
