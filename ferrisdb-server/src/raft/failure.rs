//! The first thing that went wrong for good.

use std::sync::{Arc, OnceLock};

use ferrisdb_core::Error;
use openraft::{AnyError, StorageIOError};

use super::types::{NodeId, StorageError};

/// Remembers the first failure of a disk: the library passes it on as text only. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub(super) struct Failure(Arc<OnceLock<Error>>);

impl Failure {
    /// The first one, if there was any.
    pub(super) fn get(&self) -> Option<Error> {
        self.0.get().cloned()
    }

    /// Remembers an error, unless there was one before.
    pub(super) fn note(&self, error: Error) {
        self.0.get_or_init(|| error);
    }

    /// Remembers an error, and makes the library stop by it.
    pub(super) fn stop_by(&self, error: Error) -> StorageError {
        let io: StorageIOError<NodeId> = StorageIOError::write(AnyError::error(&error));
        self.note(error);
        io.into()
    }
}
