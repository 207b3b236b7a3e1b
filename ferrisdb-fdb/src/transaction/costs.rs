//! What a transaction costs so far: its size, and how long it was held back.

use std::sync::Arc;

use super::Transaction;
use crate::promise::{Output, Promise};

impl<P: Promise> Transaction<P> {
    /// Bytes of mutations and conflict ranges so far, see [`crate::size`].
    pub fn approximate_size(&self) -> Arc<P> {
        let written = self.state.lock().written;
        let size = self.usable().map(|client| written.approximate_size(&client));
        let size = size.map(|size| Output::Int64(i64::try_from(size).unwrap_or(i64::MAX)));
        P::ready(size)
    }

    /// What the transaction costs so far, in pages of 4,096 bytes that it writes; at least one.
    pub fn total_cost(&self) -> Arc<P> {
        let size = self.usable().map(|client| client.approximate_size());
        P::ready(size.map(|size| {
            Output::Int64(i64::try_from(size.div_ceil(4_096).max(1)).unwrap_or(i64::MAX))
        }))
    }

    /// How long the transaction waited because of its tags: no tag is throttled here.
    pub fn tag_throttled_duration(&self) -> Arc<P> {
        P::ready(self.usable().map(|_| Output::Double(0.0)))
    }
}
