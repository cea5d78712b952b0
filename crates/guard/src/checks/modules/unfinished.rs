// SPDX-License-Identifier: Apache-2.0
//! Modules that are being loaded or unloaded, which is believed for some time only.
//!
//! A module's text is not compared while it is loaded, and its init code counts as its own until the kernel
//! has freed it (`do_init_module`, kernel/module/main.c). Whoever writes a module's state, or where its init
//! code is, could have either for as long as he likes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kernel_memory::Kernel;

use super::loaded::{COMING, GOING, LIVE, walk_list};
use crate::check::Missing;
use crate::fields::Fields;
use crate::finding::Finding;
use crate::recover::Recovered;

/// For how long it is believed. A driver may wait for its hardware as long as it likes, and some do for a
/// minute or two; whatever was started meanwhile is waited for before init code is freed.
const BELIEVED: Duration = Duration::from_secs(600);

/// The size of init code, by the layout of `struct module` (include/linux/module.h): from 6.4 on and before.
const INIT_SIZE: [&str; 2] = ["mem[4].size", "init_layout.text_size"];

/// A module: where it is, and its name.
type Key = (u64, String);

/// What is not finished of a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    Loading,
    Unloading,
    InitCode,
}

/// What was not finished when it was looked, and since when.
#[derive(Debug, Default)]
pub(super) struct Unfinished {
    since: BTreeMap<Key, (Left, Instant)>,
}

impl Unfinished {
    /// Looks at all modules on the list; gives findings for what takes too long.
    pub(super) fn look(
        &mut self,
        kernel: &Kernel<'_>,
        recovered: &mut Recovered,
    ) -> Result<Vec<Finding>, Missing> {
        let module = kernel.object("module", 0)?;
        let size = INIT_SIZE.into_iter().find(|member| module.has(member));
        let size = size.ok_or_else(|| {
            Missing::because("struct module has init code where none is known to be")
        })?;
        let fields = Fields::of(kernel, "module", &["list.next", "state", "name", size])?;
        let modules = walk_list(kernel, recovered, &fields)?;
        let seen = modules.iter().filter_map(|module| {
            let left = left(module.value(1), module.value(3))?;
            Some(((module.address, module.text(2)), left))
        });
        Ok(self.note(seen.collect(), Instant::now()).into_iter().map(finding).collect())
    }

    /// Notes what is not finished now; gives what has not been for too long.
    fn note(&mut self, seen: BTreeMap<Key, Left>, now: Instant) -> Vec<(Key, Left)> {
        self.since.retain(|key, (left, _)| seen.get(key) == Some(left));
        let mut late = Vec::new();
        for (key, left) in seen {
            let (_, since) = *self.since.entry(key.clone()).or_insert((left, now));
            if now >= since + BELIEVED {
                late.push((key, left));
            }
        }
        late
    }
}

fn left(state: u64, init: u64) -> Option<Left> {
    match state {
        LIVE if init == 0 => None,
        LIVE => Some(Left::InitCode),
        GOING => Some(Left::Unloading),
        // `MODULE_STATE_COMING`, and `MODULE_STATE_UNFORMED` before it.
        COMING.. => Some(Left::Loading),
    }
}

fn finding(((address, name), left): (Key, Left)) -> Finding {
    let (what, technique) = match left {
        Left::Loading => ("is being loaded", "module loading without end"),
        Left::Unloading => ("is being unloaded", "module unloading without end"),
        Left::InitCode => ("is loaded and has init code", "init code of a module kept"),
    };
    Finding {
        check: "modules",
        symbol: None,
        offset: 0,
        address,
        expected: format!("a module is loaded and unloaded in {} minutes", BELIEVED.as_secs() / 60),
        seen: format!("module {name} {what}, for longer than that"),
        technique: technique.to_owned(),
        owner: Some(format!("module {name}")),
        evidence: vec![format!("struct module at {address:#x}")],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_on_its_way_is_believed_for_ten_minutes_and_each_step_anew() {
        let start = Instant::now();
        let mut unfinished = Unfinished::default();
        let seen = |left| BTreeMap::from([((0x1000, "guest".to_owned()), left)]);
        let mut at = |seconds, seen| unfinished.note(seen, start + Duration::from_secs(seconds));
        assert_eq!(at(0, seen(Left::Loading)), []);
        assert_eq!(at(599, seen(Left::Loading)), []);
        assert_eq!(at(600, seen(Left::Loading)).len(), 1);
        // Loaded, and its init code has the same time again.
        assert_eq!(at(601, seen(Left::InitCode)), []);
        assert_eq!(
            at(1201, seen(Left::InitCode)),
            [((0x1000, "guest".to_owned()), Left::InitCode)]
        );
        assert_eq!(at(1202, BTreeMap::new()), []);
        assert_eq!(at(9999, seen(Left::Unloading)), []);
    }

    #[test]
    fn a_module_that_is_loaded_and_has_no_init_code_is_finished() {
        assert_eq!(left(LIVE, 0), None);
        assert_eq!(left(LIVE, 4096), Some(Left::InitCode));
        assert_eq!(left(COMING, 4096), Some(Left::Loading));
        assert_eq!(left(GOING, 0), Some(Left::Unloading));
        assert_eq!(left(3, 0), Some(Left::Loading));
    }
}
