//! Disks that are slow, that fail, that fill up, that lie, and that lose what a power failure may lose.
//!
//! ```text
//!   a file        durable   | AAAA | BBBB | CCCC |                 what is on the platter
//!                 dirty       write B' at 512, write D at 1536     in order, since the last sync
//!                 cached    | AAAA | B'B' | CCCC | DDDD |          what a read returns
//!
//!   sync                       durable = | AAAA | B'B' | CCCC | DDDD |
//!   process crash              cached stays as it is, synced or not
//!   power failure              each dirty change by itself: | AAAA | BBBB | CCCC | DD00 |   B' is lost, D is torn
//!   sync that fails            the same draw, but the cache still shows B' and D, and counts as clean:
//!                              no later sync writes them, and a power failure loses them
//! ```
//!
//! A sector of 512 bytes is there or not. Changes survive independently of each other, so a later one may survive an
//! earlier one. Names are durable when the operation is done, as the contract of [`Disk`] says. An operation that is
//! on its way when its process dies has happened, half happened, or not: what [`Disk::replace`] does is several steps, and can
//! leave the old file beside `name.new`, or a name that is there and is lost when the power fails, unless
//! [`Disk::sync_directory`] comes first; a directory that was being removed can be half gone.
//!
//! ```text
//!   MachineDisk     the disk and the engines of one node; the world's handle on them
//!     SimulatedDisk    files, as the process sees them
//!     FaultyEngine     the engine in memory: fails, and shows damaged rows as damage
//!     Condition        how fast both are, and what is wrong with them
//! ```
//!
//! An operation waits while the disk is stalled, takes a time that is drawn, and then fails or has its effect. The
//! engine is called from tasks that block (`runtime::blocking`), which take their time in the same way. The engine is
//! trusted to find damaged blocks by their checksums, as RocksDB does, so a flipped bit there is an error and never a
//! wrong row. Flipped bits of files are bytes like any others: finding them is the business of those who
//! wrote them.
//!
//! Everything is drawn from the seed of the simulation. Start with [`MachineDisk`].
//!
//! # Caveats
//!
//! Timers of the simulation have a millisecond, so a shorter time is that long sometimes, and otherwise nothing: right on
//! average. A lost extension of a file leaves zeros or a shorter file, never what other files had there before.
//! Removed files never come back once that is durable, and synced bytes are never lost but by [`MachineDisk::flip_bit`].
//!
//! [`Disk`]: ferrisdb_core::runtime::Disk
//! [`Disk::replace`]: ferrisdb_core::runtime::Disk::replace
//! [`Disk::sync_directory`]: ferrisdb_core::runtime::Disk::sync_directory

mod chance;
mod condition;
mod contents;
mod engine;
mod machine;
mod profile;
mod simulated;
#[cfg(test)]
mod tests;

pub use condition::Faults;
pub use engine::{FaultyEngine, SimulatedEngines};
pub use machine::{MachineDisk, Snapshot};
pub use profile::{DiskProfile, Latency};
pub use simulated::SimulatedDisk;
