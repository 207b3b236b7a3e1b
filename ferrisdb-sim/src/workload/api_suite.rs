//! What every database must do, wherever it runs: in memory, in a directory, behind sockets, in the simulation.
//!
//! ```text
//!   memory()     \
//!   open(path)    \    the same cases, with the same results, limits and errors
//!   connect       /
//!   simulation   /
//! ```
//!
//! Each case has keys of its own and needs no faults; it fails with the first answer that is not the documented one. What
//! random programs find is in [`super::api_model`]; here stands what somebody would look up.
//!
//! Start with [`run`].

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use ferrisdb_client::{
    AtomicOp, Database, Error, ErrorCode, Key, KeyRange, KeySelector, Priority, RangeQuery, Stage,
    StreamingMode, Subspace, TransactionOption as Opt, Value, Version, Watch,
    directory::DirectoryLayer,
};
use ferrisdb_core::{limits, runtime};
use futures::{FutureExt as _, TryStreamExt as _, future::BoxFuture};

/// A case: its name, and what it does with a database and a prefix of its own.
type Case = (&'static str, for<'a> fn(&'a Database, &'a str) -> BoxFuture<'a, Result<()>>);

/// Runs all cases. Returns how many there were.
///
/// # Errors
///
/// The first answer that is not the documented one, and in which case.
pub async fn run(database: &Database) -> Result<usize> {
    // A cluster that has just been started may still be waiting for its processes.
    put(database, "api_suite/", &[("begun", "")]).await?;
    for (name, case) in CASES {
        let prefix = format!("api_suite/{name}/");
        case(database, &prefix).await.with_context(|| format!("the case {name}"))?;
    }
    Ok(CASES.len())
}

macro_rules! cases {
    ($($name:ident),+ $(,)?) => {
        const CASES: &[Case] =
            &[$((stringify!($name), |database, prefix| $name(database, prefix).boxed())),+];
    };
}

cases!(
    point_reads,
    key_selectors,
    range_reads,
    streaming_modes,
    atomic_operations,
    own_writes,
    unreadable_writes,
    conflicts,
    conflicts_by_hand,
    versions,
    life,
    retries,
    watches,
    watches_that_fail,
    too_many_watches,
    limits_of_size,
    read_only,
    sizes,
    special_keys,
    system_keys,
    users_own_errors,
    directories,
);

fn expect<T: std::fmt::Debug>(result: Result<T, Error>, code: ErrorCode) -> Result<()> {
    match result {
        Err(error) if error.code() == code => Ok(()),
        other => bail!("expected {code} ({}), got {other:?}", code.number()),
    }
}

async fn put(database: &Database, prefix: &str, rows: &[(&str, &str)]) -> Result<()> {
    Ok(database
        .run_transaction(|transaction| async move {
            for (key, value) in rows {
                transaction.set(format!("{prefix}{key}"), *value)?;
            }
            Ok::<_, Error>(())
        })
        .await?)
}

fn keys(prefix: &str, rows: &[ferrisdb_client::KeyValue]) -> Vec<String> {
    let short = |key: &Key| String::from_utf8_lossy(&key[prefix.len()..]).into_owned();
    rows.iter().map(|row| short(&row.key)).collect()
}

async fn point_reads(database: &Database, p: &str) -> Result<()> {
    let transaction = database.transaction();
    transaction.set(format!("{p}a"), "1")?;
    transaction.set(format!("{p}empty"), "")?;
    let committed = transaction.commit().await?;
    let transaction = database.transaction();
    ensure!(transaction.get(format!("{p}a")).await? == Some("1".into()));
    ensure!(transaction.get(format!("{p}empty")).await? == Some("".into()), "empty is not absent");
    ensure!(transaction.get(format!("{p}b")).await?.is_none());
    let found = transaction.snapshot().get_versioned(format!("{p}a")).await?.context("a")?;
    ensure!(found.commit_version == Some(committed.version), "{found:?}");
    transaction.set(format!("{p}a"), "2")?;
    let found = transaction.get_versioned(format!("{p}a")).await?.context("a")?;
    ensure!((found.value, found.commit_version) == ("2".into(), None));
    Ok(())
}

async fn key_selectors(database: &Database, p: &str) -> Result<()> {
    put(database, p, &[("b", ""), ("d", ""), ("f", "")]).await?;
    let transaction = database.transaction();
    let key = |key: &str| format!("{p}{key}");
    for (selector, expected) in [
        (KeySelector::first_greater_or_equal(key("d")), "d"),
        (KeySelector::first_greater_than(key("d")), "f"),
        (KeySelector::last_less_or_equal(key("d")), "d"),
        (KeySelector::last_less_than(key("d")), "b"),
        (KeySelector::first_greater_or_equal(key("c")), "d"),
        (KeySelector::last_less_or_equal(key("c")), "b"),
        (KeySelector::first_greater_or_equal(key("b")) + 2, "f"),
        (KeySelector::last_less_than(key("g")) - 2, "b"),
        (KeySelector::last_less_than(key("d")) + 1, "d"),
        (KeySelector::first_greater_than(key("d")) - 2, "b"),
    ] {
        let found = transaction.get_key(selector.clone()).await?;
        ensure!(found == Key::from(key(expected)), "{selector:?} named {found}, not {expected}");
        let found = transaction.snapshot().get_key(selector).await?;
        ensure!(found == Key::from(key(expected)));
    }
    transaction.clear(key("d"))?;
    transaction.set(key("e"), "")?;
    let found = transaction.get_key(KeySelector::first_greater_than(key("b"))).await?;
    ensure!(found == Key::from(key("e")), "own writes count: {found}");
    let before_all = KeySelector::last_less_than(key("b")) - 1_000_000;
    ensure!(transaction.get_key(before_all).await? == Key::MIN);
    let behind_all = KeySelector::first_greater_than(key("b")) + 1_000_000;
    ensure!(transaction.get_key(behind_all.clone()).await? == Key::USER_END);
    let last = KeySelector::last_less_than(Key::USER_END);
    ensure!(transaction.get_key(last).await? < Key::USER_END);
    let outside = KeySelector::first_greater_than(b"\xff/conf");
    expect(transaction.get_key(outside).await, ErrorCode::KeyOutsideLegalRange)?;
    transaction.set_option(Opt::ReadSystemKeys)?;
    ensure!(transaction.get_key(behind_all).await? >= Key::USER_END);
    Ok(())
}

async fn range_reads(database: &Database, p: &str) -> Result<()> {
    put(database, p, &[("a", "1"), ("b", "22"), ("c", "333"), ("d", "4444")]).await?;
    let transaction = database.transaction();
    let all = || RangeQuery::from(KeyRange::prefix(p.as_bytes()));
    let key = |key: &str| format!("{p}{key}");
    ensure!(keys(p, &transaction.get_range(all()).await?) == ["a", "b", "c", "d"]);
    ensure!(keys(p, &transaction.get_range(all().reverse()).await?) == ["d", "c", "b", "a"]);
    let page = transaction.get_range_page(all().rows(2)).await?;
    ensure!(page.more && keys(p, &page.rows) == ["a", "b"]);
    let page = transaction.get_range_page(all().rows(2).reverse()).await?;
    ensure!(page.more && keys(p, &page.rows) == ["d", "c"]);
    let page = transaction.get_range_page(all().bytes(1)).await?;
    ensure!(page.more && page.rows.len() == 1, "one row comes in any case");
    let page = transaction.get_range_page(all()).await?;
    ensure!(!page.more);
    let after = RangeQuery::between(KeySelector::first_greater_than(key("b")), key("d"));
    ensure!(keys(p, &transaction.get_range(after).await?) == ["c"]);
    let by_places =
        KeySelector::last_less_than(key("c"))..KeySelector::first_greater_or_equal(key("a")) + 3;
    ensure!(keys(p, &transaction.get_range(by_places).await?) == ["b", "c"]);
    let inverted = KeySelector::first_greater_than(key("c"))..KeySelector::last_less_than(key("b"));
    ensure!(transaction.get_range(inverted).await?.is_empty(), "inverted places are empty");
    expect(transaction.get_range(key("c")..key("a")).await, ErrorCode::InvertedRange)?;
    expect(transaction.get_range(all().rows(0)).await, ErrorCode::RangeLimitsInvalid)?;
    let exact = all().mode(StreamingMode::Exact);
    expect(transaction.get_range(exact.clone()).await, ErrorCode::ExactModeWithoutLimits)?;
    ensure!(transaction.get_range(exact.rows(3)).await?.len() == 3);
    let system = KeyRange { begin: "x".into(), end: Key::SYSTEM_END };
    expect(transaction.get_range(system).await, ErrorCode::KeyOutsideLegalRange)?;
    Ok(())
}

async fn streaming_modes(database: &Database, p: &str) -> Result<()> {
    let value = "x".repeat(700);
    let rows: Vec<String> = (0..60).map(|number| format!("{number:03}")).collect();
    let rows: Vec<(&str, &str)> = rows.iter().map(|key| (key.as_str(), value.as_str())).collect();
    put(database, p, &rows).await?;
    let transaction = database.transaction();
    for mode in [
        StreamingMode::Iterator,
        StreamingMode::WantAll,
        StreamingMode::Small,
        StreamingMode::Medium,
        StreamingMode::Large,
        StreamingMode::Serial,
    ] {
        for reverse in [false, true] {
            let query = RangeQuery::from(KeyRange::prefix(p.as_bytes())).mode(mode);
            let query = RangeQuery { reverse, ..query };
            let stream = transaction.range_stream(query.clone().rows(50));
            let streamed: Vec<_> = stream.try_collect().await?;
            let at_once = transaction.get_range(query.rows(50)).await?;
            ensure!(streamed.len() == 50 && streamed == at_once, "{mode:?} {reverse}");
        }
    }
    Ok(())
}

/// An operation, what was there, the operand, and what must be there then.
type AtomicCase = (AtomicOp, &'static [u8], &'static [u8], Option<&'static [u8]>);

async fn atomic_operations(database: &Database, p: &str) -> Result<()> {
    // Absent: what each makes of nothing. Present: of 0x0102, little-endian, and of text.
    let cases: [AtomicCase; 14] = [
        (AtomicOp::Add, b"\x02\x01", b"\xff\x00", Some(b"\x01\x02")),
        (AtomicOp::Add, b"", b"\x05", Some(b"\x05")),
        (AtomicOp::And, b"\x0f\xff", b"\x3c", Some(b"\x0c")),
        (AtomicOp::Or, b"\x01", b"\x02\x04", Some(b"\x03\x04")),
        (AtomicOp::Xor, b"\x03", b"\x01", Some(b"\x02")),
        (AtomicOp::AppendIfFits, b"ab", b"cd", Some(b"abcd")),
        (AtomicOp::Max, b"\x01\x02", b"\x02\x01", Some(b"\x01\x02")),
        (AtomicOp::Min, b"\x01\x02", b"\x02\x01", Some(b"\x02\x01")),
        (AtomicOp::ByteMax, b"abc", b"abd", Some(b"abd")),
        (AtomicOp::ByteMin, b"abc", b"abd", Some(b"abc")),
        (AtomicOp::CompareAndClear, b"same", b"same", None),
        (AtomicOp::CompareAndClear, b"same", b"other", Some(b"same")),
        (AtomicOp::Max, b"", b"\x07", Some(b"\x07")),
        (AtomicOp::Add, b"\xff", b"\x01", Some(b"\x00")),
    ];
    for (index, (op, present, operand, expected)) in cases.into_iter().enumerate() {
        let key = format!("{p}{index:02}");
        let expected = expected.map(Value::from);
        let transaction = database.transaction();
        transaction.set(&*key, present)?;
        transaction.atomic(op, &*key, operand)?;
        ensure!(transaction.get(&*key).await? == expected, "{op:?} on an own value");
        transaction.reset();
        transaction.set(&*key, present)?;
        transaction.commit().await?;
        transaction.reset();
        transaction.atomic(op, &*key, operand)?;
        ensure!(transaction.get(&*key).await? == expected, "{op:?} on a value of the database");
        transaction.commit().await?;
        ensure!(database.transaction().get(&*key).await? == expected, "{op:?}, committed");
    }
    for op in AtomicOp::ALL {
        let key = format!("{p}absent/{op:?}");
        let transaction = database.transaction();
        transaction.atomic(*op, &*key, b"\x05")?;
        transaction.commit().await?;
        let expected = (*op != AtomicOp::CompareAndClear).then(|| Value::from(b"\x05"));
        ensure!(database.transaction().get(&*key).await? == expected, "{op:?} on nothing");
    }
    Ok(())
}

async fn own_writes(database: &Database, p: &str) -> Result<()> {
    put(database, p, &[("a", "1"), ("b", "2"), ("c", "3")]).await?;
    let key = |key: &str| format!("{p}{key}");
    let all = || KeyRange::prefix(p.as_bytes());
    let transaction = database.transaction();
    transaction.clear_range(key("a")..key("c"))?;
    transaction.set(key("bb"), "new")?;
    ensure!(keys(p, &transaction.get_range(all()).await?) == ["bb", "c"]);
    ensure!(keys(p, &transaction.snapshot().get_range(all()).await?) == ["bb", "c"]);
    transaction.set_option(Opt::SnapshotReadYourWritesDisabled)?;
    ensure!(keys(p, &transaction.snapshot().get_range(all()).await?) == ["a", "b", "c"]);
    ensure!(keys(p, &transaction.get_range(all()).await?) == ["bb", "c"]);
    transaction.set_option(Opt::SnapshotReadYourWritesEnabled)?;
    ensure!(keys(p, &transaction.snapshot().get_range(all()).await?) == ["bb", "c"]);
    let too_late = transaction.set_option(Opt::ReadYourWritesDisabled);
    expect(too_late, ErrorCode::InvalidArgument)?;
    let transaction = database.transaction();
    transaction.set_option(Opt::ReadYourWritesDisabled)?;
    transaction.clear_range(all())?;
    ensure!(keys(p, &transaction.get_range(all()).await?) == ["a", "b", "c"]);
    Ok(())
}

async fn unreadable_writes(database: &Database, p: &str) -> Result<()> {
    let key = |key: &str| format!("{p}{key}");
    let transaction = database.transaction();
    transaction.set_versionstamped_value(key("v"), vec![0; 12], 1)?;
    expect(transaction.get(key("v")).await, ErrorCode::AccessedUnreadable)?;
    let mut stamped = key("k").into_bytes();
    let offset = stamped.len() as u32;
    stamped.extend_from_slice(&[0; 10]);
    transaction.set_versionstamped_key(stamped.clone(), offset, "value")?;
    expect(transaction.get(stamped.clone()).await, ErrorCode::AccessedUnreadable)?;
    expect(transaction.get_range(key("a")..key("z")).await, ErrorCode::AccessedUnreadable)?;
    let first = transaction.get_key(KeySelector::first_greater_than(key("a"))).await;
    expect(first, ErrorCode::AccessedUnreadable)?;
    transaction.set_option(Opt::BypassUnreadable)?;
    ensure!(transaction.get(stamped.clone()).await? == Some("value".into()));
    let far = transaction.set_versionstamped_key(key("short"), 1_000, "");
    expect(far, ErrorCode::InvalidMutation)?;
    let promised = transaction.versionstamp();
    let committed = transaction.commit().await?;
    let stamp = promised.await?;
    ensure!(committed.versionstamp == Some(stamp));
    stamped[offset as usize..].copy_from_slice(&stamp.to_bytes());
    let transaction = database.transaction();
    ensure!(transaction.get(stamped).await? == Some("value".into()));
    let value = transaction.get(key("v")).await?.context("v")?;
    ensure!(value[1..11] == stamp.to_bytes() && value.len() == 12);
    let nothing = database.transaction();
    let promised = nothing.versionstamp();
    nothing.commit().await?;
    expect(promised.await, ErrorCode::NoCommitVersion)?;
    let given_up = database.transaction();
    let promised = given_up.versionstamp();
    given_up.reset();
    expect(promised.await, ErrorCode::TransactionCancelled)
}

async fn conflicts(database: &Database, p: &str) -> Result<()> {
    let key = |key: &str| format!("{p}{key}");
    put(database, p, &[("a", "1"), ("b", "2"), ("m", "3")]).await?;
    let (one, two) = (database.transaction(), database.transaction());
    one.get(key("a")).await?;
    two.get(key("b")).await?;
    two.get_range(RangeQuery::from(key("l")..key("n")).rows(1)).await?;
    one.set(key("b"), "x")?;
    two.set(key("a"), "y")?;
    let committed = one.commit().await?;
    let error = two.commit().await;
    expect(error.clone(), ErrorCode::NotCommitted)?;
    let conflicts = two.conflicting_ranges();
    ensure!(conflicts.len() == 1 && conflicts[0].range == KeyRange::single(&key("b").into()));
    ensure!(conflicts[0].written_at == committed.version, "{conflicts:?}");
    let reported = KeyRange::prefix(b"\xff\xff/transaction/conflicting_keys/");
    let rows = two.get_range(reported).await?;
    ensure!(rows.len() == 2 && rows[0].value == "1".into() && rows[1].value == "0".into());
    if let Err(error) = error {
        two.on_error(error).await?;
    }
    ensure!(two.get(key("b")).await? == Some("x".into()), "it starts over at a later version");

    // Neither snapshot reads, nor what lies behind a limit, nor writes without reads.
    let transaction = database.transaction();
    transaction.snapshot().get(key("a")).await?;
    transaction.get_range(RangeQuery::from(key("a")..key("z")).rows(1)).await?;
    put(database, p, &[("m", "4"), ("z", "5")]).await?;
    transaction.set(key("m"), "6")?;
    transaction.commit().await?;
    Ok(())
}

async fn conflicts_by_hand(database: &Database, p: &str) -> Result<()> {
    let key = |key: &str| format!("{p}{key}");
    let begin = || async {
        let transaction = database.transaction();
        transaction.read_version().await?;
        Ok::<_, Error>(transaction)
    };
    let reader = begin().await?;
    reader.add_read_conflict_key(key("r"))?;
    reader.set(key("other"), "")?;
    put(database, p, &[("r", "")]).await?;
    expect(reader.commit().await, ErrorCode::NotCommitted)?;

    let reader = begin().await?;
    reader.get(key("w")).await?;
    reader.set(key("other"), "")?;
    let writer = database.transaction();
    writer.add_write_conflict_range(key("w")..key("x"))?;
    writer.commit().await?;
    expect(reader.commit().await, ErrorCode::NotCommitted)?;

    let reader = begin().await?;
    reader.get(key("silent")).await?;
    reader.set(key("other"), "")?;
    let writer = database.transaction();
    writer.set_option(Opt::NextWriteWithoutConflict)?;
    writer.set(key("silent"), "1")?;
    writer.commit().await?;
    reader.commit().await?;

    let transaction = database.transaction();
    expect(transaction.add_read_conflict_range(key("b")..key("a")), ErrorCode::InvertedRange)?;
    let system = transaction.add_write_conflict_key(b"\xff/x");
    expect(system, ErrorCode::KeyOutsideLegalRange)
}

async fn versions(database: &Database, p: &str) -> Result<()> {
    let key = || format!("{p}k");
    put(database, p, &[("k", "1")]).await?;
    let transaction = database.transaction();
    let version = transaction.read_version().await?;
    ensure!(transaction.read_version().await? == version, "it is asked for once");
    ensure!(version > Version(5_000_000), "versions begin far above the window: {version}");
    put(database, p, &[("k", "2")]).await?;
    ensure!(transaction.get(key()).await? == Some("1".into()), "reads see one version");
    expect(transaction.set_read_version(version), ErrorCode::ReadVersionAlreadySet)?;
    let again = database.transaction();
    again.set_read_version(version)?;
    ensure!(again.get(key()).await? == Some("1".into()));
    expect(database.transaction().set_read_version(Version::ZERO), ErrorCode::VersionInvalid)?;
    let old = database.transaction();
    old.set_read_version(Version(1))?;
    expect(old.get(key()).await, ErrorCode::TransactionTooOld)?;
    let future = database.transaction();
    future.set_read_version(Version(1 << 62))?;
    expect(future.get(key()).await, ErrorCode::FutureVersion)?;

    let stale = database.transaction();
    stale.set_option(Opt::ReadAtMostStale(Duration::from_secs(3_600)))?;
    ensure!(stale.read_version().await? <= database.transaction().read_version().await?);
    for priority in [Priority::Batch, Priority::Default, Priority::Immediate] {
        let transaction = database.transaction();
        transaction.set_option(Opt::Priority(priority))?;
        transaction.get(key()).await?;
    }
    Ok(())
}

async fn life(database: &Database, p: &str) -> Result<()> {
    let key = |key: &str| format!("{p}{key}");
    let transaction = database.transaction();
    let committed = transaction.commit().await?;
    ensure!(committed.versionstamp.is_none() && transaction.committed_version().is_none());
    let transaction = database.transaction();
    let sizes = [
        transaction.approximate_size(),
        {
            transaction.set(key("a"), "1")?;
            transaction.approximate_size()
        },
        {
            transaction.clear_range(key("b")..key("c"))?;
            transaction.approximate_size()
        },
        {
            transaction.add_read_conflict_range(key("d")..key("e"))?;
            transaction.approximate_size()
        },
    ];
    ensure!(sizes.windows(2).all(|pair| pair[0] < pair[1]) && sizes[0] == 0, "{sizes:?}");
    let committed = transaction.commit().await?;
    ensure!(transaction.committed_version() == Some(committed.version));
    ensure!(transaction.read_version().await? <= committed.version);
    expect(transaction.set(key("a"), "2"), ErrorCode::UsedDuringCommit)?;
    expect(transaction.get(key("a")).await, ErrorCode::UsedDuringCommit)?;
    expect(transaction.commit().await, ErrorCode::UsedDuringCommit)?;
    transaction.reset();
    ensure!(transaction.get(key("a")).await? == Some("1".into()));
    transaction.cancel();
    expect(transaction.get(key("a")).await, ErrorCode::TransactionCancelled)?;
    expect(transaction.commit().await, ErrorCode::TransactionCancelled)?;
    let conflict = Error::new(ErrorCode::NotCommitted, Stage::Resolve, "");
    expect(transaction.on_error(conflict).await, ErrorCode::TransactionCancelled)?;
    transaction.reset();
    transaction.get(key("a")).await?;
    Ok(())
}

async fn retries(database: &Database, p: &str) -> Result<()> {
    let error = |code| Error::new(code, Stage::Client, "");
    let transaction = database.transaction();
    transaction.set_option(Opt::RetryLimit(Some(1)))?;
    transaction.set_option(Opt::RetryDelayMax(Duration::from_millis(1)))?;
    transaction.set(p, "")?;
    transaction.on_error(error(ErrorCode::NotCommitted)).await?;
    ensure!(transaction.approximate_size() == 0, "it starts over");
    let original = transaction.on_error(error(ErrorCode::TransactionTooOld)).await;
    expect(original, ErrorCode::TransactionTooOld)?;
    expect(transaction.get(p).await, ErrorCode::TransactionCancelled)?;
    transaction.reset();
    let hopeless = transaction.on_error(error(ErrorCode::KeyTooLarge)).await;
    expect(hopeless, ErrorCode::KeyTooLarge)?;
    let transaction = database.transaction();
    transaction.set_option(Opt::Timeout(Duration::from_millis(1)))?;
    runtime::sleep(Duration::from_millis(5)).await;
    expect(transaction.get(p).await, ErrorCode::TransactionTimedOut)?;
    let again = transaction.on_error(error(ErrorCode::NotCommitted)).await;
    expect(again, ErrorCode::TransactionTimedOut)?;
    transaction.reset();
    transaction.get(p).await?;
    for code in ErrorCode::ALL {
        ensure!(!code.is_maybe_committed() || code.is_retryable(), "{code}");
    }
    Ok(())
}

/// How long a watch may take that is to be ready.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long one is looked at that is not.
const LOOKED_AT_FOR: Duration = Duration::from_secs(2);

/// What a watch ends with.
async fn ended(watch: Watch) -> Result<(), Error> {
    runtime::timeout(READY_WITHIN, Stage::Client, watch).await.and_then(|ended| ended)
}

/// Watches a key, in a transaction that only reads.
async fn watch(database: &Database, key: &str) -> Result<Watch> {
    let transaction = database.transaction();
    let watch = transaction.watch(key).await?;
    transaction.commit().await?;
    Ok(watch)
}

async fn watches(database: &Database, p: &str) -> Result<()> {
    let key = |key: &str| format!("{p}{key}");
    put(database, p, &[("same", "1"), ("set", "1"), ("cleared", "1"), ("dropped", "1")]).await?;
    let mut untouched = watch(database, &key("untouched")).await?;
    let mut same = watch(database, &key("same")).await?;
    let (set, created) = (watch(database, &key("set")).await?, watch(database, &key("new")).await?);
    let cleared = watch(database, &key("cleared")).await?;
    // The transaction has gone before anything happens, and so has its handle.
    let other = database.clone();
    let dropped = watch(&other, &key("dropped")).await?;
    drop(other);
    // Armed by a commit that writes, with the value that this transaction has written itself.
    let transaction = database.transaction();
    transaction.set(key("own"), "mine")?;
    let mut own = transaction.watch(key("own")).await?;
    transaction.commit().await?;

    put(database, p, &[("same", "1"), ("own", "mine")]).await?;
    let quiet = futures::future::select_all([&mut same, &mut own, &mut untouched]);
    let quiet =
        runtime::timeout(LOOKED_AT_FOR, Stage::Client, quiet).await.map(|(ended, ..)| ended);
    ensure!(quiet.is_err(), "the same value once more is no change: {quiet:?}");
    ensure!(!same.is_ready() && !own.is_ready() && !untouched.is_ready());

    put(database, p, &[("same", "2"), ("set", "2"), ("new", ""), ("dropped", "2"), ("own", "2")])
        .await?;
    let transaction = database.transaction();
    transaction.clear_range(key("cleared")..key("cleared0"))?;
    transaction.commit().await?;
    for (name, watch) in [
        ("same", same),
        ("set", set),
        ("new", created),
        ("cleared", cleared),
        ("dropped", dropped),
        ("own", own),
    ] {
        ensure!(watch.key() == &Key::from(key(name)));
        ended(watch).await.with_context(|| format!("the watch of {name}"))?;
    }
    ensure!(!untouched.is_ready());

    // A later write of the same transaction is a change at once.
    let transaction = database.transaction();
    let later = transaction.watch(key("set")).await?;
    transaction.set(key("set"), "2")?;
    ensure!(!later.is_ready(), "it is the same");
    transaction.set(key("set"), "3")?;
    ensure!(later.is_ready(), "it was changed");
    transaction.commit().await?;
    ended(later).await.context("an own later write")
}

async fn watches_that_fail(database: &Database, p: &str) -> Result<()> {
    let transaction = database.transaction();
    let watch = transaction.watch(p).await?;
    transaction.reset();
    expect(ended(watch).await, ErrorCode::TransactionCancelled)?;
    let watch = transaction.watch(p).await?;
    transaction.cancel();
    expect(ended(watch).await, ErrorCode::TransactionCancelled)?;
    let transaction = database.transaction();
    let watch = transaction.watch(p).await?;
    drop(transaction);
    expect(ended(watch).await, ErrorCode::TransactionCancelled)?;

    let transaction = database.transaction();
    transaction.get(format!("{p}read")).await?;
    let watch = transaction.watch(p).await?;
    transaction.set(format!("{p}other"), "")?;
    put(database, p, &[("read", "")]).await?;
    expect(transaction.commit().await, ErrorCode::NotCommitted)?;
    expect(ended(watch).await, ErrorCode::NotCommitted)?;

    let transaction = database.transaction();
    transaction.set_option(Opt::Timeout(Duration::from_millis(1_500)))?;
    let watch = transaction.watch(p).await?;
    expect(ended(watch).await, ErrorCode::TransactionTimedOut)?;
    let transaction = database.transaction();
    transaction.set_option(Opt::ReadYourWritesDisabled)?;
    expect(transaction.watch(p).await, ErrorCode::WatchesDisabled)
}

async fn too_many_watches(database: &Database, p: &str) -> Result<()> {
    let transaction = database.transaction();
    // With a value of its own nobody has to be asked for it.
    transaction.set(p, "")?;
    let mut watches = Vec::new();
    let refused = loop {
        match transaction.watch(p).await {
            Ok(watch) => watches.push(watch),
            Err(error) => break error,
        }
        ensure!(watches.len() <= limits::WATCHES_DEFAULT, "there is no end of watches");
    };
    expect(Err::<(), _>(refused), ErrorCode::TooManyWatches)?;
    drop(watches.pop());
    let last = transaction.watch(p).await?;
    transaction.reset();
    expect(ended(last).await, ErrorCode::TransactionCancelled)?;
    ensure!(watches.iter().all(Watch::is_ready), "all have ended with the transaction");
    let transaction = database.transaction();
    drop(transaction.watch(p).await?);
    Ok(())
}

async fn limits_of_size(database: &Database, p: &str) -> Result<()> {
    let mut key = p.as_bytes().to_vec();
    key.resize(limits::KEY_BYTES_MAX, b'k');
    let value = vec![b'v'; limits::VALUE_BYTES_MAX];
    let transaction = database.transaction();
    transaction.set(key.clone(), value.clone())?;
    transaction.commit().await?;
    ensure!(database.transaction().get(key.clone()).await? == Some(value.clone().into()));
    let transaction = database.transaction();
    let longer = [key.clone(), b"k".to_vec()].concat();
    expect(transaction.set(longer.clone(), ""), ErrorCode::KeyTooLarge)?;
    expect(transaction.get(longer).await, ErrorCode::KeyTooLarge)?;
    let larger = [value, b"v".to_vec()].concat();
    expect(transaction.set(p, larger), ErrorCode::ValueTooLarge)?;
    expect(transaction.set(b"\xff", ""), ErrorCode::KeyOutsideLegalRange)?;
    for wrong in [31, limits::TRANSACTION_BYTES_MAX + 1] {
        expect(transaction.set_option(Opt::SizeLimit(wrong)), ErrorCode::InvalidArgument)?;
    }
    transaction.set_option(Opt::SizeLimit(200))?;
    expect(transaction.set(p, vec![0; 200]), ErrorCode::TransactionTooLarge)?;
    transaction.set(p, "small")?;
    Ok(())
}

async fn read_only(database: &Database, p: &str) -> Result<()> {
    let transaction = database.transaction();
    transaction.set_option(Opt::ReadOnly)?;
    transaction.get(p).await?;
    expect(transaction.set(p, ""), ErrorCode::TransactionReadOnly)?;
    expect(transaction.clear(p), ErrorCode::TransactionReadOnly)?;
    expect(transaction.add_write_conflict_key(p), ErrorCode::TransactionReadOnly)?;
    transaction.commit().await?;
    Ok(())
}

async fn sizes(database: &Database, p: &str) -> Result<()> {
    let rows: Vec<String> = (0..100).map(|number| format!("{number:03}")).collect();
    let rows: Vec<(&str, &str)> = rows.iter().map(|key| (key.as_str(), "1234567890")).collect();
    put(database, p, &rows).await?;
    let transaction = database.transaction();
    let range = KeyRange::prefix(p.as_bytes());
    let row_bytes = (p.len() + 3 + 10) as u64;
    let size = transaction.estimated_range_size(&range).await?;
    ensure!(size == 100 * row_bytes, "{size} bytes");
    let points = transaction.range_split_points(&range, row_bytes * 25, None).await?;
    ensure!(points.len() == 5 && points[0] == range.begin && points[4] == range.end, "{points:?}");
    let points = transaction.range_split_points(&range, row_bytes * 10, Some(2)).await?;
    ensure!(points.len() == 4);
    let inverted = KeyRange { begin: range.end.clone(), end: range.begin.clone() };
    expect(transaction.estimated_range_size(&inverted).await, ErrorCode::InvertedRange)?;
    expect(transaction.range_split_points(&range, 0, None).await, ErrorCode::InvalidArgument)?;
    ensure!(!transaction.addresses_for_key(p).await?.is_empty());
    Ok(())
}

async fn special_keys(database: &Database, p: &str) -> Result<()> {
    let transaction = database.transaction();
    let status = transaction.get(b"\xff\xff/status/json").await?.context("a status")?;
    let status: serde_json::Value = serde_json::from_slice(&status)?;
    ensure!(status["client"]["database_status"]["available"] == true, "{status}");
    let processes = status["cluster"]["processes"].as_object().context("processes")?;
    ensure!(!processes.is_empty());
    let id = transaction.get(b"\xff\xff/cluster_id").await?.context("an id")?;
    ensure!(id == database.cluster_id().await?.to_string().into());
    ensure!(transaction.get(b"\xff\xff/connection_string").await?.is_some());
    transaction.set(p, "")?;
    let written = KeyRange::prefix(b"\xff\xff/transaction/write_conflict_range/");
    let rows = transaction.get_range(&written).await?;
    ensure!(rows.len() == 2 && rows[0].key.ends_with(p.as_bytes()), "{rows:?}");
    let page = transaction.get_range_page(RangeQuery::from(&written).rows(1).reverse()).await?;
    ensure!(page.more && page.rows[0].value == "0".into());
    expect(transaction.get(b"\xff\xff/nothing").await, ErrorCode::SpecialKeysNoModuleFound)?;
    let all = KeyRange { begin: b"\xff\xff/".into(), end: b"\xff\xff0".into() };
    expect(transaction.get_range(&all).await, ErrorCode::SpecialKeysCrossModuleRead)?;
    transaction.set_option(Opt::SpecialKeysRelaxed)?;
    ensure!(transaction.get_range(&all).await?.len() >= 5);
    expect(transaction.set(b"\xff\xff/x", ""), ErrorCode::KeyOutsideLegalRange)
}

async fn system_keys(database: &Database, p: &str) -> Result<()> {
    let transaction = database.transaction();
    let servers = KeyRange::prefix(b"\xff/keyServers/");
    expect(transaction.get_range(&servers).await, ErrorCode::KeyOutsideLegalRange)?;
    transaction.set_option(Opt::ReadSystemKeys)?;
    ensure!(
        !transaction.snapshot().get_range(&servers).await?.is_empty(),
        "shards have boundaries"
    );
    expect(transaction.set(b"\xff/x", ""), ErrorCode::KeyOutsideLegalRange)?;

    let metadata = b"\xff/metadataVersion";
    let writer = database.transaction();
    let before = writer.get(metadata).await?;
    writer.set_versionstamped_value(metadata, vec![0; 10], 0)?;
    writer.set(p, "")?;
    let stamp = writer.commit().await?.versionstamp.context("a stamp")?;
    let after = database.transaction().get(metadata).await?;
    ensure!(after != before && after == Some(Value::from(&stamp.to_bytes())), "{after:?}");
    let writer = database.transaction();
    expect(writer.set(metadata, "0123456789"), ErrorCode::KeyOutsideLegalRange)?;
    let other = writer.set_versionstamped_value(metadata, vec![1; 10], 0);
    expect(other, ErrorCode::KeyOutsideLegalRange)
}

async fn users_own_errors(database: &Database, p: &str) -> Result<()> {
    let refused: Result<(), anyhow::Error> = database
        .run_transaction(|transaction| async move {
            transaction.set(p, "never")?;
            bail!("not today")
        })
        .await;
    ensure!(refused.is_err_and(|error| error.to_string() == "not today"));
    ensure!(database.transaction().get(p).await?.is_none(), "nothing was committed");
    let runs = AtomicU32::new(0);
    database
        .run_transaction(|transaction| {
            let is_first = runs.fetch_add(1, Ordering::SeqCst) == 0;
            async move {
                transaction.get(p).await?;
                transaction.set(p, "once")?;
                if is_first {
                    put(database, p, &[("", "other")]).await?;
                }
                Ok::<_, anyhow::Error>(())
            }
        })
        .await?;
    let runs = runs.into_inner();
    ensure!(runs == 2, "a conflict starts over, {runs} runs");
    Ok(())
}

async fn directories(database: &Database, p: &str) -> Result<()> {
    let root = Subspace::from_prefix(p);
    let layer = &DirectoryLayer::with_subspaces(root.nested(&"nodes")?, root.nested(&"contents")?);
    let prefix: &Vec<u8> = &database
        .run_transaction(|transaction| async move {
            let users = layer.create_or_open(&transaction, ["app", "users"]).await?;
            let key = users.pack(&(7, "ann"))?;
            transaction.set(key.clone(), "1")?;
            Ok::<_, anyhow::Error>(key.to_vec())
        })
        .await?;
    let listed = database
        .run_transaction(|transaction| async move {
            layer.move_path(&transaction, ["app", "users"], ["app", "people"]).await?;
            let people = layer.open(&transaction, ["app", "people"]).await?;
            ensure!(people.pack(&(7, "ann"))?.to_vec() == *prefix, "a move keeps the contents");
            Ok::<_, anyhow::Error>(layer.list(&transaction, ["app"]).await?)
        })
        .await?;
    ensure!(listed == ["people"], "{listed:?}");
    Ok(())
}
