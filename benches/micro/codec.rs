//! The wire encoding of what is sent most: into bytes and back, without a network.
//!
//! - `commit`: a request with two sets of 100 bytes, five read and two written keys.
//! - `reads`: fifty point reads in one message.
//! - `page`: a thousand rows with values of 100 bytes.

use std::{fmt::Debug, hint::black_box};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ferrisdb_core::{
    Key, KeyRange, Mutation, Value, Version,
    service::storage::{PointRead, RangeReply, Row},
    transaction::CommitRequest,
    transport::{decode, encode},
};
use serde::{Serialize, de::DeserializeOwned};

const VALUE: [u8; 100] = [b'v'; 100];

fn key(number: u64) -> Key {
    Key::from(format!("user/profile/{number:010}"))
}

fn commit() -> CommitRequest {
    let single = |number| KeyRange::single(&key(number));
    let set = |number| Mutation::Set { key: key(number), value: Value::copy_from(&VALUE) };
    CommitRequest {
        read_version: Version(1_000_000),
        read_conflicts: (0..5).map(single).collect(),
        write_conflicts: (5..7).map(single).collect(),
        mutations: (5..7).map(set).collect(),
        idempotency_id: None,
        report_conflicts: false,
        may_write_system_keys: false,
        changes_shard_map: false,
    }
}

fn reads() -> Vec<PointRead> {
    (0..50).map(|number| PointRead { key: key(number), read_version: Version(1_000_000) }).collect()
}

fn page() -> RangeReply {
    let row = |number| Row {
        key: key(number),
        value: Value::copy_from(&VALUE),
        commit_version: Version(1_000_000 + number),
    };
    RangeReply { rows: (0..1_000).map(row).collect(), continue_at: Some(Key::from("continued")) }
}

fn both_ways<T: Serialize + DeserializeOwned + Debug>(
    criterion: &mut Criterion,
    name: &str,
    message: &T,
) {
    let mut group = criterion.benchmark_group("codec");
    let bytes = encode(message).expect("the message can be encoded");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function(format!("encode/{name}"), |bencher| {
        bencher.iter(|| encode(black_box(message)).expect("the message can be encoded"));
    });
    group.bench_function(format!("decode/{name}"), |bencher| {
        bencher.iter(|| decode::<T>(black_box(&bytes)).expect("the message was encoded"));
    });
    group.finish();
}

fn codec(criterion: &mut Criterion) {
    both_ways(criterion, "commit", &commit());
    both_ways(criterion, "reads", &reads());
    both_ways(criterion, "page", &page());
}

criterion_group!(benches, codec);
criterion_main!(benches);
