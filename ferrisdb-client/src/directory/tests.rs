//! The rows of the layer: as FoundationDB's own layer writes them, and as its format says it.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use ferrisdb_core::{ErrorCode, KeyRange, key};
use futures::FutureExt as _;
use parking_lot::Mutex;
use serde_json::Value as Json;

use super::*;
use crate::{Database, Error, Subspace, Transaction};

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

async fn rows_of(database: &Database) -> Rows {
    let rows = database.transaction().get_range(KeyRange::all_user_keys()).await.unwrap();
    rows.into_iter().map(|row| (row.key.to_vec(), row.value.to_vec())).collect()
}

fn shown(rows: &Rows) -> Vec<String> {
    rows.iter()
        .map(|(key, value)| format!("{} = {}", key::escape(key), key::escape(value)))
        .collect()
}

/// A layer whose allocator draws these numbers, in this order.
fn drawing(numbers: &Arc<Mutex<VecDeque<u64>>>) -> DirectoryLayer {
    let numbers = Arc::clone(numbers);
    DirectoryLayer::new().with_draw(Arc::new(move |below| {
        let number = numbers.lock().pop_front().unwrap();
        assert!(number < below);
        number
    }))
}

fn numbers(numbers: &[u64]) -> Arc<Mutex<VecDeque<u64>>> {
    Arc::new(Mutex::new(numbers.iter().copied().collect()))
}

#[tokio::test]
async fn the_rows_of_a_small_tree_are_those_of_the_format() {
    let database = Database::memory().await.unwrap();
    let layer = drawing(&numbers(&[7, 33, 12, 33, 60])).allow_manual_prefixes();
    let transaction = database.transaction();
    // The prefix of the path's end is chosen first: 7. Then that of app: 33.
    let users = layer.create(&transaction, ["app", "users"]).await.unwrap();
    transaction.set(users.pack(&"ada").unwrap(), "1").unwrap();
    let manual = CreateOptions::new().layer("queue").prefix("jobs");
    layer.create_with(&transaction, "jobs", manual).await.unwrap();
    let partition = CreateOptions::new().layer(PARTITION);
    let tenant = layer.create_with(&transaction, "tenant", partition).await.unwrap();
    // The first number, 33, is free here: the partition has its own allocator.
    tenant.create(&transaction, "log").await.unwrap();
    transaction.commit().await.unwrap();

    let expected = [
        // Content of app/users: prefix 7, then the tuple ("ada").
        r"\x15\x07\x02ada\x00 = 1",
        // In the partition (prefix 12), the nodes lie under fe, with another root inside of it: the allocator's
        // counter and claim, the version, log -> 12 | 33; and log's node, without a layer.
        r"\x15\x0c\xfe\x01\x15\x0c\x15!\x00\x01layer\x00 = ",
        r"\x15\x0c\xfe\x01\x15\x0c\xfe\x00\x01hca\x00\x14\x14 = \x01\x00\x00\x00\x00\x00\x00\x00",
        r"\x15\x0c\xfe\x01\x15\x0c\xfe\x00\x01hca\x00\x15\x01\x15! = ",
        r"\x15\x0c\xfe\x01\x15\x0c\xfe\x00\x01version\x00 = \x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
        r"\x15\x0c\xfe\x01\x15\x0c\xfe\x00\x14\x02log\x00 = \x15\x0c\x15!",
        // Nodes are ordered by prefix: users (7), tenant (12), app (33) with its entry, jobs.
        r"\xfe\x01\x15\x07\x00\x01layer\x00 = ",
        r"\xfe\x01\x15\x0c\x00\x01layer\x00 = partition",
        r"\xfe\x01\x15!\x00\x01layer\x00 = ",
        r"\xfe\x01\x15!\x00\x14\x02users\x00 = \x15\x07",
        r"\xfe\x01jobs\x00\x01layer\x00 = queue",
        // The root is the node of the prefix fe. The window from 0 on has given away three numbers.
        r"\xfe\x01\xfe\x00\x01hca\x00\x14\x14 = \x03\x00\x00\x00\x00\x00\x00\x00",
        r"\xfe\x01\xfe\x00\x01hca\x00\x15\x01\x15\x07 = ",
        r"\xfe\x01\xfe\x00\x01hca\x00\x15\x01\x15\x0c = ",
        r"\xfe\x01\xfe\x00\x01hca\x00\x15\x01\x15! = ",
        // 1.0.0, as three little-endian integers.
        r"\xfe\x01\xfe\x00\x01version\x00 = \x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
        r"\xfe\x01\xfe\x00\x14\x02app\x00 = \x15!",
        r"\xfe\x01\xfe\x00\x14\x02jobs\x00 = jobs",
        r"\xfe\x01\xfe\x00\x14\x02tenant\x00 = \x15\x0c",
    ];
    assert_eq!(shown(&rows_of(&database).await), expected);
    database.close().await.unwrap();
}

