//! The phases of a commit batch.
//!
//! ```text
//!   check      drop what is malformed or over a limit; it is answered at once
//!   sequence   (previous_version, commit_version) from the sequencer
//!   resolve    each resolver gets the ranges within its keys, and the keys that stamped keys have become by now;
//!              accepted if all of them accept
//!   push       substitute versionstamps, tag, one push for each log
//!   report     to the sequencer, so that the next read version covers the batch (I-1)
//!   answer
//! ```
//!
//! This file holds what is decided in them, as pure functions over one context; `server.rs` waits for the
//! network between them.

use std::cmp::Reverse;

use ferrisdb_core::simulation::{Mark, Plant, mark, planted};
use ferrisdb_core::{
    Error, ErrorCode, Generation, Key, KeyRange, Mutation, Result, Stage, Version, Versionstamp,
    service::{
        resolver::{ResolveRequest, ResolveTransaction, Verdict},
        sequencer::BatchVersions,
    },
    transaction::{CommitOutcome, CommitRequest, Committed, Conflict},
};

use super::routing::{Messages, Routing, ranges_within};

/// A batch on its way. `R` is how a transaction's client is answered.
#[derive(Debug)]
pub struct Batch<R> {
    generation: Generation,
    versions: BatchVersions,
    transactions: Vec<Transaction<R>>,
}

#[derive(Debug)]
struct Transaction<R> {
    request: CommitRequest,
    reply: R,
}

/// The answer for one transaction.
pub type Answer<R> = (R, Result<CommitOutcome>);

/// Why a batch has failed, and whom to tell.
pub type Failed<R> = (Error, Vec<R>);

/// Separates what is well-formed and within its limits from what is not (phase check).
pub fn check<R>(requests: Vec<(CommitRequest, R)>) -> (Vec<(CommitRequest, R)>, Vec<Answer<R>>) {
    let mut well_formed = Vec::with_capacity(requests.len());
    let mut refused = Vec::new();
    for (request, reply) in requests {
        match request.check(Stage::Commit) {
            Ok(()) => well_formed.push((request, reply)),
            Err(error) => refused.push((reply, Err(error))),
        }
    }
    (well_formed, refused)
}

impl<R> Batch<R> {
    /// A batch that has its versions (phase sequence).
    ///
    /// Refuses transactions with a read version that nobody can have been given: what is handed out
    /// was committed, and so lies before this batch in the chain.
    pub fn new(
        generation: Generation,
        versions: BatchVersions,
        requests: Vec<(CommitRequest, R)>,
    ) -> (Batch<R>, Vec<Answer<R>>) {
        let mut refused = Vec::new();
        let mut transactions = Vec::with_capacity(requests.len());
        for (request, reply) in requests {
            if request.read_version > versions.previous_version {
                let detail = format!(
                    "read version {} is past {}, the newest there was",
                    request.read_version, versions.previous_version
                );
                let error = Error::new(ErrorCode::VersionInvalid, Stage::Commit, detail);
                refused.push((reply, Err(error)));
            } else {
                transactions.push(Transaction { request, reply });
            }
        }
        (Batch { generation, versions, transactions }, refused)
    }

    /// The version that the batch commits at.
    pub fn commit_version(&self) -> Version {
        self.versions.commit_version
    }

    /// Whether the map may be another one after it.
    pub fn changes_shard_map(&self) -> bool {
        self.transactions.iter().any(|transaction| transaction.request.changes_shard_map)
    }

    /// What a resolver has to decide (phase resolve). Every resolver sees every transaction, so that
    /// verdicts line up by index; ranges are cut to `keys`, the resolver's part of the keyspace. The one that has
    /// the system keyspace also gets the changes of the shard map: what they read and write is all in its keys,
    /// so its verdict on them is the last word.
    pub fn resolve_request(&self, proxy: u32, keys: &KeyRange) -> ResolveRequest {
        let transactions = self.transactions.iter().enumerate().map(|(index, transaction)| {
            let request = &transaction.request;
            let writes = ranges_within(&request.write_conflicts, keys).map(|(_, range)| range);
            // What a key with a versionstamp is called is known from here on.
            let stamp = stamp(&self.versions, index);
            let stamped = request.mutations.iter().filter_map(|mutation| {
                let key = match planted(Plant::StampedConflictUnnamed) {
                    true => unnamed(mutation)?,
                    false => mutation.stamped_key(stamp)?,
                };
                keys.contains(&key).then(|| KeyRange::single(&key))
            });
            ResolveTransaction {
                read_version: request.read_version,
                read_conflicts: ranges_within(&request.read_conflicts, keys).collect(),
                write_conflicts: writes.chain(stamped).collect(),
                report_conflicts: request.report_conflicts,
            }
        });
        ResolveRequest {
            generation: self.generation,
            proxy,
            previous_version: self.versions.previous_version,
            commit_version: self.versions.commit_version,
            transactions: transactions.collect(),
            metadata: if keys.end == Key::SYSTEM_END { self.metadata() } else { Vec::new() },
        }
    }

