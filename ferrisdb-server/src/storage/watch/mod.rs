//! Watches: who wants to hear when a key has another value than the one that they know.
//!
//! ```text
//!   client 7   #1 'a' is A, as of 40      #2 'b' is absent, as of 60        applied through 50: #2 waits for 60
//!   55         a := A                     the same value: no news
//!   57         clear 'a'..'c'             #1 has ended: changed at 57       #2 still waits
//!   60         b := B, b cleared          only what is left of a version counts: #2 goes on
//!   61         b := B                     #2 has ended: changed at 61
//! ```
//!
//! What a server compares is the value as it stands, not events: a watch that is begun late, or again after a failure,
//! on this server or on another one, ends at once if the value differs already. So nothing has to be remembered
//! across failures, and a change that persists is never missed. One that is undone between two looks may be.
//!
//! # Where a look is needed
//!
//! Every watch says what is true at the applied version, unless it waits for a later one:
//!
//! - when it is begun, and when the version that it waits for is reached;
//! - after each version, for the keys that it touched. Clears of ranges touch every watched key in them, and so do
//!   those with which a shard leaves: whoever watches there hears that the key is elsewhere;
//! - after a rollback, for watches that were looked at in the versions that are gone. Of all others the value is
//!   the same before and after: they were looked at before, and nothing has touched their keys since.
//!
//! A change that is told here may not be committed yet, and be rolled back. The client looks for itself, at a read
//! version, before it believes it. Waiting for that here instead would need a look at every watch whenever
//! the known committed version moves.
//!
//! # Sessions
//!
//! All watches of a client on a server share a *session*: one call changes it, another waits for its news. Ten
//! thousand watches take two requests, and one that ends costs its own number, not a list of all others. The client
//! gives the session up when a call fails, and begins its watches again in another one; a session that nobody
//! asks for news is forgotten after a while. So neither side repeats anything, and a restart loses nothing
//! but time.
//!
//! [`table`] decides, and knows neither locks nor tasks nor the network; `desk` holds it for the shell and answers the
//! calls. Nobody who watches costs a version one look at a counter; otherwise it is a search for each key that
//! the version touched. Start with [`table::WatchTable::begin`], then [`table::WatchTable::look`].

mod desk;
pub mod table;

pub(super) use desk::WatchDesk;