/// Applies the operations of FoundationDB's layer, recorded by `tests/tools/directory_trace.py`, with the same numbers
/// drawn, and compares every result and all rows.
#[tokio::test]
async fn every_operation_of_the_reference_has_the_same_result_and_leaves_the_same_rows() {
    let database = Database::memory().await.unwrap();
    let drawn = numbers(&[]);
    let layer = drawing(&drawn).allow_manual_prefixes();
    let mut expected_rows = Rows::new();
    let lines = include_str!("../../tests/data/directory_trace.txt").lines();
    for (number, line) in lines.enumerate() {
        let step: Json = serde_json::from_str(line).unwrap();
        *drawn.lock() = step["draws"].as_array().unwrap().iter().filter_map(Json::as_u64).collect();
        let transaction = database.transaction();
        let rows_before = expected_rows.len();
        let result = perform(&layer, &transaction, &step, rows_before).await;
        match result {
            Ok(result) => {
                assert_eq!(result, step["result"], "{number}: {line}");
                transaction.commit().await.unwrap();
            }
            Err(error) => {
                let message = step["result"]["error"].as_str();
                let message = message.unwrap_or_else(|| panic!("{number}: {error}: {line}"));
                assert!(is_same_error(&error, message), "{number}: {error}, {message}");
            }
        }
        assert!(drawn.lock().is_empty(), "{number}: {line}");
        for (key, value) in step["rows"].as_object().unwrap() {
            match value.as_str() {
                Some(value) => expected_rows.insert(bytes_of(key), bytes_of(value)),
                None => expected_rows.remove(&bytes_of(key)),
            };
        }
        let found_rows = rows_of(&database).await;
        assert!(
            found_rows == expected_rows,
            "{number}: {line}\n{:#?}\n{:#?}",
            shown(&found_rows),
            shown(&expected_rows)
        );
    }
    database.close().await.unwrap();
}

