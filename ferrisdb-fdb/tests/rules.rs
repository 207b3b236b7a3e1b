//! When errors show up, which ones, and what comes before what: the rules of the C interface that programs of FoundationDB count on,
//! on a database in the process.

#![cfg(not(madsim))]
#![expect(clippy::unwrap_used, reason = "a test")]

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use ferrisdb_client::{Database, Key, KeySelector, Settings, tuple::pack};
use ferrisdb_core::{Stage, runtime};
use ferrisdb_fdb::{
    Ended, Output, Promise, api_version,
    database::DatabaseOptions,
    errors::Code,
    transaction::{RangeRequest, Transaction},
};
use futures::FutureExt as _;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// A result, with the place at which it became known among all results of the test.
struct Known {
    state: Mutex<Option<(Ended, usize)>>,
    changed: Notify,
}

static KNOWN_COUNT: AtomicUsize = AtomicUsize::new(0);

impl Known {
    fn new(result: Option<Ended>) -> Arc<Known> {
        let itself = Arc::new(Known { state: Mutex::default(), changed: Notify::new() });
        if let Some(result) = result {
            itself.settle(result);
        }
        itself
    }

    async fn ended(&self) -> Ended {
        self.place().await.0
    }

    async fn place(&self) -> (Ended, usize) {
        loop {
            let changed = self.changed.notified();
            if let Some(known) = self.state.lock().clone() {
                return known;
            }
            changed.await;
        }
    }
}

impl Promise for Known {
    fn ready(result: Ended) -> Arc<Known> {
        Known::new(Some(result))
    }

    fn start(work: impl Future<Output = Ended> + Send + 'static) -> Arc<Known> {
        let mut work = Box::pin(work);
        if let Some(result) = work.as_mut().now_or_never() {
            return Known::new(Some(result));
        }
        let promise = Known::new(None);
        let kept = Arc::clone(&promise);
        runtime::spawn(async move {
            let result = work.await;
            kept.settle(result);
        })
        .detach();
        promise
    }

    fn fail(self: &Arc<Self>, code: Code) {
        self.settle(Err(code));
    }

    fn settle(self: &Arc<Self>, result: Ended) {
        let mut state = self.state.lock();
        if state.is_none() {
            *state = Some((result, KNOWN_COUNT.fetch_add(1, Ordering::SeqCst)));
            self.changed.notify_waiters();
        }
    }

    fn is_ready(&self) -> bool {
        self.state.lock().is_some()
    }

    async fn completed(self: Arc<Self>) {
        drop(self.place().await);
    }

    fn error(&self) -> Result<(), Code> {
        match &*self.state.lock() {
            Some((Ok(_), _)) => Ok(()),
            Some((Err(code), _)) => Err(*code),
            None => Err(2015),
        }
    }
}

type Tested = Arc<Transaction<Known>>;

/// A handle, as the C library makes it.
struct Handle {
    client: Database,
    options: Arc<DatabaseOptions>,
}

impl Handle {
    async fn new() -> Handle {
        // Once in a process; a commit resets the transaction in versions before 700.
        let _ = api_version::select(730, 730);
        let (memory, options) = (Database::memory().await.unwrap(), DatabaseOptions::default());
        let client = options.client(Settings::default(), |_| Ok(memory)).unwrap();
        Handle { client, options: Arc::new(options) }
    }

    fn transaction(&self) -> Tested {
        Transaction::new(Ok(self.client.clone()), Arc::clone(&self.options))
    }
}

fn range(begin: KeySelector, end: KeySelector) -> RangeRequest {
    let (mode, iteration, limit, target_bytes) = (-2, 1, 0, 0);
    let (snapshot, reverse) = (false, false);
    RangeRequest { begin, end, limit, target_bytes, mode, iteration, snapshot, reverse }
}

fn keys(result: Ended) -> Vec<Key> {
    match result.unwrap() {
        Output::Rows(page) => page.rows.into_iter().map(|row| row.key).collect(),
        other => panic!("{other:?}"),
    }
}

