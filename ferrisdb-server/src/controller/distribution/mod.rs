//! Who should hold which keys, and the next step towards it.
//!
//! ```text
//!   now                       wanted: two copies, in different zones, none on a server that is gone
//!   m: team 1 2               2 is gone, 3 has room
//!   m: team 1 2  joining 3    committed: 3 gets the writes from here on, and copies the rest
//!   m: team 1 3               committed, once 3 has all of it on disk: 2 is not needed any more
//! ```
//!
//! | to find | look in |
//! |---|---|
//! | the next change of each shard | [`planner`] |
//! | which servers make a team | [`teams`] |
//!
//! Each step is a transaction on the shard map; what became of it is seen in the map itself, which the controller
//! follows through the logs. So nothing is remembered between steps, and a new leader goes on where the last one was.

pub mod planner;
pub mod teams;
