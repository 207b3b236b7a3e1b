//! Programs with functions around functions around what they do here compile: futures contain each other, and the
//! compiler computes the layout of 128 types at most that lie in each other, ours included.

#![cfg(all(feature = "embedded", not(madsim)))]

use ferrisdb_client::{Database, Result, Transaction, directory::DirectoryLayer};

/// A function that calls the next one, and so on.
macro_rules! nested {
    ($body:ident($of:ty); $name:ident) => {
        async fn $name(of: &$of) -> Result<()> {
            $body(of).await
        }
    };
    ($body:ident($of:ty); $name:ident $next:ident $($rest:ident)*) => {
        async fn $name(of: &$of) -> Result<()> {
            $next(of).await
        }
        nested!($body($of); $next $($rest)*);
    };
}

nested!(everything(Transaction); f1 f2 f3 f4 f5 f6 f7 f8 f9 f10 f11 f12 f13 f14 f15 f16 f17 f18 f19 f20 f21 f22 f23 f24);

async fn everything(transaction: &Transaction) -> Result<()> {
    transaction.get("k").await?;
    transaction.get_range("a".."b").await?;
    transaction.snapshot().get_key("k").await?;
    DirectoryLayer::new().create_or_open(transaction, "app").await?;
    drop(transaction.watch("k").await?);
    transaction.commit().await?;
    Ok(())
}

nested!(in_a_loop(Database); g1 g2 g3 g4 g5 g6 g7 g8 g9 g10 g11 g12 g13 g14 g15 g16 g17 g18 g19 g20 g21 g22 g23 g24);

async fn in_a_loop(database: &Database) -> Result<()> {
    database.run_transaction(|transaction| async move { everything(&transaction).await }).await?;
    everything(&database.transaction()).await
}

/// What a task asks of its future.
fn movable<F: Future + Send + 'static>(future: F) -> F {
    future
}

#[tokio::test]
async fn twenty_four_functions_deep() {
    let database = Database::memory().await.unwrap();
    f1(&database.transaction()).await.unwrap();
    g1(&database).await.unwrap();
    // In a task, too: whether it may move between threads depends on everything inside.
    let other = database.clone();
    let task = movable(async move {
        f1(&other.transaction()).await?;
        g1(&other).await
    });
    task.await.unwrap();
    database.close().await.unwrap();
}
