// SPDX-License-Identifier: Apache-2.0
use kernel_image::Symbols;
use kernel_image::btf::{Btf, Builder};
use kernel_memory::FakeMemory;

use super::*;

/// A source that has these.
struct These(Vec<Processor>);

impl Registers for These {
    fn source(&self) -> &'static str {
        "test"
    }

    fn processors(&self) -> Result<Vec<Processor>, Missing> {
        Ok(self.0.clone())
    }
}

const MUST: Must = Must {
    cr0: PROTECTED_MODE.0 | WRITE_PROTECTION.0 | PAGING.0,
    cr4: SMEP.0 | SMAP.0,
    efer: SYSTEM_CALLS.0 | LONG_MODE.0 | NO_EXECUTE.0,
};

/// As QEMU tells of a 6.12 guest.
const SOUND: Processor = Processor {
    number: 0,
    cr0: Some(0x8005_0033),
    cr3: None,
    cr4: Some(0x0035_06f0),
    efer: Some(0xd01),
    lstar: None,
    cstar: None,
    sysenter: None,
    idt: None,
    gdt: None,
};

fn lacks(processors: &[Processor]) -> (Vec<Lack>, Told) {
    let (mut lacks, mut told) = (BTreeSet::new(), Told::default());
    of_processors(&These(processors.to_vec()), &MUST, &mut lacks, &mut told);
    (lacks.into_iter().collect(), told)
}

#[test]
fn a_processor_with_all_that_the_kernel_uses_lacks_nothing() {
    let (found, told) = lacks(&[SOUND, Processor { number: 1, ..SOUND }]);
    assert_eq!(found, []);
    assert_eq!((told.values, told.missing.len()), (6, 0));
}

#[test]
fn each_bit_that_is_off_is_told_with_its_processor() {
    let unprotected = Processor { number: 1, cr0: Some(0x8004_0033), ..SOUND };
    assert_eq!(lacks(&[SOUND, unprotected]).0, [(1, Of::Cr0, WRITE_PROTECTION.0)]);
    let open = Processor { cr4: Some(0x0005_06f0), ..SOUND };
    assert_eq!(lacks(&[open]).0, [(0, Of::Cr4, SMEP.0 | SMAP.0)]);
    let executable = Processor { efer: Some(0x501), ..SOUND };
    assert_eq!(lacks(&[executable]).0, [(0, Of::Efer, NO_EXECUTE.0)]);
}

#[test]
fn what_the_source_does_not_tell_is_said() {
    let (found, told) = lacks(&[Processor { cr4: None, ..SOUND }]);
    assert_eq!(found, []);
    assert_eq!(told.values, 2);
    assert_eq!(told.missing, ["test does not tell CR4"]);
}

const PINS: u64 = 0xffff_ffff_8260_0000;
const KEY: u64 = PINS + 0x100;

/// What is lacking by memory that holds such pins and such a count of `cr_pinning`, and what is pinned.
fn of_pins(pins: u64, count: u32) -> (Vec<Lack>, u64) {
    let mut memory = FakeMemory::new();
    memory.write_u64(PINS, pins);
    memory.write_u32(KEY, count);
    let symbols = Symbols::from_iter([(PINS, b'd', "cr4_pinned_bits"), (KEY, b'd', "cr_pinning")]);
    let mut types = Builder::new();
    let int = types.int("int", 4, true);
    let atomic = types.structure("atomic_t", 4, &[("counter", int, 0)]);
    types.structure("static_key", 16, &[("enabled", atomic, 0)]);
    let types = Btf::parse(&types.finish()).unwrap();
    let kernel = Kernel { memory: &memory, symbols: &symbols, types: &types };
    let (mut lacks, mut told) = (BTreeSet::new(), Told::default());
    let pinned = pinned(&kernel, &MUST, &mut lacks, &mut told);
    assert_eq!((told.values, told.missing), (2, Vec::new()));
    (lacks.into_iter().collect(), pinned)
}

#[test]
fn bits_that_are_pinned_no_longer_are_told_and_so_is_pinning_that_is_off() {
    let all = SMEP.0 | SMAP.0 | CET.0;
    assert_eq!(of_pins(all, 1), (vec![], all));
    let smep = (0, Of::Pins, SMEP.0);
    assert_eq!(of_pins(all & !SMEP.0, 1).0, [smep]);
    assert_eq!(of_pins(all, 0).0, [(0, Of::Pinning, 1)]);
}

#[test]
fn a_processor_has_what_is_pinned_beside_what_the_kernel_uses() {
    let pinned = Must { cr4: MUST.cr4 | CET.0, ..MUST };
    let (mut lacks, mut told) = (BTreeSet::new(), Told::default());
    of_processors(&These(vec![SOUND]), &pinned, &mut lacks, &mut told);
    assert_eq!(lacks.into_iter().collect::<Vec<_>>(), [(0, Of::Cr4, CET.0)]);
}

#[test]
fn processors_that_the_source_leaves_out_are_told() {
    let mut told = lacks(&[SOUND]).1;
    told.all_of(1, "test");
    assert!(told.missing.is_empty());
    told.all_of(2, "test");
    assert_eq!(told.missing, ["test tells of 1 of 2 processors"]);
}
