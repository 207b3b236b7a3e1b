//! Reads that see the transaction's own writes, and the record of what they observed.
//!
//! ```text
//!   key            a      b      c      d      e      f
//!   database       a0     b0     c0     .      e0     f0        . absent
//!   own writes     set 1         add 5  [cleared....)           (not sent before the commit)
//!   get_range      1      b0     c0+5   .      .      f0
//!   observed              b      c                    f         what a later write must not change
//! ```
//!
//! A value that the transaction has set or cleared itself is known: reading it asks no server and
//! observes nothing. An atomic operation on a value from the database depends on it, so the key is observed.
//! A range read observes what it covers up to the last row it returned, without the parts that were known.
//!
//! Keeps I-15. Knows nothing of versions, servers or time: all of it is plain data, and a range read is a
//! machine that says what to fetch next.
//! Start with [`Overlay::lookup`], then [`RangeRead`]. What the commit sends stands in [`Writes`].

mod conflicts;
#[cfg(test)]
mod model;
mod overlay;
mod range_read;
mod writes;

pub(crate) use conflicts::RangeSet;
pub(crate) use overlay::{Lookup, Overlay, stamped_range};
pub(crate) use range_read::{Fetch, RangeRead, Scan};
pub(crate) use writes::Writes;
