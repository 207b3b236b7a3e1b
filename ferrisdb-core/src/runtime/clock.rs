//! Time: a monotonic clock, timers, and the calendar for people.
//!
//! In a simulation each node may have a clock of its own, too fast, too slow or far off: see `node_clocks.rs`.

use std::{
    future::Future,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures::FutureExt as _;

pub use std::time::Instant;

#[cfg(madsim)]
use super::node_clocks;
use crate::error::{Error, ErrorCode, Result, Stage};

/// The monotonic clock.
pub fn now() -> Instant {
    #[cfg(not(madsim))]
    return true_now();
    #[cfg(madsim)]
    node_clocks::now()
}

/// The monotonic clock; in a simulation the one that is right, whatever a node's own shows. For libraries that read
/// it themselves, and for who watches a simulation from outside. Roles and clients take [`now`].
#[expect(clippy::disallowed_methods, reason = "this is the door")]
pub fn true_now() -> Instant {
    Instant::now()
}

/// Time since 1970, for logs and status only: nothing may be decided by it.
#[expect(clippy::disallowed_methods, reason = "this is the door")]
pub fn unix_time() -> Duration {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    #[cfg(madsim)]
    let time = node_clocks::calendar(time);
    time
}

/// Waits.
#[cfg_attr(not(madsim), expect(clippy::disallowed_methods, reason = "this is the door"))]
pub async fn sleep(duration: Duration) {
    #[cfg(madsim)]
    if node_clocks::is_own() {
        return node_clocks::sleep(duration).await;
    }
    tokio::time::sleep(duration).await;
}

/// Waits for `future`, but not longer than `limit` from the call on.
///
/// No `async fn`: that would have room for `future` twice, once as its argument and once where it waits for it.
///
/// # Errors
///
/// [`ErrorCode::TimedOut`] when the time is over; the future is dropped then.
///
/// # Panics
///
/// When called outside of the runtime.
#[cfg_attr(not(madsim), expect(clippy::disallowed_methods, reason = "this is the door"))]
pub fn timeout<T, F: Future<Output = T>>(
    limit: Duration,
    stage: Stage,
    future: F,
) -> impl Future<Output = Result<T>> + use<T, F> {
    let late =
        move || Error::new(ErrorCode::TimedOut, stage, format!("no answer within {limit:?}"));
    // Its own timeout is an `async fn`.
    #[cfg(madsim)]
    let future = Box::pin(future);
    #[cfg(madsim)]
    if node_clocks::is_own() {
        let over = node_clocks::sleep(limit);
        let waits = async move {
            tokio::select! {
                biased;
                output = future => Ok(output),
                () = over => Err(late()),
            }
        };
        return waits.left_future();
    }
    let waits = tokio::time::timeout(limit, future).map(move |output| output.map_err(|_| late()));
    #[cfg(madsim)]
    let waits = waits.right_future();
    waits
}
