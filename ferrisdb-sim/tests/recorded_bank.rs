//! The recorded bank on a database that works, and on one where somebody interferes.

#![cfg(not(madsim))]
#![expect(clippy::unwrap_used, reason = "a test")]

use ferrisdb_client::Database;
use ferrisdb_sim::workload::{
    bank::{Bank, SharedJournal},
    recorded_bank::RecordedBank,
};
use futures::future::join_all;

const BANK: Bank = Bank { accounts: 8, balance: 100 };

/// Lets clients and readers work at the same time, until there were enough transfers.
async fn work(database: &Database, bank: &RecordedBank) -> SharedJournal {
    bank.set_up(database).await.unwrap();
    let journal = SharedJournal::default();
    let enough = || journal.lock().acknowledged.len() >= 200;
    let clients = (0..4).map(|number| {
        let name = format!("c{number}");
        let (database, journal) = (database.clone(), &journal);
        async move { bank.transfer_until(&database, &name, journal, enough).await.unwrap() }
    });
    let readers = (0..2).map(|number| {
        let name = format!("r{number}");
        let (database, journal) = (database.clone(), &journal);
        async move { bank.watch_until(&database, &name, journal, enough).await.unwrap() }
    });
    futures::join!(join_all(clients), join_all(readers));
    journal
}

#[tokio::test]
async fn an_honest_database_passes() {
    let database = Database::memory().await.unwrap();
    let bank = RecordedBank::new(BANK);
    let journal = work(&database, &bank).await;
    let (checked, verdict) = bank.check(&database, &journal).await.unwrap();
    println!("{checked:?} {verdict:?}");
    assert!(checked.transfers >= 200 && verdict.read_only > 1, "{checked:?} {verdict:?}");
}

#[tokio::test]
async fn a_write_that_nobody_recorded_is_noticed() {
    let database = Database::memory().await.unwrap();
    let bank = RecordedBank::new(BANK);
    let journal = work(&database, &bank).await;
    let transaction = database.transaction();
    let balance = transaction.get("bank/account/0003").await.unwrap().unwrap();
    // Not even its value changes: the version does.
    transaction.set("bank/account/0003", balance).unwrap();
    transaction.commit().await.unwrap();
    let error = bank.check(&database, &journal).await.unwrap_err().to_string();
    assert!(error.starts_with("I-2") && error.contains("bank/account/0003"), "{error}");
}
