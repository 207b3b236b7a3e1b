//! The MVCC window: the last seconds of versions, in memory, in front of the engine.
//!
//! ```text
//!   version    a        b .. f        m
//!      50      .        cleared       m50      applied_version: reads above have to wait
//!      40      .        .             .        nothing changed here
//!      30      a30      .             cleared
//!   -- 20 ----------------------------------   oldest_version: reads below are too old
//!      10      engine   engine        engine   flushed: what the engine has for certain
//! ```
//!
//! A read at 30 finds a = a30, knows that m is gone, and asks the engine for everything else. A read at 50
//! knows that nothing is left from b to f, and finds m again.
//!
//! # How it is kept
//!
//! A key at version v is its newest write or the newest range clear over it, whichever is later, both taken
//! from versions up to v; if there is neither, the engine knows. So there are two structures and a list:
//!
//! - [`history`]: the writes of one key, newest first at hand; [`writes`] finds it by key. A write is a value or
//!   the clear of a single key. Atomic operations are evaluated when they are applied and stored as values.
//! - [`clears`]: the range clears, as a persistent search tree of disjoint pieces. A clear cuts out what it
//!   covers and puts one piece in its place, in O(log n) and without a look at what was inside, and copies
//!   only the path it walks: the tree of the version before stays as it was.
//! - the journal: for each version that changed something, the keys it wrote and its tree of clears. It
//!   finds the tree to read from, and what to flush, to forget and to roll back, without a search.
//!
//! Order inside a version counts as well (set, clear a range, set again), so writes and clears carry a
//! [`Stamp`](history::Stamp): the version, then the place of the mutation in it.
//!
//! One tree of intervals for all versions, pruned by its newest stamp, was the alternative: it needs one node
//! for each clear, but a read below many newer clears of the same range finds no bound to
//! prune by, and looks at all of them.
//!
//! # Flushing, while others read
//!
//! ```text
//!   begin_flush(30)     oldest_version = 30    the changes of (10, 30] go into a batch, and stay here too
//!   Engine::write       the engine is at 10 or, from one moment on, at 30
//!   finish_flush(30)    flushed = 30           the changes of (10, 30] are forgotten
//! ```
//!
//! The window knows every change of (flushed, applied], and the engine is somewhere in flushed ..= oldest.
//! [`super::read`] shows why that is enough for a reader at any version from `oldest_version` on.
//!
//! # What it promises
//!
//! - A read at v sees all mutations of versions up to v and nothing else (I-2).
//! - A batch of a flush takes the engine from any version in flushed ..= oldest to the exact state at the
//!   batch's version (I-9): it can be repeated after a failure.
//! - After [`Window::rollback_after`] nothing is left of later versions (I-10).
//! - Values are never copied. Keys are, once for each key in the window: the window keeps a hot key for
//!   as long as it is hot, and must not keep the message alive that brought it first.
//!
//! It knows nothing of shards, of the network, of locks or of RocksDB.
//! Start with [`Window::apply`], then [`View::get`], then [`Window::begin_flush`].
//!
//! # Caveats
//!
//! - A range clear holds the tree nodes on its path until it is flushed: with one clear in each version about
//!   2 kB each among 10,000 clears, 3 kB among 100,000. [`Window::memory_bytes`] counts them.
//! - Making a batch and forgetting it take time for each key. Who holds a lock around it does both in steps:
//!   [`Batch`] and [`Window::forget_flushed`].

mod apply;
mod clears;
mod flush;
mod history;
mod sort_key;
#[cfg(test)]
pub(crate) mod tests;
mod view;
mod writes;

pub use apply::Window;
pub use flush::Batch;
pub(super) use view::{Cover, Excerpt, ExcerptMost, Stretches, Written};
pub use view::{Lookup, View};
