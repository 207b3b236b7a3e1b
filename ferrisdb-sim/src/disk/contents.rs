//! One file: what is on the platter, what is in the cache, and what is between the two. The picture is in [`super`].

use bytes::Bytes;

use super::chance;

/// What is written as a whole or not at all.
pub(super) const SECTOR_BYTES: usize = 512;

/// A change that was not synced.
#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, data: Bytes },
    SetLen(usize),
}

/// What becomes of a change when the power fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Survives,
    Lost,
    /// The first sectors of it survive.
    Prefix,
    /// Some sectors of it survive.
    Scattered,
}

impl Fate {
    fn draw() -> Fate {
        match chance::below(8) {
            0..3 => Fate::Survives,
            3..6 => Fate::Lost,
            6 => Fate::Prefix,
            _ => Fate::Scattered,
        }
    }
}

/// The contents of a file.
#[derive(Clone, Debug, Default)]
pub(super) struct Contents {
    durable: Vec<u8>,
    cached: Vec<u8>,
    /// In order.
    dirty: Vec<Change>,
}

impl Contents {
    /// A read, shorter where the file ends.
    pub(super) fn read(&self, offset: u64, length: usize) -> Bytes {
        let begin = self.cached.len().min(offset as usize);
        let end = self.cached.len().min(begin.saturating_add(length));
        Bytes::copy_from_slice(&self.cached[begin..end])
    }

    pub(super) fn len(&self) -> usize {
        self.cached.len()
    }

    /// A write into the cache.
    pub(super) fn write(&mut self, offset: u64, data: Bytes) {
        // As with files, writing nothing does not move the end.
        if data.is_empty() {
            return;
        }
        let offset = offset as usize;
        put(&mut self.cached, offset, &data);
        self.dirty.push(Change::Write { offset, data });
    }

    /// A cut, or an extension by zeros, of the cached file.
    pub(super) fn set_len(&mut self, length: u64) {
        let length = length as usize;
        self.cached.resize(length, 0);
        self.dirty.push(Change::SetLen(length));
    }

    /// All changes get to the platter.
    pub(super) fn sync(&mut self) {
        for change in self.dirty.drain(..) {
            match change {
                Change::Write { offset, data } => put(&mut self.durable, offset, &data),
                Change::SetLen(length) => self.durable.resize(length, 0),
            }
        }
    }

    /// Some changes get to the platter, and none is tried again: reads still see all of them.
    pub(super) fn fail_sync(&mut self) {
        for change in std::mem::take(&mut self.dirty) {
            match (Fate::draw(), change) {
                (Fate::Lost, Change::Write { offset, data }) => {
                    // The length is kept elsewhere than the data, and may get there without it.
                    let end = offset + data.len();
                    if end > self.durable.len() && chance::below(4) == 0 {
                        self.durable.resize(end, 0);
                    }
                }
                (fate, Change::Write { offset, data }) => self.put_sectors(fate, offset, &data),
                (Fate::Survives, Change::SetLen(length)) => self.durable.resize(length, 0),
                (_, Change::SetLen(_)) => {}
            }
        }
    }

    /// The parts of a write that survive it.
    fn put_sectors(&mut self, fate: Fate, offset: usize, data: &[u8]) {
        let end = offset + data.len();
        // Sectors are where the platter has them, not where the write begins.
        let sectors = offset / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES);
        let prefix = match fate {
            Fate::Survives => sectors.len(),
            Fate::Prefix => chance::below(sectors.len()),
            Fate::Lost | Fate::Scattered => 0,
        };
        for (number, sector) in sectors.enumerate() {
            if number < prefix || (fate == Fate::Scattered && chance::below(2) == 0) {
                let begin = offset.max(sector * SECTOR_BYTES);
                let end = end.min((sector + 1) * SECTOR_BYTES);
                put(&mut self.durable, begin, &data[begin - offset..end - offset]);
            }
        }
    }

    /// What a power failure leaves.
    pub(super) fn power_failure(&mut self) {
        self.fail_sync();
        self.cached.clone_from(&self.durable);
    }

    /// The cache lets go of clean pages, as it may at any time: what a failed sync has lost shows now.
    pub(super) fn evict(&mut self) {
        self.cached.clone_from(&self.durable);
        for change in &self.dirty {
            match change {
                Change::Write { offset, data } => put(&mut self.cached, *offset, data),
                Change::SetLen(length) => self.cached.resize(*length, 0),
            }
        }
    }

    /// Flips a bit on the platter, and in the cache, which will not hide it for ever.
    pub(super) fn flip(&mut self, offset: usize, bit: u8) {
        for bytes in [&mut self.durable, &mut self.cached] {
            if let Some(byte) = bytes.get_mut(offset) {
                *byte ^= 1 << (bit % 8);
            }
        }
    }

    /// The bytes on the platter.
    pub(super) fn durable(&self) -> &[u8] {
        &self.durable
    }

    /// A file of which this is on the platter, and nothing else in the cache.
    pub(super) fn at_rest(&self) -> Contents {
        let durable = self.durable.clone();
        Contents { cached: durable.clone(), durable, dirty: Vec::new() }
    }
}

fn put(bytes: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(data);
}
