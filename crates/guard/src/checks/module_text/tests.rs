// SPDX-License-Identifier: Apache-2.0
//! A made-up module, loaded into made-up memory as a kernel of 6.4 or later has it.

#[path = "../../../../kernel-image/tests/synthetic_module/mod.rs"]
mod small;

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use kernel_image::Symbols;
use kernel_image::btf::{Btf, Builder, TypeId};
use kernel_image::module::{Linked, ModuleFile, Surroundings};
use kernel_image::patching::{CallDepth, Pieces, calls};
use kernel_memory::{FakeMemory, KernelMemory, Piece, ReadError};

use super::*;
use crate::ModuleFiles;
use crate::baseline::Identity;
use crate::journal::Journal;
use crate::views::NoViews;

const STEXT: u64 = 0xffff_ffff_8100_0000;
const RODATA: u64 = 0xffff_ffff_8120_0000;
const DATA: u64 = 0xffff_ffff_8140_0000;
const CPU: u64 = DATA + 0x100;
/// `struct module`, and what it leads to.
const MODULE: u64 = small::KEY + 0x400;
const SECTIONS: u64 = small::KEY + 0x800;
const NAMES: u64 = small::KEY + 0xc00;

/// Offsets in `struct module` here.
const LIST: u64 = 8;
const NAME: u64 = 24;
const MEM: u64 = 96;
const ATTRIBUTES: u64 = 160;

struct File(Option<Vec<u8>>);

impl ModuleFiles for File {
    fn file(&self, name: &str) -> Result<Vec<u8>, Missing> {
        assert_eq!(name, "small");
        self.0.clone().ok_or_else(|| Missing::because("no such file"))
    }
}

struct Machine {
    memory: FakeMemory,
    symbols: Symbols,
    types: Btf,
    file: File,
}

impl Machine {
    /// With the module loaded, as the kernel leaves it.
    fn new() -> Self {
        let mut memory = FakeMemory::new();
        memory.write(STEXT, &[0x90; 0x1000]);
        memory.write(RODATA, &[0; 0x1000]);
        memory.write(DATA, &[0; 0x1000]);
        memory.write(small::KEY, &[0; 0x1000]);
        let bytes = small::module();
        let file = ModuleFile::parse(&bytes).unwrap();
        let names = file.sections().iter().map(|section| section.name.clone());
        let addresses = small::addresses(names);
        let exports = &small::export;
        let surroundings = Surroundings { addresses: &addresses, per_cpu: None, exports };
        let linked = Linked::new(&file, &surroundings).unwrap();
        for (start, name) in [(small::TEXT, "text"), (small::RODATA, "rodata")] {
            let mut page = vec![0; 0x1000];
            linked.fill(start, &mut page);
            if name == "text" {
                // The call of __fentry__ is taken out.
                page[..5].copy_from_slice(&[0x0f, 0x1f, 0x44, 0, 0]);
            }
            memory.write(start, &page);
        }
        memory.write_u64(DATA, MODULE + LIST);
        memory.write_u64(DATA + 8, MODULE + LIST);
        memory.write_u64(MODULE + LIST, DATA);
        memory.write_u64(MODULE + LIST + 8, DATA);
        memory.write(MODULE + NAME, b"small\0");
        for (index, base) in [(0, small::TEXT), (1, small::KEY), (2, small::RODATA)] {
            memory.write_u64(MODULE + MEM + 16 * index, base);
            memory.write_u32(MODULE + MEM + 16 * index + 8, 0x1000);
        }
        memory.write_u64(MODULE + ATTRIBUTES, SECTIONS);
        let told =
            file.sections().iter().zip(&addresses).filter_map(|(one, at)| Some((one, (*at)?)));
        let mut count = 0_u64;
        for (section, address) in told {
            let name = NAMES + 32 * count;
            memory.write(name, section.name.as_bytes());
            memory.write_u64(SECTIONS + 16 + 16 * count, name);
            memory.write_u64(SECTIONS + 16 + 16 * count + 8, address);
            count += 1;
        }
        memory.write_u32(SECTIONS, count as u32);
        let symbols = [
            (STEXT, b'T', "_stext"),
            (small::FENTRY, b'T', "__fentry__"),
            (small::PRINTK, b'T', "printk"),
            (STEXT + 0x1000, b'T', "_etext"),
            (RODATA, b'R', "__start_rodata"),
            (RODATA + 0x1000, b'R', "__end_rodata"),
            (DATA, b'D', "modules"),
            (CPU, b'D', "boot_cpu_data"),
            (small::TEXT, b't', "work"),
        ];
        let symbols = Symbols::from_iter(symbols);
        Self { memory, symbols, types: Btf::parse(&types()).unwrap(), file: File(Some(bytes)) }
    }

