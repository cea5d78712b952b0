// SPDX-License-Identifier: Apache-2.0
//! Real kernels, patched as the boot code patches them.
//!
//! That the result is what a booted kernel holds is shown in the lab; here, that no site is left
//! out and that each kernel is recognised by what it holds. Needs `tests/kernels/fetch` to have run.

use std::path::PathBuf;

use kernel_image::KernelImage;
use kernel_image::patching::{
    CallDepth, Code, ItsPages, Machine, NopStyle, Placed, Retpoline, Return,
};

const SLIDE: u64 = 0x1240_0000;

fn placed(name: &str) -> Placed {
    let store: PathBuf = match std::env::var_os("RINGFENCE_KERNELS") {
        Some(path) => path.into(),
        None => concat!(env!("CARGO_MANIFEST_DIR"), "/../../.cache/kernels").into(),
    };
    let file = store.join(name).join("vmlinuz");
    let bytes = std::fs::read(&file)
        .unwrap_or_else(|error| panic!("{}: {error}; run tests/kernels/fetch", file.display()));
    Placed::new(KernelImage::parse(&bytes).expect("Debian's kernels are read"), SLIDE)
}

/// A machine on which every patcher has something to do.
fn machine(placed: &Placed) -> Machine {
    let symbol = |name: &str| placed.symbol(name).unwrap_or(0);
    let text = symbol("_text")..symbol("_etext");
    let mut machine = Machine {
        dialect: placed.dialect(),
        retpoline: Retpoline::Inline,
        indirect_thunks: symbol("__x86_indirect_thunk_array"),
        return_thunk: symbol("__x86_return_thunk"),
        returns: Return::LowerHalf(symbol("its_return_thunk")),
        pv_ops: symbol("pv_ops"),
        one_cpu: true,
        // Every feature and every bug.
        capability: vec![u32::MAX; 24],
        ..Machine::default()
    };
    machine.bug_function = symbol("BUG_func").max(symbol("paravirt_BUG"));
    machine.nop_function = symbol("nop_func").max(symbol("_paravirt_nop"));
    for slot in placed.pointer_slots(&machine) {
        machine.pointers.insert(slot, symbol("_text"));
    }
    let template = (symbol("skl_call_thunk_template"), symbol("skl_call_thunk_tail"));
    if template.0 != 0 {
        let length = (template.1 - template.0) as usize;
        machine.call_depth = Some(CallDepth {
            template: placed.read(template.0, length).expect("it is in rodata").to_vec(),
            template_address: template.0,
            text: std::iter::once(text).collect(),
            ..CallDepth::default()
        });
    }
    machine
}

#[test]
#[ignore = "kernels: run tests/kernels/fetch first"]
fn every_site_of_debians_kernels_is_patched() {
    let kernels = [("6.1", false), ("6.12", false), ("6.18", true), ("7", true)];
    for (series, recent) in kernels {
        for flavour in ["cloud-amd64", "amd64"] {
            let name = format!("{series}-{flavour}");
            let mut placed = placed(&name);
            let dialect = placed.dialect();
            let style = if series == "6.1" { NopStyle::Short } else { NopStyle::Long };
            assert_eq!(dialect.nops, style, "{name}");
            assert_eq!(dialect.prefixed_calls, recent, "{name}");
            assert_eq!(dialect.calls_before_alternatives, recent, "{name}");
            assert_eq!(dialect.wide_nops, series == "7", "{name}");
            let machine = machine(&placed);
            assert_eq!(placed.plan_its(&machine), [], "{name}: ITS is off");
            let skipped = placed.patch(&machine, &mut ItsPages::default());
            println!("{name}: {} sites were left out", skipped.places);
            assert_eq!(skipped.places, 0, "{name}");
        }
    }
}
