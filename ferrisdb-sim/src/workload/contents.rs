//! What a transaction must see: the rows of a map, with its own writes done to them.
//!
//! ```text
//!   rows         k/003 = ab @ 40      k/004 = x, changed by this transaction
//!   unreadable   k/005                its value will hold a versionstamp
//!                s/00..  ..  s/ff..   where a key with a versionstamp may come to lie
//! ```
//!
//! Start with [`Contents::write`], then [`Contents::range`].

use std::collections::BTreeMap;

use ferrisdb_client::{Key, KeyRange, KeySelector, RangeQuery, Value, Version, Versionstamp};
use ferrisdb_core::Mutation;

use super::atomic_model;

/// Rows, each with the version of the commit that wrote it; `None` if the transaction itself did.
pub type Rows = BTreeMap<Key, (Value, Option<Version>)>;

/// A row of a read: key, value, and the version of the commit that wrote it.
pub type Row = (Key, Value, Option<Version>);

/// What a transaction sees.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    rows: Rows,
    unreadable: Vec<KeyRange>,
}

/// What a point read must say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Point {
    /// The value, or that there is none.
    Found(Option<(Value, Option<Version>)>),
    /// That it depends on a versionstamp.
    Unreadable,
}

/// What a key selector must name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selected {
    /// This key.
    Key(Key),
    /// One outside of the keys that the model knows.
    Outside,
    /// Nothing before the commit: a stamped key may come to lie in between.
    Unreadable,
}

impl Contents {
    /// What a transaction sees that has written nothing.
    pub fn new(rows: Rows) -> Contents {
        Contents { rows, unreadable: Vec::new() }
    }

    /// Does a write of the transaction, which commits later than `before`, as far as it knows when it writes.
    pub fn write(&mut self, mutation: &Mutation, before: Option<Version>) {
        match mutation {
            Mutation::SetVersionstampedValue { key, .. } => self.hide(KeyRange::single(key)),
            Mutation::SetVersionstampedKey { key, offset, .. } => {
                let filled = |stamp: [u8; Versionstamp::LEN]| {
                    let mut bytes = key.to_vec();
                    bytes[*offset as usize..][..Versionstamp::LEN].copy_from_slice(&stamp);
                    Key::from(bytes)
                };
                let mut least = [0; Versionstamp::LEN];
                if let Some(version) = before {
                    least[..8].copy_from_slice(&version.0.to_be_bytes());
                    least[8..].fill(0xff);
                }
                let end = filled([0xff; Versionstamp::LEN]).successor();
                self.hide(KeyRange { begin: filled(least), end });
            }
            // What cannot be read stays so until it is cleared.
            Mutation::Set { key, .. } | Mutation::Atomic { key, .. } if self.is_unreadable(key) => {
            }
            readable => {
                match readable {
                    Mutation::ClearRange { range } => self.show(range),
                    Mutation::Clear { key } => self.show(&KeyRange::single(key)),
                    _ => {}
                }
                let no_stamp = Versionstamp { commit_version: Version::ZERO, batch_index: 0 };
                atomic_model::apply_mutation(&mut self.rows, readable, no_stamp, &None);
            }
        }
    }

    /// What a point read must say.
    pub fn point(&self, key: &Key) -> Point {
        if self.is_unreadable(key) {
            return Point::Unreadable;
        }
        Point::Found(self.rows.get(key).cloned())
    }

    /// What a selector must name, for a model that knows the rows of `known` only.
    pub fn select(&self, selector: &KeySelector, known: &KeyRange) -> Selected {
        let KeySelector { key, or_equal, offset } = selector;
        let anchor = if *or_equal { key.successor() } else { key.clone() };
        let inside = |range: &KeyRange| -> Vec<&Key> {
            self.rows.keys().filter(|key| range.contains(key)).collect()
        };
        let (found, looked_at) = if *offset >= 1 {
            let range = KeyRange { begin: anchor.clone(), end: known.end.clone() };
            let found = inside(&range).get(*offset as usize - 1).map(|key| (*key).clone());
            // Whoever leaves the known keys looks beyond their end, at least at the next key there is.
            let beyond = || known.end.clone().max(anchor.clone()).successor();
            let end = found.as_ref().map_or_else(beyond, Key::successor);
            (found, KeyRange { begin: anchor, end })
        } else {
            let range = KeyRange { begin: known.begin.clone(), end: anchor.clone() };
            let found = inside(&range).iter().rev().nth(offset.unsigned_abs() as usize).copied();
            // Before all keys there is nothing that the model would not know of.
            let found = found.cloned().or_else(|| (known.begin == Key::MIN).then_some(Key::MIN));
            let begin = found.clone().unwrap_or_else(|| known.begin.clone());
            (found, KeyRange { begin, end: anchor })
        };
        if self.unreadable.iter().any(|hidden| hidden.intersects(&looked_at)) {
            return Selected::Unreadable;
        }
        found.map_or(Selected::Outside, Selected::Key)
    }