    /// The changes of the shard map, by the index of their transaction.
    fn metadata(&self) -> Vec<(u32, Vec<Mutation>)> {
        (0u32..)
            .zip(&self.transactions)
            .filter(|(_, transaction)| transaction.request.changes_shard_map)
            .map(|(index, transaction)| (index, transaction.request.mutations.clone()))
            .collect()
    }

    /// Joins the resolvers' verdicts, one vector of each, and prepares the push (phase push).
    ///
    /// # Errors
    ///
    /// [`ErrorCode::Protocol`] if a resolver answered for another number of transactions.
    pub fn resolved(
        self,
        verdicts: Vec<Vec<Verdict>>,
        routing: &mut Routing,
    ) -> Result<(Messages, Vec<Answer<R>>), Failed<R>> {
        let count = self.transactions.len();
        if let Some(wrong) = verdicts.iter().find(|verdicts| verdicts.len() != count) {
            let detail = format!("a resolver gave {} verdicts on {count}", wrong.len());
            return Err((Error::new(ErrorCode::Protocol, Stage::Resolve, detail), self.replies()));
        }
        let mut messages = Messages::default();
        let mut answers = Vec::with_capacity(count);
        for (index, Transaction { request, reply }) in self.transactions.into_iter().enumerate() {
            let verdict = join(verdicts.iter().map(|verdicts| &verdicts[index]));
            let answer = match verdict {
                Verdict::Accepted => {
                    let stamp = stamp(&self.versions, index);
                    for mutation in request.mutations {
                        routing.tag(&mutation.substitute(stamp), &mut messages);
                    }
                    Ok(CommitOutcome::Committed(Committed { versionstamp: stamp }))
                }
                Verdict::Conflict { reads } => {
                    mark(Mark::Conflict);
                    Ok(CommitOutcome::Conflict(Conflict { reads }))
                }
                Verdict::TooOld => {
                    let detail = format!(
                        "read version {}, commit version {}",
                        request.read_version, self.versions.commit_version
                    );
                    Err(Error::new(ErrorCode::TransactionTooOld, Stage::Resolve, detail))
                }
            };
            answers.push((reply, answer));
        }
        Ok((messages, answers))
    }

    /// The clients to answer when the batch has failed.
    pub fn replies(self) -> Vec<R> {
        self.transactions.into_iter().map(|transaction| transaction.reply).collect()
    }
}

/// The versionstamp of a transaction of a batch.
fn stamp(versions: &BatchVersions, index: usize) -> Versionstamp {
    Versionstamp {
        commit_version: versions.commit_version,
        batch_index: match planted(Plant::VersionstampOfFirst) {
            true => 0,
            false => u16::try_from(index).expect("limits.rs bounds a batch (I-4)"),
        },
    }
}

/// The key of a stamped key before it gets its stamp: for a planted bug.
fn unnamed(mutation: &Mutation) -> Option<Key> {
    match mutation {
        Mutation::SetVersionstampedKey { key, .. } => Some(key.clone()),
        _ => None,
    }
}

/// The verdict of all resolvers together: accepted if each of them accepts.
fn join<'a>(verdicts: impl Iterator<Item = &'a Verdict>) -> Verdict {
    let mut joined = Verdict::Accepted;
    let counted = if planted(Plant::OneResolverDecides) { 1 } else { usize::MAX };
    for verdict in verdicts.take(counted) {
        match (&mut joined, verdict) {
            (_, Verdict::Accepted) => {}
            // Too old says more than a conflict: retrying at the same version cannot help.
            (Verdict::TooOld, _) | (_, Verdict::TooOld) => joined = Verdict::TooOld,
            (Verdict::Conflict { reads: all }, Verdict::Conflict { reads }) => {
                mark(Mark::ConflictsJoined);
                // A range that lies in the keys of several resolvers may conflict in several of them.
                all.extend_from_slice(reads);
                all.sort_unstable_by_key(|read| (read.index, Reverse(read.written_at)));
                all.dedup_by_key(|read| read.index);
            }
            (Verdict::Accepted, conflict) => joined = conflict.clone(),
        }
    }
    joined
}

/// The answer to a client whose batch failed once it may have reached a log: nobody knows (I-6).
pub fn unknown_result(cause: &Error) -> Error {
    let detail = format!("the batch was on its way to the logs: {cause}");
    Error::new(ErrorCode::CommitUnknownResult, Stage::Log, detail)
}

#[cfg(test)]
mod tests {
    use ferrisdb_core::{Shard, ShardMap, Tag, Teams, transaction::ConflictingRead};

    use super::*;

    const VERSIONS: BatchVersions = BatchVersions {
        previous_version: Version(10),
        commit_version: Version(20),
        known_committed_version: Version(0),
    };

    fn request(read_version: u64) -> CommitRequest {
        CommitRequest {
            read_version: Version(read_version),
            read_conflicts: vec![KeyRange::new("a", "c"), KeyRange::new("x", "z")],
            write_conflicts: vec![KeyRange::new("b", "y")],
            mutations: vec![Mutation::Clear { key: "b".into() }],
            ..CommitRequest::default()
        }
    }

