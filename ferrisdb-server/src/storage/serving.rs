//! What reads look at, behind its lock.
//!
//! Every read and every version that is applied takes this lock, so nobody may keep it for longer than a short step (I-16). A
//! simulation lets everybody wait for work that is done with it: see [`runtime::Holding`].

use std::ops::{Deref, DerefMut};

use ferrisdb_core::{Error, runtime};
use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::{shards::Shards, window::Window};

/// What reads look at.
pub(super) struct Serving {
    /// Counts how often the server began anew.
    pub(super) life: u64,
    pub(super) window: Window,
    pub(super) shards: Shards,
    /// Why nothing is served any more.
    pub(super) failure: Option<Error>,
}

/// The lock.
pub(super) struct ServingLock(RwLock<Serving>);

/// A guard of the lock.
pub(super) struct Held<G> {
    guard: G,
    _holding: runtime::Holding,
}

impl ServingLock {
    pub(super) fn new(serving: Serving) -> ServingLock {
        ServingLock(RwLock::new(serving))
    }

    pub(super) fn read(&self) -> Held<RwLockReadGuard<'_, Serving>> {
        Held { guard: self.0.read(), _holding: runtime::Holding::new() }
    }

    pub(super) fn write(&self) -> Held<RwLockWriteGuard<'_, Serving>> {
        Held { guard: self.0.write(), _holding: runtime::Holding::new() }
    }
}

impl<G: Deref<Target = Serving>> Deref for Held<G> {
    type Target = Serving;

    fn deref(&self) -> &Serving {
        &self.guard
    }
}

impl<G: DerefMut<Target = Serving>> DerefMut for Held<G> {
    fn deref_mut(&mut self) -> &mut Serving {
        &mut self.guard
    }
}
