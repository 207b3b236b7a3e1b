//! The unmodified crate `foundationdb` on a FerrisDB cluster: from several tasks and threads. Prints one line for each case, and ends
//! with an error at the first that fails.

use std::{
    collections::BTreeSet,
    fmt::Debug,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use foundationdb::{
    Database, FdbBindingError, FdbError, KeySelector, RangeOption, TransactOption, Transaction,
    api::FdbApiBuilder,
    directory::{Directory, DirectoryLayer, DirectoryOutput},
    options::{
        ConflictRangeType, DatabaseOption, MutationType, NetworkOption, StreamingMode,
        TransactionOption,
    },
    tuple::{Subspace, Versionstamp, pack, pack_with_versionstamp, unpack},
};
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, future, stream};
use tokio::time::timeout;

type Db = Arc<Database>;
/// Whatever goes wrong is shown and ends the program.
type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

const SOON: Duration = Duration::from_secs(10);
const A_WHILE: Duration = Duration::from_millis(500);

fn code<T: Debug, E: Into<FdbError>>(result: Result<T, E>) -> i32 {
    result.map_or_else(|error| error.into().code(), |done| panic!("no error, but {done:?}"))
}

/// The same for work of a transaction.
fn code_of_run<T: Debug>(result: Result<T, FdbBindingError>) -> i32 {
    match result {
        Err(error) => error.get_fdb_error().map_or(-1, FdbError::code),
        Ok(done) => panic!("no error, but {done:?}"),
    }
}

async fn get(db: &Db, key: &[u8]) -> Result<Option<Vec<u8>>, FdbError> {
    Ok(db.create_trx()?.get(key, false).await?.map(|value| value.to_vec()))
}

async fn put(db: &Db, key: &[u8], value: &[u8]) -> Outcome {
    let tr = db.create_trx()?;
    tr.set(key, value);
    tr.commit().await?;
    Ok(())
}

/// A key of every number below `count`, each with a value of 100 bytes.
async fn fill(db: &Db, prefix: &str, count: usize) -> Result<Vec<Vec<u8>>, FdbBindingError> {
    let keys: Vec<Vec<u8>> =
        (0..count).map(|number| format!("{prefix}{number:05}").into_bytes()).collect();
    for part in keys.chunks(2_000) {
        db.run(|tr, _| async move {
            part.iter().for_each(|key| tr.set(key, &[b'x'; 100]));
            Ok(())
        })
        .await?;
    }
    Ok(keys)
}

async fn a_transaction_reads_what_it_wrote_and_others_after_the_commit(db: Db) -> Outcome {
    let (tr, other) = (db.create_trx()?, db.create_trx()?);
    assert!(tr.get_read_version().await? > 5_000_000);
    tr.set(b"hello", b"world");
    assert_eq!(tr.get(b"hello", false).await?.as_deref(), Some(&b"world"[..]));
    assert!(other.get(b"hello", false).await?.is_none());
    let committed = tr.commit().await?;
    assert!(committed.committed_version()? > 0);
    assert!(other.get(b"hello", false).await?.is_none(), "a read version stays");
    assert_eq!(get(&db, b"hello").await?.as_deref(), Some(&b"world"[..]));

    // The same transaction again, after a reset.
    let tr = committed.reset();
    tr.clear(b"hello");
    assert!(tr.get(b"hello", true).await?.is_none());
    tr.commit().await?;
    assert_eq!(get(&db, b"hello").await?, None);

    // Nothing to write: no version.
    assert_eq!(db.create_trx()?.commit().await?.committed_version()?, -1);
    Ok(())
}

async fn reads_wait_for_each_other(db: Db) -> Outcome {
    let keys = fill(&db, "many", 500).await?;
    let tr = db.create_trx()?;
    let values = future::try_join_all(keys.iter().map(|key| tr.get(key, false))).await?;
    assert!(values.iter().all(|value| value.as_ref().is_some_and(|value| value.len() == 100)));
    // Given up halfway.
    drop(future::join_all(keys.iter().map(|key| tr.get(key, false))).now_or_never());
    assert!(tr.get(&keys[7], false).await?.is_some());
    Ok(())
}

