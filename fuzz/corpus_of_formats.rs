// SPDX-License-Identifier: Apache-2.0
//! Inputs in the formats that hold no kernel image: saved memory, perf records, the head of a core
//! file, a sealed baseline without its digest (the target adds that), rules and collections.

use std::error::Error;
use std::ops::ControlFlow;

use kernel_memory::saved::{SavedIdentity, save};
use kernel_memory::{KernelMemory, Piece, ReadError};

/// `(target, name, bytes)` of each.
pub fn inputs() -> Result<Vec<(&'static str, &'static str, Vec<u8>)>, Box<dyn Error>> {
    Ok(vec![
        ("saved_memory", "two-records", saved()?),
        ("perf_record", "text-poke", text_poke()),
        ("perf_record", "symbol", symbol()),
        ("perf_record", "lost", record(2, &[1_u64.to_le_bytes(), 9_u64.to_le_bytes()].concat())),
        ("kcore", "two-segments", core_head()),
        ("baseline", "text-and-rodata", baseline()),
        ("fuse_request", "question", fuse_request(22, b"\x18\0\0\0\0\0\0\0user.verdict\0")),
        ("fuse_request", "lookup", fuse_request(1, b"ringfence-gate\0")),
        ("fuse_request", "init", fuse_request(26, &[7, 0, 0, 0, 45, 0, 0, 0])),
        ("fuse_request", "interrupt", fuse_request(36, &[9; 8])),
        ("fanotify_events", "two", [fanotify_event(), fanotify_event()].concat()),
        ("rules", "toml", RULES_IN_TOML.into()),
        ("rules", "json", RULES_IN_JSON.into()),
        ("rules", "digests", format!("sha256:{} /usr/bin/true\n", "0a".repeat(32)).into()),
    ])
}

const RULES_IN_TOML: &[u8] = br#"
[[rule]]
id = 1
event = ["process_trace", "process_signal"]
action = "deny"
error = "EACCES"
actor = { uid = [0, 1000], path = "/usr/bin", descendant_of = { pid = 1, start = "2" } }
target.executable = { device = "8:1", inode = 3, version = 4 }
target.digest_in = ["bad", "worse"]

[[rule]]
id = 2
event = "memory_protect"
action = "notify"
dry_run = true
protection.all = ["write", "exec"]
before.any = 0x2
file.is = ["memfd", "deleted"]
record = "truncated"
"#;

const RULES_IN_JSON: &[u8] = br#"{"rule": [{"id": 3, "event": "module_load", "action": "deny",
 "name": "evil", "from": "memory", "file": {"path_unknown": true}, "actor": {"cgroup": 5}}]}"#;

/// Memory that repeats its addresses' lowest byte, with a hole.
struct Pattern;

impl KernelMemory for Pattern {
    fn name(&self) -> &'static str {
        "a pattern"
    }

    fn visit(
        &self,
        start: u64,
        length: u64,
        visitor: &mut dyn FnMut(Piece<'_>) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        let bytes: Vec<u8> = (start..start + length).map(|address| address as u8).collect();
        let _ = visitor(Piece::Bytes { address: start, bytes: &bytes });
        Ok(())
    }
}

fn saved() -> Result<Vec<u8>, Box<dyn Error>> {
    let mut file = Vec::new();
    let identity = SavedIdentity { build_id: vec![7; 20], boot_id: [9; 16] };
    let ranges = [(0xffff_ffff_8100_0000, 64), (0xffff_ffff_8200_0000, 32)];
    save(&Pattern, &identity, &ranges, &mut file)?;
    Ok(file)
}

/// A request of FUSE: length, operation, number, node, user and group, thread, nothing; then arguments.
fn fuse_request(operation: u32, arguments: &[u8]) -> Vec<u8> {
    let mut request = (40 + arguments.len() as u32).to_le_bytes().to_vec();
    request.extend(operation.to_le_bytes());
    request.extend([9_u64, 2, 0].map(u64::to_le_bytes).concat());
    request.extend([1234_u32, 0].map(u32::to_le_bytes).concat());
    request.extend(arguments);
    request
}

