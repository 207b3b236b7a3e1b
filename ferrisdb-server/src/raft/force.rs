//! The way out when a majority of the members is gone for good: one that is left goes on alone, as somebody new.
//!
//! ```text
//!   member 7, of 7 8 9      snapshot through 40, entries 41 42       its disk is all that is left
//!   force_quorum            42 applied, members {51}                 51 is a number that nobody has met
//! ```
//!
//! All entries are applied, also those of which nobody knows whether a majority had them: what was acknowledged is among them,
//! if this member has it at all. It gets a new number, so that members of the old group that come back neither reach it nor
//! vote for it; what their leader could still decide is for the value itself to fence off, and that is why the caller may change
//! it on the way.
//!
//! Only for a member that does not run. The snapshot is written last but one, as a whole: before that nothing has happened.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use ferrisdb_core::{
    Error, ErrorCode, Result, Stage,
    id::Address,
    runtime::Disk,
    simulation::{Plant, planted},
};
use openraft::{BasicNode, storage::RaftLogStorage as _};

use super::{
    failure::Failure,
    file::FileKind,
    leadership::voters,
    log_store::{LogStore, read},
    state_machine::{self, Applied, StateMachine},
    types::{Contents, Membership, NodeId},
};

const MEMBER_FILE: &str = "member";

/// The number of a member, if it is not the one that was drawn with its directory.
///
/// # Errors
///
/// [`ErrorCode::Corrupt`] if the file is damaged; what the disk says.
pub async fn forced_number(disk: &dyn Disk, directory: &Path) -> Result<Option<NodeId>> {
    disk.sync_directory(directory).await?;
    read(disk, FileKind::Member, &directory.join(MEMBER_FILE)).await
}

/// What a member's disk says of its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remains {
    /// The members that vote, as far as this one knows.
    pub members: Vec<(NodeId, Address)>,
    /// The newest entry of its log: term and index.
    pub newest: (u64, u64),
    /// What the register holds, with all entries applied.
    pub contents: Contents,
}

/// Looks at the disk of a member that does not run.
///
/// # Errors
///
/// [`ErrorCode::InvalidArgument`] if it belongs to no group; otherwise as [`super::Register::open`].
pub async fn remains(disk: Arc<dyn Disk>, directory: &Path) -> Result<Remains> {
    let (_, applied) = everything(disk, directory).await?;
    let newest = applied.last_log_id.map_or((0, 0), |id| (id.leader_id.term, id.index));
    let members = voters(&applied.membership).into_iter().collect();
    Ok(Remains { members, newest, contents: applied.contents })
}

/// Makes a member the only one of its group, under the number `node`, with `contents` as the register's value.
///
/// # Errors
///
/// As [`remains`]. It can be repeated.
pub async fn force_quorum(
    disk: Arc<dyn Disk>,
    directory: &Path,
    (node, address): (NodeId, Address),
    contents: Contents,
) -> Result<()> {
    let (mut log, mut applied) = everything(Arc::clone(&disk), directory).await?;
    let Some(last) = applied.last_log_id else { return Err(no_group(directory)) };
    let number = FileKind::Member.encode(&node)?;
    disk.replace(&directory.join(MEMBER_FILE), number).await?;
    let nodes = [(node, BasicNode::new(address))];
    let nodes: std::collections::BTreeMap<NodeId, BasicNode> = nodes.into();
    let alone = openraft::Membership::new(vec![BTreeSet::from([node])], nodes);
    applied.membership = Membership::new(Some(last), alone);
    applied.contents = contents;
    let snapshot = FileKind::Snapshot.encode(&applied)?;
    disk.replace(&directory.join(state_machine::SNAPSHOT_FILE), snapshot).await?;
    log.purge(last).await.map_err(|error| {
        Error::new(ErrorCode::Disk, Stage::Control, error.to_string()).at(directory.display())
    })
}

/// The log, and what it comes to.
async fn everything(disk: Arc<dyn Disk>, directory: &Path) -> Result<(LogStore, Applied)> {
    let failure = Failure::default();
    let log = LogStore::open(Arc::clone(&disk), directory, failure.clone()).await?;
    let machine = StateMachine::open(disk, directory, failure).await?;
    let mut applied = machine.applied().borrow().clone();
    for entry in log.entries() {
        if planted(Plant::ForceSnapshotOnly) && applied.last_log_id.is_some() {
            break;
        }
        if applied.last_log_id < Some(entry.log_id) {
            applied.apply(entry);
        }
    }
    if applied.last_log_id.is_none() {
        return Err(no_group(directory));
    }
    Ok((log, applied))
}

fn no_group(directory: &Path) -> Error {
    let detail = format!("{} belongs to no group of controllers", directory.display());
    Error::new(ErrorCode::InvalidArgument, Stage::Control, detail)
}