async fn ranges_come_in_both_directions_whole_and_in_parts(db: Db) -> Outcome {
    let keys = fill(&db, "range", 3_000).await?;
    let some = || RangeOption::from((&b"range"[..], &b"range00600"[..]));
    let whole = || RangeOption::from((&b"range"[..], &b"rangf"[..]));
    let modes = [
        StreamingMode::WantAll,
        StreamingMode::Iterator,
        StreamingMode::Small,
        StreamingMode::Medium,
        StreamingMode::Large,
        StreamingMode::Serial,
    ];
    for mode in modes {
        // A transaction has five seconds, and parts of 256 bytes take theirs.
        let tr = db.create_trx()?;
        for reverse in [false, true] {
            let option = RangeOption { mode, reverse, ..some() };
            let rows = tr.get_ranges_keyvalues(option, false);
            let mut found: Vec<Vec<u8>> =
                rows.map_ok(|row| row.key().to_vec()).try_collect().await?;
            if reverse {
                found.reverse();
            }
            assert_eq!(found, keys[..600], "{mode:?}");
        }
    }

    let tr = db.create_trx()?;
    let exact = RangeOption { mode: StreamingMode::Exact, limit: Some(7), ..whole() };
    let rows = tr.get_range(&exact, 1, false).await?;
    assert_eq!((rows.len(), rows.more()), (7, true));
    let none = RangeOption { mode: StreamingMode::Exact, ..whole() };
    assert_eq!(code(tr.get_range(&none, 1, false).await.map(|rows| rows.len())), 2210);

    // The next part begins where the last one has ended.
    let mut next = Some(RangeOption { limit: Some(1_000), ..whole() });
    let (mut count, mut part) = (0, 0);
    while let Some(option) = next {
        part += 1;
        let rows = tr.get_range(&option, part, false).await?;
        count += rows.len();
        next = option.next_range(&rows);
    }
    assert_eq!(count, 1_000);
    assert!(part > 1, "an iteration begins with little");

    let small = RangeOption { target_bytes: 1_000, mode: StreamingMode::WantAll, ..whole() };
    let rows = tr.get_range(&small, 1, false).await?;
    assert!(rows.len() < 30 && rows.more(), "{} rows", rows.len());

    // Own changes are in it, too.
    tr.clear_range(b"range00010", b"range02990");
    tr.set(b"range00500", b"");
    let count = tr.get_ranges(whole(), true).try_fold(0, |sum, rows| future::ok(sum + rows.len()));
    assert_eq!(count.await?, 10 + 1 + 10);
    let inverted = RangeOption::from((&b"s"[..], &b"r"[..]));
    assert!(tr.get_range(&inverted, 1, false).await?.is_empty());
    Ok(())
}

async fn selectors_count_keys_over_own_writes(db: Db) -> Outcome {
    fill(&db, "sel", 10).await?;
    let tr = db.create_trx()?;
    tr.clear(b"sel00004");
    tr.set(b"sel000045", b"");
    let first = async |selector: KeySelector<'static>| {
        tr.get_key(&selector, false).await.map(|key| String::from_utf8_lossy(&key).into_owned())
    };
    assert_eq!(first(KeySelector::first_greater_or_equal(&b"sel00004"[..])).await?, "sel000045");
    assert_eq!(first(KeySelector::first_greater_than(&b"sel000045"[..])).await?, "sel00005");
    assert_eq!(first(KeySelector::last_less_than(&b"sel000045"[..])).await?, "sel00003");
    assert_eq!(first(KeySelector::last_less_or_equal(&b"sel000045"[..])).await?, "sel000045");
    let far = |offset| KeySelector::new(b"sel00000"[..].into(), false, offset);
    assert_eq!(first(far(5)).await?, "sel000045");
    assert_eq!(first(far(-5_000)).await?, "");
    let key = tr.get_key(&KeySelector::first_greater_or_equal(&b"\xff"[..]), false).await?;
    assert_eq!(&key[..], b"\xff");
    Ok(())
}

