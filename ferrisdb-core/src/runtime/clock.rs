//! Time: a monotonic clock, timers, and the calendar for people.

use std::{
    future::Future,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

pub use std::time::Instant;

use crate::error::{Error, ErrorCode, Result, Stage};

/// The monotonic clock.
#[expect(clippy::disallowed_methods, reason = "this is the door")]
pub fn now() -> Instant {
    Instant::now()
}

/// Time since 1970, for logs and status only: nothing may be decided by it.
#[expect(clippy::disallowed_methods, reason = "this is the door")]
pub fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Waits.
#[cfg_attr(not(madsim), expect(clippy::disallowed_methods, reason = "this is the door"))]
pub async fn sleep(duration: Duration) {
    tokio::time::sleep(duration).await;
}

/// Waits for `future`, but not longer than `limit`.
///
/// # Errors
///
/// [`ErrorCode::TimedOut`] when the time is over; the future is dropped then.
#[cfg_attr(not(madsim), expect(clippy::disallowed_methods, reason = "this is the door"))]
pub async fn timeout<T>(
    limit: Duration,
    stage: Stage,
    future: impl Future<Output = T>,
) -> Result<T> {
    tokio::time::timeout(limit, future)
        .await
        .map_err(|_| Error::new(ErrorCode::TimedOut, stage, format!("no answer within {limit:?}")))
}