fn number(result: Ended) -> i64 {
    match result.unwrap() {
        Output::Int64(number) => number,
        other => panic!("{other:?}"),
    }
}

/// A result that has to be there in a moment.
async fn soon(known: &Known) -> Ended {
    let limit = Duration::from_secs(1);
    runtime::timeout(limit, Stage::Client, known.ended()).await.expect("it does not end")
}

fn set_number(transaction: &Tested, option: i32, value: i64) -> Result<(), Code> {
    transaction.set_option(option, Some(&value.to_le_bytes()))
}

const TIMEOUT: i32 = 500;
const RETRY_LIMIT: i32 = 501;
const RETRY_DELAY_MAX: i32 = 502;
const SIZE_LIMIT: i32 = 503;

#[tokio::test]
async fn selectors_count_from_the_end_of_what_may_be_read() {
    let database = Handle::new().await;
    let transaction = database.transaction();
    transaction.set(b"k", b"");
    let end = KeySelector::first_greater_than(b"\xff");
    let page = transaction.get_range(range(KeySelector::first_greater_or_equal("a"), end.clone()));
    assert_eq!(keys(page.ended().await), [Key::from("k")]);
    let page = transaction.get_range(range(end.clone(), end.clone()));
    assert_eq!(keys(page.ended().await), [] as [Key; 0]);
    assert_eq!(transaction.get_key(end, false).ended().await, Ok(Output::Key(b"\xff".into())));
    let beyond = KeySelector::first_greater_or_equal(b"\xff\x00");
    let page = transaction.get_range(range(KeySelector::first_greater_or_equal("a"), beyond));
    assert_eq!(page.ended().await, Err(2004));
}

#[tokio::test]
async fn measuring_gives_the_transaction_no_read_version() {
    let database = Handle::new().await;
    let transaction = database.transaction();
    assert_eq!(number(transaction.estimated_range_size(b"a", b"z").ended().await), 0);
    let points = transaction.range_split_points(b"a", b"z", 1_000, 0);
    assert!(matches!(points.ended().await, Ok(Output::Keys(points)) if points.len() == 2));
    let version = number(database.transaction().read_version().ended().await);
    transaction.set_read_version(version);
    assert_eq!(number(transaction.read_version().ended().await), version);
}

#[tokio::test]
async fn the_versionstamp_is_there_when_the_commit_is() {
    let database = Handle::new().await;
    for _ in 0..100 {
        let transaction = database.transaction();
        transaction.set(b"k", b"v");
        let (stamp, commit) = (transaction.versionstamp(), transaction.commit());
        let ((_, commit_at), (stamp, stamp_at)) = (commit.place().await, stamp.place().await);
        assert!(matches!(stamp, Ok(Output::Key(stamp)) if stamp.len() == 10));
        assert!(stamp_at < commit_at, "{stamp_at} after {commit_at}");
    }
}

#[tokio::test]
async fn without_a_commit_there_is_no_versionstamp() {
    let database = Handle::new().await;
    let transaction = database.transaction();
    transaction.get(b"k", false).ended().await.unwrap();
    let other = database.transaction();
    other.set(b"k", b"v");
    other.commit().ended().await.unwrap();
    transaction.set(b"l", b"v");
    let (stamp, commit) = (transaction.versionstamp(), transaction.commit());
    assert_eq!(commit.ended().await, Err(1020));
    assert_eq!(stamp.ended().await, Err(2020));

    let transaction = database.transaction();
    let stamp = transaction.versionstamp();
    transaction.reset();
    assert_eq!(stamp.ended().await, Err(1025));
    let (stamp, commit) = (transaction.versionstamp(), transaction.commit());
    assert_eq!((commit.ended().await, stamp.ended().await), (Ok(Output::Void), Err(2021)));
    assert_eq!(transaction.versionstamp().ended().await, Err(2017), "too late");

    // An error that is no reason to try again ends the transaction.
    let transaction = database.transaction();
    let stamp = transaction.versionstamp();
    assert_eq!(transaction.on_error(2004).ended().await, Err(2004));
    assert_eq!(soon(&stamp).await, Err(1025));
}

