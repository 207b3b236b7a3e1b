//! Where each version is on disk: the segments, and a sparse index into each.
//!
//! ```text
//!   segment     after    through   index: version at offset     last of each tag
//!      2         300       325     310 at 56                    tag 1: 310   tag 4: 325
//!      3         325       341     340 at 56, 360 at 65,600     tag 1: 341
//! ```
//!
//! Segments are reclaimed from the front, when each tag in them is popped past its last version there.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ferrisdb_core::{Tag, Version};

use super::{record::Place, segment::HEADER_BYTES, settings::LogSettings};

/// One segment.
#[derive(Debug)]
pub(super) struct Segment {
    number: u64,
    last_version: Version,
    /// Where the next record would begin.
    end: u64,
    /// Version and offset of some records, ascending.
    index: Vec<(Version, u64)>,
    last_by_tag: BTreeMap<Tag, Version>,
}

/// A part of a segment, to be read from a record's beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The number of the segment.
    pub segment: u64,
    /// Where a record begins.
    pub offset: u64,
    /// Where a record ends.
    pub end: u64,
}

/// All segments of an instance, oldest first. There is always one: the active one.
#[derive(Debug)]
pub(super) struct Layout {
    segments: VecDeque<Segment>,
    segment_bytes: u64,
    spacing_bytes: u64,
    entries: usize,
    entries_max: usize,
}

impl Layout {
    /// No segment yet: [`Layout::push_segment`] comes first.
    pub(super) fn new(settings: &LogSettings) -> Layout {
        Layout {
            segments: VecDeque::new(),
            segment_bytes: settings.segment_bytes,
            spacing_bytes: settings.index_spacing_bytes,
            entries: 0,
            entries_max: settings.index_entries_max,
        }
    }

    /// Begins a segment after all others.
    pub(super) fn push_segment(&mut self, number: u64, previous_version: Version) {
        self.segments.push_back(Segment {
            number,
            last_version: previous_version,
            end: HEADER_BYTES,
            index: Vec::new(),
            last_by_tag: BTreeMap::new(),
        });
    }

    fn active(&self) -> &Segment {
        self.segments.back().expect("there is always an active segment")
    }

    /// The number of the active segment and where its next record would begin.
    pub(super) fn end(&self) -> (u64, u64) {
        (self.active().number, self.active().end)
    }

    /// Whether a record of so many bytes belongs into the next segment.
    pub(super) fn is_full_for(&self, bytes: u64) -> bool {
        let end = self.active().end;
        // A record that is longer than a segment gets one of its own, and is all there is in it.
        end > HEADER_BYTES && end + bytes > self.segment_bytes
    }

    /// Notes a record at the end of the active segment, and returns its place.
    pub(super) fn push_record(
        &mut self,
        instance: u64,
        commit_version: Version,
        bytes: u64,
        tags: impl Iterator<Item = Tag>,
    ) -> Place {
        let spacing = self.spacing_bytes;
        let active = self.segments.back_mut().expect("there is always an active segment");
        assert!(
            commit_version > active.last_version,
            "version {commit_version} after {} (I-7)",
            active.last_version
        );
        let offset = active.end;
        if active.index.last().is_none_or(|(_, indexed)| offset - indexed >= spacing) {
            active.index.push((commit_version, offset));
            self.entries += 1;
        }
        active.end += bytes;
        active.last_version = commit_version;
        active.last_by_tag.extend(tags.map(|tag| (tag, commit_version)));
        let place = Place { instance, segment: active.number, offset };
        if self.entries > self.entries_max {
            self.thin_out();
        }
        place
    }

    /// Keeps every second entry of each index.
    fn thin_out(&mut self) {
        self.spacing_bytes *= 2;
        for segment in &mut self.segments {
            let mut keep = false;
            segment.index.retain(|_| {
                keep = !keep;
                keep
            });
        }
        self.entries = self.segments.iter().map(|segment| segment.index.len()).sum();
        // Each segment keeps one: their number is bounded by the disk, not by this.
        self.entries_max = self.entries_max.max(2 * self.segments.len());
    }

    /// Where to look for versions after `after_version`. `durable_end` is the segment of the last durable
    /// record and where that record ends. `None` if there is nothing.
    pub(super) fn locate(&self, after_version: Version, durable_end: (u64, u64)) -> Option<Extent> {
        let next = self.segments.partition_point(|segment| segment.last_version <= after_version);
        let segment = self.segments.get(next)?;
        let indexed = segment.index.partition_point(|(version, _)| *version <= after_version);
        let offset = match indexed {
            0 => HEADER_BYTES,
            _ => segment.index[indexed - 1].1,
        };
        let end = match segment.number.cmp(&durable_end.0) {
            std::cmp::Ordering::Less => segment.end,
            std::cmp::Ordering::Equal => durable_end.1,
            std::cmp::Ordering::Greater => return None,
        };
        (offset < end).then_some(Extent { segment: segment.number, offset, end })
    }

