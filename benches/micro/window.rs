//! The MVCC window of a storage server, with a million keys in it.
//!
//! The window is filled with keys of 16 bytes in random order and values of 100 bytes, ten thousand versions of
//! a hundred sets each. The engine behind it has nothing, so that only the window is measured.

use std::{cell::RefCell, hint::black_box};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ferrisdb_core::{
    Key, KeyRange, Mutation, Result, Value, Version,
    service::storage::{RangeRead, VersionedValue},
};
use ferrisdb_server::storage::{
    budget::Budget,
    engine::{Cursor, Engine, EngineBatch, EngineChange, Step},
    read,
    window::Window,
};

const VERSIONS: u64 = 10_000;
const KEYS_PER_VERSION: u64 = 100;
const KEYS: u64 = VERSIONS * KEYS_PER_VERSION;

/// An engine without data.
struct Nothing;

impl Engine for Nothing {
    fn version(&self) -> Version {
        Version::ZERO
    }

    fn get(&self, _key: &[u8]) -> Result<Option<VersionedValue>> {
        Ok(None)
    }

    fn cursor<'a>(&'a self, _range: &KeyRange, _reverse: bool) -> Box<dyn Cursor + 'a> {
        Box::new(Nothing)
    }

    fn sample(&self, _: &KeyRange, _: usize) -> Vec<(Key, u64)> {
        Vec::new()
    }

    fn write(&self, _batch: &EngineBatch) -> Result<()> {
        Ok(())
    }

    fn ingest(&self, _changes: &[EngineChange]) -> Result<()> {
        Ok(())
    }

    fn attachment(&self) -> Result<Option<Bytes>> {
        Ok(None)
    }

    fn reset(&self, _version: Version, _attachment: Option<&Bytes>) -> Result<()> {
        Ok(())
    }
}

impl Cursor for Nothing {
    fn next(&mut self) -> Result<Step> {
        Ok(Step::End)
    }

    fn skip_to(&mut self, _key: &Key) {}
}

/// Numbers that look random, the same in each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        scatter(self.0)
    }
}

/// A permutation of the numbers, so that keys are distinct and in no order.
fn scatter(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn key(number: u64) -> Key {
    Key::from(format!("{:016x}", scatter(number)))
}

fn sets(version: u64) -> Vec<Mutation> {
    let value = Value::from(vec![b'v'; 100]);
    let numbers = version * KEYS_PER_VERSION..(version + 1) * KEYS_PER_VERSION;
    numbers.map(|number| Mutation::Set { key: key(number), value: value.clone() }).collect()
}

fn clear(random: &mut Random) -> Mutation {
    let begin = random.next() & !0xffff_ffff_ffff;
    let range =
        KeyRange::new(format!("{begin:016x}"), format!("{:016x}", begin | 0xffff_ffff_ffff));
    Mutation::ClearRange { range }
}

fn apply(window: &mut Window, mutations: Vec<Mutation>) {
    let version = window.applied_version().next();
    window.apply(version, mutations, &mut |_| Ok(None)).expect("no mutation can fail");
}

fn filled(clears: u64) -> Window {
    let mut window = Window::new(Version::ZERO);
    let mut random = Random(1);
    for _ in 0..clears {
        apply(&mut window, vec![clear(&mut random)]);
    }
    for version in 0..VERSIONS {
        apply(&mut window, sets(version));
    }
    window
}

fn writes(c: &mut Criterion) {
    let mut group = c.benchmark_group("window/apply");
    group.throughput(Throughput::Elements(KEYS_PER_VERSION));
    let mut window = filled(0);
    let (mut next, begin) = (VERSIONS, window.applied_version());
    group.bench_function("100 sets into 1 M", |b| {
        b.iter_batched(
            || {
                next += 1;
                sets(next)
            },
            |mutations| apply(&mut window, mutations),
            BatchSize::SmallInput,
        );
    });
    window.rollback_after(begin);

    group.throughput(Throughput::Elements(1));
    let mut random = Random(2);
    group.bench_function("a range clear of 15 of 1 M", |b| {
        b.iter_batched(
            || vec![clear(&mut random)],
            |mutations| apply(&mut window, mutations),
            BatchSize::SmallInput,
        );
    });
    window.rollback_after(begin);
    group.bench_function("a range clear of all of 1 M", |b| {
        let mutation = Mutation::ClearRange { range: KeyRange::all_user_keys() };
        b.iter_batched(
            || vec![mutation.clone()],
            |mutations| apply(&mut window, mutations),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn reads(c: &mut Criterion) {
    for (name, clears) in [("no clears", 0), ("10,000 clears", 10_000)] {
        let window = filled(clears);
        let version = window.applied_version();
        let mut random = Random(3);
        let mut group = c.benchmark_group(format!("window/read, {name}"));
        group.bench_function("get, hit", |b| {
            b.iter_batched(
                || key(random.next() % KEYS),
                |key| black_box(window.get(&key, version)),
                BatchSize::SmallInput,
            );
        });
        group.bench_function("get, hit, at an older version", |b| {
            let older = Version(clears + VERSIONS / 2);
            b.iter_batched(
                || key(random.next() % (KEYS / 2)),
                |key| black_box(window.get(&key, older)),
                BatchSize::SmallInput,
            );
        });
        group.bench_function("get, miss", |b| {
            b.iter_batched(
                || key(KEYS + random.next() % KEYS),
                |key| black_box(window.get(&key, version)),
                BatchSize::SmallInput,
            );
        });
        group.bench_function("range of 100", |b| {
            b.iter_batched(
                || RangeRead {
                    range: KeyRange::new(key(random.next() % KEYS), Key::USER_END),
                    read_version: version,
                    rows_max: 100,
                    bytes_max: u32::MAX,
                    reverse: false,
                },
                |request| {
                    let budget = Budget::of_rows(1_000);
                    black_box(read::get_range(&window, &Nothing, &request, budget))
                },
                BatchSize::SmallInput,
            );
        });
        group.finish();
    }
}

fn flushes(c: &mut Criterion) {
    let mut group = c.benchmark_group("window/flush");
    group.throughput(Throughput::Elements(10_000));
    // Setup and routine take turns with it.
    let window = RefCell::new(filled(0));
    group.sample_size(20);
    group.bench_function("100 versions of 100 sets out of 1 M", |b| {
        b.iter_batched_ref(
            || {
                // As many in as go out.
                let mut window = window.borrow_mut();
                for _ in 0..100 {
                    let version = window.applied_version().0;
                    apply(&mut window, sets(version));
                }
            },
            |()| {
                let mut window = window.borrow_mut();
                let version = window.oldest_version().saturating_add(100);
                black_box(window.begin_flush(version));
                window.finish_flush(version);
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, writes, reads, flushes);
criterion_main!(benches);
