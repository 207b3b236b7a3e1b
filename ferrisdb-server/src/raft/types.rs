//! What the consensus library is told about the register: the types of its log, and the doors to the world.

use std::io::Cursor;

use bytes::Bytes;
use ferrisdb_core::id::Address;
use openraft::{BasicNode, impls::OneshotResponder};
use serde::{Deserialize, Serialize};

use super::runtime::Doors;

/// A member of a group, or rather its data directory: drawn once and kept there. Never derived from the
/// address, so that a member whose disk was wiped is somebody new, who has promised nothing.
pub type NodeId = u64;

/// Who a member is, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its number.
    pub node: NodeId,
    /// Where it wants to be reached.
    pub address: Address,
    /// Where others may be found, beside those that the group knows: all of them may have moved.
    pub others: Vec<Address>,
}

/// What the register holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// How often it was written. Zero: never, and the value is empty.
    pub revision: u64,
    /// The value of the newest write.
    pub value: Bytes,
}

/// What became of a write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Written {
    /// It was applied. This is the revision it made.
    At(u64),
    /// The register was not at the revision that the writer expected, and was left alone. This is what it held.
    Stale(Contents),
}

/// A write on its way through the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Proposal {
    /// The revision at which it may be applied, decided anew by every member's state machine.
    pub(super) expected_revision: u64,
    /// The value to hold from then on.
    pub(super) value: Bytes,
}

openraft::declare_raft_types!(
    /// The library's parameters.
    pub(super) Types:
        D = Proposal,
        R = Option<Written>,
        NodeId = NodeId,
        Node = BasicNode,
        Entry = openraft::Entry<Types>,
        SnapshotData = Cursor<Vec<u8>>,
        Responder = OneshotResponder<Types>,
        AsyncRuntime = Doors,
);

pub(super) type Consensus = openraft::Raft<Types>;
pub(super) type Entry = openraft::Entry<Types>;
pub(super) type LogId = openraft::LogId<NodeId>;
pub(super) type Vote = openraft::Vote<NodeId>;
pub(super) type Metrics = openraft::RaftMetrics<NodeId, BasicNode>;
pub(super) type Membership = openraft::StoredMembership<NodeId, BasicNode>;
pub(super) type SnapshotMeta = openraft::SnapshotMeta<NodeId, BasicNode>;
pub(super) type StorageError = openraft::StorageError<NodeId>;

/// How much of a message an entry takes.
pub(super) trait EntryBytes {
    /// The bytes of its value, and a little for the rest.
    fn value_bytes(&self) -> usize;
}

impl EntryBytes for Entry {
    fn value_bytes(&self) -> usize {
        let value = match &self.payload {
            openraft::EntryPayload::Normal(proposal) => proposal.value.len(),
            openraft::EntryPayload::Blank | openraft::EntryPayload::Membership(_) => 0,
        };
        value + 100
    }
}
