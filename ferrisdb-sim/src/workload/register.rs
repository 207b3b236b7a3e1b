//! Writers add a line to one register, each by compare-and-set; every line that was acknowledged stays.
//!
//! ```text
//!   revision 0  ""            w1 reads 0, writes "w1-1" at 0: acknowledged, revision 1
//!   revision 1  "w1-1"        w2 reads 0, writes "w2-1" at 0: stale, and never there
//!   revision 2  "w1-1 w2-2"   w2 reads 1, writes "w1-1 w2-2" at 1: its leader dies; it is there, or not, but once
//! ```
//!
//! The value is the whole history, so one look at the end tells what became of every write.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ferrisdb_server::raft::Contents;

/// What the writers have been told.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The line that was acknowledged at each revision.
    acknowledged: BTreeMap<u64, String>,
    /// The lines that were refused.
    refused: BTreeSet<String>,
    /// How many writes ended without a word on what became of them.
    unknown: u64,
    /// How many reads were answered.
    reads: u64,
}

/// What a run came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Writes that are in the register.
    pub writes: u64,
    /// Those of them that were acknowledged.
    pub acknowledged: usize,
    /// Writes that were refused.
    pub refused: usize,
    /// Writes of which nobody was told what became.
    pub unknown: u64,
    /// Reads that were answered.
    pub reads: u64,
}

/// The lines in a value.
fn lines(value: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(value).split_whitespace().map(str::to_string).collect()
}

impl History {
    /// The value that adds `line` to what the register holds.
    pub fn extended(held: &Contents, line: &str) -> Bytes {
        let mut value = held.value.to_vec();
        value.extend_from_slice(format!("{line} ").as_bytes());
        Bytes::from(value)
    }

    /// The newest revision that a read which begins now has to see.
    pub fn newest_acknowledged(&self) -> u64 {
        self.acknowledged.last_key_value().map_or(0, |(&revision, _)| revision)
    }

    /// A read was answered, which began when `newest_acknowledged` was as given.
    ///
    /// # Errors
    ///
    /// If it has missed a write.
    pub fn on_read(&mut self, newest_acknowledged: u64, held: &Contents) -> anyhow::Result<()> {
        self.reads += 1;
        anyhow::ensure!(
            held.revision >= newest_acknowledged,
            "a read saw revision {} after revision {newest_acknowledged} was acknowledged",
            held.revision
        );
        self.check_value(held)
    }

    /// A write was acknowledged.
    ///
    /// # Errors
    ///
    /// If another one was, at the same revision.
    pub fn on_acknowledged(&mut self, revision: u64, line: String) -> anyhow::Result<()> {
        let other = self.acknowledged.insert(revision, line.clone());
        anyhow::ensure!(
            other.is_none(),
            "{line} and {other:?} were both acknowledged at revision {revision}"
        );
        Ok(())
    }

    /// A write was refused.
    pub fn on_refused(&mut self, line: String) {
        self.refused.insert(line);
    }

    /// A write ended without a word on what became of it.
    pub fn on_unknown(&mut self) {
        self.unknown += 1;
    }

    /// Compares what the register holds at the end with what its writers were told.
    ///
    /// # Errors
    ///
    /// What does not fit.
    pub fn check(&self, held: &Contents) -> anyhow::Result<Checked> {
        anyhow::ensure!(
            held.revision >= self.newest_acknowledged(),
            "revision {} at the end, {} was acknowledged",
            held.revision,
            self.newest_acknowledged()
        );
        self.check_value(held)?;
        Ok(Checked {
            writes: held.revision,
            acknowledged: self.acknowledged.len(),
            refused: self.refused.len(),
            unknown: self.unknown,
            reads: self.reads,
        })
    }

    fn check_value(&self, held: &Contents) -> anyhow::Result<()> {
        let lines = lines(&held.value);
        anyhow::ensure!(
            lines.len() as u64 == held.revision,
            "{} lines at revision {}",
            lines.len(),
            held.revision
        );
        let distinct: BTreeSet<&String> = lines.iter().collect();
        anyhow::ensure!(distinct.len() == lines.len(), "a line is there twice");
        for (revision, line) in (1..).zip(&lines) {
            let acknowledged = self.acknowledged.get(&revision);
            anyhow::ensure!(
                acknowledged.is_none_or(|acknowledged| acknowledged == line),
                "{acknowledged:?} was acknowledged at revision {revision}, which holds {line}"
            );
            anyhow::ensure!(!self.refused.contains(line), "{line} was refused and is there");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(lines: &[&str]) -> Contents {
        let empty = Contents::default();
        lines.iter().fold(empty, |held, line| Contents {
            revision: held.revision + 1,
            value: History::extended(&held, line),
        })
    }

    fn history() -> History {
        let mut history = History::default();
        history.on_acknowledged(1, "a".into()).unwrap();
        history.on_acknowledged(3, "c".into()).unwrap();
        history.on_refused("x".into());
        history.on_unknown();
        history
    }

    fn complaint(checked: anyhow::Result<impl std::fmt::Debug>) -> String {
        checked.unwrap_err().to_string()
    }

    #[test]
    fn an_honest_register_passes() {
        let mut history = history();
        assert_eq!(history.newest_acknowledged(), 3);
        history.on_read(3, &held(&["a", "b", "c"])).unwrap();
        let checked = history.check(&held(&["a", "b", "c", "d"])).unwrap();
        let expected = Checked { writes: 4, acknowledged: 2, refused: 1, unknown: 1, reads: 1 };
        assert_eq!(checked, expected);
    }

    #[test]
    fn a_lost_write_is_noticed() {
        assert!(complaint(history().check(&held(&["a", "b"]))).contains("was acknowledged"));
        let replaced = complaint(history().check(&held(&["a", "b", "d"])));
        assert!(replaced.contains("which holds d"), "{replaced}");
    }

    #[test]
    fn a_stale_read_is_noticed() {
        let stale = complaint(history().on_read(3, &held(&["a", "b"])));
        assert!(stale.contains("a read saw revision 2"), "{stale}");
    }

    #[test]
    fn a_write_that_was_done_twice_or_refused_is_noticed() {
        assert!(complaint(history().check(&held(&["a", "a", "c"]))).contains("twice"));
        assert!(complaint(history().check(&held(&["a", "x", "c"]))).contains("was refused"));
        assert!(complaint(history().on_acknowledged(3, "d".into())).contains("both"));
        let skipped = Contents { revision: 4, ..held(&["a", "b", "c"]) };
        assert!(complaint(history().check(&skipped)).contains("3 lines at revision 4"));
    }
}
