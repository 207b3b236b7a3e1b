//! FerrisDB in a deterministic simulated world.
//!
//! ```text
//!   cargo sim bank --seed 42
//!   cargo sim register --seed 42
//!
//!   world        nodes of a simulated network; each runs the real server code of a role, or the real client
//!   group        the same for consensus alone: members of a register and their writers
//!   disk         a disk and an engine per node, owned by the world: they survive their process, and fail
//!   disk_faults  trouble with disks, one at a time
//!   operations   what operators do, and losses that the cluster makes good by itself
//!   workload     what clients do, and what must be true afterwards
//!   history      what each attempt of a transaction saw and did, and when
//!   checker      what must be true of a history: strict serializability
//!   trace        everything that happened, with the virtual time; the same seed gives the same trace
//! ```
//!
//! A simulation is a build of its own (`--cfg madsim`, which `cargo sim` sets): madsim takes the place
//! of the clock, the sockets, the tasks and the randomness. Workloads use only the client and the runtime's
//! doors, so the tests over real processes run the same ones.
//!
//! # Caveats
//!
//! One seed per process: some of tokio's internal state outlives a run. `tests/determinism.rs` compares
//! runs of two processes.

pub mod checker;
#[cfg(madsim)]
pub mod disk;
#[cfg(madsim)]
pub mod disk_faults;
#[cfg(madsim)]
pub mod group;
pub mod history;
#[cfg(madsim)]
pub mod operations;
pub mod trace;
pub mod workload;
#[cfg(madsim)]
pub mod world;
