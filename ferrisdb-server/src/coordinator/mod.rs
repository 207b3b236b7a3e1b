//! The coordinator of a generation: sequencer, proxies and resolvers. All of it is in memory; a recovery replaces it.
//!
//! ```text
//!   client --- read_version ---> proxy ---- committed_version --> sequencer
//!                                  |------- confirm ------------> logs          still my generation?
//!
//!   client --- commit ---------> proxy      1. collect a batch
//!                                  |------- begin_batch --------> sequencer     (previous, version)
//!                                  |------- resolve ------------> resolvers     accepted or conflict
//!                                  |------- push ---------------> logs          all of them, on disk
//!                                  |------- report_committed ---> sequencer
//!                                  |------- the outcome --------> clients
//! ```
//!
//! The three talk by messages only, even within one process, so that each can run in several processes.
//! A version that was given out and then not pushed leaves a gap in the chain, behind which everything
//! waits: whatever fails after `begin_batch` therefore ends the generation ([`failure`]), and the
//! controller begins the next one.
//!
//! Keeps I-1, I-4 to I-7. Start with [`proxy::commit`].

pub mod failure;
pub mod proxy;
pub mod resolver;
pub mod sequencer;
mod server;
mod tenancy;
#[cfg(test)]
mod window_tests;

pub use server::{Coordinator, CoordinatorSettings, split_keyspace};
pub use tenancy::Tenancy;