#[tokio::test]
async fn a_commit_that_is_refused_does_nothing_to_the_one_under_way() {
    let database = Handle::new().await;
    let transaction = database.transaction();
    transaction.set(b"k", b"v");
    let (read, stamp) = (transaction.get(b"r", false), transaction.versionstamp());
    let first = transaction.commit();
    assert!(!first.is_ready(), "the second has to come during the first");
    set_number(&transaction, SIZE_LIMIT, 31).unwrap();
    assert_eq!(transaction.commit().ended().await, Err(2006));
    assert_eq!(first.ended().await, Ok(Output::Void));
    assert!(matches!(soon(&stamp).await, Ok(Output::Key(stamp)) if stamp.len() == 10));
    read.ended().await.unwrap();
}

#[tokio::test]
async fn wrong_values_of_options_show_up_later() {
    let database = Handle::new().await;
    let wrong = [
        (SIZE_LIMIT, 31),
        (SIZE_LIMIT, 10_000_001),
        (RETRY_LIMIT, -2),
        (RETRY_LIMIT, i64::from(i32::MAX) + 1),
        (RETRY_DELAY_MAX, -1),
        (RETRY_DELAY_MAX, i64::from(i32::MAX) + 1),
    ];
    for (option, value) in wrong {
        let transaction = database.transaction();
        assert_eq!(set_number(&transaction, option, value), Ok(()), "{option} = {value}");
        transaction.set(b"k", b"v");
        assert_eq!(transaction.commit().ended().await, Err(2006), "{option} = {value}");
        transaction.reset();
        transaction.set(b"k", b"v");
        assert_eq!(transaction.commit().ended().await, Ok(Output::Void));
    }
    // Only what is looked at on the spot is told at once.
    let transaction = database.transaction();
    assert_eq!(set_number(&transaction, TIMEOUT, -1), Err(2006));
    assert_eq!(transaction.set_option(31_337, None), Err(2007));
    assert_eq!(transaction.commit().ended().await, Ok(Output::Void));
}

#[tokio::test]
async fn misuse_has_the_error_of_what_is_looked_at_first() {
    let database = Handle::new().await;
    let everything = || {
        range(KeySelector::first_greater_or_equal("a"), KeySelector::first_greater_or_equal("b"))
    };
    let cancelled = database.transaction();
    cancelled.cancel();
    let exact = RangeRequest { mode: 0, ..everything() };
    assert_eq!(cancelled.get_range(exact.clone()).ended().await, Err(2210));
    let unknown_part = RangeRequest { mode: -1, iteration: 0, ..everything() };
    assert_eq!(cancelled.get_range(unknown_part).ended().await, Err(2000));
    let negative = RangeRequest { limit: -2, ..everything() };
    assert_eq!(cancelled.get_range(negative.clone()).ended().await, Err(1025));
    assert_eq!(database.transaction().get_range(negative).ended().await, Err(2012));
    assert_eq!(cancelled.get(&[b'k'; 20_000], false).ended().await, Err(1025));
    assert_eq!(cancelled.get(b"k", false).ended().await, Err(1025));
    assert_eq!(cancelled.on_error(0).ended().await, Err(1025));
    assert_eq!(cancelled.on_error(1020).ended().await, Err(1025));
    cancelled.set(b"k", b"v");
    assert_eq!(cancelled.commit().ended().await, Err(1025));

    // Nothing has failed: that ends the transaction, too.
    let transaction = database.transaction();
    assert_eq!(transaction.on_error(0).ended().await, Err(2000));
    assert_eq!(transaction.get(b"k", false).ended().await, Err(1025));
    transaction.reset();
    assert_eq!(transaction.get(b"k", false).ended().await, Ok(Output::Value(None)));
    // A deferred error is not looked at before a wrong mode.
    transaction.set(&[b'k'; 20_000], b"");
    assert_eq!(transaction.get_range(exact).ended().await, Err(2210));
    assert_eq!(transaction.get(b"k", false).ended().await, Err(2102));
}

