// SPDX-License-Identifier: Apache-2.0
//! What clients have installed, kept for the next `ringfenced`: rules outlive the daemon that was told them.
//!
//! A directory for each client, with `rules.json` (the text, and whether all of it is a dry run) and a file for
//! each collection, NAME.sha256 or NAME.sha512, of 32 bytes for each digest. A file is written whole or not at
//! all. By default they lie in /run: rules hold until the host is started anew, and bad ones no longer.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use rules::collection::{DIGESTS, Digest, is_name};
use rules::{Algorithm, Collection, RuleSet};
use serde::{Deserialize, Serialize};

const RULES: &str = "rules.json";
const DIGEST_BYTES: usize = size_of::<Digest>();

/// Where it is kept. Nobody else has it while this is there.
#[derive(Debug)]
pub struct Kept {
    directory: PathBuf,
    _lock: File,
}

/// What a client had installed.
#[derive(Debug)]
pub struct Saved {
    /// As it was given.
    pub text: String,
    /// What it says.
    pub set: RuleSet,
    /// By name.
    pub collections: BTreeMap<String, Collection>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules<'text> {
    text: std::borrow::Cow<'text, str>,
    dry_run: bool,
}

impl Kept {
    /// In this directory, which is made if it is not there.
    pub fn open(directory: &Path) -> anyhow::Result<Self> {
        let at = || format!("keeping rules in {}", directory.display());
        // What is above it is for all: the socket is there too.
        directory.parent().map_or(Ok(()), fs::create_dir_all).with_context(at)?;
        private_directory(directory).with_context(at)?;
        let mut options = File::options();
        options.write(true).create(true).truncate(false).mode(0o600);
        let lock = options.open(directory.join("lock")).with_context(at)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { directory: directory.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => bail!(
                "another ringfenced keeps its rules in {}; end it, or name another directory (--state)",
                directory.display()
            ),
            Err(TryLockError::Error(error)) => Err(error).with_context(at),
        }
    }

    /// A client has these rules from now on.
    pub fn save_rules(&self, client: &str, text: &str, dry_run: bool) -> io::Result<()> {
        let rules = Rules { text: text.into(), dry_run };
        self.write(client, RULES, &serde_json::to_vec(&rules)?)
    }

    /// And this collection.
    pub fn save_collection(
        &self,
        client: &str,
        name: &str,
        collection: &Collection,
    ) -> io::Result<()> {
        let algorithm = collection.algorithm();
        self.write(client, &file_of(name, algorithm), collection.digests().as_flattened())?;
        self.remove_collections(client, name, |other| other != algorithm)
    }

    /// And no more this one.
    pub fn drop_collection(&self, client: &str, name: &str) -> io::Result<()> {
        self.remove_collections(client, name, |_| true)
    }

    fn remove_collections(
        &self,
        client: &str,
        name: &str,
        which: impl Fn(Algorithm) -> bool,
    ) -> io::Result<()> {
        for algorithm in ALGORITHMS.into_iter().filter(|algorithm| which(*algorithm)) {
            let path = self.directory.join(client).join(file_of(name, algorithm));
            or_not_there(fs::remove_file(path))?;
        }
        Ok(())
    }

    /// A client has nothing any more.
    pub fn forget(&self, client: &str) -> io::Result<()> {
        or_not_there(fs::remove_dir_all(self.directory.join(client)))
    }

    /// What a client had, if it had anything.
    pub fn read(&self, client: &str) -> anyhow::Result<Option<Saved>> {
        let directory = self.directory.join(client);
        if !directory.exists() {
            return Ok(None);
        }
        let path = directory.join(RULES);
        let wrong = || format!("{} is not what was written there", path.display());
        let bytes = match fs::read(&path) {
            // There are collections only.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            read => Some(read.with_context(|| path.display().to_string())?),
        };
        let (text, set) = match &bytes {
            Some(bytes) => rules_of(bytes).with_context(wrong)?,
            None => Default::default(),
        };
        let mut collections = BTreeMap::new();
        for entry in fs::read_dir(&directory)? {
            let name = entry?.file_name();
            let parts = name.to_str().and_then(|name| name.split_once('.'));
            let Some((name, algorithm)) =
                parts.and_then(|(name, kind)| Some((name, algorithm_of(kind)?)))
            else {
                continue;
            };
            let path = directory.join(file_of(name, algorithm));
            let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
            ensure!(is_name(name), "{} is no name of a collection", path.display());
            let collection = collection_of(algorithm, &bytes);
            let collection = collection
                .with_context(|| format!("{} is not what was written there", path.display()))?;
            collections.insert(name.to_owned(), collection);
        }
        Ok(Some(Saved { text, set, collections }))
    }

    fn write(&self, client: &str, name: &str, bytes: &[u8]) -> io::Result<()> {
        let directory = self.directory.join(client);
        private_directory(&directory)?;
        let new = directory.join("new");
        let mut file =
            File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(bytes)?;
        fs::rename(&new, directory.join(name))
    }
}

