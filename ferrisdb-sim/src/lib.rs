//! FerrisDB in a deterministic simulated world.
//!
//! ```text
//!   cargo sim bank --seed 42
//!   cargo sim register --seed 42
//!
//!   scenario     a file: what kind of cluster, which workloads, what goes wrong
//!   run          a scenario with a seed; plan and fault say what is drawn from it
//!   batch        many seeds, each in a process of its own, and what to do about one that fails
//!   world        nodes of a simulated network; each runs the real server code of a role, or the real client
//!   group        the same for consensus alone: members of a register and their writers
//!   network      what happens to links: partitions, clogs, latency, connections that break
//!   clock        what happens to clocks: rates, jumps, nodes that do not get to run
//!   disk         a disk and an engine per node, owned by the world: they survive their process, and fail
//!   operations   what operators do, and losses that the cluster makes good by itself
//!   workload     what clients do, and what must be true afterwards
//!   history      what each attempt of a transaction saw and did, and when
//!   checker      what must be true of a history: strict serializability
//!   parts        reading all that a workload has left behind, at one version
//!   testing      your own code in the simulation, from an ordinary test
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

pub mod batch;
pub mod checker;
#[cfg(madsim)]
mod client_fault;
#[cfg(madsim)]
pub mod clock;
pub mod dice;
#[cfg(madsim)]
pub mod disk;
#[cfg(madsim)]
pub mod fault;
#[cfg(madsim)]
pub mod group;
pub mod history;
#[cfg(madsim)]
pub mod network;
#[cfg(madsim)]
pub mod operations;
pub mod parts;
#[cfg(madsim)]
pub mod plan;
pub mod plants;
#[cfg(madsim)]
pub mod run;
#[cfg(madsim)]
pub mod scenario;
#[cfg(madsim)]
pub mod testing;
pub mod trace;
pub mod workload;
#[cfg(madsim)]
pub mod world;
#[cfg(madsim)]
pub mod zones;
