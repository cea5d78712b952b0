// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Carries out bpf_hides.bpf.c until it is ended; nothing is left of it then. In the lab only.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use libbpf_rs::{Link, ObjectBuilder};

const OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/bpf_hides.bpf.o"));

const MILLISECONDS_OF_A_DAY: u128 = 86_400_000;

fn main() -> anyhow::Result<()> {
    for (file, name) in [("sys_vendor", "Ringfence"), ("product_name", "ringfence-lab")] {
        let said = fs::read_to_string(format!("/sys/class/dmi/id/{file}")).unwrap_or_default();
        ensure!(said.trim_end() == name, "this is no machine of the lab");
    }
    let _links = match carry_out() {
        Ok(links) => links,
        Err(error) => {
            say(&format!("could not be carried out: {error:#}"))?;
            return Err(error);
        }
    };
    loop {
        std::thread::park();
    }
}

fn carry_out() -> anyhow::Result<Vec<Link>> {
    let object = ObjectBuilder::default().open_memory(OBJECT)?.load()?;
    // Programs that are loaded do nothing yet, as modules whose code has not run.
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() % MILLISECONDS_OF_A_DAY;
    say(&format!("begins at {now}"))?;
    let links: Vec<Link> =
        object.progs_mut().map(|program| program.attach()).collect::<Result<_, _>>()?;
    // The programs live as long as they are attached.
    Ok(links)
}

/// As the subjects that are modules say it: in the kernel's log.
fn say(what: &str) -> anyhow::Result<()> {
    fs::write("/dev/kmsg", format!("attack: {what}\n")).context("/dev/kmsg")
}