    /// What a range read must return: the rows, and whether a limit ended it; `None` if it comes upon something that
    /// cannot be read before the commit.
    pub fn range(&self, query: &RangeQuery) -> Option<(Vec<Row>, bool)> {
        let range = query.plain_range().expect("a model is asked for plain ranges");
        let mut inside: Vec<Row> = self
            .rows
            .iter()
            .filter(|(key, _)| range.contains(key))
            .map(|(key, (value, version))| (key.clone(), value.clone(), *version))
            .collect();
        if query.reverse {
            inside.reverse();
        }
        let (mut bytes, mut is_limited) = (0, false);
        let mut looked_at = range;
        for index in 0..inside.len() {
            let (key, value, _) = &inside[index];
            bytes += key.len() + value.len();
            is_limited = query.rows_max.is_some_and(|max| index + 1 >= max)
                || query.bytes_max.is_some_and(|max| bytes >= max);
            if is_limited {
                if query.reverse {
                    looked_at.begin = key.clone();
                } else {
                    looked_at.end = key.successor();
                }
                inside.truncate(index + 1);
                break;
            }
        }
        let meets = self.unreadable.iter().any(|hidden| hidden.intersects(&looked_at));
        (!meets).then_some((inside, is_limited))
    }

    /// What a range read between selectors must return, for a model that knows the rows of `known` only; `None` if it would
    /// leave them. What cannot be read counts as absent.
    pub fn select_rows(&self, query: &RangeQuery, known: &KeyRange) -> Option<(Vec<Row>, bool)> {
        let inside: Vec<(&Key, &(Value, Option<Version>))> =
            self.rows.iter().filter(|(key, _)| known.contains(key)).collect();
        let place = |selector: &KeySelector| {
            let KeySelector { key, or_equal, offset } = selector;
            let before = |found: &&Key| if *or_equal { **found <= *key } else { **found < *key };
            let anchor = inside.iter().map(|(key, _)| *key).filter(before).count();
            let place = anchor as i64 + i64::from(*offset) - 1;
            let is_known = *offset == 1 || (0..inside.len() as i64).contains(&place);
            is_known.then_some(place as usize)
        };
        let (begin, end) = (place(&query.begin)?, place(&query.end)?);
        let mut rows: Vec<Row> = inside
            .get(begin..end)
            .unwrap_or_default()
            .iter()
            .map(|(key, (value, version))| ((*key).clone(), value.clone(), *version))
            .collect();
        if query.reverse {
            rows.reverse();
        }
        let mut bytes = 0;
        let limit = rows.iter().enumerate().position(|(index, (key, value, _))| {
            bytes += key.len() + value.len();
            query.rows_max.is_some_and(|max| index + 1 >= max)
                || query.bytes_max.is_some_and(|max| bytes >= max)
        });
        if let Some(last) = limit {
            rows.truncate(last + 1);
        }
        Some((rows, limit.is_some()))
    }

    /// Whether some key of the range cannot be read.
    pub fn hides(&self, range: &KeyRange) -> bool {
        self.unreadable.iter().any(|hidden| hidden.intersects(range))
    }

    /// Whether some key cannot be read.
    pub fn hides_anything(&self) -> bool {
        !self.unreadable.is_empty()
    }

    fn is_unreadable(&self, key: &Key) -> bool {
        self.unreadable.iter().any(|range| range.contains(key))
    }

    fn hide(&mut self, range: KeyRange) {
        self.rows.retain(|key, _| !range.contains(key));
        self.unreadable.push(range);
    }

    fn show(&mut self, shown: &KeyRange) {
        if shown.is_empty() {
            return;
        }
        let hidden = std::mem::take(&mut self.unreadable);
        for range in hidden {
            let before = KeyRange {
                begin: range.begin.clone(),
                end: range.end.clone().min(shown.begin.clone()),
            };
            let after = KeyRange { begin: range.begin.max(shown.end.clone()), end: range.end };
            self.unreadable.extend([before, after].into_iter().filter(|part| !part.is_empty()));
        }
    }
}

#[cfg(test)]
mod tests {
    use ferrisdb_client::AtomicOp;

    use super::*;

    fn contents() -> Contents {
        let row = |(key, value): (&str, &str)| (key.into(), (value.into(), Some(Version(7))));
        Contents::new([("a", "1"), ("c", "3"), ("e", "5")].map(row).into())
    }

    #[test]
    fn own_writes_lie_over_the_rows() {
        let mut contents = contents();
        contents.write(&Mutation::ClearRange { range: KeyRange::new("b", "d") }, None);
        let append = |key: &str| Mutation::Atomic {
            key: key.into(),
            op: AtomicOp::AppendIfFits,
            operand: "x".into(),
        };
        contents.write(&append("c"), None);
        contents.write(&append("e"), None);
        assert_eq!(contents.point(&"c".into()), Point::Found(Some(("x".into(), None))));
        let (rows, more) = contents.range(&RangeQuery::from("a".."z").reverse().rows(2)).unwrap();
        assert_eq!(rows, [("e".into(), "5x".into(), None), ("c".into(), "x".into(), None)]);
        assert!(more);
        let (rows, more) = contents.range(&RangeQuery::from("a".."c").bytes(9)).unwrap();
        assert_eq!((rows.len(), more), (1, false));
        assert_eq!(rows[0].2, Some(Version(7)));
    }

