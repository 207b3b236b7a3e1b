//! Tuples and subspaces on a database: what is packed, written, and found again.

#![cfg(all(feature = "embedded", not(madsim)))]

use ferrisdb_client::{
    Database, Error, Subspace,
    tuple::{self, Tuple, Versionstamp, tuple},
};

#[tokio::test]
async fn a_commit_fills_in_the_versionstamps_of_its_keys_and_values() {
    let database = Database::memory().await.unwrap();
    let log = Subspace::from_prefix("log");
    let transaction = database.transaction();
    for nth in [1, 0] {
        let entry = ("entry", (Versionstamp::incomplete(nth), nth));
        let (key, offset) = log.pack_with_versionstamp(&entry).unwrap();
        transaction.set_versionstamped_key(key, offset, "").unwrap();
    }
    let (value, offset) =
        tuple::pack_with_versionstamp(&("latest", Versionstamp::incomplete(7))).unwrap();
    transaction.set_versionstamped_value(log.pack(&"pointer").unwrap(), value, offset).unwrap();
    let committed = transaction.commit().await.unwrap().versionstamp.unwrap();

    let transaction = database.transaction();
    let rows = transaction.get_range(log.range_of(&"entry").unwrap()).await.unwrap();
    let found: Vec<(String, (Versionstamp, u16))> =
        rows.iter().map(|row| log.unpack(&row.key).unwrap()).collect();
    let expected = |nth| ("entry".to_string(), (Versionstamp::complete(committed, nth), nth));
    assert_eq!(found, [expected(0), expected(1)]);
    let pointer = transaction.get(log.pack(&"pointer").unwrap()).await.unwrap().unwrap();
    let (_, latest): (String, Versionstamp) = tuple::unpack(&pointer).unwrap();
    assert_eq!(latest, Versionstamp::complete(committed, 7));
    database.close().await.unwrap();
}

#[tokio::test]
async fn rows_come_in_the_order_of_their_tuples() {
    let database = Database::memory().await.unwrap();
    let space = Subspace::from_prefix(b"\x00space\xff");
    let rows = [
        tuple![],
        tuple![None::<u8>],
        tuple![b"bytes"],
        tuple!["a"],
        tuple!["a", -1],
        tuple!["a", -1, None::<u8>],
        tuple!["a\0"],
        tuple![tuple![]],
        tuple![tuple![None::<u8>]],
        tuple![i128::MIN],
        tuple![-1],
        tuple![u128::MAX],
        tuple![-0.0],
        tuple![0.0],
        tuple![true],
    ];
    let in_order = &rows;
    let space_of_rows = &space;
    database
        .run_transaction(|transaction| async move {
            for row in in_order.iter().rev() {
                transaction.set(space_of_rows.pack(row)?, row.pack()?)?;
            }
            Ok::<_, Error>(())
        })
        .await
        .unwrap();
    let transaction = database.transaction();
    let found = transaction.get_range(space.prefix_range()).await.unwrap();
    let found: Vec<Tuple> = found
        .iter()
        .map(|row| {
            let tuple: Tuple = space.unpack(&row.key).unwrap();
            assert_eq!(Tuple::unpack(&row.value).unwrap(), tuple);
            tuple
        })
        .collect();
    assert_eq!(found, rows);
    // All but the empty tuple, whose key is the prefix.
    assert_eq!(transaction.get_range(space.range()).await.unwrap().len(), rows.len() - 1);
    database.close().await.unwrap();
}