async fn perform(
    layer: &DirectoryLayer,
    transaction: &Transaction,
    step: &Json,
    rows: usize,
) -> Result<Json, DirectoryError> {
    let (path, to) = (path_of(&step["path"]), path_of(&step["to"]));
    let layer_name = step["layer"].as_str().map(bytes_of).unwrap_or_default();
    let mut options = CreateOptions::new().layer(&layer_name);
    if let Some(prefix) = step["prefix"].as_str() {
        options = options.prefix(bytes_of(prefix));
    }
    let op = step["op"].as_str().unwrap();
    let opened = if step["via"].is_null() {
        match op {
            "create" => layer.create_with(transaction, path, options).await?,
            "create_or_open" => {
                layer.create_or_open_with_layer(transaction, path, layer_name).await?
            }
            "open" => layer.open_with_layer(transaction, path, layer_name).await?,
            "move" => layer.move_path(transaction, path, to).await?,
            "list" => return Ok(Json::from(layer.list(transaction, path).await?)),
            "exists" => return Ok(Json::from(layer.exists(transaction, path).await?)),
            "remove" => {
                layer.remove(transaction, path).await?;
                return Ok(Json::Null);
            }
            "remove_if_exists" => {
                return Ok(Json::from(layer.remove_if_exists(transaction, path).await?));
            }
            _ => panic!("{op}"),
        }
    } else {
        let via = layer.open(transaction, path_of(&step["via"])).await?;
        match op {
            "create" => via.create_with(transaction, path, options).await?,
            "create_or_open" => {
                via.create_or_open_with_layer(transaction, path, layer_name).await?
            }
            "open" => via.open_with_layer(transaction, path, layer_name).await?,
            "move" => via.move_path(transaction, path, to).await?,
            "move_to" => via.move_to(transaction, to).await?,
            "list" => return Ok(Json::from(via.list(transaction, path).await?)),
            "exists" => return Ok(Json::from(via.exists(transaction, path).await?)),
            "remove" => {
                via.remove(transaction, path).await?;
                return Ok(Json::Null);
            }
            "remove_if_exists" => {
                return Ok(Json::from(via.remove_if_exists(transaction, path).await?));
            }
            "write" => {
                let key = via.pack(&(to.to_vec(), rows))?;
                transaction.set(key.clone(), "content")?;
                return Ok(Json::from(hex(&key)));
            }
            _ => panic!("{op}"),
        }
    };
    // The prefix of a partition cannot be asked for; it is compared along with the rows.
    let prefix = opened.prefix().map(|prefix| hex(prefix));
    let prefix = match prefix {
        Ok(prefix) => prefix,
        Err(_) => step["result"]["prefix"].as_str().unwrap_or_default().to_string(),
    };
    Ok(serde_json::json!({
        "path": opened.path().to_vec(), "layer": hex(opened.layer()), "prefix": prefix,
    }))
}

fn is_same_error(error: &DirectoryError, message: &str) -> bool {
    let matching = match error {
        DirectoryError::Root => "The root directory cannot be",
        DirectoryError::AlreadyExists { .. } => "directory already exists",
        DirectoryError::DoesNotExist { .. } => "directory does not exist.",
        DirectoryError::ParentDoesNotExist { .. } => "The parent of the destination directory does",
        DirectoryError::WrongLayer { .. } => "incompatible layer",
        DirectoryError::MoveIntoItself { .. } => "cannot be a subdirectory of the source",
        DirectoryError::MoveBetweenPartitions { .. } => "Cannot move between partitions.",
        DirectoryError::PartitionHasNoSubspace { .. } => "the root of a directory partition.",
        DirectoryError::ManualPrefixInPartition { .. } => "Cannot specify a prefix in a partition.",
        DirectoryError::PrefixInUse { .. } => "The given prefix is already in use.",
        _ => return false,
    };
    message.contains(matching)
}

fn path_of(json: &Json) -> DirectoryPath {
    json.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect()
}

