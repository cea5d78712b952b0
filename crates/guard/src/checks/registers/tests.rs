// SPDX-License-Identifier: Apache-2.0
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
    assert_eq!(lacks(&[SOUND, unprotected]).0, [(1, Of::Cr0, 0x8004_0033, WRITE_PROTECTION.0)]);
    let open = Processor { cr4: Some(0x0005_06f0), ..SOUND };
    assert_eq!(lacks(&[open]).0, [(0, Of::Cr4, 0x0005_06f0, SMEP.0 | SMAP.0)]);
    let executable = Processor { efer: Some(0x501), ..SOUND };
    assert_eq!(lacks(&[executable]).0, [(0, Of::Efer, 0x501, NO_EXECUTE.0)]);
}

#[test]
fn what_the_source_does_not_tell_is_said() {
    let (found, told) = lacks(&[Processor { cr4: None, ..SOUND }]);
    assert_eq!(found, []);
    assert_eq!(told.values, 2);
    assert_eq!(told.missing, ["test does not tell CR4"]);
}