async fn atomic_operations_compute_in_the_database(db: Db) -> Outcome {
    let key = b"atomic";
    let cases: [(MutationType, Option<&[u8]>, &[u8], Option<&[u8]>); 13] = [
        (MutationType::Add, None, &[1, 0], Some(&[1, 0])),
        (MutationType::Add, Some(&[255, 0]), &[1, 0], Some(&[0, 1])),
        (MutationType::BitAnd, Some(&[7]), &[12], Some(&[4])),
        (MutationType::BitOr, Some(&[3]), &[12], Some(&[15])),
        (MutationType::BitXor, Some(&[5]), &[6], Some(&[3])),
        (MutationType::AppendIfFits, Some(b"ab"), b"cd", Some(b"abcd")),
        (MutationType::Max, Some(&[0, 1]), &[255, 0], Some(&[0, 1])),
        (MutationType::Min, Some(&[0, 1]), &[255, 0], Some(&[255, 0])),
        (MutationType::Min, None, &[9], Some(&[9])),
        (MutationType::ByteMin, Some(b"b"), b"abc", Some(b"abc")),
        (MutationType::ByteMax, Some(b"b"), b"abc", Some(b"b")),
        (MutationType::CompareAndClear, Some(b"b"), b"b", None),
        (MutationType::CompareAndClear, Some(b"b"), b"c", Some(b"b")),
    ];
    for (operation, old, operand, new) in cases {
        for is_own in [false, true] {
            let tr = db.create_trx()?;
            match old {
                Some(old) => tr.set(key, old),
                None => tr.clear(key),
            }
            // Once on a value of this transaction, once on one of the database.
            let tr = if is_own { tr } else { tr.commit().await?.reset() };
            tr.atomic_op(key, operand, operation);
            let seen = tr.get(key, true).await?;
            assert_eq!(seen.as_deref(), new, "{operation:?} before the commit");
            tr.commit().await?;
            assert_eq!(get(&db, key).await?.as_deref(), new, "{operation:?}");
        }
    }

    // They do not conflict.
    let (one, other) = (db.create_trx()?, db.create_trx()?);
    put(&db, b"sum", &[0; 8]).await?;
    for tr in [&one, &other] {
        tr.get_read_version().await?;
        tr.atomic_op(b"sum", &1u64.to_le_bytes(), MutationType::Add);
    }
    one.commit().await?;
    other.commit().await?;
    assert_eq!(get(&db, b"sum").await?, Some(2u64.to_le_bytes().to_vec()));
    Ok(())
}

async fn versionstamps_order_keys_and_values(db: Db) -> Outcome {
    let space = Subspace::from("stamps");
    let mut stamps = Vec::new();
    for round in 0..3u16 {
        let tr = db.create_trx()?;
        for number in 0..2 {
            let key = space.pack_with_versionstamp(&Versionstamp::incomplete(number));
            tr.atomic_op(&key, &pack(&round), MutationType::SetVersionstampedKey);
        }
        let value = pack_with_versionstamp(&("last", Versionstamp::incomplete(9)));
        tr.atomic_op(b"stamped", &value, MutationType::SetVersionstampedValue);
        let stamp = tr.get_versionstamp();
        let committed = tr.commit().await?;
        let stamp: [u8; 10] = stamp.await?[..].try_into()?;
        assert_eq!(stamp[..8], committed.committed_version()?.to_be_bytes());
        stamps.push(stamp);
    }
    assert!(stamps.is_sorted());

    let tr = db.create_trx()?;
    let rows: Vec<_> = tr.get_ranges_keyvalues((&space).into(), false).try_collect().await?;
    let found: Vec<(Versionstamp, u16)> = rows
        .iter()
        .map(|row| Ok((space.unpack(row.key())?, unpack(row.value())?)))
        .collect::<Result<_, foundationdb::tuple::PackError>>()?;
    let expected: Vec<(Versionstamp, u16)> = (0..6)
        .map(|number: u16| {
            let round = usize::from(number / 2);
            (Versionstamp::complete(stamps[round], number % 2), number / 2)
        })
        .collect();
    assert_eq!(found, expected);
    let value = tr.get(b"stamped", false).await?.expect("it was written");
    let (text, stamp): (String, Versionstamp) = unpack(&value)?;
    assert_eq!((text.as_str(), stamp), ("last", Versionstamp::complete(stamps[2], 9)));

    // What has a stamp cannot be read before the commit, and a transaction that has tried does not commit.
    let tr = db.create_trx()?;
    tr.atomic_op(b"stamped", &[0; 14], MutationType::SetVersionstampedValue);
    assert_eq!(code(tr.get(b"stamped", false).await.map(|_| ())), 1036);
    assert_eq!(code(tr.commit().await.map(|_| ())), 1036);

    // Of a transaction that only reads there is none, and an offset has to be inside.
    let tr = db.create_trx()?;
    let stamp = tr.get_versionstamp();
    tr.commit().await?;
    assert_eq!(code(stamp.await.map(|_| ())), 2021);
    let tr = db.create_trx()?;
    tr.atomic_op(b"0123456789\x01\0\0\0", b"", MutationType::SetVersionstampedKey);
    assert_eq!(code(tr.commit().await.map(|_| ())), 2000);
    Ok(())
}