    /// Whether a segment is still here.
    pub(super) fn has_segment(&self, number: u64) -> bool {
        self.segments.front().is_some_and(|first| first.number <= number)
            && number <= self.active().number
    }

    /// Whether there are messages of a tag.
    pub(super) fn has_tag(&self, tag: Tag) -> bool {
        self.segments.iter().any(|segment| segment.last_by_tag.contains_key(&tag))
    }

    /// The tags that there are messages of.
    pub(super) fn tags(&self) -> BTreeSet<Tag> {
        self.segments.iter().flat_map(|segment| segment.last_by_tag.keys().copied()).collect()
    }

    /// Gives up the oldest segment if it is before `durable_segment` and `popped` says that nobody needs it. Returns
    /// the last version of each tag in it.
    ///
    /// The segment of the last durable record stays: the header behind it may not be on disk yet.
    pub(super) fn reclaim_first(
        &mut self,
        durable_segment: u64,
        popped: &BTreeMap<Tag, Version>,
    ) -> Option<BTreeMap<Tag, Version>> {
        let first = self.segments.front()?;
        let is_popped = first
            .last_by_tag
            .iter()
            .all(|(tag, last)| popped.get(tag).is_some_and(|through| through >= last));
        if first.number >= durable_segment || !is_popped {
            return None;
        }
        let first = self.segments.pop_front()?;
        self.entries -= first.index.len();
        Some(first.last_by_tag)
    }

    /// The number of the oldest segment.
    pub(super) fn first_segment(&self) -> u64 {
        self.segments.front().map_or(self.active().number, |first| first.number)
    }

    /// The bytes of headers and records.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.end).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAR: (u64, u64) = (u64::MAX, 0);

    /// Two segments of ten records of 100 bytes each, at versions 1 to 20; odd ones for tag 1, even ones for tag 2.
    fn example(entries_max: usize) -> Layout {
        let settings = LogSettings {
            index_spacing_bytes: 200,
            index_entries_max: entries_max,
            ..LogSettings::default()
        };
        let mut layout = Layout::new(&settings);
        layout.push_segment(0, Version::ZERO);
        for version in 1..=20u64 {
            if version == 11 {
                layout.push_segment(1, Version(10));
            }
            let tag = Tag(if version % 2 == 1 { 1 } else { 2 });
            layout.push_record(9, Version(version), 100, [tag].into_iter());
        }
        layout
    }

    #[test]
    fn a_version_is_found_at_or_after_the_place_returned() {
        for entries_max in [100, 4, 1] {
            let layout = example(entries_max);
            for after in 0..20u64 {
                let extent = layout.locate(Version(after), FAR).unwrap();
                let wanted = if after < 10 { (0, after) } else { (1, after - 10) };
                assert_eq!(extent.segment, wanted.0);
                assert!(extent.offset <= HEADER_BYTES + 100 * wanted.1, "{after}: {extent:?}");
                assert_eq!(extent.end, HEADER_BYTES + 1000);
            }
            assert_eq!(layout.locate(Version(20), FAR), None);
        }
        assert_eq!(example(100).locate(Version(15), FAR).unwrap().offset, HEADER_BYTES + 400);
    }

    #[test]
    fn nothing_is_read_past_the_durable_end() {
        let layout = example(100);
        let durable_end = (0, HEADER_BYTES + 500);
        let extent = layout.locate(Version(2), durable_end).unwrap();
        assert_eq!(extent.end, HEADER_BYTES + 500);
        assert_eq!(layout.locate(Version(10), durable_end), None);
    }

    #[test]
    fn a_segment_goes_when_all_its_tags_are_popped() {
        let mut layout = example(100);
        let mut popped = BTreeMap::from([(Tag(1), Version(20)), (Tag(2), Version(9))]);
        assert_eq!(layout.reclaim_first(1, &popped), None);
        popped.insert(Tag(2), Version(10));
        assert_eq!(layout.reclaim_first(0, &popped), None);
        let dropped = BTreeMap::from([(Tag(1), Version(9)), (Tag(2), Version(10))]);
        assert_eq!(layout.reclaim_first(1, &popped), Some(dropped));
        popped.insert(Tag(2), Version(20));
        assert_eq!(layout.reclaim_first(1, &popped), None, "the active segment stays");
        assert_eq!(layout.first_segment(), 1);
    }
}
