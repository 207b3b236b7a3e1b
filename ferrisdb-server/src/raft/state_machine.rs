//! The register itself, in memory, and its snapshot on disk.
//!
//! The state machine is as small as its log is: a snapshot is a copy of it. After a restart it begins at the snapshot,
//! and the entries behind that are applied again as soon as the group says that they are committed.

use std::{io::Cursor, path::PathBuf, sync::Arc};

use bytes::Bytes;
use ferrisdb_core::simulation::{Mark, mark};
use ferrisdb_core::{Error, ErrorCode, Result, Stage, runtime::Disk, transport};
use openraft::{
    EntryPayload, OptionalSend, RaftSnapshotBuilder, Snapshot, storage::RaftStateMachine,
};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, watch};

use super::{
    failure::Failure,
    file::FileKind,
    log_store::read,
    types::{
        Contents, Entry, LogId, Membership, Proposal, SnapshotMeta, StorageError, Types, Written,
    },
};

pub(super) const SNAPSHOT_FILE: &str = "snapshot";

/// Everything that was applied through a log id. This is also the record of a snapshot file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Applied {
    /// The newest entry applied.
    pub(super) last_log_id: Option<LogId>,
    /// The members as of then.
    pub(super) membership: Membership,
    /// The register as of then.
    pub(super) contents: Contents,
}

impl Applied {
    /// Applies an entry. The same entries in the same order give the same answers on every member.
    pub(super) fn apply(&mut self, entry: Entry) -> Option<Written> {
        assert!(
            self.last_log_id < Some(entry.log_id),
            "{} applied after {:?}",
            entry.log_id,
            self.last_log_id
        );
        self.last_log_id = Some(entry.log_id);
        match entry.payload {
            EntryPayload::Blank => None,
            EntryPayload::Membership(members) => {
                self.membership = Membership::new(Some(entry.log_id), members);
                None
            }
            EntryPayload::Normal(Proposal { expected_revision, value }) => {
                // A leader that was deposed may have appended this without knowing what its successor wrote.
                if self.contents.revision != expected_revision {
                    return Some(Written::Stale(self.contents.clone()));
                }
                self.contents = Contents { revision: expected_revision + 1, value };
                Some(Written::At(self.contents.revision))
            }
        }
    }

    fn to_snapshot(&self) -> Result<Snapshot<Types>> {
        let contents = transport::encode(&self.contents).map_err(|cause| {
            Error::new(ErrorCode::Internal, Stage::Control, format!("a snapshot: {cause}"))
        })?;
        let meta = SnapshotMeta {
            last_log_id: self.last_log_id,
            last_membership: self.membership.clone(),
            snapshot_id: self.last_log_id.map(|last| last.to_string()).unwrap_or_default(),
        };
        Ok(Snapshot { meta, snapshot: Box::new(Cursor::new(contents.into())) })
    }

    fn from_snapshot(meta: &SnapshotMeta, contents: &[u8]) -> Result<Applied> {
        let contents = transport::decode(contents).map_err(|cause| {
            Error::new(ErrorCode::Protocol, Stage::Control, format!("a snapshot: {cause}"))
        })?;
        let membership = meta.last_membership.clone();
        Ok(Applied { last_log_id: meta.last_log_id, membership, contents })
    }
}

/// The state machine of one member.
pub(super) struct StateMachine {
    applied: watch::Sender<Applied>,
    snapshots: Snapshots,
}

/// The snapshot on disk. Clones are the same one.
#[derive(Clone)]
struct Snapshots {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    failure: Failure,
    /// What the file holds. Locked while the file is written: one is built beside the machine, and must not
    /// take the place of a newer one that was installed meanwhile.
    current: Arc<Mutex<Option<Applied>>>,
}

impl Snapshots {
    /// Keeps a snapshot, unless there is one as new. Returns the one that is kept.
    async fn keep(&self, applied: Applied) -> Result<Applied, StorageError> {
        let mut current = self.current.lock().await;
        if let Some(kept) = &*current
            && kept.last_log_id >= applied.last_log_id
        {
            return Ok(kept.clone());
        }
        let written = async {
            let file: Bytes = FileKind::Snapshot.encode(&applied)?;
            self.disk.replace(&self.path, file).await
        };
        written.await.map_err(|error| self.failure.stop_by(error))?;
        Ok(current.insert(applied).clone())
    }
}

impl StateMachine {
    /// Begins at the snapshot in `directory`, or at nothing.
    ///
    /// # Errors
    ///
    /// [`ferrisdb_core::ErrorCode::Corrupt`] if the file is damaged.
    pub(super) async fn open(
        disk: Arc<dyn Disk>,
        directory: &std::path::Path,
        failure: Failure,
    ) -> Result<StateMachine> {
        let path = directory.join(SNAPSHOT_FILE);
        let current: Option<Applied> = read(&*disk, FileKind::Snapshot, &path).await?;
        let (applied, _) = watch::channel(current.clone().unwrap_or_default());
        let current = Arc::new(Mutex::new(current));
        Ok(StateMachine { applied, snapshots: Snapshots { disk, path, failure, current } })
    }

    /// What is applied, as it changes.
    pub(super) fn applied(&self) -> watch::Receiver<Applied> {
        self.applied.subscribe()
    }
}

/// A copy of the state machine, to be written.
pub(super) struct SnapshotBuilder {
    applied: Applied,
    snapshots: Snapshots,
}

impl RaftSnapshotBuilder<Types> for SnapshotBuilder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, StorageError> {
        let kept = self.snapshots.keep(self.applied.clone()).await?;
        kept.to_snapshot().map_err(|error| self.snapshots.failure.stop_by(error))
    }
}

impl RaftStateMachine<Types> for StateMachine {
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, Membership), StorageError> {
        let applied = self.applied.borrow();
        Ok((applied.last_log_id, applied.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Option<Written>>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut applied = self.applied.borrow().clone();
        let answers = entries.into_iter().map(|entry| applied.apply(entry)).collect();
        self.applied.send_replace(applied);
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        let applied = self.applied.borrow().clone();
        SnapshotBuilder { applied, snapshots: self.snapshots.clone() }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError> {
        mark(Mark::SnapshotInstalled);
        let installed = Applied::from_snapshot(meta, snapshot.get_ref());
        let installed = installed.map_err(|error| self.snapshots.failure.stop_by(error))?;
        self.snapshots.keep(installed.clone()).await?;
        // On disk before it is seen: what is shown as applied is never forgotten.
        self.applied.send_if_modified(|applied| {
            let is_newer = applied.last_log_id < installed.last_log_id;
            if is_newer {
                *applied = installed;
            }
            is_newer
        });
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, StorageError> {
        let current = self.snapshots.current.lock().await;
        let snapshot = current.as_ref().map(Applied::to_snapshot).transpose();
        snapshot.map_err(|error| self.snapshots.failure.stop_by(error))
    }
}
