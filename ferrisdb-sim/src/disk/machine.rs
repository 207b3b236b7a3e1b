//! The disk of a node, in the hands of the world.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use ferrisdb_server::host::Media;

use super::{
    chance,
    condition::{Condition, Faults},
    contents::Contents,
    engine::{EngineImage, SimulatedEngines},
    profile::DiskProfile,
    simulated::{Files, Image},
};

/// The disk and the engines of one node, which survive its process. Clones are the same.
#[derive(Clone)]
pub struct MachineDisk {
    files: Files,
    engines: SimulatedEngines,
    condition: Condition,
}

/// What was on a disk at some time, and safe from a power failure.
pub struct Snapshot {
    files: Image,
    engines: EngineImage,
}

impl MachineDisk {
    /// An empty disk.
    pub fn new(profile: DiskProfile) -> MachineDisk {
        let condition = Condition::new(profile);
        let engines = SimulatedEngines::new(condition.clone());
        MachineDisk { files: Files::default(), engines, condition }
    }

    /// The disk for a process that is starting. What it opens fails once that process has died.
    pub fn media(&self) -> Media {
        let disk = self.files.open(self.condition.clone());
        Media::new(Arc::new(disk), Arc::new(self.engines.clone()))
    }

    // Ends of processes. The process has to be dead by then.

    /// The process was killed, and the machine goes on: what was written stays, synced or not.
    pub fn crash_process(&self) {
        // The cache may let go of clean pages at any time; now is as good as any.
        let is_evicted = chance::below(2) == 0;
        self.files.crash(|file| {
            if is_evicted {
                file.evict();
            }
        });
        self.engines.crash_process();
    }

    /// The machine has lost its power: of what was not synced, parts may survive, in any combination.
    pub fn power_failure(&self) {
        self.files.lose_names();
        self.files.crash(Contents::power_failure);
        self.engines.power_failure();
    }

    // Trouble while the process runs.

    /// What goes wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.condition.set_faults(faults);
    }

    /// How many bytes a second can be synced at best; any number, as it is at first, if none is given.
    pub fn set_bytes_per_second(&self, bytes: Option<u64>) {
        self.condition.set_bytes_per_second(bytes);
    }

    /// Whether the disk is full, whatever its capacity: nothing that needs more space succeeds.
    pub fn fill(&self, is_full: bool) {
        self.condition.fill(is_full);
    }

    /// Operations hang, for a time or until [`MachineDisk::lift_stall`], and then go on.
    pub fn stall(&self, limit: Option<Duration>) {
        self.condition.stall(limit);
    }

    /// Lets operations go on.
    pub fn lift_stall(&self) {
        self.condition.lift_stall();
    }

    // Disks that are not what they were.

    /// Flips a bit of a file, or damages a row of an engine, and says where; `None` if there is nothing on the disk.
    pub fn flip_bit(&self) -> Option<String> {
        let in_row = || self.engines.damage_row();
        if chance::below(2) == 0
            && let Some(row) = in_row()
        {
            return Some(row);
        }
        self.flip_bit_in(|_| true).or_else(in_row)
    }

    /// Flips a bit that was synced, in a file whose path the filter takes, and says where. Not behind the last byte
    /// that is not zero: what was only reserved says nothing.
    pub fn flip_bit_in(&self, is_meant: impl Fn(&Path) -> bool) -> Option<String> {
        let candidates: Vec<(PathBuf, usize)> = self
            .files
            .durable_files(is_meant)
            .into_iter()
            .filter_map(|(path, _)| {
                let bytes = self.files.durable(&path)?;
                let last = bytes.iter().rposition(|byte| *byte != 0)?;
                Some((path, last + 1))
            })
            .collect();
        let (path, length) = candidates.get(chance::below(candidates.len()))?;
        let (offset, bit) = (chance::below(*length), chance::below(8) as u8);
        self.files.flip(path, offset, bit);
        Some(format!("bit {bit} of byte {offset} of {length} in {}", path.display()))
    }

    /// What is on the disk now, for later.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { files: self.files.image(), engines: self.engines.image() }
    }

    /// Puts an old disk back, or that of another machine. The process has to be dead.
    pub fn restore(&self, snapshot: &Snapshot) {
        self.files.replace(&snapshot.files);
        self.engines.replace(&snapshot.engines);
    }

    /// A new disk with nothing on it. The process has to be dead.
    pub fn replace_with_empty(&self) {
        self.files.replace(&Image::default());
        self.engines.replace(&EngineImage::default());
    }

    /// Exchanges the disks of two machines. Both processes have to be dead.
    pub fn exchange(&self, other: &MachineDisk) {
        let (ours, theirs) = (self.snapshot(), other.snapshot());
        self.restore(&theirs);
        other.restore(&ours);
    }

    // What is on it.

    /// The bytes of all files and rows together.
    pub fn used_bytes(&self) -> u64 {
        self.files.used_bytes() + self.engines.used_bytes()
    }

    /// The bytes of a file that are safe from a power failure.
    pub fn durable(&self, path: impl AsRef<Path>) -> Option<Bytes> {
        self.files.durable(path.as_ref())
    }
}

impl Default for MachineDisk {
    fn default() -> MachineDisk {
        MachineDisk::new(DiskProfile::default())
    }
}
