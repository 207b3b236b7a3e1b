//! Programs that do not wait as they should: timeouts that come late, and reads that nobody polls.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, ensure};
use ferrisdb_client::ErrorCode;
use ferrisdb_core::{Stage, runtime};
use ferrisdb_fdb::{Ended, database::DatabaseOptions, errors::Code};
use futures::FutureExt as _;

use super::{
    super::common::{draw, explained},
    Client, FdbTransaction, NAME, begin, ended, int64,
    promise::Promised,
};

const OPTION_TIMEOUT: i32 = 500;
/// Most milliseconds of a timeout.
const TIMEOUT_MS_MAX: u32 = 300;
/// How much later than its timeout an operation may end: the client's machine may have stood still.
const SLACK: Duration = Duration::from_secs(5);
/// How long a commit may take behind a read that nobody polls, whatever happens to the cluster.
const COMMIT_LIMIT: Duration = Duration::from_secs(60);

/// What waits when the timeout is set.
#[derive(Clone, Copy, Debug)]
enum Waits {
    ReadVersion,
    Read,
    Commit,
    /// It does not end before the commit, of which there is none.
    Versionstamp,
    /// Neither does this.
    Watch,
    SpecialKey,
}

/// Begins something, sets a timeout then, and sees how long it takes.
pub(super) async fn wait_with_a_late_timeout(
    client: &Client,
    options: &Arc<DatabaseOptions>,
) -> Result<()> {
    let transaction = begin(client, options);
    let waits = match draw(6) {
        0 => Waits::ReadVersion,
        1 => Waits::Read,
        2 => Waits::Commit,
        3 => Waits::Versionstamp,
        4 => Waits::Watch,
        _ => Waits::SpecialKey,
    };
    let began = runtime::now();
    let promised = start(waits, &transaction);
    let timeout_ms = 1 + draw(TIMEOUT_MS_MAX);
    let set = transaction.set_option(OPTION_TIMEOUT, Some(&u64::from(timeout_ms).to_le_bytes()));
    ensure!(set.is_ok(), "the timeout was refused: {set:?}");
    let ended_at = async { Ok::<_, ferrisdb_client::Error>(promised.wait().await) };
    let limit = Duration::from_millis(timeout_ms.into()) + SLACK;
    let result = runtime::timeout(limit, Stage::Client, ended_at).await;
    let took = runtime::now().saturating_duration_since(began);
    let Ok(Ok(result)) = result else {
        anyhow::bail!("{waits:?} took {took:?} with a timeout of {timeout_ms} ms (I-17)");
    };
    check(waits, &result)
}

fn start(waits: Waits, transaction: &Arc<FdbTransaction>) -> Arc<Promised> {
    let key = format!("{NAME}/late");
    match waits {
        Waits::ReadVersion => transaction.read_version(),
        Waits::Read => transaction.get(key.as_bytes(), false),
        Waits::Commit => {
            transaction.set(key.as_bytes(), b"late");
            transaction.commit()
        }
        Waits::Versionstamp => transaction.versionstamp(),
        Waits::Watch => transaction.watch(key.as_bytes()),
        Waits::SpecialKey => transaction.get(b"\xff\xff/cluster_id", false),
    }
}

fn check(waits: Waits, result: &Ended) -> Result<()> {
    let timed_out = Code::from(ErrorCode::TransactionTimedOut.number());
    match (waits, result) {
        (Waits::Versionstamp | Waits::Watch, Ok(_)) => {
            anyhow::bail!("{waits:?} ended without a commit")
        }
        (Waits::ReadVersion, Ok(output)) => {
            ensure!(int64(output).is_some(), "a read version is a number, not {output:?}");
            Ok(())
        }
        (_, Ok(_)) => Ok(()),
        (_, Err(code)) if *code == timed_out => Ok(()),
        // What the database refuses for a while.
        (_, Err(code)) if ferrisdb_fdb::errors::as_error(*code).is_retryable() => Ok(()),
        (_, Err(code)) => ended(*code).map(drop),
    }
}

/// Commits while a read is under way that nobody polls any more. Somebody else has changed what it reads, so it has to be a
/// conflict; or the read sees that change.
pub(super) async fn commit_behind_a_read(client: &Client) -> Result<()> {
    let key = format!("{NAME}/read/{}", client.number);
    let transaction = client.database.transaction();
    if let Err(error) = transaction.read_version().await {
        return explained(error.into()).map(drop);
    }
    let mut read = Box::pin(transaction.get(key.as_str()));
    let at_once = (&mut read).now_or_never();
    let changed = client
        .database
        .run_transaction(|other| {
            let key = key.clone();
            async move { other.add(key, 1) }
        })
        .await;
    if let Err(error) = changed {
        return explained(error.into()).map(drop);
    }
    if transaction.set(format!("{key}/written"), "w").is_err() || at_once.is_some() {
        return Ok(());
    }
    let committed = runtime::timeout(COMMIT_LIMIT, Stage::Client, transaction.commit()).await;
    match committed {
        Err(_) => anyhow::bail!("a commit waits for a read that nobody polls (I-17)"),
        Ok(Ok(_)) => match read.await {
            // What a read that has failed saw is no part of the transaction.
            Err(error) if error.code() != ErrorCode::UsedDuringCommit => {
                explained(error.into()).map(drop)
            }
            read => anyhow::bail!(
                "a commit left behind a read that was begun before it (I-15): {read:?}"
            ),
        },
        Ok(Err(error)) => explained(error.into()).map(drop),
    }
}
