// SPDX-License-Identifier: Apache-2.0
//! The image on disk of the kernel that runs.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use guard::baseline::Identity;
use kernel_image::KernelImage;
use memmap2::Mmap;

/// Where distributions put the image of a release (kernel-install(8), and Debian before and since
/// 7.0).
pub(crate) fn places(release: &str) -> [PathBuf; 3] {
    [
        PathBuf::from(format!("/boot/vmlinuz-{release}")),
        PathBuf::from(format!("/usr/lib/modules/{release}/vmlinuz")),
        PathBuf::from(format!("/lib/modules/{release}/vmlinuz")),
    ]
}

/// Reads an image and makes sure that it is the running kernel's.
pub(crate) fn read(path: &Path, identity: &Identity) -> anyhow::Result<KernelImage> {
    let image = parse(path)?;
    let build_id = build_id(&image);
    if build_id != identity.build_id || build_id.is_empty() {
        bail!(
            "{} is another kernel: it has build id {build_id}, the running one {}; was the kernel \
             upgraded since this machine was booted?",
            path.display(),
            identity.build_id
        );
    }
    Ok(image)
}

/// Reads an image.
pub(crate) fn parse(path: &Path) -> anyhow::Result<KernelImage> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let metadata = file.metadata().with_context(|| path.display().to_string())?;
    if !metadata.is_file() || metadata.len() == 0 {
        bail!("{} is not a file with a kernel in it", path.display());
    }
    // SAFETY: the mapping is only read, and dropped once the image is decoded. Should somebody
    // write to the file meanwhile, the parser survives it as it survives any bytes.
    let bytes = unsafe { Mmap::map(&file) };
    let bytes = bytes.with_context(|| format!("cannot map {}", path.display()))?;
    KernelImage::parse(&bytes).with_context(|| path.display().to_string())
}

/// The build id of an image in hexadecimal; empty if it has none.
pub(crate) fn build_id(image: &KernelImage) -> String {
    image.build_id().unwrap_or_default().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_kernel_is_refused_with_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vmlinuz");
        for content in [&b""[..], b"no kernel"] {
            std::fs::write(&path, content).unwrap();
            let error = read(&path, &Identity::default()).unwrap_err();
            assert!(format!("{error:#}").contains("vmlinuz"), "{error:#}");
        }
    }
}
