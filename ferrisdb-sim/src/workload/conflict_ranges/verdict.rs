//! How a commit has to end, by the commits that were tried since its transaction began.

use anyhow::{Result, bail, ensure};
use ferrisdb_client::KeyRange;

use super::{
    actor::Actor,
    pieces::{Map, Pieces},
};

/// What happened in a round.
#[derive(Default)]
pub(super) struct Round {
    /// The commits that were tried.
    pub(super) log: Vec<Entry>,
    /// What commits of earlier rounds wrote that got no answer. They are kept out by the epoch, and may leave that with other
    /// resolvers at any time.
    pub(super) late: Pieces,
}

/// What a commit has left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    /// Pieces whose readers conflict.
    pub(super) left: Pieces,
    /// Pieces whose readers may conflict.
    pub(super) in_doubt: Pieces,
}

/// How a commit has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    MustCommit,
    MayConflict,
    MustConflict,
}

impl Round {
    /// How the commit of a transaction has to end that began after so many entries of the log.
    pub(super) fn verdict(
        &self,
        began: usize,
        observed: Pieces,
        looked_at: Pieces,
        is_empty: bool,
    ) -> Verdict {
        let Entry { left, in_doubt } = self.left_since(began);
        match (left & observed, (left | in_doubt) & (observed | looked_at)) {
            _ if is_empty => Verdict::MustCommit,
            (0, 0) => Verdict::MustCommit,
            (0, _) => Verdict::MayConflict,
            _ => Verdict::MustConflict,
        }
    }

    /// All pieces that were, or may have been, written since.
    fn left_since(&self, began: usize) -> Entry {
        let join = |all: Entry, entry: &Entry| Entry {
            left: all.left | entry.left,
            in_doubt: all.in_doubt | entry.in_doubt,
        };
        self.log[began..].iter().fold(Entry { left: 0, in_doubt: self.late }, join)
    }

    /// What a transaction leaves that was refused as a conflict: what it writes to the keys of those resolvers that had nothing
    /// against it.
    pub(super) fn left_by_refused(&self, map: &Map, actor: &Actor) -> Entry {
        let Entry { left, in_doubt } = self.left_since(actor.began);
        let mut entry = Entry::default();
        for keys in &map.resolvers {
            let written = actor.written & keys;
            if left & actor.observed & keys != 0 {
                continue;
            }
            match (left | in_doubt) & (actor.observed | actor.looked_at) & keys {
                0 => entry.left |= written,
                _ => entry.in_doubt |= written,
            }
        }
        entry
    }

    /// Compares the ranges that the database gave as the reason of a conflict with those that there were.
    pub(super) fn check_report(&self, map: &Map, actor: &Actor, ranges: &[KeyRange]) -> Result<()> {
        let Entry { left, in_doubt } = self.left_since(actor.began);
        let possible = (left | in_doubt) & (actor.observed | actor.looked_at);
        let certain = left & actor.observed;
        let mut reported = 0;
        for range in ranges {
            let pieces = map.pieces(range);
            ensure!(pieces & possible != 0, "{range} is reported, nobody wrote to it (I-15)");
            reported |= pieces;
        }
        ensure!(certain & !reported == 0, "a conflict is missing in the report {ranges:?} (I-15)");
        Ok(())
    }
}

/// Compares how a commit ended with how it had to.
pub(super) fn check_verdict(verdict: Verdict, is_conflict: bool) -> Result<()> {
    match (verdict, is_conflict) {
        (Verdict::MustConflict, false) => {
            bail!("a transaction was committed although what it read was written since (I-4)")
        }
        (Verdict::MustCommit, true) => {
            bail!("a transaction got not_committed although nobody wrote what it read (I-15)")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conflicts_too_many_and_too_few_are_noticed() {
        let left = |left| Entry { left, in_doubt: 0 };
        let in_doubt = Entry { left: 0, in_doubt: 0b100 };
        let round = Round { log: vec![left(0b001), left(0b010), in_doubt], late: 0 };
        assert_eq!(round.verdict(0, 0b001, 0, false), Verdict::MustConflict);
        assert_eq!(round.verdict(1, 0b001, 0, false), Verdict::MustCommit);
        assert_eq!(round.verdict(1, 0b110, 0, false), Verdict::MustConflict);
        assert_eq!(round.verdict(1, 0b100, 0, false), Verdict::MayConflict);
        assert_eq!(round.verdict(1, 0, 0b010, false), Verdict::MayConflict);
        assert_eq!(round.verdict(0, 0b111, 0, true), Verdict::MustCommit);
        let complaint = |verdict, is_conflict| check_verdict(verdict, is_conflict).unwrap_err();
        assert!(complaint(Verdict::MustConflict, false).to_string().contains("I-4"));
        assert!(complaint(Verdict::MustCommit, true).to_string().contains("I-15"));
        for is_conflict in [true, false] {
            check_verdict(Verdict::MayConflict, is_conflict).unwrap();
        }
    }
}
