//! Results that are there, or will be: what the C library and the simulation hand out, each in its own way.

use std::{future::Future as Work, sync::Arc};

use ferrisdb_client::{Key, MappedRow, RangePage, Value};

use crate::errors::Code;

/// What work ends with.
pub type Ended = Result<Output, Code>;

/// A result.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Nothing but that it is done.
    Void,
    /// A version, a size, a number of bytes.
    Int64(i64),
    /// A protocol version.
    Uint64(u64),
    /// A duration in seconds.
    Double(f64),
    /// Yes or no.
    Bool(bool),
    /// A key, a versionstamp, or a text.
    Key(Key),
    /// A value, if there is one.
    Value(Option<Value>),
    /// A part of a range.
    Rows(RangePage),
    /// A part of a mapped range.
    MappedRows {
        /// The rows.
        rows: Vec<MappedRow>,
        /// Whether there may be more of them.
        more: bool,
    },
    /// Several keys.
    Keys(Vec<Key>),
    /// Several texts.
    Strings(Vec<String>),
}

/// A result that is there, or will be: `FDBFuture`, as far as a transaction knows of it.
pub trait Promise: Send + Sync + 'static {
    /// A result that is there.
    fn ready(result: Ended) -> Arc<Self>;

    /// Begins some work. It is polled once before this returns, so that what it does first, such as taking its view of the
    /// transaction, comes before whatever the program does next.
    fn start(work: impl Work<Output = Ended> + Send + 'static) -> Arc<Self>;

    /// Gives the work up, if it has not ended, with an error.
    fn fail(self: &Arc<Self>, code: Code);

    /// Makes the result known before the work ends, which would end with the same. Kinds of results that nobody waits for in a
    /// certain order may leave success to the work.
    fn settle(self: &Arc<Self>, result: Ended) {
        if let Err(code) = result {
            self.fail(code);
        }
    }

    /// Whether the result is there.
    fn is_ready(&self) -> bool;

    /// Waits until the result is there.
    fn completed(self: Arc<Self>) -> impl Work<Output = ()> + Send;

    /// The error, or that there is none.
    ///
    /// # Errors
    ///
    /// `future_not_set`, or the error itself.
    fn error(&self) -> Result<(), Code>;
}