    #[test]
    fn what_depends_on_a_versionstamp_cannot_be_read() {
        let mut contents = contents();
        let (key, value, offset) = ("c".into(), vec![0; 10].into(), 0);
        contents.write(&Mutation::SetVersionstampedValue { key, value, offset }, None);
        let stamped_key = Mutation::SetVersionstampedKey {
            key: vec![b'm'; 12].into(),
            offset: 1,
            value: "".into(),
        };
        contents.write(&stamped_key, None);
        assert_eq!(contents.point(&"c".into()), Point::Unreadable);
        assert_eq!(contents.point(&"m5".into()), Point::Unreadable);
        assert!(contents.range(&RangeQuery::from("a".."z").rows(1)).is_some());
        assert_eq!(contents.range(&RangeQuery::from("a".."z").rows(2)), None);
        assert_eq!(contents.range(&RangeQuery::from("l".."n")), None);
        let set = Mutation::Set { key: "c".into(), value: "4".into() };
        contents.write(&set, None);
        assert_eq!(contents.point(&"c".into()), Point::Unreadable, "whatever is set");
        contents.write(&Mutation::ClearRange { range: KeyRange::new("c", "z") }, None);
        assert_eq!(contents.range(&RangeQuery::from("a".."z")).unwrap().0.len(), 1);
        contents.write(&stamped_key, None);
        contents.write(&Mutation::Clear { key: "m5".into() }, None);
        assert_eq!(contents.point(&"m5".into()), Point::Found(None));
        assert_eq!(contents.point(&"m6".into()), Point::Unreadable);
    }

    #[test]
    fn older_stamps_can_be_read() {
        let mut contents = Contents::default();
        let stamped_key = Mutation::SetVersionstampedKey {
            key: vec![b'm'; 11].into(),
            offset: 1,
            value: "".into(),
        };
        let entry = |version: u64| Key::from([b"m", &version.to_be_bytes()[..], &[0, 7]].concat());
        contents.write(&stamped_key, Some(Version(40)));
        assert_eq!(contents.point(&entry(40)), Point::Found(None));
        assert_eq!(contents.point(&entry(41)), Point::Unreadable);
    }

    #[test]
    fn a_selector_looks_where_it_leaves_the_known_keys() {
        let mut contents = contents();
        let select = |contents: &Contents, key: &str| {
            contents.select(&KeySelector::first_greater_than(key), &KeyRange::new("a", "f"))
        };
        for behind_all in ["e", "f", "g"] {
            assert_eq!(select(&contents, behind_all), Selected::Outside);
        }
        // The stamp is all there is of the key: it may come to lie behind the known ones.
        let (key, value) = (vec![0; 10].into(), "".into());
        let stamped_key = Mutation::SetVersionstampedKey { key, offset: 0, value };
        contents.write(&stamped_key, None);
        contents.write(&Mutation::ClearRange { range: KeyRange::new("", "f") }, None);
        for behind_all in ["e", "f", "g"] {
            assert_eq!(select(&contents, behind_all), Selected::Unreadable);
        }
        contents.write(&Mutation::Set { key: "e".into(), value: "6".into() }, None);
        assert_eq!(select(&contents, "a"), Selected::Key("e".into()));
    }

    #[test]
    fn rows_between_selectors() {
        let known = KeyRange::new("a", "z");
        let keys =
            |begin: (&str, i32), end: (&str, i32), rows_max: Option<usize>, reverse: bool| {
                let selector = |(key, offset): (&str, i32)| KeySelector {
                    key: key.into(),
                    or_equal: false,
                    offset,
                };
                let between = RangeQuery::between(selector(begin), selector(end));
                let query = RangeQuery { rows_max, reverse, ..between };
                let (rows, more) = contents().select_rows(&query, &known)?;
                let keys: Vec<String> = rows.into_iter().map(|(key, ..)| key.to_string()).collect();
                Some((keys.concat(), more))
            };
        assert_eq!(keys(("b", 1), ("b", 2), None, false), Some(("c".into(), false)));
        assert_eq!(keys(("d", 0), ("f", 1), None, true), Some(("ec".into(), false)));
        assert_eq!(keys(("a", 1), ("a", 3), Some(2), false), Some(("ac".into(), true)));
        assert_eq!(keys(("a", 3), ("d", 1), None, false), Some((String::new(), false)));
        assert_eq!(keys(("a", 1), ("d", 3), None, false), None);
        assert_eq!(keys(("a", 0), ("d", 1), None, false), None);
    }
}
