//! How a disk is doing: its speed, and what is wrong with it. Shared by the files and the engines on it.

use std::{sync::Arc, time::Duration};

use ferrisdb_core::{
    Error, ErrorCode, Result, Stage,
    runtime::{self, Instant, disk::Space},
};
use parking_lot::Mutex;

use super::{chance, profile::DiskProfile};

/// How often a stalled operation looks whether it may go on.
const STALL_LOOK: Duration = Duration::from_millis(10);

/// What goes wrong, as probabilities for each operation: 0 is never, 1 is always.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Faults {
    /// Reads fail.
    pub read_errors: f64,
    /// Writes and changes of names fail.
    pub write_errors: f64,
    /// Syncs fail: what was to be synced may be lost, and counts as clean.
    pub sync_errors: f64,
    /// Reads return one bit that is wrong; the next read may be right again.
    pub read_flips: f64,
    /// How many times as long everything takes.
    pub slowness: f64,
    /// How many bytes a second can be synced, if that is to count.
    pub bytes_per_second: Option<u64>,
}

impl Faults {
    /// Nothing goes wrong.
    pub const NONE: Faults = Faults {
        read_errors: 0.0,
        write_errors: 0.0,
        sync_errors: 0.0,
        read_flips: 0.0,
        slowness: 1.0,
        bytes_per_second: None,
    };

    /// Every operation fails.
    pub const DEAD: Faults =
        Faults { read_errors: 1.0, write_errors: 1.0, sync_errors: 1.0, ..Faults::NONE };
}

impl Default for Faults {
    fn default() -> Faults {
        Faults::NONE
    }
}

/// What an operation is, as far as its time and its failures are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Read,
    Write,
    Sync,
}

/// A disk's condition. Clones are the same one.
#[derive(Clone, Debug)]
pub(super) struct Condition(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    profile: DiskProfile,
    faults: Faults,
    is_full: bool,
    stall: Option<Stall>,
    /// How many bytes a second can be synced at best, if that is to count.
    bytes_per_second: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
enum Stall {
    Until(Instant),
    UntilLifted,
}

impl Condition {
    pub(super) fn new(profile: DiskProfile) -> Condition {
        let faults = Faults::NONE;
        let state = State { profile, faults, is_full: false, stall: None, bytes_per_second: None };
        Condition(Arc::new(Mutex::new(state)))
    }

    pub(super) fn faults(&self) -> Faults {
        self.0.lock().faults
    }

    pub(super) fn set_faults(&self, faults: Faults) {
        self.0.lock().faults = faults;
    }

    pub(super) fn set_bytes_per_second(&self, bytes: Option<u64>) {
        self.0.lock().bytes_per_second = bytes;
    }

    pub(super) fn fill(&self, is_full: bool) {
        self.0.lock().is_full = is_full;
    }

    pub(super) fn stall(&self, limit: Option<Duration>) {
        let until = limit.map(|limit| Stall::Until(runtime::now() + limit));
        self.0.lock().stall = Some(until.unwrap_or(Stall::UntilLifted));
    }

    pub(super) fn lift_stall(&self) {
        self.0.lock().stall = None;
    }

    fn is_stalled(&self) -> bool {
        let mut state = self.0.lock();
        match state.stall {
            None => false,
            Some(Stall::UntilLifted) => true,
            Some(Stall::Until(end)) => {
                let is_over = runtime::now() >= end;
                if is_over {
                    state.stall = None;
                }
                !is_over
            }
        }
    }

    /// The time that an operation takes, unless the disk is stalled.
    pub(super) fn latency(&self, kind: Kind) -> Duration {
        let (latency, slowness) = {
            let state = self.0.lock();
            let profile = &state.profile;
            let latency = match kind {
                Kind::Read => profile.read,
                Kind::Write => profile.write,
                Kind::Sync => profile.sync,
            };
            (latency, state.faults.slowness.max(0.0))
        };
        latency.draw().mul_f64(slowness)
    }

    /// The time that so many bytes take besides.
    pub(super) fn transfer(&self, bytes: usize) -> Duration {
        let state = self.0.lock();
        let limits = [state.bytes_per_second, state.faults.bytes_per_second];
        limits.into_iter().flatten().min().map_or(Duration::ZERO, |per_second| {
            Duration::from_micros(bytes as u64 * 1_000_000 / per_second.max(1))
        })
    }

    /// Waits while the disk is stalled, and then for `time`.
    pub(super) async fn pass(&self, time: Duration) {
        while self.is_stalled() {
            runtime::sleep(STALL_LOOK).await;
        }
        chance::wait(time).await;
    }

    /// Whether an operation fails now.
    pub(super) fn fails(&self, kind: Kind) -> bool {
        let faults = self.faults();
        chance::happens(match kind {
            Kind::Read => faults.read_errors,
            Kind::Write => faults.write_errors,
            Kind::Sync => faults.sync_errors,
        })
    }

    /// Whether a disk that holds `used_bytes` takes `more_bytes`.
    ///
    /// # Errors
    ///
    /// What a full disk says.
    pub(super) fn check_space(&self, what: &str, used_bytes: u64, more_bytes: u64) -> Result<()> {
        let (is_full, capacity) = {
            let state = self.0.lock();
            (state.is_full, state.profile.capacity_bytes)
        };
        let is_too_much = capacity.is_some_and(|bytes| used_bytes + more_bytes > bytes);
        if more_bytes > 0 && (is_full || is_too_much) {
            let detail = format!("{what}: no space left on device");
            return Err(Error::new(ErrorCode::DiskFull, Stage::Process, detail));
        }
        Ok(())
    }

    /// What the disk says of its space.
    pub(super) fn space(&self, used_bytes: u64) -> Space {
        let state = self.0.lock();
        let total_bytes = state.profile.capacity_bytes.unwrap_or(u64::MAX);
        let left = total_bytes.saturating_sub(used_bytes);
        Space { available_bytes: if state.is_full { 0 } else { left }, total_bytes }
    }
}

/// What a file system says.
pub(super) fn disk_error(what: &str, why: &str) -> Error {
    Error::new(ErrorCode::Disk, Stage::Process, format!("{what}: {why}"))
}

/// What a file system says of a failed operation.
pub(super) fn input_output_error(what: &str) -> Error {
    disk_error(what, "input/output error")
}