#[tokio::test]
async fn a_transaction_that_is_too_large_is_refused_by_its_commit() {
    let database = Handle::new().await;
    let transaction = database.transaction();
    set_number(&transaction, SIZE_LIMIT, 1_000).unwrap();
    transaction.set(b"k", &[7; 2_000]);
    let read = transaction.get(b"k", false).ended().await;
    assert_eq!(read, Ok(Output::Value(Some(vec![7; 2_000].into()))));
    transaction.set(b"l", b"");
    assert_eq!(transaction.get(b"m", false).ended().await, Ok(Output::Value(None)));
    assert_eq!(transaction.commit().ended().await, Err(2101));
    // The limit that everybody has.
    let transaction = database.transaction();
    for part in 0..101u8 {
        transaction.set(&[b'k', part], &[7; 100_000]);
    }
    assert_eq!(transaction.get(b"m", false).ended().await, Ok(Output::Value(None)));
    assert_eq!(transaction.commit().ended().await, Err(2101));
}

#[tokio::test]
async fn a_read_that_the_commit_has_waited_for_outlives_the_transaction() {
    let database = Handle::new().await;
    let (transaction, mut reads) = (database.transaction(), Vec::new());
    transaction.set(b"own", b"");
    for number in 0..20_u8 {
        reads.push(transaction.get(&[b'k', number], number % 2 == 0));
    }
    assert_eq!(transaction.commit().ended().await, Ok(Output::Void));
    transaction.destroy();
    for read in reads {
        assert!(read.is_ready());
        assert_eq!(read.error(), Ok(()));
    }
}

#[tokio::test]
async fn own_writes_can_be_hidden_until_something_was_read_or_written() {
    let database = Handle::new().await;
    const READ_YOUR_WRITES_DISABLE: i32 = 51;
    let transaction = database.transaction();
    transaction.read_version().ended().await.unwrap();
    transaction.set_option(READ_YOUR_WRITES_DISABLE, None).unwrap();
    transaction.set(b"k", b"v");
    assert_eq!(transaction.get(b"k", false).ended().await, Ok(Output::Value(None)));
    assert_eq!(transaction.commit().ended().await, Ok(Output::Void));

    let reads = [false, true].map(|snapshot| {
        let transaction = database.transaction();
        (transaction.get(b"k", snapshot), transaction)
    });
    for (read, transaction) in reads {
        read.ended().await.unwrap();
        transaction.set_option(READ_YOUR_WRITES_DISABLE, None).unwrap();
        assert_eq!(transaction.get(b"k", false).ended().await, Err(2000));
    }
}

#[tokio::test]
async fn all_that_the_transaction_says_of_itself_is_one_module() {
    let database = Handle::new().await;
    let transaction = database.transaction();
    transaction.get(b"r", false).ended().await.unwrap();
    transaction.set(b"w", b"");
    let module = |end: &[u8]| {
        let begin = KeySelector::first_greater_or_equal(b"\xff\xff/transaction/");
        range(begin, KeySelector::first_greater_or_equal(end))
    };
    let rows = keys(transaction.get_range(module(b"\xff\xff/transaction0")).ended().await);
    let ends: Vec<&[u8]> =
        rows.iter().map(|key| key.rsplit(|b| *b == b'/').next().unwrap()).collect();
    assert_eq!(ends, [&b"r"[..], b"r\x00", b"w", b"w\x00"]);
    let nothing = transaction.get_range(module(b"\xff\xff/transaction/b")).ended().await;
    assert_eq!(keys(nothing), [] as [Key; 0]);
    let too_much = transaction.get_range(module(b"\xff\xff0")).ended().await;
    assert_eq!(too_much, Err(2112));
}