/// An event of fanotify with a pidfd: length, version, length of what is fixed, mask, file, process; then
/// the record of the pidfd.
fn fanotify_event() -> Vec<u8> {
    let mut event = vec![32, 0, 0, 0, 3, 0, 24, 0];
    event.extend(0x4_0000_u64.to_le_bytes());
    event.extend([5_u32, 1234].map(u32::to_le_bytes).concat());
    event.extend([4, 0, 8, 0, 6, 0, 0, 0]);
    event
}

/// A perf record: header, body filled up to eight bytes, sample (include/uapi/linux/perf_event.h).
fn record(kind: u32, body: &[u8]) -> Vec<u8> {
    let mut body = body.to_vec();
    body.resize(body.len().next_multiple_of(8), 0);
    body.extend([7; 16]);
    let mut record = kind.to_le_bytes().to_vec();
    record.extend(0_u16.to_le_bytes());
    record.extend((body.len() as u16 + 8).to_le_bytes());
    record.extend(body);
    record
}

fn text_poke() -> Vec<u8> {
    let mut body = 0xffff_ffff_8100_0000_u64.to_le_bytes().to_vec();
    body.extend([5, 0, 5, 0]);
    body.extend([0x0f, 0x1f, 0x44, 0, 0, 0xe8, 1, 2, 3, 4]);
    record(20, &body)
}

fn symbol() -> Vec<u8> {
    let mut body = 0xffff_ffff_c000_0000_u64.to_le_bytes().to_vec();
    body.extend(64_u32.to_le_bytes());
    body.extend([1, 0, 0, 0]);
    body.extend(b"bpf_prog_0123456789abcdef\0");
    record(17, &body)
}

/// An ELF header and two `PT_LOAD`s (include/uapi/linux/elf.h).
fn core_head() -> Vec<u8> {
    let mut head = vec![0_u8; 64 + 2 * 56];
    let mut put = |at: usize, bytes: &[u8]| head[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"\x7fELF\x02\x01\x01");
    put(16, &4_u16.to_le_bytes());
    put(18, &62_u16.to_le_bytes());
    put(32, &64_u64.to_le_bytes());
    put(54, &56_u16.to_le_bytes());
    put(56, &2_u16.to_le_bytes());
    for (index, address) in [0xffff_8880_0000_0000_u64, 0xffff_ffff_8100_0000].iter().enumerate() {
        let at = 64 + index * 56;
        put(at, &1_u32.to_le_bytes());
        put(at + 8, &4096_u64.to_le_bytes());
        put(at + 16, &address.to_le_bytes());
        put(at + 32, &8192_u64.to_le_bytes());
    }
    head
}

/// See crates/guard/src/baseline/seal.rs for the layout.
fn baseline() -> Vec<u8> {
    let mut header = 0_u32.to_le_bytes().to_vec();
    let string = |text: &str| [&(text.len() as u32).to_le_bytes(), text.as_bytes()].concat();
    for text in ["6.12.0", "abcd", "boot"] {
        header.extend(string(text));
    }
    header.extend(1_u64.to_le_bytes());
    header.extend(1_u32.to_le_bytes());
    header.extend(string("name"));
    header.extend(string("value"));
    header.extend(2_u32.to_le_bytes());
    for (kind, offset) in [(0_u64, 4096_u64), (1, 8192)] {
        for number in [kind, 0xffff_ffff_8100_0000 + offset, 64, offset] {
            header.extend(number.to_le_bytes());
        }
    }
    let mut file = b"RFBASE\x1a\n".to_vec();
    file.extend(2_u32.to_le_bytes());
    file.extend((header.len() as u32).to_le_bytes());
    file.extend(header);
    file.resize(8192 + 64, 0x90);
    file
}
