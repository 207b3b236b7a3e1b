//! Decides which transactions of a batch conflict with what was committed since they read.
//!
//! ```text
//!   proxies                        ResolverServer                      Resolver (machine)
//!   resolve(batch 10 -> 20)  --->  an input, in order of arrival  -->  waits for batch 20 to be next?
//!                                                                      for each transaction, in order:
//!                                                                        reads against the conflict set
//!                                                                        accepted: its writes into the set
//!   verdicts                 <---  an effect                      <--  the answer, remembered for repeats
//! ```
//!
//! A resolver lives as long as its generation and has nothing on disk: a recovery begins with an empty
//! window, and with read versions so far ahead that nobody asks about what was before.
//!
//! The resolver of the system keyspace also hands accepted changes of the shard map on to all proxies, see `metadata`.
//!
//! Keeps I-4 (together with the order of versions) and I-7. Knows nothing of mutations, of tags or of who
//! else resolves: a transaction is committed if every resolver concerned accepts it, which proxies see to.
//! A resolver that accepted what another one refused therefore takes writes for committed that are not, and
//! may refuse a later transaction needlessly; never the other way round.
//!
//! Start with [`machine`], then [`conflict_set`].

mod block;
pub mod conflict_set;
mod inline_list;
pub mod machine;
mod metadata;
mod metrics;
mod server;
mod sorted_keys;

pub use self::{
    conflict_set::ConflictSet,
    machine::{ResolverProgress, ResolverSettings},
    metrics::ResolverMetrics,
    server::ResolverServer,
};
