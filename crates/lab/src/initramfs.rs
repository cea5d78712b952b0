// SPDX-License-Identifier: Apache-2.0
//! The guest's file system: busybox, the agent, the kernel's own files, modules, and what a scenario
//! brings.
//!
//! It is put together for each boot. That takes some tenths of a second, less than it would take to
//! find out whether a kept one is still right.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::binaries::{bring, this_program};
use crate::cpio::Archive;
use crate::error::{Error, Result};
use crate::kernels::Kernel;
use crate::modules::Modules;

/// What the agent's port needs. Part of the kernel from Debian's 6.12 on.
const PORT: [&str; 2] = ["virtio_pci", "virtio_console"];

/// Debian's busybox-static.
const BUSYBOX: &str = "/bin/busybox";

/// Makes the archive. `image` stands where the system has the boot image, in its place if there is one.
///
/// # Errors
/// When a file cannot be read or a module is missing.
pub(crate) fn make(
    kernel: &Kernel,
    image: Option<&[u8]>,
    modules: &[String],
    files: &[(PathBuf, String)],
) -> Result<Vec<u8>> {
    let mut archive = Archive::new();
    for place in ["dev", "proc", "sys", "tmp", "run", "root", "var/lib", "var/log", "etc"] {
        archive.directory(place);
    }
    archive.file("init", 0o755, include_bytes!("init.sh"));
    archive.file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n");
    archive.file("etc/group", 0o644, b"root:x:0:\n");
    archive.file("etc/hostname", 0o644, b"lab\n");

    let mut brought = bring(Path::new(BUSYBOX), BUSYBOX)?;
    brought.extend(bring(&this_program()?, "/lab/agent")?);
    for (host, guest) in files {
        brought.extend(bring(host, guest)?);
    }
    let mut there = BTreeSet::new();
    for file in brought {
        if there.insert(file.path.clone()) {
            archive.file(&file.path, file.permissions, &file.bytes);
        }
    }

    let in_guest = kernel.vmlinuz_in_guest();
    match image {
        Some(image) => archive.file(&in_guest, 0o644, image),
        None => {
            let vmlinuz = kernel.vmlinuz();
            let image = fs::read(&vmlinuz).map_err(Error::file(&vmlinuz))?;
            archive.file(&in_guest, 0o644, &image);
        }
    }
    add_modules(&mut archive, kernel, modules)?;
    Ok(archive.finish())
}

/// Modules are there twice: where the package has them and as it has them, and unpacked for the
/// guest's insmod, which cannot unpack all of them.
fn add_modules(archive: &mut Archive, kernel: &Kernel, names: &[String]) -> Result<()> {
    let modules = Modules::of(kernel)?;
    let below = format!("/lib/modules/{}", kernel.release);
    for list in ["modules.dep", "modules.builtin"] {
        let path = kernel.modules().join(list);
        let bytes = fs::read(&path).map_err(Error::file(&path))?;
        archive.file(&format!("{below}/{list}"), 0o644, &bytes);
    }
    let mut order = String::new();
    for path in modules.order(PORT.into_iter().chain(names.iter().map(String::as_str)))? {
        let module = modules.read(&path)?;
        archive.file(&format!("{below}/{path}"), 0o644, &module.packed);
        let file = Path::new(&path).file_name().unwrap_or_default().to_string_lossy();
        let file = file.trim_end_matches(".xz").trim_end_matches(".zst");
        archive.file(&format!("/lab/modules/{file}"), 0o644, &module.object);
        order.push_str(file);
        order.push('\n');
    }
    archive.file("/lab/modules/order", 0o644, order.as_bytes());
    Ok(())
}