    fn run(&self, check: &mut ModuleText) -> Result<Outcome, Missing> {
        self.run_on(&self.memory, check)
    }

    fn run_on(
        &self,
        memory: &dyn KernelMemory,
        check: &mut ModuleText,
    ) -> Result<Outcome, Missing> {
        let kernel = Kernel { memory, symbols: &self.symbols, types: &self.types };
        let identity = Identity::default();
        let baseline = Baseline::take(&kernel, identity, std::collections::BTreeMap::new())?;
        let journal = Journal::unavailable("not part of this test");
        let mut outcome = Outcome::default();
        let system = System {
            kernel,
            other_paths: &[],
            views: &NoViews,
            baseline: &baseline,
            modules: &self.file,
            registers: &crate::registers::NoRegisters,
            journal: &journal,
        };
        check.run(&system, &mut outcome)?;
        Ok(outcome)
    }

    /// What a new check and one that knows the module find.
    fn found(&self) -> Vec<Outcome> {
        let mut known = ModuleText::default();
        let clean = Self::new().run(&mut known).unwrap();
        assert_eq!(clean.findings, [], "{:?}", clean.reduced);
        vec![self.run(&mut ModuleText::default()).unwrap(), self.run(&mut known).unwrap()]
    }
}

fn types() -> Vec<u8> {
    let mut types = Builder::new();
    let int = types.int("int", 4, true);
    let long = types.int("unsigned long", 8, false);
    let character = types.int("char", 1, false);
    let name = types.array(character, 56);
    let pointer = types.pointer(TypeId(0));
    let head = types.structure("list_head", 16, &[("next", pointer, 0), ("prev", pointer, 64)]);
    let memory = types.structure("module_memory", 16, &[("base", pointer, 0), ("size", int, 64)]);
    let memories = types.array(memory, 4);
    let bit = |offset: u64| 8 * offset as u32;
    let members = [
        ("state", int, 0),
        ("list", head, bit(LIST)),
        ("name", name, bit(NAME)),
        ("mem", memories, bit(MEM)),
        ("sect_attrs", pointer, bit(ATTRIBUTES)),
        ("percpu", pointer, bit(ATTRIBUTES) + 64),
    ];
    types.structure("module", 256, &members);
    let text = types.pointer(character);
    let attribute = types.structure("attribute", 8, &[("name", text, 0)]);
    let binary = types.structure("bin_attribute", 8, &[("attr", attribute, 0)]);
    let one =
        types.structure("module_sect_attr", 16, &[("battr", binary, 0), ("address", long, 64)]);
    let list = types.array(one, 0);
    let members = [("nsections", int, 0), ("attrs", list, 128)];
    types.structure("module_sect_attrs", 16, &members);
    let words = types.array(int, 24);
    types.structure("cpuinfo_x86", 96, &[("x86_capability", words, 0)]);
    let atomic = types.structure("atomic_t", 4, &[("counter", int, 0)]);
    types.structure("static_key", 16, &[("enabled", atomic, 0)]);
    types.structure("static_call_key", 16, &[("func", pointer, 0)]);
    types.finish()
}

#[test]
fn a_module_that_is_as_its_file_says_is_compared_whole() {
    let mut check = ModuleText::default();
    for _ in 0..3 {
        let outcome = Machine::new().run(&mut check).unwrap();
        assert_eq!((outcome.findings, outcome.reduced), (vec![], Vec::<String>::new()));
        let summary = outcome.module_text.unwrap();
        assert_eq!((summary.compared, summary.not_compared), (1, 0));
        assert_eq!((summary.text.bytes, summary.text.unexplained), (0x2000, 0));
        // A call of __fentry__ and a jump label.
        assert_eq!(summary.text.mutable, 10);
    }
}

