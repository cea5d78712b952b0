// SPDX-License-Identifier: Apache-2.0
//! The file of a baseline, as it should be and otherwise.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::synthetic::*;
use crate::baseline::{Baseline, BaselineKind, Identity, RegionKind, SealError};

fn sealed() -> Vec<u8> {
    let facts = BTreeMap::from([("lockdown".to_owned(), "none".to_owned())]);
    let baseline = Baseline::take(&Synthetic::new().kernel(), identity(), facts).unwrap();
    let mut file = Vec::new();
    baseline.seal(&mut file).unwrap();
    file
}

fn open(file: Vec<u8>) -> Result<Baseline, SealError> {
    Baseline::open(Box::new(file), &identity())
}

#[test]
fn what_was_sealed_is_what_is_opened() {
    let baseline = open(sealed()).unwrap();
    assert_eq!(baseline.kind(), BaselineKind::FirstCheck);
    assert_eq!(baseline.identity(), &identity());
    assert_eq!(baseline.fact("lockdown"), Some("none"));
    assert_eq!(baseline.fact("modprobe"), None);
    let text = baseline.region(RegionKind::Text).unwrap();
    assert_eq!((text.start, text.bytes.len() as u64), (TEXT, TEXT_LENGTH));
    assert_eq!(baseline.bytes_at(QUIET, 2), Some(&[0x55, 0x48][..]));
    assert_eq!(baseline.bytes_at(TEXT + TEXT_LENGTH - 1, 2), None);
    assert_eq!(baseline.region_of(RODATA).unwrap().kind, RegionKind::Rodata);
    assert_eq!(baseline.digest().len(), 64);
}

#[test]
fn regions_begin_at_pages_of_the_file() {
    let file = sealed();
    let text = (0..file.len()).step_by(4096).find(|at| {
        let at = at + 0x600;
        file.get(at..at + 4) == Some(&[0x55, 0x48, 0x89, 0xe5])
    });
    assert_eq!(text, Some(4096));
}

#[test]
fn any_changed_byte_is_noticed() {
    let file = sealed();
    for at in (0..file.len()).step_by(97).chain([file.len() - 1]) {
        let mut changed = file.clone();
        changed[at] ^= 0x10;
        assert!(open(changed).is_err(), "byte {at}");
    }
}

#[test]
fn each_failure_has_its_own_sentence_and_says_what_to_do() {
    let file = sealed();
    assert_eq!(open(b"ELF".to_vec()).unwrap_err(), SealError::NotABaseline);
    let mut newer = file.clone();
    newer[8] = 9;
    assert_eq!(open(newer).unwrap_err(), SealError::Version(9));
    let cut = file[..200].to_vec();
    assert!(matches!(open(cut).unwrap_err(), SealError::Damaged { .. } | SealError::Digest));
    assert_eq!(open(file[..file.len() - 1].to_vec()).unwrap_err(), SealError::Digest);
    let other = |change: fn(&mut Identity)| {
        let mut running = identity();
        change(&mut running);
        Baseline::open(Box::new(file.clone()), &running).unwrap_err()
    };
    let kernel = other(|identity| identity.build_id = "ffff".to_owned());
    assert!(matches!(kernel, SealError::BuildId { .. }), "{kernel}");
    let boot = other(|identity| identity.boot_id = "b-boot".to_owned());
    assert!(matches!(boot, SealError::BootId { .. }), "{boot}");
    for error in [kernel, boot, SealError::Digest, SealError::NotABaseline] {
        let sentence = error.to_string();
        let helps = ["take", "restore", "name another"].iter().any(|word| sentence.contains(word));
        assert!(helps, "{sentence}");
    }
}

#[test]
fn text_that_cannot_be_read_gives_no_baseline() {
    let mut synthetic = Synthetic::new();
    synthetic.memory.remove_page(TEXT + 0x1000);
    let missing = Baseline::take(&synthetic.kernel(), identity(), BTreeMap::new()).unwrap_err();
    assert!(missing.0.contains("text has a hole"), "{}", missing.0);
    assert!(missing.0.contains("0xffffffff81001000"), "{}", missing.0);
}

#[test]
fn hidden_addresses_are_told_from_missing_ones() {
    let mut synthetic = Synthetic::new();
    synthetic.symbols =
        kernel_image::Symbols::from_iter([(0, b'T', "_stext"), (0, b'T', "_etext")]);
    let hidden = Baseline::take(&synthetic.kernel(), identity(), BTreeMap::new()).unwrap_err();
    assert!(hidden.0.contains("kptr_restrict"), "{}", hidden.0);
    synthetic.symbols = kernel_image::Symbols::default();
    let none = Baseline::take(&synthetic.kernel(), identity(), BTreeMap::new()).unwrap_err();
    assert_eq!(none.0, "the symbol table has no _stext");
}

/// Gives a file a digest that matches, so that the parser gets to see what is in it.
fn with_digest(mut file: Vec<u8>) -> Vec<u8> {
    use sha2::{Digest, Sha256};
    let digest = Sha256::digest(&file);
    file.extend(digest.as_slice());
    file
}

/// The header of a file with these regions: kind, start, length.
fn outlined(regions: &[(u64, u64, u64)]) -> Vec<u8> {
    let mut header = vec![0; 4 + 3 * 4 + 8 + 4];
    header.extend((regions.len() as u32).to_le_bytes());
    for (kind, start, length) in regions {
        for number in [*kind, *start, *length, 4096] {
            header.extend(number.to_le_bytes());
        }
    }
    let mut file = b"RFBASE\x1a\n\x02\0\0\0".to_vec();
    file.extend((header.len() as u32).to_le_bytes());
    file.extend(header);
    file.resize(2 * 4096, 0x90);
    with_digest(file)
}

#[test]
fn regions_that_are_empty_or_overlap_or_are_there_twice_are_refused() {
    let read = |regions: &[(u64, u64, u64)]| Baseline::read(Box::new(outlined(regions)));
    assert_eq!(read(&[(0, 0x1000, 16), (1, 0x1010, 16)]).unwrap().regions().count(), 2);
    let wrong: [&[(u64, u64, u64)]; 4] = [
        &[(0, 0x1000, 0)],
        &[(0, 0x1000, 17), (1, 0x1010, 16)],
        &[(0, 0x1000, 16), (0, 0x2000, 16)],
        &[(0, 0x1000, 16), (1, 0x2000, 16), (0, 0x3000, 16)],
    ];
    for regions in wrong {
        assert!(matches!(read(regions).unwrap_err(), SealError::Damaged { .. }), "{regions:?}");
    }
}

proptest! {
    #[test]
    fn no_file_makes_the_parser_panic(file in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = Baseline::read(Box::new(file.clone()));
        let mut near = sealed()[..300].to_vec();
        let at = 12 + file.len() % 200;
        for (place, byte) in near[at..].iter_mut().zip(&file) {
            *place = *byte;
        }
        if let Ok(baseline) = Baseline::read(Box::new(with_digest(near))) {
            let _ = baseline.regions().map(|region| region.bytes.len()).sum::<usize>();
        }
    }
}
