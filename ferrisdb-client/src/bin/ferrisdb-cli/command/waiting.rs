//! Waits until the cluster has done what was asked of it, and tells meanwhile what is left.
//!
//! ```text
//!   ferrisdb-cli exclude 10.0.0.7:4502 --wait
//!   storage process at 10.0.0.7:4502 (zone r1) has 12 shards (storage 3)
//!   storage process at 10.0.0.7:4502 (zone r1) has 11 shards (storage 3)        a line whenever something changes
//!   done after 48 s
//! ```
//!
//! What was asked for is remembered by the controllers already: whoever stops waiting stops nothing else.

use std::time::Duration;

use anyhow::Result;
use ferrisdb_client::Status;
use ferrisdb_core::runtime;

use super::status::facts::Facts;
use crate::{
    output::{Failure, Output},
    runner::interruptible,
    session::Session,
};

/// How often the status is looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// Things left that are told one by one.
const LISTED_MAX: usize = 4;

/// Waits until nothing is `left` any more.
pub(super) async fn until_nothing_is_left(
    session: &Session,
    output: &mut Output<'_>,
    left: impl Fn(&Facts<'_>) -> Vec<String>,
) -> Result<()> {
    let began = runtime::now();
    let waited = interruptible(wait(session, output, left)).await;
    match waited {
        Ok(waited) => waited?,
        Err(interrupted) => {
            return Err(anyhow::Error::from(interrupted).context(Failure::new(
                "not waited for any longer",
                "the cluster goes on with it; status shows how far it is",
            )));
        }
    }
    let elapsed = runtime::now().saturating_duration_since(began);
    Ok(output.note(format_args!("done after {:.0} s", elapsed.as_secs_f64()))?)
}

async fn wait(
    session: &Session,
    output: &mut Output<'_>,
    left: impl Fn(&Facts<'_>) -> Vec<String>,
) -> Result<()> {
    let mut told = String::new();
    loop {
        let now = match session.database().status().await {
            Ok(status) => told_of(&status, &left),
            // The controllers may be electing a leader: that is no reason to stop.
            Err(error) => Some(format!("the status is not to be had now: {error}")),
        };
        let Some(now) = now else { return Ok(()) };
        if now != told {
            output.note(&now)?;
            told = now;
        }
        runtime::sleep(INTERVAL).await;
    }
}

fn told_of(status: &Status, left: impl Fn(&Facts<'_>) -> Vec<String>) -> Option<String> {
    let left = left(&Facts::new(status));
    let first = left.iter().take(LISTED_MAX).cloned().collect::<Vec<_>>().join("; ");
    match left.len() {
        0 => None,
        count if count > LISTED_MAX => Some(format!("{first}; and {} more", count - LISTED_MAX)),
        _ => Some(first),
    }
}
