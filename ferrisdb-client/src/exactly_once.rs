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
//! The record of a transaction that is known to be committed is of no use any more. A later transaction of
//! the same handle clears it along with its own work: one mutation more, no message and no conflict range.
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

use std::time::Duration;

use ferrisdb_core::{
    Key, KeyRange, Mutation, Value, Versionstamp,
    idempotency::record_key,
    runtime,
    transaction::{CommitRequest, IdempotencyId},
};
use parking_lot::Mutex;

use crate::cluster::Cluster;

/// Most records that are remembered to be cleared; further ones are left to the sweeper.
const ACKNOWLEDGED_MAX: usize = 10_000;
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
#[derive(Debug)]
pub(crate) struct Fence(Key);

/// How long to wait before it is tried again.
const FENCE_PAUSE: Duration = Duration::from_millis(50);

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

    /// Sees to it that the commit has taken effect or never will, however long that takes: whoever does not want to wait gives
    /// his transaction a timeout.
    pub(crate) async fn close(self, cluster: &Cluster) {
        loop {
            let request = CommitRequest {
                write_conflicts: vec![KeyRange::single(&self.0)],
                may_write_system_keys: true,
                ..CommitRequest::default()
            };
            match cluster.commit(request, None).await {
                Ok(_) => return,
                Err(error) => tracing::debug!(%error, "fencing off a commit of which nobody knows"),
            }
            runtime::sleep(runtime::jitter(FENCE_PAUSE)).await;
        }
    }
}

/// Ids of transactions that are known to be committed, whose records can be cleared.
#[derive(Debug, Default)]
pub(crate) struct AcknowledgedIds(Mutex<Vec<IdempotencyId>>);

/// Some of them, being cleared. They go back when this is dropped before the commit is known.
pub(crate) struct Clearing<'a> {
    from: &'a AcknowledgedIds,
    ids: Vec<IdempotencyId>,
}

impl AcknowledgedIds {
    /// Remembers to clear the record of an id.
    pub(crate) fn add(&self, id: IdempotencyId) {
        self.extend([id]);
    }

    /// Adds the clearing of some records to a commit. Nobody reads those records any more, so nothing has to
    /// conflict with that.
    pub(crate) fn clear_some(&self, request: &mut CommitRequest) -> Clearing<'_> {
        self.clear(request, CLEARED_AT_ONCE)
    }

    /// Clears all of them, by a commit of its own; `None` if there are none.
    pub(crate) fn clear_all(&self) -> Option<(CommitRequest, Clearing<'_>)> {
        let mut request = CommitRequest { may_write_system_keys: true, ..CommitRequest::default() };
        let clearing = self.clear(&mut request, ACKNOWLEDGED_MAX);
        (!clearing.ids.is_empty()).then_some((request, clearing))
    }

    fn clear(&self, request: &mut CommitRequest, count_max: usize) -> Clearing<'_> {
        let mut ids = self.0.lock();
        let kept = ids.len().saturating_sub(count_max);
        let ids = ids.split_off(kept);
        request.mutations.extend(ids.iter().map(|&id| Mutation::Clear { key: record_key(id) }));
        Clearing { from: self, ids }
    }

    fn extend(&self, more: impl IntoIterator<Item = IdempotencyId>) {
        let mut ids = self.0.lock();
        let room = ACKNOWLEDGED_MAX.saturating_sub(ids.len());
        ids.extend(more.into_iter().take(room));
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.lock().len()
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
        self.from.extend(std::mem::take(&mut self.ids));
    }
}

#[cfg(test)]
mod tests {
    use ferrisdb_core::Version;

    use super::*;

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
