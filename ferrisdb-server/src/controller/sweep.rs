//! Clears the records of idempotency ids whose clients never came back, as [`super::idempotency`] decides.
//!
//! ```text
//!   once a minute     a read version; from the first lifetime on, a page of records at it
//!   while there are   the next page; what is old in it is cleared by an ordinary commit
//! ```
//!
//! Whatever fails is left to the next pass.

use std::{sync::Arc, time::Duration};

use ferrisdb_core::{
    Endpoint, Error, ErrorCode, KeyRange, Result, Stage, runtime,
    service::{
        controller::{ClusterState, Phase},
        proxy::ProxyService,
        storage::{RangeRead, StorageService},
    },
    transport::{Network, call},
};

use super::idempotency::{Page, Sweeper};

/// How long a call may take.
const CALL_LIMIT: Duration = Duration::from_secs(2);
/// How long to wait between two pages: users come first.
const PAUSE: Duration = Duration::from_millis(50);
/// How many records a page has, and a commit clears.
const PAGE_ROWS: u32 = 1_000;
/// How many bytes a page has.
const PAGE_BYTES: u32 = 256 * 1024;

/// Sweeps for ever, in the cluster of the newest `state`.
pub(super) async fn sweep(
    network: Network,
    state: impl Fn() -> Arc<ClusterState>,
    lifetime: Duration,
) {
    let mut sweeper = Sweeper::new(lifetime);
    let mut turn = 0;
    loop {
        runtime::sleep(sweeper.pause()).await;
        loop {
            turn += 1;
            match sweep_page(&network, &state(), &mut sweeper, turn).await {
                Ok(Progress::More) => runtime::sleep(PAUSE).await,
                Ok(Progress::Done) => break,
                Err(error) => {
                    tracing::debug!(%error, "records of idempotency ids were not swept");
                    break;
                }
            }
        }
    }
}

/// Whether to go on with the pass.
enum Progress {
    More,
    Done,
}

async fn sweep_page(
    network: &Network,
    state: &ClusterState,
    sweeper: &mut Sweeper,
    turn: usize,
) -> Result<Progress> {
    let coordinator = state.coordinator.as_ref().filter(|_| state.phase == Phase::Active);
    let proxies = coordinator.map(|members| &members.proxies[..]).unwrap_or_default();
    let Some(proxy) = proxies.get(turn % proxies.len().max(1)) else {
        return Ok(Progress::Done);
    };
    let proxy = network.connect::<ProxyService>(proxy).await?;
    let read_version =
        call(CALL_LIMIT, Stage::ReadVersion, |context| proxy.read_version(context, false))
            .await??;
    let Some(page) = sweeper.on_read_version(read_version, runtime::now()) else {
        return Ok(Progress::Done);
    };
    let (mut covered, server) = source(state, &page, turn)?;
    let read = RangeRead {
        range: covered.clone(),
        read_version: page.read_version,
        rows_max: PAGE_ROWS,
        bytes_max: PAGE_BYTES,
        reverse: false,
    };
    let server = network.connect::<StorageService>(server).await?;
    let reply = call(CALL_LIMIT, Stage::Read, |context| server.get_range(context, read)).await??;
    covered = reply.covered(&covered, false).ok_or_else(|| {
        let detail = format!("a page of {covered} that makes no sense");
        Error::new(ErrorCode::Protocol, Stage::Control, detail)
    })?;
    let verdict = sweeper.on_page(&page, &covered, &reply.rows);
    if let Some(request) = verdict.clearing {
        let records = request.read_conflicts.len();
        call(CALL_LIMIT, Stage::Commit, |context| proxy.commit(context, request)).await??;
        tracing::info!(records, "records of idempotency ids were swept");
    }
    Ok(if verdict.is_last { Progress::Done } else { Progress::More })
}

/// What can be read of a page at once, and a server that has it.
fn source<'a>(
    state: &'a ClusterState,
    page: &Page,
    turn: usize,
) -> Result<(KeyRange, &'a Endpoint)> {
    let located = state.shards.of_key(&page.range.begin).and_then(|shard| {
        let part = shard.range.intersection(&page.range)?;
        let team = &shard.teams.team;
        let tag = team.get(turn % team.len().max(1))?;
        let server = state.storage_servers.iter().find(|server| server.tag == *tag)?;
        Some((part, &server.endpoint))
    });
    located.ok_or_else(|| {
        let detail = format!("no storage server holds {}", page.range.begin);
        Error::new(ErrorCode::Unavailable, Stage::Control, detail)
    })
}
