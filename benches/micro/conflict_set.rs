//! The coordinator's hottest loop: transactions against a window of a million writes.
//!
//! A transaction reads five ranges and writes two, drawn evenly from five million. Most cases have ranges of a single key,
//! as reads and writes of keys make them; random keys have 16 bytes.
//! The window holds the last million writes, in batches of 500 transactions. Everything is on one core, and
//! all writes are made, whatever the verdict. What differs is how old the reads are: the older, the fewer
//! blocks are skipped because nothing in them is as new.
//!
//! - `random/recent`: random keys, reads at the version of one of the last ten batches.
//! - `random/old`: random keys, reads anywhere in the window.
//! - `decimal/recent`: keys like `user/profile/0001234567`, of which the beginnings tell nothing.
//! - `ranges/recent`: of the same keys, ranges that have one to ten, in reads and in writes.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ferrisdb_core::{Key, KeyRange, Version};
use ferrisdb_server::coordinator::resolver::conflict_set::{ConflictSet, PREFETCHED_RANGES};

const KEYS: u64 = 5_000_000;
const READS: usize = 5;
const WRITES: usize = 2;
const BATCH: usize = 500;
/// Batches in the window: a million writes.
const WINDOW: u64 = 1_000_000 / (BATCH * WRITES) as u64;

/// A generator that is the same in every run (the finisher of SplitMix64 over a counter).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        scramble(self.0)
    }
}

fn scramble(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// Makes the range of a number.
type MakeRange = fn(u64) -> KeyRange;

fn random_key(number: u64) -> KeyRange {
    let number = number % KEYS;
    let mut bytes = scramble(number).to_be_bytes().to_vec();
    bytes.extend_from_slice(&number.to_be_bytes());
    KeyRange::single(&Key::from(bytes))
}

fn decimal(number: u64) -> Key {
    Key::from(format!("user/profile/{number:010}"))
}

fn decimal_key(number: u64) -> KeyRange {
    KeyRange::single(&decimal(number % KEYS))
}

fn decimal_range(number: u64) -> KeyRange {
    let (begin, len) = (number % KEYS, 1 + (number >> 40) % 10);
    KeyRange::new(decimal(begin), decimal(begin + len))
}

struct Transaction {
    reads: [KeyRange; READS],
    /// How many batches before this one it has read.
    age: u64,
    writes: [KeyRange; WRITES],
}

fn batch(numbers: &mut Numbers, range: MakeRange, age_max: u64) -> Vec<Transaction> {
    let transaction = |_| Transaction {
        reads: std::array::from_fn(|_| range(numbers.next())),
        age: 1 + numbers.next() % age_max,
        writes: std::array::from_fn(|_| range(numbers.next())),
    };
    (0..BATCH).map(transaction).collect()
}

/// Resolves a batch; returns how many transactions conflicted.
fn resolve(set: &mut ConflictSet, batch: &[Transaction], commit_version: Version) -> usize {
    set.forget_before(commit_version.saturating_sub(WINDOW));
    let mut conflicts = 0;
    for transactions in batch.chunks(PREFETCHED_RANGES / (READS + WRITES)) {
        let read_version =
            |transaction: &Transaction| commit_version.saturating_sub(transaction.age);
        set.prefetch(transactions.iter().flat_map(|transaction| {
            let version = Some(read_version(transaction));
            let reads = transaction.reads.iter().map(move |range| (range, version));
            reads.chain(transaction.writes.iter().map(|range| (range, None)))
        }));
        for transaction in transactions {
            let version = read_version(transaction);
            let conflict =
                transaction.reads.iter().any(|range| set.is_written_after(range, version));
            conflicts += usize::from(conflict);
            for range in &transaction.writes {
                set.insert(range, commit_version);
            }
        }
    }
    conflicts
}

fn conflict_set(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("conflict_set");
    group.throughput(Throughput::Elements(BATCH as u64));
    let cases: [(&str, MakeRange, u64); 4] = [
        ("random/recent", random_key, 10),
        ("random/old", random_key, WINDOW),
        ("decimal/recent", decimal_key, 10),
        ("ranges/recent", decimal_range, 10),
    ];
    for (name, range, age_max) in cases {
        let mut numbers = Numbers(7);
        let mut set = ConflictSet::new(Version(WINDOW));
        let mut version = Version(2 * WINDOW);
        // More than once through the window, so that forgetting is in its stride.
        for _ in 0..WINDOW + WINDOW / 2 {
            version = version.next();
            resolve(&mut set, &batch(&mut numbers, range, age_max), version);
        }
        println!("{name}: {} entries, {} MB", set.len(), set.memory_bytes() / 1_000_000);
        group.bench_function(name, |bencher| {
            // A batch is made right before it is resolved, as if it had just been decoded.
            let make = || batch(&mut numbers, range, age_max);
            let resolve = |batch: Vec<Transaction>| {
                version = version.next();
                (resolve(&mut set, &batch, version), batch)
            };
            bencher.iter_batched(make, resolve, BatchSize::PerIteration);
        });
    }
    group.finish();
}

criterion_group!(benches, conflict_set);
criterion_main!(benches);
