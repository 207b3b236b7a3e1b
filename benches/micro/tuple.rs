//! Packing and unpacking of typical tuples, which every key of a layer goes through.
//!
//! - `row`: a word, a number and a name, as the key of a row has.
//! - `wide`: two numbers, two words, bytes and a float, more than most keys have.
//!
//! Both are packed from and unpacked into Rust tuples, with the allocations that this takes.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use ferrisdb_client::tuple::{pack, unpack};

type Row = (String, u64, String);
type Wide = (i64, String, Vec<u8>, f64, String, i64);

fn tuples(criterion: &mut Criterion) {
    let row: Row = ("account".into(), 1_234_567, "balance".into());
    let wide: Wide = (-42, "orders".into(), vec![0x17, 0, 0xff, 9], 2.5, "Zürich".into(), 1 << 40);
    let mut group = criterion.benchmark_group("tuple");

    group.bench_function("pack/row", |bencher| {
        bencher.iter(|| pack(black_box(&row)).expect("the tuple can be packed"));
    });
    let packed = pack(&row).expect("the tuple can be packed");
    group.bench_function("unpack/row", |bencher| {
        bencher.iter(|| unpack::<Row>(black_box(&packed)).expect("the tuple was packed"));
    });

    group.bench_function("pack/wide", |bencher| {
        bencher.iter(|| pack(black_box(&wide)).expect("the tuple can be packed"));
    });
    let packed = pack(&wide).expect("the tuple can be packed");
    group.bench_function("unpack/wide", |bencher| {
        bencher.iter(|| unpack::<Wide>(black_box(&packed)).expect("the tuple was packed"));
    });
    group.finish();
}

criterion_group!(benches, tuples);
criterion_main!(benches);
