//! The bank's checks notice what they are there for: each is shown a database with a planted fault.

#![cfg(not(madsim))]
#![expect(clippy::unwrap_used, reason = "a test")]

use ferrisdb_client::{Database, Error, Key};
use ferrisdb_sim::workload::bank::{Bank, Journal, SharedJournal};

const BANK: Bank = Bank { accounts: 4, balance: 100 };

/// A bank after some honest transfers, and its journal.
async fn after_some_transfers() -> (Database, Journal) {
    let database = Database::memory().await.unwrap();
    BANK.set_up(&database).await.unwrap();
    let journal = SharedJournal::default();
    let enough = || journal.lock().acknowledged.len() >= 20;
    BANK.transfer_until(&database, "c", &journal, enough, |_| ()).await.unwrap();
    let journal = std::mem::take(&mut *journal.lock());
    (database, journal)
}

async fn write(database: &Database, key: &str, value: Option<&str>) {
    database
        .run_transaction(|transaction| async move {
            match value {
                Some(value) => transaction.set(key, value),
                None => transaction.clear(key),
            }
        })
        .await
        .unwrap();
}

async fn read(database: &Database, key: &str) -> i64 {
    let value = database
        .run_transaction(|transaction| async move { transaction.get(key).await })
        .await
        .unwrap();
    String::from_utf8(value.unwrap().to_vec()).unwrap().parse().unwrap()
}

async fn complaint(database: &Database, journal: &Journal) -> String {
    BANK.check(database, journal).await.unwrap_err().to_string()
}

#[tokio::test]
async fn an_honest_bank_passes() {
    let (database, journal) = after_some_transfers().await;
    let checked = BANK.check(&database, &journal).await.unwrap();
    assert_eq!((checked.transfers, checked.acknowledged), (20, 20));
    let seen = SharedJournal::default();
    BANK.watch_until(&database, &seen, || seen.lock().sums >= 3).await.unwrap();
}

#[tokio::test]
async fn money_from_nowhere_is_noticed_afterwards_and_by_readers() {
    let (database, journal) = after_some_transfers().await;
    let balance = read(&database, "bank/account/0002").await;
    write(&database, "bank/account/0002", Some(&(balance + 1).to_string())).await;
    let complaint = complaint(&database, &journal).await;
    assert!(complaint.contains("the accounts hold 401, not 400"), "{complaint}");
    let seen = SharedJournal::default();
    let error = BANK.watch_until(&database, &seen, || seen.lock().sums >= 3).await.unwrap_err();
    assert!(error.to_string().contains("a reader saw 4 accounts with 401"), "{error}");
}

#[tokio::test]
async fn a_transfer_that_took_effect_twice_is_noticed() {
    let (database, journal) = after_some_transfers().await;
    // The total stays right: only the records tell.
    for (account, change) in [("bank/account/0000", 5), ("bank/account/0001", -5)] {
        let balance = read(&database, account).await;
        write(&database, account, Some(&(balance + change).to_string())).await;
    }
    let complaint = complaint(&database, &journal).await;
    assert!(complaint.contains("in part or twice"), "{complaint}");
}

#[tokio::test]
async fn a_lost_commit_is_noticed() {
    let (database, mut journal) = after_some_transfers().await;
    journal.acknowledged.insert(Key::from("bank/transfer/c/999999"));
    let complaint = complaint(&database, &journal).await;
    assert!(complaint.contains("was acknowledged and is not there"), "{complaint}");
}

#[tokio::test]
async fn a_refused_transfer_that_took_effect_is_noticed() {
    let (database, mut journal) = after_some_transfers().await;
    let refused = journal.acknowledged.pop_first().unwrap();
    journal.refused.insert(refused);
    let complaint = complaint(&database, &journal).await;
    assert!(complaint.contains("was refused and is there"), "{complaint}");
    let _: Result<(), Error> = database.close().await;
}
