//! What the members of a consensus group say to each other.
//!
//! The bodies are the consensus library's own messages, in the wire encoding: this crate passes them on and
//! does not look inside.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::declare_service;
use crate::{error::Result, id::Address};

/// A member of a consensus group.
#[tarpc::service]
pub trait Raft {
    /// Hands a message to the member it is addressed to, and brings back the answer.
    ///
    /// Refused with [`crate::ErrorCode::NoSuchEndpoint`] by any other member: one whose disk was wiped is
    /// somebody new at the same address, and must not vote for who it was before.
    async fn deliver(message: RaftMessage) -> Result<Bytes>;
    /// Who answers at this address: what a founder of a group asks before it names the first members.
    async fn identity() -> Result<RaftIdentity>;
    /// A member says where it is reached. Answered only after a new connection to that address has found this very member
    /// there, so the answer is a proof. If the group knows the member at another address, the leader changes that.
    async fn introduce(node: u64, address: Address) -> Result<RaftIdentity>;
}

declare_service! {
    /// [`Raft`] as a service.
    RaftService, Raft, RaftRequest, RaftResponse, RaftClient
}

/// A message between two members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RaftMessage {
    /// The member it is for; see [`Raft::deliver`].
    pub to: u64,
    /// The member it is from, for logs.
    pub from: u64,
    /// What the body is.
    pub kind: RaftMessageKind,
    /// The library's message.
    pub body: Bytes,
}

/// What the body of a [`RaftMessage`] is, and with it that of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RaftMessageKind {
    /// Entries of a leader's log, or none: then it says that the leader is alive.
    Append,
    /// A candidate's request for a vote.
    Vote,
    /// A leader's whole state, for a member that has fallen behind its log.
    Snapshot,
    /// A question before an election: would you vote for me, and do you reach me?
    Canvass,
}

/// Who a member is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RaftIdentity {
    /// Its number, drawn with its data directory.
    pub node: u64,
    /// Whether it belongs to a group: it has been told the members, or has voted for one of them.
    pub is_initialized: bool,
    /// Where it wants to be reached. It may have been asked at another address that leads there, too.
    pub address: Address,
    /// The newest entry of its log: term and index. Zeros if there is none.
    pub newest: (u64, u64),
}
