//! How long a transaction lives: read versions, the sequencer's clock, the resolvers' window and that of storage servers, all
//! together. Empty batches or not, pauses of every length, any number of batches that wait for the logs.

use std::collections::VecDeque;

use ferrisdb_core::{
    Generation, Key, KeyRange, Version, limits,
    service::resolver::{ResolveReply, ResolveRequest, ResolveTransaction, Verdict},
};
use proptest::prelude::*;

use super::{
    resolver::{ResolverSettings, machine},
    sequencer::Sequencer,
};

const GENERATION: Generation = Generation(2);
const SECOND_US: u64 = 1_000_000;
/// What is promised: the window, without what versions may be ahead.
const LIFE_US: u64 = (limits::WINDOW_VERSIONS - limits::VERSIONS_AHEAD_MAX) * SECOND_US
    / limits::VERSIONS_PER_SECOND;

/// Somebody who has begun: the read version, and when.
#[derive(Clone, Copy)]
struct Begun {
    read_version: Version,
    at_us: u64,
}

struct Cluster {
    now_us: u64,
    sequencer: Sequencer,
    resolver: machine::Resolver<()>,
    /// Batches that wait for the logs.
    in_flight: VecDeque<Version>,
}

impl Cluster {
    fn new() -> Cluster {
        let (recovery_version, first_version) = (Version(20), Version(1_000));
        let settings = ResolverSettings::default();
        let mut cluster = Cluster {
            now_us: 0,
            sequencer: Sequencer::new(
                GENERATION,
                recovery_version,
                first_version,
                limits::VERSIONS_AHEAD_MAX,
            ),
            resolver: machine::Resolver::new(GENERATION, recovery_version, 1, settings),
            in_flight: VecDeque::new(),
        };
        cluster.commit(&[]);
        cluster.report(1);
        cluster
    }

    /// A batch of transactions that have begun before. The verdict on each.
    fn commit(&mut self, begun: &[Begun]) -> Vec<Verdict> {
        let versions = self.sequencer.begin_batch(self.now_us);
        let key = KeyRange::single(&Key::from("k"));
        let transaction = |begun: &Begun| ResolveTransaction {
            read_version: begun.read_version,
            read_conflicts: vec![(0, key.clone())],
            write_conflicts: Vec::new(),
            report_conflicts: false,
        };
        let request = ResolveRequest {
            generation: GENERATION,
            proxy: 0,
            previous_version: versions.previous_version,
            commit_version: versions.commit_version,
            transactions: begun.iter().map(transaction).collect(),
            metadata: Vec::new(),
        };
        let mut effects = Vec::new();
        self.resolver.step(machine::Input::Resolve { request, reply_to: () }, &mut effects);
        self.in_flight.push_back(versions.commit_version);
        match effects.pop() {
            Some(machine::Effect::Answer((), Ok(ResolveReply { verdicts, .. }))) => verdicts,
            other => panic!("no verdict: {other:?}"),
        }
    }

    /// So many of the oldest batches are on all logs.
    fn report(&mut self, count: usize) {
        for version in self.in_flight.drain(..count.min(self.in_flight.len())) {
            self.sequencer.report_committed(version, self.now_us);
        }
    }

    fn begin(&self) -> Begun {
        Begun { read_version: self.sequencer.committed_version(), at_us: self.now_us }
    }

    /// Whether a storage server that has applied all that is committed, or even all that was given out, still answers.
    fn is_readable(&self, begun: &Begun) -> bool {
        let newest = self.in_flight.back().copied().unwrap_or(self.sequencer.committed_version());
        begun.read_version >= newest.saturating_sub(limits::WINDOW_VERSIONS)
    }
}

proptest! {
    #[test]
    fn a_transaction_lives_for_its_life_whatever_happened_before(
        steps in prop::collection::vec((0..40 * SECOND_US, 0..LIFE_US, 0..5usize, 0..4usize), 1..20),
    ) {
        let mut cluster = Cluster::new();
        for (pause_us, age_us, others, committed) in steps {
            cluster.now_us += pause_us;
            let begun = cluster.begin();
            // Meanwhile others commit.
            for _ in 0..others {
                cluster.now_us += age_us / 5;
                cluster.commit(&[]);
                cluster.report(committed);
                prop_assert!(cluster.is_readable(&begun), "too old to read");
            }
            cluster.now_us = cluster.now_us.max(begun.at_us + age_us);
            let verdicts = cluster.commit(&[begun]);
            prop_assert_eq!(verdicts, [Verdict::Accepted]);
        }
    }

    #[test]
    fn a_transaction_that_is_left_alone_becomes_too_old(seconds in 8..60u64) {
        let mut cluster = Cluster::new();
        let begun = cluster.begin();
        for _ in 0..seconds {
            cluster.now_us += SECOND_US;
            cluster.commit(&[]);
            cluster.report(usize::MAX);
        }
        prop_assert!(!cluster.is_readable(&begun));
        prop_assert_eq!(cluster.commit(&[begun]), [Verdict::TooOld]);
    }
}
