// SPDX-License-Identifier: Apache-2.0
//! Which baseline memory is compared with: a sealed one of this boot, or one that is taken now.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use guard::baseline::image::FACT_SOURCES;
use guard::baseline::{Baseline, BaselineKind, Identity, SealError};
use kernel_memory::Kernel;
use probes::ModuleDirectory;

use crate::clock::Moment;
use crate::report::BaselineUsed;
use crate::running_image;
use crate::store::Store;

/// Where the baseline is kept.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub(crate) struct Place {
    /// Where sealed baselines are kept: /var/lib/ringfence if not given, and nowhere for a kernel
    /// that is looked at from outside
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
}

impl Place {
    /// The directory for the running kernel.
    fn directory(&self) -> &Path {
        self.state_dir.as_deref().unwrap_or(Path::new("/var/lib/ringfence"))
    }
}

/// Which baseline to use.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub(crate) struct Arguments {
    #[command(flatten)]
    place: Place,

    /// Take the present state as the baseline and replace the one there is
    #[arg(long)]
    new_baseline: bool,

    /// The image of the kernel; found below /boot and /usr/lib/modules if not given
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,

    /// Where the files of the loaded modules are; /lib/modules/RELEASE if not given
    #[arg(long, value_name = "DIR")]
    modules: Option<PathBuf>,
}

impl Arguments {
    /// By the kernel's image and the files of its modules, kept nowhere.
    pub(crate) fn of_files(image: Option<PathBuf>, modules: Option<PathBuf>) -> Self {
        Self { place: Place { state_dir: None }, new_baseline: false, image, modules }
    }

    /// Where the files of modules are for the kernel of this release.
    pub(crate) fn modules(&self, release: &str) -> ModuleDirectory {
        match &self.modules {
            Some(directory) => ModuleDirectory::new(directory),
            None => ModuleDirectory::of_release(release),
        }
    }

    /// The image, if one was named.
    pub(crate) fn image(&self) -> Option<&Path> {
        self.image.as_deref()
    }

    /// Whether the present state is to become the baseline.
    pub(crate) fn is_new_wanted(&self) -> bool {
        self.new_baseline
    }

    /// Where baselines are kept, if that was named.
    pub(crate) fn state_directory(&self) -> Option<&Path> {
        self.place.state_dir.as_deref()
    }

    /// The same with an image that was named.
    pub(crate) fn with_image(self, image: Option<PathBuf>) -> Self {
        Self { image, ..self }
    }
}

impl From<Place> for Arguments {
    /// The one there is, or a first one.
    fn from(place: Place) -> Self {
        Self { place, new_baseline: false, image: None, modules: None }
    }
}

/// The baseline for the running kernel. Whatever is worth knowing of how it was come by goes into
/// `notices`. `facts` gives the values that are noted in a baseline that is taken now.
pub(crate) fn obtain(
    kernel: &Kernel<'_>,
    identity: &Identity,
    arguments: &Arguments,
    facts: impl Fn() -> BTreeMap<String, String>,
    notices: &mut Vec<String>,
) -> anyhow::Result<Baseline> {
    if let Some(baseline) = of_image(kernel, identity, arguments, &facts, notices)? {
        return Ok(baseline);
    }
    let store = Store::new(arguments.place.directory(), &identity.build_id, &identity.release);
    if let Some(sealed) = sealed(&store, identity, arguments.new_baseline, notices)? {
        return Ok(sealed);
    }
    let facts = facts();
    store
        .replace(|file| Baseline::write(kernel, identity, &facts, file))
        .context("the baseline of this first check could not be taken")?;
    let map = store.open()?.context("the baseline vanished right after it was written")?;
    let baseline = Baseline::open(Box::new(map), identity)
        .with_context(|| format!("the baseline just written to {}", store.file().display()))?;
    notices.push(format!(
        "the present state was taken as the baseline and sealed in {}; it vouches for what comes \
         after, not for what came before",
        store.file().display()
    ));
    Ok(baseline)
}

