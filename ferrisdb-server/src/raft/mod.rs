//! A register of one value that survives the loss of a minority of its members: consensus, without a word of the database.
//!
//! ```text
//!   write(7, b)     member 1 (leads)          member 2              member 3
//!        |
//!        +------->  log   .. 41 42            .. 41 42  <--- Append, synced on both disks
//!                   a majority has 42: it is committed, and applied by everybody, in order
//!                   revision 7 -> 8, value b        8, b                  7, a  (soon 8, b)
//!        <-------   At(8)
//! ```
//!
//! A write names the revision that its writer has seen, and each member's state machine compares it when it applies the
//! entry. So the write of a leader that was deposed without noticing does no harm: if it is committed at all, it
//! comes after its successor's, and finds another revision.
//!
//! | file | holds |
//! |---|---|
//! | [`Register`], `register.rs` | the member: reads, writes, members, what its peers call |
//! | `leadership.rs` | who leads, and whether that can still be relied on |
//! | `election.rs` | when a member stands for election, and whom it supports |
//! | `reach.rs` | whether a leader is reached where it says that it is |
//! | `campaign.rs` | the shell of both: what members ask each other about it |
//! | `log_store.rs`, `file.rs` | the log and the vote on disk; the form of all files |
//! | `state_machine.rs` | the register and its snapshot |
//! | `peers.rs` | the way to the other members |
//! | `runtime.rs`, `types.rs` | what the consensus library (openraft) is told about our world |
//! | `force.rs` | one member goes on alone, when a majority is gone for good |
//! | `failure.rs` | the disk's error that ended a member |
//!
//! Keeps: a write that was acknowledged is in every later [`Register::read`]; revisions are applied in order, each
//! once; a vote or an entry is synced before anybody is told of it. A member that finds its disk damaged does not
//! start, and one whose disk fails stops: it cannot know what it has promised.
//!
//! # Caveats
//!
//! An entry travels whole, and is sent again if it is not on a follower's disk within a heartbeat interval: that
//! bounds how large a value can usefully be on a slow disk, well below [`VALUE_BYTES_MAX`]. A member does nothing else while
//! it writes, so a leader whose disk takes longer than the election timeout loses its leadership.
//!
//! Start with [`Register::write`], then `Applied::apply`.

mod campaign;
mod election;
mod failure;
mod file;
mod force;
mod leadership;
mod log_store;
mod peers;
mod reach;
mod register;
mod runtime;
mod settings;
mod state_machine;
#[cfg(test)]
mod tests;
mod types;

pub use force::{Remains, force_quorum, forced_number, remains};
pub use leadership::Leadership;
pub use register::Register;
pub use settings::RegisterSettings;
pub use types::{Contents, NodeId, Place, Written};

/// The longest value, in bytes: an entry must fit a frame of the transport with room to spare.
pub const VALUE_BYTES_MAX: usize = 16 << 20;

const _: () = assert!(VALUE_BYTES_MAX < ferrisdb_core::limits::FRAME_BYTES_MAX / 2);
