// SPDX-License-Identifier: Apache-2.0
//! A kernel module: taken apart, laid out, put together at some addresses.
#![no_main]

use kernel_image::module::{Linked, ModuleFile, Part, Surroundings};

const AREA: u64 = 0xffff_ffff_c000_0000;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(file) = ModuleFile::parse(data) else { return };
    for part in [Part::Text, Part::Rodata] {
        let Some((placed, size)) = file.layout(part) else { continue };
        assert!(placed.iter().all(|one| one.offset <= size));
    }
    let _ = (file.name(), file.version_magic(), file.build_id(), file.is_livepatch());
    assert!(file.symbols().count() as u64 <= file.symbol_count());
    let mut at = AREA;
    let mut place = |section: &kernel_image::module::ModuleSection| {
        let address = section.is_loaded().then_some(at)?;
        at = at.checked_add(section.size)?.next_multiple_of(4096);
        Some(address)
    };
    let addresses: Vec<Option<u64>> = file.sections().iter().map(&mut place).collect();
    let exports = &|name: &str| (name.len() < 64).then_some(0xffff_ffff_8100_0000);
    let surroundings = Surroundings { addresses: &addresses, per_cpu: Some(0x2_0000), exports };
    if let Ok(linked) = Linked::new(&file, &surroundings) {
        let size: usize = linked.sections().map(|section| section.bytes.len()).sum();
        assert!(size <= data.len() || file.compression() != kernel_image::Compression::None);
        let mut memory = vec![0; 4096];
        linked.fill(AREA, &mut memory);
        let _ = (linked.entries(), linked.tables().sites().count());
    }
});