#[tokio::test]
async fn traces_have_the_form_that_programs_parse() {
    let database = Handle::new().await;
    const SPECIAL_KEY_WRITES: i32 = 714;
    let (id, token) = (b"\xff\xff/tracing/transaction_id", b"\xff\xff/tracing/token");
    async fn text(transaction: &Tested, key: &[u8]) -> String {
        match transaction.get(key, false).ended().await.unwrap() {
            Output::Value(Some(value)) => String::from_utf8(value.to_vec()).unwrap(),
            other => panic!("{other:?}"),
        }
    }
    let transaction = database.transaction();
    assert!(u128::from_str_radix(&text(&transaction, id).await, 16).unwrap() > 0);
    assert!(text(&transaction, token).await.parse::<u64>().unwrap() > 0);
    transaction.set_option(SPECIAL_KEY_WRITES, None).unwrap();
    transaction.set(token, b"false");
    assert_eq!(text(&transaction, token).await, "0");
    transaction.set(id, b"ff");
    assert_eq!(text(&transaction, id).await, format!("{:032x}", 255));
    transaction.set(b"k", b"v");
    transaction.set(id, b"ee");
    transaction.set(token, b"true");
    assert_eq!(text(&transaction, id).await, format!("{:032x}", 255), "too late");
    assert_eq!(text(&transaction, token).await, "0", "too late");
    assert_eq!(transaction.commit().ended().await, Ok(Output::Void));
}

#[tokio::test]
async fn the_size_grows_with_each_call_by_more_than_its_bytes() {
    let database = Handle::new().await;
    let transaction = database.transaction();
    let size = async || number(transaction.approximate_size().ended().await);
    assert_eq!(size().await, 0);
    transaction.set(b"foo", b"bar");
    assert_eq!(size().await, 3 + 3 + 28 + 7 + 24);
    transaction.set(b"foo", b"bar");
    assert_eq!(size().await, 2 * 65, "as much again");
    transaction.get(b"r", false).ended().await.unwrap();
    assert_eq!(size().await, 2 * 65 + 3 + 24);
    transaction.reset();
    assert_eq!(size().await, 0);
}

#[tokio::test]
async fn a_commit_fails_with_its_reads() {
    let database = Handle::new().await;
    let transaction = database.transaction();
    const SET_VERSIONSTAMPED_VALUE: i32 = 15;
    transaction.atomic_op(b"k", &[0; 14], SET_VERSIONSTAMPED_VALUE);
    assert_eq!(transaction.get(b"k", false).ended().await, Err(1036));
    assert_eq!(transaction.commit().ended().await, Err(1036), "although the program has heard it");
    transaction.reset();
    transaction.atomic_op(b"k", &[0; 14], SET_VERSIONSTAMPED_VALUE);
    assert_eq!(transaction.commit().ended().await, Ok(Output::Void));
    // One that comes up while the commit waits.
    let transaction = database.transaction();
    transaction.set_read_version(1 << 62);
    transaction.set(b"n", b"");
    let (read, commit) = (transaction.get(b"k", false), transaction.commit());
    assert_eq!((commit.ended().await, read.ended().await), (Err(1009), Err(1009)));
    assert_eq!(database.transaction().get(b"n", false).ended().await, Ok(Output::Value(None)));
    // Watches and mapped ranges fail alone.
    let transaction = database.transaction();
    transaction.atomic_op(b"k", &[0; 14], SET_VERSIONSTAMPED_VALUE);
    assert_eq!(transaction.watch(b"k").ended().await, Err(1036));
    let (begin, end) =
        (KeySelector::first_greater_or_equal("a"), KeySelector::first_greater_or_equal("z"));
    let mapper = pack(&("data", "{K[1]}", "{...}")).unwrap();
    let mapped = transaction.get_mapped_range(range(begin, end), &mapper);
    assert_eq!(mapped.ended().await, Err(1036));
    assert_eq!(transaction.commit().ended().await, Ok(Output::Void));
}

