//! Finding out whether an earlier attempt was committed (I-6).
//!
//! ```text
//!   attempt 1   reads and writes the record of id 7f..   sent, no answer: committed? still on its way?
//!   attempt 2   reads the record, at a later version
//!                 there       attempt 1 was committed, with the versionstamp in the record: done
//!                 not there   runs again and commits, reading and writing the record as well
//! ```
//!
//! Both attempts read and write the record, so at most one of them commits: if attempt 1 still arrives
//! after attempt 2 was committed it conflicts, and the other way round.
//!
//! The record of a transaction that is known to be committed is of no use any more. So its id is used again by a later
//! transaction of the same handle, which overwrites the record: a handle has about as many records as it has transactions
//! at once, instead of one more with each.
//!
//! ```text
//!   id 7f..   committed at 40, known    drawn again by a transaction that reads at 45, so it will commit after 45
//!             its attempt got no answer; attempt 2 finds the record of version 40: that is of the use before, it was not committed
//! ```
//!
//! An id is drawn by transactions only whose read version is at least the version of its record: or the record would be a
//! conflict. And an id that may still be in use, because the fate of a transaction was never found out, is not drawn
//! again. Ids that the application has given are not drawn: later transactions clear their records along with their own work.
//!
//! ```text
//!   sweeper     clears records of clients that never came back, and says up to which version it has done so
//!   attempt 2   finds neither the record nor such a version past attempt 1's read version: runs again
//!               finds no record, but such a version: nobody can tell any more, commit_unknown_result
//! ```
//!
//! A handle that is closed clears what is left. The sweeper runs with the controller ([`ferrisdb_core::idempotency`] has
//! the keys).
//!
//! # Why a transaction that reads nothing needs no read version of its own
//!
//! The conflict on the record keeps a late attempt out only if the record was not there at the read version. Before
//! the first attempt was sent there was none at any version, because the id was drawn for it. So the first attempt
//! may use any version that this handle has heard of: every later attempt commits after that, and is seen. It
//! should be a recent one, or the commit is refused as too old. Later attempts look for the record, and ask.

use std::{collections::VecDeque, sync::atomic::AtomicBool, time::Duration};

use ferrisdb_core::{
    Error, ErrorCode, Key, KeyRange, Mutation, Result, Value, Version, Versionstamp,
    idempotency::record_key,
    runtime,
    transaction::{CommitOutcome, CommitRequest, IdempotencyId},
};
use parking_lot::Mutex;

use crate::cluster::Cluster;

/// Most ids that are kept to be drawn again. So many transactions that commit at once have records that are only overwritten.
const REUSABLE_MAX: usize = 1_000;
/// Most records that are remembered to be cleared; further ones are left to the sweeper.
const TO_CLEAR_MAX: usize = 10_000;
/// How many records one transaction clears. More than one, so that they get fewer in the end.
const CLEARED_AT_ONCE: usize = 8;

/// What the record of an id says: which attempt was committed, as what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) versionstamp: Versionstamp,
    pub(crate) attempt: u64,
}

impl Record {
    /// Reads a record: ten bytes of versionstamp, then the attempt as a little-endian u64.
    pub(crate) fn decode(value: &Value) -> Option<Record> {
        let (stamp, attempt) = value.split_first_chunk::<{ Versionstamp::LEN }>()?;
        let attempt = u64::from_le_bytes(attempt.try_into().ok()?);
        Some(Record { versionstamp: Versionstamp::from_bytes(*stamp), attempt })
    }
}

/// Makes the commit of an attempt exclude those of all other attempts with the same id.
pub(crate) fn add_record(request: &mut CommitRequest, id: IdempotencyId, attempt: u64) {
    let key = record_key(id);
    let mut value = vec![0; Versionstamp::LEN];
    value.extend_from_slice(&attempt.to_le_bytes());
    request.idempotency_id = Some(id);
    request.may_write_system_keys = true;
    request.read_conflicts.push(KeyRange::single(&key));
    request.write_conflicts.push(KeyRange::single(&key));
    let value = Value::from(value);
    request.mutations.push(Mutation::SetVersionstampedValue { key, value, offset: 0 });
}

