//! Keys that get versionstamps: who conflicts with one that is added.

use anyhow::{Context as _, Result, ensure};
use ferrisdb_client::{Committed, Error, ErrorCode, Key, KeyRange, Transaction, Versionstamp};
use parking_lot::Mutex;

use super::{
    Tally, is_conflict,
    verdict::{Verdict, check_verdict},
};
use crate::workload::{
    Client, atomic_model,
    support::{Fate, fate, one_in},
};

/// Keys with versionstamps: one that comes into a range is a conflict for who read the range, and none for who read
/// a key that was there before. Those that were there before can be read beside it.
pub(super) async fn stamped_round(client: &Client, total: &Mutex<Tally>) -> Result<()> {
    let prefix = stamped_prefix(client.number);
    let template = [&prefix, [0; Versionstamp::LEN].as_slice()].concat();
    let offset = prefix.len() as u32;
    let add = |transaction: &Transaction| {
        transaction.set_versionstamped_key(template.as_slice(), offset, "")
    };
    let commit = async |transaction: Transaction| match fate(transaction.commit().await)? {
        Fate::Committed(committed) => Ok(Some(committed)),
        Fate::Refused(error) => Err(anyhow::Error::from(error)),
        Fate::Unknown => Ok(None),
    };
    let first = client.database.transaction();
    add(&first)?;
    let Some(Committed { versionstamp: Some(stamp), .. }) = commit(first).await? else {
        return Ok(());
    };
    let key = Key::from(atomic_model::stamped(&template, offset, stamp));
    let (reader, scanner) = (client.database.transaction(), client.database.transaction());
    ensure!(reader.get(&key).await?.is_some(), "{key} is not there (I-1)");
    let rows = scanner.get_range(KeyRange::prefix(&prefix)).await?;
    ensure!(rows.iter().any(|row| row.key == key), "{key} is not among {rows:?} (I-1)");
    // Nobody reads these: they let the commits be decided on.
    let mark = format!("conflict_ranges/mark/{:03}", client.number);
    reader.add_write_conflict_key(mark.as_str())?;
    scanner.add_write_conflict_key(mark.as_str())?;
    let second = client.database.transaction();
    let knows_version = one_in(2);
    if knows_version {
        second.read_version().await?;
    }
    add(&second)?;
    let older = second.snapshot().get(&key).await;
    let unreadable = |error: &Error| error.code() == ErrorCode::AccessedUnreadable;
    match older {
        Ok(found) => ensure!(found.is_some() && knows_version, "{key} is {found:?} (I-1)"),
        Err(error) if unreadable(&error) => {
            ensure!(!knows_version, "{key} is older, and was not read: {error}");
        }
        Err(error) => return Err(error.into()),
    }
    let Some(Committed { versionstamp: Some(stamp), .. }) = commit(second).await? else {
        return Ok(());
    };
    for (transaction, verdict) in [(reader, Verdict::MustCommit), (scanner, Verdict::MustConflict)]
    {
        let ended = transaction.commit().await;
        match fate(ended)? {
            Fate::Committed(_) => {
                check_verdict(verdict, false).context("a versionstamped key")?;
                total.lock().committed += 1;
            }
            Fate::Refused(error) if is_conflict(&error) => {
                check_verdict(verdict, true).context("a versionstamped key")?;
                total.lock().conflicts += 1;
            }
            Fate::Refused(_) | Fate::Unknown => total.lock().skipped += 1,
        }
    }
    // Should this come late, it must not reach what later rounds add.
    let end = Key::from(atomic_model::stamped(&template, offset, stamp)).successor();
    let last = client.database.transaction();
    last.clear_range(KeyRange { begin: prefix.into(), end })?;
    commit(last).await?;
    Ok(())
}

/// What the stamped keys of a client begin with. A commit that got no answer may come later; that disturbs only who has read
/// all of them, and has to conflict anyway.
pub(super) fn stamped_prefix(client: u32) -> Vec<u8> {
    format!("conflict_ranges/stamped/{client:03}/").into_bytes()
}