/// The baseline from the running kernel's image: the one sealed in this boot, or a new one. None
/// where no image can be used, which is said; where it was named, that is an error.
fn of_image(
    kernel: &Kernel<'_>,
    identity: &Identity,
    arguments: &Arguments,
    facts: &impl Fn() -> BTreeMap<String, String>,
    notices: &mut Vec<String>,
) -> anyhow::Result<Option<Baseline>> {
    let directory = arguments.place.directory();
    let store = Store::of_image(directory, &identity.build_id, &identity.release);
    if arguments.image.is_none() && !arguments.new_baseline {
        // It was made from the image in this boot; whatever else is there is made anew.
        let sealed = store.open().ok().flatten();
        let sealed = sealed.and_then(|map| Baseline::open(Box::new(map), identity).ok());
        if let Some(baseline) = sealed.filter(|sealed| sealed.kind() == BaselineKind::Image) {
            notices.extend(baseline.fact(FACT_SOURCES).map(str::to_owned));
            return Ok(Some(baseline));
        }
    }
    let made = match &arguments.image {
        Some(path) => Some((path.clone(), running_image::read(path, identity))),
        None => running_image::places(&identity.release)
            .into_iter()
            .find(|path| path.exists())
            .map(|path| (path.clone(), running_image::read(&path, identity))),
    };
    let Some((path, image)) = made else {
        notices.push(format!(
            "there is no image of the running kernel in /boot or /usr/lib/modules/{}; name it with \
             --image, and the kernel is held to it rather than to its state at first check",
            identity.release
        ));
        return Ok(None);
    };
    let made = image.and_then(|image| {
        store
            .replace(|file| Baseline::write_from_image(image, kernel, identity, facts(), file))
            .with_context(|| format!("no baseline could be made from {}", path.display()))
    });
    if let Err(error) = made {
        if arguments.image.is_some() {
            return Err(error);
        }
        notices.push(format!("the kernel's image is not used: {error:#}"));
        return Ok(None);
    }
    let map = store.open()?.context("the baseline vanished right after it was written")?;
    let baseline = Baseline::open(Box::new(map), identity)
        .with_context(|| format!("the baseline just written to {}", store.file().display()))?;
    notices.extend(baseline.fact(FACT_SOURCES).map(str::to_owned));
    Ok(Some(baseline))
}

/// The sealed baseline if it is to be used; none if one is to be taken.
fn sealed(
    store: &Store,
    identity: &Identity,
    replace: bool,
    notices: &mut Vec<String>,
) -> anyhow::Result<Option<Baseline>> {
    let opened = store.open();
    if replace {
        match opened.map(|map| map.map(|map| Baseline::read(Box::new(map)))) {
            Ok(None) => {}
            Ok(Some(Ok(old))) => notices.push(format!(
                "--new-baseline replaced the baseline taken at {} in boot {} (digest {})",
                Moment::from_unix(old.taken_at()),
                old.identity().boot_id,
                old.digest()
            )),
            Ok(Some(Err(error))) => {
                notices
                    .push(format!("--new-baseline replaced a baseline that was no use: {error}"));
            }
            Err(error) => {
                notices
                    .push(format!("--new-baseline replaced a baseline that was no use: {error:#}"));
            }
        }
        return Ok(None);
    }
    let Some(map) = opened? else { return Ok(None) };
    match Baseline::open(Box::new(map), identity) {
        Ok(baseline) => Ok(Some(baseline)),
        Err(SealError::BootId { sealed, .. }) => {
            notices.push(format!(
                "the baseline there was is of another boot ({sealed}), and one of the first check \
                 lasts for one boot"
            ));
            Ok(None)
        }
        Err(error) => Err(error).with_context(|| {
            format!(
                "the baseline {} cannot be used. Find out why before you trust this machine; then \
                 --new-baseline takes the present state as a new one",
                store.file().display()
            )
        }),
    }
}

