//! Recent messages, in memory, by tag.
//!
//! ```text
//!   version     tag 1    tag 2
//!      30         .       b30      everything after the floor is here, and nothing else
//!      20        a20       .
//!   -- 10 ---------------------    floor: up to here the segments on disk answer
//! ```
//!
//! Messages that their reader has popped go at once, and a version goes with the last of its messages; the others go, oldest
//! version first, when there are too many bytes. What is not on disk yet stays in any case.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use ferrisdb_core::{Tag, Version};

/// What a version and a message cost besides their bytes.
const ENTRY_BYTES: usize = 64;

/// The messages of all versions after a floor.
#[derive(Debug)]
pub(super) struct Recent {
    floor_version: Version,
    by_tag: BTreeMap<Tag, VecDeque<(Version, Bytes)>>,
    /// The versions after the floor and the tags that each had messages for.
    versions: VecDeque<(Version, Vec<Tag>)>,
    bytes: usize,
}

impl Recent {
    /// Nothing, from a version on.
    pub(super) fn new(floor_version: Version) -> Recent {
        Recent { floor_version, by_tag: BTreeMap::new(), versions: VecDeque::new(), bytes: 0 }
    }

    /// A reader that has everything up to here finds the rest in memory.
    pub(super) fn floor_version(&self) -> Version {
        self.floor_version
    }

    /// About how much memory is in use.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a version after all others.
    pub(super) fn push(&mut self, version: Version, messages: &[(Tag, Bytes)]) {
        for (tag, message) in messages {
            self.by_tag.entry(*tag).or_default().push_back((version, message.clone()));
            self.bytes += ENTRY_BYTES + message.len();
        }
        self.versions.push_back((version, messages.iter().map(|(tag, _)| *tag).collect()));
        self.bytes += ENTRY_BYTES;
    }

    /// Forgets a tag's messages up to a version, and the durable versions up to there that nobody has messages of any more.
    pub(super) fn pop(&mut self, tag: Tag, through_version: Version, durable_version: Version) {
        self.forget(tag, through_version);
        let through_version = through_version.min(durable_version);
        let first_left = self.by_tag.values().filter_map(|messages| messages.front());
        let first_left = first_left.map(|(version, _)| *version).min();
        while let Some((version, _)) = self.versions.front()
            && *version <= through_version
            && first_left.is_none_or(|first_left| *version < first_left)
        {
            self.bytes -= ENTRY_BYTES;
            self.floor_version = *version;
            self.versions.pop_front();
        }
    }

    fn forget(&mut self, tag: Tag, through_version: Version) {
        let Some(messages) = self.by_tag.get_mut(&tag) else { return };
        while let Some((version, message)) = messages.front()
            && *version <= through_version
        {
            self.bytes -= ENTRY_BYTES + message.len();
            messages.pop_front();
        }
        if messages.is_empty() {
            self.by_tag.remove(&tag);
        }
    }

    /// Forgets the oldest versions until `bytes_max` are left, but none after `durable_version`.
    pub(super) fn shrink(&mut self, bytes_max: usize, durable_version: Version) {
        while self.bytes > bytes_max
            && self.versions.front().is_some_and(|(version, _)| *version <= durable_version)
            && let Some((version, tags)) = self.versions.pop_front()
        {
            self.bytes -= ENTRY_BYTES;
            self.floor_version = version;
            for tag in tags {
                self.forget(tag, version);
            }
        }
    }

    /// A tag's messages in `(after, through]`: about `bytes_max`, at least one. Returns them and the version up to
    /// which they are complete.
    pub(super) fn read(
        &self,
        tag: Tag,
        after_version: Version,
        through_version: Version,
        bytes_max: usize,
    ) -> (Vec<(Version, Bytes)>, Version) {
        assert!(
            after_version >= self.floor_version,
            "versions after {after_version} are asked of memory, which begins after {}",
            self.floor_version
        );
        let mut found = Vec::new();
        let Some(messages) = self.by_tag.get(&tag) else { return (found, through_version) };
        let first = messages.partition_point(|(version, _)| *version <= after_version);
        let mut bytes = 0;
        for (version, message) in messages.range(first..) {
            if *version > through_version {
                break;
            }
            if bytes >= bytes_max {
                let complete_through = found.last().map_or(after_version, |(version, _)| *version);
                return (found, complete_through);
            }
            bytes += message.len();
            found.push((*version, message.clone()));
        }
        (found, through_version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(tags: &[(u32, &'static str)]) -> Vec<(Tag, Bytes)> {
        tags.iter().map(|(tag, text)| (Tag(*tag), Bytes::from_static(text.as_bytes()))).collect()
    }

    fn example() -> Recent {
        let mut recent = Recent::new(Version(10));
        recent.push(Version(20), &messages(&[(1, "a20")]));
        recent.push(Version(30), &messages(&[(2, "b30")]));
        recent.push(Version(40), &messages(&[(1, "a40"), (2, "b40")]));
        recent
    }

    fn read(recent: &Recent, tag: u32, after: u64, through: u64, bytes_max: usize) -> String {
        let (found, complete) = recent.read(Tag(tag), Version(after), Version(through), bytes_max);
        let found: Vec<_> = found.iter().map(|(_, m)| str::from_utf8(m).unwrap()).collect();
        format!("{} through {complete}", found.join(" "))
    }

    #[test]
    fn a_reader_gets_its_own_messages_within_its_bounds() {
        let recent = example();
        assert_eq!(read(&recent, 1, 10, 40, 100), "a20 a40 through 40");
        assert_eq!(read(&recent, 1, 10, 40, 1), "a20 through 20");
        assert_eq!(read(&recent, 1, 20, 30, 100), " through 30");
        assert_eq!(read(&recent, 3, 10, 40, 100), " through 40");
    }

    #[test]
    fn the_oldest_versions_go_first_and_what_is_not_durable_stays() {
        let mut recent = example();
        recent.shrink(0, Version(30));
        assert_eq!(recent.floor_version(), Version(30));
        assert_eq!(read(&recent, 1, 30, 40, 100), "a40 through 40");
        recent.shrink(0, Version(40));
        assert_eq!((recent.bytes(), recent.by_tag.len()), (0, 0));
    }

    #[test]
    fn popped_messages_go_before_their_version_does() {
        let mut recent = example();
        recent.pop(Tag(1), Version(25), Version(40));
        assert_eq!(read(&recent, 1, 20, 40, 100), "a40 through 40");
        recent.shrink(0, Version(40));
        assert_eq!(recent.bytes(), 0);
    }

    #[test]
    fn a_version_goes_with_the_last_of_its_messages() {
        let mut recent = example();
        recent.pop(Tag(1), Version(40), Version(40));
        assert_eq!(recent.floor_version(), Version(20), "30 has a message left");
        recent.pop(Tag(2), Version(40), Version(30));
        assert_eq!(recent.floor_version(), Version(30), "40 is not on disk yet");
        recent.pop(Tag(3), Version(40), Version(40));
        assert_eq!((recent.floor_version(), recent.bytes()), (Version(40), 0));
    }
}