fn bytes_of(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn another_version_is_read_only_or_refused() {
    let database = Database::memory().await.unwrap();
    let layer = DirectoryLayer::new();
    let version_key = layer.root_rows().pack(b"version").unwrap();
    let version = |parts: [u32; 3]| parts.iter().flat_map(|p| p.to_le_bytes()).collect::<Vec<_>>();
    let transaction = database.transaction();
    layer.create(&transaction, "a").await.unwrap();

    transaction.set(version_key.clone(), version([1, 0, 9])).unwrap();
    layer.create(&transaction, "b").await.unwrap();

    transaction.set(version_key.clone(), version([1, 1, 0])).unwrap();
    let newer = DirectoryError::Version { found: [1, 1, 0] };
    assert!(layer.open(&transaction, "a").await.is_ok());
    assert_eq!(layer.create_or_open(&transaction, "c").await.unwrap_err(), newer);
    assert_eq!(layer.remove(&transaction, "a").await.unwrap_err(), newer);
    assert_eq!(layer.move_path(&transaction, "a", "d").await.unwrap_err(), newer);
    assert_eq!(Error::from(newer).code(), ErrorCode::Unsupported);

    transaction.set(version_key.clone(), version([2, 0, 0])).unwrap();
    let newer = DirectoryError::Version { found: [2, 0, 0] };
    assert_eq!(layer.list(&transaction, ()).await.unwrap_err(), newer);

    for malformed in [&b""[..], b"\x01\0\0\0", &[0; 13], &[0; 16]] {
        transaction.set(version_key.clone(), malformed).unwrap();
        let error = layer.exists(&transaction, "a").await.unwrap_err();
        assert!(matches!(error, DirectoryError::Malformed { .. }), "{error}");
    }
    database.close().await.unwrap();
}

#[tokio::test]
async fn malformed_rows_are_errors() {
    let database = Database::memory().await.unwrap();
    let layer = DirectoryLayer::new();
    let transaction = database.transaction();
    let is_malformed = |error: DirectoryError| match error {
        DirectoryError::Malformed { .. } => true,
        _ => panic!("{error}"),
    };
    layer.create(&transaction, "a").await.unwrap();
    transaction.set("untouched", "").unwrap();

    // A directory without a prefix would be all keys.
    transaction.set(layer.root().entry_of("b").unwrap(), "").unwrap();
    assert!(is_malformed(layer.remove(&transaction, "b").await.unwrap_err()));
    assert!(is_malformed(layer.list(&transaction, ()).await.unwrap_err()));
    assert!(transaction.get("untouched").await.unwrap().is_some());
    transaction.clear(layer.root().entry_of("b").unwrap()).unwrap();

    // A name that is no string.
    let number = layer.root_rows().pack(&(0, 7)).unwrap();
    transaction.set(number.clone(), "x").unwrap();
    assert!(is_malformed(layer.list(&transaction, ()).await.unwrap_err()));
    transaction.clear(number).unwrap();

    // Adding to a counter of another length gives one of eight bytes. A window has to be among the numbers.
    let counters = Subspace::from_prefix(layer.root_rows().pack(&(b"hca", 0)).unwrap());
    transaction.set(counters.pack(&64).unwrap(), [0; 9].as_slice()).unwrap();
    layer.create(&transaction, "c").await.unwrap();
    for window in [-1, i64::MAX] {
        let key = counters.pack(&window).unwrap();
        transaction.clear_range(counters.range()).unwrap();
        transaction.set(key.clone(), "").unwrap();
        assert!(is_malformed(layer.create(&transaction, "d").await.unwrap_err()), "{window}");
        transaction.clear(key).unwrap();
    }
    database.close().await.unwrap();
}

#[tokio::test]
async fn allocations_of_one_transaction_at_the_same_time_are_distinct() {
    let database = Database::memory().await.unwrap();
    let allocator = HighContentionAllocator::new(&Subspace::from_prefix("a"));
    let transaction = database.transaction();
    let allocations = (0..200).map(|_| allocator.allocate(&transaction));
    let mut given: Vec<Vec<u8>> = futures::future::try_join_all(allocations).await.unwrap();
    transaction.commit().await.unwrap();
    given.sort();
    given.dedup();
    assert_eq!(given.len(), 200);
    database.close().await.unwrap();
}

#[tokio::test]
async fn a_window_closed_by_the_same_transaction_is_left() {
    let database = Database::memory().await.unwrap();
    let rows = Subspace::from_prefix("a");
    let draws = Arc::new(Mutex::new((0..30).collect::<VecDeque<u64>>()));
    let drawn_by = |draws: &Arc<Mutex<VecDeque<u64>>>| {
        let draws = Arc::clone(draws);
        Arc::new(move |_| draws.lock().pop_front().unwrap())
    };
    let allocator = HighContentionAllocator::with_draw(&rows, drawn_by(&draws));
    let transaction = database.transaction();
    for _ in 0..30 {
        allocator.allocate(&transaction).await.unwrap();
    }
    transaction.commit().await.unwrap();

    // The first allocation counts itself in the window: the thirty-first, which still fits. When it comes to draw its number, the
    // second one takes place, the thirty-second, which closes the window.
    let transaction = database.transaction();
    draws.lock().push_back(3);
    let of_second = Mutex::new(Some((allocator, transaction.clone())));
    let second = Arc::new(Mutex::new(None));
    let told = Arc::clone(&second);
    // Number 7 was given away, although its row looks cleared.
    let draws_of_first = Mutex::new(VecDeque::from([7, 5]));
    let draw = move |_| {
        if let Some((allocator, transaction)) = of_second.lock().take() {
            // All roles are in this process: nobody has to wait for a read.
            *told.lock() = allocator.allocate(&transaction).now_or_never();
        }
        draws_of_first.lock().pop_front().unwrap()
    };
    let first = HighContentionAllocator::with_draw(&rows, Arc::new(draw));
    let first = first.allocate(&transaction).await.unwrap();
    let second = second.lock().take().expect("it did not have to wait").unwrap();
    assert_eq!(second, crate::tuple::pack(&(64 + 3)).unwrap());
    assert_eq!(first, crate::tuple::pack(&(64 + 5)).unwrap());
    transaction.commit().await.unwrap();
    let recent = database.transaction().get_range(rows.range_of(&1).unwrap()).await.unwrap();
    let recent: Vec<(u8, i64)> = recent.iter().map(|row| rows.unpack(&row.key).unwrap()).collect();
    assert!(recent.iter().any(|(_, number)| *number == 64 + 3), "{recent:?}");
    database.close().await.unwrap();
}

#[tokio::test]
async fn data_and_directories_of_others_are_not_taken_over() {
    let database = Database::memory().await.unwrap();
    let transaction = database.transaction();
    transaction.set(b"\x15\x05data", "x").unwrap();
    let draws = numbers(&[5, 6, 6, 8]);
    let layer = drawing(&draws).allow_manual_prefixes();
    let error = layer.create(&transaction, "a").await.unwrap_err();
    assert_eq!(error, DirectoryError::PrefixHasData { prefix: b"\x15\x05".into() });
    let manual = CreateOptions::new().prefix(b"\x15\x06\x07");
    layer.create_with(&transaction, "manual", manual).await.unwrap();
    let error = layer.create(&transaction, "a").await.unwrap_err();
    assert_eq!(error, DirectoryError::PrefixConflictsWithManual { prefix: b"\x15\x06".into() });

    // In both directions, at the ends of the keys, and for what is no prefix at all.
    for prefix in
        [&b""[..], b"\x15", b"\x15\x06", b"\x15\x06\x07", b"\x15\x06\x07\x08", b"\xfe", b"\xfe\x01"]
    {
        let options = CreateOptions::new().prefix(prefix);
        let error = layer.create_with(&transaction, "b", options).await.unwrap_err();
        assert_eq!(error, DirectoryError::PrefixInUse { prefix: prefix.into() });
    }
    assert!(!layer.exists(&transaction, "b").await.unwrap());
    // The missing parent would get what the directory itself has.
    let options = CreateOptions::new().prefix(b"\x15\x08");
    let error = layer.create_with(&transaction, ["p", "b"], options).await.unwrap_err();
    assert_eq!(error, DirectoryError::PrefixConflictsWithManual { prefix: b"\x15\x08".into() });
    let refused = DirectoryLayer::new();
    let options = CreateOptions::new().prefix("free");
    let error = refused.create_with(&transaction, "b", options).await.unwrap_err();
    assert_eq!(error, DirectoryError::ManualPrefixesNotAllowed);
    database.close().await.unwrap();
}