async fn conflicts_are_found_and_retried(db: Db) -> Outcome {
    put(&db, b"c", b"0").await?;
    let (one, other) = (db.create_trx()?, db.create_trx()?);
    one.set_option(TransactionOption::ReportConflictingKeys)?;
    one.get(b"c", false).await?;
    other.set(b"c", b"1");
    other.commit().await?;
    one.set(b"d", b"");
    let error = one.commit().await.expect_err("it has read what was overwritten");
    assert_eq!(error.code(), 1020);
    assert!(error.is_retryable() && error.is_retryable_not_committed());
    assert!(!error.is_maybe_committed());
    let ranges = error.conflicting_keys().await?;
    assert!(ranges.iter().any(|range| range.begin() <= &b"c"[..] && range.end() > &b"c"[..]));
    let one = error.on_error().await?;
    assert_eq!(one.get(b"c", false).await?.as_deref(), Some(&b"1"[..]));
    one.set(b"d", b"");
    one.commit().await?;

    // None of a snapshot read; and one of a range that was only declared.
    for (is_declared, expected) in [(false, 0), (true, 1020)] {
        let tr = db.create_trx()?;
        tr.get(b"c", true).await?;
        if is_declared {
            tr.add_conflict_range(b"c", b"c\0", ConflictRangeType::Read)?;
        }
        put(&db, b"c", b"2").await?;
        tr.set(b"d", b"");
        assert_eq!(tr.commit().await.map_or_else(|error| error.code(), |_| 0), expected);
    }

    let attempts = AtomicUsize::new(0);
    db.run(|tr, _| {
        let (db, attempt) = (Arc::clone(&db), attempts.fetch_add(1, SeqCst));
        async move {
            let read = tr.get(b"c", false).await?.map_or(0, |value| value.len());
            if attempt < 2 {
                let tr = db.create_trx()?;
                tr.set(b"c", format!("{attempt} in between").as_bytes());
                tr.commit().await.map_err(FdbError::from)?;
            }
            tr.set(b"read", &[u8::try_from(read).unwrap_or(u8::MAX)]);
            Ok(())
        }
    })
    .await?;
    assert_eq!(attempts.load(SeqCst), 3);
    assert_eq!(get(&db, b"read").await?, Some(vec![12]));

    let attempts = AtomicUsize::new(0);
    let limited = db.transact_boxed(
        &attempts,
        |tr: &Transaction, attempts: &mut &AtomicUsize| {
            attempts.fetch_add(1, SeqCst);
            let db = Arc::clone(&db);
            async move {
                tr.get(b"c", false).await?;
                let other = db.create_trx()?;
                other.set(b"c", b"again");
                other.commit().await.map_err(FdbError::from)?;
                tr.set(b"c", b"never");
                Ok::<(), FdbError>(())
            }
            .boxed()
        },
        TransactOption { retry_limit: Some(4), ..TransactOption::default() },
    );
    assert_eq!(code(limited.await), 1020);
    assert_eq!(attempts.load(SeqCst), 4);
    Ok(())
}

