//! The only doors to the world: time, tasks, randomness and disk.
//!
//! Everything that could make two runs differ passes through here, so that a simulation owns all of it:
//!
//! ```text
//!                    a normal build                    a build with --cfg madsim
//!   now, sleep       the monotonic clock, tokio         a virtual clock, which can be wrong on a node
//!   spawn            tokio                             a task, picked at random by the seed
//!   keep_running     tokio, begun again if it ends     the same, and a panic ends the run
//!   spawn_apart      a thread of its own               the same as spawn
//!   blocking         tokio's blocking threads          runs in place, and takes as long as its disk
//!   work             what it takes                     what the simulation says, in virtual time
//!   random_u64       the thread's generator            the seed's generator
//!   Disk             files                             a disk in memory that survives its process
//!   vitals           what the system says of us         nothing
//! ```
//!
//! The network is the fifth door: [`crate::transport`] opens sockets of the aliased tokio, which madsim
//! replaces. `clippy.toml` forbids what would lead around the doors.

mod awake;
mod clock;
pub mod disk;
#[cfg(madsim)]
pub mod node_clocks;
mod random;
mod task;
mod vitals;
mod work;

pub use awake::Awake;
pub use clock::{Instant, now, sleep, timeout, true_now, unix_time};
pub use disk::{DirectoryLock, Disk, File};
pub use random::{jitter, random_u64};
#[cfg(madsim)]
pub use task::wait_in_blocking;
pub use task::{Task, TaskGroup, blocking, keep_running, spawn, spawn_apart, yield_now};
pub use vitals::{MachineVitals, Vitals, vitals};
pub use work::Holding;
#[cfg(madsim)]
pub use work::work;

/// Whether an operation failed because this process, or its machine, has no descriptors left: EMFILE and ENFILE, which have no
/// kind of their own. That says nothing about the disk or the server which the descriptor was for.
pub(crate) fn is_out_of_descriptors(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(24 | 23))
}