/// Keeps a commit of which nobody knows from taking effect later.
///
/// ```text
///   the commit      reads nothing, writes k       and reads \xff/SC/<random>
///   no answer       it may be committed, or still be on its way
///   the fence       a commit that writes \xff/SC/<random>: once it is committed, the other one is or never will be
/// ```
///
/// Whoever tries again after that sees what has become of it. (FoundationDB does the same.)
///
/// A commit with an id reads its record already, so that is the key that its fence writes, without changing the record:
///
/// ```text
///   the commit      writes k, reads and writes the record of 7f..
///   no answer       it may be committed, or still be on its way
///   the fence       committed at 80
///   the record      at 80 it is there: committed, with the versionstamp in it; or not: it never will be
/// ```
#[derive(Debug)]
pub(crate) struct Fence(Key);

/// How long to wait before it is tried again.
const FENCE_PAUSE: Duration = Duration::from_millis(50);

/// Waits a little before the cluster is asked again.
pub(crate) async fn pause() {
    runtime::sleep(runtime::jitter(FENCE_PAUSE)).await;
}

/// Whether the cluster may give a better answer later.
pub(crate) fn passes(error: &Error) -> bool {
    error.is_retryable() || matches!(error.code(), ErrorCode::TimedOut | ErrorCode::Disk)
}

impl Fence {
    /// Makes a commit one that can be fenced off.
    pub(crate) fn add_to(request: &mut CommitRequest) -> Fence {
        let mut key = b"\xff/SC/".to_vec();
        key.extend_from_slice(&runtime::random_u64().to_be_bytes());
        key.extend_from_slice(&runtime::random_u64().to_be_bytes());
        let key = Key::from(key);
        request.read_conflicts.push(KeyRange::single(&key));
        Fence(key)
    }

    /// The fence of all attempts with an id.
    pub(crate) fn of_id(id: IdempotencyId) -> Fence {
        Fence(record_key(id))
    }

    /// Sees to it that the commit has taken effect or never will, however long that takes: whoever does not want to wait gives
    /// his transaction a timeout. Returns a version at which everybody can see which of the two it is.
    ///
    /// # Errors
    ///
    /// Those that no waiting cures, such as [`ErrorCode::WrongCluster`].
    pub(crate) async fn close(&self, cluster: &Cluster) -> Result<Version> {
        loop {
            let request = CommitRequest {
                write_conflicts: vec![KeyRange::single(&self.0)],
                may_write_system_keys: true,
                ..CommitRequest::default()
            };
            match cluster.commit(request, &AtomicBool::new(false)).await {
                Ok(CommitOutcome::Committed(committed)) => {
                    return Ok(committed.versionstamp.commit_version);
                }
                // It reads nothing that could conflict.
                Ok(CommitOutcome::Conflict(_)) => {}
                Err(error) if passes(&error) => {
                    tracing::debug!(%error, "fencing off a commit of which nobody knows");
                }
                Err(error) => return Err(error),
            }
            pause().await;
        }
    }
}

/// Ids of transactions that are known to be committed.
#[derive(Debug, Default)]
pub(crate) struct AcknowledgedIds(Mutex<Ids>);

#[derive(Debug, Default)]
struct Ids {
    /// Those that may be drawn again, with the versions of their records: the oldest first, about.
    reusable: VecDeque<(IdempotencyId, Version)>,
    /// Those whose records can be cleared.
    to_clear: Vec<IdempotencyId>,
}

/// Some of them, being cleared. They go back when this is dropped before the commit is known.
pub(crate) struct Clearing<'a> {
    from: &'a AcknowledgedIds,
    ids: Vec<IdempotencyId>,
}

impl AcknowledgedIds {
    /// An id for a transaction that reads at `read_version`, and the version of its record, zero if there is none.
    pub(crate) fn draw(&self, read_version: Version) -> (IdempotencyId, Version) {
        let mut ids = self.0.lock();
        match ids.reusable.front() {
            Some(&drawn) if drawn.1 <= read_version => {
                ids.reusable.pop_front();
                drawn
            }
            _ => {
                let id = u128::from(runtime::random_u64()) << 64;
                (id | u128::from(runtime::random_u64()), Version::ZERO)
            }
        }
    }