    fn batch(count: usize) -> Batch<usize> {
        let requests = (0..count).map(|reply| (request(10), reply)).collect();
        let (batch, refused) = Batch::new(Generation(1), VERSIONS, requests);
        assert!(refused.is_empty());
        batch
    }

    fn routing() -> Routing {
        let range = KeyRange { begin: Key::MIN, end: Key::SYSTEM_END };
        Routing::new(ShardMap::new(vec![Shard { range, teams: Teams::of([Tag(0)]) }]))
    }

    fn conflict(reads: &[(u32, u64)]) -> Verdict {
        let read = |&(index, at)| ConflictingRead { index, written_at: Version(at) };
        Verdict::Conflict { reads: reads.iter().map(read).collect() }
    }

    #[test]
    fn resolvers_see_their_keys_only() {
        let low = batch(1).resolve_request(0, &KeyRange::new("", "m"));
        assert_eq!(low.transactions[0].read_conflicts, [(0, KeyRange::new("a", "c"))]);
        assert_eq!(low.transactions[0].write_conflicts, [KeyRange::new("b", "m")]);
        let high = KeyRange { begin: "m".into(), end: Key::SYSTEM_END };
        let high = batch(1).resolve_request(0, &high);
        assert_eq!(high.transactions[0].read_conflicts, [(1, KeyRange::new("x", "z"))]);
        assert_eq!(high.transactions[0].write_conflicts, [KeyRange::new("m", "y")]);
    }

    #[test]
    fn a_stamped_key_is_a_conflict_where_it_comes_to_lie() {
        let push = |prefix: &str| Mutation::SetVersionstampedKey {
            key: [prefix.as_bytes(), &[0xff; Versionstamp::LEN]].concat().into(),
            offset: prefix.len() as u32,
            value: "".into(),
        };
        let request =
            CommitRequest { mutations: vec![push(""), push("q/")], ..CommitRequest::default() };
        let (batch, _) =
            Batch::new(Generation(1), VERSIONS, vec![(request.clone(), 0), (request, 1)]);
        let writes = |keys: &KeyRange, index: usize| {
            batch.resolve_request(0, keys).transactions[index].write_conflicts.clone()
        };
        let single = |prefix: &str, index: u8| {
            let stamp = [0, 0, 0, 0, 0, 0, 0, 20, 0, index];
            KeyRange::single(&[prefix.as_bytes(), &stamp].concat().into())
        };
        let all = KeyRange { begin: Key::MIN, end: Key::SYSTEM_END };
        assert_eq!(writes(&all, 0), [single("", 0), single("q/", 0)]);
        assert_eq!(writes(&all, 1), [single("", 1), single("q/", 1)]);
        assert_eq!(writes(&KeyRange::new("m", "z"), 1), [single("q/", 1)]);
    }

    #[test]
    fn accepted_only_if_every_resolver_accepts() {
        let one = vec![
            Verdict::Accepted,
            conflict(&[(1, 12)]),
            Verdict::Accepted,
            conflict(&[(2, 12), (4, 12)]),
        ];
        let two = vec![
            Verdict::Accepted,
            Verdict::Accepted,
            Verdict::TooOld,
            conflict(&[(0, 13), (2, 14)]),
        ];
        let (_, answers) = batch(4).resolved(vec![one, two], &mut routing()).unwrap();
        let answers: Vec<_> = answers.into_iter().map(|(_, answer)| answer).collect();
        let stamp = Versionstamp { commit_version: Version(20), batch_index: 0 };
        assert_eq!(answers[0], Ok(CommitOutcome::Committed(Committed { versionstamp: stamp })));
        let reads = |answer: &Result<CommitOutcome>| match answer {
            Ok(CommitOutcome::Conflict(conflict)) => {
                let read = |read: &ConflictingRead| (read.index, read.written_at.0);
                conflict.reads.iter().map(read).collect::<Vec<_>>()
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(reads(&answers[1]), [(1, 12)]);
        assert_eq!(answers[2].as_ref().unwrap_err().code(), ErrorCode::TransactionTooOld);
        assert_eq!(reads(&answers[3]), [(0, 13), (2, 14), (4, 12)]);
    }

    #[test]
    fn a_read_version_from_the_future_is_refused() {
        let (batch, refused) =
            Batch::new(Generation(1), VERSIONS, vec![(request(11), 'a'), (request(10), 'b')]);
        assert_eq!(refused[0].0, 'a');
        assert_eq!(refused[0].1.as_ref().unwrap_err().code(), ErrorCode::VersionInvalid);
        assert_eq!(batch.replies(), ['b']);
    }

    #[test]
    fn a_resolver_that_miscounts_is_refused() {
        let (error, replies) =
            batch(2).resolved(vec![vec![Verdict::Accepted]], &mut routing()).unwrap_err();
        assert_eq!(error.code(), ErrorCode::Protocol);
        assert_eq!(replies, [0, 1]);
    }
}