async fn watches_fire_on_changes_only(db: Db) -> Outcome {
    put(&db, b"watched", b"1").await?;
    let armed = async || {
        let tr = db.create_trx()?;
        let watch = tr.watch(b"watched");
        tr.commit().await?;
        Ok::<_, FdbError>(watch)
    };
    let mut watch = armed().await?;
    put(&db, b"other", b"").await?;
    put(&db, b"watched", b"1").await?;
    assert!(timeout(A_WHILE, &mut watch).await.is_err(), "nothing has changed");
    put(&db, b"watched", b"2").await?;
    timeout(SOON, watch).await??;

    // Many of one key.
    let watches = future::try_join_all((0..100).map(|_| armed())).await?;
    let tr = db.create_trx()?;
    tr.clear(b"watched");
    tr.commit().await?;
    timeout(SOON, future::try_join_all(watches)).await??;

    // Without a commit there is none.
    let tr = db.create_trx()?;
    let watch = tr.watch(b"watched");
    drop(tr);
    assert_eq!(code(timeout(SOON, watch).await?), 1025);
    let tr = db.create_trx()?;
    tr.set_option(TransactionOption::ReadYourWritesDisable)?;
    assert_eq!(code(timeout(SOON, tr.watch(b"watched")).await?), 1034);

    let few = Database::new_compat(None).await?;
    few.set_option(DatabaseOption::MaxWatches(1))?;
    let tr = few.create_trx()?;
    let watches = [tr.watch(b"one"), tr.watch(b"two")];
    let _ = tr.commit().await;
    let mut codes = Vec::new();
    for watch in watches {
        codes.push(match timeout(A_WHILE, watch).await {
            Ok(ended) => code(ended),
            Err(_) => 0,
        });
    }
    codes.sort();
    assert_eq!(codes, [0, 1032]);
    Ok(())
}

async fn errors_have_their_numbers(db: Db) -> Outcome {
    let long = vec![b'k'; 10_001];
    let tr = db.create_trx()?;
    assert!(tr.get(&long, false).await?.is_none());
    tr.set(&long, b"");
    assert_eq!(code(tr.commit().await.map(|_| ())), 2102);
    let tr = db.create_trx()?;
    tr.set(b"k", &vec![0; 100_001]);
    assert_eq!(code(tr.get(b"k", false).await.map(|_| ())), 2103);
    let tr = db.create_trx()?;
    assert_eq!(code(tr.get(b"\xff/x", false).await.map(|_| ())), 2004);
    tr.set_option(TransactionOption::ReadSystemKeys)?;
    tr.get(b"\xff/x", false).await?;
    let tr = db.create_trx()?;
    let option = TransactionOption::SizeLimit(1_000);
    tr.set_option(option)?;
    tr.set(b"k", &[0; 2_000]);
    assert_eq!(code(tr.commit().await.map(|_| ())), 2101);
    let tr = db.create_trx()?;
    tr.set_read_version(1);
    assert_eq!(code(tr.get(b"k", false).await.map(|_| ())), 1007);
    let tr = db.create_trx()?;
    assert_eq!(code(tr.add_conflict_range(b"b", b"a", ConflictRangeType::Read)), 2005);
    assert_eq!(code(tr.set_raw_option(12_345, None)), 2007);
    let cancelled = tr.cancel();
    let tr = cancelled.reset();
    tr.get(b"k", false).await?;

    let slow = Database::new_compat(None).await?;
    slow.set_option(DatabaseOption::TransactionTimeout(50))?;
    let tr = slow.create_trx()?;
    tr.get(b"k", false).await?;
    tokio::time::sleep(Duration::from_millis(80)).await;
    assert_eq!(code(tr.get(b"k", false).await.map(|_| ())), 1031);
    assert_eq!(code(tr.on_error(FdbError::from_code(1020)).await.map(|_| ())), 1031);

    // An error of the program is passed on, without another attempt.
    let ended = db.run(|tr, _| async move {
        tr.set(b"\xff\xff/no such thing", b"");
        tr.get(b"k", false).await?;
        Ok(())
    });
    assert_eq!(code_of_run(ended.await), 2114);
    Ok(())
}

async fn sizes_split_points_places(db: Db) -> Outcome {
    let keys = fill(&db, "size", 20_000).await?;
    let tr = db.create_trx()?;
    let size = tr.get_estimated_range_size_bytes(b"size", b"sizf").await?;
    assert!(size > 100_000, "about 2 MB, not {size}");
    let points = tr.get_range_split_points(b"size", b"sizf", 200_000).await?;
    let points: Vec<&[u8]> = points.iter().map(|point| point.key()).collect();
    assert!(points.len() > 2 && points.is_sorted(), "{} points", points.len());
    assert_eq!((points[0], points[points.len() - 1]), (&b"size"[..], &b"sizf"[..]));
    let places = tr.get_addresses_for_key(&keys[0]).await?;
    assert!(places.iter().all(|place| place.to_string_lossy().contains(':')));
    assert!(places.iter().count() > 0);

    let mut before = tr.get_approximate_size().await?;
    tr.set(b"k", b"v");
    for change in [
        |tr: &Transaction| tr.set(b"k", b"v"),
        |tr: &Transaction| tr.clear_range(b"k", b"l"),
        |tr: &Transaction| tr.atomic_op(b"k", b"v", MutationType::Add),
    ] {
        change(&tr);
        let now = tr.get_approximate_size().await?;
        assert!(now > before);
        before = now;
    }
    let status = db.get_client_status().await?;
    assert!(String::from_utf8_lossy(&status).contains("\"Healthy\":true"));
    assert!(db.get_main_thread_busyness().await? <= 1.0);
    Ok(())
}

