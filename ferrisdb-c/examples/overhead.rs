//! What libfdb_c.so costs over the Rust client: the same reads and commits through both, on a running server.
//!
//! ```text
//! cargo run --release -p ferrisdb-c --example overhead -- fdb.cluster [SECONDS]
//! ```
//!
//! Both sides have one network thread, and one thread that asks: one operation at a time, then 64 at once. The C functions are called
//! as a program in C calls them, only that they are linked in.

#![cfg(not(madsim))]
#![expect(clippy::unwrap_used, reason = "an example")]
#![expect(clippy::disallowed_methods, reason = "measures real time, on a thread of its own")]

use std::{
    ffi::{CString, c_int},
    ptr::null_mut,
    time::{Duration, Instant},
};

use fdb_c::{api, database::Database as CDatabase, future::Future, transaction::Transaction};
use ferrisdb_client::{Connection, Database, Settings};

const AT_ONCE: usize = 64;
const KEYS: usize = 10_000;

fn key(number: usize) -> Vec<u8> {
    format!("overhead/{:07}", number * 7_919 % KEYS).into_bytes()
}

/// Calls `step`, which does `count` operations, until the time is over; operations per second, and the median of a step.
fn measure(seconds: u64, count: usize, mut step: impl FnMut(usize)) -> (f64, Duration) {
    let (began, mut steps, mut times) = (Instant::now(), 0, Vec::new());
    while began.elapsed() < Duration::from_secs(seconds) {
        let at = Instant::now();
        step(steps * count);
        times.push(at.elapsed());
        steps += 1;
    }
    times.sort();
    ((steps * count) as f64 / began.elapsed().as_secs_f64(), times[times.len() / 2])
}

fn print(what: &str, (per_second, median): (f64, Duration)) {
    println!("{what:<44} {per_second:>10.0}/s   median {:>8.1} us", median.as_secs_f64() * 1e6);
}

/// A program in C.
struct Program {
    database: *mut CDatabase,
}

impl Program {
    fn start(cluster_file: &str) -> Program {
        let path = CString::new(cluster_file).unwrap();
        let mut database = null_mut();
        assert_eq!(api::fdb_select_api_version_impl(730, 730), 0);
        assert_eq!(api::fdb_setup_network(), 0);
        std::thread::spawn(|| assert_eq!(api::fdb_run_network(), 0));
        // SAFETY: a text that ends with a zero, and a place for the handle.
        assert_eq!(unsafe { api::fdb_create_database(path.as_ptr(), &raw mut database) }, 0);
        Program { database }
    }

    fn transaction(&self) -> *mut Transaction {
        let mut transaction = null_mut();
        // SAFETY: the handle lives as long as the program.
        let code =
            unsafe { api::fdb_database_create_transaction(self.database, &raw mut transaction) };
        assert_eq!(code, 0);
        transaction
    }

    fn wait(future: *mut Future) {
        // SAFETY: a future that was just given out.
        unsafe {
            assert_eq!(api::fdb_future_block_until_ready(future), 0);
            assert_eq!(api::fdb_future_get_error(future), 0);
            api::fdb_future_destroy(future);
        }
    }

    fn get(transaction: *mut Transaction, number: usize) -> *mut Future {
        let key = key(number);
        // SAFETY: a transaction that lives, and a key of that length.
        unsafe { api::fdb_transaction_get(transaction, key.as_ptr(), key.len() as c_int, 1) }
    }

    fn update(&self, number: usize) -> (*mut Transaction, *mut Future) {
        let (transaction, key, value) = (self.transaction(), key(number), [b'x'; 100]);
        // SAFETY: as before.
        unsafe {
            api::fdb_transaction_set(
                transaction,
                key.as_ptr(),
                key.len() as c_int,
                value.as_ptr(),
                value.len() as c_int,
            );
            (transaction, api::fdb_transaction_commit(transaction))
        }
    }

    fn finish((transaction, future): (*mut Transaction, *mut Future)) {
        Self::wait(future);
        // SAFETY: it is not used any more.
        unsafe { api::fdb_transaction_destroy(transaction) };
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: overhead CLUSTER_FILE [SECONDS]";
    let cluster_file = arguments.next().expect(usage);
    let seconds = arguments.next().map_or(5, |seconds| seconds.parse().expect(usage));

    let program = Program::start(&cluster_file);
    for number in 0..KEYS / AT_ONCE {
        let updates: Vec<_> = (0..AT_ONCE).map(|i| program.update(number * AT_ONCE + i)).collect();
        updates.into_iter().for_each(Program::finish);
    }

    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(1).enable_all().build().unwrap();
    let connection = Connection::read(&cluster_file).unwrap();
    let database = runtime.block_on(Database::connect_to(connection, Settings::default())).unwrap();

    let read_by_rust = |count: usize| {
        measure(seconds, count, |first| {
            let transaction = database.transaction();
            let reads = (0..count).map(|i| {
                let transaction = transaction.clone();
                async move { transaction.snapshot().get(key(first + i)).await }
            });
            runtime.block_on(futures::future::try_join_all(reads)).unwrap();
        })
    };
    let read_by_c = |count: usize| {
        measure(seconds, count, |first| {
            let transaction = program.transaction();
            let reads: Vec<_> = (0..count).map(|i| Program::get(transaction, first + i)).collect();
            reads.into_iter().for_each(Program::wait);
            // SAFETY: it is not used any more.
            unsafe { api::fdb_transaction_destroy(transaction) };
        })
    };
    let update_by_rust = |count: usize| {
        measure(seconds, count, |first| {
            let updates = (0..count).map(|i| {
                let transaction = database.transaction();
                async move {
                    transaction.set(key(first + i), vec![b'x'; 100])?;
                    transaction.commit().await
                }
            });
            runtime.block_on(futures::future::try_join_all(updates)).unwrap();
        })
    };
    let update_by_c = |count: usize| {
        measure(seconds, count, |first| {
            let updates: Vec<_> = (0..count).map(|i| program.update(first + i)).collect();
            updates.into_iter().for_each(Program::finish);
        })
    };
    for count in [1, AT_ONCE] {
        print(&format!("{count} reads of a transaction, Rust"), read_by_rust(count));
        print(&format!("{count} reads of a transaction, libfdb_c"), read_by_c(count));
        print(&format!("{count} updates at once, Rust"), update_by_rust(count));
        print(&format!("{count} updates at once, libfdb_c"), update_by_c(count));
    }
    assert_eq!(api::fdb_stop_network(), 0);
}
