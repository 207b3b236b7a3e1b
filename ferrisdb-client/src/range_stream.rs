//! Long range reads.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use ferrisdb_core::Result;
use futures::Stream;

use crate::options::KeyValue;

/// The rows of a range, read in pages as they are consumed.
pub struct RangeStream {}

impl Stream for RangeStream {
    type Item = Result<KeyValue>;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(None)
    }
}