#[tokio::test]
async fn a_read_version_may_be_asked_for_at_any_time() {
    let database = Handle::new().await;
    let transaction = database.transaction();
    transaction.set(b"k", b"v");
    let read = transaction.get(b"r", false);
    let commit = transaction.commit();
    let version = transaction.read_version();
    assert_eq!(commit.ended().await, Ok(Output::Void), "it is no misuse");
    read.ended().await.unwrap();
    let version = number(version.ended().await);
    assert_eq!(number(transaction.read_version().ended().await), version);
    assert_eq!(transaction.on_error(1020).ended().await, Ok(Output::Void));
}

#[tokio::test]
async fn whoever_waits_for_a_versionstamp_hears_of_misuse() {
    let database = Handle::new().await;
    let transaction = database.transaction();
    transaction.set(b"k", b"v");
    let (stamp, watch) = (transaction.versionstamp(), transaction.watch(b"w"));
    let commit = transaction.commit();
    assert!(!commit.is_ready(), "a misuse has to come during the commit");
    assert_eq!(transaction.get(b"k", false).ended().await, Err(2017));
    assert_eq!(commit.ended().await, Err(2017));
    assert_eq!((stamp.ended().await, watch.ended().await), (Err(2017), Err(2017)));
    assert_eq!(transaction.on_error(1020).ended().await, Err(2017));
    assert_eq!(transaction.read_version().ended().await, Err(2017));
    // There is no commit because of what was done before.
    let transaction = database.transaction();
    let stamp = transaction.versionstamp();
    transaction.set(&[b'k'; 20_000], b"");
    assert_eq!(transaction.commit().ended().await, Err(2102));
    assert_eq!(stamp.ended().await, Err(2020));
    // A second commit does nothing to the first one.
    const USED_DURING_COMMIT_PROTECTION_DISABLE: i32 = 701;
    let transaction = database.transaction();
    transaction.set_option(USED_DURING_COMMIT_PROTECTION_DISABLE, None).unwrap();
    transaction.set(b"k", b"v");
    let (read, stamp) = (transaction.get(b"r", false), transaction.versionstamp());
    let (first, second) = (transaction.commit(), transaction.commit());
    assert_eq!(second.ended().await, Err(2017));
    assert_eq!(first.ended().await, Ok(Output::Void));
    assert!(matches!(stamp.ended().await, Ok(Output::Key(stamp)) if stamp.len() == 10));
    read.ended().await.unwrap();
}

#[tokio::test]
async fn a_mapped_range_under_way_is_a_read_that_the_commit_waits_for() {
    let database = Handle::new().await;
    let transaction = database.transaction();
    let rows = (0..50).map(|row| (pack(&("index", row)), pack(&("data", row))));
    for (index, data) in rows {
        transaction.set(&index.unwrap(), b"");
        transaction.set(&data.unwrap(), b"");
    }
    assert_eq!(transaction.commit().ended().await, Ok(Output::Void));
    let transaction = database.transaction();
    transaction.set(b"own", b"");
    let (begin, end) = (pack(&("index",)).unwrap(), pack(&("index", 50)).unwrap());
    let index =
        range(KeySelector::first_greater_or_equal(begin), KeySelector::first_greater_or_equal(end));
    let mapper = pack(&("data", "{K[1]}", "{...}")).unwrap();
    let (mapped, commit) = (transaction.get_mapped_range(index, &mapper), transaction.commit());
    assert_eq!(commit.ended().await, Ok(Output::Void));
    match mapped.ended().await.unwrap() {
        Output::MappedRows { rows, .. } => {
            assert_eq!(rows.len(), 50);
            assert!(rows.iter().all(|row| row.found.len() == 1), "{rows:?}");
        }
        other => panic!("{other:?}"),
    }
}
