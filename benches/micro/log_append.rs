//! What it costs to make a batch durable: pushes of 512 bytes to a log on this machine's file system.
//!
//! - `push/1` one push at a time: a write and a sync each, and whatever the log adds to that.
//! - `push/64` sixty-four pushes at once, which share their syncs.
//! - `disk/1` the write and sync alone, over zeros written before: what `push/1` is compared with.
//!
//! Results depend on the disk behind the directory for temporary files; set `TMPDIR` to choose one.

#![allow(missing_docs, reason = "criterion's macros")]

use std::{cell::Cell, sync::Arc, time::Duration};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ferrisdb_core::{
    Endpoint, Generation, Stage, Tag, Version,
    id::Address,
    runtime::{
        Disk as _,
        disk::{FileSystem, OpenMode},
    },
    service::{
        Client,
        log::{LogService, PushRequest},
    },
    transport::{Network, Router, call},
};
use ferrisdb_server::log::{LogSettings, LogStore};

const MESSAGE_BYTES: usize = 512;

async fn push(client: &Client<LogService>, previous: u64) {
    let request = PushRequest {
        generation: Generation(1),
        previous_version: Version(previous),
        commit_version: Version(previous + 1),
        known_committed_version: Version(previous),
        messages: vec![(Tag(1), Bytes::from(vec![b'x'; MESSAGE_BYTES]))],
    };
    let pushed = call(Duration::from_secs(60), Stage::Log, |context| client.push(context, request));
    pushed.await.expect("the log answers").expect("the push succeeds");
}

fn bench(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let directory = tempfile::tempdir().expect("a directory");
    let (store, client) = runtime.block_on(async {
        let router = Router::new();
        let network = Network::new();
        let address = Address::new("here:1");
        network.add_local(address.clone(), router.clone());
        let path = directory.path().join("log");
        let store = LogStore::open(Arc::new(FileSystem), &path, LogSettings::default(), router)
            .await
            .expect("the log opens");
        let instance = store.recruit(Generation(1), Version(0), Vec::new()).await.expect("a log");
        let endpoint = Endpoint { address, instance };
        (store, network.connect::<LogService>(&endpoint).await.expect("a connection"))
    });

    let mut group = criterion.benchmark_group("log_append");
    group.sample_size(20).measurement_time(Duration::from_secs(5));
    let previous = Cell::new(0);
    for concurrent in [1, 64] {
        group.throughput(Throughput::Elements(concurrent));
        group.bench_function(format!("push/{concurrent}"), |bencher| {
            bencher.iter(|| {
                let first = previous.replace(previous.get() + concurrent);
                let pushes = (first..first + concurrent).map(|previous| push(&client, previous));
                runtime.block_on(futures::future::join_all(pushes));
            });
        });
    }

    let file = runtime.block_on(async {
        let file = FileSystem.open(&directory.path().join("plain"), OpenMode::New).await;
        let file = file.expect("a file");
        file.write_and_sync(0, Bytes::from(vec![0; 1 << 20])).await.expect("zeros");
        file
    });
    let offset = Cell::new(0);
    group.throughput(Throughput::Elements(1));
    group.bench_function("disk/1", |bencher| {
        bencher.iter(|| {
            let at = offset.replace((offset.get() + 600) % ((1 << 20) - 600));
            let write = file.write_and_sync(at, Bytes::from(vec![b'x'; 600]));
            runtime.block_on(write).expect("a write");
        });
    });
    group.finish();
    runtime.block_on(store.shut_down());
}

criterion_group!(benches, bench);
criterion_main!(benches);
