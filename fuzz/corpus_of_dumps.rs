// SPDX-License-Identifier: Apache-2.0
//! Small dumps of physical memory, and what a guest and QEMU's monitor say.

const PAGE: usize = 4096;

const VMCOREINFO: &[u8] = b"OSRELEASE=6.12.1\nBUILD-ID=00ff\nNUMBER(phys_base)=-16777216\n\
    SYMBOL(init_top_pgt)=ffffffff9d020000\nNUMBER(pgtable_l5_enabled)=0\nKERNELOFFSET=1b000000\n";

const REGISTERS: &[u8] = b"CPU#0\nRAX=0 RBX=0\nGDT=     fffffe0000001000 0000007f\n\
    IDT=     fffffe0000000000 00000fff\nCR0=80050033 CR2=0 CR3=04a10000 CR4=00372ef0\nEFER=0d01\n";

const MEMORY: &[u8] = b"FlatView #3\n AS \"memory\", root: system\n\
    0000000000000000-00000000000bffff (prio 0, ram): ram\n\
    0000000100000000-000000013fffffff (prio 0, ram): ram @0000000080000000\n";

/// `(target, name, bytes)` of each.
pub fn inputs() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let kdump = kdump();
    vec![
        ("elf_core", "memory-and-note", core()),
        ("lime", "two-ranges", lime()),
        ("flattened", "kdump", flattened(&kdump)),
        ("kdump", "three-pages", kdump),
        ("vmcoreinfo", "text", VMCOREINFO.to_vec()),
        ("monitor", "registers", REGISTERS.to_vec()),
        ("monitor", "memory", MEMORY.to_vec()),
        ("device_state", "one-processor", device_state()),
    ]
}

/// A stream with the section of a processor whose registers are all zero (QEMU 7.2, migration/savevm.c).
fn device_state() -> Vec<u8> {
    let mut stream = b"QEVM\0\0\0\x03\x04\0\0\0\x05\x03cpu\0\0\0\0\0\0\0\x0c".to_vec();
    stream.resize(stream.len() + 2000, 0);
    stream
}

fn put(bytes: &mut [u8], at: usize, what: &[u8]) {
    bytes[at..at + what.len()].copy_from_slice(what);
}

/// A core with QEMU's note of a processor and a page (include/uapi/linux/elf.h).
fn core() -> Vec<u8> {
    let mut file = vec![0; 64 + 2 * 56];
    put(&mut file, 0, b"\x7fELF\x02\x01\x01");
    put(&mut file, 16, &[4, 0, 62, 0]);
    put(&mut file, 32, &64_u64.to_le_bytes());
    put(&mut file, 54, &56_u16.to_le_bytes());
    put(&mut file, 56, &2_u16.to_le_bytes());
    let mut note = [5_u32, 432, 0].map(u32::to_le_bytes).concat();
    note.extend(b"QEMU\0\0\0\0\x01\0\0\0");
    note.resize(20 + 432, 7);
    let offset = file.len() as u64;
    let after = offset + note.len() as u64;
    for (at, kind, from, length) in [(64, 4_u32, offset, note.len() as u64), (120, 1, after, 256)] {
        put(&mut file, at, &kind.to_le_bytes());
        put(&mut file, at + 8, &from.to_le_bytes());
        put(&mut file, at + 24, &0x10_0000_u64.to_le_bytes());
        put(&mut file, at + 32, &length.to_le_bytes());
    }
    file.extend(note);
    file.extend([9; 256]);
    file
}

fn lime() -> Vec<u8> {
    let range = |start: u64| {
        let numbers = [start, start + 63, 0].map(u64::to_le_bytes).concat();
        [b"EMiL\x01\0\0\0".as_slice(), &numbers, &[5; 64]].concat()
    };
    [range(0), range(0x1000)].concat()
}

/// A dump of three pages: as it is, by zlib, by LZO.
fn kdump() -> Vec<u8> {
    let mut file = vec![0; 4 * PAGE];
    put(&mut file, 0, b"KDUMP   ");
    put(&mut file, 8, &6_u32.to_le_bytes());
    put(&mut file, 428, &[4096_u32, 1, 2, 8].map(u32::to_le_bytes).concat());
    put(&mut file, PAGE + 96, &8_u64.to_le_bytes());
    file[3 * PAGE] = 0b1010_0010;
    let zlib = {
        let mut to = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut to, &[3; PAGE]).expect("memory takes anything");
        to.finish().expect("memory takes anything")
    };
    // Four literals, then a run of a block one byte back, then the end.
    let lzo = [21, 1, 2, 3, 4, 0x20, 0, 0, 0, 0x80, 0, 0, 17, 0, 0].to_vec();
    let stored = [(0_u32, vec![8; 64]), (1, zlib), (2, lzo)];
    let mut at = (file.len() + stored.len() * 24) as u64;
    for (flags, bytes) in &stored {
        file.extend(at.to_le_bytes());
        file.extend((bytes.len() as u32).to_le_bytes());
        file.extend(flags.to_le_bytes());
        file.extend([0; 8]);
        at += bytes.len() as u64;
    }
    stored.into_iter().for_each(|(_, bytes)| file.extend(bytes));
    file
}

fn flattened(file: &[u8]) -> Vec<u8> {
    let record = |at: u64, bytes: &[u8]| {
        [&at.to_be_bytes(), &(bytes.len() as u64).to_be_bytes(), bytes].concat()
    };
    let mut out = vec![0; PAGE];
    put(&mut out, 0, b"makedumpfile");
    put(&mut out, 16, &[1_u64, 1].map(u64::to_be_bytes).concat());
    let (first, second) = file.split_at(5000);
    out.extend([record(5000, second), record(0, first), record(100, &[0; 16])].concat());
    out.extend([0xff; 16]);
    out
}
