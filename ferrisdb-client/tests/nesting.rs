//! Programs with functions around functions around their reads compile: futures contain each other, and the compiler
//! computes the layout of 128 types at most that lie in each other, ours included.

#![cfg(all(feature = "embedded", not(madsim)))]

use ferrisdb_client::{Database, Result, Transaction, directory::DirectoryLayer};

/// A function that calls the next one, and so on.
macro_rules! nested {
    ($body:ident; $name:ident) => {
        async fn $name(transaction: &Transaction) -> Result<()> {
            $body(transaction).await
        }
    };
    ($body:ident; $name:ident $next:ident $($rest:ident)*) => {
        async fn $name(transaction: &Transaction) -> Result<()> {
            $next(transaction).await
        }
        nested!($body; $next $($rest)*);
    };
}

nested!(everything; f1 f2 f3 f4 f5 f6 f7 f8 f9 f10 f11 f12);

async fn everything(transaction: &Transaction) -> Result<()> {
    transaction.get("k").await?;
    transaction.get_range("a".."b").await?;
    transaction.snapshot().get_key("k").await?;
    DirectoryLayer::new().create_or_open(transaction, "app").await?;
    transaction.commit().await?;
    Ok(())
}

#[tokio::test]
async fn twelve_functions_deep() {
    let database = Database::memory().await.unwrap();
    database.run_transaction(|transaction| async move { f1(&transaction).await }).await.unwrap();
    database.close().await.unwrap();
}