async fn tuples_and_subspaces(db: Db) -> Outcome {
    type Row = (String, i64, Option<bool>, f64, Vec<u8>, (u16, u16));
    let space = Subspace::from(("app", 7)).subspace(&"rows");
    let rows: Vec<Row> = [i64::MIN, -300, -1, 0, 1, 255, 256, i64::MAX]
        .into_iter()
        .map(|number| ("a\0b".to_owned(), number, Some(number > 0), 0.5, vec![0, 255], (1, 2)))
        .collect();
    db.run(|tr, _| {
        let (rows, space) = (rows.clone(), space.clone());
        async move {
            // In another order than that of the keys.
            for row in rows.iter().rev() {
                tr.set(&space.pack(row), b"");
            }
            tr.set(&Subspace::from(("app", 8)).pack(&"not here"), b"");
            Ok(())
        }
    })
    .await?;
    let tr = db.create_trx()?;
    let found: Vec<Row> = tr
        .get_ranges_keyvalues((&space).into(), false)
        .map(|row| row.map(|row| space.unpack(row.key()).expect("it was packed")))
        .try_collect()
        .await?;
    assert_eq!(found, rows);
    tr.clear_subspace_range(&space);
    tr.commit().await?;
    let rest = db.create_trx()?.get_ranges_keyvalues((&space).into(), false).count().await;
    assert_eq!(rest, 0);
    Ok(())
}

async fn mapped_ranges_look_up_what_an_index_names(db: Db) -> Outcome {
    let (index, data) = (Subspace::from("index"), Subspace::from("data"));
    db.run(|tr, _| {
        let (index, data) = (index.clone(), data.clone());
        async move {
            for id in 0..300u32 {
                tr.set(&index.pack(&(if id % 3 == 0 { "blue" } else { "brown" }, id)), b"");
                tr.set(&data.pack(&(id, "name")), &pack(&id));
                tr.set(&data.pack(&(id, "size")), b"");
            }
            Ok(())
        }
    })
    .await?;
    let mapper = pack(&("data", "{K[2]}", "{...}"));
    let blue = RangeOption::from(&index.subspace(&"blue"));
    let tr = db.create_trx()?;
    let parts: Vec<_> = tr.get_mapped_ranges(blue.clone(), &mapper, false).try_collect().await?;
    let mut ids = Vec::new();
    for row in parts.iter().flat_map(|part| part.iter()) {
        let (_, id): (String, u32) = index.unpack(row.parent_key())?;
        assert_eq!(row.begin_range(), data.pack(&id));
        let found: Vec<&[u8]> = row.key_values().iter().map(|row| row.key()).collect();
        assert_eq!(found, [data.pack(&(id, "name")), data.pack(&(id, "size"))]);
        assert_eq!(unpack::<u32>(row.key_values()[0].value())?, id);
        ids.push(id);
    }
    assert_eq!(ids, (0..300).step_by(3).collect::<Vec<u32>>());

    // What was looked up is read, as far as conflicts go.
    put(&db, &data.pack(&(6, "size")), b"large").await?;
    tr.set(b"k", b"");
    assert_eq!(code(tr.commit().await.map(|_| ())), 1020);

    let tr = db.create_trx()?;
    let refused = async |mapper: &[u8], snapshot| {
        code(tr.get_mapped_range(&blue, mapper, 1, snapshot).await.map(|rows| rows.len()))
    };
    assert_eq!(refused(&mapper, true).await, 2108);
    assert_eq!(refused(b"\xff", false).await, 2043);
    assert_eq!(refused(&pack(&("data", "{K[9]}", "{...}")), false).await, 2030);
    Ok(())
}

