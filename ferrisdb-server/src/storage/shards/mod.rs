//! What a storage server is to which keys, version by version (I-3).
//!
//! ```text
//!   from 40   ''..'g' member
//!   from 55   ''..'g' member     'g'..'p' joining, copied up to 'g'      as the stream said at 55
//!   from 60   ''..'g' member     'g'..'p' joining, copied up to 'k'      a page was copied at 60
//!   from 90                      'g'..'p' member                         as the stream said at 90
//!
//!   a read of 'b'   at 89: answered                           at 90: wrong shard
//!   a read of 'h'   at 89: too old, ask at a newer version    at 90: answered
//!   a write of 'h'  at 58: dropped, the page will have it     at 70: applied
//!   a write of 'm'  at 70: dropped, a later page will have it
//! ```
//!
//! All of it comes through the server's own stream, as [`ShardChange`](ferrisdb_core::shard::ShardChange)s between
//! the mutations, and from the pages that the server copies. So it can be replayed after a restart, like the
//! data: the state as of the engine's version lies beside the data, as the engine's attachment.
//!
//! - [`holdings`]: what the server holds at one version. Neighbouring ranges of a member are one range: shards that
//!   were cut or joined elsewhere make no difference here.
//! - [`versions`]: one such state for each version that a read or a flush can still ask for, with the changes
//!   in between: applied, rolled back, flushed, together with the window.
//! - [`attachment`]: the bytes beside the engine's data.
//!
//! # Why a page may be written into the engine
//!
//! A page is what a member of the shard has at the version that is applied here, say 60. Its rows go into the
//! engine at once, under the window, although the engine may be at 30. From then on the window takes the writes
//! of those keys, all of them after 60. So for these keys the engine is the state at 60 until a flush takes it
//! further, and the window has all changes since: what [`super::read`] asks for. It holds as long as
//!
//! - the window has nothing else to say about the keys. Before they were copied, their writes were
//!   dropped. If the server held them earlier, the window has their clear from when it left, and earlier
//!   states still say that it held them: [`Shards::parts_to_copy`] gives them out when those have been flushed;
//! - nobody reads them at versions up to 60: the range becomes a member's at a later version;
//! - the applied version stands still while a page is on its way: [`Shards::record_page`] takes it only then;
//! - a crash does not leave what the engine cannot tell. The attachment says up to where it was copied *as of the
//!   engine's version*; what lies behind is of a later version, on which the stream must not be replayed (atomic
//!   operations would count twice), and is copied again, after a clear. A rollback does the same.
//!
//! The last page is followed by a flush whose attachment says that all is copied. Not before then does the server
//! report the range as copied, and not before that report can it become a member: so a member never has to copy.
//!
//! Knows nothing of the network, of tasks, or of where pages come from: that is [`super::fetch`].
//! Start with [`Shards::apply`].

mod attachment;
mod holdings;
#[cfg(test)]
mod tests;
mod versions;

pub use holdings::Holdings;
pub use versions::{Part, Shards};
