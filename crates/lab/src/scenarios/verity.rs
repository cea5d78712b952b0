// SPDX-License-Identifier: Apache-2.0
//! Digests of fs-verity are in records, and rules go by them, on a file system that has them.
//!
//! The tests are those of crates/probes/tests/verity.rs. Where the kernel keeps digests in a table that is
//! found by its symbol, one more hides all symbols: what cannot be known then must be said.

use super::tests_in_guest::Tests;
use crate::kernels::Kernel;
use crate::modules::Modules;
use crate::scenario::{Cell, Outcome, Scenario};
use crate::vm::Boot;

/// See the module.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "verity",
    about: "records have the digest that fs-verity measures, and a rule denies by it that file and no other",
    // The other flavour of a series keeps them in the same place.
    kernels: Kernel::is_for_clouds,
    core: |kernel| kernel.name == "6.12-cloud-amd64" || kernel.name == "7-cloud-amd64",
    timed: false,
    run,
};

const TEST: &str = "verity";
/// Of e2fsprogs.
const MAKE: &str = "/usr/sbin/mkfs.ext4";
/// Where [`FILE_SYSTEM`] mounts it.
pub(super) const PLACE: &str = "/verity";
/// Makes a file system with fs-verity, in a guest that [`with_file_system`] is for. Until 6.2 a block has to have
/// the size of a page.
pub(super) const FILE_SYSTEM: &str = "truncate -s 64M /tmp/image && /lab/mkfs.ext4 -q -b 4096 -O verity /tmp/image && \
                           mkdir /verity && mount -t ext4 -o loop /tmp/image /verity";

/// What a guest needs for [`FILE_SYSTEM`].
pub(super) fn with_file_system(boot: Boot) -> Boot {
    boot.module("ext4").module("loop").file(MAKE, "/lab/mkfs.ext4")
}

fn run(cell: &Cell<'_>) -> anyhow::Result<Outcome> {
    let mut boot = with_file_system(Boot::new())
        .module("overlay")
        .file(cell.programs().other(TEST)?, format!("/lab/{TEST}"));
    // Later kernels have it built in.
    let sha512 = "sha512_generic";
    if Modules::of(cell.kernel())?.has(sha512) {
        boot = boot.module(sha512);
    }
    let vm = cell.boot(&boot)?;
    vm.shell(FILE_SYSTEM)?;
    let environment = ["RINGFENCE_VERITY=/verity"];
    let tests = Tests { program: TEST, environment: &environment, ..Tests::default() };
    let mut passed = tests.run(cell, &vm)?.count;
    if cell.kernel().series() >= (7, 0) {
        vm.shell("echo 2 >/proc/sys/kernel/kptr_restrict")?;
        let tests = Tests {
            program: TEST,
            environment: &[environment[0], "RINGFENCE_HIDDEN=1"],
            arguments: &["cannot_be_found"],
            ..Tests::default()
        };
        passed += tests.run(cell, &vm)?.count;
    }
    vm.power_off();
    Ok(Outcome::passed(format!("{passed} tests")))
}