async fn directories(db: Db) -> Outcome {
    let layer = DirectoryLayer::default();
    let path = |text: &str| text.split('/').map(str::to_owned).collect::<Vec<_>>();
    let tr = db.create_trx()?;
    let users = layer.create(&tr, &path("app/users"), None, Some(b"users")).await.unwrap();
    let log = layer.create_or_open(&tr, &path("app/log"), None, None).await.unwrap();
    assert_ne!(users.bytes().unwrap(), log.bytes().unwrap());
    tr.set(&users.pack(&1).unwrap(), b"ada");
    tr.commit().await?;

    let tr = db.create_trx()?;
    assert_eq!(layer.list(&tr, &path("app")).await.unwrap().len(), 2);
    assert!(layer.create(&tr, &path("app/log"), None, None).await.is_err());
    assert!(layer.open(&tr, &path("app/users"), Some(b"other")).await.is_err());
    let moved = layer.move_to(&tr, &path("app/users"), &path("app/people")).await.unwrap();
    let value = tr.get(&moved.pack(&1).unwrap(), false).await?;
    assert_eq!(value.as_deref(), Some(&b"ada"[..]));
    assert!(!layer.exists(&tr, &path("app/users")).await.unwrap());
    tr.commit().await?;

    let tr = db.create_trx()?;
    let part = layer.create(&tr, &path("part"), None, Some(b"partition")).await.unwrap();
    assert!(matches!(part, DirectoryOutput::DirectoryPartition(_)));
    let inside = part.create(&tr, &path("inside"), None, None).await.unwrap();
    tr.set(inside.bytes().unwrap(), b"");
    tr.commit().await?;
    let tr = db.create_trx()?;
    assert!(layer.remove(&tr, &path("part")).await.unwrap());
    assert!(layer.remove(&tr, &path("app")).await.unwrap());
    assert!(tr.get(inside.bytes().unwrap(), false).await?.is_none());
    assert!(!layer.exists(&tr, &path("app/people")).await.unwrap());
    tr.commit().await?;

    // Names of many that are made at the same time are all different.
    let made = stream::iter(0..60).map(|number| {
        let db = Arc::clone(&db);
        async move {
            let layer = DirectoryLayer::default();
            db.run(|tr, _| {
                let layer = layer.clone();
                async move {
                    let path = ["many".to_owned(), number.to_string()];
                    let made = layer.create_or_open(&tr, &path, None, None).await?;
                    Ok(made.bytes().map_or_else(|_| Vec::new(), <[u8]>::to_vec))
                }
            })
            .await
        }
    });
    let made: BTreeSet<Vec<u8>> = made.buffer_unordered(8).try_collect().await?;
    assert_eq!(made.len(), 60);
    Ok(())
}

async fn the_metadata_version_is_a_versionstamp(db: Db) -> Outcome {
    let tr = db.create_trx()?;
    tr.set_option(TransactionOption::AccessSystemKeys)?;
    tr.update_metadata_version();
    let committed = tr.commit().await?.committed_version()?;
    let tr = db.create_trx()?;
    assert_eq!(tr.get_metadata_version(true).await?, Some(committed));
    let tr = db.create_trx()?;
    tr.set_option(TransactionOption::AccessSystemKeys)?;
    tr.set(b"\xff/metadataVersion", b"1");
    assert_eq!(code(tr.commit().await.map(|_| ())), 2000);
    Ok(())
}

/// The sum of a counter that is read and written by as many as that.
async fn counted(db: Db, key: &'static [u8], rounds: usize) -> Result<(), FdbBindingError> {
    for _ in 0..rounds {
        db.run(|tr, _| async move {
            let old = tr.get(key, false).await?.and_then(|value| value[..].try_into().ok());
            let old = old.map_or(0, u64::from_le_bytes);
            tr.set(key, &(old + 1).to_le_bytes());
            Ok(())
        })
        .await?;
    }
    Ok(())
}

async fn counters_from_many_tasks(db: Db) -> Outcome {
    let tasks = (0..10).map(|_| tokio::spawn(counted(Arc::clone(&db), b"of tasks", 10)));
    for task in tasks.collect::<Vec<_>>() {
        task.await??;
    }
    assert_eq!(get(&db, b"of tasks").await?, Some(100u64.to_le_bytes().to_vec()));
    Ok(())
}

