//! `--force-new-quorum`: a controller whose group has lost a majority of its disks goes on alone.
//!
//! ```text
//!   c1          has its disk                    c1    generation 7, known to be active
//!   c2, c3      lost theirs                     -->   c1 alone: generation 7 + 2^20, recovered from the logs of 7
//! ```
//!
//! What the controllers remember is small: where the logs are, and which keys are where. Data stay where they are. The
//! record may be older than what the lost controllers had agreed on; then processes serve generations that it does not know, and
//! a recovery from it would forget commits. So it is checked before whether a newer record is left, and afterwards, by what
//! processes say of themselves, see [`ClusterRecord::is_unknown`].
//!
//! The generation makes a step that no group can make by itself. If a controller that was believed lost comes back, whatever it
//! decides belongs to an older generation, and the logs refuse it.

use std::{path::Path, sync::Arc, time::Duration};

use ferrisdb_core::{
    Endpoint, ErrorCode, Result, Stage,
    id::Address,
    runtime::{self, Disk},
    service::raft::{RaftIdentity, RaftService},
    transport::{Network, call},
};

use super::{cluster_record::ClusterRecord, machine::refused};
use crate::raft::{self, Contents, NodeId, Remains};

/// How long another controller may take to answer before it counts as gone.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// The lost controllers may have agreed on later records, and told others: what comes now must be newer for them. No group
/// changes its record so often between two copies of a disk.
const REVISION_STEP: u64 = 1 << 20;

/// What was done, for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forced {
    /// The controllers that belong to the group no more.
    pub given_up: Vec<Address>,
    /// The record that the controller goes on with.
    pub record: ClusterRecord,
}

/// Makes the controller of a directory, which does not run, the only one of its group, at `address`.
///
/// # Errors
///
/// [`ErrorCode::NotSatisfiable`] if a majority of the controllers answers, or one that has a newer record; otherwise what is wrong
/// with the directory. Nothing is changed then.
pub async fn force_new_quorum(
    disk: Arc<dyn Disk>,
    directory: &Path,
    own: NodeId,
    address: Address,
    network: &Network,
) -> Result<Forced> {
    let remains = raft::remains(Arc::clone(&disk), directory).await?;
    let others = remains.members.iter().filter(|(node, _)| *node != own);
    let others: Vec<(NodeId, Address)> = others.cloned().collect();
    let asked = others.iter().map(|(node, at)| who_answers(network, *node, at));
    let answers: Vec<Option<RaftIdentity>> = futures::future::join_all(asked).await;
    check(&remains, &others, &answers)?;
    let mut record = ClusterRecord::from_bytes(&remains.contents.value)?;
    record.force();
    let revision = remains.contents.revision + REVISION_STEP;
    let contents = Contents { revision, value: record.to_bytes() };
    let number = runtime::random_u64() | 1;
    raft::force_quorum(disk, directory, (number, address), contents).await?;
    let given_up = others.into_iter().map(|(_, address)| address).collect();
    Ok(Forced { given_up, record })
}

/// The member of a number, if it is at an address.
async fn who_answers(network: &Network, node: NodeId, at: &Address) -> Option<RaftIdentity> {
    let asked = async {
        let endpoint = Endpoint::of_process(at.clone());
        let client = network.connect::<RaftService>(&endpoint).await?;
        call(ANSWER_LIMIT, Stage::Control, |context| client.identity(context)).await?
    };
    let answer = runtime::timeout(ANSWER_LIMIT, Stage::Control, asked).await;
    answer.and_then(|answer| answer).ok().filter(|identity| identity.node == node)
}

/// Whether the others are really lost, and nobody knows more than this controller.
fn check(
    remains: &Remains,
    others: &[(NodeId, Address)],
    answers: &[Option<RaftIdentity>],
) -> Result<()> {
    let alive: Vec<&RaftIdentity> = answers.iter().flatten().collect();
    let (all, majority) = (remains.members.len(), remains.members.len() / 2 + 1);
    let listed = || {
        let at = others.iter().zip(answers).filter(|(_, answer)| answer.is_some());
        at.map(|((_, address), _)| address.to_string()).collect::<Vec<_>>().join(", ")
    };
    if alive.len() + 1 >= majority && all > 1 {
        let detail = format!(
            "{} of {all} controllers answer ({}), with this one they are a majority: start it without \
             --force-new-quorum, and use \"ferrisdb-cli controllers remove\" for those that are gone",
            alive.len(),
            listed()
        );
        return Err(refused(ErrorCode::NotSatisfiable, detail));
    }
    if alive.iter().any(|identity| identity.newest > remains.newest) {
        let detail = format!(
            "a controller that answers ({}) has a newer record than this one: stop it, and use --force-new-quorum there",
            listed()
        );
        return Err(refused(ErrorCode::NotSatisfiable, detail));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remains(members: u64) -> Remains {
        let member = |node| (node, Address::new(format!("c{node}:4500")));
        let contents = Contents::default();
        Remains { members: (1..=members).map(member).collect(), newest: (4, 40), contents }
    }

    fn refusal(members: u64, newest: &[Option<u64>]) -> Option<String> {
        let remains = remains(members);
        let identity = |(node, newest): (u64, &Option<u64>)| {
            newest.map(|index| RaftIdentity {
                node,
                is_initialized: true,
                address: Address::new("h:1"),
                newest: (4, index),
            })
        };
        let answers: Vec<_> = (2..).zip(newest).map(identity).collect();
        let checked = check(&remains, &remains.members[1..], &answers);
        checked.err().map(|error| error.detail().to_owned())
    }

    #[test]
    fn a_majority_that_answers_is_not_lost() {
        assert_eq!(refusal(3, &[None, None]), None);
        let why = refusal(3, &[Some(40), None]).unwrap();
        assert!(why.contains("1 of 3 controllers answer (c2:4500)"), "{why}");
        assert!(refusal(5, &[Some(40), Some(40), None, None]).is_some());
        assert_eq!(refusal(5, &[Some(40), None, None, None]), None);
        assert_eq!(refusal(1, &[]), None);
    }

    #[test]
    fn the_newest_record_wins() {
        assert_eq!(refusal(5, &[Some(39), None, None, None]), None);
        let why = refusal(5, &[Some(41), None, None, None]).unwrap();
        assert!(why.contains("newer record"), "{why}");
    }
}