#[test]
fn every_changed_byte_outside_of_what_tables_allow_is_found_and_named() {
    for (address, technique_of_data) in [
        (small::TEXT + 10, false),
        (small::TEXT + 21, false),
        // Between sections, where nothing should be.
        (small::TEXT + 0x800, false),
        (small::RODATA + 3, true),
        (small::RODATA + 0xfff, true),
    ] {
        let mut machine = Machine::new();
        let mut byte = [0];
        kernel_memory::KernelMemory::read(&machine.memory, address, &mut byte).unwrap();
        machine.memory.write(address, &[byte[0] ^ 0x10]);
        for outcome in machine.found() {
            let [finding] = &outcome.findings[..] else { panic!("{address:#x}: {outcome:?}") };
            assert_eq!((finding.check, finding.address), ("module_text", address));
            assert_eq!(finding.owner.as_deref(), Some("module small"));
            assert_eq!(finding.technique.contains("read-only data"), technique_of_data);
            assert_eq!(outcome.module_text.unwrap().text.unexplained, 1);
        }
    }
}

#[test]
fn a_jump_label_may_jump_to_its_target_and_nowhere_else() {
    let jump = |distance: u8| [0xe9, distance, 0, 0, 0];
    let mut machine = Machine::new();
    // From 5 to 32, as its entry says.
    machine.memory.write(small::TEXT + 5, &jump(32 - 10));
    for outcome in machine.found() {
        assert_eq!(outcome.findings, []);
        assert_eq!(outcome.module_text.unwrap().text.explained_changes, 1);
    }
    machine.memory.write(small::TEXT + 5, &jump(33 - 10));
    for outcome in machine.found() {
        assert_eq!(outcome.findings.len(), 1);
    }
}

#[test]
fn a_function_may_call_no_tracer_that_the_kernel_does_not_know() {
    let mut machine = Machine::new();
    machine.memory.write(small::TEXT, &[0xe8, 0x10, 0x20, 0, 0]);
    for outcome in machine.found() {
        let [finding] = &outcome.findings[..] else { panic!("{outcome:?}") };
        assert_eq!(finding.symbol.as_deref(), Some("work"));
    }
}

#[test]
fn a_module_without_its_file_or_with_another_is_told_and_never_passed_over() {
    let mut machine = Machine::new();
    machine.file = File(None);
    let missing = machine.run(&mut ModuleText::default()).unwrap();
    machine.file = File(Some(b"\x7fELF".to_vec()));
    let damaged = machine.run(&mut ModuleText::default()).unwrap();
    machine.file = Machine::new().file;
    // Another build id in memory.
    machine.memory.write(small::RODATA + 0x18 + 16, &[9; 20]);
    let other = machine.run(&mut ModuleText::default()).unwrap();
    for (outcome, reason) in [
        (missing, "no such file"),
        (damaged, "an ELF header"),
        (other, "its build id in memory is 09 09"),
    ] {
        assert_eq!(outcome.findings, []);
        let [told] = &outcome.reduced[..] else { panic!("{outcome:?}") };
        assert!(told.contains("module small") && told.contains(reason), "{told}");
        let summary = outcome.module_text.unwrap();
        assert_eq!((summary.compared, summary.not_compared), (0, 1));
    }
}

#[test]
fn a_module_that_changes_with_its_build_id_is_held_to_what_it_held_before() {
    let mut machine = Machine::new();
    let mut check = ModuleText::default();
    assert_eq!(machine.run(&mut check).unwrap().findings, []);
    machine.memory.write(small::RODATA + 0x18 + 16, &[9; 20]);
    // It stays a finding, and so it does when the file is gone too.
    for file in [machine.file.0.clone(), machine.file.0.take(), None] {
        machine.file = File(file);
        let outcome = machine.run(&mut check).unwrap();
        let [finding] = &outcome.findings[..] else { panic!("{outcome:?}") };
        assert_eq!(finding.owner.as_deref(), Some("module small"));
        let said = finding.evidence.join("\n");
        assert!(said.contains("it was explained by its file before"), "{said}");
    }
}

/// Memory that is other from when somebody looks at the text of the module.
struct Changing {
    before: FakeMemory,
    after: FakeMemory,
    changed: AtomicBool,
}

impl KernelMemory for Changing {
    fn name(&self) -> &'static str {
        self.before.name()
    }

    fn visit(
        &self,
        start: u64,
        length: u64,
        visitor: &mut dyn FnMut(Piece<'_>) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        if (small::TEXT..small::TEXT + 0x1000).contains(&start) {
            self.changed.store(true, Ordering::Relaxed);
        }
        let now = if self.changed.load(Ordering::Relaxed) { &self.after } else { &self.before };
        now.visit(start, length, visitor)
    }
}