async fn counters_from_many_threads(db: Db) -> Outcome {
    let threads = (0..6).map(|_| {
        let db = Arc::clone(&db);
        // An executor that knows nothing of tokio.
        std::thread::spawn(move || futures::executor::block_on(counted(db, b"of threads", 10)))
    });
    for thread in threads.collect::<Vec<_>>() {
        thread.join().expect("it does not panic")?;
    }
    assert_eq!(get(&db, b"of threads").await?, Some(60u64.to_le_bytes().to_vec()));
    Ok(())
}

async fn money_is_moved_and_never_made(db: Db) -> Outcome {
    const ACCOUNTS: u64 = 8;
    let key = |account: u64| pack(&("account", account));
    let amount = |value: Option<&[u8]>| value.map_or(0, |value| unpack::<i64>(value).unwrap_or(0));
    db.run(|tr, _| async move {
        (0..ACCOUNTS).for_each(|account| tr.set(&key(account), &pack(&100i64)));
        Ok(())
    })
    .await?;
    let is_over = AtomicUsize::new(0);
    let movers = future::try_join_all((0..6u64).map(|mover| {
        let (db, is_over) = (&db, &is_over);
        async move {
            for round in 0..20u64 {
                let from = (mover + round) % ACCOUNTS;
                let to = (mover * 3 + round * 5 + 1) % ACCOUNTS;
                db.run(|tr, _| async move {
                    let (a, b) =
                        future::try_join(tr.get(&key(from), false), tr.get(&key(to), false))
                            .await?;
                    if from != to {
                        tr.set(&key(from), &pack(&(amount(a.as_deref()) - 1)));
                        tr.set(&key(to), &pack(&(amount(b.as_deref()) + 1)));
                    }
                    Ok(())
                })
                .await?;
            }
            is_over.fetch_add(1, SeqCst);
            Ok::<(), FdbBindingError>(())
        }
    }));
    let auditor = async {
        let accounts = Subspace::from("account");
        let mut audits = 0;
        while is_over.load(SeqCst) < 6 {
            let tr = db.create_trx()?;
            let rows = tr.get_ranges_keyvalues((&accounts).into(), true);
            let rows: Vec<_> = rows.try_collect().await?;
            let sum: i64 = rows.iter().map(|row| amount(Some(row.value()))).sum();
            assert_eq!((rows.len(), sum), (8, 800));
            audits += 1;
        }
        Ok::<usize, FdbBindingError>(audits)
    };
    let (_, audits) = future::try_join(movers, auditor).await?;
    assert!(audits > 0);
    Ok(())
}

macro_rules! run {
    ($db:expr, $($case:ident)*) => {{
        let mut count = 0;
        $(
            let began = Instant::now();
            if let Err(error) = $case(Arc::clone(&$db)).await {
                eprintln!("FAILED {}: {error}", stringify!($case));
                // Not by a return: the network would be stopped while others still use it.
                std::process::exit(1);
            }
            println!("ok {} ({:.2} s)", stringify!($case), began.elapsed().as_secs_f64());
            count += 1;
        )*
        count
    }};
}

async fn all() -> Outcome {
    let db = Arc::new(Database::new_compat(None).await?);
    let tr = db.create_trx()?;
    tr.clear_range(b"", b"\xff");
    tr.commit().await?;
    let count = run!(db,
        a_transaction_reads_what_it_wrote_and_others_after_the_commit
        reads_wait_for_each_other
        ranges_come_in_both_directions_whole_and_in_parts
        selectors_count_keys_over_own_writes
        atomic_operations_compute_in_the_database
        versionstamps_order_keys_and_values
        conflicts_are_found_and_retried
        watches_fire_on_changes_only
        errors_have_their_numbers
        sizes_split_points_places
        tuples_and_subspaces
        mapped_ranges_look_up_what_an_index_names
        directories
        the_metadata_version_is_a_versionstamp
        counters_from_many_tasks
        counters_from_many_threads
        money_is_moved_and_never_made
    );
    println!("{count} cases passed, crate foundationdb API 740");
    Ok(())
}

fn main() -> Outcome {
    // A panic in a task is a failure of the program.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::exit(1);
    }));
    let network = FdbApiBuilder::default().build()?;
    let network = network.set_option(NetworkOption::DisableClientStatisticsLogging)?;
    // SAFETY: it is dropped before the program ends, and after all that uses the network.
    let network = unsafe { network.boot() }?;
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_time()
        .build()?
        .block_on(all());
    drop(network);
    outcome
}
