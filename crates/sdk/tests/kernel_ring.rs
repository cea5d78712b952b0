// SPDX-License-Identifier: Apache-2.0
//! The reader on a ring that the kernel itself writes.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::os::fd::AsFd;
use std::process::Command;
use std::thread::JoinHandle;
use std::time::Duration;

use abi::{EventType, ProcessExit, RecordBuilder};
use libbpf_rs::{MapCore, MapFlags, Object, ObjectBuilder, ProgramInput};
use sdk::{Ring, RingError, Waited};

const RING_BYTES: usize = 64 << 10;

/// Writes the record in `record` as often as it is asked to, numbered as Ringfence's programs do, and
/// says how many found no place.
const WRITER: &str = r#"
typedef unsigned int u32; typedef unsigned long long u64;
#define SEC(name) __attribute__((section(name), used))
static long (*bpf_ringbuf_output)(void *, void *, u64, u64) = (void *)130;
static void *(*bpf_map_lookup_elem)(void *, const void *) = (void *)1;
struct { int (*type)[27]; int (*max_entries)[RING_BYTES]; } ring SEC(".maps");
struct { int (*type)[2]; int (*max_entries)[1]; u32 *key; unsigned char (*value)[RECORD_BYTES]; } record SEC(".maps");
struct request { u64 count; u64 lost; u64 number; };
SEC("syscall") int write_records(struct request *request)
{
	u32 zero = 0;
	unsigned char *bytes = bpf_map_lookup_elem(&record, &zero);
	if (!bytes)
		return -1;
	for (u64 i = 0; i < 1000 && i < request->count; i++) {
		*(u64 *)(bytes + EVENT_ID) = request->number++;
		*(u64 *)(bytes + LOST) = request->lost;
		if (bpf_ringbuf_output(&ring, bytes, RECORD_BYTES, 0))
			request->lost++;
	}
	return 0;
}
char _license[] SEC("license") = "Dual BSD/GPL";
"#;

struct Writer {
    object: Object,
    request: [u64; 3],
}

impl Writer {
    fn load() -> Self {
        let record = RecordBuilder::<ProcessExit>::new(EventType::ProcessExit).finish();
        let directory = tempfile::tempdir().unwrap();
        let (c, o) = (directory.path().join("writer.c"), directory.path().join("writer.o"));
        std::fs::write(&c, WRITER).unwrap();
        let built = Command::new("clang")
            .args(["-target", "bpf", "-mcpu=v3", "-g", "-O2", "-c"])
            .arg(format!("-DRING_BYTES={RING_BYTES}"))
            .arg(format!("-DRECORD_BYTES={}", record.as_bytes().len()))
            .arg(format!("-DEVENT_ID={}", std::mem::offset_of!(abi::Header, event_id)))
            .arg(format!("-DLOST={}", std::mem::offset_of!(abi::Header, lost)))
            .arg(&c)
            .arg("-o")
            .arg(&o)
            .output()
            .unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        let object = ObjectBuilder::default().open_file(&o).unwrap().load().unwrap();
        let record_map = object.maps().find(|map| map.name() == "record").unwrap();
        record_map.update(&[0; 4], record.as_bytes(), MapFlags::ANY).unwrap();
        Self { object, request: [0; 3] }
    }

    fn ring(&self) -> Ring {
        let map = self.object.maps().find(|map| map.name() == "ring").unwrap();
        Ring::new(map.as_fd().try_clone_to_owned().unwrap()).unwrap()
    }

    /// Has the kernel write this many; gives how many were lost so far.
    fn write(&mut self, count: u64) -> u64 {
        self.request[0] = count;
        let mut context: Vec<u8> = self.request.iter().flat_map(|v| v.to_ne_bytes()).collect();
        let program = self.object.progs_mut().next().unwrap();
        let input = ProgramInput { context_in: Some(&mut context), ..ProgramInput::default() };
        assert_eq!(program.test_run(input).unwrap().return_value, 0);
        for (word, bytes) in self.request.iter_mut().zip(context.chunks(8)) {
            *word = u64::from_ne_bytes(bytes.try_into().unwrap());
        }
        self.request[1]
    }
}

#[test]
#[ignore = "root: loads a BPF program"]
fn records_of_the_kernel_come_in_order_and_what_it_lost_is_counted_exactly() {
    let mut writer = Writer::load();
    let mut ring = writer.ring();
    assert_eq!(ring.size(), RING_BYTES as u64);
    assert!(ring.next().unwrap().is_none());
    let mut expected = 0;
    for round in 0..50 {
        // More than there is place for, and less.
        let lost = writer.write(if round % 3 == 0 { 900 } else { 40 });
        while let Some(received) = ring.next().unwrap() {
            expected += received.missed;
            assert_eq!(received.sequence, expected);
            assert_eq!(received.record.header().event_id, expected);
            expected += 1;
        }
        assert_eq!(expected + lost - ring.counts().1, writer.request[2]);
    }
    assert!(ring.counts().1 > 0);
}

#[test]
#[ignore = "root: loads a BPF program"]
fn a_waiting_reader_is_woken_by_the_kernel() {
    let mut writer = Writer::load();
    let mut ring = writer.ring();
    assert_eq!(ring.wait(Some(Duration::from_millis(20)), None).unwrap(), Waited::TimedOut);
    let reader: JoinHandle<_> = std::thread::spawn(move || {
        let waited = ring.wait(Some(Duration::from_secs(20)), None).unwrap();
        (waited, ring.next().unwrap().unwrap().sequence)
    });
    std::thread::sleep(Duration::from_millis(50));
    writer.write(1);
    assert_eq!(reader.join().unwrap(), (Waited::Ready, 0));
}

#[test]
#[ignore = "root: loads a BPF program"]
fn a_reader_without_any_privilege_needs_the_descriptor_alone() {
    let mut writer = Writer::load();
    writer.write(3);
    let map = writer.object.maps().find(|map| map.name() == "ring").unwrap();
    let descriptor = map.as_fd().try_clone_to_owned().unwrap();
    // Ids belong to a thread: this one alone becomes nobody.
    let reader = std::thread::spawn(move || {
        let nobody = rustix::process::Uid::from_raw(65_534);
        rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
        let mut ring = Ring::new(descriptor).unwrap();
        let mut read = 0;
        while ring.next().unwrap().is_some() {
            read += 1;
        }
        read
    });
    assert_eq!(reader.join().unwrap(), 3);
}

#[test]
#[ignore = "root: loads a BPF program"]
fn another_kind_of_map_is_no_ring() {
    let writer = Writer::load();
    let map = writer.object.maps().find(|map| map.name() == "record").unwrap();
    let error = Ring::new(map.as_fd().try_clone_to_owned().unwrap()).unwrap_err();
    assert!(matches!(error, RingError::NotARing { .. }));
    assert!(error.to_string().ends_with("it is a BPF map of type 2"), "{error}");
}
