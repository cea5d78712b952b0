// SPDX-License-Identifier: Apache-2.0
//! How fast the reader is, against `memcpy` over the same bytes in the same run.
//!
//! `memcpy` copies the same bytes, out of a buffer in this process into one of 1 MiB, over and over.
//! The reader has to cross into the kernel for each step, and every one of its loads may fault. What
//! is measured is medians, taken in turn so that all see the same noise.
//!
//! A second copy goes in the same steps as a walk of the reader, which are smaller: what the caches
//! give where the second level holds a step and not a megabyte. No loop of single words comes near
//! it. What bounds inline loads is instructions: the JIT checks the address of each load, ten
//! instructions for eight bytes (arch/x86/net/bpf_jit_comp.c, 6.12).
//!
//! On a Xeon with 1.25 MiB of L2 cache a core, a pass over the text in steps of 128 KiB took 15 in a
//! hundred less processor time than in steps of 1 MiB; on an AMD EPYC with 512 KiB there was no
//! difference.

use std::hint::black_box;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use kernel_memory::{KernelMemory, ReadError};

use crate::reader::{LiveReader, STEP};
use crate::window::WINDOW;

/// Bytes in a small read.
const SMALL: usize = 64;
/// Small reads in one sample.
const SMALL_READS: u32 = 100;
/// Ranges in a batch of small reads.
const BATCH: u64 = 1000;

/// How long something took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Speed {
    /// The median of all rounds.
    pub median: Duration,
    /// The fastest round: what the machine can do while nobody else uses it.
    pub best: Duration,
    /// 10^9 bytes per second at the median.
    pub gigabytes_per_second: f64,
}

/// One path of the reader.
#[derive(Clone, Debug, PartialEq)]
pub struct PathSpeed {
    /// The reader's name, as [`KernelMemory::name`] gives it.
    pub name: &'static str,
    /// A walk over the whole range.
    pub walk: Speed,
    /// Its speed by that of `memcpy` in the same run: 1 is as fast.
    pub ratio: f64,
    /// One read of 64 bytes, by a call of its own.
    pub small_read: Duration,
    /// One read of 64 bytes among a thousand in one `read_many`.
    pub batched_read: Duration,
}

/// All of it.
#[derive(Clone, Debug, PartialEq)]
pub struct ReaderBench {
    /// Bytes in the range.
    pub bytes: u64,
    /// Rounds, of which the medians are taken.
    pub rounds: usize,
    /// `memcpy` over the same bytes.
    pub memcpy: Speed,
    /// The same in the steps of a walk.
    pub memcpy_in_steps: Speed,
    /// The bytes of a step.
    pub step: u64,
    /// Each reader that was given, in its order.
    pub paths: Vec<PathSpeed>,
}

/// Measures `readers` over `length` readable bytes of kernel memory from `start`, which should be
/// kernel text.
pub fn bench_readers(
    readers: &[&LiveReader],
    start: u64,
    length: u64,
    rounds: usize,
) -> Result<ReaderBench, ReadError> {
    let rounds = rounds.max(1);
    let mut source = vec![0; length as usize];
    if let Some(first) = readers.first() {
        first.read(start, &mut source)?;
    }
    let mut target = vec![0; WINDOW];
    let mut copies = Vec::with_capacity(rounds);
    let mut copies_in_steps = Vec::with_capacity(rounds);
    let mut samples: Vec<PathSamples> = readers.iter().map(|_| PathSamples::default()).collect();
    for _ in 0..rounds {
        copies.push(timed(|| {
            copy(&source, WINDOW, &mut target);
            Ok(())
        })?);
        copies_in_steps.push(timed(|| {
            copy(&source, STEP as usize, &mut target);
            Ok(())
        })?);
        for (reader, samples) in readers.iter().zip(&mut samples) {
            samples.take(reader, start, length)?;
        }
    }
    let memcpy = Speed::of(&mut copies, length);
    let memcpy_in_steps = Speed::of(&mut copies_in_steps, length);
    let paths = readers
        .iter()
        .zip(samples)
        .map(|(reader, samples)| samples.summary(reader.name(), length, &memcpy))
        .collect();
    Ok(ReaderBench { bytes: length, rounds, memcpy, memcpy_in_steps, step: STEP, paths })
}

/// Copies `source` in steps, each to the same place.
fn copy(source: &[u8], step: usize, target: &mut [u8]) {
    for step in source.chunks(step) {
        if let Some(target) = target.get_mut(..step.len()) {
            target.copy_from_slice(black_box(step));
        }
        black_box(target.as_ptr());
    }
}

/// The samples of one path.
#[derive(Default)]
struct PathSamples {
    walks: Vec<Duration>,
    small: Vec<Duration>,
    batched: Vec<Duration>,
}

impl PathSamples {
    fn take(&mut self, reader: &LiveReader, start: u64, length: u64) -> Result<(), ReadError> {
        self.walks.push(timed(|| {
            reader.visit(start, length, &mut |piece| {
                black_box(&piece);
                ControlFlow::Continue(())
            })
        })?);
        let mut buffer = [0; SMALL];
        let small = timed(|| {
            for index in 0..SMALL_READS {
                reader.read(start + u64::from(index) * SMALL as u64, &mut buffer)?;
                black_box(&buffer);
            }
            Ok(())
        })?;
        self.small.push(small / SMALL_READS);
        let apart = length / BATCH;
        let ranges: Vec<_> =
            (0..BATCH).map(|index| (start + index * apart, SMALL as u32)).collect();
        let batched = timed(|| {
            black_box(reader.read_many(&ranges));
            Ok(())
        })?;
        self.batched.push(batched / BATCH as u32);
        Ok(())
    }

    fn summary(mut self, name: &'static str, length: u64, memcpy: &Speed) -> PathSpeed {
        let walk = Speed::of(&mut self.walks, length);
        PathSpeed {
            name,
            walk,
            ratio: walk.gigabytes_per_second / memcpy.gigabytes_per_second,
            small_read: median(&mut self.small),
            batched_read: median(&mut self.batched),
        }
    }
}

impl Speed {
    fn of(samples: &mut [Duration], bytes: u64) -> Self {
        let median = median(samples);
        let best = samples.first().copied().unwrap_or_default();
        let seconds = median.as_secs_f64().max(1e-9);
        Self { median, best, gigabytes_per_second: bytes as f64 / seconds / 1e9 }
    }
}

/// Times one sample. It begins with a slice of CPU time that is new, which it fits into: on a busy
/// machine the samples would otherwise fall into step with the scheduler, and the same one of them
/// be interrupted in every round.
fn timed(action: impl FnOnce() -> Result<(), ReadError>) -> Result<Duration, ReadError> {
    std::thread::yield_now();
    let started = Instant::now();
    action()?;
    Ok(started.elapsed())
}

fn median(samples: &mut [Duration]) -> Duration {
    samples.sort_unstable();
    samples.get(samples.len() / 2).copied().unwrap_or_default()
}