/// What is kept of rules: their text, and what it says.
///
/// # Errors
/// What is wrong with it.
pub fn rules_of(bytes: &[u8]) -> anyhow::Result<(String, RuleSet)> {
    let Rules { text, dry_run } = serde_json::from_slice(bytes)?;
    let mut set = RuleSet::from_toml(&text)?;
    if dry_run {
        set.rules.iter_mut().for_each(|rule| rule.dry_run = true);
    }
    Ok((text.into_owned(), set))
}

/// What is kept of a collection.
///
/// # Errors
/// What is wrong with it.
pub fn collection_of(algorithm: Algorithm, bytes: &[u8]) -> anyhow::Result<Collection> {
    let (digests, rest) = bytes.as_chunks::<DIGEST_BYTES>();
    ensure!(rest.is_empty() && digests.len() <= DIGESTS, "it has {} bytes", bytes.len());
    Ok(Collection::new(algorithm, digests.to_vec())?)
}

const ALGORITHMS: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Sha512Truncated];

fn file_of(name: &str, algorithm: Algorithm) -> String {
    match algorithm {
        Algorithm::Sha256 => format!("{name}.sha256"),
        Algorithm::Sha512Truncated => format!("{name}.sha512"),
    }
}

fn algorithm_of(kind: &str) -> Option<Algorithm> {
    match kind {
        "sha256" => Some(Algorithm::Sha256),
        "sha512" => Some(Algorithm::Sha512Truncated),
        _ => None,
    }
}

fn private_directory(path: &Path) -> io::Result<()> {
    let made = DirBuilder::new().mode(0o700).create(path);
    made.or_else(|error| if path.is_dir() { Ok(()) } else { Err(error) })
}

fn or_not_there(result: io::Result<()>) -> io::Result<()> {
    result
        .or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: &str = "org.example.test";
    const RULE: &str = "[[rule]]\nid = 1\nevent = \"process_exec\"\naction = \"deny\"\n";

    fn collection(algorithm: Algorithm, bytes: &[u8]) -> Collection {
        Collection::new(algorithm, bytes.iter().map(|byte| [*byte; 32]).collect()).unwrap()
    }

    #[test]
    fn what_was_saved_is_read_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let kept = Kept::open(directory.path()).unwrap();
        assert!(kept.read(CLIENT).unwrap().is_none());
        let known = collection(Algorithm::Sha256, &[3, 1, 2]);
        kept.save_collection(CLIENT, "known", &known).unwrap();
        // What rules ask for is there before them.
        let before = kept.read(CLIENT).unwrap().unwrap();
        assert!(before.text.is_empty() && before.collections.len() == 1);
        kept.save_rules(CLIENT, RULE, true).unwrap();
        kept.save_collection(CLIENT, "changes", &known).unwrap();
        let other = collection(Algorithm::Sha512Truncated, &[7]);
        kept.save_collection(CLIENT, "changes", &other).unwrap();
        kept.save_collection(CLIENT, "gone", &known).unwrap();
        kept.drop_collection(CLIENT, "gone").unwrap();
        kept.drop_collection(CLIENT, "never-there").unwrap();
        drop(kept);

        let kept = Kept::open(directory.path()).unwrap();
        let saved = kept.read(CLIENT).unwrap().unwrap();
        assert_eq!(saved.text, RULE);
        assert!(saved.set.rules.iter().all(|rule| rule.dry_run));
        let wanted = [("changes".to_owned(), other), ("known".to_owned(), known)];
        assert_eq!(saved.collections, BTreeMap::from(wanted));
        kept.forget(CLIENT).unwrap();
        kept.forget(CLIENT).unwrap();
        assert!(kept.read(CLIENT).unwrap().is_none());
    }

    #[test]
    fn what_was_damaged_is_named_and_not_taken_for_something_else() {
        let directory = tempfile::tempdir().unwrap();
        let kept = Kept::open(directory.path()).unwrap();
        let of_client = directory.path().join(CLIENT);
        let damage = |name: &str, bytes: &[u8]| {
            kept.save_rules(CLIENT, RULE, false).unwrap();
            fs::write(of_client.join(name), bytes).unwrap();
            let error = format!("{:#}", kept.read(CLIENT).unwrap_err());
            assert!(error.contains(name), "{error}");
            fs::remove_file(of_client.join(name)).unwrap();
        };
        damage("known.sha256", &[0; 33]);
        damage(RULES, b"{\"text\": ");
        damage(RULES, b"{\"text\": \"[[rule]]\", \"dry_run\": false}");
        damage(RULES, b"{\"text\": \"\", \"dry_run\": false, \"more\": 1}");
    }

    #[test]
    fn others_reach_what_lies_beside_it_and_not_what_is_in_it() {
        use std::os::unix::fs::PermissionsExt;

        let directory = tempfile::tempdir().unwrap();
        let run = directory.path().join("run");
        let _kept = Kept::open(&run.join("state")).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&run) & 0o055, 0o055);
        assert_eq!(mode(&run.join("state")), 0o700);
    }

    #[test]
    fn two_daemons_do_not_share_it() {
        let directory = tempfile::tempdir().unwrap();
        let first = Kept::open(directory.path()).unwrap();
        let error = Kept::open(directory.path()).unwrap_err().to_string();
        assert!(error.contains("another ringfenced"), "{error}");
        drop(first);
        Kept::open(directory.path()).unwrap();
    }
}
