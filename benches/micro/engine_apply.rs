//! The engine of a storage server: synced batches as a flush writes them, and point reads out of the cache.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ferrisdb_core::{Key, Version, service::storage::Row};
use ferrisdb_server::storage::engine::{
    Engine, EngineBatch, EngineChange,
    rocksdb::{RocksEngine, RocksSettings},
};

const BATCH_ROWS: u64 = 1_000;
const STORED_ROWS: u64 = 100_000;
const VALUE: [u8; 100] = [b'v'; 100];

/// Sixteen bytes, spread over the key space.
fn key(number: u64) -> Key {
    let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Key::from(format!("{spread:016x}"))
}

fn batch(version: u64, numbers: impl Iterator<Item = u64>) -> EngineBatch {
    let set = |number| {
        EngineChange::Set(Row {
            key: key(number),
            value: VALUE.as_slice().into(),
            commit_version: Version(version),
        })
    };
    EngineBatch { version: Version(version), changes: numbers.map(set).collect(), attachment: None }
}

fn engine_apply(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a directory for the engine");
    let engine =
        RocksEngine::open(directory.path(), RocksSettings::default()).expect("an empty directory");
    let mut group = criterion.benchmark_group("engine_apply");

    let mut version = 0;
    for first in (0..STORED_ROWS).step_by(BATCH_ROWS as usize) {
        version += 1;
        engine.write(&batch(version, first..first + BATCH_ROWS)).expect("the disk works");
    }

    group.throughput(Throughput::Elements(BATCH_ROWS));
    group.bench_function("write_1000_sets_synced", |bencher| {
        bencher.iter_batched(
            || {
                version += 1;
                batch(version, (0..BATCH_ROWS).map(|n| (version * BATCH_ROWS + n) % STORED_ROWS))
            },
            |batch| engine.write(&batch).expect("the disk works"),
            criterion::BatchSize::PerIteration,
        );
    });

    group.throughput(Throughput::Elements(1));
    let keys: Vec<Key> = (0..STORED_ROWS).map(key).collect();
    let mut next = keys.iter().cycle();
    group.bench_function("get_cached", |bencher| {
        bencher.iter(|| black_box(engine.get(next.next().expect("a cycle has no end"))));
    });
    group.finish();
}

criterion_group!(benches, engine_apply);
criterion_main!(benches);
