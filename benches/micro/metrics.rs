//! What measuring costs: a counter, a histogram, a look at the clock, a stage that is timed; alone, and from two threads at
//! once, which share cache lines then.

use std::{
    hint::black_box,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use criterion::{Criterion, criterion_group, criterion_main};
use ferrisdb_core::{
    metrics::{Counter, Histogram},
    runtime,
};

/// Values as stages have them: from a microsecond to some milliseconds.
fn next(value: &mut u64) -> u64 {
    *value = value.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    1_000 + (*value >> 42)
}

fn alone(criterion: &mut Criterion) {
    let (counter, histogram, mut value) = (Counter::default(), Histogram::default(), 1);
    let mut group = criterion.benchmark_group("metrics");
    group.bench_function("counter increment", |bencher| bencher.iter(|| counter.increment()));
    group.bench_function("histogram record", |bencher| {
        bencher.iter(|| histogram.record(black_box(next(&mut value))));
    });
    group.bench_function("two looks at the clock", |bencher| {
        bencher.iter(|| {
            let began = runtime::now();
            runtime::now().saturating_duration_since(black_box(began))
        });
    });
    group.bench_function("a timed stage", |bencher| bencher.iter(|| drop(histogram.start())));
    group.bench_function("histogram reading", |bencher| bencher.iter(|| histogram.reading()));
    group.finish();
}

fn beside_another_thread(criterion: &mut Criterion) {
    let (histogram, ended, mut value) = (Histogram::default(), AtomicBool::new(false), 1);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut value = 2;
            while !ended.load(Relaxed) {
                histogram.record(next(&mut value));
            }
        });
        criterion.bench_function("metrics/histogram record, two threads", |bencher| {
            bencher.iter(|| histogram.record(black_box(next(&mut value))));
        });
        ended.store(true, Relaxed);
    });
}

criterion_group!(benches, alone, beside_another_thread);
criterion_main!(benches);