#[test]
fn a_module_that_goes_while_it_is_compared_is_no_finding_and_one_that_stays_is() {
    for goes in [true, false] {
        let [machine, mut later] = [Machine::new(), Machine::new()];
        let mut check = ModuleText::default();
        assert_eq!(machine.run(&mut check).unwrap().findings, []);
        later.memory.remove_page(small::TEXT);
        later.memory.remove_page(small::RODATA);
        if goes {
            later.memory.write_u64(DATA, DATA);
            later.memory.write_u64(DATA + 8, DATA);
        }
        let (before, after) = (machine.memory.clone(), later.memory);
        let memory = Changing { before, after, changed: AtomicBool::new(false) };
        let outcome = machine.run_on(&memory, &mut check).unwrap();
        let techniques: Vec<_> = outcome.findings.iter().map(|one| &*one.technique).collect();
        assert_eq!(techniques.contains(&"text taken away"), !goes, "{techniques:?}");
        assert_eq!(techniques.is_empty(), goes, "{techniques:?}");
    }
}

#[test]
fn a_module_that_is_not_live_is_told_and_not_compared() {
    let mut machine = Machine::new();
    // MODULE_STATE_COMING
    machine.memory.write_u32(MODULE, 1);
    let outcome = machine.run(&mut ModuleText::default()).unwrap();
    assert!(outcome.reduced[0].contains("being loaded or unloaded: small"), "{outcome:?}");
}

#[test]
fn a_kernel_with_no_modules_says_so() {
    let mut machine = Machine::new();
    machine.memory.write_u64(DATA, DATA);
    let outcome = machine.run(&mut ModuleText::default()).unwrap();
    assert_eq!(outcome.reduced, ["no modules loaded"]);
    machine.symbols = Symbols::from_iter([
        (STEXT, b'T', "_stext"),
        (STEXT + 0x1000, b'T', "_etext"),
        (RODATA, b'R', "__start_rodata"),
        (RODATA + 0x1000, b'R', "__end_rodata"),
    ]);
    let missing = machine.run(&mut ModuleText::default()).unwrap_err();
    assert!(missing.0.contains("CONFIG_MODULES"), "{missing:?}");
}

/// `patch_call` and `patch_dest`, arch/x86/kernel/callthunks.c, 6.12.
#[test]
fn a_call_that_is_counted_leads_to_the_padding_of_the_kernel_and_of_other_modules() {
    const OTHER: u64 = small::TEXT + 0x8010;
    let machine = Machine::new();
    let kernel =
        Kernel { memory: &machine.memory, symbols: &machine.symbols, types: &machine.types };
    let baseline = Baseline::take(&kernel, Identity::default(), [].into()).unwrap();
    let file = ModuleFile::parse(&small::module()).unwrap();
    let addresses = small::addresses(file.sections().iter().map(|section| section.name.clone()));
    let depth = CallDepth {
        template: vec![0x65, 0x48, 0xc1, 0x3d, 0, 0, 0x70, 0, 5],
        template_address: STEXT + 0x800,
        text: vec![STEXT..STEXT + 0x1000, OTHER - 16..OTHER + 16],
        ..CallDepth::default()
    };
    let call_after = |called: u64, padding: u8| {
        let exports =
            |name: &str| if name == "printk" { Some(called) } else { small::export(name) };
        let surroundings = Surroundings { addresses: &addresses, per_cpu: None, exports: &exports };
        let mut linked = Linked::new(&file, &surroundings).unwrap();
        let mut paddings = Pieces::new();
        paddings.add(OTHER - 9, vec![padding; 9]);
        let mut code = patched::WithOthers { module: &mut linked, kernel: &baseline, paddings };
        let own = small::TEXT..small::TEXT + 0x1000;
        assert_eq!(calls::apply(&mut code, [small::TEXT + 10], &depth, own).places, 0);
        let bytes = linked.bytes_at(small::TEXT + 10, 5).unwrap();
        crate::sites::target_of(small::TEXT + 10, bytes, &[0xe8]).unwrap()
    };
    assert_eq!(call_after(small::PRINTK, 0), small::PRINTK - 9);
    assert_eq!(call_after(OTHER, 0x90), OTHER - 9);
    assert_eq!(call_after(OTHER, 0xcc), OTHER, "it has no padding");
}