/// What a report says of the baseline.
pub(crate) fn used(baseline: &Baseline, arguments: &Arguments) -> BaselineUsed {
    let words = match baseline.kind() {
        BaselineKind::Image => format!("digest {}", baseline.digest()),
        BaselineKind::FirstCheck => {
            let identity = baseline.identity();
            let store =
                Store::new(arguments.place.directory(), &identity.build_id, &identity.release);
            format!("{}, in {}", Moment::from_unix(baseline.taken_at()), store.file().display())
        }
    };
    BaselineUsed { kind: baseline.kind(), words }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use kernel_image::Symbols;
    use kernel_image::btf::Btf;
    use kernel_memory::{KernelMemory, Piece, ReadError};

    use super::*;

    /// A kernel of two pages: text, then rodata.
    struct TwoPages;

    const START: u64 = 0xffff_ffff_8100_0000;

    impl KernelMemory for TwoPages {
        fn name(&self) -> &'static str {
            "test"
        }
        fn visit(
            &self,
            start: u64,
            length: u64,
            visitor: &mut dyn FnMut(Piece<'_>) -> std::ops::ControlFlow<()>,
        ) -> Result<(), ReadError> {
            let _ = visitor(Piece::Bytes { address: start, bytes: &vec![0x90; length as usize] });
            Ok(())
        }
    }

    struct Machine {
        directory: tempfile::TempDir,
        symbols: Symbols,
        types: Btf,
        identity: Identity,
    }

    impl Machine {
        fn new() -> Self {
            let names = [(0, "_stext"), (0x1000, "_etext"), (0x1000, "__start_rodata")];
            let names = names.into_iter().chain([(0x2000, "__end_rodata")]);
            let identity = Identity {
                release: "6.12".into(),
                build_id: "abcd".into(),
                boot_id: "boot-1".into(),
            };
            Self {
                directory: tempfile::tempdir().unwrap(),
                symbols: Symbols::from_iter(names.map(|(at, name)| (START + at, b'T', name))),
                types: Btf::parse(&EMPTY_BTF).unwrap(),
                identity,
            }
        }

        fn obtain(&self, new_baseline: bool) -> (anyhow::Result<Baseline>, Vec<String>) {
            let kernel = Kernel { memory: &TwoPages, symbols: &self.symbols, types: &self.types };
            let state_dir = Some(self.directory.path().to_owned());
            let place = Place { state_dir };
            let arguments = Arguments { place, new_baseline, image: None, modules: None };
            let mut notices = Vec::new();
            let baseline = obtain(&kernel, &self.identity, &arguments, BTreeMap::new, &mut notices);
            // No system has an image of this kernel, and that is always said first.
            assert!(notices.remove(0).contains("no image of the running kernel"), "{notices:?}");
            (baseline, notices)
        }

        fn file(&self) -> PathBuf {
            self.directory.path().join("abcd.baseline")
        }
    }

    /// A header with an empty type section and a string section of one empty string
    /// (Documentation/bpf/btf.rst).
    const EMPTY_BTF: [u8; 25] =
        [0x9f, 0xeb, 1, 0, 24, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];

    #[test]
    fn the_first_check_takes_a_baseline_and_the_next_uses_it() {
        let machine = Machine::new();
        let (first, notices) = machine.obtain(false);
        let digest = first.unwrap().digest();
        assert!(notices[0].contains("was taken as the baseline"), "{notices:?}");
        let (second, notices) = machine.obtain(false);
        assert_eq!(second.unwrap().digest(), digest);
        assert!(notices.is_empty(), "{notices:?}");
    }

    #[test]
    fn a_baseline_of_another_boot_is_replaced_and_that_is_said() {
        let mut machine = Machine::new();
        machine.obtain(false).0.unwrap();
        machine.identity.boot_id = "boot-2".into();
        let (baseline, notices) = machine.obtain(false);
        assert_eq!(baseline.unwrap().identity().boot_id, "boot-2");
        assert!(notices[0].contains("another boot (boot-1)"), "{notices:?}");
        assert_eq!(notices.len(), 2);
    }

    #[test]
    fn a_changed_baseline_is_an_error_until_a_new_one_is_asked_for() {
        let machine = Machine::new();
        machine.obtain(false).0.unwrap();
        let mut bytes = fs::read(machine.file()).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(machine.file(), &bytes).unwrap();
        let (refused, _) = machine.obtain(false);
        let message = format!("{:#}", refused.unwrap_err());
        assert!(message.contains("--new-baseline") && message.contains("digest"), "{message}");
        assert_eq!(fs::read(machine.file()).unwrap(), bytes);
        let (taken, notices) = machine.obtain(true);
        taken.unwrap();
        assert!(notices[0].contains("was no use"), "{notices:?}");
    }

    #[test]
    fn a_new_baseline_says_which_one_it_replaced() {
        let machine = Machine::new();
        let digest = machine.obtain(false).0.unwrap().digest();
        let (_, notices) = machine.obtain(true);
        assert!(notices[0].contains(&digest), "{notices:?}");
    }

    #[test]
    fn a_state_directory_that_cannot_be_written_is_named() {
        let machine = Machine::new();
        let blocked = machine.directory.path().join("file");
        fs::write(&blocked, b"").unwrap();
        let kernel = Kernel { memory: &TwoPages, symbols: &machine.symbols, types: &machine.types };
        let arguments = Arguments::from(Place { state_dir: Some(blocked.join("state")) });
        let error =
            obtain(&kernel, &machine.identity, &arguments, BTreeMap::new, &mut vec![]).unwrap_err();
        assert!(format!("{error:#}").contains("file/state"), "{error:#}");
    }
}