    /// A transaction with an id that was drawn is known to be committed.
    pub(crate) fn give_back(&self, id: IdempotencyId, committed: Version) {
        let mut ids = self.0.lock();
        if ids.reusable.len() < REUSABLE_MAX {
            ids.reusable.push_back((id, committed));
        } else {
            ids.clear_later([id]);
        }
    }

    /// Remembers to clear the record of an id that is not drawn again.
    pub(crate) fn add(&self, id: IdempotencyId) {
        self.0.lock().clear_later([id]);
    }

    /// Adds the clearing of some records to a commit. Nobody reads those records any more, so nothing has to
    /// conflict with that.
    pub(crate) fn clear_some(&self, request: &mut CommitRequest) -> Clearing<'_> {
        self.clear(request, CLEARED_AT_ONCE)
    }

    /// Clears all of them, by a commit of its own; `None` if there are none.
    pub(crate) fn clear_all(&self) -> Option<(CommitRequest, Clearing<'_>)> {
        {
            let mut ids = self.0.lock();
            let reusable = std::mem::take(&mut ids.reusable);
            ids.clear_later(reusable.into_iter().map(|(id, _)| id));
        }
        let mut request = CommitRequest { may_write_system_keys: true, ..CommitRequest::default() };
        let clearing = self.clear(&mut request, TO_CLEAR_MAX);
        (!clearing.ids.is_empty()).then_some((request, clearing))
    }

    fn clear(&self, request: &mut CommitRequest, count_max: usize) -> Clearing<'_> {
        let mut ids = self.0.lock();
        let kept = ids.to_clear.len().saturating_sub(count_max);
        let ids = ids.to_clear.split_off(kept);
        request.mutations.extend(ids.iter().map(|&id| Mutation::Clear { key: record_key(id) }));
        Clearing { from: self, ids }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.lock().to_clear.len()
    }
}

impl Ids {
    fn clear_later(&mut self, more: impl IntoIterator<Item = IdempotencyId>) {
        let room = TO_CLEAR_MAX.saturating_sub(self.to_clear.len());
        self.to_clear.extend(more.into_iter().take(room));
    }
}

impl Clearing<'_> {
    /// The records are cleared.
    pub(crate) fn done(mut self) {
        self.ids.clear();
    }
}

impl Drop for Clearing<'_> {
    fn drop(&mut self) {
        self.from.0.lock().clear_later(std::mem::take(&mut self.ids));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_drawn_again_by_who_reads_its_record_or_later() {
        let ids = AcknowledgedIds::default();
        ids.give_back(7, Version(40));
        let (other, before) = ids.draw(Version(39));
        assert_ne!((other, before), (7, Version(40)));
        assert_eq!(before, Version::ZERO);
        assert_eq!(ids.draw(Version(40)), (7, Version(40)));
        assert_ne!(ids.draw(Version(40)).0, 7, "it is in use");
        ids.give_back(7, Version(50));
        ids.give_back(other, Version(45));
        let (request, clearing) = ids.clear_all().unwrap();
        assert_eq!(request.mutations.len(), 2);
        clearing.done();
        assert!(ids.clear_all().is_none());
    }

    #[test]
    fn a_record_says_which_attempt_was_committed() {
        let mut request = CommitRequest::default();
        add_record(&mut request, 0x7f, 3);
        let versionstamp = Versionstamp { commit_version: Version(70), batch_index: 1 };
        let Mutation::Set { key, value } = request.mutations.remove(0).substitute(versionstamp)
        else {
            panic!("a versionstamped value becomes a set")
        };
        assert_eq!(key, record_key(0x7f));
        assert_eq!(Record::decode(&value), Some(Record { versionstamp, attempt: 3 }));
        assert_eq!(Record::decode(&"torn".into()), None);
    }

    #[test]
    fn records_go_back_until_they_are_cleared() {
        let ids = AcknowledgedIds::default();
        (0..20).for_each(|id| ids.add(id));
        let mut request = CommitRequest::default();
        drop(ids.clear_some(&mut request));
        assert_eq!((request.mutations.len(), ids.len()), (CLEARED_AT_ONCE, 20));
        ids.clear_some(&mut request).done();
        assert_eq!(ids.len(), 20 - CLEARED_AT_ONCE);
    }
}
